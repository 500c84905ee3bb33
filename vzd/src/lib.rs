//! The vz daemon: one per manager, the only one that changes a container's state.
//!
//! Data flows one way, and so do imports:
//!
//! ```text
//! api (wire <-> internal types, who may ask)
//!  `-> engine (what may happen, journal, ordered steps, recovery)
//!       `-> rooms: inventory, conf, storage, network, template   (each knows nothing of the others)
//! ```
//! Threaded, so it never forks, clones, unshares or joins a namespace: `vzmon` does, spawned plainly.

pub mod api;
pub mod check;
pub mod conf;
pub mod engine;
pub mod inventory;
pub mod limits;
pub mod network;
pub mod onboot;
pub mod storage;
pub mod template;
pub mod unpack;
