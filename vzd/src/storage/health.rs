//! Filesystems that are written to no more. ext4 stops writing for good at the first error of its own metadata, such as a host's
//! disk without room for another block of its image; what was written before stays whole, and what is written later fails
//! with EROFS. A mount that has done so is not made writable again by a remount (6.18 answers success and refuses writes as
//! before; earlier kernels answer EROFS): it takes an unmount, the replay of its journal, and a check.

use super::{StorageError, io_step, superblock::Superblock, tool, unmount};
use rustix::fs::StatVfsMountFlags;
use std::{path::Path, time::Duration};
use vz_sys::{loopdev, mount, proc};
use vz_types::{Bytes, plan::StoragePlan};

/// What a check of an image may take.
const DEADLINE: Duration = Duration::from_secs(1800);

/// Whether the layer is mounted and nothing can be written to it. Costs three system calls of one that is well.
pub fn is_read_only(plan: &StoragePlan) -> bool {
    let rw = plan.private.join("rw");
    let Ok(fs) = rustix::fs::statvfs(&rw) else { return false };
    if fs.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return true;
    }
    let Some(device) = unmount::device_of(&rw) else { return false };
    // The kernel counts what made it stop, also over mounts; from 6.15 on it says so nowhere else but in the options.
    if matches!(proc::number(&format!("/sys/fs/ext4/{device}/errors_count")), Ok(0)) {
        return false;
    }
    let stopped = |m: &proc::Mount| ["ro", "emergency_ro", "shutdown"].iter().any(|o| m.has_super_option(o));
    proc::mountinfo().is_ok_and(|all| all.iter().any(|m| m.mount_point == unmount::resolved(&rw) && stopped(m)))
}

/// Checks an image that was not left in order, before it is mounted: its journal is replayed, and what can be put right
/// without losing anything is. One that is mounted and can be written to is left alone; one that cannot is unmounted.
///
/// # Errors
/// It is in use, the host has no room for the replay, or it cannot be put right without somebody who decides.
pub fn check(plan: &StoragePlan) -> Result<(), StorageError> {
    let image = plan.private.join("disk.img");
    let rw = plan.private.join("rw");
    if !image.exists() {
        return Ok(());
    }
    if io_step("look at", &rw, mount::is_mount_point(&rw))? {
        if !is_read_only(plan) {
            return Ok(());
        }
        unmount::umount(plan)?;
    }
    // What cannot be read is told by whoever mounts it.
    let Some(sb) = Superblock::read(&image).ok().filter(Superblock::needs_check) else { return Ok(()) };
    if is_attached(&image) {
        return Ok(());
    }
    // A replay that fails midway leaves it worse than it was.
    let (needed, available) = (sb.journal(), super::left(&image).unwrap_or(Bytes(u64::MAX)));
    if available < needed {
        return Err(StorageError::NoSpace { path: plan.private.clone(), needed, available });
    }
    match tool::run("e2fsck", "e2fsprogs", &["-p".as_ref(), image.as_os_str()], &image, &[0, 1], DEADLINE) {
        // The kernel replays the journal as well.
        Err(e @ StorageError::MissingProgram { .. }) => {
            tracing::warn!(image = %image.display(), "it was not left in order, and is not checked: {e}");
            Ok(())
        }
        done => done.map(drop),
    }
}

/// A copy of its mount in somebody's mount namespace keeps it: then it is not ours alone.
fn is_attached(image: &Path) -> bool {
    let image = unmount::resolved(image);
    loopdev::in_use().map_or(true, |all| all.iter().any(|(_, backing)| *backing == image))
}
