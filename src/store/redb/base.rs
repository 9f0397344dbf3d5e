//! The database below the log.
//!
//! Rows are brought into it many at a time. All tables but the index of leads take them as they
//! are; what the index has not taken yet is in a [`ChangeBuffer`], and durable as runs: rows of a
//! table of its own, one for each time that rows were brought here.

use std::sync::{Mutex, PoisonError};

use redb::{
    Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction,
};

use crate::store::StoreError;
use crate::store::redb::change_buffer::{ChangeBuffer, IndexChange, Place, Run, index_change};
use crate::store::redb::recent::Recent;
use crate::store::redb::tables::{LEAD_INDEX, OldTables, lead_index_id, write_rows};

/// Number of a run → its changes, as [`Run::encode`] writes them. Later runs overrule earlier ones,
/// and runs are removed from the first on, so those that are there tell what the index lacks.
const RUNS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("lead_index_runs");

/// How many more changes than may wait the runs may have, before all that waits is brought into the
/// index: the same lead may be changed often.
const RUNS_FACTOR: usize = 4;

/// A database, and what its index of leads lacks.
pub(super) struct Base {
    database: Database,
    index: Mutex<Index>,
}

/// How far the index of leads is.
#[derive(Clone)]
struct Index {
    waiting: ChangeBuffer,
    waiting_max: usize,
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
    /// What a database is with the runs that it has; from now on so many changes may wait.
    pub(super) fn new(database: Database, waiting_max: usize) -> Result<Self, StoreError> {
        let mut all = Vec::new();
        match database.begin_read()?.open_table(RUNS) {
            Ok(table) => {
                for row in table.range::<u64>(..)? {
                    let (number, run) = row?;
                    let unreadable = || StoreError::Corrupt("a run of the index".into());
                    all.push((number.value(), Run::decode(run.value()).ok_or_else(unreadable)?));
                }
            }
            // Nobody brought anything here yet.
            Err(TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self { database, index: Mutex::new(Index::of_runs(all, waiting_max)) })
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

    /// What it holds; nothing may be brought here meanwhile.
    pub(super) fn tables(&self) -> Result<OldTables, StoreError> {
        let waiting = self.index.lock().unwrap_or_else(PoisonError::into_inner).waiting.clone();
        Ok(OldTables::of(self.database.begin_read()?, waiting))
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
    /// How far it is by the runs that are there, in the order of their numbers.
    fn of_runs(runs: Vec<(u64, Run)>, waiting_max: usize) -> Self {
        let (numbers, runs): (Vec<u64>, Vec<Run>) = runs.into_iter().unzip();
        let place = runs.last().map_or_else(Place::default, |run| run.after);
        let before_round = runs.partition_point(|run| run.before.round < place.round);
        let last_before_round = before_round.checked_sub(1).map_or(0, |at| numbers[at]);
        let last = numbers.last().copied().unwrap_or(0);
        let changes = runs.iter().map(Run::len).sum();
        let waiting = ChangeBuffer::of_runs(&runs);
        Self { waiting, waiting_max, place, runs: Runs { last, last_before_round, changes } }
    }

    /// Takes changes, and brings into the index what is due.
    fn take(&mut self, changes: &[IndexChange], to: &WriteTransaction) -> Result<(), StoreError> {
        let are_runs_long = self.runs.changes > self.waiting_max * RUNS_FACTOR;
        let waiting_max = if are_runs_long { 0 } else { self.waiting_max };
        let turn = self.waiting.turn(changes, self.place, waiting_max);
        let mut table = to.open_table(LEAD_INDEX)?;
        for (lead_id, number) in turn.due {
            match number {
                Some(number) => drop(table.insert(lead_id, number)?),
                None => drop(table.remove(lead_id)?),
            }
        }
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
