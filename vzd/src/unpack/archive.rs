//! tar's blocks: what each entry says, and its data. Understood are v7, ustar, GNU (long names, sparse files) and pax
//! (POSIX.1-2001) with the attributes and sparse files GNU tar puts there. The layout of a header is the tar crate's
//! knowledge; walking from one to the next is done here, because every length in it is a stranger's: nothing is kept in
//! memory that is not bounded first, and each error knows the byte it is about.
//!
//! Here is the walk; [`header`] is what one says, [`sparse`] where the pieces of a file with holes go.

mod header;
mod sparse;

pub use header::{Entry, What, checksum_fits};

use super::input::{Input, Trouble};
use header::{Pax, name};
use tar::Header;

const BLOCK: usize = 512;
/// Longest path or link target that is taken (GNU `L` and `K`, pax `path` and `linkpath`).
const MAX_NAME: usize = 8 << 10;
/// Longest pax header: paths and attributes of one file.
const MAX_PAX: usize = 1 << 20;
/// Bytes of padding behind the end of an archive; tar pads to 10 KiB, tapes to a few MiB.
const MAX_PADDING: u64 = 64 << 20;

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

#[cfg(test)]
mod tests;
