//! Routes about what containers use and what happened to them: why, events, host figures, samples, metrics.

use super::{
    Refusal, convert,
    extract::Name,
    handlers::{Answer, Shared, blocking},
};
use crate::{
    engine::{self, Engine, Extent},
    limits::host,
};
use axum::{
    Json,
    body::Body as HttpBody,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use serde::Deserialize;
use std::{collections::BTreeMap, fmt::Write, sync::Arc, time::Duration};
use vz_api::wire;
use vz_types::ExitCode;

/// How many events `why` tells.
const TOLD: u32 = 50;

/// Why a container is as it is: events, counters at their limits, pressure, and what to change.
#[utoipa::path(get, path = "/v1/cts/{ct}/why", params(("ct" = String, Path, description = "CTID or name")),
    responses((status = 200, body = wire::Why), (status = "4XX", body = wire::ApiError)))]
pub async fn why(State(engine): Shared, Name(ct): Name) -> Answer<wire::Why> {
    blocking(move || {
        let ctid = engine.resolve(&ct)?;
        let view = engine.show(ctid)?;
        let events: Vec<wire::Event> =
            engine.inventory.events(Some(ctid), 0, TOLD)?.into_iter().map(convert::event).collect();
        let counters: Vec<wire::Beancounter> = view.beans.iter().map(convert::bean).filter(in_trouble).collect();
        let advice = advice(ctid.get(), &events, &counters, &view.unenforced);
        let pressure = engine.pressure(ctid).map(|(now, hour, seconds)| {
            let of =
                |p: Option<crate::limits::read::Pressure>| p.map(|p| wire::PressureNow { some: p.some, full: p.full });
            wire::Pressure { cpu: of(now.cpu), memory: of(now.memory), io: of(now.io), hour, seconds }
        });
        Ok(Json(wire::Why {
            ctid: ctid.get(),
            status: view.state.vzlist_word().into(),
            last_exit: view.row.last_exit,
            last_failure: view.row.last_failure,
            events,
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
}

/// Events of all containers or one, oldest first, one JSON object per line.
#[utoipa::path(get, path = "/v1/events", params(
    ("ct" = Option<String>, Query, description = "CTID or name"),
    ("after" = Option<i64>, Query, description = "only events with a higher number"),
    ("follow" = Option<bool>, Query, description = "do not end: go on with what comes")),
    responses((status = 200, body = wire::Event, content_type = "application/x-ndjson"), (status = "4XX", body = wire::ApiError)))]
pub async fn events(
    State(engine): Shared,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(asked) = asked.map_err(|e| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            ExitCode::BadSyntax,
            format!("the query is not understood: {}", e.body_text()),
            "",
        )
    })?;
    let Asked { ct, after, follow } = asked;
    let first = engine.clone();
    let (ct, rows) = blocking(move || {
        let ct = ct.as_deref().map(|ct| first.resolve(ct)).transpose()?;
        Ok((ct, first.inventory.events(ct, after, 10_000)?))
    })
    .await?;
    let (send, receive) = tokio::sync::mpsc::channel::<wire::Event>(64);
    tokio::task::spawn_blocking(move || {
        let mut last = after;
        let mut rows = rows;
        loop {
            for row in std::mem::take(&mut rows) {
                last = last.max(row.id);
                if send.blocking_send(convert::event(row)).is_err() {
                    return;
                }
            }
            if !follow || send.is_closed() || engine.is_quitting() {
                return;
            }
            engine.wait_event(last, Duration::from_secs(2));
            rows = engine.inventory.events(ct, last, 10_000).unwrap_or_default();
        }
    });
    let lines = futures::stream::unfold(receive, |mut r| async move { r.recv().await.map(|e| (e, r)) }).map(|event| {
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(line)
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], HttpBody::from_stream(lines)).into_response())
}

/// What the host has and has promised.
#[utoipa::path(get, path = "/v1/host", responses((status = 200, body = wire::HostFigures)))]
pub async fn host(State(engine): Shared) -> Answer<wire::HostFigures> {
    blocking(move || {
        let size = host::size();
        Ok(Json(wire::HostFigures {
            memory: size.memory,
            available: host::meminfo("MemAvailable"),
            swap: size.swap,
            swap_used: size.swap.saturating_sub(host::meminfo("SwapFree")),
            cpus: size.cpus.len() as u64,
            pids: size.pids,
            promised: engine.promised(None)?,
            reserve: engine.config.limits.reserve.0,
        }))
    })
    .await
}

/// Sample configurations by name, with their text.
#[utoipa::path(get, path = "/v1/samples", responses((status = 200, body = BTreeMap<String, String>)))]
pub async fn samples(State(engine): Shared) -> Answer<BTreeMap<String, String>> {
    blocking(move || Ok(Json(engine.samples()))).await
}

/// Figures of every running container in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, body = String, content_type = "text/plain; version=0.0.4")))]
pub async fn metrics(State(engine): Shared) -> Result<Response, Refusal> {
    let text = blocking(move || exposition(&engine)).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// The exposition format: HELP and TYPE once per metric, then its samples
/// (prometheus.io/docs/instrumenting/exposition_formats).
fn exposition(engine: &Arc<Engine>) -> engine::Result<String> {
    let views = engine.list(Extent::Whole)?;
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, samples: Vec<(String, f64)>| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let up = |v: &engine::View| f64::from(u8::from(v.live.is_some()));
    metric(
        "vz_ct_running",
        "gauge",
        "Whether the container runs.",
        views.iter().map(|v| (format!("{{ctid=\"{}\"}}", v.row.ctid), up(v))).collect(),
    );
    let running: Vec<&engine::View> = views.iter().filter(|v| v.live.is_some()).collect();
    type Pick = fn(&engine::Bean) -> Option<u64>;
    let unlimited = vz_types::limits::Amount::CLASSIC_UNLIMITED;
    let rows: [(&str, &str, &str, Pick); 4] = [
        ("vz_ub_held", "gauge", "Held now, in the counter's unit.", |b| b.known.then_some(b.figures.held)),
        ("vz_ub_maxheld", "gauge", "Held at most since the last reset.", |b| Some(b.figures.maxheld)),
        ("vz_ub_limit", "gauge", "Limit; absent when unlimited.", |b| Some(b.figures.limit)),
        ("vz_ub_failcnt_total", "counter", "Refusals since the last reset.", |b| Some(b.figures.failcnt)),
    ];
    for (name, kind, help, pick) in rows {
        let samples = running.iter().flat_map(|v| v.beans.iter().map(move |b| (v.row.ctid, b)));
        metric(
            name,
            kind,
            help,
            samples
                .filter_map(|(ctid, b)| {
                    let value = pick(b).filter(|n| name != "vz_ub_limit" || *n != unlimited)?;
                    Some((
                        format!(
                            "{{ctid=\"{ctid}\",resource=\"{}\",unit=\"{}\",class=\"{}\"}}",
                            b.ub,
                            b.ub.row().unit.word(),
                            b.class.word()
                        ),
                        value as f64,
                    ))
                })
                .collect(),
        );
    }
    let pressure: Vec<_> = running.iter().filter_map(|v| Some((v.row.ctid, engine.pressure(v.row.ctid)?.0))).collect();
    metric(
        "vz_pressure_seconds_total",
        "counter",
        "Time in which processes waited for a resource.",
        pressure
            .iter()
            .flat_map(|(ctid, p)| {
                [("cpu", p.cpu), ("memory", p.memory), ("io", p.io)]
                    .into_iter()
                    .filter_map(|(r, p)| Some((r, p?)))
                    .flat_map(move |(r, p)| {
                        [("some", p.some_total), ("full", p.full_total)].map(|(k, us)| {
                            (format!("{{ctid=\"{ctid}\",resource=\"{r}\",kind=\"{k}\"}}"), us as f64 / 1e6)
                        })
                    })
            })
            .collect(),
    );
    metric(
        "vz_cpu_throttled_seconds_total",
        "counter",
        "Time processes were held back by cpulimit or cpus.",
        pressure.iter().map(|(ctid, p)| (format!("{{ctid=\"{ctid}\"}}"), p.throttled_us as f64 / 1e6)).collect(),
    );
    let mut kinds: BTreeMap<(u32, String), u64> = BTreeMap::new();
    for e in engine.inventory.events(None, 0, 10_000)? {
        *kinds.entry((e.ctid.get(), e.kind)).or_default() += e.count;
    }
    metric(
        "vz_events",
        "gauge",
        "Events kept, by kind.",
        kinds.into_iter().map(|((ctid, kind), n)| (format!("{{ctid=\"{ctid}\",kind=\"{kind}\"}}"), n as f64)).collect(),
    );
    metric(
        "vz_memory_promised_bytes",
        "gauge",
        "Memory guaranteed to running containers.",
        vec![(String::new(), engine.promised(None)? as f64)],
    );
    Ok(out)
}
