//! Queueing many dead letters again.
//!
//! They are chosen on a snapshot, so that the writer has little to do; what has changed until it
//! gets to them is judged again there. How one is queued again stands in `queue`.

use crate::domain::event::EventState;
use crate::domain::lead::Lead;
use crate::domain::routing::Routing;
use crate::domain::time::Timestamp;
use crate::limits::PAGE_SCAN_MAX;
use crate::store::query::{DeadLetters, EventFilter, Page, PageBuilder, PageRequest};
use crate::store::records::decode_dead;
use crate::store::redb::ingest::enqueue;
use crate::store::redb::list::{admitted, seqs_of_lead};
use crate::store::redb::queue::route_lead;
use crate::store::redb::read::{NumberedLead, event_by_seq, find_event, lead_by_id};
use crate::store::redb::tables::Tables;
use crate::store::redb::writer::Unit;
use crate::store::{QueueEntry, RequeuedMany, StoreError};

/// Events that were chosen, and what is known of the others.
pub(super) struct Chosen {
    seqs: Vec<u64>,
    so_far: RequeuedMany,
}

/// Finds the events that are meant.
pub(super) fn choose(
    view: &Tables<'_>,
    letters: &DeadLetters,
    now: Timestamp,
) -> Result<Chosen, StoreError> {
    let mut so_far = RequeuedMany::default();
    let mut seqs = Vec::new();
    match letters {
        DeadLetters::Named(event_ids) => {
            for event_id in event_ids {
                match find_event(view, *event_id)? {
                    Some(((seq, _), _)) => seqs.push(seq),
                    None => so_far.not_found += 1,
                }
            }
        }
        DeadLetters::Filtered(filter, page) => {
            let page = oldest_dead(view, filter, *page, now)?;
            seqs = page.items;
            so_far.next_cursor = page.next_cursor;
        }
    }
    Ok(Chosen { seqs, so_far })
}

/// The dead letters that pass a filter, oldest first: they have the least time left.
fn oldest_dead(
    view: &Tables<'_>,
    filter: &EventFilter,
    page: PageRequest,
    now: Timestamp,
) -> Result<Page<u64>, StoreError> {
    let filter = EventFilter { state: Some(EventState::Dead), ..filter.clone() };
    let from = page.cursor.map_or(0, |cursor| cursor.saturating_add(1));
    let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
    let rows: Box<dyn Iterator<Item = Result<u64, StoreError>>> = match filter.lead_id {
        Some(lead_id) => {
            let seqs = seqs_of_lead(view, lead_id)?.into_iter();
            Box::new(seqs.filter(|seq| *seq >= from).map(Ok))
        }
        None => Box::new(view.dead.range(from..)?.map(|row| Ok(row?.0.value()))),
    };
    for seq in rows {
        let seq = seq?;
        let passes = admitted(view, &filter, seq, now)?.is_some();
        if !builder.offer(seq, passes.then_some(seq)) {
            break;
        }
    }
    Ok(builder.finish())
}

/// Sorts out what can be queued again, and counts the rest.
fn judge(
    view: &Tables<'_>,
    chosen: &Chosen,
    now: Timestamp,
) -> Result<(Vec<(QueueEntry, NumberedLead)>, RequeuedMany), StoreError> {
    let mut counts = chosen.so_far.clone();
    let mut hopeful = Vec::new();
    for &seq in &chosen.seqs {
        // Whoever came between the snapshot and the writer may have queued or removed it.
        let Some(dead) = view.dead.get(seq)? else {
            counts.not_dead += 1;
            continue;
        };
        let (reason, _) = decode_dead(dead.value())?;
        let event = event_by_seq(view, seq)?;
        match lead_by_id(view, event.lead_id)? {
            Some(lead) if event.has_hope(reason, now) => {
                let reported = seq != lead.0;
                let entry = QueueEntry { event_time: event.event_time, reported, seq };
                hopeful.push((entry, lead));
            }
            _ => counts.hopeless += 1,
        }
    }
    counts.requeued = hopeful.len() as u64;
    Ok((hopeful, counts))
}

/// What would become of them.
pub(super) fn rehearse(
    view: &Tables<'_>,
    letters: &DeadLetters,
    now: Timestamp,
) -> Result<RequeuedMany, StoreError> {
    let (_, counts) = judge(view, &choose(view, letters, now)?, now)?;
    Ok(counts)
}

/// See [`crate::store::Store::requeue_many`].
pub(super) fn requeue_many(
    unit: &mut Unit<'_>,
    chosen: &Chosen,
    routing: &Routing,
    now: Timestamp,
) -> Result<RequeuedMany, StoreError> {
    let (hopeful, mut counts) = judge(&unit.tables, chosen, now)?;
    for (entry, mut lead) in hopeful {
        // Both happen or neither does, and so for all of them: they are one transaction.
        unit.tables.dead.remove(entry.seq)?;
        route_lead(unit, &mut lead, routing)?;
        let (_, Lead { reported, dataset_id, .. }) = lead;
        enqueue(unit, (entry, reported.lead_id), dataset_id, &mut counts.enqueued);
    }
    Ok(counts)
}
