//! The accounts of running containers: what each holds, has held at most and was refused, folded from the kernel's
//! figures into what is kept over runs; and the events behind them.
//!
//! ```text
//!  every 5 s and when asked:  cgroup files -> fold -> inventory (when something changed)
//!                                          \-> events (OOM kill, fork failure, ...) -> inventory, log
//!  before a cgroup is removed: once more
//! ```
//! The kernel counts from zero in each new cgroup, so a fail count is remembered together with what the kernel said
//! when it was last looked at: only the difference is added, whoever was killed in between.

use super::{Engine, Result, lock, now, oom};
use crate::{
    inventory::{CounterRow, CtRow, Minute},
    limits::{
        apply::{self, Write},
        host::Host,
        processes::{self, Sample},
        read::{self, Pressure, Raw},
        sockets,
    },
};
use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
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

/// Between two looks at every running container.
const TICK: Duration = Duration::from_secs(5);
/// Between two looks at every process of a container.
const SAMPLE: Duration = Duration::from_secs(60);
/// How far back pressure is remembered, in seconds.
const HOUR: u64 = 3600;
/// Between two notes of pressure, in seconds.
const MINUTE: u64 = 60;

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
    rows: HashMap<Ub, CounterRow>,
    loaded: bool,
    sample: Option<(Instant, Sample)>,
    /// Kernel totals at the last tick, for events.
    seen: Option<Totals>,
    /// Totals of pressure and throttled time of the last hour, one a minute, as in the inventory.
    minutes: VecDeque<Minute>,
    disk_full: bool,
}

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
    /// Starts the thread that keeps the accounts. It ends with the process.
    pub fn keep_accounts(self: &Arc<Self>) -> std::io::Result<()> {
        let engine = self.clone();
        std::thread::Builder::new().name("accounts".into()).stack_size(256 << 10).spawn(move || {
            loop {
                engine.tick();
                let (flag, bell) = &engine.accounts.bell;
                let rung = lock(flag);
                let (mut rung, _) =
                    bell.wait_timeout_while(rung, TICK, |r| !*r).unwrap_or_else(PoisonError::into_inner);
                *rung = false;
            }
        })?;
        Ok(())
    }

    /// Looks at every running container, and writes the classic files.
    fn tick(&self) {
        let Ok(rows) = self.inventory.containers() else { return };
        let running: Vec<&CtRow> = rows.iter().filter(|r| self.is_running(r.ctid)).collect();
        let mut texts = Vec::new();
        for row in &running {
            let Ok(config) = self.conf.read(row.ctid) else { continue };
            let beans = self.beans(row, Some(&config), true);
            self.notice_disk(row, &config);
            texts.push((row.ctid, beans));
        }
        if let Err(e) = self.write_texts(&texts) {
            tracing::warn!("the beancounter files cannot be written: {e}");
        }
        if self.accounts.unsynced.swap(false, Ordering::Relaxed) {
            self.inventory.flush();
        }
    }

    /// The counters of a container, running or not; a running one is looked at now. `sample`: at its processes too,
    /// when that is due.
    pub(crate) fn beans(&self, row: &CtRow, config: Option<&CtConfig>, sample: bool) -> Vec<Bean> {
        let ctid = row.ctid;
        let host = self.host_limits().ok();
        let account = self.accounts.of(ctid);
        let mut account = lock(&account);
        self.load(ctid, &mut account);
        let live = lock(&self.cell(ctid).live).clone().filter(|l| !l.ended());
        let raws = match &live {
            None => vec![Raw { held: Some(0), ..Raw::default() }; COUNTERS.len()],
            Some(live) => {
                let due = account.sample.is_none_or(|(at, _)| at.elapsed() >= SAMPLE);
                if sample && due || account.sample.is_none() {
                    account.sample =
                        Some((Instant::now(), processes::sample(&live.record.cgroup, live.record.init.pid)));
                }
                let mut look = self.look(&live.record.cgroup, account.sample.map(|(_, s)| s));
                let numproc = &mut look.raws[Ub::Numproc as usize].held;
                // Without the controller they are counted.
                *numproc = numproc.or_else(|| self.cgroups().ok()?.count(ctid));
                self.notice(ctid, &mut account, &live.record.cgroup, &look.totals);
                look.raws
            }
        };
        self.fold(ctid, &mut account, &raws);
        let set = match (&live, config) {
            (Some(_), Some(c)) => self.live_limits(ctid).map_or_else(|| c.clone(), |set| set.in_config(c)),
            (_, Some(c)) => c.clone(),
            (_, None) => return Vec::new(),
        };
        let dir = live.as_ref().map(|l| l.record.cgroup.as_path());
        COUNTERS
            .iter()
            .zip(&raws)
            .map(|(c, raw)| {
                let kept = account.rows.get(&c.ub).copied().unwrap_or_default();
                let pair = set.limits.get(c.ub);
                let (class, reason) = class_of(c.ub, &set, host.as_deref(), dir);
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

    fn look(&self, cgroup: &Path, sample: Option<Sample>) -> Look {
        let sockets = sockets::figures(cgroup);
        let raws = read::all(cgroup, sample.as_ref(), sockets);
        let keyed = |file: &str, key: &str| read::keyed_file(cgroup, file, key).unwrap_or(0);
        let totals = Totals {
            oom_kill: keyed("memory.events", "oom_kill"),
            forks: raws[Ub::Numproc as usize].fails,
            swap: raws[Ub::Swappages as usize].fails,
            high: keyed("memory.events", "high"),
            throttled_us: read::throttled(cgroup),
            sockets: sockets.map_or([0; 2], |s| [s[0].fails, s[1].fails]),
        };
        Look { raws, totals }
    }

    fn load(&self, ctid: Ctid, account: &mut Account) {
        if !account.loaded {
            match self.inventory.counters(ctid) {
                Ok(rows) => (account.rows, account.loaded) = (rows.into_iter().collect(), true),
                Err(e) => tracing::warn!(ctid = ctid.get(), "{e}"),
            }
            match self.inventory.minutes(ctid, now().saturating_sub(HOUR)) {
                Ok(minutes) => account.minutes = minutes.into(),
                Err(e) => tracing::warn!(ctid = ctid.get(), "{e}"),
            }
        }
    }

    /// Adds the kernel's figures to what is remembered.
    fn fold(&self, ctid: Ctid, account: &mut Account, raws: &[Raw]) {
        let mut changed = Vec::new();
        for (c, raw) in COUNTERS.iter().zip(raws) {
            let row = account.rows.entry(c.ub).or_default();
            let new = folded(*row, raw);
            if new != *row {
                if new.failcnt != row.failcnt {
                    self.accounts.unsynced.store(true, Ordering::Relaxed);
                }
                *row = new;
                changed.push((c.ub, new));
            }
        }
        if !changed.is_empty() {
            if let Err(e) = self.inventory.set_counters(ctid, &changed) {
                tracing::warn!(ctid = ctid.get(), "{e}");
            }
        }
    }

    /// A cgroup was made anew: the kernel counts from zero.
    pub(crate) fn accounts_fresh(&self, ctid: Ctid) {
        let account = self.accounts.of(ctid);
        let mut account = lock(&account);
        self.load(ctid, &mut account);
        (account.seen, account.sample) = (Some(Totals::default()), None);
        self.note_minute(ctid, &mut account, Minute { at: now(), begins: true, totals: [0; 4] });
        let mut changed = Vec::new();
        for (ub, row) in account.rows.iter_mut().filter(|(_, r)| r.seen_fails != 0 || r.peak_base != 0) {
            (row.seen_fails, row.peak_base) = (0, 0);
            changed.push((*ub, *row));
        }
        if let Err(e) = self.inventory.set_counters(ctid, &changed) {
            tracing::warn!(ctid = ctid.get(), "{e}");
        }
    }

    /// The last look before a container's cgroup goes.
    pub(crate) fn accounts_close(&self, row: &CtRow) {
        let Ok(cgroups) = self.cgroups() else { return };
        let dir = cgroups.path(row.ctid);
        if !dir.is_dir() {
            return;
        }
        let account = self.accounts.of(row.ctid);
        let mut account = lock(&account);
        self.load(row.ctid, &mut account);
        let look = self.look(&dir, None);
        self.notice(row.ctid, &mut account, &dir, &look.totals);
        self.note_minute(row.ctid, &mut account, minute(&dir, &look.totals));
        self.fold(row.ctid, &mut account, &look.raws);
    }

    /// `--reset_ub`: maxheld becomes held, failcnt 0.
    pub(crate) fn reset_counters(&self, ctid: Ctid) -> Result<()> {
        let account = self.accounts.of(ctid);
        let mut account = lock(&account);
        self.load(ctid, &mut account);
        let live = lock(&self.cell(ctid).live).clone().filter(|l| !l.ended());
        let raws = live.map(|l| self.look(&l.record.cgroup, account.sample.map(|(_, s)| s)).raws);
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
        account.rows = rows.into_iter().collect();
        Ok(())
    }

    /// Turns risen totals into events.
    fn notice(&self, ctid: Ctid, account: &mut Account, cgroup: &Path, now_is: &Totals) {
        // After a restart of vzd the first look only sets the mark: what happened before is in the fail counts.
        let before = account.seen.replace(*now_is);
        let due = |m: &Minute| now().abs_diff(m.at) >= MINUTE;
        if account.minutes.back().is_none_or(due) {
            self.note_minute(ctid, account, minute(cgroup, now_is));
        }
        let Some(was) = before else { return };
        let limit = |ub: Ub| {
            let config = self.conf.read(ctid).ok();
            let set = config.and_then(|c| Some(self.live_limits(ctid)?.in_config(&c).limits));
            set.map_or_else(
                || "its limit".into(),
                |l| format!("its limit of {}", vz_types::limits::amount::show(l.get(ub).limit, ub.row().unit)),
            )
        };
        let rose = |a: u64, b: u64| b.saturating_sub(a);
        let kills = rose(was.oom_kill, now_is.oom_kill);
        if kills > 0 {
            let base = format!("/{}/{ctid}", self.paths.cgroup_name());
            let victims = lock(&self.accounts.kernel_log).victims_of(&base);
            for n in 0..kills.min(20) {
                let text = match victims.get(n as usize) {
                    Some(v) => format!(
                        "out of memory at {}: the kernel killed `{}` (pid {} on the host, uid {}, {} in memory)",
                        limit(Ub::Physpages),
                        v.name,
                        v.pid,
                        v.uid,
                        vz_types::limits::amount::human(v.bytes)
                    ),
                    None => format!("out of memory at {}: the kernel killed a process", limit(Ub::Physpages)),
                };
                self.event(ctid, "oom-kill", Some("physpages"), 1, &text);
            }
        }
        for (count, kind, ub, what) in [
            (
                rose(was.forks, now_is.forks),
                "fork-failed",
                Ub::Numproc,
                "processes could not be started: numproc is at",
            ),
            (
                rose(was.swap, now_is.swap),
                "swap-full",
                Ub::Swappages,
                "memory could not be swapped out: swappages is at",
            ),
            (
                rose(was.high, now_is.high),
                "memory-high",
                Ub::Physpages,
                "allocations were slowed down: physpages is above its barrier, below",
            ),
            (
                rose(was.sockets[0], now_is.sockets[0]),
                "socket-refused",
                Ub::Numtcpsock,
                "TCP sockets were refused: numtcpsock is at",
            ),
            (
                rose(was.sockets[1], now_is.sockets[1]),
                "socket-refused",
                Ub::Numothersock,
                "sockets were refused: numothersock is at",
            ),
        ] {
            if count > 0 {
                self.event(ctid, kind, Some(ub.name()), count, &format!("{what} {}", limit(ub)));
            }
        }
        let throttled = rose(was.throttled_us, now_is.throttled_us);
        // Half a second of one tick: a limit that is felt.
        if throttled > 500_000 {
            self.event(
                ctid,
                "throttled",
                Some("cpulimit"),
                1,
                "its processes waited for processor time although they could run: cpulimit or cpus is at its limit",
            );
        }
    }

    /// Remembers a minute, here and in the inventory.
    fn note_minute(&self, ctid: Ctid, account: &mut Account, m: Minute) {
        let since = m.at.saturating_sub(HOUR);
        // A clock that was put back leaves nothing of the future.
        account.minutes.retain(|old| old.at >= since && old.at < m.at);
        account.minutes.push_back(m);
        if let Err(e) = self.inventory.add_minute(ctid, &m, since) {
            tracing::warn!(ctid = ctid.get(), "{e}");
        }
    }

    /// Disk quota at its end, once per time it gets there.
    fn notice_disk(&self, row: &CtRow, config: &CtConfig) {
        let Some(usage) = self.disk_usage(row, config) else { return };
        let full = |left: u64, limit: u64| limit > 0 && left.saturating_mul(200) <= limit;
        let what = if full(usage.space_left.0, usage.space_limit.0) {
            Some(("diskspace", format!("the disk is full: {} of {}", usage.space_used, config.disk.space)))
        } else if full(usage.inodes_limit.saturating_sub(usage.inodes_used), usage.inodes_limit) {
            Some(("diskinodes", format!("no inode is left: {} of {}", usage.inodes_used, config.disk.inodes)))
        } else {
            None
        };
        let account = self.accounts.of(row.ctid);
        let was = std::mem::replace(&mut lock(&account).disk_full, what.is_some());
        if let (Some((counter, text)), false) = (what, was) {
            self.event(row.ctid, "disk-full", Some(counter), 1, &text);
        }
    }

    fn event(&self, ctid: Ctid, kind: &str, counter: Option<&str>, count: u64, text: &str) {
        tracing::warn!(ctid = ctid.get(), event = kind, counter, count, "{text}");
        match self.inventory.add_event(ctid, now(), kind, counter, count, text) {
            Ok(id) => {
                self.accounts.unsynced.store(true, Ordering::Relaxed);
                let (last, bell) = &self.accounts.events;
                *lock(last) = id;
                bell.notify_all();
            }
            Err(e) => tracing::warn!(ctid = ctid.get(), "{e}"),
        }
    }

    /// Pressure and throttled time of a container: now, if it runs, and its rate in percent over what is remembered (at
    /// most an hour), with the seconds of running that covers. `None`: nothing is remembered.
    pub(crate) fn pressure(&self, ctid: Ctid) -> Option<(PressureNow, [f64; 4], u64)> {
        let cgroup = lock(&self.cell(ctid).live).clone().filter(|l| !l.ended()).map(|l| l.record.cgroup);
        let now = cgroup.as_ref().map_or_else(PressureNow::default, |dir| PressureNow {
            cpu: read::pressure(dir, "cpu"),
            memory: read::pressure(dir, "memory"),
            io: read::pressure(dir, "io"),
            throttled_us: read::throttled(dir),
        });
        let account = self.accounts.of(ctid);
        let mut account = lock(&account);
        self.load(ctid, &mut account);
        let mut minutes: Vec<Minute> = account.minutes.iter().copied().collect();
        let since = super::now().saturating_sub(HOUR);
        minutes.retain(|m| m.at >= since);
        if cgroup.is_some() {
            let of = |p: &Option<Pressure>| p.map_or(0, |p| p.some_total);
            let totals = [of(&now.cpu), of(&now.memory), of(&now.io), now.throttled_us];
            minutes.push(Minute { at: super::now(), begins: false, totals });
        }
        let (rates, seconds) = rates(&minutes)?;
        Some((now, rates, seconds))
    }
}

/// The kernel's totals at this moment.
fn minute(cgroup: &Path, totals: &Totals) -> Minute {
    let total = |r: &str| read::pressure(cgroup, r).map_or(0, |p| p.some_total);
    let totals = [total("cpu"), total("memory"), total("io"), totals.throttled_us];
    Minute { at: now(), begins: false, totals }
}

/// Percent of the time between these moments, and the seconds of it: the time between two runs does not count.
fn rates(minutes: &[Minute]) -> Option<([f64; 4], u64)> {
    minutes.first()?;
    let (mut sums, mut seconds) = ([0u64; 4], 0u64);
    for pair in minutes.windows(2).filter(|p| !p[1].begins) {
        seconds += pair[1].at.saturating_sub(pair[0].at);
        for (sum, (was, is)) in sums.iter_mut().zip(pair[0].totals.iter().zip(pair[1].totals)) {
            // Less than before: another run whose beginning was not seen.
            *sum += if is < *was { is } else { is - was };
        }
    }
    let percent = |sum: u64| (sum as f64 / 1e4 / seconds.max(1) as f64).min(100.0);
    Some((sums.map(percent), seconds))
}

/// Pressure of a container at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PressureNow {
    pub(crate) cpu: Option<Pressure>,
    pub(crate) memory: Option<Pressure>,
    pub(crate) io: Option<Pressure>,
    pub(crate) throttled_us: u64,
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

/// The class of a counter of this container: what the table says, unless the host cannot, or the kernel holds
/// something else than what was asked for.
fn class_of(ub: Ub, config: &CtConfig, host: Option<&Host>, dir: Option<&Path>) -> (Class, Option<String>) {
    let row = ub.row();
    let Some(host) = host else { return (Class::Unenforced, Some("no cgroup2 filesystem is mounted".into())) };
    let (class, gap) = host.class(ub);
    if let Some(gap) = gap {
        return (class, Some(gap.reason));
    }
    if let Some(dir) = dir {
        let wrong = kernel::settings(config)
            .iter()
            .filter(|s| s.name == row.name && row.controller.is_some())
            .find_map(|s| apply::in_force(dir, &Write::from(s)).err());
        if let Some(wrong) = wrong {
            return (Class::Unenforced, Some(wrong));
        }
        if matches!(row.held, Held::Sockets)
            && config.limits.get(ub).limit.number().is_some()
            && class == Class::Enforced
        {
            if let Err(why) = sockets::in_force(dir, ub, config.limits.get(ub).limit) {
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
    fn pressure_of_the_last_hour_adds_up_over_runs_and_leaves_out_the_time_between() {
        let m = |at, begins, cpu| Minute { at, begins, totals: [cpu, 0, 0, 0] };
        assert_eq!(rates(&[]), None);
        assert_eq!(rates(&[m(0, true, 0)]), Some(([0.0; 4], 0)));
        // 30 s of 60, then not running for 1000 s, then 6 s of 40.
        let (rates, seconds) =
            rates(&[m(0, true, 0), m(60, false, 30_000_000), m(1060, true, 0), m(1100, false, 6_000_000)]).unwrap();
        assert_eq!((rates[0], seconds), (36.0, 100));
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
