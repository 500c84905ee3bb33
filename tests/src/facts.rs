//! What an init finds, compared: a machine's facts with a container's, and the differences with what
//! docs/reference/inside.md says of them.

use std::collections::BTreeMap;

/// Prints the facts, one a line: `KEY VALUE`.
pub const SCRIPT: &str = include_str!("machine_facts.sh");

/// In the program: where the tests run there may be no checkout.
const REFERENCE: &str = include_str!("../../docs/reference/inside.md");

/// Facts by key.
#[derive(Debug)]
pub struct Facts(BTreeMap<String, String>);

impl Facts {
    /// From what [`SCRIPT`] printed.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|l| l.split_once(' ').or(Some((l, "")))).filter(|(key, _)| !key.is_empty());
        Self(lines.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What differs, or is there on one side alone: key, here, there.
    pub fn differences<'a>(&'a self, other: &'a Self) -> Vec<(&'a str, &'a str, &'a str)> {
        let mut keys: Vec<&String> = self.0.keys().chain(other.0.keys()).collect();
        keys.sort();
        keys.dedup();
        let value = |of: &'a Self, key: &str| of.0.get(key).map_or("-", String::as_str);
        let all = keys.into_iter().map(|key| (key.as_str(), value(self, key), value(other, key)));
        all.filter(|(_, here, there)| here != there).collect()
    }
}

/// What the reference's table says differs.
#[derive(Debug, PartialEq, Eq)]
pub struct Documented {
    /// A key, with `*` for any part of it.
    pub pattern: String,
    /// Whether it is so on every host.
    pub everywhere: bool,
}

/// The rows of the reference's table.
pub fn documented() -> Vec<Documented> {
    let table = REFERENCE.split("<!-- facts -->").nth(1).unwrap_or_default();
    let mut all = Vec::new();
    for line in table.lines() {
        let Some((keys, _)) = line.strip_prefix("| ").and_then(|l| l.split_once(" | ")) else { continue };
        let everywhere = !line.contains("some hosts");
        let patterns = keys.split('`').skip(1).step_by(2);
        all.extend(patterns.map(|p| Documented { pattern: p.to_owned(), everywhere }));
    }
    all
}

/// Whether a key is one that a pattern names.
pub fn fits(pattern: &str, key: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| key.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_differ_by_value_and_by_being_there() {
        let (here, there) = (Facts::parse("a 1\nb 2\nc\n"), Facts::parse("a 1\nb 3\nd x y\nc \n"));
        assert_eq!(here.differences(&there), [("b", "2", "3"), ("d", "-", "x y")]);
    }

    #[test]
    fn a_pattern_names_keys() {
        for (pattern, key, fit) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a.*", "a.bc", true),
            ("*.b", "a.b", true),
            ("a.*.c", "a.x.y.c", true),
            ("a.*.c", "a.x.y.d", false),
            ("a.*.c*", "a.x.cd", true),
        ] {
            assert_eq!(fits(pattern, key), fit, "{pattern} {key}");
        }
    }

    #[test]
    fn the_reference_has_a_table_of_facts() {
        let all = documented();
        assert!(all.len() > 20 && all.iter().all(|p| p.pattern.contains('.') && !p.pattern.contains(' ')), "{all:?}");
    }
}
