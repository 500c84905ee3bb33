//! On the virtual test host: the Debian package's life with containers on the machine. Upgrading disturbs none, removing is
//! refused while some run, purging keeps them, installing again finds them, and the host goes down in order.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{path::PathBuf, time::Duration};
use vz_tests::{
    package,
    template::checkout,
    vm::{BOOT, Vm},
};

const SOON: Duration = Duration::from_secs(90);
/// dpkg in an emulated machine, with restarts of units.
const DPKG: Duration = Duration::from_secs(300);

/// The package with this version, where the guest sees it too: it has the checkout and its target directory.
fn packed(version: &str) -> String {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout().join("target"), PathBuf::from);
    let dir = std::path::absolute(target).unwrap().join("deb-vm");
    package::make(&dir, Some(version)).display().to_string()
}

/// What dpkg has installed.
fn version(vm: &Vm) -> String {
    vm.ok("dpkg-query -W -f '${Version}' vz")
}

/// Init, monitor and boots of a container: they change when it was restarted.
fn identity(vm: &Vm, ctid: u32) -> String {
    let record: serde_json::Value = serde_json::from_str(&vm.ok(&format!("cat /run/vz/ct/{ctid}/state.json"))).unwrap();
    format!("init {} monitor {} boots {}", record["init"], record["monitor"], record["boots"])
}

/// After the test the machine has the version it had, however the test went.
struct Restore<'a> {
    vm: &'a Vm,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        let file = "/root/vz-before.deb";
        let line = format!(
            "test ! -e {file} || {{ apt-get install -y --allow-downgrades --no-install-recommends {file}; systemctl start vzd vz; }}"
        );
        let _ = self.vm.sh_within(&line, DPKG);
    }
}

/// Keeps the package of the version that is there now, so that [`Restore`] can bring it back.
fn restoring(vm: &Vm) -> Restore<'_> {
    let file = packed(&version(vm));
    vm.ok(&format!("cp {file} /root/vz-before.deb"));
    Restore { vm }
}

#[test]
fn an_upgrade_disturbs_no_container() {
    let vm = Vm::alone();
    let ctids = [2201, 2202];
    let _clean = vm.clean_up(&ctids);
    let _restore = restoring(&vm);
    let newer = packed("9.0.1");
    vm.ok("vzctl create 2201 --ostemplate tiny --ipadd 10.99.22.1 && vzctl start 2201");
    vm.ok("vzctl create 2202 --ostemplate debian-13 --ipadd 10.99.22.2 && vzctl start 2202");
    vm.until("ping -c1 -W2 10.99.22.1", SOON);
    vm.ok("vzctl exec 2201 'busybox setsid busybox nc -l -p 7000 -e cat >/dev/null 2>&1 &'");
    vm.ok("vzctl exec 2201 'busybox setsid sh -c \"while sleep 0.1; do echo >>/root/ticks; done\" >/dev/null 2>&1 &'");
    vm.until("vzctl exec2 2201 'test -s /root/ticks'", SOON);
    let before: Vec<String> = ctids.iter().map(|c| identity(&vm, *c)).collect();
    let vzd = vm.ok("systemctl show -p MainPID --value vzd");
    let ticks = || -> u64 { vm.inside(2201, "wc -l </root/ticks").trim().parse().unwrap() };
    let ticked = ticks();

    // One connection, open from before the upgrade until after it.
    let talk = format!(
        "exec 3<>/dev/tcp/10.99.22.1/7000; echo before >&3; read -t 20 -u 3 a; \
         apt-get install -y --no-install-recommends {newer} >/root/upgrade.log 2>&1 || {{ cat /root/upgrade.log; exit 1; }}; \
         echo after >&3; read -t 20 -u 3 b; echo \"$a $b\""
    );
    let said = vm.sh_within(&format!("bash -c '{talk}'"), DPKG).ok();
    assert_eq!(said.text(), "before after", "the connection did not survive:\n{said}");

    assert_eq!(version(&vm), "9.0.1");
    assert_ne!(vm.ok("systemctl show -p MainPID --value vzd"), vzd, "the new vzd runs");
    for (ctid, before) in ctids.iter().zip(&before) {
        assert_eq!(&identity(&vm, *ctid), before, "CT {ctid} was disturbed");
    }
    assert!(ticks() > ticked, "its processes stood still");
    // The new programs and the old monitors.
    assert_eq!(vm.ok("vzlist -H -o ctid,status 2201 2202 | xargs"), "2201 running 2202 running");
    assert_eq!(vm.inside(2202, "echo hello"), "hello");
    vm.ok("vzctl set 2201 --hostname renamed --save");
    assert_eq!(vm.inside(2201, "hostname"), "renamed");
    vm.sh_with("vzctl enter 2202", b"echo sum=$((40+2)); exit\n", SOON).ok().says("sum=42");
    assert!(vm.ok("printf '' | vzctl console 2201").contains("tiny is up"));
    assert_eq!(vm.ok("systemctl is-active vzd vz | xargs"), "active active");
    assert_eq!(vm.ok("systemctl --failed --no-legend"), "");
    assert!(!vm.vzd_log(200).contains("ERROR"), "{}", vm.vzd_log(60));
    vm.ok("vzctl stop 2201 && vzctl start 2201");
    assert!(vm.ok("vzlist -H -o last_exit 2201").starts_with("powered off"));
}

#[test]
fn no_signal_to_the_services_ends_a_container_and_restarting_vz_restarts_those_that_ran() {
    let vm = Vm::alone();
    let ctids = [2211, 2212];
    let _clean = vm.clean_up(&ctids);
    vm.ok("vzctl create 2211 --ostemplate tiny && vzctl start 2211");
    vm.ok("vzctl create 2212 --ostemplate tiny");
    let before = identity(&vm, 2211);
    let cgroup = vm.ok("systemctl show -p ControlGroup --value vzd");
    let members = vm.ok(&format!("cat /sys/fs/cgroup{cgroup}/cgroup.procs"));
    assert_eq!(members, vm.ok("systemctl show -p MainPID --value vzd"), "the service holds nothing but vzd");
    // Every process of the service, not only its main one.
    vm.ok("systemctl kill -s KILL vzd");
    vm.until("vzlist -a", SOON);
    assert_eq!(identity(&vm, 2211), before);
    assert_eq!(vm.inside(2211, "echo hello"), "hello");
    vm.ok("systemctl daemon-reload && systemctl daemon-reexec");
    vm.ok("systemctl restart vzd");
    assert_eq!(identity(&vm, 2211), before);
    // The containers as one.
    vm.ok("systemctl restart vz");
    assert_ne!(identity(&vm, 2211), before);
    assert!(vm.ok("vzlist -H -o last_exit 2211").starts_with("powered off"), "gracefully");
    assert!(vm.ok("vzctl status 2212").ends_with("down"), "it did not run before");
    vm.ok("systemctl stop vz");
    assert!(vm.ok("vzctl status 2211").ends_with("down"));
    vm.ok("systemctl start vz");
    assert!(vm.ok("vzctl status 2211").ends_with("running"));
    // A vz.toml nobody can read: said once, not tried again, and nothing happens to containers.
    vm.ok("cp /etc/vz/vz.toml /root/vz.toml && echo 'nonsense = 1' >/etc/vz/vz.toml");
    vm.sh("systemctl restart vzd");
    let status = vm.sh("systemctl show -p ActiveState -p ExecMainStatus -p NRestarts vzd");
    vm.ok("cp /root/vz.toml /etc/vz/vz.toml && systemctl restart vzd");
    assert!(status.text().contains("ActiveState=failed") && status.text().contains("ExecMainStatus=85"), "{status}");
    assert!(vm.vzd_log(30).contains("nonsense"), "{}", vm.vzd_log(30));
    assert!(vm.ok("vzctl status 2211").ends_with("running"));
}

#[test]
fn removing_is_refused_while_containers_run_and_what_is_kept_is_found_again() {
    let vm = Vm::alone();
    let ctids = [2221];
    let _clean = vm.clean_up(&ctids);
    let _restore = restoring(&vm);
    let same = packed(&version(&vm));
    vm.ok("vzctl create 2221 --ostemplate tiny --ipadd 10.99.22.21 --name kept && vzctl start 2221");
    vm.inside(2221, "echo precious >/root/file && sync");
    let templates = vm.ok("vzctl template list --json");
    let before = identity(&vm, 2221);
    for verb in ["remove", "purge"] {
        let refused = vm.sh_within(&format!("apt-get {verb} -y vz 2>&1"), DPKG);
        assert!(refused.code() != 0 && refused.stdout.contains("containers run: 2221"), "{refused}");
        assert!(refused.stdout.contains("systemctl stop vz"), "it says what to do: {refused}");
        assert_eq!(identity(&vm, 2221), before);
        assert_eq!(vm.ok("systemctl is-active vzd vz | xargs"), "active active");
    }
    assert_eq!(vm.ok("dpkg-query -W -f '${db:Status-Status}' vz"), "installed");

    vm.ok("systemctl stop vz");
    vm.sh_within("apt-get remove -y vz 2>&1", DPKG).ok();
    assert_eq!(vm.sh("systemctl is-active vzd vz | xargs").text(), "inactive inactive");
    assert_eq!(vm.ok("pgrep -x 'vzd|vzmon' | wc -l"), "0");
    assert_eq!(vm.ok("nft list tables | grep -w vz || true; ls -d /sys/fs/cgroup/vz 2>/dev/null || true"), "");
    let purged = vm.sh_within("apt-get purge -y vz 2>&1", DPKG).ok();
    assert!(purged.stdout.contains("/var/lib/vz is kept"), "{purged}");
    vm.ok("test -e /var/lib/vz/private/2221 && test -e /etc/vz/conf/2221.toml && test ! -e /etc/vz/vz.toml");
    assert_eq!(vm.ok("systemctl list-unit-files --no-legend vz.service vzd.service || true"), "");

    vm.sh_within(&format!("apt-get install -y --no-install-recommends {same} 2>&1"), DPKG).ok();
    assert_eq!(
        vm.ok("systemctl is-active vzd vz | xargs; systemctl is-enabled vzd vz | xargs"),
        "active active\nenabled enabled"
    );
    assert!(vm.ok("vzctl status kept").ends_with("unmounted down"));
    assert_eq!(vm.ok("vzctl template list --json"), templates);
    vm.ok("vzctl start kept");
    assert_eq!(vm.inside(2221, "cat /root/file"), "precious");
    vm.until("ping -c1 -W2 10.99.22.21", SOON);
}

#[test]
fn the_host_goes_down_in_order_and_every_container_with_it() {
    let vm = Vm::alone();
    let ctids = [2231, 2232, 2233];
    let _clean = vm.clean_up(&ctids);
    for (ctid, template) in ctids.iter().zip(["debian-13", "tiny", "tiny"]) {
        vm.ok(&format!("vzctl create {ctid} --ostemplate {template} && vzctl start {ctid}"));
    }
    vm.ok("vzctl set 2231 --onboot yes --save");
    // What only an orderly end writes; its systemd has to answer before it can be told.
    vm.until("vzctl exec2 2231 'systemctl is-system-running' | grep -E 'running|degraded|starting'", BOOT);
    vm.inside(2231, "printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStop=/bin/sh -c \"date >/root/farewell; sync\"\\n' \
        >/etc/systemd/system/farewell.service && systemctl daemon-reload && systemctl start farewell");
    vm.ok("vzctl stop 2233");
    vm.reboot();
    for ctid in [2231, 2232] {
        let exit = vm.ok(&format!("vzlist -a -H -o last_exit {ctid}"));
        assert!(exit.starts_with("powered off"), "CT {ctid}: {exit}");
    }
    vm.until("vzctl status 2231 | grep running", BOOT);
    vm.inside(2231, "test -s /root/farewell");
    assert!(vm.ok("vzctl status 2232").ends_with("down"), "onboot was never asked for");
    let log = vm.ok("journalctl -q -b -1 -u vz -o cat --no-pager 2>/dev/null || true");
    assert!(
        log.is_empty() || (log.contains("Stopping CT 2231: done") && log.contains("Stopping CT 2232: done")),
        "{log}"
    );
    assert_eq!(vm.ok("systemctl --failed --no-legend"), "");
}
