//! The mark of a store: which layout its tables have, and what it is for.
//!
//! It is read alone, before any other table is opened: those of another layout may have other
//! types, and what redb says of that helps nobody.

use redb::{
    ReadTransaction, ReadableTable, TableDefinition, TableHandle, UntypedTableHandle,
    WriteTransaction,
};

use crate::store::{Purpose, StoreError};

/// The version of the layout: which tables there are and what their keys mean.
pub(super) const LAYOUT_VERSION: u64 = 5;
/// The layout before, which had no runs of the index, and is read as it is.
const LAYOUT_BEFORE: u64 = 4;

/// The table of facts, which every layout has.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Marks a new store, and refuses what is no store of ours, of another layout or purpose.
pub(super) fn mark(transaction: &WriteTransaction, purpose: Purpose) -> Result<(), StoreError> {
    check_owner(transaction.list_tables()?)?;
    let mut meta = transaction.open_table(META)?;
    if meta.get("layout")?.is_none() {
        meta.insert("purpose", purpose.number())?;
        meta.insert("layout", LAYOUT_VERSION)?;
    }
    check_purpose(read_mark(&meta)?, purpose)?;
    // From here on a program that knows the layout before refuses it.
    meta.insert("layout", LAYOUT_VERSION)?;
    Ok(())
}

/// Refuses a store of another layout or purpose, or one that has not been marked.
pub(super) fn check(transaction: &ReadTransaction, purpose: Purpose) -> Result<(), StoreError> {
    check_purpose(purpose_of(transaction)?, purpose)
}

/// What a store is for, if that is known here; refuses what is no store of ours or of another
/// layout.
pub(super) fn purpose_of(transaction: &ReadTransaction) -> Result<Option<Purpose>, StoreError> {
    check_owner(transaction.list_tables()?)?;
    read_mark(&transaction.open_table(META)?)
}

/// Refuses a file that holds tables, and not the one that marks it as ours.
fn check_owner(tables: impl Iterator<Item = UntypedTableHandle>) -> Result<(), StoreError> {
    let mut tables = tables.peekable();
    if tables.peek().is_some() && !tables.any(|table| table.name() == META.name()) {
        return Err(StoreError::Unsupported("it is a database of another program".into()));
    }
    Ok(())
}

fn read_mark(meta: &impl ReadableTable<&'static str, u64>) -> Result<Option<Purpose>, StoreError> {
    let fact = |name| Ok::<_, StoreError>(meta.get(name)?.map(|value| value.value()));
    let layout = fact("layout")?;
    if ![Some(LAYOUT_BEFORE), Some(LAYOUT_VERSION)].contains(&layout) {
        let layout = layout.map_or_else(|| "no layout".to_owned(), |it| format!("layout {it}"));
        return Err(StoreError::Unsupported(format!(
            "it has {layout}, this program knows layout {LAYOUT_VERSION}"
        )));
    }
    let purpose = fact("purpose")?;
    Ok([Purpose::Live, Purpose::Sandbox].into_iter().find(|known| Some(known.number()) == purpose))
}

fn check_purpose(found: Option<Purpose>, purpose: Purpose) -> Result<(), StoreError> {
    purpose.check(found.map(Purpose::number))
}
