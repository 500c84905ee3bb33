//! Why an operation did not happen. Rooms have errors of their own; this one says which operation on
//! which container it was, and turns all of them into an exit code, one message and one hint.

use super::{cgroup, monitor};
use crate::{conf, inventory, network, storage, template};
use std::{error::Error as _, path::PathBuf};
use vz_types::{Ctid, ExitCode, state::Op};

/// Why an operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot happen, for a reason of the request or of the container's state.
    #[error("{message}")]
    Refused {
        /// What `vzctl` exits with.
        code: ExitCode,
        /// What cannot happen, on what, and why.
        message: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// Another operation holds the container.
    #[error("CT {ctid}: `{}` has been under way for {seconds} s (since {since})", op.word())]
    Busy {
        /// Which container.
        ctid: Ctid,
        /// What is under way.
        op: Op,
        /// For how long.
        seconds: u64,
        /// Since when, UTC.
        since: String,
    },
    /// A step of an operation failed, and everything before it was undone.
    #[error("{} of CT {ctid} failed at step `{step}`", op.word())]
    Step {
        /// The operation.
        op: Op,
        /// The container.
        ctid: Ctid,
        /// The step.
        step: String,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// Parts of a teardown failed; the rest was carried through.
    #[error("CT {ctid}: not everything could be taken down: {}", problems.join("; "))]
    Teardown {
        /// The container.
        ctid: Ctid,
        /// Each part that failed.
        problems: Vec<String>,
    },
    /// A file of ours.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// See there.
    #[error(transparent)]
    Limit(#[from] crate::limits::apply::Error),
    /// See there.
    #[error(transparent)]
    Conf(#[from] conf::Error),
    /// See there.
    #[error(transparent)]
    Inventory(#[from] inventory::Error),
    /// See there.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// See there.
    #[error(transparent)]
    Monitor(#[from] monitor::Error),
    /// See there.
    #[error(transparent)]
    Storage(#[from] storage::StorageError),
    /// See there.
    #[error(transparent)]
    Network(#[from] network::NetworkError),
    /// See there.
    #[error(transparent)]
    Template(#[from] template::TemplateError),
}

/// What operations answer with.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A refusal with a hint; an empty hint is none.
    pub fn refused(code: ExitCode, message: impl Into<String>, hint: &str) -> Self {
        Self::Refused { code, message: message.into(), hint: (!hint.is_empty()).then(|| hint.into()) }
    }

    /// A failure on a file of ours.
    pub fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// What `vzctl` exits with.
    pub fn code(&self) -> ExitCode {
        match self {
            Self::Refused { code, .. } => *code,
            Self::Busy { .. } => ExitCode::Locked,
            Self::Step { source, .. } => source.code(),
            Self::Teardown { .. } => ExitCode::UmountFailed,
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => ExitCode::NoSpace,
            Self::Io { .. } => ExitCode::System,
            Self::Limit(_) => ExitCode::Resource,
            Self::Conf(e) => e.exit_code(),
            Self::Inventory(e) => e.exit_code(),
            Self::Cgroup(e) => e.exit_code(),
            Self::Monitor(e) => e.exit_code(),
            Self::Storage(e) => e.exit_code(),
            Self::Network(e) => e.exit_code(),
            Self::Template(e) => e.exit_code(),
        }
    }

    /// What to do next, if there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => hint.clone(),
            Self::Busy { ctid, .. } => Some(format!("wait for it; `vzctl status {ctid}` shows where the container is")),
            Self::Step { source, .. } => source.hint(),
            Self::Conf(e) => e.hint(),
            Self::Inventory(e) => e.hint(),
            Self::Cgroup(e) => e.hint(),
            Self::Monitor(e) => e.hint(),
            Self::Template(e) => e.hint(),
            _ => None,
        }
    }

    /// The whole chain in one line: what failed, on what, and why.
    pub fn report(&self) -> String {
        let mut line = self.to_string();
        let mut next = self.source();
        while let Some(e) = next {
            let text = e.to_string();
            // A transparent variant repeats its source's words.
            if !line.ends_with(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            next = e.source();
        }
        line.replace('\n', "; ")
    }
}
