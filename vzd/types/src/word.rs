//! A word of a command line: bytes without a meaning of their own, as execve(2) takes them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Any bytes. In JSON a plain string where they are UTF-8, as every version reads and writes it, else
/// `{"bytes": [255, ...]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Word(Vec<u8>);

/// How a word stands in JSON.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Told {
    Text(String),
    Bytes { bytes: Vec<u8> },
}

impl Word {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is UTF-8, which is all that monitors of earlier versions understand.
    pub fn is_text(&self) -> bool {
        std::str::from_utf8(&self.0).is_ok()
    }

    /// These, with a blank between each two, as a shell's `"$*"`.
    pub fn joined(words: &[OsString]) -> Self {
        Self(words.iter().map(|w| w.as_bytes()).collect::<Vec<_>>().join(&b' '))
    }
}

impl From<Vec<u8>> for Word {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}
impl From<&[u8]> for Word {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}
impl From<&str> for Word {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}
impl From<String> for Word {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}
impl From<OsString> for Word {
    fn from(text: OsString) -> Self {
        Self(text.into_vec())
    }
}

impl AsRef<OsStr> for Word {
    fn as_ref(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => s.serialize_str(text),
            Err(_) => Told::Bytes { bytes: self.0.clone() }.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Self(match Told::deserialize(d)? {
            Told::Text(text) => text.into_bytes(),
            Told::Bytes { bytes } => bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_written_as_versions_before_wrote_it() {
        assert_eq!(serde_json::to_string(&Word::from("grüß")).unwrap(), "\"grüß\"");
        assert_eq!(serde_json::to_string(&Word::from(&b"a\xff"[..])).unwrap(), "{\"bytes\":[97,255]}");
        assert!(serde_json::from_str::<Word>("{\"bytes\":[256]}").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes: Vec<u8>) {
            let word = Word::from(bytes);
            prop_assert_eq!(serde_json::from_str::<Word>(&serde_json::to_string(&word).unwrap()).unwrap(), word);
        }
    }
}
