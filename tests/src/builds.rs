//! Builds of OS templates that can be stopped on the way.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use crate::{
    Rig,
    wait::{self, Process},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// A tree that takes a while to be copied, and its recipe.
///
/// # Panics
/// It cannot be made.
#[track_caller]
pub fn recipe(rig: &Rig, name: &str) -> PathBuf {
    let tree = rig.paths.base.join(format!("tree-{name}"));
    for dir in ["bin", "sbin", "etc", "proc", "sys", "dev", "run", "tmp", "root", "many"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", tree.join("bin/sh")).unwrap();
    std::os::unix::fs::symlink("../bin/busybox", tree.join("sbin/init")).unwrap();
    fs::write(tree.join("etc/inittab"), "::respawn:/bin/busybox sleep 100000\n").unwrap();
    for n in 0..300 {
        fs::write(tree.join(format!("many/{n}")), "x").unwrap();
    }
    fs::create_dir_all(rig.paths.recipe_dir()).unwrap();
    let text = format!("description = 'x'\ntree = '{}'\ninit = 'busybox'\n", tree.display());
    fs::write(rig.paths.recipe_dir().join(format!("{name}.toml")), text).unwrap();
    tree
}

/// The program that copies a tree, stopped where it is.
///
/// # Panics
/// There is none, and none comes.
#[track_caller]
pub fn stopped_copy(rig: &Rig, tree: &Path) -> Process {
    let from = format!("{}/.", tree.display());
    let find = || {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
            if words[0].ends_with(b"cp") && words.contains(&from.as_bytes()) {
                let process = Process::open(pid).ok()?;
                process.pause(true);
                return Some(process);
            }
        }
        None
    };
    wait::retry(Duration::from_secs(20), Duration::from_millis(1), find)
        .unwrap_or_else(|| panic!("nobody copies {from}\n--- vzd\n{}", rig.vzd_log(40)))
}
