//! Where a bench run happens: namespaces of its own, a directory, and the two root filesystems all managers share.

use super::peers::Kind;
use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use vz_tests::{census, command, template::Template, template::checkout, wait};
use vz_types::Paths;

/// Milliseconds of the monotonic clock, which containers and host share.
pub fn now() -> f64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as f64 * 1e3 + t.tv_nsec as f64 / 1e6
}

/// The place of one run.
pub struct World {
    /// All files of the run.
    pub dir: PathBuf,
    /// The programs of vz.
    pub bin: PathBuf,
    /// The root filesystems there are.
    pub kinds: &'static [Kind],
}

/// Builds the Debian template while the machine's own network can still be reached.
pub fn prepare_templates(bin: &Path) -> Result<()> {
    crate::show::step("Debian 12 root filesystem", || {
        let made = std::panic::catch_unwind(|| Template::Debian12.cached_with(bin));
        made.map(|_| ()).map_err(|_| anyhow::anyhow!("the template cannot be made"))
    })
}

fn sh(line: &str) -> Result<()> {
    let out = command::run(Command::new("sh").args(["-ec", line]), None, Duration::from_secs(120))?;
    if out.code() == 0 { Ok(()) } else { bail!("{out}") }
}

impl World {
    /// Makes it; we are in namespaces of our own already.
    pub fn make(bin: &Path, kinds: &'static [Kind]) -> Result<Self> {
        let dir = PathBuf::from(format!("/var/tmp/vz-bench-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let world = Self { dir, bin: bin.to_owned(), kinds };
        // A bridge for the peers' links, /sys of this network namespace, a /run and subordinate ids nobody else sees.
        let d = world.dir.display();
        sh(&format!(
            "ip link set lo up; ip link add pb0 type bridge; ip addr add 10.210.0.1/16 dev pb0; ip link set pb0 up; \
             mkdir -p {d}/cg; mount --rbind /sys/fs/cgroup {d}/cg; mount -t sysfs sysfs /sys; \
             mount --rbind {d}/cg /sys/fs/cgroup; umount -l {d}/cg; mount -t tmpfs tmpfs /run"
        ))?;
        let tiny = world.tree(Kind::Tiny);
        for sub in ["bin", "sbin", "etc", "proc", "sys", "dev", "run", "tmp", "var/log", "usr/bin", "usr/lib", "root"] {
            fs::create_dir_all(tiny.join(sub))?;
        }
        fs::copy("/bin/busybox", tiny.join("bin/busybox")).context("busybox-static")?;
        for applet in ["sh", "true", "bash", "poweroff"] {
            std::os::unix::fs::symlink("busybox", tiny.join("bin").join(applet))?;
        }
        fs::write(tiny.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
        fs::write(tiny.join("etc/group"), "root:x:0:\n")?;
        fs::write(tiny.join("etc/os-release"), "ID=tiny\nVERSION_ID=1\n")?;
        fs::write(tiny.join("usr/lib/os-release"), "ID=tiny\nVERSION_ID=1\n")?;
        world.init(&tiny)?;
        if kinds.contains(&Kind::Prompt) {
            // The name is what tells vz how to ask.
            let prompt = world.tree(Kind::Prompt);
            let (tiny, prompt) = (tiny.display(), prompt.display());
            sh(&format!("cp -a {tiny} {prompt}; cd {prompt}/sbin; mv init openrc-init; ln -s openrc-init init"))?;
        }
        if !kinds.contains(&Kind::Debian) {
            return Ok(world);
        }
        let debian = world.tree(Kind::Debian);
        let from = Template::Debian12.cached_with(bin).join("current/root");
        sh(&format!("cp -a {} {}", from.display(), debian.display()))?;
        let target = fs::read_link(debian.join("usr/sbin/init")).context("init of the Debian tree")?;
        fs::remove_file(debian.join("usr/sbin/init"))?;
        std::os::unix::fs::symlink(target, debian.join("usr/sbin/init.real"))?;
        world.init(&debian)?;
        Ok(world)
    }

    /// A way to the outside, as hosts have it, for what is done to answer for containers there.
    pub fn give_uplink(&self) -> Result<()> {
        sh(
            "ip link add up0 type veth peer name up1; ip link set up1 up; ip addr add 192.0.2.1/24 dev up0; ip link set up0 up; ip route add default via 192.0.2.2",
        )
    }

    /// The root filesystem of a kind.
    pub fn tree(&self, kind: Kind) -> PathBuf {
        self.dir.join(format!("tree-{}", kind.word()))
    }

    /// Puts the PID 1 that notes the clock into a tree.
    fn init(&self, tree: &Path) -> Result<()> {
        let source = checkout().join("tests/probes/init.c");
        let mut gcc = Command::new("gcc");
        gcc.args(["-static", "-O2", "-o"]).arg(tree.join("sbin/init")).arg(&source);
        let out = command::run(&mut gcc, None, Duration::from_secs(60))?;
        if out.code() == 0 { Ok(()) } else { bail!("{out}") }
    }

    /// Removes everything of the run.
    pub fn remove(self) -> Result<()> {
        let paths = Paths::new(self.dir.join("vz"));
        for point in census::mounts(&paths).iter().rev().filter_map(|m| m.strip_prefix("mount ")) {
            nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH)?;
        }
        let Some(cgroups) = census::cgroup2_mount() else { return Ok(()) };
        let mut names = vec![paths.cgroup_name()];
        names.extend(["lxc.pivot", "payload", "supervisor"].map(String::from));
        names.extend((1..=99).map(|n| format!("vz-bench-{n}")));
        let hierarchies: Vec<PathBuf> = match cgroups.parent().filter(|p| *p == Path::new("/sys/fs/cgroup")) {
            Some(top) => fs::read_dir(top)?.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect(),
            None => vec![cgroups],
        };
        for top in hierarchies.iter().flat_map(|h| names.iter().map(move |n| h.join(n))).filter(|d| d.exists()) {
            let (mut todo, mut all) = (vec![top], Vec::new());
            while let Some(dir) = todo.pop() {
                todo.extend(fs::read_dir(&dir)?.flatten().map(|e| e.path()).filter(|p| p.is_dir()));
                all.push(dir);
            }
            // Found from the top, removed from the bottom.
            for dir in all.iter().rev() {
                let gone = || fs::remove_dir(dir).ok();
                wait::retry(Duration::from_secs(2), Duration::from_millis(10), gone)
                    .with_context(|| format!("cannot remove {}", dir.display()))?;
            }
        }
        sh(&format!("rm -rf --one-file-system {}", self.dir.display()))
    }
}
