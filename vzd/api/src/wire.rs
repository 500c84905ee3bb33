//! What goes over the wire, and only that: the engine has types of its own.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use vz_types::{ExitCode, Fact, Reason, state::Trouble};

pub use crate::operation::{How, Operation, OperationsRequest, Part};
pub use crate::settings::{Settings, Values};

/// Every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// What `vzctl` exits with (its documented exit codes).
    #[schema(value_type = u8)]
    pub code: ExitCode,
    /// What failed, on what, and why: one line.
    pub message: String,
    /// What to do next, if there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The refusal as facts, where the rules refused: its kind in `reason`, with its fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub reason: Option<Reason>,
    /// The operation that was not carried through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
}

/// A change was made, or there was nothing to change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// The container, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctid: Option<u32>,
    /// The operation that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// What was done and what was not, as facts, in order: the kind of each in `fact`, with its fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub facts: Vec<Fact>,
    /// Sentences for the operator, in order; vzd sends facts instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    /// Sentences about what was not enforced or not saved; vzd sends facts instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Steps with their time in microseconds, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepTime>,
}

/// How long one step took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepTime {
    /// Its name.
    pub name: String,
    /// Microseconds.
    pub us: u64,
}

/// Answer of `/v1/version`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Of vzd.
    pub version: String,
    /// Process id of vzd.
    pub pid: u32,
    /// The manager's root.
    pub root: String,
    /// For so many days ended operations and events are kept; 0: a vzd that does not say.
    #[serde(default)]
    pub history_days: u32,
}

/// Make a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CreateRequest {
    /// 101..2147483644.
    pub ctid: u32,
    /// OS template.
    pub ostemplate: Option<String>,
    /// `overlay`.
    pub layout: Option<String>,
    /// What `set` would set, saved into the new configuration.
    pub settings: Settings,
}

/// One `--userpasswd`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserPasswd {
    /// The user.
    pub user: String,
    /// The password; hashed by vzd, never stored or logged.
    pub password: String,
}

impl std::fmt::Debug for UserPasswd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UserPasswd {{ user: {:?}, password: *** }}", self.user)
    }
}

/// One `--sshkey`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SshKey {
    /// The user.
    pub user: String,
    /// `type base64 comment`.
    pub key: String,
}

/// Change a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SetRequest {
    /// What to change.
    pub settings: Settings,
    /// Write it to the configuration too.
    pub save: bool,
    /// For what a running container cannot change live: `restart` it, or `ignore` the running one.
    pub setmode: Option<String>,
}

/// Start a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StartRequest {
    /// Even if disabled.
    pub force: bool,
    /// Answer when the default runlevel is reached, not when init runs.
    pub wait: bool,
}

/// Stop a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StopRequest {
    /// Kill at once.
    pub fast: bool,
    /// Seconds before the kill, 1..3600.
    pub timeout: Option<u32>,
}

/// Stop, then start.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RestartRequest {
    /// Kill at once instead of stopping gracefully.
    pub fast: bool,
    /// Even if disabled.
    pub force: bool,
    /// As in [`StartRequest::wait`].
    pub wait: bool,
}

/// All about one container.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CtInfo {
    /// Its number.
    pub ctid: u32,
    /// running, stopped, mounted or suspended, as vzlist shows it.
    pub status: String,
    /// The state proper, in-flight ones included.
    #[schema(value_type = String)]
    pub state: vz_types::CtState,
    /// What keeps it in `failed` or `unknown`: operation, kind, step and cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub trouble: Option<Trouble>,
    /// The operation under way on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The one line of `vzctl status`.
    pub status_line: String,
    /// Why its configuration could not be read; then the fields from it are absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_error: Option<String>,
    /// The operator's name.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Addresses: the live ones while running, else the configured ones.
    pub ip: Vec<String>,
    /// Configured name servers.
    pub nameserver: Vec<String>,
    /// Configured search domains.
    pub searchdomain: Vec<String>,
    /// OS template.
    pub ostemplate: Option<String>,
    /// Storage layout.
    pub layout: Option<String>,
    /// Start at boot; null: never said.
    pub onboot: Option<bool>,
    /// Boot order.
    pub bootorder: Option<u32>,
    /// Refuses to start.
    pub disabled: bool,
    /// Opened kernel surfaces.
    pub features: Vec<String>,
    /// Private area on the host.
    pub private: String,
    /// Mount point on the host.
    pub root: String,
    /// First host uid of its range.
    pub uid_base: Option<u32>,
    /// Stable id.
    pub uuid: Option<String>,
    /// Processes and threads inside, while running.
    pub numproc: Option<u64>,
    /// Seconds since init was executed.
    pub uptime: Option<u64>,
    /// Boots since start.
    pub boots: Option<u32>,
    /// init's pid on the host.
    pub pid: Option<i32>,
    /// Its monitor's pid.
    pub monitor_pid: Option<i32>,
    /// Our cgroup level.
    pub cgroup: Option<String>,
    /// Host-side link.
    pub link: Option<String>,
    /// Load averages of 1, 5 and 15 minutes, where the kernel gives them per container.
    pub laverage: Option<[f64; 3]>,
    /// Disk space: bytes.
    pub diskspace: Option<DiskFigure>,
    /// Disk inodes.
    pub diskinodes: Option<DiskFigure>,
    /// It is mounted, and nothing can be written to its files.
    #[serde(default)]
    pub read_only: bool,
    /// How the last run ended.
    pub last_exit: Option<String>,
    /// What failed last: operation, step and cause.
    pub last_failure: Option<String>,
    /// Every beancounter with its class, of a running container as the kernel has it now.
    #[serde(default)]
    pub beancounters: Vec<Beancounter>,
    /// Processor time, disk bandwidth and the rest, as far as they are set: name to value as on the command line.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Limits asked for that this host does not enforce, with the reason.
    #[serde(default)]
    pub unenforced: BTreeMap<String, String>,
    /// Memory is limited as such (VSwap mode of OpenVZ).
    #[serde(default)]
    pub vswap: Option<bool>,
    /// Every setting of its configuration, as `set` takes it.
    #[serde(default)]
    #[schema(value_type = Settings)]
    pub settings: BTreeMap<String, serde_json::Value>,
}

/// One beancounter of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Beancounter {
    /// Its name.
    pub name: String,
    /// `pages` (4096 bytes), `bytes` or `items`.
    pub unit: String,
    /// Now; null where nobody can tell.
    pub held: Option<u64>,
    /// At most since the last reset.
    pub maxheld: u64,
    /// 9223372036854775807: unlimited.
    pub barrier: u64,
    /// 9223372036854775807: unlimited.
    pub limit: u64,
    /// Refusals since the last reset.
    pub failcnt: u64,
    /// `enforced`, `guaranteed`, `per-process`, `accounted` or `unenforced` (on this host).
    pub class: String,
    /// Why it is unenforced, or what the class does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Something that happened to a container because of a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number, rising.
    pub id: i64,
    /// The container.
    pub ctid: u32,
    /// The first time, UTC.
    pub time: String,
    /// The first time, seconds since the epoch.
    pub first: u64,
    /// The last time, seconds since the epoch.
    pub last: u64,
    /// Limits: `oom-kill`, `fork-failed`, `swap-full`, `memory-high`, `throttled`, `socket-refused` or `disk-full`. Changes of
    /// state: `created`, `started`, `booted`, `rebooted`, `stopped`, `crashed`, `changed`, `destroyed` or `found`.
    pub kind: String,
    /// The counter or parameter behind it.
    pub counter: Option<String>,
    /// How many times.
    pub count: u64,
    /// What happened.
    pub text: String,
    /// The operation that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Who asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asker: Option<String>,
}

/// Waiting for one resource: percent of time in which some, and all, of the processes waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PressureNow {
    /// Some: over 10, 60 and 300 seconds.
    pub some: [f64; 3],
    /// All: over 10, 60 and 300 seconds.
    pub full: [f64; 3],
}

/// Pressure of a container; what is now is only there while it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Pressure {
    /// Processor time.
    pub cpu: Option<PressureNow>,
    /// Memory.
    pub memory: Option<PressureNow>,
    /// Disk.
    pub io: Option<PressureNow>,
    /// Percent of the time behind `seconds` in which some waited: processor, memory, disk, and for cpulimit.
    pub hour: [f64; 4],
    /// How much running time that covers, at most the last hour; kept over restarts of the container and of vzd.
    pub seconds: u64,
}

/// Why a container is as it is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// The container.
    pub ctid: u32,
    /// As vzlist shows it.
    pub status: String,
    /// How the last run ended.
    pub last_exit: Option<String>,
    /// What failed last.
    pub last_failure: Option<String>,
    /// What happened because of limits, oldest first.
    pub events: Vec<Event>,
    /// Counters that were refused something, or are close to their limit.
    pub counters: Vec<Beancounter>,
    /// While it runs, where the kernel tells.
    pub pressure: Option<Pressure>,
    /// What to change.
    pub advice: Vec<String>,
}

/// What the host has, for figures of overcommitment.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct HostFigures {
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of memory that could be had without swapping.
    pub available: u64,
    /// Bytes of swap space.
    pub swap: u64,
    /// Bytes of swap space in use.
    pub swap_used: u64,
    /// Processors.
    pub cpus: u64,
    /// Process ids.
    pub pids: u64,
    /// Bytes guaranteed to running containers.
    pub promised: u64,
    /// Bytes that are never guaranteed.
    pub reserve: u64,
}

/// A disk quota with its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskFigure {
    /// Used; null when it cannot be known without mounting.
    pub usage: Option<u64>,
    /// The quota.
    pub softlimit: u64,
    /// The same: there is no grace period.
    pub hardlimit: u64,
}

/// An OS template.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TemplateInfo {
    /// Its name.
    pub name: String,
    /// `ready`, or `recipe` (can be built), or `broken` with [`TemplateInfo::problem`].
    pub status: String,
    /// Distribution id and release, from its os-release.
    pub distribution: Option<String>,
    /// Its init: systemd, sysvinit, openrc, runit, busybox.
    pub init: Option<String>,
    /// Architecture.
    pub arch: Option<String>,
    /// sha256 of the manifest of its files.
    pub digest: Option<String>,
    /// Bytes of its files.
    pub size: Option<u64>,
    /// Number of its files.
    pub files: Option<u64>,
    /// Seconds since the epoch.
    pub built_at: Option<u64>,
    /// What the recipe says about itself.
    pub description: Option<String>,
    /// Containers made from it.
    pub used_by: Vec<u32>,
    /// Packages with versions, in `show` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// Why it cannot be used.
    pub problem: Option<String>,
    /// How it came to be: `recipe` (built from one) or `import` (from an archive). Absent where it is not there yet.
    #[serde(default)]
    pub origin: Option<String>,
    /// Mirror, directory or archive it came from.
    #[serde(default)]
    pub source: Option<String>,
    /// sha256 of the archive it was imported from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
}

/// What of the containers is wanted. In the query string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ListRequest {
    /// Without counters, limits and parameters, which take longest to look up.
    pub brief: bool,
    /// Only these: CTIDs and names with commas between. One that is not there is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ct: Option<String>,
    /// Only these counters, their names with commas between; all without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counters: Option<String>,
    /// Whether to look how full disks are; true without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<bool>,
}

/// Make an OS template from a root filesystem in a tar archive, which is the request's body. In the query string.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImportRequest {
    /// What the archive is called, for messages and for `template show`.
    pub source: Option<String>,
    /// Make this the current version of a template that exists; containers keep the files they were made from.
    pub replace: bool,
    /// Leave every device node out, instead of refusing those that no plain system has in /dev.
    pub skip_devices: bool,
    /// One line for `template show`.
    pub description: Option<String>,
    /// Most bytes the files may have together. Absent: 9 tenths of what the store's disk has left.
    pub max_size: Option<u64>,
    /// Answer 202 with the operation as soon as all of the archive has arrived.
    pub background: bool,
}

/// Build an OS template from its recipe.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BuildRequest {
    /// Build even if one exists; containers keep the files they were made from.
    pub rebuild: bool,
}

/// One line of the answer of a template build or import.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum BuildEvent {
    /// A stage began.
    Stage {
        /// Its name.
        stage: String,
        /// 0..=100 of the whole, as far as known.
        percent: u8,
    },
    /// A line of the build's log.
    Log {
        /// It.
        line: String,
    },
    /// It is built and registered.
    Done {
        /// The template.
        template: Box<TemplateInfo>,
    },
    /// It failed; nothing was registered.
    Failed {
        /// Why, with the log's last lines.
        error: ApiError,
    },
}

/// What this host can and cannot do.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CheckReport {
    /// Whether containers can run at all.
    pub ok: bool,
    /// One row each.
    pub items: Vec<CheckItem>,
}

/// One row of the host check.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CheckItem {
    /// `kernel`, `cgroup`, `quota`, `network`, `program`.
    pub group: String,
    /// What was looked at.
    pub name: String,
    /// `ok`, `missing` (something will not work) or `fatal` (containers cannot run).
    pub status: String,
    /// What was found: a version, a path, a reason.
    pub found: String,
    /// What is lost without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}
