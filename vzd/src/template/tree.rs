//! A tree of files that is going to be a container's root, touched from the host: every path is
//! resolved *inside* the tree (`openat2` with `RESOLVE_IN_ROOT`), so that an absolute symlink in it
//! leads where it would lead in the container and never to the host.

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use std::{
    ffi::{CStr, CString},
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

/// An opened tree.
pub struct Tree {
    root: OwnedFd,
    path: PathBuf,
}

/// Largest file that is read: a machine's package database has some megabytes.
const MAX_FILE: u64 = 64 << 20;

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);
const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Tree {
    /// Opens the tree at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = fs::open(path, DIR | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// Where it is on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn openat2(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let rel = path.trim_start_matches('/');
        let rel = if rel.is_empty() { "." } else { rel };
        Ok(vz_sys::open::inside(&self.root, rel, flags | OFlags::CLOEXEC, IN_ROOT)?)
    }

    /// Opens a directory of the tree, following links inside it.
    fn dir(&self, path: &str) -> io::Result<OwnedFd> {
        self.openat2(path, DIR)
    }

    /// Opens a directory, making what is missing with mode 0755.
    fn make_dir(&self, path: &str) -> io::Result<OwnedFd> {
        match self.dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (parent, name) = split(path);
        let above = self.make_dir(parent)?;
        match fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => self.dir(path),
            Err(e) => Err(e.into()),
        }
    }

    /// What a regular file of the tree holds; `None` if there is none. One larger than [`MAX_FILE`] is an error: nothing
    /// that is looked at is, and the tree may be a stranger's.
    pub fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match self.openat2(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => {
                if FileType::from_raw_mode(fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
                    return Err(io::Error::other(format!("{path} is no regular file")));
                }
                let mut out = Vec::new();
                std::fs::File::from(fd).take(MAX_FILE + 1).read_to_end(&mut out)?;
                if out.len() as u64 > MAX_FILE {
                    return Err(io::Error::other(format!("{path} is larger than {} MiB", MAX_FILE >> 20)));
                }
                Ok(Some(out))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The first `most` bytes of a regular file.
    pub fn head(&self, path: &str, most: u64) -> io::Result<Vec<u8>> {
        let fd = self.openat2(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        if FileType::from_raw_mode(fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other(format!("{path} is no regular file")));
        }
        let mut out = Vec::new();
        std::fs::File::from(fd).take(most).read_to_end(&mut out)?;
        Ok(out)
    }

    /// Whether the path leads to something in the tree.
    pub fn exists(&self, path: &str) -> bool {
        self.openat2(path, OFlags::PATH).is_ok()
    }

    /// The path inside the tree that `path` resolves to, with its permission bits if it is a regular file.
    pub fn resolve(&self, path: &str) -> io::Result<Option<(String, u32)>> {
        let fd = match self.openat2(path, OFlags::PATH) {
            Ok(fd) => fd,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let stat = fs::fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let name =
            |fd: BorrowedFd<'_>| std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)));
        let (real, root) = (name(fd.as_fd())?, name(self.root.as_fd())?);
        let inside =
            real.strip_prefix(&root).map_err(|_| io::Error::other("the file left its tree while it was looked at"))?;
        Ok(Some((format!("/{}", inside.display()), stat.st_mode & 0o7777)))
    }

    /// Writes a file, replacing whatever has its name; directories above it are made.
    pub fn write(&self, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let (parent, name) = split(path);
        let dir = self.make_dir(parent)?;
        let temp = format!(".vz-{name}");
        // A FIFO of that name would block us, a hard link would have us change another file.
        remove_at(dir.as_fd(), &CString::new(temp.as_bytes())?, device(&dir)?)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = std::fs::File::from(fs::openat(&dir, &temp, flags, Mode::from_raw_mode(0o600))?);
        file.write_all(content)?;
        fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        Ok(fs::renameat(&dir, &temp, &dir, name)?)
    }

    /// Makes a symbolic link, replacing whatever has its name.
    pub fn symlink(&self, path: &str, target: &str) -> io::Result<()> {
        let (parent, name) = split(path);
        let dir = self.make_dir(parent)?;
        let temp = format!(".vz-{name}");
        remove_at(dir.as_fd(), &CString::new(temp.as_bytes())?, device(&dir)?)?;
        fs::symlinkat(target, &dir, &temp)?;
        Ok(fs::renameat(&dir, &temp, &dir, name)?)
    }

    /// Removes a path whose last component may hold `*`; a directory goes with what is in it. Missing is fine.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let (parent, pattern) = split(path);
        let dir = match self.dir(parent) {
            Ok(d) => d,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        for name in entries(&dir)? {
            if matches_glob(pattern.as_bytes(), name.to_bytes()) {
                remove_at(dir.as_fd(), &name, device(&dir)?)?;
            }
        }
        Ok(())
    }

    /// Empties a directory. A missing one is fine.
    pub fn clear(&self, path: &str) -> io::Result<()> {
        self.remove(&format!("{path}/*"))
    }

    /// Names in a directory of the tree, sorted; none if it is missing.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let dir = match self.dir(path) {
            Ok(d) => d,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut names: Vec<String> = entries(&dir)?.iter().filter_map(|n| n.to_str().ok().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }
}

fn split(path: &str) -> (&str, &str) {
    path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path))
}

/// `*` stands for any bytes.
fn matches_glob(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.iter().position(|b| *b == b'*') {
        None => pattern == name,
        Some(star) => {
            let (head, tail) = (&pattern[..star], &pattern[star + 1..]);
            name.starts_with(head) && (head.len()..=name.len()).any(|at| matches_glob(tail, &name[at..]))
        }
    }
}

fn entries(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut out = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if name.to_bytes() != b"." && name.to_bytes() != b".." {
            out.push(name);
        }
    }
    Ok(out)
}

fn device(dir: &OwnedFd) -> io::Result<u64> {
    Ok(fs::fstat(dir)?.st_dev)
}

/// Removes one name of a directory with everything below it, never crossing into another filesystem.
fn remove_at(dir: BorrowedFd<'_>, name: &CStr, dev: u64) -> io::Result<()> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let sub = fs::openat(dir, name, DIR | OFlags::NOFOLLOW, Mode::empty())?;
    if device(&sub)? != dev {
        return Err(io::Error::other(format!("{} is a mount point", name.to_string_lossy())));
    }
    for entry in entries(&sub)? {
        remove_at(sub.as_fd(), &entry, dev)?;
    }
    match fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Removes a directory of ours on the host with everything below it, never crossing into another
/// filesystem. A missing one is fine.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("the root is not removed"));
    };
    let dir = match fs::open(parent, DIR, Mode::empty()) {
        Ok(d) => d,
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let name = CString::new(name.as_encoded_bytes())?;
    let dev = device(&dir)?;
    remove_at(dir.as_fd(), &name, dev)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_in_a_tree_never_lead_to_the_host() {
        let host = tempfile::tempdir().unwrap();
        let outside = host.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("f"), "host").unwrap();
        let root = host.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("etc")).unwrap();
        std::os::unix::fs::symlink("../../../../../../..", root.join("up")).unwrap();
        let tree = Tree::open(&root).unwrap();
        // The absolute link means a directory of the tree that is not there.
        assert!(tree.write("/etc/f", b"x", 0o644).is_err());
        tree.write("/up/g", b"x", 0o600).unwrap();
        assert_eq!(std::fs::read(root.join("g")).unwrap(), b"x");
        tree.remove("/etc/f").unwrap();
        assert_eq!(std::fs::read(outside.join("f")).unwrap(), b"host");
        tree.remove("/etc").unwrap();
        tree.write("/etc/a/b/c", b"1", 0o640).unwrap();
        assert_eq!(tree.read("/etc/a/b/c").unwrap().unwrap(), b"1");
        tree.symlink("/init", "/etc/a/b/c").unwrap();
        assert_eq!(tree.resolve("/init").unwrap(), Some(("/etc/a/b/c".into(), 0o640)));
        tree.clear("/etc").unwrap();
        assert!(tree.list("/etc").unwrap().is_empty());
        remove_all(&root).unwrap();
        assert!(!root.exists() && outside.join("f").exists());
    }

    #[test]
    fn nothing_in_a_tree_makes_a_write_wait_or_change_another_file() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let at = |p: &str| dir.path().join(p);
        std::fs::write(at("other"), "other").unwrap();
        std::fs::hard_link(at("other"), at(".vz-a")).unwrap();
        fs::mknodat(fs::CWD, at(".vz-b"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        std::fs::create_dir_all(at(".vz-c/x")).unwrap();
        for name in ["a", "b", "c"] {
            tree.write(&format!("/{name}"), b"new", 0o644).unwrap();
            tree.symlink(&format!("/{name}-link"), "x").unwrap();
        }
        assert_eq!(std::fs::read(at("other")).unwrap(), b"other");
        fs::mknodat(fs::CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(tree.read("/fifo").is_err() && tree.head("/fifo", 1).is_err());
        assert_eq!(tree.resolve("/fifo").unwrap(), None);
    }

    #[test]
    fn globs_match_like_a_shells() {
        for (pattern, name, yes) in [
            ("a*", "abc", true),
            ("*-old", "x-old", true),
            ("*", "", true),
            ("a*b*c", "aXbYc", true),
            ("a*b", "aXc", false),
            ("ab", "abc", false),
        ] {
            assert_eq!(matches_glob(pattern.as_bytes(), name.as_bytes()), yes, "{pattern} {name}");
        }
    }
}
