//! What the model knows, and what each use case does to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::alarm::{Causes, Subject};
use crate::domain::customer::Customer;
use crate::domain::event::{AttemptLog, DeadReason, Event, KeyDigest, Standing};
use crate::domain::ids::{DatasetId, EventId, FormId, LeadId};
use crate::domain::intake::decide_awaited;
use crate::domain::lead::Lead;
use crate::domain::mark::FormMark;
use crate::domain::matching::{ContactKey, CrmId, contact_keys};
use crate::domain::routing::Routing;
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::store::memory::alarms::AlarmState;
use crate::store::memory::indexed::{Found, Indexed};
use crate::store::{
    ApiKeyDigest, Enqueued, Erased, LeadOutcome, Quarantined, QueueEntry, Removed, Stats, Unmapped,
};

/// All that a store knows, or a part of it: the maps that the use cases work on.
#[derive(Clone, Debug)]
pub(in crate::store) struct State {
    /// The number that was given out last.
    pub(in crate::store) last_seq: u64,
    /// How far the next number is from it.
    pub(in crate::store) seq_step: u64,
    pub(in crate::store) leads: Indexed<u64, Lead>,
    pub(in crate::store) events: Indexed<u64, Row>,
    pub(in crate::store) queues: Indexed<(Option<DatasetId>, QueueEntry), LeadId>,
    pub(in crate::store) keys: BTreeMap<KeyDigest, (u64, KeyDigest)>,
    pub(in crate::store) quarantine: BTreeMap<u64, Quarantined>,
    pub(in crate::store) unmapped: BTreeMap<u64, Unmapped>,
    pub(in crate::store) api_keys: BTreeSet<ApiKeyDigest>,
    pub(in crate::store) erased: BTreeMap<LeadId, Timestamp>,
    pub(in crate::store) alarms: AlarmState,
    pub(in crate::store) form_marks: BTreeMap<FormId, FormMark>,
    pub(in crate::store) crm_ids: BTreeMap<(CrmId, SourceName), LeadId>,
    pub(in crate::store) customers: Indexed<LeadId, Customer>,
    /// Whom an id of our own turned out to be.
    pub(in crate::store) found_leads: BTreeMap<LeadId, LeadId>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            last_seq: 0,
            seq_step: 1,
            leads: Indexed::default(),
            events: Indexed::default(),
            queues: Indexed::default(),
            keys: BTreeMap::new(),
            quarantine: BTreeMap::new(),
            unmapped: BTreeMap::new(),
            api_keys: BTreeSet::new(),
            erased: BTreeMap::new(),
            alarms: AlarmState::default(),
            form_marks: BTreeMap::new(),
            crm_ids: BTreeMap::new(),
            customers: Indexed::default(),
            found_leads: BTreeMap::new(),
        }
    }
}

/// What a use case did besides what it was asked for.
#[derive(Debug, Default)]
pub(in crate::store) struct Effects {
    pub(in crate::store) enqueued: Enqueued,
    pub(in crate::store) dead: Vec<DeadReason>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Row {
    pub(in crate::store) event: Event,
    pub(in crate::store) standing: Standing,
    pub(in crate::store) attempts: AttemptLog,
    /// Whether it is its lead's raw-lead event.
    pub(in crate::store) raw: bool,
    /// With which tolerance it is judged when its lead arrives.
    pub(in crate::store) tolerance_s: u32,
}

impl Found for Lead {
    type By = LeadId;

    fn found_by(&self) -> Vec<LeadId> {
        vec![self.reported.lead_id]
    }
}

/// An event, by its lead.
impl Found for Row {
    type By = LeadId;

    fn found_by(&self) -> Vec<LeadId> {
        vec![self.event.lead_id]
    }
}

/// A place in a queue, by the lead of its event.
impl Found for LeadId {
    type By = Self;

    fn found_by(&self) -> Vec<Self> {
        vec![*self]
    }
}

impl Found for Customer {
    type By = ContactKey;

    fn found_by(&self) -> Vec<ContactKey> {
        contact_keys(self).into_iter().map(|(_, key)| key).collect()
    }
}

/// Whether an event is not to be sent any more.
fn has_ended(row: &Row) -> bool {
    matches!(row.standing, Standing::Delivered | Standing::Dead { .. })
}

impl State {
    pub(in crate::store) fn seq(&mut self) -> u64 {
        self.last_seq += self.seq_step;
        self.last_seq
    }

    pub(in crate::store) fn lead(&self, lead_id: LeadId) -> Option<&Lead> {
        self.leads.find(&lead_id).next().map(|seq| &self.leads[&seq])
    }

    /// The events of a lead, the raw lead first.
    pub(in crate::store) fn timeline(&self, lead_id: LeadId) -> Vec<u64> {
        let mut seqs: Vec<u64> = self.events.find(&lead_id).collect();
        seqs.sort_by_key(|seq| (!self.events[seq].raw, *seq));
        seqs
    }

    pub(in crate::store) fn add_event(
        &mut self,
        event: Event,
        standing: Standing,
        tolerance_s: u32,
    ) -> u64 {
        let seq = self.seq();
        let attempts = AttemptLog::default();
        self.events.insert(seq, Row { event, standing, attempts, raw: false, tolerance_s });
        seq
    }

    pub(super) fn set_standing(&mut self, seq: u64, standing: Standing) {
        self.events.modify(&seq, |row| row.standing = standing);
    }

    /// The place of an event in a queue.
    pub(super) fn entry(&self, seq: u64) -> QueueEntry {
        let Row { event, raw, .. } = &self.events[&seq];
        QueueEntry { event_time: event.event_time, reported: !raw, seq }
    }

    pub(in crate::store) fn enqueue(
        &mut self,
        seq: u64,
        dataset_id: Option<DatasetId>,
        enqueued: &mut Enqueued,
    ) {
        let lead_id = self.events[&seq].event.lead_id;
        self.queues.insert((dataset_id, self.entry(seq)), lead_id);
        self.set_standing(seq, Standing::Queued(dataset_id));
        enqueued.0.extend(dataset_id);
    }

    pub(in crate::store) fn add_lead(
        &mut self,
        lead: Lead,
        now: Timestamp,
        effects: &mut Effects,
    ) -> LeadOutcome {
        if self.erased.contains_key(&lead.reported.lead_id) {
            return LeadOutcome::Erased;
        }
        if let Some(known) = self.lead(lead.reported.lead_id) {
            return if known.reported.agrees_with(&lead.reported) {
                LeadOutcome::Duplicate
            } else {
                LeadOutcome::DifferingDuplicate
            };
        }
        self.put_lead(lead, now, effects);
        LeadOutcome::New
    }

    /// Stores a lead with its raw-lead event, and gives it what awaited it.
    pub(in crate::store) fn put_lead(&mut self, lead: Lead, now: Timestamp, effects: &mut Effects) {
        let lead_id = lead.reported.lead_id;
        let awaiting = self.timeline(lead_id);
        let seq = self.seq();
        let raw = lead.raw_event();
        let dataset_id = lead.dataset_id;
        self.leads.insert(seq, lead);
        if let Some(event) = raw {
            let (standing, attempts) = (Standing::AwaitingLead, AttemptLog::default());
            self.events.insert(seq, Row { event, standing, attempts, raw: true, tolerance_s: 0 });
            self.enqueue(seq, dataset_id, &mut effects.enqueued);
        }
        self.join_awaiting(lead_id, awaiting, now, effects);
        self.adopt_by_contact(lead_id, now, effects);
    }

    /// Judges events that awaited a lead, and queues them.
    pub(in crate::store) fn join_awaiting(
        &mut self,
        lead_id: LeadId,
        awaiting: Vec<u64>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some(lead) = self.lead(lead_id).cloned() else { return };
        let mut causes = Causes::default();
        let siblings = self.timeline(lead_id).into_iter().filter(|seq| !awaiting.contains(seq));
        let mut siblings: Vec<Event> =
            siblings.map(|seq| self.events[&seq].event.clone()).collect();
        for seq in awaiting {
            if lead.is_unknown()
                && let Some(known) = self.customers.get(&lead_id).cloned()
            {
                self.events.modify(&seq, |row| row.event.customer.merge(&known));
            }
            let Row { event, standing, tolerance_s, .. } = &self.events[&seq];
            if *standing != Standing::AwaitingLead {
                continue;
            }
            match decide_awaited(event, &lead, &siblings, *tolerance_s, now) {
                Ok(event_time) => {
                    self.events.modify(&seq, |row| row.event.event_time = event_time);
                    siblings.push(self.events[&seq].event.clone());
                    self.enqueue(seq, lead.dataset_id, &mut effects.enqueued);
                }
                Err(reason) => {
                    let event_id = event.id();
                    causes.add(Subject::dead(lead.dataset_id, reason, None), || Some(event_id));
                    self.set_standing(seq, Standing::Dead { reason, at: now });
                    effects.dead.push(reason);
                }
            }
        }
        self.alarms.raise_all(causes, now);
    }

    /// Gives a lead the dataset that is configured for it by now, and moves what is queued for it
    /// there, in order; how many events got a dataset.
    pub(in crate::store) fn route_lead(&mut self, lead_id: LeadId, routing: &Routing) -> u64 {
        let seq = self.leads.find(&lead_id).next();
        if let Some(seq) = seq {
            self.leads.modify(&seq, |lead| {
                lead.dataset_id = routing.keep_or_resolve(lead.dataset_id, lead.reported.page_id);
            });
        }
        let dataset_id = self.lead(lead_id).and_then(|lead| lead.dataset_id);
        let queued = self.queues.find(&lead_id);
        let elsewhere: Vec<_> = queued.filter(|(queue, _)| *queue != dataset_id).collect();
        for (queue, entry) in &elsewhere {
            self.move_queued(*queue, dataset_id, *entry);
        }
        dataset_id.map_or(0, |_| elsewhere.len() as u64)
    }

    fn move_queued(&mut self, from: Option<DatasetId>, to: Option<DatasetId>, entry: QueueEntry) {
        if let Some(lead_id) = self.queues.remove(&(from, entry)) {
            self.queues.insert((to, entry), lead_id);
            self.set_standing(entry.seq, Standing::Queued(to));
        }
    }

    pub(in crate::store) fn find_seq(&self, event_id: EventId) -> Option<u64> {
        let same = |seq: &u64| self.events[seq].event.id() == event_id;
        let reported_lead = event_id.lead_id();
        let found = self.found_leads.get(&reported_lead).copied();
        let timelines = [Some(reported_lead), found].into_iter().flatten();
        timelines.flat_map(|lead_id| self.timeline(lead_id)).find(same)
    }

    pub(in crate::store) fn route_held(&mut self, routing: &Routing) -> u64 {
        let unconfigured = |id: DatasetId| !routing.is_configured(id);
        let queued = self.queues.all().keys().copied();
        let stuck: Vec<_> =
            queued.filter(|(dataset_id, _)| dataset_id.is_some_and(unconfigured)).collect();
        for (queue, entry) in stuck {
            self.move_queued(queue, None, entry);
        }
        let held = self.queues.all().iter().filter(|((queue, _), _)| queue.is_none());
        let leads: BTreeSet<LeadId> = held.map(|(_, lead_id)| *lead_id).collect();
        leads.into_iter().map(|lead_id| self.route_lead(lead_id, routing)).sum()
    }

    pub(in crate::store) fn erase_lead(
        &mut self,
        lead_id: LeadId,
        now: Timestamp,
    ) -> Option<Erased> {
        if let Some(at) = self.erased.get(&lead_id) {
            return Some(Erased { at: *at, events: 0, cancelled: 0 });
        }
        let timeline = self.timeline(lead_id);
        let is_linked = self.crm_ids.values().any(|linked| *linked == lead_id);
        let is_known_otherwise = is_linked || self.customers.contains_key(&lead_id);
        if self.lead(lead_id).is_none() && timeline.is_empty() && !is_known_otherwise {
            return None;
        }
        for seq in &timeline {
            self.alarms.forget_lead(self.events[seq].event.reported_lead);
        }
        let is_open = |seq: &&u64| !has_ended(&self.events[*seq]);
        let cancelled = timeline.iter().filter(is_open).count() as u64;
        self.remove_lead(lead_id);
        self.alarms.forget_lead(lead_id);
        self.erased.insert(lead_id, now);
        Some(Erased { at: now, events: timeline.len() as u64, cancelled })
    }

    /// Removes a lead and its events; how many events there were.
    fn remove_lead(&mut self, lead_id: LeadId) -> u64 {
        self.leads.remove_all(&lead_id);
        self.crm_ids.retain(|_, linked| *linked != lead_id);
        self.found_leads.retain(|_, found| *found != lead_id);
        self.customers.remove(&lead_id);
        let events = self.events.remove_all(&lead_id);
        self.queues.remove_all(&lead_id);
        self.keys.retain(|_, (seq, _)| self.events.contains_key(seq));
        events as u64
    }

    pub(in crate::store) fn remove_old(&mut self, before: Timestamp) -> Removed {
        let mut removed = Removed::default();
        let awaited = self.events.all().values().map(|row| row.event.lead_id);
        let all: BTreeSet<LeadId> =
            self.leads.all().values().map(|lead| lead.reported.lead_id).chain(awaited).collect();
        for lead_id in all {
            let is_young = |lead: &Lead| lead.received_at >= before;
            let is_open = |seq: &u64| {
                let row = &self.events[seq];
                row.event.received_at >= before || !has_ended(row)
            };
            let lead = self.lead(lead_id);
            if !lead.is_some_and(is_young) && !self.timeline(lead_id).iter().any(is_open) {
                removed.leads += u64::from(lead.is_some());
                removed.events += self.remove_lead(lead_id);
            }
        }
        let pieces = self.quarantine.len();
        self.quarantine.retain(|_, piece| piece.received_at >= before);
        removed.quarantined = (pieces - self.quarantine.len()) as u64;
        removed
    }

    pub(in crate::store) fn stats(&self) -> Stats {
        let count = |is: fn(&Standing) -> bool| {
            self.events.all().values().filter(|row| is(&row.standing)).count() as u64
        };
        let mut fronts = BTreeMap::new();
        for (dataset_id, entry) in self.queues.all().keys() {
            fronts.entry(*dataset_id).or_insert(entry.event_time);
        }
        Stats {
            leads: self.leads.len() as u64,
            queued: self.queues.len() as u64,
            awaiting: count(|standing| *standing == Standing::AwaitingLead),
            dead: count(|standing| matches!(standing, Standing::Dead { .. })),
            quarantined: self.quarantine.len() as u64,
            unmapped: self.unmapped.len() as u64,
            fronts: fronts.into_iter().collect(),
        }
    }
}
