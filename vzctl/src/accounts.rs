//! `why`, `events`, `metrics` and `samples`: what happened to containers because of limits.

use crate::{
    args::EventsArgs,
    failure::{Failure, Outcome},
    target::Target,
    verbs::Session,
};
use std::time::{Duration, Instant};
use vz_api::{
    client::ClientError,
    wire::{Event, Pressure, PressureNow, Why},
};
use vz_types::{
    ExitCode,
    limits::{Ub, Unit, amount::human},
};

/// `why`.
pub fn why(s: &Session, typed: &str) -> Outcome {
    let target: Target = typed.parse()?;
    let why = s.client.why(&target.to_string())?;
    if s.ui.json {
        s.ui.object(&why)?;
        return Ok(0);
    }
    for line in lines(&why) {
        s.ui.data(&line);
    }
    Ok(0)
}

fn lines(w: &Why) -> Vec<String> {
    let mut out = vec![format!("CT {}: {}", w.ctid, w.status)];
    out.extend(w.last_exit.as_ref().map(|e| format!("last run: {e}")));
    out.extend(w.last_failure.as_ref().map(|e| format!("last failure: {e}")));
    if w.events.is_empty() {
        out.push("Nothing was refused to it, as far as it is on record.".into());
    } else {
        out.push("What happened (UTC):".into());
        out.extend(w.events.iter().map(|e| format!("  {}", event_line(e))));
    }
    if !w.counters.is_empty() {
        out.push("Counters that were refused something or are close to their limit:".into());
    }
    for c in &w.counters {
        let shown = |n: u64| figure(&c.name, n);
        out.push(format!(
            "  {}: held {}, at most {}, limit {}, refused {} times ({})",
            c.name,
            c.held.map_or_else(|| "-".into(), shown),
            shown(c.maxheld),
            shown(c.limit),
            c.failcnt,
            c.class
        ));
    }
    if let Some(p) = &w.pressure {
        out.extend(pressure_lines(p));
    }
    if !w.advice.is_empty() {
        out.push("What to do:".into());
        out.extend(w.advice.iter().map(|a| format!("  {a}")));
    }
    out
}

/// A figure of a counter for people.
pub fn figure(name: &str, n: u64) -> String {
    if n == vz_types::limits::Amount::CLASSIC_UNLIMITED {
        return "unlimited".into();
    }
    match name.parse::<Ub>().map(|u| u.row().unit) {
        Ok(Unit::Pages) => human(n.saturating_mul(vz_types::limits::PAGE)),
        Ok(Unit::Bytes) => human(n),
        _ => n.to_string(),
    }
}

/// The kernel's averages of 10 seconds and 5 minutes up to now, which only one that runs has, and what is on record.
fn pressure_lines(p: &Pressure) -> Vec<String> {
    let now = |n: Option<PressureNow>| n.map_or([None; 2], |p| [Some(p.some[0]), Some(p.some[2])]);
    let running = p.cpu.or(p.memory).or(p.io).is_some();
    // Nothing can be said of no time, nor of what this kernel does not count.
    let record = |n: usize, counted: bool| Some(p.hour[n]).filter(|_| p.seconds > 0 && counted);
    let rows = [
        ("waited for processor time", now(p.cpu), record(0, p.cpu.is_some() || !running)),
        ("waited for memory", now(p.memory), record(1, p.memory.is_some() || !running)),
        ("waited for the disk", now(p.io), record(2, p.io.is_some() || !running)),
        ("were held back by cpulimit", [None; 2], record(3, true)),
    ];
    let figure = |n: Option<f64>| n.map_or_else(|| "-".into(), |n| format!("{n:.1}"));
    let mut out = vec!["Percent of the time in which some of its processes".to_owned()];
    out.push(format!("  {:<28} {:>10} {:>10} {:>10}", "", "last 10 s", "last 5 min", "on record"));
    out.extend(rows.map(|(name, [short, long], record)| {
        format!("  {name:<28} {:>10} {:>10} {:>10}", figure(short), figure(long), figure(record))
    }));
    out.push(format!("  On record: {} of running time within the last hour.", span(p.seconds)));
    out
}

fn span(seconds: u64) -> String {
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
}

fn event_line(e: &Event) -> String {
    let times = if e.count > 1 { format!(" ({} times)", e.count) } else { String::new() };
    let by = e.asker.as_ref().map_or_else(String::new, |a| format!(", by {a}"));
    format!("{:>6}  {}  CT {}  {}: {}{times}{by}", e.id, e.time, e.ctid, e.kind, e.text)
}

/// `events`.
pub fn events(s: &Session, args: &EventsArgs) -> Outcome {
    let ct = match &args.ct {
        Some(typed) => Some(typed.parse::<Target>()?.to_string()),
        None => None,
    };
    let json = s.ui.json;
    let mut last = args.after.unwrap_or(0);
    let mut gone = None::<Instant>;
    loop {
        let asked = Instant::now();
        let told = s.client.events(ct.as_deref(), last, (args.follow, !args.all), |event| {
            last = event.id;
            if json {
                // One object a line: this is a stream.
                if let Ok(text) = serde_json::to_string(event) {
                    s.ui.data(&text);
                }
            } else {
                s.ui.data(&event_line(event));
            }
        });
        match told {
            told if !args.follow => return told.map(|()| 0).map_err(Failure::from),
            // A vzd that is replaced ends the stream; the next one goes on with it.
            Ok(()) | Err(ClientError::Broken { .. } | ClientError::NotRunning { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        // A connection that held meanwhile begins the time anew.
        if asked.elapsed() > AGAIN {
            gone = None;
        }
        let since = *gone.get_or_insert_with(|| {
            s.ui.warn(&format!("vzd went away after event {last}; waiting for it to come back"));
            Instant::now()
        });
        if since.elapsed() > BACK {
            return Err(Failure::new(ExitCode::System, format!("vzd is not back after {} s", BACK.as_secs()))
                .hint(format!("once it runs again, `vzctl events --follow --after {last}` goes on")));
        }
        std::thread::park_timeout(AGAIN);
    }
}

/// How long a stream of events waits for a vzd that went away, and how long between two looks.
const BACK: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(250);

/// `metrics`.
pub fn metrics(s: &Session) -> Outcome {
    s.ui.data(s.client.metrics()?.trim_end());
    Ok(0)
}

/// `samples`.
pub fn samples(s: &Session, name: Option<&str>) -> Outcome {
    let all = s.client.samples()?;
    match name {
        Some(name) => match all.get(name) {
            Some(text) => s.ui.data(text.trim_end()),
            None => {
                return Err(Failure::value(format!("there is no sample configuration {name:?}"))
                    .hint("`vzctl samples` lists them"));
            }
        },
        None if s.ui.json => s.ui.object(&all)?,
        None => all.keys().for_each(|n| s.ui.data(n)),
    }
    Ok(0)
}
