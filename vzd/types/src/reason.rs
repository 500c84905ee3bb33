//! Why a request is refused by the rules, as facts; exit code, sentence and next step stand in one table below. Failures
//! of the machine (a full disk, a missing program) are other errors, with words of their own.

use crate::{
    Ctid, ExitCode,
    op::{OpId, OpKind, Subject},
};
use serde::{Deserialize, Serialize};

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// Another operation has the container or template.
    Busy {
        /// What is under way.
        kind: OpKind,
        /// Its number.
        operation: OpId,
        /// For so many seconds.
        seconds: u64,
    },
    /// There is one with this CTID.
    Exists,
    /// There is none with this CTID.
    Absent,
    /// There is none, but a configuration file at this place.
    AbsentWithConfig {
        /// The file.
        file: String,
    },
    /// It runs already.
    AlreadyRuns,
    /// It runs, and may not for this.
    Runs {
        /// What was asked for.
        kind: OpKind,
    },
    /// The operator has disabled it.
    Disabled,
    /// Its files are mounted, and may not be for this.
    IsMounted,
    /// Its files are mounted already.
    AlreadyMounted,
    /// Its files are not mounted.
    NotMounted,
    /// Its processes are on disk.
    IsSuspended,
    /// It runs, and what is needed to understand it cannot be read.
    NotUnderstood {
        /// What is missing.
        cause: String,
    },
    /// An earlier operation could be neither finished nor taken back, and still cannot.
    Trouble {
        /// Its kind.
        kind: OpKind,
        /// The step it is at.
        step: String,
        /// Why.
        cause: String,
    },
    /// It was asked to end before it was done.
    Cancelled {
        /// What was.
        kind: OpKind,
    },
    /// It is at a step that cannot be taken back any more.
    NotCancellable {
        /// What is.
        kind: OpKind,
        /// At which step.
        step: String,
    },
    /// It has ended.
    HasEnded {
        /// How.
        state: crate::op::OpState,
    },
    /// There is no such operation.
    NoOperation {
        /// The number.
        operation: String,
        /// For so many days ended ones are kept; 0: a vzd that does not say.
        #[serde(default)]
        days: u32,
    },
    /// vzd ended before it began or before it was done.
    VzdEnded {
        /// What was.
        kind: OpKind,
        /// At which step; empty: it had not begun.
        step: String,
    },
    /// vzd is on its way out.
    Quitting,
    /// More wait already than vzd keeps.
    TooMany {
        /// How many.
        waiting: u64,
    },
}

impl Reason {
    /// What `vzctl` exits with.
    pub fn code(&self) -> ExitCode {
        match self {
            Self::Busy { .. } | Self::NotCancellable { .. } | Self::TooMany { .. } => ExitCode::Locked,
            Self::Exists => ExitCode::Exists,
            Self::Absent | Self::AbsentWithConfig { .. } => ExitCode::NoConfig,
            Self::AlreadyRuns | Self::Runs { .. } | Self::NotUnderstood { .. } => ExitCode::Running,
            Self::Disabled => ExitCode::Disabled,
            Self::IsMounted | Self::AlreadyMounted => ExitCode::Mounted,
            Self::NotMounted => ExitCode::NotMounted,
            Self::IsSuspended => ExitCode::SuspendFailed,
            Self::HasEnded { .. } | Self::NoOperation { .. } => ExitCode::BadValue,
            Self::Trouble { .. } | Self::Cancelled { .. } | Self::VzdEnded { .. } | Self::Quitting => ExitCode::System,
        }
    }

    /// What is refused and why, in a sentence about `subject`.
    pub fn sentence(&self, subject: &Subject) -> String {
        let said = match self {
            Self::Busy { kind, seconds, .. } => format!("`{kind}` has been under way for {seconds} s"),
            Self::Exists => "a container with this CTID exists".into(),
            Self::Absent => "there is no container with this CTID".into(),
            Self::AbsentWithConfig { file } => {
                return format!("{subject} is not in the inventory, although {file} exists");
            }
            Self::AlreadyRuns => "Container is already running".into(),
            Self::Runs { kind: OpKind::Destroy } => "Container is currently running. Stop it first.".into(),
            Self::Runs { kind: OpKind::Mount } => {
                "Container is running: its files are mounted for as long as it runs".into()
            }
            Self::Runs { .. } => "Container is running -- stop it first".into(),
            Self::Disabled => "the container is disabled".into(),
            Self::IsMounted => "Container is currently mounted (umount first)".into(),
            Self::AlreadyMounted => "Container is already mounted".into(),
            Self::NotMounted => "CT is not mounted".into(),
            Self::IsSuspended => "the container is suspended: its processes are on disk".into(),
            Self::NotUnderstood { cause } => format!("it is running, but is not understood and left alone: {cause}"),
            Self::Trouble { kind, step, cause } => {
                format!("its last `{kind}` could be neither finished nor taken back at step `{step}`: {cause}")
            }
            Self::Cancelled { kind } => format!("`{kind}` was cancelled, and what it had done was taken back"),
            Self::NotCancellable { kind, step } => {
                format!("`{kind}` is at step `{step}`, which cannot be taken back any more")
            }
            Self::HasEnded { state } => format!("the operation has ended already: {}", state.word()),
            Self::NoOperation { operation, .. } => return format!("there is no operation {operation}"),
            Self::VzdEnded { kind, step } if step.is_empty() => {
                format!("vzd ended before `{kind}` began; nothing was changed")
            }
            Self::VzdEnded { kind, step } => {
                format!("`{kind}` was interrupted at step `{step}`, because vzd ended; it was taken back")
            }
            Self::Quitting => return "vzd is stopping and begins nothing new".into(),
            Self::TooMany { waiting } => return format!("{waiting} operations wait already; vzd takes no more"),
        };
        format!("{subject}: {said}")
    }

    /// The same of what could not be taken back: without a word of that.
    pub fn sentence_unfinished(&self, subject: &Subject) -> String {
        match self {
            Self::Cancelled { kind } => format!("{subject}: `{kind}` was cancelled"),
            Self::VzdEnded { kind, step } if !step.is_empty() => {
                format!("{subject}: `{kind}` was interrupted at step `{step}`, because vzd ended")
            }
            other => other.sentence(subject),
        }
    }

    /// What to do next, if there is something.
    pub fn hint(&self, subject: &Subject) -> Option<String> {
        let ct = subject.ctid().map_or_else(|| "CTID".to_owned(), |c: Ctid| c.to_string());
        let shown = match subject {
            Subject::Ct(ctid) => format!("`vzctl operations {ctid}`"),
            Subject::Template(name) => format!("`vzctl operations --template {name}`"),
            Subject::Host => "`vzctl operations`".to_owned(),
        };
        Some(match self {
            Self::Busy { operation, .. } => {
                format!("`vzctl wait {operation}` waits for it, {shown} shows how far it is")
            }
            Self::Exists => "choose another CTID or destroy it first".into(),
            Self::Absent => "`vzlist -a` shows those that exist".into(),
            Self::AbsentWithConfig { .. } => {
                "`vzd recover` takes containers with a private area in again; else remove the file".into()
            }
            Self::Disabled => format!("`vzctl set {ct} --disabled no --save` or `start --force`"),
            Self::IsSuspended => format!("`vzctl resume {ct}` lets it go on"),
            Self::NotUnderstood { .. } => format!(
                "put right what is named; `vzd recover` or a restart of vzd takes it up again, `vzctl stop {ct}` ends it"
            ),
            Self::Trouble { kind: OpKind::Create, .. } => {
                format!("put right what is named and repeat it; `vzctl destroy {ct}` removes what is there")
            }
            Self::Trouble { .. } => "put right what is named and repeat it: what is left is finished first".into(),
            Self::NotCancellable { kind: OpKind::Stop | OpKind::Restart, .. } => {
                format!("`vzctl stop {ct} --fast` ends the container at once; {shown} shows how far it is")
            }
            Self::NotCancellable { .. } => format!("wait for its end; {shown} shows how far it is"),
            Self::AlreadyRuns => format!("`vzctl restart {ct}` starts it anew"),
            Self::Runs { .. } => format!("`vzctl stop {ct}` stops it"),
            Self::IsMounted => format!("`vzctl umount {ct}` ends that"),
            Self::NotMounted => format!("`vzctl mount {ct}` shows its files"),
            Self::HasEnded { .. } => format!("{shown} shows what came of it"),
            Self::NoOperation { days: 0, .. } => "`vzctl operations` shows those that are kept".into(),
            Self::NoOperation { days, .. } => format!("`vzctl operations` shows those of the last {days} days"),
            Self::VzdEnded { .. } => "repeat it".into(),
            Self::Quitting => "try again when it runs".into(),
            Self::TooMany { .. } => "try again when some have ended; `vzctl operations` shows them".into(),
            Self::AlreadyMounted | Self::Cancelled { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sentence_names_its_subject_or_the_operation() {
        let ct = Subject::Ct(101.try_into().unwrap());
        let id = OpId::new(1, [1; 10]);
        for reason in [
            Reason::Busy { kind: OpKind::Stop, operation: id, seconds: 4 },
            Reason::Exists,
            Reason::Absent,
            Reason::Disabled,
            Reason::Trouble { kind: OpKind::Create, step: "layer".into(), cause: "x".into() },
            Reason::VzdEnded { kind: OpKind::Set, step: String::new() },
            Reason::VzdEnded { kind: OpKind::Set, step: "live".into() },
            Reason::Cancelled { kind: OpKind::Start },
        ] {
            assert!(reason.sentence(&ct).starts_with("CT 101: "), "{}", reason.sentence(&ct));
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(serde_json::from_str::<Reason>(&json).unwrap(), reason);
            if !matches!(reason, Reason::Trouble { .. }) {
                assert!(!reason.sentence_unfinished(&ct).contains("taken back"), "{reason:?}");
            }
        }
    }
}
