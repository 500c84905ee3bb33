//! How fast a container may be: processor time is shared and capped, disks are as fast as they may be. Each test has the
//! machine to itself, for its figures are figures of time.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::time::Duration;
use vz_tests::vm::Vm;

/// Processor time a container used in these seconds, in percent of one CPU.
fn cpu_percent(vm: &Vm, ctids: &[u32], seconds: u32) -> Vec<f64> {
    let read = ctids
        .iter()
        .map(|c| format!("awk '/^usage_usec/ {{print $2}}' /sys/fs/cgroup/vz/{c}/cpu.stat"))
        .collect::<Vec<_>>()
        .join("; ");
    let out = vm.ok(&format!("date +%s%N; {read}; sleep {seconds}; date +%s%N; {read}"));
    let n: Vec<f64> = out.lines().map(|l| l.parse().unwrap()).collect();
    let half = n.len() / 2;
    let wall = (n[half] - n[0]) / 1000.0;
    (1..half).map(|i| (n[half + i] - n[i]) * 100.0 / wall).collect()
}

#[test]
fn processor_time_is_shared_and_capped_as_said() {
    let vm = Vm::alone();
    let _clean = vm.clean_up(&[2606, 2607]);
    vm.ok("vzctl create 2606 --ostemplate tiny --cpuunits 1000 --cpumask 0 && vzctl start 2606");
    vm.ok("vzctl create 2607 --ostemplate tiny --cpuunits 3000 --cpumask 0 && vzctl start 2607");
    for ct in [2606, 2607] {
        vm.ok(&format!("vzctl exec2 {ct} 'while :; do :; done >/dev/null 2>&1 &'"));
    }
    let got = cpu_percent(&vm, &[2606, 2607], 20);
    let ratio = got[1] / got[0];
    assert!((2.7..=3.3).contains(&ratio), "1:3 is 1:{ratio:.2} ({got:?})");
    vm.ok("vzctl stop 2607 --fast");
    vm.ok("vzctl set 2606 --cpulimit 50");
    let got = cpu_percent(&vm, &[2606], 20)[0];
    assert!((47.5..=52.5).contains(&got), "cpulimit 50 is {got:.1} percent");
    vm.ok("sleep 6; true");
    assert!(vm.ok("vzctl why 2606").contains("throttled"));
}

#[test]
fn the_disk_is_as_fast_as_iolimit_says() {
    let vm = Vm::alone();
    let _clean = vm.clean_up(&[2609]);
    vm.ok("vzctl create 2609 --ostemplate debian-12 --iolimit 4M --diskspace 2G && vzctl start 2609");
    let out = vm.sh_within(
        "vzctl exec2 2609 'a=$(date +%s%N); dd if=/dev/zero of=/x bs=256k count=160 oflag=direct 2>/dev/null; b=$(date +%s%N); echo $((b-a))'",
        Duration::from_secs(180),
    );
    let seconds = out.ok().text().parse::<f64>().unwrap() / 1e9;
    let rate = 40.0 / seconds;
    assert!((3.6..=4.4).contains(&rate), "{rate:.2} MB/s instead of 4");
}
