//! What is known of a container that runs: its monitor's record, and whether that monitor lives. A record that cannot be
//! read, or a process that cannot be looked at, is neither alive nor dead: it is not known, and nothing is done on the
//! strength of it.

use super::process::{self, Process};
use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::Path,
    sync::Arc,
};
use vz_types::run::{ExitReason, ExitRecord, RunRecord};

/// What a look for a running container came to.
#[derive(Debug)]
pub enum Found {
    /// There is no record.
    Nothing,
    /// There is one, of another boot of the host or of a monitor that has ended.
    Stale,
    /// It runs.
    Live(Box<Live>),
    /// It may run, but that cannot be told: why.
    Unclear(String),
}

/// A container that runs, as its monitor's record says.
#[derive(Clone, Debug)]
pub struct Live {
    /// The record, as of [`Live::refresh`].
    pub record: RunRecord,
    /// The monitor, where a descriptor could be spared for it.
    pub monitor: Option<Arc<OwnedFd>>,
    stamp: (u64, i64, i64),
}

impl Live {
    /// With a descriptor that becomes readable when the monitor ends.
    pub fn new(record: RunRecord, monitor: Option<Arc<OwnedFd>>, run_dir: &Path) -> Self {
        Self { record, monitor, stamp: stamp(run_dir).unwrap_or_default() }
    }

    /// Looks for one in a run directory: a record of this host boot whose monitor is alive.
    pub fn find(run_dir: &Path, boot_id: &str) -> Found {
        let unclear = |what: &str, e: io::Error| Found::Unclear(format!("{what}: {e}"));
        let stamp = match fs::symlink_metadata(run_dir.join("state.json")) {
            Ok(m) => (m.ino(), m.mtime(), m.mtime_nsec()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Found::Nothing,
            Err(e) => return unclear("its monitor's record cannot be read", e),
        };
        let record = match read_record(run_dir) {
            Ok(Some(record)) => record,
            Ok(None) => return Found::Nothing,
            Err(e) => return unclear("its monitor's record cannot be read", e),
        };
        if record.host_boot_id != boot_id {
            return Found::Stale;
        }
        match process::find(record.monitor) {
            Ok(Process::Alive(fd)) => Found::Live(Box::new(Self { record, monitor: fd.map(Arc::new), stamp })),
            Ok(Process::Gone) => Found::Stale,
            Err(e) => unclear("its monitor cannot be looked at", e),
        }
    }

    /// Whether the monitor has ended: the container runs no more, its remains may still be there. What cannot be told
    /// is no end.
    pub fn ended(&self) -> bool {
        match &self.monitor {
            Some(fd) => process::ended(fd),
            None => matches!(process::find(self.record.monitor), Ok(Process::Gone)),
        }
    }

    /// The monitor's pid, if a signal has stopped it (proc_pid_stat(5), state `T`): it does nothing until it is let go on.
    pub fn stopped(&self) -> Option<i32> {
        let id = self.record.monitor;
        let stat = vz_sys::proc::stat(id.pid).ok()?;
        (stat.start_time == id.start_time && stat.state == 'T').then_some(id.pid)
    }

    /// Takes the record in again when the monitor has replaced it (a reboot from inside, an address change).
    pub fn refresh(&mut self, run_dir: &Path) {
        let Some(now) = stamp(run_dir) else { return };
        if now != self.stamp {
            if let Ok(Some(record)) = read_record(run_dir) {
                (self.record, self.stamp) = (record, now);
            }
        }
    }
}

fn stamp(run_dir: &Path) -> Option<(u64, i64, i64)> {
    fs::symlink_metadata(run_dir.join("state.json")).ok().map(|m| (m.ino(), m.mtime(), m.mtime_nsec()))
}

/// The run record of a run directory, whoever it belongs to; `None`: there is none.
///
/// # Errors
/// It cannot be read, or makes no sense to this version (`InvalidData`).
pub fn read_record(run_dir: &Path) -> io::Result<Option<RunRecord>> {
    read(run_dir, "state.json")
}

/// The exit record of a run directory, if there is one that can be read.
pub fn read_exit(run_dir: &Path) -> Option<ExitRecord> {
    read(run_dir, "exit.json").ok().flatten()
}

fn read<T: serde::de::DeserializeOwned>(run_dir: &Path, file: &str) -> io::Result<Option<T>> {
    match vz_sys::records::read(&run_dir.join(file)) {
        Ok(text) => {
            let read = serde_json::from_slice(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            Ok(Some(read))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// How a run ended, for people.
pub fn exit_words(record: &ExitRecord, when: &str) -> String {
    let how = match &record.reason {
        ExitReason::Poweroff => "powered off".into(),
        ExitReason::Killed => "killed by a stop".into(),
        ExitReason::Exited { status } => format!("init exited with status {status}"),
        ExitReason::Crashed { signal } => format!("init died of signal {signal}"),
        ExitReason::RebootFailed { cause } => format!("reboot from inside failed: {cause}"),
    };
    format!("{how} at {when}")
}
