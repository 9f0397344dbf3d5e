//! Looking leads up, one by one: those that a stage update named and nobody has told us of, and
//! those that a webhook has brought, to learn what their person wrote.
//!
//! It goes on in the background: whoever reported the lead or the stage has had their answer. What
//! is found is taken in as if a webhook had brought it, so that the events that await it are
//! judged. What is on the list is not durable. Every few hours, and at the start, the store is
//! asked whom it awaits; what a webhook brought before we died is read by the next backfill, whose
//! marks are durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::ids::{LeadId, PageId};
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::limits::{
    LOOK_UP_ROUND_EVERY_MS, LOOK_UP_ROUND_MAX, LOOK_UPS_FULL_PACE_MS, LOOK_UPS_MAX, STORE_RETRY_MS,
};
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
    /// How many found no room.
    left_out: AtomicU64,
    wake: Notify,
}

impl LookUps {
    /// Wishes that are heard by a [`Searcher`].
    pub fn heard() -> Self {
        Self(Some(Arc::default()))
    }

    /// Wishes that these leads be looked up, each with its Page if that is known. It waits for
    /// nothing, and what is too much is counted and left to the next round.
    pub fn wish(&self, wished: impl IntoIterator<Item = (LeadId, Option<PageId>)>) {
        let Some(inbox) = &self.0 else { return };
        let mut leads = inbox.leads.lock().unwrap_or_else(PoisonError::into_inner);
        for (lead_id, page_id) in wished {
            if leads.len() < LOOK_UPS_MAX || leads.contains_key(&lead_id) {
                leads.insert(lead_id, page_id);
            } else {
                inbox.left_out.fetch_add(1, Ordering::Relaxed);
            }
        }
        drop(leads);
        inbox.wake.notify_one();
    }

    fn take(&self) -> BTreeMap<LeadId, Option<PageId>> {
        let inbox = self.0.as_ref();
        inbox.map_or_else(BTreeMap::new, |inbox| {
            std::mem::take(&mut inbox.leads.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    /// How many found no room since this was asked last.
    fn take_left_out(&self) -> u64 {
        self.0.as_ref().map_or(0, |inbox| inbox.left_out.swap(0, Ordering::Relaxed))
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
    /// How many leads found no room and nobody was told of, and when somebody is.
    left_out: (u64, Timestamp),
    /// The Pages without a token that were told of: as many as send us leads.
    unreadable: BTreeSet<PageId>,
}

impl Searcher {
    /// A searcher who asks the store first.
    pub fn new(graph: Arc<Graph>, intake: LeadIntake, wishes: LookUps) -> Self {
        let now = intake.clock.now();
        let (agenda, next_round, left_out) = (Agenda::default(), (now, None), (0, now));
        let unreadable = BTreeSet::new();
        Self { graph, intake, wishes, agenda, next_round, left_out, unreadable }
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
        let mut left_out = self.wishes.take_left_out();
        for (lead_id, page_id) in self.wishes.take() {
            if self.can_read(page_id) {
                left_out += u64::from(!self.agenda.add(lead_id, page_id, now));
            }
        }
        self.tell_of_left_out(left_out, now);
        if self.next_round.0 <= now {
            self.begin_round(now).await;
        }
        if let Some((_, lead_id)) = self.agenda.first().filter(|(at, _)| *at <= now) {
            self.look_for(lead_id, now).await;
        }
        let next = self.agenda.first().map(|(at, _)| at);
        next.map_or(self.next_round.0, |at| at.min(self.next_round.0))
    }

    /// Whether there is a token for a Page; if there is none, that is told once.
    fn can_read(&mut self, page_id: Option<PageId>) -> bool {
        let can_read = self.graph.can_read(page_id);
        if let Some(page_id) = page_id.filter(|_| !can_read)
            && self.unreadable.insert(page_id)
        {
            tracing::warn!(page = %page_id, "leads of a Page are not read: it has no token");
        }
        can_read
    }

    fn tell_of_left_out(&mut self, left_out: u64, now: Timestamp) {
        self.intake.metrics.look_ups_left_out(left_out);
        self.left_out.0 += left_out;
        let (leads, tell_at) = self.left_out;
        if leads > 0 && tell_at <= now {
            tracing::warn!(leads, "too many leads are looked for: some wait for the next round");
            self.left_out = (0, now.plus_millis(LOOK_UPS_FULL_PACE_MS));
        }
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
        let added = awaited.iter().take_while(|lead_id| self.agenda.add_once(**lead_id, now));
        let (added, left_out) = awaited.split_at(added.count());
        self.tell_of_left_out(left_out.len() as u64, now);
        let next_after = added.last().copied().or(self.next_round.1);
        let next_after = next_after.filter(|_| is_full || !left_out.is_empty());
        self.next_round = (now.plus_millis(LOOK_UP_ROUND_EVERY_MS), next_after);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::verdict::NoAnswer;
    use crate::domain::customer::Customer;
    use crate::domain::event::{SourcePolicy, StageUpdate};
    use crate::domain::stage::StageName;
    use crate::meta::graph::GraphQuery;
    use crate::reader::fixtures::{NOW, reader};
    use crate::reader::source::{GraphAnswer, GraphSource};
    use async_trait::async_trait;
    use secrecy::SecretString;

    struct Nothing;

    #[async_trait]
    impl GraphSource for Nothing {
        async fn ask(&self, _: &SecretString, _: &GraphQuery) -> Result<GraphAnswer, NoAnswer> {
            let http_status = 404;
            Ok(GraphAnswer { http_status, ..GraphAnswer::default() })
        }
    }

    fn leads(from: u64, many: usize) -> impl Iterator<Item = (LeadId, Option<PageId>)> {
        let number = move |n| LeadId::from_u64(1_234_567_890_123_456 + from + n as u64).unwrap();
        (0..many).map(move |n| (number(n), None))
    }

    fn awaiting(number: u64) -> StageUpdate {
        let (lead_id, _) = leads(number, 1).next().unwrap();
        StageUpdate {
            lead: lead_id.into(),
            stage: StageName::parse("won").unwrap(),
            event_time: Some(NOW.seconds()),
            came_at: None,
            source: SourceName::unnamed_crm(),
            idempotency_key: None,
            customer: Customer::default(),
            custom_data: None,
            policy: SourcePolicy::default(),
        }
    }

    #[tokio::test]
    async fn a_round_that_finds_no_room_goes_on_there_the_next_time() {
        let (graph, intake, _) = reader(Arc::new(Nothing));
        let awaited = (50_000..50_003).map(awaiting).collect();
        let routing = &intake.config.routing;
        intake.store.record_stage_updates(awaited, routing, NOW).await.unwrap();
        let wishes = LookUps::heard();
        let mut searcher = Searcher::new(graph, intake, wishes.clone());
        wishes.wish(leads(0, LOOK_UPS_MAX - 1));
        searcher.step().await;
        let next_round = NOW.plus_millis(LOOK_UP_ROUND_EVERY_MS);
        let (first, _) = leads(50_000, 1).next().unwrap();
        assert_eq!(searcher.next_round, (next_round, Some(first)));
        let metrics = searcher.intake.metrics.render();
        assert!(metrics.contains("look_ups_left_out_total 2\n"), "{metrics}");
    }

    #[tokio::test]
    async fn leads_that_find_no_room_are_counted_and_told_of_once_a_minute() {
        let (graph, intake, clock) = reader(Arc::new(Nothing));
        let wishes = LookUps::heard();
        let mut searcher = Searcher::new(graph, intake, wishes.clone());
        let left_out = |searcher: &Searcher| {
            let text = searcher.intake.metrics.render();
            let (_, rest) = text.split_once("look_ups_left_out_total ").unwrap();
            rest.lines().next().unwrap().parse::<u64>().unwrap()
        };
        wishes.wish(leads(0, LOOK_UPS_MAX + 1));
        searcher.step().await;
        assert_eq!((left_out(&searcher), searcher.left_out.0), (1, 0), "told at once");
        wishes.wish(leads(50_000, 7));
        searcher.step().await;
        assert_eq!((left_out(&searcher), searcher.left_out.0), (8, 7), "and counted meanwhile");
        clock.advance_ms(LOOK_UPS_FULL_PACE_MS);
        searcher.step().await;
        assert_eq!((left_out(&searcher), searcher.left_out), (8, (0, NOW.plus_millis(120_000))));
    }
}
