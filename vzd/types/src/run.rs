//! What runs now, and how it ended: the files a monitor writes below `/run/vz/ct/<CTID>/`.

use crate::{CtAddr, Ctid, UidBase};
use serde::{Deserialize, Deserializer, Serialize};
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
    /// Its ranges besides that one, in the order of the ids inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uid_more: Vec<UidBase>,
    /// Boots since start: 1 for the first, one more per reboot from inside.
    pub boots: u32,
    /// Seconds since the epoch at which this boot's init was executed.
    pub booted_at: u64,
    /// The same moment in seconds since the host's boot (clock_gettime(2), `CLOCK_BOOTTIME`), which no change of the
    /// wall clock moves. Absent: a monitor of a version that did not write it.
    #[serde(default)]
    pub booted_monotonic: Option<u64>,
    /// Seconds since the epoch of the first boot of this start.
    pub started_at: u64,
    /// Host-side link, if it has one.
    pub link: Option<String>,
    /// Addresses on venet0 now.
    #[serde(default, deserialize_with = "understood")]
    pub addresses: Vec<CtAddr>,
    /// Opened kernel surfaces, which programs of exec and enter get as well.
    #[serde(default, deserialize_with = "understood")]
    pub features: Vec<crate::config::Feature>,
    /// What bounds it besides seccomp, for programs of exec and enter as well.
    #[serde(default, deserialize_with = "understood")]
    pub guards: Vec<crate::policy::Guard>,
    /// The monitor's [`crate::plan::PROTOCOL`].
    #[serde(default = "first_protocol")]
    pub protocol: u32,
    /// The monitor's version of vz; empty where it told none.
    #[serde(default)]
    pub version: String,
    /// What its processes start with, programs of exec and enter included.
    #[serde(default)]
    pub limits: crate::limits::kernel::Inside,
    /// The kernel's boot_id when this was written: a record of another host boot is stale.
    pub host_boot_id: String,
}

impl RunRecord {
    /// Seconds since this boot's init was executed, at a moment that is `epoch` seconds by the wall clock and `boottime`
    /// seconds after the host's boot.
    pub fn uptime(&self, epoch: u64, boottime: u64) -> u64 {
        match self.booted_monotonic {
            Some(then) => boottime.saturating_sub(then),
            None => epoch.saturating_sub(self.booted_at),
        }
    }
}

fn first_protocol() -> u32 {
    1
}

/// The elements this version knows: a record written by a later one is still that of a running container.
fn understood<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Element<T> {
        Known(T),
        Other(serde::de::IgnoredAny),
    }
    let known = |e| match e {
        Element::Known(t) => Some(t),
        Element::Other(_) => None,
    };
    Ok(Vec::<Element<T>>::deserialize(from)?.into_iter().filter_map(known).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As protocol 1 has written it since its first day. Monitors outlive upgrades: this must be read for ever.
    const FIRST: &str = r#"{"ctid":101,"init":{"pid":7,"start_time":70},"monitor":{"pid":6,"start_time":60},
        "cgroup":"/sys/fs/cgroup/vz/101","uid_base":524288,"boots":1,"booted_at":5,"started_at":4,"link":"vz101",
        "addresses":["10.0.0.1"],"features":["nesting"],"host_boot_id":"b"}"#;

    #[test]
    fn the_record_of_the_first_monitors_is_read() {
        let record: RunRecord = serde_json::from_str(FIRST).unwrap();
        assert_eq!((record.protocol, record.version.as_str(), record.features.len()), (1, "", 1));
        assert_eq!(record.init, ProcessId { pid: 7, start_time: 70 });
    }

    #[test]
    fn uptime_follows_the_wall_clock_only_where_a_monitor_wrote_nothing_else() {
        let mut record: RunRecord = serde_json::from_str(FIRST).unwrap();
        assert_eq!((record.booted_monotonic, record.uptime(65, 1000)), (None, 60));
        record.booted_monotonic = Some(940);
        // The wall clock was set back by years, then forward by years.
        assert_eq!((record.uptime(0, 1000), record.uptime(u64::MAX, 1001)), (60, 61));
        assert_eq!(record.uptime(5, 0), 0);
    }

    #[test]
    fn what_a_later_monitor_adds_to_its_record_hides_no_container() {
        let later = FIRST
            .replace(r#"["nesting"]"#, r#"["nesting","teleport",{"name":"warp"}]"#)
            .replace(r#"["10.0.0.1"]"#, r#"["10.0.0.1","lane 7"]"#)
            .replace(r#""boots":1"#, r#""boots":1,"protocol":9,"version":"9.1","veth":[{"a":1}]"#);
        let record: RunRecord = serde_json::from_str(&later).unwrap();
        assert_eq!((record.protocol, record.features.len(), record.addresses.len()), (9, 1, 1));
    }
}
