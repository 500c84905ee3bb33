//! The HTTP API as somebody with a socket sees it: who may speak, how much, and what it says of itself.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    process::Command,
    time::Duration,
};
use vz_tests::{
    Rig, command,
    template::{Template::Tiny, checkout},
};

const SOON: Duration = Duration::from_secs(20);

/// One request as bytes; gives the status and the body.
fn send(rig: &Rig, request: &[u8]) -> (u16, String) {
    let mut s = UnixStream::connect(rig.paths.socket()).unwrap();
    s.set_read_timeout(Some(SOON)).unwrap();
    // A server that refuses early may close before it has read everything.
    let _ = s.write_all(request);
    let mut answer = Vec::new();
    let _ = s.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|w| w.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map(|(_, b)| b.to_owned()).unwrap_or_default())
}

fn request(rig: &Rig, method: &str, path: &str, body: &str) -> (u16, String) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: vz\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    send(rig, &[head.as_bytes(), body.as_bytes()].concat())
}

#[test]
fn the_served_openapi_document_is_the_checked_in_one() {
    let rig = Rig::new(&[]);
    let (status, served) = request(&rig, "GET", "/v1/openapi.json", "");
    assert_eq!(status, 200);
    let served: serde_json::Value = serde_json::from_str(&served).unwrap();
    let file = fs::read_to_string(checkout().join("docs/reference/openapi.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&file).unwrap();
    assert_eq!(served, kept, "run `cargo xtask gen`");
    for path in ["/v1/cts", "/v1/cts/{ct}", "/v1/cts/{ct}/start", "/v1/templates/{name}/build", "/v1/check"] {
        assert!(served["paths"][path].is_object(), "{path} is not described");
    }
}

#[test]
fn only_root_and_the_group_may_speak() {
    let rig = Rig::new(&[]);
    let mode = fs::metadata(rig.paths.socket()).unwrap().mode() & 0o777;
    assert_eq!(mode & 0o007, 0, "others have no right on the socket: {mode:o}");
    // Even where the socket's mode would let them.
    let mut chmod = Command::new("chmod");
    command::run(chmod.args(["-R", "a+rwX"]).arg(&rig.paths.base), None, SOON).unwrap().ok();
    let mut c = Command::new("setpriv");
    c.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    // The program itself must be reachable for a stranger: a copy in the rig's own directory.
    let copy = rig.paths.base.join("vzctl");
    fs::copy(rig.bin.join("vzctl"), &copy).unwrap();
    c.arg(&copy).arg("--root").arg(&rig.paths.base).args(["--json", "set", "101", "--hostname", "x"]);
    let out = command::run(&mut c, None, SOON).unwrap();
    assert_ne!(out.code(), 0, "{out}");
    assert!(out.stderr.contains("root") || out.stderr.contains("permi"), "the refusal says who may: {out}");
    rig.vzlist(&["-a"]).ok();
}

#[test]
fn oversize_and_malformed_requests_are_refused_and_harm_nothing() {
    let rig = Rig::new(&[Tiny]);
    let huge = format!("{{\"ctid\":101,\"ostemplate\":\"{}\"}}", "x".repeat(8 << 20));
    let (status, body) = request(&rig, "POST", "/v1/cts", &huge);
    assert!((400..500).contains(&status), "{status} {body}");
    let header =
        format!("GET /v1/cts HTTP/1.1\r\nHost: x\r\nX-Big: {}\r\nConnection: close\r\n\r\n", "y".repeat(1 << 20));
    let (status, _) = send(&rig, header.as_bytes());
    assert!(status == 0 || (400..500).contains(&status), "{status}");
    for (method, path, body) in [
        ("POST", "/v1/cts", "{not json"),
        ("POST", "/v1/cts", "[]"),
        ("POST", "/v1/cts", "{\"ctid\":101,\"no_such_key\":1}"),
        ("POST", "/v1/cts", "{\"ctid\":-1,\"ostemplate\":\"tiny\"}"),
        ("POST", "/v1/cts", "{\"ctid\":5,\"ostemplate\":\"tiny\"}"),
        ("POST", "/v1/cts", "{\"ctid\":101,\"ostemplate\":\"../../etc\"}"),
        ("PATCH", "/v1/cts/101", "{\"settings\":{\"hostname\":7}}"),
        ("GET", "/v1/cts/..%2f..%2fetc", ""),
        ("GET", "/v1/cts/999", ""),
        ("GET", "/v1/templates/..%2f..", ""),
        ("DELETE", "/v1/cts", ""),
        ("GET", "/no/such/path", ""),
        ("BREW", "/v1/cts", ""),
    ] {
        let (status, answer) = request(&rig, method, path, body);
        assert!((400..500).contains(&status), "{method} {path} {body}: {status} {answer}");
        if path.starts_with("/v1/cts/") || method == "POST" {
            let error: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
            assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "a reason: {method} {path}: {answer}");
        }
    }
    rig.vzlist(&["-a"]).ok();
    rig.create(101, Tiny, &[]);
}

#[test]
fn many_silent_connections_do_not_lock_the_operator_out() {
    let rig = Rig::new(&[Tiny]);
    let silent: Vec<_> = (0..200).filter_map(|_| UnixStream::connect(rig.paths.socket()).ok()).collect();
    assert_eq!(silent.len(), 200);
    // While they are open.
    rig.vzlist(&["-a"]).ok();
    drop(silent);
}

#[test]
fn version_names_root_and_pid() {
    let rig = Rig::new(&[]);
    let (status, body) = request(&rig, "GET", "/v1/version", "");
    assert_eq!(status, 200);
    let v: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(v["pid"], rig.vzd_pid());
    assert_eq!(v["root"], rig.paths.base.display().to_string());
}

#[test]
fn a_brief_list_leaves_out_counters_and_limits_and_nothing_else() {
    let rig = Rig::new(&[Tiny]);
    // Not started: this host may be unable to enforce it.
    rig.create(101, Tiny, &["--cpuunits", "500", "--description", "seen"]);
    let list = |query: &str| {
        let (status, text) = request(&rig, "GET", &format!("/v1/cts{query}"), "");
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap()[0].as_object().unwrap().clone()
    };
    let (whole, brief) = (list(""), list("?brief=true"));
    assert!(whole["beancounters"].as_array().is_some_and(|b| b.len() > 20), "{whole:?}");
    assert_eq!(whole["parameters"]["cpuunits"], "500");
    assert_eq!(brief["numproc"], whole["numproc"]);
    for (key, value) in &brief {
        let limits = ["beancounters", "parameters", "unenforced", "vswap"].contains(&key.as_str());
        let same = ["uptime", "diskspace", "diskinodes"].contains(&key.as_str()) || *value == whole[key];
        assert!(limits || same, "{key}: {value} for {}", whole[key]);
    }
    assert_eq!(brief["beancounters"], serde_json::json!([]));
    assert_eq!(request(&rig, "GET", "/v1/cts?short=true", "").0, 400);
    // What needs them still has them.
    assert_eq!(rig.ok(&["list", "-a", "-H", "-o", "cpuunits"]).text(), "500");
}

#[test]
fn a_list_of_some_has_those_in_order_and_only_the_counters_asked_for() {
    let rig = Rig::new(&[Tiny]);
    for (ctid, name) in [(101, "one"), (102, "two"), (103, "three")] {
        rig.create(ctid, Tiny, &["--name", name]);
    }
    let list = |query: &str| {
        let (status, text) = request(&rig, "GET", &format!("/v1/cts?{query}"), "");
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<Vec<serde_json::Value>>(&text).unwrap()
    };
    let ctids = |query: &str| list(query).iter().map(|i| i["ctid"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(ctids(""), [101, 102, 103]);
    assert_eq!(ctids("ct=three,101,nobody,999,%21"), [101, 103]);
    assert_eq!(ctids("ct=nobody"), [0u64; 0]);
    let some = list("ct=102&counters=numproc,physpages&disk=false");
    let names: Vec<_> =
        some[0]["beancounters"].as_array().unwrap().iter().map(|b| b["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["numproc", "physpages"]);
    assert!(some[0]["diskspace"]["usage"].is_null() && list("ct=102")[0]["diskspace"]["usage"].is_u64(), "{some:?}");
    // The command says what is not there.
    rig.ok(&["list", "-a", "one", "103"]);
    assert_eq!(rig.vzctl(&["list", "-a", "101", "nobody"]).code(), 1);
    assert_eq!(rig.ok(&["list", "-a", "-H", "-o", "physpages.l", "two"]).text(), "9223372036854775807");
}
