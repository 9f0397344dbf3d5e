//! The watcher: sees conditions begin and end, and raises the alarms about that.
//!
//! It looks at what others write down anyway, so nobody on the way of a lead or an event knows of
//! it. What was told lasts in the store: a dataset that was paused before a restart and works after
//! it is told to have resumed. A pause that ends within a second of its beginning may go unseen.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::alarm::LastHeard;
use crate::clock::Clock;
use crate::delivery::status::{Activity, StatusBoard};
use crate::domain::alarm::{Cause, Condition, Subject};
use crate::domain::time::Timestamp;
use crate::limits::ALARM_WATCH_EVERY_MS;
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;

/// What the watcher looks at.
pub struct Watcher {
    /// Where alarms are raised.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How the datasets are doing.
    pub status: StatusBoard,
    /// When the webhook was heard.
    pub heard: LastHeard,
    /// After how many seconds of silence that is told.
    pub silence_s: Option<i64>,
    /// Where silence is shown.
    pub metrics: Arc<Metrics>,
}

/// The conditions that were told and last, and since when.
type Lasting = BTreeMap<Condition, Timestamp>;

impl Watcher {
    /// Watches until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            let mut lasting = None;
            loop {
                self.round(&mut lasting).await;
                let next = self.clock.now().plus_millis(ALARM_WATCH_EVERY_MS);
                self.clock.sleep_until(next).await;
            }
        })
        .await;
    }

    /// Looks once. What can't be written down is seen again in the next round.
    async fn round(&self, lasting: &mut Option<Lasting>) {
        let result = async {
            if self.store.is_shared() {
                // What another instance told is known from the store alone.
                *lasting = None;
            }
            let lasting = match lasting {
                Some(lasting) => lasting,
                None => lasting.insert(self.store.alarms().await?.lasting.into_iter().collect()),
            };
            self.watch_datasets(lasting).await?;
            self.watch_webhook(lasting).await
        };
        if let Err(error) = result.await {
            tracing::error!(%error, "an alarm cannot be raised yet");
        }
    }

    async fn watch_datasets(&self, lasting: &mut Lasting) -> Result<(), StoreError> {
        for (dataset_id, activity) in self.status.all() {
            let since = lasting.get(&Condition::DatasetPaused(dataset_id)).copied();
            match (activity, since) {
                (Activity::Paused { reason, since, .. }, None) => {
                    let reason = reason.name().into();
                    let subject = Subject::DatasetPaused { dataset_id, reason };
                    self.raise(subject, since, lasting).await?;
                }
                (Activity::Active, Some(since)) => {
                    self.raise(Subject::DatasetResumed { dataset_id }, since, lasting).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn watch_webhook(&self, lasting: &mut Lasting) -> Result<(), StoreError> {
        let Some(silence_s) = self.silence_s else { return Ok(()) };
        let now = self.clock.now();
        let is_silent = |at| now.millis_since(at) >= silence_s.saturating_mul(1_000);
        let mut heard_at = self.heard.get();
        if is_silent(heard_at) && self.store.is_shared() {
            // It may have been another instance that heard it.
            heard_at = heard_at.max(LastHeard::at_start(&*self.store, heard_at).await.get());
        }
        let is_silent = is_silent(heard_at);
        self.metrics.webhook_silent(is_silent);
        match (is_silent, lasting.get(&Condition::WebhookSilent).copied()) {
            (true, None) => {
                tracing::error!(silence_s, "no delivery of the webhook has come for so long");
                self.raise(Subject::WebhookSilent, heard_at, lasting).await
            }
            (false, Some(since)) => {
                tracing::warn!("the webhook is heard again");
                self.raise(Subject::WebhookResumed, since, lasting).await
            }
            _ => Ok(()),
        }
    }

    async fn raise(
        &self,
        subject: Subject,
        since: Timestamp,
        lasting: &mut Lasting,
    ) -> Result<(), StoreError> {
        let condition = subject.condition();
        let cause = Cause::once(subject, Some(since));
        self.store.raise_alarm(cause, self.clock.now()).await?;
        match condition {
            Some((condition, true)) => lasting.insert(condition, since),
            Some((condition, false)) => lasting.remove(&condition),
            None => None,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests;
