//! Limits, as far as a host without memory, cpu, pids and io controllers on its cgroup2 tree can show them: bad input,
//! honesty about what is not enforced, what is per process, the classic text, sample configurations and the operator's
//! tools. What is enforced is proved in the virtual machine (`vm_limits`).

use std::fs;
use vz_tests::{Rig, template::Template::Tiny};
use vz_types::ExitCode::*;

const WARN: &str = "[limits]\nunenforceable = \"warn\"\n";

/// A manager that starts containers whatever the host can enforce.
fn lenient() -> Rig {
    let rig = Rig::stopped(&[Tiny]);
    rig.write_manager_config(WARN);
    rig.start_vzd(&[]);
    rig
}

fn tool(rig: &Rig, name: &str, args: &[&str]) -> vz_tests::command::Output {
    vz_tests::command::run(&mut rig.program(name, args), None, std::time::Duration::from_secs(30)).expect(name)
}

#[test]
fn bad_limits_are_named_and_change_nothing() {
    let rig = lenient();
    rig.create(101, Tiny, &["--numfile", "4096"]);
    rig.ok(&["start", "101"]);
    let conf = || fs::read_to_string(rig.paths.conf(101.try_into().unwrap())).unwrap();
    let state = || (conf(), rig.inside(101, "ulimit -n -H"));
    let before = state();
    for (option, value) in [
        ("--physpages", "512M:256M"),
        ("--physpages", "-1"),
        ("--physpages", "99999T"),
        ("--physpages", "9223372036854775808"),
        ("--physpages", "0:0"),
        ("--physpages", "5:6:7"),
        ("--physpages", "12X"),
        ("--physpages", ":5"),
        ("--lockedpages", "-1:5"),
        ("--kmemsize", "10:5"),
        ("--numfile", "99999999999"),
        ("--numtcpsock", "5M"),
        ("--numothersock", "1.5"),
        ("--vmguarpages", "unlimited"),
        ("--swappages", "unlimited:5"),
        ("--swap", "4000T"),
        ("--iopslimit", "1K"),
        ("--cpumask", "5-3"),
        ("--ram", "-5"),
        ("--ram", "99999T"),
        ("--ram", "0"),
        ("--swap", "x"),
        ("--numproc", "10K"),
        ("--numproc", "9223372036854775808"),
        ("--numproc", "5000000"),
        ("--oomguarpages", "unlimited"),
        ("--oomguarpages", "4000T"),
        ("--cpuunits", "unlimited"),
        ("--cpuunits", "0"),
        ("--cpulimit", "-1"),
        ("--cpulimit", "409600"),
        ("--cpus", "4000"),
        ("--cpumask", "0-8000"),
        ("--cpumask", "x"),
        ("--nodemask", "77"),
        ("--ioprio", "8"),
        ("--iolimit", "-1"),
        ("--iopslimit", "unlimited"),
        ("--vm_overcommit", "-1"),
    ] {
        for save in [&["--save"][..], &[]] {
            let args = [&["set", "101", option, value], save].concat();
            let out = rig.refused(&args, BadValue, &option[2..]);
            assert!(out.stderr.contains(value), "{option} {value}: the value is not named:\n{out}");
            let form = ["write ", "it is at least", "this host has"];
            assert!(
                form.iter().any(|f| out.stderr.contains(f)),
                "{option} {value}: what would do is not named:\n{out}"
            );
        }
    }
    // One bad value among good ones: none of them is taken.
    rig.refused(&["set", "101", "--numfile", "2048", "--numproc", "10K", "--save"], BadValue, "numproc");
    rig.refused(&["set", "101", "--nosuchpages", "5"], BadSyntax, "nosuchpages");
    rig.refused(&["create", "102", "--ostemplate", "tiny", "--ram", "-1"], BadValue, "ram");
    rig.refused(&["create", "102", "--ostemplate", "tiny", "--config", "no-such-plan"], ApplyConfig, "no-such-plan");
    assert_eq!(rig.status(102), "deleted unmounted down");
    assert_eq!(state(), before);
    // By hand, in the file: the line and the counter are named.
    rig.ok(&["stop", "101", "--fast"]);
    let path = rig.paths.conf(101.try_into().unwrap());
    for (text, word) in [
        ("[limits]\nphyspages = '2G:1G'\n", "physpages"),
        ("[limits]\nnumproc = '4K'\n", "numproc"),
        ("[limits]\nfoopages = 3\n", "foopages"),
        ("[cpu]\nunits = 3\n", "cpuunits"),
        ("[limits]\nphyspages = '0:4000T'\n", "physpages"),
        ("[limits]\nphyspages = 9223372036854775808\n", "physpages"),
        ("[limits]\nnumfile = 99999999999\n", "numfile"),
        ("[limits]\noomguarpages = 'unlimited'\n", "oomguarpages"),
        ("[cpu]\nmask = '0-8000'\n", "cpumask"),
        ("[io]\nlimit = 'x'\n", "iolimit"),
    ] {
        fs::write(&path, format!("ostemplate = 'tiny'\n{text}")).unwrap();
        rig.refused(&["start", "101"], BadConfig, word);
    }
    fs::write(&path, &before.0).unwrap();
    rig.ok(&["start", "101"]);
}

#[test]
fn a_limit_this_host_cannot_enforce_is_refused_at_start_or_shown_as_unenforced() {
    let rig = Rig::new(&[Tiny]);
    let out = rig.ok(&["create", "101", "--ostemplate", "tiny", "--ram", "64M", "--numproc", "50", "--cpulimit", "50"]);
    assert!(out.stderr.is_empty() || out.stderr.contains("WARNING"), "{out}");
    let out = rig.refused(&["start", "101"], Resource, "physpages");
    for word in ["memory controller", "numproc", "pids controller", "cpulimit", "cgroup_no_v1", "unenforceable"] {
        assert!(out.stderr.contains(word), "{word}: {out}");
    }
    assert_eq!(rig.status(101), "exist unmounted down");
    rig.stop_vzd();
    rig.write_manager_config(WARN);
    rig.start_vzd(&[]);
    let out = rig.ok(&["start", "101"]);
    assert!(out.stderr.contains("unenforced") && out.stderr.contains("physpages"), "{out}");
    let class = |name: &str| {
        let all = tool(&rig, "vzubc", &["-j", "101"]).ok().json();
        let rows = all[0]["beancounters"].as_array().cloned().unwrap_or_default();
        let row = rows.iter().find(|b| b["name"] == name).cloned().unwrap_or_default();
        (row["class"].as_str().unwrap_or_default().to_owned(), row["note"].as_str().unwrap_or_default().to_owned())
    };
    for (name, controller) in
        [("physpages", "memory"), ("swappages", "memory"), ("numproc", "pids"), ("oomguarpages", "memory")]
    {
        let (class, note) = class(name);
        assert_eq!(class, "unenforced", "{name}");
        assert!(note.contains(controller), "{name}: {note}");
    }
    assert_eq!(class("kmemsize").0, "accounted");
    assert_eq!(class("numfile").0, "per-process");
    assert_eq!(class("numpty").0, "enforced");
    let list = rig.vzlist(&["-j", "101"]).ok().json();
    assert_eq!(list[0]["physpages"]["class"], "unenforced", "{list}");
    assert_eq!(list[0]["physpages"]["limit"], 16_384);
    assert_eq!(list[0]["cpulimit"], 50);
    assert!(list[0]["unenforced"].as_array().is_some_and(|u| u.iter().any(|n| n == "cpulimit")), "{list}");
    let why = rig.ok(&["why", "101"]);
    assert!(why.stdout.contains("physpages is unenforced on this host"), "{why}");
}

#[test]
fn what_is_per_process_or_inside_holds_from_the_first_process_on_and_changes_live() {
    let rig = Rig::new(&[Tiny]);
    rig.create(
        101,
        Tiny,
        &[
            "--numfile",
            "2000",
            "--lockedpages",
            "1M",
            "--numpty",
            "7",
            "--shmpages",
            "8M",
            "--numsiginfo",
            "100",
            "--tcpsndbuf",
            "100000",
            "--tcprcvbuf",
            "200000",
        ],
    );
    rig.ok(&["start", "101"]);
    let limits = || rig.inside(101, "cat /proc/1/limits");
    let row = |name: &str| {
        let text = limits();
        let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_default().to_owned();
        line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("Max open files"), ["1024", "2000"]);
    assert_eq!(row("Max locked memory"), ["1048576", "1048576"]);
    assert_eq!(row("Max pending signals"), ["100", "100"]);
    assert_eq!(rig.inside(101, "ulimit -H -n"), "2000", "programs of exec have them too");
    let mounts = rig.inside(101, "cat /proc/mounts");
    assert!(mounts.lines().any(|l| l.contains(" /dev/pts devpts ") && l.contains("max=7")), "{mounts}");
    assert!(mounts.lines().any(|l| l.contains(" /dev/shm ") && l.contains("size=8192k")), "{mounts}");
    assert_eq!(rig.inside(101, "cat /proc/sys/kernel/shmall"), "2048");
    assert!(rig.inside(101, "cat /proc/sys/net/ipv4/tcp_wmem").ends_with("\t100000"));
    assert!(rig.inside(101, "cat /proc/sys/net/ipv4/tcp_rmem").ends_with("\t200000"));
    // Live, without saving.
    let out =
        rig.ok(&["set", "101", "--numfile", "1500", "--numpty", "9", "--shmpages", "4M", "--tcpsndbuf", "unlimited"]);
    assert!(out.stderr.contains("not saved"), "{out}");
    assert_eq!(row("Max open files"), ["1024", "1500"]);
    assert_eq!(rig.inside(101, "ulimit -H -n"), "1500");
    let mounts = rig.inside(101, "cat /proc/mounts");
    assert!(mounts.contains("max=9") && mounts.contains("size=4096k"), "{mounts}");
    assert_eq!(rig.inside(101, "cat /proc/sys/kernel/shmall"), "1024");
    assert!(!rig.inside(101, "cat /proc/sys/net/ipv4/tcp_wmem").ends_with("\t100000"));
    // What only the next start can change says so.
    rig.refused(&["set", "101", "--numsiginfo", "200", "--save"], Running, "numsiginfo");
    rig.ok(&["set", "101", "--numsiginfo", "200", "--save", "--setmode", "ignore"]);
    // A restart of vzd forgets nothing of it; a restart of the container goes back to what was saved.
    rig.kill_vzd();
    rig.start_vzd(&[]);
    let shown = |rig: &Rig| rig.vzlist(&["-j", "101"]).ok().json()[0]["numfile"]["limit"].clone();
    assert_eq!(shown(&rig), 1500);
    rig.ok(&["restart", "101", "--fast"]);
    assert_eq!(row("Max open files"), ["1024", "2000"]);
    assert_eq!(row("Max pending signals"), ["200", "200"]);
    assert_eq!(shown(&rig), 2000);
}

#[test]
fn the_classic_text_is_on_the_host_and_inside() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--numfile", "2000", "--kmemsize", "14372700:14790164"]);
    rig.ok(&["start", "101"]);
    let inside = rig.inside(101, "cat /run/vz/user_beancounters");
    let header = "       uid  resource                     held              maxheld              barrier                limit              failcnt";
    let lines: Vec<&str> = inside.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[1]), (26, "Version: 2.5", header), "{inside}");
    assert!(lines[2].starts_with("      101:  kmemsize     "), "{inside}");
    assert!(lines[2].contains(" 14372700 ") && lines[2].contains(" 14790164 "), "{inside}");
    let names: Vec<&str> = lines[2..].iter().map(|l| l[12..24].trim()).collect();
    assert_eq!(names.iter().filter(|n| **n == "dummy").count(), 4);
    assert_eq!((names[5], names[19], names[23]), ("numproc", "numfile", "numiptent"));
    for l in &lines[1..] {
        assert_eq!(l.len(), 12 + 12 + 5 * 21, "{l:?}");
    }
    assert!(lines[21].ends_with(&format!("{:>21}{:>21}{:>21}", 2000, 2000, 0)), "{inside}");
    assert!(rig.inside(101, "cat /run/vz/resources").contains("swappages"));
    // Root inside reads it and changes nothing.
    let out = rig.vzctl(&[
        "exec2",
        "101",
        "echo x > /run/vz/user_beancounters; rm -f /run/vz/resources; cat /run/vz/resources",
    ]);
    assert!(out.stdout.contains("numproc"), "{out}");
    // The host's has every running container.
    let seen = vz_tests::wait::in_dir(&rig.paths.run(), std::time::Duration::from_secs(20), || {
        fs::read_to_string(rig.paths.user_beancounters()).ok().filter(|t| t.contains("      101:  kmemsize"))
    });
    assert!(seen.expect("watching").is_some_and(|t| t.starts_with("Version: 2.5\n")));
    let classic = tool(&rig, "vzubc", &["--classic", "101"]).ok();
    assert_eq!(classic.stdout.lines().nth(1), Some(header), "{classic}");
}

#[test]
fn vzubc_shows_filters_and_counts_from_the_last_time() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--numpty", "4:100"]);
    rig.create(102, Tiny, &["--name", "db"]);
    rig.ok(&["start", "101"]);
    rig.ok(&["start", "102"]);
    let out = tool(&rig, "vzubc", &[]).ok();
    assert!(out.stdout.contains("CT 101") && out.stdout.contains("CT 102"), "{out}");
    assert!(out.stdout.contains("HELD Bar% Lim%| MAXH Bar% Lim%| BAR | LIM | FAIL"), "{out}");
    assert!(!out.stdout.contains('\x1b'), "no colour where there is no terminal: {out}");
    let out = tool(&rig, "vzubc", &["-v", "db"]).ok();
    assert!(!out.stdout.contains("CT 101") && out.stdout.contains("per-process: per process"), "{out}");
    let out = tool(&rig, "vzubc", &["-q"]).ok();
    assert_eq!(out.text(), "", "nothing is near a limit");
    tool(&rig, "vzubc", &["-r", "101"]).ok();
    // The classic tool's options of two letters, and what has changed since the last look.
    assert_eq!(tool(&rig, "vzubc", &["-q", "-qh", "2", "-qm", "2"]).ok().text(), "");
    assert!(tool(&rig, "vzubc", &["-q", "-qh", "0", "-qm", "2", "101"]).ok().stdout.contains("numpty|"));
    let store = rig.paths.base.join("figures").display().to_string();
    tool(&rig, "vzubc", &["-i", "-rd", &store, "101"]).ok();
    rig.inside(101, "sleep 300 >/dev/null 2>&1 & sleep 300 >/dev/null 2>&1 &");
    let out = tool(&rig, "vzubc", &["-i", "-q", "-id", &store, "101"]).ok();
    assert!(out.stdout.contains("|  HELD+") && out.stdout.contains("numproc|") && out.stdout.contains("+2 |"), "{out}");
    tool(&rig, "vzubc", &["-qh", "much"]).expect_code(1);
    let bad = tool(&rig, "vzubc", &["999"]);
    assert!(bad.code() == 14 && bad.stderr.contains("999"), "{bad}");
    // From the classic text, as inside a container.
    let file = rig.paths.base.join("ub");
    fs::write(&file, tool(&rig, "vzubc", &["--classic"]).ok().stdout).unwrap();
    let out = tool(&rig, "vzubc", &["-f", &file.display().to_string(), "101"]).ok();
    assert!(out.stdout.contains("numpty"), "{out}");
}

#[test]
fn sample_configurations_and_the_operators_tools() {
    let rig = lenient();
    rig.create(101, Tiny, &["--config", "light", "--ram", "96M"]);
    let conf = fs::read_to_string(rig.paths.conf(101.try_into().unwrap())).unwrap();
    for line in ["physpages = \"0:96M\"", "numproc = \"120\"", "units = 500", "space = \"1G\""] {
        assert!(conf.contains(line), "{line} in\n{conf}");
    }
    rig.ok(&["set", "101", "--applyconfig", "vswap-256m", "--diskspace", "3G", "--save"]);
    let conf = fs::read_to_string(rig.paths.conf(101.try_into().unwrap())).unwrap();
    assert!(conf.contains("physpages = \"0:256M\"") && !conf.contains("numproc"), "{conf}");
    rig.refused(&["set", "101", "--applyconfig", "nope", "--save"], ApplyConfig, "nope");
    let names = rig.ok(&["samples"]);
    for name in ["vswap-256m", "vswap-8g", "basic", "light", "unlimited"] {
        assert!(names.stdout.lines().any(|l| l == name), "{names}");
    }
    // An own plan, made by dividing the host; the number is asked for where it is not given, swap space is in KB.
    let asked = vz_tests::command::run(
        &mut rig.program("vzsplit", &["-s", "2097152"]),
        Some(b"2\n"),
        std::time::Duration::from_secs(30),
    );
    assert!(asked.unwrap().ok().stdout.contains("swappages = \"0:1024M\""));
    tool(&rig, "vzsplit", &["-n", "100000"]).expect_code(1);
    tool(&rig, "vzsplit", &["-n", "4", "-f", "quarter"]).ok();
    rig.create(102, Tiny, &["--config", "quarter"]);
    rig.ok(&["start", "101"]);
    let out = tool(&rig, "vzmemcheck", &["-v"]).ok();
    assert!(out.stdout.lines().any(|l| l.starts_with("101")) && out.stdout.contains("Summary:"), "{out}");
    assert!(tool(&rig, "vzcpucheck", &["-v"]).ok().stdout.contains("1000 units in 1 CTs"));
    assert!(tool(&rig, "vzcalc", &["-v", "101"]).ok().stdout.contains("Mem + Swap"));
    // Validation: fits, cannot be read, does not fit.
    tool(&rig, "vzcfgvalidate", &["101"]).expect_code(0);
    tool(&rig, "vzcfgvalidate", &["/nonexistent/file"]).expect_code(1);
    let bad = rig.paths.base.join("bad.toml");
    fs::write(&bad, "[limits]\nphyspages = '0:64M'\ntcpsndbuf = '100000:100000'\nnumtcpsock = 360\n").unwrap();
    let out = tool(&rig, "vzcfgvalidate", &["-j", &bad.display().to_string()]).expect_code(2);
    assert_eq!(out.json()[0]["rule"], "tcpsndbuf", "{out}");
    fs::write(&bad, "[limits]\nphyspages = '2:1'\n").unwrap();
    let out = tool(&rig, "vzcfgvalidate", &[&bad.display().to_string()]).expect_code(2);
    assert!(out.stderr.contains("physpages") && out.stderr.contains("line 2"), "{out}");
}

#[test]
fn a_configuration_that_does_not_fit_together_is_repaired_on_request() {
    let rig = Rig::new(&[]);
    let path = rig.paths.base.join("plan.toml");
    let name = path.display().to_string();
    let bad = "# a plan\n[limits]\nphyspages = '0:64M'  # small\ntcpsndbuf = '100000:100000'\nnumtcpsock = 360\noomguarpages = '128M'\n";
    let validate = |args: &[&str], said: &str| {
        let words = [args, &[name.as_str()]].concat();
        let mut c = rig.program("vzcfgvalidate", &words);
        vz_tests::command::run(&mut c, Some(said.as_bytes()), std::time::Duration::from_secs(30)).unwrap()
    };
    let text = || fs::read_to_string(&path).unwrap();
    fs::write(&path, bad).unwrap();
    let out = validate(&[], "").expect_code(2);
    assert!(out.stderr.contains("Error: tcpsndbuf") && out.stderr.contains("1021600"), "{out}");
    assert_eq!(text(), bad, "looking changes nothing");
    // Asked for each: the first is left as it is.
    validate(&["-i"], "n\ny\n").expect_code(2);
    assert!(text().contains("tcpsndbuf = '100000:100000'") && text().contains("\"0:32768\"  # small"), "{}", text());
    let out = validate(&["-r", "-j"], "").expect_code(0);
    let findings = out.json();
    assert_eq!((findings[0]["rule"].as_str(), findings[0]["repaired"].as_bool()), (Some("tcpsndbuf"), Some(true)));
    assert!(text().contains("tcpsndbuf = \"100000:1021600\"") && text().starts_with("# a plan\n"), "{}", text());
    let out = validate(&[], "").expect_code(0);
    assert!(out.stdout.contains("Validation completed: success"), "{out}");
    // What is no configuration is not repaired.
    fs::write(&path, "[limits]\nphyspages = '2:1'\n").unwrap();
    validate(&["-r"], "").expect_code(2);
    assert_eq!(text(), "[limits]\nphyspages = '2:1'\n");
    tool(&rig, "vzcfgvalidate", &["-r", "-i", &name]).expect_code(1);
    tool(&rig, "vzcfgvalidate", &[]).expect_code(1);
}

#[test]
fn peaks_are_kept_over_runs_and_cleared_on_request() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &[]);
    rig.ok(&["start", "101"]);
    let figure = |key: &str| rig.vzlist(&["-j", "101"]).ok().json()[0]["numproc"][key].as_u64().unwrap_or(0);
    rig.inside(101, "for i in 1 2 3 4 5 6 7 8 9; do sleep 30 & done; sleep 0.1");
    let peak = figure("held");
    assert!(peak >= 10, "{peak}");
    rig.ok(&["stop", "101", "--fast"]);
    rig.kill_vzd();
    rig.start_vzd(&[]);
    rig.ok(&["start", "101"]);
    assert!(figure("held") < peak);
    assert!(figure("maxheld") >= peak, "the peak is of the run before");
    rig.ok(&["set", "101", "--reset_ub"]);
    assert!(figure("maxheld") < peak);
}

#[test]
fn metrics_and_events_answer() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &[]);
    rig.ok(&["start", "101"]);
    let text = rig.ok(&["metrics"]).stdout;
    for line in [
        "# TYPE vz_ub_held gauge",
        "vz_ct_running{ctid=\"101\"} 1",
        "vz_ub_failcnt_total{ctid=\"101\",resource=\"numproc\"",
    ] {
        assert!(text.contains(line), "{line}:\n{text}");
    }
    for l in text.lines().filter(|l| !l.starts_with('#')) {
        assert!(l.rsplit(' ').next().is_some_and(|v| v.parse::<f64>().is_ok()), "{l}");
    }
    assert_eq!(rig.ok(&["events", "--json"]).text(), "");
    rig.refused(&["why", "999"], NoConfig, "999");
    assert!(rig.ok(&["why", "101"]).stdout.contains("Nothing was refused"));
}

#[test]
fn inet_sockets_are_counted_and_refused_and_root_inside_cannot_raise_what_limits_it() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--numtcpsock", "4", "--numothersock", "50", "--tcpsndbuf", "100000", "--shmpages", "8M"]);
    rig.ok(&["start", "101"]);
    let bean = |name: &str| {
        let all = tool(&rig, "vzubc", &["-j", "101"]).ok().json();
        let rows = all[0]["beancounters"].as_array().cloned().unwrap_or_default();
        rows.iter().find(|b| b["name"] == name).cloned().unwrap_or_default()
    };
    // Programs started in the background take the time they take.
    let holds = |wanted: u64| {
        for _ in 0..50 {
            if bean("numtcpsock")["held"] == wanted {
                return true;
            }
            rig.inside(101, "sleep 0.2");
        }
        false
    };
    assert_eq!(bean("numtcpsock")["class"], "enforced", "{}", bean("numtcpsock"));
    assert_eq!(bean("numtcpsock")["held"], 0);
    rig.inside(101, "for p in 1 2 3 4 5 6; do sleep 60 | nc -l -p 500$p >/dev/null 2>&1 & done; sleep 0.5");
    assert!(holds(4), "{}", bean("numtcpsock"));
    let fails = bean("numtcpsock")["failcnt"].as_u64().unwrap_or(0);
    assert!(fails >= 2, "two listeners too many: {fails}");
    let why = rig.ok(&["why", "101"]);
    assert!(why.stdout.contains("numtcpsock"), "{why}");
    // Raised live, a client and the socket its server accepts count as well.
    rig.ok(&["set", "101", "--numtcpsock", "20"]);
    let port = rig.inside(101, "awk '$4 == \"0A\" {print $2; exit}' /proc/net/tcp6 /proc/net/tcp | cut -d: -f2");
    let port = u16::from_str_radix(&port, 16).expect("a listening port");
    rig.inside(101, &format!("sleep 60 | nc 127.0.0.1 {port} >/dev/null 2>&1 & sleep 0.1"));
    // 3 listeners, a client and what was accepted: a listener of busybox goes when it has accepted.
    assert!(holds(5), "{}", bean("numtcpsock"));
    rig.refused(&["set", "101", "--numtcpsock", "2"], BadValue, "5 sockets");
    // Kept by the kernel and the inventory while vzd is away.
    rig.kill_vzd();
    rig.inside(101, "killall nc sleep; sleep 0.5");
    rig.start_vzd(&[]);
    assert!(holds(0), "{}", bean("numtcpsock"));
    assert_eq!(bean("numtcpsock")["failcnt"], fails);
    assert!(bean("numtcpsock")["maxheld"].as_u64().is_some_and(|n| n >= 5));
    for file in ["net/ipv4/tcp_wmem", "net/ipv4/tcp_rmem", "kernel/shmall"] {
        let out = rig.vzctl(&["exec2", "101", &format!("echo 9999999 > /proc/sys/{file}")]);
        assert_ne!(out.code(), 0, "{file} was written by root inside: {out}");
    }
    assert!(rig.inside(101, "cat /proc/sys/net/ipv4/tcp_wmem").ends_with("\t100000"));
    // Other parameters are its own.
    rig.inside(101, "echo 1 > /proc/sys/net/ipv4/ip_forward");
    rig.ok(&["restart", "101", "--fast"]);
    assert_eq!((bean("numtcpsock")["limit"].clone(), bean("numtcpsock")["failcnt"].clone()), (4.into(), fails.into()));
}
