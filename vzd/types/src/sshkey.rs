//! One line of an authorized_keys file, as an operator gives it.

use base64ct::{Base64, Encoding};
use std::{fmt, str::FromStr};

/// Longest line taken, in bytes. An RSA key of 16384 bits has less than 3 KiB.
const MAX_LINE: usize = 16_384;

/// Key types OpenSSH takes in authorized_keys (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
const KEY_TYPES: &[&str] = &[
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// A public key: `type base64 [comment]` with single spaces. Options before the type are not taken: they can run
/// programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshPublicKey(String);

/// Why a line is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshKeyError {
    /// Control characters, or too long.
    #[error("it is not one line of at most 16384 characters")]
    Line,
    /// Less than two words.
    #[error("it has no type and body")]
    Words,
    /// A type sshd does not take.
    #[error("its type is not one that OpenSSH accepts")]
    Type,
    /// Not base64 with padding (RFC 4648 section 4).
    #[error("its body is not base64")]
    Base64,
    /// The body does not begin with the type's own name.
    #[error("its body is cut short or of another type")]
    Body,
}

impl SshPublicKey {
    /// Whether the text begins as a public key does: whatever is wrong with it, it is not the name of a file.
    pub fn begins(text: &str) -> bool {
        text.split_whitespace().next().is_some_and(|w| KEY_TYPES.contains(&w)) && text.split_whitespace().count() > 1
    }

    /// The line, without a line feed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SshPublicKey {
    type Err = SshKeyError;

    fn from_str(text: &str) -> Result<Self, SshKeyError> {
        if text.len() > MAX_LINE || text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(SshKeyError::Line);
        }
        let mut words = text.split_whitespace();
        let (Some(kind), Some(body)) = (words.next(), words.next()) else { return Err(SshKeyError::Words) };
        if !KEY_TYPES.contains(&kind) {
            return Err(SshKeyError::Type);
        }
        let blob = Base64::decode_vec(body).map_err(|_| SshKeyError::Base64)?;
        // RFC 4253 6.6: the blob begins with its own type as a length-prefixed string, and more comes after it.
        let length = blob.first_chunk().map(|l| u32::from_be_bytes(*l) as usize);
        let own = length.and_then(|n| blob.get(4..4usize.checked_add(n)?));
        if own != Some(kind.as_bytes()) || blob.len() <= 8 + kind.len() {
            return Err(SshKeyError::Body);
        }
        let comment: Vec<&str> = words.collect();
        Ok(Self([kind, body, &comment.join(" ")].join(" ").trim_end().to_owned()))
    }
}

impl fmt::Display for SshPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

    #[test]
    fn keys_are_checked_to_the_blob() {
        let good: SshPublicKey = format!("ssh-ed25519 \t {BODY} me@host  at work").parse().unwrap();
        assert_eq!(good.as_str(), format!("ssh-ed25519 {BODY} me@host at work"));
        for (bad, why) in [
            (String::new(), SshKeyError::Words),
            ("ssh-ed25519".into(), SshKeyError::Words),
            (format!("ssh-rsa {BODY}"), SshKeyError::Body),
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5".into(), SshKeyError::Body),
            (format!("command=\"x\" ssh-ed25519 {BODY}"), SshKeyError::Type),
            ("ssh-ed25519 AAAA*3Nz".into(), SshKeyError::Base64),
            ("ssh-ed25519 //////8=".into(), SshKeyError::Body),
            (format!("ssh-ed25519 {BODY} x\nssh-rsa y"), SshKeyError::Line),
            ("/etc/passwd".into(), SshKeyError::Words),
            (format!("ssh-ed25519 {BODY} {}", "x".repeat(MAX_LINE)), SshKeyError::Line),
        ] {
            assert_eq!(bad.parse::<SshPublicKey>(), Err(why), "{bad}");
        }
    }
}
