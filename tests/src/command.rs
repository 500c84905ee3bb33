//! Running a program with a deadline: it either ends in time with everything it said, or it is killed with its
//! whole process group and that is an error. Nothing here waits for ever.

use crate::wait;
use std::{
    fmt,
    io::{self, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// How a program ended and what it said.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line, for messages.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Output {
    /// Its exit code; a signal counts as 128 + its number, as a shell does it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Panics with everything unless it ended with `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert!(self.code() == code, "expected exit code {code}:\n{self}");
        self
    }

    /// Panics with everything unless it ended with success.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.expect_code(0)
    }

    /// Panics with everything unless standard output or standard error contains `needle`.
    #[track_caller]
    pub fn says(self, needle: &str) -> Self {
        assert!(self.stdout.contains(needle) || self.stderr.contains(needle), "expected it to say {needle:?}:\n{self}");
        self
    }

    /// Standard output without the white space around it.
    pub fn text(&self) -> &str {
        self.stdout.trim()
    }

    /// Standard output as JSON; panics with everything if it is not.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(e) => panic!("standard output is not JSON ({e}):\n{self}"),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "$ {}\n[exit {}, {} ms]", self.line, self.code(), self.took.as_millis())?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                writeln!(f, "--- {name}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// The command line as one would type it, near enough for a message.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|w| {
            let w = w.to_string_lossy();
            if w.is_empty() || w.contains([' ', '\n', '"', '\'']) { format!("{w:?}") } else { w.into_owned() }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs `command` with `stdin`, or with no standard input, until it ends or `limit` has passed.
///
/// # Errors
/// It cannot be started, or it had not ended in time (`TimedOut`, with what it had said).
pub fn run(command: &mut Command, stdin: Option<&[u8]>, limit: Duration) -> io::Result<Output> {
    let words = line(command);
    let begun = Instant::now();
    let mut child = command
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("cannot run `{words}`: {e}")))?;
    let feeder = stdin.map(|bytes| {
        let (bytes, mut pipe) = (bytes.to_vec(), child.stdin.take());
        thread::spawn(move || {
            // A program that does not read all of its input is its own business.
            let _ = pipe.as_mut().map(|p| p.write_all(&bytes));
        })
    });
    let out = collect(child.stdout.take());
    let err = collect(child.stderr.take());
    let ended = wait::process(child.id(), limit)?;
    if !ended {
        kill_group(child.id());
    }
    let status = child.wait()?;
    let took = begun.elapsed();
    // A program that leaves a daemon behind leaves it our pipe too: its own words are all there by now.
    let grace = Duration::from_secs(2);
    let said = |r: mpsc::Receiver<Vec<u8>>| {
        let mut all = Vec::new();
        let end = Instant::now() + grace;
        while let Ok(part) = r.recv_timeout(end.saturating_duration_since(Instant::now())) {
            all.extend(part);
        }
        String::from_utf8_lossy(&all).into_owned()
    };
    let output = Output { line: words, status, stdout: said(out), stderr: said(err), took };
    drop(feeder);
    if ended {
        return Ok(output);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("not done after {} s, killed:\n{output}", limit.as_secs())))
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let Some(mut pipe) = pipe else { return };
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n) = pipe.read(&mut buffer) {
            if n == 0 || send.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    receive
}

/// Kills the process group led by `pid`, which we started.
pub fn kill_group(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        // It may have ended by itself meanwhile.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}
