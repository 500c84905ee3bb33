//! Moving bytes between the operator and a program inside, until the program ends. Nothing is ever waited for but in
//! poll(2): neither a client that takes nothing nor a program that reads nothing holds anything else up.

use super::{client::Flow, keeper};
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    termios::{OptionalActions, Termios},
};
use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};
use vz_sys::{pty, seqpacket};

const CHUNK: usize = 32 << 10;

/// Operator to program, with what the program has not taken yet. The program's end is non-blocking, the operator's
/// never: it may be shared with other processes, and the flag would be too.
struct Input<'a> {
    to: Option<&'a OwnedFd>,
    pending: Vec<u8>,
    open: bool,
}

impl Input<'_> {
    fn wants_more(&self) -> bool {
        self.open && self.to.is_some() && self.pending.is_empty()
    }

    /// Takes what the operator has; gives back true at its end.
    fn read(&mut self) -> bool {
        let mut buffer = [0u8; CHUNK];
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer) {
            Ok(n) if n > 0 => self.pending.extend_from_slice(&buffer[..n]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            _ => {
                self.open = false;
                return true;
            }
        }
        false
    }

    fn write(&mut self) {
        while let (Some(to), false) = (self.to, self.pending.is_empty()) {
            match rustix::io::write(to, &self.pending) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // The program does not read any more.
                Err(_) => {
                    self.to = None;
                    self.pending.clear();
                }
            }
        }
    }
}

/// What ends a program from its terminal or from `kill`, but what whoever called us had us ignore (nohup, a shell's
/// background jobs): read from a descriptor from here on, because nothing else would tell the program inside.
fn endings() -> io::Result<SignalFd> {
    let ignored = vz_sys::proc::status(std::process::id() as i32)?.signals("SigIgn");
    let all = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP];
    let set: SigSet = all.into_iter().filter(|s| ignored >> (*s as i32 - 1) & 1 == 0).collect();
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Has the keeper pass them on. Gives back the last.
fn pass_on(signals: &SignalFd, keeper: &OwnedFd) -> Option<u8> {
    let mut last = None;
    while let Ok(Some(info)) = signals.read_signal() {
        last = u8::try_from(info.ssi_signo).ok();
        // A keeper that takes no more has enough of them to pass on.
        let _ = last.map(|n| seqpacket::try_send(keeper, &[n], &[]));
    }
    last
}

/// What tells that the program, and the container, have ended.
pub(super) struct Ends {
    /// The other side of this channel waits for the program.
    pub(super) keeper: OwnedFd,
    /// The container's init.
    pub(super) init: OwnedFd,
}

impl Ends {
    /// The program's status, now that the keeper has spoken; `None` within: it was killed.
    fn status(&self) -> Option<Option<u8>> {
        match seqpacket::try_recv(&self.keeper) {
            Ok((message, _)) => Some(match message[..] {
                [keeper::ENDED, status] => Some(status),
                _ => None,
            }),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(None),
        }
    }
}

/// What is on its way when a program ends: more than a pipe holds, unless somebody has made it larger. Somebody the program
/// has left behind may go on writing for ever.
const REST: usize = 4 << 20;
/// How long a client that takes nothing keeps this process once the container has ended, or somebody has ended the program.
const LAST: Duration = Duration::from_secs(5);

/// Takes what is left of a program that has ended, and lets go of everything inside.
fn take_rest(flow: &mut Flow, from: Option<OwnedFd>) -> io::Result<()> {
    let Some(from) = from else { return Ok(()) };
    rustix::io::ioctl_fionbio(&from, true)?;
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut reads = 0;
    while reads < REST / CHUNK && poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&now))? > 0 {
        if !flow.take(&from)? {
            break;
        }
        reads += 1;
    }
    Ok(())
}

/// Delivers the rest. Nothing inside waits for that: a pager may take its time, until the container has ended too, or the
/// operator ends this (`signals`).
fn deliver(flows: &mut [&mut Flow], ends: &Ends, signals: Option<&SignalFd>, ended: bool) -> io::Result<()> {
    let mut deadline = ended.then(|| Instant::now() + LAST);
    loop {
        for flow in flows.iter_mut() {
            if flow.give()? && deadline.is_some() {
                deadline = Some(Instant::now() + LAST);
            }
        }
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        for flow in flows.iter().filter(|f| !f.is_done()) {
            fds.push(PollFd::from_borrowed_fd(flow.client(), PollFlags::OUT));
        }
        if fds.is_empty() {
            return Ok(());
        }
        let writers = fds.len();
        fds.extend(deadline.is_none().then(|| PollFd::new(&ends.init, PollFlags::IN)));
        fds.extend(signals.map(|s| PollFd::new(s, PollFlags::IN)));
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left.is_some_and(|l| l.is_zero()) {
            return Ok(());
        }
        let spec = left.map(|l| Timespec { tv_sec: l.as_secs() as i64, tv_nsec: i64::from(l.subsec_nanos()) });
        match poll(&mut fds, spec.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let woken = fds[writers..].iter().any(|fd| !fd.revents().is_empty());
        let told = signals.is_some_and(|s| s.read_signal().is_ok_and(|info| info.is_some()));
        if told {
            return Ok(());
        }
        if woken && deadline.is_none() {
            deadline = Some(Instant::now() + LAST);
        }
    }
}

/// One of the program's outputs and where it goes.
struct Output {
    from: Option<OwnedFd>,
    flow: Flow,
}

impl Output {
    fn new(from: OwnedFd, to: BorrowedFd<'static>) -> Self {
        Self { from: Some(from), flow: Flow::to(to) }
    }

    /// What there is to wait for: room at the client for what was taken, else more of the program.
    fn wants(&self) -> Option<PollFd<'_>> {
        match &self.from {
            _ if !self.flow.is_done() => Some(PollFd::from_borrowed_fd(self.flow.client(), PollFlags::OUT)),
            Some(from) => Some(PollFd::new(from, PollFlags::IN)),
            None => None,
        }
    }

    fn woken(&mut self) -> io::Result<()> {
        if let (true, Some(from)) = (self.flow.is_done(), &self.from) {
            if !self.flow.take(from)? {
                self.from = None;
            }
        } else {
            self.flow.give()?;
        }
        // What was just taken goes at once where there is room; a shared descriptor's is asked for first.
        if self.flow.gives_at_once() {
            self.flow.give()?;
        }
        if self.flow.broken {
            self.from = None;
        }
        Ok(())
    }
}

/// Standard input, output and error by three pipes: ours are the ends given. Gives back the program's status.
pub fn pipes([input, output, error]: [OwnedFd; 3], ends: &Ends) -> io::Result<Option<u8>> {
    let signals = endings()?;
    rustix::io::ioctl_fionbio(&input, true)?;
    let mut input = Some(input);
    let (mut pending, mut open) = (Vec::new(), true);
    let mut outputs = [Output::new(output, rustix::stdio::stdout()), Output::new(error, rustix::stdio::stderr())];
    let mut signalled = false;
    loop {
        let mut flow = Input { to: input.as_ref(), pending: std::mem::take(&mut pending), open };
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![PollFd::new(&ends.keeper, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        let outs_at = outputs.each_ref().map(|out| {
            out.wants().map(|fd| {
                fds.push(fd);
                fds.len() - 1
            })
        });
        let in_at = flow.wants_more().then(|| {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
            fds.len() - 1
        });
        if let Some(to) = flow.to {
            // With nothing to write only its end is of interest, and that is always reported.
            let wanted = if flow.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(PollFd::new(to, wanted));
        }
        let to_at = flow.to.map(|_| fds.len() - 1);
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let woken = |at: Option<usize>| at.is_some_and(|i| !fds[i].revents().is_empty());
        let (told, outs_woke, in_woke, to_woke) = (woken(Some(1)), outs_at.map(woken), woken(in_at), woken(to_at));
        let ended = woken(Some(0));
        let to_broken = to_at.is_some_and(|i| fds[i].revents().contains(PollFlags::ERR));
        drop(fds);
        if told {
            signalled |= pass_on(&signals, &ends.keeper).is_some();
        }
        if in_woke {
            flow.read();
        }
        if to_woke || !flow.pending.is_empty() {
            flow.write();
        }
        let close_input = to_broken || flow.to.is_none() || (!flow.open && flow.pending.is_empty());
        (pending, open) = (flow.pending, flow.open);
        if close_input {
            input = None;
        }
        for (out, woke) in outputs.iter_mut().zip(outs_woke) {
            if woke {
                out.woken()?;
            }
        }
        if let Some(status) = ended.then(|| ends.status()).flatten() {
            drop(input);
            let [mut out, mut err] = outputs;
            take_rest(&mut out.flow, out.from.take())?;
            take_rest(&mut err.flow, err.from.take())?;
            deliver(&mut [&mut out.flow, &mut err.flow], ends, Some(&signals), signalled)?;
            return Ok(status);
        }
    }
}

/// The operator's terminal in raw mode while this lives.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Self {
        let stdin = rustix::stdio::stdin();
        let Ok(before) = rustix::termios::tcgetattr(stdin) else { return Self(None) };
        let mut raw = before.clone();
        raw.make_raw();
        let _ = rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw);
        Self(Some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, before);
        }
    }
}

fn copy_size(master: &OwnedFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        let _ = pty::resize(master, size.ws_row, size.ws_col);
    }
}

/// A terminal: the master given, the operator's standard input and output. Gives back the program's status.
pub fn terminal(master: &OwnedFd, ends: &Ends) -> io::Result<Option<u8>> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGWINCH);
    set.thread_block()?;
    let resized = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    copy_size(master);
    let raw = Raw::enter();
    rustix::io::ioctl_fionbio(master, true)?;
    let mut input = Input { to: Some(master), pending: Vec::new(), open: true };
    let mut output = Output::new(master.try_clone()?, rustix::stdio::stdout());
    loop {
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![PollFd::new(&ends.keeper, PollFlags::IN), PollFd::new(&resized, PollFlags::IN)];
        let out_at = output.wants().map(|fd| {
            fds.push(fd);
            fds.len() - 1
        });
        let in_at = input.wants_more().then(|| {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
            fds.len() - 1
        });
        if output.from.is_some() && !input.pending.is_empty() {
            fds.push(PollFd::new(master, PollFlags::OUT));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let woken = |at: Option<usize>| at.is_some_and(|i| !fds[i].revents().is_empty());
        let (ended, size, out_woke, in_woke) = (woken(Some(0)), woken(Some(1)), woken(out_at), woken(in_at));
        drop(fds);
        if size {
            while let Ok(Some(_)) = resized.read_signal() {}
            copy_size(master);
        }
        if in_woke && input.read() && raw.0.is_none() {
            // End of a script on standard input: what Ctrl-D is on a terminal.
            input.pending.push(4);
        }
        input.write();
        if out_woke {
            output.woken()?;
        }
        if let Some(status) = ended.then(|| ends.status()).flatten() {
            take_rest(&mut output.flow, output.from.take())?;
            deliver(&mut [&mut output.flow], ends, None, false)?;
            return Ok(status);
        }
    }
}
