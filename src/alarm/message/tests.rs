//! What the receiver gets, and the guide that promises it.

use std::fmt::Write;

use serde_json::Value;

use super::*;
use crate::clock::SeededRandom;
use crate::domain::alarm::Cause;
use crate::domain::ids::{DatasetId, EventId, LeadId};
use crate::domain::stage::{SourceName, StageName};
use crate::domain::time::UnixSeconds;

const NOW: i64 = 1_762_000_000;
const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guides/alarms.md");
const BEGIN: &str = "<!-- made by the code: begin -->\n";
const END: &str = "<!-- made by the code: end -->\n";

fn at(seconds: i64) -> Timestamp {
    UnixSeconds::new(NOW + seconds).timestamp()
}

fn event_id() -> EventId {
    let lead_id = LeadId::from_u64(1_234_567_890_123_456).unwrap();
    EventId::derive(lead_id, &StageName::parse("won").unwrap(), UnixSeconds::new(NOW))
}

/// An example of each kind with a sentence about it.
fn examples() -> Vec<(&'static str, Alarm)> {
    let dataset_id = DatasetId::from_u64(700).unwrap();
    let refused = Subject::EventsDead {
        dataset_id: Some(dataset_id),
        reason: DeadReason::RefusedByMeta,
        code: Some(100),
        subcode: Some(2_804_036),
    };
    let crm = SourceName::parse("hubspot").unwrap();
    let reason = "event_time_not_after_lead".into();
    let once = |subject, moment: Option<i64>| Cause::once(subject, moment.map(at));
    let near = Subject::EventsDeadlineNear { dataset_id: Some(dataset_id) };
    let paused = Subject::DatasetPaused { dataset_id, reason: "token".into() };
    let examples = [
        (
            "Events became dead letters. `code` and `subcode` are Meta's, and missing if Meta was \
             not the reason; so is `dataset_id` if there was none.",
            Cause { count: 2, event_ids: vec![event_id()], ..once(refused, None) },
        ),
        (
            "Events will be older than 7 days within a day and are not delivered; told again every \
             hour while that is so. `count` is how many there are.",
            Cause { count: 12, ..once(near, Some(80_000)) },
        ),
        ("A dataset is not sent to until somebody mends something.", once(paused, Some(-5))),
        (
            "It works again; `since` is when the pause began.",
            once(Subject::DatasetResumed { dataset_id }, Some(-5)),
        ),
        (
            "No delivery of the webhook has come for `webhook_silence_s`; `since` is when the last \
             one came. Told once.",
            once(Subject::WebhookSilent, Some(-86_400)),
        ),
        ("One has come.", once(Subject::WebhookResumed, Some(-86_400))),
        (
            "Something signed by Meta could not be read and is kept.",
            once(Subject::QuarantineAdded, None),
        ),
        (
            "A CRM sent what no mapping fits, and it is not kept for replay: a report is over 128 KiB, \
             or 1,000 of the source are kept already. `count` is how many came.",
            Cause { count: 4, ..once(Subject::ReportsNotKept { source: crm.clone() }, None) },
        ),
        (
            "Stages in a CRM's own webhook can be read, and the rules refuse them; a CRM does not \
             read the verdicts. `reason` is the code of the problem, `count` how many there were.",
            Cause {
                count: 2,
                ..once(Subject::ReportsRefused { source: crm.clone(), reason }, None)
            },
        ),
        (
            "A CRM sent what no mapping fits, and it is kept for replay. What comes again is not \
             counted again.",
            Cause { count: 3, ..once(Subject::ReportsKept { source: crm.clone() }, None) },
        ),
        (
            "What was kept for replay is seven days old: nothing in it could be sent any more, and it \
             is gone.",
            Cause { count: 3, ..once(Subject::ReportsExpired { source: crm }, None) },
        ),
    ];
    let alarm = |cause| Alarm { last_at: at(3), ..Alarm::new(cause, None, at(0)) };
    examples.into_iter().map(|(sentence, cause)| (sentence, alarm(cause))).collect()
}

fn body_of(alarm: &Alarm) -> String {
    String::from_utf8(Message::of(alarm).unwrap().body).unwrap()
}

/// The part of the guide that is made here.
fn types() -> String {
    let mut page = String::new();
    for (sentence, alarm) in examples() {
        let kind = alarm.cause.subject.kind().name();
        // Line by line as it is sent, but for the blanks.
        let Body { r#type, timestamp, .. } =
            Body { r#type: kind, timestamp: rfc3339(alarm.first_at), data: () };
        let data = serde_json::to_string_pretty(&Data::of(&alarm)).unwrap().replace('\n', "\n  ");
        let head = format!("  \"type\": \"{type}\",\n  \"timestamp\": \"{timestamp}\",");
        let body = format!("{{\n{head}\n  \"data\": {data}\n}}");
        let same: Value = serde_json::from_str(&body_of(&alarm)).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), same);
        writeln!(page, "### `{kind}`\n\n{sentence}\n\n```json\n{body}\n```\n").unwrap();
    }
    page
}

#[test]
fn the_guide_shows_an_example_of_each_kind_as_it_is_sent() {
    let kinds: Vec<_> = examples().iter().map(|(_, alarm)| alarm.cause.subject.kind()).collect();
    assert_eq!(kinds, AlarmKind::ALL);
    let guide = std::fs::read_to_string(GUIDE).unwrap();
    let (before, rest) = guide.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    let wanted = format!("\n{}", types());
    if std::env::var_os("LEADLOOP_WRITE_DOCS").is_some() {
        std::fs::write(GUIDE, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(written, wanted, "write it anew with LEADLOOP_WRITE_DOCS=1 cargo test --lib guide");
}

#[test]
fn a_message_is_the_same_at_each_try() {
    for (_, alarm) in examples() {
        let again = Alarm { tries: 7, next_try_at: at(900), ..alarm.clone() };
        assert_eq!(Message::of(&again).unwrap(), Message::of(&alarm).unwrap());
        let body = body_of(&alarm);
        assert!(body.starts_with("{\"type\":\""), "{body}");
        assert!(body.len() < 4_096, "small enough for any relay");
    }
}

#[test]
fn every_reason_to_die_has_words() {
    for reason in DeadReason::ALL {
        let (meaning, advice) = words(&Subject::dead(None, reason, None));
        assert!(meaning.is_some() && advice.is_some(), "{reason:?}");
    }
    for reason in PauseReason::ALL {
        let dataset_id = DatasetId::from_u64(7).unwrap();
        let paused = Subject::DatasetPaused { dataset_id, reason: reason.name().into() };
        assert_eq!(words(&paused), (None, Some(reason.advice())));
    }
}

#[test]
fn a_test_message_tells_that_it_is_one() {
    let random = SeededRandom::new(1);
    let [first, second] = [(), ()].map(|()| Message::test(&random, at(0)).unwrap());
    assert_ne!(first.id, second.id);
    let body: Value = serde_json::from_slice(&first.body).unwrap();
    assert_eq!(
        (&body["type"], &body["timestamp"]),
        (&"test".into(), &"2025-11-01T12:26:40Z".into())
    );
}
