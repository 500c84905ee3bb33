//! What a container sees: its root with fresh kernel filesystems, a private /dev, masks. Built by the process that
//! is to become init, already root of the container's user namespace and alone in new pid, mount, uts, ipc and
//! cgroup namespaces.
//!
//! What needs no root of the container's is made first ([`View`]), while the monitor mounts its files. The mounts that need
//! the host's rights (the idmapped root, device nodes, the console) are made by the monitor as detached trees and only get
//! attached here. Every path below is walked without following symbolic links, although
//! the walker could hurt nobody but the container itself.

use crate::{
    error::{At, StepError},
    launch,
    limits::{pty_max, shm_size},
};
use nix::sched::CloneFlags;
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree,
        unmount,
    },
};
use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};
use vz_sys::{
    process::{self, Cloned, SingleThreaded},
    seqpacket,
};
use vz_types::{
    config::Feature,
    limits::kernel::Inside,
    plan::LaunchPlan,
    policy::{DEVICES, MASKED_DIRS, MASKED_FILES, UNCOVERED, feature_devices, uncovered},
};

const STEP: &str = "init";
/// Longest a child of ours takes that makes one mount.
const SOON: Duration = Duration::from_secs(10);

/// Detached mounts made with the host's rights, to be attached inside.
pub struct Trees {
    /// The container's root.
    pub root: OwnedFd,
    /// Host nodes of [`DEVICES`], in its order.
    pub devices: Vec<OwnedFd>,
    /// A filesystem with the nodes of [`feature_devices`], if the container has any.
    pub added: Option<OwnedFd>,
    /// The console's slave.
    pub console: OwnedFd,
    /// The directory with the container's own beancounter files, if it gets one.
    pub own_files: Option<OwnedFd>,
}

impl Trees {
    /// Clones the root mount without the host's `nosuid`, and the host's device nodes after checking that they are
    /// what they should be. All private: nothing mounted on them inside reaches the host.
    pub fn open(console: BorrowedFd<'_>, plan: &LaunchPlan) -> Result<Self, StepError> {
        let root = plan.storage.root.as_path();
        const STEP: &str = "namespaces";
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let shown = root.display();
        let private = |tree: OwnedFd| vz_sys::mount::make_private(tree.as_fd()).map(|()| tree);
        let tree = open_tree(CWD, root, clone).map_err(io::Error::from).and_then(private);
        let tree = tree.at(STEP, format!("clone the mount at {shown}"))?;
        vz_sys::mount::set_flags(tree.as_fd(), 0, MountAttrFlags::MOUNT_ATTR_NOSUID.bits().into())
            .at(STEP, format!("allow set-uid files on the container's view of {shown}"))?;
        let mut devices = Vec::with_capacity(DEVICES.len());
        for (name, major, minor) in DEVICES {
            let path = format!("/dev/{name}");
            let node = open_tree(CWD, &path, clone).map_err(io::Error::from).and_then(private);
            let node = node.at(STEP, format!("clone {path}"))?;
            let stat = rustix::fs::fstat(&node).at(STEP, format!("look at {path}"))?;
            let is = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || is != (*major, *minor) {
                return Err(io::Error::other(format!("it is no character device {major}:{minor}")))
                    .at(STEP, format!("check {path}"));
            }
            devices.push(node);
        }
        let console = open_tree(console, "", clone | OpenTreeFlags::AT_EMPTY_PATH);
        let console = console.map_err(io::Error::from).and_then(private).at(STEP, "clone the console's mount")?;
        let own_files = plan.own_files.as_ref().map(|dir| {
            let tree = open_tree(CWD, dir, clone).map_err(io::Error::from).and_then(private);
            let tree = tree.at(STEP, format!("clone {}", dir.display()))?;
            let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_RDONLY;
            // Its bin/vzubc is a program of the container's.
            let runs = MountAttrFlags::MOUNT_ATTR_NOEXEC;
            vz_sys::mount::set_flags(tree.as_fd(), flags.bits().into(), runs.bits().into())
                .at(STEP, format!("make {} read-only inside", dir.display()))?;
            Ok(tree)
        });
        let (added, own_files) = (make_nodes(&plan.features)?, own_files.transpose()?);
        Ok(Self { root: tree, devices, added, console, own_files })
    }

    /// Hands them to the process that attaches them. By message and not by inheritance, because that process is made
    /// while they are.
    pub fn send(self, channel: &OwnedFd) -> io::Result<()> {
        let mut fds = vec![self.root.as_fd(), self.console.as_fd()];
        fds.extend(self.devices.iter().map(AsFd::as_fd));
        fds.extend(self.added.iter().map(AsFd::as_fd));
        fds.extend(self.own_files.iter().map(AsFd::as_fd));
        seqpacket::send(channel, b"mounts", &fds)
    }

    /// Those that were sent; `None`: the sender is gone.
    pub fn receive(channel: &OwnedFd, plan: &LaunchPlan, within: Duration) -> Result<Option<Self>, StepError> {
        let (word, mut fds) = seqpacket::recv(channel, Some(within)).at(STEP, "wait for the mounts")?;
        if word.is_empty() {
            return Ok(None);
        }
        let standard = 2 + DEVICES.len();
        let adds = feature_devices(&plan.features).next().is_some();
        let own = plan.own_files.is_some();
        if fds.len() != standard + usize::from(adds) + usize::from(own) {
            return Err(io::Error::other("the mounts did not arrive")).at(STEP, "receive the mounts");
        }
        let own_files = if own { fds.pop() } else { None };
        let added = fds.drain(standard..).next();
        let root = fds.remove(0);
        let console = fds.remove(0);
        Ok(Some(Self { root, devices: fds, added, console, own_files }))
    }
}

/// A small filesystem with the device nodes that features bring. They are made here and not taken from the host, whose
/// own may be missing until a module is loaded, or closed to everybody but its root.
fn make_nodes(features: &[Feature]) -> Result<Option<OwnedFd>, StepError> {
    const STEP: &str = "namespaces";
    let nodes: Vec<_> = feature_devices(features).collect();
    if nodes.is_empty() {
        return Ok(None);
    }
    let what = "make the features' device nodes";
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).at(STEP, what)?;
    for (key, value) in [("mode", "0755"), ("size", "64k"), ("nr_inodes", "64")] {
        fsconfig_set_string(&fs, key, value).at(STEP, what)?;
    }
    fsconfig_create(&fs).at(STEP, what)?;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, quiet).at(STEP, what)?;
    for (path, major, minor) in nodes {
        let what = format!("make /dev/{path}");
        let name = flat(path);
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(&mount, &name, FileType::CharacterDevice, Mode::empty(), device).at(STEP, &what)?;
        // Not left to the umask.
        rustix::fs::chmodat(&mount, &name, Mode::from_raw_mode(0o666), AtFlags::empty()).at(STEP, what)?;
    }
    fsconfig_set_flag(&fs, "ro").at(STEP, what)?;
    rustix::mount::fsconfig_reconfigure(&fs).at(STEP, what)?;
    Ok(Some(mount))
}

/// A path below /dev as one file name.
fn flat(path: &str) -> String {
    path.replace('/', "-")
}

/// Enters the new root with the old one still stacked over it, out of sight of absolute paths. The kernel lets a
/// user namespace mount a fresh proc or sysfs only while a full one is visible in its mount namespace, so the old root
/// goes last ([`leave_old_root`]).
pub fn enter_root(root: OwnedFd) -> Result<(), StepError> {
    detach_propagation()?;
    // Any directory that every host has will do: this mount namespace is nobody else's.
    move_mount(&root, "", CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(STEP, "attach the root")?;
    rustix::process::chdir("/proc").at(STEP, "enter the root")?;
    rustix::process::pivot_root(".", ".").at(STEP, "pivot_root")
}

/// No mount of ours reaches the host's namespace, nor the other way round.
fn detach_propagation() -> Result<(), StepError> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).at(STEP, "make all mounts private")
}

/// Enters the new root and lets the host go, with `below` under it: a filesystem and what is mounted in it. A machine's root
/// lies over its initramfs in the same way: what is under it belongs to the mount namespace, and to those copied from it, and has
/// no path. A container runtime inside that changes its root takes the place of this one, and what is under it stays.
fn enter_root_over(root: OwnedFd, below: Below) -> Result<(), StepError> {
    enter_root(below.base.mount)?;
    make_dir(UNCOVERED.trim_start_matches('/'))?;
    attach_all(below.uncovered)?;
    leave_old_root()?;
    move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(STEP, "attach the root")?;
    rustix::process::fchdir(&root).at(STEP, "enter the root")?;
    rustix::process::chroot(".").at(STEP, "change the root")
}

/// Detaches the old root: from here on nothing of the host can be named.
pub fn leave_old_root() -> Result<(), StepError> {
    unmount(".", UnmountFlags::DETACH).at(STEP, "detach the host's root")?;
    rustix::process::chdir("/").at(STEP, "enter /")
}

/// Every mount inside becomes shared, each in a peer group of its own, as an init finds a machine that its kernel or its
/// initramfs's systemd has booted. Without it a service's credentials never arrive, services with a mount namespace of their
/// own see no later mount, and bind mounts asked for as `rshared` are refused (mount_namespaces(7)). Nothing of the host
/// is among them any more.
fn share_mounts() -> Result<(), StepError> {
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC).at(STEP, "make all mounts shared")
}

/// The kernel's filesystems as a container sees them, made and attached nowhere yet.
pub struct View {
    masks: Masks,
    /// Attached in this order, the last of them /dev.
    first: Vec<Made>,
    /// Attached once /dev has its nodes.
    below_dev: Vec<Made>,
    /// Under the root, where features ask for it.
    below: Option<Below>,
}

/// What lies under the root of a container that has [`uncovered`] filesystems.
struct Below {
    base: Made,
    /// They, at [`UNCOVERED`].
    uncovered: Vec<Made>,
}

impl Below {
    fn make(one: SingleThreaded, again: &[&str]) -> Result<Self, StepError> {
        let options = [("mode", "0555"), ("size", "64k"), ("nr_inodes", "16")];
        let base = Made::new("tmpfs", "", &options, &[], ACTIVE)?;
        let dir = UNCOVERED.trim_start_matches('/');
        let make = |name: &&str| match *name {
            "proc" => empty_proc(one, &format!("{dir}/proc")),
            // Not read-only, or nothing but a read-only one could be mounted inside, and privileged containers of users want
            // the other. Who may write which file in it is decided by the file's owner, the host's root.
            _ => Made::new("sysfs", &format!("{dir}/sys"), &[], &[], ACTIVE),
        };
        Ok(Self { base, uncovered: again.iter().map(make).collect::<Result<_, _>>()? })
    }
}

/// A /proc of a pid namespace that has ended: whoever gets to see it, by detaching the root over it, sees no process.
fn empty_proc(one: SingleThreaded, path: &str) -> Result<Made, StepError> {
    let what = format!("mount proc on /{path}");
    let (ours, theirs) = seqpacket::pair().at(STEP, &what)?;
    match process::clone3(one, CloneFlags::CLONE_NEWPID, None).at(STEP, &what)? {
        Cloned::Child => {
            let made = Made::new("proc", path, &[], &[], ACTIVE);
            let _ = match &made {
                Ok(made) => seqpacket::send(&theirs, b"+", &[made.mount.as_fd()]),
                Err(e) => seqpacket::send(&theirs, e.to_string().as_bytes(), &[]),
            };
            process::exit_now(0)
        }
        Cloned::Parent(_, child) => {
            drop(theirs);
            let (word, mut fds) = seqpacket::recv(&ours, Some(SOON)).at(STEP, &what)?;
            launch::reap(&child);
            let cause = || io::Error::other(String::from_utf8_lossy(&word).into_owned());
            let mount = fds.pop().ok_or_else(cause).at(STEP, &what)?;
            Ok(Made { path: path.to_owned(), what, mount })
        }
    }
}

impl View {
    /// Makes them. The host is still in sight, and the container's root is not needed.
    pub fn make(one: SingleThreaded, limits: &Inside, features: &[Feature]) -> Result<Self, StepError> {
        // Read while the host's /proc is still in sight.
        let boot_id = std::fs::read("/proc/sys/kernel/random/uuid").at(STEP, "make a boot id")?;
        let present = |paths: &[&'static str]| paths.iter().copied().filter(|p| exists(p)).collect::<Vec<_>>();
        let (hidden, dirs) = (present(MASKED_FILES), present(MASKED_DIRS));
        detach_propagation()?;
        let masks = Masks::make(&boot_id, hidden, dirs)?;
        let sys = ACTIVE | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let files = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let run = [("mode", "0755"), ("size", "20%"), ("nr_inodes", "800k")];
        let first = vec![
            Made::new("proc", "proc", &[], &[], ACTIVE)?,
            Made::new("sysfs", "sys", &[], &[], sys)?,
            Made::new("cgroup2", "sys/fs/cgroup", &[], &[], ACTIVE)?,
            Made::new("tmpfs", "run", &run, &[], files)?,
            Made::new("tmpfs", "dev", &[("mode", "0755"), ("size", "4m"), ("nr_inodes", "4096")], &[], quiet)?,
        ];
        let (max, size) = (pty_max(limits).to_string(), shm_size(limits));
        let pts = [("mode", "0620"), ("ptmxmode", "0666"), ("gid", "5"), ("max", max.as_str())];
        let below_dev = vec![
            Made::new("devpts", "dev/pts", &pts, &["newinstance"], quiet)?,
            Made::new("tmpfs", "dev/shm", &[("mode", "1777"), ("size", size.as_str())], &[], files)?,
            Made::new("mqueue", "dev/mqueue", &[], &[], ACTIVE)?,
        ];
        let again = uncovered(features);
        let below = (!again.is_empty()).then(|| Below::make(one, again)).transpose()?;
        Ok(Self { masks, first, below_dev, below })
    }

    /// Enters the root, attaches everything, and lets the host go.
    pub fn attach(self, trees: Trees, features: &[Feature]) -> Result<(), StepError> {
        let Trees { root, devices, added, console, own_files } = trees;
        let left = self.below.is_some();
        match self.below {
            Some(below) => enter_root_over(root, below)?,
            None => enter_root(root)?,
        }
        attach_all(self.first)?;
        fill_dev(&devices, &console)?;
        attach_all(self.below_dev)?;
        if let Some(added) = added {
            attach_added(&added, features)?;
        }
        write_new("run/host/container-manager", "vz\n")?;
        if let Some(own) = own_files {
            make_dir("run/vz")?;
            let target = open_dir("run/vz")?;
            let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(&own, "", &target, "", both).at(STEP, "attach /run/vz")?;
        }
        self.masks.apply()?;
        if !left {
            leave_old_root()?;
        }
        share_mounts()
    }
}

/// nosuid, nodev, noexec: for filesystems that hold no programs.
const ACTIVE: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

fn fill_dev(devices: &[OwnedFd], console: &OwnedFd) -> Result<(), StepError> {
    let dev = open_dir("dev")?;
    for ((name, ..), node) in DEVICES.iter().zip(devices) {
        attach_node(&dev, name, node)?;
    }
    attach_node(&dev, "console", console)?;
    for (name, target) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"), ("ptmx", "pts/ptmx")]
    {
        rustix::fs::symlinkat(target, &dev, name).at(STEP, format!("link /dev/{name}"))?;
    }
    Ok(())
}

/// The nodes features bring. Their filesystem is attached for as long as it takes to clone from it: kernels before
/// 6.15 clone only from attached mounts.
fn attach_added(added: &OwnedFd, features: &[Feature]) -> Result<(), StepError> {
    let dev = open_dir("dev")?;
    let what = "attach the features' device nodes";
    make_dir("dev/.nodes")?;
    let at = open_dir("dev/.nodes")?;
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(added, "", &at, "", both).at(STEP, what)?;
    for (path, ..) in feature_devices(features) {
        if let Some((dir, _)) = path.rsplit_once('/') {
            make_dir(&format!("dev/{dir}"))?;
        }
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let node = open_tree(added, flat(path), clone).at(STEP, format!("clone /dev/{path}"))?;
        attach_node(&dev, path, &node)?;
    }
    unmount("/dev/.nodes", UnmountFlags::DETACH).at(STEP, what)?;
    rustix::fs::rmdir("/dev/.nodes").at(STEP, what)
}

/// A regular file with a host node's mount on it: root inside could not make the node, and cannot change it.
fn attach_node(dev: &OwnedFd, name: &str, node: &OwnedFd) -> Result<(), StepError> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(dev, name, flags, Mode::from_raw_mode(0o600)).at(STEP, format!("create /dev/{name}"))?;
    move_mount(node, "", dev, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(STEP, format!("attach /dev/{name}"))
}

/// Opens a directory of the new root without following links.
fn open_dir(path: &str) -> Result<OwnedFd, StepError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, format!("/{path}"), flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .at(STEP, format!("open /{path} (it must be a directory, not a link)"))
}

/// A new filesystem and where it belongs.
struct Made {
    path: String,
    what: String,
    mount: OwnedFd,
}

impl Made {
    fn new(
        kind: &str,
        path: &str,
        strings: &[(&str, &str)],
        flags: &[&str],
        attributes: MountAttrFlags,
    ) -> Result<Self, StepError> {
        let what = format!("mount {kind} on /{path}");
        let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).at(STEP, &what)?;
        for (key, value) in strings {
            fsconfig_set_string(&fs, *key, *value).at(STEP, format!("{what}: option {key}={value}"))?;
        }
        for flag in flags {
            fsconfig_set_flag(&fs, *flag).at(STEP, format!("{what}: option {flag}"))?;
        }
        fsconfig_create(&fs).at(STEP, &what)?;
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).at(STEP, &what)?;
        Ok(Self { path: path.to_owned(), what, mount })
    }
}

/// Attaches each at its path, which is made a directory if nothing is there.
fn attach_all(all: Vec<Made>) -> Result<(), StepError> {
    for Made { path, what, mount } in all {
        make_dir(&path)?;
        let target = open_dir(&path)?;
        let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&mount, "", &target, "", both).at(STEP, what)?;
    }
    Ok(())
}

fn write_new(path: &str, text: &str) -> Result<(), StepError> {
    let what = format!("write /{path}");
    if let Some((dir, _)) = path.rsplit_once('/') {
        match rustix::fs::mkdir(format!("/{dir}"), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e).at(STEP, &what),
        }
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::TRUNC;
    let mut file = File::from(rustix::fs::open(format!("/{path}"), flags, Mode::from_raw_mode(0o644)).at(STEP, &what)?);
    file.write_all(text.as_bytes()).at(STEP, what)
}

/// An empty read-only file and directory, cloned once per mask, and this boot's id: the kernel's own is the host's, and
/// journald and friends tell boots apart by it. They come from a filesystem made here a moment ago, so
/// nothing a container can write to decides what hides the kernel's files.
struct Masks(Vec<(&'static str, OwnedFd)>);

impl Masks {
    /// Clones are made for what this kernel has and for nothing else: dropping an unused one costs an RCU grace period.
    fn make(boot_id: &[u8], files: Vec<&'static str>, dirs: Vec<&'static str>) -> Result<Self, StepError> {
        let what = "make the masks";
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).at(STEP, what)?;
        // Far from full: whoever watches disks inside sees it in the list.
        for (key, value) in [("mode", "0555"), ("size", "1m"), ("nr_inodes", "1k")] {
            fsconfig_set_string(&fs, key, value).at(STEP, what)?;
        }
        fsconfig_create(&fs).at(STEP, what)?;
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, ACTIVE).at(STEP, what)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&mount, "file", flags, Mode::empty()).at(STEP, what)?;
        let id = rustix::fs::openat(&mount, "boot_id", flags, Mode::from_raw_mode(0o444)).at(STEP, what)?;
        File::from(id).write_all(boot_id).at(STEP, what)?;
        rustix::fs::mkdirat(&mount, "dir", Mode::from_raw_mode(0o555)).at(STEP, what)?;
        fsconfig_set_flag(&fs, "ro").at(STEP, what)?;
        rustix::mount::fsconfig_reconfigure(&fs).at(STEP, what)?;
        // Kernels before 6.15 clone only from attached mounts. It goes with the host's root, over whose /dev it lies:
        // taking it away by itself would be one more grace period.
        move_mount(&mount, "", CWD, "/dev", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(STEP, what)?;
        let rows = std::iter::once((BOOT_ID, "boot_id"))
            .chain(files.into_iter().map(|path| (path, "file")))
            .chain(dirs.into_iter().map(|path| (path, "dir")));
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let masks = rows.map(|(path, from)| Ok((path, open_tree(&mount, from, clone).at(STEP, what)?)));
        masks.collect::<Result<_, _>>().map(Self)
    }

    fn apply(self) -> Result<(), StepError> {
        for (path, mask) in self.0 {
            let target = rustix::fs::openat2(
                CWD,
                path,
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::NO_SYMLINKS,
            );
            let target = match target {
                Ok(target) => target,
                // The host has it, the container's own view does not.
                Err(Errno::NOENT | Errno::ACCESS | Errno::NOTDIR) => continue,
                Err(e) => return Err(e).at(STEP, format!("mask {path}")),
            };
            let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(&mask, "", &target, "", both).at(STEP, format!("mask {path}"))?;
        }
        Ok(())
    }
}

/// The kernel's boot id, which is the host's; every boot of a container gets its own.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn exists(path: &str) -> bool {
    rustix::fs::accessat(CWD, path, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok()
}

fn make_dir(path: &str) -> Result<(), StepError> {
    match rustix::fs::mkdir(format!("/{path}"), Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST | Errno::ROFS | Errno::ACCESS | Errno::PERM) => Ok(()),
        Err(e) => Err(e).at(STEP, format!("make /{path}")),
    }
}

/// The init to execute: the first of the usual paths that is there.
pub fn find_init() -> Result<&'static str, StepError> {
    const INITS: [&str; 4] = ["/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/init"];
    INITS
        .into_iter()
        .find(|p| rustix::fs::accessat(CWD, *p, rustix::fs::Access::EXEC_OK, AtFlags::empty()).is_ok())
        .ok_or_else(|| io::Error::from(Errno::NOENT))
        .at(STEP, format!("find an init (looked for {})", INITS.join(", ")))
}

/// The three standard descriptors become the console.
pub fn console_as_stdio(console: &impl AsFd) -> Result<(), StepError> {
    rustix::stdio::dup2_stdin(console).at(STEP, "make the console standard input")?;
    rustix::stdio::dup2_stdout(console).at(STEP, "make the console standard output")?;
    rustix::stdio::dup2_stderr(console).at(STEP, "make the console standard error")
}
