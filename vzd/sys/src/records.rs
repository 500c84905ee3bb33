//! Reading files that vz or an operator keeps: never waiting for a FIFO, never without end for a device, never more than
//! a bound. What lies there in place of a regular file is an error that says so; it is not read, and not taken as
//! absent.

use rustix::fs::{Mode, OFlags};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// Largest record, note or configuration that is read.
pub const MAX: u64 = 1 << 20;
/// Largest list of a template's files: some hundred bytes for each of a few hundred thousand.
pub const MAX_LIST: u64 = 256 << 20;

/// Opens a regular file of ours for reading, following no link in the last place of its path.
///
/// # Errors
/// It cannot be opened, is a link, or is no regular file (`InvalidInput`).
pub fn open(path: &Path) -> io::Result<File> {
    regular(path, OFlags::NOFOLLOW)
}

/// The bytes of a record of ours, at most [`MAX`].
///
/// # Errors
/// As [`open`]; it cannot be read; it is larger (`FileTooLarge`).
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    bounded(&open(path)?, MAX)
}

/// The text of a record of ours.
///
/// # Errors
/// As [`read`]; it is not UTF-8 (`InvalidData`).
pub fn text(path: &Path) -> io::Result<String> {
    utf8(read(path)?)
}

/// The text of a file of ours that is as long as something else is large.
///
/// # Errors
/// As [`text`]; it is larger than `most` bytes.
pub fn long_text(path: &Path, most: u64) -> io::Result<String> {
    utf8(bounded(&open(path)?, most)?)
}

/// The text of a file an operator keeps, which may be a link to where it really is.
///
/// # Errors
/// As [`text`], but for links.
pub fn operators_text(path: &Path) -> io::Result<String> {
    utf8(operators_bytes(path)?)
}

/// The bytes of a file an operator keeps, which may be a link to where it really is.
///
/// # Errors
/// As [`read`], but for links.
pub fn operators_bytes(path: &Path) -> io::Result<Vec<u8>> {
    bounded(&regular(path, OFlags::empty())?, MAX)
}

/// The last bytes of a log of ours, at most so many; what is no UTF-8 is replaced.
///
/// # Errors
/// As [`open`]; it cannot be read.
pub fn tail(path: &Path, most: u64) -> io::Result<String> {
    let mut file = open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn regular(path: &Path, links: OFlags) -> io::Result<File> {
    // Opening a FIFO waits for a writer, unless told not to.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | links;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::LOOP) => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link"));
        }
        // A socket, or a device without a driver.
        Err(rustix::io::Errno::NXIO) => return Err(no_file()),
        Err(e) => return Err(e.into()),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(no_file()) }
}

fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")
}

fn bounded(file: &File, most: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let too_large = || {
        let unit = if most >= MAX { format!("{} MiB", most >> 20) } else { format!("{most} bytes") };
        io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {unit}"))
    };
    if length > most {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    // It may grow meanwhile.
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large()) } else { Ok(bytes) }
}

fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn what_is_no_regular_file_or_huge_is_an_error_at_once_and_never_absent() {
        let dir = tempfile::tempdir().unwrap();
        let at = |n: &str| dir.path().join(n);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        fs::create_dir(at("dir")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        File::create(at("huge")).unwrap().set_len(4 << 30).unwrap();
        for name in ["fifo", "zero", "dangling", "dir", "socket", "huge"] {
            let e = read(&at(name)).unwrap_err();
            assert_ne!(e.kind(), io::ErrorKind::NotFound, "{name}");
        }
        for name in ["fifo", "zero", "dir", "socket", "huge"] {
            assert_ne!(operators_text(&at(name)).unwrap_err().kind(), io::ErrorKind::NotFound, "{name}");
            if name != "huge" {
                assert!(tail(&at(name), 10).is_err(), "{name}");
            }
        }
        assert_eq!(tail(&at("huge"), 3).unwrap(), "\0\0\0");
        assert_eq!(read(&at("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_read_whole_and_an_operators_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("f"), dir.path().join("l"));
        fs::write(&file, "one\ntwo\n").unwrap();
        symlink(&file, &link).unwrap();
        assert_eq!(text(&file).unwrap(), "one\ntwo\n");
        assert_eq!(tail(&file, 4).unwrap(), "two\n");
        assert!(text(&link).is_err());
        assert_eq!(operators_text(&link).unwrap(), "one\ntwo\n");
        fs::write(&file, [0xff]).unwrap();
        assert_eq!(text(&file).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
