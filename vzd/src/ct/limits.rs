//! Limits as part of operations: what is refused before anything is done, what a start writes before the first process
//! exists, what a change writes to a running container, and what is put back after a failure or a kill.
//!
//! What a running container has now is in `limits.json` of its run directory, because a change that is not saved is not
//! in its configuration. The kernel's files are written first and read back; the note follows.

use crate::{
    conf,
    error::{Error, Result},
    inventory::CtRow,
    ledger::{Last, LimitsNow, Stamp},
    limits::{
        Gap, Host,
        apply::{self, Write},
        disks, host, sockets,
    },
    manager::{Manager, lock},
    monitor::Live,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use vz_sys::rlimits;
use vz_types::{
    CtConfig, Ctid, ExitCode, Fact,
    limits::{
        Amount, Class, CpuConfig, IoConfig, LimitChanges, LimitsConfig, PAGE, Ub,
        amount::human,
        config::above_host,
        kernel::{self, Inside, Setting},
    },
    manager::Unenforceable,
    plan::ControlRequest,
};

/// The three tables of a configuration that limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitSet {
    limits: LimitsConfig,
    cpu: CpuConfig,
    io: IoConfig,
}

impl LimitSet {
    /// Those of a configuration.
    pub fn of(c: &CtConfig) -> Self {
        Self { limits: c.limits.clone(), cpu: c.cpu.clone(), io: c.io.clone() }
    }

    /// The configuration with these instead of its own.
    pub fn in_config(&self, c: &CtConfig) -> CtConfig {
        CtConfig { limits: self.limits.clone(), cpu: self.cpu.clone(), io: self.io.clone(), ..c.clone() }
    }
}

/// The note in the run directory.
const NOTE: &str = "limits.json";
/// What the monitor may take to change what is inside.
const CONTROL: Duration = Duration::from_secs(7);
/// How long a look at the host counts: an operator may mount or remount while vzd runs, and a list asks for every
/// container.
const HOST_STAYS: Duration = Duration::from_secs(1);

/// What this host can enforce.
pub fn host_limits(m: &Manager) -> Result<Arc<Host>> {
    let cgroups = m.tree()?;
    let mut last = lock(&m.host);
    match last.as_ref().filter(|(at, _)| at.elapsed() < HOST_STAYS) {
        Some((_, host)) => Ok(host.clone()),
        None => {
            let host = Arc::new(Host::look(cgroups.mount(), cgroups.controllers()));
            *last = Some((Instant::now(), host.clone()));
            Ok(host)
        }
    }
}

/// Refuses limits above what the host has.
pub fn check_host_size(config: &CtConfig, code: ExitCode) -> Result<()> {
    match above_host(&config.limits, &config.cpu, &host::size()) {
        None => Ok(()),
        Some(e) => Err(Error::refused(code, e.to_string(), "")),
    }
}

/// Every limit of a configuration that cannot be enforced here, disks included.
pub fn gaps(m: &Manager, ctid: Ctid, config: &CtConfig) -> Result<Vec<Gap>> {
    let cgroups = m.tree()?;
    let mut gaps = host_limits(m)?.gaps(config);
    let io = kernel::io_max(config) != kernel::IO_MAX_NONE;
    let weight = kernel::io_weight(config) != 100;
    let known = |gaps: &[Gap]| gaps.iter().any(|g| g.name.starts_with("io"));
    if (io || weight) && !known(&gaps) {
        let name = if io { io_name(config) } else { "ioprio" };
        match disks::under(&m.paths.private(ctid)).or_else(|_| disks::under(&m.paths.private_dir())) {
            Err(reason) => gaps.push(Gap {
                name,
                reason,
                remedy: "put /var/lib/vz/private on a filesystem with a disk of its own (ext4 or xfs)",
            }),
            Ok(disk) if weight => {
                gaps.extend(disks::weightless(cgroups.mount(), disk).map(|reason| Gap {
                    name: "ioprio",
                    reason,
                    remedy: disks::WEIGHT_REMEDY,
                }));
            }
            Ok(_) => {}
        }
    }
    Ok(gaps)
}

/// What vz.toml says about limits that cannot be enforced: a refusal, or what is to be told.
///
/// # Errors
/// The refusal, with the first one's remedy.
pub fn accept_gaps(m: &Manager, ctid: Ctid, gaps: &[Gap]) -> Result<Vec<Fact>> {
    let Some(first) = gaps.first() else { return Ok(Vec::new()) };
    if m.config.limits.unenforceable == Unenforceable::Refuse {
        let all: Vec<String> = gaps.iter().map(|g| format!("{} ({})", g.name, g.reason)).collect();
        let message = format!("CT {ctid}: this host cannot enforce {}", all.join(", "));
        let hint =
            format!("{}; or set `unenforceable = \"warn\"` under [limits] in vz.toml to run it without", first.remedy);
        return Err(Error::refused(host::code(first.name), message, &hint));
    }
    let fact = |g: &Gap| Fact::Unenforced { name: g.name.to_owned(), cause: g.reason.clone(), runs: true };
    Ok(gaps.iter().map(fact).collect())
}

/// Writes a configuration's limits to a cgroup that was just made, before anything of the container's runs in it.
pub fn limit_new(m: &Manager, ctid: Ctid, config: &CtConfig) -> Result<()> {
    let cgroups = m.tree()?;
    let dir = cgroups.path(ctid);
    let settings = host_limits(m)?.possible(kernel::settings(config));
    let writes: Vec<Write> = settings.iter().filter(|s| s.is_set()).map(Write::from).collect();
    write(&dir, &writes)?;
    show_inside(&dir);
    // Counting is worth having without a limit; where the kernel cannot, a limit was refused or warned about.
    if let Err(e) = sockets::attach(&dir) {
        tracing::debug!(ctid = ctid.get(), "sockets are not counted: {e}");
    } else {
        for ub in [Ub::Numtcpsock, Ub::Numothersock] {
            sockets::limit(&dir, ub, config.limits.get(ub).limit).map_err(socket_error(ctid, ub))?;
        }
    }
    if let Err(e) = sockets::guard(&dir, &Inside::of(config)) {
        tracing::warn!(ctid = ctid.get(), "root inside can raise tcpsndbuf, tcprcvbuf and shmpages: {e}");
    }
    protect(m, ctid)
}

/// Limits a container's disks, its own image's among them, which is there once it is mounted.
pub fn limit_disks(m: &Manager, ctid: Ctid, config: &CtConfig) -> Result<()> {
    let dir = m.tree()?.path(ctid);
    write(&dir, &disk_writes(m, ctid, config, false)?)
}

/// Writes for the disks; `all`: those that say "no limit" too.
fn disk_writes(m: &Manager, ctid: Ctid, config: &CtConfig, all: bool) -> Result<Vec<Write>> {
    let words = kernel::io_max(config);
    let weight = kernel::io_weight(config);
    let cgroups = m.tree()?;
    if !cgroups.controllers().iter().any(|c| c == "io") {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    if all || words != kernel::IO_MAX_NONE {
        match disks::of(&m.paths.private(ctid)) {
            Ok(found) => out.extend(apply::io_writes(io_name(config), &found, &words)),
            Err(reason) if words != kernel::IO_MAX_NONE => {
                tracing::warn!(ctid = ctid.get(), "{} is not enforced: {reason}", io_name(config));
            }
            Err(_) => {}
        }
    }
    if all || weight != 100 {
        let dir = cgroups.path(ctid);
        for (file, value) in
            [("io.weight", format!("default {weight}")), ("io.bfq.weight", format!("default {weight}"))]
        {
            if dir.join(file).exists() {
                out.push(Write { name: "ioprio", file, value });
            }
        }
    }
    Ok(out)
}

/// Notes what a running container has.
pub fn note(m: &Manager, ctid: Ctid, set: &LimitSet) -> Result<()> {
    let path = m.paths.ct_run(ctid).join(NOTE);
    // A struct of numbers always has a JSON form.
    let text = serde_json::to_vec(set).unwrap_or_default();
    conf::write_for_this_boot(&path, &text, 0o600).map_err(Error::io("writing", path))
}

/// The limits a running container has now: its configuration's, with what was changed without saving.
pub fn live(m: &Manager, ctid: Ctid) -> Option<LimitSet> {
    serde_json::from_slice(&vz_sys::records::read(&m.paths.ct_run(ctid).join(NOTE)).ok()?).ok()
}

/// Which version of the note there is.
pub(crate) fn stamp(m: &Manager, ctid: Ctid) -> Option<Stamp> {
    let file = fs::symlink_metadata(m.paths.ct_run(ctid).join(NOTE)).ok()?;
    Some((file.ino(), file.mtime(), file.mtime_nsec()))
}

/// The configuration with these limits, made again only when the note or the configuration is another.
pub(crate) fn now(m: &Manager, ctid: Ctid, config: &Arc<CtConfig>) -> Arc<CtConfig> {
    let note = stamp(m, ctid);
    let account = m.accounts.of(ctid);
    let mut account = lock(&account);
    match &account.limits {
        Some(l) if l.note == note && Arc::ptr_eq(&l.config, config) => l.set.clone(),
        _ => {
            let set = note.and_then(|_| live(m, ctid)).map(|set| Arc::new(set.in_config(config)));
            // Most have what their configuration says, and then it is kept once.
            let set = set.filter(|set| **set != **config).unwrap_or_else(|| config.clone());
            account.limits = Some(LimitsNow { note, config: config.clone(), set: set.clone() });
            account.last = Last::default();
            set
        }
    }
}

/// Refuses a limit below what a running container holds.
pub fn check_shrink(m: &Manager, row: &CtRow, old: &CtConfig, new: &CtConfig) -> Result<()> {
    let dir = m.tree()?.path(row.ctid);
    let lower = |ub: Ub| {
        let (was, is) = (old.limits.get(ub).limit, new.limits.get(ub).limit);
        is.number().filter(|_| is < was)
    };
    let refuse = |ub: Ub, used: String, wanted: String| {
        let message = format!("CT {}: {ub} cannot be {wanted}: {used} are in use", row.ctid);
        Err(Error::refused(ExitCode::BadValue, message, "choose a higher limit, or have the container use less first"))
    };
    if let (Some(limit), Some(used)) = (lower(Ub::Physpages), apply::number(&dir, "memory.current")) {
        let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
        let cache: u64 = ["inactive_file", "active_file", "slab_reclaimable"]
            .iter()
            .filter_map(|k| crate::limits::read::keyed(&stat, k))
            .sum();
        let kept = used.saturating_sub(cache);
        if kept > limit.saturating_mul(PAGE) {
            return refuse(
                Ub::Physpages,
                format!("{} of memory that cannot be given back", human(kept)),
                human(limit * PAGE),
            );
        }
    }
    if let (Some(limit), Some(used)) = (lower(Ub::Swappages), apply::number(&dir, "memory.swap.current")) {
        if used > limit.saturating_mul(PAGE) {
            return refuse(Ub::Swappages, format!("{} of swap space", human(used)), human(limit * PAGE));
        }
    }
    if let Some([tcp, other]) = sockets::figures(&dir) {
        for (ub, held) in [(Ub::Numtcpsock, tcp.held), (Ub::Numothersock, other.held)] {
            if let Some(limit) = lower(ub).filter(|limit| held > *limit) {
                return refuse(ub, format!("{held} sockets"), limit.to_string());
            }
        }
    }
    if let (Some(limit), Some(used)) = (lower(Ub::Numproc), m.tree()?.count(row.ctid)) {
        if used > limit {
            return refuse(Ub::Numproc, format!("{used} processes and threads"), limit.to_string());
        }
    }
    Ok(())
}

/// Gives a running container other limits: the cgroup, its disks, its processes and its namespaces. After a failure
/// the cgroup holds what it held.
pub fn limit_running(m: &Manager, row: &CtRow, live: &Live, old: &CtConfig, new: &CtConfig) -> Result<()> {
    let ctid = row.ctid;
    let cgroups = m.tree()?;
    let dir = cgroups.path(ctid);
    let before = kernel::settings(old);
    let changed = |s: &Setting| before.iter().all(|b| b.file != s.file || b.value != s.value);
    let host = host_limits(m)?;
    let mut writes: Vec<Write> =
        host.possible(kernel::settings(new)).iter().filter(|s| changed(s)).map(Write::from).collect();
    if kernel::io_max(old) != kernel::io_max(new) || kernel::io_weight(old) != kernel::io_weight(new) {
        writes.extend(disk_writes(m, ctid, new, true)?);
    }
    write(&dir, &writes)?;
    show_inside(&dir);
    for ub in [Ub::Numtcpsock, Ub::Numothersock] {
        let (was, is) = (old.limits.get(ub).limit, new.limits.get(ub).limit);
        if was != is {
            sockets::limit(&dir, ub, is).map_err(socket_error(ctid, ub))?;
        }
    }
    let (was, is) = (Inside::of(old), Inside::of(new));
    if let Err(e) = sockets::guard(&dir, &is) {
        tracing::warn!(ctid = ctid.get(), "root inside can raise tcpsndbuf, tcprcvbuf and shmpages: {e}");
    }
    if was != is {
        if let Err(e) = limit_inside(m, ctid, live, &was, &is) {
            if let Err(e) = limit_inside(m, ctid, live, &is, &was) {
                tracing::warn!(ctid = ctid.get(), "putting limits back: {}", e.report());
            }
            let back: Vec<Write> = host.possible(before).iter().map(Write::from).collect();
            if let Err(e) = write(&dir, &back) {
                tracing::warn!(ctid = ctid.get(), "putting limits back: {}", e.report());
            }
            show_inside(&dir);
            return Err(e);
        }
    }
    protect(m, ctid)?;
    note(m, ctid, &LimitSet::of(new))
}

fn limit_inside(m: &Manager, ctid: Ctid, live: &Live, was: &Inside, is: &Inside) -> Result<()> {
    let request = ControlRequest::SetLimits { limits: is.clone() };
    m.hands.monitor.control(&m.paths.ct_run(ctid), &request, CONTROL)?;
    rlimits::limit(&live.record.cgroup, is, was, false).map_err(|e| {
        let refused = e.raw_os_error() == Some(libc::EPERM);
        let hint = if refused {
            "vzd needs CAP_SYS_RESOURCE to raise limits of running processes; restart the container instead"
        } else {
            ""
        };
        Error::refused(
            ExitCode::Resource,
            format!("CT {ctid}: resource limits of its processes cannot be changed: {e}"),
            hint,
        )
    })
}

/// After a failure or a kill: everything as this set says.
pub fn converge(m: &Manager, row: &CtRow, live: &Live, config: &CtConfig, set: &LimitSet) -> Result<()> {
    let config = set.in_config(config);
    let cgroups = m.tree()?;
    let host = host_limits(m)?;
    let mut writes: Vec<Write> = host.possible(kernel::settings(&config)).iter().map(Write::from).collect();
    writes.extend(disk_writes(m, row.ctid, &config, true)?);
    write(&cgroups.path(row.ctid), &writes)?;
    show_inside(&cgroups.path(row.ctid));
    protect(m, row.ctid)?;
    // A kernel that does not take the programs has nothing to be put back.
    for ub in [Ub::Numtcpsock, Ub::Numothersock].into_iter().filter(|ub| host.socket_gap(*ub).is_none()) {
        sockets::limit(&cgroups.path(row.ctid), ub, config.limits.get(ub).limit).map_err(socket_error(row.ctid, ub))?;
    }
    let inside = Inside::of(&config);
    limit_inside(m, row.ctid, live, &live.record.limits, &inside)?;
    note(m, row.ctid, set)
}

/// Refuses a start that would promise more memory than the host has (`memory.min` of all that run).
pub fn admit(m: &Manager, ctid: Ctid, config: &CtConfig) -> Result<()> {
    let Amount::At(asked) = config.limits.get(Ub::Oomguarpages).barrier else { return Ok(()) };
    if asked == 0 || m.config.limits.oversell_guarantees {
        return Ok(());
    }
    let others: u64 = promised(m, Some(ctid))?;
    let has = host::size().memory.saturating_sub(m.config.limits.reserve.0);
    let sum = others.saturating_add(asked.saturating_mul(PAGE));
    if sum <= has {
        return Ok(());
    }
    let message = format!(
        "CT {ctid}: its guarantee oomguarpages of {} cannot be given: {} are promised to running containers, and the host has {} to promise",
        human(asked * PAGE),
        human(others),
        human(has)
    );
    let hint =
        "lower oomguarpages, stop another container, or set `oversell_guarantees = true` under [limits] in vz.toml";
    Err(Error::refused(ExitCode::Resource, message, hint))
}

/// Bytes of `memory.min` promised to running containers, but for one.
pub fn promised(m: &Manager, but: Option<Ctid>) -> Result<u64> {
    let cells = m.cells();
    let running =
        cells.iter().filter(|(ctid, cell)| Some(*ctid) != but && cell.live().is_some_and(|live| !live.ended()));
    let pages = running.filter_map(|(ctid, _)| {
        let set = match m.conf.read(*ctid) {
            Ok(config) => now(m, *ctid, &config).limits.clone(),
            // A broken file takes no promise back.
            Err(_) => live(m, *ctid)?.limits,
        };
        set.get(Ub::Oomguarpages).barrier.number()
    });
    Ok(pages.map(|pages| pages.saturating_mul(PAGE)).fold(0, u64::saturating_add))
}

/// Guarantees reach a container only through its parent: our own level promises exactly what its containers are
/// promised, no more, or `memory_recursiveprot` would hand the rest to those that have none. Called when a container's
/// own may have changed.
fn protect(m: &Manager, ctid: Ctid) -> Result<()> {
    let cgroups = m.tree()?;
    if !cgroups.controllers().iter().any(|c| c == "memory") {
        return Ok(());
    }
    let mut known = lock(&m.accounts.promises);
    // Asked of every container once; from then on only of the one that changes.
    let all = known.get_or_insert_with(|| promised_to_each(cgroups));
    all.insert(ctid, own_promises(cgroups, ctid));
    // A start that was taken back has removed its cgroup without a word here.
    let there: BTreeSet<Ctid> = if all.len() > 1 { cgroups.list().into_iter().collect() } else { [ctid].into() };
    all.retain(|c, promised| *promised != [0; 2] && there.contains(c));
    promise(cgroups.base(), all)
}

fn own_promises(cgroups: &dyn crate::limits::tree::Tree, ctid: Ctid) -> [u64; 2] {
    PROMISES.map(|(_, file)| apply::number(&cgroups.path(ctid), file).unwrap_or(0))
}

/// What every container is promised now.
fn promised_to_each(cgroups: &dyn crate::limits::tree::Tree) -> BTreeMap<Ctid, [u64; 2]> {
    cgroups.list().into_iter().map(|c| (c, own_promises(cgroups, c))).collect()
}

/// A container's cgroup is about to go, and with it what it was promised.
pub fn promise_nothing(m: &Manager, ctid: Ctid) {
    let Ok(cgroups) = m.tree() else { return };
    if !cgroups.controllers().iter().any(|c| c == "memory") {
        return;
    }
    let mut known = lock(&m.accounts.promises);
    // An earlier vzd may have promised it.
    let unknown = known.is_none();
    let all = known.get_or_insert_with(|| promised_to_each(cgroups));
    if all.remove(&ctid).is_some() || unknown {
        if let Err(e) = promise(cgroups.base(), all) {
            tracing::warn!(ctid = ctid.get(), "what it was promised is not given back yet: {}", e.report());
        }
    }
}

fn socket_error(ctid: Ctid, ub: Ub) -> impl FnOnce(std::io::Error) -> Error {
    move |e| {
        Error::refused(ExitCode::Resource, format!("CT {ctid}: {ub} cannot be limited: {e}"), "restart the container")
    }
}

fn io_name(config: &CtConfig) -> &'static str {
    if config.io.limit.is_some() || config.io.iops.is_none() { "iolimit" } else { "iopslimit" }
}

fn write(dir: &Path, writes: &[Write]) -> Result<()> {
    apply::write_all(dir, writes).map_err(|e| match e {
        apply::Error::InUse { .. } => Error::refused(
            ExitCode::BadValue,
            e.to_string(),
            "choose a higher limit, or have the container use less first",
        ),
        e => Error::Limit(e),
    })
}

/// Limits that a container sees in its own `/sys/fs/cgroup`, where programs look for how much they may take.
const SHOWN: [&str; 4] = ["memory.max", "memory.swap.max", "pids.max", "cpu.max"];

/// Copies them to the delegated level, whose own limits root inside cannot write. What holds is our level, so one that
/// cannot be copied is no failure.
fn show_inside(dir: &Path) {
    for file in SHOWN {
        let inside = dir.join("ns").join(file);
        let (Ok(ours), Ok(theirs)) = (fs::read_to_string(dir.join(file)), fs::read_to_string(&inside)) else {
            continue;
        };
        if ours != theirs {
            if let Err(e) = fs::write(&inside, ours.trim()) {
                tracing::warn!("{} does not show the limit: {e}", inside.display());
            }
        }
    }
}

/// Guarantees, and the file of each.
const PROMISES: [(&str, &str); 2] = [("vmguarpages", "memory.low"), ("oomguarpages", "memory.min")];

/// Makes our own level promise the sum of these.
fn promise(base: &Path, all: &BTreeMap<Ctid, [u64; 2]>) -> Result<()> {
    for (n, (name, file)) in PROMISES.into_iter().enumerate() {
        let sum = all.values().map(|promised| promised[n]).fold(0, u64::saturating_add);
        if apply::number(base, file) != Some(sum) {
            write(base, &[Write { name, file, value: (sum - sum % PAGE).to_string() }])?;
        }
    }
    Ok(())
}

/// What is to be told about counters whose limit refuses nothing, or not for the whole container.
pub fn remarks(changes: &LimitChanges) -> Vec<Fact> {
    let of = |class: Class| {
        let names = changes.counters().filter(|ub| ub.row().class == class).map(|ub| ub.name().to_owned());
        names.collect::<Vec<_>>()
    };
    let mut out = Vec::new();
    let accounted = of(Class::Accounted);
    if !accounted.is_empty() {
        out.push(Fact::AccountedOnly { names: accounted });
    }
    let each = of(Class::PerProcess);
    if !each.is_empty() {
        out.push(Fact::PerProcess { names: each });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_level_promises_the_sum_of_what_containers_are_promised() {
        let base = tempfile::tempdir().unwrap();
        let held = || PROMISES.map(|(_, file)| apply::number(base.path(), file));
        let mut all: BTreeMap<Ctid, [u64; 2]> =
            [(101.try_into().unwrap(), [8192, 0]), (102.try_into().unwrap(), [4096, 4096])].into();
        promise(base.path(), &all).unwrap();
        assert_eq!(held(), [Some(12_288), Some(4096)]);
        all.pop_first();
        promise(base.path(), &all).unwrap();
        assert_eq!(held(), [Some(4096), Some(4096)]);
        promise(base.path(), &BTreeMap::new()).unwrap();
        assert_eq!(held(), [Some(0), Some(0)]);
    }
}
