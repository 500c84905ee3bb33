//! Filling the tree of a template that is imported: an archive is unpacked as it arrives (by [`crate::unpack`], in a process
//! of its own), and what it is is recognised.

use super::{
    TemplateError,
    lock::Lock,
    machine::{self, Program},
    recipe::Init,
    tree::Tree,
};
use crate::unpack::{self, Blame, Event, Failure, Limits, Plan};
use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use vz_api::wire::{BuildEvent, ImportRequest};
use vz_sys::seqpacket;
use vz_types::{TemplateName, limits::amount::human};

/// An archive on its way here, and what is wanted of it.
#[derive(Debug)]
pub struct Upload {
    /// Its bytes; their end is its end.
    pub bytes: OwnedFd,
    /// How many there will be, if the client knows.
    pub length: Option<u64>,
    /// How they came to an end: filled in by whoever feeds `bytes`, before their end.
    pub end: Arc<Mutex<UploadEnd>>,
    /// What the client asks for.
    pub request: ImportRequest,
}

/// How an upload went.
#[derive(Clone, Debug, Default)]
pub enum UploadEnd {
    /// It goes on.
    #[default]
    Coming,
    /// All of it arrived; with the sha256 of it in hexadecimal.
    Whole(String),
    /// It broke off.
    Broken(String),
}

/// An import takes no longer, however slowly its archive arrives.
const DEADLINE: Duration = Duration::from_secs(2 * 60 * 60);
/// Nor is there silence for longer than this.
const SILENCE: Duration = Duration::from_secs(5 * 60);
/// How soon it is noticed that an import is wanted no more.
const SLICE: Duration = Duration::from_millis(300);
/// Entries an archive may have: a machine with everything installed has a million files.
const MAX_ENTRIES: u64 = 5_000_000;
/// No archive may fill the store's disk further than this: tenths of what it has left.
const TENTHS: u64 = 9;

/// What the archive is called.
pub fn source(upload: &Upload) -> String {
    upload.request.source.as_deref().map_or_else(|| "the archive".into(), |s| unpack::shown(s.as_bytes()))
}

/// What may be unpacked.
fn limits(root: &Path, wanted: Option<u64>) -> Result<Limits, TemplateError> {
    let fs =
        rustix::fs::statvfs(root).map_err(|e| TemplateError::io("asking for the free space of", root, e.into()))?;
    let free = fs.f_bavail.saturating_mul(fs.f_frsize) / 10 * TENTHS;
    let bytes = wanted.map_or(free, |w| w.min(free));
    Ok(Limits { bytes, entries: MAX_ENTRIES, by_disk: bytes == free })
}

/// Unpacks while the archive arrives. Answers the archive's sha256.
pub fn unpack(
    root: &Path,
    upload: &Upload,
    source: &str,
    lock: &Lock,
    cancelled: &AtomicBool,
    events: &mut dyn FnMut(BuildEvent),
) -> Result<String, TemplateError> {
    let plan = Plan {
        root: root.to_owned(),
        limits: limits(root, upload.request.max_size)?,
        skip_devices: upload.request.skip_devices,
    };
    let failed = |what: &str, e: &dyn std::fmt::Display| TemplateError::Archive {
        source_name: source.to_owned(),
        failure: Failure { blame: Blame::Host, entry: None, at: 0, why: format!("{what}: {e}") },
    };
    let (ours, theirs) = seqpacket::pair().map_err(|e| failed("making a channel", &e))?;
    let message = serde_json::to_vec(&plan).map_err(|e| failed("writing the plan", &e))?;
    seqpacket::send(&ours, &message, &[upload.bytes.as_fd(), lock.as_fd()])
        .map_err(|e| failed("sending the plan", &e))?;
    let child = Command::new("/proc/self/exe")
        .arg0("vzd")
        .arg("unpack")
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|e| failed("starting the unpacker", &e))?;
    let mut child = Running { child, channel: ours };
    let done = listen(&child.channel, upload, cancelled, events);
    child.end();
    // An upload that broke off looks like a truncated archive, and is none.
    let end = upload.end.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let UploadEnd::Broken(why) = end {
        return Err(TemplateError::Upload { source_name: source.to_owned(), why });
    }
    done.map_err(|failure| TemplateError::Archive { source_name: source.to_owned(), failure })?;
    match end {
        UploadEnd::Whole(digest) => Ok(digest),
        _ => Err(TemplateError::Upload { source_name: source.to_owned(), why: "it never came to its end".into() }),
    }
}

/// The unpacker. Dropped in any way, it is gone and holds nothing any more.
struct Running {
    child: Child,
    channel: OwnedFd,
}

impl Running {
    /// Ends it, and waits until its worker, which dies with it, has let go of everything: then the channel ends.
    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let until = Instant::now() + Duration::from_secs(20);
        while let Ok((message, _)) =
            seqpacket::recv(&self.channel, Some(until.saturating_duration_since(Instant::now())))
        {
            if message.is_empty() {
                break;
            }
        }
    }
}

/// Hears the unpacker out. What it says comes from a process that reads a stranger's bytes, so it is not believed in
/// more than its outcome.
fn listen(
    channel: &OwnedFd,
    upload: &Upload,
    cancelled: &AtomicBool,
    events: &mut dyn FnMut(BuildEvent),
) -> Result<(), Failure> {
    let host = |why: String| Failure { blame: Blame::Host, entry: None, at: 0, why };
    let until = Instant::now() + DEADLINE;
    let (mut shown, mut told, mut heard) = (2u8, Instant::now(), Instant::now());
    events(BuildEvent::Stage { stage: "unpack".into(), percent: shown });
    loop {
        let message = seqpacket::recv(channel, Some(SLICE));
        if cancelled.load(Ordering::Acquire) {
            return Err(host("it was cancelled".into()));
        }
        let message = match message {
            Ok((message, _)) => message,
            Err(e) if e.kind() == io::ErrorKind::TimedOut && Instant::now() >= until => {
                return Err(host(format!("it was not unpacked after {} minutes", DEADLINE.as_secs() / 60)));
            }
            Err(e) if e.kind() == io::ErrorKind::TimedOut && heard.elapsed() >= SILENCE => {
                return Err(host(format!("nothing of it arrived for {} minutes", SILENCE.as_secs() / 60)));
            }
            Err(e) if e.kind() == io::ErrorKind::TimedOut => continue,
            Err(e) => return Err(host(format!("the unpacker cannot be heard: {e}"))),
        };
        heard = Instant::now();
        if message.is_empty() {
            return Err(host("the unpacker ended without a word".into()));
        }
        let event = serde_json::from_slice(&message).map_err(|e| host(format!("the unpacker talks nonsense: {e}")))?;
        match event {
            Event::Progress { read, entries, written } => {
                // Unpacking is the greater part of the whole: 2 to 85.
                let percent = match upload.length {
                    Some(all) if all > 0 => 2 + (read.min(all) as u128 * 83 / all as u128) as u8,
                    _ => shown,
                };
                if percent >= shown.saturating_add(5) || told.elapsed() >= Duration::from_secs(5) {
                    (shown, told) = (percent, Instant::now());
                    let stage = format!("unpack: {entries} files, {}", human(written));
                    events(BuildEvent::Stage { stage, percent });
                }
            }
            Event::Done { compression, entries, notes } => {
                let line = format!("{entries} entries, compression {}", unpack::shown(compression.as_bytes()));
                events(BuildEvent::Log { line });
                for note in notes.iter().take(16) {
                    events(BuildEvent::Log { line: unpack::shown(note.as_bytes()) });
                }
                return Ok(());
            }
            Event::Failed(f) => {
                let (entry, why) = (f.entry.map(|e| unpack::shown(e.as_bytes())), unpack::shown(f.why.as_bytes()));
                return Err(Failure { entry, why, ..f });
            }
        }
    }
}

/// Where an init is looked for at a start, in this order.
pub(super) const INIT_PATHS: &[&str] = &["/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/init"];

/// The tree's init, what it is, and the architecture it is for, which this host must run.
pub fn recognise(tree: &Tree, name: &TemplateName, source: &str) -> Result<(Init, String), TemplateError> {
    let no = |found: String| TemplateError::NoInit { name: name.to_string(), wanted: "an init", found };
    let io = |path: &str, e: io::Error| TemplateError::io(&format!("looking at {path} in"), tree.path(), e);
    let mut found = None;
    for path in INIT_PATHS {
        match tree.resolve(path) {
            Ok(Some(there)) => {
                found = Some((*path, there));
                break;
            }
            Ok(None) => {}
            // Links that lead in a circle, or into something that is no directory: nothing that could be executed.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR | libc::ENAMETOOLONG)) => {
                return Err(no(format!("{path}, which leads nowhere ({e})")));
            }
            Err(e) => return Err(io(path, e)),
        }
    }
    let Some((_, (path, mode))) = found else {
        let (last, others) = INIT_PATHS.split_last().unwrap_or((&"", &[]));
        return Err(no(format!("none (looked for {} and {last})", others.join(", "))));
    };
    if mode & 0o111 == 0 {
        return Err(no(format!("{path}, which is not executable")));
    }
    let arch = runs_on(tree, &path, source, 0)?.map_err(no)?;
    let init = match Init::of_path(&path) {
        // Others put their own program there under its own name; sysvinit's knows its table's.
        Init::Sysvinit if !knows_inittab(tree, &path) => Init::Any,
        other => other,
    };
    Ok((init, arch))
}

fn knows_inittab(tree: &Tree, path: &str) -> bool {
    const TABLE: &[u8] = b"/etc/inittab";
    let program = tree.read(path).ok().flatten().unwrap_or_default();
    program.starts_with(b"\x7fELF") && program.windows(TABLE.len()).any(|w| w == TABLE)
}

/// What a program of the tree is for; the inner error is why it cannot be executed at all.
fn runs_on(tree: &Tree, path: &str, source: &str, depth: u8) -> Result<Result<String, String>, TemplateError> {
    let read = |e: io::Error| TemplateError::io(&format!("looking at {path} in"), tree.path(), e);
    let resolved = |p: &str| tree.resolve(p).ok().flatten().map(|(real, _)| real);
    match machine::of(tree, path).map_err(read)? {
        Program::Elf(arch, loader) => {
            let host = machine::runnable();
            if !host.contains(&arch) {
                return Err(TemplateError::Machine {
                    source_name: source.to_owned(),
                    path: path.to_owned(),
                    what: format!("a program for {arch}"),
                    host: host.join(" and "),
                });
            }
            match loader {
                Some(loader) if resolved(&loader).is_none() => {
                    Ok(Err(format!("{path}, whose loader {} is missing", unpack::shown(loader.as_bytes()))))
                }
                _ => Ok(Ok(arch)),
            }
        }
        // The kernel itself gives up after five.
        Program::Script(by) if depth < 5 => match resolved(&by) {
            Some(real) => runs_on(tree, &real, source, depth + 1),
            None => Ok(Err(format!("{path}, a script of {}, which is missing", unpack::shown(by.as_bytes())))),
        },
        Program::Script(_) => Ok(Err(format!("{path}, a script of a script without end"))),
        Program::Unknown(what) => Ok(Err(format!("{path}, {what}"))),
    }
}
