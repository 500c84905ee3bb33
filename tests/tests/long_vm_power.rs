//! On the virtual test host: its power goes thirty times and more while everything is under way, at random, with an answer,
//! and at chosen steps; each time what is there must be the old or the new. Half an hour emulated: `cargo xtask long`.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

mod power;

use power::{Cut, Power};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};
use vz_tests::vm::Vm;

/// Steps whose durability something that comes after relies on.
const POINTS: &[&str] = &[
    "create.claim",
    "create.layer",
    "create.place",
    "create.conf",
    "create.commit.before",
    "create.commit",
    "set.claim",
    "set.conf",
    "set.grow",
    "set.commit",
    "destroy.journal",
    "destroy.conf",
    "destroy.trash",
    "destroy.delete",
    "destroy.commit",
    "build.register",
    "build.switch",
    "build.commit",
    "import.register",
    "import.commit",
    "remove.hide",
    "remove.commit",
];
/// Kinds whose good answer the power goes with.
const ANSWERS: &[&str] = &["create", "set", "destroy", "build", "import", "remove"];
/// Cuts at random.
const RANDOM: usize = 8;

#[test]
fn a_power_cut_at_any_moment_leaves_the_old_or_the_new_and_what_was_answered() {
    let vm = Vm::alone();
    let ctids = Power::ctids();
    let _clean = vm.clean_up(&ctids);
    let mut host = Power::new(&vm);
    // The quickest proof first: an answer, then a moment, then a step, so that each is tried soon.
    let cuts = std::env::var("VZ_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
    let mut all: Vec<Cut> = Vec::new();
    for n in 0..POINTS.len() {
        all.push(Cut::At(POINTS[n]));
        all.extend(ANSWERS.get(n).map(|kind| Cut::Answered(kind, 1 + (random() % 3) as u32)));
        all.extend((n < RANDOM).then(|| Cut::After(Duration::from_millis(500 + random() % 9000))));
    }
    for cut in all.into_iter().take(cuts) {
        host.cut(cut);
    }
    host.clear();
    host.sum_up();
}

/// Any number; it is told with the cut it was used for.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
