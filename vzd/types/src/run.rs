//! What runs now, and how it ended: the files a monitor writes below `/run/vz/ct/<CTID>/`.

use crate::{CtAddr, Ctid, UidBase};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// `/run/vz/ct/<CTID>/state.json`, replaced atomically at each boot of the container (start and
/// reboot from inside). Whoever reads it must check that [`ProcessId::start_time`] still matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The container.
    pub ctid: Ctid,
    /// Its init, as the host sees it.
    pub init: ProcessId,
    /// Its monitor.
    pub monitor: ProcessId,
    /// Our cgroup level of this container, absolute: limits are here, `ns/` below it is the container's.
    pub cgroup: PathBuf,
    /// First host id of its range.
    pub uid_base: UidBase,
    /// Boots since start: 1 for the first, one more per reboot from inside.
    pub boots: u32,
    /// Seconds since the epoch at which this boot's init was executed.
    pub booted_at: u64,
    /// Seconds since the epoch of the first boot of this start.
    pub started_at: u64,
    /// Host-side link, if it has one.
    pub link: Option<String>,
    /// Addresses on venet0 now.
    pub addresses: Vec<CtAddr>,
    /// Opened kernel surfaces, which programs of exec and enter get as well.
    #[serde(default)]
    pub features: Vec<crate::config::Feature>,
    /// The kernel's boot_id when this was written: a record of another host boot is stale.
    pub host_boot_id: String,
}

/// A process that can be recognised after a restart of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its pid in the host's pid namespace.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: start time in clock ticks since boot, which tells it from a later
    /// process with the same pid.
    pub start_time: u64,
}

/// `/run/vz/ct/<CTID>/exit.json`: written to disk before anybody is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The container.
    pub ctid: Ctid,
    /// Why init ended.
    pub reason: ExitReason,
    /// Seconds since the epoch.
    pub at: u64,
    /// Boots this start went through.
    pub boots: u32,
}

/// Why a container's init ended for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ExitReason {
    /// `poweroff` or `halt`, from inside or by a graceful stop.
    Poweroff,
    /// Killed by us: `stop --fast` or a graceful stop that ran into its timeout.
    Killed,
    /// Init exited by itself.
    Exited {
        /// Its exit status.
        status: i32,
    },
    /// Init died of a signal nobody of ours sent.
    Crashed {
        /// The signal's number.
        signal: i32,
    },
    /// A reboot from inside could not be carried through.
    RebootFailed {
        /// What failed.
        cause: String,
    },
}
