//! The vz daemon and engine.

pub mod template;
