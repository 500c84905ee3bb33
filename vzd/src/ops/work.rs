//! What a step has at hand: the manager, its operation's handle, and the writing down of both.

use super::{Ask, Handle};
use crate::{
    error::{Error, Result},
    inventory::{self, Change, NewEvent, OperationRow, Part, Share},
    manager::{Manager, new_operation, now, now_ms},
};
use serde::Serialize;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use vz_types::{CtState, Ctid, Fact, OpId, OpState, op::Failure, op::Progress, settings::Changes, state::Trouble};

/// One operation under way, seen from its steps.
#[derive(Debug)]
pub struct Work {
    /// Everything there is.
    pub m: Arc<Manager>,
    /// The operation.
    pub handle: Arc<Handle>,
    begun: AtomicBool,
    finished: AtomicBool,
    problems: Mutex<Vec<String>>,
    left: AtomicBool,
    note: Mutex<String>,
    next: Mutex<Option<Ask>>,
}

/// The note of an operation that has not begun and follows another.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Follows {
    /// Which.
    pub follows: OpId,
}

/// What is written down of an operation's end, in one transaction.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) durable: bool,
    ctid: Option<Ctid>,
    row: Option<OperationRow>,
    part: Option<Part>,
    next: Option<OperationRow>,
    state: Option<CtState>,
    trouble: Option<Trouble>,
    event: Option<(&'static str, String)>,
    by: (OpId, String),
}

impl Ending {
    /// Answers the number of its event; 0: there is none.
    pub(super) fn write(&self, c: &Change<'_>) -> inventory::Result<i64> {
        self.next.iter().chain(&self.row).try_for_each(|row| c.operation(row))?;
        self.part.iter().try_for_each(|part| c.part(part))?;
        if let (Some(ctid), Some(state)) = (self.ctid, self.state) {
            c.state(ctid, state, self.trouble.as_ref())?;
        }
        match (self.ctid, &self.event) {
            (Some(ctid), Some((kind, text))) => {
                let by = Some((self.by.0, self.by.1.as_str()));
                c.event(&NewEvent { ctid, at: now(), kind, counter: None, count: 1, text, by })
            }
            _ => Ok(0),
        }
    }
}

/// How an operation ends.
#[derive(Debug, Default)]
pub struct End {
    /// On disk before anybody is told.
    pub durable: bool,
    /// Where the container is then; `None`: where it was, or it is gone.
    pub state: Option<CtState>,
    /// What has happened to it: the kind of event, and what, for people.
    pub event: Option<(&'static str, String)>,
}

impl Work {
    /// For an operation that is about to begin.
    pub fn new(m: Arc<Manager>, handle: Arc<Handle>) -> Self {
        Self {
            m,
            handle,
            begun: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            problems: Mutex::default(),
            left: AtomicBool::new(false),
            note: Mutex::new("{}".into()),
            next: Mutex::default(),
        }
    }

    /// For one that an earlier vzd has begun.
    pub fn resumed(m: Arc<Manager>, handle: Arc<Handle>, note: &str) -> Self {
        let work = Self::new(m, handle);
        work.begun.store(true, Ordering::Release);
        work.handle.kept.store(true, Ordering::Release);
        *crate::manager::lock(&work.note) = note.to_owned();
        work
    }

    /// The container it is about. Operations on containers have one.
    ///
    /// # Errors
    /// It is about something else.
    pub fn ctid(&self) -> Result<Ctid> {
        self.handle.subject.ctid().ok_or_else(|| {
            Error::refused(vz_types::ExitCode::System, format!("{} is not a container", self.handle.subject), "")
        })
    }

    /// Something to be told.
    pub fn tell(&self, fact: Fact) {
        self.handle.change(|s| s.facts.push(fact));
    }

    /// What is to be set, for the record.
    pub(super) fn asked_for(&self, changes: &Changes) {
        if !changes.asked.is_empty() {
            self.tell(Fact::Asked { settings: changes.asked.clone() });
        }
    }

    /// How far the step is.
    pub fn progress(&self, done: u64, total: Option<u64>, unit: &str) {
        self.handle.change(|s| s.progress = Some(Progress { done, total, unit: unit.to_owned() }));
    }

    /// A line of what is being done.
    pub fn say(&self, line: &str) {
        self.handle.change(|s| s.line = line.to_owned());
    }

    /// A line of its log, for those who follow.
    pub fn log(&self, line: &str) {
        self.handle.log(line);
    }

    /// Whether somebody wants it to end.
    pub fn is_cancelled(&self) -> bool {
        self.handle.is_cancelled()
    }

    /// Whether the operation is written down as under way.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether its outcome is written down.
    pub fn has_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// A part of a teardown failed; the rest goes on. `left`: with something left that is nobody's.
    pub(super) fn problem(&self, text: String, left: bool) {
        crate::manager::lock(&self.problems).push(text);
        self.left.fetch_or(left, Ordering::AcqRel);
    }

    /// Whether a teardown has left something that is nobody's.
    pub(super) fn has_left_something(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// What a teardown has left is in use again.
    pub(super) fn nothing_is_left(&self) {
        self.left.store(false, Ordering::Release);
        crate::manager::lock(&self.problems).clear();
    }

    /// What of a teardown failed so far.
    pub fn problems(&self) -> Vec<String> {
        crate::manager::lock(&self.problems).clone()
    }

    /// When this operation is done, that one follows at once, before whatever else waits for the same container. It is an
    /// operation of its own, written down with the end of this one.
    ///
    /// # Errors
    /// The kernel gives no random bytes for its number.
    pub fn then(&self, ask: Ask) -> Result<()> {
        let id = new_operation()?;
        let ask = ask.by(self.handle.asker.clone()).numbered(Some(id)).after(self.handle.id);
        self.tell(Fact::Follows { kind: ask.request.kind, operation: id });
        *crate::manager::lock(&self.next) = Some(ask);
        Ok(())
    }

    /// What follows it now that it is done, if something does.
    pub(super) fn next(&self) -> Option<Ask> {
        crate::manager::lock(&self.next).take()
    }

    /// Its row as it is now.
    pub(super) fn row(&self, state: OpState, failure: Option<&Failure>, ended: bool) -> OperationRow {
        let now = self.handle.snapshot();
        let told = serde_json::json!({ "facts": now.facts, "times": now.times, "result": now.result });
        OperationRow {
            id: self.handle.id,
            kind: self.handle.kind,
            subject: self.handle.subject.clone(),
            asker: self.handle.asker.clone(),
            state,
            step: now.step.to_owned(),
            note: crate::manager::lock(&self.note).clone(),
            told: told.to_string(),
            error: failure.and_then(|f| serde_json::to_string(f).ok()),
            asked: self.handle.asked,
            begun: now.begun,
            ended: ended.then(now_ms),
            count: 1,
        }
    }

    /// Writes it down before its first side effect, with its note, with the state the container is in meanwhile, and with
    /// what belongs to it (`f`), in one transaction.
    ///
    /// # Errors
    /// The inventory's; then nothing has happened.
    pub fn begin<T>(
        &self,
        note: &impl Serialize,
        state: Option<CtState>,
        durable: bool,
        f: impl FnOnce(&Change<'_>) -> inventory::Result<T>,
    ) -> Result<T> {
        *crate::manager::lock(&self.note) = envelope(note);
        self.handle.change(|s| s.begun = Some(now_ms()));
        let row = self.row(OpState::Running, None, false);
        let ctid = self.handle.subject.ctid();
        let out = self.change("beginning an operation", durable, |c| {
            let out = f(c)?;
            c.operation(&row)?;
            if let (Some(ctid), Some(state)) = (ctid, state) {
                c.state(ctid, state, None)?;
            }
            Ok(out)
        })?;
        self.handle.kept.store(true, Ordering::Release);
        self.has_begun_as(state);
        Ok(out)
    }

    /// It has begun, in memory.
    pub(super) fn has_begun_as(&self, state: Option<CtState>) {
        self.begun.store(true, Ordering::Release);
        if let (Some(ctid), Some(state)) = (self.handle.subject.ctid(), state) {
            self.m.cell(ctid).set(state, None);
        }
    }

    /// Writes what is of this operation. What makes room may use the inventory's reserve, and so may what has begun: it is to
    /// end as what it came to.
    ///
    /// # Errors
    /// The inventory's.
    pub(super) fn change<T>(
        &self,
        what: &'static str,
        durable: bool,
        f: impl FnOnce(&Change<'_>) -> inventory::Result<T>,
    ) -> inventory::Result<T> {
        let share = if self.has_begun() { Share::Reserve } else { super::driver::share_of(self.handle.kind) };
        self.m.inventory.change_from(share, what, durable, f)
    }

    /// Replaces what recovery is told.
    ///
    /// # Errors
    /// The inventory's.
    pub fn note(&self, note: &impl Serialize) -> Result<()> {
        let text = envelope(note);
        if self.has_begun() {
            self.change("noting how far an operation is", false, |c| c.operation_note(self.handle.id, &text))?;
        }
        *crate::manager::lock(&self.note) = text;
        Ok(())
    }

    /// Notes the step that is about to be done.
    pub(super) fn at(&self, step: &'static str) -> Result<()> {
        if self.has_begun() && !self.has_finished() {
            self.change("noting a step", false, |c| c.operation_step(self.handle.id, step))?;
        }
        Ok(())
    }

    /// Writes its outcome down: with it, in one transaction, the container's state, what has happened, and what belongs
    /// to it (`f`). Problems of a teardown make it a failure, and what was taken down stays so; where something is left
    /// the operation stays open, and the container is in trouble until whoever comes next has finished it.
    ///
    /// # Errors
    /// The inventory's; then it has not ended, and is finished by the next operation on its subject or the next vzd.
    pub fn finish(&self, end: End, f: impl FnOnce(&Change<'_>) -> inventory::Result<()>) -> Result<()> {
        let ending = self.ending(end);
        let event = self.change("ending an operation", ending.durable, |c| {
            f(c)?;
            ending.write(c)
        })?;
        self.has_ended(&ending);
        if event > 0 {
            self.m.ring(event);
        }
        Ok(())
    }

    /// Everything that is to be written down of its end.
    pub(super) fn ending(&self, end: End) -> Ending {
        let ctid = self.handle.subject.ctid();
        let problems = self.problems();
        let failure = match (ctid, problems.is_empty()) {
            (Some(ctid), false) => Some(Error::Teardown { ctid, problems }.failure()),
            _ => None,
        };
        let trouble = failure.as_ref().filter(|_| self.has_left_something()).map(|f| self.trouble(f.message.clone()));
        let begun = self.has_begun();
        if trouble.is_some() && !begun {
            *crate::manager::lock(&self.note) = envelope(&());
        }
        let state = if failure.is_some() { OpState::Failed } else { OpState::Done };
        let row = self.row(state, failure.as_ref(), trouble.is_none());
        Ending {
            ctid,
            durable: end.durable,
            row: Some(row).filter(|_| begun || trouble.is_some()),
            part: failure.as_ref().filter(|_| trouble.is_some()).map(|f| self.failed(&f.message)),
            next: crate::manager::lock(&self.next).as_ref().filter(|_| failure.is_none()).and_then(waiting),
            state: if trouble.is_some() { Some(CtState::Failed) } else { end.state },
            trouble,
            event: end.event,
            by: (self.handle.id, self.handle.asker.clone()),
        }
    }

    /// It has ended so, in memory.
    pub(super) fn has_ended(&self, ending: &Ending) {
        self.finished.store(true, Ordering::Release);
        if let (Some(ctid), Some(state)) = (ending.ctid, ending.state) {
            self.m.cell(ctid).set(state, ending.trouble.clone());
        }
    }

    /// That it has failed and is open still.
    pub(super) fn failed(&self, message: &str) -> Part {
        Part {
            operation: self.handle.id,
            how: "failed".into(),
            asker: self.handle.asker.clone(),
            at: now_ms(),
            number: None,
            text: Some(message.to_owned()),
        }
    }

    /// What the container is in, when this is what keeps it there.
    fn trouble(&self, cause: String) -> Trouble {
        let step = self.handle.snapshot().step.to_owned();
        Trouble { operation: Some(self.handle.id), kind: Some(self.handle.kind), step, cause }
    }

    /// Writes down that it was not carried through. `trouble`: nor could it be taken back, so it stays open.
    pub(super) fn fail(
        &self,
        state: OpState,
        failure: &Failure,
        trouble: Option<&Trouble>,
        f: impl FnOnce(&Change<'_>) -> inventory::Result<Option<CtState>>,
    ) {
        self.finished.store(true, Ordering::Release);
        let row = self.row(state, Some(failure), trouble.is_none());
        if !self.has_begun() {
            // It may have come as far as trying to.
            let row = OperationRow { begun: None, ..row };
            return super::refused::keep(&self.m, &row, failure, self.handle.kept.load(Ordering::Acquire));
        }
        let ctid = self.handle.subject.ctid().filter(|_| self.has_begun());
        let written = self.change("ending an operation", false, |c| {
            let at = f(c)?;
            c.operation(&row)?;
            if trouble.is_some() {
                // Whoever goes on with it replaces its outcome.
                c.part(&self.failed(&failure.message))?;
            }
            if let Some(ctid) = ctid {
                if let Some(at) = at {
                    c.state(ctid, at, trouble)?;
                }
                if remembers(self.handle.kind) {
                    c.last_failure(ctid, Some(&failure.message))?;
                }
            }
            Ok(at)
        });
        match (written, ctid) {
            (Ok(Some(CtState::Absent)), Some(ctid)) => self.m.forget(ctid),
            (Ok(Some(at)), Some(ctid)) => self.m.cell(ctid).set(at, trouble.cloned()),
            (Ok(_), _) => {}
            (Err(e), Some(ctid)) if e.is_unwritable() && super::anyway::only_goes_down(self.handle.kind) => {
                self.owe_failure(ctid, &row, failure, trouble, &e);
            }
            (Err(e), _) => {
                tracing::error!(subject = %self.handle.subject, op = self.handle.kind.word(), "its end cannot be noted: {e}");
                if let Some(ctid) = ctid {
                    // It is open in the inventory still; whoever comes next finishes it first.
                    let trouble = self.trouble(format!("its end could not be noted: {e}"));
                    self.m.cell(ctid).set(CtState::Failed, Some(trouble));
                }
            }
        }
    }

    /// Asks a running container's monitor, within a time in which an honest one answers.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub fn ask(&self, request: &vz_types::plan::ControlRequest) -> Result<()> {
        let ctid = self.ctid()?;
        let answer = self.m.hands.monitor.control(&self.m.paths.ct_run(ctid), request, CONTROL);
        answer.map(drop).map_err(|e| match self.m.cell(ctid).live() {
            Some(live) if e.is_silence() => {
                crate::monitor::Error::Silent { ctid, pid: live.record.monitor.pid, source: Box::new(e) }.into()
            }
            _ => e.into(),
        })
    }
}

/// What one request to a monitor may take: its own limit for what it does inside is 5 s.
pub const CONTROL: Duration = Duration::from_secs(7);

/// Whether a failure of this kind is the container's `last_failure`.
pub(super) fn remembers(kind: vz_types::OpKind) -> bool {
    use vz_types::OpKind;
    matches!(kind, OpKind::Start | OpKind::Restart | OpKind::Stop | OpKind::Mount | OpKind::Umount | OpKind::Set)
}

/// The row of an operation that was asked for and has not begun.
pub(super) fn waiting(ask: &Ask) -> Option<OperationRow> {
    Some(OperationRow {
        id: ask.id?,
        kind: ask.request.kind,
        subject: ask.subject.clone(),
        asker: ask.asker.clone(),
        state: OpState::Queued,
        step: String::new(),
        note: ask.follows.map_or_else(|| "{}".into(), |follows| envelope(&Follows { follows })),
        told: "{}".into(),
        error: None,
        asked: now_ms(),
        begun: None,
        ended: None,
        count: 1,
    })
}

/// Version of the notes written by this vzd.
pub(super) const NOTE: u32 = 1;

fn envelope(note: &impl Serialize) -> String {
    serde_json::json!({ "v": NOTE, "is": note }).to_string()
}

/// A note as it was meant.
///
/// # Errors
/// Why it cannot be read: what it says is then not guessed.
pub(super) fn read_note<N: serde::de::DeserializeOwned>(text: &str) -> std::result::Result<N, String> {
    #[derive(serde::Deserialize)]
    struct Envelope {
        v: u32,
        is: serde_json::Value,
    }
    let Envelope { v, is } = serde_json::from_str(text).map_err(|e| format!("its note cannot be read: {e}"))?;
    if v != NOTE {
        return Err(format!("its note was written by another version of vz (note version {v}, this vzd knows {NOTE})"));
    }
    serde_json::from_value(is).map_err(|e| format!("its note cannot be read: {e}"))
}
