//! The fields of vzlist: one row each, with the classic header, width and value. Those of settings come from the rows of
//! the table of settings.

use crate::list::value::{Bean, Value};
use std::sync::LazyLock;
use vz_api::wire::{CtInfo, DiskFigure};
use vz_types::settings::{Column, Part as Shown, SETTINGS, Setting};

/// One field.
#[derive(Clone, Copy)]
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

/// A value of a container's data.
type Show = fn(&CtInfo) -> Value;

/// How a field gets its value.
#[derive(Clone, Copy)]
pub enum Get {
    /// From the container's data.
    Info(Show),
    /// A part of a beancounter, of this name.
    Bean(&'static str, Part),
    /// A setting, or a part of a quota.
    Setting(&'static Setting, Shown),
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

const fn field(name: &'static str, header: &'static str, width: i16, get: Show) -> Field {
    Field { name, header, width, get: Get::Info(get), in_json: true }
}

const fn alias(name: &'static str, header: &'static str, width: i16, get: Show) -> Field {
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

/// Settings of the first versions, which have fields of their own in the API: there vzd says what it knows where no
/// configuration can be read, and the use of a quota; earlier ones say nothing else. Every later setting is in
/// [`CtInfo::settings`] alone.
const OWN: &[(&str, Show)] = &[
    ("hostname", |i| text(&i.hostname)),
    ("name", |i| text(&i.name)),
    ("description", |i| text(&i.description)),
    ("nameserver", |i| Value::List(i.nameserver.clone())),
    ("searchdomain", |i| Value::List(i.searchdomain.clone())),
    ("diskspace", |i| space(i).map_or(Value::Unknown, Value::Disk)),
    ("diskinodes", |i| i.diskinodes.map_or(Value::Unknown, Value::Disk)),
    ("onboot", |i| i.onboot.map_or(Value::Unknown, Value::Flag)),
    ("bootorder", |i| number(i.bootorder)),
    ("features", |i| Value::List(i.features.clone())),
    ("disabled", |i| Value::Flag(i.disabled)),
];

/// The value of a setting.
fn setting(i: &CtInfo, name: &str) -> Value {
    let own = OWN.iter().find(|(n, _)| *n == name);
    own.map_or_else(|| i.settings.get(name).map_or(Value::Unknown, told), |(_, get)| get(i))
}

/// A setting as the API tells it.
fn told(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let word = |v: &Json| v.as_str().map(str::to_owned);
    match value {
        Json::Null => Value::Unknown,
        Json::Bool(flag) => Value::Flag(*flag),
        Json::Number(n) => n.as_u64().map_or(Value::Unknown, Value::Number),
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(all) => Value::List(all.iter().filter_map(word).collect()),
        Json::Object(switches) => {
            Value::List(switches.iter().filter(|(_, on)| **on == Json::Bool(true)).map(|(n, _)| n.clone()).collect())
        }
    }
}

/// What the container is and where it is.
const PLAIN: &[Field] = &[
    field("ctid", "CTID", 10, ctid),
    alias("veid", "CTID", 10, ctid),
    alias("vpsid", "CTID", 10, ctid),
    field("private", "PRIVATE", -32, |i| Value::Text(i.private.clone())),
    field("root", "ROOT", -32, |i| Value::Text(i.root.clone())),
    field("smart_name", "SMARTNAME", -10, |i| Value::Text(i.name.clone().unwrap_or_else(|| i.ctid.to_string()))),
    field("ostemplate", "OSTEMPLATE", -24, |i| text(&i.ostemplate)),
    field("ip", "IP_ADDR", -15, |i| Value::List(i.ip.clone())),
    field("status", "STATUS", -9, |i| Value::Text(i.status.clone())),
];

const BEANS: &[Field] = beans! {
    "kmemsize" "KMEMSIZE", "lockedpages" "LOCKEDP", "privvmpages" "PRIVVMP", "shmpages" "SHMP", "numproc" "NPROC",
    "physpages" "PHYSP", "vmguarpages" "VMGUARP", "oomguarpages" "OOMGUARP", "numtcpsock" "NTCPSOCK",
    "numflock" "NFLOCK", "numpty" "NPTY", "numsiginfo" "NSIGINFO", "tcpsndbuf" "TCPSNDB", "tcprcvbuf" "TCPRCVB",
    "othersockbuf" "OTHSOCKB", "dgramrcvbuf" "DGRAMRB", "numothersock" "NOTHSOCK", "dcachesize" "DCACHESZ",
    "numfile" "NFILE", "numiptent" "NIPTENT", "swappages" "SWAPP",
};

/// Load, limits and what runs.
const REST: &[Field] = &[
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
    field("layout", "LAYOUT", -8, |i| text(&i.layout)),
    field("vswap", "VSWAP", 5, |i| i.vswap.map_or(Value::Unknown, Value::Flag)),
    field("state", "STATE", -10, |i| {
        Value::Text(serde_json::to_value(i.state).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default())
    }),
    field("uuid", "UUID", -36, |i| text(&i.uuid)),
    field("uid_base", "UID_BASE", 10, |i| number(i.uid_base)),
    field("pid", "PID", 10, |i| number(i.pid.and_then(|p| u64::try_from(p).ok()))),
    field("boots", "BOOTS", 5, |i| number(i.boots)),
    field("cgroup", "CGROUP", -32, |i| text(&i.cgroup)),
    field("link", "LINK", -15, |i| text(&i.link)),
    field("readonly", "READONLY", 8, |i| Value::Flag(i.read_only)),
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
static ALL: LazyLock<Vec<Field>> = LazyLock::new(|| {
    let mut all = Vec::new();
    PLAIN.iter().chain(BEANS).chain(REST).for_each(|f| place(*f, &mut all));
    all
});

/// Appends a field and those of settings that come after it.
fn place(field: Field, all: &mut Vec<Field>) {
    all.push(field);
    let columns = SETTINGS.iter().flat_map(|s| s.columns.iter().map(move |c| (s, c)));
    for (setting, column) in columns.filter(|(_, c)| c.after == field.name) {
        let Column { name, header, width, part, .. } = *column;
        place(Field { name, header, width, get: Get::Setting(setting, part), in_json: part == Shown::Value }, all);
    }
}

/// Every field, in the order of `-L`.
pub fn all() -> impl Iterator<Item = &'static Field> {
    ALL.iter()
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
            Get::Setting(..) => true,
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
            Get::Info(_) | Get::Setting(..) => None,
            Get::Bean(name, _) => Some(name),
        }
    }

    /// Its value for one container.
    pub fn value(&self, info: &CtInfo) -> Value {
        match self.get {
            Get::Info(get) => get(info),
            Get::Setting(s, part) => match (setting(info, s.name), part) {
                (value, Shown::Value) => value,
                (Value::Disk(d), Shown::Soft) => Value::Number(d.softlimit),
                (Value::Disk(d), Shown::Hard) => Value::Number(d.hardlimit),
                _ => Value::Unknown,
            },
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_setting_without_a_field_of_its_own_in_the_api_is_shown_all_the_same() {
        let settings = json!({"later": 7, "words": ["a", "b"], "switches": {"a": true, "b": false}, "said": false});
        let info: CtInfo = serde_json::from_value(json!({
            "ctid": 101, "status": "stopped", "state": "stopped", "status_line": "", "ip": [], "nameserver": [],
            "searchdomain": [], "disabled": false, "features": [], "private": "", "root": "", "bootorder": 3,
            "settings": settings
        }))
        .unwrap();
        for (name, want) in [
            ("bootorder", Value::Number(3)),
            ("later", Value::Number(7)),
            ("words", Value::List(vec!["a".into(), "b".into()])),
            ("switches", Value::List(vec!["a".into()])),
            ("said", Value::Flag(false)),
            ("never", Value::Unknown),
        ] {
            assert_eq!(setting(&info, name), want, "{name}");
        }
    }

    #[test]
    fn what_is_told_of_every_row_has_something_to_show() {
        for row in SETTINGS.iter().filter(|r| r.slot.is_some() && !r.columns.is_empty()) {
            let value = row.parse(&[row.example.to_owned()]).unwrap();
            let shown = told(&serde_json::to_value(value).unwrap());
            assert!(shown.text().is_some(), "{}", row.name);
        }
        assert!(OWN.iter().all(|(name, _)| vz_types::settings::find(name).is_some()));
    }
}
