//! A template on its way in, and one on its way out, as steps: whoever carries them out decides what happens between
//! two. Until [`Making::register`] everything is below `.staging`, and only there.

use super::{
    Store, TemplateError, build, fixups,
    import::{self, Upload},
    lock::Lock,
    machine,
    manifest::{self, Origin},
    packed,
    recipe::{Init, Recipe},
    register::{self, Facts, make_dir, os_release},
    sets,
    tree::{self, Tree},
};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};
use vz_api::wire::{BuildEvent, TemplateInfo};
use vz_types::{Ctid, TemplateName};

/// What it is made from.
#[derive(Debug)]
enum From {
    Recipe {
        recipe: Box<Recipe>,
        text: String,
    },
    Archive(Box<Upload>),
    /// Nothing more: the version is there, and only to become the current one.
    Registered,
}

/// What is known once the files are there.
#[derive(Debug)]
struct Filled {
    source: String,
    /// What the archive was and what of it was left out, where it was no plain root.
    packed: Option<String>,
    archive: Option<String>,
    init: Option<Init>,
    arch: String,
}

/// A template that is being made. Holds its lock.
#[derive(Debug)]
pub struct Making {
    store: Store,
    name: TemplateName,
    lock: Lock,
    from: From,
    filled: Option<Filled>,
    digest: String,
    /// The name is new: registering makes it the current one.
    fresh: bool,
    /// The same files are there already.
    same: bool,
    /// It is wanted no more: what takes long ends soon.
    cancelled: Arc<AtomicBool>,
}

/// Told how it goes.
pub type Tell<'a> = &'a mut dyn FnMut(BuildEvent);

fn stage(tell: Tell<'_>, stage: &str, percent: u8) {
    tell(BuildEvent::Stage { stage: stage.into(), percent });
}

impl Making {
    /// Of its recipe. `None`: it is built already, and that is all that was wanted.
    ///
    /// # Errors
    /// There is no recipe, or somebody else is at work on this name.
    pub fn build(store: &Store, name: &TemplateName, rebuild: bool) -> Result<Option<Self>, TemplateError> {
        let Some((recipe, text)) = store.recipes.find(name)? else {
            return Err(match store.current(name) {
                Ok(_) => TemplateError::NoRecipe {
                    name: name.clone(),
                    path: store.paths.recipe_dir().join(format!("{name}.toml")),
                },
                Err(_) => store.absent(name),
            });
        };
        let lock = store.lock(name)?;
        if !rebuild && store.current(name).is_ok() {
            return Ok(None);
        }
        Self::begun(store, name, lock, From::Recipe { recipe: Box::new(recipe), text }).map(Some)
    }

    /// From an archive that arrives meanwhile.
    ///
    /// # Errors
    /// Somebody else is at work on this name.
    pub fn import(store: &Store, name: &TemplateName, upload: Upload) -> Result<Self, TemplateError> {
        let lock = store.lock(name)?;
        Self::begun(store, name, lock, From::Archive(Box::new(upload)))
    }

    /// One whose version was registered before vzd died, and is only to become the current one.
    ///
    /// # Errors
    /// Somebody else is at work on this name.
    pub fn registered(store: &Store, name: &TemplateName, digest: &str) -> Result<Self, TemplateError> {
        let lock = store.lock(name)?;
        let mut making = Self::begun(store, name, lock, From::Registered)?;
        (making.digest, making.fresh) = (digest.to_owned(), false);
        Ok(making)
    }

    fn begun(store: &Store, name: &TemplateName, lock: Lock, from: From) -> Result<Self, TemplateError> {
        let making = Self {
            store: store.clone(),
            name: name.clone(),
            lock,
            from,
            filled: None,
            digest: String::new(),
            fresh: !store.paths.template(name).exists(),
            same: false,
            cancelled: Arc::default(),
        };
        making.sweep()?;
        Ok(making)
    }

    /// Ends what takes long, with an error, soon after this is true.
    pub fn ends_with(&mut self, cancelled: Arc<AtomicBool>) {
        self.cancelled = cancelled;
    }

    fn staging(&self) -> PathBuf {
        self.store.staging_dir().join(self.name.as_str())
    }

    fn version(&self) -> PathBuf {
        self.staging().join("version")
    }

    fn tree(&self) -> Result<Tree, TemplateError> {
        let root = self.version().join("root");
        Tree::open(&root).map_err(|e| TemplateError::io("opening", &root, e))
    }

    /// Puts the files there.
    ///
    /// # Errors
    /// The build's, or what is wrong with the archive.
    pub fn fill(&mut self, tell: Tell<'_>) -> Result<(), TemplateError> {
        let (staging, version) = (self.staging(), self.version());
        let root = version.join("root");
        self.filled = Some(match &self.from {
            From::Recipe { recipe, .. } => {
                stage(tell, "check", 0);
                make_dir(&version)?;
                let job = build::Job {
                    store: &self.store,
                    name: &self.name,
                    recipe,
                    lock: &self.lock,
                    cancelled: &self.cancelled,
                };
                let source = build::fill(&job, &staging, &root, tell)?;
                let arch = recipe.arch.as_ref().map_or_else(machine::host, |a| a.to_string());
                Filled { source, packed: None, archive: None, init: None, arch }
            }
            From::Archive(upload) => {
                make_dir(&root)?;
                // Beyond it only root gets; it is the tree's own root directory, and what an archive without one would have.
                std::fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o755))
                    .map_err(|e| TemplateError::io("setting the mode of", &root, e))?;
                let source = import::source(upload);
                let archive = import::unpack(&root, upload, &source, &self.lock, &self.cancelled, tell)?;
                let packed = packed::settle(&version, &source)?;
                if let Some(what) = &packed {
                    tell(BuildEvent::Log { line: what.clone() });
                }
                Filled { source, packed, archive: Some(archive), init: None, arch: String::new() }
            }
            From::Registered => return Ok(()),
        });
        Ok(())
    }

    /// Finds out what an archive holds: its init, and what its programs are for.
    ///
    /// # Errors
    /// It has no init, or one for another machine.
    pub fn recognise(&mut self, tell: Tell<'_>) -> Result<(), TemplateError> {
        stage(tell, "recognise", 86);
        let tree = self.tree()?;
        let distribution = os_release(&tree);
        let Some(filled) = &mut self.filled else { return Ok(()) };
        let (init, arch) = import::recognise(&tree, &self.name, &filled.source)?;
        let what = distribution.as_deref().unwrap_or("a system without os-release");
        tell(BuildEvent::Log { line: format!("it is {what} for {arch}, its init is {}", init.word()) });
        (filled.init, filled.arch) = (Some(init), arch);
        Ok(())
    }

    /// Makes it boot as a container.
    ///
    /// # Errors
    /// A file cannot be changed; its init is another than promised.
    pub fn fix_up(&mut self, tell: Tell<'_>) -> Result<(), TemplateError> {
        let tree = self.tree()?;
        let Some(filled) = &mut self.filled else { return Ok(()) };
        match (&self.from, filled.init) {
            (From::Recipe { recipe, .. }, _) => {
                stage(tell, "fix-ups", 90);
                fixups::apply(&tree, &recipe.fixups)?;
                filled.init = Some(fixups::init_of(&tree, self.name.as_str(), recipe)?);
            }
            (_, Some(init)) => {
                stage(tell, "fix-ups", 88);
                sets::apply(&tree, init, os_release(&tree).as_deref())?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Reads all of it, and puts beside it what is known of it.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn describe(&mut self, tell: Tell<'_>) -> Result<(), TemplateError> {
        stage(tell, "manifest", 92);
        let tree = self.tree()?;
        let Some(filled) = &self.filled else { return Ok(()) };
        let init = filled.init.map_or("", Init::word);
        let (description, origin, recipe_digest) = match &self.from {
            From::Recipe { recipe, text } => {
                (recipe.description.clone(), Origin::Recipe, manifest::sha256_hex(text.as_bytes()))
            }
            From::Archive(upload) => {
                let given = upload.request.description.as_deref().map(|d| crate::unpack::shown(d.as_bytes()));
                let what = os_release(&tree).unwrap_or_else(|| "a system without os-release".into());
                let made_up = || format!("{what} with {init}, imported from {}", filled.source);
                (given.unwrap_or_else(made_up), Origin::Import, String::new())
            }
            From::Registered => return Ok(()),
        };
        let facts = Facts {
            description,
            source: match &filled.packed {
                Some(what) => format!("{}: {what}", filled.source),
                None => filled.source.clone(),
            },
            origin,
            recipe_digest,
            archive: filled.archive.clone(),
            init: init.into(),
            arch: filled.arch.clone(),
        };
        self.digest = register::describe(&self.version(), &tree, &self.name, facts)?.digest;
        if let From::Archive(upload) = &self.from {
            match self.store.current(&self.name) {
                Ok((_, old)) if old.digest == self.digest => {
                    let line = format!("{} has these very files already; it stays as it is", self.name);
                    tell(BuildEvent::Log { line });
                    self.same = true;
                }
                Ok(_) | Err(TemplateError::Broken { .. }) if !upload.request.replace => {
                    return Err(TemplateError::Exists { name: self.name.clone() });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Its digest, once it is described.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Whether there is another version that is current until [`Making::switch`].
    pub fn switches(&self) -> bool {
        !self.fresh && !self.same
    }

    /// Makes it a version of the template; of a new name the current one.
    ///
    /// # Errors
    /// It cannot be put there durably.
    pub fn register(&mut self, tell: Tell<'_>) -> Result<(), TemplateError> {
        stage(tell, "register", 98);
        match self.same {
            true => Ok(()),
            false => register::register(&self.store, &self.name, &self.staging(), &self.version(), &self.digest),
        }
    }

    /// Makes it the version new containers are made from.
    ///
    /// # Errors
    /// The link cannot be replaced.
    pub fn switch(&mut self) -> Result<(), TemplateError> {
        match self.switches() {
            true => register::switch(&self.store, &self.name, &self.digest),
            false => Ok(()),
        }
    }

    /// Removes what is in staging of it.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn sweep(&self) -> Result<(), TemplateError> {
        let staging = self.staging();
        tree::remove_all(&staging).map_err(|e| TemplateError::io("removing", &staging, e))
    }
}

/// A template that is being removed, with all its versions. The recipe stays. Holds its lock.
#[derive(Debug)]
pub struct Removing {
    store: Store,
    name: TemplateName,
    gone: Option<PathBuf>,
    _lock: Lock,
}

impl Removing {
    /// Of one nobody uses.
    ///
    /// # Errors
    /// It is used, or there is none, or somebody else is at work on this name.
    pub fn begin(store: &Store, name: &TemplateName, used_by: &[Ctid]) -> Result<Self, TemplateError> {
        if !used_by.is_empty() {
            return Err(TemplateError::InUse { name: name.clone(), used_by: used_by.to_vec() });
        }
        if !store.paths.template(name).exists() {
            return Err(store.absent(name));
        }
        let lock = store.lock(name)?;
        Ok(Self { store: store.clone(), name: name.clone(), gone: None, _lock: lock })
    }

    /// Takes it out of sight by one rename.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn hide(&mut self) -> Result<(), TemplateError> {
        self.gone = Some(self.store.hide(&self.store.paths.template(&self.name))?);
        Ok(())
    }

    /// Removes its files.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn delete(&mut self) -> Result<(), TemplateError> {
        match &self.gone {
            Some(gone) => tree::remove_all(gone).map_err(|e| TemplateError::io("removing", gone, e)),
            None => Ok(()),
        }
    }
}

impl Store {
    /// Whether this version of a template is there.
    pub fn has_version(&self, name: &TemplateName, digest: &str) -> bool {
        register::is_registered(self, name, digest)
    }

    /// Whether there is anything of this name.
    pub fn exists(&self, name: &TemplateName) -> bool {
        self.paths.template(name).exists()
    }

    /// What an API client is told of a template it has had made.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn made(&self, name: &TemplateName) -> Result<TemplateInfo, TemplateError> {
        self.show(name)
    }
}
