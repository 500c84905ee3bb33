//! The lock that everything changing a template holds: `.staging/<NAME>.lock`. It is gone when nobody holds it, and the
//! staging directory with it, so that nothing is left of an operation that is over.

use super::TemplateError;
use rustix::fs::FlockOperation;
use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};
use vz_types::TemplateName;

/// Held until dropped. A process that inherits its descriptor holds it too, for as long as it lives.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of a template, without waiting.
    pub fn take(staging: &Path, name: &TemplateName) -> Result<Self, TemplateError> {
        let path = staging.join(format!("{name}.lock"));
        loop {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(staging)
                .map_err(|e| TemplateError::io("making", staging, e))?;
            let file = match File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)
            {
                // Whoever held the last lock has just taken the directory away.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|e| TemplateError::io("opening", &path, e))?,
            };
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(TemplateError::Busy { name: name.clone() }),
                Err(e) => return Err(TemplateError::io("locking", &path, e.into())),
            }
            // Its last holder may have removed it between the two: then it is a lock of nothing.
            let named = fs::metadata(&path).map(|m| (m.dev(), m.ino()));
            let ours = file.metadata().map(|m| (m.dev(), m.ino()));
            if let (Ok(named), Ok(ours)) = (named, ours) {
                if named == ours {
                    return Ok(Self { file, path });
                }
            }
        }
    }

    /// Another descriptor of the same lock, for a process to hold.
    pub fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        if let Some(staging) = self.path.parent() {
            // Not empty: somebody else is at work.
            let _ = fs::remove_dir(staging);
        }
    }
}
