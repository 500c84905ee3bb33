//! The cgroup tree behind a small interface, so that what is done with it can be tried without one.

use super::cgroup::{self, Cgroups};
use std::{
    fmt::Debug,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use vz_types::{Ctid, UidBase};

/// Our part of the cgroup tree.
pub trait Tree: Send + Sync + Debug {
    /// Makes our level of a container.
    fn create(&self, ctid: Ctid, owner: UidBase) -> Result<PathBuf, cgroup::Error>;
    /// Kills everything in it and waits until it is gone.
    fn kill(&self, ctid: Ctid, deadline: Duration) -> Result<(), cgroup::Error>;
    /// Removes it.
    fn remove(&self, ctid: Ctid) -> Result<(), cgroup::Error>;
    /// Whether a process is in it.
    ///
    /// # Errors
    /// It cannot be read; that says nothing about processes.
    fn populated(&self, ctid: Ctid) -> io::Result<bool>;
    /// Processes and threads in it.
    fn count(&self, ctid: Ctid) -> Option<u64>;
    /// Every container that has a level.
    fn list(&self) -> Vec<Ctid>;
    /// Where monitors are born.
    fn monitors(&self) -> Result<File, cgroup::Error>;
    /// Moves a monitor there.
    fn keep_monitor(&self, pid: i32) -> Result<(), cgroup::Error>;
    /// Our level of a container.
    fn path(&self, ctid: Ctid) -> PathBuf;
    /// Where cgroup2 is mounted.
    fn mount(&self) -> &Path;
    /// Our level, above every container's.
    fn base(&self) -> &Path;
    /// Controllers the kernel offers on this tree.
    fn controllers(&self) -> &[String];
}

impl Tree for Cgroups {
    fn create(&self, ctid: Ctid, owner: UidBase) -> Result<PathBuf, cgroup::Error> {
        self.create(ctid, owner)
    }
    fn kill(&self, ctid: Ctid, deadline: Duration) -> Result<(), cgroup::Error> {
        self.kill(ctid, deadline)
    }
    fn remove(&self, ctid: Ctid) -> Result<(), cgroup::Error> {
        self.remove(ctid)
    }
    fn populated(&self, ctid: Ctid) -> io::Result<bool> {
        self.populated(ctid)
    }
    fn count(&self, ctid: Ctid) -> Option<u64> {
        self.count(ctid)
    }
    fn list(&self) -> Vec<Ctid> {
        self.list()
    }
    fn monitors(&self) -> Result<File, cgroup::Error> {
        self.monitors()
    }
    fn keep_monitor(&self, pid: i32) -> Result<(), cgroup::Error> {
        self.keep_monitor(pid)
    }
    fn path(&self, ctid: Ctid) -> PathBuf {
        self.path(ctid)
    }
    fn mount(&self) -> &Path {
        self.mount()
    }
    fn base(&self) -> &Path {
        self.base()
    }
    fn controllers(&self) -> &[String] {
        self.controllers()
    }
}
