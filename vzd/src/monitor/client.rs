//! Talking to vzmon: spawning it for one task, launching a container with it, and asking a running one
//! through its control socket. Everything is one JSON message per seqpacket ([`vz_types::plan`]).

use super::{
    Found, Live, ask,
    blank::Blank,
    hand::{Asked, Launch, Launched, Monitors},
    image::Image,
    process,
    process::Process,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    ffi::{CString, OsStr},
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};
use vz_sys::{
    seqpacket,
    spawn::{Program, Spawned},
};
use vz_types::{
    Ctid, ExitCode, Paths,
    plan::{
        ControlReply, ControlRequest, EditPlan, LaunchAnswer, LaunchPlan, MonitorEvent, MountPlan, NOT_UNDERSTOOD,
        PROTOCOL, TaskReply,
    },
    run::ProcessId,
};

/// What mounting (a journal replay included) may take at most.
const TASK_DEADLINE: Duration = Duration::from_secs(90);
/// How long a monitor that was told to end may take.
const UNWIND: Duration = Duration::from_secs(10);
/// How long killed processes may take to be gone.
const KILLED: Duration = Duration::from_secs(20);

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
    /// It lives, and does not answer.
    #[error("the monitor of CT {ctid} (pid {pid}) does not answer")]
    Silent {
        /// Of which container.
        ctid: Ctid,
        /// Its process.
        pid: i32,
        /// What was tried.
        #[source]
        source: Box<Error>,
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
            Self::Silent { ctid, pid, .. } => Some(format!(
                "`kill -CONT {pid}` lets a monitor go on that was stopped; `vzctl stop {ctid} --fast` ends the container without it"
            )),
            Self::NoProgram(_) => Some("install vzmon beside vzd, or set `vzmon` in vz.toml".into()),
            _ => None,
        }
    }
}

/// The vzmon program of one manager.
#[derive(Clone, Debug)]
pub struct Monitor {
    configured: Option<PathBuf>,
    paths: Paths,
    /// The mount namespace that containers' are copied from, once there was use for it.
    blank: Arc<Blank>,
}

impl Monitor {
    /// The one that is configured, else the one beside vzd, else the installed one: looked for at each use.
    pub fn new(configured: Option<&Path>, paths: &Paths) -> Self {
        Self { configured: configured.map(Path::to_path_buf), paths: paths.clone(), blank: Arc::default() }
    }

    /// Where it is.
    ///
    /// # Errors
    /// [`Error::NoProgram`], with every place that was looked at.
    pub fn find(configured: Option<&Path>) -> Result<PathBuf, Error> {
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
            Some(program) => Ok(program.clone()),
            None => Err(Error::NoProgram(places)),
        }
    }

    fn spawn(&self, mode: &str, stdin: OwnedFd, log: &Path, cgroup: Option<BorrowedFd<'_>>) -> Result<Spawned, Error> {
        let own = Self::find(self.configured.as_deref())?;
        let failed = |source| Error::Spawn { program: own.clone(), source };
        // From sealed memory where that is possible: `vzctl exec` can then execute the same memory instead of a copy
        // of its own, and an upgrade of the file leaves running monitors alone.
        let image = Image::of(&own);
        let program = image.as_ref().map_or_else(|| own.clone(), |i| i.path());
        let text = |s: &OsStr| CString::new(s.as_bytes()).map_err(|e| failed(e.into()));
        let protocol = PROTOCOL.to_string();
        let arguments = [own.as_os_str(), mode.as_ref(), protocol.as_ref()].map(text);
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

    /// Runs `vzmon MODE` for one task and waits for its answer, and what came with it.
    fn task(
        &self,
        mode: &'static str,
        plan: &impl Serialize,
        fds: &[BorrowedFd<'_>],
        within: Duration,
    ) -> Result<Vec<OwnedFd>, Error> {
        let (ours, theirs) = pair()?;
        let log_path = self.paths.run().join("vzmon-task.log");
        let mut child = self.spawn(mode, theirs, &log_path, None)?;
        let sent = send(&ours, plan, fds, mode);
        // What it says counts even where it could not be told: its own reason is better than "broken pipe".
        let reply = match receive::<TaskReply>(&ours, mode, within) {
            Ok(None) => sent.map(|()| None),
            reply => reply,
        };
        let status = end(&mut child, reply.is_ok());
        match reply? {
            Some((TaskReply::Done, fds)) => Ok(fds),
            Some((TaskReply::Failed { cause }, _)) => Err(Error::Failed { step: None, cause }),
            None => Err(died(status, mode, &log_path)),
        }
    }
}

impl Monitors for Monitor {
    fn warm(&self) {
        self.blank.make(|within| match self.task("blank", &(), &[], within) {
            Ok(mut fds) if fds.len() == 1 => Ok(fds.remove(0)),
            Ok(_) => Err("it did not arrive".into()),
            Err(e) => Err(e.to_string()),
        });
    }

    fn launch(&self, plan: &LaunchPlan, cgroup: Option<BorrowedFd<'_>>) -> Result<Box<dyn Launch>, Error> {
        let blank = self.blank.get();
        let (ours, theirs) = pair()?;
        let log = plan.run_dir.join("monitor.log");
        let child = self.spawn("run", theirs, &log, cgroup)?;
        let mut launching = Launching {
            id: id_of(&child),
            child: Some(child),
            socket: Arc::new(ours),
            log,
            steps: Vec::new(),
            warnings: Vec::new(),
        };
        let fds: Vec<_> = blank.iter().map(AsFd::as_fd).collect();
        launching.say(plan, &fds, "sending the plan")?;
        Ok(Box::new(launching))
    }

    fn mount(&self, plan: &MountPlan) -> Result<(), Error> {
        self.task("mount", plan, &[], TASK_DEADLINE).map(drop)
    }

    fn edit(&self, plan: &EditPlan) -> Result<(), Error> {
        let blank = self.blank.get();
        let fds: Vec<_> = blank.iter().map(AsFd::as_fd).collect();
        self.task("edit", plan, &fds, TASK_DEADLINE).map(drop)
    }

    fn control(&self, run_dir: &Path, request: &ControlRequest, within: Duration) -> Result<ControlReply, Error> {
        let socket = connect(run_dir, within)?;
        let what = "asking the monitor";
        let began = Instant::now();
        ask::say(&socket, request, Some(began + within))?;
        let left = within.saturating_sub(began.elapsed());
        reply(receive::<ControlReply>(&socket, what, left)?)
    }

    fn ask(&self, run_dir: &Path, request: &ControlRequest) -> Result<Box<dyn Asked>, Error> {
        let socket = connect(run_dir, CONNECT)?;
        ask::say(&socket, request, None)?;
        Ok(Box::new(Question(Arc::new(socket))))
    }

    fn find(&self, run_dir: &Path, boot_id: &str) -> Found {
        Live::find(run_dir, boot_id)
    }

    fn end(&self, monitor: &Live, patience: Duration) -> bool {
        match &monitor.monitor {
            Some(fd) => end_of(&**fd, patience),
            None => self.end_process(monitor.record.monitor, patience),
        }
    }

    fn end_process(&self, id: ProcessId, patience: Duration) -> bool {
        match process::find_for_now(id) {
            Ok(Process::Gone) => true,
            Ok(Process::Alive(Some(fd))) => {
                process::wait_unless_stopped(&fd, id.pid, patience) || end_of(&fd, Duration::ZERO)
            }
            Ok(Process::Alive(None)) | Err(_) => false,
        }
    }

    fn program(&self) -> Result<PathBuf, Error> {
        Self::find(self.configured.as_deref())
    }
}

/// Waits for a process to end, and kills it if it does not.
fn end_of(pidfd: impl AsFd, patience: Duration) -> bool {
    if process::wait_end(&pidfd, patience) {
        return true;
    }
    process::kill(&pidfd);
    process::wait_end(&pidfd, KILLED)
}

fn id_of(child: &Spawned) -> Option<ProcessId> {
    let pid = child.pid();
    Some(ProcessId { pid, start_time: process::start_time(pid).ok()?? })
}

/// A request a monitor is at work on.
#[derive(Debug)]
struct Question(Arc<OwnedFd>);

impl Asked for Question {
    fn answer(&mut self) -> Result<Option<ControlReply>, Error> {
        match receive::<ControlReply>(&*self.0, "asking the monitor", Duration::ZERO) {
            Err(Error::Talk { source, .. }) if source.kind() == io::ErrorKind::TimedOut => Ok(None),
            answer => reply(answer?).map(Some),
        }
    }

    fn fd(&self) -> Arc<OwnedFd> {
        self.0.clone()
    }
}

/// See [`Launch`].
#[derive(Debug)]
struct Launching {
    child: Option<Spawned>,
    id: Option<ProcessId>,
    socket: Arc<OwnedFd>,
    log: PathBuf,
    steps: Vec<(String, u64)>,
    warnings: Vec<String>,
}

impl Launch for Launching {
    fn net_ready(&mut self, within: Duration) -> Result<Option<OwnedFd>, Error> {
        let what = "preparing the container";
        match self.next(what, within)? {
            None => Ok(None),
            Some((MonitorEvent::NetReady, mut fds)) if fds.len() == 1 => Ok(Some(fds.remove(0))),
            Some((other, _)) => Err(Error::Answer { what, answer: format!("{other:?}") }),
        }
    }

    fn go(&mut self) -> Result<(), Error> {
        self.say(&LaunchAnswer::Go, &[], "booting the container")
    }

    fn running(&mut self, within: Duration) -> Result<Option<Launched>, Error> {
        let what = "booting the container";
        match self.next(what, within)? {
            None => Ok(None),
            Some((MonitorEvent::Running { .. }, _)) => Ok(Some(Launched {
                child: self.child.take(),
                steps: std::mem::take(&mut self.steps),
                warnings: std::mem::take(&mut self.warnings),
            })),
            Some((other, _)) => Err(Error::Answer { what, answer: format!("{other:?}") }),
        }
    }

    fn abort(mut self: Box<Self>) {
        let told = send(&*self.socket, &LaunchAnswer::Abort, &[], "giving up").is_ok();
        if let Some(mut child) = self.child.take() {
            let unwound = told && process::wait_unless_stopped(child.pidfd(), child.pid(), UNWIND);
            end(&mut child, unwound);
        }
    }

    fn id(&self) -> Option<ProcessId> {
        self.id
    }

    fn fd(&self) -> Arc<OwnedFd> {
        self.socket.clone()
    }
}

impl Launching {
    /// Tells the monitor. Where it does not listen any more, its own last word is the reason.
    fn say(&mut self, message: &impl Serialize, fds: &[BorrowedFd<'_>], what: &'static str) -> Result<(), Error> {
        let Err(e) = send(&*self.socket, message, fds, what) else { return Ok(()) };
        while let Some((_, _)) = self.next(what, Duration::from_secs(1))? {}
        Err(e)
    }

    /// The next event that is more than a note; `None`: none within this time.
    fn next(&mut self, what: &'static str, within: Duration) -> Result<Option<(MonitorEvent, Vec<OwnedFd>)>, Error> {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match receive::<MonitorEvent>(&*self.socket, what, left) {
                Err(Error::Talk { source, .. }) if source.kind() == io::ErrorKind::TimedOut => return Ok(None),
                Err(e) => return Err(e),
                Ok(Some((MonitorEvent::Step { name, at_us }, _))) => self.steps.push((name, at_us)),
                Ok(Some((MonitorEvent::Warning { text }, _))) => self.warnings.push(text),
                Ok(Some((MonitorEvent::Failed { step, cause }, _))) => {
                    if let Some(mut child) = self.child.take() {
                        end(&mut child, true);
                    }
                    return Err(Error::Failed { step: Some(step), cause });
                }
                Ok(Some(answer)) => return Ok(Some(answer)),
                Ok(None) => {
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
    if !(told && process::wait_end(child.pidfd(), UNWIND)) {
        child.kill();
    }
    child.wait().ok()
}

fn died(status: Option<ExitStatus>, what: &'static str, log: &Path) -> Error {
    let status = status.map_or_else(|| "no status".into(), |s| s.to_string());
    let said =
        vz_sys::records::tail(log, 4096).ok().and_then(|t| t.lines().last().map(|l| l.chars().take(300).collect()));
    Error::Died { status, what, said }
}

/// What vzmon writes when it fails without words of its own. A file, because it outlives vzd.
fn log_file(path: &Path) -> io::Result<OwnedFd> {
    // A FIFO in its place has no reader, and a link may lead anywhere.
    const FLAGS: i32 = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let log = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).custom_flags(FLAGS).open(path);
    log.or_else(|_| OpenOptions::new().write(true).open("/dev/null")).map(OwnedFd::from)
}

fn pair() -> Result<(OwnedFd, OwnedFd), Error> {
    seqpacket::pair().map_err(|source| Error::Talk { what: "making a socket", source })
}

fn send(socket: &impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>], what: &'static str) -> Result<(), Error> {
    let text = serde_json::to_vec(message).map_err(|e| Error::Talk { what, source: e.into() })?;
    seqpacket::send(socket, &text, fds).map_err(|source| Error::Talk { what, source })
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

fn connect(run_dir: &Path, within: Duration) -> Result<OwnedFd, Error> {
    let unreachable = |source| Error::Unreachable { path: run_dir.join("control.sock"), source };
    seqpacket::connect(run_dir, "control.sock", within.min(CONNECT)).map_err(unreachable)
}

/// What a monitor's answer comes to.
fn reply(answer: Option<(ControlReply, Vec<OwnedFd>)>) -> Result<ControlReply, Error> {
    match answer {
        Some((ControlReply::Failed { cause }, _)) if cause.starts_with(NOT_UNDERSTOOD) => {
            Err(Error::OtherVersion { cause })
        }
        Some((ControlReply::Failed { cause }, _)) => Err(Error::Failed { step: None, cause }),
        Some((reply, _)) => Ok(reply),
        None => Err(Error::Talk {
            what: "asking the monitor",
            source: io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without an answer"),
        }),
    }
}

impl Error {
    /// It was waited for in vain.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } | Self::Talk { source, .. } => source.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    /// What it comes to for somebody who is told already that the monitor does not answer.
    pub fn cause(&self) -> String {
        match self {
            Self::Unreachable { path, source } => format!("{}: {source}", path.display()),
            Self::Talk { source, .. } => source.to_string(),
            other => other.to_string(),
        }
    }

    /// Nobody answered in time, or at all: asking again would take as long.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Silent { .. } => true,
            Self::Talk { source, .. } => source.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
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
            let mut launching = Launching {
                id: None,
                child: None,
                socket: Arc::new(ours),
                log: PathBuf::new(),
                steps: Vec::new(),
                warnings: Vec::new(),
            };
            if unread {
                send(&*launching.socket, &LaunchAnswer::Abort, &[], "testing").unwrap();
            }
            let words = || MonitorEvent::Failed { step: "storage".into(), cause: "no such disk".into() };
            send(&theirs, &words(), &[], "testing").unwrap();
            drop(theirs);
            let told = launching.go().unwrap_err();
            assert!(
                matches!(&told, Error::Failed { step: Some(s), cause } if s == "storage" && cause == "no such disk"),
                "{told}"
            );
        }
    }
}
