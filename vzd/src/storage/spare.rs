//! Mount points in reserve. A directory takes a block of its own, which a full disk does not have; `mount` takes one that is
//! there already, and the last `umount` gives it back.

use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};
use vz_types::Paths;

/// So many containers can be mounted at once on a full disk beside those that are.
const SPARES: u32 = 4;

fn places(paths: &Paths) -> impl Iterator<Item = PathBuf> {
    let dir = super::cache_dir(paths).join("mount-points");
    (0..SPARES).map(move |n| dir.join(n.to_string()))
}

/// Makes those that are missing. On a full disk there are as many as there are.
pub(super) fn keep(paths: &Paths) {
    for place in places(paths) {
        match fs::DirBuilder::new().recursive(true).mode(0o700).create(&place) {
            Ok(()) => {}
            Err(e) => return tracing::debug!(path = %place.display(), "no mount point in reserve: {e}"),
        }
    }
}

/// Makes a mount point, of one in reserve where the disk has no room for another.
///
/// # Errors
/// It cannot be made, and there is none in reserve on the same filesystem.
pub fn make(paths: &Paths, root: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(root) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == ErrorKind::StorageFull || e.raw_os_error() == Some(libc::EDQUOT) => {
            let taken = |place: PathBuf| renameat_with(CWD, place, CWD, root, RenameFlags::NOREPLACE).is_ok();
            if places(paths).any(taken) { Ok(()) } else { Err(e) }
        }
        made => made,
    }
}

/// Removes an empty mount point, into the reserve where that is not whole. One that is in use stays.
pub fn remove(paths: &Paths, root: &Path) {
    let is_empty = fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_none());
    if is_empty && !vz_sys::mount::is_mount_point(root).unwrap_or(true) {
        let given =
            |place: PathBuf| !place.exists() && renameat_with(CWD, root, CWD, &place, RenameFlags::NOREPLACE).is_ok();
        if places(paths).any(given) {
            return;
        }
    }
    // Refused while something is mounted on it.
    let _ = fs::remove_dir(root);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_goes_back_into_the_reserve_where_one_was_taken() {
        let t = tempfile::tempdir().unwrap();
        let paths = Paths::new(t.path());
        keep(&paths);
        assert!(places(&paths).all(|p| p.is_dir()));
        let root = paths.root(101.try_into().unwrap());
        fs::create_dir_all(root.parent().unwrap()).unwrap();
        let one = places(&paths).next().unwrap();
        fs::rename(&one, &root).unwrap();
        fs::write(root.join("in-use"), "").unwrap();
        remove(&paths, &root);
        assert!(root.exists() && !one.exists(), "what has something in it stays");
        fs::remove_file(root.join("in-use")).unwrap();
        remove(&paths, &root);
        assert!(!root.exists() && one.is_dir());
        make(&paths, &root).unwrap();
        make(&paths, &root).unwrap();
        remove(&paths, &root);
        assert!(!root.exists());
    }
}
