//! Files that are made from the source they document. `gen` writes them, `test` compares them.

use crate::{programs, show};
use anyhow::{Context, Result, bail};
use std::{collections::BTreeMap, fs, path::PathBuf, process::Command, time::Duration};
use vz_tests::{command, template::checkout};

/// Writes every generated file.
///
/// # Errors
/// A program that prints one fails, or a file cannot be written.
pub fn run() -> Result<()> {
    programs::build()?;
    for (path, text) in contents()? {
        let file = checkout().join(&path);
        if fs::read_to_string(&file).ok().as_deref() == Some(&text) {
            continue;
        }
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        show::say(format!("     wrote {path}"));
    }
    Ok(())
}

/// Fails, naming them, if checked-in files differ from what the programs print now.
///
/// # Errors
/// They differ.
pub fn check() -> Result<()> {
    let differing: Vec<String> = contents()?
        .into_iter()
        .filter(|(path, text)| fs::read_to_string(checkout().join(path)).ok().as_deref() != Some(text))
        .map(|(path, _)| path)
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    bail!("not what the source says now: {}; run `cargo xtask gen` and commit", differing.join(", "))
}

/// Path in the checkout to content.
fn contents() -> Result<BTreeMap<String, String>> {
    let bin = programs::target_dir().join("release");
    let print = |program: &str, words: &[&str]| -> Result<String> {
        let o = command::run(
            Command::new(bin.join(program)).args(words).env("COLUMNS", "100"),
            None,
            Duration::from_secs(30),
        )?;
        if o.code() != 0 {
            bail!("{o}");
        }
        Ok(o.stdout)
    };
    let mut all = BTreeMap::new();
    all.insert("docs/reference/inits.md".to_owned(), vz_tests::inits::page());
    all.insert("docs/reference/openapi.json".to_owned(), print("vzd", &["openapi"])?);
    all.insert("config/man/vzd.8".to_owned(), print("vzd", &["man"])?);
    // vzctl writes man pages, completion and reference into a directory laid out as the checkout.
    let dir = std::env::temp_dir().join(format!("vz-gen-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let done = print("vzctl", &["man", &dir.display().to_string()]).and_then(|_| {
        let mut todo: Vec<PathBuf> = vec![dir.clone()];
        while let Some(d) = todo.pop() {
            for entry in fs::read_dir(&d)? {
                let path = entry?.path();
                if path.is_dir() {
                    todo.push(path);
                } else {
                    let name = path.strip_prefix(&dir)?.display().to_string();
                    all.insert(name, fs::read_to_string(&path)?);
                }
            }
        }
        Ok(())
    });
    let mut rm = Command::new("rm");
    command::run(rm.arg("-rf").arg(&dir), None, Duration::from_secs(30))?;
    done.map(|()| all)
}
