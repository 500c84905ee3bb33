//! Why something about a template did not work, what `vzctl` exits with then, and what to do next.

use crate::unpack::{self, Blame, Failure};
use std::{
    io,
    path::{Path, PathBuf},
};
use vz_types::{Ctid, ExitCode, TemplateName};

/// Why a template could not be built, found, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// No recipe and no built template has that name.
    #[error("there is no OS template {name}")]
    NoSuch {
        /// The name.
        name: TemplateName,
        /// Names there are.
        known: Vec<TemplateName>,
    },
    /// It is built, and nothing says how to build it again.
    #[error("OS template {name} is built, but there is no recipe of it to build it from again")]
    NoRecipe {
        /// The name.
        name: TemplateName,
        /// Where its recipe would be.
        path: PathBuf,
    },
    /// There is a recipe, but it was never built.
    #[error("OS template {name} is not built yet")]
    NotBuilt {
        /// The name.
        name: TemplateName,
    },
    /// The recipe cannot be read.
    #[error("the recipe {} is not valid: {message}", path.display())]
    Recipe {
        /// The file.
        path: PathBuf,
        /// Line, key and reason.
        message: String,
    },
    /// The files have no init, or another one than promised.
    #[error("OS template {name} has no usable init: expected {wanted} at /sbin/init, found {found}")]
    NoInit {
        /// The template.
        name: String,
        /// The recipe's promise.
        wanted: &'static str,
        /// What is there.
        found: String,
    },
    /// The stored template is incomplete or was changed.
    #[error("OS template {name} cannot be used: {problem}")]
    Broken {
        /// The template.
        name: TemplateName,
        /// What is wrong.
        problem: String,
    },
    /// Containers were made from it.
    #[error("OS template {name} is in use by {}", list(.used_by))]
    InUse {
        /// The template.
        name: TemplateName,
        /// Its containers.
        used_by: Vec<Ctid>,
    },
    /// Another build or removal of it is under way.
    #[error("OS template {name} is being built or removed by another operation")]
    Busy {
        /// The template.
        name: TemplateName,
    },
    /// There is another template of that name.
    #[error("there is an OS template {name} already, with other files")]
    Exists {
        /// The name.
        name: TemplateName,
    },
    /// An archive is not one a template can be made from.
    #[error("{source_name} cannot be imported: {}", told(.failure))]
    Archive {
        /// What the archive is called.
        source_name: String,
        /// Which entry, and why.
        failure: Failure,
    },
    /// An archive is of a form that no template can be made from.
    #[error("{source_name} cannot be imported: it is {what}")]
    Form {
        /// What the archive is called.
        source_name: String,
        /// What it is.
        what: String,
        /// What to do instead.
        hint: String,
    },
    /// The archive did not arrive.
    #[error("{source_name} cannot be imported: {why}")]
    Upload {
        /// What the archive is called.
        source_name: String,
        /// Why.
        why: String,
    },
    /// Its programs are for another kind of machine.
    #[error("{source_name} cannot be imported: {path} in it is {what}, and this host runs {host}")]
    Machine {
        /// What the archive is called.
        source_name: String,
        /// The program looked at.
        path: String,
        /// What it is.
        what: String,
        /// What the host runs.
        host: String,
    },
    /// A program the build needs is not installed.
    #[error("building an OS template needs the program {program}, which is not installed")]
    MissingProgram {
        /// The program.
        program: &'static str,
        /// Debian package it is in.
        package: &'static str,
    },
    /// The host's apt sources name no archive to install from.
    #[error(
        "this host's apt sources (/etc/apt/sources.list, /etc/apt/sources.list.d) name no mirror of the Debian archive"
    )]
    NoMirror,
    /// The installation failed.
    #[error("building OS template {name} failed: {cause}")]
    Build {
        /// The template.
        name: TemplateName,
        /// What went wrong, as far as the log says.
        cause: String,
        /// The log's last lines.
        tail: Vec<String>,
        /// The whole log.
        log: PathBuf,
        /// Whether the disk ran full.
        no_space: bool,
    },
    /// A file operation failed.
    #[error("{what} {} failed", path.display())]
    Io {
        /// What was being done.
        what: String,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A failure with its place.
fn told(f: &Failure) -> String {
    match &f.entry {
        Some(entry) => format!("entry {entry} (at byte {}): {}", f.at, f.why),
        None => f.why.clone(),
    }
}

fn list(ctids: &[Ctid]) -> String {
    let words: Vec<String> = ctids.iter().take(10).map(|c| format!("CT {}", c.get())).collect();
    match ctids.len() - words.len() {
        0 => words.join(", "),
        more => format!("{} and {more} more", words.join(", ")),
    }
}

impl TemplateError {
    pub(crate) fn io(what: &str, path: &Path, source: io::Error) -> Self {
        Self::Io { what: what.to_owned(), path: path.to_owned(), source }
    }

    /// What vzctl exits with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoSuch { .. } | Self::NoRecipe { .. } | Self::NotBuilt { .. } => ExitCode::NoTemplate,
            Self::Recipe { .. } => ExitCode::BadConfig,
            Self::NoInit { .. } | Self::Broken { .. } | Self::Machine { .. } | Self::Form { .. } => {
                ExitCode::BadTemplate
            }
            Self::Exists { .. } => ExitCode::Exists,
            Self::Archive { failure, .. } => match failure.blame {
                Blame::Archive => ExitCode::BadTemplate,
                Blame::Space => ExitCode::NoSpace,
                Blame::Host => ExitCode::System,
            },
            Self::InUse { .. } => ExitCode::DeleteFailed,
            Self::Busy { .. } => ExitCode::Locked,
            Self::Build { no_space: true, .. } => ExitCode::NoSpace,
            Self::Io { source, .. } if is_full(source) => ExitCode::NoSpace,
            Self::MissingProgram { .. }
            | Self::NoMirror
            | Self::Build { .. }
            | Self::Upload { .. }
            | Self::Io { .. } => ExitCode::System,
        }
    }

    /// What to do next; for a failed build with the log's last lines.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSuch { known, .. } => {
                let names: Vec<&str> = known.iter().map(TemplateName::as_str).collect();
                Some(format!("there are: {}; `vzctl template list` shows more", names.join(", ")))
            }
            Self::NoRecipe { path, .. } => Some(format!("put its recipe at {}", path.display())),
            Self::NotBuilt { name } => Some(format!("build it first: vzctl template build {name}")),
            Self::Recipe { .. } => Some("docs/guide/templates.md explains every key".into()),
            Self::NoInit { .. } => Some(
                "install a package that brings an init: in a recipe's `packages`, or in the tree before it is packed \
                 (Debian: systemd-sysv, sysvinit-core or runit-init, as in `debootstrap --include=systemd-sysv`)"
                    .into(),
            ),
            Self::Broken { name, .. } => {
                Some(format!("build it anew: vzctl template build --rebuild {name}; or import it again with --replace"))
            }
            Self::Exists { name } => Some(format!(
                "--replace makes this its current version (containers keep the files they were made from); \
                 or choose another --name; `vzctl template show {name}` shows what is there"
            )),
            Self::Archive { failure, .. } => match failure.blame {
                Blame::Archive if failure.why.contains(" device, ") => Some(
                    "--skip-devices leaves device nodes out: a container's /dev is made by vz at each start".into(),
                ),
                Blame::Archive if failure.why.contains("truncated") => {
                    Some("compare its size or checksum with the original, and copy it again".into())
                }
                Blame::Archive if failure.why.contains("exceeds the limit") => {
                    Some("--max-size raises the limit, where you trust the archive".into())
                }
                Blame::Archive if unpack::instead(&failure.why).is_some() => unpack::instead(&failure.why)
                    .map(|(how, note)| format!("{how} | vzctl template import - --name NAME{note}")),
                Blame::Archive => Some("nothing of it was kept".into()),
                Blame::Space => Some("free space in the template store, or give it a larger disk".into()),
                Blame::Host => None,
            },
            Self::Form { hint, .. } => Some(hint.clone()),
            Self::Machine { .. } => Some("take the root filesystem of this host's architecture".into()),
            Self::Upload { .. } => None,
            Self::InUse { .. } => Some("destroy these containers first, or keep the template".into()),
            Self::Busy { .. } => Some("wait for it to end".into()),
            Self::MissingProgram { package, .. } => {
                Some(format!("install the package {package}: apt-get install {package}"))
            }
            Self::NoMirror => Some("add one, or name a mirror in the recipe with `mirror = \"...\"`".into()),
            Self::Build { tail, log, .. } => {
                Some(format!("the whole log is {}; its last lines:\n  {}", log.display(), tail.join("\n  ")))
            }
            Self::Io { .. } => None,
        }
    }
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
