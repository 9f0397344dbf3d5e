//! What the model does with stage updates, and how it finds the lead of each.

use std::collections::BTreeMap;

use crate::domain::customer::Customer;
use crate::domain::event::{AttemptLog, Event, EventDetail, StageUpdate, Standing, order_to_take};
use crate::domain::funnel::Skipped;
use crate::domain::ids::LeadId;
use crate::domain::intake::{Decision, Refusal, decide};
use crate::domain::lead::Lead;
use crate::domain::matching::{
    Candidate, ContactKey, CrmId, Found, MatchedBy, are_two, choose, contact_keys, own_id_of_record,
};
use crate::domain::routing::Routing;
use crate::domain::stage::SourceName;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::store::memory::state::{Effects, Row, State};
use crate::store::{Judged, Linked, Linking, Recorded, UpdateOutcome};

/// What is to become of an update that is not refused.
struct Plan {
    found: Found,
    /// The lead that its CRM's own id is taken from.
    previous_lead_id: Option<LeadId>,
    skipped: Skipped,
    /// Its event, if it is on record.
    known: Option<u64>,
    times: (UnixSeconds, UnixSeconds),
    tolerance_s: u32,
}

impl State {
    pub(in crate::store) fn is_of(&self, lead_id: LeadId, key: &ContactKey) -> bool {
        let known = self.customers.get(&lead_id).map(contact_keys).unwrap_or_default();
        known.iter().any(|(_, known)| known == key)
    }

    fn resolve(&self, update: &StageUpdate, now: Timestamp) -> Result<Found, Refusal> {
        if let Some(lead_id) = update.lead.lead_id {
            return Ok(Found::by_id(lead_id, MatchedBy::LeadId));
        }
        let link = update.lead.crm_id.clone().map(|crm_id| (crm_id, update.source.clone()));
        if let Some(lead_id) = link.as_ref().and_then(|link| self.crm_ids.get(link)) {
            return Ok(Found::by_id(*lead_id, MatchedBy::CrmId));
        }
        let mut candidates = Vec::new();
        for (by, key) in contact_keys(&update.customer) {
            let known = self.customers.find(&key).filter(|lead_id| !lead_id.is_own());
            for lead in known.filter_map(|lead_id| self.lead(lead_id)) {
                let lead_id = lead.reported.lead_id;
                if update.may_mean(lead) {
                    let created_time = lead.reported.created_time;
                    candidates.push(Candidate { lead_id, created_time, by });
                }
            }
        }
        let chosen = choose(candidates, update.latest_time(now), update.policy.ambiguity)?;
        if let Some(chosen) = chosen {
            return Ok(chosen);
        }
        // Nothing it says fits: it is about the lead that the record was found to be before.
        let before = link.and_then(|(crm_id, source)| self.linked_lead(&crm_id, &source));
        let found_before = before.map(|lead_id| Found::by_id(lead_id, MatchedBy::CrmId));
        Ok(found_before.unwrap_or_else(|| Found::nobody(update.own_id())))
    }

    /// The event that a report became which was the same.
    fn known_by_key(&self, update: &StageUpdate) -> Result<Option<u64>, Refusal> {
        let by_key = update.key_digest().and_then(|key| self.keys.get(&key));
        if by_key.is_some_and(|(_, before)| *before != update.fingerprint()) {
            return Err(Refusal::IdempotencyConflict);
        }
        let by_report = || update.report_digest().and_then(|key| self.keys.get(&key));
        Ok(by_key.or_else(by_report).map(|(seq, _)| *seq))
    }

    fn plan(
        &self,
        update: &StageUpdate,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Plan, Refusal> {
        let mut known = self.known_by_key(update)?;
        let resolved = self.resolve(update, now);
        let mut found = match known {
            // What is known keeps its first answer, and links nothing anew.
            Some(seq) => {
                let lead_id = self.events[&seq].event.lead_id;
                let same = resolved.ok().filter(|found| found.lead_id == lead_id);
                Found { lead_id, by: same.and_then(|found| found.by), is_sure: false }
            }
            None => resolved?,
        };
        let lead_id = found.lead_id;
        if known.is_none() && self.erased.contains_key(&lead_id) {
            return Err(Refusal::LeadErased);
        }
        let timeline = self.timeline(lead_id);
        let events: Vec<Event> =
            timeline.iter().map(|seq| self.events[seq].event.clone()).collect();
        let lead = self.lead(lead_id);
        let (mut times, mut tolerance) = ((UnixSeconds::new(0), UnixSeconds::new(0)), 0);
        if known.is_none() {
            let mut update = update.clone();
            update.customer.merge(&self.customers.get(&lead_id).cloned().unwrap_or_default());
            match decide(&update, lead, &events, now)? {
                Decision::Known { sibling } => known = Some(timeline[sibling]),
                Decision::New { reported_time, event_time, tolerance_s } => {
                    (times, tolerance) = ((reported_time, event_time), tolerance_s);
                }
            }
        }
        let skipped = match known {
            Some(_) => routing.still_skipped(update, lead, &events),
            None => routing.skipped((update, times.1), lead, &events, now),
        };
        found.by = found.by.filter(|_| lead.is_some());
        let is_linked = found.is_sure && update.lead.lead_id.is_some();
        let crm_id = update.lead.crm_id.as_ref().filter(|_| is_linked);
        let before = crm_id.and_then(|crm_id| self.linked_lead(crm_id, &update.source));
        let previous_lead_id = before.filter(|before| *before != lead_id);
        Ok(Plan { found, previous_lead_id, skipped, known, times, tolerance_s: tolerance })
    }

    pub(in crate::store) fn record_stage_updates(
        &mut self,
        updates: &[StageUpdate],
        routing: &Routing,
        now: Timestamp,
    ) -> Recorded {
        let mut effects = Effects::default();
        let mut outcomes = BTreeMap::new();
        for place in order_to_take(updates, now) {
            let outcome = self.add_update(&updates[place], routing, now, &mut effects);
            outcomes.insert(place, outcome);
        }
        let outcomes = outcomes.into_values().collect();
        let Effects { enqueued, dead } = effects;
        Recorded { outcomes, enqueued, dead }
    }

    pub(in crate::store) fn judge_update(
        &self,
        update: &StageUpdate,
        routing: &Routing,
        now: Timestamp,
    ) -> UpdateOutcome {
        let plan = match self.plan(update, routing, now) {
            Ok(plan) => plan,
            Err(refusal) => return UpdateOutcome::Refused(refusal),
        };
        let Plan { found, previous_lead_id, skipped, known, times, .. } = plan;
        let (lead_id, matched_by) = (found.lead_id, found.by);
        if let Some(seq) = known {
            let detail = self.summary(seq);
            return UpdateOutcome::Known(Judged { detail, matched_by, previous_lead_id, skipped });
        }
        let lead = self.lead(lead_id);
        let is_sent = lead.is_some() || lead_id.is_own() && update.is_sent_unmatched();
        let dataset_id = routing.dataset_for(update, lead).filter(|_| is_sent);
        let standing = if is_sent { Standing::Queued(dataset_id) } else { Standing::AwaitingLead };
        let event = update.clone().into_event(lead_id, times.0, times.1, now);
        let detail = EventDetail { event, standing, dataset_id, attempts: AttemptLog::default() };
        UpdateOutcome::Accepted(Judged { detail, matched_by, previous_lead_id, skipped })
    }

    pub(in crate::store) fn add_update(
        &mut self,
        update: &StageUpdate,
        routing: &Routing,
        now: Timestamp,
        effects: &mut Effects,
    ) -> UpdateOutcome {
        let plan = match self.plan(update, routing, now) {
            Ok(plan) => plan,
            Err(refusal) => return UpdateOutcome::Refused(refusal),
        };
        let Plan { found, previous_lead_id, skipped, known, times, tolerance_s } = plan;
        let lead_id = found.lead_id;
        let seq = known.unwrap_or_else(|| {
            let is_sent = lead_id.is_own() && update.is_sent_unmatched();
            if is_sent && self.lead(lead_id).is_none() {
                let dataset_id = routing.dataset_for(update, None);
                let lead = Lead::unknown(lead_id, update.source.clone(), dataset_id, now);
                self.merge_customer(lead_id, &update.customer);
                self.put_lead(lead, now, effects);
            }
            for (stage, time) in &skipped.filled {
                let filler = update.filler(lead_id, stage.clone(), *time, now);
                self.add_reported(filler, tolerance_s, routing, effects);
            }
            let event = update.clone().into_event(lead_id, times.0, times.1, now);
            self.add_reported(event, tolerance_s, routing, effects)
        });
        let report = update.report_digest().filter(|_| known.is_none() || update.is_dated());
        for key in [update.key_digest(), report].into_iter().flatten() {
            self.keys.insert(key, (seq, update.fingerprint()));
        }
        self.remember(update, found, now, effects);
        let (detail, matched_by) = (self.summary(seq), found.by);
        let judged = Judged { detail, matched_by, previous_lead_id, skipped };
        match known {
            Some(_) => UpdateOutcome::Known(judged),
            None => UpdateOutcome::Accepted(judged),
        }
    }

    /// Keeps what an update says by which its lead can be found next time.
    fn remember(
        &mut self,
        update: &StageUpdate,
        found: Found,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let lead_id = found.lead_id;
        let is_by_contact = found.by.is_some_and(MatchedBy::is_contact);
        let known = self.customers.get(&lead_id).cloned().unwrap_or_default();
        if is_by_contact && are_two(&known, &update.customer) {
            return;
        }
        if let Some(crm_id) = &update.lead.crm_id
            && found.is_sure
        {
            if update.lead.lead_id.is_some() {
                self.link(crm_id, &update.source, lead_id, now, effects);
            } else if is_by_contact {
                let own = own_id_of_record(&update.source, crm_id);
                self.found_leads.entry(own).or_insert(lead_id);
                if let Some(lead) = self.lead(lead_id).cloned() {
                    self.adopt(own, lead_id, Some(&lead), now, effects);
                }
            }
        }
        let is_sent = lead_id.is_own() && self.lead(lead_id).is_some();
        if is_sent {
            self.merge_customer(lead_id, &update.customer);
        } else if !contact_keys(&update.customer).is_empty() {
            self.learn(lead_id, &update.customer, now, effects);
        }
    }

    fn merge_customer(&mut self, lead_id: LeadId, customer: &Customer) {
        let mut known = self.customers.get(&lead_id).cloned().unwrap_or_default();
        known.merge(customer);
        self.customers.insert(lead_id, known);
    }

    fn add_reported(
        &mut self,
        mut event: Event,
        tolerance_s: u32,
        routing: &Routing,
        effects: &mut Effects,
    ) -> u64 {
        let lead_id = event.lead_id;
        if let Some(known) = self.customers.get(&lead_id) {
            event.customer.merge(known);
        }
        let seq = self.add_event(event, Standing::AwaitingLead, tolerance_s);
        if self.lead(lead_id).is_some() {
            self.route_lead(lead_id, routing);
            let dataset_id = self.lead(lead_id).and_then(|lead| lead.dataset_id);
            self.enqueue(seq, dataset_id, &mut effects.enqueued);
        }
        seq
    }

    pub(in crate::store) fn link_crm_id(
        &mut self,
        source: &SourceName,
        crm_id: &CrmId,
        lead_id: LeadId,
        now: Timestamp,
    ) -> Linking {
        if self.erased.contains_key(&lead_id) {
            return Linking::Erased;
        }
        let mut effects = Effects::default();
        let before = self.link(crm_id, source, lead_id, now, &mut effects);
        Linking::Done(self.linked(before, lead_id, effects))
    }

    fn linked(&self, before: Option<LeadId>, lead_id: LeadId, effects: Effects) -> Linked {
        let Effects { enqueued, dead } = effects;
        Linked { before, is_known: self.lead(lead_id).is_some(), enqueued, dead }
    }

    fn link(
        &mut self,
        crm_id: &CrmId,
        source: &SourceName,
        lead_id: LeadId,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Option<LeadId> {
        let before = self.linked_lead(crm_id, source);
        let linked = self.crm_ids.insert((crm_id.clone(), source.clone()), lead_id);
        if linked != Some(lead_id) {
            self.adopt(own_id_of_record(source, crm_id), lead_id, None, now, effects);
        }
        before
    }

    pub(in crate::store) fn add_customer(
        &mut self,
        lead_id: LeadId,
        customer: &Customer,
        now: Timestamp,
    ) -> Linked {
        let mut effects = Effects::default();
        if !self.erased.contains_key(&lead_id) {
            self.learn(lead_id, customer, now, &mut effects);
        }
        self.linked(None, lead_id, effects)
    }

    fn learn(
        &mut self,
        lead_id: LeadId,
        customer: &Customer,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let mut known = self.customers.get(&lead_id).cloned().unwrap_or_default();
        let before = known.clone();
        known.merge(customer);
        if known == before {
            return;
        }
        self.customers.insert(lead_id, known);
        self.adopt_by_contact(lead_id, now, effects);
    }

    /// Gives a lead that is known what people with its e-mail address or phone number wait for.
    pub(in crate::store) fn adopt_by_contact(
        &mut self,
        lead_id: LeadId,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(lead) = self.lead(lead_id).filter(|_| !lead_id.is_own()) else { return };
        let lead = lead.clone();
        for (_, key) in self.customers.get(&lead_id).map(contact_keys).unwrap_or_default() {
            let is_unknown = |id: &LeadId| id.is_own() && self.lead(*id).is_none();
            let unknown: Vec<LeadId> = self.customers.find(&key).filter(is_unknown).collect();
            for own in unknown.into_iter().rev() {
                self.adopt(own, lead_id, Some(&lead), now, effects);
            }
        }
    }

    fn linked_lead(&self, crm_id: &CrmId, source: &SourceName) -> Option<LeadId> {
        let linked = self.crm_ids.get(&(crm_id.clone(), source.clone()));
        linked.or_else(|| self.found_leads.get(&own_id_of_record(source, crm_id))).copied()
    }

    fn adopt(
        &mut self,
        own: LeadId,
        lead_id: LeadId,
        by_contact: Option<&Lead>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let mut awaited = self.timeline(own);
        awaited.retain(|seq| self.events[seq].standing == Standing::AwaitingLead);
        let before = awaited.len();
        awaited.retain(|seq| {
            let Row { event, tolerance_s, .. } = &self.events[seq];
            by_contact.is_none_or(|lead| event.may_mean(lead, *tolerance_s))
        });
        if by_contact.is_some() && awaited.is_empty() {
            return;
        }
        if awaited.len() == before {
            let customer = self.customers.remove(&own).unwrap_or_default();
            let known = self.customers.get(&lead_id).cloned().unwrap_or_default();
            if by_contact.is_none() || !are_two(&known, &customer) {
                self.learn(lead_id, &customer, now, effects);
            }
        }
        if awaited.is_empty() {
            return;
        }
        self.found_leads.insert(own, lead_id);
        for seq in &awaited {
            self.events.modify(seq, |row| row.event.lead_id = lead_id);
        }
        self.join_awaiting(lead_id, awaited, now, effects);
    }
}
