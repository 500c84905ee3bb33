//! `cargo xtask`: the one developer entry point. Everything that must pass is behind `cargo xtask test`, everything
//! worth seeing behind `cargo xtask demo`.
//!
//! | module | what |
//! |---|---|
//! | [`deb`] | the Debian package |
//! | [`deps`] | system packages, installed by name |
//! | [`programs`] | building vzctl, vzd and vzmon |
//! | [`vm`] | the virtual test host |
//! | [`archive`] | the Debian mirror the host uses |
//! | [`suite`] | everything that must pass |
//! | [`long`] | the long forms, on demand |
//! | [`demo`] | the whole path, shown step by step, and its removal |
//! | [`bench`] | figures against peers |
//! | [`generate`] | files made from the source they document |
//! | [`show`] | steps with their times on a terminal |
//! | [`tally`] | what ran of the tests |

mod archive;
mod bench;
mod deb;
mod demo;
mod deps;
mod generate;
mod long;
mod programs;
mod show;
mod suite;
mod tally;
mod vm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Developer commands of vz.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install missing system packages by name (Debian), starting none of their services
    Deps,
    /// Build vzctl, vzd and vzmon for release
    Build,
    /// From nothing to a CT one can ssh into, showing each step with its time
    Demo(demo::Options),
    /// Everything that must pass
    Test(suite::Options),
    /// The long forms of tests, which may take hours: those whose name, or whose suite's, contains FILTER, or all
    Long(long::Options),
    /// Figures of vz and its peers, measured alternately in one run
    Bench(bench::Options),
    /// Make the Debian package of what `build` makes, and say how to install it
    Deb(deb::Options),
    /// The virtual test host: a Debian machine with cgroup v2 and quotas, with this checkout's vz installed
    Vm(vm::Options),
    /// Regenerate the files that are made from the source: OpenAPI, man pages, completion, reference
    Gen,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Task::Deps => deps::install(deps::ALL),
        Task::Build => programs::build().map(|_| ()),
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => suite::run(&options),
        Task::Long(options) => long::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Deb(options) => deb::run(&options),
        Task::Vm(options) => return finish(vm::run(&options)),
        Task::Gen => generate::run(),
    };
    finish(done.map(|()| ExitCode::SUCCESS))
}

fn finish(done: anyhow::Result<ExitCode>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(e) => {
            eprintln!("\nerror: {e:#}");
            ExitCode::FAILURE
        }
    }
}
