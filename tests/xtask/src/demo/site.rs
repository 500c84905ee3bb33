//! The demo's manager: its root, its vzd, and what the demo noted about the machine before it changed anything.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::Read,
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use vz_tests::{
    command::{self, Output},
    proc::Stat,
    ssh::Identity,
    template::{Switches, checkout},
    wait,
};
use vz_types::{
    Ctid, Paths,
    run::{ProcessId, RunRecord},
};

/// What must be known to go on, and to remove everything: `demo.json` in the root.
#[derive(Serialize, Deserialize)]
pub struct Facts {
    /// The CT's IPv4 address, from a range the machine has no route to.
    pub ipv4: String,
    /// Its IPv6 address.
    pub ipv6: String,
    /// The password of `demo` and `root` inside.
    pub password: String,
    /// The vzd we started last.
    pub vzd: Option<ProcessId>,
    /// Kernel switches as they were before the first vzd.
    pub switches: Switches,
}

/// The demo's manager.
pub struct Site {
    /// Its root.
    pub paths: Paths,
    /// Its programs.
    pub bin: PathBuf,
    /// What was noted.
    pub facts: Facts,
    /// The key to log in with.
    pub identity: Identity,
}

/// Where the facts are.
pub fn facts_file(root: &Path) -> PathBuf {
    root.join("demo.json")
}

impl Site {
    /// Takes up the manager at `root`, or makes it; its vzd answers afterwards.
    pub fn open(root: &Path, bin: &Path) -> Result<Self> {
        let paths = Paths::new(root);
        for dir in [paths.etc(), paths.run(), paths.log_dir()] {
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let file = facts_file(root);
        let facts = match fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("{} is damaged", file.display()))?,
            Err(_) => Facts::new()?,
        };
        let mut config = "# Made by `cargo xtask demo`.\n".to_owned();
        config.push_str(&format!("recipe_dirs = [{:?}]\n", checkout().join("templates")));
        if !paths.manager_config().exists() {
            fs::write(paths.manager_config(), config)?;
        }
        let identity = Identity::new(root);
        let mut site = Self { paths, bin: bin.to_owned(), facts, identity };
        site.note()?;
        if UnixStream::connect(site.paths.socket()).is_err() {
            let vzd = site.start_vzd()?;
            site.facts.vzd = Some(vzd);
            site.note()?;
        }
        Ok(site)
    }

    fn note(&self) -> Result<()> {
        let file = facts_file(&self.paths.base);
        fs::write(&file, serde_json::to_string_pretty(&self.facts)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Starts vzd in a session of its own and waits until it answers.
    pub fn start_vzd(&self) -> Result<ProcessId> {
        let log = self.paths.log_dir().join("vzd.out");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let mut c = Command::new(self.bin.join("vzd"));
        c.arg("--root")
            .arg(&self.paths.base)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0);
        let child = c.current_dir("/").spawn().context("cannot start vzd")?;
        let socket = self.paths.socket();
        let up = wait::in_dir(&self.paths.run(), Duration::from_secs(30), || {
            UnixStream::connect(&socket).is_ok().then_some(())
        })?;
        if up.is_none() {
            bail!("vzd does not answer on {}:\n{}", socket.display(), vz_tests::census::tail(&log, 30));
        }
        let id = identify(i32::try_from(child.id())?).context("vzd is gone again")?;
        let file = facts_file(&self.paths.base);
        if let Ok(mut facts) =
            fs::read_to_string(&file).map_err(anyhow::Error::from).and_then(|t| Ok(serde_json::from_str::<Facts>(&t)?))
        {
            facts.vzd = Some(id);
            fs::write(&file, serde_json::to_string_pretty(&facts)?)?;
        }
        Ok(id)
    }

    /// Kills vzd by its own number, as a crash would.
    pub fn kill_vzd(&self) -> Result<()> {
        let text = fs::read_to_string(facts_file(&self.paths.base))?;
        let facts: Facts = serde_json::from_str(&text)?;
        let vzd = facts.vzd.context("no vzd was noted")?;
        if !end(vzd, true)? {
            bail!("vzd ({}) is not there", vzd.pid);
        }
        Ok(())
    }

    /// A program of ours, told of this manager.
    pub fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut c = Command::new(self.bin.join(program));
        c.args(words).env("VZ_ROOT", &self.paths.base);
        c
    }

    /// Runs one.
    pub fn run(&self, program: &str, words: &[&str], seconds: u64) -> Result<Output> {
        Ok(command::run(&mut self.command(program, words), None, Duration::from_secs(seconds))?)
    }

    /// Runs vzctl.
    pub fn vzctl(&self, words: &[&str], seconds: u64) -> Result<Output> {
        self.run("vzctl", words, seconds)
    }

    /// The address under which this machine speaks to the CT.
    pub fn host_address(&self) -> Result<String> {
        let mut c = Command::new("ip");
        let out = command::run(c.args(["-4", "route", "get", &self.facts.ipv4]), None, Duration::from_secs(10))?;
        let mut words = out.stdout.split_whitespace().skip_while(|w| *w != "src");
        words.nth(1).map(str::to_owned).with_context(|| format!("{out}"))
    }

    /// Runs a line as `user` at `address` over ssh, by key.
    pub fn ssh(&self, user: &str, address: &str, line: &str) -> Result<Output> {
        let mut c = Command::new("ssh");
        c.args(self.identity.options("publickey")).arg(format!("{user}@{address}")).arg(line);
        Ok(command::run(&mut c, None, Duration::from_secs(30))?)
    }

    /// The same by password.
    pub fn ssh_password(&self, user: &str, line: &str) -> Result<Output> {
        let mut c = Command::new("sshpass");
        c.arg("-e")
            .arg("ssh")
            .args(self.identity.options("password"))
            .arg(format!("{user}@{}", self.facts.ipv4))
            .arg(line);
        c.env("SSHPASS", &self.facts.password);
        Ok(command::run(&mut c, None, Duration::from_secs(30))?)
    }

    /// Waits until ssh answers.
    pub fn wait_ssh(&self, limit: Duration) -> Result<()> {
        let address = format!("{}:22", self.facts.ipv4).parse()?;
        let banner = || {
            let mut s = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
            s.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            let mut first = [0; 4];
            s.read_exact(&mut first).ok()?;
            (&first == b"SSH-").then_some(())
        };
        wait::retry(limit, Duration::from_millis(20), banner).context("no ssh banner")
    }

    fn record(&self) -> Result<RunRecord> {
        let file = self.paths.ct_run(Ctid::try_from(101)?).join("state.json");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        serde_json::from_str(&text).with_context(|| file.display().to_string())
    }

    /// init's pid on the host.
    pub fn init_pid(&self) -> Result<i32> {
        Ok(self.record()?.init.pid)
    }

    /// Boots since start.
    pub fn boots(&self) -> Result<u32> {
        Ok(self.record()?.boots)
    }

    /// Waits until the CT has booted that often.
    pub fn wait_boots(&self, boots: u32, limit: Duration) -> Result<()> {
        let dir = self.paths.ct_run(Ctid::try_from(101)?);
        let there = || self.record().ok().filter(|r| r.boots >= boots).map(|_| ());
        wait::in_dir(&dir, limit, there)?.context("it did not boot again")
    }
}

impl Facts {
    fn new() -> Result<Self> {
        let routes =
            command::run(Command::new("ip").args(["route", "show", "table", "all"]), None, Duration::from_secs(10))?;
        let free = |n: &u8| !routes.stdout.contains(&format!("10.147.{n}."));
        let n = (17..250).find(free).context("every 10.147.x.0/24 has a route on this machine already")?;
        let mut random = [0u8; 9];
        fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
        let letters = b"abcdefghijkmnpqrstuvwxyz23456789";
        let password = random.iter().map(|b| char::from(letters[usize::from(*b) % letters.len()])).collect();
        Ok(Self {
            ipv4: format!("10.147.{n}.101"),
            ipv6: format!("fd76:7a00:{n}::101"),
            password,
            vzd: None,
            switches: Switches::read(),
        })
    }
}

/// A process as it can be recognised later, if it is there.
pub fn identify(pid: i32) -> Option<ProcessId> {
    let start_time = Stat::of(u32::try_from(pid).ok()?)?.start_time()?;
    Some(ProcessId { pid, start_time })
}

/// Ends exactly this process: by SIGTERM, then SIGKILL after 20 s, or at once by SIGKILL. False: it was not there.
pub fn end(process: ProcessId, kill: bool) -> Result<bool> {
    if identify(process.pid) != Some(process) {
        return Ok(false);
    }
    let held = wait::Process::open(u32::try_from(process.pid)?)?;
    if identify(process.pid) != Some(process) {
        return Ok(false);
    }
    if !kill {
        held.terminate();
        if held.ended(Duration::from_secs(20))? {
            return Ok(true);
        }
    }
    held.kill();
    if !held.ended(Duration::from_secs(10))? {
        bail!("process {} does not end", process.pid);
    }
    Ok(true)
}
