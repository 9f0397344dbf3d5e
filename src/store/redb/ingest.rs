//! Taking in leads and stage updates.

use redb::ReadableTable;

use crate::domain::alarm::{Causes, Subject};
use crate::domain::event::{Event, StageUpdate, short_digest};
use crate::domain::ids::{DatasetId, LeadId};
use crate::domain::intake::{Decision, Refusal, decide, decide_awaited};
use crate::domain::lead::Lead;
use crate::domain::routing::Routing;
use crate::domain::time::Timestamp;
use crate::store::redb::alarms;
use crate::store::redb::queue::{place_of, route_lead};
use crate::store::redb::read::{NumberedLead, lead_by_id, summary_by_seq, timeline};
use crate::store::redb::records::{
    decode_event, encode_dead, encode_event, encode_lead, encode_quarantined,
};
use crate::store::redb::remove::erased_at;
use crate::store::redb::writer::Unit;
use crate::store::{
    Enqueued, Ingested, Intake, LeadOutcome, QueueEntry, Recorded, StoreError, UpdateOutcome,
};

/// Puts an event into its dataset's queue, or into the queue of those without a dataset.
pub(super) fn enqueue(
    unit: &mut Unit<'_>,
    (entry, lead_id): (QueueEntry, LeadId),
    dataset_id: Option<DatasetId>,
    enqueued: &mut Enqueued,
) -> Result<(), StoreError> {
    let place = place_of(dataset_id.map_or(0, DatasetId::get), entry);
    unit.tables.outbox.insert(place, lead_id.get())?;
    enqueued.0.extend(dataset_id);
    Ok(())
}

/// See [`crate::store::Store::ingest`].
pub(super) fn ingest(
    unit: &mut Unit<'_>,
    intake: &Intake,
    now: Timestamp,
) -> Result<Ingested, StoreError> {
    let mut ingested = Ingested::default();
    for lead in &intake.leads {
        let outcome = add_lead(unit, lead, now, &mut ingested)?;
        ingested.outcomes.push(outcome);
    }
    let mut causes = Causes::default();
    for piece in &intake.quarantined {
        let digest = short_digest(&[&piece.payload]);
        // Meta repeats a delivery whose answer it did not get; the piece is kept once.
        if unit.tables.quarantine_index.get(&digest)?.is_none() {
            let seq = unit.seq();
            unit.tables.quarantine_index.insert(&digest, seq)?;
            unit.tables.quarantine.insert(seq, encode_quarantined(piece)?.as_slice())?;
            causes.add(Subject::QuarantineAdded, || None);
        }
    }
    alarms::raise(unit, causes, now)?;
    Ok(ingested)
}

fn add_lead(
    unit: &mut Unit<'_>,
    lead: &Lead,
    now: Timestamp,
    ingested: &mut Ingested,
) -> Result<LeadOutcome, StoreError> {
    let lead_id = lead.reported.lead_id;
    if erased_at(unit, lead_id)?.is_some() {
        return Ok(LeadOutcome::Erased);
    }
    if let Some((_, known)) = lead_by_id(&unit.tables, lead_id)? {
        return Ok(if known.reported.agrees_with(&lead.reported) {
            LeadOutcome::Duplicate
        } else {
            LeadOutcome::DifferingDuplicate
        });
    }
    let seq = unit.seq();
    unit.tables.lead_index.insert(lead_id.get(), seq)?;
    unit.tables.leads.insert(seq, encode_lead(lead)?.as_slice())?;
    let raw = lead.raw_event();
    if let Some(raw) = &raw {
        let entry = QueueEntry { event_time: raw.event_time, reported: false, seq };
        enqueue(unit, (entry, lead_id), lead.dataset_id, &mut ingested.enqueued)?;
    }
    join_awaiting(unit, (seq, lead), raw, now, ingested)?;
    Ok(LeadOutcome::New)
}

/// Judges the events that awaited this lead, and queues them behind its raw-lead event.
fn join_awaiting(
    unit: &mut Unit<'_>,
    (lead_seq, lead): (u64, &Lead),
    raw: Option<Event>,
    now: Timestamp,
    ingested: &mut Ingested,
) -> Result<(), StoreError> {
    let lead_id = lead.reported.lead_id.get();
    let mut awaiting = Vec::new();
    for row in unit.tables.awaiting.range((lead_id, 0)..=(lead_id, u64::MAX))? {
        let (key, value) = row?;
        awaiting.push((key.value().1, value.value().0));
    }
    let mut siblings: Vec<Event> = raw.into_iter().collect();
    let mut causes = Causes::default();
    for (seq, tolerance_s) in awaiting {
        unit.tables.awaiting.remove((lead_id, seq))?;
        unit.tables.lead_events.insert((lead_seq, seq), ())?;
        if unit.tables.dead.get(seq)?.is_some() {
            continue;
        }
        let bytes = unit.tables.events.get(seq)?;
        let missing = || StoreError::Corrupt(format!("awaited event {seq} is missing"));
        let mut event = decode_event(bytes.ok_or_else(missing)?.value())?;
        match decide_awaited(&event, lead, &siblings, tolerance_s, now) {
            Ok(event_time) => {
                event.event_time = event_time;
                unit.tables.events.insert(seq, encode_event(&event)?.as_slice())?;
                let entry = QueueEntry { event_time, reported: true, seq };
                enqueue(unit, (entry, event.lead_id), lead.dataset_id, &mut ingested.enqueued)?;
                siblings.push(event);
            }
            Err(reason) => {
                unit.tables.dead.insert(seq, encode_dead(reason, now)?)?;
                causes.add(Subject::dead(lead.dataset_id, reason, None), || Some(event.id()));
                ingested.dead.push(reason);
            }
        }
    }
    alarms::raise(unit, causes, now)
}

/// See [`crate::store::Store::record_stage_updates`].
pub(super) fn record_stage_updates(
    unit: &mut Unit<'_>,
    updates: &[StageUpdate],
    routing: &Routing,
    now: Timestamp,
) -> Result<Recorded, StoreError> {
    let mut enqueued = Enqueued::default();
    let mut outcomes = Vec::with_capacity(updates.len());
    for update in updates {
        outcomes.push(add_update(unit, update, routing, now, &mut enqueued)?);
    }
    Ok(Recorded { outcomes, enqueued })
}

fn add_update(
    unit: &mut Unit<'_>,
    update: &StageUpdate,
    routing: &Routing,
    now: Timestamp,
    enqueued: &mut Enqueued,
) -> Result<UpdateOutcome, StoreError> {
    let (key, fingerprint) = (update.key_digest(), update.fingerprint());
    if let Some(key) = &key {
        let before = unit.tables.idempotency.get(key)?;
        if let Some((seq, before)) = before.map(|row| (row.value().0, *row.value().1)) {
            if before != fingerprint {
                return Ok(UpdateOutcome::Refused(Refusal::IdempotencyConflict));
            }
            return Ok(UpdateOutcome::Known(summary_by_seq(&unit.tables, seq)?));
        }
    }
    if erased_at(unit, update.lead_id)?.is_some() {
        return Ok(UpdateOutcome::Refused(Refusal::LeadErased));
    }
    let lead = lead_by_id(&unit.tables, update.lead_id)?;
    let (seqs, siblings): (Vec<u64>, Vec<Event>) =
        timeline(&unit.tables, update.lead_id, lead.as_ref())?.into_iter().unzip();
    let lead_only = lead.as_ref().map(|(_, lead)| lead);
    let decision = match decide(update, lead_only, &siblings, now) {
        Ok(decision) => decision,
        Err(refusal) => return Ok(UpdateOutcome::Refused(refusal)),
    };
    let (seq, known) = match decision {
        Decision::Known { sibling } => (seqs[sibling], true),
        Decision::New { reported_time, event_time, tolerance_s } => {
            let event = update.clone().into_event(reported_time, event_time, now);
            let seq = unit.seq();
            unit.tables.events.insert(seq, encode_event(&event)?.as_slice())?;
            if let Some(lead) = lead {
                join_lead(unit, (seq, &event), lead, routing, enqueued)?;
            } else {
                let last_second = event.deliver_before().get();
                let place = (event.lead_id.get(), seq);
                unit.tables.awaiting.insert(place, (tolerance_s, last_second))?;
            }
            (seq, false)
        }
    };
    if let Some(key) = &key {
        unit.tables.idempotency.insert(key, (seq, &fingerprint))?;
        unit.tables.event_keys.insert((seq, key), ())?;
    }
    let detail = summary_by_seq(&unit.tables, seq)?;
    Ok(if known { UpdateOutcome::Known(detail) } else { UpdateOutcome::Accepted(detail) })
}

/// Adds a new event to its lead's timeline and queue. If the lead gets another dataset by that,
/// what is queued for it goes there too, so that the new event can't overtake it.
fn join_lead(
    unit: &mut Unit<'_>,
    (seq, event): (u64, &Event),
    mut lead: NumberedLead,
    routing: &Routing,
    enqueued: &mut Enqueued,
) -> Result<(), StoreError> {
    unit.tables.lead_events.insert((lead.0, seq), ())?;
    route_lead(unit, &mut lead, routing)?;
    let entry = QueueEntry { event_time: event.event_time, reported: true, seq };
    enqueue(unit, (entry, event.lead_id), lead.1.dataset_id, enqueued)
}
