//! Who is on the other end of a Unix socket, as the kernel recorded it at `connect(2)`.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// Supplementary groups of the peer at the time it connected (`SO_PEERGROUPS`, socket(7), Linux 4.13).
///
/// # Errors
/// What `getsockopt(2)` says; `ENODATA` when the socket has no peer credentials.
pub fn groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let fd = socket.as_fd().as_raw_fd();
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let room = std::mem::size_of_val(groups.as_slice());
        let mut len = room as libc::socklen_t;
        // SAFETY: `groups` is a live, writable buffer of `len` bytes, `len` is a live socklen_t, and the
        // kernel writes at most `len` bytes and then sets `len`; gid_t has no invalid bit patterns.
        let rc = unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), &mut len)
        };
        let count = len as usize / size_of::<libc::gid_t>();
        if rc == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // ERANGE says how much room it needs; the kernel's own limit is 65536 groups.
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() || count > 65_536 {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_pair_of_ours_has_our_groups() {
        let (a, _b) = UnixStream::pair().unwrap();
        let mut got = super::groups(&a).unwrap();
        let mut want: Vec<u32> = nix::unistd::getgroups().unwrap().into_iter().map(|g| g.as_raw()).collect();
        got.sort_unstable();
        want.sort_unstable();
        assert_eq!(got, want);
    }
}
