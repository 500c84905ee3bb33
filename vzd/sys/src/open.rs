//! Opening by a path that must not lead out of a directory.

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
};
use std::os::fd::{AsFd, OwnedFd};

/// How often it is tried. The kernel gives up on a `..` in a path, or in a link on the way, when anything on the host was
/// mounted or moved to another directory meanwhile (openat2(2), `EAGAIN`), which is a matter of microseconds.
const TRIES: u32 = 1000;

/// As openat2(2), tried again when it could not be made sure that the path stays inside.
///
/// # Errors
/// As openat2(2).
pub fn inside(dir: impl AsFd, path: &str, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let mut left = TRIES;
    loop {
        match openat2(&dir, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) if left > 0 => left -= 1,
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_path_with_dots_opens_while_others_move_directories() {
        let t = tempfile::tempdir().unwrap();
        for dir in ["root/a/b", "one/moved", "two"] {
            std::fs::create_dir_all(t.path().join(dir)).unwrap();
        }
        let root = std::fs::File::open(t.path().join("root")).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                let (one, two) = (t.path().join("one/moved"), t.path().join("two/moved"));
                while !done.load(Ordering::Relaxed) {
                    std::fs::rename(&one, &two).unwrap();
                    std::fs::rename(&two, &one).unwrap();
                }
            });
            let path = ["a/b/../.."; 40].join("/");
            let tried: Result<Vec<_>, _> = (0..3000)
                .map(|_| inside(&root, &path, OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::IN_ROOT).map(drop))
                .collect();
            done.store(true, Ordering::Relaxed);
            tried.unwrap();
        });
    }
}
