//! What the guest told before the power went, and in which states it may have left each container and template.

use std::{collections::BTreeMap, fmt};

/// Where something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is not there.
    Absent,
    /// It is there, with everything of this generation.
    Is(u32),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "absent"),
            Self::Is(g) => write!(f, "of generation {g}"),
        }
    }
}

/// One operation as it was told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its kind.
    pub kind: String,
    /// What it makes of its subject.
    generation: u32,
    /// How it ended, if that was told.
    pub code: Option<i32>,
    /// What it said.
    said: String,
}

impl Told {
    /// The state it leads to.
    pub fn after(&self, before: State) -> State {
        match self.kind.as_str() {
            "destroy" | "remove" => State::Absent,
            "start" | "stop" => before,
            _ => State::Is(self.generation),
        }
    }
}

/// Everything that was told, by subject, in order.
#[derive(Debug, Default)]
pub struct History(BTreeMap<String, Vec<Told>>);

/// Whether a line tells that an operation of this kind was done.
pub fn is_answer(line: &str, kind: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    matches!(words.as_slice(), ["end", k, _, _, "0", ..] if *k == kind)
}

/// The states that something may be in, which was in `old` and went through this.
pub fn possible(old: State, told: &[Told]) -> Vec<State> {
    let mut all = vec![old];
    for op in told {
        let after: Vec<State> = all.iter().map(|s| op.after(*s)).collect();
        match op.code {
            Some(0) => all = after,
            _ => all.extend(after),
        }
    }
    all
}

impl History {
    /// Reads the guest's lines.
    pub fn of(lines: &[String]) -> Self {
        let mut all = Self::default();
        for line in lines {
            let mut words = line.splitn(6, ' ');
            let mut word = || words.next().unwrap_or_default();
            let (what, kind, subject, generation) = (word(), word(), word(), word().parse().unwrap_or(0));
            let ops = all.0.entry(subject.to_owned()).or_default();
            match what {
                "begin" => ops.push(Told { kind: kind.to_owned(), generation, code: None, said: String::new() }),
                "end" => {
                    if let (Some(op), Ok(code)) = (ops.last_mut(), word().parse()) {
                        (op.code, op.said) = (Some(code), word().to_owned());
                    }
                }
                _ => {}
            }
        }
        all.0.retain(|_, ops| !ops.is_empty());
        all
    }

    /// What was told of one.
    pub fn about(&self, subject: &str) -> Vec<Told> {
        self.0.get(subject).cloned().unwrap_or_default()
    }

    /// What was under way: kind and subject. What vzd's death cut off counts, too; what came after it does not.
    pub fn open(&self) -> Vec<(String, String)> {
        let last = self.0.iter().filter_map(|(name, ops)| Some((name, ops.last()?)));
        last.filter(|(_, op)| op.code != Some(0) && !op.said.contains("nobody answers"))
            .map(|(name, op)| (op.kind.clone(), name.clone()))
            .collect()
    }

    /// Kinds of which one was under way, each once.
    pub fn under_way(&self) -> Vec<String> {
        let mut kinds: Vec<String> = self.open().into_iter().map(|(kind, _)| kind).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    /// How many were answered well.
    pub fn answered(&self) -> usize {
        self.0.values().flatten().filter(|op| op.code == Some(0)).count()
    }

    /// Subjects of which the last that was told is a good answer to an operation of this kind.
    pub fn answered_last(&self, kind: &str) -> Vec<String> {
        let last = self.0.iter().filter(|(_, ops)| ops.last().is_some_and(|op| op.kind == kind && op.code == Some(0)));
        last.map(|(name, _)| name.clone()).collect()
    }

    /// What was refused, with its words.
    pub fn refused(&self) -> Vec<(String, String)> {
        let all = self.0.iter().flat_map(|(name, ops)| ops.iter().map(move |op| (name, op)));
        all.filter(|(_, op)| op.code.is_some_and(|c| c != 0))
            .map(|(name, op)| (format!("{} {name}", op.kind), format!("{:?} {}", op.code, op.said)))
            .collect()
    }
}
