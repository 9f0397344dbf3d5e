//! Reading leads and events together with what became of them.
//!
//! The functions work on the tables of any transaction: of one that only reads, or of one that is
//! about to write.

use crate::domain::event::{Attempt, AttemptLog, Event, EventDetail, LeadDetail, Standing};
use crate::domain::ids::{EventId, LeadId};
use crate::domain::lead::Lead;
use crate::limits::ATTEMPTS_SHOWN_MAX;
use crate::store::StoreError;
use crate::store::records::{decode_attempt, decode_dead, decode_event, decode_lead};
use crate::store::redb::matching::{crm_ids_of, customer_of, known_id};
use crate::store::redb::tables::Tables;

/// An event and its number.
pub(super) type Numbered = (u64, Event);

/// A lead and its number.
pub(super) type NumberedLead = (u64, Lead);

/// A lead and its number, by its id.
pub(super) fn lead_by_id(
    view: &Tables<'_>,
    lead_id: LeadId,
) -> Result<Option<NumberedLead>, StoreError> {
    let Some(seq) = view.lead_index.get(lead_id.get())?.map(|seq| seq.value()) else {
        return Ok(None);
    };
    let lead = lead_by_seq(view, seq)?;
    let missing = || StoreError::Corrupt(format!("lead {seq} is in the index only"));
    Ok(Some((seq, lead.ok_or_else(missing)?)))
}

fn lead_by_seq(view: &Tables<'_>, seq: u64) -> Result<Option<Lead>, StoreError> {
    view.leads.get(seq)?.map(|bytes| decode_lead(bytes.value())).transpose()
}

/// An event by its number: one that was reported, or the raw-lead event inside a lead.
pub(super) fn event_by_seq(view: &Tables<'_>, seq: u64) -> Result<Event, StoreError> {
    if let Some(bytes) = view.events.get(seq)? {
        return decode_event(bytes.value());
    }
    let raw = lead_by_seq(view, seq)?.and_then(|lead| lead.raw_event());
    raw.ok_or_else(|| StoreError::Corrupt(format!("event {seq} is missing")))
}

/// The events of a lead, known or awaited, the raw lead first.
pub(super) fn timeline(
    view: &Tables<'_>,
    lead_id: LeadId,
    lead: Option<&NumberedLead>,
) -> Result<Vec<Numbered>, StoreError> {
    let mut events = Vec::new();
    if let Some((lead_seq, lead)) = lead {
        events.extend(lead.raw_event().map(|event| (*lead_seq, event)));
        for row in view.lead_events.range((*lead_seq, 0)..=(*lead_seq, u64::MAX))? {
            let (_, seq) = row?.0.value();
            events.push((seq, event_by_seq(view, seq)?));
        }
    } else {
        for row in view.awaiting.range((lead_id.get(), 0)..=(lead_id.get(), u64::MAX))? {
            let (_, seq) = row?.0.value();
            events.push((seq, event_by_seq(view, seq)?));
        }
    }
    Ok(events)
}

fn attempt(view: &Tables<'_>, seq: u64) -> Result<Attempt, StoreError> {
    let bytes = view.attempts.get(seq)?;
    let missing = || StoreError::Corrupt(format!("attempt {seq} is missing"));
    decode_attempt(bytes.ok_or_else(missing)?.value())
}

/// Where an event stands. `lead` is its lead, if that is known.
pub(super) fn standing(
    view: &Tables<'_>,
    seq: u64,
    lead: Option<&Lead>,
) -> Result<Standing, StoreError> {
    standing_of(view, seq, delivered_by(view, seq)?, lead)
}

/// The number of the attempt that delivered an event.
fn delivered_by(view: &Tables<'_>, seq: u64) -> Result<Option<u64>, StoreError> {
    Ok(view.delivered.get(seq)?.map(|attempt| attempt.value()))
}

fn standing_of(
    view: &Tables<'_>,
    seq: u64,
    delivered: Option<u64>,
    lead: Option<&Lead>,
) -> Result<Standing, StoreError> {
    if delivered.is_some() {
        return Ok(Standing::Delivered);
    }
    if let Some(dead) = view.dead.get(seq)? {
        let (reason, at) = decode_dead(dead.value())?;
        return Ok(Standing::Dead { reason, at });
    }
    Ok(lead.map_or(Standing::AwaitingLead, |lead| Standing::Queued(lead.dataset_id)))
}

/// The numbers of an event's attempts, the last one first.
fn attempt_seqs(
    view: &Tables<'_>,
    seq: u64,
    delivered: Option<u64>,
) -> Result<impl Iterator<Item = Result<u64, StoreError>>, StoreError> {
    let delivered = delivered.map(Ok);
    let failures = view.failures.range((seq, 0)..=(seq, u64::MAX))?.rev();
    Ok(delivered.into_iter().chain(failures.map(|row| Ok(row?.0.value().1))))
}

/// The last attempt to deliver an event.
pub(super) fn last_attempt(view: &Tables<'_>, seq: u64) -> Result<Option<Attempt>, StoreError> {
    let mut seqs = attempt_seqs(view, seq, delivered_by(view, seq)?)?;
    seqs.next().map(|number| attempt(view, number?)).transpose()
}

/// The count of an event's attempts, and the latest of them.
fn attempts(
    view: &Tables<'_>,
    seq: u64,
    delivered: Option<u64>,
    latest_max: usize,
) -> Result<AttemptLog, StoreError> {
    let mut log = AttemptLog::default();
    for number in attempt_seqs(view, seq, delivered)? {
        let number = number?;
        if log.count < latest_max {
            log.latest.push(attempt(view, number)?);
        }
        log.count += 1;
    }
    log.latest.reverse();
    Ok(log)
}

/// An event with where it stands and its latest attempts. `lead` is its lead, if that is known.
pub(super) fn detail(
    view: &Tables<'_>,
    event: Numbered,
    lead: Option<&Lead>,
) -> Result<EventDetail, StoreError> {
    with_attempts(view, event, lead, ATTEMPTS_SHOWN_MAX)
}

/// The same with the last attempt alone.
pub(super) fn summary(
    view: &Tables<'_>,
    event: Numbered,
    lead: Option<&Lead>,
) -> Result<EventDetail, StoreError> {
    with_attempts(view, event, lead, 1)
}

fn with_attempts(
    view: &Tables<'_>,
    (seq, event): Numbered,
    lead: Option<&Lead>,
    latest_max: usize,
) -> Result<EventDetail, StoreError> {
    let delivered = delivered_by(view, seq)?;
    Ok(EventDetail {
        event,
        standing: standing_of(view, seq, delivered, lead)?,
        dataset_id: lead.and_then(|lead| lead.dataset_id),
        attempts: attempts(view, seq, delivered, latest_max)?,
    })
}

/// A lead with its timeline.
pub(super) fn lead_detail(view: &Tables<'_>, lead: NumberedLead) -> Result<LeadDetail, StoreError> {
    let events = timeline(view, lead.1.reported.lead_id, Some(&lead))?;
    let events = events.into_iter().map(|event| summary(view, event, Some(&lead.1)));
    Ok(LeadDetail {
        events: events.collect::<Result<_, _>>()?,
        crm_ids: crm_ids_of(view, lead.1.reported.lead_id)?,
        customer: customer_of(view, lead.1.reported.lead_id)?,
        lead: lead.1,
    })
}

/// See [`crate::store::Store::find_lead`].
pub(super) fn lead_detail_by_id(
    view: &Tables<'_>,
    lead_id: LeadId,
) -> Result<Option<LeadDetail>, StoreError> {
    lead_by_id(view, lead_id)?.map(|lead| lead_detail(view, lead)).transpose()
}

/// See [`crate::store::Store::find_event`].
pub(super) fn event_detail_by_id(
    view: &Tables<'_>,
    event_id: EventId,
) -> Result<Option<EventDetail>, StoreError> {
    let found = find_event(view, event_id)?;
    let detail = |(event, lead): (_, Option<NumberedLead>)| {
        detail(view, event, lead.as_ref().map(|(_, lead)| lead))
    };
    found.map(detail).transpose()
}

/// An event and its number, by its id, with its lead if that is known.
pub(super) fn find_event(
    view: &Tables<'_>,
    event_id: EventId,
) -> Result<Option<(Numbered, Option<NumberedLead>)>, StoreError> {
    let reported_lead = event_id.lead_id();
    let found = view.found_leads.get(reported_lead.get())?;
    let found = found.map(|lead_id| known_id(lead_id.value())).transpose()?;
    for lead_id in [Some(reported_lead), found].into_iter().flatten() {
        let lead = lead_by_id(view, lead_id)?;
        let events = timeline(view, lead_id, lead.as_ref())?;
        if let Some(event) = events.into_iter().find(|(_, event)| event.id() == event_id) {
            return Ok(Some((event, lead)));
        }
    }
    Ok(None)
}

/// An event by its number, with its last attempt.
pub(super) fn summary_by_seq(view: &Tables<'_>, seq: u64) -> Result<EventDetail, StoreError> {
    let event = event_by_seq(view, seq)?;
    let lead = lead_by_id(view, event.lead_id)?;
    summary(view, (seq, event), lead.as_ref().map(|(_, lead)| lead))
}
