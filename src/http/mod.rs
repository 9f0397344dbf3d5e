//! The door: Meta's webhook, the REST API, health, metrics and documentation.
//!
//! Handlers convert, call one use case of the store, and convert back. They know no table and no
//! wire format of the Conversions API. The routes below are the table of contents; each takes its
//! method, path and documentation from its handler.

mod alarms;
mod backfill;
pub mod backup;
pub mod body;
mod customer_body;
mod datasets;
mod docs;
pub mod error;
mod event_filter;
mod events;
mod extract;
mod finish;
mod health;
mod hooks;
mod leads;
mod page;
pub mod refused;
mod retry;
pub mod server;
mod sources;
pub(crate) mod stage_body;
mod stages;
pub mod state;
pub mod time;
mod view;
mod webhook;

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::error::{ApiError, Code};
use crate::http::state::AppState;
use crate::limits::{BACKUP_TIMEOUT, REQUEST_TIMEOUT};

fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(docs::general())
        .routes(routes!(webhook::handshake, webhook::deliver))
        .routes(routes!(stages::report_one))
        .routes(routes!(stages::report_batch))
        .routes(routes!(sources::list_sources))
        .routes(routes!(hooks::take_hook))
        .routes(routes!(hooks::take_hook_by_path))
        .routes(routes!(hooks::kept::list_unmapped))
        .routes(routes!(hooks::kept::drop_unmapped))
        .routes(routes!(hooks::kept::replay))
        .routes(routes!(leads::list_leads))
        .routes(routes!(leads::get_lead, leads::erase_lead))
        .routes(routes!(leads::link_crm_id))
        .routes(routes!(events::list_events))
        .routes(routes!(events::get_event))
        .routes(routes!(events::retry_event))
        .routes(routes!(retry::retry_events))
        .routes(routes!(events::list_quarantine))
        .routes(routes!(datasets::list_datasets))
        .routes(routes!(alarms::list_alarms))
        .routes(routes!(backfill::begin_backfill, backfill::get_backfill))
        .routes(routes!(backup::make_backup))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
}

/// The OpenAPI document.
pub fn openapi() -> OpenApi {
    docs::with_problems(routes().split_for_parts().1)
}

/// The whole server as one service.
pub fn router(state: AppState) -> Router {
    let routes = routes().split_for_parts().0;
    routes
        .merge(docs::routes(&openapi()))
        .route("/", get(|| async { Redirect::temporary("/docs") }))
        // Before the fallbacks, which it is not to speak for.
        .route_layer(from_fn(without_query))
        .fallback(|| async { ApiError::plain(Code::NotFound) })
        .method_not_allowed_fallback(|| async { ApiError::plain(Code::MethodNotAllowed) })
        .layer(from_fn(within_time))
        .layer(CatchPanicLayer::custom(|_| {
            tracing::error!("a request panicked");
            ApiError::plain(Code::Internal).into_response()
        }))
        .with_state(state)
}

/// What changes something takes no query: a `dry_run` there would be passed over, and the change
/// made. The address of a hook is the CRM's affair.
async fn without_query(request: Request, next: Next) -> Response {
    let uri = request.uri();
    let path = uri.path();
    let is_hook = path.starts_with("/v1/hooks/") && !path.starts_with("/v1/hooks/unmapped/");
    let is_ours = path.starts_with("/v1/") && !is_hook;
    let has_query = uri.query().is_some_and(|query| !query.is_empty());
    if is_ours && has_query && !matches!(*request.method(), Method::GET | Method::HEAD) {
        let detail = "this takes no query parameters; what it is told stands in its body";
        return ApiError::new(Code::InvalidRequest, detail).into_response();
    }
    next.run(request).await
}

async fn within_time(request: Request, next: Next) -> Response {
    let is_backup = request.uri().path() == backup::PATH;
    let longest = if is_backup { BACKUP_TIMEOUT } else { REQUEST_TIMEOUT };
    match tokio::time::timeout(longest, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::plain(Code::TimedOut).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openapi_document_is_what_was_agreed() {
        insta::assert_snapshot!(openapi().to_pretty_json().unwrap());
    }
}
