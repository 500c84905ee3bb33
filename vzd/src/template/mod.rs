//! OS templates: recipes, building them, importing them from archives, and the store of them. Imported by the engine;
//! imports vz-types, vz-api's wire types and the plan of [`crate::unpack`], nothing else of vzd.
//!
//! ```text
//! /var/lib/vz/template/                 0700 root: a set-uid file of a template is set-uid root on disk
//!   <NAME>/current -> <digest12>        the version new containers are made from
//!   <NAME>/<digest12>/root/             the files, never changed again: containers share them as lower layer
//!   <NAME>/<digest12>/manifest.txt      one line per file; its sha256 is the template's digest
//!   <NAME>/<digest12>/manifest.json     what is known about it
//!   <NAME>/<digest12>/stamp             tells cheaply whether a file was touched
//!   .staging/<NAME>/                    a build or import under way; .staging/<NAME>.lock is held for its time
//! ```
//! A template appears by one rename; a further version of it by one rename, and becomes the current one by another.
//! What a killed build or import left is only ever below `.staging`, swept by the next one and by [`Store::sweep`].
//! Their own processes live in a pid and mount namespace that dies with vzd, and hold the lock until then.
//!
//! Rooms: [`build`] and [`import`] fill a tree, [`fixups`] changes it ([`sets`] says how for an imported one), [`machine`]
//! tells what its programs run on, [`register`] makes it a template, [`view`] shows it. [`making`] is all of it as steps, which an operation carries out.

mod build;
mod error;
mod fixups;
mod import;
mod lock;
mod machine;
mod making;
mod manifest;
mod packed;
mod progress;
mod recipe;
mod register;
mod sets;
mod sources;
mod tree;
mod view;
mod watch;

pub use error::TemplateError;
pub use import::{Upload, UploadEnd};
pub use making::{Making, Removing};
pub use manifest::hex;

use lock::Lock;
use manifest::Meta;
use recipe::Recipes;
use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use view::broken;
use vz_api::wire::TemplateInfo;
use vz_sys::records;
use vz_types::{ManagerConfig, Paths, TemplateName};

/// A template, checked and ready to make a container from.
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
        self.give(&dir);
        self.checked.ensure(&root, || {
            let known = records::text(&dir.join("stamp")).unwrap_or_default();
            match manifest::stamp(&root) {
                Ok(now) if now == known => Ok(()),
                Ok(_) => self.verify_version(name, &dir, &meta),
                Err(e) => {
                    Err(TemplateError::Broken { name: name.clone(), problem: format!("{}: {e}", root.display()) })
                }
            }
        })?;
        // The check may have read every byte.
        self.give(&dir);
        Ok(ReadyTemplate { root, digest: meta.digest, init: meta.init })
    }

    fn give(&self, version: &Path) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).insert(version.to_owned(), Instant::now());
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

    /// Removes what killed builds, imports and removals left. Call once at start; those under way are left alone.
    pub fn sweep(&self) -> Result<(), TemplateError> {
        let staging = self.staging_dir();
        let Ok(entries) = std::fs::read_dir(&staging) else { return Ok(()) };
        let mut left: Vec<(TemplateName, PathBuf)> = Vec::new();
        for entry in entries.flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let name = match (file.strip_suffix(".lock"), file.strip_prefix("trash.")) {
                (Some(name), _) => name,
                (_, Some(trash)) => trash.rsplit_once('.').map_or(trash, |(name, _)| name),
                _ => file.as_str(),
            };
            if let Ok(name) = name.parse() {
                left.push((name, entry.path()));
            }
        }
        let names: BTreeSet<&TemplateName> = left.iter().map(|(name, _)| name).collect();
        for name in names {
            // Given back, the lock takes its own file away.
            let _lock = match self.lock(name) {
                Ok(lock) => lock,
                Err(TemplateError::Busy { .. }) => continue,
                Err(e) => return Err(e),
            };
            let of_it = left.iter().filter(|(n, path)| n == name && path.extension().is_none_or(|e| e != "lock"));
            for (_, path) in of_it {
                tree::remove_all(path).map_err(|e| TemplateError::io("removing", path, e))?;
            }
        }
        Ok(())
    }

    fn staging_dir(&self) -> PathBuf {
        self.paths.template_dir().join(".staging")
    }

    fn lock(&self, name: &TemplateName) -> Result<Lock, TemplateError> {
        Lock::take(&self.staging_dir(), name)
    }

    /// Takes a directory out of sight by one rename, durably. Answers where it went.
    fn hide(&self, dir: &Path) -> Result<PathBuf, TemplateError> {
        let name = dir.strip_prefix(self.paths.template_dir()).ok().and_then(|p| p.iter().next()).unwrap_or_default();
        self.checked.forget(dir);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let gone = self.staging_dir().join(format!("trash.{}.{now}", name.to_string_lossy()));
        std::fs::rename(dir, &gone)
            .and_then(|()| std::fs::File::open(dir.parent().unwrap_or(dir))?.sync_all())
            .map_err(|e| TemplateError::io("removing", dir, e))?;
        Ok(gone)
    }

    /// Takes a directory out of sight, then removes it.
    fn trash(&self, dir: &Path) -> Result<(), TemplateError> {
        let gone = self.hide(dir)?;
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
        let text = records::read(&file).map_err(|e| broken(format!("{}: {e}", file.display())))?;
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
        let text =
            records::long_text(&file, records::MAX_LIST).map_err(|e| broken(format!("{}: {e}", file.display())))?;
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
        register::write_file(&dir.join("stamp"), stamp.as_bytes())
    }
}

#[cfg(test)]
impl Store {
    /// A template without a file, made without a build, which takes root.
    pub fn make_empty(&self, name: &TemplateName) {
        let making = self.paths.template(name).join("making");
        std::fs::create_dir_all(making.join("root")).unwrap();
        let text = manifest::describe(&making.join("root")).unwrap().text;
        let digest = manifest::sha256_hex(text.as_bytes());
        let dir = making.with_file_name(short(&digest));
        std::fs::rename(&making, &dir).unwrap();
        std::fs::write(dir.join("manifest.txt"), text).unwrap();
        let meta = serde_json::json!({
            "name": name, "digest": digest, "recipe_digest": "", "description": "", "size": 0, "files": 0,
            "distribution": null, "init": "any", "arch": "amd64", "packages": [], "source": "", "built_at": 0,
        });
        std::fs::write(dir.join("manifest.json"), meta.to_string()).unwrap();
        std::fs::write(dir.join("stamp"), "").unwrap();
        std::os::unix::fs::symlink(short(&digest), dir.with_file_name("current")).unwrap();
    }
}

/// The part of a digest that names a version's directory.
fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vz_types::ExitCode;

    /// All of a build.
    fn build(store: &Store, name: &TemplateName, rebuild: bool) -> Result<(), TemplateError> {
        let Some(mut making) = Making::build(store, name, rebuild)? else { return Ok(()) };
        let tell = &mut |_| {};
        making.fill(tell)?;
        making.fix_up(tell)?;
        making.describe(tell)?;
        making.register(tell)?;
        making.switch()?;
        making.sweep()
    }

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
        build(&store, &name, false).unwrap();
        let old = store.ready(&name).unwrap();
        std::fs::write(dir.path().join("tree/new"), "").unwrap();
        build(&store, &name, true).unwrap();
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
        assert!(matches!(Removing::begin(&store, &name, &[101.try_into().unwrap()]), Err(TemplateError::InUse { .. })));
        let mut removing = Removing::begin(&store, &name, &[]).unwrap();
        removing.hide().unwrap();
        removing.delete().unwrap();
        assert!(matches!(store.ready(&name), Err(TemplateError::NotBuilt { .. })));
    }

    #[test]
    fn a_changed_template_is_refused_and_the_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (store, name) = store(dir.path());
        build(&store, &name, false).unwrap();
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
        assert!(matches!(build(&store, &name, false), Err(TemplateError::Busy { .. })));
        drop(lock);
        store.sweep().unwrap();
        assert!(!staged.exists());
    }
}
