//! The numbers of beancounters: an [`Amount`] (a number or unlimited), a [`Pair`] of barrier and limit, and how they
//! are written. The classic rules: suffixes T G M K and P (page, 4096 bytes) on memory, none on items, fractions with
//! a suffix, `A` alone means `A:A`, `unlimited` is 9223372036854775807.

use super::table::{Shape, Ub, Unit};
use std::fmt;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// No x86-64 host has more than 2^52 bytes of memory.
const MOST_BYTES: u128 = 1 << 52;

/// A number, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Amount {
    /// This much, in the counter's unit; below [`Amount::CLASSIC_UNLIMITED`].
    At(u64),
    /// No limit; more than any number.
    Unlimited,
}

impl Amount {
    /// `LONG_MAX`: how the classic tools print and take "unlimited".
    pub const CLASSIC_UNLIMITED: u64 = i64::MAX as u64;

    /// As the classic tools print it.
    pub fn classic(self) -> u64 {
        match self {
            Self::At(n) => n,
            Self::Unlimited => Self::CLASSIC_UNLIMITED,
        }
    }

    /// The number, if there is one.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::At(n) => Some(n),
            Self::Unlimited => None,
        }
    }
}

/// Barrier and limit of one counter, in its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Where something begins.
    pub barrier: Amount,
    /// What holds.
    pub limit: Amount,
}

impl Pair {
    /// What a counter has that nobody set.
    pub const UNLIMITED: Self = Self { barrier: Amount::Unlimited, limit: Amount::Unlimited };
}

/// Why a value was refused: which counter or parameter, the value, and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} `{value}`: {why}")]
pub struct LimitError {
    /// The counter or parameter.
    pub name: String,
    /// The value, cut to 60 characters.
    pub value: String,
    /// What is wrong and what is accepted.
    pub why: String,
}

impl LimitError {
    /// With the value cut to a length that fits a line.
    pub fn new(name: impl Into<String>, value: &str, why: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.chars().take(60).collect(), why: why.into() }
    }
}

/// What a counter of this unit takes, for messages.
pub fn accepted(unit: Unit) -> &'static str {
    match unit {
        Unit::Pages => {
            "write BARRIER:LIMIT or one number for both, in pages, or with a suffix like 256M or 1.5G, or unlimited"
        }
        Unit::Bytes => {
            "write BARRIER:LIMIT or one number for both, in bytes, or with a suffix like 256K or 1.5M, or unlimited"
        }
        Unit::Items => "write BARRIER:LIMIT or one number for both, without a suffix, or unlimited",
    }
}

/// One number of a counter.
///
/// # Errors
/// What is wrong with it, without the name of the counter.
pub fn parse_amount(text: &str, unit: Unit) -> Result<Amount, String> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("unlimited") {
        return Ok(Amount::Unlimited);
    }
    if text.starts_with('-') {
        return Err(format!("a negative number; {}", accepted(unit)));
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &text[digits.len()..];
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !number(whole) || !number(fraction) || fraction.len() > 9 || digits.ends_with('.') {
        return Err(format!("no number; {}", accepted(unit)));
    }
    let too_large = || format!("larger than any host; {}", accepted(unit));
    let scale: u128 = match (suffix.to_ascii_uppercase().as_str(), unit) {
        ("", Unit::Pages) => PAGE.into(),
        ("" | "B", Unit::Bytes) | ("", Unit::Items) | ("B", Unit::Pages) => 1,
        (_, Unit::Items) => return Err(format!("a number of things takes no suffix; {}", accepted(unit))),
        ("P", _) => PAGE.into(),
        ("K" | "KB", _) => 1 << 10,
        ("M" | "MB", _) => 1 << 20,
        ("G" | "GB", _) => 1 << 30,
        ("T" | "TB", _) => 1 << 40,
        _ => {
            return Err(format!("`{suffix}` is no suffix (there are K, M, G, T, and P for pages); {}", accepted(unit)));
        }
    };
    if !fraction.is_empty() && suffix.is_empty() {
        return Err(format!("a fraction needs a suffix; {}", accepted(unit)));
    }
    let whole: u128 = whole.parse().map_err(|_| too_large())?;
    if suffix.is_empty() && whole == u128::from(Amount::CLASSIC_UNLIMITED) {
        return Ok(Amount::Unlimited);
    }
    let mut amount = whole.checked_mul(scale).ok_or_else(too_large)?;
    if !fraction.is_empty() {
        let f: u128 = fraction.parse().map_err(|_| too_large())?;
        // Upwards, as pages are: a limit of 1.1 pages lets one use the second.
        amount = amount.checked_add((f * scale).div_ceil(10u128.pow(fraction.len() as u32))).ok_or_else(too_large)?;
    }
    let most = if unit == Unit::Items { u128::from(Amount::CLASSIC_UNLIMITED) - 1 } else { MOST_BYTES };
    if amount > most {
        return Err(too_large());
    }
    let amount = if unit == Unit::Pages { amount.div_ceil(PAGE.into()) } else { amount };
    Ok(Amount::At(amount as u64))
}

impl Pair {
    /// The value of a counter as typed or as in a configuration file.
    ///
    /// # Errors
    /// Names the counter, the value and the accepted form.
    pub fn parse(ub: Ub, text: &str) -> Result<Self, LimitError> {
        let row = ub.row();
        let bad = |why: String| LimitError::new(row.name, text, why);
        let mut parts = text.split(':');
        let (first, second, more) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        if more.is_some() {
            return Err(bad(format!("more than two numbers; {}", accepted(row.unit))));
        }
        let barrier = parse_amount(first, row.unit).map_err(bad)?;
        let limit = match second {
            Some(text) => parse_amount(text, row.unit).map_err(bad)?,
            None if row.shape == Shape::Guarantee => Amount::Unlimited,
            None => barrier,
        };
        let pair = Self { barrier, limit };
        match pair.fault(ub) {
            None => Ok(pair.settled(ub)),
            Some(why) => Err(bad(why)),
        }
    }

    /// What is wrong with it for this counter.
    fn fault(self, ub: Ub) -> Option<String> {
        let row = ub.row();
        if self.barrier > self.limit {
            return Some(format!(
                "the barrier is above the limit; {}, the limit not below the barrier",
                accepted(row.unit)
            ));
        }
        let least = |what: &str| {
            let shown = show(Amount::At(row.least), row.unit);
            Some(format!("the {what} is too small for a container to work; it is at least {shown}"))
        };
        match row.shape {
            Shape::Guarantee if self.barrier == Amount::Unlimited => {
                Some("nobody can be guaranteed an unlimited amount; write how much, 0 for none".into())
            }
            Shape::Guarantee if self.limit != Amount::Unlimited && self.limit != self.barrier => {
                Some("it guarantees its barrier; its limit is always unlimited, so write one number".into())
            }
            Shape::Limited if self.limit < Amount::At(row.least) => least("limit"),
            _ => None,
        }
    }

    /// In the one form that is kept.
    fn settled(self, ub: Ub) -> Self {
        match ub.row().shape {
            Shape::Guarantee => Self { limit: Amount::Unlimited, ..self },
            Shape::Limited => self,
        }
    }

    /// As it is written into a configuration file, such that [`Pair::parse`] gives the same again.
    pub fn show(self, ub: Ub) -> String {
        let unit = ub.row().unit;
        let (barrier, limit) = (show(self.barrier, unit), show(self.limit, unit));
        if barrier == limit { limit } else { format!("{barrier}:{limit}") }
    }
}

/// With the largest suffix that loses nothing.
pub fn show(amount: Amount, unit: Unit) -> String {
    let Amount::At(n) = amount else { return "unlimited".into() };
    let bytes = match unit {
        Unit::Items => return n.to_string(),
        Unit::Bytes => n,
        // Only whole K: a page is four of them.
        Unit::Pages => n.saturating_mul(PAGE),
    };
    for (suffix, shift) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] {
        if bytes != 0 && bytes % (1 << shift) == 0 {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// For people: `1.5G`, `312.4M`, at most one digit after the point.
pub fn human(bytes: u64) -> String {
    let text = column(bytes);
    match text.split_once(".0") {
        Some((whole, suffix)) => format!("{whole}{suffix}"),
        None if bytes < 1 << 10 => format!("{bytes} bytes"),
        None => text,
    }
}

/// The same for a column of them: `1.5G`, `300.0M`, always one digit after the point, and bytes as they are.
pub fn column(bytes: u64) -> String {
    for (suffix, shift) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] {
        if bytes >= 1 << shift {
            let tenths = (u128::from(bytes) * 10) >> shift;
            return format!("{}.{}{suffix}", tenths / 10, tenths % 10);
        }
    }
    bytes.to_string()
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(n) => n.fmt(f),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(ub: Ub, text: &str) -> (u64, u64) {
        let p = Pair::parse(ub, text).unwrap_or_else(|e| panic!("{e}"));
        (p.barrier.classic(), p.limit.classic())
    }

    #[test]
    fn the_classic_forms() {
        const U: u64 = i64::MAX as u64;
        for (ub, text, want) in [
            (Ub::Physpages, "65536", (65536, 65536)),
            (Ub::Physpages, "0:256M", (0, 65536)),
            (Ub::Physpages, "0:65536P", (0, 65536)),
            (Ub::Physpages, "0:2.2G", (0, 576_717)),
            (Ub::Physpages, "0:unlimited", (0, U)),
            (Ub::Physpages, "unlimited", (U, U)),
            (Ub::Physpages, "9223372036854775807:9223372036854775807", (U, U)),
            (Ub::Physpages, "16777217b", (4097, 4097)),
            (Ub::Kmemsize, "14372700:14790164", (14_372_700, 14_790_164)),
            (Ub::Kmemsize, "1.5m", (1_572_864, 1_572_864)),
            (Ub::Kmemsize, "1P", (4096, 4096)),
            (Ub::Numproc, "240:240", (240, 240)),
            (Ub::Numproc, "unlimited", (U, U)),
            (Ub::Oomguarpages, "26112:unlimited", (26112, U)),
            (Ub::Oomguarpages, "26112", (26112, U)),
            (Ub::Oomguarpages, "26112:26112", (26112, U)),
            (Ub::Swappages, "0:0", (0, 0)),
        ] {
            assert_eq!(pair(ub, text), want, "{ub} {text}");
        }
    }

    #[test]
    fn what_is_refused_is_named_with_its_value_and_the_accepted_form() {
        for (ub, text, word) in [
            (Ub::Physpages, "512M:256M", "barrier"),
            (Ub::Physpages, "unlimited:256M", "barrier"),
            (Ub::Physpages, "-1", "negative"),
            (Ub::Physpages, "0:-5", "negative"),
            (Ub::Physpages, "99999T", "larger"),
            (Ub::Kmemsize, "99999T", "larger"),
            (Ub::Numproc, "9223372036854775808", "larger"),
            (Ub::Physpages, "9223372036854775808", "larger"),
            (Ub::Physpages, "340282366920938463463374607431768211456", "larger"),
            (Ub::Numproc, "10K", "suffix"),
            (Ub::Numproc, "10p", "suffix"),
            (Ub::Numproc, "1.5", "fraction"),
            (Ub::Numproc, "0", "at least"),
            (Ub::Physpages, "0:0", "at least 16M"),
            (Ub::Physpages, "1X", "no suffix"),
            (Ub::Physpages, "", "no number"),
            (Ub::Physpages, ":", "no number"),
            (Ub::Physpages, "1:2:3", "two"),
            (Ub::Physpages, "0x10", "no"),
            (Ub::Physpages, "1e9", "no"),
            (Ub::Physpages, "١", "no number"),
            (Ub::Oomguarpages, "unlimited", "guaranteed"),
            (Ub::Vmguarpages, "1:2", "one number"),
        ] {
            let e = Pair::parse(ub, text).expect_err(text).to_string();
            assert!(e.starts_with(&format!("{ub} `{text}`: ")) && e.contains(word), "{ub} {text}: {e}");
        }
    }

    #[test]
    fn figures_for_people() {
        assert_eq!(human(1_610_612_736), "1.5G");
        assert_eq!(human(512 << 20), "512M");
        assert_eq!(human(100), "100 bytes");
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(ub in 0usize..super::super::table::COUNTERS.len(), a in 4096u64..1 << 38, b in 0u64..1 << 38) {
            let ub = super::super::table::COUNTERS[ub].ub;
            let limit = if ub.row().shape == Shape::Guarantee { Amount::Unlimited } else { Amount::At(a + b + 8192) };
            let pair = Pair { barrier: Amount::At(a), limit };
            prop_assert_eq!(Pair::parse(ub, &pair.show(ub)), Ok(pair));
        }

        #[test]
        fn any_text_is_an_answer_never_a_panic(text in "\\PC{0,60}", n in 0usize..super::super::table::COUNTERS.len()) {
            let _ = Pair::parse(super::super::table::COUNTERS[n].ub, &text);
        }

        #[test]
        fn pages_are_rounded_up_and_never_lose(bytes in 16_777_216u64..1 << 45) {
            let p = Pair::parse(Ub::Physpages, &format!("0:{bytes}B")).unwrap();
            let got = p.limit.number().unwrap() * PAGE;
            prop_assert!(got >= bytes && got - bytes < PAGE);
        }
    }
}
