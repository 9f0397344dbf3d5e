//! Lists, newest first, and figures.

use std::collections::BTreeSet;

use crate::domain::event::{
    DeadReason, Event, EventDetail, EventState, LeadSummary, Standing, stage_of,
};
use crate::domain::ids::{DatasetId, LeadId};
use crate::domain::lead::Lead;
use crate::domain::matching::CrmId;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::{MATCH_CANDIDATES_MAX, PAGE_QUEUE_MAX, PAGE_SCAN_MAX};
use crate::store::query::{EventFilter, LeadFilter, Page, PageBuilder, PageRequest};
use crate::store::records::{decode_dead, decode_lead, decode_quarantined};
use crate::store::redb::matching::{known_id, leads_by_contact};
use crate::store::redb::queue::{dated, entry_at, fronts};
use crate::store::redb::read::{
    NumberedLead, event_by_seq, last_attempt, lead_by_id, standing, summary, timeline,
};
use crate::store::redb::rows::Row;
use crate::store::redb::tables::{Place, Tables};
use crate::store::{NearDeadline, Quarantined, Stats, StoreError};

/// See [`crate::store::Store::list_leads`].
pub(super) fn list_leads(
    view: &Tables<'_>,
    filter: &LeadFilter,
    page: PageRequest,
    now: Timestamp,
) -> Result<Page<LeadSummary>, StoreError> {
    let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
    for lead in leads_below(view, filter, page.cursor.unwrap_or(u64::MAX))? {
        let lead = lead?;
        let (seq, mut item) = (lead.0, None);
        if filter.admits_lead(&lead.1) {
            let events = standings(view, &lead)?;
            let events: Vec<_> = events.iter().map(|(event, at)| (event, at)).collect();
            if filter.admits_timeline(&events, now) {
                let stage = stage_of(events).cloned();
                item = Some(LeadSummary { lead: lead.1, stage });
            }
        }
        if !builder.offer(seq, item) {
            break;
        }
    }
    Ok(builder.finish())
}

/// The leads with numbers below this one that may pass the filter, newest first.
fn leads_below<'v>(
    view: &'v Tables<'v>,
    filter: &LeadFilter,
    below: u64,
) -> Result<Box<dyn Iterator<Item = Result<NumberedLead, StoreError>> + 'v>, StoreError> {
    let Some(found) = found_leads(view, filter)? else {
        let rows = view.leads.range(..below)?.rev();
        return Ok(Box::new(rows.map(|row| {
            let (seq, bytes) = row?;
            Ok((seq.value(), decode_lead(bytes.value())?))
        })));
    };
    let mut leads = Vec::new();
    for lead_id in found {
        leads.extend(lead_by_id(view, lead_id)?.filter(|(seq, _)| *seq < below));
    }
    leads.sort_by_key(|(seq, _)| std::cmp::Reverse(*seq));
    Ok(Box::new(leads.into_iter().map(Ok)))
}

/// The leads that a CRM's own id is linked with, whatever the source.
fn leads_by_crm_id(view: &Tables<'_>, crm_id: &CrmId) -> Result<Vec<LeadId>, StoreError> {
    let mut leads = Vec::new();
    for row in view.crm_ids.range((crm_id.as_str(), "")..)? {
        let (key, lead_id) = row?;
        if key.value().0 != crm_id.as_str() || leads.len() == MATCH_CANDIDATES_MAX {
            break;
        }
        leads.push(known_id(lead_id.value())?);
    }
    Ok(leads)
}

/// The leads that are found by what the filter says of the person or the CRM's record; `None` if
/// it says nothing.
fn found_leads(
    view: &Tables<'_>,
    filter: &LeadFilter,
) -> Result<Option<BTreeSet<LeadId>>, StoreError> {
    let mut found: Option<BTreeSet<LeadId>> = None;
    let by_crm_id = filter.crm_id.iter().map(|crm_id| leads_by_crm_id(view, crm_id));
    let contacts = filter.email.iter().chain(&filter.phone);
    for leads in by_crm_id.chain(contacts.map(|key| leads_by_contact(view, key))) {
        let leads: BTreeSet<LeadId> = leads?.into_iter().collect();
        found = Some(match found {
            Some(before) => before.intersection(&leads).copied().collect(),
            None => leads,
        });
    }
    Ok(found)
}

/// The events of a lead and where they stand, without their attempts.
fn standings(view: &Tables<'_>, lead: &NumberedLead) -> Result<Vec<(Event, Standing)>, StoreError> {
    let events = timeline(view, lead.1.reported.lead_id, Some(lead))?.into_iter();
    events.map(|(seq, event)| Ok((event, standing(view, seq, Some(&lead.1))?))).collect()
}

/// See [`crate::store::Store::list_events`].
pub(super) fn list_events(
    view: &Tables<'_>,
    filter: &EventFilter,
    page: PageRequest,
    now: Timestamp,
) -> Result<Page<EventDetail>, StoreError> {
    list_events_with(view, filter, page, now, PAGE_QUEUE_MAX)
}

/// The same with another bound on the queues that are looked through.
pub(super) fn list_events_with(
    view: &Tables<'_>,
    filter: &EventFilter,
    page: PageRequest,
    now: Timestamp,
    queue_max: u64,
) -> Result<Page<EventDetail>, StoreError> {
    let below = page.cursor.unwrap_or(u64::MAX);
    let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
    for row in candidates(view, filter, below, now, queue_max)? {
        let mut item = None;
        let (seq, is_event) = row?;
        if is_event && let Some(found) = admitted(view, filter, seq, now)? {
            item = Some(summary(view, (seq, found.event), found.lead.as_ref())?);
        }
        if !builder.offer(seq, item) {
            break;
        }
    }
    Ok(builder.finish())
}

/// An event that passed a filter.
pub(super) struct Found {
    /// The event.
    pub(super) event: Event,
    /// Its lead, if that is known.
    pub(super) lead: Option<Lead>,
}

/// The event of a number if it passes the filter; what is cheap is asked first.
pub(super) fn admitted(
    view: &Tables<'_>,
    filter: &EventFilter,
    seq: u64,
    now: Timestamp,
) -> Result<Option<Found>, StoreError> {
    let is_for = |wanted| dead_reason(view, seq).map(|reason| reason == Some(wanted));
    if !filter.reason.map_or(Ok(true), is_for)? {
        return Ok(None);
    }
    let event = event_by_seq(view, seq)?;
    let lead = lead_by_id(view, event.lead_id)?.map(|(_, lead)| lead);
    let standing = standing(view, seq, lead.as_ref())?;
    let passes = filter.admits_standing(&event, &standing, now)
        && filter.admits_lead(event.lead_id, lead.as_ref())
        && (filter.code.is_none() || filter.admits_attempt(last_attempt(view, seq)?.as_ref()));
    Ok(passes.then_some(Found { event, lead }))
}

fn dead_reason(view: &Tables<'_>, seq: u64) -> Result<Option<DeadReason>, StoreError> {
    let dead = view.dead.get(seq)?.map(|dead| decode_dead(dead.value()));
    Ok(dead.transpose()?.map(|(reason, _)| reason))
}

/// Rows to look at: a number, and whether it is an event's.
type Rows<'v> = Box<dyn Iterator<Item = Result<(u64, bool), StoreError>> + 'v>;

/// The numbers of events that may pass the filter, newest first, from the table that knows.
fn candidates<'v>(
    view: &'v Tables<'v>,
    filter: &EventFilter,
    below: u64,
    now: Timestamp,
    queue_max: u64,
) -> Result<Rows<'v>, StoreError> {
    if let Some(lead_id) = filter.lead_id {
        let mut seqs = seqs_of_lead(view, lead_id)?;
        seqs.retain(|seq| *seq < below);
        return Ok(Box::new(seqs.into_iter().rev().map(|seq| Ok((seq, true)))));
    }
    Ok(match filter.only_state() {
        Some(EventState::Delivered) => {
            let rows = view.delivered.range(..below)?.rev();
            Box::new(rows.map(|row| Ok((row?.0.value(), true))))
        }
        Some(EventState::Dead) => {
            let rows = view.dead.range(..below)?.rev();
            Box::new(rows.map(|row| Ok((row?.0.value(), true))))
        }
        Some(EventState::AwaitingLead) if view.awaiting.len()? <= queue_max => {
            let rows = view.awaiting.all()?.map(|row| Ok(row?.0.value().1));
            Box::new(newest_of(rows, below)?)
        }
        Some(state @ (EventState::Held | EventState::Pending))
            if view.outbox.len()? <= queue_max =>
        {
            let rows = view.outbox.all()?.filter_map(move |row| queued_in(state, row, now));
            Box::new(newest_of(rows, below)?)
        }
        // A longer queue is not looked through for every page; the newest events are instead.
        _ => Box::new(newest_events(view, below)?),
    })
}

/// The numbers of a lead's events, the smallest first.
pub(super) fn seqs_of_lead(view: &Tables<'_>, lead_id: LeadId) -> Result<Vec<u64>, StoreError> {
    let lead = lead_by_id(view, lead_id)?;
    let events = timeline(view, lead_id, lead.as_ref())?;
    let mut seqs: Vec<u64> = events.into_iter().map(|(seq, _)| seq).collect();
    seqs.sort_unstable();
    Ok(seqs)
}

/// The number of the event in a row of the outbox, if the event is in that state.
fn queued_in(
    state: EventState,
    row: Result<Row<Place, u64>, redb::StorageError>,
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
) -> Result<impl Iterator<Item = Result<(u64, bool), StoreError>>, StoreError> {
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
    Ok(newest.into_iter().rev().map(|seq| Ok((seq, true))))
}

/// The rows of events below a bound, newest first: reported ones, and leads, most of which have a
/// raw-lead event inside.
fn newest_events(
    view: &Tables<'_>,
    below: u64,
) -> Result<impl Iterator<Item = Result<(u64, bool), StoreError>>, StoreError> {
    let reported = view.events.range(..below)?.rev();
    let mut reported = reported.map(|row| Ok((row?.0.value(), true))).peekable();
    let raw = view.leads.range(..below)?.rev();
    let mut raw = raw.map(has_raw_event).peekable();
    Ok(std::iter::from_fn(move || match (reported.peek(), raw.peek()) {
        (Some(Ok((seq, _))), Some(Ok((raw_seq, _)))) if seq < raw_seq => raw.next(),
        (Some(_), _) => reported.next(),
        (None, _) => raw.next(),
    }))
}

/// The number of a lead, and whether it has a raw-lead event.
fn has_raw_event(
    row: Result<Row<u64, &'static [u8]>, redb::StorageError>,
) -> Result<(u64, bool), StoreError> {
    let (seq, bytes) = row?;
    Ok((seq.value(), decode_lead(bytes.value())?.raw_event().is_some()))
}

/// See [`crate::store::Store::list_quarantine`].
pub(super) fn list_quarantine(
    view: &Tables<'_>,
    page: PageRequest,
) -> Result<Page<Quarantined>, StoreError> {
    let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
    for row in view.quarantine.range(..page.cursor.unwrap_or(u64::MAX))?.rev() {
        let (seq, bytes) = row?;
        if !builder.offer(seq.value(), Some(decode_quarantined(bytes.value())?)) {
            break;
        }
    }
    Ok(builder.finish())
}

/// See [`crate::store::Store::near_deadline`].
pub(super) fn near_deadline(
    view: &Tables<'_>,
    before: UnixSeconds,
) -> Result<Vec<NearDeadline>, StoreError> {
    let mut near = Vec::new();
    for (dataset, front) in fronts(view)? {
        let rows = view.outbox.range(dated(dataset, before + -1))?;
        let events = rows.map(|row| row.map(|_| 1)).sum::<Result<u64, _>>()?;
        if events > 0 {
            let dataset_id = DatasetId::from_u64(dataset);
            near.push(NearDeadline { dataset_id, events, earliest: front.event_time });
        }
    }
    Ok(near)
}

/// See [`crate::store::Store::awaited_leads`].
pub(super) fn awaited_leads(
    view: &Tables<'_>,
    after: Option<LeadId>,
    limit: usize,
) -> Result<Vec<LeadId>, StoreError> {
    let from = after.map_or(0, |lead_id| lead_id.get().saturating_add(1));
    let mut leads = Vec::new();
    for row in view.awaiting.range((from, 0)..)? {
        let (key, value) = row?;
        let lead_id = known_id(key.value().0)?;
        if lead_id.is_own() {
            // Greater than any id of Meta's, as is all that follows.
            break;
        }
        // A row past its time stays as the way to its dead letter.
        if value.value().1 != i64::MAX && leads.last() != Some(&lead_id) {
            if leads.len() == limit {
                break;
            }
            leads.push(lead_id);
        }
    }
    Ok(leads)
}

/// See [`crate::store::Store::stats`].
pub(super) fn stats(view: &Tables<'_>) -> Result<Stats, StoreError> {
    let fronts = fronts(view)?.into_iter();
    let fronts = fronts.map(|(dataset, front)| (DatasetId::from_u64(dataset), front.event_time));
    let mut awaiting = 0;
    for row in view.awaiting.all()? {
        // A row past its time stays as the way to its dead letter.
        awaiting += u64::from(row?.1.value().1 != i64::MAX);
    }
    Ok(Stats {
        leads: view.leads.len()?,
        queued: view.outbox.len()?,
        awaiting,
        dead: view.dead.len()?,
        quarantined: view.quarantine.len()?,
        unmapped: view.unmapped.len()?,
        fronts: fronts.collect(),
    })
}
