//! Mounting a container's files: the writable layer, then the overlay over the template, both idmapped.
//! Needs nothing but a plan and a user namespace with the container's id maps; imports vz-types and vz-sys.
//!
//! ```text
//! disk.img --loop--> ext4 at private/<CTID>/rw --idmap--> upper, work \
//!                                                                      overlay at root/<CTID>
//! template/<NAME>/root (files with 0-based ids) --idmap--> lower      /
//! ```
//! Kernels from 6.15 take the idmapped layers as descriptors of detached mounts, which nobody else ever
//! sees. Older ones refuse detached layers, so there they are attached below `private/<CTID>/` for the
//! length of one call and detached again; the overlay keeps its own clones.

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_string,
        fsmount, fsopen,
    },
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};
use vz_sys::{
    loopdev::LoopDevice,
    mount::{self, FsIds},
};
use vz_types::plan::StoragePlan;

/// Why a container's files could not be mounted.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The private area holds neither an image nor a writable directory.
    #[error("{0} holds no writable layer: neither disk.img nor rw/upper; restore the private area from a backup")]
    NoLayer(PathBuf),
    /// The template's files are gone.
    #[error("the template's files {0} are missing; build or restore the template")]
    NoTemplate(PathBuf),
    /// No loop device could be had.
    #[error("cannot make {image} a loop device; is the loop driver loaded (`modprobe loop`)")]
    Loop {
        /// The image.
        image: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// One step failed.
    #[error("{what} {path}")]
    Step {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl StorageError {
    /// The image takes no writes.
    fn is_unwritable(&self) -> bool {
        let Self::Step { source, .. } = self else { return false };
        matches!(mount::errno_of(source), Some(libc::EIO | libc::ENOSPC | libc::EROFS | libc::EUCLEAN))
    }
}

fn step<T, E: Into<io::Error>>(what: &'static str, path: &Path, r: Result<T, E>) -> Result<T, StorageError> {
    r.map_err(|e| StorageError::Step { what, path: path.to_owned(), source: e.into() })
}

/// Both layers' attributes, besides the id map: the store is nosuid and nodev on the host.
const HOST_ATTRIBUTES: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Mounts a container's files at [`StoragePlan::root`]. What is mounted already stays as it is. Must run in
/// the host's mount namespace, as root, and `userns` must map 0..65535 to the plan's `uid_base`.
///
/// # Errors
/// The step that failed, with its path; whatever this call had mounted is unmounted again.
pub fn mount(plan: &StoragePlan, userns: BorrowedFd<'_>) -> Result<(), StorageError> {
    mount_as(plan, userns, Access::Writable)
}

/// As [`mount`], for somebody who wants to look: an image that cannot be written to, because the host has no block for the
/// replay of its journal, is shown as it is on disk, read-only.
///
/// # Errors
/// As [`mount`].
pub fn show(plan: &StoragePlan, userns: BorrowedFd<'_>) -> Result<(), StorageError> {
    match mount_as(plan, userns, Access::Writable) {
        Err(e) if e.is_unwritable() && plan.private.join("disk.img").exists() => {
            mount_as(plan, userns, Access::ReadOnly).map_err(|_| e)
        }
        done => done,
    }
}

/// How a container's files are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Writable,
    ReadOnly,
}

fn mount_as(plan: &StoragePlan, userns: BorrowedFd<'_>, access: Access) -> Result<(), StorageError> {
    if step("look at", &plan.root, mount::is_mount_point(&plan.root))? {
        return Ok(());
    }
    let rw = plan.private.join("rw");
    let undo = mount_writable(plan, &rw, access)?;
    if access == Access::Writable {
        make_dir(&rw.join("upper"), 0o755)?;
        make_dir(&rw.join("work"), 0o755)?;
    }
    make_dir(&plan.root, 0o700)?;

    let lower = match mount::clone_mount(&plan.template_root) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(StorageError::NoTemplate(plan.template_root.clone()));
        }
        r => step("cannot clone the mount of", &plan.template_root, r)?,
    };
    step(
        "cannot idmap the template",
        &plan.template_root,
        mount::idmap(lower.as_fd(), userns, libc::MOUNT_ATTR_RDONLY),
    )?;
    let upper = step("cannot clone the mount of", &rw, mount::clone_mount(&rw))?;
    step("cannot idmap the writable layer", &rw, mount::idmap(upper.as_fd(), userns, 0))?;

    let overlay = mount_overlay(plan, lower.as_fd(), upper.as_fd(), access)?;
    step("cannot attach the overlay at", &plan.root, mount::attach(overlay.as_fd(), &plan.root))?;
    undo.keep();
    Ok(())
}

/// Unmounts a path when dropped, unless told to keep it.
struct Unmount(Option<PathBuf>);

impl Unmount {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Unmount {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            // Lazily: nobody can use it any more in any case, and an undo must not fail.
            let _ = rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

/// Makes `rw` hold the writable layer: the image's filesystem, or the directory itself under project quota.
fn mount_writable(plan: &StoragePlan, rw: &Path, access: Access) -> Result<Unmount, StorageError> {
    let image = plan.private.join("disk.img");
    let file = match rustix::fs::open(&image, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) if rw.join("upper").is_dir() => return Ok(Unmount(None)),
        Err(rustix::io::Errno::NOENT) => return Err(StorageError::NoLayer(plan.private.clone())),
        Err(e) => return step("cannot open", &image, Err(e)),
    };
    make_dir(rw, 0o700)?;
    if step("look at", rw, mount::is_mount_point(rw))? {
        return Ok(Unmount(None));
    }
    claim(&file, &image)?;
    let device = LoopDevice::attach(file.as_fd(), &image, true)
        .map_err(|source| StorageError::Loop { image: image.clone(), source })?;
    let source = device.path().to_string_lossy();
    // noinit_itable: the image was born with zeroed inode tables; writing them again would fill the hole.
    let mut options = vec![("source", Some(&*source)), ("noinit_itable", None), ("errors", Some("remount-ro"))];
    if access == Access::ReadOnly {
        options.extend([("ro", None), ("noload", None)]);
    }
    let fs = step("cannot mount the writable layer", &image, mount::new_mount("ext4", &options, HOST_ATTRIBUTES))?;
    step("cannot attach the writable layer at", rw, mount::attach(fs.as_fd(), rw))?;
    Ok(Unmount(Some(rw.to_owned())))
}

/// Makes sure that no other filesystem is at work on the image. Every loop device keeps the open file it was made
/// from, and with it this file's shared lock; so when the exclusive one cannot be had, a device of an earlier run is
/// still there, kept by a copy of its mount in somebody's mount namespace.
fn claim(file: &OwnedFd, image: &Path) -> Result<(), StorageError> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            step("cannot end the earlier mount of", image, vz_sys::loopdev::end_filesystems_on(image))?;
        }
        Err(e) => step("cannot lock", image, Err(e))?,
    }
    step("cannot lock", image, rustix::fs::flock(file, FlockOperation::NonBlockingLockShared))
}

fn make_dir(path: &Path, mode: u32) -> Result<(), StorageError> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        // The mode is said again because mkdir obeys the umask.
        Ok(()) => step("cannot set the mode of", path, rustix::fs::chmod(path, Mode::from_raw_mode(mode))),
        Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(e) => step("cannot make the directory", path, Err(e)),
    }
}

/// A detached overlay over two idmapped, detached mounts.
fn mount_overlay(
    plan: &StoragePlan,
    lower: BorrowedFd<'_>,
    writable: BorrowedFd<'_>,
    access: Access,
) -> Result<OwnedFd, StorageError> {
    let base = plan.uid_base.get();
    let dir = |name: &str| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        step(
            "cannot open",
            &plan.private.join("rw").join(name),
            rustix::fs::openat(writable, name, flags, Mode::empty()),
        )
    };
    let (upper, work) = (dir("upper")?, dir("work")?);
    // The overlay makes files in its work directory with the mounter's filesystem ids; id 0 has no image in
    // an idmapped mount, and the overlay would come up read-only.
    let _ids = step("cannot become the container's ids for", &plan.root, FsIds::become_ids(base, base))?;
    let layers = Layers { lower, upper: upper.as_fd(), work: work.as_fd(), access };
    match create_overlay(&layers, Way::Descriptors) {
        Ok(fs) => Ok(fs),
        // Kernels before 6.15: one that knows no descriptors here, or none of O_PATH (6.12 looks the file up first).
        Err(e) if matches!(mount::errno_of(&e), Some(libc::EINVAL | libc::EBADF)) => {
            attached(plan, lower, writable, access)
        }
        Err(e) => step("cannot mount the overlay of", &plan.root, Err(e)),
    }
}

/// The way for kernels before 6.15: attach both layers where only root can look, name them by path, detach.
fn attached(
    plan: &StoragePlan,
    lower: BorrowedFd<'_>,
    writable: BorrowedFd<'_>,
    access: Access,
) -> Result<OwnedFd, StorageError> {
    let base = plan.uid_base.get();
    let place = |name: &str, fd: BorrowedFd<'_>| -> Result<Unmount, StorageError> {
        let path = plan.private.join(name);
        make_dir_as_root(&path)?;
        step("cannot attach a layer at", &path, mount::attach(fd, &path))?;
        Ok(Unmount(Some(path)))
    };
    let _lower = place(".lower", lower)?;
    let _upper = place(".upper", writable)?;
    let dir = |name: &str| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        step(
            "cannot open",
            &plan.private.join(".upper").join(name),
            rustix::fs::openat(writable, name, flags, Mode::empty()),
        )
    };
    let (upper, work) = (dir("upper")?, dir("work")?);
    let _ids = step("cannot become the container's ids for", &plan.root, FsIds::become_ids(base, base))?;
    let layers = Layers { lower, upper: upper.as_fd(), work: work.as_fd(), access };
    step("cannot mount the overlay of", &plan.root, create_overlay(&layers, Way::Paths))
}

/// Our own files are root's, whatever ids this thread has taken on for the overlay.
fn make_dir_as_root(path: &Path) -> Result<(), StorageError> {
    let _ids = step("cannot be root for", path, FsIds::become_ids(0, 0))?;
    make_dir(path, 0o700)
}

struct Layers<'a> {
    lower: BorrowedFd<'a>,
    upper: BorrowedFd<'a>,
    work: BorrowedFd<'a>,
    access: Access,
}

#[derive(Clone, Copy)]
enum Way {
    Descriptors,
    Paths,
}

/// Without index and nfs_export CRIU cannot dump a container whose init watches files. With redirect_dir a directory of
/// the template's can be renamed: the upper one then says where its lower half is, in an attribute that only root of the
/// host can write, and that leads nowhere but into this template (docs/adr/0037-directories-of-the-template-can-be-renamed.md).
/// The kernel's default for metacopy is whoever's; it needs redirect_dir and excludes nfs_export.
fn create_overlay(layers: &Layers<'_>, way: Way) -> io::Result<OwnedFd> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let said = |e: rustix::io::Errno| {
        let text = mount::log_of(fs.as_fd());
        // EINVAL decides over the other way, so it stays a bare errno.
        if text.is_empty() || e == rustix::io::Errno::INVAL { e.into() } else { io::Error::other(format!("{e}{text}")) }
    };
    fsconfig_set_string(fs.as_fd(), "source", "overlay")?;
    if layers.access == Access::ReadOnly {
        // Both layers below, and nothing above.
        let (above, below) = (layers.upper, layers.lower);
        match way {
            Way::Descriptors => fsconfig_set_fd(fs.as_fd(), "lowerdir+", above)
                .and_then(|()| fsconfig_set_fd(fs.as_fd(), "lowerdir+", below)),
            Way::Paths => {
                let both = format!("/proc/self/fd/{}:/proc/self/fd/{}", above.as_raw_fd(), below.as_raw_fd());
                fsconfig_set_string(fs.as_fd(), "lowerdir", both)
            }
        }
        .and_then(|()| fsconfig_set_string(fs.as_fd(), "redirect_dir", "follow"))
        .and_then(|()| fsconfig_create(fs.as_fd()))
        .map_err(said)?;
        return Ok(fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, HOST_ATTRIBUTES)?);
    }
    for (new, old, fd) in [
        ("lowerdir+", "lowerdir", layers.lower),
        ("upperdir", "upperdir", layers.upper),
        ("workdir", "workdir", layers.work),
    ] {
        match way {
            Way::Descriptors => fsconfig_set_fd(fs.as_fd(), new, fd),
            // A path without a character the option parser splits at, and without a second look-up.
            Way::Paths => fsconfig_set_string(fs.as_fd(), old, format!("/proc/self/fd/{}", fd.as_raw_fd())),
        }
        .map_err(said)?;
    }
    for (option, value) in [("index", "on"), ("nfs_export", "on"), ("redirect_dir", "on"), ("metacopy", "off")] {
        fsconfig_set_string(fs.as_fd(), option, value).map_err(said)?;
    }
    fsconfig_create(fs.as_fd()).map_err(said)?;
    Ok(fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, HOST_ATTRIBUTES)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::fs::{MetadataExt, PermissionsExt},
        process::{Child, Command, Stdio},
        sync::{Mutex, MutexGuard, PoisonError},
    };
    use vz_types::{UidBase, config::Layout};

    /// A user namespace with a container's maps, held by a sleeping child.
    struct Userns(Child, std::fs::File);

    impl Userns {
        fn new(base: u32) -> Self {
            // The shell says when unshare is through, so that the maps are not written too early.
            let mut child = Command::new("/usr/bin/unshare")
                .args(["-U", "/bin/sh", "-c", "echo ready; read wait"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
            assert_eq!(line, "ready\n");
            vz_sys::process::write_id_maps(child.id() as i32, 0, base, 65536).unwrap();
            let fd = std::fs::File::open(format!("/proc/{}/ns/user", child.id())).unwrap();
            Self(child, fd)
        }
    }

    impl Drop for Userns {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A private area with a small image, and a template of one file.
    struct Ct {
        dir: tempfile::TempDir,
        plan: StoragePlan,
        _alone: MutexGuard<'static, ()>,
    }

    /// One test makes a mount namespace, which would keep the others' mounts.
    static ALONE: Mutex<()> = Mutex::new(());

    impl Ct {
        fn new(base: u32) -> Self {
            let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            let dir = tempfile::Builder::new().prefix("storage-").tempdir().unwrap();
            let plan = StoragePlan {
                layout: Layout::Overlay,
                private: dir.path().join("private"),
                template_root: dir.path().join("template"),
                root: dir.path().join("root"),
                uid_base: UidBase::try_from(base).unwrap(),
            };
            std::fs::create_dir_all(&plan.private).unwrap();
            std::fs::create_dir_all(plan.template_root.join("etc")).unwrap();
            std::fs::write(plan.template_root.join("etc/motd"), "hello").unwrap();
            let image = plan.private.join("disk.img");
            std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
            let made = Command::new("/sbin/mkfs.ext4")
                .args(["-q", "-F", "-m", "0", "-b", "4096"])
                .arg(&image)
                .status()
                .unwrap();
            assert!(made.success());
            Self { dir, plan, _alone: alone }
        }

        fn loops(&self) -> usize {
            vz_sys::loopdev::in_use().unwrap().iter().filter(|(_, b)| b.starts_with(self.dir.path())).count()
        }

        /// The same, once a test beside this one has let go of its copy of all mounts of this host.
        fn loops_left(&self) -> usize {
            let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while self.loops() > 0 && std::time::Instant::now() < until {
                std::thread::park_timeout(std::time::Duration::from_millis(20));
            }
            self.loops()
        }
    }

    impl Drop for Ct {
        fn drop(&mut self) {
            for p in [self.plan.root.clone(), self.plan.private.join("rw")] {
                let _ = rustix::mount::unmount(&p, UnmountFlags::DETACH);
            }
        }
    }

    fn check_mounted(ct: &Ct, base: u32) {
        let motd = ct.plan.root.join("etc/motd");
        assert_eq!(std::fs::read_to_string(&motd).unwrap(), "hello");
        assert_eq!(std::fs::metadata(&motd).unwrap().uid(), base, "the template is idmapped");
        {
            let _ids = FsIds::become_ids(base, base).unwrap();
            std::fs::write(ct.plan.root.join("etc/new"), "x").unwrap();
            std::fs::write(&motd, "changed").unwrap();
        }
        let upper = ct.plan.private.join("rw/upper");
        let new = std::fs::metadata(upper.join("etc/new")).unwrap();
        assert_eq!((new.uid(), new.gid()), (0, 0), "ids on disk are 0-based");
        assert_eq!(std::fs::metadata(&upper).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(std::fs::read_to_string(ct.plan.template_root.join("etc/motd")).unwrap(), "hello");
        let mounts = vz_sys::proc::mountinfo().unwrap();
        for path in [&ct.plan.root, &ct.plan.private.join("rw")] {
            let mount = mounts.iter().find(|m| m.mount_point == *path).expect("mounted");
            assert!(mount.options.starts_with("rw,nosuid,nodev"), "{mount:?}");
        }
        assert!(!mounts.iter().any(|m| m.mount_point.starts_with(ct.plan.private.join(".lower"))));
    }

    #[test]
    fn a_container_is_mounted_idmapped_and_again_without_harm() {
        let base = 0x10_0000;
        let (ct, ns) = (Ct::new(base), Userns::new(base));
        mount(&ct.plan, ns.1.as_fd()).unwrap();
        check_mounted(&ct, base);
        mount(&ct.plan, ns.1.as_fd()).unwrap();
        assert_eq!(ct.loops(), 1);
        rustix::mount::unmount(&ct.plan.root, UnmountFlags::empty()).unwrap();
        rustix::mount::unmount(ct.plan.private.join("rw"), UnmountFlags::empty()).unwrap();
        assert_eq!(ct.loops_left(), 0, "autoclear gave the device back");
    }

    #[test]
    fn a_copy_of_the_mount_in_another_namespace_does_no_harm() {
        let base = 0x50_0000;
        let (ct, ns) = (Ct::new(base), Userns::new(base));
        mount(&ct.plan, ns.1.as_fd()).unwrap();
        std::fs::write(ct.plan.private.join("rw/upper/kept"), "x").unwrap();
        let mut other = Command::new("/usr/bin/unshare")
            .args(["-m", "/bin/sh", "-c", "echo ready; read wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(other.stdout.take().unwrap()), &mut line).unwrap();
        rustix::mount::unmount(&ct.plan.root, UnmountFlags::empty()).unwrap();
        rustix::mount::unmount(ct.plan.private.join("rw"), UnmountFlags::empty()).unwrap();
        assert_eq!(ct.loops(), 1, "the copy keeps the device");
        for _ in 0..2 {
            mount(&ct.plan, ns.1.as_fd()).unwrap();
            assert_eq!(std::fs::read_to_string(ct.plan.root.join("kept")).unwrap(), "x");
            let copy = format!("/proc/{}/root{}", other.id(), ct.plan.private.join("rw/upper/late").display());
            assert!(std::fs::write(copy, "y").is_err(), "the copy is dead");
            std::fs::write(ct.plan.private.join("rw/upper/alive"), "z").unwrap();
            rustix::mount::unmount(&ct.plan.root, UnmountFlags::empty()).unwrap();
            rustix::mount::unmount(ct.plan.private.join("rw"), UnmountFlags::empty()).unwrap();
        }
        other.kill().unwrap();
        other.wait().unwrap();
        let image = ct.plan.private.join("disk.img");
        let fsck = Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(image).output().unwrap();
        assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stdout));
    }

    #[test]
    fn older_kernels_get_attached_layers() {
        let base = 0x20_0000;
        let (ct, ns) = (Ct::new(base), Userns::new(base));
        let rw = ct.plan.private.join("rw");
        let undo = mount_writable(&ct.plan, &rw, Access::Writable).unwrap();
        make_dir(&rw.join("upper"), 0o755).unwrap();
        make_dir(&rw.join("work"), 0o755).unwrap();
        make_dir(&ct.plan.root, 0o700).unwrap();
        let lower = mount::clone_mount(&ct.plan.template_root).unwrap();
        mount::idmap(lower.as_fd(), ns.1.as_fd(), libc::MOUNT_ATTR_RDONLY).unwrap();
        let upper = mount::clone_mount(&rw).unwrap();
        mount::idmap(upper.as_fd(), ns.1.as_fd(), 0).unwrap();
        let overlay = attached(&ct.plan, lower.as_fd(), upper.as_fd(), Access::Writable).unwrap();
        mount::attach(overlay.as_fd(), &ct.plan.root).unwrap();
        undo.keep();
        check_mounted(&ct, base);
    }

    #[test]
    fn a_failed_mount_leaves_nothing_and_names_the_path() {
        let (ct, ns) = (Ct::new(0x30_0000), Userns::new(0x30_0000));
        std::fs::rename(&ct.plan.template_root, ct.dir.path().join("gone")).unwrap();
        let e = mount(&ct.plan, ns.1.as_fd()).unwrap_err().to_string();
        assert!(e.contains("template"), "{e}");
        assert_eq!(ct.loops_left(), 0);
        std::fs::write(ct.plan.private.join("disk.img"), vec![0; 1 << 20]).unwrap();
        let e = mount(&ct.plan, ns.1.as_fd()).unwrap_err();
        assert!(e.to_string().contains("disk.img"), "{e}");
        std::fs::remove_file(ct.plan.private.join("disk.img")).unwrap();
        assert!(matches!(mount(&ct.plan, ns.1.as_fd()), Err(StorageError::NoLayer(_))));
        assert_eq!(ct.loops_left(), 0);
    }
}
