//! The operator's tools: vzctl called by another name. Each has a parser of its own; man pages come from it.

mod figures;
mod ubc;
mod validate;

use crate::{failure::Outcome, ui};
use clap::{Args, CommandFactory, Parser};
use std::{ffi::OsString, path::PathBuf};
use vz_api::client::Client;
use vz_types::Paths;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Shows beancounters.
    Ubc,
    /// Checks a configuration.
    Validate,
    /// What one container takes of the host.
    Calc,
    /// What all containers take of its memory.
    Memcheck,
    /// What all containers take of its processors.
    Cpucheck,
    /// A plan for so many containers.
    Split,
}

/// Names and tools.
pub const ALL: &[(&str, Tool)] = &[
    ("vzubc", Tool::Ubc),
    ("vzcfgvalidate", Tool::Validate),
    ("vzcalc", Tool::Calc),
    ("vzmemcheck", Tool::Memcheck),
    ("vzcpucheck", Tool::Cpucheck),
    ("vzsplit", Tool::Split),
];

/// The tool of this name.
pub fn find(name: &str) -> Option<Tool> {
    ALL.iter().find(|(n, _)| *n == name).map(|(_, t)| *t)
}

/// The command line of a tool, for its pages.
pub fn command(tool: Tool) -> clap::Command {
    match tool {
        Tool::Ubc => ubc::UbcArgs::command(),
        Tool::Validate => validate::ValidateArgs::command(),
        Tool::Calc => figures::CalcArgs::command(),
        Tool::Memcheck => figures::MemcheckArgs::command(),
        Tool::Cpucheck => figures::CpucheckArgs::command(),
        Tool::Split => figures::SplitArgs::command(),
    }
}

/// Where the manager is; an option of every tool.
#[derive(Clone, Debug, Args)]
pub struct Root {
    /// Root of the manager to talk to
    #[arg(long, env = "VZ_ROOT", hide_env_values = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
}

impl Root {
    /// Its paths.
    pub fn paths(&self) -> Paths {
        Paths::new(&self.root)
    }
    /// Its daemon.
    pub fn client(&self) -> Client {
        Client::new(&self.paths())
    }
}

/// Runs a tool with its arguments.
pub fn run(tool: Tool, argv: Vec<OsString>) -> Outcome {
    match tool {
        Tool::Ubc => parsed(ubc::modern(argv), ubc::run),
        Tool::Validate => parsed(argv, validate::run),
        Tool::Calc => parsed(argv, figures::calc),
        Tool::Memcheck => parsed(argv, figures::memcheck),
        Tool::Cpucheck => parsed(argv, figures::cpucheck),
        Tool::Split => parsed(argv, figures::split),
    }
}

fn parsed<A: Parser>(argv: Vec<OsString>, f: impl FnOnce(&A) -> Outcome) -> Outcome {
    match A::try_parse_from(&argv) {
        Ok(args) => f(&args),
        Err(e) if e.kind() == clap::error::ErrorKind::InvalidUtf8 => {
            // clap does not say which.
            let bad = argv.iter().skip(1).find(|a| a.to_str().is_none()).cloned().unwrap_or_default();
            ui::print_error(&format!("argument {bad:?} is not UTF-8 text"));
            Ok(1)
        }
        Err(e) if e.use_stderr() => {
            ui::print_error(e.render().to_string().trim_end());
            // As the classic tools; only vzctl has a code of its own for it.
            Ok(1)
        }
        Err(e) => {
            ui::print_line(e.render().to_string().trim_end());
            Ok(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tools_definition_is_sound() {
        for (name, tool) in ALL {
            let c = command(*tool);
            assert_eq!(c.get_name(), *name);
            c.debug_assert();
        }
    }
}
