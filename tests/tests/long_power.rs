//! A file system of one's own stops dead again and again while everything is under way on it, at chosen steps, with an
//! answer, and at random; each time what is there must be the old or the new.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

mod power;

use power::{Power, cuts, site::Native};

#[test]
fn a_disk_that_stops_dead_at_any_moment_keeps_the_old_or_the_new_and_what_was_answered() {
    let mut host = Power::new(Native::new());
    let count = std::env::var("VZ_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    for cut in cuts(count) {
        host.cut(cut);
    }
    host.clear();
    host.sum_up();
}
