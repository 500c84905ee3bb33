//! Archives that cannot be used, or are made to do harm: an error that names the entry, and nothing left behind.

use super::{Builder, LONG, add, device, file, hard_link, import, laid, link, only, packed, store, tiny, unpackers};
use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Stdio,
};
use vz_tests::{Rig, tarball::Tarball, template::Template::Tiny, wait};
use vz_types::ExitCode::{self, BadTemplate, BadValue};

/// Imports and expects this refusal, which names `entry` and says `why`; and that nothing is left of it.
#[track_caller]
fn refused(rig: &Rig, bytes: &[u8], code: ExitCode, entry: &str, why: &str) {
    let (files, census) = (store(rig), rig.census());
    let path = laid(rig, "hostile.tar", bytes);
    let out = rig.refused(&["template", "import", &path, "--name", "evil"], code, entry);
    assert!(out.stderr.contains(why), "expected a message saying {why:?}:\n{out}");
    fs::remove_file(&path).unwrap();
    assert_eq!(store(rig), files, "left in the store after: {out}");
    rig.assert_census(&census, "after a refused archive");
    assert_eq!(unpackers(rig), [""; 0]);
    let list = rig.ok(&["template", "list", "--json"]).json();
    assert!(list.as_array().unwrap().iter().all(|t| t["name"] != "evil"), "{list}");
}

#[test]
fn hostile_entries_are_named_and_leave_nothing() {
    let rig = Rig::new(&[Tiny]);
    let why = |entry: &str, why: &str, fill: &dyn Fn(&mut Builder)| {
        refused(&rig, &tiny(|b| fill(b)), BadTemplate, &format!("entry {entry}"), why);
    };
    why("/etc/evil", "absolute", &|b| file(b, "/etc/evil", b""));
    why("../evil", "`..`", &|b| file(b, "../evil", b""));
    why("etc/../../evil", "`..`", &|b| file(b, "etc/../../evil", b""));
    why("out/evil", "through out, which is a symbolic link", &|b| {
        link(b, "out", "/tmp");
        file(b, "out/evil", b"");
    });
    why("evil", "an earlier entry of the same name is a directory", &|b| {
        add(b, tar::EntryType::Directory, b"evil", "", 0o755, 0, b"");
        link(b, "evil", "/tmp");
    });
    why("evil", "an earlier entry of the same name is a symbolic link", &|b| {
        link(b, "evil", "/etc/passwd");
        file(b, "evil", b"root::0:0::/:/bin/sh\n");
    });
    why("evil", "hard link to /etc/shadow", &|b| hard_link(b, "evil", "/etc/shadow"));
    why("evil", "hard link to ../../../etc/shadow", &|b| hard_link(b, "evil", "../../../etc/shadow"));
    why("evil", "no earlier entry", &|b| hard_link(b, "evil", "etc/nothing"));
    why("evil", "block device, 8:0", &|b| device(b, "evil", tar::EntryType::Block, 8, 0));
    why("dev/sda", "block device, 8:0", &|b| device(b, "dev/sda", tar::EntryType::Block, 8, 0));
    why("dev/null", "character device, 1:1", &|b| device(b, "dev/null", tar::EntryType::Char, 1, 1));
    why("evil", "owner 65536", &|b| add(b, tar::EntryType::Regular, b"evil", "", 0o4755, 65_536, b""));
    why("evil", "trusted.overlay.opaque", &|b| {
        b.append_pax_extensions([("SCHILY.xattr.trusted.overlay.opaque", &b"y"[..])]).unwrap();
        file(b, "evil", b"");
    });
    let deep = "d/".repeat(200) + "evil";
    why("d/d/d", "directories deep", &|b| {
        b.append_pax_extensions([("path", deep.as_bytes())]).unwrap();
        file(b, "x", b"");
    });
    why("evil", "type", &|b| add(b, tar::EntryType::new(b'Q'), b"evil", "", 0o644, 0, b""));
    why("evil", "exceeds", &|b| {
        let mut h = tar::Header::new_gnu();
        h.set_entry_type(tar::EntryType::GNUSparse);
        h.set_path("evil").unwrap();
        h.set_mode(0o644);
        h.set_uid(0);
        h.set_gid(0);
        h.set_size(0);
        h.as_gnu_mut().unwrap().set_real_size(8 << 60);
        h.set_cksum();
        b.append(&h, &b""[..]).unwrap();
    });
    why("evil", "exceeds", &|b| {
        b.append_pax_extensions([("size", &b"9000000000000000000"[..])]).unwrap();
        file(b, "evil", b"");
    });
    assert!(!Path::new("/tmp/evil").exists() && !Path::new("/etc/evil").exists());
    // What a terminal would obey is shown as what it is.
    let out = rig.vzctl_with(
        &["template", "import", "-", "--name", "evil"],
        &tiny(|b| add(b, tar::EntryType::Regular, b"/\x1b[2J\xff", "", 0o644, 0, b"")),
    );
    assert!(out.stderr.contains("/\\u{1b}[2J\\xff") && !out.stderr.contains('\x1b'), "{out}");
}

#[test]
fn bombs_are_given_up_early_and_limits_can_be_set() {
    let rig = Rig::new(&[]);
    // 600 MiB of zeros in some ten kB, as an honest entry, would fit the disk.
    let path = rig.paths.base.join("bomb.tar.zst");
    let mut e = zstd::stream::write::Encoder::new(fs::File::create(&path).unwrap(), 1).unwrap();
    let mut h = tar::Header::new_gnu();
    h.set_path("evil").unwrap();
    h.set_mode(0o644);
    h.set_uid(0);
    h.set_gid(0);
    h.set_size(600 << 20);
    h.set_cksum();
    e.write_all(h.as_bytes()).unwrap();
    std::io::copy(&mut std::io::repeat(0).take((600 << 20) + 1024), &mut e).unwrap();
    e.finish().unwrap();
    let before = store(&rig);
    let out = import(&rig, &path.display().to_string(), "evil").expect_code(BadTemplate.code().into());
    assert!(out.stderr.contains("entry evil") && out.stderr.contains("500 to one"), "{out}");
    assert_eq!(store(&rig), before);
    let good = laid(&rig, "good.tar", &tiny(|b| file(b, "large", &[7; 3 << 20])));
    let words = ["template", "import", &good, "--max-size", "2M"];
    let out = rig.refused(&words, BadTemplate, "exceeds the limit");
    assert!(out.stderr.contains("--max-size"), "{out}");
    assert_eq!(store(&rig), before);
    rig.refused(&["template", "import", &good, "--max-size", "much"], BadValue, "much");
    rig.ok(&["template", "import", &good, "--max-size", "20M"]);
}

#[test]
fn truncated_and_damaged_archives_say_where() {
    let rig = Rig::new(&[]);
    let bytes = tiny(|b| file(b, "last", &[3; 5000]));
    for (kind, word) in [("none", "ends at byte"), ("gz", "gzip"), ("xz", "xz"), ("zst", "zstd")] {
        let good = packed(kind, &bytes);
        for cut in [good.len() / 3, good.len() - 700, good.len() - 1] {
            if kind == "none" && cut == good.len() - 1 {
                // A byte of the padding behind the end mark.
                continue;
            }
            let out = rig.vzctl_with(&["template", "import", "-", "--name", "evil"], &good[..cut]);
            let told = out.code() == i32::from(BadTemplate.code()) && out.stderr.contains("truncated");
            assert!(told && (out.stderr.contains(word) || out.stderr.contains("end mark")), "{kind} {cut}: {out}");
        }
    }
    // Without its end mark it is not whole either, even where the last file is.
    refused(&rig, &bytes[..bytes.len() - 1024], BadTemplate, "entry last", "end mark");
    refused(&rig, b"", BadTemplate, "hostile.tar", "empty");
    refused(&rig, b"BZh91AY&SY", BadTemplate, "hostile.tar", "bzip2");
    refused(&rig, &[b'x'; 4096], BadTemplate, "hostile.tar", "no tar archive");
    let mut bad = bytes.clone();
    bad[512 * 40] ^= 0x55;
    let path = laid(&rig, "bad.tar", &bad);
    let out = import(&rig, &path, "evil");
    assert!(out.code() == 0 || out.stderr.contains("checksum is wrong"), "{out}");
}

#[test]
fn a_root_that_cannot_boot_here_is_refused_and_says_why() {
    let rig = Rig::new(&[]);
    let etc = |b: &mut Builder| file(b, "etc/os-release", b"ID=strange\nVERSION_ID=\"7\"\n");
    let init = |data: &'static [u8]| {
        only(|b| {
            etc(b);
            add(b, tar::EntryType::Regular, b"sbin/init", "", 0o755, 0, data);
        })
    };
    refused(&rig, &only(etc), BadTemplate, "no usable init", "systemd-sysv");
    refused(
        &rig,
        &only(|b| (etc(b), link(b, "sbin/init", "../lib/nothing")).1),
        BadTemplate,
        "no usable init",
        "/sbin/init",
    );
    refused(&rig, &only(|b| (link(b, "sbin", "sbin"), etc(b)).1), BadTemplate, "no usable init", "leads nowhere");
    refused(&rig, &only(|b| file(b, "sbin/init", b"#!/bin/sh\n")), BadTemplate, "not executable", "/sbin/init");
    refused(&rig, &init(b"#!/bin/sh\n"), BadTemplate, "/bin/sh", "missing");
    refused(&rig, &init(b"nonsense"), BadTemplate, "/sbin/init", "neither an ELF program nor a script");
    // An ELF header of another architecture is enough to tell.
    let mut arm = fs::read("/bin/busybox").unwrap()[..64].to_vec();
    arm[18] = 183;
    let arm: &'static [u8] = arm.leak();
    refused(&rig, &init(arm), BadTemplate, "/sbin/init in it is a program for arm64", "amd64");
}

#[test]
fn a_plain_minbase_has_no_init_and_the_message_says_what_to_install() {
    let rig = Rig::new(&[]);
    let before = store(&rig);
    let path = Tarball::WithoutInit.cached().display().to_string();
    let out = rig.refused(&["template", "import", &path], BadTemplate, "no usable init");
    assert!(out.stderr.contains("/sbin/init") && out.stderr.contains("systemd-sysv"), "{out}");
    assert_eq!(store(&rig), before);
}

#[test]
fn a_refusal_does_not_wait_for_the_rest_of_the_archive() {
    let rig = Rig::new(&[]);
    let mut c = rig.vzctl_command(&["template", "import", "-", "--name", "web"]);
    let mut child = c.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // Kept open: nothing but the answer can end it.
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&only(|b| file(b, "/evil", b""))).unwrap();
    let ended = wait::process(child.id(), LONG).unwrap();
    assert!(ended, "it waits for more");
    assert_eq!(child.wait().unwrap().code(), Some(BadTemplate.code().into()));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("entry /evil"), "{said}");
    drop(pipe);
}

#[test]
fn the_unpacker_has_nothing_but_the_tree() {
    let rig = Rig::new(&[]);
    let bytes = tiny(|_| {});
    let mut c = rig.vzctl_command(&["template", "import", "-", "--name", "web"]);
    let mut child = c.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&bytes[..bytes.len() - 600]).unwrap();
    pipe.flush().unwrap();
    // The supervisor's only child, once it has confined itself.
    let worker = wait::in_dir(&rig.paths.template_dir(), LONG, || {
        let supervisor = unpackers(&rig).pop()?;
        let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).ok()?;
        let worker: PathBuf = Path::new("/proc").join(children.split_whitespace().next()?);
        let status = fs::read_to_string(worker.join("status")).ok()?;
        status.contains("Seccomp:\t2").then_some((worker, status))
    });
    let (worker, status) = worker.unwrap().expect("a confined worker");
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Uid:"), "1879048192 1879048192 1879048192 1879048192");
    assert_eq!(field("Groups:"), "");
    // chown, dac_override, fowner, fsetid, setfcap; in its own user namespace.
    assert_eq!(field("CapEff:"), format!("{:016x}", 0b11011u64 | 1 << 31));
    assert_eq!(
        (field("CapBnd:"), field("CapInh:"), field("CapAmb:")),
        ("0".repeat(16), "0".repeat(16), "0".repeat(16))
    );
    for space in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        let link = |of: &Path| fs::read_link(of.join("ns").join(space)).unwrap();
        assert_ne!(link(&worker), link(Path::new("/proc/self")), "{space}");
    }
    let mounts = fs::read_to_string(worker.join("mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(["nosuid", "nodev", "noexec", "idmapped"].iter().all(|w| mounts.contains(w)), "{mounts}");
    // It is at work: what it has just closed does not count.
    let fds: Vec<PathBuf> =
        fs::read_dir(worker.join("fd")).unwrap().flatten().flat_map(|e| fs::read_link(e.path())).collect();
    assert!(fds.len() <= 7, "{fds:?}");
    pipe.write_all(&bytes[bytes.len() - 600..]).unwrap();
    drop(pipe);
    assert!(child.wait().unwrap().success());
}
