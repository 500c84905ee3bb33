//! Rules about the tree itself: who may import whom, licences, what lies at the top, where `unsafe` may be.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use vz_tests::template::checkout;

/// Crate, directory, and the crates of ours it may import. Nothing may import a binary.
const CRATES: &[(&str, &str, &[&str])] = &[
    ("vz-types", "vzd/types", &[]),
    ("vz-api", "vzd/api", &["vz-types"]),
    ("vz-sys", "vzd/sys", &["vz-types"]),
    ("vzmon", "vzd/mon", &["vz-types", "vz-sys"]),
    ("vzd", "vzd", &["vz-api", "vz-types", "vz-sys"]),
    ("vzctl", "vzctl", &["vz-api", "vz-types", "vz-sys"]),
    ("vz-tests", "tests", &["vz-api", "vz-types"]),
    ("xtask", "tests/xtask", &["vz-tests", "vz-types"]),
];

/// What may lie at the top, besides hidden tool files.
const TOP: &[&str] =
    &["Cargo.toml", "Cargo.lock", "vzctl", "vzd", "templates", "config", "tests", "docs", "README.md", "LICENSE"];

/// Hidden tool files at the top.
const HIDDEN: &[&str] = &[".ci", ".cargo", ".config", ".gitignore", ".gitattributes", ".clippy.toml", ".rustfmt.toml"];

fn manifest(dir: &str) -> toml::Table {
    let file = checkout().join(dir).join("Cargo.toml");
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    text.parse().unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Every file git knows, or would know: what a clone has.
fn tracked() -> Vec<PathBuf> {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(checkout());
    let out = git.output().expect("running git");
    assert!(out.status.success(), "git ls-files: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().map(PathBuf::from).filter(|p| checkout().join(p).exists()).collect()
}

#[test]
fn every_crate_is_in_the_table_of_import_rules() {
    let members = manifest("")["workspace"]["members"].as_array().unwrap().clone();
    let listed: BTreeSet<&str> = members.iter().filter_map(|m| m.as_str()).collect();
    let ruled: BTreeSet<&str> = CRATES.iter().map(|(_, dir, _)| *dir).collect();
    assert_eq!(listed, ruled);
    for (name, dir, _) in CRATES {
        assert_eq!(manifest(dir)["package"]["name"].as_str(), Some(*name), "{dir}");
    }
}

#[test]
fn crates_import_only_what_the_architecture_allows() {
    let ours: BTreeSet<&str> = CRATES.iter().map(|(name, _, _)| *name).collect();
    for (name, dir, allowed) in CRATES {
        let m = manifest(dir);
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = m.get(section).and_then(|d| d.as_table()) else { continue };
            for import in table.keys().map(String::as_str).filter(|k| ours.contains(k)) {
                assert!(
                    allowed.contains(&import),
                    "{name} imports {import} ({section}), which architecture.md does not allow"
                );
            }
        }
    }
}

#[test]
fn the_monitor_stays_small_and_types_do_no_io() {
    let banned = [
        ("vzd/mon", &["tokio", "axum", "rusqlite", "hyper", "tracing-subscriber"][..]),
        ("vzd/types", &["nix", "libc", "rustix", "tokio", "hyper", "axum", "rusqlite"][..]),
        ("vzctl", &["tokio", "axum", "rusqlite"][..]),
    ];
    for (dir, names) in banned {
        let m = manifest(dir);
        let table = m["dependencies"].as_table().unwrap();
        for name in names {
            assert!(!table.contains_key(*name), "{dir} depends on {name}");
        }
    }
}

#[test]
fn every_crate_has_the_licence_the_lints_and_the_one_version_of_the_workspace() {
    for (name, dir, _) in CRATES {
        let m = manifest(dir);
        for key in ["version", "edition", "rust-version", "license"] {
            assert_eq!(m["package"][key]["workspace"].as_bool(), Some(true), "{name}: {key}");
        }
        assert_eq!(m["lints"]["workspace"].as_bool(), Some(true), "{name}: lints");
    }
    assert_eq!(manifest("")["workspace"]["package"]["license"].as_str(), Some("MIT OR Apache-2.0"));
    let licence = fs::read_to_string(checkout().join("LICENSE")).unwrap();
    assert!(licence.contains("MIT") && licence.contains("Apache"), "LICENSE holds both texts or says where they are");
}

#[test]
fn the_top_level_is_a_closed_list() {
    let found: BTreeSet<String> = tracked()
        .iter()
        .filter_map(|p| p.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned()))
        .collect();
    for name in &found {
        let known = TOP.contains(&name.as_str()) || HIDDEN.contains(&name.as_str());
        assert!(known, "`{name}` does not belong at the top; see the closed list in docs");
    }
    for name in TOP {
        assert!(found.contains(*name), "`{name}` is missing at the top");
    }
}

fn rust_files() -> Vec<PathBuf> {
    tracked().into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs")).collect()
}

/// The code of a line: without its comment and its string literals.
fn code(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if quoted => {
                chars.next();
            }
            '"' => quoted = !quoted,
            '/' if !quoted && chars.peek() == Some(&'/') => break,
            c if !quoted => out.push(c),
            _ => {}
        }
    }
    out
}

fn words(line: &str) -> Vec<String> {
    code(line).split(|c: char| !c.is_alphanumeric() && c != '_').map(String::from).collect()
}

#[test]
fn unsafe_is_in_vz_sys_alone() {
    for file in rust_files().iter().filter(|f| !f.starts_with("vzd/sys")) {
        let text = fs::read_to_string(checkout().join(file)).unwrap();
        for (n, line) in text.lines().enumerate() {
            assert!(!words(line).iter().any(|w| w == "unsafe"), "{}:{}: unsafe outside vz-sys", file.display(), n + 1);
        }
    }
}

#[test]
fn nothing_is_left_to_do_and_nothing_is_commented_out() {
    for file in rust_files() {
        let text = fs::read_to_string(checkout().join(&file)).unwrap();
        let this = file == Path::new("tests/tests/manifests.rs");
        for (n, line) in text.lines().enumerate().filter(|_| !this) {
            for mark in ["TODO", "FIXME", "XXX", "HACK"] {
                let found = line.split(|c: char| !c.is_alphanumeric()).any(|w| w == mark);
                assert!(!found, "{}:{}: {mark}", file.display(), n + 1);
            }
            let c = line.trim_start();
            let looks_like_code =
                c.starts_with("// let ") || c.starts_with("// if ") && c.ends_with('{') || c.starts_with("// fn ");
            assert!(!looks_like_code, "{}:{}: commented-out code", file.display(), n + 1);
        }
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    for file in rust_files() {
        let text = fs::read_to_string(checkout().join(&file)).unwrap();
        assert!(text.starts_with("//!"), "{} has no module header", file.display());
    }
}

#[test]
fn no_file_has_grown_past_telling_one_story() {
    let long: Vec<String> = rust_files()
        .iter()
        .filter_map(|f| {
            let n = fs::read_to_string(checkout().join(f)).unwrap().lines().count();
            (n > 900).then(|| format!("{} has {n} lines", f.display()))
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn the_words_of_other_managers_are_not_ours() {
    // Names of theirs that would confuse a reader of our messages; the words in style.md.
    let theirs = ["pods", "sandboxes", "shims"];
    for file in rust_files().iter().filter(|f| !f.starts_with("tests")) {
        let text = fs::read_to_string(checkout().join(file)).unwrap().to_lowercase();
        for word in theirs {
            assert!(!text.split(|c: char| !c.is_alphanumeric()).any(|w| w == word), "{}: `{word}`", file.display());
        }
    }
}
