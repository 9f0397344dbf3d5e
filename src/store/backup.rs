//! What making a copy of a store comes to.

use std::fs::File;

use tokio::sync::OwnedSemaphorePermit;

/// What became of a wish for a copy.
#[derive(Debug)]
pub enum BackedUp {
    /// Here it is.
    Done(StoreCopy),
    /// Another one is being made, or has not been taken away yet.
    Running,
    /// The disk would have been too full for the store itself.
    NoRoom,
    /// This kind of store keeps nothing that could be copied.
    NotSupported,
}

/// A copy of a whole store, proven by opening it.
///
/// The file has no name, so that it is gone from the disk when this is dropped, or we die.
#[derive(Debug)]
pub struct StoreCopy {
    /// The copy, at its beginning.
    pub file: File,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// Ends the turn, when this is dropped.
    pub(in crate::store) _turn: OwnedSemaphorePermit,
}
