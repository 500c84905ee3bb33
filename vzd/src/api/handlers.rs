//! One function per route: convert, hand to the engine on a thread that may block, convert back.

use super::{
    Refusal, api_error, convert,
    extract::{Body, Name, Options},
};
use crate::{
    check,
    engine::{self, Engine, Extent, Wants},
    template,
};
use axum::{
    Json,
    body::Body as HttpBody,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use std::sync::Arc;
use vz_api::wire;
use vz_types::{Ctid, ExitCode, TemplateName};

pub(super) type Answer<T> = Result<Json<T>, Refusal>;
pub(super) type Shared = State<Arc<Engine>>;

/// Runs `f` where it may block. A client that hangs up does not end it.
pub(super) async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> engine::Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => Ok(result?),
        Err(e) => {
            tracing::error!("an operation panicked: {e}");
            Err(Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                ExitCode::System,
                "vzd failed inside; its log says where",
                "please report it",
            ))
        }
    }
}

/// Runs an operation on the container of the path.
async fn on_ct(
    engine: Arc<Engine>,
    name: String,
    f: impl FnOnce(&Arc<Engine>, Ctid) -> engine::Result<engine::Outcome> + Send + 'static,
) -> Answer<wire::Done> {
    blocking(move || {
        let ctid = engine.resolve(&name)?;
        Ok(Json(convert::done(Some(ctid), f(&engine, ctid)?)))
    })
    .await
}

/// Version and place of this vzd.
#[utoipa::path(get, path = "/v1/version", responses((status = 200, body = wire::Version)))]
pub async fn version(State(engine): Shared) -> Json<wire::Version> {
    Json(wire::Version {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        root: engine.paths.base.display().to_string(),
    })
}

/// What this host can and cannot do.
#[utoipa::path(get, path = "/v1/check", responses((status = 200, body = wire::CheckReport)))]
pub async fn check(State(engine): Shared) -> Answer<wire::CheckReport> {
    blocking(move || Ok(Json(check::report(&engine.paths, &engine.config)))).await
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
pub async fn list(State(engine): Shared, Options(asked): Options<wire::ListRequest>) -> Result<Response, Refusal> {
    let body = blocking(move || {
        let now = convert::Clock::now();
        let named = |name: &str| asked.counters.as_deref().is_none_or(|all| all.split(',').any(|n| n == name));
        let wants = Wants {
            these: asked.ct.as_deref().map(|all| all.split(',').filter_map(|ct| engine.resolve(ct).ok()).collect()),
            extent: if asked.brief { Extent::Brief } else { Extent::Whole },
            disk: asked.disk.unwrap_or(true),
            sockets: named("numtcpsock") || named("numothersock"),
        };
        // Written as each is seen: a thousand with their counters are some megabytes of text, and many times that before.
        let mut body = vec![b'['];
        engine.look_over(&wants, |mut view| {
            if body.len() > 1 {
                body.push(b',');
            }
            view.beans.retain(|b| named(b.ub.name()));
            // Text and numbers always have a JSON form.
            let _ = serde_json::to_writer(&mut body, &convert::info(&engine.paths, view, now));
        })?;
        body.push(b']');
        Ok(body)
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Make a container.
#[utoipa::path(post, path = "/v1/cts", request_body = wire::CreateRequest,
    responses((status = 200, body = wire::Done), (status = "4XX", body = wire::ApiError)))]
pub async fn create(State(engine): Shared, Body(request): Body<wire::CreateRequest>) -> Answer<wire::Done> {
    blocking(move || {
        let spec = convert::create(request)?;
        Ok(Json(convert::done(Some(spec.ctid), engine.create(&spec)?)))
    })
    .await
}

/// One container, by CTID or name.
#[utoipa::path(get, path = "/v1/cts/{ct}", params(("ct" = String, Path, description = "CTID or name")),
    responses((status = 200, body = wire::CtInfo), (status = "4XX", body = wire::ApiError)))]
pub async fn show(State(engine): Shared, Name(ct): Name) -> Answer<wire::CtInfo> {
    blocking(move || {
        let view = engine.show(engine.resolve(&ct)?)?;
        Ok(Json(convert::info(&engine.paths, view, convert::Clock::now())))
    })
    .await
}

/// Change a container.
#[utoipa::path(patch, path = "/v1/cts/{ct}", params(("ct" = String, Path, description = "CTID or name")),
    request_body = wire::SetRequest, responses((status = 200, body = wire::Done), (status = "4XX", body = wire::ApiError)))]
pub async fn set(State(engine): Shared, Name(ct): Name, Body(request): Body<wire::SetRequest>) -> Answer<wire::Done> {
    on_ct(engine, ct, move |engine, ctid| engine.set(ctid, &convert::set(request)?)).await
}

/// Remove a container; its configuration stays as `.destroyed`.
#[utoipa::path(delete, path = "/v1/cts/{ct}", params(("ct" = String, Path, description = "CTID or name")),
    responses((status = 200, body = wire::Done), (status = "4XX", body = wire::ApiError)))]
pub async fn destroy(State(engine): Shared, Name(ct): Name) -> Answer<wire::Done> {
    on_ct(engine, ct, |engine, ctid| engine.destroy(ctid)).await
}

/// Run a container.
#[utoipa::path(post, path = "/v1/cts/{ct}/start", params(("ct" = String, Path, description = "CTID or name")),
    request_body = wire::StartRequest, responses((status = 200, body = wire::Done), (status = "4XX", body = wire::ApiError)))]
pub async fn start(
    State(engine): Shared,
    Name(ct): Name,
    Body(request): Body<wire::StartRequest>,
) -> Answer<wire::Done> {
    let spec = engine::StartSpec { force: request.force, wait: request.wait };
    on_ct(engine, ct, move |engine, ctid| engine.start(ctid, spec)).await
}

/// End a container.
#[utoipa::path(post, path = "/v1/cts/{ct}/stop", params(("ct" = String, Path, description = "CTID or name")),
    request_body = wire::StopRequest, responses((status = 200, body = wire::Done), (status = "4XX", body = wire::ApiError)))]
pub async fn stop(State(engine): Shared, Name(ct): Name, Body(request): Body<wire::StopRequest>) -> Answer<wire::Done> {
    on_ct(engine, ct, move |engine, ctid| engine.stop(ctid, convert::stop(&request)?)).await
}

/// Stop it if it runs, then run it.
#[utoipa::path(post, path = "/v1/cts/{ct}/restart", params(("ct" = String, Path, description = "CTID or name")),
    request_body = wire::RestartRequest, responses((status = 200, body = wire::Done), (status = "4XX", body = wire::ApiError)))]
pub async fn restart(
    State(engine): Shared,
    Name(ct): Name,
    Body(request): Body<wire::RestartRequest>,
) -> Answer<wire::Done> {
    let spec = engine::StartSpec { force: request.force, wait: request.wait };
    on_ct(engine, ct, move |engine, ctid| engine.restart(ctid, spec, request.fast)).await
}

/// Show a stopped container's files on the host.
#[utoipa::path(post, path = "/v1/cts/{ct}/mount", params(("ct" = String, Path, description = "CTID or name")),
    responses((status = 200, body = wire::Done), (status = "4XX", body = wire::ApiError)))]
pub async fn mount(State(engine): Shared, Name(ct): Name) -> Answer<wire::Done> {
    on_ct(engine, ct, |engine, ctid| engine.mount(ctid)).await
}

/// Hide them again.
#[utoipa::path(post, path = "/v1/cts/{ct}/umount", params(("ct" = String, Path, description = "CTID or name")),
    responses((status = 200, body = wire::Done), (status = "4XX", body = wire::ApiError)))]
pub async fn umount(State(engine): Shared, Name(ct): Name) -> Answer<wire::Done> {
    on_ct(engine, ct, |engine, ctid| engine.umount(ctid)).await
}

fn template_name(text: &str) -> engine::Result<TemplateName> {
    text.parse().map_err(|e: vz_types::names::NameError| engine::Error::refused(ExitCode::BadValue, e.to_string(), ""))
}

/// Every OS template there is or can be built.
#[utoipa::path(get, path = "/v1/templates", responses((status = 200, body = Vec<wire::TemplateInfo>)))]
pub async fn templates(State(engine): Shared) -> Answer<Vec<wire::TemplateInfo>> {
    blocking(move || {
        engine.templates.list().into_iter().map(|t| with_users(&engine, t)).collect::<engine::Result<_>>().map(Json)
    })
    .await
}

/// One OS template, with its packages.
#[utoipa::path(get, path = "/v1/templates/{name}", params(("name" = String, Path, description = "OS template")),
    responses((status = 200, body = wire::TemplateInfo), (status = "4XX", body = wire::ApiError)))]
pub async fn template(State(engine): Shared, Name(name): Name) -> Answer<wire::TemplateInfo> {
    blocking(move || {
        let found = engine.templates.show(&template_name(&name)?).map_err(engine::Error::from)?;
        Ok(Json(with_users(&engine, found)?))
    })
    .await
}

fn with_users(engine: &Engine, mut t: wire::TemplateInfo) -> engine::Result<wire::TemplateInfo> {
    if let Ok(name) = t.name.parse() {
        t.used_by = engine.made_from(&name)?.into_iter().map(|(ctid, _)| ctid.get()).collect();
    }
    Ok(t)
}

/// Remove an OS template no container was made from.
#[utoipa::path(delete, path = "/v1/templates/{name}", params(("name" = String, Path, description = "OS template")),
    responses((status = 200, body = wire::Done), (status = "4XX", body = wire::ApiError)))]
pub async fn template_remove(State(engine): Shared, Name(name): Name) -> Answer<wire::Done> {
    blocking(move || {
        let name = template_name(&name)?;
        let users: Vec<Ctid> = engine.made_from(&name)?.into_iter().map(|(ctid, _)| ctid).collect();
        engine.templates.remove(&name, &users)?;
        Ok(Json(convert::done(None, engine::Outcome::say(format!("OS template {name} was removed")))))
    })
    .await
}

/// Build an OS template; the answer is one JSON object per line, the last one `done` or `failed`.
#[utoipa::path(post, path = "/v1/templates/{name}/build", params(("name" = String, Path, description = "OS template")),
    request_body = wire::BuildRequest,
    responses((status = 200, body = wire::BuildEvent, content_type = "application/x-ndjson"), (status = "4XX", body = wire::ApiError)))]
pub async fn template_build(
    State(engine): Shared,
    Name(name): Name,
    Body(request): Body<wire::BuildRequest>,
) -> Result<Response, Refusal> {
    let name = template_name(&name)?;
    Ok(told(engine, name, move |engine, name, tell| engine.templates.build(name, request.rebuild, tell)))
}

/// Make an OS template from the tar archive in the request's body: plain, or compressed with gzip, xz or zstd. The answer
/// is one JSON object per line, the last one `done` or `failed`; it begins while the body is still being read, and a
/// `failed` may come before its end.
#[utoipa::path(post, path = "/v1/templates/{name}/import",
    params(("name" = String, Path, description = "OS template"),
        ("source" = Option<String>, Query, description = "What the archive is called"),
        ("replace" = Option<bool>, Query, description = "Make this the current version of a template that exists"),
        ("skip_devices" = Option<bool>, Query, description = "Leave every device node out"),
        ("description" = Option<String>, Query, description = "One line for `template show`"),
        ("max_size" = Option<u64>, Query, description = "Most bytes the files may have together")),
    request_body(content_type = "application/octet-stream"),
    responses((status = 200, body = wire::BuildEvent, content_type = "application/x-ndjson"), (status = "4XX", body = wire::ApiError)))]
pub async fn template_import(
    State(engine): Shared,
    Name(name): Name,
    Options(request): Options<wire::ImportRequest>,
    http: axum::extract::Request,
) -> Result<Response, Refusal> {
    let name = template_name(&name)?;
    let length = http.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let (bytes, end) = super::upload::start(http.into_body()).map_err(|e| {
        engine::Error::refused(ExitCode::System, format!("no pipe could be made for the archive: {e}"), "")
    })?;
    let upload = template::Upload { bytes, length, end, request };
    Ok(told(engine, name, move |engine, name, tell| engine.templates.import(name, upload, tell)))
}

/// What makes a template and tells how it goes.
type Telling<'a> = &'a mut dyn FnMut(wire::BuildEvent);

/// Runs what makes a template where it may block, and answers with its events as they come.
fn told(
    engine: Arc<Engine>,
    name: TemplateName,
    make: impl FnOnce(&Engine, &TemplateName, Telling<'_>) -> Result<wire::TemplateInfo, template::TemplateError>
    + Send
    + 'static,
) -> Response {
    let (send, receive) = tokio::sync::mpsc::channel::<wire::BuildEvent>(64);
    tokio::task::spawn_blocking(move || {
        let sink = send.clone();
        // A client that hangs up no longer listens; the work goes on and is there for the next one. Log
        // lines a slow client does not take are dropped, stages wait for it.
        let mut tell = move |event: wire::BuildEvent| match event {
            event @ wire::BuildEvent::Log { .. } => drop(sink.try_send(event)),
            event => drop(sink.blocking_send(event)),
        };
        let made = make(&engine, &name, &mut tell).map_err(engine::Error::from);
        let last = made.and_then(|t| with_users(&engine, t)).map_or_else(
            |e| wire::BuildEvent::Failed { error: api_error(&e) },
            |template| wire::BuildEvent::Done { template: Box::new(template) },
        );
        match &last {
            wire::BuildEvent::Failed { error } => {
                tracing::info!(template = name.as_str(), "no template was made: {}", error.message);
            }
            _ => {
                // Not knowing who uses what, nothing is taken away.
                let pruned = engine.made_from(&name).and_then(|users| {
                    let in_use: Vec<String> = users.into_iter().map(|(_, digest)| digest).collect();
                    Ok(engine.templates.prune(&name, &in_use)?)
                });
                if let Err(e) = pruned {
                    tracing::warn!(template = name.as_str(), "old versions: {e}");
                }
            }
        }
        drop(send.blocking_send(last));
    });
    let lines =
        futures::stream::unfold(receive, |mut r| async move { r.recv().await.map(|event| (event, r)) }).map(|event| {
            let mut line = serde_json::to_vec(&event)?;
            line.push(b'\n');
            Ok::<_, serde_json::Error>(line)
        });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], HttpBody::from_stream(lines)).into_response()
}
