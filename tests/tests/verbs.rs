//! Every verb, as an operator uses it: words, exit codes and effects. On the tiny system, whose init is a real one.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use expectrl::{Eof, Expect};
use std::{fs, time::Duration};
use vz_tests::{Rig, template::Template::Tiny};
use vz_types::ExitCode;

const SOON: Duration = Duration::from_secs(20);

/// A manager with CT 101, not started.
fn with_ct(options: &[&str]) -> Rig {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, options);
    rig
}

/// The same, started.
fn with_running_ct(options: &[&str]) -> Rig {
    let rig = with_ct(options);
    rig.ok(&["start", "101"]);
    rig
}

fn conf(rig: &Rig) -> String {
    fs::read_to_string(rig.paths.conf_dir().join("101.toml")).expect("the configuration file")
}

#[test]
fn a_container_lives_its_whole_life_and_leaves_nothing() {
    let rig = Rig::new(&[Tiny]);
    let before = rig.census();
    assert_eq!(rig.status(101), "deleted unmounted down");
    rig.create(101, Tiny, &["--ipadd", "10.99.0.1", "--ipadd", "fd99::1"]);
    assert_eq!(rig.status(101), "exist unmounted down");
    let stopped = rig.census();
    rig.ok(&["start", "101"]);
    assert_eq!(rig.status(101), "exist mounted running");
    assert_eq!(rig.inside(101, "cat /proc/1/comm"), "init");
    rig.ok(&["stop", "101"]);
    assert_eq!(rig.status(101), "exist unmounted down");
    rig.assert_census(&stopped, "after start and stop");
    rig.ok(&["destroy", "101"]);
    assert_eq!(rig.status(101), "deleted unmounted down");
    let after = rig.census().without(|l| l == "conf 101.toml.destroyed");
    let changes = before.changes(&after);
    assert!(changes.is_empty(), "after destroy:\n{}", changes.join("\n"));
    assert!(rig.paths.conf_dir().join("101.toml.destroyed").exists(), "destroy keeps the configuration as .destroyed");
    // The number and everything claimed with it are free again.
    rig.create(101, Tiny, &["--ipadd", "10.99.0.1"]);
}

#[test]
fn exec_joins_its_words_and_answers_any_failure_with_8() {
    let rig = with_running_ct(&[]);
    rig.ok(&["exec", "101", "echo", "a", "b;", "echo", "c"]).says("a b\nc\n");
    rig.vzctl(&["exec", "101", "exit 3"]).expect_code(8);
    rig.vzctl(&["exec", "101", "no-such-command"]).expect_code(8);
    let out = rig.vzctl_with(&["exec", "101", "-"], b"echo from stdin\nhostname >/dev/null\nexit 0\n");
    out.ok().says("from stdin");
}

#[test]
fn exec2_hands_on_input_output_and_the_exit_status() {
    let rig = with_running_ct(&[]);
    rig.vzctl(&["exec2", "101", "exit 7"]).expect_code(7);
    let out = rig.vzctl_with(&["exec2", "101", "cat; echo err >&2"], b"to and fro").ok();
    assert_eq!((out.stdout.as_str(), out.stderr.trim()), ("to and fro", "err"));
    rig.vzctl(&["exec2", "101", "kill -9 $$"]).expect_code(137);
    // More than a pipe holds, both ways.
    let big = vec![b'x'; 3 << 20];
    let out = rig.vzctl_with(&["exec2", "101", "cat"], &big).ok();
    assert_eq!(out.stdout.len(), big.len());
}

#[test]
fn exec_has_a_minimal_environment_and_runs_as_root_of_the_container() {
    let rig = with_running_ct(&[]);
    let mut c = rig.vzctl_command(&["exec2", "101", "env; id -u; cat /proc/self/uid_map"]);
    c.env("SECRET_OF_THE_HOST", "hidden");
    let out = vz_tests::command::run(&mut c, None, SOON).unwrap().ok();
    assert!(!out.stdout.contains("SECRET_OF_THE_HOST"), "{out}");
    assert!(!out.stdout.contains("VZ_ROOT"), "{out}");
    assert!(out.stdout.contains("PATH="), "{out}");
    let base = u32::from(rig.record(101).uid_base);
    let map = out.stdout.lines().last().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(map, format!("0 {base} 65536"));
}

#[test]
fn exec_into_a_stopped_container_says_so_with_31() {
    let rig = with_ct(&[]);
    for verb in ["exec", "exec2"] {
        rig.refused(&["exec", "101", "true"], ExitCode::NotRunning, "101");
        rig.refused(&[verb, "101", "true"], ExitCode::NotRunning, "not running");
    }
    rig.refused(&["enter", "101"], ExitCode::NotRunning, "101");
}

#[test]
fn enter_gives_a_root_shell_on_a_terminal_of_its_own() {
    let rig = with_running_ct(&[]);
    let mut p = expectrl::Session::spawn(rig.vzctl_command(&["enter", "101"])).unwrap();
    p.set_expect_timeout(Some(SOON));
    p.send_line("tty; echo sum=$((40+2)); id -u").unwrap();
    p.expect("sum=42").unwrap();
    p.send_line("exit 0").unwrap();
    p.expect(Eof).unwrap();
    let mut p = expectrl::Session::spawn(rig.vzctl_command(&["enter", "101", "--exec", "hostname"])).unwrap();
    p.set_expect_timeout(Some(SOON));
    p.expect("ct101").unwrap();
    p.expect(Eof).unwrap();
}

#[test]
fn tty_in_enter_names_a_terminal_that_programs_can_open() {
    let rig = with_running_ct(&["--numpty", "2", "--features", "nesting:on"]);
    let enter = || {
        let mut p = expectrl::Session::spawn(rig.vzctl_command(&["enter", "101"])).unwrap();
        p.set_expect_timeout(Some(SOON));
        p
    };
    let mut p = enter();
    p.get_process_mut().set_window_size(97, 31).unwrap();
    p.send_line("echo at=$(tty); stat -c owner=%u:%g:%a $(tty)").unwrap();
    p.expect("at=/dev/pts/0\r").unwrap();
    p.expect("owner=0:5:620").unwrap();
    p.send_line("echo name=$((40+1)) >$(tty); echo tty=$((40+2)) >/dev/tty; stty size <$(tty)").unwrap();
    p.expect("name=41").unwrap();
    p.expect("tty=42").unwrap();
    p.expect("31 97").unwrap();
    // Signals of the keyboard and job control are the terminal's own.
    p.send_line("(echo sleeps=$((40+3)); exec sleep 1000)").unwrap();
    p.expect("sleeps=43").unwrap();
    p.send("\x03").unwrap();
    p.expect("# ").unwrap();
    p.send_line("echo ended=$?").unwrap();
    p.expect("ended=130").unwrap();
    p.send_line("(echo sleeps=$((40+4)); exec sleep 1000)").unwrap();
    p.expect("sleeps=44").unwrap();
    p.send("\x1a").unwrap();
    p.expect("Stopped").unwrap();
    p.expect("# ").unwrap();
    p.send_line("kill -9 %1; wait; echo after=$((40+8))").unwrap();
    p.expect("after=48").unwrap();
    // Two are taken now, and that is all: the third is the host's, which has no name inside.
    let mut second = enter();
    second.send_line("echo at=$(tty)").unwrap();
    second.expect("at=/dev/pts/1\r").unwrap();
    let mut third = enter();
    third.send_line("echo at=$(tty) sum=$((40+5))").unwrap();
    third.expect("at=not a tty sum=45").unwrap();
    third.send_line("echo tty=$((40+6)) >/dev/tty; exit 3").unwrap();
    third.expect("tty=46").unwrap();
    third.expect(Eof).unwrap();
    second.send_line("exit 0").unwrap();
    second.expect(Eof).unwrap();
    // What root inside puts in its place is neither followed nor opened, and keeps nobody out.
    for trap in ["mkfifo /dev/pts/ptmx", "ln -s /dev/null /dev/pts/ptmx", ":"] {
        rig.inside(101, &format!("mount -t tmpfs none /dev/pts; {trap}"));
        let mut p = enter();
        p.send_line("echo at=$(tty) sum=$((40+7))").unwrap();
        p.expect("at=not a tty sum=47").unwrap_or_else(|e| panic!("{trap}: {e}"));
        p.send_line("exit 0").unwrap();
        p.expect(Eof).unwrap();
        rig.inside(101, "umount /dev/pts");
    }
    // Nor is a filesystem waited for that never answers.
    let mute = "exec 3<>/dev/fuse; mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none /dev/pts || exit 1; \
                sleep 1000 >/dev/null 2>&1 & echo $!";
    let mute = rig.inside(101, mute);
    assert!(rig.inside(101, "grep /dev/pts /proc/mounts").contains("fuse"));
    let mut held = enter();
    held.send_line("echo sum=$((40+9)); exit 0").unwrap();
    held.expect("sum=49").unwrap();
    held.expect(Eof).unwrap();
    rig.inside(101, &format!("umount -l /dev/pts; kill {mute}"));
    // A shell that still thinks of a stopped job asks once more.
    p.send_line("exit 7; exit 7").unwrap();
    p.expect(Eof).unwrap();
    let expectrl::process::unix::WaitStatus::Exited(_, code) = p.get_process().wait().unwrap() else {
        panic!("killed")
    };
    assert_eq!(code, 7);
    assert_eq!(rig.inside(101, "ls /dev/pts"), "ptmx", "none is left behind");
}

#[test]
fn the_console_shows_what_was_said_and_escape_dot_leaves() {
    let rig = with_running_ct(&[]);
    rig.wait_console(101, "tiny is up", SOON);
    let mut p = expectrl::Session::spawn(rig.vzctl_command(&["console", "101"])).unwrap();
    p.set_expect_timeout(Some(SOON));
    p.expect("tiny is up").unwrap();
    rig.inside(101, "echo said while attached >/dev/console");
    p.expect("said while attached").unwrap();
    p.send("\x1b.").unwrap();
    p.expect(Eof).unwrap();
    assert_eq!(rig.status(101), "exist mounted running");
}

#[test]
fn runscript_runs_a_file_of_the_host_inside() {
    let rig = with_running_ct(&[]);
    let script = rig.paths.base.join("script.sh");
    fs::write(&script, "#!/bin/sh\nhostname\ncat /etc/os-release\nexit 5\n").unwrap();
    let out = rig.vzctl(&["runscript", "101", script.to_str().unwrap()]);
    assert!(out.stdout.contains("ID=tiny"), "{out}");
    assert_ne!(out.code(), 0, "{out}");
    fs::write(&script, "#!/bin/sh\ntrue\n").unwrap();
    rig.ok(&["runscript", "101", script.to_str().unwrap()]);
    rig.refused(&["runscript", "101", "/no/such/script"], ExitCode::BadValue, "/no/such/script");
}

#[test]
fn runscript_starts_a_stopped_container_for_the_script_and_stops_it_again() {
    let rig = with_ct(&["--hostname", "scripted"]);
    let before = rig.census();
    let script = rig.paths.base.join("script.sh");
    fs::write(&script, "hostname\nexit 6\n").unwrap();
    let out = rig.vzctl(&["runscript", "101", script.to_str().unwrap()]);
    assert_eq!((out.code(), out.stdout.trim()), (6, "scripted"), "{out}");
    assert!(out.stderr.contains("stopped again"), "{out}");
    assert_eq!(rig.status(101), "exist unmounted down");
    rig.assert_census(&before, "after a script in a stopped container");
}

#[test]
fn what_ends_exec_ends_the_program_inside_too() {
    let rig = with_running_ct(&[]);
    let mut exec = rig.vzctl_command(&["exec2", "101", "echo $$; trap 'exit 9' TERM; while :; do sleep 1; done"]);
    let mut child = exec.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
    // The shell has said its number before it sets its trap; the next exec comes after that.
    rig.inside(101, "true");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
    let status = child.wait().unwrap();
    assert!([Some(9), Some(143)].contains(&status.code()), "{status:?}");
    rig.refused(&["exec", "101", &format!("kill -0 {}", line.trim())], ExitCode::ExecFailed, "");
}

#[test]
fn exec_of_what_is_no_program_says_what_a_shell_says() {
    let rig = with_running_ct(&[]);
    rig.inside(101, "printf 'exit 4' >/root/plain; chmod +x /root/plain");
    for (command, code) in [("/root/plain", 4), ("/etc", 126), ("/no/such/program", 127)] {
        let out = rig.vzctl(&["exec2", "101", command]);
        assert_eq!(out.code(), code, "{out}");
    }
}

#[test]
fn stop_is_graceful_and_fast_is_at_once() {
    let rig = with_running_ct(&[]);
    let out = rig.ok(&["stop", "101"]);
    assert!(out.took < Duration::from_secs(10), "{out}");
    rig.ok(&["stop", "101"]).says("Unable to stop: container is not running");
    rig.ok(&["start", "101"]);
    let out = rig.ok(&["stop", "101", "--fast"]);
    assert!(out.took < Duration::from_secs(3), "{out}");
    assert_eq!(rig.status(101), "exist unmounted down");
}

#[test]
fn start_of_a_running_container_is_32_and_restart_boots_again() {
    let rig = with_running_ct(&[]);
    rig.refused(&["start", "101"], ExitCode::Running, "already running");
    let init = rig.record(101).init;
    rig.ok(&["restart", "101"]);
    assert_ne!(rig.record(101).init, init);
    assert_eq!(rig.record(101).boots, 1, "a restart is a new start, not a reboot from inside");
    rig.ok(&["stop", "101"]);
    rig.ok(&["restart", "101"]);
    assert_eq!(rig.status(101), "exist mounted running");
}

#[test]
fn reboot_and_poweroff_from_inside_do_what_they_say() {
    let rig = with_running_ct(&["--ipadd", "10.99.0.1"]);
    let before = rig.record(101);
    rig.vzctl(&["exec", "101", "reboot"]);
    let after = rig.wait_record(101, SOON, |r| r.boots == 2);
    assert_ne!(before.init, after.init);
    assert_eq!((before.monitor, &before.addresses), (after.monitor, &after.addresses));
    assert!(rig.inside(101, "ip addr show venet0").contains("10.99.0.1"));
    rig.vzctl(&["exec", "101", "poweroff"]);
    rig.wait_stopped(101, SOON);
    assert_eq!(rig.status(101), "exist unmounted down");
}

#[test]
fn mount_shows_the_files_on_the_host_and_umount_hides_them() {
    let rig = with_ct(&[]);
    let before = rig.census();
    rig.ok(&["mount", "101"]);
    assert_eq!(rig.status(101), "exist mounted down");
    assert!(rig.paths.root_dir().join("101/etc/os-release").exists());
    rig.refused(&["mount", "101"], ExitCode::Mounted, "already mounted");
    rig.refused(&["destroy", "101"], ExitCode::Mounted, "mounted");
    rig.ok(&["umount", "101"]);
    rig.refused(&["umount", "101"], ExitCode::NotMounted, "not mounted");
    rig.assert_census(&before, "after mount and umount");
    // Starting a mounted container is no mistake.
    rig.ok(&["mount", "101"]);
    rig.ok(&["start", "101"]);
    rig.refused(&["umount", "101"], ExitCode::Running, "running");
    rig.refused(&["mount", "101"], ExitCode::Running, "running");
    rig.refused(&["destroy", "101"], ExitCode::Running, "running");
}

#[test]
fn set_changes_the_running_container_and_the_configuration_only_with_save() {
    let rig = with_running_ct(&[]);
    let before = conf(&rig);
    let out = rig.ok(&["set", "101", "--hostname", "first.example"]);
    assert!(out.stderr.contains("save"), "it warns that nothing was saved: {out}");
    assert_eq!(rig.inside(101, "hostname"), "first.example");
    assert_eq!(conf(&rig), before);
    rig.ok(&["set", "101", "--hostname", "second.example", "--save"]);
    assert_eq!(rig.inside(101, "hostname"), "second.example");
    assert!(conf(&rig).contains("second.example"));
    rig.ok(&["restart", "101", "--fast"]);
    assert_eq!(rig.inside(101, "hostname; cat /etc/hostname"), "second.example\nsecond.example");
    assert!(rig.inside(101, "cat /etc/hosts").contains("second.example"));
    rig.ok(&["stop", "101", "--fast"]);
    let before = conf(&rig);
    let out = rig.ok(&["set", "101", "--ipadd", "10.99.0.77"]);
    assert!(out.stderr.contains("not saved") && !out.stdout.contains("Adding"), "nothing was added anywhere: {out}");
    assert_eq!(conf(&rig), before);
}

#[test]
fn every_plain_setting_is_saved_and_keeps_the_operators_comments() {
    let rig = with_ct(&[]);
    let file = rig.paths.conf_dir().join("101.toml");
    fs::write(&file, format!("# the web server\n{}", conf(&rig))).unwrap();
    rig.ok(&[
        "set",
        "101",
        "--onboot",
        "yes",
        "--bootorder",
        "7",
        "--name",
        "web",
        "--description",
        "it serves",
        "--save",
    ]);
    rig.ok(&[
        "set",
        "101",
        "--nameserver",
        "192.0.2.53",
        "--nameserver",
        "2001:db8::53",
        "--searchdomain",
        "example.org",
        "--save",
    ]);
    let text = conf(&rig);
    for part in [
        "# the web server",
        "onboot = true",
        "bootorder = 7",
        "web",
        "it serves",
        "192.0.2.53",
        "2001:db8::53",
        "example.org",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let listed = rig.vzlist(&["-a", "-j"]).ok().json();
    let ct = &listed[0];
    assert_eq!(ct["onboot"], true, "{ct}");
    assert_eq!(ct["bootorder"], 7, "{ct}");
    assert_eq!(ct["name"], "web", "{ct}");
    rig.ok(&["start", "web"]);
    let resolv = rig.inside(101, "cat /etc/resolv.conf");
    for part in ["nameserver 192.0.2.53", "nameserver 2001:db8::53", "search example.org"] {
        assert!(resolv.contains(part), "{resolv}");
    }
    rig.ok(&["set", "101", "--onboot", "no", "--description", "", "--name", "", "--save"]);
    let text = conf(&rig);
    assert!(text.contains("onboot = false") && !text.contains("it serves") && !text.contains("web\""), "{text}");
}

#[test]
fn a_name_stands_wherever_a_ctid_does() {
    let rig = with_running_ct(&["--name", "web-1"]);
    rig.ok(&["status", "web-1"]).says("CTID 101 exist mounted running");
    rig.ok(&["exec", "web-1", "true"]);
    rig.ok(&["set", "web-1", "--name", "www", "--save"]);
    rig.refused(&["exec", "web-1", "true"], ExitCode::NoConfig, "web-1");
    rig.ok(&["stop", "www"]);
    rig.ok(&["destroy", "www"]);
}

#[test]
fn a_disabled_container_starts_only_by_force() {
    let rig = with_ct(&["--disabled", "yes"]);
    rig.refused(&["start", "101"], ExitCode::Disabled, "disabled");
    rig.ok(&["start", "101", "--force"]);
    rig.refused(&["restart", "101"], ExitCode::Disabled, "disabled");
    rig.ok(&["stop", "101", "--fast"]);
    rig.ok(&["set", "101", "--disabled", "no", "--save"]);
    rig.ok(&["start", "101"]);
}

#[test]
fn passwords_and_keys_are_set_inside_and_saved_nowhere() {
    for running in [false, true] {
        let rig = if running { with_running_ct(&[]) } else { with_ct(&[]) };
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHjkFoFz2WkNPHTpx2GhLwuHV4mZmvHkkhC2WZyyzyzE operator@example";
        rig.ok(&["set", "101", "--userpasswd", "root:a-secret-word", "--sshkey", key]);
        if !running {
            rig.ok(&["start", "101"]);
        }
        let shadow = rig.inside(101, "grep ^root: /etc/shadow");
        assert!(shadow.starts_with("root:$"), "a crypt(5) hash: {shadow}");
        assert!(rig.inside(101, "cat /root/.ssh/authorized_keys").contains("AAAAC3NzaC1lZDI1NTE5AAAAIHjk"));
        let modes = rig.inside(101, "stat -c '%a %u %g' /root/.ssh /root/.ssh/authorized_keys");
        assert_eq!(modes, "700 0 0\n600 0 0");
        let mut grep = std::process::Command::new("grep");
        grep.args(["-rlF", "a-secret-word"]).args([rig.paths.etc(), rig.paths.log_dir(), rig.paths.run()]);
        let found = vz_tests::command::run(&mut grep, None, SOON).unwrap();
        assert_eq!(found.text(), "", "the password is kept somewhere");
    }
}

#[test]
fn a_password_can_come_from_standard_input() {
    let rig = with_running_ct(&[]);
    rig.vzctl_with(&["set", "101", "--userpasswd", "root:-"], b"word-by-pipe\n").ok();
    assert!(rig.inside(101, "grep ^root: /etc/shadow").starts_with("root:$"));
}

#[test]
fn addresses_come_and_go_while_it_runs() {
    let rig = with_running_ct(&[]);
    rig.ok(&["set", "101", "--ipadd", "10.99.0.5", "--ipadd", "fd99::5", "--save"]);
    let shown = rig.inside(101, "ip addr show venet0");
    assert!(shown.contains("10.99.0.5/32") && shown.contains("fd99::5/128"), "{shown}");
    assert!(rig.vzlist(&["-H", "-oip"]).ok().stdout.contains("10.99.0.5"));
    rig.ok(&["set", "101", "--ipdel", "10.99.0.5", "--save"]);
    let shown = rig.inside(101, "ip addr show venet0");
    assert!(!shown.contains("10.99.0.5") && shown.contains("fd99::5"), "{shown}");
    rig.ok(&["set", "101", "--ipdel", "all", "--ipadd", "10.99.0.6", "--save"]);
    let shown = rig.inside(101, "ip addr show venet0");
    assert!(shown.contains("10.99.0.6") && !shown.contains("fd99::5"), "{shown}");
    rig.ok(&["restart", "101", "--fast"]);
    assert!(rig.inside(101, "ip addr show venet0").contains("10.99.0.6"));
}

#[test]
fn every_verb_that_answers_something_answers_in_json() {
    let rig = with_running_ct(&[]);
    let calls: &[&[&str]] = &[
        &["--json", "status", "101"],
        &["--json", "template", "list"],
        &["--json", "template", "show", "tiny"],
        &["--json", "set", "101", "--description", "x", "--save"],
        &["--json", "stop", "101"],
        &["--json", "start", "101"],
        &["--json", "restart", "101", "--fast"],
        &["--json", "check"],
        &["--json", "stop", "101", "--fast"],
        &["--json", "mount", "101"],
        &["--json", "umount", "101"],
        &["--json", "destroy", "101"],
        &["--json", "create", "102", "--ostemplate", "tiny"],
    ];
    for words in calls {
        rig.ok(words).json();
    }
    let refused = rig.vzctl(&["--json", "start", "999"]).expect_code(14).json();
    assert_eq!(refused["code"], 14, "{refused}");
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("999")), "{refused}");
}

#[test]
fn start_says_its_steps_with_their_times() {
    let rig = with_ct(&[]);
    let done = rig.ok(&["--json", "start", "101"]).json();
    let steps = done["steps"].as_array().cloned().unwrap_or_default();
    assert!(!steps.is_empty() && steps.iter().all(|s| s["us"].is_u64() && s["name"].is_string()), "{done}");
    let second = rig.ok(&["--verbose", "restart", "101", "--fast"]);
    assert!(second.stdout.len() + second.stderr.len() > 80, "--verbose tells the steps: {second}");
    assert_eq!(rig.ok(&["--quiet", "stop", "101", "--fast"]).stdout, "");
}

#[test]
fn templates_are_listed_shown_and_kept_while_used() {
    let rig = with_ct(&[]);
    let listed = rig.ok(&["template", "list"]);
    assert!(listed.stdout.contains("tiny") && listed.stdout.contains("debian-12"), "built ones and recipes: {listed}");
    rig.ok(&["template", "show", "tiny"]).says("tiny");
    let out = rig.vzctl(&["template", "remove", "tiny"]);
    assert!(out.code() != 0 && out.stderr.contains("101"), "a used template stays, and the CT is named: {out}");
    rig.refused(&["template", "show", "no-such"], ExitCode::NoTemplate, "no-such");
}

#[test]
fn two_containers_of_one_template_share_nothing_they_write() {
    let rig = with_running_ct(&[]);
    rig.create(102, Tiny, &[]);
    rig.ok(&["start", "102"]);
    rig.inside(101, "echo mine >/root/file; rm /etc/os-release");
    assert_eq!(rig.inside(102, "ls /root; grep ^ID= /etc/os-release"), "ID=tiny");
    let (a, b) = (rig.record(101), rig.record(102));
    assert_ne!(a.uid_base, b.uid_base);
    let uuid = |id: u32| rig.inside(id, "tr '\\0' '\\n' </proc/1/environ | grep container_uuid");
    assert_ne!(uuid(101), uuid(102));
}

#[test]
fn check_says_what_this_host_cannot_do_and_what_to_do_about_it() {
    let rig = Rig::new(&[]);
    let out = rig.vzctl(&["check"]);
    assert_eq!(out.code(), 0, "containers can run here: {out}");
    let report = rig.ok(&["--json", "check"]).json();
    let items = report["items"].as_array().cloned().unwrap_or_default();
    for group in ["kernel", "cgroup", "quota", "network", "program"] {
        assert!(items.iter().any(|i| i["group"] == group), "no row about {group}: {report}");
    }
    for item in items.iter().filter(|i| i["status"] != "ok") {
        assert!(item["remedy"].is_string(), "a gap without a remedy: {item}");
    }
    let unified = fs::read_to_string("/proc/self/mountinfo").unwrap();
    if unified.contains(" - cgroup ") {
        // A hybrid host: what cannot be enforced is said.
        let told = items.iter().any(|i| i["group"] == "cgroup" && i["status"] == "missing");
        assert!(told, "hybrid cgroups, and check does not say what is lost: {report}");
    }
}

#[test]
fn completion_and_help_exist_for_every_verb() {
    let rig = Rig::stopped(&[]);
    let out = rig.ok(&["completion", "bash"]);
    for verb in [
        "create",
        "start",
        "stop",
        "restart",
        "destroy",
        "status",
        "exec",
        "exec2",
        "enter",
        "console",
        "runscript",
        "mount",
        "umount",
        "set",
        "template",
    ] {
        assert!(out.stdout.contains(verb), "completion without {verb}");
        rig.ok(&[verb, "--help"]);
    }
}

#[test]
fn a_create_without_a_template_takes_the_default_of_vz_toml() {
    let rig = Rig::stopped(&[Tiny]);
    std::fs::write(rig.paths.etc().join("vz.toml"), "[defaults]\nostemplate = \"tiny\"\n").unwrap();
    rig.start_vzd(&[]);
    rig.ok(&["create", "101"]).says("Creating container private area (tiny)");
    rig.ok(&["start", "101"]);
    assert_eq!(
        rig.vzlist(&["-H", "-a", "-o", "ctid,ostemplate"]).ok().text().split_whitespace().collect::<Vec<_>>(),
        ["101", "tiny"]
    );
}

#[test]
fn what_a_set_asked_for_is_in_the_history_and_no_secret() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &[]);
    rig.ok(&["set", "101", "--hostname", "web", "--numproc", "300", "--save"]);
    rig.ok(&["set", "101", "--userpasswd", "root:Geheim-1234"]);
    let history =
        rig.ok(&["history", "101"]).says("asked for: hostname web, numproc 300").says("asked for: userpasswd of root");
    assert!(!history.text().contains("Geheim"), "{history}");
    let facts = rig.ok(&["--json", "history", "101"]).text().to_owned();
    assert!(facts.contains("hostname web") && !facts.contains("Geheim"), "{facts}");
}
