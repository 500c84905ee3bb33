//! Limits on this host: what it can enforce ([`host`]), writing them to a container's cgroup ([`apply`]), its disks
//! ([`disks`]), and reading what is held ([`read`], through [`Files`]). Imports vz-types and
//! vz-sys. Knows cgroup directories and processes, nothing of operations.

pub mod apply;
pub mod cgroup;
pub mod disks;
mod files;
pub mod host;
pub mod oom;
pub mod processes;
pub mod read;
pub mod sockets;
pub mod tree;

pub use files::Files;
pub use host::{Gap, Host};
