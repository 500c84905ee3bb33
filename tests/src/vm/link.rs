//! The ssh connection to the guest: one master connection that all commands share, so that each costs a tenth of a
//! second even when the guest is emulated. Every call has a deadline, here and in the guest.

use super::machine::Machine;
use crate::{
    command::{self, Output},
    wait,
};
use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use std::{
    fs::File,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

/// How ssh says that it could not reach the other side (ssh(1), EXIT STATUS).
const UNREACHABLE: i32 = 255;

/// Boots the guest again, a moment after the line itself is done: the connection does not survive it.
pub const REBOOT: &str = "nohup sh -c 'sleep 1; systemctl reboot --no-wall' >/dev/null 2>&1 &";

/// The way to one machine.
#[derive(Clone, Debug)]
pub struct Link {
    dir: PathBuf,
    key: PathBuf,
    port: u16,
}

/// A word as one word of a POSIX shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

impl Link {
    /// To this machine.
    pub fn new(machine: &Machine) -> Self {
        Self { dir: machine.dir().to_owned(), key: machine.spec().key.clone(), port: machine.spec().port }
    }

    /// ssh with everything but what to run, so that it touches none of the user's own files.
    pub fn ssh(&self) -> Command {
        let mut c = Command::new("ssh");
        c.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"]);
        c.args(["-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]);
        // The host's key is made with the image and only reachable through our own loopback port.
        c.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null"]);
        c.args(["-o", "StrictHostKeyChecking=no"]);
        c.arg("-o").arg(format!("ControlPath={}", self.control().display()));
        c.arg("-i").arg(&self.key).arg("-p").arg(self.port.to_string()).arg("root@127.0.0.1");
        c
    }

    fn control(&self) -> PathBuf {
        self.dir.join("ssh")
    }

    /// Makes sure there is a master connection. It belongs to no process group of ours, so it outlives the test
    /// that happened to need it first.
    fn master(&self, limit: Duration) -> Result<()> {
        let lock = File::create(self.dir.join("ssh.lock")).context("making the connection's lock")?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).context("waiting for the connection")?;
        let mut check = self.ssh();
        check.args(["-O", "check"]);
        if self.control().exists() && command::run(&mut check, None, Duration::from_secs(10))?.code() == 0 {
            return Ok(());
        }
        let _ = std::fs::remove_file(self.control());
        let mut c = self.ssh();
        // -f goes into the background by daemon(3) once the connection stands.
        c.args(["-M", "-N", "-f", "-o", "ControlPersist=yes"]);
        let made = command::run(&mut c, None, limit)?;
        if made.code() != 0 {
            bail!("the guest does not let us in: {}", made.stderr.trim());
        }
        Ok(())
    }

    /// Ends the master connection: the guest is about to go away.
    pub fn forget(&self) {
        let mut c = self.ssh();
        c.args(["-O", "exit"]);
        if self.control().exists() {
            let _ = command::run(&mut c, None, Duration::from_secs(10));
        }
        let _ = std::fs::remove_file(self.control());
    }

    /// Runs a shell line as root. The guest ends it by itself when it is not done in time.
    ///
    /// # Errors
    /// Not done in `limit`, or the guest cannot be reached.
    pub fn run(&self, line: &str, stdin: Option<&[u8]>, limit: Duration) -> Result<Output> {
        self.master(limit.min(Duration::from_secs(60)))?;
        let mut c = self.ssh();
        c.arg(format!("timeout -k 5 {} bash -c {}", limit.as_secs().max(1) + 1, quoted(line)));
        // ssh itself gets longer, so that it is the guest that ends a slow command, children and all.
        let mut out = command::run(&mut c, stdin, limit + Duration::from_secs(20)).map_err(|e| shortened(e, line))?;
        line.clone_into(&mut out.line);
        if out.code() == UNREACHABLE && (!self.control().exists() || out.stderr.contains("mux_client")) {
            bail!("the connection to the guest broke during `{line}`: {}", out.stderr.trim());
        }
        if out.code() == 124 && out.took >= limit {
            bail!("not done after {} s in the guest:\n{out}", limit.as_secs());
        }
        Ok(out)
    }

    /// Waits until the guest lets us in.
    ///
    /// # Errors
    /// It did not in `limit`, or it crashed; names the console log.
    pub fn wait_up(&self, machine: &Machine, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        let mut last = anyhow::anyhow!("never tried");
        let up = wait::retry(limit, Duration::from_secs(1), || {
            if let Err(e) = machine.alive_and_well() {
                return Some(Err(e));
            }
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
            match self.run("true", None, left.min(Duration::from_secs(20))) {
                Ok(o) if o.code() == 0 => Some(Ok(())),
                Ok(o) => {
                    last = anyhow::anyhow!("{o}");
                    None
                }
                Err(e) => {
                    last = e;
                    None
                }
            }
        });
        match up {
            Some(r) => r,
            None => Err(last).with_context(|| {
                format!(
                    "the guest does not answer after {} s; its console is in {}:\n{}",
                    limit.as_secs(),
                    machine.console().display(),
                    machine.console_tail(40)
                )
            }),
        }
    }
}

/// A deadline's message with the line one asked for, not all of ssh's options.
fn shortened(e: std::io::Error, line: &str) -> anyhow::Error {
    anyhow::anyhow!("in the guest, `{line}`: {e}")
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_survive_a_shell() {
        for word in ["plain", "", "two words", "it's", "$HOME `id` \"x\"", "a\nb"] {
            let out = std::process::Command::new("sh").arg("-c").arg(format!("printf %s {}", quoted(word))).output();
            assert_eq!(String::from_utf8_lossy(&out.unwrap().stdout), word);
        }
    }
}
