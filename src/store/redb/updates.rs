//! Stage updates: what is to become of each, found out by reading alone, and then done.

use std::collections::BTreeMap;

use crate::domain::event::{AttemptLog, Event, EventDetail, StageUpdate, Standing, order_to_take};
use crate::domain::funnel::Skipped;
use crate::domain::ids::LeadId;
use crate::domain::intake::{Decision, Refusal, decide};
use crate::domain::lead::Lead;
use crate::domain::matching::{Found, MatchedBy, are_two, contact_keys};
use crate::domain::routing::Routing;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::store::records::encode_event;
use crate::store::redb::ingest::{Effects, add_unknown, enqueue};
use crate::store::redb::matching::{
    Stop, customer_of, keep_customer, keep_found, learn, link, linked, resolve,
};
use crate::store::redb::queue::route_lead;
use crate::store::redb::read::{NumberedLead, event_by_seq, lead_by_id, summary_by_seq, timeline};
use crate::store::redb::remove::erased_at;
use crate::store::redb::tables::Tables;
use crate::store::redb::writer::Unit;
use crate::store::{Judged, QueueEntry, Recorded, StoreError, UpdateOutcome};

/// What is to become of an update that is not refused.
struct Plan {
    found: Found,
    lead: Option<NumberedLead>,
    /// The lead that its CRM's own id is taken from.
    previous_lead_id: Option<LeadId>,
    skipped: Skipped,
    step: Step,
}

enum Step {
    /// It is on record as this event.
    Known(u64),
    /// It is new.
    New { reported_time: UnixSeconds, event_time: UnixSeconds, tolerance_s: u32 },
}

fn plan(
    view: &Tables<'_>,
    update: &StageUpdate,
    routing: &Routing,
    now: Timestamp,
) -> Result<Plan, Stop> {
    let known = known_by_key(view, update)?;
    let mut found = match (known, resolve(view, update, now)) {
        (None, resolved) => resolved?,
        (Some(_), Err(Stop::Failed(error))) => return Err(Stop::Failed(error)),
        // What is known keeps its first answer, whatever was stored since, and links nothing anew.
        (Some(seq), resolved) => {
            let lead_id = event_by_seq(view, seq)?.lead_id;
            let same = resolved.ok().filter(|found| found.lead_id == lead_id);
            Found { lead_id, by: same.and_then(|found| found.by), is_sure: false }
        }
    };
    let lead_id = found.lead_id;
    if known.is_none() && erased_at(view, lead_id)?.is_some() {
        return Err(Stop::Refused(Refusal::LeadErased));
    }
    let lead = lead_by_id(view, lead_id)?;
    let (seqs, siblings): (Vec<u64>, Vec<Event>) =
        timeline(view, lead_id, lead.as_ref())?.into_iter().unzip();
    found.by = found.by.filter(|_| lead.is_some());
    let lead_only = lead.as_ref().map(|(_, lead)| lead);
    let step = if let Some(seq) = known {
        Step::Known(seq)
    } else {
        let mut update = update.clone();
        update.customer.merge(&customer_of(view, lead_id)?);
        match decide(&update, lead_only, &siblings, now).map_err(Stop::Refused)? {
            Decision::Known { sibling } => Step::Known(seqs[sibling]),
            Decision::New { reported_time, event_time, tolerance_s } => {
                Step::New { reported_time, event_time, tolerance_s }
            }
        }
    };
    let skipped = match &step {
        Step::New { event_time, .. } => {
            routing.skipped((update, *event_time), lead_only, &siblings, now)
        }
        Step::Known(_) => routing.still_skipped(update, lead_only, &siblings),
    };
    let is_linked = found.is_sure && update.lead.lead_id.is_some();
    let before = match update.lead.crm_id.as_ref().filter(|_| is_linked) {
        Some(crm_id) => linked(view, crm_id, &update.source)?,
        None => None,
    };
    let previous_lead_id = before.filter(|before| *before != lead_id);
    Ok(Plan { found, lead, previous_lead_id, skipped, step })
}

/// The event that a report became which was the same, by its idempotency key or by what it says.
fn known_by_key(view: &Tables<'_>, update: &StageUpdate) -> Result<Option<u64>, Stop> {
    if let Some(key) = update.key_digest()
        && let Some(row) = view.idempotency.get(&key)?
    {
        let (seq, before) = row.value();
        let same = *before == update.fingerprint();
        return if same { Ok(Some(seq)) } else { Err(Stop::Refused(Refusal::IdempotencyConflict)) };
    }
    let Some(report) = update.report_digest() else { return Ok(None) };
    Ok(view.idempotency.get(&report)?.map(|row| row.value().0))
}

/// See [`crate::store::Store::judge_stage_updates`].
pub(super) fn judge_stage_updates(
    view: &Tables<'_>,
    updates: &[StageUpdate],
    routing: &Routing,
    now: Timestamp,
) -> Result<Vec<UpdateOutcome>, StoreError> {
    let outcomes = updates.iter().map(|update| match plan(view, update, routing, now) {
        Ok(plan) => would_become(view, update, plan, routing, now),
        Err(Stop::Refused(refusal)) => Ok(UpdateOutcome::Refused(refusal)),
        Err(Stop::Failed(error)) => Err(error),
    });
    outcomes.collect()
}

fn would_become(
    view: &Tables<'_>,
    update: &StageUpdate,
    plan: Plan,
    routing: &Routing,
    now: Timestamp,
) -> Result<UpdateOutcome, StoreError> {
    let Plan { found, lead, previous_lead_id, skipped, step } = plan;
    let (lead_id, matched_by) = (found.lead_id, found.by);
    match step {
        Step::Known(seq) => {
            let detail = summary_by_seq(view, seq)?;
            Ok(UpdateOutcome::Known(Judged { detail, matched_by, previous_lead_id, skipped }))
        }
        Step::New { reported_time, event_time, .. } => {
            let event = update.clone().into_event(lead_id, reported_time, event_time, now);
            let is_sent = lead.is_some() || lead_id.is_own() && update.is_sent_unmatched();
            let lead = lead.as_ref().map(|(_, lead)| lead);
            let dataset_id = routing.dataset_for(update, lead).filter(|_| is_sent);
            let standing =
                if is_sent { Standing::Queued(dataset_id) } else { Standing::AwaitingLead };
            let detail =
                EventDetail { event, standing, dataset_id, attempts: AttemptLog::default() };
            Ok(UpdateOutcome::Accepted(Judged { detail, matched_by, previous_lead_id, skipped }))
        }
    }
}

/// See [`crate::store::Store::record_stage_updates`].
pub(super) fn record_stage_updates(
    unit: &mut Unit<'_>,
    updates: &[StageUpdate],
    routing: &Routing,
    now: Timestamp,
) -> Result<Recorded, StoreError> {
    let mut effects = Effects::default();
    let mut outcomes = BTreeMap::new();
    for place in order_to_take(updates, now) {
        let update = &updates[place];
        let outcome = match plan(&unit.tables, update, routing, now) {
            Ok(plan) => carry_out(unit, update, plan, routing, now, &mut effects)?,
            Err(Stop::Refused(refusal)) => UpdateOutcome::Refused(refusal),
            Err(Stop::Failed(error)) => return Err(error),
        };
        outcomes.insert(place, outcome);
    }
    let outcomes = outcomes.into_values().collect();
    let Effects { enqueued, dead } = effects;
    Ok(Recorded { outcomes, enqueued, dead })
}

fn carry_out(
    unit: &mut Unit<'_>,
    update: &StageUpdate,
    plan: Plan,
    routing: &Routing,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<UpdateOutcome, StoreError> {
    let Plan { found, lead, previous_lead_id, skipped, step } = plan;
    let lead_id = found.lead_id;
    let (seq, is_new) = match step {
        Step::Known(seq) => (seq, false),
        Step::New { reported_time, event_time, tolerance_s } => {
            let lead = match lead {
                None if lead_id.is_own() && update.is_sent_unmatched() => {
                    Some(add_unknown(unit, lead_id, update, routing, now, effects)?)
                }
                lead => lead,
            };
            for (stage, time) in &skipped.filled {
                let filler = update.filler(lead_id, stage.clone(), *time, now);
                add_event(unit, filler, lead.as_ref(), tolerance_s, routing, effects)?;
            }
            let event = update.clone().into_event(lead_id, reported_time, event_time, now);
            (add_event(unit, event, lead.as_ref(), tolerance_s, routing, effects)?, true)
        }
    };
    // When a repetition without a time came tells it from no other: that would be a row each.
    let report = update.report_digest().filter(|_| is_new || update.is_dated());
    for key in [update.key_digest(), report].iter().flatten() {
        unit.tables.idempotency.insert(key, (seq, &update.fingerprint()));
        unit.tables.event_keys.insert((seq, key), ());
    }
    remember(unit, update, found, now, effects)?;
    let (detail, matched_by) = (summary_by_seq(&unit.tables, seq)?, found.by);
    let judged = Judged { detail, matched_by, previous_lead_id, skipped };
    Ok(if is_new { UpdateOutcome::Accepted(judged) } else { UpdateOutcome::Known(judged) })
}

/// Stores a new event: in its lead's timeline and queue, or to await its lead. If the lead gets
/// another dataset by that, what is queued for it goes there too, so that the new event can't
/// overtake it.
fn add_event(
    unit: &mut Unit<'_>,
    mut event: Event,
    lead: Option<&NumberedLead>,
    tolerance_s: u32,
    routing: &Routing,
    effects: &mut Effects,
) -> Result<u64, StoreError> {
    // From here on the event says the same for ever, whatever is learned of the person later.
    event.customer.merge(&customer_of(&unit.tables, event.lead_id)?);
    let seq = unit.seq();
    unit.tables.events.insert(seq, encode_event(&event)?.as_slice());
    let Some(lead) = lead else {
        let place = (event.lead_id.get(), seq);
        unit.tables.awaiting.insert(place, (tolerance_s, event.deliver_before().get()));
        return Ok(seq);
    };
    let mut lead: (u64, Lead) = lead.clone();
    unit.tables.lead_events.insert((lead.0, seq), ());
    route_lead(unit, &mut lead, routing)?;
    let entry = QueueEntry { event_time: event.event_time, reported: true, seq };
    enqueue(unit, (entry, event.lead_id), lead.1.dataset_id, &mut effects.enqueued);
    Ok(seq)
}

/// Keeps what an update says by which its lead can be found next time.
fn remember(
    unit: &mut Unit<'_>,
    update: &StageUpdate,
    found: Found,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let lead_id = found.lead_id;
    let is_by_contact = found.by.is_some_and(MatchedBy::is_contact);
    if is_by_contact && are_two(&customer_of(&unit.tables, lead_id)?, &update.customer) {
        return Ok(());
    }
    if let Some(crm_id) = &update.lead.crm_id
        && found.is_sure
    {
        let record = (&update.source, crm_id);
        if update.lead.lead_id.is_some() {
            link(unit, record, lead_id, now, effects)?;
        } else if is_by_contact {
            keep_found(unit, record, lead_id, now, effects)?;
        }
    }
    // Of somebody whose events are sent without a lead, nothing waits to be found.
    let is_sent = lead_id.is_own() && lead_by_id(&unit.tables, lead_id)?.is_some();
    if is_sent {
        keep_customer(unit, lead_id, &update.customer)?;
    } else if !contact_keys(&update.customer).is_empty() {
        learn(unit, lead_id, &update.customer, now, effects)?;
    }
    Ok(())
}
