//! The containers' files on the host, as far as vzd handles them: making a writable layer, taking mounts
//! away, use and size, removal, and sweeping up after a crash. Mounting is vzmon's (`vzd/mon/src/storage.rs`),
//! because it needs a user namespace. Imports vz-types and vz-sys only; knows nothing of the inventory.
//!
//! | module | story |
//! |---|---|
//! | [`blank`] | a formatted, empty image per size, cached and copied |
//! | [`health`] | filesystems that are written to no more, and their check |
//! | [`superblock`] | the few fields of an ext4 superblock we read or patch |
//! | [`quota`] | the layer as a directory under project quota, where the filesystem has it |
//! | [`resize`] | growing and shrinking |
//! | [`unmount`] | taking mounts and loop devices away; leftovers of a crash |
//! | [`remove`] | confined removal of trees |
//! | [`spare`] | mount points in reserve |
//! | [`tool`] | external programs by absolute path, with a deadline |

pub mod blank;
pub mod hand;
pub mod health;
pub mod quota;
pub mod remove;
pub mod resize;
pub mod spare;
pub mod superblock;
pub mod tool;
pub mod unmount;

pub use remove::{in_trash, move_to_trash, place, remove_tree};
pub use resize::{mend, resize};
pub use unmount::{clear, sweep, umount};

use std::{
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};
use vz_types::{Bytes, ExitCode, Paths, config::Layout, plan::StoragePlan};

/// What a writable layer is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// How files are stored.
    pub layout: Layout,
    /// Space for the container's own files.
    pub space: Bytes,
    /// Files, directories and links it may own.
    pub inodes: u64,
}

impl From<(Layout, vz_types::config::DiskConfig)> for DiskSpec {
    fn from((layout, disk): (Layout, vz_types::config::DiskConfig)) -> Self {
        Self { layout, space: disk.space, inodes: disk.inodes }
    }
}

/// What a writable layer holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes in use.
    pub space_used: Bytes,
    /// Bytes it can hold in all.
    pub space_limit: Bytes,
    /// Bytes that can still be written; a filesystem keeps some of what is not in use for itself.
    pub space_left: Bytes,
    /// Inodes in use.
    pub inodes_used: u64,
    /// Inodes it can hold in all.
    pub inodes_limit: u64,
}

/// What went wrong with a container's files on the host.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The host's filesystem has less than is needed; nothing was begun.
    #[error(
        "not enough space below {path}: {needed} needed, {available} available; free some, or move {path} to a larger filesystem"
    )]
    NoSpace {
        /// Where.
        path: PathBuf,
        /// What was asked.
        needed: Bytes,
        /// What there is.
        available: Bytes,
    },
    /// The host's filesystem refused more: blocks, inodes or a quota ran out on the way.
    #[error(
        "{what} {path}: not enough space: {source} ({available} are free there); free some space or inodes, or move it to a larger filesystem"
    )]
    Full {
        /// The step, ending in a preposition.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Bytes that are free.
        available: Bytes,
        /// What the call said.
        source: io::Error,
    },
    /// An external program is not installed.
    #[error("the program {program} is missing; install the package {package}")]
    MissingProgram {
        /// Its name.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// An external program failed.
    #[error("{program} failed on {path}: {said}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What it worked on.
        path: PathBuf,
        /// The end of what it printed.
        said: String,
    },
    /// A size that cannot be had.
    #[error("{0}")]
    BadSize(String),
    /// Something still uses the mounts.
    #[error("{path} is still in use{by}; stop what uses it and unmount again")]
    Busy {
        /// The mount or image.
        path: PathBuf,
        /// By what, with a leading space, or empty.
        by: String,
    },
    /// A removal met something that is not the container's.
    #[error("refusing to remove {path}: {why}")]
    Refused {
        /// The path.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// Any other system call.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl StorageError {
    /// What vzctl exits with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoSpace { .. } | Self::Full { .. } => ExitCode::NoSpace,
            Self::BadSize(_) => ExitCode::BadValue,
            Self::Busy { .. } => ExitCode::UmountFailed,
            Self::Refused { .. } => ExitCode::DeleteFailed,
            Self::MissingProgram { .. } | Self::Program { .. } | Self::Io { .. } => ExitCode::System,
        }
    }
}

/// Names the step and the path of a failed call; a full filesystem becomes [`StorageError::Full`].
pub(crate) fn io_step<T, E: Into<io::Error>>(
    what: &'static str,
    path: &Path,
    r: Result<T, E>,
) -> Result<T, StorageError> {
    r.map_err(|e| {
        let source: io::Error = e.into();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => {
                let available = available(path).unwrap_or(Bytes(0));
                StorageError::Full { what, path: path.to_owned(), available, source }
            }
            _ => StorageError::Io { what, path: path.to_owned(), source },
        }
    })
}

fn existing_parent(path: &Path) -> PathBuf {
    path.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// Bytes free for root on the filesystem of `path`.
pub(crate) fn available(path: &Path) -> io::Result<Bytes> {
    let s = rustix::fs::statvfs(existing_parent(path))?;
    Ok(Bytes(s.f_bfree.saturating_mul(s.f_frsize)))
}

/// Bytes free for everybody on the filesystem of `path`: what is kept for root is not among them.
pub(crate) fn left(path: &Path) -> io::Result<Bytes> {
    let s = rustix::fs::statvfs(existing_parent(path))?;
    Ok(Bytes(s.f_bavail.saturating_mul(s.f_frsize)))
}

/// Makes the directories this module lives in, with their modes: what is below `private/` and `root/` is
/// nobody's business but root's, since set-uid files of containers are set-uid root on disk.
///
/// # Errors
/// A directory that cannot be made or whose mode cannot be set.
pub fn prepare(paths: &Paths) -> Result<(), StorageError> {
    for dir in [paths.private_dir(), paths.root_dir(), paths.trash_dir(), cache_dir(paths)] {
        io_step("make the directory", &dir, std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir))?;
        io_step("set the mode of", &dir, std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)))?;
    }
    spare::keep(paths);
    Ok(())
}

/// Where what is to be removed lies: beside the private areas too, where those are on a filesystem of their own.
pub(crate) fn trashes(paths: &Paths) -> [PathBuf; 2] {
    [paths.trash_dir(), remove::near_trash(&paths.private_dir())]
}

/// `/var/lib/vz/cache`: blank images. May be emptied at any time.
pub fn cache_dir(paths: &Paths) -> PathBuf {
    paths.var().join("cache")
}

/// Makes a writable layer in `staging` (an existing directory that will be renamed to the private area):
/// `disk.img` and the empty mount point `rw/`, or `rw/` under project quota. Durable when it returns.
///
/// # Errors
/// [`StorageError::NoSpace`] before anything is made or midway; what was made is removed again.
pub fn create_layer(staging: &Path, spec: &DiskSpec, cache: &Path) -> Result<(), StorageError> {
    let rw = staging.join("rw");
    let image = staging.join("disk.img");
    let made = io_step("make the directory", &rw, std::fs::DirBuilder::new().mode(0o700).create(&rw)).and_then(|()| {
        if quota::available(staging) { quota::create(&rw, spec) } else { blank::copy(&image, spec, cache) }
    });
    if made.is_err() {
        let _ = std::fs::remove_file(&image);
        let _ = remove_tree(&rw);
        return made;
    }
    sync_dir(staging)
}

/// Makes a directory's entries durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    io_step("sync", dir, std::fs::File::open(dir).and_then(|d| d.sync_all()))
}

/// Are the container's files mounted on the host?
///
/// # Errors
/// The root cannot be looked at.
pub fn is_mounted(plan: &StoragePlan) -> io::Result<bool> {
    vz_sys::mount::is_mount_point(&plan.root)
}

/// What the layer holds: asked of the filesystem while mounted, else read from the image's superblock.
/// `None` when there is no layer to ask.
pub fn usage(plan: &StoragePlan) -> Option<DiskUsage> {
    let rw = plan.private.join("rw");
    let image = plan.private.join("disk.img");
    if vz_sys::mount::is_mount_point(&rw).ok()? {
        let s = rustix::fs::statvfs(&rw).ok()?;
        return Some(DiskUsage {
            space_used: Bytes((s.f_blocks - s.f_bfree) * s.f_frsize),
            space_limit: Bytes(s.f_blocks * s.f_frsize),
            space_left: Bytes(s.f_bavail * s.f_frsize),
            inodes_used: s.f_files - s.f_ffree,
            inodes_limit: s.f_files,
        });
    }
    match superblock::Superblock::read(&image) {
        Ok(sb) => Some(sb.usage()),
        Err(_) => quota::usage(&rw),
    }
}
