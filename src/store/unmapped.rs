//! What a CRM sent and no mapping fits: kept for a while, until the mapping is mended.

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
