//! What the kernel says of a running container, held against the policy ([`vz_types::policy`]). What a hostile root inside
//! lays as traps or takes for itself is the suite `hostile`.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use nix::sched::CloneFlags;
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    process::Command,
    time::Duration,
};
use vz_tests::{
    Rig, command, probe,
    template::Template::{Debian12, Tiny},
};
use vz_types::{
    config::Feature,
    policy::{self, DENIALS, Denial, When},
};

const SOON: Duration = Duration::from_secs(30);

/// CT 101 with these features on.
fn running(features: &[Feature]) -> Rig {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &[]);
    for (_, word) in Feature::ALL.iter().filter(|(f, _)| features.contains(f)) {
        rig.ok(&["set", "101", "--features", &format!("{word}:on"), "--save"]);
    }
    rig.ok(&["start", "101"]);
    rig.wait_console(101, "tiny is up", SOON);
    rig
}

/// Makes each of these one test of an ordinary container and one of a container that may hold containers.
macro_rules! with_and_without_nesting {
    ($($name:ident),+ $(,)?) => {
        mod closed {
            $(#[test] fn $name() { super::$name(&[]); })+
        }
        mod nesting {
            $(#[test] fn $name() { super::$name(&[vz_types::config::Feature::Nesting]); })+
        }
    };
}

with_and_without_nesting!(
    identity_is_its_own_ids_in_namespaces_its_own_uid_owns,
    capabilities_are_the_policys,
    a_seccomp_filter_is_on_without_no_new_privs,
    every_denied_call_answers_as_the_table_says_on_three_abis,
    mounts_are_what_a_machine_needs_and_the_sensitive_ones_are_masked,
    device_nodes_are_the_listed_ones_and_no_others_open,
    cgroup_levels_are_ours_above_and_its_own_below,
    the_host_is_out_of_reach_through_proc_and_sys,
);

mod finer {
    use vz_types::config::Feature::{Fuse, Netns, Tun};

    #[test]
    fn device_nodes_are_the_listed_ones_and_no_others_open() {
        super::device_nodes_are_the_listed_ones_and_no_others_open(&[Tun]);
    }

    #[test]
    fn every_denied_call_answers_as_the_table_says_on_three_abis() {
        super::every_denied_call_answers_as_the_table_says_on_three_abis(&[Tun, Fuse, Netns]);
    }

    #[test]
    fn mounts_are_what_a_machine_needs_and_the_sensitive_ones_are_masked() {
        super::mounts_are_what_a_machine_needs_and_the_sensitive_ones_are_masked(&[Tun, Fuse, Netns]);
    }
}

/// A start that copies the mounts of all neighbours becomes slower by each of them, and holds them for a moment.
#[test]
fn a_container_begins_in_a_mount_namespace_without_its_neighbours() {
    let rig = running(&[]);
    rig.create(102, Tiny, &[]);
    rig.ok(&["start", "102"]);
    for (ctid, neighbour) in [(101, "102"), (102, "101")] {
        let fds = format!("/proc/{}/fd", rig.record(ctid).monitor.pid);
        let own = fs::read_link(fds.replace("/fd", "/ns/mnt")).unwrap();
        let is_other = |p: &std::path::PathBuf| {
            fs::read_link(p).is_ok_and(|to| to != own && to.to_string_lossy().starts_with("mnt:["))
        };
        let begun_in = fs::read_dir(&fds).unwrap().map(|e| e.unwrap().path()).find(is_other);
        let begun_in = begun_in.expect("the monitor keeps the namespace that boots begin in");
        let namespace = fs::File::open(begun_in).unwrap();
        // Nothing can be executed in it, so a thread of ours looks around there.
        let look = move || {
            nix::sched::unshare(CloneFlags::CLONE_FS).unwrap();
            nix::sched::setns(&namespace, CloneFlags::CLONE_NEWNS).unwrap();
            fs::read_to_string("/proc/thread-self/mountinfo").unwrap()
        };
        let seen = std::thread::spawn(look).join().unwrap();
        let seen: Vec<&str> = seen.lines().collect();
        assert!(!seen.is_empty() && seen.len() <= 5, "{seen:#?}");
        assert!(seen.iter().all(|line| !line.contains(neighbour)), "{seen:#?}");
    }
}

/// A field of `/proc/PID/status`.
fn status(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|l| l.starts_with(&format!("{field}:")));
    line.and_then(|l| l.split_once(':')).map(|(_, v)| v.trim().to_owned()).unwrap_or_default()
}

/// The kernel's number of a capability by its name (linux/capability.h).
fn capability(name: &str) -> u32 {
    const NAMES: &[&str] = &[
        "chown",
        "dac_override",
        "dac_read_search",
        "fowner",
        "fsetid",
        "kill",
        "setgid",
        "setuid",
        "setpcap",
        "linux_immutable",
        "net_bind_service",
        "net_broadcast",
        "net_admin",
        "net_raw",
        "ipc_lock",
        "ipc_owner",
        "sys_module",
        "sys_rawio",
        "sys_chroot",
        "sys_ptrace",
        "sys_pacct",
        "sys_admin",
        "sys_boot",
        "sys_nice",
        "sys_resource",
        "sys_time",
        "sys_tty_config",
        "mknod",
        "lease",
        "audit_write",
        "audit_control",
        "setfcap",
        "mac_override",
        "mac_admin",
        "syslog",
        "wake_alarm",
        "block_suspend",
        "audit_read",
        "perfmon",
        "bpf",
        "checkpoint_restore",
    ];
    u32::try_from(NAMES.iter().position(|n| *n == name).unwrap_or_else(|| panic!("no capability {name}"))).unwrap()
}

fn identity_is_its_own_ids_in_namespaces_its_own_uid_owns(features: &[Feature]) {
    let rig = running(features);
    let record = rig.record(101);
    let (pid, base) = (record.init.pid, u32::from(record.uid_base));
    assert!(base % 65_536 == 0 && (524_288..=1_879_048_191 - 65_535).contains(&base), "{base}");
    for map in ["uid_map", "gid_map"] {
        let text = fs::read_to_string(format!("/proc/{pid}/{map}")).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows, [["0", &base.to_string(), "65536"]], "{map}");
    }
    assert_eq!(
        status(pid, "Uid").split_whitespace().collect::<BTreeSet<_>>(),
        BTreeSet::from([base.to_string().as_str()])
    );
    assert_eq!(status(pid, "Groups"), "", "no group of ours stays with it");
    // ucounts are charged to the owner: it must be the container's own uid, never root.
    let mut c = Command::new(probe::binary());
    let owner = command::run(c.arg("userns-owner").arg(format!("/proc/{pid}/ns/user")), None, SOON).unwrap().ok();
    assert_eq!(owner.text(), base.to_string());
    for ns in ["user", "pid", "mnt", "net", "uts", "ipc", "cgroup"] {
        let of = |p: &str| fs::read_link(format!("/proc/{p}/ns/{ns}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{ns} namespace is the host's");
    }
}

fn capabilities_are_the_policys(features: &[Feature]) {
    let rig = running(features);
    let pid = rig.record(101).init.pid;
    let set = |field: &str| u64::from_str_radix(&status(pid, field), 16).unwrap();
    let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    let all = (1u64 << (last + 1)) - 1;
    let dropped = policy::DROPPED_CAPS.iter().fold(0u64, |m, n| m | 1 << capability(n));
    for field in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(set(field), all & !dropped, "{field}");
    }
    assert_eq!((set("CapInh"), set("CapAmb")), (0, 0));
    // The same for what is executed by the operator.
    let inside = rig.inside(101, "grep Cap /proc/self/status");
    assert!(inside.contains(&format!("CapBnd:\t{:016x}", all & !dropped)), "{inside}");
    assert!(inside.contains("CapAmb:\t0000000000000000") && inside.contains("CapInh:\t0000000000000000"), "{inside}");
}

fn a_seccomp_filter_is_on_without_no_new_privs(features: &[Feature]) {
    let rig = running(features);
    let pid = rig.record(101).init.pid;
    assert_eq!((status(pid, "Seccomp").as_str(), status(pid, "NoNewPrivs").as_str()), ("2", "0"));
    let inside = rig.inside(101, "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status");
    assert_eq!(
        inside.split_whitespace().collect::<Vec<_>>(),
        ["NoNewPrivs:", "0", "Seccomp:", "2"],
        "exec is held by it too"
    );
}

/// Arguments for which the row applies.
fn arguments(d: &Denial) -> [u64; 6] {
    let mut a = [0u64; 6];
    match d.when {
        When::Always => {}
        When::NotOneOf(n, values) => {
            // A family that exists and is none of the allowed: AF_ALG.
            assert!(!values.contains(&38));
            a[usize::from(n)] = 38;
        }
        When::OneOf(n, values) => a[usize::from(n)] = values[0].into(),
        When::AnyBit(n, bits) => a[usize::from(n)] = u64::from(bits & bits.wrapping_neg()),
        When::BothEqual(n, x, m, y) => {
            a[usize::from(n)] = x.into();
            a[usize::from(m)] = y.into();
        }
    }
    a
}

fn every_denied_call_answers_as_the_table_says_on_three_abis(features: &[Feature]) {
    let rig = running(features);
    let mut lines = String::new();
    let mut expected = Vec::new();
    for d in DENIALS.iter().filter(|d| d.unless.is_none_or(|f| !features.contains(&f))) {
        let a = arguments(d).map(|v| v.to_string()).join(" ");
        for (abi, nr) in [("x86_64", d.x86_64), ("x32", d.x86_64), ("i386", d.i386)] {
            let Some(nr) = nr else { continue };
            // Numbers that only x32 has mean something else, or nothing, without its bit.
            if abi == "x86_64" && nr >= 512 {
                continue;
            }
            lines.push_str(&format!("{abi} {nr} {a}\n"));
            expected.push((format!("{abi} {nr} {}", d.errno.number()), d.call));
        }
    }
    let out = rig.vzctl_with(&["exec2", "101", "probe call"], lines.as_bytes()).ok();
    let answers: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(answers.len(), expected.len(), "{out}");
    let wrong: Vec<String> = answers
        .iter()
        .zip(&expected)
        .filter(|(a, (e, _))| *a != e)
        .map(|(a, (e, call))| format!("{call}: {a}, and the policy says {e}"))
        .collect();
    assert!(wrong.is_empty(), "ABI, number, errno:\n{}", wrong.join("\n"));
}

#[test]
fn nesting_is_off_until_it_is_asked_for() {
    let rig = running(&[]);
    let tries = ["-U", "-p -f", "-u", "-i"];
    for flags in tries {
        let out = rig.vzctl(&["exec2", "101", &format!("unshare {flags} true")]);
        assert_ne!(out.code(), 0, "unshare {flags}: {out}");
        out.says("Operation not permitted");
    }
    // Mount and network namespaces stay: services need them.
    rig.inside(101, "unshare -m true && unshare -n true");
    rig.ok(&["stop", "101", "--fast"]);
    rig.ok(&["set", "101", "--features", "nesting:on", "--save"]);
    rig.ok(&["start", "101"]);
    for flags in tries {
        rig.inside(101, &format!("unshare {flags} true"));
    }
}

/// As a user of the container who makes a user namespace with a root of its own.
fn nested(line: &str) -> String {
    format!("su -s /bin/sh nobody -c \"unshare -U -r -m -p -n -u -i -f sh -c '{line}'\"")
}

#[test]
fn with_nesting_a_user_namespace_inside_mounts_what_containers_need() {
    let rig = running(&[Feature::Nesting]);
    let out = rig.inside(101, &nested("mount -t proc proc /proc && mount -t sysfs -o ro sysfs /sys && mount -t tmpfs t /mnt && ps | wc -l && id -u"));
    let (processes, id) = out.split_once('\n').unwrap();
    assert!(processes.parse::<u32>().unwrap() < 6 && id == "0", "a /proc of its own pid namespace: {out}");
    // What lets it do so is out of the reach of users.
    assert_ne!(rig.vzctl(&["exec2", "101", &format!("su -s /bin/sh nobody -c 'ls {}'", policy::UNCOVERED)]).code(), 0);
    for (name, ..) in policy::feature_devices(&[Feature::Nesting]) {
        rig.inside(101, &format!("su -s /bin/sh nobody -c 'head -c0 </dev/{name}'"));
    }
    // An ordinary container has none of it.
    rig.ok(&["stop", "101", "--fast"]);
    rig.ok(&["set", "101", "--features", "nesting:off", "--save"]);
    rig.ok(&["start", "101"]);
    rig.inside(101, &format!("! ls -d {} /dev/net /dev/fuse 2>/dev/null", policy::UNCOVERED));
}

#[test]
fn with_nesting_nothing_of_it_lies_where_programs_walk() {
    let rig = running(&[Feature::Nesting]);
    // As `podman run --privileged` looks for devices, and find, du and updatedb for files. What a walk hits elsewhere is the
    // kernel's own.
    assert_eq!(rig.inside(101, "find /dev /run 2>&1 >/dev/null; find /dev /run -type d -name '.*'"), "");
    let mounts = rig.inside(101, "cat /proc/self/mountinfo");
    for kind in ["proc", "sysfs"] {
        let all: Vec<&str> = mounts.lines().filter(|l| l.contains(&format!(" - {kind} "))).collect();
        assert_eq!(all.len(), 1, "one {kind} is in sight: {all:?}");
    }
    // What is there is still there for a runtime that has left its old root already, as systemd-nspawn has.
    let line = "mkdir -p /mnt && mount -t tmpfs none /mnt && mkdir -p /mnt/bin /mnt/proc /mnt/sys /mnt/old && \
                cp /bin/busybox /mnt/bin && cd /mnt && pivot_root . old && exec /bin/busybox sh -c \
                'busybox umount -l /old && busybox mount -t proc proc /proc && busybox mount -t sysfs sysfs /sys && \
                 busybox ls /proc/1/comm /sys/kernel/mm'";
    let out = rig.inside(101, &format!("unshare -m -p -f sh -c '{}'", line.replace('\'', "'\\''")));
    assert!(out.contains("/proc/1/comm"), "{out}");
}

#[test]
fn root_of_a_nested_container_reaches_no_more_than_root_of_its_own() {
    let rig = running(&[Feature::Nesting]);
    // A user namespace begins with all capabilities over itself, those dropped outside included; the filter stays.
    assert_eq!(rig.inside(101, &nested("grep Seccomp: /proc/self/status")), "Seccomp:\t2");
    let barred = DENIALS.iter().filter(|d| d.unless.is_none() && d.when == When::Always);
    let numbers: Vec<u32> = barred.filter_map(|d| d.x86_64).filter(|nr| *nr < 512).collect();
    let lines: String = numbers.iter().map(|nr| format!("x86_64 {nr} 0 0 0 0 0 0\n")).collect();
    let out = rig.vzctl_with(&["exec2", "101", &nested("probe call")], lines.as_bytes()).ok();
    assert_eq!(out.stdout.lines().count(), numbers.len(), "{out}");
    assert!(out.stdout.lines().all(|l| l.ends_with(" 38") || l.ends_with(" 1")), "{out}");
    for line in [
        "mount -t proc proc /proc && echo 1 >/proc/sys/kernel/panic",
        "mount -t proc proc /proc && echo x >/proc/sysrq-trigger",
        "mount -t proc proc /proc && echo /tmp/x >/proc/sys/kernel/core_pattern",
        "mount -t proc proc /proc && head -c1 /proc/kcore",
        "mount -t sysfs -o ro sysfs /sys && mount -o remount,rw /sys && echo 0 >/sys/kernel/mm/transparent_hugepage/enabled",
        "umount /proc/kcore",
        "umount /sys/firmware",
        "mount -o remount,rw /sys",
        "mount -t ext4 /dev/loop0 /mnt",
        "mount -t cgroup -o memory cgroup /mnt",
        "mknod /tmp/n b 7 0 && head -c1 /tmp/n",
        "mount -t devtmpfs d /mnt",
        "mount -t debugfs d /mnt",
        "mount -t tracefs d /mnt",
        "date -s 2001-01-01 && date | grep 2001",
        "dmesg | grep .",
        "swapon /dev/zero",
    ] {
        let out = rig.vzctl(&["exec2", "101", &nested(line)]);
        assert_ne!(out.code(), 0, "`{line}` worked: {out}");
    }
}

#[test]
fn init_and_the_operators_programs_hold_no_descriptor_of_ours() {
    let rig = running(&[]);
    let pid = rig.record(101).init.pid;
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let entry = entry.unwrap();
        let target = fs::read_link(entry.path()).unwrap().display().to_string();
        let fine = target == "/dev/console"
            || target == "/dev/null"
            || target.starts_with("/dev/pts/")
            || target.starts_with("anon_inode:");
        assert!(fine, "init has descriptor {:?}: {target}", entry.file_name());
    }
    let out = rig.vzctl_with(&["exec2", "101", "probe fds"], b"x").ok();
    for line in out.stdout.lines() {
        let (number, target) = line.split_once(' ').unwrap_or((line, ""));
        assert!(number.parse::<u32>().is_ok_and(|n| n <= 2), "exec leaks descriptor {line}");
        assert!(!target.contains("vzmon") && !target.contains("memfd"), "{line}");
    }
    // What is executed shows nothing of the host: neither its program nor its directory.
    let inside = rig.inside(101, "for l in cwd root exe; do readlink /proc/self/$l; done");
    assert!(!inside.contains(rig.paths.base.to_str().unwrap()), "{inside}");
}

fn mounts_are_what_a_machine_needs_and_the_sensitive_ones_are_masked(features: &[Feature]) {
    let rig = running(features);
    let pid = rig.record(101).init.pid;
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let find = |at: &str| {
        table
            .lines()
            .rfind(|l| l.split(' ').nth(4) == Some(at))
            .unwrap_or_else(|| panic!("{at} is not mounted\n{table}"))
    };
    let kind = |at: &str| find(at).split(" - ").nth(1).and_then(|t| t.split(' ').next()).unwrap_or_default().to_owned();
    let has = |at: &str, option: &str| find(at).split(' ').nth(5).unwrap_or_default().split(',').any(|o| o == option);
    assert_eq!(kind("/"), "overlay");
    assert_eq!(kind("/proc"), "proc");
    assert_eq!(kind("/sys"), "sysfs");
    assert_eq!(kind("/sys/fs/cgroup"), "cgroup2");
    assert_eq!(kind("/dev"), "tmpfs");
    assert_eq!(kind("/dev/pts"), "devpts");
    assert!(has("/sys", "ro") && !has("/sys/fs/cgroup", "ro") && !has("/proc", "ro"), "{table}");
    assert!(has("/dev", "nosuid") && has("/proc", "nosuid") && has("/sys", "nosuid"), "{table}");
    // Nothing of the host: no mount whose source is a directory of ours, none propagates to or from there.
    let peers = |table: &str| -> Vec<String> {
        let fields = table.lines().filter_map(|l| l.split(" - ").next()).flat_map(|f| f.split(' '));
        let tags = fields.filter_map(|f| f.strip_prefix("shared:").or(f.strip_prefix("master:")));
        tags.map(str::to_owned).collect()
    };
    assert!(!table.contains(" master:") && !table.contains(" propagate_from:"), "{table}");
    let mut everywhere = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for outside in [rig.record(101).monitor.pid, 1] {
        everywhere.push_str(&fs::read_to_string(format!("/proc/{outside}/mountinfo")).unwrap());
    }
    let (inside, outside) = (peers(&table), peers(&everywhere));
    assert!(inside.iter().all(|group| !outside.contains(group)), "{table}\n{everywhere}");
    for line in table.lines() {
        let (root, at) = (line.split(' ').nth(3).unwrap_or_default(), line.split(' ').nth(4).unwrap_or_default());
        let fine = root == "/"
            || at.starts_with("/dev/")
            || at.starts_with("/proc/")
            || at.starts_with("/sys/")
            || at.starts_with("/run/host");
        assert!(fine, "a part of a host filesystem is mounted: {line}");
    }
    // The beancounters' text is on a filesystem of the container's own, for reading.
    assert_eq!(kind("/run/vz"), "tmpfs");
    assert!(has("/run/vz", "ro") && has("/run/vz", "nosuid") && has("/run/vz", "nodev"), "{table}");
    for file in policy::MASKED_FILES {
        if fs::metadata(file).is_ok() {
            let text =
                rig.inside(101, &format!("cat {file} | head -c 1; echo x >{file} 2>/dev/null && echo written; true"));
            assert_eq!(text, "", "{file} shows something, or takes something");
        }
    }
    for dir in policy::MASKED_DIRS {
        if fs::metadata(dir).is_ok() {
            assert_eq!(
                rig.inside(101, &format!("ls -A {dir}; mkdir {dir}/x 2>/dev/null && echo made; true")),
                "",
                "{dir}"
            );
        }
    }
}

fn device_nodes_are_the_listed_ones_and_no_others_open(features: &[Feature]) {
    let rig = running(features);
    let pid = rig.record(101).init.pid;
    let mut found = BTreeSet::new();
    let dev = format!("/proc/{pid}/root/dev");
    for entry in fs::read_dir(&dev).unwrap() {
        let entry = entry.unwrap();
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        assert!(!meta.file_type().is_block_device(), "{:?}", entry.path());
        if meta.file_type().is_char_device() {
            let number = (
                u32::try_from(nix::sys::stat::major(meta.rdev())).unwrap(),
                u32::try_from(nix::sys::stat::minor(meta.rdev())).unwrap(),
            );
            found.insert((entry.file_name().to_string_lossy().into_owned(), number));
        }
    }
    for (name, major, minor) in policy::DEVICES {
        assert!(found.contains(&((*name).to_owned(), (*major, *minor))), "{name} is missing: {found:?}");
    }
    let added: Vec<_> = policy::feature_devices(features).collect();
    let known = |n: &str| policy::DEVICES.iter().chain(&added).any(|(d, _, _)| *d == n);
    let extra: Vec<_> = found.iter().filter(|(n, _)| n != "console" && !known(n)).collect();
    assert!(extra.is_empty(), "{extra:?}");
    for (name, _, _) in policy::DEVICES.iter().filter(|(n, _, _)| *n != "tty") {
        rig.inside(101, &format!("head -c0 /dev/{name}"));
    }
    // Nodes cannot be made, ...
    for node in ["c 1 3", "c 1 1", "b 8 0", "b 7 0", "c 10 237"] {
        let out = rig.vzctl(&["exec2", "101", &format!("mknod /tmp/node {node} && head -c0 /tmp/node")]);
        assert_ne!(out.code(), 0, "mknod {node}: {out}");
    }
    // ... and if one were there, the device program would refuse it: a host process put into the container's
    // cgroup opens what the policy allows and nothing else.
    let cgroup = rig.record(101).cgroup.join("exec/cgroup.procs");
    let line = format!(
        "echo $$ >{} || exit 9; exec {} open /dev/null /dev/urandom /dev/ptmx /dev/kmsg /dev/loop-control /dev/mem /dev/fuse /dev/net/tun /dev/kvm",
        cgroup.display(),
        probe::binary().display()
    );
    let mut c = Command::new("sh");
    let out = command::run(c.args(["-c", &line]), None, SOON).unwrap().ok();
    for l in out.stdout.lines() {
        let (path, errno) = l.split_once(' ').unwrap();
        let added = policy::feature_devices(features).any(|(name, ..)| path == format!("/dev/{name}"));
        let allowed = added || ["/dev/null", "/dev/urandom", "/dev/ptmx"].contains(&path);
        let there = fs::metadata(path).is_ok();
        // EPERM is the device program's word.
        assert!(if allowed { errno == "0" } else { errno == "1" || !there }, "{l}");
    }
}

fn cgroup_levels_are_ours_above_and_its_own_below(features: &[Feature]) {
    let rig = running(features);
    let record = rig.record(101);
    let base = u32::from(record.uid_base);
    let own = |p: &str| fs::metadata(record.cgroup.join(p)).unwrap().uid();
    assert_eq!(own("."), 0, "our level stays ours");
    assert_eq!(own("ns"), base);
    for file in fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap().lines() {
        let path = record.cgroup.join("ns").join(file);
        if path.exists() {
            assert_eq!(fs::metadata(&path).unwrap().uid(), base, "{file}");
        }
    }
    assert_eq!(rig.inside(101, "cat /proc/1/cgroup | grep ^0::"), "0::/");
    // It can make its own below, and cannot leave.
    rig.inside(101, "mkdir /sys/fs/cgroup/sub && rmdir /sys/fs/cgroup/sub");
    assert_eq!(rig.inside(101, "ls -d /sys/fs/cgroup/../../fs/cgroup/exec 2>/dev/null; true"), "");
    let deep = rig.inside(101, "mkdir /sys/fs/cgroup/many; cd /sys/fs/cgroup/many; seq 6000 | xargs mkdir 2>/dev/null; ls | grep -c '^[0-9]'; find . -depth -type d -exec rmdir {} + 2>/dev/null; true");
    let made: u32 = deep.lines().next().unwrap_or_default().parse().unwrap();
    assert!(made < 6000, "no bound on the number of cgroups inside");
}

fn the_host_is_out_of_reach_through_proc_and_sys(features: &[Feature]) {
    let rig = running(features);
    for line in [
        "echo 1 >/proc/sys/kernel/panic",
        "echo x >/proc/sysrq-trigger",
        "echo 1 >/proc/sys/vm/drop_caches",
        "echo /tmp/x >/proc/sys/kernel/core_pattern",
        "echo 0 >/sys/kernel/mm/transparent_hugepage/enabled",
        "mount -o remount,rw /sys && echo 0 >/sys/kernel/profiling",
        "mount -t sysfs none /mnt && echo x >/mnt/power/state",
        "swapon /dev/zero",
        "! date -s 2001-01-01 2>&1 | grep 'not permitted'",
        "dmesg | grep .",
        "mount -t ext4 /dev/loop0 /mnt",
        "ls /proc/1/root/var/lib/vz",
        "kill -9 $(cat /proc/1/status | grep PPid | cut -f2) && false",
    ] {
        let out = rig.vzctl(&["exec2", "101", line]);
        assert_ne!(out.code(), 0, "`{line}` worked: {out}");
    }
    // Processes of the host and of neighbours are not there.
    let inside = rig.inside(101, "ls /proc | grep -c '^[0-9]'");
    assert!(inside.parse::<u32>().unwrap() < 20, "{inside}");
}

#[test]
fn debian_boots_cleanly_under_all_of_it_and_sudo_keeps_working() {
    let rig = Rig::new(&[Debian12]);
    rig.create(101, Debian12, &[]);
    rig.ok(&["start", "101", "--wait"]);
    assert_eq!(rig.inside(101, "systemctl --failed --plain --no-legend"), "");
    rig.inside(101, "useradd -m anna && echo 'anna ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/anna");
    assert_eq!(rig.inside(101, "su anna -c 'sudo id -u'"), "0");
    let other = rig.vzctl(&["exec2", "101", "su anna -c 'cat /etc/shadow'"]);
    assert_ne!(other.code(), 0, "{other}");
    // systemd's own service namespaces work without nesting.
    rig.inside(101, "systemd-run --wait -q -p PrivateTmp=yes -p ProtectSystem=strict -p PrivateDevices=yes -p PrivateNetwork=yes -p DynamicUser=yes true");
}
