//! Operations: every change is one. Its number, what it is about, what kind it is and how far it has come; rules and
//! words alone, what carries one out is vzd's (`vzd/src/ops`).
//!
//! ```text
//!  queued ---> running ---> done
//!    |            |  \----> failed      (taken back; or carried through as far as it went, see its error)
//!    |            v
//!    |        cancelling -> cancelled   (taken back)
//!    +------------------->  cancelled
//! ```

use crate::{Ctid, TemplateName};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// An operation's number: a ULID, 26 characters, rising with time (github.com/ulid/spec).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OpId(ulid::Ulid);

impl OpId {
    /// The number of an operation asked for at this time, in milliseconds since the epoch.
    pub fn new(millis: u64, random: [u8; 10]) -> Self {
        let random = random.iter().fold(0u128, |n, b| n << 8 | u128::from(*b));
        Self(ulid::Ulid::from_parts(millis, random))
    }

    /// The same, but behind another one of the same millisecond: what was asked for later is listed later.
    pub fn behind(self, other: Self) -> Self {
        match other.0.increment() {
            Ok(next) if self.millis() == other.millis() && self.0 < next => Self(next),
            _ => self,
        }
    }

    /// When it was asked for, in milliseconds since the epoch.
    pub fn millis(self) -> u64 {
        self.0.timestamp_ms()
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not the number of an operation.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not the number of an operation: those are 26 digits and capital letters without I, L, O and U, the first at most 7, as `vzctl operations` shows them"
)]
pub struct OpIdError(String);

impl FromStr for OpId {
    type Err = OpIdError;
    fn from_str(s: &str) -> Result<Self, OpIdError> {
        // Of 130 bits the number has 128: what is above would be dropped.
        let plain = s.len() == 26 && s.bytes().all(|b| b.is_ascii_alphanumeric()) && s.as_bytes()[0] <= b'7';
        let id = ulid::Ulid::from_string(s).ok().filter(|_| plain);
        id.map(Self).ok_or_else(|| OpIdError(s.chars().take(40).collect()))
    }
}

impl TryFrom<String> for OpId {
    type Error = OpIdError;
    fn try_from(s: String) -> Result<Self, OpIdError> {
        s.parse()
    }
}

impl From<OpId> for String {
    fn from(id: OpId) -> String {
        id.to_string()
    }
}

/// What an operation is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A container.
    Ct(Ctid),
    /// An OS template.
    Template(TemplateName),
    /// The host.
    Host,
}

impl Subject {
    /// The container, if it is one.
    pub fn ctid(&self) -> Option<Ctid> {
        match self {
            Self::Ct(ctid) => Some(*ctid),
            _ => None,
        }
    }

    /// The kind of subject and its name, as they are stored.
    pub fn parts(&self) -> (&'static str, String) {
        match self {
            Self::Ct(ctid) => ("ct", ctid.to_string()),
            Self::Template(name) => ("template", name.to_string()),
            Self::Host => ("host", String::new()),
        }
    }

    /// The reverse of [`Subject::parts`].
    pub fn of(kind: &str, name: &str) -> Option<Self> {
        match kind {
            "ct" => name.parse().ok().map(Self::Ct),
            "template" => name.parse().ok().map(Self::Template),
            "host" => Some(Self::Host),
            _ => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ct(ctid) => write!(f, "CT {ctid}"),
            Self::Template(name) => write!(f, "OS template {name}"),
            Self::Host => f.write_str("this host"),
        }
    }
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal),+ $(,)?) => {
        /// What kind of change an operation is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum OpKind { $($(#[doc = $doc])+ #[serde(rename = $word)] $name),+ }

        impl OpKind {
            /// Every kind.
            pub const ALL: &'static [OpKind] = &[$(OpKind::$name),+];

            /// The verb, as it is stored, shown and named in fault points.
            pub fn word(self) -> &'static str {
                match self { $(OpKind::$name => $word),+ }
            }
        }
    };
}

kinds! {
    /// Make a container.
    Create = "create",
    /// Run it.
    Start = "start",
    /// End it.
    Stop = "stop",
    /// Stop it if it runs, then run it.
    Restart = "restart",
    /// Remove it.
    Destroy = "destroy",
    /// Show its files on the host.
    Mount = "mount",
    /// Hide them again.
    Umount = "umount",
    /// Change its configuration, live, saved or both.
    Set = "set",
    /// Clear away after a run that has ended, or take in what is found running: vzd's own.
    Clear = "clear",
    /// Put back what others took away of its link: vzd's own.
    Repair = "repair",
    /// Build an OS template.
    Build = "build",
    /// Make an OS template from an archive.
    Import = "import",
    /// Remove an OS template.
    Remove = "remove",
    /// Start what is to be started when the host has booted.
    Onboot = "onboot",
}

impl OpKind {
    /// The kind of this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|k| k.word() == word)
    }

    /// vzd's own housekeeping: nobody asked for it, and nobody is refused because of it.
    pub fn is_internal(self) -> bool {
        matches!(self, Self::Clear | Self::Repair)
    }

    /// Frees space on the host, or leads to it: it may use what is kept for that on a full disk.
    pub fn makes_room(self) -> bool {
        matches!(self, Self::Stop | Self::Mount | Self::Umount | Self::Destroy | Self::Clear | Self::Remove)
    }

    /// Takes minutes and much of the machine: few of these run side by side, the others wait.
    pub fn is_heavy(self) -> bool {
        matches!(self, Self::Build | Self::Import)
    }
}

impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Where an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpState {
    /// Accepted; another one is before it.
    Queued,
    /// Under way.
    Running,
    /// Asked to end: what it did is being taken back.
    Cancelling,
    /// Carried through.
    Done,
    /// Not carried through; its error says what became of it.
    Failed,
    /// Ended on request; what it did was taken back.
    Cancelled,
}

impl OpState {
    /// Every state.
    pub const ALL: &'static [OpState] =
        &[Self::Queued, Self::Running, Self::Cancelling, Self::Done, Self::Failed, Self::Cancelled];

    /// As it is stored and shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|s| s.word() == word)
    }

    /// Whether nothing more happens.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// How far a step has come, where there is a measure of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// So much is done.
    pub done: u64,
    /// Of so much; absent where nobody can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Of what: `bytes`, `files`, `containers`, `percent`.
    pub unit: String,
}

/// Why an operation was not carried through: kept with it, and told over the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What `vzctl` exits with.
    pub code: crate::ExitCode,
    /// What failed, on what, and why: one line.
    pub message: String,
    /// What to do next, if there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The refusal as facts, where the rules refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<crate::Reason>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_with_time_and_survive_being_written() {
        let (a, b) = (OpId::new(1, [9; 10]), OpId::new(2, [0; 10]));
        assert!(a < b && a.to_string() < b.to_string());
        // Two of one millisecond are in the order in which they were asked for.
        let (c, d) = (OpId::new(1, [3; 10]), OpId::new(1, [12; 10]));
        assert!(a < c.behind(a) && c.behind(a).millis() == 1 && d.behind(a) == d && b.behind(a) == b);
        assert_eq!(a.to_string().parse(), Ok(a));
        assert_eq!((a.millis(), a.to_string().len()), (1, 26));
        for bad in ["", "x", "../../../../etc/passwd0000", &"0".repeat(27)] {
            assert!(bad.parse::<OpId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn words_are_unique_and_read_back() {
        for k in OpKind::ALL {
            assert_eq!(OpKind::of(k.word()), Some(*k));
            assert_eq!(serde_json::to_value(k).unwrap(), k.word());
        }
        for s in OpState::ALL {
            assert_eq!(OpState::of(s.word()), Some(*s));
        }
        for s in [Subject::Ct(101.try_into().unwrap()), Subject::Template("a".parse().unwrap()), Subject::Host] {
            let (kind, name) = s.parts();
            assert_eq!(Subject::of(kind, &name), Some(s));
        }
    }
}
