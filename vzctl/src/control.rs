//! A running container's monitor, asked directly through its control socket: no vzd is needed for that. A monitor that
//! is stopped or hangs keeps nobody waiting.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};
use vz_sys::seqpacket;
use vz_types::{
    Ctid, Paths,
    plan::{ControlReply, ControlRequest},
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
    let left = || until.saturating_duration_since(Instant::now());
    let socket = seqpacket::connect(&paths.ct_run(ctid), "control.sock", left())?;
    seqpacket::send_within(&socket, &serde_json::to_vec(request)?, &[], left())?;
    let (answer, _) = seqpacket::recv(&socket, Some(left()))?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((serde_json::from_slice(&answer)?, socket))
}
