//! What is generated from the same definitions the command line is parsed with: completion scripts, man pages and
//! `docs/reference/cli.md`. The results are checked in; a test compares them.

use crate::{
    args::{Cli, ListArgs},
    failure::{Failure, Outcome},
    list::fields,
    tools,
};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Inline, Roff},
};
use std::{fmt::Write as _, fs, io, path::Path};
use vz_types::ExitCode;

/// The part of cli.md that people wrote.
const INTRO: &str = include_str!("cli-intro.md");
/// And that of the two man pages, one paragraph a line.
const CONSOLE_KEYS: &str = "Esc followed by a dot leaves the console. The container and its console are not disturbed.";

/// `completion SHELL`.
pub fn completion(shell: Shell, vzlist: bool) -> Outcome {
    let script = script(shell, vzlist);
    crate::ui::print_line(script.trim_end());
    Ok(0)
}

fn script(shell: Shell, vzlist: bool) -> String {
    let (mut command, name) = if vzlist { (ListArgs::command(), "vzlist") } else { (Cli::command(), "vzctl") };
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// `man DIR`: everything generated, below DIR as it lies in the checkout.
pub fn write_all(dir: &Path) -> Outcome {
    let files: Vec<(&str, String)> = vec![
        ("config/man/vzctl.8", page(Cli::command(), true).map_err(|e| Failure::system("cannot render vzctl.8", e))?),
        (
            "config/man/vzlist.8",
            page(ListArgs::command(), false).map_err(|e| Failure::system("cannot render vzlist.8", e))?,
        ),
        ("config/completion/vzctl.bash", script(Shell::Bash, false)),
        ("config/completion/vzlist.bash", script(Shell::Bash, true)),
        ("config/completion/_vzctl", script(Shell::Zsh, false)),
        ("config/completion/_vzlist", script(Shell::Zsh, true)),
        ("config/completion/vzctl.fish", script(Shell::Fish, false)),
        ("config/completion/vzlist.fish", script(Shell::Fish, true)),
        ("docs/reference/cli.md", reference()),
        ("docs/reference/beancounters.md", crate::limits::reference()),
        ("docs/reference/settings.md", crate::settings::reference()),
    ];
    let mut files: Vec<(String, String)> = files.into_iter().map(|(n, t)| (n.to_owned(), t)).collect();
    for (name, tool) in tools::ALL {
        let text = tool_page(*tool).map_err(|e| Failure::system(format_args!("cannot render {name}.8"), e))?;
        files.push((format!("config/man/{name}.8"), text));
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut tools::command(*tool), *name, &mut script);
        files.push((format!("config/completion/{name}.bash"), String::from_utf8_lossy(&script).into_owned()));
    }
    for (name, text) in files {
        let path = dir.join(&name);
        let write = || -> io::Result<()> {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&path, text.as_bytes())
        };
        write().map_err(|e| Failure::system(format_args!("cannot write {}", path.display()), e))?;
    }
    Ok(0)
}

/// The page of one of the operator's tools.
fn tool_page(tool: tools::Tool) -> io::Result<String> {
    let mut out = Vec::new();
    let man = Man::new(tools::command(tool).version(None::<&str>)).section("8").manual("vz").source("vz").date("");
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    section(&mut out, "SEE ALSO", &["vzctl(8), vzlist(8)"])?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Every verb with its path of words, those of `template` included, hidden ones not.
fn verbs(command: &Command) -> Vec<(String, Command)> {
    let mut out = Vec::new();
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
        let name = format!("{} {}", command.get_name(), sub.get_name());
        let sub =
            sub.clone().name(name.clone()).display_name(name.clone()).bin_name(name.clone()).disable_help_flag(true);
        if sub.has_subcommands() {
            out.extend(verbs(&sub));
        } else {
            out.push((name, sub));
        }
    }
    out
}

/// One page: the command itself, then each verb, then files and exit codes.
fn page(command: Command, with_verbs: bool) -> io::Result<String> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let title = command.get_name().to_owned();
    let man = Man::new(command.clone().version(None::<&str>)).section("8").manual("vz").source("vz").date("");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if with_verbs {
        section(&mut out, "VERBS", &[])?;
        for (name, sub) in verbs(&Cli::command()) {
            let sub = own_options(sub);
            let mut roff = Roff::new();
            roff.control("SS", [sub.clone().render_usage().to_string().trim_start_matches("Usage: ")]);
            let alias: Vec<&str> = sub.get_visible_aliases().collect();
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let alias = if alias.is_empty() { String::new() } else { format!(" Also called {}.", alias.join(", ")) };
            roff.text([Inline::Roman(format!("{about}.{alias}"))]);
            if name.ends_with("console") {
                roff.control("PP", []);
                roff.text([Inline::Roman(CONSOLE_KEYS.into())]);
            }
            roff.to_writer(&mut out)?;
            let mut options = Vec::new();
            Man::new(sub).render_options_section(&mut options)?;
            // The section's own heading would end the verb's.
            out.extend(
                String::from_utf8_lossy(&options)
                    .lines()
                    .filter(|l| !l.starts_with(".SH"))
                    .flat_map(|l| format!("{l}\n").into_bytes()),
            );
        }
        section(&mut out, "EXIT STATUS", &[])?;
        for (code, _) in ExitCode::ALL {
            tagged(&mut out, &code.code().to_string(), code.meaning())?;
        }
    } else {
        section(&mut out, "FIELDS", &[&format!("{}.", fields::all().map(|f| f.name).collect::<Vec<_>>().join(", "))])?;
        section(
            &mut out,
            "EXIT STATUS",
            &["0, or 1 when there are containers but none of those asked for. Other failures exit as vzctl does."],
        )?;
    }
    section(&mut out, "ENVIRONMENT", &[])?;
    tagged(&mut out, "VZ_ROOT", "Root of the manager to talk to, like --root.")?;
    section(&mut out, "FILES", &[])?;
    for (file, what) in [
        ("/run/vz/vzd.sock", "Where vzd answers."),
        ("/etc/vz/conf/CTID.toml", "The configuration of a container."),
        ("/etc/vz/vz.toml", "The configuration of the manager."),
    ] {
        tagged(&mut out, file, what)?;
    }
    section(&mut out, "SEE ALSO", &[if title == "vzctl" { "vzlist(8)" } else { "vzctl(8)" }])?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn section(out: &mut Vec<u8>, title: &str, paragraphs: &[&str]) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    for p in paragraphs {
        roff.text([Inline::Roman((*p).to_owned())]);
    }
    roff.to_writer(out)
}

fn tagged(out: &mut Vec<u8>, tag: &str, text: &str) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("TP", []);
    roff.text([Inline::Bold(tag.to_owned())]);
    roff.text([Inline::Roman(text.to_owned())]);
    roff.to_writer(out)
}

/// A verb without the global options, which are described once.
fn own_options(sub: Command) -> Command {
    sub.mut_args(|a| if a.is_global_set() { a.hide(true) } else { a })
}

/// docs/reference/cli.md.
fn reference() -> String {
    let mut out = INTRO.to_owned();
    let root = Cli::command();
    out.push_str("\n## Options of every verb\n\n| option | |\n|---|---|\n");
    for a in root.get_arguments() {
        option_row(&mut out, a);
    }
    out.push_str("\n## Verbs\n");
    for (name, sub) in verbs(&root) {
        let sub = own_options(sub);
        let usage = sub.clone().render_usage().to_string().replace("Usage: ", "");
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let alias: Vec<String> = sub.get_visible_aliases().map(|a| format!("`{a}`")).collect();
        let alias = if alias.is_empty() { String::new() } else { format!(" Also called {}.", alias.join(", ")) };
        // Writing to a String cannot fail.
        let _ = write!(out, "\n### {name}\n\n    {usage}\n\n{about}.{alias}\n");
        let own: Vec<_> = sub.get_arguments().filter(|a| !a.is_hide_set() && !a.is_global_set()).collect();
        if !own.is_empty() {
            out.push_str("\n| option | |\n|---|---|\n");
            own.into_iter().for_each(|a| option_row(&mut out, a));
        }
    }
    out.push_str("\n## vzlist\n\n| option | |\n|---|---|\n");
    for a in ListArgs::command().get_arguments() {
        option_row(&mut out, a);
    }
    out.push_str("\nFields (`-o`, `-s`), with their headers:\n\n| field | header |\n|---|---|\n");
    for f in fields::all() {
        let _ = writeln!(out, "| `{}` | {} |", f.name, f.header);
    }
    out.push_str("\n## Exit codes\n\n| code | name | meaning |\n|---|---|---|\n");
    for (code, name) in ExitCode::ALL {
        let _ = writeln!(out, "| {} | {name} | {} |", code.code(), code.meaning());
    }
    out
}

fn option_row(out: &mut String, a: &clap::Arg) {
    let value = a.get_value_names().filter(|_| a.get_action().takes_values()).map(|v| v.join(" ")).unwrap_or_default();
    let option = match (a.get_short(), a.get_long()) {
        (Some(s), Some(l)) => format!("-{s}, --{l} {value}"),
        (Some(s), None) => format!("-{s} {value}"),
        (None, Some(l)) => format!("--{l} {value}"),
        (None, None) => value,
    };
    let help = a.get_help().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(out, "| `{}` | {} |", option.trim().replace('|', "\\|"), help.replace('|', "\\|"));
}
