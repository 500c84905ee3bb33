//! `vzctl`, and `vzlist` where it is called so: parse, ask vzd or go straight to the container, print, exit with the
//! documented code. One place ([`main`]) turns an outcome into output and exit status.

mod accounts;
mod all;
mod args;
mod attach;
mod console;
mod control;
mod failure;
mod generate;
mod import;
mod limits;
mod list;
mod operations;
mod progress;
mod settings;
mod status;
mod tables;
mod target;
mod tools;
mod ui;
mod verbs;
mod words;

use args::{Cli, ListArgs, TemplateVerb, Verb};
use clap::{
    Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};
use failure::{Failure, Outcome};
use std::{ffi::OsString, path::Path, process};
use ui::Ui;
use vz_api::client::Client;
use vz_types::{ExitCode, Paths};

fn main() -> process::ExitCode {
    // What `exec` starts has to be waited for, whatever our caller ignores.
    vz_sys::inherited::wait_for_children();
    let argv: Vec<OsString> = std::env::args_os().collect();
    let name = argv.first().map(Path::new).and_then(Path::file_name);
    // Only for the form of an error: the parser may not get as far as this option.
    let json = argv.iter().any(|a| a == "--json");
    let tool = name.and_then(|n| tools::find(n.to_str()?));
    let outcome = match tool {
        Some(tool) => tools::run(tool, argv),
        None if name.is_some_and(|n| n == "vzlist") => vzlist(argv),
        None => vzctl(argv),
    };
    process::ExitCode::from(outcome.unwrap_or_else(|f| report(&f, json)))
}

/// Tells a failure, once.
fn report(f: &Failure, json: bool) -> u8 {
    ui::print_error(&f.message);
    if let Some(hint) = &f.hint {
        ui::print_error(&format!("Hint: {hint}"));
    }
    if json {
        if let Ok(text) = serde_json::to_string_pretty(&f.to_api()) {
            ui::print_line(&text);
        }
    }
    f.code.code()
}

fn vzlist(argv: Vec<OsString>) -> Outcome {
    match ListArgs::try_parse_from(&argv) {
        Ok(mut args) => {
            args.root = absolute(&args.root)?;
            list::run(&args)
        }
        Err(e) => usage(&e, &argv),
    }
}

fn vzctl(argv: Vec<OsString>) -> Outcome {
    let Cli { global, verb } = match Cli::try_parse_from(&argv) {
        Ok(cli) => cli,
        Err(e) => return usage(&e, &argv),
    };
    let paths = Paths::new(absolute(&global.root)?);
    let background = global.background;
    let session = verbs::Session { client: Client::new(&paths), ui: Ui::new(&global), paths, background };
    let (s, paths) = (&session, &session.paths);
    match verb {
        Verb::Template(TemplateVerb::Build { name, rebuild }) => tables::template_build(s, &name, rebuild),
        Verb::Template(TemplateVerb::Import(args)) => import::run(s, &args),
        Verb::Template(TemplateVerb::List) => tables::template_list(s),
        Verb::Template(TemplateVerb::Show { name }) => tables::template_show(s, &name),
        Verb::Template(TemplateVerb::Remove { name }) => tables::template_remove(s, &name),
        Verb::Create(args) => s.create(&args),
        Verb::Start { ct: Some(ct), wait, force, .. } => s.start(&ct, wait, force),
        Verb::Start { ct: None, .. } => all::start(s),
        Verb::Stop { ct: Some(ct), fast, timeout, .. } => s.stop(&ct, fast, timeout.as_deref()),
        Verb::Stop { ct: None, fast, timeout, remember, .. } => all::stop(s, fast, timeout.as_deref(), remember),
        Verb::Restart { target, wait, force, fast } => s.restart(&target.ct, wait, force, fast),
        Verb::Destroy(target) => s.destroy(&target.ct),
        Verb::Status(target) => status::status(s, &target.ct),
        Verb::Exec(args) => attach::exec(paths, &args.target.ct.parse()?, &args.command, true),
        Verb::Exec2(args) => attach::exec(paths, &args.target.ct.parse()?, &args.command, false),
        Verb::Enter { target, exec } => attach::enter(paths, &target.ct.parse()?, exec.as_deref(), s.ui.quiet),
        Verb::Console(target) => console::console(paths, &target.ct.parse()?, s.ui.quiet),
        Verb::Runscript { target, script } => attach::runscript(s, &target.ct.parse()?, &script),
        Verb::Mount(target) => s.mount(&target.ct),
        Verb::Umount(target) => s.umount(&target.ct),
        Verb::Set(args) => s.set(&args),
        Verb::List { args } => {
            let json = s.ui.json.then(|| OsString::from("--json"));
            let root = OsString::from(format!("--root={}", paths.base.display()));
            let rest = json.into_iter().chain(args);
            vzlist([OsString::from("vzlist"), root].into_iter().chain(rest).collect())
        }
        Verb::Operations(args) => operations::list(s, &args),
        Verb::Wait { id } => operations::wait(s, &id),
        Verb::Cancel { id } => operations::cancel(s, &id),
        Verb::History(target) => operations::history(s, &target.ct),
        Verb::Why(target) => accounts::why(s, &target.ct),
        Verb::Events(args) => accounts::events(s, &args),
        Verb::Metrics => accounts::metrics(s),
        Verb::Samples { name } => accounts::samples(s, name.as_deref()),
        Verb::Check => tables::check(s),
        Verb::Recover => s.recover(),
        Verb::Version => s.version(),
        Verb::Completion { shell, vzlist } => generate::completion(shell, vzlist),
        Verb::Man { dir } => generate::write_all(&dir),
    }
}

fn absolute(root: &Path) -> Result<std::path::PathBuf, Failure> {
    // It is part of what is told in JSON.
    if root.to_str().is_none() {
        return Err(Failure::new(ExitCode::BadSyntax, format!("root {root:?} is not UTF-8 text"))
            .hint("give the manager a directory with a name in UTF-8: --root or VZ_ROOT"));
    }
    if root.is_absolute() {
        return Ok(root.to_owned());
    }
    Err(Failure::new(ExitCode::BadSyntax, format!("root `{}` is not an absolute path", root.display()))
        .hint("give --root or VZ_ROOT from / on"))
}

/// What clap could not parse: help and version exit 0, everything else 20. What a later version will have is told as
/// such, by its name.
fn usage(e: &clap::Error, argv: &[OsString]) -> Outcome {
    if e.kind() == ErrorKind::InvalidUtf8 {
        // clap does not say which.
        let bad = argv.iter().skip(1).find(|a| a.to_str().is_none()).cloned().unwrap_or_default();
        return Err(Failure::new(ExitCode::BadSyntax, format!("argument {bad:?} is not UTF-8 text"))
            .hint("only commands to be run inside and names of files may be any bytes"));
    }
    if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        ui::print_line(e.render().to_string().trim_end());
        return Ok(0);
    }
    if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        ui::print_error(e.render().to_string().trim_end());
        return Ok(ExitCode::BadSyntax.code());
    }
    if e.kind() == ErrorKind::MissingSubcommand {
        return Err(Failure::new(ExitCode::BadSyntax, "no verb is named").hint(usage_line(e)));
    }
    let said = [ContextKind::InvalidArg, ContextKind::InvalidSubcommand].into_iter().find_map(|k| match e.get(k) {
        Some(ContextValue::String(s)) => Some(s.split('=').next().unwrap_or(s).to_owned()),
        _ => None,
    });
    if let Some(said) = said.filter(|_| matches!(e.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand)) {
        if let Some((what, _)) = args::LATER.iter().find(|(_, words)| words.contains(&said.as_str())) {
            return Err(Failure::new(
                ExitCode::BadSyntax,
                format!("{said} is not in this version of vz: {what} will come later"),
            )
            .hint("leave it out; nothing was changed"));
        }
    }
    Err(Failure::new(ExitCode::BadSyntax, said_shortly(&e.render().to_string())).hint(usage_line(e)))
}

/// The first paragraph of clap's message on one line, with its tip where it knows a similar word.
fn said_shortly(text: &str) -> String {
    let one_line = |p: &str| p.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = text.split("\n\n").map(one_line);
    let first = paragraphs.next().unwrap_or_default();
    let first = first.trim_start_matches("error: ");
    match paragraphs.find(|p| p.starts_with("tip:") && p.contains("similar")) {
        Some(tip) => format!("{first} ({})", tip.trim_start_matches("tip: ")),
        None => first.to_owned(),
    }
}

/// Where to read on: the help of the verb, or of the whole.
fn usage_line(e: &clap::Error) -> String {
    let usage = match e.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(s)) => s.to_string(),
        _ => String::new(),
    };
    let words: Vec<&str> = usage.trim().trim_start_matches("Usage: ").split(' ').collect();
    let verbs: Vec<&str> = words.into_iter().take_while(|w| w.starts_with(|c: char| c.is_ascii_lowercase())).collect();
    format!("`{} --help` tells what is understood", if verbs.is_empty() { "vzctl".to_owned() } else { verbs.join(" ") })
}
