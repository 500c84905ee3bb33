//! `cargo xtask deb`: the Debian package, made with `dpkg-deb` from a staged tree. What goes where is the table in
//! [`contents`]; control file, maintainer scripts and copyright are templates in `config/debian/`. Same commit, same
//! package: times are the commit's and owners are root's.

mod contents;
mod version;

use crate::{deps, programs, show};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::{
    fs,
    hash::{Hash, Hasher},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use vz_tests::{command, template::checkout};

/// What kind of package to make.
#[derive(Args)]
pub struct Options {
    /// Give the package this version instead of the one of the checkout
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Pack the programs built before, without building
    #[arg(long)]
    no_build: bool,
    /// Do not compress it: a second instead of half a minute, for tests
    #[arg(long)]
    uncompressed: bool,
    /// Put it here instead of target/deb
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// How long dpkg's tools may take: compressing some 15 MB.
const LIMIT: Duration = Duration::from_secs(300);

/// Makes the package and says where it is and how to install it.
///
/// # Errors
/// A build fails, a file is missing, or dpkg's tools refuse.
pub fn run(options: &Options) -> Result<()> {
    let file = make(options)?;
    show::say(format!("\n{}\n", file.display()));
    show::say("install or upgrade it:  apt-get install --no-install-recommends \\");
    show::say(format!("                            {}", file.display()));
    show::say("look inside:            dpkg-deb --info FILE; dpkg-deb --contents FILE");
    show::say("build OS templates:     apt-get install mmdebstrap   (recommended, needed only for that)");
    show::say("then:                   vzctl check");
    Ok(())
}

/// Makes the package of programs that are built, not compressed; returns its file.
///
/// # Errors
/// As [`run`].
pub fn packed() -> Result<PathBuf> {
    make(&Options { version: None, no_build: true, uncompressed: true, output: None })
}

/// What the package would hold, as a number: another one when a program, a file or a maintainer script changes.
///
/// # Errors
/// A file is missing.
pub fn fingerprint() -> Result<u64> {
    let mut hash = std::hash::DefaultHasher::new();
    for file in contents::files(&programs::target_dir().join("release"))? {
        let bytes = fs::read(&file.from).with_context(|| format!("cannot read {}", file.from.display()))?;
        (&file.to, file.mode, bytes).hash(&mut hash);
    }
    let scripts = checkout().join("config/debian");
    let mut names: Vec<PathBuf> = fs::read_dir(&scripts)?.flatten().map(|e| e.path()).collect();
    names.sort();
    for name in names {
        fs::read(&name).with_context(|| format!("cannot read {}", name.display()))?.hash(&mut hash);
    }
    Ok(hash.finish())
}

/// Makes the package; returns its file.
///
/// # Errors
/// As [`run`].
pub fn make(options: &Options) -> Result<PathBuf> {
    deps::install(deps::PACKAGING)?;
    let bin = if options.no_build { programs::target_dir().join("release") } else { programs::build()? };
    let source = version::of_checkout()?;
    let version = match &options.version {
        Some(wanted) => version::checked(wanted)?,
        None => source.version.clone(),
    };
    let arch = said(Command::new("dpkg").arg("--print-architecture"))?;
    let out = match &options.output {
        Some(dir) => std::path::absolute(dir)?,
        None => programs::target_dir().join("deb"),
    };
    let (stage, file) = (out.join("stage"), out.join(format!("vz_{version}_{arch}.deb")));
    show::step(&format!("pack vz {version} for {arch}"), || {
        if stage.exists() {
            remove(&stage)?;
        }
        let package = Package { bin, stage, version, arch, source };
        package.stage()?;
        package.control()?;
        let mut c = Command::new("dpkg-deb");
        let compression = if options.uncompressed { "-Znone" } else { "-Zxz" };
        c.args(["--root-owner-group", compression, "--build"]).arg(&package.stage).arg(&file);
        c.env("SOURCE_DATE_EPOCH", package.source.epoch.to_string());
        said(&mut c)?;
        remove(&package.stage)
    })?;
    Ok(file)
}

/// One package on its way.
struct Package {
    /// Where the programs are.
    bin: PathBuf,
    /// The tree it is made of.
    stage: PathBuf,
    version: String,
    arch: String,
    source: version::Source,
}

impl Package {
    /// Puts every file in its place.
    fn stage(&self) -> Result<()> {
        for file in contents::files(&self.bin)? {
            let to = self.stage.join(&file.to);
            self.dir(to.parent().unwrap_or(&self.stage))?;
            let bytes = fs::read(&file.from).with_context(|| format!("cannot read {}", file.from.display()))?;
            put(&to, &bytes, file.mode)?;
            if file.gzip {
                said(Command::new("gzip").args(["-9n"]).arg(&to))?;
            }
        }
        for name in programs::NAMES {
            let to = self.stage.join("usr/sbin").join(name);
            std::os::unix::fs::symlink("vzctl", &to).with_context(|| format!("cannot make {}", to.display()))?;
        }
        for dir in contents::DIRS {
            self.dir(&self.stage.join(dir))?;
        }
        let doc = self.stage.join("usr/share/doc/vz");
        put(&doc.join("copyright"), copyright()?.as_bytes(), 0o644)?;
        put(&doc.join("changelog"), self.changelog()?.as_bytes(), 0o644)?;
        said(Command::new("gzip").args(["-9n"]).arg(doc.join("changelog")))?;
        Ok(())
    }

    fn dir(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        for level in dir.ancestors().take_while(|d| d.starts_with(&self.stage)) {
            fs::set_permissions(level, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// The `DEBIAN/` directory.
    fn control(&self) -> Result<()> {
        let size = said(Command::new("du").args(["-sk", "--apparent-size"]).arg(&self.stage))?;
        let size = size.split_whitespace().next().unwrap_or("0").to_owned();
        let sums = self.sums()?;
        let dir = self.stage.join("DEBIAN");
        self.dir(&dir)?;
        let fill = |text: String, schema: &str, shlibs: &str| {
            text.replace("@VERSION@", &self.version)
                .replace("@ARCH@", &self.arch)
                .replace("@SIZE@", &size)
                .replace("@SHLIBS@", shlibs)
                .replace("@SCHEMA@", schema)
                .replace("@MAINTAINER@", &maintainer())
        };
        let (schema, shlibs) = (self.schema()?, self.shlibs()?);
        for (name, mode) in contents::CONTROL {
            let text = fill(template(name)?, &schema, &shlibs);
            let left = text.split(char::is_whitespace).any(|w| w.len() > 2 && w.starts_with('@') && w.ends_with('@'));
            ensure!(!left, "a placeholder is left in {name}");
            put(&dir.join(name), text.as_bytes(), *mode)?;
        }
        put(&dir.join("conffiles"), contents::conffiles(&self.stage)?.as_bytes(), 0o644)?;
        put(&dir.join("md5sums"), sums.as_bytes(), 0o644)
    }

    /// What the inventory of this version is called, for the refusal to downgrade below it.
    fn schema(&self) -> Result<String> {
        let number = said(Command::new(self.bin.join("vzd")).arg("schema"))?;
        number.parse::<u32>().with_context(|| format!("vzd's schema is `{number}`"))?;
        Ok(number)
    }

    /// The libraries the programs are linked against, as dpkg reckons them.
    fn shlibs(&self) -> Result<String> {
        let scratch = self.stage.with_file_name("shlibs");
        fs::create_dir_all(scratch.join("debian"))?;
        fs::write(scratch.join("debian/control"), "Source: vz\n\nPackage: vz\nArchitecture: any\n")?;
        let mut c = Command::new("dpkg-shlibdeps");
        c.arg("-O").args(["vzctl", "vzd", "vzmon"].map(|p| self.bin.join(p))).current_dir(&scratch);
        let text = said(&mut c)?;
        remove(&scratch)?;
        match text.lines().find_map(|l| l.strip_prefix("shlibs:Depends=")) {
            Some(list) => Ok(list.to_owned()),
            None => bail!("dpkg-shlibdeps names no libraries: {text}"),
        }
    }

    fn sums(&self) -> Result<String> {
        let mut c = Command::new("find");
        c.args(["etc", "usr", "-type", "f", "!", "-path", "etc/*", "-exec", "md5sum", "{}", "+"]);
        Ok(said(c.current_dir(&self.stage))? + "\n")
    }

    /// Debian's form of it; what changed for operators is in `CHANGELOG.md` beside it.
    fn changelog(&self) -> Result<String> {
        let date = said(Command::new("date").args(["-u", "-R", "-d"]).arg(format!("@{}", self.source.epoch)))?;
        let who = maintainer();
        Ok(format!(
            "vz ({}) unstable; urgency=medium\n\n  * Built from {}. What changed is in CHANGELOG.md.gz.\n\n -- {who}  {date}\n",
            self.version, self.source.name
        ))
    }
}

/// A file of `config/debian/`.
fn template(name: &str) -> Result<String> {
    let path = checkout().join("config/debian").join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Who builds it, as Debian's tools are told (deb-control(5), debchange(1)).
fn maintainer() -> String {
    let given = |name: &str, other: &str| std::env::var(name).ok().filter(|v| !v.is_empty()).unwrap_or(other.into());
    format!("{} <{}>", given("DEBFULLNAME", "vz contributors"), given("DEBEMAIL", "vz@vz.invalid"))
}

/// `copyright` with the MIT text of LICENSE, indented, a dot for an empty line.
fn copyright() -> Result<String> {
    let license = fs::read_to_string(checkout().join("LICENSE")).context("cannot read LICENSE")?;
    let begin = license.find("Permission is hereby granted").context("LICENSE has no MIT text")?;
    let text = license[begin..].split("=====").next().unwrap_or_default().trim();
    let lines: Vec<String> =
        text.lines().map(|l| if l.trim().is_empty() { " .".into() } else { format!(" {l}") }).collect();
    Ok(template("copyright")?.replace("@MIT@", &lines.join("\n")))
}

fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// A tree of ours, made by us as ourselves.
fn remove(tree: &Path) -> Result<()> {
    said(Command::new("rm").arg("-rf").arg(tree)).map(|_| ())
}

/// What a command prints, which must succeed.
fn said(c: &mut Command) -> Result<String> {
    let o = command::run(c.env("LC_ALL", "C"), None, LIMIT)?;
    if o.code() != 0 {
        bail!("{o}");
    }
    Ok(o.text().to_owned())
}
