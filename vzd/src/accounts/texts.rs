//! The files in which beancounters are read by others: `/run/vz/user_beancounters` of the host, and a small filesystem
//! for each running container, which it sees as its own `/run/vz`, read-only.
//!
//! ```text
//!  start:          a tmpfs at /run/vz/bc/CTID, first texts, bin/vzubc  -> cloned into the container by vzmon
//!  every 5 s:      texts replaced that have changed, through the host's mount
//!  end, or sweep:  unmounted here; the container's own mount went with its namespace
//! ```
//! It is a filesystem of its own, so that nothing of the host's `/run` is mounted inside, and what is inside can neither
//! fill nor name it.

use super::{Bean, beans, text_of};
use crate::{
    error::{Error, Result},
    inventory::CtRow,
    manager::Manager,
};
use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};
use vz_types::{
    CtConfig, Ctid,
    limits::{
        Ub,
        table::COUNTERS,
        text::{self, Figures},
    },
};

/// vzubc for the inside: a script for any POSIX shell, because nothing is known of what is there.
const VZUBC: &str = include_str!("vzubc.sh");

fn get(beans: &[Bean], ub: Ub) -> Figures {
    beans.get(ub as usize).map(|b| b.figures).unwrap_or_default()
}

/// The classic file of the host, from what each of these containers' accounts says.
pub(super) fn write(m: &Manager, all: &[Ctid]) -> io::Result<()> {
    let path = m.paths.user_beancounters();
    let temp = path.with_extension("new");
    let mut file = io::BufWriter::with_capacity(64 << 10, fs::File::create(&temp)?);
    file.write_all(header().as_bytes())?;
    for ctid in all {
        text_of(m, *ctid, |text| file.write_all(text.as_bytes()))?;
    }
    file.flush()?;
    fs::set_permissions(&temp, fs::Permissions::from_mode(0o644))?;
    fs::rename(&temp, path)
}

/// Those of one container; answers its part of the host's.
pub(super) fn write_own(m: &Manager, ctid: Ctid, beans: &[Bean]) -> io::Result<String> {
    let get = |ub: Ub| get(beans, ub);
    let mut text = text::user_beancounters(&[(ctid.get(), get)]);
    let dir = m.paths.bc(ctid);
    if dir.is_dir() {
        replace(&dir.join("user_beancounters"), &text, 0o644)?;
        replace(&dir.join("resources"), &text::resources(get), 0o644)?;
        replace(&dir.join("classes"), &classes(beans), 0o644)?;
    }
    Ok(text.split_off(header().len()))
}

/// Makes the filesystem that a container is to see as its /run/vz, with its first files.
///
/// # Errors
/// It cannot be mounted or written to.
pub fn make(m: &Manager, row: &CtRow, config: &CtConfig) -> Result<()> {
    let dir = m.paths.bc(row.ctid);
    m.hands.storage.remove_small_filesystem(&dir);
    fs::create_dir_all(&dir).map_err(Error::io("making", &dir))?;
    m.hands.storage.small_filesystem(&dir).map_err(Error::io("mounting a tmpfs at", &dir))?;
    let bin = dir.join("bin");
    fs::create_dir(&bin)
        .and_then(|()| fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)))
        .and_then(|()| replace(&bin.join("vzubc"), VZUBC, 0o755))
        .map_err(Error::io("writing", &bin))?;
    let beans = beans(m, row, Some(config), false);
    write_own(m, row.ctid, &beans).map(drop).map_err(Error::io("writing", &dir))
}

/// Takes away those of containers that do not run: a crash came between.
pub fn sweep(m: &Manager, running: &BTreeSet<Ctid>) {
    let entries = fs::read_dir(m.paths.bc_dir()).ok();
    for entry in entries.into_iter().flatten().flatten() {
        let ctid = entry.file_name().to_str().and_then(|n| n.parse::<Ctid>().ok());
        if ctid.is_none_or(|c| !running.contains(&c)) {
            m.hands.storage.remove_small_filesystem(&entry.path());
        }
    }
}

/// What comes before the first container.
fn header() -> String {
    text::user_beancounters::<fn(Ub) -> Figures>(&[])
}

/// A line for each counter: its name, class, and what is to be said about it, with tabs between.
fn classes(beans: &[Bean]) -> String {
    let line = |b: &Bean| format!("{}\t{}\t{}\n", b.ub, b.class.word(), b.reason.as_deref().unwrap_or_default());
    COUNTERS.iter().zip(beans).map(|(_, b)| line(b)).collect()
}

/// Replaces a file that others read at any moment; nothing durable, it is made anew all the time.
fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    if vz_sys::records::long_text(path, vz_sys::records::MAX_LIST).is_ok_and(|t| t == text) {
        return Ok(());
    }
    let temp = path.with_extension("new");
    fs::write(&temp, text)?;
    fs::set_permissions(&temp, fs::Permissions::from_mode(mode))?;
    fs::rename(&temp, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_all_is_the_header_and_each_ones_part() {
        let f = |_: Ub| Figures { held: 1, ..Figures::default() };
        let part = |ctid: u32| text::user_beancounters(&[(ctid, f)]).split_off(header().len());
        assert_eq!(header() + &part(101) + &part(102), text::user_beancounters(&[(101, f), (102, f)]));
    }
}
