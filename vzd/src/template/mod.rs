//! OS templates: recipes, building them, and the store of built ones. Imported by the engine; imports
//! vz-types, vz-api's wire types and nothing else of vzd.
//!
//! ```text
//! /var/lib/vz/template/                 0700 root: a set-uid file of a template is set-uid root on disk
//!   <NAME>/current -> <digest12>        the version new containers are made from
//!   <NAME>/<digest12>/root/             the files, never changed again: containers share them as lower layer
//!   <NAME>/<digest12>/manifest.txt      one line per file; its sha256 is the template's digest
//!   <NAME>/<digest12>/manifest.json     what is known about it
//!   <NAME>/<digest12>/stamp             tells cheaply whether a file was touched
//!   .staging/<NAME>/                    a build under way; .staging/<NAME>.lock is held for its time
//! ```
//! A version appears by one rename, and becomes the current one by another. What a killed build left
//! is only ever below `.staging`, swept by the next build and by [`Store::sweep`]. A build's own
//! processes live in a pid and mount namespace that dies with vzd, and hold the lock until then.

mod build;
mod fixups;
mod manifest;
mod progress;
mod recipe;
mod sources;
mod tree;
mod watch;

use manifest::Meta;
use recipe::Recipes;
use rustix::fs::FlockOperation;
use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use vz_api::wire::{BuildEvent, TemplateInfo};
use vz_types::{Ctid, ExitCode, ManagerConfig, Paths, TemplateName};

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
            Self::NoInit { .. } | Self::Broken { .. } => ExitCode::BadTemplate,
            Self::InUse { .. } => ExitCode::DeleteFailed,
            Self::Busy { .. } => ExitCode::Locked,
            Self::Build { no_space: true, .. } => ExitCode::NoSpace,
            Self::Io { source, .. } if is_full(source) => ExitCode::NoSpace,
            Self::MissingProgram { .. } | Self::NoMirror | Self::Build { .. } | Self::Io { .. } => ExitCode::System,
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
                "add a package that brings an init (systemd-sysv, sysvinit-core) to the recipe's `packages`".into(),
            ),
            Self::Broken { name, .. } => Some(format!("build it anew: vzctl template build --rebuild {name}")),
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

/// A built template, checked and ready to make a container from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyTemplate {
    /// Its files, in a directory that never changes: a later build makes another one.
    pub root: PathBuf,
    /// sha256 of its manifest. [`Store::root_of`] finds the files of a container's own version by it.
    pub digest: String,
    /// Its init, as in the recipe.
    pub init: String,
}

/// The templates of one manager.
#[derive(Clone, Debug)]
pub struct Store {
    paths: Paths,
    recipes: Recipes,
    checked: watch::Checked,
    /// When each version was last given to a container in the making, which the inventory may not know yet.
    given: Arc<Mutex<HashMap<PathBuf, Instant>>>,
}

/// A container that is being made is in the inventory after much less.
const IN_THE_MAKING: Duration = Duration::from_secs(10);

impl Store {
    /// The store of a manager. Touches nothing.
    pub fn new(paths: &Paths, cfg: &ManagerConfig) -> Self {
        Self {
            paths: paths.clone(),
            recipes: Recipes::new(paths, cfg),
            checked: watch::Checked::default(),
            given: Arc::default(),
        }
    }

    /// Every template there is or could be built, by name.
    pub fn list(&self) -> Vec<TemplateInfo> {
        let mut names = self.recipes.names();
        names.extend(self.built_names());
        names.sort();
        names.dedup();
        names
            .iter()
            .map(|n| self.info(n).unwrap_or_else(|e| broken(n, &e)))
            .map(|i| TemplateInfo { packages: Vec::new(), ..i })
            .collect()
    }

    /// All about one template.
    pub fn show(&self, name: &TemplateName) -> Result<TemplateInfo, TemplateError> {
        match self.info(name) {
            Err(e @ (TemplateError::Broken { .. } | TemplateError::Recipe { .. })) => Ok(broken(name, &e)),
            other => other,
        }
    }

    /// A template to make a container from, after the cheap check that its files are those of the build: their
    /// stamp, taken at the first use and again only when the kernel has reported a change in the tree. Where the
    /// stamp says otherwise, every byte is read and compared with the manifest.
    pub fn ready(&self, name: &TemplateName) -> Result<ReadyTemplate, TemplateError> {
        let (dir, meta) = self.current(name)?;
        let root = dir.join("root");
        self.given.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.clone(), Instant::now());
        self.checked.ensure(&root, || {
            let known = std::fs::read_to_string(dir.join("stamp")).unwrap_or_default();
            match manifest::stamp(&root) {
                Ok(now) if now == known => Ok(()),
                Ok(_) => self.verify_version(name, &dir, &meta),
                Err(e) => {
                    Err(TemplateError::Broken { name: name.clone(), problem: format!("{}: {e}", root.display()) })
                }
            }
        })?;
        Ok(ReadyTemplate { root, digest: meta.digest, init: meta.init })
    }

    /// Checks every built template, so that the first container made from one need not wait. Errors show up there.
    pub fn warm(&self) {
        for name in self.built_names() {
            if let Err(e) = self.ready(&name) {
                tracing::warn!(template = %name, error = %e, "an OS template cannot be used");
            }
        }
    }

    /// Compares the current version with its manifest, byte by byte.
    pub fn verify(&self, name: &TemplateName) -> Result<(), TemplateError> {
        let (dir, meta) = self.current(name)?;
        self.verify_version(name, &dir, &meta)
    }

    /// The files of the version with that digest: what a container made from it mounts, whichever version is current.
    pub fn root_of(&self, name: &TemplateName, digest: &str) -> PathBuf {
        self.paths.template(name).join(short(digest)).join("root")
    }

    /// Removes a built template with all its versions. The recipe stays.
    pub fn remove(&self, name: &TemplateName, used_by: &[Ctid]) -> Result<(), TemplateError> {
        if !used_by.is_empty() {
            return Err(TemplateError::InUse { name: name.clone(), used_by: used_by.to_vec() });
        }
        let dir = self.paths.template(name);
        if !dir.exists() {
            return Err(self.absent(name));
        }
        let _lock = self.lock(name)?;
        self.trash(&dir)
    }

    /// Removes versions that are neither current nor of a container (`in_use`: digests), nor just given to one.
    pub fn prune(&self, name: &TemplateName, in_use: &[String]) -> Result<(), TemplateError> {
        let _lock = self.lock(name)?;
        let current = self.current(name).ok().map(|(_, meta)| meta.digest);
        let keep: Vec<&str> = in_use.iter().chain(&current).map(|d| short(d)).collect();
        let dir = self.paths.template(name);
        for entry in std::fs::read_dir(&dir).map_err(|e| TemplateError::io("reading", &dir, e))?.flatten() {
            let file = entry.file_name();
            let given = self.given.lock().unwrap_or_else(PoisonError::into_inner).get(&entry.path()).copied();
            let fresh = given.is_some_and(|at| at.elapsed() < IN_THE_MAKING);
            if entry.file_type().is_ok_and(|t| t.is_dir()) && !fresh && !keep.iter().any(|k| file == **k) {
                self.trash(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes what killed builds and removals left. Call once at start; builds under way are left alone.
    pub fn sweep(&self) -> Result<(), TemplateError> {
        let staging = self.staging_dir();
        let Ok(entries) = std::fs::read_dir(&staging) else { return Ok(()) };
        for entry in entries.flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.ends_with(".lock") {
                continue;
            }
            let name = file.strip_prefix("trash.").and_then(|t| t.rsplit_once('.')).map_or(file.as_str(), |(n, _)| n);
            let Ok(name) = name.parse::<TemplateName>() else { continue };
            match self.lock(&name) {
                Ok(_lock) => {
                    tree::remove_all(&entry.path()).map_err(|e| TemplateError::io("removing", &entry.path(), e))?
                }
                Err(TemplateError::Busy { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Builds a template from its recipe, reporting stages and log lines. One that is built already stays as
    /// it is unless `rebuild`; containers keep the files they were made from in any case.
    ///
    /// Blocks for the build's whole time; the calling thread must live that long, because the build's
    /// processes are killed when it ends.
    pub fn build(
        &self,
        name: &TemplateName,
        rebuild: bool,
        events: &mut dyn FnMut(BuildEvent),
    ) -> Result<TemplateInfo, TemplateError> {
        let Some((recipe, text)) = self.recipes.find(name)? else {
            return Err(match self.current(name) {
                Ok(_) => TemplateError::NoRecipe {
                    name: name.clone(),
                    path: self.paths.recipe_dir().join(format!("{name}.toml")),
                },
                Err(_) => self.absent(name),
            });
        };
        let lock = self.lock(name)?;
        if !rebuild && self.current(name).is_ok() {
            events(BuildEvent::Log { line: format!("{name} is built already; --rebuild builds it anew") });
            return self.show(name);
        }
        build::run(&build::Job { store: self, name, recipe: &recipe, recipe_text: &text, lock: &lock }, events)?;
        self.show(name)
    }

    fn staging_dir(&self) -> PathBuf {
        self.paths.template_dir().join(".staging")
    }

    /// Takes the lock that everything changing a template holds.
    fn lock(&self, name: &TemplateName) -> Result<File, TemplateError> {
        let staging = self.staging_dir();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&staging)
            .map_err(|e| TemplateError::io("making", &staging, e))?;
        let path = staging.join(format!("{name}.lock"));
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|e| TemplateError::io("opening", &path, e))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(TemplateError::Busy { name: name.clone() }),
            Err(e) => Err(TemplateError::io("locking", &path, e.into())),
        }
    }

    /// Takes a directory out of sight by one rename, then removes it.
    fn trash(&self, dir: &Path) -> Result<(), TemplateError> {
        let name = dir.strip_prefix(self.paths.template_dir()).ok().and_then(|p| p.iter().next()).unwrap_or_default();
        self.checked.forget(dir);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let gone = self.staging_dir().join(format!("trash.{}.{now}", name.to_string_lossy()));
        std::fs::rename(dir, &gone).map_err(|e| TemplateError::io("removing", dir, e))?;
        tree::remove_all(&gone).map_err(|e| TemplateError::io("removing", &gone, e))
    }

    fn built_names(&self) -> Vec<TemplateName> {
        let Ok(dir) = std::fs::read_dir(self.paths.template_dir()) else { return Vec::new() };
        dir.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
    }

    fn absent(&self, name: &TemplateName) -> TemplateError {
        match self.recipes.find(name) {
            Ok(Some(_)) => TemplateError::NotBuilt { name: name.clone() },
            Ok(None) => TemplateError::NoSuch {
                name: name.clone(),
                known: self.list().iter().filter_map(|i| i.name.parse().ok()).collect(),
            },
            Err(e) => e,
        }
    }

    /// Directory and manifest of the current version.
    fn current(&self, name: &TemplateName) -> Result<(PathBuf, Meta), TemplateError> {
        let home = self.paths.template(name);
        if !home.exists() {
            return Err(self.absent(name));
        }
        let broken = |problem: String| TemplateError::Broken { name: name.clone(), problem };
        let link =
            std::fs::read_link(home.join("current")).map_err(|e| broken(format!("{}/current: {e}", home.display())))?;
        let dir = home.join(link.file_name().unwrap_or_default());
        let file = dir.join("manifest.json");
        let text = std::fs::read(&file).map_err(|e| broken(format!("{}: {e}", file.display())))?;
        let meta: Meta = serde_json::from_slice(&text).map_err(|e| broken(format!("{}: {e}", file.display())))?;
        if dir.file_name().is_none_or(|n| n != short(&meta.digest)) {
            return Err(broken(format!("{} names the digest of another version", file.display())));
        }
        if !dir.join("root").is_dir() {
            return Err(broken(format!("{}/root is missing", dir.display())));
        }
        Ok((dir, meta))
    }

    fn verify_version(&self, name: &TemplateName, dir: &Path, meta: &Meta) -> Result<(), TemplateError> {
        let broken = |problem: String| TemplateError::Broken { name: name.clone(), problem };
        let file = dir.join("manifest.txt");
        let text = std::fs::read_to_string(&file).map_err(|e| broken(format!("{}: {e}", file.display())))?;
        if manifest::sha256_hex(text.as_bytes()) != meta.digest {
            return Err(broken(format!("{} does not have the digest it was built with", file.display())));
        }
        let root = dir.join("root");
        match manifest::verify(&root, &text) {
            Ok(None) => {}
            Ok(Some(path)) => return Err(broken(format!("{path} in it is not as it was built"))),
            Err(e) => return Err(broken(format!("{}: {e}", root.display()))),
        }
        // The files are right although the stamp was not: they were copied or restored. Stamp them anew.
        let stamp = manifest::stamp(&root).map_err(|e| TemplateError::io("reading", &root, e))?;
        build::write_file(&dir.join("stamp"), stamp.as_bytes())
    }

    fn info(&self, name: &TemplateName) -> Result<TemplateInfo, TemplateError> {
        let blank = TemplateInfo {
            name: name.to_string(),
            status: "recipe".into(),
            distribution: None,
            init: None,
            arch: None,
            digest: None,
            size: None,
            files: None,
            built_at: None,
            description: None,
            used_by: Vec::new(),
            packages: Vec::new(),
            problem: None,
        };
        match self.current(name) {
            Ok((_, meta)) => Ok(TemplateInfo {
                status: "ready".into(),
                distribution: meta.distribution,
                init: Some(meta.init),
                arch: Some(meta.arch),
                digest: Some(meta.digest),
                size: Some(meta.size),
                files: Some(meta.files),
                built_at: Some(meta.built_at),
                description: Some(meta.description),
                packages: meta.packages,
                ..blank
            }),
            Err(TemplateError::NotBuilt { .. }) => match self.recipes.find(name)? {
                Some((recipe, _)) => Ok(TemplateInfo {
                    description: Some(recipe.description),
                    init: Some(recipe.init.word().into()),
                    arch: recipe.arch.map(|a| a.to_string()),
                    ..blank
                }),
                None => Err(self.absent(name)),
            },
            Err(e) => Err(e),
        }
    }
}

/// The part of a digest that names a version's directory.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn broken(name: &TemplateName, e: &TemplateError) -> TemplateInfo {
    TemplateInfo {
        name: name.to_string(),
        status: "broken".into(),
        distribution: None,
        init: None,
        arch: None,
        digest: None,
        size: None,
        files: None,
        built_at: None,
        description: None,
        used_by: Vec::new(),
        packages: Vec::new(),
        problem: Some(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store whose template `tiny` is copied from a directory, so that no mirror is needed.
    fn store(base: &Path) -> (Store, TemplateName) {
        let tree = base.join("tree/sbin");
        std::fs::create_dir_all(&tree).unwrap();
        std::fs::write(tree.join("init"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(tree.join("init"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let paths = Paths::new(base);
        std::fs::create_dir_all(paths.recipe_dir()).unwrap();
        let recipe = format!("description = 'x'\ntree = '{}/tree'\ninit = 'any'\n", base.display());
        std::fs::write(paths.recipe_dir().join("tiny.toml"), recipe).unwrap();
        (Store::new(&paths, &ManagerConfig::default()), "tiny".parse().unwrap())
    }

    #[test]
    fn a_rebuild_leaves_containers_their_files_until_none_uses_them() {
        let dir = tempfile::tempdir().unwrap();
        let (store, name) = store(dir.path());
        assert!(matches!(store.ready(&name), Err(TemplateError::NotBuilt { .. })));
        store.build(&name, false, &mut |_| {}).unwrap();
        let old = store.ready(&name).unwrap();
        std::fs::write(dir.path().join("tree/new"), "").unwrap();
        store.build(&name, true, &mut |_| {}).unwrap();
        let new = store.ready(&name).unwrap();
        assert_ne!(old.digest, new.digest);
        assert_eq!(store.root_of(&name, &old.digest), old.root);
        // Given to a container a moment ago, and then in use by one.
        store.prune(&name, &[]).unwrap();
        store.given.lock().unwrap().clear();
        store.prune(&name, std::slice::from_ref(&old.digest)).unwrap();
        assert!(old.root.join("sbin/init").exists());
        store.prune(&name, &[]).unwrap();
        assert!(!old.root.exists() && new.root.exists());
        assert!(matches!(store.remove(&name, &[101.try_into().unwrap()]), Err(TemplateError::InUse { .. })));
        store.remove(&name, &[]).unwrap();
        assert!(matches!(store.ready(&name), Err(TemplateError::NotBuilt { .. })));
    }

    #[test]
    fn a_changed_template_is_refused_and_the_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (store, name) = store(dir.path());
        store.build(&name, false, &mut |_| {}).unwrap();
        let root = store.ready(&name).unwrap().root;
        std::fs::write(root.join("sbin/init"), "#!/bin/no\n").unwrap();
        let e = store.ready(&name).unwrap_err();
        assert_eq!(e.exit_code(), ExitCode::BadTemplate);
        assert!(e.to_string().contains("/sbin/init"), "{e}");
        std::fs::write(root.join("sbin/init"), "#!/bin/sh\n").unwrap();
        store.ready(&name).unwrap();
    }

    #[test]
    fn what_a_killed_build_left_is_swept_and_a_running_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (store, name) = store(dir.path());
        let staged = store.staging_dir().join("tiny/version");
        std::fs::create_dir_all(&staged).unwrap();
        let lock = store.lock(&name).unwrap();
        store.sweep().unwrap();
        assert!(staged.exists());
        assert!(matches!(store.build(&name, false, &mut |_| {}), Err(TemplateError::Busy { .. })));
        drop(lock);
        store.sweep().unwrap();
        assert!(!staged.exists());
    }
}
