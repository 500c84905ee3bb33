//! Routes about what containers use and what happened to them: why, events, host figures, samples.

use super::{
    Refusal, convert,
    extract::{Name, Options},
    handlers::{Answer, Shared, ctid, look},
    stream::Form,
};
use crate::{
    accounts,
    ct::{limits, samples as plans},
    limits::host,
    view,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use futures::stream;
use serde::Deserialize;
use std::{collections::BTreeMap, collections::VecDeque, time::Duration};
use vz_api::wire;
use vz_types::ExitCode;

/// How many events `why` tells.
const TOLD: u32 = 50;

/// Why a container is as it is: events, counters at their limits, pressure, and what to change.
#[utoipa::path(get, path = "/v1/cts/{ct}/why", params(("ct" = String, Path, description = "CTID or name")),
    responses((status = 200, body = wire::Why), (status = "4XX", body = wire::ApiError)))]
pub async fn why(State(ops): Shared, Name(ct): Name) -> Answer<wire::Why> {
    let ctid = ctid(&ops, ct).await?;
    look(&ops, move |m| {
        let view = view::show(m, ctid)?;
        let events = m.inventory.events(Some(ctid), 0, TOLD)?;
        let limits: Vec<wire::Event> = events.into_iter().filter(|e| e.is_limit()).map(convert::event).collect();
        let counters: Vec<wire::Beancounter> = view.beans.iter().map(convert::bean).filter(in_trouble).collect();
        let mut advice = advice(ctid.get(), &limits, &counters, &view.unenforced);
        if let Some(t) = &view.trouble {
            advice.insert(0, format!("it is {}: {}", view.state.word(), t.cause));
        }
        if view.read_only {
            advice.insert(0, accounts::read_only_advice(m, &view.row));
        }
        let pressure = accounts::pressure(m, ctid).map(|(now, hour, seconds)| {
            let of =
                |p: Option<crate::limits::read::Pressure>| p.map(|p| wire::PressureNow { some: p.some, full: p.full });
            wire::Pressure { cpu: of(now.cpu), memory: of(now.memory), io: of(now.io), hour, seconds }
        });
        Ok(Json(wire::Why {
            ctid: ctid.get(),
            status: view.state.vzlist_word().into(),
            last_exit: view.row.last_exit,
            last_failure: view.row.last_failure,
            events: limits,
            counters,
            pressure,
            advice,
        }))
    })
    .await
}

/// Refused something, or nine tenths of its limit are held.
fn in_trouble(b: &wire::Beancounter) -> bool {
    let close = b.limit > 0 && b.held.is_some_and(|h| u128::from(h) * 10 >= u128::from(b.limit) * 9);
    b.failcnt > 0 || close
}

/// What to change, a sentence for each counter that events or fail counts point at.
fn advice(
    ctid: u32,
    events: &[wire::Event],
    counters: &[wire::Beancounter],
    unenforced: &[(String, String)],
) -> Vec<String> {
    const ROWS: &[(&str, &str)] = &[
        (
            "physpages",
            "give it more memory: `vzctl set {} --ram SIZE --save`, or have the program that was killed use less",
        ),
        ("swappages", "give it more swap space: `vzctl set {} --swap SIZE --save`"),
        (
            "numproc",
            "look for what starts so many processes (`vzctl exec {} ps axf`), or allow more: `vzctl set {} --numproc N --save`",
        ),
        (
            "numtcpsock",
            "look at its connections (`vzctl exec {} ss -tan`), or allow more: `vzctl set {} --numtcpsock N --save`",
        ),
        (
            "numothersock",
            "look at its sockets (`vzctl exec {} ss -uawn`), or allow more: `vzctl set {} --numothersock N --save`",
        ),
        ("cpulimit", "it wants more processor time than it may have: `vzctl set {} --cpulimit PERCENT --save`"),
        ("diskspace", "remove files inside, or give it more: `vzctl set {} --diskspace SIZE --save`"),
        ("diskinodes", "remove files inside, or give it more: `vzctl set {} --diskinodes N --save`"),
    ];
    let named = |name: &str| {
        events.iter().any(|e| e.counter.as_deref() == Some(name)) || counters.iter().any(|c| c.name == name)
    };
    let mut out: Vec<String> = ROWS
        .iter()
        .filter(|(name, _)| named(name))
        .map(|(name, text)| format!("{name}: {}", text.replace("{}", &ctid.to_string())))
        .collect();
    out.extend(unenforced.iter().map(|(name, reason)| format!("{name} is unenforced on this host: {reason}")));
    out
}

/// What is asked of the events.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Asked {
    /// CTID or name; all without it.
    ct: Option<String>,
    /// Only those with a higher number.
    after: i64,
    /// Go on with those to come.
    follow: bool,
    /// Only those about limits, without changes of state.
    limits: bool,
}

/// Events of all containers or one, oldest first, one JSON object per line.
#[utoipa::path(get, path = "/v1/events", params(
    ("ct" = Option<String>, Query, description = "CTID or name"),
    ("after" = Option<i64>, Query, description = "only events with a higher number"),
    ("Last-Event-ID" = Option<i64>, Header, description = "the same, as server-sent events say it; the higher of both counts"),
    ("follow" = Option<bool>, Query, description = "do not end: go on with what comes"),
    ("limits" = Option<bool>, Query, description = "only what is about limits, without changes of state")),
    responses((status = 200, body = wire::Event, content_type = "application/x-ndjson"), (status = "4XX", body = wire::ApiError)))]
pub async fn events(
    State(ops): Shared,
    Options(asked): Options<Asked>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Asked { ct, after, follow, limits } = asked;
    let ct = match ct {
        // Events of a container that is gone are asked for by its CTID.
        Some(ct) => Some(match ct.parse() {
            Ok(number) => number,
            Err(_) => ctid(&ops, ct).await?,
        }),
        None => None,
    };
    let form = Form::of(&headers);
    // What server-sent events say when they are taken up again.
    let last = match headers.get("last-event-id") {
        None => 0,
        Some(text) => text.to_str().ok().and_then(|t| t.trim().parse().ok()).ok_or_else(|| {
            let message = "the header Last-Event-ID is no number of an event";
            Refusal::new(StatusCode::BAD_REQUEST, ExitCode::BadValue, message, "leave it out to get all of them")
        })?,
    };
    let after = after.max(last);
    let newest = ops.m.newest_event();
    let rows = look(&ops, move |m| Ok(m.inventory.events(ct, after, MOST)?)).await?;
    let state = (ops, newest, VecDeque::from(rows), after);
    Ok(form.answer(stream::unfold(state, move |(ops, mut newest, mut rows, mut last)| async move {
        loop {
            if let Some(row) = rows.pop_front() {
                last = last.max(row.id);
                if limits && !row.is_limit() {
                    continue;
                }
                let event = convert::event(row);
                return Some((form.write(&event.kind, Some(event.id), &event), (ops, newest, rows, last)));
            }
            if !follow || ops.m.is_quitting() {
                return None;
            }
            let _ = tokio::time::timeout(QUIET, newest.wait_for(|id| *id > last)).await;
            // An event that has happened again has its old number: those are not told twice.
            rows = look(&ops, move |m| Ok(m.inventory.events(ct, last, MOST)?)).await.unwrap_or_default().into();
        }
    })))
}

/// Events told at once.
const MOST: u32 = 10_000;
/// A follower is looked after at least so often: vzd may be ending.
const QUIET: Duration = Duration::from_secs(2);

/// What the host has and has promised.
#[utoipa::path(get, path = "/v1/host", responses((status = 200, body = wire::HostFigures)))]
pub async fn host(State(ops): Shared) -> Answer<wire::HostFigures> {
    look(&ops, move |m| {
        let size = host::size();
        let [available, swap_free] = host::meminfo(["MemAvailable", "SwapFree"]);
        Ok(Json(wire::HostFigures {
            memory: size.memory,
            available,
            swap: size.swap,
            swap_used: size.swap.saturating_sub(swap_free),
            cpus: size.cpus.len() as u64,
            pids: size.pids,
            promised: limits::promised(m, None)?,
            reserve: m.config.limits.reserve.0,
        }))
    })
    .await
}

/// Sample configurations by name, with their text.
#[utoipa::path(get, path = "/v1/samples", responses((status = 200, body = BTreeMap<String, String>)))]
pub async fn samples(State(ops): Shared) -> Answer<BTreeMap<String, String>> {
    look(&ops, |m| Ok(Json(plans::all(m)))).await
}
