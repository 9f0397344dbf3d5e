//! Removes what is older than the operator wants to keep, a little at a time.

use tokio_util::sync::CancellationToken;

use crate::delivery::Tools;
use crate::domain::time::Timestamp;
use crate::limits::{DAY_MS, REMOVE_EVERY_MS, REMOVE_PACE_MS};
use crate::store::Removed;

/// Goes through the store every hour, in steps that leave the writer free in between.
pub struct Retention {
    tools: Tools,
    days: u32,
    /// Where to go on.
    from: u64,
}

impl Retention {
    /// Keeps what was heard of within so many days.
    pub fn new(tools: Tools, days: u32) -> Self {
        Self { tools, days, from: 0 }
    }

    /// Works until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let next_at = self.tick(self.tools.clock.now()).await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.tools.clock.sleep_until(next_at) => {}
            }
        }
    }

    /// One step; answers when the next is due.
    pub async fn tick(&mut self, now: Timestamp) -> Timestamp {
        let before = now.plus_millis(-i64::from(self.days) * DAY_MS);
        let removed = match self.tools.store.remove_old(before, self.from).await {
            Ok(removed) => removed,
            Err(error) => {
                tracing::error!(%error, "old leads could not be removed");
                // What is looked at first must not wait for what is in the way there.
                self.from = 0;
                return now.plus_millis(REMOVE_EVERY_MS);
            }
        };
        let Removed { leads, events, quarantined, next } = removed;
        if leads + events + quarantined > 0 {
            tracing::info!(leads, events, quarantined, days = self.days, "removed for their age");
        }
        self.from = next.unwrap_or(0);
        now.plus_millis(next.map_or(REMOVE_EVERY_MS, |_| REMOVE_PACE_MS))
    }
}
