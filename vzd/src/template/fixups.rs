//! Applies a recipe's fix-ups to an installed tree. Every change is a row of the recipe; this is only
//! the meaning of each kind of row.

use super::{
    TemplateError,
    recipe::{Fixups, Init, InittabRow, Recipe, UnitName},
    tree::Tree,
};
use std::io;

const INITTAB: &str = "/etc/inittab";
const UNITS: &str = "/etc/systemd/system";
/// Where unit files are, in systemd's order.
const UNIT_DIRS: &[&str] = &[UNITS, "/usr/lib/systemd/system", "/lib/systemd/system"];

/// Applies all of them, in the order of [`Fixups`]' fields.
pub fn apply(tree: &Tree, fixups: &Fixups) -> Result<(), TemplateError> {
    let on = |key: &str, path: &str, r: io::Result<()>| {
        r.map_err(|e| TemplateError::io(&format!("the fix-up `{key}` of {path}, in"), tree.path(), e))
    };
    for path in &fixups.remove {
        on("remove", path.as_str(), tree.remove(path.as_str()))?;
    }
    for row in &fixups.file {
        let content = row.content.strip_prefix('\n').unwrap_or(&row.content);
        on("file", row.path.as_str(), tree.write(row.path.as_str(), content.as_bytes(), row.mode.0))?;
    }
    if let Some(row) = &fixups.inittab {
        on("inittab", INITTAB, inittab(tree, row))?;
    }
    for (link, target) in &fixups.symlink {
        on("symlink", link.as_str(), tree.symlink(link.as_str(), target))?;
    }
    for row in &fixups.dropin {
        let path = format!("{UNITS}/{}.d/10-vz.conf", row.unit);
        let content = row.content.strip_prefix('\n').unwrap_or(&row.content);
        on("dropin", row.unit.as_str(), tree.write(&path, content.as_bytes(), 0o644))?;
    }
    for unit in &fixups.disable {
        on("disable", unit.as_str(), disable(tree, unit))?;
    }
    for unit in &fixups.mask {
        on("mask", unit.as_str(), disable(tree, unit))?;
        on("mask", unit.as_str(), tree.symlink(&format!("{UNITS}/{unit}"), "/dev/null"))?;
    }
    for unit in &fixups.enable {
        on("enable", unit.as_str(), enable(tree, unit))?;
    }
    for dir in &fixups.clear {
        on("clear", dir.as_str(), tree.clear(dir.as_str()))?;
    }
    for path in &fixups.empty {
        on("empty", path.as_str(), tree.write(path.as_str(), b"", 0o644))?;
    }
    Ok(())
}

/// Makes the links that the unit's `[Install]` section asks for, as `systemctl enable` does.
fn enable(tree: &Tree, unit: &UnitName) -> io::Result<()> {
    for dir in UNIT_DIRS {
        let path = format!("{dir}/{unit}");
        let Some(bytes) = tree.read(&path)? else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let mut links = 0;
        for (key, name) in install_section(&text) {
            let link = match key {
                "WantedBy" => format!("{UNITS}/{name}.wants/{unit}"),
                "RequiredBy" => format!("{UNITS}/{name}.requires/{unit}"),
                "Alias" => format!("{UNITS}/{name}"),
                _ => continue,
            };
            if UnitName::try_from(name.to_owned()).is_err() {
                return Err(io::Error::other(format!("its [Install] section names {name:?}, which is no unit")));
            }
            tree.symlink(&link, &path)?;
            links += 1;
        }
        return match links {
            0 => Err(io::Error::other("it has no [Install] section to enable it by")),
            _ => Ok(()),
        };
    }
    Err(io::Error::other("there is no such unit"))
}

/// Changes lines of inittab(5), as busybox and sysvinit have it: `id:runlevels:action:process`.
fn inittab(tree: &Tree, row: &InittabRow) -> io::Result<()> {
    /// Programs that somebody logs in by.
    const LOGINS: &[&str] = &["getty", "agetty", "mingetty", "login", "sulogin", "sh", "ash", "bash"];
    let bytes = tree.read(INITTAB)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let goes = |line: &str| line.split_once(':').is_some_and(|(id, _)| row.drop.iter().any(|d| d == id.trim()));
    let logs_in = |line: &str| {
        let mut fields = line.trim().splitn(4, ':');
        let comment = fields.next().is_none_or(|id| id.starts_with('#'));
        let (action, process) = (fields.nth(1).unwrap_or_default(), fields.next().unwrap_or_default());
        let program = process.split_whitespace().next().unwrap_or_default().trim_start_matches(['-', '+', '@']);
        let program = program.rsplit('/').next().unwrap_or_default();
        !comment && ["respawn", "askfirst"].contains(&action.trim()) && LOGINS.contains(&program)
    };
    let stays: Vec<&str> = text.lines().filter(|line| !goes(line)).collect();
    let console = (!stays.iter().any(|line| logs_in(line))).then_some(row.console.as_str());
    let text: String = stays.into_iter().chain(console).flat_map(|line| [line, "\n"]).collect();
    tree.write(INITTAB, text.as_bytes(), 0o644)
}

fn install_section(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines =
        text.lines().map(str::trim).skip_while(|l| *l != "[Install]").skip(1).take_while(|l| !l.starts_with('['));
    lines.filter_map(|l| l.split_once('=')).flat_map(|(k, v)| v.split_whitespace().map(move |name| (k.trim(), name)))
}

fn disable(tree: &Tree, unit: &UnitName) -> io::Result<()> {
    for dir in tree.list(UNITS)? {
        if dir.ends_with(".wants") || dir.ends_with(".requires") {
            tree.remove(&format!("{UNITS}/{dir}/{unit}"))?;
        }
    }
    Ok(())
}

/// The init of a tree, or why it has none that the recipe's promise fits.
pub fn init_of(tree: &Tree, name: &str, recipe: &Recipe) -> Result<Init, TemplateError> {
    let no = |found: String| TemplateError::NoInit { name: name.to_owned(), wanted: recipe.init.word(), found };
    match tree.resolve("/sbin/init").map_err(|e| TemplateError::io("looking for /sbin/init in", tree.path(), e))? {
        None => Err(no("no /sbin/init at all".into())),
        Some((path, mode)) if mode & 0o111 == 0 => Err(no(format!("{path}, which is not executable"))),
        Some((path, _)) => match Init::of_path(&path) {
            found if recipe.init == Init::Any || found == recipe.init => Ok(found),
            _ => Err(no(path)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn tree(dir: &Path) -> Tree {
        let units = dir.join("usr/lib/systemd/system");
        std::fs::create_dir_all(&units).unwrap();
        std::fs::create_dir_all(dir.join("etc/systemd/system/multi-user.target.wants")).unwrap();
        std::fs::write(
            units.join("a.service"),
            "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target b.target\nAlias=aa.service\n",
        )
        .unwrap();
        std::os::unix::fs::symlink("/x", dir.join("etc/systemd/system/multi-user.target.wants/gone.service")).unwrap();
        Tree::open(dir).unwrap()
    }

    fn fixups(text: &str) -> Fixups {
        Recipe::parse(
            Path::new("x.toml"),
            &format!("description = 'x'\nsuite = 'bookworm'\ninit = 'systemd'\n[fixups]\n{text}"),
        )
        .unwrap()
        .fixups
    }

    #[test]
    fn units_are_masked_and_enabled_as_systemctl_does() {
        let dir = tempfile::tempdir().unwrap();
        let t = tree(dir.path());
        apply(&t, &fixups("mask = ['gone.service']\nenable = ['a.service']\nempty = ['/etc/machine-id']\n")).unwrap();
        let link = |p: &str| std::fs::read_link(dir.path().join(p)).unwrap();
        assert_eq!(link("etc/systemd/system/gone.service"), Path::new("/dev/null"));
        assert!(
            std::fs::symlink_metadata(dir.path().join("etc/systemd/system/multi-user.target.wants/gone.service"))
                .is_err()
        );
        assert_eq!(link("etc/systemd/system/b.target.wants/a.service"), Path::new("/usr/lib/systemd/system/a.service"));
        assert_eq!(link("etc/systemd/system/aa.service"), Path::new("/usr/lib/systemd/system/a.service"));
        assert_eq!(std::fs::read(dir.path().join("etc/machine-id")).unwrap(), b"");
        let e = apply(&t, &fixups("enable = ['nosuch.service']\n")).unwrap_err();
        assert!(e.to_string().contains("nosuch.service"), "{e}");
    }

    #[test]
    fn a_tree_without_init_is_refused_with_the_documented_code() {
        let dir = tempfile::tempdir().unwrap();
        let recipe =
            Recipe::parse(Path::new("x.toml"), "description = 'x'\nsuite = 'bookworm'\ninit = 'systemd'\n").unwrap();
        let t = Tree::open(dir.path()).unwrap();
        let e = init_of(&t, "x", &recipe).unwrap_err();
        assert_eq!(e.exit_code(), vz_types::ExitCode::BadTemplate);
        t.write("/usr/lib/systemd/systemd", b"", 0o755).unwrap();
        t.symlink("/usr/sbin/init", "/lib/systemd/systemd").unwrap();
        t.symlink("/sbin", "usr/sbin").unwrap();
        t.symlink("/lib", "usr/lib").unwrap();
        assert_eq!(init_of(&t, "x", &recipe).unwrap(), Init::Systemd);
    }
}
