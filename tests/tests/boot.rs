//! The boot contract's acceptance, for every template that is shipped: each test once per Debian.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use expectrl::Expect;
use std::time::{Duration, Instant};
use vz_tests::{
    Rig,
    proxy::Proxy,
    ssh::Identity,
    template::Template::{self, Debian12, Debian13},
};

const A: &str = "10.99.0.1";
const A6: &str = "fd99::1";
const BOOT: Duration = Duration::from_secs(90);
const PASSWORD: &str = "correct-horse-9";

/// Makes each acceptance test one test per shipped template.
macro_rules! for_every_template {
    ($($name:ident),+ $(,)?) => {
        mod debian_12 {
            $(#[test] fn $name() { super::$name(super::Debian12); })+
        }
        mod debian_13 {
            $(#[test] fn $name() { super::$name(super::Debian13); })+
        }
    };
}

for_every_template!(
    boots_with_no_failed_unit_and_a_login_prompt,
    lets_in_by_key_and_by_password_and_sudo_works,
    reboots_as_the_same_machine_and_powers_off_for_good,
    stops_gracefully_within_ten_seconds,
    gives_every_clone_an_identity_of_its_own,
    installs_services_that_run_and_keeps_cron_and_journal,
);

/// CT 101 from the template, with a key for root, booted to its default runlevel.
fn booted(template: Template, options: &[&str]) -> (Rig, Identity) {
    let rig = Rig::new(&[template]);
    let identity = Identity::new(&rig.paths.base);
    let mut all = vec!["--ipadd", A, "--ipadd", A6, "--hostname", "web.example.org"];
    all.extend(options);
    rig.create(101, template, &all);
    let key = identity.public().display().to_string();
    rig.ok(&["set", "101", "--sshkey", &key, "--userpasswd", &format!("root:{PASSWORD}")]);
    rig.ok(&["start", "101", "--wait"]);
    (rig, identity)
}

fn boots_with_no_failed_unit_and_a_login_prompt(template: Template) {
    let (rig, _) = booted(template, &[]);
    assert_eq!(rig.inside(101, "cat /proc/1/comm"), "systemd");
    let failed = rig.inside(101, "systemctl --failed --plain --no-legend");
    assert_eq!(failed, "", "failed units\n{}", rig.inside(101, "journalctl -b -p warning --no-pager | tail -40"));
    assert_eq!(rig.inside(101, "systemctl is-system-running"), "running");
    let target = rig.inside(101, "systemctl get-default; systemctl is-active multi-user.target");
    assert!(target.ends_with("active"), "{target}");
    rig.wait_console(101, "web login:", BOOT);
    // What a machine looks like from inside.
    assert_eq!(rig.inside(101, "hostname -f; cat /etc/hostname"), "web.example.org\nweb.example.org");
    // systemd knows that it is in a container, and that it is none of those it has a name for.
    assert_eq!(rig.inside(101, "systemd-detect-virt -c; cat /run/host/container-manager"), "container-other\nvz");
    assert_eq!(rig.inside(101, "stat -c %a /tmp /run /root"), "1777\n755\n700");
    assert!(rig.inside(101, "ls /dev").split_whitespace().all(|n| n != "kmsg" && n != "mem" && n != "tty1"));
    let sys = rig.inside(101, "grep ' /sys ' /proc/mounts");
    assert!(sys.split(' ').nth(3).unwrap_or_default().split(',').any(|o| o == "ro"), "{sys}");
    let environment = rig.inside(101, "tr '\\0' '\\n' </proc/1/environ | cut -d= -f1 | sort | tr '\\n' ' '");
    let known = ["container", "container_uuid", "TERM", "PATH", "HOME", "SHLVL", "NOTIFY_SOCKET"];
    assert!(environment.split_whitespace().all(|v| known.contains(&v)), "{environment}");
    assert_eq!(rig.inside(101, "cat /proc/1/oom_score_adj"), "0");
    // Its uptime is its own, for init and for what the operator runs.
    let up = |line: &str| rig.inside(101, line).parse::<u64>().unwrap();
    let host: f64 = std::fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    let (since_boot, of_init) = (up("cut -d. -f1 /proc/uptime"), up("ps -o etimes= -p 1"));
    assert!(
        since_boot < 90 && (since_boot as f64) < host && since_boot.abs_diff(of_init) < 3,
        "{since_boot} {of_init}"
    );
    // An operator logs in on the console.
    let mut console = expectrl::Session::spawn(rig.vzctl_command(&["console", "101"])).unwrap();
    console.set_expect_timeout(Some(Duration::from_secs(30)));
    console.send_line("").unwrap();
    console.expect("login:").unwrap();
    console.send_line("root").unwrap();
    console.expect("assword:").unwrap();
    console.send_line(PASSWORD).unwrap();
    console.expect("root@web").unwrap();
    console.send_line("echo on-console=$((40+2)) $(tty)").unwrap();
    console.expect("on-console=42 /dev/console").unwrap();
    console.send_line("exit").unwrap();
    console.expect("login:").unwrap();
    console.send("\x1b.").unwrap();
}

fn lets_in_by_key_and_by_password_and_sudo_works(template: Template) {
    let (rig, identity) = booted(template, &[]);
    rig.ok(&["set", "101", "--userpasswd", &format!("anna:{PASSWORD}")]);
    let out = identity.run(&rig.host, "root", A, "hostname; id -u").ok();
    assert_eq!(out.text(), "web.example.org\n0");
    identity.run(&rig.host, "root", A6, "true").ok();
    let out = identity.run_with_password(&rig.host, "anna", PASSWORD, A, "id -un; pwd").ok();
    assert!(out.text().starts_with("anna\n/home/anna"), "{out}");
    identity.run_with_password(&rig.host, "root", PASSWORD, A, "true").ok();
    let wrong = identity.run_with_password(&rig.host, "anna", "wrong", A, "true");
    assert_ne!(wrong.code(), 0, "{wrong}");
    rig.inside(101, "usermod -aG sudo anna");
    let out = identity
        .run_with_password(&rig.host, "anna", PASSWORD, A, &format!("echo {PASSWORD} | sudo -S -p '' id -u"))
        .ok();
    assert_eq!(out.text(), "0");
    // A terminal of its own, for those who type.
    let mut ssh = rig.host.command("ssh");
    ssh.arg("-tt").args(identity.options("publickey")).arg(format!("root@{A}")).arg("tty; stty size");
    let out = vz_tests::command::run(&mut ssh, None, Duration::from_secs(30)).unwrap().ok();
    assert!(out.stdout.contains("/dev/pts/"), "{out}");
    // The password changes, at once.
    rig.ok(&["set", "101", "--userpasswd", "anna:another-word-7"]);
    identity.run_with_password(&rig.host, "anna", "another-word-7", A, "true").ok();
    assert_ne!(identity.run_with_password(&rig.host, "anna", PASSWORD, A, "true").code(), 0);
}

fn reboots_as_the_same_machine_and_powers_off_for_good(template: Template) {
    let (rig, identity) = booted(template, &[]);
    let facts = "cat /etc/machine-id; cat /etc/ssh/ssh_host_ed25519_key.pub; ip -o addr show venet0 | awk '{print $4}'";
    let (same, boot_id) = (rig.inside(101, facts), "cat /proc/sys/kernel/random/boot_id");
    let first = rig.inside(101, boot_id);
    let host = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_ne!(first, host.trim(), "the CT's boot has an id of its own");
    let before = rig.record(101);
    let begun = Instant::now();
    // The connection may end before the answer does.
    identity.run(&rig.host, "root", A, "systemctl reboot");
    let after = rig.wait_record(101, BOOT, |r| r.boots == 2);
    assert_ne!(before.init, after.init);
    assert_eq!((before.monitor, before.uid_base, &before.addresses), (after.monitor, after.uid_base, &after.addresses));
    rig.inside(101, "timeout 60 sh -c 'until [ -S /run/systemd/private ]; do sleep 0.05; done; until systemctl is-system-running --wait; do sleep 0.05; done'");
    assert_eq!(rig.inside(101, facts), same);
    assert_ne!(rig.inside(101, boot_id), first, "a new boot id");
    let up: f64 = rig.inside(101, "cut -d' ' -f1 /proc/uptime").parse().unwrap();
    assert!(up < begun.elapsed().as_secs_f64(), "uptime begins anew: {up} s");
    assert_eq!(rig.inside(101, "systemctl --failed --plain --no-legend"), "");
    identity.run(&rig.host, "root", A, "true").ok();
    let ct = rig.vzlist(&["-j"]).ok().json();
    assert_eq!(ct[0]["ctid"], 101);
    identity.run(&rig.host, "root", A, "systemctl poweroff");
    rig.wait_stopped(101, BOOT);
    rig.stop_vzd();
    rig.start_vzd(&[]);
    assert_eq!(rig.status(101), "exist unmounted down", "it stays stopped");
    assert!(rig.census().of("mount").is_empty(), "{}", rig.census());
}

fn stops_gracefully_within_ten_seconds(template: Template) {
    let (rig, _) = booted(template, &[]);
    rig.inside(101, "printf '#!/bin/sh\\necho stopped-in-order >/var/tmp/stopped\\n' >/usr/local/bin/last; chmod +x /usr/local/bin/last; \
        printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/true\\nExecStop=/usr/local/bin/last\\n' >/etc/systemd/system/last.service; \
        systemctl daemon-reload; systemctl start last");
    let begun = Instant::now();
    rig.ok(&["stop", "101"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    rig.ok(&["start", "101", "--wait"]);
    assert_eq!(rig.inside(101, "cat /var/tmp/stopped"), "stopped-in-order", "services were told to stop");
    let begun = Instant::now();
    rig.ok(&["stop", "101", "--fast"]);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

fn gives_every_clone_an_identity_of_its_own(template: Template) {
    let rig = Rig::new(&[template]);
    for (ctid, ip) in [(101, A), (102, "10.99.0.2")] {
        rig.create(ctid, template, &["--ipadd", ip]);
        rig.ok(&["start", &ctid.to_string(), "--wait"]);
    }
    for line in [
        "cat /etc/machine-id",
        "cat /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2",
        "cat /etc/ssh/ssh_host_ecdsa_key.pub | cut -d' ' -f2",
        "tr '\\0' '\\n' </proc/1/environ | grep ^container_uuid",
        "awk '{print $2}' /proc/self/uid_map",
    ] {
        let (a, b) = (rig.inside(101, line), rig.inside(102, line));
        assert!(!a.is_empty() && a != b, "{line}: {a:?} and {b:?}");
    }
}

fn installs_services_that_run_and_keeps_cron_and_journal(template: Template) {
    let (rig, _) = booted(template, &[]);
    rig.inside(101, "printf '* * * * * root touch /run/cron-ran\\n' >/etc/cron.d/proof");
    rig.host.ip("addr add 10.98.0.1/32 dev lo");
    let proxy = Proxy::start(&rig.host, "10.98.0.1".parse().unwrap()).unwrap();
    rig.inside(101, &proxy.apt());
    let apt = |words: &str| {
        let line = format!("DEBIAN_FRONTEND=noninteractive apt-get -q {words}");
        let mut c = rig.vzctl_command(&["exec2", "101", &line]);
        vz_tests::command::run(&mut c, None, Duration::from_secs(200)).unwrap_or_else(|e| panic!("{e}")).ok()
    };
    apt("update");
    // A web server, and a service full of hardening directives.
    apt("install -y --no-install-recommends nginx-light redis-server");
    for service in ["nginx", "redis-server"] {
        let state = rig.vzctl(&["exec2", "101", &format!("systemctl is-active {service}")]);
        assert_eq!(
            state.text(),
            "active",
            "{}",
            rig.inside(
                101,
                &format!("systemctl status {service} --no-pager; journalctl -u {service} --no-pager | tail -30; true")
            )
        );
    }
    let page = rig.host.inside(|| {
        use std::io::{Read, Write};
        let mut s = std::net::TcpStream::connect((A, 80)).unwrap();
        s.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        s.read_to_string(&mut page).unwrap();
        page
    });
    assert!(page.contains("Welcome to nginx"), "{page}");
    assert!(rig.inside(101, "redis-cli set key value; redis-cli get key").ends_with("value"));
    rig.inside(101, "logger -t proof written-to-the-journal");
    assert!(rig.inside(101, "journalctl -t proof --no-pager").contains("written-to-the-journal"));
    assert_eq!(
        rig.inside(101, "systemctl is-active cron systemd-journald systemd-logind dbus").replace("active", ""),
        "\n\n\n"
    );
    assert_eq!(rig.inside(101, "systemctl --failed --plain --no-legend"), "");
    let ran = rig.inside(101, "timeout 75 sh -c 'until [ -e /run/cron-ran ]; do sleep 0.5; done'; ls /run/cron-ran");
    assert_eq!(ran, "/run/cron-ran");
    // All of it is there again after a reboot.
    rig.ok(&["restart", "101", "--wait"]);
    assert_eq!(rig.inside(101, "systemctl is-active nginx redis-server"), "active\nactive");
    assert!(
        rig.inside(101, "journalctl --no-pager -t proof").contains("written-to-the-journal"),
        "the journal is kept"
    );
    assert_eq!(rig.inside(101, "systemctl --failed --plain --no-legend"), "");
}
