//! Mounts, id maps and filesystem quotas: what rustix has no wrapper for, and the few calls that are
//! always made together. Everything here takes descriptors, so that no path is looked up twice.

use rustix::{
    fs::{AtFlags, StatxAttributes, StatxFlags},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};
use std::{
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// Is something mounted exactly here? False also for a path that does not exist. Costs one `statx`.
///
/// # Errors
/// The path cannot be looked up (other than not existing), or the kernel is older than 5.8.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    match rustix::fs::statx(
        rustix::fs::CWD,
        path,
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        StatxFlags::empty(),
    ) {
        Ok(s) if s.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            Ok(s.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        }
        Ok(_) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "statx does not say mount points (kernel older than 5.8)"))
        }
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// A new, detached mount of a filesystem: `options` are `name=value` pairs, or flags when the value is
/// `None`. `attr` are the mount's attributes.
///
/// # Errors
/// The option or step that failed, by name in the message.
pub fn new_mount(kind: &str, options: &[(&str, Option<&str>)], attr: MountAttrFlags) -> io::Result<OwnedFd> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| named(e, "fsopen"))?;
    for (name, value) in options {
        match value {
            Some(v) => fsconfig_set_string(fs.as_fd(), *name, *v),
            None => fsconfig_set_flag(fs.as_fd(), *name),
        }
        .map_err(|e| named(e, &format!("option {name}")))?;
    }
    fsconfig_create(fs.as_fd()).map_err(|e| named(e, &format!("create{}", log_of(fs.as_fd()))))?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attr).map_err(|e| named(e, "fsmount"))
}

/// What the kernel has to say about a failed filesystem context, with a leading `: `, or nothing.
pub fn log_of(fs: BorrowedFd<'_>) -> String {
    let mut out = String::new();
    let mut buf = [0u8; 1024];
    // Each read gives one message, `e text`, `w text` or `i text`; ENODATA ends it.
    while let Ok(n) = rustix::io::read(fs, &mut buf) {
        let line = String::from_utf8_lossy(&buf[..n]);
        if let Some(text) = line.strip_prefix("e ").or_else(|| line.strip_prefix("w ")) {
            out.push_str(": ");
            out.push_str(text.trim_end());
        }
    }
    out
}

fn named(e: rustix::io::Errno, step: &str) -> io::Error {
    let e = io::Error::from(e);
    io::Error::new(e.kind(), StepError { step: step.to_owned(), raw: e.raw_os_error(), text: e.to_string() })
}

/// An errno with the step it came from, inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{step}: {text}")]
pub struct StepError {
    step: String,
    raw: Option<i32>,
    text: String,
}

/// The errno of an error, also when it carries a step's name.
pub fn errno_of(e: &io::Error) -> Option<i32> {
    e.raw_os_error().or_else(|| e.get_ref()?.downcast_ref::<StepError>()?.raw)
}

/// A detached copy of the mount at `path` (that one mount, not those below it), private.
///
/// # Errors
/// `open_tree(2)`, or `mount_setattr(2)`.
pub fn clone_mount(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let mount = open_tree(rustix::fs::CWD, path, flags)?;
    make_private(mount.as_fd())?;
    Ok(mount)
}

/// Ends a mount's sharing. A copy of a shared mount (`mount_namespaces(7)`; systemd makes the host's mounts shared) is
/// its peer: what is mounted on the one appears on the other, and the new root of `pivot_root(2)` must not be shared.
/// Whatever a container gets goes through here first.
///
/// # Errors
/// `mount_setattr(2)`.
pub fn make_private(mount: BorrowedFd<'_>) -> io::Result<()> {
    set_attributes(mount, 0, 0, libc::MS_PRIVATE, 0)
}

/// Attaches a detached mount at `path`.
///
/// # Errors
/// `move_mount(2)`.
pub fn attach(mount: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    move_mount(mount, c"", rustix::fs::CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// Gives a detached mount the id map of a user namespace and further attributes
/// (`MOUNT_ATTR_*` of `mount_setattr(2)`).
///
/// # Errors
/// `EINVAL`: the filesystem cannot be idmapped, or the mount is attached or mapped already.
pub fn idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    set_attributes(mount, libc::MOUNT_ATTR_IDMAP | attributes, 0, 0, userns.as_raw_fd() as u64)
}

/// Sets and clears attributes of one mount.
///
/// # Errors
/// `mount_setattr(2)`.
pub fn set_flags(mount: BorrowedFd<'_>, set: u64, clear: u64) -> io::Result<()> {
    set_attributes(mount, set, clear, 0, 0)
}

fn set_attributes(
    mount: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    propagation: libc::c_ulong,
    userns_fd: u64,
) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd };
    // SAFETY: the path is a static NUL-terminated string, `attr` is an initialised mount_attr whose size is
    // passed along and which outlives the call; the kernel only reads both.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// This thread's filesystem ids, changed until dropped, with every capability kept: the kernel would
/// otherwise take `CAP_DAC_OVERRIDE` and its like away with the step from 0 (`capabilities(7)`).
#[derive(Debug)]
pub struct FsIds {
    uid: u32,
    gid: u32,
    caps: capctl::CapState,
}

impl FsIds {
    /// Acts as `uid` and `gid` towards filesystems, in this thread only.
    ///
    /// # Errors
    /// The ids did not take (no `CAP_SETUID`/`CAP_SETGID`), or the capabilities could not be kept.
    pub fn become_ids(uid: u32, gid: u32) -> io::Result<Self> {
        let caps = capctl::CapState::get_current().map_err(|e| io::Error::from_raw_os_error(e.code()))?;
        let old_gid = nix::unistd::setfsgid(gid.into()).as_raw();
        let old_uid = nix::unistd::setfsuid(uid.into()).as_raw();
        let guard = Self { uid: old_uid, gid: old_gid, caps };
        guard.caps.set_current().map_err(|e| io::Error::from_raw_os_error(e.code()))?;
        // setfsuid reports no error; asking again with an id that cannot be set tells the present one.
        let now = (nix::unistd::setfsuid(u32::MAX.into()).as_raw(), nix::unistd::setfsgid(u32::MAX.into()).as_raw());
        if now != (uid, gid) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        Ok(guard)
    }
}

impl Drop for FsIds {
    fn drop(&mut self) {
        nix::unistd::setfsuid(self.uid.into());
        nix::unistd::setfsgid(self.gid.into());
        // Going back to 0 raises the filesystem capabilities; this puts the rest as it was.
        let _ = self.caps.set_current();
    }
}

const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

/// Makes a mounted ext4 `blocks` blocks large. Growing only; the device must already be that large.
///
/// # Errors
/// `EINVAL`: smaller than now. `EPERM`: the filesystem has errors.
pub fn ext4_resize(any_file: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64 that outlives the call; the fd is open.
    match unsafe { libc::ioctl(any_file.as_raw_fd(), EXT4_IOC_RESIZE_FS, &raw const blocks) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
const EXT4_GOING_FLAGS_LOGFLUSH: u32 = 1;

/// Ends an ext4 for whoever still has it mounted: what is written is made durable, then every access fails and
/// nothing is written to the device any more. Once done it stays done.
///
/// # Errors
/// `syncfs(2)`, or the ioctl: `EPERM` without `CAP_SYS_ADMIN`.
pub fn ext4_shutdown(any_file: BorrowedFd<'_>) -> io::Result<()> {
    let flags = EXT4_GOING_FLAGS_LOGFLUSH;
    // Fails on one that has been ended before, and then there is nothing left to make durable.
    let _ = rustix::fs::syncfs(any_file);
    // SAFETY: EXT4_IOC_SHUTDOWN reads one u32 that outlives the call; the fd is open.
    match unsafe { libc::ioctl(any_file.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct fsxattr` of `linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// The project a file or directory is accounted to; 0 when none.
///
/// # Errors
/// `ENOTTY`: the filesystem knows no projects.
pub fn project(file: BorrowedFd<'_>) -> io::Result<u32> {
    get_fsxattr(file).map(|x| x.projid)
}

fn get_fsxattr(file: BorrowedFd<'_>) -> io::Result<FsXattr> {
    let mut x = FsXattr::default();
    // SAFETY: FS_IOC_FSGETXATTR fills one fsxattr of the kernel's layout, which `x` is; the fd is open.
    match unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut x) } {
        0 => Ok(x),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Accounts a directory, and everything that will be made in it, to a project.
///
/// # Errors
/// `ENOTTY`/`EOPNOTSUPP`: the filesystem knows no projects.
pub fn set_project(dir: BorrowedFd<'_>, id: u32) -> io::Result<()> {
    let mut x = get_fsxattr(dir)?;
    x.projid = id;
    x.xflags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: FS_IOC_FSSETXATTR reads one fsxattr of the kernel's layout that outlives the call.
    match unsafe { libc::ioctl(dir.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const x) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A project's limits and use. Zero limits mean none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProjectQuota {
    /// Hard limit, bytes.
    pub bytes_limit: u64,
    /// In use, bytes.
    pub bytes_used: u64,
    /// Hard limit, inodes.
    pub inodes_limit: u64,
    /// In use, inodes.
    pub inodes_used: u64,
}

const PRJQUOTA: u32 = 2;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
const Q_GETINFO: u32 = 0x80_0005;
const QIF_LIMITS: u32 = 1 | 4;

const fn qcmd(cmd: u32) -> u32 {
    (cmd << 8) | PRJQUOTA
}

/// Is project quota accounted *and* enforced on the filesystem of this descriptor?
pub fn has_project_quota(file: BorrowedFd<'_>) -> bool {
    // `struct if_dqinfo`: three u64/u32 groups, 24 bytes; room to spare.
    let mut info = [0u64; 8];
    // SAFETY: Q_GETINFO writes one if_dqinfo (24 bytes) into a zeroed buffer of 64 bytes.
    let r = unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), qcmd(Q_GETINFO), 0, info.as_mut_ptr()) };
    if r != 0 {
        return false;
    }
    // Accounting without enforcement answers Q_GETINFO too: an xfs mounted with pqnoenforce must not count.
    let mut state = [0u64; 64];
    const Q_XGETQSTATV: u32 = (b'X' as u32) << 8 | 8;
    const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;
    state[0] = 1; // qs_version = FS_QSTATV_VERSION1
    // SAFETY: Q_XGETQSTATV writes one fs_quota_statv (less than 512 bytes) into a buffer of 512 bytes.
    let r =
        unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), qcmd(Q_XGETQSTATV), 0, state.as_mut_ptr()) };
    // struct fs_quota_statv { s8 version; u8 pad; u16 flags; ... }: little-endian bytes 2 and 3.
    r != 0 || ((state[0] >> 16) as u16) & FS_QUOTA_PDQ_ENFD != 0
}

/// Sets a project's hard limits on the filesystem of this descriptor.
///
/// # Errors
/// `ESRCH`/`ENOSYS`: no project quota there.
pub fn set_project_limits(file: BorrowedFd<'_>, id: u32, bytes: u64, inodes: u64) -> io::Result<()> {
    let dq = libc::dqblk {
        dqb_bhardlimit: bytes.div_ceil(1024),
        dqb_bsoftlimit: 0,
        dqb_curspace: 0,
        dqb_ihardlimit: inodes,
        dqb_isoftlimit: 0,
        dqb_curinodes: 0,
        dqb_btime: 0,
        dqb_itime: 0,
        dqb_valid: QIF_LIMITS,
    };
    // SAFETY: Q_SETQUOTA reads one initialised if_dqblk, which libc::dqblk mirrors; it outlives the call.
    let r = unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), qcmd(Q_SETQUOTA), id, &raw const dq) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A project's limits and use on the filesystem of this descriptor.
///
/// # Errors
/// `ESRCH`/`ENOSYS`: no project quota there.
pub fn project_quota(file: BorrowedFd<'_>, id: u32) -> io::Result<ProjectQuota> {
    let mut dq = libc::dqblk {
        dqb_bhardlimit: 0,
        dqb_bsoftlimit: 0,
        dqb_curspace: 0,
        dqb_ihardlimit: 0,
        dqb_isoftlimit: 0,
        dqb_curinodes: 0,
        dqb_btime: 0,
        dqb_itime: 0,
        dqb_valid: 0,
    };
    // SAFETY: Q_GETQUOTA writes one if_dqblk, which libc::dqblk mirrors, into `dq`.
    let r = unsafe { libc::syscall(libc::SYS_quotactl_fd, file.as_raw_fd(), qcmd(Q_GETQUOTA), id, &raw mut dq) };
    if r != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ProjectQuota {
        bytes_limit: dq.dqb_bhardlimit.saturating_mul(1024),
        bytes_used: dq.dqb_curspace,
        inodes_limit: dq.dqb_ihardlimit,
        inodes_used: dq.dqb_curinodes,
    })
}
