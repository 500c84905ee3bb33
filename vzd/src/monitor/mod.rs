//! Monitors, seen from vzd: talking to vzmon ([`client`]), what is known of a container that runs ([`live`]), and asking
//! its init whether it has booted ([`booted`]). Imports vz-types and vz-sys alone.

mod ask;
mod blank;
pub mod booted;
pub mod client;
pub mod hand;
mod image;
mod inittab;
pub mod live;
pub mod process;

pub use client::{Error, Monitor};
pub use live::{Found, Live};
