//! Moving bytes between the operator and a program inside, until the program ends.

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    termios::{OptionalActions, Termios},
};
use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};
use vz_sys::pty;

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

/// Program to operator. Gives back false at the end of either.
fn pour(from: &OwnedFd, to: BorrowedFd<'_>) -> io::Result<bool> {
    let mut buffer = [0u8; CHUNK];
    let n = match rustix::io::read(from, &mut buffer) {
        Ok(0) | Err(Errno::IO) => return Ok(false),
        Ok(n) => n,
        Err(Errno::INTR) => return Ok(true),
        Err(Errno::AGAIN) => return Ok(true),
        Err(e) => return Err(e.into()),
    };
    let mut rest = &buffer[..n];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(n) => rest = &rest[n..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None)?;
            }
            // Like `| head`: the program learns of it by its own SIGPIPE.
            Err(Errno::PIPE) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(true)
}

/// Everything that is left in a non-blocking descriptor: a daemon the program started may keep it open for ever.
fn drain(from: &OwnedFd, to: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::new(from, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut fds, Some(&now))? == 0 || !pour(from, to)? {
            return Ok(());
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

/// To the program's whole group, as a terminal would send it. That there is none left is told by its pidfd.
fn pass_on(signals: &SignalFd, group: i32) {
    while let Ok(Some(info)) = signals.read_signal() {
        if let Ok(signal) = Signal::try_from(info.ssi_signo as i32) {
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), signal);
        }
    }
}

/// Standard input, output and error by three pipes: ours are the ends given. `group` is the program's process group,
/// whose number is its own until it is reaped, which is later.
pub fn pipes([input, output, error]: [OwnedFd; 3], program: &OwnedFd, group: i32) -> io::Result<()> {
    let signals = endings()?;
    rustix::io::ioctl_fionbio(&input, true)?;
    let mut input = Some(input);
    let (mut pending, mut open) = (Vec::new(), true);
    let (mut output, mut error) = (Some(output), Some(error));
    loop {
        let mut flow = Input { to: input.as_ref(), pending: std::mem::take(&mut pending), open };
        let stdin = rustix::stdio::stdin();
        let mut fds = vec![PollFd::new(program, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        let out_at = output.as_ref().map(|fd| {
            fds.push(PollFd::new(fd, PollFlags::IN));
            fds.len() - 1
        });
        let err_at = error.as_ref().map(|fd| {
            fds.push(PollFd::new(fd, PollFlags::IN));
            fds.len() - 1
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
        if woken(Some(1)) {
            pass_on(&signals, group);
        }
        let (out_woke, err_woke, in_woke, to_woke, ended) =
            (woken(out_at), woken(err_at), woken(in_at), woken(to_at), !fds[0].revents().is_empty());
        let to_broken = to_at.is_some_and(|i| fds[i].revents().contains(PollFlags::ERR));
        drop(fds);
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
        if out_woke && !output.as_ref().map_or(Ok(false), |fd| pour(fd, rustix::stdio::stdout()))? {
            output = None;
        }
        if err_woke && !error.as_ref().map_or(Ok(false), |fd| pour(fd, rustix::stdio::stderr()))? {
            error = None;
        }
        if ended {
            if let Some(fd) = &output {
                drain(fd, rustix::stdio::stdout())?;
            }
            if let Some(fd) = &error {
                drain(fd, rustix::stdio::stderr())?;
            }
            return Ok(());
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

/// A terminal: the master given, the operator's standard input and output.
pub fn terminal(master: OwnedFd, program: &OwnedFd) -> io::Result<()> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGWINCH);
    set.thread_block()?;
    let resized = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    copy_size(&master);
    let raw = Raw::enter();
    rustix::io::ioctl_fionbio(&master, true)?;
    let mut input = Input { to: Some(&master), pending: Vec::new(), open: true };
    loop {
        let stdin = rustix::stdio::stdin();
        let wanted = if input.pending.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut fds = vec![
            PollFd::new(program, PollFlags::IN),
            PollFd::new(&master, wanted),
            PollFd::new(&resized, PollFlags::IN),
        ];
        if input.wants_more() {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let woken: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if woken[2] {
            while let Ok(Some(_)) = resized.read_signal() {}
            copy_size(&master);
        }
        if woken.get(3) == Some(&true) && input.read() && raw.0.is_none() {
            // End of a script on standard input: what Ctrl-D is on a terminal.
            input.pending.push(4);
        }
        input.write();
        let output_open = !woken[1] || pour(&master, rustix::stdio::stdout())?;
        if woken[0] || !output_open {
            if output_open {
                drain(&master, rustix::stdio::stdout())?;
            }
            return Ok(());
        }
    }
}
