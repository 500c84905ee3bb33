//! One manager: everything it has, in one place, and where each of its containers is. Nothing here changes a container;
//! what does is in [`crate::ops`].
//!
//! ```text
//!                 +-- paths, config          what vz.toml says
//!                 +-- inventory, conf        what is stored
//!  Manager -------+-- templates
//!                 +-- hands                  monitors, files, links, cgroups (hands.rs)
//!                 +-- cells                  where each container is: one per container, in memory
//!                 +-- accounts, events       what containers use, and what happened to them
//! ```

use crate::{
    cell::Cell,
    conf::ConfStore,
    error::{Error, Result},
    fault::Fault,
    hands::{Hands, Tree},
    inventory::{CtRow, Inventory, NewEvent},
    ledger::Accounts,
    limits::Host,
    pool::{Aside, Pool},
    storage::{self, DiskSpec},
    template::Store,
    watch::Watcher,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use vz_types::{
    CtConfig, CtState, Ctid, ManagerConfig, OpId, Paths, Reason, Subject, UidBase,
    judge::Seen,
    plan::{MountPlan, StoragePlan},
};

/// One manager.
#[derive(Debug)]
pub struct Manager {
    /// Where its things are.
    pub paths: Paths,
    /// What vz.toml says.
    pub config: ManagerConfig,
    /// Its OS templates.
    pub templates: Store,
    /// Which containers exist.
    pub inventory: Inventory,
    /// What the operator wants of each.
    pub conf: ConfStore,
    /// The machine.
    pub hands: Hands,
    /// This boot of the host.
    pub boot_id: String,
    /// Where to die, for tests.
    pub fault: Fault,
    /// What containers use.
    pub accounts: Accounts,
    /// Who watches monitors.
    pub watcher: Watcher,
    /// The number of the newest event, told at each.
    newest: tokio::sync::watch::Sender<i64>,
    tree: OnceLock<Box<dyn Tree>>,
    /// What the host can enforce, and when that was looked at.
    pub(crate) host: Mutex<Option<(Instant, Arc<Host>)>>,
    cells: Mutex<HashMap<Ctid, Arc<Cell>>>,
    quitting: AtomicBool,
    /// Threads for what an operation does beside its steps; without them it is done in its place.
    aside: OnceLock<Pool>,
}

/// A poisoned lock holds data that every writer leaves whole.
pub fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Manager {
    /// Opens a manager: directories, inventory, rooms. Nothing of a container is touched yet.
    ///
    /// # Errors
    /// A directory that cannot be made; an inventory that cannot be opened.
    pub fn open(paths: Paths, config: ManagerConfig, hands: Hands) -> Result<Arc<Self>> {
        make_dirs(&paths)?;
        let inventory = Inventory::open(&paths.inventory(), &paths.private_dir())?;
        let newest = inventory.last_event()?;
        let cells = inventory
            .states()?
            .into_iter()
            .map(|(ctid, state, trouble)| (ctid, Arc::new(Cell::new(state, trouble))))
            .collect();
        Ok(Arc::new(Self {
            templates: Store::new(&paths, &config),
            conf: ConfStore::new(paths.clone()),
            boot_id: boot_id()?,
            fault: Fault::from_env(),
            accounts: Accounts::default(),
            watcher: Watcher::start().map_err(Error::io("starting the thread that watches", "monitors"))?,
            newest: tokio::sync::watch::Sender::new(newest),
            tree: OnceLock::new(),
            host: Mutex::default(),
            cells: Mutex::new(cells),
            quitting: AtomicBool::new(false),
            aside: OnceLock::new(),
            inventory,
            hands,
            paths,
            config,
        }))
    }

    /// From now on there are threads for what is done beside something else.
    pub fn lend(&self, pool: Pool) {
        let _ = self.aside.set(pool);
    }

    /// Does something beside what its caller does, who fetches it later.
    pub fn aside<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Aside<T> {
        Aside::begin(self.aside.get(), job)
    }

    /// Whether vzd is on its way out.
    pub fn is_quitting(&self) -> bool {
        self.quitting.load(Ordering::Acquire)
    }

    /// No new operation from now on.
    pub fn quit(&self) {
        self.quitting.store(true, Ordering::Release);
    }

    /// Refuses when vzd is on its way out.
    pub fn may_begin(&self, subject: &Subject) -> Result<()> {
        match self.is_quitting() {
            true => Err(Error::Denied { reason: Reason::Quitting, subject: subject.clone() }),
            false => Ok(()),
        }
    }

    /// Our cgroup tree; looked for until it is found.
    pub fn tree(&self) -> Result<&dyn Tree> {
        if let Some(found) = self.tree.get() {
            return Ok(&**found);
        }
        let found = (self.hands.tree)()?;
        Ok(&**self.tree.get_or_init(|| found))
    }

    /// What is in memory of a container; made where there is nothing yet.
    pub fn cell(&self, ctid: Ctid) -> Arc<Cell> {
        lock(&self.cells).entry(ctid).or_insert_with(|| Arc::new(Cell::new(CtState::Absent, None))).clone()
    }

    /// The same, if there is anything yet.
    pub fn known(&self, ctid: Ctid) -> Option<Arc<Cell>> {
        lock(&self.cells).get(&ctid).cloned()
    }

    /// Every container there is anything of in memory, in CTID order.
    pub fn cells(&self) -> Vec<(Ctid, Arc<Cell>)> {
        let mut all: Vec<_> = lock(&self.cells).iter().map(|(ctid, cell)| (*ctid, cell.clone())).collect();
        all.sort_unstable_by_key(|(ctid, _)| *ctid);
        all
    }

    /// Nothing is left of a container.
    pub fn forget(&self, ctid: Ctid) {
        lock(&self.cells).remove(&ctid);
        self.accounts.forget(ctid);
    }

    /// The container's row, or the refusal that there is none.
    pub fn row(&self, ctid: Ctid) -> Result<CtRow> {
        match self.inventory.container(ctid)? {
            Some(row) => Ok(row),
            None => Err(self.absent(ctid)),
        }
    }

    /// Why there is no such operation.
    pub fn no_operation(&self, id: OpId) -> Error {
        let reason = Reason::NoOperation { operation: id.to_string(), days: self.config.history.days };
        Error::Denied { reason, subject: Subject::Host }
    }

    /// Why there is no such container, in the detail the operator needs.
    pub fn absent(&self, ctid: Ctid) -> Error {
        let conf = self.paths.conf(ctid);
        let reason = match conf.exists() {
            true => Reason::AbsentWithConfig { file: conf.display().to_string() },
            false => Reason::Absent,
        };
        Error::denied(reason, ctid)
    }

    /// The container as the rules see it. What an operator did by hand to its mounts counts; what an operation is doing
    /// is that operation's.
    pub fn seen(&self, ctid: Ctid) -> Result<Seen> {
        // Of a number that nobody has, nothing is remembered.
        let Some(cell) = self.known(ctid) else {
            return Ok(Seen { state: CtState::Absent, trouble: None, disabled: false });
        };
        let (state, trouble) = cell.state();
        let disabled = || self.conf.read(ctid).is_ok_and(|c| c.disabled);
        let state = match state {
            CtState::Running if cell.live().is_some_and(|l| l.ended()) => CtState::Stopping,
            CtState::Stopped | CtState::Mounted => match self.inventory.container(ctid)? {
                Some(row) => self.mounted_or_stopped(&row),
                None => CtState::Absent,
            },
            state => state,
        };
        Ok(Seen { state, trouble, disabled: state != CtState::Absent && disabled() })
    }

    /// Whether the files of a container that does not run are mounted. Where that cannot be told it is as it was.
    pub fn mounted_or_stopped(&self, row: &CtRow) -> CtState {
        match (self.hands.storage.is_mounted(&self.storage_plan(row)), self.cell(row.ctid).state().0) {
            (Ok(true), _) | (Err(_), CtState::Mounted) => CtState::Mounted,
            _ => CtState::Stopped,
        }
    }

    /// The same for those who do something on the strength of it.
    ///
    /// # Errors
    /// It cannot be told.
    pub fn is_mounted(&self, row: &CtRow) -> Result<bool> {
        let plan = self.storage_plan(row);
        self.hands.storage.is_mounted(&plan).map_err(Error::io("looking at", plan.root))
    }

    /// Whether its monitor lives.
    pub fn is_running(&self, ctid: Ctid) -> bool {
        self.cell(ctid).live().is_some_and(|l| !l.ended())
    }

    /// The storage plan of a container, with the files of the template build it was made from.
    pub fn storage_plan(&self, row: &CtRow) -> StoragePlan {
        StoragePlan {
            layout: row.layout,
            private: self.paths.private(row.ctid),
            template_root: self.templates.root_of(&row.template, &row.template_digest),
            root: self.paths.root(row.ctid),
            uid_base: row.uid_base,
        }
    }

    /// Where they are and the ids they are shown with.
    pub fn mount_plan(&self, row: &CtRow) -> MountPlan {
        MountPlan { storage: self.storage_plan(row), more: row.uid_more.clone() }
    }

    /// Uid ranges of containers that run and are not in the inventory: nobody else may have them.
    pub fn strangers_uids(&self) -> Vec<UidBase> {
        self.cells().iter().flat_map(|(_, cell)| cell.strangers_uids()).collect()
    }

    /// Keeps an event and tells those who follow. One that cannot be kept is in the log alone.
    pub fn event(&self, e: &NewEvent<'_>) {
        match self.inventory.add_event(e) {
            Ok(id) => self.ring(id),
            Err(error) => tracing::warn!(ctid = e.ctid.get(), event = e.kind, "{}: {error}", e.text),
        }
    }

    /// Keeps an event for every container that was restarted from inside since the last time.
    pub fn tell_reboots(&self) {
        for (ctid, cell) in self.cells() {
            if let Some(live) = cell.live_now(&self.paths.ct_run(ctid)) {
                self.tell_reboots_of(ctid, live.record.boots);
            }
        }
    }

    /// Keeps an event if this is more boots of its run than were told of: one for all that were missed. What was told is
    /// in the inventory, so that a vzd that was away tells what happened meanwhile, and no other tells it again.
    pub fn tell_reboots_of(&self, ctid: Ctid, boots: u32) {
        let cell = self.cell(ctid);
        let Some(told) = cell.boots().filter(|told| *told < boots) else { return };
        let text = format!("rebooted from inside, boot {boots} since its start");
        let written = self.inventory.change("keeping an event", false, |c| {
            c.boots(ctid, boots)?;
            let (at, kind, count) = (now(), "rebooted", u64::from(boots - told));
            c.event(&NewEvent { ctid, at, kind, counter: None, count, text: &text, by: None })
        });
        match written {
            Ok(id) => {
                cell.set_boots(boots);
                self.ring(id);
            }
            Err(e) => tracing::warn!(ctid = ctid.get(), "{text}: {e}"),
        }
    }

    /// Of how many boots of a run an earlier vzd has told. One of a version that did not keep it has told of all it saw.
    pub fn remember_boots(&self, ctid: Ctid, boots: u32) {
        let told = match self.inventory.boots(ctid) {
            Ok(Some(told)) => told.min(boots),
            Ok(None) | Err(_) => boots,
        };
        self.cell(ctid).set_boots(told);
    }

    /// Writes what could not be written when it happened, and tells those who follow of its events.
    pub fn catch_up(&self) {
        let done = self.inventory.pay().and_then(|()| self.inventory.last_event());
        match done {
            Ok(newest) if newest > *self.newest.borrow() => self.ring(newest),
            Ok(_) => {}
            Err(e) => tracing::debug!("{e}"),
        }
    }

    /// Tells those who follow that there is an event of this number.
    pub fn ring(&self, id: i64) {
        self.newest.send_modify(|newest| *newest = (*newest).max(id));
    }

    /// The number of the newest event, from now on.
    pub fn newest_event(&self) -> tokio::sync::watch::Receiver<i64> {
        self.newest.subscribe()
    }
}

/// A fresh number for an operation.
///
/// # Errors
/// The kernel gives no random bytes.
pub fn new_operation() -> Result<OpId> {
    let mut random = [0u8; 10];
    getrandom::fill(&mut random).map_err(|e| Error::io("getting random bytes from", "the kernel")(e.into()))?;
    static LAST: Mutex<Option<OpId>> = Mutex::new(None);
    let mut last = lock(&LAST);
    let id = OpId::new(now_ms(), random);
    let id = last.map_or(id, |last| id.behind(last));
    *last = Some(id);
    Ok(id)
}

/// The writable layer a configuration asks for.
pub fn disk_spec(config: &CtConfig) -> DiskSpec {
    DiskSpec { layout: config.layout, space: config.disk.space, inodes: config.disk.inodes }
}

/// Makes the manager's directories.
///
/// # Errors
/// One that cannot be made or closed to others.
pub fn make_dirs(paths: &Paths) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    storage::prepare(paths)?;
    let open = [paths.conf_dir(), paths.recipe_dir(), paths.template_dir(), paths.run(), paths.log_dir()];
    let closed = [paths.ct_run_dir()];
    for (dirs, mode) in [(&open[..], 0o755), (&closed[..], 0o700)] {
        for dir in dirs {
            std::fs::DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(Error::io("making", dir))?;
        }
    }
    for dir in &closed {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(Error::io("closing", dir))?;
    }
    Ok(())
}

/// This boot of the host (random(4)).
///
/// # Errors
/// It cannot be read: without it, no record could be told from one of another boot.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    vz_sys::proc::boot_id().map_err(Error::io("reading", path))
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
