//! Why the inventory did not do as asked, as exit code and hint.

use super::reserve;
use std::path::PathBuf;
use vz_types::{CtAddr, CtName, Ctid, ExitCode, UidBase};

/// Why the inventory did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is no database, or a damaged one.
    #[error("the inventory {path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The file is gone although containers exist.
    #[error("the inventory {path} is missing, but {private} holds containers' private areas")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What shows that there were containers.
        private: PathBuf,
    },
    /// There is a file with nothing in it although containers exist.
    #[error("the inventory {path} is empty, but {private} holds containers' private areas")]
    Empty {
        /// The file.
        path: PathBuf,
        /// What shows that there were containers.
        private: PathBuf,
    },
    /// It could not be opened, which says nothing about what is in it.
    #[error("the inventory cannot be opened: {cause}")]
    Unopened {
        /// Which file, and why.
        cause: String,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// Written by a later version.
    #[error(
        "the inventory {path} was written by a later version of vz: it has schema {there}, and this vzd knows up to {known}"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        there: u32,
        /// Ours.
        known: u32,
    },
    /// A migration failed.
    #[error("the inventory {path} cannot be brought to this version")]
    Migration {
        /// The file.
        path: PathBuf,
        /// What the migration said.
        #[source]
        source: rusqlite_migration::Error,
    },
    /// Another container has the address.
    #[error("address {ip} belongs to CT {holder}")]
    AddressTaken {
        /// The address.
        ip: CtAddr,
        /// Whose it is.
        holder: Ctid,
    },
    /// Another container has the name.
    #[error("the name `{name}` belongs to CT {holder}")]
    NameTaken {
        /// The name.
        name: CtName,
        /// Whose it is.
        holder: Ctid,
    },
    /// Another container's files are of the same uid range.
    #[error("its uid range, from {} on, belongs to CT {holder}", base.get())]
    UidTaken {
        /// The first of them.
        base: UidBase,
        /// Whose they are.
        holder: Ctid,
    },
    /// There is such a container.
    #[error("CT {0} exists")]
    Exists(Ctid),
    /// Every uid range is given away.
    #[error("all {} uid ranges are in use", UidBase::SLOTS)]
    NoUidRange,
    /// SQLite failed.
    #[error("the inventory failed while {what}")]
    Sqlite {
        /// What it was doing.
        what: &'static str,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// What was written is not on the disk for certain.
    #[error("the inventory {path} cannot be made durable")]
    Unsynced {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// An operation's row holds what no version of ours writes.
    #[error("the inventory's row of operation {id} is unusable: {cause}")]
    BadOperation {
        /// Its number.
        id: String,
        /// Why.
        cause: String,
    },
    /// A row holds what no version of ours writes.
    #[error("the inventory's row of CT {ctid} is unusable: {cause}")]
    BadRow {
        /// Which.
        ctid: i64,
        /// Why.
        cause: String,
    },
}

impl Error {
    /// What `vzctl` exits with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::AddressTaken { .. } => ExitCode::IpInUse,
            Self::NameTaken { .. } => ExitCode::SetName,
            Self::Exists(_) => ExitCode::Exists,
            Self::Sqlite { source, .. } if reserve::is_full(source) => ExitCode::NoSpace,
            _ => ExitCode::System,
        }
    }

    /// Whether opening it again would end the same way until somebody does something.
    pub fn needs_operator(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. }
                | Self::Missing { .. }
                | Self::Empty { .. }
                | Self::Newer { .. }
                | Self::Migration { .. }
        )
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { .. } | Self::Missing { .. } | Self::Empty { .. } => {
                Some("`vzd recover` builds it again from the configuration files and the private areas".into())
            }
            Self::Unopened { .. } => Some("nothing of it was changed; put that right and start vzd again".into()),
            Self::Newer { .. } => Some(
                "install the version of vz that wrote it, or a later one; nothing was changed, and containers keep running"
                    .into(),
            ),
            Self::Sqlite { .. } if self.exit_code() == ExitCode::NoSpace => {
                Some(
                    "free some space on the filesystem the inventory is on and try again; stop, mount, umount, destroy and \
                     `template remove` work all the same"
                        .into(),
                )
            }
            Self::AddressTaken { holder, ip } => {
                Some(format!("choose another address, or `vzctl set {holder} --ipdel {ip} --save`"))
            }
            Self::NameTaken { holder, .. } => {
                Some(format!("choose another name, or `vzctl set {holder} --name '' --save`"))
            }
            _ => None,
        }
    }
}
