//! The boot contract's acceptance list for every shipped init: one test per part of the list and row of
//! [`vz_tests::inits::ROWS`], which also says what does not apply and why.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use expectrl::Expect;
use std::time::{Duration, Instant};
use vz_tests::{
    Rig, command,
    facts::{self, Facts},
    inits::{Line, Row},
    proxy::Proxy,
    ssh::Identity,
    template::Template,
};

const A: &str = "10.99.0.1";
const A6: &str = "fd99::1";
const BOOT: Duration = Duration::from_secs(90);
const PASSWORD: &str = "correct-horse-9";
/// A second, which is longer where programs are emulated (`VZ_TEST_SLOW`: how many times).
fn second() -> Duration {
    let slow = std::env::var("VZ_TEST_SLOW").ok().and_then(|v| v.parse().ok()).unwrap_or(1);
    Duration::from_secs(1) * slow
}

/// What hardware, kernel and mount tools say when they find themselves in a container.
const NOISE: &[&str] = &[
    "udev",
    "modprobe",
    "hwclock",
    "mount:",
    "sysctl:",
    "dmesg",
    "fsck",
    "permission denied",
    "not permitted",
    "read-only",
    "no such",
    "not found",
    "failed",
    "cannot",
    "warning",
    "error",
];

/// What has such words in it and is about none of that: hosts without BPF for cgroups, without CAP_SYS_RESOURCE, and
/// what agetty says of credentials that nobody gave it.
const NO_NOISE: &[&str] = &[
    "only shown for the first unit using ip firewalling",
    "failed to set fd limit",
    "failed to open credentials directory",
];

/// Makes each part of the list one test per shipped init.
macro_rules! for_every_init {
    ($($module:ident $template:ident: $($name:ident),+;)+) => {
        $(mod $module {
            $(#[test] fn $name() { super::$name(super::Row::of(super::Template::$template)); })+
        })+
    };
}

for_every_init! {
    debian_12 Debian12: boots_cleanly_and_lets_in, reboots_from_inside, ends_from_inside, stops_gracefully;
    debian_13 Debian13: boots_cleanly_and_lets_in, reboots_from_inside, ends_from_inside, stops_gracefully;
    sysvinit Sysvinit: boots_cleanly_and_lets_in, reboots_from_inside, ends_from_inside, stops_gracefully, clones_differ, runs_what_is_installed;
    openrc Openrc: boots_cleanly_and_lets_in, reboots_from_inside, ends_from_inside, stops_gracefully, clones_differ, runs_what_is_installed;
    runit Runit: boots_cleanly_and_lets_in, reboots_from_inside, ends_from_inside, stops_gracefully, clones_differ, runs_what_is_installed;
    busybox Busybox: boots_cleanly_and_lets_in, reboots_from_inside, ends_from_inside, stops_gracefully, clones_differ, runs_what_is_installed;
}

/// CT 101 of this init, with a key and a password for root, booted to its default runlevel.
fn booted(row: &Row) -> (Rig, Identity) {
    let rig = Rig::new(&[row.template]);
    let identity = Identity::new(&rig.paths.base);
    rig.create(
        101,
        row.template,
        &["--ipadd", A, "--ipadd", A6, "--hostname", "web.example.org", "--nameserver", "192.0.2.53"],
    );
    let key = identity.public().display().to_string();
    rig.ok(&["set", "101", "--sshkey", &key, "--userpasswd", &format!("root:{PASSWORD}")]);
    rig.ok(&["start", "101", "--wait"]).says("Container has booted");
    (rig, identity)
}

/// Nothing has failed, in the init's own words.
#[track_caller]
fn nothing_failed(rig: &Rig, row: &Row) {
    let failed = rig.inside(101, &format!("{}; true", row.failed));
    assert_eq!(failed, "", "failed\n--- console\n{}", rig.console_log(101));
}

/// Types a command that ends the session it is typed in.
#[track_caller]
fn typed(rig: &Rig, identity: &Identity, word: &str) {
    let let_in = vz_tests::wait::retry(BOOT, Duration::from_millis(200), || {
        Some(identity.run(&rig.host, "root", A, "true")).filter(|o| o.code() == 0)
    });
    assert!(let_in.is_some(), "before {word}: no sshd\n{}", rig.console_log(101));
    // The connection may end before the answer does.
    identity.run(&rig.host, "root", A, word);
}

/// Waits until the container's init, restarted from inside, has booted again.
#[track_caller]
fn booted_again(rig: &Rig, row: &Row, boots: u32) {
    rig.wait_record(101, BOOT, |r| r.boots == boots);
    let line = format!(
        "timeout 60 sh -c 'until [ -z \"$({})\" ] && [ -n \"$(ls /run)\" ]; do sleep 0.2; done'",
        row.failed.replace('\'', "'\\''")
    );
    let out = vz_tests::wait::retry(BOOT, Duration::from_millis(200), || {
        Some(rig.vzctl(&["exec2", "101", &line])).filter(|o| o.code() == 0)
    });
    assert!(out.is_some(), "not up again\n--- console\n{}", rig.console_log(101));
}

fn boots_cleanly_and_lets_in(row: &Row) {
    let (rig, identity) = booted(row);
    is_clean_and_lets_in(&rig, &identity, row);
}

#[track_caller]
fn is_clean_and_lets_in(rig: &Rig, identity: &Identity, row: &Row) {
    assert_eq!(rig.inside(101, "readlink /proc/1/exe"), row.exe);
    nothing_failed(rig, row);
    let console = rig.wait_console(101, "login:", BOOT);
    let quiet = |text: &str, what: &str| {
        let says = |line: &str, words: &[&str]| words.iter().any(|w| line.to_lowercase().contains(w));
        let lines: Vec<&str> = text.lines().filter(|l| says(l, NOISE) && !says(l, NO_NOISE)).collect();
        assert!(lines.is_empty(), "{what} has\n{}\nin\n{text}", lines.join("\n"));
    };
    quiet(&console, "the console");
    match row.log {
        Some(log) => quiet(&rig.inside(101, &format!("cat {log}")), log),
        None => quiet(&rig.inside(101, "journalctl -b -p warning --no-pager -o cat"), "the journal"),
    }
    // Names.
    assert_eq!(rig.inside(101, "hostname; cat /etc/hostname"), "web.example.org\nweb.example.org");
    assert!(rig.inside(101, "cat /etc/hosts").contains("web.example.org"));
    assert!(rig.inside(101, "cat /etc/resolv.conf").contains("nameserver 192.0.2.53"));
    assert_eq!(rig.inside(101, "date +%Z"), "UTC");
    // Whatever it mounts, its own beancounters stay where they are.
    assert!(rig.inside(101, "/run/vz/bin/vzubc -v").contains("numproc|"));
    if row.has(Line::Locale) {
        assert_eq!(rig.inside(101, ". /etc/default/locale; export LANG; locale charmap"), "UTF-8");
    }
    // ssh, with a key over both families and with a password.
    assert_eq!(identity.run(&rig.host, "root", A, "hostname; id -u").ok().text(), "web.example.org\n0");
    identity.run(&rig.host, "root", A6, "true").ok();
    identity.run_with_password(&rig.host, "root", PASSWORD, A, "true").ok();
    assert_ne!(identity.run_with_password(&rig.host, "root", "wrong", A, "true").code(), 0);
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

fn reboots_from_inside(row: &Row) {
    let (rig, identity) = booted(row);
    reboots_by(&rig, &identity, row, &[(Line::Reboot, "reboot"), (Line::ShutdownReboots, "shutdown -r now")]);
}

#[track_caller]
fn reboots_by(rig: &Rig, identity: &Identity, row: &Row, words: &[(Line, &str)]) {
    let facts = "cat /etc/machine-id; ip -o addr show venet0 | awk '{print $4}'; ip route show default";
    let (same, boot_id) = (rig.inside(101, facts), "cat /proc/sys/kernel/random/boot_id");
    assert!(same.contains(A) && same.contains(A6), "{same}");
    let before = rig.record(101);
    let mut seen = vec![rig.inside(101, boot_id)];
    for (n, (_, word)) in words.iter().filter(|(line, _)| row.has(*line)).enumerate() {
        typed(rig, identity, word);
        booted_again(rig, row, n as u32 + 2);
        let after = rig.record(101);
        assert_eq!(
            (before.monitor, before.uid_base, &before.addresses),
            (after.monitor, after.uid_base, &after.addresses),
            "{word}"
        );
        assert_eq!(rig.inside(101, facts), same, "{word}");
        let id = rig.inside(101, boot_id);
        assert!(!seen.contains(&id), "{word}: a new boot id");
        seen.push(id);
        nothing_failed(rig, row);
        let let_in = vz_tests::wait::retry(BOOT, Duration::from_millis(200), || {
            Some(identity.run(&rig.host, "root", A, "true")).filter(|o| o.code() == 0)
        });
        assert!(let_in.is_some(), "{word}: sshd is back");
    }
}

fn ends_from_inside(row: &Row) {
    let (rig, identity) = booted(row);
    let words = [(Line::Poweroff, "poweroff"), (Line::Halt, "halt"), (Line::ShutdownHalts, "shutdown -h now")];
    for (n, (_, word)) in words.iter().filter(|(line, _)| row.has(*line)).enumerate() {
        if n > 0 {
            rig.ok(&["start", "101", "--wait"]);
        }
        let begun = Instant::now();
        typed(&rig, &identity, word);
        rig.wait_stopped(101, BOOT);
        assert!(begun.elapsed() < 15 * second(), "{word}: {:?}", begun.elapsed());
        // It was its own end, and no crash.
        let info = rig.ok(&["status", "101", "--json"]).json();
        assert!(!info.to_string().contains("crash"), "{word}: {info}");
    }
    rig.stop_vzd();
    rig.start_vzd(&[]);
    assert_eq!(rig.status(101), "exist unmounted down", "it stays stopped");
    assert!(rig.census().of("mount").is_empty(), "{}", rig.census());
}

/// A process that nobody supervises and that wants to be told of the end.
fn leave_a_listener(rig: &Rig) {
    rig.inside(
        101,
        "printf '#!/bin/sh\\ntrap \"echo told >/var/tmp/told; exit\" TERM\\necho ready >/run/ready\\nwhile :; do sleep 0.1; done\\n' >/var/tmp/last; \
         chmod +x /var/tmp/last; setsid /var/tmp/last </dev/null >/dev/null 2>&1 & until [ -e /run/ready ]; do sleep 0.1; done",
    );
}

fn stops_gracefully(row: &Row) {
    let (rig, _) = booted(row);
    leave_a_listener(&rig);
    let begun = Instant::now();
    let out = rig.ok(&["stop", "101"]);
    let took = begun.elapsed();
    assert!(took < 10 * second(), "{took:?}");
    assert!(!out.stderr.contains("killed"), "{out}");
    rig.ok(&["start", "101"]);
    // Asked while it is still on its way up: heard as soon as it can hear.
    let begun = Instant::now();
    let out = rig.ok(&["stop", "101"]);
    let took = begun.elapsed();
    assert!(took < 20 * second(), "during the boot: {took:?}");
    assert!(!out.stderr.contains("killed"), "{out}");
    rig.ok(&["start", "101", "--wait"]);
    assert_eq!(rig.inside(101, "cat /var/tmp/told"), "told", "what ran was told to end");
    let begun = Instant::now();
    rig.ok(&["stop", "101", "--fast"]);
    assert!(begun.elapsed() < 3 * second(), "{:?}", begun.elapsed());
}

fn clones_differ(row: &Row) {
    let rig = Rig::new(&[row.template]);
    rig.create(101, row.template, &["--ipadd", A]);
    rig.ok(&["start", "101", "--wait"]);
    a_clone_differs(&rig, row);
}

/// CT 102 and CT 101, which runs, have nothing in common that is one's own.
#[track_caller]
fn a_clone_differs(rig: &Rig, row: &Row) {
    rig.create(102, row.template, &["--ipadd", "10.99.0.2"]);
    rig.ok(&["start", "102", "--wait"]);
    let mut keys = Vec::new();
    let mut ids = Vec::new();
    for (ctid, ip) in [(101, A), (102, "10.99.0.2")] {
        ids.push(rig.inside(ctid, "cat /etc/machine-id"));
        assert_eq!(ids[ids.len() - 1].len(), 32, "{ids:?}");
        let scanned = vz_tests::wait::retry(Duration::from_secs(30), Duration::from_millis(200), || {
            let mut c = rig.host.command("ssh-keyscan");
            c.args(["-T", "5", "-t", "ed25519,ecdsa", ip]);
            let out = vz_tests::command::run(&mut c, None, Duration::from_secs(20)).unwrap();
            // OpenSSH 9.8 and later write what they scan as comments among the keys.
            let lines = out.stdout.lines().filter(|l| !l.starts_with('#'));
            let mut found: Vec<String> = lines.filter_map(|l| l.rsplit(' ').next()).map(str::to_owned).collect();
            found.sort();
            (found.len() == 2).then_some(found)
        });
        keys.extend(scanned.expect("two host keys"));
    }
    assert_ne!(ids[0], ids[1]);
    let all = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!((keys.len(), all), (4, 4), "{keys:?}");
}

fn runs_what_is_installed(row: &Row) {
    let (rig, _) = booted(row);
    runs_daemons_cron_and_log(&rig, row, row.has(Line::Install));
}

#[track_caller]
fn runs_daemons_cron_and_log(rig: &Rig, row: &Row, install: bool) {
    let (file, user) = row.crontab;
    rig.inside(
        101,
        &format!(
            "printf '* * * * * {user} touch /run/cron-ran\\n' >{file}; {}",
            if user.is_empty() {
                "touch /var/spool/cron/crontabs/cron.update; echo root >/var/spool/cron/crontabs/cron.update"
            } else {
                "true"
            }
        ),
    );
    let (log, read) = match row.log {
        Some(log) => (log, format!("cat {log}")),
        None => ("the journal", "journalctl --no-pager -t proof".to_owned()),
    };
    rig.inside(101, &format!("logger -t proof written-to-the-log; timeout 10 sh -c 'until {read} | grep -q written-to-the-log; do sleep 0.1; done'"));
    if install {
        rig.host.ip("addr add 10.98.0.1/32 dev lo");
        let proxy = Proxy::start(&rig.host, "10.98.0.1".parse().unwrap()).unwrap();
        rig.inside(101, &proxy.apt());
        for words in ["update", "install -y --no-install-recommends nginx-light redis-server"] {
            let line = format!("DEBIAN_FRONTEND=noninteractive apt-get -q {words}");
            let mut c = rig.vzctl_command(&["exec2", "101", &line]);
            let out =
                vz_tests::command::run(&mut c, None, Duration::from_secs(200)).unwrap_or_else(|e| panic!("{e}")).ok();
            assert!(!out.to_string().contains("insserv:"), "{out}");
        }
        serves(rig);
    }
    let ran = rig.inside(101, "timeout 75 sh -c 'until [ -e /run/cron-ran ]; do sleep 0.5; done'; ls /run/cron-ran");
    assert_eq!(ran, "/run/cron-ran");
    nothing_failed(rig, row);
    // All of it is there again after a restart.
    rig.ok(&["restart", "101", "--wait"]).says("Container has booted");
    if install {
        serves(rig);
    }
    assert!(rig.inside(101, &read).contains("written-to-the-log"), "{log}");
    nothing_failed(rig, row);
}

/// nginx and redis answer.
#[track_caller]
fn serves(rig: &Rig) {
    let page = vz_tests::wait::retry(Duration::from_secs(20), Duration::from_millis(200), || {
        rig.host.inside(|| {
            use std::io::{Read, Write};
            let mut s = std::net::TcpStream::connect((A, 80)).ok()?;
            s.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
            let mut page = String::new();
            s.read_to_string(&mut page).ok()?;
            Some(page)
        })
    });
    assert!(page.as_ref().is_some_and(|p| p.contains("Welcome to nginx")), "{page:?}");
    let line = "timeout 20 sh -c 'until redis-cli set key value | grep -q OK; do sleep 0.2; done'; redis-cli get key";
    assert!(rig.inside(101, line).ends_with("value"));
}

/// The request follows what PID 1 is, and not what the template was made with.
#[test]
fn an_init_that_was_replaced_is_asked_in_its_own_way() {
    let row = Row::of(Template::Openrc);
    let (rig, identity) = booted(row);
    // Debian's OpenRC with its own init as PID 1: other files, another request.
    rig.inside(
        101,
        "ln -sf openrc-init /sbin/init; echo 'agetty_options=\"--noclear\"' >/etc/conf.d/agetty.console; \
        ln -sf agetty /etc/init.d/agetty.console; rc-update add agetty.console default",
    );
    rig.ok(&["restart", "101", "--wait"]).says("Container has booted");
    assert_eq!(rig.inside(101, "readlink /proc/1/exe"), "/usr/sbin/openrc-init");
    identity.run(&rig.host, "root", A, "true").ok();
    let boots = rig.record(101).boots;
    rig.inside(101, "printf reboot >/run/openrc/init.ctl");
    rig.wait_record(101, BOOT, |r| r.boots == boots + 1);
    rig.inside(101, "timeout 60 sh -c 'until [ -p /run/openrc/init.ctl ]; do sleep 0.1; done'");
    let begun = Instant::now();
    let out = rig.ok(&["stop", "101"]);
    assert!(begun.elapsed() < 10 * second(), "{:?}", begun.elapsed());
    assert!(!out.stderr.contains("killed"), "{out}");
}

/// What init waits for has been done, whichever way the boot's end is seen; and a boot that is not over is not told to be.
#[test]
fn start_wait_of_an_init_without_a_sign_of_readiness_ends_and_says_what_was_seen() {
    let rig = Rig::with_tiny();
    let soon = 15 * second();
    rig.inside(
        101,
        "printf '#!/bin/sh\\nsleep 2\\necho yes >/run/slow\\n' >/etc/slow; chmod 755 /etc/slow; cp /bin/busybox /sbin/other",
    );
    let boots = |inittab: &str, init: &str| {
        rig.inside(101, &format!("printf '{inittab}' >/etc/inittab; rm -f /sbin/init; {init}"));
        rig.ok(&["stop", "101", "--fast"]);
        let out = rig.ok(&["start", "101", "--wait"]);
        assert!(out.took < soon, "{out}");
        assert_eq!(rig.inside(101, "cat /run/slow; rm /run/slow"), "yes", "its boot was not over\n{out}");
        out
    };
    let busybox = "ln -s ../bin/busybox /sbin/init";
    // As Alpine has it: gettys on terminals that are not there, which end at once.
    let gettys: String = (1..7).map(|n| format!("tty{n}::respawn:/sbin/getty 38400 tty{n}\\n")).collect();
    boots(&format!("::sysinit:/etc/rc\\n::wait:/etc/slow\\n{gettys}"), busybox).says("Container has booted");
    // Nothing lasts, and what its boot left behind looks as the entry that started it.
    boots("::sysinit:/etc/slow\\n::wait:/bin/crond\\n", busybox).says("Container has booted");
    // An init called so that is another one than the table's.
    let seen = boots("::sysinit:/etc/rc\\n::wait:/etc/slow\\n", "cp /bin/busybox /sbin/init");
    seen.says("Container has booted as far as can be seen: its init (init) shows no sign of it");
    // None that vz knows does not tell; it is not waited for, but an end at once is seen.
    rig.inside(101, "ln -sf other /sbin/init");
    rig.ok(&["stop", "101", "--fast"]);
    let out = rig.ok(&["start", "101", "--wait"]).says("its init (other) does not tell when");
    assert!(out.took < soon, "{out}");
    rig.inside(101, "rm /sbin/other; printf '#!/bin/sh\\nexit 3\\n' >/sbin/other; chmod 755 /sbin/other");
    rig.ok(&["stop", "101", "--fast"]);
    let out = rig.vzctl(&["start", "101", "--wait"]);
    assert!(out.code() != 0 && out.took < soon, "{out}");
    out.says("CT 101 ended while it was booting");
}

/// The whole list in one life of a container, for a machine on which a boot is dear: the virtual test host.
mod one_life {
    use super::*;

    #[test]
    fn debian_13() {
        lived(Row::of(Template::Debian13));
    }

    #[test]
    fn sysvinit() {
        lived(Row::of(Template::Sysvinit));
    }

    /// The virtual test host is a Debian 13 that was booted: what its init found and a container's does not, or otherwise.
    fn init_finds_a_machine_but_for_what_the_reference_lists(rig: &Rig) {
        let machine = command::run(std::process::Command::new("sh").args(["-c", facts::SCRIPT]), None, BOOT).unwrap();
        let inside = rig.vzctl_with(&["exec2", "101", "sh"], facts::SCRIPT.as_bytes()).ok();
        let (machine, inside) = (Facts::parse(&machine.ok().stdout), Facts::parse(&inside.stdout));
        assert!(machine.len() > 600 && inside.len() > 500, "{} and {} facts", machine.len(), inside.len());
        let documented = facts::documented();
        let differ = machine.differences(&inside);
        let named = |key: &str| documented.iter().any(|d| facts::fits(&d.pattern, key));
        let missing: Vec<_> = differ.iter().filter(|(key, ..)| !named(key)).collect();
        assert!(missing.is_empty(), "docs/reference/inside.md does not say (fact, machine, container):\n{missing:#?}");
        let same =
            |d: &&facts::Documented| d.everywhere && !differ.iter().any(|(key, ..)| facts::fits(&d.pattern, key));
        let untrue: Vec<_> = documented.iter().filter(same).collect();
        assert!(untrue.is_empty(), "docs/reference/inside.md says that these differ:\n{untrue:#?}");
    }

    fn lived(row: &Row) {
        let (rig, identity) = booted(row);
        if let Template::Debian13 = row.template {
            init_finds_a_machine_but_for_what_the_reference_lists(&rig);
        }
        is_clean_and_lets_in(&rig, &identity, row);
        a_clone_differs(&rig, row);
        let begun = Instant::now();
        let out = rig.ok(&["stop", "102"]);
        assert!(begun.elapsed() < 10 * second(), "{:?}", begun.elapsed());
        assert!(!out.stderr.contains("killed"), "{out}");
        reboots_by(&rig, &identity, row, &[(Line::Reboot, "reboot")]);
        leave_a_listener(&rig);
        typed(&rig, &identity, "poweroff");
        rig.wait_stopped(101, BOOT);
        rig.stop_vzd();
        rig.start_vzd(&[]);
        assert_eq!(rig.status(101), "exist unmounted down", "it stays stopped");
        rig.ok(&["start", "101", "--wait"]).says("Container has booted");
        assert_eq!(rig.inside(101, "cat /var/tmp/told"), "told", "what ran was told to end");
        // Emulated, installing packages takes minutes and proves nothing more.
        runs_daemons_cron_and_log(&rig, row, false);
    }
}
