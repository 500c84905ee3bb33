//! Answers that come bit by bit: a JSON object per line, or server-sent events for those who accept them (HTML Living
//! Standard, 9.2).

use axum::{
    body::Body,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt};
use serde::Serialize;

/// How the client wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A JSON object per line.
    Lines,
    /// Server-sent events.
    Events,
}

impl Form {
    /// What the request accepts.
    pub fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok()).unwrap_or_default();
        if accept.contains("text/event-stream") { Self::Events } else { Self::Lines }
    }

    /// One object; `kind` and `id` are for events.
    pub fn write(self, kind: &str, id: Option<i64>, value: &impl Serialize) -> Vec<u8> {
        // A structure of ours always has a JSON form, without line breaks.
        let json = serde_json::to_string(value).unwrap_or_default();
        match self {
            Self::Lines => format!("{json}\n").into_bytes(),
            Self::Events => {
                let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
                format!("event: {kind}\n{id}data: {json}\n\n").into_bytes()
            }
        }
    }

    /// The answer that carries them.
    pub fn answer(self, chunks: impl Stream<Item = Vec<u8>> + Send + 'static) -> Response {
        let kind = match self {
            Self::Lines => "application/x-ndjson",
            Self::Events => "text/event-stream",
        };
        let body = Body::from_stream(chunks.map(Ok::<_, std::convert::Infallible>));
        ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-store")], body).into_response()
    }
}
