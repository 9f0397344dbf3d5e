//! A new file made of the records of another store.
//!
//! It is written under another name, and gets its own once it has been read again and found to be
//! the same. So it is never there in part, and who is interrupted begins anew.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::Database;
use tokio_util::sync::CancellationToken;

use crate::domain::ids::LeadId;
use crate::domain::matching::contact_keys;
use crate::limits::{COPY_CACHE_BYTES, EVENT_AGE_MAX_S};
use crate::store::records::decode_customer;
use crate::store::redb::base::{Base, Lag};
use crate::store::redb::copy::CopyFile;
use crate::store::redb::export::FileSource;
use crate::store::redb::snapshot::Snapshot;
use crate::store::redb::tables::{Tables, make_tables};
use crate::store::redb::{fresh_file, layout, publish};
use crate::store::transfer::{Batch, Kind, Values};
use crate::store::{Purpose, StoreError};

/// A file that records are written to.
pub(in crate::store) struct FileTarget {
    path: PathBuf,
    unfinished: Unfinished,
    file: Arc<File>,
    base: Base,
    /// The number of the attempt that was written last. Nobody sees these numbers, but they grow.
    last_attempt: u64,
}

impl FileTarget {
    /// Begins a file, which must not be there yet.
    pub(in crate::store) fn begin(path: &Path, purpose: Purpose) -> Result<Self, StoreError> {
        if path.exists() {
            let problem = "it is there already, and a copy is a new file; choose another name";
            return Err(StoreError::Unsupported(problem.into()));
        }
        let unfinished = Unfinished(path.with_added_extension("unfinished"));
        let file = Arc::new(fresh_file(&unfinished.0)?);
        let backend = CopyFile { file: file.clone(), stop: CancellationToken::new() };
        let mut builder = Database::builder();
        let database = builder.set_cache_size(COPY_CACHE_BYTES).create_with_backend(backend)?;
        let transaction = database.begin_write()?;
        layout::mark(&transaction, purpose)?;
        // The tables that stay empty, too.
        make_tables(&transaction)?;
        transaction.commit()?;
        // Its index takes everything at once, so that a file that is done has nothing beside it.
        let base = Base::new(database, Lag::NONE)?;
        Ok(Self { path: path.into(), unfinished, file, base, last_attempt: 0 })
    }

    /// Writes some records.
    pub(in crate::store) fn put(&mut self, batch: Batch) -> Result<(), StoreError> {
        let transaction = Snapshot::of(&self.base)?.begin();
        let mut tables = transaction.tables();
        for record in batch.records {
            let mut values = Values::of(record);
            match batch.kind {
                Kind::Attempts => {
                    self.last_attempt += 1;
                    put_attempt(&mut tables, self.last_attempt, &mut values)?;
                }
                kind => put(&mut tables, kind, &mut values)?,
            }
        }
        self.base.merge(&transaction.end().active)
    }

    /// Makes what was written durable, though not under its name yet.
    pub(in crate::store) fn write(self) -> Result<WrittenFile, StoreError> {
        let Self { path, unfinished, file, base, .. } = self;
        let mut database = base.into_database();
        let unavailable =
            |error: &dyn std::fmt::Display| StoreError::Unavailable(error.to_string());
        // A new file has grown in large steps; the last one is given back.
        database.compact().map_err(|error| unavailable(&error))?;
        database.close()?;
        file.sync_all()?;
        Ok(WrittenFile { path, unfinished, _file: file })
    }
}

/// The name of a file until it is whole; what has it still when this is dropped helps nobody.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A file that is written, and not under its name yet.
pub(in crate::store) struct WrittenFile {
    path: PathBuf,
    unfinished: Unfinished,
    /// Keeps other runs away.
    _file: Arc<File>,
}

impl WrittenFile {
    /// Opens it to see what is in it.
    pub(in crate::store) fn open(&self) -> Result<FileSource, StoreError> {
        FileSource::open(&self.unfinished.0)
    }

    /// Gives it its name.
    pub(in crate::store) fn publish(self) -> Result<(), StoreError> {
        // From here on the store is there; if we die before, the next run begins anew.
        Ok(publish(&self.unfinished.0, &self.path)?)
    }
}

fn put(tables: &mut Tables<'_>, kind: Kind, values: &mut Values) -> Result<(), StoreError> {
    match kind {
        Kind::Leads => {
            let (lead_id, seq, _) = (values.id()?, values.id()?, values.int()?);
            tables.lead_index.insert(lead_id, seq);
            tables.leads.insert(seq, values.bytes()?.as_slice());
        }
        Kind::Events => {
            let (lead_id, seq) = (values.id()?, values.id()?);
            tables.events.insert(seq, values.bytes()?.as_slice());
            let lead_seq = tables.lead_index.get(lead_id)?.map(|lead_seq| lead_seq.value());
            match lead_seq {
                Some(lead_seq) => tables.lead_events.insert((lead_seq, seq), ()),
                // As that of a dead letter; what still waits for its lead comes later.
                None => tables.awaiting.insert((lead_id, seq), (0, i64::MAX)),
            }
        }
        Kind::Outbox => {
            let (dataset, event_time) = (values.id()?, values.int()?);
            let place = (dataset, event_time, values.int()? != 0, values.id()?);
            tables.outbox.insert(place, values.id()?);
        }
        Kind::Awaiting => {
            let place = (values.id()?, values.id()?);
            let last_second = values.int()? + EVENT_AGE_MAX_S;
            tables.awaiting.insert(place, (values.small()?, last_second));
        }
        Kind::Dead => {
            let (_, seq) = (values.id()?, values.id()?);
            tables.dead.insert(seq, (values.small()?, values.int()?));
        }
        Kind::Erased => tables.erased.insert(values.id()?, values.int()?),
        Kind::CrmIds => {
            let (crm_id, source, lead_id) = (values.text()?, values.text()?, values.id()?);
            let (crm_id, source) = (crm_id.as_str(), source.as_str());
            tables.crm_ids.insert((crm_id, source), lead_id);
            tables.lead_crm_ids.insert((lead_id, source, crm_id), ());
        }
        Kind::FoundLeads => {
            let (own, lead_id) = (values.id()?, values.id()?);
            tables.found_leads.insert(own, lead_id);
            tables.lead_found.insert((lead_id, own), ());
        }
        Kind::Customers => put_customer(tables, values.id()?, &values.bytes()?)?,
        Kind::Idempotency => {
            let (key, _, seq) = (values.digest()?, values.id()?, values.id()?);
            tables.idempotency.insert(&key, (seq, &values.digest()?));
            tables.event_keys.insert((seq, &key), ());
        }
        _ => put_rest(tables, kind, values)?,
    }
    Ok(())
}

/// Writes what is about no lead.
fn put_rest(tables: &mut Tables<'_>, kind: Kind, values: &mut Values) -> Result<(), StoreError> {
    match kind {
        Kind::Quarantine => {
            let (digest, seq, _) = (values.digest()?, values.id()?, values.int()?);
            tables.quarantine_index.insert(&digest, seq);
            tables.quarantine.insert(seq, values.bytes()?.as_slice());
        }
        Kind::Unmapped => {
            let (digest, seq, source) = (values.digest()?, values.id()?, values.text()?);
            let (_, report) = (values.int()?, values.bytes()?);
            tables.unmapped_index.insert(&digest, seq);
            tables.unmapped_sources.insert((source.as_str(), seq), ());
            tables.unmapped.insert(seq, report.as_slice());
        }
        Kind::FormMarks => {
            tables.form_marks.insert(values.id()?, values.bytes()?.as_slice());
        }
        Kind::ApiKeys => tables.api_keys.insert(&values.digest()?, ()),
        Kind::Alarms => {
            let (subject, at_ms) = (values.text()?, values.int()?);
            tables.alarms.insert((subject.as_str(), at_ms), values.bytes()?.as_slice());
        }
        Kind::AlarmConditions => {
            let key = (values.small()?, values.id()?);
            tables.alarm_conditions.insert(key, values.int()?);
        }
        _ => tables.meta.insert(values.text()?.as_str(), values.id()?),
    }
    Ok(())
}

/// Writes what is known of a person, and by what they are found, unless their events are sent
/// without a lead.
fn put_customer(tables: &mut Tables<'_>, lead_id: u64, record: &[u8]) -> Result<(), StoreError> {
    tables.customers.insert(lead_id, record);
    let is_unmatched = lead_id >= LeadId::OWN && tables.lead_index.get(lead_id)?.is_some();
    if !is_unmatched {
        for (_, contact) in contact_keys(&decode_customer(record)?) {
            tables.contacts.insert((&contact, lead_id), ());
        }
    }
    Ok(())
}

/// Writes an attempt of one event. They come in the order of their numbers.
fn put_attempt(
    tables: &mut Tables<'_>,
    attempt: u64,
    values: &mut Values,
) -> Result<(), StoreError> {
    let (_, seq, _) = (values.id()?, values.id()?, values.id()?);
    if values.int()? != 0 {
        tables.delivered.insert(seq, attempt);
    } else {
        tables.failures.insert((seq, attempt), ());
    }
    tables.attempts.insert(attempt, values.bytes()?.as_slice());
    tables.attempt_links.insert(attempt, 1);
    Ok(())
}
