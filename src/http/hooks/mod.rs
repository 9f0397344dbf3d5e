//! The webhooks of CRMs, in their own formats: `POST /v1/hooks/{source}`.
//!
//! The source's mapping makes stage updates of a payload; from there on they go the way of any
//! other. Everything in a payload is judged on its own, so one record that does not fit holds up
//! none beside it.

mod auth;

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
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::http::error::{ApiError, Code};
use crate::http::extract::what_is_wrong;
use crate::http::hooks::auth::HookBody;
use crate::http::stage_body::{ReadUpdate, read_update};
use crate::http::stages::verdicts;
use crate::http::state::AppState;
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
    take_in(&state, hook).await
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
    take_in(&state, hook).await
}

/// What a record of a payload comes to.
enum Record {
    /// A stage update that can be judged.
    Update(ReadUpdate),
    /// No change of a stage, by the condition at this path.
    Ignored(String),
    /// Nothing that can be read by the mapping.
    Unmappable(ApiError),
}

async fn take_in(state: &AppState, came: HookBody) -> Result<Response, ApiError> {
    let HookBody { source, hook, content_type, body } = came;
    let form = Form::of(content_type.as_deref(), &body);
    let now = state.clock.now();
    let records = records(form, &body, &source, &hook, &state.config, now).map_err(|error| {
        state.metrics.hook("unmappable");
        unmappable(&error)
    })?;
    let results = results(state, records, now).await?;
    if results.iter().all(|result| result["code"] == Code::Unmappable.name())
        && let Some(first) = results.first()
    {
        return Err(whole(first, results.len()));
    }
    let ignored = results.iter().all(|result| result.get("not_a_stage_change").is_some());
    let status = if ignored { StatusCode::OK } else { StatusCode::ACCEPTED };
    if form == Form::Xml {
        let xml = HeaderValue::from_static("text/xml; charset=utf-8");
        return Ok((StatusCode::OK, [(CONTENT_TYPE, xml)], SOAP_ACK).into_response());
    }
    Ok((status, Json(HookAnswer { results })).into_response())
}

/// Reads a payload record by record.
fn records(
    form: Form,
    body: &[u8],
    source: &SourceName,
    hook: &Hook,
    config: &Config,
    now: Timestamp,
) -> Result<Vec<Record>, Unmappable> {
    let payload = read(form, body)?;
    let records = hook.mapping.records(&payload)?;
    Ok(records.into_iter().map(|record| map(record, source, hook, config, now)).collect())
}

fn map(
    record: &Value,
    source: &SourceName,
    hook: &Hook,
    config: &Config,
    now: Timestamp,
) -> Record {
    let zone = config.source(source).time_zone;
    let reading = hook.mapping.read(record, zone.as_ref());
    let update = match reading.outcome {
        Outcome::NotAStageChange(path) => return Record::Ignored(path),
        Outcome::Unmappable(error) => return Record::Unmappable(unmappable(&error)),
        Outcome::Update(update) => update,
    };
    judge(update, source, config, now).map_or_else(
        // The mapping points at something that our own rules for the form don't take.
        |error| {
            let error = error.with_code(Code::Unmappable);
            let problem = error.to_json();
            let found = reading.found.iter().find(|found| problem["field"] == found.field.as_str());
            Record::Unmappable(match found {
                Some(found) => error.with("path", found.path.as_str()),
                None => error,
            })
        },
        Record::Update,
    )
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

/// Hands the updates to the store, and puts the verdicts in the order of the records.
async fn results(
    state: &AppState,
    records: Vec<Record>,
    now: Timestamp,
) -> Result<Vec<Value>, ApiError> {
    let mut updates = Vec::new();
    let mut results = Vec::new();
    for record in records {
        results.push(match record {
            Record::Update(update) => {
                updates.push(Ok(update));
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
    for (result, verdict) in waiting.zip(verdicts) {
        state.metrics.hook("taken");
        *result = verdict;
    }
    Ok(results)
}

fn unmappable(error: &Unmappable) -> ApiError {
    ApiError::new(Code::Unmappable, error.to_string())
        .with("field", error.field.as_str())
        .with("path", error.path.as_str())
}

/// The problem of a payload none of whose records can be read, in the words of the first.
fn whole(first: &Value, records: usize) -> ApiError {
    let text = |name: &str| first[name].as_str().unwrap_or_default().to_owned();
    let error = ApiError::new(Code::Unmappable, text("detail")).with("records", records);
    ["field", "path"]
        .into_iter()
        .filter(|name| first.get(*name).is_some())
        .fold(error, |error, name| error.with(name, text(name)))
}
