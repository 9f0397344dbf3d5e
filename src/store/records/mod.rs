//! How leads, events and attempts are written as bytes.
//!
//! A record is one byte that names its version, then the fields in postcard's format. A version
//! is never changed once it was released; a new one is added and the old one stays readable. The
//! tests hold the bytes of each version.

pub(in crate::store) mod alarm;
pub(in crate::store) mod mark;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::domain::customer::Customer;
use crate::domain::event::{Attempt, DeadReason, Event};
use crate::domain::ids::{AdId, DatasetId, FormId, LeadId, PageId};
use crate::domain::lead::{Lead, RawLead, ReportedLead};
use crate::domain::stage::{SourceName, StageName};
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::store::{Quarantined, StoreError, Unmapped};

/// The version that is written.
const VERSION: u8 = 1;

/// Writes a record in the version of now.
pub(in crate::store) fn encode(record: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    postcard::to_extend(record, vec![VERSION])
        .map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// Reads a record of a kind.
pub(in crate::store) fn decode<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    kind: &str,
) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&VERSION, record)) => postcard::from_bytes(record)
            .map_err(|error| StoreError::Corrupt(format!("{kind}: {error}"))),
        Some((version, _)) => Err(StoreError::Corrupt(format!("{kind} of version {version}"))),
        None => Err(StoreError::Corrupt(format!("{kind} without a byte"))),
    }
}

/// The error about a record that nobody wrote so.
pub(in crate::store) fn corrupt(field: &'static str) -> StoreError {
    StoreError::Corrupt(format!("a record's {field} is impossible"))
}

fn stage(name: &str) -> Result<StageName, StoreError> {
    StageName::parse(name).map_err(|_| corrupt("stage"))
}

fn source(name: &str) -> Result<SourceName, StoreError> {
    SourceName::parse(name).map_err(|_| corrupt("source"))
}

#[derive(Serialize, Deserialize)]
struct LeadRecord<'a> {
    lead_id: u64,
    page_id: u64,
    form_id: u64,
    ad_id: u64,
    created_time: i64,
    test: bool,
    received_at_ms: i64,
    source: &'a str,
    raw_lead: RawLeadRecord<'a>,
    dataset_id: u64,
}

#[derive(Serialize, Deserialize)]
enum RawLeadRecord<'a> {
    Emitted(&'a str),
    SkippedTest,
    SkippedTooOld,
    SkippedUnknown,
}

/// Writes a lead.
pub(in crate::store) fn encode_lead(lead: &Lead) -> Result<Vec<u8>, StoreError> {
    let reported = &lead.reported;
    encode(&LeadRecord {
        lead_id: reported.lead_id.get(),
        page_id: reported.page_id.map_or(0, PageId::get),
        form_id: reported.form_id.map_or(0, FormId::get),
        ad_id: reported.ad_id.map_or(0, AdId::get),
        created_time: reported.created_time.get(),
        test: reported.test,
        received_at_ms: lead.received_at.as_millis(),
        source: lead.source.as_str(),
        raw_lead: match &lead.raw_lead {
            RawLead::Emitted(stage) => RawLeadRecord::Emitted(stage.as_str()),
            RawLead::SkippedTest => RawLeadRecord::SkippedTest,
            RawLead::SkippedTooOld => RawLeadRecord::SkippedTooOld,
            RawLead::SkippedUnknown => RawLeadRecord::SkippedUnknown,
        },
        dataset_id: lead.dataset_id.map_or(0, DatasetId::get),
    })
}

/// Reads a lead.
pub(in crate::store) fn decode_lead(bytes: &[u8]) -> Result<Lead, StoreError> {
    let record: LeadRecord<'_> = decode(bytes, "lead")?;
    Ok(Lead {
        reported: ReportedLead {
            lead_id: LeadId::from_known(record.lead_id).ok_or(corrupt("lead id"))?,
            page_id: PageId::from_u64(record.page_id),
            form_id: FormId::from_u64(record.form_id),
            ad_id: AdId::from_u64(record.ad_id),
            created_time: UnixSeconds::new(record.created_time),
            test: record.test,
        },
        source: source(record.source)?,
        received_at: Timestamp::from_millis(record.received_at_ms),
        raw_lead: match record.raw_lead {
            RawLeadRecord::Emitted(name) => RawLead::Emitted(stage(name)?),
            RawLeadRecord::SkippedTest => RawLead::SkippedTest,
            RawLeadRecord::SkippedTooOld => RawLead::SkippedTooOld,
            RawLeadRecord::SkippedUnknown => RawLead::SkippedUnknown,
        },
        dataset_id: DatasetId::from_u64(record.dataset_id),
    })
}

type CustomerRecord<'a> = Vec<(Cow<'a, str>, Vec<Cow<'a, str>>)>;

fn borrowed(customer: &Customer) -> CustomerRecord<'_> {
    let parameters = customer.iter().map(|(name, values)| {
        (name.into(), values.iter().map(|value| value.as_str().into()).collect())
    });
    parameters.collect()
}

fn owned(record: CustomerRecord<'_>) -> Customer {
    Customer::from_stored(record.into_iter().map(|(name, values)| {
        (name.into_owned(), values.into_iter().map(Cow::into_owned).collect())
    }))
}

/// Writes what is known of a person.
pub(in crate::store) fn encode_customer(customer: &Customer) -> Result<Vec<u8>, StoreError> {
    encode(&borrowed(customer))
}

/// Reads what is known of a person.
pub(in crate::store) fn decode_customer(bytes: &[u8]) -> Result<Customer, StoreError> {
    Ok(owned(decode(bytes, "customer")?))
}

#[derive(Serialize, Deserialize)]
struct EventRecord<'a> {
    lead_id: u64,
    /// The lead that was reported, if that is another.
    found_later: Option<u64>,
    stage: &'a str,
    reported_time: i64,
    event_time: i64,
    source: &'a str,
    received_at_ms: i64,
    #[serde(borrow)]
    customer: CustomerRecord<'a>,
    custom_data: Option<&'a str>,
    source_dataset: u64,
}

/// Writes an event.
pub(in crate::store) fn encode_event(event: &Event) -> Result<Vec<u8>, StoreError> {
    encode(&EventRecord {
        lead_id: event.lead_id.get(),
        found_later: (event.reported_lead != event.lead_id).then_some(event.reported_lead.get()),
        stage: event.stage.as_str(),
        reported_time: event.reported_time.get(),
        event_time: event.event_time.get(),
        source: event.source.as_str(),
        received_at_ms: event.received_at.as_millis(),
        customer: borrowed(&event.customer),
        custom_data: event.custom_data.as_deref(),
        source_dataset: event.source_dataset.map_or(0, DatasetId::get),
    })
}

/// Reads an event.
pub(in crate::store) fn decode_event(bytes: &[u8]) -> Result<Event, StoreError> {
    let record: EventRecord<'_> = decode(bytes, "event")?;
    let lead_id = LeadId::from_known(record.lead_id).ok_or(corrupt("lead id"))?;
    let found_later = record.found_later.map(|id| LeadId::from_known(id).ok_or(corrupt("lead id")));
    Ok(Event {
        lead_id,
        reported_lead: found_later.transpose()?.unwrap_or(lead_id),
        source_dataset: DatasetId::from_u64(record.source_dataset),
        stage: stage(record.stage)?,
        reported_time: UnixSeconds::new(record.reported_time),
        event_time: UnixSeconds::new(record.event_time),
        source: source(record.source)?,
        received_at: Timestamp::from_millis(record.received_at_ms),
        customer: owned(record.customer),
        custom_data: record.custom_data.map(Into::into),
    })
}

#[derive(Serialize, Deserialize)]
struct AttemptRecord<'a> {
    dataset_id: u64,
    at_ms: i64,
    duration_ms: u64,
    events: u32,
    delivered: bool,
    http_status: Option<u16>,
    code: Option<i64>,
    subcode: Option<i64>,
    fbtrace_id: Option<&'a str>,
    message: Option<&'a str>,
}

/// Writes an attempt.
pub(in crate::store) fn encode_attempt(attempt: &Attempt) -> Result<Vec<u8>, StoreError> {
    encode(&AttemptRecord {
        dataset_id: attempt.dataset_id.get(),
        at_ms: attempt.at.as_millis(),
        duration_ms: attempt.duration_ms,
        events: attempt.events,
        delivered: attempt.delivered,
        http_status: attempt.http_status,
        code: attempt.code,
        subcode: attempt.subcode,
        fbtrace_id: attempt.fbtrace_id.as_deref(),
        message: attempt.message.as_deref(),
    })
}

/// Reads an attempt.
pub(in crate::store) fn decode_attempt(bytes: &[u8]) -> Result<Attempt, StoreError> {
    let record: AttemptRecord<'_> = decode(bytes, "attempt")?;
    Ok(Attempt {
        dataset_id: DatasetId::from_u64(record.dataset_id).ok_or(corrupt("dataset id"))?,
        at: Timestamp::from_millis(record.at_ms),
        duration_ms: record.duration_ms,
        events: record.events,
        delivered: record.delivered,
        http_status: record.http_status,
        code: record.code,
        subcode: record.subcode,
        fbtrace_id: record.fbtrace_id.map(Into::into),
        message: record.message.map(Into::into),
    })
}

#[derive(Serialize, Deserialize)]
struct QuarantineRecord<'a> {
    received_at_ms: i64,
    reason: &'a str,
    payload: &'a [u8],
}

/// Writes a piece of a webhook.
pub(in crate::store) fn encode_quarantined(piece: &Quarantined) -> Result<Vec<u8>, StoreError> {
    encode(&QuarantineRecord {
        received_at_ms: piece.received_at.as_millis(),
        reason: &piece.reason,
        payload: &piece.payload,
    })
}

/// Reads a piece of a webhook.
pub(in crate::store) fn decode_quarantined(bytes: &[u8]) -> Result<Quarantined, StoreError> {
    let record: QuarantineRecord<'_> = decode(bytes, "quarantined piece")?;
    Ok(Quarantined {
        received_at: Timestamp::from_millis(record.received_at_ms),
        reason: record.reason.to_owned(),
        payload: record.payload.to_vec(),
    })
}

#[derive(Serialize, Deserialize)]
struct UnmappedRecord<'a> {
    received_at_ms: i64,
    source: &'a str,
    field: &'a str,
    reason: &'a str,
    sealed: &'a [u8],
}

/// Writes what no mapping fits.
pub(in crate::store) fn encode_unmapped(unmapped: &Unmapped) -> Result<Vec<u8>, StoreError> {
    encode(&UnmappedRecord {
        received_at_ms: unmapped.received_at.as_millis(),
        source: unmapped.source.as_str(),
        field: &unmapped.field,
        reason: &unmapped.reason,
        sealed: &unmapped.sealed,
    })
}

/// Reads what no mapping fits.
pub(in crate::store) fn decode_unmapped(bytes: &[u8]) -> Result<Unmapped, StoreError> {
    let record: UnmappedRecord<'_> = decode(bytes, "unmapped report")?;
    Ok(Unmapped {
        received_at: Timestamp::from_millis(record.received_at_ms),
        source: SourceName::parse(record.source).map_err(|_| corrupt("source"))?,
        field: record.field.to_owned(),
        reason: record.reason.to_owned(),
        sealed: record.sealed.to_vec(),
    })
}

/// Reads bytes as every kind of record, for fuzzing: that must not panic, and what can be read must
/// be written as something that reads the same.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_as_every_kind(bytes: &[u8]) {
    macro_rules! check {
        ($($decode:ident, $encode:ident;)*) => {$(
            if let Ok(record) = $decode(bytes) {
                let written = $encode(&record).expect("what was read can be written");
                assert_eq!($decode(&written).as_ref(), Ok(&record));
            }
        )*};
    }
    check! {
        decode_lead, encode_lead;
        decode_event, encode_event;
        decode_attempt, encode_attempt;
        decode_quarantined, encode_quarantined;
        decode_unmapped, encode_unmapped;
    }
}

/// The stored number of each reason; numbers are never used again for another.
const REASONS: [(u8, DeadReason); 6] = [
    (1, DeadReason::Expired),
    (2, DeadReason::LeadNotFound),
    (3, DeadReason::EventTimeNotAfterLead),
    (4, DeadReason::LeadIsTest),
    (5, DeadReason::Duplicate),
    (6, DeadReason::RefusedByMeta),
];

/// Writes why an event is dead, and since when.
pub(in crate::store) fn encode_dead(
    reason: DeadReason,
    at: Timestamp,
) -> Result<(u8, i64), StoreError> {
    Ok((reason_number(reason)?, at.as_millis()))
}

/// Reads why an event is dead, and since when.
pub(in crate::store) fn decode_dead(
    (number, at_ms): (u8, i64),
) -> Result<(DeadReason, Timestamp), StoreError> {
    Ok((read_reason(number)?, Timestamp::from_millis(at_ms)))
}

/// The stored number of a reason.
pub(in crate::store) fn reason_number(reason: DeadReason) -> Result<u8, StoreError> {
    let known = REASONS.into_iter().find(|(_, known)| *known == reason);
    known.map(|(number, _)| number).ok_or(corrupt("reason"))
}

/// The reason of a stored number.
pub(in crate::store) fn read_reason(number: u8) -> Result<DeadReason, StoreError> {
    let known = REASONS.into_iter().find(|(known, _)| *known == number);
    known.map(|(_, reason)| reason).ok_or(corrupt("reason"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::customer::{Origin, Parameter};
    use proptest::prelude::*;

    fn lead() -> Lead {
        Lead {
            reported: ReportedLead {
                lead_id: LeadId::from_u64(1_234_567_890_123_456).unwrap(),
                page_id: PageId::from_u64(300),
                form_id: FormId::from_u64(2),
                ad_id: None,
                created_time: UnixSeconds::new(1_762_000_000),
                test: false,
            },
            source: SourceName::webhook(),
            received_at: Timestamp::from_millis(1_762_000_000_500),
            raw_lead: RawLead::Emitted(StageName::parse("initial_lead").unwrap()),
            dataset_id: DatasetId::from_u64(7),
        }
    }

    #[test]
    fn version_1_of_a_lead_has_these_bytes_for_ever() {
        let golden = "01c0f5aae4d3da9802ac02020080f2af900d00e8d792f6c766\
                      07776562686f6f6b000c696e697469616c5f6c65616407";
        assert_eq!(hex::encode(encode_lead(&lead()).unwrap()), golden);
        assert_eq!(decode_lead(&hex::decode(golden).unwrap()).unwrap(), lead());
    }

    #[test]
    fn version_1_of_an_event_has_these_bytes_for_ever() {
        let mut customer = Customer::default();
        customer.add(Parameter::Fbc, "fb.1.2.abc", &Origin::default()).unwrap();
        let event = Event {
            lead_id: LeadId::from_u64(1_234_567_890_123_456).unwrap(),
            reported_lead: LeadId::from_u64(1_234_567_890_123_456).unwrap(),
            source_dataset: DatasetId::from_u64(9),
            stage: StageName::parse("won").unwrap(),
            reported_time: UnixSeconds::new(1_762_000_000),
            event_time: UnixSeconds::new(1_762_000_001),
            source: SourceName::unnamed_crm(),
            received_at: Timestamp::from_millis(1_762_000_000_500),
            customer,
            custom_data: Some(r#"{"value":5}"#.into()),
        };
        let golden = "01c0f5aae4d3da98020003776f6e80f2af900d82f2af900d0363\
                      726de8d792f6c7660103666263010a66622e312e322e616263\
                      010b7b2276616c7565223a357d09";
        assert_eq!(hex::encode(encode_event(&event).unwrap()), golden);
        assert_eq!(decode_event(&hex::decode(golden).unwrap()).unwrap(), event);
    }

    #[test]
    fn version_1_of_an_attempt_has_these_bytes_for_ever() {
        let attempt = Attempt {
            dataset_id: DatasetId::from_u64(7).unwrap(),
            at: Timestamp::from_millis(1_762_000_000_500),
            duration_ms: 300,
            events: 2,
            delivered: false,
            http_status: Some(400),
            code: Some(100),
            subcode: Some(-1),
            fbtrace_id: Some("Ab1".into()),
            message: None,
        };
        let golden = "0107e8d792f6c766ac02020001900301c8010101010341623100";
        assert_eq!(hex::encode(encode_attempt(&attempt).unwrap()), golden);
        let read = decode_attempt(&hex::decode(golden).unwrap()).unwrap();
        assert_eq!(read, attempt);
    }

    #[test]
    fn version_1_of_what_no_mapping_fits_has_these_bytes_for_ever() {
        let unmapped = Unmapped {
            received_at: Timestamp::from_millis(1_762_000_000_500),
            source: SourceName::unnamed_crm(),
            field: "stage".into(),
            reason: "none".into(),
            sealed: vec![1, 2, 3],
        };
        let golden = "01e8d792f6c7660363726d057374616765046e6f6e6503010203";
        assert_eq!(hex::encode(encode_unmapped(&unmapped).unwrap()), golden);
        assert_eq!(decode_unmapped(&hex::decode(golden).unwrap()).unwrap(), unmapped);
    }

    #[test]
    fn an_unknown_version_and_a_cut_record_are_corrupt_and_no_panic() {
        let bytes = encode_lead(&lead()).unwrap();
        for end in 0..bytes.len() {
            assert!(matches!(decode_lead(&bytes[..end]), Err(StoreError::Corrupt(_))), "{end}");
        }
        let mut newer = bytes;
        newer[0] = VERSION + 1;
        assert!(matches!(decode_lead(&newer), Err(StoreError::Corrupt(_))));
    }

    #[test]
    fn the_number_of_a_reason_never_changes() {
        let numbers: Vec<_> = REASONS.map(|(number, reason)| (number, reason.name())).to_vec();
        let golden = [
            (1, "expired"),
            (2, "lead_not_found"),
            (3, "event_time_not_after_lead"),
            (4, "lead_is_test"),
            (5, "duplicate"),
            (6, "refused_by_meta"),
        ];
        assert_eq!(numbers, golden);
    }

    proptest! {
        #[test]
        fn events_survive_being_written_and_read(
            lead_id in 100_000_000_000_000..u64::MAX, reported in 1..u64::MAX, time: i32,
            late in 0..100i64, value in ".{1,20}",
            custom_data in proptest::option::of("[ -~]{0,40}")
        ) {
            let customer = Customer::from_stored([("fbc".to_owned(), vec![value])]);
            let lead_id = LeadId::from_known(lead_id).unwrap();
            let event = Event {
                lead_id,
                reported_lead: LeadId::from_known(reported).unwrap_or(lead_id),
                source_dataset: None,
                stage: StageName::parse("won").unwrap(),
                reported_time: UnixSeconds::new(time.into()),
                event_time: UnixSeconds::new(i64::from(time) + late),
                source: SourceName::unnamed_crm(),
                received_at: Timestamp::from_millis(i64::from(time) * 1_000),
                customer,
                custom_data: custom_data.map(Into::into),
            };
            prop_assert_eq!(decode_event(&encode_event(&event).unwrap()).unwrap(), event);
        }

        #[test]
        fn attempts_survive_being_written_and_read(
            at: i64, duration_ms: u64, delivered: bool, http_status: Option<u16>, code: Option<i64>,
            message: Option<String>
        ) {
            let attempt = Attempt {
                dataset_id: DatasetId::from_u64(1).unwrap(),
                at: Timestamp::from_millis(at),
                duration_ms,
                events: 3,
                delivered,
                http_status,
                code,
                subcode: code,
                fbtrace_id: message.clone(),
                message,
            };
            prop_assert_eq!(decode_attempt(&encode_attempt(&attempt).unwrap()).unwrap(), attempt);
        }

        #[test]
        fn arbitrary_bytes_are_never_a_panic(bytes: Vec<u8>) {
            let _ = decode_lead(&bytes);
            let _ = decode_event(&bytes);
            let _ = decode_attempt(&bytes);
            let _ = decode_quarantined(&bytes);
            let _ = decode_unmapped(&bytes);
        }
    }
}
