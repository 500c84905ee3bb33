//! `vzd unpack`: turns a tar archive somebody else made into a tree of files, without trusting a byte of it. Started by
//! [`crate::template`] as a process of its own (this same program, before it has a second thread) and told what to do by
//! one [`Plan`]; imports vz-sys and vz-types, nothing else of vzd.
//!
//! ```text
//! vzd --Plan, archive, lock--> supervisor (root; waits, and dies with vzd)
//!                                 | clone3 into new user, pid, mount, net, ipc, uts and cgroup namespaces,
//!                                 |        the user namespace owned by and mapped to UNPACK_BASE..+65536
//!                                 v
//!                              worker: the idmapped mount of the target is all it sees (pivot_root); five capabilities
//!                                      inside its own user namespace, none outside; rlimits; a short list of system
//!                                      calls; then reads the archive and answers with Events
//! ```
//! The mount shifts ids the way containers' do, so owners, set-uid bits and file capabilities land on disk as the archive
//! says, 0-based, although nobody here is root of the host. What the worker says is a stranger's word: the caller
//! bounds it and shows it escaped.
//!
//! Rooms: [`input`] finds out the compression and undoes it, [`archive`] reads tar's blocks, [`extract`] makes files.

mod archive;
mod confine;
mod extract;
mod input;

use nix::sched::CloneFlags;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use vz_sys::{
    mount,
    process::{self, ActingAs, Cloned, SingleThreaded},
    seqpacket,
};
use vz_types::UidBase;

/// First id of the worker's range: the first above those of containers (and of every other container manager that keeps
/// to systemd's UIDS-GIDS document), used by no file.
pub const UNPACK_BASE: u32 = 0x7000_0000;

/// What to unpack where, and how much of it. Comes with two descriptors: the archive's bytes, and the lock to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// An empty directory of root's; nobody else looks into it meanwhile.
    pub root: PathBuf,
    /// Bounds.
    pub limits: Limits,
    /// Leave every device node out, not only those of a usual /dev.
    pub skip_devices: bool,
}

/// How much an archive may hold. What exceeds one is an error that names the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of all files together, and of each one's apparent size.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Whether [`Limits::bytes`] is what the disk has left, rather than a rule.
    pub by_disk: bool,
}

/// What the worker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Not more often than a few times a second.
    Progress {
        /// Bytes of the archive read.
        read: u64,
        /// Entries made.
        entries: u64,
        /// Bytes written.
        written: u64,
    },
    /// All of the archive was read and every file made.
    Done {
        /// Compression, as in `xz`; `none`.
        compression: String,
        /// Entries made.
        entries: u64,
        /// What was left out, in words.
        notes: Vec<String>,
    },
    /// It was given up; the tree is incomplete.
    Failed(Failure),
}

/// Why it was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whose fault it is.
    pub blame: Blame,
    /// The entry it was about, or the last one before.
    pub entry: Option<String>,
    /// Byte of the uncompressed archive at which that entry begins.
    pub at: u64,
    /// Why, in words.
    pub why: String,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// The archive's.
    Archive,
    /// The disk is full.
    Space,
    /// Ours, or the host's.
    Host,
}

impl Failure {
    fn host(what: &str, e: impl std::fmt::Display) -> Self {
        Self { blame: Blame::Host, entry: None, at: 0, why: format!("{what}: {e}") }
    }
}

/// Setting up takes some dozens of system calls; a host that needs longer is one on which an import should fail.
const SILENCE: Duration = Duration::from_secs(30);

/// The supervisor: `vzd unpack`, with a seqpacket socket as standard input.
pub fn main() -> ExitCode {
    let Ok(channel) = process::inherited_fd(0) else {
        eprintln!("vzd unpack is started by vzd itself");
        return ExitCode::from(vz_types::ExitCode::BadSyntax.code());
    };
    match supervise(&channel) {
        Ok(()) => {}
        Err(failure) => drop(tell(&channel, &Event::Failed(failure))),
    }
    ExitCode::SUCCESS
}

/// vzd hears no faster than whoever watches the import takes what it tells: as long as an import may take at most.
const HEARD: Duration = Duration::from_secs(2 * 60 * 60);

fn tell(channel: &OwnedFd, event: &Event) -> io::Result<()> {
    seqpacket::send_within(channel, &serde_json::to_vec(event)?, &[], HEARD)
}

fn supervise(channel: &OwnedFd) -> Result<(), Failure> {
    let host = |what: &'static str| move |e: io::Error| Failure::host(what, e);
    let one = SingleThreaded::claim().map_err(host("counting threads"))?;
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .map_err(|e| Failure::host("tying the unpacker to vzd", e))?;
    nix::sys::prctl::set_dumpable(false).map_err(|e| Failure::host("becoming undumpable", e))?;
    // Whatever protects vzd from the OOM killer is not for archives.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    let (message, mut fds) = seqpacket::recv(channel, Some(SILENCE)).map_err(host("reading the plan"))?;
    let plan: Plan = serde_json::from_slice(&message).map_err(|e| Failure::host("reading the plan", e))?;
    if fds.len() != 2 {
        return Err(Failure::host("reading the plan", "the archive did not come with it"));
    }
    let archive = fds.swap_remove(0);
    let tree = mount::clone_mount(&plan.root).map_err(host("cloning the mount of the staging directory"))?;
    let (go, theirs) = seqpacket::pair().map_err(host("making a channel"))?;
    let spaces = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    let cloned = {
        let _owner = ActingAs::ids(one, UNPACK_BASE, UNPACK_BASE).map_err(host("acting as the unpacker's own uid"))?;
        match process::clone3(one, spaces, None) {
            // The child leaves the guard's scope by never returning.
            Ok(Cloned::Child) => worker(&plan, &archive, &theirs, channel),
            other => other,
        }
    };
    let cloned = cloned.map_err(host("making namespaces (is user.max_user_namespaces large enough?)"))?;
    let Cloned::Parent(pid, pidfd) = cloned else { process::exit_now(70) };
    drop((theirs, archive));
    let handed = hand_over(pid, &tree, &go);
    drop((tree, go));
    let ended =
        rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), rustix::process::WaitIdOptions::EXITED);
    handed?;
    match ended {
        // It told its end itself.
        Ok(Some(status)) if status.exit_status() == Some(0) => Ok(()),
        Ok(Some(status)) => {
            let how = match status.terminating_signal() {
                Some(signal) => format!("it was killed by signal {signal}"),
                None => format!("it ended with status {:?}", status.exit_status()),
            };
            Err(Failure::host("the process that reads the archive died", how))
        }
        _ => Err(Failure::host("waiting for the process that reads the archive", "it is gone")),
    }
}

/// Gives the new user namespace its ids, and the worker its view of the target.
fn hand_over(pid: i32, tree: &OwnedFd, go: &OwnedFd) -> Result<(), Failure> {
    let host = |what: &'static str| move |e: io::Error| Failure::host(what, e);
    process::write_id_maps(pid, 0, UNPACK_BASE, UidBase::COUNT).map_err(host("writing the id maps"))?;
    let userns = File::open(format!("/proc/{pid}/ns/user")).map_err(host("opening the user namespace"))?;
    let flags = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    mount::idmap(tree.as_fd(), userns.as_fd(), flags).map_err(host(
        "shifting ids on the staging directory's mount (does its filesystem support idmapped mounts?)",
    ))?;
    seqpacket::send(go, b"go", &[tree.as_fd()]).map_err(host("handing over the staging directory"))
}

/// Keeps the channel (0), the standard descriptors, and these two, as 3 and 4; closes every other one, whoever left it.
fn only_these(archive: &OwnedFd, go: &OwnedFd) -> io::Result<(OwnedFd, OwnedFd)> {
    // By way of numbers out of the way, so that neither is overwritten by the other.
    let high = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 64);
    let (archive, go) = (high(archive)?, high(go)?);
    process::duplicate_to(archive.as_fd(), 3)?;
    process::duplicate_to(go.as_fd(), 4)?;
    // The numbers above are closed by the next call, not by their owners.
    std::mem::forget(archive);
    std::mem::forget(go);
    process::close_from(5)?;
    Ok((process::inherited_fd(3)?, process::inherited_fd(4)?))
}

/// The worker's whole life. Never returns.
fn worker(plan: &Plan, archive: &OwnedFd, go: &OwnedFd, channel: &OwnedFd) -> ! {
    let outcome =
        only_these(archive, go).map_err(|e| Failure::host("closing descriptors", e)).and_then(|(archive, go)| {
            let root = confine::enter(go, plan.limits.bytes)?;
            extract::run(plan, File::from(archive), root, &mut |event| {
                // vzd is gone: so are we.
                if tell(channel, &event).is_err() {
                    process::exit_now(0);
                }
            })
        });
    let last = match outcome {
        Ok(done) => done,
        Err(failure) => Event::Failed(failure),
    };
    let _ = tell(channel, &last);
    process::exit_now(0)
}

pub use input::instead;

/// Bytes a stranger chose, for a message: printable, and not endless.
pub fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 240;
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\u{fffd}' { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for b in chunk.invalid() {
            out.push_str(&format!("\\x{b:02x}"));
        }
    }
    if out.chars().count() <= MOST {
        return out;
    }
    let head: String = out.chars().take(MOST / 2).collect();
    let tail: Vec<char> = out.chars().rev().take(MOST / 2).collect();
    format!("{head}...{}", tail.iter().rev().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_bytes_are_shown_without_steering_a_terminal() {
        assert_eq!(shown(b"a/\x1b[2Jb\xff\n"), "a/\\u{1b}[2Jb\\xff\\n");
        assert_eq!(shown("ä€".as_bytes()), "ä€");
        let long = shown(&[b'x'; 9000]);
        assert!(long.len() < 300 && long.contains("..."), "{long}");
    }

    #[test]
    fn the_workers_ids_are_nobodys() {
        assert!(UNPACK_BASE > UidBase::LAST_ID && UNPACK_BASE.trailing_zeros() >= 16);
        assert!(UNPACK_BASE.checked_add(UidBase::COUNT).is_some_and(|end| end <= 1 << 31));
    }
}
