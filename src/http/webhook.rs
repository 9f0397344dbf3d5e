//! Meta's webhook: the handshake, and the deliveries.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde::Deserialize;

use crate::domain::lead::{Lead, ReportedLead};
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::http::error::{ApiError, Code};
use crate::http::extract::{ApiQuery, SignedBody};
use crate::http::finish::Finish;
use crate::http::state::{AppState, secrets_match};
use crate::limits::QUERY_VALUE_BYTES_MAX;
use crate::meta::webhook::{WebhookContent, read_webhook};
use crate::store::{Intake, LeadOutcome, Quarantined};

/// Meta's question whether this address is ours.
#[derive(Deserialize)]
pub struct Handshake {
    #[serde(rename = "hub.mode")]
    mode: Option<String>,
    #[serde(rename = "hub.verify_token")]
    verify_token: Option<String>,
    #[serde(rename = "hub.challenge")]
    challenge: Option<String>,
}

/// Answers Meta's handshake with its challenge.
#[utoipa::path(
    get,
    path = "/webhooks/meta",
    tag = "webhook",
    params(
        ("hub.mode" = String, Query, description = "Always `subscribe`"),
        ("hub.verify_token" = String, Query, description = "The configured verify token"),
        ("hub.challenge" = String, Query, description = "Echoed as it is"),
    ),
    responses(
        (status = 200, description = "The challenge", body = String, content_type = "text/plain"),
        (status = 400, description = "A parameter is missing"),
        (status = 403, description = "Wrong mode or token"),
    ),
)]
pub async fn handshake(
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<Handshake>,
) -> Result<impl IntoResponse, ApiError> {
    let (Some(mode), Some(token), Some(challenge)) =
        (query.mode, query.verify_token, query.challenge)
    else {
        let detail = "hub.mode, hub.verify_token and hub.challenge are needed";
        return Err(ApiError::new(Code::InvalidRequest, detail));
    };
    if challenge.len() > QUERY_VALUE_BYTES_MAX {
        return Err(ApiError::new(Code::InvalidRequest, "hub.challenge is too long"));
    }
    let expected = secrecy::ExposeSecret::expose_secret(&state.config.verify_token);
    if !secrets_match(&token, expected) || mode != "subscribe" {
        tracing::warn!("webhook handshake refused");
        return Err(ApiError::plain(Code::Forbidden));
    }
    tracing::info!("webhook handshake answered");
    let plain = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((plain, challenge))
}

/// Takes in a delivery: 200 when everything in it is on disk.
///
/// A piece that can't be read does not make Meta repeat the pieces beside it: it is quarantined.
#[utoipa::path(
    post,
    path = "/webhooks/meta",
    tag = "webhook",
    params(("X-Hub-Signature-256" = String, Header, description = "`sha256=` and 64 hex digits")),
    request_body(content = serde_json::Value, description = "Meta's `page` object"),
    responses(
        (status = 200, description = "Everything in it is durable"),
        (status = 401, description = "No signature, or a wrong one; nothing was stored"),
        (status = 503, description = "It was not taken in; Meta will repeat it"),
    ),
)]
pub async fn deliver(
    State(state): State<AppState>,
    SignedBody(body): SignedBody,
) -> Result<&'static str, ApiError> {
    let now = state.clock.now();
    state.heard.note(now);
    let content = read_webhook(&body);
    tracing::debug!(
        leads = content.leads.len(),
        unreadable = content.unreadable.len(),
        ignored = content.ignored,
        "webhook received"
    );
    if content.leads.is_empty() && content.unreadable.is_empty() {
        state.metrics.webhook("ignored");
        return Ok("ok");
    }
    // Whoever hangs up now has handed the leads over all the same: the rest is done without them.
    Finish::new(async move { take_in(&state, content, now).await }).await
}

/// Makes the leads durable, wakes who sends their events, and counts.
async fn take_in(
    state: &AppState,
    content: WebhookContent,
    now: Timestamp,
) -> Result<&'static str, ApiError> {
    let intake = intake(state, content, now);
    let (reported, quarantined) = (reported(&intake), intake.quarantined.len());
    let ingested = state.store.ingest(intake, now).await.inspect_err(|_| {
        state.metrics.webhook("unavailable");
    })?;
    // The store has committed: from here on the answer may be lost, but no lead. Meta repeats a
    // delivery whose answer it did not get, and the repetition changes nothing.
    state.wakers.wake(&ingested.enqueued);
    state.metrics.webhook("accepted");
    let new = reported.iter().zip(&ingested.outcomes);
    let new = new.filter(|(lead, outcome)| **outcome == LeadOutcome::New && !lead.test);
    state.look_ups.wish(new.map(|(lead, _)| (lead.lead_id, lead.page_id)));
    for (lead, outcome) in reported.iter().zip(&ingested.outcomes) {
        count(state, lead, *outcome);
    }
    for _ in 0..quarantined {
        state.metrics.lead("quarantined");
    }
    for reason in &ingested.dead {
        tracing::error!(reason = reason.name(), "an event that awaited its lead is a dead letter");
        state.metrics.event_dead(reason.name());
    }
    Ok("ok")
}

fn reported(intake: &Intake) -> Vec<ReportedLead> {
    intake.leads.iter().map(|lead| lead.reported.clone()).collect()
}

/// Decides for each lead where its events go, and whether it has a raw-lead event.
fn intake(state: &AppState, content: WebhookContent, now: Timestamp) -> Intake {
    let config = &state.config;
    let lead = |reported: ReportedLead| {
        let dataset_id = config.routing.resolve(reported.page_id);
        let raw_stage = config.raw_stage_for(dataset_id).clone();
        Lead::new(reported, SourceName::webhook(), dataset_id, raw_stage, now)
    };
    let quarantined = content.unreadable.into_iter().map(|piece| {
        // The reason may quote what Meta sent, so it goes to the store and not to the log.
        tracing::error!(bytes = piece.payload.len(), "a piece of a webhook is quarantined");
        Quarantined { received_at: now, reason: piece.reason, payload: piece.payload }
    });
    let quarantined = quarantined.collect();
    Intake { leads: content.leads.into_iter().map(lead).collect(), quarantined }
}

fn count(state: &AppState, lead: &ReportedLead, outcome: LeadOutcome) {
    match outcome {
        LeadOutcome::New if lead.test => state.metrics.lead("test"),
        LeadOutcome::New => state.metrics.lead("new"),
        LeadOutcome::Duplicate => state.metrics.lead("duplicate"),
        LeadOutcome::Erased => state.metrics.lead("erased"),
        LeadOutcome::DifferingDuplicate => {
            state.metrics.lead("differing_duplicate");
            tracing::warn!(
                lead_id = %lead.lead_id,
                created_time = %lead.created_time,
                "a lead was reported again with other details; the first report stands"
            );
        }
    }
}
