//! Messages that keep their boundaries and can carry descriptors: `SOCK_SEQPACKET` over Unix sockets
//! (unix(7)). Used between vzd, vzctl and vzmon.

use rustix::{
    cmsg_space,
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    time::{Duration, Instant},
};

/// Largest message: below the default `net.core.wmem_default` of 212992, which bounds a packet.
pub const MAX_MESSAGE: usize = 192 << 10;
/// Most descriptors in one message.
pub const MAX_FDS: usize = 12;

/// A connected pair, close-on-exec.
///
/// # Errors
/// What socketpair(2) says.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Listens at `dir/name`; going through the directory's descriptor keeps the address below the 108
/// bytes of `sun_path` however deep the directory is. An existing socket there is replaced.
///
/// # Errors
/// What socket(2), bind(2), chmod(2) or listen(2) say.
pub fn listen(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    use rustix::{fd::AsRawFd, fs};
    match fs::unlinkat(dir, name, fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    rustix::net::bind(&socket, &SocketAddrUnix::new(path.as_str())?)?;
    fs::chmodat(dir, name, fs::Mode::RUSR | fs::Mode::WUSR, fs::AtFlags::empty())?;
    rustix::net::listen(&socket, 32)?;
    Ok(socket)
}

/// Connects to the listener at `dir/name`.
///
/// # Errors
/// What open(2) or connect(2) say; `NotFound` or `ConnectionRefused` when nobody listens.
pub fn connect(dir: &std::path::Path, name: &str) -> io::Result<OwnedFd> {
    use rustix::{fd::AsRawFd, fs};
    let dir = fs::open(dir, fs::OFlags::PATH | fs::OFlags::DIRECTORY | fs::OFlags::CLOEXEC, fs::Mode::empty())?;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_str())?)?;
    Ok(socket)
}

/// Accepts one connection, close-on-exec; `WouldBlock` when there is none.
///
/// # Errors
/// What accept(2) says.
pub fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?)
}

/// Sends one message with descriptors.
///
/// # Errors
/// `InvalidInput` for a message beyond [`MAX_MESSAGE`] or more than [`MAX_FDS`] descriptors, else what
/// sendmsg(2) says. A closed peer is `BrokenPipe`, never a signal.
pub fn send(socket: &impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if message.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message too large for a seqpacket"));
    }
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Receives one message and its descriptors (close-on-exec). An empty message is the peer's end.
///
/// # Errors
/// `TimedOut` when nothing came within `timeout` (`None`: wait for ever), `InvalidData` for a message that
/// did not fit, else what recvmsg(2) says.
pub fn recv(socket: &impl AsFd, timeout: Option<Duration>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    if let Some(timeout) = timeout {
        wait_readable(socket, Instant::now() + timeout)?;
    }
    let mut buffer = vec![0u8; next_length(socket)?];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => break got,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(list) = message {
            fds.extend(list);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was longer than the protocol allows"));
    }
    buffer.truncate(got.bytes);
    Ok((buffer, fds))
}

/// Length of the message that comes next, waiting for it: so that a monitor that lives for months does not keep a
/// buffer of [`MAX_MESSAGE`] around for the few bytes it is usually told.
fn next_length(socket: &impl AsFd) -> io::Result<usize> {
    let mut none: [u8; 0] = [];
    loop {
        match rustix::net::recv(socket, &mut none, RecvFlags::PEEK | RecvFlags::TRUNC) {
            Ok((_, length)) => return Ok(length.clamp(1, MAX_MESSAGE)),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Waits until `fd` is readable or at its end.
///
/// # Errors
/// `TimedOut` at the deadline.
pub fn wait_readable(fd: &impl AsFd, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let spec = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&spec)) {
            Ok(0) if left.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn messages_keep_their_boundaries_and_carry_descriptors() {
        let (a, b) = pair().unwrap();
        let mut file = tempfile();
        file.write_all(b"through").unwrap();
        send(&a, b"one", &[]).unwrap();
        send(&a, b"two", &[file.as_fd()]).unwrap();
        assert_eq!(recv(&b, None).unwrap().0, b"one");
        let (text, fds) = recv(&b, Some(Duration::from_secs(1))).unwrap();
        assert_eq!((text.as_slice(), fds.len()), (&b"two"[..], 1));
        let mut copy = std::fs::File::from(fds.into_iter().next().unwrap());
        copy.rewind().unwrap();
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(a);
        assert!(recv(&b, None).unwrap().0.is_empty());
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (_a, b) = pair().unwrap();
        assert_eq!(recv(&b, Some(Duration::from_millis(5))).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    fn tempfile() -> std::fs::File {
        rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap().into()
    }
}
