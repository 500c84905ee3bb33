//! The files a monitor leaves below `/run/vz/ct/<CTID>/`: whole or not at all, on disk before anybody is told.

use rustix::fs::{AtFlags, Mode, OFlags};
use serde::Serialize;
use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    time::{SystemTime, UNIX_EPOCH},
};

/// Replaces `name` in `dir` by the JSON of `value`. With `durable`, file and directory are flushed first.
pub fn write_json(dir: BorrowedFd<'_>, name: &str, value: &impl Serialize, durable: bool) -> io::Result<()> {
    let temp = format!(".{name}.new");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut file = File::from(rustix::fs::openat(dir, &temp, flags, Mode::RUSR | Mode::WUSR)?);
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    file.write_all(&text)?;
    if durable {
        rustix::fs::fdatasync(&file)?;
    }
    rustix::fs::renameat(dir, &temp, dir, name)?;
    if durable {
        rustix::fs::fsync(dir)?;
    }
    Ok(())
}

/// Removes `name` from `dir`; absent is fine.
pub fn remove(dir: &impl AsFd, name: &str) {
    // A leftover is recognised as stale by its start time, so failing here harms nobody.
    let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
