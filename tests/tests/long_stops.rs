//! Crowds that end slowly: eighty containers that take their time to stop, and five hundred requests that wait for one,
//! keep nobody else waiting. Part of `cargo xtask long`; the suite `faults` has the short form.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    thread,
    time::{Duration, Instant},
};
use vz_tests::{
    Rig,
    background::answer,
    template::Template::Tiny,
    wait::{self, Process},
};

const SOON: Duration = Duration::from_secs(20);
/// How long each takes for its shutdown, in seconds.
const SLOW: u32 = 20;
/// A list, with everything else going on at the same time on two cores.
const LISTED: Duration = Duration::from_secs(2);

/// Does this for each, four at a time.
fn each(all: &[u32], work: impl Fn(u32) + Sync) {
    thread::scope(|s| {
        for some in all.chunks(all.len().div_ceil(4)) {
            let work = &work;
            s.spawn(move || some.iter().for_each(|c| work(*c)));
        }
    });
}

fn last_exit(rig: &Rig, ctid: u32) -> String {
    rig.vzlist(&["-a", "-H", "-o", "last_exit", &ctid.to_string()]).ok().text().to_owned()
}

#[test]
fn eighty_slow_stops_at_once_end_in_the_time_of_one_and_keep_nobody_waiting() {
    let rig = Rig::new(&[Tiny]);
    let all: Vec<u32> = (101..181).collect();
    each(&all, |c| rig.create(c, Tiny, &[]));
    for killed in [false, true] {
        each(&all, |c| {
            rig.ok(&["start", &c.to_string()]);
            rig.make_slow_to_stop(c, SLOW);
        });
        let inits: Vec<Process> =
            all.iter().map(|c| Process::open(u32::try_from(rig.record(*c).init.pid).unwrap()).unwrap()).collect();
        let begun = Instant::now();
        let stops: Vec<_> = all.iter().map(|c| rig.vzctl_running(&["stop", &c.to_string()])).collect();
        rig.wait_step(180, "signal", SOON);
        let asked = begun.elapsed();
        let mut lists = Vec::new();
        let mut list = || {
            let listed = rig.vzlist(&["-a"]).ok();
            assert!(listed.took < LISTED, "{listed}");
            lists.push(listed.took);
        };
        (0..5).for_each(|_| list());
        if killed {
            rig.kill_vzd();
            let took = rig.next_vzd(true);
            println!("the next vzd answers after {took:?}");
            (0..5).for_each(|_| list());
        }
        // Somebody else's is made and started meanwhile, and one of them is ended at once.
        let other = Instant::now();
        rig.create(200, Tiny, &[]);
        rig.ok(&["start", "200"]);
        let other = other.elapsed();
        assert!(other < Duration::from_secs(8), "a create and a start took {other:?}");
        let fast = rig.ok(&["stop", "101", "--fast"]);
        assert!(fast.took < Duration::from_secs(6), "{fast}");
        (0..5).for_each(|_| list());
        assert!(!inits[1].ended(Duration::ZERO).unwrap(), "all were over before anything was tried beside them");
        for (ctid, stop) in all.iter().zip(stops) {
            let said = stop.ends(Duration::from_secs(60));
            assert_eq!(said.code(), 0, "CT {ctid}: {said}--- vzd\n{}", rig.vzd_log(40));
        }
        let took = begun.elapsed();
        lists.sort();
        println!(
            "{} stops of {SLOW} s (vzd killed: {killed}): asked in {asked:.1?}, all over after {took:.1?}; vzlist median {:?}, max {:?}; another's create and start {other:?}; stop --fast {:?}",
            all.len(),
            lists[lists.len() / 2],
            lists[lists.len() - 1],
            fast.took
        );
        // One after the other they would take 26 minutes.
        assert!(took < Duration::from_secs(u64::from(SLOW) + 40), "{took:?}");
        assert!(inits.iter().all(|i| i.ended(Duration::ZERO).unwrap()));
        for ctid in &all[1..] {
            assert!(last_exit(&rig, *ctid).starts_with("powered off"), "CT {ctid}: {}", last_exit(&rig, *ctid));
        }
        for ctid in [102, 140, 180] {
            assert_eq!(rig.ended_file(ctid), "whole", "CT {ctid} was not let finish");
        }
        assert_eq!(rig.ok(&["--json", "operations", "--open"]).text(), "[]");
        rig.ok(&["stop", "200", "--fast"]);
        rig.ok(&["destroy", "200"]);
    }
}

#[test]
fn with_five_hundred_requests_waiting_a_list_takes_what_it_takes_without() {
    let rig = Rig::new(&[Tiny]);
    let all: Vec<u32> = (101..121).collect();
    each(&all, |c| {
        rig.create(c, Tiny, &[]);
        rig.ok(&["start", &c.to_string()]);
    });
    rig.make_slow_to_stop(101, 60);
    let median = || {
        let mut took: Vec<Duration> = (0..21).map(|_| rig.vzlist(&["-a"]).ok().took).collect();
        took.sort();
        (took[10], took[20])
    };
    let alone = median();
    let stop = rig.asked("POST", "/v1/cts/101/stop", &[], r#"{"fast":false}"#);
    let id = rig.wait_step(101, "signal", SOON);
    let path = format!("/v1/operations/{id}?wait=600");
    let mut waiting = vec![stop];
    waiting.extend((0..250).map(|_| rig.asked("GET", &path, &[], "")));
    waiting.extend((0..250).map(|_| rig.asked("POST", "/v1/cts/101/stop", &[], r#"{"fast":false}"#)));
    let beside = median();
    println!(
        "vzlist of {}: alone median {:?}, max {:?}; with {} requests waiting median {:?}, max {:?}",
        all.len(),
        alone.0,
        alone.1,
        waiting.len(),
        beside.0,
        beside.1
    );
    // 100 ms, or what a machine that is busy with something else takes anyway.
    assert!(beside.0 < Duration::from_millis(100).max(alone.0 * 2), "alone {alone:?}, beside {beside:?}");
    // None of them was turned away.
    rig.ok(&["stop", "101", "--fast"]);
    let begun = Instant::now();
    for stream in waiting {
        let (status, text) = answer(stream);
        assert_eq!(status, 200, "{text}");
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let gone = || rig.vzlist(&["-1"]).stdout.lines().all(|l| l != "101").then_some(());
    wait::retry(SOON, Duration::from_millis(50), gone).expect("101 is stopped");
}
