//! Queueing many dead letters again, by a filter or by name.
//!
//! What is wrong in the body is refused and never left out: a filter that lost a field on the way
//! would send more than was meant.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::event::EventState;
use crate::domain::ids::EventId;
use crate::http::error::{ApiError, Code};
use crate::http::event_filter::{FilterTexts, read_filter};
use crate::http::extract::{Admin, JsonBody};
use crate::http::page::{page_request, show_cursor};
use crate::http::state::AppState;
use crate::limits::{RETRY_BODY_BYTES_MAX, RETRY_EVENTS_MAX};
use crate::store::query::{DeadLetters, EventFilter, PageRequest};

/// Which dead letters to queue again: `event_ids`, or filters that must all pass, or `all`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryBody {
    /// These, at most 1,000; goes alone.
    #[schema(max_items = 1000)]
    event_ids: Option<Vec<String>>,
    /// `true` for every dead letter; goes without a filter.
    all: bool,
    /// `dead`, if it is given.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    state: Option<Value>,
    /// Dead for this reason.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "refused_by_meta")]
    reason: Option<Value>,
    /// Of a lead of this dataset.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    dataset_id: Option<Value>,
    /// Of this lead.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    lead_id: Option<Value>,
    /// Whose last attempt Meta answered with this error code.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<i64>)]
    code: Option<Value>,
    /// Of a lead that was created at this time or later: Unix seconds, or RFC 3339.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    created_from: Option<Value>,
    /// Of a lead that was created before this time: Unix seconds, or RFC 3339.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    created_before: Option<Value>,
    /// `next_cursor` of the answer before.
    cursor: Option<String>,
    /// `true` to change nothing, and be told what would become of them.
    dry_run: bool,
}

/// Keeps a null apart from a field that is absent.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// What became of dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub struct RetryAnswer {
    /// How many are queued again, under the same event ids.
    requeued: u64,
    /// How many stay dead, because they could not arrive in time any more or never could.
    hopeless: u64,
    /// How many were not dead; nothing changed for them.
    not_dead: u64,
    /// How many of `event_ids` do not exist.
    not_found: u64,
    /// Whether nothing was changed, and the counts tell what would be.
    dry_run: bool,
    /// To be passed as `cursor` with the same filter for the rest; null when there is none.
    next_cursor: Option<String>,
}

fn invalid(field: &str, problem: &str) -> ApiError {
    let detail = format!("{field}: {problem}");
    ApiError::new(Code::InvalidRequest, detail).with("field", field)
}

/// The text of a field, which may be sent as a whole number as well.
fn text_of(field: &str, value: Option<Value>) -> Result<Option<String>, ApiError> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(Value::Number(number)) if !number.is_f64() => Ok(Some(number.to_string())),
        Some(_) => Err(invalid(field, "must be a text or a whole number, and not empty")),
    }
}

/// Reads which dead letters are meant; nothing is never taken for everything.
fn read_letters(body: RetryBody) -> Result<DeadLetters, ApiError> {
    let filter = read_filter(&FilterTexts {
        state: text_of("state", body.state)?,
        reason: text_of("reason", body.reason)?,
        dataset_id: text_of("dataset_id", body.dataset_id)?,
        lead_id: text_of("lead_id", body.lead_id)?,
        code: text_of("code", body.code)?,
        created_from: text_of("created_from", body.created_from)?,
        created_before: text_of("created_before", body.created_before)?,
    })?;
    if filter.state.is_some_and(|state| state != EventState::Dead) {
        return Err(invalid("state", "only dead letters can be queued again"));
    }
    let filter = EventFilter { state: None, ..filter };
    let has_filter = filter != EventFilter::default();
    if let Some(event_ids) = body.event_ids {
        if has_filter || body.all || body.cursor.is_some() {
            return Err(invalid("event_ids", "goes alone, without a filter, all or cursor"));
        }
        return read_event_ids(&event_ids).map(DeadLetters::Named);
    }
    if body.all && has_filter {
        return Err(invalid("all", "goes without a filter"));
    }
    if !body.all && !has_filter {
        let problem = "say which: event_ids, a filter such as reason, or \"all\": true";
        return Err(ApiError::new(Code::InvalidRequest, problem));
    }
    let PageRequest { cursor, .. } = page_request(None, body.cursor.as_deref())?;
    Ok(DeadLetters::Filtered(filter, PageRequest { cursor, limit: RETRY_EVENTS_MAX }))
}

fn read_event_ids(texts: &[String]) -> Result<BTreeSet<EventId>, ApiError> {
    if texts.is_empty() {
        return Err(invalid("event_ids", "is empty"));
    }
    if texts.len() > RETRY_EVENTS_MAX {
        let detail = format!("event_ids: {} are more than {RETRY_EVENTS_MAX}", texts.len());
        return Err(ApiError::new(Code::PayloadTooLarge, detail).with("field", "event_ids"));
    }
    let ids = texts.iter().enumerate().map(|(index, text)| {
        EventId::parse(text)
            .map_err(|error| invalid("event_ids", &format!("number {} is {error}", index + 1)))
    });
    ids.collect()
}

/// Puts dead letters back into their queues, with the same event ids, at most 1,000 in one call.
///
/// One transaction: all that is counted as queued again is, or nothing is. The oldest come first;
/// those that could not arrive in time any more stay dead.
#[utoipa::path(
    post,
    path = "/v1/events/retry",
    tag = "events",
    request_body = RetryBody,
    responses(
        (status = 200, description = "What became of them; with a filter `next_cursor` tells \
            whether there may be more", body = RetryAnswer),
        (status = 400, description = "invalid_request"),
        (status = 413, description = "payload_too_large"),
    ),
    security(("api_key" = [])),
)]
pub async fn retry_events(
    _: Admin,
    State(state): State<AppState>,
    JsonBody(body): JsonBody<RetryBody, RETRY_BODY_BYTES_MAX>,
) -> Result<Json<RetryAnswer>, ApiError> {
    let dry_run = body.dry_run;
    let letters = read_letters(body)?;
    let many = state
        .store
        .requeue_many(letters, dry_run, &state.config.routing, state.clock.now())
        .await?;
    if !dry_run {
        // Committed: the events are in their queues, and no longer dead.
        state.wakers.wake(&many.enqueued);
        let (requeued, hopeless) = (many.requeued, many.hopeless);
        tracing::info!(requeued, hopeless, "dead letters queued again");
    }
    Ok(Json(RetryAnswer {
        requeued: many.requeued,
        hopeless: many.hopeless,
        not_dead: many.not_dead,
        not_found: many.not_found,
        dry_run,
        next_cursor: show_cursor(many.next_cursor),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The field that is refused, if anything is; without one the body as a whole is.
    fn refused(body: Value) -> Option<(u16, String)> {
        let Ok(body) = serde_json::from_value::<RetryBody>(body) else {
            return Some((400, "unreadable".into()));
        };
        let problem = read_letters(body).err()?.to_json();
        let status = u16::try_from(problem["status"].as_u64().unwrap()).unwrap();
        Some((status, problem["field"].as_str().unwrap_or("body").to_owned()))
    }

    #[test]
    fn nothing_is_never_taken_for_everything() {
        for body in [
            json!({}),
            json!({"all": false}),
            json!({"state": "dead"}),
            json!({"cursor": "c1"}),
            json!({"dry_run": true}),
        ] {
            assert_eq!(refused(body.clone()), Some((400, "body".into())), "{body}");
        }
        assert_eq!(refused(json!({"all": true})), None);
        assert_eq!(refused(json!({"all": true, "cursor": "c1", "state": "dead"})), None);
    }

    #[test]
    fn a_filter_that_lost_a_value_is_refused_and_not_widened() {
        for field in
            ["state", "reason", "dataset_id", "lead_id", "code", "created_from", "created_before"]
        {
            for value in [json!(null), json!(""), json!([]), json!(1.5), json!(true)] {
                let mut body = json!({"reason": "expired", "code": 100});
                body[field] = value.clone();
                assert_eq!(refused(body), Some((400, field.to_owned())), "{field} {value}");
            }
        }
    }

    #[test]
    fn filters_are_read_from_texts_and_from_whole_numbers() {
        let lead_id = 36_795_652_870_078_001_u64;
        for body in [
            json!({"lead_id": lead_id, "dataset_id": 700, "code": 100}),
            json!({"lead_id": lead_id.to_string(), "dataset_id": "700", "code": "100"}),
        ] {
            let body = serde_json::from_value(body).unwrap();
            let DeadLetters::Filtered(filter, page) = read_letters(body).unwrap() else {
                panic!("no filter");
            };
            assert_eq!(filter.lead_id.unwrap().get(), lead_id);
            assert_eq!((filter.dataset_id.unwrap().get(), filter.code), (700, Some(100)));
            assert_eq!(page, PageRequest { cursor: None, limit: 1_000 });
        }
    }

    #[test]
    fn what_makes_no_sense_together_is_refused() {
        let event_id = "evt_0082b9738a997e32a1e8834fdc57517c065e8c40";
        for (body, field) in [
            (json!({"state": "pending", "code": 1}), "state"),
            (json!({"reason": "tired"}), "reason"),
            (json!({"lead_id": 4711}), "lead_id"),
            (json!({"dataset_id": "x"}), "dataset_id"),
            (json!({"code": "x"}), "code"),
            (json!({"created_from": "yesterday"}), "created_from"),
            (json!({"all": true, "reason": "expired"}), "all"),
            (json!({"all": true, "cursor": "1"}), "cursor"),
            (json!({"event_ids": []}), "event_ids"),
            (json!({"event_ids": ["evt_1"]}), "event_ids"),
            (json!({"event_ids": [event_id], "all": true}), "event_ids"),
            (json!({"event_ids": [event_id], "reason": "expired"}), "event_ids"),
            (json!({"event_ids": [event_id], "cursor": "c1"}), "event_ids"),
            (json!({"reasons": "expired"}), "unreadable"),
            (json!({"all": "yes"}), "unreadable"),
        ] {
            assert_eq!(refused(body.clone()), Some((400, field.into())), "{body}");
        }
        let many = vec![event_id; 1_001];
        assert_eq!(refused(json!({"event_ids": many})), Some((413, "event_ids".into())));
        assert_eq!(refused(json!({"event_ids": many[1..]})), None);
    }
}
