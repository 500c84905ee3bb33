//! The verbs vzd carries out, against a stand-in vzd: what is asked for, printed and answered as exit code.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Manager, info, shows, terminal};
use serde_json::{Value, json};

const NOT_SAVED: &str =
    "WARNING: Settings were not saved and will be resetted to original values on next start (use --save flag)\n";

fn nothing_said() -> Manager {
    Manager::always(200, json!({"ctid": 101}))
}

#[test]
fn start_stop_restart_and_destroy_print_the_classic_sentences() {
    let started = "Starting container...\nContainer is mounted\nContainer start in progress...\n";
    let stopped = "Stopping container ...\nContainer was stopped\nContainer is unmounted\n";
    let cases: &[(&[&str], &str, Value, String)] = &[
        (&["start", "101"], "POST /v1/cts/101/start", json!({"force": false, "wait": false}), started.into()),
        (
            &["start", "web1", "--wait", "--force"],
            "POST /v1/cts/web1/start",
            json!({"force": true, "wait": true}),
            started.into(),
        ),
        (&["stop", "101"], "POST /v1/cts/101/stop", json!({"fast": false, "timeout": null}), stopped.into()),
        (
            &["stop", "101", "--fast", "--timeout", "7"],
            "POST /v1/cts/101/stop",
            json!({"fast": true, "timeout": 7}),
            stopped.into(),
        ),
        (
            &["restart", "101"],
            "POST /v1/cts/101/restart",
            json!({"fast": false, "force": false, "wait": false}),
            format!("Restarting container\n{stopped}{started}"),
        ),
        (&["mount", "101"], "POST /v1/cts/101/mount", Value::Null, "Container is mounted\n".into()),
        (&["umount", "101"], "POST /v1/cts/101/umount", Value::Null, "Container is unmounted\n".into()),
    ];
    for (args, line, body, out) in cases {
        let m = nothing_said();
        m.vzctl(args).expect(0, out, "");
        let asked = m.asked_once();
        assert_eq!((asked.line.as_str(), &asked.body), (*line, body), "{args:?}");
        let m = nothing_said();
        let quiet: Vec<&str> = args.iter().copied().chain(["--quiet"]).collect();
        m.vzctl(&quiet).expect(0, "", "");
    }
    for verb in ["destroy", "delete"] {
        let m = nothing_said();
        let private = m.path("var/lib/vz/private/101");
        let out =
            format!("Destroying container private area: {}\nContainer private area was destroyed\n", private.display());
        m.vzctl(&[verb, "101"]).expect(0, &out, "");
        assert_eq!(m.asked_once().line, "DELETE /v1/cts/101");
    }
}

#[test]
fn sentences_of_vzd_win_over_ours() {
    let m = Manager::always(200, json!({"ctid": 101, "messages": ["Unable to stop: container is not running"]}));
    m.vzctl(&["stop", "101"]).expect(0, "Unable to stop: container is not running\n", "");
}

#[test]
fn create_sends_every_option_typed() {
    let m = nothing_said();
    let ran = m.vzctl(&[
        "create",
        "101",
        "--ostemplate",
        "debian-12",
        "--hostname",
        "web1.example.org",
        "--name",
        "web1",
        "--ipadd",
        "10.0.0.2",
        "--ipadd",
        "fd00::2/128",
        "--diskspace",
        "1048576:2097152",
        "--diskinodes",
        "4096",
        "--onboot",
        "yes",
        "--bootorder",
        "3",
        "--nameserver",
        "inherit",
        "--searchdomain",
        "example.org",
        "--userpasswd",
        "root:a:b",
        "--features",
        "nesting:on,bpf:off",
        "--description",
        "a machine",
        "--disabled",
        "no",
    ]);
    let conf = m.path("etc/vz/conf/101.toml");
    let out = format!(
        "Creating container private area (debian-12)\nPerforming postcreate actions\nCT configuration saved to {}\nContainer private area was created\n",
        conf.display()
    );
    ran.expect(0, &out, "");
    let asked = m.asked_once();
    assert_eq!(asked.line, "POST /v1/cts");
    assert_eq!(
        asked.body,
        json!({"ctid": 101, "ostemplate": "debian-12", "layout": null, "settings": {
            "onboot": true, "bootorder": 3, "name": "web1", "description": "a machine", "disabled": false,
            "hostname": "web1.example.org", "nameserver": ["inherit"], "searchdomain": ["example.org"],
            "ipadd": ["10.0.0.2", "fd00::2"], "userpasswd": [{"user": "root", "password": "a:b"}],
            "diskspace": "2G", "diskinodes": 4096, "features": {"bpf": false, "nesting": true}}})
    );
}

#[test]
fn set_passes_on_the_warning_of_vzd_and_with_save_names_the_file() {
    let m = Manager::always(200, json!({"ctid": 101, "warnings": [NOT_SAVED.trim_end()]}));
    m.vzctl(&["set", "101", "--onboot", "yes"]).expect(0, "", NOT_SAVED);
    assert_eq!(m.asked_once().body, json!({"settings": {"onboot": true}, "save": false, "setmode": null}));
    let m = nothing_said();
    let saved = format!("CT configuration saved to {}\n", m.path("etc/vz/conf/101.toml").display());
    m.vzctl(&["set", "101", "--ipdel", "all", "--ipadd", "10.0.0.3", "--save", "--setmode", "restart"])
        .expect(0, &saved, "");
    assert_eq!(
        m.asked_once().body,
        json!({"settings": {"ipadd": ["10.0.0.3"], "ipdel": ["all"]}, "save": true, "setmode": "restart"})
    );
    // A password may come from the input, so that no argument holds it.
    let m = nothing_said();
    m.vzctl_with_input(&["set", "101", "--userpasswd", "bob:-"], b"secret\n").expect(0, "", "");
    assert_eq!(m.asked_once().body["settings"]["userpasswd"], json!([{"user": "bob", "password": "secret"}]));
    let m = nothing_said();
    m.vzctl_with_input(&["set", "101", "--userpasswd", "bob"], b"other").expect(0, "", "");
    assert_eq!(m.asked_once().body["settings"]["userpasswd"], json!([{"user": "bob", "password": "other"}]));
}

#[test]
fn every_spelling_of_the_ssh_key_option_is_the_same_one() {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ000000000000000000000000000000000000000000 me@here";
    for option in ["--sshkey", "--sshkeys", "--ssh-key", "--ssh-keys"] {
        let m = nothing_said();
        m.vzctl(&["set", "101", option, key]).expect(0, "", "");
        assert_eq!(m.asked_once().body["settings"]["sshkeys"], json!([{"user": "root", "key": key}]));
    }
}

#[test]
fn bad_values_end_with_their_code_before_vzd_is_asked() {
    let cases: &[(i32, &[&str], &str)] = &[
        (21, &["start", "0"], "CTID 0 is the host"),
        (21, &["start", "100"], "Bad CT ID 100"),
        (21, &["start", "2147483645"], "Bad CT ID 2147483645"),
        (21, &["stop", "-5"], "Bad CT ID \"-5\""),
        (21, &["destroy", "../101"], "Bad CT ID \"../101\""),
        (21, &["create", "web1", "--ostemplate", "debian-12"], "a new CT needs a number"),
        (29, &["create", "101"], "no OS template"),
        (91, &["create", "101", "--ostemplate", "../x"], "../x"),
        (21, &["create", "101", "--ostemplate", "x", "--layout", "ploop"], "ploop"),
        (131, &["create", "101", "--ostemplate", "x", "--name", "102"], "102"),
        (20, &["--root", "some/where", "status", "101"], "some/where"),
        (71, &["set", "101", "--ipadd", "; reboot"], "; reboot"),
        (20, &["set", "101"], "nothing to set"),
        (20, &["set", "101", "--frobnicate"], "`vzctl set --help`"),
        (20, &["set", "101", "--hostnam", "x"], "similar argument exists: '--hostname'"),
        (20, &["set", "101", "--hostname"], "--hostname"),
        (20, &["set"], "CTID|NAME"),
        (20, &["--quiet"], "no verb"),
        (20, &["frobnicate", "101"], "frobnicate"),
        (21, &["set", "101", "--onboot", "maybe"], "maybe"),
        (21, &["set", "101", "--bootorder", "-1"], "-1"),
        (21, &["set", "101", "--setmode", "now", "--onboot", "yes"], "now"),
        (21, &["set", "101", "--sshkey", "/nonexistent"], "/nonexistent"),
        (20, &["set", "101", "--sshuser", "bob"], "--sshkey"),
        (70, &["set", "101", "--hostname", "a..b"], "a..b"),
        (71, &["set", "101", "--ipadd", "10.0.0.256"], "10.0.0.256"),
        (71, &["set", "101", "--ipdel", "10.0.0"], "10.0.0"),
        (72, &["set", "101", "--nameserver", "dns"], "dns"),
        (72, &["set", "101", "--searchdomain", "a b..c"], "b..c"),
        (21, &["stop", "101", "--timeout", "0"], "1 to 3600"),
        (21, &["set", "101", "--ram", "1X"], "1X"),
        (21, &["set", "101", "--numproc=5:6K"], "5:6K"),
        (20, &["set", "101", "--quotatime", "5"], "not in this version"),
        (20, &["suspend", "101"], "not in this version"),
        (20, &["snapshot-list", "101"], "not in this version"),
        (20, &["exec", "101"], "COMMAND"),
        (91, &["template", "build", "a/b"], "a/b"),
    ];
    for (code, args, says) in cases {
        let m = nothing_said();
        let ran = m.vzctl(args);
        assert_eq!((ran.code, ran.out.as_str()), (*code, ""), "{args:?}: {ran:?}");
        assert!(ran.err.contains(says), "{args:?}: {ran:?}");
        assert_eq!(m.asked(), [], "{args:?}");
        let json = m.vzctl(&[&["--json"], *args].concat());
        assert_eq!((json.code, &json.json()["code"]), (*code, &json!(code)), "{json:?}");
    }
}

#[test]
fn a_refusal_of_vzd_is_its_message_its_hint_and_its_code() {
    let error = json!({"code": 32, "message": "Container is already running", "hint": "nothing is left to do"});
    let m = Manager::always(409, error.clone());
    m.vzctl(&["start", "101"]).expect(32, "", "Container is already running\nHint: nothing is left to do\n");
    let ran = m.vzctl(&["start", "101", "--json"]);
    assert_eq!((ran.code, ran.json()), (32, error));
}

#[test]
fn json_of_a_change_has_messages_warnings_and_steps() {
    let done = json!({"ctid": 101, "messages": ["done"], "warnings": ["w"], "steps": [{"name": "mount", "us": 1234}]});
    let m = Manager::always(200, done.clone());
    let ran = m.vzctl(&["start", "101", "--json"]);
    assert_eq!((ran.code, ran.json(), ran.err.as_str()), (0, done, "WARNING: w\n"));
    m.vzctl(&["start", "101", "--verbose"]).expect(0, "done\n  mount      1.234 ms\n", "WARNING: w\n");
}

#[test]
fn the_version_is_the_third_word() {
    let m = Manager::alone();
    let version = env!("CARGO_PKG_VERSION");
    m.vzctl(&["--version"]).expect(0, &format!("vzctl version {version}\n"), "");
    m.vzlist(&["--version"]).expect(0, &format!("vzlist version {version}\n"), "");
    let ran = m.vzctl(&["version"]);
    assert_eq!((ran.code, ran.out.lines().next()), (0, Some(format!("vzctl version {version}").as_str())));
    let m = Manager::always(200, json!({"version": "9.9", "pid": 7, "root": "/r"}));
    assert_eq!(m.vzctl(&["version"]).out, format!("vzctl version {version}\nvzd version 9.9 (pid 7, root /r)\n"));
    assert_eq!(m.vzctl(&["version", "--json"]).json()["vzd"]["pid"], 7);
}

#[test]
fn without_vzd_the_message_says_how_to_get_one() {
    let m = Manager::alone();
    let ran = m.vzctl(&["start", "101"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.starts_with("vzd is not running"), "{ran:?}");
    assert!(ran.err.contains("VZ_ROOT"), "{ran:?}");
    let ran = m.vzctl(&["start", "101", "--root", "/nonexistent"]);
    assert!(ran.err.contains("/nonexistent/run/vz/vzd.sock"), "{ran:?}");
}

#[test]
fn a_vzd_that_dies_or_talks_nonsense_is_told_as_such() {
    let ran = Manager::answering(|_| (0, String::new())).vzctl(&["start", "101"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("lost") && ran.err.contains("systemctl status vzd"), "{ran:?}");
    let ran = Manager::answering(|_| (200, "<html>".into())).vzctl(&["start", "101"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("<html>") && ran.err.contains("vzctl version"), "{ran:?}");
}

#[test]
fn a_socket_deeper_than_an_address_is_long_is_reached_all_the_same() {
    let m = nothing_said();
    let deep = m.path(&"d".repeat(120));
    std::fs::create_dir_all(deep.join("run")).unwrap();
    std::os::unix::fs::symlink(m.path("run/vz"), deep.join("run/vz")).unwrap();
    assert_eq!(m.vzctl(&["--root", deep.to_str().unwrap(), "start", "101"]).code, 0);
}

#[test]
fn status_is_one_line_and_exit_0_with_and_without_vzd() {
    let m = Manager::always(200, info(101, "mounted", json!({})));
    m.vzctl(&["status", "101"]).expect(0, "CTID 101 exist mounted down\n", "");
    let m = Manager::always(404, json!({"code": 14, "message": "no"}));
    m.vzctl(&["status", "999"]).expect(0, "CTID 999 deleted unmounted down\n", "");
    let m = Manager::alone();
    m.vzctl(&["status", "101"]).expect(0, "CTID 101 deleted unmounted down\n", "");
    m.configure(101, "ostemplate = 'x'\nname = 'web1'\n");
    m.vzctl(&["status", "web1"]).expect(0, "CTID 101 exist unmounted down\n", "");
    m.pretend_running(101);
    m.vzctl(&["status", "web1"]).expect(0, "CTID 101 exist mounted running\n", "");
    let json = m.vzctl(&["status", "101", "--json"]).json();
    assert_eq!((&json["running"], &json["source"], &json["ctid"]), (&json!(true), &json!("files"), &json!(101)));
    let ran = m.vzctl(&["status", "99"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "CTID 99 deleted unmounted down\n"));
}

#[test]
fn a_template_is_built_with_its_stages_told_and_its_failure_exits_with_its_code() {
    let template = json!({"name": "debian-12", "status": "ready", "distribution": "debian 12", "init": "systemd", "arch": "amd64",
        "digest": "abc", "size": 314572800, "files": 9000, "built_at": 0, "origin": "build", "source": null, "description": null, "used_by": [101],
        "problem": null});
    let built = [
        json!({"event": "stage", "stage": "packages", "percent": 5}),
        json!({"event": "log", "line": "I: \u{1b}[1mretrieving"}),
        json!({"event": "done", "template": template}),
    ];
    let lines = built.iter().map(|l| format!("{l}\n")).collect::<String>();
    let m = Manager::answering(move |_| (200, lines.clone()));
    let shown = "Name:         debian-12\nStatus:       ready\nDistribution: debian 12\nInit:         systemd\nArchitecture: amd64\n\
        Size:         300.0M\nFiles:        9000\nBuilt:        1970-01-01 00:00:00 UTC\nOrigin:       build\nDigest:       sha256:abc\nUsed by:      101\n";
    let head = "Building OS template debian-12\n  5 % packages\n";
    m.vzctl(&["template", "build", "debian-12"]).expect(
        0,
        &format!("{head}OS template debian-12 was built\n{shown}"),
        "",
    );
    m.vzctl(&["template", "build", "debian-12", "--quiet"]).expect(0, "", "");
    let verbose = m.vzctl(&["template", "build", "debian-12", "--verbose", "--rebuild"]).out;
    assert!(verbose.contains("\n  I: [1mretrieving\n"), "{verbose}");
    assert_eq!(m.asked()[2].body, json!({"rebuild": true}));
    assert_eq!(m.vzctl(&["template", "build", "debian-12", "--json"]).json(), template);
    let failed = json!({"event": "failed", "error": {"code": 47, "message": "OS template x has no init", "hint": "h"}});
    let m = Manager::always(200, failed);
    m.vzctl(&["template", "build", "x"]).expect(47, "Building OS template x\n", "OS template x has no init\nHint: h\n");
    let m = Manager::always(200, json!({"event": "stage", "stage": "packages", "percent": 5}));
    assert_eq!(m.vzctl(&["template", "build", "x"]).code, 3, "an answer that just ends is a failure");
    let m = Manager::always(200, json!([template]));
    m.vzctl(&["template", "list"]).expect(
        0,
        "NAME       STATUS  DISTRIBUTION  INIT     ARCH   SIZE    USED BY  ORIGIN  MADE\n\
         debian-12  ready   debian 12     systemd  amd64  300.0M  1        build   1970-01-01\n",
        "",
    );
}

#[test]
fn check_lists_every_gap_with_its_remedy_and_exits_3_only_when_nothing_can_run() {
    let item = |status: &str, remedy: Option<&str>| json!({"group": "program", "name": "nft", "status": status, "found": "1.0.9", "loss": remedy.map(|_| "no network filter"), "remedy": remedy});
    let m = Manager::always(
        200,
        json!({"ok": true, "items": [item("ok", None), item("missing", Some("apt-get install nftables"))]}),
    );
    let ran = m.vzctl(&["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for says in [
        "GROUP",
        "1.0.9",
        "program nft (missing): no network filter",
        "    remedy: apt-get install nftables",
        "Containers can run",
    ] {
        assert!(ran.out.contains(says), "{says}: {}", ran.out);
    }
    let m = Manager::always(200, json!({"ok": false, "items": [item("fatal", Some("x"))]}));
    assert_eq!((m.vzctl(&["check"]).code, m.vzctl(&["check", "--json"]).code), (3, 3));
    assert_eq!(m.vzctl(&["check", "--json"]).json()["items"][0]["remedy"], "x");
}

#[test]
fn who_waits_at_a_terminal_longer_than_two_seconds_is_told_what_for() {
    let (answer, wait) = std::sync::mpsc::channel();
    let m = Manager::answering(move |_| {
        wait.recv().unwrap();
        (200, json!({"ctid": 101}).to_string())
    });
    let (ours, theirs) = terminal();
    let mut command = m.command("vzctl");
    command.args(["start", "101", "--wait"]).stderr(theirs).stdout(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    shows(&ours, "Starting CT 101, waiting for its default runlevel");
    answer.send(()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(0));
    assert!(done.stdout.ends_with(b"Container start in progress...\n"), "{done:?}");
}

#[test]
fn a_vzd_that_does_not_answer_cannot_hide_what_runs() {
    let (_hold, wait) = std::sync::mpsc::channel::<()>();
    let m = Manager::answering(move |_| {
        let _ = wait.recv();
        (0, String::new())
    });
    m.pretend_running(101);
    m.vzctl(&["status", "101"]).expect(0, "CTID 101 exist mounted running\n", "");
}
