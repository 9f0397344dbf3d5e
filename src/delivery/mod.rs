//! Delivery: from a dataset's queue to Meta, in order, with every attempt on record.
//!
//! Each dataset has a worker of its own, so one dataset's trouble is nobody else's. What a worker
//! decides is in the pure modules [`step`] and [`verdict`]; [`worker`] reads, sends and records;
//! [`sink`] is the way to Meta, [`housekeeper`] does what no worker does, and [`retention`] removes
//! what is old. An event is sent at least once: the one window in which it may be sent twice is
//! between Meta's answer and our record of it, and then under the same event id.

mod doubt;
pub mod housekeeper;
pub mod retention;
pub mod sink;
pub mod status;
pub mod step;
pub mod verdict;
pub mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Random};
use crate::config::Dataset;
use crate::delivery::sink::EventSink;
use crate::delivery::status::StatusBoard;
use crate::delivery::worker::Worker;
use crate::domain::ids::DatasetId;
use crate::limits::SHARED_LOOK_EVERY_MS;
use crate::store::{Enqueued, Store};
use crate::telemetry::Metrics;

/// Wakes the workers whose queues grew.
#[derive(Clone, Default)]
pub struct Wakers(Arc<BTreeMap<DatasetId, Arc<Notify>>>);

impl Wakers {
    /// Wakes the worker of each dataset.
    pub fn wake(&self, enqueued: &Enqueued) {
        for dataset_id in &enqueued.0 {
            if let Some(worker) = self.0.get(dataset_id) {
                worker.notify_one();
            }
        }
    }
}

/// What all workers share.
#[derive(Clone)]
pub struct Tools {
    /// The queues.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// For the jitter of waits.
    pub random: Arc<dyn Random>,
    /// The way to Meta.
    pub sink: Arc<dyn EventSink>,
    /// Where attempts are counted.
    pub metrics: Arc<Metrics>,
    /// Where the workers write how their datasets are doing.
    pub status: StatusBoard,
}

/// Starts a worker for each dataset; they end, each after its request, when `stop` is cancelled.
pub fn start(
    datasets: impl IntoIterator<Item = Dataset>,
    tools: &Tools,
    stop: &CancellationToken,
) -> (Wakers, JoinSet<()>) {
    let mut wakers = BTreeMap::new();
    let mut workers = JoinSet::new();
    for dataset in datasets {
        let wake = Arc::new(Notify::new());
        wakers.insert(dataset.id, wake.clone());
        workers.spawn(Worker::new(dataset, tools.clone()).run(wake, stop.clone()));
    }
    let wakers = Wakers(Arc::new(wakers));
    if tools.store.is_shared() {
        workers.spawn(look_for_others(wakers.clone(), tools.clone(), stop.clone()));
    }
    (wakers, workers)
}

/// Wakes workers for what other instances put into their queues, and so that one that could not be
/// sent by another instance any more is sent by this one.
async fn look_for_others(wakers: Wakers, tools: Tools, stop: CancellationToken) {
    let datasets = wakers.0.keys().copied().collect();
    while !stop.is_cancelled() {
        let now = tools.clock.now();
        match tools.store.due(&datasets, now).await {
            Ok(due) => wakers.wake(&due),
            Err(error) => tracing::debug!(%error, "the queues cannot be looked at"),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tools.clock.sleep_until(now.plus_millis(SHARED_LOOK_EVERY_MS)) => {}
        }
    }
}
