//! What is on record of a container's limits: kept over reboots, restarts and crashes, read inside by the container's own
//! means, and told as it happens.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpStream},
    process::Stdio,
    time::Duration,
};
use vz_tests::{NetNs, Rig, command::Output, probe, template::Template::Tiny, wait};

const SOON: Duration = Duration::from_secs(20);

fn tool(rig: &Rig, name: &str, args: &[&str]) -> Output {
    vz_tests::command::run(&mut rig.program(name, args), None, SOON).expect(name)
}

/// Puts the flood program into a running container as /flood.
fn give_flood(rig: &Rig, ctid: u32) {
    let program = fs::read(probe::flood()).unwrap();
    rig.vzctl_with(&["exec2", &ctid.to_string(), "cat >/flood && chmod 755 /flood"], &program).ok();
}

fn bean(rig: &Rig, ctid: u32, name: &str) -> serde_json::Value {
    let all = tool(rig, "vzubc", &["-j", &ctid.to_string()]).ok().json();
    let rows = all[0]["beancounters"].as_array().cloned().unwrap_or_default();
    rows.into_iter().find(|b| b["name"] == name).unwrap_or_default()
}

fn figure(rig: &Rig, name: &str, key: &str) -> u64 {
    bean(rig, 101, name)[key].as_u64().unwrap_or_default()
}

#[test]
fn figures_are_kept_over_a_reboot_from_inside_and_over_vzd_killed_meanwhile() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--numtcpsock", "5", "--numpty", "50"]);
    rig.ok(&["start", "101"]);
    give_flood(&rig, 101);
    let out = rig.inside(101, "/flood tcp 9 0");
    assert_eq!(out.split(' ').next(), Some("5"), "{out}");
    rig.inside(101, "for i in 1 2 3 4 5 6 7 8 9; do sleep 30 & done; sleep 0.1");
    let peak = figure(&rig, "numproc", "held");
    assert!(peak >= 10, "{peak}");
    let before = (figure(&rig, "numtcpsock", "maxheld"), figure(&rig, "numtcpsock", "failcnt"));
    assert_eq!(before, (5, 1));
    let kept = |when: &str| {
        let now = (figure(&rig, "numtcpsock", "maxheld"), figure(&rig, "numtcpsock", "failcnt"));
        assert_eq!(now, before, "after {when}");
        assert!(figure(&rig, "numproc", "maxheld") >= peak, "after {when}");
        assert_eq!(figure(&rig, "numtcpsock", "held"), 0, "after {when}");
        assert!(rig.ok(&["why", "101"]).stdout.contains("socket-refused"), "after {when}");
    };
    let boots = rig.record(101).boots;
    rig.vzctl(&["exec", "101", "reboot"]);
    rig.wait_record(101, SOON, |r| r.boots > boots);
    wait::retry(SOON, Duration::from_millis(50), || (rig.vzctl(&["exec2", "101", "true"]).code() == 0).then_some(()));
    kept("a reboot from inside");
    // The limit still holds, and what the kernel counted before the reboot is not counted again.
    assert!(rig.inside(101, "/flood tcp 9 0").starts_with("5 "));
    assert_eq!(figure(&rig, "numtcpsock", "failcnt"), before.1 + 1);
    assert!(rig.inside(101, "cat /run/vz/user_beancounters").contains("numtcpsock"));
    // While vzd is away: a refusal, and another reboot.
    rig.kill_vzd();
    rig.inside(101, "/flood tcp 9 0");
    rig.vzctl(&["exec", "101", "reboot"]);
    let boots = boots + 1;
    rig.wait_record(101, SOON, |r| r.boots > boots);
    rig.start_vzd(&[]);
    assert_eq!(figure(&rig, "numtcpsock", "failcnt"), before.1 + 2);
    rig.ok(&["stop", "101", "--fast"]);
    rig.ok(&["start", "101"]);
    assert_eq!(figure(&rig, "numtcpsock", "failcnt"), before.1 + 2);
    rig.ok(&["set", "101", "--reset_ub"]);
    assert_eq!(figure(&rig, "numtcpsock", "failcnt"), 0);
}

#[test]
fn inside_its_own_vzubc_shows_its_own_counters_and_root_inside_cannot_change_them() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--numtcpsock", "4:5", "--numfile", "2000"]);
    rig.create(102, Tiny, &[]);
    rig.ok(&["start", "101"]);
    rig.ok(&["start", "102"]);
    give_flood(&rig, 101);
    rig.inside(101, "/flood tcp 9 0");
    let vzubc = |words: &str| rig.vzctl(&["exec2", "101", &format!("/run/vz/bin/vzubc {words}")]);
    // The files follow within some seconds.
    let refused = || {
        let out = vzubc("").ok();
        out.stdout.lines().any(|l| l.contains("numtcpsock|") && l.contains("    1 | enforced")).then_some(out)
    };
    let out = wait::retry(SOON, Duration::from_millis(200), refused).expect("the refusal inside");
    assert!(out.stdout.contains("CT 101") && !out.stdout.contains("102"), "{out}");
    assert!(out.stdout.contains("HELD Bar% Lim%| MAXH Bar% Lim%| BAR | LIM | FAIL"), "{out}");
    assert!(out.stdout.contains("swappages|"), "{out}");
    assert!(!out.stdout.contains('\x1b'), "{out}");
    // As the tool of the host shows it.
    let host = tool(&rig, "vzubc", &["101"]).ok();
    let row = |o: &Output, name: &str| {
        let line = o.stdout.lines().find(|l| l.contains(&format!(" {name}|"))).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for name in ["numtcpsock", "numfile", "oomguarpages"] {
        assert_eq!(row(&out, name)[0], row(&host, name)[0], "{name}: {out}{host}");
        assert_eq!(row(&out, name).last(), row(&host, name).last(), "{name}: {out}{host}");
    }
    let quiet = vzubc("-q").ok();
    assert!(quiet.stdout.contains("numtcpsock|") && !quiet.stdout.contains("numfile|"), "{quiet}");
    let verbose = vzubc("--verbose").ok();
    assert!(verbose.stdout.contains("items per-process: per process"), "{verbose}");
    assert!(vzubc("-c").ok().stdout.contains("\x1b[31m"));
    vzubc("-r").ok();
    assert_eq!(vzubc("-qr -qm 2").ok().text(), "", "nothing was refused since");
    let watched = rig.vzctl(&["exec2", "101", "timeout 3 /run/vz/bin/vzubc -w -wn 1 -q"]);
    assert!(watched.stdout.matches("CT 101").count() >= 2, "{watched}");
    assert_ne!(vzubc("--nonsense").code(), 0);
    assert_ne!(vzubc("102").code(), 0, "other containers are none of its business");
    vzubc("101").ok();
    // Whatever root inside does, the host's figures are the host's.
    let before = fs::read_to_string(rig.paths.bc(101.try_into().unwrap()).join("resources")).unwrap();
    for line in [
        "echo x >/run/vz/resources",
        "rm -f /run/vz/resources",
        "echo x >/run/vz/bin/vzubc",
        "mount -o remount,bind,rw /run/vz; echo x >/run/vz/resources",
        "mount -o remount,rw /run/vz; rm -f /run/vz/resources",
        "mount -o remount,bind,rw /run/vz; chmod 777 /run/vz; touch /run/vz/x",
    ] {
        let out = rig.vzctl(&["exec2", "101", line]);
        assert_ne!(out.code(), 0, "`{line}` worked: {out}");
    }
    let after = fs::read_to_string(rig.paths.bc(101.try_into().unwrap()).join("resources")).unwrap();
    assert_eq!((after.lines().count(), after.contains("numtcpsock")), (before.lines().count(), true));
    // It can take the whole away from itself, and nobody else notices.
    rig.vzctl(&["exec2", "101", "umount /run/vz; mount -t tmpfs x /run; true"]);
    assert!(tool(&rig, "vzubc", &["101"]).ok().stdout.contains("numtcpsock"));
    rig.ok(&["stop", "101", "--fast"]);
    assert!(!rig.paths.bc(101.try_into().unwrap()).exists());
}

#[test]
fn connections_from_outside_count_and_are_refused_at_numtcpsock() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--ipadd", "10.99.0.1", "--numtcpsock", "3"]);
    rig.ok(&["start", "101"]);
    give_flood(&rig, 101);
    rig.inside(101, "/flood listen 7000 >/dev/null 2>&1 &");
    let at: SocketAddr = "10.99.0.1:7000".parse().unwrap();
    let connect = |limit: Duration| rig.host.inside(|| TcpStream::connect_timeout(&at, limit)).ok();
    let held = |n: u64| {
        let is = || (figure(&rig, "numtcpsock", "held") == n).then_some(());
        assert!(wait::retry(SOON, Duration::from_millis(50), is).is_some(), "{}", bean(&rig, 101, "numtcpsock"));
    };
    let first = wait::retry(SOON, Duration::from_millis(50), || connect(SOON)).expect("a listener and one connection");
    let second = connect(SOON).expect("the third socket");
    held(3);
    assert_eq!(figure(&rig, "numtcpsock", "failcnt"), 0);
    assert!(connect(Duration::from_millis(1500)).is_none(), "a fourth socket of three");
    assert!(figure(&rig, "numtcpsock", "failcnt") >= 1);
    held(3);
    let why = rig.ok(&["why", "101"]);
    assert!(why.stdout.contains("socket-refused") && why.stdout.contains("numtcpsock"), "{why}");
    // What ends makes room.
    drop(second);
    held(2);
    drop(first);
    held(1);
    let again = connect(SOON);
    assert!(again.is_some(), "there is room again");
}

#[test]
fn events_are_followed_as_they_come_and_a_full_disk_is_one() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--numtcpsock", "2", "--diskspace", "64M"]);
    rig.create(102, Tiny, &["--numtcpsock", "2"]);
    for ctid in [101, 102] {
        rig.ok(&["start", &ctid.to_string()]);
        give_flood(&rig, ctid);
    }
    rig.inside(102, "/flood tcp 9 0");
    rig.ok(&["why", "102"]);
    let follow = |words: &[&str]| {
        let mut c = rig.vzctl_command(&[&["events", "--follow", "--json"], words].concat());
        let mut child = c.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (tell, told) = std::sync::mpsc::channel::<serde_json::Value>();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap_or(serde_json::Value::String(line)));
            }
        });
        (child, told)
    };
    let (mut one, of_101) = follow(&["101"]);
    let (mut all, of_all) = follow(&[]);
    // What was before comes first, where it was asked for.
    let past = of_all.recv_timeout(SOON).expect("an event of the past");
    assert_eq!((past["ctid"].as_u64(), past["kind"].as_str()), (Some(102), Some("socket-refused")), "{past}");
    rig.inside(101, "/flood tcp 9 0");
    for told in [&of_101, &of_all] {
        let event = told.recv_timeout(SOON).expect("the refused socket");
        assert_eq!((event["ctid"].as_u64(), event["kind"].as_str()), (Some(101), Some("socket-refused")), "{event}");
        assert_eq!(event["counter"], "numtcpsock");
        assert!(event["text"].as_str().is_some_and(|t| t.contains('2')) && event["time"].is_string(), "{event}");
    }
    rig.vzctl(&["exec2", "101", "cat /dev/zero >/fill; sync"]);
    let event = of_101.recv_timeout(SOON).expect("the full disk");
    assert_eq!((event["kind"].as_str(), event["counter"].as_str()), (Some("disk-full"), Some("diskspace")), "{event}");
    let why = rig.ok(&["why", "101"]);
    assert!(why.stdout.contains("the disk is full") && why.stdout.contains("--diskspace"), "{why}");
    // One event for one full disk; the next one only after there was room.
    rig.inside(101, "rm /fill; sync");
    for child in [&mut one, &mut all] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let events = rig.ok(&["events", "101", "--json"]);
    assert_eq!(events.stdout.matches("disk-full").count(), 1, "{events}");
    let last: serde_json::Value = serde_json::from_str(events.stdout.lines().last().unwrap()).unwrap();
    let after = rig.ok(&["events", "--json", "--after", &last["id"].to_string()]);
    assert_eq!(after.text(), "", "nothing after the last");
}

#[test]
fn pressure_of_the_last_hour_outlives_vzd_and_the_run() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &[]);
    rig.ok(&["start", "101"]);
    let hour = || {
        let why = rig.ok(&["why", "101", "--json"]).json();
        (why["pressure"]["seconds"].as_u64(), why["pressure"]["hour"][0].as_f64(), why["pressure"]["cpu"].is_object())
    };
    // Two that want one processor: one waits.
    rig.inside(101, "for i in 1 2 3 4; do timeout 6 sh -c 'while :; do :; done' & done; wait; true");
    let before = hour();
    assert!(before.0.is_some_and(|s| s >= 5) && before.1.is_some_and(|p| p > 5.0) && before.2, "{before:?}");
    rig.kill_vzd();
    rig.start_vzd(&[]);
    let after = hour();
    assert!(after.0 >= before.0 && after.1.is_some_and(|p| p > 2.0), "{before:?} {after:?}");
    rig.ok(&["stop", "101", "--fast"]);
    let stopped = hour();
    assert!(stopped.0 >= before.0 && stopped.1.is_some_and(|p| p > 2.0) && !stopped.2, "{stopped:?}");
    rig.kill_vzd();
    rig.start_vzd(&[]);
    assert_eq!(hour().0, stopped.0, "what does not run adds no time");
    assert!(rig.ok(&["why", "101"]).stdout.contains("for processor time"));
}

#[test]
fn what_is_counted_by_looking_inside_is_true() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--numsiginfo", "100"]);
    rig.ok(&["start", "101"]);
    give_flood(&rig, 101);
    let mut c = rig.vzctl_command(&["exec2", "101", "/flood signals 5000 60"]);
    let mut child = c.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap().take(64)).read_line(&mut line).unwrap();
    let taken: u64 = line.split(' ').next().unwrap().parse().unwrap();
    assert!((90..=100).contains(&taken) && line.trim().ends_with(" 11"), "{line}");
    // Rules of its own packet filter, made by a program of ours in its network.
    let net = NetNs::of(rig.record(101).init.pid).unwrap();
    net.sh(
        "nft 'add table inet x; add chain inet x c'; for i in 1 2 3 4 5 6 7; do nft add rule inet x c counter; done",
    )
    .ok();
    // A sample of processes is a minute old at most; the first look of a vzd takes one.
    rig.kill_vzd();
    rig.start_vzd(&[]);
    let row = bean(&rig, 101, "numsiginfo");
    assert!(row["held"].as_u64().is_some_and(|n| (taken..=100).contains(&n)), "{row}");
    let row = bean(&rig, 101, "numiptent");
    assert_eq!((row["held"].as_u64(), row["class"].as_str()), (Some(7), Some("accounted")), "{row}");
    for name in ["numfile", "numflock", "numpty", "privvmpages", "numtcpsock", "numothersock"] {
        assert!(bean(&rig, 101, name)["held"].is_u64(), "{}", bean(&rig, 101, name));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
