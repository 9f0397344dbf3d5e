//! Requests on their way from where they are made to the connections.
//!
//! A thread makes them ahead, as many as fit into a bound of memory, before the clock starts, and
//! goes on while the run takes them away. They come in the order in which they are made.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;

use hyper::body::Body;
use tokio::sync::{mpsc, oneshot};

use crate::bench::prepare::{Maker, Prepared};
use crate::clock::Clock;
use crate::limits::{BENCH_AHEAD_BYTES, BENCH_CHUNK_BYTES};

/// What a request takes in memory besides its body, about, in bytes.
const HEAD_BYTES: usize = 1_024;

/// Requests that are ready.
pub(super) struct Supply {
    chunks: mpsc::Receiver<VecDeque<Prepared>>,
    ready: VecDeque<Prepared>,
    /// How many leads were in those that were taken.
    pub(super) leads_taken: u64,
    /// How often one was waited for.
    pub(super) starved: u64,
}

impl Supply {
    /// Starts to make requests, `count` at most, and returns once as many are ready as can be.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) async fn start(
        maker: Maker,
        clock: Arc<dyn Clock>,
        count: u64,
    ) -> std::io::Result<Self> {
        let (sender, chunks) = mpsc::channel(BENCH_AHEAD_BYTES / BENCH_CHUNK_BYTES);
        let (filled, is_filled) = oneshot::channel();
        let make = move || make(maker, &*clock, count, &sender, filled);
        thread::Builder::new().name("bench-make".to_owned()).spawn(make)?;
        // An error says that the thread is through already.
        let _ = is_filled.await;
        Ok(Self::of(chunks))
    }

    fn of(chunks: mpsc::Receiver<VecDeque<Prepared>>) -> Self {
        Self { chunks, ready: VecDeque::new(), leads_taken: 0, starved: 0 }
    }

    /// The next one; `None` if no more are made.
    pub(super) async fn next(&mut self) -> Option<Prepared> {
        if self.ready.is_empty() {
            let at_once = self.chunks.try_recv().ok();
            self.starved += u64::from(at_once.is_none());
            self.ready = match at_once {
                Some(chunk) => chunk,
                None => self.chunks.recv().await?,
            };
        }
        let prepared = self.ready.pop_front()?;
        self.leads_taken += prepared.leads;
        Some(prepared)
    }

    /// A supply of these, for tests in which time is simulated.
    #[cfg(test)]
    pub(super) fn from_ready(ready: VecDeque<Prepared>) -> Self {
        Self { ready, ..Self::of(mpsc::channel(1).1) }
    }
}

fn make(
    mut maker: Maker,
    clock: &dyn Clock,
    count: u64,
    sender: &mpsc::Sender<VecDeque<Prepared>>,
    filled: oneshot::Sender<()>,
) {
    let (mut left, mut filled) = (count, Some(filled));
    while left > 0 {
        let now = clock.now().seconds();
        let (mut chunk, mut bytes) = (VecDeque::new(), 0);
        while left > 0 && bytes < BENCH_CHUNK_BYTES {
            let prepared = maker.next(now);
            let body_bytes = prepared.request.body().size_hint().lower();
            bytes += HEAD_BYTES + usize::try_from(body_bytes).unwrap_or(usize::MAX);
            chunk.push_back(prepared);
            left -= 1;
        }
        if sender.capacity() == 0 {
            filled.take().map(|filled| filled.send(()));
        }
        // When the run is over nobody takes any more.
        if sender.blocking_send(chunk).is_err() {
            return;
        }
    }
}
