//! `cargo xtask test`: everything that must pass, from a clean clone with nothing prepared. What is required never
//! skips: a missing prerequisite is installed, or it is a failure.

use crate::{deps, generate, programs, show, vm};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::{path::Path, process::Command, time::Duration, time::Instant};
use vz_tests::{command, tarball::Tarball, template::Template};

/// What to run.
#[derive(Args)]
pub struct Options {
    /// Only tests whose name contains this; formatting, lints and generated files are left out then
    filter: Option<String>,
    /// Only the tests that need no root: formatting, lints, unit tests
    #[arg(long, conflicts_with = "filter")]
    quick: bool,
}

/// What one part of the run came to.
struct Line {
    part: String,
    result: String,
    took: Duration,
    good: bool,
}

/// Runs it all and says at the end what ran and how it went.
///
/// # Errors
/// Something did not pass.
pub fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let mut lines = Vec::new();
    let mut part = |title: &str, work: &mut dyn FnMut() -> Result<String>| {
        show::say(format!("\n==== {title}"));
        let begun = Instant::now();
        let (result, good) = match work() {
            Ok(said) => (said, true),
            Err(e) => {
                eprintln!("error: {e:#}");
                (format!("FAILED: {e:#}"), false)
            }
        };
        lines.push(Line { part: title.to_owned(), result, took: begun.elapsed(), good });
        good
    };
    let whole = options.filter.is_none();
    part("system packages", &mut || deps::install(deps::ALL).map(|()| "there".into()));
    if whole {
        part("formatting", &mut || checked(&["fmt", "--all", "--check"], 120));
        part("lints", &mut || {
            checked(&["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"], 1500)
        });
    }
    let unit: Vec<String> = ["--workspace", "--exclude", "vz-tests", "--locked"].map(String::from).into();
    part("unit and property tests", &mut || runner(&unit, options.filter.as_deref(), 900, Path::new("")));
    if !options.quick && part("release programs", &mut || programs::build().map(|d| d.display().to_string())) {
        let bin = programs::target_dir().join("release");
        if whole {
            part("generated files", &mut || generate::check().map(|()| "as the source says".into()));
        }
        let root = nix::unistd::Uid::effective().is_root();
        let ready = part("OS templates for tests", &mut || {
            if !root {
                bail!("the native suite needs root");
            }
            templates(&bin)
        });
        if ready {
            part("native root suite", &mut || {
                let mut native: Vec<String> = ["-p", "vz-tests", "--locked", "--lib"].map(String::from).into();
                for name in vm::suites::programs_of(false)? {
                    native.extend(["--test".into(), name]);
                }
                runner(&native, options.filter.as_deref(), 1500, &bin)
            });
        }
        virtual_host(options.filter.as_deref(), &mut part);
    }
    show::say(format!("\n==== what ran, on {} ({} CPUs)", kernel(), cpus()));
    for line in &lines {
        show::say(format!(
            "{} {:<26} {:>14}  {}",
            if line.good { "ok  " } else { "FAIL" },
            line.part,
            show::time(line.took),
            line.result
        ));
    }
    let failed: Vec<&str> = lines.iter().filter(|l| !l.good).map(|l| l.part.as_str()).collect();
    show::say(format!(
        "{} in {}",
        if failed.is_empty() { "all passed" } else { "FAILED" },
        show::time(begun.elapsed())
    ));
    if failed.is_empty() {
        return Ok(());
    }
    bail!("did not pass: {}", failed.join(", "))
}

/// The suites of the virtual test host, on a machine made for this run and ended after it.
fn virtual_host(filter: Option<&str>, part: &mut impl FnMut(&str, &mut dyn FnMut() -> Result<String>) -> bool) {
    if let Some(name) = filter {
        match vm::suites::any(name) {
            Ok(true) => {}
            Ok(false) => {
                part("virtual test host", &mut || Ok(format!("no test of it has {name:?} in its name")));
                return;
            }
            // What is wrong shows when they are run.
            Err(e) => show::say(format!("     {e:#}")),
        }
    }
    let mut machine = None;
    part("virtual test host", &mut || {
        let up = vm::fresh()?;
        let said = format!("{}, console in {}", up.spec().accelerator, up.console().display());
        machine = Some(up);
        Ok(said)
    });
    let Some(machine) = machine else { return };
    part("virtual test host suites", &mut || vm::suites::run(&machine, filter).map(|lines| lines.join("; ")));
    part("virtual test host ends", &mut || vm::end().map(|()| "gone".into()));
}

fn checked(words: &[&str], seconds: u64) -> Result<String> {
    let (good, _) = show::passed_through(&mut programs::cargo(words), Duration::from_secs(seconds), |_| false)?;
    if good { Ok("clean".into()) } else { bail!("`cargo {}` found something", words.join(" ")) }
}

/// Runs tests with nextest where it is there (it ends hung ones), else with cargo's own runner.
fn runner(packages: &[String], filter: Option<&str>, seconds: u64, bin: &Path) -> Result<String> {
    let nextest = vm::suites::have_nextest()?;
    let mut words: Vec<&str> =
        if nextest { vec!["nextest", "run", "--no-tests=pass"] } else { vec!["test", "--no-fail-fast"] };
    words.extend(packages.iter().map(String::as_str));
    words.extend(filter);
    let mut c = programs::cargo(&words);
    if !nextest {
        c.args(["--", "--test-threads", "2"]);
    }
    if !bin.as_os_str().is_empty() {
        c.env("VZ_BIN_DIR", bin);
    }
    let summary = |l: &str| l.trim_start().starts_with("Summary [") || l.starts_with("test result:");
    let (good, kept) = show::passed_through(&mut c, Duration::from_secs(seconds), summary)?;
    let said = if nextest { kept.join("; ") } else { total(&kept) };
    if good { Ok(said) } else { bail!("{said}") }
}

/// Adds up the result lines of cargo's own runner, one per test program.
fn total(lines: &[String]) -> String {
    let sum = |word: &str| -> u64 {
        let counts = lines.iter().filter_map(|l| l.split(';').find(|p| p.trim().ends_with(word)));
        counts.filter_map(|p| p.split_whitespace().rev().nth(1)?.parse::<u64>().ok()).sum()
    };
    format!("{} passed, {} failed, {} ignored", sum("passed"), sum("failed"), sum("ignored"))
}

/// Makes sure that the cached templates are there: from the programs just built, in a process of its own because
/// it changes nothing for the tests which user cache that is.
fn templates(bin: &Path) -> Result<String> {
    let mut said = Vec::new();
    for template in [Template::Tiny].into_iter().chain(Template::SHIPPED) {
        let begun = Instant::now();
        let made = std::panic::catch_unwind(|| template.cached_with(bin));
        let made = made.map_err(|_| anyhow::anyhow!("template {} cannot be made", template.name()))?;
        let size = command::run(Command::new("du").arg("-sm").arg(&made), None, Duration::from_secs(60))?;
        let size = size.text().split_whitespace().next().unwrap_or("?").to_owned();
        said.push(format!("{} {size} MiB ({})", template.name(), show::time(begun.elapsed())));
    }
    for tarball in Tarball::ALL {
        let begun = Instant::now();
        let made = std::panic::catch_unwind(|| tarball.cached());
        made.map_err(|_| anyhow::anyhow!("the archive {} cannot be made", tarball.file()))?;
        said.push(format!("{} ({})", tarball.file(), show::time(begun.elapsed())));
    }
    Ok(said.join(", "))
}

fn kernel() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("osrelease").unwrap_or_default();
    format!("Linux {}", read.trim())
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
