//! Filling the tree of a template that is built: check, then install by mmdebstrap or copy.

use super::{
    Store, TemplateError,
    lock::Lock,
    progress::{self, Progress},
    recipe::Recipe,
    register::{make_dir, write_file},
    sources::{self, Archive, DEBIAN_KEYRING},
    tree::Tree,
};
use crate::program;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use vz_api::wire::BuildEvent;
use vz_types::TemplateName;

/// What one build is about.
pub struct Job<'a> {
    /// Where it goes.
    pub store: &'a Store,
    /// The template.
    pub name: &'a TemplateName,
    /// Its recipe.
    pub recipe: &'a Recipe,
    /// The held lock; the build's processes hold it with us.
    pub lock: &'a Lock,
    /// It is wanted no more.
    pub cancelled: &'a AtomicBool,
}

/// A whole build takes no longer; a mirror that trickles is a mirror that is down.
const DEADLINE: Duration = Duration::from_secs(45 * 60);
/// Nor is it silent for longer than this.
const SILENCE: Duration = Duration::from_secs(5 * 60);
/// How soon it is noticed that a build is wanted no more.
const SLICE: Duration = Duration::from_millis(300);
/// Lines of the log that an error quotes.
const TAIL: usize = 12;
/// The package cache is cut down to this, oldest packages first.
const CACHE_BYTES: u64 = 1 << 30;

/// Programs mmdebstrap builds need, with their Debian packages.
const PROGRAMS: &[(&str, &str)] = &[
    ("mmdebstrap", "mmdebstrap"),
    ("apt-get", "apt"),
    ("dpkg", "dpkg"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
];

/// PATH for everything a build runs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What runs first in a build's namespaces. Its copies of containers' mounts go, or they would keep disk images
/// busy that their own containers are done with while a build goes on. (Blanks in mount points are octal escapes
/// in mountinfo, which `printf %b` undoes.)
const PRELUDE: &str = r#"
while read -r _ _ _ _ at _; do
    case $at in */var/lib/vz/private/*|*/var/lib/vz/root/*) printf '%b\0' "$(printf %s "$at" | sed 's/\\/\\0/g')" ;; esac
done < /proc/self/mountinfo | xargs -0 -r umount -l --
umask 022
exec "$@"
"#;

/// The host's apt settings that say how its archive is to be used; kept in the template, so that apt
/// inside works as well as outside.
const ARCHIVE_SETTINGS: &[&str] =
    &["Acquire::Check-Valid-Until", "Acquire::Check-Date", "Acquire::http::Proxy", "Acquire::https::Proxy"];

/// Puts the files there. Answers where they are from.
pub fn fill(
    job: &Job<'_>,
    staging: &Path,
    root: &Path,
    events: &mut dyn FnMut(BuildEvent),
) -> Result<String, TemplateError> {
    match &job.recipe.tree {
        Some(from) => {
            events(BuildEvent::Stage { stage: "copy".into(), percent: 2 });
            copy_tree(job, Path::new(from.as_str()), root, events)?;
            Ok(from.to_string())
        }
        None => {
            let archive = check(job)?;
            install(job, staging, root, &archive, events)?;
            settle(root, &archive)?;
            Ok(archive.mirror)
        }
    }
}

/// Everything that can be known to be missing before anything is done.
fn check(job: &Job<'_>) -> Result<Archive, TemplateError> {
    for (program, package) in PROGRAMS {
        find_program(program).ok_or(TemplateError::MissingProgram { program, package })?;
    }
    let archive =
        sources::archive(job.recipe, &sources::read_host(Path::new("/etc/apt"))).ok_or(TemplateError::NoMirror)?;
    for keyring in &archive.keyrings {
        if !Path::new(keyring).exists() {
            let cause = format!(
                "the keyring {keyring} is missing, so nothing from the mirror {} can be verified",
                archive.mirror
            );
            let tail = vec!["install the package debian-archive-keyring".to_owned()];
            return Err(TemplateError::Build {
                name: job.name.clone(),
                cause,
                tail,
                log: log_path(job),
                no_space: false,
            });
        }
    }
    Ok(archive)
}

/// Looks a program up in vzd's own PATH.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    std::env::split_paths(&path).map(|d| d.join(name)).find(|p| p.is_file())
}

fn log_path(job: &Job<'_>) -> PathBuf {
    job.store.paths.log_dir().join(format!("template-{}.log", job.name))
}

/// A program that dies with us, with everything it starts: its own pid and mount namespaces, so that
/// no process and no mount of it outlives it, and the held lock as stdin.
fn contained(job: &Job<'_>, program: &str) -> Result<Command, TemplateError> {
    let lock = job.lock.share().map_err(|e| TemplateError::io("opening the lock of", &job.store.staging_dir(), e))?;
    let mut c = Command::new("/usr/bin/setpriv");
    c.args([
        "--pdeathsig",
        "KILL",
        "--",
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
    ]);
    c.args(["sh", "-c", PRELUDE, "sh", program]);
    c.env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .current_dir("/")
        .stdin(Stdio::from(lock));
    for name in ["http_proxy", "https_proxy", "no_proxy"] {
        if let Some(value) = std::env::var_os(name) {
            c.env(name, value);
        }
    }
    Ok(c)
}

fn install(
    job: &Job<'_>,
    staging: &Path,
    root: &Path,
    archive: &Archive,
    events: &mut dyn FnMut(BuildEvent),
) -> Result<(), TemplateError> {
    let temp = staging.join("tmp");
    let cache = job.store.paths.var().join("cache/apt");
    make_dir(&temp)?;
    make_dir(&cache)?;
    let sources = staging.join("archive.sources");
    write_file(&sources, archive.sources.as_bytes())?;
    for line in &archive.notes {
        events(BuildEvent::Log { line: line.clone() });
    }
    let mut c = contained(job, "mmdebstrap")?;
    // Hooks get the cache's place from the environment: no path is ever part of a shell text.
    c.env("TMPDIR", &temp).env("VZ_CACHE", &cache);
    c.args(["--mode=root", "--format=directory", "--verbose", "--skip=download/empty,essential/unlink,output/dev"]);
    c.arg(format!("--variant={}", job.recipe.variant.word()));
    if let Some(arch) = &job.recipe.arch {
        c.arg(format!("--architectures={arch}"));
    }
    for package in &job.recipe.packages {
        c.arg(format!("--include={package}"));
    }
    c.args(["--aptopt=Acquire::http::Timeout \"20\"", "--aptopt=Acquire::Retries \"2\""]);
    for setting in archive_settings() {
        c.arg(format!("--aptopt={setting}"));
    }
    c.arg("--setup-hook=mkdir -p \"$1\"/var/cache/apt/archives; cp -l \"$VZ_CACHE\"/*.deb \"$1\"/var/cache/apt/archives/ 2>/dev/null || true");
    c.arg("--customize-hook=cp -lf \"$1\"/var/cache/apt/archives/*.deb \"$VZ_CACHE\"/ 2>/dev/null || true");
    c.arg(job.recipe.suite.as_ref().map_or("", |s| s.as_str())).arg(root).arg(&sources);
    supervise(job, c, &archive.mirror, events)?;
    trim_cache(&cache);
    Ok(())
}

fn copy_tree(job: &Job<'_>, from: &Path, root: &Path, events: &mut dyn FnMut(BuildEvent)) -> Result<(), TemplateError> {
    if !from.is_dir() {
        return Err(TemplateError::io(
            "copying",
            from,
            io::Error::other("the recipe's `tree` is no directory on this host"),
        ));
    }
    make_dir(root)?;
    let mut c = contained(job, "cp")?;
    c.args(["-a", "--reflink=auto", "--one-file-system", "--"]).arg(from.join(".")).arg(root);
    supervise(job, c, &from.display().to_string(), events)
}

/// Runs a program, copying what it says into the log and the events.
fn supervise(
    job: &Job<'_>,
    mut c: Command,
    mirror: &str,
    events: &mut dyn FnMut(BuildEvent),
) -> Result<(), TemplateError> {
    let log_file = log_path(job);
    let log_error = |e| TemplateError::io("writing the log", &log_file, e);
    std::fs::create_dir_all(job.store.paths.log_dir()).map_err(log_error)?;
    let mut log = File::create(&log_file).map_err(log_error)?;
    let spawn_error = |e| TemplateError::io("starting", Path::new("/usr/bin/setpriv"), e);
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| spawn_error(e.into()))?;
    c.stdout(Stdio::from(theirs.try_clone().map_err(spawn_error)?)).stderr(Stdio::from(theirs));
    let mut child = c.spawn().map_err(spawn_error)?;
    // Our copies of the pipe's write end are in the command.
    drop(c);
    let mut tail: VecDeque<String> = VecDeque::new();
    let mut progress = Progress::default();
    let mut take = |line: &str| {
        let _ = writeln!(log, "{line}");
        tail.push_back(line.to_owned());
        if tail.len() > 200 {
            tail.pop_front();
        }
        if let Some((stage, percent)) = progress.line(line) {
            events(BuildEvent::Stage { stage: stage.into(), percent });
        }
        events(BuildEvent::Log { line: line.to_owned() });
    };
    let stuck = read_lines(File::from(ours), job.cancelled, &mut take);
    if stuck.is_some() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(spawn_error)?;
    if status.success() && stuck.is_none() {
        return Ok(());
    }
    let lines: Vec<String> = tail.into();
    let found = progress::cause(&lines, mirror);
    let cause = stuck.unwrap_or(found.text);
    let tail = lines[lines.len().saturating_sub(TAIL)..].to_vec();
    Err(TemplateError::Build { name: job.name.clone(), cause, tail, log: log_file, no_space: found.no_space })
}

/// Feeds lines until the other end closes. `Some`: why it was given up.
fn read_lines(mut from: File, cancelled: &AtomicBool, take: &mut dyn FnMut(&str)) -> Option<String> {
    let end = Instant::now() + DEADLINE;
    let mut heard = Instant::now();
    let mut held: Vec<u8> = Vec::new();
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        let wait = Timespec { tv_sec: 0, tv_nsec: SLICE.subsec_nanos().into() };
        let ready = poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&wait));
        if cancelled.load(Ordering::Acquire) {
            return Some("it was cancelled".into());
        }
        match ready {
            Ok(0) if Instant::now() >= end => {
                return Some(format!("it was not done after {} minutes", DEADLINE.as_secs() / 60));
            }
            Ok(0) if heard.elapsed() >= SILENCE => {
                return Some(format!("it said nothing for {} minutes", SILENCE.as_secs() / 60));
            }
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => heard = Instant::now(),
            Err(e) => return Some(format!("its output could not be read: {e}")),
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => held.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Some(format!("its output could not be read: {e}")),
        }
        while let Some(at) = held.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = held.drain(..=at).collect();
            take(String::from_utf8_lossy(&line).trim_end());
        }
    }
    if !held.is_empty() {
        take(String::from_utf8_lossy(&held).trim_end());
    }
    None
}

/// The host's [`ARCHIVE_SETTINGS`], as apt.conf lines.
fn archive_settings() -> Vec<String> {
    let Some(mut asked) = program::find("apt-config").map(|file| program::command(&file)) else { return Vec::new() };
    asked.arg("dump");
    let Ok((_, (said, _))) = program::output(asked, None, Duration::from_secs(10)) else { return Vec::new() };
    let text = String::from_utf8_lossy(&said);
    let wanted = |l: &&str| {
        ARCHIVE_SETTINGS
            .iter()
            .any(|s| l.split_once(' ').is_some_and(|(k, v)| k.eq_ignore_ascii_case(s) && v != "\"\";"))
    };
    text.lines().filter(wanted).map(|l| l.trim_end_matches(';').to_owned()).collect()
}

/// Leaves apt in the tree as a machine's apt is: sources in one file, our build options gone.
fn settle(root: &Path, archive: &Archive) -> Result<(), TemplateError> {
    let tree = Tree::open(root).map_err(|e| TemplateError::io("opening", root, e))?;
    let on = |e: io::Error| TemplateError::io("settling apt in", root, e);
    tree.clear("/etc/apt/sources.list.d").map_err(on)?;
    tree.remove("/etc/apt/sources.list").map_err(on)?;
    tree.remove("/etc/apt/apt.conf.d/99mmdebstrap").map_err(on)?;
    tree.remove("/etc/dpkg/dpkg.cfg.d/99mmdebstrap").map_err(on)?;
    tree.write("/etc/apt/sources.list.d/debian.sources", archive.sources.as_bytes(), 0o644).map_err(on)?;
    // A private mirror's own keyring goes along; Debian's is there as a package.
    for keyring in archive.keyrings.iter().filter(|k| *k != DEBIAN_KEYRING) {
        if tree.read(keyring).map_err(on)?.is_none() {
            let bytes = std::fs::read(keyring).map_err(|e| TemplateError::io("reading", Path::new(keyring), e))?;
            tree.write(keyring, &bytes, 0o644).map_err(on)?;
        }
    }
    // A proxy on the host's loopback is not to be reached from a container.
    let local = |s: &String| ["//127.", "//localhost", "//[::1]"].iter().any(|l| s.contains(l));
    let settings: String = archive_settings().iter().filter(|s| !local(s)).map(|s| format!("{s};\n")).collect();
    if !settings.is_empty() {
        let text = format!("// How the host uses this archive.\n{settings}");
        tree.write("/etc/apt/apt.conf.d/80vz-archive", text.as_bytes(), 0o644).map_err(on)?;
    }
    Ok(())
}

/// Keeps the package cache within bounds. Failing to is no reason to fail a build.
fn trim_cache(cache: &Path) {
    let Ok(dir) = std::fs::read_dir(cache) else { return };
    let mut files: Vec<(SystemTime, u64, PathBuf)> = dir
        .flatten()
        .filter_map(|e| {
            e.metadata()
                .ok()
                .filter(std::fs::Metadata::is_file)
                .map(|m| (m.modified().unwrap_or(UNIX_EPOCH), m.len(), e.path()))
        })
        .collect();
    files.sort();
    let mut total: u64 = files.iter().map(|(_, len, _)| len).sum();
    for (_, len, path) in files {
        if total <= CACHE_BYTES {
            break;
        }
        if let Err(e) = std::fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), error = %e, "a cached package could not be removed");
        }
        total -= len;
    }
}
