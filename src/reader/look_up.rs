//! Looking leads up, one by one: those that a stage update named and nobody has told us of, and
//! those that a webhook has brought, to learn what their person wrote.
//!
//! It goes on in the background: whoever reported the lead or the stage has had their answer. What
//! is found is taken in as if a webhook had brought it, so that the events that await it are
//! judged. What is on the list is not durable. Every few hours, and at the start, the store is
//! asked whom it awaits; what a webhook brought before we died is read by the next backfill, whose
//! marks are durable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::ids::{LeadId, PageId};
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::limits::{LOOK_UP_ROUND_EVERY_MS, LOOK_UP_ROUND_MAX, LOOK_UPS_MAX, STORE_RETRY_MS};
use crate::reader::agenda::Agenda;
use crate::reader::graph::{FoundLead, Graph, Miss};
use crate::reader::intake::LeadIntake;
use crate::store::{LeadOutcome, StoreError};

/// Takes wishes to look for leads, from anywhere; without a token it forgets them.
#[derive(Clone, Default)]
pub struct LookUps(Option<Arc<Inbox>>);

#[derive(Default)]
struct Inbox {
    leads: Mutex<BTreeMap<LeadId, Option<PageId>>>,
    wake: Notify,
}

impl LookUps {
    /// Wishes that are heard by a [`Searcher`].
    pub fn heard() -> Self {
        Self(Some(Arc::default()))
    }

    /// Wishes that these leads be looked up, each with its Page if that is known. It waits for
    /// nothing, and what is too much is left to the next round.
    pub fn wish(&self, wished: impl IntoIterator<Item = (LeadId, Option<PageId>)>) {
        let Some(inbox) = &self.0 else { return };
        let mut leads = inbox.leads.lock().unwrap_or_else(PoisonError::into_inner);
        let room = LOOK_UPS_MAX.saturating_sub(leads.len());
        leads.extend(wished.into_iter().take(room));
        drop(leads);
        inbox.wake.notify_one();
    }

    fn take(&self) -> BTreeMap<LeadId, Option<PageId>> {
        let inbox = self.0.as_ref();
        inbox.map_or_else(BTreeMap::new, |inbox| {
            std::mem::take(&mut inbox.leads.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    async fn woken(&self) {
        match &self.0 {
            Some(inbox) => inbox.wake.notified().await,
            None => std::future::pending().await,
        }
    }
}

/// Looks for the leads.
pub struct Searcher {
    graph: Arc<Graph>,
    intake: LeadIntake,
    wishes: LookUps,
    agenda: Agenda,
    /// When the store is asked next whom it awaits, and after which lead.
    next_round: (Timestamp, Option<LeadId>),
}

impl Searcher {
    /// A searcher who asks the store first.
    pub fn new(graph: Arc<Graph>, intake: LeadIntake, wishes: LookUps) -> Self {
        let next_round = (intake.clock.now(), None);
        Self { graph, intake, wishes, agenda: Agenda::default(), next_round }
    }

    /// Works until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let clock = self.intake.clock.clone();
        while !stop.is_cancelled() {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                next = self.step() => next,
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.wishes.woken() => {}
                () = clock.sleep_until(next) => {}
            }
        }
    }

    /// Takes wishes, begins a round if it is time, and looks for what is due: one lead. Answers
    /// when there is more to do.
    async fn step(&mut self) -> Timestamp {
        let now = self.intake.clock.now();
        for (lead_id, page_id) in self.wishes.take() {
            self.agenda.add(lead_id, page_id, now);
        }
        if self.next_round.0 <= now {
            self.begin_round(now).await;
        }
        if let Some((_, lead_id)) = self.agenda.first().filter(|(at, _)| *at <= now) {
            self.look_for(lead_id, now).await;
        }
        let next = self.agenda.first().map(|(at, _)| at);
        next.map_or(self.next_round.0, |at| at.min(self.next_round.0))
    }

    /// Asks the store whom it awaits. A round that found more than it may look for goes on there
    /// the next time.
    async fn begin_round(&mut self, now: Timestamp) {
        let awaited = self.intake.store.awaited_leads(self.next_round.1, LOOK_UP_ROUND_MAX).await;
        let Ok(awaited) = awaited.inspect_err(|error| {
            tracing::error!(%error, "the store can't say which leads are awaited");
        }) else {
            self.next_round.0 = now.plus_millis(STORE_RETRY_MS);
            return;
        };
        let is_full = awaited.len() == LOOK_UP_ROUND_MAX;
        let next_after = awaited.last().copied().filter(|_| is_full);
        self.next_round = (now.plus_millis(LOOK_UP_ROUND_EVERY_MS), next_after);
        for lead_id in awaited {
            self.agenda.add_once(lead_id, now);
        }
    }

    async fn look_for(&mut self, lead_id: LeadId, now: Timestamp) {
        let page_id = self.agenda.page_of(lead_id);
        let found = match self.graph.find_lead(lead_id, page_id).await {
            Ok(found) => found,
            Err(Miss::Closed(closed)) => return self.agenda.postpone(lead_id, closed.until),
            // If asking for this lead is what closed the gate, it must not go first for ever.
            Err(Miss::NotFound | Miss::Senseless | Miss::Shut(_)) => {
                if !self.agenda.missed(lead_id, now) {
                    tracing::info!(%lead_id, "a lead can't be read from Meta");
                }
                return;
            }
        };
        match self.take_in(&found).await {
            Ok(outcome) => {
                if outcome == Some(LeadOutcome::New) {
                    tracing::info!(%lead_id, "a lead that a stage update named was read from Meta");
                }
                self.agenda.remove(lead_id);
            }
            Err(error) => {
                tracing::error!(%error, %lead_id, "a lead that was read could not be stored");
                self.agenda.postpone(lead_id, now.plus_millis(STORE_RETRY_MS));
            }
        }
    }

    /// The lead first, so that it is there when its person is learnt; both may be repeated.
    async fn take_in(&self, found: &FoundLead) -> Result<Option<LeadOutcome>, StoreError> {
        let leads = [(&found.lead, found.page_id)];
        let outcomes = self.intake.take_in(&leads, &SourceName::graph()).await?;
        if let Some(form) = &found.form {
            self.intake.learn(std::slice::from_ref(&found.lead), form).await?;
        }
        Ok(outcomes.first().copied())
    }
}
