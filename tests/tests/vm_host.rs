//! On the virtual test host: it is what it should be, vz runs on it as a user installs it, and vzd's coming and going
//! disturbs no container.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::time::Duration;
use vz_tests::vm::{BOOT, Vm};

const SOON: Duration = Duration::from_secs(90);

#[test]
fn the_machine_is_a_debian_13_with_unified_cgroups_quotas_swap_and_criu() {
    let vm = Vm::shared();
    assert_eq!(vm.ok(". /etc/os-release; echo $ID $VERSION_ID"), "debian 13");
    assert_eq!(vm.ok("ps -o comm= -p 1"), "systemd");
    assert_eq!(vm.ok("stat -f -c %T /sys/fs/cgroup"), "cgroup2fs");
    let controllers = vm.ok("cat /sys/fs/cgroup/cgroup.controllers");
    for wanted in ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"] {
        assert!(controllers.split(' ').any(|c| c == wanted), "no controller {wanted}: {controllers}");
    }
    assert!(vm.ok("findmnt -no FSTYPE,OPTIONS /var/lib/vz").starts_with("ext4"));
    assert!(vm.ok("findmnt -no OPTIONS /var/lib/vz").contains("prjquota"));
    assert!(vm.ok("findmnt -no OPTIONS /mnt/xfs").contains("prjquota"));
    assert_eq!(vm.ok("findmnt -no FSTYPE /mnt/xfs"), "xfs");
    assert_eq!(vm.ok("findmnt -no FSTYPE /mnt/btrfs"), "btrfs");
    assert!(vm.ok("swapon --show=NAME --noheadings").starts_with("/dev/"));
    vm.ok("nft list ruleset");
    assert!(vm.ok("criu check").contains("Looks good"));
    assert_eq!(vm.ok("systemctl --failed --no-legend"), "");
}

#[test]
fn vzctl_check_finds_nothing_wanting() {
    let vm = Vm::shared();
    let out = vm.sh("vzctl check").ok();
    let bad: Vec<&str> = out.stdout.lines().skip(1).filter(|l| !l.contains(" ok ") && l.contains("  ")).collect();
    assert!(bad.is_empty(), "{out}");
    for line in ["controller memory", "controller io", "controller pids", "project quota", "cgroup2"] {
        assert!(out.stdout.contains(line), "{line} is not looked at:\n{out}");
    }
    assert!(out.stdout.contains("/sys/fs/cgroup (unified)"), "{out}");
    // Installed as a package, it is started at boot and stops containers at shutdown, or that is said.
    let link = "/etc/systemd/system/multi-user.target.wants/vz.service";
    vm.ok(&format!("mv {link} /run/vz.link && systemctl daemon-reload"));
    let wanting = vm.sh("vzctl check");
    vm.ok(&format!("mv /run/vz.link {link} && systemctl daemon-reload"));
    for (out, word) in [(out, "enabled, active"), (wanting, "not enabled")] {
        let row = out.stdout.lines().find(|l| l.starts_with("service") && l.contains(" vz.service "));
        assert!(row.is_some_and(|r| r.ends_with(word)), "{word}: {out}");
    }
}

#[test]
fn vzd_is_a_unit_of_systemd_from_the_package() {
    let vm = Vm::shared();
    assert_eq!(vm.ok("systemctl is-active vzd"), "active");
    assert_eq!(vm.ok("systemctl is-enabled vzd"), "enabled");
    assert_eq!(vm.ok("dpkg-query -W -f '${db:Status-Status}' vz"), "installed");
    assert!(vm.ok("dpkg-query -S /usr/sbin/vzd /usr/sbin/vzctl").contains("vz: /usr/sbin/vzd"));
    assert_eq!(vm.ok("cat /proc/sys/net/ipv4/ip_forward"), "1");
    assert_eq!(vm.ok("stat -c '%a %U' /run/vz /run/vz/ct /var/lib/vz/private"), "755 root\n700 root\n700 root");
}

/// Init and monitor of a container: they change when it was restarted.
fn identity(vm: &Vm, ctid: u32) -> String {
    let record: serde_json::Value = serde_json::from_str(&vm.ok(&format!("cat /run/vz/ct/{ctid}/state.json"))).unwrap();
    format!("init {} monitor {} boots {}", record["init"], record["monitor"], record["boots"])
}

#[test]
fn restarting_killing_and_stopping_vzd_leaves_containers_running() {
    let vm = Vm::alone();
    let ctids = [2101, 2102];
    let _clean = vm.clean_up(&ctids);
    vm.ok("vzctl create 2101 --ostemplate debian-13 --ipadd 10.99.21.1");
    vm.ok("vzctl create 2102 --ostemplate tiny --ipadd 10.99.21.2");
    vm.ok("vzctl start 2101 && vzctl start 2102");
    let before: Vec<String> = ctids.iter().map(|c| identity(&vm, *c)).collect();
    let same = |when: &str| {
        for (ctid, before) in ctids.iter().zip(&before) {
            assert_eq!(&identity(&vm, *ctid), before, "CT {ctid} after {when}");
            vm.inside(*ctid, "true");
            vm.until(&format!("ping -c1 -W2 10.99.21.{}", ctid - 2100), SOON);
        }
    };
    vm.ok("systemctl restart vzd");
    same("a restart of vzd");
    let old = vm.ok("systemctl show -p MainPID --value vzd");
    vm.ok("systemctl kill -s KILL --kill-whom=main vzd");
    vm.until(
        &format!("p=$(systemctl show -p MainPID --value vzd); test $p != 0 && test $p != {old} && vzlist -a"),
        SOON,
    );
    same("a crash of vzd");
    assert_eq!(vm.ok("systemctl is-active vzd"), "active", "systemd starts it again");
    vm.ok("systemctl stop vzd");
    same("a stop of vzd");
    vm.ok("systemctl start vzd");
    same("a new start of vzd");
    assert_eq!(vm.ok("vzlist -H -o ctid,status 2101 2102 | xargs"), "2101 running 2102 running");
    // What was there before vzd can be ended by the new one.
    vm.ok("vzctl stop 2101");
    vm.ok("vzctl stop 2102 --fast");
}

#[test]
fn containers_come_up_by_bootorder_when_the_machine_boots_and_others_stay_down() {
    let vm = Vm::alone();
    let ctids = [2111, 2112, 2113, 2114];
    let _clean = vm.clean_up(&ctids);
    for ctid in ctids {
        vm.ok(&format!("vzctl create {ctid} --ostemplate tiny --ipadd 10.99.21.{}", ctid - 2100));
        vm.ok(&format!("vzctl start {ctid} && vzctl exec2 {ctid} 'echo kept >/root/file' && sync"));
    }
    vm.ok("vzctl set 2111 --onboot yes --bootorder 5 --save");
    vm.ok("vzctl set 2112 --onboot yes --bootorder 20 --save");
    vm.ok("vzctl set 2113 --onboot no --save");
    vm.ok("vzctl set 2114 --onboot yes --bootorder 10 --save && vzctl stop 2114 --fast");
    vm.reboot();
    for ctid in [2112, 2114, 2111] {
        vm.until(&format!("vzctl status {ctid} | grep running"), BOOT);
        assert_eq!(vm.inside(ctid, "cat /root/file"), "kept");
        vm.until(&format!("ping -c1 -W2 10.99.21.{}", ctid - 2100), SOON);
    }
    assert!(vm.ok("vzctl status 2113").ends_with("down"), "onboot no");
    let begun = |ctid: u32| -> u64 {
        let pid = vm.ok(&format!(
            "vzlist -H -o pid {ctid} 2>/dev/null || grep -o '\"pid\":[0-9]*' /run/vz/ct/{ctid}/state.json | head -1"
        ));
        let pid: String = pid.chars().filter(char::is_ascii_digit).collect();
        let stat = vm.ok(&format!("cat /proc/{pid}/stat"));
        // proc_pid_stat(5): field 22, and the name before it may hold anything.
        stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap()
    };
    assert!(begun(2112) <= begun(2114) && begun(2114) <= begun(2111), "the higher bootorder starts first");
    vm.ok("vzctl start 2113");
    assert_eq!(vm.inside(2113, "cat /root/file"), "kept");
    // A restart of vzd is no boot of the machine.
    vm.ok("vzctl stop 2112 --fast && systemctl restart vzd");
    assert!(vm.ok("vzctl status 2112").ends_with("down"));
}

#[test]
fn a_power_cut_leaves_containers_that_start_with_consistent_files() {
    let vm = Vm::alone();
    let ctids = [2121, 2122, 2123];
    let _clean = vm.clean_up(&ctids);
    vm.ok("vzctl create 2121 --ostemplate debian-13 --ipadd 10.99.21.21");
    vm.ok("vzctl create 2122 --ostemplate tiny --ipadd 10.99.21.22");
    vm.ok("vzctl set 2121 --onboot yes --save && vzctl set 2122 --onboot yes --diskspace 200M --save");
    vm.ok("vzctl start 2121 && vzctl start 2122");
    vm.inside(2121, "seq 100000 >/root/synced && sync");
    let sum = vm.inside(2121, "md5sum </root/synced");
    // Busy in every way when the light goes out: files written inside, a container being made, one being changed.
    vm.ok("vzctl exec2 2122 'while :; do dd if=/dev/zero of=/f bs=64k count=100 2>/dev/null; rm /f; done' >/dev/null 2>&1 &");
    vm.ok("(while :; do vzctl create 2123 --ostemplate tiny; vzctl start 2123; vzctl stop 2123 --fast; vzctl destroy 2123; done) >/dev/null 2>&1 &");
    vm.until("test \"$(ls /var/lib/vz/private | wc -l)\" -ge 2 && ls /run/vz/ct/2123", SOON);
    vm.cut_power();
    vm.power_on();
    assert_eq!(vm.ok("systemctl --failed --no-legend"), "");
    vm.ok("vzlist -a 2121 2122");
    for ctid in [2121, 2122] {
        vm.until(&format!("vzctl status {ctid} | grep running"), BOOT);
        vm.until(&format!("ping -c1 -W2 10.99.21.{}", ctid - 2100), SOON);
    }
    assert_eq!(vm.inside(2121, "md5sum </root/synced"), sum);
    assert_eq!(vm.inside(2122, "df -k / | tail -1 | awk '{print $2}'"), "204800");
    let state = "s=$(vzctl exec2 2121 'systemctl is-system-running --wait; systemctl --failed --no-legend'); echo \"$s\"; test -n \"$s\"";
    assert_eq!(vm.until(state, SOON), "running");
    // The one it was in the middle of is either there, and good, or it is not.
    let status = vm.ok("vzctl status 2123");
    if status.contains(" exist") {
        vm.ok("vzctl start 2123; vzctl exec2 2123 true");
        vm.ok("vzctl stop 2123 --fast; vzctl destroy 2123");
    }
    vm.ok("vzctl create 2123 --ostemplate tiny && vzctl start 2123 && vzctl exec2 2123 true");
    // Nothing half-made is left, and the file system under it all is sound.
    assert_eq!(vm.ok("ls /var/lib/vz/trash"), "");
    assert!(!vm.ok("dmesg").contains("EXT4-fs error"), "{}", vm.ok("dmesg | grep EXT4"));
}
