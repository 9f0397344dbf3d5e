//! The worker of one dataset: read what is due, send it, write down how it ended, again.
//!
//! It sends one batch at a time, so what gathers meanwhile goes out together next, and the events
//! of a lead can't overtake each other. It decides nothing itself.

use std::sync::Arc;

use secrecy::ExposeSecret;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::Dataset;
use crate::delivery::Tools;
use crate::delivery::step::{Plan, Sent, plan, settle_expired, settle_sent};
use crate::delivery::verdict::{NoAnswer, Verdict};
use crate::domain::backoff::retry_delay_ms;
use crate::domain::event::{DeadReason, Event};
use crate::domain::time::Timestamp;
use crate::limits::{SEND_BATCH_MAX, WORKER_IDLE_MS};
use crate::meta::conversions::{Answer, Envelope, request_body};
use crate::store::{QueuedEvent, Settlement};

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
}

impl Worker {
    /// A worker that has not failed yet.
    pub fn new(dataset: Dataset, tools: Tools) -> Self {
        Self { dataset, tools, failures: 0 }
    }

    /// Works until `stop` is cancelled; a request that is under way is finished and recorded.
    pub async fn run(mut self, wake: Arc<Notify>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.step(&stop).await {
                Next::Now => {}
                Next::Idle(until) => tokio::select! {
                    () = stop.cancelled() => {}
                    () = wake.notified() => {}
                    () = self.tools.clock.sleep_until(until) => {}
                },
                Next::BackOff(until) => tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.tools.clock.sleep_until(until) => {}
                },
            }
        }
    }

    /// One round: at most one request.
    pub async fn step(&mut self, stop: &CancellationToken) -> Next {
        let now = self.tools.clock.now();
        let batch = self.tools.store.next_batch(self.dataset.id, now, SEND_BATCH_MAX).await;
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(dataset = %self.dataset.id, %error, "queue cannot be read");
                return self.back_off();
            }
        };
        let idle_until = now.plus_millis(WORKER_IDLE_MS);
        let wake_at = batch.next_due.map_or(idle_until, |due| due.timestamp().min(idle_until));
        let Plan { send, expired } = plan(batch.events, now);
        if !expired.is_empty() {
            let settlement = settle_expired(self.dataset.id, expired, now);
            self.record(settlement, stop).await;
        } else if send.is_empty() {
            return Next::Idle(wake_at);
        }
        if send.is_empty() { Next::Now } else { self.deliver(&send, stop).await }
    }

    async fn deliver(&mut self, events: &[QueuedEvent], stop: &CancellationToken) -> Next {
        let at = self.tools.clock.now();
        let outcome = self.send(events).await;
        let now = self.tools.clock.now();
        let (verdict, settlement) = settle_sent(
            &Sent {
                dataset_id: self.dataset.id,
                events,
                at,
                outcome,
                access_token: self.dataset.access_token.expose_secret(),
            },
            now,
        );
        self.tell(verdict, events, &settlement, now);
        self.record(settlement, stop).await;
        match verdict {
            Verdict::Delivered => {
                self.failures = 0;
                Next::Now
            }
            Verdict::Retry => self.back_off(),
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
    async fn record(&mut self, settlement: Settlement, stop: &CancellationToken) {
        for (_, reason) in &settlement.dead {
            self.tools.metrics.event_dead(reason.name());
        }
        if settlement.dead.iter().any(|(_, reason)| *reason == DeadReason::Expired) {
            let events = settlement.dead.len();
            tracing::error!(dataset = %self.dataset.id, events, "events expired undelivered");
        }
        let mut tries = 0;
        while let Err(error) = self.tools.store.settle(settlement.clone()).await {
            tries += 1;
            tracing::error!(dataset = %self.dataset.id, %error, tries, "outcome not recorded");
            let wait_ms = retry_delay_ms(tries, self.tools.random.next_u64());
            let until = self.tools.clock.now().plus_millis(wait_ms.cast_signed());
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.tools.clock.sleep_until(until) => {}
            }
        }
    }

    fn back_off(&mut self) -> Next {
        self.failures = self.failures.saturating_add(1);
        let wait_ms = retry_delay_ms(self.failures, self.tools.random.next_u64());
        Next::BackOff(self.tools.clock.now().plus_millis(wait_ms.cast_signed()))
    }

    fn tell(
        &self,
        verdict: Verdict,
        events: &[QueuedEvent],
        settlement: &Settlement,
        now: Timestamp,
    ) {
        let (dataset_id, metrics) = (self.dataset.id, &self.tools.metrics);
        if verdict == Verdict::Delivered {
            metrics.send_request(dataset_id, "delivered");
            for queued in events {
                let heard = queued.event.received_at;
                metrics.event_delivered(dataset_id, now.millis_since(heard));
            }
            tracing::debug!(dataset = %dataset_id, events = events.len(), "delivered");
        } else if let Some(attempt) = &settlement.attempt {
            metrics.send_request(dataset_id, "failed");
            tracing::warn!(
                dataset = %dataset_id,
                events = events.len(),
                status = attempt.http_status,
                code = attempt.code,
                subcode = attempt.subcode,
                fbtrace_id = attempt.fbtrace_id,
                failures = self.failures + 1,
                "delivery failed, will be tried again"
            );
        }
    }
}

#[cfg(test)]
mod tests;
