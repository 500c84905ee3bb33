//! Operations, as everybody may look at them: listed, waited for, followed, cancelled.

use super::{
    Refusal, api_error,
    extract::{Asker, Name, Options},
    handlers::{Answer, Shared, look},
    stream::Form,
};
use crate::{
    error::Error,
    inventory::{OperationRow, Wanted},
    manager::Manager,
    ops::{Handle, Ops, Snapshot},
    view,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use futures::stream;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use vz_api::wire;
use vz_types::{ExitCode, Fact, OpId, OpState, Subject, op::Failure};

/// Longest that is waited for in one request, in seconds.
const WAIT: u64 = 3600;

/// One that has not ended.
pub(super) fn live(handle: &Handle) -> wire::Operation {
    shown(handle, &handle.snapshot())
}

fn shown(handle: &Handle, now: &Snapshot) -> wire::Operation {
    let (subject, name) = handle.subject.parts();
    wire::Operation {
        id: handle.id.to_string(),
        kind: handle.kind.word().into(),
        subject: subject.into(),
        name,
        ctid: handle.subject.ctid().map(|c| c.get()),
        asker: handle.asker.clone(),
        state: now.state.word().into(),
        step: now.step.into(),
        steps_done: now.steps.0 as u64,
        steps_total: now.steps.1 as u64,
        progress: now.progress.clone(),
        line: now.line.clone(),
        cancellable: now.cancellable && !now.state.has_ended(),
        facts: now.facts.clone(),
        times: times(now.times.clone()),
        error: now.failure.clone().map(api_error),
        asked: handle.asked,
        begun: now.begun,
        ended: now.ended,
        count: 1,
        parts: Vec::new(),
    }
}

fn times(times: Vec<(String, u64)>) -> Vec<wire::StepTime> {
    times.into_iter().map(|(name, us)| wire::StepTime { name, us }).collect()
}

/// What was kept of one.
fn kept(row: OperationRow) -> wire::Operation {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Told {
        facts: Vec<Fact>,
        times: Vec<(String, u64)>,
    }
    // Of another version of ours: what it did is shown, what it told is not.
    let told: Told = serde_json::from_str(&row.told).unwrap_or_default();
    let failure: Option<Failure> = row.error.as_deref().and_then(|e| serde_json::from_str(e).ok());
    let (subject, name) = row.subject.parts();
    wire::Operation {
        id: row.id.to_string(),
        kind: row.kind.word().into(),
        subject: subject.into(),
        name,
        ctid: row.subject.ctid().map(|c| c.get()),
        asker: row.asker,
        state: row.state.word().into(),
        step: row.step,
        steps_done: 0,
        steps_total: 0,
        progress: None,
        line: String::new(),
        cancellable: false,
        facts: told.facts,
        times: times(told.times),
        error: failure.map(api_error),
        asked: row.asked,
        begun: row.begun,
        ended: row.ended,
        count: row.count,
        parts: Vec::new(),
    }
}

/// With who else had a part in each.
fn with_parts(m: &Manager, mut all: Vec<wire::Operation>) -> Result<Vec<wire::Operation>, Error> {
    let one = match all.as_slice() {
        [one] => one.id.parse().ok(),
        _ => None,
    };
    let since = all.iter().map(|o| o.asked).min().unwrap_or_default();
    let mut parts: HashMap<String, Vec<wire::Part>> = HashMap::new();
    for p in m.inventory.parts(one, since)? {
        let number = p.number.map(|n| n.to_string());
        let part = wire::Part { how: p.how, asker: p.asker, at: p.at, number, text: p.text };
        parts.entry(p.operation.to_string()).or_default().push(part);
    }
    for o in &mut all {
        o.parts = parts.remove(&o.id).unwrap_or_default();
    }
    Ok(all)
}

fn number(text: &str) -> Result<OpId, Refusal> {
    text.parse().map_err(|e: vz_types::op::OpIdError| {
        Refusal::new(StatusCode::BAD_REQUEST, ExitCode::BadValue, e.to_string(), "`vzctl operations` shows them")
    })
}

/// Operations, the newest first: those under way, those that have ended and those that were refused, for as many days as
/// `[history] days` of vz.toml says.
#[utoipa::path(get, path = "/v1/operations", params(
    ("ct" = Option<String>, Query, description = "only of this container: CTID or name"),
    ("template" = Option<String>, Query, description = "only of this OS template"),
    ("state" = Option<String>, Query, description = "only in these states, separated by commas; `open`: not ended, or failed with something left to be finished"),
    ("limit" = Option<u32>, Query, description = "the newest so many")),
    responses((status = 200, body = Vec<wire::Operation>), (status = "4XX", body = wire::ApiError)))]
pub async fn list(
    State(ops): Shared,
    Options(asked): Options<wire::OperationsRequest>,
) -> Answer<Vec<wire::Operation>> {
    let seen = ops.clone();
    look(&ops, move |m| {
        let subject = match (&asked.ct, &asked.template) {
            (Some(_), Some(_)) => {
                let hint = "leave `ct` or `template` out";
                return Err(Error::refused(
                    ExitCode::BadSyntax,
                    "an operation is about a container or a template",
                    hint,
                ));
            }
            // Those of a container that is gone are asked for by its CTID.
            (Some(ct), _) => Some(Subject::Ct(match ct.parse() {
                Ok(ctid) => ctid,
                Err(_) => view::resolve(m, ct)?,
            })),
            (None, Some(name)) => Some(Subject::Template(super::template::name(name)?)),
            (None, None) => None,
        };
        let (states, open) = states(asked.state.as_deref().unwrap_or_default())?;
        let most = asked.limit.unwrap_or(1000);
        if !(1..=10_000).contains(&most) {
            return Err(Error::refused(ExitCode::BadValue, format!("limit: {most} is outside 1..10000"), ""));
        }
        let wanted = Wanted { subject: subject.clone(), states: states.clone(), open, most };
        let mut all: BTreeMap<(u64, String), wire::Operation> =
            m.inventory.operations(&wanted)?.into_iter().map(kept).map(|o| ((o.asked, o.id.clone()), o)).collect();
        // What is under way is newer than what is written of it.
        for handle in seen.all_live().iter().filter(|h| !h.kind.is_internal()) {
            let now = handle.snapshot();
            let is = subject.as_ref().is_none_or(|s| *s == handle.subject);
            let key = (handle.asked, handle.id.to_string());
            all.retain(|(_, id), _| *id != key.1);
            let any = states.is_empty() && !open;
            if is && (any || states.contains(&now.state) || open && !now.state.has_ended()) {
                all.insert(key, shown(handle, &now));
            }
        }
        Ok(Json(with_parts(m, all.into_values().rev().take(most as usize).collect())?))
    })
    .await
}

/// The states that are asked for, and whether what has not ended is: a `failed` one that could be neither finished nor
/// taken back is among those.
fn states(text: &str) -> Result<(Vec<OpState>, bool), Error> {
    let (mut out, mut open) = (Vec::new(), false);
    for word in text.split(',').filter(|w| !w.is_empty()) {
        match (word, OpState::of(word)) {
            ("open", _) => open = true,
            (_, Some(state)) => out.push(state),
            (_, None) => {
                let all: Vec<&str> = OpState::ALL.iter().map(|s| s.word()).collect();
                let hint = format!("there are open, {}", all.join(", "));
                return Err(Error::refused(
                    ExitCode::BadValue,
                    format!("there is no state `{word}` of operations"),
                    &hint,
                ));
            }
        }
    }
    Ok((out, open))
}

/// How one is asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wait {
    /// Answer when it has ended, or after so many seconds.
    wait: u64,
}

/// One operation.
#[utoipa::path(get, path = "/v1/operations/{id}", params(("id" = String, Path, description = "its number"),
    ("wait" = Option<u64>, Query, description = "answer when it has ended, or after so many seconds")),
    responses((status = 200, body = wire::Operation), (status = "4XX", body = wire::ApiError)))]
pub async fn show(State(ops): Shared, Name(id): Name, Options(asked): Options<Wait>) -> Answer<wire::Operation> {
    let id = number(&id)?;
    if let Some(handle) = ops.live(id) {
        if asked.wait > 0 {
            let most = Duration::from_secs(asked.wait.min(WAIT));
            let _ = tokio::time::timeout(most, handle.ended()).await;
        }
        let now = live(&handle);
        let with = look(&ops, move |m| Ok(with_parts(m, vec![now])?.pop())).await?;
        return Ok(Json(with.unwrap_or_else(|| live(&handle))));
    }
    Ok(Json(from_inventory(&ops, id).await?))
}

async fn from_inventory(ops: &Ops, id: OpId) -> Result<wire::Operation, Refusal> {
    look(ops, move |m| match m.inventory.operation(id)? {
        Some(row) => with_parts(m, vec![kept(row)])?.pop().ok_or_else(|| m.no_operation(id)),
        None => Err(m.no_operation(id)),
    })
    .await
    .map_err(|r| r.or_absent())
}

/// Follow an operation: its state as it changes, lines of its log, and its end as the last one. A JSON object per line, or
/// server-sent events. Any number of clients may; one that is slow misses some, never the end.
#[utoipa::path(get, path = "/v1/operations/{id}/events", params(("id" = String, Path, description = "its number")),
    responses((status = 200, body = wire::Operation, content_type = "application/x-ndjson"), (status = "4XX", body = wire::ApiError)))]
pub async fn events(State(ops): Shared, Name(id): Name, headers: HeaderMap) -> Result<Response, Refusal> {
    let id = number(&id)?;
    let form = Form::of(&headers);
    let Some(handle) = ops.live(id) else {
        let ended = from_inventory(&ops, id).await?;
        return Ok(form.answer(stream::iter([form.write("end", None, &ended)])));
    };
    let follow = handle.follow();
    let state = (handle, Some(follow), true);
    Ok(form.answer(stream::unfold(state, move |(handle, follow, first)| async move {
        let mut follow = follow?;
        if !first {
            // It cannot be gone: the handle holds it.
            follow.changed().await.ok()?;
        }
        let now = follow.borrow_and_update().clone();
        let ended = now.state.has_ended();
        let chunk = form.write(if ended { "end" } else { "progress" }, None, &shown(&handle, &now));
        Some((chunk, (handle, (!ended).then_some(follow), false)))
    })))
}

/// Cancel an operation: what it has done is taken back, and it ends as `cancelled`.
#[utoipa::path(delete, path = "/v1/operations/{id}", params(("id" = String, Path, description = "its number")),
    responses((status = 202, body = wire::Operation), (status = "4XX", body = wire::ApiError)))]
pub async fn cancel(State(ops): Shared, who: Asker, Name(id): Name) -> Result<Response, Refusal> {
    let id = number(&id)?;
    let of: Arc<Ops> = ops.clone();
    let handle = match ops.pools.look.run(move || of.cancel(id, &who.name)).await {
        Ok(cancelled) => cancelled.map_err(|e| Refusal::from(e).or_absent())?,
        Err(_) => return Err(super::handlers::inside()),
    };
    tracing::info!(id = %id, op = handle.kind.word(), subject = %handle.subject, "is cancelled");
    Ok((StatusCode::ACCEPTED, Json(live(&handle))).into_response())
}
