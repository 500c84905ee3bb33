//! The short form of `long_power`: a file system stops dead three times while everything is under way on it.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

mod power;

use power::{Cut, Power, site::Native};
use std::time::Duration;

#[test]
fn a_power_cut_leaves_no_container_without_its_files_and_no_files_without_a_container() {
    let mut host = Power::new(Native::new());
    // With the private area in its place and no commit yet; with an answer; in the middle of everything.
    for cut in [Cut::At("create.place"), Cut::Answered("create", 2), Cut::After(Duration::from_secs(2))] {
        host.cut(cut);
    }
    host.clear();
    host.sum_up();
}
