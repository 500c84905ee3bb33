//! The files of one cgroup at one moment: each is read at most once, whoever asks for it, from the second on below one
//! open directory, and not at all where the host has no such controller.

use rustix::fs::{CWD, Mode, OFlags, openat};
use std::{
    cell::{OnceCell, RefCell},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
};

/// What was read; `None`: there is no such file.
type Text = Option<Rc<str>>;

/// One cgroup's files.
#[derive(Debug)]
pub struct Files<'a> {
    path: PathBuf,
    dir: OnceCell<Option<OwnedFd>>,
    controllers: Option<&'a [String]>,
    texts: RefCell<Vec<(&'static str, Text)>>,
}

impl<'a> Files<'a> {
    /// Of this cgroup; one that is gone has no files.
    pub fn open(cgroup: &Path) -> Self {
        Self { path: cgroup.into(), dir: OnceCell::new(), controllers: None, texts: RefCell::default() }
    }

    /// The same on a tree that has these controllers and no others.
    pub fn with(cgroup: &Path, controllers: &'a [String]) -> Self {
        Self { controllers: Some(controllers), ..Self::open(cgroup) }
    }

    /// Whether there can be such a file: those of a controller begin with its name, but pressure needs none.
    fn may_be(&self, file: &str) -> bool {
        let of = ["memory.", "pids."].iter().find(|c| file.starts_with(**c) && !file.ends_with(".pressure"));
        match (of, self.controllers) {
            (Some(of), Some(controllers)) => controllers.iter().any(|c| of.strip_suffix('.') == Some(c)),
            _ => true,
        }
    }

    /// Which cgroup.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file's text.
    pub fn text(&self, file: &'static str) -> Text {
        if let Some((_, text)) = self.texts.borrow().iter().find(|(name, _)| *name == file) {
            return text.clone();
        }
        if !self.may_be(file) {
            return None;
        }
        let text = self.read(file).map(Rc::from);
        self.texts.borrow_mut().push((file, text.clone()));
        text
    }

    fn read(&self, file: &str) -> Option<String> {
        let open = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = if self.texts.borrow().is_empty() {
            openat(CWD, self.path.join(file), open, Mode::empty()).ok()?
        } else {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = self.dir.get_or_init(|| openat(CWD, &self.path, flags, Mode::empty()).ok());
            openat(dir.as_ref()?, file, open, Mode::empty()).ok()?
        };
        let (mut out, mut buffer) = (Vec::new(), [0u8; 4096]);
        loop {
            match rustix::io::read(&fd, &mut buffer) {
                Ok(n) => {
                    out.extend_from_slice(&buffer[..n]);
                    // Less than there was room for is the end of a text the kernel makes whole; lists come in pieces.
                    if n == 0 || n < buffer.len() && !file.ends_with("threads") {
                        return String::from_utf8(out).ok();
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }

    /// The number in a file; `max` is none.
    pub fn number(&self, file: &'static str) -> Option<u64> {
        self.text(file)?.trim().parse().ok()
    }

    /// The number behind a key of a file.
    pub fn keyed(&self, file: &'static str, key: &str) -> Option<u64> {
        super::read::keyed(&self.text(file)?, key)
    }

    /// Microseconds of processor time of everything that has ever run in the cgroup and below. As long as it stays,
    /// nothing in there can have done anything.
    pub fn usage(&self) -> Option<u64> {
        self.keyed("cpu.stat", "usage_usec")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_controller_is_not_looked_for_where_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["memory.current", "memory.pressure", "pids.current"] {
            std::fs::write(dir.path().join(file), "7").unwrap();
        }
        let all = |controllers: &[String]| {
            let files = Files::with(dir.path(), controllers);
            ["memory.current", "memory.pressure", "pids.current"].map(|f| files.number(f).is_some())
        };
        assert_eq!(all(&[]), [false, true, false]);
        assert_eq!(all(&["memory".into()]), [true, true, false]);
        assert_eq!(all(&["memory".into(), "pids".into()]), [true, true, true]);
    }

    #[test]
    fn a_file_is_read_once_and_one_that_is_not_there_has_no_text() {
        let dir = tempfile::tempdir().unwrap();
        let put = |text: &str| std::fs::write(dir.path().join("cpu.stat"), text).unwrap();
        put("usage_usec 17\nuser_usec 9\n");
        let files = Files::open(dir.path());
        assert_eq!((files.usage(), files.number("pids.current")), (Some(17), None));
        put("usage_usec 18\n");
        assert_eq!((files.usage(), Files::open(dir.path()).usage()), (Some(17), Some(18)));
        put(&format!("{:>9000}", 5));
        assert_eq!(Files::open(dir.path()).number("cpu.stat"), Some(5), "longer than one read");
        assert_eq!(Files::open(&dir.path().join("gone")).usage(), None);
    }
}
