//! Writing settings to a container's cgroup: each is read back, and all are put back when one fails.

use super::{Files, disks::Disk};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use vz_types::limits::{
    config::Mask,
    kernel::{IO_MAX_NONE, Setting},
};

/// Why a limit is not in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused it.
    #[error("{name}: cannot write `{value}` to {}", path.display())]
    Write {
        /// The counter or parameter.
        name: &'static str,
        /// What was written.
        value: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel took it and has something else.
    #[error("{name}: {} holds `{found}` after `{value}` was written", path.display())]
    ReadBack {
        /// The counter or parameter.
        name: &'static str,
        /// What was written.
        value: String,
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// More is in use than the new limit.
    #[error("{name}: {used} are in use, more than the new limit of {wanted}")]
    InUse {
        /// The counter.
        name: &'static str,
        /// What is held.
        used: String,
        /// What was asked for.
        wanted: String,
    },
}

/// One file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The counter or parameter.
    pub name: &'static str,
    /// The file.
    pub file: &'static str,
    /// What it is to hold; for per-disk files the disk comes first.
    pub value: String,
}

impl From<&Setting> for Write {
    fn from(s: &Setting) -> Self {
        Self { name: s.name, file: s.file, value: s.value.clone() }
    }
}

/// `io.max` of these disks.
pub fn io_writes(name: &'static str, disks: &[Disk], words: &str) -> Vec<Write> {
    disks.iter().map(|d| Write { name, file: "io.max", value: format!("{d} {words}") }).collect()
}

/// How long reclaim before a smaller memory limit may take.
const RECLAIM: Duration = Duration::from_secs(10);

/// Makes every one of these writes in the cgroup `dir`, and reads each back; after a failure the files hold what they
/// held before.
///
/// # Errors
/// The first that failed.
pub fn write_all(dir: &Path, writes: &[Write]) -> Result<(), Error> {
    let mut done: Vec<Write> = Vec::new();
    for w in writes {
        let before = holds(dir, w);
        let outcome = write_one(dir, w);
        // A write the kernel took and changed is to be taken back as well.
        if let Some(value) = before {
            done.push(Write { value, ..w.clone() });
        }
        if let Err(e) = outcome {
            for old in done.iter().rev() {
                if let Err(e) = write_one(dir, old) {
                    tracing::error!(cgroup = %dir.display(), "putting a limit back: {e}");
                }
            }
            return Err(e);
        }
    }
    Ok(())
}

fn write_one(dir: &Path, w: &Write) -> Result<(), Error> {
    let path = dir.join(w.file);
    if w.file == "memory.max" {
        make_room(dir, w)?;
    }
    // An empty write is no write at all to the kernel; a newline empties a mask.
    let text = if w.value.is_empty() { "\n" } else { w.value.as_str() };
    let mut written = fs::write(&path, text);
    let mut wanted = w.value.clone();
    if w.value.is_empty() && written.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::ENOSPC)) {
        // A mask cannot be emptied while processes are in the cgroup: all that the parent has means the same.
        wanted = above(dir, w.file);
        written = fs::write(&path, &wanted);
    }
    written.map_err(|source| Error::Write { name: w.name, value: w.value.clone(), path: path.clone(), source })?;
    let found = holds(dir, w).unwrap_or_default();
    if same(w.file, &found, &wanted) {
        return Ok(());
    }
    Err(Error::ReadBack { name: w.name, value: w.value.clone(), path, found })
}

/// What a mask of the parent comes to.
fn above(dir: &Path, file: &str) -> String {
    let effective = dir.parent().map(|p| p.join(format!("{file}.effective")));
    effective.and_then(|p| fs::read_to_string(p).ok()).unwrap_or_default().trim().to_owned()
}

/// A memory limit below the use makes the kernel kill. So what is in use is reclaimed first, and what does not go away
/// is a refusal.
fn make_room(dir: &Path, w: &Write) -> Result<(), Error> {
    let Ok(limit) = w.value.parse::<u64>() else { return Ok(()) };
    let until = Instant::now() + RECLAIM;
    loop {
        let Some(used) = number(dir, "memory.current").filter(|used| *used > limit) else { return Ok(()) };
        // EAGAIN: less than asked for was reclaimed, which is no reason not to ask again.
        let reclaimed = fs::write(dir.join("memory.reclaim"), (used - limit).to_string());
        let gone = reclaimed.is_ok() || number(dir, "memory.current").is_some_and(|now| now < used);
        if number(dir, "memory.current").is_some_and(|now| now <= limit) {
            return Ok(());
        }
        if !gone || Instant::now() >= until {
            let human = vz_types::limits::amount::human;
            let used = number(dir, "memory.current").unwrap_or(used);
            return Err(Error::InUse {
                name: w.name,
                used: format!("{} of memory", human(used)),
                wanted: human(limit),
            });
        }
    }
}

/// What the file holds now, in the form it is written in.
pub fn holds(dir: &Path, w: &Write) -> Option<String> {
    let text = fs::read_to_string(dir.join(w.file)).ok()?;
    if w.file != "io.max" {
        return Some(text.trim().to_owned());
    }
    let disk = w.value.split(' ').next().unwrap_or_default();
    let line = text.lines().find(|l| l.split(' ').next() == Some(disk));
    Some(line.map_or_else(|| format!("{disk} {IO_MAX_NONE}"), str::to_owned))
}

/// Whether two contents of a file mean the same: masks are written in more than one way, weights with a word before.
fn same(file: &str, a: &str, b: &str) -> bool {
    let mask = |t: &str| t.parse::<Mask>().ok();
    match file {
        "cpuset.cpus" | "cpuset.mems" => a == b || mask(a).is_some_and(|m| mask(b) == Some(m)),
        "io.weight" => {
            a.trim_start_matches("default ").lines().next() == b.trim_start_matches("default ").lines().next()
        }
        _ => a == b,
    }
}

/// Whether the file of a setting holds what it is to hold.
pub fn in_force(files: &Files<'_>, s: &Setting) -> Result<(), String> {
    match files.text(s.file) {
        Some(found) if same(s.file, found.trim(), &s.value) => Ok(()),
        Some(found) => Err(format!("{} holds `{}` instead of `{}`", s.file, found.trim(), s.value)),
        None => Err(format!("the container's cgroup has no {}", s.file)),
    }
}

/// The number in a file; `max` is none.
pub fn number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn w(file: &'static str, value: &str) -> Write {
        Write { name: "x", file, value: value.into() }
    }

    #[test]
    fn a_failed_write_puts_the_others_back() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("pids.max"), "max\n").unwrap();
        fs::create_dir(dir.path().join("cpu.max")).unwrap();
        let e = write_all(dir.path(), &[w("pids.max", "100"), w("cpu.max", "1 2")]).unwrap_err();
        assert!(matches!(e, Error::Write { .. }), "{e}");
        assert_eq!(fs::read_to_string(dir.path().join("pids.max")).unwrap(), "max");
    }

    #[test]
    fn the_kernels_spelling_of_the_same_is_the_same() {
        assert!(same("cpuset.cpus", "0-1", "0,1"));
        assert!(!same("cpuset.cpus", "0", ""));
        assert!(same("io.weight", "default 50", "50"));
        assert!(!same("pids.max", "max", "100"));
    }
}
