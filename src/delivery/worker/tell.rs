//! What a worker says of its work: metrics and logs.

use crate::delivery::verdict::Verdict;
use crate::delivery::worker::Worker;
use crate::domain::time::Timestamp;
use crate::store::{QueuedEvent, Settlement};

impl Worker {
    /// Tells how a request ended.
    pub(super) fn tell(
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
            if let ([alone], false) = (events, settlement.dead.is_empty()) {
                tracing::error!(
                    dataset = %dataset_id,
                    event_id = %alone.event.id(),
                    code = attempt.code,
                    subcode = attempt.subcode,
                    "an event that Meta refuses is a dead letter"
                );
            }
            tracing::warn!(
                dataset = %dataset_id,
                events = events.len(),
                dead = settlement.dead.len(),
                status = attempt.http_status,
                code = attempt.code,
                subcode = attempt.subcode,
                fbtrace_id = attempt.fbtrace_id,
                failures = self.failures + 1,
                "delivery failed"
            );
        }
    }
}
