//! How alarms are written as bytes, in the form of all records.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::domain::alarm::{Alarm, Cause, Subject};
use crate::domain::ids::{DatasetId, EventId};
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::records::{corrupt, decode, encode, read_reason, reason_number};

#[derive(Serialize, Deserialize)]
struct AlarmRecord<'a> {
    #[serde(borrow)]
    subject: SubjectRecord<'a>,
    count: u64,
    moment_ms: Option<i64>,
    event_ids: Vec<Cow<'a, str>>,
    first_at_ms: i64,
    last_at_ms: i64,
    tries: u32,
    next_try_at_ms: i64,
}

#[derive(Serialize, Deserialize)]
enum SubjectRecord<'a> {
    EventsDead { dataset_id: u64, reason: u8, code: Option<i64>, subcode: Option<i64> },
    EventsDeadlineNear { dataset_id: u64 },
    DatasetPaused { dataset_id: u64, reason: &'a str },
    DatasetResumed { dataset_id: u64 },
    WebhookSilent,
    WebhookResumed,
    QuarantineAdded,
    ReportsNotKept { source: &'a str },
    ReportsRefused { source: &'a str, reason: &'a str },
    ReportsKept { source: &'a str },
    ReportsExpired { source: &'a str },
}

/// Writes an alarm.
pub(in crate::store) fn encode_alarm(alarm: &Alarm) -> Result<Vec<u8>, StoreError> {
    let cause = &alarm.cause;
    encode(&AlarmRecord {
        subject: subject_record(&cause.subject)?,
        count: cause.count,
        moment_ms: cause.moment.map(Timestamp::as_millis),
        event_ids: cause.event_ids.iter().map(|id| id.to_string().into()).collect(),
        first_at_ms: alarm.first_at.as_millis(),
        last_at_ms: alarm.last_at.as_millis(),
        tries: alarm.tries,
        next_try_at_ms: alarm.next_try_at.as_millis(),
    })
}

/// Reads an alarm.
pub(in crate::store) fn decode_alarm(bytes: &[u8]) -> Result<Alarm, StoreError> {
    let record: AlarmRecord<'_> = decode(bytes, "alarm")?;
    let event_ids = record.event_ids.iter().map(|id| EventId::parse(id));
    Ok(Alarm {
        cause: Cause {
            subject: read_subject(&record.subject)?,
            count: record.count,
            moment: record.moment_ms.map(Timestamp::from_millis),
            event_ids: event_ids.collect::<Result<_, _>>().map_err(|_| corrupt("event id"))?,
        },
        first_at: Timestamp::from_millis(record.first_at_ms),
        last_at: Timestamp::from_millis(record.last_at_ms),
        tries: record.tries,
        next_try_at: Timestamp::from_millis(record.next_try_at_ms),
    })
}

fn subject_record(subject: &Subject) -> Result<SubjectRecord<'_>, StoreError> {
    let number = |dataset_id: &Option<DatasetId>| dataset_id.map_or(0, DatasetId::get);
    Ok(match subject {
        Subject::EventsDead { dataset_id, reason, code, subcode } => SubjectRecord::EventsDead {
            dataset_id: number(dataset_id),
            reason: reason_number(*reason)?,
            code: *code,
            subcode: *subcode,
        },
        Subject::EventsDeadlineNear { dataset_id } => {
            SubjectRecord::EventsDeadlineNear { dataset_id: number(dataset_id) }
        }
        Subject::DatasetPaused { dataset_id, reason } => {
            SubjectRecord::DatasetPaused { dataset_id: dataset_id.get(), reason }
        }
        Subject::DatasetResumed { dataset_id } => {
            SubjectRecord::DatasetResumed { dataset_id: dataset_id.get() }
        }
        Subject::WebhookSilent => SubjectRecord::WebhookSilent,
        Subject::WebhookResumed => SubjectRecord::WebhookResumed,
        Subject::QuarantineAdded => SubjectRecord::QuarantineAdded,
        Subject::ReportsNotKept { source } => {
            SubjectRecord::ReportsNotKept { source: source.as_str() }
        }
        Subject::ReportsRefused { source, reason } => {
            SubjectRecord::ReportsRefused { source: source.as_str(), reason }
        }
        Subject::ReportsKept { source } => SubjectRecord::ReportsKept { source: source.as_str() },
        Subject::ReportsExpired { source } => {
            SubjectRecord::ReportsExpired { source: source.as_str() }
        }
    })
}

fn read_subject(record: &SubjectRecord<'_>) -> Result<Subject, StoreError> {
    let dataset = |id| DatasetId::from_u64(id).ok_or(corrupt("dataset id"));
    let source = |name| SourceName::parse(name).map_err(|_| corrupt("source"));
    Ok(match *record {
        SubjectRecord::EventsDead { dataset_id, reason, code, subcode } => Subject::EventsDead {
            dataset_id: DatasetId::from_u64(dataset_id),
            reason: read_reason(reason)?,
            code,
            subcode,
        },
        SubjectRecord::EventsDeadlineNear { dataset_id } => {
            Subject::EventsDeadlineNear { dataset_id: DatasetId::from_u64(dataset_id) }
        }
        SubjectRecord::DatasetPaused { dataset_id, reason } => {
            Subject::DatasetPaused { dataset_id: dataset(dataset_id)?, reason: reason.into() }
        }
        SubjectRecord::DatasetResumed { dataset_id } => {
            Subject::DatasetResumed { dataset_id: dataset(dataset_id)? }
        }
        SubjectRecord::WebhookSilent => Subject::WebhookSilent,
        SubjectRecord::WebhookResumed => Subject::WebhookResumed,
        SubjectRecord::QuarantineAdded => Subject::QuarantineAdded,
        SubjectRecord::ReportsNotKept { source: name } => {
            Subject::ReportsNotKept { source: source(name)? }
        }
        SubjectRecord::ReportsRefused { source: name, reason } => {
            Subject::ReportsRefused { source: source(name)?, reason: reason.into() }
        }
        SubjectRecord::ReportsKept { source: name } => {
            Subject::ReportsKept { source: source(name)? }
        }
        SubjectRecord::ReportsExpired { source: name } => {
            Subject::ReportsExpired { source: source(name)? }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::DeadReason;
    use crate::domain::ids::LeadId;
    use crate::domain::stage::StageName;
    use crate::domain::time::UnixSeconds;
    use proptest::prelude::*;

    #[test]
    fn version_1_of_an_alarm_has_these_bytes_for_ever() {
        let event_id = EventId::derive(
            LeadId::from_u64(1_234_567_890_123_456).unwrap(),
            &StageName::parse("won").unwrap(),
            UnixSeconds::new(1_762_000_000),
        );
        let dataset_id = DatasetId::from_u64(7);
        let reason = DeadReason::RefusedByMeta;
        let id = dataset_id.unwrap();
        let crm = SourceName::parse("crm").unwrap();
        let subjects = [
            Subject::EventsDead { dataset_id, reason, code: Some(100), subcode: Some(-1) },
            Subject::EventsDeadlineNear { dataset_id: None },
            Subject::DatasetPaused { dataset_id: id, reason: "token".into() },
            Subject::DatasetResumed { dataset_id: id },
            Subject::WebhookSilent,
            Subject::WebhookResumed,
            Subject::QuarantineAdded,
            Subject::ReportsNotKept { source: crm.clone() },
            Subject::ReportsRefused { source: crm.clone(), reason: "too_old".into() },
            Subject::ReportsKept { source: crm.clone() },
            Subject::ReportsExpired { source: crm },
        ];
        let golden = [
            "0100070601c8010101",
            "010100",
            "01020705746f6b656e",
            "010307",
            "0104",
            "0105",
            "0106",
            "01070363726d",
            "01080363726d07746f6f5f6f6c64",
            "01090363726d",
            "010a0363726d",
        ];
        let same = "ac02010a012c6576745f3030303436326435336338616261633062326362\
                    3265616238656135356531356264653461353534e8d792f6c766ead792f6c766020c";
        for (subject, golden) in subjects.into_iter().zip(golden) {
            let alarm = Alarm {
                cause: Cause {
                    subject,
                    count: 300,
                    moment: Some(Timestamp::from_millis(5)),
                    event_ids: vec![event_id],
                },
                first_at: Timestamp::from_millis(1_762_000_000_500),
                last_at: Timestamp::from_millis(1_762_000_000_501),
                tries: 2,
                next_try_at: Timestamp::from_millis(6),
            };
            let bytes = encode_alarm(&alarm).unwrap();
            assert_eq!(hex::encode(&bytes), format!("{golden}{same}"));
            assert_eq!(decode_alarm(&bytes).unwrap(), alarm);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_never_a_panic(bytes: Vec<u8>) {
            let _ = decode_alarm(&bytes);
        }
    }
}
