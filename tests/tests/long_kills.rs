//! vzd killed hundreds of times under load: nobody inside notices, and every answer holds. Part of `cargo xtask long`.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vz_tests::{Rig, storm::Storm, template::Template::Tiny};

/// What two loaded cores may keep a heart waiting for, whatever vzd does.
const GAP: Duration = Duration::from_secs(2);

/// A number from the environment.
fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// `VZ_LONG_KILLS` says how often (300), `VZ_LONG_SEED` at which moments.
#[test]
fn three_hundred_kills_under_load_are_noticed_by_no_container() {
    let rig = Rig::new(&[Tiny]);
    let seed = given("VZ_LONG_SEED").unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    let kills = usize::try_from(given("VZ_LONG_KILLS").unwrap_or(300)).unwrap();
    println!("VZ_LONG_SEED={seed} VZ_LONG_KILLS={kills}");
    let report = Storm { kills, hearts: 20, workers: 3, seed }.rage(&rig);
    println!("{report}");
    assert!(report.gap < GAP, "a heart stood still for {:?}", report.gap);
    assert_eq!(report.lost, 0, "datagrams of hearts were lost");
}
