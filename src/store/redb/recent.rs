//! The rows that are newer than the database, in memory.
//!
//! They are a value: a copy costs nothing and stays as it is, so whoever reads sees one moment. In
//! the log they are what they are here, changes of single rows, one after the other; so doing them
//! once more changes nothing.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use imbl::OrdMap;
use redb::{Key, Value};

use crate::store::StoreError;

/// The order of a table's keys.
type Order = fn(&[u8], &[u8]) -> Ordering;

/// What the rows of a table look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    order: Order,
    /// Bytes of each key, and of each value, where they are all of one length.
    widths: (Option<usize>, Option<usize>),
}

impl Shape {
    /// That of a table with such keys and values.
    pub(super) fn of<K: Key, V: Value>() -> Self {
        Self { order: K::compare, widths: (K::fixed_width(), V::fixed_width()) }
    }

    fn admits(self, key: &[u8], change: &Change) -> bool {
        let is_wide = |width: Option<usize>, bytes: &[u8]| width.is_none_or(|it| it == bytes.len());
        is_wide(self.widths.0, key)
            && change.as_deref().is_none_or(|value| is_wide(self.widths.1, value))
    }
}

/// A key or a value as the database encodes it.
pub(super) type Bytes = Arc<[u8]>;

/// What a row was changed to; `None` if it was removed.
pub(super) type Change = Option<Bytes>;

/// The numbers of tables are below this one.
const TABLES_MAX: usize = 32;
/// The length that an encoding has for a value that was removed.
const REMOVED: u32 = u32::MAX;

/// The number of a table, as it stands in the log, and the order of its keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableId {
    number: u8,
    order: Order,
}

impl TableId {
    /// The table with this number, which has keys of this type.
    pub(super) fn of<K: Key>(number: u8) -> Self {
        Self { number, order: K::compare }
    }

    /// One of its keys.
    pub(super) fn key(self, key: &[u8]) -> RowKey {
        RowKey { order: self.order, bytes: key.into() }
    }
}

/// The key of a row in a table.
#[derive(Clone, Debug)]
pub(super) struct RowKey {
    order: Order,
    bytes: Bytes,
}

impl RowKey {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.order)(&self.bytes, &other.bytes)
    }
}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for RowKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for RowKey {}

/// A key that is looked for.
struct Wanted<'k>(&'k [u8]);

impl Equivalent<RowKey> for Wanted<'_> {
    fn equivalent(&self, key: &RowKey) -> bool {
        self.compare(key).is_eq()
    }
}

impl Comparable<RowKey> for Wanted<'_> {
    fn compare(&self, key: &RowKey) -> Ordering {
        (key.order)(self.0, &key.bytes)
    }
}

/// The changes of one table.
type Rows = OrdMap<RowKey, Change>;

/// The rows that were changed, and what to, table by table.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent(Arc<[Rows; TABLES_MAX]>);

impl Recent {
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Rows::is_empty)
    }

    fn table(&self, table: TableId) -> &Rows {
        &self.0[usize::from(table.number)]
    }

    fn table_mut(&mut self, table: TableId) -> &mut Rows {
        &mut Arc::make_mut(&mut self.0)[usize::from(table.number)]
    }

    /// Takes out the changes of a table.
    pub(super) fn take(&mut self, table: TableId) -> impl Iterator<Item = (RowKey, Change)> {
        std::mem::take(self.table_mut(table)).into_iter()
    }

    /// What became of a row, if anything did.
    pub(super) fn get(&self, table: TableId, key: &[u8]) -> Option<&Change> {
        self.table(table).get(&Wanted(key))
    }

    pub(super) fn put(&mut self, table: TableId, key: &[u8], change: Change) {
        self.table_mut(table).insert(table.key(key), change);
    }

    /// Forgets what became of a row.
    pub(super) fn forget(&mut self, table: TableId, key: &[u8]) {
        self.table_mut(table).remove(&Wanted(key));
    }

    /// The changes of a table, in the order of its keys.
    pub(super) fn of_table(&self, table: TableId) -> impl Iterator<Item = (&[u8], &Change)> {
        self.table(table).iter().map(|(key, change)| (key.bytes(), change))
    }

    /// The changes in a range of a table's keys.
    pub(super) fn range(&self, table: TableId, range: (Bound<&[u8]>, Bound<&[u8]>)) -> Changes {
        let rows = self.table(table);
        if rows.is_empty() {
            return Changes { rows: None, from: Bound::Unbounded, to: Bound::Unbounded };
        }
        let [from, to] = [range.0, range.1].map(|bound| bound.map(|key| table.key(key)));
        Changes { rows: Some(rows.clone()), from, to }
    }

    /// Does the changes that an encoding tells of.
    pub(super) fn replay(
        &mut self,
        mut encoded: &[u8],
        shape_of: impl Fn(u8) -> Option<Shape>,
    ) -> Result<(), StoreError> {
        while !encoded.is_empty() {
            let (table, key, change) = decode(&mut encoded, &shape_of).ok_or_else(|| {
                StoreError::Corrupt("the log holds what this program cannot read".into())
            })?;
            self.put(table, key, change);
        }
        Ok(())
    }
}

/// The changes in a range, from both ends.
#[derive(Debug)]
pub(super) struct Changes {
    /// `None` at the end.
    rows: Option<Rows>,
    from: Bound<RowKey>,
    to: Bound<RowKey>,
}

impl Changes {
    fn step(&mut self, back: bool) -> Option<(RowKey, Change)> {
        let rows = self.rows.as_ref()?;
        let found = is_range(&self.from, &self.to).then(|| {
            let mut left = rows.range::<_, RowKey>((self.from.as_ref(), self.to.as_ref()));
            if back { left.next_back() } else { left.next() }
        });
        let Some((key, change)) = found.flatten() else {
            self.rows = None;
            return None;
        };
        let found = (key.clone(), change.clone());
        let end = if back { &mut self.to } else { &mut self.from };
        *end = Bound::Excluded(found.0.clone());
        Some(found)
    }
}

impl Iterator for Changes {
    type Item = (RowKey, Change);

    fn next(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}

impl DoubleEndedIterator for Changes {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}

/// Whether the bounds are in order.
fn is_range(from: &Bound<RowKey>, to: &Bound<RowKey>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        (Bound::Included(from), Bound::Included(to)) => from <= to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from < to,
    }
}

/// Appends a change to an encoding.
pub(super) fn encode(encoded: &mut Vec<u8>, table: TableId, key: &[u8], change: Option<&[u8]>) {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a row is bounded by its input");
    encoded.push(table.number);
    encoded.extend_from_slice(&length(key).to_le_bytes());
    encoded.extend_from_slice(&change.map_or(REMOVED, length).to_le_bytes());
    encoded.extend_from_slice(key);
    encoded.extend_from_slice(change.unwrap_or_default());
}

fn decode<'e>(
    encoded: &mut &'e [u8],
    shape_of: &impl Fn(u8) -> Option<Shape>,
) -> Option<(TableId, &'e [u8], Change)> {
    let [number] = *encoded.split_off(..1)?.first_chunk()?;
    let mut length = || Some(u32::from_le_bytes(*encoded.split_off(..4)?.first_chunk()?));
    let (key, value) = (length()?, length()?);
    let key = encoded.split_off(..usize::try_from(key).ok()?)?;
    let change = match value {
        REMOVED => None,
        length => Some(encoded.split_off(..usize::try_from(length).ok()?)?.into()),
    };
    let shape = shape_of(number).filter(|shape| shape.admits(key, &change))?;
    Some((TableId { number, order: shape.order }, key, change))
}
