//! What the operator reads from: written to without ever waiting for whoever reads, who may be stopped, a pager, or away.

use rustix::{
    fs::{FileType, Mode, OFlags},
    io::Errno,
    net::SendFlags,
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

const CHUNK: usize = 32 << 10;
/// `PIPE_BUF` of Linux: where poll(2) tells that a pipe can be written to, there is room for as much (pipe(7)).
const PIPE_BUF: usize = 4096;

/// A standard descriptor of the operator's. The flag that makes writing non-blocking belongs to the open file, which may be
/// shared with other processes: a pipe or terminal is opened once more for us, a socket has a flag for each message.
enum Way {
    Own(OwnedFd),
    Socket,
    /// A file takes what it gets; of anything else, no more at once than there is room for.
    Shared(usize),
}

/// Bytes on their way from the program inside to the operator: at most one chunk is taken before it is delivered.
pub(super) struct Flow {
    to: BorrowedFd<'static>,
    way: Way,
    pending: Vec<u8>,
    /// The operator reads no more.
    pub(super) broken: bool,
}

impl Flow {
    pub(super) fn to(fd: BorrowedFd<'static>) -> Self {
        Self { to: fd, way: way(fd), pending: Vec::new(), broken: false }
    }

    /// What tells when more can be written.
    pub(super) fn client(&self) -> BorrowedFd<'_> {
        match &self.way {
            Way::Own(fd) => fd.as_fd(),
            _ => self.to,
        }
    }

    /// Everything taken was delivered, or nobody wants it.
    pub(super) fn is_done(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether writing needs no poll(2) before it.
    pub(super) fn gives_at_once(&self) -> bool {
        !matches!(self.way, Way::Shared(PIPE_BUF))
    }

    /// Takes what is there now. Gives back false at its end.
    pub(super) fn take(&mut self, from: &OwnedFd) -> io::Result<bool> {
        let mut buffer = [0u8; CHUNK];
        match rustix::io::read(from, &mut buffer) {
            // EIO: a terminal that nobody has open any more.
            Ok(0) | Err(Errno::IO) => Ok(false),
            Ok(n) => {
                self.pending.extend_from_slice(&buffer[..n]);
                Ok(true)
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    /// Delivers what there is room for. Gives back whether that was something.
    pub(super) fn give(&mut self) -> io::Result<bool> {
        let mut gave = false;
        while !self.pending.is_empty() {
            let (written, once) = match &self.way {
                Way::Own(fd) => (rustix::io::write(fd, &self.pending), false),
                Way::Socket => {
                    (rustix::net::send(self.to, &self.pending, SendFlags::DONTWAIT | SendFlags::NOSIGNAL), false)
                }
                Way::Shared(most) => {
                    let piece = &self.pending[..self.pending.len().min(*most)];
                    (rustix::io::write(self.to, piece), true)
                }
            };
            match written {
                Ok(n) => {
                    self.pending.drain(..n);
                    gave = true;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(gave),
                // Like `| head`: the program learns of it by its own SIGPIPE.
                Err(Errno::PIPE) => {
                    self.broken = true;
                    self.pending.clear();
                }
                Err(e) => return Err(e.into()),
            }
            // Whether there is room for more, poll(2) has to tell.
            if once {
                return Ok(gave);
            }
        }
        Ok(gave)
    }
}

fn way(fd: BorrowedFd<'static>) -> Way {
    let kind = rustix::fs::fstat(fd).map(|s| FileType::from_raw_mode(s.st_mode));
    let again = match kind {
        Ok(FileType::Socket) => return Way::Socket,
        Ok(FileType::RegularFile) => return Way::Shared(usize::MAX),
        Ok(FileType::Fifo) => true,
        Ok(FileType::CharacterDevice) => rustix::termios::isatty(fd),
        _ => false,
    };
    if again {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        if let Ok(own) = rustix::fs::open(path, flags, Mode::empty()) {
            return Way::Own(own);
        }
    }
    Way::Shared(PIPE_BUF)
}
