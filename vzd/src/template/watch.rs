//! Remembers that a tree was checked, for as long as the kernel reports no change in it. Taking the
//! stamp of a template costs a `stat` per file, too much for every `create`; with a watch on each of its
//! directories (inotify(7)) it is taken once, and again only after something happened.
//!
//! A directory's watch also reports changes to the files in it, made through any mount of the same
//! filesystem. It does not see a write through a hard link in another directory; nobody but root of
//! the host can make one, and [`super::Store::verify`] finds it.

use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

const CHANGES: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);

/// Trees that were checked, each with its watch.
#[derive(Clone, Debug, Default)]
pub struct Checked(Arc<Mutex<HashMap<PathBuf, OwnedFd>>>);

impl Checked {
    /// Runs `check` on the tree at `root`, unless it succeeded before and nothing has changed since.
    pub fn ensure<E>(&self, root: &Path, check: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        if self.holds(root) {
            return Ok(());
        }
        // Watching begins before the check, so that no change falls between the two.
        let watch = watch(root);
        check()?;
        match watch {
            Ok(fd) => {
                self.lock().insert(root.to_owned(), fd);
            }
            // No watches left (fs.inotify.max_user_watches): it is checked each time.
            Err(e) => tracing::debug!(root = %root.display(), error = %e, "a template cannot be watched"),
        }
        Ok(())
    }

    /// Forgets a tree that is about to go.
    pub fn forget(&self, below: &Path) {
        self.lock().retain(|root, _| !root.starts_with(below));
    }

    fn holds(&self, root: &Path) -> bool {
        let mut map = self.lock();
        let Some(fd) = map.get(root) else { return false };
        let mut buffer = [0u8; 4096];
        if matches!(rustix::io::read(fd, &mut buffer), Err(Errno::AGAIN)) {
            return true;
        }
        map.remove(root);
        false
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn watch(root: &Path) -> io::Result<OwnedFd> {
    let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        inotify::add_watch(&fd, &dir, CHANGES)?;
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_tree_is_checked_again_only_after_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("f"), "1").unwrap();
        let checked = Checked::default();
        let runs = Cell::new(0);
        let go = || {
            checked
                .ensure(dir.path(), || -> Result<(), ()> {
                    runs.set(runs.get() + 1);
                    Ok(())
                })
                .unwrap()
        };
        go();
        go();
        std::fs::read(deep.join("f")).unwrap();
        go();
        assert_eq!(runs.get(), 1);
        std::fs::write(deep.join("f"), "2").unwrap();
        go();
        go();
        assert_eq!(runs.get(), 2);
        assert_eq!(checked.ensure(dir.path(), || Err(())), Ok(()));
        std::fs::create_dir(deep.join("new")).unwrap();
        assert_eq!(checked.ensure(dir.path(), || Err(())), Err(()));
        // A failed check is not remembered.
        assert_eq!(checked.ensure(dir.path(), || Err(())), Err(()));
    }
}
