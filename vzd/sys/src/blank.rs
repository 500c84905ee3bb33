//! A mount namespace with nothing in it but the kernel's own filesystems. A container's mount namespace begins as a copy
//! of the one its maker is in, and the host's has some mounts for every running container: copying them all, only to
//! let go of them, would make each start slower by what runs already.

use crate::{
    mount,
    process::{self, SingleThreaded},
};
use nix::sched::CloneFlags;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{CWD, Mode, OFlags},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, UnmountFlags, fsconfig_create, fsmount,
        fsopen, mount_change, unmount,
    },
};
use std::{fs, io, path::Path};

/// What is in it besides an empty root. A user namespace may mount a proc or sysfs of its own only while a whole one is
/// in sight (`mount_too_revealing` in fs/namespace.c), so both have to be there.
const SHOWN: [&str; 2] = ["/proc", "/sys"];

/// Puts this process into such a namespace, made now, and gives it.
///
/// # Errors
/// Names what could not be done.
pub fn enter_new(_one: SingleThreaded) -> io::Result<OwnedFd> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(io::Error::from).map_err(at("making a mount namespace"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(io::Error::from)
        .map_err(at("making its mounts private"))?;
    // Without what is mounted below them: it would be kept alive.
    let trees = SHOWN.map(|path| mount::clone_mount(Path::new(path)).map_err(at(path)));
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|fs| {
        fsconfig_create(&fs)?;
        let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, quiet | MountAttrFlags::MOUNT_ATTR_NOEXEC)
    });
    let root = fs.map_err(io::Error::from).map_err(at("making an empty root"))?;
    // Any directory that every host has will do: this mount namespace is nobody else's.
    mount::attach(root.as_fd(), Path::new("/proc")).map_err(at("attaching the empty root"))?;
    rustix::process::fchdir(&root).map_err(io::Error::from).map_err(at("entering the empty root"))?;
    for (path, tree) in SHOWN.into_iter().zip(trees) {
        let name = path.trim_start_matches('/');
        rustix::fs::mkdirat(CWD, name, Mode::from_raw_mode(0o555)).map_err(io::Error::from).map_err(at(path))?;
        mount::attach(tree?.as_fd(), Path::new(name)).map_err(at(path))?;
    }
    // Where the next one may attach what it clones from: kernels before 6.15 clone only from attached mounts.
    rustix::fs::mkdirat(CWD, "dev", Mode::from_raw_mode(0o555)).map_err(io::Error::from).map_err(at("/dev"))?;
    // The old root is stacked over the new one, and goes with everything on it.
    rustix::process::pivot_root(".", ".").map_err(io::Error::from).map_err(at("changing the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(io::Error::from).map_err(at("letting go of the host's mounts"))?;
    rustix::process::chdir("/").map_err(io::Error::from).map_err(at("entering the new root"))?;
    current().map_err(at("opening the mount namespace"))
}

fn at(what: &str) -> impl FnOnce(io::Error) -> io::Error + '_ {
    move |e| io::Error::new(e.kind(), format!("{what}: {e}"))
}

/// The mount namespace this process is in.
fn current() -> io::Result<OwnedFd> {
    fs::File::open("/proc/self/ns/mnt").map(OwnedFd::from)
}

/// In another mount namespace until dropped. What is cloned meanwhile with `CLONE_NEWNS` gets a copy of that one.
#[derive(Debug)]
pub struct Visit {
    home: OwnedFd,
    root: OwnedFd,
}

impl Visit {
    /// Enters `there`, the descriptor of a mount namespace; nobody else's file system state must be shared with ours.
    ///
    /// # Errors
    /// What setns(2) says.
    pub fn to(_one: SingleThreaded, there: BorrowedFd<'_>) -> io::Result<Self> {
        let home = current()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open("/", flags, Mode::empty())?;
        nix::sched::setns(there, CloneFlags::CLONE_NEWNS)?;
        Ok(Self { home, root })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // Coming home sets the root to the namespace's own, which need not be ours (chroot(2)).
        let back = nix::sched::setns(&self.home, CloneFlags::CLONE_NEWNS)
            .map_err(io::Error::from)
            .and_then(|()| Ok(rustix::process::fchdir(&self.root)?))
            .and_then(|()| Ok(rustix::process::chroot(".")?));
        if back.is_err() {
            // Paths would mean other files than everybody thinks.
            process::exit_now(70);
        }
    }
}
