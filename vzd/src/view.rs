//! What can be seen of a container at a moment: nothing here changes anything or waits for a lock that
//! an operation holds, so listing works whatever is under way.

use crate::{
    accounts::{self, Bean, Round},
    conf,
    ct::limits,
    error::{Error, Result},
    inventory::CtRow,
    manager::Manager,
    monitor::live::read_record,
    storage,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use vz_types::{CtAddr, CtConfig, CtName, CtState, Ctid, ExitCode, TemplateName, run::RunRecord, state::Trouble};

/// How much of a container is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// What it is, and whether it runs.
    Brief,
    /// Its counters and limits too, which takes some hundred system calls for each that runs.
    Whole,
}

/// What of which containers is wanted.
#[derive(Clone, Debug)]
pub struct Wants {
    /// These, or all.
    pub these: Option<BTreeSet<Ctid>>,
    /// How much of each.
    pub extent: Extent,
    /// How full its disk is.
    pub disk: bool,
    /// Its sockets at this moment, where counters are wanted at all.
    pub sockets: bool,
}

/// One container, seen.
#[derive(Clone, Debug)]
pub struct View {
    /// The inventory's account.
    pub row: CtRow,
    /// What the operator wants, or why it cannot be read.
    pub config: std::result::Result<Arc<CtConfig>, conf::Error>,
    /// Where it is.
    pub state: CtState,
    /// What keeps it in `failed` or `unknown`.
    pub trouble: Option<Trouble>,
    /// Its run record, while it runs.
    pub live: Option<RunRecord>,
    /// Addresses it has now: live ones while it runs, else configured ones.
    pub addresses: Vec<CtAddr>,
    /// Processes and threads inside.
    pub numproc: Option<u64>,
    /// How full its writable layer is, where that is known without mounting.
    pub usage: Option<storage::DiskUsage>,
    /// Its counters.
    pub beans: Vec<Bean>,
    /// Limits it has now: its configuration's, with what was changed without saving.
    pub limits: Option<CtConfig>,
    /// Limits asked for that cannot be enforced here: name and reason.
    pub unenforced: Vec<(String, String)>,
    /// It is mounted, and nothing can be written to its files: looked at now where all of it is, else as at the last look.
    pub read_only: bool,
    /// Our cgroup level, while it runs.
    pub cgroup: Option<std::path::PathBuf>,
}

/// Every container in CTID order, seen that far; those that run without being in the inventory among them. `only`: of
/// these alone, where there are any.
///
/// # Errors
/// The inventory cannot be read.
pub fn list(m: &Manager, extent: Extent, only: &[Ctid]) -> Result<Vec<View>> {
    let these = (!only.is_empty()).then(|| only.iter().copied().collect());
    let mut all = Vec::new();
    look_over(m, &Wants { these, extent, disk: true, sockets: true }, |view| all.push(view))?;
    Ok(all)
}

/// Shows `each` container that is wanted, as [`list`] does, one after the other, so that a thousand are not held in memory
/// at once.
///
/// # Errors
/// The inventory cannot be read.
pub fn look_over(m: &Manager, wants: &Wants, mut each: impl FnMut(View)) -> Result<()> {
    let mut rows: BTreeMap<Ctid, CtRow> = BTreeMap::new();
    match &wants.these {
        None => rows.extend(m.inventory.containers()?.into_iter().map(|r| (r.ctid, r))),
        Some(these) => {
            for ctid in these {
                rows.extend(m.inventory.container(*ctid)?.map(|r| (*ctid, r)));
            }
        }
    }
    let unknown = |ctid: Ctid| m.known(ctid).is_some_and(|cell| cell.state().0 == CtState::Unknown);
    let strangers: Vec<Ctid> = match &wants.these {
        None => m.cells().into_iter().filter(|(_, cell)| cell.state().0 == CtState::Unknown).map(|(c, _)| c).collect(),
        Some(these) => these.iter().copied().filter(|c| unknown(*c)).collect(),
    };
    for ctid in strangers {
        rows.entry(ctid).or_insert_with(|| stranger(m, ctid));
    }
    let round = Round::asked(wants.sockets);
    rows.into_values().for_each(|row| each(view(m, &round, row, wants.extent, wants.disk)));
    if wants.extent == Extent::Whole {
        accounts::commit(m);
    }
    Ok(())
}

/// One container.
///
/// # Errors
/// There is none.
pub fn show(m: &Manager, ctid: Ctid) -> Result<View> {
    let round = Round::asked(true);
    match m.inventory.container(ctid)? {
        Some(row) => {
            let view = view(m, &round, row, Extent::Whole, true);
            accounts::commit(m);
            Ok(view)
        }
        None if m.cell(ctid).state().0 == CtState::Unknown => {
            Ok(view(m, &round, stranger(m, ctid), Extent::Brief, true))
        }
        None => Err(m.absent(ctid)),
    }
}

/// What can be said of a container that runs and is not in the inventory.
fn stranger(m: &Manager, ctid: Ctid) -> CtRow {
    let record = read_record(&m.paths.ct_run(ctid)).ok().flatten();
    let uid_base = m.cell(ctid).stranger().or(record.as_ref().map(|r| r.uid_base));
    CtRow {
        ctid,
        uuid: String::new(),
        name: None,
        uid_base: uid_base.unwrap_or_else(|| vz_types::UidBase::from_slot(0)),
        uid_more: record.map(|r| r.uid_more).unwrap_or_default(),
        // The word is one any template could have; that it is none of its own is told by its state.
        template: "unknown".parse().unwrap_or_else(|_: vz_types::names::NameError| unreachable!("a plain word")),
        template_digest: String::new(),
        layout: Default::default(),
        created: 0,
        last_exit: None,
        last_failure: None,
    }
}

fn view(m: &Manager, round: &Round, row: CtRow, extent: Extent, disk: bool) -> View {
    let ctid = row.ctid;
    let config = m.conf.read(ctid);
    let cell = m.cell(ctid);
    let (state, trouble) = cell.state();
    let live = cell.live_now(&m.paths.ct_run(ctid));
    let state = match state {
        CtState::Stopped | CtState::Mounted => m.mounted_or_stopped(&row),
        CtState::Running if cell.live().is_some_and(|l| l.ended()) => CtState::Stopping,
        state => state,
    };
    let addresses = match (&live, &config) {
        (Some(live), _) => live.record.addresses.clone(),
        (None, Ok(config)) => config.network.ip.clone(),
        (None, Err(_)) => Vec::new(),
    };
    let usage = config.as_ref().ok().filter(|_| disk).and_then(|_| m.hands.storage.usage(&m.storage_plan(&row)));
    let read_only = match (live.is_some() || state == CtState::Mounted, extent) {
        (false, _) => false,
        (true, Extent::Whole) => m.hands.storage.is_read_only(&m.storage_plan(&row)),
        (true, Extent::Brief) => {
            accounts::was_read_only(m, ctid) && m.hands.storage.is_read_only(&m.storage_plan(&row))
        }
    };
    let files = live.as_ref().map(|l| accounts::files(m, &l.record.cgroup));
    let numproc = files.as_ref().and_then(|files| accounts::count(m, ctid, files));
    let cgroup = live.as_ref().map(|l| l.record.cgroup.clone());
    let looked_at = config.as_ref().ok().filter(|_| extent == Extent::Whole);
    let set = looked_at.map(|c| match live {
        Some(_) => limits::now(m, ctid, c),
        None => c.clone(),
    });
    let at = live.as_ref().zip(files.as_ref());
    let beans = set.as_ref().map_or_else(Vec::new, |set| accounts::beans_at(m, round, ctid, at, set, false));
    let gaps = set.as_ref().and_then(|c| limits::gaps(m, ctid, c).ok()).unwrap_or_default();
    let unenforced = gaps.into_iter().map(|g| (g.name.to_owned(), g.reason)).collect();
    let limits = set.map(|c| (*c).clone());
    let live = live.map(|l| l.record);
    View { beans, limits, unenforced, config, state, trouble, live, addresses, numproc, usage, read_only, cgroup, row }
}

/// Containers made from a template, with the digest of the build each was made from.
///
/// # Errors
/// The inventory cannot be read.
pub fn made_from(m: &Manager, template: &TemplateName) -> Result<Vec<(Ctid, String)>> {
    let rows = m.inventory.containers()?.into_iter().filter(|r| r.template == *template);
    Ok(rows.map(|r| (r.ctid, r.template_digest)).collect())
}

/// The CTID that a text is, where it is no name: for that nothing has to be looked up.
pub fn number(text: &str) -> Option<Result<Ctid>> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| {
        text.parse().map_err(|e: vz_types::ctid::CtidError| Error::refused(ExitCode::BadValue, e.to_string(), ""))
    })
}

/// Which container a CTID or name means.
///
/// # Errors
/// The text is neither, or nobody has that name.
pub fn resolve(m: &Manager, text: &str) -> Result<Ctid> {
    if let Some(ctid) = number(text) {
        return ctid;
    }
    let name: CtName =
        text.parse().map_err(|e: vz_types::names::NameError| Error::refused(ExitCode::BadValue, e.to_string(), ""))?;
    // The file wins over the claim: it may have been edited by hand.
    for row in m.inventory.containers()? {
        let now = m.conf.read(row.ctid).map_or(row.name.clone(), |c| c.name.clone());
        if now.as_ref() == Some(&name) {
            return Ok(row.ctid);
        }
    }
    let message = format!("there is no container named `{name}`");
    Err(Error::refused(ExitCode::NoConfig, message, "`vzlist -a -o ctid,name` shows the names"))
}
