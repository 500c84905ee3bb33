//! What the kernel is told: the files of a container's cgroup, and what its processes and namespaces start with.

use super::{
    amount::{Amount, PAGE},
    config::LimitsConfig,
    table::Ub,
};
use crate::CtConfig;
use serde::{Deserialize, Serialize};

/// One file of the container's cgroup with what it is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The counter or parameter that asks for it.
    pub name: &'static str,
    /// The controller that has the file.
    pub controller: &'static str,
    /// The file.
    pub file: &'static str,
    /// What it is to hold.
    pub value: String,
    /// What it holds in a new cgroup.
    pub default: &'static str,
}

impl Setting {
    /// Whether something other than the kernel's default is asked for.
    pub fn is_set(&self) -> bool {
        self.value != self.default
    }
}

/// Microseconds of one period of `cpu.max`.
pub const CPU_PERIOD: u64 = 100_000;
/// io.weight of each ioprio; 4 is the kernel's default.
const IO_WEIGHTS: [u32; 8] = [25, 50, 75, 90, 100, 200, 400, 800];

fn bytes(amount: Amount) -> String {
    amount.number().map_or_else(|| "max".into(), |n| n.saturating_mul(PAGE).to_string())
}

/// `memory.high` of physpages: a barrier of 0 is unset and never written as 0, which would stop every allocation; one
/// at the limit or above does nothing.
fn high(limits: &LimitsConfig) -> String {
    let pair = limits.get(Ub::Physpages);
    match pair.barrier {
        Amount::At(0) => "max".into(),
        barrier if barrier >= pair.limit => "max".into(),
        barrier => bytes(barrier),
    }
}

/// Every setting of a container's cgroup but `io.max`, which is per disk; set or not.
pub fn settings(c: &CtConfig) -> Vec<Setting> {
    let limits = &c.limits;
    let row = |name, controller, file, value, default| Setting { name, controller, file, value, default };
    let items = |ub: Ub| limits.get(ub).limit.number().map_or_else(|| "max".into(), |n| n.to_string());
    let weight = c.cpu.units.map_or(100, |u| (u.0 / 10).clamp(1, 10_000));
    let quota = c.cpu.percent().map_or_else(|| "max".into(), |p| (u64::from(p) * CPU_PERIOD / 100).to_string());
    let mask = |m: &Option<super::config::Mask>| m.as_ref().map(ToString::to_string).unwrap_or_default();
    vec![
        row("physpages", "memory", "memory.high", high(limits), "max"),
        row("physpages", "memory", "memory.max", bytes(limits.get(Ub::Physpages).limit), "max"),
        row("swappages", "memory", "memory.swap.max", bytes(limits.get(Ub::Swappages).limit), "max"),
        row("vmguarpages", "memory", "memory.low", bytes(limits.get(Ub::Vmguarpages).barrier), "0"),
        row("oomguarpages", "memory", "memory.min", bytes(limits.get(Ub::Oomguarpages).barrier), "0"),
        row("numproc", "pids", "pids.max", items(Ub::Numproc), "max"),
        row("cpuunits", "cpu", "cpu.weight", weight.to_string(), "100"),
        row(
            if c.cpu.limit.is_some() { "cpulimit" } else { "cpus" },
            "cpu",
            "cpu.max",
            format!("{quota} {CPU_PERIOD}"),
            "max 100000",
        ),
        row("cpumask", "cpuset", "cpuset.cpus", mask(&c.cpu.mask), ""),
        row("nodemask", "cpuset", "cpuset.mems", mask(&c.cpu.nodemask), ""),
    ]
}

/// io.weight of the container; 100 is the default.
pub fn io_weight(c: &CtConfig) -> u32 {
    c.io.prio.map_or(100, |p| IO_WEIGHTS[usize::from(p.0.min(7))])
}

/// The words for one disk in `io.max`.
pub fn io_max(c: &CtConfig) -> String {
    let number = |n: Option<u64>| n.map_or_else(|| "max".into(), |n: u64| n.to_string());
    let (bps, iops) = (number(c.io.limit.map(|l| l.0)), number(c.io.iops.map(|i| i.0.into())));
    format!("rbps={bps} wbps={bps} riops={iops} wiops={iops}")
}

/// `io.max` of a disk without limits.
pub const IO_MAX_NONE: &str = "rbps=max wbps=max riops=max wiops=max";

/// What a container's processes and namespaces get, beside the cgroup. `None`: as the host's manager has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inside {
    /// RLIMIT_NOFILE, hard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nofile: Option<u64>,
    /// RLIMIT_MEMLOCK, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memlock: Option<u64>,
    /// RLIMIT_AS, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_space: Option<u64>,
    /// RLIMIT_SIGPENDING, of the whole user namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigpending: Option<u64>,
    /// Pseudo terminals of /dev/pts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pty_max: Option<u32>,
    /// `kernel.shmall` in pages, and the size of /dev/shm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_pages: Option<u64>,
    /// Maximum of `net.ipv4.tcp_wmem`, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_wmem: Option<u64>,
    /// Maximum of `net.ipv4.tcp_rmem`, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_rmem: Option<u64>,
}

impl Inside {
    /// What a configuration asks for.
    pub fn of(c: &CtConfig) -> Self {
        let at = |ub: Ub| c.limits.get(ub).limit.number();
        let pages = |n: u64| n.saturating_mul(PAGE);
        let int = |n: u64| n.min(i32::MAX as u64);
        Self {
            // The kernel's own most (fs.nr_open's default); rlimits beyond it are refused.
            nofile: at(Ub::Numfile).map(|n| n.min(1 << 20)),
            memlock: at(Ub::Lockedpages).map(pages),
            address_space: c.limits.address_space().map(pages),
            sigpending: at(Ub::Numsiginfo),
            pty_max: at(Ub::Numpty).map(|n| n.min(1 << 20) as u32),
            shm_pages: at(Ub::Shmpages),
            tcp_wmem: at(Ub::Tcpsndbuf).map(int),
            tcp_rmem: at(Ub::Tcprcvbuf).map(int),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> CtConfig {
        toml::from_str(&format!("ostemplate = 'x'\n{text}")).unwrap()
    }
    fn value(c: &CtConfig, file: &str) -> String {
        settings(c).into_iter().find(|s| s.file == file).unwrap().value
    }

    #[test]
    fn nothing_set_is_the_kernels_default_everywhere() {
        let c = config("");
        assert!(settings(&c).iter().all(|s| !s.is_set()), "{:?}", settings(&c));
        assert_eq!((io_max(&c).as_str(), io_weight(&c)), (IO_MAX_NONE, 100));
        assert_eq!(Inside::of(&c), Inside::default());
    }

    #[test]
    fn memory_high_is_never_zero() {
        for (text, high) in [
            ("0:512M", "max"),
            ("256M:512M", "268435456"),
            ("512M:512M", "max"),
            ("512M", "max"),
            ("0:unlimited", "max"),
            ("256M:unlimited", "268435456"),
            ("unlimited", "max"),
        ] {
            let c = config(&format!("[limits]\nphyspages = '{text}'\n"));
            assert_eq!(value(&c, "memory.high"), high, "{text}");
        }
    }

    #[test]
    fn figures_as_the_design_says() {
        let c = config(
            "[limits]\nphyspages = '0:512M'\nswappages = '0:0'\noomguarpages = '64M'\nnumproc = 240\n[cpu]\nunits = 3000\nlimit = 250\ncpus = 2\nmask = '1,0,3'\n[io]\nlimit = '5M'\niops = 40\nprio = 0\n",
        );
        for (file, want) in [
            ("memory.max", "536870912"),
            ("memory.swap.max", "0"),
            ("memory.min", "67108864"),
            ("memory.low", "0"),
            ("pids.max", "240"),
            ("cpu.weight", "300"),
            ("cpu.max", "200000 100000"),
            ("cpuset.cpus", "0-1,3"),
        ] {
            assert_eq!(value(&c, file), want, "{file}");
        }
        assert_eq!(io_max(&c), "rbps=5242880 wbps=5242880 riops=40 wiops=40");
        assert_eq!(io_weight(&c), 25);
    }
}
