//! Every container at once: `stop --all`, and the start of those that were stopped so (`systemctl restart vz`).
//!
//! ```text
//! systemctl stop vz, shutdown of the host:  stop --all --remember  -> /run/vz/stopped: who ran, in boot order
//! systemctl start vz:                       start --remembered     <- started again, the file removed
//! boot of the host:                         /run is empty, nothing is remembered; vzd starts those with onboot
//! ```
//! Containers shut down side by side. Where vzd does not answer their monitors are asked, so that a host goes down in
//! order even without it; vzd clears away after them when it starts. A monitor that does not answer keeps nobody waiting:
//! its container is killed through its cgroup.

use crate::{
    control,
    failure::{Failure, Outcome},
    progress, settings, target,
    verbs::Session,
    words,
};
use nix::poll::PollTimeout;
use serde::Serialize;
use std::{
    collections::VecDeque,
    fs, io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use vz_api::{
    client::{Client, ClientError},
    wire::{Done, StartRequest, StopRequest},
};
use vz_sys::{cgroup, records};
use vz_types::{
    CtState, Ctid, ExitCode, Reason,
    manager::Defaults,
    plan::{ControlReply, ControlRequest},
    run::{ExitReason, RunRecord},
};

/// How many are stopped at a time: most of it is waiting.
const STOPS: usize = 48;
/// How many are started at a time: that is work for the disks.
const STARTS: usize = 4;
/// How long an operation that is under way on a container is waited for.
const BUSY: Duration = Duration::from_secs(120);
/// And how often it is looked at.
const AGAIN_MS: u16 = 250;

/// What became of one container, for `--json` too.
#[derive(Debug, Serialize)]
struct One {
    ctid: u32,
    done: bool,
    seconds: f64,
    message: String,
    #[serde(skip)]
    code: Option<ExitCode>,
}

/// `stop --all`: 0 when nothing runs any more, else the code of the first failure.
pub fn stop(session: &Session, fast: bool, timeout: Option<&str>, remember: bool) -> Outcome {
    let timeout = timeout.map(settings::timeout).transpose()?;
    let request = StopRequest { fast, timeout };
    let (mut order, mut all) = (Vec::new(), Vec::new());
    // Again for those that came up meanwhile, as at a shutdown in the middle of a boot. Each one once.
    loop {
        let (running, by_vzd) = running(session, order.is_empty())?;
        let fresh: Vec<Ctid> = running.into_iter().filter(|c| !order.contains(c)).collect();
        if fresh.is_empty() {
            break;
        }
        order.extend(&fresh);
        if remember {
            let text: String = order.iter().map(|c| format!("{c}\n")).collect();
            let file = remembered(session);
            fs::write(&file, text).map_err(|e| Failure::system(format_args!("cannot write {}", file.display()), e))?;
        }
        let one = |ctid: Ctid| match by_vzd {
            // A vzd that goes away and stays away leaves the monitors.
            true => match unless_busy(|| asking(session).stop(&ctid.to_string(), &request)) {
                Ok(done) => Ok(warnings(session, done)),
                Err(Asked::Gone(_)) => stop_without_vzd(session, ctid, fast, timeout),
                // It runs and is none that vzd knows.
                Err(Asked::Refused(f)) if f.code == ExitCode::NoConfig => {
                    stop_without_vzd(session, ctid, fast, timeout)
                }
                Err(Asked::Refused(f)) => Err(f),
            },
            false => stop_without_vzd(session, ctid, fast, timeout),
        };
        // What boots first is needed by what boots later, so the last go first.
        all.extend(each(session, "Stopping", fresh.into_iter().rev().collect(), STOPS, one));
    }
    finish(session, "stopped", "no container runs", &all)
}

/// `start --remembered`: those the last `stop --all --remember` has stopped. 0 also when there are none.
pub fn start(session: &Session) -> Outcome {
    let file = remembered(session);
    let text = match records::text(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Failure::system(format_args!("cannot read {}", file.display()), e)),
    };
    let queue: Vec<Ctid> = text.lines().filter_map(|l| l.parse().ok()).collect();
    let request = StartRequest { force: false, wait: false };
    let one = |ctid: Ctid| match unless_busy(|| asking(session).start(&ctid.to_string(), &request)) {
        // Somebody was faster.
        Err(Asked::Refused(f)) if f.code == ExitCode::Running => Ok(Vec::new()),
        Err(Asked::Refused(f) | Asked::Gone(f)) => Err(f),
        Ok(done) => Ok(warnings(session, done)),
    };
    let all = each(session, "Starting", queue, STARTS, one);
    let _ = fs::remove_file(&file);
    finish(session, "started", "no container was stopped to be started again", &all)
}

/// Who ran when all were stopped; gone when the host boots.
fn remembered(session: &Session) -> PathBuf {
    session.paths.run().join("stopped")
}

/// What runs or is about to, highest boot order first, and whether vzd told.
fn running(session: &Session, first: bool) -> Result<(Vec<Ctid>, bool), Failure> {
    match session.client.list_brief() {
        Ok(all) => {
            // What is not understood runs, as far as anybody can tell.
            let up = |s| matches!(s, CtState::Running | CtState::Starting | CtState::Stopping | CtState::Unknown);
            let mut found: Vec<_> = all.into_iter().filter(|i| up(i.state) || i.status == "running").collect();
            found.sort_by_key(|i| std::cmp::Reverse(i.bootorder.unwrap_or(0)));
            Ok((found.iter().filter_map(|i| Ctid::try_from(i.ctid).ok()).collect(), true))
        }
        Err(ClientError::Denied { .. }) => Ok(session.client.list_brief().map(|_| (Vec::new(), true))?),
        Err(e) => {
            if first {
                let why = Failure::from(e).message;
                session.ui.warn(&format!("WARNING: {why}; the containers' monitors are asked instead"));
            }
            let dir = session.paths.ct_run_dir();
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), false)),
                Err(e) => return Err(Failure::system(format_args!("cannot list {}", dir.display()), e)),
            };
            let there = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
            // One whose record cannot be read may run: its monitor tells.
            let mut found: Vec<Ctid> =
                there.filter(|c| !matches!(target::running(&session.paths, *c), Ok(None))).collect();
            found.sort_unstable();
            Ok((found, false))
        }
    }
}

/// What a monitor may take beyond the time it gives its container.
const GRACE: Duration = Duration::from_secs(15);
/// And for a kill.
const FAST: Duration = Duration::from_secs(5);
/// How long killed processes may take to be gone.
const GONE: Duration = Duration::from_secs(10);

/// Asks the monitor itself to end its container. Answers what was not as asked for.
pub fn stop_without_vzd(
    session: &Session,
    ctid: Ctid,
    fast: bool,
    timeout: Option<u32>,
) -> Result<Vec<String>, Failure> {
    let failed = |e: &dyn std::fmt::Display| {
        Failure::new(ExitCode::StopFailed, format!("the monitor of CT {ctid} does not answer: {e}"))
    };
    // Ours is the one time that is known here: the monitor is told it, so that both count the same.
    let timeout = timeout.unwrap_or_else(|| stop_timeout(session, ctid));
    let patience = if fast { FAST } else { GRACE + Duration::from_secs(timeout.into()) };
    let monitor = target::running(&session.paths, ctid).ok().flatten().map(|r| r.monitor);
    let request = ControlRequest::Stop { fast, timeout: Some(timeout) };
    match control::ask_patiently(&session.paths, ctid, &request, monitor, patience) {
        Ok(ControlReply::Ended { reason: ExitReason::Killed }) if !fast => {
            Ok(vec![format!("CT {ctid} did not stop by itself in time and was killed")])
        }
        Ok(ControlReply::Failed { cause }) => Err(Failure::new(ExitCode::StopFailed, cause)),
        Ok(_) => Ok(Vec::new()),
        Err(e) => match target::running(&session.paths, ctid) {
            Ok(Some(record)) => kill(&record).map(|()| {
                let pid = record.monitor.pid;
                vec![format!("CT {ctid} was killed, because its monitor (pid {pid}) did not answer: {e}")]
            }),
            // It ended while it was asked.
            Ok(None) if e.kind() != io::ErrorKind::TimedOut => Ok(Vec::new()),
            Ok(None) => Ok(vec![format!("CT {ctid} has ended, but its monitor did not say so")]),
            Err(f) => Err(failed(&format_args!("{e}; {}", f.message))),
        },
    }
}

/// Ends a container without its monitor.
fn kill(record: &RunRecord) -> Result<(), Failure> {
    let (ctid, dir) = (record.ctid, &record.cgroup);
    cgroup::kill(dir).and_then(|()| cgroup::wait_empty(dir, GONE)).map_err(|e| {
        Failure::new(ExitCode::StopFailed, format!("CT {ctid} cannot be killed through {}: {e}", dir.display()))
    })
}

/// Seconds a container has to stop by itself, as vzd would have it: its own, the manager's, the built-in default. What
/// cannot be read is left to the next of them.
fn stop_timeout(session: &Session, ctid: Ctid) -> u32 {
    let table = |file: PathBuf| records::operators_text(&file).ok()?.parse::<toml::Table>().ok();
    let seconds =
        |v: &toml::Value| v.as_integer().and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=3600).contains(n));
    let own = || table(session.paths.conf(ctid))?.get("stop_timeout").and_then(seconds);
    let managers = || table(session.paths.manager_config())?.get("defaults")?.get("stop_timeout").and_then(seconds);
    own().or_else(managers).unwrap_or_else(|| Defaults::default().stop_timeout)
}

/// Each under a number of its own, so that it is found again where the connection is lost.
fn asking(session: &Session) -> Client {
    session.client.numbered(progress::number()).in_background(session.background)
}

fn warnings(session: &Session, done: Done) -> Vec<String> {
    words::told(done, &session.paths).warnings
}

/// Why a request has no good answer.
enum Asked {
    /// vzd went away, and did not come back.
    Gone(Failure),
    /// It says no.
    Refused(Failure),
}

/// vzd ended before the container was asked to.
fn interrupted(e: &ClientError) -> bool {
    matches!(e, ClientError::Api(a) if matches!(a.reason, Some(Reason::VzdEnded { .. } | Reason::Quitting)))
}

/// Asks again while another operation has the container.
fn unless_busy<T>(request: impl Fn() -> Result<T, ClientError>) -> Result<T, Asked> {
    let begun = Instant::now();
    loop {
        match request() {
            Err(e) if (e.code() == ExitCode::Locked || interrupted(&e)) && begun.elapsed() < BUSY => {
                let _ = nix::poll::poll(&mut [], PollTimeout::from(AGAIN_MS));
            }
            Err(
                e @ (ClientError::Broken { .. }
                | ClientError::NotRunning { .. }
                | ClientError::Lost { .. }
                | ClientError::NeverBegan { .. }),
            ) => return Err(Asked::Gone(e.into())),
            other => return other.map_err(|e| Asked::Refused(e.into())),
        }
    }
}

/// Does `work` on each, `width` at a time, in order; says each as it is done.
fn each(
    session: &Session,
    word: &str,
    queue: Vec<Ctid>,
    width: usize,
    work: impl Fn(Ctid) -> Result<Vec<String>, Failure> + Sync,
) -> Vec<One> {
    let count = queue.len();
    let queue = Arc::new(Mutex::new(VecDeque::from(queue)));
    let ended = Arc::new(AtomicUsize::new(0));
    {
        let (queue, ended, word) = (Arc::clone(&queue), Arc::clone(&ended), word.to_lowercase());
        progress::interrupted_by(move || {
            let waiting = queue.lock().unwrap_or_else(PoisonError::into_inner).len();
            let ended = ended.load(Ordering::Relaxed);
            let under_way = count.saturating_sub(waiting + ended);
            format!(
                "\nInterrupted: {word} {under_way} goes on (`vzctl operations --open`), {waiting} of {count} were not begun"
            )
        });
    }
    let all = Mutex::new(Vec::new());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let worker = || {
        while let Some(ctid) = next() {
            let begun = Instant::now();
            let outcome = work(ctid);
            let seconds = begun.elapsed().as_secs_f64();
            ended.fetch_add(1, Ordering::Relaxed);
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            let (done, code, message) = match outcome {
                Ok(warnings) => {
                    warnings.iter().for_each(|w| session.ui.warn(&format!("WARNING: {w}")));
                    (true, None, warnings.join("; "))
                }
                Err(f) => {
                    session.ui.warn(&format!("CT {ctid}: {}", f.message));
                    (false, Some(f.code), f.message)
                }
            };
            if done {
                let how = if session.background { "asked for" } else { "done" };
                session.ui.say(&format!("{word} CT {ctid}: {how} in {seconds:.1} s"));
            }
            all.push(One { ctid: ctid.get(), done, seconds, message, code });
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..count.min(width) {
            scope.spawn(worker);
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn finish(session: &Session, word: &str, none: &str, all: &[One]) -> Outcome {
    if session.ui.json {
        session.ui.object(&all)?;
    } else if all.is_empty() {
        session.ui.say(&format!("Nothing to do: {none}"));
    }
    let failed: Vec<&One> = all.iter().filter(|o| !o.done).collect();
    let Some(code) = failed.iter().find_map(|o| o.code) else { return Ok(0) };
    let names: Vec<String> = failed.iter().map(|o| o.ctid.to_string()).collect();
    Err(Failure::new(
        code,
        format!("{} of {} containers were not {word}: {}", failed.len(), all.len(), names.join(" ")),
    ))
}
