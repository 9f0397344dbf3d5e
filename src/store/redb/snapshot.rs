//! The store at one moment, and a transaction on it.
//!
//! Layers, each over the one before: the tables of the database, what its index of leads lacks, the
//! rows that are being brought into it, and those that were committed since. All of them are
//! values; a transaction that comes to nothing is forgotten, and that is all.

use std::cell::RefCell;
use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;
use redb::ReadTransaction;

use crate::store::StoreError;
use crate::store::redb::base::Base;
use crate::store::redb::recent::{Change, Changes, Recent, TableId, encode};
use crate::store::redb::tables::{OldTables, Place, Tables};

/// The store at one moment.
#[derive(Clone)]
pub(super) struct Snapshot {
    /// The database.
    old: Arc<OldTables>,
    /// What is being brought into it.
    frozen: Recent,
    /// What was committed since.
    active: Recent,
    fronts: Fronts,
}

/// Dataset → the place in its queue that nothing is before. Rows that were taken from the front of
/// a queue are remembered until they are merged, and nobody should have to step over them each
/// time. It is known of queues only that were worked on since the store was opened.
pub(super) type Fronts = OrdMap<u64, Place>;

impl Snapshot {
    /// What a database holds.
    pub(super) fn of(base: &Base) -> Result<Self, StoreError> {
        let old = Arc::new(base.tables()?);
        let (frozen, active, fronts) = Default::default();
        Ok(Self { old, frozen, active, fronts })
    }

    /// Begins a transaction.
    pub(super) fn begin(&self) -> Transaction {
        Transaction {
            layers: Layers {
                old: self.old.clone(),
                frozen: self.frozen.clone(),
                active: RefCell::new(self.active.clone()),
                changes: RefCell::default(),
                fronts: RefCell::new(self.fronts.clone()),
            },
        }
    }

    /// Takes what was committed.
    pub(super) fn adopt(&mut self, written: Written) {
        (self.active, self.fronts) = (written.active, written.fronts);
    }

    /// Sets apart what was committed so far, so that it can be brought into the database. What was
    /// set apart before must be there.
    pub(super) fn freeze(&mut self) -> Recent {
        self.frozen = std::mem::take(&mut self.active);
        self.frozen.clone()
    }

    /// Takes the database as it is with what was set apart, and answers what it was.
    pub(super) fn adopt_merged(&mut self, base: &Base) -> Result<Recent, StoreError> {
        let merged = Self::of(base)?;
        self.old = merged.old;
        Ok(std::mem::take(&mut self.frozen))
    }
}

/// A transaction on a snapshot: reads what it has written itself, and is seen by nobody else.
pub(super) struct Transaction {
    layers: Layers,
}

impl Transaction {
    /// The tables.
    pub(super) fn tables(&self) -> Tables<'_> {
        self.layers.old.tables(&self.layers)
    }

    /// What the database holds.
    pub(super) fn old(&self) -> &ReadTransaction {
        self.layers.old()
    }

    /// Ends it.
    pub(super) fn end(self) -> Written {
        Written {
            active: self.layers.active.into_inner(),
            changes: self.layers.changes.into_inner(),
            fronts: self.layers.fronts.into_inner(),
        }
    }
}

/// What a transaction comes to.
pub(super) struct Written {
    /// The active rows with its own.
    pub(super) active: Recent,
    /// What it has written itself, as the log has it.
    pub(super) changes: Vec<u8>,
    fronts: Fronts,
}

/// The layers that a transaction sees.
pub(super) struct Layers {
    old: Arc<OldTables>,
    frozen: Recent,
    active: RefCell<Recent>,
    /// What it has written itself, encoded.
    changes: RefCell<Vec<u8>>,
    fronts: RefCell<Fronts>,
}

impl Layers {
    pub(super) fn old(&self) -> &ReadTransaction {
        &self.old.transaction
    }

    /// What became of a row since it was in the database, if anything did.
    pub(super) fn change(&self, table: TableId, key: &[u8]) -> Option<Change> {
        let active = self.active.borrow().get(table, key).cloned();
        active.or_else(|| self.frozen.get(table, key).cloned())
    }

    /// What became of a row before it became active, if anything did.
    pub(super) fn frozen_change(&self, table: TableId, key: &[u8]) -> Option<&Change> {
        self.frozen.get(table, key)
    }

    pub(super) fn is_changed_again(&self, table: TableId, key: &[u8]) -> bool {
        self.active.borrow().get(table, key).is_some()
    }

    /// The frozen and the active changes in a range of a table's keys.
    pub(super) fn changes(
        &self,
        table: TableId,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> [Changes; 2] {
        [self.frozen.range(table, range), self.active.borrow().range(table, range)]
    }

    /// The place in a dataset's queue that nothing is before, if that is known.
    pub(super) fn front(&self, dataset: u64) -> Option<Place> {
        self.fronts.borrow().get(&dataset).copied()
    }

    /// The first dataset from this one on whose front is known.
    pub(super) fn next_known(&self, from: u64) -> Option<u64> {
        self.fronts.borrow().get_next(&from).map(|(dataset, _)| *dataset)
    }

    /// Remembers that nothing is before this place in its queue.
    pub(super) fn set_front(&self, place: Place) {
        self.fronts.borrow_mut().insert(place.0, place);
    }

    pub(super) fn put(&self, table: TableId, key: &[u8], value: &[u8]) {
        encode(&mut self.changes.borrow_mut(), table, key, Some(value));
        self.active.borrow_mut().put(table, key, Some(value.into()));
    }

    /// Removes a row. What is not below either need not be remembered.
    pub(super) fn remove(&self, table: TableId, key: &[u8], is_below: bool) {
        encode(&mut self.changes.borrow_mut(), table, key, None);
        let mut active = self.active.borrow_mut();
        if is_below {
            active.put(table, key, None);
        } else {
            active.forget(table, key);
        }
    }
}
