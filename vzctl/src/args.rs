//! The command line as it is typed: plain values only. Meaning and checks come later ([`crate::settings`],
//! [`crate::target`]), so that each bad value gets its own exit code. Completion and man pages are generated from here.

use crate::settings::SettingsArgs;
use clap::{Args, Parser, Subcommand};
use std::{ffi::OsString, path::PathBuf};

/// Manage containers.
#[derive(Debug, Parser)]
#[command(
    name = "vzctl",
    // The words of vzctl 4.11, which scripts cut the third of.
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    about = "Manage system containers (CTs)",
    long_about = "Creates, starts, stops and changes system containers (CTs): machines made from an OS template that \
        boot their distribution's own init and share the host's kernel. A CT is named by its CTID, 101..2147483644, or \
        by the name the operator gave it.",
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What to do in general.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Print errors and asked-for data only
    #[arg(long, global = true, help_heading = "Options of every verb", conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print each step with its time
    #[arg(long, global = true, help_heading = "Options of every verb")]
    pub verbose: bool,
    /// Accepted for scripts; operations on one CT are ordered by vzd and its lock cannot be skipped
    #[arg(long, global = true, help_heading = "Options of every verb")]
    pub skiplock: bool,
    /// Root of the manager to talk to
    #[arg(
        long,
        global = true,
        help_heading = "Options of every verb",
        env = "VZ_ROOT",
        hide_env_values = true,
        value_name = "DIR",
        default_value = "/"
    )]
    pub root: PathBuf,
    /// Do not wait for the change: print the number of its operation, and exit
    #[arg(long, global = true, help_heading = "Options of every verb")]
    pub background: bool,
    /// Answer in JSON on standard output; errors too, beside their message on standard error
    #[arg(long, global = true, help_heading = "Options of every verb")]
    pub json: bool,
}

/// One CT.
#[derive(Clone, Debug, Args)]
pub struct Target {
    /// CTID or name
    #[arg(value_name = "CTID|NAME", allow_hyphen_values = true)]
    pub ct: String,
}

/// Every verb.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Build, list, show and remove OS templates
    #[command(subcommand, arg_required_else_help = true)]
    Template(TemplateVerb),
    /// Make a CT from an OS template
    Create(CreateArgs),
    /// Boot a CT
    Start {
        /// CTID or name
        #[arg(value_name = "CTID|NAME", allow_hyphen_values = true, required_unless_present = "remembered")]
        ct: Option<String>,
        /// Those that the last `stop --all --remember` has stopped
        #[arg(long, hide = true, conflicts_with_all = ["ct", "wait", "force"])]
        remembered: bool,
        /// Answer when its default runlevel is reached, not when init runs
        #[arg(long)]
        wait: bool,
        /// Start it although it is disabled
        #[arg(long)]
        force: bool,
    },
    /// Shut a CT down, and kill what is left at the timeout
    Stop {
        /// CTID or name
        #[arg(value_name = "CTID|NAME", allow_hyphen_values = true, required_unless_present = "all")]
        ct: Option<String>,
        /// Every CT that runs, side by side; needs no vzd
        #[arg(long, conflicts_with = "ct")]
        all: bool,
        /// Note which they were, for `start --remembered`
        #[arg(long, hide = true, requires = "all")]
        remember: bool,
        /// Kill at once
        #[arg(long)]
        fast: bool,
        /// Seconds before the kill, 1..3600
        #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
        timeout: Option<String>,
    },
    /// Stop a CT if it runs, then start it
    Restart {
        #[command(flatten)]
        target: Target,
        /// Answer when its default runlevel is reached, not when init runs
        #[arg(long)]
        wait: bool,
        /// Start it although it is disabled
        #[arg(long)]
        force: bool,
        /// Kill at once instead of shutting down
        #[arg(long)]
        fast: bool,
    },
    /// Remove a CT and its files; its configuration stays as CTID.toml.destroyed
    #[command(visible_alias = "delete")]
    Destroy(Target),
    /// Say in one line whether a CT exists, is mounted and runs
    Status(Target),
    /// Run a shell command in a CT; any failure exits 8
    Exec(ExecArgs),
    /// Run a shell command in a CT and exit with its own status
    Exec2(ExecArgs),
    /// Open a root shell in a CT: on a terminal of its own where ours is one, else with our input to its end
    Enter {
        #[command(flatten)]
        target: Target,
        /// Run this command instead of a shell
        #[arg(long, value_name = "COMMAND", num_args = 1.., allow_hyphen_values = true)]
        exec: Option<Vec<OsString>>,
    },
    /// Join a CT's console; `Esc .` leaves it
    Console(Target),
    /// Run a script of the host in a CT; one that does not run is started for it and stopped again
    Runscript {
        #[command(flatten)]
        target: Target,
        /// The script
        script: PathBuf,
    },
    /// Show a stopped CT's files on the host
    Mount(Target),
    /// Hide them again
    Umount(Target),
    /// Change a CT, running or not
    Set(SetArgs),
    /// List CTs (the same as vzlist)
    #[command(disable_help_flag = true)]
    List {
        /// Options and CTIDs as for vzlist
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0.., value_name = "VZLIST-OPTION")]
        args: Vec<OsString>,
    },
    /// List operations: what is under way, and what was done
    Operations(OperationsArgs),
    /// Wait until an operation has ended, and exit as it would have
    Wait {
        /// Its number (`vzctl operations`)
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Ask an operation to end, and wait until what it has done is taken back
    Cancel {
        /// Its number (`vzctl operations`)
        #[arg(value_name = "ID")]
        id: String,
    },
    /// List who did what to a CT and when, oldest first; also of one that was destroyed
    History(Target),
    /// Say what was refused to a CT because of limits, when, and what to change
    Why(Target),
    /// List what happened to CTs because of limits, oldest first
    Events(EventsArgs),
    /// Print figures of all running CTs in Prometheus' text format
    Metrics,
    /// List the sample configurations, or print one
    Samples {
        /// Name of the one to print
        name: Option<String>,
    },
    /// Say what this host can and cannot do, with the remedy for each gap
    Check,
    /// Build a lost inventory anew from configuration files and private areas, while vzd is stopped
    Recover,
    /// Print the versions of vzctl and of the running vzd
    Version,
    /// Print the completion script of a shell
    Completion {
        /// bash, zsh or fish
        shell: clap_complete::Shell,
        /// The one of vzlist
        #[arg(long)]
        vzlist: bool,
    },
    /// Write man pages, completions and cli.md below DIR, as they lie in the checkout
    #[command(hide = true)]
    Man {
        /// Where to
        dir: PathBuf,
    },
}

/// Verbs of OS templates.
#[derive(Debug, Subcommand)]
pub enum TemplateVerb {
    /// Build an OS template from its recipe
    Build {
        /// Name of the template
        name: String,
        /// Build it again although it exists; CTs keep the files they were made from
        #[arg(long)]
        rebuild: bool,
    },
    /// Make an OS template from a root filesystem in a tar archive, made by whatever means
    Import(ImportArgs),
    /// List the OS templates, built, imported or buildable
    List,
    /// Show one OS template with its packages
    Show {
        /// Name of the template
        name: String,
    },
    /// Remove an OS template no CT was made from
    Remove {
        /// Name of the template
        name: String,
    },
}

/// `template import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The archive: tar, uncompressed or compressed with gzip, xz or zstd; `-` reads standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: PathBuf,
    /// Name of the template; without it, that of the file up to `.tar`
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Replace an OS template of that name; CTs keep the files they were made from
    #[arg(long)]
    pub replace: bool,
    /// Leave every device node out, instead of refusing those no plain system has in /dev
    #[arg(long)]
    pub skip_devices: bool,
    /// One line for `template show`
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Most bytes its files may have together, with a suffix like 20G; else 9 tenths of what the disk has left
    #[arg(long, value_name = "SIZE")]
    pub max_size: Option<String>,
}

/// `create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The new CT's number, 101..2147483644
    #[arg(value_name = "CTID", allow_hyphen_values = true)]
    pub ctid: String,
    /// OS template to make it from (`vzctl template list`); vz.toml may name a default
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub ostemplate: Option<String>,
    /// Take limits and disk quota from a sample configuration first (`vzctl samples`)
    #[arg(long, value_name = "SAMPLE", allow_hyphen_values = true)]
    pub config: Option<String>,
    /// How its files are stored: overlay
    #[arg(long, value_name = "LAYOUT", allow_hyphen_values = true)]
    pub layout: Option<String>,
    /// What `set` would set.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// `set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Which.
    #[command(flatten)]
    pub target: Target,
    /// To what.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Take limits from a sample configuration first (`vzctl samples`), and disk space where it has more
    #[arg(long, value_name = "SAMPLE", allow_hyphen_values = true)]
    pub applyconfig: Option<String>,
    /// Forget maxheld and failcnt of every beancounter
    #[arg(long = "reset_ub", alias = "reset-ub")]
    pub reset_ub: bool,
    /// Write the change to the CT's configuration too
    #[arg(long)]
    pub save: bool,
    /// What a running CT cannot change: restart it, or ignore the running one
    #[arg(long, value_name = "restart|ignore", allow_hyphen_values = true)]
    pub setmode: Option<String>,
}

/// `operations`.
#[derive(Debug, Args)]
pub struct OperationsArgs {
    /// Only of this CT
    #[arg(value_name = "CTID|NAME", allow_hyphen_values = true)]
    pub ct: Option<String>,
    /// Only of this OS template
    #[arg(long, value_name = "NAME", conflicts_with = "ct")]
    pub template: Option<String>,
    /// Only those that have not ended
    #[arg(long)]
    pub open: bool,
    /// The newest so many, 1..10000
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// `events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only of this CT
    #[arg(value_name = "CTID|NAME", allow_hyphen_values = true)]
    pub ct: Option<String>,
    /// Changes of state too: created, started, booted, rebooted, stopped, crashed, changed, destroyed, found
    #[arg(long, short = 'a')]
    pub all: bool,
    /// Go on with those to come
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// Only those with a higher number
    #[arg(long, value_name = "NUMBER")]
    pub after: Option<i64>,
}

/// `exec` and `exec2`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Where.
    #[command(flatten)]
    pub target: Target,
    /// The words of the command, joined by blanks; - reads a script from standard input
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, num_args = 1.., value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// vzlist: list containers.
#[derive(Debug, Parser)]
#[command(
    name = "vzlist",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    about = "List system containers (CTs)",
    long_about = "Lists containers (CTs): the running ones, unless told otherwise.",
    disable_help_flag = true,
    max_term_width = 100
)]
pub struct ListArgs {
    /// List all CTs, not only the running ones
    #[arg(short = 'a', long, conflicts_with = "stopped")]
    pub all: bool,
    /// List the stopped ones only
    #[arg(short = 'S', long)]
    pub stopped: bool,
    /// Show the CT's name instead of its host name
    #[arg(short = 'n', long)]
    pub name: bool,
    /// Print no header
    #[arg(short = 'H', long)]
    pub no_header: bool,
    /// Do not cut long values
    #[arg(short = 't', long)]
    pub no_trim: bool,
    /// Print JSON
    #[arg(short = 'j', long)]
    pub json: bool,
    /// Print these fields
    #[arg(short = 'o', long, value_name = "FIELD[,FIELD...]")]
    pub output: Option<String>,
    /// Print the CTIDs only: the same as -H -octid
    #[arg(short = '1', conflicts_with = "output")]
    pub only_ctid: bool,
    /// Sort by this field; with a - before it, the other way round
    #[arg(short = 's', long, value_name = "[-]FIELD", allow_hyphen_values = true)]
    pub sort: Option<String>,
    /// Only those whose host name matches this pattern (* ? [])
    #[arg(short = 'h', long, value_name = "PATTERN")]
    pub hostname: Option<String>,
    /// Only those whose name matches this pattern
    #[arg(short = 'N', long = "name_filter", alias = "name-filter", value_name = "PATTERN")]
    pub name_filter: Option<String>,
    /// Only those whose description matches this pattern
    #[arg(short = 'd', long, value_name = "PATTERN")]
    pub description: Option<String>,
    /// List the fields there are
    #[arg(short = 'L', long)]
    pub list: bool,
    /// Root of the manager to talk to
    #[arg(long, env = "VZ_ROOT", hide_env_values = true, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
    /// Only these, running or not
    #[arg(value_name = "CTID|NAME")]
    pub cts: Vec<String>,
}

/// Options and verbs of vzctl 4.11 that this version does not have, with what they belong to.
pub const LATER: &[(&str, &[&str])] = &[
    ("per-user and timed disk quotas", &["--quotatime", "--quotaugidlimit", "quotaon", "quotaoff", "quotainit"]),
    (
        "bridged network interfaces",
        &[
            "--netif_add",
            "--netif_del",
            "--ifname",
            "--mac",
            "--host_ifname",
            "--host_mac",
            "--bridge",
            "--mac_filter",
            "--netdev_add",
            "--netdev_del",
        ],
    ),
    ("maps of sample configurations", &["--applyconfig_map"]),
    ("private areas and roots of one's own", &["--private", "--mount_opts"]),
    (
        "capabilities and devices",
        &["--capability", "--devnodes", "--devices", "--pci_add", "--pci_del", "--netfilter", "--iptables"],
    ),
    ("skipping file system checks", &["--skip-umount", "--skip_umount", "--skip-fsck", "--skip-remount"]),
    ("suspending and resuming", &["suspend", "chkpnt", "resume", "restore", "--dumpfile"]),
    (
        "snapshots",
        &["snapshot", "snapshot-list", "snapshot-switch", "snapshot-delete", "snapshot-mount", "snapshot-umount"],
    ),
    ("image maintenance", &["compact", "convert", "reinstall"]),
    ("clones and backups", &["clone", "backup", "restore-backup"]),
    ("rescue and history", &["rescue", "undo"]),
    ("importing OpenVZ configurations", &["import"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
        ListArgs::command().debug_assert();
    }

    #[test]
    fn what_is_said_to_come_later_is_not_there_yet() {
        let verbs: Vec<clap::Command> = Cli::command().get_subcommands().cloned().collect();
        for word in LATER.iter().flat_map(|(_, words)| words.iter()) {
            let there = match word.strip_prefix("--") {
                Some(long) => verbs.iter().any(|v| v.get_arguments().any(|a| a.get_long() == Some(long))),
                None => verbs.iter().any(|v| v.get_name() == *word || v.get_all_aliases().any(|a| a == *word)),
            };
            assert!(!there, "{word} is here");
        }
    }
}
