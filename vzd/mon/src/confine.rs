//! The policy of [`vz_types::policy`] applied to the calling process, last thing before it executes something of a
//! container's. The same for init, for programs of `exec` and `enter`, and for our own file edits.

use crate::error::{At, StepError};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;
use vz_sys::{caps, process, seccomp::Filter};
use vz_types::{limits::kernel::Inside, policy::DROPPED_CAPS};

const STEP: &str = "confine";

/// Capabilities, seccomp, keyring, signals, descriptors from `first_closed` up: then exec may come.
pub fn for_exec(filter: &Filter, first_closed: i32) -> Result<(), StepError> {
    match process::new_session_keyring() {
        Ok(()) => {}
        // A kernel without keys has none to leak.
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {}
        // The owner's key quota is used up inside: then this process has to go without a keyring of its own, and
        // the one it has is vzmon's, which is empty.
        Err(e) if e.raw_os_error() == Some(libc::EDQUOT) => {}
        Err(e) => return Err(e).at(STEP, "join a new session keyring"),
    }
    process::reset_signals();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    caps::drop_for_exec(DROPPED_CAPS).at(STEP, "drop capabilities")?;
    process::cloexec_from(first_closed).at(STEP, "mark descriptors close-on-exec")?;
    filter.install().at(STEP, "install the seccomp filter")
}

/// For a process of ours that is about to touch files a stranger controls: no new privileges, the container's
/// seccomp table, small limits. The caller adds the deadline.
pub fn for_edits() -> Result<(), StepError> {
    for (resource, limit) in [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_CPU, 5),
        (Resource::RLIMIT_FSIZE, 16 << 20),
        (Resource::RLIMIT_NOFILE, 64),
        (Resource::RLIMIT_AS, 512 << 20),
    ] {
        setrlimit(resource, limit, limit).at(STEP, format!("limit {resource:?}"))?;
    }
    process::reset_signals();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    caps::no_new_privs().at(STEP, "set no_new_privs")?;
    Filter::compile(&[], &[]).install().at(STEP, "install the seccomp filter")
}

/// Limits a machine's init starts with, whatever vzd was started under (systemd's own defaults; items as in
/// getrlimit(2)). Must run while still root on the host, for raising hard limits; a host whose root may not raise them
/// (no CAP_SYS_RESOURCE, as inside another manager's container) keeps its own hard limit.
/// `limits` has what the container's configuration says instead.
pub fn default_rlimits(limits: &Inside) -> io::Result<()> {
    use nix::sys::resource::RLIM_INFINITY as NONE;
    let nofile = limits.nofile.unwrap_or(524_288);
    let memlock = limits.memlock.unwrap_or(8 << 20);
    let space = limits.address_space.unwrap_or(NONE);
    // As many as a machine of this size allows (kernel/fork.c, fork_init).
    let tasks = vz_sys::proc::number("/proc/sys/kernel/threads-max").map_or(NONE, |n| n / 2);
    // The user namespace made after this counts the signals of the whole container against it.
    let signals = limits.sigpending.unwrap_or(tasks);
    for (resource, soft, hard) in [
        (Resource::RLIMIT_NOFILE, nofile.min(1024), nofile),
        (Resource::RLIMIT_CORE, 0, NONE),
        (Resource::RLIMIT_CPU, NONE, NONE),
        (Resource::RLIMIT_DATA, NONE, NONE),
        (Resource::RLIMIT_FSIZE, NONE, NONE),
        (Resource::RLIMIT_AS, space, space),
        (Resource::RLIMIT_STACK, 8 << 20, NONE),
        (Resource::RLIMIT_MEMLOCK, memlock, memlock),
        (Resource::RLIMIT_SIGPENDING, signals, signals),
        (Resource::RLIMIT_NPROC, tasks, tasks),
        (Resource::RLIMIT_RSS, NONE, NONE),
        (Resource::RLIMIT_LOCKS, NONE, NONE),
        (Resource::RLIMIT_MSGQUEUE, 819_200, 819_200),
        (Resource::RLIMIT_NICE, 0, 0),
        (Resource::RLIMIT_RTPRIO, 0, 0),
        (Resource::RLIMIT_RTTIME, NONE, NONE),
    ] {
        match setrlimit(resource, soft, hard) {
            Err(nix::Error::EPERM) => {
                let (_, most) = getrlimit(resource)?;
                setrlimit(resource, soft.min(most), hard.min(most))?;
            }
            other => other?,
        }
    }
    Ok(())
}
