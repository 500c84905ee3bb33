//! A value of a field: as text, as JSON, and in order.

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
    /// Now; none where nobody can tell or nothing runs.
    pub held: Option<u64>,
    /// At most so far, where that is recorded.
    pub maxheld: Option<u64>,
    /// Where warnings begin.
    pub barrier: u64,
    /// What holds.
    pub limit: u64,
    /// How often it held.
    pub failcnt: u64,
    /// How far the limit can be relied on.
    pub class: Option<&'static str>,
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
            Self::Seconds(s) => {
                Some(format!("{:03}d{:02}h:{:02}m:{:02}s", s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60))
            }
            Self::Disk(d) => d.usage.map(|u| u.to_string()),
            Self::Bean(b) => b.held.map(|n| n.to_string()),
        }
    }

    /// For `-j`.
    pub fn json(&self) -> Json {
        let figure = |n: Option<u64>| Json::Plain(n.map_or_else(|| "null".to_owned(), |n| n.to_string()));
        match self {
            Self::Unknown => Json::Plain("null".into()),
            Self::Number(n) | Self::Seconds(n) => figure(Some(*n)),
            Self::Text(t) => Json::Plain(quoted(t)),
            Self::List(l) => Json::Plain(format!("[{}]", l.iter().map(|w| quoted(w)).collect::<Vec<_>>().join(", "))),
            Self::Flag(f) => Json::Plain(f.to_string()),
            Self::Load([a, b, c]) => Json::Plain(format!("[{a:.2}, {b:.2}, {c:.2}]")),
            Self::Disk(d) => Json::Object(vec![
                ("usage", figure(d.usage)),
                ("softlimit", figure(Some(d.softlimit))),
                ("hardlimit", figure(Some(d.hardlimit))),
            ]),
            Self::Bean(b) => {
                let class = b.class.map(|c| ("class", Json::Plain(quoted(c))));
                let mut fields = vec![
                    ("held", figure(b.held)),
                    ("maxheld", figure(b.maxheld)),
                    ("barrier", figure(Some(b.barrier))),
                    ("limit", figure(Some(b.limit))),
                    ("failcnt", figure(Some(b.failcnt))),
                ];
                fields.extend(class);
                Json::Object(fields)
            }
        }
    }

    /// Numbers by size, addresses by address, words by letter; what is unknown comes first.
    pub fn order(&self, other: &Self) -> Ordering {
        let rank = |v: &Self| match v {
            Self::Number(n) | Self::Seconds(n) => Some(u128::from(*n)),
            Self::Flag(f) => Some(u128::from(*f)),
            Self::Disk(d) => d.usage.map(u128::from),
            Self::Bean(b) => b.held.map(u128::from),
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

/// JSON in the order of the columns: objects one key a line, arrays on one line, which scripts cut with sed.
pub enum Json {
    /// Anything on one line, already as JSON.
    Plain(String),
    /// Keys in their order.
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    /// Appends it; what is inside is indented by `depth + 1` steps.
    pub fn write(&self, depth: usize, out: &mut String) {
        let fields = match self {
            Self::Plain(text) => return out.push_str(text),
            Self::Object(fields) => fields,
        };
        out.push('{');
        for (i, (key, value)) in fields.iter().enumerate() {
            out.push_str(if i == 0 { "\n" } else { ",\n" });
            indent(depth + 1, out);
            out.push_str(&quoted(key));
            out.push_str(": ");
            value.write(depth + 1, out);
        }
        out.push('\n');
        indent(depth, out);
        out.push('}');
    }

    /// An array of these, one below the other.
    pub fn write_all(items: &[Self], out: &mut String) {
        out.push('[');
        for (i, item) in items.iter().enumerate() {
            out.push_str(if i == 0 { "\n" } else { ",\n" });
            indent(1, out);
            item.write(1, out);
        }
        out.push_str(if items.is_empty() { "]" } else { "\n]" });
    }
}

fn indent(steps: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", steps));
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
