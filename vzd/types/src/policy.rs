//! The isolation policy as data: what vzmon applies, what `vzctl check` explains and what the tests
//! hold the kernel's own account of a running container against.

use crate::config::Feature;

/// Capabilities dropped from a container's bounding set, by kernel name without `CAP_`.
pub const DROPPED_CAPS: &[&str] = &[
    "mac_admin", "mac_override", "sys_module", "sys_rawio", "sys_time", "syslog", "wake_alarm", "block_suspend",
    "audit_control", "audit_read", "bpf", "perfmon",
];

/// A device node every container has: name below /dev, major, minor.
pub const DEVICES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Character devices the cgroup device program lets a container open besides [`DEVICES`]: (major, minor),
/// `None` = every minor. Consoles and pseudo terminals: 5:1 console, 5:2 ptmx, 136..143 Unix98 slaves.
pub const DEVICE_RANGES: &[(u32, Option<u32>)] = &[
    (5, Some(1)), (5, Some(2)), (136, None), (137, None), (138, None), (139, None), (140, None), (141, None),
    (142, None), (143, None),
];

/// Files hidden behind an empty read-only file, where the kernel has them.
pub const MASKED_FILES: &[&str] = &[
    "/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/kmsg", "/proc/latency_stats", "/proc/sched_debug",
    "/proc/sysrq-trigger", "/proc/timer_list", "/proc/timer_stats", "/proc/kallsyms", "/proc/kpagecount", "/proc/kpageflags",
    "/proc/kpagecgroup", "/proc/vmallocinfo", "/proc/slabinfo",
];

/// Directories hidden behind an empty read-only directory, where the kernel has them.
pub const MASKED_DIRS: &[&str] = &["/proc/acpi", "/proc/asound", "/proc/bus", "/proc/driver", "/proc/irq", "/proc/scsi",
    "/sys/firmware", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/config", "/sys/fs/pstore", "/sys/fs/bpf",
    "/sys/dev/block"];

/// What a denied call answers: values a guest's own code copes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// Function not implemented (38).
    NoSys,
    /// Operation not permitted (1).
    Perm,
    /// Address family not supported (97).
    AfNoSupport,
    /// Protocol option not available (92).
    NoProtoOpt,
}

impl Errno {
    /// The number on Linux x86.
    pub fn number(self) -> u16 {
        match self {
            Self::NoSys => 38,
            Self::Perm => 1,
            Self::AfNoSupport => 97,
            Self::NoProtoOpt => 92,
        }
    }
}

/// A condition on one argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// The low 32 bits of argument `.0` equal `.1`.
    Equal(u8, u32),
    /// Any bit of `.1` is set in the low 32 bits of argument `.0`.
    AnyBit(u8, u32),
    /// Argument `.0` equals `.1` and argument `.2` equals `.3` (low 32 bits).
    BothEqual(u8, u32, u8, u32),
}

/// One row of the seccomp table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Name of the call.
    pub call: &'static str,
    /// Under which condition.
    pub when: When,
    /// What it answers.
    pub errno: Errno,
    /// The feature that lifts the row.
    pub unless: Option<Feature>,
}
