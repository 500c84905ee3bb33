//! System packages, by Debian name. Nothing is installed that is there already, and no service of what is
//! installed gets started.

use crate::show;
use anyhow::{Context, Result, bail};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};
use vz_tests::command;

/// A package and the file by which it is known to be there.
pub struct Package {
    /// Debian's name.
    pub name: &'static str,
    /// A file it brings, in any of the usual places.
    file: &'static str,
    /// What for.
    what_for: &'static str,
}

const fn package(name: &'static str, file: &'static str, what_for: &'static str) -> Package {
    Package { name, file, what_for }
}

/// What building, running, demonstrating and testing vz needs.
pub const ALL: &[Package] = &[
    package("gcc", "bin/gcc", "builds the bundled SQLite and the test probes"),
    package("libc6-dev", "include/stdio.h", "builds the bundled SQLite and the test probes"),
    package("mmdebstrap", "bin/mmdebstrap", "builds OS templates"),
    package(
        "debian-archive-keyring",
        "share/keyrings/debian-archive-keyring.gpg",
        "checks what OS templates are built from",
    ),
    package("nftables", "sbin/nft", "filters and masquerades CTs' traffic"),
    package("iproute2", "sbin/ip", "shows links and routes"),
    package("e2fsprogs", "sbin/mkfs.ext4", "makes the CTs' writable layers"),
    package("util-linux", "bin/nsenter", "puts a manager on a test host's network"),
    package("openssh-client", "bin/ssh", "logs in"),
    package("sshpass", "bin/sshpass", "logs in by password"),
    package("busybox-static", "bin/busybox", "the tests' tiny system"),
];

/// What `cargo xtask deb` needs.
pub const PACKAGING: &[Package] = &[
    package("dpkg-dev", "bin/dpkg-shlibdeps", "reckons which libraries the programs need"),
    package("binutils", "bin/objdump", "reads the programs for it"),
    package("gzip", "bin/gzip", "compresses man pages"),
];

/// The peers `cargo xtask bench` measures.
pub const PEERS: &[Package] = &[
    package("lxc", "bin/lxc-start", "peer"),
    package("systemd-container", "bin/systemd-nspawn", "peer"),
    package("uidmap", "bin/newuidmap", "peer"),
];

impl Package {
    fn present(&self) -> bool {
        // Some distributions keep /bin and /sbin apart from /usr.
        ["/usr", "/"].iter().any(|top| Path::new(top).join(self.file).exists())
    }
}

/// Installs those that are missing.
///
/// # Errors
/// Something is missing and this is no Debian, we are not root, or apt-get fails.
pub fn install(packages: &[Package]) -> Result<()> {
    let missing: Vec<&Package> = packages.iter().filter(|p| !p.present()).collect();
    if missing.is_empty() {
        show::say(format!("ok   all {} system packages are there", packages.len()));
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|p| p.name).collect();
    for p in &missing {
        show::say(format!("     missing: {:<24} {}", p.name, p.what_for));
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("this is no Debian: install what these packages hold by other means: {}", names.join(" "));
    }
    if !nix::unistd::Uid::effective().is_root() {
        bail!("not root: run `apt-get install {}` as root, then try again", names.join(" "));
    }
    let policy = Policy::hold()?;
    let known = command::run(Command::new("apt-cache").arg("policy").args(&names), None, Duration::from_secs(60))?;
    let all_known =
        known.stdout.matches("Candidate:").count() == names.len() && !known.stdout.contains("Candidate: (none)");
    if !all_known {
        show::long("apt-get update", &mut apt(&["update"]), Duration::from_secs(300))?;
    }
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(&names);
    let title = format!("apt-get install {}", names.join(" "));
    if show::long(&title, &mut apt(&words), Duration::from_secs(900)).is_err() {
        // The list of packages may be older than the mirror.
        show::long("apt-get update", &mut apt(&["update"]), Duration::from_secs(300))?;
        show::long(&title, &mut apt(&words), Duration::from_secs(900))?;
    }
    drop(policy);
    match missing.iter().find(|p| !p.present()) {
        Some(p) => bail!("package {} is installed, yet {} is not there", p.name, p.file),
        None => Ok(()),
    }
}

fn apt(words: &[&str]) -> Command {
    let mut c = Command::new("apt-get");
    c.args([
        "-q",
        "-o",
        "Dpkg::Options::=--force-confdef",
        "-o",
        "Dpkg::Options::=--force-confold",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]);
    c.args(words).env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
    c
}

/// Debian's way of saying "start nothing" while packages are installed; an existing policy is left alone.
struct Policy(bool);

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl Policy {
    fn hold() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self(false));
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(Self(true))
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.0 {
            let _ = fs::remove_file(POLICY);
        }
    }
}
