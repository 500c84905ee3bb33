//! What is asked of the engine, in types that hold only what may be asked, and what it answers.

use vz_types::{Ctid, TemplateName, config::Layout};

pub use vz_types::settings::Changes;

/// A container to make.
#[derive(Clone, Debug)]
pub struct CreateSpec {
    /// Its number.
    pub ctid: Ctid,
    /// Its OS template.
    pub template: TemplateName,
    /// Its layout.
    pub layout: Layout,
    /// What its configuration says besides.
    pub changes: Changes,
}

/// How to start.
#[derive(Clone, Copy, Debug, Default)]
pub struct StartSpec {
    /// Even if disabled.
    pub force: bool,
    /// Answer when the default runlevel is reached.
    pub wait: bool,
}

/// How to stop.
#[derive(Clone, Copy, Debug, Default)]
pub struct StopSpec {
    /// Kill at once.
    pub fast: bool,
    /// Seconds before the kill; `None`: as configured.
    pub timeout: Option<u32>,
}

/// What to do about changes a running container cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    /// Restart it.
    Restart,
    /// Leave it as it is until its next start.
    Ignore,
}

/// What to set.
#[derive(Clone, Debug)]
pub struct SetSpec {
    /// The changes.
    pub changes: Changes,
    /// Into the configuration too.
    pub save: bool,
    /// See [`SetMode`].
    pub mode: Option<SetMode>,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Sentences for the operator.
    pub messages: Vec<String>,
    /// What was not saved or not enforced.
    pub warnings: Vec<String>,
    /// Steps with microseconds.
    pub steps: Vec<(String, u64)>,
}

impl Outcome {
    /// One sentence, nothing else.
    pub fn say(text: impl Into<String>) -> Self {
        Self { messages: vec![text.into()], ..Self::default() }
    }

    /// This and then that.
    pub fn and(mut self, other: Self) -> Self {
        self.messages.extend(other.messages);
        self.warnings.extend(other.warnings);
        self.steps.extend(other.steps);
        self
    }
}
