//! Ranges of ids besides a container's first: claimed when it starts with a configuration that wants more, and its for life.

use super::{identity, outside, settle};
use crate::{error::Result, inventory::CtRow, manager::Manager};
use vz_types::{IdCount, UidBase};

/// Claims what the configuration wants beyond what there is, and answers all ranges but the first. Written down in the
/// inventory first, then beside the files, which belong to the ranges.
///
/// # Errors
/// No range is left, or it cannot be written down.
pub fn claim(m: &Manager, row: &CtRow, wanted: IdCount) -> Result<Vec<UidBase>> {
    let mut more = row.uid_more.clone();
    if more.len() < wanted.more() {
        let avoid = outside::uids(m, &outside::all(m)?);
        more = m.inventory.change("claiming ids", true, |c| c.claim_ids(row.ctid, wanted.more(), &avoid))?;
        // What an operator has mounted shows the ids it had.
        if m.is_mounted(row)? {
            settle::hide(m, &m.storage_plan(row))?;
        }
    }
    if !more.is_empty() {
        identity::renew(&m.paths, &CtRow { uid_more: more.clone(), ..row.clone() })?;
    }
    Ok(more)
}
