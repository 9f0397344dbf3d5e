//! The layers that a transaction sees, beside a plain map: they must show the same rows.

use std::collections::BTreeMap;

use proptest::prelude::*;
use redb::backends::InMemoryBackend;
use redb::{Database, StorageError};

use crate::store::redb::base::{Base, Lag};
use crate::store::redb::recent::Recent;
use crate::store::redb::rows::Row;
use crate::store::redb::snapshot::Snapshot;
use crate::store::redb::tables::{Tables, make_tables, shape_of};

/// A key that is neither a number nor in the order of its bytes.
type Key = (u64, u64);

#[derive(Clone, Debug)]
enum Step {
    Insert(Key, u32),
    Remove(Key),
    /// Removes a range of keys.
    Extract(Key, Key),
    /// What a transaction wrote is committed, or forgotten.
    End(bool),
    Freeze,
    Merge,
}

fn key() -> impl Strategy<Value = Key> {
    (0..3u64, prop_oneof![0..6u64, Just(256), Just(u64::MAX)])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (key(), any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
        4 => key().prop_map(Step::Remove),
        1 => (key(), key()).prop_map(|(from, to)| Step::Extract(from, to)),
        3 => prop::bool::weighted(0.8).prop_map(Step::End),
        1 => Just(Step::Freeze),
        1 => Just(Step::Merge),
    ]
}

type Rows = BTreeMap<Key, u32>;

/// The rows as the tables show them, read in every way.
fn compare(tables: &Tables<'_>, expected: &Rows, (from, to): (Key, Key)) {
    let table = &tables.awaiting;
    let row = |row: Result<Row<Key, (u32, i64)>, StorageError>| {
        let (key, value) = row.unwrap();
        (key.value(), value.value().0)
    };
    let all: Vec<(Key, u32)> = table.all().unwrap().map(row).collect();
    let wanted: Vec<(Key, u32)> = expected.iter().map(|(key, value)| (*key, *value)).collect();
    assert_eq!(all, wanted);
    assert_eq!(table.len().unwrap(), expected.len() as u64);
    let back: Vec<(Key, u32)> = table.all().unwrap().rev().map(row).collect();
    assert!(back.iter().rev().eq(&wanted));
    let between: Vec<(Key, u32)> = table.range(from..to).unwrap().map(row).collect();
    let is_between = |(key, _): &&(Key, u32)| (from..to).contains(key);
    assert!(between.iter().eq(wanted.iter().filter(is_between)));
    // From both ends until they meet.
    let (mut rows, mut first, mut last) = (table.range(..=to).unwrap(), Vec::new(), Vec::new());
    loop {
        let Some(next) = rows.next() else { break };
        first.push(row(next));
        let Some(next) = rows.next_back() else { break };
        last.push(row(next));
    }
    first.extend(last.into_iter().rev());
    assert!(first.iter().eq(wanted.iter().filter(|(key, _)| *key <= to)));
    for key in [from, to] {
        let found = table.get(key).unwrap().map(|value| value.value().0);
        assert_eq!(found, expected.get(&key).copied());
    }
}

proptest! {
    #[test]
    fn the_layers_show_what_a_map_shows(
        steps in proptest::collection::vec((step(), key(), key()), 1..80),
    ) {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let making = database.begin_write().unwrap();
        make_tables(&making).unwrap();
        making.commit().unwrap();
        let base = Base::new(database, Lag::default()).unwrap();
        let mut snapshot = Snapshot::of(&base).unwrap();
        let (mut committed, mut rows, mut frozen) = (Rows::new(), Rows::new(), None);
        let mut log = Recent::default();
        let mut transaction = snapshot.begin();
        for (step, from, to) in steps {
            match step {
                Step::Insert(key, value) => {
                    transaction.tables().awaiting.insert(key, (value, 0));
                    rows.insert(key, value);
                }
                Step::Remove(key) => {
                    let removed = transaction.tables().awaiting.remove(key).unwrap();
                    prop_assert_eq!(removed.map(|value| value.value().0), rows.remove(&key));
                }
                Step::Extract(from, to) => {
                    let removed = transaction.tables().awaiting.extract(from..to).unwrap().len();
                    let before = rows.len();
                    rows.retain(|key, _| !(from..to).contains(key));
                    prop_assert_eq!(removed, before - rows.len());
                }
                Step::End(commits) => {
                    let written = transaction.end();
                    if commits {
                        log.replay(&written.changes, shape_of).unwrap();
                        snapshot.adopt(written);
                        committed = rows.clone();
                    }
                    rows = committed.clone();
                    transaction = snapshot.begin();
                }
                Step::Freeze | Step::Merge => {
                    if let Some(frozen) = frozen.take() {
                        base.merge(&frozen).unwrap();
                        snapshot.adopt_merged(&base).unwrap();
                    }
                    if matches!(step, Step::Freeze) {
                        frozen = Some(snapshot.freeze());
                    }
                    rows = committed.clone();
                    transaction = snapshot.begin();
                }
            }
            compare(&transaction.tables(), &rows, (from, to));
        }
        // The log alone tells the same.
        base.merge(&log).unwrap();
        compare(&Snapshot::of(&base).unwrap().begin().tables(), &committed, ((0, 0), (9, 9)));
    }
}
