//! What this host has and what it can enforce: controllers on its cgroup2 tree, and the reason and the remedy for each
//! that is not there. Looked at when asked, because an operator may mount or remount while vzd runs.

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::{collections::BTreeSet, fs, path::Path};
use vz_sys::proc;
use vz_types::{
    CtConfig, ExitCode,
    limits::{
        Class, Ub,
        config::{HostSize, Mask},
        kernel::{self, Setting},
    },
};

/// A limit that cannot be enforced here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The counter or parameter.
    pub name: &'static str,
    /// What is missing.
    pub reason: String,
    /// What to do about it.
    pub remedy: &'static str,
}

/// What can be done here.
#[derive(Clone, Debug)]
pub struct Host {
    controllers: Vec<String>,
    versions: Vec<(String, u32, bool)>,
    recursive_protection: bool,
    swap_files: bool,
    sockets: Result<(), String>,
}

const UNIFIED: &str = "boot with cgroup_no_v1=all on the kernel command line (with systemd also systemd.unified_cgroup_hierarchy=1), so that cgroup version 2 has every controller";
const REMOUNT: &str = "mount -o remount,nsdelegate,memory_recursiveprot /sys/fs/cgroup";

impl Host {
    /// Of the tree at `mount` with these controllers.
    pub fn look(mount: &Path, controllers: &[String]) -> Self {
        let text = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        let row = |l: &str| {
            let mut f = l.split_whitespace();
            let (name, hierarchy, _, on) = (f.next()?, f.next()?.parse().ok()?, f.next()?, f.next()?);
            Some((name.to_owned(), hierarchy, on == "1"))
        };
        let options = mount_options(mount);
        Self {
            controllers: controllers.to_vec(),
            versions: text.lines().filter(|l| !l.starts_with('#')).filter_map(row).collect(),
            recursive_protection: options.split(',').any(|o| o == "memory_recursiveprot"),
            // Present in every cgroup but the root one; a kernel without swap accounting has it nowhere.
            swap_files: any_below(mount, "memory.swap.max"),
            sockets: super::sockets::supported(mount),
        }
    }

    /// Why a setting of this controller cannot be made.
    pub fn gap(&self, name: &'static str, controller: &str) -> Option<Gap> {
        if self.controllers.iter().any(|c| c == controller) {
            if name == "swappages" && !self.swap_files {
                let reason = "this kernel does not account swap space per cgroup".into();
                return Some(Gap { name, reason, remedy: "boot with swapaccount=1 and a kernel with CONFIG_SWAP" });
            }
            let protects = matches!(name, "oomguarpages" | "vmguarpages");
            if protects && !self.recursive_protection {
                let reason = "cgroup2 is mounted without memory_recursiveprot, so the guarantee ends above the container's own cgroups".into();
                return Some(Gap { name, reason, remedy: REMOUNT });
            }
            return None;
        }
        // /proc/cgroups calls the io controller by its name of version 1.
        let old = if controller == "io" { "blkio" } else { controller };
        let reason = match self.versions.iter().find(|(n, ..)| n == old) {
            Some((_, 1.., _)) => {
                format!("the {controller} controller belongs to a cgroup version 1 hierarchy of this host")
            }
            Some((.., false)) => format!("the {controller} controller is disabled on the kernel command line"),
            Some(_) => format!("the {controller} controller is not handed to this host's cgroup2 tree"),
            None => format!("this kernel has no {controller} controller"),
        };
        Some(Gap { name, reason, remedy: UNIFIED })
    }

    /// Every limit a configuration asks for that this host cannot enforce. Disks are looked at by [`super::disks`].
    pub fn gaps(&self, c: &CtConfig) -> Vec<Gap> {
        let mut out: Vec<Gap> = Vec::new();
        for ub in [Ub::Numtcpsock, Ub::Numothersock] {
            out.extend(self.socket_gap(ub).filter(|_| c.limits.get(ub).limit.number().is_some()));
        }
        let io = (kernel::io_max(c) != kernel::IO_MAX_NONE).then_some(if c.io.limit.is_some() {
            "iolimit"
        } else {
            "iopslimit"
        });
        let prio = c.io.prio.filter(|_| kernel::io_weight(c) != 100).map(|_| "ioprio");
        let settings = kernel::settings(c);
        let asked = settings.iter().filter(|s| s.is_set()).map(|s| (s.name, s.controller));
        for (name, controller) in asked.chain(io.into_iter().chain(prio).map(|n| (n, "io"))) {
            if !out.iter().any(|g| g.name == name) {
                out.extend(self.gap(name, controller));
            }
        }
        out
    }

    /// Why sockets cannot be limited here.
    pub fn socket_gap(&self, ub: Ub) -> Option<Gap> {
        let reason = self.sockets.as_ref().err()?.clone();
        Some(Gap { name: ub.name(), reason, remedy: "boot a kernel with CONFIG_CGROUP_BPF and CONFIG_BPF_SYSCALL" })
    }

    /// Which of these settings can be made.
    pub fn possible(&self, settings: Vec<Setting>) -> Vec<Setting> {
        settings.into_iter().filter(|s| self.gap(s.name, s.controller).is_none()).collect()
    }

    /// Class of a counter here, with the reason where it is not what it is elsewhere.
    pub fn class(&self, ub: Ub) -> (Class, Option<Gap>) {
        let row = ub.row();
        let sockets = matches!(ub, Ub::Numtcpsock | Ub::Numothersock).then(|| self.socket_gap(ub)).flatten();
        match row.controller.and_then(|c| self.gap(row.name, c)).or(sockets) {
            Some(gap) => (Class::Unenforced, Some(gap)),
            None => (row.class, None),
        }
    }
}

/// Options of the filesystem mounted at a path, by the mount's number (statx(2)).
fn mount_options(mount: &Path) -> String {
    let Some(id) = mount_number(mount) else {
        // Where the kernel does not tell the number, the last at that place is the one that is seen.
        let all = proc::mountinfo().unwrap_or_default();
        return all.into_iter().rfind(|m| m.mount_point == mount).map(|m| m.super_options).unwrap_or_default();
    };
    proc::mount(id).ok().flatten().map(|m| m.super_options).unwrap_or_default()
}

fn mount_number(mount: &Path) -> Option<u64> {
    let s = statx(CWD, mount, AtFlags::NO_AUTOMOUNT, StatxFlags::MNT_ID).ok()?;
    (s.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(s.stx_mnt_id)
}

fn any_below(mount: &Path, file: &str) -> bool {
    let Ok(entries) = fs::read_dir(mount) else { return false };
    entries.flatten().any(|e| e.path().join(file).exists())
}

/// What a host has, in figures.
pub fn size() -> HostSize {
    let [memory, swap] = meminfo(["MemTotal", "SwapTotal"]);
    HostSize {
        memory,
        swap,
        cpus: list("/sys/devices/system/cpu/online"),
        nodes: list("/sys/devices/system/node/online"),
        pids: proc::number("/proc/sys/kernel/pid_max").unwrap_or(4_194_304),
        files: proc::number("/proc/sys/fs/nr_open").unwrap_or(1 << 20),
    }
}

fn list(path: &str) -> BTreeSet<u16> {
    fs::read_to_string(path).ok().and_then(|t| t.trim().parse::<Mask>().ok()).map_or_else(|| [0].into(), |m| m.0)
}

/// Figures of `/proc/meminfo` in bytes; 0 where the kernel does not tell them.
pub fn meminfo<const N: usize>(keys: [&str; N]) -> [u64; N] {
    proc::meminfo(keys).unwrap_or([0; N])
}

/// The exit code of a limit that cannot be had: 148 for I/O, else 6.
pub fn code(name: &str) -> ExitCode {
    if name.starts_with("io") { ExitCode::IoParams } else { ExitCode::Resource }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_hosts_proc_has_options() {
        assert!(mount_options(Path::new("/proc")).contains('r'));
    }
}
