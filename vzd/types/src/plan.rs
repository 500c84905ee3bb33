//! What vzd and vzctl tell vzmon, and what vzmon answers: one JSON message per seqpacket.
//!
//! ```text
//! run:     vzd -> LaunchPlan            vzmon -> Step*, NetReady (+ netns fd)
//!          vzd -> Go (link is there)    vzmon -> Step*, Running | Failed
//! control: client -> ControlRequest     vzmon -> ControlReply (console: then framed bytes)
//! edit:    vzd -> EditPlan              vzmon -> TaskReply   (`vzmon edit`)
//! mount:   vzd -> MountPlan             vzmon -> TaskReply   (`vzmon mount`)
//! attach:  vzctl, vzd -> AttachPlan, on a descriptor; the exit status is the answer
//! ```

use crate::{
    CtAddr, Ctid, Hostname, UidBase, UserName, Word,
    addr::Nameserver,
    config::Feature,
    limits::kernel::Inside,
    names::SearchDomain,
    run::{ExitReason, ProcessId},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

/// Version of what vzd, vzctl and vzmon say to each other: the plans and requests of this module and the records of
/// [`crate::run`]. A monitor keeps the one it was started with for as long as its container runs, upgrades included.
/// So fields are only ever added, with a default, and requests only added; that raises nothing. It is raised
/// where a side of another number would misunderstand: vzmon then refuses a plan by name, `vzctl exec` runs the
/// installed vzmon instead of the monitor's own memory, and a request is answered as not understood.
pub const PROTOCOL: u32 = 1;

/// How a monitor's answer to a request it does not know begins.
pub const NOT_UNDERSTOOD: &str = "request not understood";

/// Everything vzmon must know to run one container until it ends, reboots included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// The container.
    pub ctid: Ctid,
    /// `container_uuid=`: stable for the container's life, 32 hex digits with dashes.
    pub uuid: String,
    /// Host name to set, if the operator gave one.
    pub hostname: Option<Hostname>,
    /// Its files. Mounted on the host by vzmon when they are not yet.
    pub storage: StoragePlan,
    /// Our cgroup level, absolute and already made, with its limits, `ns/` and `exec/` below it. The
    /// owner of `ns/` and of the delegated files in it is already [`StoragePlan::uid_base`].
    pub cgroup: PathBuf,
    /// `/run/vz/ct/<CTID>`, already made, mode 0700.
    pub run_dir: PathBuf,
    /// Seconds a graceful stop may take before the kill.
    pub stop_timeout: u32,
    /// Opened kernel surfaces.
    pub features: Vec<Feature>,
    /// Bytes of console output kept in `console.log`.
    pub console_log: u64,
    /// Host-side link name, for the record; `None`: no venet, loopback only.
    pub link: Option<String>,
    /// Name of the link inside (`venet0`).
    pub inside_link: String,
    /// Addresses to put on it at each boot.
    pub addresses: Vec<CtAddr>,
    /// Edits applied as CT root before each boot's init.
    pub edits: Vec<FileEdit>,
    /// Die by SIGKILL on reaching the step of this name (crash tests).
    pub fault: Option<String>,
    /// What its processes and namespaces are limited to.
    #[serde(default)]
    pub limits: Inside,
    /// Ranges of ids besides the first, in the order of the ids inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<UidBase>,
    /// Mount point of the host whose filesystem it is to see, read-only, as its `/run/vz`.
    #[serde(default)]
    pub own_files: Option<PathBuf>,
}

/// Where a container's files are and where they are to be seen on the host: all that is needed to mount them.
/// Mounting is vzmon's work because an idmapped mount needs a user namespace, and vzd never makes one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoragePlan {
    /// How they are stored.
    pub layout: crate::config::Layout,
    /// Private area `/var/lib/vz/private/<CTID>`: `disk.img` (the writable layer's ext4 image) and its mount
    /// point `rw/` (with `rw/upper` and `rw/work` once mounted), or just `rw/` under project quota.
    pub private: PathBuf,
    /// Files of the OS template, 0-based ids.
    pub template_root: PathBuf,
    /// Where the whole is mounted: `/var/lib/vz/root/<CTID>`, idmapped, nosuid and nodev on the host.
    pub root: PathBuf,
    /// First host id of the container's range.
    pub uid_base: UidBase,
}

/// `vzmon mount`: the files to mount and the ids they are shown with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// The files.
    #[serde(flatten)]
    pub storage: StoragePlan,
    /// Ranges of ids besides the first, in the order of the ids inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<UidBase>,
}

/// vzd to vzmon after [`MonitorEvent::NetReady`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaunchAnswer {
    /// The link is there, filters are in place: boot.
    Go,
    /// Give up and unwind.
    Abort,
}

/// vzmon to vzd while launching.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MonitorEvent {
    /// A step is done.
    Step {
        /// Its name, as in [`LAUNCH_STEPS`].
        name: String,
        /// Microseconds since the plan arrived.
        at_us: u64,
    },
    /// The network namespace exists; its descriptor comes with this message. Answer with [`LaunchAnswer`].
    NetReady,
    /// Something was not done but the boot goes on without it (an edit of the container's own files).
    Warning {
        /// What, in words.
        text: String,
    },
    /// init was executed.
    Running {
        /// It.
        init: ProcessId,
    },
    /// The launch failed; everything vzmon made is gone again.
    Failed {
        /// The step, as in [`LAUNCH_STEPS`].
        step: String,
        /// What failed, on what, with the errno's text.
        cause: String,
    },
}

/// The launch steps of vzmon, in order. Each is a fault point named `vzmon.<step>`.
pub const LAUNCH_STEPS: &[&str] = &["plan", "console", "namespaces", "storage", "network", "record", "go", "init"];

/// A request on `/run/vz/ct/<CTID>/control.sock` (seqpacket, root only).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlRequest {
    /// Join the console. After [`ControlReply::Done`] every packet is one frame: first byte 0 = bytes,
    /// 1 = JSON `{"rows":N,"cols":N}` (client to vzmon only).
    Console {
        /// Send what the console log holds first.
        replay: bool,
    },
    /// End the container. The reply comes when init is gone and the exit record is on disk.
    Stop {
        /// Kill at once.
        fast: bool,
        /// Seconds for the graceful part; `None`: the plan's.
        timeout: Option<u32>,
    },
    /// Make venet0 carry exactly these addresses, now and after reboots.
    SetAddresses {
        /// The whole list.
        addresses: Vec<CtAddr>,
    },
    /// Replace what is applied before each boot's init.
    SetBoot {
        /// Host name for the next boots; also set in the running UTS namespace when given.
        hostname: Option<Hostname>,
        /// The edits.
        edits: Vec<FileEdit>,
    },
    /// Other limits for its namespaces now, and for processes run in it from now on.
    SetLimits {
        /// All of them.
        limits: Inside,
    },
    /// Carry out edits now, as CT root in the running container.
    Edit {
        /// The edits, in order; the first failure ends it.
        edits: Vec<FileEdit>,
        /// As before a boot: a file whose setting is the one it was written for stays as the tenant has it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        as_for_boot: bool,
    },
}

/// What a message to a monitor carries beside its request.
#[derive(Default, Deserialize)]
struct Beside {
    #[serde(default)]
    until: Option<u64>,
}

impl ControlRequest {
    /// The message that asks for this. `until`: milliseconds of `CLOCK_BOOTTIME` (clock_gettime(2)) after which whoever
    /// asks has given up and has said so; the request is not begun then, and what of it is under way is ended. It stands
    /// among the request's own fields, where a monitor of a version without it overlooks it.
    ///
    /// # Errors
    /// serde_json's.
    pub fn message(&self, until: Option<u64>) -> serde_json::Result<Vec<u8>> {
        let mut all = serde_json::to_value(self)?;
        let fields = all.as_object_mut().and_then(|o| o.values_mut().next()).and_then(|v| v.as_object_mut());
        if let (Some(fields), Some(until)) = (fields, until) {
            fields.insert("until".into(), until.into());
        }
        serde_json::to_vec(&all)
    }

    /// The request of such a message, and until when it is of use.
    ///
    /// # Errors
    /// It is none that this version knows.
    pub fn read(message: &[u8]) -> serde_json::Result<(Self, Option<u64>)> {
        let request = serde_json::from_slice(message)?;
        let beside: BTreeMap<String, Beside> = serde_json::from_slice(message).unwrap_or_default();
        Ok((request, beside.into_values().next().and_then(|b| b.until)))
    }
}

/// The answer to a [`ControlRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlReply {
    /// It is done.
    Done,
    /// The container ended (answer to stop).
    Ended {
        /// Why.
        reason: ExitReason,
    },
    /// It was not done, or not wholly.
    Failed {
        /// What failed, on what.
        cause: String,
    },
}

/// One change to a container's own files, made as CT root from inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileEdit {
    /// `/etc/hostname`, and the `127.0.1.1` line of `/etc/hosts`.
    Hostname {
        /// The new name.
        hostname: Hostname,
    },
    /// `/etc/resolv.conf`, and where programs look that take it over.
    Resolver {
        /// Servers, with [`Nameserver::Inherit`] already replaced by vzd.
        nameservers: Vec<IpAddr>,
        /// Search domains.
        search: Vec<SearchDomain>,
        /// The setting in the operator's words, `inherit` as such: whether he has changed it is told by this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked: Option<String>,
    },
    /// The user's line in `/etc/shadow`; a missing user is made when it is not root.
    Password {
        /// The user.
        user: UserName,
        /// crypt(5) hash. Never the password itself.
        hash: String,
    },
    /// Lines added to the user's `.ssh/authorized_keys`.
    SshKeys {
        /// The user.
        user: UserName,
        /// `type base64 comment` lines, checked by vzd.
        keys: Vec<String>,
    },
}

/// `vzmon edit`: edits in a stopped container whose root vzd has mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditPlan {
    /// The container, for messages.
    pub ctid: Ctid,
    /// The mounted root on the host and whose it is.
    pub storage: StoragePlan,
    /// Ranges of ids besides the first, in the order of the ids inside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<UidBase>,
    /// The edits, in order.
    pub edits: Vec<FileEdit>,
}

/// The answer of `vzmon edit` and `vzmon mount`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskReply {
    /// All of it is done (edits: and synced).
    Done,
    /// What failed first; what came before it is done (edits) or undone (mount).
    Failed {
        /// What failed, on what.
        cause: String,
    },
}

/// `vzmon attach PLAN-FD`: run a program in a running container. Executed from a sealed memfd by vzctl. On descriptor 0,
/// the plan is all of standard input and the program's own is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachPlan {
    /// `/run/vz/ct/<CTID>`.
    pub run_dir: PathBuf,
    /// Program and arguments. The program is looked up in [`AttachPlan::env`]'s PATH, inside. With an empty
    /// list: root's login shell from the container's `/etc/passwd`.
    pub argv: Vec<Word>,
    /// The whole environment, `NAME=value`.
    pub env: Vec<String>,
    /// Give the program a terminal of its own and relay ours to it, where ours is one.
    pub tty: bool,
    /// Content to expose inside as `/dev/fd/3` (runscript), from this inherited descriptor.
    pub script_fd: Option<i32>,
    /// Run these instead where the program of [`AttachPlan::argv`] is not found inside (`exec` without bash).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv_fallback: Vec<Word>,
    /// Exit with this instead of any status other than 0, be it the program's or our own (`exec`: 8). Absent: the
    /// program's own status, 128 + signal where it died of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_as: Option<u8>,
    /// A line to print on standard output when the program has ended (`exited from CT 101`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farewell: Option<String>,
}

/// The name servers a container gets: `inherit` replaced by the host's non-loopback ones, in order,
/// without repeats, at most 3 (`resolv.conf(5)`: MAXNS).
pub fn resolve_nameservers(wanted: &[Nameserver], host: &[IpAddr]) -> Vec<IpAddr> {
    let mut out: Vec<IpAddr> = Vec::new();
    for n in wanted {
        let these: Vec<IpAddr> = match n {
            Nameserver::At(ip) => vec![*ip],
            Nameserver::Inherit => host.iter().copied().filter(|ip| !ip.is_loopback()).collect(),
        };
        for ip in these {
            if !out.contains(&ip) && out.len() < 3 {
                out.push(ip);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_a_deadline_is_understood_by_monitors_that_know_none() {
        let request = ControlRequest::Stop { fast: true, timeout: Some(7) };
        let message = request.message(Some(4711)).unwrap();
        assert_eq!(serde_json::from_slice::<ControlRequest>(&message).unwrap(), request, "as an older one reads it");
        assert_eq!(ControlRequest::read(&message).unwrap(), (request.clone(), Some(4711)));
        for plain in [request.message(None).unwrap(), serde_json::to_vec(&request).unwrap()] {
            assert_eq!(ControlRequest::read(&plain).unwrap(), (request.clone(), None), "as an older vzd asks");
        }
        assert!(ControlRequest::read(br#"{"teleport":{"until":5}}"#).is_err());
    }
}
