//! The OpenAPI document: generated from the handlers and the wire types, served at `/v1/openapi.json` and
//! checked in as `docs/reference/openapi.json`.

use super::{accounts, change, handlers, metrics, operations, template};
use utoipa::OpenApi;
use vz_api::wire;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "vz",
        description = "The API of vzd over its Unix socket. Every answer that is no success is an ApiError."
    ),
    paths(
        handlers::version,
        handlers::check,
        handlers::openapi,
        handlers::list,
        change::create,
        handlers::show,
        change::set,
        change::destroy,
        change::start,
        change::stop,
        change::restart,
        change::mount,
        change::umount,
        change::boot,
        operations::list,
        operations::show,
        operations::events,
        operations::cancel,
        template::templates,
        template::template,
        template::template_remove,
        template::template_build,
        template::template_import,
        accounts::why,
        accounts::events,
        accounts::host,
        accounts::samples,
        metrics::metrics
    ),
    components(schemas(wire::ApiError, wire::BuildEvent))
)]
struct Document;

/// The document, as it is checked in.
pub fn document() -> String {
    // The document is a tree of strings; it always has a JSON form.
    Document::openapi().to_pretty_json().unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checked_in_document_is_the_served_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/openapi.json");
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            there == super::document(),
            "{path} is out of date: write it anew with `vzd openapi > docs/reference/openapi.json`"
        );
    }
}
