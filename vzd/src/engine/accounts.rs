//! The accounts of running containers: what each holds, has held at most and was refused, folded from the kernel's
//! figures into what is kept over runs; and the events behind them.
//!
//! ```text
//!  every 5 s:  processor time of the cgroup as at the last look?  yes: nothing was done inside, nothing is read
//!                                                                  no, when asked, and once a minute in any case:
//!              cgroup files -> fold -> noted down -> inventory, one commit for all containers of a round
//!                                  \-> events (OOM kill, fork failure, ...) -> inventory, log
//!  before a cgroup is removed: once more
//! ```
//! The kernel counts from zero in each new cgroup, so a fail count is remembered together with what the kernel said
//! when it was last looked at: only the difference is added, whoever was killed in between.
//!
//! Whoever changes an account notes down what (`Account::dirty`, `Account::unwritten`), lets go of it, and calls
//! [`Engine::commit_accounts`], which alone writes, in order, what the accounts hold at that moment.

mod notice;
mod rounds;

pub(crate) use rounds::Round;

use super::{Engine, Result, lock, now, oom, run::Live};
use crate::{
    inventory::{CounterRow, CtRow, Minute},
    limits::{
        Files, apply,
        host::Host,
        processes::{self, Locks, Sample},
        read::{self, Raw},
        sockets,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fs,
    os::unix::fs::MetadataExt,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use vz_types::{
    CtConfig, Ctid,
    limits::{
        Class, Ub, kernel,
        table::{COUNTERS, Held},
        text::Figures,
    },
};

/// Between two looks at every process of a container, and at one in which nothing was done.
const SAMPLE: Duration = Duration::from_secs(60);
/// How far back pressure is remembered, in seconds.
const HOUR: u64 = 3600;

/// One counter, to be shown.
#[derive(Clone, Debug)]
pub struct Bean {
    /// Which.
    pub ub: Ub,
    /// Its figures; held is 0 where nobody can tell.
    pub figures: Figures,
    /// Whether held is known at all.
    pub known: bool,
    /// See [`Class`].
    pub class: Class,
    /// Why it is unenforced, or what its class does not say.
    pub reason: Option<String>,
}

/// What is remembered of one container in memory.
#[derive(Debug, Default)]
pub(crate) struct Account {
    rows: [CounterRow; COUNTERS.len()],
    /// Counters whose row is not in the inventory yet, one bit each.
    dirty: u32,
    loaded: bool,
    sample: Option<Sampled>,
    last: Last,
    limits: Option<LimitsNow>,
    /// Its part of `user_beancounters`.
    text: Box<str>,
    /// Kernel totals at the last tick, for events.
    seen: Option<Totals>,
    /// Totals of pressure and throttled time of the last hour, one a minute, as in the inventory.
    minutes: VecDeque<Minute>,
    /// Those that are not in the inventory yet.
    unwritten: Vec<Minute>,
    disk_full: bool,
}

/// A look at the processes.
#[derive(Clone, Copy, Debug)]
struct Sampled {
    at: Instant,
    /// Processor time when it was taken.
    usage: Option<u64>,
    sample: Sample,
}

/// The last look at the cgroup.
#[derive(Clone, Debug, Default)]
struct Last {
    at: Option<Instant>,
    usage: Option<u64>,
    raws: Vec<Raw>,
    /// Counters of which the kernel held something else than what was asked for, and what.
    wrong: Vec<(&'static str, String)>,
}

/// What limits it while it runs, with what that was made from.
#[derive(Debug)]
struct LimitsNow {
    note: Option<Stamp>,
    config: Arc<CtConfig>,
    set: Arc<CtConfig>,
}

/// Tells one version of a file from the next.
type Stamp = (u64, i64, i64);

/// Totals that become events when they rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    oom_kill: u64,
    forks: u64,
    swap: u64,
    high: u64,
    throttled_us: u64,
    sockets: [u64; 2],
}

/// The accounts of one manager.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    all: Mutex<HashMap<Ctid, Arc<Mutex<Account>>>>,
    /// Who has something that is not in the inventory yet.
    noted: Mutex<BTreeSet<Ctid>>,
    /// Held while accounts are read to be written: what is written later is never older.
    writing: Mutex<()>,
    /// Guarantees of containers whose cgroup is there, those that have any, once they were read.
    pub(super) promises: Mutex<Option<BTreeMap<Ctid, [u64; 2]>>>,
    kernel_log: Mutex<oom::KernelLog>,
    bell: (Mutex<bool>, Condvar),
    /// Something was refused and is not durable yet.
    unsynced: AtomicBool,
    /// Rung at every new event, for those who follow.
    pub(crate) events: (Mutex<i64>, Condvar),
}

impl Accounts {
    fn of(&self, ctid: Ctid) -> Arc<Mutex<Account>> {
        lock(&self.all).entry(ctid).or_default().clone()
    }

    fn known(&self, ctid: Ctid) -> Option<Arc<Mutex<Account>>> {
        lock(&self.all).get(&ctid).cloned()
    }

    /// Forgets what is in memory of a container that is gone.
    pub(crate) fn forget(&self, ctid: Ctid) {
        lock(&self.all).remove(&ctid);
    }
}

/// The kernel's figures of this moment.
struct Look {
    raws: Vec<Raw>,
    totals: Totals,
}

impl Engine {
    /// What a container's part of the host's file was at the last look.
    pub(crate) fn account_text<T>(&self, ctid: Ctid, read: impl FnOnce(&str) -> T) -> T {
        read(&lock(&self.accounts.of(ctid)).text)
    }

    /// The counters of a container, running or not; a running one is looked at now. `sample`: at its processes too,
    /// when that is due.
    pub(crate) fn beans(&self, row: &CtRow, config: Option<&CtConfig>, sample: bool) -> Vec<Bean> {
        let Some(config) = config else { return Vec::new() };
        let live = lock(&self.cell(row.ctid).live).clone().filter(|l| !l.ended());
        let set = live.as_ref().and_then(|_| self.live_limits(row.ctid)).map(|set| set.in_config(config));
        let files = live.as_ref().map(|l| self.files(&l.record.cgroup));
        let at = live.as_ref().zip(files.as_ref());
        let beans = self.beans_at(&Round::asked(true), row.ctid, at, set.as_ref().unwrap_or(config), sample);
        self.commit_accounts();
        beans
    }

    /// The same for one of several that are looked at together, with the limits it has now; the caller commits.
    pub(crate) fn beans_at(
        &self,
        round: &Round,
        ctid: Ctid,
        live: Option<(&Live, &Files<'_>)>,
        set: &CtConfig,
        sample: bool,
    ) -> Vec<Bean> {
        let host = round.host.get_or_init(|| self.host_limits().ok());
        let account = self.accounts.of(ctid);
        let mut account = lock(&account);
        self.load(ctid, &mut account);
        let (raws, wrong) = match live {
            None => (vec![Raw { held: Some(0), ..Raw::default() }; COUNTERS.len()], Vec::new()),
            Some((live, files)) => self.figures(round, ctid, &mut account, (live, files), set, sample),
        };
        self.fold(ctid, &mut account, &raws);
        COUNTERS
            .iter()
            .zip(&raws)
            .zip(&account.rows)
            .map(|((c, raw), kept)| {
                let pair = set.limits.get(c.ub);
                let (class, reason) = class_of(c.ub, set, host.as_deref(), &wrong, live.map(|(_, files)| files));
                let held = raw.held.unwrap_or(0);
                Bean {
                    ub: c.ub,
                    figures: Figures {
                        held,
                        maxheld: kept.maxheld.max(held),
                        barrier: pair.barrier.classic(),
                        limit: pair.limit.classic(),
                        failcnt: kept.failcnt,
                    },
                    known: raw.held.is_some(),
                    class,
                    reason,
                }
            })
            .collect()
    }

    /// A running container's figures, and what the kernel holds instead of what was asked for: looked at now, or as they
    /// were when nothing was done inside since.
    fn figures(
        &self,
        round: &Round,
        ctid: Ctid,
        account: &mut Account,
        (live, files): (&Live, &Files<'_>),
        set: &CtConfig,
        sample: bool,
    ) -> (Vec<Raw>, Vec<(&'static str, String)>) {
        let usage = files.usage();
        // A round that takes the trouble looks at everything.
        if !sample && account.last.is_still(usage) && account.last.is_fresh() {
            let mut raws = account.last.raws.clone();
            if let Some(figures) = round.sockets.then(|| sockets::figures(files.path())).flatten() {
                read::put_sockets(&mut raws, figures);
                if let Some(seen) = account.seen {
                    let sockets = [figures[0].fails, figures[1].fails];
                    self.notice(ctid, account, files, &Totals { sockets, ..seen });
                }
            }
            return (raws, account.last.wrong.clone());
        }
        if due(account.sample.as_ref(), usage, || sample && round.take()) {
            let locks = round.locks.get_or_init(Locks::read);
            let sample = processes::sample(files.path(), live.record.init.pid, locks);
            account.sample = Some(Sampled { at: Instant::now(), usage, sample });
        }
        let mut look = self.look(files, account.sample.map(|s| s.sample));
        let numproc = &mut look.raws[Ub::Numproc as usize].held;
        // Without the controller they are counted.
        *numproc = numproc.or_else(|| self.count_now(ctid, files));
        self.notice(ctid, account, files, &look.totals);
        let host = round.host.get_or_init(|| self.host_limits().ok());
        let wrong = wrong(host.as_deref(), set, files);
        account.last = Last { at: Some(Instant::now()), usage, raws: look.raws.clone(), wrong: wrong.clone() };
        (look.raws, wrong)
    }

    /// The files of a container's cgroup.
    pub(crate) fn files(&self, cgroup: &std::path::Path) -> Files<'_> {
        match self.cgroups() {
            Ok(cgroups) => Files::with(cgroup, cgroups.controllers()),
            Err(_) => Files::open(cgroup),
        }
    }

    /// Processes and threads inside.
    pub(crate) fn count(&self, ctid: Ctid, files: &Files<'_>) -> Option<u64> {
        let known = self.accounts.known(ctid).and_then(|account| {
            let account = lock(&account);
            let still = account.last.is_still(files.usage());
            still.then(|| account.last.raws.get(Ub::Numproc as usize)?.held).flatten()
        });
        known.or_else(|| self.count_now(ctid, files))
    }

    fn count_now(&self, ctid: Ctid, files: &Files<'_>) -> Option<u64> {
        files.number("pids.current").or_else(|| read::threads(files)).or_else(|| self.cgroups().ok()?.count(ctid))
    }

    fn limits_stamp(&self, ctid: Ctid) -> Option<Stamp> {
        let m = fs::metadata(self.paths.ct_run(ctid).join(super::limits::NOTE)).ok()?;
        Some((m.ino(), m.mtime(), m.mtime_nsec()))
    }

    /// The limits a running container has now: its configuration's, with what was changed without saving.
    pub(crate) fn limits_now(&self, ctid: Ctid, config: &Arc<CtConfig>) -> Arc<CtConfig> {
        let note = self.limits_stamp(ctid);
        let account = self.accounts.of(ctid);
        let mut account = lock(&account);
        match &account.limits {
            Some(l) if l.note == note && Arc::ptr_eq(&l.config, config) => l.set.clone(),
            _ => {
                let live = note.and_then(|_| self.live_limits(ctid)).map(|set| Arc::new(set.in_config(config)));
                // Most have what their configuration says, and then it is kept once.
                let set = live.filter(|set| **set != **config).unwrap_or_else(|| config.clone());
                account.limits = Some(LimitsNow { note, config: config.clone(), set: set.clone() });
                account.last = Last::default();
                set
            }
        }
    }

    fn look(&self, files: &Files<'_>, sample: Option<Sample>) -> Look {
        let sockets = sockets::figures(files.path());
        let raws = read::all(files, sample.as_ref(), sockets);
        let keyed = |file: &'static str, key: &str| files.keyed(file, key).unwrap_or(0);
        let totals = Totals {
            oom_kill: keyed("memory.events", "oom_kill"),
            forks: raws[Ub::Numproc as usize].fails,
            swap: raws[Ub::Swappages as usize].fails,
            high: keyed("memory.events", "high"),
            throttled_us: read::throttled(files),
            sockets: sockets.map_or([0; 2], |s| [s[0].fails, s[1].fails]),
        };
        Look { raws, totals }
    }

    fn load(&self, ctid: Ctid, account: &mut Account) {
        if !account.loaded {
            match self.inventory.counters(ctid) {
                Ok(rows) => {
                    rows.into_iter().for_each(|(ub, row)| account.rows[ub as usize] = row);
                    account.loaded = true;
                }
                Err(e) => tracing::warn!(ctid = ctid.get(), "{e}"),
            }
            match self.inventory.minutes(ctid, now().saturating_sub(HOUR)) {
                Ok(minutes) => account.minutes = minutes.into(),
                Err(e) => tracing::warn!(ctid = ctid.get(), "{e}"),
            }
        }
    }

    /// Writes down what has changed in any account, in one commit.
    pub(crate) fn commit_accounts(&self) {
        let _order = lock(&self.accounts.writing);
        let noted = std::mem::take(&mut *lock(&self.accounts.noted));
        let (mut counters, mut minutes) = (Vec::new(), Vec::new());
        for ctid in noted {
            // One that was destroyed meanwhile has nothing to be remembered.
            let Some(account) = self.accounts.known(ctid) else { continue };
            let mut account = lock(&account);
            let dirty = std::mem::take(&mut account.dirty);
            let changed = COUNTERS.iter().filter(|c| dirty >> c.ub as u32 & 1 == 1);
            counters.extend(changed.map(|c| (ctid, c.ub, account.rows[c.ub as usize])));
            minutes.extend(account.unwritten.drain(..).map(|m| (ctid, m)));
        }
        if let Err(e) = self.inventory.keep(&counters, &minutes, now().saturating_sub(HOUR)) {
            tracing::warn!("{e}");
        }
    }

    /// Adds the kernel's figures to what is remembered.
    fn fold(&self, ctid: Ctid, account: &mut Account, raws: &[Raw]) {
        for (c, raw) in COUNTERS.iter().zip(raws) {
            let row = account.rows[c.ub as usize];
            let new = folded(row, raw);
            if new != row {
                if new.failcnt != row.failcnt {
                    self.accounts.unsynced.store(true, Ordering::Relaxed);
                }
                self.put(ctid, account, c.ub, new);
            }
        }
    }

    /// Changes one counter and notes that down.
    fn put(&self, ctid: Ctid, account: &mut Account, ub: Ub, row: CounterRow) {
        account.rows[ub as usize] = row;
        account.dirty |= 1 << ub as u32;
        lock(&self.accounts.noted).insert(ctid);
    }

    /// A cgroup was made anew: the kernel counts from zero.
    pub(crate) fn accounts_fresh(&self, ctid: Ctid) {
        {
            let account = self.accounts.of(ctid);
            let mut account = lock(&account);
            self.load(ctid, &mut account);
            (account.seen, account.sample, account.last) = (Some(Totals::default()), None, Last::default());
            self.note_minute(ctid, &mut account, Minute { at: now(), begins: true, totals: [0; 4] });
            for c in COUNTERS {
                let row = account.rows[c.ub as usize];
                if row.seen_fails != 0 || row.peak_base != 0 {
                    self.put(ctid, &mut account, c.ub, CounterRow { seen_fails: 0, peak_base: 0, ..row });
                }
            }
        }
        self.commit_accounts();
    }

    /// The last look before a container's cgroup goes.
    pub(crate) fn accounts_close(&self, row: &CtRow) {
        let Ok(cgroups) = self.cgroups() else { return };
        let dir = cgroups.path(row.ctid);
        self.promise_nothing(row.ctid);
        if !dir.is_dir() {
            return;
        }
        {
            let files = self.files(&dir);
            let account = self.accounts.of(row.ctid);
            let mut account = lock(&account);
            self.load(row.ctid, &mut account);
            let look = self.look(&files, None);
            self.notice(row.ctid, &mut account, &files, &look.totals);
            self.note_minute(row.ctid, &mut account, notice::minute(&files, &look.totals));
            self.fold(row.ctid, &mut account, &look.raws);
            // What only a running one needs.
            (account.sample, account.limits) = (None, None);
            (account.last, account.text) = (Last::default(), Box::default());
        }
        self.commit_accounts();
    }

    /// `--reset_ub`: maxheld becomes held, failcnt 0.
    pub(crate) fn reset_counters(&self, ctid: Ctid) -> Result<()> {
        // Nothing older is written after this.
        let _order = lock(&self.accounts.writing);
        let account = self.accounts.of(ctid);
        let mut account = lock(&account);
        self.load(ctid, &mut account);
        let live = lock(&self.cell(ctid).live).clone().filter(|l| !l.ended());
        let raws = live.map(|l| {
            let files = self.files(&l.record.cgroup);
            let mut raws = self.look(&files, account.sample.map(|s| s.sample)).raws;
            let numproc = &mut raws[Ub::Numproc as usize].held;
            *numproc = numproc.or_else(|| self.count_now(ctid, &files));
            raws
        });
        let rows: Vec<(Ub, CounterRow)> = COUNTERS
            .iter()
            .map(|c| {
                let raw = raws.as_ref().map(|r| r[c.ub as usize]).unwrap_or_default();
                let row = CounterRow {
                    maxheld: raw.held.unwrap_or(0),
                    failcnt: 0,
                    seen_fails: raw.fails,
                    peak_base: raw.peak.unwrap_or(0),
                };
                (c.ub, row)
            })
            .collect();
        self.inventory.set_counters(ctid, &rows)?;
        rows.into_iter().for_each(|(ub, row)| account.rows[ub as usize] = row);
        account.dirty = 0;
        // The next round writes the texts anew.
        account.last = Last::default();
        Ok(())
    }
}

/// What a counter comes to with these figures of the kernel's.
fn folded(row: CounterRow, raw: &Raw) -> CounterRow {
    let since = if raw.fails < row.seen_fails { raw.fails } else { raw.fails - row.seen_fails };
    let peak = raw.peak.filter(|p| *p > row.peak_base).unwrap_or(0);
    CounterRow {
        maxheld: row.maxheld.max(raw.held.unwrap_or(0)).max(peak),
        failcnt: row.failcnt.saturating_add(since),
        seen_fails: raw.fails,
        peak_base: row.peak_base,
    }
}

impl Last {
    /// Whether nothing was done inside since: nobody can have without processor time.
    fn is_still(&self, usage: Option<u64>) -> bool {
        self.at.is_some() && usage.is_some() && self.usage == usage
    }

    /// Whether it is young enough for what others can change: the host takes memory back, root on it writes limits.
    fn is_fresh(&self) -> bool {
        self.at.is_some_and(|at| at.elapsed() < SAMPLE)
    }
}

/// Whether processes are to be looked at: there was no look yet, or the last one is old, it is this one's turn, and
/// something was done since.
fn due(last: Option<&Sampled>, usage: Option<u64>, turn: impl FnOnce() -> bool) -> bool {
    match last {
        None => true,
        // Only who needs a turn takes one.
        Some(s) => s.at.elapsed() >= SAMPLE && (usage.is_none() || s.usage != usage) && turn(),
    }
}

/// Counters of which the kernel holds something else than what was asked for, and what.
fn wrong(host: Option<&Host>, config: &CtConfig, files: &Files<'_>) -> Vec<(&'static str, String)> {
    let Some(host) = host else { return Vec::new() };
    let possible = host.possible(kernel::settings(config));
    possible.iter().filter_map(|s| Some((s.name, apply::in_force(files, s).err()?))).collect()
}

/// The class of a counter of this container: what the table says, unless the host cannot, or the kernel holds
/// something else than what was asked for.
fn class_of(
    ub: Ub,
    config: &CtConfig,
    host: Option<&Host>,
    wrong: &[(&'static str, String)],
    files: Option<&Files<'_>>,
) -> (Class, Option<String>) {
    let row = ub.row();
    let Some(host) = host else { return (Class::Unenforced, Some("no cgroup2 filesystem is mounted".into())) };
    let (class, gap) = host.class(ub);
    if let Some(gap) = gap {
        return (class, Some(gap.reason));
    }
    if let Some((_, wrong)) = wrong.iter().find(|(name, _)| *name == row.name && row.controller.is_some()) {
        return (Class::Unenforced, Some(wrong.clone()));
    }
    if let Some(files) = files {
        if matches!(row.held, Held::Sockets)
            && config.limits.get(ub).limit.number().is_some()
            && class == Class::Enforced
        {
            if let Err(why) = sockets::in_force(files.path(), ub, config.limits.get(ub).limit) {
                return (Class::Unenforced, Some(why));
            }
        }
    }
    let caveat = (!row.caveat.is_empty()).then(|| row.caveat.to_owned());
    (class, caveat)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(held: u64, peak: Option<u64>, fails: u64) -> Raw {
        Raw { held: Some(held), peak, fails }
    }

    #[test]
    fn a_container_without_processor_time_since_the_last_look_is_still() {
        let last = |usage| Last { at: Some(Instant::now()), usage, ..Last::default() };
        assert!(last(Some(5)).is_still(Some(5)) && last(Some(5)).is_fresh());
        assert!(!last(Some(5)).is_still(Some(6)));
        assert!(!last(None).is_still(None), "where nobody can tell it is looked at");
        assert!(!Last::default().is_still(Some(5)) && !Last::default().is_fresh());
    }

    #[test]
    fn processes_are_looked_at_once_and_then_when_it_is_time_and_something_was_done() {
        let old = Instant::now().checked_sub(SAMPLE).unwrap();
        let sampled = |at, usage| Sampled { at, usage, sample: Sample::default() };
        assert!(due(None, Some(1), || false));
        assert!(due(Some(&sampled(old, Some(1))), Some(2), || true));
        assert!(due(Some(&sampled(old, None)), None, || true));
        assert!(!due(Some(&sampled(old, Some(1))), Some(2), || false));
        assert!(!due(Some(&sampled(old, Some(1))), Some(1), || true));
        let taken = std::cell::Cell::new(false);
        assert!(!due(Some(&sampled(Instant::now(), Some(1))), Some(2), || taken.replace(true) | true));
        assert!(!taken.get(), "no turn is taken in vain");
    }

    #[test]
    fn fail_counts_add_up_over_runs_and_are_never_counted_twice() {
        let mut row = CounterRow::default();
        for (kernel, total) in [(0, 0), (3, 3), (3, 3), (5, 5)] {
            row = folded(row, &raw(1, None, kernel));
            assert_eq!(row.failcnt, total);
        }
        // A new cgroup: the kernel begins at zero, and so does the mark.
        row.seen_fails = 0;
        row = folded(row, &raw(1, None, 2));
        assert_eq!(row.failcnt, 7);
        // A mark that was lost: what the kernel says now has happened since.
        row = folded(row, &raw(1, None, 1));
        assert_eq!(row.failcnt, 8);
    }

    #[test]
    fn a_peak_from_before_a_reset_does_not_come_back() {
        let row = folded(CounterRow::default(), &raw(10, Some(90), 0));
        assert_eq!(row.maxheld, 90);
        let reset = CounterRow { maxheld: 10, peak_base: 90, ..row };
        let row = folded(reset, &raw(20, Some(90), 0));
        assert_eq!(row.maxheld, 20);
        assert_eq!(folded(row, &raw(20, Some(95), 0)).maxheld, 95);
    }
}
