//! Amounts with units: [`Bytes`], [`Limit`], and the first id of a container's range, [`UidBase`].

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// An amount of memory or disk, in bytes. Text: a number with an optional K, M, G, T or P suffix
/// (powers of 1024); fractions are allowed (`2.5G`). A bare number is bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "BytesText", into = "String")]
pub struct Bytes(pub u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum BytesText {
    Number(u64),
    Text(String),
}

/// Why an amount was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SizeError {
    /// Not a number with a known suffix.
    #[error("`{0}` is not an amount; write a number with an optional suffix, like 512M or 2.5G")]
    Syntax(String),
    /// More than 2^63-1.
    #[error("`{0}` is too large: the largest amount is 8191P")]
    TooLarge(String),
}

impl TryFrom<BytesText> for Bytes {
    type Error = SizeError;
    fn try_from(t: BytesText) -> Result<Self, SizeError> {
        match t {
            BytesText::Number(n) => Ok(Bytes(n)),
            BytesText::Text(s) => s.parse(),
        }
    }
}

impl FromStr for Bytes {
    type Err = SizeError;
    fn from_str(s: &str) -> Result<Self, SizeError> {
        let syntax = || SizeError::Syntax(s.chars().take(40).collect());
        let upper = s.trim().to_ascii_uppercase();
        let body = upper.strip_suffix("IB").or_else(|| upper.strip_suffix('B')).unwrap_or(&upper);
        let (digits, shift) = match body.as_bytes().last() {
            Some(b'K') => (&body[..body.len() - 1], 10),
            Some(b'M') => (&body[..body.len() - 1], 20),
            Some(b'G') => (&body[..body.len() - 1], 30),
            Some(b'T') => (&body[..body.len() - 1], 40),
            Some(b'P') => (&body[..body.len() - 1], 50),
            _ => (body, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || fraction.len() > 9 {
            return Err(syntax());
        }
        let too_large = || SizeError::TooLarge(s.chars().take(40).collect());
        let unit = 1u128 << shift;
        let mut total = whole.parse::<u128>().map_err(|_| too_large())?.checked_mul(unit).ok_or_else(too_large)?;
        if !fraction.is_empty() {
            let f: u128 = fraction.parse().map_err(|_| syntax())?;
            total += f * unit / 10u128.pow(fraction.len() as u32);
        }
        if total > i64::MAX as u128 { Err(too_large()) } else { Ok(Bytes(total as u64)) }
    }
}

impl fmt::Display for Bytes {
    /// The largest suffix that loses nothing, so that text and value round-trip.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (suffix, shift) in [("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10)] {
            if self.0 != 0 && self.0 % (1 << shift) == 0 {
                return write!(f, "{}{suffix}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Bytes> for String {
    fn from(b: Bytes) -> String {
        b.to_string()
    }
}

/// A limit that may be absent. On the classic command line and in JSON output `unlimited` is
/// 9223372036854775807 (`LONG_MAX`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit<T> {
    /// At most this much.
    At(T),
    /// No limit.
    Unlimited,
}

/// The first of a container's 65536 user and group ids on the host: low 16 bits zero, inside
/// 524288..=1879048191, so never host uid 0 and never a range a distribution hands out by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct UidBase(u32);

impl UidBase {
    /// The lowest base.
    pub const MIN: u32 = 524_288;
    /// Ids in one container's range.
    pub const COUNT: u32 = 65_536;
    /// The last id any container may own.
    pub const LAST_ID: u32 = 1_879_048_191;
    /// How many ranges there are.
    pub const SLOTS: u32 = (Self::LAST_ID + 1 - Self::MIN) / Self::COUNT;

    /// The first host id of the range.
    pub fn get(self) -> u32 {
        self.0
    }

    /// The `slot`th range, counted from 0 and wrapping at [`UidBase::SLOTS`].
    pub fn from_slot(slot: u32) -> Self {
        Self(Self::MIN + (slot % Self::SLOTS) * Self::COUNT)
    }
}

impl TryFrom<u32> for UidBase {
    type Error = String;
    fn try_from(n: u32) -> Result<Self, String> {
        if n % Self::COUNT == 0 && (Self::MIN..=Self::LAST_ID).contains(&n) {
            Ok(Self(n))
        } else {
            Err(format!("uid base {n} is not a multiple of 65536 inside 524288..1879048191"))
        }
    }
}

impl From<UidBase> for u32 {
    fn from(b: UidBase) -> u32 {
        b.0
    }
}

/// How many ids a container has: whole ranges of [`UidBase::COUNT`], which need not lie beside each other on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct IdCount(u32);

impl IdCount {
    /// The most: 64 ranges, whose map is still one write of a page (user_namespaces(7)).
    pub const MAX: u32 = 64 * UidBase::COUNT;

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Whether it is what a container has that says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// How many ranges besides the first.
    pub fn more(self) -> usize {
        (self.0 / UidBase::COUNT) as usize - 1
    }
}

impl Default for IdCount {
    fn default() -> Self {
        Self(UidBase::COUNT)
    }
}

impl TryFrom<u32> for IdCount {
    type Error = String;
    fn try_from(n: u32) -> Result<Self, String> {
        match n > 0 && n % UidBase::COUNT == 0 && n <= Self::MAX {
            true => Ok(Self(n)),
            false => Err(format!("{n} is not a multiple of {} up to {}", UidBase::COUNT, Self::MAX)),
        }
    }
}

impl From<IdCount> for u32 {
    fn from(n: IdCount) -> Self {
        n.0
    }
}

/// A line of an id map (user_namespaces(7)): the first id inside, the first one outside, how many.
pub type Extent = (u32, u32, u32);

/// The id map of a container: its ranges one after another. Those that lie beside each other are one extent, because what a
/// user namespace inside is given has to lie within one.
pub fn id_map(base: UidBase, more: &[UidBase]) -> Vec<Extent> {
    let mut map: Vec<Extent> = Vec::new();
    for (range, n) in std::iter::once(&base).chain(more).zip(0u32..) {
        match map.last_mut() {
            Some((_, outside, count)) if *outside + *count == range.get() => *count += UidBase::COUNT,
            _ => map.push((n * UidBase::COUNT, range.get(), UidBase::COUNT)),
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_with_fractions_and_suffixes() {
        assert_eq!("2.5G".parse(), Ok(Bytes(5 << 29)));
        assert_eq!("512M".parse(), Ok(Bytes(512 << 20)));
        assert_eq!("0".parse(), Ok(Bytes(0)));
        assert_eq!(
            id_map(UidBase::from_slot(3), &[UidBase::from_slot(1)]),
            [(0, UidBase::from_slot(3).get(), 65_536), (65_536, UidBase::from_slot(1).get(), 65_536),]
        );
        assert_eq!(
            id_map(UidBase::from_slot(9), &[4, 5, 7].map(UidBase::from_slot)),
            [
                (0, UidBase::from_slot(9).get(), 65_536),
                (65_536, UidBase::from_slot(4).get(), 131_072),
                (196_608, UidBase::from_slot(7).get(), 65_536),
            ]
        );
        for bad in [0, 65_535, 65_537, 100_000, IdCount::MAX + 65_536] {
            assert!(IdCount::try_from(bad).is_err(), "{bad}");
        }
        assert_eq!(IdCount::try_from(196_608).map(IdCount::more), Ok(2));
        for bad in ["", "G", "-1", "1X", "1.2.3", "0x10", "1e9"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        assert!(matches!("99999P".parse::<Bytes>(), Err(SizeError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn bytes_round_trip(n in 0u64..=i64::MAX as u64) {
            prop_assert_eq!(Bytes(n).to_string().parse(), Ok(Bytes(n)));
        }
    }
}
