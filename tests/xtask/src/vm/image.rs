//! What the machine boots from, kept in the cache under names made of what they are made from, so that a change of
//! an input makes another and nothing else does.
//!
//! ```text
//! <cache>/vm/base-<hash>/   root.ext4, vmlinuz, initrd, key     from tests/vm/ and the host's mirror
//! <cache>/vm/data-<hash>.ext4                                   the OS templates, with the project quota feature
//! <cache>/vm/run-<hash>/    one machine per checkout: overlays over these, blank disks, logs
//! ```

use crate::{archive::Archive, show};
use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};
use vz_tests::{
    command,
    template::{self, Template},
};

/// Debian's release in the machine.
const RELEASE: &str = "trixie";
/// How long the packages may take to be fetched and installed.
const BUILD: Duration = Duration::from_secs(1200);
/// How long any other step may take.
const STEP: Duration = Duration::from_secs(300);
/// Images nobody used for this long are deleted.
const KEEP: Duration = Duration::from_secs(14 * 24 * 3600);
/// Sizes the guest sees; the files are sparse.
const ROOT_SIZE: &str = "16G";
const DATA_SIZE: &str = "24G";

/// The cache of this machinery.
pub fn cache() -> PathBuf {
    template::cache_dir().join("vm")
}

/// Where this checkout's machine lives.
pub fn run_dir() -> PathBuf {
    cache().join(format!("run-{}", short(&template::checkout())))
}

/// A name for a value, short because sockets' paths are (unix(7): 108 bytes).
fn short(value: &impl Hash) -> String {
    let mut hash = DefaultHasher::new();
    value.hash(&mut hash);
    format!("{:08x}", hash.finish() as u32)
}

/// Kernel, initial root, root disk and key.
#[derive(Clone, Debug)]
pub struct Base(PathBuf);

impl Base {
    /// A file of it: `root.ext4`, `vmlinuz`, `initrd`, `key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Builds it unless it is there.
    ///
    /// # Errors
    /// The mirror cannot be reached, or a step fails; with what was said.
    pub fn made() -> Result<Self> {
        let archive = Archive::of_host()?;
        let inputs = template::checkout().join("tests/vm");
        let mut hash = DefaultHasher::new();
        (RELEASE, ROOT_SIZE, include_str!("image.rs"), &archive).hash(&mut hash);
        for file in files_below(&inputs)? {
            file.strip_prefix(&inputs)?.hash(&mut hash);
            fs::read(&file).with_context(|| file.display().to_string())?.hash(&mut hash);
        }
        let ready = cache().join(format!("base-{:016x}", hash.finish()));
        once(&ready, |work| build(work, &inputs, &archive))?;
        Ok(Self(ready))
    }
}

/// The disk for `/var/lib/vz` with the OS templates on it.
///
/// # Errors
/// A step fails; with what was said.
pub fn data(bin: &Path) -> Result<PathBuf> {
    let mut all = Vec::new();
    for t in [Template::Tiny, Template::Debian12, Template::Debian13, Template::Sysvinit] {
        let made = std::panic::catch_unwind(|| t.cached_with(bin));
        let made = made.map_err(|_| anyhow::anyhow!("template {} cannot be made", t.name()))?;
        let current = fs::read_link(made.join("current")).with_context(|| made.display().to_string())?;
        all.push((t.name(), made, current));
    }
    let mut hash = DefaultHasher::new();
    (DATA_SIZE, include_str!("image.rs"), &all).hash(&mut hash);
    let ready = cache().join(format!("data-{:016x}.ext4", hash.finish()));
    once(&ready, |work| {
        let tree = work.with_extension("tree");
        wipe(&tree)?;
        fs::create_dir_all(tree.join("template"))?;
        for (name, from, _) in &all {
            run(Command::new("cp").arg("-a").arg(from).arg(tree.join("template").join(name)), STEP)?;
        }
        for secret in ["private", "root"] {
            let dir = tree.join(secret);
            fs::create_dir(&dir)?;
            fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        }
        let mut c = Command::new("mkfs.ext4");
        c.args(["-q", "-O", "quota,project", "-L", "vz", "-d"]).arg(&tree).arg(work).arg(DATA_SIZE);
        show::long("virtual test host: data disk with the OS templates", &mut c, STEP)?;
        wipe(&tree)
    })?;
    Ok(ready)
}

/// Makes `ready` by doing `make` on a path beside it, one at a time; marks it used either way.
fn once(ready: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let dir = cache();
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let lock = fs::File::create(dir.join("lock")).context("making the cache's lock")?;
    // Whoever holds it is at a build whose steps have deadlines.
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).context("waiting for the cache")?;
    if !ready.exists() {
        let work = ready.with_file_name(format!("{}.work", ready.file_name().unwrap_or_default().to_string_lossy()));
        wipe(&work)?;
        make(&work)?;
        fs::rename(&work, ready).with_context(|| format!("cannot make {}", ready.display()))?;
        forget_old(&dir);
    }
    fs::File::open(ready).and_then(|f| f.set_modified(SystemTime::now())).context("marking it used")
}

/// Deletes images that nobody asked for lately.
fn forget_old(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let old = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if (name.starts_with("base-") || name.starts_with("data-")) && old.is_some_and(|age| age > KEEP) {
            let _ = wipe(&entry.path());
        }
    }
}

fn build(work: &Path, inputs: &Path, archive: &Archive) -> Result<()> {
    let root = work.join("root");
    fs::create_dir_all(work).with_context(|| format!("cannot make {}", work.display()))?;
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "vz-test-host", "-f"]).arg(work.join("key"));
    run(&mut keygen, STEP)?;
    let list = inputs.join("packages");
    let list = fs::read_to_string(&list).with_context(|| list.display().to_string())?;
    let packages: Vec<&str> = list.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    let mut c = Command::new("mmdebstrap");
    c.args(["--mode=root", "--variant=minbase", "--format=directory"]);
    c.arg(format!("--include={}", packages.join(",")));
    // Owners and modes are not the checkout's.
    let shown = |p: &Path| format!("'{}'", p.display());
    c.arg(format!("--customize-hook=umask 022; cp -rT {} \"$1\"", shown(&inputs.join("root"))));
    c.arg(format!(
        "--customize-hook=install -D -m 600 {} \"$1/root/.ssh/authorized_keys\" && chmod 700 \"$1/root/.ssh\"",
        shown(&work.join("key.pub"))
    ));
    c.arg(format!(
        "--customize-hook=install -m 755 {} \"$1/customize\" && chroot \"$1\" /customize && rm \"$1/customize\"",
        shown(&inputs.join("customize.sh"))
    ));
    c.arg(RELEASE).arg(&root).args(archive.sources(RELEASE));
    show::long("virtual test host: Debian 13 by mmdebstrap", &mut c, BUILD)?;
    for (from, to) in [("vmlinuz-", "vmlinuz"), ("initrd.img-", "initrd")] {
        let boot = root.join("boot");
        let found = fs::read_dir(&boot)?.flatten().find(|e| e.file_name().to_string_lossy().starts_with(from));
        let Some(found) = found else { bail!("no {from}* in {}", boot.display()) };
        fs::copy(found.path(), work.join(to)).with_context(|| found.path().display().to_string())?;
    }
    let mut c = Command::new("mkfs.ext4");
    c.args(["-q", "-L", "root", "-d"]).arg(&root).arg(work.join("root.ext4")).arg(ROOT_SIZE);
    show::long("virtual test host: root disk", &mut c, STEP)?;
    wipe(&root)
}

/// Blank disks of a new machine, and overlays over the images, in `dir`.
///
/// # Errors
/// A step fails; with what was said.
pub fn disks(dir: &Path, base: &Base, data: &Path) -> Result<Vec<Disk>> {
    let mut all = Vec::new();
    for (name, backing) in [("root", base.file("root.ext4")), ("vz", data.to_owned())] {
        let file = dir.join(format!("{name}.qcow2"));
        wipe(&file)?;
        let mut c = Command::new("qemu-img");
        c.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(&backing).arg(&file);
        run(&mut c, STEP)?;
        all.push(Disk { file, format: "qcow2" });
    }
    for (name, size, make) in BLANK {
        let file = dir.join(format!("{name}.raw"));
        wipe(&file)?;
        let made = fs::File::create(&file).with_context(|| file.display().to_string())?;
        made.set_len(size << 30).with_context(|| file.display().to_string())?;
        let (program, words) = make.split_first().context("a row of BLANK")?;
        run(Command::new(program).args(words).arg(&file), STEP)?;
        all.push(Disk { file, format: "raw" });
    }
    Ok(all)
}

/// Blank disks: label, GiB, and how they are formatted.
const BLANK: &[(&str, u64, &[&str])] = &[
    ("xfs", 12, &["mkfs.xfs", "-q", "-L", "xfs"]),
    ("btrfs", 12, &["mkfs.btrfs", "-q", "-L", "btrfs"]),
    ("swap", 2, &["mkswap", "-L", "swap"]),
];

/// One disk of a machine.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Its file.
    pub file: PathBuf,
    /// `raw` or `qcow2`.
    pub format: &'static str,
}

fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut dirs, mut files) = (vec![dir.to_owned()], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() { dirs.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    Ok(files)
}

fn wipe(path: &Path) -> Result<()> {
    if path.exists() {
        run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(path), STEP)?;
    }
    Ok(())
}

fn run(c: &mut Command, limit: Duration) -> Result<()> {
    let out = command::run(c, None, limit)?;
    if out.code() == 0 { Ok(()) } else { bail!("{out}") }
}
