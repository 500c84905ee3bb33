//! The primary superblock of an ext4 image: what we read of it, and the identity we patch into a copy.
//! Source of the layout: the kernel's Documentation/filesystems/ext4/super.rst.

use super::DiskUsage;
use std::{fs::File, io, os::unix::fs::FileExt, path::Path};
use vz_types::Bytes;

const OFFSET: u64 = 1024;
const SIZE: usize = 1024;
const MAGIC: u16 = 0xEF53;
const UUID: usize = 0x68;
const HASH_SEED: usize = 0xEC;
const CHECKSUM: usize = 0x3FC;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;

/// A superblock as it is on disk.
#[derive(Clone, Debug)]
pub struct Superblock([u8; SIZE]);

impl Superblock {
    /// Reads and checks the superblock of an image.
    ///
    /// # Errors
    /// No such file, too short, or no ext4.
    pub fn read(image: &Path) -> io::Result<Self> {
        Self::read_from(&vz_sys::records::open(image)?)
    }

    /// As [`Superblock::read`], from an open file.
    ///
    /// # Errors
    /// Too short, or no ext4.
    pub fn read_from(image: &File) -> io::Result<Self> {
        let mut raw = [0; SIZE];
        image.read_exact_at(&mut raw, OFFSET)?;
        let sb = Self(raw);
        if sb.u16(0x38) != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the image holds no ext4 filesystem"));
        }
        Ok(sb)
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn split64(&self, low: usize, high: usize) -> u64 {
        u64::from(self.u32(low)) | u64::from(self.u32(high)) << 32
    }

    /// Bytes of a block.
    pub fn block_size(&self) -> u64 {
        1024u64 << self.u32(0x18).min(6)
    }

    /// Blocks of the filesystem.
    pub fn blocks(&self) -> u64 {
        self.split64(0x4, 0x150)
    }

    /// Free blocks, exact once the filesystem was unmounted.
    pub fn free_blocks(&self) -> u64 {
        self.split64(0xC, 0x158)
    }

    /// Blocks the filesystem needs for itself at `blocks` blocks, counted as the kernel counts them at mount
    /// time (ext4_calculate_overhead); the field for it in the superblock is not kept by resize2fs.
    pub fn overhead_at(&self, blocks: u64) -> u64 {
        let groups = |blocks: u64| blocks.div_ceil(self.blocks_per_group());
        let descriptors =
            |blocks: u64| (groups(blocks) * u64::from(self.u16(0xFE).max(32))).div_ceil(self.block_size());
        let reserved = (u64::from(self.u16(0xCE)) + descriptors(self.blocks())).saturating_sub(descriptors(blocks));
        let copies = (0..groups(blocks)).filter(|g| holds_superblock(*g)).count() as u64;
        let journal = self.journal().0.div_ceil(self.block_size());
        copies * (1 + descriptors(blocks) + reserved) + groups(blocks) * (self.inode_table_blocks() + 2) + journal
    }

    /// Size of the journal's inode, out of its backup: s_jnl_blocks[15] and [16].
    pub fn journal(&self) -> Bytes {
        Bytes(self.split64(0x10C + 16 * 4, 0x10C + 15 * 4))
    }

    /// Blocks the filesystem needs for itself.
    pub fn overhead(&self) -> u64 {
        self.overhead_at(self.blocks())
    }

    /// Inodes.
    pub fn inodes(&self) -> u64 {
        u64::from(self.u32(0x0))
    }

    /// Free inodes.
    pub fn free_inodes(&self) -> u64 {
        u64::from(self.u32(0x10))
    }

    /// Blocks of a group.
    pub fn blocks_per_group(&self) -> u64 {
        u64::from(self.u32(0x20)).max(1)
    }

    /// Blocks of each group's inode table.
    pub fn inode_table_blocks(&self) -> u64 {
        (u64::from(self.u32(0x28)) * u64::from(self.u16(0x58))).div_ceil(self.block_size())
    }

    /// Whether it was not left in order: an error is noted (`s_state`, `s_error_count`), or the journal is to be replayed
    /// (`INCOMPAT_RECOVER`), which may hold an error that the superblock does not.
    pub fn needs_check(&self) -> bool {
        self.u16(0x3A) & 2 != 0 || self.u32(0x194) != 0 || self.u32(0x60) & 4 != 0
    }

    /// Use and limits as `df` shows them.
    pub fn usage(&self) -> DiskUsage {
        let usable = self.blocks().saturating_sub(self.overhead());
        DiskUsage {
            space_used: Bytes(usable.saturating_sub(self.free_blocks()) * self.block_size()),
            space_limit: Bytes(usable * self.block_size()),
            space_left: Bytes(self.free_blocks().min(usable) * self.block_size()),
            inodes_used: self.inodes().saturating_sub(self.free_inodes()),
            inodes_limit: self.inodes(),
        }
    }

    /// Gives a freshly formatted image a UUID and a directory hash seed of its own. The checksum seed stays,
    /// which is what the `metadata_csum_seed` feature is for: no other metadata depends on the UUID then.
    ///
    /// # Errors
    /// The image lacks that feature, or cannot be written.
    pub fn set_identity(mut self, image: &File, uuid: [u8; 16], hash_seed: [u8; 16]) -> io::Result<()> {
        let checksums = self.u32(0x64) & RO_COMPAT_METADATA_CSUM != 0;
        if checksums && self.u32(0x60) & INCOMPAT_CSUM_SEED == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the image was formatted without metadata_csum_seed",
            ));
        }
        self.0[UUID..UUID + 16].copy_from_slice(&uuid);
        self.0[HASH_SEED..HASH_SEED + 16].copy_from_slice(&hash_seed);
        if checksums {
            let sum = crc32c(&self.0[..CHECKSUM]);
            self.0[CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
        }
        image.write_all_at(&self.0, OFFSET)
    }
}

/// Copies of superblock and descriptors are in group 0, 1 and powers of 3, 5 and 7 (sparse_super).
fn holds_superblock(group: u64) -> bool {
    let power_of = |base: u64| {
        let mut p = base;
        while p < group {
            p *= base;
        }
        p == group
    };
    group <= 1 || power_of(3) || power_of(5) || power_of(7)
}

/// CRC-32C (Castagnoli) without the final inversion, as ext4 stores it. A kilobyte per container: no table.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0u32, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |c, _| if c & 1 == 1 { (c >> 1) ^ 0x82F6_3B78 } else { c >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_matches_the_published_check_value() {
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }
}
