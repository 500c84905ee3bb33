//! The beancounters, one row each: the only place that knows what a counter is, what the kernel makes of it and how
//! far that can be relied on. The configuration, the command line, the engine, `vzubc`, `vzlist` and
//! docs/reference/beancounters.md all come from here.

/// What a counter counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Pages of 4096 bytes; on the command line a bare number is pages, a suffix makes it an amount of memory.
    Pages,
    /// Bytes; takes a suffix.
    Bytes,
    /// Things; takes none.
    Items,
}

impl Unit {
    /// The word in the documentation.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pages => "pages",
            Self::Bytes => "bytes",
            Self::Items => "items",
        }
    }
}

/// How far a counter's limit can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// A kernel object refuses or reclaims for the whole container.
    Enforced,
    /// It protects rather than limits.
    Guaranteed,
    /// The kernel refuses, but per process or object, not for the container's sum.
    PerProcess,
    /// Held and maxheld are true, nothing is refused.
    Accounted,
    /// It would be enforced or guaranteed elsewhere, and is not on this host.
    Unenforced,
}

impl Class {
    /// The word for a word, if it is one.
    pub fn of(word: &str) -> Option<&'static str> {
        [Self::Enforced, Self::Guaranteed, Self::PerProcess, Self::Accounted, Self::Unenforced]
            .map(Self::word)
            .into_iter()
            .find(|w| *w == word)
    }

    /// The word everywhere.
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Guaranteed => "guaranteed",
            Self::PerProcess => "per-process",
            Self::Accounted => "accounted",
            Self::Unenforced => "unenforced",
        }
    }
}

/// What the two numbers of a counter mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The limit holds; a barrier below it does something earlier, or nothing.
    Limited,
    /// The barrier is a guarantee; the limit is always unlimited.
    Guarantee,
}

/// Where the use of a counter is read, in the container's cgroup unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A file that holds one number.
    File(&'static str),
    /// A key of `memory.stat`, in bytes.
    MemoryStat(&'static str),
    /// Counted by looking at the container's processes and namespaces, when asked and once a minute.
    Sampled,
    /// The socket program's own count; without it as [`Held::Sampled`].
    Sockets,
}

macro_rules! counters {
    ($($id:ident $name:literal $header:literal { $($field:ident: $value:expr),+ $(,)? })+) => {
        /// A beancounter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Ub { $(#[doc = $name] $id),+ }

        /// Every beancounter, in the order of `user_beancounters`, swappages last.
        pub const COUNTERS: &[Counter] = &[$(Counter { ub: Ub::$id, name: $name, header: $header, $($field: $value),+ }),+];
    };
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    /// Which.
    pub ub: Ub,
    /// Its name, which is its option and its key as well.
    pub name: &'static str,
    /// As vzlist's header shows it.
    pub header: &'static str,
    /// See [`Unit`].
    pub unit: Unit,
    /// What it is where the kernel can do all that is asked of it.
    pub class: Class,
    /// See [`Shape`].
    pub shape: Shape,
    /// The least limit (guarantees: barrier) that makes sense.
    pub least: u64,
    /// The cgroup controller it needs.
    pub controller: Option<&'static str>,
    /// A running container takes a new value at once; otherwise at its next start.
    pub live: bool,
    /// Where its use is read.
    pub held: Held,
    /// The file with the kernel's own peak.
    pub peak: Option<&'static str>,
    /// Files and keys whose numbers add up to the fail count.
    pub fails: &'static [(&'static str, &'static str)],
    /// What barrier and limit become, for people.
    pub becomes: &'static str,
    /// What it is not, for people; empty: nothing to add.
    pub caveat: &'static str,
}

use Class::{Accounted, Enforced, Guaranteed, PerProcess};
use Shape::{Guarantee, Limited};
use Unit::{Bytes, Items, Pages};

/// The inside of `memory.max`: what has no limit of its own.
const INSIDE: &str = "nothing of its own: it is part of what physpages limits";

counters! {
    Kmemsize "kmemsize" "KMEMSIZE" { unit: Bytes, class: Accounted, shape: Limited, least: 0, controller: None, live: true,
        held: Held::MemoryStat("kernel"), peak: None, fails: &[], becomes: INSIDE, caveat: "" }
    Lockedpages "lockedpages" "LOCKEDP" { unit: Pages, class: PerProcess, shape: Limited, least: 0, controller: None, live: true,
        held: Held::MemoryStat("unevictable"), peak: None, fails: &[],
        becomes: "limit: RLIMIT_MEMLOCK of every process",
        caveat: "mlock(2) is checked per process; the sum is inside physpages" }
    Privvmpages "privvmpages" "PRIVVMP" { unit: Pages, class: PerProcess, shape: Limited, least: 4096, controller: None, live: true,
        held: Held::Sampled, peak: None, fails: &[],
        becomes: "limit: RLIMIT_AS of every process; without it vm_overcommit times (physpages + swappages)",
        caveat: "address space is refused per process; held is the sum of VmData, sampled" }
    Shmpages "shmpages" "SHMP" { unit: Pages, class: Enforced, shape: Limited, least: 0, controller: None, live: true,
        held: Held::MemoryStat("shmem"), peak: None, fails: &[],
        becomes: "limit: kernel.shmall of the container's ipc namespace and the size of its /dev/shm",
        caveat: "in part: root inside can mount another tmpfs, whose pages are inside physpages" }
    Numproc "numproc" "NPROC" { unit: Items, class: Enforced, shape: Limited, least: 8, controller: Some("pids"), live: true,
        held: Held::File("pids.current"), peak: Some("pids.peak"), fails: &[("pids.events", "max")],
        becomes: "limit: pids.max (processes and threads)", caveat: "" }
    Physpages "physpages" "PHYSP" { unit: Pages, class: Enforced, shape: Limited, least: 4096, controller: Some("memory"), live: true,
        held: Held::File("memory.current"), peak: Some("memory.peak"), fails: &[("memory.events", "max"), ("memory.events", "oom")],
        becomes: "limit: memory.max; a barrier above 0 and below the limit: memory.high. Barrier 0 is unset",
        caveat: "" }
    Vmguarpages "vmguarpages" "VMGUARP" { unit: Pages, class: Guaranteed, shape: Guarantee, least: 0, controller: Some("memory"), live: true,
        held: Held::File("memory.current"), peak: Some("memory.peak"), fails: &[],
        becomes: "barrier: memory.low", caveat: "given way to when nothing else on the host can be reclaimed" }
    Oomguarpages "oomguarpages" "OOMGUARP" { unit: Pages, class: Guaranteed, shape: Guarantee, least: 0, controller: Some("memory"), live: true,
        held: Held::File("memory.current"), peak: Some("memory.peak"), fails: &[("memory.events", "oom_kill")],
        becomes: "barrier: memory.min", caveat: "never oversold: a start that would promise more than the host has is refused" }
    Numtcpsock "numtcpsock" "NTCPSOCK" { unit: Items, class: Enforced, shape: Limited, least: 0, controller: None, live: true,
        held: Held::Sockets, peak: None, fails: &[],
        becomes: "limit: a cgroup BPF program that counts TCP sockets from socket(2) or accept to release",
        caveat: "connections beyond it are refused before they are established" }
    Numflock "numflock" "NFLOCK" { unit: Items, class: Accounted, shape: Limited, least: 0, controller: None, live: true,
        held: Held::Sampled, peak: None, fails: &[], becomes: "nothing: the kernel has no limit of its own",
        caveat: "counted in /proc/locks" }
    Numpty "numpty" "NPTY" { unit: Items, class: Enforced, shape: Limited, least: 1, controller: None, live: true,
        held: Held::Sampled, peak: None, fails: &[], becomes: "limit: max= of the container's /dev/pts",
        caveat: "bypassable: root inside can mount another devpts; the host's backstop is kernel.pty.max" }
    Numsiginfo "numsiginfo" "NSIGINFO" { unit: Items, class: Enforced, shape: Limited, least: 16, controller: None, live: false,
        held: Held::Sampled, peak: None, fails: &[],
        becomes: "limit: RLIMIT_SIGPENDING of the container's user namespace, counted for all of it",
        caveat: "set when the namespace is made; held is what is queued for each of its users, sampled" }
    Tcpsndbuf "tcpsndbuf" "TCPSNDB" { unit: Bytes, class: PerProcess, shape: Limited, least: 4608, controller: None, live: true,
        held: Held::MemoryStat("sock"), peak: None, fails: &[],
        becomes: "limit: the maximum in net.ipv4.tcp_wmem of the container's network",
        caveat: "per socket; held is all socket memory; the sum is inside physpages" }
    Tcprcvbuf "tcprcvbuf" "TCPRCVB" { unit: Bytes, class: PerProcess, shape: Limited, least: 4608, controller: None, live: true,
        held: Held::MemoryStat("sock"), peak: None, fails: &[],
        becomes: "limit: the maximum in net.ipv4.tcp_rmem of the container's network",
        caveat: "per socket; held is all socket memory; the sum is inside physpages" }
    Othersockbuf "othersockbuf" "OTHSOCKB" { unit: Bytes, class: Accounted, shape: Limited, least: 0, controller: None, live: true,
        held: Held::MemoryStat("sock"), peak: None, fails: &[], becomes: INSIDE, caveat: "held is all socket memory" }
    Dgramrcvbuf "dgramrcvbuf" "DGRAMRB" { unit: Bytes, class: Accounted, shape: Limited, least: 0, controller: None, live: true,
        held: Held::MemoryStat("sock"), peak: None, fails: &[], becomes: INSIDE, caveat: "held is all socket memory" }
    Numothersock "numothersock" "NOTHSOCK" { unit: Items, class: Enforced, shape: Limited, least: 0, controller: None, live: true,
        held: Held::Sockets, peak: None, fails: &[],
        becomes: "limit: the same program, for UDP, raw and ICMP sockets",
        caveat: "in part: local (unix), netlink and packet sockets do not pass the kernel's hook and are held by numfile and physpages" }
    Dcachesize "dcachesize" "DCACHESZ" { unit: Bytes, class: Accounted, shape: Limited, least: 0, controller: None, live: true,
        held: Held::MemoryStat("slab_reclaimable"), peak: None, fails: &[], becomes: INSIDE, caveat: "" }
    Numfile "numfile" "NFILE" { unit: Items, class: PerProcess, shape: Limited, least: 64, controller: None, live: true,
        held: Held::Sampled, peak: None, fails: &[], becomes: "limit: RLIMIT_NOFILE of every process",
        caveat: "per process; held is the number of descriptors, sampled" }
    Numiptent "numiptent" "NIPTENT" { unit: Items, class: Accounted, shape: Limited, least: 0, controller: None, live: true,
        held: Held::Sampled, peak: None, fails: &[], becomes: "nothing: the kernel has no limit of its own",
        caveat: "nft rules, which today's iptables makes; those of the old iptables are not counted" }
    Swappages "swappages" "SWAPP" { unit: Pages, class: Enforced, shape: Limited, least: 0, controller: Some("memory"), live: true,
        held: Held::File("memory.swap.current"), peak: Some("memory.swap.peak"), fails: &[("memory.swap.events", "max")],
        becomes: "limit: memory.swap.max", caveat: "not in user_beancounters, only in the resources file of each container" }
}

/// Rows of `user_beancounters` in OpenVZ's order; `None` is a `dummy`.
pub const CLASSIC_ROWS: [Option<Ub>; 24] = [
    Some(Ub::Kmemsize),
    Some(Ub::Lockedpages),
    Some(Ub::Privvmpages),
    Some(Ub::Shmpages),
    None,
    Some(Ub::Numproc),
    Some(Ub::Physpages),
    Some(Ub::Vmguarpages),
    Some(Ub::Oomguarpages),
    Some(Ub::Numtcpsock),
    Some(Ub::Numflock),
    Some(Ub::Numpty),
    Some(Ub::Numsiginfo),
    Some(Ub::Tcpsndbuf),
    Some(Ub::Tcprcvbuf),
    Some(Ub::Othersockbuf),
    Some(Ub::Dgramrcvbuf),
    Some(Ub::Numothersock),
    Some(Ub::Dcachesize),
    Some(Ub::Numfile),
    None,
    None,
    None,
    Some(Ub::Numiptent),
];

impl Ub {
    /// Every counter.
    pub fn all() -> impl Iterator<Item = Self> {
        COUNTERS.iter().map(|c| c.ub)
    }

    /// Its row.
    pub fn row(self) -> &'static Counter {
        // The enum and the table are made by one macro, in one order.
        &COUNTERS[self as usize]
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().name
    }
}

impl std::fmt::Display for Ub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Ub {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        COUNTERS.iter().find(|c| c.name == s).map(|c| c.ub).ok_or_else(|| {
            let names: Vec<&str> = COUNTERS.iter().map(|c| c.name).collect();
            format!("there is no counter `{}`; there are {}", s.chars().take(40).collect::<String>(), names.join(", "))
        })
    }
}

/// A parameter that is no beancounter, for the documentation and the command line.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its option.
    pub name: &'static str,
    /// What follows the option.
    pub value: &'static str,
    /// Its key in the configuration file.
    pub key: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// The cgroup controller it needs.
    pub controller: Option<&'static str>,
    /// What it becomes, for people.
    pub becomes: &'static str,
}

const fn parameter(
    name: &'static str,
    value: &'static str,
    key: &'static str,
    help: &'static str,
    controller: Option<&'static str>,
    becomes: &'static str,
) -> Parameter {
    Parameter { name, value, key, help, controller, becomes }
}

/// Every parameter that is no beancounter.
pub const PARAMETERS: &[Parameter] = &[
    parameter(
        "ram",
        "SIZE",
        "limits.physpages",
        "Memory, like 512M: sets physpages to 0:SIZE",
        Some("memory"),
        "physpages 0:SIZE, in pages rounded up",
    ),
    parameter(
        "swap",
        "SIZE",
        "limits.swappages",
        "Swap space, like 1G: sets swappages to 0:SIZE",
        Some("memory"),
        "swappages 0:SIZE, in pages rounded up",
    ),
    parameter(
        "vm_overcommit",
        "FACTOR",
        "limits.vm_overcommit",
        "Address space of each process, as a factor of RAM and swap; 0: no limit",
        None,
        "RLIMIT_AS of every process where privvmpages is not set",
    ),
    parameter(
        "cpuunits",
        "N",
        "cpu.units",
        "Share of processor time against others, 8..500000; 1000 is normal",
        Some("cpu"),
        "cpu.weight N/10, within 1..10000",
    ),
    parameter(
        "cpulimit",
        "PERCENT",
        "cpu.limit",
        "Processor time in percent of one CPU; 0: no limit",
        Some("cpu"),
        "cpu.max PERCENT*1000 of 100000 microseconds",
    ),
    parameter(
        "cpus",
        "N",
        "cpu.cpus",
        "Processor time of N CPUs; 0: all",
        Some("cpu"),
        "cpu.max N*100 percent; the lower of cpulimit and cpus counts",
    ),
    parameter("cpumask", "LIST", "cpu.mask", "Processors to run on, like 0-3,6, or all", Some("cpuset"), "cpuset.cpus"),
    parameter(
        "nodemask",
        "LIST",
        "cpu.nodemask",
        "Memory nodes to use, like 0-1, or all",
        Some("cpuset"),
        "cpuset.mems",
    ),
    parameter(
        "ioprio",
        "0-7",
        "io.prio",
        "Share of disk time against others; 4 is normal",
        Some("io"),
        "io.weight (or io.bfq.weight): 25, 50, 75, 90, 100, 200, 400, 800",
    ),
    parameter(
        "iolimit",
        "SIZE",
        "io.limit",
        "Disk bandwidth a second, of reads and of writes each; a bare number is MB; 0: no limit",
        Some("io"),
        "io.max rbps= and wbps=",
    ),
    parameter(
        "iopslimit",
        "N",
        "io.iops",
        "Disk operations a second, of reads and of writes each; 0: no limit",
        Some("io"),
        "io.max riops= and wiops=",
    ),
];

/// The parameter of this name.
pub fn find_parameter(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|p| p.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_variants_agree_and_the_classic_table_has_every_counter_but_swappages() {
        for (i, c) in COUNTERS.iter().enumerate() {
            assert_eq!(c.ub as usize, i);
            assert_eq!(c.name.parse(), Ok(c.ub));
            // What is said to be enforced by a controller has a figure to show for it.
            assert!(c.controller.is_none() || matches!(c.held, Held::File(_)), "{}", c.name);
        }
        let classic: Vec<Ub> = CLASSIC_ROWS.iter().copied().flatten().collect();
        let want: Vec<Ub> = Ub::all().filter(|u| *u != Ub::Swappages).collect();
        assert_eq!(classic, want);
    }
}
