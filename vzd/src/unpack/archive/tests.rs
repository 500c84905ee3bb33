//! Archives made here, read back.

use super::*;
use proptest::prelude::*;
use std::{
    fs::File,
    io::{Seek, Write},
};

fn archive(bytes: &[u8]) -> Result<Archive, Trouble> {
    let mut f: File = tempfile::tempfile().unwrap();
    f.write_all(bytes).unwrap();
    f.rewind().unwrap();
    Input::open(f).map(Archive::new)
}

fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, Bad> {
    let mut a = archive(bytes).map_err(|trouble| Bad { at: 0, path: None, trouble })?;
    let mut out = Vec::new();
    while let Some(e) = a.next()? {
        let mut data = Vec::new();
        let mut buffer = [0u8; 1000];
        loop {
            match a.data(&mut buffer)? {
                0 => break,
                n => data.extend_from_slice(&buffer[..n]),
            }
        }
        out.push((e, data));
    }
    Ok(out)
}

/// One block with these fields and a right checksum.
fn block(kind: u8, path: &str, size: u64) -> Vec<u8> {
    let mut h = Header::new_gnu();
    h.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    h.set_entry_type(tar::EntryType::new(kind));
    h.set_mode(0o644);
    h.set_uid(0);
    h.set_gid(0);
    h.set_mtime(5);
    h.set_size(size);
    h.set_cksum();
    h.as_bytes().to_vec()
}

fn data(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.resize(bytes.len() + padding(bytes.len() as u64) as usize, 0);
    out
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        body.extend_from_slice(format!("{length} {key}=").as_bytes());
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    [block(b'x', "pax", body.len() as u64), data(&body)].concat()
}

fn archive_of(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), vec![0u8; 1024]].concat()
}

#[test]
fn long_names_and_binary_attributes_arrive_whole() {
    let long = "d/".repeat(200) + "f";
    let name = [block(b'L', "././@LongLink", long.len() as u64 + 1), data(format!("{long}\0").as_bytes())].concat();
    let got = read(&archive_of(&[name, block(b'0', "short", 3), data(b"abc")])).unwrap();
    assert_eq!((got[0].0.path.as_slice(), got[0].1.as_slice()), (long.as_bytes(), &b"abc"[..]));
    let records: &[(&str, &[u8])] =
        &[("path", b"p\xff"), ("SCHILY.xattr.user.x", b"a\nb=\0"), ("mtime", b"7.25"), ("uid", b"70000")];
    let got = read(&archive_of(&[pax(records), block(b'0', "short", 0)])).unwrap();
    let e = &got[0].0;
    assert_eq!((e.path.as_slice(), e.uid, e.mtime), (&b"p\xff"[..], 70000, (7, 250_000_000)));
    assert_eq!(e.xattrs, [(b"user.x".to_vec(), b"a\nb=\0".to_vec())]);
}

#[test]
fn every_form_of_a_sparse_file_has_the_same_pieces() {
    let map = b"2\n0\n3\n1000\n2\n";
    let new = [
        pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"2000"), ("GNU.sparse.name", b"f")]),
        block(b'0', "GNUSparseFile.0/f", 512 + 5),
        data(map),
        data(b"abcde"),
    ];
    let middle = [
        pax(&[("GNU.sparse.size", b"2000"), ("GNU.sparse.map", b"0,3,1000,2"), ("path", b"f")]),
        block(b'0', "x", 5),
        data(b"abcde"),
    ];
    let mut old = Header::new_gnu();
    old.as_mut_bytes().copy_from_slice(&block(b'S', "f", 5));
    let gnu = old.as_gnu_mut().unwrap();
    gnu.sparse[0].set_offset(0);
    gnu.sparse[0].set_length(3);
    gnu.sparse[1].set_offset(1000);
    gnu.sparse[1].set_length(2);
    gnu.set_real_size(2000);
    old.set_cksum();
    let old = [old.as_bytes().to_vec(), data(b"abcde")];
    for parts in [&new[..], &middle[..], &old[..]] {
        let got = read(&archive_of(parts)).unwrap();
        assert_eq!(got.len(), 1);
        let (e, bytes) = &got[0];
        assert_eq!((e.path.as_slice(), e.size, e.stored), (&b"f"[..], 2000, 5));
        assert_eq!(e.pieces, Some(vec![(0, 3), (1000, 2)]));
        assert_eq!(bytes, b"abcde");
    }
    for map in [&b"0,3,2,2"[..], b"0,3,1999,2", b"0,3", b"0,18446744073709551615,5,2"] {
        let parts =
            [pax(&[("GNU.sparse.size", b"2000"), ("GNU.sparse.map", map)]), block(b'0', "f", 5), data(b"abcde")];
        let e = read(&archive_of(&parts)).unwrap_err();
        assert!(e.trouble.why.contains("sparse") && e.path.as_deref() == Some(b"f"), "{}", e.trouble.why);
    }
}

#[test]
fn truncation_anywhere_names_the_entry_or_the_one_before() {
    let good = archive_of(&[block(b'0', "first", 600), data(&[1; 600]), block(b'0', "second", 600), data(&[2; 600])]);
    assert_eq!(read(&good).unwrap().len(), 2);
    for cut in (512..good.len() - 1023).step_by(100) {
        let e = read(&good[..cut]).unwrap_err();
        assert!(e.trouble.why.contains("truncated"), "{cut}: {}", e.trouble.why);
        let path = String::from_utf8(e.path.unwrap()).unwrap();
        // A header that is cut off has no name of its own yet.
        assert_eq!(path, if cut < 1536 + 512 { "first" } else { "second" }, "{cut}");
    }
}

#[test]
fn lengths_are_bounded_before_anything_is_kept() {
    for (kind, word) in [(b'L', "a path"), (b'K', "a link target"), (b'x', "a pax header"), (b'g', "global")] {
        let e = read(&archive_of(&[block(kind, "huge", 1 << 40)])).unwrap_err();
        assert!(e.trouble.why.contains(word), "{}", e.trouble.why);
    }
    let e = read(&archive_of(&[block(b'Q', "odd", 0)])).unwrap_err();
    assert!(e.trouble.why.contains("'Q'") && e.path.as_deref() == Some(b"odd"), "{}", e.trouble.why);
    let two = [archive_of(&[block(b'0', "a", 0)]), archive_of(&[block(b'0', "b", 0)])].concat();
    assert!(read(&two).unwrap_err().trouble.why.contains("behind the end"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic_or_run_on(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..6000),
        kinds in proptest::collection::vec(proptest::sample::select(&b"01234567LKxgSDVX\0"[..]), 1..8),
        sizes in proptest::collection::vec(prop_oneof![0u64..3000, any::<u64>()], 8),
    ) {
        // Right headers at places, so that it gets past the first checksum.
        for (i, kind) in kinds.iter().enumerate() {
            let at = i * 1024;
            if at + BLOCK <= bytes.len() {
                bytes[at..at + BLOCK].copy_from_slice(&block(*kind, "f", sizes[i] % (1 << 33)));
            }
        }
        let _ = read(&bytes);
    }

    #[test]
    fn no_pax_header_makes_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Pax::default().take(&body);
    }
}
