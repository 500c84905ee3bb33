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
use std::collections::BTreeSet;
use value::{Json, Value};
use vz_api::{
    client::{Client, ClientError},
    wire::{CtInfo, ListRequest},
};
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
    let asked = asked(args, columns.iter().copied().chain(sort.map(|(field, _)| field)));
    let all = match client.list_asked(&asked) {
        // A vzd of an earlier version knows fewer words.
        Err(ClientError::Api(e)) if e.code == ExitCode::BadSyntax && asked.brief => client.list_brief()?,
        Err(ClientError::Api(e)) if e.code == ExitCode::BadSyntax => client.list()?,
        all => all?,
    };
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
    for stuck in rows.iter().filter(|i| i.read_only) {
        print_error(&format!(
            "WARNING: CT {0}: its filesystem is read-only; `vzctl why {0}` says what to do",
            stuck.ctid
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

/// Many names are found sooner in a list of all.
const FEW: usize = 50;

/// What has to be known for these fields of the containers that are named.
fn asked(args: &ListArgs, fields: impl Iterator<Item = &'static Field> + Clone) -> ListRequest {
    let ct = (!args.cts.is_empty() && args.cts.len() <= FEW).then(|| args.cts.join(","));
    let brief = !args.json && fields.clone().all(Field::is_brief);
    let disk = (!args.json && !fields.clone().any(Field::is_disk)).then_some(false);
    let named: BTreeSet<&str> = fields.filter_map(Field::counter).collect();
    let counters = (!args.json && !brief).then(|| named.into_iter().collect::<Vec<_>>().join(","));
    ListRequest { brief, ct, counters, disk }
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
    let last = columns.len().saturating_sub(1);
    let cell = |n: usize, f: &Field, info: &CtInfo| {
        let v = f.value(info);
        let text = v.text().unwrap_or_else(|| "-".to_owned());
        let whole = n == last || args.no_trim;
        let text = if whole { text } else { trim(&v, text, usize::from(f.width.unsigned_abs())) };
        (text, matches!(v, Value::Number(_) | Value::Bean(_) | Value::Disk(_)))
    };
    let cells: Vec<Vec<(String, bool)>> =
        rows.iter().map(|info| columns.iter().enumerate().map(|(n, f)| cell(n, f, info)).collect()).collect();
    // What is never cut makes room for itself: an address, three loads, a name that is wanted whole. Only figures keep the
    // classic widths, which the classic number for unlimited has never fitted.
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(n, f)| {
            let words = cells.iter().filter(|row| n != last && !row[n].1).map(|row| row[n].0.chars().count());
            words.fold(usize::from(f.width.unsigned_abs()), usize::max)
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(columns.iter().zip(&widths))
            .map(|(text, (f, width))| if f.width < 0 { format!("{text:<width$}") } else { format!("{text:>width$}") })
            .collect();
        padded.join(" ").trim_end().to_owned()
    };
    let header = (!args.no_header && !args.only_ctid).then(|| line(&mut columns.iter().map(|f| f.header)));
    header.into_iter().chain(cells.iter().map(|row| line(&mut row.iter().map(|(text, _)| text.as_str())))).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn only_what_the_columns_need_is_asked_for() {
        let of = |words: &[&str]| {
            let args = ListArgs::try_parse_from([&["vzlist"], words].concat()).unwrap_or_else(|e| panic!("{e}"));
            let columns = columns(&args).unwrap_or_else(|f| panic!("{}", f.message));
            asked(&args, columns.into_iter())
        };
        let want = |brief, ct: Option<&str>, counters: Option<&str>, disk| ListRequest {
            brief,
            ct: ct.map(Into::into),
            counters: counters.map(Into::into),
            disk,
        };
        assert_eq!(of(&[]), want(true, None, None, Some(false)));
        assert_eq!(of(&["101", "web"]), want(true, Some("101,web"), None, Some(false)));
        assert_eq!(of(&["-o", "ctid,diskspace"]), want(true, None, None, None));
        let limits = of(&["-o", "ctid,numproc,numproc.l,physpages.m"]);
        assert_eq!(limits, want(false, None, Some("numproc,physpages"), Some(false)));
        assert_eq!(of(&["-j"]), want(false, None, None, None), "JSON without columns is all there is");
        let many: Vec<String> = (101..=101 + FEW).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(of(&many).ct, None);
    }
}
