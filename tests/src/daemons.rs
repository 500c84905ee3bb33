//! The daemons that are tried (`tests/daemons.toml`), and what of them is known not to work anywhere or not in a container.

use crate::template::checkout;
use serde::Deserialize;
use std::{collections::BTreeMap, fs};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Daemons {
    /// Packages by kind.
    kind: BTreeMap<String, Vec<String>>,
    /// What is known of some.
    #[serde(default)]
    known: Vec<Known>,
}

/// What does not work after an installation, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// Its package.
    package: String,
    /// The unit; none: the installation itself.
    #[serde(default)]
    unit: Option<String>,
    /// The reason, as the page has it.
    why: String,
}

/// Reads it.
///
/// # Panics
/// If the file is not there or says something else.
pub fn list() -> Daemons {
    let path = checkout().join("tests/daemons.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

impl Daemons {
    /// Every package, in the order of the file.
    pub fn packages(&self) -> impl Iterator<Item = &str> {
        self.kind.values().flatten().map(String::as_str)
    }

    /// Whether what was seen of a package is known, with a reason.
    pub fn explains(&self, package: &str, seen: &str) -> bool {
        self.known.iter().filter(|k| k.package == package).any(|k| match &k.unit {
            Some(unit) => ["failed", "restarts"].iter().any(|w| seen.starts_with(&format!("{w}: {unit}: "))),
            None => seen.starts_with("install: "),
        })
    }

    /// The part of `docs/reference/inits.md` that tells of them.
    pub fn page(&self) -> String {
        let mut text = format!(
            "{} of Debian's daemons are installed one after another in a container of Debian 12 and of Debian 13 by \
             `cargo xtask long hundred_daemons`: no unit fails and no process spins, but for these.\n\n| package | unit | why \
             it fails |\n|---|---|---|\n",
            self.packages().count()
        );
        for known in &self.known {
            let unit = known.unit.as_deref().unwrap_or("its installation");
            text.push_str(&format!("| `{}` | {unit} | {} |\n", known.package, known.why));
        }
        text.push_str("\nThe daemons:\n\n");
        for (kind, packages) in &self.kind {
            text.push_str(&format!("- {kind}: {}\n", packages.join(", ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_a_hundred_each_once_and_what_is_known_of_one_has_a_reason() {
        let list = list();
        let mut all: Vec<&str> = list.packages().collect();
        assert!(all.len() >= 100, "{}", all.len());
        all.sort_unstable();
        assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{all:?}");
        for known in &list.known {
            assert!(list.packages().any(|p| p.split('|').any(|p| p == known.package)), "{known:?}");
            assert!(known.why.len() > 20, "{known:?}");
        }
        assert!(list.explains("krb5-kdc", "failed: krb5-kdc.service: exit-code: x"));
        assert!(!list.explains("krb5-kdc", "failed: other.service: exit-code: x"));
        assert!(!list.explains("krb5-kdc", "spins: krb5kdc"));
    }
}
