//! Leads and events as the API shows them.
//!
//! Ids are strings, because 17 digits do not survive a JavaScript number. Times are Unix seconds
//! where they are Meta's, and RFC 3339 beside them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::event::{Attempt, EventDetail, LeadDetail, LeadSummary, Standing};
use crate::domain::ids::LeadId;
use crate::domain::lead::{Lead, RawLead};
use crate::domain::routing::Routing;
use crate::domain::stage::StageName;
use crate::domain::time::Timestamp;
use crate::http::time::rfc3339;
use crate::meta::errors::find_rule;
use crate::store::{Erased, Quarantined};

/// A lead.
#[derive(Debug, Serialize, ToSchema)]
pub struct LeadView {
    /// Meta's id of the lead.
    #[schema(example = "1234567890123456")]
    lead_id: String,
    /// The Page; null on the dashboard's Test button.
    page_id: Option<String>,
    /// The form.
    form_id: Option<String>,
    /// The ad; null for organic leads.
    ad_id: Option<String>,
    /// When the form was submitted, in Unix seconds.
    created_time: i64,
    /// The same as RFC 3339.
    created_at: String,
    /// When leadloop heard of the lead.
    received_at: String,
    /// Who reported the lead.
    source: String,
    /// Whether Meta's Test button made it.
    test: bool,
    /// `emitted`, `skipped_test`, or `skipped_too_old` for a lead that was older than 7 days when
    /// it was first heard of.
    raw_lead: &'static str,
    /// The dataset of its events; null until one is configured for the Page.
    dataset_id: Option<String>,
    /// The stage that the lead is in.
    stage: Option<String>,
    /// Its timeline; left out of lists, like what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<EventView>>,
    /// Stages of the funnel before the furthest one that the lead reached, which it was never
    /// reported to reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing_stages: Option<Vec<String>>,
    /// The CRMs' own ids that are linked with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    crm_ids: Option<Vec<CrmIdView>>,
    /// Which customer parameters are known of the person besides what each event says.
    #[serde(skip_serializing_if = "Option::is_none")]
    customer: Option<Vec<&'static str>>,
}

/// A CRM's own id of a lead.
#[derive(Debug, Serialize, ToSchema)]
pub struct CrmIdView {
    /// The CRM.
    #[schema(example = "hubspot")]
    source: String,
    /// Its id.
    #[schema(example = "4711")]
    crm_id: String,
}

impl LeadView {
    /// The lead without its timeline, for lists.
    pub fn summary(summary: &LeadSummary) -> Self {
        Self::of(&summary.lead, summary.stage.as_ref())
    }

    /// The lead with its timeline.
    pub fn full(detail: &LeadDetail, routing: &Routing, now: Timestamp) -> Self {
        let events = detail.events.iter().map(|event| EventView::summary(event, now)).collect();
        let funnel = routing.funnel(detail.lead.dataset_id);
        let reached: Vec<_> = detail.events.iter().map(|event| &event.event.stage).collect();
        let missing = funnel.map(|funnel| funnel.missing_from(&reached)).unwrap_or_default();
        let crm_ids = detail.crm_ids.iter().map(|(source, crm_id)| CrmIdView {
            source: source.to_string(),
            crm_id: crm_id.to_string(),
        });
        Self {
            events: Some(events),
            missing_stages: Some(missing.iter().map(ToString::to_string).collect()),
            crm_ids: Some(crm_ids.collect()),
            customer: Some(detail.customer.iter().map(|(name, _)| name).collect()),
            ..Self::of(&detail.lead, detail.stage())
        }
    }

    fn of(lead: &Lead, stage: Option<&StageName>) -> Self {
        let reported = &lead.reported;
        Self {
            lead_id: reported.lead_id.to_string(),
            page_id: reported.page_id.map(|id| id.to_string()),
            form_id: reported.form_id.map(|id| id.to_string()),
            ad_id: reported.ad_id.map(|id| id.to_string()),
            created_time: reported.created_time.get(),
            created_at: rfc3339(reported.created_time.timestamp()),
            received_at: rfc3339(lead.received_at),
            source: lead.source.to_string(),
            test: reported.test,
            raw_lead: match lead.raw_lead {
                RawLead::Emitted(_) => "emitted",
                RawLead::SkippedTest => "skipped_test",
                RawLead::SkippedTooOld => "skipped_too_old",
                RawLead::SkippedUnknown => "skipped_unknown",
            },
            dataset_id: lead.dataset_id.map(|id| id.to_string()),
            stage: stage.map(ToString::to_string),
            events: None,
            missing_stages: None,
            crm_ids: None,
            customer: None,
        }
    }
}

/// An event.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventView {
    /// Its id, the same for ever.
    event_id: String,
    /// The lead it is about; null while it is not known which one that is.
    lead_id: Option<String>,
    /// The dataset of the lead; null until one is configured for its Page.
    dataset_id: Option<String>,
    /// The stage.
    stage: String,
    /// When the stage was reached, as Meta is told, in Unix seconds.
    event_time: i64,
    /// The same as RFC 3339.
    event_at: String,
    /// `awaiting_lead`, `held`, `pending`, `delivered` or `dead`.
    state: &'static str,
    /// Why it is dead.
    reason: Option<&'static str>,
    /// Since when it is dead.
    dead_at: Option<String>,
    /// Whether the time was lifted to one second after the lead's creation.
    adjusted: bool,
    /// Who reported it.
    source: String,
    /// When it was reported.
    received_at: String,
    /// The last second at which Meta takes it.
    deliver_before: i64,
    /// How many requests to Meta carried it.
    attempts: usize,
    /// Meta's trace id of the last attempt.
    fbtrace_id: Option<String>,
    /// When Meta accepted it.
    delivered_at: Option<String>,
    /// What Meta said in the last attempt, if it failed.
    error: Option<MetaErrorView>,
    /// The last 100 attempts, oldest first; only where one event is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt_log: Option<Vec<AttemptView>>,
}

impl EventView {
    /// The event with a summary of its attempts.
    pub fn summary(detail: &EventDetail, now: Timestamp) -> Self {
        let event = &detail.event;
        let last = detail.attempts.last();
        let delivered = last.filter(|_| detail.standing == Standing::Delivered);
        let (reason, dead_at) = match detail.standing {
            Standing::Dead { reason, at } => (Some(reason.name()), Some(rfc3339(at))),
            Standing::Delivered | Standing::AwaitingLead | Standing::Queued(_) => (None, None),
        };
        Self {
            event_id: event.id().to_string(),
            lead_id: event.lead_id.metas().map(|lead_id| lead_id.to_string()),
            dataset_id: detail.dataset_id.map(|id| id.to_string()),
            stage: event.stage.to_string(),
            event_time: event.event_time.get(),
            event_at: rfc3339(event.event_time.timestamp()),
            state: detail.state(now).name(),
            reason,
            dead_at,
            adjusted: event.is_adjusted(),
            source: event.source.to_string(),
            received_at: rfc3339(event.received_at),
            deliver_before: event.deliver_before().get(),
            attempts: detail.attempts.count,
            fbtrace_id: last.and_then(|attempt| attempt.fbtrace_id.clone()),
            delivered_at: delivered.map(|attempt| rfc3339(answered_at(attempt))),
            error: last.filter(|attempt| !attempt.delivered).map(MetaErrorView::of),
            attempt_log: None,
        }
    }

    /// The event with its latest attempts.
    pub fn full(detail: &EventDetail, now: Timestamp) -> Self {
        let log = detail.attempts.latest.iter().map(AttemptView::of).collect();
        Self { attempt_log: Some(log), ..Self::summary(detail, now) }
    }
}

fn answered_at(attempt: &Attempt) -> Timestamp {
    attempt.at.plus_millis(i64::try_from(attempt.duration_ms).unwrap_or(0))
}

/// What Meta said of a failed attempt.
#[derive(Debug, Serialize, ToSchema)]
pub struct MetaErrorView {
    /// Meta's error code.
    code: Option<i64>,
    /// Meta's error subcode.
    subcode: Option<i64>,
    /// What went wrong, in words.
    message: Option<String>,
    /// The HTTP status; null if there was no answer.
    http_status: Option<u16>,
    /// What the code means, if it is known.
    meaning: Option<&'static str>,
    /// What a person can do about it.
    advice: Option<&'static str>,
}

impl MetaErrorView {
    fn of(attempt: &Attempt) -> Self {
        let rule = find_rule(attempt.code, attempt.subcode);
        Self {
            meaning: rule.map(|rule| rule.meaning),
            advice: rule.map(|rule| rule.advice),
            code: attempt.code,
            subcode: attempt.subcode,
            message: attempt.message.clone(),
            http_status: attempt.http_status,
        }
    }
}

/// A request to Meta.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttemptView {
    /// When it was sent.
    at: String,
    /// How long the answer took, in milliseconds.
    duration_ms: u64,
    /// How many events it carried.
    events: u32,
    /// Where it went.
    dataset_id: String,
    /// Whether Meta accepted it.
    delivered: bool,
    /// The HTTP status; null if there was no answer.
    http_status: Option<u16>,
    /// Meta's error code.
    code: Option<i64>,
    /// Meta's error subcode.
    subcode: Option<i64>,
    /// Meta's trace id.
    fbtrace_id: Option<String>,
    /// What went wrong, in words.
    message: Option<String>,
}

impl AttemptView {
    fn of(attempt: &Attempt) -> Self {
        Self {
            at: rfc3339(attempt.at),
            duration_ms: attempt.duration_ms,
            events: attempt.events,
            dataset_id: attempt.dataset_id.to_string(),
            delivered: attempt.delivered,
            http_status: attempt.http_status,
            code: attempt.code,
            subcode: attempt.subcode,
            fbtrace_id: attempt.fbtrace_id.clone(),
            message: attempt.message.clone(),
        }
    }
}

/// A piece of a webhook that could not be read.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuarantinedView {
    /// When it came.
    received_at: String,
    /// Why it could not be read.
    reason: String,
    /// The piece as it was received.
    payload: String,
}

impl QuarantinedView {
    /// The piece as text; bytes that are none are replaced.
    pub fn of(piece: &Quarantined) -> Self {
        Self {
            received_at: rfc3339(piece.received_at),
            reason: piece.reason.clone(),
            payload: String::from_utf8_lossy(&piece.payload).into_owned(),
        }
    }
}

/// What the erasure of a lead took away.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErasedView {
    /// Meta's id of the lead; null of somebody whose lead was not known.
    #[schema(example = "1234567890123456")]
    lead_id: Option<String>,
    /// When it was erased, also if that was before this call.
    erased_at: String,
    /// How many of its events this call erased.
    events: u64,
    /// How many of them were still to be sent.
    cancelled: u64,
}

impl ErasedView {
    /// The answer to an erasure.
    pub fn of(lead_id: LeadId, erased: Erased) -> Self {
        let Erased { at, events, cancelled } = erased;
        let lead_id = lead_id.metas().map(|lead_id| lead_id.to_string());
        Self { lead_id, erased_at: rfc3339(at), events, cancelled }
    }
}

/// A page of leads.
#[derive(Debug, Serialize, ToSchema)]
pub struct LeadPage {
    /// Newest first, without their timelines.
    pub leads: Vec<LeadView>,
    /// To be passed as `cursor` for the next page; null at the end.
    pub next_cursor: Option<String>,
}

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventPage {
    /// Newest first.
    pub events: Vec<EventView>,
    /// To be passed as `cursor` for the next page; null at the end.
    pub next_cursor: Option<String>,
}

/// A page of what could not be read.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuarantinePage {
    /// Newest first.
    pub quarantined: Vec<QuarantinedView>,
    /// To be passed as `cursor` for the next page; null at the end.
    pub next_cursor: Option<String>,
}
