//! Changes to a container's own files: which ones a configuration asks for at each boot, which ones a
//! request asks for at once, and the making of what goes into them (crypt hashes, key lines).

use super::Changes;
use crate::{
    error::{Error, Result},
    network::host_nameservers,
};
use sha_crypt::{PasswordHasher, ShaCrypt};
use std::{fs, io::Read, path::Path};
use vz_types::{CtConfig, ExitCode, plan::FileEdit, plan::resolve_nameservers};

/// Edits before each boot's init.
pub fn boot(config: &CtConfig) -> Vec<FileEdit> {
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
pub fn changed(old: &CtConfig, new: &CtConfig) -> Vec<FileEdit> {
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
pub fn now(changes: &Changes) -> Vec<FileEdit> {
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
}
