//! What one request changes of a container, in types that hold only what may be asked.

use super::{Change, SettingError, Value, find, slot::AddressChange};
use crate::{CtAddr, CtConfig, ExitCode, UserName, limits::LimitChanges};
use std::{collections::BTreeMap, fmt};

/// Changes to a container's configuration and files.
#[derive(Clone, Default)]
pub struct Changes {
    /// What is set in the configuration, by the name of the setting.
    config: BTreeMap<&'static str, Change>,
    /// crypt(5) hashes to set, never the passwords.
    pub passwords: Vec<(UserName, String)>,
    /// Keys to add, checked.
    pub keys: BTreeMap<UserName, Vec<String>>,
    /// Beancounters, processor time, disk bandwidth.
    pub limits: LimitChanges,
    /// A sample configuration whose limits come before all of these.
    pub sample: Option<String>,
    /// Forget maxheld and failcnt.
    pub reset_ub: bool,
    /// All of it as it was asked for, for the record: of secrets only whose they are.
    pub asked: Vec<String>,
}

impl fmt::Debug for Changes {
    /// Names what changes and never shows a hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("config", &self.config.keys())
            .field("passwords", &self.passwords.iter().map(|(user, _)| user).collect::<Vec<_>>())
            .field("keys", &self.keys.keys())
            .field("limits", &self.limits)
            .field("sample", &self.sample)
            .field("reset_ub", &self.reset_ub)
            .finish()
    }
}

impl Changes {
    /// Takes one setting as it was sent.
    ///
    /// # Errors
    /// There is no such setting, or it does not take this value.
    pub fn set(&mut self, name: &str, value: &Value) -> Result<(), SettingError> {
        let setting = find(name).ok_or_else(|| SettingError {
            name: name.into(),
            why: "there is no such setting".into(),
            code: ExitCode::BadSyntax,
        })?;
        self.config.insert(setting.name, setting.change(value)?);
        Ok(())
    }

    /// Whether this setting is among them, whatever it was before.
    pub fn names(&self, name: &str) -> bool {
        self.config.contains_key(name)
    }

    /// The configuration with these changes; what it is about files of the container has no part in it.
    pub fn apply(&self, config: &CtConfig) -> CtConfig {
        let mut c = config.clone();
        for change in self.config.values() {
            if let Change::Config(put) = change {
                put(&mut c);
            }
        }
        c.network.ip = self.addresses(&c.network.ip);
        self.limits.apply(&mut c);
        c
    }

    /// Addresses after removal and addition, in order.
    pub fn addresses(&self, now: &[CtAddr]) -> Vec<CtAddr> {
        let mut all = now.to_vec();
        for change in self.address_changes() {
            all.retain(|ip| !change.clear && !change.remove.contains(ip));
        }
        for ip in self.address_changes().flat_map(|change| &change.add) {
            if !all.contains(ip) {
                all.push(*ip);
            }
        }
        all
    }

    fn address_changes(&self) -> impl Iterator<Item = &AddressChange> {
        self.config.values().filter_map(|change| match change {
            Change::Addresses(change) => Some(change),
            Change::Config(_) => None,
        })
    }

    /// Whether files inside are edited at once, whatever is saved.
    pub fn touches_files(&self) -> bool {
        !self.passwords.is_empty() || !self.keys.is_empty()
    }
}
