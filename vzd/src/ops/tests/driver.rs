//! Asking, waiting and cancelling: what goes on in front of the steps.

use super::{
    every::{create, other, running, set, settings, start, stop, stopped},
    host::{Came, Host, PATIENCE, block_on, ct},
};
use crate::{
    ct::{Changes, SetSpec},
    error::Error,
    hands::fake::Trip,
    inventory::{OperationRow, Wanted},
    manager::new_operation,
    ops::{
        self, Ask, Asked, Handle, Ops, Work,
        machine::{Advance, Run},
        step::Wait,
    },
};
use rustix::event::{EventfdFlags, eventfd};
use std::{os::fd::OwnedFd, sync::Arc, time::Instant};
use vz_types::{CtState, ExitCode, Fact, OpKind, OpState, Reason, Subject, judge::Request};

/// Waits until it may go on, or is cancelled.
struct Waits {
    gate: Arc<OwnedFd>,
    waited: bool,
}

impl Run for Waits {
    fn advance(&mut self, w: &Work) -> Advance {
        if w.is_cancelled() {
            let reason = Reason::Cancelled { kind: w.handle.kind };
            return Advance::Ended(Err(Error::Denied { reason, subject: w.handle.subject.clone() }));
        }
        match std::mem::replace(&mut self.waited, true) {
            false => Advance::Parked(Wait { fd: self.gate.clone(), until: Instant::now() + PATIENCE }),
            true => Advance::Ended(Ok(())),
        }
    }
}

fn gate() -> Arc<OwnedFd> {
    Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap())
}

fn open_gate(gate: &OwnedFd) {
    rustix::io::write(gate, &1u64.to_ne_bytes()).unwrap();
}

/// A set that waits at this gate.
fn waiting(n: u32, gate: &Arc<OwnedFd>) -> Ask {
    // Of its own: epoll takes no descriptor twice.
    let gate = Arc::new(gate.try_clone().unwrap());
    let make = move |_: &Work| -> crate::error::Result<Box<dyn Run>> { Ok(Box::new(Waits { gate, waited: false })) };
    Ask::new(Subject::Ct(ct(n)), Request::plain(OpKind::Set), make)
}

fn begun(ops: &Arc<Ops>, ask: Ask) -> Arc<Handle> {
    match ops.ask(ask).unwrap() {
        Asked::Operation(handle) => handle,
        Asked::AlreadySo(fact) => panic!("{fact:?}"),
    }
}

fn failure(handle: &Handle) -> Option<Reason> {
    block_on("an operation", handle.ended()).failure.and_then(|f| f.reason)
}

#[test]
fn a_busy_container_says_with_what() {
    let host = Host::new();
    let ops = host.start_vzd();
    stopped(&host, &ops);
    let gate = gate();
    let first = begun(&ops, waiting(101, &gate));
    match ops.ask(ops::mount(ct(101))).unwrap_err().reason() {
        Some(Reason::Busy { operation, kind: OpKind::Set, .. }) => assert_eq!(*operation, first.id),
        other => panic!("{other:?}"),
    }
    open_gate(&gate);
    assert_eq!(failure(&first), None);
    host.ask(&ops, ops::mount(ct(101))).unwrap();
}

#[test]
fn whoever_was_told_that_it_has_ended_is_not_told_that_it_is_busy() {
    let host = Host::new();
    let ops = host.start_vzd();
    stopped(&host, &ops);
    for _ in 0..50 {
        host.ask(&ops, ops::mount(ct(101))).unwrap();
        host.ask(&ops, ops::umount(ct(101))).unwrap();
    }
}

#[test]
fn an_operation_that_waits_its_turn_can_be_cancelled_and_does_nothing() {
    let host = Host::new();
    let ops = host.start_vzd();
    running(&host, &ops);
    let gate = gate();
    let first = begun(&ops, waiting(101, &gate));
    let second = begun(&ops, stop().kept());
    ops.cancel(second.id, "uid 0").unwrap();
    open_gate(&gate);
    assert!(matches!(failure(&second), Some(Reason::Cancelled { .. })));
    assert_eq!(failure(&first), None);
    let row = ops.m.inventory.operation(second.id).unwrap().unwrap();
    assert_eq!((row.state, row.ended.is_some()), (OpState::Cancelled, true));
    assert_eq!(ops.m.cell(ct(101)).state().0, CtState::Running);
    let gone = ops.cancel(second.id, "uid 0").unwrap_err();
    assert!(matches!(gone.reason(), Some(Reason::HasEnded { state: OpState::Cancelled })), "{gone:?}");
}

#[test]
fn one_that_is_cancelled_behind_another_does_not_wait_for_its_end() {
    let host = Host::new();
    let ops = host.start_vzd();
    running(&host, &ops);
    let gate = gate();
    let first = begun(&ops, waiting(101, &gate));
    let second = begun(&ops, stop());
    ops.cancel(second.id, "uid 7").unwrap();
    assert!(matches!(failure(&second), Some(Reason::Cancelled { .. })));
    assert!(!first.has_ended());
    open_gate(&gate);
    assert_eq!(failure(&first), None);
}

#[test]
fn a_build_that_waits_for_room_is_queued_and_can_be_cancelled_at_once() {
    let host = Host::new();
    let ops = host.start_vzd();
    let (go, room) = std::sync::mpsc::channel::<()>();
    let room = Arc::new(std::sync::Mutex::new(room));
    for _ in 0..crate::pool::HEAVY {
        let room = room.clone();
        ops.pools.heavy.post(move || {
            let _ = room.lock().unwrap().recv();
        });
    }
    let template = Subject::Template("slow".parse().unwrap());
    let make = |_: &Work| -> crate::error::Result<Box<dyn Run>> { Ok(Box::new(Waits { gate: gate(), waited: false })) };
    let build = begun(&ops, Ask::new(template, Request::plain(OpKind::Build), make));
    // Its driver has come as far as to the queue for room, or is about to.
    std::thread::park_timeout(std::time::Duration::from_millis(50));
    assert_eq!(build.snapshot().state, OpState::Queued);
    ops.cancel(build.id, "uid 7").unwrap();
    assert!(matches!(failure(&build), Some(Reason::Cancelled { .. })));
    drop(go);
}

#[test]
fn whoever_joins_finds_the_operation_under_the_number_it_asked_with_when_it_has_ended() {
    let host = Host::new();
    let ops = host.start_vzd();
    stopped(&host, &ops);
    host.world.state().never_ready = true;
    let first = begun(&ops, start().by("uid 1"));
    block_on("its wait", async {
        let mut follow = first.follow();
        follow.wait_for(|s| s.step == "namespaces").await.map(drop)
    })
    .unwrap();
    let number = new_operation().unwrap();
    let joined = begun(&ops, start().by("uid 2").numbered(Some(number)));
    assert_eq!(joined.id, first.id);
    ops.cancel(number, "uid 3").unwrap();
    let _ = failure(&first);
    let row = ops.m.inventory.operation(number).unwrap().unwrap();
    assert_eq!((row.id, row.state), (first.id, OpState::Cancelled));
    let parts = ops.m.inventory.parts(Some(first.id), 0).unwrap();
    let parts: Vec<_> = parts.iter().map(|p| (p.how.as_str(), p.asker.as_str(), p.number)).collect();
    assert_eq!(parts, [("joined", "uid 2", Some(number)), ("cancelled", "uid 3", None)]);
}

#[test]
fn an_operation_that_is_cancelled_while_it_waits_for_somebody_is_taken_back() {
    let host = Host::new();
    let ops = host.start_vzd();
    stopped(&host, &ops);
    let before = host.look(&ops);
    // Its monitor is never done until it is nudged.
    host.world.state().never_ready = true;
    let handle = begun(&ops, start());
    block_on("its wait", async {
        let mut follow = handle.follow();
        follow.wait_for(|s| s.step == "namespaces").await.map(drop)
    })
    .unwrap();
    ops.cancel(handle.id, "uid 0").unwrap();
    assert!(matches!(failure(&handle), Some(Reason::Cancelled { .. })));
    host.world.state().never_ready = false;
    assert_eq!(host.look(&ops), before);
    host.ask(&ops, start()).unwrap();
}

#[test]
fn a_stop_takes_back_the_start_it_finds_under_way() {
    let host = Host::new();
    let ops = host.start_vzd();
    stopped(&host, &ops);
    host.world.state().never_ready = true;
    let start = begun(&ops, start());
    block_on("its wait", async {
        let mut follow = start.follow();
        follow.wait_for(|s| s.step == "namespaces").await.map(drop)
    })
    .unwrap();
    host.ask(&ops, stop()).unwrap();
    assert!(matches!(failure(&start), Some(Reason::Cancelled { .. })));
    assert_eq!(ops.m.cell(ct(101)).state().0, CtState::Stopped);
}

#[test]
fn a_number_a_client_chose_is_one_operation_however_often_it_asks() {
    let host = Host::new();
    let ops = host.start_vzd();
    stopped(&host, &ops);
    let (gate, id) = (gate(), new_operation().unwrap());
    let first = begun(&ops, waiting(101, &gate).numbered(Some(id)).kept());
    let second = begun(&ops, waiting(101, &gate).numbered(Some(id)).kept());
    assert!(Arc::ptr_eq(&first, &second));
    open_gate(&gate);
    assert_eq!(failure(&first), None);
    let subject = Some(Subject::Ct(ct(101)));
    let all = ops.m.inventory.operations(&Wanted { subject, ..Wanted::default() }).unwrap();
    assert_eq!(all.iter().filter(|o| o.id == id).count(), 1);
}

#[test]
fn hundreds_of_waiting_operations_hold_no_thread_and_reads_are_answered_meanwhile() {
    let host = Host::new();
    let ops = host.start_vzd();
    let changes = |n: u32| settings(&[("bootorder", &n.to_string())]);
    let all: Vec<u32> = (1000..1040).collect();
    let made: Vec<_> = all.iter().map(|n| begun(&ops, create(*n, changes(*n)))).collect();
    assert!(made.iter().all(|h| failure(h).is_none()));
    // Far more than there are threads.
    let gate = gate();
    let mut waits: Vec<_> = all.iter().map(|n| begun(&ops, waiting(*n, &gate))).collect();
    let mut refused = 0;
    for n in 0..500 {
        match ops.ask(ops::mount(ct(all[n % all.len()]))) {
            Ok(Asked::Operation(handle)) => waits.push(handle),
            Ok(Asked::AlreadySo(fact)) => panic!("{fact:?}"),
            Err(e) => {
                assert!(matches!(e.reason(), Some(Reason::Busy { .. } | Reason::TooMany { .. })), "{e:?}");
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 500);
    block_on(
        "a read",
        ops.pools.look.run({
            let m = ops.m.clone();
            move || assert_eq!(m.inventory.containers().unwrap().len(), 40)
        }),
    )
    .unwrap();
    // One that waits for nobody gets its turn meanwhile.
    host.ask(&ops, create(2000, Changes::default())).unwrap();
    open_gate(&gate);
    for handle in &waits {
        assert_eq!(failure(handle), None);
    }
}

#[test]
fn a_step_that_panics_is_a_failed_operation_and_the_next_one_gets_its_turn() {
    let host = Host::new();
    let ops = host.start_vzd();
    stopped(&host, &ops);
    let make = |_: &Work| -> crate::error::Result<Box<dyn Run>> { std::panic::resume_unwind(Box::new("on purpose")) };
    let bad = begun(&ops, Ask::new(Subject::Ct(ct(101)), Request::plain(OpKind::Set), make));
    let ended = block_on("one that panics", bad.ended());
    assert_eq!((ended.state, ended.failure.map(|f| f.code)), (OpState::Failed, Some(ExitCode::System)));
    host.ask(&ops, ops::mount(ct(101))).unwrap();
}

#[test]
fn an_operation_that_panics_half_way_is_finished_before_the_next() {
    let host = Host::new();
    let ops = host.start_vzd();
    stopped(&host, &ops);
    host.world.state().panics_at = Some("attach");
    let bad = begun(&ops, start());
    assert_eq!(block_on("one that panics", bad.ended()).state, OpState::Failed);
    assert_eq!(ops.m.cell(ct(101)).state().0, CtState::Failed);
    host.world.state().panics_at = None;
    host.ask(&ops, ops::mount(ct(101))).unwrap();
    let look = host.look(&ops);
    assert_eq!(look.get("state 101").map(String::as_str), Some("Mounted None"), "{look:#?}");
    assert!(!look.keys().any(|k| k.starts_with("open") || k.starts_with("link 101")), "{look:#?}");
}

#[test]
fn a_set_after_one_that_was_left_open_is_done_and_not_taken_for_the_same() {
    let host = Host::new();
    let ops = host.start_vzd();
    stopped(&host, &ops);
    host.world.state().panics_at = Some("resize");
    let bad = begun(&ops, set(settings(&[("diskspace", "20G"), ("hostname", "first")]), true));
    assert_eq!(block_on("one that panics", bad.ended()).state, OpState::Failed);
    assert_eq!(ops.m.cell(ct(101)).state().0, CtState::Failed);
    host.world.state().panics_at = None;
    host.ask(&ops, set(settings(&[("hostname", "second")]), true)).unwrap();
    let config = ops.m.conf.read(ct(101)).unwrap();
    assert_eq!(config.hostname.as_ref().map(ToString::to_string), Some("second".into()));
    assert_eq!(config.disk.space.0, 20 << 30, "what was left open is finished first");
}

#[test]
fn what_waited_when_vzd_ended_is_told_so_and_not_carried_out() {
    let host = Host::new();
    let ops = host.start_vzd();
    running(&host, &ops);
    let gate = gate();
    let first = begun(&ops, waiting(101, &gate));
    let second = begun(&ops, stop().kept());
    host.world.kill_vzd();
    let next = host.start_vzd();
    let row = next.m.inventory.operation(second.id).unwrap().unwrap();
    assert_eq!((row.state, row.ended.is_some()), (OpState::Failed, true));
    assert!(row.error.is_some_and(|e| e.contains("vzd")), "it says why");
    assert_eq!(next.m.cell(ct(101)).state().0, CtState::Running);
    open_gate(&gate);
    drop((first, ops));
}

/// An operation that an earlier vzd has left at this step, with this note.
fn left_open(ops: &Ops, kind: OpKind, step: &str, note: &str) {
    let row = OperationRow {
        id: new_operation().unwrap(),
        kind,
        subject: Subject::Ct(ct(101)),
        asker: "test".into(),
        state: OpState::Running,
        step: step.into(),
        note: note.into(),
        told: "{}".into(),
        error: None,
        asked: 1,
        begun: Some(1),
        ended: None,
        count: 1,
    };
    ops.m.inventory.change("a test", false, |c| c.operation(&row)).unwrap();
}

#[test]
fn a_destroy_of_what_a_failed_create_has_left_removes_it_and_says_so() {
    let host = Host::new();
    let ops = host.start_vzd();
    other(&host, &ops);
    let before = host.look(&ops);
    host.ask(&ops, create(101, Changes::default())).unwrap();
    left_open(&ops, OpKind::Create, "place", r#"{"v":1,"is":{}}"#);
    let handle = begun(&ops, ops::destroy(ct(101)).kept());
    let ended = block_on("a destroy", handle.ended());
    assert!(ended.failure.is_none() && matches!(ended.facts[..], [Fact::Destroyed { .. }]), "{ended:?}");
    let row = ops.m.inventory.operation(handle.id).unwrap().unwrap();
    assert_eq!((row.state, row.ended.is_some()), (OpState::Done, true));
    host.idle(&ops);
    assert_eq!(host.look(&ops), before);
}

#[test]
fn a_running_container_whose_note_cannot_be_read_says_why_until_it_can() {
    let host = Host::new();
    let ops = host.start_vzd();
    running(&host, &ops);
    left_open(&ops, OpKind::Set, "live", r#"{"v":99,"is":{}}"#);
    host.kill_vzd(ops);
    let ops = host.start_vzd();
    // However often it is looked at what is not understood.
    for _ in 0..2 {
        let (state, trouble) = ops.m.cell(ct(101)).state();
        let cause = trouble.map(|t| t.cause).unwrap_or_default();
        assert!(state == CtState::Unknown && cause.contains("version 99"), "{state:?} {cause}");
        ops::recover::look_again(&ops);
        host.idle(&ops);
    }
    // It can be ended all the same.
    host.ask(&ops, stop()).unwrap();
    assert_ne!(ops.m.cell(ct(101)).state().0, CtState::Running);
}

#[test]
fn passwords_that_stay_although_a_set_was_taken_back_are_told() {
    let host = Host::new();
    let ops = host.start_vzd();
    running(&host, &ops);
    host.kill_vzd(ops);
    let ops = host.start_quiet_vzd();
    let set = |ip: &str| {
        let mut changes = settings(&[("ipadd", ip)]);
        changes.passwords = vec![("root".parse().unwrap(), "$6$x".into())];
        ops::set(ct(101), SetSpec { changes, save: true, mode: None })
    };
    host.world.arm(Trip::Never);
    assert!(matches!(host.carry_out(&ops, set("10.0.0.7")), Came::Done));
    let calls = host.world.disarm();
    let at = |wanted: &dyn Fn(&str) -> bool| calls.iter().rposition(|c| wanted(c)).unwrap();
    let told = |at: usize, ip: &str| {
        host.world.arm(Trip::Fail { at, done: false });
        let came = host.carry_out(&ops, set(ip));
        host.world.disarm();
        let Came::Failed(e) = came else { panic!("{came:?} although {} failed", calls[at]) };
        e.failure().message
    };
    let late = told(at(&|c| c.contains("ending an operation")), "10.0.0.8");
    assert!(late.contains("passwords") && late.contains("stay"), "{late}");
    let early = told(at(&|c| c == "allow"), "10.0.0.9");
    assert!(!early.contains("passwords"), "{early}");
}

#[test]
fn a_container_that_ends_as_soon_as_it_runs_is_cleared_away() {
    let host = Host::new();
    let ops = host.start_vzd();
    other(&host, &ops);
    host.ask(&ops, create(101, Changes::default())).unwrap();
    let before = host.look(&ops);
    host.world.state().short_lived = true;
    let handle = begun(&ops, start());
    let ended = block_on("a start", handle.ended());
    assert!(ended.facts.contains(&Fact::Started), "{ended:?}");
    let until = Instant::now() + PATIENCE;
    while ops.m.cell(ct(101)).state().0 != CtState::Stopped {
        assert!(Instant::now() < until, "nobody noticed");
        std::thread::yield_now();
    }
    host.idle(&ops);
    assert_eq!(host.look(&ops), before);
}
