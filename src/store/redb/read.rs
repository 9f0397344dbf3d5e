//! Reading leads and events together with what became of them.
//!
//! The functions work on any [`View`]: a snapshot of its own, or the transaction that is about to
//! write.

use redb::ReadableTable;

use crate::domain::event::{Attempt, Event, EventDetail, LeadDetail, Standing};
use crate::domain::ids::{EventId, LeadId};
use crate::domain::lead::Lead;
use crate::store::StoreError;
use crate::store::redb::records::{decode_attempt, decode_dead, decode_event, decode_lead};
use crate::store::redb::tables::View;

/// An event and its number.
pub(super) type Numbered = (u64, Event);

/// A lead and its number.
pub(super) type NumberedLead = (u64, Lead);

/// A lead and its number, by its id.
pub(super) fn lead_by_id(
    view: &impl View,
    lead_id: LeadId,
) -> Result<Option<NumberedLead>, StoreError> {
    let Some(seq) = view.lead_index().get(lead_id.get())?.map(|seq| seq.value()) else {
        return Ok(None);
    };
    let lead = lead_by_seq(view, seq)?;
    let missing = || StoreError::Corrupt(format!("lead {seq} is in the index only"));
    Ok(Some((seq, lead.ok_or_else(missing)?)))
}

fn lead_by_seq(view: &impl View, seq: u64) -> Result<Option<Lead>, StoreError> {
    view.leads().get(seq)?.map(|bytes| decode_lead(bytes.value())).transpose()
}

/// An event by its number: one that was reported, or the raw-lead event inside a lead.
pub(super) fn event_by_seq(view: &impl View, seq: u64) -> Result<Event, StoreError> {
    if let Some(bytes) = view.events().get(seq)? {
        return decode_event(bytes.value());
    }
    let raw = lead_by_seq(view, seq)?.and_then(|lead| lead.raw_event());
    raw.ok_or_else(|| StoreError::Corrupt(format!("event {seq} is missing")))
}

/// The events of a lead, known or awaited, the raw lead first.
pub(super) fn timeline(
    view: &impl View,
    lead_id: LeadId,
    lead: Option<&NumberedLead>,
) -> Result<Vec<Numbered>, StoreError> {
    let mut events = Vec::new();
    if let Some((lead_seq, lead)) = lead {
        events.extend(lead.raw_event().map(|event| (*lead_seq, event)));
        for row in view.lead_events().range((*lead_seq, 0)..=(*lead_seq, u64::MAX))? {
            let (_, seq) = row?.0.value();
            events.push((seq, event_by_seq(view, seq)?));
        }
    } else {
        for row in view.awaiting().range((lead_id.get(), 0)..=(lead_id.get(), u64::MAX))? {
            let (_, seq) = row?.0.value();
            events.push((seq, event_by_seq(view, seq)?));
        }
    }
    Ok(events)
}

fn attempt(view: &impl View, seq: u64) -> Result<Attempt, StoreError> {
    let bytes = view.attempts().get(seq)?;
    let missing = || StoreError::Corrupt(format!("attempt {seq} is missing"));
    decode_attempt(bytes.ok_or_else(missing)?.value())
}

/// An event with where it stands and every attempt. `lead` is its lead, if that is known.
pub(super) fn detail(
    view: &impl View,
    (seq, event): Numbered,
    lead: Option<&Lead>,
) -> Result<EventDetail, StoreError> {
    let mut attempts = Vec::new();
    for row in view.failures().range((seq, 0)..=(seq, u64::MAX))? {
        attempts.push(attempt(view, row?.0.value().1)?);
    }
    let standing = if let Some(delivered) = view.delivered().get(seq)? {
        let last = attempt(view, delivered.value())?;
        attempts.push(last.clone());
        Standing::Delivered(last)
    } else if let Some(dead) = view.dead().get(seq)? {
        let (reason, at) = decode_dead(dead.value())?;
        Standing::Dead { reason, at }
    } else {
        lead.map_or(Standing::AwaitingLead, |lead| Standing::Queued(lead.dataset_id))
    };
    Ok(EventDetail { event, standing, attempts })
}

/// A lead with its timeline.
pub(super) fn lead_detail(view: &impl View, lead: NumberedLead) -> Result<LeadDetail, StoreError> {
    let events = timeline(view, lead.1.reported.lead_id, Some(&lead))?;
    let events = events.into_iter().map(|event| detail(view, event, Some(&lead.1)));
    Ok(LeadDetail { events: events.collect::<Result<_, _>>()?, lead: lead.1 })
}

/// An event and its number, by its id, with its lead if that is known.
pub(super) fn find_event(
    view: &impl View,
    event_id: EventId,
) -> Result<Option<(Numbered, Option<NumberedLead>)>, StoreError> {
    let lead = lead_by_id(view, event_id.lead_id())?;
    let events = timeline(view, event_id.lead_id(), lead.as_ref())?;
    let event = events.into_iter().find(|(_, event)| event.id() == event_id);
    Ok(event.map(|event| (event, lead)))
}

/// An event by its number, with its lead and all that is known of it.
pub(super) fn detail_by_seq(view: &impl View, seq: u64) -> Result<EventDetail, StoreError> {
    let event = event_by_seq(view, seq)?;
    let lead = lead_by_id(view, event.lead_id)?;
    detail(view, (seq, event), lead.as_ref().map(|(_, lead)| lead))
}
