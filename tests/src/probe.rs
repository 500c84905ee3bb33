//! Static programs that do from inside a container what a hostile guest would. Built once from `tests/probes/NAME.c` and
//! kept in the cache.

use crate::{command, template};
use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    path::PathBuf,
    process::Command,
    time::Duration,
};

/// The built probe.
///
/// # Panics
/// If it cannot be built (packages gcc and libc6-dev).
#[track_caller]
pub fn binary() -> PathBuf {
    built("probe")
}

/// The program that runs into limits, and measures what a neighbour notices.
///
/// # Panics
/// As [`binary`].
#[track_caller]
pub fn flood() -> PathBuf {
    built("flood")
}

/// The program that stands in for the monitor and waits.
///
/// # Panics
/// As [`binary`].
#[track_caller]
pub fn waiter() -> PathBuf {
    built("waiter")
}

/// The heartbeat.
///
/// # Panics
/// As [`binary`].
#[track_caller]
pub fn beat() -> PathBuf {
    built("beat")
}

/// All of them, for a machine that has no compiler.
///
/// # Panics
/// As [`binary`].
#[track_caller]
pub fn all() -> [PathBuf; 4] {
    [binary(), flood(), waiter(), beat()]
}

#[track_caller]
fn built(name: &str) -> PathBuf {
    let source = template::checkout().join(format!("tests/probes/{name}.c"));
    let mut hash = DefaultHasher::new();
    fs::read(&source).unwrap_or_else(|e| panic!("{}: {e}", source.display())).hash(&mut hash);
    let cache = template::cache_dir();
    fs::create_dir_all(&cache).unwrap_or_else(|e| panic!("cannot make {}: {e}", cache.display()));
    let built = cache.join(format!("{name}-{:016x}", hash.finish()));
    if !built.exists() {
        // Several test processes may build it at once: each its own file, the last rename wins.
        let own = cache.join(format!("{name}.{}", std::process::id()));
        let mut gcc = Command::new("gcc");
        gcc.args(["-static", "-no-pie", "-O2", "-o"]).arg(&own).arg(&source);
        command::run(&mut gcc, None, Duration::from_secs(60)).unwrap_or_else(|e| panic!("{e}")).ok();
        fs::rename(&own, &built).expect("moving the probe into the cache");
    }
    built
}
