//! One operation, with everything that can go wrong in it going wrong: each call of the machine fails, once and for
//! good, before and after it has done its work; and vzd dies there, and before and after each step.
//!
//! The promise: it ends in the state it was asked in or in the one that was asked for, never in between, and can be
//! asked for again. Where its undo fails as well, it stays open and says so, and asking again finishes it first.

use super::host::{Came, Host, Look, Moment};
use crate::{
    hands::fake::{Trip, has_effect},
    ops::{Ask, Ops, recover},
};
use std::{sync::Arc, time::Instant};
use vz_types::OpKind;

/// What is swept.
pub struct Sweep {
    /// Its name in the table.
    pub name: &'static str,
    /// Brings the host to where it is asked for.
    pub before: fn(&Host, &Arc<Ops>),
    /// What happens while vzd runs, just before it is asked for.
    pub then: fn(&Host),
    /// Asks for it.
    pub ask: fn() -> Ask,
    /// Bring the host from there to a state that counts as well, where there is one.
    pub also: &'static [fn() -> Ask],
    /// Monitors that lose their vzd are not done when the next one looks.
    pub slow: bool,
}

/// How often it came to what.
#[derive(Debug, Default)]
pub struct Tally {
    pub calls: usize,
    pub points: usize,
    pub old: usize,
    pub new: usize,
    /// It stayed open, said so, and was finished first when it was asked for again.
    pub open: usize,
}

struct Ends {
    old: Look,
    new: Look,
    also: Option<Look>,
}

impl Ends {
    fn is_one(&self, look: &Look) -> bool {
        *look == self.old || *look == self.new || self.also.as_ref() == Some(look)
    }

    /// What is not as in the end that is nearest.
    fn difference(&self, look: &Look) -> String {
        let ends = [Some(("old", &self.old)), Some(("new", &self.new)), self.also.as_ref().map(|a| ("other", a))];
        let differences = ends.into_iter().flatten().map(|(name, end)| {
            let line = |sign: char, (key, value): (&String, &String)| {
                let value: String = value.chars().take(200).collect();
                format!("     {sign} {key}: {}", value.replace('\n', "; "))
            };
            let more = look.iter().filter(|(k, v)| end.get(*k) != Some(v)).map(|kv| line('+', kv));
            let less = end.iter().filter(|(k, v)| look.get(*k) != Some(v)).map(|kv| line('-', kv));
            let lines: Vec<String> = more.chain(less).collect();
            (lines.len(), format!("   against the {name} state:\n{}", lines.join("\n")))
        });
        differences.min().map(|(_, text)| text).unwrap_or_default()
    }
}

impl Sweep {
    pub fn run(&self) -> Tally {
        let began = Instant::now();
        let host = Host::new();
        host.world.state().slow = self.slow;
        let ops = host.start_vzd();
        (self.before)(&host, &ops);
        host.idle(&ops);
        let moment = host.keep(ops);
        let (ends, calls) = self.undisturbed(&host, &moment);
        let mut tally = Tally { calls: calls.len(), ..Tally::default() };
        let mut wrong: Vec<String> = Vec::new();
        for (at, call) in calls.iter().enumerate() {
            let trips = [
                Trip::Fail { at, done: false },
                Trip::Fail { at, done: true },
                Trip::FailFrom { at },
                Trip::Die { at, done: false },
                Trip::Die { at, done: true },
            ];
            let differs = |t: &Trip| {
                has_effect(call) || !matches!(t, Trip::Fail { done: true, .. } | Trip::Die { done: true, .. })
            };
            for trip in trips.into_iter().filter(differs) {
                if let Err(what) = self.once(&host, &moment, &ends, trip, &mut tally) {
                    wrong.push(format!("{trip:?} at `{call}`: {what}"));
                }
            }
        }
        println!(
            "{:<28} {:>4} calls {:>5} ways to go wrong: {:>4} old {:>4} new {:>3} open, then finished; {} ms",
            self.name,
            tally.calls,
            tally.points,
            tally.old,
            tally.new,
            tally.open,
            began.elapsed().as_millis()
        );
        assert!(wrong.is_empty(), "{}: {} of {}:\n{}", self.name, wrong.len(), tally.points, wrong.join("\n"));
        assert!(tally.points >= tally.calls, "{}: a call was left out", self.name);
        tally
    }

    /// What it looks like before and after, and every call on the way.
    fn undisturbed(&self, host: &Host, moment: &Moment) -> (Ends, Vec<String>) {
        host.put_back(moment);
        let ops = host.start_quiet_vzd();
        (self.then)(host);
        let old = host.look(&ops);
        host.world.arm(Trip::Never);
        let came = host.carry_out(&ops, (self.ask)());
        let calls = host.world.disarm();
        assert!(matches!(came, Came::Done), "{}: {came:?}", self.name);
        let new = host.look(&ops);
        assert_eq!(new.keys().find(|k| k.starts_with("wrong") || k.starts_with("open")), None, "{}", self.name);
        host.kill_vzd(ops);
        let also = (!self.also.is_empty()).then(|| {
            host.put_back(moment);
            let ops = host.start_quiet_vzd();
            (self.then)(host);
            self.also.iter().for_each(|ask| host.ask(&ops, ask()).unwrap());
            let look = host.look(&ops);
            host.kill_vzd(ops);
            look
        });
        (Ends { old, new, also }, calls)
    }

    /// vzd dies after each step, and the next one at each call it makes to recover from that.
    pub fn run_twice(&self) {
        let began = Instant::now();
        let host = Host::new();
        let ops = host.start_vzd();
        (self.before)(&host, &ops);
        let moment = host.keep(ops);
        let (ends, calls) = self.undisturbed(&host, &moment);
        let mut tally = Tally::default();
        let mut wrong: Vec<String> = Vec::new();
        for at in (0..calls.len()).filter(|at| calls[*at].contains('.') && !calls[*at].ends_with(".before")) {
            for again in 0.. {
                host.put_back(&moment);
                let ops = host.start_quiet_vzd();
                host.world.arm(Trip::Die { at, done: true });
                let came = host.carry_out(&ops, (self.ask)());
                host.world.disarm();
                host.kill_vzd(ops);
                host.world.arm(Trip::Die { at: again, done: again % 2 == 0 });
                host.start_and_lose_vzd();
                let tripped = host.world.state().tripped;
                let died_at = host.world.disarm();
                let ops = host.start_vzd();
                tally.points += usize::from(tripped);
                if let Err(what) = self.check(&host, &ops, &ends, &came, &mut tally) {
                    wrong.push(format!("died after `{}`, and then at {:?}: {what}", calls[at], died_at.last()));
                }
                host.kill_vzd(ops);
                if !tripped {
                    break;
                }
            }
        }
        println!(
            "{:<28} killed twice in {:>4} ways: {:>4} old {:>4} new; {} ms",
            self.name,
            tally.points,
            tally.old,
            tally.new,
            began.elapsed().as_millis()
        );
        assert!(wrong.is_empty(), "{}: {} of {}:\n{}", self.name, wrong.len(), tally.points, wrong.join("\n"));
    }

    fn once(&self, host: &Host, moment: &Moment, ends: &Ends, trip: Trip, tally: &mut Tally) -> Result<(), String> {
        host.put_back(moment);
        let mut ops = host.start_quiet_vzd();
        (self.then)(host);
        host.world.arm(trip);
        let came = host.carry_out(&ops, (self.ask)());
        let tripped = host.world.state().tripped;
        host.world.disarm();
        if !tripped {
            // A call that cannot fail.
            host.kill_vzd(ops);
            return Ok(());
        }
        tally.points += 1;
        // What could not be written is, as soon as something is: housekeeping sees to that.
        if !matches!(came, Came::Died) {
            ops.m.catch_up();
        }
        let subject = (self.ask)().subject;
        let is_open = host.look(&ops).keys().any(|k| k.starts_with("open"));
        // What is open on a template is finished by the next vzd; what is left of an end is looked for from time to time.
        if matches!(came, Came::Failed(_)) && (self.ask)().request.kind == OpKind::Clear && !is_open {
            recover::look_again(&ops);
            host.idle(&ops);
        }
        if matches!(came, Came::Died) || is_open && subject.ctid().is_none() {
            host.kill_vzd(ops);
            ops = host.start_vzd();
            if self.slow {
                host.world.state().catch_up();
            }
        }
        let checked = self.check(host, &ops, ends, &came, tally);
        host.kill_vzd(ops);
        checked.map_err(|what| format!("{came:?}\n{what}"))
    }

    fn check(&self, host: &Host, ops: &Arc<Ops>, ends: &Ends, came: &Came, tally: &mut Tally) -> Result<(), String> {
        let look = host.look(ops);
        let is_open = look.keys().any(|k| k.starts_with("open"));
        if ends.is_one(&look) {
            *(if look == ends.new { &mut tally.new } else { &mut tally.old }) += 1;
        } else if is_open && matches!(came, Came::Failed(_)) {
            let says = look.iter().any(|(k, v)| k.starts_with("in memory") && v.contains("Failed"));
            if !says {
                return Err(format!("it stays open and does not say so:\n{}", ends.difference(&look)));
            }
            tally.open += 1;
        } else {
            return Err(format!("it ends in between:\n{}", ends.difference(&look)));
        }
        if matches!(came, Came::Done) && look != ends.new {
            return Err("it says it is done, and is not".into());
        }
        // Again.
        let again = host.ask(ops, (self.ask)());
        host.idle(ops);
        let after = host.look(ops);
        match again {
            _ if after != ends.new && (after != look || ends.also.as_ref() != Some(&look)) => {
                Err(format!("asked again ({again:?}):\n{}", ends.difference(&after)))
            }
            Err(failure) if look != ends.new && !is_open => Err(format!("asked again: {failure:?}")),
            _ => Ok(()),
        }
    }
}
