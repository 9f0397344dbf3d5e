//! What a run came to.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::limits::{BENCH_KEPT_UP, BENCH_LATENCY_NS_MAX};

/// Why a request, or a part of one, does not count as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// It was answered with this status, which is no success.
    Status(u16),
    /// It was answered 2xx, and this status, which is no success, stands in the answer: the verdict
    /// on one stage update of a batch.
    Item(u16),
    /// The connection could not be opened.
    Connect,
    /// The connection broke before there was a whole answer.
    Broken,
    /// There was no answer in time.
    TimedOut,
    /// It was answered 2xx, and what stands in the answer can't be understood.
    Nonsense,
    /// It was due so long ago that it was not sent any more.
    NotSent,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Item(status) => write!(f, "{status} within a batch"),
            Self::Connect => f.write_str("no connection"),
            Self::Broken => f.write_str("connection broke"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Nonsense => f.write_str("answer makes no sense"),
            Self::NotSent => f.write_str("not sent: too late"),
        }
    }
}

/// What a run came to. Warm-up is not part of any figure but `numbers`.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests that were answered 2xx.
    pub requests: u64,
    /// Leads in them: told of, shown, or of which a stage was taken.
    pub leads: u64,
    /// What was not answered 2xx, by kind; an update that a batch refuses counts here, too.
    pub failures: BTreeMap<Failure, u64>,
    /// From the start to the last answer.
    pub elapsed: Duration,
    /// How long the answers that were 2xx took, in nanoseconds: from the moment a request was sent,
    /// and in an open loop from the one it was due at.
    pub latency: Histogram<u64>,
    /// Of an open loop: what was to be sent, and how well that was kept to.
    pub offered: Option<Offered>,
    /// Of webhooks: the numbers of the leads that were told of, in warm-up too, whatever was
    /// answered.
    pub numbers: Range<u64>,
    /// How often a request had to be waited for because it was not made yet. If that is not rare,
    /// this program was measured and not the server.
    pub starved: u64,
}

/// What an open loop was to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offered {
    /// Requests that were due.
    pub requests: u64,
    /// How many were due a second, on average.
    pub per_s: f64,
    /// How long after it was due the last one was sent.
    pub last_late: Duration,
    /// How long after it was due the latest one was sent.
    pub most_late: Duration,
}

impl Offered {
    /// Whether the server, and this program, kept up with what was due: the backlog did not grow.
    pub fn kept_up(&self) -> bool {
        self.last_late <= BENCH_KEPT_UP
    }
}

impl Report {
    /// A report of nothing.
    pub(super) fn empty() -> Self {
        let latency = Histogram::new_with_bounds(1, BENCH_LATENCY_NS_MAX, 3);
        Self {
            requests: 0,
            leads: 0,
            failures: BTreeMap::new(),
            elapsed: Duration::ZERO,
            latency: latency.expect("the bounds are in order"),
            offered: None,
            numbers: 0..0,
            starved: 0,
        }
    }

    pub(super) fn fail(&mut self, failure: Failure, times: u64) {
        if times > 0 {
            *self.failures.entry(failure).or_default() += times;
        }
    }

    /// Requests a second that were answered 2xx.
    pub fn per_s(&self) -> f64 {
        per_s(self.requests, self.elapsed)
    }

    /// Leads a second in them.
    pub fn leads_per_s(&self) -> f64 {
        per_s(self.leads, self.elapsed)
    }

    /// The latency that this share of the requests did not exceed, in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "a latency has three digits that count")]
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }

    /// How many requests and updates failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate has a few digits that count")]
fn per_s(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}
