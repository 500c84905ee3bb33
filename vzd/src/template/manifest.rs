//! What a template's files are, exactly: the manifest, its digest, and the cheap stamp that tells
//! whether anything was touched since.
//!
//! The **digest** is the sha256 of `manifest.txt`, which has one line per file: kind, mode, owner,
//! group, size, content (sha256, link target or device number), extended attributes, path. Made at
//! build and compared in full by [`verify`]; that reads every byte, so it takes about a second.
//!
//! The **stamp** is a hash over inode, size, mode, owner, mtime and ctime of every file. The kernel
//! moves a file's ctime with every change of content or attributes, so an unchanged stamp means
//! unchanged files; taking it costs one `stat` per file and reads no content.

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    ffi::OsStr,
    fmt::Write as _,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::Path,
};

/// `manifest.json`: what is known about a built template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Its name.
    pub name: String,
    /// sha256 of `manifest.txt`, hexadecimal.
    pub digest: String,
    /// sha256 of the recipe it was built from.
    pub recipe_digest: String,
    /// What the recipe said about itself.
    pub description: String,
    /// Bytes of its regular files.
    pub size: u64,
    /// Number of its files, of every kind.
    pub files: u64,
    /// `ID` and `VERSION_ID` of its os-release.
    pub distribution: Option<String>,
    /// Its init.
    pub init: String,
    /// Architecture, in Debian's words.
    pub arch: String,
    /// `name version` of every installed package.
    pub packages: Vec<String>,
    /// Mirror, directory or archive it came from.
    pub source: String,
    /// Seconds since the epoch.
    pub built_at: u64,
    /// How it came to be.
    #[serde(default)]
    pub origin: Origin,
    /// sha256 of the archive it was imported from, compressed as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<String>,
}

/// How a template came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Built from a recipe.
    #[default]
    Recipe,
    /// Imported from an archive.
    Import,
}

impl Origin {
    /// The word the API shows.
    pub fn word(self) -> &'static str {
        match self {
            Self::Recipe => "recipe",
            Self::Import => "import",
        }
    }
}

/// The manifest's text with the sums over it.
pub struct Manifest {
    /// `manifest.txt`.
    pub text: String,
    /// Its sha256.
    pub digest: String,
    /// Bytes of the regular files.
    pub size: u64,
    /// Number of files.
    pub files: u64,
}

/// Hexadecimal sha256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// Text of bytes without tabs, newlines or other bytes that would break a line of the manifest.
fn escape(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len()), |mut s, b| {
        match b {
            b'!'..=b'~' if *b != b'\\' => s.push(*b as char),
            _ => {
                let _ = write!(s, "\\x{b:02x}");
            }
        }
        s
    })
}

/// Reads a whole tree and describes it.
pub fn describe(root: &Path) -> io::Result<Manifest> {
    let mut m = Manifest { text: String::new(), digest: String::new(), size: 0, files: 0 };
    let mut buffer = vec![0u8; 1 << 17];
    entry(&mut m, root, b"/", &mut buffer)?;
    m.digest = sha256_hex(m.text.as_bytes());
    Ok(m)
}

fn entry(m: &mut Manifest, path: &Path, inside: &[u8], buffer: &mut [u8]) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    let kind = FileType::from_raw_mode(meta.mode());
    let (letter, size, content) = match kind {
        FileType::RegularFile => ('f', meta.size(), content_digest(path, buffer)?),
        FileType::Directory => ('d', 0, "-".into()),
        FileType::Symlink => ('l', 0, escape(std::fs::read_link(path)?.as_os_str().as_bytes())),
        FileType::CharacterDevice => ('c', 0, meta.rdev().to_string()),
        FileType::BlockDevice => ('b', 0, meta.rdev().to_string()),
        FileType::Fifo => ('p', 0, "-".into()),
        _ => ('s', 0, "-".into()),
    };
    m.files += 1;
    m.size += size;
    let _ = writeln!(
        m.text,
        "{letter}\t{:04o}\t{}\t{}\t{size}\t{content}\t{}\t{}",
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid(),
        xattrs(path)?,
        escape(inside),
    );
    if kind == FileType::Directory {
        let mut names = std::fs::read_dir(path)?.map(|e| Ok(e?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            let mut below = inside.to_vec();
            if below != b"/" {
                below.push(b'/');
            }
            below.extend_from_slice(name.as_bytes());
            entry(m, &path.join(&name), &below, buffer)?;
        }
    }
    Ok(())
}

fn content_digest(path: &Path, buffer: &mut [u8]) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(fs::open(path, flags, Mode::empty())?);
    let mut hash = Sha256::new();
    loop {
        match file.read(buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// `name=hex,...` of the attributes that belong to the file, or `-`.
fn xattrs(path: &Path) -> io::Result<String> {
    let mut names = vec![0u8; 4096];
    let n = match fs::llistxattr(path, &mut names[..]) {
        Ok(n) => n,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(e) => return Err(e.into()),
    };
    let mut out = Vec::new();
    for name in names[..n].split(|b| *b == 0).filter(|s| !s.is_empty()) {
        let mut value = vec![0u8; 65536];
        let len = fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..])?;
        out.push(format!("{}={}", escape(name), hex(&value[..len])));
    }
    out.sort();
    Ok(if out.is_empty() { "-".into() } else { out.join(",") })
}

/// The stamp of a tree: hexadecimal, changes with any change of any file in it.
pub fn stamp(root: &Path) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = fs::open(root, flags, Mode::empty())?;
    let mut hash = Sha256::new();
    stamp_one(&mut hash, &fs::fstat(&dir)?);
    stamp_dir(&mut hash, dir.as_fd(), flags)?;
    Ok(hex(&hash.finalize()))
}

fn stamp_dir(hash: &mut Sha256, dir: BorrowedFd<'_>, flags: OFlags) -> io::Result<()> {
    let mut below = Vec::new();
    for e in fs::Dir::read_from(dir)? {
        let e = e?;
        let name = e.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        hash.update(name.to_bytes());
        stamp_one(hash, &stat);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            below.push(name.to_owned());
        }
    }
    for name in below {
        stamp_dir(hash, fs::openat(dir, &name, flags, Mode::empty())?.as_fd(), flags)?;
    }
    Ok(())
}

fn stamp_one(hash: &mut Sha256, s: &fs::Stat) {
    let mut row = [0u8; 64];
    let fields: [u64; 8] = [
        s.st_ino,
        s.st_size as u64,
        u64::from(s.st_mode),
        u64::from(s.st_uid) << 32 | u64::from(s.st_gid),
        s.st_mtime as u64,
        s.st_mtime_nsec,
        s.st_ctime as u64,
        s.st_ctime_nsec,
    ];
    for (chunk, field) in row.chunks_exact_mut(8).zip(fields) {
        chunk.copy_from_slice(&field.to_le_bytes());
    }
    hash.update(row);
}

/// Compares a tree with its manifest, reading every byte. `Some`: the first path that differs.
pub fn verify(root: &Path, manifest: &str) -> io::Result<Option<String>> {
    let now = describe(root)?;
    if now.text == manifest {
        return Ok(None);
    }
    let path = |line: &str| line.rsplit('\t').next().unwrap_or("").to_owned();
    let mut was = manifest.lines();
    let mut is = now.text.lines();
    loop {
        match (was.next(), is.next()) {
            (Some(a), Some(b)) if a == b => {}
            // The smaller path is the one that only one side has, or both have it and it changed.
            (Some(a), Some(b)) => return Ok(Some(path(a).min(path(b)))),
            (Some(a), None) => return Ok(Some(path(a))),
            (None, Some(b)) => return Ok(Some(path(b))),
            (None, None) => return Ok(Some("/".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn tree() -> tempfile::TempDir {
        let d = tempfile::tempdir().unwrap();
        std::fs::create_dir(d.path().join("a")).unwrap();
        std::fs::write(d.path().join("a/x y\n"), "content").unwrap();
        symlink("/host", d.path().join("l")).unwrap();
        d
    }

    #[test]
    fn any_change_changes_digest_and_stamp_and_is_named() {
        let d = tree();
        let m = describe(d.path()).unwrap();
        let s = stamp(d.path()).unwrap();
        assert_eq!((m.files, m.size), (4, 7));
        assert_eq!(m.text.lines().count(), 4);
        assert_eq!(describe(d.path()).unwrap().digest, m.digest);
        assert_eq!(stamp(d.path()).unwrap(), s);
        assert_eq!(verify(d.path(), &m.text).unwrap(), None);
        let file = d.path().join("a/x y\n");
        let old = std::fs::metadata(&file).unwrap().modified().unwrap();
        // Same size, and the mtime put back: the ctime tells.
        std::fs::write(&file, "CONTENT").unwrap();
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
        assert_ne!(stamp(d.path()).unwrap(), s);
        assert_eq!(verify(d.path(), &m.text).unwrap().unwrap(), "/a/x\\x20y\\x0a");
        std::fs::write(&file, "content").unwrap();
        assert_eq!(verify(d.path(), &m.text).unwrap(), None);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4755)).unwrap();
        assert!(verify(d.path(), &m.text).unwrap().is_some());
    }

    #[test]
    fn added_and_removed_files_are_named() {
        let d = tree();
        let m = describe(d.path()).unwrap();
        std::fs::write(d.path().join("a/new"), "").unwrap();
        assert_eq!(verify(d.path(), &m.text).unwrap().unwrap(), "/a/new");
        std::fs::remove_file(d.path().join("a/new")).unwrap();
        std::fs::remove_file(d.path().join("l")).unwrap();
        assert_eq!(verify(d.path(), &m.text).unwrap().unwrap(), "/l");
    }
}
