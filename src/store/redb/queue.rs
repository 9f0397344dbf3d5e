//! The queues: what is next, how it ended, and what moves between queues.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::domain::alarm::{Causes, Subject};
use crate::domain::event::{DeadReason, Standing};
use crate::domain::ids::{DatasetId, EventId, LeadId};
use crate::domain::routing::Routing;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::{EVENT_AGE_MAX_S, SEND_MARGIN_S};
use crate::store::records::{encode_attempt, encode_dead, encode_lead};
use crate::store::redb::alarms::{self, event_id};
use crate::store::redb::ingest::enqueue;
use crate::store::redb::matching::known_id;
use crate::store::redb::read::{
    NumberedLead, detail, event_by_seq, find_event, lead_by_id, timeline,
};
use crate::store::redb::tables::{Place, Tables};
use crate::store::redb::writer::Unit;
use crate::store::{
    Batch, Enqueued, Hold, QueueEntry, QueuedEvent, Requeued, Settlement, StoreError, Stranded,
};

/// See [`crate::store::Store::next_batch`].
pub(super) fn next_batch(
    view: &Tables<'_>,
    dataset_id: DatasetId,
    now: Timestamp,
    limit: usize,
    kept_back: &BTreeSet<LeadId>,
) -> Result<Batch, StoreError> {
    let next_due = next_due(view, dataset_id, now)?;
    let mut batch = Batch { events: Vec::new(), next_due, hold: Some(Hold::default()) };
    let mut kept_back: BTreeSet<u64> = kept_back.iter().map(|lead_id| lead_id.get()).collect();
    let due = dated(dataset_id.get(), now.seconds());
    let front = view.layers.front(dataset_id.get()).unwrap_or(*due.start());
    for row in view.outbox.range(front..=*due.end())? {
        if batch.events.len() >= limit {
            break;
        }
        let (key, lead_id) = row?;
        let (entry, lead_id) = (entry_at(key.value()), lead_id.value());
        if !kept_back.contains(&lead_id) {
            match event_by_seq(view, entry.seq) {
                Ok(event) => batch.events.push(QueuedEvent { entry, event }),
                Err(error @ StoreError::Corrupt(_)) => {
                    // One event that can't be read holds up its lead, and not the dataset.
                    tracing::error!(%error, seq = entry.seq, "a queued event cannot be read");
                    kept_back.insert(lead_id);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(batch)
}

/// See [`crate::store::Store::still_queued`].
pub(super) fn still_queued(
    view: &Tables<'_>,
    dataset_id: DatasetId,
    entries: &BTreeSet<QueueEntry>,
) -> Result<BTreeSet<QueueEntry>, StoreError> {
    let mut queued = BTreeSet::new();
    for entry in entries {
        if view.outbox.get(place_of(dataset_id.get(), *entry))?.is_some() {
            queued.insert(*entry);
        }
    }
    Ok(queued)
}

/// The time of the first event of a dataset that is not due yet.
fn next_due(
    view: &Tables<'_>,
    dataset_id: DatasetId,
    now: Timestamp,
) -> Result<Option<UnixSeconds>, StoreError> {
    let later = (now.seconds() + 1).get();
    let rows = (dataset_id.get(), later, false, 0)..(dataset_id.get() + 1, i64::MIN, false, 0);
    let first = view.outbox.range(rows)?.next().transpose()?;
    Ok(first.map(|(key, _)| entry_at(key.value()).event_time))
}

/// The places in a queue of all events that are dated no later than this.
pub(super) fn dated(dataset: u64, until: UnixSeconds) -> RangeInclusive<Place> {
    (dataset, i64::MIN, false, 0)..=(dataset, until.get(), true, u64::MAX)
}

/// The entry at a place.
pub(super) fn entry_at((_, event_time, reported, seq): Place) -> QueueEntry {
    QueueEntry { event_time: UnixSeconds::new(event_time), reported, seq }
}

/// The place of an entry in a dataset's queue, or in the queue 0 of events without a dataset.
pub(super) fn place_of(dataset: u64, entry: QueueEntry) -> Place {
    (dataset, entry.event_time.get(), entry.reported, entry.seq)
}

/// See [`crate::store::Store::settle`].
pub(super) fn settle(unit: &mut Unit<'_>, settlement: &Settlement) -> Result<(), StoreError> {
    let dataset = settlement.dataset_id.get();
    if let Some(attempt) = &settlement.attempt {
        let attempt_seq = unit.seq();
        let mut links = 0;
        for entry in &settlement.failed {
            if unit.tables.outbox.get(place_of(dataset, *entry))?.is_some() {
                unit.tables.failures.insert((entry.seq, attempt_seq), ());
                links += 1;
            }
        }
        for entry in &settlement.delivered {
            if leave_queue(unit, dataset, *entry)? {
                unit.tables.delivered.insert(entry.seq, attempt_seq);
                links += 1;
            }
        }
        // An attempt that no event is left of can't be seen by anybody.
        if links > 0 {
            unit.tables.attempts.insert(attempt_seq, encode_attempt(attempt)?.as_slice());
            unit.tables.attempt_links.insert(attempt_seq, links);
        }
    }
    let mut causes = Causes::default();
    for (entry, reason) in &settlement.dead {
        if leave_queue(unit, dataset, *entry)? {
            unit.tables.dead.insert(entry.seq, encode_dead(*reason, settlement.at)?);
            let dataset_id = Some(settlement.dataset_id);
            let subject = Subject::dead(dataset_id, *reason, settlement.attempt.as_ref());
            causes.add(subject, || event_id(&unit.tables, entry.seq));
        }
    }
    find_front(unit, dataset)?;
    alarms::raise(unit, causes, settlement.at)
}

/// Puts an event into a queue.
pub(super) fn put_in_queue(unit: &mut Unit<'_>, place: Place, lead_id: u64) {
    if unit.tables.layers.front(place.0).is_some_and(|front| place < front) {
        unit.tables.layers.set_front(place);
    }
    unit.tables.outbox.insert(place, lead_id);
}

/// Remembers where a queue begins by now.
fn find_front(unit: &Unit<'_>, dataset: u64) -> Result<(), StoreError> {
    let all = dated(dataset, UnixSeconds::new(i64::MAX));
    let front = unit.tables.layers.front(dataset).unwrap_or(*all.start());
    let first = unit.tables.outbox.range(front..=*all.end())?.next().transpose()?;
    unit.tables.layers.set_front(first.map_or(*all.end(), |(place, _)| place.value()));
    Ok(())
}

fn leave_queue(unit: &mut Unit<'_>, dataset: u64, entry: QueueEntry) -> Result<bool, StoreError> {
    Ok(unit.tables.outbox.remove(place_of(dataset, entry))?.is_some())
}

/// See [`crate::store::Store::requeue`].
pub(super) fn requeue(
    unit: &mut Unit<'_>,
    event_id: EventId,
    routing: &Routing,
    now: Timestamp,
) -> Result<Requeued, StoreError> {
    let Some(((seq, event), lead)) = find_event(&unit.tables, event_id)? else {
        return Ok(Requeued::NotFound);
    };
    let lead_only = lead.as_ref().map(|(_, lead)| lead);
    let before = detail(&unit.tables, (seq, event.clone()), lead_only)?;
    let Standing::Dead { reason, .. } = before.standing else {
        return Ok(Requeued::NotDead(before));
    };
    let Some(mut lead) = lead.filter(|_| event.has_hope(reason, now)) else {
        return Ok(Requeued::Hopeless(before));
    };
    let mut enqueued = Enqueued::default();
    unit.tables.dead.remove(seq)?;
    route_lead(unit, &mut lead, routing)?;
    let entry = QueueEntry { event_time: event.event_time, reported: seq != lead.0, seq };
    enqueue(unit, (entry, event.lead_id), lead.1.dataset_id, &mut enqueued);
    Ok(Requeued::Done(detail(&unit.tables, (seq, event), Some(&lead.1))?, enqueued))
}

/// See [`crate::store::Store::route_held`].
pub(super) fn route_held(unit: &mut Unit<'_>, routing: &Routing) -> Result<u64, StoreError> {
    hold_unconfigured(unit, routing)?;
    let mut moved = 0;
    for (entry, lead_id) in queue_of(unit, 0)? {
        let lead_id = known_id(lead_id)?;
        let Some((lead_seq, mut lead)) = lead_by_id(&unit.tables, lead_id)? else {
            continue;
        };
        let dataset_id = routing.keep_or_resolve(lead.dataset_id, lead.reported.page_id);
        if lead.dataset_id != dataset_id {
            lead.dataset_id = dataset_id;
            unit.tables.leads.insert(lead_seq, encode_lead(&lead)?.as_slice());
        }
        if let Some(dataset_id) = lead.dataset_id {
            move_queued(unit, 0, dataset_id.get(), (entry, lead_id.get()))?;
            moved += 1;
        }
    }
    Ok(moved)
}

/// Moves what is queued for datasets that are not configured into the queue of events without one.
fn hold_unconfigured(unit: &mut Unit<'_>, routing: &Routing) -> Result<(), StoreError> {
    let mut unconfigured = Vec::new();
    for (dataset, _) in fronts(&unit.tables)? {
        let is_configured = |id| routing.is_configured(id);
        if dataset != 0 && !DatasetId::from_u64(dataset).is_some_and(is_configured) {
            unconfigured.push(dataset);
        }
    }
    for dataset in unconfigured {
        for row in queue_of(unit, dataset)? {
            move_queued(unit, dataset, 0, row)?;
        }
    }
    Ok(())
}

/// The queues that are not empty, each with the entry in front.
pub(super) fn fronts(view: &Tables<'_>) -> Result<Vec<(u64, QueueEntry)>, StoreError> {
    let mut fronts = Vec::new();
    let mut from = (0, i64::MIN, false, 0);
    while let Some(place) = first_from(view, from)? {
        fronts.push((place.0, entry_at(place)));
        let Some(next) = place.0.checked_add(1) else { break };
        from = (next, i64::MIN, false, 0);
    }
    Ok(fronts)
}

/// The first place from this one on that is taken.
fn first_from(view: &Tables<'_>, mut from: Place) -> Result<Option<Place>, StoreError> {
    while let Some(known) = view.layers.next_known(from.0) {
        let front = view.layers.front(known).unwrap_or((known, i64::MIN, false, 0)).max(from);
        let before = view.outbox.range(from..(known, i64::MIN, false, 0).max(from))?.next();
        let Some(after) = known.checked_add(1) else { break };
        let next = (after, i64::MIN, false, 0);
        let first = match before {
            Some(row) => Some(row),
            None => view.outbox.range(front..next)?.next(),
        };
        if let Some(row) = first {
            return Ok(Some(row?.0.value()));
        }
        from = next;
    }
    Ok(view.outbox.range(from..)?.next().transpose()?.map(|(place, _)| place.value()))
}

/// Gives a lead the dataset that is configured for it by now; what is queued for it goes along.
pub(super) fn route_lead(
    unit: &mut Unit<'_>,
    (lead_seq, lead): &mut NumberedLead,
    routing: &Routing,
) -> Result<(), StoreError> {
    let before = lead.dataset_id;
    lead.dataset_id = routing.keep_or_resolve(before, lead.reported.page_id);
    if lead.dataset_id == before {
        return Ok(());
    }
    unit.tables.leads.insert(*lead_seq, encode_lead(lead)?.as_slice());
    let lead_id = lead.reported.lead_id;
    let number = |dataset_id: Option<DatasetId>| dataset_id.map_or(0, DatasetId::get);
    let (from, to) = (number(before), number(lead.dataset_id));
    let numbered = (*lead_seq, lead.clone());
    for (seq, event) in timeline(&unit.tables, lead_id, Some(&numbered))? {
        let reported = seq != *lead_seq;
        let entry = QueueEntry { event_time: event.event_time, reported, seq };
        if unit.tables.outbox.remove(place_of(from, entry))?.is_some() {
            put_in_queue(unit, place_of(to, entry), lead_id.get());
        }
    }
    Ok(())
}

/// An entry and the lead of its event.
type Queued = (QueueEntry, u64);

fn queue_of(unit: &Unit<'_>, dataset: u64) -> Result<Vec<Queued>, StoreError> {
    let rows = unit.tables.outbox.range(dated(dataset, UnixSeconds::new(i64::MAX)))?;
    rows.map(|row| {
        let (place, lead_id) = row?;
        Ok((entry_at(place.value()), lead_id.value()))
    })
    .collect()
}

fn move_queued(
    unit: &mut Unit<'_>,
    from: u64,
    to: u64,
    (entry, lead_id): Queued,
) -> Result<(), StoreError> {
    unit.tables.outbox.remove(place_of(from, entry))?;
    put_in_queue(unit, place_of(to, entry), lead_id);
    Ok(())
}

/// Events that no worker looks after and whose time is over.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    /// (Lead id, event's number) of those that await their lead.
    awaiting: Vec<(u64, u64)>,
    /// Places of those without a dataset.
    held: Vec<Place>,
}

impl Overdue {
    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.awaiting.is_empty() && self.held.is_empty()
    }
}

/// Looks for what is overdue; outside the writer, because rows of dead letters stay among those
/// that wait.
pub(super) fn find_overdue(view: &Tables<'_>, now: Timestamp) -> Result<Overdue, StoreError> {
    let mut overdue = Overdue::default();
    for row in view.awaiting.all()? {
        let (key, value) = row?;
        if is_past(value.value().1, now) {
            overdue.awaiting.push(key.value());
        }
    }
    let last_past = now.seconds() + (SEND_MARGIN_S - EVENT_AGE_MAX_S);
    for row in view.outbox.range(dated(0, last_past))? {
        overdue.held.push(row?.0.value());
    }
    Ok(overdue)
}

fn is_past(last_second: i64, now: Timestamp) -> bool {
    now.seconds() >= UnixSeconds::new(last_second) + -SEND_MARGIN_S
}

/// Lets what was found expire, unless something has happened to it since.
pub(super) fn expire_stranded(
    unit: &mut Unit<'_>,
    overdue: &Overdue,
    now: Timestamp,
) -> Result<Stranded, StoreError> {
    Ok(Stranded {
        awaiting: expire_awaiting(unit, &overdue.awaiting, now)?,
        held: expire_held(unit, &overdue.held, now)?,
    })
}

fn expire_awaiting(
    unit: &mut Unit<'_>,
    overdue: &[(u64, u64)],
    now: Timestamp,
) -> Result<u64, StoreError> {
    let (mut causes, mut expired) = (Causes::default(), 0);
    for &place in overdue {
        let found = unit.tables.awaiting.get(place)?.map(|value| value.value());
        let Some((tolerance_s, _)) = found.filter(|(_, last)| is_past(*last, now)) else {
            continue;
        };
        unit.tables.dead.insert(place.1, encode_dead(DeadReason::LeadNotFound, now)?);
        // The row stays, so that the event is found by its lead; it can't expire again.
        unit.tables.awaiting.insert(place, (tolerance_s, i64::MAX));
        let subject = Subject::dead(None, DeadReason::LeadNotFound, None);
        causes.add(subject, || event_id(&unit.tables, place.1));
        expired += 1;
    }
    alarms::raise(unit, causes, now)?;
    Ok(expired)
}

fn expire_held(unit: &mut Unit<'_>, overdue: &[Place], now: Timestamp) -> Result<u64, StoreError> {
    let (mut causes, mut expired) = (Causes::default(), 0);
    for &place in overdue {
        let entry = entry_at(place);
        if !leave_queue(unit, 0, entry)? {
            continue;
        }
        unit.tables.dead.insert(entry.seq, encode_dead(DeadReason::Expired, now)?);
        let subject = Subject::dead(None, DeadReason::Expired, None);
        causes.add(subject, || event_id(&unit.tables, entry.seq));
        expired += 1;
    }
    alarms::raise(unit, causes, now)?;
    Ok(expired)
}
