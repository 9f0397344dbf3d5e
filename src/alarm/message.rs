//! An alarm as its receiver gets it: `type`, `timestamp` and `data`, in JSON.
//!
//! It names ids, counts, reasons, codes and what to do. Nothing in it is about a person, and no
//! secret. What is promised here stands in `docs/guides/alarms.md`, whose examples are tested.

use serde::Serialize;

use crate::clock::{Random, rfc3339};
use crate::domain::alarm::{Alarm, AlarmKind, Subject};
use crate::domain::event::DeadReason;
use crate::domain::time::Timestamp;
use crate::meta::errors::{PauseReason, find_rule};

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The same at every try.
    pub id: String,
    /// The same at every try.
    pub body: Vec<u8>,
}

#[derive(Serialize)]
struct Body<T> {
    r#type: &'static str,
    timestamp: String,
    data: T,
}

impl Message {
    /// The message of an alarm.
    ///
    /// # Errors
    /// If it can't be written as JSON, which nothing in it is cause for.
    pub fn of(alarm: &Alarm) -> Result<Self, serde_json::Error> {
        let kind = alarm.cause.subject.kind().name();
        Ok(Self { id: alarm.id(), body: body(kind, alarm.first_at, Data::of(alarm))? })
    }

    /// A message that tells of nothing, to see whether it arrives.
    ///
    /// # Errors
    /// As above.
    pub fn test(random: &dyn Random, now: Timestamp) -> Result<Self, serde_json::Error> {
        let data = serde_json::json!({"advice": "Nothing; somebody asked for this message."});
        let id = format!("alm_test_{:016x}", random.next_u64());
        Ok(Self { id, body: body("test", now, data)? })
    }
}

fn body(
    r#type: &'static str,
    at: Timestamp,
    data: impl Serialize,
) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Body { r#type, timestamp: rfc3339(at), data })
}

/// What an alarm says; what is of no meaning for its kind is left out.
#[derive(Serialize)]
pub struct Data {
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subcode: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meaning: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
    count: u64,
    first_at: String,
    last_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_too_old_at: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    event_ids: Vec<String>,
}

impl Data {
    /// What an alarm says.
    pub fn of(alarm: &Alarm) -> Self {
        let cause = &alarm.cause;
        let (meaning, advice) = words(&cause.subject);
        let moment = cause.moment.map(rfc3339);
        let (since, first_too_old_at) = match cause.subject.kind() {
            AlarmKind::EventsDeadlineNear => (None, moment),
            _ => (moment, None),
        };
        let mut data = Self {
            dataset_id: None,
            source: None,
            reason: None,
            code: None,
            subcode: None,
            meaning,
            advice,
            count: cause.count,
            first_at: rfc3339(alarm.first_at),
            last_at: rfc3339(alarm.last_at),
            since,
            first_too_old_at,
            event_ids: cause.event_ids.iter().map(ToString::to_string).collect(),
        };
        match &cause.subject {
            Subject::EventsDead { dataset_id, reason, code, subcode } => {
                data.dataset_id = dataset_id.map(|id| id.to_string());
                data.reason = Some(reason.name().to_owned());
                (data.code, data.subcode) = (*code, *subcode);
            }
            Subject::EventsDeadlineNear { dataset_id } => {
                data.dataset_id = dataset_id.map(|id| id.to_string());
            }
            Subject::DatasetPaused { dataset_id, reason } => {
                data.dataset_id = Some(dataset_id.to_string());
                data.reason = Some(reason.to_string());
            }
            Subject::DatasetResumed { dataset_id } => {
                data.dataset_id = Some(dataset_id.to_string());
            }
            Subject::ReportsNotKept { source }
            | Subject::ReportsKept { source }
            | Subject::ReportsExpired { source } => data.source = Some(source.to_string()),
            Subject::ReportsRefused { source, reason } => {
                data.source = Some(source.to_string());
                data.reason = Some(reason.to_string());
            }
            Subject::WebhookSilent | Subject::WebhookResumed | Subject::QuarantineAdded => {}
        }
        data
    }
}

type Words = (Option<&'static str>, Option<&'static str>);

/// What it means, and what a person can do.
fn words(subject: &Subject) -> Words {
    match subject {
        Subject::EventsDead { reason, code, subcode, .. } => dead_words(*reason, *code, *subcode),
        Subject::EventsDeadlineNear { dataset_id: Some(_) } => {
            (None, Some("See why the dataset does not deliver: `leadloop datasets` tells."))
        }
        Subject::EventsDeadlineNear { dataset_id: None } => {
            (None, Some("Configure a dataset for the Pages of these leads."))
        }
        Subject::DatasetPaused { reason, .. } => {
            let reason = PauseReason::ALL.iter().find(|known| known.name() == &**reason);
            (None, reason.map(|reason| reason.advice()))
        }
        Subject::WebhookSilent => (
            None,
            Some("See whether Meta still calls: the app's subscription, this server's address."),
        ),
        Subject::QuarantineAdded => {
            (None, Some("Look at GET /v1/quarantine: a lead may be in what could not be read."))
        }
        Subject::ReportsNotKept { .. } => (
            Some("They fit no mapping, and are too large or too many to be kept: they are lost."),
            Some("Mend the source's mapping, replay what is kept, and let the CRM send again."),
        ),
        Subject::ReportsRefused { .. } => (
            Some("Stages that the CRM reported are not taken, for this reason, and are not kept."),
            Some("Mend what the CRM sends, or the source's settings, and let it send again."),
        ),
        Subject::ReportsKept { .. } => (
            Some("They fit no mapping, and are kept for seven days."),
            Some(
                "Mend the source's mapping and replay them: `leadloop mapping unmapped` tells why.",
            ),
        ),
        Subject::ReportsExpired { .. } => (
            Some("They waited seven days for their mapping to be mended, and are gone."),
            Some("Mend the source's mapping before more of them are too old."),
        ),
        Subject::DatasetResumed { .. } | Subject::WebhookResumed => (None, None),
    }
}

fn dead_words(reason: DeadReason, code: Option<i64>, subcode: Option<i64>) -> Words {
    if let Some(rule) = find_rule(code, subcode) {
        return (Some(rule.meaning), Some(rule.advice));
    }
    let (meaning, advice) = match reason {
        DeadReason::Expired => (
            "Seven days passed before Meta accepted it.",
            "See in its attempts what kept it from being delivered.",
        ),
        DeadReason::LeadNotFound => (
            "Its lead did not arrive within seven days.",
            "Check the lead id that the CRM reports, and the webhook's subscription.",
        ),
        DeadReason::EventTimeNotAfterLead => (
            "Its lead was created at or after the reported time.",
            "Check the CRM's clock, or give its source a clock tolerance.",
        ),
        DeadReason::LeadIsTest => ("Its lead came from Meta's Test button.", "Nothing."),
        DeadReason::Duplicate => ("It says the same as another event of its lead.", "Nothing."),
        DeadReason::RefusedByMeta => {
            ("Meta refused it.", "Look at its attempts for what Meta said.")
        }
    };
    (Some(meaning), Some(advice))
}

#[cfg(test)]
mod tests;
