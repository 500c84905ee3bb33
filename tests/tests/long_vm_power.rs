//! On the virtual test host: its power goes again and again while everything is under way, at chosen steps, with an answer,
//! and at random; each time what is there must be the old or the new. Emulated, each cut takes a minute or two.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

mod power;

use power::{Power, cuts};
use vz_tests::vm::Vm;

#[test]
fn a_power_cut_at_any_moment_leaves_the_old_or_the_new_and_what_was_answered() {
    let vm = Vm::alone();
    let ctids = Power::<&Vm>::ctids();
    let _clean = vm.clean_up(&ctids);
    let mut host = Power::new(&vm);
    let count = std::env::var("VZ_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(36);
    for cut in cuts(count) {
        host.cut(cut);
    }
    host.clear();
    host.sum_up();
}
