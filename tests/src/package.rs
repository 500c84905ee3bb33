//! The Debian package under test: made by `cargo xtask deb` from the release programs, unpacked or installed into a
//! throwaway root.

use crate::{
    command::{self, Output},
    template::{Template, checkout},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// How long packing may take, with cargo busy elsewhere.
const PACK: Duration = Duration::from_secs(300);
/// How long dpkg may take in a throwaway root.
const LIMIT: Duration = Duration::from_secs(120);

/// Makes the package of the programs built before, not compressed, with this version or the checkout's own.
///
/// # Panics
/// If it cannot be made.
#[track_caller]
pub fn make(dir: &Path, version: Option<&str>) -> PathBuf {
    let mut c = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    c.args(["run", "--quiet", "--locked", "-p", "xtask", "--", "deb", "--no-build", "--uncompressed", "--output"])
        .arg(dir);
    if let Some(version) = version {
        c.args(["--version", version]);
    }
    // What the test runner tells this package about itself is not meant for that one.
    for (name, _) in std::env::vars_os() {
        let n = name.to_string_lossy().into_owned();
        if n.starts_with("CARGO_PKG_") || n == "CARGO_MANIFEST_DIR" || n == "CARGO_MANIFEST_PATH" {
            c.env_remove(&name);
        }
    }
    let said = command::run(c.current_dir(checkout()), None, PACK).expect("running cargo").ok();
    let file = said.stdout.lines().map(str::trim).find(|l| l.starts_with('/') && l.ends_with(".deb"));
    file.unwrap_or_else(|| panic!("it says no file name:\n{said}")).into()
}

/// A root of Debian 12 that is thrown away: the cached OS template below, what is written above. No service manager
/// runs in it.
pub struct Root {
    dir: tempfile::TempDir,
}

impl Root {
    /// A fresh one.
    ///
    /// # Panics
    /// If it cannot be mounted.
    #[track_caller]
    pub fn debian12() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let below = Template::Debian12.cached().join("current/root");
        let root = Self { dir };
        let top = root.dir.path().display().to_string();
        let line = format!(
            "mkdir {top}/up {top}/work {top}/root && \
             mount -t overlay overlay -o lowerdir={},upperdir={top}/up,workdir={top}/work {top}/root && \
             mount -t proc -o nosuid,nodev,noexec proc {top}/root/proc && \
             mkdir -p {top}/root/dev && (test -c {top}/root/dev/null || mknod -m 666 {top}/root/dev/null c 1 3)",
            below.display()
        );
        command::run(Command::new("sh").args(["-c", &line]), None, LIMIT).expect("sh").ok();
        root
    }

    /// A path in it.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join("root").join(inside.trim_start_matches('/'))
    }

    /// Runs a shell line in it, without the network.
    ///
    /// # Panics
    /// If it hangs.
    #[track_caller]
    pub fn sh(&self, line: &str) -> Output {
        let mut c = Command::new("unshare");
        c.args(["--net", "--", "chroot"]).arg(self.path("")).args(["sh", "-c", line]).env_clear();
        c.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        match command::run(&mut c, None, LIMIT) {
            Ok(out) => out,
            Err(e) => panic!("{e}"),
        }
    }

    /// Installs a package with dpkg alone: what it depends on is not in this root.
    #[track_caller]
    pub fn install(&self, package: &Path) -> Output {
        fs::copy(package, self.path("/tmp/vz.deb")).expect("copying the package");
        self.sh("dpkg --force-depends --force-confold -i /tmp/vz.deb 2>&1")
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for point in ["root/proc", "root"] {
            let _ = nix::mount::umount2(&self.dir.path().join(point), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}
