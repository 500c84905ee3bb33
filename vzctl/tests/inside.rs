//! exec, exec2, enter, runscript and console: without vzd, straight to what the monitor keeps below /run/vz/ct.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Manager, Ran, program_path, resize, run, shows, terminal};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen, recv, send, socket,
};
use serde_json::{Value, json};
use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    thread::JoinHandle,
};

/// write, grow, shrink, seal (fcntl(2))
const SEALED: u64 = 0x8 | 0x4 | 0x2 | 0x1;

fn stand_in() -> PathBuf {
    let path = program_path("vzctl").parent().unwrap().join("examples/stand_in_vzmon");
    assert!(
        path.is_file(),
        "{} is built by `cargo test -p vzctl`, or `cargo build -p vzctl --examples`",
        path.display()
    );
    path
}

fn inside(m: &Manager, args: &[&str], input: &[u8]) -> Ran {
    run(m.command("vzctl").env("VZ_VZMON", stand_in()).args(args), input)
}

fn running() -> Manager {
    let m = Manager::alone();
    m.configure(101, "ostemplate = 'debian-12'\nname = 'web1'\n");
    m.pretend_running(101);
    m
}

#[test]
fn exec_runs_the_joined_words_in_a_shell_from_a_sealed_program() {
    let m = running();
    let ran = inside(&m, &["exec2", "web1", "exit", "7"], b"");
    assert_eq!((ran.code, ran.err.as_str()), (7, ""));
    let said = ran.json();
    assert_eq!(said["argv"], json!(["vzmon", "attach"]));
    assert_eq!(said["environment"], json!([]), "nothing of the operator's environment goes along");
    assert!(said["exe"].as_str().unwrap().starts_with("/memfd:"), "{said}");
    for what in ["exe_seals", "plan_seals"] {
        assert_eq!(said[what].as_u64().unwrap() & SEALED, SEALED, "{what}");
    }
    let plan = &said["plan"];
    assert_eq!(plan["run_dir"], json!(m.path("run/vz/ct/101")));
    assert_eq!(plan["argv"], json!(["bash", "-c", "exit 7"]));
    assert_eq!(plan["argv_fallback"], json!(["sh", "-c", "exit 7"]));
    assert_eq!((&plan["tty"], &plan["fail_as"], &plan["farewell"]), (&json!(false), &Value::Null, &Value::Null));
    let env: Vec<&str> = plan["env"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert!(env.contains(&"HOME=/root") && env.contains(&"TERM=vt100") && env.len() == 5, "{env:?}");
    assert_eq!(inside(&m, &["exec", "101", "true"], b"").json()["plan"]["fail_as"], json!(8));
}

#[test]
fn exec_reads_a_script_from_its_input_for_a_dash_and_keeps_the_options_of_the_command() {
    let m = running();
    assert_eq!(inside(&m, &["exec", "101", "-"], b"").json()["plan"]["argv"], json!(["bash", "-s"]));
    let plan = &inside(&m, &["exec", "101", "ls", "--all", "-l", "--quiet", "|", "wc"], b"").json()["plan"];
    assert_eq!(plan["argv"], json!(["bash", "-c", "ls --all -l --quiet | wc"]));
    assert_eq!(inside(&m, &["exec", "101", "--", "-x"], b"").json()["plan"]["argv"][2], "-x");
}

#[test]
fn enter_gives_a_login_shell_on_a_terminal_and_says_goodbye() {
    let m = running();
    let ran = inside(&m, &["enter", "101"], b"");
    let (hello, said) = ran.out.split_once('\n').unwrap();
    let plan = &serde_json::from_str::<Value>(said).unwrap()["plan"];
    assert_eq!((hello, &plan["farewell"]), ("entered into CT 101", &json!("exited from CT 101")));
    assert_eq!((&plan["argv"], &plan["tty"]), (&json!([]), &json!(true)));
    let plan = &inside(&m, &["enter", "101", "--quiet", "--exec", "top", "-b"], b"").json()["plan"];
    assert_eq!(
        (&plan["argv"], &plan["tty"], &plan["farewell"]),
        (&json!(["bash", "-c", "top -b"]), &json!(true), &Value::Null)
    );
}

#[test]
fn a_script_of_the_host_is_shown_inside_sealed_to_its_own_interpreter() {
    let m = running();
    fs::write(m.path("setup"), "#!/usr/bin/perl -w\nprint 1\n").unwrap();
    let said = inside(&m, &["runscript", "101", "setup"], b"").json();
    assert_eq!(said["script"], "#!/usr/bin/perl -w\nprint 1\n");
    assert_eq!(said["plan"]["argv"], json!(["/usr/bin/perl", "-w", "/dev/fd/3"]));
    fs::write(m.path("plain"), "echo hi\n").unwrap();
    let plan = &inside(&m, &["runscript", "101", "plain"], b"").json()["plan"];
    assert_eq!((&plan["argv"], &plan["argv_fallback"]), (&json!(["bash", "/dev/fd/3"]), &json!(["sh", "/dev/fd/3"])));
    for bad in ["/nonexistent", "/tmp"] {
        let ran = inside(&m, &["runscript", "101", bad], b"");
        assert_eq!(ran.code, 21);
        assert!(ran.err.contains(bad), "{ran:?}");
    }
}

#[test]
fn what_does_not_run_or_exist_is_told_apart() {
    let m = Manager::alone();
    m.configure(101, "ostemplate = 'debian-12'\n");
    for args in [&["exec", "101", "true"][..], &["exec2", "101", "true"], &["enter", "101"], &["console", "101"]] {
        let ran = inside(&m, args, b"");
        assert_eq!((ran.code, ran.out.as_str()), (31, ""), "{ran:?}");
        assert!(ran.err.contains("not running") && ran.err.contains("vzctl start 101"), "{ran:?}");
    }
    assert_eq!(inside(&m, &["exec", "102", "true"], b"").code, 14);
    assert_eq!(inside(&m, &["exec", "web1", "true"], b"").code, 14);
    m.pretend_running(101);
    let ran = run(m.command("vzctl").env("VZ_VZMON", "/nonexistent").args(["exec", "101", "true"]), b"");
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("/nonexistent"), "{ran:?}");
}

/// A monitor's control socket that answers one console, then does as told.
fn monitor(m: &Manager, then: impl FnOnce(OwnedFd) + Send + 'static) -> JoinHandle<Value> {
    let path = m.path("run/vz/ct/101/control.sock");
    let listening = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listening.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&listening, Backlog::new(1).unwrap()).unwrap();
    std::thread::spawn(move || {
        let client = rustix::net::accept(&listening).unwrap();
        let mut buffer = [0; 4096];
        let n = recv(client.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        let request = serde_json::from_slice(&buffer[..n]).unwrap();
        send(client.as_raw_fd(), b"\"done\"", MsgFlags::empty()).unwrap();
        then(client);
        request
    })
}

fn frame(client: &OwnedFd) -> Vec<u8> {
    let mut buffer = [0; 8192];
    let n = recv(client.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
    buffer[..n].to_vec()
}

#[test]
fn the_console_of_a_script_relays_both_ways_and_ends_with_its_input() {
    let m = running();
    let monitor = monitor(&m, |client| {
        send(client.as_raw_fd(), b"\0login: ", MsgFlags::empty()).unwrap();
        let typed = frame(&client);
        send(client.as_raw_fd(), &[b"\0you said ", &typed[1..]].concat(), MsgFlags::empty()).unwrap();
        assert_eq!(frame(&client), b"", "vzctl has left");
    });
    m.vzctl_with_input(&["console", "web1"], b"root\x1b.\n").expect(0, "login: you said root\x1b.\n", "");
    assert_eq!(monitor.join().unwrap(), json!({"console": {"replay": true}}));
}

#[test]
fn the_console_of_a_script_ends_when_the_container_does() {
    let m = running();
    let monitor = monitor(&m, |client| {
        send(client.as_raw_fd(), b"\0Power down.\r\n", MsgFlags::empty()).unwrap();
    });
    let mut held_open = m.command("vzctl");
    let mut child = held_open
        .args(["console", "101"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take();
    let done = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(0), &b"Power down.\r\n"[..]));
    monitor.join().unwrap();
}

#[test]
fn a_console_without_its_monitor_is_an_error_that_says_so() {
    let m = running();
    let ran = m.vzctl(&["console", "101"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("console of CT 101") && ran.err.contains("vzmon"), "{ran:?}");
}

fn at_terminal(m: &Manager, theirs: &fs::File) -> std::process::Child {
    let end = || std::process::Stdio::from(theirs.try_clone().unwrap());
    m.command("vzctl").args(["console", "101"]).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
}

#[test]
fn the_console_at_a_terminal_is_raw_knows_its_size_and_is_left_by_escape_and_a_dot() {
    let m = running();
    let (said, heard) = std::sync::mpsc::channel();
    let monitor = monitor(&m, move |client| {
        loop {
            match frame(&client) {
                f if f.is_empty() => return,
                f => said.send(f).unwrap(),
            }
        }
    });
    let (ours, theirs) = terminal();
    let before = format!("{:?}", rustix::termios::tcgetattr(&theirs).unwrap());
    let mut child = at_terminal(&m, &theirs);
    let next = || heard.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    assert_eq!(next(), b"\x01{\"rows\":30,\"cols\":100}");
    shows(&ours, "Attached to CT 101");
    // Ctrl-C is for the container, and an Esc of an arrow key is no reason to leave.
    rustix::io::write(&ours, b"\x03").unwrap();
    assert_eq!(next(), b"\x00\x03");
    rustix::io::write(&ours, b"\x1b[A").unwrap();
    assert_eq!(next(), b"\x00\x1b[A");
    resize(&ours, 40);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGWINCH).unwrap();
    assert_eq!(next(), b"\x01{\"rows\":40,\"cols\":100}");
    rustix::io::write(&ours, b"\x1b").unwrap();
    assert_eq!(next(), b"\x00\x1b");
    rustix::io::write(&ours, b".").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    monitor.join().unwrap();
    assert_eq!(format!("{:?}", rustix::termios::tcgetattr(&theirs).unwrap()), before, "the terminal is as it was");
}

#[test]
fn the_console_at_a_terminal_waits_for_the_next_start_of_a_container_that_went_down() {
    let m = running();
    let first = monitor(&m, drop);
    let (ours, theirs) = terminal();
    let mut child = at_terminal(&m, &theirs);
    shows(&ours, "CT 101 is down");
    first.join().unwrap();
    fs::rename(m.path("run/vz/ct/101"), m.path("gone")).unwrap();
    fs::create_dir(m.path("run/vz/ct/101")).unwrap();
    let (left, leave) = std::sync::mpsc::channel();
    let second = monitor(&m, move |client| {
        send(client.as_raw_fd(), b"\0booted again", MsgFlags::empty()).unwrap();
        leave.recv().unwrap();
    });
    m.pretend_running(101);
    shows(&ours, "booted again");
    rustix::io::write(&ours, b"\x1b.").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    left.send(()).unwrap();
    second.join().unwrap();
}
