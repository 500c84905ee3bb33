//! Our part of the cgroup2 tree: `<mount>/<name>/<CTID>/{ns,exec}` and `<mount>/<name>/monitors`. The CTID level
//! is ours and root-owned; `ns/` is delegated to the container, `exec/` holds what is run in it from outside.
//! Beside them all monitors: in vzd's own cgroup, `systemctl kill vzd` would end them and every container with them. The
//! only module that uses cgroups-rs, and only its readers: see the pitfalls that chose this.
//!
//! On a hybrid host the tree exists without controllers: containers run, `kill` and `freeze` work, and
//! no limit can be enforced. [`Cgroups::controllers`] is what tells.

use cgroups_rs::fs::pid::PidController;
use rustix::event::{PollFd, PollFlags, poll};
use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use vz_sys::proc;
use vz_types::{Ctid, ExitCode, Paths, UidBase};

/// Levels and cgroups a container may make below its own (cgroup-v2.rst, `cgroup.max.*`).
const MAX_DEPTH: &str = "32";
const MAX_DESCENDANTS: &str = "4096";

/// Where the monitors are: beside the containers' levels, so that no limit or kill of one meets its monitor.
const MONITORS: &str = "monitors";

/// Controllers a container's limits need, in the kernel's words, and what cannot be limited without each.
pub const WANTED: &[(&str, &str)] = &[
    ("cpu", "processor time of containers is not limited or shared out"),
    ("cpuset", "containers are not bound to processors"),
    ("io", "disk bandwidth of containers is not limited"),
    ("memory", "memory of containers is not limited: one can use all of the host's"),
    ("pids", "the number of a container's processes is not limited"),
];

/// Why a cgroup could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cgroup2 is mounted.
    #[error("no cgroup2 filesystem is mounted on this host")]
    NotMounted,
    /// The configured path is something else.
    #[error("{} is not on a cgroup2 filesystem", .0.display())]
    NotCgroup2(PathBuf),
    /// A file or directory of the tree refused.
    #[error("cgroup {}: {what}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Processes would not go.
    #[error("cgroup {} still has processes after {seconds} s", path.display())]
    Populated {
        /// Which.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
}

impl Error {
    /// What `vzctl` exits with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Populated { .. } => ExitCode::StopFailed,
            _ => ExitCode::Environment,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotMounted => Some("mount -t cgroup2 none /sys/fs/cgroup".into()),
            Self::NotCgroup2(_) => {
                Some("correct `cgroup_root` in vz.toml, or remove it to have the mount found".into())
            }
            _ => None,
        }
    }
}

fn io_error<'a>(path: &'a Path, what: &'static str) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Io { path: path.into(), what, source }
}

/// One manager's part of the tree.
#[derive(Debug)]
pub struct Cgroups {
    order: Mutex<()>,
    mount: PathBuf,
    base: PathBuf,
    controllers: Vec<String>,
}

impl Cgroups {
    /// Finds the cgroup2 mount, or takes the configured one.
    pub fn find(paths: &Paths, configured: Option<&Path>) -> Result<Self, Error> {
        let mount = match configured {
            Some(path) if is_cgroup2(path) => path.to_path_buf(),
            Some(path) => return Err(Error::NotCgroup2(path.into())),
            None => mounts().into_iter().find(|p| is_cgroup2(p)).ok_or(Error::NotMounted)?,
        };
        let text = fs::read_to_string(mount.join("cgroup.controllers"))
            .map_err(io_error(&mount, "reading its controllers"))?;
        let controllers = text.split_whitespace().map(String::from).collect();
        Ok(Self { order: Mutex::default(), base: mount.join(paths.cgroup_name()), mount, controllers })
    }

    /// Where cgroup2 is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Our level, above every container's.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Controllers the kernel offers on this tree.
    pub fn controllers(&self) -> &[String] {
        &self.controllers
    }

    /// Our level of a container.
    pub fn path(&self, ctid: Ctid) -> PathBuf {
        self.base.join(ctid.to_string())
    }

    /// Makes our level of a container with `ns/`, owned by `owner`, and `exec/`. What is there already is kept.
    pub fn create(&self, ctid: Ctid, owner: UidBase) -> Result<PathBuf, Error> {
        let path = self.path(ctid);
        // The manager's level goes away with its last container, maybe at this moment.
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.base.is_dir() {
            make(&self.base)?;
        }
        // Each time: a service manager that owns the top takes controllers back that it sees no need for.
        self.enable(&self.mount)?;
        self.enable(&self.base)?;
        make(&path)?;
        self.enable(&path)?;
        write(&path, "cgroup.max.depth", MAX_DEPTH)?;
        write(&path, "cgroup.max.descendants", MAX_DESCENDANTS)?;
        make(&path.join("exec"))?;
        let ns = path.join("ns");
        make(&ns)?;
        let uid = Some(owner.get());
        std::os::unix::fs::chown(&ns, uid, uid).map_err(io_error(&ns, "giving it to the container"))?;
        // The kernel's own list of what a delegate may write; some files exist only with their controller.
        let delegate = fs::read_to_string("/sys/kernel/cgroup/delegate")
            .unwrap_or_else(|_| "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n".into());
        for file in delegate.split_whitespace() {
            match std::os::unix::fs::chown(ns.join(file), uid, uid) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Io { path: ns, what: "giving its files to the container", source: e });
                }
                _ => {}
            }
        }
        Ok(path)
    }

    /// Hands every wanted controller that exists down from `level`.
    fn enable(&self, level: &Path) -> Result<(), Error> {
        for c in self.controllers.iter().filter(|c| WANTED.iter().any(|(w, _)| w == c)) {
            write(level, "cgroup.subtree_control", &format!("+{c}"))?;
        }
        Ok(())
    }

    /// The cgroup of the monitors. It stays while any container's level is there.
    pub fn monitors(&self) -> Result<File, Error> {
        let path = self.base.join(MONITORS);
        // Not made and taken away at the same moment.
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        make(&path)?;
        File::open(&path).map_err(io_error(&path, "opening it"))
    }

    /// Moves a monitor to the monitors' cgroup, unless it is there. Moving waits for an RCU grace period, so what is
    /// born there is left alone.
    pub fn keep_monitor(&self, pid: i32) -> Result<(), Error> {
        let path = self.base.join(MONITORS);
        // Its own word, not the list of all that are there: this is asked for every container.
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let unified = own.lines().find_map(|l| l.strip_prefix("0::"));
        let below = |p: &str| path.ends_with(p.trim_start_matches('/'));
        if unified.is_some_and(|p| p.ends_with(&format!("/{MONITORS}")) && below(p)) {
            return Ok(());
        }
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        make(&path)?;
        write(&path, "cgroup.procs", &pid.to_string())
    }

    /// Kills everything in a container's tree and waits until it is gone; nothing there is fine.
    pub fn kill(&self, ctid: Ctid, deadline: Duration) -> Result<(), Error> {
        let path = self.path(ctid);
        match fs::write(path.join("cgroup.kill"), "1") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::Io { path, what: "killing what is in it", source: e }),
            Ok(()) => wait_empty(&path, deadline),
        }
    }

    /// Whether a process is in a container's tree; no tree: none.
    ///
    /// # Errors
    /// It cannot be read, which says nothing about processes.
    pub fn populated(&self, ctid: Ctid) -> io::Result<bool> {
        match fs::read_to_string(self.path(ctid).join("cgroup.events")) {
            Ok(text) => Ok(text.contains("populated 1")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Removes a container's tree, which must be empty of processes; nothing there is fine. The last one
    /// takes the manager's own level along.
    pub fn remove(&self, ctid: Ctid) -> Result<(), Error> {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        remove_tree(&self.path(ctid))?;
        // A cgroup's directory has a link for each one below it, and two of its own: what is left is counted before it is
        // listed, which would cost more the more containers there are.
        let left = fs::metadata(&self.base).map_or(0, |m| m.nlink());
        if left <= 3 && self.list().is_empty() {
            // Refused while a monitor is still on its way out.
            let _ = fs::remove_dir(self.base.join(MONITORS));
            let _ = fs::remove_dir(&self.base);
        }
        Ok(())
    }

    /// Processes and threads in a container's tree; none when there is no tree.
    pub fn count(&self, ctid: Ctid) -> Option<u64> {
        let path = self.path(ctid);
        if self.controllers.iter().any(|c| c == "pids") {
            return PidController::new(path, self.base.clone(), true).get_pid_current().ok();
        }
        count_threads(&path).ok()
    }

    /// Every container that has a tree.
    pub fn list(&self) -> Vec<Ctid> {
        let Ok(entries) = fs::read_dir(&self.base) else { return Vec::new() };
        entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
    }
}

/// Where whole cgroup2 trees are mounted. cgroups-rs lists version 1 mounts only.
fn mounts() -> Vec<PathBuf> {
    let all = proc::mountinfo().unwrap_or_default();
    let whole = |m: &proc::Mount| m.fs_type == "cgroup2" && m.root == Path::new("/");
    all.into_iter().filter(whole).map(|m| m.mount_point).collect()
}

/// cgroup2's magic number (statfs(2)): a path on a tmpfs would take our writes as ordinary files.
fn is_cgroup2(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|s| s.f_type as u64 == 0x6367_7270)
}

fn make(path: &Path) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::Io { path: path.into(), what: "making it", source: e })
        }
        _ => Ok(()),
    }
}

fn write(dir: &Path, file: &'static str, text: &str) -> Result<(), Error> {
    fs::write(dir.join(file), text).map_err(io_error(dir, file))
}

fn wait_empty(path: &Path, deadline: Duration) -> Result<(), Error> {
    let until = Instant::now() + deadline;
    let mut events = match File::open(path.join("cgroup.events")) {
        Ok(f) => f,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::Io { path: path.into(), what: "watching it", source: e }),
    };
    loop {
        let mut text = String::new();
        events.rewind().and_then(|()| events.read_to_string(&mut text)).map_err(io_error(path, "watching it"))?;
        if text.contains("populated 0") {
            return Ok(());
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Populated { path: path.into(), seconds: deadline.as_secs() });
        }
        // The kernel raises POLLPRI on every change of cgroup.events.
        let timeout =
            rustix::event::Timespec::try_from(left).unwrap_or(rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 });
        let _ = poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&timeout));
    }
}

/// Depth first; a cgroup directory takes no files, so only directories count.
fn remove_tree(path: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::Io { path: path.into(), what: "listing it", source: e }),
    };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        remove_tree(&entry.path())?;
    }
    match fs::remove_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { path: path.into(), what: "removing it", source: e })
        }
        _ => Ok(()),
    }
}

fn count_threads(path: &Path) -> io::Result<u64> {
    let here = match fs::read(path.join("cgroup.threads")) {
        Ok(text) => text.iter().filter(|b| **b == b'\n').count() as u64,
        // A threaded domain's root refuses; its processes are counted below it.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => 0,
        Err(e) => return Err(e),
    };
    let below = fs::read_dir(path)?.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    // A cgroup that goes away while we count holds nothing.
    Ok(below.fold(here, |n, e| n + count_threads(&e.path()).unwrap_or(0)))
}
