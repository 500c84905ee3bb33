//! Limits on a host that can enforce them all: what is set is in the kernel, live and after a restart, and what cannot be
//! is refused.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use vz_tests::vm::{
    Vm,
    limits::{bean, cgroup, give_flood},
};

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
    // Inside it is read where programs look for it, and by what they may do.
    let inside = |want: &[&str]| {
        let read = "cd /sys/fs/cgroup; cat memory.max memory.swap.max pids.max cpu.max; nproc; ulimit -H -n";
        assert_eq!(vm.inside(2601, read).lines().collect::<Vec<_>>(), want);
    };
    inside(&["134217728", "67108864", "60", "50000 100000", "1", "2000"]);
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
    inside(&["100663296", "67108864", "50", "150000 100000", "2", "2000"]);
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
    inside(&["max", "max", "max", "max 100000", "2", "2000"]);
    vm.ok("vzctl restart 2601 --fast");
    for (file, want) in rows {
        assert_eq!(cgroup(&vm, 2601, file), *want, "{file} after a restart");
    }
    inside(&["134217728", "67108864", "60", "50000 100000", "1", "2000"]);
}

#[test]
fn a_limit_below_what_is_in_use_is_refused_with_the_figure() {
    let vm = Vm::shared();
    let _clean = vm.clean_up(&[2612]);
    vm.ok("vzctl create 2612 --ostemplate tiny --ram 64M --swap 64M --numproc 60 --numtcpsock 20 && vzctl start 2612");
    give_flood(&vm, &[2612]);
    vm.ok("vzctl exec2 2612 '/flood memory 80 6; /flood hold 80 600 >/held 2>&1 </dev/null & /flood tcp 10 600 >/dev/null 2>&1 </dev/null & until grep -q held /held; do sleep 1; done'");
    vm.ok("vzctl exec2 2612 'for i in 1 2 3 4 5 6 7 8; do sleep 600 & done >/dev/null 2>&1 </dev/null'");
    vm.until("[ $(cat /sys/fs/cgroup/vz/2612/memory.swap.current) -gt 9000000 ]", std::time::Duration::from_secs(60));
    let files = ["memory.max", "memory.high", "memory.swap.max", "pids.max"];
    let state = || {
        let kernel: Vec<String> = files.iter().map(|f| cgroup(&vm, 2612, f)).collect();
        (
            kernel,
            vm.ok("cat /etc/vz/conf/2612.toml; vzctl exec2 2612 grep -c . /held"),
            bean(&vm, 2612, "numtcpsock")["limit"].clone(),
        )
    };
    let before = state();
    for (option, counter, figure) in [
        ("--ram 20M --swap 64M", "physpages", "M"),
        ("--swap 8M", "swappages", "M of swap space"),
        ("--numproc 8", "numproc", "processes and threads"),
        ("--numtcpsock 8", "numtcpsock", "10 sockets"),
    ] {
        for save in ["", "--save"] {
            let out = vm.sh(&format!("vzctl set 2612 {option} {save}"));
            assert!(out.code() == 21 && out.stderr.contains("in use"), "{option}: {out}");
            assert!(out.stderr.contains(counter) && out.stderr.contains(figure), "{option}: {out}");
        }
    }
    assert_eq!(state(), before, "nothing changed, live or saved");
}

#[test]
fn a_guarantee_is_not_oversold() {
    let vm = Vm::alone();
    let _clean = vm.clean_up(&[2610, 2611]);
    vm.ok("vzctl create 2610 --ostemplate tiny --oomguarpages 2G && vzctl start 2610");
    vm.ok("vzctl create 2611 --ostemplate tiny --oomguarpages 2G");
    let out = vm.sh("vzctl start 2611");
    assert!(out.code() == 6 && out.stderr.contains("oomguarpages") && out.stderr.contains("2G"), "{out}");
    assert!(vm.ok("vzctl status 2611").ends_with("down"));
    vm.ok("vzctl set 2611 --oomguarpages 16M --save && vzctl start 2611");
    assert_eq!(vm.ok("cat /sys/fs/cgroup/vz/memory.min"), (2u64 << 30).saturating_add(16 << 20).to_string());
}
