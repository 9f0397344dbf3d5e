//! Health for supervisors and proxies, and metrics for Prometheus.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::http::error::ApiError;
use crate::http::state::AppState;

/// Whether the process runs.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    responses((status = 200, description = "It runs", body = String, content_type = "text/plain")),
)]
pub async fn healthz() -> &'static str {
    "ok"
}

/// Whether the server can do its work: make something durable, and read.
///
/// Trouble at Meta's does not count: webhooks are taken in and kept all the same.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    responses(
        (status = 200, description = "Ready", body = String, content_type = "text/plain"),
        (status = 503, description = "store_unavailable"),
    ),
)]
pub async fn readyz(State(state): State<AppState>) -> Result<&'static str, ApiError> {
    state.store.probe().await?;
    Ok("ready")
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses(
        (
            status = 200,
            description = "Metrics",
            body = String,
            content_type = "application/openmetrics-text",
        ),
        (status = 503, description = "store_unavailable"),
    ),
)]
pub async fn metrics(State(state): State<AppState>) -> Result<impl IntoResponse, ApiError> {
    let figures = state.store.stats().await?;
    for (kind, rows) in [
        ("leads", figures.leads),
        ("events_queued", figures.queued),
        ("events_awaiting_lead", figures.awaiting),
        ("events_dead", figures.dead),
        ("quarantined", figures.quarantined),
        ("unmapped", figures.unmapped),
    ] {
        state.metrics.stored(kind, rows);
    }
    state.metrics.queue_fronts(&figures.fronts);
    if let Some(database) = state.store.database() {
        state.metrics.database_connections(database.connections, database.idle);
        state.metrics.database_statements(database.statements, database.statements_us);
        state.metrics.database_repeats(database.conflicts, database.lost);
    }
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], state.metrics.render()))
}
