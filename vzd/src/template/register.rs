//! From a finished tree of files in staging to a template: described, on disk, and there by one rename.

use super::{
    Store, TemplateError,
    manifest::{self, Meta, Origin},
    short,
    tree::Tree,
};
use std::{
    fs::{DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};
use vz_types::TemplateName;

/// What is known of a tree besides what its files say.
pub struct Facts {
    /// One line for `template list`.
    pub description: String,
    /// Where it came from, in words.
    pub source: String,
    /// How.
    pub origin: Origin,
    /// sha256 of the recipe, for one that was built.
    pub recipe_digest: String,
    /// sha256 of the archive, for one that was imported.
    pub archive: Option<String>,
    /// Its init's word.
    pub init: String,
    /// Architecture in Debian's words.
    pub arch: String,
}

/// Makes a directory nobody else looks into, and what is missing above it.
pub fn make_dir(path: &Path) -> Result<(), TemplateError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| TemplateError::io("making", path, e))
}

/// Writes a small file of ours.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), TemplateError> {
    // Two that use a template for the first time both write its stamp, and would rename the same temporary file.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let temp = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut f = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
        f.write_all(bytes)?;
        f.sync_all()?;
        std::fs::rename(&temp, path)
    };
    write().map_err(|e| TemplateError::io("writing", path, e))
}

/// Reads the whole tree at `version/root` and puts beside it what is known of it.
pub fn describe(version: &Path, tree: &Tree, name: &TemplateName, facts: Facts) -> Result<Meta, TemplateError> {
    let root = version.join("root");
    let m = manifest::describe(&root).map_err(|e| TemplateError::io("reading", &root, e))?;
    let meta = Meta {
        name: name.to_string(),
        digest: m.digest,
        recipe_digest: facts.recipe_digest,
        description: facts.description,
        size: m.size,
        files: m.files,
        distribution: os_release(tree),
        init: facts.init,
        arch: facts.arch,
        packages: packages(tree),
        source: facts.source,
        built_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        origin: facts.origin,
        archive: facts.archive,
    };
    write_file(&version.join("manifest.txt"), m.text.as_bytes())?;
    let json = serde_json::to_vec_pretty(&meta).map_err(|e| TemplateError::io("writing", version, e.into()))?;
    write_file(&version.join("manifest.json"), &json)?;
    let stamp = manifest::stamp(&root).map_err(|e| TemplateError::io("reading", &root, e))?;
    write_file(&version.join("stamp"), stamp.as_bytes())?;
    Ok(meta)
}

/// Makes a described version a version of the template: on disk first. A new name appears whole, with this version as the
/// current one, by one rename; where there is one already the version appears by one rename, and [`switch`] makes it the
/// current one.
pub fn register(
    store: &Store,
    name: &TemplateName,
    staging: &Path,
    version: &Path,
    digest: &str,
) -> Result<(), TemplateError> {
    let home = store.paths.template(name);
    let staged = File::open(staging).map_err(on(staging))?;
    rustix::fs::syncfs(&staged).map_err(|e| on(version)(e.into()))?;
    if !home.exists() {
        let fresh = staging.join("home");
        make_dir(&fresh)?;
        std::fs::rename(version, fresh.join(short(digest))).map_err(on(version))?;
        std::os::unix::fs::symlink(short(digest), fresh.join("current")).map_err(on(&fresh))?;
        sync(&fresh)?;
        std::fs::rename(&fresh, &home).map_err(on(&home))?;
        return sync(&store.paths.template_dir());
    }
    let to = home.join(short(digest));
    // The very same files were registered before: the version that containers may already use stays.
    if !to.exists() {
        std::fs::rename(version, &to).map_err(on(&to))?;
        sync(&home)?;
    }
    Ok(())
}

/// Makes a registered version the one new containers are made from; repeating it is harmless.
pub fn switch(store: &Store, name: &TemplateName, digest: &str) -> Result<(), TemplateError> {
    let home = store.paths.template(name);
    let (link, temp) = (home.join("current"), home.join(".current"));
    match std::fs::remove_file(&temp) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(on(&temp)(e)),
        _ => {}
    }
    std::os::unix::fs::symlink(short(digest), &temp).map_err(on(&temp))?;
    std::fs::rename(&temp, &link).map_err(on(&link))?;
    sync(&home)
}

/// Whether this version is there, current or not.
pub fn is_registered(store: &Store, name: &TemplateName, digest: &str) -> bool {
    !digest.is_empty() && store.paths.template(name).join(short(digest)).join("manifest.json").exists()
}

fn on(path: &Path) -> impl FnOnce(io::Error) -> TemplateError + use<> {
    let path: PathBuf = path.to_owned();
    move |e| TemplateError::io("registering", &path, e)
}

fn sync(path: &Path) -> Result<(), TemplateError> {
    File::open(path).and_then(|d| d.sync_all()).map_err(on(path))
}

/// `ID` and `VERSION_ID` of os-release(5).
pub fn os_release(tree: &Tree) -> Option<String> {
    let bytes = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|p| tree.read(p).ok().flatten())?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let get = |key: &str| {
        let value = text.lines().find_map(|l| l.strip_prefix(key)).map(|v| v.trim().trim_matches(['"', '\'']));
        let plain: String = value?.chars().filter(|c| !c.is_control() && *c != ' ').take(64).collect();
        (!plain.is_empty()).then_some(plain)
    };
    let id = get("ID=")?;
    Some(get("VERSION_ID=").map_or(id.clone(), |v| format!("{id} {v}")))
}

/// Most packages that are listed: a machine with everything has some thousands.
const MAX_PACKAGES: usize = 20_000;

/// `name version` of what dpkg or apk say is installed.
fn packages(tree: &Tree) -> Vec<String> {
    let read = |path: &str| tree.read(path).ok().flatten().unwrap_or_default();
    let dpkg = read("/var/lib/dpkg/status");
    let text = String::from_utf8_lossy(&dpkg);
    let mut out: Vec<String> = text
        .split("\n\n")
        .filter_map(|p| {
            let get = |key: &str| p.lines().find_map(|l| l.strip_prefix(key));
            get("Status: install ok installed")?;
            Some(format!("{} {}", get("Package: ")?, get("Version: ")?))
        })
        .collect();
    let apk = read("/lib/apk/db/installed");
    let text = String::from_utf8_lossy(&apk);
    out.extend(text.split("\n\n").filter_map(|p| {
        let get = |key: &str| p.lines().find_map(|l| l.strip_prefix(key));
        Some(format!("{} {}", get("P:")?, get("V:")?))
    }));
    out.retain(|line| line.len() < 256 && !line.contains(char::is_control));
    out.truncate(MAX_PACKAGES);
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_write_one_file_at_once_both_succeed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stamp");
        std::thread::scope(|s| {
            let all: Vec<_> = (0..8).map(|_| s.spawn(|| write_file(&path, b"same"))).collect();
            assert!(all.into_iter().all(|t| t.join().unwrap().is_ok()));
        });
        assert_eq!(std::fs::read(&path).unwrap(), b"same");
    }
}
