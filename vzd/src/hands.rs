//! What a container is made of, behind small interfaces: its monitor, its files, its link and its cgroup. Operations know
//! nothing else of the machine, so they can be carried out on one that is in memory alone and fails wherever it is told
//! to (`fake`).

pub use crate::{
    limits::tree::Tree,
    monitor::hand::{Asked, Launch, Launched, Monitors},
    network::hand::Links,
    storage::hand::Storage,
};

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "directories of a test's own, with nothing mounted in them")]
pub mod fake;

use crate::{
    limits::cgroup::{self, Cgroups},
    monitor::Monitor,
    network::Network,
    storage::hand::Disk,
};
use std::{fmt::Debug, path::Path, sync::Arc};
use vz_types::Paths;

/// How the tree is found: it may not be mounted yet when vzd starts.
pub type FindTree = Box<dyn Fn() -> Result<Box<dyn Tree>, cgroup::Error> + Send + Sync>;

/// All of them.
pub struct Hands {
    /// Monitors.
    pub monitor: Box<dyn Monitors>,
    /// Files.
    pub storage: Box<dyn Storage>,
    /// Links.
    pub network: Arc<dyn Links>,
    /// How the cgroup tree is found.
    pub tree: FindTree,
}

impl Debug for Hands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hands").field("monitor", &self.monitor).finish_non_exhaustive()
    }
}

impl Hands {
    /// Those of this machine.
    pub fn real(paths: &Paths, vzmon: Option<&Path>, cgroup_root: Option<&Path>, network: Arc<Network>) -> Self {
        let (tree_paths, root) = (paths.clone(), cgroup_root.map(Path::to_path_buf));
        Self {
            monitor: Box::new(Monitor::new(vzmon, paths)),
            storage: Box::new(Disk::new(paths)),
            network,
            tree: Box::new(move || Ok(Box::new(Cgroups::find(&tree_paths, root.as_deref())?))),
        }
    }
}
