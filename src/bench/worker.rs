//! What each connection does: take a turn, send, look at the answer, write down how it went.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bench::reading::{Content, Reading};
use crate::bench::report::{Failure, Offered, Report};
use crate::bench::schedule::{Schedule, Turn};
use crate::bench::supply::Supply;
use crate::limits::{BENCH_LATENCY_NS_MAX, BENCH_RECONNECT_WAIT};

/// Somebody who takes requests and answers them: a connection.
pub(super) trait Exchange: Send + 'static {
    /// Waits until a moment.
    fn wait_until(&mut self, due: Instant) -> impl Future<Output = ()> + Send;

    /// Sends a request, and waits for the body of an answer that is a success.
    fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = Result<Bytes, Failure>> + Send;
}

/// How a run is watched, and stopped.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// Requests that are done, well or not.
    pub(super) done: Arc<AtomicU64>,
    /// Ends the run.
    pub(super) stop: CancellationToken,
}

/// Lets connections work until the run is over.
pub(super) async fn drive<E: Exchange>(
    exchanges: Vec<E>,
    schedule: Schedule,
    supply: Supply,
    reading: &Reading,
    watch: Watch,
) -> Report {
    let run = Arc::new(Run {
        tally: Mutex::new(Tally::new(schedule.counted_from())),
        schedule: Mutex::new(schedule),
        supply: tokio::sync::Mutex::new(supply),
        watch,
    });
    let mut workers = JoinSet::new();
    for exchange in exchanges {
        workers.spawn(run.clone().work(exchange, reading.clone()));
    }
    workers.join_all().await;
    let supply = run.supply.lock().await;
    let tally = locked(&run.tally);
    tally.report(&locked(&run.schedule), &supply)
}

/// What the connections of a run share.
struct Run {
    schedule: Mutex<Schedule>,
    supply: tokio::sync::Mutex<Supply>,
    tally: Mutex<Tally>,
    watch: Watch,
}

impl Run {
    async fn work<E: Exchange>(self: Arc<Self>, mut exchange: E, mut reading: Reading) {
        while let Some(turn) = self.claim() {
            if let Some(due) = turn.due {
                exchange.wait_until(due).await;
            }
            let prepared = self.supply.lock().await.next().await;
            let sent = Instant::now();
            let content = match prepared {
                Some(prepared) => {
                    let request = reading.aim(prepared.request);
                    let answer = exchange.exchange(request).await;
                    answer.and_then(|body| reading.read(prepared.leads, &body))
                }
                None => Err(Failure::NotSent),
            };
            let lost = matches!(content, Err(Failure::Connect));
            locked(&self.tally).add(turn, sent, Instant::now(), content);
            self.watch.done.fetch_add(1, Ordering::Relaxed);
            if lost {
                tokio::time::sleep(BENCH_RECONNECT_WAIT).await;
            }
        }
    }

    fn claim(&self) -> Option<Turn> {
        if self.watch.stop.is_cancelled() {
            return None;
        }
        locked(&self.schedule).claim(Instant::now())
    }
}

/// What is written down.
struct Tally {
    counted_from: Instant,
    report: Report,
    last_answer: Instant,
    last_due: Instant,
    last_late: Duration,
    most_late: Duration,
}

impl Tally {
    fn new(counted_from: Instant) -> Self {
        Self {
            counted_from,
            report: Report::empty(),
            last_answer: counted_from,
            last_due: counted_from,
            last_late: Duration::ZERO,
            most_late: Duration::ZERO,
        }
    }

    fn add(
        &mut self,
        turn: Turn,
        sent: Instant,
        answered: Instant,
        content: Result<Content, Failure>,
    ) {
        if !turn.counts {
            return;
        }
        self.last_answer = self.last_answer.max(answered);
        if let Some(due) = turn.due {
            let late = sent.saturating_duration_since(due);
            self.most_late = self.most_late.max(late);
            if due >= self.last_due {
                (self.last_due, self.last_late) = (due, late);
            }
        }
        let report = &mut self.report;
        match content {
            Ok(content) => {
                // From the moment it was due: whoever waited for a connection has waited, too.
                let latency = answered.saturating_duration_since(turn.due.unwrap_or(sent));
                let nanos = u64::try_from(latency.as_nanos()).unwrap_or(BENCH_LATENCY_NS_MAX);
                report.latency.saturating_record(nanos);
                report.requests += 1;
                report.leads += content.leads;
                for status in content.refused {
                    report.fail(Failure::Item(status), 1);
                }
            }
            Err(failure) => report.fail(failure, 1),
        }
    }

    fn report(&self, schedule: &Schedule, supply: &Supply) -> Report {
        let mut report = self.report.clone();
        report.elapsed = schedule.elapsed(self.last_answer - self.counted_from);
        report.starved = supply.starved;
        report.numbers = 0..supply.leads_taken;
        report.fail(Failure::NotSent, schedule.not_sent);
        report.offered = schedule.open_rate().map(|per_s| Offered {
            requests: schedule.counted(),
            per_s,
            last_late: self.last_late,
            most_late: self.most_late,
        });
        report
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
