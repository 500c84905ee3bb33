//! Other people's programs: found by absolute path (never through PATH), run with a clean environment and a deadline. The
//! only place that runs one and collects what it says.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use std::{
    io::{ErrorKind, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// What a program of ours finds others by.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Where distributions keep administrators' programs.
const DIRS: &[&str] = &["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Finds a program.
pub fn find(program: &str) -> Option<PathBuf> {
    DIRS.iter().map(|d| Path::new(d).join(program)).find(|p| p.is_file())
}

/// The same program as a command that knows nothing of how vzd was started.
pub fn command(file: &Path) -> Command {
    let mut command = Command::new(file);
    command.env_clear().env("LC_ALL", "C").env("PATH", PATH);
    command
}

/// Exit status, or `None` when it was killed at the deadline; stdout and stderr.
pub type Output = (Option<ExitStatus>, (Vec<u8>, Vec<u8>));

/// Most that is kept of what a program prints on one of its outputs; the rest is read and dropped.
const KEPT: usize = 4 << 20;

/// Runs a command with `input` on its stdin and collects what it prints. No thread is needed for it: both outputs and
/// the input are served in turn, or a chatty program and we would wait for each other.
///
/// # Errors
/// It could not be started or waited for.
pub fn output(mut command: Command, input: Option<Vec<u8>>, deadline: Duration) -> std::io::Result<Output> {
    let end = Instant::now() + deadline;
    command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let talked = talk(&mut child, input.unwrap_or_default(), end);
    let status = match &talked {
        // Whatever went wrong with the pipes: it is not left behind.
        Ok((true, ..)) => wait(&mut child, end)?,
        _ => {
            child.kill()?;
            child.wait()?;
            None
        }
    };
    let (_, out, err) = talked?;
    Ok((status, (out, err)))
}

/// Serves a program's pipes until both outputs are closed or it has ended; false at the deadline.
fn talk(child: &mut Child, input: Vec<u8>, end: Instant) -> std::io::Result<(bool, Vec<u8>, Vec<u8>)> {
    let pid = rustix::process::Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    let (mut stdin, mut sent) = (child.stdin.take(), 0);
    let (mut out, mut err) = (child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from));
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    for pipe in [stdin.as_ref().map(AsFd::as_fd), out.as_ref().map(AsFd::as_fd), err.as_ref().map(AsFd::as_fd)] {
        pipe.map_or(Ok(()), |p| rustix::io::ioctl_fionbio(p, true))?;
    }
    loop {
        if out.is_none() && err.is_none() {
            return Ok((true, said, complained));
        }
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(out.iter().chain(&err).map(|p| PollFd::new(p, PollFlags::IN)));
        fds.extend(stdin.iter().map(|p| PollFd::new(p, PollFlags::OUT)));
        let ready = match poll(&mut fds, Some(&Timespec::try_from(left).map_err(std::io::Error::other)?)) {
            Err(Errno::INTR) => continue,
            ready => ready?,
        };
        let ended = !fds[0].revents().is_empty();
        drop(fds);
        if ready == 0 {
            return Ok((false, said, complained));
        }
        if let Some(pipe) = &mut stdin {
            match pipe.write(&input[sent..]) {
                Ok(n) => sent += n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                // A program that does not read to the end says why on stderr.
                Err(_) => sent = input.len(),
            }
            if sent == input.len() {
                stdin = None;
            }
        }
        take(&mut out, &mut said)?;
        take(&mut err, &mut complained)?;
        // What a process it has left behind may still print is not waited for.
        if ended {
            return Ok((true, said, complained));
        }
    }
}

/// Reads what is there; a pipe that has ended is closed.
fn take(pipe: &mut Option<OwnedFd>, into: &mut Vec<u8>) -> std::io::Result<()> {
    let mut buffer = [0; 16 << 10];
    while let Some(fd) = pipe {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => *pipe = None,
            Ok(n) => into.extend_from_slice(&buffer[..n.min(KEPT.saturating_sub(into.len()))]),
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Waits by pidfd until the child ends or the deadline passes; then kills it.
fn wait(child: &mut Child, end: Instant) -> std::io::Result<Option<ExitStatus>> {
    let pid = rustix::process::Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    let left = end.saturating_duration_since(Instant::now());
    if vz_sys::netlink::wait_readable(&pidfd.as_fd(), left)? {
        return child.wait().map(Some);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}
