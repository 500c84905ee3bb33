//! How many of the host's pseudo terminals are open, and who has them once they run short. Root inside can mount a devpts
//! of its own beside the one `--numpty` bounds, and the kernel counts those of all together.

use super::{CheckItem, row};
use crate::limits::cgroup::Cgroups;
use std::{
    collections::HashMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};
use vz_sys::proc;
use vz_types::Ctid;

/// Longest the descriptors of the host's processes are looked through.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many holders are named.
const NAMED: usize = 3;

/// One row; the holders are looked for only when three quarters of what containers may have are open.
pub(super) fn open_row(cgroups: Option<&Cgroups>) -> CheckItem {
    let number = |name: &str| proc::number(&format!("/proc/sys/kernel/pty/{name}")).unwrap_or(0);
    let (open, for_all) = (number("nr"), number("max").saturating_sub(number("reserve")));
    let words = format!("{open} of {for_all} are open");
    let found = if short(open, for_all) {
        Err(format!("{words}; {}", named(&holders(cgroups, Instant::now() + PATIENCE))))
    } else {
        Ok(words)
    };
    let loss = "when all are taken, containers open no more: no ssh, screen or tmux inside";
    let remedy = "stop the container that has most, or `sysctl -w kernel.pty.max` to more (20 KiB of memory each)";
    row("sysctl", "kernel.pty.nr", false, found, loss, remedy)
}

fn short(open: u64, for_all: u64) -> bool {
    open.saturating_mul(4) >= for_all.saturating_mul(3)
}

/// Descriptors of masters, by container (`None`: the host), of all processes that could be looked at in time. A name is
/// read, never followed: it may lead anywhere.
fn holders(cgroups: Option<&Cgroups>, until: Instant) -> HashMap<Option<Ctid>, u64> {
    let mut all = HashMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok()) {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let masters = links
            .take_while(|_| Instant::now() < until)
            .filter(|l| fs::read_link(l.path()).is_ok_and(|to| to.file_name().is_some_and(|n| n == "ptmx")))
            .count() as u64;
        if masters > 0 {
            let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            *all.entry(cgroups.and_then(|c| container(c.mount(), c.base(), &text))).or_default() += masters;
        }
    }
    all
}

/// Whose a process is, by its cgroup (cgroups(7), `/proc/PID/cgroup`).
fn container(mount: &Path, base: &Path, text: &str) -> Option<Ctid> {
    let path = text.lines().find_map(|l| l.strip_prefix("0::/"))?;
    let below = mount.join(path);
    below.strip_prefix(base).ok()?.iter().next()?.to_str()?.parse().ok()
}

/// Who has most of them, in words.
fn named(holders: &HashMap<Option<Ctid>, u64>) -> String {
    let mut all: Vec<_> = holders.iter().collect();
    all.sort_by_key(|(ctid, n)| (std::cmp::Reverse(**n), **ctid));
    let who = |ctid: &Option<Ctid>| ctid.map_or_else(|| "the host".to_owned(), |c| format!("CT {c}"));
    let most: Vec<String> = all.iter().take(NAMED).map(|(ctid, n)| format!("{} has {n}", who(ctid))).collect();
    if most.is_empty() { "nobody is seen with one".to_owned() } else { most.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_terminals_is_seen_wherever_their_devpts_is() {
        let held: Vec<_> = (0..7).map(|_| vz_sys::pty::open().unwrap()).collect();
        let seen = holders(None, Instant::now() + PATIENCE);
        assert!(seen[&None] >= held.len() as u64, "{seen:?}");
    }

    #[test]
    fn a_process_is_its_containers_by_its_cgroup() {
        let of = |text: &str| container(Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/vz"), text);
        assert_eq!(of("4:memory:/x\n0::/vz/101/ns/init.scope\n"), "101".parse().ok());
        assert_eq!(of("0::/system.slice/ssh.service\n"), None);
        assert_eq!(of("0::/vz\n"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn the_three_that_have_most_are_named_once_terminals_run_short() {
        assert!(!short(74, 100) && short(75, 100));
        let ct = |n: &str| Some(n.parse().unwrap());
        let all = HashMap::from([(None, 5), (ct("101"), 9), (ct("102"), 7), (ct("103"), 1)]);
        assert_eq!(named(&all), "CT 101 has 9, CT 102 has 7, the host has 5");
    }
}
