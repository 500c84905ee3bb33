//! The tests that need the virtual test host, as ordinary results of the test runner: those that drive it from outside
//! (`tests/tests/vm_*.rs`), and those of the native suites that prove more on it, run inside by [`run_one`].

use super::image;
use crate::{programs, show, tally::Tally};
use anyhow::{Context, Result, bail};
use std::{
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};
use vz_tests::{
    command,
    template::checkout,
    vm::{
        VARIABLE,
        link::{Link, quoted},
        machine::Machine,
    },
};

/// How long each of the two halves may take.
const LIMIT: Duration = Duration::from_secs(2400);
/// How long one test inside may take; nextest gives up sooner.
const ONE: Duration = Duration::from_secs(600);
/// Native suites run again inside: what other cgroups, quotas, mounts and kernel may change.
pub const INSIDE: &[&str] = &["storage", "survival", "inherited", "inits"];

/// The programs of the suites (`tests/tests/*.rs`) that run on this machine, or those that need the virtual one.
///
/// # Errors
/// The directory cannot be read.
pub fn programs_of(need_vm: bool) -> Result<Vec<String>> {
    let dir = checkout().join("tests/tests");
    let entries = std::fs::read_dir(&dir).with_context(|| dir.display().to_string())?;
    let names = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    let names = names.filter_map(|n| n.strip_suffix(".rs").map(str::to_owned));
    // The long forms run by `cargo xtask long`.
    let mut names: Vec<String> = names.filter(|n| n.starts_with("vm_") == need_vm && !n.starts_with("long_")).collect();
    names.sort();
    Ok(names)
}

/// Whether cargo-nextest is there: it ends hung tests, cargo's own runner does not.
///
/// # Errors
/// cargo cannot be run.
pub fn have_nextest() -> Result<bool> {
    let asked = command::run(&mut programs::cargo(&["nextest", "--version"]), None, Duration::from_secs(30))?;
    Ok(asked.code() == 0)
}

/// One half of the suites, run.
pub struct Half {
    /// Which.
    pub title: &'static str,
    /// What of it ran.
    pub tally: Tally,
    /// How it went, in a line.
    pub result: String,
    /// How long it took.
    pub took: Duration,
    /// Whether all of it passed.
    pub good: bool,
}

/// Runs both halves.
///
/// # Errors
/// They could not be run; says where the machine's console log is.
pub fn run(machine: &Machine, filter: Option<&str>) -> Result<Vec<Half>> {
    let outside = programs_of(true)?;
    let inside: Vec<String> = INSIDE.iter().map(|n| (*n).to_owned()).collect();
    prepare(machine)?;
    let mut halves = Vec::new();
    for (title, names, runner) in [("driven from outside", outside, false), ("native suites inside", inside, true)] {
        if machine.given_up().is_some() {
            let result = "not run, the machine was lost before".to_owned();
            halves.push(Half { title, tally: Tally::default(), result, took: Duration::ZERO, good: false });
            continue;
        }
        let mut c = tests(&names, filter)?;
        c.env(VARIABLE, machine.dir());
        if runner {
            let me = std::env::current_exe().context("our own path")?;
            // A runner for the programs of a target (cargo, "Configuration", target.<triple>.runner).
            c.env(RUNNER, format!("{} vm run-test --", me.display()));
        }
        let begun = Instant::now();
        let (good, kept) =
            show::passed_through(&mut c, LIMIT, Tally::wants).map_err(|e| machine.trouble(&format!("{e:#}")))?;
        let tally = Tally::of(&kept);
        let result = if good || tally.has_failed() { tally.line() } else { "the tests could not be run".into() };
        halves.push(Half { title, tally, result, took: begun.elapsed(), good });
    }
    Ok(halves)
}

/// Makes what programs find in the guest.
///
/// # Errors
/// It does not answer, or refuses.
pub fn prepare(machine: &Machine) -> Result<()> {
    let link = Link::new(machine);
    let done = |line: &str, input: Option<&[u8]>| {
        let out = link.run(line, input, Duration::from_secs(120))?;
        match out.code() {
            0 => Ok(()),
            _ => bail!("the machine cannot be prepared for the suites:\n{out}"),
        }
    };
    done(PREPARE, None)?;
    // It has no compiler to build them with.
    for program in vz_tests::probe::all() {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let bytes = std::fs::read(&program).with_context(|| program.display().to_string())?;
        done(
            &format!("cd /opt/vz-test/cache && cat >{name}.new && chmod 755 {name}.new && mv {name}.new {name}"),
            Some(&bytes),
        )?;
    }
    Ok(())
}

const RUNNER: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";

fn tests(names: &[String], filter: Option<&str>) -> Result<Command> {
    let nextest = have_nextest()?;
    let verb: &[&str] =
        if nextest { &["nextest", "run", "--profile", "vm", "--no-tests=pass"] } else { &["test", "--no-fail-fast"] };
    let mut c = programs::cargo(verb);
    c.args(["-p", "vz-tests", "--locked"]);
    for name in names {
        c.args(["--test", name]);
    }
    match filter {
        // A suite's name will do as well as a test's; nextest refuses a name that fits no suite.
        Some(f) if nextest && names.iter().any(|n| n.contains(f)) => {
            c.args(["-E", &format!("test(~{f}) or binary(~{f})")])
        }
        Some(f) if nextest => c.args(["-E", &format!("test(~{f})")]),
        f => c.args(f),
    };
    if !nextest {
        c.args(["--", "--test-threads", "2"]);
    }
    Ok(c)
}

/// Whether any test of the suites, or a suite, has this in its name.
///
/// # Errors
/// The tests cannot be built.
pub fn any(filter: &str) -> Result<bool> {
    let outside = programs_of(true)?;
    if outside.iter().map(String::as_str).chain(INSIDE.iter().copied()).any(|suite| suite.contains(filter)) {
        return Ok(true);
    }
    let mut c = programs::cargo(&["test", "-p", "vz-tests", "--locked"]);
    for name in outside.iter().map(String::as_str).chain(INSIDE.iter().copied()) {
        c.args(["--test", name]);
    }
    c.args([filter, "--", "--list"]);
    let listed = command::run(&mut c, None, Duration::from_secs(1500))?;
    if listed.code() != 0 {
        bail!("{listed}");
    }
    Ok(listed.stdout.lines().any(|l| l.ends_with(": test")))
}

/// Runs one test program in the guest, as the runner of the native suites; listing its tests needs no guest.
///
/// # Errors
/// There is no machine, or it does not answer.
pub fn run_one(words: &[String]) -> Result<ExitCode> {
    let (program, rest) = words.split_first().context("no program named")?;
    if rest.iter().any(|w| w == "--list") {
        let status = Command::new(program).args(rest).status().with_context(|| program.clone())?;
        return Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)));
    }
    let dir = std::env::var_os(VARIABLE).map_or_else(image::run_dir, |d| Path::new(&d).to_owned());
    let machine = Machine::open(&dir)?;
    let here = std::env::current_dir()?.display().to_string();
    let line = format!(
        "cd {} && exec env {GUEST_ENVIRONMENT} {}",
        quoted(&here),
        words.iter().map(|w| quoted(w)).collect::<Vec<_>>().join(" ")
    );
    if let Some(why) = machine.given_up() {
        bail!("an earlier test lost the virtual test host: {why}");
    }
    super::in_guest(&machine, &line, ONE).inspect_err(|_| {
        if let Err(gone) = Link::new(&machine).proven(&machine) {
            machine.give_up(&format!("{gone:#}"));
        }
    })
}

/// Where the suites find things in the guest: the installed programs in one directory, the templates of its disk, and
/// a temporary directory on the disk with project quota; and that it is emulated.
const GUEST_ENVIRONMENT: &str = "VZ_BIN_DIR=/opt/vz-test/bin VZ_TEST_CACHE=/opt/vz-test/cache \
                                 VZ_TEST_TEMPLATES=/var/lib/vz/template TMPDIR=/var/lib/vz/tmp VZ_TEST_SLOW=8";

/// Makes what [`GUEST_ENVIRONMENT`] names.
const PREPARE: &str = "mkdir -p /opt/vz-test/bin /opt/vz-test/cache /var/lib/vz/tmp && cd /opt/vz-test/bin && \
                       ln -sf /usr/sbin/vzd /usr/sbin/vzctl /usr/sbin/vzlist /usr/libexec/vz/vzmon .";
