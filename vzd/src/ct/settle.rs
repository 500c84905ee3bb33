//! Where a container is, by what is found of it: after something was taken back, and when vzd starts.

use crate::{
    error::Result,
    inventory::CtRow,
    manager::Manager,
    monitor::{Found, Live},
};
use std::path::Path;
use vz_types::{CtState, Ctid, ExitCode, plan::StoragePlan};

/// What is found of it now. An absent one has no row.
pub fn found(m: &Manager, ctid: Ctid) -> CtState {
    match (m.is_running(ctid), m.inventory.container(ctid)) {
        (true, _) => CtState::Running,
        (false, Ok(Some(row))) => m.mounted_or_stopped(&row),
        (false, Ok(None)) => CtState::Absent,
        // What cannot be read is as it was.
        (false, Err(_)) => m.cell(ctid).state().0,
    }
}

/// Whether a container runs, as far as that can be told from its run directory and its cgroup.
#[derive(Debug)]
pub enum Runs {
    /// It does.
    Yes(Box<Live>),
    /// It does not; remains may be there.
    No,
    /// Something of it runs, or may: what is missing to understand it.
    Unclear(String),
}

/// Looks. Whatever cannot be read is no proof of anything.
pub fn runs(m: &Manager, ctid: Ctid) -> Runs {
    let populated = m.tree().map_err(|e| e.report()).and_then(|t| t.populated(ctid).map_err(|e| e.to_string()));
    match (m.hands.monitor.find(&m.paths.ct_run(ctid), &m.boot_id), populated) {
        (Found::Live(live), _) => Runs::Yes(live),
        // No cgroup tree at all: nothing of ours can run in one.
        (_, Err(cause)) if m.tree().is_ok() => Runs::Unclear(format!("its cgroup cannot be read: {cause}")),
        (_, Ok(false) | Err(_)) => Runs::No,
        (Found::Unclear(cause), Ok(true)) => Runs::Unclear(cause),
        (Found::Nothing, Ok(true)) => {
            Runs::Unclear(format!("its monitor's record {}/state.json is missing", m.paths.ct_run(ctid).display()))
        }
        // Its monitor is dead, and what is left of it dies with that.
        (Found::Stale, Ok(true)) => Runs::No,
    }
}

/// Refuses when the private area is missing.
///
/// # Errors
/// It is.
pub fn private_area(m: &Manager, row: &CtRow) -> Result<()> {
    let private = m.paths.private(row.ctid);
    if private.is_dir() {
        return Ok(());
    }
    let message = format!("CT {}: its private area {} is missing", row.ctid, private.display());
    Err(crate::error::Error::refused(
        ExitCode::NoPrivateArea,
        message,
        "restore it from a backup, or `vzctl destroy` what is left",
    ))
}

/// Makes the mount point of a container's root.
///
/// # Errors
/// It cannot be made.
pub fn make_root(root: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
    made.map_err(crate::error::Error::io("making", root))
}

/// Unmounts a container's files and removes the mount point, which is ours and empty then.
///
/// # Errors
/// Something is still mounted.
pub fn hide(m: &Manager, plan: &StoragePlan) -> Result<()> {
    let unmounted = m.hands.storage.umount(plan);
    crate::storage::spare::remove(&m.paths, &plan.root);
    match unmounted {
        // Unmounted here; another mount namespace (a copy of ours) keeps the image's loop device, which the next mount
        // uses again.
        Err(crate::storage::StorageError::Busy { path, by }) if path.ends_with("disk.img") => {
            tracing::warn!(path = %path.display(), "unmounted, but still in use{by}");
            Ok(())
        }
        done => Ok(done?),
    }
}

/// Seconds a graceful stop may take.
pub fn stop_timeout(m: &Manager, config: Option<&vz_types::CtConfig>) -> u32 {
    config.and_then(|c| c.stop_timeout).unwrap_or(m.config.defaults.stop_timeout)
}

/// Removes the remains of an earlier run: files of ours in a directory of ours.
///
/// # Errors
/// One cannot be removed.
pub fn clear_run_dir(dir: &Path) -> Result<()> {
    use crate::error::Error;
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::Io { what: "listing", path: dir.into(), source: e }),
    };
    for entry in entries.flatten() {
        std::fs::remove_file(entry.path()).map_err(Error::io("removing", entry.path()))?;
    }
    std::fs::remove_dir(dir).map_err(Error::io("removing", dir))
}

/// Where a private area is made before it has its name.
pub fn staging(m: &Manager, ctid: Ctid) -> std::path::PathBuf {
    m.paths.private_dir().join(format!(".new-{ctid}"))
}

/// Asks the network whether anybody else answers for these addresses.
///
/// # Errors
/// Somebody does.
pub fn probe(m: &Manager, addresses: &[vz_types::CtAddr]) -> Result<()> {
    for ip in addresses {
        m.hands.network.probe(ip)?;
    }
    Ok(())
}

/// Mounts a stopped container if it is not, edits its files from inside, and unmounts it again if it was not.
///
/// # Errors
/// The edit's; else that it cannot be unmounted.
pub fn edit_stopped(m: &Manager, row: &CtRow, edits: Vec<vz_types::plan::FileEdit>) -> Result<()> {
    use crate::error::Error;
    let storage = m.storage_plan(row);
    let was_mounted = m.hands.storage.is_mounted(&storage).map_err(Error::io("looking at", &storage.root))?;
    if !was_mounted {
        make_root(&storage.root)?;
        m.hands.monitor.mount(&m.mount_plan(row))?;
    }
    let plan = vz_types::plan::EditPlan { ctid: row.ctid, storage: storage.clone(), more: row.uid_more.clone(), edits };
    let done = m.hands.monitor.edit(&plan);
    let umounted = if was_mounted { Ok(()) } else { hide(m, &storage) };
    done?;
    umounted
}
