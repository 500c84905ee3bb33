//! What vz keeps of containers in files: something else in their place is told and waits for nobody, what cannot be written
//! holds up no stop, and what an inventory has lost is given to nobody else.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use vz_tests::{
    Rig,
    command::{self, Output},
    seen::Unharmed,
    small::{ct, running},
    template::Template::Tiny,
    wait,
};
use vz_types::ExitCode;

const SOON: Duration = Duration::from_secs(20);

/// A file or a directory that nobody can write to, root included.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn make(path: &Path) -> Self {
        let p = path.display();
        let line = format!("mount --bind {p} {p} && mount -o remount,bind,ro {p}");
        command::run(Command::new("sh").args(["-c", &line]), None, SOON).unwrap().ok();
        Self(path.to_owned())
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// What may lie in place of a record.
const STRANGE: [&str; 3] = ["a FIFO", "a device", "huge"];

fn put(what: &str, at: &Path) {
    let _ = fs::remove_file(at);
    match what {
        "a FIFO" => nix::unistd::mkfifo(at, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        "a device" => symlink("/dev/zero", at).unwrap(),
        _ => fs::File::create(at).unwrap().set_len(4 << 30).unwrap(),
    }
}

fn stop_and_empty_the_inventory(rig: &Rig) {
    rig.stop_vzd();
    fs::write(rig.paths.inventory(), "").unwrap();
    for suffix in ["-wal", "-shm"] {
        let mut name = rig.paths.inventory().into_os_string();
        name.push(suffix);
        let _ = fs::remove_file(name);
    }
}

#[test]
fn a_fifo_a_device_or_a_huge_file_in_place_of_a_record_hangs_nobody_and_is_no_end() {
    let rig = running(&[101, 102]);
    let all = Unharmed::of(&rig, &[101, 102]);
    let own = rig.ct_run(101);
    for what in STRANGE {
        // While vzd runs: what somebody has limited without saving, and how the last run ended.
        for file in ["limits.json", "exit.json"] {
            let at = own.join(file);
            let kept = fs::read(&at).ok();
            put(what, &at);
            rig.ok(&["status", "101"]);
            rig.ok(&["why", "101"]);
            rig.vzlist(&["-a", "-o", "ctid,numproc"]).ok();
            fs::remove_file(&at).unwrap();
            if let Some(kept) = kept {
                fs::write(&at, kept).unwrap();
            }
        }
        rig.stop_vzd();
        let record = own.join("state.json");
        let aside = own.join("state.aside");
        fs::rename(&record, &aside).unwrap();
        put(what, &record);
        // Without vzd.
        let status = rig.vzctl(&["status", "101"]).ok();
        assert!(status.stdout.contains("mounted running") && status.stderr.contains("state.json"), "{what}: {status}");
        let exec = rig.vzctl(&["exec", "101", "true"]);
        assert!(exec.code() != 0 && exec.stderr.contains("state.json"), "{what}: {exec}");
        let console = rig.vzctl(&["console", "101"]);
        assert!(console.code() != 0 && console.stderr.contains("state.json"), "{what}: {console}");
        // With one that has just started.
        rig.start_vzd(&[]);
        assert_eq!(rig.state(101), "unknown", "{what}");
        assert!(rig.trouble(101).contains("record"), "{what}: {}", rig.trouble(101));
        all.assert(&rig, what);
        fs::remove_file(&record).unwrap();
        fs::rename(&aside, &record).unwrap();
        all.assert_taken_in(&rig, what);
    }
    put("a FIFO", &own.join("limits.json"));
    rig.ok(&["stop", "101", "--fast"]);
    put("a FIFO", &rig.paths.private(ct(101)).join("ct.json"));
    rig.stop_vzd();
    rig.start_vzd(&[]);
    rig.ok(&["start", "101"]);
}

#[test]
fn an_emptied_inventory_is_refused_like_a_lost_one() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--ipadd", "10.99.0.1", "--name", "n101"]);
    stop_and_empty_the_inventory(&rig);
    for when in ["at once", "again"] {
        let mut vzd = rig.program("vzd", &["--root", &rig.paths.base.display().to_string(), "--foreground"]);
        let out = command::run(&mut vzd, None, SOON).unwrap();
        assert_ne!(out.code(), 0, "{when}: {out}");
        assert!(out.stderr.contains("is empty") && out.stderr.contains("vzd recover"), "{when}: {out}");
    }
    rig.start_vzd_recover();
    assert_eq!(rig.state(101), "stopped");
    rig.refused(&["create", "102", "--ostemplate", "tiny", "--ipadd", "10.99.0.1"], ExitCode::IpInUse, "10.99.0.1");
}

#[test]
fn what_an_older_inventory_does_not_know_is_given_to_nobody_else() {
    let rig = running(&[101]);
    rig.create(108, Tiny, &["--ipadd", "10.99.0.8", "--name", "n108"]);
    let uid = |ctid: u32| {
        let text = fs::read_to_string(rig.paths.private(ct(ctid)).join("ct.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["uid_base"].as_u64().unwrap()
    };
    rig.stop_vzd();
    let db = rusqlite::Connection::open(rig.paths.inventory()).unwrap();
    db.execute_batch("PRAGMA foreign_keys = ON; DELETE FROM container WHERE ctid=108").unwrap();
    drop(db);
    rig.start_vzd(&[]);
    assert!(rig.vzd_log(200).contains("is not in the inventory"), "{}", rig.vzd_log(60));
    let check = rig.vzctl(&["check"]);
    assert!(check.stdout.contains("CT 108"), "{check}");
    rig.refused(&["create", "112", "--ostemplate", "tiny", "--ipadd", "10.99.0.8"], ExitCode::IpInUse, "CT 108");
    rig.refused(&["create", "112", "--ostemplate", "tiny", "--name", "n108"], ExitCode::SetName, "CT 108");
    rig.refused(&["set", "101", "--ipadd", "10.99.0.8", "--save"], ExitCode::IpInUse, "CT 108");
    rig.create(112, Tiny, &[]);
    assert_ne!(uid(112), uid(108));
    // What an earlier version has given twice.
    rig.ok(&["start", "112"]);
    rig.stop_vzd();
    let db = rusqlite::Connection::open(rig.paths.inventory()).unwrap();
    db.execute_batch("PRAGMA foreign_keys = ON; DELETE FROM container WHERE ctid=112").unwrap();
    drop(db);
    let (mine, theirs) = (rig.paths.private(ct(108)).join("ct.json"), uid(112));
    let text = fs::read_to_string(&mine).unwrap();
    fs::write(&mine, text.replace(&uid(108).to_string(), &theirs.to_string())).unwrap();
    let said = rig.recover();
    assert!(said.contains("CT 108: taken in"), "{said}");
    assert!(said.contains("CT 112: left out") && said.contains("belongs to CT 108"), "{said}");
    rig.start_vzd(&[]);
    assert_eq!(rig.state(112), "unknown");
    rig.refused(&["start", "108"], ExitCode::System, "CT 112");
    let stopped = rig.ok(&["stop", "112", "--fast"]);
    assert!(!stopped.stderr.contains("still mounted"), "{stopped}");
    rig.ok(&["start", "108"]);
}

#[test]
fn what_is_left_of_a_stranger_that_was_stopped_is_cleared_away() {
    let rig = running(&[101, 113]);
    let before = rig.census();
    rig.stop_vzd();
    let db = rusqlite::Connection::open(rig.paths.inventory()).unwrap();
    db.execute_batch("PRAGMA foreign_keys = ON; DELETE FROM container WHERE ctid=113").unwrap();
    drop(db);
    fs::rename(rig.paths.private(ct(113)).join("ct.json"), rig.paths.private(ct(113)).join("moved")).unwrap();
    rig.start_vzd(&[]);
    assert_eq!(rig.state(113), "unknown");
    let stop = rig.ok(&["stop", "113", "--fast"]);
    assert!(stop.stdout.contains("unmounted") && !stop.stderr.contains("still mounted"), "{stop}");
    let gone = || (!rig.vzlist(&["-H", "-o", "ctid"]).stdout.contains("113")).then_some(());
    wait::retry(Duration::from_secs(3), Duration::from_millis(20), gone).expect("it is listed no more");
    let left: Vec<String> = before.changes(&rig.census()).into_iter().filter(|l| l.starts_with('+')).collect();
    assert!(left.is_empty(), "{left:?}");
    let of_113 = |l: &&str| l.contains("/113");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let base = rig.paths.base.display().to_string();
    let mounts: Vec<&str> = mounts.lines().filter(|l| l.contains(&base)).filter(of_113).collect();
    assert!(mounts.is_empty(), "{mounts:?}");
}

#[test]
fn containers_stop_although_the_inventory_cannot_be_written() {
    let rig = running(&[101, 102, 103]);
    rig.kill_vzd();
    let held = ReadOnly::make(&rig.paths.inventory());
    rig.start_vzd(&[]);
    let one = rig.ok(&["stop", "101", "--fast"]);
    assert!(one.stderr.contains("written down"), "it is told: {one}");
    assert_eq!(rig.status(101), "exist unmounted down");
    let all = rig.vzctl(&["stop", "--all", "--timeout", "10"]);
    assert_eq!(all.code(), 0, "{all}");
    for ctid in [102, 103] {
        assert_eq!(rig.state(ctid), "stopped");
        assert_eq!(rig.status(ctid), "exist unmounted down");
    }
    let start = rig.vzctl(&["start", "101"]);
    assert!(start.code() != 0 && start.stderr.contains("readonly"), "{start}");
    assert_eq!(rig.state(101), "stopped", "{}", rig.trouble(101));
    drop(held);
    // The same vzd has it written down as soon as it can.
    let written = || {
        let db = rusqlite::Connection::open(rig.paths.inventory()).ok()?;
        let n: u32 = db.query_row("SELECT count(*) FROM container WHERE state='stopped'", [], |r| r.get(0)).ok()?;
        (n == 3).then_some(())
    };
    wait::retry(SOON, Duration::from_millis(200), written).expect("the stops are written down");
    rig.ok(&["start", "101"]);
    let ops = rig.ok(&["--json", "operations", "102"]).json();
    let stop = ops.as_array().unwrap().iter().find(|o| o["kind"] == "stop").expect("it is in the history");
    assert_eq!(stop["state"], "done", "{stop}");
    // And what was not written before vzd was killed, the next one finds.
    rig.kill_vzd();
    let held = ReadOnly::make(&rig.paths.inventory());
    rig.start_vzd(&[]);
    rig.ok(&["stop", "101", "--fast"]);
    rig.kill_vzd();
    drop(held);
    rig.start_vzd(&[]);
    assert_eq!(rig.state(101), "stopped");
}

#[test]
fn a_container_is_stopped_although_the_disk_is_full() {
    let mut rig = Rig::stopped(&[]);
    let disk = rig.paths.inventory().parent().unwrap().to_owned();
    let line = format!("mkdir -p {0} && mount -t tmpfs -o size=256m tmpfs {0}", disk.display());
    command::run(Command::new("sh").args(["-c", &line]), None, SOON).unwrap().ok();
    let _small = Mounted(disk.clone());
    rig.add_template(Tiny);
    rig.start_vzd(&[]);
    for ctid in [101, 102, 103] {
        rig.create(ctid, Tiny, &[]);
        rig.ok(&["start", &ctid.to_string()]);
        rig.settled(ctid);
    }
    let full = disk.join("full");
    let line = format!("dd if=/dev/zero of={} bs=4k", full.display());
    let filled = command::run(Command::new("sh").args(["-c", &line]), None, SOON).unwrap();
    assert_ne!(filled.code(), 0, "{filled}");
    rig.ok(&["stop", "101", "--fast"]);
    rig.ok(&["stop", "102"]);
    let all = rig.vzctl(&["stop", "--all", "--timeout", "10"]);
    assert_eq!(all.code(), 0, "{all}");
    for ctid in [101, 102, 103] {
        assert_eq!(rig.state(ctid), "stopped", "{}", rig.trouble(ctid));
    }
    fs::remove_file(&full).unwrap();
    for ctid in ["101", "102", "103"] {
        rig.ok(&["start", ctid]);
        rig.ok(&["stop", ctid, "--fast"]);
    }
    drop(rig);
}

/// A filesystem that is there for one test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Everything a host has on its one disk, on an ext4 of 300 MB.
struct OneDisk {
    rig: Option<Rig>,
    image: PathBuf,
    mounts: Vec<PathBuf>,
}

impl OneDisk {
    fn new() -> Self {
        let mut rig = Rig::stopped(&[]);
        let image = rig.paths.base.with_extension("disk");
        let (disk, etc, var) = (rig.paths.base.join("disk"), rig.paths.etc(), rig.paths.var());
        let line = format!(
            "truncate -s 300M {i} && mkfs.ext4 -q -F -m 0 {i} && mkdir -p {d} {v} && mount -o loop {i} {d} && \
             mkdir {d}/etc {d}/var && cp -a {e}/. {d}/etc && cp -a {v}/. {d}/var && \
             mount --bind {d}/etc {e} && mount --bind {d}/var {v}",
            i = image.display(),
            d = disk.display(),
            e = etc.display(),
            v = var.display()
        );
        command::run(Command::new("sh").args(["-c", &line]), None, SOON).unwrap().ok();
        rig.add_template(Tiny);
        rig.start_vzd(&[]);
        Self { rig: Some(rig), image, mounts: vec![var, etc, disk] }
    }

    fn rig(&self) -> &Rig {
        self.rig.as_ref().unwrap()
    }

    /// From now on somebody takes every block of the disk that is free or becomes so.
    fn filled(&self) -> Filler {
        use std::io::Write;
        let file = self.rig().paths.base.join("disk/filler");
        let (stop, at) = (Arc::new(AtomicBool::new(false)), file.clone());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut file = fs::File::create(&at).unwrap();
            while !stopped.load(Ordering::Acquire) {
                let large = file.write_all(&[b'x'; 64 << 10]);
                // What is left is less than that.
                if large.is_err() {
                    let _ = file.write(&[b'x'; 1 << 10]);
                }
            }
        });
        let full = || (nix::sys::statvfs::statvfs(&file).ok()?.blocks_available() == 0).then_some(());
        wait::retry(SOON, Duration::from_millis(20), full).expect("the disk is full");
        Filler { file, stop, thread: Some(thread) }
    }
}

impl Drop for OneDisk {
    fn drop(&mut self) {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(self.rig.take())));
        for at in &self.mounts {
            let _ = nix::mount::umount2(at, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_file(&self.image);
        if let (Err(e), false) = (ended, std::thread::panicking()) {
            std::panic::resume_unwind(e);
        }
    }
}

/// Takes what is free until it is dropped; then there is room again.
struct Filler {
    file: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
        let _ = fs::remove_file(&self.file);
    }
}

#[test]
fn on_a_full_disk_containers_are_stopped_mounted_and_destroyed_although_every_freed_block_is_taken() {
    let site = OneDisk::new();
    let rig = site.rig();
    for ctid in [101, 102, 103, 104, 105] {
        rig.create(ctid, Tiny, &["--diskspace", "100M", "--hostname", "before"]);
    }
    for ctid in [101, 102, 104] {
        rig.ok(&["start", &ctid.to_string()]);
        rig.settled(ctid);
    }
    let filler = site.filled();
    rig.refused(&["create", "109", "--ostemplate", "tiny"], ExitCode::NoSpace, "No space left");
    rig.refused(&["set", "104", "--hostname", "after", "--save"], ExitCode::NoSpace, "104.toml");
    assert!(rig.inside(104, "hostname").starts_with("before"), "what cannot be saved changes nothing");
    let written = |out: Output| assert!(!out.stderr.contains("written down"), "{out}");
    written(rig.ok(&["stop", "101"]));
    written(rig.ok(&["stop", "102", "--fast"]));
    rig.ok(&["mount", "103"]);
    assert_eq!(rig.status(103), "exist mounted down");
    rig.ok(&["umount", "103"]);
    written(rig.ok(&["destroy", "103"]));
    // So it is after a vzd that was killed on the full disk, and after one that was ended.
    rig.kill_vzd();
    rig.start_vzd(&[]);
    written(rig.ok(&["destroy", "101"]));
    rig.stop_vzd();
    rig.start_vzd(&[]);
    rig.ok(&["mount", "105"]);
    rig.ok(&["umount", "105"]);
    // One whose journal the disk has no room to replay is shown as it is.
    rig.ok(&["mount", "102"]);
    assert_eq!(rig.status(102), "exist mounted down");
    assert!(rig.paths.root(ct(102)).join("bin").exists());
    rig.ok(&["umount", "102"]);
    written(rig.ok(&["destroy", "102"]));
    for gone in [101, 102, 103] {
        assert!(!rig.paths.private(ct(gone)).exists() && !rig.paths.conf(ct(gone)).exists());
    }
    // Its image has no blocks for what it writes: the kernel ends that.
    rig.vzctl(&["exec2", "104", "dd if=/dev/zero of=/data bs=64k count=800; sync; mkdir /more; sync"]);
    let listed = || {
        let list = rig.vzlist(&["-H", "-o", "ctid,readonly"]).ok();
        let seen = list.stdout.contains("yes") && list.stderr.contains("CT 104: its filesystem is read-only");
        seen.then_some(())
    };
    wait::retry(Duration::from_secs(75), Duration::from_millis(200), listed).expect("it is listed as read-only");
    let status = rig.ok(&["status", "104"]);
    assert!(
        status.stdout.trim() == "CTID 104 exist mounted running" && status.stderr.contains("read-only"),
        "{status}"
    );
    drop(filler);
    // Room on the host alone does not cure it.
    assert_ne!(rig.vzctl(&["exec", "104", "mkdir", "/there"]).code(), 0);
    let why = rig.ok(&["why", "104"]);
    assert!(why.stdout.contains("read-only") && why.stdout.contains("vzctl restart 104"), "{why}");
    assert!(rig.ok(&["events", "104"]).stdout.contains("read-only"));
    rig.ok(&["restart", "104", "--fast"]);
    rig.ok(&["exec", "104", "mkdir", "/there"]);
    assert!(!rig.ok(&["status", "104"]).stderr.contains("read-only"));
    assert_eq!(rig.vzlist(&["-H", "-o", "readonly", "104"]).ok().text().trim(), "no");
    rig.ok(&["start", "105"]);
    let kinds = |ct: &str| -> Vec<String> {
        let ops = rig.ok(&["--json", "operations", ct]).json();
        let done = ops.as_array().unwrap().iter().filter(|o| o["state"] == "done");
        done.map(|o| o["kind"].as_str().unwrap_or_default().to_owned()).collect()
    };
    for (ct, kind) in [("101", "stop"), ("102", "stop"), ("103", "mount"), ("103", "umount"), ("101", "destroy")] {
        assert!(kinds(ct).iter().any(|k| k == kind), "{kind} {ct} is on record: {:?}", kinds(ct));
    }
}

#[test]
fn a_set_that_cannot_be_saved_changes_nothing() {
    let rig = running(&[101]);
    let look = || {
        let inside = rig.inside(101, "hostname; cat /etc/hostname /etc/resolv.conf");
        let limits = fs::read(rig.ct_run(101).join("limits.json")).ok();
        (inside, limits, rig.vzlist(&["-H", "-o", "numfile.l", "101"]).stdout)
    };
    let before = look();
    let held = ReadOnly::make(&rig.paths.etc());
    let set = ["set", "101", "--hostname", "newname", "--nameserver", "9.9.9.9", "--numfile", "4000", "--save"];
    rig.refused(&set, ExitCode::ConfigSave, "101.toml");
    assert_eq!(look(), before);
    drop(held);
    rig.ok(&set);
    assert!(look().0.starts_with("newname\nnewname"), "{:?}", look());
}

#[test]
fn an_inventory_that_cannot_be_opened_is_not_called_damaged() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &[]);
    rig.stop_vzd();
    let mut wal = rig.paths.inventory().into_os_string();
    wal.push("-wal");
    let wal = PathBuf::from(wal);
    let aside = wal.with_extension("aside");
    let had = fs::rename(&wal, &aside).is_ok();
    fs::create_dir(&wal).unwrap();
    let mut vzd = rig.program("vzd", &["--root", &rig.paths.base.display().to_string(), "--foreground"]);
    let out = command::run(&mut vzd, None, SOON).unwrap();
    assert!(out.code() != 0 && !out.stderr.contains("damaged") && !out.stderr.contains("vzd recover"), "{out}");
    assert!(out.stderr.contains("inventory.db-wal"), "it says what could not be opened: {out}");
    fs::remove_dir(&wal).unwrap();
    if had {
        fs::rename(&aside, &wal).unwrap();
    }
    rig.start_vzd(&[]);
    assert_eq!(rig.state(101), "stopped");
    rig.stop_vzd();
    fs::write(rig.paths.inventory(), vec![b'x'; 8192]).unwrap();
    let mut vzd = rig.program("vzd", &["--root", &rig.paths.base.display().to_string(), "--foreground"]);
    let out = command::run(&mut vzd, None, SOON).unwrap();
    assert!(out.stderr.contains("damaged") && out.stderr.contains("vzd recover"), "{out}");
    rig.start_vzd_recover();
}

/// `vzd recover`, and a vzd after it.
trait Recover {
    fn recover(&self) -> String;
    fn start_vzd_recover(&self);
}

impl Recover for Rig {
    fn recover(&self) -> String {
        let mut vzd = self.program("vzd", &["--root", &self.paths.base.display().to_string(), "recover"]);
        command::run(&mut vzd, None, SOON).unwrap().ok().stdout
    }

    fn start_vzd_recover(&self) {
        self.recover();
        self.start_vzd(&[]);
    }
}

#[test]
fn a_set_that_would_fail_at_the_file_itself_changes_nothing() {
    let rig = running(&[101]);
    let conf = rig.paths.conf(ct(101));
    let look = || (rig.inside(101, "hostname; cat /etc/hostname /etc/shadow"), fs::read(&conf).unwrap());
    let before = look();
    let held = ReadOnly::make(&conf);
    let set = ["set", "101", "--hostname", "newname", "--userpasswd", "root:secret", "--numfile", "4000", "--save"];
    let out = rig.refused(&set, ExitCode::ConfigSave, "101.toml");
    assert!(!out.stderr.contains("stay so"), "{out}");
    assert_eq!(look(), before);
    drop(held);
    rig.ok(&set);
    assert!(look().0.starts_with("newname\nnewname"), "{:?}", look());
}
