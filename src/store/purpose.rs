//! What a store is for.

use crate::store::StoreError;

/// What a store is for. It keeps to its purpose for ever: a run against the stand-in would mark
/// live events as delivered, and a live run would send made-up leads to Meta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Leads of people.
    Live = 1,
    /// Made-up leads, and the stand-in for Meta.
    Sandbox = 2,
}

impl Purpose {
    /// The number that a store keeps of it.
    pub(in crate::store) const fn number(self) -> u64 {
        self as u64
    }

    /// Refuses a store that was made with the purpose of a number, unless that is this one.
    pub(in crate::store) fn check(self, found: Option<u64>) -> Result<(), StoreError> {
        if found == Some(self.number()) {
            return Ok(());
        }
        let what = match self {
            Self::Live => "it was made by a run with --sandbox; choose another store",
            Self::Sandbox => "it holds live leads; choose another store for --sandbox",
        };
        Err(StoreError::Unsupported(what.into()))
    }
}
