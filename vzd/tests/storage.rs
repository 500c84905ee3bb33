//! Writable layers against the real kernel: loop devices, ext4 and mounts. Needs root and e2fsprogs.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs::File,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use vz_sys::{loopdev, mount};
use vz_types::{Bytes, Ctid, ExitCode, Paths, UidBase, config::Layout, plan::StoragePlan};
use vzd::storage::{self, DiskSpec, StorageError};

struct Host {
    dir: tempfile::TempDir,
    paths: Paths,
}

fn spec(space: &str, inodes: u64) -> DiskSpec {
    DiskSpec { layout: Layout::Overlay, space: space.parse().unwrap(), inodes }
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("storage-").tempdir().unwrap();
        // Reached by a symlink, as a manager's root may be; the kernel shows resolved paths.
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let paths = Paths::new(dir.path().join("link"));
        storage::prepare(&paths).unwrap();
        Self { dir, paths }
    }

    fn create(&self, ctid: u32, spec: &DiskSpec) -> StoragePlan {
        let ctid = Ctid::try_from(ctid).unwrap();
        let staging = self.paths.private_dir().join(format!(".new-{ctid}"));
        std::fs::create_dir(&staging).unwrap();
        storage::create_layer(&staging, spec, &storage::cache_dir(&self.paths)).unwrap();
        std::fs::rename(&staging, self.paths.private(ctid)).unwrap();
        self.plan(ctid)
    }

    fn plan(&self, ctid: Ctid) -> StoragePlan {
        StoragePlan {
            layout: Layout::Overlay,
            private: self.paths.private(ctid),
            template_root: self.dir.path().join("template"),
            root: self.paths.root(ctid),
            uid_base: UidBase::from_slot(1),
        }
    }

    fn loops(&self) -> usize {
        loopdev::in_use().unwrap().iter().filter(|(_, b)| b.starts_with(self.dir.path())).count()
    }

    /// The same, once a test beside this one has let go of its copy of all mounts of this host.
    fn loops_left(&self) -> usize {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while self.loops() > 0 && std::time::Instant::now() < until {
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
        self.loops()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(storage::sweep(&self.paths, &BTreeSet::new()));
    }
}

/// Mounts the layer alone, as vzmon does before the overlay.
fn mount_layer(plan: &StoragePlan) -> PathBuf {
    let (image, rw) = (plan.private.join("disk.img"), plan.private.join("rw"));
    let file = File::options().read(true).write(true).open(&image).unwrap();
    let device = loopdev::LoopDevice::attach(file.as_fd(), &image, true).unwrap();
    let source = device.path().to_str().unwrap().to_owned();
    let fs = mount::new_mount("ext4", &[("source", Some(&source))], rustix::mount::MountAttrFlags::empty()).unwrap();
    mount::attach(fs.as_fd(), &rw).unwrap();
    rw
}

fn fsck(image: &Path) {
    let out = Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(image).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn a_layer_has_the_space_and_inodes_that_were_asked_for() {
    let h = Host::new();
    for (n, (space, inodes)) in
        [("64M", 1024), ("300M", 5000), ("1G", 200_000), ("10G", 655_360)].into_iter().enumerate()
    {
        let s = spec(space, inodes);
        let plan = h.create(101 + n as u32, &s);
        fsck(&plan.private.join("disk.img"));
        let stopped = storage::usage(&plan).unwrap();
        let rw = mount_layer(&plan);
        let mounted = storage::usage(&plan).unwrap();
        assert_eq!(mounted.space_limit, s.space, "{space}");
        assert_eq!(stopped.space_limit, s.space, "{space}");
        assert!(mounted.space_used.0 < 64 << 10, "{:?}", mounted);
        let spare = mounted.inodes_limit - inodes;
        assert!(spare <= 16 * 100, "{inodes} inodes became {}", mounted.inodes_limit);
        for dir in ["upper", "work"] {
            let m = std::fs::metadata(rw.join(dir)).unwrap();
            assert_eq!((m.uid(), m.gid(), m.permissions().mode() & 0o7777), (0, 0, 0o755));
        }
        storage::umount(&plan).unwrap();
        let disk = std::fs::metadata(plan.private.join("disk.img")).unwrap().blocks() * 512;
        assert!(disk < 1 << 20, "a blank {space} layer takes {disk} bytes");
    }
    assert_eq!(h.loops_left(), 0);
}

#[test]
fn the_limits_hold() {
    let h = Host::new();
    let s = spec("64M", 1024);
    let plan = h.create(101, &s);
    let rw = mount_layer(&plan);
    let mut made = 0;
    while std::fs::write(rw.join(format!("upper/{made}")), "").is_ok() {
        made += 1;
        assert!(made < 2000);
    }
    assert!((900..=1040).contains(&made), "{made} files");
    let mut wrote = 0u64;
    let mut file = File::create(rw.join("upper/0")).unwrap();
    let error = loop {
        match std::io::Write::write_all(&mut file, &[1; 1 << 20]).and_then(|()| file.sync_data()) {
            Ok(()) => wrote += 1 << 20,
            Err(e) => break e,
        }
    };
    assert_eq!(error.raw_os_error(), Some(28));
    assert!(wrote <= s.space.0 && wrote > s.space.0 * 9 / 10, "{wrote}");
    drop(file);
    storage::umount(&plan).unwrap();
    let full = storage::usage(&plan).unwrap();
    assert!(full.space_used.0 >= wrote, "read from the superblock: {full:?}");
}

#[test]
fn every_image_has_an_identity_of_its_own() {
    let h = Host::new();
    let s = spec("64M", 1024);
    let uuid = |plan: &StoragePlan| {
        let mut raw = [0; 16];
        std::os::unix::fs::FileExt::read_exact_at(
            &File::open(plan.private.join("disk.img")).unwrap(),
            &mut raw,
            1024 + 0x68,
        )
        .unwrap();
        raw
    };
    let (one, two) = (h.create(101, &s), h.create(102, &s));
    assert_ne!(uuid(&one), uuid(&two));
    mount_layer(&one);
    mount_layer(&two);
}

#[test]
fn creating_takes_milliseconds_once_the_blank_is_cached() {
    let h = Host::new();
    let s = spec("10G", 655_360);
    h.create(101, &s);
    let mut times: Vec<Duration> = (0..10)
        .map(|n| {
            let start = Instant::now();
            h.create(200 + n, &s);
            start.elapsed()
        })
        .collect();
    times.sort();
    eprintln!("create_layer: median {:?}, worst {:?}", times[5], times[9]);
    assert!(times[5] < Duration::from_millis(100), "{times:?}");
}

#[test]
fn a_full_host_is_told_before_and_midway_and_leaves_nothing() {
    let h = Host::new();
    let small = h.dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let tmpfs = |size: &str| {
        let fs = mount::new_mount("tmpfs", &[("size", Some(size))], rustix::mount::MountAttrFlags::empty()).unwrap();
        mount::attach(fs.as_fd(), &small).unwrap();
    };
    let s = spec("300M", 5000);
    let full = |cache: &Path, name: &str| {
        let staging = small.join(name);
        std::fs::create_dir(&staging).unwrap();
        let e = storage::create_layer(&staging, &s, cache).unwrap_err();
        assert_eq!(e.exit_code(), ExitCode::NoSpace, "{e}");
        assert_eq!(std::fs::read_dir(&staging).unwrap().count(), 0);
        e.to_string()
    };
    tmpfs("1m");
    let said = full(&storage::cache_dir(&h.paths), "one");
    assert!(said.contains("needed") && said.contains("available"), "{said}");
    // The blank itself does not fit: mkfs fails midway.
    rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).unwrap();
    tmpfs("100k");
    let cache = small.join("cache");
    full(&cache, "two");
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
    rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).unwrap();
}

#[test]
fn a_layer_grows_mounted_and_stopped_and_shrinks_stopped_only() {
    let h = Host::new();
    let plan = h.create(101, &spec("256M", 5000));
    let rw = mount_layer(&plan);
    std::fs::write(rw.join("upper/data"), vec![7; 100 << 20]).unwrap();
    let limit = || storage::usage(&plan).unwrap().space_limit.0;
    let near = |got: u64, want: &str| {
        let want: Bytes = want.parse().unwrap();
        assert!(got.abs_diff(want.0) < 4 << 20, "{got} is not about {want}");
    };
    // Growing a mounted filesystem takes a capability that not even root has everywhere.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let caps = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap();
    let sys_resource = u64::from_str_radix(caps.trim(), 16).unwrap() & 1 << 24 != 0;
    let grown = storage::resize(&plan, &spec("700M", 5000));
    if sys_resource {
        grown.unwrap();
        near(limit(), "700M");
    } else {
        assert!(grown.unwrap_err().to_string().contains("CAP_SYS_RESOURCE"));
        near(limit(), "256M");
    }
    let e = storage::resize(&plan, &spec("200M", 5000)).unwrap_err();
    assert!(e.to_string().contains("mounted"), "{e}");
    let e = storage::resize(&plan, &spec("64M", 5000)).unwrap_err();
    assert!(e.to_string().contains("in use (10"), "names the use: {e}");
    assert_eq!(e.exit_code(), ExitCode::BadValue);
    storage::umount(&plan).unwrap();
    storage::resize(&plan, &spec("300M", 5000)).unwrap();
    near(limit(), "300M");
    fsck(&plan.private.join("disk.img"));
    storage::resize(&plan, &spec("2G", 5000)).unwrap();
    near(limit(), "2G");
    assert!(storage::resize(&plan, &spec("2G", 500_000)).unwrap_err().to_string().contains("fixed"));
    fsck(&plan.private.join("disk.img"));
    let rw = mount_layer(&plan);
    assert_eq!(std::fs::read(rw.join("upper/data")).unwrap(), vec![7; 100 << 20]);
}

#[test]
fn a_busy_layer_is_unmounted_and_cut_off_from_whoever_keeps_it() {
    let h = Host::new();
    let plan = h.create(101, &spec("64M", 1024));
    let rw = mount_layer(&plan);
    let mut open = File::create(rw.join("upper/open")).unwrap();
    std::io::Write::write_all(&mut open, b"before").unwrap();
    storage::umount(&plan).unwrap();
    assert!(!mount::is_mount_point(&rw).unwrap());
    let late = std::io::Write::write_all(&mut open, b"after").and_then(|()| open.sync_all());
    assert!(late.is_err(), "it can write no more");
    storage::umount(&plan).unwrap();
    // The same container again, while the old device is still kept.
    assert_eq!(h.loops(), 1);
    let rw = mount_layer(&plan);
    assert_eq!(std::fs::read_to_string(rw.join("upper/open")).unwrap(), "before");
    storage::umount(&plan).unwrap();
    drop(open);
    storage::umount(&plan).unwrap();
    assert_eq!(h.loops_left(), 0);
    fsck(&plan.private.join("disk.img"));
}

#[test]
fn a_sweep_takes_leftovers_and_spares_the_living() {
    let h = Host::new();
    let s = spec("64M", 1024);
    let (live, dead) = (h.create(101, &s), h.create(102, &s));
    let (live_rw, dead_rw) = (mount_layer(&live), mount_layer(&dead));
    let staging = h.paths.private_dir().join(".new-103");
    std::fs::create_dir_all(staging.join("rw/upper")).unwrap();
    storage::move_to_trash(&h.create(104, &s).private, &h.paths.trash_dir(), 104.try_into().unwrap()).unwrap().unwrap();
    let swept = storage::sweep(&h.paths, &BTreeSet::from([101.try_into().unwrap()]));
    let said = swept.said;
    assert_eq!(swept.trees.len(), 2, "of the create and of the destroy: {said:?}");
    for tree in swept.trees {
        storage::remove_tree(&tree).unwrap();
    }
    assert!(mount::is_mount_point(&live_rw).unwrap(), "{said:?}");
    assert!(!mount::is_mount_point(&dead_rw).unwrap(), "{said:?}");
    assert!(dead.private.join("disk.img").exists(), "its files stay");
    assert!(!staging.exists());
    assert_eq!(std::fs::read_dir(h.paths.trash_dir()).unwrap().count(), 0, "{said:?}");
    assert_eq!(h.loops(), 1);
    let again = storage::sweep(&h.paths, &BTreeSet::from([101.try_into().unwrap()]));
    assert_eq!((again.said, again.trees.len()), (Vec::new(), 0));
}

#[test]
fn a_removal_stops_at_a_mount() {
    let h = Host::new();
    let plan = h.create(101, &spec("64M", 1024));
    let rw = mount_layer(&plan);
    std::fs::write(rw.join("upper/precious"), "x").unwrap();
    let e = storage::remove_tree(&plan.private).unwrap_err();
    assert!(matches!(e, StorageError::Refused { .. }), "{e}");
    assert_eq!(std::fs::read_to_string(rw.join("upper/precious")).unwrap(), "x");
    storage::umount(&plan).unwrap();
    storage::remove_tree(&plan.private).unwrap();
    assert!(!plan.private.exists());
}
