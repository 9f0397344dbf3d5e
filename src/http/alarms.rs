//! The alarms that wait for their receiver.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::alarm::message::Data;
use crate::clock::rfc3339;
use crate::domain::alarm::Alarm;
use crate::http::error::ApiError;
use crate::http::extract::Reader;
use crate::http::state::AppState;
use crate::limits::PAGE_MAX;

/// An alarm that waits.
#[derive(Serialize, ToSchema)]
pub struct AlarmView {
    /// The `webhook-id` of its message.
    webhook_id: String,
    /// The `type` of its message.
    r#type: &'static str,
    /// How often it was tried.
    tries: u32,
    /// When it is tried again; null if it was not tried yet.
    next_try_at: Option<String>,
    /// The `data` of its message; more is added to it until it is tried.
    #[schema(value_type = Object)]
    data: Data,
}

impl AlarmView {
    fn of(alarm: &Alarm) -> Self {
        let is_tried = !alarm.is_gathering();
        Self {
            webhook_id: alarm.id(),
            r#type: alarm.cause.subject.kind().name(),
            tries: alarm.tries,
            next_try_at: is_tried.then(|| rfc3339(alarm.next_try_at)),
            data: Data::of(alarm),
        }
    }
}

/// The alarms that wait for their receiver.
#[derive(Serialize, ToSchema)]
pub struct AlarmList {
    /// Whether a receiver is configured; without one no alarm waits.
    configured: bool,
    /// How many wait.
    waiting: usize,
    /// Those that wait longest, 200 at most.
    alarms: Vec<AlarmView>,
}

/// Alarms that did not arrive yet, oldest first.
#[utoipa::path(
    get,
    path = "/v1/alarms",
    tag = "alarms",
    responses((status = 200, description = "The alarms that wait", body = AlarmList)),
    security(("api_key" = [])),
)]
pub async fn list_alarms(
    _: Reader,
    State(state): State<AppState>,
) -> Result<Json<AlarmList>, ApiError> {
    let mut waiting = state.store.alarms().await?.waiting;
    waiting.sort_by_key(|alarm| alarm.first_at);
    Ok(Json(AlarmList {
        configured: state.config.alarms.receiver.is_some(),
        waiting: waiting.len(),
        alarms: waiting.iter().take(PAGE_MAX).map(AlarmView::of).collect(),
    }))
}
