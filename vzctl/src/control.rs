//! A running container's monitor, asked directly through its control socket: no vzd is needed for that.

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};
use vz_types::{
    Ctid, Paths,
    plan::{ControlReply, ControlRequest},
};

/// The largest frame read; vzmon sends less.
pub const FRAME: usize = 128 << 10;

/// Connects, asks, and waits for the answer as long as it takes. The socket goes on for those who have more to say.
///
/// # Errors
/// The monitor cannot be reached, or its answer is none.
pub fn ask(paths: &Paths, ctid: Ctid, request: &ControlRequest) -> io::Result<(ControlReply, OwnedFd)> {
    let dir = std::fs::File::open(paths.ct_run(ctid))?;
    // Through the descriptor, because a socket's address has room for 107 bytes only.
    let address = UnixAddr::new(format!("/proc/self/fd/{}/control.sock", dir.as_raw_fd()).as_str())?;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(socket.as_raw_fd(), &address)?;
    send(socket.as_raw_fd(), &serde_json::to_vec(request)?, MsgFlags::MSG_NOSIGNAL)?;
    let mut buffer = vec![0; FRAME];
    let n = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    match n {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => Ok((serde_json::from_slice(&buffer[..n])?, socket)),
    }
}
