//! Changing the size of a writable layer: up at any time, down when the container is stopped and its files
//! fit. Under project quota both ways at any time.

use super::{DiskSpec, StorageError, blank, io_step, quota, superblock::Superblock, tool};
use std::{ffi::OsStr, fs::File, os::fd::AsFd, path::Path, time::Duration};
use vz_sys::{loopdev, mount};
use vz_types::{Bytes, plan::StoragePlan};

const DEADLINE: Duration = Duration::from_secs(1800);

/// Makes the layer hold `spec.space` and `spec.inodes`. An image's inodes are laid out when it is made:
/// another number of them is refused, and growing the space brings some more along.
///
/// # Errors
/// [`StorageError::BadSize`] with the figures when it would not fit, or cannot be done while mounted.
pub fn resize(plan: &StoragePlan, spec: &DiskSpec) -> Result<(), StorageError> {
    let image = plan.private.join("disk.img");
    let rw = plan.private.join("rw");
    if !image.exists() {
        return quota::resize(&rw, spec);
    }
    let mounted = io_step("look at", &rw, mount::is_mount_point(&rw))?;
    let sb = io_step("read the superblock of", &image, Superblock::read(&image))?;
    let used = super::usage(plan).unwrap_or_else(|| sb.usage());
    refuse_below_use(spec, used.space_used, used.inodes_used)?;
    refuse_other_inodes(&sb, spec)?;
    let blocks = blank::blocks_for(&sb, spec.space);
    match (blocks.cmp(&sb.blocks()), mounted) {
        (std::cmp::Ordering::Equal, _) => Ok(()),
        (std::cmp::Ordering::Less, true) => Err(StorageError::BadSize(format!(
            "diskspace {} is less than now ({}): a mounted layer cannot shrink; stop the container and set it again",
            spec.space, used.space_limit
        ))),
        (std::cmp::Ordering::Greater, true) => grow_mounted(&image, &rw, blocks, &sb),
        (_, false) => resize_stopped(&image, blocks, &sb),
    }
}

/// A limit below what is in use would not be a limit.
///
/// # Errors
/// [`StorageError::BadSize`] naming the use.
pub(super) fn refuse_below_use(spec: &DiskSpec, space: Bytes, inodes: u64) -> Result<(), StorageError> {
    if spec.space < space {
        let used = Bytes(space.0.next_multiple_of(1 << 10));
        return Err(StorageError::BadSize(format!(
            "diskspace {} is below what is in use ({used}); delete files inside first",
            spec.space
        )));
    }
    if spec.inodes < inodes {
        return Err(StorageError::BadSize(format!(
            "diskinodes {} is below what is in use ({inodes}); delete files inside first",
            spec.inodes
        )));
    }
    Ok(())
}

/// The number asked for at creation was rounded up to whole inode table blocks (16) in each group.
fn refuse_other_inodes(sb: &Superblock, spec: &DiskSpec) -> Result<(), StorageError> {
    let groups = sb.blocks().div_ceil(sb.blocks_per_group());
    if spec.inodes <= sb.inodes() && spec.inodes + 16 * groups > sb.inodes() {
        return Ok(());
    }
    // After growing there are more than were asked for: the same wish again must not be refused.
    if spec.inodes < sb.inodes() && spec.inodes >= sb.inodes() / 64 {
        return Ok(());
    }
    Err(StorageError::BadSize(format!(
        "diskinodes {} differs from the image's {}: inodes of an image are fixed when the container is created",
        spec.inodes,
        sb.inodes()
    )))
}

fn grow_mounted(image: &Path, rw: &Path, blocks: u64, sb: &Superblock) -> Result<(), StorageError> {
    let file = io_step("open", image, File::options().write(true).open(image))?;
    io_step("enlarge", image, file.set_len(blocks * sb.block_size()))?;
    let device = loop_of(image, rw)?;
    io_step("enlarge the loop device of", image, loopdev::update_capacity(device.as_fd()))?;
    let dir = io_step("open", rw, File::open(rw))?;
    let grown = mount::ext4_resize(dir.as_fd(), blocks);
    if grown.is_err() {
        // The filesystem is as it was, so the image must be, too: cutting what it never used loses nothing.
        let _ = file.set_len(sb.blocks() * sb.block_size());
        let _ = loopdev::update_capacity(device.as_fd());
    }
    match grown {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => Err(StorageError::BadSize(
            "a mounted layer grows only where vzd has CAP_SYS_RESOURCE; stop the container and set it again".into(),
        )),
        r => io_step("enlarge the filesystem at", rw, r),
    }?;
    io_step("sync", image, file.sync_all())
}

/// The device the layer is mounted from: not any device of the image, one may be left of an earlier run.
fn loop_of(image: &Path, rw: &Path) -> Result<File, StorageError> {
    let Some(name) = super::unmount::device_of(rw) else {
        return Err(StorageError::Busy {
            path: image.to_owned(),
            by: " by a mount whose loop device cannot be found".into(),
        });
    };
    let device = Path::new("/dev").join(name);
    io_step("open", &device, File::options().read(true).write(true).open(&device))
}

/// Puts an image right whose resizing was cut short, by a power cut or a full disk: what resize2fs had begun is then neither
/// ended nor undone, and its own advice is this check with every question answered with yes. Nothing may have it mounted.
///
/// # Errors
/// It cannot be put right.
pub fn mend(plan: &StoragePlan) -> Result<(), StorageError> {
    let image = plan.private.join("disk.img");
    if !image.exists() || io_step("look at", &plan.private, mount::is_mount_point(&plan.private.join("rw")))? {
        return Ok(());
    }
    let check = |how: &str, good: &[i32]| {
        tool::run("e2fsck", "e2fsprogs", &["-f".as_ref(), how.as_ref(), image.as_os_str()], &image, good, DEADLINE)
    };
    if let Err(e) = check("-p", &[0, 1]) {
        tracing::warn!(image = %image.display(), "its resizing was cut short, it is put right: {e}");
        check("-y", &[0, 1])?;
    }
    io_step("sync", &image, File::open(&image).and_then(|f| f.sync_all()))
}

fn resize_stopped(image: &Path, blocks: u64, sb: &Superblock) -> Result<(), StorageError> {
    let bytes = blocks * sb.block_size();
    let growing = blocks > sb.blocks();
    // resize2fs insists on a check since the last mount; 1 means it corrected something and all is well.
    tool::run(
        "e2fsck",
        "e2fsprogs",
        &[OsStr::new("-f"), OsStr::new("-p"), image.as_os_str()],
        image,
        &[0, 1],
        DEADLINE,
    )?;
    let file = io_step("open", image, File::options().write(true).open(image))?;
    if growing {
        io_step("enlarge", image, file.set_len(bytes))?;
    }
    let count = blocks.to_string();
    tool::run("resize2fs", "e2fsprogs", &[image.as_os_str(), OsStr::new(&count)], image, &[0], DEADLINE)?;
    if !growing {
        io_step("cut", image, file.set_len(bytes))?;
    }
    io_step("sync", image, file.sync_all())
}
