//! A line in the guest whose output is read as it comes, and stays read when the guest's power goes.

use super::link::Link;
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// One that runs.
pub struct Stream {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Stream {
    /// Starts it, over the connection that all share.
    pub(super) fn start(link: &Link, line: &str) -> std::io::Result<Self> {
        let mut c = link.ssh();
        c.arg(line);
        Self::of(c)
    }

    /// The same of any command.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn of(mut c: Command) -> std::io::Result<Self> {
        c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = c.spawn()?;
        let (send, lines) = mpsc::channel();
        if let Some(pipe) = child.stdout.take() {
            thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|l| send.send(l)));
        }
        Ok(Self { child, lines })
    }

    /// The next line it says within this time; `None` when there is none, or it has ended.
    pub fn next(&self, limit: Duration) -> Option<String> {
        self.lines.recv_timeout(limit).ok()
    }

    /// What it still said, of one whose guest is off or which has ended.
    pub fn rest(self) -> Vec<String> {
        // Ended by hand it says no more, and what it said has arrived: both are on this machine.
        std::iter::from_fn(|| self.next(Duration::from_secs(5))).collect()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
