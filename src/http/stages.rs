//! Stage updates: a CRM's report that a lead reached a stage, alone or in a batch.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::domain::customer::LeftOut;
use crate::domain::event::{StageUpdate, Standing};
use crate::domain::ids::LeadId;
use crate::domain::intake::Refusal;
use crate::domain::matching::MatchedBy;
use crate::domain::time::Timestamp;
use crate::http::customer_body::LeftOutView;
use crate::http::error::{ApiError, Code};
use crate::http::extract::{JsonBody, Reporter, what_is_wrong};
use crate::http::finish::Finish;
use crate::http::stage_body::{ReadUpdate, StageUpdateBody, read_update};
use crate::http::state::AppState;
use crate::limits::{BATCH_BODY_BYTES_MAX, BATCH_UPDATES_MAX, UPDATE_BODY_BYTES_MAX};
use crate::store::{Judged, UpdateOutcome};

/// What became of a stage update.
#[derive(Debug, Serialize, ToSchema)]
pub struct StageUpdateAnswer {
    /// The event that it became.
    event_id: String,
    /// The lead; null while it is not known which one that is.
    #[schema(example = "1234567890123456")]
    lead_id: Option<String>,
    /// What the lead was found by: `lead_id`, `crm_id`, `email` or `phone`; null while it is not
    /// known.
    matched_by: Option<&'static str>,
    /// The lead that the CRM's own id belonged to until now; only there if it was another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_lead_id: Option<String>,
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
    /// Earlier stages of the funnel that the lead was never reported to reach.
    missing_stages: Vec<String>,
    /// Earlier stages that were skipped and that leadloop reports with this one.
    filled_stages: Vec<String>,
    /// Customer values of this report that are not sent; empty if all of them are.
    left_out: Vec<LeftOutView>,
}

impl StageUpdateAnswer {
    fn of(judged: &Judged, left_out: Vec<LeftOut>, now: Timestamp) -> Self {
        let Judged { detail, matched_by, previous_lead_id, skipped } = judged;
        let event = &detail.event;
        Self {
            event_id: event.id().to_string(),
            lead_id: event.lead_id.metas().map(|lead_id| lead_id.to_string()),
            matched_by: matched_by.map(MatchedBy::name),
            previous_lead_id: previous_lead_id.map(|lead_id| lead_id.to_string()),
            stage: event.stage.to_string(),
            event_time: event.event_time.get(),
            state: detail.state(now).name(),
            adjusted: event.is_adjusted(),
            deliver_before: event.deliver_before().get(),
            missing_stages: skipped.missing.iter().map(ToString::to_string).collect(),
            filled_stages: skipped.filled.iter().map(|(stage, _)| stage.to_string()).collect(),
            left_out: left_out.into_iter().map(LeftOutView::from).collect(),
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
    /// Whether to judge only, and to store nothing; each update is judged as if it were alone.
    #[serde(default)]
    dry_run: bool,
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
        (status = 409, description = "idempotency_conflict; ambiguous_match, of a source that \
            wants it"),
        (status = 422, description = "event_time_not_after_lead, event_time_too_old, \
            event_time_in_future, lead_is_test, invalid_customer, customer_insufficient, \
            too_many_events"),
    ),
    security(("api_key" = [])),
)]
pub async fn report_one(
    _: Reporter,
    State(state): State<AppState>,
    JsonBody(body): JsonBody<StageUpdateBody, UPDATE_BODY_BYTES_MAX>,
) -> Result<(StatusCode, Json<StageUpdateAnswer>), ApiError> {
    let now = state.clock.now();
    let verdict = report(&state, body, now).await;
    count(&state, &verdict);
    verdict.map(|(status, answer)| (status, Json(answer)))
}

/// What an update is answered with.
type Verdict = Result<(StatusCode, StageUpdateAnswer), ApiError>;

async fn report(state: &AppState, body: StageUpdateBody, now: Timestamp) -> Verdict {
    let ReadUpdate { update, left_out } = read_update(body, &state.config, now)?;
    let outcome = record(state, vec![update], now).await?.pop();
    answer(outcome, left_out, now)
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
    let read: Vec<Result<ReadUpdate, ApiError>> = batch
        .updates
        .into_iter()
        .map(|update| {
            if !update.is_object() {
                return Err(ApiError::new(Code::InvalidRequest, "an update must be an object"));
            }
            let body = serde_json::from_value(update)
                .map_err(|error| ApiError::new(Code::InvalidRequest, what_is_wrong(&error)))?;
            read_update(body, &state.config, now)
        })
        .collect();
    let dry_run = batch.dry_run;
    Ok(Json(BatchAnswer { results: verdicts(&state, read, dry_run, now).await? }))
}

/// Records the updates that could be read, or only judges them, and answers all of them in order,
/// as a batch does.
///
/// # Errors
/// The store failed; nothing of them was stored.
pub(super) async fn verdicts(
    state: &AppState,
    read: Vec<Result<ReadUpdate, ApiError>>,
    dry_run: bool,
    now: Timestamp,
) -> Result<Vec<Value>, ApiError> {
    let good = read.iter().flatten().map(|read| read.update.clone()).collect();
    let mut outcomes = if dry_run {
        state.store.judge_stage_updates(good, &state.config.routing, now).await?.into_iter()
    } else {
        record(state, good, now).await?.into_iter()
    };
    let results = read.into_iter().map(|read| {
        let verdict = read.and_then(|read| answer(outcomes.next(), read.left_out, now));
        if !dry_run {
            count(state, &verdict);
        }
        match verdict {
            Ok((status, answer)) => with_status(status, &answer),
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
    let recording = Finish::new(async move {
        let named: Vec<Option<LeadId>> = updates.iter().map(|it| it.lead.lead_id).collect();
        let recorded =
            state.store.record_stage_updates(updates, &state.config.routing, now).await?;
        // Committed: the CRM may repeat what it got no answer to, and gets this answer again.
        state.wakers.wake(&recorded.enqueued);
        recorded.dead.iter().for_each(|reason| state.metrics.event_dead(reason.name()));
        recorded.outcomes.iter().for_each(tell_of_moved_link);
        let wanted = recorded.outcomes.iter().zip(named).filter_map(wanted_lead);
        state.look_ups.wish(wanted.map(|lead_id| (lead_id, None)));
        Ok(recorded.outcomes)
    });
    recording.await
}

/// A slip in a lead id would take a CRM's record from its lead for good; somebody should know.
fn tell_of_moved_link(outcome: &UpdateOutcome) {
    if let UpdateOutcome::Accepted(judged) | UpdateOutcome::Known(judged) = outcome
        && let Some(previous_lead_id) = judged.previous_lead_id
    {
        let lead_id = judged.detail.event.lead_id;
        tracing::warn!(%lead_id, %previous_lead_id, "a CRM's id belongs to another lead now");
    }
}

/// Meta's id of a lead that an event awaits, or that a strict source named and nobody knows: once
/// it was read, the CRM's next try finds it.
fn wanted_lead((outcome, named): (&UpdateOutcome, Option<LeadId>)) -> Option<LeadId> {
    match outcome {
        UpdateOutcome::Accepted(Judged { detail, .. })
            if detail.standing == Standing::AwaitingLead =>
        {
            detail.event.lead_id.metas()
        }
        UpdateOutcome::Refused(Refusal::LeadNotFound) => named.and_then(LeadId::metas),
        _ => None,
    }
}

/// The verdict on an update; every update that was given to the store has an outcome.
fn answer(outcome: Option<UpdateOutcome>, left_out: Vec<LeftOut>, now: Timestamp) -> Verdict {
    let (status, judged) = match outcome.ok_or_else(|| ApiError::plain(Code::Internal))? {
        UpdateOutcome::Accepted(judged) => (StatusCode::ACCEPTED, judged),
        UpdateOutcome::Known(judged) => (StatusCode::OK, judged),
        UpdateOutcome::Refused(refusal) => return Err(ApiError::from(refusal)),
    };
    Ok((status, StageUpdateAnswer::of(&judged, left_out, now)))
}

fn count(state: &AppState, verdict: &Verdict) {
    state.metrics.stage_update(match verdict {
        Ok((StatusCode::ACCEPTED, _)) => "accepted",
        Ok(_) => "known",
        Err(error) => error.code().name(),
    });
}

fn with_status(status: StatusCode, answer: &StageUpdateAnswer) -> Value {
    let mut result = Map::from_iter([("status".to_owned(), status.as_u16().into())]);
    if let Ok(Value::Object(fields)) = serde_json::to_value(answer) {
        result.extend(fields);
    }
    Value::Object(result)
}
