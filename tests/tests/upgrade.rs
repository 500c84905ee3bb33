//! Versions side by side: monitors outlive upgrades, so a vzd and a vzctl of another version meet them, their records
//! and their sockets. And all containers at once, as the service manager stops and starts them.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};
use vz_tests::{
    Rig, command,
    template::Template::Tiny,
    wait::{self, Process},
};
use vz_types::ExitCode;

const SOON: Duration = Duration::from_secs(20);

fn running(ctids: &[u32]) -> Rig {
    let rig = Rig::new(&[Tiny]);
    for ctid in ctids {
        rig.create(*ctid, Tiny, &["--ipadd", &format!("10.99.0.{}", ctid - 100)]);
        rig.ok(&["start", &ctid.to_string()]);
        rig.settled(*ctid);
    }
    rig
}

/// The cgroup2 line of `/proc/PID/cgroup`.
fn cgroup_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines().find_map(|l| l.strip_prefix("0::")).unwrap().to_owned()
}

/// Puts other words in a container's record, as another version's monitor would have written them.
fn rewrite_record(rig: &Rig, ctid: u32, change: impl Fn(&mut serde_json::Value)) {
    let file = rig.ct_run(ctid).join("state.json");
    let mut record: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    change(&mut record);
    fs::write(&file, record.to_string()).unwrap();
}

#[test]
fn neither_monitors_nor_containers_are_in_the_cgroup_of_vzd() {
    let rig = running(&[101, 102]);
    let daemon = cgroup_of(i32::try_from(rig.vzd_pid()).unwrap());
    let name = rig.paths.cgroup_name();
    for ctid in [101, 102] {
        let record = rig.record(ctid);
        assert_eq!(cgroup_of(record.monitor.pid), format!("/{name}/monitors"));
        assert!(cgroup_of(record.init.pid).starts_with(&format!("/{name}/{ctid}/ns")));
    }
    assert!(!daemon.contains(&name), "{daemon}");
    // A monitor that was left in vzd's cgroup, as older versions did, is moved out by the next vzd.
    let monitor = rig.record(101).monitor.pid;
    let home = vz_tests::census::cgroup2_mount().unwrap().join(daemon.trim_start_matches('/'));
    fs::write(home.join("cgroup.procs"), monitor.to_string()).unwrap();
    assert_eq!(cgroup_of(monitor), daemon);
    rig.stop_vzd();
    rig.start_vzd(&[]);
    assert_eq!(cgroup_of(monitor), format!("/{name}/monitors"));
}

#[test]
fn exec_in_a_container_whose_monitor_speaks_another_protocol_runs_the_installed_vzmon() {
    let rig = running(&[101]);
    let image = |rig: &Rig| {
        // While a program runs inside, its relay is `vzmon attach`; what it was executed from tells which program it is.
        let mut c = rig.vzctl_command(&["exec2", "101", "sleep 1000"]);
        let mut child = c.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let exe = format!("/proc/{}/exe", child.id());
        let is_vzmon = || fs::read_to_string(format!("/proc/{}/comm", child.id())).is_ok_and(|c| c.trim() == "vzmon");
        wait::retry(SOON, Duration::from_millis(5), || is_vzmon().then_some(())).expect("vzctl becomes vzmon");
        let id = {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(&exe).map(|m| (m.dev(), m.ino())).unwrap()
        };
        child.kill().unwrap();
        child.wait().unwrap();
        rig.inside(101, "killall sleep; busybox true");
        id
    };
    let monitors = {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(format!("/proc/{}/exe", rig.record(101).monitor.pid)).map(|m| (m.dev(), m.ino())).unwrap()
    };
    assert_eq!(image(&rig), monitors, "the monitor's own memory while both are of one version");
    rewrite_record(&rig, 101, |r| {
        r["protocol"] = 7.into();
        r["version"] = "0.0.7".into();
    });
    assert_ne!(image(&rig), monitors, "a copy of the installed program otherwise");
    assert_eq!(rig.inside(101, "echo hello"), "hello");
}

#[test]
fn vzmon_refuses_a_starter_of_another_protocol() {
    let vzmon = vz_tests::rig::bin_dir().join("vzmon");
    for mode in ["run", "mount", "edit"] {
        let out = command::run(Command::new(&vzmon).args([mode, "77"]), None, SOON).unwrap();
        let out = out.expect_code(i32::from(ExitCode::System.code()));
        assert!(out.stderr.contains("protocol 77") && out.stderr.contains("systemctl restart vzd"), "{out}");
    }
}

#[test]
fn a_record_with_what_a_later_version_added_is_of_a_running_container() {
    let rig = running(&[101]);
    let init = rig.record(101).init;
    rewrite_record(&rig, 101, |r| {
        r["protocol"] = 9.into();
        r["features"] = serde_json::json!(["teleport"]);
        r["bridges"] = serde_json::json!([{ "name": "br0" }]);
    });
    rig.stop_vzd();
    rig.start_vzd(&[]);
    assert_eq!(rig.status(101), "exist mounted running");
    assert_eq!(rig.record(101).init, init);
    assert_eq!(rig.inside(101, "echo hello"), "hello");
    rig.ok(&["stop", "101"]);
    rig.ok(&["start", "101"]);
}

#[test]
fn a_container_whose_record_makes_no_sense_is_neither_killed_nor_started_twice_and_can_be_stopped() {
    let rig = running(&[101]);
    let init = Process::open(u32::try_from(rig.record(101).init.pid).unwrap()).unwrap();
    fs::write(rig.ct_run(101).join("state.json"), r#"{"ctid":101,"shape":"of another age"}"#).unwrap();
    rig.stop_vzd();
    rig.start_vzd(&[]);
    assert!(!init.ended(Duration::from_millis(200)).unwrap(), "it was killed:\n{}", rig.vzd_log(40));
    assert_eq!(rig.status(101), "exist mounted running");
    rig.refused(&["start", "101"], ExitCode::Running, "running");
    rig.refused(&["destroy", "101"], ExitCode::Running, "running");
    assert!(rig.vzd_log(200).contains("left alone"), "{}", rig.vzd_log(60));
    rig.ok(&["stop", "101"]);
    assert!(init.ended(SOON).unwrap());
    assert_eq!(rig.status(101), "exist unmounted down");
    rig.ok(&["start", "101"]);
}

#[test]
fn an_inventory_of_a_later_version_keeps_vzd_from_starting_and_containers_running() {
    let rig = running(&[101]);
    let init = rig.record(101).init;
    rig.stop_vzd();
    let sql = "PRAGMA user_version = 4711; PRAGMA wal_checkpoint(TRUNCATE)";
    let file = rig.paths.inventory();
    let set = |sql: &str| {
        let db = rusqlite::Connection::open(&file).unwrap();
        db.execute_batch(sql).unwrap();
    };
    let real: i64 = {
        let db = rusqlite::Connection::open(&file).unwrap();
        db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    };
    set(sql);
    let vzd = || {
        let mut c = rig.host.command(rig.bin.join("vzd"));
        c.arg("--root").arg(&rig.paths.base).arg("--foreground");
        command::run(&mut c, None, SOON).unwrap()
    };
    let out = vzd().expect_code(85);
    assert!(out.stderr.contains("schema 4711") && out.stderr.contains("later version"), "{out}");
    assert_eq!(rig.record(101).init, init);
    assert_eq!(rig.inside(101, "echo hello"), "hello");
    // So does a vz.toml nobody can read, by name.
    rig.write_manager_config("[defaults]\nstop_timeot = 3\n");
    let out = vzd().expect_code(85);
    assert!(out.stderr.contains("vz.toml line 2, key `stop_timeot`"), "{out}");
    rig.write_manager_config("");
    set(&format!("PRAGMA user_version = {real}"));
    rig.start_vzd(&[]);
    assert_eq!(rig.record(101).init, init);
    assert_eq!(rig.status(101), "exist mounted running");
}

#[test]
fn all_are_stopped_at_once_and_those_that_ran_are_started_again() {
    let rig = running(&[101, 102, 103]);
    rig.create(104, Tiny, &[]);
    rig.ok(&["stop", "102"]);
    let out = rig.ok(&["stop", "--all", "--remember", "--json"]).json();
    let mut done: Vec<u64> = out.as_array().unwrap().iter().map(|o| o["ctid"].as_u64().unwrap()).collect();
    done.sort_unstable();
    assert_eq!(done, [101, 103]);
    assert!(out.as_array().unwrap().iter().all(|o| o["done"] == true), "{out}");
    assert_eq!(rig.vzlist(&["-1"]).expect_code(1).text(), "");
    rig.ok(&["stop", "--all", "--remember"]).says("no container runs");
    rig.ok(&["start", "--remembered"]);
    assert_eq!(rig.vzlist(&["-1"]).ok().text().split_whitespace().collect::<Vec<_>>(), ["101", "103"]);
    // Remembered once.
    rig.ok(&["stop", "--all"]);
    rig.ok(&["start", "--remembered"]).says("no container was stopped");
    rig.refused(&["stop"], ExitCode::BadSyntax, "CTID");
    rig.refused(&["stop", "101", "--all"], ExitCode::BadSyntax, "--all");
}

#[test]
fn a_container_that_cannot_be_started_again_keeps_no_other_from_it() {
    let rig = running(&[101, 102]);
    rig.ok(&["stop", "--all", "--remember"]);
    rig.ok(&["set", "101", "--disabled", "yes", "--save"]);
    rig.refused(&["start", "--remembered"], ExitCode::Disabled, "1 of 2 containers were not started: 101");
    assert_eq!(rig.vzlist(&["-1"]).ok().text(), "102");
}

#[test]
fn without_vzd_all_are_stopped_through_their_monitors() {
    let rig = running(&[101, 102]);
    let inits = [101, 102].map(|c| Process::open(u32::try_from(rig.record(c).init.pid).unwrap()).unwrap());
    rig.kill_vzd();
    rig.ok(&["stop", "--all", "--remember"]).says("monitors are asked instead");
    for init in &inits {
        assert!(init.ended(Duration::ZERO).unwrap(), "it answered before init had ended");
    }
    rig.start_vzd(&[]);
    for ctid in ["101", "102"] {
        let exit = rig.vzlist(&["-a", "-H", "-o", "last_exit", ctid]).ok();
        assert!(exit.text().starts_with("powered off"), "graceful: {exit}");
    }
    assert!(rig.census().of("mount").is_empty() && rig.census().of("loop").is_empty());
    rig.ok(&["start", "--remembered"]);
    assert_eq!(rig.vzlist(&["-1"]).ok().text().split_whitespace().count(), 2);
}
