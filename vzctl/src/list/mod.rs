//! vzlist: what is asked for, which containers, in which order, in which form. One request, then plain text work.

pub mod fields;
pub mod glob;
pub mod value;

use crate::{
    args::ListArgs,
    failure::{Failure, Outcome},
    ui::{print_error, print_line},
};
use fields::Field;
use value::{Json, Value};
use vz_api::{client::Client, wire::CtInfo};
use vz_types::{ExitCode, Paths};

/// Columns when none are named.
const DEFAULT: &str = "ctid,numproc,status,ip,hostname";

/// Prints the list. Exit 1 when there are containers but none of those asked for.
pub fn run(args: &ListArgs) -> Outcome {
    if args.list {
        fields::all().for_each(|f| print_line(&format!("{:<15} {}", f.name, f.header)));
        return Ok(0);
    }
    // Everything typed is checked before anything is asked.
    let columns = columns(args)?;
    let sort = args.sort.as_deref().map(sort_field).transpose()?;
    let client = Client::new(&Paths::new(&args.root));
    let brief = !args.json && columns.iter().copied().chain(sort.map(|(field, _)| field)).all(Field::is_brief);
    let all = if brief { client.list_brief()? } else { client.list()? };
    let none_at_all = all.is_empty();
    let (mut rows, missing) = select(args, all);
    if let Some((field, descending)) = sort {
        rows.sort_by(|a, b| {
            let order = field.value(a).order(&field.value(b)).then(a.ctid.cmp(&b.ctid));
            if descending { order.reverse() } else { order }
        });
    } else {
        rows.sort_by_key(|i| i.ctid);
    }
    for broken in rows.iter().filter(|i| i.config_error.is_some()) {
        print_error(&format!(
            "WARNING: configuration of CT {}: {}",
            broken.ctid,
            broken.config_error.as_deref().unwrap_or_default()
        ));
    }
    if args.json {
        print_line(&json(&columns, &rows, args));
    } else if !rows.is_empty() {
        table(&columns, &rows, args).iter().for_each(|l| print_line(l));
    }
    if missing || (rows.is_empty() && !none_at_all) {
        print_error("Container(s) not found");
        return Ok(1);
    }
    Ok(0)
}

fn known(name: &str) -> Result<&'static Field, Failure> {
    fields::find(name).ok_or_else(|| {
        Failure::new(ExitCode::BadSyntax, format!("Unknown field: {name:?}"))
            .hint("`vzlist -L` lists the fields there are")
    })
}

fn columns(args: &ListArgs) -> Result<Vec<&'static Field>, Failure> {
    let named = if args.only_ctid { Some("ctid") } else { args.output.as_deref() };
    match named {
        Some(list) => list.split(',').map(|f| known(f.trim())).collect(),
        None if args.json => Ok(fields::all().filter(|f| f.in_json).collect()),
        None if args.name => DEFAULT.replace("hostname", "name").split(',').map(known).collect(),
        None => DEFAULT.split(',').map(known).collect(),
    }
}

fn sort_field(typed: &str) -> Result<(&'static Field, bool), Failure> {
    match typed.strip_prefix('-') {
        Some(name) => Ok((known(name)?, true)),
        None => Ok((known(typed)?, false)),
    }
}

/// The rows asked for, and whether one of those named is not there.
fn select(args: &ListArgs, all: Vec<CtInfo>) -> (Vec<CtInfo>, bool) {
    let is_named = |i: &CtInfo, typed: &String| i.ctid.to_string() == *typed || i.name.as_ref() == Some(typed);
    let missing = args.cts.iter().any(|typed| !all.iter().any(|i| is_named(i, typed)));
    let status = |i: &CtInfo| match (args.all, args.stopped) {
        (true, _) => true,
        (_, true) => i.status == "stopped",
        _ => i.status == "running" || !args.cts.is_empty(),
    };
    let like = |pattern: &Option<String>, text: &Option<String>| {
        pattern.as_deref().is_none_or(|p| glob::matches(p, text.as_deref().unwrap_or_default()))
    };
    let rows = all.into_iter().filter(|i| {
        (args.cts.is_empty() || args.cts.iter().any(|typed| is_named(i, typed)))
            && status(i)
            && like(&args.hostname, &i.hostname)
            && like(&args.name_filter, &i.name)
            && like(&args.description, &i.description)
    });
    (rows.collect(), missing)
}

fn json(columns: &[&'static Field], rows: &[CtInfo], args: &ListArgs) -> String {
    let object = |info: &CtInfo| {
        let mut fields: Vec<_> = columns.iter().map(|f| (f.name, f.value(info).json())).collect();
        if args.only_ctid {
            // Clients of `-1j` written for vzctl 4.11 look for the older name of the field.
            fields.push(("veid", Value::Number(info.ctid.into()).json()));
        }
        Json::Object(fields)
    };
    let mut out = String::new();
    Json::write_all(&rows.iter().map(object).collect::<Vec<_>>(), &mut out);
    out
}

fn table(columns: &[&'static Field], rows: &[CtInfo], args: &ListArgs) -> Vec<String> {
    let line = |cells: Vec<(String, i16)>| {
        let padded: Vec<String> = cells
            .into_iter()
            .map(|(text, width)| {
                let columns = usize::from(width.unsigned_abs());
                if width < 0 { format!("{text:<columns$}") } else { format!("{text:>columns$}") }
            })
            .collect();
        padded.join(" ").trim_end().to_owned()
    };
    let last = columns.len().saturating_sub(1);
    let header = (!args.no_header && !args.only_ctid)
        .then(|| line(columns.iter().map(|f| (f.header.to_owned(), f.width)).collect()));
    let body = rows.iter().map(|info| {
        let cell = |(n, f): (usize, &&'static Field)| {
            let v = f.value(info);
            let text = v.text().unwrap_or_else(|| "-".to_owned());
            let text =
                if n == last || args.no_trim { text } else { trim(&v, text, usize::from(f.width.unsigned_abs())) };
            (text, f.width)
        };
        line(columns.iter().enumerate().map(cell).collect())
    });
    header.into_iter().chain(body).collect()
}

/// Cuts what would push the next columns out of line. Of a list only whole words stay, the first always: half an
/// address would be another address. Numbers are never cut.
fn trim(value: &Value, text: String, width: usize) -> String {
    if text.chars().count() <= width {
        return text;
    }
    match value {
        Value::List(words) => {
            let mut out = words.first().cloned().unwrap_or_default();
            for w in words.iter().skip(1) {
                if out.chars().count() + 1 + w.chars().count() > width {
                    break;
                }
                out = format!("{out} {w}");
            }
            out
        }
        Value::Text(_) => text.chars().take(width).collect(),
        _ => text,
    }
}
