//! What an operation has to tell, as facts: the sentences are vzctl's (`vzctl/src/words.rs`), and every other client's
//! own.

use crate::{CtAddr, op::OpId, op::OpKind};
use serde::{Deserialize, Serialize};

/// How a boot went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Booted {
    /// Its default runlevel is reached.
    Well {
        /// The family of its init: `systemd`, `sysvinit`, `openrc`, `runit`.
        init: String,
    },
    /// It is reached, and some of its services failed, crashed or are down.
    WithFailures {
        /// The family of its init.
        init: String,
        /// Which, where they are known.
        services: Vec<String>,
        /// Where they are supervised, where it matters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dir: Option<String>,
    },
    /// Its init shows no sign of it, and nothing that it waits for when it boots has been seen for a while.
    Quiet {
        /// Its name.
        init: String,
        /// For how long.
        seconds: u64,
    },
    /// Its init is none that vz knows, and does not tell; it has run for a while.
    Untold {
        /// Its name.
        init: String,
        /// For how long.
        #[serde(default)]
        seconds: u64,
    },
}

/// Something an operation has done, or has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// The private area was made.
    Created {
        /// From this OS template.
        template: String,
    },
    /// Its init runs.
    Started,
    /// Its default runlevel is reached, or that cannot be told.
    Booted {
        /// How it went.
        booted: Booted,
    },
    /// It runs no more.
    Stopped,
    /// There was nothing to stop.
    NothingToStop,
    /// Its private area is gone.
    Destroyed {
        /// Where it was.
        private: String,
    },
    /// Its files are shown on the host.
    Mounted,
    /// They are hidden again.
    Unmounted,
    /// Addresses were taken.
    AddressesDeleted {
        /// Which.
        ips: Vec<CtAddr>,
    },
    /// Addresses were given.
    AddressesAdded {
        /// Which.
        ips: Vec<CtAddr>,
    },
    /// What was to be set, as it was asked for; of secrets only whose they are.
    Asked {
        /// Each `name value`.
        settings: Vec<String>,
    },
    /// The configuration was written.
    Saved {
        /// To this file.
        file: String,
    },
    /// The OS template was there already, and was not built again.
    BuiltAlready,
    /// An OS template is gone.
    TemplateRemoved {
        /// Its name.
        template: String,
    },
    /// Another operation does the same, and its outcome is this one's.
    Joined {
        /// Which.
        operation: OpId,
    },
    /// It is down, because what was to bring it up was cancelled for it.
    Interrupted {
        /// The kind of that.
        kind: OpKind,
        /// Which.
        operation: OpId,
    },
    /// Another operation on it follows at once, as an operation of its own.
    Follows {
        /// Its kind.
        kind: OpKind,
        /// Which.
        operation: OpId,
    },
    /// So many containers were started when the host had booted.
    StartedAtBoot {
        /// How many came up.
        started: u64,
        /// Which did not.
        failed: Vec<u32>,
    },
    /// A warning: nothing was written to the configuration.
    NotSaved,
    /// A warning: it did not stop by itself and was killed.
    Killed {
        /// After so many seconds.
        seconds: u32,
    },
    /// A warning: it was killed, because its monitor did not answer.
    MonitorSilent {
        /// What asking it came to.
        cause: String,
    },
    /// A warning: it ended because its monitor did, and not in order.
    MonitorLost,
    /// A warning: a limit does not hold on this host.
    Unenforced {
        /// Which.
        name: String,
        /// Why.
        cause: String,
        /// It is running without it; else it was not started yet.
        runs: bool,
    },
    /// A warning: these limits refuse nothing.
    AccountedOnly {
        /// Which.
        names: Vec<String>,
    },
    /// A warning: these limits hold per process.
    PerProcess {
        /// Which.
        names: Vec<String>,
    },
    /// A warning: what only the next start changes.
    AtNextStart {
        /// Which settings.
        names: Vec<String>,
    },
    /// A warning: something of the container's own was not done, and it goes on without it.
    LeftOut {
        /// In the words of whoever tried.
        text: String,
    },
    /// A warning: what came to nothing afterwards, which repeating it or the next start of vzd puts right.
    LeftBehind {
        /// Of which operation.
        kind: OpKind,
        /// What.
        text: String,
    },
}

impl Fact {
    /// It tells of something that was not done as asked for.
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::NotSaved
                | Self::Killed { .. }
                | Self::MonitorSilent { .. }
                | Self::MonitorLost
                | Self::Unenforced { .. }
                | Self::AccountedOnly { .. }
                | Self::PerProcess { .. }
                | Self::AtNextStart { .. }
                | Self::LeftOut { .. }
                | Self::LeftBehind { .. }
        )
    }
}
