//! What is changed inside at once: passwords, which are asked for where they are not given, and public keys, which may be
//! in files of the host.

use crate::failure::Failure;
use std::{
    fs::File,
    io::{BufRead, IsTerminal, Read},
    os::unix::fs::OpenOptionsExt,
    str::FromStr,
};
use vz_api::wire::{SshKey, UserPasswd};
use vz_types::{
    ExitCode, SshPublicKey, UserName,
    settings::{Password, SSHKEY, SSHUSER, USERPASSWD},
};

/// No authorized_keys file of a sane host is larger.
const MAX_KEY_FILE: u64 = 256 << 10;

/// `user:password`; the password is asked for where it is missing, so that it need not be an argument.
pub fn password(v: &str) -> Result<UserPasswd, Failure> {
    let (user, given) = v.split_once(':').unwrap_or((v, ""));
    let user = USERPASSWD
        .user(user)
        .map_err(|e| Failure::from(e).hint("write USER:PASSWORD, or USER alone to be asked for the password"))?;
    let password = match given {
        "" | "-" => ask(&user)?,
        given => given.to_owned(),
    };
    Password::from_str(&password).map_err(|why| USERPASSWD.error(format!("the password of {user} {why}")))?;
    Ok(UserPasswd { user: user.to_string(), password })
}

fn ask(user: &UserName) -> Result<String, Failure> {
    let failed = |e| Failure::system(format_args!("cannot read the password of {user}"), e);
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password(format!("Password of {user}: ")).map_err(failed);
    }
    let mut line = String::new();
    std::io::stdin().lock().take(4096).read_line(&mut line).map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// The keys of every `--sshkey`, each with its user; `user` is that of those without a prefix.
pub fn ssh_keys(given: &[String], user: Option<&str>) -> Result<Vec<SshKey>, Failure> {
    let default = SSHUSER.user(user.unwrap_or("root"))?.to_string();
    if user.is_some() && given.is_empty() {
        return Err(Failure::new(ExitCode::BadSyntax, "--sshuser is of no use without --sshkey"));
    }
    let mut out = Vec::new();
    for value in given {
        let (user, what) = match value.split_once(':') {
            // Neither a key nor an existing file is taken apart.
            Some((u, rest))
                if UserName::from_str(u).is_ok()
                    && !SshPublicKey::begins(value)
                    && !std::path::Path::new(value).exists() =>
            {
                (u.to_owned(), rest)
            }
            _ => (default.clone(), value.as_str()),
        };
        let text = if SshPublicKey::begins(what) {
            what.to_owned()
        } else {
            key_file(what.strip_prefix('@').unwrap_or(what))?
        };
        let mut some = false;
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let key: SshPublicKey =
                line.parse().map_err(|e| bad_key(what, &format!("holds a line that is no public key: {e}")))?;
            out.push(SshKey { user: user.clone(), key: key.to_string() });
            some = true;
        }
        if !some {
            return Err(bad_key(what, "holds no public key"));
        }
    }
    Ok(out)
}

fn bad_key(what: &str, why: &str) -> Failure {
    let what: String = what.chars().take(80).collect();
    Failure::from(SSHKEY.error(format!("`{what}` {why}")))
        .hint("write a public key like `ssh-ed25519 AAAA... comment`, or the file it is in, with `USER:` before it for another user than root")
}

/// The content of a key file of the host; `-` is standard input. Never waits on a FIFO, never reads a device.
fn key_file(path: &str) -> Result<String, Failure> {
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        if path == "-" {
            std::io::stdin().lock().take(MAX_KEY_FILE).read_to_string(&mut text)?;
            return Ok(text);
        }
        let file = File::options().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("not a regular file"));
        }
        file.take(MAX_KEY_FILE).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|e| bad_key(path, &format!("is neither a public key nor a file that can be read ({e})")))
}
