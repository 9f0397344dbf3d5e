//! What to do with a batch: which events to send, and what to write down afterwards. Pure.

use std::collections::BTreeSet;

use crate::delivery::verdict::{NoAnswer, Verdict, judge};
use crate::domain::event::{Attempt, DeadReason, Event};
use crate::domain::ids::{DatasetId, LeadId};
use crate::domain::time::Timestamp;
use crate::limits::{
    ATTEMPT_TEXT_BYTES_MAX, DEADLINE_PACE_MS, DEADLINE_TRY_MS, PROBE_EVERY_MS_MAX, SEND_BYTES_MAX,
    THROTTLE_WAIT_MS_MAX,
};
use crate::meta::conversions::Answer;
use crate::store::{Hold, QueueEntry, QueuedEvent, Settlement};

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
        hold: Hold::default(),
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
    /// Whether a refusal is believed of an event at all; not while Meta refuses everything.
    pub believe_refusal: bool,
    /// The token, to be kept out of what is written down: Meta quotes a malformed one.
    pub access_token: &'a str,
}

/// The verdict on a request, and its record.
///
/// An event is a dead letter only when it was alone in a request that Meta refused for what it
/// says, and only when there is no more doubt about that.
pub fn settle_sent(sent: &Sent<'_>, now: Timestamp) -> (Verdict, Settlement) {
    let verdict = judge(&sent.outcome, sent.events.len());
    let entries: Vec<QueueEntry> = sent.events.iter().map(|queued| queued.entry).collect();
    let dead = match (verdict, sent.events) {
        (Verdict::Invalid { doubt_ms }, [alone])
            if sent.believe_refusal && !is_doubted(alone, doubt_ms, now) =>
        {
            vec![(alone.entry, DeadReason::RefusedByMeta)]
        }
        _ => Vec::new(),
    };
    let (delivered, failed) = match verdict {
        Verdict::Delivered => (entries, Vec::new()),
        _ => (Vec::new(), entries),
    };
    let settlement = Settlement {
        dataset_id: sent.dataset_id,
        attempt: Some(attempt(sent, verdict, now)),
        delivered,
        failed,
        dead,
        at: now,
        hold: Hold::default(),
    };
    (verdict, settlement)
}

/// Whether an event was reported too recently for Meta's refusal to be believed.
///
/// One that was reported long after now was reported by a clock that has been set back since.
pub fn is_doubted(queued: &QueuedEvent, doubt_ms: i64, now: Timestamp) -> bool {
    now.millis_since(queued.event.received_at).abs() < doubt_ms
}

/// A refused batch in two parts, to be sent one after the other: what Meta points at and the rest
/// if it points at something, else its halves. Events of a lead keep their order.
///
/// Each part is smaller than the batch, so k wrong events among n are found in O(k log n)
/// requests; a pointer is a hint only, since an event dies only when it is refused alone.
pub fn take_apart(
    events: Vec<QueuedEvent>,
    blamed: &BTreeSet<usize>,
) -> (Vec<QueuedEvent>, Vec<QueuedEvent>) {
    let is_blamed = |place: usize| blamed.contains(&place);
    let pointed_at = (0..events.len()).filter(|place| is_blamed(*place)).count();
    if pointed_at == 0 || pointed_at == events.len() {
        let mut first = events;
        let second = first.split_off(first.len() / 2);
        return (first, second);
    }
    // A lead with an event that is pointed at goes with it, so that its events stay in order.
    let leads: BTreeSet<LeadId> =
        events.iter().enumerate().filter(|(place, _)| is_blamed(*place)).map(lead_of).collect();
    let (blamed, rest): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|queued| leads.contains(&queued.event.lead_id));
    if rest.is_empty() { take_apart(blamed, &BTreeSet::new()) } else { (rest, blamed) }
}

fn lead_of((_, queued): (usize, &QueuedEvent)) -> LeadId {
    queued.event.lead_id
}

/// When to try again: after the wait of the schedule or the one Meta asks for, whichever is longer.
pub fn wanted_at(verdict: Verdict, scheduled_ms: u64, now: Timestamp) -> Timestamp {
    let wait_ms = match verdict {
        Verdict::Retry { wait_ms } | Verdict::Throttled { wait_ms } => {
            scheduled_ms.max(wait_ms.unwrap_or(0).min(THROTTLE_WAIT_MS_MAX))
        }
        Verdict::Paused(_) => scheduled_ms.min(PROBE_EVERY_MS_MAX),
        Verdict::Delivered | Verdict::Invalid { .. } => scheduled_ms,
    };
    now.plus_millis(wait_ms.cast_signed())
}

/// The latest moment to try again for the sake of a deadline: an hour before it, and from then
/// on every minute, whatever Meta asks.
pub fn last_try_at(deadline: Timestamp, now: Timestamp) -> Timestamp {
    let last_try = deadline.plus_millis(-DEADLINE_TRY_MS);
    if last_try > now { last_try } else { now.plus_millis(DEADLINE_PACE_MS) }
}

/// Leaves as many events, from the front, as one request should carry by its bytes; one at least.
pub fn fit_request(mut events: Vec<QueuedEvent>) -> Vec<QueuedEvent> {
    let mut bytes = 0;
    let fit = events.iter().take_while(|queued| {
        bytes += estimated_bytes(&queued.event);
        bytes <= SEND_BYTES_MAX
    });
    let fit = fit.count().max(1);
    events.truncate(fit);
    events
}

fn estimated_bytes(event: &Event) -> usize {
    let fixed = 400 + event.stage.as_str().len();
    let customer = event.customer.iter().flat_map(|(_, values)| values);
    let customer: usize = customer.map(|value| value.len() + 8).sum();
    fixed + customer + event.custom_data.as_deref().map_or(0, str::len)
}

fn attempt(sent: &Sent<'_>, verdict: Verdict, now: Timestamp) -> Attempt {
    let answer = sent.outcome.as_ref().ok();
    let error = answer.and_then(|answer| answer.error.as_ref());
    let message = match (&sent.outcome, error) {
        (Err(no_answer), _) => Some(no_answer.to_string()),
        (Ok(_), Some(error)) => error.message.as_deref().map(|text| clean(text, sent.access_token)),
        (Ok(answer), None) if verdict != Verdict::Delivered => Some(format!(
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
        settle_sent(
            &Sent {
                dataset_id,
                events,
                at: at(0),
                outcome,
                believe_refusal: true,
                access_token: "EAABsecret",
            },
            at(2),
        )
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
        assert_eq!(verdict, Verdict::Invalid { doubt_ms: 600_000 });
        assert_eq!(settlement.dead, [], "an unknown lead is doubted at first");
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

    const REFUSED: &[u8] = br#"{"error":{"code":100,"error_subcode":2804050}}"#;
    const UNKNOWN_LEAD: &[u8] = br#"{"error":{"code":100,"error_subcode":2804036}}"#;

    #[test]
    fn an_event_dies_only_alone() {
        let events = [queued_at(1, SENT - 3_600), queued_at(2, SENT - 3_600)];
        let (_, together) = settled(&events, Ok(read_answer(400, REFUSED)));
        assert_eq!((together.dead.len(), together.failed.len()), (0, 2));
        let (_, alone) = settled(&events[..1], Ok(read_answer(400, REFUSED)));
        assert_eq!(alone.dead, [(events[0].entry, DeadReason::RefusedByMeta)]);
        assert_eq!(alone.failed, [events[0].entry], "the attempt belongs to it all the same");
    }

    #[test]
    fn an_unknown_lead_is_believed_ten_minutes_after_the_report() {
        let dead = |age_s| {
            let (_, settlement) =
                settled(&[queued_at(1, SENT - age_s)], Ok(read_answer(400, UNKNOWN_LEAD)));
            settlement.dead.len()
        };
        assert_eq!((dead(0), dead(597), dead(598)), (0, 0, 1));
    }

    fn apart(leads: &[u64], blamed: &[usize]) -> (Vec<u64>, Vec<u64>) {
        let events = leads.iter().map(|number| queued_at(*number, SENT)).collect();
        let numbers = |part: Vec<QueuedEvent>| {
            part.iter().map(|queued| queued.event.lead_id.get() % 1_000).collect()
        };
        let (first, second) = take_apart(events, &blamed.iter().copied().collect());
        (numbers(first), numbers(second))
    }

    #[test]
    fn a_refusal_is_doubted_near_the_report_and_not_for_as_long_as_a_clock_was_ahead() {
        let is_doubted = |seconds| is_doubted(&queued_at(1, SENT + seconds), 600_000, at(0));
        assert!(is_doubted(-599) && is_doubted(0) && is_doubted(599));
        assert!(!is_doubted(-600) && !is_doubted(600) && !is_doubted(3 * 86_400));
    }

    #[test]
    fn a_refused_batch_is_halved_or_what_meta_points_at_goes_last() {
        assert_eq!(apart(&[1, 2, 3, 4, 5], &[]), (vec![1, 2], vec![3, 4, 5]));
        assert_eq!(apart(&[1, 2, 3, 4], &[2]), (vec![1, 2, 4], vec![3]));
        assert_eq!(apart(&[1, 2, 1, 4], &[2]), (vec![2, 4], vec![1, 1]), "a lead stays together");
        assert_eq!(apart(&[1, 1], &[1]), (vec![1], vec![1]), "it gets smaller all the same");
        assert_eq!(apart(&[1, 2], &[0, 1]), (vec![1], vec![2]));
        assert_eq!(apart(&[1, 2], &[7]), (vec![1], vec![2]));
    }

    #[test]
    fn the_longer_of_schedule_and_wish_counts_up_to_an_hour() {
        let wait_ms =
            |verdict, scheduled_ms| wanted_at(verdict, scheduled_ms, at(0)).millis_since(at(0));
        let asked = |seconds: u64| Verdict::Throttled { wait_ms: Some(seconds * 1_000) };
        assert_eq!(wait_ms(Verdict::Retry { wait_ms: None }, 700), 700);
        assert_eq!(wait_ms(asked(90), 700), 90_000);
        assert_eq!(wait_ms(asked(1), 5_000), 5_000);
        assert_eq!(wait_ms(asked(1_000_000), 700), 3_600_000);
        let paused = Verdict::Paused(crate::meta::errors::PauseReason::Token);
        assert_eq!((wait_ms(paused, 700), wait_ms(paused, 900_000)), (700, 300_000));
    }

    #[test]
    fn no_wait_parks_an_event_past_its_deadline() {
        let last_try_s = |left_s: i64| last_try_at(at(left_s), at(0)).millis_since(at(0)) / 1_000;
        assert_eq!(last_try_s(7_200), 3_600, "an hour before its end");
        assert_eq!(last_try_s(3_601), 1);
        assert_eq!((last_try_s(3_600), last_try_s(30)), (60, 60), "then every minute");
    }

    #[test]
    fn a_request_is_bounded_in_bytes_and_has_one_event_at_least() {
        let event = |bytes: usize| {
            let mut queued = queued_at(1, SENT);
            queued.event.custom_data = Some("x".repeat(bytes).into());
            queued
        };
        assert_eq!(fit_request(vec![event(10); 1_000]).len(), 1_000);
        assert_eq!(fit_request(vec![event(SEND_BYTES_MAX / 4); 10]).len(), 3);
        assert_eq!(fit_request(vec![event(SEND_BYTES_MAX * 2), event(1)]).len(), 1);
    }
}
