//! The index of leads, which takes its changes later, beside a plain map.

use std::collections::BTreeMap;

use proptest::prelude::*;
use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase, ReadableTableMetadata};

use crate::store::redb::base::{Base, Lag};
use crate::store::redb::snapshot::Snapshot;
use crate::store::redb::tables::{LEAD_INDEX, make_tables};

const WAITING_MAX: usize = 5;
const LAG: Lag = Lag { part: 1, max: WAITING_MAX };

#[derive(Clone, Debug)]
enum Step {
    /// Lead ids with their numbers, or with none if they are removed, brought here together.
    Merge(BTreeMap<u64, Option<u64>>),
    /// As after an ordinary end: what is in memory is lost.
    Reopen,
    /// As after a crash: the last changes that were brought here are in the log still, and are
    /// brought once more.
    Replay(usize),
    /// As before the file is compacted.
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    // The order of numbers is not that of their bytes.
    let lead_id = prop_oneof![0..40u64, 250..260u64, Just(u64::MAX)];
    let changes = prop::collection::btree_map(lead_id, prop::option::weighted(0.7, 1..99u64), 1..6);
    prop_oneof![
        12 => changes.prop_map(Step::Merge),
        2 => Just(Step::Reopen),
        2 => (1..4usize).prop_map(Step::Replay),
        1 => Just(Step::Settle),
    ]
}

fn base() -> Base {
    let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
    let making = database.begin_write().unwrap();
    make_tables(&making).unwrap();
    making.commit().unwrap();
    Base::new(database, LAG).unwrap()
}

fn merge(base: &Base, changes: &BTreeMap<u64, Option<u64>>) {
    let transaction = Snapshot::of(base).unwrap().begin();
    let mut tables = transaction.tables();
    for (lead_id, number) in changes {
        match number {
            Some(number) => tables.lead_index.insert(lead_id, number),
            None => drop(tables.lead_index.remove(lead_id).unwrap()),
        }
    }
    base.merge(&transaction.end().active).unwrap();
}

/// The rows of the index, read in every way.
fn compare(base: &Base, expected: &BTreeMap<u64, u64>) {
    let transaction = Snapshot::of(base).unwrap().begin();
    let index = transaction.tables().lead_index;
    assert_eq!(index.len().unwrap(), expected.len() as u64);
    let rows = index.all().unwrap().map(|row| {
        let (lead_id, number) = row.unwrap();
        (lead_id.value(), number.value())
    });
    assert!(rows.eq(expected.iter().map(|(lead_id, number)| (*lead_id, *number))));
    let back = index.range(..255).unwrap().rev().map(|row| row.unwrap().0.value());
    assert!(back.eq(expected.range(..255).rev().map(|(lead_id, _)| *lead_id)));
    for lead_id in (0..45).chain(245..265).chain([u64::MAX]) {
        let number = index.get(lead_id).unwrap().map(|number| number.value());
        assert_eq!(number, expected.get(&lead_id).copied(), "{lead_id}");
    }
}

proptest! {
    #[test]
    fn the_index_shows_what_a_map_shows_however_often_it_is_opened(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (mut base, mut expected) = (base(), BTreeMap::new());
        let mut merged: Vec<BTreeMap<u64, Option<u64>>> = Vec::new();
        for step in steps {
            match step {
                Step::Merge(changes) => {
                    merge(&base, &changes);
                    for (lead_id, number) in &changes {
                        match number {
                            Some(number) => drop(expected.insert(*lead_id, *number)),
                            None => drop(expected.remove(lead_id)),
                        }
                    }
                    merged.push(changes);
                }
                Step::Replay(count) => {
                    base = Base::new(base.into_database(), LAG).unwrap();
                    let mut replayed = BTreeMap::new();
                    for changes in &merged[merged.len().saturating_sub(count)..] {
                        replayed.extend(changes);
                    }
                    merge(&base, &replayed);
                }
                Step::Settle => {
                    base.settle().unwrap();
                    prop_assert_eq!(base.behind(), (0, 0));
                }
                Step::Reopen => {
                    let waiting = base.waiting();
                    base = Base::new(base.into_database(), LAG).unwrap();
                    prop_assert_eq!(base.waiting(), waiting);
                }
            }
            compare(&base, &expected);
        }
    }
}

#[test]
fn what_is_durable_beside_the_index_does_not_grow_for_ever() {
    let base = base();
    let mut most = 0;
    for number in 1..2_000 {
        // New leads, and one that changes all the time.
        let another = 1_000 + number * 7_919 % 10_007;
        merge(&base, &BTreeMap::from([(7, Some(number)), (another, Some(number))]));
        let (waiting, in_runs) = base.behind();
        assert!(waiting <= WAITING_MAX + 4, "{waiting} wait");
        most = most.max(in_runs);
    }
    assert!((WAITING_MAX..=WAITING_MAX * 7).contains(&most), "{most} changes in runs");
}

#[test]
fn an_index_that_takes_all_at_once_has_nothing_beside_it() {
    let base = Base::new(base().into_database(), Lag::NONE).unwrap();
    for number in 1..50 {
        merge(&base, &BTreeMap::from([(number * 31 % 50, Some(number))]));
        assert_eq!(base.behind(), (0, 0));
    }
    let index = base.database().begin_read().unwrap().open_table(LEAD_INDEX).unwrap();
    assert_eq!(index.len().unwrap(), 49);
}
