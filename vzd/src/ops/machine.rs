//! Carrying an operation out, step by step: forward, or back after a failure or on a cancel. It holds no thread while
//! it waits: it is advanced until it parks or ends, and advanced again when what it waits for is there.

use super::{
    Work,
    step::{Flow, Operation, Resume, Step, Wait},
};
use crate::{
    ct::settle,
    error::{Error, Result},
};
use std::time::Instant;
use vz_types::{CtState, OpState, Reason, state::Trouble};

/// What an operation came to for now.
#[derive(Debug)]
pub enum Advance {
    /// It waits.
    Parked(Wait),
    /// It has ended, and how.
    Ended(Result<()>),
}

/// An operation, whichever.
pub trait Run: Send {
    /// Goes on until it has to wait or has ended.
    fn advance(&mut self, work: &Work) -> Advance;
}

enum Mode {
    Forward,
    /// Takes back from here; what for.
    Back(Error),
}

/// An operation under way.
pub struct Machine<O: Operation> {
    op: O,
    steps: Vec<Step<O>>,
    at: usize,
    mode: Mode,
    /// The step at `at` has begun; since then.
    begun: Option<Instant>,
    /// After a crash: it is done again from here once it has been taken back to here.
    again: Option<usize>,
}

impl<O: Operation> Machine<O> {
    /// One that is to begin.
    pub fn fresh(op: O) -> Box<dyn Run> {
        Box::new(Self { op, steps: O::steps(), at: 0, mode: Mode::Forward, begun: None, again: None })
    }

    /// One that was cut short in or after this step.
    ///
    /// # Errors
    /// It has no such step: another version wrote it.
    pub fn resumed(mut op: O, work: &Work, step: &str) -> Result<Box<dyn Run>> {
        let steps = O::steps();
        let place = |name: &str| steps.iter().position(|s| s.name == name);
        let unknown = |name: &str| {
            let message = format!("{} has no step `{name}` in this version", O::KIND);
            Error::refused(vz_types::ExitCode::System, message, "start the version of vz that began it")
        };
        // What an earlier version called its first step.
        let at = match step {
            "" | "journal" => place(step).unwrap_or(0),
            step => place(step).ok_or_else(|| unknown(step))?,
        };
        let onward = steps[at].onward;
        let ended = || {
            let reason = Reason::VzdEnded { kind: O::KIND, step: step.to_owned() };
            Error::Denied { reason, subject: work.handle.subject.clone() }
        };
        let (at, mode, again) = match op.how(work, step, onward)? {
            Resume::Forward => (at, Mode::Forward, None),
            Resume::At(name) => (place(name).ok_or_else(|| unknown(name))?, Mode::Forward, None),
            Resume::Back => (at, Mode::Back(ended()), None),
            Resume::Again(name) => {
                let from = place(name).ok_or_else(|| unknown(name))?;
                (at.max(from), Mode::Back(ended()), Some(from))
            }
        };
        Ok(Box::new(Self { op, steps, at, mode, begun: None, again }))
    }

    fn forward(&mut self, w: &Work) -> Result<Option<Wait>> {
        let kind = O::KIND.word();
        while let Some(step) = self.steps.get(self.at) {
            if !(step.when)(&self.op) {
                self.at += 1;
                continue;
            }
            let all = self.steps.len();
            let cancellable = !step.onward && !w.has_finished();
            // Its name and its place in one: who follows sees no step twice.
            let (name, at, begins) = (step.name, self.at, self.begun.is_none());
            w.handle.change(|s| {
                (s.steps, s.cancellable) = ((at, all), cancellable);
                if begins {
                    (s.step, s.progress) = (name, None);
                }
            });
            if cancellable && w.is_cancelled() {
                return Err(Error::Denied {
                    reason: Reason::Cancelled { kind: O::KIND },
                    subject: w.handle.subject.clone(),
                });
            }
            if self.begun.is_none() {
                w.m.fault.reach(kind, name, true);
                self.begun = Some(Instant::now());
                match w.at(name) {
                    Ok(()) => {}
                    // That it cannot be noted (a full disk) keeps nothing from being taken down.
                    Err(e) if step.onward || step.tolerant => {
                        tracing::warn!(subject = %w.handle.subject, op = kind, step = name, "{}", e.report());
                    }
                    Err(e) => return Err(self.failed(w, e)),
                }
            }
            match (step.does)(&mut self.op, w) {
                Ok(Flow::Wait(wait)) => return Ok(Some(wait)),
                Ok(Flow::Done) => {}
                Err(e) if step.tolerant => {
                    tracing::warn!(subject = %w.handle.subject, op = kind, step = name, "{}", e.report());
                    w.problem(self.failed(w, e).report(), !step.forgiven);
                }
                // What was cancelled ends with whatever it fails with then.
                Err(e) if cancellable && w.is_cancelled() => {
                    tracing::debug!(subject = %w.handle.subject, op = kind, step = name, "{}", e.report());
                    return Err(Error::Denied {
                        reason: Reason::Cancelled { kind: O::KIND },
                        subject: w.handle.subject.clone(),
                    });
                }
                Err(e) => return Err(self.failed(w, e)),
            }
            let us = self.begun.take().map_or(0, |b| u64::try_from(b.elapsed().as_micros()).unwrap_or(u64::MAX));
            tracing::debug!(subject = %w.handle.subject, op = kind, step = name, took_us = us);
            w.handle.change(|s| s.times.push((name.to_owned(), us)));
            w.m.fault.reach(kind, name, false);
            self.at += 1;
        }
        Ok(None)
    }

    /// A failure with the step it came from. A refusal is none of a step; nor is what keeps it from beginning.
    fn failed(&self, w: &Work, e: Error) -> Error {
        match e {
            e @ (Error::Refused { .. } | Error::Denied { .. } | Error::Step { .. }) => e,
            e if !w.has_begun() && self.at == 0 => e,
            e => Error::Step {
                kind: O::KIND,
                subject: w.handle.subject.clone(),
                step: self.steps.get(self.at).map_or("", |s| s.name),
                source: Box::new(e),
            },
        }
    }

    /// Takes back every step from the one at hand to `to`. What could not be.
    fn back(&mut self, w: &Work, to: usize) -> Vec<String> {
        let mut problems = Vec::new();
        let last = self.at.min(self.steps.len().saturating_sub(1));
        for i in (to..=last).rev() {
            let step = &self.steps[i];
            let Some(undoes) = step.undoes.as_ref().filter(|_| (step.when)(&self.op)) else { continue };
            if let Err(e) = undoes(&mut self.op, w) {
                tracing::warn!(subject = %w.handle.subject, op = O::KIND.word(), step = step.name, "undo: {}", e.report());
                problems.push(format!("{}: {}", step.name, e.report()));
            }
        }
        problems
    }

    /// Ends what could not be carried through.
    fn give_up(&mut self, w: &Work, error: Error) -> Error {
        let cancelled = matches!(error.reason(), Some(Reason::Cancelled { .. }));
        // One that was refused has done nothing yet.
        let problems = if w.has_begun() { self.back(w, 0) } else { Vec::new() };
        let error = match self.op.stays().filter(|_| w.has_begun()) {
            Some(stays) => Error::Stays { cause: Box::new(error), stays: stays.to_owned() },
            None => error,
        };
        let step = self.steps.get(self.at).map_or("", |s| s.name);
        // What only goes forward and fails is neither the old state nor the new one.
        let stuck = self.steps.get(self.at).is_some_and(|s| s.onward) && !cancelled || w.has_left_something();
        let stuck = stuck && w.has_begun();
        if problems.is_empty() && !stuck {
            let state = if cancelled { OpState::Cancelled } else { OpState::Failed };
            let failure = error.failure();
            let found = w.handle.subject.ctid().map(|ctid| settle::found(&w.m, ctid));
            w.fail(state, &failure, None, |c| Ok(self.op.taken_back(w, c)?.or(found)));
            return error;
        }
        let cause = if problems.is_empty() { error.report() } else { problems.join("; ") };
        let error = if problems.is_empty() { error } else { Error::Stuck { cause: Box::new(error), problems } };
        if !w.has_begun() {
            return error;
        }
        let trouble = Trouble { operation: Some(w.handle.id), kind: Some(O::KIND), step: step.to_owned(), cause };
        w.fail(OpState::Failed, &error.failure(), Some(&trouble), |_| Ok(Some(CtState::Failed)));
        error
    }
}

impl<O: Operation> Run for Machine<O> {
    fn advance(&mut self, w: &Work) -> Advance {
        if let (Mode::Back(_), Some(from)) = (&self.mode, self.again.take()) {
            let problems = self.back(w, from);
            if problems.is_empty() {
                (self.at, self.mode, self.begun) = (from, Mode::Forward, None);
            }
        }
        loop {
            match std::mem::replace(&mut self.mode, Mode::Forward) {
                Mode::Forward => match self.forward(w) {
                    Ok(Some(wait)) => return Advance::Parked(wait),
                    Ok(None) => {
                        let problems = w.problems();
                        let result = match w.handle.subject.ctid() {
                            Some(ctid) if !problems.is_empty() => Err(Error::Teardown { ctid, problems }),
                            _ => Ok(()),
                        };
                        return Advance::Ended(result);
                    }
                    // What was finished stays so.
                    Err(e) if w.has_finished() => return Advance::Ended(Err(e)),
                    Err(e) => self.mode = Mode::Back(e),
                },
                Mode::Back(error) => return Advance::Ended(Err(self.give_up(w, error))),
            }
        }
    }
}
