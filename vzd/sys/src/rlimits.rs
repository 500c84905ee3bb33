//! Resource limits of processes that run already: of every process in a cgroup, new ones included (prlimit(2)).

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use vz_types::limits::kernel::Inside;

/// Every process in a cgroup and below.
pub fn pids(cgroup: &Path) -> BTreeSet<i32> {
    let mut out = BTreeSet::new();
    let mut todo: Vec<PathBuf> = vec![cgroup.into()];
    while let Some(dir) = todo.pop() {
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        out.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p > 0));
        if let Ok(entries) = fs::read_dir(&dir) {
            todo.extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
        }
    }
    out
}

/// Gives every process of a container these resource limits, new ones included: repeated until a pass finds nothing
/// to change, because a process forked meanwhile has its parent's.
///
/// # Errors
/// The kernel refuses (raising a hard limit needs CAP_SYS_RESOURCE on the host).
///
/// `forgive`: what the caller may not do is left to somebody who may.
pub fn limit(cgroup: &Path, inside: &Inside, old: &Inside, forgive: bool) -> std::io::Result<()> {
    // What vzmon starts init with where nothing is set.
    let nofile = |set: Option<u64>| Some(set.unwrap_or(524_288));
    let memlock = |set: Option<u64>| Some(set.unwrap_or(8 << 20));
    let rows = [
        (Resource::Nofile, nofile(inside.nofile), nofile(old.nofile)),
        (Resource::Memlock, memlock(inside.memlock), memlock(old.memlock)),
        (Resource::As, inside.address_space, old.address_space),
    ];
    let changed: Vec<(Resource, Option<u64>)> =
        rows.into_iter().filter(|(_, new, old)| new != old).map(|(r, new, _)| (r, new)).collect();
    for _ in 0..16 {
        let mut all_there = true;
        for pid in pids(cgroup).into_iter().filter_map(Pid::from_raw) {
            for (resource, hard) in &changed {
                // A process that is gone needs none.
                let Some((soft, most)) = limits_of(pid, *resource) else { continue };
                // Programs choose how many descriptors they ask for; the other two are one number.
                let wanted = match resource {
                    Resource::Nofile => (soft.into_iter().chain(*hard).min(), *hard),
                    _ => (*hard, *hard),
                };
                if (soft, most) == wanted {
                    continue;
                }
                all_there = false;
                match prlimit(Some(pid), *resource, Rlimit { current: wanted.0, maximum: wanted.1 }) {
                    Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                    Err(rustix::io::Errno::PERM) if forgive => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        if all_there {
            return Ok(());
        }
    }
    if forgive {
        return Ok(());
    }
    Err(std::io::Error::other("its processes multiply faster than they can be limited"))
}

/// Soft and hard limit of a process as `/proc/PID/limits` shows them; `None`: it is gone.
fn limits_of(pid: Pid, resource: Resource) -> Option<(Option<u64>, Option<u64>)> {
    let name = match resource {
        Resource::Nofile => "Max open files",
        Resource::Memlock => "Max locked memory",
        _ => "Max address space",
    };
    let text = fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero())).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    let mut words = line.split_whitespace().map(|w| w.parse::<u64>().ok());
    Some((words.next()?, words.next()?))
}
