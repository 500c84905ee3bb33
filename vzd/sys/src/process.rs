//! Making processes and namespaces: clone3(2) with a cgroup and a pidfd, id maps, pidfds. [`crate::proc`] tells of those
//! that are there.
//!
//! Cloning without exec is sound only while the caller has one thread: everything here that clones
//! wants a [`SingleThreaded`] witness. vzmon gets one at its start; vzd, which is threaded, cannot.

use nix::sched::CloneFlags;
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    io::Errno,
    process::{Pid, PidfdFlags},
};
use std::{fs, io};

/// Proof that this process had one thread when it was made. Nothing of ours in vzmon starts another.
#[derive(Clone, Copy, Debug)]
pub struct SingleThreaded(());

impl SingleThreaded {
    /// Counts the threads.
    ///
    /// # Errors
    /// When there is more than one, or `/proc/self/task` cannot be read.
    pub fn claim() -> io::Result<Self> {
        match fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(())),
            n => Err(io::Error::other(format!("{n} threads where one is needed"))),
        }
    }
}

/// `CLONE_INTO_CGROUP` (linux/sched.h). The libc crate's constant is an int and truncates to 0.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CLONE_PIDFD` (linux/sched.h).
const CLONE_PIDFD: u64 = 0x1000;

/// `struct clone_args` (linux/sched.h, version 2 with `cgroup`).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Which side of a clone this is.
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The caller, with the child's pid in the caller's pid namespace and a pidfd of it.
    Parent(i32, OwnedFd),
}

/// clone3(2) like fork: a copy of this process in the given new namespaces, born in `cgroup` (the
/// descriptor of a cgroup2 directory) without ever writing to a `cgroup.procs`.
///
/// With `CLONE_PARENT` the child becomes the caller's sibling and its end is signalled to the caller's parent.
///
/// # Errors
/// What clone3(2) says.
pub fn clone3(_one: SingleThreaded, namespaces: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    // SAFETY: this process is single-threaded (the witness), so no lock can be held by a thread that does not exist
    // in the child.
    unsafe { copy(namespaces, cgroup) }
}

/// clone3(2) without CLONE_VM: a copy of this process with the calling thread alone.
///
/// # Safety
/// Where this process has other threads, any lock may be held for ever in the child: it may make nothing but
/// async-signal-safe calls (signal-safety(7)) on memory prepared before, and must never return.
pub(crate) unsafe fn copy(namespaces: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let sibling = namespaces.contains(CloneFlags::CLONE_PARENT);
    let mut args = CloneArgs {
        flags: (namespaces.bits() as u32 as u64) | CLONE_PIDFD,
        pidfd: (&raw mut pidfd) as u64,
        // With CLONE_PARENT the kernel takes over the parent's own exit signal and wants 0 here.
        exit_signal: if sibling { 0 } else { libc::SIGCHLD as u64 },
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args of the size given and outlives the call; the caller vouches for the child.
    // `pidfd` is written by the kernel before either side returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => {
            // SAFETY: on success with CLONE_PIDFD the kernel stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent(pid as i32, pidfd))
        }
    }
}

/// Ends this process at once: no destructors, no buffers. The way out for a cloned child.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Acts with another effective uid and gid on file creation, namespace ownership and cgroup checks until dropped,
/// all capabilities kept.
#[derive(Debug)]
pub struct ActingAs(());

impl ActingAs {
    /// Sets the effective ids. A user namespace made now belongs to `uid` (user_namespaces(7)), so its ucounts
    /// are charged to `uid` and not to root.
    ///
    /// # Errors
    /// What prctl(2) or setresuid(2) say.
    pub fn ids(_one: SingleThreaded, uid: u32, gid: u32) -> io::Result<Self> {
        // Without this bit the change of euid from 0 would drop the effective capabilities.
        let bits = capctl::prctl::get_securebits().map_err(cap_error)?;
        capctl::prctl::set_securebits(bits | capctl::prctl::Secbits::NO_SETUID_FIXUP).map_err(cap_error)?;
        let guard = Self(());
        set_effective_ids(uid, gid)?;
        Ok(guard)
    }
}

impl Drop for ActingAs {
    fn drop(&mut self) {
        let restored = set_effective_ids(0, 0).and_then(|()| {
            let bits = capctl::prctl::get_securebits().map_err(cap_error)?;
            capctl::prctl::set_securebits(bits & !capctl::prctl::Secbits::NO_SETUID_FIXUP).map_err(cap_error)
        });
        if restored.is_err() {
            // Going on with the wrong identity would be worse than ending; saved uid 0 makes this unreachable.
            exit_now(70);
        }
    }
}

fn set_effective_ids(uid: u32, gid: u32) -> io::Result<()> {
    nix::unistd::setegid(gid.into())?;
    nix::unistd::seteuid(uid.into())?;
    Ok(())
}

fn cap_error(e: capctl::Error) -> io::Error {
    io::Error::from_raw_os_error(e.code())
}

/// Writes the maps of the user namespace of `pid`: `count` ids from `inside` on are those from `outside` on of the
/// user namespace around it.
///
/// # Errors
/// Names the file that could not be written.
pub fn write_id_maps(pid: i32, inside: u32, outside: u32, count: u32) -> io::Result<()> {
    write_id_map(pid, &[(inside, outside, count)])
}

/// The same of several extents: the first id inside, the first one outside, how many. A map is written once and at once, in
/// less than a page (user_namespaces(7)).
///
/// # Errors
/// Names the file that could not be written.
pub fn write_id_map(pid: i32, map: &[(u32, u32, u32)]) -> io::Result<()> {
    let text: String = map.iter().map(|(inside, outside, count)| format!("{inside} {outside} {count}\n")).collect();
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/{pid}/{file}");
        fs::write(&path, &text).map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?;
    }
    Ok(())
}

/// Becomes uid and gid 0 of the current user namespace, with no supplementary groups.
///
/// # Errors
/// What setgroups(2), setresgid(2) or setresuid(2) say.
pub fn become_root() -> io::Result<()> {
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(0.into(), 0.into(), 0.into())?;
    nix::unistd::setresuid(0.into(), 0.into(), 0.into())?;
    Ok(())
}

/// A pidfd of a process.
///
/// # Errors
/// `ESRCH` when there is none.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal by number, real-time ones included, through a pidfd.
///
/// # Errors
/// `ESRCH` when the process is gone.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: plain integers and a valid descriptor; a null siginfo asks for the same as kill(2).
    let r = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The number of `SIGRTMIN+n` as the C library counts it (it keeps the first two for itself).
pub fn sigrtmin(n: i32) -> i32 {
    libc::SIGRTMIN() + n
}

/// Closes every descriptor from `first` up (close_range(2)).
///
/// # Errors
/// What close_range(2) says.
pub fn close_from(first: RawFd) -> io::Result<()> {
    // SAFETY: the caller's contract is that nothing it still uses is at or above `first`; descriptors are
    // plain numbers to the kernel and no memory is touched.
    let r = unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, libc::c_uint::MAX, 0) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Marks every descriptor from `first` up close-on-exec, so that exec carries none of them over.
///
/// # Errors
/// What close_range(2) says.
pub fn cloexec_from(first: RawFd) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: changes descriptor flags only.
    let r =
        unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `number` refer to the same file, not close-on-exec, whatever it was before: for a descriptor that a program
/// is to find under that number.
///
/// # Errors
/// What dup2(2) says.
pub fn duplicate_to(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: the caller is about to exec, so no owner of `number` in this process will use it again.
    if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes over an inherited descriptor by number.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, was passed to us by number for this purpose, and is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Joins a new anonymous session keyring, so that no key of ours is in reach (keyctl(2)).
///
/// # Errors
/// `ENOSYS` on a kernel without keys, which callers treat as done.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let r = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Resets every signal to its default action and unblocks all of them: what a new PID 1 expects.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is a valid disposition for every signal; those that cannot be changed (KILL, STOP, the C
        // library's own two) only answer an error.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// Names of the user namespace's owner: the uid that made it (ioctl_ns(2), `NS_GET_OWNER_UID`).
///
/// # Errors
/// What ioctl(2) says.
pub fn userns_owner(userns: &impl AsFd) -> io::Result<u32> {
    const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;
    let mut uid: libc::uid_t = 0;
    // SAFETY: the request writes one uid_t to the pointer given.
    let r = unsafe { libc::ioctl(userns.as_fd().as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(uid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn into_cgroup_is_not_truncated() {
        assert_eq!(CLONE_INTO_CGROUP, 1 << 33);
    }

    #[test]
    fn this_process_has_a_pidfd_and_nobody_has_pid_zero() {
        assert!(pidfd_open(std::process::id() as i32).is_ok());
        assert!(pidfd_open(0).is_err());
    }
}
