//! Starting a program born in a cgroup. `std::process` and posix_spawn(3) of today's C libraries cannot; moving a process
//! afterwards waits for an RCU grace period, and every fork on the host waits with it.

use crate::process::{self, Cloned};
use nix::sched::CloneFlags;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::{
    ffi::{CString, c_char},
    io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
};

/// A program to start. It gets no environment, a session of its own (a Ctrl-C in our terminal is not meant
/// for it), no signal blocked, and /dev/null for standard output.
#[derive(Debug)]
pub struct Program {
    /// What to execute.
    pub path: CString,
    /// Its arguments, the name it goes by first.
    pub arguments: Vec<CString>,
    /// Its standard input.
    pub stdin: OwnedFd,
    /// Its standard error.
    pub stderr: OwnedFd,
}

/// A child of this process. Dropping it does not reap it.
#[derive(Debug)]
pub struct Spawned {
    pid: i32,
    pidfd: OwnedFd,
}

impl Program {
    /// Starts the program, in this cgroup (the descriptor of a cgroup2 directory) if one is given.
    ///
    /// # Errors
    /// What clone3(2) or execve(2) say.
    pub fn spawn(&self, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Spawned> {
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        let mut argv: Vec<*const c_char> = self.arguments.iter().map(|a| a.as_ptr()).collect();
        argv.push(std::ptr::null());
        let envp: [*const c_char; 1] = [std::ptr::null()];
        // Its end without a word says that the program was executed.
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let fds = [self.stdin.as_raw_fd(), null.as_raw_fd(), self.stderr.as_raw_fd()];
        let report = theirs.as_raw_fd();
        if fds.iter().chain([&report]).any(|fd| *fd < 3) {
            // One of them would be closed under the child's hands.
            return Err(io::Error::other("standard input, output or error of this process is closed"));
        }
        // SAFETY: `child` makes nothing but async-signal-safe calls on memory prepared above, and never returns.
        match unsafe { process::copy(CloneFlags::empty(), cgroup) }? {
            // SAFETY: this is the child; the pointers are those of `self` and of locals, all alive in its copy.
            Cloned::Child => unsafe { child(self.path.as_ptr(), argv.as_ptr(), envp.as_ptr(), fds, report) },
            Cloned::Parent(pid, pidfd) => {
                let mut spawned = Spawned { pid, pidfd };
                drop(theirs);
                let mut said = [0u8; 4];
                match io::Read::read_exact(&mut std::fs::File::from(ours), &mut said) {
                    Err(_) => Ok(spawned),
                    Ok(()) => {
                        let _ = spawned.wait();
                        Err(io::Error::from_raw_os_error(i32::from_ne_bytes(said)))
                    }
                }
            }
        }
    }
}

/// The child's whole life in our code.
///
/// # Safety
/// To be called in a fresh child, with `argv` and `envp` null-terminated arrays of C strings and open descriptors.
unsafe fn child(
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    fds: [RawFd; 3],
    report: RawFd,
) -> ! {
    // SAFETY: all of these are async-signal-safe (signal-safety(7)); `none` is initialised by sigemptyset.
    unsafe {
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        let ready = libc::setsid() != -1
            && libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()) == 0
            // Rust programs ignore it, and what is ignored stays so over execve(2).
            && libc::signal(libc::SIGPIPE, libc::SIG_DFL) != libc::SIG_ERR
            && (0..3).all(|n| libc::dup2(fds[n as usize], n) == n);
        if ready {
            libc::execve(path, argv, envp);
        }
        let errno = *libc::__errno_location();
        libc::write(report, (&raw const errno).cast(), size_of::<i32>());
        libc::_exit(127)
    }
}

impl Spawned {
    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable once it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Kills it; one that has ended is fine.
    pub fn kill(&self) {
        let _ = process::pidfd_signal(self.pidfd.as_fd(), libc::SIGKILL);
    }

    /// Waits for its end and reaps it. To be called once.
    ///
    /// # Errors
    /// What waitpid(2) says.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            let mut status = 0;
            // SAFETY: `status` is writable; the pid is our own child's, which nobody else reaps, so it is still its.
            match unsafe { libc::waitpid(self.pid, &raw mut status, 0) } {
                -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                -1 => return Err(io::Error::last_os_error()),
                _ => return Ok(ExitStatus::from_raw(status)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn program(path: &str, arguments: &[&str]) -> (Program, std::io::PipeReader) {
        let (stdin, _) = std::io::pipe().unwrap();
        let (said, stderr) = std::io::pipe().unwrap();
        let text = |s: &str| CString::new(s).unwrap();
        let arguments = std::iter::once(path).chain(arguments.iter().copied()).map(text).collect();
        (Program { path: text(path), arguments, stdin: stdin.into(), stderr: stderr.into() }, said)
    }

    #[test]
    fn a_program_runs_alone_with_what_it_was_given() {
        let script = "test -z \"$FOO$PATH_INFO\" && test ! -t 0 && ps -o pid=,sid= -p $$ >&2; exit 7";
        let (program, mut said) = program("/bin/sh", &["-c", script]);
        let mut child = program.spawn(None).unwrap();
        let (pid, status) = (child.pid(), child.wait().unwrap());
        drop(program);
        let mut text = String::new();
        said.read_to_string(&mut text).unwrap();
        assert_eq!(status.code(), Some(7), "{text}");
        assert_eq!(text.split_whitespace().collect::<Vec<_>>(), [pid.to_string(), pid.to_string()]);
    }

    #[test]
    fn what_cannot_be_executed_is_an_error_and_leaves_no_child() {
        let (program, _said) = program("/nonexistent/program", &[]);
        assert_eq!(program.spawn(None).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_no_cgroup_is_refused() {
        let (program, _said) = program("/bin/true", &[]);
        let dir = std::fs::File::open("/").unwrap();
        assert!(program.spawn(Some(dir.as_fd())).is_err());
    }
}
