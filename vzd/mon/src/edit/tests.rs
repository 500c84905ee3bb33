//! On directories of our own: no namespace is needed to see what an edit does to hostile files.

use super::*;
use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// `outside` must never change, `root` is the container.
struct Case {
    _dir: tempfile::TempDir,
    root: PathBuf,
    outside: PathBuf,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        for d in [&root.join("etc"), &root.join("root"), &root.join("bin"), &root.join("etc/skel"), &outside] {
            std::fs::create_dir_all(d).unwrap();
        }
        std::fs::write(outside.join("secret"), "secret\n").unwrap();
        let c = Self { _dir: dir, root, outside };
        c.put("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nbob:x:1000:1000::/home/bob:/bin/sh\n", 0o644);
        c.put("etc/group", "root:x:0:\nbob:x:1000:\n", 0o644);
        c.put("etc/gshadow", "root:*::\n", 0o640);
        c.put("etc/shadow", "root:*:19000:0:99999:7:::\nbob:!:19000:0:99999:7:::\n", 0o640);
        c.put("etc/hosts", "127.0.0.1 localhost\n", 0o644);
        c.put("etc/skel/.profile", "# profile\n", 0o644);
        c
    }

    fn put(&self, path: &str, text: &str, mode: u32) {
        let p = self.root.join(path);
        std::fs::create_dir_all(p.parent().unwrap()).unwrap();
        std::fs::write(&p, text).unwrap();
        std::fs::set_permissions(&p, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn get(&self, path: &str) -> String {
        std::fs::read_to_string(self.root.join(path)).unwrap()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn run(&self, edit: FileEdit) -> Result<(), String> {
        self.due(edit, Last::Asked).map(|done| assert_eq!(done, Done::Written))
    }

    fn due(&self, edit: FileEdit, last: Last) -> Result<Done, String> {
        let root = fs::open(&self.root, DIR, Mode::empty()).unwrap();
        let outcome = apply_in(root.as_fd(), &[Due { edit, last }], false);
        let r = match outcome.failed.into_iter().next() {
            None => Ok(outcome.done[0]),
            Some(cause) => Err(cause),
        };
        assert_eq!(std::fs::read_to_string(self.outside.join("secret")).unwrap(), "secret\n", "the host was touched");
        assert_eq!(std::fs::read_dir(&self.outside).unwrap().count(), 1, "the host was touched");
        if r.is_err() {
            assert!(leftovers(&self.root).is_empty(), "{:?}", leftovers(&self.root));
        }
        r
    }
}

fn leftovers(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for e in std::fs::read_dir(dir).unwrap().flatten() {
        if e.file_name().to_string_lossy().contains(".vz") {
            out.push(e.path());
        }
        if e.file_type().unwrap().is_dir() {
            out.extend(leftovers(&e.path()));
        }
    }
    out
}

fn hostname(name: &str) -> FileEdit {
    FileEdit::Hostname { hostname: name.parse().unwrap() }
}
fn password(user: &str) -> FileEdit {
    FileEdit::Password { user: user.parse().unwrap(), hash: "$6$salt$hash".into() }
}
fn keys(user: &str, keys: &[&str]) -> FileEdit {
    FileEdit::SshKeys { user: user.parse().unwrap(), keys: keys.iter().map(|k| k.to_string()).collect() }
}
fn resolver() -> FileEdit {
    FileEdit::Resolver {
        nameservers: vec!["192.0.2.53".parse().unwrap()],
        search: vec!["example.org".parse().unwrap()],
        asked: None,
    }
}
const KEY: &str = "ssh-ed25519 AAAAC3Nz me@there";

/// Every edit with the file it reads or writes.
fn edits() -> Vec<(&'static str, FileEdit)> {
    vec![
        ("etc/hostname", hostname("web1.example.org")),
        ("etc/hosts", hostname("web1.example.org")),
        ("etc/resolv.conf", resolver()),
        ("etc/passwd", password("root")),
        ("etc/shadow", password("root")),
        ("etc/group", password("alice")),
        ("etc/gshadow", password("alice")),
        ("etc/passwd", keys("root", &[KEY])),
        ("root/.ssh/authorized_keys", keys("root", &[KEY])),
    ]
}

#[test]
fn each_edit_does_its_work() {
    let c = Case::new();
    for (_, edit) in edits() {
        c.run(edit).unwrap();
    }
    assert_eq!(c.get("etc/hostname"), "web1.example.org\n");
    assert_eq!(c.get("etc/hosts"), "127.0.0.1 localhost\n127.0.1.1 web1.example.org web1\n");
    assert!(c.get("etc/resolv.conf").ends_with("search example.org\nnameserver 192.0.2.53\n"));
    assert!(c.get("etc/shadow").starts_with("root:$6$salt$hash:"));
    assert!(c.get("etc/shadow").contains("\nbob:!:19000:"));
    assert_eq!(std::fs::metadata(c.path("etc/shadow")).unwrap().mode() & 0o7777, 0o640);
    assert!(c.get("etc/passwd").ends_with("\nalice:x:1001:1001::/home/alice:/bin/sh\n"));
    assert!(c.get("etc/group").ends_with("\nalice:x:1001:\n") && c.get("etc/gshadow").ends_with("\nalice:!::\n"));
    let home = std::fs::metadata(c.path("home/alice")).unwrap();
    assert_eq!((home.uid(), home.gid(), home.mode() & 0o7777), (1001, 1001, 0o700));
    assert_eq!(std::fs::metadata(c.path("home/alice/.profile")).unwrap().uid(), 1001);
    assert_eq!(c.get("root/.ssh/authorized_keys"), format!("{KEY}\n"));
    assert_eq!(std::fs::metadata(c.path("root/.ssh")).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(std::fs::metadata(c.path("root/.ssh/authorized_keys")).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn repeating_an_edit_changes_nothing_on_disk() {
    let c = Case::new();
    for edit in [hostname("a"), resolver(), keys("root", &[KEY, KEY])] {
        c.run(edit.clone()).unwrap();
        let before: Vec<u64> =
            ["etc/hostname", "etc/hosts"].iter().map(|f| std::fs::metadata(c.path(f)).unwrap().ino()).collect();
        c.run(edit).unwrap();
        let after: Vec<u64> =
            ["etc/hostname", "etc/hosts"].iter().map(|f| std::fs::metadata(c.path(f)).unwrap().ino()).collect();
        assert_eq!(before, after);
    }
    assert_eq!(c.get("root/.ssh/authorized_keys"), format!("{KEY}\n"));
}

#[test]
fn symlinks_fifos_directories_hardlinks_and_huge_files_are_refused_or_harmless() {
    for (file, edit) in edits() {
        for trap in
            ["absolute link", "relative link", "dangling link", "fifo", "directory", "hardlink", "huge", "parent link"]
        {
            let c = Case::new();
            let p = c.path(file);
            std::fs::create_dir_all(p.parent().unwrap()).unwrap();
            if trap != "parent link" {
                let _ = std::fs::remove_file(&p);
            }
            match trap {
                "absolute link" => symlink(c.outside.join("secret"), &p).unwrap(),
                "relative link" => symlink("../../outside/secret", &p).unwrap(),
                "dangling link" => symlink(c.outside.join("new"), &p).unwrap(),
                "fifo" => fs::mknodat(fs::CWD, &p, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap(),
                "directory" => std::fs::create_dir(&p).unwrap(),
                "hardlink" => std::fs::hard_link(c.outside.join("secret"), &p).unwrap(),
                "huge" => File::create(&p).unwrap().set_len(1 << 40).unwrap(),
                _ => {
                    let parent = p.parent().unwrap();
                    std::fs::rename(parent, c.root.join("moved")).unwrap();
                    symlink(&c.outside, parent).unwrap();
                }
            }
            let r = c.run(edit.clone());
            let whole = file == "etc/resolv.conf" || file == "etc/hostname";
            // A file written as a whole takes the place of a link, of other names' content and of any size.
            let harmless =
                whole && ["absolute link", "relative link", "dangling link", "hardlink", "huge"].contains(&trap);
            assert_eq!(r.is_ok(), harmless, "{file} {trap}: {r:?}");
            if let Err(e) = r {
                assert!(trap == "parent link" || e.contains(&format!("/{file}")), "{file} {trap}: {e}");
            }
        }
    }
}

#[test]
fn a_users_link_does_not_make_root_write_elsewhere() {
    let c = Case::new();
    std::fs::create_dir_all(c.path("home/bob")).unwrap();
    std::fs::create_dir_all(c.path("root/.ssh")).unwrap();
    symlink("/root/.ssh", c.path("home/bob/.ssh")).unwrap();
    let e = c.run(keys("bob", &[KEY])).unwrap_err();
    assert!(e.contains("/home/bob/.ssh is a symbolic link"), "{e}");
    assert!(!c.path("root/.ssh/authorized_keys").exists());
    std::fs::remove_file(c.path("home/bob/.ssh")).unwrap();
    c.run(keys("bob", &[KEY])).unwrap();
    assert_eq!(std::fs::metadata(c.path("home/bob/.ssh/authorized_keys")).unwrap().uid(), 1000);
}

#[test]
fn odd_account_files_keep_their_odd_lines() {
    let c = Case::new();
    c.put("etc/passwd", "root:x:0:0:root:/root:/bin/bash\r\n\n::::\nnocolon\n+::::::\nrootkit:x:0:0::/:/bin/sh", 0o644);
    c.put("etc/shadow", "rootkit:*:1:\nroot:!!\r\n\n#comment", 0o600);
    c.run(password("root")).unwrap();
    let shadow = c.get("etc/shadow");
    let lines: Vec<&str> = shadow.lines().collect();
    assert_eq!(lines[0], "rootkit:*:1:");
    assert!(lines[1].starts_with("root:$6$salt$hash:") && lines[1].matches(':').count() == 8, "{}", lines[1]);
    assert_eq!(&lines[2..], ["", "#comment"]);
    c.run(password("carol")).unwrap();
    let passwd = c.get("etc/passwd");
    assert!(passwd.ends_with("rootkit:x:0:0::/:/bin/sh\ncarol:x:1001:1001::/home/carol:/bin/sh\n"), "{passwd}");
}

#[test]
fn without_shadow_the_hash_goes_into_passwd() {
    let c = Case::new();
    std::fs::remove_file(c.path("etc/shadow")).unwrap();
    c.run(password("root")).unwrap();
    assert!(c.get("etc/passwd").starts_with("root:$6$salt$hash:0:0:"));
    assert!(!c.path("etc/shadow").exists());
}

#[test]
fn hosts_gets_one_own_line_wherever_it_was() {
    for (old, new) in [
        ("", "127.0.0.1 localhost\n127.0.1.1 a\n::1 localhost ip6-localhost ip6-loopback\n"),
        ("127.0.0.1\tlocalhost", "127.0.0.1\tlocalhost\n127.0.1.1 a\n"),
        ("127.0.1.1 old\n# c\n127.0.1.1 older\n127.0.0.1 localhost\n", "127.0.1.1 a\n# c\n127.0.0.1 localhost\n"),
        ("10.0.0.1 x\n", "10.0.0.1 x\n127.0.1.1 a\n"),
    ] {
        assert_eq!(String::from_utf8(accounts::hosts(old.as_bytes(), "a")).unwrap(), new, "{old:?}");
    }
}

#[test]
fn a_held_account_lock_ends_in_an_error_and_not_in_a_wait_for_ever() {
    let c = Case::new();
    // A lock of this process would not exclude itself; an open file description's does.
    let holder = File::create(c.path("etc/.pwd.lock")).unwrap();
    let lock =
        libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    nix::fcntl::fcntl(&holder, nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    let e = c.run(password("root")).unwrap_err();
    drop(holder);
    assert!(e.contains(".pwd.lock"), "{e}");
    c.run(password("root")).unwrap();
}

#[test]
fn hashes_and_keys_that_would_add_lines_are_refused() {
    let c = Case::new();
    for hash in ["", "a:b", "a\nroot::0:0:::", "é"] {
        assert!(c.run(FileEdit::Password { user: "root".parse().unwrap(), hash: hash.into() }).is_err(), "{hash:?}");
    }
    for key in ["", "ssh-ed25519", "ssh-ed25519 AAAA\nssh-rsa BBBB x"] {
        assert!(c.run(keys("root", &[key])).is_err(), "{key:?}");
    }
}

/// What vz wrote last, were it this edit's.
fn was(edit: &FileEdit) -> Last {
    Last::Was(Entry::of(edit))
}

#[test]
fn a_file_is_the_tenants_once_he_has_changed_it_and_until_the_setting_is_another() {
    let inherited = |at: &str| FileEdit::Resolver {
        nameservers: vec![at.parse().unwrap()],
        search: Vec::new(),
        asked: Some("nameserver inherit\n".into()),
    };
    for (file, first, again, other) in [
        ("etc/hostname", hostname("a"), hostname("a"), hostname("b")),
        ("etc/resolv.conf", inherited("192.0.2.1"), inherited("192.0.2.9"), resolver()),
    ] {
        let c = Case::new();
        c.put(file, "of the template\n", 0o644);
        let text = |edit: &FileEdit| Entry::of(edit).unwrap().text;
        assert_eq!(c.due(first.clone(), Last::Was(None)), Ok(Done::Written), "{file}: never written before");
        assert_eq!(c.get(file), text(&first));
        assert_eq!(c.due(again.clone(), was(&first)), Ok(Done::Written), "{file}: still exactly ours");
        assert_eq!(c.get(file), text(&again));
        std::fs::remove_file(c.path(file)).unwrap();
        assert_eq!(c.due(again.clone(), was(&again)), Ok(Done::Written), "{file}: gone");
        assert_eq!(c.get(file), text(&again));
        for own in ["", "his own\n"] {
            c.put(file, own, 0o644);
            for last in [was(&again), Last::Unreadable] {
                assert_eq!(c.due(again.clone(), last), Ok(Done::Kept), "{file}");
                assert_eq!(c.get(file), own);
            }
        }
        for last in [was(&again), Last::Was(None), Last::Asked] {
            c.put(file, "his own\n", 0o644);
            let asked_anew = matches!(last, Last::Asked);
            let edit = if asked_anew { again.clone() } else { other.clone() };
            assert_eq!(c.due(edit.clone(), last), Ok(Done::Written), "{file}: another setting, or asked for now");
            assert_eq!(c.get(file), text(&edit));
        }
        // A link is what systemd-resolved and its like put there; a trap of any kind is the tenant's as well.
        for trap in ["link", "fifo", "directory", "hardlink"] {
            std::fs::remove_file(c.path(file)).or_else(|_| std::fs::remove_dir(c.path(file))).unwrap();
            match trap {
                "link" => symlink("../run/systemd/resolve/stub-resolv.conf", c.path(file)).unwrap(),
                "fifo" => fs::mknodat(fs::CWD, c.path(file), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap(),
                "directory" => std::fs::create_dir(c.path(file)).unwrap(),
                _ => std::fs::hard_link(c.outside.join("secret"), c.path(file)).unwrap(),
            }
            assert_eq!(c.due(again.clone(), was(&again)), Ok(Done::Kept), "{file} {trap}");
        }
    }
}

#[test]
fn a_line_of_hosts_that_the_tenant_took_out_comes_back_with_another_name_only() {
    let c = Case::new();
    c.due(hostname("a"), Last::Was(None)).unwrap();
    assert!(c.get("etc/hosts").contains("127.0.1.1 a\n"));
    c.put("etc/hosts", "127.0.0.1 localhost\n", 0o644);
    c.due(hostname("a"), was(&hostname("a"))).unwrap();
    assert_eq!(c.get("etc/hosts"), "127.0.0.1 localhost\n");
    c.due(hostname("b"), was(&hostname("a"))).unwrap();
    assert_eq!(c.get("etc/hosts"), "127.0.0.1 localhost\n127.0.1.1 b\n");
    std::fs::remove_file(c.path("etc/hosts")).unwrap();
    c.due(hostname("b"), was(&hostname("b"))).unwrap();
    assert!(c.get("etc/hosts").contains("127.0.1.1 b\n"));
}

#[test]
fn who_takes_resolv_conf_over_finds_the_servers_below_run_and_no_link_leads_out() {
    let c = Case::new();
    for dir in ["run", "usr/lib/systemd"] {
        std::fs::create_dir_all(c.path(dir)).unwrap();
    }
    symlink(&c.outside, c.path("run/dnsmasq")).unwrap();
    c.put("etc/resolv.conf", "nameserver 9.9.9.9\n", 0o644);
    assert_eq!(c.due(resolver(), was(&resolver())), Ok(Done::Kept), "the tenant's own file, and yet");
    let plain = "search example.org\nnameserver 192.0.2.53\n";
    assert_eq!(c.get("run/resolvconf/interface/venet0.vz"), plain);
    assert_eq!(c.get("run/resolvconf/interfaces/venet0.vz"), plain);
    assert!(
        c.get("run/systemd/resolved.conf.d/vz.conf").ends_with("\n[Resolve]\nDNS=192.0.2.53\nDomains=example.org\n")
    );
}

#[test]
fn before_a_boot_one_file_in_the_way_keeps_no_other_from_being_written() {
    let c = Case::new();
    std::fs::create_dir(c.path("etc/hostname")).unwrap();
    let root = fs::open(&c.root, DIR, Mode::empty()).unwrap();
    let due = [hostname("a"), resolver()].map(|edit| Due { edit, last: Last::Was(None) });
    let outcome = apply_in(root.as_fd(), &due, true);
    assert_eq!(outcome.done, [Done::Failed, Done::Written]);
    assert!(outcome.failed.len() == 1 && outcome.failed[0].contains("/etc/hostname is a directory"), "{outcome:?}");
    assert!(c.path("etc/resolv.conf").exists());
}

#[test]
fn a_host_name_of_the_tenants_own_is_read_as_init_reads_it() {
    for (text, name) in
        [("# c\n\n web.example \nother\n", Some("web.example")), ("", None), ("a b\n", None), ("\u{fc}\n", None)]
    {
        assert_eq!(own_name(text.as_bytes()).map(|n| n.to_string()).as_deref(), name, "{text:?}");
    }
    assert_eq!(own_name(b"\xff\n"), None);
}

proptest::proptest! {
    #[test]
    fn whatever_is_in_the_files_other_lines_survive(text in "[a-c:x0-9#\\r\\n ]{0,120}", tail in proptest::bool::ANY) {
        let mut text = text;
        if tail && !text.is_empty() { text.push('\n'); }
        let out = accounts::with_shadow(text.as_bytes(), "root", "H", 5);
        let kept = |t: &[u8]| t.split(|b| *b == b'\n').filter(|l| !l.is_empty() && !l.starts_with(b"root:")).map(<[u8]>::to_vec).collect::<Vec<_>>();
        proptest::prop_assert_eq!(kept(text.as_bytes()), kept(&out));
        proptest::prop_assert!(String::from_utf8(out).unwrap().contains("root:H:5:"));
        let hosts = accounts::hosts(text.as_bytes(), "name");
        proptest::prop_assert_eq!(accounts::hosts(&hosts, "name"), hosts.clone());
        proptest::prop_assert_eq!(String::from_utf8(hosts).unwrap().matches("127.0.1.1").count(), 1);
    }
}
