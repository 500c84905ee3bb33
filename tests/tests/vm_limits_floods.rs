//! Floods of everything that is counted: each hits its class as docs/reference/beancounters.md says.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::time::Duration;
use vz_tests::vm::{
    Vm,
    limits::{bean, cgroup, failcnt, figure, give_flood},
};

const SOON: Duration = Duration::from_secs(90);
const EPERM: &str = "1";
const EAGAIN: &str = "11";
const ENOMEM: &str = "12";
const EMFILE: &str = "24";
const ENOSPC: &str = "28";

#[test]
fn sockets_terminals_locked_memory_signals_and_files_hit_their_class() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2608]);
    vm.ok("vzctl create 2608 --ostemplate tiny --numtcpsock 5 --numothersock 30 --numfile 100 --lockedpages 64K --numpty 7 --numsiginfo 50 --shmpages 8M && vzctl start 2608");
    give_flood(&vm, &[2608]);
    let flood = |kind: &str, most: u32| -> (u64, String) {
        let out = vm.inside(2608, &format!("/flood {kind} {most} 0"));
        let (taken, errno) = out.split_once(' ').unwrap_or_else(|| panic!("{kind}: {out}"));
        (taken.parse().unwrap(), errno.to_owned())
    };
    let class = |name: &str| bean(&vm, 2608, name)["class"].as_str().unwrap_or_default().to_owned();
    // For the whole container, refused and counted.
    for (kind, counter, limit) in [("tcp", "numtcpsock", 5), ("udp", "numothersock", 30)] {
        assert_eq!(class(counter), "enforced");
        let before = (figure(&vm, 2608, counter, "held"), failcnt(&vm, 2608, counter));
        assert_eq!(flood(kind, 200), (limit - before.0, EPERM.into()), "{kind}");
        let after = bean(&vm, 2608, counter);
        assert_eq!(after["failcnt"].as_u64(), Some(before.1 + 1), "{after}");
        assert_eq!(after["maxheld"].as_u64(), Some(limit), "{after}");
    }
    let why = vm.ok("vzctl why 2608");
    assert!(why.contains("socket-refused") && why.contains("numtcpsock is at its limit of 5"), "{why}");
    // Local sockets are no inet sockets: only the descriptors of the process hold them, and the class says so.
    let (taken, errno) = flood("unix", 200);
    assert!((90..=100).contains(&taken) && errno == EMFILE, "{taken} {errno}");
    assert!(bean(&vm, 2608, "numothersock")["note"].as_str().unwrap().contains("unix"));
    // For the whole container, as far as its own devpts goes.
    assert_eq!((class("numpty"), flood("pty", 200)), ("enforced".into(), (7, ENOSPC.into())));
    assert!(bean(&vm, 2608, "numpty")["note"].as_str().unwrap().contains("bypassable"));
    let (taken, errno) = flood("signals", 500);
    assert!(class("numsiginfo") == "enforced" && (40..=50).contains(&taken) && errno == EAGAIN, "{taken} {errno}");
    // Each process for itself: two may have as much as one.
    assert_eq!((class("lockedpages"), flood("lock", 4096)), ("per-process".into(), (64, ENOMEM.into())));
    let two = vm.inside(2608, "/flood lock 4096 3 & /flood lock 4096 0; wait");
    assert_eq!(two.lines().collect::<Vec<_>>(), ["64 12", "64 12"]);
    let (taken, errno) = flood("file", 200);
    assert!(class("numfile") == "per-process" && (90..100).contains(&taken) && errno == EMFILE, "{taken} {errno}");
    assert_eq!(vm.inside(2608, "ulimit -H -n; ulimit -H -l"), "100\n64");
    // Shared memory, where the container's own tmpfs is meant.
    let full = vm.sh("vzctl exec2 2608 'dd if=/dev/zero of=/dev/shm/x bs=1M count=20; rm /dev/shm/x'");
    assert!(full.stderr.contains("No space left"), "{full}");
    // What ended holds nothing.
    vm.until("vzubc 2608 | grep -qE 'numtcpsock\\| +0 '", SOON);
}

#[test]
fn a_flood_of_processes_and_threads_stops_at_numproc_of_the_whole_container() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2617]);
    vm.ok("vzctl create 2617 --ostemplate tiny --numproc 40 && vzctl start 2617");
    vm.ok("vzctl exec2 2617 'i=0; while [ $i -lt 60 ]; do sleep 600 & i=$((i+1)); done' || true");
    assert!(cgroup(&vm, 2617, "pids.current").parse::<u64>().unwrap() <= 40);
    assert!(failcnt(&vm, 2617, "numproc") > 0);
    // The limit is the container's, also where root inside makes groups of its own.
    vm.sh("vzctl exec2 2617 'mkdir /sys/fs/cgroup/more; echo max >/sys/fs/cgroup/more/pids.max; for i in 1 2 3; do sleep 600 & done'");
    assert!(cgroup(&vm, 2617, "pids.current").parse::<u64>().unwrap() <= 40);
    assert_eq!(figure(&vm, 2617, "numproc", "maxheld"), 40);
    vm.ok("vzctl stop 2617 --fast");
}
