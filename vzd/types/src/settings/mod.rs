//! Settings: what `vzctl set` and `vzctl create` change of one container besides its limits, one row each ([`table`]).
//! The command line, the API, the configuration, vzlist and docs/reference/settings.md all come from there; limits have
//! a table of their own ([`crate::limits::table`]) that is read in the same way.
//!
//! ```text
//! words typed --Setting::parse--> Value --JSON--> Value --Changes::set--> Changes --apply--> CtConfig --get--> Value
//! ```
//!
//! What a text means is known by the types of [`value`], where a value is kept by the slots of [`slot`]; vzctl and vzd
//! use the same ones. No I/O; may be imported by everybody.

mod changes;
pub mod inside;
pub mod slot;
pub mod table;
pub mod value;

pub use changes::Changes;
pub use inside::Password;
pub use slot::Change;
pub use table::{Applies, Column, How, Part, Room, SETTINGS, SSHKEY, SSHUSER, Setting, USERPASSWD};
pub use value::{Shape, Value};

use crate::{CtConfig, ExitCode, UserName, names::NameError};
use std::collections::BTreeMap;

/// Why a value was refused: which setting, what is wrong and what is accepted, and what `vzctl` exits with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {why}")]
pub struct SettingError {
    /// The setting.
    pub name: String,
    /// What is wrong with the value, which is named, and what is accepted.
    pub why: String,
    /// The exit code.
    pub code: ExitCode,
}

/// The setting of this name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}

/// What a configuration says, by the name of the setting; what it says nothing about is absent.
pub fn of(config: &CtConfig) -> BTreeMap<&'static str, Value> {
    SETTINGS.iter().filter_map(|s| Some((s.name, s.get(config)?))).collect()
}

/// The settings in which two configurations differ.
pub fn differing(old: &CtConfig, new: &CtConfig) -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(move |s| s.get(old) != s.get(new))
}

impl Setting {
    /// What the words behind this option mean, one for each time it was given.
    ///
    /// # Errors
    /// Names the setting, the words and what is accepted.
    pub fn parse(&self, given: &[String]) -> Result<Value, SettingError> {
        if self.how == How::OneOrNone && given.last().is_some_and(String::is_empty) {
            return Ok(Value::Text(String::new()));
        }
        self.slot().and_then(|slot| slot.typed(given)).map_err(|why| self.error(why))
    }

    /// What a value sent to vzd changes.
    ///
    /// # Errors
    /// Names the setting, the value and what is accepted.
    pub fn change(&self, value: &Value) -> Result<Change, SettingError> {
        self.slot().and_then(|slot| slot.change(value)).map_err(|why| self.error(why))
    }

    /// What a configuration says about it; nothing where it is not set, or never in a configuration.
    pub fn get(&self, config: &CtConfig) -> Option<Value> {
        self.slot?.get(config)
    }

    /// Its key in the configuration file, tables and keys joined by dots.
    pub fn key(&self) -> Option<&'static str> {
        Some(self.slot?.key())
    }

    /// A refusal of a value.
    pub fn error(&self, why: impl Into<String>) -> SettingError {
        SettingError { name: self.name.into(), why: why.into(), code: self.code }
    }

    /// The user that a value is for.
    ///
    /// # Errors
    /// It is no name of a user.
    pub fn user(&self, name: &str) -> Result<UserName, SettingError> {
        name.parse().map_err(|e: NameError| self.error(e.to_string()))
    }

    fn slot(&self) -> Result<&'static dyn slot::Slot, String> {
        self.slot.ok_or_else(|| "it is in no configuration".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> CtConfig {
        CtConfig::new("x".parse().unwrap())
    }

    fn kept() -> impl Iterator<Item = &'static Setting> {
        SETTINGS.iter().filter(|s| s.slot.is_some())
    }

    fn made(s: &Setting, value: &Value, config: &CtConfig) -> CtConfig {
        let mut changes = Changes::default();
        changes.set(s.name, value).unwrap_or_else(|e| panic!("{e}"));
        changes.apply(config)
    }

    fn at<'t>(table: &'t toml::Table, key: &str) -> Option<&'t toml::Value> {
        match key.split_once('.') {
            None => table.get(key),
            Some((outer, rest)) => at(table.get(outer)?.as_table()?, rest),
        }
    }

    #[test]
    fn every_row_is_complete_and_named_once() {
        for s in SETTINGS {
            let words = [s.name, s.value, s.help, s.example];
            assert!(words.iter().all(|w| !w.is_empty()), "{}", s.name);
            let names = |s: &'static Setting| s.aliases.iter().copied().chain([s.name]);
            for name in names(s) {
                let others = SETTINGS.iter().filter(|o| o.name != s.name).flat_map(names);
                assert!(others.into_iter().all(|o| o != name), "{name} is there twice");
                assert!(crate::limits::LimitChanges::names().all(|l| l != name), "{name} is a limit as well");
            }
        }
    }

    /// The example of each row, from the words to the file and back; nothing else of the configuration changes.
    #[test]
    fn every_row_round_trips_through_its_key_of_the_configuration() {
        for s in kept().filter(|s| s.how != How::Removes) {
            let value = s.parse(&[s.example.to_owned()]).unwrap_or_else(|e| panic!("{e}"));
            let config = made(s, &value, &base());
            assert_eq!(s.get(&config), Some(value.clone()), "{}", s.name);
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<CtConfig>(&text).unwrap(), config, "{text}");
            assert!(at(&toml::from_str(&text).unwrap(), s.key().unwrap()).is_some(), "{} is not in\n{text}", s.name);
            let names: Vec<&str> = differing(&base(), &config).map(|s| s.name).collect();
            assert_eq!(names, [s.name]);
            assert_eq!(of(&config).get(s.name), Some(&value));
            assert_eq!(made(s, &value, &config), config, "{}: twice is once", s.name);
        }
    }

    #[test]
    fn what_can_be_removed_is_removed_by_an_empty_text() {
        for s in kept().filter(|s| matches!(s.how, How::OneOrNone | How::All)) {
            let full = made(s, &s.parse(&[s.example.to_owned()]).unwrap(), &base());
            let empty = s.parse(&[String::new()]).unwrap();
            assert_eq!(made(s, &empty, &full), base(), "{}", s.name);
        }
        for s in kept().filter(|s| matches!(s.how, How::One | How::Switches)) {
            assert!(s.parse(&[String::new()]).is_err(), "{}", s.name);
        }
    }

    #[test]
    fn addresses_are_removed_before_any_is_added() {
        let list = |words: &[&str]| Value::List(words.iter().map(|w| (*w).to_owned()).collect());
        let mut changes = Changes::default();
        changes.set("ipadd", &list(&["10.0.0.9", "fd00::9/128", "10.0.0.9"])).unwrap();
        changes.set("ipdel", &list(&["10.0.0.2"])).unwrap();
        let now: Vec<_> = ["10.0.0.2", "10.0.0.3"].iter().map(|a| a.parse().unwrap()).collect();
        let shown = |all: Vec<crate::CtAddr>| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(shown(changes.addresses(&now)), ["10.0.0.3", "10.0.0.9", "fd00::9"]);
        changes.set("ipdel", &list(&["all"])).unwrap();
        assert_eq!(shown(changes.addresses(&now)), ["10.0.0.9", "fd00::9"]);
    }

    #[test]
    fn features_keep_the_order_of_their_list_and_can_be_switched_off() {
        let features = find("features").unwrap();
        let on = made(features, &features.parse(&["bpf:on,nesting:on".into()]).unwrap(), &base());
        assert_eq!(toml::to_string(&on.features[0]).ok(), toml::to_string(&crate::config::Feature::Nesting).ok());
        let off = made(features, &features.parse(&["nesting:off".into(), "bpf:off".into()]).unwrap(), &on);
        assert_eq!(off, base());
    }

    #[test]
    fn a_value_of_another_type_and_a_setting_that_is_none_are_refused() {
        let all = [
            Value::Flag(true),
            Value::Number(u64::MAX),
            Value::Text("..".into()),
            Value::List(vec!["..".into()]),
            Value::Switches([("fly".to_owned(), true)].into()),
        ];
        for s in kept() {
            let shape = s.slot.map(|slot| slot.shape());
            for value in all.iter().filter(|v| shape != Some(v.shape()) && shape != Some(Shape::Number32)) {
                let e = s.change(value).err().unwrap_or_else(|| panic!("{} takes {value:?}", s.name));
                assert_eq!((e.name.as_str(), e.code), (s.name, s.code));
            }
        }
        assert!(Changes::default().set("onbot", &all[0]).is_err());
        assert!(Changes::default().set("userpasswd", &all[2]).is_err(), "it has no value to keep");
        assert!(find("bootorder").unwrap().change(&Value::Number(1 << 32)).is_err());
    }
}
