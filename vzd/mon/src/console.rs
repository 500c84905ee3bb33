//! The console: a pty of the host whose master lives as long as the monitor, a bounded log of what was printed, and
//! the clients of `vzctl console`.
//!
//! The log is two files of half the bound each: `console.log` grows, then becomes `console.log.1`. Nothing is kept in
//! memory, so a monitor stays small.

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use vz_sys::{pty, seqpacket};

/// First byte of a console packet: the rest is terminal bytes.
const FRAME_BYTES: u8 = 0;
/// First byte of a console packet: the rest is `{"rows":N,"cols":N}`.
const FRAME_SIZE: u8 = 1;
/// Bytes read from the pty at once; a pty line buffer holds 4096.
const CHUNK: usize = 4096;

/// Bytes of the log in one packet: vzctl takes 128 KiB.
const PIECE: usize = 32 << 10;
/// What a client's socket takes unread without being told to take more: below `net.core.wmem_default`.
const UNREAD: usize = 128 << 10;

/// See the module.
pub struct Console {
    pty: pty::Pty,
    log: Log,
    clients: Vec<OwnedFd>,
}

#[derive(serde::Deserialize)]
struct Size {
    rows: u16,
    cols: u16,
}

impl Console {
    /// A new console owned by the container's root, its log in `run_dir`.
    pub fn open(run_dir: BorrowedFd<'_>, uid_base: u32, log_bytes: u64) -> io::Result<Self> {
        let pty = pty::open()?;
        // Group 5 is tty on every distribution we know.
        pty::give(&pty.slave, uid_base, uid_base + 5)?;
        pty::resize(&pty.slave, 25, 80)?;
        rustix::io::ioctl_fionbio(&pty.master, true)?;
        Ok(Self { pty, log: Log::open(run_dir, log_bytes)?, clients: Vec::new() })
    }

    /// The container's end. Holding it open here keeps the master from reporting a hang-up between boots.
    pub fn slave(&self) -> BorrowedFd<'_> {
        self.pty.slave.as_fd()
    }

    /// Ours, for polling.
    pub fn master(&self) -> BorrowedFd<'_> {
        self.pty.master.as_fd()
    }

    /// The clients, for polling, in the order [`Console::client_input`] counts them.
    pub fn clients(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.clients.iter().map(AsFd::as_fd)
    }

    /// Adds a client that has already had its [`vz_types::plan::ControlReply::Done`].
    pub fn join(&mut self, client: OwnedFd, replay: bool) {
        if replay {
            let log = self.log.read();
            // The kernel keeps what the client has not read yet; the loop waits for nobody.
            let fits = log.len() <= UNREAD
                || rustix::net::sockopt::set_socket_send_buffer_size_force(&client, log.len()).is_ok();
            let from = if fits { 0 } else { log.len().saturating_sub(UNREAD) };
            for piece in log[from..].chunks(PIECE) {
                match send_bytes(&client, piece) {
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return,
                }
            }
        }
        self.clients.push(client);
    }

    /// Moves what the container printed to the log and the clients.
    pub fn output(&mut self) {
        let mut buffer = [0u8; CHUNK];
        // Bounded, so that a container that never stops printing cannot starve the rest of the loop.
        for _ in 0..16 {
            match rustix::io::read(&self.pty.master, &mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    self.log.append(&buffer[..n]);
                    self.show(&buffer[..n]);
                }
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Takes one packet of the `index`th client.
    pub fn client_input(&mut self, index: usize) {
        let Some(client) = self.clients.get(index) else { return };
        match seqpacket::try_recv(client) {
            Ok((packet, _)) if !packet.is_empty() => match packet[0] {
                FRAME_BYTES => self.type_in(&packet[1..]),
                FRAME_SIZE => {
                    if let Ok(size) = serde_json::from_slice::<Size>(&packet[1..]) {
                        let _ = pty::resize(&self.pty.slave, size.rows, size.cols);
                    }
                }
                _ => {}
            },
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            _ => {
                self.clients.remove(index);
            }
        }
    }

    fn type_in(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match rustix::io::write(&self.pty.master, bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::INTR) => {}
                // Nobody inside reads: what a terminal does when its buffer is full.
                Err(_) => return,
            }
        }
    }

    /// A line of ours on the console, for whoever is looking.
    pub fn say(&mut self, text: &str) {
        let line = format!("\r\n[vz] {text}\r\n");
        self.log.append(line.as_bytes());
        self.show(line.as_bytes());
    }

    /// To every client. One that does not keep up loses output rather than stopping the container.
    fn show(&mut self, bytes: &[u8]) {
        self.clients.retain(|c| !matches!(send_bytes(c, bytes), Err(e) if e.kind() != io::ErrorKind::WouldBlock));
    }
}

fn send_bytes(client: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let mut packet = Vec::with_capacity(bytes.len() + 1);
    packet.push(FRAME_BYTES);
    packet.extend_from_slice(bytes);
    seqpacket::try_send(client, &packet, &[])
}

struct Log {
    dir: OwnedFd,
    file: File,
    size: u64,
    half: u64,
}

const LOG: &str = "console.log";
const OLD_LOG: &str = "console.log.1";

impl Log {
    fn open(dir: BorrowedFd<'_>, bound: u64) -> io::Result<Self> {
        let dir = dir.try_clone_to_owned()?;
        let file = Self::file(&dir, OFlags::APPEND)?;
        let size = file.metadata()?.len();
        Ok(Self { dir, file, size, half: (bound / 2).max(2048) })
    }

    fn file(dir: &OwnedFd, more: OFlags) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | more;
        Ok(rustix::fs::openat(dir, LOG, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// The log is a help, not a promise: when it cannot be written the container goes on.
    fn append(&mut self, bytes: &[u8]) {
        if self.size >= self.half && rustix::fs::renameat(&self.dir, LOG, &self.dir, OLD_LOG).is_ok() {
            if let Ok(file) = Self::file(&self.dir, OFlags::TRUNC) {
                self.file = file;
                self.size = 0;
            }
        }
        if self.file.write_all(bytes).is_ok() {
            self.size += bytes.len() as u64;
        }
    }

    fn read(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for name in [OLD_LOG, LOG] {
            if let Ok(fd) = rustix::fs::openat(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
                let _ = io::Read::read_to_end(&mut File::from(fd), &mut all);
            }
        }
        all
    }
}
