//! Every system call wrapper of vz that no safe crate offers, and the only crate with `unsafe`.
//! Each block proves its invariants beside it. Knows nothing of containers as such: it takes paths,
//! descriptors and numbers. Imports vz-types for the policy tables alone.
#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]

mod bell;
pub mod blank;
pub mod bpf;
pub mod btf;
pub mod caps;
pub mod cgroup;
pub mod device_bpf;
pub mod heap;
pub mod inherited;
pub mod loopdev;
pub mod mount;
pub mod netlink;
pub mod nftables;
pub mod open;
pub mod peer;
pub mod proc;
pub mod process;
pub mod pty;
pub mod records;
pub mod ring_bpf;
pub mod rlimits;
pub mod seccomp;
pub mod seqpacket;
pub mod socket_bpf;
pub mod spawn;
