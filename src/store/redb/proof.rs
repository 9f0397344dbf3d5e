//! Proving a store: that a file is whole, ours, and what is in it.
//!
//! Every page is checked against its checksum, every record is read, and what points somewhere
//! points at something. Nothing of the file is changed, and no server can open it meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, StorageBackend};

use crate::domain::time::Timestamp;
use crate::limits::COPY_CACHE_BYTES;
use crate::store::StoreError;
use crate::store::records::{
    decode_attempt, decode_dead, decode_event, decode_lead, decode_quarantined, decode_unmapped,
};
use crate::store::redb::Purpose;
use crate::store::redb::alarms;
use crate::store::redb::base::{Base, Lag};
use crate::store::redb::engine::open_database;
use crate::store::redb::layout::purpose_of;
use crate::store::redb::marks;
use crate::store::redb::overlay::Overlay;
use crate::store::redb::read::event_by_seq;
use crate::store::redb::snapshot::Snapshot;
use crate::store::redb::tables::{BACKED_UP_AT, Tables, make_tables};

/// What a store was found to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// What it is for.
    pub purpose: Purpose,
    /// Of which moment it is, if it is a backup and nothing has been added since.
    pub backed_up_at: Option<Timestamp>,
    /// When the newest record in it was made; `None` if there is none.
    pub newest_at: Option<Timestamp>,
    /// Leads.
    pub leads: u64,
    /// Events, raw leads among them.
    pub events: u64,
    /// Events in queues: a server would send them.
    pub queued: u64,
    /// Of these, the ones whose seven days are over: a server would give them up.
    pub too_old: u64,
    /// Events that await their lead.
    pub awaiting: u64,
    /// Dead letters.
    pub dead: u64,
    /// Pieces of webhooks that could not be read.
    pub quarantined: u64,
    /// How many rows each table has.
    pub(super) rows: BTreeMap<&'static str, u64>,
}

/// Proves the file of a store that no server has open.
///
/// # Errors
/// [`StoreError::Unsupported`] if it is in use, no store, or of another version;
/// [`StoreError::Corrupt`] if it is damaged; [`StoreError::Unavailable`] if it can't be read.
pub fn prove_file(path: &Path, now: Timestamp) -> Result<Contents, StoreError> {
    prove_database(&open_file(path)?, now)
}

/// Proves what lies on a backend.
pub(super) fn prove(backend: impl StorageBackend, now: Timestamp) -> Result<Contents, StoreError> {
    prove_database(&open_unchanged(backend)?, now)
}

/// Opens a file to look at it; it stays locked against whoever would write to it.
pub(super) fn open_file(path: &Path) -> Result<Base, StoreError> {
    let backend = FileBackend::new(File::open(path)?)?;
    match backend.try_lock_shared_range(Bound::Unbounded, Bound::Unbounded) {
        Ok(false) => Err(redb::DatabaseError::DatabaseAlreadyOpen.into()),
        Ok(true) | Err(redb::BackendError::Unsupported) => open_unchanged(backend),
        Err(redb::BackendError::Io(error)) => Err(error.into()),
        Err(other) => Err(StoreError::Unavailable(other.to_string())),
    }
}

/// Opens what lies on a backend to look at it; whoever calls keeps others away.
pub(super) fn open_unchanged(backend: impl StorageBackend) -> Result<Base, StoreError> {
    let mut builder = Database::builder();
    builder.set_cache_size(COPY_CACHE_BYTES).set_check_integrity_on_open(true);
    // A crash leaves rows in the log. They are brought into the database here, and so are tables
    // that have come since the store was last open, but all that above the file.
    let overlay = Arc::new(Overlay::new(backend)?);
    let (base, _) = open_database(overlay, &builder, Lag::default(), |database| {
        check_ours(database)?;
        let making = database.begin_write()?;
        make_tables(&making)?;
        Ok(making.commit()?)
    })?;
    Ok(base)
}

/// Refuses a database of another program, or of another layout.
pub(super) fn check_ours(database: &Database) -> Result<(), StoreError> {
    purpose_of(&database.begin_read()?)?;
    Ok(())
}

fn prove_database(base: &Base, now: Timestamp) -> Result<Contents, StoreError> {
    let transaction = Snapshot::of(base)?.begin();
    let purpose = purpose_of(transaction.old())?;
    let purpose =
        purpose.ok_or_else(|| StoreError::Unsupported("its purpose is not known here".into()))?;
    let tables = transaction.tables();
    let mut reading = Reading { now, tables: &tables, newest_at: None, events: 0, too_old: 0 };
    reading.read_leads()?;
    reading.read_events()?;
    reading.read_queues()?;
    alarms::all(&tables)?;
    marks::read_all(&tables)?;
    let newest_at = reading.newest_at;
    let backed_up_at = tables.meta.get(BACKED_UP_AT)?.and_then(|ms| i64::try_from(ms.value()).ok());
    Ok(Contents {
        purpose,
        backed_up_at: backed_up_at.map(Timestamp::from_millis).filter(|at| newest_at <= Some(*at)),
        newest_at,
        leads: tables.leads.len()?,
        events: reading.events,
        queued: tables.outbox.len()?,
        too_old: reading.too_old,
        awaiting: tables.awaiting.len()?,
        dead: tables.dead.len()?,
        quarantined: tables.quarantine.len()?,
        rows: tables.count_rows()?,
    })
}

/// Reads every record, and sees that what points somewhere points at something.
struct Reading<'t> {
    now: Timestamp,
    tables: &'t Tables<'t>,
    newest_at: Option<Timestamp>,
    events: u64,
    too_old: u64,
}

impl Reading<'_> {
    fn read_leads(&mut self) -> Result<(), StoreError> {
        for row in self.tables.leads.all()? {
            let (seq, lead) = row?;
            let lead = decode_lead(lead.value())?;
            let indexed = self.tables.lead_index.get(lead.reported.lead_id.get())?;
            if indexed.map(|indexed| indexed.value()) != Some(seq.value()) {
                let seq = seq.value();
                return Err(StoreError::Corrupt(format!("lead {seq} is not in the index")));
            }
            self.events += u64::from(lead.raw_event().is_some());
            self.newest_at = self.newest_at.max(Some(lead.received_at));
        }
        if self.tables.lead_index.len()? != self.tables.leads.len()? {
            return Err(StoreError::Corrupt("the index names leads that are not there".into()));
        }
        Ok(())
    }

    fn read_events(&mut self) -> Result<(), StoreError> {
        for row in self.tables.events.all()? {
            let event = decode_event(row?.1.value())?;
            self.events += 1;
            self.newest_at = self.newest_at.max(Some(event.received_at));
        }
        for row in self.tables.attempts.all()? {
            let attempt = decode_attempt(row?.1.value())?;
            self.newest_at = self.newest_at.max(Some(attempt.at));
        }
        for row in self.tables.dead.all()? {
            let (_, at) = decode_dead(row?.1.value())?;
            self.newest_at = self.newest_at.max(Some(at));
        }
        for row in self.tables.quarantine.all()? {
            let piece = decode_quarantined(row?.1.value())?;
            self.newest_at = self.newest_at.max(Some(piece.received_at));
        }
        for row in self.tables.unmapped.all()? {
            let unmapped = decode_unmapped(row?.1.value())?;
            self.newest_at = self.newest_at.max(Some(unmapped.received_at));
        }
        Ok(())
    }

    fn read_queues(&mut self) -> Result<(), StoreError> {
        for row in self.tables.outbox.all()? {
            let (_, _, _, seq) = row?.0.value();
            let event = event_by_seq(self.tables, seq)?;
            self.too_old += u64::from(event.is_past_sending(self.now));
        }
        for row in self.tables.awaiting.all()? {
            let (_, seq) = row?.0.value();
            event_by_seq(self.tables, seq)?;
        }
        Ok(())
    }
}
