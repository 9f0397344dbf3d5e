//! The worker of one dataset: read what is due, send it, write down how it ended, again.
//!
//! It sends one batch at a time, so what gathers meanwhile goes out together next, and the events
//! of a lead can't overtake each other. A batch that Meta refuses for one wrong event is taken
//! apart until that event is alone. What anything means is decided in [`super::verdict`], and what
//! to write down in [`super::step`].

mod tell;

use std::collections::BTreeSet;
use std::sync::Arc;

use secrecy::ExposeSecret;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::Dataset;
use crate::delivery::Tools;
use crate::delivery::doubt::Doubts;
use crate::delivery::status::Activity;
use crate::delivery::step::{
    Plan, Sent, fit_request, is_doubted, last_try_at, plan, settle_expired, settle_sent,
    take_apart, wanted_at,
};
use crate::delivery::verdict::{NoAnswer, Verdict};
use crate::domain::backoff::retry_delay_ms;
use crate::domain::event::Event;
use crate::domain::ids::LeadId;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::{
    DEADLINE_PACE_MS, DEADLINE_TRY_MS, EVENT_AGE_MAX_S, REFUSALS_IN_A_ROW_MAX,
    REFUSALS_PER_PROBE_MAX, SEND_BATCH_MAX, SEND_EVERY_MS, STORE_RETRY_MS, THROTTLE_WAIT_MS_MAX,
    WORKER_IDLE_MS,
};
use crate::meta::conversions::{Answer, Envelope, GraphError, request_body};
use crate::meta::errors::PauseReason;
use crate::store::{Hold, QueuedEvent, Settlement, StoreError};

/// When a worker looks at its queue again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: there may be more.
    Now,
    /// At this time, or as soon as something is put into the queue.
    Idle(Timestamp),
    /// At this time and not before, whatever is put into the queue.
    BackOff(Timestamp),
}

/// Delivers the events of one dataset.
pub struct Worker {
    dataset: Dataset,
    tools: Tools,
    /// Failures in a row, which say how long to wait.
    failures: u32,
    /// Events that Meta refused one after the other, having taken none since.
    refusals: u32,
    /// Leads whose next event Meta refused and may take later; they are kept back until then.
    doubts: Doubts,
    /// The right to send what was read last.
    hold: Hold,
    /// When the last request went out, if it had room for more.
    roomy_at: Option<Timestamp>,
}

impl Worker {
    /// A worker that has not failed yet.
    pub fn new(dataset: Dataset, tools: Tools) -> Self {
        let (doubts, hold) = (Doubts::default(), Hold::default());
        Self { dataset, tools, failures: 0, refusals: 0, doubts, hold, roomy_at: None }
    }

    /// Works until `stop` is cancelled; a request that is under way is finished and recorded.
    pub async fn run(mut self, wake: Arc<Notify>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.step(&stop).await {
                Next::Now => self.wait_for_company(&stop).await,
                // In this order, so that a simulation can be repeated.
                Next::Idle(until) => tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = wake.notified() => {}
                    () = self.tools.clock.sleep_until(until) => {}
                },
                Next::BackOff(until) => self.wait(until, &stop).await,
            }
        }
    }

    /// Until when to wait for more if the last request had room for it: each takes a commit, too,
    /// and if Meta answered at once there would be thousands a second, with an event each.
    fn company_until(&mut self) -> Option<Timestamp> {
        let (sent_at, now) = (self.roomy_at.take()?, self.tools.clock.now());
        let until = sent_at.min(now).plus_millis(SEND_EVERY_MS);
        (now < until).then_some(until)
    }

    async fn wait_for_company(&mut self, stop: &CancellationToken) {
        let Some(until) = self.company_until() else { return };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.tools.clock.pause_until(until) => {}
        }
    }

    /// Waits. What is put into the queue meanwhile shortens the wait only if it can't wait so long,
    /// which is looked at every minute and not at each of perhaps thousands of calls a second.
    async fn wait(&self, mut until: Timestamp, stop: &CancellationToken) {
        let clock = &self.tools.clock;
        while clock.now() < until {
            // No wait is longer than this, so one that seems to be was reckoned by a clock that has
            // been set back since.
            until = until.min(clock.now().plus_millis(THROTTLE_WAIT_MS_MAX.cast_signed()));
            let look_at = clock.now().plus_millis(DEADLINE_PACE_MS).min(until);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = clock.sleep_until(look_at) => {}
            }
            let last_try_at = self.last_try_at(clock.now()).await;
            until = last_try_at.map_or(until, |at| at.min(until));
        }
    }

    /// The latest moment to try again for the sake of the event in the queue whose seven days end
    /// first; none if all of them have more time than any wait takes.
    async fn last_try_at(&self, now: Timestamp) -> Option<Timestamp> {
        let longest_ms = THROTTLE_WAIT_MS_MAX.cast_signed() + DEADLINE_TRY_MS;
        let before = now.plus_millis(longest_ms).seconds() + -EVENT_AGE_MAX_S;
        let near = self.tools.store.near_deadline(before).await.ok()?;
        let own = near.iter().find(|near| near.dataset_id == Some(self.dataset.id))?;
        Some(last_try_at((own.earliest + EVENT_AGE_MAX_S).timestamp(), now))
    }

    /// One round: one batch, in one request unless Meta refuses it for what it says.
    pub async fn step(&mut self, stop: &CancellationToken) -> Next {
        let now = self.tools.clock.now();
        self.doubts.forget_old(now);
        let kept_back: BTreeSet<LeadId> =
            self.doubts.kept_back(now).map(|(lead_id, _)| lead_id).collect();
        // A paused dataset is probed with what is first in its queue; where single events are under
        // suspicion, with as many as it takes to find a good one.
        let limit = match self.activity() {
            Activity::Paused { reason, .. } if reason != PauseReason::Refusals => 1,
            _ => SEND_BATCH_MAX,
        };
        let batch = self.tools.store.next_batch(self.dataset.id, now, limit, &kept_back).await;
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => return self.queue_unreadable(&error),
        };
        let due = batch.next_due.map(UnixSeconds::timestamp);
        let Some(hold) = batch.hold else {
            self.tools.status.set(self.dataset.id, Activity::Elsewhere);
            self.tools.metrics.dataset_paused(self.dataset.id, false);
            return Next::Idle(self.tools.clock.now().plus_millis(WORKER_IDLE_MS));
        };
        self.tools.status.take_over(self.dataset.id);
        self.hold = hold;
        // Reading may have taken its time, and what was in time before may not be any more.
        let now = self.tools.clock.now();
        let Plan { send, expired } = plan(batch.events, now);
        if !expired.is_empty() {
            tracing::error!(
                dataset = %self.dataset.id,
                events = expired.len(),
                "events expired undelivered"
            );
            self.record(settle_expired(self.dataset.id, expired, now)).await;
            return Next::Now;
        }
        if send.is_empty() {
            let idle_until = now.plus_millis(WORKER_IDLE_MS);
            let soonest =
                due.into_iter().chain(self.doubts.kept_back(now).map(|(_, until)| until)).min();
            return Next::Idle(soonest.map_or(idle_until, |at| at.min(idle_until)));
        }
        let due = send.len();
        let send = fit_request(send);
        self.roomy_at = (send.len() == due && due < SEND_BATCH_MAX).then_some(now);
        let hold = self.hold.clone();
        // Whoever takes the duty over finds in the queue what was not recorded.
        tokio::select! {
            biased;
            () = hold.ended() => {
                tracing::warn!(dataset = %self.dataset.id, "another instance may send by now");
                Next::Now
            }
            next = self.deliver(send, stop) => next,
        }
    }

    /// Sends a batch; one that is refused for what it says is taken apart, and its parts are sent
    /// one after the other, so that the good events are not held up by a wrong one.
    async fn deliver(&mut self, events: Vec<QueuedEvent>, stop: &CancellationToken) -> Next {
        let mut parts = vec![events];
        // Leads with an event that was refused and stays queued. However long the other parts take,
        // no later event of such a lead goes out before the queue is read again.
        let mut left_behind = BTreeSet::new();
        let refusals_max = self.refusals + REFUSALS_PER_PROBE_MAX;
        let mut is_taken_apart = false;
        while let Some(mut part) = parts.pop()
            && self.refusals < refusals_max
        {
            if is_taken_apart {
                part = match self.still_to_send(part, &left_behind).await {
                    Ok(part) => part,
                    // Going on without this part could let a later event of a lead overtake it.
                    Err(error) => return self.queue_unreadable(&error),
                };
            }
            if part.is_empty() {
                continue;
            }
            let (verdict, blamed) = self.send_and_record(&part).await;
            match verdict {
                Verdict::Invalid { .. } if part.len() > 1 => {
                    let (first, second) = take_apart(part, &blamed);
                    parts.extend([second, first]);
                    is_taken_apart = true;
                }
                // A refused event is dead, or kept back for a while; nobody else waits for it.
                Verdict::Invalid { .. } => {
                    let leads = part.iter().map(|queued| queued.event.lead_id);
                    left_behind.extend(leads.filter(|lead_id| self.doubts.contain(*lead_id)));
                }
                Verdict::Delivered => {}
                verdict => return self.back_off(verdict).await,
            }
            if stop.is_cancelled() {
                return Next::Now;
            }
        }
        if self.refusals >= REFUSALS_IN_A_ROW_MAX {
            return self.back_off(Verdict::Paused(PauseReason::Refusals)).await;
        }
        self.note_working();
        Next::Now
    }

    /// A part without the leads that were left behind, and without what has left the queue or
    /// become too old while other parts were sent.
    async fn still_to_send(
        &mut self,
        mut part: Vec<QueuedEvent>,
        left_behind: &BTreeSet<LeadId>,
    ) -> Result<Vec<QueuedEvent>, StoreError> {
        let now = self.tools.clock.now();
        let entries = part.iter().map(|queued| queued.entry).collect();
        let queued = self.tools.store.still_queued(self.dataset.id, entries).await?;
        part.retain(|it| queued.contains(&it.entry) && !left_behind.contains(&it.event.lead_id));
        let Plan { send, expired } = plan(part, now);
        if !expired.is_empty() {
            self.record(settle_expired(self.dataset.id, expired, now)).await;
        }
        Ok(send)
    }

    /// The queue is read again after a while.
    fn queue_unreadable(&self, error: &StoreError) -> Next {
        tracing::error!(dataset = %self.dataset.id, %error, "queue cannot be read");
        Next::BackOff(self.tools.clock.now().plus_millis(STORE_RETRY_MS))
    }

    async fn send_and_record(&mut self, events: &[QueuedEvent]) -> (Verdict, BTreeSet<usize>) {
        let at = self.tools.clock.now();
        let outcome = self.send(events).await;
        let now = self.tools.clock.now();
        let sent = Sent {
            dataset_id: self.dataset.id,
            events,
            at,
            outcome,
            believe_refusal: self.refusals < REFUSALS_IN_A_ROW_MAX,
            access_token: self.dataset.access_token.expose_secret(),
        };
        let (verdict, settlement) = settle_sent(&sent, now);
        let error = sent.outcome.as_ref().ok().and_then(|answer| answer.error.as_ref());
        let blamed = error.map(GraphError::blamed).unwrap_or_default();
        self.tell(verdict, events, &settlement, now);
        let is_dead = !settlement.dead.is_empty();
        match (verdict, events) {
            (Verdict::Delivered, _) => (self.refusals, self.failures) = (0, 0),
            // Meta answers as it should; only a run of refusals is trouble of its own.
            (Verdict::Invalid { .. }, [_, _, ..]) if self.refusals == 0 => self.failures = 0,
            (Verdict::Invalid { doubt_ms }, [alone]) => {
                self.note_refusal(alone, is_dead, is_doubted(alone, doubt_ms, now), now);
            }
            _ => {}
        }
        self.record(settlement).await;
        (verdict, blamed)
    }

    /// Keeps the lead of an event that was refused and is not dead back for a while: shortly if
    /// Meta may not know it yet, longer if Meta refuses everything, so that others are tried.
    fn note_refusal(&mut self, alone: &QueuedEvent, is_dead: bool, is_fresh: bool, now: Timestamp) {
        if !is_fresh {
            self.refusals += 1;
        }
        let lead_id = alone.event.lead_id;
        if is_dead {
            self.doubts.end(lead_id);
        } else {
            self.doubts.begin(lead_id, is_fresh, self.tools.random.next_u64(), now);
        }
    }

    async fn send(&self, events: &[QueuedEvent]) -> Result<Answer, NoAnswer> {
        let events: Vec<&Event> = events.iter().map(|queued| &queued.event).collect();
        let envelope = Envelope {
            crm_name: &self.dataset.crm_name,
            partner_agent: self.dataset.partner_agent.as_deref(),
            test_event_code: self.dataset.test_event_code.as_deref(),
        };
        let body = request_body(&events, envelope).map_err(|_| NoAnswer::Unwritable)?;
        self.tools.sink.send(&self.dataset, body).await
    }

    /// Writes a settlement down, however often it takes: what Meta has accepted must not be sent
    /// again because the disk was full for a while.
    ///
    /// If we die before the commit, the batch is sent again with the same event ids; from the
    /// commit on, what was delivered has left the queue.
    async fn record(&mut self, mut settlement: Settlement) {
        settlement.hold = self.hold.clone();
        let mut tries = 0;
        while let Err(error) = self.tools.store.settle(settlement.clone()).await {
            if !self.hold.is_valid() {
                // Whoever has the duty by now sends it again, and writes down how that ended.
                return;
            }
            tries += 1;
            tracing::error!(dataset = %self.dataset.id, %error, tries, "outcome not recorded");
            // Also when the server is stopping: it waits for this, as long as it waits at all.
            let until = self.tools.clock.now().plus_millis(STORE_RETRY_MS);
            self.tools.clock.sleep_until(until).await;
        }
        for (_, reason) in &settlement.dead {
            self.tools.metrics.event_dead(reason.name());
        }
    }

    fn activity(&self) -> Activity {
        self.tools.status.get(self.dataset.id)
    }

    fn note_working(&self) {
        let before = self.tools.status.set(self.dataset.id, Activity::Active);
        self.tools.metrics.dataset_paused(self.dataset.id, false);
        if let Activity::Paused { reason, .. } = before {
            tracing::warn!(
                dataset = %self.dataset.id,
                reason = reason.name(),
                "dataset resumed: it works again"
            );
        }
    }

    /// Waits by the schedule, or as long as Meta asks; a pause is written on the board.
    async fn back_off(&mut self, verdict: Verdict) -> Next {
        self.failures = self.failures.saturating_add(1);
        let now = self.tools.clock.now();
        let scheduled_ms = retry_delay_ms(self.failures, self.tools.random.next_u64());
        let wanted_at = wanted_at(verdict, scheduled_ms, now);
        let last_try_at = self.last_try_at(now).await;
        let next_try_at = last_try_at.map_or(wanted_at, |at| at.min(wanted_at));
        let before = self.activity();
        let since = before.trouble_since().unwrap_or(now);
        let activity = match (verdict, before) {
            (Verdict::Paused(reason), Activity::Paused { .. }) => {
                Activity::Paused { reason, since, next_try_at }
            }
            (Verdict::Paused(reason), _) => {
                tracing::error!(
                    dataset = %self.dataset.id,
                    reason = reason.name(),
                    "dataset paused: its events are kept until this is mended"
                );
                self.tools.metrics.dataset_paused(self.dataset.id, true);
                Activity::Paused { reason, since: now, next_try_at }
            }
            // A probe that met other trouble leaves the pause as it is.
            (_, Activity::Paused { reason, since, .. }) => {
                Activity::Paused { reason, since, next_try_at }
            }
            _ => Activity::Waiting { since, next_try_at },
        };
        self.tools.status.set(self.dataset.id, activity);
        Next::BackOff(next_try_at)
    }
}

#[cfg(test)]
mod tests;
