//! The manager under test: a private root below the temporary directory, a *test host* network namespace, and a
//! vzd child in it. Dropping a rig stops every container, ends vzd, and panics if anything of it is left on the
//! machine, so that every test is also a leak test.

use crate::{
    census::{self, Census},
    command::{self, Output},
    netns::NetNs,
    template::Template,
    wait::{self, Process},
};
use std::{
    fs,
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};
use vz_types::{Ctid, ExitCode, Paths, run::RunRecord};

/// How long one `vzctl` may take before it counts as hung.
const LIMIT: Duration = Duration::from_secs(90);
/// How long vzd may take to answer after its start.
const READY: Duration = Duration::from_secs(30);

/// What tells one bound socket from a later one at its path: inode number (which may come again) and the time of its
/// last change.
pub(crate) type Identity = (u64, i64, i64);

/// One manager with a test host of its own.
pub struct Rig {
    /// Where its things are.
    pub paths: Paths,
    /// The test host's network.
    pub host: NetNs,
    /// Directory of the programs under test.
    pub bin: PathBuf,
    vzd: Mutex<Option<Child>>,
    binds: Vec<PathBuf>,
    clean_start: Census,
}

/// Directory of the release programs under test: `VZ_BIN_DIR`, or `release` beside the directory of the running
/// test program.
///
/// # Panics
/// If vzd is not there: build it first (`cargo xtask build`).
pub fn bin_dir() -> PathBuf {
    let given = std::env::var_os("VZ_BIN_DIR").map(PathBuf::from);
    let beside = || {
        let exe = std::env::current_exe().unwrap_or_default();
        exe.ancestors().map(|d| d.join("release")).find(|d| d.join("vzd").exists())
    };
    match given.or_else(beside) {
        Some(dir) if dir.join("vzd").exists() && dir.join("vzmon").exists() && dir.join("vzctl").exists() => dir,
        other => panic!("no vzctl, vzd and vzmon in {other:?}: run `cargo xtask build` first, or set VZ_BIN_DIR"),
    }
}

impl Rig {
    /// A running manager that has these OS templates.
    #[track_caller]
    pub fn new(templates: &[Template]) -> Self {
        let rig = Self::stopped(templates);
        rig.start_vzd(&[]);
        rig
    }

    /// As [`Rig::new`], with vzd not started yet: files may be laid before it looks.
    #[track_caller]
    pub fn stopped(templates: &[Template]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep_dead_rigs();
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let base = std::env::temp_dir().join(format!("vzt-{}-{n}", std::process::id()));
        let paths = Paths::new(&base);
        for dir in [paths.etc(), paths.conf_dir(), paths.template_dir(), paths.log_dir(), paths.run()] {
            fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("cannot make {}: {e}", dir.display()));
        }
        let host =
            NetNs::new().unwrap_or_else(|e| panic!("no network namespace for the test host (are we root?): {e}"));
        let mut rig = Self {
            paths,
            host,
            bin: bin_dir(),
            vzd: Mutex::new(None),
            binds: Vec::new(),
            clean_start: Census::default(),
        };
        for template in templates {
            rig.add_template(*template);
        }
        rig.clean_start = rig.census();
        rig
    }

    /// Makes a cached template known to this manager, without copying it.
    #[track_caller]
    pub fn add_template(&mut self, template: Template) {
        let source = template.cached();
        let target = self.paths.template_dir().join(template.name());
        fs::create_dir_all(&target).expect("making the template's directory");
        let mut mount = Command::new("mount");
        mount.arg("--bind").arg(&source).arg(&target);
        command::run(&mut mount, None, Duration::from_secs(10)).expect("mount").ok();
        self.binds.push(target);
    }

    /// An outside world: a namespace of its own, linked to the test host, which gets a default route to it.
    /// The test host is 198.51.100.2 and 2001:db8:51::2, the outside 198.51.100.1 and 2001:db8:51::1; the outside
    /// knows no route to containers. Before vzd starts, so that it finds its uplink.
    #[track_caller]
    pub fn outside(&self) -> NetNs {
        let out = NetNs::new().expect("a network namespace for the outside");
        self.host.veth("up0", &out, "out0");
        self.host.ip("addr add 198.51.100.2/24 dev up0");
        self.host.ip("-6 addr add 2001:db8:51::2/64 dev up0 nodad");
        out.ip("addr add 198.51.100.1/24 dev out0");
        out.ip("-6 addr add 2001:db8:51::1/64 dev out0 nodad");
        self.host.ip("route add default via 198.51.100.1");
        self.host.ip("-6 route add default via 2001:db8:51::1");
        out
    }

    /// Writes `vz.toml`. Before vzd starts.
    pub fn write_manager_config(&self, text: &str) {
        fs::write(self.paths.manager_config(), text).expect("writing vz.toml");
    }

    /// Starts vzd with these variables added to its environment, and waits until it answers.
    #[track_caller]
    pub fn start_vzd(&self, env: &[(&str, &str)]) {
        let before = self.socket_identity();
        self.spawn_vzd(env);
        let up = self.new_vzd_answers(before);
        assert!(up, "vzd does not answer on {}:\n{}", self.paths.socket().display(), self.vzd_log(60));
    }

    /// Waits until the vzd that was just started serves. A socket that was there `before` does not count: a program
    /// that a killed vzd had just forked may hold that one open, and connecting to it succeeds although nobody
    /// will ever answer.
    fn new_vzd_answers(&self, before: Option<Identity>) -> bool {
        let socket = self.paths.socket();
        let up = wait::in_dir(&self.paths.run(), READY, || {
            let new = self.socket_identity().is_some_and(|now| Some(now) != before);
            ((new && UnixStream::connect(&socket).is_ok()) || self.vzd_ended()).then_some(())
        });
        up.expect("watching the run directory").is_some() && !self.vzd_ended()
    }

    pub(crate) fn socket_identity(&self) -> Option<Identity> {
        let there = fs::symlink_metadata(self.paths.socket()).ok()?;
        Some((there.ino(), there.ctime(), there.ctime_nsec()))
    }

    /// Starts vzd and does not wait for anything: it may be about to die on purpose.
    #[track_caller]
    pub fn spawn_vzd(&self, env: &[(&str, &str)]) {
        let mut guard = self.lock();
        assert!(guard.is_none(), "vzd runs already");
        fs::create_dir_all(self.paths.run()).expect("making the run directory");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).expect("opening vzd's log");
        let mut c = self.host.command(self.bin.join("vzd"));
        c.arg("--root").arg(&self.paths.base).envs(env.iter().copied()).env_remove("NOTIFY_SOCKET");
        if std::env::var_os("VZ_LOG").is_none() {
            c.env("VZ_LOG", "debug");
        }
        c.stdin(Stdio::null()).stdout(log.try_clone().expect("second log descriptor")).stderr(log);
        *guard = Some(c.spawn().expect("starting vzd"));
    }

    /// Starts vzd where these programs are not: an overlay over their directory has them removed. It has a mount
    /// namespace of its own, so no container can be seen from outside; it is for refusals.
    #[track_caller]
    pub fn start_vzd_without(&self, programs: &[&str]) {
        let layer = self.paths.base.join("hide");
        let mut lines = Vec::new();
        for (n, program) in programs.iter().enumerate() {
            let path = fs::canonicalize(program).unwrap_or_else(|e| panic!("{program}: {e}"));
            let (upper, work) = (layer.join(format!("u{n}")), layer.join(format!("w{n}")));
            fs::create_dir_all(&upper)
                .and_then(|()| fs::create_dir_all(&work))
                .expect("making an overlay's directories");
            let dir = path.parent().unwrap_or(Path::new("/")).display();
            lines.push(format!(
                "mount -t overlay overlay -o lowerdir={dir},upperdir={},workdir={} {dir} && rm {}",
                upper.display(),
                work.display(),
                path.display()
            ));
        }
        self.start_vzd_behind(&lines.join(" && "));
    }

    /// Starts vzd in a mount namespace of its own, after this shell line was run in it.
    #[track_caller]
    pub fn start_vzd_behind(&self, setup: &str) {
        // Other rigs' mounts are not kept alive by this copy of them.
        let base = self.paths.base.display();
        let others =
            format!("awk '$5 ~ \"/vzt-\" && index($5, \"{base}/\") != 1 {{print $5}}' /proc/self/mountinfo | tac");
        let line = format!(
            "for m in $({others}); do umount -l $m; done; {setup} && exec {} --root {base}",
            self.bin.join("vzd").display()
        );
        let log = fs::File::create(self.log_file()).expect("making vzd's log");
        let mut c = self.host.command("unshare");
        c.args(["--mount", "--propagation", "private", "bash", "-c", &line]).stdin(Stdio::null());
        c.stdout(log.try_clone().expect("second log descriptor")).stderr(log);
        let before = self.socket_identity();
        *self.lock() = Some(c.spawn().expect("starting vzd"));
        let up = self.new_vzd_answers(before);
        assert!(up, "vzd does not answer behind `{setup}`:\n{}", self.vzd_log(60));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.vzd.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn vzd_ended(&self) -> bool {
        self.lock().as_mut().is_none_or(|c| matches!(c.try_wait(), Ok(Some(_)) | Err(_)))
    }

    /// vzd's process id.
    #[track_caller]
    pub fn vzd_pid(&self) -> u32 {
        self.lock().as_ref().expect("vzd runs").id()
    }

    /// Kills vzd with SIGKILL, as a crash would.
    #[track_caller]
    pub fn kill_vzd(&self) {
        let mut child = self.lock().take().expect("vzd runs");
        child.kill().expect("killing vzd");
        child.wait().expect("waiting for vzd");
    }

    /// Waits for vzd to die by itself (a fault point): false if it lived on for `limit`.
    #[track_caller]
    pub fn vzd_dies(&self, limit: Duration) -> bool {
        let pid = self.vzd_pid();
        let ended = wait::process(pid, limit).expect("waiting for vzd");
        if ended && let Some(mut child) = self.lock().take() {
            child.wait().expect("reaping vzd");
        }
        ended
    }

    /// Ends vzd with SIGTERM, as an upgrade does. Containers run on.
    #[track_caller]
    pub fn stop_vzd(&self) {
        let mut child = self.lock().take().expect("vzd runs");
        let process = Process::open(child.id()).expect("vzd's pidfd");
        process.terminate();
        let ended = process.ended(Duration::from_secs(20)).expect("waiting for vzd");
        if !ended {
            child.kill().expect("killing vzd");
        }
        child.wait().expect("waiting for vzd");
        assert!(ended, "vzd did not end on SIGTERM within 20 s:\n{}", self.vzd_log(40));
    }

    /// Where vzd's output goes.
    pub fn log_file(&self) -> PathBuf {
        self.paths.log_dir().join("vzd.out")
    }

    /// The last lines of vzd's output.
    pub fn vzd_log(&self, lines: usize) -> String {
        census::tail(&self.log_file(), lines)
    }

    /// With a tiny CT 101 that runs.
    #[track_caller]
    pub fn with_tiny() -> Self {
        let rig = Self::new(&[Template::Tiny]);
        rig.create(101, Template::Tiny, &[]);
        rig.ok(&["start", "101"]);
        rig.settled(101);
        rig
    }

    /// A `vzctl` command of this manager, to be run or changed.
    pub fn vzctl_command(&self, args: &[&str]) -> Command {
        self.program("vzctl", args)
    }

    /// A program of ours on the test host, told of this manager.
    pub fn program(&self, name: &str, args: &[&str]) -> Command {
        let mut c = self.host.command(self.bin.join(name));
        c.args(args).env("VZ_ROOT", &self.paths.base).env_remove("COLUMNS").env("LC_ALL", "C.UTF-8");
        c
    }

    /// Runs vzctl. Panics only if it hangs; see [`Output`] for what to expect of it.
    #[track_caller]
    pub fn vzctl(&self, args: &[&str]) -> Output {
        self.run(&mut self.vzctl_command(args), None, LIMIT)
    }

    /// Runs vzctl with this standard input.
    #[track_caller]
    pub fn vzctl_with(&self, args: &[&str], stdin: &[u8]) -> Output {
        self.run(&mut self.vzctl_command(args), Some(stdin), LIMIT)
    }

    /// Runs vzctl and expects success.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> Output {
        let out = self.vzctl(args);
        if out.code() != 0 {
            panic!("expected success:\n{out}--- vzd\n{}", self.vzd_log(40));
        }
        out
    }

    /// Runs vzctl and expects this refusal: the exit code, and a message that names the thing.
    #[track_caller]
    pub fn refused(&self, args: &[&str], code: ExitCode, names: &str) -> Output {
        let out = self.vzctl(args);
        let right = out.code() == i32::from(code.code()) && out.stderr.contains(names);
        assert!(
            right,
            "expected exit {} ({code:?}) and a message naming {names:?}:\n{out}--- vzd\n{}",
            code.code(),
            self.vzd_log(20)
        );
        assert!(!out.stderr.contains("panicked"), "a refusal is no panic:\n{out}");
        out
    }

    /// Runs vzlist.
    #[track_caller]
    pub fn vzlist(&self, args: &[&str]) -> Output {
        // One program under two names: `vzlist` is a link to vzctl.
        self.run(&mut self.program("vzlist", args), None, LIMIT)
    }

    #[track_caller]
    fn run(&self, c: &mut Command, stdin: Option<&[u8]>, limit: Duration) -> Output {
        match command::run(c, stdin, limit) {
            Ok(o) => o,
            Err(e) => panic!("{e}--- vzd\n{}", self.vzd_log(60)),
        }
    }

    /// Runs `exec` of a shell line in a container and expects success; gives its output without white space around.
    #[track_caller]
    pub fn inside(&self, ctid: u32, line: &str) -> String {
        self.ok(&["exec2", &ctid.to_string(), line]).text().to_owned()
    }

    /// The monitor's record of a running container.
    #[track_caller]
    pub fn record(&self, ctid: u32) -> RunRecord {
        let file = self.ct_run(ctid).join("state.json");
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}\n{text}", file.display()))
    }

    /// `/run/vz/ct/<CTID>`.
    pub fn ct_run(&self, ctid: u32) -> PathBuf {
        self.paths.ct_run(Ctid::try_from(ctid).expect("a CTID"))
    }

    /// The words of the status line after `CTID n`.
    #[track_caller]
    pub fn status(&self, ctid: u32) -> String {
        let out = self.ok(&["status", &ctid.to_string()]);
        out.text()
            .strip_prefix(&format!("CTID {ctid} "))
            .map(str::to_owned)
            .unwrap_or_else(|| panic!("no status line:\n{out}"))
    }

    /// Waits until the record of a container satisfies `is`.
    #[track_caller]
    pub fn wait_record(&self, ctid: u32, limit: Duration, is: impl Fn(&RunRecord) -> bool) -> RunRecord {
        let dir = self.ct_run(ctid);
        let read = || {
            let text = fs::read_to_string(dir.join("state.json")).ok()?;
            serde_json::from_str(&text).ok().filter(&is)
        };
        match wait::in_dir(&dir, limit, read).expect("watching the run directory") {
            Some(record) => record,
            None => panic!(
                "CT {ctid} did not get there in {} s\n--- console\n{}\n--- vzd\n{}",
                limit.as_secs(),
                self.console_log(ctid),
                self.vzd_log(40)
            ),
        }
    }

    /// Waits until a container has ended: its init is gone and vzd says so.
    #[track_caller]
    pub fn wait_stopped(&self, ctid: u32, limit: Duration) {
        let own = self.ct_run(ctid);
        // Its record goes first; a directory that is gone by now cannot be watched any more.
        let _ = wait::in_dir(&own, limit, || (!own.join("state.json").exists()).then_some(()));
        // vzd tidies up after that, and the last of it leaves no mark in any directory.
        let gone = || self.status(ctid).ends_with(" down").then_some(());
        let down = wait::retry(limit, Duration::from_millis(50), gone).is_some();
        assert!(down, "CT {ctid} did not stop\n--- console\n{}\n--- vzd\n{}", self.console_log(ctid), self.vzd_log(40));
    }

    /// Waits until the console has said `text`.
    #[track_caller]
    pub fn wait_console(&self, ctid: u32, text: &str, limit: Duration) -> String {
        let dir = self.ct_run(ctid);
        let said = wait::in_dir(&dir, limit, || Some(self.console_log(ctid)).filter(|l| l.contains(text)));
        match said.expect("watching the run directory") {
            Some(log) => log,
            None => panic!("the console of CT {ctid} never said {text:?}:\n{}", self.console_log(ctid)),
        }
    }

    /// Waits until a tiny system has started all it ever starts.
    #[track_caller]
    pub fn settled(&self, ctid: u32) {
        self.wait_console(ctid, "tiny is up", READY);
        // What it runs for good comes after what it says.
        self.inside(ctid, "until ps | grep -q '[s]leep 100000'; do sleep 0.02; done");
    }

    /// What the console log of a container holds.
    pub fn console_log(&self, ctid: u32) -> String {
        let bytes = fs::read(self.ct_run(ctid).join("console.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What this manager holds of the machine's resources now.
    pub fn census(&self) -> Census {
        Census::take(&self.paths, Some(&self.host))
    }

    /// Panics, naming the leak, unless the manager holds what it held at `before`.
    #[track_caller]
    pub fn assert_census(&self, before: &Census, when: &str) {
        let changes = before.changes(&self.census());
        assert!(changes.is_empty(), "{when}: resources differ\n{}\n--- vzd\n{}", changes.join("\n"), self.vzd_log(60));
    }

    /// Creates a container from a template with these further options, and starts it unless they say otherwise.
    #[track_caller]
    pub fn create(&self, ctid: u32, template: Template, options: &[&str]) {
        let id = ctid.to_string();
        let mut args = vec!["create", id.as_str(), "--ostemplate", template.name()];
        args.extend(options);
        self.ok(&args);
    }

    /// The whole end: containers stopped, vzd ended, everything unmounted. Says what is left.
    fn tear_down(&self) -> Vec<String> {
        let mut left = Vec::new();
        let running: Vec<String> = fs::read_dir(self.paths.ct_run_dir())
            .into_iter()
            .flatten()
            .flatten()
            .filter(|e| e.path().join("state.json").exists())
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        if self.vzd_ended() {
            *self.lock() = None;
        }
        if !running.is_empty() && self.lock().is_none() {
            self.spawn_vzd(&[]);
            let socket = self.paths.socket();
            let _ = wait::in_dir(&self.paths.run(), READY, || UnixStream::connect(&socket).is_ok().then_some(()));
        }
        for ctid in &running {
            match command::run(&mut self.vzctl_command(&["stop", ctid, "--fast"]), None, LIMIT) {
                Ok(o) if o.code() == 0 => {}
                Ok(o) => left.push(format!("{o}")),
                Err(e) => left.push(e.to_string()),
            }
        }
        if let Some(mut child) = self.lock().take() {
            if let Ok(p) = Process::open(child.id()) {
                p.terminate();
                if !p.ended(Duration::from_secs(20)).unwrap_or(false) {
                    left.push("vzd did not end on SIGTERM within 20 s".into());
                    p.kill();
                }
            }
            let _ = child.wait();
        }
        // Mounted containers are allowed to be left by a test; what still runs or hangs on afterwards is not.
        let kinds = ["loop ", "cgroup ", "process ", "link "];
        let changes = self.clean_start.changes(&self.census());
        let now: Vec<String> = changes
            .into_iter()
            // The test host's own uplink is not the manager's.
            .filter(|l| kinds.iter().any(|k| l.starts_with(&format!("+ {k}"))) && l != "+ link up0")
            .collect();
        let mounted = census::mounts(&self.paths);
        if mounted.is_empty() {
            left.extend(now);
        }
        left
    }

    fn wipe(&self) {
        wipe_root(&self.paths, &self.binds);
    }
}

/// Takes away every trace of a dead manager: processes in its cgroups, mounts, cgroups, files.
fn wipe_root(paths: &Paths, binds: &[PathBuf]) {
    let limit = Duration::from_secs(60);
    let top = census::cgroup2_mount().map(|m| m.join(paths.cgroup_name()));
    if let Some(top) = top.filter(|t| t.exists()) {
        // Everything in there is a container's.
        let _ = fs::write(top.join("cgroup.kill"), "1");
        let empty = || {
            let events = fs::read_to_string(top.join("cgroup.events")).unwrap_or_default();
            (!events.contains("populated 1")).then_some(())
        };
        let _ = wait::retry(Duration::from_secs(5), Duration::from_millis(5), empty);
        let mut dirs = vec![top.clone()];
        let mut all = Vec::new();
        while let Some(d) = dirs.pop() {
            dirs.extend(
                fs::read_dir(&d).into_iter().flatten().flatten().filter(|e| e.path().is_dir()).map(|e| e.path()),
            );
            all.push(d);
        }
        for d in all.iter().rev() {
            let _ = wait::retry(Duration::from_secs(2), Duration::from_millis(5), || fs::remove_dir(d).ok());
        }
    }
    let points = crate::proc::mounts().into_iter().rev().map(|m| m.at);
    let points = points.filter(|m| m.starts_with(&paths.base) && *m != paths.base);
    for point in points.chain(binds.iter().cloned()) {
        if nix::mount::umount(&point).is_err() {
            let _ = nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
    let mut rm = Command::new("rm");
    rm.args(["-rf", "--one-file-system"]).arg(&paths.base);
    let _ = command::run(&mut rm, None, limit);
}

/// Roots of test processes that were killed before they could clean up.
fn sweep_dead_rigs() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("vzt-").and_then(|r| r.split('-').next()).and_then(|p| p.parse::<u32>().ok());
        if pid.is_some_and(|p| !Path::new(&format!("/proc/{p}")).exists()) {
            kill_managers_of(&entry.path());
            wipe_root(&Paths::new(entry.path()), &[]);
        }
    }
}

/// vzd and monitors of a root nobody owns any more: found by the root in their command line or their record.
fn kill_managers_of(base: &Path) {
    let text = base.to_string_lossy().into_owned();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned());
        let program = words.next().unwrap_or_default();
        if (program.ends_with("/vzd") || program.ends_with("vzmon"))
            && words.any(|w| w == text)
            && let Ok(p) = Process::open(pid)
        {
            p.kill();
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let left = self.tear_down();
        if thread::panicking() {
            eprintln!("--- vzd ({})\n{}", self.paths.base.display(), self.vzd_log(50));
            if !left.is_empty() {
                eprintln!("--- left behind\n{}", left.join("\n"));
            }
            if std::env::var_os("VZ_TEST_KEEP").is_some() {
                return;
            }
            self.wipe();
            return;
        }
        let log = self.vzd_log(40);
        self.wipe();
        assert!(left.is_empty(), "the manager left something behind:\n{}\n--- vzd\n{log}", left.join("\n"));
    }
}
