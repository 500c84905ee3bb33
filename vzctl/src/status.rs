//! `vzctl status`: one line of frozen words, exit 0 whatever they are. Only who may not look is told so, and no line. Asks vzd; without it the run record, the configuration
//! file and the mount table tell the same.

use crate::{
    failure::{Failure, Outcome},
    target::{self, Target},
    verbs::Session,
};
use serde::Serialize;
use std::time::Duration;
use vz_api::client::ClientError;
use vz_types::{CtState, Ctid, ExitCode};

/// A vzd that takes longer than this to say it is taken as none.
const PATIENCE: Duration = Duration::from_secs(3);

/// `status --json`.
#[derive(Serialize)]
struct Status {
    /// Absent for a name nobody has.
    ctid: Option<u32>,
    exist: bool,
    mounted: bool,
    running: bool,
    suspended: bool,
    /// The state proper where vzd told it.
    state: Option<CtState>,
    /// What failed last, if vzd told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<String>,
    /// Nothing can be written to its files, as far as vzd told.
    read_only: bool,
    line: String,
    /// `vzd`, or `files` when vzd did not answer.
    source: &'static str,
}

impl Status {
    fn from_line(ctid: Option<u32>, line: String, source: &'static str) -> Self {
        let has = |word: &str| line.split(' ').skip(2).any(|w| w == word);
        Self {
            ctid,
            exist: has("exist"),
            mounted: has("mounted"),
            running: has("running"),
            suspended: has("suspended"),
            state: None,
            last_failure: None,
            read_only: false,
            line,
            source,
        }
    }
}

/// Prints the line.
pub fn status(session: &Session, typed: &str) -> Outcome {
    let status = match typed.parse::<Target>() {
        Ok(target) => of(session, &target)?,
        Err(f) => {
            // Clients read the line and expect exit 0 whatever they ask for; the reason goes to standard error.
            session.ui.warn(&f.message);
            let word: String = typed.chars().filter(|c| !c.is_whitespace() && !c.is_control()).take(80).collect();
            let number = word.parse().ok();
            Status::from_line(number, line(&word, CtState::Absent), "files")
        }
    };
    if session.ui.json {
        session.ui.object(&status)?;
    } else {
        session.ui.data(&status.line);
    }
    Ok(0)
}

fn line(ct: &str, state: CtState) -> String {
    format!("CTID {ct} {}", state.status_words())
}

fn of(session: &Session, target: &Target) -> Result<Status, Failure> {
    let told = match session.client.within(PATIENCE).info(&target.to_string()) {
        Ok(info) => {
            let mut status = Status::from_line(Some(info.ctid), info.status_line, "vzd");
            status.state = Some(info.state);
            status.last_failure = info.last_failure;
            status.read_only = info.read_only;
            if info.read_only {
                let ct = info.ctid;
                session.ui.warn(&format!("WARNING: its filesystem is read-only; `vzctl why {ct}` says what to do"));
            }
            status
        }
        Err(ClientError::Api(e)) if e.code == ExitCode::NoConfig => {
            let number = match target {
                Target::Ctid(c) => Some(c.get()),
                Target::Name(_) => None,
            };
            let mut status = Status::from_line(number, line(&target.to_string(), CtState::Absent), "vzd");
            status.state = Some(CtState::Absent);
            status
        }
        Err(e) if e.code() == ExitCode::PermissionDenied => return Err(e.into()),
        Err(_) => return from_files(session, target),
    };
    Ok(told)
}

/// What files say. What this user may not look at says nothing.
fn from_files(session: &Session, target: &Target) -> Result<Status, Failure> {
    let paths = &session.paths;
    let mounted = |ctid: Ctid| {
        target::is_mounted(paths, ctid).unwrap_or_else(|f| {
            session.ui.warn(&format!("WARNING: it is not known whether CT {ctid} is mounted: {}", f.message));
            false
        })
    };
    let state = |ctid: Ctid| {
        let runs = match target::running(paths, ctid) {
            Ok(record) => Some(record.is_some()),
            Err(f) if f.code == ExitCode::PermissionDenied => return Err(f),
            Err(f) => {
                // The line has no word for it.
                session.ui.warn(&format!("WARNING: it is not known whether CT {ctid} runs: {}", f.message));
                None
            }
        };
        Ok(match runs {
            Some(true) => CtState::Running,
            // What cannot be read is no end: its files are mounted, as those of one that runs are.
            None if mounted(ctid) => CtState::Unknown,
            _ if mounted(ctid) => CtState::Mounted,
            _ if target::is_configured(paths, ctid)? => CtState::Stopped,
            _ => CtState::Absent,
        })
    };
    match target.ctid(paths) {
        Ok(ctid) => Ok(Status::from_line(Some(ctid.get()), line(&ctid.to_string(), state(ctid)?), "files")),
        Err(f) if f.code == ExitCode::PermissionDenied => Err(f),
        Err(_) => Ok(Status::from_line(None, line(&target.to_string(), CtState::Absent), "files")),
    }
}
