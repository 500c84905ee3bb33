//! The journalled steps of every operation, as one table, and the fault points they are.
//!
//! Before and after each step's side effect vzd can be made to die by SIGKILL, which is how the crash
//! tests reach every point: `VZ_FAULT=create.layer` dies after the step, `VZ_FAULT=create.layer.before`
//! just before it, and `VZ_FAULT=vzmon.storage` makes the monitor die at its own step of that name.

use vz_types::{plan::LAUNCH_STEPS, state::Op};

/// Environment variable that names the fault point to die at.
pub const FAULT_ENV: &str = "VZ_FAULT";

/// What each operation does, in order. An operation may leave a step out, never change the order.
pub const STEPS: &[(Op, &[&str])] = &[
    (Op::Create, &["claim", "layer", "place", "filter", "conf", "inside", "commit"]),
    (
        Op::Start,
        &[
            "journal",
            "claims",
            "cgroup",
            "rundir",
            "launch",
            "limits",
            "namespaces",
            "network",
            "running",
            "disks",
            "commit",
        ],
    ),
    (Op::Stop, &["journal", "signal", "kill", "umount", "network", "cgroup", "rundir", "commit"]),
    (Op::Destroy, &["journal", "conf", "trash", "filter", "commit", "delete"]),
    (Op::Mount, &["journal", "mount", "commit"]),
    (Op::Umount, &["journal", "umount", "commit"]),
    (Op::Set, &["claim", "filter", "live", "limits", "conf", "shrink", "grow", "commit", "release"]),
];

/// The fault point asked for, if one was.
#[derive(Clone, Debug, Default)]
pub struct Fault(Option<String>);

impl Fault {
    /// From the environment of this process.
    pub fn from_env() -> Self {
        Self(std::env::var(FAULT_ENV).ok().filter(|f| !f.is_empty()))
    }

    /// Whether there is such a point.
    pub fn known(&self) -> bool {
        self.0.as_ref().is_none_or(|f| points().any(|p| p == *f))
    }

    /// The monitor's own step to die at.
    pub fn monitor_step(&self) -> Option<String> {
        self.0.as_deref().and_then(|f| f.strip_prefix("vzmon.")).map(String::from)
    }

    /// Dies here if this is the point.
    pub fn reach(&self, op: Op, step: &str, before: bool) {
        debug_assert!(order(op, step).is_some(), "{}.{step} is not in the table", op.word());
        let Some(wanted) = self.0.as_deref() else { return };
        let rest = wanted.strip_prefix(op.word()).and_then(|r| r.strip_prefix('.')).and_then(|r| r.strip_prefix(step));
        if rest == Some(if before { ".before" } else { "" }) {
            // Nothing of ours runs after this: no destructor, no flush, exactly as in a real kill.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

/// Place of a step in its operation.
pub fn order(op: Op, step: &str) -> Option<usize> {
    STEPS.iter().find(|(o, _)| *o == op).and_then(|(_, steps)| steps.iter().position(|s| *s == step))
}

/// Every fault point by name.
pub fn points() -> impl Iterator<Item = String> {
    let ours = STEPS.iter().flat_map(|(op, steps)| {
        steps.iter().flat_map(move |s| [format!("{}.{s}.before", op.word()), format!("{}.{s}", op.word())])
    });
    ours.chain(LAUNCH_STEPS.iter().map(|s| format!("vzmon.{s}"))).chain(crate::template::points())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_unique_and_known() {
        let mut all: Vec<String> = points().collect();
        let n = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), n);
        assert!(Fault(Some("create.claim".into())).known());
        assert!(!Fault(Some("create.nonsense".into())).known());
        assert_eq!(Fault(Some("vzmon.storage".into())).monitor_step().as_deref(), Some("storage"));
    }
}
