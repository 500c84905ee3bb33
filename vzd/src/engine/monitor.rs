//! Talking to vzmon: spawning it for one task, launching a container with it, and asking a running one
//! through its control socket. Everything is one JSON message per seqpacket ([`vz_types::plan`]).

use super::process;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    ffi::{CString, OsStr},
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use vz_sys::{
    seqpacket,
    spawn::{Program, Spawned},
};
use vz_types::{
    ExitCode, Paths,
    plan::{ControlReply, ControlRequest, LaunchAnswer, LaunchPlan, MonitorEvent, NOT_UNDERSTOOD, PROTOCOL, TaskReply},
    run::ProcessId,
};

/// What mounting (a journal replay included) and every launch step may take at most.
const STEP_DEADLINE: Duration = Duration::from_secs(90);

/// How long a monitor's socket may take to have room for another client.
const CONNECT: Duration = Duration::from_secs(5);

/// Why vzmon did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is nowhere.
    #[error("the monitor program vzmon is neither at {}", .0.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" nor at "))]
    NoProgram(Vec<PathBuf>),
    /// It could not be started.
    #[error("{} cannot be started", program.display())]
    Spawn {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the conversation with vzmon broke off while {what}")]
    Talk {
        /// During what.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended without an answer.
    #[error("vzmon ended with {status} while {what}{}", last_words(said))]
    Died {
        /// How.
        status: String,
        /// During what.
        what: &'static str,
        /// The last line it wrote.
        said: Option<String>,
    },
    /// It said something out of place.
    #[error("vzmon answered out of turn while {what}: {answer}")]
    Answer {
        /// During what.
        what: &'static str,
        /// What.
        answer: String,
    },
    /// It refused or failed, and says why.
    #[error("{cause}")]
    Failed {
        /// The monitor's own step, when launching.
        step: Option<String>,
        /// Its words.
        cause: String,
    },
    /// A monitor of another version does not know the request.
    #[error("its monitor was started by another version of vz and does not know this request ({cause})")]
    OtherVersion {
        /// Its words.
        cause: String,
    },
    /// Nobody listens on the control socket.
    #[error("the monitor does not answer on {}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn last_words(said: &Option<String>) -> String {
    said.as_deref().map_or_else(String::new, |s| format!("; it said: {s}"))
}

impl Error {
    /// What `vzctl` exits with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failed { step: Some(step), .. } if step == "storage" => ExitCode::MountFailed,
            Self::Failed { step: Some(_), .. } => ExitCode::Environment,
            _ => ExitCode::System,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OtherVersion { .. } => Some(
                "`vzctl restart` of the container gives it a monitor of this version; what is saved applies then"
                    .into(),
            ),
            Self::NoProgram(_) => Some("install vzmon beside vzd, or set `vzmon` in vz.toml".into()),
            _ => None,
        }
    }
}

/// The vzmon program.
#[derive(Clone, Debug)]
pub struct Monitor {
    program: PathBuf,
}

impl Monitor {
    /// The configured program, else the one beside vzd, else the installed one.
    pub fn find(configured: Option<&Path>) -> Result<Self, Error> {
        let mut places: Vec<PathBuf> = Vec::new();
        match configured {
            Some(path) => places.push(path.into()),
            None => {
                if let Ok(exe) = std::env::current_exe() {
                    places.push(exe.with_file_name("vzmon"));
                }
                places.push("/usr/libexec/vz/vzmon".into());
            }
        }
        match places.iter().find(|p| p.is_file()) {
            Some(program) => Ok(Self { program: program.clone() }),
            None => Err(Error::NoProgram(places)),
        }
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    fn spawn(&self, mode: &str, stdin: OwnedFd, log: &Path, cgroup: Option<BorrowedFd<'_>>) -> Result<Spawned, Error> {
        let failed = |source| Error::Spawn { program: self.program.clone(), source };
        // From sealed memory where that is possible: `vzctl exec` can then execute the same memory instead of a copy
        // of its own, and an upgrade of the file leaves running monitors alone.
        let image = Image::of(&self.program);
        let program = image.as_ref().map_or_else(|| self.program.clone(), |i| i.path());
        let text = |s: &OsStr| CString::new(s.as_bytes()).map_err(|e| failed(e.into()));
        let protocol = PROTOCOL.to_string();
        let arguments = [self.program.as_os_str(), mode.as_ref(), protocol.as_ref()].map(text);
        let program = Program {
            path: text(program.as_os_str())?,
            arguments: arguments.into_iter().collect::<Result<_, _>>()?,
            stdin,
            stderr: log_file(log).map_err(failed)?,
        };
        match program.spawn(cgroup) {
            // Where it cannot be born in that cgroup it still outlives vzd, unless somebody ends all of the service's
            // processes.
            Err(e) if cgroup.is_some() => {
                tracing::warn!("a monitor stays in the cgroup of vzd: {e}");
                program.spawn(None).map_err(failed)
            }
            spawned => spawned.map_err(failed),
        }
    }

    /// Runs `vzmon MODE` for one task and waits for its answer.
    pub fn task(&self, mode: &'static str, plan: &impl Serialize, paths: &Paths) -> Result<(), Error> {
        let (ours, theirs) = pair()?;
        let log_path = paths.run().join("vzmon-task.log");
        let mut child = self.spawn(mode, theirs, &log_path, None)?;
        let sent = send(&ours, plan, mode).or_else(|e| if has_ended(&e) { Ok(()) } else { Err(e) });
        let reply = sent.and_then(|()| receive::<TaskReply>(&ours, mode, STEP_DEADLINE));
        let status = end(&mut child, reply.is_ok());
        match reply? {
            Some((TaskReply::Done, _)) => Ok(()),
            Some((TaskReply::Failed { cause }, _)) => Err(Error::Failed { step: None, cause }),
            None => Err(died(status, mode, &log_path)),
        }
    }

    /// Spawns the monitor of a container, in this cgroup, and gives it its plan.
    pub fn launch(&self, plan: &LaunchPlan, cgroup: Option<BorrowedFd<'_>>) -> Result<Launching, Error> {
        let (ours, theirs) = pair()?;
        let log = plan.run_dir.join("monitor.log");
        let child = self.spawn("run", theirs, &log, cgroup)?;
        let mut launching =
            Launching { child: Some(child), socket: ours, log, steps: Vec::new(), warnings: Vec::new() };
        launching.say(plan, "sending the plan")?;
        Ok(launching)
    }
}

/// vzmon in sealed memory, for as long as the file is the one it was copied from.
#[derive(Clone, Debug)]
struct Image {
    of: (u64, u64, i64, i64),
    memory: Arc<OwnedFd>,
}

impl Image {
    /// The image of this file, made when there is none yet; `None`: execute the file itself.
    fn of(program: &Path) -> Option<Self> {
        static LAST: Mutex<Option<Image>> = Mutex::new(None);
        let mut file = File::open(program).ok()?;
        let meta = file.metadata().ok()?;
        let of = (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec());
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = last.as_ref().filter(|i| i.of == of) {
            return Some(image.clone());
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 do not know the flag and do not need it (memfd_create(2)).
        let memory = memfd_create("vzmon", flags | MemfdFlags::EXEC).or_else(|_| memfd_create("vzmon", flags)).ok()?;
        let mut memory = File::from(memory);
        io::copy(&mut file, &mut memory).ok()?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&memory, seals).ok()?;
        *last = Some(Self { of, memory: Arc::new(memory.into()) });
        last.clone()
    }

    /// For the child, which has the descriptor until it executes.
    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.memory.as_raw_fd()).into()
    }
}

/// A monitor on its way to a running container. Dropped before that, it is killed and reaped.
#[derive(Debug)]
pub struct Launching {
    child: Option<Spawned>,
    socket: OwnedFd,
    log: PathBuf,
    /// The monitor's steps so far: name and microseconds since the plan arrived.
    pub steps: Vec<(String, u64)>,
    /// What was not done although the boot goes on.
    pub warnings: Vec<String>,
}

/// A container whose init was executed.
#[derive(Debug)]
pub struct Launched {
    /// Its init.
    pub init: ProcessId,
    /// Its monitor, from now on the caller's to reap.
    pub child: Spawned,
    /// The monitor's steps: name and microseconds since the plan arrived.
    pub steps: Vec<(String, u64)>,
    /// What was not done although the boot goes on.
    pub warnings: Vec<String>,
}

impl Launching {
    /// Waits for the container's network namespace.
    pub fn net_ready(&mut self) -> Result<OwnedFd, Error> {
        match self.next("preparing the container")? {
            (MonitorEvent::NetReady, mut fds) if fds.len() == 1 => Ok(fds.remove(0)),
            (other, _) => Err(Error::Answer { what: "preparing the container", answer: format!("{other:?}") }),
        }
    }

    /// Lets init run.
    pub fn go(mut self) -> Result<Launched, Error> {
        let what = "booting the container";
        self.say(&LaunchAnswer::Go, what)?;
        match self.next(what)? {
            (MonitorEvent::Running { init }, _) => match self.child.take() {
                Some(child) => Ok(Launched {
                    init,
                    child,
                    steps: std::mem::take(&mut self.steps),
                    warnings: std::mem::take(&mut self.warnings),
                }),
                None => Err(Error::Answer { what, answer: "the monitor is gone".into() }),
            },
            (other, _) => Err(Error::Answer { what, answer: format!("{other:?}") }),
        }
    }

    /// Tells the monitor to unwind, and waits until it has.
    pub fn abort(mut self) {
        let told = send(&self.socket, &LaunchAnswer::Abort, "giving up").is_ok();
        if let Some(mut child) = self.child.take() {
            end(&mut child, told);
        }
    }

    /// The monitor's pid.
    pub fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(Spawned::pid)
    }

    /// Sends; a monitor that has ended has left word why, which tells more than a closed socket.
    fn say(&mut self, message: &impl Serialize, what: &'static str) -> Result<(), Error> {
        match send(&self.socket, message, what) {
            Err(e) if has_ended(&e) => loop {
                self.next(what)?;
            },
            sent => sent,
        }
    }

    fn next(&mut self, what: &'static str) -> Result<(MonitorEvent, Vec<OwnedFd>), Error> {
        loop {
            match receive::<MonitorEvent>(&self.socket, what, STEP_DEADLINE)? {
                Some((MonitorEvent::Step { name, at_us }, _)) => self.steps.push((name, at_us)),
                Some((MonitorEvent::Warning { text }, _)) => self.warnings.push(text),
                Some((MonitorEvent::Failed { step, cause }, _)) => {
                    if let Some(mut child) = self.child.take() {
                        end(&mut child, true);
                    }
                    return Err(Error::Failed { step: Some(step), cause });
                }
                Some(answer) => return Ok(answer),
                None => {
                    let status = self.child.take().and_then(|mut c| end(&mut c, true));
                    return Err(died(status, what, &self.log));
                }
            }
        }
    }
}

impl Drop for Launching {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child, false);
        }
    }
}

/// Reaps a monitor: one that was told to end gets a moment, any other is killed.
fn end(child: &mut Spawned, told: bool) -> Option<ExitStatus> {
    if !(told && process::wait_end(child.pidfd(), Duration::from_secs(10))) {
        child.kill();
    }
    child.wait().ok()
}

fn died(status: Option<ExitStatus>, what: &'static str, log: &Path) -> Error {
    let status = status.map_or_else(|| "no status".into(), |s| s.to_string());
    let said = std::fs::read_to_string(log).ok().and_then(|t| t.lines().last().map(|l| l.chars().take(300).collect()));
    Error::Died { status, what, said }
}

/// What vzmon writes when it fails without words of its own. A file, because it outlives vzd.
fn log_file(path: &Path) -> io::Result<OwnedFd> {
    let log = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    log.or_else(|_| OpenOptions::new().write(true).open("/dev/null")).map(OwnedFd::from)
}

fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    seqpacket::pair().map_err(|source| Error::Talk { what: "making a socket", source })
}

fn send(socket: &impl AsFd, message: &impl Serialize, what: &'static str) -> Result<(), Error> {
    let text = serde_json::to_vec(message).map_err(|e| Error::Talk { what, source: e.into() })?;
    seqpacket::send(socket, &text, &[]).map_err(|source| Error::Talk { what, source })
}

/// Whether a message could not be sent because the other side has ended; what it said before can still be received.
fn has_ended(e: &Error) -> bool {
    matches!(e, Error::Talk { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}

/// The next message, or `None` when the other side is gone.
fn receive<T: DeserializeOwned>(
    socket: &impl AsFd,
    what: &'static str,
    deadline: Duration,
) -> Result<Option<(T, Vec<OwnedFd>)>, Error> {
    match seqpacket::recv(socket, Some(deadline)) {
        Ok((text, _)) if text.is_empty() => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset || e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Ok((text, fds)) => match serde_json::from_slice(&text) {
            Ok(message) => Ok(Some((message, fds))),
            Err(_) => Err(Error::Answer { what, answer: String::from_utf8_lossy(&text).chars().take(200).collect() }),
        },
        Err(source) => Err(Error::Talk { what, source }),
    }
}

/// Asks the monitor of a running container.
pub fn control(run_dir: &Path, request: &ControlRequest, deadline: Duration) -> Result<ControlReply, Error> {
    let path = run_dir.join("control.sock");
    let unreachable = |source| Error::Unreachable { path: path.clone(), source };
    let socket = seqpacket::connect(run_dir, "control.sock", deadline.min(CONNECT)).map_err(unreachable)?;
    let what = "asking the monitor";
    let began = Instant::now();
    send(&socket, request, what)?;
    match receive::<ControlReply>(&socket, what, deadline)? {
        Some((ControlReply::Failed { cause }, _)) if cause.starts_with(NOT_UNDERSTOOD) => {
            Err(Error::OtherVersion { cause })
        }
        Some((ControlReply::Failed { cause }, _)) => Err(Error::Failed { step: None, cause }),
        Some((reply, _)) => Ok(reply),
        None => Err(Error::Talk {
            what,
            source: io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("no answer after {} ms", began.elapsed().as_millis()),
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_that_ended_is_reported_in_its_own_words_and_not_as_a_broken_pipe() {
        // With and without a message of ours that it left unread.
        for unread in [false, true] {
            let (ours, theirs) = seqpacket::pair().unwrap();
            let launching =
                Launching { child: None, socket: ours, log: PathBuf::new(), steps: Vec::new(), warnings: Vec::new() };
            if unread {
                send(&launching.socket, &LaunchAnswer::Abort, "testing").unwrap();
            }
            let words = || MonitorEvent::Failed { step: "storage".into(), cause: "no such disk".into() };
            send(&theirs, &words(), "testing").unwrap();
            drop(theirs);
            let told = launching.go().unwrap_err();
            assert!(
                matches!(&told, Error::Failed { step: Some(s), cause } if s == "storage" && cause == "no such disk")
            );
        }
    }
}
