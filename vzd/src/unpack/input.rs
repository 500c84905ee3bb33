//! The archive's bytes, with its compression undone. What it is compressed with is told by its first bytes, never by a
//! name. Nothing here holds more in memory than a decoder's window, whose size is bounded, and output that grows out of
//! all proportion to its input is given up.

use super::Blame;
use std::{
    cell::Cell,
    fs::File,
    io::{self, BufReader, Cursor, Read},
    rc::Rc,
};
use vz_types::limits::amount::human;

/// Why there are no more bytes.
#[derive(Debug)]
pub struct Trouble {
    /// Whose fault it is.
    pub blame: Blame,
    /// Why, in words.
    pub why: String,
}

impl Trouble {
    /// The archive's own fault.
    pub fn archive(why: impl Into<String>) -> Self {
        Self { blame: Blame::Archive, why: why.into() }
    }
}

/// A row of [`KINDS`]: how a file begins and what that makes it.
struct Kind {
    magic: &'static [u8],
    name: &'static str,
    open: Option<Opener>,
}

type Source = BufReader<io::Chain<Cursor<Vec<u8>>, Counted>>;
type Opener = fn(Source) -> io::Result<Box<dyn Read>>;

/// What is recognised. Without an opener: named in the refusal.
const KINDS: &[Kind] = &[
    Kind { magic: &[0x1f, 0x8b], name: "gzip", open: Some(gzip) },
    Kind { magic: &[0xfd, b'7', b'z', b'X', b'Z', 0], name: "xz", open: Some(xz) },
    Kind { magic: &[0x28, 0xb5, 0x2f, 0xfd], name: "zstd", open: Some(zstd) },
    Kind { magic: b"BZh", name: "bzip2", open: None },
    Kind { magic: &[0x04, 0x22, 0x4d, 0x18], name: "lz4", open: None },
    Kind { magic: &[0x5d, 0, 0], name: "lzma", open: None },
    Kind { magic: b"\x89LZO", name: "lzop", open: None },
    Kind { magic: b"PK\x03\x04", name: "zip", open: None },
    Kind { magic: b"!<arch>\n", name: "ar (a Debian package?)", open: None },
    Kind { magic: b"hsqs", name: "squashfs", open: None },
    Kind { magic: b"QFI\xfb", name: "qcow2", open: None },
    Kind { magic: b"0707", name: "cpio", open: None },
];

/// What makes a tar archive on standard output of a file that is not taken: format, command with FILE for its name, and what
/// is to be said about it.
const INSTEAD: &[(&str, &str, &str)] = &[
    ("bzip2", "bzip2 -dc FILE", ""),
    ("lz4", "lz4 -dc FILE", ""),
    ("lzma", "xz -dc --format=lzma FILE", ""),
    ("lzop", "lzop -dc FILE", ""),
    ("squashfs", "sqfs2tar FILE", " (sqfs2tar is in the package squashfs-tools-ng)"),
    ("cpio", "(mkdir DIR && cd DIR && cpio -id && tar -c .) <FILE", ""),
];

/// The command that makes a tar archive of what was refused with these words, and what is to be said about it.
pub fn instead(why: &str) -> Option<(&'static str, &'static str)> {
    let row = INSTEAD.iter().find(|(name, _, _)| why.starts_with(&format!("its format is {name};")));
    row.map(|(_, how, note)| (*how, *note))
}

/// The largest dictionary of xz: its `-9` needs 65 MiB, and some more is used by `--lzma2=dict=`.
const XZ_MEMORY: u64 = 300 << 20;
/// The largest window of zstd, as a power of two: what the zstd program itself accepts without `--long=`.
const ZSTD_WINDOW: u32 = 27;

fn gzip(source: Source) -> io::Result<Box<dyn Read>> {
    Ok(Box::new(flate2::bufread::MultiGzDecoder::new(source)))
}

fn xz(source: Source) -> io::Result<Box<dyn Read>> {
    let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
    Ok(Box::new(liblzma::bufread::XzDecoder::new_stream(source, stream)))
}

fn zstd(source: Source) -> io::Result<Box<dyn Read>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
    decoder.window_log_max(ZSTD_WINDOW)?;
    Ok(Box::new(decoder))
}

/// Counts what is read of a file.
struct Counted {
    file: File,
    count: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.count.set(self.count.get() + n as u64);
        Ok(n)
    }
}

/// Before this much output, no proportion is suspicious.
const UNSUSPICIOUS: u64 = 256 << 20;
/// Bytes of output per byte of input. Files of a system compress some 3:1, long runs of zeros up to 1000:1 (gzip) or
/// 10000:1 (xz, zstd); a system that is mostly runs of zeros is packed with `tar --sparse`.
const RATIO: u64 = 500;

/// The uncompressed archive.
pub struct Input {
    reader: Box<dyn Read>,
    /// Name of the compression; `none`.
    pub compression: &'static str,
    read: Rc<Cell<u64>>,
    given: u64,
}

impl Input {
    /// Looks at the first bytes and chooses.
    pub fn open(mut file: File) -> Result<Self, Trouble> {
        let mut head = vec![0u8; 512];
        let mut got = 0;
        while got < head.len() {
            match file.read(&mut head[got..]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Trouble { blame: Blame::Host, why: format!("it cannot be read: {e}") }),
            }
        }
        head.truncate(got);
        if head.is_empty() {
            return Err(Trouble::archive("it is empty"));
        }
        let read = Rc::new(Cell::new(got as u64));
        let kind = KINDS.iter().find(|k| head.starts_with(k.magic));
        let plain = is_tar(&head);
        let source = |head: Vec<u8>| {
            BufReader::with_capacity(1 << 16, Cursor::new(head).chain(Counted { file, count: read.clone() }))
        };
        let (reader, compression): (Box<dyn Read>, _) = match kind {
            Some(Kind { open: Some(open), name, .. }) => {
                let opened = open(source(head));
                (opened.map_err(|e| Trouble { blame: Blame::Host, why: format!("{name}: {e}") })?, *name)
            }
            _ if plain => (Box::new(source(head)), "none"),
            Some(Kind { name, .. }) => {
                return Err(Trouble::archive(format!(
                    "its format is {name}; only tar archives are taken, uncompressed or compressed with gzip, xz or zstd"
                )));
            }
            None if head.len() < 512 => {
                return Err(Trouble::archive(format!("it has {got} bytes, which is too short for a tar archive")));
            }
            None => {
                return Err(Trouble::archive(
                    "it is no tar archive, neither uncompressed nor compressed with gzip, xz or zstd",
                ));
            }
        };
        Ok(Self { reader, compression, read, given: 0 })
    }

    /// Bytes of the compressed archive taken so far.
    pub fn read(&self) -> u64 {
        self.read.get()
    }

    /// Bytes of the uncompressed archive given out so far.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// Fills `buffer`; less than that only at the end.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Trouble> {
        let mut got = 0;
        while got < buffer.len() {
            match self.reader.read(&mut buffer[got..]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.trouble(&e)),
            }
        }
        self.given += got as u64;
        if self.given > UNSUSPICIOUS && self.given / RATIO > self.read() {
            return Err(Trouble::archive(format!(
                "{} of it already unpack to {}, more than {RATIO} to one: that is how an archive made to fill \
                 disks looks (long runs of zeros are packed well with `tar --sparse`)",
                human(self.read()),
                human(self.given)
            )));
        }
        Ok(got)
    }

    fn trouble(&self, e: &io::Error) -> Trouble {
        let (kind, read) = (self.compression, self.read());
        match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                Trouble::archive(format!("it is truncated: its {kind} data ends unfinished after {read} bytes"))
            }
            _ if kind == "none" => Trouble { blame: Blame::Host, why: format!("it cannot be read: {e}") },
            io::ErrorKind::OutOfMemory => Trouble::archive(format!("its {kind} data needs too much memory: {e}")),
            _ => Trouble::archive(format!("its {kind} data is damaged at or before byte {read}: {e}")),
        }
    }
}

/// Whether a block is a tar header: its checksum is right.
fn is_tar(block: &[u8]) -> bool {
    block.len() == 512 && super::archive::checksum_fits(tar::Header::from_byte_slice(block))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    fn file(bytes: &[u8]) -> File {
        let mut f = tempfile::tempfile().unwrap();
        f.write_all(bytes).unwrap();
        f.rewind().unwrap();
        f
    }

    fn tarball() -> Vec<u8> {
        let mut b = tar::Builder::new(Vec::new());
        let mut h = tar::Header::new_gnu();
        h.set_size(100_000);
        b.append_data(&mut h, "f", &vec![7u8; 100_000][..]).unwrap();
        b.into_inner().unwrap()
    }

    fn packed(kind: &str, bytes: &[u8]) -> Vec<u8> {
        match kind {
            "gzip" => {
                let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                e.write_all(bytes).unwrap();
                e.finish().unwrap()
            }
            "xz" => {
                let mut e = liblzma::write::XzEncoder::new(Vec::new(), 1);
                e.write_all(bytes).unwrap();
                e.finish().unwrap()
            }
            "zstd" => {
                let mut e = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
                // As the zstd program does.
                e.include_checksum(true).unwrap();
                e.write_all(bytes).unwrap();
                e.finish().unwrap()
            }
            _ => bytes.to_vec(),
        }
    }

    fn whole(bytes: &[u8]) -> Result<(Vec<u8>, &'static str), Trouble> {
        let mut input = Input::open(file(bytes))?;
        let mut out = vec![0u8; 1 << 20];
        let n = input.fill(&mut out)?;
        out.truncate(n);
        Ok((out, input.compression))
    }

    #[test]
    fn each_compression_is_told_by_content_and_may_come_in_pieces() {
        let tar = tarball();
        for kind in ["none", "gzip", "xz", "zstd"] {
            assert_eq!(whole(&packed(kind, &tar)).unwrap(), (tar.clone(), kind));
            if kind != "none" {
                let (a, b) = tar.split_at(5000);
                let two = [packed(kind, a), packed(kind, b)].concat();
                assert_eq!(whole(&two).unwrap(), (tar.clone(), kind), "two members");
            }
        }
    }

    #[test]
    fn truncation_and_damage_are_told_apart_and_name_the_compression() {
        for kind in ["gzip", "xz", "zstd"] {
            let good = packed(kind, &tarball());
            for cut in [good.len() - 1, good.len() / 2, 40] {
                let e = whole(&good[..cut]).err().unwrap();
                assert!(e.why.contains("truncated") && e.why.contains(kind), "{kind} {cut}: {}", e.why);
            }
            let mut bad = good.clone();
            let middle = bad.len() / 2;
            bad[middle] ^= 0xff;
            bad[middle + 1] ^= 0xff;
            let e = whole(&bad).err().unwrap();
            assert!(e.why.contains("damaged") && e.why.contains(kind), "{kind}: {}", e.why);
        }
    }

    #[test]
    fn what_is_no_tar_is_called_by_its_name() {
        for (bytes, word) in [
            (&b"BZh91AY"[..], "bzip2"),
            (b"PK\x03\x04zip", "zip"),
            (b"", "empty"),
            (b"hello", "5 bytes"),
            (&[b'x'; 600], "no tar archive"),
        ] {
            let e = Input::open(file(bytes)).err().unwrap();
            assert!(e.why.contains(word), "{}", e.why);
        }
    }

    #[test]
    fn output_out_of_all_proportion_is_given_up() {
        let mut input = Input::open(file(&packed("zstd", &vec![0u8; 300 << 20]))).unwrap();
        let mut buffer = vec![0u8; 1 << 20];
        let end = loop {
            match input.fill(&mut buffer) {
                Ok(0) => panic!("the bomb went off"),
                Ok(_) => {}
                Err(e) => break e,
            }
        };
        assert!(end.why.contains("500 to one"), "{}", end.why);
    }
}
