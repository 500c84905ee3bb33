//! The monitor program as it is executed: from sealed memory, where that can be had.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// vzmon in sealed memory, for as long as the file is the one it was copied from.
#[derive(Clone, Debug)]
pub(super) struct Image {
    of: (u64, u64, i64, i64),
    memory: Arc<OwnedFd>,
}

impl Image {
    /// The image of this file, made when there is none yet; `None`: execute the file itself.
    pub(super) fn of(program: &Path) -> Option<Self> {
        static LAST: Mutex<Option<Image>> = Mutex::new(None);
        let mut file = File::open(program).ok()?;
        let meta = file.metadata().ok()?;
        let of = (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec());
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = last.as_ref().filter(|i| i.of == of) {
            return Some(image.clone());
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Kernels before 6.3 do not know the flag and do not need it (memfd_create(2)).
        let memory = memfd_create("vzmon", flags | MemfdFlags::EXEC).or_else(|_| memfd_create("vzmon", flags)).ok()?;
        let mut memory = File::from(memory);
        io::copy(&mut file, &mut memory).ok()?;
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        fcntl_add_seals(&memory, seals).ok()?;
        *last = Some(Self { of, memory: Arc::new(memory.into()) });
        last.clone()
    }

    /// For the child, which has the descriptor until it executes.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.memory.as_raw_fd()).into()
    }
}
