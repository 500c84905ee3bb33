//! The disks a container's files are on: its own image's loop device, and the disk below the private area. `io.max`
//! takes whole disks by number (cgroup-v2.rst, "IO Interface Files").

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// A block device by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disk {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl std::fmt::Display for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// The disk that a file is on, partitions resolved to the disk they are part of.
///
/// # Errors
/// The filesystem is on no block device of its own (tmpfs, overlay, btrfs over several), or cannot be looked at.
pub fn under(path: &Path) -> Result<Disk, String> {
    let dev = fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?.dev();
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    let device = if major == 0 { source_of(path) } else { None }.unwrap_or(Disk { major, minor });
    let sys = format!("/sys/dev/block/{device}");
    if !Path::new(&sys).exists() {
        return Err(format!("{} is on a filesystem without a block device of its own", path.display()));
    }
    if Path::new(&format!("{sys}/partition")).exists() {
        let text = fs::canonicalize(&sys)
            .ok()
            .and_then(|p| fs::read_to_string(p.parent()?.join("dev")).ok())
            .and_then(|t| parse(t.trim()));
        return text.ok_or_else(|| format!("the disk of partition {device} cannot be found"));
    }
    Ok(device)
}

/// btrfs shows an anonymous device number; its mount's source is a device node.
fn source_of(path: &Path) -> Option<Disk> {
    let path = fs::canonicalize(path).ok()?;
    let mounts = vz_sys::proc::mountinfo().ok()?.into_iter().filter(|m| path.starts_with(&m.mount_point));
    let nearest = mounts.max_by_key(|m| m.mount_point.as_os_str().len())?;
    let rdev = fs::metadata(nearest.source).ok()?.rdev();
    (rdev != 0).then(|| Disk { major: rustix::fs::major(rdev), minor: rustix::fs::minor(rdev) })
}

fn parse(text: &str) -> Option<Disk> {
    let (major, minor) = text.split_once(':')?;
    Some(Disk { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// The disks of a container: below its private area, and its own image's where it is mounted. Both are limited: what
/// goes through the image is held at the image, what is read from the template at the disk.
///
/// # Errors
/// As [`under`], of the private area's disk.
pub fn of(private: &Path) -> Result<Vec<Disk>, String> {
    let mut all = vec![under(private)?];
    if let Ok(own) = under(&private.join("rw")) {
        if !all.contains(&own) {
            all.push(own);
        }
    }
    Ok(all)
}

/// Why io.weight does nothing on this disk; `None`: it works (iocost is on for the disk, or bfq schedules it).
pub fn weightless(mount: &Path, disk: Disk) -> Option<String> {
    let scheduler = fs::read_to_string(format!("/sys/dev/block/{disk}/queue/scheduler")).unwrap_or_default();
    let bfq = scheduler.contains("[bfq]");
    let cost = fs::read_to_string(mount.join("io.cost.qos")).unwrap_or_default();
    let on = cost.lines().any(|l| l.starts_with(&format!("{disk} ")) && l.contains("enable=1"));
    (!bfq && !on).then(|| format!("neither the bfq scheduler nor the cost model is on for disk {disk}"))
}

/// What to do about [`weightless`].
pub const WEIGHT_REMEDY: &str = "echo bfq > /sys/block/DISK/queue/scheduler, or switch iocost on: echo 'MAJ:MIN enable=1' > /sys/fs/cgroup/io.cost.qos";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tmpfs_has_no_disk_and_says_so() {
        if let Err(e) = under(Path::new("/dev/shm")) {
            assert!(e.contains("/dev/shm"), "{e}");
        }
        assert!(under(Path::new("/proc")).is_err());
        assert!(under(Path::new("/nonexistent")).is_err());
    }
}
