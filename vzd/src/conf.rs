//! What the operator wants of each container: `/etc/vz/conf/<CTID>.toml`. Read on use, so that edits by
//! hand count at once; changed with toml_edit, so that comments and order stay; replaced atomically.
//! Imports vz-types, and what reads files and mounts of vz-sys.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use toml_edit::{DocumentMut, Item, TableLike};
use vz_types::{CtConfig, Ctid, ExitCode, Paths, config::DiskConfig};

/// Why a configuration could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// The file is there, but not readable as a file.
    #[error("{} cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The text is not a configuration.
    #[error("{} line {line}{}: {cause}", path.display(), key_words(key.as_deref()))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key on that line.
        key: Option<String>,
        /// What is wrong with it.
        cause: String,
    },
    /// It could not be replaced; the old one is still there.
    #[error("{} cannot be written: {cause}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
        /// The disk is full.
        full: bool,
    },
}

fn key_words(key: Option<&str>) -> String {
    key.map_or_else(String::new, |k| format!(", key `{k}`"))
}

impl Error {
    /// What `vzctl` exits with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Missing(_) => ExitCode::NoConfig,
            Self::Unreadable { .. } | Self::Invalid { .. } => ExitCode::BadConfig,
            Self::Write { full: true, .. } => ExitCode::NoSpace,
            Self::Write { .. } => ExitCode::ConfigSave,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Invalid { path, line, .. } => {
                Some(format!("correct line {line} of {} and try again", path.display()))
            }
            Self::Missing(path) => Some(format!("restore {} from a backup, or destroy the container", path.display())),
            _ => None,
        }
    }
}

/// Tells one version of a file from the next without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

/// A version of a file and its meaning.
type Reading = (Stamp, Result<Arc<CtConfig>, Error>);

/// The configurations of one manager.
#[derive(Debug)]
pub struct ConfStore {
    paths: Paths,
    cache: Mutex<HashMap<Ctid, Reading>>,
}

impl ConfStore {
    /// Those below `paths`.
    pub fn new(paths: Paths) -> Self {
        Self { paths, cache: Mutex::default() }
    }

    /// Every CTID with a configuration file, in order.
    pub fn list(&self) -> Vec<Ctid> {
        let Ok(entries) = fs::read_dir(self.paths.conf_dir()) else { return Vec::new() };
        let mut all: Vec<Ctid> = entries
            .flatten()
            .filter_map(|e| e.file_name().to_str().and_then(|n| n.strip_suffix(".toml")).and_then(|n| n.parse().ok()))
            .collect();
        all.sort_unstable();
        all
    }

    /// One container's configuration as the file says now.
    pub fn read(&self, ctid: Ctid) -> Result<Arc<CtConfig>, Error> {
        let path = self.paths.conf(ctid);
        let meta = match fs::metadata(&path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                self.forget(ctid);
                return Err(Error::Missing(path));
            }
            Err(e) => return Err(Error::Unreadable { path, cause: e.to_string() }),
        };
        let stamp = Stamp {
            inode: meta.ino(),
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, result)) = cache.get(&ctid) {
            if *known == stamp {
                return result.clone();
            }
        }
        let result = self.text(ctid).and_then(|text| parse(&path, &text)).map(Arc::new);
        // What could not be read this time may be read the next.
        match &result {
            Ok(_) | Err(Error::Invalid { .. }) => drop(cache.insert(ctid, (stamp, result.clone()))),
            Err(_) => drop(cache.remove(&ctid)),
        }
        result
    }

    /// The file's text.
    pub fn text(&self, ctid: Ctid) -> Result<String, Error> {
        let path = self.paths.conf(ctid);
        let unreadable = |cause: String| Error::Unreadable { path: path.clone(), cause };
        let text = vz_sys::records::operators_bytes(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::Missing(path.clone()),
            _ => unreadable(e.to_string()),
        })?;
        String::from_utf8(text).map_err(|e| {
            let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
            Error::Invalid { path: path.clone(), line, key: None, cause: "it is not UTF-8 text".into() }
        })
    }

    /// The text of `ctid`'s file changed to mean `new`, with everything that did not change left as it was.
    pub fn edited(&self, ctid: Ctid, new: &CtConfig) -> Result<String, Error> {
        let path = self.paths.conf(ctid);
        let text = self.text(ctid)?;
        let old = parse(&path, &text)?;
        let write = |e: &dyn std::fmt::Display| Error::Write { path: path.clone(), cause: e.to_string(), full: false };
        let mut doc: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| write(&e))?;
        let old = toml_edit::ser::to_document(&old).map_err(|e| write(&e))?;
        let new_doc = toml_edit::ser::to_document(new).map_err(|e| write(&e))?;
        change(doc.as_table_mut(), old.as_table(), new_doc.as_table());
        let text = doc.to_string();
        // What is written must mean what was asked for.
        match parse(&path, &text) {
            Ok(meant) if meant == *new => Ok(text),
            Ok(_) => Err(write(&"its layout is too unusual to be edited; edit it by hand")),
            Err(e) => Err(write(&e)),
        }
    }

    /// Replaces `ctid`'s file by `text` atomically and durably.
    pub fn replace(&self, ctid: Ctid, text: &str) -> Result<(), Error> {
        let path = self.paths.conf(ctid);
        self.forget(ctid);
        write_atomically(&path, text.as_bytes(), 0o644).map_err(|e| write_error(path, &e))
    }

    /// Writes what is to replace `ctid`'s file beside it, durably: whether that can be done is known then, before anything
    /// else is changed.
    pub fn stage(&self, ctid: Ctid, text: &str) -> Result<(), Error> {
        let path = self.paths.conf(ctid);
        replaceable(&path)
            .and_then(|()| write_beside(&path, text.as_bytes(), 0o644, File::sync_data))
            .map_err(|e| write_error(path, &e))
    }

    /// Makes what was staged the file, atomically and durably.
    pub fn place(&self, ctid: Ctid) -> Result<(), Error> {
        let path = self.paths.conf(ctid);
        self.forget(ctid);
        fs::rename(temporary(&path), &path).and_then(|()| sync_dir(&path)).map_err(|e| write_error(path, &e))
    }

    /// Removes what was staged and is not to be the file; nothing there is fine.
    pub fn unstage(&self, ctid: Ctid) -> Result<(), Error> {
        let path = self.paths.conf(ctid);
        absent_is_fine(fs::remove_file(temporary(&path))).map_err(|e| write_error(path, &e))
    }

    /// The text of a new file.
    pub fn render(&self, ctid: Ctid, config: &CtConfig) -> Result<String, Error> {
        let path = self.paths.conf(ctid);
        let body = toml::to_string(config).map_err(|e| Error::Write { path, cause: e.to_string(), full: false })?;
        Ok(format!("# CT {ctid}. Edits by hand count from the next operation on.\n{body}"))
    }

    /// Puts the file aside as `.destroyed`; no file is fine.
    pub fn retire(&self, ctid: Ctid) -> Result<(), Error> {
        self.forget(ctid);
        let (from, to) = (self.paths.conf(ctid), self.paths.conf_destroyed(ctid));
        absent_is_fine(fs::rename(&from, &to)).and_then(|()| sync_dir(&from)).map_err(|e| Error::Write {
            path: from,
            cause: e.to_string(),
            full: false,
        })
    }

    /// Removes the file, and what an interrupted [`ConfStore::replace`] left of it, durably; no file is fine.
    pub fn remove(&self, ctid: Ctid) -> Result<(), Error> {
        self.forget(ctid);
        let path = self.paths.conf(ctid);
        absent_is_fine(fs::remove_file(&path))
            .and_then(|()| absent_is_fine(fs::remove_file(temporary(&path))))
            .and_then(|()| sync_dir(&path))
            .map_err(|e| Error::Write { path, cause: e.to_string(), full: false })
    }

    /// Removes what interrupted replacements left. Only for when nothing is being replaced.
    pub fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.paths.conf_dir()) else { return };
        for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().ends_with(TEMPORARY)) {
            if let Err(e) = fs::remove_file(entry.path()) {
                tracing::warn!(path = %entry.path().display(), "a leftover stays: {e}");
            }
        }
    }

    fn forget(&self, ctid: Ctid) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).remove(&ctid);
    }
}

/// Refuses what a rename cannot replace although its directory can be written to: a file that is immutable (chattr +i), or
/// mounted there.
fn replaceable(path: &Path) -> std::io::Result<()> {
    match rustix::fs::access(path, rustix::fs::Access::WRITE_OK) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        done => done?,
    }
    match vz_sys::mount::is_mount_point(path)? {
        true => Err(std::io::Error::new(std::io::ErrorKind::ResourceBusy, "it is a mount of its own")),
        false => Ok(()),
    }
}

/// Makes durable that a file was renamed or removed.
fn sync_dir(file: &Path) -> std::io::Result<()> {
    File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn absent_is_fine(r: std::io::Result<()>) -> std::io::Result<()> {
    match r {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        r => r,
    }
}

/// How the name of a file ends that is about to replace another.
const TEMPORARY: &str = ".toml.new";

/// `101.toml` is written as `101.toml.new` first.
fn temporary(path: &Path) -> PathBuf {
    path.with_extension("toml.new")
}

/// A temporary file beside `path`, synced, renamed over it, the directory synced.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    put(path, content, mode, File::sync_data)?;
    File::open(dir)?.sync_all()
}

/// The same for what means nothing after this boot of the host: whole or not at all for everybody who looks, and not
/// waiting for a disk.
pub fn write_for_this_boot(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    put(path, content, mode, |_| Ok(()))
}

fn put(path: &Path, content: &[u8], mode: u32, written: impl Fn(&File) -> std::io::Result<()>) -> std::io::Result<()> {
    write_beside(path, content, mode, written)?;
    let temp = temporary(path);
    fs::rename(&temp, path).inspect_err(|_| drop(fs::remove_file(&temp)))
}

fn write_beside(
    path: &Path,
    content: &[u8],
    mode: u32,
    written: impl Fn(&File) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let temp = temporary(path);
    let write = || -> std::io::Result<()> {
        absent_is_fine(fs::remove_file(&temp))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temp)?;
        file.write_all(content)?;
        written(&file)
    };
    write().inspect_err(|_| drop(fs::remove_file(&temp)))
}

fn write_error(path: PathBuf, e: &std::io::Error) -> Error {
    Error::Write { full: e.kind() == std::io::ErrorKind::StorageFull, cause: e.to_string(), path }
}

/// The meaning of a configuration's text.
pub fn parse(path: &Path, text: &str) -> Result<CtConfig, Error> {
    let config: CtConfig = toml::from_str(text).map_err(|e| located(path, text, &e))?;
    match fault(&config) {
        None => Ok(config),
        Some((key, cause)) => {
            let line = text.lines().position(|l| key_of(l).as_deref() == Some(key)).map_or(1, |i| i + 1);
            Err(Error::Invalid { path: path.into(), line, key: Some(key.into()), cause })
        }
    }
}

/// A TOML error with the line and the key it is about.
pub fn located(path: &Path, text: &str, e: &toml::de::Error) -> Error {
    let at = e.span().map_or(0, |s| s.start.min(text.len()));
    let line = 1 + text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
    let key = text.lines().nth(line - 1).and_then(key_of);
    let cause = e.message().replace('\n', "; ");
    Error::Invalid { path: path.into(), line, key, cause }
}

fn key_of(line: &str) -> Option<String> {
    let key = line.split_once('=')?.0.trim();
    let word = key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.\"".contains(&b));
    (!key.is_empty() && word).then(|| key.to_owned())
}

/// The rules a type alone cannot hold: (key, what is wrong).
pub fn fault(c: &CtConfig) -> Option<(&'static str, String)> {
    let DiskConfig { space, inodes } = c.disk;
    if !(DiskConfig::MIN_SPACE..=DiskConfig::MAX_SPACE).contains(&space) {
        return Some(("space", format!("{space} is outside {}..{}", DiskConfig::MIN_SPACE, DiskConfig::MAX_SPACE)));
    }
    if !(DiskConfig::MIN_INODES..=DiskConfig::MAX_INODES).contains(&inodes) {
        return Some(("inodes", format!("{inodes} is outside {}..{}", DiskConfig::MIN_INODES, DiskConfig::MAX_INODES)));
    }
    if c.stop_timeout.is_some_and(|t| !(1..=3600).contains(&t)) {
        return Some(("stop_timeout", "it is outside 1..3600 seconds".into()));
    }
    let repeated = c.network.ip.iter().enumerate().find(|(i, ip)| c.network.ip[..*i].contains(ip));
    repeated.map(|(_, ip)| ("ip", format!("{ip} is there twice")))
}

/// The rules of [`fault`], as a refusal of a request.
///
/// # Errors
/// Key and cause, in words.
pub fn check(c: &CtConfig) -> Result<(), String> {
    fault(c).map_or(Ok(()), |(key, cause)| Err(format!("{key}: {cause}")))
}

/// Applies the differences between `old` and `new` to `doc`, key by key.
fn change(doc: &mut dyn TableLike, old: &dyn TableLike, new: &dyn TableLike) {
    for (key, _) in old.iter().filter(|(k, _)| new.get(k).is_none_or(Item::is_none)) {
        doc.remove(key);
    }
    for (key, item) in new.iter().filter(|(_, i)| !i.is_none()) {
        let before = old.get(key).filter(|i| !i.is_none());
        if before.is_some_and(|b| plain(b) == plain(item)) {
            continue;
        }
        let empty = toml_edit::Table::new();
        match (item.as_table_like(), doc.get_mut(key)) {
            (Some(table), Some(there)) if there.is_table_like() => {
                let old = before.and_then(Item::as_table_like).unwrap_or(&empty);
                if let Some(there) = there.as_table_like_mut() {
                    change(there, old, table);
                }
            }
            (Some(table), _) => {
                let mut fresh = toml_edit::Table::new();
                change(&mut fresh, &empty, table);
                doc.insert(key, Item::Table(fresh));
            }
            (None, Some(there)) => replace_value(there, item),
            (None, None) => {
                doc.insert(key, item.clone());
            }
        }
    }
}

/// Assigns a value and keeps the spacing and the trailing comment of the one before it.
fn replace_value(there: &mut Item, item: &Item) {
    let decor = there.as_value().map(|v| v.decor().clone());
    let mut fresh = item.clone();
    if let (Some(decor), Some(value)) = (decor, fresh.as_value_mut()) {
        *value.decor_mut() = decor;
    }
    *there = fresh;
}

/// An item without spacing and comments, to compare meanings.
fn plain(item: &Item) -> String {
    match item.as_table_like() {
        Some(t) => t.iter().map(|(k, v)| format!("{k}={};", plain(v))).collect(),
        None => item.to_string().trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn store() -> (tempfile::TempDir, ConfStore, Ctid) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        fs::create_dir_all(paths.conf_dir()).unwrap();
        (dir, ConfStore::new(paths), 101.try_into().unwrap())
    }

    #[test]
    fn editing_keeps_comments_and_order() {
        let (_d, s, ctid) = store();
        let text = "# my web server\nostemplate = \"debian-12\" # do not change\nonboot = false   # until tested\n\n[network]\n# office\nip = [\"10.0.0.2\"] # the one\n\n[disk]\nspace = \"10G\" # bought 2024\ninodes = 4096\n";
        s.replace(ctid, text).unwrap();
        let mut c = (*s.read(ctid).unwrap()).clone();
        c.onboot = Some(true);
        c.network.ip.push("10.0.0.3".parse().unwrap());
        c.disk.space = vz_types::Bytes(20 << 30);
        c.name = Some("web".parse().unwrap());
        let edited = s.edited(ctid, &c).unwrap();
        for kept in [
            "# my web server",
            "# do not change",
            "onboot = true   # until tested",
            "# office",
            "# the one",
            "space = \"20G\" # bought 2024",
        ] {
            assert!(edited.contains(kept), "{kept:?} in\n{edited}");
        }
        s.replace(ctid, &edited).unwrap();
        assert_eq!(*s.read(ctid).unwrap(), c);
    }

    #[test]
    fn an_inline_table_can_be_edited() {
        let (_d, s, ctid) = store();
        s.replace(ctid, "ostemplate = 'debian-12'\nnetwork = { ip = ['10.0.0.2'] } # short\n").unwrap();
        let mut c = (*s.read(ctid).unwrap()).clone();
        c.network.ip.clear();
        c.network.nameserver = vec!["inherit".parse().unwrap()];
        let edited = s.edited(ctid, &c).unwrap();
        assert!(edited.contains("# short"), "{edited}");
    }

    #[test]
    fn a_fault_names_file_line_and_key() {
        let (_d, s, ctid) = store();
        for (text, line, key) in [
            ("ostemplate = 'debian-12'\nonbot = true\n", 2, Some("onbot")),
            ("ostemplate = 'debian-12'\n\nonboot = 'perhaps'\n", 3, Some("onboot")),
            ("ostemplate = 'debian-12'\n[disk]\nspace = '1K'\n", 3, Some("space")),
            ("ostemplate = 'debian-12'\n[network]\nip = ['10.0.0.300']\n", 3, Some("ip")),
            ("ostemplate = 'deb", 1, Some("ostemplate")),
            ("", 1, None),
        ] {
            s.replace(ctid, text).unwrap();
            match s.read(ctid) {
                Err(Error::Invalid { line: l, key: k, path, .. }) => {
                    assert_eq!((l, k.as_deref()), (line, key), "{text:?}");
                    assert!(path.ends_with("101.toml"));
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_fifo_in_its_place_is_refused_at_once() {
        let (_d, s, ctid) = store();
        nix::unistd::mkfifo(&s.paths.conf(ctid), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(s.read(ctid), Err(Error::Unreadable { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer_never_a_panic(text in "\\PC{0,200}") {
            let _ = parse(Path::new("/x"), &text);
        }
    }
}
