//! The HTTP API: who may ask ([`peer`]), what was asked ([`convert`]), changes of containers ([`change`]), of templates
//! ([`template`]), operations ([`operations`]) and what only reads ([`handlers`], [`accounts`]), and the socket they are
//! served on ([`server`]). Every answer that is no success is a [`wire::ApiError`]. Nothing here waits on a thread.

mod accounts;
mod change;
mod convert;
mod extract;
mod handlers;
mod metrics;
mod openapi;
mod operations;
mod peer;
mod server;
mod stream;
mod template;
mod upload;

pub use openapi::document;
pub use server::{Listener, serve};

use crate::{error::Error, ops::Ops};
use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use std::sync::Arc;
use vz_api::wire::ApiError;
use vz_types::{ExitCode, OpId, Reason, op::Failure};

/// An answer that is no success.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    error: Box<ApiError>,
}

impl Refusal {
    /// With its HTTP status.
    pub fn new(status: StatusCode, code: ExitCode, message: impl Into<String>, hint: &str) -> Self {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        let error = ApiError { code, message: message.into(), hint, reason: None, operation: None };
        Self { status, error: Box::new(error) }
    }
}

impl Refusal {
    /// The same, of this operation.
    pub(crate) fn of(mut self, operation: OpId) -> Self {
        self.error.operation = Some(operation.to_string());
        self
    }

    /// An operation nobody knows is not found, and one that has ended is past asking.
    pub(crate) fn or_absent(mut self) -> Self {
        match self.error.reason {
            Some(Reason::NoOperation { .. }) => self.status = StatusCode::NOT_FOUND,
            Some(Reason::HasEnded { .. }) => self.status = StatusCode::CONFLICT,
            _ => {}
        }
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.error)).into_response()
    }
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Self {
        e.failure().into()
    }
}

impl From<Failure> for Refusal {
    fn from(f: Failure) -> Self {
        Self { status: status_of(f.code), error: Box::new(api_error(f)) }
    }
}

/// The wire form of a failure.
pub(crate) fn api_error(f: Failure) -> ApiError {
    ApiError { code: f.code, message: f.message, hint: f.hint, reason: f.reason, operation: None }
}

/// HTTP status of an exit code: ours are 5xx, the operator's and the container's state's are 4xx.
fn status_of(code: ExitCode) -> StatusCode {
    use ExitCode::*;
    match code {
        NoConfig | NoTemplate => StatusCode::NOT_FOUND,
        BadSyntax | BadValue | BadHostname | BadIp | BadDns | OsTemplateUnset => StatusCode::BAD_REQUEST,
        Locked | Exists | Running | NotRunning | Mounted | NotMounted | Disabled | IpInUse | SetName => {
            StatusCode::CONFLICT
        }
        BadConfig | BadTemplate | NoPrivateArea | PasswordFailed => StatusCode::UNPROCESSABLE_ENTITY,
        NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Every route.
pub fn router(ops: Arc<Ops>) -> Router {
    use change::*;
    use handlers::*;
    Router::new()
        .route("/v1/version", get(version))
        .route("/v1/check", get(check))
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/cts/{ct}/why", get(accounts::why))
        .route("/v1/events", get(accounts::events))
        .route("/v1/host", get(accounts::host))
        .route("/v1/samples", get(accounts::samples))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/cts", get(list).post(create))
        .route("/v1/cts/{ct}", get(show).patch(set).delete(destroy))
        .route("/v1/cts/{ct}/start", post(start))
        .route("/v1/cts/{ct}/stop", post(stop))
        .route("/v1/cts/{ct}/restart", post(restart))
        .route("/v1/cts/{ct}/mount", post(mount))
        .route("/v1/cts/{ct}/umount", post(umount))
        .route("/v1/cts/{ct}/boot", get(boot))
        .route("/v1/operations", get(operations::list))
        .route("/v1/operations/{id}", get(operations::show).delete(operations::cancel))
        .route("/v1/operations/{id}/events", get(operations::events))
        .route("/v1/templates", get(template::templates))
        .route("/v1/templates/{name}", get(template::template).delete(template::template_remove))
        .route("/v1/templates/{name}/build", post(template::template_build))
        .route("/v1/templates/{name}/import", post(template::template_import))
        .fallback(|uri: axum::http::Uri| async move {
            Refusal::new(
                StatusCode::NOT_FOUND,
                ExitCode::BadSyntax,
                format!("there is nothing at {}", uri.path()),
                "GET /v1/openapi.json lists every path",
            )
        })
        .method_not_allowed_fallback(|method: axum::http::Method, uri: axum::http::Uri| async move {
            let message = format!("{method} is not a method of {}", uri.path());
            Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                ExitCode::BadSyntax,
                message,
                "GET /v1/openapi.json lists every path with its methods",
            )
        })
        .layer(axum::extract::DefaultBodyLimit::max(extract::MAX_BODY))
        .with_state(ops)
}

#[cfg(test)]
mod tests;
