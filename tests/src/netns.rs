//! Network namespaces. Ours are made by a thread that ends at once and are held by a descriptor, so that they
//! have no name to forget and no mount to leave behind: the last descriptor and the last process take them along.

use crate::command::{self, Output};
use nix::sched::{CloneFlags, setns, unshare};
use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    process::Command,
    thread,
    time::Duration,
};

/// A network namespace of our own.
#[derive(Debug)]
pub struct NetNs(File);

impl NetNs {
    /// A new one with its loopback up.
    ///
    /// # Errors
    /// We are not root, or the kernel has no network namespaces.
    pub fn new() -> io::Result<Self> {
        // unshare(2) is per thread: this one ends, the namespace stays with the descriptor.
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let ns = Self(made.join().map_err(|_| io::Error::other("the namespace thread panicked"))??);
        ns.ip("link set lo up");
        Ok(ns)
    }

    /// The namespace the process `pid` is in.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(Self(File::open(format!("/proc/{pid}/ns/net"))?))
    }

    /// The number by which `/proc/PID/ns/net` shows it.
    pub fn inode(&self) -> u64 {
        self.0.metadata().map(|m| m.ino()).unwrap_or(0)
    }

    /// A path by which other processes of ours can join it, as long as we live.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// A command that will run `program` inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut c = Command::new("nsenter");
        c.arg(format!("--net={}", self.path())).arg("--").arg(program.as_ref());
        c
    }

    /// Does `work` on a thread inside: sockets it makes belong to this namespace and stay usable everywhere.
    ///
    /// # Panics
    /// If the namespace cannot be joined, or `work` panics.
    #[track_caller]
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let fd = &self.0;
        thread::scope(|s| {
            let done = s.spawn(move || {
                setns(fd, CloneFlags::CLONE_NEWNET).expect("joining the network namespace");
                work()
            });
            match done.join() {
                Ok(value) => value,
                Err(cause) => std::panic::resume_unwind(cause),
            }
        })
    }

    /// Runs ip(8) inside with these words and panics if it fails.
    #[track_caller]
    pub fn ip(&self, words: &str) -> Output {
        let mut c = self.command("ip");
        c.args(words.split_whitespace());
        match command::run(&mut c, None, Duration::from_secs(10)) {
            Ok(o) => o.ok(),
            Err(e) => panic!("{e}"),
        }
    }

    /// Runs a shell line inside.
    #[track_caller]
    pub fn sh(&self, line: &str) -> Output {
        let mut c = self.command("sh");
        c.args(["-c", line]);
        match command::run(&mut c, None, Duration::from_secs(30)) {
            Ok(o) => o,
            Err(e) => panic!("{e}"),
        }
    }

    /// A pair of links: `name` here, `peer_name` in `peer`, both up.
    #[track_caller]
    pub fn veth(&self, name: &str, peer: &NetNs, peer_name: &str) {
        self.ip(&format!("link add {name} type veth peer name {peer_name} netns {}", peer.path()));
        self.ip(&format!("link set {name} up"));
        peer.ip(&format!("link set {peer_name} up"));
    }
}
