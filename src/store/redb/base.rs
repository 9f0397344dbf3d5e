//! The database below the log.
//!
//! Rows are brought into it many at a time. All tables but the index of leads take them as they
//! are; what the index has not taken yet is in a [`ChangeBuffer`], and durable as runs: rows of a
//! table of its own, one for each time that changes of the index were brought here.

use std::sync::{Mutex, PoisonError};

use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition, TableError, WriteTransaction,
};

use crate::limits::{STORE_INDEX_WAITING_MAX, STORE_INDEX_WAITING_PART};
use crate::store::StoreError;
use crate::store::redb::change_buffer::{ChangeBuffer, IndexChange, Place, Run, index_change};
use crate::store::redb::recent::Recent;
use crate::store::redb::tables::{LEAD_INDEX, OldTables, lead_index_id, write_rows};

/// Number of a run → its changes, as [`Run::encode`] writes them. Later runs overrule earlier ones,
/// and runs are removed from the first on, so those that are there tell what the index lacks.
const RUNS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("lead_index_runs");

/// How many times as many changes as may wait the runs may have; beyond that whatever waits is
/// brought into the index as fast as it may. Where each change is of another lead it does not come
/// to that: in a round come twice as many changes as may wait, and a run stays for two rounds.
const RUNS_FACTOR: usize = 6;

/// How far the index of leads may lag behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// One in so many of its rows may be lacking: a small index has few pages, and needs no more.
    pub part: u64,
    /// Most changes that it may lack.
    pub max: usize,
}

impl Default for Lag {
    fn default() -> Self {
        Self { part: STORE_INDEX_WAITING_PART, max: STORE_INDEX_WAITING_MAX }
    }
}

impl Lag {
    /// That of an index which takes everything at once.
    pub(super) const NONE: Self = Self { part: 1, max: 0 };

    /// How many changes an index of so many rows may lack.
    fn changes(self, rows: u64) -> usize {
        usize::try_from(rows / self.part).map_or(self.max, |part| part.min(self.max))
    }
}

/// A database, and what its index of leads lacks.
pub(super) struct Base {
    database: Database,
    index: Mutex<Index>,
}

/// How far the index of leads is.
#[derive(Clone)]
struct Index {
    waiting: ChangeBuffer,
    lag: Lag,
    place: Place,
    runs: Runs,
}

/// Which runs there are.
#[derive(Clone, Copy, Default)]
struct Runs {
    /// The number of the last one.
    last: u64,
    /// That of the last one when this round through the index began. At its end all changes of
    /// that one and of those before it are in the index.
    last_before_round: u64,
    /// How many changes they have together.
    changes: usize,
}

impl Base {
    /// What a database is with the runs that it has; from now on its index may lag so far behind.
    pub(super) fn new(database: Database, lag: Lag) -> Result<Self, StoreError> {
        let index = match database.begin_read()?.open_table(RUNS) {
            Ok(runs) => Index::of_runs(&runs, lag)?,
            // Nobody brought anything here yet.
            Err(TableError::TableDoesNotExist(_)) => Index::empty(lag),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { database, index: Mutex::new(index) })
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn into_database(self) -> Database {
        self.database
    }

    /// What the index lacks.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> ChangeBuffer {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).waiting.clone()
    }

    /// How many changes the index lacks, and how many the runs have.
    #[cfg(test)]
    pub(super) fn behind(&self) -> (usize, usize) {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        (index.waiting.len(), index.runs.changes)
    }

    /// What it holds.
    pub(super) fn tables(&self) -> Result<OldTables, StoreError> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(OldTables::of(self.database.begin_read()?, index.waiting.clone()))
    }

    /// Brings all that waits into the index, so that nothing is beside it.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let mut settled = index.clone();
        let transaction = self.database.begin_write()?;
        settled.settle(&transaction)?;
        transaction.commit()?;
        // From here on the index is whole; before, what it lacks is in the runs as it was.
        *index = settled;
        Ok(())
    }

    /// Brings rows here; they are durable then.
    pub(super) fn merge(&self, rows: &Recent) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rows, mut grown) = (rows.clone(), index.clone());
        let changes = rows.take(lead_index_id());
        let changes =
            changes.map(|(key, change)| index_change(key.bytes(), &change)).collect::<Vec<_>>();
        let mut transaction = self.database.begin_write()?;
        // What a crash leaves is opened without reading all of it.
        transaction.set_quick_repair(true);
        write_rows(&rows, &transaction)?;
        if !changes.is_empty() {
            grown.take(&changes, &transaction)?;
        }
        transaction.commit()?;
        // From here on the rows are here, in runs those that the index has not taken. If we die
        // now, whoever opens the database reads the runs.
        *index = grown;
        Ok(())
    }
}

impl Index {
    fn empty(lag: Lag) -> Self {
        let (waiting, place, runs) = Default::default();
        Self { waiting, lag, place, runs }
    }

    /// How far it is by the runs that are there. They are read one after the other: together they
    /// have several times as many changes as wait.
    fn of_runs(table: &ReadOnlyTable<u64, &'static [u8]>, lag: Lag) -> Result<Self, StoreError> {
        let mut index = Self::empty(lag);
        let Some((_, last)) = table.last()? else { return Ok(index) };
        index.place = decode(last.value())?.after;
        let mut waiting = Vec::new();
        for row in table.range::<u64>(..)? {
            let (number, run) = row?;
            let run = decode(run.value())?;
            index.runs.last = number.value();
            if run.before.round < index.place.round {
                index.runs.last_before_round = number.value();
            }
            index.runs.changes += run.len();
            waiting.extend(run.waiting(index.place));
        }
        index.waiting = ChangeBuffer::of_changes(waiting);
        Ok(index)
    }

    /// Brings all that waits into the index.
    fn settle(&mut self, to: &WriteTransaction) -> Result<(), StoreError> {
        bring(self.waiting.all(), to)?;
        to.delete_table(RUNS)?;
        *self = Self::empty(self.lag);
        Ok(())
    }

    /// Takes changes, and brings into the index what is due.
    fn take(&mut self, changes: &[IndexChange], to: &WriteTransaction) -> Result<(), StoreError> {
        let waiting_max = self.lag.changes(to.open_table(LEAD_INDEX)?.len()?);
        let are_runs_long = self.runs.changes > waiting_max * RUNS_FACTOR;
        let waiting_max = if are_runs_long { 0 } else { waiting_max };
        let turn = self.waiting.turn(changes, self.place, waiting_max);
        bring(turn.due.into_iter(), to)?;
        let is_new_round = turn.run.after.round > self.place.round;
        (self.waiting, self.place) = (turn.waiting, turn.run.after);
        if self.runs.changes > 0 || !self.waiting.is_empty() {
            let mut runs = to.open_table(RUNS)?;
            self.runs.add(&turn.run, &mut runs)?;
            if is_new_round {
                self.runs.end_round(&mut runs)?;
            }
        }
        Ok(())
    }
}

/// Brings changes into the index, in its order.
fn bring(
    changes: impl Iterator<Item = IndexChange>,
    to: &WriteTransaction,
) -> Result<(), StoreError> {
    let mut index = to.open_table(LEAD_INDEX)?;
    for (lead_id, number) in changes {
        match number {
            Some(number) => drop(index.insert(lead_id, number)?),
            None => drop(index.remove(lead_id)?),
        }
    }
    Ok(())
}

fn decode(run: &[u8]) -> Result<Run, StoreError> {
    Run::decode(run).ok_or_else(|| StoreError::Corrupt("a run of the index can't be read".into()))
}

impl Runs {
    fn add(&mut self, run: &Run, to: &mut Table<'_, u64, &'static [u8]>) -> Result<(), StoreError> {
        self.last += 1;
        self.changes += run.len();
        to.insert(self.last, run.encode().as_slice())?;
        Ok(())
    }

    /// Removes what the index has.
    fn end_round(&mut self, from: &mut Table<'_, u64, &'static [u8]>) -> Result<(), StoreError> {
        loop {
            let first =
                from.first()?.map(|(number, run)| (number.value(), Run::len_of(run.value())));
            let done = first.filter(|(number, _)| *number <= self.last_before_round);
            let Some((number, changes)) = done else { break };
            self.changes -= changes;
            from.remove(number)?;
        }
        self.last_before_round = self.last;
        Ok(())
    }
}
