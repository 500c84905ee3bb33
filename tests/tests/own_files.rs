//! Whose a container's own files are: what the operator sets is written once, when he sets it; what the tenant makes of it
//! afterwards stays, through reboots, starts, crashes and an upgrade of vzd.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{fs, time::Duration};
use vz_tests::{Rig, template::Template::Tiny, wait};
use vz_types::Ctid;

const BOOT: Duration = Duration::from_secs(30);
const OWN: &str = "nameserver 203.0.113.9\noptions rotate";

fn record_file(rig: &Rig) -> std::path::PathBuf {
    rig.paths.private(Ctid::try_from(101).unwrap()).join("written.json")
}

fn reboot(rig: &Rig) {
    let boots = rig.record(101).boots;
    rig.vzctl(&["exec2", "101", "reboot"]);
    rig.wait_record(101, BOOT, |r| r.boots == boots + 1);
    booted(rig);
}

fn booted(rig: &Rig) {
    let up = wait::retry(BOOT, Duration::from_millis(50), || {
        (rig.vzctl(&["exec2", "101", "test -s /run/booted-as"]).code() == 0).then_some(())
    });
    assert!(up.is_some(), "{}", rig.console_log(101));
}

fn created() -> Rig {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--hostname", "op.example.org", "--nameserver", "192.0.2.53"]);
    rig.ok(&["start", "101"]);
    booted(&rig);
    rig
}

/// As the operator has set it.
#[track_caller]
fn is_operators(rig: &Rig, name: &str, server: &str, when: &str) {
    let seen = rig.inside(101, "cat /etc/hostname; hostname; grep 127.0.1.1 /etc/hosts; grep -v '^#' /etc/resolv.conf");
    let short = name.split('.').next().unwrap();
    let hosts = if short == name { name.to_owned() } else { format!("{name} {short}") };
    assert_eq!(seen, format!("{name}\n{name}\n127.0.1.1 {hosts}\nnameserver {server}"), "{when}");
}

#[track_caller]
fn make_own(rig: &Rig) {
    rig.inside(
        101,
        &format!(
            "echo mine >/etc/hostname; hostname mine; printf '127.0.0.1 localhost\\n10.0.0.5 db\\n' >/etc/hosts; \
             printf '{}\\n' >/etc/resolv.conf",
            OWN.replace('\n', "\\n")
        ),
    );
}

/// As the tenant has made it in [`make_own`]; the running name is his from the first process of a boot on.
#[track_caller]
fn is_own(rig: &Rig, when: &str) {
    let seen = rig.inside(101, "cat /etc/hostname; hostname; cat /etc/hosts /etc/resolv.conf");
    assert_eq!(seen, format!("mine\nmine\n127.0.0.1 localhost\n10.0.0.5 db\n{OWN}"), "{when}");
    if when != "changed" {
        assert_eq!(rig.inside(101, "cat /run/booted-as"), "mine", "{when}");
    }
}

#[test]
fn a_hostname_and_resolv_conf_the_tenant_changed_himself_survive_every_reboot_and_start() {
    let rig = created();
    is_operators(&rig, "op.example.org", "192.0.2.53", "first start");
    make_own(&rig);
    is_own(&rig, "changed");
    reboot(&rig);
    is_own(&rig, "reboot inside");
    rig.ok(&["restart", "101"]);
    booted(&rig);
    is_own(&rig, "restart");
    rig.ok(&["stop", "101"]);
    rig.stop_vzd();
    rig.start_vzd(&[]);
    // Another setting, of whatever kind, is about none of these files.
    rig.ok(&["set", "101", "--onboot", "yes", "--description", "x", "--userpasswd", "root:secret-word", "--save"]);
    rig.ok(&["start", "101"]);
    booted(&rig);
    is_own(&rig, "stop, start, and a new vzd");
    rig.ok(&["set", "101", "--ipadd", "10.99.0.1", "--userpasswd", "root:other-word", "--save"]);
    is_own(&rig, "changed");

    // Each setting is written when it changes, and only its own files are.
    rig.ok(&["set", "101", "--hostname", "new", "--save"]);
    let seen = rig.inside(101, "cat /etc/hostname; hostname; cat /etc/hosts /etc/resolv.conf");
    assert_eq!(seen, format!("new\nnew\n127.0.0.1 localhost\n127.0.1.1 new\n10.0.0.5 db\n{OWN}"));
    rig.ok(&["set", "101", "--nameserver", "192.0.2.54", "--save"]);
    is_operators(&rig, "new", "192.0.2.54", "set");
    reboot(&rig);
    is_operators(&rig, "new", "192.0.2.54", "set, then a reboot");
    // While it is stopped: written by the next start, and left alone after that.
    rig.ok(&["stop", "101"]);
    rig.ok(&["set", "101", "--hostname", "newer", "--nameserver", "192.0.2.55", "--save"]);
    rig.ok(&["start", "101"]);
    booted(&rig);
    is_operators(&rig, "newer", "192.0.2.55", "set while stopped");
    make_own(&rig);
    rig.ok(&["restart", "101"]);
    booted(&rig);
    is_own(&rig, "restart again");

    // Asked for by name once more, the same value is written, running or stopped.
    rig.ok(&["set", "101", "--hostname", "newer", "--nameserver", "192.0.2.55", "--save"]);
    let seen = rig.inside(101, "cat /etc/hostname; hostname; grep -v '^#' /etc/resolv.conf");
    assert_eq!(seen, "newer\nnewer\nnameserver 192.0.2.55");
    make_own(&rig);
    rig.ok(&["stop", "101"]);
    rig.ok(&["set", "101", "--hostname", "newer", "--nameserver", "192.0.2.55", "--save"]);
    rig.ok(&["start", "101"]);
    booted(&rig);
    assert_eq!(rig.inside(101, "cat /etc/hostname; grep -v '^#' /etc/resolv.conf"), "newer\nnameserver 192.0.2.55");

    // What is not saved holds until the next start.
    rig.ok(&["set", "101", "--nameserver", "192.0.2.99"]);
    reboot(&rig);
    assert_eq!(rig.inside(101, "grep -v '^#' /etc/resolv.conf"), "nameserver 192.0.2.99");
    rig.ok(&["restart", "101"]);
    booted(&rig);
    assert_eq!(rig.inside(101, "grep -v '^#' /etc/resolv.conf"), "nameserver 192.0.2.55");

    // A link is the tenant's (of systemd-resolved, say); a file that is gone is nobody's.
    rig.inside(101, "ln -sf ../run/somebody/resolv.conf /etc/resolv.conf; rm /etc/hostname");
    rig.ok(&["restart", "101"]);
    booted(&rig);
    let seen = rig.inside(101, "readlink /etc/resolv.conf; cat /etc/hostname");
    assert_eq!(seen, "../run/somebody/resolv.conf\nnewer");
    rig.inside(101, "rm /etc/resolv.conf");
    reboot(&rig);
    assert_eq!(rig.inside(101, "grep -v '^#' /etc/resolv.conf"), "nameserver 192.0.2.55");
}

#[test]
fn a_crash_after_a_start_neither_loses_the_setting_nor_what_the_tenant_made_of_it() {
    let rig = created();
    let file = record_file(&rig);
    let kept = || fs::read_to_string(&file).is_ok_and(|t| t.contains("op.example.org")).then_some(());
    assert!(wait::in_dir(file.parent().unwrap(), BOOT, kept).unwrap().is_some(), "what was written is on record");
    make_own(&rig);
    rig.inside(101, "sync");
    let monitor = wait::Process::open(rig.record(101).monitor.pid as u32).unwrap();
    monitor.kill();
    rig.wait_stopped(101, BOOT);
    rig.kill_vzd();
    rig.start_vzd(&[]);
    rig.ok(&["start", "101"]);
    booted(&rig);
    is_own(&rig, "the monitor was killed");
    // Killed before anything is on record, the setting is written by the next start.
    rig.ok(&["stop", "101", "--fast"]);
    fs::remove_file(&file).unwrap();
    rig.ok(&["start", "101"]);
    booted(&rig);
    assert_eq!(
        rig.inside(101, "cat /etc/hostname; grep -v '^#' /etc/resolv.conf"),
        "op.example.org\nnameserver 192.0.2.53"
    );
    // A record that cannot be read is said, and nothing is guessed from it.
    make_own(&rig);
    rig.ok(&["stop", "101"]);
    fs::write(&file, "{\"hostname\":").unwrap();
    let out = rig.ok(&["start", "101"]);
    assert!(out.stderr.contains(&file.display().to_string()), "{out}");
    booted(&rig);
    is_own(&rig, "an unreadable record");
}

#[test]
fn inherit_copies_the_hosts_name_servers_and_never_over_a_file_of_the_tenants_own() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--nameserver", "inherit"]);
    rig.ok(&["start", "101"]);
    booted(&rig);
    let host = fs::read_to_string("/etc/resolv.conf").unwrap();
    let of = |text: &str| -> Vec<String> {
        let servers = text.lines().filter_map(|l| l.strip_prefix("nameserver ")).map(|s| s.trim().to_owned());
        servers.filter(|s| !s.starts_with("127.") && s != "::1").take(3).collect()
    };
    assert_eq!(of(&rig.inside(101, "cat /etc/resolv.conf")), of(&host));
    assert_eq!(rig.inside(101, "cat /etc/hostname"), "tiny", "a host name nobody has set is the template's");
    rig.inside(101, "echo 'nameserver 203.0.113.9' >/etc/resolv.conf; echo mine >/etc/hostname");
    for when in ["reboot", "restart"] {
        if when == "reboot" {
            reboot(&rig)
        } else {
            drop(rig.ok(&["restart", "101"]))
        }
        booted(&rig);
        let seen = rig.inside(101, "cat /etc/resolv.conf /etc/hostname");
        assert_eq!(seen, "nameserver 203.0.113.9\nmine", "{when}");
    }
}
