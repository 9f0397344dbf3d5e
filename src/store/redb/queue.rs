//! The queues: what is next, how it ended, and what moves between queues.

use std::collections::BTreeSet;

use redb::ReadableTable;

use crate::domain::event::{DeadReason, Standing};
use crate::domain::ids::{DatasetId, EventId, LeadId};
use crate::domain::routing::Routing;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::{EVENT_AGE_MAX_S, SEND_MARGIN_S};
use crate::store::redb::ingest::enqueue;
use crate::store::redb::read::{detail, event_by_seq, find_event, lead_by_id};
use crate::store::redb::records::{encode_attempt, encode_dead, encode_lead};
use crate::store::redb::tables::View;
use crate::store::redb::writer::Unit;
use crate::store::{
    Batch, Enqueued, QueueEntry, QueuedEvent, Requeued, Settlement, StoreError, Stranded,
};

/// See [`crate::store::Store::next_batch`].
pub(super) fn next_batch(
    view: &impl View,
    dataset_id: DatasetId,
    now: Timestamp,
    limit: usize,
    kept_back: &BTreeSet<LeadId>,
) -> Result<Batch, StoreError> {
    let mut batch = Batch::default();
    let mut kept_back: BTreeSet<u64> = kept_back.iter().map(|lead_id| lead_id.get()).collect();
    let dataset = dataset_id.get();
    for row in view.outbox().range((dataset, 0)..=(dataset, u64::MAX))? {
        if batch.events.len() >= limit {
            break;
        }
        let (key, value) = row?;
        let (seq, lead_id, event_time) = value.value();
        let due = UnixSeconds::new(event_time);
        if due > now.seconds() {
            kept_back.insert(lead_id);
            batch.next_due = batch.next_due.min(Some(due)).or(Some(due));
        } else if !kept_back.contains(&lead_id) {
            let entry = QueueEntry { position: key.value().1, seq };
            match event_by_seq(view, seq) {
                Ok(event) => batch.events.push(QueuedEvent { entry, event }),
                Err(error @ StoreError::Corrupt(_)) => {
                    // One event that can't be read holds up its lead, and not the dataset.
                    tracing::error!(%error, seq, "a queued event cannot be read");
                    kept_back.insert(lead_id);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(batch)
}

/// See [`crate::store::Store::settle`].
pub(super) fn settle(unit: &mut Unit<'_>, settlement: &Settlement) -> Result<(), StoreError> {
    let dataset = settlement.dataset_id.get();
    if let Some(attempt) = &settlement.attempt {
        let attempt_seq = unit.seq();
        unit.tables.attempts.insert(attempt_seq, encode_attempt(attempt)?.as_slice())?;
        for entry in &settlement.failed {
            if is_queued(unit, dataset, *entry)? {
                unit.tables.failures.insert((entry.seq, attempt_seq), ())?;
            }
        }
        for entry in &settlement.delivered {
            if leave_queue(unit, dataset, *entry)? {
                unit.tables.delivered.insert(entry.seq, attempt_seq)?;
            }
        }
    }
    for (entry, reason) in &settlement.dead {
        if leave_queue(unit, dataset, *entry)? {
            unit.tables.dead.insert(entry.seq, encode_dead(*reason, settlement.at)?)?;
        }
    }
    Ok(())
}

fn is_queued(unit: &Unit<'_>, dataset: u64, entry: QueueEntry) -> Result<bool, StoreError> {
    let queued = unit.tables.outbox.get((dataset, entry.position))?;
    Ok(queued.is_some_and(|row| row.value().0 == entry.seq))
}

fn leave_queue(unit: &mut Unit<'_>, dataset: u64, entry: QueueEntry) -> Result<bool, StoreError> {
    let queued = is_queued(unit, dataset, entry)?;
    if queued {
        unit.tables.outbox.remove((dataset, entry.position))?;
    }
    Ok(queued)
}

/// See [`crate::store::Store::requeue`].
pub(super) fn requeue(
    unit: &mut Unit<'_>,
    event_id: EventId,
    now: Timestamp,
) -> Result<Requeued, StoreError> {
    let Some(((seq, event), lead)) = find_event(&unit.tables, event_id)? else {
        return Ok(Requeued::NotFound);
    };
    let lead = lead.map(|(_, lead)| lead);
    let before = detail(&unit.tables, (seq, event.clone()), lead.as_ref())?;
    let Standing::Dead { reason, .. } = before.standing else {
        return Ok(Requeued::NotDead(before));
    };
    let Some(lead) = lead.filter(|_| !reason.is_final() && !event.is_past_sending(now)) else {
        return Ok(Requeued::Hopeless(before));
    };
    let mut enqueued = Enqueued::default();
    unit.tables.dead.remove(seq)?;
    enqueue(unit, seq, &event, lead.dataset_id, &mut enqueued)?;
    Ok(Requeued::Done(detail(&unit.tables, (seq, event), Some(&lead))?, enqueued))
}

/// See [`crate::store::Store::route_held`].
pub(super) fn route_held(unit: &mut Unit<'_>, routing: &Routing) -> Result<u64, StoreError> {
    hold_unconfigured(unit, routing)?;
    let mut moved = 0;
    for (position, event) in held(unit)? {
        let lead_id = LeadId::from_u64(event.1)
            .ok_or_else(|| StoreError::Corrupt("a queued event's lead id is impossible".into()))?;
        let Some((lead_seq, mut lead)) = lead_by_id(&unit.tables, lead_id)? else {
            continue;
        };
        let dataset_id = routing.keep_or_resolve(lead.dataset_id, lead.reported.page_id);
        if lead.dataset_id != dataset_id {
            lead.dataset_id = dataset_id;
            unit.tables.leads.insert(lead_seq, encode_lead(&lead)?.as_slice())?;
        }
        if let Some(dataset_id) = lead.dataset_id {
            move_queued(unit, 0, dataset_id.get(), (position, event))?;
            moved += 1;
        }
    }
    Ok(moved)
}

/// Moves what is queued for datasets that are not configured into the queue of events without one.
fn hold_unconfigured(unit: &mut Unit<'_>, routing: &Routing) -> Result<(), StoreError> {
    let mut unconfigured = Vec::new();
    let mut from = (1, 0);
    while let Some(row) = unit.tables.outbox.range(from..)?.next() {
        let (dataset, _) = row?.0.value();
        if !DatasetId::from_u64(dataset).is_some_and(|id| routing.is_configured(id)) {
            unconfigured.push(dataset);
        }
        let Some(next) = dataset.checked_add(1) else { break };
        from = (next, 0);
    }
    for dataset in unconfigured {
        for row in queue_of(unit, dataset)? {
            move_queued(unit, dataset, 0, row)?;
        }
    }
    Ok(())
}

/// Moves what is queued for a lead from one queue to another; `None` is the queue of events without
/// a dataset.
pub(super) fn move_queued_of(
    unit: &mut Unit<'_>,
    lead_id: LeadId,
    from: Option<DatasetId>,
    to: Option<DatasetId>,
) -> Result<(), StoreError> {
    let number = |dataset_id: Option<DatasetId>| dataset_id.map_or(0, DatasetId::get);
    for (position, event) in queue_of(unit, number(from))? {
        if event.1 == lead_id.get() {
            move_queued(unit, number(from), number(to), (position, event))?;
        }
    }
    Ok(())
}

/// A position in a queue, and what is there.
type Queued = (u64, (u64, u64, i64));

/// The queue of events without a dataset.
fn held(unit: &Unit<'_>) -> Result<Vec<Queued>, StoreError> {
    queue_of(unit, 0)
}

fn queue_of(unit: &Unit<'_>, dataset: u64) -> Result<Vec<Queued>, StoreError> {
    let rows = unit.tables.outbox.range((dataset, 0)..=(dataset, u64::MAX))?;
    rows.map(|row| {
        let (key, value) = row?;
        Ok((key.value().1, value.value()))
    })
    .collect()
}

/// The position stays, so the events of a lead stay in order.
fn move_queued(
    unit: &mut Unit<'_>,
    from: u64,
    to: u64,
    (position, event): Queued,
) -> Result<(), StoreError> {
    unit.tables.outbox.remove((from, position))?;
    unit.tables.outbox.insert((to, position), event)?;
    Ok(())
}

/// See [`crate::store::Store::expire_stranded`].
pub(super) fn expire_stranded(unit: &mut Unit<'_>, now: Timestamp) -> Result<Stranded, StoreError> {
    Ok(Stranded { awaiting: expire_awaiting(unit, now)?, held: expire_held(unit, now)? })
}

fn is_past(last_second: UnixSeconds, now: Timestamp) -> bool {
    now.seconds() >= last_second + -SEND_MARGIN_S
}

fn expire_awaiting(unit: &mut Unit<'_>, now: Timestamp) -> Result<u64, StoreError> {
    let mut expired = Vec::new();
    for row in unit.tables.awaiting.iter()? {
        let (key, value) = row?;
        let (tolerance_s, last_second) = value.value();
        if is_past(UnixSeconds::new(last_second), now) {
            expired.push((key.value(), tolerance_s));
        }
    }
    for (place, tolerance_s) in &expired {
        let dead = encode_dead(DeadReason::LeadNotFound, now)?;
        unit.tables.dead.insert(place.1, dead)?;
        // The row stays, so that the event is found by its lead; it can't expire again.
        unit.tables.awaiting.insert(*place, (*tolerance_s, i64::MAX))?;
    }
    Ok(expired.len() as u64)
}

fn expire_held(unit: &mut Unit<'_>, now: Timestamp) -> Result<u64, StoreError> {
    let mut expired = 0;
    for (position, (seq, _, event_time)) in held(unit)? {
        if is_past(UnixSeconds::new(event_time) + EVENT_AGE_MAX_S, now) {
            unit.tables.outbox.remove((0, position))?;
            unit.tables.dead.insert(seq, encode_dead(DeadReason::Expired, now)?)?;
            expired += 1;
        }
    }
    Ok(expired)
}
