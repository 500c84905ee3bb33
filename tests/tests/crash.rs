//! Killing vzd or vzmon at each journalled step leaves the old state or the new one, and none of the machine's
//! resources. The list of steps is the program's own: a step that is added is tested from then on.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{fs, process::Command, time::Duration};
use vz_tests::{Rig, census::Census, command, rig, template::Template::Tiny};

const SOON: Duration = Duration::from_secs(20);

/// The fault points of one operation.
fn points(op: &str) -> Vec<String> {
    let mut c = Command::new(rig::bin_dir().join("vzd"));
    let out = command::run(c.arg("fault-points"), None, SOON).unwrap().ok();
    let all: Vec<String> = out.stdout.split_whitespace().map(String::from).collect();
    // Those of templates are in the suite `crash_templates`.
    let known = [
        "create", "start", "stop", "destroy", "set", "vzmon", "mount", "umount", "restart", "import", "build", "remove",
    ];
    for point in &all {
        let op = point.split('.').next().unwrap_or_default();
        assert!(known.contains(&op), "fault point {point}: no scenario here for `{op}`");
    }
    let these: Vec<String> = all.into_iter().filter(|p| p.starts_with(&format!("{op}."))).collect();
    assert!(!these.is_empty(), "`vzd fault-points` names none of {op}");
    these
}

/// One moment: what is held, and the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moment {
    census: Census,
    conf: Option<String>,
    status: String,
}

fn moment(rig: &Rig) -> Moment {
    let status = rig.status(101);
    if status.ends_with("running") {
        // Its own processes are counted too.
        rig.settled(101);
    }
    Moment {
        // What a destroyed container's configuration is kept as does not count.
        census: rig.census().without(|l| l == "conf 101.toml.destroyed"),
        conf: fs::read_to_string(rig.paths.conf_dir().join("101.toml")).ok(),
        status,
    }
}

/// An operation and the state it starts from.
struct Scenario {
    /// Brings the rig there; may be called again in any state.
    before: fn(&Rig),
    /// The operation.
    words: Vec<&'static str>,
    /// Steps it does not come by, by the beginning of their name.
    not_here: &'static [&'static str],
}

const OPTIONS: &[&str] = &[
    "--ipadd",
    "10.99.0.1",
    "--ipadd",
    "fd99::1",
    "--name",
    "web",
    "--hostname",
    "web.example",
    "--diskspace",
    "256M",
    "--userpasswd",
    "root:a-secret-word",
];

fn absent(rig: &Rig) {
    rig.ok(&["stop", "101", "--fast"]);
    if rig.status(101).contains("mounted down") && !rig.status(101).contains("unmounted") {
        rig.ok(&["umount", "101"]);
    }
    rig.ok(&["destroy", "101"]);
}

fn fresh(rig: &Rig) {
    if rig.status(101).starts_with("exist") {
        absent(rig);
    }
}

fn stopped(rig: &Rig) {
    fresh(rig);
    rig.create(101, Tiny, OPTIONS);
}

fn running(rig: &Rig) {
    stopped(rig);
    rig.ok(&["start", "101"]);
    rig.settled(101);
}

fn mounted(rig: &Rig) {
    stopped(rig);
    rig.ok(&["mount", "101"]);
}

/// `set` of most things at once, and `more`.
fn set(more: &[&'static str]) -> Vec<&'static str> {
    let all = "set 101 --ipdel 10.99.0.1 --ipadd 10.99.0.7 --hostname new.example --name new --description changed \
               --nameserver 192.0.2.53 --save";
    all.split_whitespace().chain(more.iter().copied()).collect()
}

/// A larger disk, which is made larger last.
const SET_LARGER: &[&str] = &["set", "101", "--ipadd", "10.99.0.7", "--name", "new", "--diskspace", "512M", "--save"];

/// Kills at each point of `op` and compares with the moments before and after an undisturbed run.
fn sweep(op: &str, scenario: &Scenario) {
    let rig = Rig::new(&[Tiny]);
    (scenario.before)(&rig);
    let old = moment(&rig);
    rig.ok(&scenario.words);
    let new = moment(&rig);
    let (mut rolled_back, mut rolled_forward) = (0, 0);
    for point in points(op).into_iter().filter(|p| !scenario.not_here.iter().any(|n| p.starts_with(n))) {
        (scenario.before)(&rig);
        let begin = moment(&rig);
        let same = old.census.changes(&begin.census).join("\n");
        assert!(begin == old, "{point}: the start is not the same each time:\n{same}\n{:?}", begin.conf);
        rig.stop_vzd();
        rig.start_vzd(&[("VZ_FAULT", &point)]);
        let out = rig.vzctl(&scenario.words);
        if op == "vzmon" {
            assert_ne!(out.code(), 0, "{point} was not reached: {out}");
        } else {
            assert!(rig.vzd_dies(Duration::from_secs(10)), "{point} was not reached: {out}");
            assert_ne!(out.code(), 0, "{point}: vzd died and vzctl says all is well: {out}");
            rig.start_vzd(&[]);
        }
        let now = moment(&rig);
        if now == old {
            rolled_back += 1;
        } else if now == new {
            rolled_forward += 1;
        } else {
            let diff = |m: &Moment| m.census.changes(&now.census).join("\n");
            panic!(
                "{point}: neither the old state nor the new one\nstatus {:?} (old {:?}, new {:?})\nagainst the old one:\n{}\nagainst the new one:\n{}\nconf:\n{}\n--- vzctl\n{out}--- vzd\n{}",
                now.status,
                old.status,
                new.status,
                diff(&old),
                diff(&new),
                now.conf.unwrap_or_default(),
                rig.vzd_log(40)
            );
        }
        if op == "vzmon" {
            rig.stop_vzd();
            rig.start_vzd(&[]);
        }
        // And it works on: the same operation, again.
        if now == old {
            rig.ok(&scenario.words);
        }
    }
    println!("{op}: {rolled_back} rolled back, {rolled_forward} rolled forward");
    fresh(&rig);
}

#[test]
fn create_killed_at_each_step() {
    let mut words = vec!["create", "101", "--ostemplate", "tiny"];
    words.extend(OPTIONS);
    sweep("create", &Scenario { before: fresh, words, not_here: &[] });
}

#[test]
fn start_killed_at_each_step() {
    sweep("start", &Scenario { before: stopped, words: vec!["start", "101"], not_here: &[] });
}

#[test]
fn start_with_the_monitor_killed_at_each_step() {
    sweep("vzmon", &Scenario { before: stopped, words: vec!["start", "101"], not_here: &[] });
}

#[test]
fn stop_killed_at_each_step() {
    sweep("stop", &Scenario { before: running, words: vec!["stop", "101"], not_here: &[] });
}

#[test]
fn destroy_killed_at_each_step() {
    sweep("destroy", &Scenario { before: stopped, words: vec!["destroy", "101"], not_here: &[] });
}

#[test]
fn set_on_a_running_container_killed_at_each_step() {
    // The size of a mounted layer is another story.
    sweep(
        "set",
        &Scenario { before: running, words: set(&["--numfile", "3000"]), not_here: &["set.shrink", "set.grow"] },
    );
}

#[test]
fn set_on_a_stopped_container_killed_at_each_step() {
    // Limits of a running container are another story.
    let not_here = &["set.grow", "set.limits"];
    sweep("set", &Scenario { before: stopped, words: set(&["--diskspace", "128M"]), not_here });
}

#[test]
fn set_of_a_larger_disk_killed_at_each_step() {
    let not_here = &["set.shrink", "set.release", "set.limits"];
    sweep("set", &Scenario { before: stopped, words: SET_LARGER.into(), not_here });
}

#[test]
fn restart_killed_at_each_step_ends_with_the_container_up() {
    let rig = Rig::new(&[Tiny]);
    running(&rig);
    let old = moment(&rig);
    for point in points("restart") {
        let before = rig.record(101).init;
        rig.stop_vzd();
        rig.start_vzd(&[("VZ_FAULT", &point)]);
        let restart = rig.vzctl_running(&["restart", "101", "--fast"]);
        assert!(rig.vzd_dies(SOON), "{point} was not reached: {}", rig.vzd_log(40));
        rig.start_vzd(&[]);
        // The same client, whose connection was lost.
        let said = restart.ends(SOON);
        // Until the stop is asked for nothing has happened; from then on it is carried through.
        let begun = !["restart.journal.before", "restart.journal", "restart.signal.before"].contains(&point.as_str());
        assert_eq!(said.code() == 0, begun, "{point}: {said}--- vzd\n{}", rig.vzd_log(40));
        assert_eq!(rig.record(101).init != before, begun, "{point}: restarted or not\n{}", rig.vzd_log(40));
        let now = moment(&rig);
        let changes = old.census.changes(&now.census).join("\n");
        assert!(now == old, "{point}: {:?}\n{changes}\n{said}--- vzd\n{}", now.status, rig.vzd_log(40));
    }
    fresh(&rig);
}

#[test]
fn mount_and_umount_killed_at_each_step() {
    let mut c = Command::new(rig::bin_dir().join("vzd"));
    let all = command::run(c.arg("fault-points"), None, SOON).unwrap().ok().stdout;
    // Journalled or not is the manager's choice for these two; what is listed is swept.
    if all.contains("umount.") {
        sweep("umount", &Scenario { before: mounted, words: vec!["umount", "101"], not_here: &[] });
    }
    if all.lines().any(|l| l.starts_with("mount.")) {
        sweep("mount", &Scenario { before: stopped, words: vec!["mount", "101"], not_here: &[] });
    }
}

#[test]
fn vzd_killed_at_any_time_while_many_things_happen() {
    let rig = Rig::new(&[Tiny]);
    let before = moment(&rig);
    for round in 0..6u64 {
        std::thread::scope(|s| {
            let rig = &rig;
            for ctid in [101u32, 102, 103] {
                s.spawn(move || {
                    let id = ctid.to_string();
                    let ip = format!("10.99.0.{}", ctid - 100);
                    let words: [&[&str]; 4] = [
                        &["create", &id, "--ostemplate", "tiny", "--ipadd", &ip],
                        &["start", &id],
                        &["stop", &id, "--fast"],
                        &["destroy", &id],
                    ];
                    for w in words {
                        // Any of them may be cut off.
                        rig.vzctl(w);
                    }
                });
            }
            // Another moment each time.
            let (_keep, never) = std::sync::mpsc::channel::<()>();
            let _ = never.recv_timeout(Duration::from_millis(20 + 45 * round));
            rig.kill_vzd();
        });
        rig.start_vzd(&[]);
        for ctid in ["101", "102", "103"] {
            if rig.ok(&["status", ctid]).stdout.contains("exist") {
                rig.ok(&["stop", ctid, "--fast"]);
                rig.ok(&["destroy", ctid]);
            }
        }
        let now = rig.census().without(|l| l.starts_with("conf ") && l.ends_with(".destroyed"));
        let changes = before.census.changes(&now);
        assert!(changes.is_empty(), "round {round}:\n{}\n--- vzd\n{}", changes.join("\n"), rig.vzd_log(40));
    }
}
