//! Routes that only read: convert, look on a thread that may block, convert back.

use super::{
    Refusal, convert,
    extract::{Name, Options},
};
use crate::{
    check,
    ct::outside,
    error::Result as Looked,
    manager::Manager,
    ops::Ops,
    view::{self, Extent, Wants},
};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use std::{sync::Arc, time::Duration};
use vz_api::wire;
use vz_types::{Ctid, ExitCode};

pub(super) type Answer<T> = Result<Json<T>, Refusal>;
pub(super) type Shared = State<Arc<Ops>>;

/// How long one who asks about a container waits for vzd to have put it right after its start.
const SETTLED: Duration = Duration::from_secs(5);

/// Looks where it may block. A client that hangs up does not end it.
pub(super) async fn look<T: Send + 'static>(
    ops: &Ops,
    f: impl FnOnce(&Arc<Manager>) -> Looked<T> + Send + 'static,
) -> Result<T, Refusal> {
    let m = ops.m.clone();
    match ops.pools.look.run(move || f(&m)).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(inside()),
    }
}

/// vzd's own fault.
pub(super) fn inside() -> Refusal {
    Refusal::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        ExitCode::System,
        "vzd failed inside; its log says where",
        "please report it",
    )
}

/// The container of a path.
pub(super) async fn ctid(ops: &Ops, name: String) -> Result<Ctid, Refusal> {
    if let Some(ctid) = view::number(&name) {
        return Ok(ctid?);
    }
    look(ops, move |m| view::resolve(m, &name)).await
}

/// Version and place of this vzd.
#[utoipa::path(get, path = "/v1/version", responses((status = 200, body = wire::Version)))]
pub async fn version(State(ops): Shared) -> Json<wire::Version> {
    Json(wire::Version {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        root: ops.m.paths.base.display().to_string(),
        history_days: ops.m.config.history.days,
    })
}

/// What this host can and cannot do.
#[utoipa::path(get, path = "/v1/check", responses((status = 200, body = wire::CheckReport)))]
pub async fn check(State(ops): Shared) -> Answer<wire::CheckReport> {
    let m = ops.m.clone();
    // It runs a dozen programs: not on a thread that answers lists.
    match ops.pools.work.run(move || with_containers(&m)).await {
        Ok(report) => Ok(Json(report)),
        Err(_) => Err(inside()),
    }
}

fn with_containers(m: &Manager) -> wire::CheckReport {
    let mut report = check::report(&m.paths, &m.config);
    report.items.extend(outside::check(m));
    report
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200)))]
pub async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], super::document()).into_response()
}

/// Every container in CTID order.
#[utoipa::path(get, path = "/v1/cts", params(
    ("brief" = Option<bool>, Query, description = "without counters, limits and parameters: sooner"),
    ("ct" = Option<String>, Query, description = "only these: CTIDs and names with commas between; one that is not there is left out"),
    ("counters" = Option<String>, Query, description = "only these counters, with commas between"),
    ("disk" = Option<bool>, Query, description = "whether to look how full disks are; true without it")),
    responses((status = 200, body = Vec<wire::CtInfo>), (status = "4XX", body = wire::ApiError)))]
pub async fn list(State(ops): Shared, Options(asked): Options<wire::ListRequest>) -> Result<Response, Refusal> {
    let seen = ops.clone();
    let body = look(&ops, move |m| {
        let now = convert::Clock::now();
        let named = |name: &str| asked.counters.as_deref().is_none_or(|all| all.split(',').any(|n| n == name));
        let wants = Wants {
            these: asked.ct.as_deref().map(|all| all.split(',').filter_map(|ct| view::resolve(m, ct).ok()).collect()),
            extent: if asked.brief { Extent::Brief } else { Extent::Whole },
            disk: asked.disk.unwrap_or(true),
            sockets: named("numtcpsock") || named("numothersock"),
        };
        // Written as each is seen: a thousand with their counters are some megabytes of text, and many times that before.
        let mut body = vec![b'['];
        view::look_over(m, &wants, |mut view| {
            if body.len() > 1 {
                body.push(b',');
            }
            view.beans.retain(|b| named(b.ub.name()));
            // Text and numbers always have a JSON form.
            let _ = serde_json::to_writer(&mut body, &convert::info(&seen, view, now));
        })?;
        body.push(b']');
        Ok(body)
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// One container, by CTID or name.
#[utoipa::path(get, path = "/v1/cts/{ct}", params(("ct" = String, Path, description = "CTID or name")),
    responses((status = 200, body = wire::CtInfo), (status = "4XX", body = wire::ApiError)))]
pub async fn show(State(ops): Shared, Name(ct): Name) -> Answer<wire::CtInfo> {
    let ctid = ctid(&ops, ct).await?;
    ops.settled_ct(ctid, SETTLED).await;
    let seen = ops.clone();
    look(&ops, move |m| Ok(Json(convert::info(&seen, view::show(m, ctid)?, convert::Clock::now())))).await
}
