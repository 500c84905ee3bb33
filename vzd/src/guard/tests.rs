//! The guard beside operations: it looks before and after every call that a `set --ipdel` or a `destroy` makes, and they
//! come before and after every call that a repair makes. However they meet, a container has the link its configuration
//! says, and nothing that was taken away comes back.

use super::look;
use crate::{
    network::{Concern, Expected},
    ops::{
        self, Ask, Asked, Ops,
        tests::{
            every::{running, set, settings, stop},
            host::{Host, Look, Moment, block_on, ct},
        },
    },
};
use std::sync::{Arc, Mutex};

struct Meeting {
    name: &'static str,
    asks: &'static [fn() -> Ask],
}

const MEETINGS: &[Meeting] = &[
    Meeting { name: "set --ipdel", asks: &[|| set(settings(&[("ipdel", "10.0.0.2")]), true)] },
    Meeting {
        name: "set of another address",
        asks: &[|| set(settings(&[("ipdel", "all"), ("ipadd", "10.0.0.3")]), true)],
    },
    Meeting { name: "stop and destroy", asks: &[stop, || ops::destroy(ct(101))] },
    Meeting { name: "restart", asks: &[|| ops::restart(ct(101), false, true)] },
];

fn moment(host: &Host) -> Moment {
    let ops = host.start_vzd();
    running(host, &ops);
    host.idle(&ops);
    host.keep(ops)
}

/// What the guard does when it wakes up, and when the kernel told it of 101.
fn guard(ops: &Arc<Ops>) {
    look(ops, &Concern::Everything).unwrap();
    look(ops, &Concern::Only([ct(101)].into())).unwrap();
}

impl Meeting {
    fn ask(&self, host: &Host, ops: &Arc<Ops>) {
        self.asks.iter().for_each(|ask| host.ask(ops, ask()).unwrap());
        host.idle(ops);
    }

    /// How it ends, and the calls on the way.
    fn undisturbed(&self, host: &Host, moment: &Moment) -> (Look, Vec<String>) {
        host.put_back(moment);
        let ops = host.start_vzd();
        host.world.arm(crate::hands::fake::Trip::Never);
        self.ask(host, &ops);
        let calls = host.world.disarm();
        let look = host.look(&ops);
        assert_eq!(look.keys().find(|k| k.starts_with("wrong")), None, "{}", self.name);
        host.kill_vzd(ops);
        (look, calls)
    }
}

fn difference(is: &Look, wanted: &Look) -> Vec<String> {
    let more = is.iter().filter(|(k, v)| wanted.get(*k) != Some(v)).map(|(k, v)| format!("+ {k}: {v}"));
    let less = wanted.iter().filter(|(k, v)| is.get(*k) != Some(v)).map(|(k, v)| format!("- {k}: {v}"));
    more.chain(less).collect()
}

#[test]
fn a_guard_that_looks_at_any_moment_of_an_operation_brings_nothing_back() {
    for meeting in MEETINGS {
        let host = Host::new();
        let moment = moment(&host);
        let (wanted, calls) = meeting.undisturbed(&host, &moment);
        let mut met = 0;
        for (at, call) in calls.iter().enumerate().filter(|(_, call)| !call.starts_with("inventory: ")) {
            for (done, broken) in [(false, false), (true, false), (false, true), (true, true)] {
                host.put_back(&moment);
                let ops = host.start_vzd();
                host.world.arm(crate::hands::fake::Trip::Never);
                let (world, of) = (host.world.clone(), ops.clone());
                host.world.meanwhile(at, done, move || {
                    if broken {
                        world.state().links.entry(ct(101)).and_modify(|routes| routes.clear());
                    }
                    guard(&of);
                });
                meeting.ask(&host, &ops);
                met += usize::from(host.world.has_met());
                host.world.disarm();
                // What it lacked while nobody could see to it is seen at the next look.
                guard(&ops);
                host.idle(&ops);
                let wrong = difference(&host.look(&ops), &wanted);
                assert!(wrong.is_empty(), "{} at `{call}` ({done}, {broken}):\n{}", meeting.name, wrong.join("\n"));
                host.world.meanwhile(usize::MAX, false, || ());
                host.kill_vzd(ops);
            }
        }
        println!("{:<24} {met} meetings at {} calls", meeting.name, calls.len());
        assert!(met > calls.len(), "{}: the guard came {met} times in {} calls", meeting.name, calls.len());
    }
}

#[test]
fn an_operation_that_comes_at_any_moment_of_a_repair_is_not_undone_by_it() {
    for meeting in MEETINGS {
        let host = Host::new();
        let moment = moment(&host);
        let (wanted, _) = meeting.undisturbed(&host, &moment);
        let repair = |meanwhile: &dyn Fn(&Arc<Ops>)| {
            host.put_back(&moment);
            let ops = host.start_vzd();
            host.world.state().links.remove(&ct(101));
            host.world.arm(crate::hands::fake::Trip::Never);
            meanwhile(&ops);
            look(&ops, &Concern::Everything).unwrap();
            host.idle(&ops);
            (ops, host.world.disarm())
        };
        let (ops, calls) = repair(&|_| ());
        assert!(host.world.state().links.contains_key(&ct(101)), "it is repaired");
        host.kill_vzd(ops);
        for needed in ["lacking", "repair"] {
            assert!(calls.iter().any(|c| c == needed), "{calls:?}");
        }
        for (at, call) in calls.iter().enumerate() {
            for done in [false, true] {
                let asked: Arc<Mutex<Vec<Arc<ops::Handle>>>> = Arc::default();
                let (ops, _) = repair(&|ops| {
                    let (of, kept, asks, first) = (ops.clone(), asked.clone(), meeting.asks, call == "lacking");
                    host.world.meanwhile(at, done, move || {
                        // The guard has looked, and everything is over before it says so; or the first is asked for while
                        // the driver is at the repair, and the others after it.
                        for ask in if first { asks } else { &asks[..1] } {
                            let Asked::Operation(handle) = of.ask(ask()).unwrap() else { panic!("nothing to do") };
                            if first {
                                assert_eq!(block_on("an operation", handle.ended()).failure, None);
                            }
                            kept.lock().unwrap().push(handle);
                        }
                    });
                });
                assert!(host.world.has_met(), "{} at `{call}` ({done})", meeting.name);
                let asked = asked.lock().unwrap().clone();
                for handle in &asked {
                    assert_eq!(block_on("an operation", handle.ended()).failure, None, "{} at `{call}`", meeting.name);
                }
                meeting.asks[asked.len()..].iter().for_each(|ask| host.ask(&ops, ask()).unwrap());
                host.idle(&ops);
                let wrong = difference(&host.look(&ops), &wanted);
                assert!(wrong.is_empty(), "{} at `{call}` ({done}):\n{}", meeting.name, wrong.join("\n"));
                host.kill_vzd(ops);
            }
        }
    }
}

/// That the two above would notice.
#[test]
fn a_repair_by_what_was_seen_before_would_bring_back_what_a_set_has_taken_away() {
    let host = Host::new();
    let ops = host.start_vzd();
    running(&host, &ops);
    let live = ops.m.cell(ct(101)).live_now(&ops.m.paths.ct_run(ct(101))).unwrap();
    let before = Expected::of(live.record);
    host.ask(&ops, (MEETINGS[0].asks[0])()).unwrap();
    ops.m.hands.network.repair(&before).unwrap();
    assert_ne!(host.world.state().wrongs, Vec::<String>::new());
}

#[test]
fn nothing_is_posted_where_nothing_is_wrong_and_once_where_something_is() {
    let host = Host::new();
    let ops = host.start_vzd();
    running(&host, &ops);
    host.world.arm(crate::hands::fake::Trip::Never);
    look(&ops, &Concern::Everything).unwrap();
    host.idle(&ops);
    assert_eq!(host.world.disarm(), ["lacking"], "one look for all of them");
    // While the driver is at the first, three more are one.
    host.world.state().links.remove(&ct(101));
    host.world.arm(crate::hands::fake::Trip::Never);
    let of = ops.clone();
    host.world.meanwhile(1, false, move || (0..3).for_each(|_| look(&of, &Concern::Everything).unwrap()));
    look(&ops, &Concern::Everything).unwrap();
    host.idle(&ops);
    let calls = host.world.disarm();
    assert_eq!(calls.iter().filter(|c| *c == "repair").count(), 2, "{calls:?}");
    assert_eq!(
        ops.m.inventory.operations(&crate::inventory::Wanted::default()).unwrap().len(),
        4,
        "no row is kept of it"
    );
}
