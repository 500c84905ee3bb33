//! Killing vzd at each step of an import, a build or a removal of an OS template leaves the old state or the new one:
//! nothing half registered, no staging directory, no process, no mount, and containers keep the files they were made
//! from. The list of steps is the program's own.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use vz_tests::{Rig, census::Census, command, rig};

const SOON: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(120);

/// The fault points of one operation.
fn points(op: &str) -> Vec<String> {
    let mut c = Command::new(rig::bin_dir().join("vzd"));
    let out = command::run(c.arg("fault-points"), None, SOON).unwrap().ok();
    let these: Vec<String> = out.stdout.lines().filter(|p| p.split('.').next() == Some(op)).map(String::from).collect();
    assert!(!these.is_empty(), "`vzd fault-points` names none of {op}");
    these
}

/// What an operator sees of the template `web`, and what the machine holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moment {
    /// Digest of the current version; empty where there is no template.
    digest: String,
    /// Of everything but the template's own versions.
    census: Census,
}

fn moment(rig: &Rig, when: &str) -> Moment {
    let list = rig.ok(&["template", "list", "--json"]).json();
    let web = list.as_array().unwrap().iter().find(|t| t["name"] == "web" && t["status"] != "recipe");
    let digest = web.map(|t| {
        assert_eq!(t["status"], "ready", "{when}: {t}");
        t["digest"].as_str().unwrap().to_owned()
    });
    let store = fs::read_dir(rig.paths.template_dir()).unwrap().flatten().map(|e| e.file_name());
    let store: Vec<String> = store.map(|n| n.to_string_lossy().into_owned()).collect();
    let expected: &[&str] = if digest.is_some() { &["web"] } else { &[] };
    assert_eq!(store, expected, "{when}: left in the store");
    assert_eq!(helpers(rig), [""; 0], "{when}: at work still");
    Moment { digest: digest.unwrap_or_default(), census: rig.census() }
}

/// Processes at work in this manager's store, by their command lines.
fn helpers(rig: &Rig) -> Vec<String> {
    let below = rig.paths.var().display().to_string();
    let lines = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| fs::read(e.path().join("cmdline")).ok());
    lines.map(|l| String::from_utf8_lossy(&l).into_owned()).filter(|l| l.contains(&below)).collect()
}

/// A root filesystem with a busybox as init, and a file that tells two of them apart.
fn tree(rig: &Rig, name: &str, marker: &str) -> PathBuf {
    let dir = rig.paths.base.join(name);
    for sub in ["bin", "sbin", "etc", "proc", "sys", "dev", "run", "tmp", "root"] {
        fs::create_dir_all(dir.join(sub)).unwrap();
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox")).unwrap();
    symlink("busybox", dir.join("bin/sh")).unwrap();
    symlink("busybox", dir.join("bin/cat")).unwrap();
    symlink("../bin/busybox", dir.join("sbin/init")).unwrap();
    fs::write(dir.join("etc/inittab"), "::respawn:/bin/busybox sleep 100000\n").unwrap();
    fs::write(dir.join("etc/marker"), marker).unwrap();
    dir
}

fn packed(rig: &Rig, tree: &Path) -> String {
    let to = rig.paths.base.join(format!("{}.tar.gz", tree.file_name().unwrap().to_string_lossy()));
    let mut c = Command::new("tar");
    c.args(["--numeric-owner", "--owner=0", "--group=0", "-czf"]).arg(&to).arg("-C").arg(tree).arg(".");
    command::run(&mut c, None, SOON).unwrap().ok();
    to.display().to_string()
}

/// Kills at each point of `op` and compares with the moments before and after an undisturbed run.
fn sweep(rig: &Rig, op: &str, before: &dyn Fn(), words: &[&str], not_here: &[&str]) {
    before();
    let old = moment(rig, "before");
    rig.ok(words);
    let new = moment(rig, "after");
    assert_ne!(old.digest, new.digest);
    let (mut rolled_back, mut rolled_forward) = (0, 0);
    for point in points(op).into_iter().filter(|p| !not_here.iter().any(|n| p.starts_with(n))) {
        before();
        assert_eq!(moment(rig, &point), old, "{point}: the start is not the same each time");
        rig.stop_vzd();
        rig.start_vzd(&[("VZ_FAULT", &point)]);
        let out = rig.vzctl(words);
        assert!(rig.vzd_dies(LONG), "{point} was not reached: {out}");
        assert_ne!(out.code(), 0, "{point}: vzd died and vzctl says all is well: {out}");
        rig.start_vzd(&[]);
        let now = moment(rig, &point);
        if now == old {
            rolled_back += 1;
        } else {
            assert_eq!(now, new, "{point}: neither the old state nor the new one\n{out}--- vzd\n{}", rig.vzd_log(40));
            rolled_forward += 1;
        }
        // And it works on: the same again, unless there is nothing left to do.
        if now == old || op != "remove" {
            rig.ok(words);
        }
        assert_eq!(moment(rig, &point), new, "{point}: done again");
        // Behind the last step at the latest it is done.
        if point == points(op).last().unwrap().as_str() {
            assert_eq!(now, new, "{point}");
        }
    }
    assert!(rolled_back > 0 && rolled_forward > 0, "{op}: {rolled_back} rolled back, {rolled_forward} rolled forward");
}

/// The template makes containers that boot, and this is what they are made of.
fn assert_boots(rig: &Rig, ctid: u32, marker: &str) {
    let id = ctid.to_string();
    rig.ok(&["start", &id]);
    assert_eq!(rig.inside(ctid, "cat /etc/marker"), marker);
    rig.ok(&["stop", &id, "--fast"]);
}

fn remove(rig: &Rig) {
    if rig.vzctl(&["template", "remove", "web"]).code() != 0 {
        assert!(!rig.paths.template_dir().join("web").exists(), "{}", rig.vzd_log(20));
    }
}

#[test]
fn import_killed_at_each_step() {
    let rig = Rig::new(&[]);
    let file = packed(&rig, &tree(&rig, "one", "1"));
    sweep(&rig, "import", &|| remove(&rig), &["template", "import", &file, "--name", "web"], &["import.switch"]);
    rig.ok(&["create", "101", "--ostemplate", "web"]);
    assert_boots(&rig, 101, "1");
    rig.ok(&["destroy", "101"]);
}

#[test]
fn import_over_a_template_killed_at_each_step_leaves_containers_their_files() {
    let rig = Rig::new(&[]);
    let (first, second) = (packed(&rig, &tree(&rig, "one", "1")), packed(&rig, &tree(&rig, "two", "2")));
    rig.ok(&["template", "import", &first, "--name", "web"]);
    rig.ok(&["create", "101", "--ostemplate", "web"]);
    let over = |file: &str| drop(rig.ok(&["template", "import", file, "--name", "web", "--replace"]));
    sweep(&rig, "import", &|| over(&first), &["template", "import", &second, "--name", "web", "--replace"], &[]);
    assert_boots(&rig, 101, "1");
    rig.ok(&["create", "102", "--ostemplate", "web"]);
    assert_boots(&rig, 102, "2");
    rig.ok(&["destroy", "101"]);
    rig.ok(&["destroy", "102"]);
}

#[test]
fn build_killed_at_each_step() {
    let rig = Rig::new(&[]);
    let from = tree(&rig, "one", "1");
    fs::create_dir_all(rig.paths.recipe_dir()).unwrap();
    let recipe = format!("description = 'x'\ntree = '{}'\ninit = 'busybox'\n", from.display());
    fs::write(rig.paths.recipe_dir().join("web.toml"), recipe).unwrap();
    sweep(&rig, "build", &|| remove(&rig), &["template", "build", "web"], &["build.switch"]);
    rig.ok(&["create", "101", "--ostemplate", "web"]);
    // Built again of other files, under a container.
    let build = |marker: &str| {
        fs::write(from.join("etc/marker"), marker).unwrap();
        rig.ok(&["template", "build", "web", "--rebuild"]);
        fs::write(from.join("etc/marker"), "2").unwrap();
    };
    sweep(&rig, "build", &|| build("1"), &["template", "build", "web", "--rebuild"], &[]);
    assert_boots(&rig, 101, "1");
    rig.ok(&["destroy", "101"]);
}

#[test]
fn remove_killed_at_each_step() {
    let rig = Rig::new(&[]);
    let file = packed(&rig, &tree(&rig, "one", "1"));
    let import = || drop(rig.ok(&["template", "import", &file, "--name", "web"]));
    sweep(&rig, "remove", &import, &["template", "remove", "web"], &[]);
}
