//! Names that operators and tenants type, made into types at the door. Each refuses anything that
//! could be a path, an option or a control sequence, so nothing behind the door has to.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Why a name was refused: what kind of name, the text, and the rule it broke.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{kind} {text:?} is not usable: {rule}")]
pub struct NameError {
    /// What kind of name it was to be.
    pub kind: &'static str,
    /// The text, cut to 80 characters.
    pub text: String,
    /// The rule it broke and what is accepted.
    pub rule: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $ty:ident, $kind:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $ty(String);
        impl $ty {
            /// The text.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl FromStr for $ty {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(s) {
                    Ok(()) => Ok(Self(s.to_owned())),
                    Err(rule) => Err(NameError { kind: $kind, text: s.chars().take(80).collect(), rule }),
                }
            }
        }
        impl TryFrom<String> for $ty {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> { s.parse() }
        }
        impl From<$ty> for String { fn from(n: $ty) -> String { n.0 } }
        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{:?}", self.0) }
        }
    };
}

fn word(s: &str, max: usize, extra: &[u8]) -> bool {
    !s.is_empty()
        && s.len() <= max
        && s.as_bytes()[0].is_ascii_alphanumeric()
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}

name_type!(
    /// The operator's name for a container. Never all digits, so that it can stand where a CTID does.
    CtName, "CT name", |s| {
        if !word(s, 63, b"-_.") {
            return Err("use 1 to 63 letters, digits, `-`, `_` or `.`, starting with a letter or digit");
        }
        if s.bytes().all(|b| b.is_ascii_digit()) {
            return Err("a name of digits only would be taken for a CTID; add a letter");
        }
        Ok(())
    }
);
name_type!(
    /// An OS template's name, like `debian-12`. One path component, never a path.
    TemplateName, "OS template name", |s| {
        if word(s, 64, b"-_.") { Ok(()) } else {
            Err("use 1 to 64 letters, digits, `-`, `_` or `.`, starting with a letter or digit; paths are not names")
        }
    }
);
name_type!(
    /// A host name: labels of 1 to 63 letters, digits and `-`, joined by dots, 64 characters in all
    /// (the kernel's `__NEW_UTS_LEN`).
    Hostname, "host name", |s| {
        let label = |l: &str| word(l, 63, b"-_") && !l.ends_with('-');
        if s.len() <= 64 && s.split('.').all(label) { Ok(()) } else {
            Err("use labels of letters, digits and `-`, joined by dots, 64 characters in all (RFC 1123)")
        }
    }
);
name_type!(
    /// A DNS search domain; RFC 1035 limits it to 253 characters.
    SearchDomain, "search domain", |s| {
        let label = |l: &str| word(l, 63, b"-_") && !l.ends_with('-');
        if s.len() <= 253 && s.split('.').all(label) { Ok(()) } else {
            Err("use labels of letters, digits and `-`, joined by dots")
        }
    }
);
name_type!(
    /// A user of the container (`useradd(8)`: lower case, digits, `_`, `-`, at most 32).
    UserName, "user name", |s| {
        let first = s.as_bytes().first().is_some_and(|b| b.is_ascii_lowercase() || *b == b'_');
        if first && s.len() <= 32 && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b)) {
            Ok(())
        } else {
            Err("use 1 to 32 lower-case letters, digits, `_` or `-`, starting with a letter")
        }
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_or_digits_are_refused() {
        for bad in ["", "101", "..", ".hidden", "a/b", "../x", "-rf", "a b", "a\n", "é"] {
            assert!(bad.parse::<CtName>().is_err(), "{bad:?}");
        }
        for good in ["web1", "1a", "a.b-c_d"] {
            assert!(good.parse::<CtName>().is_ok(), "{good:?}");
        }
        assert!("a..b".parse::<Hostname>().is_err());
        assert!("a-.b".parse::<Hostname>().is_err());
        assert!("web1.example.org".parse::<Hostname>().is_ok());
    }
}
