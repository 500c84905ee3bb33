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
//! [`commit`], which alone writes, in order, what the accounts hold at that moment.

mod notice;
mod rounds;
pub mod texts;

pub use notice::{PressureNow, pressure, read_only_advice};
pub use rounds::{Round, keep};

use crate::{
    ct::limits as ct_limits,
    error::Result,
    inventory::{CounterRow, CtRow, Minute},
    ledger::{Account, Last, SAMPLE, Sampled, Totals},
    limits::{
        Files, apply,
        host::Host,
        processes::{self, Locks, Sample},
        read::{self, Raw},
        sockets,
    },
    manager::{Manager, lock, now},
    monitor::Live,
};
use notice::{note_minute, notice};
use std::{path::Path, sync::atomic::Ordering, time::Instant};
use vz_types::{
    CtConfig, Ctid,
    limits::{
        Class, Ub, kernel,
        table::{COUNTERS, Held},
        text::Figures,
    },
};

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

/// The kernel's figures of this moment.
struct Look {
    raws: Vec<Raw>,
    totals: Totals,
}

/// What a container's part of the host's file was at the last look.
pub(crate) fn text_of<T>(m: &Manager, ctid: Ctid, read: impl FnOnce(&str) -> T) -> T {
    read(&lock(&m.accounts.of(ctid)).text)
}

/// Whether its filesystem took no writes when it was looked at last.
pub(crate) fn was_read_only(m: &Manager, ctid: Ctid) -> bool {
    lock(&m.accounts.of(ctid)).read_only
}

/// The counters of a container, running or not; a running one is looked at now. `sample`: at its processes too,
/// when that is due.
pub fn beans(m: &Manager, row: &CtRow, config: Option<&CtConfig>, sample: bool) -> Vec<Bean> {
    let Some(config) = config else { return Vec::new() };
    let live = m.cell(row.ctid).live().filter(|l| !l.ended());
    let set = live.as_ref().and_then(|_| ct_limits::live(m, row.ctid)).map(|set| set.in_config(config));
    let files = live.as_ref().map(|l| files(m, &l.record.cgroup));
    let at = live.as_ref().zip(files.as_ref());
    let beans = beans_at(m, &Round::asked(true), row.ctid, at, set.as_ref().unwrap_or(config), sample);
    commit(m);
    beans
}

/// The same for one of several that are looked at together, with the limits it has now; the caller commits.
pub(crate) fn beans_at(
    m: &Manager,
    round: &Round,
    ctid: Ctid,
    live: Option<(&Live, &Files<'_>)>,
    set: &CtConfig,
    sample: bool,
) -> Vec<Bean> {
    let host = round.host.get_or_init(|| ct_limits::host_limits(m).ok());
    let account = m.accounts.of(ctid);
    let mut account = lock(&account);
    load(m, ctid, &mut account);
    let (raws, wrong) = match live {
        None => (vec![Raw { held: Some(0), ..Raw::default() }; COUNTERS.len()], Vec::new()),
        Some((live, files)) => figures(m, round, ctid, &mut account, (live, files), set, sample),
    };
    fold(m, ctid, &mut account, &raws);
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
    m: &Manager,
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
                notice(m, ctid, account, files, &Totals { sockets, ..seen });
            }
        }
        return (raws, account.last.wrong.clone());
    }
    if due(account.sample.as_ref(), usage, || sample && round.take()) {
        let locks = round.locks.get_or_init(Locks::read);
        let sample = processes::sample(files.path(), live.record.init.pid, locks);
        account.sample = Some(Sampled { at: Instant::now(), usage, sample });
    }
    let mut look = look(files, account.sample.map(|s| s.sample));
    let numproc = &mut look.raws[Ub::Numproc as usize].held;
    // Without the controller they are counted.
    *numproc = numproc.or_else(|| count_now(m, ctid, files));
    notice(m, ctid, account, files, &look.totals);
    let host = round.host.get_or_init(|| ct_limits::host_limits(m).ok());
    let wrong = wrong(host.as_deref(), set, files);
    account.last = Last { at: Some(Instant::now()), usage, raws: look.raws.clone(), wrong: wrong.clone() };
    (look.raws, wrong)
}

/// The files of a container's cgroup.
pub(crate) fn files<'a>(m: &'a Manager, cgroup: &Path) -> Files<'a> {
    match m.tree() {
        Ok(cgroups) => Files::with(cgroup, cgroups.controllers()),
        Err(_) => Files::open(cgroup),
    }
}

/// Processes and threads inside.
pub(crate) fn count(m: &Manager, ctid: Ctid, files: &Files<'_>) -> Option<u64> {
    let known = m.accounts.known(ctid).and_then(|account| {
        let account = lock(&account);
        let still = account.last.is_still(files.usage());
        still.then(|| account.last.raws.get(Ub::Numproc as usize)?.held).flatten()
    });
    known.or_else(|| count_now(m, ctid, files))
}

fn count_now(m: &Manager, ctid: Ctid, files: &Files<'_>) -> Option<u64> {
    files.number("pids.current").or_else(|| read::threads(files)).or_else(|| m.tree().ok()?.count(ctid))
}

fn look(files: &Files<'_>, sample: Option<Sample>) -> Look {
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

fn load(m: &Manager, ctid: Ctid, account: &mut Account) {
    if !account.loaded {
        match m.inventory.counters(ctid) {
            Ok(rows) => {
                rows.into_iter().for_each(|(ub, row)| account.rows[ub as usize] = row);
                account.loaded = true;
            }
            Err(e) => tracing::warn!(ctid = ctid.get(), "{e}"),
        }
        match m.inventory.minutes(ctid, now().saturating_sub(HOUR)) {
            Ok(minutes) => account.minutes = minutes.into(),
            Err(e) => tracing::warn!(ctid = ctid.get(), "{e}"),
        }
    }
}

/// Writes down what has changed in any account, in one commit.
pub(crate) fn commit(m: &Manager) {
    let _order = lock(&m.accounts.writing);
    let noted = std::mem::take(&mut *lock(&m.accounts.noted));
    let (mut counters, mut minutes) = (Vec::new(), Vec::new());
    for ctid in noted {
        // One that was destroyed meanwhile has nothing to be remembered.
        let Some(account) = m.accounts.known(ctid) else { continue };
        let mut account = lock(&account);
        let dirty = std::mem::take(&mut account.dirty);
        let changed = COUNTERS.iter().filter(|c| dirty >> c.ub as u32 & 1 == 1);
        counters.extend(changed.map(|c| (ctid, c.ub, account.rows[c.ub as usize])));
        minutes.extend(account.unwritten.drain(..).map(|m| (ctid, m)));
    }
    if let Err(e) = m.inventory.keep(&counters, &minutes, now().saturating_sub(HOUR)) {
        tracing::warn!("{e}");
    }
}

/// Adds the kernel's figures to what is remembered.
fn fold(m: &Manager, ctid: Ctid, account: &mut Account, raws: &[Raw]) {
    for (c, raw) in COUNTERS.iter().zip(raws) {
        let row = account.rows[c.ub as usize];
        let new = folded(row, raw);
        if new != row {
            if new.failcnt != row.failcnt {
                m.accounts.unsynced.store(true, Ordering::Relaxed);
            }
            put(m, ctid, account, c.ub, new);
        }
    }
}

/// Changes one counter and notes that down.
fn put(m: &Manager, ctid: Ctid, account: &mut Account, ub: Ub, row: CounterRow) {
    account.rows[ub as usize] = row;
    account.dirty |= 1 << ub as u32;
    lock(&m.accounts.noted).insert(ctid);
}

/// A cgroup was made anew: the kernel counts from zero.
pub fn fresh(m: &Manager, ctid: Ctid) {
    {
        let account = m.accounts.of(ctid);
        let mut account = lock(&account);
        load(m, ctid, &mut account);
        (account.seen, account.sample, account.last) = (Some(Totals::default()), None, Last::default());
        note_minute(m, ctid, &mut account, Minute { at: now(), begins: true, totals: [0; 4] });
        for c in COUNTERS {
            let row = account.rows[c.ub as usize];
            if row.seen_fails != 0 || row.peak_base != 0 {
                put(m, ctid, &mut account, c.ub, CounterRow { seen_fails: 0, peak_base: 0, ..row });
            }
        }
    }
    commit(m);
}

/// The last look before a container's cgroup goes.
pub fn close(m: &Manager, row: &CtRow) {
    let Ok(cgroups) = m.tree() else { return };
    let dir = cgroups.path(row.ctid);
    ct_limits::promise_nothing(m, row.ctid);
    if !dir.is_dir() {
        return;
    }
    {
        let files = files(m, &dir);
        let account = m.accounts.of(row.ctid);
        let mut account = lock(&account);
        load(m, row.ctid, &mut account);
        let look = look(&files, None);
        notice(m, row.ctid, &mut account, &files, &look.totals);
        note_minute(m, row.ctid, &mut account, notice::minute(&files, &look.totals));
        fold(m, row.ctid, &mut account, &look.raws);
        // What only a running one needs.
        (account.sample, account.limits) = (None, None);
        (account.last, account.text) = (Last::default(), Box::default());
    }
    commit(m);
}

/// `--reset_ub`: maxheld becomes held, failcnt 0.
pub fn reset(m: &Manager, ctid: Ctid) -> Result<()> {
    // Nothing older is written after this.
    let _order = lock(&m.accounts.writing);
    let account = m.accounts.of(ctid);
    let mut account = lock(&account);
    load(m, ctid, &mut account);
    let live = m.cell(ctid).live().filter(|l| !l.ended());
    let raws = live.map(|l| {
        let files = files(m, &l.record.cgroup);
        let mut raws = look(&files, account.sample.map(|s| s.sample)).raws;
        let numproc = &mut raws[Ub::Numproc as usize].held;
        *numproc = numproc.or_else(|| count_now(m, ctid, &files));
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
    m.inventory.set_counters(ctid, &rows)?;
    rows.into_iter().for_each(|(ub, row)| account.rows[ub as usize] = row);
    account.dirty = 0;
    // The next round writes the texts anew.
    account.last = Last::default();
    Ok(())
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
