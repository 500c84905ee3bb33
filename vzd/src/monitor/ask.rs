//! Asking a running container's monitor: the request, and until when it is of use.

use super::Error;
use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};
use vz_sys::seqpacket;
use vz_types::plan::ControlRequest;

/// How long before a request's asker gives up it is no longer begun or gone on with: so that its answer is still heard.
const HEARD: Duration = Duration::from_millis(500);

/// Asks a running container's monitor, which is not to begin with it when the asker is about to give up.
pub fn say(socket: &OwnedFd, request: &ControlRequest, give_up: Option<Instant>) -> Result<(), Error> {
    let what = "asking the monitor";
    let until = give_up.map(|at| {
        let left = at.saturating_duration_since(Instant::now()).saturating_sub(HEARD);
        u64::try_from((vz_sys::proc::boottime() + left).as_millis()).unwrap_or(u64::MAX)
    });
    let text = request.message(until).map_err(|e| Error::Talk { what, source: e.into() })?;
    seqpacket::send(socket, &text, &[]).map_err(|source| Error::Talk { what, source })
}
