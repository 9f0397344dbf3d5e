//! A table as a transaction sees it: the rows of the database, and over them the recent ones.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::OnceLock;

use redb::{
    AccessGuard, Key, ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata,
    StorageError, TableDefinition, TableError, Value,
};

use crate::store::redb::change_buffer::{BufferedChanges, ChangeBuffer};
use crate::store::redb::recent::{Bytes, Change, Changes, RowKey, TableId};
use crate::store::redb::snapshot::Layers;

type Result<T> = std::result::Result<T, StorageError>;

/// A key or a value that was read.
pub(super) enum Guard<T: Value + 'static> {
    /// From the database.
    Old(AccessGuard<'static, T>),
    /// From what is above it.
    New(Bytes),
}

impl<T: Value + 'static> Guard<T> {
    /// What was read.
    pub(super) fn value(&self) -> T::SelfType<'_> {
        match self {
            Self::Old(guard) => guard.value(),
            Self::New(bytes) => T::from_bytes(bytes),
        }
    }
}

impl<K: Key + 'static> Guard<K> {
    /// How a key that was read stands to another.
    fn compare(&self, other: &[u8]) -> Ordering {
        match self {
            Self::Old(guard) => K::compare(K::as_bytes(&guard.value()).as_ref(), other),
            Self::New(bytes) => K::compare(bytes, other),
        }
    }
}

/// A row that was read.
pub(super) type Row<K, V> = (Guard<K>, Guard<V>);

/// A table of the database, which is opened when somebody first looks at it: that costs as much as
/// looking something up in it, and most pieces of work need a few of the tables only.
pub(super) struct OldRows<K: Key + 'static, V: Value + 'static> {
    definition: TableDefinition<'static, K, V>,
    opened: OnceLock<Opened<K, V>>,
    /// What it lacks; only the index of leads does.
    waiting: ChangeBuffer,
}

struct Opened<K: Key + 'static, V: Value + 'static> {
    table: ReadOnlyTable<K, V>,
    /// The last key: most of what is asked for is newer.
    last: Option<Vec<u8>>,
}

impl<K: Key + 'static, V: Value + 'static> OldRows<K, V> {
    pub(super) fn new(definition: TableDefinition<'static, K, V>) -> Self {
        Self { definition, opened: OnceLock::new(), waiting: ChangeBuffer::default() }
    }

    pub(super) fn set_waiting(&mut self, waiting: ChangeBuffer) {
        self.waiting = waiting;
    }

    fn opened(&self, transaction: &ReadTransaction) -> Result<&Opened<K, V>> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let table = transaction.open_table(self.definition).map_err(|error| match error {
            TableError::Storage(error) => error,
            // The tables were made when the store was opened.
            other => StorageError::Corrupted(other.to_string()),
        })?;
        let last = table.last()?.map(|(key, _)| K::as_bytes(&key.value()).as_ref().to_vec());
        Ok(self.opened.get_or_init(|| Opened { table, last }))
    }
}

impl<K: Key + 'static, V: Value + 'static> Opened<K, V> {
    fn get(&self, key: &[u8]) -> Result<Option<AccessGuard<'static, V>>> {
        let is_newer = self.last.as_ref().is_none_or(|last| K::compare(key, last).is_gt());
        if is_newer { Ok(None) } else { self.table.get(K::from_bytes(key)) }
    }
}

/// A table of a transaction.
pub(super) struct Table<'t, K: Key + 'static, V: Value + 'static> {
    id: TableId,
    old: &'t OldRows<K, V>,
    layers: &'t Layers,
}

impl<'t, K: Key + 'static, V: Value + 'static> Table<'t, K, V> {
    pub(super) fn new(number: u8, old: &'t OldRows<K, V>, layers: &'t Layers) -> Self {
        Self { id: TableId::of::<K>(number), old, layers }
    }

    fn old(&self) -> Result<&Opened<K, V>> {
        self.old.opened(self.layers.old())
    }

    pub(super) fn get<'k>(&self, key: impl Borrow<K::SelfType<'k>>) -> Result<Option<Guard<V>>> {
        self.at(K::as_bytes(key.borrow()).as_ref())
    }

    fn at(&self, key: &[u8]) -> Result<Option<Guard<V>>> {
        match self.layers.change(self.id, key) {
            Some(change) => Ok(change.map(Guard::New)),
            None => self.below(key),
        }
    }

    /// What a row is below the recent ones.
    fn below(&self, key: &[u8]) -> Result<Option<Guard<V>>> {
        match self.old.waiting.change(key) {
            Some(change) => Ok(change.map(Guard::New)),
            None => Ok(self.old()?.get(key)?.map(Guard::Old)),
        }
    }

    /// The rows of a range of keys, in their order.
    pub(super) fn range<'k, R: Borrow<K::SelfType<'k>> + 'k>(
        &self,
        range: impl RangeBounds<R> + 'k,
    ) -> Result<Range<K, V>> {
        let bytes = |bound: Bound<&R>| bound.map(|key| K::as_bytes(key.borrow()).as_ref().to_vec());
        let (from, to) = (bytes(range.start_bound()), bytes(range.end_bound()));
        let bounds = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
        let [frozen, active] = self.layers.changes(self.id, bounds);
        let old = self.old()?;
        let (from, to) = (end_of(bounds.0), end_of(bounds.1));
        let is_newer = match (from, &old.last) {
            (Some(from), Some(last)) => K::compare(from, last).is_gt(),
            (_, last) => last.is_none(),
        };
        let is_inverted = from.zip(to).is_some_and(|(from, to)| K::compare(from, to).is_gt());
        let is_empty = is_newer || is_inverted;
        let waiting = (!is_inverted).then(|| self.old.waiting.range(self.id, bounds));
        let old = if is_empty { None } else { Some(old.table.range(range)?) };
        let old = old.into_iter().flatten().map(old_row as fn(_) -> _);
        Ok(Over::new(Over::new(Over::new(old, waiting.into_iter().flatten()), frozen), active))
    }

    /// All rows.
    pub(super) fn all(&self) -> Result<Range<K, V>> {
        self.range::<K::SelfType<'_>>(..)
    }

    /// The row with the greatest key.
    pub(super) fn last(&self) -> Result<Option<Row<K, V>>> {
        self.all()?.next_back().transpose()
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> Result<u64> {
        let old = self.old()?;
        let mut length = old.table.len()?;
        let mut count = |(_, change): &(RowKey, Change), was_there: bool| {
            length = length + u64::from(change.is_some()) - u64::from(was_there);
        };
        let all = (Bound::Unbounded, Bound::Unbounded);
        for row in self.old.waiting.range(self.id, all) {
            count(&row, old.get(row.0.bytes())?.is_some());
        }
        let [frozen, active] = self.layers.changes(self.id, all);
        let frozen = frozen.filter(|(key, _)| !self.layers.is_changed_again(self.id, key.bytes()));
        for row in frozen.chain(active) {
            count(&row, self.below(row.0.bytes())?.is_some());
        }
        Ok(length)
    }

    pub(super) fn insert<'k, 'v>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
        value: impl Borrow<V::SelfType<'v>>,
    ) {
        let (key, value) = (K::as_bytes(key.borrow()), V::as_bytes(value.borrow()));
        self.layers.put(self.id, key.as_ref(), value.as_ref());
    }

    /// Removes a row, and answers what it was.
    pub(super) fn remove<'k>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<Guard<V>>> {
        let key = K::as_bytes(key.borrow());
        let key = key.as_ref();
        let removed = self.at(key)?;
        if removed.is_some() {
            let is_below = match self.layers.frozen_change(self.id, key) {
                Some(change) => change.is_some(),
                None => self.below(key)?.is_some(),
            };
            self.layers.remove(self.id, key, is_below);
        }
        Ok(removed)
    }

    /// Removes the rows of a range, and answers them.
    pub(super) fn extract<'k, R: Borrow<K::SelfType<'k>> + 'k>(
        &mut self,
        range: impl RangeBounds<R> + 'k,
    ) -> Result<Vec<Row<K, V>>> {
        let rows = self.range(range)?.collect::<Result<Vec<_>>>()?;
        for (key, _) in &rows {
            self.remove(key.value())?;
        }
        Ok(rows)
    }
}

fn end_of(bound: Bound<&[u8]>) -> Option<&[u8]> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(key),
        Bound::Unbounded => None,
    }
}

/// An iterator that shows what comes next at either end.
struct Ends<I: Iterator> {
    between: I,
    first: Option<I::Item>,
    last: Option<I::Item>,
}

impl<I: DoubleEndedIterator> Ends<I> {
    fn new(between: I) -> Self {
        Self { between, first: None, last: None }
    }

    /// What comes next, at the back or at the front.
    fn peek(&mut self, back: bool) -> Option<&I::Item> {
        if back {
            if self.last.is_none() {
                self.last = self.between.next_back().or_else(|| self.first.take());
            }
            self.last.as_ref()
        } else {
            if self.first.is_none() {
                self.first = self.between.next().or_else(|| self.last.take());
            }
            self.first.as_ref()
        }
    }

    fn take(&mut self, back: bool) -> Option<I::Item> {
        self.peek(back)?;
        if back { self.last.take() } else { self.first.take() }
    }
}

/// The rows of the database in a range, from both ends.
type OldRange<K, V> = std::iter::Map<
    std::iter::Flatten<std::option::IntoIter<redb::Range<'static, K, V>>>,
    fn(Result<OldRow<K, V>>) -> Result<Row<K, V>>,
>;

type OldRow<K, V> = (AccessGuard<'static, K>, AccessGuard<'static, V>);

fn old_row<K: Key + 'static, V: Value + 'static>(row: Result<OldRow<K, V>>) -> Result<Row<K, V>> {
    row.map(|(key, value)| (Guard::Old(key), Guard::Old(value)))
}

/// The changes that a table of the database lacks in a range, from both ends.
type WaitingRange = std::iter::Flatten<std::option::IntoIter<BufferedChanges>>;

/// The rows of a range, from both ends: those of the database, those that its index lacks, the
/// frozen ones, and the active ones.
pub(super) type Range<K, V> =
    Over<K, V, Over<K, V, Over<K, V, OldRange<K, V>, WaitingRange>, Changes>, Changes>;

/// Rows with the changes above them, from both ends.
pub(super) struct Over<K, V, B: Iterator, A: Iterator> {
    below: Ends<B>,
    above: Ends<A>,
    of: PhantomData<(K, V)>,
}

impl<K, V, B, A> Over<K, V, B, A>
where
    K: Key + 'static,
    V: Value + 'static,
    B: DoubleEndedIterator<Item = Result<Row<K, V>>>,
    A: DoubleEndedIterator<Item = (RowKey, Change)>,
{
    fn new(below: B, above: A) -> Self {
        Self { below: Ends::new(below), above: Ends::new(above), of: PhantomData }
    }

    fn step(&mut self, back: bool) -> Option<Result<Row<K, V>>> {
        loop {
            let Some((key, _)) = self.above.peek(back) else { return self.below.take(back) };
            let order = match self.below.peek(back) {
                Some(Ok((below, _))) => below.compare(key.bytes()),
                Some(Err(_)) => return self.below.take(back),
                None if back => Ordering::Less,
                None => Ordering::Greater,
            };
            let is_below_first = if back { order.is_gt() } else { order.is_lt() };
            if is_below_first {
                return self.below.take(back);
            }
            if order.is_eq() {
                drop(self.below.take(back));
            }
            if let Some((key, Some(value))) = self.above.take(back) {
                return Some(Ok((Guard::New(key.into_bytes()), Guard::New(value))));
            }
        }
    }
}

impl<K, V, B, A> Iterator for Over<K, V, B, A>
where
    K: Key + 'static,
    V: Value + 'static,
    B: DoubleEndedIterator<Item = Result<Row<K, V>>>,
    A: DoubleEndedIterator<Item = (RowKey, Change)>,
{
    type Item = Result<Row<K, V>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}

impl<K, V, B, A> DoubleEndedIterator for Over<K, V, B, A>
where
    K: Key + 'static,
    V: Value + 'static,
    B: DoubleEndedIterator<Item = Result<Row<K, V>>>,
    A: DoubleEndedIterator<Item = (RowKey, Change)>,
{
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}
