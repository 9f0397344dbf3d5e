//! The model's queues: what is next, how it ended, and what nobody sends in time.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::alarm::{Causes, Subject};
use crate::domain::event::{DeadReason, Standing};
use crate::domain::ids::{DatasetId, LeadId};
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::store::memory::state::State;
use crate::store::{Batch, Hold, NearDeadline, QueueEntry, QueuedEvent, Settlement, Stranded};

impl State {
    pub(in crate::store) fn settle(&mut self, settlement: Settlement) {
        let dataset_id = Some(settlement.dataset_id);
        for entry in settlement.delivered.iter().chain(&settlement.failed) {
            if self.queues.contains_key(&(dataset_id, *entry)) {
                let attempt = settlement.attempt.clone();
                self.events.modify(&entry.seq, |row| row.attempts.extend(attempt));
            }
        }
        let mut end = |entry: QueueEntry, standing: Standing| {
            let queued = self.queues.remove(&(dataset_id, entry)).is_some();
            if queued {
                self.set_standing(entry.seq, standing);
            }
            queued
        };
        if settlement.attempt.is_some() {
            for entry in settlement.delivered {
                end(entry, Standing::Delivered);
            }
        }
        let (at, mut died) = (settlement.at, settlement.dead);
        died.retain(|(entry, reason)| end(*entry, Standing::Dead { reason: *reason, at }));
        let mut causes = Causes::default();
        for (entry, reason) in died {
            let subject = Subject::dead(dataset_id, reason, settlement.attempt.as_ref());
            causes.add(subject, || Some(self.events[&entry.seq].event.id()));
        }
        self.alarms.raise_all(causes, at);
    }

    pub(in crate::store) fn next_batch(
        &self,
        dataset_id: DatasetId,
        now: Timestamp,
        limit: usize,
        kept_back: &BTreeSet<LeadId>,
    ) -> Batch {
        let own = self.queues.all().iter().filter(|((queue, _), _)| *queue == Some(dataset_id));
        let (due, later): (Vec<_>, Vec<_>) =
            own.partition(|((_, entry), _)| entry.event_time <= now.seconds());
        let queued = |(_, entry): &(Option<DatasetId>, QueueEntry)| QueuedEvent {
            entry: *entry,
            event: self.events[&entry.seq].event.clone(),
        };
        let sendable = due.into_iter().filter(|(_, lead_id)| !kept_back.contains(lead_id));
        Batch {
            events: sendable.map(|(key, _)| queued(key)).take(limit).collect(),
            next_due: later.first().map(|((_, entry), _)| entry.event_time),
            hold: Some(Hold::default()),
        }
    }

    pub(in crate::store) fn is_queued(&self, dataset_id: DatasetId, entry: QueueEntry) -> bool {
        self.queues.contains_key(&(Some(dataset_id), entry))
    }

    pub(in crate::store) fn expire_stranded(&mut self, now: Timestamp) -> Stranded {
        let (mut stranded, mut causes) = (Stranded::default(), Causes::default());
        let seqs: Vec<u64> = self.events.all().keys().copied().collect();
        for seq in seqs {
            let row = &self.events[&seq];
            let (reason, count) = match row.standing {
                Standing::AwaitingLead => (DeadReason::LeadNotFound, &mut stranded.awaiting),
                Standing::Queued(None) => (DeadReason::Expired, &mut stranded.held),
                _ => continue,
            };
            if row.event.is_past_sending(now) {
                let event_id = row.event.id();
                causes.add(Subject::dead(None, reason, None), || Some(event_id));
                *count += 1;
                let entry = self.entry(seq);
                self.queues.remove(&(None, entry));
                self.set_standing(seq, Standing::Dead { reason, at: now });
            }
        }
        self.alarms.raise_all(causes, now);
        stranded
    }

    pub(in crate::store) fn near_deadline(&self, before: UnixSeconds) -> Vec<NearDeadline> {
        let mut near = BTreeMap::new();
        for (dataset_id, entry) in self.queues.all().keys().filter(|(_, it)| it.event_time < before)
        {
            let (dataset_id, earliest) = (*dataset_id, entry.event_time);
            let first = NearDeadline { dataset_id, events: 0, earliest };
            near.entry(dataset_id).or_insert(first).events += 1;
        }
        near.into_values().collect()
    }
}
