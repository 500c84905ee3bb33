//! Files of containers: real directories, an image that only says how large it is, and mounts that are noted.

use super::{Seat, State, on_purpose};
use crate::{
    hands::Storage,
    storage::{DiskSpec, DiskUsage, StorageError, unmount::Swept},
};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};
use vz_types::{Bytes, Ctid, plan::StoragePlan};

fn error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io { what, path, source }
}

fn image(dir: &Path) -> PathBuf {
    dir.join("disk.img")
}

fn write_image(dir: &Path, spec: &DiskSpec) -> Result<(), StorageError> {
    let image = image(dir);
    fs::write(&image, format!("{} {}", spec.space.0, spec.inodes)).map_err(error("write", &image))
}

fn read_image(dir: &Path) -> Option<(u64, u64)> {
    let text = fs::read_to_string(image(dir)).ok()?;
    let (space, inodes) = text.split_once(' ')?;
    Some((space.parse().ok()?, inodes.parse().ok()?))
}

/// `101`, `101.3`, `.new-101`.
fn owner(path: &Path) -> Option<Ctid> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_prefix(".new-").unwrap_or(name);
    name.split('.').next()?.parse().ok()
}

fn inside(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    all.sort();
    all
}

fn to_trash(trash: &Path, private: &Path, ctid: Ctid) -> Result<Option<PathBuf>, StorageError> {
    if !private.exists() {
        return Ok(None);
    }
    let place = (0..).map(|n| trash.join(format!("{ctid}.{n}"))).find(|p| !p.exists()).unwrap();
    fs::rename(private, &place).map_err(error("move", private))?;
    Ok(Some(place))
}

/// A directory with something mounted on it is not empty.
const CONTENT: &str = "etc";

impl State {
    /// Mounts a container's files. Says whether they were not yet.
    pub(super) fn mount(&mut self, root: &Path) -> bool {
        fs::write(root.join(CONTENT), "").unwrap();
        self.mounted.insert(root.into())
    }

    /// Unmounts them. Says whether they were mounted.
    pub(super) fn unmount(&mut self, root: &Path) -> bool {
        let _ = fs::remove_file(root.join(CONTENT));
        self.mounted.remove(root)
    }

    /// Whether the files in this private area are mounted.
    fn is_in_use(&self, private: &Path) -> bool {
        private.file_name().is_some_and(|n| self.mounted.iter().any(|root| root.file_name() == Some(n)))
    }
}

impl Storage for Seat {
    fn create_layer(&self, staging: &Path, spec: &DiskSpec) -> Result<(), StorageError> {
        self.call("create_layer", |_| write_image(staging, spec), error("make a layer in", staging))
    }

    fn place(&self, staging: &Path, private: &Path) -> Result<(), StorageError> {
        self.call("place", |_| fs::rename(staging, private).map_err(error("rename", staging)), error("place", private))
    }

    fn umount(&self, plan: &StoragePlan) -> Result<(), StorageError> {
        let busy = || StorageError::Busy { path: plan.root.clone(), by: String::new() };
        self.call(
            "umount",
            |state| {
                if state.unmount(&plan.root) && owner(&plan.root).is_some_and(|c| state.runs(c)) {
                    state.wrongs.push(format!("{} was unmounted while it runs", plan.root.display()));
                }
                Ok(())
            },
            |_| busy(),
        )
    }

    fn is_mounted(&self, plan: &StoragePlan) -> io::Result<bool> {
        self.call("is_mounted", |state| Ok(state.mounted.contains(&plan.root)), |e| e)
    }

    fn usage(&self, plan: &StoragePlan) -> Option<DiskUsage> {
        let usage = |_: &mut State| -> Result<_, ()> {
            let (space, inodes) = read_image(&plan.private).ok_or(())?;
            let all = Bytes(space);
            Ok(DiskUsage {
                space_used: Bytes(0),
                space_limit: all,
                space_left: all,
                inodes_used: 0,
                inodes_limit: inodes,
            })
        };
        self.call("usage", usage, |_| ()).ok()
    }

    fn mend(&self, plan: &StoragePlan) -> Result<(), StorageError> {
        self.call("mend", |_| Ok(()), error("mend", &plan.private))
    }

    fn is_read_only(&self, _: &StoragePlan) -> bool {
        false
    }

    fn check(&self, plan: &StoragePlan) -> Result<(), StorageError> {
        self.call("check", |_| Ok(()), error("check", &plan.private))
    }

    fn resize(&self, plan: &StoragePlan, spec: &DiskSpec) -> Result<(), StorageError> {
        self.whole(
            "resize",
            |state| state.is_in_use(&plan.private),
            |state| {
                let shrinks = read_image(&plan.private).is_some_and(|(space, _)| spec.space.0 < space);
                if shrinks && state.is_in_use(&plan.private) {
                    return Err(StorageError::BadSize("a mounted layer does not shrink".into()));
                }
                write_image(&plan.private, spec)
            },
            error("resize", &plan.private),
        )
    }

    fn move_to_trash(&self, private: &Path, ctid: Ctid) -> Result<Option<PathBuf>, StorageError> {
        let trash = self.paths().trash_dir();
        self.call("move_to_trash", |_| to_trash(&trash, private, ctid), error("move to the trash", private))
    }

    fn in_trash(&self, ctid: Ctid) -> Vec<PathBuf> {
        let trash = self.paths().trash_dir();
        self.sure("in_trash", |_| inside(&trash).into_iter().filter(|p| owner(p) == Some(ctid)).collect())
    }

    fn remove_tree(&self, dir: &Path) -> Result<(), StorageError> {
        self.call(
            "remove_tree",
            |state| {
                if state.is_in_use(dir) {
                    return Err(StorageError::Refused { path: dir.into(), why: "it is mounted" });
                }
                match fs::remove_dir_all(dir) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error("remove", dir)(e)),
                    _ => Ok(()),
                }
            },
            error("remove", dir),
        )
    }

    fn small_filesystem(&self, dir: &Path) -> io::Result<()> {
        self.call(
            "small_filesystem",
            |state| match state.small.insert(dir.into()) {
                true => Ok(()),
                false => Err(on_purpose()),
            },
            |e| e,
        )
    }

    fn remove_small_filesystem(&self, dir: &Path) {
        self.sure("remove_small_filesystem", |state| {
            state.small.remove(dir);
            let _ = fs::remove_dir_all(dir);
        });
    }

    fn clear(&self, ctid: Ctid) -> Vec<String> {
        self.sure("clear files", |state| {
            let gone: Vec<PathBuf> = state.mounted.iter().filter(|root| owner(root) == Some(ctid)).cloned().collect();
            gone.iter().for_each(|root| _ = state.unmount(root));
            Vec::new()
        })
    }

    fn sweep(&self, spared: &BTreeSet<Ctid>) -> Swept {
        let (private, trash) = (self.paths().private_dir(), self.paths().trash_dir());
        let dead = |p: &PathBuf| !owner(p).is_some_and(|c| spared.contains(&c));
        self.sure("sweep files", |state| {
            let gone: Vec<PathBuf> = state.mounted.iter().filter(|root| dead(root)).cloned().collect();
            gone.iter().for_each(|root| _ = state.unmount(root));
            for path in inside(&private).into_iter().filter(dead) {
                if path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b".")) {
                    if let Some(ctid) = owner(&path) {
                        to_trash(&trash, &path, ctid).unwrap();
                    }
                }
            }
            Swept { said: Vec::new(), trees: inside(&trash).into_iter().filter(dead).collect() }
        })
    }
}
