//! tar's blocks: what each entry says, and its data. Understood are v7, ustar, GNU (long names, sparse files) and pax
//! (POSIX.1-2001) with the attributes and sparse files GNU tar puts there. The layout of a header is the tar crate's
//! knowledge; walking from one to the next is done here, because every length in it is a stranger's: nothing is kept in
//! memory that is not bounded first, and each error knows the byte it is about.

use super::input::{Input, Trouble};
use tar::{GnuExtSparseHeader, Header};

const BLOCK: usize = 512;
/// Longest path or link target that is taken (GNU `L` and `K`, pax `path` and `linkpath`).
const MAX_NAME: usize = 8 << 10;
/// Longest pax header: paths and attributes of one file.
const MAX_PAX: usize = 1 << 20;
/// Most pieces of a sparse file.
const MAX_PIECES: usize = 1 << 18;
/// Bytes of padding behind the end of an archive; tar pads to 10 KiB, tapes to a few MiB.
const MAX_PADDING: u64 = 64 << 20;

/// What an entry is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A hard link to an earlier entry.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A device: block or character, major, minor.
    Device(bool, u32, u32),
}

impl What {
    /// In words, with its article.
    pub fn word(&self) -> &'static str {
        match self {
            Self::File => "a regular file",
            Self::Directory => "a directory",
            Self::Symlink(_) => "a symbolic link",
            Self::HardLink(_) => "a hard link",
            Self::Fifo => "a FIFO",
            Self::Device(true, ..) => "a block device",
            Self::Device(false, ..) => "a character device",
        }
    }
}

/// One entry. Its data comes by [`Archive::data`].
#[derive(Clone, Debug)]
pub struct Entry {
    /// Byte at which its (first) header begins.
    pub at: u64,
    /// As it is in the archive.
    pub path: Vec<u8>,
    /// What it is to become.
    pub what: What,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Bytes of data in the archive.
    pub stored: u64,
    /// Size the file is to have; more than `stored` for sparse ones.
    pub size: u64,
    /// Where the stored bytes go: offset and length of each piece. `None`: all of them in a row.
    pub pieces: Option<Vec<(u64, u64)>>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether it had access control lists in text form, which are not taken over.
    pub acl: bool,
}

/// Why reading ended: at which byte, about which entry.
#[derive(Debug)]
pub struct Bad {
    /// Byte at which the entry or header begins.
    pub at: u64,
    /// Its path, as far as known.
    pub path: Option<Vec<u8>>,
    /// Why.
    pub trouble: Trouble,
}

/// Whether a header's checksum is right: the sum of its bytes with the checksum field as blanks. Old archives added
/// signed characters.
pub fn checksum_fits(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let Ok(wanted) = header.cksum() else { return false };
    let parts = || bytes[..148].iter().chain(&bytes[156..]);
    let sum = parts().fold(8 * 32u32, |s, b| s + u32::from(*b));
    let signed = parts().fold(8 * 32i32, |s, b| s + i32::from(*b as i8));
    sum == wanted || i64::from(signed) == i64::from(wanted)
}

/// A pax header's records that matter.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    acl: bool,
    sparse_version: Option<u64>,
    sparse_size: Option<u64>,
    sparse_name: Option<Vec<u8>>,
    sparse_pieces: Option<Vec<(u64, u64)>>,
}

/// An archive being read.
pub struct Archive {
    input: Input,
    /// Data and padding of the current entry that are still to come.
    left: u64,
    padding: u64,
    /// What is being read, for errors.
    at: u64,
    path: Option<Vec<u8>>,
}

impl Archive {
    /// Reads this.
    pub fn new(input: Input) -> Self {
        Self { input, left: 0, padding: 0, at: 0, path: None }
    }

    /// What the bytes come from.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// An error about what is being read.
    pub fn bad(&self, why: impl Into<String>) -> Bad {
        self.wrap(Trouble::archive(why))
    }

    fn wrap(&self, trouble: Trouble) -> Bad {
        Bad { at: self.at, path: self.path.clone(), trouble }
    }

    /// Reads all of `buffer` or says where the archive broke off.
    fn exactly(&mut self, buffer: &mut [u8]) -> Result<(), Bad> {
        let n = self.input.fill(buffer).map_err(|t| self.wrap(t))?;
        if n < buffer.len() {
            return Err(self.bad(format!("the archive is truncated: it ends at byte {}", self.input.given())));
        }
        Ok(())
    }

    fn skip(&mut self, mut count: u64) -> Result<(), Bad> {
        let mut buffer = [0u8; 16 << 10];
        while count > 0 {
            let n = count.min(buffer.len() as u64);
            self.exactly(&mut buffer[..n as usize])?;
            count -= n;
        }
        Ok(())
    }

    /// Data of the current entry, in the order it is stored; 0 at its end.
    pub fn data(&mut self, buffer: &mut [u8]) -> Result<usize, Bad> {
        let n = self.left.min(buffer.len() as u64) as usize;
        self.exactly(&mut buffer[..n])?;
        self.left -= n as u64;
        Ok(n)
    }

    /// The data of a header's own entry (a long name, a pax header), whole.
    fn whole(&mut self, size: u64, most: usize, what: &str) -> Result<Vec<u8>, Bad> {
        if size > most as u64 {
            return Err(self.bad(format!("{what} of {size} bytes is longer than {most}")));
        }
        let mut bytes = vec![0u8; size as usize];
        self.exactly(&mut bytes)?;
        self.skip(padding(size))?;
        Ok(bytes)
    }

    /// The next entry; `None` at the archive's end, which was checked to be one.
    pub fn next(&mut self) -> Result<Option<Entry>, Bad> {
        self.skip(self.left.saturating_add(self.padding))?;
        (self.left, self.padding) = (0, 0);
        let (mut long_path, mut long_link, mut pax) = (None, None, Pax::default());
        let begins = self.input.given();
        loop {
            let last = self.path.take();
            self.at = self.input.given();
            let mut header = Header::new_old();
            let n = self.input.fill(header.as_mut_bytes()).map_err(|t| Bad { path: last.clone(), ..self.wrap(t) })?;
            let after = |bad: Bad| Bad { path: last.clone(), ..bad };
            if n == 0 {
                return Err(after(
                    self.bad("the archive is truncated: it ends behind this entry without its end mark"),
                ));
            }
            if n < BLOCK {
                return Err(after(self.bad(format!(
                    "the archive is truncated: it ends at byte {} in the header behind this entry",
                    self.input.given()
                ))));
            }
            if header.as_bytes().iter().all(|b| *b == 0) {
                return self.end().map(|()| None).map_err(after);
            }
            if !checksum_fits(&header) {
                return Err(after(self.bad("the header behind this entry is damaged: its checksum is wrong")));
            }
            let number = |r: std::io::Result<u64>, what: &str| {
                r.map_err(|_| {
                    after(self.bad(format!("the header behind this entry is damaged: its {what} is no number")))
                })
            };
            let size = number(header.entry_size(), "size")?;
            match header.entry_type().as_byte() {
                b'L' => long_path = Some(name(self.whole(size, MAX_NAME, "a path")?)),
                b'K' => long_link = Some(name(self.whole(size, MAX_NAME, "a link target")?)),
                b'x' | b'X' => {
                    let bytes = self.whole(size, MAX_PAX, "a pax header")?;
                    pax.take(&bytes).map_err(|why| self.bad(why))?;
                }
                b'g' => {
                    let bytes = self.whole(size, MAX_PAX, "a global pax header")?;
                    let mut global = Pax::default();
                    global.take(&bytes).map_err(|why| self.bad(why))?;
                    if global.path.is_some() || global.link.is_some() || global.size.is_some() {
                        return Err(self.bad("a global pax header gives every entry one path or size"));
                    }
                }
                // A volume's label is no file.
                b'V' => self.skip(padded(size))?,
                _ => {
                    self.at = begins;
                    return self.entry(&header, size, long_path, long_link, pax).map(Some);
                }
            }
        }
    }

    /// Puts an entry together from its headers.
    fn entry(
        &mut self,
        header: &Header,
        size: u64,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        mut pax: Pax,
    ) -> Result<Entry, Bad> {
        let path = (pax.sparse_name.take()).or(pax.path.take()).or(long_path);
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        self.path = Some(path.clone());
        let number = |r: std::io::Result<u64>, what: &str| r.map_err(|_| self.bad(format!("its {what} is no number")));
        let link = || {
            let target = pax.link.clone().or(long_link.clone());
            target.or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default()
        };
        let device = |block| {
            let part = |r: std::io::Result<Option<u32>>| r.ok().flatten().unwrap_or(0);
            What::Device(block, part(header.device_major()), part(header.device_minor()))
        };
        let kind = header.entry_type().as_byte();
        let what = match kind {
            // v7 has no type for directories.
            0 | b'0' | b'7' if path.ends_with(b"/") => What::Directory,
            0 | b'0' | b'7' | b'S' => What::File,
            b'1' => What::HardLink(link()),
            b'2' => What::Symlink(link()),
            b'3' => device(false),
            b'4' => device(true),
            b'5' | b'D' => What::Directory,
            b'6' => What::Fifo,
            b'M' => return Err(self.bad("it continues a file of another volume; join the volumes first")),
            other => {
                return Err(self.bad(format!("its type {:?} is none that is known", char::from(other))));
            }
        };
        let mut stored = pax.size.unwrap_or(size);
        // As GNU tar: the size of a hard link is that of what it links to.
        if matches!(what, What::HardLink(_)) {
            stored = 0;
        }
        let mut entry = Entry {
            at: self.at,
            mode: number(header.mode().map(u64::from), "mode")? as u32 & 0o7777,
            uid: pax.uid.map_or_else(|| number(header.uid(), "owner"), Ok)?,
            gid: pax.gid.map_or_else(|| number(header.gid(), "group"), Ok)?,
            mtime: pax.mtime.unwrap_or((header.mtime().ok().and_then(|t| i64::try_from(t).ok()).unwrap_or(0), 0)),
            path,
            what,
            stored,
            size: stored,
            pieces: None,
            xattrs: std::mem::take(&mut pax.xattrs),
            acl: pax.acl,
        };
        (self.left, self.padding) = (stored, padding(stored));
        if kind == b'S' {
            let (size, pieces) = self.old_sparse(header)?;
            (entry.size, entry.pieces) = (size, Some(pieces));
        } else if entry.what == What::File && pax.sparse_version == Some(1) {
            let pieces = self.sparse_map()?;
            entry.stored = self.left;
            (entry.size, entry.pieces) = (pax.sparse_size.unwrap_or(0), Some(pieces));
        } else if entry.what == What::File && pax.sparse_pieces.is_some() {
            (entry.size, entry.pieces) = (pax.sparse_size.unwrap_or(0), pax.sparse_pieces);
        }
        self.check_pieces(&entry)?;
        Ok(entry)
    }

    /// The pieces of a sparse file must be in order, inside the file, and as long together as the data.
    fn check_pieces(&self, entry: &Entry) -> Result<(), Bad> {
        let Some(pieces) = &entry.pieces else { return Ok(()) };
        let (mut end, mut sum) = (0u64, 0u64);
        for (offset, length) in pieces {
            let next = offset.checked_add(*length).filter(|e| *offset >= end && *e <= entry.size);
            end = next.ok_or_else(|| self.bad("its map of a sparse file overlaps itself or leaves the file"))?;
            sum += length;
        }
        if sum != entry.stored {
            return Err(self.bad("its map of a sparse file does not fit its data"));
        }
        Ok(())
    }

    /// The old GNU form: four pieces in the header, more in blocks behind it.
    fn old_sparse(&mut self, header: &Header) -> Result<(u64, Vec<(u64, u64)>), Bad> {
        let damaged = "its map of a sparse file is damaged";
        let gnu = header.as_gnu().ok_or_else(|| self.bad(damaged))?;
        let mut pieces = Vec::new();
        let take = |pieces: &mut Vec<_>, rows: &[tar::GnuSparseHeader]| -> Option<()> {
            for row in rows.iter().filter(|r| !r.is_empty()) {
                pieces.push((row.offset().ok()?, row.length().ok()?));
            }
            (pieces.len() <= MAX_PIECES).then_some(())
        };
        take(&mut pieces, &gnu.sparse).ok_or_else(|| self.bad(damaged))?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            self.exactly(block.as_mut_bytes())?;
            take(&mut pieces, block.sparse()).ok_or_else(|| self.bad(damaged))?;
            more = block.is_extended();
        }
        let size = gnu.real_size().map_err(|_| self.bad(damaged))?;
        Ok((size, pieces))
    }

    /// GNU's pax form 1.0: decimal lines before the data, padded to a block; the first says how many pieces.
    fn sparse_map(&mut self) -> Result<Vec<(u64, u64)>, Bad> {
        let damaged = "its map of a sparse file is damaged";
        let mut block = [0u8; BLOCK];
        let mut held: Vec<u8> = Vec::new();
        let mut numbers: Vec<u64> = Vec::new();
        loop {
            if self.data(&mut block)? < BLOCK {
                return Err(self.bad(damaged));
            }
            held.extend_from_slice(&block);
            while let Some(end) = held.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = held.drain(..=end).collect();
                numbers.push(decimal(&line[..end]).ok_or_else(|| self.bad(damaged))?);
                let wanted = numbers[0].saturating_mul(2).saturating_add(1);
                if numbers[0] > MAX_PIECES as u64 {
                    return Err(self.bad(format!("it is a sparse file of more than {MAX_PIECES} pieces")));
                }
                if numbers.len() as u64 == wanted {
                    return Ok(numbers[1..].chunks_exact(2).map(|p| (p[0], p[1])).collect());
                }
            }
            if held.len() > 2 * BLOCK {
                return Err(self.bad(damaged));
            }
        }
    }

    /// Behind the end mark only zeros may come: a second archive there would be lost.
    fn end(&mut self) -> Result<(), Bad> {
        let mut buffer = [0u8; 16 << 10];
        let mut count = 0;
        loop {
            let n = self.input.fill(&mut buffer).map_err(|t| self.wrap(t))?;
            count += n as u64;
            if buffer[..n].iter().any(|b| *b != 0) {
                return Err(self.bad(
                    "there is more behind the end of the archive (two archives in one file? join them with `tar -A`)",
                ));
            }
            if n < buffer.len() {
                return Ok(());
            }
            if count > MAX_PADDING {
                return Err(self.bad(format!("more than {} MiB of padding follow its end", MAX_PADDING >> 20)));
            }
        }
    }
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn padded(size: u64) -> u64 {
    size.saturating_add(padding(size))
}

/// A long name's entry ends with a NUL.
fn name(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// `-12.5` as seconds and nanoseconds.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((seconds, digits.parse().ok()?))
}

impl Pax {
    /// Takes a header's records in: `LENGTH KEY=VALUE\n`, where a value may hold any bytes, newlines included (which
    /// the tar crate's own reader of these cannot do, and a file capability may well hold one).
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        const DAMAGED: &str = "a pax header is damaged";
        let mut offset = None;
        while !bytes.is_empty() {
            let blank = bytes.iter().take(20).position(|b| *b == b' ').ok_or(DAMAGED)?;
            let length = decimal(&bytes[..blank]).ok_or(DAMAGED)? as usize;
            if length > bytes.len() || length < blank + 3 || bytes[length - 1] != b'\n' {
                return Err(DAMAGED);
            }
            let record = &bytes[blank + 1..length - 1];
            bytes = &bytes[length..];
            let equals = record.iter().position(|b| *b == b'=').ok_or(DAMAGED)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let number = || decimal(value).ok_or(DAMAGED);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number()?),
                b"uid" => self.uid = Some(number()?),
                b"gid" => self.gid = Some(number()?),
                b"mtime" => self.mtime = Some(time(value).ok_or(DAMAGED)?),
                b"GNU.sparse.major" => self.sparse_version = Some(number()?),
                b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse_size = Some(number()?),
                b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
                b"GNU.sparse.offset" => offset = Some(number()?),
                b"GNU.sparse.numbytes" => {
                    let piece = (offset.take().ok_or(DAMAGED)?, number()?);
                    self.sparse_pieces.get_or_insert_default().push(piece);
                }
                b"GNU.sparse.map" if value.is_empty() => self.sparse_pieces = Some(Vec::new()),
                b"GNU.sparse.map" => {
                    let numbers: Option<Vec<u64>> = value.split(|b| *b == b',').map(decimal).collect();
                    let numbers = numbers.filter(|n| n.len() % 2 == 0).ok_or(DAMAGED)?;
                    self.sparse_pieces = Some(numbers.chunks_exact(2).map(|p| (p[0], p[1])).collect());
                }
                _ => match key.strip_prefix(b"SCHILY.xattr.") {
                    Some(name) => self.xattrs.push((name.to_vec(), value.to_vec())),
                    None => self.acl |= key.starts_with(b"SCHILY.acl."),
                },
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
        let good =
            archive_of(&[block(b'0', "first", 600), data(&[1; 600]), block(b'0', "second", 600), data(&[2; 600])]);
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
}
