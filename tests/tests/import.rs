//! `vzctl template import`: root filesystems somebody else packed become templates whose containers boot, and archives
//! made to do harm become an error that names the entry, and nothing else.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use vz_tests::{Rig, command, ssh::Identity, tarball::Tarball, template::Template::Tiny, wait};
use vz_types::ExitCode::{self, BadConfig, BadSyntax, BadTemplate, BadValue, Exists, System};

const A: &str = "10.99.0.1";
const LONG: Duration = Duration::from_secs(120);

type Builder = tar::Builder<Vec<u8>>;

/// One entry with any path, link target and owner, whatever the tar crate thinks of them.
fn add(b: &mut Builder, kind: tar::EntryType, path: &[u8], target: &str, mode: u32, uid: u64, data: &[u8]) {
    let mut h = tar::Header::new_gnu();
    h.set_entry_type(kind);
    h.set_mode(mode);
    h.set_uid(uid);
    h.set_gid(uid);
    h.set_mtime(1_700_000_000);
    h.set_size(data.len() as u64);
    h.as_old_mut().name[..path.len()].copy_from_slice(path);
    h.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    h.set_cksum();
    b.append(&h, data).unwrap();
}

fn file(b: &mut Builder, path: &str, data: &[u8]) {
    add(b, tar::EntryType::Regular, path.as_bytes(), "", 0o644, 0, data);
}

fn link(b: &mut Builder, path: &str, target: &str) {
    add(b, tar::EntryType::Symlink, path.as_bytes(), target, 0o777, 0, b"");
}

fn hard_link(b: &mut Builder, path: &str, target: &str) {
    add(b, tar::EntryType::Link, path.as_bytes(), target, 0o644, 0, b"");
}

fn device(b: &mut Builder, path: &str, kind: tar::EntryType, major: u32, minor: u32) {
    let mut h = tar::Header::new_gnu();
    h.set_entry_type(kind);
    h.set_mode(0o666);
    h.set_uid(0);
    h.set_gid(0);
    h.set_mtime(0);
    h.set_size(0);
    h.set_device_major(major).unwrap();
    h.set_device_minor(minor).unwrap();
    h.set_path(path).unwrap();
    h.set_cksum();
    b.append(&h, &b""[..]).unwrap();
}

/// The files of the tiny system, packed as `tar -C root -c .` would, and then what `more` adds.
fn tiny(more: impl FnOnce(&mut Builder)) -> Vec<u8> {
    let mut b = tar::Builder::new(Vec::new());
    b.follow_symlinks(false);
    let home = Tiny.cached();
    b.append_dir_all(".", home.join(fs::read_link(home.join("current")).unwrap()).join("root")).unwrap();
    more(&mut b);
    b.into_inner().unwrap()
}

fn only(fill: impl FnOnce(&mut Builder)) -> Vec<u8> {
    let mut b = tar::Builder::new(Vec::new());
    fill(&mut b);
    b.into_inner().unwrap()
}

fn packed(kind: &str, bytes: &[u8]) -> Vec<u8> {
    match kind {
        "gz" => {
            let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            e.write_all(bytes).unwrap();
            e.finish().unwrap()
        }
        "xz" => {
            let mut e = liblzma::write::XzEncoder::new(Vec::new(), 0);
            e.write_all(bytes).unwrap();
            e.finish().unwrap()
        }
        "zst" => zstd::encode_all(bytes, 1).unwrap(),
        _ => bytes.to_vec(),
    }
}

/// Puts an archive where vzctl can read it.
fn laid(rig: &Rig, name: &str, bytes: &[u8]) -> String {
    let path = rig.paths.base.join(name);
    fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

/// Everything in the template store, by path, type and size.
fn store(rig: &Rig) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![rig.paths.template_dir()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let meta = entry.metadata().unwrap();
            found.push(format!("{} {:o} {}", entry.path().display(), meta.mode(), meta.size()));
            if meta.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// Processes that unpack for this manager: those that hold something below its root.
fn unpackers(rig: &Rig) -> Vec<String> {
    let vzd = rig.vzd_pid().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let after = stat.rsplit_once(')').map(|(_, r)| r.trim_start().to_owned()).unwrap_or_default();
        let alive = !after.starts_with('Z') && !after.is_empty();
        if alive && line == b"vzd\0unpack\0" && after.split(' ').nth(1) == Some(vzd.as_str()) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

fn import(rig: &Rig, file: &str, name: &str) -> command::Output {
    rig.vzctl(&["template", "import", file, "--name", name])
}

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
fn a_root_somebody_packed_becomes_a_template_whatever_it_is_compressed_with_and_called() {
    let rig = Rig::new(&[]);
    let bytes = tiny(|_| {});
    let mut digests = Vec::new();
    for (kind, called) in [("none", "a.tar.gz"), ("gz", "b.tar"), ("xz", "c.tar.zst"), ("zst", "rootfs")] {
        let path = laid(&rig, called, &packed(kind, &bytes));
        let out = rig.ok(&["template", "import", &path, "--json"]);
        digests.push(out.json()["digest"].as_str().unwrap().to_owned());
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "the same files have the same digest");
    let shown = rig.ok(&["template", "show", "c", "--json"]).json();
    for (key, value) in [
        ("origin", "import"),
        ("init", "busybox"),
        ("distribution", "tiny 1"),
        ("arch", "amd64"),
        ("source", "c.tar.zst"),
    ] {
        assert_eq!(shown[key], value, "{shown}");
    }
    assert_eq!(shown["archive"].as_str().unwrap().len(), 64);
    let text = rig.ok(&["template", "show", "c"]);
    assert!(text.stdout.contains("Imported:") && text.stdout.contains("sha256:"), "{text}");
    let list = rig.ok(&["template", "list"]);
    let row = list.stdout.lines().find(|l| l.starts_with("rootfs ")).unwrap_or_else(|| panic!("{list}"));
    assert!(row.contains("ready") && row.contains("import") && row.contains("tiny 1"), "{row}");
    // It boots, like any other.
    rig.ok(&["create", "101", "--ostemplate", "rootfs", "--ipadd", A]);
    rig.ok(&["start", "101"]);
    rig.wait_console(101, "tiny is up", LONG);
    assert_eq!(
        rig.inside(101, "cat /etc/fstab; stat -c %u:%g:%a /etc/shadow /bin/busybox").lines().last(),
        Some("0:0:755")
    );
    rig.refused(&["template", "remove", "rootfs"], ExitCode::DeleteFailed, "CT 101");
    rig.ok(&["stop", "101", "--fast"]);
    rig.ok(&["destroy", "101"]);
    for name in ["a", "b", "c", "rootfs"] {
        rig.ok(&["template", "remove", name]);
    }
    assert_eq!(store(&rig), [""; 0], "and nothing is left, not even a lock");
}

#[test]
fn an_archive_may_come_by_standard_input_and_needs_a_name_then() {
    let rig = Rig::new(&[]);
    let bytes = packed("gz", &tiny(|_| {}));
    let out = rig.vzctl_with(&["template", "import", "-", "--name", "piped"], &bytes).ok();
    assert!(out.stdout.contains("OS template piped was imported"), "{out}");
    let out = rig.vzctl_with(&["template", "import", "-"], &bytes).expect_code(BadSyntax.code().into());
    assert!(out.stderr.contains("--name"), "{out}");
    rig.refused(&["template", "import", "/nowhere/x.tar"], BadValue, "/nowhere/x.tar");
    let dir = rig.paths.base.display().to_string();
    rig.refused(&["template", "import", &dir, "--name", "dir"], BadValue, "is a directory");
    rig.refused(&["template", "import", "x.tar", "--name", "../x"], BadValue, "../x");
}

#[test]
fn the_same_files_again_are_no_change_and_others_need_replace() {
    let rig = Rig::new(&[]);
    let first = laid(&rig, "one.tar", &tiny(|_| {}));
    let second = laid(&rig, "two.tar", &tiny(|b| file(b, "etc/second", b"2")));
    import(&rig, &first, "web").ok();
    let digest = || rig.ok(&["template", "show", "web", "--json"]).json()["digest"].as_str().unwrap().to_owned();
    let (one, before) = (digest(), store(&rig));
    import(&rig, &first, "web").ok();
    assert_eq!((digest(), store(&rig)), (one.clone(), before.clone()), "repeated");
    let out = import(&rig, &second, "web").expect_code(Exists.code().into());
    assert!(out.stderr.contains("web") && out.stderr.contains("--replace"), "{out}");
    assert_eq!((digest(), store(&rig)), (one.clone(), before), "refused");
    // A container keeps the files it was made from; the next one gets the new ones.
    rig.ok(&["create", "101", "--ostemplate", "web"]);
    rig.ok(&["template", "import", &second, "--name", "web", "--replace"]);
    assert_ne!(digest(), one);
    rig.ok(&["create", "102", "--ostemplate", "web"]);
    for (ctid, has) in [(101, "no"), (102, "yes")] {
        rig.ok(&["start", &ctid.to_string()]);
        rig.wait_console(ctid, "tiny is up", LONG);
        assert_eq!(rig.inside(ctid, "test -e /etc/second && echo yes || echo no"), has, "CT {ctid}");
    }
}

#[test]
fn owners_modes_links_holes_and_capabilities_arrive_as_they_were_packed() {
    let rig = Rig::new(&[]);
    let busybox = fs::read("/bin/busybox").unwrap();
    // CAP_CHOWN, effective, in the form `tar --xattrs` keeps it.
    let capability = [&0x0200_0001u32.to_le_bytes()[..], &1u32.to_le_bytes(), &[0; 12]].concat();
    let bytes = tiny(|b| {
        add(b, tar::EntryType::Regular, b"opt/suid", "", 0o4755, 1234, b"#!/bin/sh\n");
        hard_link(b, "opt/second-name", "opt/suid");
        add(b, tar::EntryType::Regular, b"opt/odd-\xff\xfe", "", 0o600, 0, b"raw");
        add(b, tar::EntryType::Fifo, b"opt/fifo", "", 0o620, 5, b"");
        link(b, "opt/dangling", "../../../../etc/shadow");
        device(b, "dev/null", tar::EntryType::Char, 1, 3);
        b.append_pax_extensions([("SCHILY.xattr.security.capability", capability.as_slice())]).unwrap();
        add(b, tar::EntryType::Regular, b"opt/chown", "", 0o755, 0, &busybox);
        b.append_pax_extensions([("SCHILY.xattr.user.note", &b"a\nb"[..])]).unwrap();
        file(b, "opt/noted", b"");
        let map = b"0,3,5000000,2";
        b.append_pax_extensions([("GNU.sparse.size", &b"9000000"[..]), ("GNU.sparse.map", map)]).unwrap();
        file(b, "opt/sparse", b"abcde");
    });
    let path = laid(&rig, "x.tar", &bytes);
    let out = rig.ok(&["template", "import", &path, "--name", "full", "--verbose"]);
    assert!(out.stdout.contains("1 device nodes were left out"), "{out}");
    let digest = rig.ok(&["template", "show", "full", "--json"]).json()["digest"].as_str().unwrap()[..12].to_owned();
    let root = rig.paths.template_dir().join("full").join(digest).join("root");
    let at = |p: &str| fs::symlink_metadata(root.join(p)).unwrap();
    assert_eq!((at("opt/suid").uid(), at("opt/suid").mode() & 0o7777, at("opt/suid").nlink()), (1234, 0o4755, 2));
    assert_eq!((at("opt/fifo").gid(), at("opt/fifo").mode() & 0o7777), (5, 0o620));
    assert_eq!(at("opt/suid").mtime(), 1_700_000_000);
    assert_eq!(fs::read_link(root.join("opt/dangling")).unwrap(), Path::new("../../../../etc/shadow"));
    assert!(at("opt/sparse").len() == 9_000_000 && at("opt/sparse").blocks() < 100);
    let mut note = [0u8; 8];
    let n = rustix::fs::getxattr(root.join("opt/noted"), "user.note", &mut note[..]).unwrap();
    assert_eq!(&note[..n], b"a\nb");
    rig.ok(&["create", "101", "--ostemplate", "full"]);
    rig.ok(&["start", "101"]);
    rig.wait_console(101, "tiny is up", LONG);
    assert_eq!(rig.inside(101, "stat -c %u:%a:%h /opt/suid"), "1234:4755:2");
    // Somebody who is not root may change owners with this program, by its capability alone.
    let line = "touch /tmp/f; chown 65534 /tmp/f; su -s /bin/sh nobody -c '/opt/chown 7 /tmp/f'; stat -c %u /tmp/f";
    assert_eq!(rig.inside(101, line), "7");
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

/// Imports a Debian made without us, boots it, and logs in.
fn boots(tarball: Tarball) {
    let rig = Rig::new(&[]);
    let identity = Identity::new(&rig.paths.base);
    let path = tarball.cached().display().to_string();
    let mut c = rig.vzctl_command(&["template", "import", &path, "--name", "theirs", "--json"]);
    let made = command::run(&mut c, None, Duration::from_secs(240)).unwrap().ok().json();
    assert_eq!((made["distribution"].as_str(), made["init"].as_str()), (Some("debian 12"), Some("systemd")), "{made}");
    let key = identity.public().display().to_string();
    for (ctid, ip, name) in [("101", A, "one.example.org"), ("102", "10.99.0.2", "two.example.org")] {
        rig.ok(&["create", ctid, "--ostemplate", "theirs", "--ipadd", ip, "--hostname", name]);
        rig.ok(&["set", ctid, "--sshkey", &key]);
        rig.ok(&["start", ctid, "--wait"]);
    }
    let failed = rig.inside(101, "systemctl --failed --plain --no-legend");
    assert_eq!(failed, "", "failed units\n{}", rig.inside(101, "journalctl -b -p warning --no-pager | tail -40"));
    assert_eq!(rig.inside(101, "systemctl is-system-running"), "running");
    rig.wait_console(101, "one login:", LONG);
    let out = identity.run(&rig.host, "root", A, "hostname; cat /proc/1/comm; cat /etc/machine-id").ok();
    let lines: Vec<&str> = out.text().lines().collect();
    assert_eq!(lines[..2], ["one.example.org", "systemd"]);
    // Two of them are two machines.
    let other = identity.run(&rig.host, "root", "10.99.0.2", "cat /etc/machine-id").ok();
    assert!(lines[2].len() == 32 && other.text() != lines[2], "{out}{other}");
    let keys = |ctid| rig.inside(ctid, "cat /etc/ssh/ssh_host_ed25519_key.pub");
    assert_ne!(keys(101), keys(102));
    let begun = Instant::now();
    rig.ok(&["stop", "101"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "stopped after {:?}", begun.elapsed());
}

#[test]
fn a_debootstrapped_debian_boots() {
    boots(Tarball::Debootstrap);
}

#[test]
fn an_mmdebstrapped_debian_boots() {
    boots(Tarball::Mmdebstrap);
}

#[test]
fn a_debian_with_sysvinit_is_recognised_and_boots() {
    let rig = Rig::new(&[]);
    let identity = Identity::new(&rig.paths.base);
    let path = Tarball::Sysvinit.cached().display().to_string();
    let made = rig.ok(&["template", "import", &path, "--json"]).json();
    assert_eq!((made["name"].as_str(), made["init"].as_str()), (Some("sysvinit"), Some("sysvinit")), "{made}");
    rig.ok(&["create", "101", "--ostemplate", "sysvinit", "--ipadd", A, "--hostname", "one.example.org"]);
    rig.ok(&["set", "101", "--sshkey", &identity.public().display().to_string()]);
    rig.ok(&["start", "101", "--wait"]);
    rig.wait_console(101, "one login:", LONG);
    let out = identity.run(&rig.host, "root", A, "hostname; cat /proc/1/comm; runlevel").ok();
    assert_eq!(out.text(), "one.example.org\ninit\nN 2");
    let begun = Instant::now();
    rig.ok(&["stop", "101"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "stopped after {:?}", begun.elapsed());
}

#[test]
fn a_client_that_goes_away_takes_its_import_along() {
    let rig = Rig::new(&[]);
    let before = store(&rig);
    let bytes = tiny(|b| file(b, "large", &vec![5; 4 << 20]));
    let mut c = rig.vzctl_command(&["template", "import", "-", "--name", "web"]);
    let mut child = c.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&bytes[..bytes.len() / 2]).unwrap();
    let staging = rig.paths.template_dir().join(".staging");
    let begun = wait::in_dir(&rig.paths.template_dir(), LONG, || staging.exists().then_some(())).unwrap();
    assert!(begun.is_some(), "it never began");
    // The name is taken for that time.
    let path = laid(&rig, "x.tar", &tiny(|_| {}));
    rig.refused(&["template", "import", &path, "--name", "web"], ExitCode::Locked, "web");
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = wait::in_dir(&rig.paths.template_dir(), LONG, || (!staging.exists()).then_some(())).unwrap();
    assert!(gone.is_some(), "left: {:#?}\n{}", store(&rig), rig.vzd_log(20));
    assert_eq!(store(&rig), before);
    assert_eq!(unpackers(&rig), [""; 0]);
    import(&rig, &path, "web").ok();
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
fn devices_can_be_left_out_on_request() {
    let rig = Rig::new(&[]);
    let path = laid(&rig, "x.tar", &tiny(|b| device(b, "dev/loop0", tar::EntryType::Block, 7, 0)));
    let out = import(&rig, &path, "web").expect_code(BadTemplate.code().into());
    assert!(out.stderr.contains("dev/loop0") && out.stderr.contains("--skip-devices"), "{out}");
    let out = rig.ok(&["template", "import", &path, "--name", "web", "--skip-devices", "--description", "mine"]);
    assert!(out.stdout.contains("mine"), "{out}");
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
    let fds: Vec<PathBuf> =
        fs::read_dir(worker.join("fd")).unwrap().flatten().map(|e| fs::read_link(e.path()).unwrap()).collect();
    assert!(fds.len() <= 7, "{fds:?}");
    pipe.write_all(&bytes[bytes.len() - 600..]).unwrap();
    drop(pipe);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_recipe_that_cannot_be_built_says_why_and_registers_nothing() {
    let rig = Rig::new(&[]);
    let before = store(&rig);
    fs::create_dir_all(rig.paths.recipe_dir()).unwrap();
    let recipe = |name: &str, text: &str| fs::write(rig.paths.recipe_dir().join(format!("{name}.toml")), text).unwrap();
    recipe("odd", "description = 'x'\nsuite = 'bookworm'\ninit = 'systemd'\npakages = ['sudo']\n");
    let out = rig.refused(&["template", "build", "odd"], BadConfig, "pakages");
    assert!(out.stderr.contains("odd.toml") && out.stderr.contains("line 4"), "{out}");
    recipe("far", "description = 'x'\nsuite = 'bookworm'\ninit = 'systemd'\nmirror = 'http://127.0.0.1:9/debian'\n");
    let out = rig.refused(&["template", "build", "far"], System, "http://127.0.0.1:9/debian");
    assert!(out.stderr.contains("cannot be reached") && out.stderr.contains("last lines"), "{out}");
    assert!(out.stderr.contains("template-far.log"), "{out}");
    assert_eq!(store(&rig), before, "nothing is half registered");
    let list = rig.ok(&["template", "list", "--json"]).json();
    let far = list.as_array().unwrap().iter().find(|t| t["name"] == "far").unwrap().clone();
    assert_eq!(far["status"], "recipe", "{far}");
}

#[test]
fn a_store_is_nobody_elses_to_look_into() {
    let rig = Rig::new(&[]);
    let path = laid(&rig, "x.tar", &tiny(|b| add(b, tar::EntryType::Directory, b".", "", 0o777, 0, b"")));
    import(&rig, &path, "web").ok();
    let home = rig.paths.template_dir().join("web");
    assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o077, 0, "a set-uid file in it is the host's");
}
