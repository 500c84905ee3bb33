//! How the C library's allocator behaves in a daemon with many short-lived threads (mallopt(3)): glibc gives each thread a
//! heap of its own, up to eight for each processor, and keeps what was freed in all of them.

/// Two heaps for all threads, large blocks always from the kernel and back to it, and free ends given back. For a process
/// whose threads mostly wait. Other C libraries have nothing to be told.
pub fn be_thrifty() {
    #[cfg(target_env = "gnu")]
    for (what, value) in
        [(libc::M_ARENA_MAX, 2), (libc::M_MMAP_THRESHOLD, 256 << 10), (libc::M_TRIM_THRESHOLD, 1 << 20)]
    {
        // SAFETY: mallopt takes two numbers and changes parameters of the allocator under its own lock.
        let _ = unsafe { libc::mallopt(what, value) };
    }
}

/// Gives back to the kernel what is free in the middle of the heaps too, after work that needed much (malloc_trim(3)).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and works under the allocator's own locks.
    let _ = unsafe { libc::malloc_trim(0) };
}
