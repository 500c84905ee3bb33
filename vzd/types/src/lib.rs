//! Plain types of vz, shared by every crate. No I/O lives here: parsing, formatting, pure rules and
//! tables only, so that everything in this crate can be tested without a machine.
//!
//! May be imported by everybody; imports nothing of ours.

pub mod addr;
pub mod config;
pub mod ctid;
pub mod exit;
pub mod fact;
pub mod inits;
pub mod judge;
pub mod limits;
pub mod manager;
pub mod names;
pub mod op;
pub mod plan;
pub mod policy;
pub mod reason;
pub mod run;
pub mod settings;
pub mod size;
pub mod sshkey;
pub mod state;
pub mod time;
pub mod word;
pub mod written;

pub use addr::CtAddr;
pub use config::CtConfig;
pub use ctid::Ctid;
pub use exit::ExitCode;
pub use fact::Fact;
pub use manager::{ManagerConfig, Paths};
pub use names::{CtName, Hostname, TemplateName, UserName};
pub use op::{OpId, OpKind, OpState, Subject};
pub use reason::Reason;
pub use size::{Bytes, IdCount, Limit, UidBase};
pub use sshkey::SshPublicKey;
pub use state::CtState;
pub use word::Word;
