//! A running container's monitor, asked directly through its control socket: no vzd is needed for that. A monitor that
//! is stopped or hangs keeps nobody waiting.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};
use vz_sys::{proc, seqpacket};
use vz_types::{
    Ctid, Paths,
    plan::{ControlReply, ControlRequest},
    run::ProcessId,
};

/// The largest frame read; vzmon sends less.
pub const FRAME: usize = 128 << 10;
/// How long a monitor may take to answer what it can answer at once.
pub const PROMPT: Duration = Duration::from_secs(5);

/// Connects, asks, and waits for the answer. The socket goes on for those who have more to say.
///
/// # Errors
/// The monitor cannot be reached, its answer is none, or all of it took longer than `within` (`TimedOut`).
pub fn ask(
    paths: &Paths,
    ctid: Ctid,
    request: &ControlRequest,
    within: Duration,
) -> io::Result<(ControlReply, OwnedFd)> {
    let until = Instant::now() + within;
    let socket = say(paths, ctid, request, until)?;
    let reply = hear(&socket, until)?;
    Ok((reply, socket))
}

/// How long a monitor that is not stopped may take to answer anything, when it has not within [`PROMPT`].
const HEARD: Duration = Duration::from_secs(10);

/// Asks for an end that may take its time, `within` at most: a monitor that answers nobody meanwhile is not waited for.
///
/// # Errors
/// As [`ask`]; `TimedOut` with words of its own where it answers nobody.
pub fn ask_patiently(
    paths: &Paths,
    ctid: Ctid,
    request: &ControlRequest,
    monitor: Option<ProcessId>,
    within: Duration,
) -> io::Result<ControlReply> {
    let begun = Instant::now();
    let silent = |why: &str| io::Error::new(io::ErrorKind::TimedOut, why.to_owned());
    let socket = say(paths, ctid, request, begun + PROMPT.min(within))?;
    match hear(&socket, begun + PROMPT.min(within)) {
        Err(e) if e.kind() == io::ErrorKind::TimedOut && within > PROMPT => {}
        done => return done,
    }
    let state = |m: ProcessId| proc::stat(m.pid).ok().filter(|s| s.start_time == m.start_time).map(|s| s.state);
    if monitor.and_then(state) == Some('T') {
        return Err(silent("it is stopped"));
    }
    match ask(paths, ctid, &ControlRequest::Console { replay: false }, HEARD) {
        Err(e) if e.kind() == io::ErrorKind::TimedOut => Err(silent("it answers nothing")),
        // It listens; or it has just ended, which is told on the first connection.
        _ => hear(&socket, begun + within),
    }
}

fn say(paths: &Paths, ctid: Ctid, request: &ControlRequest, until: Instant) -> io::Result<OwnedFd> {
    let left = || until.saturating_duration_since(Instant::now());
    let socket = seqpacket::connect(&paths.ct_run(ctid), "control.sock", left())?;
    seqpacket::send_within(&socket, &serde_json::to_vec(request)?, &[], left())?;
    Ok(socket)
}

fn hear(socket: &OwnedFd, until: Instant) -> io::Result<ControlReply> {
    let (answer, _) = seqpacket::recv(socket, Some(until.saturating_duration_since(Instant::now())))?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&answer)?)
}
