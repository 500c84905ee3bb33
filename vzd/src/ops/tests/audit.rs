//! What is on record: refusals with who asked, what follows what, reboots that nobody saw.

use super::{
    every::{create, other, running, set, settings, start, stop, stopped},
    host::{Host, Moment, PATIENCE, block_on, ct},
};
use crate::{
    ct::{Changes, SetMode, SetSpec},
    hands::fake::Trip,
    inventory::{OperationRow, Wanted},
    ops::{self, Ask, Asked, Ops},
};
use std::time::Instant;
use vz_types::{CtState, ExitCode, OpKind, OpState, Subject, op::Failure};

/// Everything on record of 101, the oldest first.
fn record(ops: &Ops) -> Vec<OperationRow> {
    let subject = Some(Subject::Ct(ct(101)));
    let mut all = ops.m.inventory.operations(&Wanted { subject, ..Wanted::default() }).unwrap();
    all.reverse();
    all
}

fn words(row: &OperationRow) -> (OpKind, OpState, u64) {
    (row.kind, row.state, row.count)
}

#[test]
fn who_was_refused_what_and_why_is_on_record() {
    let host = Host::new();
    let ops = host.start_vzd();
    running(&host, &ops);
    let before = record(&ops).len();
    for _ in 0..3 {
        // By the rules.
        host.ask(&ops, ops::destroy(ct(101)).by("uid 7")).unwrap_err();
        // By a check, after it was accepted.
        let taken = set(settings(&[("ipadd", "10.0.0.102")]), true);
        host.ask(&ops, taken.by("uid 8")).unwrap_err();
        host.ask(&ops, create(101, Changes::default()).by("uid 9")).unwrap_err();
    }
    let new = record(&ops).split_off(before);
    let all: Vec<_> = new.iter().map(|o| (o.asker.as_str(), words(o))).collect();
    assert_eq!(
        all,
        [
            ("uid 7", (OpKind::Destroy, OpState::Failed, 3)),
            ("uid 8", (OpKind::Set, OpState::Failed, 3)),
            ("uid 9", (OpKind::Create, OpState::Failed, 3)),
        ]
    );
    assert!(new.iter().all(|o| o.begun.is_none() && o.ended.is_some()), "{new:?}");
    let why: Failure = serde_json::from_str(new[1].error.as_deref().unwrap()).unwrap();
    assert_eq!(why.code, ExitCode::IpInUse);
    assert!(why.message.contains("10.0.0.102"), "{}", why.message);
    // What there is nothing to do for is no refusal, and vzd's own housekeeping is nobody's.
    host.ask(&ops, stop()).unwrap();
    host.ask(&ops, stop()).unwrap();
    host.ask(&ops, ops::repair(ct(101))).unwrap();
    assert_eq!(record(&ops).len(), before + 4);
    // Nothing is remembered of a number that nobody has, but that it was asked for.
    for n in 5000..5050 {
        host.ask(&ops, ops::start(ct(n), false)).unwrap_err();
        assert!(ops.m.known(ct(n)).is_none());
    }
}

#[test]
fn what_was_asked_for_in_the_background_and_refused_is_found_by_its_number() {
    let host = Host::new();
    let ops = host.start_vzd();
    running(&host, &ops);
    for _ in 0..2 {
        let ask = set(settings(&[("ipadd", "10.0.0.102")]), true).kept();
        let Asked::Operation(handle) = ops.ask(ask).unwrap() else { panic!("nothing to do") };
        assert!(block_on("a set", handle.ended()).failure.is_some());
        let row = ops.m.inventory.operation(handle.id).unwrap().unwrap();
        assert_eq!((row.state, row.ended.is_some()), (OpState::Failed, true));
    }
}

/// Something only the next start changes.
fn and_restart() -> Ask {
    let changes = settings(&[("features", "nesting:on")]);
    ops::set(ct(101), SetSpec { changes, save: true, mode: Some(SetMode::Restart) }).by("uid 7")
}

/// A moment at which 101 runs, and the calls of a set with a restart from there.
fn restarts(host: &Host) -> (Moment, Vec<String>) {
    let ops = host.start_vzd();
    running(host, &ops);
    host.idle(&ops);
    let moment = host.keep(ops);
    host.put_back(&moment);
    let ops = host.start_vzd();
    host.world.arm(Trip::Never);
    host.ask(&ops, and_restart()).unwrap();
    host.idle(&ops);
    let calls = host.world.disarm();
    host.kill_vzd(ops);
    (moment, calls)
}

fn pids(host: &Host) -> Vec<i32> {
    host.world.state().monitors.keys().copied().collect()
}

#[test]
fn a_set_that_needs_a_restart_is_followed_by_one() {
    let host = Host::new();
    let ops = host.start_vzd();
    running(&host, &ops);
    let before = (record(&ops).len(), pids(&host));
    let Asked::Operation(set) = ops.ask(and_restart()).unwrap() else { panic!("nothing to do") };
    let last = block_on("a set", set.ended());
    assert_eq!(last.failure, None);
    let restart = last.then.expect("it is there when the set has ended");
    assert_eq!(block_on("its restart", restart.ended()).failure, None);
    let new = record(&ops).split_off(before.0);
    let all: Vec<_> = new.iter().map(|o| (o.asker.as_str(), words(o))).collect();
    assert_eq!(all, [("uid 7", (OpKind::Set, OpState::Done, 1)), ("uid 7", (OpKind::Restart, OpState::Done, 1))]);
    assert!(new[0].told.contains(&restart.id.to_string()), "the one says what follows it: {}", new[0].told);
    assert_ne!(pids(&host), before.1, "it was restarted");
    assert_eq!(ops.m.cell(ct(101)).state().0, CtState::Running);
}

#[test]
fn a_restart_that_is_to_follow_is_asked_for_by_the_next_vzd_wherever_this_one_is_killed() {
    let host = Host::new();
    let (moment, calls) = restarts(&host);
    let (mut saved, mut not) = (0, 0);
    for (at, call) in calls.iter().enumerate().filter(|(_, call)| call.contains('.')) {
        host.put_back(&moment);
        let ops = host.start_vzd();
        let before = (record(&ops).len(), pids(&host));
        host.world.arm(Trip::Die { at, done: true });
        let asked = ops.ask(and_restart());
        let until = Instant::now() + PATIENCE;
        while !host.world.state().tripped {
            assert!(Instant::now() < until, "{call} does not come");
            std::thread::yield_now();
        }
        host.world.disarm();
        drop(asked);
        host.kill_vzd(ops);
        let ops = host.start_vzd();
        let text = ops.m.conf.text(ct(101)).unwrap();
        let restarted =
            record(&ops).split_off(before.0).iter().any(|o| words(o) == (OpKind::Restart, OpState::Done, 1));
        let look = host.look(&ops);
        assert_eq!(text.contains("nesting"), restarted, "at `{call}`: {text}\n{look:#?}");
        assert!(!look.keys().any(|k| k.starts_with("open") || k.starts_with("wrong")), "at `{call}`: {look:#?}");
        assert_eq!(ops.m.cell(ct(101)).state().0, CtState::Running, "at `{call}`");
        *(if restarted { &mut saved } else { &mut not }) += 1;
        host.kill_vzd(ops);
    }
    println!("killed at {} points: {saved} restarted, {not} as before", saved + not);
    assert!(saved > 10 && not > 3, "{saved} {not}");
}

#[test]
fn a_stop_that_waits_behind_a_set_is_not_kept_waiting_by_the_restart_that_follows_it() {
    let host = Host::new();
    let (moment, calls) = restarts(&host);
    host.put_back(&moment);
    let ops = host.start_vzd();
    host.world.arm(Trip::Never);
    let of = ops.clone();
    let at = calls.iter().position(|c| c == "set.live.before").unwrap();
    host.world.meanwhile(at, false, move || drop(of.ask(stop()).unwrap()));
    let Asked::Operation(set) = ops.ask(and_restart()).unwrap() else { panic!("nothing to do") };
    let restart = block_on("a set", set.ended()).then.unwrap();
    assert_eq!(block_on("its restart", restart.ended()).state, OpState::Cancelled);
    host.idle(&ops);
    assert!(host.world.has_met());
    assert_eq!(ops.m.cell(ct(101)).state().0, CtState::Stopped);
}

fn reboots(ops: &Ops) -> Vec<(u64, String)> {
    let all = ops.m.inventory.events(Some(ct(101)), 0, 100).unwrap();
    all.into_iter().filter(|e| e.kind == "rebooted").map(|e| (e.count, e.text)).collect()
}

#[test]
fn reboots_that_nobody_saw_are_told_by_the_next_vzd_and_once() {
    let host = Host::new();
    let ops = host.start_vzd();
    stopped(&host, &ops);
    host.ask(&ops, start()).unwrap();
    ops.m.tell_reboots();
    assert_eq!(reboots(&ops), []);
    host.world.reboot(ct(101));
    ops.m.tell_reboots();
    let told = |count: u64, boot: u32| (count, format!("rebooted from inside, boot {boot} since its start"));
    assert_eq!(reboots(&ops), [told(1, 2)]);
    host.kill_vzd(ops);
    (0..3).for_each(|_| host.world.reboot(ct(101)));
    for _ in 0..2 {
        let ops = host.start_vzd();
        ops.m.tell_reboots();
        assert_eq!(reboots(&ops), [told(1, 2), told(3, 5)]);
        host.kill_vzd(ops);
    }
    // Rebooted and then gone, both while nobody looked.
    host.world.reboot(ct(101));
    host.world.power_off(ct(101));
    let ops = host.start_vzd();
    assert_eq!(reboots(&ops), [told(1, 2), told(3, 5), told(1, 6)]);
    // Another run counts anew, also one that ends before anybody looked.
    host.ask(&ops, start()).unwrap();
    ops.m.tell_reboots();
    host.world.reboot(ct(101));
    host.ask(&ops, stop()).unwrap();
    assert_eq!(reboots(&ops)[0], told(2, 2), "the same words within a minute are one event");
}

#[test]
fn a_container_an_earlier_version_has_started_has_been_told_of() {
    let host = Host::new();
    let ops = host.start_vzd();
    other(&host, &ops);
    host.ask(&ops, create(101, Changes::default())).unwrap();
    host.ask(&ops, start()).unwrap();
    host.world.reboot(ct(101));
    let row = ops.m.inventory.container(ct(101)).unwrap().unwrap();
    ops.m.inventory.change("test", false, |c| c.execute("UPDATE container SET boots=NULL", []).map(drop)).unwrap();
    host.kill_vzd(ops);
    let ops = host.start_vzd();
    ops.m.tell_reboots();
    assert_eq!(reboots(&ops), [], "{row:?}");
    host.world.reboot(ct(101));
    ops.m.tell_reboots();
    assert_eq!(reboots(&ops).len(), 1);
}
