//! The extractor without its confinement: what it makes, and what it refuses. As root the owners are those of the archive,
//! because nothing shifts them here; that they are shifted right is the black-box suite's to see.

use super::*;
use proptest::prelude::*;
use std::{
    io::{Seek, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

type Builder = tar::Builder<Vec<u8>>;

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut h = tar::Header::new_gnu();
    h.set_entry_type(kind);
    h.set_mode(mode);
    h.set_size(size);
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    h.set_uid(uid.into());
    h.set_gid(gid.into());
    h.set_mtime(1000);
    h
}

/// A path as it is, whatever the tar crate thinks of it.
fn name(h: &mut tar::Header, path: &str) {
    h.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
}

fn add(b: &mut Builder, kind: tar::EntryType, path: &str, target: &str, data: &[u8]) {
    let mut h = header(kind, 0o755, data.len() as u64);
    name(&mut h, path);
    h.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
    h.set_cksum();
    b.append(&h, data).unwrap();
}

fn file(b: &mut Builder, path: &str, data: &[u8]) {
    add(b, tar::EntryType::Regular, path, "", data);
}

const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 100, by_disk: false };

fn unpack(bytes: &[u8], root: &Path, limits: Limits, skip_devices: bool) -> Result<Event, Failure> {
    let mut f = tempfile::tempfile().unwrap();
    f.write_all(bytes).unwrap();
    f.rewind().unwrap();
    let fd = fs::open(root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let plan = Plan { root: root.into(), limits, skip_devices };
    run(&plan, f, fd, &mut |_| {})
}

/// Unpacks what `fill` packs below `base/root`.
fn attempt(base: &Path, fill: impl FnOnce(&mut Builder)) -> Result<Event, Failure> {
    let root = base.join("root");
    std::fs::create_dir(&root).unwrap();
    let mut b = tar::Builder::new(Vec::new());
    fill(&mut b);
    unpack(&b.into_inner().unwrap(), &root, LIMITS, false)
}

#[test]
fn an_ordinary_archive_becomes_what_it_describes() {
    let dir = tempfile::tempdir().unwrap();
    let done = attempt(dir.path(), |b| {
        add(b, tar::EntryType::Directory, "./", "", b"");
        add(b, tar::EntryType::Directory, "./sub/", "", b"");
        file(b, "./sub/f", b"first");
        file(b, "./sub/f", b"again");
        add(b, tar::EntryType::Link, "hard", "sub/f", b"");
        add(b, tar::EntryType::Symlink, "soft", "/etc/../sub/f", b"");
        add(b, tar::EntryType::Fifo, "fifo", "", b"");
        file(b, "made/on/the/way", b"x");
        file(b, "odd\x01\u{fc}", b"y");
    });
    let Event::Done { entries, notes, compression } = done.unwrap() else { panic!() };
    assert_eq!((entries, notes.len(), compression.as_str()), (9, 0, "none"));
    let root = dir.path().join("root");
    assert_eq!(std::fs::read(root.join("hard")).unwrap(), b"again");
    assert_eq!(std::fs::metadata(root.join("sub/f")).unwrap().nlink(), 2);
    assert_eq!(std::fs::read_link(root.join("soft")).unwrap(), Path::new("/etc/../sub/f"));
    assert_eq!(std::fs::symlink_metadata(root.join("fifo")).unwrap().mode() & 0o177777, 0o010755);
    assert_eq!(std::fs::metadata(root.join("sub")).unwrap().mtime(), 1000, "although files were made in it");
    assert_eq!(std::fs::metadata(root.join("made/on")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(std::fs::read(root.join("odd\x01\u{fc}")).unwrap(), b"y");
}

#[test]
fn sparse_files_stay_sparse() {
    let dir = tempfile::tempdir().unwrap();
    attempt(dir.path(), |b| {
        let mut h = header(tar::EntryType::GNUSparse, 0o644, 4);
        name(&mut h, "sparse");
        let gnu = h.as_gnu_mut().unwrap();
        gnu.sparse[0].set_offset(600_000);
        gnu.sparse[0].set_length(4);
        gnu.set_real_size(1_000_000);
        h.set_cksum();
        b.append(&h, &b"data"[..]).unwrap();
    })
    .unwrap();
    let f = dir.path().join("root/sparse");
    let meta = std::fs::metadata(&f).unwrap();
    assert!(meta.len() == 1_000_000 && meta.blocks() < 100, "{} blocks", meta.blocks());
    assert_eq!(&std::fs::read(&f).unwrap()[600_000..600_004], b"data");
}

/// What is packed, and what the refusal must say, besides the entry's name `evil`.
type Hostile = (&'static str, fn(&mut Builder), &'static str);

const HOSTILE: &[Hostile] = &[
    ("/evil", |b| file(b, "/evil", b""), "absolute"),
    ("../evil", |b| file(b, "../evil", b""), "`..`"),
    ("a/../../evil", |b| file(b, "a/../../evil", b""), "`..`"),
    (
        "link/evil",
        |b| {
            add(b, tar::EntryType::Symlink, "link", "/etc", b"");
            file(b, "link/evil", b"");
        },
        "through link, which is a symbolic link",
    ),
    (
        "a/link/evil",
        |b| {
            add(b, tar::EntryType::Symlink, "a/link", "../..", b"");
            add(b, tar::EntryType::Directory, "a/link/evil", "", b"");
        },
        "through a/link, which is a symbolic link",
    ),
    (
        "evil",
        |b| {
            add(b, tar::EntryType::Directory, "evil", "", b"");
            add(b, tar::EntryType::Symlink, "evil", "/etc", b"");
        },
        "an earlier entry of the same name is a directory",
    ),
    (
        "evil",
        |b| {
            add(b, tar::EntryType::Symlink, "evil", "/etc/passwd", b"");
            file(b, "evil", b"root::0:0");
        },
        "an earlier entry of the same name is a symbolic link",
    ),
    ("evil", |b| add(b, tar::EntryType::Link, "evil", "/etc/passwd", b""), "hard link to /etc/passwd"),
    ("evil", |b| add(b, tar::EntryType::Link, "evil", "../../etc/passwd", b""), "hard link to ../../etc/passwd"),
    ("evil", |b| add(b, tar::EntryType::Link, "evil", "nothing", b""), "no earlier entry"),
    (
        "evil",
        |b| {
            add(b, tar::EntryType::Symlink, "out", "/etc", b"");
            add(b, tar::EntryType::Link, "evil", "out/passwd", b"");
        },
        "through out",
    ),
    ("evil", |b| add(b, tar::EntryType::Block, "evil", "", b""), "a block device, 0:0"),
    ("dev/evil", |b| add(b, tar::EntryType::Char, "dev/evil", "", b""), "a character device"),
    (
        "evil",
        |b| {
            let mut h = header(tar::EntryType::Regular, 0o4755, 0);
            h.set_uid(70_000);
            name(&mut h, "evil");
            h.set_cksum();
            b.append(&h, &b""[..]).unwrap();
        },
        "owner 70000",
    ),
    (
        "evil",
        |b| {
            let mut h = header(tar::EntryType::GNUSparse, 0o644, 0);
            name(&mut h, "evil");
            h.as_gnu_mut().unwrap().set_real_size(8 << 60);
            h.set_cksum();
            b.append(&h, &b""[..]).unwrap();
        },
        "exceeds the limit",
    ),
    ("evil", |b| file(b, "evil", &[0; (1 << 20) + 1]), "exceeds the limit"),
    (
        "evil",
        |b| {
            (0..100).for_each(|n| file(b, &format!("{n}"), b""));
            file(b, "evil", b"");
        },
        "more than 100 entries",
    ),
    (
        "evil",
        |b| {
            b.append_pax_extensions([("SCHILY.xattr.trusted.overlay.opaque", &b"y"[..])]).unwrap();
            file(b, "evil", b"");
        },
        "trusted.overlay.opaque",
    ),
    (
        "evil",
        |b| {
            b.append_pax_extensions([("SCHILY.xattr.security.capability", &b"nonsense"[..])]).unwrap();
            file(b, "evil", b"");
        },
        "no known form",
    ),
];

#[test]
fn each_hostile_entry_is_named_and_nothing_is_made_outside() {
    for (entry, fill, word) in HOSTILE {
        let dir = tempfile::tempdir().unwrap();
        let failure = attempt(dir.path(), fill).unwrap_err();
        assert_eq!(failure.blame, Blame::Archive, "{entry}: {failure:?}");
        assert_eq!(failure.entry.as_deref(), Some(*entry), "{failure:?}");
        assert!(failure.why.contains(word), "{entry}: {}", failure.why);
        let outside: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(outside, ["root"], "{entry}");
        assert!(!Path::new("/etc/evil").exists() && !Path::new("/evil").exists());
    }
}

#[test]
fn a_usual_dev_is_left_out_and_every_device_on_request() {
    let node = |b: &mut Builder, path: &str, major, minor| {
        let mut h = header(tar::EntryType::Char, 0o666, 0);
        name(&mut h, path);
        h.set_device_major(major).unwrap();
        h.set_device_minor(minor).unwrap();
        h.set_cksum();
        b.append(&h, &b""[..]).unwrap();
    };
    let dir = tempfile::tempdir().unwrap();
    let done = attempt(dir.path(), |b| {
        node(b, "./dev/null", 1, 3);
        node(b, "./dev/ptmx", 5, 2);
    });
    let Event::Done { notes, .. } = done.unwrap() else { panic!() };
    assert!(notes.len() == 1 && notes[0].starts_with("2 device nodes"), "{notes:?}");
    // Called null, and kernel memory.
    let mut b = tar::Builder::new(Vec::new());
    node(&mut b, "dev/null", 1, 1);
    let bytes = b.into_inner().unwrap();
    let root = dir.path().join("root");
    assert_eq!(unpack(&bytes, &root, LIMITS, false).unwrap_err().entry.as_deref(), Some("dev/null"));
    unpack(&bytes, &root, LIMITS, true).unwrap();
    assert!(!root.join("dev/null").exists());
}

#[test]
fn capabilities_of_another_root_become_this_ones() {
    let three = [&0x0300_0001u32.to_le_bytes()[..], &[7; 16], &100_000u32.to_le_bytes()].concat();
    let two = [&0x0200_0001u32.to_le_bytes()[..], &[7; 16]].concat();
    assert_eq!(for_this_root(&three), Some(two.clone()));
    assert_eq!(for_this_root(&two), Some(two.clone()));
    assert_eq!(for_this_root(&two[..19]), None);
    assert_eq!(for_this_root(&[1; 12]), None);
}

fn some_path() -> impl Strategy<Value = String> {
    let part = prop_oneof![Just("a"), Just("b"), Just(".."), Just("."), Just(""), Just("dev"), Just("null")];
    proptest::collection::vec(part, 0..5).prop_map(|parts| parts.join("/"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever sequence of entries comes: it ends, and the directory beside the root stays as it was.
    #[test]
    fn no_archive_reaches_beside_its_root(
        entries in proptest::collection::vec(
            (proptest::sample::select(&b"01234567L"[..]), some_path(), some_path(), 0usize..700), 0..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("beside"), "untouched").unwrap();
        let before = std::fs::metadata(dir.path().join("beside")).unwrap().ino();
        let result = attempt(dir.path(), |b| {
            for (kind, path, target, size) in &entries {
                let data = vec![b'a'; if b"07".contains(kind) { *size } else { 0 }];
                add(b, tar::EntryType::new(*kind), path, target, &data);
            }
        });
        if let Err(failure) = &result {
            prop_assert!(failure.blame == Blame::Archive, "{:?}", failure);
        }
        let names: std::collections::BTreeSet<_> =
            std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        prop_assert_eq!(names.len(), 2);
        let after = std::fs::metadata(dir.path().join("beside")).unwrap();
        prop_assert!(after.ino() == before && after.nlink() == 1);
        prop_assert_eq!(std::fs::read(dir.path().join("beside")).unwrap(), b"untouched");
    }
}
