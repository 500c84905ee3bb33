//! The vz daemon: one per manager, the only one that changes a container's state.
//!
//! Data flows one way, and so do imports: each line may use what is below it, never what is above.
//!
//! ```text
//! api                                          wire <-> internal types, who may ask
//! guard                                        what repairs the host's side of the network
//! ops                                          everything that changes something: rules, queues, drivers, steps
//! view                                         what can be seen of containers: nothing here changes anything
//! accounts                                     what containers use and are refused
//! ct                                           what is known of one container: its limits, files, identity
//! manager                                      everything a manager has, in one place
//! hands, watch, cell, ledger                   the machine behind small interfaces; what is kept in memory
//! check, error                                 what this host lacks; every room's error as code, message and hint
//! inventory, conf, storage, network, template, limits, monitor   rooms: each knows nothing of the others
//! unpack, pool, ready, program, fault          what rooms are helped by
//! ```
//! `tests/tests/rooms.rs` reads this drawing and holds the sources to it.
//!
//! Threaded, so it never forks, clones, unshares or joins a namespace: `vzmon` does, spawned plainly.

pub mod accounts;
pub mod api;
pub mod cell;
pub mod check;
pub mod conf;
pub mod ct;
pub mod error;
pub mod fault;
pub mod guard;
pub mod hands;
pub mod inventory;
pub mod ledger;
pub mod limits;
pub mod manager;
pub mod monitor;
pub mod network;
pub mod ops;
pub mod pool;
pub mod program;
pub mod ready;
pub mod storage;
pub mod template;
pub mod unpack;
pub mod view;
pub mod watch;
