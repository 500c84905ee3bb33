//! What is in the way is told and can be put right, and what is slow keeps nobody else waiting: mounts that nobody expects,
//! files that cannot be read or changed, monitors that do not answer, crowds.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};
use vz_tests::{
    Rig, command, proc,
    small::{ct, running},
    template::Template::Tiny,
    wait::Process,
};
use vz_types::ExitCode;

const SOON: Duration = Duration::from_secs(20);

/// A mount that keeps a directory from being removed.
struct InTheWay(PathBuf);

impl InTheWay {
    fn at(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let mut c = std::process::Command::new("mount");
        command::run(c.args(["-t", "tmpfs", "tmpfs"]).arg(dir), None, SOON).unwrap().ok();
        Self(dir.to_owned())
    }
}

impl Drop for InTheWay {
    fn drop(&mut self) {
        // It may have been moved along with what it is in.
        let named = |m: &proc::Mount| m.at.file_name() == self.0.file_name();
        for mount in proc::mounts().into_iter().filter(named) {
            let _ = nix::mount::umount2(&mount.at, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

fn in_trash(rig: &Rig) -> usize {
    fs::read_dir(rig.paths.trash_dir()).map_or(0, |d| d.flatten().count())
}

#[test]
fn a_create_that_cannot_be_taken_back_says_so_and_is_finished_later() {
    let rig = Rig::new(&[Tiny]);
    let before = rig.census();
    for way in ["create", "destroy"] {
        rig.stop_vzd();
        rig.start_vzd(&[("VZ_FAULT", "create.place")]);
        rig.vzctl(&["create", "101", "--ostemplate", "tiny", "--ipadd", "10.99.0.1"]);
        assert!(rig.vzd_dies(SOON), "{}", rig.vzd_log(40));
        let held = InTheWay::at(&rig.paths.private(ct(101)).join(format!("held-{}", std::process::id())));
        rig.start_vzd(&[]);
        rig.wait_state(101, "failed");
        assert!(rig.trouble(101).contains("mounted"), "{}", rig.trouble(101));
        let listed = rig.vzlist(&["-a", "-H", "-o", "ctid,state"]).ok();
        assert!(listed.stdout.contains("failed"), "{listed}");
        let out = rig.vzctl(&["create", "101", "--ostemplate", "tiny"]);
        assert!(out.code() != 0 && out.stderr.contains("mounted"), "the cause is told: {out}");
        let out = rig.vzctl(&["start", "101"]);
        assert!(out.code() != 0 && out.stderr.contains("mounted"), "the cause is told: {out}");
        drop(held);
        match way {
            "create" => rig.create(101, Tiny, &["--ipadd", "10.99.0.1"]),
            // What is left of it goes while it is taken back: that is what was asked for.
            _ => drop(rig.ok(&["destroy", "101"]).says("Container private area was destroyed")),
        }
        if way == "create" {
            rig.ok(&["start", "101"]);
            rig.ok(&["stop", "101", "--fast"]);
            rig.ok(&["destroy", "101"]);
        }
        assert_eq!(rig.status(101), "deleted unmounted down");
        assert_eq!(in_trash(&rig), 0);
        let changes = before.changes(&rig.census().without(|l| l.ends_with(".destroyed")));
        assert!(changes.is_empty(), "{way}: {changes:?}");
    }
}

#[test]
fn a_destroy_that_fails_midway_says_so_and_is_finished_by_another_one() {
    let rig = Rig::new(&[Tiny]);
    let before = rig.census();
    rig.create(101, Tiny, &["--ipadd", "10.99.0.1", "--name", "web"]);
    let held = InTheWay::at(&rig.paths.private(ct(101)).join(format!("held-{}", std::process::id())));
    for when in ["the first time", "the second time", "after a restart"] {
        if when == "after a restart" {
            rig.stop_vzd();
            rig.start_vzd(&[]);
        }
        let out = rig.vzctl(&["destroy", "101"]);
        assert!(out.code() != 0 && out.stderr.contains("mounted"), "{when}: {out}");
        assert_eq!(rig.state(101), "failed", "{when}");
        assert!(rig.trouble(101).contains("mounted"), "{when}: {}", rig.trouble(101));
        let out = rig.vzctl(&["start", "101"]);
        assert!(out.code() != 0 && out.stderr.contains("mounted"), "{when}: {out}");
        // Its address is not anybody else's as long as its data is there.
        let out = rig.vzctl(&["create", "102", "--ostemplate", "tiny", "--ipadd", "10.99.0.1"]);
        assert_eq!(out.code(), i32::from(ExitCode::IpInUse.code()), "{when}: {out}");
    }
    drop(held);
    rig.ok(&["destroy", "101"]);
    assert_eq!(rig.status(101), "deleted unmounted down");
    assert_eq!(in_trash(&rig), 0, "tenant's data is left in the trash");
    let changes = before.changes(&rig.census().without(|l| l.ends_with(".destroyed")));
    assert!(changes.is_empty(), "{changes:?}");
    rig.create(101, Tiny, &["--ipadd", "10.99.0.1", "--name", "web"]);
    rig.ok(&["destroy", "101"]);
}

#[test]
fn many_slow_stops_and_many_waiting_requests_keep_nobody_else_waiting() {
    let rig = Rig::new(&[Tiny]);
    let all: Vec<u32> = (101..121).collect();
    std::thread::scope(|s| {
        for some in all.chunks(5) {
            let rig = &rig;
            s.spawn(move || {
                for c in some {
                    rig.create(*c, Tiny, &[]);
                    rig.ok(&["start", &c.to_string()]);
                    rig.make_slow_to_stop(*c, 8);
                }
            });
        }
    });
    rig.create(200, Tiny, &[]);
    let alone = rig.ok(&["start", "200"]).took;
    rig.ok(&["stop", "200", "--fast"]);
    let ask = |c: &u32| rig.asked("POST", &format!("/v1/cts/{c}/stop"), &[], r#"{"fast":false}"#);
    let mut waiting: Vec<_> = all.iter().map(ask).collect();
    let id = rig.wait_step(120, "signal", SOON);
    // Who waits for the same; who waits for one by its number; who follows it.
    waiting.extend(all.iter().cycle().take(150).map(ask));
    let path = format!("/v1/operations/{id}");
    waiting.extend((0..100).map(|_| rig.asked("GET", &format!("{path}?wait=60"), &[], "")));
    waiting.extend((0..50).map(|_| rig.asked("GET", &format!("{path}/events"), &[], "")));
    for _ in 0..3 {
        let listed = rig.vzlist(&["-a"]).ok();
        assert!(listed.took < Duration::from_millis(500), "with {} waiting: {listed}", waiting.len());
    }
    let start = rig.ok(&["start", "200"]);
    assert!(start.took < alone + Duration::from_secs(2), "alone {alone:?}: {start}");
    assert_eq!(rig.inside(200, "echo hello"), "hello");
    assert!(!rig.vzlist(&["-1"]).ok().stdout.is_empty());
    rig.ok(&["stop", "200", "--fast"]);
    for stream in waiting {
        let (status, text) = vz_tests::background::answer(stream);
        assert_eq!(status, 200, "{text}");
    }
    rig.vzlist(&["-1"]).expect_code(1);
    let ops = rig.ok(&["--json", "operations", "101"]).json();
    assert_eq!(ops.as_array().unwrap().iter().filter(|o| o["kind"] == "stop").count(), 1, "all of them are one: {ops}");
}

#[test]
fn a_fast_stop_hurries_a_slow_one() {
    let rig = running(&[101]);
    rig.make_slow_to_stop(101, 60);
    let slow = rig.vzctl_running(&["stop", "101"]);
    rig.wait_step(101, "signal", SOON);
    let fast = rig.ok(&["stop", "101", "--fast"]);
    assert!(fast.took < Duration::from_secs(8), "{fast}");
    slow.ends(SOON).ok();
    assert_eq!(rig.status(101), "exist unmounted down");
    let ops = rig.ok(&["--json", "operations", "101"]).json();
    assert_eq!(ops.as_array().unwrap().iter().filter(|o| o["kind"] == "stop").count(), 1, "they are one: {ops}");
}

#[test]
fn a_route_that_is_repaired_meanwhile_does_not_bring_back_a_deleted_address() {
    let rig = running(&[101]);
    let routes = |rig: &Rig| rig.host.sh("ip route").ok().stdout;
    for _ in 0..15 {
        rig.ok(&["set", "101", "--ipadd", "10.99.0.77"]);
        let deleting = rig.vzctl_running(&["set", "101", "--ipdel", "10.99.0.77"]);
        // Somebody takes the other one away, which vzd puts right.
        rig.host.sh("ip route del 10.99.0.1").ok();
        deleting.ends(SOON).ok();
        let back = || routes(&rig).contains("10.99.0.1 ").then_some(());
        vz_tests::wait::retry(SOON, Duration::from_millis(10), back).expect("the route is put back");
        assert!(!routes(&rig).contains("10.99.0.77"), "{}", routes(&rig));
    }
}

#[test]
fn a_monitor_that_does_not_answer_holds_neither_set_nor_stop_nor_a_new_vzd() {
    let rig = running(&[101, 102, 103]);
    let monitor = |c: u32| Process::open(u32::try_from(rig.record(c).monitor.pid).unwrap()).unwrap();
    let monitors = [101, 102, 103].map(monitor);
    monitors.iter().for_each(|m| m.pause(true));
    let one = rig.vzctl_running(&["set", "101", "--ipadd", "10.99.0.11", "--save"]);
    let two = rig.vzctl_running(&["set", "102", "--ipadd", "10.99.0.12"]);
    rig.wait_step(102, "live", SOON);
    // Whoever wants it down at once is not kept from it.
    let stop = rig.vzctl_running(&["stop", "102", "--fast"]);
    let out = one.ends(SOON);
    assert!(out.code() != 0 && out.took < Duration::from_secs(15), "{out}");
    assert!(out.stderr.contains("CT 101") && out.stderr.contains("monitor"), "{out}");
    // Which process that is, and what to do.
    assert!(out.stderr.contains(&format!("pid {}", monitors[0].id())), "{out}");
    assert!(out.stderr.contains("vzctl stop 101 --fast"), "{out}");
    let stop = stop.ends(SOON).ok();
    assert!(stop.took < Duration::from_secs(25), "{stop}");
    assert_ne!(two.ends(SOON).code(), 0);
    assert_eq!(rig.status(102), "exist unmounted down");
    assert!(!fs::read_to_string(rig.paths.conf(ct(101))).unwrap().contains("10.99.0.11"), "{out}");
    rig.ok(&["stop", "101", "--fast"]);
    assert_eq!(rig.status(101), "exist unmounted down");
    rig.kill_vzd();
    rig.start_vzd(&[]);
    let listed = rig.vzlist(&["-a"]).ok();
    assert!(listed.took < Duration::from_secs(1), "{listed}");
    assert_eq!(rig.vzlist(&["-1"]).ok().text(), "103");
    monitors[2].pause(false);
    rig.ok(&["set", "103", "--ipadd", "10.99.0.13"]);
    rig.ok(&["start", "101"]);
}

#[test]
fn a_configuration_that_could_not_be_read_once_is_read_again() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--ipadd", "10.99.0.1"]);
    let conf = rig.paths.conf(ct(101));
    let aside = conf.with_extension("aside");
    fs::rename(&conf, &aside).unwrap();
    type Spoil = fn(&Path);
    let spoils: [(Spoil, Spoil); 2] = [
        (|c| symlink(c.file_name().unwrap(), c).unwrap(), |c| fs::remove_file(c).unwrap()),
        (|c| fs::create_dir(c).unwrap(), |c| fs::remove_dir(c).unwrap()),
    ];
    for (spoil, clear) in spoils {
        spoil(&conf);
        rig.refused(&["start", "101"], ExitCode::BadConfig, "101.toml");
        clear(&conf);
        // The very same file, not touched.
        fs::hard_link(&aside, &conf).unwrap();
        rig.ok(&["start", "101"]);
        rig.ok(&["stop", "101", "--fast"]);
        fs::remove_file(&conf).unwrap();
    }
    fs::rename(&aside, &conf).unwrap();
}

#[test]
fn a_failed_password_leaves_the_operators_mount() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &[]);
    rig.ok(&["start", "101"]);
    rig.inside(101, "rm /etc/shadow; mkdir /etc/shadow");
    rig.ok(&["stop", "101", "--fast"]);
    rig.ok(&["mount", "101"]);
    let before = rig.census();
    rig.refused(&["set", "101", "--userpasswd", "root:secret"], ExitCode::PasswordFailed, "shadow");
    assert_eq!(rig.status(101), "exist mounted down");
    rig.assert_census(&before, "after a password that could not be set");
    assert!(rig.paths.root(ct(101)).join("etc/passwd").exists());
    rig.ok(&["umount", "101"]);
    // Not mounted before, not mounted after.
    rig.refused(&["set", "101", "--userpasswd", "root:secret"], ExitCode::PasswordFailed, "shadow");
    assert_eq!(rig.status(101), "exist unmounted down");
}
