//! `vzctl template import`: root filesystems somebody else packed become templates whose containers boot. What cannot be
//! used or is made to do harm is in [`bad`].

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use vz_tests::{Rig, command, proc, ssh::Identity, tarball::Tarball, template::Template::Tiny, wait};
use vz_types::ExitCode::{self, BadConfig, BadSyntax, BadTemplate, BadValue, Exists, System};

const A: &str = "10.99.0.1";
const LONG: Duration = Duration::from_secs(120);

#[path = "import/bad.rs"]
mod bad;
#[path = "import/wrapped.rs"]
mod wrapped;

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
    let mut found = Vec::new();
    for pid in proc::all() {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let child = proc::Stat::of(pid).is_some_and(|s| s.state() != 'Z' && s.parent() == Some(rig.vzd_pid()));
        if child && line == b"vzd\0unpack\0" {
            found.push(pid.to_string());
        }
    }
    found
}

fn import(rig: &Rig, file: &str, name: &str) -> command::Output {
    rig.vzctl(&["template", "import", file, "--name", name])
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

/// As Alpine is: busybox as init, OpenRC (here a script that notes what it is called for), gettys on VTs.
#[test]
fn a_root_like_alpines_boots_with_wait_and_has_a_login_on_its_console() {
    let rig = Rig::new(&[]);
    let archive = tiny(|b| {
        let inittab = "::sysinit:/sbin/openrc sysinit\n::sysinit:/sbin/openrc boot\n::wait:/sbin/openrc default\n\
            tty1::respawn:/sbin/getty 38400 tty1\ntty2::respawn:/sbin/getty 38400 tty2\n::shutdown:/sbin/openrc shutdown\n";
        file(b, "etc/inittab", inittab.as_bytes());
        let openrc = b"#!/bin/sh\nsleep 1\necho $1 >>/run/openrc\n";
        add(b, tar::EntryType::Regular, b"sbin/openrc", "", 0o755, 0, openrc);
        link(b, "sbin/getty", "../bin/busybox");
    });
    import(&rig, &laid(&rig, "alpine-like.tar", &archive), "alpine-like").ok();
    rig.ok(&["create", "101", "--ostemplate", "alpine-like", "--hostname", "one"]);
    let out = rig.ok(&["start", "101", "--wait"]).says("Container has booted");
    assert!(out.took < Duration::from_secs(20), "{out}");
    assert_eq!(rig.inside(101, "cat /run/openrc"), "sysinit\nboot\ndefault");
    rig.wait_console(101, "one login:", LONG);
    assert!(!rig.console_log(101).contains("tty1"), "{}", rig.console_log(101));
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
fn devices_can_be_left_out_on_request() {
    let rig = Rig::new(&[]);
    let path = laid(&rig, "x.tar", &tiny(|b| device(b, "dev/loop0", tar::EntryType::Block, 7, 0)));
    let out = import(&rig, &path, "web").expect_code(BadTemplate.code().into());
    assert!(out.stderr.contains("dev/loop0") && out.stderr.contains("--skip-devices"), "{out}");
    let out = rig.ok(&["template", "import", &path, "--name", "web", "--skip-devices", "--description", "mine"]);
    assert!(out.stdout.contains("mine"), "{out}");
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
    recipe("lacks", "description = 'x'\nsuite = 'bookworm'\n");
    let out = rig.refused(&["template", "build", "lacks"], BadConfig, "missing field `init`");
    assert!(out.stderr.contains("lacks.toml") && !out.stderr.contains("line"), "{out}");
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
