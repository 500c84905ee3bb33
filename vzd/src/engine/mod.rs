//! The engine: decides what may happen, journals it, and carries it out in the table's steps
//! ([`steps::STEPS`]). May be imported by the API; imports the rooms (inventory, conf, storage, network,
//! template, monitor, cgroup) and vz-types.
//!
//! ```text
//! request -> one lock per CT -> decide (pure) -> validate (no side effect) -> journal -> steps -> commit
//!                                                                               | failure or kill
//!                                                                               v
//!                                                        undo: the same functions recovery uses
//! ```
//! Every undo is written to run on whatever it finds, so that it serves the failed operation, the next
//! start of vzd after a kill at any point, and a second failure of itself.

mod accounts;
mod cgroup;
mod create;
mod destroy;
mod edits;
mod error;
mod limits;
mod monitor;
mod mount;
mod oom;
mod own_files;
pub mod process;
mod recover;
mod repair;
mod request;
mod run;
mod samples;
mod set;
mod start;
pub mod steps;
mod stop;
mod view;
mod wait;
mod watch;

pub use accounts::Bean;
pub use cgroup::{Cgroups, WANTED as WANTED_CONTROLLERS};
pub use edits::hash_password;
pub use error::{Error, Result};
pub use monitor::{Error as MonitorError, Monitor};
pub use recover::rebuild;
pub use request::{Changes, CreateSpec, Outcome, SetMode, SetSpec, StartSpec, StopSpec};
pub use view::{Extent, View, Wants};

use crate::{
    conf::ConfStore,
    inventory::{CtRow, Inventory},
    limits::Host,
    network::Network,
    storage::{self, DiskSpec},
    template::Store,
};
use run::Live;
use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use steps::Fault;
use vz_types::{
    CtConfig, CtState, Ctid, ExitCode, ManagerConfig, Paths,
    plan::StoragePlan,
    state::{Op, Verdict, decide},
};
use watch::Watcher;

/// One manager.
#[derive(Debug)]
pub struct Engine {
    /// Where its things are.
    pub paths: Paths,
    /// What vz.toml says.
    pub config: ManagerConfig,
    /// Its OS templates.
    pub templates: Store,
    pub(crate) inventory: Inventory,
    pub(crate) conf: ConfStore,
    pub(crate) network: Network,
    boot_id: String,
    fault: Fault,
    cgroups: OnceLock<Cgroups>,
    /// What the host can enforce, and when that was looked at.
    host: Mutex<Option<(Instant, Arc<Host>)>>,
    cells: Mutex<HashMap<Ctid, Arc<Cell>>>,
    runtime: tokio::runtime::Handle,
    watcher: Watcher,
    pub(crate) accounts: accounts::Accounts,
    quitting: AtomicBool,
    under_way: AtomicUsize,
    /// Told when the last operation under way has ended.
    idle: tokio::sync::Notify,
}

/// What is in memory of one container.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    busy: Mutex<Option<Busy>>,
    freed: Condvar,
    live: Mutex<Option<Live>>,
}

#[derive(Clone, Copy, Debug)]
struct Busy {
    op: Op,
    since: Instant,
    at: SystemTime,
}

/// The right to change one container, given back when dropped.
#[derive(Debug)]
pub(crate) struct Guard<'e> {
    engine: &'e Engine,
    cell: Arc<Cell>,
}

impl Guard<'_> {
    /// Says which operation it is by now (a restart stops and then starts).
    fn becomes(&self, op: Op) {
        if let Some(busy) = lock(&self.cell.busy).as_mut() {
            busy.op = op;
        }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        *lock(&self.cell.busy) = None;
        self.cell.freed.notify_all();
        if self.engine.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.engine.idle.notify_waiters();
        }
    }
}

/// A poisoned lock holds data that every writer leaves whole.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Opens a manager: directories, inventory, rooms. Nothing of a container is touched yet.
    pub fn open(paths: Paths, config: ManagerConfig, runtime: tokio::runtime::Handle) -> Result<Arc<Self>> {
        make_dirs(&paths)?;
        let inventory = Inventory::open(&paths.inventory(), &paths.private_dir())?;
        let network = Network::new(&paths, &config.network)?;
        Ok(Arc::new(Self {
            templates: Store::new(&paths, &config),
            conf: ConfStore::new(paths.clone()),
            boot_id: process::host_boot_id(),
            fault: Fault::from_env(),
            cgroups: OnceLock::new(),
            host: Mutex::default(),
            cells: Mutex::default(),
            accounts: accounts::Accounts::default(),
            quitting: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            idle: tokio::sync::Notify::new(),
            inventory,
            network,
            runtime,
            watcher: Watcher::start().map_err(Error::io("starting the thread that watches", "monitors"))?,
            paths,
            config,
        }))
    }

    /// Whether vzd is on its way out.
    pub(crate) fn is_quitting(&self) -> bool {
        self.quitting.load(Ordering::Acquire)
    }

    /// Waits for an event with a higher number than `after`, at most so long.
    pub(crate) fn wait_event(&self, after: i64, most: Duration) {
        let (last, bell) = &self.accounts.events;
        drop(bell.wait_timeout_while(lock(last), most, |id| *id <= after));
    }

    /// No new operation from now on.
    pub fn quit(&self) {
        self.quitting.store(true, Ordering::Release);
    }

    /// Waits until no operation is under way.
    pub async fn idle(&self) {
        loop {
            // Made before the look: an end between the two is not missed.
            let told = self.idle.notified();
            if self.under_way.load(Ordering::Acquire) == 0 {
                return;
            }
            told.await;
        }
    }

    /// Our cgroup tree; looked for until it is found.
    pub(crate) fn cgroups(&self) -> Result<&Cgroups> {
        if let Some(found) = self.cgroups.get() {
            return Ok(found);
        }
        let found = Cgroups::find(&self.paths, self.config.cgroup_root.as_deref())?;
        Ok(self.cgroups.get_or_init(|| found))
    }

    pub(crate) fn monitor(&self) -> Result<Monitor> {
        Ok(Monitor::find(self.config.vzmon.as_deref())?)
    }

    pub(crate) fn cell(&self, ctid: Ctid) -> Arc<Cell> {
        lock(&self.cells).entry(ctid).or_default().clone()
    }

    /// Takes the container for `op`, or says who has it.
    pub(crate) fn take(&self, ctid: Ctid, op: Op) -> Result<Guard<'_>> {
        let cell = self.cell(ctid);
        let mut busy = lock(&cell.busy);
        if let Some(b) = *busy {
            let at = b.at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            return Err(Error::Busy { ctid, op: b.op, seconds: b.since.elapsed().as_secs(), since: utc(at) });
        }
        self.may_begin()?;
        *busy = Some(Busy { op, since: Instant::now(), at: SystemTime::now() });
        drop(busy);
        self.under_way.fetch_add(1, Ordering::AcqRel);
        let guard = Guard { engine: self, cell };
        self.finish_abandoned(ctid)?;
        Ok(guard)
    }

    /// Takes the container for `op` as soon as it is free; `None` at the deadline or when vzd is quitting.
    pub(crate) fn take_waiting(&self, ctid: Ctid, op: Op, deadline: Duration) -> Option<Guard<'_>> {
        let cell = self.cell(ctid);
        let busy = lock(&cell.busy);
        let (mut busy, waited) =
            cell.freed.wait_timeout_while(busy, deadline, |b| b.is_some()).unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() || self.quitting.load(Ordering::Acquire) {
            return None;
        }
        *busy = Some(Busy { op, since: Instant::now(), at: SystemTime::now() });
        drop(busy);
        self.under_way.fetch_add(1, Ordering::AcqRel);
        Some(Guard { engine: self, cell })
    }

    fn may_begin(&self) -> Result<()> {
        if self.quitting.load(Ordering::Acquire) {
            return Err(Error::refused(
                ExitCode::System,
                "vzd is stopping and begins nothing new",
                "try again when it runs",
            ));
        }
        Ok(())
    }

    /// The container's row, or the refusal that there is none.
    pub(crate) fn row(&self, ctid: Ctid) -> Result<CtRow> {
        match self.inventory.container(ctid)? {
            Some(row) => Ok(row),
            None => Err(self.absent(ctid)),
        }
    }

    /// Why there is no such container, in the detail the operator needs.
    pub(crate) fn absent(&self, ctid: Ctid) -> Error {
        let conf = self.paths.conf(ctid);
        if conf.exists() {
            let message = format!("CT {ctid} is not in the inventory, although {} exists", conf.display());
            return Error::refused(
                ExitCode::NoConfig,
                message,
                "`vzd recover` takes containers with a private area in again; else remove the file",
            );
        }
        let message = format!("CT {ctid}: there is no container with this CTID");
        Error::refused(ExitCode::NoConfig, message, "`vzlist -a` shows those that exist")
    }

    /// Which container a CTID or name means.
    pub fn resolve(&self, text: &str) -> Result<Ctid> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text
                .parse()
                .map_err(|e: vz_types::ctid::CtidError| Error::refused(ExitCode::BadValue, e.to_string(), ""));
        }
        let name: vz_types::CtName = text
            .parse()
            .map_err(|e: vz_types::names::NameError| Error::refused(ExitCode::BadValue, e.to_string(), ""))?;
        // The file wins over the claim: it may have been edited by hand.
        for row in self.inventory.containers()? {
            let now = self.conf.read(row.ctid).map_or(row.name.clone(), |c| c.name.clone());
            if now.as_ref() == Some(&name) {
                return Ok(row.ctid);
            }
        }
        let message = format!("there is no container named `{name}`");
        Err(Error::refused(ExitCode::NoConfig, message, "`vzlist -a -o ctid,name` shows the names"))
    }

    /// Where the container is, apart from the operation that is asking.
    pub(crate) fn settled_state(&self, row: &CtRow) -> CtState {
        match lock(&self.cell(row.ctid).live).as_ref() {
            Some(live) if live.ended() => CtState::Stopping,
            Some(_) => CtState::Running,
            None if self.runs_unread(row.ctid) => CtState::Running,
            None if self.is_mounted(row) => CtState::Mounted,
            None => CtState::Stopped,
        }
    }

    /// Whether it runs although its monitor's record makes no sense to us: then it is neither cleared away nor started
    /// a second time, and stopping it still works, through its monitor's socket and its cgroup.
    pub(crate) fn runs_unread(&self, ctid: Ctid) -> bool {
        run::illegible(&self.paths.ct_run(ctid)).is_some() && self.cgroups().is_ok_and(|c| c.populated(ctid))
    }

    /// Where the container is, an operation under way included.
    pub(crate) fn state(&self, row: &CtRow) -> CtState {
        match lock(&self.cell(row.ctid).busy).map(|b| b.op) {
            Some(Op::Create) => CtState::Creating,
            Some(Op::Start) => CtState::Starting,
            Some(Op::Stop | Op::Restart) => CtState::Stopping,
            Some(Op::Destroy) => CtState::Destroying,
            _ => self.settled_state(row),
        }
    }

    /// Asks the table; an ignored request answers its sentence.
    pub(crate) fn decide(&self, op: Op, row: &CtRow, disabled: bool, force: bool) -> Result<Option<&'static str>> {
        let state = self.settled_state(row);
        if state == CtState::Stopping {
            // Its end is noticed, its remains are not cleared away yet: that takes milliseconds, and the
            // watcher needs the lock the caller holds.
            stop::reap(self, row)?;
        }
        match decide(op, self.settled_state(row), disabled, force) {
            Verdict::Accept => Ok(None),
            Verdict::Ignore(sentence) => Ok(Some(sentence)),
            Verdict::Deny(code, sentence) => Err(Error::refused(code, format!("CT {}: {sentence}", row.ctid), "")),
        }
    }

    /// The storage plan of a container, with the files of the template build it was made from.
    pub(crate) fn storage_plan(&self, row: &CtRow) -> StoragePlan {
        StoragePlan {
            layout: row.layout,
            private: self.paths.private(row.ctid),
            template_root: self.templates.root_of(&row.template, &row.template_digest),
            root: self.paths.root(row.ctid),
            uid_base: row.uid_base,
        }
    }

    fn is_mounted(&self, row: &CtRow) -> bool {
        storage::is_mounted(&self.storage_plan(row)).unwrap_or(false)
    }
}

/// The writable layer a configuration asks for.
pub(crate) fn disk_spec(config: &CtConfig) -> DiskSpec {
    DiskSpec { layout: config.layout, space: config.disk.space, inodes: config.disk.inodes }
}

/// Makes the manager's directories.
pub(crate) fn make_dirs(paths: &Paths) -> Result<()> {
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

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// `2026-01-31 23:59:59 UTC` of seconds since the epoch (Howard Hinnant's civil-from-days).
pub(crate) fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_readable() {
        assert_eq!(super::utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(super::utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(super::utc(1_798_761_599), "2026-12-31 23:59:59 UTC");
    }
}
