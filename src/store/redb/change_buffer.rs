//! Changes of the index of leads that wait until many are near each other.
//!
//! Lead ids come in random order, and a page of the database is written for each place that a
//! change goes to. So changes are kept, sorted, until there are many, and then those of one stretch
//! of the index go there together; the next ones are those of the next stretch, round and round.
//! What waits is a value, as all that a snapshot is made of.

use std::ops::Bound;
use std::sync::Arc;

use crate::store::redb::recent::{Change, RowKey, TableId};

/// The bytes of a lead id and of a number.
const WIDTH: usize = 8;
/// Bytes of a change in a run.
const CHANGE_BYTES: usize = 2 * WIDTH;
/// Bytes of a run before its changes: the places before and after.
const HEAD_BYTES: usize = 4 * WIDTH;
/// The number of a lead that is not there any more; numbers begin at 1.
const REMOVED: u64 = 0;

/// A lead id, and the number of the lead.
pub(super) type IndexChange = (u64, Option<u64>);

/// Changes of the index of leads, one for each lead id, in the order of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ChangeBuffer(Arc<Vec<(u64, u64)>>);

/// Where the next stretch begins: in which round, and at which lead id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) round: u64,
    next: u64,
}

impl Place {
    /// Where a change has its turn that comes when we are here.
    fn turn_of(self, lead_id: u64) -> Self {
        Self { round: self.round + u64::from(lead_id < self.next), next: lead_id }
    }
}

/// Changes that came together, as they are kept until the index has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Where we were when they came.
    pub(super) before: Place,
    /// Where we were when a stretch had been brought into the index then.
    pub(super) after: Place,
    /// Lead ids with numbers, [`REMOVED`] for none.
    changes: Vec<(u64, u64)>,
}

impl Run {
    /// How many changes it has.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// How many changes are encoded so.
    pub(super) fn len_of(encoded: &[u8]) -> usize {
        encoded.len().saturating_sub(HEAD_BYTES) / CHANGE_BYTES
    }

    /// The changes that the index lacks when we are at a place.
    pub(super) fn waiting(&self, now: Place) -> impl Iterator<Item = (u64, u64)> {
        let changes = self.changes.iter().copied();
        changes.filter(move |(lead_id, _)| self.before.turn_of(*lead_id) >= now)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let places = [self.before, self.after].map(|place| (place.round, place.next));
        let pairs = places.iter().chain(&self.changes);
        let mut encoded = Vec::with_capacity(HEAD_BYTES + self.len() * CHANGE_BYTES);
        for (first, second) in pairs {
            encoded.extend_from_slice(&first.to_le_bytes());
            encoded.extend_from_slice(&second.to_le_bytes());
        }
        encoded
    }

    /// Reads what [`Self::encode`] wrote.
    pub(super) fn decode(encoded: &[u8]) -> Option<Self> {
        let (pairs, rest) = encoded.as_chunks::<CHANGE_BYTES>();
        let mut pairs = pairs.iter().map(|pair| (number(pair), number(&pair[WIDTH..])));
        let mut place = || pairs.next().map(|(round, next)| Place { round, next });
        let (before, after) = (place()?, place()?);
        rest.is_empty().then(|| Self { before, after, changes: pairs.collect() })
    }
}

/// What is to be done when changes have come.
pub(super) struct Turn {
    /// What waits from now on.
    pub(super) waiting: ChangeBuffer,
    /// What goes into the index now, in its order.
    pub(super) due: Vec<IndexChange>,
    /// What is to be kept of it until the index has it.
    pub(super) run: Run,
}

impl ChangeBuffer {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What waits, of which the later ones overrule the earlier.
    pub(super) fn of_changes(mut waiting: Vec<(u64, u64)>) -> Self {
        // The sort is stable, so the last of equals is the latest.
        waiting.sort_by_key(|(lead_id, _)| *lead_id);
        waiting.dedup_by(|later, earlier| {
            let are_equal = later.0 == earlier.0;
            if are_equal {
                *earlier = *later;
            }
            are_equal
        });
        Self(Arc::new(waiting))
    }

    /// What became of a row of the index, if anything did.
    pub(super) fn change(&self, key: &[u8]) -> Option<Change> {
        if self.is_empty() {
            return None;
        }
        let lead_id = number(key);
        let place = self.0.binary_search_by_key(&lead_id, |(lead_id, _)| *lead_id).ok()?;
        Some(change_of(self.0[place].1))
    }

    /// The changes in a range of keys.
    pub(super) fn range(
        &self,
        table: TableId,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
    ) -> BufferedChanges {
        let below = |key| self.0.partition_point(|(lead_id, _)| *lead_id < number(key));
        let through = |key| self.0.partition_point(|(lead_id, _)| *lead_id <= number(key));
        let first = match from {
            Bound::Included(key) => below(key),
            Bound::Excluded(key) => through(key),
            Bound::Unbounded => 0,
        };
        let end = match to {
            Bound::Included(key) => through(key),
            Bound::Excluded(key) => below(key),
            Bound::Unbounded => self.len(),
        };
        BufferedChanges { all: self.clone(), table, places: first..end }
    }

    /// Adds changes, which overrule what waits and are in the order of their lead ids. If more
    /// than `waiting_max` would wait then, a stretch goes into the index, from a place on. It has
    /// at most twice as many changes as come, so that nobody has to wait long for it.
    pub(super) fn turn(&self, newer: &[IndexChange], before: Place, waiting_max: usize) -> Turn {
        let changes = newer.iter().map(|(lead_id, number)| (*lead_id, number.unwrap_or(REMOVED)));
        let changes: Vec<(u64, u64)> = changes.collect();
        let mut waiting = self.overruled_by(&changes);
        let from = waiting.partition_point(|(lead_id, _)| *lead_id < before.next);
        let too_many = waiting.len().saturating_sub(waiting_max).min(2 * newer.len());
        let to = waiting.len().min(from + too_many);
        let after = match waiting.get(to) {
            Some((lead_id, _)) => Place { next: *lead_id, ..before },
            None => Place { round: before.round + 1, next: 0 },
        };
        let due = waiting.drain(from..to).map(|(lead_id, number)| (lead_id, known(number)));
        let due = due.collect();
        Turn { waiting: Self(Arc::new(waiting)), due, run: Run { before, after, changes } }
    }

    /// All that waits.
    pub(super) fn all(&self) -> impl Iterator<Item = IndexChange> {
        self.0.iter().map(|(lead_id, number)| (*lead_id, known(*number)))
    }

    fn overruled_by(&self, newer: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let mut merged = Vec::with_capacity(self.len() + newer.len());
        let mut old = self.0.as_slice();
        for (lead_id, number) in newer {
            let before = old.partition_point(|(old_id, _)| old_id < lead_id);
            merged.extend_from_slice(&old[..before]);
            old = &old[before..];
            if old.first().is_some_and(|(old_id, _)| old_id == lead_id) {
                old = &old[1..];
            }
            merged.push((*lead_id, *number));
        }
        merged.extend_from_slice(old);
        merged
    }
}

/// A change of a row of the index.
pub(super) fn index_change(key: &[u8], change: &Change) -> IndexChange {
    (number(key), change.as_deref().map(number))
}

/// The number that a key or a value of the index is.
fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn known(number: u64) -> Option<u64> {
    (number != REMOVED).then_some(number)
}

fn change_of(number: u64) -> Change {
    known(number).map(|number| number.to_le_bytes().as_slice().into())
}

/// Changes in a range, from both ends.
pub(super) struct BufferedChanges {
    all: ChangeBuffer,
    table: TableId,
    places: std::ops::Range<usize>,
}

impl BufferedChanges {
    fn at(&self, place: usize) -> (RowKey, Change) {
        let (lead_id, number) = self.all.0[place];
        (self.table.key(&lead_id.to_le_bytes()), change_of(number))
    }
}

impl Iterator for BufferedChanges {
    type Item = (RowKey, Change);

    fn next(&mut self) -> Option<Self::Item> {
        self.places.next().map(|place| self.at(place))
    }
}

impl DoubleEndedIterator for BufferedChanges {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.places.next_back().map(|place| self.at(place))
    }
}
