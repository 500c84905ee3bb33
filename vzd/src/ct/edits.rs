//! Changes to a container's own files: which ones a configuration asks for at each boot, which ones a
//! request asks for at once, and the making of what goes into them (crypt hashes, key lines).

use super::Changes;
use crate::{
    conf::write_atomically,
    error::{Error, Result},
    network::host_nameservers,
};
use sha_crypt::{PasswordHasher, ShaCrypt};
use std::{fs, io::Read, path::Path};
use vz_types::{
    CtConfig, ExitCode,
    config::NetworkConfig,
    plan::{FileEdit, resolve_nameservers},
    written::{self, Written},
};

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
            asked: Some(asked(net)),
        });
    }
    edits
}

/// The name servers and search domains of a configuration, in the operator's words.
fn asked(net: &NetworkConfig) -> String {
    let mut text = String::new();
    if !net.searchdomain.is_empty() {
        let words: Vec<&str> = net.searchdomain.iter().map(|s| s.as_str()).collect();
        text.push_str(&format!("search {}\n", words.join(" ")));
    }
    net.nameserver.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n")));
    text
}

/// Those of [`boot`] that a request asks for: by name, even if the configuration says so already and the tenant does
/// not, or by another value. A file nobody asked to change is left alone, and cannot fail a change of another.
pub fn changed(old: &CtConfig, new: &CtConfig, changes: &Changes) -> Vec<FileEdit> {
    let hostname = old.hostname != new.hostname || changes.names("hostname");
    let resolver = named_resolver(changes)
        || old.network.nameserver != new.network.nameserver
        || old.network.searchdomain != new.network.searchdomain;
    let asked = |edit: &FileEdit| match edit {
        FileEdit::Hostname { .. } => hostname,
        FileEdit::Resolver { .. } => resolver,
        FileEdit::Password { .. } | FileEdit::SshKeys { .. } => false,
    };
    boot(new).into_iter().filter(asked).collect()
}

fn named_resolver(changes: &Changes) -> bool {
    changes.names("nameserver") || changes.names("searchdomain")
}

/// Has the next start write what a request names into a stopped container, whatever the tenant has there: in the record
/// of what was written last ([`vz_types::written`]) it counts as never written.
///
/// # Errors
/// The record cannot be replaced.
pub fn forget(private: &Path, changes: &Changes) -> Result<()> {
    let (hostname, resolver) = (changes.names("hostname"), named_resolver(changes));
    if !hostname && !resolver {
        return Ok(());
    }
    let path = private.join(written::FILE);
    // Without a record everything is written; one that cannot be read is told of by the start.
    let Ok(text) = vz_sys::records::read(&path) else { return Ok(()) };
    let Ok(old) = serde_json::from_slice::<Written>(&text) else { return Ok(()) };
    let new = Written {
        hostname: old.hostname.clone().filter(|_| !hostname),
        resolver: old.resolver.clone().filter(|_| !resolver),
    };
    if new == old {
        return Ok(());
    }
    let write = || write_atomically(&path, &serde_json::to_vec(&new)?, 0o600);
    write().map_err(Error::io("writing", &path))
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
