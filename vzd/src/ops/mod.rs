//! Operations: everything that changes something. Whoever wants a change asks ([`Ops::ask`]); the rules say whether it
//! may happen now ([`vz_types::judge`]); one driver per container, alive only while it has work, carries it out.
//!
//! ```text
//!  API, onboot ----ask--> judge --accept--> queue of the container --> driver --> machine --> steps --> hands
//!  monitors' ends, guard    |                                            |           |
//!  recovery -----resume-----+-- already so, join, hurry, interrupt, deny |           +-- inventory: before each step
//!                                                                        +-- parks without a thread while it waits
//! ```
//!
//! | module | story |
//! |---|---|
//! | [`step`] | what an operation is: steps with their undo and their way after a crash |
//! | [`machine`] | carrying one out, forward or back |
//! | [`work`] | what a step has at hand, and writing down what it does |
//! | [`handle`] | an operation under way, for those who look at it |
//! | [`ask`] | what is asked for, and what that comes to |
//! | [`refused`] | what came to nothing before it began, for the audit log |
//! | [`queue`] | what is asked for one subject and waits |
//! | [`driver`] | asking, cancelling, and carrying out what is in a queue |
//! | [`turn`] | what comes before an operation's first step, and how one waits: for room, for others |
//! | [`recover`] | what vzd finds when it starts |
//! | [`anyway`] | taking down what cannot be written down |
//! | [`up`], [`down`] | the two halves several operations are made of |
//! | [`planned`] | what a `set` comes to |
//! | the others | one operation each |

mod anyway;
mod ask;
mod clear;
mod create;
mod destroy;
mod down;
mod driver;
mod handle;
mod machine;
mod mount;
mod onboot;
mod planned;
mod queue;
pub mod recover;
mod refused;
mod repair;
mod restart;
mod set;
mod start;
mod step;
mod stop;
mod template;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "directories of a test's own, with nothing mounted in them")]
pub(crate) mod tests;
mod turn;
mod up;
mod work;

pub use ask::{Ask, Asked};
pub use driver::Ops;
pub use handle::{Handle, Snapshot};
pub use onboot::boot as start_at_boot;
pub use template::{build_template, import_template, remove_template};
pub use work::Work;

use crate::{
    ct::{CreateSpec, SetSpec, StopSpec},
    error::Result,
    inventory::OperationRow,
};
use machine::{Machine, Run};
use step::Operation;
use vz_types::{Ctid, OpKind, Subject, judge::Request, plan::LAUNCH_STEPS};

/// Asks for a container to be made.
pub fn create(spec: CreateSpec) -> Ask {
    ask(spec.ctid, Request::plain(OpKind::Create), move |w| create::Create::prepare(w, &spec))
}

/// Asks for one to be run.
pub fn start(ctid: Ctid, force: bool) -> Ask {
    let request = Request { force, ..Request::plain(OpKind::Start) };
    ask(ctid, request, move |w| start::Start::prepare(w, ctid))
}

/// Asks for one to be ended.
pub fn stop(ctid: Ctid, spec: StopSpec) -> Ask {
    let request = Request { fast: spec.fast, ..Request::plain(OpKind::Stop) };
    ask(ctid, request, move |w| stop::Stop::prepare(w, ctid, spec))
}

/// Asks for one to be ended, if it runs, and run.
pub fn restart(ctid: Ctid, force: bool, fast: bool) -> Ask {
    let request = Request { force, ..Request::plain(OpKind::Restart) };
    ask(ctid, request, move |w| restart::Restart::prepare(w, ctid, fast, false))
}

/// The same for what a running one cannot take, when it is saved. Nobody is there to repeat it.
fn restart_for(ctid: Ctid) -> Ask {
    let request = Request { force: true, ..Request::plain(OpKind::Restart) };
    ask(ctid, request, move |w| restart::Restart::prepare(w, ctid, false, true))
}

/// Asks for one to be removed.
pub fn destroy(ctid: Ctid) -> Ask {
    ask(ctid, Request::plain(OpKind::Destroy), move |w| destroy::Destroy::prepare(w, ctid))
}

/// Asks for the files of a stopped one to be shown on the host.
pub fn mount(ctid: Ctid) -> Ask {
    ask(ctid, Request::plain(OpKind::Mount), move |w| mount::Mount::prepare(w, ctid))
}

/// Asks for them to be hidden again.
pub fn umount(ctid: Ctid) -> Ask {
    ask(ctid, Request::plain(OpKind::Umount), move |w| mount::Umount::prepare(w, ctid))
}

/// Asks for one to be changed.
pub fn set(ctid: Ctid, spec: SetSpec) -> Ask {
    ask(ctid, Request::plain(OpKind::Set), move |w| set::Set::prepare(w, ctid, &spec))
}

/// Asks for what others took away of its link to be put back: the network guard's.
pub fn repair(ctid: Ctid) -> Ask {
    ask(ctid, Request::plain(OpKind::Repair), move |w| repair::Repair::prepare(w, ctid))
}

fn ask(ctid: Ctid, request: Request, make: impl FnOnce(&Work) -> Result<Box<dyn Run>> + Send + 'static) -> Ask {
    Ask::new(Subject::Ct(ctid), request, make)
}

/// What was to follow another operation and had not begun when vzd ended: it is asked for again.
fn follower(row: &OperationRow) -> Option<Ask> {
    let work::Follows { follows } = work::read_note(&row.note).ok()?;
    let ask = match row.kind {
        OpKind::Restart => restart_for(row.subject.ctid()?),
        _ => return None,
    };
    Some(ask.by(row.asker.clone()).numbered(Some(row.id)).after(follows))
}

/// Names of an operation's steps, and how it goes on after a crash: one row per kind.
struct Row {
    kind: OpKind,
    steps: fn() -> Vec<&'static str>,
    resume: fn(&Work, &OperationRow) -> Result<Box<dyn Run>>,
}

fn row<O: Operation>() -> Row {
    Row {
        kind: O::KIND,
        steps: || O::steps().iter().map(|s| s.name).collect(),
        resume: |work, row| {
            let note = work::read_note(&row.note).map_err(|cause| {
                let hint = "start the version of vz that wrote it, or a later one";
                crate::error::Error::refused(vz_types::ExitCode::System, cause, hint)
            })?;
            Machine::resumed(O::resume(work, note)?, work, &row.step)
        },
    }
}

/// Every operation there is.
fn rows() -> Vec<Row> {
    vec![
        row::<create::Create>(),
        row::<start::Start>(),
        row::<stop::Stop>(),
        row::<clear::Clear>(),
        row::<repair::Repair>(),
        row::<restart::Restart>(),
        row::<destroy::Destroy>(),
        row::<mount::Mount>(),
        row::<mount::Umount>(),
        row::<set::Set>(),
        row::<template::Build>(),
        row::<template::Import>(),
        row::<template::Remove>(),
    ]
}

/// Every fault point by name.
pub fn points() -> Vec<String> {
    let ours = rows().into_iter().filter(|row| !row.kind.is_internal()).flat_map(|row| {
        let word = row.kind.word();
        (row.steps)().into_iter().flat_map(move |s| [format!("{word}.{s}.before"), format!("{word}.{s}")])
    });
    ours.chain(LAUNCH_STEPS.iter().map(|s| format!("vzmon.{s}"))).collect()
}

/// The operation of this row, to be carried on with.
fn resume(work: &Work, row: &OperationRow) -> Result<Box<dyn Run>> {
    match rows().into_iter().find(|r| r.kind == row.kind) {
        Some(r) => (r.resume)(work, row),
        None => {
            let message = format!("`{}` is not an operation that can be carried on with", row.kind);
            Err(crate::error::Error::refused(vz_types::ExitCode::System, message, ""))
        }
    }
}
