//! vzlist: columns, widths, filters, sorting, JSON, exit codes, as scripts written against OpenVZ expect them.

use std::{fs, process::Command, time::Duration};
use vz_tests::{
    Rig,
    command::{self, Output},
    template::Template::Tiny,
};

const HEADER: &str = "      CTID      NPROC STATUS    IP_ADDR         HOSTNAME";

/// 101 running with name, host name and address; 102 stopped; 103 mounted.
fn three() -> Rig {
    let rig = Rig::new(&[Tiny]);
    rig.create(
        101,
        Tiny,
        &["--hostname", "web.example.org", "--name", "web", "--description", "front", "--ipadd", "10.99.0.1"],
    );
    rig.create(102, Tiny, &["--hostname", "db.example.org", "--name", "db", "--onboot", "yes"]);
    rig.create(103, Tiny, &["--onboot", "no"]);
    rig.ok(&["start", "101"]);
    rig.ok(&["mount", "103"]);
    rig
}

#[test]
fn the_classic_table_to_the_blank() {
    let rig = three();
    let out = rig.vzlist(&[]).ok();
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert_eq!(lines[0], HEADER);
    let nproc = lines[1].split_whitespace().nth(1).unwrap_or_default();
    assert!(nproc.parse::<u32>().is_ok_and(|n| n >= 1), "{out}");
    assert_eq!(lines[1], format!("{:>10} {nproc:>10} {:<9} {:<15} {}", 101, "running", "10.99.0.1", "web.example.org"));
    let out = rig.vzlist(&["-a"]).ok();
    let row = out.stdout.lines().find(|l| l.trim_start().starts_with("102")).unwrap_or_default();
    assert_eq!(row, format!("{:>10} {:>10} {:<9} {:<15} {}", 102, "-", "stopped", "-", "db.example.org"));
    let row = out.stdout.lines().find(|l| l.trim_start().starts_with("103")).unwrap_or_default();
    assert_eq!(row.split_whitespace().nth(2), Some("mounted"), "{out}");
    assert_eq!(row, row.trim_end(), "rows are trimmed at the right");
    rig.ok(&["umount", "103"]);
}

#[test]
fn filters_fields_and_sorting() {
    let rig = three();
    let list = |args: &[&str]| rig.vzlist(args).ok().stdout.split_whitespace().map(String::from).collect::<Vec<_>>();
    assert_eq!(list(&["-1"]), ["101"]);
    assert_eq!(list(&["-a1"]), ["101", "102", "103"]);
    assert_eq!(list(&["-S1"]), ["102"]);
    assert_eq!(list(&["-a", "-H", "-octid", "-s", "-ctid"]), ["103", "102", "101"]);
    assert_eq!(list(&["-a", "-H", "-o", "ctid,name,onboot", "101", "102"]), ["101", "web", "-", "102", "db", "yes"]);
    assert_eq!(list(&["-a", "-H", "-o", "veid"]), ["101", "102", "103"], "the old alias");
    assert_eq!(list(&["-H", "-o", "status", "102"]), ["stopped"], "a CT asked for is shown whatever its state");
    assert_eq!(list(&["-a1", "-h", "*.example.org"]), ["101", "102"]);
    assert_eq!(list(&["-a1", "-N", "d*"]), ["102"]);
    assert_eq!(list(&["-a1", "-d", "fr*"]), ["101"]);
    let out = rig.vzlist(&["-n", "-a"]).ok();
    assert!(out.stdout.lines().next().unwrap_or_default().ends_with("NAME"), "{out}");
    assert!(out.stdout.contains("web\n"), "{out}");
    let out = rig.vzlist(&["-a", "-o", "ctid,hostname"]).ok();
    assert_eq!(out.stdout.lines().next(), Some("      CTID HOSTNAME"), "{out}");
    let fields = rig.vzlist(&["-L"]).ok();
    for field in [
        "ctid",
        "numproc",
        "status",
        "ip",
        "hostname",
        "name",
        "onboot",
        "bootorder",
        "ostemplate",
        "diskspace",
        "uptime",
        "laverage",
    ] {
        assert!(fields.stdout.contains(field), "{field}: {fields}");
    }
    let bad = rig.vzlist(&["-o", "no_such_field"]);
    assert!(bad.code() != 0 && bad.stderr.contains("no_such_field"), "{bad}");
    rig.ok(&["umount", "103"]);
}

#[test]
fn json_has_the_documented_shapes() {
    let rig = three();
    let all = rig.vzlist(&["-a", "-j"]).ok().json();
    assert_eq!(all.as_array().map(Vec::len), Some(3), "{all}");
    let web = &all[0];
    assert_eq!(web["ctid"], 101);
    assert_eq!(web["status"], "running");
    assert_eq!(web["ip"], serde_json::json!(["10.99.0.1"]));
    assert!(web["nameserver"].is_array() && web["searchdomain"].is_array(), "{web}");
    assert!(web["onboot"].is_null(), "never said: {web}");
    assert_eq!((&all[1]["onboot"], &all[2]["onboot"]), (&serde_json::json!(true), &serde_json::json!(false)));
    for key in ["usage", "softlimit", "hardlimit"] {
        assert!(web["diskspace"][key].is_u64(), "diskspace.{key}: {web}");
        assert!(web["diskinodes"][key].is_u64(), "diskinodes.{key}: {web}");
    }
    rig.ok(&["umount", "103"]);
}

#[test]
fn nothing_found_and_nothing_there() {
    let rig = Rig::new(&[Tiny]);
    let out = rig.vzlist(&[]).ok();
    assert_eq!(out.stderr, "", "no CT at all is no mistake: {out}");
    rig.vzlist(&["-a"]).ok();
    assert_eq!(rig.vzlist(&["-a", "-j"]).ok().json(), serde_json::json!([]));
    let out = rig.vzlist(&["999"]).expect_code(1);
    assert!(out.stderr.contains("Container(s) not found"), "{out}");
    let out = rig.vzlist(&["-j", "999"]).expect_code(1);
    assert_eq!(out.text(), "[]");
    rig.create(101, Tiny, &[]);
    rig.vzlist(&["-1", "999"]).expect_code(1);
}

/// As a user of the host who is neither root nor in the group `vz`.
fn as_nobody(rig: &Rig, line: &str) -> Output {
    let bin = rig.paths.base.join("bin");
    let mut words = line.split(' ');
    let program = bin.join(words.next().unwrap_or_default());
    if !program.exists() {
        fs::create_dir_all(&bin).expect("a directory everybody can enter");
        fs::copy(rig.bin.join("vzctl"), &program).expect("a program everybody can run");
    }
    let mut c = Command::new("setpriv");
    c.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program).args(words);
    c.env("VZ_ROOT", &rig.paths.base);
    command::run(&mut c, None, Duration::from_secs(20)).expect("setpriv")
}

#[test]
fn who_may_not_look_is_told_so_and_not_that_it_is_down() {
    let rig = three();
    let reading = [
        "vzctl status 101",
        "vzctl status web",
        "vzctl status 999",
        "vzctl --json status 101",
        "vzlist",
        "vzlist -a",
        "vzlist -j",
        "vzctl list",
        "vzctl why 101",
        "vzctl events",
        "vzctl operations",
        "vzctl history 101",
        "vzctl metrics",
        "vzctl samples",
        "vzctl check",
        "vzctl template list",
        "vzctl template show tiny",
        "vzctl wait 01M8QRHX9CQ7AT1KBY6XCEK09J",
        "vzctl exec 101 true",
        "vzctl exec2 101 true",
        "vzctl enter 101",
        "vzctl console 101",
        "vzubc",
        "vzubc 101",
        "vzcalc 101",
        "vzmemcheck",
        "vzcpucheck",
    ];
    let told = |line: &str, when: &str| {
        let out = as_nobody(&rig, line);
        let says = out.stderr.contains("not allowed") || out.stderr.contains("ermission denied");
        assert!(out.code() == 12 && says, "{when}, `{line}`: {out}");
        for untrue in ["down", "deleted", "does not exist", "not running", "not found"] {
            assert!(!out.stdout.contains(untrue) && !out.stderr.contains(untrue), "{when}, `{line}`: {out}");
        }
    };
    reading.iter().for_each(|line| told(line, "with vzd"));
    // One that serves everybody's connection tells by itself who may use it.
    fs::set_permissions(rig.paths.socket(), std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("the socket");
    let out = as_nobody(&rig, "vzctl status 101");
    assert!(out.code() == 12 && out.stderr.contains("does not serve you"), "{out}");
    rig.stop_vzd();
    // What is looked up in files then.
    fs::set_permissions(rig.paths.conf_dir(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("conf");
    for line in ["vzctl status 101", "vzctl status web", "vzctl status 999", "vzctl exec 101 true", "vzctl enter web"] {
        told(line, "without vzd");
    }
    assert_eq!(rig.status(101), "exist mounted running", "root may look");
}
