//! The vz daemon and engine.

pub mod storage;
pub mod template;
