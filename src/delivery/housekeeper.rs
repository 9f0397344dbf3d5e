//! What no worker does: giving up events that nobody can send any more, and raising the alarm
//! before events become too old to be sent.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use crate::delivery::Tools;
use crate::domain::alarm::{Cause, Subject};
use crate::domain::ids::DatasetId;
use crate::domain::time::Timestamp;
use crate::limits::{
    DEADLINE_ALARM_EVERY_MS, DEADLINE_ALARM_S, EVENT_AGE_MAX_S, HOUSEKEEPING_EVERY_MS,
    UNMAPPED_KEPT_MS,
};
use crate::store::{NearDeadline, Stranded};

/// Looks after the store every minute.
pub struct Housekeeper {
    tools: Tools,
    /// When the alarm for a dataset's events was last raised.
    alarmed_at: BTreeMap<Option<DatasetId>, Timestamp>,
}

impl Housekeeper {
    /// A housekeeper that has raised no alarm yet.
    pub fn new(tools: Tools) -> Self {
        Self { tools, alarmed_at: BTreeMap::new() }
    }

    /// Works until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let now = self.tools.clock.now();
            self.tick(now).await;
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.tools.clock.sleep_until(now.plus_millis(HOUSEKEEPING_EVERY_MS)) => {}
            }
        }
    }

    /// One round.
    pub async fn tick(&mut self, now: Timestamp) {
        match self.tools.store.expire_stranded(now).await {
            Ok(stranded) => self.tell_stranded(stranded),
            Err(error) => tracing::error!(%error, "stranded events could not be looked through"),
        }
        let before = now.plus_millis(-UNMAPPED_KEPT_MS);
        match self.tools.store.remove_unmapped(before, now).await {
            Ok(removed) => removed.iter().for_each(|(source, unmapped)| {
                tracing::error!(%source, unmapped, "reports that fit no mapping are too old now");
            }),
            Err(error) => tracing::error!(%error, "old reports could not be removed"),
        }
        // Events before this second are within a day of their seven.
        let alarm_before = now.seconds() + (DEADLINE_ALARM_S - EVENT_AGE_MAX_S);
        match self.tools.store.near_deadline(alarm_before).await {
            Ok(near) => self.alarm(&near, now).await,
            Err(error) => tracing::error!(%error, "queues could not be looked through"),
        }
    }

    fn tell_stranded(&self, Stranded { awaiting, held }: Stranded) {
        if awaiting + held == 0 {
            return;
        }
        tracing::error!(
            awaiting,
            held,
            "events are dead letters: their leads never came, or no dataset did"
        );
        (0..awaiting).for_each(|_| self.tools.metrics.event_dead("lead_not_found"));
        (0..held).for_each(|_| self.tools.metrics.event_dead("expired"));
    }

    /// Says which events will be too old within a day, at once and then every hour.
    async fn alarm(&mut self, near: &[NearDeadline], now: Timestamp) {
        let counts = near.iter().map(|near| (near.dataset_id, near.events));
        self.tools.metrics.events_near_deadline(counts);
        self.alarmed_at.retain(|dataset_id, _| near.iter().any(|n| n.dataset_id == *dataset_id));
        for NearDeadline { dataset_id, events, earliest } in near {
            let last = self.alarmed_at.get(dataset_id);
            if last.is_some_and(|last| now.millis_since(*last) < DEADLINE_ALARM_EVERY_MS) {
                continue;
            }
            let cause = Cause {
                count: *events,
                ..Cause::once(
                    Subject::EventsDeadlineNear { dataset_id: *dataset_id },
                    Some((*earliest + EVENT_AGE_MAX_S).timestamp()),
                )
            };
            // What can't be raised is tried again in a minute; it is logged all the same.
            if self.tools.store.raise_alarm(cause, now).await.is_ok() {
                self.alarmed_at.insert(*dataset_id, now);
            }
            tracing::error!(
                dataset = dataset_id.map_or_else(|| "none".to_owned(), |id| id.to_string()),
                events,
                first_too_old_at = %(*earliest + EVENT_AGE_MAX_S),
                "events will be too old within a day and are not delivered yet"
            );
        }
    }
}
