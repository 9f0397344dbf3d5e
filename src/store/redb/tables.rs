//! The tables of the embedded store.
//!
//! `docs/STORAGE.md` tells for each table who writes it and how long a row lives. Everything but
//! the index of leads grows at its end, and the index is as narrow as it can be: what it costs to
//! bring rows into the database is the number of pages that they touch.

use std::collections::BTreeMap;

use redb::{Key, ReadTransaction, TableDefinition, Value, WriteTransaction};

use crate::domain::event::KeyDigest;
use crate::domain::matching::ContactKey;
use crate::domain::time::Timestamp;
use crate::store::redb::change_buffer::ChangeBuffer;
use crate::store::redb::recent::{Change, Recent, Shape, TableId};
use crate::store::redb::rows::{OldRows, Table};
use crate::store::redb::snapshot::Layers;
use crate::store::{ApiKeyDigest, StoreError};

/// The place of an event in the outbox: (dataset or 0, event time, whether it was reported, event's
/// number).
pub(super) type Place = (u64, i64, bool, u64);

/// The fact that tells the highest number when something was removed last.
pub(super) const LAST_SEQ: &str = "seq";

/// The fact that only a copy has: of which moment it is, in milliseconds.
pub(super) const BACKED_UP_AT: &str = "backed_up_at";

/// Declares each table once, and from that: its definition, the tables of a transaction, and the
/// copying. The number of a table stands in the log, so it stays as it is.
macro_rules! tables {
    ($($(#[$doc:meta])* $number:literal $field:ident: $key:ty => $value:ty;)*) => {
        /// The tables of the database, as a read transaction sees them.
        pub(super) struct OldTables {
            pub(super) transaction: ReadTransaction,
            $($field: OldRows<$key, $value>,)*
        }

        impl OldTables {
            /// The tables as the transaction sees them, and what its index of leads lacks.
            pub(super) fn of(transaction: ReadTransaction, waiting: ChangeBuffer) -> Self {
                $(let $field = OldRows::new(TableDefinition::new(stringify!($field)));)*
                let mut tables = Self { transaction, $($field,)* };
                tables.lead_index.set_waiting(waiting);
                tables
            }

            /// The same with the layers above.
            pub(super) fn tables<'t>(&'t self, layers: &'t Layers) -> Tables<'t> {
                Tables { layers, $($field: Table::new($number, &self.$field, layers),)* }
            }
        }

        /// All tables of a transaction.
        pub(super) struct Tables<'t> {
            /// The layers that they are seen in.
            pub(super) layers: &'t Layers,
            $($(#[$doc])* pub(super) $field: Table<'t, $key, $value>,)*
        }

        impl Tables<'_> {
            /// How many rows each table has, by its name; but for the facts about the store itself.
            pub(super) fn count_rows(&self) -> Result<BTreeMap<&'static str, u64>, StoreError> {
                let mut rows = BTreeMap::new();
                $(rows.insert(stringify!($field), self.$field.len()?);)*
                rows.remove("meta");
                Ok(rows)
            }

            /// Copies all rows into a database, in the order of their keys, so that it is packed.
            pub(super) fn copy_to(&self, to: &WriteTransaction) -> Result<(), redb::Error> {
                $({
                    let mut copy = to.open_table(table::<$key, $value>(stringify!($field)))?;
                    for row in self.$field.all()? {
                        let (key, value) = row?;
                        copy.insert(key.value(), value.value())?;
                    }
                })*
                Ok(())
            }
        }

        /// Makes the tables that are missing.
        pub(super) fn make_tables(transaction: &WriteTransaction) -> Result<(), StoreError> {
            $(transaction.open_table(table::<$key, $value>(stringify!($field)))?;)*
            Ok(())
        }

        /// What the rows of the table with a number look like.
        pub(super) fn shape_of(number: u8) -> Option<Shape> {
            match number {
                $($number => Some(Shape::of::<$key, $value>()),)*
                _ => None,
            }
        }

        /// Brings recent rows into a database.
        pub(super) fn write_rows(rows: &Recent, to: &WriteTransaction) -> Result<(), StoreError> {
            $({
                let changes = rows.of_table(TableId::of::<$key>($number));
                write_changes::<$key, $value>(changes, stringify!($field), to)?;
            })*
            Ok(())
        }
    };
}

tables! {
    /// Lead id → the lead's sequence number. The only table of the webhook's path whose keys
    /// come in random order.
    1 lead_index: u64 => u64;
    /// Sequence number → the lead with its raw-lead event, which has the same number.
    2 leads: u64 => &'static [u8];
    /// Sequence number → an event that the CRM reported.
    3 events: u64 => &'static [u8];
    /// (Lead's number, event's number): the reported events of a lead.
    4 lead_events: (u64, u64) => ();
    /// Place → lead id: what is to be sent.
    5 outbox: Place => u64;
    /// Event's number → number of the attempt that delivered it.
    6 delivered: u64 => u64;
    /// Event's number → (reason, milliseconds): dead letters.
    7 dead: u64 => (u8, i64);
    /// Sequence number → a request to Meta and its answer.
    8 attempts: u64 => &'static [u8];
    /// (Event's number, attempt's number): attempts that did not deliver the event.
    9 failures: (u64, u64) => ();
    /// (Lead id, event's number) → (tolerance, last second): events awaiting an unknown lead.
    10 awaiting: (u64, u64) => (u32, i64);
    /// Sequence number → a piece of a webhook that could not be read.
    11 quarantine: u64 => &'static [u8];
    /// (CRM's own id, source) → the lead that it is linked with.
    12 crm_ids: (&'static str, &'static str) => u64;
    /// (Lead id, source, CRM's own id): the same the other way round, and the records whose
    /// reports were found to be about the lead.
    13 lead_crm_ids: (u64, &'static str, &'static str) => ();
    /// Lead id → what is known of the person besides what each event says.
    14 customers: u64 => &'static [u8];
    /// (Digest of an e-mail address or phone number, lead id): who is found by it.
    15 contacts: (&'static ContactKey, u64) => ();
    /// Our own id of somebody → the lead that it turned out to be.
    16 found_leads: u64 => u64;
    /// Lead id → milliseconds: leads that were erased and must not come back.
    17 erased: u64 => i64;
    /// Digest of an idempotency key → (event's number, fingerprint of the report).
    18 idempotency: &'static KeyDigest => (u64, &'static KeyDigest);
    /// Sequence number → what a CRM sent and no mapping fits.
    19 unmapped: u64 => &'static [u8];
    /// Form id → how far its leads have been read from Meta.
    20 form_marks: u64 => &'static [u8];
    /// Digests of API keys that were made here.
    21 api_keys: &'static ApiKeyDigest => ();
    /// (Subject, milliseconds of its first cause) → a message about an alarm that waits.
    22 alarms: (&'static str, i64) => &'static [u8];
    /// (Kind, dataset or 0) → since when a condition lasts that was told, in milliseconds.
    23 alarm_conditions: (u8, u64) => i64;
    /// Facts about the store itself: the version of its layout, the kinds of alarms it keeps.
    24 meta: &'static str => u64;
    /// Digest of a piece in quarantine → its number.
    25 quarantine_index: &'static KeyDigest => u64;
    /// Digest of what no mapping fits → its number.
    26 unmapped_index: &'static KeyDigest => u64;
    /// (Source, number) of what no mapping fits: how much there is of each source.
    27 unmapped_sources: (&'static str, u64) => ();
    /// (Event's number, digest of an idempotency key): the keys that it was reported with.
    28 event_keys: (u64, &'static KeyDigest) => ();
    /// (Lead id, id of our own): who turned out to be the lead.
    29 lead_found: (u64, u64) => ();
    /// Number of an attempt → how many events it was about that are still here.
    30 attempt_links: u64 => u32;
}

/// The index of leads, which does not take its rows at once.
pub(super) const LEAD_INDEX: TableDefinition<'static, u64, u64> =
    TableDefinition::new("lead_index");

/// Where its rows are among the recent ones.
pub(super) fn lead_index_id() -> TableId {
    TableId::of::<u64>(1)
}

fn table<K: Key + 'static, V: Value + 'static>(
    name: &'static str,
) -> TableDefinition<'static, K, V> {
    TableDefinition::new(name)
}

/// Brings the changes of one table into a database, in the order of their keys.
fn write_changes<'r, K: Key + 'static, V: Value + 'static>(
    changes: impl Iterator<Item = (&'r [u8], &'r Change)>,
    name: &'static str,
    to: &WriteTransaction,
) -> Result<(), StoreError> {
    let mut changes = changes.peekable();
    if changes.peek().is_none() {
        return Ok(());
    }
    let mut rows = to.open_table(table::<K, V>(name))?;
    for (key, change) in changes {
        let key = K::from_bytes(key);
        match change {
            Some(value) => drop(rows.insert(key, V::from_bytes(value))?),
            None => drop(rows.remove(key)?),
        }
    }
    Ok(())
}

/// Marks a copy with the moment that it is of.
pub(super) fn mark_copy(copy: &WriteTransaction, now: Timestamp) -> Result<(), redb::Error> {
    let mut meta = copy.open_table(TableDefinition::<&str, u64>::new("meta"))?;
    meta.insert(BACKED_UP_AT, u64::try_from(now.as_millis()).unwrap_or(0))?;
    Ok(())
}

/// Last key of a table that counts upwards, or 0.
fn last_key<V: Value + 'static>(table: &Table<'_, u64, V>) -> Result<u64, StoreError> {
    Ok(table.last()?.map_or(0, |(key, _)| key.value()))
}

/// The highest sequence number that was ever given out.
pub(super) fn last_seq(tables: &Tables<'_>) -> Result<u64, StoreError> {
    let last = [
        // The highest one when something was removed last.
        tables.meta.get(LAST_SEQ)?.map_or(0, |seq| seq.value()),
        last_key(&tables.leads)?,
        last_key(&tables.events)?,
        last_key(&tables.attempts)?,
        last_key(&tables.quarantine)?,
        last_key(&tables.unmapped)?,
    ];
    Ok(last.into_iter().max().unwrap_or(0))
}
