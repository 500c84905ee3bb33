//! What vzd has lost or cannot get ends no running container and gives nothing of one away: inventories, records and notes
//! that are gone, old or make no sense; descriptors and threads that are not to be had.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use vz_tests::{
    Rig, command,
    seen::Unharmed,
    small::{ct, running},
    template::Template::Tiny,
    wait,
};
use vz_types::ExitCode;

const SOON: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(20);

/// Files of an inventory, kept and put back.
fn inventory_files(rig: &Rig) -> [PathBuf; 3] {
    let file = rig.paths.inventory();
    ["", "-wal", "-shm"].map(|suffix| {
        let mut name = file.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    })
}

fn keep_inventory(rig: &Rig) -> Vec<Option<Vec<u8>>> {
    inventory_files(rig).iter().map(|f| fs::read(f).ok()).collect()
}

fn put_inventory(rig: &Rig, kept: &[Option<Vec<u8>>]) {
    for (file, bytes) in inventory_files(rig).iter().zip(kept) {
        let _ = fs::remove_file(file);
        if let Some(bytes) = bytes {
            fs::write(file, bytes).unwrap();
        }
    }
}

#[test]
fn running_containers_survive_an_emptied_an_older_and_a_lost_inventory() {
    let rig = running(&[101]);
    rig.stop_vzd();
    let older = keep_inventory(&rig);
    rig.start_vzd(&[]);
    for ctid in [102, 103] {
        rig.create(ctid, Tiny, &["--ipadd", &format!("10.99.0.{}", ctid - 100)]);
        rig.ok(&["start", &ctid.to_string()]);
        rig.settled(ctid);
    }
    let all = Unharmed::of(&rig, &[101, 102, 103]);
    let census = rig.census();
    rig.stop_vzd();
    put_inventory(&rig, &older);
    rig.start_vzd(&[]);
    all.assert_taken_in(&rig, "with an older inventory");
    rig.stop_vzd();
    let db = rusqlite::Connection::open(rig.paths.inventory()).unwrap();
    db.execute_batch("PRAGMA foreign_keys = ON; DELETE FROM container; DELETE FROM operation").unwrap();
    drop(db);
    // Of this one not even its identity can be read.
    let identity = rig.paths.private(ct(102)).join("ct.json");
    let text = fs::read(&identity).unwrap();
    fs::write(&identity, "?").unwrap();
    rig.start_vzd(&[]);
    all.assert(&rig, "with an emptied inventory");
    assert_eq!(rig.state(102), "unknown");
    assert!(rig.trouble(102).contains("ct.json"), "it says what is missing: {}", rig.trouble(102));
    let listed = rig.vzlist(&["-a", "-H", "-o", "ctid,state"]).ok();
    assert!(listed.stdout.lines().any(|l| l.contains("102") && l.contains("unknown")), "{listed}");
    rig.refused(&["start", "102"], ExitCode::Running, "102");
    // As soon as it can be read it is taken in again.
    fs::write(&identity, text).unwrap();
    all.assert_taken_in(&rig, "with its identity back");
    rig.assert_census(&census, "after all that");
    for ctid in ["101", "102", "103"] {
        rig.ok(&["stop", ctid]);
        rig.ok(&["start", ctid]);
    }
    // And by hand.
    let all = Unharmed::of(&rig, &[101, 102, 103]);
    rig.stop_vzd();
    put_inventory(&rig, &[None, None, None]);
    let root = rig.paths.base.display().to_string();
    let vzd = |words: &[&str]| {
        let mut c = rig.program("vzd", &[&["--root", root.as_str(), "--foreground"], words].concat());
        command::run(&mut c, None, SOON).unwrap()
    };
    let refused = vzd(&[]);
    assert!(refused.code() != 0 && refused.stderr.contains("vzd recover"), "{refused}");
    all.assert(&rig, "without an inventory and vzd");
    let said = vzd(&["recover"]).ok();
    assert_eq!(said.stdout.matches("taken in").count(), 3, "{said}");
    rig.start_vzd(&[]);
    all.assert_taken_in(&rig, "after `vzd recover`");
}

#[test]
fn a_running_container_whose_record_is_lost_is_left_alone_until_it_is_back() {
    let rig = running(&[101, 102]);
    let all = Unharmed::of(&rig, &[101, 102]);
    let files = [101, 102].map(|c| rig.ct_run(c).join("state.json"));
    let kept = files.clone().map(|f| fs::read(f).unwrap());
    rig.stop_vzd();
    files.iter().for_each(|f| fs::remove_file(f).unwrap());
    rig.start_vzd(&[]);
    all.assert(&rig, "without records");
    assert_eq!(rig.state(101), "unknown");
    assert!(rig.trouble(101).contains("state.json"), "{}", rig.trouble(101));
    rig.refused(&["start", "101"], ExitCode::Running, "101");
    rig.refused(&["destroy", "101"], ExitCode::Running, "101");
    rig.refused(&["set", "101", "--ipadd", "10.99.0.9", "--save"], ExitCode::Running, "state.json");
    fs::write(&files[0], &kept[0]).unwrap();
    rig.wait_state(101, "running");
    rig.ok(&["set", "101", "--ipadd", "10.99.0.9", "--save"]);
    assert!(rig.inside(101, "ip addr show venet0").contains("10.99.0.9"));
    // The other one can be ended all the same.
    rig.ok(&["stop", "102", "--fast"]);
    assert!(all.0[1].2.ended(SOON).unwrap());
    assert_eq!(rig.status(102), "exist unmounted down");
    rig.ok(&["start", "102"]);
}

#[test]
fn too_few_descriptors_end_no_running_container() {
    let mut rig = Rig::new(&[Tiny]);
    let all: Vec<u32> = (101..131).collect();
    std::thread::scope(|s| {
        for some in all.chunks(8) {
            let rig = &rig;
            s.spawn(move || {
                for c in some {
                    rig.create(*c, Tiny, &[]);
                    rig.ok(&["start", &c.to_string()]);
                }
            });
        }
    });
    let unharmed = Unharmed::of(&rig, &all);
    rig.stop_vzd();
    // Without the capability it cannot help itself either.
    rig.start_vzd_through("setpriv --bounding-set -sys_resource prlimit --nofile=40:40");
    unharmed.assert(&rig, "with 40 descriptors");
    assert_eq!(rig.vzlist(&["-1"]).ok().stdout.lines().count(), all.len());
    // What needs one and gets none is an error of that operation; a stop is no trouble.
    for ctid in ["101", "102"] {
        rig.ok(&["stop", ctid, "--fast"]);
    }
    let start = rig.vzctl(&["start", "101"]);
    if start.code() == 0 {
        assert_eq!(rig.status(101), "exist mounted running", "it said that it runs: {start}");
    }
    let rest = Unharmed(unharmed.0.into_iter().filter(|(c, _, _)| *c > 102).collect());
    rest.assert(&rig, "after a start and stops with 40 descriptors");
    rig.stop_vzd();
    rig.start_vzd(&[]);
    rest.assert_taken_in(&rig, "with enough of them again");
    let start = rig.vzctl(&["start", "101"]);
    assert!([0, i32::from(ExitCode::Running.code())].contains(&start.code()), "{start}");
    std::thread::scope(|s| {
        for some in all.chunks(8) {
            let rig = &rig;
            s.spawn(move || some.iter().for_each(|c| drop(rig.ok(&["stop", &c.to_string(), "--fast"]))));
        }
    });
}

/// A cgroup that can limit processes, with one process in it.
struct Pids(PathBuf);

impl Pids {
    fn around(pid: u32) -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = |kind: &str, word: &str| {
            let line = table.lines().find(|l| {
                l.split(" - ").nth(1).is_some_and(|t| t.starts_with(kind) && t.split([' ', ',']).any(|w| w == word))
            })?;
            line.split(' ').nth(4).map(PathBuf::from)
        };
        let top = mount("cgroup ", "pids").or_else(|| mount("cgroup2 ", "cgroup2")).expect("cgroups are mounted");
        let dir = top.join(format!("vzt-pids-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let this = Self(dir);
        assert!(this.0.join("pids.max").exists(), "no pids controller in {}", top.display());
        fs::write(this.0.join("cgroup.procs"), pid.to_string()).unwrap();
        this
    }

    /// So many more processes may be made.
    fn allow(&self, more: Option<u32>) {
        let now: u32 = fs::read_to_string(self.0.join("pids.current")).unwrap().trim().parse().unwrap();
        let text = more.map_or_else(|| "max".to_owned(), |n| (now + n).to_string());
        fs::write(self.0.join("pids.max"), text).unwrap();
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("pids.max"), "max");
        let procs = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        let home = self.0.parent().unwrap_or(Path::new("/")).join("cgroup.procs");
        for pid in procs.lines() {
            let _ = fs::write(&home, pid);
        }
        let _ = wait::retry(SOON, MOMENT, || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn no_threads_and_processes_to_be_had_fail_operations_and_not_vzd() {
    let rig = running(&[101]);
    rig.create(102, Tiny, &[]);
    let unharmed = Unharmed::of(&rig, &[101]);
    let vzd = rig.vzd_pid();
    let before = rig.census();
    let pids = Pids::around(vzd);
    for more in 0..4 {
        pids.allow(Some(more));
        for _ in 0..3 {
            let start = rig.vzctl(&["start", "102"]);
            assert!(start.code() == 0 || !start.stderr.trim().is_empty(), "{start}");
            if start.code() == 0 {
                rig.ok(&["stop", "102", "--fast"]);
            }
            rig.vzctl(&["create", "103", "--ostemplate", "tiny"]);
            rig.vzctl(&["set", "101", "--ipadd", "10.99.0.8"]);
            rig.vzctl(&["set", "101", "--ipdel", "10.99.0.8"]);
            rig.vzctl(&["destroy", "103"]);
            rig.vzlist(&["-a"]).ok();
        }
    }
    assert_eq!(rig.vzd_pid(), vzd);
    unharmed.assert(&rig, "without a process to be had");
    pids.allow(None);
    // What could not be taken back then is now.
    for ctid in ["102", "103"] {
        rig.vzctl(&["stop", ctid, "--fast"]);
    }
    rig.vzctl(&["destroy", "103"]);
    rig.ok(&["start", "102"]);
    rig.ok(&["stop", "102", "--fast"]);
    drop(pids);
    let now = rig.census().without(|l| l.ends_with(".destroyed"));
    let changes = before.changes(&now);
    assert!(changes.is_empty(), "{}\n--- vzd\n{}", changes.join("\n"), rig.vzd_log(60));
    unharmed.assert_taken_in(&rig, "with processes to be had again");
}

fn note(rig: &Rig, ctid: u32, text: Option<&str>) -> String {
    let db = rusqlite::Connection::open(rig.paths.inventory()).unwrap();
    let of = "subject='ct' AND name=?1 AND ended IS NULL";
    let old =
        db.query_row(&format!("SELECT note FROM operation WHERE {of}"), [ctid.to_string()], |r| r.get(0)).unwrap();
    if let Some(text) = text {
        db.execute(&format!("UPDATE operation SET note=?2 WHERE {of}"), [ctid.to_string(), text.to_owned()]).unwrap();
    }
    old
}

fn claims(rig: &Rig, ctid: u32) -> Vec<String> {
    let db = rusqlite::Connection::open(rig.paths.inventory()).unwrap();
    let mut q = db.prepare("SELECT ip FROM address WHERE ctid=?1 ORDER BY ip").unwrap();
    let all = q.query_map([ctid], |r| r.get(0)).unwrap();
    all.map(Result::unwrap).collect()
}

#[test]
fn a_note_that_cannot_be_read_is_not_acted_on() {
    let rig = running(&[101]);
    rig.create(102, Tiny, &["--ipadd", "10.99.0.2"]);
    let unharmed = Unharmed::of(&rig, &[101]);
    let mut kept = Vec::new();
    for (ctid, ip) in [(101, "10.99.0.51"), (102, "10.99.0.52")] {
        rig.stop_vzd();
        rig.start_vzd(&[("VZ_FAULT", "set.filter")]);
        rig.vzctl(&["set", &ctid.to_string(), "--ipadd", ip, "--save"]);
        assert!(rig.vzd_dies(SOON), "{}", rig.vzd_log(40));
        let had = claims(&rig, ctid);
        assert_eq!(had.len(), 2, "{had:?}");
        // Their configurations as well.
        let conf = rig.paths.conf(ct(ctid));
        let text = fs::read_to_string(&conf).unwrap();
        fs::write(&conf, "[[[").unwrap();
        let old = note(&rig, ctid, Some("{\"v\":1,\"is\":{\"from\":\"another age\"}}"));
        kept.push((ctid, had, old, conf, text));
        rig.start_vzd(&[]);
    }
    // One that is half made.
    rig.stop_vzd();
    rig.start_vzd(&[("VZ_FAULT", "create.place")]);
    rig.vzctl(&["create", "103", "--ostemplate", "tiny"]);
    assert!(rig.vzd_dies(SOON), "{}", rig.vzd_log(40));
    let private = rig.paths.private(ct(103));
    let half = note(&rig, 103, Some("{\"v\":99,\"is\":{}}"));
    rig.start_vzd(&[]);
    let look = |when: &str| {
        assert_eq!(rig.state(103), "failed", "{when}");
        assert!(rig.trouble(103).contains("version 99"), "{when}: {}", rig.trouble(103));
        assert!(private.exists(), "{when}: taken away on the strength of nothing");
        unharmed.assert(&rig, when);
        for (ctid, had, ..) in &kept {
            assert_eq!(claims(&rig, *ctid), *had, "{when}: given up");
        }
        assert!(rig.trouble(102).contains("note"), "{when}: {}", rig.trouble(102));
        // One that runs says it too.
        assert_eq!(rig.state(101), "unknown", "{when}");
        assert!(rig.trouble(101).contains("note"), "{when}: {}", rig.trouble(101));
        rig.ok(&["why", "101"]).says("note");
        assert_eq!(rig.state(102), "failed", "{when}");
        for words in [&["start", "102"][..], &["set", "101", "--ipadd", "10.99.0.61", "--save"]] {
            let out = rig.vzctl(words);
            assert!(out.code() != 0 && out.stderr.contains("note"), "{when}: {out}");
        }
        // It is open still, and what was refused because of it is on record.
        let open = rig.ok(&["--json", "operations", "102", "--open"]).json();
        assert_eq!(open.as_array().map(Vec::len), Some(1), "{when}: {open}");
        assert_eq!((&open[0]["kind"], &open[0]["state"]), (&"set".into(), &"failed".into()), "{when}: {open}");
        let refused = &rig.ok(&["--json", "operations", "102"]).json()[0];
        assert_eq!((&refused["kind"], &refused["state"]), (&"start".into(), &"failed".into()), "{when}: {refused}");
    };
    look("at once");
    rig.stop_vzd();
    rig.start_vzd(&[]);
    look("after another restart");
    rig.stop_vzd();
    for (ctid, _, old, conf, text) in &kept {
        note(&rig, *ctid, Some(old));
        fs::write(conf, text).unwrap();
    }
    note(&rig, 103, Some(&half));
    rig.start_vzd(&[]);
    unharmed.assert_taken_in(&rig, "with the notes put right");
    assert_eq!(rig.status(103), "deleted unmounted down");
    assert!(!private.exists(), "what was half made is left for ever");
    rig.create(103, Tiny, &[]);
    rig.wait_state(102, "stopped");
    for (ctid, had, ..) in &kept {
        assert!(claims(&rig, *ctid).iter().all(|ip| had.contains(ip)));
        assert_eq!(claims(&rig, *ctid).len(), 1, "taken back");
    }
    rig.ok(&["start", "102"]);
}
