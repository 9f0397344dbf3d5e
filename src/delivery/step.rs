//! What to do with a batch: which events to send, and what to write down afterwards. Pure.

use crate::delivery::verdict::{NoAnswer, Verdict, judge};
use crate::domain::event::{Attempt, DeadReason};
use crate::domain::ids::DatasetId;
use crate::domain::time::Timestamp;
use crate::limits::ATTEMPT_TEXT_BYTES_MAX;
use crate::meta::conversions::Answer;
use crate::store::{QueueEntry, QueuedEvent, Settlement};

/// A batch sorted into what can still arrive and what can't.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be sent, in this order.
    pub send: Vec<QueuedEvent>,
    /// Past their seven days, or so nearly that they could take the batch down.
    pub expired: Vec<QueueEntry>,
}

/// Sorts a batch by whether its events can still arrive in time.
pub fn plan(events: Vec<QueuedEvent>, now: Timestamp) -> Plan {
    let (expired, send): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|queued| queued.event.is_past_sending(now));
    Plan { send, expired: expired.into_iter().map(|queued| queued.entry).collect() }
}

/// The record of events that were not sent because their time is over.
pub fn settle_expired(
    dataset_id: DatasetId,
    expired: Vec<QueueEntry>,
    now: Timestamp,
) -> Settlement {
    Settlement {
        dataset_id,
        attempt: None,
        delivered: Vec::new(),
        failed: Vec::new(),
        dead: expired.into_iter().map(|entry| (entry, DeadReason::Expired)).collect(),
        at: now,
    }
}

/// A request that was made.
#[derive(Debug)]
pub struct Sent<'a> {
    /// Where to.
    pub dataset_id: DatasetId,
    /// What it carried.
    pub events: &'a [QueuedEvent],
    /// When it was sent.
    pub at: Timestamp,
    /// How it ended.
    pub outcome: Result<Answer, NoAnswer>,
    /// The token, to be kept out of what is written down: Meta quotes a malformed one.
    pub access_token: &'a str,
}

/// The verdict on a request, and its record.
pub fn settle_sent(sent: &Sent<'_>, now: Timestamp) -> (Verdict, Settlement) {
    let verdict = judge(&sent.outcome, sent.events.len());
    let entries: Vec<QueueEntry> = sent.events.iter().map(|queued| queued.entry).collect();
    let (delivered, failed) = match verdict {
        Verdict::Delivered => (entries, Vec::new()),
        Verdict::Retry => (Vec::new(), entries),
    };
    let settlement = Settlement {
        dataset_id: sent.dataset_id,
        attempt: Some(attempt(sent, verdict, now)),
        delivered,
        failed,
        dead: Vec::new(),
        at: now,
    };
    (verdict, settlement)
}

fn attempt(sent: &Sent<'_>, verdict: Verdict, now: Timestamp) -> Attempt {
    let answer = sent.outcome.as_ref().ok();
    let error = answer.and_then(|answer| answer.error.as_ref());
    let message = match (&sent.outcome, error) {
        (Err(no_answer), _) => Some(no_answer.to_string()),
        (Ok(_), Some(error)) => error.message.as_deref().map(|text| clean(text, sent.access_token)),
        (Ok(answer), None) if verdict == Verdict::Retry => Some(format!(
            "HTTP {}, events_received {:?} of {}",
            answer.http_status,
            answer.events_received,
            sent.events.len()
        )),
        (Ok(_), None) => None,
    };
    Attempt {
        dataset_id: sent.dataset_id,
        at: sent.at,
        duration_ms: u64::try_from(now.millis_since(sent.at)).unwrap_or(0),
        events: u32::try_from(sent.events.len()).unwrap_or(u32::MAX),
        delivered: verdict == Verdict::Delivered,
        http_status: answer.map(|answer| answer.http_status),
        code: error.and_then(|error| error.code),
        subcode: error.and_then(|error| error.subcode),
        fbtrace_id: answer
            .and_then(|answer| answer.fbtrace_id.as_deref())
            .map(|id| clean(id, sent.access_token)),
        message,
    }
}

/// Meta's text without the token and without end.
fn clean(text: &str, access_token: &str) -> String {
    let text = if access_token.is_empty() {
        text.to_owned()
    } else {
        text.replace(access_token, "[token]")
    };
    text.chars().take(ATTEMPT_TEXT_BYTES_MAX / 4).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::conversions::read_answer;
    use crate::store::fixtures::queued_at;

    const SENT: i64 = 1_762_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis((SENT + seconds) * 1_000)
    }

    fn settled(events: &[QueuedEvent], outcome: Result<Answer, NoAnswer>) -> (Verdict, Settlement) {
        let dataset_id = DatasetId::from_u64(7).unwrap();
        let access_token = "EAABsecret";
        settle_sent(&Sent { dataset_id, events, at: at(0), outcome, access_token }, at(2))
    }

    #[test]
    fn an_event_within_a_minute_of_its_seven_days_is_not_sent_any_more() {
        let week = 7 * 86_400;
        let events = vec![queued_at(1, SENT), queued_at(2, SENT + 1)];
        let plan = plan(events.clone(), at(week - 60));
        assert_eq!(plan.expired, [events[0].entry]);
        assert_eq!(plan.send, [events[1].clone()]);
    }

    #[test]
    fn a_delivery_is_recorded_for_every_event_with_its_trace_id() {
        let events = [queued_at(1, SENT), queued_at(2, SENT)];
        let answer = read_answer(200, br#"{"events_received":2,"fbtrace_id":"A1"}"#);
        let (verdict, settlement) = settled(&events, Ok(answer));
        assert_eq!(verdict, Verdict::Delivered);
        assert_eq!(settlement.delivered.len(), 2);
        let attempt = settlement.attempt.unwrap();
        assert_eq!((attempt.duration_ms, attempt.events, attempt.message), (2_000, 2, None));
        assert_eq!(attempt.fbtrace_id.as_deref(), Some("A1"));
    }

    #[test]
    fn a_failure_keeps_the_events_and_metas_numbers() {
        let events = [queued_at(1, SENT)];
        let body = br#"{"error":{"message":"Invalid","code":100,"error_subcode":2804036}}"#;
        let (verdict, settlement) = settled(&events, Ok(read_answer(400, body)));
        assert_eq!(verdict, Verdict::Retry);
        assert_eq!((settlement.delivered.len(), settlement.failed.len()), (0, 1));
        let attempt = settlement.attempt.unwrap();
        assert_eq!((attempt.code, attempt.subcode), (Some(100), Some(2_804_036)));
        assert_eq!(attempt.message.as_deref(), Some("Invalid"));
    }

    #[test]
    fn a_quoted_token_and_an_endless_text_are_not_kept() {
        let long = "x".repeat(10_000);
        let body = format!(r#"{{"error":{{"message":"Malformed EAABsecret {long}","code":190}}}}"#);
        let (_, settlement) = settled(&[queued_at(1, SENT)], Ok(read_answer(401, body.as_bytes())));
        let message = settlement.attempt.unwrap().message.unwrap();
        assert!(message.starts_with("Malformed [token] x"));
        assert!(message.len() <= ATTEMPT_TEXT_BYTES_MAX);
    }

    #[test]
    fn a_short_200_says_what_was_short() {
        let answer = read_answer(200, br#"{"events_received":0}"#);
        let (_, settlement) = settled(&[queued_at(1, SENT)], Ok(answer));
        let message = settlement.attempt.unwrap().message.unwrap();
        assert_eq!(message, "HTTP 200, events_received Some(0) of 1");
    }
}
