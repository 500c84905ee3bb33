//! What is on record survives a reboot from inside, a kill of vzd, and the host's power cut.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::time::Duration;
use vz_tests::vm::{
    Vm,
    limits::{failcnt, figure, give_flood},
};

const SOON: Duration = Duration::from_secs(90);
/// Within this, docs/reference/beancounters.md says, what was counted is on disk.
const ON_DISK: u64 = 10;

#[test]
fn figures_and_events_survive_a_reboot_inside_a_kill_of_vzd_and_a_power_cut() {
    let vm = Vm::alone();
    let _clean = vm.clean_up(&[2618]);
    vm.ok("vzctl create 2618 --ostemplate tiny --ram 64M --swap 0 --numproc 50 --numtcpsock 4 && vzctl start 2618");
    give_flood(&vm, &[2618]);
    vm.ok("vzctl exec2 2618 '/flood tcp 9 0; /flood memory 200 20; i=0; while [ $i -lt 60 ]; do sleep 3 & i=$((i+1)); done' || true");
    let counters = ["physpages", "numtcpsock", "numproc", "oomguarpages"];
    let record = || counters.map(|c| (figure(&vm, 2618, c, "maxheld"), failcnt(&vm, 2618, c)));
    let before = record();
    assert!(before.iter().all(|(maxheld, failcnt)| *maxheld > 0 && *failcnt > 0), "{counters:?} {before:?}");
    let kept = |when: &str| {
        let now = record();
        for (n, counter) in counters.iter().enumerate() {
            assert!(
                now[n].0 >= before[n].0 && now[n].1 >= before[n].1,
                "{counter} after {when}: {:?}, was {:?}",
                now[n],
                before[n]
            );
        }
        let why = vm.ok("vzctl why 2618");
        for word in ["oom-kill", "fork-failed", "socket-refused", "`flood`"] {
            assert!(why.contains(word), "{word} after {when}: {why}");
        }
    };
    let boots = |vm: &Vm| vm.ok("grep -o '\"boots\":[0-9]*' /run/vz/ct/2618/state.json");
    let was = boots(&vm);
    // With all of numproc taken not even a reboot can be asked for.
    vm.until("vzctl exec2 2618 true", SOON);
    vm.sh("vzctl exec 2618 reboot");
    vm.until(&format!("! grep -q '{was},' /run/vz/ct/2618/state.json && vzctl exec2 2618 true"), SOON);
    kept("a reboot from inside");
    vm.ok("systemctl kill -s KILL --kill-whom=main vzd");
    vm.until("vzlist -H 2618", SOON);
    kept("a kill of vzd");
    // While vzd is away, what is refused is counted by the kernel, and told by the next vzd.
    let refused = failcnt(&vm, 2618, "numtcpsock");
    vm.ok("systemctl stop vzd; vzctl exec2 2618 '/flood tcp 9 0'; systemctl start vzd");
    assert!(failcnt(&vm, 2618, "numtcpsock") > refused);
    vm.ok(&format!("sleep {ON_DISK}"));
    vm.cut_power();
    vm.power_on();
    kept("a power cut");
    assert!(failcnt(&vm, 2618, "numtcpsock") > refused);
    vm.ok("vzctl status 2618 | grep -q running || vzctl start 2618");
    kept("a power cut and a start");
}
