//! Whom a report is about: links with CRMs' own ids, the index of contacts, and what is filed under
//! an id of our own until its lead is known.

use std::ops::RangeBounds;

use crate::domain::customer::Customer;
use crate::domain::event::{Event, StageUpdate};
use crate::domain::ids::LeadId;
use crate::domain::intake::Refusal;
use crate::domain::lead::Lead;
use crate::domain::matching::{
    Candidate, ContactKey, CrmId, Found, MatchedBy, are_two, choose, contact_keys, own_id_of_record,
};
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::limits::MATCH_CANDIDATES_MAX;
use crate::store::records::{decode_customer, encode_customer, encode_event};
use crate::store::redb::ingest::{Awaited, Effects, join_awaiting};
use crate::store::redb::read::{event_by_seq, lead_by_id, timeline};
use crate::store::redb::remove::erased_at;
use crate::store::redb::tables::Tables;
use crate::store::redb::writer::Unit;
use crate::store::{Linked, Linking, StoreError};

/// Why an update goes no further.
pub(super) enum Stop {
    /// It is refused.
    Refused(Refusal),
    /// The store failed.
    Failed(StoreError),
}

impl<E: Into<StoreError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The lead that an update is about, or the id to file it under.
pub(super) fn resolve(
    view: &Tables<'_>,
    update: &StageUpdate,
    now: Timestamp,
) -> Result<Found, Stop> {
    if let Some(lead_id) = update.lead.lead_id {
        return Ok(Found::by_id(lead_id, MatchedBy::LeadId));
    }
    let crm_id = update.lead.crm_id.as_ref();
    if let Some(crm_id) = crm_id
        && let Some(lead_id) = linked_for_sure(view, crm_id, &update.source)?
    {
        return Ok(Found::by_id(lead_id, MatchedBy::CrmId));
    }
    let mut candidates = Vec::new();
    for (by, key) in contact_keys(&update.customer) {
        for lead_id in leads_by_contact(view, &key)? {
            // A contact may be known before its lead is.
            if let Some((_, lead)) = lead_by_id(view, lead_id)?
                && update.may_mean(&lead)
            {
                let created_time = lead.reported.created_time;
                candidates.push(Candidate { lead_id, created_time, by });
            }
        }
    }
    let chosen = choose(candidates, update.latest_time(now), update.policy.ambiguity)
        .map_err(|ambiguous| Stop::Refused(ambiguous.into()))?;
    if let Some(chosen) = chosen {
        return Ok(chosen);
    }
    // Nothing it says fits: it is about the lead that the record was found to be before.
    if let Some(crm_id) = crm_id
        && let Some(lead_id) = linked(view, crm_id, &update.source)?
    {
        return Ok(Found::by_id(lead_id, MatchedBy::CrmId));
    }
    Ok(Found::nobody(update.own_id()))
}

/// The lead that somebody said a CRM's own id to be of.
fn linked_for_sure(
    view: &Tables<'_>,
    crm_id: &CrmId,
    source: &SourceName,
) -> Result<Option<LeadId>, StoreError> {
    let lead_id = view.crm_ids.get((crm_id.as_str(), source.as_str()))?;
    lead_id.map(|lead_id| known_id(lead_id.value())).transpose()
}

/// The lead of a CRM's own id: linked with it, or else the first that was found by an e-mail
/// address or phone number.
pub(super) fn linked(
    view: &Tables<'_>,
    crm_id: &CrmId,
    source: &SourceName,
) -> Result<Option<LeadId>, StoreError> {
    if let Some(lead_id) = linked_for_sure(view, crm_id, source)? {
        return Ok(Some(lead_id));
    }
    found_for(view, own_id_of_record(source, crm_id))
}

/// The lead that an id of our own turned out to be.
fn found_for(view: &Tables<'_>, own: LeadId) -> Result<Option<LeadId>, StoreError> {
    let lead_id = view.found_leads.get(own.get())?;
    lead_id.map(|lead_id| known_id(lead_id.value())).transpose()
}

/// An id that the store wrote.
pub(super) fn known_id(number: u64) -> Result<LeadId, StoreError> {
    LeadId::from_known(number).ok_or_else(|| StoreError::Corrupt("a lead id is impossible".into()))
}

/// The leads of Meta's that a contact is known of.
pub(super) fn leads_by_contact(
    view: &Tables<'_>,
    key: &ContactKey,
) -> Result<Vec<LeadId>, StoreError> {
    by_contact(view, (key, 0)..(key, LeadId::OWN))
}

fn by_contact<'k>(
    view: &Tables<'_>,
    keys: impl RangeBounds<(&'k ContactKey, u64)>,
) -> Result<Vec<LeadId>, StoreError> {
    let keys = (keys.start_bound().cloned(), keys.end_bound().cloned());
    let rows = view.contacts.range::<(&ContactKey, u64)>(keys)?;
    rows.rev().take(MATCH_CANDIDATES_MAX).map(|row| known_id(row?.0.value().1)).collect()
}

/// The CRMs' own ids that are linked with a lead.
pub(super) fn crm_ids_of(
    view: &Tables<'_>,
    lead_id: LeadId,
) -> Result<Vec<(SourceName, CrmId)>, StoreError> {
    let mut crm_ids = Vec::new();
    for row in view.lead_crm_ids.range((lead_id.get(), "", "")..)? {
        let (key, ()) = (row?.0, ());
        let (of, source, crm_id) = key.value();
        if of != lead_id.get() {
            break;
        }
        let corrupt = |_| StoreError::Corrupt("a link's name is impossible".into());
        let source = SourceName::parse(source).map_err(corrupt)?;
        let crm_id = CrmId::parse(crm_id).map_err(corrupt)?;
        crm_ids.push((source, crm_id));
    }
    Ok(crm_ids)
}

/// What is known of a lead's person besides what each event says.
pub(super) fn customer_of(view: &Tables<'_>, lead_id: LeadId) -> Result<Customer, StoreError> {
    let bytes = view.customers.get(lead_id.get())?;
    bytes.map_or_else(|| Ok(Customer::default()), |bytes| decode_customer(bytes.value()))
}

/// Whether anything is kept of a lead by which it would be found.
pub(super) fn is_known_otherwise(view: &Tables<'_>, lead_id: LeadId) -> Result<bool, StoreError> {
    Ok(!crm_ids_of(view, lead_id)?.is_empty() || !customer_of(view, lead_id)?.is_empty())
}

/// See [`crate::store::Store::link_crm_id`].
pub(super) fn link_crm_id(
    unit: &mut Unit<'_>,
    (source, crm_id): &(SourceName, CrmId),
    lead_id: LeadId,
    now: Timestamp,
) -> Result<Linking, StoreError> {
    if erased_at(&unit.tables, lead_id)?.is_some() {
        return Ok(Linking::Erased);
    }
    let mut effects = Effects::default();
    let before = link(unit, (source, crm_id), lead_id, now, &mut effects)?;
    let is_known = lead_by_id(&unit.tables, lead_id)?.is_some();
    let Effects { enqueued, dead } = effects;
    Ok(Linking::Done(Linked { before, is_known, enqueued, dead }))
}

/// Links a CRM's own id with a lead, and gives the lead what was reported under it before; the lead
/// that it was linked with.
pub(super) fn link(
    unit: &mut Unit<'_>,
    (source, crm_id): (&SourceName, &CrmId),
    lead_id: LeadId,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<Option<LeadId>, StoreError> {
    let (source_key, crm_key) = (source.as_str(), crm_id.as_str());
    let own = own_id_of_record(source, crm_id);
    let (linked, found) =
        (linked_for_sure(&unit.tables, crm_id, source)?, found_for(&unit.tables, own)?);
    if linked == Some(lead_id) {
        return Ok(linked);
    }
    if let Some(before) = linked {
        unit.tables.lead_crm_ids.remove((before.get(), source_key, crm_key))?;
    }
    unit.tables.crm_ids.insert((crm_key, source_key), lead_id.get());
    unit.tables.lead_crm_ids.insert((lead_id.get(), source_key, crm_key), ());
    adopt(unit, own, lead_id, None, now, effects)?;
    Ok(linked.or(found))
}

/// Keeps which lead the reports of a CRM's record were found to be about, for one that says nothing
/// of the person; the first one found stays, and what was reported before may be its own.
pub(super) fn keep_found(
    unit: &mut Unit<'_>,
    (source, crm_id): (&SourceName, &CrmId),
    lead_id: LeadId,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let own = own_id_of_record(source, crm_id);
    if found_for(&unit.tables, own)?.is_none() {
        set_found(unit, own, lead_id)?;
    }
    let lead = lead_by_id(&unit.tables, lead_id)?;
    match lead {
        Some((_, lead)) => adopt(unit, own, lead_id, Some(&lead), now, effects),
        None => Ok(()),
    }
}

/// See [`crate::store::Store::add_customer`].
pub(super) fn add_customer(
    unit: &mut Unit<'_>,
    lead_id: LeadId,
    customer: &Customer,
    now: Timestamp,
) -> Result<Linked, StoreError> {
    let mut effects = Effects::default();
    if erased_at(&unit.tables, lead_id)?.is_none() {
        learn(unit, lead_id, customer, now, &mut effects)?;
    }
    let is_known = lead_by_id(&unit.tables, lead_id)?.is_some();
    let Effects { enqueued, dead } = effects;
    Ok(Linked { before: None, is_known, enqueued, dead })
}

/// Remembers what is said of a person. A lead of Meta's gets what was reported before of people
/// with the same e-mail address or phone number.
pub(super) fn learn(
    unit: &mut Unit<'_>,
    lead_id: LeadId,
    customer: &Customer,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let mut known = customer_of(&unit.tables, lead_id)?;
    let before = known.clone();
    known.merge(customer);
    if known == before {
        return Ok(());
    }
    unit.tables.customers.insert(lead_id.get(), encode_customer(&known)?.as_slice());
    for (_, key) in contact_keys(&known) {
        unit.tables.contacts.insert((&key, lead_id.get()), ());
    }
    adopt_by_contact(unit, lead_id, now, effects)
}

/// Remembers what is said of somebody whose events are sent without a lead; nobody finds them by
/// it.
pub(super) fn keep_customer(
    unit: &mut Unit<'_>,
    lead_id: LeadId,
    customer: &Customer,
) -> Result<(), StoreError> {
    let mut known = customer_of(&unit.tables, lead_id)?;
    known.merge(customer);
    unit.tables.customers.insert(lead_id.get(), encode_customer(&known)?.as_slice());
    Ok(())
}

/// Gives a lead that is known what people with its e-mail address or phone number are waiting for.
pub(super) fn adopt_by_contact(
    unit: &mut Unit<'_>,
    lead_id: LeadId,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    if lead_id.is_own() {
        return Ok(());
    }
    let keys = contact_keys(&customer_of(&unit.tables, lead_id)?);
    if keys.is_empty() {
        return Ok(());
    }
    let Some((_, lead)) = lead_by_id(&unit.tables, lead_id)? else { return Ok(()) };
    for (_, key) in keys {
        for own in by_contact(&unit.tables, (&key, LeadId::OWN)..=(&key, u64::MAX))? {
            adopt(unit, own, lead_id, Some(&lead), now, effects)?;
        }
    }
    Ok(())
}

/// Gives a lead what was filed under an id of our own and awaits its lead. An event keeps its id.
///
/// With `by_contact`, which is the lead, it was found by an e-mail address or phone number: then
/// what is dated before it, or of another dataset, is about another lead, which may be found later.
fn adopt(
    unit: &mut Unit<'_>,
    own: LeadId,
    lead_id: LeadId,
    by_contact: Option<&Lead>,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let (mut awaited, mut left) = (Vec::new(), 0);
    for row in Awaited::all_of(unit, own)? {
        // A dead letter stays where it was reported.
        if unit.tables.dead.get(row.seq)?.is_some() {
            continue;
        }
        let event = event_by_seq(&unit.tables, row.seq)?;
        if by_contact.is_none_or(|lead| event.may_mean(lead, row.tolerance_s)) {
            unit.tables.awaiting.remove((own.get(), row.seq))?;
            awaited.push(row);
        } else {
            left += 1;
        }
    }
    if by_contact.is_some() && awaited.is_empty() {
        return Ok(());
    }
    if left == 0 {
        let customer = customer_of(&unit.tables, own)?;
        forget_customer(unit, own)?;
        if by_contact.is_none() || !are_two(&customer_of(&unit.tables, lead_id)?, &customer) {
            learn(unit, lead_id, &customer, now, effects)?;
        }
    }
    if awaited.is_empty() {
        return Ok(());
    }
    set_found(unit, own, lead_id)?;
    if let Some((lead_seq, lead)) = lead_by_id(&unit.tables, lead_id)? {
        let numbered = (lead_seq, lead);
        let siblings = timeline(&unit.tables, lead_id, Some(&numbered))?;
        let siblings: Vec<Event> = siblings.into_iter().map(|(_, event)| event).collect();
        return join_awaiting(unit, &numbered, siblings, awaited, now, effects);
    }
    for Awaited { seq, tolerance_s, last_second } in awaited {
        let event = Event { lead_id, ..event_by_seq(&unit.tables, seq)? };
        unit.tables.events.insert(seq, encode_event(&event)?.as_slice());
        unit.tables.awaiting.insert((lead_id.get(), seq), (tolerance_s, last_second));
    }
    Ok(())
}

/// Forgets what is known of a person and that they are found by it.
fn forget_customer(unit: &mut Unit<'_>, lead_id: LeadId) -> Result<(), StoreError> {
    let known = customer_of(&unit.tables, lead_id)?;
    for (_, key) in contact_keys(&known) {
        unit.tables.contacts.remove((&key, lead_id.get()))?;
    }
    unit.tables.customers.remove(lead_id.get())?;
    Ok(())
}

/// Remembers whom an id of our own turned out to be.
fn set_found(unit: &mut Unit<'_>, own: LeadId, lead_id: LeadId) -> Result<(), StoreError> {
    let before = unit.tables.found_leads.get(own.get())?;
    unit.tables.found_leads.insert(own.get(), lead_id.get());
    if let Some(before) = before.map(|before| before.value()) {
        unit.tables.lead_found.remove((before, own.get()))?;
    }
    unit.tables.lead_found.insert((lead_id.get(), own.get()), ());
    Ok(())
}

/// Forgets everything by which a lead is found but its id.
pub(super) fn forget_matches(unit: &mut Unit<'_>, lead_id: LeadId) -> Result<(), StoreError> {
    forget_customer(unit, lead_id)?;
    for (source, crm_id) in crm_ids_of(&unit.tables, lead_id)? {
        let (source, crm_id) = (source.as_str(), crm_id.as_str());
        unit.tables.crm_ids.remove((crm_id, source))?;
        unit.tables.lead_crm_ids.remove((lead_id.get(), source, crm_id))?;
    }
    let of_lead = (lead_id.get(), 0)..=(lead_id.get(), u64::MAX);
    for (key, _) in unit.tables.lead_found.extract(of_lead)? {
        unit.tables.found_leads.remove(key.value().1)?;
    }
    Ok(())
}
