//! The webhooks of CRMs, in their own formats: `POST /v1/hooks/{source}`.
//!
//! The source's mapping makes stage updates of a payload; from there on they go the way of any
//! other. Everything in a payload is judged on its own, so one record that does not fit holds up
//! none beside it, and is kept.

mod auth;
pub(super) mod kept;
mod seal;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::config::Config;
use crate::config::hooks::Hook;
use crate::domain::alarm::{Cause, Subject};
use crate::domain::event::short_digest;
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::http::error::{ApiError, Code};
use crate::http::extract::what_is_wrong;
use crate::http::finish::Finish;
use crate::http::hooks::auth::HookBody;
use crate::http::hooks::kept::{Kept, set_aside};
use crate::http::stage_body::{ReadUpdate, read_update};
use crate::http::stages::verdicts;
use crate::http::state::AppState;
use crate::limits::{UNMAPPED_BYTES_MAX, UNMAPPED_KEPT_MS};
use crate::mapping::money::LeftOut;
use crate::mapping::payload::{Form, read};
use crate::mapping::{Outcome, Unmappable};

/// What Salesforce waits for after an outbound message; without it, the message comes again.
const SOAP_ACK: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"><soapenv:Body>\
    <notificationsResponse xmlns=\"http://soap.sforce.com/2005/09/outbound\"><Ack>true</Ack>\
    </notificationsResponse></soapenv:Body></soapenv:Envelope>\n";

/// What became of a CRM's webhook.
#[derive(Debug, Serialize, ToSchema)]
pub struct HookAnswer {
    /// In the order of the records. Each has its `status`: that of a batch's result, or 200 with
    /// `not_a_stage_change`, the path of the condition that did not hold.
    #[schema(value_type = Vec<Object>)]
    results: Vec<Value>,
}

/// Takes in a webhook in the CRM's own format.
#[utoipa::path(
    post,
    path = "/v1/hooks/{source}",
    tag = "stage updates",
    params(("source" = String, Path, description = "The name of a source with a mapping")),
    request_body(content = Value, description = "What the CRM sends: JSON, a form or XML"),
    responses(
        (status = 200, description = "Nothing in it is a change of a stage", body = HookAnswer),
        (status = 202, description = "A verdict for each record", body = HookAnswer),
        (status = 401, description = "unauthorized, or invalid_signature"),
        (status = 404, description = "not_found: no such source takes webhooks"),
        (status = 422, description = "unmappable: none of its records can be read by the mapping; \
            `field` and `path` say why"),
        (status = 503, description = "store_unavailable, overloaded, timed_out"),
    ),
    security(("api_key" = []), ()),
)]
pub async fn take_hook(
    State(state): State<AppState>,
    hook: HookBody,
) -> Result<Response, ApiError> {
    take_in(state, hook).await
}

/// Takes in a webhook of a CRM that can show who it is in the address only.
#[utoipa::path(
    post,
    path = "/v1/hooks/{source}/{secret}",
    tag = "stage updates",
    params(
        ("source" = String, Path, description = "The name of a source with a mapping"),
        ("secret" = String, Path, description = "The secret of this source"),
    ),
    request_body(content = Value, description = "What the CRM sends: JSON, a form or XML"),
    responses(
        (status = 200, description = "Nothing in it is a change of a stage", body = HookAnswer),
        (status = 202, description = "A verdict for each record", body = HookAnswer),
        (status = 401, description = "unauthorized"),
        (status = 404, description = "not_found: no such source takes webhooks"),
        (status = 422, description = "unmappable: none of its records can be read by the mapping; \
            `field` and `path` say why"),
        (status = 503, description = "store_unavailable, overloaded, timed_out"),
    ),
)]
pub async fn take_hook_by_path(
    State(state): State<AppState>,
    hook: HookBody,
) -> Result<Response, ApiError> {
    take_in(state, hook).await
}

/// What a record of a payload comes to.
enum Record {
    /// A stage update that can be judged, and what of its value is left out.
    Update(Box<ReadUpdate>, Option<LeftOut>),
    /// No change of a stage, by the condition at this path.
    Ignored(String),
    /// Nothing that can be read by the mapping.
    Unmappable(ApiError),
}

async fn take_in(state: AppState, came: HookBody) -> Result<Response, ApiError> {
    // Whoever hangs up now has handed it over all the same: the rest is done without them.
    Finish::new(async move { take_all(&state, &came).await }).await
}

async fn take_all(state: &AppState, came: &HookBody) -> Result<Response, ApiError> {
    let HookBody { source, hook, content_type, body } = came;
    let now = state.clock.now();
    let form = Form::of(content_type.as_deref(), body);
    let whole = Kept::Payload(form, body);
    let payload = read(form, body);
    let records = payload.as_ref().map_err(Unmappable::clone);
    let records = match records.and_then(|payload| hook.mapping.records(payload)) {
        Ok(records) => records,
        Err(error) => {
            state.metrics.hook("unmappable");
            let error = unmappable(&error);
            set_aside(state, source, vec![(whole, &error)], now).await?;
            return Err(error);
        }
    };
    let map = |record: &&Value| map(record, source, hook, &state.config, now);
    let mapped: Vec<Record> = records.iter().map(map).collect();
    set_aside(state, source, what_to_keep(whole, body.len(), &records, &mapped), now).await?;
    let results = results(state, mapped, now).await?;
    tell_refused(state, source, &results, now).await?;
    if results.iter().all(|result| result["code"] == Code::Unmappable.name())
        && let Some(first) = results.first()
    {
        return Err(problem_of_all(first, results.len()));
    }
    if form == Form::Xml {
        let xml = HeaderValue::from_static("text/xml; charset=utf-8");
        return Ok((StatusCode::OK, [(CONTENT_TYPE, xml)], SOAP_ACK).into_response());
    }
    let ignored = results.iter().all(|result| result.get("not_a_stage_change").is_some());
    let status = if ignored { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(HookAnswer { results })).into_response())
}

/// What is kept of a payload: each record that can't be mapped. But the whole payload if there is
/// no change of a stage in it, since it may be taken apart wrongly, and pieces could not be mended.
fn what_to_keep<'a>(
    whole: Kept<'a>,
    bytes: usize,
    records: &[&'a Value],
    mapped: &'a [Record],
) -> Vec<(Kept<'a>, &'a ApiError)> {
    let failed = records.iter().zip(mapped).filter_map(|(record, mapped)| match mapped {
        Record::Unmappable(error) => Some((Kept::Record(record), error)),
        Record::Update(..) | Record::Ignored(_) => None,
    });
    let nothing_fits = !mapped.iter().any(|mapped| matches!(mapped, Record::Update(..)));
    if nothing_fits && bytes <= UNMAPPED_BYTES_MAX {
        return failed.take(1).map(|(_, error)| (whole, error)).collect();
    }
    failed.collect()
}

/// What becomes of each record, in order: judged by the store, left out, or kept for replay.
async fn results(
    state: &AppState,
    mapped: Vec<Record>,
    now: Timestamp,
) -> Result<Vec<Value>, ApiError> {
    let (mut updates, mut results, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for record in mapped {
        results.push(match record {
            Record::Update(update, without) => {
                updates.push(Ok(*update));
                left_out.push(without);
                Value::Null
            }
            Record::Ignored(path) => {
                state.metrics.hook("ignored");
                json!({"status": 200, "not_a_stage_change": path})
            }
            Record::Unmappable(error) => {
                state.metrics.hook("unmappable");
                error.to_json()
            }
        });
    }
    let verdicts = verdicts(state, updates, false, now).await?;
    let waiting = results.iter_mut().filter(|result| result.is_null());
    for (result, (verdict, without)) in waiting.zip(verdicts.into_iter().zip(left_out)) {
        state.metrics.hook(if is_taken(&verdict) { "taken" } else { "refused_by_rules" });
        *result = verdict;
        if let (Some(LeftOut { field, reason }), Some(Value::Array(left_out))) =
            (without, result.get_mut("left_out"))
        {
            left_out.push(json!({"field": field, "reason": reason}));
        }
    }
    Ok(results)
}

/// Whether a verdict took what was reported, or knew it.
fn is_taken(verdict: &Value) -> bool {
    verdict["status"].as_u64().is_some_and(|status| status < 300)
}

/// Tells what the rules refused, since no CRM reads a verdict: by code, so that a payload is a few
/// lines. If we die before the alarm is raised, the CRM has no answer, comes again and gets the
/// same verdicts.
async fn tell_refused(
    state: &AppState,
    source: &SourceName,
    results: &[Value],
    now: Timestamp,
) -> Result<(), ApiError> {
    let mut refused: BTreeMap<&str, u64> = BTreeMap::new();
    for code in results.iter().filter_map(|result| result["code"].as_str()) {
        if code != Code::Unmappable.name() {
            *refused.entry(code).or_default() += 1;
        }
    }
    for (reason, records) in refused {
        tracing::warn!(%source, reason, records, "stages that a CRM reports are refused");
        let subject = Subject::ReportsRefused { source: source.clone(), reason: reason.into() };
        let cause = Cause { count: records, ..Cause::once(subject, None) };
        state.store.raise_alarm(cause, now).await?;
    }
    Ok(())
}

/// Maps what was kept again. Without a time of its own it is of when it came.
fn read_kept(
    plain: &[u8],
    source: &SourceName,
    hook: &Hook,
    config: &Config,
    came_at: Timestamp,
) -> Vec<Record> {
    let map = |record: &Value| map(record, source, hook, config, came_at);
    let (form, bytes) = kept::unpack(plain).unwrap_or((None, plain));
    let records = read(form.unwrap_or(Form::Json), bytes).and_then(|payload| {
        if form.is_none() {
            return Ok(vec![map(&payload)]);
        }
        Ok(hook.mapping.records(&payload)?.into_iter().map(map).collect())
    });
    records.unwrap_or_else(|error| vec![Record::Unmappable(unmappable(&error))])
}

fn map(
    record: &Value,
    source: &SourceName,
    hook: &Hook,
    config: &Config,
    came_at: Timestamp,
) -> Record {
    let zone = config.source(source).time_zone;
    let reading = hook.mapping.read(record, zone.as_ref());
    let mut update = match reading.outcome {
        Outcome::NotAStageChange(path) => return Record::Ignored(path),
        Outcome::Unmappable(error) => return Record::Unmappable(unmappable(&error)),
        Outcome::Update(update) => update,
    };
    // It may come again, and be replayed besides; without a time nothing else would tell that it is
    // the same report.
    if !update.contains_key("event_time") && !update.contains_key("idempotency_key") {
        update.insert("idempotency_key".into(), timeless_key(record, &update, came_at).into());
    }
    match judge(update, source, config, came_at) {
        Ok(mut read) => {
            read.update.came_at = Some(came_at);
            if let Some(LeftOut { field, reason }) = reading.left_out {
                tracing::warn!(%source, field, reason, "a CRM's stage is taken without its value");
            }
            Record::Update(Box::new(read), reading.left_out)
        }
        // The mapping points at something that our own rules for the form don't take.
        Err(error) => {
            let error = error.with_code(Code::Unmappable);
            let problem = error.to_json();
            let found = reading.found.iter().find(|found| problem["field"] == found.field.as_str());
            Record::Unmappable(match found {
                Some(found) => error.with("path", found.path.as_str()),
                None => error,
            })
        }
    }
}

/// The key of a report without a time: the same to the letter, understood in the same way, and come
/// within the same seven days. In other seven days a lead may reach the stage again, and what was
/// kept for replay is gone by then.
fn timeless_key(record: &Value, update: &Map<String, Value>, came_at: Timestamp) -> String {
    let window = came_at.as_millis().div_euclid(UNMAPPED_KEPT_MS).to_be_bytes();
    let (record, update) = (record.to_string(), json!(update).to_string());
    let digest = short_digest(&[record.as_bytes(), update.as_bytes(), &window]);
    format!("record {}", hex::encode(digest))
}

/// Reads what the mapping made as any stage update is read.
fn judge(
    mut update: Map<String, Value>,
    source: &SourceName,
    config: &Config,
    now: Timestamp,
) -> Result<ReadUpdate, ApiError> {
    update.insert("source".into(), source.as_str().into());
    let body = serde_json::from_value(Value::Object(update))
        .map_err(|error| ApiError::new(Code::InvalidRequest, what_is_wrong(&error)))?;
    read_update(body, config, now)
}

fn unmappable(error: &Unmappable) -> ApiError {
    ApiError::new(Code::Unmappable, error.to_string())
        .with("field", error.field.as_str())
        .with("path", error.path.as_str())
}

/// The problem of a payload none of whose records can be read, in the words of the first.
fn problem_of_all(first: &Value, records: usize) -> ApiError {
    let text = |name: &str| first[name].as_str().unwrap_or_default().to_owned();
    let error = ApiError::new(Code::Unmappable, text("detail")).with("records", records);
    ["field", "path"]
        .into_iter()
        .filter(|name| first.get(*name).is_some())
        .fold(error, |error, name| error.with(name, text(name)))
}
