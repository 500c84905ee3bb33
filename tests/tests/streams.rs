//! Standard input and output of every kind: closed, empty, a file, a pipe that ends early or never, a full disk, no terminal
//! anywhere. Whatever is typed into a script ends, and says how.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{os::unix::process::ExitStatusExt, path::Path, process::Stdio, time::Duration};
use vz_tests::{Rig, command};

/// Longer than any of these may take.
const LONG: Duration = Duration::from_secs(15);

/// A shell line in which `vzctl` and `vzlist` are this manager's; without a controlling terminal. Its exit code and what it
/// wrote.
fn shell(rig: &Rig, line: &str) -> (Option<i32>, String, String) {
    let vzctl = rig.vzctl_command(&[]);
    let mut words = std::iter::once(vzctl.get_program()).chain(vzctl.get_args()).map(Path::new);
    let dir = words.find(|w| w.ends_with("vzctl")).and_then(Path::parent).unwrap();
    let mut c = rig.host.command("setsid");
    c.args(["--wait", "bash", "-o", "pipefail", "-c", line]).env("VZ_ROOT", &rig.paths.base);
    c.env("PATH", format!("{}:{}", dir.display(), std::env::var("PATH").unwrap()));
    c.stdin(Stdio::null());
    let out = command::run(&mut c, None, LONG).unwrap_or_else(|e| panic!("{line}: {e}"));
    (out.status.code().or(out.status.signal().map(|s| 128 + s)), out.stdout, out.stderr)
}

#[test]
fn enter_without_a_terminal_reads_to_the_end_of_its_input_and_returns() {
    let rig = Rig::with_tiny();
    for (line, code, says) in [
        ("vzctl enter 101 </dev/null", 0, ""),
        ("vzctl enter 101 <&-", 0, ""),
        ("printf 'exit 3' | vzctl enter 101", 3, ""),
        ("printf 'echo one; exit 4\\n' | vzctl enter 101", 4, "one"),
        (
            "echo 'echo from a file' >/tmp/vzt-in.$$; vzctl enter 101 </tmp/vzt-in.$$; rm /tmp/vzt-in.$$",
            0,
            "from a file",
        ),
        ("vzctl enter 101 --exec 'exit 5' </dev/null", 5, ""),
        // What it reads from never ends.
        (
            "mkfifo /tmp/vzt-fifo.$$; exec 3<>/tmp/vzt-fifo.$$; rm /tmp/vzt-fifo.$$; vzctl enter 101 --exec 'echo two' <&3",
            0,
            "two",
        ),
    ] {
        let (ended, out, err) = shell(&rig, line);
        assert_eq!(ended, Some(code), "{line}: {out}{err}");
        assert!(out.contains(says) && out.contains("entered into CT 101"), "{line}: {out}{err}");
    }
    // All of it arrives, every time.
    for n in 0..12 {
        let (ended, out, err) = shell(&rig, "seq 2000 | vzctl --quiet enter 101 --exec cat | cksum");
        assert_eq!((ended, out.trim()), (Some(0), shell(&rig, "seq 2000 | cksum").1.trim()), "{n}: {err}");
    }
}

#[test]
fn exec_ends_with_its_program_whatever_its_streams_are() {
    let rig = Rig::with_tiny();
    for (line, code) in [
        ("vzctl exec 101 cat <&-", 0),
        ("vzctl exec 101 cat </dev/null", 0),
        ("vzctl exec 101 echo hi >&-", 0),
        ("vzctl exec 101 echo hi >&- 2>&- <&-", 0),
        ("vzctl exec2 101 'exit 7' <&-", 7),
        ("set +o pipefail; vzctl exec 101 'seq 100000' | head -1", 0),
        ("mkfifo /tmp/vzt-fifo.$$; exec 3<>/tmp/vzt-fifo.$$; rm /tmp/vzt-fifo.$$; vzctl exec 101 true <&3", 0),
        ("yes | head -c 300000 | vzctl exec2 101 'head -c 5 >/dev/null; exit 6' 2>/dev/null; exit ${PIPESTATUS[2]}", 6),
    ] {
        let (ended, out, err) = shell(&rig, line);
        assert_eq!(ended, Some(code), "{line}: {out}{err}");
    }
    let (ended, _, err) = shell(&rig, "vzctl exec 101 echo hi >/dev/full");
    assert!(ended != Some(0) && err.contains("No space left"), "{ended:?} {err}");
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure_and_a_sentence_is_none() {
    let rig = Rig::with_tiny();
    for line in [
        "vzlist -a",
        "vzlist -a --json",
        "vzctl status 101",
        "vzctl --json status 101",
        "vzctl operations",
        "vzctl history 101",
        "vzctl why 101",
        "vzctl events --all",
        "vzctl check",
    ] {
        let (ended, _, err) = shell(&rig, &format!("{line} >/dev/full"));
        assert_eq!(ended, Some(3), "{line}: {err}");
        assert!(err.contains("standard output") && err.contains("No space left"), "{line}: {err}");
        // A reader that has seen enough is none.
        let (ended, _, err) =
            shell(&rig, &format!("set +o pipefail; {line} | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}"));
        assert!(matches!(ended, Some(0)), "{line}: {ended:?} {err}");
    }
    for line in
        ["vzctl set 101 --hostname a --save", "vzctl restart 101 --fast", "vzctl stop 101 --fast", "vzctl start 101"]
    {
        for to in [">/dev/full", ">&-", "| true"] {
            let (ended, _, err) = shell(&rig, &format!("{line} {to}"));
            let expected = if line.starts_with("vzctl start") && to != ">/dev/full" { 32 } else { 0 };
            assert_eq!(ended, Some(expected), "{line} {to}: {err}");
        }
    }
}
