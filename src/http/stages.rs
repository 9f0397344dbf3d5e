//! Stage updates: a CRM's report that a lead reached a stage, alone or in a batch.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::domain::event::{EventDetail, StageUpdate};
use crate::domain::time::Timestamp;
use crate::http::error::{ApiError, Code};
use crate::http::extract::{JsonBody, Reporter, what_is_wrong};
use crate::http::stage_body::{StageUpdateBody, read_update};
use crate::http::state::AppState;
use crate::limits::{BATCH_BODY_BYTES_MAX, BATCH_UPDATES_MAX, UPDATE_BODY_BYTES_MAX};
use crate::store::UpdateOutcome;

/// What became of a stage update.
#[derive(Debug, Serialize, ToSchema)]
pub struct StageUpdateAnswer {
    /// The event that it became.
    event_id: String,
    /// The lead.
    #[schema(example = "1234567890123456")]
    lead_id: String,
    /// The stage.
    stage: String,
    /// The time that Meta is told, in Unix seconds.
    event_time: i64,
    /// `awaiting_lead`, `held`, `pending`, `delivered` or `dead`.
    state: &'static str,
    /// Whether the time was lifted to one second after the lead's creation.
    adjusted: bool,
    /// The last second at which Meta takes it.
    deliver_before: i64,
}

impl StageUpdateAnswer {
    fn of(detail: &EventDetail, now: Timestamp) -> Self {
        let event = &detail.event;
        Self {
            event_id: event.id().to_string(),
            lead_id: event.lead_id.to_string(),
            stage: event.stage.to_string(),
            event_time: event.event_time.get(),
            state: detail.state(now).name(),
            adjusted: event.is_adjusted(),
            deliver_before: event.deliver_before().get(),
        }
    }
}

/// A batch of stage updates.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchBody {
    /// At most 1,000; each is judged on its own.
    #[schema(value_type = Vec<StageUpdateBody>, max_items = 1000)]
    updates: Vec<Value>,
}

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchAnswer {
    /// In the order of the updates. Each has its `status`: 202 or 200 with the fields of a single
    /// answer, or that of a problem with the fields of a problem.
    #[schema(value_type = Vec<Object>)]
    results: Vec<Value>,
}

/// Takes in one stage update.
#[utoipa::path(
    post,
    path = "/v1/stage-updates",
    tag = "stage updates",
    request_body = StageUpdateBody,
    responses(
        (status = 202, description = "Stored, and on its way", body = StageUpdateAnswer),
        (status = 200, description = "Known already", body = StageUpdateAnswer),
        (status = 400, description = "invalid_request, invalid_lead_id"),
        (status = 404, description = "lead_not_found, of a strict source"),
        (status = 409, description = "idempotency_conflict"),
        (status = 422, description = "event_time_not_after_lead, event_time_too_old, \
            event_time_in_future, lead_is_test, invalid_customer, too_many_events"),
    ),
    security(("api_key" = [])),
)]
pub async fn report_one(
    _: Reporter,
    State(state): State<AppState>,
    JsonBody(body): JsonBody<StageUpdateBody, UPDATE_BODY_BYTES_MAX>,
) -> Result<(StatusCode, Json<StageUpdateAnswer>), ApiError> {
    let now = state.clock.now();
    let update = read_update(body, &state.config).inspect_err(|error| count(&state, error))?;
    let mut outcomes = record(&state, vec![update], now).await?;
    match outcomes.pop() {
        Some(outcome) => answer(&state, outcome)
            .map(|(status, detail)| (status, Json(StageUpdateAnswer::of(&detail, now)))),
        None => Err(ApiError::plain(Code::Internal)),
    }
}

/// Takes in up to 1,000 stage updates, each with a verdict of its own.
#[utoipa::path(
    post,
    path = "/v1/stage-updates/batch",
    tag = "stage updates",
    request_body = BatchBody,
    responses(
        (status = 200, description = "A verdict for each update", body = BatchAnswer),
        (status = 400, description = "invalid_request: the batch itself can't be understood"),
        (status = 503, description = "store_unavailable, overloaded, timed_out: nothing of the \
            batch was stored, but after timed_out it may have been"),
    ),
    security(("api_key" = [])),
)]
pub async fn report_batch(
    _: Reporter,
    State(state): State<AppState>,
    JsonBody(batch): JsonBody<BatchBody, BATCH_BODY_BYTES_MAX>,
) -> Result<Json<BatchAnswer>, ApiError> {
    if batch.updates.len() > BATCH_UPDATES_MAX {
        let detail = format!("a batch has at most {BATCH_UPDATES_MAX} updates");
        return Err(ApiError::new(Code::PayloadTooLarge, detail));
    }
    let now = state.clock.now();
    let read: Vec<Result<StageUpdate, ApiError>> = batch
        .updates
        .into_iter()
        .map(|update| {
            if !update.is_object() {
                return Err(ApiError::new(Code::InvalidRequest, "an update must be an object"));
            }
            let body = serde_json::from_value(update)
                .map_err(|error| ApiError::new(Code::InvalidRequest, what_is_wrong(&error)))?;
            read_update(body, &state.config)
        })
        .collect();
    Ok(Json(BatchAnswer { results: verdicts(&state, read, now).await? }))
}

/// Records the updates that could be read, and answers all of them in order, as a batch does.
///
/// # Errors
/// The store failed; nothing of them was stored.
pub(super) async fn verdicts(
    state: &AppState,
    read: Vec<Result<StageUpdate, ApiError>>,
    now: Timestamp,
) -> Result<Vec<Value>, ApiError> {
    let good = read.iter().filter_map(|update| update.as_ref().ok().cloned()).collect();
    let mut outcomes = record(state, good, now).await?.into_iter();
    let results = read.into_iter().map(|update| {
        let outcome = update.inspect_err(|error| count(state, error)).and_then(|_| {
            let outcome = outcomes.next().ok_or_else(|| ApiError::plain(Code::Internal))?;
            answer(state, outcome)
        });
        match outcome {
            Ok((status, detail)) => with_status(status, &StageUpdateAnswer::of(&detail, now)),
            Err(problem) => problem.to_json(),
        }
    });
    Ok(results.collect())
}

async fn record(
    state: &AppState,
    updates: Vec<StageUpdate>,
    now: Timestamp,
) -> Result<Vec<UpdateOutcome>, ApiError> {
    if updates.is_empty() {
        return Ok(Vec::new());
    }
    let state = state.clone();
    // Whoever hangs up now has reported all the same: the rest is done without them.
    let recording = tokio::spawn(async move {
        let recorded =
            state.store.record_stage_updates(updates, &state.config.routing, now).await?;
        // Committed: the CRM may repeat what it got no answer to, and gets this answer again.
        state.wakers.wake(&recorded.enqueued);
        Ok(recorded.outcomes)
    });
    recording.await.map_err(|_| ApiError::plain(Code::Internal))?
}

fn answer(state: &AppState, outcome: UpdateOutcome) -> Result<(StatusCode, EventDetail), ApiError> {
    match outcome {
        UpdateOutcome::Accepted(detail) => {
            state.metrics.stage_update("accepted");
            Ok((StatusCode::ACCEPTED, detail))
        }
        UpdateOutcome::Known(detail) => {
            state.metrics.stage_update("known");
            Ok((StatusCode::OK, detail))
        }
        UpdateOutcome::Refused(refusal) => {
            let error = ApiError::from(refusal);
            count(state, &error);
            Err(error)
        }
    }
}

fn count(state: &AppState, error: &ApiError) {
    state.metrics.stage_update(error.code().name());
}

fn with_status(status: StatusCode, answer: &StageUpdateAnswer) -> Value {
    let mut result = Map::from_iter([("status".to_owned(), status.as_u16().into())]);
    if let Ok(Value::Object(fields)) = serde_json::to_value(answer) {
        result.extend(fields);
    }
    Value::Object(result)
}
