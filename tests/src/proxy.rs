//! A forward HTTP proxy between a test host's namespace and the machine's own network, so that a package manager
//! inside a container can fetch packages while all its traffic stays in namespaces of ours: the listening socket
//! belongs to the test host, the outgoing connections to the machine. For tests alone: GET, one request per
//! connection. Packages (`.deb`, whose address names their version) are kept in the tests' cache, so that a second run
//! fetches none of them; indices are always asked for.

use crate::{netns::NetNs, template};
use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
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

    /// A shell line for a Debian: its packages come through here, and are on disk when the kernel gets to it. Every package
    /// would wait for a dozen syncs otherwise, for nothing: what installs is about no power cut.
    pub fn apt(&self) -> String {
        let unsynced = "force-unsafe-io";
        format!(
            "printf 'Acquire::http::Proxy \"{}\";\\nAcquire::http::Pipeline-Depth \"0\";\\nAcquire::Languages \"none\";\\n' \
               >/etc/apt/apt.conf.d/99test && echo {unsynced} >/etc/dpkg/dpkg.cfg.d/99test",
            self.url()
        )
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
    let kept = (method == "GET" && path.ends_with(".deb")).then(|| kept_at(&target));
    if let Some(mut file) = kept.as_deref().and_then(|k| fs::File::open(k).ok()) {
        let length = file.metadata()?.len();
        write!(client, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")?;
        io::copy(&mut file, &mut client)?;
        return Ok(());
    }
    let mut server = match TcpStream::connect(&origin) {
        Ok(s) => s,
        Err(_) => {
            return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        }
    };
    server.set_read_timeout(limit)?;
    server.write_all(format!("{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").as_bytes())?;
    match kept {
        Some(kept) => pass_and_keep(server, &mut client, &kept),
        None => io::copy(&mut server, &mut client).map(|_| ()),
    }
}

/// Where a package is kept: its name for people, and a hash of its whole address.
fn kept_at(target: &str) -> PathBuf {
    let mut hash = DefaultHasher::new();
    target.hash(&mut hash);
    let name = target.rsplit('/').next().unwrap_or_default();
    template::cache_dir().join("packages").join(format!("{:016x}-{name}", hash.finish()))
}

/// Passes an answer on; a whole one is kept.
fn pass_and_keep(server: TcpStream, client: &mut TcpStream, kept: &Path) -> io::Result<()> {
    let mut server = BufReader::new(server);
    let (mut head, mut length) = (String::new(), None);
    while server.read_line(&mut head)? > 0 && !head.ends_with("\r\n\r\n") {}
    for line in head.lines() {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<u64>().ok();
        }
    }
    client.write_all(head.as_bytes())?;
    let whole = head.split(' ').nth(1) == Some("200");
    let (Some(dir), Some(length), true) = (kept.parent(), length, whole) else {
        return io::copy(&mut server, client).map(|_| ());
    };
    fs::create_dir_all(dir)?;
    let mut part = tempfile::NamedTempFile::new_in(dir)?;
    let got = io::copy(&mut server, &mut Tee(client, part.as_file_mut()))?;
    if got == length {
        part.persist(kept)?;
    }
    Ok(())
}

/// Writes to both.
struct Tee<'a>(&'a mut TcpStream, &'a mut fs::File);

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.0.write(bytes)?;
        self.1.write_all(&bytes[..n])?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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
    fn a_whole_answer_is_kept_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("packages/x.deb");
        let pass = |answer: &'static [u8]| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let pair = || {
                let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                (a, listener.accept().unwrap().0)
            };
            let ((server, mut origin), (mut client, mut reader)) = (pair(), pair());
            origin.write_all(answer).unwrap();
            drop(origin);
            pass_and_keep(server, &mut client, &kept).unwrap();
            drop(client);
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            assert_eq!(all, answer);
            fs::read(&kept).ok()
        };
        assert_eq!(pass(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"), None);
        assert_eq!(pass(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc"), None);
        assert_eq!(pass(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd"), Some(b"abcd".to_vec()));
        assert_ne!(kept_at("http://a/x.deb"), kept_at("http://b/x.deb"));
    }

    #[test]
    fn targets_are_split_into_origin_and_path() {
        assert_eq!(split("http://a.example/x/y?z"), Some(("a.example:80".into(), "/x/y?z".into())));
        assert_eq!(split("http://a.example:81"), Some(("a.example:81".into(), "/".into())));
        assert_eq!(split("/x"), None);
    }
}
