//! Why an operation did not happen. Rooms have errors of their own; this one says which operation on
//! which container it was, and turns all of them into an exit code, one message and one hint.

use crate::{conf, inventory, limits::cgroup, monitor, network, storage, template};
use std::{error::Error as _, path::PathBuf};
use vz_types::{Ctid, ExitCode, OpKind, Reason, Subject, op::Failure};

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
    /// The rules say no.
    #[error("{}", reason.sentence(subject))]
    Denied {
        /// Why.
        reason: Reason,
        /// What it is about.
        subject: Subject,
    },
    /// A step of an operation failed, and everything before it was undone.
    #[error("{kind} of {subject} failed at step `{step}`")]
    Step {
        /// The operation.
        kind: OpKind,
        /// What it is about.
        subject: Subject,
        /// The step.
        step: &'static str,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// An operation failed, and what it had done could not be taken back.
    #[error("{}; and it could not be taken back: {}", cause.unfinished(), problems.join("; "))]
    Stuck {
        /// Why it failed. Not its source: its words are in the message already.
        cause: Box<Error>,
        /// What stands in the way of taking it back.
        problems: Vec<String>,
    },
    /// An operation was taken back but for something that cannot be.
    #[error("{}; {stays}", cause.report())]
    Stays {
        /// Why it was taken back.
        cause: Box<Error>,
        /// What stays, as a sentence.
        stays: String,
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

    /// The rules say no about a container.
    pub fn denied(reason: Reason, ctid: Ctid) -> Self {
        Self::Denied { reason, subject: Subject::Ct(ctid) }
    }

    /// The refusal behind it, as facts, where the rules refused.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Denied { reason, .. } => Some(reason),
            Self::Step { source, .. } | Self::Stays { cause: source, .. } => source.reason(),
            // Neither cancelled nor taken back: what it is now is told by its words.
            _ => None,
        }
    }

    /// As it is kept with an operation and told over the wire.
    pub fn failure(&self) -> Failure {
        Failure { code: self.code(), message: self.report(), hint: self.hint(), reason: self.reason().cloned() }
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
            Self::Denied { reason, .. } => reason.code(),
            Self::Stuck { cause, .. } | Self::Stays { cause, .. } => cause.code(),
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
            Self::Denied { reason, subject } => reason.hint(subject),
            Self::Stuck { cause, .. } => Some(cause.hint().filter(|_| cause.reason().is_none()).unwrap_or_else(|| {
                "put right what stands in the way and repeat it: what is left is finished first".into()
            })),
            Self::Step { source, .. } | Self::Stays { cause: source, .. } => source.hint(),
            Self::Conf(e) => e.hint(),
            Self::Inventory(e) => e.hint(),
            Self::Cgroup(e) => e.hint(),
            Self::Monitor(e) => e.hint(),
            Self::Template(e) => e.hint(),
            _ => None,
        }
    }

    /// The same as [`Error::report`], of what could not be taken back.
    fn unfinished(&self) -> String {
        match self {
            Self::Denied { reason, subject } => reason.sentence_unfinished(subject),
            other => other.report(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_taken_back_is_not_said_to_have_been() {
        let subject = Subject::Ct(101.try_into().unwrap());
        for reason in
            [Reason::VzdEnded { kind: OpKind::Create, step: "place".into() }, Reason::Cancelled { kind: OpKind::Start }]
        {
            let cause = Box::new(Error::Denied { reason, subject: subject.clone() });
            let stuck = Error::Stuck { cause, problems: vec!["place: it is mounted".into()] };
            let failure = stuck.failure();
            assert_eq!(failure.message.matches("taken back").count(), 1, "{}", failure.message);
            assert!(failure.message.contains("could not be taken back: place: it is mounted"), "{}", failure.message);
            assert!(failure.hint.is_some_and(|h| h.contains("stands in the way")));
            assert_eq!(failure.reason, None);
        }
    }
}
