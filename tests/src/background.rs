//! Programs that run while the test does something else, and requests to vzd as bytes.

use crate::{Rig, command, command::Output, wait::Process};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// A program that is running.
#[derive(Debug)]
pub struct Running {
    child: Child,
    process: Process,
    line: String,
    out: PathBuf,
    err: PathBuf,
    begun: Instant,
}

impl Running {
    fn start(rig: &Rig, command: &mut Command) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let (out, err) = (rig.paths.base.join(format!("said-{n}.out")), rig.paths.base.join(format!("said-{n}.err")));
        let file = |path: &PathBuf| File::create(path).expect("making a file for what a program says");
        command.stdin(Stdio::null()).stdout(file(&out)).stderr(file(&err)).process_group(0);
        let line = command::line(command);
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot run `{line}`: {e}"));
        let process = Process::open(child.id()).expect("the descriptor of a child that was not waited for");
        Self { child, process, line, out, err, begun: Instant::now() }
    }

    /// The process itself, to be stopped and let go on.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.process.ended(Duration::ZERO).expect("polling a process")
    }

    /// What it has said on standard output so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// What it has said on standard error so far.
    pub fn warned(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// Waits for its end; panics with all it said when `limit` passes first.
    #[track_caller]
    pub fn ends(mut self, limit: Duration) -> Output {
        let ended = self.process.ended(limit).expect("waiting for a process");
        if !ended {
            command::kill_group(self.child.id());
        }
        let status = self.child.wait().expect("reaping a child");
        let text = |path: &PathBuf| fs::read_to_string(path).unwrap_or_default();
        let (stdout, stderr) = (text(&self.out), text(&self.err));
        let output = Output { line: self.line.clone(), status, stdout, stderr, took: self.begun.elapsed() };
        assert!(ended, "not done after {} s more, killed:\n{output}", limit.as_secs());
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that was waited for has no process group any more.
        if matches!(self.child.try_wait(), Ok(None)) {
            command::kill_group(self.child.id());
            let _ = self.child.wait();
        }
    }
}

impl Rig {
    /// Starts vzctl and does not wait for its end.
    #[track_caller]
    pub fn vzctl_running(&self, args: &[&str]) -> Running {
        Running::start(self, &mut self.vzctl_command(args))
    }

    /// A connection on which this was asked, and no answer read.
    pub fn asked(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> UnixStream {
        self.try_asked(method, path, headers, body).expect("asking vzd")
    }

    /// The same, where vzd may be away.
    ///
    /// # Errors
    /// Nobody listens, or not any more.
    pub fn try_asked(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<UnixStream> {
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: vz\r\nConnection: close\r\nContent-Type: application/json\r\n{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = UnixStream::connect(self.paths.socket())?;
        stream.write_all(text.as_bytes())?;
        Ok(stream)
    }

    /// Asks vzd; the status and the body of its answer.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        answer(self.asked(method, path, headers, body))
    }

    /// Has a running tiny system take so many seconds for its shutdown, at the end of which it writes `/root/ended`.
    #[track_caller]
    pub fn make_slow_to_stop(&self, ctid: u32, seconds: u32) {
        let line = format!(
            "printf 'sleep {seconds}\\necho whole >/root/ended\\nsync\\n' >/root/last; rm -f /root/ended; \
             printf '::sysinit:/etc/rc\\n::respawn:/bin/sleep 100000\\n::respawn:/bin/sleep 99999\\n::shutdown:/bin/sh /root/last\\n' >/etc/inittab; kill -HUP 1; \
             until ps | grep -q '[s]leep 99999'; do sleep 0.05; done"
        );
        self.inside(ctid, &line);
    }

    /// What `/root/ended` of a stopped container says.
    #[track_caller]
    pub fn ended_file(&self, ctid: u32) -> String {
        let id = ctid.to_string();
        self.ok(&["mount", &id]);
        let file = self.paths.root(vz_types::Ctid::try_from(ctid).expect("a CTID")).join("root/ended");
        let text = fs::read_to_string(file).unwrap_or_default().trim().to_owned();
        self.ok(&["umount", &id]);
        text
    }

    /// Waits until an operation on a container is at this step; its number.
    #[track_caller]
    pub fn wait_step(&self, ctid: u32, step: &str, limit: Duration) -> String {
        self.wait_open(ctid, ("step", step), limit)
    }

    /// Waits until an operation on a container that has not ended says this of itself; its number.
    #[track_caller]
    pub fn wait_open(&self, ctid: u32, (key, word): (&str, &str), limit: Duration) -> String {
        let look = || {
            let (status, text) = self.request("GET", &format!("/v1/operations?ct={ctid}&state=open"), &[], "");
            let all: serde_json::Value = serde_json::from_str(&text).ok().filter(|_| status == 200)?;
            let at = all.as_array()?.iter().find(|o| o[key] == word)?;
            at["id"].as_str().map(str::to_owned)
        };
        crate::wait::retry(limit, Duration::from_millis(10), look).unwrap_or_else(|| {
            panic!("no operation on CT {ctid} came to {key} `{word}`\n--- vzd\n{}", self.vzd_log(40))
        })
    }

    /// Has monitors that begin from now on do nothing as long as this file is there. Before vzd starts.
    #[track_caller]
    pub fn hold_monitors_by(&self, file: &str) -> PathBuf {
        let (hold, vzmon) = (self.paths.base.join(file), self.paths.base.join("vzmon"));
        let mut program = fs::read(crate::probe::waiter()).expect("reading the waiter");
        program.extend(format!("\n{}\n{}\n", hold.display(), self.bin.join("vzmon").display()).bytes());
        fs::write(&vzmon, program).expect("writing the waiter");
        fs::set_permissions(&vzmon, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
        self.write_manager_config(&format!("vzmon = {:?}\n", vzmon.display().to_string()));
        hold
    }

    /// Starts vzd through this command line, which its own is appended to.
    #[track_caller]
    pub fn start_vzd_through(&mut self, line: &str) {
        let real = self.bin.clone();
        let dir = self.paths.base.join("through");
        fs::create_dir_all(&dir).expect("making a directory");
        let vzd = dir.join("vzd");
        let text = format!("#!/bin/sh\nexec {line} {} \"$@\"\n", real.join("vzd").display());
        fs::write(&vzd, text).expect("writing a script");
        fs::set_permissions(&vzd, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
        self.bin = dir;
        self.start_vzd(&[]);
        self.bin = real;
    }
}

/// The status and the body of the answer on a connection.
pub fn answer(mut stream: UnixStream) -> (u16, String) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("setting a timeout");
    let mut bytes = Vec::new();
    // One that is cut off is an answer, too: a short one.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|w| w.parse().ok()).unwrap_or(0);
    (status, text.split_once("\r\n\r\n").map(|(_, b)| b.to_owned()).unwrap_or_default())
}
