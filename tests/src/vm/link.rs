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
    io::IsTerminal,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

/// How ssh says that it could not reach the other side (ssh(1), EXIT STATUS).
const UNREACHABLE: i32 = 255;

/// How much longer than the guest ssh gets for a command: it is the guest that ends a slow one, children and all.
const GRACE: Duration = Duration::from_secs(20);
/// How often the machine is looked at while a command runs in it.
const LOOK: Duration = Duration::from_secs(3);
/// How long a guest that just broke a connection off, or did not do something in time, has to prove that it is there.
pub const PROOF: Duration = Duration::from_secs(20);

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
        self.ssh_by(&self.control().display().to_string())
    }

    fn ssh_by(&self, control: &str) -> Command {
        let mut c = Command::new("ssh");
        c.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"]);
        c.args(["-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]);
        // The host's key is made with the image and only reachable through our own loopback port.
        c.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null"]);
        c.args(["-o", "StrictHostKeyChecking=no"]);
        c.arg("-o").arg(format!("ControlPath={control}"));
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
        if self.stands()? {
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
        c.arg(bounded(line, limit + Duration::from_secs(1)));
        let mut out = command::run(&mut c, stdin, limit + GRACE).map_err(|e| shortened(e, line))?;
        line.clone_into(&mut out.line);
        if out.code() == UNREACHABLE && (!self.control().exists() || out.stderr.contains("mux_client")) {
            let (after, said) = (out.took.as_secs(), out.stderr.trim());
            bail!("the connection to the guest broke after {after} s, during `{line}`: {said}");
        }
        if out.code() == 124 && out.took >= limit {
            bail!("not done after {} s in the guest:\n{out}", limit.as_secs());
        }
        Ok(out)
    }

    /// Runs a shell line as root with our own standard input, output and error; gives its exit code. The machine is
    /// watched meanwhile.
    ///
    /// # Errors
    /// Not done in `limit`, or the guest crashed, hangs or is gone; names the console log and how long it took to know.
    pub fn pass_through(&self, machine: &Machine, line: &str, limit: Duration) -> Result<i32> {
        self.master(limit.clamp(Duration::from_secs(20), Duration::from_secs(60)))
            .map_err(|e| machine.trouble(&format!("{e:#}")))?;
        let mut c = self.ssh();
        let mut words = bounded(line, limit);
        if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            // A terminal there too, or Ctrl-C would end ssh and not the command, which must be in the foreground.
            c.arg("-t");
            words = words.replacen("timeout", "timeout --foreground", 1);
        }
        c.arg(words);
        let begun = Instant::now();
        let mut child = c.spawn().context("cannot run ssh")?;
        let broken = loop {
            let left = (limit + GRACE).saturating_sub(begun.elapsed());
            if wait::process(child.id(), left.min(LOOK))? {
                break None;
            }
            if let Err(e) = machine.alive_and_well() {
                break Some(e);
            }
            if left.is_zero() {
                break Some(machine.trouble("the guest does not end what takes too long"));
            }
        };
        if broken.is_some() {
            // Asked first, it gives the terminal back as it was.
            wait::Process::open(child.id())?.terminate();
            if !wait::process(child.id(), LOOK)? {
                child.kill()?;
            }
        }
        let code = child.wait()?.code().unwrap_or(1);
        let when = || format!("`{line}` in the guest, after {} s", begun.elapsed().as_secs());
        if let Some(e) = broken {
            return Err(e.context(when()));
        }
        // 255 may be the command's own.
        if code == UNREACHABLE && !self.stands()? {
            self.proven(machine).with_context(when)?;
            bail!("{}: the connection broke; the guest is there", when());
        }
        if code == 124 && begun.elapsed() >= limit {
            bail!("{}: it was ended, because it took longer than it may", when());
        }
        Ok(code)
    }

    /// Whether the master connection stands, as far as ssh knows.
    fn stands(&self) -> Result<bool> {
        let mut check = self.ssh();
        check.args(["-O", "check"]);
        Ok(self.control().exists() && command::run(&mut check, None, Duration::from_secs(10))?.code() == 0)
    }

    /// The guest answers on a connection of its own, whatever became of the one that all share.
    ///
    /// # Errors
    /// It does not, within [`PROOF`], or it crashed; names the console log.
    pub fn proven(&self, machine: &Machine) -> Result<()> {
        machine.alive_and_well()?;
        let mut c = self.ssh_by("none");
        c.args(["-o", &format!("ConnectTimeout={}", PROOF.as_secs()), "true"]);
        match command::run(&mut c, None, PROOF) {
            Ok(o) if o.code() == 0 => Ok(()),
            _ => {
                machine.alive_and_well()?;
                Err(machine.trouble(&format!("the guest does not answer, waited {} s for it", PROOF.as_secs())))
            }
        }
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
                Ok(o) if o.code() == 0 => {
                    machine.take_back();
                    Some(Ok(()))
                }
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
            None => Err(last)
                .with_context(|| machine.trouble(&format!("the guest does not answer after {} s", limit.as_secs()))),
        }
    }
}

/// A line that the guest ends after this time.
fn bounded(line: &str, limit: Duration) -> String {
    format!("timeout -k 5 {} bash -c {}", limit.as_secs().max(1), quoted(line))
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
