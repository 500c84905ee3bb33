//! The QEMU process of the virtual test host and the directory it lives in.
//!
//! ```text
//! machine.json   what it is started with        console.log   everything it ever said, boot after boot
//! pid            QEMU's, locked by it           qmp           its control socket
//! off            its power was cut on purpose   turn          the tests' lock
//! given-up       why nobody waits for the guest any more
//! ```

use crate::{census, wait};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// What a machine is started with; kept in its directory, so that a test can start it again.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Spec {
    /// QEMU and its arguments, but for those that name the directory.
    pub command: Vec<String>,
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Port on the loopback that leads to the guest's sshd.
    pub port: u16,
    /// Private key that lets root in.
    pub key: PathBuf,
}

/// One machine.
#[derive(Clone, Debug)]
pub struct Machine {
    dir: PathBuf,
    spec: Spec,
}

/// What a guest's kernel says when it has crashed.
const CRASHED: &[&str] =
    &["Kernel panic - not syncing", "end Kernel panic", "Entering emergency mode", "ALERT!  /dev/vda"];

impl Machine {
    /// Makes the directory of a machine; what was there of an earlier one must be gone.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn make(dir: &Path, spec: Spec) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let text = serde_json::to_string_pretty(&spec)?;
        fs::write(dir.join("machine.json"), text).with_context(|| format!("cannot write in {}", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), spec })
    }

    /// The machine of a directory, running or not.
    ///
    /// # Errors
    /// There is none.
    pub fn open(dir: &Path) -> Result<Self> {
        let file = dir.join("machine.json");
        let text = fs::read_to_string(&file).map_err(|e| {
            anyhow::anyhow!("no virtual test host in {} ({e}): `cargo xtask vm up` makes one", dir.display())
        })?;
        let spec = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        Ok(Self { dir: dir.to_owned(), spec })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it is started with.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The log of its serial console.
    pub fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// The console's last lines.
    pub fn console_tail(&self, lines: usize) -> String {
        census::tail(&self.console(), lines)
    }

    fn off(&self) -> PathBuf {
        self.dir.join("off")
    }

    /// Whether [`Machine::cut`] took the power and nobody gave it back.
    pub fn is_off_on_purpose(&self) -> bool {
        self.off().exists() && self.process().is_none()
    }

    /// Notes that the guest is of no use any more, so that whoever comes next need not find out by waiting.
    pub fn give_up(&self, why: &str) {
        // Where it cannot be noted, the next one waits.
        let _ = fs::write(self.dir.join("given-up"), why);
    }

    /// Why the guest was given up, if it was.
    pub fn given_up(&self) -> Option<String> {
        fs::read_to_string(self.dir.join("given-up")).ok()
    }

    /// It answers, or is started anew.
    pub fn take_back(&self) {
        let _ = fs::remove_file(self.dir.join("given-up"));
    }

    /// An error about the guest, with the place of its console's log and the last lines of it.
    pub fn trouble(&self, what: &str) -> anyhow::Error {
        anyhow::anyhow!("{what}; its console is in {}:\n{}", self.console().display(), self.console_tail(40))
    }

    /// QEMU's process, if it runs: the one whose command line names this directory.
    pub fn process(&self) -> Option<wait::Process> {
        let pid: u32 = fs::read_to_string(self.dir.join("pid")).ok()?.trim().parse().ok()?;
        let held = wait::Process::open(pid).ok()?;
        // Looked at after it is held: it cannot become another one between the two.
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line);
        (line.contains("qemu") && line.contains(&*self.qmp().to_string_lossy())).then_some(held)
    }

    fn qmp(&self) -> PathBuf {
        self.dir.join("qmp")
    }

    /// Powers it on; does not wait for the guest. One that runs already stays as it is.
    ///
    /// # Errors
    /// QEMU does not start; with what it said.
    pub fn start(&self) -> Result<()> {
        if self.process().is_some() {
            return Ok(());
        }
        let _ = fs::remove_file(self.dir.join("pid"));
        self.take_back();
        fs::write(self.dir.join("boot-from"), fs::metadata(self.console()).map_or(0, |m| m.len()).to_string())?;
        let (program, words) = self.spec.command.split_first().context("machine.json names no program")?;
        let mut c = Command::new(program);
        c.args(words).args(["-daemonize", "-pidfile"]).arg(self.dir.join("pid"));
        c.arg("-qmp").arg(format!("unix:{},server=on,wait=off", self.qmp().display()));
        c.arg("-chardev").arg(format!("file,id=console,append=on,path={}", self.console().display()));
        c.args(["-serial", "chardev:console"]).stdin(Stdio::null());
        // A daemon keeps what it inherits: nothing of the caller's pipes.
        let said = fs::File::create(self.dir.join("qemu.log")).context("making QEMU's log")?;
        c.stdout(said.try_clone()?).stderr(said);
        let mut child = c.spawn().with_context(|| format!("cannot run {program}"))?;
        if !wait::process(child.id(), Duration::from_secs(30))? {
            child.kill()?;
        }
        let status = child.wait()?;
        if !status.success() || self.process().is_none() {
            bail!("QEMU did not start ({status}):\n{}", census::tail(&self.dir.join("qemu.log"), 20));
        }
        let _ = fs::remove_file(self.off());
        Ok(())
    }

    /// Takes the power away, as pulling the plug does.
    ///
    /// # Errors
    /// It does not end.
    pub fn cut(&self) -> Result<()> {
        fs::write(self.off(), "")?;
        self.end()
    }

    /// Ends QEMU at once.
    ///
    /// # Errors
    /// It does not end.
    pub fn end(&self) -> Result<()> {
        if let Some(p) = self.process() {
            p.kill();
            if !p.ended(Duration::from_secs(30))? {
                bail!("QEMU of {} does not end", self.dir.display());
            }
        }
        Ok(())
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// QEMU does not answer.
    pub fn reset(&self) -> Result<()> {
        self.qmp_command("system_reset")
    }

    /// Gives QEMU one command over its control socket (QEMU's "QMP protocol specification").
    fn qmp_command(&self, name: &str) -> Result<()> {
        let limit = Some(Duration::from_secs(10));
        let mut socket = UnixStream::connect(self.qmp()).context("QEMU's control socket")?;
        socket.set_read_timeout(limit)?;
        socket.set_write_timeout(limit)?;
        let mut answers = BufReader::new(socket.try_clone()?).lines();
        let mut answer = || answers.next().context("QEMU hung up")?.context("QEMU does not answer");
        answer()?; // its greeting
        for command in ["qmp_capabilities", name] {
            writeln!(socket, "{{\"execute\":\"{command}\"}}")?;
            loop {
                let line = answer()?;
                let value: serde_json::Value = serde_json::from_str(&line)?;
                if value.get("error").is_some() {
                    bail!("QEMU refuses {command}: {line}");
                }
                // Events come in between.
                if value.get("return").is_some() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// What the console said since the last power on.
    fn this_boot(&self) -> String {
        let from: usize = fs::read_to_string(self.dir.join("boot-from")).ok().and_then(|t| t.parse().ok()).unwrap_or(0);
        let bytes = fs::read(self.console()).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
    }

    /// QEMU runs and the guest's kernel has not crashed.
    ///
    /// # Errors
    /// What happened, and where the console's log is.
    pub fn alive_and_well(&self) -> Result<()> {
        let trouble = match self.process() {
            None => Some("QEMU of the virtual test host is gone".to_owned()),
            Some(p) if p.is_stopped() => {
                Some(format!("QEMU of the virtual test host is stopped (`kill -CONT {}` lets it go on)", p.id()))
            }
            Some(_) => {
                let said = self.this_boot();
                CRASHED.iter().find(|c| said.contains(**c)).map(|c| format!("the guest crashed ({c:?})"))
            }
        };
        trouble.map_or(Ok(()), |t| Err(self.trouble(&t)))
    }
}
