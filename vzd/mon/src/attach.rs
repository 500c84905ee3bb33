//! `vzmon attach FD`: runs a program in a running container for `vzctl exec`, `enter` and `runscript`.
//!
//! ```text
//! vzctl --(fexecve of a sealed memfd)--> relay, stays on the host: moves bytes, and may be stopped or held by its client
//!   | clone3
//!   v
//! keeper, stays on the host as well, in a session of its own: parent of the program, and never late to reap it ([`keeper`])
//!   | clone3 into init's cgroup (or exec/ beside ns/: under the container's limits in any case)
//!   v
//! joiner: setns to all namespaces of init at once, the pid namespace for its children
//!   | clone3, CLONE_PARENT
//!   v
//! program: confined like init, stdio = pipes or a pty, exec
//! ```
//! The pty is one of the container's own, so that it has a name there ([`terminal`]).
//! The program never gets a descriptor of the operator's: bytes are relayed. The binary is a memfd's, so nothing inside
//! can reach a file of the host through `/proc/PID/exe`, and it is undumpable, so nothing inside can look.

use crate::{
    confine,
    error::{At, StepError},
    launch, request, setup,
};
use nix::sched::CloneFlags;
use std::{
    ffi::{CString, OsStr},
    fs::{self, File},
    io::{self, IsTerminal, Read, Write},
    os::fd::{AsFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::ExitCode,
};
use vz_sys::{
    proc,
    process::{self, Cloned, SingleThreaded},
    pty, records,
    seccomp::Filter,
    seqpacket,
};
use vz_types::{Word, inits::Request, plan::AttachPlan, run::RunRecord};

mod client;
mod keeper;
mod own;
mod relay;
mod terminal;

const STEP: &str = "attach";

/// How an attach failed, for the exit status.
enum Failure {
    NotRunning(String),
    NotFound(String),
    Other(StepError),
}

impl From<StepError> for Failure {
    fn from(e: StepError) -> Self {
        Self::Other(e)
    }
}

/// Runs the program of the plan on descriptor `fd`; exits with its status.
pub fn main(one: SingleThreaded, fd: Option<&str>) -> ExitCode {
    let plan = match fd.and_then(|n| n.parse().ok()).map(read_plan) {
        Some(Ok(plan)) => plan,
        Some(Err(e)) => return crate::fail(&format!("cannot read the attach plan: {e}")),
        None => return crate::fail("attach wants the number of a descriptor"),
    };
    let status = match attach(one, &plan) {
        Ok(status) => status,
        Err(Failure::NotRunning(why)) => {
            eprintln!("{why}");
            vz_types::ExitCode::NotRunning.code()
        }
        Err(Failure::NotFound(what)) => {
            eprintln!("{what}: not found in the container");
            127
        }
        Err(Failure::Other(e)) => {
            eprintln!("Unable to run a program in the container: {e}");
            vz_types::ExitCode::System.code()
        }
    };
    if let Some(line) = &plan.farewell {
        // Nobody may be reading, and the program's own status counts.
        drop(writeln!(std::io::stdout(), "{line}"));
    }
    ExitCode::from(match (status, plan.fail_as) {
        (0, _) | (_, None) => status,
        (_, Some(code)) => code,
    })
}

/// The plan on this descriptor. On standard input it is all of that, and the program inside has none.
fn read_plan(fd: i32) -> io::Result<AttachPlan> {
    let mut file = match fd {
        0 => File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?),
        other => File::from(process::inherited_fd(other)?),
    };
    io::Seek::rewind(&mut file)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    if fd == 0 {
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    }
    Ok(serde_json::from_str(&text)?)
}

/// The running container behind a run directory, checked to be the process on record.
fn running(run_dir: &Path) -> Result<(RunRecord, OwnedFd), Failure> {
    let gone = || Failure::NotRunning("Container is not running".into());
    let file = run_dir.join("state.json");
    let text = match records::read(&file) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Err(gone()),
        // What cannot be read is no proof that nothing runs.
        Err(e) => {
            return Err(Failure::Other(StepError { step: STEP, what: format!("read {}", file.display()), source: e }));
        }
    };
    let state: RunRecord = serde_json::from_slice(&text).map_err(|e| {
        Failure::NotRunning(format!("{} is not a run record ({e}); is another version running?", run_dir.display()))
    })?;
    let pidfd = process::pidfd_open(state.init.pid).map_err(|_| gone())?;
    // The pidfd pins the process, so a match now holds for as long as we use it.
    match proc::start_time(state.init.pid) {
        Ok(t) if t == state.init.start_time => Ok((state, pidfd)),
        _ => Err(gone()),
    }
}

/// Standard descriptors of the program, and what the relay keeps.
enum Stdio {
    Terminal(pty::Pty),
    Pipes { program: [OwnedFd; 3], ours: [OwnedFd; 3] },
}

impl Stdio {
    fn pipes(uid_base: u32) -> Result<Self, StepError> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at(STEP, "make a pipe");
        let (in_read, in_write) = pipe()?;
        let (out_read, out_write) = pipe()?;
        let (err_read, err_write) = pipe()?;
        for end in [&in_read, &out_write, &err_write] {
            // Programs reopen /dev/stdout and friends; the pipe's inode must be theirs for that.
            let (uid, gid) = (rustix::fs::Uid::from_raw(uid_base), rustix::fs::Gid::from_raw(uid_base));
            rustix::fs::fchown(end, Some(uid), Some(gid)).at(STEP, "hand over a pipe")?;
        }
        Ok(Self::Pipes { program: [in_read, out_write, err_write], ours: [in_write, out_read, err_read] })
    }

    fn install(&self) -> Result<(), StepError> {
        match self {
            Self::Terminal(pty) => {
                pty::take_control(&pty.slave).at(STEP, "take the terminal")?;
                setup::console_as_stdio(&pty.slave)
            }
            Self::Pipes { program: [input, output, error], .. } => {
                rustix::stdio::dup2_stdin(input).at(STEP, "set standard input")?;
                rustix::stdio::dup2_stdout(output).at(STEP, "set standard output")?;
                rustix::stdio::dup2_stderr(error).at(STEP, "set standard error")
            }
        }
    }
}

fn attach(one: SingleThreaded, plan: &AttachPlan) -> Result<u8, Failure> {
    let (state, target) = running(&plan.run_dir)?;
    // What comes from a file or a pipe is no terminal, and ends: a line editor would wait behind its end for a key that
    // nobody presses.
    let terminal = plan.tty && io::stdin().is_terminal();
    let stdio = match terminal {
        true => Stdio::Terminal(terminal::open(one, &state, &target)?),
        false => Stdio::pipes(state.uid_base.get())?,
    };
    let script = match plan.script_fd {
        Some(fd) => Some(process::inherited_fd(fd).at(STEP, "take over the script")?),
        None => None,
    };
    let (ours, theirs) = seqpacket::pair().at(STEP, "make a channel")?;
    let keeper = match process::clone3(one, CloneFlags::empty(), None).at(STEP, "clone")? {
        Cloned::Child => {
            drop(ours);
            keeper::keep(one, Inside { plan, state, target, stdio, script }, &theirs)
        }
        Cloned::Parent(_, pidfd) => pidfd,
    };
    drop(theirs);
    let (message, _) = seqpacket::recv(&ours, None).at(STEP, "hear from the program's parent")?;
    if message != keeper::STARTED {
        launch::reap(&keeper);
        return Err(failure(&message));
    }
    drop(script);
    let ends = relay::Ends { keeper: ours, init: target };
    let status = match stdio {
        Stdio::Terminal(pty) => {
            drop(pty.slave);
            relay::terminal(&pty.master, &ends).at(STEP, "relay the terminal")?
        }
        Stdio::Pipes { program, ours } => {
            drop(program);
            relay::pipes(ours, &ends).at(STEP, "relay the program's output")?
        }
    };
    // It has said its last word: who asked us finds nothing of us left.
    launch::reap(&keeper);
    status.ok_or_else(|| {
        let source = io::Error::other("the process that waits for it was killed");
        Failure::Other(StepError { step: STEP, what: "wait for the program".into(), source })
    })
}

/// What is needed to run a program inside.
struct Inside<'a> {
    plan: &'a AttachPlan,
    state: RunRecord,
    target: OwnedFd,
    stdio: Stdio,
    script: Option<OwnedFd>,
}

/// Clones into the cgroup init is in, so that a session manager inside can move what a login starts into a scope of its
/// own (a cgroup outside the container's namespace is out of its reach, and `su` would wait for ever); into `exec/`
/// beside the delegated `ns/` where the container has made that impossible.
fn clone_inside(one: SingleThreaded, state: &RunRecord) -> Result<Cloned, StepError> {
    let with_init = init_cgroup(state).and_then(|path| open_cgroup(&path).ok());
    if let Some(Ok(cloned)) = with_init.map(|c| process::clone3(one, CloneFlags::empty(), Some(c.as_fd()))) {
        return Ok(cloned);
    }
    let path = state.cgroup.join("exec");
    let beside = open_cgroup(&path).at(STEP, format!("open {}", path.display()))?;
    process::clone3(one, CloneFlags::empty(), Some(beside.as_fd())).at(STEP, "clone into the container's cgroup")
}

fn open_cgroup(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Where init is now, below our level of the container: the kernel tells it from the root of the hierarchy, wherever
/// that is mounted.
fn init_cgroup(state: &RunRecord) -> Option<PathBuf> {
    let text = fs::read(format!("/proc/{}/cgroup", state.init.pid)).ok()?;
    // Whoever is root inside names the lower ones, in any bytes.
    let of_root = text.split(|b| *b == b'\n').find_map(|l| l.strip_prefix(b"0::/"))?;
    let of_root = Path::new(OsStr::from_bytes(of_root));
    let level = of_root.ancestors().find(|a| a.file_name() == state.cgroup.file_name() && state.cgroup.ends_with(a))?;
    let below = of_root.strip_prefix(level).ok()?;
    below.starts_with("ns").then(|| state.cgroup.join(below))
}

/// Joins everything init is in. The pid namespace takes effect for children only, which is why a program is cloned last.
fn join(target: &OwnedFd) -> Result<(), StepError> {
    // A kernel without time namespaces refuses the flag.
    let time = if Path::new("/proc/self/ns/time").exists() { libc::CLONE_NEWTIME } else { 0 };
    let all = CloneFlags::from_bits_retain(time)
        | CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    nix::sched::setns(target, all).at(STEP, "join the container's namespaces")?;
    process::become_root().at(STEP, "become root inside")
}

/// The program's process until exec, or until the request that came before it was made; returns only with an error.
fn program(
    plan: &AttachPlan,
    state: &RunRecord,
    stdio: &Stdio,
    script: Option<&OwnedFd>,
    request: Option<Request>,
) -> Result<std::convert::Infallible, StepError> {
    rustix::process::setsid().at(STEP, "start a session")?;
    let home = plan.env.iter().find_map(|e| e.strip_prefix("HOME=")).unwrap_or("/root");
    if rustix::process::chdir(home).is_err() {
        rustix::process::chdir("/").at(STEP, "enter /")?;
    }
    stdio.install()?;
    let mut first_closed = 3;
    if let Some(script) = script {
        // Not close-on-exec: this one the program is meant to have, as /dev/fd/3.
        process::duplicate_to(script.as_fd(), 3).at(STEP, "pass the script")?;
        first_closed = 4;
    }
    confine::for_exec(&Filter::compile(&state.features, &state.guards), first_closed)?;
    if request.is_some_and(request::make) {
        process::exit_now(0);
    }
    let argv = if plan.argv.is_empty() { own::login_shell() } else { plan.argv.clone() };
    let mut env = plan.env.clone();
    env.extend(own::locale().into_iter().filter(|l| !plan.env.iter().any(|e| own::name(e) == own::name(l))));
    let env: Vec<Word> = env.into_iter().map(Word::from).collect();
    let mut last = execute(&argv, &env);
    // Not there, not executable, a script without a first line that names its shell: the fallback knows what to say or do.
    let for_a_shell = matches!(last, nix::Error::ENOENT | nix::Error::EACCES | nix::Error::ENOEXEC);
    if for_a_shell && !plan.argv_fallback.is_empty() {
        last = execute(&plan.argv_fallback, &env);
    }
    let name = argv.first().cloned().unwrap_or_default();
    Err(last).at(STEP, name.to_string())
}

/// execvpe(3) with the PATH of the *new* environment.
fn execute(argv: &[Word], env: &[Word]) -> nix::Error {
    let text = |list: &[Word]| list.iter().map(|w| CString::new(w.bytes())).collect::<Result<Vec<_>, _>>();
    let (Ok(mut args), Ok(env_c)) = (text(argv), text(env)) else { return nix::Error::EINVAL };
    let Some(name) = argv.first().map(Word::bytes) else { return nix::Error::ENOENT };
    // `-bash` as argv[0] makes a login shell of the program without the dash.
    let program = name.strip_prefix(b"-").filter(|p| p.starts_with(b"/")).unwrap_or(name);
    if let Some(base) = name.strip_prefix(b"-/").and_then(|p| p.rsplit(|b| *b == b'/').next()) {
        if let Ok(zero) = CString::new([&b"-"[..], base].concat()) {
            args[0] = zero;
        }
    }
    if program.contains(&b'/') {
        return try_exec(program, &args, &env_c);
    }
    let path = env.iter().find_map(|e| e.bytes().strip_prefix(b"PATH=")).unwrap_or(b"/usr/sbin:/usr/bin:/sbin:/bin");
    let mut worst = nix::Error::ENOENT;
    for dir in path.split(|b| *b == b':') {
        match try_exec(&[dir, program].join(&b'/'), &args, &env_c) {
            nix::Error::ENOENT | nix::Error::ENOTDIR => {}
            other => worst = other,
        }
    }
    worst
}

fn try_exec(path: &[u8], args: &[CString], env: &[CString]) -> nix::Error {
    match CString::new(path).map(|p| nix::unistd::execve(&p, args, env)) {
        Ok(Err(e)) => e,
        _ => nix::Error::EINVAL,
    }
}

/// What the children tell when there is no program to run: kind, then words. `g`: so it is, too, where the container is
/// about to be gone (clone(2): a pid namespace whose init has ended; setns(2): a process that has).
fn report(channel: &OwnedFd, e: Option<StepError>) -> ! {
    if let Some(e) = e {
        let kind = match e.source.raw_os_error() {
            Some(libc::ENOENT) => 'n',
            Some(libc::ENOMEM | libc::ESRCH) => 'g',
            _ => 'e',
        };
        let words = if kind == 'n' { e.what } else { e.to_string() };
        let _ = seqpacket::send(channel, format!("{kind}{words}....").as_bytes(), &[]);
    }
    process::exit_now(1)
}

/// What such a message comes to for whoever asked.
fn failure(message: &[u8]) -> Failure {
    let text = String::from_utf8_lossy(message);
    let words = text.trim_end_matches("....");
    let mut rest = words.chars();
    match (rest.next(), rest.as_str()) {
        (Some('n'), name) => Failure::NotFound(name.to_owned()),
        (Some('r'), why) => Failure::NotRunning(why.to_owned()),
        (Some(_), why) => Failure::Other(inside(why)),
        (None, _) => Failure::Other(inside("the process that waits for it was killed")),
    }
}

fn inside(why: &str) -> StepError {
    StepError { step: STEP, what: "inside".into(), source: io::Error::other(why.to_owned()) }
}

/// Runs a program inside for the monitor itself, nobody watching. With a `request`, the program runs only if that cannot
/// be made. Gives back the child that starts it, which is to be reaped when it has ended: born inside, it may be frozen
/// there.
pub fn run_detached(
    one: SingleThreaded,
    state: &RunRecord,
    request: Option<Request>,
    argv: &[&str],
) -> Option<OwnedFd> {
    let target = process::pidfd_open(state.init.pid).ok()?;
    match clone_inside(one, state).map(|c| match c {
        Cloned::Child => {
            let plan = AttachPlan {
                run_dir: std::path::PathBuf::new(),
                argv: argv.iter().map(|s| (*s).into()).collect(),
                env: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
                tty: false,
                script_fd: None,
                argv_fallback: Vec::new(),
                fail_as: None,
                farewell: None,
            };
            let done = Stdio::pipes(state.uid_base.get()).and_then(|stdio| {
                join(&target)?;
                if let Cloned::Child = process::clone3(one, CloneFlags::empty(), None).at(STEP, "clone the program")? {
                    let _ = program(&plan, state, &stdio, None, request);
                }
                Ok(())
            });
            process::exit_now(i32::from(done.is_err()))
        }
        parent => parent,
    }) {
        Ok(Cloned::Parent(_, pidfd)) => Some(pidfd),
        _ => None,
    }
}
