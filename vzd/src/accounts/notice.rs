//! What becomes of totals that rise: events, and a note of pressure each minute, from which the last hour is told.

use super::{HOUR, files, load};
use crate::{
    ct::limits as ct_limits,
    inventory::{CtRow, Minute, NewEvent},
    ledger::{Account, Totals},
    limits::{
        Files,
        read::{self, Pressure},
    },
    manager::{Manager, lock, now},
    storage,
};
use std::sync::atomic::Ordering;
use vz_types::{CtConfig, Ctid, limits::Ub};

/// Between two notes of pressure, in seconds.
const MINUTE: u64 = 60;
/// The same where nothing has changed.
const LONG: u64 = 600;

/// Turns risen totals into events.
pub(super) fn notice(m: &Manager, ctid: Ctid, account: &mut Account, files: &Files<'_>, now_is: &Totals) {
    // After a restart of vzd the first look only sets the mark: what happened before is in the fail counts.
    let before = account.seen.replace(*now_is);
    let age = account.minutes.back().map(|m| now().abs_diff(m.at));
    if age.is_none_or(|age| age >= MINUTE) {
        let noted = minute(files, now_is);
        let same = account.minutes.back().is_some_and(|old| old.totals == noted.totals);
        if !same || age.is_none_or(|age| age >= LONG) {
            note_minute(m, ctid, account, noted);
        }
    }
    let Some(was) = before else { return };
    let limit = |ub: Ub| {
        let config = m.conf.read(ctid).ok();
        let set = config.and_then(|c| Some(ct_limits::live(m, ctid)?.in_config(&c).limits));
        set.map_or_else(
            || "its limit".into(),
            |l| format!("its limit of {}", vz_types::limits::amount::show(l.get(ub).limit, ub.row().unit)),
        )
    };
    let rose = |a: u64, b: u64| b.saturating_sub(a);
    let kills = rose(was.oom_kill, now_is.oom_kill);
    if kills > 0 {
        let base = format!("/{}/{ctid}", m.paths.cgroup_name());
        let victims = lock(&m.accounts.kernel_log).victims_of(&base);
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
            event(m, ctid, "oom-kill", Some("physpages"), 1, &text);
        }
    }
    for (count, kind, ub, what) in [
        (rose(was.forks, now_is.forks), "fork-failed", Ub::Numproc, "processes could not be started: numproc is at"),
        (rose(was.swap, now_is.swap), "swap-full", Ub::Swappages, "memory could not be swapped out: swappages is at"),
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
            event(m, ctid, kind, Some(ub.name()), count, &format!("{what} {}", limit(ub)));
        }
    }
    let throttled = rose(was.throttled_us, now_is.throttled_us);
    // Half a second of one tick: a limit that is felt.
    if throttled > 500_000 {
        event(
            m,
            ctid,
            "throttled",
            Some("cpulimit"),
            1,
            "its processes waited for processor time although they could run: cpulimit or cpus is at its limit",
        );
    }
}

/// Remembers a minute, here and, with the next commit, in the inventory.
pub(super) fn note_minute(m: &Manager, ctid: Ctid, account: &mut Account, minute: Minute) {
    let since = minute.at.saturating_sub(HOUR);
    // A clock that was put back leaves nothing of the future.
    account.minutes.retain(|old| old.at >= since && old.at < minute.at);
    account.minutes.push_back(minute);
    account.unwritten.push(minute);
    lock(&m.accounts.noted).insert(ctid);
}

/// Disk quota at its end, once per time it gets there.
pub(super) fn notice_disk(m: &Manager, row: &CtRow, config: &CtConfig) {
    let Some(usage) = m.hands.storage.usage(&m.storage_plan(row)) else { return };
    let full = |left: u64, limit: u64| limit > 0 && left.saturating_mul(200) <= limit;
    let what = if full(usage.space_left.0, usage.space_limit.0) {
        Some(("diskspace", format!("the disk is full: {} of {}", usage.space_used, config.disk.space)))
    } else if full(usage.inodes_limit.saturating_sub(usage.inodes_used), usage.inodes_limit) {
        Some(("diskinodes", format!("no inode is left: {} of {}", usage.inodes_used, config.disk.inodes)))
    } else {
        None
    };
    let account = m.accounts.of(row.ctid);
    let was = std::mem::replace(&mut lock(&account).disk_full, what.is_some());
    if let (Some((counter, text)), false) = (what, was) {
        event(m, row.ctid, "disk-full", Some(counter), 1, &text);
    }
}

/// A filesystem that takes no more writes, once per time it comes to that.
pub(super) fn notice_read_only(m: &Manager, row: &CtRow) {
    let is = m.hands.storage.is_read_only(&m.storage_plan(row));
    let account = m.accounts.of(row.ctid);
    let was = std::mem::replace(&mut lock(&account).read_only, is);
    match (was, is) {
        (false, true) => {
            event(
                m,
                row.ctid,
                "read-only",
                None,
                1,
                &format!("its filesystem is read-only: {}", read_only_words(m, row)),
            );
        }
        (true, false) => event(m, row.ctid, "writable", None, 1, "its filesystem can be written to again"),
        _ => {}
    }
}

/// Why, as far as that can be told, and what is free where its files lie.
fn read_only_words(m: &Manager, row: &CtRow) -> String {
    let private = m.paths.private(row.ctid);
    let free = storage::left(&private).map_or_else(|_| String::new(), |free| format!(" ({free} are free there now)"));
    match private.join("disk.img").exists() {
        true => format!(
            "the kernel stopped writing to its image after an error, which is what becomes of it when the host's filesystem below {} is full{free}",
            private.display()
        ),
        false => format!("the host's filesystem below {} is", private.display()),
    }
}

/// What to do about it.
pub fn read_only_advice(m: &Manager, row: &CtRow) -> String {
    let words = read_only_words(m, row);
    match m.paths.private(row.ctid).join("disk.img").exists() {
        true => format!(
            "its filesystem is read-only: {words}. Make room on the host, then `vzctl restart {}` checks it and mounts it anew",
            row.ctid
        ),
        false => format!("its filesystem is read-only: {words}. Make that writable, and nothing more is to be done"),
    }
}

fn event(m: &Manager, ctid: Ctid, kind: &str, counter: Option<&str>, count: u64, text: &str) {
    tracing::warn!(ctid = ctid.get(), event = kind, counter, count, "{text}");
    m.event(&NewEvent { ctid, at: now(), kind, counter, count, text, by: None });
    m.accounts.unsynced.store(true, Ordering::Relaxed);
}

/// Pressure and throttled time of a container: now, if it runs, and its rate in percent over what is remembered (at
/// most an hour), with the seconds of running that covers. `None`: nothing is remembered.
pub fn pressure(m: &Manager, ctid: Ctid) -> Option<(PressureNow, [f64; 4], u64)> {
    let cgroup = m.cell(ctid).live().filter(|l| !l.ended()).map(|l| l.record.cgroup);
    let now = cgroup.as_ref().map_or_else(PressureNow::default, |dir| {
        let files = files(m, dir);
        PressureNow {
            cpu: read::pressure(&files, "cpu.pressure"),
            memory: read::pressure(&files, "memory.pressure"),
            io: read::pressure(&files, "io.pressure"),
            throttled_us: read::throttled(&files),
        }
    });
    let account = m.accounts.of(ctid);
    let mut account = lock(&account);
    load(m, ctid, &mut account);
    let mut minutes: Vec<Minute> = account.minutes.iter().copied().collect();
    let since = crate::manager::now().saturating_sub(HOUR);
    minutes.retain(|m| m.at >= since);
    if cgroup.is_some() {
        let of = |p: &Option<Pressure>| p.map_or(0, |p| p.some_total);
        let totals = [of(&now.cpu), of(&now.memory), of(&now.io), now.throttled_us];
        minutes.push(Minute { at: crate::manager::now(), begins: false, totals });
    }
    let (rates, seconds) = rates(&minutes)?;
    Some((now, rates, seconds))
}

/// The kernel's totals at this moment.
pub(super) fn minute(files: &Files<'_>, totals: &Totals) -> Minute {
    let total = |file: &'static str| read::pressure(files, file).map_or(0, |p| p.some_total);
    let totals = [total("cpu.pressure"), total("memory.pressure"), total("io.pressure"), totals.throttled_us];
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
pub struct PressureNow {
    /// Processor time.
    pub cpu: Option<Pressure>,
    /// Memory.
    pub memory: Option<Pressure>,
    /// Disk.
    pub io: Option<Pressure>,
    /// Microseconds held back by cpulimit.
    pub throttled_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
