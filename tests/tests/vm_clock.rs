//! On the virtual test host: its wall clock jumps by months, forth and back. Containers run on, and nothing that is measured
//! in time, neither uptime nor deadlines nor the history, follows it.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use vz_tests::vm::Vm;

const DAY: i64 = 86_400;

/// The clock as this machine has it, again when the test is over.
struct Clock<'a>(&'a Vm);

impl Clock<'_> {
    fn ahead_by(&self, days: i64) {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        self.0.ok(&format!("date -s @{}", now + days * DAY));
    }
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        self.ahead_by(0);
    }
}

/// Of a running container: its uptime in seconds, and who init and monitor are.
fn run_of(vm: &Vm, ctid: u32) -> (u64, String) {
    let all: serde_json::Value = serde_json::from_str(&vm.ok(&format!("vzlist -j {ctid}"))).unwrap();
    let uptime = all[0]["uptime"].as_u64().unwrap_or_else(|| panic!("no uptime: {all}"));
    let record: serde_json::Value = serde_json::from_str(&vm.ok(&format!("cat /run/vz/ct/{ctid}/state.json"))).unwrap();
    (uptime, format!("{} {} {}", record["init"], record["monitor"], record["boots"]))
}

/// Kinds of the operations that are remembered of a container.
fn history(vm: &Vm, ctid: u32) -> Vec<String> {
    let all: serde_json::Value = serde_json::from_str(&vm.ok(&format!("vzctl history {ctid} --json"))).unwrap();
    all.as_array().unwrap().iter().map(|o| o["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn uptime_deadlines_and_history_do_not_follow_the_wall_clock() {
    let vm = Vm::alone();
    let ctids = [2151, 2152];
    let _clean = vm.clean_up(&ctids);
    vm.sh("systemctl stop systemd-timesyncd");
    let clock = Clock(&vm);
    vm.ok("vzctl create 2151 --ostemplate tiny --onboot yes && vzctl create 2152 --ostemplate tiny --onboot yes");
    vm.ok("vzctl start 2151");
    let begun = Instant::now();
    let (first, identity) = run_of(&vm, 2151);
    let mut known = history(&vm, 2152);
    assert!(known.contains(&"create".into()), "{known:?}");
    let same = |when: &str| {
        let passed = first + begun.elapsed().as_secs();
        let (uptime, now) = run_of(&vm, 2151);
        assert_eq!(now, identity, "{when}");
        assert!(uptime + 2 >= passed && uptime <= passed + 60, "{when}: up for {uptime} s, after {passed} s");
        vm.inside(2151, "true");
        assert_eq!(vm.ok("vzctl operations --open --json | tr -d ' \n'"), "[]", "{when}");
    };
    for days in [120, -200] {
        clock.ahead_by(days);
        same(&format!("{days} days"));
        // Starts, waits, stops.
        let tried = Instant::now();
        vm.ok("vzctl start 2152 && vzctl exec2 2152 true && vzctl stop 2152");
        assert!(tried.elapsed() < Duration::from_secs(60), "{days} days: {:?}", tried.elapsed());
        let last = vm.ok("vzctl history 2152 --json");
        let last: serde_json::Value = serde_json::from_str(&last).unwrap();
        let newest = last.as_array().unwrap().iter().map(|o| o["asked"].as_i64().unwrap() / 1000);
        let guest: i64 = vm.ok("date +%s").parse().unwrap();
        assert!(newest.clone().any(|at| (guest - at).abs() < 120), "{days} days: {newest:?} at {guest}");
        known.extend(["start".into(), "stop".into()]);
        vm.ok("systemctl restart vzd");
        same(&format!("{days} days and a restart of vzd"));
        assert!(vm.ok("vzctl status 2152").ends_with("down"), "a jump is no boot of the host");
        let mut now = history(&vm, 2152);
        now.sort();
        known.sort();
        assert_eq!(now, known, "{days} days: the history");
    }
    clock.ahead_by(0);
    same("the clock is right again");
    vm.ok("systemctl restart vzd");
    same("a restart of vzd with the right clock");
    assert_eq!(history(&vm, 2152).len(), known.len());
}
