//! Monitors behind a small interface, so that what is done with them can be tried without any.

use super::{Error, Found, Live};
use std::{
    fmt::Debug,
    os::fd::{BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use vz_sys::spawn::Spawned;
use vz_types::{
    plan::{ControlReply, ControlRequest, EditPlan, LaunchPlan, MountPlan},
    run::ProcessId,
};

/// Monitors: launching, asking, finding and ending them.
pub trait Monitors: Send + Sync + Debug {
    /// Makes what every launch can use and none has to wait for.
    fn warm(&self) {}
    /// Spawns the monitor of a container in this cgroup, and gives it its plan.
    fn launch(&self, plan: &LaunchPlan, cgroup: Option<BorrowedFd<'_>>) -> Result<Box<dyn Launch>, Error>;
    /// Mounts a container's files on the host.
    fn mount(&self, plan: &MountPlan) -> Result<(), Error>;
    /// Changes files of a stopped, mounted container from inside.
    fn edit(&self, plan: &EditPlan) -> Result<(), Error>;
    /// Asks the monitor of a running container, and waits for its answer at most so long.
    fn control(&self, run_dir: &Path, request: &ControlRequest, within: Duration) -> Result<ControlReply, Error>;
    /// Asks it, and leaves its answer to be fetched.
    fn ask(&self, run_dir: &Path, request: &ControlRequest) -> Result<Box<dyn Asked>, Error>;
    /// Looks for a running container's record and its monitor.
    fn find(&self, run_dir: &Path, boot_id: &str) -> Found;
    /// Waits for a monitor to end; one that has not by then is killed. Says whether it is gone.
    fn end(&self, monitor: &Live, patience: Duration) -> bool;
    /// The same for one that is only known by number.
    fn end_process(&self, id: ProcessId, patience: Duration) -> bool;
    /// Where the program is.
    ///
    /// # Errors
    /// It is nowhere.
    fn program(&self) -> Result<PathBuf, Error>;
}

/// A monitor on its way to a running container. Dropped before that, it is killed and reaped.
pub trait Launch: Send + Debug {
    /// The network namespace, as soon as it is there; `None`: not within this time.
    fn net_ready(&mut self, within: Duration) -> Result<Option<OwnedFd>, Error>;
    /// Lets init run. To be said once.
    fn go(&mut self) -> Result<(), Error>;
    /// That init runs, as soon as it does; `None`: not within this time.
    fn running(&mut self, within: Duration) -> Result<Option<Launched>, Error>;
    /// Tells the monitor to unwind, and waits until it has.
    fn abort(self: Box<Self>);
    /// Which process it is.
    fn id(&self) -> Option<ProcessId>;
    /// Becomes readable when the monitor says something.
    fn fd(&self) -> Arc<OwnedFd>;
}

/// A container whose init was executed.
#[derive(Debug)]
pub struct Launched {
    /// Its monitor, from now on the caller's to reap.
    pub child: Option<Spawned>,
    /// The monitor's steps: name and microseconds since the plan arrived.
    pub steps: Vec<(String, u64)>,
    /// What was not done although the boot goes on.
    pub warnings: Vec<String>,
}

/// A request a monitor is at work on.
pub trait Asked: Send + Debug {
    /// Its answer, if it is there.
    fn answer(&mut self) -> Result<Option<ControlReply>, Error>;
    /// Becomes readable when it is.
    fn fd(&self) -> Arc<OwnedFd>;
}
