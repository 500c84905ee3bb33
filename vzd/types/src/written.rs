//! What vz wrote last into a container's own files, and for which setting: `written.json` in its private area, out of
//! the tenant's reach and carried along with the files. By it a start tells a setting that the operator has changed from
//! a file that the tenant has. vzmon keeps it; vzd drops an entry where the operator asks for a file anew.

use crate::plan::FileEdit;
use serde::{Deserialize, Serialize};

/// Its name in the private area.
pub const FILE: &str = "written.json";

/// The record. An entry that is missing: vz has not written that file yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Written {
    /// `/etc/hostname`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Entry>,
    /// `/etc/resolv.conf`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolver: Option<Entry>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The setting in the operator's words: `inherit` is `inherit`, whatever the host has.
    pub setting: String,
    /// The whole file as vz wrote it.
    pub text: String,
}

impl Written {
    /// The entry of the file that this edit writes as a whole; `None`: it writes none.
    pub fn slot(&mut self, edit: &FileEdit) -> Option<&mut Option<Entry>> {
        match edit {
            FileEdit::Hostname { .. } => Some(&mut self.hostname),
            FileEdit::Resolver { .. } => Some(&mut self.resolver),
            FileEdit::Password { .. } | FileEdit::SshKeys { .. } => None,
        }
    }
}

impl Entry {
    /// What this edit is to write; `None`: it writes no file as a whole, or nothing at all.
    pub fn of(edit: &FileEdit) -> Option<Self> {
        match edit {
            FileEdit::Hostname { hostname } => {
                Some(Self { setting: hostname.to_string(), text: format!("{hostname}\n") })
            }
            FileEdit::Resolver { nameservers, search, asked } => {
                if nameservers.is_empty() && search.is_empty() {
                    return None;
                }
                let mut lines = String::new();
                if !search.is_empty() {
                    let words: Vec<&str> = search.iter().map(|s| s.as_str()).collect();
                    lines.push_str(&format!("search {}\n", words.join(" ")));
                }
                for server in nameservers {
                    lines.push_str(&format!("nameserver {server}\n"));
                }
                // A vzd of a version that did not say how it was asked has asked for just these.
                let setting = asked.clone().unwrap_or_else(|| lines.clone());
                Some(Self { setting, text: format!("{HEADER}{lines}") })
            }
            FileEdit::Password { .. } | FileEdit::SshKeys { .. } => None,
        }
    }
}

/// First line of a resolv.conf of ours.
const HEADER: &str = "# Written by vz (vzctl set --nameserver, --searchdomain). Yours once you change it.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_what_was_asked_and_what_came_of_it() {
        let mut edit = FileEdit::Resolver {
            nameservers: vec!["192.0.2.53".parse().unwrap()],
            search: vec!["example.org".parse().unwrap()],
            asked: Some("nameserver inherit".into()),
        };
        let entry = Entry::of(&edit).unwrap();
        assert_eq!(entry.setting, "nameserver inherit");
        assert!(entry.text.ends_with("\nsearch example.org\nnameserver 192.0.2.53\n"), "{}", entry.text);
        let FileEdit::Resolver { asked, .. } = &mut edit else { unreachable!() };
        *asked = None;
        assert_eq!(Entry::of(&edit).unwrap().setting, "search example.org\nnameserver 192.0.2.53\n");
        let none = FileEdit::Resolver { nameservers: Vec::new(), search: Vec::new(), asked: Some("inherit".into()) };
        assert_eq!(Entry::of(&none), None, "a host without name servers has nothing to inherit");
        let mut written = Written::default();
        *written.slot(&edit).unwrap() = Some(entry);
        let text = serde_json::to_string(&written).unwrap();
        assert!(!text.contains("hostname"), "{text}");
        assert_eq!(serde_json::from_str::<Written>(&text).unwrap(), written);
    }
}
