//! `private/<CTID>/ct.json`: what the inventory can be rebuilt from. Lies in the private area because the uid range belongs
//! to the files.

use crate::{
    conf::ConfStore,
    error::{Error, Result},
    inventory::{CtRow, Inventory},
};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use vz_types::{Ctid, ExitCode, Paths};

/// What lies there.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Identity {
    /// What a [`CtRow`] holds; outcomes are left out.
    #[serde(flatten)]
    row: CtRow,
}

fn file(dir: &Path) -> PathBuf {
    dir.join("ct.json")
}

/// Writes it into a private area in the making, durably.
///
/// # Errors
/// The file cannot be made or written.
pub fn write(dir: &Path, row: &CtRow) -> Result<()> {
    let path = file(dir);
    let text = serde_json::to_vec_pretty(&Identity { row: row.clone() }).map_err(|e| Error::Io {
        what: "writing",
        path: path.clone(),
        source: e.into(),
    })?;
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&text)?;
        file.sync_data()
    };
    write().map_err(Error::io("writing", &path))
}

/// Writes down a container's ranges of ids, if others are on record; durably, old or new.
///
/// # Errors
/// What is there cannot be read, or the file cannot be replaced.
pub fn renew(paths: &Paths, row: &CtRow) -> Result<()> {
    let old = read(paths, row.ctid)?;
    if old.uid_more == row.uid_more {
        return Ok(());
    }
    let dir = paths.private(row.ctid);
    let aside = dir.join(".new-identity");
    // Of one that was killed at this.
    let _ = fs::remove_file(file(&aside)).and_then(|()| fs::remove_dir(&aside));
    let _ = fs::remove_dir(&aside);
    fs::create_dir(&aside).map_err(Error::io("making", &aside))?;
    write(&aside, &CtRow { uid_more: row.uid_more.clone(), ..old })?;
    let path = file(&dir);
    let replaced = fs::rename(file(&aside), &path).and_then(|()| fs::File::open(&dir)?.sync_all());
    // Empty by now.
    let _ = fs::remove_dir(&aside);
    replaced.map_err(Error::io("replacing", &path))
}

/// Reads a container's.
///
/// # Errors
/// It cannot be read, or is another container's.
pub fn read(paths: &Paths, ctid: Ctid) -> Result<CtRow> {
    let path = file(&paths.private(ctid));
    let text = vz_sys::records::read(&path).map_err(Error::io("reading", &path))?;
    let Identity { row } = serde_json::from_slice(&text).map_err(|e| Error::Io {
        what: "reading",
        path: path.clone(),
        source: e.into(),
    })?;
    if row.ctid != ctid {
        let message = format!("{} is of CT {}", path.display(), row.ctid);
        return Err(Error::refused(ExitCode::BadConfig, message, ""));
    }
    Ok(row)
}

/// Takes a container into the inventory by what lies in its private area and its configuration. Answers a warning, or
/// an empty text.
///
/// # Errors
/// What lies there cannot be read, or is somebody else's in the inventory.
pub fn adopt(paths: &Paths, inventory: &Inventory, conf: &ConfStore, ctid: Ctid) -> Result<String> {
    let mut row = read(paths, ctid)?;
    let (config, warning) = match conf.read(ctid) {
        Ok(config) => (Some(config), String::new()),
        Err(e) => (None, format!(", without name and addresses: {e}")),
    };
    row.name = config.as_ref().and_then(|c| c.name.clone());
    let addresses = config.map(|c| c.network.ip.clone()).unwrap_or_default();
    inventory.change("adopting a container", true, |c| c.adopt(&row, &addresses))?;
    Ok(warning)
}
