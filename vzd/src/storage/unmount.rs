//! Taking a container's mounts and loop device away, and finding those a crash has left. Tolerant by temper:
//! every mount is tried, what failed is reported at the end.

use super::{StorageError, remove};
use rustix::{io::Errno, mount::UnmountFlags};
use std::{
    collections::BTreeSet,
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use vz_sys::loopdev;
use vz_types::{Ctid, Paths, plan::StoragePlan};

/// How long the kernel may take to let go of a loop device whose last mount is gone.
const RELEASE: Duration = Duration::from_millis(250);

/// Unmounts a container's files; not mounted is fine. What is busy is unmounted lazily. Whoever keeps the writable
/// layer alive after that (an open file, a copy of the mount in another mount namespace) is cut off: all that was
/// written is made durable, and the image is nobody's but ours again.
///
/// # Errors
/// A mount that cannot be taken away, or [`StorageError::Busy`] when the layer cannot be ended.
pub fn umount(plan: &StoragePlan) -> Result<(), StorageError> {
    let image = plan.private.join("disk.img");
    let rw = plan.private.join("rw");
    let device = device_of(&rw);
    let mut first = None;
    for path in [plan.root.clone(), plan.private.join(".lower"), plan.private.join(".upper"), rw] {
        if let Err(e) = unmount_all(&path) {
            first.get_or_insert(e);
        }
    }
    if let Some(e) = first {
        return Err(e);
    }
    match device {
        Some(device) if image.exists() => released(&image, &device),
        _ => Ok(()),
    }
}

/// `loopN`, when that is what is mounted on a path.
pub(super) fn device_of(mount_point: &Path) -> Option<String> {
    if !vz_sys::mount::is_mount_point(mount_point).ok()? {
        return None;
    }
    let dev = std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(mount_point).ok()?);
    let link = format!("/sys/dev/block/{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
    let name = std::fs::read_link(link).ok()?.file_name()?.to_string_lossy().into_owned();
    name.starts_with("loop").then_some(name)
}

/// Unmounts whatever is stacked on a path, lazily when it is busy.
fn unmount_all(path: &Path) -> Result<(), StorageError> {
    // EINVAL ends it: no mount (any more). The bound is for a mount somebody puts back all the time.
    for _ in 0..64 {
        match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) => match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
                Ok(()) => tracing::warn!(path = %path.display(), "was busy; unmounted lazily"),
                Err(e) => return super::io_step("unmount", path, Err(e)),
            },
            Err(e) => return super::io_step("unmount", path, Err(e)),
        }
    }
    Err(StorageError::Busy { path: path.to_owned(), by: " by somebody who mounts it again".into() })
}

/// Waits until the loop device is free of the image; when it stays, ends the filesystem on it.
fn released(image: &Path, device: &str) -> Result<(), StorageError> {
    let shown = Path::new("/sys/block").join(device).join("loop/backing_file");
    let backing = resolved(image);
    let end = Instant::now() + RELEASE;
    while std::fs::read_to_string(&shown).is_ok_and(|b| Path::new(b.trim_end_matches('\n')) == backing) {
        // Release follows the last mount asynchronously on some kernels and is announced nowhere but here.
        if Instant::now() >= end {
            tracing::warn!(image = %image.display(), device, "another mount namespace or an open file keeps the layer; ended it");
            return match loopdev::end_filesystems_on(image) {
                Ok(_) => Ok(()),
                Err(e) => Err(StorageError::Busy {
                    path: image.to_owned(),
                    by: format!(" on /dev/{device} and cannot be ended ({e})"),
                }),
            };
        }
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        let _ = rustix::event::poll(&mut [], Some(&pause));
    }
    Ok(())
}

/// What [`sweep`] found.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// What it did and what it could not do, one sentence each.
    pub said: Vec<String>,
    /// Trees in the trash that nobody wants any more: to be removed when there is time.
    pub trees: Vec<PathBuf>,
}

/// Removes what belongs to no container in `spared`: mounts below `private/` and `root/`, loop devices whose
/// file is below our directories, staging directories (`private/.*`), which go to the trash, and what lies there.
pub fn sweep(paths: &Paths, spared: &BTreeSet<Ctid>) -> Swept {
    let mut said = Vec::new();
    // The kernel shows paths with symlinks resolved.
    let [private, root, trash] = [paths.private_dir(), paths.root_dir(), paths.trash_dir()].map(|d| resolved(&d));
    let ours = [&private, &root, &trash];
    let dead = |path: &Path| {
        ours.iter().any(|dir| {
            path.strip_prefix(dir).is_ok_and(|rest| {
                let first = rest.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned());
                first.is_some_and(|name| !owner(&name).is_some_and(|c| spared.contains(&c)))
            })
        })
    };
    if let Err(e) = take_away(&dead, &mut said) {
        // Nothing is removed that may have something mounted in it.
        let said = vec![format!("leftovers stay where they are, because the mounts cannot be read: {e}")];
        return Swept { said, trees: Vec::new() };
    }
    let trashes = super::trashes(paths);
    let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let unowned = |p: &PathBuf| !owner(&name(p)).is_some_and(|c| spared.contains(&c));
    for path in remove::names(&paths.private_dir()).into_iter().filter(|p| hidden(p)).filter(unowned) {
        if trashes.contains(&path) {
            continue;
        }
        // By one rename, so that its place is free for the next create at once.
        match owner(&name(&path)).map(|c| remove::move_to_trash(&path, &paths.trash_dir(), c)) {
            Some(Ok(_)) => said.push(format!("moved the leftover {} to the trash", path.display())),
            Some(Err(e)) => said.push(format!("cannot move the leftover {} to the trash: {e}", path.display())),
            None => said.extend(remove::remove_tree(&path).err().map(|e| format!("a leftover stays: {e}"))),
        }
    }
    let trees = trashes.iter().flat_map(|trash| remove::names(trash)).filter(unowned).collect();
    for path in remove::names(&super::cache_dir(paths)).into_iter().filter(|p| hidden(p)) {
        let _ = if path.is_dir() { remove::remove_tree(&path).is_ok() } else { std::fs::remove_file(&path).is_ok() };
    }
    Swept { said, trees }
}

/// Takes away what is mounted of one container, and what its image is attached to; its files stay where they are. Answers
/// what was done and what could not be, one sentence each.
pub fn clear(paths: &Paths, ctid: Ctid) -> Vec<String> {
    let own = [paths.private(ctid), paths.root(ctid)].map(|d| resolved(&d));
    let mut said = Vec::new();
    if let Err(e) = take_away(&|path| own.iter().any(|dir| path.starts_with(dir)), &mut said) {
        said.push(format!("its mounts stay, because they cannot be read: {e}"));
    }
    // Refused while something is mounted on it.
    let _ = std::fs::remove_dir(paths.root(ctid));
    said
}

/// Unmounts what is mounted on paths of this kind, and releases the loop devices of files there.
fn take_away(dead: &dyn Fn(&Path) -> bool, said: &mut Vec<String>) -> std::io::Result<()> {
    // Later lines of mountinfo are mounted on earlier ones.
    for path in vz_sys::proc::mountinfo()?.into_iter().rev().map(|m| m.mount_point).filter(|p| dead(p)) {
        match rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW) {
            Ok(()) => said.push(format!("unmounted the leftover {}", path.display())),
            Err(_) => match rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH) {
                Ok(()) => said.push(format!("unmounted the busy leftover {} lazily", path.display())),
                Err(e) => said.push(format!("cannot unmount the leftover {}: {e}", path.display())),
            },
        }
    }
    for (device, backing) in loopdev::in_use().unwrap_or_default() {
        let plain = PathBuf::from(backing.to_string_lossy().trim_end_matches(" (deleted)"));
        if dead(&plain) {
            match File::open(&device).and_then(|f| loopdev::clear(f.as_fd())) {
                Ok(()) => said.push(format!("released {} of {}", device.display(), plain.display())),
                Err(e) => said.push(format!("cannot release {} of {}: {e}", device.display(), plain.display())),
            }
        }
    }
    Ok(())
}

/// Whose a name in our directories is: `101`, `101.3` in the trash, `.new-101` in the making.
fn owner(name: &str) -> Option<Ctid> {
    let number = name.strip_prefix(".new-").unwrap_or(name);
    number.split('.').next().unwrap_or(number).parse().ok()
}

/// The path as the kernel shows it in mountinfo and sysfs.
pub(super) fn resolved(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."))
}
/// Unmounts a small filesystem of ours and removes its mount point; a directory of an earlier version has files and no
/// mount.
pub fn small(dir: &Path) {
    // Twice, for a text may be written between the two steps.
    for last in [false, true] {
        while rustix::mount::unmount(dir, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH).is_ok() {}
        for path in remove::names(dir) {
            let _ = std::fs::remove_file(path);
        }
        match std::fs::remove_dir(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound && last => {
                tracing::warn!("{} is left behind: {e}", dir.display());
            }
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {}
            _ => return,
        }
    }
}
