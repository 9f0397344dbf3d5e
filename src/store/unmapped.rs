//! What a CRM sent and no mapping fits: kept for a while, until the mapping is mended.

use std::collections::BTreeMap;

use crate::domain::alarm::{Cause, Subject};
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;

/// Something that a CRM sent and that could not be mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmapped {
    /// When it came.
    pub received_at: Timestamp,
    /// Who sent it.
    pub source: SourceName,
    /// Which of our fields could not be found.
    pub field: String,
    /// Why, in words without anything of the payload.
    pub reason: String,
    /// The payload, sealed: it may name persons in the clear.
    pub sealed: Vec<u8>,
}

impl Unmapped {
    /// What is told when it is kept.
    pub(in crate::store) fn cause(&self) -> Cause {
        Cause::once(Subject::ReportsKept { source: self.source.clone() }, None)
    }
}

/// The same, with its number in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedUnmapped {
    /// The number.
    pub seq: u64,
    /// What was kept.
    pub unmapped: Unmapped,
}

/// What became of the wish to keep something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetAside {
    /// It is kept.
    Kept,
    /// The same is kept already, from when it came first.
    Known,
    /// As much is kept of the source as may be; this is not.
    Full,
}

/// What is told of what was forgotten for its age.
pub(in crate::store) fn causes_of_expired(
    removed: &BTreeMap<SourceName, u64>,
) -> impl Iterator<Item = Cause> {
    removed.iter().map(|(source, count)| Cause {
        count: *count,
        ..Cause::once(Subject::ReportsExpired { source: source.clone() }, None)
    })
}
