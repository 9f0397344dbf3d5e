//! Lists, newest first, and figures.

use std::collections::BTreeSet;

use redb::{AccessGuard, ReadableTable, ReadableTableMetadata};

use crate::domain::event::{EventDetail, EventState, LeadDetail};
use crate::domain::ids::DatasetId;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::PAGE_SCAN_MAX;
use crate::store::query::{LeadFilter, Page, PageBuilder, PageRequest};
use crate::store::redb::queue::{dated, entry_at, fronts};
use crate::store::redb::read::{detail_by_seq, lead_detail};
use crate::store::redb::records::{decode_lead, decode_quarantined};
use crate::store::redb::tables::{Place, View};
use crate::store::{NearDeadline, Quarantined, Stats, StoreError};

/// See [`crate::store::Store::list_leads`].
pub(super) fn list_leads(
    view: &impl View,
    filter: &LeadFilter,
    page: PageRequest,
    now: Timestamp,
) -> Result<Page<LeadDetail>, StoreError> {
    let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
    for row in view.leads().range(..page.cursor.unwrap_or(u64::MAX))?.rev() {
        let (seq, bytes) = row?;
        let lead = decode_lead(bytes.value())?;
        let mut item = None;
        if filter.admits_lead(&lead) {
            let detail = lead_detail(view, (seq.value(), lead))?;
            item = filter.admits_detail(&detail, now).then_some(detail);
        }
        if !builder.offer(seq.value(), item) {
            break;
        }
    }
    Ok(builder.finish())
}

/// See [`crate::store::Store::list_events`].
pub(super) fn list_events(
    view: &impl View,
    state: Option<EventState>,
    page: PageRequest,
    now: Timestamp,
) -> Result<Page<EventDetail>, StoreError> {
    let below = page.cursor.unwrap_or(u64::MAX);
    let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
    for seq in candidates(view, state, below, now)? {
        let seq = seq?;
        let detail = detail_by_seq(view, seq)?;
        let admitted = state.is_none_or(|state| detail.state(now) == state);
        if !builder.offer(seq, admitted.then_some(detail)) {
            break;
        }
    }
    Ok(builder.finish())
}

type Numbers<'v> = Box<dyn Iterator<Item = Result<u64, StoreError>> + 'v>;

/// The numbers of events that may be in a state, newest first, from the table that knows.
fn candidates(
    view: &impl View,
    state: Option<EventState>,
    below: u64,
    now: Timestamp,
) -> Result<Numbers<'_>, StoreError> {
    Ok(match state {
        None => Box::new(newest_events(view, below)?),
        Some(EventState::Delivered) => {
            let rows = view.delivered().range(..below)?.rev();
            Box::new(rows.map(|row| Ok(row?.0.value())))
        }
        Some(EventState::Dead) => {
            let rows = view.dead().range(..below)?.rev();
            Box::new(rows.map(|row| Ok(row?.0.value())))
        }
        Some(EventState::AwaitingLead) => {
            let rows = view.awaiting().iter()?.map(|row| Ok(row?.0.value().1));
            Box::new(newest_of(rows, below)?)
        }
        Some(state @ (EventState::Held | EventState::Pending)) => {
            let rows = view.outbox().iter()?.filter_map(move |row| queued_in(state, row, now));
            Box::new(newest_of(rows, below)?)
        }
    })
}

type OutboxRow<'v> = (AccessGuard<'v, Place>, AccessGuard<'v, u64>);

/// The number of the event in a row of the outbox, if the event is in that state.
fn queued_in(
    state: EventState,
    row: Result<OutboxRow<'_>, redb::StorageError>,
    now: Timestamp,
) -> Option<Result<u64, StoreError>> {
    let place = match row {
        Ok((place, _)) => place.value(),
        Err(error) => return Some(Err(error.into())),
    };
    let (dataset_id, entry) = (DatasetId::from_u64(place.0), entry_at(place));
    (EventState::of_queued(dataset_id, entry.event_time, now) == state).then_some(Ok(entry.seq))
}

/// The newest numbers below a bound, of rows that come in another order.
fn newest_of(
    rows: impl Iterator<Item = Result<u64, StoreError>>,
    below: u64,
) -> Result<impl Iterator<Item = Result<u64, StoreError>>, StoreError> {
    let mut newest = BTreeSet::new();
    for seq in rows {
        let seq = seq?;
        if seq < below {
            newest.insert(seq);
            if newest.len() > PAGE_SCAN_MAX {
                newest.pop_first();
            }
        }
    }
    Ok(newest.into_iter().rev().map(Ok))
}

/// The events below a bound, newest first: reported ones, and the raw-lead events inside leads.
fn newest_events(
    view: &impl View,
    below: u64,
) -> Result<impl Iterator<Item = Result<u64, StoreError>>, StoreError> {
    let reported = view.events().range(..below)?.rev();
    let mut reported = reported.map(|row| Ok(row?.0.value())).peekable();
    let raw = view.leads().range(..below)?.rev();
    let mut raw = raw.filter_map(|row| has_raw_event(row).transpose()).peekable();
    Ok(std::iter::from_fn(move || match (reported.peek(), raw.peek()) {
        (Some(Ok(seq)), Some(Ok(raw_seq))) if seq < raw_seq => raw.next(),
        (Some(_), _) => reported.next(),
        (None, _) => raw.next(),
    }))
}

type LeadRow<'v> = (AccessGuard<'v, u64>, AccessGuard<'v, &'static [u8]>);

/// The number of a lead that has a raw-lead event.
fn has_raw_event(row: Result<LeadRow<'_>, redb::StorageError>) -> Result<Option<u64>, StoreError> {
    let (seq, bytes) = row?;
    Ok(decode_lead(bytes.value())?.raw_event().map(|_| seq.value()))
}

/// See [`crate::store::Store::list_quarantine`].
pub(super) fn list_quarantine(
    view: &impl View,
    page: PageRequest,
) -> Result<Page<Quarantined>, StoreError> {
    let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
    for row in view.quarantine().range(..page.cursor.unwrap_or(u64::MAX))?.rev() {
        let (seq, bytes) = row?;
        if !builder.offer(seq.value(), Some(decode_quarantined(bytes.value())?)) {
            break;
        }
    }
    Ok(builder.finish())
}

/// See [`crate::store::Store::near_deadline`].
pub(super) fn near_deadline(
    view: &impl View,
    before: UnixSeconds,
) -> Result<Vec<NearDeadline>, StoreError> {
    let mut near = Vec::new();
    for (dataset, front) in fronts(view)? {
        let rows = view.outbox().range(dated(dataset, before + -1))?;
        let events = rows.map(|row| row.map(|_| 1)).sum::<Result<u64, _>>()?;
        if events > 0 {
            let dataset_id = DatasetId::from_u64(dataset);
            near.push(NearDeadline { dataset_id, events, earliest: front.event_time });
        }
    }
    Ok(near)
}

/// See [`crate::store::Store::stats`].
pub(super) fn stats(view: &impl View) -> Result<Stats, StoreError> {
    let fronts = fronts(view)?.into_iter();
    let fronts = fronts.map(|(dataset, front)| (DatasetId::from_u64(dataset), front.event_time));
    let mut awaiting = 0;
    for row in view.awaiting().iter()? {
        // A row past its time stays as the way to its dead letter.
        awaiting += u64::from(row?.1.value().1 != i64::MAX);
    }
    Ok(Stats {
        leads: view.leads().len()?,
        queued: view.outbox().len()?,
        awaiting,
        dead: view.dead().len()?,
        quarantined: view.quarantine().len()?,
        fronts: fronts.collect(),
    })
}
