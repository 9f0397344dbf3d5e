//! How the model queues dead letters again.

use crate::domain::event::{EventState, Standing};
use crate::domain::ids::EventId;
use crate::domain::routing::Routing;
use crate::domain::time::Timestamp;
use crate::limits::PAGE_SCAN_MAX;
use crate::store::memory::state::{Row, State};
use crate::store::query::{DeadLetters, EventFilter, Page, PageBuilder, PageRequest};
use crate::store::{Enqueued, Requeued, RequeuedMany};

impl State {
    pub(in crate::store) fn requeue(
        &mut self,
        event_id: EventId,
        routing: &Routing,
        now: Timestamp,
    ) -> Requeued {
        let Some(seq) = self.find_seq(event_id) else {
            return Requeued::NotFound;
        };
        let mut enqueued = Enqueued::default();
        match self.hope(seq, now) {
            None => Requeued::NotDead(self.detail(seq)),
            Some(false) => Requeued::Hopeless(self.detail(seq)),
            Some(true) => {
                self.enqueue_again(seq, routing, &mut enqueued);
                Requeued::Done(self.detail(seq), enqueued)
            }
        }
    }

    /// Whether a dead letter can be sent after all; `None` if it is not dead.
    fn hope(&self, seq: u64, now: Timestamp) -> Option<bool> {
        let Row { event, standing, .. } = &self.events[&seq];
        let Standing::Dead { reason, .. } = standing else { return None };
        Some(self.lead(event.lead_id).is_some() && event.has_hope(*reason, now))
    }

    fn enqueue_again(&mut self, seq: u64, routing: &Routing, enqueued: &mut Enqueued) {
        let lead_id = self.events[&seq].event.lead_id;
        self.route_lead(lead_id, routing);
        let lead = self.lead(lead_id);
        self.enqueue(seq, lead.and_then(|lead| lead.dataset_id), enqueued);
    }

    pub(in crate::store) fn requeue_many(
        &mut self,
        letters: &DeadLetters,
        dry_run: bool,
        routing: &Routing,
        now: Timestamp,
    ) -> RequeuedMany {
        let mut counts = RequeuedMany::default();
        let chosen = match letters {
            DeadLetters::Named(event_ids) => {
                let seqs = event_ids.iter().map(|event_id| self.find_seq(*event_id));
                let seqs: Vec<u64> = seqs.flatten().collect();
                counts.not_found = (event_ids.len() - seqs.len()) as u64;
                seqs
            }
            DeadLetters::Filtered(filter, page) => {
                let page = self.oldest_dead(filter, *page, now);
                counts.next_cursor = page.next_cursor;
                page.items
            }
        };
        for seq in chosen {
            match self.hope(seq, now) {
                None => counts.not_dead += 1,
                Some(false) => counts.hopeless += 1,
                Some(true) => {
                    counts.requeued += 1;
                    if !dry_run {
                        self.enqueue_again(seq, routing, &mut counts.enqueued);
                    }
                }
            }
        }
        counts
    }

    fn oldest_dead(&self, filter: &EventFilter, page: PageRequest, now: Timestamp) -> Page<u64> {
        let filter = EventFilter { state: Some(EventState::Dead), ..filter.clone() };
        let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
        for seq in
            self.events.all().keys().filter(|seq| page.cursor.is_none_or(|after| **seq > after))
        {
            if !builder.offer(*seq, self.admits(&filter, *seq, now).then_some(*seq)) {
                break;
            }
        }
        builder.finish()
    }
}
