//! Routes of OS templates. Building, importing and removing one are operations too: a second client joins a build that is
//! under way.

use super::{
    Refusal, api_error,
    change::{Begun, begun, change},
    extract::{Asker, Body, Name, Options},
    handlers::{Answer, Shared, look},
    operations,
    stream::Form,
    upload::Feed,
};
use crate::{
    error::{Error, Result as Looked},
    manager::Manager,
    ops::{self, Handle},
    template::Upload,
    view,
};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use std::sync::Arc;
use vz_api::wire::{self, BuildEvent};
use vz_types::{ExitCode, TemplateName};

/// How long an import whose archive is there may take to begin before it is left to: others may be before it.
const BEGINS: std::time::Duration = std::time::Duration::from_secs(2);

pub(super) fn name(text: &str) -> Looked<TemplateName> {
    text.parse().map_err(|e: vz_types::names::NameError| Error::refused(ExitCode::BadValue, e.to_string(), ""))
}

/// Every OS template there is or can be built.
#[utoipa::path(get, path = "/v1/templates", responses((status = 200, body = Vec<wire::TemplateInfo>)))]
pub async fn templates(State(ops): Shared) -> Answer<Vec<wire::TemplateInfo>> {
    look(&ops, |m| m.templates.list().into_iter().map(|t| with_users(m, t)).collect::<Looked<_>>().map(Json)).await
}

/// One OS template, with its packages.
#[utoipa::path(get, path = "/v1/templates/{name}", params(("name" = String, Path, description = "OS template")),
    responses((status = 200, body = wire::TemplateInfo), (status = "4XX", body = wire::ApiError)))]
pub async fn template(State(ops): Shared, Name(text): Name) -> Answer<wire::TemplateInfo> {
    look(&ops, move |m| {
        let found = m.templates.show(&name(&text)?)?;
        Ok(Json(with_users(m, found)?))
    })
    .await
}

fn with_users(m: &Manager, mut t: wire::TemplateInfo) -> Looked<wire::TemplateInfo> {
    if let Ok(name) = t.name.parse() {
        t.used_by = view::made_from(m, &name)?.into_iter().map(|(ctid, _)| ctid.get()).collect();
    }
    Ok(t)
}

/// Remove an OS template no container was made from.
#[utoipa::path(delete, path = "/v1/templates/{name}", params(("name" = String, Path, description = "OS template"),
    ("background" = Option<bool>, Query, description = "answer 202 with the operation at once")),
    responses((status = 200, body = wire::Done), (status = 202, body = wire::Operation), (status = "4XX", body = wire::ApiError)))]
pub async fn template_remove(
    State(ops): Shared,
    who: Asker,
    Name(text): Name,
    Options(how): Options<wire::How>,
) -> Result<Response, Refusal> {
    change(&ops, who, how, ops::remove_template(name(&text)?)).await
}

/// Build an OS template; the answer is one JSON object per line, the last one `done` or `failed`. Where it is being built
/// already, that build is followed.
#[utoipa::path(post, path = "/v1/templates/{name}/build", params(("name" = String, Path, description = "OS template"),
    ("background" = Option<bool>, Query, description = "answer 202 with the operation at once")),
    request_body = wire::BuildRequest,
    responses((status = 200, body = wire::BuildEvent, content_type = "application/x-ndjson"), (status = 202, body = wire::Operation), (status = "4XX", body = wire::ApiError)))]
pub async fn template_build(
    State(ops): Shared,
    who: Asker,
    Name(text): Name,
    Options(how): Options<wire::How>,
    Body(request): Body<wire::BuildRequest>,
) -> Result<Response, Refusal> {
    Ok(followed(begun(&ops, who, how, ops::build_template(name(&text)?, request.rebuild)).await?))
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
        ("max_size" = Option<u64>, Query, description = "Most bytes the files may have together"),
        ("background" = Option<bool>, Query, description = "answer 202 with the operation as soon as all of the archive has arrived")),
    request_body(content_type = "application/octet-stream"),
    responses((status = 200, body = wire::BuildEvent, content_type = "application/x-ndjson"), (status = 202, body = wire::Operation), (status = "4XX", body = wire::ApiError)))]
pub async fn template_import(
    State(ops): Shared,
    who: Asker,
    Name(text): Name,
    Options(request): Options<wire::ImportRequest>,
    http: axum::extract::Request,
) -> Result<Response, Refusal> {
    let name = name(&text)?;
    let length = http.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let Feed { bytes, end, over } = super::upload::start(http.into_body())
        .map_err(|e| Error::refused(ExitCode::System, format!("no pipe could be made for the archive: {e}"), ""))?;
    let how = wire::How { background: request.background };
    let upload = Upload { bytes, length, end, request };
    let asked = ops::import_template(name, upload);
    let asked = if how.background { asked.kept() } else { asked };
    // Not answered at once in any case: its client has to send the archive.
    let handle = match begun(&ops, who, wire::How::default(), asked).await? {
        Begun::Waits(handle) if how.background => handle,
        other => return Ok(followed(other)),
    };
    // Until then its client is needed. What is refused before it begins is told to somebody who is still there.
    let begun = async {
        let _ = over.await;
        let mut follow = handle.follow();
        let begins = follow.wait_for(|s| s.begun.is_some());
        let _ = tokio::time::timeout(BEGINS, begins).await;
    };
    let last = tokio::select! {
        () = begun => handle.snapshot(),
        last = handle.ended() => last,
    };
    match last.failure {
        Some(f) => Err(Refusal::from(f).of(handle.id)),
        None => Ok((StatusCode::ACCEPTED, Json(operations::live(&handle))).into_response()),
    }
}

fn followed(begun: Begun) -> Response {
    match begun {
        Begun::Answered(answer) => answer,
        Begun::Waits(handle) => told(handle),
    }
}

/// How a build or an import goes, as it goes. A client that reads slowly misses lines, and holds nobody up.
fn told(handle: Arc<Handle>) -> Response {
    struct Following {
        handle: Arc<Handle>,
        now: tokio::sync::watch::Receiver<crate::ops::Snapshot>,
        lines: Option<tokio::sync::broadcast::Receiver<Arc<str>>>,
        stage: (String, u64),
        over: bool,
    }
    impl Following {
        async fn next(mut self) -> Option<(BuildEvent, Self)> {
            loop {
                if self.over {
                    return None;
                }
                let now = self.now.borrow_and_update().clone();
                // A step that has no measure yet is still at the stage of the one before it.
                let percent = now.progress.as_ref().map_or(self.stage.1, |p| p.done);
                if !now.line.is_empty() && self.stage != (now.line.clone(), percent) {
                    self.stage = (now.line.clone(), percent);
                    let event = BuildEvent::Stage { stage: now.line, percent: u8::try_from(percent).unwrap_or(100) };
                    return Some((event, self));
                }
                if now.state.has_ended() {
                    // Lines that are still on their way come first.
                    if let Some(Ok(line)) = self.lines.as_mut().map(|l| l.try_recv()) {
                        return Some((BuildEvent::Log { line: line.to_string() }, self));
                    }
                    self.over = true;
                    return Some((last(&self.handle, now), self));
                }
                let line = async {
                    loop {
                        match &mut self.lines {
                            None => std::future::pending::<()>().await,
                            Some(lines) => match lines.recv().await {
                                Ok(line) => return line,
                                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                                Err(_) => std::future::pending::<()>().await,
                            },
                        }
                    }
                };
                tokio::select! {
                    line = line => return Some((BuildEvent::Log { line: line.to_string() }, self)),
                    _ = self.now.changed() => {}
                }
            }
        }
    }
    let following =
        Following { now: handle.follow(), lines: handle.lines(), stage: (String::new(), 0), over: false, handle };
    let form = Form::Lines;
    form.answer(stream::unfold(following, move |f| async move {
        let (event, f) = f.next().await?;
        Some((form.write("build", None, &event), f))
    }))
}

fn last(handle: &Handle, now: crate::ops::Snapshot) -> BuildEvent {
    let template = now.result.and_then(|r| serde_json::from_value::<wire::TemplateInfo>(r).ok());
    match (now.failure, template) {
        (None, Some(template)) => BuildEvent::Done { template: Box::new(template) },
        (Some(f), _) => {
            tracing::info!(template = %handle.subject, "no template was made: {}", f.message);
            BuildEvent::Failed { error: api_error(f) }
        }
        (None, None) => BuildEvent::Failed {
            error: api_error(Error::refused(ExitCode::System, "it ended without saying what was made", "").failure()),
        },
    }
}
