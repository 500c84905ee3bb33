//! Pseudo terminals: of the host, for consoles, and of a container, for operators' programs inside.

use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, StatxFlags, Uid},
    io::Errno,
    pty::OpenptFlags,
    termios::Winsize,
};
use std::io;

/// Both ends of a pseudo terminal.
#[derive(Debug)]
pub struct Pty {
    /// Ours. Close-on-exec.
    pub master: OwnedFd,
    /// The program's. Close-on-exec.
    pub slave: OwnedFd,
}

/// Opens a new pseudo terminal on the host's devpts.
///
/// # Errors
/// What openpt(3) or `TIOCGPTPEER` say.
pub fn open() -> io::Result<Pty> {
    both_ends(rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?)
}

/// Numbers of `ptmx` (kernel Documentation/admin-guide/devices.txt).
const PTMX: (u32, u32) = (5, 2);
/// How often the path is looked up again when something was mounted or renamed meanwhile.
const TRIES: u32 = 100;

/// Opens a new pseudo terminal on the devpts at `/dev/pts` of the mount namespace this process has joined. `own_proc` is
/// the procfs this process was born under.
///
/// The path is a stranger's, who may have put anything there, and nothing of his is waited for. It is looked up in the
/// kernel's caches alone (`RESOLVE_CACHED`, openat2(2)). What it leads to is looked at without asking the filesystem it is on
/// (`AT_STATX_DONT_SYNC`), and opened only if it is a ptmx by its numbers: a node with these numbers on a filesystem that a user
/// namespace has mounted opens nothing unless that is a devpts.
///
/// # Errors
/// `ENOSPC`: all terminals are taken; `ENXIO`: something else is there; else what the calls say.
pub fn open_inside(own_proc: &impl AsFd) -> io::Result<Pty> {
    let plain = ResolveFlags::CACHED | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut left = TRIES;
    let node = loop {
        match rustix::fs::openat2(CWD, "/dev/pts/ptmx", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), plain) {
            Err(Errno::AGAIN) if left > 0 => left -= 1,
            other => break other?,
        }
    };
    let at = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let stat = rustix::fs::statx(&node, "", at, StatxFlags::empty())?;
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    if kind != FileType::CharacterDevice || (stat.stx_rdev_major, stat.stx_rdev_minor) != PTMX {
        return Err(Errno::NXIO.into());
    }
    let again = format!("self/fd/{}", node.as_raw_fd());
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    both_ends(rustix::fs::openat(own_proc, again, flags, Mode::empty())?)
}

fn both_ends(master: OwnedFd) -> io::Result<Pty> {
    rustix::pty::unlockpt(&master)?;
    // Asking the master for its peer needs no path, so nobody can slip another file in between.
    let slave =
        rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    Ok(Pty { master, slave })
}

/// Hands the slave to a user and group, mode 0620 as on every Debian terminal.
///
/// # Errors
/// What fchown(2) or fchmod(2) say.
pub fn give(slave: &impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    rustix::fs::fchown(slave, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    rustix::fs::fchmod(slave, Mode::RUSR | Mode::WUSR | Mode::WGRP)?;
    Ok(())
}

/// Sets the window size, in characters.
///
/// # Errors
/// What ioctl(2) says.
pub fn resize(terminal: &impl AsFd, rows: u16, cols: u16) -> io::Result<()> {
    rustix::termios::tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 })?;
    Ok(())
}

/// Makes this terminal the controlling one of the calling session leader.
///
/// # Errors
/// What ioctl(2) says.
pub fn take_control(terminal: &impl AsFd) -> io::Result<()> {
    rustix::process::ioctl_tiocsctty(terminal)?;
    Ok(())
}
