//! What is asked of a container, in types that hold only what may be asked.

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
