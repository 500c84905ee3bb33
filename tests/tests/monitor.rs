//! Monitors and attached programs wait for nobody: neither for a client that reads nothing or is stopped, nor for anything a
//! tenant has frozen. And what a monitor was asked in vain is not done behind anybody's back.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};
use vz_tests::{
    Rig,
    small::{ct, running},
    wait::{self, Process},
};
use vz_types::ExitCode;

const SOON: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(20);

fn monitor(rig: &Rig, ctid: u32) -> Process {
    Process::open(u32::try_from(rig.record(ctid).monitor.pid).unwrap()).unwrap()
}

/// Freezes init and everything that is started beside it, as root inside may.
fn freeze_from_inside(rig: &Rig, ctid: u32) {
    rig.inside(
        ctid,
        "cd /sys/fs/cgroup && mkdir scope aside && echo $$ >aside/cgroup.procs && echo 1 >scope/cgroup.procs && \
         echo 1 >scope/cgroup.freeze && until grep -q 'frozen 1' scope/cgroup.events; do sleep 0.02; done",
    );
}

/// Waits until a program runs inside.
fn wait_program(rig: &Rig, ctid: u32, name: &str) {
    rig.inside(ctid, &format!("until pidof {name} >/dev/null; do sleep 0.02; done"));
}

#[test]
fn a_client_that_reads_nothing_or_is_stopped_does_not_hold_up_a_stop() {
    let rig = running(&[101]);
    for way in ["reads nothing", "is stopped", "is stopped at a terminal"] {
        let (mut piped, mut session) = (None, None);
        let client = if way == "is stopped at a terminal" {
            let shell = expectrl::Session::spawn(rig.vzctl_command(&["enter", "101", "--exec", "yes"])).unwrap();
            let pid = u32::try_from(shell.get_process().pid().as_raw()).unwrap();
            session = Some(shell);
            Process::open(pid).unwrap()
        } else {
            let mut exec = rig.vzctl_command(&["exec2", "101", "yes"]);
            let child = exec.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
            let process = Process::open(child.id()).unwrap();
            piped = Some(child);
            process
        };
        wait_program(&rig, 101, "yes");
        client.pause(way != "reads nothing");
        let out = rig.ok(&["stop", "101"]);
        assert!(out.took < Duration::from_secs(10), "a client that {way}: {out}");
        assert!(!out.stderr.contains("was killed"), "a client that {way}: {out}");
        client.pause(false);
        drop(session);
        if let Some(mut child) = piped {
            // Nobody reads, and still it ends: its container is gone.
            assert!(client.ended(SOON).unwrap(), "a client that {way} stays for ever");
            assert_eq!(child.wait().unwrap().code(), Some(128 + 15), "a client that {way}");
        }
        rig.ok(&["start", "101"]);
        rig.wait_console(101, "tiny is up", SOON);
    }
}

#[test]
fn whoever_reads_late_gets_everything_a_program_wrote() {
    let rig = running(&[101]);
    let mut exec = rig.vzctl_command(&["exec2", "101", "head -c 100000 /dev/zero | tee /dev/stderr; exit 7"]);
    let child = exec.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The program has long ended when the first byte is read; nothing of it is left inside.
    rig.inside(101, "until ! pidof tee >/dev/null; do sleep 0.02; done");
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.stdout.len(), out.stderr.len(), out.status.code()), (100_000, 100_000, Some(7)));
    // A program that is ended from outside ends, though nobody reads.
    let mut exec = rig.vzctl_command(&["exec2", "101", "yes"]);
    let mut child = exec.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    wait_program(&rig, 101, "yes");
    let client = Process::open(child.id()).unwrap();
    client.terminate();
    assert!(client.ended(SOON).unwrap(), "SIGTERM does not end it");
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
}

#[test]
fn a_tenant_that_freezes_its_init_cannot_keep_a_stop_from_its_deadline() {
    let rig = running(&[101]);
    freeze_from_inside(&rig, 101);
    // One that is on its way in does not come in, and is told why.
    let exec = rig.vzctl_running(&["exec2", "101", "true"]);
    let monitor = monitor(&rig, 101);
    let out = rig.ok(&["stop", "101", "--timeout", "4"]);
    assert!(out.took < Duration::from_secs(8), "{out}");
    assert!(out.stderr.contains("did not stop by itself within 4 s and was killed"), "{out}");
    assert!(monitor.ended(Duration::ZERO).unwrap());
    let exec = exec.ends(SOON).expect_code(i32::from(ExitCode::NotRunning.code()));
    assert!(exec.stderr.contains("has ended"), "{exec}");
    rig.ok(&["start", "101"]);
}

#[test]
fn what_a_stopped_monitor_was_asked_in_vain_is_not_done_when_it_goes_on() {
    let rig = running(&[101]);
    let shadow = rig.inside(101, "cat /etc/shadow");
    let monitor = monitor(&rig, 101);
    monitor.pause(true);
    for words in
        [&["--hostname", "late.example", "--save"][..], &["--userpasswd", "root:late"], &["--ipadd", "10.99.0.77"]]
    {
        let out = rig.vzctl(&[&["set", "101"], words].concat());
        assert!(out.code() != 0 && out.stderr.contains("monitor"), "{out}");
    }
    monitor.pause(false);
    // Behind everything it was asked before.
    rig.ok(&["set", "101", "--ipadd", "10.99.0.78"]);
    assert_eq!(rig.inside(101, "hostname"), "ct101");
    assert_eq!(rig.inside(101, "cat /etc/shadow"), shadow, "the password was changed");
    assert!(!rig.inside(101, "ip addr show venet0").contains("10.99.0.77"));
    assert!(!fs::read_to_string(rig.paths.conf(ct(101))).unwrap().contains("late.example"));
}

#[test]
fn a_stop_that_cancels_a_late_start_is_short() {
    let rig = running(&[101]);
    rig.ok(&["stop", "101", "--fast"]);
    for n in 0..12 {
        let start = rig.vzctl_running(&["start", "101"]);
        let there = || rig.ct_run(101).join("state.json").exists().then_some(());
        // At another moment each time, most of them after "go".
        let _ = wait::retry(SOON, Duration::from_millis(1), there);
        let _ = wait::retry(Duration::from_millis(n), Duration::from_millis(1), || None::<()>);
        let stop = rig.ok(&["stop", "101", "--fast"]);
        assert!(stop.took < Duration::from_secs(4), "{stop}\n{}", rig.vzd_log(40));
        start.ends(SOON);
        assert_eq!(rig.status(101), "exist unmounted down");
    }
}

#[test]
fn a_stop_whose_monitor_is_killed_tells_that_it_was_not_in_order() {
    let rig = running(&[101]);
    rig.make_slow_to_stop(101, 60);
    let stop = rig.vzctl_running(&["stop", "101"]);
    rig.wait_step(101, "signal", SOON);
    monitor(&rig, 101).kill();
    let out = stop.ends(SOON).ok();
    assert!(out.stderr.contains("did not shut down in order"), "{out}");
    assert!(!out.stderr.contains("did not answer"), "{out}");
    let last_exit = || rig.vzlist(&["-a", "-H", "-o", "last_exit", "101"]).ok();
    last_exit().says("its monitor ended without a record");
    // Nobody was there to see it.
    rig.ok(&["start", "101"]);
    let (init, monitor) =
        (Process::open(u32::try_from(rig.record(101).init.pid).unwrap()).unwrap(), monitor(&rig, 101));
    rig.kill_vzd();
    monitor.kill();
    assert!(init.ended(SOON).unwrap());
    rig.start_vzd(&[]);
    let told = || last_exit().stdout.contains("its monitor had ended without a record").then_some(());
    wait::retry(SOON, MOMENT, told).expect("it is told to have crashed");
    rig.ok(&["events", "101", "--all"]).says("its monitor had ended without a record");
}

#[test]
fn a_container_that_was_killed_while_vzd_was_away_is_not_said_to_have_a_silent_monitor() {
    let rig = running(&[101]);
    rig.make_slow_to_stop(101, 60);
    let stop = rig.vzctl_running(&["stop", "101"]);
    rig.wait_step(101, "signal", SOON);
    rig.kill_vzd();
    rig.ok(&["stop", "--all", "--fast"]);
    rig.start_vzd(&[]);
    let out = stop.ends(SOON).ok();
    assert!(!out.stderr.contains("did not answer"), "{out}");
    assert_eq!(rig.status(101), "exist unmounted down");
}

#[test]
fn a_stopped_monitor_is_not_waited_for_as_long_as_a_graceful_stop_may_take() {
    let rig = running(&[101, 102, 103]);
    let paused = [101, 102].map(|c| monitor(&rig, c));
    paused.iter().for_each(|m| m.pause(true));
    let out = rig.ok(&["stop", "101"]);
    assert!(out.took < Duration::from_secs(15), "{out}");
    assert!(out.stderr.contains("it is stopped (pid "), "{out}");
    assert_eq!(
        out.stderr.matches("does not answer").count() + out.stderr.matches("did not answer").count(),
        1,
        "{out}"
    );
    assert_eq!(rig.status(101), "exist unmounted down");
    // One that is merely slow is given its time, with and without vzd.
    rig.make_slow_to_stop(103, 8);
    rig.kill_vzd();
    let begun = Instant::now();
    let out = rig.ok(&["stop", "--all"]);
    assert!(begun.elapsed() < Duration::from_secs(25), "{out}");
    assert!(out.stderr.contains("CT 102 was killed") && out.stderr.contains("it is stopped"), "{out}");
    assert!(!out.stderr.contains("CT 103 was killed"), "{out}");
    paused[1].pause(false);
    assert!(paused[1].ended(SOON).unwrap());
    rig.start_vzd(&[]);
    rig.wait_state(103, "stopped");
    assert_eq!(rig.ended_file(103), "whole");
}
