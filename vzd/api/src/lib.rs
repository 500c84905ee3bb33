//! The HTTP API of vzd: wire types ([`wire`]) and a blocking client over the Unix socket ([`client`]).
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | GET `/v1/version` | | [`wire::Version`] |
//! | GET `/v1/check` | | [`wire::CheckReport`] |
//! | GET `/v1/openapi.json` | | the OpenAPI document |
//! | GET `/v1/cts` | | `Vec<CtInfo>` in CTID order |
//! | POST `/v1/cts` | [`wire::CreateRequest`] | [`wire::Done`] |
//! | GET `/v1/cts/{ct}` | | [`wire::CtInfo`] |
//! | PATCH `/v1/cts/{ct}` | [`wire::SetRequest`] | [`wire::Done`] |
//! | DELETE `/v1/cts/{ct}` | | [`wire::Done`] |
//! | POST `/v1/cts/{ct}/start` | [`wire::StartRequest`] | [`wire::Done`] |
//! | POST `/v1/cts/{ct}/stop` | [`wire::StopRequest`] | [`wire::Done`] |
//! | POST `/v1/cts/{ct}/restart` | [`wire::RestartRequest`] | [`wire::Done`] |
//! | POST `/v1/cts/{ct}/mount`, `/umount` | | [`wire::Done`] |
//! | GET `/v1/templates` | | `Vec<TemplateInfo>` |
//! | GET `/v1/templates/{name}` | | [`wire::TemplateInfo`] |
//! | DELETE `/v1/templates/{name}` | | [`wire::Done`] |
//! | POST `/v1/templates/{name}/build` | [`wire::BuildRequest`] | NDJSON of [`wire::BuildEvent`] |
//! | POST `/v1/templates/{name}/import` | [`wire::ImportRequest`] in the query string; the archive | NDJSON of [`wire::BuildEvent`] |
//! | GET `/v1/cts/{ct}/boot` | | [`wire::Done`], when it has booted |
//! | GET `/v1/operations` | [`wire::OperationsRequest`] in the query string | `Vec<Operation>`, the newest first |
//! | GET `/v1/operations/{id}` | `?wait=SECONDS` | [`wire::Operation`] |
//! | GET `/v1/operations/{id}/events` | | NDJSON of [`wire::Operation`] as it changes |
//! | DELETE `/v1/operations/{id}` | | [`wire::Operation`]: it is asked to end |
//!
//! Every change takes `?background=true` and the header `vz-operation` with the number it is to have. `{ct}` is a CTID or a name. Every refusal is a 4xx with a [`wire::ApiError`]; a failure of ours is a 5xx with one.

mod body;
pub mod client;
mod operation;
pub mod operations;
mod settings;
mod templates;
pub mod wire;
