//! What the tests see of processes and mounts with their own eyes (proc(5)): not through vz's own reader, which is among
//! what is tested. Where something is gone, there is nothing to be seen of it.

use std::{fs, path::PathBuf};

/// Of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Clone, Debug)]
pub struct Stat(Vec<String>);

impl Stat {
    /// A process's, if it is there.
    pub fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; fields are counted after it.
        Some(Self(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect()))
    }

    /// A field by its number in the manual, from 3 on.
    fn field(&self, n: usize) -> Option<u64> {
        self.0.get(n - 3)?.parse().ok()
    }

    /// One letter; a space where there is none.
    pub fn state(&self) -> char {
        self.0.first().and_then(|s| s.chars().next()).unwrap_or(' ')
    }

    /// Its parent's number.
    pub fn parent(&self) -> Option<u32> {
        self.field(4)?.try_into().ok()
    }

    /// Clock ticks of processor time, those of threads that have ended included.
    pub fn ticks(&self) -> u64 {
        self.field(14).unwrap_or_default() + self.field(15).unwrap_or_default()
    }

    /// Clock ticks since the host's boot at which it began: with its number, who it is.
    pub fn start_time(&self) -> Option<u64> {
        self.field(22)
    }
}

/// Every process there is.
pub fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// A mount of this process's mount namespace.
#[derive(Clone, Debug)]
pub struct Mount {
    /// Where.
    pub at: PathBuf,
    /// The filesystem's type.
    pub kind: String,
    /// Of the filesystem.
    pub options: String,
}

/// All of them, in the order in which they were mounted (proc_pid_mountinfo(5)).
pub fn mounts() -> Vec<Mount> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let (at, mut rest) = (before.split(' ').nth(4)?, after.split(' '));
        let (kind, options) = (rest.next()?.to_owned(), rest.nth(1).unwrap_or_default().to_owned());
        Some(Mount { at: PathBuf::from(at), kind, options })
    };
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(mount).collect()
}
