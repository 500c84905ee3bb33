//! Recipes: one TOML file per OS template, `templates/<NAME>.toml`. Everything in a recipe is data:
//! what to install and how the result differs from a plain installation. The reference is
//! `docs/guide/templates.md`.

use super::TemplateError;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};
use vz_types::{ManagerConfig, Paths, TemplateName, inits};

/// What a template is made from and with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// One line for `template list`.
    pub description: String,
    /// Distribution, as in the `ID=` of its os-release.
    #[serde(default)]
    pub distribution: Distribution,
    /// Suite of the distribution's archive (`bookworm`). Exactly one of this and [`Recipe::tree`].
    #[serde(default)]
    pub suite: Option<Suite>,
    /// A prepared directory on this host to copy instead of installing packages.
    #[serde(default)]
    pub tree: Option<GuestPath>,
    /// Further suites taken along, where the host's sources name a mirror of them.
    #[serde(default)]
    pub pockets: Vec<Pocket>,
    /// Archive components.
    #[serde(default = "default_components")]
    pub components: Vec<Word>,
    /// Mirror to use instead of the host's own.
    #[serde(default)]
    pub mirror: Option<MirrorUri>,
    /// Architecture in Debian's words. Absent: the host's.
    #[serde(default)]
    pub arch: Option<Word>,
    /// Package set to start from.
    #[serde(default)]
    pub variant: Variant,
    /// The init the result must have.
    pub init: Init,
    /// Packages installed besides the variant's.
    #[serde(default)]
    pub packages: Vec<Word>,
    /// Changes to the installed files.
    #[serde(default)]
    pub fixups: Fixups,
}

fn default_components() -> Vec<Word> {
    vec![Word("main".into())]
}

/// Distributions this version can install.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Debian.
    #[default]
    Debian,
}

/// A suite that belongs to the main one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pocket {
    /// `<suite>-updates`, on the same mirror.
    Updates,
    /// `<suite>-security`, on the host's mirror of the security archive.
    Security,
}

/// mmdebstrap's variants that make sense for a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Nothing but the named packages and what they depend on, unpacked and not configured: for roots without a
    /// package manager.
    Extract,
    /// Essential packages and apt.
    Apt,
    /// And those of priority required.
    #[default]
    Minbase,
    /// And those of priority important.
    Important,
    /// And those of priority standard.
    Standard,
}

impl Variant {
    /// mmdebstrap's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Extract => "extract",
            Self::Apt => "apt",
            Self::Minbase => "minbase",
            Self::Important => "important",
            Self::Standard => "standard",
        }
    }
}

/// Inits we know how to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// systemd.
    Systemd,
    /// sysvinit.
    Sysvinit,
    /// OpenRC's own init.
    Openrc,
    /// runit.
    Runit,
    /// busybox init.
    Busybox,
    /// Any executable at `/sbin/init`.
    Any,
}

impl Init {
    const ALL: [Self; 6] = [Self::Systemd, Self::Sysvinit, Self::Openrc, Self::Runit, Self::Busybox, Self::Any];

    /// Which init a resolved path belongs to.
    pub fn of_path(resolved: &str) -> Self {
        let word = inits::of_link(resolved).map(|i| i.word);
        Self::ALL.into_iter().find(|i| Some(i.word()) == word).unwrap_or(Self::Any)
    }

    /// The word of the recipe and of the manifest.
    pub fn word(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Sysvinit => "sysvinit",
            Self::Openrc => "openrc",
            Self::Runit => "runit",
            Self::Busybox => "busybox",
            Self::Any => "any",
        }
    }
}

/// `[fixups]`: changes to the installed files, applied in the order of these fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fixups {
    /// Files and directories removed; the last component may hold `*`. Missing ones are fine.
    pub remove: Vec<GuestPath>,
    /// Files written.
    pub file: Vec<FileRow>,
    /// Lines of `/etc/inittab` changed.
    pub inittab: Option<InittabRow>,
    /// Symbolic links made, replacing what is there: link to target.
    pub symlink: BTreeMap<GuestPath, String>,
    /// Drop-ins written for units.
    pub dropin: Vec<DropinRow>,
    /// systemd units linked to /dev/null.
    pub mask: Vec<UnitName>,
    /// systemd units enabled, by their `[Install]` section.
    pub enable: Vec<UnitName>,
    /// systemd units disabled: their links in `/etc/systemd/system/*.{wants,requires}` are removed.
    pub disable: Vec<UnitName>,
    /// Directories emptied, last but for [`Fixups::empty`].
    pub clear: Vec<GuestPath>,
    /// Files left behind empty, mode 0644.
    pub empty: Vec<GuestPath>,
}

/// `[[fixups.file]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRow {
    /// Where; missing directories above it are made.
    pub path: GuestPath,
    /// What is in it. A first line that is empty is dropped.
    pub content: String,
    /// Permission bits in octal.
    #[serde(default)]
    pub mode: Mode,
}

/// `[fixups.inittab]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InittabRow {
    /// Lines with one of these as their first field (busybox: the terminal) are removed.
    pub drop: Vec<String>,
    /// This line is added, unless one that stays gives a login or a shell.
    pub console: String,
}

/// `[[fixups.dropin]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropinRow {
    /// The unit.
    pub unit: UnitName,
    /// What `/etc/systemd/system/<unit>.d/10-vz.conf` holds.
    pub content: String,
}

macro_rules! text_type {
    ($(#[$doc:meta])* $ty:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $ty(String);
        impl $ty {
            /// The text.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl TryFrom<String> for $ty {
            type Error = String;
            fn try_from(s: String) -> Result<Self, String> {
                let check: fn(&str) -> bool = $check;
                if check(&s) { Ok(Self(s)) } else { Err(format!(concat!("{:?} is not ", $what), s.chars().take(80).collect::<String>())) }
            }
        }
        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    };
}

fn word(s: &str, extra: &[u8]) -> bool {
    s.len() <= 128
        && s.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}

text_type!(
    /// A package, component or architecture: letters, digits, `+`, `-`, `.` and `:`.
    Word, "a package, component or architecture name", |s| word(s, b"+-.:")
);
text_type!(
    /// A suite of an archive: letters, digits, `-` and `.`.
    Suite, "a suite name", |s| word(s, b"-.")
);
text_type!(
    /// A systemd unit's file name, with its type.
    UnitName, "a systemd unit name such as `cron.service`", |s| {
        word(s, b"-_.@:\\") && s.rsplit_once('.').is_some_and(|(_, kind)| UNIT_KINDS.contains(&kind))
    }
);
text_type!(
    /// An absolute path without `.`, `..` or doubled slashes.
    GuestPath, "an absolute path without `.`, `..` or doubled slashes", |s| {
        s.len() > 1 && s.len() < 4096 && s.strip_prefix('/').is_some_and(|rest| {
            rest.split('/').all(|c| !c.is_empty() && c != "." && c != ".." && !c.bytes().any(|b| b < b' '))
        })
    }
);
text_type!(
    /// A mirror: `http:`, `https:` or `file:`, no blanks.
    MirrorUri, "a mirror such as `http://mirror/debian`", |s| {
        ["http://", "https://", "file:/"].iter().any(|p| s.starts_with(p)) && s.bytes().all(|b| b.is_ascii_graphic())
    }
);

const UNIT_KINDS: &[&str] =
    &["service", "socket", "target", "mount", "automount", "timer", "path", "slice", "scope", "swap", "device"];

/// Permission bits, written in octal (`"0755"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mode(pub u32);

impl Default for Mode {
    fn default() -> Self {
        Self(0o644)
    }
}

impl TryFrom<String> for Mode {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        match u32::from_str_radix(&s, 8) {
            Ok(m) if m <= 0o7777 => Ok(Self(m)),
            _ => Err(format!("{s:?} is not a mode; write octal digits in quotes, like \"0644\"")),
        }
    }
}

impl Recipe {
    /// Reads a recipe; the error names file, line and key.
    pub fn parse(path: &Path, text: &str) -> Result<Self, TemplateError> {
        let bad = |message: String| TemplateError::Recipe { path: path.to_owned(), message };
        let recipe: Self = toml::from_str(text).map_err(|e| bad(one_line(text, &e)))?;
        match (&recipe.suite, &recipe.tree) {
            (Some(_), None) | (None, Some(_)) => Ok(recipe),
            (Some(_), Some(_)) => Err(bad(
                "`suite` and `tree` exclude each other: packages are installed or a directory is copied".into(),
            )),
            (None, None) => {
                Err(bad("`suite` is missing: name the suite to install, or a prepared directory with `tree`".into()))
            }
        }
    }
}

/// A recipe that comes with vzd itself.
pub fn shipped(name: &str) -> Option<Recipe> {
    let (name, text) = SHIPPED.iter().find(|(n, _)| *n == name)?;
    Recipe::parse(Path::new(name), text).ok()
}

/// A TOML error with the line it is about, which names the key.
pub fn one_line(text: &str, e: &toml::de::Error) -> String {
    let message = e.message().replace('\n', "; ");
    let Some(span) = e.span() else { return message };
    // What is missing is on no line.
    if message.starts_with("missing field") {
        return message;
    }
    let before = text.get(..span.start).unwrap_or(text);
    let line: String = text.lines().nth(before.matches('\n').count()).unwrap_or("").trim().chars().take(80).collect();
    format!("line {} ({line}): {message}", before.matches('\n').count() + 1)
}

/// Recipes that come with vzd itself, so that the shipped templates can be built wherever the binaries are.
const SHIPPED: &[(&str, &str)] = &[
    ("busybox", include_str!("../../../templates/busybox.toml")),
    ("debian-12", include_str!("../../../templates/debian-12.toml")),
    ("debian-12-openrc", include_str!("../../../templates/debian-12-openrc.toml")),
    ("debian-12-runit", include_str!("../../../templates/debian-12-runit.toml")),
    ("debian-12-sysvinit", include_str!("../../../templates/debian-12-sysvinit.toml")),
    ("debian-13", include_str!("../../../templates/debian-13.toml")),
];

/// Where recipes come from, first match wins: the operator's own, the configured directories,
/// `VZ_RECIPES` (for development), the installed ones, and those built into vzd.
#[derive(Clone, Debug)]
pub struct Recipes {
    dirs: Vec<PathBuf>,
}

impl Recipes {
    /// The directories of one manager.
    pub fn new(paths: &Paths, cfg: &ManagerConfig) -> Self {
        let mut dirs = vec![paths.recipe_dir()];
        dirs.extend(cfg.recipe_dirs.iter().cloned());
        dirs.extend(std::env::var_os("VZ_RECIPES").filter(|v| !v.is_empty()).map(PathBuf::from));
        dirs.push("/usr/share/vz/templates".into());
        Self { dirs }
    }

    /// The recipe of that name with its text, or `None` if there is none.
    pub fn find(&self, name: &TemplateName) -> Result<Option<(Recipe, String)>, TemplateError> {
        for dir in &self.dirs {
            let path = dir.join(format!("{name}.toml"));
            match vz_sys::records::operators_text(&path) {
                Ok(text) => return Ok(Some((Recipe::parse(&path, &text)?, text))),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(TemplateError::io("reading the recipe", &path, e)),
            }
        }
        match SHIPPED.iter().find(|(n, _)| *n == name.as_str()) {
            Some((n, text)) => {
                Ok(Some((Recipe::parse(Path::new(&format!("{n}.toml (built in)")), text)?, (*text).into())))
            }
            None => Ok(None),
        }
    }

    /// Every name a recipe can be found under, sorted.
    pub fn names(&self) -> Vec<TemplateName> {
        let files = self.dirs.iter().filter_map(|d| std::fs::read_dir(d).ok()).flatten().flatten();
        let stems = files.filter_map(|f| f.file_name().to_str()?.strip_suffix(".toml").map(str::to_owned));
        let mut names: Vec<TemplateName> =
            stems.chain(SHIPPED.iter().map(|(n, _)| (*n).to_owned())).filter_map(|n| n.parse().ok()).collect();
        names.sort();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_recipes_are_valid() {
        for (name, text) in SHIPPED {
            let r = Recipe::parse(Path::new(name), text).unwrap();
            // The package that brings `/sbin/init`.
            let package = match r.init {
                Init::Systemd => "systemd-sysv",
                Init::Sysvinit => "sysvinit-core",
                Init::Runit => "runit-init",
                Init::Busybox => "busybox-static",
                Init::Openrc | Init::Any => "none is shipped",
            };
            assert!(r.packages.iter().any(|p| p.as_str() == package), "{name}: {package}");
        }
    }

    #[test]
    fn a_broken_recipe_names_file_and_key() {
        let parse = |text: &str| Recipe::parse(Path::new("/etc/vz/templates/x.toml"), text).unwrap_err().to_string();
        let e = parse("description = 'x'\nsuite = 'bookworm'\ninit = 'systemd'\n[fixups]\nmaks = ['a.service']\n");
        assert!(e.contains("/etc/vz/templates/x.toml") && e.contains("maks"), "{e}");
        let e =
            parse("description = 'x'\nsuite = 'bookworm'\ninit = 'systemd'\n[fixups]\nmask = ['../../etc/passwd']\n");
        assert!(e.contains("mask") && e.contains("unit name"), "{e}");
        let e = parse(
            "description = 'x'\nsuite = 'bookworm'\ninit = 'systemd'\n[[fixups.file]]\npath = '/etc/../x'\ncontent = ''\n",
        );
        assert!(e.contains("absolute path"), "{e}");
        let e = parse("description = 'x'\ninit = 'systemd'\n");
        assert!(e.contains("suite"), "{e}");
    }

    #[test]
    fn names_that_are_options_or_commands_are_refused() {
        for bad in ["--include", "a b", "$(id)", "a;b", "", "a/b"] {
            assert!(Word::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        for bad in ["x", "x.txt", "a/b.service", "-x.service"] {
            assert!(UnitName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        assert!(Mode::try_from("0999".to_owned()).is_err());
    }
}
