//! `operations`, `wait`, `cancel` and `history`: what is under way and what was done, by whom, when and with what outcome.

use crate::{
    args::OperationsArgs,
    failure::{Failure, Outcome},
    progress::{self, Awaited},
    tables,
    target::Target,
    ui::plain,
    verbs::Session,
    words,
};
use std::io::IsTerminal;
use vz_api::{
    operations,
    wire::{Operation, OperationsRequest},
};
use vz_types::{Fact, OpId, time::utc};

/// `operations`.
pub fn list(s: &Session, args: &OperationsArgs) -> Outcome {
    let wanted = OperationsRequest {
        ct: args.ct.as_deref().map(|typed| typed.parse::<Target>().map(|t| t.to_string())).transpose()?,
        template: args.template.as_deref().map(tables::name).transpose()?,
        state: args.open.then(|| "open".to_owned()),
        limit: Some(args.limit),
    };
    let all = s.client.operations(&wanted)?;
    if s.ui.json {
        s.ui.object(&all)?;
        return Ok(0);
    }
    let mut rows = tables::table(&["ID", "ASKED (UTC)", "BY", "OPERATION", "STATE", "TIME", "STEP OR ERROR"]);
    for o in &all {
        rows.add_row(vec![
            o.id.clone(),
            when(o.asked),
            o.asker.clone(),
            format!("{} {}", o.kind, o.name).trim_end().to_owned(),
            o.state.clone(),
            seconds(o),
            match &o.error {
                Some(e) => format!("{}{}", short(&plain(&e.message)), times(o)),
                None if o.ended.is_some() => String::new(),
                None => progress::at(o),
            },
        ]);
    }
    s.ui.data(&tables::text(rows));
    if all.len() as u64 == u64::from(args.limit) && std::io::stderr().is_terminal() {
        s.ui.warn(&format!("These are the newest {}; there may be more: --limit", args.limit));
    }
    Ok(0)
}

/// So much of a text that a row stays a row.
fn short(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// `history`: one container's life, oldest first.
pub fn history(s: &Session, typed: &str) -> Outcome {
    let ct = typed.parse::<Target>()?.to_string();
    let mut all =
        s.client.operations(&OperationsRequest { ct: Some(ct), limit: Some(10_000), ..Default::default() })?;
    all.reverse();
    if s.ui.json {
        s.ui.object(&all)?;
        return Ok(0);
    }
    for o in &all {
        let outcome = match &o.error {
            Some(e) => format!("{}: {}{}", o.state, plain(&e.message), times(o)),
            None => o.state.clone(),
        };
        s.ui.data(&format!("{}  {}  {} by {}: {outcome} ({})", utc(o.asked / 1000), o.id, o.kind, o.asker, seconds(o)));
        for part in &o.parts {
            let number = part.number.as_ref().map_or_else(String::new, |n| format!(" (asked for as {n})"));
            let text = part.text.as_ref().map_or_else(String::new, |t| format!(": {}", plain(t)));
            s.ui.say(&format!("    {}  {} by {}{number}{text}", when(part.at), part.how, part.asker));
        }
        for fact in &o.facts {
            if let Fact::Asked { settings } = fact {
                s.ui.say(&format!("    asked for: {}", plain(&settings.join(", "))));
            }
            let done = vz_api::wire::Done { ctid: o.ctid, facts: vec![fact.clone()], ..Default::default() };
            let told = words::told(done, &s.paths);
            for line in told.messages.iter().chain(&told.warnings) {
                s.ui.say(&format!("    {}", plain(line)));
            }
        }
    }
    if all.is_empty() {
        s.ui.say(&match s.client.version()?.history_days {
            0 => format!("Nothing is on record of {typed}"),
            days => format!("Nothing is on record of {typed} in the last {days} days"),
        });
    }
    Ok(0)
}

/// `wait`: exits as the operation would have.
pub fn wait(s: &Session, typed: &str) -> Outcome {
    let id = number(typed)?;
    let is = s.client.operation(typed)?;
    let words = format!("Waiting for `{}` of {}", is.kind, subject(&is));
    let awaited = Awaited { id, words, watched: true };
    let done = progress::waiting(&s.ui, &s.client, &awaited, || s.client.done(s.client.wait(typed)?))?;
    s.ui.done(words::told(done, &s.paths), &[])?;
    Ok(0)
}

/// `cancel`: asks it to end, and waits until what it did is taken back.
pub fn cancel(s: &Session, typed: &str) -> Outcome {
    let id = number(typed)?;
    s.client.cancel(typed)?;
    let words = format!("Cancelling operation {id}");
    let awaited = Awaited { id, words, watched: true };
    let ended = progress::waiting(&s.ui, &s.client, &awaited, || s.client.wait(typed))?;
    if s.ui.json {
        s.ui.object(&ended)?;
    }
    match (ended.state.as_str(), &ended.error) {
        ("cancelled", _) => {
            s.ui.say(&format!(
                "`{}` of {} was cancelled, and what it had done was taken back",
                ended.kind,
                subject(&ended)
            ));
            Ok(0)
        }
        ("done", _) => Err(Failure::value(format!("operation {id} was done before it could be cancelled"))),
        (_, Some(_)) => Err(operations::done(ended).map_or_else(Failure::from, |_| Failure::value("it has ended"))),
        (state, None) => Err(Failure::value(format!("operation {id} ended as {state}"))),
    }
}

fn subject(o: &Operation) -> String {
    match o.subject.as_str() {
        "ct" => format!("CT {}", o.name),
        "template" => format!("OS template {}", o.name),
        _ => "this host".into(),
    }
}

fn number(typed: &str) -> Result<OpId, Failure> {
    typed.parse().map_err(|e: vz_types::op::OpIdError| Failure::value(e.to_string()))
}

fn when(millis: u64) -> String {
    utc(millis / 1000).trim_end_matches(" UTC").to_owned()
}

/// How often, where that was more than once.
fn times(o: &Operation) -> String {
    match (o.count, o.ended) {
        (..2, _) | (_, None) => String::new(),
        (count, Some(last)) => format!(" ({count} times, the last at {})", when(last)),
    }
}

/// How long it took, or has taken.
fn seconds(o: &Operation) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let end = o.ended.unwrap_or(u64::try_from(now.as_millis()).unwrap_or_default());
    match o.begun {
        Some(begun) => format!("{:.1} s", end.saturating_sub(begun) as f64 / 1000.0),
        None => "-".into(),
    }
}
