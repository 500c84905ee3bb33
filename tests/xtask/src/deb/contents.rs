//! What the package holds: one row for each kind of file, from the checkout to its place on a host.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};
use vz_tests::template::checkout;

/// Where rows get their files from.
#[derive(Clone, Copy, PartialEq)]
enum From {
    /// What cargo built.
    Built,
    /// The checkout.
    Source,
}

/// One kind of file.
struct Row {
    from: From,
    /// A file, or a directory and `*` with what names begin and end with.
    what: &'static str,
    /// Its directory on the host; a name at the end unless it ends with `/`.
    to: &'static str,
    mode: u32,
    gzip: bool,
    /// What is left out at the end of its name.
    strip: &'static str,
    /// Whether a checkout without any is in order.
    optional: bool,
}

const fn row(what: &'static str, to: &'static str) -> Row {
    Row { from: From::Source, what, to, mode: 0o644, gzip: false, strip: "", optional: false }
}

const fn program(what: &'static str, to: &'static str) -> Row {
    Row { from: From::Built, mode: 0o755, ..row(what, to) }
}

const fn zipped(what: &'static str, to: &'static str) -> Row {
    Row { gzip: true, ..row(what, to) }
}

const ROWS: &[Row] = &[
    program("vzctl", "usr/sbin/"),
    program("vzd", "usr/sbin/"),
    program("vzmon", "usr/libexec/vz/"),
    row("config/*.service", "usr/lib/systemd/system/"),
    row("config/vz.sysctl", "usr/lib/sysctl.d/60-vz.conf"),
    row("config/vz.tmpfiles", "usr/lib/tmpfiles.d/vz.conf"),
    row("config/vz.sysusers", "usr/lib/sysusers.d/vz.conf"),
    row("config/vz.toml", "etc/vz/"),
    row("config/ct-*.toml", "usr/share/vz/samples/"),
    row("templates/*.toml", "usr/share/vz/templates/"),
    Row { optional: true, ..zipped("config/man/*.5", "usr/share/man/man5/") },
    zipped("config/man/*.8", "usr/share/man/man8/"),
    Row { strip: ".bash", ..row("config/completion/*.bash", "usr/share/bash-completion/completions/") },
    row("config/completion/_*", "usr/share/zsh/vendor-completions/"),
    row("config/completion/*.fish", "usr/share/fish/vendor_completions.d/"),
    row("README.md", "usr/share/doc/vz/"),
    zipped("docs/CHANGELOG.md", "usr/share/doc/vz/"),
    row("docs/guide/*.md", "usr/share/doc/vz/guide/"),
    row("docs/reference/*.md", "usr/share/doc/vz/reference/"),
    row("docs/reference/openapi.json", "usr/share/doc/vz/reference/"),
    Row { optional: true, ..row("config/debian/lintian-overrides", "usr/share/lintian/overrides/vz") },
];

/// Directories the package owns though it puts nothing there. Those of the manager come from tmpfiles.d, with
/// modes that are part of the isolation, and stay when the package goes.
pub const DIRS: &[&str] = &["etc/vz"];

/// Files of `config/debian/` that go to the control archive.
pub const CONTROL: &[(&str, u32)] =
    &[("control", 0o644), ("preinst", 0o755), ("postinst", 0o755), ("prerm", 0o755), ("postrm", 0o755)];

/// One file on its way into the package.
pub struct File {
    /// Where it is.
    pub from: PathBuf,
    /// Where it goes, below the root.
    pub to: PathBuf,
    /// Its mode.
    pub mode: u32,
    /// To be compressed, which adds `.gz` to its name.
    pub gzip: bool,
}

/// Every file, of programs built in `bin`.
///
/// # Errors
/// A row matches nothing, or a directory cannot be read.
pub fn files(bin: &Path) -> Result<Vec<File>> {
    let mut all = Vec::new();
    for row in ROWS {
        let top = if row.from == From::Built { bin.to_owned() } else { checkout() };
        let found = matching(&top.join(row.what))?;
        ensure!(row.optional || !found.is_empty(), "there is no {} in {}", row.what, top.display());
        for from in found {
            let to = match row.to.strip_suffix('/') {
                Some(dir) => {
                    let name = from.file_name().unwrap_or_default().to_string_lossy();
                    Path::new(dir).join(name.strip_suffix(row.strip).unwrap_or(&name))
                }
                None => row.to.into(),
            };
            all.push(File { from, to, mode: row.mode, gzip: row.gzip });
        }
    }
    Ok(all)
}

/// The file itself, or those of its directory whose names fit around the `*` in its own.
fn matching(pattern: &Path) -> Result<Vec<PathBuf>> {
    let name = pattern.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let Some((begin, end)) = name.split_once('*') else {
        return Ok(if pattern.is_file() { vec![pattern.to_owned()] } else { Vec::new() });
    };
    let dir = pattern.parent().unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if path.is_file() && name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What below `/etc` is in the staged tree, one path per line: dpkg asks before it replaces what an operator changed.
///
/// # Errors
/// The tree cannot be read.
pub fn conffiles(stage: &Path) -> Result<String> {
    let mut lines = Vec::new();
    let mut todo = vec![stage.join("etc")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                todo.push(path);
            } else {
                lines.push(format!("/{}\n", path.strip_prefix(stage)?.display()));
            }
        }
    }
    lines.sort();
    Ok(lines.concat())
}
