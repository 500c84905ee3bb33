//! What vzd finds when it starts. Whatever runs goes on: it is taken in where it is understood, and shown as `unknown`
//! and left alone where it is not. Operations that were under way are gone on with, each by its container's driver, while
//! vzd serves already. Also the rebuilding of a lost inventory.

use super::{Ask, Ops, clear::Clear};
use crate::{
    accounts,
    ct::{
        identity, outside,
        settle::{self, Runs},
    },
    error::{Error, Result},
    inventory::{CtRow, Inventory, NewEvent, OperationRow, Share},
    manager::{Manager, make_dirs, now},
    monitor::live::read_record,
};
use std::{collections::BTreeSet, fs, sync::Arc, time::Duration};
use vz_types::{
    CtAddr, CtState, Ctid, OpKind, OpState, Paths, Reason, Subject, UidBase, judge::Request, state::Trouble,
};

/// What cannot be understood, and is looked at again.
const NOT_HERE: &str = "it is not in the inventory";

/// Brings the host to a state in which every operation can begin, and posts what is to be gone on with. Never fails as a
/// whole: what cannot be put right is logged, and the containers it does not concern are served.
///
/// # Errors
/// The inventory cannot be read.
pub fn take_up(ops: &Arc<Ops>) -> Result<()> {
    let m = &ops.m;
    let rows = m.inventory.containers()?;
    let mut open: Vec<OperationRow> = Vec::new();
    for row in m.inventory.open_operations()? {
        match row {
            Ok(row) => open.push(row),
            Err(e) => tracing::error!("an operation is left as it is: {e}"),
        }
    }
    prepare_network(m, &rows);
    let known: BTreeSet<Ctid> = rows.iter().map(|r| r.ctid).collect();
    let at_work: BTreeSet<Ctid> = open.iter().filter_map(|o| o.subject.ctid()).collect();
    let mut remains = Vec::new();
    for row in &rows {
        if look_at(m, row, at_work.contains(&row.ctid)) {
            remains.push(row.ctid);
        }
    }
    strangers(m, &known);
    outside::warn(m);
    sweep(ops, &at_work);
    ops.attend();
    for row in open {
        go_on(ops, row);
    }
    for ctid in remains {
        tracing::info!(ctid = ctid.get(), "ended while vzd did not run");
        let ask = Ask::new(Subject::Ct(ctid), Request::plain(OpKind::Clear), move |w| Clear::remains(w, ctid));
        if let Err(e) = ops.ask(ask) {
            tracing::warn!(ctid = ctid.get(), "{}", e.report());
        }
    }
    Ok(())
}

fn prepare_network(m: &Manager, rows: &[CtRow]) {
    if let Err(e) = m.hands.network.prepare_host() {
        tracing::error!("the host's network is not ready for containers: {}", Error::from(e).report());
    }
    let claims = rows.iter().filter_map(|r| {
        let ips: Vec<CtAddr> = m.inventory.addresses(r.ctid).ok()?.into_iter().map(|(ip, _)| ip).collect();
        Some((r.ctid, ips))
    });
    if let Err(e) = m.hands.network.load_table(&claims.collect::<Vec<_>>()) {
        tracing::error!("the packet filter could not be loaded: {}", Error::from(e).report());
    }
}

/// Takes in one container of the inventory. Says whether something of it is to be cleared away.
fn look_at(m: &Manager, row: &CtRow, at_work: bool) -> bool {
    let ctid = row.ctid;
    let cell = m.cell(ctid);
    let (stored, _) = cell.state();
    match settle::runs(m, ctid) {
        Runs::Yes(live) => {
            tracing::info!(ctid = ctid.get(), monitor = live.record.monitor.pid, "found running");
            take_in(m, ctid, *live);
            // An operation under way says itself where it is.
            if !at_work {
                set(m, ctid, stored, CtState::Running, None);
            }
            false
        }
        Runs::Unclear(_) if at_work => false,
        Runs::Unclear(cause) => {
            tracing::error!(
                ctid = ctid.get(),
                "it runs, but is not understood; it is left alone until it is stopped: {cause}"
            );
            set(
                m,
                ctid,
                stored,
                CtState::Unknown,
                Some(Trouble { operation: None, kind: None, step: String::new(), cause }),
            );
            false
        }
        Runs::No if at_work => false,
        Runs::No => {
            place(m, row);
            if let Ok(Some(record)) = read_record(&m.paths.ct_run(ctid)) {
                m.remember_boots(ctid, record.boots);
            }
            let left = m.paths.ct_run(ctid).exists() || m.tree().is_ok_and(|t| t.list().contains(&ctid));
            if !matches!(stored, CtState::Suspended | CtState::Failed) {
                set(m, ctid, stored, m.mounted_or_stopped(row), None);
            }
            left
        }
    }
}

/// A private area whose rename a power cut has taken back, although the container was committed: it is whole, and gets its
/// name again.
fn place(m: &Manager, row: &CtRow) {
    let (staging, private) = (settle::staging(m, row.ctid), m.paths.private(row.ctid));
    if !private.exists() && staging.join("ct.json").exists() {
        match m.hands.storage.place(&staging, &private) {
            Ok(()) => tracing::warn!(ctid = row.ctid.get(), "its private area has its name again"),
            Err(e) => tracing::error!(ctid = row.ctid.get(), "its private area: {}", Error::from(e).report()),
        }
    }
}

fn take_in(m: &Manager, ctid: Ctid, live: crate::monitor::Live) {
    // One that an earlier version left in the service's cgroup.
    if let Err(e) = m.tree().and_then(|t| Ok(t.keep_monitor(live.record.monitor.pid)?)) {
        tracing::warn!(monitor = live.record.monitor.pid, "it stays in the cgroup of vzd: {}", e.report());
    }
    m.watcher.add(ctid, Some(live.clone()), None);
    m.remember_boots(ctid, live.record.boots);
    m.cell(ctid).set_live(Some(live));
}

fn set(m: &Manager, ctid: Ctid, stored: CtState, now_is: CtState, trouble: Option<Trouble>) {
    if stored != now_is {
        let text = format!("found {} when vzd started", now_is.word());
        let written = m.inventory.change_from(Share::Reserve, "noting what was found", false, |c| {
            c.state(ctid, now_is, trouble.as_ref())?;
            c.event(&NewEvent { ctid, at: now(), kind: "found", counter: None, count: 1, text: &text, by: None })
        });
        match written {
            Ok(id) => m.ring(id),
            Err(e) => tracing::warn!(ctid = ctid.get(), "{e}"),
        }
    }
    m.cell(ctid).set(now_is, trouble);
}

/// Run directories and cgroups of containers the inventory does not know. What runs is never ended for that: its identity
/// lies in its private area, and where that can be read it is taken in again.
fn strangers(m: &Manager, known: &BTreeSet<Ctid>) {
    let mut all: BTreeSet<Ctid> = m.tree().map(|t| t.list().into_iter().collect()).unwrap_or_default();
    if let Ok(entries) = fs::read_dir(m.paths.ct_run_dir()) {
        all.extend(entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<Ctid>().ok()));
    }
    for ctid in all.difference(known) {
        stranger(m, *ctid);
    }
}

fn stranger(m: &Manager, ctid: Ctid) {
    let unknown = |cause: String| {
        tracing::error!(ctid = ctid.get(), "it runs, and is left alone: {cause}");
        let cell = m.cell(ctid);
        let record = read_record(&m.paths.ct_run(ctid)).ok().flatten();
        let more = record.as_ref().map(|r| r.uid_more.clone()).unwrap_or_default();
        cell.set_stranger(record.map(|r| r.uid_base).or_else(|| owner(m, ctid)), more);
        cell.set(CtState::Unknown, Some(Trouble { operation: None, kind: None, step: String::new(), cause }));
    };
    match settle::runs(m, ctid) {
        Runs::Yes(live) => match identity::adopt(&m.paths, &m.inventory, &m.conf, ctid) {
            Ok(warning) => {
                tracing::warn!(ctid = ctid.get(), "it runs and was not in the inventory; taken in again{warning}");
                m.cell(ctid).set_stranger(None, Vec::new());
                admit(m, ctid);
                take_in(m, ctid, *live);
                set(m, ctid, CtState::Absent, CtState::Running, None);
            }
            Err(e) => {
                let is_new = m.cell(ctid).stranger().is_none();
                unknown(format!("{NOT_HERE}, and cannot be taken in again: {}", e.report()));
                if is_new {
                    // So that it is cleared away after as soon as it ends.
                    m.watcher.add(ctid, Some(*live), None);
                }
            }
        },
        Runs::Unclear(cause) => unknown(format!("{NOT_HERE}, and {cause}")),
        Runs::No => clear_stranger(m, ctid),
    }
}

/// Lets what a container claims through the packet filter, which was made before it was known.
fn admit(m: &Manager, ctid: Ctid) {
    let admitted = m.inventory.addresses(ctid).map_err(Error::from).and_then(|all| {
        let ips: Vec<CtAddr> = all.into_iter().map(|(ip, _)| ip).collect();
        Ok(m.hands.network.allow(ctid, &ips)?)
    });
    if let Err(e) = admitted {
        tracing::error!(ctid = ctid.get(), "it has no network: {}", e.report());
    }
}

/// The owner of a container's delegated cgroup is the first id of its range.
fn owner(m: &Manager, ctid: Ctid) -> Option<UidBase> {
    use std::os::unix::fs::MetadataExt;
    let dir = m.tree().ok()?.path(ctid).join("ns");
    UidBase::try_from(fs::metadata(dir).ok()?.uid()).ok()
}

/// Nothing of it runs any more: its number may be used again.
pub(super) fn clear_stranger(m: &Manager, ctid: Ctid) {
    tracing::warn!(ctid = ctid.get(), "remains of a container that is not in the inventory are removed");
    let cleared = m
        .tree()
        .and_then(|t| Ok(t.kill(ctid, Duration::from_secs(5)).and_then(|()| t.remove(ctid))?))
        .and_then(|()| Ok(m.hands.network.detach(ctid, &[])?))
        .and_then(|()| settle::clear_run_dir(&m.paths.ct_run(ctid)));
    m.hands.storage.remove_small_filesystem(&m.paths.bc(ctid));
    for said in m.hands.storage.clear(ctid) {
        tracing::info!(ctid = ctid.get(), "{said}");
    }
    m.forget(ctid);
    if let Err(e) = cleared {
        tracing::warn!(ctid = ctid.get(), "{}", e.report());
    }
}

/// What belongs to nobody. Spared: what runs, what is not understood, what the operator has mounted, and what an
/// operation is at work on.
fn sweep(ops: &Arc<Ops>, at_work: &BTreeSet<Ctid>) {
    let m = &ops.m;
    let alive = |s: CtState| s.runs() || s.is_in_flight() || s == CtState::Failed;
    let cells = m.cells();
    let running: BTreeSet<Ctid> =
        cells.iter().filter(|(c, cell)| alive(cell.state().0) || at_work.contains(c)).map(|(c, _)| *c).collect();
    let mounted = cells.iter().filter(|(_, cell)| cell.state().0 == CtState::Mounted).map(|(c, _)| *c);
    let spared: BTreeSet<Ctid> = running.iter().copied().chain(mounted).collect();
    let swept = m.hands.storage.sweep(&spared);
    for said in swept.said.into_iter().chain(m.hands.network.sweep(&running)) {
        tracing::info!("{said}");
    }
    let (of, trees) = (m.clone(), swept.trees);
    drop(m.aside(move || {
        for tree in trees {
            match of.hands.storage.remove_tree(&tree) {
                Ok(()) => tracing::info!("removed the leftover {}", tree.display()),
                Err(e) => tracing::warn!("cannot remove the leftover {}: {e}", tree.display()),
            }
        }
    }));
    accounts::texts::sweep(m, &running);
    m.conf.sweep();
    if let Err(e) = m.templates.sweep() {
        tracing::warn!("sweeping templates: {e}");
    }
}

fn go_on(ops: &Arc<Ops>, row: OperationRow) {
    let m = &ops.m;
    match (row.state, row.kind) {
        // It had not begun; whoever asked is told so. A boot of the host is planned anew.
        (OpState::Queued, _) | (_, OpKind::Onboot) => {
            let reason = Reason::VzdEnded { kind: row.kind, step: String::new() };
            let e = match super::follower(&row).map(|ask| ops.ask(ask)) {
                Some(Ok(_)) => return,
                Some(Err(e)) => e,
                None => Error::Denied { reason, subject: row.subject.clone() },
            };
            let ended = OperationRow {
                state: OpState::Failed,
                error: serde_json::to_string(&e.failure()).ok(),
                ended: Some(crate::manager::now_ms()),
                ..row
            };
            if let Err(e) =
                m.inventory.change_from(Share::Reserve, "ending an operation", false, |c| c.operation(&ended))
            {
                tracing::warn!(id = %ended.id, "{e}");
            }
        }
        _ => {
            tracing::warn!(subject = %row.subject, op = row.kind.word(), step = row.step, "was interrupted");
            ops.carry_on(row);
        }
    }
}

/// Looks again at what was not understood: as soon as it can be, it is taken in.
pub fn look_again(ops: &Arc<Ops>) {
    let m = &ops.m;
    for (ctid, cell) in m.cells() {
        let (state, trouble) = cell.state();
        // An operation that cannot be carried on with stays open, and says why, until somebody can.
        if trouble.is_some_and(|t| t.operation.is_some()) {
            continue;
        }
        // One that has ended is cleared away after at once, unless that failed.
        let lost = state == CtState::Running && cell.live().is_none_or(|l| l.ended());
        if state != CtState::Unknown && !lost || ops.under_way(ctid).is_some() {
            continue;
        }
        match m.inventory.container(ctid) {
            Ok(Some(row)) => {
                if look_at(m, &row, false) {
                    let ask =
                        Ask::new(Subject::Ct(ctid), Request::plain(OpKind::Clear), move |w| Clear::remains(w, ctid));
                    let _ = ops.ask(ask);
                }
            }
            Ok(None) => stranger(m, ctid),
            Err(_) => {}
        }
    }
}

/// Builds an inventory anew from configuration files and private areas; the one that is there is put aside.
/// Answers a line per container. The caller holds the manager's lock.
///
/// # Errors
/// The one that is there cannot be put aside, or a new one cannot be made.
pub fn rebuild(paths: &Paths) -> Result<Vec<String>> {
    make_dirs(paths)?;
    let file = paths.inventory();
    for suffix in ["", "-wal", "-shm"] {
        let mut old = file.clone().into_os_string();
        old.push(suffix);
        let mut aside = file.clone().into_os_string();
        aside.push(format!(".old-{}{suffix}", now()));
        match fs::rename(&old, &aside) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Io { what: "putting aside", path: old.into(), source: e });
            }
            _ => {}
        }
    }
    let inventory = Inventory::open_or_make(&file)?;
    let conf = crate::conf::ConfStore::new(paths.clone());
    let dir = paths.private_dir();
    let mut found: Vec<Ctid> = fs::read_dir(&dir)
        .map_err(Error::io("listing", &dir))?
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    found.sort_unstable();
    let mut lines = Vec::new();
    for ctid in found {
        lines.push(match identity::adopt(paths, &inventory, &conf, ctid) {
            Ok(warning) => format!("CT {ctid}: taken in{warning}"),
            Err(e) => format!("CT {ctid}: left out: {}", e.report()),
        });
    }
    for ctid in conf.list() {
        if !paths.private(ctid).is_dir() {
            lines.push(format!("CT {ctid}: left out: {} has no private area", paths.conf(ctid).display()));
        }
    }
    Ok(lines)
}

/// Forgets operations and events that are older than vz.toml says. How far back that is does not follow the wall clock
/// wherever it goes: one that is ahead by months must not take the history with it before somebody has put it right.
pub fn prune(m: &Manager) {
    if let Err(e) = forget_old(m) {
        tracing::warn!("forgetting old operations: {}", e.report());
    }
}

fn forget_old(m: &Manager) -> Result<()> {
    let known = m.inventory.host_fact(HISTORY)?.and_then(|text| serde_json::from_str::<History>(&text).ok());
    let wanted = now().saturating_sub(u64::from(m.config.history.days) * DAY);
    let at = vz_sys::proc::boottime().as_secs();
    let next = History { from: horizon(wanted, known.as_ref(), &m.boot_id, at), boot: m.boot_id.clone(), at };
    m.inventory.change_from(Share::Reserve, "forgetting old operations", false, |c| {
        c.prune_parts(next.from.saturating_mul(1000))?;
        c.prune_operations(next.from.saturating_mul(1000))
    })?;
    m.inventory.prune_events(next.from)?;
    Ok(m.inventory.set_host_fact(HISTORY, &serde_json::json!(next).to_string())?)
}

/// Where [`History`] is kept.
const HISTORY: &str = "history";
/// In seconds.
const DAY: u64 = 86_400;
/// So many times faster than time passes, what is remembered may grow shorter: days are caught up in which vzd did not run.
const FASTER: u64 = 24;

/// What was forgotten last.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct History {
    /// Everything before this moment, in seconds since the epoch.
    from: u64,
    /// When: in this boot of the host, so many seconds after its beginning.
    boot: String,
    at: u64,
}

/// What is forgotten up to when, if the clock says `wanted`.
fn horizon(wanted: u64, known: Option<&History>, boot: &str, at: u64) -> u64 {
    let Some(known) = known else { return wanted };
    // Between two boots nobody knows how much time has passed.
    let passed = if known.boot == boot { at.saturating_sub(known.at) * FASTER } else { DAY };
    wanted.min(known.from.saturating_add(passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_ahead_by_months_does_not_take_the_history_with_it() {
        let known = History { from: 1000 * DAY, boot: "a".into(), at: 5000 };
        let after = |wanted, boot, at| horizon(wanted, Some(&known), boot, at);
        assert_eq!(after(1120 * DAY, "a", 5060), 1000 * DAY + 60 * FASTER);
        assert_eq!(after(1120 * DAY, "b", 10), 1001 * DAY);
        assert_eq!(after(1000 * DAY + 3600, "a", 8600), 1000 * DAY + 3600, "time passes");
        assert_eq!(after(7 * DAY, "a", 8600), 7 * DAY, "one that is behind forgets nothing");
        assert_eq!(horizon(1120 * DAY, None, "a", 5), 1120 * DAY);
    }
}
