//! What an unpacked archive is when its root directory is not a system's: images and backups of other managers, and archives
//! with one directory around all. The system's directory then becomes the whole, and what stood beside it is named and left
//! out. Decided by names inside alone, once everything is unpacked, so that an archive may come through a pipe in any order.

use super::{
    TemplateError,
    import::INIT_PATHS,
    tree::{self, Tree},
};
use crate::unpack::shown;
use rustix::{
    fs::{self, CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use std::{
    ffi::OsStr,
    io,
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

/// A form of archive: all of `has` are in it, at these very paths.
struct Form {
    has: &'static [&'static str],
    what: &'static str,
    then: Then,
}

/// What becomes of it.
enum Then {
    /// The system is below this directory.
    Below(&'static str),
    /// It cannot be taken, and this is what to do instead.
    Refuse(&'static str),
}
use Then::{Below, Refuse};

/// First match. What cannot be taken comes before what it could be mistaken for.
const FORMS: &[Form] = &[
    Form {
        has: &["backup/index.yaml", "backup/container.bin"],
        what: "an Incus or LXD backup in its storage's own format",
        then: Refuse("export it without --optimized-storage"),
    },
    Form {
        has: &["backup/index.yaml", "backup/virtual-machine.img"],
        what: "an Incus or LXD backup of a virtual machine",
        then: Refuse("take the files out of the machine: ssh HOST tar -C / --one-file-system --xattrs -cz ."),
    },
    Form {
        has: &["backup/index.yaml", "backup/container/rootfs"],
        what: "an Incus or LXD backup",
        then: Below("backup/container/rootfs"),
    },
    Form {
        has: &["backup/index.yaml"],
        what: "an Incus or LXD backup without backup/container/rootfs, a container's files",
        then: Refuse("export a container, without --optimized-storage"),
    },
    Form {
        has: &["metadata.yaml", "rootfs.img"],
        what: "an Incus or LXD image of a virtual machine",
        then: Refuse("take the container's image of the same system"),
    },
    Form { has: &["metadata.yaml", "rootfs"], what: "an Incus or LXD image", then: Below("rootfs") },
    Form {
        has: &["metadata.yaml"],
        what: "the description alone of an Incus or LXD image that is in two files",
        then: Refuse(
            "import the other one, rootfs.tar.xz; where that is rootfs.squashfs: \
             sqfs2tar rootfs.squashfs | vzctl template import - --name NAME (package squashfs-tools-ng)",
        ),
    },
    Form {
        has: &["oci-layout"],
        what: "an OCI image, in layers",
        then: Refuse("join its layers: docker export CONTAINER | vzctl template import - --name NAME"),
    },
    Form {
        has: &["manifest.json", "repositories"],
        what: "a docker image, in layers",
        then: Refuse("join its layers: docker export CONTAINER | vzctl template import - --name NAME"),
    },
    Form {
        has: &["root.hdd/DiskDescriptor.xml"],
        what: "a private area of OpenVZ on a ploop image",
        then: Refuse(
            "mount it where ploop is there, and pack its files: tar --numeric-owner --xattrs -C DIR -cf FILE.tar .",
        ),
    },
    Form {
        has: &["qemu-server.conf"],
        what: "a Proxmox backup of a virtual machine",
        then: Refuse("take the files out of the machine: ssh HOST tar -C / --one-file-system --xattrs -cz ."),
    },
    Form { has: &["config", "rootfs"], what: "a container of LXC", then: Below("rootfs") },
    Form { has: &["config.json", "rootfs"], what: "an OCI bundle", then: Below("rootfs") },
];

/// Configuration that vzdump of Proxmox and of OpenVZ puts among the files.
const VZDUMP: &str = "/etc/vzdump";

/// No link is followed, and nothing above is reached.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Most directories in which a system is looked for, and names that are told.
const MOST_LOOKED_AT: usize = 64;
const MOST_TOLD: usize = 8;

/// Makes `version/root` the system's own root, and answers in words what was done; nothing where it was. What is under way
/// when vzd dies is in staging alone, and goes with it.
///
/// # Errors
/// It is something that cannot be taken, or several systems; a directory cannot be read or moved.
pub fn settle(version: &Path, source: &str) -> Result<Option<String>, TemplateError> {
    let root = version.join("root");
    let failed = |what: &'static str| {
        let root = root.clone();
        move |e: io::Error| TemplateError::io(what, &root, e)
    };
    let top = open(&root).map_err(failed("opening"))?;
    if is_root(&root) {
        let tree = Tree::open(&root).map_err(failed("opening"))?;
        return match tree.exists(&format!("{VZDUMP}/pct.conf")) || tree.exists(&format!("{VZDUMP}/vps.conf")) {
            true => {
                tree.remove(VZDUMP).map_err(failed("removing etc/vzdump in"))?;
                Ok(Some("it is a backup of vzdump; left out: etc/vzdump, its configuration".into()))
            }
            false => Ok(None),
        };
    }
    let refused =
        |what: String, hint: &str| TemplateError::Form { source_name: source.to_owned(), what, hint: hint.to_owned() };
    let (what, inner) = match FORMS.iter().find(|f| f.has.iter().all(|p| there(&top, p))) {
        Some(Form { what, then: Refuse(hint), .. }) => return Err(refused((*what).to_owned(), hint)),
        Some(Form { what, then: Below(inner), .. }) => ((*what).to_owned(), PathBuf::from(inner)),
        None => match only_one(&root, &top).map_err(failed("listing"))? {
            Found::None => return Ok(None),
            Found::One(dir) => {
                (format!("all of it is below one directory, {}", shown(dir.as_os_str().as_bytes())), dir)
            }
            Found::Several(a, b) => {
                let [a, b] = [a, b].map(|p| shown(p.as_os_str().as_bytes()));
                return Err(refused(
                    format!("more than one system: {a} and {b} each look like one"),
                    "pack the one that is meant: tar --numeric-owner --xattrs -C DIR -cf FILE.tar .",
                ));
            }
        },
    };
    let left = beside(&top, &inner).map_err(failed("listing"))?;
    move_up(version, &root, &inner).map_err(failed("making a directory of it the whole of"))?;
    let inner = shown(inner.as_os_str().as_bytes());
    let left = match left.len() {
        0 => "nothing else was in it".to_owned(),
        n if n > MOST_TOLD => format!("left out: {} and {} more", left[..MOST_TOLD].join(", "), n - MOST_TOLD),
        _ => format!("left out: {}", left.join(", ")),
    };
    let what = if what.starts_with("all ") { what } else { format!("it is {what}") };
    Ok(Some(format!("{what}; {inner}/ becomes /, {left}")))
}

enum Found {
    None,
    One(PathBuf),
    Several(PathBuf, PathBuf),
}

/// The directory that is a system's root, among those at the top: one with an init, else one that only looks like it.
fn only_one(root: &Path, top: &OwnedFd) -> io::Result<Found> {
    let dirs: Vec<PathBuf> = names(top)?
        .into_iter()
        .filter(|n| kind(top, n).is_some_and(|k| k == FileType::Directory))
        .take(MOST_LOOKED_AT)
        .collect();
    for is in [has_init, is_root] {
        let mut found = dirs.iter().filter(|d| is(&root.join(d))).cloned();
        match (found.next(), found.next()) {
            (Some(a), Some(b)) => return Ok(Found::Several(a, b)),
            (Some(a), None) => return Ok(Found::One(a)),
            (None, _) => {}
        }
    }
    Ok(Found::None)
}

/// Whether a directory is the root of a system, as far as its own names tell.
fn is_root(dir: &Path) -> bool {
    let Ok(fd) = open(dir) else { return false };
    let dir_or_link = |name: &str| matches!(kind(&fd, Path::new(name)), Some(FileType::Directory | FileType::Symlink));
    has_init(dir)
        || kind(&fd, Path::new("etc")) == Some(FileType::Directory)
            && ["usr", "bin", "sbin"].map(dir_or_link).contains(&true)
}

fn has_init(dir: &Path) -> bool {
    Tree::open(dir).is_ok_and(|tree| INIT_PATHS.iter().any(|p| tree.resolve(p).is_ok_and(|found| found.is_some())))
}

fn open(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::open(dir, flags, Mode::empty())?)
}

fn beneath(top: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    fs::openat2(top, path, flags | OFlags::CLOEXEC, Mode::empty(), BENEATH)
}

fn kind(dir: &OwnedFd, name: &Path) -> Option<FileType> {
    let stat = fs::statat(dir, name, fs::AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

/// Whether there is a file or directory at this very path.
fn there(top: &OwnedFd, path: &str) -> bool {
    beneath(top, Path::new(path), OFlags::PATH).is_ok()
}

fn names(dir: &OwnedFd) -> io::Result<Vec<PathBuf>> {
    let mut out: Vec<PathBuf> = fs::Dir::read_from(dir)?
        .map(|e| e.map(|e| PathBuf::from(OsStr::from_bytes(e.file_name().to_bytes()))))
        .collect::<Result<_, Errno>>()?;
    out.retain(|n| n.as_os_str() != "." && n.as_os_str() != "..");
    out.sort();
    Ok(out)
}

/// What is on the way to `inner` and beside it, in words.
fn beside(top: &OwnedFd, inner: &Path) -> io::Result<Vec<String>> {
    let mut out = Vec::new();
    for dir in inner.ancestors().skip(1) {
        let fd = beneath(top, dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let on_the_way = inner.strip_prefix(dir).ok().and_then(|p| p.iter().next()).map(PathBuf::from);
        let others = names(&fd)?.into_iter().filter(|n| Some(n) != on_the_way.as_ref());
        out.extend(others.map(|n| shown(&dir.join(n).into_os_string().into_vec())));
    }
    out.sort();
    Ok(out)
}

/// `inner` becomes the tree, and the rest goes.
fn move_up(version: &Path, root: &Path, inner: &Path) -> io::Result<()> {
    let whole = version.join("whole");
    fs::renameat(CWD, root, CWD, &whole)?;
    let top = open(&whole)?;
    // A directory and no link, which the name alone would not tell.
    beneath(&top, inner, OFlags::PATH | OFlags::DIRECTORY)?;
    let (Some(parent), Some(name)) = (inner.parent(), inner.file_name()) else {
        return Err(io::Error::other("the tree itself cannot be moved up"));
    };
    let parent = beneath(&top, parent, OFlags::PATH | OFlags::DIRECTORY)?;
    fs::renameat(&parent, name, CWD, root)?;
    tree::remove_all(&whole)
}
