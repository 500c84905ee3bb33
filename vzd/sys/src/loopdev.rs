//! Loop devices: a file seen as a block device. The device is made with autoclear, so the kernel gives it
//! back with the last mount or descriptor, however our processes end. Source: `loop(4)`.

use rustix::fs::{Mode, OFlags};
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// A configured loop device. It lives until this is dropped *and* its last mount is gone.
#[derive(Debug)]
pub struct LoopDevice {
    fd: OwnedFd,
    path: PathBuf,
}

impl LoopDevice {
    /// Makes the regular file `backing` (opened read-write) a block device. `direct` asks the kernel to
    /// bypass its page cache below the device, where the file's filesystem can. `name` is what `losetup`
    /// shows, cut to 63 bytes.
    ///
    /// # Errors
    /// `ENOENT`/`ENXIO`: no loop driver. `EBUSY`: all devices raced away from us many times.
    pub fn attach(backing: BorrowedFd<'_>, name: &Path, direct: bool) -> io::Result<Self> {
        let control = rustix::fs::open("/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let mut file_name = [0u8; 64];
        let bytes = name.as_os_str().as_encoded_bytes();
        let n = bytes.len().min(63);
        file_name[..n].copy_from_slice(&bytes[..n]);
        let config = LoopConfig {
            fd: backing.as_raw_fd() as u32,
            block_size: 4096,
            info: LoopInfo64 {
                device: 0,
                inode: 0,
                rdevice: 0,
                offset: 0,
                sizelimit: 0,
                number: 0,
                encrypt_type: 0,
                encrypt_key_size: 0,
                flags: LO_FLAGS_AUTOCLEAR | if direct { LO_FLAGS_DIRECT_IO } else { 0 },
                file_name,
                crypt_name: [0; 64],
                encrypt_key: [0; 32],
                init: [0; 2],
            },
            reserved: [0; 8],
        };
        // GET_FREE only names a device; another process may configure it first, and then answers EBUSY.
        let mut last = io::Error::from_raw_os_error(libc::EBUSY);
        for _ in 0..64 {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument and touches no memory of ours; the fd is open.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let fd = match rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
                Ok(fd) => fd,
                // devtmpfs makes the node before GET_FREE returns; a removed device races, though.
                Err(e @ (rustix::io::Errno::NOENT | rustix::io::Errno::NXIO | rustix::io::Errno::BUSY)) => {
                    last = e.into();
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            // SAFETY: `config` is a fully initialised loop_config of the kernel's layout that outlives the
            // call, which only reads it; both descriptors are open.
            let r = unsafe { libc::ioctl(fd.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
            if r == 0 {
                return Ok(Self { fd, path });
            }
            last = io::Error::last_os_error();
            if last.raw_os_error() != Some(libc::EBUSY) {
                return Err(last);
            }
        }
        Err(last)
    }

    /// `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for LoopDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Ends every ext4 that is mounted from a loop device of `image`, so that the image may be mounted anew or
/// removed: another mount namespace can keep a copy of our mount alive for as long as it likes (any
/// `unshare -m` makes such copies), and two filesystems at work on one image would ruin it. Answers how many
/// devices there were; they go away with the copies.
///
/// # Errors
/// A device's filesystem cannot be reached or ended.
pub fn end_filesystems_on(image: &Path) -> io::Result<usize> {
    let image = std::fs::canonicalize(image)?;
    let mut ended = 0;
    for (device, _) in in_use()?.into_iter().filter(|(_, backing)| *backing == image) {
        let source = device.to_string_lossy();
        let none = rustix::mount::MountAttrFlags::empty();
        // Mounting the device once more gives the same filesystem, whoever has the other mounts.
        let mount = crate::mount::new_mount("ext4", &[("source", Some(&*source))], none)?;
        let root =
            rustix::fs::openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        crate::mount::ext4_shutdown(root.as_fd())?;
        ended += 1;
    }
    Ok(ended)
}

/// Makes a loop device take over its backing file's new size.
///
/// # Errors
/// `ENXIO`: the device has no backing file.
pub fn update_capacity(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: LOOP_SET_CAPACITY takes no argument and touches no memory of ours; the fd is open.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Detaches a device now, or with its last user when it is still in use.
///
/// # Errors
/// `ENXIO`: it has no backing file (any more).
pub fn clear(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: LOOP_CLR_FD takes no argument and touches no memory of ours; the fd is open.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Every loop device in use with its backing file's path as sysfs shows it (` (deleted)` appended by
/// the kernel when it was unlinked).
///
/// # Errors
/// sysfs cannot be read.
pub fn in_use() -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with("loop") {
            continue;
        }
        // A free device has no loop/ directory; one that is just being freed loses it under us.
        let file = Path::new("/sys/block").join(&name).join("loop/backing_file");
        if let Ok(backing) = std::fs::read(&file) {
            let text = backing.strip_suffix(b"\n").unwrap_or(&backing);
            let path = PathBuf::from(std::ffi::OsStr::new(&*String::from_utf8_lossy(text)));
            out.push((Path::new("/dev").join(&name), path));
        }
    }
    Ok(out)
}
