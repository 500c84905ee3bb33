//! Confined removal: by descriptors from the directory down, never through a symlink, never across a mount,
//! with bounded memory and descriptors however deep or wide the tree is.

use super::{StorageError, io_step, quota, sync_dir};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RawDir, ResolveFlags, openat2, renameat, unlinkat},
    io::Errno,
};
use std::{
    ffi::CString,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
};
use vz_types::Ctid;

/// Directories deeper than this are moved up to the top and removed from there.
const DEPTH: usize = 48;

/// Removes a directory and all that is in it; done already is fine. Stops at mounts. Of a private area under
/// project quota the limits go, too.
///
/// # Errors
/// [`StorageError::Refused`] when something is mounted in it, or the path is no directory; else the call
/// that failed. What could be removed before that is gone.
pub fn remove_tree(dir: &Path) -> Result<(), StorageError> {
    let project = quota::project_of(&dir.join("rw"));
    remove_files(dir)?;
    if let (Some(id), Some(parent)) = (project, dir.parent()) {
        quota::forget(parent, id);
    }
    Ok(())
}

fn remove_files(dir: &Path) -> Result<(), StorageError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match rustix::fs::open(dir, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::LOOP | Errno::NOTDIR) => {
            return Err(StorageError::Refused { path: dir.to_owned(), why: "it is no directory" });
        }
        Err(e) => return io_step("open", dir, Err(e)),
    };
    if io_step("look at", dir, vz_sys::mount::is_mount_point(dir))? {
        return Err(StorageError::Refused { path: dir.to_owned(), why: "something is mounted there" });
    }
    let mut job = Job { top: top.as_fd(), moved: 0, path: dir };
    // What is moved up from the depths appears at the top again: until nothing is left.
    while job.empty(top.as_fd(), 0)? > 0 {}
    match unlinkat(CWD, dir, AtFlags::REMOVEDIR) {
        // Somebody else of ours was as fast.
        Err(Errno::NOENT) => Ok(()),
        removed => io_step("remove", dir, removed),
    }
}

struct Job<'a> {
    top: BorrowedFd<'a>,
    moved: u64,
    path: &'a Path,
}

impl Job<'_> {
    /// Removes what is in `dir`; answers how many entries there were.
    fn empty(&mut self, dir: BorrowedFd<'_>, depth: usize) -> Result<usize, StorageError> {
        let mut count = 0;
        loop {
            let names = self.some_names(dir)?;
            if names.is_empty() {
                return Ok(count);
            }
            count += names.len();
            for (name, is_dir) in names {
                if is_dir {
                    self.directory(dir, &name, depth)?;
                } else {
                    match unlinkat(dir, &*name, AtFlags::empty()) {
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(Errno::ISDIR) => self.directory(dir, &name, depth)?,
                        // Some filesystems say so of a directory.
                        Err(e @ Errno::PERM) if !is_directory(dir, &name) => return self.kept(&name, e),
                        Err(Errno::PERM) => self.directory(dir, &name, depth)?,
                        Err(Errno::BUSY) => return Err(self.mounted()),
                        Err(e) => return io_step("remove a file below", self.path, Err(e)),
                    }
                }
            }
        }
    }

    fn directory(&mut self, dir: BorrowedFd<'_>, name: &CString, depth: usize) -> Result<(), StorageError> {
        if depth >= DEPTH {
            let up = format!(".vz-removing-{}", self.moved);
            self.moved += 1;
            return io_step("move up a directory below", self.path, renameat(dir, &**name, self.top, up.as_str()));
        }
        let child = self.open(dir, name)?;
        self.empty(child.as_fd(), depth + 1)?;
        match unlinkat(dir, &**name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::BUSY) => Err(self.mounted()),
            Err(e) => io_step("remove a directory below", self.path, Err(e)),
        }
    }

    fn open(&self, dir: BorrowedFd<'_>, name: &CString) -> Result<OwnedFd, StorageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        match openat2(dir, &**name, flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(fd),
            Err(Errno::XDEV) => Err(self.mounted()),
            Err(e) => io_step("open a directory below", self.path, Err(e)),
        }
    }

    /// The kernel refuses to remove a file, and it is ours to say which.
    fn kept<T>(&self, name: &CString, e: Errno) -> Result<T, StorageError> {
        let path = self.path.join("...").join(name.to_string_lossy().as_ref());
        io_step("remove a file (is it immutable? lsattr(1) shows it, chattr -i ends it)", &path, Err(e))
    }

    fn mounted(&self) -> StorageError {
        StorageError::Refused { path: self.path.to_owned(), why: "something is mounted in it" }
    }

    /// Some of the names in a directory, read from its beginning: it shrinks as we go.
    fn some_names(&self, dir: BorrowedFd<'_>) -> Result<Vec<(CString, bool)>, StorageError> {
        io_step("rewind a directory below", self.path, rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0)))?;
        let mut buf = [MaybeUninit::<u8>::uninit(); 32 << 10];
        let mut raw = RawDir::new(dir, &mut buf);
        let mut names = Vec::new();
        while let Some(entry) = raw.next() {
            let entry = io_step("list a directory below", self.path, entry)?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                names.push((name.to_owned(), entry.file_type() == FileType::Directory));
            }
            if names.len() >= 1024 {
                break;
            }
        }
        Ok(names)
    }
}

fn is_directory(dir: BorrowedFd<'_>, name: &CString) -> bool {
    rustix::fs::statat(dir, &**name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
}

/// Gives a private area that was made aside its name by one rename; a second time is fine. Durable when it returns: a
/// commit that relies on it comes after it.
///
/// # Errors
/// The rename failed, or cannot be made durable.
pub fn place(staging: &Path, private: &Path) -> Result<(), StorageError> {
    match rustix::fs::renameat_with(CWD, staging, CWD, private, rustix::fs::RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::NOENT) if !staging.exists() && private.exists() => {}
        Err(e) => return io_step("place the private area at", private, Err(e)),
    }
    private.parent().map_or(Ok(()), sync_dir)
}

/// Where what is to be removed goes when private areas are on a filesystem of their own: a rename stays within one.
pub(super) fn near_trash(private_dir: &Path) -> PathBuf {
    private_dir.join(".trash")
}

/// What lies in one of the places for it of a container.
pub fn in_trash(places: &[PathBuf], ctid: Ctid) -> Vec<PathBuf> {
    let of = format!("{ctid}.");
    let all = places.iter().flat_map(|place| names(place));
    all.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&of))).collect()
}

/// Takes a private area out of sight in one rename, into the trash or one beside it, and answers where it went; `None` when
/// there is none. Durable when it returns.
///
/// # Errors
/// The rename failed.
pub fn move_to_trash(private: &Path, trash: &Path, ctid: Ctid) -> Result<Option<PathBuf>, StorageError> {
    let parent = private.parent().unwrap_or(private);
    match into(private, trash, ctid) {
        // The kernel refuses this before it looks for what is to be moved.
        Err(Errno::XDEV) if private.exists() => {
            let near = near_trash(parent);
            let made = std::fs::DirBuilder::new().mode(0o700).create(&near);
            match made {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                    io_step("make the directory", &near, Err(e))?
                }
                _ => {}
            }
            match into(private, &near, ctid) {
                Ok(target) => durable(&near, parent, target),
                Err(e) => io_step("move to the trash", private, Err(e)),
            }
        }
        Err(Errno::NOENT | Errno::XDEV) if !private.exists() => Ok(None),
        Ok(target) => durable(trash, parent, target),
        Err(e) => io_step("move to the trash", private, Err(e)),
    }
}

fn durable(trash: &Path, parent: &Path, target: Option<PathBuf>) -> Result<Option<PathBuf>, StorageError> {
    let Some(target) = target else {
        let why = "the trash is full of its predecessors; empty it";
        return Err(StorageError::Refused { path: trash.to_owned(), why });
    };
    sync_dir(trash)?;
    sync_dir(parent)?;
    Ok(Some(target))
}

/// By one rename; `None`: all its names there are taken.
fn into(private: &Path, trash: &Path, ctid: Ctid) -> Result<Option<PathBuf>, Errno> {
    for n in 0..1024u32 {
        let target = trash.join(format!("{ctid}.{n}"));
        match rustix::fs::renameat_with(CWD, private, CWD, &target, rustix::fs::RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            other => return other.map(|()| Some(target)),
        }
    }
    Ok(None)
}

/// Names in one of our own directories.
pub(super) fn names(dir: &Path) -> Vec<PathBuf> {
    let Ok(fd) = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else {
        return Vec::new();
    };
    let Ok(entries) = Dir::read_from(&fd) else { return Vec::new() };
    entries
        .flatten()
        .filter(|e| e.file_name() != c"." && e.file_name() != c"..")
        .map(|e| dir.join(&*e.file_name().to_string_lossy()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_removal_follows_no_symlink_and_takes_odd_files() {
        let t = tempfile::tempdir().unwrap();
        let outside = t.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("keep"), "x").unwrap();
        let dir = t.path().join("dir");
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        symlink(&outside, dir.join("a/link")).unwrap();
        symlink("..", dir.join("a/b/up")).unwrap();
        rustix::fs::mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        std::fs::hard_link(outside.join("keep"), dir.join("hard")).unwrap();
        remove_tree(&dir).unwrap();
        assert!(!dir.exists());
        assert_eq!(std::fs::read_to_string(outside.join("keep")).unwrap(), "x");
        remove_tree(&dir).unwrap();
    }

    #[test]
    fn a_symlink_in_place_of_the_directory_is_refused() {
        let t = tempfile::tempdir().unwrap();
        symlink("/etc", t.path().join("dir")).unwrap();
        assert!(matches!(remove_tree(&t.path().join("dir")), Err(StorageError::Refused { .. })));
    }

    #[test]
    fn depth_and_width_do_not_matter() {
        let t = tempfile::tempdir().unwrap();
        let dir = t.path().join("dir");
        std::fs::create_dir(&dir).unwrap();
        let mut at = rustix::fs::open(&dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..600 {
            rustix::fs::mkdirat(&at, "d", Mode::from_raw_mode(0o700)).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        for n in 0..3000 {
            rustix::fs::openat(&at, format!("f{n}"), OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600))
                .unwrap();
        }
        remove_tree(&dir).unwrap();
        assert!(!dir.exists());
    }
}
