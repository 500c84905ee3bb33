//! A forward HTTP proxy between a test host's namespace and the machine's own network, so that a package manager
//! inside a container can fetch packages while all its traffic stays in namespaces of ours: the listening socket
//! belongs to the test host, the outgoing connections to the machine. For tests alone: GET, one request per
//! connection.

use crate::netns::NetNs;
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

/// A running proxy. It ends with the test process.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
}

impl Proxy {
    /// Listens at `at` (an address of the test host) on a free port.
    ///
    /// # Errors
    /// The address is not there.
    pub fn start(host: &NetNs, at: IpAddr) -> io::Result<Self> {
        let listener = host.inside(|| TcpListener::bind((at, 0)))?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                thread::spawn(move || {
                    // A client that goes away, or an origin that cannot be reached, is the client's to notice.
                    let _ = serve(client);
                });
            }
        });
        Ok(Self { address })
    }

    /// `http://ADDRESS:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(client: TcpStream) -> io::Result<()> {
    let limit = Some(Duration::from_secs(60));
    client.set_read_timeout(limit)?;
    let mut reader = BufReader::new(client.try_clone()?).take(64 << 10);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut headers = String::new();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header == "\r\n" {
            break;
        }
        let name = header.split(':').next().unwrap_or_default().to_ascii_lowercase();
        if !["connection", "proxy-connection", "keep-alive"].contains(&name.as_str()) {
            headers.push_str(&header);
        }
    }
    let mut client = client;
    let Some((origin, path)) = split(&target).filter(|_| method == "GET" || method == "HEAD") else {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    };
    let mut server = match TcpStream::connect(&origin) {
        Ok(s) => s,
        Err(_) => {
            return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        }
    };
    server.set_read_timeout(limit)?;
    server.write_all(format!("{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").as_bytes())?;
    io::copy(&mut server, &mut client)?;
    Ok(())
}

/// `http://host[:port]/path` as (`host:port`, `/path`).
fn split(target: &str) -> Option<(String, String)> {
    let rest = target.strip_prefix("http://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let origin = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    Some((origin, format!("/{path}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_split_into_origin_and_path() {
        assert_eq!(split("http://a.example/x/y?z"), Some(("a.example:80".into(), "/x/y?z".into())));
        assert_eq!(split("http://a.example:81"), Some(("a.example:81".into(), "/".into())));
        assert_eq!(split("/x"), None);
    }
}
