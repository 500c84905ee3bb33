//! OS templates for tests. The Debian ones are built by the product itself from the recipes of this checkout and
//! kept in a cache outside of it, keyed by what they are made from; a cold cache costs one build. The tiny one is
//! a static busybox as a real init: it boots in milliseconds.

use crate::{command, rig, wait};
use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use vz_types::Paths;

/// How long one template may take to build.
const BUILD: Duration = Duration::from_secs(600);

/// A template tests can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Template {
    /// Debian 12 with systemd, from its recipe.
    Debian12,
    /// Debian 13 with systemd, from its recipe.
    Debian13,
    /// Debian 12 with sysvinit, from its recipe.
    Sysvinit,
    /// Debian 12 with OpenRC, from its recipe.
    Openrc,
    /// Debian 12 with runit, from its recipe.
    Runit,
    /// A minimal busybox root, from its recipe.
    Busybox,
    /// A static busybox: init, shell, and a marker file.
    Tiny,
}

impl Template {
    /// Those that are shipped with a recipe.
    pub const SHIPPED: [Self; 6] =
        [Self::Debian12, Self::Debian13, Self::Sysvinit, Self::Openrc, Self::Runit, Self::Busybox];

    /// The name the manager knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian12 => "debian-12",
            Self::Debian13 => "debian-13",
            Self::Sysvinit => "debian-12-sysvinit",
            Self::Openrc => "debian-12-openrc",
            Self::Runit => "debian-12-runit",
            Self::Busybox => "busybox",
            Self::Tiny => "tiny",
        }
    }

    /// What it is made from: when this changes, another copy is made.
    fn ingredients(self) -> Vec<PathBuf> {
        match self {
            Self::Tiny => {
                vec![PathBuf::from("/bin/busybox"), PathBuf::from(file!()), PathBuf::from("tests/probes/probe.c")]
            }
            _ => vec![checkout().join(format!("templates/{}.toml", self.name()))],
        }
    }

    /// The cached template directory (`root/` and its manifest), made first when it is not there.
    ///
    /// # Panics
    /// If it cannot be made, with all that was said.
    #[track_caller]
    pub fn cached(self) -> PathBuf {
        // On the virtual test host they are on a disk already.
        match std::env::var_os("VZ_TEST_TEMPLATES") {
            Some(ready) => Path::new(&ready).join(self.name()),
            None => self.cached_with(&rig::bin_dir()),
        }
    }

    /// The same, made with the programs in `bin`.
    ///
    /// # Panics
    /// If it cannot be made, with all that was said.
    #[track_caller]
    pub fn cached_with(self, bin: &Path) -> PathBuf {
        let mut hash = DefaultHasher::new();
        for file in self.ingredients() {
            let path = if file.is_absolute() { file } else { checkout().join(file) };
            fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).hash(&mut hash);
        }
        let cache = cache_dir();
        fs::create_dir_all(&cache).unwrap_or_else(|e| panic!("cannot make {}: {e}", cache.display()));
        let ready = cache.join(format!("{}-{:016x}", self.name(), hash.finish()));
        // One builder at a time; the others wait for it and find it done.
        let lock = fs::File::create(cache.join(format!("{}.lock", self.name()))).expect("making the cache's lock");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locking the cache");
        if !ready.join("current").exists() {
            let work = cache.join(format!("{}.work", self.name()));
            wipe(&work);
            wipe(&ready);
            match self {
                Self::Tiny => tiny(&work, bin),
                _ => build(&work, self.name(), bin),
            }
            let made = Paths::new(&work).template_dir().join(self.name());
            fs::rename(&made, &ready).unwrap_or_else(|e| panic!("{}: {e}", made.display()));
            wipe(&work);
        }
        ready
    }
}

/// The top of the checkout.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// `VZ_TEST_CACHE`, or `vz-test` in the user's cache directory.
pub fn cache_dir() -> PathBuf {
    let given = std::env::var_os("VZ_TEST_CACHE").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache/vz-test"));
    given.or_else(home).unwrap_or_else(|| PathBuf::from("/var/cache/vz-test"))
}

fn wipe(dir: &Path) {
    if dir.exists() {
        run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(dir), Duration::from_secs(120)).ok();
    }
}

#[track_caller]
fn run(c: &mut Command, limit: Duration) -> command::Output {
    command::run(c, None, limit).unwrap_or_else(|e| panic!("{e}"))
}

/// Runs `work` with a vzd of this root on the machine's own network (it fetches packages) and takes away what
/// such a vzd leaves there: its rule tables and the forwarding switches.
fn with_vzd(base: &Path, bin: &Path, work: impl FnOnce()) {
    let paths = Paths::new(base);
    let switches = Switches::read();
    fs::create_dir_all(paths.run()).expect("making the run directory");
    fs::create_dir_all(paths.log_dir()).expect("making the log directory");
    let log = fs::File::create(paths.log_dir().join("vzd.out")).expect("making the log");
    let mut vzd = Command::new(bin.join("vzd"))
        .arg("--root")
        .arg(base)
        .current_dir(checkout())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("second log descriptor"))
        .stderr(log)
        .spawn()
        .expect("starting vzd");
    let socket = paths.socket();
    let up = wait::in_dir(&paths.run(), Duration::from_secs(30), || UnixStream::connect(&socket).is_ok().then_some(()));
    let answered = up.expect("watching the run directory").is_some();
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        assert!(answered, "vzd does not answer:\n{}", crate::census::tail(&paths.log_dir().join("vzd.out"), 40));
        work();
    }));
    if let Ok(p) = wait::Process::open(vzd.id()) {
        p.terminate();
        if !p.ended(Duration::from_secs(20)).unwrap_or(false) {
            p.kill();
        }
    }
    let _ = vzd.wait();
    remove_tables(&paths);
    switches.restore();
    if let Err(cause) = done {
        std::panic::resume_unwind(cause);
    }
}

/// Deletes the rule tables a manager left in the machine's own network namespace.
pub fn remove_tables(paths: &Paths) {
    let listed = command::run(Command::new("nft").args(["list", "tables"]), None, Duration::from_secs(10));
    let Ok(listed) = listed else { return };
    for table in listed.stdout.lines().filter_map(|l| l.strip_prefix("table ")) {
        if table.split(' ').nth(1) == Some(paths.nft_table().as_str()) {
            let mut c = Command::new("nft");
            c.arg("delete").arg("table").args(table.split(' '));
            let _ = command::run(&mut c, None, Duration::from_secs(10));
        }
    }
}

/// The kernel switches a manager turns on for its containers' traffic, as they were.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Switches(Vec<(PathBuf, String)>);

impl Switches {
    /// As they are now: forwarding, and what hangs off it on each link.
    pub fn read() -> Self {
        let mut files: Vec<PathBuf> =
            ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"].map(PathBuf::from).into();
        for link in fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
            files.extend(["accept_ra", "forwarding", "proxy_ndp"].map(|f| link.path().join(f)));
        }
        for link in fs::read_dir("/proc/sys/net/ipv4/conf").into_iter().flatten().flatten() {
            files.extend(["rp_filter", "forwarding", "proxy_arp", "send_redirects"].map(|f| link.path().join(f)));
        }
        let read = |f: PathBuf| fs::read_to_string(&f).ok().map(|v| (f, v.trim().to_owned()));
        Self(files.into_iter().filter_map(read).collect())
    }

    /// Puts back those that differ now; says which.
    pub fn restore(&self) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        // The first two reset the links' own ones, so what differs is looked at one by one, in order.
        for (file, value) in &self.0 {
            let now = fs::read_to_string(file).unwrap_or_default();
            if !now.is_empty() && now.trim() != value && fs::write(file, value).is_ok() {
                changed.push(file.clone());
            }
        }
        changed
    }
}

fn build(work: &Path, name: &str, bin: &Path) {
    let text = fs::read_to_string(checkout().join(format!("templates/{name}.toml"))).expect("reading the recipe");
    build_from(work, name, &text, bin);
}

/// Has the product build a template from this recipe.
fn build_from(work: &Path, name: &str, recipe: &str, bin: &Path) {
    let recipes = Paths::new(work).recipe_dir();
    fs::create_dir_all(&recipes).expect("making the recipe directory");
    fs::write(recipes.join(format!("{name}.toml")), recipe).expect("writing the recipe");
    with_vzd(work, bin, || {
        let mut c = Command::new(bin.join("vzctl"));
        c.args(["template", "build", name]).env("VZ_ROOT", work);
        run(&mut c, BUILD).ok();
    });
}

/// Files of the tiny template: a real init with nothing to do, so that boots, reboots and stops are the manager's.
fn tiny(work: &Path, bin: &Path) {
    let root = work.join("tree");
    for dir in ["bin", "sbin", "etc", "proc", "sys", "dev", "run", "tmp", "root", "var/log", "mnt", "home", "usr/bin"] {
        fs::create_dir_all(root.join(dir)).expect("making a directory of the tiny template");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("copying busybox (package busybox-static)");
    let list = run(Command::new("/bin/busybox").arg("--list"), Duration::from_secs(10)).ok();
    for applet in list.stdout.lines().filter(|a| *a != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("linking an applet");
    }
    for name in ["init", "poweroff", "reboot", "halt"] {
        std::os::unix::fs::symlink("../bin/busybox", root.join("sbin").join(name)).expect("linking an applet");
    }
    fs::copy(crate::probe::binary(), root.join("bin/probe")).expect("copying the probe");
    let files = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        ("etc/group", "root:x:0:\nshadow:x:42:\nnogroup:x:65534:\n"),
        ("etc/shadow", "root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n"),
        ("etc/os-release", "ID=tiny\nNAME=tiny\nVERSION_ID=1\nPRETTY_NAME=\"tiny test system\"\n"),
        ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        ("etc/hostname", "tiny\n"),
        ("etc/resolv.conf", ""),
        // The last line is what a test waits for on the console.
        ("etc/inittab", "::sysinit:/etc/rc\n::respawn:/bin/sleep 100000\n"),
        ("etc/rc", "#!/bin/sh\nhostname >/run/booted-as\necho tiny is up >/dev/console\n"),
    ];
    for (path, text) in files {
        fs::write(root.join(path), text).expect("writing a file of the tiny template");
    }
    fs::set_permissions(root.join("etc/rc"), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::set_permissions(root.join("etc/shadow"), fs::Permissions::from_mode(0o640)).expect("chmod");
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod");
    let recipe =
        format!("description = 'A busybox for tests'\ninit = 'busybox'\ntree = {:?}\n", root.display().to_string());
    build_from(work, "tiny", &recipe, bin);
}
