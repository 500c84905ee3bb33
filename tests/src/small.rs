//! Tiny systems that run, as many suites begin with.

use crate::{Rig, template::Template::Tiny};
use vz_types::Ctid;

/// A CTID that is known to be one.
///
/// # Panics
/// It is none.
#[track_caller]
pub fn ct(n: u32) -> Ctid {
    Ctid::try_from(n).unwrap_or_else(|e| panic!("{n}: {e}"))
}

/// Running tiny systems, the n-th with the address 10.99.0.n and the name `ct` and its CTID.
///
/// # Panics
/// One cannot be made or does not come up.
#[track_caller]
pub fn running(ctids: &[u32]) -> Rig {
    let rig = Rig::new(&[Tiny]);
    for ctid in ctids {
        rig.create(*ctid, Tiny, &["--ipadd", &format!("10.99.0.{}", ctid - 100), "--name", &format!("ct{ctid}")]);
        rig.ok(&["start", &ctid.to_string()]);
        rig.settled(*ctid);
    }
    rig
}
