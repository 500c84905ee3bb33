//! A host with a vzd that can be killed and started again, put back to an earlier moment, and looked at.

use crate::{
    error::Error,
    hands::fake::{Died, State, World, monitor::Phase},
    manager::{Manager, new_operation},
    ops::{Ask, Asked, Handle, Ops, Work, machine::Advance, recover},
    pool::{Pool, Pools},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use vz_types::{Ctid, ManagerConfig, Paths, TemplateName, op::Failure};

/// Every wait of a test is over by then, or the test is.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What there is to see of a host, line by line.
pub type Look = BTreeMap<String, String>;

/// What an operation came to.
#[derive(Debug)]
pub enum Came {
    Done,
    Failed(Error),
    /// vzd died of it.
    Died,
}

/// A host.
pub struct Host {
    pub paths: Paths,
    pub world: World,
    dir: tempfile::TempDir,
    /// Pids of the monitors there were at the moment it is put back to.
    before: Mutex<BTreeSet<i32>>,
}

/// A moment of a host's life.
pub struct Moment {
    files: tempfile::TempDir,
    state: State,
}

struct Threads {
    runtime: tokio::runtime::Runtime,
    pools: Pools,
}

/// One set of threads for every vzd of all tests.
fn threads() -> &'static Threads {
    static THREADS: OnceLock<Threads> = OnceLock::new();
    THREADS.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        // One thread does what is done beside: what comes last is done when everything is.
        let pools = Pools { aside: Pool::new("aside", 1, 256 << 10).unwrap(), ..Pools::new().unwrap() };
        Threads { runtime, pools }
    })
}

pub fn block_on<T>(what: &str, future: impl Future<Output = T>) -> T {
    let timed = async { tokio::time::timeout(PATIENCE, future).await };
    threads().runtime.block_on(timed).unwrap_or_else(|_| panic!("{what} takes for ever"))
}

/// In memory where there is such a directory: nothing here is to survive a power cut.
fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub fn template() -> TemplateName {
    "tiny".parse().unwrap()
}

pub fn ct(n: u32) -> Ctid {
    n.try_into().unwrap()
}

impl Host {
    /// One with an OS template and nothing else.
    pub fn new() -> Self {
        let dir = tempdir();
        let paths = Paths::new(dir.path());
        let tree = dir.path().join("tree/sbin");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join("init"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(tree.join("init"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        fs::create_dir_all(paths.recipe_dir()).unwrap();
        let recipe = format!("description = 'x'\ntree = '{}/tree'\ninit = 'any'\n", dir.path().display());
        fs::write(paths.recipe_dir().join("tiny.toml"), recipe).unwrap();
        let host = Self { world: World::new(&paths), paths, dir, before: Mutex::default() };
        let ops = host.start_vzd();
        ops.m.templates.make_empty(&template());
        host.end_vzd(ops);
        host
    }

    fn open(&self) -> Arc<Ops> {
        let seat = self.world.seat();
        let m = Manager::open(self.paths.clone(), ManagerConfig::default(), seat.hands()).unwrap();
        let writes = seat.clone();
        m.inventory.ask_for_room(move |what| writes.room(what));
        m.fault.tell(move |point| seat.point(point));
        Ops::with(m, threads().runtime.handle().clone(), threads().pools.clone())
    }

    /// Starts vzd, and waits until it has nothing left to recover.
    pub fn start_vzd(&self) -> Arc<Ops> {
        let ops = self.open();
        ops.m.lend(threads().pools.aside.clone());
        recover::take_up(&ops).unwrap();
        self.idle(&ops);
        ops
    }

    /// Starts a vzd that may die while it recovers, and kills it when it has.
    pub fn start_and_lose_vzd(&self) {
        let opened = catch_unwind(AssertUnwindSafe(|| self.open()));
        let Ok(ops) = opened else { return self.world.kill_vzd() };
        ops.m.lend(threads().pools.aside.clone());
        let _ = catch_unwind(AssertUnwindSafe(|| recover::take_up(&ops)));
        self.idle(&ops);
        self.kill_vzd(ops);
    }

    /// The same, for operations that are carried out by [`Host::carry_out`]: it notices no ends by itself, and does
    /// everything one after the other.
    pub fn start_quiet_vzd(&self) -> Arc<Ops> {
        let ops = self.open();
        ops.m.watcher.on_end(|_| ());
        recover::take_up(&ops).unwrap();
        self.idle(&ops);
        ops
    }

    /// Waits until nothing is under way.
    pub fn idle(&self, ops: &Arc<Ops>) {
        while let Some(handle) = ops.all_live().first() {
            block_on(handle.kind.word(), handle.ended());
            std::thread::yield_now();
        }
        block_on("what is done beside", threads().pools.aside.run(|| ())).unwrap();
    }

    /// vzd is killed.
    pub fn kill_vzd(&self, ops: Arc<Ops>) {
        self.world.kill_vzd();
        self.end_vzd(ops);
    }

    /// Nothing of a vzd is left: its inventory is closed.
    fn end_vzd(&self, ops: Arc<Ops>) {
        let manager = Arc::downgrade(&ops.m);
        drop(ops);
        let until = Instant::now() + PATIENCE;
        while manager.strong_count() > 0 {
            assert!(Instant::now() < until, "a vzd does not end");
            std::thread::yield_now();
        }
    }

    /// Asks, and waits until it is done.
    pub fn ask(&self, ops: &Arc<Ops>, ask: Ask) -> Result<(), Box<Failure>> {
        match ops.ask(ask).map_err(|e| Box::new(e.failure()))? {
            Asked::AlreadySo(_) => Ok(()),
            Asked::Operation(handle) => {
                block_on(handle.kind.word(), handle.ended()).failure.map_or(Ok(()), |f| Err(Box::new(f)))
            }
        }
    }

    /// Carries an operation out on this thread, without a queue before it.
    pub fn carry_out(&self, ops: &Arc<Ops>, ask: Ask) -> Came {
        let handle = Handle::new(new_operation().unwrap(), ask.request.kind, ask.subject, "test".into(), false);
        let work = Work::new(ops.m.clone(), handle);
        let until = Instant::now() + PATIENCE;
        let carried_out = catch_unwind(AssertUnwindSafe(|| {
            let mut machine = (ask.make)(&work)?;
            loop {
                match machine.advance(&work) {
                    Advance::Ended(result) => return result,
                    Advance::Parked(_) => assert!(Instant::now() < until, "it waits for ever"),
                }
            }
        }));
        match carried_out {
            Ok(Ok(())) => Came::Done,
            Ok(Err(e)) => Came::Failed(e),
            Err(panic) if panic.is::<Died>() => Came::Died,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Keeps this moment. Ends vzd for it.
    pub fn keep(&self, ops: Arc<Ops>) -> Moment {
        self.end_vzd(ops);
        let files = tempdir();
        copy(self.dir.path(), files.path());
        let state = self.world.state().clone();
        *self.before() = state.monitors.keys().copied().collect();
        Moment { files, state }
    }

    /// Goes back to a moment.
    pub fn put_back(&self, moment: &Moment) {
        for entry in fs::read_dir(self.dir.path()).unwrap().flatten() {
            fs::remove_dir_all(entry.path()).unwrap();
        }
        copy(moment.files.path(), self.dir.path());
        self.world.restore(&moment.state);
    }

    fn before(&self) -> std::sync::MutexGuard<'_, BTreeSet<i32>> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to see.
    pub fn look(&self, ops: &Ops) -> Look {
        let mut look = Look::new();
        self.files(self.dir.path(), &mut look);
        self.machine(&mut look);
        for row in ops.m.inventory.containers().unwrap() {
            let addresses = ops.m.inventory.addresses(row.ctid).unwrap();
            look.insert(format!("claims {}", row.ctid), format!("{:?} {addresses:?}", row.name));
        }
        for (ctid, state, trouble) in ops.m.inventory.states().unwrap() {
            look.insert(format!("state {ctid}"), format!("{state:?} {trouble:?}"));
        }
        for (ctid, cell) in ops.m.cells() {
            // Whoever only looks at a number makes a cell of it.
            if cell.state().0 != vz_types::CtState::Absent {
                look.insert(format!("in memory {ctid}"), format!("{:?}", cell.state()));
            }
        }
        for row in ops.m.inventory.open_operations().unwrap().into_iter().flatten() {
            look.insert(format!("open {}", row.kind), format!("{} {} {:?}", row.subject, row.step, row.state));
        }
        look
    }

    fn machine(&self, look: &mut Look) {
        let state = self.world.state();
        let before = self.before();
        for root in &state.mounted {
            look.insert(format!("mounted {}", self.name(root)), String::new());
        }
        for dir in &state.small {
            look.insert(format!("small filesystem {}", self.name(dir)), String::new());
        }
        for (ctid, addresses) in state.allowed.iter().filter(|(_, a)| !a.is_empty()) {
            look.insert(format!("allowed {ctid}"), format!("{addresses:?}"));
        }
        for (ctid, addresses) in &state.links {
            look.insert(format!("link {ctid}"), format!("{addresses:?}"));
        }
        for (pid, p) in state.monitors.iter().filter(|(_, p)| p.phase != Phase::Ended) {
            let which = if before.contains(pid) { "the same" } else { "another" };
            let inside = format!("{which} {:?} {:?} {:?} {:?}", p.phase, p.addresses, p.hostname, p.boot);
            look.insert(format!("monitor {}", p.ctid), inside);
        }
        for wrong in &state.wrongs {
            look.insert(format!("wrong: {wrong}"), String::new());
        }
    }

    fn name(&self, path: &Path) -> String {
        path.strip_prefix(self.dir.path()).unwrap_or(path).display().to_string()
    }

    fn files(&self, dir: &Path, look: &mut Look) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            let name = self.name(&path);
            if name.contains("inventory.db") || name.starts_with("tree") || name.starts_with("var/log/vz/") {
                continue;
            }
            // What a directory is made for is in it; one that appears when it is first needed is none of these.
            let is_dir = entry.file_type().unwrap().is_dir();
            if !matches!(name.as_str(), "var/lib/vz/template/.staging" | "cgroup" | "cgroup/vz" | "run/vz/bc") {
                look.insert(name.clone(), if is_dir { String::new() } else { content(&path, &name) });
            }
            if is_dir {
                self.files(&path, look);
            }
        }
    }
}

/// A file's text, where that does not hold times and random numbers.
fn content(path: &Path, name: &str) -> String {
    let says = !name.starts_with("run/vz/bc")
        && !name.starts_with("var/lib/vz/template")
        && !["state.json", "exit.json", "ct.json"].iter().any(|f| name.ends_with(f));
    if says { fs::read_to_string(path).unwrap_or_default() } else { String::new() }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, target): (PathBuf, PathBuf) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path).unwrap(), &target).unwrap();
        } else if kind.is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&path, &target);
            fs::set_permissions(&target, fs::metadata(&path).unwrap().permissions()).unwrap();
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}
