//! The generation of this network namespace's nftables: a number that every committed change of any table raises by one,
//! and nothing else (net/netfilter/nf_tables_api.c, `nf_tables_commit`). As long as it stays, nothing was changed.

use crate::netlink::wait_readable;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::{io, time::Duration};

/// How long the answer may take before we stop believing in it.
const ANSWER: Duration = Duration::from_secs(5);

/// Asks for it, in the calling thread's network namespace.
///
/// # Errors
/// `socket(2)`, or the errno the kernel answered with.
pub fn generation() -> io::Result<u32> {
    // linux/netfilter/nf_tables.h: NFT_MSG_GETGEN.
    const GET: u16 = (10 << 8) | 16;
    const REQUEST: u16 = 1;
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // nlmsghdr, then an empty nfgenmsg.
    let mut ask = 20u32.to_ne_bytes().to_vec();
    ask.extend(GET.to_ne_bytes());
    ask.extend(REQUEST.to_ne_bytes());
    ask.extend([0; 12]);
    socket.send(&ask, 0)?;
    if !wait_readable(&socket, ANSWER)? {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer from the kernel's netlink"));
    }
    let (bytes, _) = socket.recv_from_full()?;
    number(&bytes).unwrap_or_else(|| Err(io::Error::new(io::ErrorKind::InvalidData, "an answer without a generation")))
}

/// The number in an answer, or the refusal it is.
fn number(answer: &[u8]) -> Option<io::Result<u32>> {
    // NFT_MSG_NEWGEN and its attribute NFTA_GEN_ID.
    const NEW: u16 = (10 << 8) | 15;
    const ID: u16 = 1;
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    match half(4)? {
        NEW => {}
        2 => {
            let code = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
            return Some(Err(io::Error::from_raw_os_error(-code)));
        }
        _ => return None,
    }
    let mut at = 20;
    while let (Some(length), Some(kind)) = (half(at), half(at + 2)) {
        if kind == ID {
            // Numbers of netfilter are in network order.
            return Some(Ok(u32::from_be_bytes(answer.get(at + 4..at + 8)?.try_into().ok()?)));
        }
        at += usize::from(length).max(4).next_multiple_of(4);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found_among_the_attributes_and_a_refusal_is_one() {
        let mut answer = vec![0u8; 20];
        answer[4..6].copy_from_slice(&((10u16 << 8) | 15).to_ne_bytes());
        let attribute = |kind: u16, value: u32| {
            let mut a = 8u16.to_ne_bytes().to_vec();
            a.extend(kind.to_ne_bytes());
            a.extend(value.to_be_bytes());
            a
        };
        assert!(number(&answer).is_none());
        answer.extend(attribute(2, 7));
        answer.extend(attribute(1, 4711));
        assert_eq!(number(&answer).unwrap().unwrap(), 4711);
        answer[4..6].copy_from_slice(&2u16.to_ne_bytes());
        answer[16..20].copy_from_slice(&(-1i32).to_ne_bytes());
        assert_eq!(number(&answer).unwrap().unwrap_err().raw_os_error(), Some(1));
        assert!(number(&answer[..3]).is_none());
    }
}
