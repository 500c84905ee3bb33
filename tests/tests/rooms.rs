//! Which room of vzd may use which: the drawing in `vzd/src/lib.rs` is read, and every source file held to it. And no file
//! of an operation uses another one's. Each check is tried on a tree with a violation in it.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use vz_tests::template::checkout;

/// Rooms by name, with their line in the drawing; the first line is 0.
fn drawing(src: &Path) -> BTreeMap<String, usize> {
    let text = fs::read_to_string(src.join("lib.rs")).unwrap();
    let lines = text.lines().skip_while(|l| *l != "//! ```text").skip(1).take_while(|l| *l != "//! ```");
    let mut rooms = BTreeMap::new();
    for (n, line) in lines.enumerate() {
        // Names, then what they are for behind two spaces.
        let names = line.trim_start_matches("//!").trim().split("  ").next().unwrap_or_default();
        for name in names.split(", ") {
            assert!(rooms.insert(name.to_owned(), n).is_none(), "{name} is drawn twice");
        }
    }
    rooms
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(sources(&path)),
            path if path.extension().is_some_and(|e| e == "rs") => found.push(path),
            _ => {}
        }
    }
    found.sort();
    found
}

/// The code of a file: without comments and string literals.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    let (mut quoted, mut comment) = (false, false);
    while let Some(c) = chars.next() {
        match c {
            '\n' if comment => (comment, _) = (false, out.push(c)),
            _ if comment => {}
            '\\' if quoted => _ = chars.next(),
            // A quotation mark as a character.
            '\'' if !quoted && chars.peek() == Some(&'"') => _ = chars.next(),
            '"' => quoted = !quoted,
            '/' if !quoted && chars.peek() == Some(&'/') => comment = true,
            c if !quoted => out.push(c),
            _ => {}
        }
    }
    out
}

/// The names that stand right behind `prefix`, in a path or as the first of each path in braces.
fn behind(code: &str, prefix: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(name(rest));
            continue;
        };
        let (mut depth, mut first) = (0, true);
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => first = true,
                c if depth == 0 && first && (c.is_alphanumeric() || c == '_') => {
                    found.insert(name(&list[i..]));
                    first = false;
                }
                _ => {}
            }
        }
    }
    found.remove("");
    found
}

/// Every arrow that does not lead down, and every file in no room.
fn arrows_back(src: &Path) -> Vec<String> {
    let rooms = drawing(src);
    let mut wrong = Vec::new();
    for file in sources(src) {
        let inside = file.strip_prefix(src).unwrap();
        let room = inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
        // Where everything comes together.
        if ["lib", "main", "man"].contains(&room.as_str()) {
            continue;
        }
        let Some(line) = rooms.get(&room) else {
            wrong.push(format!("{}: `{room}` is not in the drawing", inside.display()));
            continue;
        };
        for used in behind(&code(&file), "crate::").into_iter().filter(|u| *u != room) {
            if rooms.get(&used).is_none_or(|below| below <= line) {
                wrong.push(format!("{}: `{room}` uses `{used}`", inside.display()));
            }
        }
    }
    wrong
}

/// Every use of a file of an operation by another one.
fn operations_that_use_each_other(src: &Path) -> Vec<String> {
    let ops = src.join("ops");
    let files: Vec<PathBuf> = sources(&ops).into_iter().filter(|f| f.parent() == Some(&ops)).collect();
    let texts: BTreeMap<String, String> = files
        .iter()
        .map(|f| (f.file_stem().unwrap().to_string_lossy().into_owned(), code(f)))
        .filter(|(_, text)| text.contains("impl Operation for"))
        .collect();
    assert!(texts.len() > 8, "where are the operations? {:?}", texts.keys());
    let mut wrong = Vec::new();
    for (name, text) in &texts {
        let used: BTreeSet<String> =
            ["super::", "crate::ops::"].iter().flat_map(|prefix| behind(text, prefix)).collect();
        // `super::restart_for(..)` asks for an operation, as everybody may.
        wrong.extend(texts.keys().filter(|o| *o != name && used.contains(*o)).map(|o| format!("`{name}` uses `{o}`")));
    }
    wrong
}

fn vzd() -> PathBuf {
    checkout().join("vzd/src")
}

#[test]
fn every_arrow_between_rooms_leads_down() {
    let wrong = arrows_back(&vzd());
    assert!(wrong.is_empty(), "vzd/src/lib.rs has the drawing:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_of_an_operation_uses_another_operations_file() {
    let wrong = operations_that_use_each_other(&vzd());
    assert!(wrong.is_empty(), "what two share is a file of its own, like ops/down.rs:\n{}", wrong.join("\n"));
}

/// A copy of the sources, with a line more in one of them.
fn seeded(file: &str, line: &str) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    for from in sources(&vzd()) {
        let to = tree.path().join(from.strip_prefix(vzd()).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
    let file = tree.path().join(file);
    let text = fs::read_to_string(&file).unwrap_or_else(|_| "//! New.\n".into());
    fs::write(file, format!("{text}\n{line}\n")).unwrap();
    tree
}

#[test]
fn an_arrow_back_is_found_however_it_is_written() {
    for (file, line, wanted) in [
        ("inventory/change.rs", "use crate::ops::Ops;", "`inventory` uses `ops`"),
        (
            "storage/tool.rs",
            "use crate::{\n    program,\n    network::{self, nft::{Tables}},\n};",
            "`storage` uses `network`",
        ),
        ("cell.rs", "fn f(m: &crate::manager::Manager) {}", "`cell` uses `manager`"),
        ("watch.rs", "pub(crate) use crate::{monitor, hands as h};", "`watch` uses `hands`"),
        ("pool.rs", "use crate::ready;", "`pool` uses `ready`"),
        ("ops/step.rs", "fn f() -> crate::api::Refusal { todo() }", "`ops` uses `api`"),
        ("extra.rs", "use crate::pool;", "`extra` is not in the drawing"),
    ] {
        let wrong = arrows_back(seeded(file, line).path());
        assert_eq!(wrong, [format!("{file}: {wanted}")], "{line}");
    }
    // What is in a comment or in words is none.
    let tree = seeded("cell.rs", "// crate::api::x\nconst A: &str = \"crate::ops\"; // crate::guard");
    assert_eq!(arrows_back(tree.path()), Vec::<String>::new());
}

#[test]
fn an_operation_that_uses_another_is_found() {
    for (file, line, wanted) in [
        ("ops/set.rs", "use super::restart::Restart;", "`set` uses `restart`"),
        ("ops/stop.rs", "use super::{Work, start::{self, Start}};", "`stop` uses `start`"),
        ("ops/mount.rs", "fn f() { crate::ops::destroy::f() }", "`mount` uses `destroy`"),
    ] {
        assert_eq!(operations_that_use_each_other(seeded(file, line).path()), [wanted], "{line}");
    }
}
