//! What is changed inside a container at once and kept nowhere: the values of those settings.

use std::{fmt, str::FromStr};

/// A password as somebody gives it: 1 to 256 bytes without control characters. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The password itself, to be hashed or sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Password {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > 256 || text.chars().any(char::is_control) {
            return Err("is not usable: it needs 1 to 256 bytes without control characters");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::Password;

    #[test]
    fn passwords_are_one_line_of_bounded_length_and_are_not_shown() {
        for bad in [String::new(), "a\nb".into(), "a\tb".into(), "x".repeat(257)] {
            assert!(bad.parse::<Password>().is_err(), "{bad:?}");
        }
        let good: Password = "geheim ж".parse().unwrap();
        assert_eq!((good.as_str(), format!("{good:?}").as_str()), ("geheim ж", "***"));
    }
}
