//! `cargo xtask test`: everything that must pass, from a clean clone with nothing prepared. What is required never
//! skips: a missing prerequisite is installed, or it is a failure.

use crate::{
    deps, generate, programs, show,
    tally::{self, Tally},
    vm,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::{path::Path, process::Command, time::Duration, time::Instant};
use vz_tests::{
    command,
    tarball::Tarball,
    template::{self, Template},
};

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
struct Told {
    /// In a line.
    result: String,
    /// What it is made of, such as its tests by suite.
    parts: Vec<Vec<String>>,
    /// How many they were.
    ran: u32,
    good: bool,
}

impl From<String> for Told {
    fn from(result: String) -> Self {
        Self { result, parts: Vec::new(), ran: 0, good: true }
    }
}

impl Told {
    /// A run of tests.
    fn tests(tally: &Tally, good: bool) -> Self {
        Self { result: tally.line(), parts: vec![tally.suites()], ran: tally.ran(), good }
    }
}

/// A part with its name and time.
struct Line {
    part: &'static str,
    told: Told,
    took: Duration,
}

/// The parts of the run so far.
#[derive(Default)]
struct Parts(Vec<Line>);

impl Parts {
    /// Does one; says whether it is good.
    fn part(&mut self, part: &'static str, work: impl FnOnce() -> Result<Told>) -> bool {
        show::say(format!("\n==== {part}"));
        let begun = Instant::now();
        let told = work().unwrap_or_else(|e| {
            eprintln!("error: {e:#}");
            // The whole of it, a console's last lines perhaps, is above.
            let first = format!("{e:#}").lines().next().unwrap_or_default().to_owned();
            Told { good: false, ..first.into() }
        });
        let good = told.good;
        self.0.push(Line { part, told, took: begun.elapsed() });
        good
    }

    /// What ran where.
    fn say(&self) {
        for Line { part, told, took } in &self.0 {
            let mark = if told.good { "ok  " } else { "FAIL" };
            show::say(format!("{mark} {part:<26} {:>14}  {}", show::time(*took), told.result));
            told.parts.iter().for_each(|p| show::several(p));
        }
    }
}

/// Runs it all and says at the end what ran and how it went.
///
/// # Errors
/// Something did not pass, or no test has the name that was asked for.
pub fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let filter = options.filter.as_deref();
    let mut parts = Parts::default();
    parts.part("system packages", || deps::install(deps::ALL).map(|()| "there".to_owned().into()));
    if filter.is_none() {
        parts.part("formatting", || checked(&["fmt", "--all", "--check"], 120));
        parts.part("lints", || {
            checked(&["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"], 1500)
        });
    }
    let unit: Vec<String> = ["--workspace", "--exclude", "vz-tests", "--locked"].map(String::from).into();
    parts.part("unit and property tests", || runner(&unit, filter, 900, Path::new("")));
    if !options.quick && parts.part("release programs", || Ok(programs::build()?.display().to_string().into())) {
        root_suites(filter, &mut parts);
    }
    show::say(format!("\n==== what ran, on {} ({} CPUs, {} cgroups)", kernel(), cpus(), cgroups()));
    parts.say();
    let failed: Vec<&str> = parts.0.iter().filter(|l| !l.told.good).map(|l| l.part).collect();
    let ran: u32 = parts.0.iter().map(|l| l.told.ran).sum();
    let how = match failed.len() {
        0 => format!("{} passed", tally::tests(ran)),
        _ => "FAILED".into(),
    };
    show::say(format!("{how} in {}", show::time(begun.elapsed())));
    match filter {
        _ if !failed.is_empty() => bail!("did not pass: {}", failed.join(", ")),
        Some(name) if ran == 0 => bail!("no test has {name:?} in its name: `cargo nextest list` shows them all"),
        _ => Ok(()),
    }
}

/// What needs root: the native suite, and the virtual test host.
fn root_suites(filter: Option<&str>, parts: &mut Parts) {
    let bin = programs::target_dir().join("release");
    if filter.is_none() {
        parts.part("generated files", || generate::check().map(|()| "as the source says".to_owned().into()));
    }
    let root = nix::unistd::Uid::effective().is_root();
    let ready = parts.part("OS templates for tests", || {
        if !root {
            bail!("the native suite needs root");
        }
        let ready = templates(&bin)?;
        Ok(Told { parts: vec![ready], ..format!("ready in {}", template::cache_dir().display()).into() })
    });
    if ready {
        parts.part("native root suite", || {
            let mut native: Vec<String> = ["-p", "vz-tests", "--locked", "--lib"].map(String::from).into();
            for name in vm::suites::programs_of(false)? {
                native.extend(["--test".into(), name]);
            }
            runner(&native, filter, 1500, &bin)
        });
    }
    virtual_host(filter, parts);
}

/// The suites of the virtual test host, on a machine made for this run and ended after it.
fn virtual_host(filter: Option<&str>, parts: &mut Parts) {
    if let Some(name) = filter {
        match vm::suites::any(name) {
            Ok(true) => {}
            Ok(false) => {
                let none = format!("not started: no test of it has {name:?} in its name");
                parts.part("virtual test host", || Ok(none.into()));
                return;
            }
            // What is wrong shows when they are run.
            Err(e) => show::say(format!("     {e:#}")),
        }
    }
    let mut machine = None;
    parts.part("virtual test host", || {
        let up = vm::fresh()?;
        let said = vm::described(&up)?;
        machine = Some(up);
        Ok(said.into())
    });
    let Some(machine) = machine else {
        // One that did not come up well may run all the same.
        parts.part("virtual test host ends", || vm::end().map(|()| "gone".to_owned().into()));
        return;
    };
    parts.part("virtual test host suites", || {
        let halves = vm::suites::run(&machine, filter)?;
        let tell = |h: &vm::suites::Half| [vec![format!("{}, {}:", h.title, show::time(h.took))], h.tally.suites()];
        let mut result: Vec<String> = halves.iter().map(|h| format!("{}: {}", h.title, h.result)).collect();
        result.extend(machine.given_up().map(|why| why.lines().next().unwrap_or_default().to_owned()));
        Ok(Told {
            result: result.join("; "),
            parts: halves.iter().flat_map(tell).collect(),
            ran: halves.iter().map(|h| h.tally.ran()).sum(),
            good: halves.iter().all(|h| h.good),
        })
    });
    parts.part("virtual test host ends", || {
        vm::end()?;
        Ok(format!("its console's log stays: {}", machine.console().display()).into())
    });
}

fn checked(words: &[&str], seconds: u64) -> Result<Told> {
    let (good, _) = show::passed_through(&mut programs::cargo(words), Duration::from_secs(seconds), |_| false)?;
    if good { Ok("clean".to_owned().into()) } else { bail!("`cargo {}` found something", words.join(" ")) }
}

/// Runs tests with nextest where it is there (it ends hung ones), else with cargo's own runner.
fn runner(packages: &[String], filter: Option<&str>, seconds: u64, bin: &Path) -> Result<Told> {
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
    let (good, kept) = show::passed_through(&mut c, Duration::from_secs(seconds), Tally::wants)?;
    let tally = Tally::of(&kept);
    // Without a test that failed it is something else, such as a test that does not compile.
    if !good && !tally.has_failed() {
        bail!("the tests could not be run: {}", tally.line());
    }
    Ok(Told::tests(&tally, good))
}

/// Makes sure that the cached templates are there: from the programs just built, in a process of its own because
/// it changes nothing for the tests which user cache that is.
pub fn templates(bin: &Path) -> Result<Vec<String>> {
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
    Ok(said)
}

fn kernel() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/osrelease").context("osrelease").unwrap_or_default();
    format!("Linux {}", read.trim())
}

/// How this machine's cgroups are mounted: what the native suite can prove of limits depends on it.
fn cgroups() -> &'static str {
    let there = |path: &str| Path::new(path).exists();
    match (there("/sys/fs/cgroup/cgroup.controllers"), there("/sys/fs/cgroup/unified/cgroup.procs")) {
        (true, _) => "unified",
        (false, true) => "hybrid",
        (false, false) => "legacy",
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
