//! The sender: brings the alarms that wait in the store to their receiver, at least once.
//!
//! A try is written down before it is made, with the time of the next one, so that a process that
//! dies meanwhile neither forgets the message nor hammers the receiver, and sends the same to the
//! letter again. Nothing but an answer of 2xx, or three days in vain, ends it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::alarm::message::Message;
use crate::alarm::post::{Post, Posted};
use crate::clock::{Clock, Random};
use crate::domain::alarm::Alarm;
use crate::domain::backoff::retry_delay_ms;
use crate::domain::time::Timestamp;
use crate::limits::{ALARM_KEPT_MS, ALARM_LOOK_EVERY_MS, ALARM_PACE_MS, RETRY_SCHEDULE_MS};
use crate::store::{Duty, Store, StoreError};
use crate::telemetry::Metrics;

/// What the sender works with.
#[derive(Clone)]
pub struct Tools {
    /// Where alarms wait.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// For the jitter of waits.
    pub random: Arc<dyn Random>,
    /// Where messages are counted.
    pub metrics: Arc<Metrics>,
    /// The way to the receiver.
    pub post: Arc<Post>,
}

/// Sends what waits.
pub struct Sender {
    tools: Tools,
    /// When each subject was last told, as far as that keeps the next message back.
    told_at: BTreeMap<String, Timestamp>,
}

impl Sender {
    /// A sender that has told nothing yet.
    pub fn new(tools: Tools) -> Self {
        Self { tools, told_at: BTreeMap::new() }
    }

    /// Works until `stop` is cancelled, which also breaks off a request that is under way: its
    /// message is tried again after the next start.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                self.round().await;
                let next = self.tools.clock.now().plus_millis(ALARM_LOOK_EVERY_MS);
                self.tools.clock.sleep_until(next).await;
            }
        })
        .await;
    }

    /// Tries what is due, one message after the other; a receiver that does not answer is left
    /// alone until the next round, and what waits can gather meanwhile.
    pub async fn round(&mut self) {
        match self.tools.store.hold(Duty::Alarms).await {
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => return tracing::error!(%error, "alarms cannot be read"),
        }
        let waiting = match self.tools.store.alarms().await {
            Ok(alarms) => alarms.waiting,
            Err(error) => return tracing::error!(%error, "alarms cannot be read"),
        };
        self.tools.metrics.alarms_waiting(waiting.len());
        let now = self.tools.clock.now();
        self.told_at.retain(|_, told_at| is_recent(*told_at, now));
        for alarm in due(&waiting, &self.told_at, now) {
            match self.try_one(alarm).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return tracing::error!(%error, "a try of an alarm is not recorded"),
            }
        }
    }

    /// Tries one message; whether the receiver answered at all.
    async fn try_one(&mut self, alarm: &Alarm) -> Result<bool, StoreError> {
        let Tools { store, clock, random, metrics, post } = &self.tools;
        let key = alarm.key();
        let wait_ms = retry_delay_ms(alarm.tries.saturating_add(1), random.next_u64());
        let next_try_at = clock.now().plus_millis(wait_ms.cast_signed());
        // What has gathered until here is in it.
        let Some(alarm) = store.begin_alarm_try(&key, next_try_at).await? else {
            return Ok(true);
        };
        // From here on the message is durable as it is, and due again after a wait. If we die now,
        // the next process sends the same once more.
        let message =
            Message::of(&alarm).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let posted = post.post(&message, clock.now()).await;
        let (id, subject, tries) = (&message.id, &key.0, alarm.tries);
        if posted == Posted::Taken {
            tracing::info!(id, subject, tries, "alarm sent");
            metrics.alarm_sent();
            self.told_at.insert(key.0.clone(), clock.now());
            store.end_alarm(&key).await?;
            return Ok(true);
        }
        metrics.alarm_failed();
        tracing::warn!(id, subject, tries, ?posted, "an alarm did not arrive");
        if clock.now().millis_since(alarm.first_at) > ALARM_KEPT_MS {
            tracing::error!(id, subject, tries, "an alarm is given up: nobody took it");
            metrics.alarm_given_up();
            store.end_alarm(&key).await?;
        }
        Ok(matches!(posted, Posted::Refused(_)))
    }
}

/// The messages to try now, oldest first: of each subject the first that waits, so that they arrive
/// in order, and that no more than two of a subject ever wait.
fn due<'a>(
    waiting: &'a [Alarm],
    told_at: &BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> Vec<&'a Alarm> {
    let mut due = Vec::new();
    let mut before = None;
    for alarm in waiting {
        let subject = &alarm.cause.subject;
        if before.replace(subject) == Some(subject) {
            continue;
        }
        let is_due = if alarm.is_gathering() {
            !told_at.get(&subject.to_string()).is_some_and(|told_at| is_recent(*told_at, now))
        } else {
            is_over(alarm.next_try_at, now)
        };
        if is_due {
            due.push(alarm);
        }
    }
    due.sort_by_key(|alarm| alarm.first_at);
    due
}

/// Whether a subject was told so recently that its next message has to wait.
fn is_recent(told_at: Timestamp, now: Timestamp) -> bool {
    (0..ALARM_PACE_MS).contains(&now.millis_since(told_at))
}

/// Whether a wait is over; one that is longer than any wait is the doing of a clock that was set
/// back.
fn is_over(until: Timestamp, now: Timestamp) -> bool {
    let longest_ms = RETRY_SCHEDULE_MS.last().map_or(0, |wait_ms| wait_ms.cast_signed());
    !(1..=longest_ms).contains(&until.millis_since(now))
}

#[cfg(test)]
mod tests;
