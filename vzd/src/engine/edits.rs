//! Changes to a container's own files: which ones a configuration asks for at each boot, which ones a
//! request asks for at once, and the making of what goes into them (crypt hashes, key lines).

use super::{Changes, Error, Result};
use crate::network::host_nameservers;
use sha_crypt::{PasswordHasher, ShaCrypt};
use std::{fs, io::Read, path::Path};
use vz_types::{CtConfig, ExitCode, plan::FileEdit, plan::resolve_nameservers};

/// Edits before each boot's init.
pub(crate) fn boot(config: &CtConfig) -> Vec<FileEdit> {
    let mut edits = Vec::new();
    if let Some(hostname) = &config.hostname {
        edits.push(FileEdit::Hostname { hostname: hostname.clone() });
    }
    let net = &config.network;
    if !net.nameserver.is_empty() || !net.searchdomain.is_empty() {
        edits.push(FileEdit::Resolver {
            nameservers: resolve_nameservers(&net.nameserver, &host_nameservers(Path::new("/etc/resolv.conf"))),
            search: net.searchdomain.clone(),
        });
    }
    edits
}

/// Those of [`boot`] whose part of the configuration is another now: a file nobody asked to change is left alone, and
/// cannot fail a change of another.
pub(crate) fn changed(old: &CtConfig, new: &CtConfig) -> Vec<FileEdit> {
    let (was, is) = (&old.network, &new.network);
    let hostname = old.hostname != new.hostname;
    let resolver = was.nameserver != is.nameserver || was.searchdomain != is.searchdomain;
    let asked = |edit: &FileEdit| match edit {
        FileEdit::Hostname { .. } => hostname,
        FileEdit::Resolver { .. } => resolver,
        FileEdit::Password { .. } | FileEdit::SshKeys { .. } => false,
    };
    boot(new).into_iter().filter(asked).collect()
}

/// Edits to carry out at once whatever is saved.
pub(crate) fn now(changes: &Changes) -> Vec<FileEdit> {
    let passwords =
        changes.passwords.iter().map(|(user, hash)| FileEdit::Password { user: user.clone(), hash: hash.clone() });
    let keys = changes.keys.iter().map(|(user, keys)| FileEdit::SshKeys { user: user.clone(), keys: keys.clone() });
    passwords.chain(keys).collect()
}

/// The crypt(5) hash of a password: SHA-512 with 12 random bytes of salt and 5000 rounds.
pub fn hash_password(password: &str) -> Result<String> {
    let mut salt = [0; 12];
    fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut salt))
        .map_err(Error::io("reading", "/dev/urandom"))?;
    let failed = |e: &dyn std::fmt::Display| {
        Error::refused(ExitCode::PasswordFailed, format!("the password cannot be hashed: {e}"), "")
    };
    let hash = ShaCrypt::SHA512.hash_password_with_salt(password.as_bytes(), &salt).map_err(|e| failed(&e))?;
    Ok(hash.to_string())
}

/// Key types OpenSSH takes in authorized_keys (sshd(8)).
const KEY_TYPES: &[&str] = &[
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// Checks one `type base64 comment` line and gives it back with single spaces. Options in front of the
/// type are not taken: they can run programs.
pub fn key_line(text: &str) -> Result<String> {
    let bad = |why: &str| {
        let shown: String = text.chars().take(40).collect();
        Err(Error::refused(
            ExitCode::BadValue,
            format!("ssh key `{shown}`: {why}"),
            "give one public key as `ssh-keygen` writes it into the .pub file",
        ))
    };
    if text.len() > 16_384 || text.chars().any(|c| c.is_control() && c != '\t') {
        return bad("it is not one line of at most 16384 characters");
    }
    let mut words = text.split_whitespace();
    let (Some(kind), Some(body)) = (words.next(), words.next()) else { return bad("it has no type and body") };
    if !KEY_TYPES.contains(&kind) {
        return bad("its type is not one that OpenSSH accepts");
    }
    let Some(blob) = base64(body) else { return bad("its body is not base64") };
    // RFC 4253 6.6: the blob begins with its own type as a length-prefixed string.
    let own =
        blob.get(..4).map(|l| u32::from_be_bytes([l[0], l[1], l[2], l[3]]) as usize).and_then(|n| blob.get(4..4 + n));
    if own != Some(kind.as_bytes()) {
        return bad("its body is cut short or of another type");
    }
    let comment: Vec<&str> = words.collect();
    Ok([kind, body, &comment.join(" ")].join(" ").trim_end().to_owned())
}

/// Standard base64 with padding (RFC 4648 section 4).
fn base64(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('=');
    if text.len() % 4 != 0 || text.len() - body.len() > 2 {
        return None;
    }
    let (mut out, mut bits, mut have) = (Vec::with_capacity(body.len() * 3 / 4), 0u32, 0);
    for c in body.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_what_crypt_takes() {
        let hash = hash_password("geheim").unwrap();
        assert!(hash.starts_with("$6$"), "{hash}");
        assert_ne!(hash, hash_password("geheim").unwrap());
        use sha_crypt::PasswordVerifier;
        let parsed = sha_crypt::PasswordHash::new(hash.as_str()).unwrap();
        ShaCrypt::SHA512.verify_password(b"geheim", &parsed).unwrap();
    }

    #[test]
    fn keys_are_checked_to_the_blob() {
        let good = "ssh-ed25519   AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@host";
        assert_eq!(key_line(good).unwrap().split(' ').count(), 3);
        for bad in [
            "",
            "ssh-ed25519",
            "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
            "command=\"x\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
            "ssh-ed25519 AAAA*3Nz",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl x\nssh-rsa y",
            "/etc/passwd",
        ] {
            assert!(key_line(bad).is_err(), "{bad}");
        }
    }
}
