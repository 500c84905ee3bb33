//! Root inside against its own limits: it cannot raise them, leave them, or switch them off.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use vz_tests::vm::{Vm, limits::give_flood};

#[test]
fn root_inside_cannot_raise_leave_or_switch_off_a_limit() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2602]);
    vm.ok("vzctl create 2602 --ostemplate tiny --ram 128M --swap 32M --physpages 96M:128M --numproc 60 --cpulimit 50 --cpumask 0 --iolimit 10M --numfile 500 --tcpsndbuf 100000 --shmpages 8M --numtcpsock 4 --lockedpages 64K --oomguarpages 16M".replace("--ram 128M ", "").as_str());
    vm.ok("vzctl start 2602");
    give_flood(&vm, &[2602]);
    // Everything that can be written at both levels, but for what only tells or asks, or is the container's own business
    // (/sys/kernel/cgroup/delegate).
    let all = "cd /sys/fs/cgroup/vz/2602; for f in $(find . -maxdepth 2 -type f -perm -200 ! -name 'cgroup.*' ! -name '*.pressure' ! -name '*.peak' ! -name memory.reclaim ! -name memory.oom.group | sort); do echo $f $(cat $f); done";
    let before = vm.ok(all);
    for file in [
        "./memory.max",
        "./memory.high",
        "./memory.swap.max",
        "./memory.min",
        "./pids.max",
        "./cpu.max",
        "./cpuset.cpus",
        "./io.max",
        "./ns/memory.max",
    ] {
        assert!(before.lines().any(|l| l.starts_with(&format!("{file} "))), "{file} is not looked at:\n{before}");
    }
    let inside = |line: &str| vm.sh(&format!("vzctl exec2 2602 {}", vz_tests::vm::link::quoted(line)));
    for line in [
        "for f in $(find /sys/fs/cgroup -maxdepth 1 -type f ! -name 'cgroup.*' ! -name '*.pressure' ! -name memory.reclaim ! -name memory.oom.group ! -name '*.peak'); do for v in max 0 1 100 99999999999 '8:0 rbps=max wbps=max' 'max 100000' 0-7; do echo $v >$f && echo RAISED $f $v; done; done",
        "for f in memory.max pids.max cpu.max; do echo max >/sys/fs/cgroup/../$f && echo RAISED $f; done",
        "mkdir -p /mnt/c; for c in memory pids cpu,cpuacct cpuset blkio devices freezer none,name=x; do mount -t cgroup -o $c none /mnt/c && echo RAISED v1 $c; done",
        "mount -t cgroup2 none /mnt/c; ls -d /mnt/c/vz /mnt/c/system.slice /mnt/c/ns && echo RAISED tree; echo max >/mnt/c/memory.max && echo RAISED memory; umount /mnt/c",
        "unshare -C sh -c 'mount -t cgroup2 none /mnt/c; echo max >/mnt/c/memory.max && echo RAISED memory; ls -d /mnt/c/vz && echo RAISED tree'",
        "for p in /.. /vz /vz/2602 /system.slice /init.scope; do echo $$ >/sys/fs/cgroup/../cgroup$p/cgroup.procs && echo RAISED out $p; done",
        "for d in /proc/1/root /proc/self/root /proc/1/cwd; do echo $$ >$d/sys/fs/cgroup/../../../../../sys/fs/cgroup/vz/cgroup.procs && echo RAISED out; done",
        "echo '-memory -pids -cpu -io -cpuset' >/sys/fs/cgroup/cgroup.subtree_control; ls /sys/fs/cgroup/memory.max >/dev/null || echo RAISED gone",
        "ulimit -n 100000 && echo RAISED nofile",
        "ulimit -l unlimited && echo RAISED memlock",
        "[ $(/flood tcp 50 0 | cut -d' ' -f1) -gt 4 ] && echo RAISED sockets",
        "echo '4096 16384 9999999' >/proc/sys/net/ipv4/tcp_wmem && echo RAISED tcp_wmem",
        "echo 999999 >/proc/sys/kernel/shmall && echo RAISED shmall",
        "echo 99999999 >/proc/sys/kernel/pid_max && echo RAISED pid_max",
        "mount -o remount,size=1G /dev/shm && echo RAISED shm size; true",
    ] {
        let out = inside(line);
        let raised = out.stdout.lines().any(|l| l.starts_with("RAISED") && l != "RAISED shm size");
        assert!(!raised, "{line}: {out}");
    }
    assert_eq!(vm.ok(all), before, "what was set holds");
    assert!(vm.ok("vzctl exec2 2602 cat /proc/sys/net/ipv4/tcp_wmem").ends_with("100000"));
    // Its processes are where they were.
    assert_eq!(vm.ok("cd /sys/fs/cgroup/vz/2602; cat cgroup.procs | wc -l"), "0");
    let init = vm.ok("vzlist -H -o pid 2602 2>/dev/null || grep -o '\"init\":{\"pid\":[0-9]*' /run/vz/ct/2602/state.json | grep -o '[0-9]*$'");
    assert!(vm.ok(&format!("cat /proc/{init}/cgroup")).starts_with("0::/vz/2602/ns"));
    // And so they are in force: above the barrier memory only comes slowly, and never more than the limit.
    let out = inside("timeout 10 /flood memory 300 5");
    assert_ne!(out.code(), 0, "it got all of it: {out}");
    let most: u64 = vm.ok("cat /sys/fs/cgroup/vz/2602/memory.peak").parse().unwrap();
    assert!(most <= 128 << 20, "{most}");
}
