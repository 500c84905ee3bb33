//! What this host can and cannot do, tried out rather than read off version numbers where that is possible.
//! Every gap says what is lost and what to do about it; nothing is changed on the host.
//!
//! The tables are [`PROBES`] for the kernel, [`values`] for its settings, [`PROGRAMS`] for what must be installed and [`UNITS`] for what systemd starts.

mod probes;
mod terminals;
mod values;

use crate::{
    limits::cgroup::{Cgroups, WANTED as WANTED_CONTROLLERS},
    monitor, program,
};
use probes::Found;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use vz_api::wire::{CheckItem, CheckReport};
use vz_types::{ManagerConfig, Paths};

/// One thing of the kernel's that is tried.
struct Probe {
    group: &'static str,
    name: &'static str,
    /// Without it no container runs.
    fatal: bool,
    look: fn(&Paths) -> Found,
    loss: &'static str,
    remedy: &'static str,
}

const KERNEL: &str =
    "boot a kernel of version 6.1 or later with the distribution's configuration: apt-get install linux-image-amd64";

const PROBES: &[Probe] = &[
    Probe {
        group: "kernel",
        name: "version",
        fatal: true,
        look: |_| probes::version(),
        loss: "kernels before 6.1 cannot mount idmapped overlays",
        remedy: KERNEL,
    },
    Probe {
        group: "kernel",
        name: "user namespaces",
        fatal: true,
        look: |_| probes::user_namespaces(),
        loss: "a container has ids of its own through one",
        remedy: "sysctl -w user.max_user_namespaces=65536",
    },
    Probe {
        group: "kernel",
        name: "namespaces",
        fatal: true,
        look: |_| probes::namespaces(),
        loss: "a container is made of pid, mount, net, uts, ipc and cgroup namespaces",
        remedy: KERNEL,
    },
    Probe {
        group: "kernel",
        name: "mounts",
        fatal: false,
        look: |_| probes::mount_max(),
        loss: "root of a container can use up kernel memory with mounts",
        remedy: "sysctl -w fs.mount-max=32768 (vz's own sysctl file sets it)",
    },
    Probe {
        group: "kernel",
        name: "overlay",
        fatal: true,
        look: |_| probes::filesystem("overlay"),
        loss: "containers share their OS template through it",
        remedy: "modprobe overlay",
    },
    Probe {
        group: "kernel",
        name: "ext4",
        fatal: true,
        look: |_| probes::filesystem("ext4"),
        loss: "the writable layer's image is ext4",
        remedy: "modprobe ext4",
    },
    Probe {
        group: "kernel",
        name: "loop devices",
        fatal: true,
        look: |_| probes::device("/dev/loop-control"),
        loss: "the writable layer's image is mounted through one",
        remedy: "modprobe loop",
    },
    Probe {
        group: "kernel",
        name: "new mount calls",
        fatal: true,
        look: |_| probes::mount_calls(),
        loss: "idmapped mounts are made with open_tree and mount_setattr",
        remedy: KERNEL,
    },
    Probe {
        group: "kernel",
        name: "pidfd",
        fatal: true,
        look: |_| probes::pidfd(),
        loss: "processes are told apart for certain through one",
        remedy: KERNEL,
    },
    Probe {
        group: "kernel",
        name: "seccomp filters",
        fatal: true,
        look: |_| probes::seccomp(),
        loss: "dangerous system calls of containers are denied by one",
        remedy: KERNEL,
    },
    Probe {
        group: "kernel",
        name: "cgroup device programs",
        fatal: true,
        look: |_| probes::config_word("BPF system call", "/proc/sys/kernel/unprivileged_bpf_disabled"),
        loss: "a container's access to devices is decided by one",
        remedy: KERNEL,
    },
    Probe {
        group: "network",
        name: "nf_tables",
        fatal: true,
        look: |_| probes::nf_tables(),
        loss: "a container's source addresses are held to its own by it",
        remedy: "modprobe nf_tables",
    },
    Probe {
        group: "network",
        name: "netlink",
        fatal: true,
        look: |_| probes::netlink(),
        loss: "links, addresses and routes are made through it",
        remedy: KERNEL,
    },
    Probe {
        group: "network",
        name: "veth",
        fatal: true,
        look: |_| probes::module("veth"),
        loss: "a container's link to the host is a veth pair",
        remedy: "modprobe veth",
    },
    Probe {
        group: "network",
        name: "IPv6",
        fatal: false,
        look: |_| probes::device("/proc/sys/net/ipv6"),
        loss: "containers get IPv4 addresses only",
        remedy: "boot without ipv6.disable=1",
    },
    Probe {
        group: "quota",
        name: "project quota",
        fatal: false,
        look: probes::project_quota,
        loss: "nothing but a little speed: writable layers live on images of their own, so disk space and inodes are limited all the same",
        remedy: "mount the filesystem of /var/lib/vz with prjquota (xfs, or ext4 made with -O quota,project)",
    },
];

/// A program that must be installed.
struct Program {
    name: &'static str,
    version_flag: &'static str,
    package: &'static str,
    fatal: bool,
    loss: &'static str,
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "nft",
        version_flag: "--version",
        package: "nftables",
        fatal: true,
        loss: "the packet filter cannot be loaded, and no container is started without it",
    },
    Program {
        name: "mkfs.ext4",
        version_flag: "-V",
        package: "e2fsprogs",
        // Containers that exist run without it.
        fatal: false,
        loss: "no writable layer can be made: `vzctl create` fails",
    },
    Program {
        name: "resize2fs",
        version_flag: "",
        package: "e2fsprogs",
        fatal: false,
        loss: "`vzctl set --diskspace` fails",
    },
    Program {
        name: "e2fsck",
        version_flag: "-V",
        package: "e2fsprogs",
        fatal: false,
        loss: "`vzctl set --diskspace` fails on a stopped container",
    },
    Program {
        name: "mmdebstrap",
        version_flag: "--version",
        package: "mmdebstrap",
        fatal: false,
        loss: "`vzctl template build` fails",
    },
];

/// A unit of the package's.
struct Unit {
    name: &'static str,
    loss: &'static str,
}

const UNITS: &[Unit] = &[
    Unit { name: "vzd.service", loss: "after a boot of the host no container starts and vzctl changes nothing" },
    Unit { name: "vz.service", loss: "when the host shuts down containers are killed, not stopped" },
];

/// The whole report.
pub fn report(paths: &Paths, config: &ManagerConfig) -> CheckReport {
    let mut items: Vec<CheckItem> = PROBES.iter().map(|p| kernel_row(p, paths)).collect();
    items.extend(values::rows());
    items.push(terminals::open_row(Cgroups::find(paths, config.cgroup_root.as_deref()).ok().as_ref()));
    items.extend(cgroup_rows(paths, config));
    items.extend(PROGRAMS.iter().map(program_row));
    items.push(monitor_row(config));
    // Another manager on this host has no units.
    if paths.base == Path::new("/") {
        items.extend(UNITS.iter().filter_map(unit_row));
    }
    CheckReport { ok: items.iter().all(|i| i.status != "fatal"), items }
}

fn row(group: &str, name: &str, fatal: bool, found: Found, loss: &str, remedy: &str) -> CheckItem {
    let (status, found, gap) = match found {
        Ok(found) => ("ok", found, false),
        Err(why) => (if fatal { "fatal" } else { "missing" }, why, true),
    };
    CheckItem {
        group: group.into(),
        name: name.into(),
        status: status.into(),
        found,
        loss: gap.then(|| loss.into()),
        remedy: gap.then(|| remedy.into()),
    }
}

fn kernel_row(p: &Probe, paths: &Paths) -> CheckItem {
    row(p.group, p.name, p.fatal, (p.look)(paths), p.loss, p.remedy)
}

/// The tree, what can be done with it, and each controller.
fn cgroup_rows(paths: &Paths, config: &ManagerConfig) -> Vec<CheckItem> {
    let cgroups = match Cgroups::find(paths, config.cgroup_root.as_deref()) {
        Ok(cgroups) => cgroups,
        Err(e) => {
            let remedy = e.hint().unwrap_or_default();
            return vec![row(
                "cgroup",
                "cgroup2",
                true,
                Err(e.to_string()),
                "every container lives in a cgroup of its own",
                &remedy,
            )];
        }
    };
    let mount = cgroups.mount();
    let hybrid = mount != Path::new("/sys/fs/cgroup");
    let kind = if hybrid { "hybrid: version 1 hierarchies hold controllers" } else { "unified" };
    let mut rows = vec![
        row("cgroup", "cgroup2", true, Ok(format!("{} ({kind})", mount.display())), "", ""),
        row(
            "cgroup",
            "cgroup.kill",
            true,
            probes::cgroup_file(mount, "cgroup.kill"),
            "a container's processes are ended all at once through it",
            KERNEL,
        ),
        row(
            "cgroup",
            "cgroup.freeze",
            false,
            probes::cgroup_file(mount, "cgroup.freeze"),
            "containers cannot be suspended",
            KERNEL,
        ),
    ];
    let remedy = if hybrid {
        "boot with systemd.unified_cgroup_hierarchy=1, so that no controller is on a version 1 hierarchy"
    } else {
        KERNEL
    };
    for (controller, what) in WANTED_CONTROLLERS {
        let found = match cgroups.controllers().iter().any(|c| c == controller) {
            true => Ok("available".to_owned()),
            false => Err("unenforced on this host".to_owned()),
        };
        rows.push(row("cgroup", &format!("controller {controller}"), false, found, what, remedy));
    }
    rows
}

fn program_row(p: &Program) -> CheckItem {
    let found = match find(p.name) {
        None => Err("not installed".to_owned()),
        Some(path) => Ok(match version(&path, p.version_flag) {
            Some(version) => format!("{version} ({})", path.display()),
            None => path.display().to_string(),
        }),
    };
    row("program", p.name, p.fatal, found, p.loss, &format!("apt-get install {}", p.package))
}

fn monitor_row(config: &ManagerConfig) -> CheckItem {
    let found = monitor::Monitor::find(config.vzmon.as_deref());
    let remedy = found.as_ref().err().and_then(monitor::Error::hint).unwrap_or_default();
    let words = match found {
        Ok(program) => Ok(version(&program, "--version").unwrap_or_default() + &format!(" ({})", program.display())),
        Err(e) => Err(e.to_string()),
    };
    row("program", "vzmon", true, words, "it is what runs containers", &remedy)
}

/// Whether systemd starts a unit at boot and has started it now; nothing where it is not installed, or systemd is not
/// this host's init.
fn unit_row(unit: &Unit) -> Option<CheckItem> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let mut asked = program::command(&find("systemctl")?);
    asked.args(["show", "--value", "-p", "LoadState", "-p", "UnitFileState", "-p", "ActiveState", unit.name]);
    let (_, (said, _)) = program::output(asked, None, PATIENCE).ok()?;
    unit_found(&String::from_utf8_lossy(&said)).map(|found| {
        row("service", unit.name, false, found, unit.loss, &format!("systemctl enable --now {}", unit.name))
    })
}

/// What `systemctl show` says, in whatever order: `loaded`, `enabled`, `active`.
fn unit_found(said: &str) -> Option<Found> {
    let has = |word: &str| said.lines().any(|l| l == word);
    if !has("loaded") {
        return None;
    }
    Some(match (has("enabled"), has("active")) {
        (true, true) => Ok("enabled, active".into()),
        (false, true) => Err("not enabled".into()),
        (true, false) => Err("not active".into()),
        (false, false) => Err("not enabled, not active".into()),
    })
}

/// How long a program may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a program is: the directories root's shell has, wherever vzd was started from.
fn find(name: &str) -> Option<PathBuf> {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|d| Path::new(d).join(name))
        .find(|p| p.is_file())
}

/// The first line a program says about its version, on whichever stream.
fn version(file: &Path, flag: &str) -> Option<String> {
    let mut command = program::command(file);
    if !flag.is_empty() {
        command.arg(flag);
    }
    let (_, (said, complained)) = program::output(command, None, PATIENCE).ok()?;
    let text = [said, complained].concat();
    String::from_utf8_lossy(&text).lines().map(str::trim).find(|l| !l.is_empty()).map(|l| l.chars().take(80).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_enabled_and_active_or_wanting() {
        assert_eq!(unit_found("not-found\n\ninactive\n"), None);
        assert_eq!(unit_found("active\nloaded\nenabled\n"), Some(Ok("enabled, active".into())));
        assert_eq!(unit_found("loaded\nactive\ndisabled\n"), Some(Err("not enabled".into())));
        assert_eq!(unit_found("loaded\ninactive\ndisabled\n"), Some(Err("not enabled, not active".into())));
    }

    #[test]
    fn every_gap_has_a_loss_and_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let config = ManagerConfig { vzmon: Some("/nowhere/vzmon".into()), ..ManagerConfig::default() };
        let report = report(&Paths::new(dir.path()), &config);
        assert!(!report.ok, "without a monitor nothing runs");
        for item in &report.items {
            let gap = item.status != "ok";
            assert_eq!(item.loss.as_ref().is_some_and(|l| !l.is_empty()), gap, "{item:?}");
            assert_eq!(item.remedy.as_ref().is_some_and(|r| !r.is_empty()), gap, "{item:?}");
        }
    }
}
