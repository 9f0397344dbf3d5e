//! How each dataset is doing, for whoever asks: working, waiting, or paused and why.
//!
//! It is what the workers know at the moment and is not stored; after a restart they find out anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::ids::DatasetId;
use crate::domain::time::Timestamp;
use crate::meta::errors::PauseReason;

/// What a dataset's worker is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Sending, or with nothing to send.
    Active,
    /// Left to another instance, which knows how it is doing.
    Elsewhere,
    /// Waiting after a failure that will pass.
    Waiting {
        /// Since the first of the failures in a row.
        since: Timestamp,
        /// The next try.
        next_try_at: Timestamp,
    },
    /// Not sent to until somebody mends something; probed meanwhile.
    Paused {
        /// What is to be mended.
        reason: PauseReason,
        /// Since when.
        since: Timestamp,
        /// The next probe.
        next_try_at: Timestamp,
    },
}

impl Activity {
    /// Since when the trouble lasts, if there is some.
    pub const fn trouble_since(self) -> Option<Timestamp> {
        match self {
            Self::Active | Self::Elsewhere => None,
            Self::Waiting { since, .. } | Self::Paused { since, .. } => Some(since),
        }
    }
}

/// The board that workers write on; clones are the same board.
#[derive(Clone, Debug, Default)]
pub struct StatusBoard(Arc<Mutex<BTreeMap<DatasetId, Activity>>>);

impl StatusBoard {
    /// What a dataset's worker is about.
    pub fn get(&self, dataset_id: DatasetId) -> Activity {
        let board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        board.get(&dataset_id).copied().unwrap_or(Activity::Active)
    }

    /// What is known of each dataset; one whose worker has not found anything out yet is missing.
    pub fn all(&self) -> BTreeMap<DatasetId, Activity> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes it down, and answers what stood there before.
    pub fn set(&self, dataset_id: DatasetId, activity: Activity) -> Activity {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        board.insert(dataset_id, activity).unwrap_or(Activity::Active)
    }

    /// Takes a dataset off the board that was left to another instance: how it is doing is known
    /// after the first request, and until then a pause that was told lasts.
    pub fn take_over(&self, dataset_id: DatasetId) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if board.get(&dataset_id) == Some(&Activity::Elsewhere) {
            board.remove(&dataset_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_knows_how_a_dataset_is_doing_that_was_just_taken_over() {
        let (board, dataset_id) = (StatusBoard::default(), DatasetId::from_u64(7).unwrap());
        board.set(dataset_id, Activity::Elsewhere);
        board.take_over(dataset_id);
        assert_eq!(board.all(), BTreeMap::new(), "or whoever watches would tell that it works");
        board.set(dataset_id, Activity::Active);
        board.take_over(dataset_id);
        assert_eq!(board.all(), BTreeMap::from([(dataset_id, Activity::Active)]));
    }
}
