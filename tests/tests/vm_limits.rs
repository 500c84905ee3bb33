//! Limits on a host that can enforce them all, proved from inside containers that do their worst.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::time::Duration;
use vz_tests::vm::Vm;

const SOON: Duration = Duration::from_secs(90);

/// A counter of a container as vzubc tells it.
fn bean(vm: &Vm, ctid: u32, name: &str) -> serde_json::Value {
    let all: serde_json::Value = serde_json::from_str(&vm.ok(&format!("vzubc -j {ctid}"))).unwrap();
    all[0]["beancounters"].as_array().unwrap().iter().find(|b| b["name"] == name).cloned().unwrap()
}

fn failcnt(vm: &Vm, ctid: u32, name: &str) -> u64 {
    bean(vm, ctid, name)["failcnt"].as_u64().unwrap()
}

/// A file of a container's cgroup, our level.
fn cgroup(vm: &Vm, ctid: u32, file: &str) -> String {
    vm.ok(&format!("cat /sys/fs/cgroup/vz/{ctid}/{file}"))
}

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
fn every_limit_is_set_read_changed_and_unset_in_the_kernel() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2601]);
    vm.ok(
        "vzctl create 2601 --ostemplate tiny --ram 128M --swap 64M --numproc 60 --oomguarpages 16M --vmguarpages 32M \
           --cpuunits 3000 --cpulimit 50 --cpumask 0 --iolimit 10M --iopslimit 500 --numfile 2000",
    );
    vm.ok("vzctl start 2601");
    let rows: &[(&str, &str)] = &[
        ("memory.max", "134217728"),
        ("memory.high", "max"),
        ("memory.swap.max", "67108864"),
        ("memory.min", "16777216"),
        ("memory.low", "33554432"),
        ("pids.max", "60"),
        ("cpu.weight", "300"),
        ("cpu.max", "50000 100000"),
        ("cpuset.cpus", "0"),
    ];
    for (file, want) in rows {
        assert_eq!(cgroup(&vm, 2601, file), *want, "{file}");
    }
    let io = cgroup(&vm, 2601, "io.max");
    assert!(
        io.lines().count() >= 1 && io.lines().all(|l| l.ends_with("rbps=10485760 wbps=10485760 riops=500 wiops=500")),
        "{io}"
    );
    for name in ["physpages", "swappages", "numproc"] {
        assert_eq!(bean(&vm, 2601, name)["class"], "enforced", "{name}");
    }
    assert_eq!(bean(&vm, 2601, "oomguarpages")["class"], "guaranteed");
    // Live, not saved; then as saved again after a restart.
    vm.ok("vzctl set 2601 --physpages 64M:96M --numproc 50 --cpulimit 150 --cpumask all --iolimit 0 --iopslimit 0");
    for (file, want) in [
        ("memory.max", "100663296"),
        ("memory.high", "67108864"),
        ("pids.max", "50"),
        ("cpu.max", "150000 100000"),
        // A group with processes takes no empty mask: all of them it is.
        ("cpuset.cpus", "0-1"),
    ] {
        assert_eq!(cgroup(&vm, 2601, file), want, "{file}");
    }
    assert!(!cgroup(&vm, 2601, "io.max").contains("rbps=1"));
    vm.ok("vzctl set 2601 --ram unlimited --swap unlimited --numproc unlimited --oomguarpages 0 --vmguarpages 0 --cpuunits 1000 --cpulimit 0");
    for (file, want) in [
        ("memory.max", "max"),
        ("memory.swap.max", "max"),
        ("pids.max", "max"),
        ("memory.min", "0"),
        ("memory.low", "0"),
        ("cpu.weight", "100"),
        ("cpu.max", "max 100000"),
    ] {
        assert_eq!(cgroup(&vm, 2601, file), want, "{file}");
    }
    vm.ok("vzctl restart 2601 --fast");
    for (file, want) in rows {
        assert_eq!(cgroup(&vm, 2601, file), *want, "{file} after a restart");
    }
}

#[test]
fn root_inside_cannot_raise_leave_or_switch_off_a_limit() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2602]);
    vm.ok("vzctl create 2602 --ostemplate tiny --ram 128M --numproc 60 --cpulimit 50 --numfile 500 --tcpsndbuf 100000 --shmpages 8M");
    vm.ok("vzctl start 2602");
    let files =
        "memory.max memory.high memory.swap.max memory.min memory.low pids.max cpu.max cpu.weight cpuset.cpus io.max";
    let state = |vm: &Vm| {
        vm.ok(&format!("cd /sys/fs/cgroup/vz/2602; for f in {files}; do echo $f $(cat $f) $(cat ns/$f); done; cat /sys/fs/cgroup/vz/2602/ns/cgroup.procs | wc -l"))
    };
    let before = state(&vm);
    for line in [
        "for f in memory.max pids.max cpu.max memory.swap.max memory.high; do echo max > /sys/fs/cgroup/$f && echo RAISED $f; done",
        "for f in memory.max pids.max cpu.max; do echo max > /sys/fs/cgroup/../$f && echo RAISED $f; done",
        "mkdir -p /mnt/c; mount -t cgroup none /mnt/c -o memory && echo RAISED v1",
        "mount -t cgroup2 none /mnt/c && for p in /mnt/c/../cgroup.procs /mnt/c/cgroup.procs; do :; done; ls /mnt/c/vz && echo RAISED tree",
        "echo '-memory -pids' > /sys/fs/cgroup/cgroup.subtree_control; cat /sys/fs/cgroup/memory.max 2>/dev/null",
        "ulimit -n 100000 && echo RAISED nofile",
        "echo '4096 16384 9999999' > /proc/sys/net/ipv4/tcp_wmem && echo RAISED tcp_wmem",
        "echo 999999 > /proc/sys/kernel/shmall && echo RAISED shmall",
    ] {
        let out = vm.sh(&format!("vzctl exec2 2602 '{}'", line.replace('\'', "'\\''")));
        assert!(!out.stdout.contains("RAISED"), "{line}: {out}");
    }
    assert_eq!(state(&vm), before);
    assert!(vm.ok("vzctl exec2 2602 cat /proc/sys/net/ipv4/tcp_wmem").ends_with("100000"));
}

#[test]
fn a_memory_hog_dies_inside_at_the_limit_and_the_neighbour_goes_on() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2603, 2604]);
    vm.ok("vzctl create 2603 --ostemplate tiny --ram 64M --swap 16M && vzctl start 2603");
    vm.ok("vzctl create 2604 --ostemplate tiny --ram 64M && vzctl start 2604");
    vm.ok("vzctl exec2 2604 'i=0; while [ $i -lt 30 ]; do /bin/true; date +%s >> /beat; sync; i=$((i+1)); sleep 1; done >/dev/null 2>&1 &'");
    // tail keeps everything it reads.
    let out = vm.sh_within("vzctl exec2 2603 'head -c 300000000 /dev/zero | tail > /dev/null'", SOON);
    assert_ne!(out.code(), 0, "the hog got 300 MB of 64: {out}");
    assert!(vm.ok("vzctl status 2603").ends_with("running"), "the container itself lives");
    assert!(failcnt(&vm, 2603, "physpages") > 0);
    let why = vm.ok("vzctl why 2603");
    assert!(why.contains("oom-kill") && why.contains("tail") && why.contains("64M"), "{why}");
    let events = vm.ok("vzctl events 2603 --json");
    assert!(events.contains("\"kind\":\"oom-kill\"") && events.contains("physpages"), "{events}");
    assert!(vm.sh_within("vzlist -H", Duration::from_secs(20)).code() == 0);
    vm.until("[ $(vzctl exec2 2604 'wc -l < /beat') -ge 20 ]", SOON);
    let beats = vm.ok("vzctl exec2 2604 cat /beat");
    let times: Vec<i64> = beats.lines().map(|l| l.trim().parse().unwrap()).collect();
    let worst = times.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
    // The guest is emulated: a beat of one second with some room, where the neighbour's thrashing would take many.
    assert!(worst <= 4, "the neighbour stood still for {worst} s: {times:?}");
    assert_eq!(failcnt(&vm, 2604, "physpages"), 0);
    // Kept over a restart of the container and of vzd.
    let kept = failcnt(&vm, 2603, "physpages");
    vm.ok("vzctl restart 2603 --fast");
    assert!(failcnt(&vm, 2603, "physpages") >= kept);
    vm.ok("vzctl set 2603 --reset_ub");
    assert_eq!(failcnt(&vm, 2603, "physpages"), 0);
    // Shrinking below the use.
    vm.ok("vzctl exec2 2603 'dd if=/dev/zero of=/dev/shm/x bs=1M count=30 2>/dev/null'");
    vm.ok("vzctl set 2603 --swap 0");
    let out = vm.sh("vzctl set 2603 --ram 20M");
    assert!(out.code() == 21 && out.stderr.contains("in use") && out.stderr.contains("physpages"), "{out}");
    assert_eq!(cgroup(&vm, 2603, "memory.max"), "67108864");
}

#[test]
fn a_fork_bomb_stops_at_numproc_and_is_stopped_fast() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2605]);
    vm.ok("vzctl create 2605 --ostemplate tiny --ram 128M --numproc 100 && vzctl start 2605");
    vm.ok("vzctl exec2 2605 'b() { b | b & b; }; b >/dev/null 2>&1 &' || true");
    vm.until("[ $(cat /sys/fs/cgroup/vz/2605/pids.events | cut -d\" \" -f2) -gt 0 ]", SOON);
    let held: u64 = cgroup(&vm, 2605, "pids.current").parse().unwrap();
    assert!(held <= 100, "{held}");
    assert!(failcnt(&vm, 2605, "numproc") > 0);
    assert!(vm.ok("vzctl why 2605").contains("fork-failed"));
    let stopped = vm.sh_within("vzctl stop 2605 --fast", Duration::from_secs(30));
    assert_eq!(stopped.code(), 0, "{stopped}");
    assert!(failcnt(&vm, 2605, "numproc") > 0, "kept after the stop");
}

#[test]
fn processor_time_is_shared_and_capped_as_said() {
    let vm = Vm::shared();
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
fn sockets_terminals_locked_memory_and_descriptors_hit_their_class() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2608]);
    vm.ok("vzctl create 2608 --ostemplate tiny --numtcpsock 5 --numothersock 100 --numfile 100 --lockedpages 64K && vzctl start 2608");
    assert_eq!(bean(&vm, 2608, "numtcpsock")["class"], "enforced");
    let held = bean(&vm, 2608, "numtcpsock")["held"].as_u64().unwrap();
    vm.ok("vzctl exec2 2608 'i=0; while [ $i -lt 9 ]; do nc -l -p $((3000+i)) >/dev/null 2>&1 & i=$((i+1)); done; sleep 1' || true");
    assert_eq!(bean(&vm, 2608, "numtcpsock")["held"], 5, "it held {held} before");
    assert!(failcnt(&vm, 2608, "numtcpsock") >= 4);
    assert!(vm.ok("vzctl why 2608").contains("socket-refused"));
    assert_eq!(vm.ok("vzctl exec2 2608 'ulimit -H -n; ulimit -H -l'"), "100\n64");
    vm.ok("vzctl exec2 2608 'killall nc; sleep 1' || true");
    vm.until("vzubc 2608 | grep -qE 'numtcpsock\\| +0 '", SOON);
}

#[test]
fn the_disk_is_as_fast_as_iolimit_says() {
    let vm = Vm::shared();
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

#[test]
fn a_guarantee_is_not_oversold() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2610, 2611]);
    vm.ok("vzctl create 2610 --ostemplate tiny --oomguarpages 2G && vzctl start 2610");
    vm.ok("vzctl create 2611 --ostemplate tiny --oomguarpages 2G");
    let out = vm.sh("vzctl start 2611");
    assert!(out.code() == 6 && out.stderr.contains("oomguarpages") && out.stderr.contains("2G"), "{out}");
    assert!(vm.ok("vzctl status 2611").ends_with("down"));
    vm.ok("vzctl set 2611 --oomguarpages 16M --save && vzctl start 2611");
    assert_eq!(vm.ok("cat /sys/fs/cgroup/vz/memory.min"), (2u64 << 30).saturating_add(16 << 20).to_string());
}
