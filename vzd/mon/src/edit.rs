//! Changes to a container's own files, made as its root from inside its namespaces. The caller has
//! already joined them, dropped to container root, set `no_new_privs` and rlimits and armed a deadline;
//! nothing here can therefore reach further than the tenant could by himself. What is left to get right
//! is that no file of his confuses us, and that one of his *users* gains nothing from another:
//!
//! - paths resolve inside the root (`openat2`, `RESOLVE_IN_ROOT`), the last component is never followed;
//! - a file that is read must be regular, have one name and be at most [`MAX_FILE`]; opening never blocks;
//! - a file is replaced as a whole: new file in the same directory, owner and mode kept, rename.
//!
//! [`accounts`] edits the text of passwd, shadow, group and hosts and touches no file. [`takers`] feeds the programs
//! that take resolv.conf over. What is written as a whole is written when the operator asks for it, and stays with the
//! tenant from then on ([`Last`]).

mod accounts;
mod takers;

use rustix::{
    event::{Timespec, poll},
    fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
    process::{Gid, Uid},
};
use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{SystemTime, UNIX_EPOCH},
};
use vz_types::{UserName, plan::FileEdit, written::Entry};

/// The largest file that is read and replaced.
const MAX_FILE: usize = 1 << 20;
/// Waits of 50 ms each for `/etc/.pwd.lock`.
const LOCK_WAITS: u32 = 40;

/// An edit, and what is known of the last time.
#[derive(Clone, Debug)]
pub struct Due {
    /// The edit.
    pub edit: FileEdit,
    /// See there.
    pub last: Last,
}

/// What vz wrote last into the file that an edit writes as a whole.
#[derive(Clone, Debug)]
pub enum Last {
    /// Of no account: the operator asks for it now.
    Asked,
    /// This; `None`: it never wrote it. The file is the tenant's as long as the setting is the one it was written for,
    /// unless it is still exactly ours, or gone.
    Was(Option<Entry>),
    /// The record cannot be read, so only a file that is missing is written.
    Unreadable,
}

/// What became of one edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Done {
    /// The file has it.
    Written,
    /// The tenant's own was left as it is.
    Kept,
    /// See [`Outcome::failed`].
    Failed,
}

/// What became of all of them, as a child tells it.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    /// One for each that was tried, in order.
    pub done: Vec<Done>,
    /// What failed, in words.
    pub failed: Vec<String>,
}

impl Outcome {
    /// Nothing but this.
    pub fn of(result: Result<(), String>) -> Self {
        Self { done: Vec::new(), failed: result.err().into_iter().collect() }
    }
}

/// Carries out edits in order on the root directory, durably. The first failure ends it; it names the
/// file and the reason.
pub fn apply(edits: &[Due]) -> Outcome {
    apply_at(edits, false)
}

/// The same for the edits before a boot, in whose UTS namespace this is. Nothing waits for the disk; one that fails keeps no other from being done,
/// and a host name of the tenant's own is the running one from the start.
pub fn apply_for_boot(edits: &[Due]) -> Outcome {
    apply_at(edits, true)
}

fn apply_at(edits: &[Due], boot: bool) -> Outcome {
    if edits.is_empty() {
        return Outcome::default();
    }
    match fs::open("/", DIR, Mode::empty()) {
        Ok(root) => apply_in(root.as_fd(), edits, boot),
        Err(e) => Outcome::of(Err(format!("/: {e}"))),
    }
}

/// [`apply`] on any directory.
fn apply_in(root: BorrowedFd<'_>, edits: &[Due], boot: bool) -> Outcome {
    let root = Root { root, boot, durable: !boot };
    let mut all = Outcome::default();
    for Due { edit, last } in edits {
        let done = match edit {
            FileEdit::Hostname { hostname } => root.hostname(hostname.as_str(), edit, last),
            FileEdit::Resolver { .. } => root.resolver(edit, last),
            FileEdit::Password { user, hash } => root.password(user, hash).map(|()| Done::Written),
            FileEdit::SshKeys { user, keys } => root.ssh_keys(user, keys).map(|()| Done::Written),
        };
        all.done.push(*done.as_ref().unwrap_or(&Done::Failed));
        all.failed.extend(done.err());
        if !boot && !all.failed.is_empty() {
            break;
        }
    }
    all
}

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

struct Root<'a> {
    root: BorrowedFd<'a>,
    boot: bool,
    durable: bool,
}

/// A directory with the path it is spoken of by.
struct Dir {
    fd: OwnedFd,
    path: String,
}

/// A file that was read.
struct Found {
    bytes: Vec<u8>,
    stat: Stat,
}

/// Owner and mode of a file to be written.
#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Owner {
    const fn root(mode: u32) -> Self {
        Self { uid: 0, gid: 0, mode }
    }

    fn of(stat: &Stat) -> Self {
        Self { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 }
    }
}

impl Dir {
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// What the last component is, itself and not what it may point to.
    fn kind(&self, name: &str) -> Result<Option<(FileType, Stat)>, String> {
        match fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((FileType::from_raw_mode(stat.st_mode), stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(format!("{}: {e}", self.name(name))),
        }
    }

    /// Reads a file that is going to be changed; `None` if there is none.
    fn read(&self, name: &str) -> Result<Option<Found>, String> {
        let what = |why: &str| Err(format!("{} {why}; nothing was changed in it", self.name(name)));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // Looking first keeps us from opening a device; opening decides.
        match self.kind(name)? {
            None => return Ok(None),
            Some((FileType::RegularFile, _)) => {}
            Some((kind, _)) => return what(kind_word(kind)),
        }
        let fd = match fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return what(kind_word(FileType::Symlink)),
            Err(e) => return Err(format!("{}: {e}", self.name(name))),
        };
        let stat = fs::fstat(&fd).map_err(|e| format!("{}: {e}", self.name(name)))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::RegularFile {
            return what(kind_word(kind));
        }
        if stat.st_nlink != 1 {
            return what("has several names (hard links)");
        }
        let mut bytes = Vec::new();
        let limit = MAX_FILE as u64 + 1;
        File::from(fd).take(limit).read_to_end(&mut bytes).map_err(|e| format!("{}: {e}", self.name(name)))?;
        if bytes.len() > MAX_FILE {
            return what("is larger than 1 MiB");
        }
        Ok(Some(Found { bytes, stat }))
    }

    /// Puts a new file in place of `name`.
    fn replace(&self, name: &str, bytes: &[u8], owner: Owner, durable: bool) -> Result<(), String> {
        let on = |e: Errno| format!("{} cannot be replaced: {e}", self.name(name));
        let (temp, fd) = self.temp(name).map_err(on)?;
        let fill = || -> Result<(), String> {
            let mut file = File::from(fd);
            let stat = fs::fstat(&file).map_err(on)?;
            if (stat.st_uid, stat.st_gid) != (owner.uid, owner.gid) {
                fs::fchown(&file, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid))).map_err(on)?;
            }
            file.write_all(bytes).map_err(|e| format!("{} cannot be written: {e}", self.name(name)))?;
            fs::fchmod(&file, Mode::from_raw_mode(owner.mode)).map_err(on)?;
            if durable {
                fs::fsync(&file).map_err(on)?;
            }
            fs::renameat(&self.fd, &temp, &self.fd, name).map_err(on)
        };
        if let Err(e) = fill() {
            let _ = fs::unlinkat(&self.fd, &temp, AtFlags::empty());
            return Err(e);
        }
        if durable { fs::fsync(&self.fd).map_err(on) } else { Ok(()) }
    }

    /// A new file beside `name`. A left-over of ours is replaced, anything else with that name is not touched.
    fn temp(&self, name: &str) -> Result<(String, OwnedFd), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut last = Errno::EXIST;
        for n in 0..8 {
            let temp = format!(".{name}.vz{n}");
            match fs::openat(&self.fd, &temp, flags, Mode::from_raw_mode(0o600)) {
                Ok(fd) => return Ok((temp, fd)),
                Err(Errno::EXIST) => {
                    let _ = fs::unlinkat(&self.fd, &temp, AtFlags::empty());
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Replaces a file whose old content does not matter; a symbolic link is replaced itself. The same
    /// content is left alone, so that the edits of each boot cost nothing from the second one on.
    fn overwrite(&self, name: &str, bytes: &[u8], durable: bool) -> Result<(), String> {
        let owner = match self.kind(name)? {
            None | Some((FileType::Symlink, _)) => Owner::root(0o644),
            Some((FileType::RegularFile, stat)) => {
                if stat.st_nlink == 1 && self.read(name).is_ok_and(|f| f.is_some_and(|f| f.bytes == bytes)) {
                    return Ok(());
                }
                Owner::of(&stat)
            }
            Some((kind, _)) => {
                return Err(format!("{} {}; nothing was changed in it", self.name(name), kind_word(kind)));
            }
        };
        self.replace(name, bytes, owner, durable)
    }
}

fn kind_word(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "is a symbolic link",
        FileType::Directory => "is a directory",
        FileType::Fifo => "is a FIFO",
        FileType::Socket => "is a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "is a device",
        _ => "is no regular file",
    }
}

impl Root<'_> {
    /// Opens a directory by its path inside the root.
    fn dir(&self, path: &str) -> Result<Option<Dir>, String> {
        let rel = path.trim_start_matches('/');
        let rel = if rel.is_empty() { "." } else { rel };
        match vz_sys::open::inside(self.root, rel, DIR, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
            Ok(fd) => Ok(Some(Dir { fd, path: path.trim_end_matches('/').to_owned() })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(format!("{path}: {e}")),
        }
    }

    /// `/etc`, made if the root has none.
    fn etc(&self) -> Result<Dir, String> {
        if let Some(etc) = self.dir("/etc")? {
            return Ok(etc);
        }
        fs::mkdirat(self.root, "etc", Mode::from_raw_mode(0o755)).map_err(|e| format!("/etc: {e}"))?;
        self.dir("/etc")?.ok_or_else(|| "/etc: it went away".to_owned())
    }

    /// Whether the file is the tenant's by now: its setting is the one it was written for, and it is not as we wrote it.
    fn is_theirs(dir: &Dir, name: &str, last: &Last, setting: &str) -> Result<bool, String> {
        let ours = match last {
            Last::Was(Some(entry)) if entry.setting == setting => Some(&entry.text),
            Last::Asked | Last::Was(_) => return Ok(false),
            Last::Unreadable => None,
        };
        Ok(match dir.kind(name)? {
            None => false,
            Some((FileType::RegularFile, _)) => {
                // One that we would not read is none that we wrote.
                !ours.is_some_and(|ours| dir.read(name).is_ok_and(|f| f.is_some_and(|f| f.bytes == ours.as_bytes())))
            }
            Some(_) => true,
        })
    }

    fn hostname(&self, name: &str, edit: &FileEdit, last: &Last) -> Result<Done, String> {
        let Some(new) = Entry::of(edit) else { return Ok(Done::Kept) };
        let etc = self.etc()?;
        if Self::is_theirs(&etc, "hostname", last, &new.setting)? {
            if self.boot
                && let Ok(Some(own)) = etc.read("hostname")
                && let Some(own) = own_name(&own.bytes)
            {
                let _ = nix::unistd::sethostname(own.as_str());
            }
            return Ok(Done::Kept);
        }
        etc.overwrite("hostname", new.text.as_bytes(), self.durable)?;
        let asked = !matches!(last, Last::Was(Some(entry)) if entry.setting == new.setting);
        match etc.read("hosts")? {
            // Without a new name a line that is not there has been taken out.
            Some(_) if !asked => {}
            Some(f) => {
                let hosts = accounts::hosts(&f.bytes, name);
                if f.bytes != hosts {
                    etc.replace("hosts", &hosts, Owner::of(&f.stat), self.durable)?;
                }
            }
            None => etc.replace("hosts", &accounts::hosts(b"", name), Owner::root(0o644), self.durable)?,
        }
        Ok(Done::Written)
    }

    fn resolver(&self, edit: &FileEdit, last: &Last) -> Result<Done, String> {
        let Some(new) = Entry::of(edit) else { return Ok(Done::Kept) };
        takers::feed(self, edit);
        let etc = self.etc()?;
        if Self::is_theirs(&etc, "resolv.conf", last, &new.setting)? {
            return Ok(Done::Kept);
        }
        etc.overwrite("resolv.conf", new.text.as_bytes(), self.durable)?;
        Ok(Done::Written)
    }

    fn password(&self, user: &UserName, hash: &str) -> Result<(), String> {
        if hash.is_empty() || hash.bytes().any(|b| !b.is_ascii_graphic() || b == b':') {
            return Err("the password hash is not one line of crypt(5) text".into());
        }
        let etc = self.etc()?;
        let _lock = lock_accounts(&etc)?;
        let Some(passwd) = etc.read("passwd")? else {
            return Err("/etc/passwd is missing: this container has no users".into());
        };
        let known = accounts::user(&passwd.bytes, user.as_str());
        if known.is_none() && user.as_str() == "root" {
            return Err("/etc/passwd has no user root".into());
        }
        let shadow = etc.read("shadow")?;
        let field = if shadow.is_some() { "x" } else { hash };
        let new_passwd = match &known {
            Some(_) => accounts::with_password_field(&passwd.bytes, user.as_str(), field),
            None => self.new_user(&etc, user.as_str(), &passwd.bytes, field)?,
        };
        if let Some(shadow) = &shadow {
            let days = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
            let new = accounts::with_shadow(&shadow.bytes, user.as_str(), hash, days);
            etc.replace("shadow", &new, Owner::of(&shadow.stat), self.durable)?;
        }
        if new_passwd != passwd.bytes {
            etc.replace("passwd", &new_passwd, Owner::of(&passwd.stat), self.durable)?;
        }
        match known {
            Some(_) => Ok(()),
            None => self.new_home(user.as_str(), &new_passwd),
        }
    }

    /// Makes the user's group and gives passwd with his line in it.
    fn new_user(&self, etc: &Dir, user: &str, passwd: &[u8], field: &str) -> Result<Vec<u8>, String> {
        let (group, gshadow) = (etc.read("group")?, etc.read("gshadow")?);
        let group_text = group.as_ref().map_or(&b""[..], |f| &f.bytes);
        let id = accounts::free_id(passwd, group_text)
            .ok_or("no user id from 1000 to 59999 is free in /etc/passwd and /etc/group")?;
        let gid = match accounts::group_id(group_text, user) {
            Some(gid) => gid,
            None => {
                let new = accounts::with_line(group_text, &format!("{user}:x:{id}:"));
                etc.replace(
                    "group",
                    &new,
                    group.as_ref().map_or(Owner::root(0o644), |f| Owner::of(&f.stat)),
                    self.durable,
                )?;
                if let Some(gshadow) = &gshadow {
                    let new = accounts::with_line(&gshadow.bytes, &format!("{user}:!::"));
                    etc.replace("gshadow", &new, Owner::of(&gshadow.stat), self.durable)?;
                }
                id
            }
        };
        let bash = self.dir("/bin")?.map_or(Ok(None), |bin| bin.kind("bash"))?.is_some();
        let shell = if bash { "/bin/bash" } else { "/bin/sh" };
        Ok(accounts::with_line(passwd, &format!("{user}:{field}:{id}:{gid}::/home/{user}:{shell}")))
    }

    /// Makes a new user's home with the plain files of `/etc/skel`. One that is there already is his predecessor's
    /// and left alone.
    fn new_home(&self, user: &str, passwd: &[u8]) -> Result<(), String> {
        let Some(who) = accounts::user(passwd, user) else { return Err(format!("/etc/passwd has no user {user}")) };
        if self.dir("/home")?.is_none() {
            fs::mkdirat(self.root, "home", Mode::from_raw_mode(0o755)).map_err(|e| format!("/home: {e}"))?;
        }
        let Some(homes) = self.dir("/home")? else { return Err("/home: it went away".into()) };
        let on = |e: Errno| format!("/home/{user}: {e}");
        match fs::mkdirat(&homes.fd, user, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(()),
            Err(e) => return Err(on(e)),
        }
        let fd = fs::openat(&homes.fd, user, DIR | OFlags::NOFOLLOW, Mode::empty()).map_err(on)?;
        let home = Dir { fd, path: format!("/home/{user}") };
        if let Some(skel) = self.dir("/etc/skel")? {
            for entry in fs::Dir::read_from(&skel.fd).map_err(|e| format!("/etc/skel: {e}"))?.flatten().take(256) {
                let Ok(name) = entry.file_name().to_str() else { continue };
                if skel.kind(name)?.is_some_and(|(kind, _)| kind == FileType::RegularFile) {
                    let Some(file) = skel.read(name)? else { continue };
                    home.replace(
                        name,
                        &file.bytes,
                        Owner { uid: who.uid, gid: who.gid, mode: file.stat.st_mode & 0o777 },
                        self.durable,
                    )?;
                }
            }
        }
        fs::fchown(&home.fd, Some(Uid::from_raw(who.uid)), Some(Gid::from_raw(who.gid))).map_err(on)
    }

    fn ssh_keys(&self, user: &UserName, keys: &[String]) -> Result<(), String> {
        if let Some(bad) =
            keys.iter().find(|k| k.bytes().any(|b| b < b' ') || k.split_ascii_whitespace().nth(1).is_none())
        {
            return Err(format!(
                "`{}` is no line of an authorized_keys file",
                bad.chars().take(40).collect::<String>()
            ));
        }
        let etc = self.etc()?;
        let passwd = etc.read("passwd")?;
        let Some(who) = accounts::user(passwd.as_ref().map_or(b"", |f| &f.bytes), user.as_str()) else {
            return Err(format!("/etc/passwd has no user {user}; `--userpasswd {user}:PASSWORD` makes one"));
        };
        if !who.home.starts_with('/') {
            return Err(format!("the home directory of {user} in /etc/passwd is no absolute path"));
        }
        let Some(home) = self.dir(&who.home)? else {
            return Err(format!("{}, the home directory of {user}, does not exist", who.home));
        };
        let ssh = self.ssh_dir(&home, &who)?;
        let old = ssh.read("authorized_keys")?;
        let new = accounts::with_keys(old.as_ref().map_or(b"", |f| &f.bytes), keys);
        let owner = match &old {
            Some(f) if f.bytes == new => return Ok(()),
            // sshd refuses a file that others can write.
            Some(f) => Owner { mode: f.stat.st_mode & 0o755, ..Owner::of(&f.stat) },
            None => Owner { uid: who.uid, gid: who.gid, mode: 0o600 },
        };
        ssh.replace("authorized_keys", &new, owner, self.durable)
    }

    /// `.ssh` below a home. The user owns the home and might have put a link there to have root write elsewhere: not followed.
    fn ssh_dir(&self, home: &Dir, who: &accounts::User) -> Result<Dir, String> {
        let path = home.name(".ssh");
        let on = |e: Errno| format!("{path}: {e}");
        let made = match fs::mkdirat(&home.fd, ".ssh", Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(e) => return Err(on(e)),
        };
        let fd = match fs::openat(&home.fd, ".ssh", DIR | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let word = home.kind(".ssh")?.map_or("went away", |(kind, _)| kind_word(kind));
                return Err(format!("{path} {word}; nothing was changed"));
            }
            Err(e) => return Err(on(e)),
        };
        let stat = fs::fstat(&fd).map_err(on)?;
        if made && (stat.st_uid, stat.st_gid) != (who.uid, who.gid) {
            fs::fchown(&fd, Some(Uid::from_raw(who.uid)), Some(Gid::from_raw(who.gid))).map_err(on)?;
        } else if !made && stat.st_uid != who.uid && stat.st_uid != 0 {
            return Err(format!("{path} belongs to neither its user nor root; nothing was changed"));
        }
        if stat.st_mode & 0o022 != 0 {
            fs::fchmod(&fd, Mode::from_raw_mode(0o700)).map_err(on)?;
        }
        Ok(Dir { fd, path })
    }
}

/// The host name in `/etc/hostname` (hostname(5)): its first line that is no comment, if it is one.
fn own_name(text: &[u8]) -> Option<vz_types::Hostname> {
    let text = std::str::from_utf8(text).ok()?;
    text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#'))?.parse().ok()
}

/// Takes the lock that passwd(1) and useradd(8) take (`lckpwdf(3)`), so that neither loses the other's change.
fn lock_accounts(etc: &Dir) -> Result<OwnedFd, String> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let path = etc.name(".pwd.lock");
    let fd = fs::openat(&etc.fd, ".pwd.lock", flags, Mode::from_raw_mode(0o600)).map_err(|e| format!("{path}: {e}"))?;
    for _ in 0..LOCK_WAITS {
        match fs::fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(fd),
            // No event tells when such a lock is free again.
            Err(Errno::WOULDBLOCK | Errno::ACCESS) => {
                let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 }));
            }
            Err(e) => return Err(format!("{path}: {e}")),
        }
    }
    Err(format!("{path} is held: another program in the container is changing its users; try again"))
}

#[cfg(test)]
mod tests;
