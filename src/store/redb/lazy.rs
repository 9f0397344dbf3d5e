//! A table that is opened when somebody first looks at it.
//!
//! Opening a table costs as much as looking something up in it, and most pieces of work need a few
//! of the tables only.

use std::borrow::Borrow;
use std::cell::OnceCell;
use std::ops::RangeBounds;

use redb::{
    AccessGuard, Key, Range, ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata,
    StorageError, Table, TableDefinition, TableError, TableStats, Value, WriteTransaction,
};

type Result<T> = std::result::Result<T, StorageError>;
type Row<'r, K, V> = (AccessGuard<'r, K>, AccessGuard<'r, V>);

/// A transaction, as what opens tables.
pub(super) trait Opens {
    /// A table of it.
    type Table<'t, K: Key + 'static, V: Value + 'static>: ReadableTable<K, V>
    where
        Self: 't;

    fn open<K: Key + 'static, V: Value + 'static>(
        &self,
        definition: TableDefinition<'static, K, V>,
    ) -> std::result::Result<Self::Table<'_, K, V>, TableError>;
}

impl Opens for ReadTransaction {
    type Table<'t, K: Key + 'static, V: Value + 'static> = ReadOnlyTable<K, V>;

    fn open<K: Key + 'static, V: Value + 'static>(
        &self,
        definition: TableDefinition<'static, K, V>,
    ) -> std::result::Result<ReadOnlyTable<K, V>, TableError> {
        self.open_table(definition)
    }
}

impl Opens for WriteTransaction {
    type Table<'t, K: Key + 'static, V: Value + 'static> = Table<'t, K, V>;

    fn open<K: Key + 'static, V: Value + 'static>(
        &self,
        definition: TableDefinition<'static, K, V>,
    ) -> std::result::Result<Table<'_, K, V>, TableError> {
        self.open_table(definition)
    }
}

/// A table of a transaction, open or not yet.
pub(super) struct Lazy<'t, T: Opens + 't, K: Key + 'static, V: Value + 'static> {
    transaction: &'t T,
    definition: TableDefinition<'static, K, V>,
    opened: OnceCell<T::Table<'t, K, V>>,
}

impl<'t, T: Opens, K: Key + 'static, V: Value + 'static> Lazy<'t, T, K, V> {
    pub(super) fn new(transaction: &'t T, definition: TableDefinition<'static, K, V>) -> Self {
        Self { transaction, definition, opened: OnceCell::new() }
    }

    /// Opens it, if nobody has looked at it yet.
    pub(super) fn table(&self) -> Result<&T::Table<'t, K, V>> {
        if let Some(table) = self.opened.get() {
            return Ok(table);
        }
        let table = self.transaction.open(self.definition).map_err(|error| match error {
            TableError::Storage(error) => error,
            // The tables were made when the store was opened.
            other => StorageError::Corrupted(other.to_string()),
        })?;
        Ok(self.opened.get_or_init(|| table))
    }
}

impl<'t, K: Key + 'static, V: Value + 'static> Lazy<'t, WriteTransaction, K, V> {
    fn table_mut(&mut self) -> Result<&mut Table<'t, K, V>> {
        self.table()?;
        Ok(self.opened.get_mut().expect("it was opened in the line above"))
    }

    pub(super) fn insert<'k, 'v>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
        value: impl Borrow<V::SelfType<'v>>,
    ) -> Result<Option<AccessGuard<'_, V>>> {
        self.table_mut()?.insert(key, value)
    }

    pub(super) fn remove<'k>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<AccessGuard<'_, V>>> {
        self.table_mut()?.remove(key)
    }

    /// Removes the rows of a range, and gives each.
    pub(super) fn extract<'k, R: Borrow<K::SelfType<'k>> + 'k>(
        &mut self,
        range: impl RangeBounds<R> + 'k,
    ) -> Result<impl Iterator<Item = Result<Row<'_, K, V>>>> {
        self.table_mut()?.extract_from_if(range, |_, _| true)
    }

    /// Removes the rows of a range.
    pub(super) fn clear<'k, R: Borrow<K::SelfType<'k>> + 'k>(
        &mut self,
        range: impl RangeBounds<R> + 'k,
    ) -> Result<()> {
        self.table_mut()?.retain_in(range, |_, _| false)
    }
}

impl<T: Opens, K: Key + 'static, V: Value + 'static> ReadableTableMetadata for Lazy<'_, T, K, V> {
    fn stats(&self) -> Result<TableStats> {
        self.table()?.stats()
    }

    fn len(&self) -> Result<u64> {
        self.table()?.len()
    }
}

impl<T: Opens, K: Key + 'static, V: Value + 'static> ReadableTable<K, V> for Lazy<'_, T, K, V> {
    fn get<'a>(&self, key: impl Borrow<K::SelfType<'a>>) -> Result<Option<AccessGuard<'_, V>>> {
        self.table()?.get(key)
    }

    fn range<'a, R>(&self, range: impl RangeBounds<R> + 'a) -> Result<Range<'_, K, V>>
    where
        R: Borrow<K::SelfType<'a>> + 'a,
    {
        self.table()?.range(range)
    }

    fn first(&self) -> Result<Option<(AccessGuard<'_, K>, AccessGuard<'_, V>)>> {
        self.table()?.first()
    }

    fn last(&self) -> Result<Option<(AccessGuard<'_, K>, AccessGuard<'_, V>)>> {
        self.table()?.last()
    }
}
