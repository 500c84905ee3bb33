//! A name server with one answer, for the outside of a test host: every A question gets the same address, every
//! other question an empty answer.

use crate::netns::NetNs;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::mpsc,
    thread,
};

/// A running stub. It ends with the test process.
#[derive(Debug)]
pub struct Stub {
    asked: mpsc::Receiver<(String, SocketAddr)>,
}

impl Stub {
    /// Answers at `at`, port 53, in `outside`, with `answer`.
    ///
    /// # Errors
    /// The address is not there.
    pub fn start(outside: &NetNs, at: IpAddr, answer: Ipv4Addr) -> io::Result<Self> {
        let socket = outside.inside(|| UdpSocket::bind((at, 53)))?;
        let (send, asked) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0u8; 1500];
            while let Ok((n, from)) = socket.recv_from(&mut buffer) {
                if let Some((name, reply)) = reply(&buffer[..n], answer) {
                    let _ = socket.send_to(&reply, from);
                    let _ = send.send((name, from));
                }
            }
        });
        Ok(Self { asked })
    }

    /// The questions so far: the name, and who asked.
    pub fn questions(&self) -> Vec<(String, SocketAddr)> {
        self.asked.try_iter().collect()
    }
}

/// The name in a question, and the answer to it (RFC 1035, 4.1).
fn reply(question: &[u8], answer: Ipv4Addr) -> Option<(String, Vec<u8>)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let len = usize::from(*question.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + len)?).into_owned());
        at += len;
    }
    let kind = question.get(at..at + 2)?;
    let end = at + 4;
    let is_a = kind == [0, 1];
    let mut out = question.get(..2)?.to_vec();
    // Response, recursion available; one question, one answer or none.
    out.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    out.extend(question.get(12..end)?);
    if is_a {
        // A pointer to the name, type A, class IN, 60 s, 4 bytes.
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        out.extend(answer.octets());
    }
    Some((labels.join("."), out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_with_the_address() {
        let mut q = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        q.extend(b"\x03www\x07example\x00\x00\x01\x00\x01");
        let (name, r) = reply(&q, Ipv4Addr::new(192, 0, 2, 9)).unwrap();
        assert_eq!(name, "www.example");
        assert!(r.ends_with(&[192, 0, 2, 9]));
        assert!(reply(&q[..14], Ipv4Addr::LOCALHOST).is_none());
    }
}
