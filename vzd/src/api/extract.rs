//! A request's body, path and query, taken in such that every refusal is a [`Refusal`].

use super::Refusal;
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;
use std::time::Duration;
use vz_types::{ExitCode, OpId};

/// Largest body: a `set` with many keys has some ten kilobytes.
pub const MAX_BODY: usize = 1 << 20;
/// How long a client may take to send it.
const BODY_TIME: Duration = Duration::from_secs(10);

/// A JSON body; an empty one is the type's default.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = match tokio::time::timeout(BODY_TIME, Bytes::from_request(request, state)).await {
            Err(_) => {
                return Err(Refusal::new(
                    StatusCode::REQUEST_TIMEOUT,
                    ExitCode::BadSyntax,
                    "the request's body did not arrive within 10 s",
                    "",
                ));
            }
            Ok(Err(e)) => {
                return Err(Refusal::new(
                    e.status(),
                    ExitCode::BadSyntax,
                    format!("the request's body was refused: {}", e.body_text()),
                    "",
                ));
            }
            Ok(Ok(bytes)) => bytes,
        };
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        serde_json::from_slice(&bytes).map(Self).map_err(|e| {
            let message = format!("the request's body is not what this path takes: {e}");
            Refusal::new(
                StatusCode::BAD_REQUEST,
                ExitCode::BadSyntax,
                message,
                "GET /v1/openapi.json says what each path takes",
            )
        })
    }
}

/// The one parameter in the path.
#[derive(Debug)]
pub struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match axum::extract::Path::<String>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(name)) => Ok(Self(name)),
            Err(e) => Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                ExitCode::BadValue,
                format!("the path is not usable: {}", e.body_text()),
                "",
            )),
        }
    }
}

/// The query string.
#[derive(Debug)]
pub struct Options<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Options<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(options)) => Ok(Self(options)),
            Err(e) => Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                ExitCode::BadSyntax,
                format!("the query string is not what this path takes: {}", e.body_text()),
                "GET /v1/openapi.json says what each path takes",
            )),
        }
    }
}

/// Who asks, and the number they gave what they ask for.
#[derive(Clone, Debug)]
pub struct Asker {
    /// `uid N`.
    pub name: String,
    /// The number of the operation to be, in the header `vz-operation`: a client that loses the connection finds it again.
    pub operation: Option<OpId>,
}

/// The peer of a connection, as the kernel tells it.
#[derive(Clone, Debug)]
pub struct Peer(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let name = parts.extensions.get::<Peer>().map_or_else(|| "unknown".to_owned(), |p| p.0.clone());
        let given = parts.headers.get("vz-operation").map(|v| v.to_str().unwrap_or_default());
        let operation = given.map(str::parse).transpose().map_err(|e: vz_types::op::OpIdError| {
            Refusal::new(StatusCode::BAD_REQUEST, ExitCode::BadSyntax, format!("vz-operation: {e}"), "")
        })?;
        Ok(Self { name, operation })
    }
}
