//! Operations on the wire.

use crate::wire::{ApiError, StepTime};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vz_types::{Fact, op::Progress};

/// An operation: every change is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// Its number, a ULID: later ones are greater.
    pub id: String,
    /// `create`, `start`, `stop`, `restart`, `destroy`, `mount`, `umount`, `set`, `build`, `import`, `remove` or `onboot`.
    pub kind: String,
    /// `ct`, `template` or `host`.
    pub subject: String,
    /// CTID or name of the template.
    pub name: String,
    /// The container, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctid: Option<u32>,
    /// Who asked: `uid N`, or `vzd` itself.
    pub asker: String,
    /// `queued`, `running`, `cancelling`, `done`, `failed` or `cancelled`.
    pub state: String,
    /// The step it is at, or ended at.
    pub step: String,
    /// How many steps are done, while it is under way.
    #[serde(default)]
    pub steps_done: u64,
    /// Of how many.
    #[serde(default)]
    pub steps_total: u64,
    /// How far that step is, where there is a measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub progress: Option<Progress>,
    /// What it is doing, in its own words, where it has some.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub line: String,
    /// Whether it can be cancelled now.
    #[serde(default)]
    pub cancellable: bool,
    /// What was done and what was not, as facts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub facts: Vec<Fact>,
    /// Steps done with their time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub times: Vec<StepTime>,
    /// Why it was not carried through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ApiError>,
    /// When it was asked for, in milliseconds since the epoch.
    pub asked: u64,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<u64>,
    /// When it ended. Absent in state `failed`: it could be neither finished nor taken back, and whoever comes next goes on
    /// with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// How often: what the same asker is refused again and again is one of these, `asked` for the first time and `ended` at
    /// the last.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub count: u64,
    /// Who else had a part in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// A part somebody had in an operation besides who asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Part {
    /// `joined`; `hurried`; `cancelled`; `interrupted` by what came after it; `failed`, and gone on with later.
    pub how: String,
    /// Who.
    pub asker: String,
    /// When, in milliseconds since the epoch.
    pub at: u64,
    /// The number it was asked for under, or of what interrupted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// What it came to then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

fn once() -> u64 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_once(count: &u64) -> bool {
    *count == 1
}

/// Which operations are wanted. In the query string.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OperationsRequest {
    /// Of this container: CTID or name. Those of a CTID whose container is gone are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ct: Option<String>,
    /// Of this OS template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// In one of these states, separated by commas; `open`: those that have not ended, or failed with something left
    /// to be finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The newest so many, 1..10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// How a change is asked for. In the query string.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct How {
    /// Answer 202 with the operation at once, instead of waiting for its end.
    pub background: bool,
}
