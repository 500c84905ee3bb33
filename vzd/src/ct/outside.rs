//! Containers that lie on disk and are not in the inventory: it was lost, emptied, or is an older copy. Until `vzd recover`
//! takes them in they are not started; but their files belong to a uid range, and their configurations have names and
//! addresses, and nobody else is given those meanwhile.

use super::identity;
use crate::{
    error::{Error, Result},
    inventory::{CtRow, private_areas},
    manager::Manager,
};
use std::sync::Arc;
use vz_api::wire::CheckItem;
use vz_types::{CtAddr, CtConfig, CtName, CtState, Ctid, ExitCode, UidBase};

/// One of them.
#[derive(Debug)]
pub struct Outsider {
    /// Its number, by its private area.
    pub ctid: Ctid,
    /// Its uid range, where its `ct.json` can be read.
    pub uid_base: Option<UidBase>,
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
        let uid_base = match identity::read(&m.paths, ctid) {
            Ok(row) => Some(row.uid_base),
            Err(e) => {
                tracing::warn!(ctid = ctid.get(), "whose its files are is not known: {}", e.report());
                None
            }
        };
        found.push(Outsider { ctid, uid_base, config: m.conf.read(ctid).ok() });
    }
    Ok(found)
}

/// The uid ranges of all that are not in the inventory, on disk or running: nobody else may have them.
pub fn uids(m: &Manager, outsiders: &[Outsider]) -> Vec<UidBase> {
    outsiders.iter().filter_map(|o| o.uid_base).chain(m.strangers_uids()).collect()
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
    for (other, cell) in m.cells().into_iter().filter(|(other, _)| *other != row.ctid) {
        if cell.has_uids(row.uid_base) {
            let message = format!(
                "CT {}: its uid range, from {} on, is that of CT {other}, which runs",
                row.ctid,
                row.uid_base.get()
            );
            return Err(Error::refused(ExitCode::System, message, &format!("`vzctl stop {other}` first")));
        }
    }
    Ok(())
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
