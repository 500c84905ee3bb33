//! Operations as an operator sees them: asked for, left alone, listed, waited for, cancelled, joined, found again after vzd
//! or the client went away; and the events they are told by.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};
use vz_tests::{
    Rig,
    background::answer,
    builds::{recipe, stopped_copy},
    template::Template::Tiny,
    wait::{self, Process},
};
use vz_types::ExitCode;

const SOON: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(20);
/// Well-formed, and nobody's.
const NOBODYS: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

/// Running tiny systems.
fn running(ctids: &[u32]) -> Rig {
    let rig = Rig::new(&[Tiny]);
    for ctid in ctids {
        rig.create(*ctid, Tiny, &[]);
        rig.ok(&["start", &ctid.to_string()]);
        rig.settled(*ctid);
    }
    rig
}

/// Number of an operation that was left to go on.
#[track_caller]
fn behind(rig: &Rig, words: &[&str]) -> String {
    let out = rig.ok(&[&["--json", "--background"], words].concat());
    out.json()["operation"].as_str().unwrap_or_else(|| panic!("no number of an operation:\n{out}")).to_owned()
}

#[track_caller]
fn operations(rig: &Rig, words: &[&str]) -> Vec<serde_json::Value> {
    rig.ok(&[&["--json", "operations"], words].concat()).json().as_array().unwrap().clone()
}

fn init(rig: &Rig, ctid: u32) -> Process {
    Process::open(u32::try_from(rig.record(ctid).init.pid).unwrap()).unwrap()
}

#[track_caller]
fn last_exit(rig: &Rig, ctid: u32) -> String {
    rig.vzlist(&["-a", "-H", "-o", "last_exit", &ctid.to_string()]).ok().text().to_owned()
}

/// A stopped tiny system whose monitor waits as long as the file is there.
fn held() -> (Rig, PathBuf) {
    let rig = Rig::stopped(&[Tiny]);
    let hold = rig.hold_monitors_by("hold");
    rig.start_vzd(&[]);
    rig.create(101, Tiny, &["--ipadd", "10.99.0.1"]);
    (rig, hold)
}

#[test]
fn an_operation_left_behind_is_listed_waited_for_and_kept_in_the_history() {
    let rig = Rig::new(&[Tiny]);
    let create = behind(&rig, &["create", "101", "--ostemplate", "tiny", "--name", "web"]);
    let told = rig.ok(&["wait", &create]);
    assert!(told.stdout.contains("Container private area was created"), "{told}");
    let start = behind(&rig, &["start", "web"]);
    rig.ok(&["wait", &start]);
    rig.settled(101);
    // It exits as the operation would have.
    rig.inside(101, "rm /etc/shadow; mkdir /etc/shadow");
    let bad = behind(&rig, &["set", "101", "--userpasswd", "root:secret"]);
    rig.refused(&["wait", &bad], ExitCode::PasswordFailed, "shadow");
    rig.make_slow_to_stop(101, 3);
    let begun = Instant::now();
    let stop = behind(&rig, &["stop", "101"]);
    assert!(begun.elapsed() < Duration::from_secs(2), "it was waited for: {:?}", begun.elapsed());
    let open = operations(&rig, &["--open"]);
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!((&open[0]["id"], &open[0]["kind"]), (&stop.clone().into(), &"stop".into()));
    assert!(["queued", "running"].contains(&open[0]["state"].as_str().unwrap()), "{open:?}");
    rig.ok(&["operations", "--open"]).says(&stop);
    // It only goes forward by now.
    rig.wait_step(101, "signal", SOON);
    rig.refused(&["cancel", &stop], ExitCode::Locked, "cannot be taken back");
    rig.ok(&["wait", &stop]).says("Container was stopped");
    rig.ok(&["wait", &stop]).says("Container was stopped");
    assert_eq!(operations(&rig, &["--open"]), Vec::<serde_json::Value>::new());
    rig.refused(&["cancel", &stop], ExitCode::BadValue, "ended already");
    rig.refused(&["wait", NOBODYS], ExitCode::BadValue, NOBODYS);
    rig.refused(&["cancel", NOBODYS], ExitCode::BadValue, NOBODYS);
    rig.refused(&["wait", "../../etc/passwd"], ExitCode::BadValue, "number of an operation");
    rig.ok(&["destroy", "web"]);
    // The newest first; a container that is gone is asked for by its number.
    let kinds: Vec<String> = operations(&rig, &["101"]).iter().map(|o| o["kind"].to_string()).collect();
    assert_eq!(kinds, ["\"destroy\"", "\"stop\"", "\"set\"", "\"start\"", "\"create\""]);
    assert_eq!(operations(&rig, &["101", "--limit", "2"]).len(), 2);
    assert_eq!(operations(&rig, &["102"]).len(), 0);
    let all = operations(&rig, &[]);
    assert!(all.iter().all(|o| o["asker"] == "uid 0"), "{all:?}");
    let failed = all.iter().find(|o| o["id"] == bad.as_str()).unwrap();
    assert_eq!((&failed["state"], &failed["error"]["code"]), (&"failed".into(), &74.into()));
    let life = rig.ok(&["history", "101"]);
    let lines: Vec<&str> = life.stdout.lines().filter(|l| l.contains(" by uid 0: ")).collect();
    let order: Vec<Option<&str>> = lines.iter().map(|l| l.split("  ").nth(2)?.split(' ').next()).collect();
    assert_eq!(order, ["create", "start", "set", "stop", "destroy"].map(Some), "{life}");
    assert!(lines[2].contains("failed") && lines[2].contains("shadow"), "{life}");
    assert_eq!(rig.ok(&["--json", "history", "101"]).json().as_array().unwrap().len(), 5);
    rig.stop_vzd();
    rig.start_vzd(&[]);
    assert_eq!(operations(&rig, &[]), all, "kept by the inventory");
    rig.ok(&["wait", &stop]).says("Container was stopped");
    rig.refused(&["wait", &bad], ExitCode::PasswordFailed, "shadow");
}

#[test]
fn every_verb_that_changes_something_can_be_left_behind() {
    let rig = Rig::new(&[Tiny]);
    let before = rig.census();
    for line in [
        "create 101 --ostemplate tiny --ipadd 10.99.0.1",
        "mount 101",
        "umount 101",
        "set 101 --hostname other --save",
        "start 101",
        "set 101 --ipadd 10.99.0.2",
        "restart 101 --fast",
        "stop 101 --fast",
        "destroy 101",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let id = behind(&rig, &words);
        rig.ok(&["wait", &id]);
        let kept = operations(&rig, &["101", "--limit", "1"]).remove(0);
        assert_eq!((&kept["id"], &kept["state"]), (&id.into(), &"done".into()), "{line}: {kept}");
        assert_eq!(kept["kind"], words[0], "{kept}");
    }
    let changes = before.changes(&rig.census().without(|l| l.ends_with(".destroyed")));
    assert!(changes.is_empty(), "{changes:?}");
    // Without waiting it says under which number it goes on: that alone where a script reads it, with --quiet too.
    let said = rig.ok(&["--background", "create", "101", "--ostemplate", "tiny"]);
    assert!(said.text().len() == 26 && said.stderr.contains("vzctl wait"), "{said}");
    rig.ok(&["wait", said.text()]);
    let said = rig.ok(&["--quiet", "--background", "destroy", "101"]);
    rig.ok(&["wait", said.text()]);
}

#[test]
fn the_same_number_twice_is_one_operation() {
    let rig = running(&[101]);
    rig.make_slow_to_stop(101, 2);
    let id = "01KBCDEFGHJKMNPQRSTVWXYZ01";
    let stop = || rig.asked("POST", "/v1/cts/101/stop", &[("vz-operation", id)], r#"{"fast":false}"#);
    let (one, two) = (stop(), stop());
    let (one, two) = (answer(one), answer(two));
    assert_eq!((one.0, two.0), (200, 200), "{one:?}\n{two:?}");
    for (_, body) in [&one, &two] {
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["operation"], id);
    }
    // Given once: what has ended under it is not done again.
    rig.ok(&["start", "101"]);
    let (status, text) = answer(stop());
    assert!(status == 200 || text.contains("ended already"), "{status} {text}");
    assert_eq!(rig.status(101), "exist mounted running");
    let (status, text) = rig.request("POST", "/v1/cts/101/start", &[("vz-operation", "short")], "{}");
    assert_eq!(status, 400, "{text}");
    assert_eq!(operations(&rig, &["101"]).iter().filter(|o| o["kind"] == "stop").count(), 1);
}

#[test]
fn starts_at_once_are_one_and_a_stop_takes_a_start_back() {
    let (rig, hold) = held();
    let before = rig.census();
    fs::write(&hold, "").unwrap();
    let starts = [rig.vzctl_running(&["start", "101"]), rig.vzctl_running(&["start", "101"])];
    let id = rig.wait_step(101, "namespaces", SOON);
    // Somebody else's wait is another thing than the operation.
    let waits = rig.vzctl_running(&["wait", &id]);
    let busy = rig.refused(&["set", "101", "--hostname", "other", "--save"], ExitCode::Locked, "start");
    assert!(busy.stderr.contains(&id), "the refusal names what is under way: {busy}");
    fs::remove_file(&hold).unwrap();
    for start in starts {
        start.ends(SOON).ok().says("Container start in progress...");
    }
    waits.ends(SOON).ok();
    assert_eq!(operations(&rig, &["101"]).iter().filter(|o| o["kind"] == "start").count(), 1);
    rig.settled(101);
    assert_eq!(rig.record(101).boots, 1);
    rig.ok(&["stop", "101"]);
    rig.assert_census(&before, "after the stop");
    // Whoever wants it down does not wait until it is up.
    let cut_off = |words: &[&str]| {
        fs::write(&hold, "").unwrap();
        let start = rig.vzctl_running(&["start", "101"]);
        let id = rig.wait_step(101, "namespaces", SOON);
        let words: Vec<&str> = words.iter().map(|w| if *w == "ID" { id.as_str() } else { w }).collect();
        let other = rig.vzctl_running(&words);
        assert_eq!(rig.wait_open(101, ("state", "cancelling"), SOON), id);
        fs::remove_file(&hold).unwrap();
        let other = other.ends(SOON).ok();
        let said = start.ends(SOON);
        assert!(said.code() != 0 && said.stderr.contains("cancelled"), "{said}");
        let row = operations(&rig, &["101"]).into_iter().find(|o| o["id"] == id.as_str()).unwrap();
        assert_eq!(row["state"], "cancelled", "{row}");
        assert_eq!(rig.status(101), "exist unmounted down");
        rig.assert_census(&before, "after a start that was taken back");
        other
    };
    cut_off(&["stop", "101"]);
    cut_off(&["stop", "101", "--fast"]);
    cut_off(&["cancel", "ID"]).says("was cancelled");
    rig.ok(&["start", "101"]);
    rig.settled(101);
}

#[test]
fn a_stop_in_either_half_of_a_restart_ends_with_the_container_down() {
    let (rig, hold) = held();
    for step in ["signal", "namespaces"] {
        rig.ok(&["start", "101"]);
        rig.settled(101);
        if step == "signal" {
            rig.make_slow_to_stop(101, 3);
        }
        fs::write(&hold, "").unwrap();
        let fast: &[&str] = if step == "signal" { &[] } else { &["--fast"] };
        let restart = rig.vzctl_running(&[&["restart", "101"], fast].concat());
        let id = rig.wait_step(101, step, SOON);
        let stop = rig.vzctl_running(&["stop", "101"]);
        if step == "namespaces" {
            assert_eq!(rig.wait_open(101, ("state", "cancelling"), SOON), id);
        } else {
            rig.wait_open(101, ("state", "queued"), SOON);
        }
        fs::remove_file(&hold).unwrap();
        stop.ends(SOON).ok();
        let said = restart.ends(SOON);
        assert!(said.code() != 0 && said.stderr.contains("cancelled"), "{step}: {said}");
        assert_eq!(rig.status(101), "exist unmounted down", "{step}");
    }
}

#[test]
fn ctrl_c_without_a_terminal_takes_the_start_back() {
    let (rig, hold) = held();
    let before = rig.census();
    fs::write(&hold, "").unwrap();
    let start = rig.vzctl_running(&["start", "101"]);
    rig.wait_step(101, "namespaces", SOON);
    // What is no terminal is told the steps as plain lines, once it takes long.
    wait::retry(SOON, MOMENT, || start.warned().contains("namespaces").then_some(())).expect("it says what it is at");
    start.process().interrupt();
    rig.wait_open(101, ("state", "cancelling"), SOON);
    fs::remove_file(&hold).unwrap();
    let said = start.ends(SOON);
    assert!(said.code() != 0 && said.stderr.contains("cancelled"), "{said}");
    rig.assert_census(&before, "after Ctrl-C");
    rig.ok(&["start", "101"]);
}

#[test]
fn ctrl_c_at_a_terminal_asks_and_may_leave_the_start_going_on() {
    use expectrl::Expect;
    let (rig, hold) = held();
    fs::write(&hold, "").unwrap();
    let mut start = expectrl::Session::spawn(rig.vzctl_command(&["start", "101"])).unwrap();
    start.get_process_mut().set_window_size(120, 30).unwrap();
    start.set_expect_timeout(Some(SOON));
    let id = rig.wait_step(101, "namespaces", SOON);
    start.expect("namespaces").unwrap();
    start.send("\x03").unwrap();
    start.expect("[c/l/w]").unwrap();
    start.send_line("l").unwrap();
    start.expect(id.as_str()).unwrap();
    start.expect(expectrl::Eof).unwrap();
    fs::remove_file(&hold).unwrap();
    rig.ok(&["wait", &id]);
    rig.settled(101);
}

#[test]
fn a_graceful_stop_is_gone_on_with_when_vzd_is_killed_in_it() {
    let rig = running(&[101, 102]);
    for ctid in [101, 102] {
        rig.make_slow_to_stop(ctid, 6);
    }
    let inits = [init(&rig, 101), init(&rig, 102)];
    let stop = rig.vzctl_running(&["stop", "101"]);
    // Its connection is lost, and nobody waits for this one.
    let left = behind(&rig, &["stop", "102"]);
    rig.wait_step(101, "signal", SOON);
    rig.wait_step(102, "signal", SOON);
    rig.kill_vzd();
    rig.start_vzd(&[]);
    let listed = rig.vzlist(&["-a"]).ok();
    assert!(listed.took < Duration::from_secs(1), "the next vzd answers at once: {listed}");
    assert_eq!(rig.ok(&["--json", "status", "101"]).json()["state"], "stopping");
    assert!(!stop.has_ended(), "{}", stop.said());
    assert!(!inits[0].ended(Duration::ZERO).unwrap(), "it was killed:\n{}", rig.vzd_log(40));
    // Once more, in order this time, as an upgrade does it. Those who wait keep it from nothing.
    let waits: Vec<_> =
        (0..150).map(|_| rig.asked("GET", &format!("/v1/operations/{left}?wait=600"), &[], "")).collect();
    let begun = Instant::now();
    rig.stop_vzd();
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    drop(waits);
    rig.start_vzd(&[]);
    assert!(rig.vzlist(&["-a"]).ok().took < Duration::from_secs(1));
    stop.ends(SOON).ok().says("Container was stopped");
    rig.ok(&["wait", &left]).says("Container was stopped");
    for ctid in [101, 102] {
        assert!(last_exit(&rig, ctid).starts_with("powered off"), "{}", last_exit(&rig, ctid));
        assert_eq!(rig.ended_file(ctid), "whole", "CT {ctid} was not let finish");
    }
    assert_eq!(operations(&rig, &["--open"]).len(), 0);
}

#[test]
fn a_restart_cut_between_its_halves_ends_with_the_container_up() {
    let rig = running(&[101]);
    let before = init(&rig, 101);
    rig.stop_vzd();
    rig.start_vzd(&[("VZ_FAULT", "restart.turn")]);
    let restart = rig.vzctl_running(&["restart", "101"]);
    assert!(rig.vzd_dies(SOON), "{}", rig.vzd_log(40));
    assert!(before.ended(Duration::ZERO).unwrap());
    rig.start_vzd(&[]);
    let said = restart.ends(SOON).ok();
    assert!(said.stdout.contains("Container start in progress..."), "{said}");
    assert_eq!(rig.status(101), "exist mounted running");
    rig.settled(101);
}

#[test]
fn who_was_refused_what_is_in_the_history_once() {
    let rig = running(&[101]);
    for _ in 0..3 {
        rig.refused(&["destroy", "101"], ExitCode::Running, "Stop it first");
    }
    rig.refused(&["create", "101", "--ostemplate", "tiny"], ExitCode::Exists, "exists");
    // What makes no sense is nobody's change.
    rig.refused(&["set", "101", "--bootorder", "x"], ExitCode::BadValue, "bootorder");
    let life = rig.ok(&["history", "101"]).stdout;
    let refused: Vec<&str> = life.lines().filter(|l| l.contains(" by uid 0: failed: ")).collect();
    assert_eq!(refused.len(), 2, "{life}");
    assert!(refused[0].contains("destroy by uid 0") && refused[0].contains("(3 times, the last at "), "{life}");
    assert!(refused[1].contains("create by uid 0") && refused[1].contains("exists"), "{life}");
    assert_eq!(operations(&rig, &["101"]).iter().find(|o| o["kind"] == "destroy").unwrap()["count"], 3);
    assert!(rig.ok(&["operations", "101"]).stdout.contains("3 times"));
    // For as many days as this vzd keeps them.
    rig.stop_vzd();
    fs::write(rig.paths.manager_config(), "[history]\ndays = 7\n").unwrap();
    rig.start_vzd(&[]);
    assert!(rig.refused(&["wait", NOBODYS], ExitCode::BadValue, NOBODYS).stderr.contains("last 7 days"));
    rig.ok(&["history", "4711"]).says("last 7 days");
}

#[test]
fn a_set_and_the_restart_it_needs_survive_a_vzd_that_is_killed_between_them() {
    let rig = running(&[101]);
    let set = ["set", "101", "--features", "nesting:on", "--save", "--setmode", "restart"];
    let before = init(&rig, 101);
    rig.stop_vzd();
    rig.start_vzd(&[("VZ_FAULT", "set.commit")]);
    let asked = rig.vzctl_running(&set);
    assert!(rig.vzd_dies(SOON), "{}", rig.vzd_log(40));
    assert!(!before.ended(Duration::ZERO).unwrap(), "the set is done, the restart has not begun");
    rig.start_vzd(&[]);
    let said = asked.ends(SOON).ok();
    assert!(said.stdout.contains("configuration saved") && said.stdout.contains("start in progress"), "{said}");
    assert!(before.ended(Duration::ZERO).unwrap());
    rig.settled(101);
    let kinds: Vec<String> = operations(&rig, &["101", "--limit", "2"]).iter().map(|o| o["kind"].to_string()).collect();
    assert_eq!(kinds, ["\"restart\"", "\"set\""]);
    // Left behind, it is restarted too, and whoever waits for the set waits for both.
    let before = init(&rig, 101);
    let id = behind(&rig, &["set", "101", "--features", "nesting:off", "--save", "--setmode", "restart"]);
    rig.ok(&["wait", &id]).says("Container start in progress...");
    assert!(before.ended(Duration::ZERO).unwrap());
}

#[test]
fn reboots_while_vzd_is_away_are_told_by_the_next() {
    let rig = running(&[101]);
    rig.kill_vzd();
    for boots in [2, 3] {
        rig.vzctl(&["exec", "101", "reboot"]);
        rig.wait_record(101, SOON, |r| r.boots == boots);
    }
    rig.start_vzd(&[]);
    let told = || {
        let out = rig.ok(&["--json", "events", "--all", "101"]).stdout;
        let all: Vec<serde_json::Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        all.into_iter().find(|e| e["kind"] == "rebooted")
    };
    let event = wait::retry(SOON, MOMENT, told).expect("they are told");
    assert_eq!((&event["count"], &event["asker"]), (&2.into(), &serde_json::Value::Null), "{event}");
}

#[test]
fn stop_all_is_done_whatever_becomes_of_vzd() {
    let rig = Rig::new(&[Tiny]);
    let all: Vec<u32> = (101..111).collect();
    let each = |work: &(dyn Fn(u32) + Sync)| {
        std::thread::scope(|s| {
            all.chunks(4).for_each(|some| drop(s.spawn(move || some.iter().for_each(|c| work(*c)))))
        });
    };
    each(&|c| {
        rig.create(c, Tiny, &[]);
        rig.ok(&["start", &c.to_string()]);
        rig.make_slow_to_stop(c, 3);
    });
    for back in [true, false] {
        let inits: Vec<Process> = all.iter().map(|c| init(&rig, *c)).collect();
        let stop = rig.vzctl_running(&["stop", "--all"]);
        rig.wait_step(105, "signal", SOON);
        rig.kill_vzd();
        if back {
            rig.start_vzd(&[]);
        }
        let said = stop.ends(SOON).ok();
        assert_eq!(said.stdout.matches("done in").count(), 10, "{said}");
        assert!(inits.iter().all(|i| i.ended(Duration::ZERO).unwrap()), "it answered before all had ended: {said}");
        if !back {
            rig.start_vzd(&[]);
        }
        rig.vzlist(&["-1"]).expect_code(1);
        for ctid in [101, 110] {
            assert!(last_exit(&rig, ctid).starts_with("powered off"), "{}", last_exit(&rig, ctid));
        }
        if back {
            each(&|c| drop(rig.ok(&["start", &c.to_string()])));
            each(&|c| rig.settled(c));
        }
    }
}

#[test]
fn a_build_is_joined_outlives_its_clients_and_is_waited_for() {
    let rig = Rig::new(&[]);
    let tree = recipe(&rig, "web");
    let first = rig.vzctl_running(&["template", "build", "web"]);
    let copy = stopped_copy(&rig, &tree);
    let second = rig.vzctl_running(&["template", "build", "web"]);
    let id =
        wait::retry(SOON, MOMENT, || Some(operations(&rig, &["--open"])).filter(|o| o.len() == 1)).unwrap()[0]["id"]
            .as_str()
            .unwrap()
            .to_owned();
    let listed = rig.vzctl_running(&["wait", &id]);
    // Not even one that reads nothing any more holds it.
    wait::retry(SOON, MOMENT, || first.said().contains("copy").then_some(()))
        .expect("the first client shows the build");
    first.process().pause(true);
    copy.pause(false);
    second.ends(SOON).ok();
    listed.ends(SOON).ok();
    assert_eq!(operations(&rig, &["--template", "web"]).len(), 1, "one build for all of them");
    rig.ok(&["template", "remove", "web"]);
    first.process().pause(false);
    first.ends(SOON).ok();
    // Left behind, and found again by its number.
    let id = behind(&rig, &["template", "build", "web"]);
    rig.ok(&["wait", &id]);
    let shown = rig.ok(&["template", "list", "--json"]).json();
    let web = shown.as_array().unwrap().iter().find(|t| t["name"] == "web").unwrap();
    assert_eq!(web["status"], "ready", "{web}");
    assert_eq!(operations(&rig, &["--template", "web"]).len(), 3);
}

#[test]
fn sigterm_during_a_build_ends_vzd_at_once_and_it_answers_until_then() {
    let rig = Rig::new(&[]);
    let tree = recipe(&rig, "web");
    let before = rig.census();
    let build = rig.vzctl_running(&["template", "build", "web"]);
    let copy = stopped_copy(&rig, &tree);
    let lock = fs::read_to_string(rig.paths.lock()).unwrap();
    let vzd = Process::open(lock.trim().parse().unwrap()).unwrap();
    vzd.terminate();
    // Whoever asks is answered, or it is gone a moment later: nobody is told for long that it is not running while it is.
    let unanswered = || (rig.vzctl(&["operations"]).code() != 0).then_some(());
    wait::retry(SOON, MOMENT, unanswered).expect("it ends");
    assert!(vzd.ended(Duration::from_secs(5)).unwrap(), "it answers nobody and has not ended");
    assert!(copy.ended(SOON).unwrap(), "the program that copied is there still");
    let said = build.ends(SOON);
    assert!(said.code() != 0 && said.stderr.contains("cancelled"), "{said}");
    rig.stop_vzd();
    rig.start_vzd(&[]);
    assert_eq!(operations(&rig, &["--template", "web"])[0]["state"], "cancelled");
    rig.assert_census(&before, "after a build that the end of vzd cancelled");
    rig.ok(&["template", "build", "web"]);
}

#[test]
fn a_build_is_cancelled_at_once_and_leaves_nothing() {
    let rig = Rig::new(&[]);
    let tree = recipe(&rig, "web");
    let before = rig.census();
    let build = rig.vzctl_running(&["template", "build", "web"]);
    let copy = stopped_copy(&rig, &tree);
    let id = operations(&rig, &["--open"])[0]["id"].as_str().unwrap().to_owned();
    let cancelled = rig.ok(&["cancel", &id]).says("was cancelled");
    assert!(cancelled.took < Duration::from_secs(5), "{cancelled}");
    assert!(copy.ended(SOON).unwrap(), "the program that copied is there still");
    let said = build.ends(SOON);
    assert!(said.code() != 0 && said.stderr.contains("cancelled"), "{said}");
    assert_eq!(operations(&rig, &["--template", "web"])[0]["state"], "cancelled");
    assert!(!rig.paths.template_dir().join("web").exists());
    rig.assert_census(&before, "after a build that was cancelled");
    rig.ok(&["template", "build", "web"]);
}

#[test]
fn events_tell_a_containers_life_and_who_was_behind_it() {
    let rig = running(&[101]);
    rig.vzctl(&["exec", "101", "reboot"]);
    rig.wait_record(101, SOON, |r| r.boots == 2);
    let events = |words: &[&str]| -> Vec<serde_json::Value> {
        let out = rig.ok(&[&["--json", "events", "--all"], words].concat());
        out.stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let kinds = |all: &[serde_json::Value]| -> Vec<String> {
        all.iter().map(|e| e["kind"].as_str().unwrap().to_owned()).collect()
    };
    let rebooted = || kinds(&events(&[])).contains(&"rebooted".to_owned()).then_some(());
    wait::retry(SOON, MOMENT, rebooted).expect("a reboot from inside is an event");
    let follower = rig.vzctl_running(&["--json", "events", "--all", "--follow", "--after", "0"]);
    rig.settled(101);
    rig.ok(&["stop", "101"]);
    rig.ok(&["start", "101"]);
    rig.settled(101);
    let id = rig.record(101).init;
    Process::open(u32::try_from(id.pid).unwrap()).unwrap().kill();
    rig.wait_stopped(101, SOON);
    rig.ok(&["destroy", "101"]);
    let all = events(&[]);
    let life = ["created", "started", "rebooted", "stopped", "started", "crashed", "destroyed"];
    assert_eq!(kinds(&all), life, "{all:?}");
    let asked = |kind: &str| ["created", "started", "stopped", "destroyed"].contains(&kind);
    for event in &all {
        let kind = event["kind"].as_str().unwrap();
        assert_eq!(event["asker"] == "uid 0", asked(kind), "{event}");
        assert!(event["operation"].is_string() || !asked(kind), "{event}");
    }
    let numbers: Vec<i64> = all.iter().map(|e| e["id"].as_i64().unwrap()).collect();
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 7);
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(rig.ok(&["events"]).text(), "", "none of them is about a limit");
    // Gone on with where somebody left off; one container's are kept past its end.
    assert_eq!(events(&["--after", &numbers[3].to_string()]), all[4..]);
    assert_eq!(events(&["101"]), all);
    let seen = || follower.said().contains("destroyed").then_some(());
    wait::retry(SOON, MOMENT, seen).expect("who follows sees the last of it");
    let followed: Vec<serde_json::Value> = follower.said().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(followed, all);
}

#[test]
fn a_stop_and_a_destroy_right_after_a_restart_of_vzd_follow_each_other() {
    let rig = Rig::new(&[Tiny]);
    for n in 0..8 {
        rig.create(101, Tiny, &[]);
        rig.ok(&["start", "101"]);
        if n % 2 == 0 {
            rig.stop_vzd();
        } else {
            rig.kill_vzd();
        }
        rig.start_vzd(&[]);
        rig.ok(&["stop", "101", "--fast"]);
        // Clearing up after its end is nobody's operation.
        rig.ok(&["destroy", "101"]);
    }
}
