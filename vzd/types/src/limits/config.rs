//! `[limits]`, `[cpu]` and `[io]` of a container's configuration.
//!
//! ```toml
//! [limits]
//! physpages = "0:512M"      # barrier:limit, or one value for both; each counter by its name
//! swappages = "0:1G"
//! numproc = 400
//! vm_overcommit = 1.5
//! [cpu]
//! units = 1000              # 8..500000
//! limit = 50                # percent of one CPU
//! cpus = 2
//! mask = "0-1"
//! [io]
//! prio = 4                  # 0..7
//! limit = "10M"             # bytes a second
//! iops = 500
//! ```

use super::{
    amount::{Amount, LimitError, PAGE, Pair},
    table::Ub,
};
use crate::Bytes;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeSeed, Error as _, MapAccess, Visitor},
    ser::SerializeMap,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

/// `[limits]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsConfig {
    /// What is set; a counter that is not here is unlimited, a guarantee that is not here is 0.
    pub counters: BTreeMap<Ub, Pair>,
    /// See [`Overcommit`].
    pub vm_overcommit: Option<Overcommit>,
}

const OVERCOMMIT: &str = "vm_overcommit";

impl LimitsConfig {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Barrier and limit of a counter, set or not.
    pub fn get(&self, ub: Ub) -> Pair {
        self.counters.get(&ub).copied().unwrap_or_else(|| unset(ub))
    }

    /// VSwap mode: memory is limited as such.
    pub fn vswap(&self) -> bool {
        self.get(Ub::Physpages).limit != Amount::Unlimited
    }

    /// Pages of address space for each process: privvmpages, else vm_overcommit's; `None`: no limit.
    pub fn address_space(&self) -> Option<u64> {
        if let Some(n) = self.get(Ub::Privvmpages).limit.number() {
            return Some(n);
        }
        let factor = self.vm_overcommit?;
        let ram = self.get(Ub::Physpages).limit.number()?;
        // Unlimited swap is no sum to multiply.
        let swap = self.get(Ub::Swappages).limit.number()?;
        Some(((u128::from(ram) + u128::from(swap)) * u128::from(factor.0) / 1000).min(1 << 51) as u64)
    }
}

/// What a counter has that nobody set.
pub fn unset(ub: Ub) -> Pair {
    match ub.row().shape {
        super::table::Shape::Limited => Pair::UNLIMITED,
        super::table::Shape::Guarantee => Pair { barrier: Amount::At(0), limit: Amount::Unlimited },
    }
}

impl Serialize for LimitsConfig {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        for (ub, pair) in &self.counters {
            map.serialize_entry(ub.name(), &pair.show(*ub))?;
        }
        if let Some(factor) = self.vm_overcommit {
            map.serialize_entry(OVERCOMMIT, &factor.to_string())?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for LimitsConfig {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = LimitsConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("counters by name with their barrier:limit")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LimitsConfig, A::Error> {
                let mut out = LimitsConfig::default();
                while let Some(key) = map.next_key::<String>()? {
                    map.next_value_seed(Entry(&key, &mut out))?;
                }
                Ok(out)
            }
        }
        d.deserialize_map(V)
    }
}

/// The value of one key, parsed where it is read, so that an error is one of its line.
struct Entry<'a>(&'a str, &'a mut LimitsConfig);

impl<'de> DeserializeSeed<'de> for Entry<'_> {
    type Value = ();
    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        let Self(key, out) = self;
        let value = Text::deserialize(d)?.0;
        if key == OVERCOMMIT {
            out.vm_overcommit = value.parse().map(Some).map_err(D::Error::custom)?;
            return Ok(());
        }
        let ub: Ub = key.parse().map_err(D::Error::custom)?;
        out.counters.insert(ub, Pair::parse(ub, &value).map_err(D::Error::custom)?);
        Ok(())
    }
}

/// A number or a text, as text: `numproc = 400` and `numproc = "400:500"`.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a text")
            }
            fn visit_str<E>(self, v: &str) -> Result<Text, E> {
                Ok(Text(v.to_owned()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Text, E> {
                Ok(Text(v.to_string()))
            }
        }
        d.deserialize_any(V)
    }
}

/// A parsed text with its rules, that is written as it is read.
macro_rules! from_text {
    ($ty:ident) => {
        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Text::deserialize(d)?.0.parse().map_err(D::Error::custom)
            }
        }
    };
}

macro_rules! ranged {
    ($(#[$doc:meta])* $ty:ident($inner:ty), $name:literal, $range:expr, $why:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub struct $ty(pub $inner);
        impl FromStr for $ty {
            type Err = LimitError;
            fn from_str(s: &str) -> Result<Self, LimitError> {
                let n: Option<$inner> = s.trim().parse().ok().filter(|n| $range.contains(n));
                n.map(Self).ok_or_else(|| LimitError::new($name, s, $why))
            }
        }
        from_text!($ty);
        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.fmt(f) }
        }
    };
}

ranged!(
    /// A share of processor time: 8..=500000, 1000 is what a container has that says nothing.
    CpuUnits(u32), "cpuunits", (8..=500_000), "write a number from 8 to 500000; 1000 is normal"
);
ranged!(
    /// CPUs to have the time of: 1..=4096.
    Cpus(u32), "cpus", (1..=4096), "write a number of CPUs from 1 to 4096, or 0 for all"
);
ranged!(
    /// A share of disk time: 0..=7, 4 is what a container has that says nothing.
    IoPrio(u8), "ioprio", (0..=7), "write a number from 0 (least) to 7 (most); 4 is normal"
);
ranged!(
    /// Disk operations a second: 1..=4294967295.
    Iops(u32), "iopslimit", (1..=u32::MAX), "write a number of operations a second from 1 to 4294967295, or 0 for no limit"
);

/// Percent of one CPU: 1..=409600. Text may end in `%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CpuLimit(pub u32);

impl FromStr for CpuLimit {
    type Err = LimitError;
    fn from_str(s: &str) -> Result<Self, LimitError> {
        let t = s.trim();
        let n = t.strip_suffix('%').unwrap_or(t).parse().ok().filter(|n| (1..=409_600).contains(n));
        let why = "write percent of one CPU from 1 up (150 is one and a half CPUs), or 0 for no limit";
        n.map(Self).ok_or_else(|| LimitError::new("cpulimit", s, why))
    }
}
from_text!(CpuLimit);

/// Bytes a second: 4096 and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct IoLimit(pub u64);

impl IoLimit {
    const WHY: &str = "write bytes a second with a suffix, like 500K, 10M or 1G, at least 4K; 0 is no limit";

    /// From the command line, where a bare number is MB a second.
    ///
    /// # Errors
    /// Names the value and the accepted form.
    pub fn from_command_line(s: &str) -> Result<Self, LimitError> {
        let t = s.trim();
        if !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()) {
            let bytes = t.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << 20));
            return bytes.ok_or_else(|| LimitError::new("iolimit", s, Self::WHY)).and_then(|n| Self::of(n, s));
        }
        s.parse()
    }

    fn of(n: u64, s: &str) -> Result<Self, LimitError> {
        let ok = (4096..=1 << 50).contains(&n);
        if ok { Ok(Self(n)) } else { Err(LimitError::new("iolimit", s, Self::WHY)) }
    }
}

impl FromStr for IoLimit {
    type Err = LimitError;
    fn from_str(s: &str) -> Result<Self, LimitError> {
        let n: Bytes = s.trim().parse().map_err(|_| LimitError::new("iolimit", s, Self::WHY))?;
        Self::of(n.0, s)
    }
}
from_text!(IoLimit);

impl From<IoLimit> for String {
    fn from(l: IoLimit) -> String {
        Bytes(l.0).to_string()
    }
}

/// How much address space each process may have, in thousandths of RAM and swap together: 1..=1000000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Overcommit(pub u32);

impl FromStr for Overcommit {
    type Err = LimitError;
    fn from_str(s: &str) -> Result<Self, LimitError> {
        let bad =
            || LimitError::new("vm_overcommit", s, "write a factor from 0.001 to 1000, like 1.5, or 0 for no limit");
        let (whole, fraction) = s.trim().split_once('.').unwrap_or((s.trim(), ""));
        let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 5 || fraction.len() > 3 || !digits(whole) || !digits(fraction) {
            return Err(bad());
        }
        let n: u32 = format!("{whole}{fraction:0<3}").parse().map_err(|_| bad())?;
        if (1..=1_000_000).contains(&n) { Ok(Self(n)) } else { Err(bad()) }
    }
}

impl fmt::Display for Overcommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// A set of processors or memory nodes: `0-3,6`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Mask(pub BTreeSet<u16>);

impl Mask {
    /// Largest number in a mask.
    const MOST: u16 = 8191;

    /// As [`FromStr`], for the option of this name.
    ///
    /// # Errors
    /// Names the option, the value and the accepted form.
    pub fn parse(name: &str, s: &str) -> Result<Self, LimitError> {
        let bad = || LimitError::new(name, s, "write numbers and ranges like 0-3,6, or all");
        let mut set = BTreeSet::new();
        for part in s.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |t: &str| -> Option<u16> {
                let plain = !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
                t.parse().ok().filter(|n| plain && *n <= Self::MOST)
            };
            let (Some(first), Some(last)) = (number(first), number(last)) else { return Err(bad()) };
            if first > last {
                return Err(bad());
            }
            set.extend(first..=last);
        }
        Ok(Self(set))
    }
}

impl FromStr for Mask {
    type Err = LimitError;
    fn from_str(s: &str) -> Result<Self, LimitError> {
        Self::parse("mask", s)
    }
}
from_text!(Mask);

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(u16, u16)> = Vec::new();
        for n in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *n => *last = *n,
                _ => runs.push((*n, *n)),
            }
        }
        let words: Vec<String> =
            runs.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
        f.write_str(&words.join(","))
    }
}

impl From<Mask> for String {
    fn from(m: Mask) -> String {
        m.to_string()
    }
}

/// `[cpu]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CpuConfig {
    /// Share against others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units: Option<CpuUnits>,
    /// Percent of one CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<CpuLimit>,
    /// CPUs to have the time of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    /// Processors to run on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<Mask>,
    /// Memory nodes to use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodemask: Option<Mask>,
}

impl CpuConfig {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Percent of one CPU that may be used in all: the lower of limit and cpus.
    pub fn percent(&self) -> Option<u32> {
        let cpus = self.cpus.map(|c| c.0.saturating_mul(100));
        self.limit.map(|l| l.0).into_iter().chain(cpus).min()
    }
}

/// `[io]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IoConfig {
    /// Share against others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prio: Option<IoPrio>,
    /// Bytes a second, of reads and of writes each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<IoLimit>,
    /// Operations a second, of reads and of writes each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops: Option<Iops>,
}

impl IoConfig {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What the host has, for the refusal of what is above it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSize {
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of swap space.
    pub swap: u64,
    /// Processors that are online.
    pub cpus: BTreeSet<u16>,
    /// Memory nodes that are online.
    pub nodes: BTreeSet<u16>,
    /// `kernel.pid_max`.
    pub pids: u64,
    /// `fs.nr_open`: descriptors that one process can have at most.
    pub files: u64,
}

/// The first limit that is above what the host has, or names what it has not.
pub fn above_host(limits: &LimitsConfig, cpu: &CpuConfig, host: &HostSize) -> Option<LimitError> {
    let ram = host.memory / PAGE;
    let both = host.memory.saturating_add(host.swap);
    let has = |bytes: u64| super::amount::human(bytes);
    for (ub, most, what) in [
        (Ub::Physpages, ram, format!("memory: {}", has(host.memory))),
        (Ub::Oomguarpages, ram, format!("memory: {}", has(host.memory))),
        (Ub::Vmguarpages, ram, format!("memory: {}", has(host.memory))),
        (Ub::Numproc, host.pids, format!("process ids: {} (kernel.pid_max)", host.pids)),
        (Ub::Numfile, host.files, format!("descriptors for a process: {} (fs.nr_open)", host.files)),
        // Swap space can be added to a host at any time; but what exceeds all it has cannot be meant.
        (Ub::Swappages, both / PAGE, format!("memory and swap space: {}", has(both))),
    ] {
        let pair = limits.get(ub);
        let asked = if ub.row().shape == super::table::Shape::Guarantee { pair.barrier } else { pair.limit };
        if asked.number().is_some_and(|n| n > most) {
            let unit = ub.row().unit;
            let (shown, instead) = match ub.row().shape {
                super::table::Shape::Guarantee => (super::amount::show(pair.barrier, unit), "write less"),
                super::table::Shape::Limited => (pair.show(ub), "write less, or unlimited"),
            };
            let why = format!("more than this host has of {what}; {instead}");
            return Some(LimitError::new(ub.name(), &shown, why));
        }
    }
    let count = host.cpus.len() as u32;
    if let Some(limit) = cpu.limit.filter(|l| l.0 > count * 100) {
        let why = format!("this host has {count} CPUs, which is {} percent; 0 is no limit", count * 100);
        return Some(LimitError::new("cpulimit", &limit.0.to_string(), why));
    }
    if let Some(cpus) = cpu.cpus.filter(|c| c.0 > count) {
        return Some(LimitError::new(
            "cpus",
            &cpus.to_string(),
            format!("this host has {count} CPUs; 0 is all of them"),
        ));
    }
    for (name, mask, there) in [("cpumask", &cpu.mask, &host.cpus), ("nodemask", &cpu.nodemask, &host.nodes)] {
        let Some(mask) = mask else { continue };
        if let Some(absent) = mask.0.difference(there).next() {
            let what = if name == "cpumask" { "CPU" } else { "memory node" };
            let all = Mask(there.clone());
            return Some(LimitError::new(
                name,
                &mask.to_string(),
                format!("there is no {what} {absent}; this host has {all}"),
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CtConfig;

    const TEXT: &str = "ostemplate = 'debian-12'\n[limits]\nphyspages = '0:512M'\nswappages = '0:1G'\nnumproc = 400\nvm_overcommit = 1.5\n[cpu]\nunits = 1500\nlimit = '50%'\ncpus = 2\nmask = '0-1,3'\n[io]\nprio = 7\nlimit = '10M'\niops = 500\n";

    #[test]
    fn the_three_tables_round_trip() {
        let c: CtConfig = toml::from_str(TEXT).unwrap();
        assert_eq!(c.limits.get(Ub::Physpages).limit, Amount::At(131_072));
        assert_eq!(c.limits.get(Ub::Numproc).limit, Amount::At(400));
        assert_eq!(c.limits.get(Ub::Numfile), Pair::UNLIMITED);
        assert_eq!(c.limits.address_space(), Some(393_216 * 3 / 2));
        assert_eq!((c.cpu.percent(), c.io.limit.unwrap().0), (Some(50), 10 << 20));
        let again: CtConfig = toml::from_str(&toml::to_string(&c).unwrap()).unwrap();
        assert_eq!(c, again);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (line, word) in [
            ("[limits]\nfoopages = 3\n", "foopages"),
            ("[limits]\nphyspages = '2:1'\n", "physpages"),
            ("[limits]\nnumproc = -4\n", "numproc"),
            ("[limits]\nvm_overcommit = 'x'\n", "vm_overcommit"),
            ("[cpu]\nunits = 7\n", "cpuunits"),
            ("[cpu]\nmask = '3-1'\n", "mask"),
            ("[io]\nprio = 8\n", "ioprio"),
            ("[io]\nlimit = 'x'\n", "iolimit"),
        ] {
            let e = toml::from_str::<CtConfig>(&format!("ostemplate = 'x'\n{line}")).unwrap_err().to_string();
            assert!(e.contains(word), "{line}: {e}");
        }
    }

    #[test]
    fn the_command_lines_bare_number_is_megabytes_and_the_files_is_bytes() {
        assert_eq!(IoLimit::from_command_line("10").unwrap().0, 10 << 20);
        assert_eq!(IoLimit::from_command_line("500K").unwrap().0, 500 << 10);
        assert_eq!("10485760".parse::<IoLimit>().unwrap().0, 10 << 20);
        assert!(IoLimit::from_command_line("99999999999999").is_err());
    }

    #[test]
    fn what_the_host_has_not_is_named() {
        let host = HostSize {
            memory: 1 << 30,
            swap: 0,
            cpus: [0, 1].into(),
            nodes: [0].into(),
            pids: 4_194_304,
            files: 1 << 20,
        };
        let refused = |text: &str| {
            let c: CtConfig = toml::from_str(&format!("ostemplate = 'x'\n{text}")).unwrap();
            above_host(&c.limits, &c.cpu, &host).map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(refused("[limits]\nphyspages = '0:2G'\n").contains("1G"));
        assert!(refused("[limits]\noomguarpages = '2G'\n").starts_with("oomguarpages"));
        assert!(refused("[limits]\nnumproc = 5000000\n").contains("pid_max"));
        assert!(refused("[cpu]\nlimit = 201\n").contains("2 CPUs"));
        assert!(refused("[cpu]\ncpus = 3\n").contains("2 CPUs"));
        assert!(refused("[cpu]\nmask = '0-2'\n").contains("no CPU 2"));
        assert!(refused("[cpu]\nnodemask = '1'\n").contains("no memory node 1"));
        assert_eq!(refused("[limits]\nphyspages = '0:1G'\n[cpu]\nlimit = 200\ncpus = 2\nmask = '0-1'\n"), "");
        assert_eq!(refused("[limits]\nphyspages = 'unlimited'\n"), "");
    }
}
