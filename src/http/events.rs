//! Looking events up, and sending dead letters after all; and what could not be read.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::domain::ids::EventId;
use crate::http::error::{ApiError, Code};
use crate::http::event_filter::{FilterTexts, read_filter};
use crate::http::extract::{Admin, ApiPath, ApiQuery, Reader};
use crate::http::page::{page_request, show_cursor};
use crate::http::state::AppState;
use crate::http::view::{EventPage, EventView, QuarantinePage, QuarantinedView};
use crate::store::Requeued;

/// Which events to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// `awaiting_lead`, `held`, `pending`, `delivered` or `dead`.
    state: Option<String>,
    /// Dead for this reason.
    reason: Option<String>,
    /// Of a lead of this dataset.
    dataset_id: Option<String>,
    /// Of this lead.
    lead_id: Option<String>,
    /// Whose last attempt Meta answered with this error code.
    code: Option<String>,
    /// Of a lead that was created at this time or later: Unix seconds, or RFC 3339.
    created_from: Option<String>,
    /// Of a lead that was created before this time: Unix seconds, or RFC 3339.
    created_before: Option<String>,
    /// 1 to 200; default 50.
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// 1 to 200; default 50.
    pub(super) limit: Option<String>,
    /// `next_cursor` of the page before.
    pub(super) cursor: Option<String>,
}

fn read_event_id(text: &str) -> Result<EventId, ApiError> {
    EventId::parse(text).map_err(|error| ApiError::new(Code::NotFound, error.to_string()))
}

/// An event with its latest attempts.
#[utoipa::path(
    get,
    path = "/v1/events/{event_id}",
    tag = "events",
    params(("event_id" = String, Path, description = "The event's id")),
    responses(
        (status = 200, description = "The event", body = EventView),
        (status = 404, description = "not_found"),
    ),
    security(("api_key" = [])),
)]
pub async fn get_event(
    _: Reader,
    State(state): State<AppState>,
    ApiPath(event_id): ApiPath,
) -> Result<Json<EventView>, ApiError> {
    let detail = state.store.find_event(read_event_id(&event_id)?).await?;
    let detail = detail.ok_or_else(|| ApiError::new(Code::NotFound, "there is no such event"))?;
    Ok(Json(EventView::full(&detail, state.clock.now())))
}

/// Events, newest first.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    params(EventQuery),
    responses(
        (status = 200, description = "A page of events; with a filter it may be short although \
            there is more, which `next_cursor` tells", body = EventPage),
        (status = 400, description = "invalid_request"),
    ),
    security(("api_key" = [])),
)]
pub async fn list_events(
    _: Reader,
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<EventQuery>,
) -> Result<Json<EventPage>, ApiError> {
    let page = page_request(query.limit.as_deref(), query.cursor.as_deref())?;
    let filter = read_filter(&FilterTexts {
        state: query.state,
        reason: query.reason,
        dataset_id: query.dataset_id,
        lead_id: query.lead_id,
        code: query.code,
        created_from: query.created_from,
        created_before: query.created_before,
    })?;
    let now = state.clock.now();
    let page = state.store.list_events(filter, page, now).await?;
    Ok(Json(EventPage {
        events: page.items.iter().map(|detail| EventView::summary(detail, now)).collect(),
        next_cursor: show_cursor(page.next_cursor),
    }))
}

/// Puts a dead letter back into its queue, with the same event id.
#[utoipa::path(
    post,
    path = "/v1/events/{event_id}/retry",
    tag = "events",
    params(("event_id" = String, Path, description = "The event's id")),
    responses(
        (status = 202, description = "Queued again", body = EventView),
        (status = 200, description = "It is not dead, and nothing changed", body = EventView),
        (status = 404, description = "not_found"),
        (status = 409, description = "not_retriable"),
    ),
    security(("api_key" = [])),
)]
pub async fn retry_event(
    _: Admin,
    State(state): State<AppState>,
    ApiPath(event_id): ApiPath,
) -> Result<(StatusCode, Json<EventView>), ApiError> {
    let event_id = read_event_id(&event_id)?;
    let now = state.clock.now();
    match state.store.requeue(event_id, &state.config.routing, now).await? {
        Requeued::Done(detail, enqueued) => {
            // Committed: the event is in its queue, and no longer dead.
            state.wakers.wake(&enqueued);
            tracing::info!(%event_id, "dead letter queued again");
            Ok((StatusCode::ACCEPTED, Json(EventView::full(&detail, now))))
        }
        Requeued::NotDead(detail) => Ok((StatusCode::OK, Json(EventView::full(&detail, now)))),
        Requeued::Hopeless(detail) => {
            let deliver_before = detail.event.deliver_before().get();
            let problem = ApiError::plain(Code::NotRetriable);
            Err(problem.with("deliver_before", deliver_before))
        }
        Requeued::NotFound => Err(ApiError::new(Code::NotFound, "there is no such event")),
    }
}

/// Pieces of webhooks that were signed and could not be read, newest first.
#[utoipa::path(
    get,
    path = "/v1/quarantine",
    tag = "events",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of pieces", body = QuarantinePage),
        (status = 400, description = "invalid_request"),
    ),
    security(("api_key" = [])),
)]
pub async fn list_quarantine(
    _: Reader,
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<QuarantinePage>, ApiError> {
    let page = page_request(query.limit.as_deref(), query.cursor.as_deref())?;
    let page = state.store.list_quarantine(page).await?;
    Ok(Json(QuarantinePage {
        quarantined: page.items.iter().map(QuarantinedView::of).collect(),
        next_cursor: show_cursor(page.next_cursor),
    }))
}
