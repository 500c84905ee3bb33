//! `template import`: the archive is read here, with the rights of whoever calls, and sent to vzd as it is read.

use crate::{
    args::ImportArgs,
    failure::{Failure, Outcome},
    progress::{self, Awaited},
    tables,
    verbs::Session,
};
use std::{
    fs::File,
    io::{IsTerminal, Read},
    path::Path,
    str::FromStr,
};
use vz_api::wire::ImportRequest;
use vz_types::{Bytes, ExitCode};

/// What archives' names end in; the longer ones first.
const ENDINGS: &[&str] =
    &[".tar.gz", ".tar.xz", ".tar.zst", ".tar.zstd", ".tgz", ".txz", ".tzst", ".tar", ".gz", ".xz", ".zst"];

/// Sends the archive and shows what becomes of it.
pub fn run(session: &Session, args: &ImportArgs) -> Outcome {
    let stdin = args.file == Path::new("-");
    let name = template_name(args, stdin)?;
    let max_size = match &args.max_size {
        None => None,
        Some(text) => Some(Bytes::from_str(text).map_err(|e| Failure::value(format!("--max-size {text}: {e}")))?.0),
    };
    let (archive, length) = open(&args.file, stdin)?;
    let file = args.file.file_name().map(|f| f.to_string_lossy().into_owned());
    let request = ImportRequest {
        source: Some(if stdin { "standard input".into() } else { file.unwrap_or_default() }),
        replace: args.replace,
        skip_devices: args.skip_devices,
        description: args.description.clone(),
        max_size,
        background: session.background,
    };
    let ui = session.ui;
    let awaited = Awaited { id: progress::number(), words: format!("Importing OS template {name}"), watched: false };
    let client = session.client.numbered(awaited.id);
    if session.background {
        // It is needed until the archive is sent; Ctrl-C takes back what there is by then.
        let sent = progress::waiting(&ui, &client, &awaited, || client.begin_import(&name, &request, archive, length));
        return session.finish(sent, &[], &[]);
    }
    ui.say(&awaited.words);
    let bar = ui.bar();
    let made = progress::told_itself(&client, &awaited, &bar, || {
        client.import(&name, &request, archive, length, |event| tables::show(&ui, &bar, event))
    });
    bar.finish_and_clear();
    let made = made?;
    if ui.json {
        ui.object(&made)?;
    } else {
        ui.say(&format!("OS template {name} was imported"));
        if !ui.quiet {
            tables::print_template(session, &made, false);
        }
    }
    Ok(0)
}

/// The name given, or the file's up to its ending.
fn template_name(args: &ImportArgs, stdin: bool) -> Result<String, Failure> {
    if let Some(typed) = &args.name {
        return typed.parse::<vz_types::TemplateName>().map(String::from).map_err(|e| Failure::value(e.to_string()));
    }
    if stdin {
        return Err(Failure::new(ExitCode::BadSyntax, "an archive from standard input has no name")
            .hint("give the template one: --name NAME"));
    }
    let file = args.file.file_name().map(|f| f.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = ENDINGS.iter().find_map(|e| file.strip_suffix(e)).unwrap_or(&file);
    stem.parse::<vz_types::TemplateName>()
        .map(String::from)
        .map_err(|e| Failure::value(e.to_string()).hint("give the template another name: --name NAME"))
}

/// The archive and, for a plain file, its size.
fn open(path: &Path, stdin: bool) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    if stdin {
        if std::io::stdin().is_terminal() {
            return Err(Failure::new(ExitCode::BadSyntax, "standard input is a terminal, not an archive")
                .hint("redirect an archive into it: vzctl template import - --name NAME < FILE"));
        }
        return Ok((Box::new(std::io::stdin()), None));
    }
    let cannot = |e: std::io::Error| Failure::value(format!("cannot read {}: {e}", path.display()));
    let file = File::open(path).map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    if meta.is_dir() {
        return Err(Failure::value(format!("{} is a directory", path.display()))
            .hint("pack it first: tar --numeric-owner --xattrs -C DIRECTORY -cf FILE.tar ."));
    }
    // What grows while it is read is taken up to here.
    match meta.is_file() {
        true => Ok((Box::new(file.take(meta.len())), Some(meta.len()))),
        false => Ok((Box::new(file), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(file: &str, name: Option<&str>) -> Result<String, Failure> {
        let args = ImportArgs {
            file: file.into(),
            name: name.map(String::from),
            replace: false,
            skip_devices: false,
            description: None,
            max_size: None,
        };
        template_name(&args, file == "-")
    }

    #[test]
    fn a_template_is_named_after_its_file_unless_told_otherwise() {
        for (file, name) in [
            ("/x/debian-12.tar.gz", "debian-12"),
            ("web_1.tar.zst", "web_1"),
            ("a.b.tgz", "a.b"),
            ("plain", "plain"),
            ("x.tar", "x"),
        ] {
            assert_eq!(named(file, None).unwrap(), name);
        }
        assert_eq!(named("/x/a b.tar", Some("ok")).unwrap(), "ok");
        assert_eq!(named("/x/a b.tar", None).unwrap_err().code, ExitCode::BadValue);
        assert_eq!(named("x.tar", Some("../x")).unwrap_err().code, ExitCode::BadValue);
        assert_eq!(named("-", None).unwrap_err().code, ExitCode::BadSyntax);
        assert_eq!(named("-", Some("y")).unwrap(), "y");
    }
}
