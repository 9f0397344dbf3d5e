//! Lists, newest first, and figures.

use std::collections::BTreeSet;

use redb::{ReadableTable, ReadableTableMetadata};

use crate::domain::event::{EventDetail, EventState, LeadDetail};
use crate::domain::ids::DatasetId;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::PAGE_SCAN_MAX;
use crate::store::query::{LeadFilter, Page, PageBuilder, PageRequest};
use crate::store::redb::read::{detail_by_seq, lead_detail};
use crate::store::redb::records::{decode_lead, decode_quarantined};
use crate::store::redb::tables::View;
use crate::store::{Quarantined, Stats, StoreError};

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
    let candidates = match state {
        None | Some(EventState::Delivered) => newest_events(view, below)?,
        Some(EventState::Dead) => {
            let rows = view.dead().range(..below)?.rev().take(PAGE_SCAN_MAX);
            rows.map(|row| Ok(row?.0.value())).collect::<Result<_, StoreError>>()?
        }
        Some(EventState::AwaitingLead) => {
            let rows = view.awaiting().iter()?.map(|row| Ok(row?.0.value().1));
            newest_of(rows, below)?
        }
        Some(state @ (EventState::Held | EventState::Pending)) => {
            let rows = view.outbox().iter()?.filter_map(|row| {
                row.map_err(StoreError::from)
                    .map(|(key, value)| {
                        let (seq, _, event_time) = value.value();
                        let dataset_id = DatasetId::from_u64(key.value().0);
                        let due = UnixSeconds::new(event_time);
                        (EventState::of_queued(dataset_id, due, now) == state).then_some(seq)
                    })
                    .transpose()
            });
            newest_of(rows, below)?
        }
    };
    let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
    for seq in candidates {
        let detail = detail_by_seq(view, seq)?;
        let admitted = state.is_none_or(|state| detail.state(now) == state);
        if !builder.offer(seq, admitted.then_some(detail)) {
            break;
        }
    }
    Ok(builder.finish())
}

/// The newest numbers below a bound, of rows that come in another order.
fn newest_of(
    rows: impl Iterator<Item = Result<u64, StoreError>>,
    below: u64,
) -> Result<Vec<u64>, StoreError> {
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
    Ok(newest.into_iter().rev().collect())
}

/// The newest events below a bound: reported ones and the raw-lead events inside leads.
fn newest_events(view: &impl View, below: u64) -> Result<Vec<u64>, StoreError> {
    let reported = view.events().range(..below)?.rev();
    let mut reported = reported.map(|row| row.map(|(seq, _)| seq.value()));
    let mut raw = view.leads().range(..below)?.rev().filter_map(|row| {
        let lead = row
            .map_err(StoreError::from)
            .and_then(|(seq, bytes)| Ok((seq.value(), decode_lead(bytes.value())?)));
        lead.map(|(seq, lead)| lead.raw_event().map(|_| seq)).transpose()
    });
    let mut next_reported: Option<u64> = reported.next().transpose()?;
    let mut next_raw = raw.next().transpose()?;
    let mut newest = Vec::new();
    while newest.len() < PAGE_SCAN_MAX
        && let Some(seq) = next_reported.max(next_raw)
    {
        newest.push(seq);
        if next_reported == Some(seq) {
            next_reported = reported.next().transpose()?;
        } else {
            next_raw = raw.next().transpose()?;
        }
    }
    Ok(newest)
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

/// See [`crate::store::Store::stats`].
pub(super) fn stats(view: &impl View) -> Result<Stats, StoreError> {
    let mut fronts = Vec::new();
    let mut from = (0, 0);
    while let Some(row) = view.outbox().range(from..)?.next() {
        let (key, value) = row?;
        let (dataset, _) = key.value();
        fronts.push((DatasetId::from_u64(dataset), UnixSeconds::new(value.value().2)));
        let Some(next) = dataset.checked_add(1) else {
            break;
        };
        from = (next, 0);
    }
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
        fronts,
    })
}
