//! What a process has from its parent without having been given it: a service manager, cron, a shell under nice(1) or
//! taskset(1), a program that ignores signals. What begins in a container begins as on a machine of its own.
//!
//! | what | from then on | source |
//! |---|---|---|
//! | umask | 022 | umask(2) |
//! | CPUs it may run on | all; the cgroup's cpuset still holds | sched_setaffinity(2) |
//! | scheduling | `SCHED_OTHER`, nice 0 | sched(7) |
//! | I/O priority | none of its own | ioprio_set(2) |
//! | memory policy | the system's | set_mempolicy(2) |
//! | personality | plain Linux | personality(2) |
//! | timer slack | 50 us, as init has it | PR_SET_TIMERSLACK(2const) |
//! | large pages | allowed | PR_SET_THP_DISABLE(2const) |
//! | what a core dump holds | the kernel's default | core(5) |
//! | login and session of the audit system | none | proc_pid_loginuid(5); needs CAP_AUDIT_CONTROL |
//!
//! Resource limits, signals, capabilities, keyring and descriptors are set where the program is confined.

use rustix::process::setpriority_process;

/// Bits of `/proc/PID/coredump_filter` that the kernel starts init with (core(5)).
const DUMPED: &str = "0x33";
/// Nanoseconds of slack that the kernel starts init with (prctl(2)).
const SLACK: u64 = 50_000;

/// What `/proc/PID/loginuid` is where nobody has logged in: `(uid_t) -1`.
const NOBODY_LOGGED_IN: &str = "4294967295";

/// Puts all of it back for this process and those it makes. What a host does not let its root change stays as it was: the
/// parent's.
pub fn begin_anew() {
    own_files_readable();
    wait_for_children();
    let _ = setpriority_process(None, 0);
    let _ = nix::sys::personality::set(nix::sys::personality::Persona::empty());
    let _ = nix::sys::prctl::set_timerslack(SLACK);
    let _ = std::fs::write("/proc/self/coredump_filter", DUMPED);
    // Each thread has its own, and may change that alone.
    let _ = std::fs::write("/proc/thread-self/loginuid", NOBODY_LOGGED_IN);
    // More CPUs than any kernel is built for; those there are not are left out by it.
    let all = [0xffu8; 8192 / 8];
    let other = libc::sched_param { sched_priority: 0 };
    const WHO_PROCESS: libc::c_int = 1;
    const PRIORITY_NONE: libc::c_int = 0;
    const POLICY_DEFAULT: libc::c_int = 0;
    // SAFETY: the pointers are to locals of the size said; a null node mask belongs to the default policy.
    unsafe {
        libc::sched_setaffinity(0, size_of_val(&all), all.as_ptr().cast());
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const other);
        libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, PRIORITY_NONE);
        libc::syscall(libc::SYS_set_mempolicy, POLICY_DEFAULT, std::ptr::null::<libc::c_ulong>(), 0);
        libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0);
    }
}

/// Files and directories this process makes can be read by others, unless it says otherwise of one.
pub fn own_files_readable() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
}

/// Children can be waited for. Whoever started this process may ignore SIGCHLD, which stays so over execve(2) and has the
/// kernel reap them itself (wait(2)).
pub fn wait_for_children() {
    // SAFETY: the default action is valid for every signal, and nothing has set a handler yet.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One field of /proc/self/status.
    fn status(field: &str) -> String {
        let text = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        text.lines().find_map(|l| l.strip_prefix(field)).unwrap_or_default().trim_start_matches(':').trim().to_owned()
    }

    #[test]
    fn what_was_inherited_is_as_on_a_machine_again() {
        let worker = std::thread::spawn(|| {
            let before = status("Cpus_allowed_list");
            setpriority_process(None, 7).unwrap();
            let one = nix::sched::CpuSet::new();
            let mut first = one;
            first.set(before.split(['-', ',']).next().and_then(|n| n.parse().ok()).unwrap_or(0)).unwrap();
            nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &first).unwrap();
            nix::sys::prctl::set_timerslack(1_000_000).unwrap();
            begin_anew();
            (before, status("Cpus_allowed_list"), rustix::process::getpriority_process(None).unwrap())
        });
        let (before, now, nice) = worker.join().unwrap();
        assert!(now.len() >= before.len(), "{now} instead of {before}");
        assert_eq!((nice, status("Umask").as_str()), (0, "0022"));
    }
}
