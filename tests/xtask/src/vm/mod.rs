//! `cargo xtask vm`: the virtual test host. Made and started when it is not there, entered, driven, tested in.
//!
//! | module | what |
//! |---|---|
//! | [`qemu`] | which QEMU, KVM or TCG |
//! | [`image`] | what it boots from, cached by content |
//! | [`up`] | a running machine with this checkout's vz installed |
//! | [`suites`] | the tests that need it |
//!
//! The machine itself, as tests and this see it, is [`vz_tests::vm`].

mod image;
mod qemu;
pub mod suites;
mod up;

use crate::show;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use std::{
    io::IsTerminal,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};
use vz_tests::{
    vm::{
        BOOT,
        link::{Link, REBOOT, quoted},
        machine::Machine,
    },
    wait,
};

/// What to do with it; nothing named: start it and enter it.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// A new machine, even if one is running that would do
    #[arg(long, global = true)]
    fresh: bool,
}

#[derive(Subcommand)]
enum What {
    /// A shell in it; the machine is started first where it does not run
    Shell,
    /// Run a command in it as root, whose output and exit code are this one's
    ///
    /// One word is a shell line ('ls /run | wc -l'), more are a command and its arguments. On a terminal the command gets
    /// one too, so that Ctrl-C reaches it. What is said about the machine goes to standard error.
    #[command(verbatim_doc_comment)]
    Run {
        /// End it after this many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        limit: u64,
        /// What to run
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// The suites that need it; with this checkout's vz
    Test {
        /// Only tests, or suites, whose name contains this; that none has it is an error
        filter: Option<String>,
        /// End the machine afterwards
        #[arg(long)]
        stop: bool,
    },
    /// Start it and install this checkout's vz, and say where it is
    Up,
    /// Say whether it runs, on what, and where its logs are; fails when it does not run
    Status,
    /// Boot it again in an orderly way
    Reboot,
    /// Take its power away; the next command gives it back
    Cut,
    /// End it; its disks are forgotten
    Stop,
    /// Run one program of the suites in it (the suites' runner)
    #[command(hide = true, name = "run-test")]
    RunTest {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// Does it; the exit code is the guest's where a command ran in it.
///
/// # Errors
/// A prerequisite cannot be installed, the machine does not come up, or what was asked for failed.
pub fn run(options: &Options) -> Result<ExitCode> {
    match &options.what {
        None | Some(What::Shell) => {
            let machine = up::up(options.fresh)?;
            shell(&machine)
        }
        Some(What::Run { limit, command }) => {
            show::keep_stdout_clean();
            let machine = up::up(options.fresh)?;
            in_guest(&machine, &line(command), Duration::from_secs(*limit))
        }
        Some(What::Test { filter, stop }) => test(filter.as_deref(), *stop, options.fresh),
        Some(What::Up) => {
            let machine = up::up(options.fresh)?;
            status(&machine);
            Ok(ExitCode::SUCCESS)
        }
        Some(What::Status) => {
            let machine = Machine::open(&image::run_dir())?;
            status(&machine);
            Ok(if machine.process().is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Some(What::Reboot) => {
            let machine = running()?;
            show::step("reboot", || reboot(&machine)).map(|()| ExitCode::SUCCESS)
        }
        Some(What::Cut) => {
            let machine = running()?;
            Link::new(&machine).forget();
            show::step("cut the power", || machine.cut()).map(|()| ExitCode::SUCCESS)
        }
        Some(What::Stop) => {
            match Machine::open(&image::run_dir()) {
                Ok(machine) if machine.process().is_some() || machine.is_off_on_purpose() => {
                    show::step("end the machine", end)?;
                    show::say(format!("     its console's log stays: {}", machine.console().display()));
                }
                _ => show::say("ok   no machine of this checkout is running"),
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(What::RunTest { command }) => suites::run_one(command),
    }
}

/// Runs the suites and tells at the end what ran.
fn test(filter: Option<&str>, stop: bool, fresh: bool) -> Result<ExitCode> {
    if let Some(name) = filter
        && !suites::any(name)?
    {
        let known = suites::programs_of(true)?.join(", ");
        bail!(
            "no test of the virtual test host has {name:?} in its name, nor a suite: there are {known}, and inside {}",
            suites::INSIDE.join(", ")
        );
    }
    let machine = up::up(fresh)?;
    let about = described(&machine)?;
    let halves = suites::run(&machine, filter);
    if stop {
        end()?;
    }
    let halves = halves?;
    show::say(format!("\n==== what ran, on {about}"));
    for half in &halves {
        let mark = if half.good { "ok  " } else { "FAIL" };
        show::say(format!("{mark} {:<26} {:>14}  {}", half.title, show::time(half.took), half.result));
        show::several(&half.tally.suites());
    }
    let failed: Vec<&str> = halves.iter().filter(|h| !h.good).map(|h| h.title).collect();
    match machine.given_up() {
        _ if failed.is_empty() => Ok(ExitCode::SUCCESS),
        Some(why) => bail!("did not pass: {}; {why}", failed.join(", ")),
        None => bail!("did not pass: {}; the console is in {}", failed.join(", "), machine.console().display()),
    }
}

/// What a machine that is up is, in a line.
///
/// # Errors
/// It does not answer.
pub fn described(machine: &Machine) -> Result<String> {
    let how = match machine.spec().accelerator.as_str() {
        "kvm" => "accelerated by KVM",
        _ => "emulated by TCG, as KVM does not work here",
    };
    let asked = ". /etc/os-release; echo \"$PRETTY_NAME, Linux $(uname -r), $(nproc) CPUs\"";
    let said = Link::new(machine).run(asked, None, Duration::from_secs(60))?;
    Ok(format!("{} in QEMU, {how}; console in {}", said.text(), machine.console().display()))
}

/// A machine made anew, with this checkout's vz.
///
/// # Errors
/// As [`run`].
pub fn fresh() -> Result<Machine> {
    up::up(true)
}

/// The machine with this checkout's vz: one that runs, if it is the right one.
///
/// # Errors
/// As [`run`].
pub fn ready() -> Result<Machine> {
    up::up(false)
}

/// Ends this checkout's machine and forgets its disks.
///
/// # Errors
/// QEMU does not end.
pub fn end() -> Result<()> {
    up::end(&image::run_dir())
}

fn running() -> Result<Machine> {
    let machine = Machine::open(&image::run_dir())?;
    match machine.process() {
        Some(_) => Ok(machine),
        None => bail!("the machine is not running: `cargo xtask vm up` starts it"),
    }
}

/// One word is a shell line, as for ssh; several keep their borders.
fn line(words: &[String]) -> String {
    match words {
        [one] => one.clone(),
        more => more.iter().map(|w| quoted(w)).collect::<Vec<_>>().join(" "),
    }
}

/// Runs a line in the guest with our standard input, output and error; its exit code is ours.
fn in_guest(machine: &Machine, line: &str, limit: Duration) -> Result<ExitCode> {
    let code = Link::new(machine).pass_through(machine, line, limit)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// A person's shell: no deadline but the person's patience.
fn shell(machine: &Machine) -> Result<ExitCode> {
    if !std::io::stdin().is_terminal() {
        status(machine);
        show::say("standard input is no terminal: `cargo xtask vm run CMD` runs something in it");
        return Ok(ExitCode::SUCCESS);
    }
    show::say("\nThe machine keeps running when you leave; `cargo xtask vm stop` ends it.\n");
    let mut c: Command = Link::new(machine).ssh();
    let status = c.arg("-t").stdin(Stdio::inherit()).status().context("cannot run ssh")?;
    Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)))
}

fn status(machine: &Machine) {
    let state = match (machine.process(), machine.is_off_on_purpose()) {
        (Some(p), _) if p.is_stopped() => "stopped by a signal",
        (Some(_), _) => "running",
        (None, true) => "its power was cut",
        (None, false) => "not running",
    };
    show::say(format!("\nvirtual test host: {state} ({})", machine.spec().accelerator));
    show::say(format!("  console   {}", machine.console().display()));
    show::say(format!("  directory {}", machine.dir().display()));
    if machine.process().is_some() {
        let ssh = format!("ssh -i {} -p {} root@127.0.0.1", machine.spec().key.display(), machine.spec().port);
        show::say(format!("  enter     cargo xtask vm shell   ({ssh})"));
        show::say("  end       cargo xtask vm stop\n");
    } else {
        show::say("  start     cargo xtask vm up\n");
    }
}

fn reboot(machine: &Machine) -> Result<()> {
    let link = Link::new(machine);
    let id = "cat /proc/sys/kernel/random/boot_id";
    let before = link.run(id, None, Duration::from_secs(60))?;
    link.run(REBOOT, None, Duration::from_secs(60))?;
    link.forget();
    let other = wait::retry(BOOT, Duration::from_secs(1), || {
        if let Err(e) = machine.alive_and_well() {
            return Some(Err(e));
        }
        let now = link.run(id, None, Duration::from_secs(20)).ok()?;
        (now.code() == 0 && now.text() != before.text()).then_some(Ok(()))
    });
    match other {
        Some(r) => r,
        None => Err(machine.trouble(&format!("it did not boot again in {}", show::time(BOOT)))),
    }
}
