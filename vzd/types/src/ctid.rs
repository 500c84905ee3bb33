//! The number of a container.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A container's number: 101..=2147483644. 0 is the host and 1..=100 are reserved, as in OpenVZ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Ctid(u32);

/// Why a CTID was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CtidError {
    /// The text is no decimal number.
    #[error("CTID `{0}` is not a number; a CTID is 101..2147483644")]
    NotANumber(String),
    /// The number is outside the range.
    #[error("CTID {0} is out of range: 0 is the host, 1..100 are reserved, the largest is 2147483644")]
    OutOfRange(u64),
}

impl Ctid {
    /// Smallest CTID an operator can use.
    pub const MIN: u32 = 101;
    /// Largest CTID (vzctl 4.11).
    pub const MAX: u32 = 2_147_483_644;

    /// The plain number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Ctid {
    type Error = CtidError;
    fn try_from(n: u32) -> Result<Self, CtidError> {
        if (Self::MIN..=Self::MAX).contains(&n) { Ok(Self(n)) } else { Err(CtidError::OutOfRange(n.into())) }
    }
}

impl From<Ctid> for u32 {
    fn from(c: Ctid) -> u32 {
        c.0
    }
}

impl FromStr for Ctid {
    type Err = CtidError;
    fn from_str(s: &str) -> Result<Self, CtidError> {
        if s.is_empty() || !s.bytes().all(|b| b.is_ascii_digit()) {
            return Err(CtidError::NotANumber(s.chars().take(64).collect()));
        }
        let n: u64 = s.parse().map_err(|_| CtidError::OutOfRange(u64::MAX))?;
        u32::try_from(n).map_err(|_| CtidError::OutOfRange(n)).and_then(Ctid::try_from)
    }
}

impl fmt::Display for Ctid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Ctid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
