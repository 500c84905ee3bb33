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
    package("debootstrap", "sbin/debootstrap", "makes a root filesystem to import"),
    package("xz-utils", "bin/xz", "packs it"),
];

/// What `cargo xtask deb` needs.
pub const PACKAGING: &[Package] = &[
    package("dpkg-dev", "bin/dpkg-shlibdeps", "reckons which libraries the programs need"),
    package("binutils", "bin/objdump", "reads the programs for it"),
    package("gzip", "bin/gzip", "compresses man pages"),
];

/// What `cargo xtask vm` needs besides QEMU, whose version it looks after itself.
pub const VM: &[Package] = &[
    package("mmdebstrap", "bin/mmdebstrap", "builds the virtual test host"),
    package(
        "debian-archive-keyring",
        "share/keyrings/debian-archive-keyring.gpg",
        "checks what the virtual test host is built from",
    ),
    package("qemu-utils", "bin/qemu-img", "makes its disks"),
    package("e2fsprogs", "sbin/mkfs.ext4", "makes its disks"),
    package("xfsprogs", "sbin/mkfs.xfs", "makes its disks"),
    package("btrfs-progs", "sbin/mkfs.btrfs", "makes its disks"),
    package("openssh-client", "bin/ssh", "logs in to it"),
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
        show::settled(format!("ok   all {} system packages are there", packages.len()));
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|p| p.name).collect();
    for p in &missing {
        show::say(format!("     missing: {:<24} {}", p.name, p.what_for));
    }
    may_install(&names)?;
    let policy = Policy::hold()?;
    let known = command::run(Command::new("apt-cache").arg("policy").args(&names), None, Duration::from_secs(60))?;
    let all_known =
        known.stdout.matches("Candidate:").count() == names.len() && !known.stdout.contains("Candidate: (none)");
    if !all_known {
        update()?;
    }
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(&names);
    let title = format!("apt-get install {}", names.join(" "));
    if show::long(&title, &mut apt(&words), Duration::from_secs(900)).is_err() {
        // The list of packages may be older than the mirror.
        update()?;
        show::long(&title, &mut apt(&words), Duration::from_secs(900))?;
    }
    drop(policy);
    match missing.iter().find(|p| !p.present()) {
        Some(p) => bail!("package {} is installed, yet {} is not there", p.name, p.file),
        None => Ok(()),
    }
}

fn may_install(names: &[&str]) -> Result<()> {
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("this is no Debian: install what these packages hold by other means: {}", names.join(" "));
    }
    if !nix::unistd::Uid::effective().is_root() {
        bail!("not root: run `apt-get install {}` as root, then try again", names.join(" "));
    }
    Ok(())
}

/// Fetches the lists of packages anew.
///
/// # Errors
/// apt-get fails.
pub fn update() -> Result<()> {
    show::long("apt-get update", &mut apt(&["update"]), Duration::from_secs(300))
}

/// Installs or upgrades packages: from the host's own sources, or from a further suite of its mirror, which is named
/// in a configuration of our own: the host's sources and lists stay as they are.
///
/// # Errors
/// This is no Debian, we are not root, or apt-get fails.
pub fn install_from(names: &[&str], further_suite: Option<&str>) -> Result<()> {
    may_install(names)?;
    let _policy = Policy::hold()?;
    let Some(suite) = further_suite else {
        update()?;
        let mut words = vec!["install", "-y", "--no-install-recommends"];
        words.extend(names);
        return show::long(&format!("apt-get install {}", names.join(" ")), &mut apt(&words), Duration::from_secs(900));
    };
    let archive = crate::archive::Archive::of_host()?;
    let release = suite.split('-').next().unwrap_or(suite);
    let own = vz_tests::template::cache_dir().join(format!("apt-{suite}"));
    for dir in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(own.join(dir)).with_context(|| format!("cannot make {}", own.join(dir).display()))?;
    }
    let mut lines = archive.sources(release);
    lines.push(format!("deb [signed-by={}] {} {suite} main", crate::archive::KEYRING, archive.main));
    let list = own.join("sources.list");
    fs::write(&list, lines.join("\n") + "\n").with_context(|| format!("cannot write {}", list.display()))?;
    let with_own = |words: &[&str]| {
        let mut c = apt(&[]);
        for (key, value) in [
            ("Dir::Etc::SourceList", list.clone()),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
            ("Dir::State::Lists", own.join("lists")),
            ("Dir::Cache", own.join("cache")),
        ] {
            c.arg("-o").arg(format!("{key}={}", value.display()));
        }
        c.args(words);
        c
    };
    show::long(&format!("apt-get update ({suite})"), &mut with_own(&["update"]), Duration::from_secs(300))?;
    let mut words = vec!["install", "-y", "--no-install-recommends", "-t", suite];
    words.extend(names);
    let title = format!("apt-get install {} from {suite}", names.join(" "));
    show::long(&title, &mut with_own(&words), Duration::from_secs(900))?;
    // Hundreds of megabytes that nobody will ask for again.
    show::long("apt-get clean", &mut with_own(&["clean"]), Duration::from_secs(60))
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
