//! What people and tests tell the stand-in, and the page that shows what it took.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::ids::{FormId, PageId};
use crate::sandbox::Sandbox;
use crate::sandbox::faults::Fault;
use crate::sandbox::form::FilledForm;
use crate::sandbox::trigger::{SAMPLE_AGE_S, SampleLead, deliver, sample_lead_id, webhook_body};

/// Everything that was taken, oldest first.
pub(super) async fn list_events(State(sandbox): State<Sandbox>) -> Json<Value> {
    let reads = sandbox.memory().reads.clone();
    Json(json!({"requests": sandbox.requests(), "reads": reads, "events": sandbox.events()}))
}

/// What is to go wrong: sending, unless it is reading.
#[derive(Deserialize)]
pub(super) struct FaultsQuery {
    #[serde(default)]
    reading: bool,
}

/// Makes coming requests go wrong: a list of faults, one for each request.
pub(super) async fn add_faults(
    State(sandbox): State<Sandbox>,
    Query(query): Query<FaultsQuery>,
    Json(faults): Json<Vec<Fault>>,
) -> StatusCode {
    if query.reading {
        sandbox.misbehave_reading(faults);
    } else {
        sandbox.misbehave(faults);
    }
    StatusCode::NO_CONTENT
}

/// Forgets the faults that have not happened yet.
pub(super) async fn clear_faults(State(sandbox): State<Sandbox>) -> StatusCode {
    sandbox.behave();
    StatusCode::NO_CONTENT
}

/// How many leads to send, and how.
#[derive(Deserialize)]
pub(super) struct TriggerQuery {
    #[serde(default = "one")]
    leads: u16,
    /// For how many seconds they can't be read yet.
    #[serde(default)]
    unreadable_s: u16,
    /// Whether the webhook gets lost, so that they can only be read.
    #[serde(default)]
    lost: bool,
}

const fn one() -> u16 {
    1
}

/// Sends one signed delivery with new leads to the target, and goes back to the page.
pub(super) async fn trigger(
    State(sandbox): State<Sandbox>,
    Query(query): Query<TriggerQuery>,
) -> impl IntoResponse {
    let inner = &sandbox.0;
    let created_time = inner.clock.now().seconds() + -SAMPLE_AGE_S;
    let id = |number| (PageId::from_u64(number), FormId::from_u64(number + 1));
    let (Some(page_id), Some(form_id)) = id(1_000_000_001) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let leads: Vec<SampleLead> = (0..query.leads.clamp(1, 1_000))
        .map(|_| sample_lead_id(inner.random.next_u64()))
        .map(|lead_id| SampleLead { lead_id, page_id, form_id, created_time })
        .collect();
    let readable_from = inner.clock.now().plus_millis(i64::from(query.unreadable_s) * 1_000);
    for lead in &leads {
        sandbox.have_lead(FilledForm { readable_from, ..FilledForm::of(*lead) });
    }
    if query.lost {
        return Redirect::to("/").into_response();
    }
    let settings = &inner.settings;
    let body = webhook_body(&leads);
    match deliver(&inner.client, &settings.target, &settings.app_secret, body).await {
        Ok(200) => Redirect::to("/").into_response(),
        Ok(status) => {
            (StatusCode::BAD_GATEWAY, format!("the webhook answered {status}")).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// The page.
pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("page.html"))
}
