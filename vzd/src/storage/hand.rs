//! Files of containers behind a small interface, so that what is done with them can be tried without a disk.

use super::{DiskSpec, DiskUsage, StorageError, unmount::Swept};
use std::{
    collections::BTreeSet,
    fmt::Debug,
    io,
    path::{Path, PathBuf},
};
use vz_types::{Ctid, Paths, plan::StoragePlan};

/// Files of containers on the host.
pub trait Storage: Send + Sync + Debug {
    /// Makes a writable layer in an existing directory. Durable when it returns.
    fn create_layer(&self, staging: &Path, spec: &DiskSpec) -> Result<(), StorageError>;
    /// Gives a private area its name, by one rename, durably.
    fn place(&self, staging: &Path, private: &Path) -> Result<(), StorageError>;
    /// Unmounts.
    fn umount(&self, plan: &StoragePlan) -> Result<(), StorageError>;
    /// Whether the files are mounted.
    fn is_mounted(&self, plan: &StoragePlan) -> io::Result<bool>;
    /// What the layer holds.
    fn usage(&self, plan: &StoragePlan) -> Option<DiskUsage>;
    /// Makes the layer larger or smaller.
    fn resize(&self, plan: &StoragePlan, spec: &DiskSpec) -> Result<(), StorageError>;
    /// Puts a layer right whose resizing was cut short; nothing may have it mounted.
    fn mend(&self, plan: &StoragePlan) -> Result<(), StorageError>;
    /// Whether the layer is mounted and nothing can be written to it.
    fn is_read_only(&self, plan: &StoragePlan) -> bool;
    /// Checks a layer that was not left in order, before it is mounted.
    fn check(&self, plan: &StoragePlan) -> Result<(), StorageError>;
    /// Takes a private area out of sight; `None`: there is none.
    fn move_to_trash(&self, private: &Path, ctid: Ctid) -> Result<Option<PathBuf>, StorageError>;
    /// What of a container lies in the trash.
    fn in_trash(&self, ctid: Ctid) -> Vec<PathBuf>;
    /// Removes a tree; one that is not there is fine.
    fn remove_tree(&self, dir: &Path) -> Result<(), StorageError>;
    /// Mounts a small filesystem of ours on a directory of ours.
    fn small_filesystem(&self, dir: &Path) -> io::Result<()>;
    /// Takes it away again; one that is not there is fine.
    fn remove_small_filesystem(&self, dir: &Path);
    /// Takes away what belongs to no container in `spared`: mounts, layers in the making.
    fn sweep(&self, spared: &BTreeSet<Ctid>) -> Swept;
    /// Takes away what is mounted of one container that is not in the inventory; see [`super::clear`].
    fn clear(&self, ctid: Ctid) -> Vec<String>;
}

/// The host's own disks.
#[derive(Debug)]
pub struct Disk {
    paths: Paths,
}

impl Disk {
    /// Of one manager.
    pub fn new(paths: &Paths) -> Self {
        Self { paths: paths.clone() }
    }
}

/// Room for the texts twice over and the script, and no more.
const SMALL: &str = "64k";

impl Storage for Disk {
    fn create_layer(&self, staging: &Path, spec: &DiskSpec) -> Result<(), StorageError> {
        super::create_layer(staging, spec, &super::cache_dir(&self.paths))
    }
    fn place(&self, staging: &Path, private: &Path) -> Result<(), StorageError> {
        super::place(staging, private)
    }
    fn umount(&self, plan: &StoragePlan) -> Result<(), StorageError> {
        super::umount(plan)
    }
    fn is_mounted(&self, plan: &StoragePlan) -> io::Result<bool> {
        super::is_mounted(plan)
    }
    fn usage(&self, plan: &StoragePlan) -> Option<DiskUsage> {
        super::usage(plan)
    }
    fn resize(&self, plan: &StoragePlan, spec: &DiskSpec) -> Result<(), StorageError> {
        super::resize(plan, spec)
    }
    fn mend(&self, plan: &StoragePlan) -> Result<(), StorageError> {
        super::mend(plan)
    }
    fn is_read_only(&self, plan: &StoragePlan) -> bool {
        super::health::is_read_only(plan)
    }
    fn check(&self, plan: &StoragePlan) -> Result<(), StorageError> {
        super::health::check(plan)
    }
    fn move_to_trash(&self, private: &Path, ctid: Ctid) -> Result<Option<PathBuf>, StorageError> {
        super::move_to_trash(private, &self.paths.trash_dir(), ctid)
    }
    fn in_trash(&self, ctid: Ctid) -> Vec<PathBuf> {
        super::in_trash(&super::trashes(&self.paths), ctid)
    }
    fn remove_tree(&self, dir: &Path) -> Result<(), StorageError> {
        super::remove_tree(dir)
    }
    fn small_filesystem(&self, dir: &Path) -> io::Result<()> {
        use rustix::mount::MountAttrFlags;
        // Nothing is run from it here; inside, vzmon allows it.
        let quiet =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let options = [("mode", Some("0755")), ("size", Some(SMALL)), ("nr_inodes", Some("16"))];
        vz_sys::mount::new_mount("tmpfs", &options, quiet)
            .and_then(|m| vz_sys::mount::attach(rustix::fd::AsFd::as_fd(&m), dir))
    }
    fn remove_small_filesystem(&self, dir: &Path) {
        super::unmount::small(dir);
    }
    fn sweep(&self, spared: &BTreeSet<Ctid>) -> Swept {
        super::sweep(&self.paths, spared)
    }

    fn clear(&self, ctid: Ctid) -> Vec<String> {
        super::clear(&self.paths, ctid)
    }
}
