//! The writable layer as a plain directory under project quota: on xfs and ext4 with `prjquota`. The project
//! id is chosen here and kept in the directory itself, so no other record of it is needed.

use super::{DiskSpec, DiskUsage, StorageError, io_step};
use rustix::fs::{Mode, OFlags};
use std::{
    fs::File,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::Path,
};
use vz_sys::mount;
use vz_types::Bytes;

/// Is project quota enforced on the filesystem that holds `dir`?
pub fn available(dir: &Path) -> bool {
    File::open(dir).is_ok_and(|d| mount::has_project_quota(d.as_fd()))
}

/// Puts the existing, empty directory `rw` under a project of its own with the limits of `spec`, then makes
/// `upper` and `work` in it.
///
/// # Errors
/// The step that failed, with the path.
pub fn create(rw: &Path, spec: &DiskSpec) -> Result<(), StorageError> {
    let dir = io_step("open", rw, File::open(rw))?;
    let meta = io_step("look at", rw, dir.metadata())?;
    let id = free_project(&dir, meta.ino());
    // Limits first: the quota holds from the first byte.
    io_step("set the quota of", rw, mount::set_project_limits(dir.as_fd(), id, spec.space.0, spec.inodes))?;
    io_step("set the project of", rw, mount::set_project(dir.as_fd(), id))?;
    for name in ["upper", "work"] {
        let path = rw.join(name);
        io_step("make the directory", &path, std::fs::DirBuilder::new().mode(0o755).create(&path))?;
    }
    io_step("sync", rw, dir.sync_all())
}

/// A project nobody uses, starting from the directory's inode number, which no other living directory has.
fn free_project(dir: &File, inode: u64) -> u32 {
    let start = (inode ^ (inode >> 31)) as u32 & 0x7fff_ffff;
    (0..1024)
        .map(|n| start.wrapping_add(n).max(1))
        .find(|id| mount::project_quota(dir.as_fd(), *id).map_or(true, |q| q == mount::ProjectQuota::default()))
        .unwrap_or(start.max(1))
}

/// Changes the limits of a layer made by [`create`].
///
/// # Errors
/// Less than is in use, or the quota cannot be set.
pub fn resize(rw: &Path, spec: &DiskSpec) -> Result<(), StorageError> {
    let dir = io_step("open", rw, File::open(rw))?;
    let id = io_step("read the project of", rw, mount::project(dir.as_fd()))?;
    let now = io_step("read the quota of", rw, mount::project_quota(dir.as_fd(), id))?;
    super::resize::refuse_below_use(spec, Bytes(now.bytes_used), now.inodes_used)?;
    io_step("set the quota of", rw, mount::set_project_limits(dir.as_fd(), id, spec.space.0, spec.inodes))
}

/// Use and limits of a layer made by [`create`]; `None` when the directory is under no project.
pub fn usage(rw: &Path) -> Option<DiskUsage> {
    let dir = File::open(rw).ok()?;
    let id = mount::project(dir.as_fd()).ok().filter(|id| *id != 0)?;
    let q = mount::project_quota(dir.as_fd(), id).ok()?;
    Some(DiskUsage {
        space_used: Bytes(q.bytes_used),
        space_limit: Bytes(q.bytes_limit),
        space_left: Bytes(q.bytes_limit.saturating_sub(q.bytes_used)),
        inodes_used: q.inodes_used,
        inodes_limit: q.inodes_limit,
    })
}

/// The project of a layer, to be given to [`forget`] once its files are gone.
pub fn project_of(rw: &Path) -> Option<u32> {
    // Whatever else lies there under that name must not be followed or waited for.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(rw, flags, Mode::empty()).ok()?;
    mount::project(dir.as_fd()).ok().filter(|id| *id != 0 && mount::has_project_quota(dir.as_fd()))
}

/// Takes the limits of a project away, so that the id is free again.
pub fn forget(any_file_there: &Path, id: u32) {
    if let Ok(dir) = File::open(any_file_there) {
        if let Err(e) = mount::set_project_limits(dir.as_fd(), id, 0, 0) {
            tracing::debug!(project = id, error = %e, "cannot take the limits of a project away");
        }
    }
}
