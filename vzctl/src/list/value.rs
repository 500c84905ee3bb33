//! A value of a field: as text, as JSON, and in order.

use serde_json::{Map, Value as Json, json};
use std::{cmp::Ordering, net::IpAddr};
use vz_api::wire::DiskFigure;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Not known, not set or not measured here: `-` and null.
    Unknown,
    /// A number.
    Number(u64),
    /// Words.
    Text(String),
    /// Several of them; none is `-` and `[]`.
    List(Vec<String>),
    /// yes or no.
    Flag(bool),
    /// Load averages.
    Load([f64; 3]),
    /// A time since something.
    Seconds(u64),
    /// A quota with its use.
    Disk(DiskFigure),
    /// A beancounter.
    Bean(Bean),
}

/// One beancounter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bean {
    /// Now.
    pub held: u64,
    /// At most so far, where that is recorded.
    pub maxheld: Option<u64>,
    /// Where warnings begin.
    pub barrier: u64,
    /// What holds.
    pub limit: u64,
    /// How often it held.
    pub failcnt: u64,
}

impl Bean {
    /// `LONG_MAX`, the classic figure of what has no limit.
    pub const UNLIMITED: u64 = i64::MAX as u64;
}

impl Value {
    /// For a column; `None` prints as `-`.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Unknown => None,
            Self::Number(n) => Some(n.to_string()),
            Self::Text(t) if t.is_empty() => None,
            Self::Text(t) => Some(t.chars().filter(|c| !c.is_control()).collect()),
            Self::List(l) if l.is_empty() => None,
            Self::List(l) => Some(l.join(" ")),
            Self::Flag(f) => Some(if *f { "yes" } else { "no" }.to_owned()),
            Self::Load([a, b, c]) => Some(format!("{a:.2}/{b:.2}/{c:.2}")),
            Self::Seconds(s) => Some(format!("{:03}d{:02}h:{:02}m:{:02}s", s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60)),
            Self::Disk(d) => d.usage.map(|u| u.to_string()),
            Self::Bean(b) => Some(b.held.to_string()),
        }
    }

    /// For `-j`.
    pub fn json(&self) -> Json {
        match self {
            Self::Unknown => Json::Null,
            Self::Number(n) | Self::Seconds(n) => json!(n),
            Self::Text(t) => json!(t),
            Self::List(l) => json!(l),
            Self::Flag(f) => json!(f),
            Self::Load(l) => json!(l),
            Self::Disk(d) => {
                let mut o = Map::new();
                o.insert("usage".into(), json!(d.usage));
                o.insert("softlimit".into(), json!(d.softlimit));
                o.insert("hardlimit".into(), json!(d.hardlimit));
                Json::Object(o)
            }
            Self::Bean(b) => json!({"held": b.held, "maxheld": b.maxheld, "barrier": b.barrier, "limit": b.limit, "failcnt": b.failcnt}),
        }
    }

    /// Numbers by size, addresses by address, words by letter; what is unknown comes first.
    pub fn order(&self, other: &Self) -> Ordering {
        let rank = |v: &Self| match v {
            Self::Number(n) | Self::Seconds(n) => Some(u128::from(*n)),
            Self::Flag(f) => Some(u128::from(*f)),
            Self::Disk(d) => d.usage.map(u128::from),
            Self::Bean(b) => Some(u128::from(b.held)),
            _ => None,
        };
        match (self, other) {
            (Self::Load(a), Self::Load(b)) => a[0].total_cmp(&b[0]),
            (Self::List(a), Self::List(b)) => {
                let key = |l: &[String]| l.iter().map(|s| (s.parse::<IpAddr>().ok(), s.clone())).collect::<Vec<_>>();
                key(a).cmp(&key(b))
            }
            _ => match (rank(self), rank(other)) {
                (None, None) => self.text().cmp(&other.text()),
                (a, b) => a.cmp(&b),
            },
        }
    }
}

/// JSON as vzlist prints it: objects one key a line, arrays of plain values on one line, which scripts cut with sed.
pub fn print(value: &Json, depth: usize, out: &mut String) {
    let pad = |out: &mut String, n: usize| out.extend(std::iter::repeat_n(' ', 2 * n));
    match value {
        Json::Array(items) if items.iter().any(Json::is_object) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i == 0 { "\n" } else { ",\n" });
                pad(out, depth + 1);
                print(item, depth + 1, out);
            }
            out.push('\n');
            pad(out, depth);
            out.push(']');
        }
        Json::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                print(item, depth, out);
            }
            out.push(']');
        }
        Json::Object(map) if !map.is_empty() => {
            out.push('{');
            for (i, (key, item)) in map.iter().enumerate() {
                out.push_str(if i == 0 { "\n" } else { ",\n" });
                pad(out, depth + 1);
                out.push_str(&format!("{}: ", Json::from(key.as_str())));
                print(item, depth + 1, out);
            }
            out.push('\n');
            pad(out, depth);
            out.push('}');
        }
        plain => out.push_str(&plain.to_string()),
    }
}
