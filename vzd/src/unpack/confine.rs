//! What the worker gives up before it reads the first byte of an archive: the host's files, the network, every
//! capability but the five that setting owners takes, and nearly all system calls.

use super::{Failure, SILENCE};
use nix::sys::resource::{Resource, setrlimit};
use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount},
};
use std::{io, os::fd::OwnedFd};
use vz_sys::{caps, process, seccomp::Filter, seqpacket};

/// Effective in the worker's own user namespace alone: owners, modes, times and file capabilities.
const CAPABILITIES: &[&str] = &["chown", "dac_override", "fowner", "fsetid", "setfcap"];

/// Memory: the largest dictionary and window that are accepted, the list of directories, and room.
const MEMORY: u64 = 1 << 30;
/// Seconds of processor time: a compressed archive of 100 GB takes less.
const CPU_SECONDS: u64 = 45 * 60;

/// What reading an archive and making files takes, with memory, messages and dying.
const CALLS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fsetxattr,
    libc::SYS_utimensat,
    libc::SYS_ftruncate,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_sendmsg,
    libc::SYS_ppoll,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Waits for the target's mount, makes it all there is, and gives everything else up. Answers the target's root.
pub fn enter(go: OwnedFd, file_bytes: u64) -> Result<OwnedFd, Failure> {
    let at = |what: &'static str| move |e: io::Error| Failure::host(what, e);
    let (word, mut fds) = seqpacket::recv(&go, Some(SILENCE)).map_err(at("waiting for the id maps"))?;
    let tree = match (word.as_slice(), fds.pop()) {
        (b"go", Some(tree)) => tree,
        // The supervisor could not, and says why itself.
        _ => process::exit_now(0),
    };
    process::become_root().map_err(at("becoming root of the own user namespace"))?;
    // Changing ids took this away.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .map_err(|e| Failure::host("tying the worker to its supervisor", e))?;
    nix::sys::prctl::set_dumpable(false).map_err(|e| Failure::host("becoming undumpable", e))?;
    let root = only_see(&tree).map_err(|e| Failure::host("making the staging directory the root", e))?;
    for (resource, limit) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_CPU, CPU_SECONDS),
        (Resource::RLIMIT_FSIZE, file_bytes),
        (Resource::RLIMIT_NOFILE, 64),
        (Resource::RLIMIT_AS, MEMORY),
    ] {
        setrlimit(resource, limit, limit).map_err(|e| Failure::host("limiting the worker", e))?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    caps::keep_only(CAPABILITIES).map_err(at("dropping capabilities"))?;
    Filter::only(CALLS).install().map_err(at("installing the seccomp filter"))?;
    Ok(root)
}

/// Makes `tree` the root of this mount namespace and detaches the host's.
fn only_see(tree: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // Any directory that every host has will do: this mount namespace is nobody else's.
    move_mount(tree, "", CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::chdir("/proc")?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
