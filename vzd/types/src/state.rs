//! The states of a container and what may happen in each: a pure table, tested as such.
//!
//! ```text
//!            create            mount              start
//!   absent ---------> stopped <-------> mounted   stopped/mounted -----> running
//!                        ^      umount               |  ^                  |
//!                        +---------------------------+  +------ reboot ----+
//!                        |                  stop, poweroff inside          |
//!                        +<------------------------------------------------+
//! ```
//! In-flight states (`creating`, `starting`, ...) exist only while an operation's journal row is open.

use crate::ExitCode;
use serde::{Deserialize, Serialize};

/// Where a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CtState {
    /// There is no such container.
    Absent,
    /// Being made.
    Creating,
    /// Exists, not mounted, nothing runs.
    Stopped,
    /// Its files are mounted on the host, nothing runs.
    Mounted,
    /// On its way up.
    Starting,
    /// Its init runs.
    Running,
    /// On its way down.
    Stopping,
    /// Being removed.
    Destroying,
}

impl CtState {
    /// The word vzlist shows: running, stopped, mounted or suspended.
    pub fn vzlist_word(self) -> &'static str {
        match self {
            Self::Running | Self::Stopping => "running",
            Self::Mounted | Self::Starting => "mounted",
            Self::Absent | Self::Creating | Self::Stopped | Self::Destroying => "stopped",
        }
    }

    /// The words of `vzctl status` after `CTID n`.
    pub fn status_words(self) -> &'static str {
        match self {
            Self::Absent | Self::Creating => "deleted unmounted down",
            Self::Stopped | Self::Destroying => "exist unmounted down",
            Self::Mounted | Self::Starting => "exist mounted down",
            Self::Running | Self::Stopping => "exist mounted running",
        }
    }
}

/// A request that changes a container's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Make it.
    Create,
    /// Run it.
    Start,
    /// End it.
    Stop,
    /// Stop, then start.
    Restart,
    /// Remove it.
    Destroy,
    /// Show its files on the host.
    Mount,
    /// Hide them again.
    Umount,
    /// Change its configuration, live, saved or both.
    Set,
}

impl Op {
    /// The verb.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Destroy => "destroy",
            Self::Mount => "mount",
            Self::Umount => "umount",
            Self::Set => "set",
        }
    }
}

/// Whether a request may go ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Do it.
    Accept,
    /// Nothing to do: answer success with this sentence.
    Ignore(&'static str),
    /// Refuse with this code and sentence.
    Deny(ExitCode, &'static str),
}

/// May `op` happen in `state`? `disabled` and `force` matter to start alone.
pub fn decide(op: Op, state: CtState, disabled: bool, force: bool) -> Verdict {
    use CtState::*;
    use Verdict::*;
    let busy = Deny(
        ExitCode::Locked,
        "another operation on this container is under way; wait for it or look at `vzctl status`",
    );
    match (op, state) {
        (_, Creating | Starting | Stopping | Destroying) => busy,
        (Op::Create, Absent) => Accept,
        (Op::Create, _) => {
            Deny(ExitCode::Exists, "a container with this CTID exists; choose another CTID or destroy it first")
        }
        (_, Absent) => {
            Deny(ExitCode::NoConfig, "there is no container with this CTID; `vzlist -a` shows those that exist")
        }
        (Op::Start, Running) => Deny(ExitCode::Running, "Container is already running"),
        (Op::Start, _) if disabled && !force => Deny(
            ExitCode::Disabled,
            "the container is disabled; `vzctl set CTID --disabled no --save` or `start --force`",
        ),
        (Op::Start, _) => Accept,
        (Op::Restart, _) if disabled && !force => Deny(
            ExitCode::Disabled,
            "the container is disabled; `vzctl set CTID --disabled no --save` or `start --force`",
        ),
        (Op::Restart, _) => Accept,
        (Op::Stop, Running) => Accept,
        (Op::Stop, _) => Ignore("Unable to stop: container is not running"),
        (Op::Destroy, Running) => Deny(ExitCode::Running, "Container is currently running. Stop it first."),
        (Op::Destroy, Mounted) => Deny(ExitCode::Mounted, "Container is currently mounted (umount first)"),
        (Op::Destroy, _) => Accept,
        (Op::Mount, Running | Mounted) => Deny(ExitCode::Mounted, "Container is already mounted"),
        (Op::Mount, _) => Accept,
        (Op::Umount, Running) => Deny(ExitCode::Running, "Container is running -- stop it first"),
        (Op::Umount, Mounted) => Accept,
        (Op::Umount, _) => Deny(ExitCode::NotMounted, "CT is not mounted"),
        (Op::Set, _) => Accept,
    }
}
