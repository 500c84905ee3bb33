//! Tables as an operator sees them: at a terminal of 80 or 100 columns, with long names and real figures.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Manager, info, terminal};
use serde_json::{Value, json};
use std::{
    os::fd::{AsFd, OwnedFd},
    process::Stdio,
    time::{Duration, Instant},
};

/// What the program shows at a terminal of so many columns.
fn at_terminal(m: &Manager, columns: u16, words: &[&str]) -> String {
    let (ours, theirs) = terminal();
    let size = rustix::termios::Winsize { ws_row: 50, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&ours, size).unwrap();
    let mut command = m.command(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stderr(theirs.try_clone().unwrap()).stdout(theirs);
    let mut child = command.spawn().unwrap();
    drop(command);
    let shown = until_closed(&ours);
    assert_eq!(child.wait().unwrap().code(), Some(0), "{words:?}: {shown}");
    shown.replace("\r\n", "\n").replace("\x1b[31m", "").replace("\x1b[33m", "").replace("\x1b[0m", "")
}

/// All that is written until nobody has the other side any more.
fn until_closed(ours: &OwnedFd) -> String {
    let (mut seen, begun) = (Vec::new(), Instant::now());
    loop {
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(ours.as_fd(), rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&limit)).unwrap();
        let mut buffer = [0; 4096];
        match rustix::io::read(ours, &mut buffer) {
            Ok(0) | Err(rustix::io::Errno::IO) => return String::from_utf8(seen).unwrap(),
            Ok(n) => seen.extend_from_slice(&buffer[..n]),
            Err(e) => panic!("{e}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not end: {}", String::from_utf8_lossy(&seen));
    }
}

#[track_caller]
fn fits(shown: &str, columns: usize) {
    for line in shown.lines() {
        assert!(line.chars().count() <= columns, "{} columns: {line:?}\n{shown}", line.chars().count());
    }
}

/// Columns of `line` in which the words of a heading end.
fn ends(line: &str) -> Vec<usize> {
    let chars: Vec<char> = line.chars().collect();
    (0..chars.len()).filter(|n| chars[*n] != ' ' && chars.get(n + 1).is_none_or(|c| *c == ' ')).collect()
}

fn bean(name: &str, figures: [u64; 5], class: &str, note: Option<&str>) -> Value {
    let unit = if name.ends_with("pages") { "pages" } else { "items" };
    json!({"name": name, "unit": unit, "held": figures[0], "maxheld": figures[1], "barrier": figures[2],
        "limit": figures[3], "failcnt": figures[4], "class": class, "note": note})
}

fn operation(id: &str, asker: &str, error: Option<&str>) -> Value {
    json!({"id": id, "kind": "start", "subject": "ct", "name": "a-long-name-of-a-container.example.org", "ctid": 101,
        "asked": 1_796_000_000_000u64, "begun": 1_796_000_000_000u64, "ended": 1_796_000_001_000u64,
        "state": error.map_or("done", |_| "failed"), "asker": asker, "facts": [], "parts": [], "count": 1, "step": "launch",
        "steps_done": 1, "steps_total": 3, "line": "", "cancellable": false, "times": [],
        "error": error.map(|e| json!({"code": 7, "message": e}))})
}

#[test]
fn numbers_and_names_are_whole_words_in_tables_at_a_narrow_terminal() {
    let (first, second) = ("01HQZX3W5J9Q6ZK2V7T8R4M1NB", "01HQZX3W5J9Q6ZK2V7T8R4M1NC");
    let cause = "it was not started because its private area is not there: /var/lib/vz/private/101";
    let all = json!([operation(first, "uid 1000 (alice.longname)", Some(cause)), operation(second, "root", None)]);
    let m = Manager::always(200, all);
    for columns in [80, 100, 200] {
        let shown = at_terminal(&m, columns, &["vzctl", "operations"]);
        fits(&shown, columns.into());
        for word in [first, second, "2026-11-30 00:53:20", "uid 1000 (alice.longname)", "/var/lib/vz/private/101"] {
            assert!(shown.contains(word), "{columns}: {word}: {shown}");
        }
        assert!(shown.contains("a-long-name-of-a-container.example.org"), "{shown}");
        assert!(!shown.lines().any(|l| l.contains(first) && l.contains(second)), "{shown}");
    }
    let name = "debian-12-with-a-very-long-name-indeed-of-58-characters-xx";
    let template = json!({"name": name, "status": "ready", "distribution": "debian 12", "init": "systemd", "arch": "amd64",
        "size": 314572800, "used_by": [101], "origin": "build", "built_at": 0, "packages": [], "files": 3});
    let m = Manager::always(200, json!([template]));
    for columns in [80, 100] {
        let shown = at_terminal(&m, columns, &["vzctl", "template", "list"]);
        fits(&shown, columns.into());
        for word in [name, "debian 12", "300.0M", "1970-01-01", "MADE"] {
            assert!(shown.contains(word), "{columns}: {word}: {shown}");
        }
    }
    let found = "/usr/sbin/nft of nftables version 1.0.9 with libnftables, /usr/lib/x86_64-linux-gnu/libnftables.so.1";
    let m = Manager::always(
        200,
        json!({"ok": true, "items": [{"group": "program", "name": "conntrack timeouts of all", "status": "missing",
            "found": found, "loss": "no network filter", "remedy": "apt-get install nftables"}]}),
    );
    for columns in [80, 100] {
        let shown = at_terminal(&m, columns, &["vzctl", "check"]);
        fits(&shown, columns.into());
        assert!(shown.contains("/usr/lib/x86_64-linux-gnu/libnftables.so.1"), "{shown}");
    }
    assert!(m.vzctl(&["check"]).out.contains(found), "a pipe gets one line a row");
}

#[test]
fn vzubc_fits_a_hundred_columns_and_its_figures_stand_apart() {
    let most = u64::MAX / 2;
    let note =
        "in part: local (unix), netlink and packet sockets do not pass the kernel's hook and are held by numfile";
    let rows = json!([
        bean("numproc", [99_999, 99_999, 9000, 9000, 123_456], "enforced", None),
        bean("numothersock", [65_536, 65_536, 12, 12, 0], "unenforced", Some(note)),
        bean("oomguarpages", [262_144, 262_144, 2, 3, 0], "per-process", Some("per process; held is sampled")),
        bean(
            "numfile",
            [0, 12, most, most, 0],
            "per-process",
            Some("per process; held is the number of descriptors, sampled")
        ),
    ]);
    let m = Manager::always(200, json!([info(2_147_483_644, "running", json!({"beancounters": rows}))]));
    for columns in [80, 100] {
        for words in [&["vzubc"][..], &["vzubc", "-v"], &["vzubc", "-v", "-i", "-r"]] {
            let shown = at_terminal(&m, columns, words);
            let wide = words.contains(&"-i") && columns == 80;
            fits(&shown, if wide { 100 } else { columns.into() });
            if words.contains(&"-v") {
                let flat = shown.split_whitespace().collect::<Vec<_>>().join(" ");
                assert!(flat.contains(note) && flat.contains("descriptors, sampled"), "{shown}");
            }
            let row = shown.lines().find(|l| l.contains("numproc|")).unwrap();
            assert!(row.contains("|99999  11x  11x|99999  11x  11x| 9000| 9000|"), "{shown}");
            let head = shown.lines().nth(1).unwrap();
            let bars = |l: &str| l.match_indices('|').map(|(at, _)| at).collect::<Vec<_>>();
            assert_eq!(bars(head), bars(row), "{shown}");
        }
    }
    let ran = m.command("vzubc").args(["-v"]).output().unwrap();
    fits(&String::from_utf8(ran.stdout).unwrap(), 100);
}

#[test]
fn the_columns_of_why_say_what_their_figures_are() {
    let now = |n: f64| json!({"some": [n, 9.0, n + 1.0], "full": [0.0, 0.0, 0.0]});
    let why = |pressure: Value| {
        let m = Manager::always(
            200,
            json!({"ctid": 101, "status": "running", "last_exit": null, "last_failure": null, "events": [], "counters": [],
                "pressure": pressure, "advice": []}),
        );
        m.vzctl(&["why", "101"]).out
    };
    let out =
        why(json!({"cpu": now(2.5), "memory": null, "io": now(0.0), "hour": [1.5, 0.0, 0.25, 40.0], "seconds": 1}));
    assert!(!out.contains("last 1 s"), "{out}");
    let line = |words: &str| out.lines().find(|l| l.contains(words)).unwrap_or_else(|| panic!("{words}: {out}"));
    let head = line("last 10 s");
    for heading in ["last 10 s", "last 5 min", "on record"] {
        assert!(head.contains(heading), "{out}");
    }
    let figures = |words: &str| line(words).split_whitespace().rev().take(3).collect::<Vec<_>>();
    assert_eq!(figures("processor time"), ["1.5", "3.5", "2.5"]);
    assert_eq!(figures("for memory"), ["-", "-", "-"], "this kernel does not count it");
    assert_eq!(figures("cpulimit"), ["40.0", "-", "-"]);
    assert_eq!(ends(head).last(), ends(line("processor time")).last(), "{out}");
    assert!(line("On record").contains("1 s of running time within the last hour"), "{out}");
    let out = why(json!({"cpu": null, "memory": null, "io": null, "hour": [0.0, 0.0, 0.0, 0.0], "seconds": 0}));
    assert!(!out.contains("0.0"), "nothing was measured yet: {out}");
    fits(&out, 80);
}

#[test]
fn columns_of_vzlist_and_the_tools_stay_in_line_with_real_figures() {
    let loud = json!({"hostname": "a", "ip": ["2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"], "numproc": 5, "uptime": 90_000_000,
        "laverage": [112.53, 100.25, 98.01], "beancounters": [bean("physpages", [1 << 30, 1 << 30, 0, 1 << 40, 0], "enforced", None)]});
    let quiet = json!({"hostname": "b", "ip": ["10.0.0.1"], "numproc": 5, "uptime": 1, "laverage": [0.0, 0.0, 0.0]});
    let cts = json!([info(101, "running", loud), info(2_147_483_644, "running", quiet)]);
    let host = json!({"memory": 1u64 << 42, "available": 0, "swap": 1u64 << 40, "swap_used": 0, "cpus": 2, "pids": 1000,
        "promised": 0, "reserve": 0});
    let m = Manager::answering(move |r| {
        let body = if r.line.contains("/host") {
            &host
        } else if r.line.contains("/cts/") {
            &cts[0]
        } else {
            &cts
        };
        (200, body.to_string())
    });
    let out = m.vzlist(&["-o", "ctid,ip,uptime,laverage,hostname"]).out;
    let lines: Vec<&str> = out.lines().collect();
    let starts = |l: &str, word: &str| l.find(word).unwrap_or_else(|| panic!("{word}: {out}"));
    assert_eq!(starts(lines[0], "HOSTNAME"), starts(lines[1], " a") + 1, "{out}");
    assert_eq!(starts(lines[0], "HOSTNAME"), starts(lines[2], " b") + 1, "{out}");
    let tool = |words: &[&str]| {
        let ran = m.command(words[0]).args(&words[1..]).output().unwrap();
        String::from_utf8(ran.stdout).unwrap()
    };
    for words in [&["vzmemcheck", "-v", "-A"][..], &["vzmemcheck", "-v"]] {
        let out = tool(words);
        let rows: Vec<&str> = out.lines().collect();
        for row in [2, 3, 4, 6] {
            assert_eq!(
                ends(rows[row]).into_iter().rev().take(5).collect::<Vec<_>>(),
                ends(rows[1]).into_iter().rev().take(5).collect::<Vec<_>>(),
                "{out}"
            );
        }
        fits(&out, 80);
    }
    let out = tool(&["vzcalc", "101"]);
    let rows: Vec<&str> = out.lines().collect();
    for row in [1, 3] {
        assert_eq!(ends(rows[row]).last(), ends(rows[0]).last(), "{out}");
    }
    let out = tool(&["vzcpucheck", "-v"]);
    assert!(out.contains(" units in "), "what the sum is of is said: {out}");
}
