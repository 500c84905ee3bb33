//! Containers that lie on disk and are not in the inventory: it was lost, emptied, or is an older copy. Until `vzd recover`
//! takes them in they are not started; but their files belong to a uid range, and their configurations have names and
//! addresses, and nobody else is given those meanwhile.

use super::{identity, settle};
use crate::{
    error::{Error, Result},
    inventory::{CtRow, private_areas},
    manager::Manager,
    monitor::process,
};
use std::{path::Path, sync::Arc, time::Duration};
use vz_api::wire::CheckItem;
use vz_types::{CtAddr, CtConfig, CtName, CtState, Ctid, ExitCode, UidBase};

/// One of them.
#[derive(Debug)]
pub struct Outsider {
    /// Its number, by its private area.
    pub ctid: Ctid,
    /// Its uid ranges, where its `ct.json` can be read.
    pub uids: Vec<UidBase>,
    config: Option<Arc<CtConfig>>,
}

/// Every one of them, in CTID order.
///
/// # Errors
/// The inventory cannot be read.
pub fn all(m: &Manager) -> Result<Vec<Outsider>> {
    let mut found = Vec::new();
    for ctid in private_areas(&m.paths.private_dir()) {
        // What is in memory as anything else is in the inventory.
        let known = |s: CtState| !matches!(s, CtState::Absent | CtState::Unknown);
        if m.known(ctid).is_some_and(|cell| known(cell.state().0)) || m.inventory.container(ctid)?.is_some() {
            continue;
        }
        let uids = match identity::read(&m.paths, ctid) {
            Ok(row) => row.all_uids(),
            Err(e) => {
                tracing::warn!(ctid = ctid.get(), "whose its files are is not known: {}", e.report());
                Vec::new()
            }
        };
        found.push(Outsider { ctid, uids, config: m.conf.read(ctid).ok() });
    }
    Ok(found)
}

/// The uid ranges of all that are not in the inventory, on disk or running, and those the host gives its users and other
/// managers of containers: nobody else may have them.
pub fn uids(m: &Manager, outsiders: &[Outsider]) -> Vec<UidBase> {
    let theirs = outsiders.iter().flat_map(|o| o.uids.iter().copied()).chain(m.strangers_uids());
    theirs.chain(SUBORDINATE.iter().flat_map(|file| subordinate(file))).collect()
}

/// Who may use which ids in user namespaces of the host (subuid(5), subgid(5)).
const SUBORDINATE: &[&str] = &["/etc/subuid", "/etc/subgid"];

fn subordinate(file: &str) -> Vec<UidBase> {
    match vz_sys::records::operators_bytes(Path::new(file)) {
        Ok(text) => ranges(&String::from_utf8_lossy(&text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => {
            tracing::warn!("{file} cannot be read, so its ids may be given to a container: {e}");
            Vec::new()
        }
    }
}

/// Our ranges that the lines of such a file take a part of.
fn ranges(text: &str) -> Vec<UidBase> {
    let slot = |id: u64| id.saturating_sub(u64::from(UidBase::MIN)) / u64::from(UidBase::COUNT);
    let of = |line: &str| -> Option<std::ops::Range<u64>> {
        let mut words = line.trim().split(':').skip(1);
        let (first, count) = (words.next()?.parse::<u64>().ok()?, words.next()?.parse::<u64>().ok()?);
        let end = first.checked_add(count).filter(|end| count > 0 && *end > u64::from(UidBase::MIN))?;
        Some(slot(first)..(slot(end - 1) + 1).min(u64::from(UidBase::SLOTS)))
    };
    text.lines().filter_map(of).flatten().filter_map(|n| u32::try_from(n).ok()).map(UidBase::from_slot).collect()
}

/// Refuses a name and addresses that one of them has.
///
/// # Errors
/// One has.
pub fn refuse_theirs(m: &Manager, outsiders: &[Outsider], name: Option<&CtName>, ips: &[CtAddr]) -> Result<()> {
    for Outsider { ctid, config, .. } in outsiders {
        let Some(config) = config else { continue };
        let (code, what) = if let Some(ip) = ips.iter().find(|ip| config.network.ip.contains(ip)) {
            (ExitCode::IpInUse, format!("address {ip}"))
        } else if let Some(name) = name.filter(|name| config.name.as_ref() == Some(name)) {
            (ExitCode::SetName, format!("the name `{name}`"))
        } else {
            continue;
        };
        let file = m.paths.conf(*ctid);
        let message = format!("{what} belongs to CT {ctid} by {}, which is not in the inventory", file.display());
        return Err(Error::refused(code, message, &remedy(m, *ctid)));
    }
    Ok(())
}

/// Refuses to start a container whose uid range another one that runs has: root of either would own the other's files.
///
/// # Errors
/// One has.
pub fn refuse_shared_uids(m: &Manager, row: &CtRow) -> Result<()> {
    let mine = row.all_uids();
    for (other, cell) in m.cells().into_iter().filter(|(other, _)| *other != row.ctid) {
        if cell.has_uids(&mine) && !(cell.live().is_none() && has_ended(m, other)) {
            let message = format!(
                "CT {}: its uid range, from {} on, is that of CT {other}, which runs",
                row.ctid,
                mine.iter().find(|base| cell.has_uids(&[**base])).map_or(0, |base| base.get())
            );
            return Err(Error::refused(ExitCode::System, message, &format!("`vzctl stop {other}` first")));
        }
    }
    Ok(())
}

/// Longest a monitor whose container has ended is waited for.
const ENDING: Duration = Duration::from_secs(2);

/// Whether a container that is not in the inventory, and is forgotten a little after its end, has come to that. One whose
/// first process has ended is about to: its monitor is waited for a moment, unless it boots again.
fn has_ended(m: &Manager, ctid: Ctid) -> bool {
    match settle::runs(m, ctid) {
        settle::Runs::No => true,
        settle::Runs::Yes(live) => {
            let init = live.record.init;
            let ending = matches!(vz_sys::proc::is_alive(init.pid, init.start_time), Ok(false));
            ending && live.monitor.as_ref().is_some_and(|monitor| process::wait_end(monitor, ENDING))
        }
        settle::Runs::Unclear(_) => false,
    }
}

fn remedy(m: &Manager, ctid: Ctid) -> String {
    let private = m.paths.private(ctid);
    format!(
        "stop vzd and run `vzd recover`, which takes CT {ctid} in again; or move {} away, if nobody wants it",
        private.display()
    )
}

/// A row of `vzctl check` for each of them.
pub fn check(m: &Manager) -> Vec<CheckItem> {
    let item = |o: Outsider| CheckItem {
        group: "container".into(),
        name: format!("CT {}", o.ctid),
        status: "missing".into(),
        found: format!("{} is not in the inventory", m.paths.private(o.ctid).display()),
        loss: Some("it cannot be started, and `vzlist` does not show it".into()),
        remedy: Some(remedy(m, o.ctid)),
    };
    all(m).unwrap_or_default().into_iter().map(item).collect()
}

/// One warning in the log for each of them.
pub fn warn(m: &Manager) {
    match all(m) {
        Ok(all) => all.iter().for_each(|o| {
            tracing::warn!(
                ctid = o.ctid.get(),
                "{} is not in the inventory: {}",
                m.paths.private(o.ctid).display(),
                remedy(m, o.ctid)
            );
        }),
        Err(e) => tracing::warn!("{}", e.report()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_the_host_gives_its_users_are_no_containers() {
        let slots = |text: &str| ranges(text).into_iter().map(UidBase::get).collect::<Vec<_>>();
        assert_eq!(slots("anna:100000:65536\nbob:165536:65536\n# x\n\nodd:1\n"), [0; 0]);
        // The seventh user of a Debian reaches into the first range; one id is enough.
        assert_eq!(slots("g:493216:65536\nh:720895:1\n"), [524_288, 655_360]);
        assert_eq!(slots("h:589824:65537\n"), [589_824, 655_360]);
        let incus = ranges("root:1000000:1000000000\n");
        assert_eq!((incus.len(), incus[0].get()), (15_260, 983_040));
        assert!(ranges("all:0:99999999999\n").len() == UidBase::SLOTS as usize && ranges("n:600000:0").is_empty());
    }
}
