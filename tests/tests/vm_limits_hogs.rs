//! Containers that take all they can get, and what their neighbours, the host and the record notice of it.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::time::{Duration, Instant};
use vz_tests::vm::{
    Vm,
    limits::{Beat, bean, beats, cgroup, failcnt, give_flood, start_beat},
};

const SOON: Duration = Duration::from_secs(90);
/// What a neighbour and the host may wait for at most.
const ANSWER: Duration = Duration::from_secs(2);

/// None of the steps of any beat took longer than a neighbour may wait.
#[track_caller]
fn none_missed(beats: &[Beat]) {
    let most = ANSWER.as_millis();
    for (n, beat) in beats.iter().enumerate() {
        assert!(beat.iter().all(|ms| u128::from(*ms) < most), "beat {n} took {beat:?} ms:\n{beats:?}");
    }
}

/// The host lets one in and answers in time.
#[track_caller]
fn host_answers(vm: &Vm) {
    for line in ["true", "vzlist -H >/dev/null"] {
        let begun = Instant::now();
        vm.ok(line);
        assert!(begun.elapsed() < ANSWER, "`{line}` on the host took {:?}", begun.elapsed());
    }
}

#[test]
fn a_memory_hog_dies_inside_at_the_limit_and_neither_the_neighbour_nor_the_host_waits() {
    let vm = Vm::alone();
    let _clean = vm.clean_up(&[2603, 2604]);
    vm.ok("vzctl create 2603 --ostemplate tiny --ram 96M --swap 32M && vzctl start 2603");
    vm.ok("vzctl create 2604 --ostemplate tiny --ram 64M && vzctl start 2604");
    give_flood(&vm, &[2603, 2604]);
    start_beat(&vm, 2604, 60);
    // Thrashing just below the limit, over it again and again, and through the page cache.
    let hog = "timeout 12 /flood memory 110 12; for i in 1 2 3; do /flood memory 400 20; done; timeout 10 dd if=/dev/zero of=/big bs=1M count=300; timeout 5 cat /big";
    vm.ok(&format!("vzctl exec2 2603 'setsid sh -c \"{hog}; echo over >/over\" >/dev/null 2>&1 </dev/null &'"));
    let end = Instant::now() + SOON;
    while vm.sh("vzctl exec2 2603 '[ -e /over ]'").code() != 0 {
        assert!(Instant::now() < end, "the hog is not over\n{}", vm.vzd_log(20));
        host_answers(&vm);
    }
    none_missed(&beats(&vm, 2604, 25, SOON));
    assert!(vm.ok("vzctl status 2603").ends_with("running"), "the container itself lives");
    assert!(failcnt(&vm, 2603, "physpages") > 0 && failcnt(&vm, 2603, "oomguarpages") >= 3);
    let why = vm.ok("vzctl why 2603");
    assert!(
        why.contains("oom-kill") && why.contains("`flood`") && why.contains("96M") && why.contains("--ram"),
        "{why}"
    );
    let events = vm.ok("vzctl events 2603 --json");
    assert!(events.contains("\"kind\":\"oom-kill\"") && events.contains("physpages"), "{events}");
    assert_eq!((failcnt(&vm, 2604, "physpages"), failcnt(&vm, 2604, "oomguarpages")), (0, 0));
    // Kept over a restart of the container.
    let kept = failcnt(&vm, 2603, "physpages");
    vm.ok("vzctl restart 2603 --fast");
    assert!(failcnt(&vm, 2603, "physpages") >= kept);
    vm.ok("vzctl set 2603 --reset_ub");
    assert_eq!(failcnt(&vm, 2603, "physpages"), 0);
}

#[test]
fn swap_fills_at_swappages() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2613]);
    vm.ok("vzctl create 2613 --ostemplate tiny --ram 32M --swap 64M && vzctl start 2613");
    give_flood(&vm, &[2613]);
    // Into the swap space, and not to its end: what was swapped in again may keep its place there.
    vm.inside(2613, "/flood hold 48 1");
    let before = bean(&vm, 2613, "swappages");
    assert!(before["maxheld"].as_u64().is_some_and(|n| n > 2048) && before["failcnt"] == 0, "{before}");
    let out = vm.sh_within("vzctl exec2 2613 '/flood memory 200 30'", SOON);
    assert_ne!(out.code(), 0, "200 MB of 32 and 64: {out}");
    // The kernel may kill a few pages before the end; it is not to be reached by every single hog.
    vm.until(
        "vzctl exec2 2613 '/flood memory 100 5'; grep -q '^max [1-9]' /sys/fs/cgroup/vz/2613/memory.swap.events",
        SOON,
    );
    let row = bean(&vm, 2613, "swappages");
    assert_eq!((row["class"].as_str(), row["limit"].as_u64()), (Some("enforced"), Some(16_384)), "{row}");
    assert!(row["maxheld"].as_u64().is_some_and(|n| (16_000..=16_384).contains(&n)), "{row}");
    assert!(row["failcnt"].as_u64().is_some_and(|n| n > 0), "{row}");
    let why = vm.ok("vzctl why 2613");
    assert!(why.contains("swap-full") && why.contains("swappages is at its limit of 64M"), "{why}");
}

#[test]
fn a_fork_bomb_stops_at_numproc_and_is_stopped_fast() {
    let vm = Vm::alone();
    let _clean = vm.clean_up(&[2605]);
    vm.ok("vzctl create 2605 --ostemplate tiny --ram 128M --numproc 100 && vzctl start 2605");
    vm.ok("vzctl exec2 2605 'b() { b | b & b; }; b >/dev/null 2>&1 &' || true");
    vm.until("[ $(cat /sys/fs/cgroup/vz/2605/pids.events | cut -d\" \" -f2) -gt 0 ]", SOON);
    host_answers(&vm);
    let held: u64 = cgroup(&vm, 2605, "pids.current").parse().unwrap();
    assert!(held <= 100, "{held}");
    assert!(failcnt(&vm, 2605, "numproc") > 0);
    assert!(vm.ok("vzctl why 2605").contains("fork-failed"));
    let stopped = vm.sh_within("vzctl stop 2605 --fast", Duration::from_secs(30));
    assert_eq!(stopped.code(), 0, "{stopped}");
    assert!(failcnt(&vm, 2605, "numproc") > 0, "kept after the stop");
}

#[test]
fn a_guarantee_holds_while_a_neighbour_thrashes() {
    let vm = Vm::alone();
    let _clean = vm.clean_up(&[2614, 2615, 2616]);
    vm.ok("vzctl create 2614 --ostemplate tiny --oomguarpages 80M && vzctl start 2614");
    vm.ok("vzctl create 2615 --ostemplate tiny && vzctl start 2615");
    vm.ok("vzctl create 2616 --ostemplate tiny && vzctl start 2616");
    give_flood(&vm, &[2614, 2615, 2616]);
    for ctid in [2614, 2615] {
        vm.ok(&format!("vzctl exec2 {ctid} 'setsid /flood hold 60 600 >/held 2>&1 </dev/null & until grep -q held /held; do sleep 1; done'"));
    }
    start_beat(&vm, 2614, 30);
    // As on a host with no more memory than this for its containers.
    vm.ok("echo 256M >/sys/fs/cgroup/vz/memory.max");
    let thrash = vm.sh_within("vzctl exec2 2616 'timeout 20 /flood memory 220 20'", SOON);
    let seen = (
        cgroup(&vm, 2614, "memory.swap.current"),
        cgroup(&vm, 2614, "memory.current"),
        cgroup(&vm, 2615, "memory.swap.current"),
    );
    vm.ok("echo max >/sys/fs/cgroup/vz/memory.max");
    let mb = |text: &str| text.parse::<u64>().unwrap() >> 20;
    assert_eq!(mb(&seen.0), 0, "the guaranteed one was swapped out: {seen:?} {thrash}");
    assert!(mb(&seen.1) >= 60, "{seen:?} {thrash}");
    assert!(mb(&seen.2) >= 10, "there was no pressure at all: {seen:?} {thrash}");
    none_missed(&beats(&vm, 2614, 20, SOON));
    assert_eq!(bean(&vm, 2614, "oomguarpages")["class"], "guaranteed");
}
