//! The tables of the embedded store, opened for writing or for reading.
//!
//! `docs/STORAGE.md` tells for each table who writes it and how long a row lives. Everything but
//! the index of leads grows at its end, because the cost of a commit is the number of pages it
//! touches; the index is as narrow as it can be.

use std::collections::BTreeMap;

use redb::{
    Key, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, Value,
    WriteTransaction,
};

use crate::domain::event::KeyDigest;
use crate::domain::matching::ContactKey;
use crate::domain::time::Timestamp;
use crate::store::redb::lazy::{Lazy, Opens};
use crate::store::{ApiKeyDigest, StoreError};

/// The place of an event in the outbox: (dataset or 0, event time, whether it was reported, event's
/// number).
pub(super) type Place = (u64, i64, bool, u64);

/// The fact that tells the highest number when something was removed last.
pub(super) const LAST_SEQ: &str = "seq";

/// The fact that only a copy has: of which moment it is, in milliseconds.
pub(super) const BACKED_UP_AT: &str = "backed_up_at";

/// The tables of a write transaction.
pub(super) type WriteTables<'t> = Tables<'t, WriteTransaction>;

/// The tables of a read transaction.
pub(super) type ReadTables<'t> = Tables<'t, ReadTransaction>;

/// Declares each table once, and from that: its definition, the tables of a transaction, the view
/// that reading code works on, and the copying. What only the writer looks at stands apart.
macro_rules! tables {
    (
        read { $($(#[$doc:meta])* $field:ident: $name:literal, $key:ty => $value:ty;)* }
        writer_only {
            $($(#[$own_doc:meta])* $own:ident: $own_name:literal, $own_key:ty => $own_value:ty;)*
        }
    ) => {
        /// All tables of a transaction; each is opened when it is first looked at.
        pub(super) struct Tables<'t, T: Opens + 't> {
            $($(#[$doc])* pub(super) $field: Lazy<'t, T, $key, $value>,)*
            $($(#[$own_doc])* pub(super) $own: Lazy<'t, T, $own_key, $own_value>,)*
        }

        /// What reading needs of the tables, inside a write transaction or outside.
        pub(super) trait View {
            $($(#[$doc])* fn $field(&self) -> &impl ReadableTable<$key, $value>;)*
        }

        impl<'t, T: Opens> Tables<'t, T> {
            /// The tables as the transaction sees them.
            pub(super) fn of(transaction: &'t T) -> Self {
                Self {
                    $($field: Lazy::new(transaction, TableDefinition::new($name)),)*
                    $($own: Lazy::new(transaction, TableDefinition::new($own_name)),)*
                }
            }
        }

        impl WriteTables<'_> {
            /// Makes the tables that are missing.
            pub(super) fn make(transaction: &WriteTransaction) -> Result<(), StoreError> {
                let tables = WriteTables::of(transaction);
                $(tables.$field.table()?;)*
                $(tables.$own.table()?;)*
                Ok(())
            }
        }

        /// Copies the rows of all tables.
        pub(super) fn copy_tables(
            from: &ReadTransaction,
            to: &WriteTransaction,
        ) -> Result<(), redb::Error> {
            $(copy_table(from, to, TableDefinition::<$key, $value>::new($name))?;)*
            $(copy_table(from, to, TableDefinition::<$own_key, $own_value>::new($own_name))?;)*
            Ok(())
        }

        /// How many rows each table has, by its name; but for the facts about the store itself.
        pub(super) fn count_rows(
            transaction: &ReadTransaction,
        ) -> Result<BTreeMap<&'static str, u64>, StoreError> {
            let mut rows = BTreeMap::new();
            $(
                let table = TableDefinition::<$key, $value>::new($name);
                rows.insert($name, transaction.open_table(table)?.len()?);
            )*
            $(
                let table = TableDefinition::<$own_key, $own_value>::new($own_name);
                rows.insert($own_name, transaction.open_table(table)?.len()?);
            )*
            rows.remove("meta");
            Ok(rows)
        }

        impl<T: Opens> View for Tables<'_, T> {
            $(fn $field(&self) -> &impl ReadableTable<$key, $value> { &self.$field })*
        }
    };
}

tables! {
    read {
        /// Lead id → the lead's sequence number. The only table of the webhook's path whose keys
        /// come in random order.
        lead_index: "lead_index", u64 => u64;
        /// Sequence number → the lead with its raw-lead event, which has the same number.
        leads: "leads", u64 => &'static [u8];
        /// Sequence number → an event that the CRM reported.
        events: "events", u64 => &'static [u8];
        /// (Lead's number, event's number): the reported events of a lead.
        lead_events: "lead_events", (u64, u64) => ();
        /// Place → lead id: what is to be sent.
        outbox: "outbox", Place => u64;
        /// Event's number → number of the attempt that delivered it.
        delivered: "delivered", u64 => u64;
        /// Event's number → (reason, milliseconds): dead letters.
        dead: "dead", u64 => (u8, i64);
        /// Sequence number → a request to Meta and its answer.
        attempts: "attempts", u64 => &'static [u8];
        /// (Event's number, attempt's number): attempts that did not deliver the event.
        failures: "failures", (u64, u64) => ();
        /// (Lead id, event's number) → (tolerance, last second): events awaiting an unknown lead.
        awaiting: "awaiting", (u64, u64) => (u32, i64);
        /// Sequence number → a piece of a webhook that could not be read.
        quarantine: "quarantine", u64 => &'static [u8];
        /// (CRM's own id, source) → the lead that it is linked with.
        crm_ids: "crm_ids", (&'static str, &'static str) => u64;
        /// (Lead id, source, CRM's own id): the same the other way round, and the records whose
        /// reports were found to be about the lead.
        lead_crm_ids: "lead_crm_ids", (u64, &'static str, &'static str) => ();
        /// Lead id → what is known of the person besides what each event says.
        customers: "customers", u64 => &'static [u8];
        /// (Digest of an e-mail address or phone number, lead id): who is found by it.
        contacts: "contacts", (&'static ContactKey, u64) => ();
        /// Our own id of somebody → the lead that it turned out to be.
        found_leads: "found_leads", u64 => u64;
        /// Lead id → milliseconds: leads that were erased and must not come back.
        erased: "erased", u64 => i64;
        /// Digest of an idempotency key → (event's number, fingerprint of the report).
        idempotency: "idempotency", &'static KeyDigest => (u64, &'static KeyDigest);
        /// Sequence number → what a CRM sent and no mapping fits.
        unmapped: "unmapped", u64 => &'static [u8];
        /// Form id → how far its leads have been read from Meta.
        form_marks: "form_marks", u64 => &'static [u8];
        /// Digests of API keys that were made here.
        api_keys: "api_keys", &'static ApiKeyDigest => ();
        /// (Subject, milliseconds of its first cause) → a message about an alarm that waits.
        alarms: "alarms", (&'static str, i64) => &'static [u8];
        /// (Kind, dataset or 0) → since when a condition lasts that was told, in milliseconds.
        alarm_conditions: "alarm_conditions", (u8, u64) => i64;
        /// Facts about the store itself: the version of its layout, the kinds of alarms it keeps.
        meta: "meta", &'static str => u64;
    }
    writer_only {
        /// Digest of a piece in quarantine → its number.
        quarantine_index: "quarantine_index", &'static KeyDigest => u64;
        /// Digest of what no mapping fits → its number.
        unmapped_index: "unmapped_index", &'static KeyDigest => u64;
        /// (Source, number) of what no mapping fits: how much there is of each source.
        unmapped_sources: "unmapped_sources", (&'static str, u64) => ();
        /// (Event's number, digest of an idempotency key): the keys that it was reported with.
        event_keys: "event_keys", (u64, &'static KeyDigest) => ();
        /// (Lead id, id of our own): who turned out to be the lead.
        lead_found: "lead_found", (u64, u64) => ();
        /// Number of an attempt → how many events it was about that are still here.
        attempt_links: "attempt_links", u64 => u32;
    }
}

/// Copies the rows of one table, in the order of their keys, so that the new one is packed.
fn copy_table<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<(), redb::Error> {
    let mut copy = to.open_table(table)?;
    for row in from.open_table(table)?.iter()? {
        let (key, value) = row?;
        copy.insert(key.value(), value.value())?;
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
fn last_key<V: Value + 'static>(table: &impl ReadableTable<u64, V>) -> Result<u64, StoreError> {
    Ok(table.last()?.map_or(0, |(key, _)| key.value()))
}

/// The highest sequence number that was ever given out.
pub(super) fn last_seq(view: &impl View) -> Result<u64, StoreError> {
    let last = [
        // The highest one when something was removed last.
        view.meta().get(LAST_SEQ)?.map_or(0, |seq| seq.value()),
        last_key(view.leads())?,
        last_key(view.events())?,
        last_key(view.attempts())?,
        last_key(view.quarantine())?,
        last_key(view.unmapped())?,
    ];
    Ok(last.into_iter().max().unwrap_or(0))
}
