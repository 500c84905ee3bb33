//! `vzctl console`: our terminal, relayed to the container's console over the monitor's control socket.
//!
//! ```text
//!   connect -> Console request -> reply -> relay frames <-> terminal
//!      ^                                      |  `Esc .`        -> leave
//!      |  the next start (terminal only)      |  input ended    -> leave when it has been quiet
//!      +--------------------------------------+  socket closed: the container is down
//! ```
//! A reboot from inside changes nothing here: the monitor keeps the console open.

use crate::{
    control::{self, FRAME, PROMPT},
    failure::{Failure, Outcome},
    target::{self, Target},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        socket::{MsgFlags, recv},
        termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
    },
};
use std::{
    io::{self, IsTerminal, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};
use vz_sys::seqpacket;
use vz_types::{
    Ctid, Paths,
    plan::{ControlReply, ControlRequest},
    run::RunRecord,
};

/// Bytes of input put into one frame.
const CHUNK: usize = 4096;
/// With no terminal: how long the console must be quiet after the input's end.
const QUIET: Duration = Duration::from_millis(500);
/// And how long to wait for that on a console that never is.
const LINGER: Duration = Duration::from_secs(5);

/// Why a relay ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Left,
    InputOver,
    Down,
}

/// Joins the console until the operator leaves it.
pub fn console(paths: &Paths, target: &Target, quiet: bool) -> Outcome {
    let mut record = target::must_run(paths, target)?;
    let ctid = record.ctid;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let say = |line: &str| {
        if terminal && !quiet {
            crate::ui::print_error(&format!("{line}\r"));
        }
    };
    let resized = window_changes()?;
    let mut socket = join(paths, &record)?;
    say(&format!("Attached to CT {ctid}; type `Esc .` to leave"));
    let raw = if terminal { Some(Raw::enter()?) } else { None };
    let mut escape = Escape::default();
    let end = loop {
        match relay(&socket, &record, &resized, terminal, &mut escape)? {
            End::Down if terminal => {
                say(&format!("\r\nCT {ctid} is down; waiting for its next start, `Esc .` leaves"));
                match wait_for_start(paths, ctid, &mut escape)? {
                    Some(again) => (record, socket) = again,
                    None => break End::Left,
                }
            }
            end => break end,
        }
    };
    drop(raw);
    match end {
        End::Down => say(&format!("CT {ctid} is down")),
        End::Left | End::InputOver => say("\r\nDetached"),
    }
    Ok(0)
}

/// Connects and asks for the console.
fn join(paths: &Paths, record: &RunRecord) -> Result<OwnedFd, Failure> {
    let ctid = record.ctid;
    let failed = |what: &str, e: &dyn std::fmt::Display| {
        Failure::system(format_args!("cannot {what} the console of CT {ctid}"), e)
            .hint("its monitor (vzmon) may have ended; `vzctl status` tells")
    };
    match control::ask(paths, ctid, &ControlRequest::Console { replay: true }, PROMPT) {
        Ok((ControlReply::Done, socket)) => Ok(socket),
        Ok((ControlReply::Failed { cause }, _)) => Err(failed("join", &cause)),
        Ok((ControlReply::Ended { .. }, _)) => Err(failed("join", &"the container has just ended")),
        Err(e) if e.kind() == io::ErrorKind::TimedOut => Err(silent(record)),
        Err(e) => Err(failed("reach", &e)),
    }
}

/// The monitor takes or answers nothing.
fn silent(record: &RunRecord) -> Failure {
    let (ctid, pid) = (record.ctid, record.monitor.pid);
    let what = format_args!("the console of CT {ctid} cannot be used");
    Failure::system(what, format_args!("its monitor (pid {pid}) does not answer: it is stopped or hangs"))
        .hint(format!("`vzctl stop {ctid} --fast` ends the container"))
}

/// Relays until one side ends.
fn relay(
    socket: &OwnedFd,
    record: &RunRecord,
    resized: &SignalFd,
    terminal: bool,
    escape: &mut Escape,
) -> Result<End, Failure> {
    let stdin = std::io::stdin();
    let mut buffer = vec![0; FRAME];
    let mut input_over: Option<Instant> = None;
    let mut last_output = Instant::now();
    if terminal {
        send_size(socket);
    }
    loop {
        let mut fds =
            vec![PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(resized.as_fd(), PollFlags::POLLIN)];
        if input_over.is_none() {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        let patience = match input_over {
            None => escape.left().map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left.as_millis().max(1)).unwrap_or(PollTimeout::ZERO)
            }),
            Some(since) => {
                let left =
                    QUIET.saturating_sub(last_output.max(since).elapsed()).min(LINGER.saturating_sub(since.elapsed()));
                if left.is_zero() {
                    return Ok(End::InputOver);
                }
                PollTimeout::try_from(left.as_millis().max(1)).unwrap_or(PollTimeout::ZERO)
            }
        };
        match poll(&mut fds, patience) {
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(Failure::system("cannot wait for the console", e)),
            Ok(_) => {}
        }
        if let Some(esc) = escape.due() {
            if !send_frame(socket, record, &[esc])? {
                return Ok(End::Down);
            }
        }
        let ready: Vec<bool> = fds.iter().map(|f| f.any().unwrap_or(false)).collect();
        if ready[0] {
            match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::ECONNRESET) => return Ok(End::Down),
                Ok(n) if buffer[0] == 0 => {
                    last_output = Instant::now();
                    let mut out = std::io::stdout().lock();
                    if out.write_all(&buffer[1..n]).and_then(|()| out.flush()).is_err() {
                        return Ok(End::Left);
                    }
                }
                // A kind of frame that only a later vzmon knows.
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(e) => return Err(Failure::system("cannot read the console", e)),
            }
        }
        if ready[1] {
            while let Ok(Some(_)) = resized.read_signal() {}
            send_size(socket);
        }
        if ready.get(2).copied().unwrap_or(false) {
            match nix::unistd::read(stdin.as_fd(), &mut buffer[..CHUNK]) {
                Ok(0) => input_over = Some(Instant::now()),
                Ok(n) => {
                    let (bytes, left) =
                        if terminal { escape.filter(&buffer[..n]) } else { (buffer[..n].to_vec(), false) };
                    if !bytes.is_empty() && !send_frame(socket, record, &bytes)? {
                        return Ok(End::Down);
                    }
                    if left {
                        return Ok(End::Left);
                    }
                }
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(e) => return Err(Failure::system("cannot read standard input", e)),
            }
        }
    }
}

/// Waits for the container's next start; `None` when the operator leaves.
fn wait_for_start(paths: &Paths, ctid: Ctid, escape: &mut Escape) -> Result<Option<(RunRecord, OwnedFd)>, Failure> {
    let failed = |e: Errno| Failure::system(format_args!("cannot wait for CT {ctid}"), e);
    let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(failed)?;
    let events = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    watch.add_watch(&paths.ct_run_dir(), events).map_err(failed)?;
    let stdin = std::io::stdin();
    let mut buffer = [0; 256];
    loop {
        // The directory may be made anew at a start, so it is watched again each time.
        if let Err(e) = watch.add_watch(&paths.ct_run(ctid), events) {
            if e != Errno::ENOENT {
                return Err(failed(e));
            }
        }
        if let Some(record) = target::running(paths, ctid)? {
            if let Ok(socket) = join(paths, &record) {
                return Ok(Some((record, socket)));
            }
        }
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN), PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        // The deadline only covers the moment between the record and the listening socket.
        match poll(&mut fds, PollTimeout::from(1000u16)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(failed(e)),
        }
        if fds[1].any().unwrap_or(false) {
            while watch.read_events().is_ok_and(|e| !e.is_empty()) {}
        }
        if fds[0].any().unwrap_or(false) {
            let n = nix::unistd::read(stdin.as_fd(), &mut buffer).map_err(failed)?;
            if n == 0 || escape.filter(&buffer[..n]).1 {
                return Ok(None);
            }
        }
    }
}

/// Sends what was typed; `false` when nobody is there any more.
fn send_frame(socket: &OwnedFd, record: &RunRecord, bytes: &[u8]) -> Result<bool, Failure> {
    match seqpacket::send_within(socket, &frame(0, bytes), &[], PROMPT) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected) => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::TimedOut => Err(silent(record)),
        Err(e) => Err(Failure::system("cannot write to the console", e)),
    }
}

fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind], bytes].concat()
}

/// Tells the console our window's size. A window without one is no reason to fail, nor is a monitor that is busy.
fn send_size(socket: &OwnedFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdin()) {
        let json = format!("{{\"rows\":{},\"cols\":{}}}", size.ws_row, size.ws_col);
        if size.ws_row > 0 && size.ws_col > 0 {
            let _ = seqpacket::try_send(socket, &frame(1, json.as_bytes()), &[]);
        }
    }
}

fn window_changes() -> Result<SignalFd, Failure> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGWINCH);
    set.thread_block()
        .and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .map_err(|e| Failure::system("cannot watch the window's size", e))
}

/// The terminal in raw mode; back to what it was when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self, Failure> {
        let failed = |e: Errno| Failure::system("cannot use the terminal", e);
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &raw).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}

/// Longest an Esc is kept back for a dot to come: an editor inside waits for it.
const HOLD: Duration = Duration::from_millis(300);

/// `Esc .` leaves, and leaves no Esc with the shell inside where the dot comes soon.
#[derive(Default)]
struct Escape {
    /// The last byte was an Esc.
    seen: bool,
    /// Since when it has been kept back.
    held: Option<Instant>,
}

impl Escape {
    /// What to send of `input`, and whether to leave.
    fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(input.len() + 1);
        for &b in input {
            if self.seen && b == b'.' {
                *self = Self::default();
                return (out, true);
            }
            out.extend(self.held.take().map(|_| ESC));
            self.seen = b == ESC;
            match self.seen {
                true => self.held = Some(Instant::now()),
                false => out.push(b),
            }
        }
        (out, false)
    }

    /// How long the Esc is kept back still.
    fn left(&self) -> Option<Duration> {
        self.held.map(|since| HOLD.saturating_sub(since.elapsed()))
    }

    /// The Esc no dot has come for. A later one leaves all the same.
    fn due(&mut self) -> Option<u8> {
        self.held.take_if(|since| since.elapsed() >= HOLD).map(|_| ESC)
    }
}

const ESC: u8 = 0x1b;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_escape_and_a_dot_leave_and_nothing_else_is_lost() {
        let mut e = Escape::default();
        assert_eq!(e.filter(b"ls\x1b[A."), (b"ls\x1b[A.".to_vec(), false));
        // Kept back, and sent with what comes behind it.
        assert_eq!(e.filter(b"a\x1b"), (b"a".to_vec(), false));
        assert!(e.left().is_some_and(|l| l <= HOLD));
        assert_eq!(e.filter(b"x."), (b"\x1bx.".to_vec(), false));
        assert_eq!(e.left(), None);
        // Nothing of it is left inside.
        assert_eq!(e.filter(b"\x1b\x1b"), (b"\x1b".to_vec(), false));
        assert_eq!(e.filter(b".rest"), (Vec::new(), true));
        // Or sent when nothing comes; a late dot leaves all the same.
        assert_eq!((e.filter(b"\x1b"), e.due()), ((Vec::new(), false), None));
        e.held = e.held.and_then(|since| since.checked_sub(HOLD));
        assert_eq!((e.due(), e.due()), (Some(ESC), None));
        assert_eq!(e.filter(b"."), (Vec::new(), true));
    }
}
