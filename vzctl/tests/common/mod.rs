//! A manager's root with a stand-in vzd on its socket, and a way to run vzctl on it.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::OpenOptionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};
use vz_sys::proc;

pub struct Manager {
    pub root: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Request>>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub line: String,
    pub body: Value,
}

/// What a run printed and how it ended.
#[derive(Debug, PartialEq)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    #[track_caller]
    pub fn expect(&self, code: i32, out: &str, err: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (code, out, err));
    }
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl Manager {
    /// Without a vzd.
    pub fn alone() -> Self {
        let root = tempfile::Builder::new().prefix("vzctl-").tempdir().unwrap();
        fs::create_dir_all(root.path().join("run/vz/ct")).unwrap();
        fs::create_dir_all(root.path().join("etc/vz/conf")).unwrap();
        Self { root, asked: Arc::default() }
    }

    /// With one that answers as `answer` says: status and body for `METHOD /path`.
    pub fn answering(answer: impl Fn(&Request) -> (u16, String) + Send + 'static) -> Self {
        let manager = Self::alone();
        let listener = UnixListener::bind(manager.path("run/vz/vzd.sock")).unwrap();
        let asked = Arc::clone(&manager.asked);
        // Ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &asked, &answer);
            }
        });
        manager
    }

    /// One that answers everything with this.
    pub fn always(status: u16, body: Value) -> Self {
        Self::answering(move |_| (status, body.to_string()))
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    #[track_caller]
    pub fn asked_once(&self) -> Request {
        let asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked[0].clone()
    }

    pub fn command(&self, program: &str) -> Command {
        let mut c = Command::new(program_path(program));
        c.env_clear().env("VZ_ROOT", self.root.path()).env("TERM", "vt100").current_dir(self.root.path());
        c
    }

    pub fn vzctl(&self, args: &[&str]) -> Ran {
        run(self.command("vzctl").args(args), b"")
    }

    pub fn vzctl_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        run(self.command("vzctl").args(args), input)
    }

    pub fn vzlist(&self, args: &[&str]) -> Ran {
        run(self.command("vzlist").args(args), b"")
    }

    /// The record of a running CT whose init is this very process.
    pub fn pretend_running(&self, ctid: u32) {
        let dir = self.path(&format!("run/vz/ct/{ctid}"));
        fs::create_dir_all(&dir).unwrap();
        let pid = std::process::id() as i32;
        let process = json!({"pid": pid, "start_time": proc::start_time(pid).unwrap()});
        let record = json!({"ctid": ctid, "init": process, "monitor": process, "cgroup": "/", "uid_base": 524288, "boots": 1,
            "booted_at": 1, "started_at": 1, "link": null, "addresses": [], "host_boot_id": proc::boot_id().unwrap()});
        // Replaced atomically, as the monitor does.
        fs::write(dir.join("new"), record.to_string()).unwrap();
        fs::rename(dir.join("new"), dir.join("state.json")).unwrap();
    }

    pub fn configure(&self, ctid: u32, text: &str) {
        fs::write(self.path(&format!("etc/vz/conf/{ctid}.toml")), text).unwrap();
    }
}

/// vzlist is vzctl under another name: a link beside it, made by whoever needs it first.
pub fn program_path(program: &str) -> PathBuf {
    let vzctl = PathBuf::from(env!("CARGO_BIN_EXE_vzctl"));
    if program == "vzctl" {
        return vzctl;
    }
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let link = dir.join(program);
    let fresh = dir.join(format!("{program}.{}.{:?}", std::process::id(), std::thread::current().id()));
    std::os::unix::fs::symlink(&vzctl, &fresh).unwrap();
    fs::rename(&fresh, &link).unwrap();
    link
}

pub fn run(command: &mut Command, input: &[u8]) -> Ran {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that does not read its input may have closed it.
    let _ = stdin.write_all(input);
    drop(stdin);
    let done = child.wait_with_output().unwrap();
    Ran {
        code: done.status.code().unwrap_or(-1),
        out: String::from_utf8(done.stdout).unwrap(),
        err: String::from_utf8(done.stderr).unwrap(),
    }
}

fn serve(stream: UnixStream, asked: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> (u16, String)) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        if header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let line = first.trim().trim_end_matches(" HTTP/1.1").to_owned();
    let request = Request { line, body: serde_json::from_slice(&body).unwrap_or(Value::Null) };
    asked.lock().unwrap().push(request.clone());
    let (status, text) = answer(&request);
    if status == 0 {
        return;
    }
    let mut stream = reader.into_inner();
    // In two pieces, as a chunked body: what a streaming server sends.
    let (a, b) = text.split_at(text.len() / 2);
    write!(stream, "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        .unwrap();
    for piece in [a, b].iter().filter(|p| !p.is_empty()) {
        write!(stream, "{:x}\r\n{piece}\r\n", piece.len()).unwrap();
    }
    write!(stream, "0\r\n\r\n").unwrap();
}

/// The data of one container, as vzd sends it.
pub fn info(ctid: u32, status: &str, changes: Value) -> Value {
    let state = status;
    let words = match status {
        "running" => "exist mounted running",
        "mounted" => "exist mounted down",
        _ => "exist unmounted down",
    };
    let mut v = json!({
        "ctid": ctid, "status": status, "state": state, "status_line": format!("CTID {ctid} {words}"),
        "name": null, "description": null, "hostname": null, "ip": [], "nameserver": [], "searchdomain": [],
        "ostemplate": "debian-12", "layout": "overlay", "onboot": null, "bootorder": null, "disabled": false, "features": [],
        "private": format!("/var/lib/vz/private/{ctid}"), "root": format!("/var/lib/vz/root/{ctid}"),
        "uid_base": 524288, "uuid": null, "numproc": null, "uptime": null, "boots": null, "pid": null,
        "monitor_pid": null, "cgroup": null, "link": null, "laverage": null,
        "diskspace": {"usage": null, "softlimit": 10737418240u64, "hardlimit": 10737418240u64},
        "diskinodes": {"usage": null, "softlimit": 655360, "hardlimit": 655360},
        "last_exit": null, "last_failure": null
    });
    for (key, value) in changes.as_object().unwrap() {
        v[key] = value.clone();
    }
    v
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A terminal of 30 rows: our side and the program's.
pub fn terminal() -> (OwnedFd, fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let theirs = fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NOCTTY.bits() as i32)
        .open(name)
        .unwrap();
    resize(&ours, 30);
    (ours, theirs)
}

pub fn resize(terminal: &OwnedFd, rows: u16) {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).unwrap();
}

/// Reads until the terminal has shown `words`.
pub fn shows(terminal: &OwnedFd, words: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(words) {
        let mut buffer = [0; 1024];
        let mut fds = [rustix::event::PollFd::new(terminal, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(
            rustix::event::poll(&mut fds, Some(&limit)).unwrap(),
            1,
            "{words:?} in {:?}",
            String::from_utf8_lossy(&seen)
        );
        let n = rustix::io::read(terminal, &mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..n]);
    }
}
