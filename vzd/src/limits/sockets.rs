//! The programs that count a container's inet sockets and guard its parameters: attached to its cgroup while nothing
//! runs in it, and found again there by whichever vzd asks.

use super::read::SocketFigures;
use std::{fs::File, io, os::fd::AsFd, path::Path, sync::OnceLock};
use vz_sys::socket_bpf::{self, OTHER, Sockets, TCP};
use vz_types::limits::{Amount, Ub, kernel::Inside};

/// Which of the programs' kinds a counter is.
fn kind(ub: Ub) -> Option<u32> {
    match ub {
        Ub::Numtcpsock => Some(TCP),
        Ub::Numothersock => Some(OTHER),
        _ => None,
    }
}

fn words(limit: Amount) -> u64 {
    limit.number().unwrap_or(u64::MAX)
}

fn find(cgroup: &Path) -> io::Result<Option<Sockets>> {
    Sockets::find(File::open(cgroup)?.as_fd())
}

/// Attaches the counting programs to a new cgroup; one that has them keeps them.
///
/// # Errors
/// What the kernel says.
pub fn attach(cgroup: &Path) -> io::Result<()> {
    let dir = File::open(cgroup)?;
    match Sockets::find(dir.as_fd())? {
        Some(_) => Ok(()),
        None => Sockets::attach(dir.as_fd()).map(drop),
    }
}

/// Whether this kernel takes the programs: tried once, on the manager's own level, which holds no process.
///
/// # Errors
/// Why not.
pub fn supported(cgroup_mount: &Path) -> Result<(), String> {
    static TRIED: OnceLock<Result<(), String>> = OnceLock::new();
    TRIED
        .get_or_init(|| {
            let probe = cgroup_mount.join(format!("vz-probe-{}", std::process::id()));
            let tried = std::fs::create_dir(&probe).and_then(|()| attach(&probe));
            let _ = std::fs::remove_dir(&probe);
            tried.map_err(|e| format!("this kernel refuses the program that counts sockets: {e}"))
        })
        .clone()
}

/// Sets a counter's limit.
///
/// # Errors
/// What the kernel says, or that no program is attached.
pub fn limit(cgroup: &Path, ub: Ub, limit: Amount) -> io::Result<()> {
    let Some(kind) = kind(ub) else { return Ok(()) };
    match find(cgroup)? {
        Some(sockets) => sockets.limit(kind, words(limit)),
        None if limit == Amount::Unlimited => Ok(()),
        None => Err(io::Error::other("no program counts the sockets of this container: it was started without")),
    }
}

/// Figures of the programs attached to this cgroup: TCP, and every other kind they count; `None`: there are none.
pub fn figures(cgroup: &Path) -> Option<[SocketFigures; 2]> {
    let sockets = find(cgroup).ok()??;
    let of = |kind| {
        let c = sockets.counts(kind).ok()?;
        Some(SocketFigures { held: c.held, peak: c.peak, fails: c.fails })
    };
    Some([of(TCP)?, of(OTHER)?])
}

/// Whether the program attached to this cgroup holds this limit.
///
/// # Errors
/// Why not.
pub fn in_force(cgroup: &Path, ub: Ub, limit: Amount) -> Result<(), String> {
    let Some(kind) = kind(ub) else { return Ok(()) };
    match find(cgroup).and_then(|s| s.map(|s| s.limit_of(kind)).transpose()) {
        Ok(Some(found)) if found == words(limit) => Ok(()),
        Ok(Some(found)) => Err(format!("the program holds a limit of {found}")),
        Ok(None) => Err("no program counts the sockets of this container".into()),
        Err(e) => Err(format!("the program cannot be asked: {e}")),
    }
}

/// Keeps root inside from writing the parameters that limit it, where any does.
///
/// # Errors
/// What the kernel says.
pub fn guard(cgroup: &Path, inside: &Inside) -> io::Result<()> {
    if inside.tcp_wmem.is_none() && inside.tcp_rmem.is_none() && inside.shm_pages.is_none() {
        return Ok(());
    }
    socket_bpf::guard_parameters(File::open(cgroup)?.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_no_cgroup_has_no_programs() {
        let dir = tempfile::tempdir().unwrap();
        assert!(figures(dir.path()).is_none());
        assert!(in_force(dir.path(), Ub::Numtcpsock, Amount::At(1)).is_err());
    }
}
