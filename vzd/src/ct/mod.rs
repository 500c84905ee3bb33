//! One container, as vzd knows it: what is asked of it ([`request`]), and the parts it has besides those behind
//! [`crate::hands`]: its limits, its own files, its plan. May be imported by accounts, operations and the API; imports
//! the manager and its rooms.

pub mod edits;
pub mod identity;
pub mod ids;
pub mod limits;
pub mod outside;
pub mod request;
pub mod samples;
pub mod settle;

pub use request::{Changes, CreateSpec, SetMode, SetSpec, StartSpec, StopSpec};
