//! vzd may die at any moment: containers do not notice, and a new vzd finds them again.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    fs,
    time::{Duration, Instant},
};
use vz_tests::{Rig, storm::Storm, template::Template::Tiny, wait::Process};
use vz_types::ExitCode;

const SOON: Duration = Duration::from_secs(20);

fn running() -> Rig {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &["--ipadd", "10.99.0.1", "--name", "web"]);
    rig.ok(&["start", "101"]);
    rig.settled(101);
    rig
}

#[test]
fn without_vzd_everything_that_needs_none_goes_on() {
    let rig = running();
    let init = rig.record(101).init;
    rig.inside(101, "echo before >/root/file");
    rig.kill_vzd();
    assert_eq!(rig.status(101), "exist mounted running");
    rig.ok(&["status", "web"]).says("CTID 101 exist mounted running");
    assert_eq!(rig.inside(101, "cat /root/file"), "before");
    rig.ok(&["exec", "web", "true"]);
    rig.host.sh("busybox ping -c1 -W2 10.99.0.1").ok();
    let mut console = expectrl::Session::spawn(rig.vzctl_command(&["console", "101"])).unwrap();
    console.set_expect_timeout(Some(SOON));
    use expectrl::Expect;
    console.expect("tiny is up").unwrap();
    console.send("\x1b.").unwrap();
    let mut shell = expectrl::Session::spawn(rig.vzctl_command(&["enter", "101"])).unwrap();
    shell.set_expect_timeout(Some(SOON));
    shell.send_line("echo sum=$((40+2))").unwrap();
    shell.expect("sum=42").unwrap();
    shell.send_line("exit").unwrap();
    shell.expect(expectrl::Eof).unwrap();
    // What does need it says so.
    rig.refused(&["stop", "101"], ExitCode::System, "vzd");
    rig.start_vzd(&[]);
    assert_eq!(rig.record(101).init, init);
}

#[test]
fn a_new_vzd_takes_up_what_runs_and_can_stop_it() {
    let rig = running();
    let before = (rig.record(101), rig.census());
    for kill in [true, false] {
        if kill {
            rig.kill_vzd();
        } else {
            rig.stop_vzd();
        }
        rig.start_vzd(&[]);
        assert_eq!(rig.record(101), before.0, "the record is the monitor's and has not changed");
        assert_eq!(rig.status(101), "exist mounted running");
        assert_eq!(rig.vzlist(&["-1"]).ok().text(), "101");
        rig.refused(&["start", "101"], ExitCode::Running, "running");
        rig.assert_census(&before.1, "after a restart of vzd");
    }
    rig.ok(&["set", "101", "--ipadd", "10.99.0.2", "--save"]);
    assert!(rig.inside(101, "ip addr show venet0").contains("10.99.0.2"));
    rig.ok(&["stop", "101"]);
    rig.ok(&["start", "101"]);
}

/// The suite `long_kills` has the long form.
#[test]
fn fifteen_kills_under_load_are_noticed_by_no_container() {
    let rig = Rig::new(&[Tiny]);
    let report = Storm { kills: 15, hearts: 6, workers: 2, seed: u64::from(std::process::id()) }.rage(&rig);
    println!("{report}");
    assert!(report.gap < Duration::from_secs(2), "a heart stood still for {:?}", report.gap);
    assert_eq!(report.lost, 0, "datagrams of hearts were lost");
}

#[test]
fn a_reboot_and_a_poweroff_while_vzd_is_away_are_known_afterwards() {
    let rig = running();
    rig.kill_vzd();
    rig.vzctl(&["exec", "101", "reboot"]);
    rig.wait_record(101, SOON, |r| r.boots == 2);
    rig.start_vzd(&[]);
    assert_eq!(rig.status(101), "exist mounted running");
    rig.kill_vzd();
    let init = Process::open(u32::try_from(rig.record(101).init.pid).unwrap()).unwrap();
    let monitor = Process::open(u32::try_from(rig.record(101).monitor.pid).unwrap()).unwrap();
    rig.vzctl(&["exec", "101", "poweroff"]);
    assert!(init.ended(SOON).unwrap() && monitor.ended(SOON).unwrap());
    assert!(rig.status(101).ends_with("down"), "{}", rig.status(101));
    rig.start_vzd(&[]);
    assert_eq!(rig.status(101), "exist unmounted down");
    assert!(rig.census().of("mount").is_empty() && rig.census().of("loop").is_empty());
    rig.ok(&["start", "101"]);
}

#[test]
fn a_killed_monitor_takes_its_container_along_and_nothing_else() {
    let rig = running();
    rig.create(102, Tiny, &["--ipadd", "10.99.0.2"]);
    rig.ok(&["start", "102"]);
    rig.settled(102);
    let before = rig.census();
    let (monitor, init) = (rig.record(101).monitor.pid, rig.record(101).init.pid);
    let init = Process::open(u32::try_from(init).unwrap()).unwrap();
    Process::open(u32::try_from(monitor).unwrap()).unwrap().kill();
    assert!(init.ended(SOON).unwrap(), "init lives on without its monitor");
    rig.wait_stopped(101, SOON);
    assert_eq!(rig.status(101), "exist unmounted down");
    assert_eq!(rig.status(102), "exist mounted running");
    rig.ok(&["start", "101"]);
    rig.settled(101);
    rig.assert_census(&before, "after the monitor was killed and the CT started again");
}

#[test]
fn a_stopped_monitor_keeps_neither_console_nor_stop_all_without_vzd_waiting() {
    let rig = running();
    let record = rig.record(101);
    let monitor = Process::open(u32::try_from(record.monitor.pid).unwrap()).unwrap();
    let init = Process::open(u32::try_from(record.init.pid).unwrap()).unwrap();
    monitor.pause(true);
    let begun = Instant::now();
    let out = rig.refused(&["console", "101"], ExitCode::System, "does not answer");
    assert!(out.stderr.contains(&format!("pid {}", record.monitor.pid)), "{out}");
    assert!(out.stderr.contains("vzctl stop 101 --fast"), "{out}");
    // Not even where nobody else fits into the queue of its socket.
    let address = rustix::net::SocketAddrUnix::new(rig.ct_run(101).join("control.sock")).unwrap();
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
    let mut queue = Vec::new();
    loop {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        if connect(&socket, &address) == Err(rustix::io::Errno::AGAIN) {
            break;
        }
        queue.push(socket);
    }
    rig.refused(&["console", "101"], ExitCode::System, "does not answer");
    rig.kill_vzd();
    let out = rig.ok(&["stop", "--all", "--fast"]);
    assert!(out.stderr.contains(&format!("its monitor (pid {}) did not answer", record.monitor.pid)), "{out}");
    assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
    assert!(init.ended(Duration::ZERO).unwrap(), "init was killed");
    assert!(rig.status(101).ends_with("down"), "{}", rig.status(101));
    // Let go on, the monitor notices by itself that its container is over.
    drop(queue);
    monitor.pause(false);
    assert!(monitor.ended(SOON).unwrap());
    rig.start_vzd(&[]);
    assert_eq!(rig.status(101), "exist unmounted down");
    rig.ok(&["start", "101"]);
}

#[test]
fn a_console_that_reads_nothing_does_not_stop_its_monitor() {
    use rustix::net::{AddressFamily, SendFlags, SocketType, connect, send, socket};
    let rig = running();
    let monitor = rig.record(101).monitor;
    // More than a socket holds, in the log and then on the way.
    rig.inside(101, "head -c 250000 /dev/zero | tr '\\0' x | fold >/dev/console; echo logged >/dev/console");
    rig.wait_console(101, "logged", SOON);
    let address = rustix::net::SocketAddrUnix::new(rig.ct_run(101).join("control.sock")).unwrap();
    let deaf = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    connect(&deaf, &address).unwrap();
    send(&deaf, br#"{"console":{"replay":true}}"#, SendFlags::empty()).unwrap();
    // And one that connects and says nothing at all.
    let silent = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    connect(&silent, &address).unwrap();
    rig.ok(&["set", "101", "--ipadd", "10.99.0.2", "--save"]);
    rig.inside(101, "head -c 600000 /dev/zero | tr '\\0' y | fold >/dev/console; echo after >/dev/console");
    rig.wait_console(101, "after", SOON);
    rig.ok(&["set", "101", "--ipadd", "10.99.0.3", "--save"]);
    // All of the log is there for whoever takes his time.
    let mut seen = Vec::new();
    let mut buffer = vec![0; 128 << 10];
    while !seen.windows(6).any(|w| w == b"logged") {
        let n = rustix::net::recv(&deaf, &mut buffer, rustix::net::RecvFlags::DONTWAIT).unwrap().0;
        seen.extend_from_slice(&buffer[..n]);
    }
    assert!(seen.iter().filter(|b| **b == b'x').count() > 200_000, "{} bytes", seen.len());
    assert_eq!(rig.record(101).monitor, monitor);
    rig.ok(&["stop", "101"]);
}

#[test]
fn a_record_of_another_boot_or_of_a_reused_pid_is_not_believed() {
    let rig = Rig::stopped(&[Tiny]);
    rig.start_vzd(&[]);
    rig.create(101, Tiny, &[]);
    rig.ok(&["start", "101"]);
    let dir = rig.ct_run(101);
    let text = fs::read_to_string(dir.join("state.json")).unwrap();
    rig.ok(&["stop", "101", "--fast"]);
    rig.stop_vzd();
    // As if the machine had crashed: the record is there, the processes are not, their numbers are others'.
    fs::create_dir_all(&dir).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["init"]["pid"] = serde_json::json!(std::process::id());
    record["monitor"]["pid"] = serde_json::json!(std::process::id());
    fs::write(dir.join("state.json"), record.to_string()).unwrap();
    assert!(rig.status(101).ends_with("down"), "{}", rig.status(101));
    rig.start_vzd(&[]);
    assert_eq!(rig.status(101), "exist unmounted down");
    rig.ok(&["start", "101"]);
}

#[test]
fn after_a_host_boot_the_onboot_ones_come_up_in_bootorder() {
    let rig = Rig::stopped(&[Tiny]);
    // The containers are made in another boot of the host: its kernel's boot id was another one.
    let other = rig.paths.base.join("boot_id");
    fs::write(&other, "11111111-2222-4333-8444-555555555555\n").unwrap();
    rig.start_vzd_behind(&format!("mount --bind {} /proc/sys/kernel/random/boot_id", other.display()));
    for (ctid, order) in [(101, "1"), (102, "5"), (103, "5"), (104, "9")] {
        rig.create(ctid, Tiny, &["--onboot", "yes", "--bootorder", order]);
    }
    rig.create(105, Tiny, &["--onboot", "no"]);
    rig.create(106, Tiny, &[]);
    rig.create(107, Tiny, &["--onboot", "yes", "--disabled", "yes"]);
    rig.stop_vzd();
    let mut rm = std::process::Command::new("rm");
    vz_tests::command::run(rm.arg("-rf").arg(rig.paths.run()), None, SOON).unwrap().ok();
    rig.start_vzd(&[]);
    for ctid in [101, 102, 103, 104] {
        let dir = rig.paths.ct_run_dir();
        let up = vz_tests::wait::in_dir(&dir, SOON, || rig.ct_run(ctid).join("state.json").exists().then_some(()));
        assert!(up.unwrap().is_some(), "CT {ctid} did not come up\n{}", rig.vzd_log(40));
    }
    let start = |ctid: u32| rig.wait_record(ctid, SOON, |r| r.boots == 1).init.start_time;
    let order = [start(104), start(102).min(start(103)), start(101)];
    assert!(order.is_sorted(), "higher bootorder first: {order:?}");
    assert!(start(104) <= start(102).min(start(103)) && start(102).max(start(103)) <= start(101));
    let listed = rig.vzlist(&["-1"]).ok();
    assert_eq!(listed.stdout.split_whitespace().collect::<Vec<_>>(), ["101", "102", "103", "104"]);
    // A plain restart of vzd is no host boot: what was stopped since stays stopped.
    rig.ok(&["stop", "104", "--fast"]);
    rig.stop_vzd();
    rig.start_vzd(&[]);
    let listed = rig.vzlist(&["-1"]).ok();
    assert_eq!(listed.stdout.split_whitespace().collect::<Vec<_>>(), ["101", "102", "103"]);
}

#[test]
fn an_onboot_container_comes_up_although_the_host_went_down_during_a_change_of_it() {
    let rig = Rig::stopped(&[Tiny]);
    rig.start_vzd(&[("VZ_FAULT", "set.live")]);
    rig.create(101, Tiny, &["--onboot", "yes"]);
    rig.ok(&["start", "101"]);
    let before = rig.record(101);
    assert_ne!(rig.vzctl(&["set", "101", "--hostname", "other", "--save"]).code(), 0);
    assert!(rig.vzd_dies(SOON), "set.live was not reached");
    // With the host everything goes that ran on it.
    for id in [before.monitor.pid, before.init.pid] {
        if let Ok(p) = Process::open(u32::try_from(id).unwrap()) {
            p.kill();
            assert!(p.ended(SOON).unwrap());
        }
    }
    let mut rm = std::process::Command::new("rm");
    vz_tests::command::run(rm.arg("-rf").arg(rig.ct_run(101)), None, SOON).unwrap().ok();
    // As the boot that was served last is remembered: a bind mount over the kernel's own would keep init from mounting /proc.
    let db = rusqlite::Connection::open(rig.paths.inventory()).unwrap();
    assert_eq!(db.execute("UPDATE host SET value='another' WHERE key='boot_id'", []).unwrap(), 1);
    drop(db);
    rig.start_vzd(&[]);
    let up = vz_tests::wait::in_dir(&rig.paths.ct_run_dir(), SOON, || {
        rig.ct_run(101).join("state.json").exists().then_some(())
    });
    assert!(up.unwrap().is_some(), "CT 101 did not come up\n{}", rig.vzd_log(40));
    rig.inside(101, "true");
}

#[test]
fn twenty_starts_at_once_all_come_up() {
    let rig = Rig::new(&[Tiny]);
    for n in 0..20u32 {
        rig.create(101 + n, Tiny, &["--ipadd", &format!("10.99.0.{}", n + 1)]);
    }
    std::thread::scope(|s| {
        for n in 0..20u32 {
            let rig = &rig;
            s.spawn(move || rig.ok(&["start", &(101 + n).to_string()]));
        }
    });
    assert_eq!(rig.vzlist(&["-1"]).ok().stdout.lines().count(), 20);
    let mut bases: Vec<u32> = (0..20).map(|n| u32::from(rig.record(101 + n).uid_base)).collect();
    bases.sort_unstable();
    bases.dedup();
    assert_eq!(bases.len(), 20, "every container has its own ids");
    std::thread::scope(|s| {
        for n in 0..20u32 {
            let rig = &rig;
            s.spawn(move || rig.ok(&["stop", &(101 + n).to_string()]));
        }
    });
    assert_eq!(rig.vzlist(&["-1"]).text(), "");
}
