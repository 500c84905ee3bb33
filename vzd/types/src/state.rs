//! The states of a container, as they are stored.
//!
//! ```text
//!            create            mount              start
//!   absent ---------> stopped <-------> mounted   stopped/mounted -----> running <--> suspended
//!                        ^      umount               |  ^                  |
//!                        +---------------------------+  +------ reboot ----+
//!                        |                  stop, poweroff inside          |
//!                        +<------------------------------------------------+
//! ```
//! An in-flight state (`creating`, `starting`, ...) is stored with the operation that makes it, in one transaction.
//! `failed`: an operation could neither be carried through nor taken back; what that was is stored beside it, and is
//! tried again before anything else happens. `unknown`: something runs that cannot be understood; it is left alone.
//! What may happen in which state is [`crate::judge`]'s.

use serde::{Deserialize, Serialize};

macro_rules! states {
    ($(#[doc = $doc:literal] $name:ident = $word:literal, $list:literal, $status:literal;)+) => {
        /// Where a container is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum CtState { $(#[doc = $doc] #[serde(rename = $word)] $name),+ }

        impl CtState {
            /// Every state.
            pub const ALL: &'static [CtState] = &[$(CtState::$name),+];

            /// As it is stored, and shown as the state proper.
            pub fn word(self) -> &'static str {
                match self { $(CtState::$name => $word),+ }
            }

            /// The word vzlist shows: running, stopped, mounted or suspended.
            pub fn vzlist_word(self) -> &'static str {
                match self { $(CtState::$name => $list),+ }
            }

            /// The words of `vzctl status` after `CTID n`.
            pub fn status_words(self) -> &'static str {
                match self { $(CtState::$name => $status),+ }
            }
        }
    };
}

states! {
    /// There is no such container.
    Absent = "absent", "stopped", "deleted unmounted down";
    /// Being made.
    Creating = "creating", "stopped", "deleted unmounted down";
    /// Exists, not mounted, nothing runs.
    Stopped = "stopped", "stopped", "exist unmounted down";
    /// Its files are mounted on the host, nothing runs.
    Mounted = "mounted", "mounted", "exist mounted down";
    /// On its way up.
    Starting = "starting", "mounted", "exist mounted down";
    /// Its init runs.
    Running = "running", "running", "exist mounted running";
    /// On its way down.
    Stopping = "stopping", "running", "exist mounted running";
    /// Its processes are being written to disk.
    Suspending = "suspending", "running", "exist mounted running";
    /// Its processes are on disk; nothing runs.
    Suspended = "suspended", "suspended", "exist unmounted down suspended";
    /// Its processes are being brought back.
    Resuming = "resuming", "suspended", "exist mounted down suspended";
    /// On its way to another host.
    Migrating = "migrating", "running", "exist mounted running";
    /// Being removed.
    Destroying = "destroying", "stopped", "exist unmounted down";
    /// An operation on it could be neither finished nor taken back.
    Failed = "failed", "stopped", "exist unmounted down";
    /// It runs, and what is needed to understand it cannot be read.
    Unknown = "unknown", "running", "exist mounted running";
}

impl CtState {
    /// The state of this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|s| s.word() == word)
    }

    /// An operation is what keeps it there.
    pub fn is_in_flight(self) -> bool {
        matches!(
            self,
            Self::Creating
                | Self::Starting
                | Self::Stopping
                | Self::Suspending
                | Self::Resuming
                | Self::Migrating
                | Self::Destroying
        )
    }

    /// Something of it runs.
    pub fn runs(self) -> bool {
        matches!(self, Self::Running | Self::Stopping | Self::Suspending | Self::Migrating | Self::Unknown)
    }
}

/// What keeps a container in [`CtState::Failed`] or [`CtState::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The operation that could not be ended; absent where something was found that nobody can place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<crate::op::OpId>,
    /// Its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<crate::op::OpKind>,
    /// The step it is at.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// What is wrong.
    pub cause: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_read_back() {
        for s in CtState::ALL {
            assert_eq!(CtState::of(s.word()), Some(*s));
            assert_eq!(serde_json::to_value(s).unwrap(), s.word());
            assert!(["running", "stopped", "mounted", "suspended"].contains(&s.vzlist_word()));
        }
    }
}
