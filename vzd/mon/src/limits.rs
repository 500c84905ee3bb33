//! Limits that live in a container's namespaces: the maxima of TCP buffers and of System V shared memory, which the
//! host's root writes from outside, and the sizes of two filesystems, which are changed as the container's root.

use crate::{
    edit::Outcome,
    error::{At, StepError},
    launch,
};
use nix::sched::CloneFlags;
use rustix::{
    fs::CWD,
    mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_string, fspick},
};
use std::{fs, io, os::fd::AsFd, time::Duration};
use vz_sys::{
    process::{self, Cloned, SingleThreaded},
    seqpacket,
};
use vz_types::{UidBase, limits::kernel::Inside};

/// Pseudo terminals of a container that says nothing.
pub const PTY_MAX: u32 = 1024;
/// `kernel.shmall` of a new ipc namespace (`SHMALL` in linux/shm.h).
const SHMALL: u64 = u64::MAX - (1 << 24);
const PAGE: u64 = 4096;
const DEADLINE: Duration = Duration::from_secs(5);

/// Pseudo terminals.
pub fn pty_max(limits: &Inside) -> u32 {
    limits.pty_max.unwrap_or(PTY_MAX)
}

/// The `size=` of /dev/shm.
pub fn shm_size(limits: &Inside) -> String {
    limits.shm_pages.map_or_else(|| "50%".into(), |pages| pages.saturating_mul(PAGE).to_string())
}

/// Writes the kernel's parameters of a container's network and ipc namespaces, from a child that joins them and
/// stays in the host's mount namespace: nothing inside has a say, because the files are those of the host's /proc. `all`: also what is
/// not limited (any more), to the kernel's own values.
pub fn apply_parameters(
    one: SingleThreaded,
    init: i32,
    owner: UidBase,
    limits: &Inside,
    all: bool,
) -> Result<(), StepError> {
    const STEP: &str = "network";
    let rows = parameters(limits, all);
    if rows.is_empty() {
        return Ok(());
    }
    let open = |name: &str| {
        fs::File::open(format!("/proc/{init}/ns/{name}")).at(STEP, format!("open the container's {name} namespace"))
    };
    let (net, ipc) = (open("net")?, open("ipc")?);
    let (ours, theirs) = seqpacket::pair().at(STEP, "make a channel")?;
    match process::clone3(one, CloneFlags::empty(), None).at(STEP, "clone")? {
        Cloned::Child => {
            let outcome = (|| -> io::Result<()> {
                nix::sched::setns(&net, CloneFlags::CLONE_NEWNET)?;
                nix::sched::setns(&ipc, CloneFlags::CLONE_NEWIPC)?;
                for (file, value) in &rows {
                    let mut written = fs::write(file, value);
                    if written.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied) {
                        // Parameters of an ipc namespace are its owner's; nobody else's rights count.
                        nix::unistd::seteuid(owner.get().into())?;
                        written = fs::write(file, value);
                        nix::unistd::seteuid(0.into())?;
                    }
                    written.map_err(|e| io::Error::new(e.kind(), format!("write `{value}` to {file}: {e}")))?;
                }
                Ok(())
            })();
            let outcome = Outcome::of(outcome.map_err(|e: io::Error| e.to_string()));
            launch::tell_outcome(&theirs, &outcome);
            process::exit_now(0)
        }
        Cloned::Parent(_, pidfd) => {
            drop(theirs);
            let said = seqpacket::recv(&ours, Some(DEADLINE));
            let _ = process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
            launch::reap(&pidfd);
            let (message, _) = said.at(STEP, "limit the container's namespaces")?;
            match launch::read_outcome(&message).failed.into_iter().next() {
                None => Ok(()),
                Some(cause) => Err(io::Error::other(cause)).at(STEP, "limit the container's namespaces"),
            }
        }
    }
}

/// Files of /proc/sys with what they are to hold. TCP's three numbers are least, first and most for one socket
/// (tcp(7)); the first is lowered where it would be above the most.
fn parameters(limits: &Inside, all: bool) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    for (file, most, first) in [
        ("/proc/sys/net/ipv4/tcp_wmem", limits.tcp_wmem, 16_384),
        ("/proc/sys/net/ipv4/tcp_rmem", limits.tcp_rmem, 131_072),
    ] {
        match most {
            Some(most) => rows.push((file, format!("4096 {} {most}", most.min(first)))),
            // The host's own numbers, which a new namespace begins with.
            None if all => rows.extend(fs::read_to_string(file).ok().map(|t| (file, t.trim().to_owned()))),
            None => {}
        }
    }
    if limits.shm_pages.is_some() || all {
        rows.push(("/proc/sys/kernel/shmall", limits.shm_pages.unwrap_or(SHMALL).to_string()));
    }
    rows
}

/// Gives the running container's /dev/pts and /dev/shm other sizes; the caller is root inside and in its mount
/// namespace. What root inside has put there instead is not touched.
pub fn remount(limits: &Inside) -> Result<(), String> {
    const DEVPTS: u64 = 0x1cd1;
    const TMPFS: u64 = 0x0102_1994;
    for (path, kind, key, value) in
        [("/dev/pts", DEVPTS, "max", pty_max(limits).to_string()), ("/dev/shm", TMPFS, "size", shm_size(limits))]
    {
        let is = rustix::fs::statfs(path).map(|s| s.f_type as u64).unwrap_or(0);
        if is != kind {
            return Err(format!("{path} inside is not what it was made as, so its {key}= cannot be changed"));
        }
        let change = || -> rustix::io::Result<()> {
            let fs = fspick(CWD, path, FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_SYMLINK_NOFOLLOW)?;
            fsconfig_set_string(fs.as_fd(), key, value.as_str())?;
            fsconfig_reconfigure(fs.as_fd())
        };
        change().map_err(|e| format!("set {key}={value} on {path} inside: {e}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_limited_is_written_unless_all_is_asked_for() {
        assert!(parameters(&Inside::default(), false).is_empty());
        let l = Inside { tcp_wmem: Some(8192), shm_pages: Some(10), ..Inside::default() };
        assert_eq!(
            parameters(&l, false),
            [
                ("/proc/sys/net/ipv4/tcp_wmem", "4096 8192 8192".to_owned()),
                ("/proc/sys/kernel/shmall", "10".to_owned())
            ]
        );
        assert!(
            parameters(&Inside::default(), true).iter().any(|(f, v)| f.ends_with("shmall") && *v == SHMALL.to_string())
        );
    }
}
