//! The record of what vz wrote last into a container's own files ([`vz_types::written`]), in its private area. It is put
//! on disk once those files are there: a kill or a power cut before that leaves a setting to be written once more, never
//! one that counts as written and is not. The disk may take its time, so that is a child's work, one at a time.

use crate::{
    edit::{Done, Due, Last, Outcome},
    launch, record,
};
use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};
use vz_sys::process::{self, Cloned, SingleThreaded};
use vz_types::{
    plan::FileEdit,
    written::{Entry, FILE, Written},
};

/// The record of one container.
pub struct Record {
    private: PathBuf,
    held: Result<Written, String>,
    /// What is held is not on disk, nor on its way there.
    dirty: bool,
    /// The child on whose way it is.
    writer: Option<OwnedFd>,
}

impl Record {
    /// Reads it; there is none before the first boot.
    pub fn open(private: &Path) -> Self {
        let held = match vz_sys::records::read(&private.join(FILE)) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| e.to_string()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Written::default()),
            Err(e) => Err(e.to_string()),
        };
        Self { private: private.to_owned(), held, dirty: false, writer: None }
    }

    /// Why it cannot be read, and what that means.
    pub fn trouble(&self) -> Option<String> {
        let why = self.held.as_ref().err()?;
        Some(format!(
            "{} cannot be read ({why}), so host name and name servers inside were left as they are; remove it, and the \
             next start writes them",
            self.private.join(FILE).display()
        ))
    }

    /// Edits as they are due before a boot.
    pub fn due(&self, edits: &[FileEdit]) -> Vec<Due> {
        let last = |edit: &FileEdit| match &self.held {
            Ok(held) => Last::Was(held.clone().slot(edit).and_then(|slot| slot.take())),
            Err(_) => Last::Unreadable,
        };
        edits.iter().map(|edit| Due { edit: edit.clone(), last: last(edit) }).collect()
    }

    /// What the edits before a boot came to. A setting that is none any more is forgotten.
    pub fn booted(&mut self, due: &[Due], done: &[Done]) {
        let Ok(old) = &self.held else { return };
        let (mut old, mut new) = (old.clone(), Written::default());
        for (i, Due { edit, .. }) in due.iter().enumerate() {
            if let Some(slot) = new.slot(edit) {
                let was = old.slot(edit).and_then(|slot| slot.take());
                *slot = if done.get(i) == Some(&Done::Written) { Entry::of(edit) } else { was };
            }
        }
        self.hold(new);
    }

    /// What edits of a running container came to.
    pub fn edited(&mut self, due: &[Due], outcome: &Outcome) {
        let Ok(mut new) = self.held.clone() else { return };
        for (Due { edit, .. }, done) in due.iter().zip(&outcome.done) {
            if let (Some(slot), Done::Written) = (new.slot(edit), done) {
                *slot = Entry::of(edit);
            }
        }
        self.hold(new);
    }

    fn hold(&mut self, new: Written) {
        if self.held.as_ref() != Ok(&new) {
            self.held = Ok(new);
            self.dirty = true;
        }
    }

    /// Begins to put on disk what is not there yet, unless that is under way.
    pub fn begin(&mut self, one: SingleThreaded) {
        let (true, None, Ok(held)) = (self.dirty, &self.writer, &self.held) else { return };
        let monitor = process::pidfd_open(std::process::id() as i32);
        let cloned =
            monitor.and_then(|monitor| process::clone3(one, CloneFlags::empty(), None).map(|cloned| (cloned, monitor)));
        match cloned {
            Ok((Cloned::Child, monitor)) => {
                let done = launch::tie_to(&monitor).and_then(|()| write(&self.private, held));
                if let Err(e) = &done {
                    eprintln!("{} cannot be written: {e}", self.private.join(FILE).display());
                }
                process::exit_now(i32::from(done.is_err()))
            }
            Ok((Cloned::Parent(_, pidfd), _)) => (self.writer, self.dirty) = (Some(pidfd), false),
            // What is held counts; the next start writes the files once more.
            Err(e) => {
                eprintln!("{} cannot be written: {e}", self.private.join(FILE).display());
                self.dirty = false;
            }
        }
    }

    /// The child under way.
    pub fn writer(&self) -> Option<&OwnedFd> {
        self.writer.as_ref()
    }

    /// It has ended.
    pub fn written(&mut self) {
        self.writer.take().iter().for_each(launch::reap);
    }

    /// Puts on disk what is not there, waiting for no longer than a child is waited for: the files are about to be
    /// unmounted.
    pub fn finish(&mut self, one: SingleThreaded) {
        self.written();
        self.begin(one);
        self.written();
    }
}

fn write(private: &Path, held: &Written) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let dir = rustix::fs::open(private, flags, Mode::empty())?;
    rustix::fs::syncfs(rustix::fs::openat(&dir, "rw", flags, Mode::empty())?)?;
    record::write_json(dir.as_fd(), FILE, held, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(name: &str) -> Vec<FileEdit> {
        vec![
            FileEdit::Hostname { hostname: name.parse().unwrap() },
            FileEdit::Password { user: "root".parse().unwrap(), hash: "x".into() },
        ]
    }

    #[test]
    fn what_was_written_is_remembered_by_setting_and_what_failed_is_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("rw")).unwrap();
        let mut record = Record::open(dir.path());
        let due = record.due(&edits("a"));
        assert!(matches!(due[0].last, Last::Was(None)), "{due:?}");
        record.booted(&due, &[Done::Failed]);
        assert!(!record.dirty);
        record.booted(&due, &[Done::Written]);
        assert!(record.dirty);
        write(dir.path(), record.held.as_ref().unwrap()).unwrap();
        let mut record = Record::open(dir.path());
        let due = record.due(&edits("b"));
        assert!(matches!(&due[0].last, Last::Was(Some(e)) if e.setting == "a"), "{due:?}");
        record.booted(&due, &[Done::Kept]);
        assert!(!record.dirty, "what the tenant keeps says nothing new");
        record.edited(&due, &Outcome { done: vec![Done::Written, Done::Written], failed: Vec::new() });
        assert_eq!(record.held.as_ref().unwrap().hostname, Entry::of(&due[0].edit));
        record.booted(&[], &[]);
        assert_eq!(record.held, Ok(Written::default()), "a setting that is none any more is forgotten");
    }

    #[test]
    fn a_record_that_cannot_be_read_is_told_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        std::fs::write(&file, "{").unwrap();
        let mut record = Record::open(dir.path());
        assert!(record.trouble().unwrap().contains(&file.display().to_string()));
        let due = record.due(&edits("a"));
        assert!(matches!(due[0].last, Last::Unreadable));
        record.booted(&due, &[Done::Written]);
        record.edited(&due, &Outcome { done: vec![Done::Written], failed: Vec::new() });
        assert!(!record.dirty && record.trouble().is_some());
    }
}
