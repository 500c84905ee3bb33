//! Logging in over ssh as a stranger would: with a fresh key or with a password, never with the user's own files.

use crate::{
    command::{self, Output},
    netns::NetNs,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A key made for one test, and a known-hosts file of its own.
#[derive(Debug)]
pub struct Identity {
    dir: PathBuf,
}

impl Identity {
    /// Makes a key below `dir`.
    ///
    /// # Panics
    /// If ssh-keygen cannot.
    #[track_caller]
    pub fn new(dir: &Path) -> Self {
        let dir = dir.join("ssh");
        fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        if !dir.join("key").exists() {
            let mut c = Command::new("ssh-keygen");
            c.args(["-q", "-t", "ed25519", "-N", "", "-C", "vz-test", "-f"]).arg(dir.join("key"));
            command::run(&mut c, None, Duration::from_secs(20)).unwrap_or_else(|e| panic!("{e}")).ok();
        }
        Self { dir }
    }

    /// The public key's file.
    pub fn public(&self) -> PathBuf {
        self.dir.join("key.pub")
    }

    /// The private key's file.
    pub fn private(&self) -> PathBuf {
        self.dir.join("key")
    }

    /// The public key's line.
    pub fn public_line(&self) -> String {
        fs::read_to_string(self.public()).unwrap_or_default().trim().to_owned()
    }

    /// Options that keep ssh away from the user's own files; `how` is `publickey` or `password`.
    pub fn options(&self, how: &str) -> Vec<String> {
        let known = self.dir.join("known_hosts");
        let mut all: Vec<String> =
            ["-F", "none", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR"]
                .map(String::from)
                .into();
        for option in [
            format!("UserKnownHostsFile={}", known.display()),
            "GlobalKnownHostsFile=/dev/null".into(),
            "StrictHostKeyChecking=accept-new".into(),
            format!("PreferredAuthentications={how}"),
        ] {
            all.extend(["-o".into(), option]);
        }
        if how == "publickey" {
            all.extend(["-o".into(), "BatchMode=yes".into(), "-i".into(), self.private().display().to_string()]);
        }
        all
    }

    /// Forgets the host keys seen so far.
    pub fn forget_hosts(&self) {
        let _ = fs::remove_file(self.dir.join("known_hosts"));
    }

    /// Runs a command as `user` at `address`, from `host`, by key.
    #[track_caller]
    pub fn run(&self, host: &NetNs, user: &str, address: &str, line: &str) -> Output {
        let mut c = host.command("ssh");
        c.args(self.options("publickey")).arg(format!("{user}@{address}")).arg(line);
        command::run(&mut c, None, Duration::from_secs(60)).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The same by password.
    #[track_caller]
    pub fn run_with_password(&self, host: &NetNs, user: &str, password: &str, address: &str, line: &str) -> Output {
        let mut c = host.command("sshpass");
        c.arg("-e").arg("ssh").args(self.options("password")).arg(format!("{user}@{address}")).arg(line);
        c.env("SSHPASS", password);
        command::run(&mut c, None, Duration::from_secs(60)).unwrap_or_else(|e| panic!("{e}"))
    }
}
