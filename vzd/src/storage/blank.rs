//! Blank images: formatted once per (space, inodes) into the cache, then copied extent by extent with an
//! identity of their own. A copy is a matter of some ten kilobytes, whatever the size.
//!
//! The image is larger than the space asked for by what the filesystem needs itself, so that the container
//! has all of its space and `df` inside shows the figure the operator gave.

use super::{DiskSpec, StorageError, available, io_step, superblock::Superblock, sync_dir, tool};
use rustix::fs::SeekFrom;
use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use vz_types::Bytes;

/// Part of a cached image's name; to be raised whenever [`format_into`] makes something else.
const VERSION: u32 = 1;
const BLOCK: u64 = 4096;
/// What must be free besides the blank image itself before a layer is begun.
const MARGIN: u64 = 8 << 20;

/// Puts a copy of the blank image of `spec` at `image` and makes it durable.
///
/// # Errors
/// No space (checked before anything is written), no mkfs.ext4, or the step that failed.
pub fn copy(image: &Path, spec: &DiskSpec, cache: &Path) -> Result<(), StorageError> {
    let blank = cached(spec, cache)?;
    let source = io_step("open", &blank, vz_sys::records::open(&blank))?;
    let meta = io_step("look at", &blank, source.metadata())?;
    let free = io_step("look at the filesystem of", image, available(image))?;
    let needed = Bytes(std::os::unix::fs::MetadataExt::blocks(&meta) * 512 + MARGIN);
    if free < needed {
        let path = image.parent().unwrap_or(image).to_owned();
        return Err(StorageError::NoSpace { path, needed, available: free });
    }
    let target = io_step(
        "make",
        image,
        std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(image),
    )?;
    io_step("fill", image, copy_data(&source, &target, meta.len()))?;
    let identity = io_step("get random bytes for", image, random())?;
    let (uuid, seed) = identity.split_at(16);
    let patched = Superblock::read_from(&target)
        .and_then(|sb| sb.set_identity(&target, uuid_v4(uuid), seed.try_into().unwrap_or_default()));
    io_step("give an identity to", image, patched)?;
    io_step("sync", image, target.sync_all())
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom").and_then(|mut f| io::Read::read_exact(&mut f, &mut bytes))?;
    Ok(bytes)
}

fn uuid_v4(random: &[u8]) -> [u8; 16] {
    let mut uuid: [u8; 16] = random.try_into().unwrap_or_default();
    uuid[6] = uuid[6] & 0x0F | 0x40;
    uuid[8] = uuid[8] & 0x3F | 0x80;
    uuid
}

/// By reference where the filesystem can; else the data extents only, and of those only what isn't zero.
fn copy_data(source: &File, target: &File, length: u64) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(target, source).is_ok() {
        return Ok(());
    }
    target.set_len(length)?;
    let mut buf = vec![0u8; 64 << 10];
    let mut at = 0;
    while at < length {
        let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Ok(s) => s,
            Err(rustix::io::Errno::NXIO) => break,
            // A filesystem that knows no holes is all data.
            Err(rustix::io::Errno::INVAL) => at,
            Err(e) => return Err(e.into()),
        };
        let end = rustix::fs::seek(source, SeekFrom::Hole(start)).unwrap_or(length).min(length);
        at = start;
        while at < end {
            let want = (end - at).min(buf.len() as u64) as usize;
            let n = source.read_at(&mut buf[..want], at)?;
            if n == 0 {
                break;
            }
            for (i, chunk) in buf[..n].chunks(BLOCK as usize).enumerate() {
                if chunk.iter().any(|b| *b != 0) {
                    target.write_all_at(chunk, at + i as u64 * BLOCK)?;
                }
            }
            at += n as u64;
        }
        at = at.max(end);
    }
    Ok(())
}

/// The cached blank image of these sizes, made now if need be.
fn cached(spec: &DiskSpec, cache: &Path) -> Result<PathBuf, StorageError> {
    let path = cache.join(format!("ext4-v{VERSION}-{}-{}.img", spec.space.0, spec.inodes));
    // A file that lost its content (crash of a host without barriers) is made again.
    if Superblock::read(&path).is_ok() {
        return Ok(path);
    }
    io_step("make the directory", cache, std::fs::DirBuilder::new().recursive(true).mode(0o700).create(cache))?;
    let fresh = io_step("make a temporary file in", cache, tempfile_in(cache))?;
    let made = format_into(&fresh, spec).and_then(|()| {
        let file = io_step("open", &fresh, File::open(&fresh))?;
        io_step("sync", &fresh, file.sync_all())?;
        io_step("rename", &path, std::fs::rename(&fresh, &path))?;
        sync_dir(cache)
    });
    if made.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    made.map(|()| path)
}

/// A new, empty file of a name nobody else uses: two creates may miss the cache at once.
fn tempfile_in(dir: &Path) -> io::Result<PathBuf> {
    let id = random()?;
    let name: String = id[..8].iter().map(|b| format!("{b:02x}")).collect();
    let path = dir.join(format!(".{name}.tmp"));
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    Ok(path)
}

/// Formats `file` so that `space` is what is left of it for the container.
fn format_into(file: &Path, spec: &DiskSpec) -> Result<(), StorageError> {
    let wanted = spec.space.0.div_ceil(BLOCK);
    // Inode tables are most of the overhead; what else there is, the first try tells.
    let mut blocks = wanted + spec.inodes.div_ceil(16);
    for _ in 0..4 {
        mkfs(file, blocks, spec.inodes)?;
        let sb = io_step("read the superblock of", file, Superblock::read(file))?;
        let usable = sb.blocks().saturating_sub(sb.overhead());
        if usable == wanted {
            return Ok(());
        }
        blocks = (sb.blocks() + wanted).saturating_sub(usable);
    }
    Ok(())
}

fn mkfs(file: &Path, blocks: u64, inodes: u64) -> Result<(), StorageError> {
    // From scratch: holes are what tells mkfs that the inode tables are zero already.
    let reset =
        std::fs::OpenOptions::new().write(true).truncate(true).open(file).and_then(|f| f.set_len(blocks * BLOCK));
    io_step("size", file, reset)?;
    let seed_dir = SeedDir::make(file)?;
    let inodes = inodes.to_string();
    let args: [OsString; 18] = [
        "-q".into(),
        "-F".into(),
        "-b".into(),
        BLOCK.to_string().into(),
        "-m".into(),
        "0".into(),
        "-I".into(),
        "256".into(),
        "-N".into(),
        inodes.into(),
        "-O".into(),
        // Our copies change the UUID; project, quota and verity stay out of the container's reach.
        "metadata_csum,metadata_csum_seed,64bit,^orphan_file".into(),
        "-E".into(),
        extended(blocks).into(),
        "-d".into(),
        seed_dir.0.clone().into(),
        file.into(),
        blocks.to_string().into(),
    ];
    let args: Vec<&std::ffi::OsStr> = args.iter().map(|a| a.as_os_str()).collect();
    let with_orphans = tool::run("mkfs.ext4", "e2fsprogs", &args, file, &[0], Duration::from_secs(120));
    match with_orphans {
        // e2fsprogs before 1.47 knows no orphan_file to switch off.
        Err(StorageError::Program { .. }) => {
            let plain = std::ffi::OsStr::new("metadata_csum,metadata_csum_seed,64bit");
            let args: Vec<_> =
                args.iter().map(|a| if a.to_string_lossy().contains("^orphan_file") { plain } else { a }).collect();
            run_mkfs(file, &args)
        }
        r => r,
    }
}

fn run_mkfs(file: &Path, args: &[&std::ffi::OsStr]) -> Result<(), StorageError> {
    match tool::run("mkfs.ext4", "e2fsprogs", args, file, &[0], Duration::from_secs(120)) {
        Err(StorageError::Program { said, .. }) if said.contains("No space left on device") => {
            io_step("format", file, Err(io::Error::from_raw_os_error(libc::ENOSPC)))
        }
        r => r,
    }
}

/// Room to grow sixteenfold in place: mkfs would reserve descriptors for a thousandfold, four megabytes that
/// every copy would have to write. Beyond it the kernel finds another place for them (meta_bg).
fn extended(blocks: u64) -> String {
    let most = (blocks.saturating_mul(16)).min(u64::from(u32::MAX));
    let resize = if most > blocks { format!(",resize={most}") } else { String::new() };
    format!("root_owner=0:0,lazy_journal_init=1{resize}")
}

/// What every blank image is born with: `upper/` and `work/`, so that no start has to make them.
struct SeedDir(PathBuf);

impl SeedDir {
    fn make(beside: &Path) -> Result<Self, StorageError> {
        let dir = beside.with_extension("seed");
        for name in ["upper", "work"] {
            let path = dir.join(name);
            io_step("make the directory", &path, std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&path))?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            io_step("set the mode of", &path, std::fs::set_permissions(&path, mode))?;
        }
        Ok(Self(dir))
    }
}

impl Drop for SeedDir {
    fn drop(&mut self) {
        for path in [self.0.join("upper"), self.0.join("work"), self.0.clone()] {
            let _ = rustix::fs::unlinkat(rustix::fs::CWD, &path, rustix::fs::AtFlags::REMOVEDIR);
        }
    }
}

/// Blocks an image needs so that `space` is left of it.
pub(super) fn blocks_for(sb: &Superblock, space: Bytes) -> u64 {
    let wanted = space.0.div_ceil(sb.block_size());
    let mut blocks = wanted;
    // Each round adds the overhead of the groups the last one added; it settles at once or after one more.
    for _ in 0..8 {
        blocks = wanted + sb.overhead_at(blocks);
    }
    blocks
}
