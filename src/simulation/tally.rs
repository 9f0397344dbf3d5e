//! What is told about runs: figures, and the run itself as one number.

use std::hash::{DefaultHasher, Hasher};

/// Figures about runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) answered: u64,
    pub(super) requests: u64,
    pub(super) taken: u64,
    pub(super) doubled: u64,
    pub(super) recorded: u64,
    pub(super) expired: u64,
    pub(super) alarmed: u64,
    pub(super) refused: u64,
    pub(super) crashes: u64,
    /// Reports that found their lead by something else than its id.
    pub(super) matched: u64,
    /// Events that found their lead after they were reported.
    pub(super) found: u64,
    pub(super) unsure: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.requests += other.requests;
        self.taken += other.taken;
        self.doubled += other.doubled;
        self.recorded += other.recorded;
        self.expired += other.expired;
        self.alarmed += other.alarmed;
        self.refused += other.refused;
        self.crashes += other.crashes;
        self.matched += other.matched;
        self.found += other.found;
        self.unsure += other.unsure;
    }
}

/// Everything that happened, as one number; as lines too if somebody wants to read them.
#[derive(Default)]
pub(super) struct Trace {
    hash: DefaultHasher,
    is_shown: bool,
}

impl Trace {
    pub(super) fn new(is_shown: bool) -> Self {
        Self { is_shown, ..Self::default() }
    }

    /// Adds a line.
    pub(super) fn add(&mut self, line: &str) {
        if self.is_shown {
            println!("{line}");
        }
        self.hash.write(line.as_bytes());
    }

    /// All lines so far as a number.
    pub(super) fn hash(&self) -> u64 {
        self.hash.finish()
    }
}
