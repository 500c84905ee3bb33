//! A ring buffer of a BPF program's of which only one thing counts: whether there is a message
//! (kernel Documentation/bpf/ringbuf.rst).

use crate::bpf;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::{
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

/// Rung by a program; readable until it is heard.
#[derive(Debug)]
pub(crate) struct Bell {
    map: OwnedFd,
    /// The consumer's page, and the producer's after it.
    pages: [NonNull<libc::c_void>; 2],
}

// SAFETY: the pages belong to it alone, and are only reached through atomic operations.
unsafe impl Send for Bell {}

impl Bell {
    /// A new one.
    ///
    /// # Errors
    /// What bpf(2) or mmap(2) says.
    pub(crate) fn new() -> io::Result<Self> {
        let map = bpf::new_ring()?;
        let consumer = page(&map, 0, libc::PROT_READ | libc::PROT_WRITE)?;
        let producer = page(&map, 1, libc::PROT_READ).inspect_err(|_| unmap(consumer))?;
        Ok(Self { map, pages: [consumer, producer] })
    }

    /// The map, for the program that rings.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.map
    }

    /// Takes all messages, unread.
    pub(crate) fn hear(&mut self) {
        let [consumer, producer] = self.pages;
        // SAFETY: both are mapped pages, at least 8 bytes long and aligned, until `drop`; the kernel reads and writes
        // them with atomic operations too.
        let (read, written) = unsafe { (consumer.cast::<AtomicU64>().as_ref(), producer.cast::<AtomicU64>().as_ref()) };
        read.store(written.load(Ordering::Acquire), Ordering::Release);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.pages.into_iter().for_each(unmap);
    }
}

fn page(map: &OwnedFd, number: usize, protection: libc::c_int) -> io::Result<NonNull<libc::c_void>> {
    let size = rustix::param::page_size();
    let at = (number * size) as libc::off_t;
    // SAFETY: a new mapping at an address the kernel chooses touches no memory of ours.
    let made = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, libc::MAP_SHARED, map.as_raw_fd(), at) };
    match NonNull::new(made) {
        Some(page) if made != libc::MAP_FAILED => Ok(page),
        _ => Err(io::Error::last_os_error()),
    }
}

fn unmap(page: NonNull<libc::c_void>) {
    // SAFETY: a page that `page` mapped, which nobody refers to any more.
    unsafe { libc::munmap(page.as_ptr(), rustix::param::page_size()) };
}
