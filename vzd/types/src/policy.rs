//! The isolation policy as data: what vzmon applies, what `vzctl check` explains and what the tests
//! hold the kernel's own account of a running container against.

use crate::config::Feature;
use serde::{Deserialize, Serialize};

/// Capabilities dropped from a container's bounding set, by kernel name without `CAP_`.
pub const DROPPED_CAPS: &[&str] = &[
    "mac_admin",
    "mac_override",
    "sys_module",
    "sys_rawio",
    "sys_time",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_control",
    "audit_read",
    "bpf",
    "perfmon",
];

/// Most namespaces of each kind (as in `user.max_KIND_namespaces`) one container may have, those it is made of
/// included: enough for several hundred services with a sandbox each, and bounding kernel memory that is charged to
/// nobody (a network namespace costs the most, and conntrack, xfrm and neighbour tables hang on each). They hold through
/// a user namespace around the container's own, so that root inside cannot raise them.
pub const NAMESPACE_CAPS: &[(&str, u32)] = &[
    ("user", 256),
    ("net", 256),
    ("mnt", 1024),
    ("pid", 256),
    ("uts", 1024),
    ("ipc", 1024),
    ("cgroup", 256),
    ("time", 256),
];

/// A device node every container has: name below /dev, major, minor.
pub const DEVICES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Character devices the cgroup device program lets a container open besides [`DEVICES`]: (major, minor),
/// `None` = every minor. Consoles and pseudo terminals: 5:1 console, 5:2 ptmx, 136..143 Unix98 slaves.
pub const DEVICE_RANGES: &[(u32, Option<u32>)] = &[
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
    (137, None),
    (138, None),
    (139, None),
    (140, None),
    (141, None),
    (142, None),
    (143, None),
];

/// Character devices that features add: any of these features, path below /dev, major, minor. vz makes these nodes itself,
/// with mode 0666 whatever the host's own nodes say, because on them a process can only do what its user namespace allows
/// it: mount FUSE filesystems of its own (sshfs, rclone, containers' storage inside a container) and make tun links in
/// network namespaces of its own (VPNs, rootless containers' networks). Numbers: kernel
/// Documentation/admin-guide/devices.txt.
pub const FEATURE_DEVICES: &[(&[Feature], &str, u32, u32)] =
    &[(&[Feature::Nesting, Feature::Fuse], "fuse", 10, 229), (&[Feature::Nesting, Feature::Tun], "net/tun", 10, 200)];

/// The rows of [`FEATURE_DEVICES`] that these features bring: path below /dev, major, minor.
pub fn feature_devices(features: &[Feature]) -> impl Iterator<Item = (&'static str, u32, u32)> {
    FEATURE_DEVICES
        .iter()
        .filter(|(any, ..)| any.iter().any(|f| features.contains(f)))
        .map(|(_, path, major, minor)| (*path, *major, *minor))
}

/// What the device program lets a container with these features open: major, and a minor or all of them.
pub fn device_rules(features: &[Feature]) -> Vec<(u32, Option<u32>)> {
    let standard = DEVICES.iter().map(|(_, major, minor)| (*major, Some(*minor)));
    let added = feature_devices(features).map(|(_, major, minor)| (major, Some(minor)));
    standard.chain(DEVICE_RANGES.iter().copied()).chain(added).collect()
}

/// Where a container has what is [`uncovered`] for it: in a filesystem that its root is mounted over, so no path leads there
/// and no list of mounts shows it.
pub const UNCOVERED: &str = "/uncovered";

/// The filesystems that a container with these features has a second time, without masks, below [`UNCOVERED`]: `proc`, `sys`.
/// The kernel lets proc and sysfs be mounted inside only while the mount namespace has one of the same kind that nothing covers
/// (`mount_too_revealing` in fs/namespace.c), reached by a path or not, and the masks cover the first ones. Containers inside need both;
/// `ip netns exec` mounts the /sys of its network namespace.
pub fn uncovered(features: &[Feature]) -> &'static [&'static str] {
    match (features.contains(&Feature::Nesting), features.contains(&Feature::Netns)) {
        (true, _) => &["proc", "sys"],
        (false, true) => &["sys"],
        (false, false) => &[],
    }
}

/// Files hidden behind an empty read-only file, where the kernel has them.
pub const MASKED_FILES: &[&str] = &[
    "/proc/kcore",
    "/proc/keys",
    "/proc/key-users",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/kallsyms",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/kpagecgroup",
    "/proc/vmallocinfo",
    "/proc/slabinfo",
];

/// Directories hidden behind an empty read-only directory, where the kernel has them.
pub const MASKED_DIRS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/driver",
    "/proc/irq",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
    "/sys/kernel/config",
    "/sys/fs/pstore",
    "/sys/fs/bpf",
    "/sys/dev/block",
];

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
    /// Operation not supported (95).
    NotSupported,
}

impl Errno {
    /// The number on Linux x86.
    pub fn number(self) -> u16 {
        match self {
            Self::NoSys => 38,
            Self::Perm => 1,
            Self::AfNoSupport => 97,
            Self::NoProtoOpt => 92,
            Self::NotSupported => 95,
        }
    }
}

/// A condition on the arguments of a call, by position from 0; only their low 32 bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// Argument `.0` is none of `.1`.
    NotOneOf(u8, &'static [u32]),
    /// Argument `.0` is one of `.1`.
    OneOf(u8, &'static [u32]),
    /// Any bit of `.1` is set in argument `.0`.
    AnyBit(u8, u32),
    /// Argument `.0` equals `.1` and argument `.2` equals `.3`.
    BothEqual(u8, u32, u8, u32),
}

/// One row of the seccomp table. What no row denies is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Name of the call.
    pub call: &'static str,
    /// Its number on x86_64, which x32 shares with [`X32_BIT`] set. `None`: that ABI has no such call.
    pub x86_64: Option<u32>,
    /// Its number on i386.
    pub i386: Option<u32>,
    /// Under which condition.
    pub when: When,
    /// What it answers.
    pub errno: Errno,
    /// The feature that lifts the row.
    pub unless: Option<Feature>,
}

/// Set in the call number by x32 programs (`__X32_SYSCALL_BIT`, asm/unistd.h).
pub const X32_BIT: u32 = 0x4000_0000;

/// Namespaces that nesting would open: NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID (linux/sched.h). Mount and
/// network namespaces stay available: systemd's hardening directives need them and CRIU copes with them.
pub const NESTING_FLAGS: u32 = 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000;
/// NEWTIME; in clone's flags the bit belongs to the exit signal, so only unshare is checked for it.
pub const NEWTIME: u32 = 0x80;

/// Socket families a container can use: AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET.
pub const SOCKET_FAMILIES: &[u32] = &[1, 2, 10, 16, 17];

/// Requests of ioctl(2) that set a file's attributes: FS_IOC_SETFLAGS, its 32-bit form, FS_IOC_FSSETXATTR (linux/fs.h).
/// On a directory that only the template has, an overlay copies it up and then sets all of them with the rights of the
/// host that mounted it, the project included: what is made in it from then on would count towards no disk quota.
pub const SET_ATTRIBUTES: &[u32] = &[0x4008_6602, 0x4004_6602, 0x401c_5820];

const fn both(call: &'static str, x86_64: u32, i386: u32, when: When, errno: Errno, unless: Option<Feature>) -> Denial {
    Denial { call, x86_64: Some(x86_64), i386: Some(i386), when, errno, unless }
}
const fn only32(call: &'static str, i386: u32, errno: Errno, unless: Option<Feature>) -> Denial {
    Denial { call, x86_64: None, i386: Some(i386), when: When::Always, errno, unless }
}
const fn only64(call: &'static str, x86_64: u32, errno: Errno, unless: Option<Feature>) -> Denial {
    Denial { call, x86_64: Some(x86_64), i386: None, when: When::Always, errno, unless }
}

const fn only32if(call: &'static str, i386: u32, when: When, errno: Errno) -> Denial {
    Denial { call, x86_64: None, i386: Some(i386), when, errno, unless: None }
}
const fn only64if(call: &'static str, x86_64: u32, when: When, errno: Errno) -> Denial {
    Denial { call, x86_64: Some(x86_64), i386: None, when, errno, unless: None }
}

/// Something besides seccomp that keeps a container within bounds, where the kernel has what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guard {
    /// A program that bounds the memory of packet sockets' rings by [`PACKET_MEMORY`].
    Rings,
}

/// Bytes that all packet sockets of one container together may hold in rings and fanout tables. The kernel charges them
/// to no one. libpcap asks for 2 MiB for a capture, and takes less where there is less.
pub const PACKET_MEMORY: u64 = 16 << 20;

/// Rows of the seccomp table that a guard makes needless: they hold where it is missing.
pub const GUARDED: &[(Guard, Denial)] = {
    use Errno::NoProtoOpt;
    use When::BothEqual;
    &[
        (Guard::Rings, only64if("setsockopt", 54, BothEqual(1, 263, 2, 5), NoProtoOpt)),
        (Guard::Rings, only64if("setsockopt", 54, BothEqual(1, 263, 2, 13), NoProtoOpt)),
        (Guard::Rings, only64if("setsockopt", 54, BothEqual(1, 263, 2, 18), NoProtoOpt)),
    ]
};

/// Calls that x32 programs get `ENOSYS` for whatever is open to native ones: their rings pass as those of i386.
pub const NEVER_X32: &[u32] = &[425];

/// The seccomp table, for x86_64, x32 and i386. Numbers: asm/unistd_64.h, unistd_x32.h and unistd_32.h.
///
/// Not here because the kernel itself asks the *host's* capability for it: adjtimex (reading the clock's state with
/// it must work), mount of block filesystems, iopl, mknod of devices.
pub const DENIALS: &[Denial] = {
    use Errno::*;
    use When::*;
    &[
        only64("kexec_load", 246, NoSys, None),
        // x32 has a number of its own for it.
        only64("kexec_load (x32)", 528, NoSys, None),
        only32("kexec_load", 283, NoSys, None),
        only64("kexec_file_load", 320, NoSys, None),
        both("create_module", 174, 127, Always, NoSys, None),
        both("init_module", 175, 128, Always, NoSys, None),
        both("delete_module", 176, 129, Always, NoSys, None),
        both("finit_module", 313, 350, Always, NoSys, None),
        both("get_kernel_syms", 177, 130, Always, NoSys, None),
        both("query_module", 178, 167, Always, NoSys, None),
        both("swapon", 167, 87, Always, NoSys, None),
        both("swapoff", 168, 115, Always, NoSys, None),
        both("acct", 163, 51, Always, NoSys, None),
        both("open_by_handle_at", 304, 342, Always, NoSys, None),
        both("fanotify_init", 300, 338, Always, NoSys, None),
        both("quotactl", 179, 131, Always, NoSys, None),
        both("quotactl_fd", 443, 443, Always, NoSys, None),
        both("add_key", 248, 286, Always, NoSys, Some(Feature::Keyctl)),
        both("request_key", 249, 287, Always, NoSys, Some(Feature::Keyctl)),
        both("keyctl", 250, 288, Always, NoSys, Some(Feature::Keyctl)),
        only64("io_uring_setup", 425, NoSys, Some(Feature::IoUring)),
        // Through the rings of a 32-bit program calls reach the kernel as such a program's, out of the filter's sight.
        only32("io_uring_setup", 425, NoSys, None),
        both("io_uring_enter", 426, 426, Always, NoSys, Some(Feature::IoUring)),
        both("io_uring_register", 427, 427, Always, NoSys, Some(Feature::IoUring)),
        both("userfaultfd", 323, 374, Always, NoSys, None),
        both("perf_event_open", 298, 336, Always, NoSys, None),
        both("bpf", 321, 357, Always, NoSys, Some(Feature::Bpf)),
        both("lookup_dcookie", 212, 253, Always, NoSys, None),
        both("nfsservctl", 180, 169, Always, NoSys, None),
        both("uselib", 134, 86, Always, NoSys, None),
        both("settimeofday", 164, 79, Always, Perm, None),
        both("clock_settime", 227, 264, Always, Perm, None),
        only32("clock_settime64", 404, Perm, None),
        only32("stime", 25, Perm, None),
        both("syslog", 103, 103, Always, Perm, None),
        // MNT_FORCE aborts requests of a network filesystem for everybody.
        both("umount2", 166, 52, AnyBit(1, 1), Perm, None),
        both("socket", 41, 359, NotOneOf(0, SOCKET_FAMILIES), AfNoSupport, None),
        both("socket", 41, 359, BothEqual(0, 16, 2, 9), AfNoSupport, None),
        both("socket", 41, 359, BothEqual(0, 16, 2, 6), AfNoSupport, Some(Feature::Xfrm)),
        // i386's multiplexer hides its arguments from seccomp, so its rows cannot be checked: programs built for
        // kernels before 4.3 need the feature.
        only32("socketcall", 102, NoSys, Some(Feature::Socketcall)),
        // What packet sockets hold beside their queue is charged to nobody: rings (5, 13) of up to 256 MiB each, tables of
        // fanout groups (18) of 512 KiB. `Guard::Rings` bounds it for the native ABI only, hence `GUARDED`.
        only32if("setsockopt", 366, BothEqual(1, 263, 2, 5), NoProtoOpt),
        only32if("setsockopt", 366, BothEqual(1, 263, 2, 13), NoProtoOpt),
        only32if("setsockopt", 366, BothEqual(1, 263, 2, 18), NoProtoOpt),
        only64if("setsockopt (x32)", 541, BothEqual(1, 263, 2, 5), NoProtoOpt),
        only64if("setsockopt (x32)", 541, BothEqual(1, 263, 2, 13), NoProtoOpt),
        only64if("setsockopt (x32)", 541, BothEqual(1, 263, 2, 18), NoProtoOpt),
        // As a filesystem without attributes answers; systemd and others go on without.
        both("ioctl", 16, 54, OneOf(1, SET_ATTRIBUTES), NotSupported, None),
        only64if("ioctl (x32)", 514, OneOf(1, SET_ATTRIBUTES), NotSupported),
        both("file_setattr", 469, 469, Always, NoSys, None),
        both("unshare", 272, 310, AnyBit(0, NESTING_FLAGS | NEWTIME), Perm, Some(Feature::Nesting)),
        both("clone", 56, 120, AnyBit(0, NESTING_FLAGS), Perm, Some(Feature::Nesting)),
        // Its flags are in memory, out of seccomp's sight; libc falls back to clone.
        both("clone3", 435, 435, Always, NoSys, Some(Feature::Nesting)),
    ]
};
