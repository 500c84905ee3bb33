//! What vzd tells of a container, and containers that are to be found unharmed.

use crate::{
    Rig,
    wait::{self, Process},
};
use std::time::Duration;
use vz_types::run::ProcessId;

const SOON: Duration = Duration::from_secs(20);

impl Rig {
    /// The state proper of a container.
    #[track_caller]
    pub fn state(&self, ctid: u32) -> String {
        let told = self.ok(&["--json", "status", &ctid.to_string()]).json();
        told["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a container is in this state.
    #[track_caller]
    pub fn wait_state(&self, ctid: u32, is: &str) {
        let there = wait::retry(SOON, Duration::from_millis(100), || (self.state(ctid) == is).then_some(()));
        assert!(there.is_some(), "CT {ctid} is {} and not {is}\n--- vzd\n{}", self.state(ctid), self.vzd_log(40));
    }

    /// What is wrong with a container.
    #[track_caller]
    pub fn trouble(&self, ctid: u32) -> String {
        let (status, text) = self.request("GET", &format!("/v1/cts/{ctid}"), &[], "");
        let info: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let cause = info["trouble"]["cause"].as_str();
        cause.unwrap_or_else(|| panic!("no trouble is told ({status}): {info:#}")).to_owned()
    }
}

/// Running containers with their first processes, to be found unharmed.
#[derive(Debug)]
pub struct Unharmed(pub Vec<(u32, ProcessId, Process)>);

impl Unharmed {
    /// These, which run.
    #[track_caller]
    pub fn of(rig: &Rig, ctids: &[u32]) -> Self {
        let one = |c: &u32| {
            let id = rig.record(*c).init;
            let pid = u32::try_from(id.pid).expect("a process");
            (*c, id, Process::open(pid).expect("a running container's init"))
        };
        Self(ctids.iter().map(one).collect())
    }

    /// They run still, and are shown to.
    #[track_caller]
    pub fn assert(&self, rig: &Rig, when: &str) {
        for (ctid, _, init) in &self.0 {
            let ended = init.ended(Duration::ZERO).expect("polling a process");
            assert!(!ended, "{when}: CT {ctid} was ended\n{}", rig.vzd_log(60));
            assert_eq!(rig.status(*ctid), "exist mounted running", "{when}\n{}", rig.vzd_log(60));
        }
    }

    /// They run still, and are under control.
    #[track_caller]
    pub fn assert_taken_in(&self, rig: &Rig, when: &str) {
        self.assert(rig, when);
        for (ctid, id, _) in &self.0 {
            rig.wait_state(*ctid, "running");
            assert_eq!(rig.record(*ctid).init, *id, "{when}");
            assert_eq!(rig.inside(*ctid, "echo hello"), "hello", "{when}");
        }
    }
}
