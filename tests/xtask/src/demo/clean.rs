//! `cargo xtask demo --clean`: the CT, vzd by its own number, mounts, loop devices, rule tables, links, cgroups,
//! kernel switches, directories; then a look at whether anything is left.

use super::{
    CT,
    site::{Facts, Site, end, facts_file},
};
use crate::{programs, show};
use anyhow::{Context, Result, bail};
use std::{fs, path::Path, process::Command, time::Duration};
use vz_tests::{
    census::{self, Census},
    command, template, wait,
};
use vz_types::Paths;

/// Removes every trace of the demo at `root`.
///
/// # Errors
/// Something is left; it is named.
pub fn run(root: &Path) -> Result<()> {
    let paths = Paths::new(root);
    let text = fs::read_to_string(facts_file(root)).ok();
    let facts = text.map(|t| serde_json::from_str::<Facts>(&t)).transpose().context("demo.json is damaged")?;
    if facts.is_none() && root.exists() {
        bail!("{} was not made by `cargo xtask demo` (no demo.json in it): not touching it", root.display());
    }
    let mut troubles = Vec::new();
    let mut tried = |title: &str, work: &mut dyn FnMut() -> Result<()>| {
        // Teardown goes on past what fails and tells it at the end.
        if let Err(e) = show::step(title, work) {
            troubles.push(format!("{e:#}"));
        }
    };
    if root.exists() {
        tried(&format!("stop and destroy CT {CT}"), &mut || containers(root));
    }
    if let Some(vzd) = facts.as_ref().and_then(|f| f.vzd) {
        tried(&format!("end vzd ({})", vzd.pid), &mut || end(vzd, false).map(|_| ()));
    }
    tried("unmount what is mounted", &mut || unmount(&paths));
    tried("remove links and rule tables", &mut || network(&paths));
    tried("remove cgroups", &mut || cgroups(&paths));
    if let Some(f) = &facts {
        tried("put kernel switches back", &mut || {
            for file in f.switches.restore() {
                show::say(format!("     {}", file.display()));
            }
            Ok(())
        });
    }
    if root.exists() {
        tried(&format!("remove {}", root.display()), &mut || {
            let mut rm = Command::new("rm");
            let out = command::run(rm.args(["-rf", "--one-file-system"]).arg(root), None, Duration::from_secs(300))?;
            if out.code() == 0 { Ok(()) } else { bail!("{out}") }
        });
    }
    let left = Census::take(&paths, None);
    let cgroup = census::cgroup2_mount().map(|m| m.join(paths.cgroup_name())).filter(|c| c.exists());
    if !left.is_empty() || cgroup.is_some() || root.exists() {
        let cgroup = cgroup.map(|c| format!("  cgroup {}\n", c.display())).unwrap_or_default();
        bail!("something is left:\n{left}{cgroup}{}", troubles.join("\n"));
    }
    show::say("\nNothing is left: no mount, loop device, link, route, rule table, cgroup, process or file.");
    Ok(())
}

fn containers(root: &Path) -> Result<()> {
    let bin = programs::target_dir().join("release");
    if !bin.join("vzctl").exists() {
        bail!("the programs are gone ({}): `cargo xtask build` first", bin.display());
    }
    // Opens the manager again, so that a vzd that died cleans up after itself.
    let site = Site::open(root, &bin)?;
    let listed = site.run("vzlist", &["-a1"], 30)?;
    for ctid in listed.stdout.split_whitespace() {
        for words in [&["stop", ctid, "--fast"][..], &["umount", ctid], &["destroy", ctid]] {
            let out = site.vzctl(words, 120)?;
            if out.code() != 0 && words[0] != "umount" {
                bail!("{out}");
            }
        }
    }
    // A vzd started just now is the one to end.
    let text = fs::read_to_string(facts_file(root))?;
    match serde_json::from_str::<Facts>(&text)?.vzd {
        Some(vzd) => end(vzd, false).map(|_| ()),
        None => Ok(()),
    }
}

fn unmount(paths: &Paths) -> Result<()> {
    for point in census::mounts(paths).iter().rev().filter_map(|m| m.strip_prefix("mount ")) {
        nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH)
            .with_context(|| format!("cannot unmount {point}"))?;
    }
    Ok(())
}

fn network(paths: &Paths) -> Result<()> {
    for line in census::network(paths, None) {
        if let Some(name) = line.strip_prefix("link ") {
            let out = command::run(Command::new("ip").args(["link", "delete", name]), None, Duration::from_secs(10))?;
            if out.code() != 0 {
                bail!("{out}");
            }
        }
    }
    template::remove_tables(paths);
    Ok(())
}

fn cgroups(paths: &Paths) -> Result<()> {
    let Some(top) = census::cgroup2_mount().map(|m| m.join(paths.cgroup_name())).filter(|t| t.exists()) else {
        return Ok(());
    };
    let _ = fs::write(top.join("cgroup.kill"), "1");
    let mut names: Vec<String> =
        census::cgroups(paths).iter().filter_map(|c| c.strip_prefix("cgroup ").map(String::from)).collect();
    // The longest paths are the innermost.
    names.sort_by_key(|n| std::cmp::Reverse(n.matches('/').count()));
    for dir in names.iter().map(|n| top.join(n)).chain([top.clone()]) {
        wait::retry(Duration::from_secs(5), Duration::from_millis(10), || fs::remove_dir(&dir).ok())
            .with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}
