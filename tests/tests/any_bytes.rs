//! Names and words that are not UTF-8, as every old system has some: what is carried inside arrives byte for byte, and what
//! cannot be carried is named.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    process::{Command, Output, Stdio},
};
use vz_tests::Rig;

/// In ISO 8859-1.
const NAME: &[u8] = b"/root/caf\xe9";

fn words(rig: &Rig, first: &[&str], rest: &[&[u8]]) -> Command {
    let mut c = rig.vzctl_command(first);
    c.args(rest.iter().map(|w| OsStr::from_bytes(w))).stdin(Stdio::null());
    c
}

fn done(mut c: Command) -> Output {
    let out = c.output().unwrap();
    assert!(out.status.success(), "{c:?}: {out:?}");
    out
}

#[test]
fn words_that_are_not_utf8_reach_the_program_inside_as_they_are() {
    let rig = Rig::with_tiny();
    for verb in ["exec", "exec2"] {
        assert_eq!(done(words(&rig, &[verb, "101"], &[b"printf", b"%s", b"\xff\xfe"])).stdout, b"\xff\xfe", "{verb}");
    }
    // A file of that name is made, read and listed.
    done(words(&rig, &["exec", "101"], &[b"echo inside >", NAME]));
    assert_eq!(done(words(&rig, &["exec2", "101"], &[b"cat", NAME])).stdout, b"inside\n");
    assert_eq!(done(words(&rig, &["exec2", "101"], &[b"echo /root/c*"])).stdout, b"/root/caf\xe9\n");
    let out = done(words(&rig, &["enter", "101", "--quiet", "--exec"], &[b"cat", NAME]));
    assert_eq!(out.stdout, b"inside\n");
    let missing = words(&rig, &["exec2", "101"], &[b"/root/\xff"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");
    // A script of such a name, with such a content.
    let script = rig.paths.base.join(OsStr::from_bytes(b"scr\xefpt"));
    fs::write(&script, b"#!/bin/sh\nprintf %s '\xe4'\n").unwrap();
    assert_eq!(done(words(&rig, &["runscript", "101"], &[script.as_os_str().as_bytes()])).stdout, b"\xe4");
    // Where init is in a cgroup of such a name, programs still get in.
    done(words(&rig, &["exec2", "101"], &[b"mkdir /sys/fs/cgroup/\xff && echo 1 >/sys/fs/cgroup/\xff/cgroup.procs"]));
    assert_eq!(rig.inside(101, "cat /proc/1/comm"), "init");
    rig.ok(&["stop", "101", "--fast"]);
}

#[test]
fn an_argument_that_has_to_be_utf8_is_named_when_it_is_not() {
    let rig = Rig::with_tiny();
    let all: &[(&[&str], &[&[u8]])] = &[
        (&["start"], &[b"w\xffb"]),
        (&["create", "101", "--ostemplate"], &[b"w\xffb"]),
        (&["create", "101", "--hostname"], &[b"w\xffb"]),
        (&["set", "101", "--description"], &[b"w\xffb", b"--save"]),
        (&["list", "-o"], &[b"w\xffb"]),
        (&["exec"], &[b"w\xffb", b"true"]),
        (&["--root"], &[b"/w\xffb", b"list"]),
        (&["template", "import"], &[b"/nowhere/w\xffb.tar"]),
        (&["runscript", "101"], &[b"/nowhere/w\xffb"]),
    ];
    for (first, rest) in all {
        let out = words(&rig, first, rest).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        let named = said.contains("w\\xFFb") || said.contains("w\\xffb") || said.contains("w\u{fffd}b");
        assert!(!out.status.success() && named, "{first:?}: {said}");
    }
    // A file's name may be any bytes; a template's may not.
    let odd = rig.paths.base.join(OsStr::from_bytes(b"w\xffb.tar"));
    fs::write(&odd, b"no tar").unwrap();
    let mut c = words(&rig, &["template", "import"], &[odd.as_os_str().as_bytes()]);
    let said = String::from_utf8(c.output().unwrap().stderr).unwrap();
    assert!(said.contains("--name"), "{said}");
    let mut c = words(&rig, &["template", "import", "--name", "odd"], &[odd.as_os_str().as_bytes()]);
    let said = String::from_utf8(c.output().unwrap().stderr).unwrap();
    assert!(said.contains("tar archive"), "{said}");
}
