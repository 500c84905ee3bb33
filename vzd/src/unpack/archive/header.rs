//! What a header says: the fields of an entry, and the records of a pax header before it.

use tar::Header;

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

/// One entry. Its data comes by [`super::Archive::data`].
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
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub acl: bool,
    pub sparse_version: Option<u64>,
    pub sparse_size: Option<u64>,
    pub sparse_name: Option<Vec<u8>>,
    pub sparse_pieces: Option<Vec<(u64, u64)>>,
}

impl Pax {
    /// Takes a header's records in: `LENGTH KEY=VALUE\n`, where a value may hold any bytes, newlines included (which
    /// the tar crate's own reader of these cannot do, and a file capability may well hold one).
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
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

/// Digits and nothing else.
pub fn decimal(text: &[u8]) -> Option<u64> {
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

/// A long name's entry ends with a NUL.
pub fn name(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}
