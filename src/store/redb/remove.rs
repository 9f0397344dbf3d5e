//! What goes for good: a lead that is erased, and what is older than the operator wants to keep.

use crate::domain::event::short_digest;
use crate::domain::ids::{DatasetId, LeadId};
use crate::domain::lead::Lead;
use crate::domain::time::Timestamp;
use crate::limits::{REMOVE_MAX, REMOVE_SCAN_MAX};
use crate::store::records::{decode_lead, decode_quarantined};
use crate::store::redb::alarms;
use crate::store::redb::matching::{forget_matches, is_known_otherwise};
use crate::store::redb::queue::place_of;
use crate::store::redb::read::{Numbered, NumberedLead, lead_by_id, timeline};
use crate::store::redb::tables::{LAST_SEQ, Tables};
use crate::store::redb::writer::Unit;
use crate::store::{Erased, QueueEntry, Removed, StoreError};

/// See [`crate::store::Store::erase_lead`].
pub(super) fn erase_lead(
    unit: &mut Unit<'_>,
    lead_id: LeadId,
    now: Timestamp,
) -> Result<Option<Erased>, StoreError> {
    if let Some(at) = erased_at(&unit.tables, lead_id)? {
        return Ok(Some(Erased { at, events: 0, cancelled: 0 }));
    }
    let lead = lead_by_id(&unit.tables, lead_id)?;
    let events = timeline(&unit.tables, lead_id, lead.as_ref())?;
    if lead.is_none() && events.is_empty() && !is_known_otherwise(&unit.tables, lead_id)? {
        return Ok(None);
    }
    for (_, event) in events.iter().filter(|(_, event)| event.reported_lead != lead_id) {
        alarms::forget_lead(unit, event.reported_lead)?;
    }
    let (events, cancelled) = remove_timeline(unit, lead_id, lead.as_ref())?;
    alarms::forget_lead(unit, lead_id)?;
    unit.tables.erased.insert(lead_id.get(), now.as_millis());
    Ok(Some(Erased { at: now, events, cancelled }))
}

/// When a lead was erased, if it was.
pub(super) fn erased_at(
    view: &Tables<'_>,
    lead_id: LeadId,
) -> Result<Option<Timestamp>, StoreError> {
    let at = view.erased.get(lead_id.get())?;
    Ok(at.map(|at| Timestamp::from_millis(at.value())))
}

/// Removes a lead with its events, or the events that await it; how many events there were, and how
/// many of them were still to be sent.
fn remove_timeline(
    unit: &mut Unit<'_>,
    lead_id: LeadId,
    lead: Option<&NumberedLead>,
) -> Result<(u64, u64), StoreError> {
    let events = timeline(&unit.tables, lead_id, lead)?;
    let count = events.len() as u64;
    let mut open = 0;
    for event in &events {
        open += u64::from(remove_event(unit, event, lead)?);
        unit.tables.awaiting.remove((lead_id.get(), event.0))?;
    }
    forget_matches(unit, lead_id)?;
    if let Some((lead_seq, _)) = lead {
        unit.tables.lead_events.extract((*lead_seq, 0)..=(*lead_seq, u64::MAX))?;
        unit.tables.leads.remove(lead_seq)?;
        unit.tables.lead_index.remove(lead_id.get())?;
    }
    keep_seq(unit);
    Ok((count, open))
}

/// Removes an event with all that hangs on it but its place in the timeline; whether it was still
/// to be sent.
fn remove_event(
    unit: &mut Unit<'_>,
    (seq, event): &Numbered,
    lead: Option<&NumberedLead>,
) -> Result<bool, StoreError> {
    let mut is_open = unit.tables.dead.remove(seq)?.is_none();
    let delivered = unit.tables.delivered.remove(seq)?.map(|attempt| attempt.value());
    let of_event = (*seq, 0)..=(*seq, u64::MAX);
    let failures = unit.tables.failures.extract(of_event)?;
    let attempts = failures.iter().map(|(key, _)| key.value().1);
    let attempts: Vec<u64> = attempts.chain(delivered).collect();
    is_open &= delivered.is_none();
    for attempt in attempts {
        unlink_attempt(unit, attempt)?;
    }
    let of_event = (*seq, &[0; 16])..=(*seq, &[u8::MAX; 16]);
    let keys = unit.tables.event_keys.extract(of_event)?;
    for (key, _) in keys {
        unit.tables.idempotency.remove(key.value().1)?;
    }
    if let Some((lead_seq, Lead { dataset_id, .. })) = lead {
        let reported = lead_seq != seq;
        let entry = QueueEntry { event_time: event.event_time, reported, seq: *seq };
        let place = place_of(dataset_id.map_or(0, DatasetId::get), entry);
        unit.tables.outbox.remove(place)?;
    }
    unit.tables.events.remove(seq)?;
    Ok(is_open)
}

/// Takes one event off an attempt; an attempt that no event is left of goes too.
fn unlink_attempt(unit: &mut Unit<'_>, attempt: u64) -> Result<(), StoreError> {
    let links = unit.tables.attempt_links.get(attempt)?.map_or(0, |links| links.value());
    if links > 1 {
        unit.tables.attempt_links.insert(attempt, links - 1);
    } else {
        unit.tables.attempt_links.remove(attempt)?;
        unit.tables.attempts.remove(attempt)?;
    }
    Ok(())
}

/// Remembers the highest number, since the row that showed it may be gone now: a number is never
/// given out twice.
pub(super) fn keep_seq(unit: &mut Unit<'_>) {
    let last_seq = unit.last_seq();
    unit.tables.meta.insert(LAST_SEQ, last_seq);
}

/// What is old enough to go.
#[derive(Default)]
pub(super) struct Old {
    leads: Vec<LeadId>,
    /// Leads that never came, and whose events are dead letters.
    never_came: Vec<LeadId>,
    quarantined: Vec<u64>,
    /// Where to look next.
    pub(super) next: Option<u64>,
}

impl Old {
    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.leads.is_empty() && self.never_came.is_empty() && self.quarantined.is_empty()
    }
}

/// Looks for what is old, from a lead's number on.
pub(super) fn find_old(view: &Tables<'_>, before: Timestamp, from: u64) -> Result<Old, StoreError> {
    let mut old = Old::default();
    if from == 0 {
        old.never_came = old_that_never_came(view, before)?;
        old.quarantined = old_quarantined(view, before)?;
    }
    for (looked_at, row) in view.leads.range(from..)?.enumerate() {
        let (seq, bytes) = row?;
        if looked_at == REMOVE_SCAN_MAX || old.leads.len() == REMOVE_MAX {
            old.next = Some(seq.value());
            break;
        }
        old.leads.extend(readable(old_lead(view, (seq.value(), bytes.value()), before))?);
    }
    if old.never_came.len().max(old.quarantined.len()) == REMOVE_MAX {
        // There may be more of these, which are looked for at the start only.
        old.next = Some(0);
    }
    Ok(old)
}

/// The lead in a row, if it is old.
fn old_lead(
    view: &Tables<'_>,
    (seq, bytes): (u64, &[u8]),
    before: Timestamp,
) -> Result<Option<LeadId>, StoreError> {
    let lead = (seq, decode_lead(bytes)?);
    Ok(is_old(view, &lead, before)?.then_some(lead.1.reported.lead_id))
}

/// Whether nothing was heard of a lead since, and none of its events is still to be sent.
fn is_old(view: &Tables<'_>, lead: &NumberedLead, before: Timestamp) -> Result<bool, StoreError> {
    if lead.1.received_at >= before {
        return Ok(false);
    }
    for (seq, event) in timeline(view, lead.1.reported.lead_id, Some(lead))? {
        let has_ended = view.delivered.get(seq)?.is_some() || view.dead.get(seq)?.is_some();
        if !has_ended || event.received_at >= before {
            return Ok(false);
        }
    }
    Ok(true)
}

fn old_that_never_came(view: &Tables<'_>, before: Timestamp) -> Result<Vec<LeadId>, StoreError> {
    let mut old = Vec::new();
    let mut from = (0, 0);
    while old.len() < REMOVE_MAX
        && let Some(row) = view.awaiting.range(from..)?.next()
    {
        let (lead_id, _) = row?.0.value();
        if let Some(lead_id) = LeadId::from_known(lead_id)
            && readable(never_came_and_is_old(view, lead_id, before))?
        {
            old.push(lead_id);
        }
        let Some(next) = lead_id.checked_add(1) else { break };
        from = (next, 0);
    }
    Ok(old)
}

/// Whether all that awaits a lead is dead and old.
fn never_came_and_is_old(
    view: &Tables<'_>,
    lead_id: LeadId,
    before: Timestamp,
) -> Result<bool, StoreError> {
    for (seq, event) in timeline(view, lead_id, None)? {
        if view.dead.get(seq)?.is_none() || event.received_at >= before {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What can't be read is not old: it stays, and does not keep the others from being removed.
fn readable<T: Default>(judged: Result<T, StoreError>) -> Result<T, StoreError> {
    match judged {
        Err(error @ StoreError::Corrupt(_)) => {
            tracing::error!(%error, "a record cannot be read, and is not removed");
            Ok(T::default())
        }
        other => other,
    }
}

fn old_quarantined(view: &Tables<'_>, before: Timestamp) -> Result<Vec<u64>, StoreError> {
    let mut old = Vec::new();
    for row in view.quarantine.all()?.take(REMOVE_MAX) {
        let (seq, bytes) = row?;
        if decode_quarantined(bytes.value())?.received_at >= before {
            break;
        }
        old.push(seq.value());
    }
    Ok(old)
}

/// Removes what was found, unless something has happened to it since.
pub(super) fn remove_old(
    unit: &mut Unit<'_>,
    old: &Old,
    before: Timestamp,
) -> Result<Removed, StoreError> {
    let mut removed = Removed { next: old.next, ..Removed::default() };
    for &lead_id in &old.leads {
        let lead = lead_by_id(&unit.tables, lead_id)?;
        if let Some(lead) = lead
            && is_old(&unit.tables, &lead, before)?
        {
            removed.events += remove_timeline(unit, lead_id, Some(&lead))?.0;
            removed.leads += 1;
        }
    }
    for &lead_id in &old.never_came {
        // The lead may have come after all, and the CRM may have reported another stage of it.
        let is_unknown = lead_by_id(&unit.tables, lead_id)?.is_none();
        if is_unknown && never_came_and_is_old(&unit.tables, lead_id, before)? {
            removed.events += remove_timeline(unit, lead_id, None)?.0;
        }
    }
    for &seq in &old.quarantined {
        let piece = unit.tables.quarantine.remove(seq)?;
        let piece = piece.map(|bytes| decode_quarantined(bytes.value())).transpose()?;
        if let Some(piece) = piece {
            unit.tables.quarantine_index.remove(&short_digest(&[&piece.payload]))?;
            removed.quarantined += 1;
        }
    }
    keep_seq(unit);
    Ok(removed)
}
