//! Rows that are found by something besides their key, as a database finds them by an index: what
//! a use case about one lead costs does not grow with how many others are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::Index;

/// What rows are found by besides their key.
pub(in crate::store) trait Found {
    type By: Ord + Clone + Debug;

    fn found_by(&self) -> Vec<Self::By>;
}

/// Rows by their keys.
#[derive(Clone, Debug)]
pub(in crate::store) struct Indexed<K, V: Found> {
    rows: BTreeMap<K, V>,
    keys: BTreeMap<V::By, BTreeSet<K>>,
}

impl<K, V: Found> Default for Indexed<K, V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), keys: BTreeMap::new() }
    }
}

impl<K: Ord + Copy, V: Found> Indexed<K, V> {
    pub(in crate::store) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    pub(in crate::store) fn contains_key(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }

    pub(in crate::store) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The keys of the rows that are found by something, in order.
    pub(in crate::store) fn find(&self, by: &V::By) -> impl DoubleEndedIterator<Item = K> {
        self.keys.get(by).into_iter().flatten().copied()
    }

    /// All rows: for what is about all of them.
    pub(in crate::store) fn all(&self) -> &BTreeMap<K, V> {
        #[cfg(test)]
        tests::WALKS.set(tests::WALKS.get() + 1);
        &self.rows
    }

    pub(in crate::store) fn insert(&mut self, key: K, row: V) {
        self.remove(&key);
        for by in row.found_by() {
            self.keys.entry(by).or_default().insert(key);
        }
        self.rows.insert(key, row);
    }

    pub(in crate::store) fn remove(&mut self, key: &K) -> Option<V> {
        let row = self.rows.remove(key)?;
        for by in row.found_by() {
            if let Some(keys) = self.keys.get_mut(&by) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&by);
                }
            }
        }
        Some(row)
    }

    /// Changes a row, if it is there.
    pub(in crate::store) fn modify(&mut self, key: &K, change: impl FnOnce(&mut V)) {
        if let Some(mut row) = self.remove(key) {
            change(&mut row);
            self.insert(*key, row);
        }
    }

    /// Removes all that are found by something; how many.
    pub(in crate::store) fn remove_all(&mut self, by: &V::By) -> usize {
        let keys = self.keys.get(by).cloned().unwrap_or_default();
        keys.iter().filter(|key| self.remove(key).is_some()).count()
    }
}

impl<K: Ord, V: Found> Index<&K> for Indexed<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        &self.rows[key]
    }
}

#[cfg(test)]
pub(in crate::store) mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::store::conformance::support::{at, attempt, lead, routing, settlement, update};
    use crate::store::memory::State;
    use crate::store::{Intake, Settlement};

    thread_local! {
        /// How often somebody asked for all rows.
        pub(in crate::store) static WALKS: Cell<usize> = const { Cell::new(0) };
    }

    impl Found for &str {
        type By = char;

        fn found_by(&self) -> Vec<char> {
            self.chars().collect()
        }
    }

    #[test]
    fn rows_are_found_by_what_they_say_now() {
        let mut rows: Indexed<u8, &str> = Indexed::default();
        rows.insert(1, "ab");
        rows.insert(2, "bc");
        assert_eq!(rows.find(&'b').collect::<Vec<_>>(), [1, 2]);
        rows.insert(1, "c");
        rows.modify(&2, |row| *row = "d");
        assert_eq!((rows.find(&'b').count(), rows.find(&'d').count()), (0, 1));
        assert_eq!((rows.remove_all(&'c'), rows.len(), rows.keys.len()), (1, 1, 1));
    }

    /// What is done to a hundred leads together costs a hundred times what it costs for one.
    #[test]
    fn what_is_about_some_leads_never_looks_at_all() {
        let (mut state, numbers) = (State::default(), 1..=100);
        WALKS.set(0);
        let leads = numbers.clone().map(lead).collect();
        state.ingest(Intake { leads, quarantined: Vec::new() }, at(5));
        let updates: Vec<_> = numbers.map(|number| update(number, "won", 60)).collect();
        state.record_stage_updates(&updates, &routing(), at(70));
        assert_eq!(WALKS.get(), 0);
        let queued: Vec<_> = state.queues.all().keys().copied().collect();
        assert_eq!(queued.len(), 200);
        WALKS.set(0);
        for (dataset_id, entry) in queued {
            let delivered = vec![entry];
            let settled = Settlement { delivered, ..settlement(Some(attempt(80, true)), 80) };
            state.settle(Settlement { dataset_id: dataset_id.unwrap(), ..settled });
        }
        assert_eq!(WALKS.get(), 0);
        assert!(state.queues.all().is_empty());
    }
}
