//! How each manager is told to do the same things. The commands are what an operator would type, with no hooks or
//! daemons beyond what the manager itself needs.

use super::world::{World, now};
use anyhow::{Context, Result, bail};
use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use vz_tests::{command, proc::Stat, wait};
use vz_types::{Ctid, Paths, run::RunRecord};

/// Which root filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A static PID 1 that waits.
    Tiny,
    /// Debian 12 with systemd.
    Debian,
    /// The static PID 1 under the name of an init that ends when it is asked to.
    Prompt,
}

impl Kind {
    /// Those that are compared.
    pub const ALL: [Kind; 2] = [Kind::Tiny, Kind::Debian];

    /// In names.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tiny => "bench-tiny",
            Self::Debian => "bench-debian",
            Self::Prompt => "bench-prompt",
        }
    }
}

/// A start that was made.
pub struct Started {
    /// When, in milliseconds of the monotonic clock.
    pub begun: f64,
    /// Milliseconds until PID 1 noted the clock.
    pub pid1: f64,
    /// Milliseconds until the command came back, where it does.
    pub back: Option<f64>,
    /// The command.
    pub child: Child,
    /// What it said.
    pub said: String,
}

impl Started {
    /// The steps vz reports with its answer, in milliseconds.
    pub fn steps(&self) -> Vec<(String, f64)> {
        let value: serde_json::Value = serde_json::from_str(&self.said).unwrap_or_default();
        let rows = value["steps"].as_array().cloned().unwrap_or_default();
        rows.iter().filter_map(|s| Some((s["name"].as_str()?.to_owned(), s["us"].as_f64()? / 1000.0))).collect()
    }
}

/// One manager.
pub trait Peer {
    /// Column of the table.
    fn name(&self) -> &'static str;
    /// The start command stays as long as the container lives.
    fn foreground(&self) -> bool {
        false
    }
    /// It can give a container a network.
    fn has_network(&self) -> bool {
        true
    }
    /// Commands that make container `n`.
    fn create(&self, n: usize, kind: Kind, net: bool) -> Vec<Command>;
    /// Starts it.
    fn start(&self, n: usize, kind: Kind, net: bool) -> Command;
    /// Starts it where many run at once.
    fn start_apart(&self, n: usize, kind: Kind) -> Command {
        self.start(n, kind, false)
    }
    /// Runs `true` in it.
    fn exec(&self, n: usize, init: i32) -> Command;
    /// Ends it in order.
    fn stop(&self, n: usize, started: &Started) -> Command;
    /// Ends it at once.
    fn kill(&self, n: usize, init: i32) -> Command;
    /// Commands that remove it.
    fn destroy(&self, n: usize) -> Vec<Command>;
    /// Lists what runs.
    fn list(&self) -> Option<Command>;
    /// Where the host sees `/stamp` of it.
    fn stamp(&self, n: usize) -> PathBuf;
    /// Its init's pid.
    fn init(&self, n: usize, started: &Started) -> Result<i32>;
    /// The process that watches over this init: its parent.
    fn monitor(&self, init: i32) -> i32 {
        let parent = u32::try_from(init).ok().and_then(|pid| Stat::of(pid)?.parent());
        parent.and_then(|p| i32::try_from(p).ok()).unwrap_or(0)
    }
    /// A daemon that serves all.
    fn daemon(&self) -> Option<i32> {
        None
    }
    /// Waits until systemd inside has nothing left to start.
    fn settle(&self, init: i32) {
        let mut c = Command::new("nsenter");
        c.args([
            "-t",
            &init.to_string(),
            "-a",
            "-r",
            "-w",
            "timeout",
            "30",
            "systemctl",
            "is-system-running",
            "--wait",
        ]);
        // `degraded` is an answer as well.
        let _ = command::run(&mut c, None, Duration::from_secs(40));
    }
}

fn cmd(program: impl AsRef<std::ffi::OsStr>, words: &[&str]) -> Command {
    let mut c = Command::new(program);
    c.args(words);
    c
}

/// vz itself: a private manager, as installed.
pub struct Vz {
    bin: PathBuf,
    paths: Paths,
    vzd: Child,
}

impl Vz {
    /// Starts vzd and makes both templates known.
    pub fn new(world: &World) -> Result<Self> {
        let paths = Paths::new(world.dir.join("vz"));
        for dir in [paths.recipe_dir(), paths.run(), paths.log_dir()] {
            fs::create_dir_all(dir)?;
        }
        for kind in world.kinds {
            let kind = *kind;
            // Its PID 1 is our own, which becomes the tree's init where there is one.
            let text =
                format!("description = 'bench'\ninit = 'any'\ntree = {:?}\n", world.tree(kind).display().to_string());
            fs::write(paths.recipe_dir().join(format!("{}.toml", kind.word())), text)?;
        }
        let vzd = Self::spawn(&world.bin, &paths)?;
        let vz = Self { bin: world.bin.clone(), paths, vzd };
        let socket = vz.paths.socket();
        let up = wait::in_dir(&vz.paths.run(), Duration::from_secs(30), || {
            UnixStream::connect(&socket).is_ok().then_some(())
        })?;
        up.with_context(|| {
            format!("vzd does not answer:\n{}", vz_tests::census::tail(&vz.paths.log_dir().join("vzd.out"), 20))
        })?;
        for kind in world.kinds {
            let out = command::run(&mut vz.vzctl(&["template", "build", kind.word()]), None, Duration::from_secs(120))?;
            if out.code() != 0 {
                bail!("{out}");
            }
        }
        Ok(vz)
    }

    fn spawn(bin: &Path, paths: &Paths) -> Result<Child> {
        let log = fs::OpenOptions::new().create(true).append(true).open(paths.log_dir().join("vzd.out"))?;
        let mut c = Command::new(bin.join("vzd"));
        c.arg("--root").arg(&paths.base).env("VZ_LOG", "warn");
        Ok(c.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?)
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.vzd.id()
    }

    /// Ends the daemon and starts it again; milliseconds until the next one answers.
    pub fn restart(&mut self) -> Result<f64> {
        let begun = now();
        let old = wait::Process::open(self.vzd.id())?;
        old.terminate();
        if !old.ended(Duration::from_secs(30))? {
            bail!("vzd does not end");
        }
        self.vzd.wait()?;
        self.vzd = Self::spawn(&self.bin, &self.paths)?;
        let socket = self.paths.socket();
        let answered = || -> Option<()> {
            let mut s = UnixStream::connect(&socket).ok()?;
            s.write_all(b"GET /v1/version HTTP/1.1\r\nHost: vz\r\nConnection: close\r\n\r\n").ok()?;
            let mut first = [0; 12];
            s.read_exact(&mut first).ok()?;
            (&first == b"HTTP/1.1 200").then_some(())
        };
        wait::retry(Duration::from_secs(60), Duration::from_millis(1), answered).context("vzd does not answer")?;
        Ok(now() - begun)
    }

    /// Gives a running container one more address, or takes it away.
    pub fn set_address(&self, n: usize, option: &str) -> Command {
        self.vzctl(&["set", &Self::id(n), option, "10.212.0.1", "--save"])
    }

    /// As `stop`, with the steps in its answer.
    pub fn stop_telling(&self, n: usize) -> Command {
        self.vzctl(&["--json", "stop", &Self::id(n)])
    }

    /// Stops all there are.
    pub fn stop_all(&self) -> Command {
        self.vzctl(&["stop", "--all"])
    }

    /// Lists.
    pub fn vzlist(&self, words: &[&str]) -> Command {
        let mut c = cmd(self.bin.join("vzlist"), words);
        c.env("VZ_ROOT", &self.paths.base);
        c
    }

    fn vzctl(&self, words: &[&str]) -> Command {
        let mut c = cmd(self.bin.join("vzctl"), words);
        c.env("VZ_ROOT", &self.paths.base);
        c
    }

    fn id(n: usize) -> String {
        (100 + n).to_string()
    }
}

impl Drop for Vz {
    fn drop(&mut self) {
        if let Ok(p) = wait::Process::open(self.vzd.id()) {
            p.terminate();
            if !p.ended(Duration::from_secs(20)).unwrap_or(false) {
                p.kill();
            }
        }
        let _ = self.vzd.wait();
    }
}

impl Peer for Vz {
    fn name(&self) -> &'static str {
        "vz"
    }
    fn create(&self, n: usize, kind: Kind, net: bool) -> Vec<Command> {
        let id = Self::id(n);
        let mut words = vec!["create", &id, "--ostemplate", kind.word()];
        let address = format!("10.211.{}.{}", n / 250, n % 250 + 1);
        if net {
            words.extend(["--ipadd", &address]);
        }
        vec![self.vzctl(&words)]
    }
    fn start(&self, n: usize, _: Kind, _: bool) -> Command {
        self.vzctl(&["--json", "start", &Self::id(n)])
    }
    fn exec(&self, n: usize, _: i32) -> Command {
        self.vzctl(&["exec2", &Self::id(n), "true"])
    }
    fn stop(&self, n: usize, _: &Started) -> Command {
        self.vzctl(&["stop", &Self::id(n)])
    }
    fn kill(&self, n: usize, _: i32) -> Command {
        self.vzctl(&["stop", &Self::id(n), "--fast"])
    }
    fn destroy(&self, n: usize) -> Vec<Command> {
        vec![self.vzctl(&["destroy", &Self::id(n)])]
    }
    fn list(&self) -> Option<Command> {
        Some(self.vzlist(&[]))
    }
    fn stamp(&self, n: usize) -> PathBuf {
        self.paths.root_dir().join(Self::id(n)).join("stamp")
    }
    fn init(&self, n: usize, _: &Started) -> Result<i32> {
        let file = self.paths.ct_run(Ctid::try_from(u32::try_from(100 + n)?)?).join("state.json");
        let record: RunRecord =
            serde_json::from_str(&fs::read_to_string(&file).with_context(|| file.display().to_string())?)?;
        Ok(record.init.pid)
    }
    fn daemon(&self) -> Option<i32> {
        i32::try_from(self.vzd.id()).ok()
    }
}

/// LXC: an overlay snapshot of a stopped base container, privileged, no hooks.
pub struct Lxc {
    dir: PathBuf,
}

impl Lxc {
    /// Makes the two base containers, whose files are the trees themselves.
    pub fn new(world: &World) -> Result<Self> {
        let dir = world.dir.join("lxc");
        for kind in Kind::ALL {
            let base = dir.join(kind.word());
            fs::create_dir_all(&base)?;
            let config = format!(
                "lxc.include = /usr/share/lxc/config/common.conf\nlxc.uts.name = {0}\nlxc.rootfs.path = dir:{1}\n\
                 lxc.apparmor.profile = unconfined\nlxc.net.0.type = empty\nlxc.hook.mount =\nlxc.hook.post-stop =\n",
                kind.word(),
                world.tree(kind).display()
            );
            fs::write(base.join("config"), config)?;
        }
        Ok(Self { dir })
    }

    fn lxc(&self, program: &str, words: &[&str]) -> Command {
        let mut c = cmd(program, &["-P"]);
        c.arg(&self.dir).args(words);
        c
    }
}

impl Peer for Lxc {
    fn name(&self) -> &'static str {
        "lxc"
    }
    fn create(&self, n: usize, kind: Kind, _: bool) -> Vec<Command> {
        vec![self.lxc("lxc-copy", &["-n", kind.word(), "-N", &format!("b{n}"), "-s", "-B", "overlay"])]
    }
    fn start(&self, n: usize, _: Kind, net: bool) -> Command {
        let mut c = self.lxc("lxc-start", &["-d", "-n", &format!("b{n}")]);
        if net {
            c.args(["-s", "lxc.net.0.type=veth", "-s", "lxc.net.0.link=pb0", "-s", "lxc.net.0.flags=up"]);
        }
        c
    }
    fn exec(&self, n: usize, _: i32) -> Command {
        self.lxc("lxc-attach", &["-n", &format!("b{n}"), "--", "/bin/true"])
    }
    fn stop(&self, n: usize, _: &Started) -> Command {
        self.lxc("lxc-stop", &["-n", &format!("b{n}")])
    }
    fn kill(&self, n: usize, _: i32) -> Command {
        self.lxc("lxc-stop", &["-k", "-n", &format!("b{n}")])
    }
    fn destroy(&self, n: usize) -> Vec<Command> {
        vec![self.lxc("lxc-destroy", &["-n", &format!("b{n}")])]
    }
    fn list(&self) -> Option<Command> {
        Some(self.lxc("lxc-ls", &["-f", "--running"]))
    }
    fn stamp(&self, n: usize) -> PathBuf {
        self.dir.join(format!("b{n}/overlay/delta/stamp"))
    }
    fn init(&self, n: usize, _: &Started) -> Result<i32> {
        let mut c = self.lxc("lxc-info", &["-p", "-H", "-n", &format!("b{n}")]);
        let out = command::run(&mut c, None, Duration::from_secs(10))?;
        out.text().parse().with_context(|| format!("{out}"))
    }
}

/// systemd-nspawn on an overlay mounted by hand, its command kept in the foreground as a service unit would.
pub struct Nspawn {
    dir: PathBuf,
    trees: [PathBuf; 2],
}

impl Nspawn {
    /// Nothing to prepare.
    pub fn new(world: &World) -> Result<Self> {
        let dir = world.dir.join("nspawn");
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, trees: Kind::ALL.map(|k| world.tree(k)) })
    }

    fn words(&self, n: usize, net: bool) -> Vec<String> {
        let mut words: Vec<String> =
            ["-q", "--register=no", "--keep-unit", "--kill-signal=SIGRTMIN+3"].map(String::from).into();
        words.extend([
            "-M".into(),
            format!("b{n}"),
            "-D".into(),
            self.dir.join(format!("b{n}/r")).display().to_string(),
        ]);
        words.push(if net { "--network-bridge=pb0" } else { "--private-network" }.into());
        words.push("/sbin/init".into());
        words
    }
}

impl Peer for Nspawn {
    fn name(&self) -> &'static str {
        "nspawn"
    }
    fn foreground(&self) -> bool {
        true
    }
    fn create(&self, n: usize, kind: Kind, _: bool) -> Vec<Command> {
        let b = self.dir.join(format!("b{n}"));
        let of = |d: &str| b.join(d).display().to_string();
        let lower = &self.trees[usize::from(kind == Kind::Debian)];
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), of("u"), of("w"));
        vec![
            cmd("mkdir", &["-p", &of("u"), &of("w"), &of("r")]),
            cmd("mount", &["-t", "overlay", "overlay", "-o", &options, &of("r")]),
        ]
    }
    fn start(&self, n: usize, _: Kind, net: bool) -> Command {
        let mut c = Command::new("systemd-nspawn");
        c.args(self.words(n, net));
        c
    }
    fn start_apart(&self, n: usize, kind: Kind) -> Command {
        if kind == Kind::Tiny {
            return self.start(n, kind, false);
        }
        // Several systemds must not share one cgroup: each nspawn in one of its own, as a unit would have it.
        let enter = "for h in systemd unified; do d=/sys/fs/cgroup/$h/vz-bench-$0; mkdir -p $d && echo $$ >$d/cgroup.procs; done; exec systemd-nspawn \"$@\"";
        let mut c = cmd("sh", &["-c", enter, &n.to_string()]);
        c.args(self.words(n, false));
        c
    }
    fn exec(&self, _: usize, init: i32) -> Command {
        cmd("nsenter", &["-t", &init.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "--", "/bin/true"])
    }
    fn stop(&self, _: usize, started: &Started) -> Command {
        cmd("kill", &["-TERM", &started.child.id().to_string()])
    }
    fn kill(&self, _: usize, init: i32) -> Command {
        cmd("kill", &["-KILL", &init.to_string()])
    }
    fn destroy(&self, n: usize) -> Vec<Command> {
        let b = self.dir.join(format!("b{n}"));
        vec![cmd("umount", &[&b.join("r").display().to_string()]), cmd("rm", &["-rf", &b.display().to_string()])]
    }
    fn list(&self) -> Option<Command> {
        None
    }
    fn stamp(&self, n: usize) -> PathBuf {
        self.dir.join(format!("b{n}/r/stamp"))
    }
    fn init(&self, _: usize, started: &Started) -> Result<i32> {
        let pid = started.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let first = children.split_whitespace().next().and_then(|p| p.parse().ok());
        first.with_context(|| format!("systemd-nspawn {pid} has no child after {:.0} ms", now() - started.begun))
    }
}
