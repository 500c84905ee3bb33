//! vzlist: columns, widths, filters, sorting, JSON, exit codes, as scripts written against OpenVZ expect them.

use vz_tests::{Rig, template::Template::Tiny};

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
