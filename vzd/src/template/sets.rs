//! Which fix-ups an imported tree gets: `templates/import/sets.toml`, a table of sets with conditions, compiled in.
//! Nobody wrote a recipe for such a tree, so what it is decides.

use super::{
    TemplateError, fixups,
    recipe::{self, Fixups, GuestPath, Init},
    tree::Tree,
};
use serde::Deserialize;
use std::path::Path;

const TEXT: &str = include_str!("../../../templates/import/sets.toml");
const NAME: &str = "import/sets.toml (built in)";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sets {
    set: Vec<Set>,
}

/// One set and when it is applied.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    #[serde(default)]
    init: Vec<Init>,
    #[serde(default)]
    distribution: Option<String>,
    #[serde(default)]
    exists: Vec<GuestPath>,
    #[serde(default)]
    missing: Vec<GuestPath>,
    #[serde(default)]
    borrow: Option<Borrow>,
    #[serde(default)]
    fixups: Fixups,
}

/// Rows of a shipped recipe.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Borrow {
    recipe: String,
    /// All of its masked units.
    #[serde(default)]
    mask: bool,
    /// Its removed files that begin like this.
    #[serde(default)]
    remove: Vec<String>,
    /// Its links that begin like this.
    #[serde(default)]
    symlink: Vec<String>,
    /// Its files whose paths begin like this.
    #[serde(default)]
    file: Vec<String>,
}

impl Set {
    fn fits(&self, tree: &Tree, init: Init, distribution: Option<&str>) -> bool {
        (self.init.is_empty() || self.init.contains(&init))
            && self.distribution.as_deref().is_none_or(|d| distribution == Some(d))
            && self.exists.iter().all(|p| tree.exists(p.as_str()))
            && !self.missing.iter().any(|p| tree.exists(p.as_str()))
    }

    /// Its own rows and the borrowed ones.
    fn all(&self) -> Result<Fixups, String> {
        let mut all = self.fixups.clone();
        let Some(borrow) = &self.borrow else { return Ok(all) };
        let from = recipe::shipped(&borrow.recipe).ok_or_else(|| format!("there is no recipe {}", borrow.recipe))?;
        if borrow.mask {
            all.mask.extend(from.fixups.mask);
        }
        let begins = |with: &[String], path: &str| with.iter().any(|w| path.starts_with(w));
        let (removed, links, files) = (&from.fixups.remove, &from.fixups.symlink, &from.fixups.file);
        let known = removed.iter().chain(links.keys()).chain(files.iter().map(|row| &row.path));
        let known: Vec<&str> = known.map(GuestPath::as_str).collect();
        let wanted = borrow.remove.iter().chain(&borrow.symlink).chain(&borrow.file);
        if let Some(none) = wanted.into_iter().find(|w| !known.iter().any(|k| k.starts_with(w.as_str()))) {
            return Err(format!("the recipe {} has nothing at {none}", borrow.recipe));
        }
        all.remove.extend(removed.iter().filter(|p| begins(&borrow.remove, p.as_str())).cloned());
        all.file.extend(files.iter().filter(|row| begins(&borrow.file, row.path.as_str())).cloned());
        let links = links.iter().filter(|(link, _)| begins(&borrow.symlink, link.as_str()));
        all.symlink.extend(links.map(|(link, target)| (link.clone(), target.clone())));
        Ok(all)
    }
}

fn parse() -> Result<Vec<Set>, TemplateError> {
    let sets: Sets = toml::from_str(TEXT)
        .map_err(|e| TemplateError::Recipe { path: Path::new(NAME).into(), message: recipe::one_line(TEXT, &e) })?;
    Ok(sets.set)
}

/// Applies every set that fits. Answers how many.
pub fn apply(tree: &Tree, init: Init, distribution: Option<&str>) -> Result<usize, TemplateError> {
    let mut count = 0;
    for set in parse()? {
        if set.fits(tree, init, distribution) {
            let rows = set.all().map_err(|message| TemplateError::Recipe { path: Path::new(NAME).into(), message })?;
            fixups::apply(tree, &rows)?;
            count += 1;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_valid_and_finds_what_it_borrows() {
        for set in parse().unwrap() {
            set.all().unwrap_or_else(|e| panic!("{e}: {set:?}"));
        }
    }

    #[test]
    fn what_a_tree_is_decides_what_is_done_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p: &str| dir.path().join(p);
        for d in ["etc", "usr/lib/systemd/system", "usr/sbin", "usr/bin", "dev"] {
            std::fs::create_dir_all(at(d)).unwrap();
        }
        std::os::unix::fs::symlink("usr/lib", at("lib")).unwrap();
        for (path, text) in [
            ("etc/hosts", "mine"),
            ("etc/hostname", "packer"),
            ("etc/machine-id", "one"),
            ("dev/left", ""),
            ("usr/lib/systemd/system/console-getty.service", "[Install]\nWantedBy=getty.target\n"),
        ] {
            std::fs::write(at(path), text).unwrap();
        }
        let tree = Tree::open(dir.path()).unwrap();
        apply(&tree, Init::Busybox, None).unwrap();
        assert_eq!(std::fs::read(at("etc/machine-id")).unwrap(), b"one", "no business of a busybox");
        assert_eq!(std::fs::read(at("etc/hosts")).unwrap(), b"mine");
        assert_eq!(std::fs::read(at("etc/hostname")).unwrap(), b"localhost\n");
        assert!(!at("dev/left").exists());
        apply(&tree, Init::Systemd, Some("debian 13")).unwrap();
        assert_eq!(std::fs::read(at("etc/machine-id")).unwrap(), b"");
        assert!(std::fs::read_link(at("etc/systemd/system/getty.target.wants/console-getty.service")).is_ok());
        assert!(std::fs::read_link(at("etc/systemd/system/systemd-udevd.service")).is_ok());
        assert!(!at("etc/systemd/system/vz-ssh-hostkeys.service").exists(), "there is no sshd");
        let dropin = std::fs::read_to_string(at("etc/systemd/system/service.d/10-vz.conf")).unwrap();
        assert!(dropin.contains("PrivatePIDs=no"), "{dropin}");
    }

    const ALPINE: &str = "# /etc/inittab\n::sysinit:/sbin/openrc sysinit\n::wait:/sbin/openrc default\n\
        tty1::respawn:/sbin/getty 38400 tty1\n# tty2::respawn:/sbin/getty 38400 tty2\nttyS0::respawn:/sbin/getty -L 0 ttyS0 vt100\n\
        ::shutdown:/sbin/openrc shutdown\n";

    #[test]
    fn a_busybox_init_gets_its_login_on_the_console_and_no_terminals_that_are_not_there() {
        let after = |inittab: &str, files: &[&str]| {
            let dir = tempfile::tempdir().unwrap();
            for d in ["etc", "sbin"] {
                std::fs::create_dir_all(dir.path().join(d)).unwrap();
            }
            for file in files {
                std::fs::write(dir.path().join(file), "").unwrap();
            }
            std::fs::write(dir.path().join("etc/inittab"), inittab).unwrap();
            apply(&Tree::open(dir.path()).unwrap(), Init::Busybox, None).unwrap();
            let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap_or_default();
            (read("etc/inittab"), read("etc/rc.conf"))
        };
        let (inittab, rc) = after(ALPINE, &["sbin/getty", "sbin/openrc", "sbin/openrc-run"]);
        assert_eq!(
            inittab,
            "# /etc/inittab\n::sysinit:/sbin/openrc sysinit\n::wait:/sbin/openrc default\n\
             # tty2::respawn:/sbin/getty 38400 tty2\n::shutdown:/sbin/openrc shutdown\n\
             console::respawn:/sbin/getty 38400 console vt220\n"
        );
        assert!(rc.contains("rc_sys=\"lxc\""), "{rc}");
        for mine in ["::respawn:/usr/bin/serve\n::askfirst:-/bin/sh\n", "console::respawn:/sbin/getty 9600 console\n"] {
            assert_eq!(after(mine, &["sbin/getty"]), (mine.to_owned(), String::new()), "somebody's own");
        }
        assert_eq!(after(ALPINE, &[]).0, ALPINE, "there is no getty to put there");
    }
}
