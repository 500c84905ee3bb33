//! `cargo xtask long`: the long forms (`tests/tests/long_*.rs`), which say with hundreds of tries what the regular suites say
//! with a few. On demand only; they are no part of `cargo xtask test`.

use crate::{
    deps, programs, show, suite,
    tally::{self, Tally},
    vm,
};
use anyhow::{Result, bail};
use clap::Args;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use vz_tests::{command, template::checkout, vm::VARIABLE};

/// What to run.
#[derive(Args)]
pub struct Options {
    /// Only tests, or suites, whose name contains this; that none has it is an error
    filter: Option<String>,
}

/// How long all tests of a suite may take together.
const LIMIT: Duration = Duration::from_secs(6 * 3600);
/// How long the tests may take to be built.
const BUILD: Duration = Duration::from_secs(1500);

/// Prepares what they need, as `cargo xtask test` does, and runs them suite by suite.
///
/// # Errors
/// Something cannot be prepared or did not pass, or no test has the name that was asked for.
pub fn run(options: &Options) -> Result<()> {
    let wanted = wanted(options.filter.as_deref())?;
    if !vm::suites::have_nextest()? {
        bail!("cargo-nextest is missing, which ends tests that hang: `cargo install cargo-nextest --locked`");
    }
    deps::install(deps::ALL)?;
    let bin = programs::build()?;
    show::several(&suite::templates(&bin)?);
    let (mut told, mut failed) = (Vec::new(), Vec::new());
    for (name, filter) in wanted {
        show::say(format!("\n==== {name}"));
        let mut c =
            programs::cargo(&["nextest", "run", "--profile", "long", "--no-capture", "-p", "vz-tests", "--locked"]);
        c.args(["--test", &name]).args(filter).env("VZ_BIN_DIR", &bin);
        if is_of_vm(&name) {
            let machine = vm::ready()?;
            vm::suites::prepare(&machine)?;
            c.env(VARIABLE, machine.dir());
        }
        let begun = Instant::now();
        let (good, kept) = show::passed_through(&mut c, LIMIT, Tally::wants)?;
        let tally = Tally::of(&kept);
        told.push(format!(
            "{} {name:<26} {:>14}  {}",
            if good { "ok  " } else { "FAIL" },
            show::time(begun.elapsed()),
            if good || tally.has_failed() { tally.line() } else { "the tests could not be run".into() }
        ));
        if !good {
            failed.push(name);
        }
    }
    show::say("\n==== what ran");
    told.iter().for_each(show::say);
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("did not pass: {}", failed.join(", ")),
    }
}

/// Whether a suite drives the virtual test host.
fn is_of_vm(suite: &str) -> bool {
    suite.starts_with("long_vm_")
}

/// The suites, each with what of it is wanted: `None` is all.
fn wanted(filter: Option<&str>) -> Result<Vec<(String, Option<String>)>> {
    let suites = suites(&checkout().join("tests/tests"))?;
    let Some(name) = filter else { return Ok(suites.into_iter().map(|s| (s, None)).collect()) };
    let mut wanted = Vec::new();
    let mut known = Vec::new();
    for suite in suites {
        if suite.contains(name) {
            wanted.push((suite, None));
            continue;
        }
        let listing = ["test", "-p", "vz-tests", "--locked", "--test", &suite, "--", "--list"];
        let listed = command::run(&mut programs::cargo(&listing), None, BUILD)?;
        if listed.code() != 0 {
            bail!("{listed}");
        }
        let tests: Vec<&str> = listed.stdout.lines().filter_map(|l| l.strip_suffix(": test")).collect();
        if tests.iter().any(|t| t.contains(name)) {
            wanted.push((suite, Some(name.to_owned())));
        } else {
            known.push(format!("{suite} ({})", tally::tests(u32::try_from(tests.len()).unwrap_or(u32::MAX))));
        }
    }
    match wanted.is_empty() {
        true => bail!("no long test has {name:?} in its name, nor a suite: there are {}", known.join(", ")),
        false => Ok(wanted),
    }
}

/// The programs of the long forms.
fn suites(dir: &Path) -> Result<Vec<String>> {
    let names = std::fs::read_dir(dir)?.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let names = names.filter_map(|n| n.strip_suffix(".rs").map(str::to_owned));
    let mut names: Vec<String> = names.filter(|n| n.starts_with("long_")).collect();
    names.sort();
    Ok(names)
}
