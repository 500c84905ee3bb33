//! Makes the files of an archive, entry by entry, under one root and nowhere else.
//!
//! - A path is relative and has no `..`; the directory it is in is opened with `openat2` and
//!   `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV`, so nothing is ever made through a link, whoever made it.
//! - A name that is there already is replaced by something of its own kind (as `tar -r` archives do) and by nothing else.
//! - Only regular files, directories, links and FIFOs are made. A usual /dev is left out; other devices are refused.
//! - Sizes and counts are compared with the limits before a byte is written.
//!
//! Every refusal names the entry and its place in the archive.

use super::{
    Blame, Event, Failure, Limits, Plan,
    archive::{Archive, Bad, Entry, What},
    input::{Input, Trouble},
    shown,
};
use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};
use vz_types::UidBase;

/// Longest path, so that it can still be named from the host, below the store.
const MAX_PATH: usize = 3072;
/// Most directories above a file.
const MAX_DEPTH: usize = 128;
/// NAME_MAX of limits.h.
const MAX_COMPONENT: usize = 255;
/// PATH_MAX of limits.h, without the NUL.
const MAX_TARGET: usize = 4095;
/// A file of this size is a lie, not a full disk: 1 PiB.
const ABSURD: u64 = 1 << 50;
/// Most extended attributes of one file, and bytes of all their names: a listing of them stays small.
const MAX_XATTRS: usize = 64;
const MAX_XATTR_NAMES: usize = 3000;

/// What is done about an extended attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Keep,
    /// A file capability; its owner's root becomes this tree's.
    Capability,
    /// It means something on another machine only.
    LeaveOut,
    /// It means something to the host's kernel.
    Refuse,
}

/// By the beginning of the name; first match.
const XATTRS: &[(&[u8], About)] = &[
    (b"user.", About::Keep),
    (b"security.capability", About::Capability),
    (b"security.", About::LeaveOut),
    (b"system.posix_acl_access", About::Keep),
    (b"system.posix_acl_default", About::Keep),
    (b"trusted.", About::Refuse),
    (b"", About::LeaveOut),
];

/// What was left out: why, and how often.
type Notes = BTreeMap<&'static str, u64>;

const NOTE_NODES: &str = "device nodes were left out (a container's /dev is made by vz)";
const NOTE_ACLS: &str = "access control lists in text form were left out (pack with `tar --xattrs` to keep them)";
const NOTE_LABELS: &str = "extended attributes that mean something to another kernel only were left out";

/// Unpacks the whole archive. Answers [`Event::Done`].
pub fn run(plan: &Plan, archive: File, root: OwnedFd, tell: &mut dyn FnMut(Event)) -> Result<Event, Failure> {
    let at_start = |t: Trouble| Failure { blame: t.blame, entry: None, at: 0, why: t.why };
    let mut archive = Archive::new(Input::open(archive).map_err(at_start)?);
    let mut tree = Extract {
        root,
        limits: plan.limits,
        skip_devices: plan.skip_devices,
        entries: 0,
        written: 0,
        apparent: 0,
        parent: None,
        times: BTreeMap::new(),
        notes: Notes::new(),
        buffer: vec![0u8; 1 << 17],
        told: Instant::now(),
    };
    loop {
        let entry = match archive.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(bad) => return Err(failure(bad)),
        };
        tree.take(&mut archive, &entry, tell)
            .map_err(|trouble| failure(Bad { at: entry.at, path: Some(entry.path.clone()), trouble }))?;
    }
    tree.finish().map_err(at_start)?;
    let notes = tree.notes.iter().map(|(why, count)| format!("{count} {why}")).collect();
    Ok(Event::Done { compression: archive.input().compression.into(), entries: tree.entries, notes })
}

fn failure(bad: Bad) -> Failure {
    Failure { blame: bad.trouble.blame, entry: bad.path.map(|p| shown(&p)), at: bad.at, why: bad.trouble.why }
}

fn refuse(why: impl Into<String>) -> Trouble {
    Trouble::archive(why)
}

/// What the host's filesystem said; a full disk is nobody's fault.
fn host(what: &str) -> impl Fn(Errno) -> Trouble {
    move |e| {
        let blame = match e {
            Errno::NOSPC | Errno::DQUOT => Blame::Space,
            _ => Blame::Host,
        };
        Trouble { blame, why: format!("{what}: {}", io::Error::from(e)) }
    }
}

/// A path taken apart: checked, without empty and `.` components. Empty: the root itself.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, Trouble> {
    if path.starts_with(b"/") {
        return Err(refuse("its path is absolute"));
    }
    if path.contains(&0) {
        return Err(refuse("its path holds a NUL"));
    }
    if path.len() > MAX_PATH {
        return Err(refuse(format!("its path of {} bytes is longer than {MAX_PATH}", path.len())));
    }
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|c| !c.is_empty() && *c != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err(refuse("its path has `..` in it"));
    }
    if parts.len() > MAX_DEPTH {
        return Err(refuse(format!("it is {} directories deep, more than {MAX_DEPTH}", parts.len())));
    }
    if let Some(long) = parts.iter().find(|c| c.len() > MAX_COMPONENT) {
        return Err(refuse(format!("a name of {} bytes in its path is longer than {MAX_COMPONENT}", long.len())));
    }
    Ok(parts)
}

struct Extract {
    root: OwnedFd,
    limits: Limits,
    skip_devices: bool,
    entries: u64,
    written: u64,
    apparent: u64,
    /// The directory the last entry was in.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories, set when nothing is made in them any more.
    times: BTreeMap<Vec<u8>, (i64, u32)>,
    notes: Notes,
    buffer: Vec<u8>,
    told: Instant,
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Extract {
    fn take(&mut self, archive: &mut Archive, entry: &Entry, tell: &mut dyn FnMut(Event)) -> Result<(), Trouble> {
        self.check(entry)?;
        let parts = components(&entry.path)?;
        let Some((name, above)) = parts.split_last() else {
            return match entry.what {
                What::Directory => self.directory_itself(b"", entry, None),
                _ => Err(refuse(format!("it is {} and has no name", entry.what.word()))),
            };
        };
        if let What::Device(block, major, minor) = entry.what {
            return self.device(&parts, block, major, minor);
        }
        let parent = self.parent(above)?;
        let made = self.make(&parent, name, &parts, entry, archive, tell);
        self.parent = Some((above.join(&b'/'), parent));
        made?;
        self.say(archive, tell);
        Ok(())
    }

    /// What can be said of an entry without looking at the tree.
    fn check(&mut self, entry: &Entry) -> Result<(), Trouble> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(refuse(format!("the archive has more than {} entries", self.limits.entries)));
        }
        for (whose, id) in [("owner", entry.uid), ("group", entry.gid)] {
            if id >= UidBase::COUNT.into() {
                return Err(refuse(format!("its {whose} {id} is not within 0..{}", UidBase::COUNT - 1)));
            }
        }
        if entry.what != What::File {
            return Ok(());
        }
        self.apparent = self.apparent.saturating_add(entry.stored);
        let most = entry.size.max(self.apparent);
        if most <= self.limits.bytes {
            return Ok(());
        }
        let which = if entry.size >= self.apparent { "its size" } else { "the size of all files up to it" };
        let (blame, limit) = match self.limits.by_disk {
            true if entry.pieces.is_none() && most < ABSURD => (Blame::Space, "what the disk has left for it"),
            _ => (Blame::Archive, "the limit"),
        };
        Err(Trouble { blame, why: format!("{which}, {most} bytes, exceeds {limit}, {} bytes", self.limits.bytes) })
    }

    fn device(&mut self, parts: &[&[u8]], block: bool, major: u32, minor: u32) -> Result<(), Trouble> {
        if nodes::is_usual(parts, block, major, minor) || self.skip_devices {
            *self.notes.entry(NOTE_NODES).or_default() += 1;
            return Ok(());
        }
        let kind = if block { "block" } else { "character" };
        Err(refuse(format!("it is a {kind} device, {major}:{minor}, which a template does not hold")))
    }

    /// The directory an entry is to be made in, made when it is missing.
    fn parent(&mut self, above: &[&[u8]]) -> Result<OwnedFd, Trouble> {
        let path = above.join(&b'/');
        if let Some((known, fd)) = self.parent.take() {
            if known == path {
                return Ok(fd);
            }
        }
        match self.open_dir(&path) {
            Err(Errno::NOENT) => {}
            Ok(fd) => return Ok(fd),
            Err(e) => return Err(self.why_not(above, e)),
        }
        for n in 1..=above.len() {
            let (parent, name) = (above[..n - 1].join(&b'/'), above[n - 1]);
            let parent = self.open_dir(&parent).map_err(|e| self.why_not(&above[..n - 1], e))?;
            match fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(host("a directory above it cannot be made")(e)),
            }
        }
        self.open_dir(&path).map_err(|e| self.why_not(above, e))
    }

    fn open_dir(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { &b"."[..] } else { path };
        fs::openat2(&self.root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), BENEATH)
    }

    /// Which component on the way is no directory.
    fn why_not(&self, above: &[&[u8]], e: Errno) -> Trouble {
        if !matches!(e, Errno::LOOP | Errno::NOTDIR | Errno::XDEV) {
            return host("the directory it is in cannot be opened")(e);
        }
        for n in 1..=above.len() {
            let Ok(parent) = self.open_dir(&above[..n - 1].join(&b'/')) else { break };
            match kind_at(parent.as_fd(), above[n - 1]) {
                Ok(Some((FileType::Directory, _))) => {}
                Ok(Some((kind, _))) => {
                    let so_far = shown(&above[..n].join(&b'/'));
                    return refuse(format!("its path leads through {so_far}, which is {} of this archive", word(kind)));
                }
                _ => break,
            }
        }
        refuse("its path does not lead through directories alone")
    }

    fn make(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        parts: &[&[u8]],
        entry: &Entry,
        archive: &mut Archive,
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), Trouble> {
        let there = kind_at(parent.as_fd(), name).map_err(host("looking at it"))?;
        if let What::HardLink(target) = &entry.what {
            return self.hard_link(parent, name, target, there);
        }
        let wanted = match entry.what {
            What::Directory => FileType::Directory,
            What::Symlink(_) => FileType::Symlink,
            What::Fifo => FileType::Fifo,
            _ => FileType::RegularFile,
        };
        match there {
            Some((kind, _)) if kind != wanted => {
                return Err(refuse(format!(
                    "it is {}, and an earlier entry of the same name is {}",
                    entry.what.word(),
                    word(kind)
                )));
            }
            Some((FileType::Directory, _)) => return self.directory(parent, name, parts, entry),
            Some(_) => fs::unlinkat(parent, name, AtFlags::empty()).map_err(host("replacing an earlier entry"))?,
            None => {}
        }
        match &entry.what {
            What::Directory => {
                fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)).map_err(host("making the directory"))?;
                self.directory(parent, name, parts, entry)
            }
            What::Symlink(target) => self.symlink(parent, name, target, entry),
            What::Fifo => {
                fs::mknodat(parent, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                    .map_err(host("making the FIFO"))?;
                own_at(parent, name, entry)?;
                // The name was made a moment ago and nobody else is here, so it is not followed anywhere.
                fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                    .map_err(host("setting its mode"))?;
                time_at(parent, name, entry.mtime)
            }
            _ => self.file(parent, name, entry, archive, tell),
        }
    }

    fn directory(&mut self, parent: &OwnedFd, name: &[u8], parts: &[&[u8]], entry: &Entry) -> Result<(), Trouble> {
        let fd = fs::openat(parent, name, DIRECTORY, Mode::empty()).map_err(host("opening the directory"))?;
        self.directory_itself(&parts.join(&b'/'), entry, Some(fd))
    }

    /// Gives a directory its attributes; `None`: the root.
    fn directory_itself(&mut self, path: &[u8], entry: &Entry, fd: Option<OwnedFd>) -> Result<(), Trouble> {
        let fd = match fd {
            Some(fd) => fd,
            None => fs::openat(&self.root, ".", DIRECTORY, Mode::empty()).map_err(host("opening the directory"))?,
        };
        self.attributes(fd.as_fd(), entry)?;
        self.times.insert(path.to_vec(), entry.mtime);
        Ok(())
    }

    fn symlink(&mut self, parent: &OwnedFd, name: &[u8], target: &[u8], entry: &Entry) -> Result<(), Trouble> {
        if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
            return Err(refuse(format!("the target of the symbolic link has {} bytes or holds a NUL", target.len())));
        }
        fs::symlinkat(target, parent, name).map_err(host("making the symbolic link"))?;
        if !entry.xattrs.is_empty() {
            *self.notes.entry(NOTE_LABELS).or_default() += entry.xattrs.len() as u64;
        }
        own_at(parent, name, entry)?;
        time_at(parent, name, entry.mtime)
    }

    /// Another name of a file made before. Its target is a path of the archive, under the same rules as any.
    fn hard_link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        target: &[u8],
        there: Option<(FileType, u64)>,
    ) -> Result<(), Trouble> {
        let to = shown(target);
        let parts = components(target).map_err(|t| refuse(format!("it is a hard link to {to}, and {}", t.why)))?;
        let Some((last, above)) = parts.split_last() else {
            return Err(refuse("it is a hard link to nothing"));
        };
        let missing = || refuse(format!("it is a hard link to {to}, which no earlier entry is"));
        let dir = match self.open_dir(&above.join(&b'/')) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Err(missing()),
            Err(e) => {
                return Err(refuse(format!("it is a hard link to {to}, and {}", self.why_not(above, e).why)));
            }
        };
        let (kind, inode) = match kind_at(dir.as_fd(), last).map_err(host("looking at what it links to"))? {
            None => return Err(missing()),
            Some((FileType::Directory, _)) => {
                return Err(refuse(format!("it is a hard link to {to}, which is a directory")));
            }
            Some(found) => found,
        };
        match there {
            Some((_, same)) if same == inode => return Ok(()),
            Some((other, _)) if other != kind => {
                return Err(refuse(format!(
                    "it is a hard link, and an earlier entry of the same name is {}",
                    word(other)
                )));
            }
            Some(_) => fs::unlinkat(parent, name, AtFlags::empty()).map_err(host("replacing an earlier entry"))?,
            None => {}
        }
        fs::linkat(&dir, *last, parent, name, AtFlags::empty()).map_err(host("making the hard link"))
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        archive: &mut Archive,
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), Trouble> {
        let fd = fs::openat(parent, name, NEW_FILE, Mode::from_raw_mode(0o600)).map_err(host("making the file"))?;
        let writing = host("writing the file");
        match &entry.pieces {
            None => self.write(&fd, 0, entry.stored, archive, tell)?,
            Some(pieces) => {
                for (offset, length) in pieces {
                    self.write(&fd, *offset, *length, archive, tell)?;
                }
                fs::ftruncate(&fd, entry.size).map_err(&writing)?;
            }
        }
        self.attributes(fd.as_fd(), entry)?;
        fs::futimens(&fd, &times(entry.mtime)).map_err(host("setting its time"))
    }

    /// Copies the next `length` bytes of data to `offset`.
    fn write(
        &mut self,
        fd: &OwnedFd,
        mut offset: u64,
        length: u64,
        archive: &mut Archive,
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), Trouble> {
        let end = offset + length;
        while offset < end {
            let room = (end - offset).min(self.buffer.len() as u64) as usize;
            let n = archive.data(&mut self.buffer[..room]).map_err(|bad| bad.trouble)?;
            if n == 0 {
                return Err(refuse("its data is shorter than its map says"));
            }
            let mut done = 0;
            while done < n {
                match rustix::io::pwrite(fd, &self.buffer[done..n], offset) {
                    Ok(written) => (done, offset) = (done + written, offset + written as u64),
                    Err(Errno::INTR) => {}
                    Err(e) => return Err(host("writing the file")(e)),
                }
            }
            self.written += n as u64;
            self.say(archive, tell);
        }
        Ok(())
    }

    /// Owner, mode and extended attributes, in the order in which none undoes another: a change of owner clears set-uid
    /// bits and capabilities.
    fn attributes(&mut self, fd: BorrowedFd<'_>, entry: &Entry) -> Result<(), Trouble> {
        let (uid, gid) = ids(entry);
        fs::fchown(fd, Some(uid), Some(gid)).map_err(host("setting its owner"))?;
        fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(host("setting its mode"))?;
        if entry.acl {
            *self.notes.entry(NOTE_ACLS).or_default() += 1;
        }
        let names: usize = entry.xattrs.iter().map(|(name, _)| name.len() + 1).sum();
        if entry.xattrs.len() > MAX_XATTRS || names > MAX_XATTR_NAMES {
            return Err(refuse(format!(
                "it has {} extended attributes with {names} bytes of names, more than {MAX_XATTRS} or {MAX_XATTR_NAMES}",
                entry.xattrs.len()
            )));
        }
        for (name, value) in &entry.xattrs {
            self.xattr(fd, name, value)?;
        }
        Ok(())
    }

    fn xattr(&mut self, fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<(), Trouble> {
        let about = XATTRS.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or(About::LeaveOut, |(_, a)| *a);
        let capability;
        let value = match about {
            About::Keep => value,
            About::Capability => {
                capability = for_this_root(value)
                    .ok_or_else(|| refuse("its file capability (security.capability) is in no known form"))?;
                &capability
            }
            About::LeaveOut => {
                *self.notes.entry(NOTE_LABELS).or_default() += 1;
                return Ok(());
            }
            About::Refuse => {
                return Err(refuse(format!("its extended attribute {} is the host kernel's business", shown(name))));
            }
        };
        if name.contains(&0) || name.len() > MAX_COMPONENT {
            return Err(refuse("the name of an extended attribute of it is too long or holds a NUL"));
        }
        match fs::fsetxattr(fd, name, value, XattrFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) => Err(refuse(format!(
                "its extended attribute {} of {} bytes is more than the store's filesystem keeps",
                shown(name),
                value.len()
            ))),
            Err(e) => Err(host(&format!("setting its extended attribute {}", shown(name)))(e)),
        }
    }

    fn finish(&mut self) -> Result<(), Trouble> {
        self.parent = None;
        // The deepest first, or the time of the one above would change again.
        for (path, mtime) in self.times.iter().rev() {
            let path = if path.is_empty() { &b"."[..] } else { path };
            let fd = fs::openat2(&self.root, path, DIRECTORY, Mode::empty(), BENEATH);
            let fd = fd.map_err(host("opening a directory again"))?;
            fs::futimens(&fd, &times(*mtime)).map_err(host("setting a directory's time"))?;
        }
        Ok(())
    }

    fn say(&mut self, archive: &Archive, tell: &mut dyn FnMut(Event)) {
        if self.told.elapsed() >= Duration::from_millis(250) {
            self.told = Instant::now();
            let read = archive.input().read();
            tell(Event::Progress { read, entries: self.entries, written: self.written });
        }
    }
}

fn kind_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<(FileType, u64)>, Errno> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((FileType::from_raw_mode(stat.st_mode), stat.st_ino))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        _ => "something else",
    }
}

fn ids(entry: &Entry) -> (Uid, Gid) {
    // Checked to be below 65536.
    (Uid::from_raw(entry.uid as u32), Gid::from_raw(entry.gid as u32))
}

fn own_at(parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Trouble> {
    let (uid, gid) = ids(entry);
    fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(host("setting its owner"))
}

fn times((tv_sec, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn time_at(parent: &OwnedFd, name: &[u8], mtime: (i64, u32)) -> Result<(), Trouble> {
    fs::utimensat(parent, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(host("setting its time"))
}

/// A file capability (linux/capability.h, `vfs_cap_data`) as one of the root of the namespace it is set in: version 2,
/// which the kernel itself turns into version 3 with that root's id. Version 3 from elsewhere names another root.
fn for_this_root(value: &[u8]) -> Option<Vec<u8>> {
    const REVISION_MASK: u32 = 0xff00_0000;
    const REVISION_2: u32 = 0x0200_0000;
    const REVISION_3: u32 = 0x0300_0000;
    let magic = u32::from_le_bytes(value.get(..4)?.try_into().ok()?);
    let length = match magic & REVISION_MASK {
        REVISION_2 => 20,
        REVISION_3 => 24,
        _ => return None,
    };
    (value.len() == length).then(|| {
        let flags = magic & !REVISION_MASK;
        [&(REVISION_2 | flags).to_le_bytes()[..], &value[4..20]].concat()
    })
}

mod nodes;
#[cfg(test)]
mod tests;
