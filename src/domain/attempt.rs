//! Attempts to deliver events: what was asked of Meta, and what it answered.

use crate::domain::ids::DatasetId;
use crate::domain::time::Timestamp;

/// One request to Meta that carried an event, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The dataset it went to.
    pub dataset_id: DatasetId,
    /// When it was sent.
    pub at: Timestamp,
    /// How long the answer took, in milliseconds.
    pub duration_ms: u64,
    /// How many events the request carried.
    pub events: u32,
    /// Whether Meta received them.
    pub delivered: bool,
    /// The answer's HTTP status; `None` if there was no answer.
    pub http_status: Option<u16>,
    /// Meta's error code.
    pub code: Option<i64>,
    /// Meta's error subcode.
    pub subcode: Option<i64>,
    /// Meta's trace id, for its support.
    pub fbtrace_id: Option<String>,
    /// What went wrong, in words; free of secrets.
    pub message: Option<String>,
}

/// The attempts to deliver an event. All of them are kept; how many are at hand here depends on
/// what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptLog {
    /// How many there were.
    pub count: usize,
    /// The last ones, oldest first; if there was one, then at least that.
    pub latest: Vec<Attempt>,
}

impl AttemptLog {
    /// The last attempt.
    pub fn last(&self) -> Option<&Attempt> {
        self.latest.last()
    }

    /// Adds an attempt, if there was one.
    pub fn extend(&mut self, attempt: Option<Attempt>) {
        self.count += usize::from(attempt.is_some());
        self.latest.extend(attempt);
    }

    /// The same with no more than so many of the last attempts.
    #[must_use]
    pub fn shortened(&self, latest_max: usize) -> Self {
        let from = self.latest.len().saturating_sub(latest_max);
        Self { count: self.count, latest: self.latest[from..].to_vec() }
    }
}
