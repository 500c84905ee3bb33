//! Messages that keep their boundaries and can carry descriptors: `SOCK_SEQPACKET` over Unix sockets
//! (unix(7)). Used between vzd, vzctl and vzmon.
//!
//! Nothing here waits for ever for a peer that was stopped or hangs: connecting and sending have a deadline, receiving
//! has one unless the caller asks for none. Every call to the kernel is made without blocking, and poll(2) waits.

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

/// Connects to the listener at `dir/name`, which may take as long as `within` to have room for one more.
///
/// # Errors
/// What open(2) or connect(2) say; `NotFound` or `ConnectionRefused` when nobody listens, `TimedOut` when the listener
/// takes nobody in.
pub fn connect(dir: &std::path::Path, name: &str, within: Duration) -> io::Result<OwnedFd> {
    use rustix::{fd::AsRawFd, fs};
    let until = Until::after(Some(within));
    let dir = fs::open(dir, fs::OFlags::PATH | fs::OFlags::DIRECTORY | fs::OFlags::CLOEXEC, fs::Mode::empty())?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()).as_str())?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => break,
            // The listener's queue is full (unix(7)); nothing tells when there is room.
            Err(Errno::AGAIN) => until.pause()?,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(socket)
}

/// Accepts one connection, close-on-exec; `WouldBlock` when there is none.
///
/// # Errors
/// What accept(2) says.
pub fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?)
}

/// What [`send`] waits for room at the other side: it is meant for peers that read at once.
pub const SEND: Duration = Duration::from_secs(5);

/// Sends one message with descriptors; waits at most [`SEND`].
///
/// # Errors
/// As [`send_within`].
pub fn send(socket: &impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_within(socket, message, fds, SEND)
}

/// Sends one message with descriptors, waiting `within` for a peer that does not read and for memory that is short.
///
/// # Errors
/// `TimedOut` when it could not be sent in time, else as [`try_send`].
pub fn send_within(socket: &impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>], within: Duration) -> io::Result<()> {
    let until = Until::after(Some(within));
    loop {
        match try_send(socket, message, fds) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => until.writable(socket)?,
            // The kernel's memory for sockets is short, which passes as a rule (sendmsg(2)).
            Err(e) if [Errno::NOBUFS, Errno::NOMEM].map(Errno::raw_os_error).map(Some).contains(&e.raw_os_error()) => {
                until.pause().map_err(|_| e)?;
            }
            done => return done,
        }
    }
}

/// Sends one message with descriptors if there is room for it now.
///
/// # Errors
/// `InvalidInput` for a message beyond [`MAX_MESSAGE`] or more than [`MAX_FDS`] descriptors, `WouldBlock` when there is
/// no room, else what sendmsg(2) says. A closed peer is `BrokenPipe`, never a signal.
pub fn try_send(socket: &impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if message.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message too large for a seqpacket"));
    }
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut control, flags) {
            Ok(_) => return Ok(()),
            // The peer ended with a message of ours unread; that is told once, and then that it is closed.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Receives one message and its descriptors (close-on-exec). An empty message is the peer's end. What the peer said
/// before its end is received first, also when it ended with a message of ours unread.
///
/// # Errors
/// `TimedOut` when nothing came within `timeout` (`None`: wait for ever), else as [`try_recv`].
pub fn recv(socket: &impl AsFd, timeout: Option<Duration>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let until = Until::after(timeout);
    loop {
        match try_recv(socket) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => until.readable(socket)?,
            done => return done,
        }
    }
}

/// Receives the message that is there now, as [`recv`].
///
/// # Errors
/// `WouldBlock` when there is none, `InvalidData` for a message that did not fit, else what recvmsg(2) says.
pub fn try_recv(socket: &impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0u8; next_length(socket)?];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags) {
            Ok(got) => break got,
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(e) => return Err(e.into()),
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(list) = message {
            fds.extend(list);
        }
    }
    // There is room for as many as the protocol has: what is missing could not be given a number here.
    if got.flags.contains(ReturnFlags::CTRUNC) && fds.len() < MAX_FDS {
        return Err(io::Error::other(
            "descriptors that came with a message could not be taken: this process has too many open files",
        ));
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was longer than the protocol allows"));
    }
    buffer.truncate(got.bytes);
    Ok((buffer, fds))
}

/// Length of the message that comes next: so that a monitor that lives for months does not keep a buffer of
/// [`MAX_MESSAGE`] around for the few bytes it is usually told.
fn next_length(socket: &impl AsFd) -> io::Result<usize> {
    let mut none: [u8; 0] = [];
    loop {
        match rustix::net::recv(socket, &mut none, RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT) {
            Ok((_, length)) => return Ok(length.clamp(1, MAX_MESSAGE)),
            // A peer that ended with a message of ours unread: told once, in front of its last messages and its end.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Between two tries at what nothing can be waited for.
const AGAIN: Duration = Duration::from_millis(10);

/// How long something may still take; `None`: for ever.
#[derive(Clone, Copy)]
struct Until(Option<Instant>);

impl Until {
    fn after(timeout: Option<Duration>) -> Self {
        Self(timeout.and_then(|t| Instant::now().checked_add(t)))
    }

    /// What is left, `TimedOut` when that is nothing.
    fn left(self) -> io::Result<Option<Duration>> {
        let left = self.0.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|l| l.is_zero()) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// Waits until a message has come or the peer has ended; may return early.
    fn readable(self, socket: &impl AsFd) -> io::Result<()> {
        let left = self.left()?.map(timespec);
        sleep(&mut [PollFd::new(socket, PollFlags::IN)], left.as_ref())
    }

    /// Waits for room, a moment at most: poll(2) tells of it only when most of the buffer is free, and one message may
    /// fit before that.
    fn writable(self, socket: &impl AsFd) -> io::Result<()> {
        let moment = self.moment()?;
        sleep(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&moment))
    }

    /// Lets a moment pass.
    fn pause(self) -> io::Result<()> {
        let moment = self.moment()?;
        sleep(&mut [], Some(&moment))
    }

    fn moment(self) -> io::Result<Timespec> {
        Ok(timespec(self.left()?.map_or(AGAIN, |left| left.min(AGAIN))))
    }
}

fn sleep(fds: &mut [PollFd<'_>], at_most: Option<&Timespec>) -> io::Result<()> {
    match poll(fds, at_most) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn timespec(d: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(d.subsec_nanos()) }
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

    /// A deadline no sound test comes near, and one that passes at once.
    const PLENTY: Duration = Duration::from_secs(60);
    const LITTLE: Duration = Duration::from_millis(20);

    #[test]
    fn a_listener_that_takes_nobody_in_keeps_nobody_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let opened = rustix::fs::open(dir.path(), rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
        let listener = listen(opened.as_fd(), "s").unwrap();
        let mut queue = Vec::new();
        let refused = loop {
            match connect(dir.path(), "s", LITTLE) {
                Ok(socket) => queue.push(socket),
                Err(e) => break e,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        assert!(!queue.is_empty());
        // Once one is taken in there is room for another.
        let _first = accept(&listener).unwrap();
        connect(dir.path(), "s", PLENTY).unwrap();
        drop(listener);
        assert_eq!(connect(dir.path(), "s", PLENTY).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_peer_that_never_reads_ends_a_send_at_the_deadline_and_what_it_got_stays_whole() {
        let (a, b) = pair().unwrap();
        let message = vec![7; 32 << 10];
        let mut sent = 0;
        while send_within(&a, &message, &[], LITTLE).is_ok() {
            sent += 1;
        }
        assert_eq!(send_within(&a, &message, &[], LITTLE).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(try_send(&a, &message, &[]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for _ in 0..sent {
            assert_eq!(recv(&b, Some(PLENTY)).unwrap().0, message);
        }
        assert_eq!(try_recv(&b).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        send(&a, &message, &[]).unwrap();
    }

    #[test]
    fn a_send_waits_for_a_slow_peer() {
        let (a, b) = pair().unwrap();
        let message = vec![7; 32 << 10];
        while try_send(&a, &message, &[]).is_ok() {}
        std::thread::scope(|s| {
            s.spawn(|| recv(&b, Some(PLENTY)).unwrap());
            send_within(&a, b"last", &[], PLENTY).unwrap();
        });
    }

    #[test]
    fn the_last_words_of_a_peer_that_did_not_listen_are_heard() {
        let (a, b) = pair().unwrap();
        send(&a, b"unread", &[]).unwrap();
        send(&b, b"why", &[]).unwrap();
        send(&b, b"bye", &[]).unwrap();
        drop(b);
        assert_eq!(send(&a, b"more", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(recv(&a, Some(PLENTY)).unwrap().0, b"why");
        assert_eq!(recv(&a, Some(PLENTY)).unwrap().0, b"bye");
        assert!(recv(&a, Some(PLENTY)).unwrap().0.is_empty());
        let (a, b) = pair().unwrap();
        send(&a, b"unread", &[]).unwrap();
        send(&b, b"why", &[]).unwrap();
        drop(b);
        assert_eq!(recv(&a, None).unwrap().0, b"why");
        assert!(recv(&a, None).unwrap().0.is_empty());
    }

    fn tempfile() -> std::fs::File {
        rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap().into()
    }
}
