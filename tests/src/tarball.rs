//! Root filesystems in archives for tests: small ones made up here, and whole Debians made by debootstrap and mmdebstrap
//! as somebody would who has never heard of vz. The latter are kept in the templates' cache, keyed by how they are made.

use crate::{command, template::cache_dir};
use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// How long making one may take.
const MAKING: Duration = Duration::from_secs(1200);

/// An archive of a whole Debian 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tarball {
    /// `debootstrap`, its usual variant with an ssh server, packed with `tar -cJf`.
    Debootstrap,
    /// `mmdebstrap` with systemd and an ssh server, its own `.tar.zst`.
    Mmdebstrap,
    /// `mmdebstrap` with sysvinit and an ssh server, its own `.tar.zst`.
    Sysvinit,
    /// `mmdebstrap --variant=minbase`, which has no init, its own `.tar.gz`.
    WithoutInit,
}

impl Tarball {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Debootstrap, Self::Mmdebstrap, Self::Sysvinit, Self::WithoutInit];

    /// Its file's name.
    pub fn file(self) -> &'static str {
        match self {
            Self::Debootstrap => "debootstrapped.tar.xz",
            Self::Mmdebstrap => "mmdebstrapped.tar.zst",
            Self::Sysvinit => "sysvinit.tar.zst",
            Self::WithoutInit => "minbase.tar.gz",
        }
    }

    /// How it is made: a line for a shell, in an empty directory, with the archive's mirror in `$MIRROR`.
    fn line(self) -> &'static str {
        match self {
            Self::Debootstrap => {
                "debootstrap --include=openssh-server bookworm root \"$MIRROR\" && \
                 XZ_OPT='-1 -T2' tar -C root -cJf out ."
            }
            Self::Mmdebstrap => {
                "mmdebstrap --variant=apt --include=systemd-sysv,dbus,libpam-systemd,openssh-server,iproute2,iputils-ping \
                 bookworm out.tar.zst \"$MIRROR\" && mv out.tar.zst out"
            }
            Self::Sysvinit => {
                "mmdebstrap --variant=apt --include=sysvinit-core,sysv-rc,orphan-sysvinit-scripts,procps,mount,\
                 openssh-server,iproute2,netbase,iputils-ping bookworm out.tar.zst \"$MIRROR\" && mv out.tar.zst out"
            }
            Self::WithoutInit => "mmdebstrap --variant=minbase bookworm out.tar.gz \"$MIRROR\" && mv out.tar.gz out",
        }
    }

    /// The archive's path, made first when it is not there.
    ///
    /// # Panics
    /// If it cannot be made, with all that was said.
    #[track_caller]
    pub fn cached(self) -> PathBuf {
        let mut hash = DefaultHasher::new();
        self.line().hash(&mut hash);
        let cache = cache_dir();
        fs::create_dir_all(&cache).unwrap_or_else(|e| panic!("cannot make {}: {e}", cache.display()));
        let dir = cache.join(format!("tarball-{:016x}", hash.finish()));
        let lock = fs::File::create(cache.join(format!("{}.lock", self.file()))).expect("making the cache's lock");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locking the cache");
        let ready = dir.join(self.file());
        if !ready.exists() {
            let work = cache.join(format!("{}.work", self.file()));
            wipe(&work);
            fs::create_dir_all(&work).expect("making the work directory");
            fs::create_dir_all(&dir).expect("making the cache's directory");
            // debootstrap mounts things in the tree it makes: killed, it takes them along.
            let mut c = Command::new("unshare");
            c.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", self.line()])
                .current_dir(&work)
                .env("MIRROR", mirror("bookworm"))
                .env("LC_ALL", "C.UTF-8");
            command::run(&mut c, None, MAKING).unwrap_or_else(|e| panic!("{e}")).ok();
            fs::rename(work.join("out"), &ready).expect("keeping the archive");
            wipe(&work);
        }
        ready
    }
}

fn wipe(dir: &Path) {
    if dir.exists() {
        let mut rm = Command::new("rm");
        rm.args(["-rf", "--one-file-system"]).arg(dir);
        command::run(&mut rm, None, Duration::from_secs(120)).unwrap_or_else(|e| panic!("{e}")).ok();
    }
}

/// Where this host's apt gets that suite from.
///
/// # Panics
/// If it does not say.
#[track_caller]
pub fn mirror(suite: &str) -> String {
    let mut c = Command::new("apt-get");
    c.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Identifier: Packages"]);
    let said = command::run(&mut c, None, Duration::from_secs(60)).unwrap_or_else(|e| panic!("{e}")).ok();
    let words = said.stdout.lines().map(|l| l.split(' ').collect::<Vec<_>>());
    let found = words.filter(|w| w.len() == 3 && w[1] == suite && w[2] == "main").map(|w| w[0].to_owned()).next();
    found.unwrap_or_else(|| panic!("this host's apt has no mirror of {suite}:\n{said}"))
}
