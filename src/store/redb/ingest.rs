//! Taking in leads, and what awaited them.

use crate::domain::alarm::{Causes, Subject};
use crate::domain::event::{DeadReason, Event, StageUpdate, short_digest};
use crate::domain::ids::{DatasetId, LeadId};
use crate::domain::intake::decide_awaited;
use crate::domain::lead::Lead;
use crate::domain::routing::Routing;
use crate::domain::time::Timestamp;
use crate::store::records::{
    decode_event, encode_dead, encode_event, encode_lead, encode_quarantined,
};
use crate::store::redb::alarms;
use crate::store::redb::matching::{adopt_by_contact, customer_of, keep_customer};
use crate::store::redb::queue::{place_of, put_in_queue};
use crate::store::redb::read::{NumberedLead, lead_by_id};
use crate::store::redb::remove::erased_at;
use crate::store::redb::writer::Unit;
use crate::store::{Enqueued, Ingested, Intake, LeadOutcome, QueueEntry, StoreError};

/// Puts an event into its dataset's queue, or into the queue of those without a dataset.
pub(super) fn enqueue(
    unit: &mut Unit<'_>,
    (entry, lead_id): (QueueEntry, LeadId),
    dataset_id: Option<DatasetId>,
    enqueued: &mut Enqueued,
) {
    let place = place_of(dataset_id.map_or(0, DatasetId::get), entry);
    put_in_queue(unit, place, lead_id.get());
    enqueued.0.extend(dataset_id);
}

/// What a use case did besides what it was asked for.
#[derive(Default)]
pub(super) struct Effects {
    /// Whose queues grew.
    pub(super) enqueued: Enqueued,
    /// Why events that had awaited their lead turned out to be dead letters.
    pub(super) dead: Vec<DeadReason>,
}

/// See [`crate::store::Store::ingest`].
pub(super) fn ingest(
    unit: &mut Unit<'_>,
    intake: &Intake,
    now: Timestamp,
) -> Result<Ingested, StoreError> {
    let mut effects = Effects::default();
    let mut outcomes = Vec::with_capacity(intake.leads.len());
    for lead in &intake.leads {
        outcomes.push(add_lead(unit, lead, now, &mut effects)?);
    }
    let mut causes = Causes::default();
    for piece in &intake.quarantined {
        let digest = short_digest(&[&piece.payload]);
        // Meta repeats a delivery whose answer it did not get; the piece is kept once.
        if unit.tables.quarantine_index.get(&digest)?.is_none() {
            let seq = unit.seq();
            unit.tables.quarantine_index.insert(&digest, seq);
            unit.tables.quarantine.insert(seq, encode_quarantined(piece)?.as_slice());
            causes.add(Subject::QuarantineAdded, || None);
        }
    }
    alarms::raise(unit, causes, now)?;
    let Effects { enqueued, dead } = effects;
    Ok(Ingested { outcomes, enqueued, dead })
}

fn add_lead(
    unit: &mut Unit<'_>,
    lead: &Lead,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<LeadOutcome, StoreError> {
    let lead_id = lead.reported.lead_id;
    if erased_at(&unit.tables, lead_id)?.is_some() {
        return Ok(LeadOutcome::Erased);
    }
    if let Some((_, known)) = lead_by_id(&unit.tables, lead_id)? {
        return Ok(if known.reported.agrees_with(&lead.reported) {
            LeadOutcome::Duplicate
        } else {
            LeadOutcome::DifferingDuplicate
        });
    }
    put_lead(unit, lead, now, effects)?;
    Ok(LeadOutcome::New)
}

/// Stores a lead with its raw-lead event, and gives it what awaited it.
fn put_lead(
    unit: &mut Unit<'_>,
    lead: &Lead,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<NumberedLead, StoreError> {
    let lead_id = lead.reported.lead_id;
    let seq = unit.seq();
    unit.tables.lead_index.insert(lead_id.get(), seq);
    unit.tables.leads.insert(seq, encode_lead(lead)?.as_slice());
    let raw = lead.raw_event();
    if let Some(raw) = &raw {
        let entry = QueueEntry { event_time: raw.event_time, reported: false, seq };
        enqueue(unit, (entry, lead_id), lead.dataset_id, &mut effects.enqueued);
    }
    let awaited = Awaited::all_of(unit, lead_id)?;
    for row in &awaited {
        unit.tables.awaiting.remove((lead_id.get(), row.seq))?;
    }
    let (numbered, siblings) = ((seq, lead.clone()), raw.into_iter().collect());
    join_awaiting(unit, &numbered, siblings, awaited, now, effects)?;
    adopt_by_contact(unit, lead_id, now, effects)?;
    Ok(numbered)
}

/// Stores somebody whose lead is not known, and whose events are sent all the same.
pub(super) fn add_unknown(
    unit: &mut Unit<'_>,
    lead_id: LeadId,
    update: &StageUpdate,
    routing: &Routing,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<NumberedLead, StoreError> {
    let dataset_id = routing.dataset_for(update, None);
    let lead = Lead::unknown(lead_id, update.source.clone(), dataset_id, now);
    keep_customer(unit, lead_id, &update.customer)?;
    put_lead(unit, &lead, now, effects)
}

/// An event that awaits its lead.
#[derive(Clone, Copy)]
pub(super) struct Awaited {
    pub(super) seq: u64,
    pub(super) tolerance_s: u32,
    pub(super) last_second: i64,
}

impl Awaited {
    /// All that await a lead, dead ones among them.
    pub(super) fn all_of(unit: &Unit<'_>, lead_id: LeadId) -> Result<Vec<Self>, StoreError> {
        let lead_id = lead_id.get();
        let rows = unit.tables.awaiting.range((lead_id, 0)..=(lead_id, u64::MAX))?;
        let rows = rows.map(|row| {
            let (key, value) = row?;
            let ((_, seq), (tolerance_s, last_second)) = (key.value(), value.value());
            Ok(Self { seq, tolerance_s, last_second })
        });
        rows.collect()
    }
}

/// Judges events that awaited a lead, and queues them behind its raw-lead event. `siblings` are the
/// lead's events so far.
pub(super) fn join_awaiting(
    unit: &mut Unit<'_>,
    (lead_seq, lead): &NumberedLead,
    mut siblings: Vec<Event>,
    awaited: Vec<Awaited>,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let mut causes = Causes::default();
    for Awaited { seq, tolerance_s, .. } in awaited {
        unit.tables.lead_events.insert((*lead_seq, seq), ());
        if unit.tables.dead.get(seq)?.is_some() {
            continue;
        }
        let bytes = unit.tables.events.get(seq)?;
        let missing = || StoreError::Corrupt(format!("awaited event {seq} is missing"));
        let mut event = decode_event(bytes.ok_or_else(missing)?.value())?;
        event.lead_id = lead.reported.lead_id;
        if lead.is_unknown() {
            event.customer.merge(&customer_of(&unit.tables, event.lead_id)?);
        }
        let verdict = decide_awaited(&event, lead, &siblings, tolerance_s, now);
        event.event_time = verdict.unwrap_or(event.event_time);
        unit.tables.events.insert(seq, encode_event(&event)?.as_slice());
        match verdict {
            Ok(event_time) => {
                let entry = QueueEntry { event_time, reported: true, seq };
                enqueue(unit, (entry, event.lead_id), lead.dataset_id, &mut effects.enqueued);
                siblings.push(event);
            }
            Err(reason) => {
                unit.tables.dead.insert(seq, encode_dead(reason, now)?);
                causes.add(Subject::dead(lead.dataset_id, reason, None), || Some(event.id()));
                effects.dead.push(reason);
            }
        }
    }
    alarms::raise(unit, causes, now)
}
