//! The vz daemon and engine.

pub mod network;
pub mod storage;
pub mod template;
