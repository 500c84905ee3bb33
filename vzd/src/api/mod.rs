//! The HTTP API: who may ask ([`peer`]), what was asked ([`convert`]), the routes ([`handlers`]), and the
//! socket they are served on ([`server`]). Every answer that is no success is a [`wire::ApiError`].

mod accounts;
mod convert;
mod extract;
mod handlers;
mod openapi;
mod peer;
mod server;
mod upload;

pub use openapi::document;
pub use server::{Listener, serve};

use crate::engine::{self, Engine};
use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use std::sync::Arc;
use vz_api::wire::ApiError;
use vz_types::ExitCode;

/// An answer that is no success.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    error: ApiError,
}

impl Refusal {
    /// With its HTTP status.
    pub fn new(status: StatusCode, code: ExitCode, message: impl Into<String>, hint: &str) -> Self {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        Self { status, error: ApiError { code, message: message.into(), hint } }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.error)).into_response()
    }
}

impl From<engine::Error> for Refusal {
    fn from(e: engine::Error) -> Self {
        Self { status: status_of(e.code()), error: api_error(&e) }
    }
}

/// The wire form of an engine's error.
pub(crate) fn api_error(e: &engine::Error) -> ApiError {
    ApiError { code: e.code(), message: e.report(), hint: e.hint() }
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
pub fn router(engine: Arc<Engine>) -> Router {
    use handlers::*;
    Router::new()
        .route("/v1/version", get(version))
        .route("/v1/check", get(check))
        .route("/v1/openapi.json", get(openapi))
        .route("/v1/cts/{ct}/why", get(accounts::why))
        .route("/v1/events", get(accounts::events))
        .route("/v1/host", get(accounts::host))
        .route("/v1/samples", get(accounts::samples))
        .route("/metrics", get(accounts::metrics))
        .route("/v1/cts", get(list).post(create))
        .route("/v1/cts/{ct}", get(show).patch(set).delete(destroy))
        .route("/v1/cts/{ct}/start", post(start))
        .route("/v1/cts/{ct}/stop", post(stop))
        .route("/v1/cts/{ct}/restart", post(restart))
        .route("/v1/cts/{ct}/mount", post(mount))
        .route("/v1/cts/{ct}/umount", post(umount))
        .route("/v1/templates", get(templates))
        .route("/v1/templates/{name}", get(template).delete(template_remove))
        .route("/v1/templates/{name}/build", post(template_build))
        .route("/v1/templates/{name}/import", post(template_import))
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
        .with_state(engine)
}

#[cfg(test)]
mod tests;
