//! The harness of the black-box tests: a [`Rig`] is one private manager on a *test host*, which is a network
//! namespace of its own, so that nothing a test does is seen by the machine's network, and many rigs run side
//! by side. Everything is driven through the programs an operator would use, found by path.
//!
//! Imports vz-types (and, in the suites, vz-api) alone; the developer tool `xtask` builds on this crate.
//!
//! | module | what |
//! |---|---|
//! | [`command`] | run a program with a deadline, keep all it said |
//! | [`background`] | programs that run while the test does something else |
//! | [`wait`] | wait for an event with a deadline: files, descriptors, processes |
//! | [`netns`] | network namespaces, and work done inside them |
//! | [`census`] | what a manager holds of the machine's resources, to compare before and after |
//! | [`rig`] | the manager under test |
//! | [`small`] | tiny systems that run |
//! | [`seen`] | what vzd tells of containers |
//! | [`template`] | OS templates for tests: cached Debian ones, a tiny busybox one |
//! | [`package`] | the Debian package, and throwaway roots to install it in |
//! | [`tarball`] | root filesystems in archives, made without us |
//! | [`daemons`] | the daemons of Debian that are tried |
//! | [`inits`] | what is promised of each shipped init |
//! | [`storm`] | vzd killed again and again, under load |
//! | [`ssh`] | logging in |
//! | [`proc`] | processes and mounts, seen by the tests themselves |
//! | [`probe`] | what a hostile guest would try |
//! | [`vm`] | the virtual test host, driven from outside |
//! | [`proxy`], [`dns`] | what the outside world is played by |
//! | [`takers`] | programs that take resolv.conf over |

pub mod background;
pub mod builds;
pub mod census;
pub mod command;
pub mod daemons;
pub mod dns;
pub mod facts;
pub mod inits;
pub mod netns;
pub mod package;
pub mod probe;
pub mod proc;
pub mod proxy;
pub mod rig;
pub mod seen;
pub mod small;
pub mod ssh;
pub mod storm;
pub mod takers;
pub mod tarball;
pub mod template;
pub mod vm;
pub mod wait;

pub use command::Output;
pub use netns::NetNs;
pub use rig::Rig;
