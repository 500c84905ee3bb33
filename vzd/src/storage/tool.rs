//! External programs of the storage: found by absolute path (never through PATH), run with a clean
//! environment and a deadline.

use super::{StorageError, io_step};
use std::{
    io::Read,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// Where distributions keep administrators' programs.
const DIRS: &[&str] = &["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Finds a program.
pub fn find(program: &str) -> Option<PathBuf> {
    DIRS.iter().map(|d| Path::new(d).join(program)).find(|p| p.is_file())
}

/// Runs a program of `package` on `path` and waits for it. Exit codes in `fine` count as success.
///
/// # Errors
/// It is missing, fails, or takes longer than `deadline` (then it is killed).
pub fn run(
    program: &'static str,
    package: &'static str,
    args: &[&std::ffi::OsStr],
    path: &Path,
    fine: &[i32],
    deadline: Duration,
) -> Result<(), StorageError> {
    let file = find(program).ok_or(StorageError::MissingProgram { program, package })?;
    let mut command = Command::new(file);
    command.args(args).env_clear().env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let (status, said) = io_step("run a program on", path, output(command, None, deadline))?;
    match status {
        Some(s) if s.code().is_some_and(|c| fine.contains(&c)) => Ok(()),
        Some(s) => {
            Err(StorageError::Program { program, path: path.to_owned(), said: format!("{} ({s})", tail(&said.1)) })
        }
        None => Err(StorageError::Program {
            program,
            path: path.to_owned(),
            said: format!("no end after {} s, so it was killed", deadline.as_secs()),
        }),
    }
}

fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

/// Exit status, or `None` when it was killed at the deadline; stdout and stderr.
pub type Output = (Option<ExitStatus>, (Vec<u8>, Vec<u8>));

/// Runs a command with `input` on its stdin and collects what it prints.
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
    let mut stdin = child.stdin.take();
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let collected = std::thread::scope(|s| {
        // Both pipes and stdin at once, or a chatty program and we would wait for each other.
        s.spawn(move || {
            if let (Some(pipe), Some(bytes)) = (stdin.as_mut(), input) {
                use std::io::Write;
                // A program that does not read to the end says why on stderr.
                let _ = pipe.write_all(&bytes);
            }
        });
        let reader = |pipe: &mut Option<_>| -> Vec<u8> { pipe.as_mut().map(slurp).unwrap_or_default() };
        let errors = s.spawn(move || err.as_mut().map(slurp).unwrap_or_default());
        let watch = s.spawn(|| wait(&mut child, end));
        let out = reader(&mut out);
        (watch.join(), out, errors.join().unwrap_or_default())
    });
    let (watched, out, err) = collected;
    let status = watched.map_err(|_| std::io::Error::other("the waiting thread panicked"))??;
    Ok((status, (out, err)))
}

fn slurp<R: Read>(pipe: &mut R) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes);
    bytes
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
