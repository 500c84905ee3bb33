//! Pseudo terminals of the host, for consoles and for operators' programs.

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Gid, Mode, Uid},
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
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
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
