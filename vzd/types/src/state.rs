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
        (Op::Mount, Running) => {
            Deny(ExitCode::Running, "Container is running: its files are mounted for as long as it runs")
        }
        (Op::Mount, Mounted) => Deny(ExitCode::Mounted, "Container is already mounted"),
        (Op::Mount, _) => Accept,
        (Op::Umount, Running) => Deny(ExitCode::Running, "Container is running -- stop it first"),
        (Op::Umount, Mounted) => Accept,
        (Op::Umount, _) => Deny(ExitCode::NotMounted, "CT is not mounted"),
        (Op::Set, _) => Accept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPS: [Op; 8] = [Op::Create, Op::Start, Op::Stop, Op::Restart, Op::Destroy, Op::Mount, Op::Umount, Op::Set];
    const STATES: [CtState; 8] = [
        CtState::Absent,
        CtState::Creating,
        CtState::Stopped,
        CtState::Mounted,
        CtState::Starting,
        CtState::Running,
        CtState::Stopping,
        CtState::Destroying,
    ];

    fn code(op: Op, state: CtState) -> Option<ExitCode> {
        match decide(op, state, false, false) {
            Verdict::Deny(code, _) => Some(code),
            Verdict::Accept | Verdict::Ignore(_) => None,
        }
    }

    #[test]
    fn refusals_have_the_classic_codes() {
        assert_eq!(code(Op::Create, CtState::Stopped), Some(ExitCode::Exists));
        assert_eq!(code(Op::Stop, CtState::Stopped), None);
        assert_eq!(code(Op::Set, CtState::Running), None);
        for op in [Op::Start, Op::Destroy, Op::Mount, Op::Umount] {
            assert_eq!(code(op, CtState::Running), Some(ExitCode::Running), "{op:?}");
        }
        for op in [Op::Destroy, Op::Mount] {
            assert_eq!(code(op, CtState::Mounted), Some(ExitCode::Mounted), "{op:?}");
        }
        assert_eq!(code(Op::Umount, CtState::Stopped), Some(ExitCode::NotMounted));
    }

    proptest! {
        #[test]
        fn nothing_happens_to_a_busy_container_and_only_create_to_an_absent_one(
            op in prop::sample::select(&OPS[..]), state in prop::sample::select(&STATES[..]), disabled: bool, force: bool,
        ) {
            let verdict = decide(op, state, disabled, force);
            let busy = !matches!(state, CtState::Absent | CtState::Stopped | CtState::Mounted | CtState::Running);
            if busy {
                prop_assert!(matches!(verdict, Verdict::Deny(ExitCode::Locked, _)));
            } else if state == CtState::Absent {
                prop_assert_eq!(verdict == Verdict::Accept, op == Op::Create);
            }
            if !matches!(op, Op::Start | Op::Restart) || force {
                prop_assert_eq!(verdict, decide(op, state, !disabled, force), "disabled is for starts that are not forced");
            }
        }
    }
}
