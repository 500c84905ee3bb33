//! The fields of vzlist: one row each, with the classic header, width and value.

use crate::list::value::{Bean, Value};
use vz_api::wire::{CtInfo, DiskFigure};

/// One field.
pub struct Field {
    /// As `-o` takes it; also the key in JSON.
    pub name: &'static str,
    /// As the header shows it.
    pub header: &'static str,
    /// Columns; negative: left-aligned (as in printf's `%-9s`).
    pub width: i16,
    /// Its value.
    pub get: Get,
    /// Whether `-j` without `-o` shows it. Aliases and parts of a beancounter are not repeated.
    pub in_json: bool,
}

/// How a field gets its value.
#[derive(Clone, Copy)]
pub enum Get {
    /// From the container's data.
    Info(fn(&CtInfo) -> Value),
    /// A part of a beancounter, of this name.
    Bean(&'static str, Part),
}

/// What of a beancounter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it in JSON, held in text.
    Held,
    /// `.m`
    MaxHeld,
    /// `.b`
    Barrier,
    /// `.l`
    Limit,
    /// `.f`
    FailCnt,
}

const fn field(name: &'static str, header: &'static str, width: i16, get: fn(&CtInfo) -> Value) -> Field {
    Field { name, header, width, get: Get::Info(get), in_json: true }
}

const fn alias(name: &'static str, header: &'static str, width: i16, get: fn(&CtInfo) -> Value) -> Field {
    Field { name, header, width, get: Get::Info(get), in_json: false }
}

macro_rules! beans {
    ($($name:literal $header:literal),+ $(,)?) => {
        &[$(
            Field { name: $name, header: $header, width: 10, get: Get::Bean($name, Part::Held), in_json: true },
            Field { name: concat!($name, ".m"), header: concat!($header, ".M"), width: 10, get: Get::Bean($name, Part::MaxHeld), in_json: false },
            Field { name: concat!($name, ".b"), header: concat!($header, ".B"), width: 10, get: Get::Bean($name, Part::Barrier), in_json: false },
            Field { name: concat!($name, ".l"), header: concat!($header, ".L"), width: 10, get: Get::Bean($name, Part::Limit), in_json: false },
            Field { name: concat!($name, ".f"), header: concat!($header, ".F"), width: 10, get: Get::Bean($name, Part::FailCnt), in_json: false },
        )+]
    };
}

/// A parameter, or what a container has that says nothing; unknown where its configuration cannot be read.
fn parameter(i: &CtInfo, name: &str, unset: impl Into<Option<u64>>) -> Value {
    match i.parameters.get(name).and_then(|v| v.parse().ok()) {
        Some(n) => Value::Number(n),
        None if i.config_error.is_some() => Value::Unknown,
        None => unset.into().map_or(Value::Unknown, Value::Number),
    }
}
fn ctid(i: &CtInfo) -> Value {
    Value::Number(i.ctid.into())
}
fn text(v: &Option<String>) -> Value {
    v.clone().map_or(Value::Unknown, Value::Text)
}
fn number(v: Option<impl Into<u64>>) -> Value {
    v.map_or(Value::Unknown, |n| Value::Number(n.into()))
}
/// Classic figures of space are in KiB.
fn space(i: &CtInfo) -> Option<DiskFigure> {
    i.diskspace.map(|d| DiskFigure {
        usage: d.usage.map(|u| u.div_ceil(1024)),
        softlimit: d.softlimit / 1024,
        hardlimit: d.hardlimit / 1024,
    })
}

/// What the container is and where it is.
const PLAIN: &[Field] = &[
    field("ctid", "CTID", 10, ctid),
    alias("veid", "CTID", 10, ctid),
    alias("vpsid", "CTID", 10, ctid),
    field("private", "PRIVATE", -32, |i| Value::Text(i.private.clone())),
    field("root", "ROOT", -32, |i| Value::Text(i.root.clone())),
    field("hostname", "HOSTNAME", -32, |i| text(&i.hostname)),
    field("name", "NAME", -32, |i| text(&i.name)),
    field("smart_name", "SMARTNAME", -10, |i| Value::Text(i.name.clone().unwrap_or_else(|| i.ctid.to_string()))),
    field("description", "DESCRIPTION", -32, |i| text(&i.description)),
    field("ostemplate", "OSTEMPLATE", -24, |i| text(&i.ostemplate)),
    field("ip", "IP_ADDR", -15, |i| Value::List(i.ip.clone())),
    field("nameserver", "NAMESERVER", -15, |i| Value::List(i.nameserver.clone())),
    field("searchdomain", "SEARCHDOMAIN", -32, |i| Value::List(i.searchdomain.clone())),
    field("status", "STATUS", -9, |i| Value::Text(i.status.clone())),
];

const BEANS: &[Field] = beans! {
    "kmemsize" "KMEMSIZE", "lockedpages" "LOCKEDP", "privvmpages" "PRIVVMP", "shmpages" "SHMP", "numproc" "NPROC",
    "physpages" "PHYSP", "vmguarpages" "VMGUARP", "oomguarpages" "OOMGUARP", "numtcpsock" "NTCPSOCK",
    "numflock" "NFLOCK", "numpty" "NPTY", "numsiginfo" "NSIGINFO", "tcpsndbuf" "TCPSNDB", "tcprcvbuf" "TCPRCVB",
    "othersockbuf" "OTHSOCKB", "dgramrcvbuf" "DGRAMRB", "numothersock" "NOTHSOCK", "dcachesize" "DCACHESZ",
    "numfile" "NFILE", "numiptent" "NIPTENT", "swappages" "SWAPP",
};

/// Disk, load, limits and how it starts.
const REST: &[Field] = &[
    field("diskspace", "DQBLOCKS", 10, |i| space(i).map_or(Value::Unknown, Value::Disk)),
    alias("diskspace.s", "DQBLOCKS.S", 10, |i| number(space(i).map(|d| d.softlimit))),
    alias("diskspace.h", "DQBLOCKS.H", 10, |i| number(space(i).map(|d| d.hardlimit))),
    field("diskinodes", "DQINODES", 10, |i| i.diskinodes.map_or(Value::Unknown, Value::Disk)),
    alias("diskinodes.s", "DQINODES.S", 10, |i| number(i.diskinodes.map(|d| d.softlimit))),
    alias("diskinodes.h", "DQINODES.H", 10, |i| number(i.diskinodes.map(|d| d.hardlimit))),
    field("laverage", "LAVERAGE", 14, |i| i.laverage.map_or(Value::Unknown, Value::Load)),
    field("uptime", "UPTIME", 15, |i| i.uptime.map_or(Value::Unknown, Value::Seconds)),
    field("cpulimit", "CPULIM", 7, |i| parameter(i, "cpulimit", 0)),
    field("cpuunits", "CPUUNI", 7, |i| parameter(i, "cpuunits", 1000)),
    field("cpus", "CPUS", 5, |i| parameter(i, "cpus", None)),
    field("cpumask", "CPUMASK", -10, |i| text(&i.parameters.get("cpumask").cloned())),
    field("nodemask", "NODEMASK", -10, |i| text(&i.parameters.get("nodemask").cloned())),
    field("ioprio", "IOP", 3, |i| parameter(i, "ioprio", 4)),
    field("iolimit", "IOLIMIT", 10, |i| parameter(i, "iolimit", 0)),
    field("iopslimit", "IOPSLIMIT", 10, |i| parameter(i, "iopslimit", 0)),
    field("vm_overcommit", "VM_OVC", 6, |i| text(&i.parameters.get("vm_overcommit").cloned())),
    field("unenforced", "UNENFORCED", -32, |i| Value::List(i.unenforced.keys().cloned().collect())),
    field("onboot", "ONBOOT", 6, |i| i.onboot.map_or(Value::Unknown, Value::Flag)),
    field("bootorder", "BOOTORDER", 10, |i| number(i.bootorder)),
    field("layout", "LAYOUT", -8, |i| text(&i.layout)),
    field("features", "FEATURES", -15, |i| Value::List(i.features.clone())),
    field("vswap", "VSWAP", 5, |i| i.vswap.map_or(Value::Unknown, Value::Flag)),
    field("disabled", "DISABL", 6, |i| Value::Flag(i.disabled)),
    field("state", "STATE", -10, |i| {
        Value::Text(serde_json::to_value(i.state).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default())
    }),
    field("uuid", "UUID", -36, |i| text(&i.uuid)),
    field("uid_base", "UID_BASE", 10, |i| number(i.uid_base)),
    field("pid", "PID", 10, |i| number(i.pid.and_then(|p| u64::try_from(p).ok()))),
    field("boots", "BOOTS", 5, |i| number(i.boots)),
    field("cgroup", "CGROUP", -32, |i| text(&i.cgroup)),
    field("link", "LINK", -15, |i| text(&i.link)),
    field("last_exit", "LAST_EXIT", -32, |i| text(&i.last_exit)),
    field("last_failure", "LAST_FAILURE", -32, |i| text(&i.last_failure)),
    field("config_error", "CONFIG_ERROR", -32, |i| text(&i.config_error)),
];

/// Fields of [`REST`] that vzd has to look up a container's limits for.
const LIMITS: &[&str] = &[
    "cpulimit",
    "cpuunits",
    "cpus",
    "cpumask",
    "nodemask",
    "ioprio",
    "iolimit",
    "iopslimit",
    "vm_overcommit",
    "unenforced",
    "vswap",
];

/// Every field, in the order of `-L`.
pub fn all() -> impl Iterator<Item = &'static Field> {
    PLAIN.iter().chain(BEANS).chain(REST)
}

/// The field of this name.
pub fn find(name: &str) -> Option<&'static Field> {
    all().find(|f| f.name == name)
}

impl Field {
    /// Whether a brief list has it, in text: the number of processes is the one counter that does.
    pub fn is_brief(&self) -> bool {
        match self.get {
            Get::Info(_) => !LIMITS.contains(&self.name),
            Get::Bean(name, part) => (name, part) == ("numproc", Part::Held),
        }
    }

    /// Whether it says how full the disk is.
    pub fn is_disk(&self) -> bool {
        self.name.starts_with("disk")
    }

    /// The counter it is a part of.
    pub fn counter(&self) -> Option<&'static str> {
        match self.get {
            Get::Info(_) => None,
            Get::Bean(name, _) => Some(name),
        }
    }

    /// Its value for one container.
    pub fn value(&self, info: &CtInfo) -> Value {
        match self.get {
            Get::Info(get) => get(info),
            Get::Bean(name, part) => match (bean(name, info), part) {
                (None, _) => Value::Unknown,
                (Some(b), Part::Held) => Value::Bean(b),
                (Some(b), Part::MaxHeld) => number(b.maxheld),
                (Some(b), Part::Barrier) => Value::Number(b.barrier),
                (Some(b), Part::Limit) => Value::Number(b.limit),
                (Some(b), Part::FailCnt) => Value::Number(b.failcnt),
            },
        }
    }
}

/// A beancounter. One that is not held because nothing runs shows `-`, as the classic tool does.
fn bean(name: &str, info: &CtInfo) -> Option<Bean> {
    let Some(b) = info.beancounters.iter().find(|b| b.name == name) else {
        // A brief list tells this one alone.
        let held = if name == "numproc" { Some(info.numproc?) } else { return None };
        let unlimited = vz_types::limits::Amount::CLASSIC_UNLIMITED;
        return Some(Bean { held, maxheld: None, barrier: unlimited, limit: unlimited, failcnt: 0, class: None });
    };
    let held = b.held.filter(|_| info.status == "running");
    let class = vz_types::limits::table::Class::of(&b.class);
    Some(Bean { held, maxheld: Some(b.maxheld), barrier: b.barrier, limit: b.limit, failcnt: b.failcnt, class })
}
