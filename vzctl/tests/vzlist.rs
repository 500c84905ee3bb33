//! vzlist against a stand-in vzd: columns, order, filters and JSON as vzlist 4.11 prints them.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Manager, info};
use serde_json::{Value, json};

fn host() -> Manager {
    Manager::always(
        200,
        json!([
            info(
                101,
                "running",
                json!({"hostname": "web1.example.org", "name": "web1", "ip": ["10.0.0.10", "fd00::10"], "numproc": 23,
                "laverage": [0.1, 0.25, 1.0], "uptime": 93784, "onboot": true, "bootorder": 2, "description": "the first",
                "diskspace": {"usage": 5000, "softlimit": 10737418240u64, "hardlimit": 10737418240u64}})
            ),
            info(102, "stopped", json!({"hostname": "db", "ip": ["10.0.0.9"], "onboot": false})),
            info(
                1003,
                "running",
                json!({"hostname": "a-very-long-host-name-that-does-not-fit.example.org", "numproc": 5})
            ),
            info(104, "mounted", json!({"config_error": "line 3: unknown key"})),
        ]),
    )
}

const HEADER: &str = "      CTID      NPROC STATUS    IP_ADDR         HOSTNAME\n";
const R101: &str = "       101         23 running   10.0.0.10       web1.example.org\n";
const R102: &str = "       102          - stopped   10.0.0.9        db\n";
const R104: &str = "       104          - mounted   -               -\n";
const R1003: &str =
    "      1003          5 running   -               a-very-long-host-name-that-does-not-fit.example.org\n";
const BROKEN: &str = "WARNING: configuration of CT 104: line 3: unknown key\n";

#[test]
fn the_classic_columns() {
    host().vzlist(&[]).expect(0, &format!("{HEADER}{R101}{R1003}"), "");
    host().vzlist(&["-a"]).expect(0, &format!("{HEADER}{R101}{R102}{R104}{R1003}"), BROKEN);
    host().vzlist(&["-S", "-H"]).expect(0, R102, "");
    host().vzlist(&["-n", "101"]).expect(
        0,
        "      CTID      NPROC STATUS    IP_ADDR         NAME\n       101         23 running   10.0.0.10       web1\n",
        "",
    );
    host().vzctl(&["list", "-S", "-H"]).expect(0, R102, "");
}

#[test]
fn only_numbers_with_1() {
    host().vzlist(&["-1"]).expect(0, "       101\n      1003\n", "");
    host().vzlist(&["-a1"]).expect(0, "       101\n       102\n       104\n      1003\n", BROKEN);
    let m = host();
    assert_eq!(m.vzlist(&["-1j"]).json(), json!([{"ctid": 101, "veid": 101}, {"ctid": 1003, "veid": 1003}]));
}

#[test]
fn named_containers_are_listed_whatever_their_state() {
    host().vzlist(&["-H", "102"]).expect(0, R102, "");
    host().vzlist(&["-H", "web1", "102"]).expect(0, &format!("{R101}{R102}"), "");
    host().vzlist(&["-H", "102", "999"]).expect(1, R102, "Container(s) not found\n");
}

#[test]
fn what_is_not_found_and_what_does_not_exist_differ() {
    host().vzlist(&["999"]).expect(1, "", "Container(s) not found\n");
    host().vzlist(&["-j", "999"]).expect(1, "[]\n", "Container(s) not found\n");
    host().vzlist(&["-h", "nothing*"]).expect(1, "", "Container(s) not found\n");
    let empty = || Manager::always(200, json!([]));
    empty().vzlist(&["-a"]).expect(0, "", "");
    empty().vzlist(&[]).expect(0, "", "");
    empty().vzlist(&["-j"]).expect(0, "[]\n", "");
    empty().vzlist(&["101"]).expect(1, "", "Container(s) not found\n");
}

#[test]
fn patterns_pick_by_host_name_name_and_description() {
    host().vzlist(&["-aH", "-h", "*.org", "-o", "ctid"]).expect(0, "       101\n      1003\n", "");
    host().vzlist(&["-aH", "-N", "web?", "-o", "ctid"]).expect(0, "       101\n", "");
    host().vzlist(&["-aH", "-d", "the*", "-o", "ctid"]).expect(0, "       101\n", "");
}

#[test]
fn every_field_sorts_by_its_kind() {
    let order = |sort: &str| host().vzlist(&["-aH", "-s", sort, "-o", "ctid"]).out.replace(' ', "").replace('\n', " ");
    assert_eq!(order("ctid"), "101 102 104 1003 ");
    assert_eq!(order("-ctid"), "1003 104 102 101 ");
    assert_eq!(order("numproc"), "102 104 1003 101 ", "5 comes before 23");
    assert_eq!(order("ip"), "104 1003 102 101 ", "10.0.0.9 comes before 10.0.0.10");
    assert_eq!(order("hostname"), "104 1003 102 101 ");
    assert_eq!(order("-onboot"), "101 102 1003 104 ");
}

#[test]
fn an_unknown_field_is_named() {
    for args in [["-o", "ctid,frob"], ["-s", "frob"]] {
        let ran = host().vzlist(&args);
        assert_eq!(ran.code, 20);
        assert!(ran.err.contains("\"frob\"") && ran.err.contains("vzlist -L"), "{ran:?}");
    }
}

#[test]
fn other_fields_have_their_headers_and_forms() {
    host().vzlist(&["101", "-o", "veid,laverage,uptime,onboot,bootorder,diskspace,diskspace.h,numproc.b,kmemsize,layout"]).expect(
        0,
        "      CTID       LAVERAGE          UPTIME ONBOOT  BOOTORDER   DQBLOCKS DQBLOCKS.H    NPROC.B   KMEMSIZE LAYOUT\n\
         \u{20}      101 0.10/0.25/1.00 001d02h:03m:04s    yes          2          5   10485760 9223372036854775807          - overlay\n",
        "",
    );
}

#[test]
fn long_values_are_cut_unless_they_are_last_or_asked_for_whole() {
    host().vzlist(&["-H", "1003", "-o", "hostname,ctid"]).expect(
        0,
        "a-very-long-host-name-that-does-       1003\n",
        "",
    );
    host().vzlist(&["-Ht", "1003", "-o", "hostname,ctid"]).expect(
        0,
        "a-very-long-host-name-that-does-not-fit.example.org       1003\n",
        "",
    );
    host().vzlist(&["-Ht", "101", "-o", "ip,ctid"]).expect(0, "10.0.0.10 fd00::10        101\n", "");
    host().vzlist(&["-H", "101", "-o", "ctid,ip"]).expect(0, "       101 10.0.0.10 fd00::10\n", "");
}

#[test]
fn json_is_one_key_a_line_with_the_classic_shapes() {
    let out = host().vzlist(&["-j", "101", "-o", "ctid,numproc,diskspace,ip,onboot,laverage,name,kmemsize"]).out;
    assert_eq!(
        out,
        r#"[
  {
    "ctid": 101,
    "numproc": {
      "held": 23,
      "maxheld": null,
      "barrier": 9223372036854775807,
      "limit": 9223372036854775807,
      "failcnt": 0
    },
    "diskspace": {
      "usage": 5,
      "softlimit": 10485760,
      "hardlimit": 10485760
    },
    "ip": ["10.0.0.10", "fd00::10"],
    "onboot": true,
    "laverage": [0.10, 0.25, 1.00],
    "name": "web1",
    "kmemsize": null
  }
]
"#
    );
    let m = host();
    let all = m.vzlist(&["-a", "-j"]).json();
    let onboot: Vec<&Value> = all.as_array().unwrap().iter().map(|c| &c["onboot"]).collect();
    assert_eq!(onboot, [&json!(true), &json!(false), &Value::Null, &Value::Null]);
    for key in [
        "ctid",
        "status",
        "hostname",
        "nameserver",
        "searchdomain",
        "ostemplate",
        "diskinodes",
        "physpages",
        "cpuunits",
    ] {
        assert!(all[0].get(key).is_some(), "{key}");
    }
    assert_eq!(m.vzctl(&["--json", "list", "101", "-o", "ctid"]).json(), json!([{"ctid": 101}]));
}

#[test]
fn the_fields_are_listed_without_vzd() {
    let ran = Manager::alone().vzlist(&["-L"]);
    assert_eq!(ran.code, 0);
    for line in
        ["ctid            CTID", "numproc.f       NPROC.F", "diskinodes.s    DQINODES.S", "onboot          ONBOOT"]
    {
        assert!(ran.out.lines().any(|l| l == line), "{line}");
    }
}

#[test]
fn what_a_container_put_into_its_name_cannot_steer_the_terminal() {
    let m = Manager::always(200, json!([info(101, "running", json!({"hostname": "a\u{1b}[2Jb"}))]));
    m.vzlist(&["-H", "-o", "hostname"]).expect(0, "a[2Jb\n", "");
}
