//! The records of a file, for another store.

use std::path::Path;
use std::sync::Arc;

use redb::ReadableDatabase;
use tokio::sync::mpsc;

use crate::domain::event::short_digest;
use crate::limits::EVENT_AGE_MAX_S;
use crate::store::records::{decode_event, decode_lead, decode_quarantined, decode_unmapped};
use crate::store::redb::alarms::KEPT;
use crate::store::redb::base::Base;
use crate::store::redb::layout::purpose_of;
use crate::store::redb::proof::open_file;
use crate::store::redb::read::event_by_seq;
use crate::store::redb::snapshot::Snapshot;
use crate::store::redb::tables::{LAST_SEQ, Tables};
use crate::store::redb::unmapped::digest;
use crate::store::transfer::{Batch, Gathering, Kind, record};
use crate::store::{Purpose, StoreError};

/// A file that records are read from. It stays as it is, and nobody can write to it meanwhile.
pub(in crate::store) struct FileSource {
    base: Arc<Base>,
    pub(in crate::store) purpose: Purpose,
}

impl FileSource {
    /// Opens a file, and checks every page of it.
    pub(in crate::store) fn open(path: &Path) -> Result<Self, StoreError> {
        let base = Arc::new(open_file(path)?);
        let purpose = purpose_of(&base.database().begin_read()?)?;
        let unknown = || StoreError::Unsupported("its purpose is not known here".into());
        Ok(Self { base, purpose: purpose.ok_or_else(unknown)? })
    }

    /// Sends all records.
    pub(in crate::store) async fn send(
        &self,
        batches: mpsc::Sender<Batch>,
    ) -> Result<(), StoreError> {
        let base = self.base.clone();
        let sending = tokio::task::spawn_blocking(move || {
            let reading = Snapshot::of(&base)?.begin();
            let tables = reading.tables();
            for kind in Kind::ALL {
                let mut gathering = Gathering::of(kind, &batches);
                send_kind(&tables, kind, &mut gathering)?;
                gathering.end_blocking()?;
            }
            Ok(())
        });
        sending.await.map_err(|error| StoreError::Unavailable(error.to_string()))?
    }
}

/// Sends a record for each row of a table.
macro_rules! each {
    ($table:expr, $to:expr, |$key:pat_param, $value:pat_param| $record:expr) => {
        for row in $table.all()? {
            let (key, value) = row?;
            let ($key, $value) = (key.value(), value.value());
            $to.send_blocking($record)?;
        }
    };
}

fn send_kind(tables: &Tables<'_>, kind: Kind, to: &mut Gathering) -> Result<(), StoreError> {
    match kind {
        Kind::Leads => each!(tables.leads, to, |seq, bytes| {
            let lead = decode_lead(bytes)?;
            record![lead.reported.lead_id.get(), seq, lead.received_at.as_millis(), bytes]
        }),
        Kind::Events => each!(tables.events, to, |seq, bytes| {
            record![decode_event(bytes)?.lead_id.get(), seq, bytes]
        }),
        Kind::Outbox => {
            each!(tables.outbox, to, |(dataset, event_time, reported, seq), lead_id| {
                record![dataset, event_time, reported, seq, lead_id]
            });
        }
        Kind::Awaiting => send_awaiting(tables, to)?,
        Kind::Dead => each!(tables.dead, to, |seq, (reason, at_ms)| {
            record![event_by_seq(tables, seq)?.lead_id.get(), seq, reason, at_ms]
        }),
        Kind::Attempts => send_attempts(tables, to)?,
        Kind::Erased => each!(tables.erased, to, |lead_id, at_ms| record![lead_id, at_ms]),
        Kind::CrmIds => each!(tables.crm_ids, to, |(crm_id, source), lead_id| {
            record![crm_id, source, lead_id]
        }),
        Kind::FoundLeads => each!(tables.found_leads, to, |own, lead_id| record![own, lead_id]),
        Kind::Customers => {
            each!(tables.customers, to, |lead_id, bytes| record![lead_id, bytes]);
        }
        Kind::Idempotency => each!(tables.idempotency, to, |key, (seq, fingerprint)| {
            record![key, event_by_seq(tables, seq)?.lead_id.get(), seq, fingerprint]
        }),
        Kind::Quarantine
        | Kind::Unmapped
        | Kind::FormMarks
        | Kind::ApiKeys
        | Kind::Alarms
        | Kind::AlarmConditions
        | Kind::Facts => send_rest(tables, kind, to)?,
    }
    Ok(())
}

/// Sends what is about no lead.
fn send_rest(tables: &Tables<'_>, kind: Kind, to: &mut Gathering) -> Result<(), StoreError> {
    match kind {
        Kind::Quarantine => each!(tables.quarantine, to, |seq, bytes| {
            let piece = decode_quarantined(bytes)?;
            let digest = short_digest(&[&piece.payload]);
            record![&digest, seq, piece.received_at.as_millis(), bytes]
        }),
        Kind::Unmapped => each!(tables.unmapped, to, |seq, bytes| {
            let report = decode_unmapped(bytes)?;
            let at_ms = report.received_at.as_millis();
            record![&digest(&report), seq, report.source.as_str(), at_ms, bytes]
        }),
        Kind::FormMarks => {
            each!(tables.form_marks, to, |form_id, bytes| record![form_id, bytes]);
        }
        Kind::ApiKeys => each!(tables.api_keys, to, |digest, ()| record![digest]),
        Kind::Alarms => {
            each!(tables.alarms, to, |(subject, at_ms), bytes| record![subject, at_ms, bytes])
        }
        Kind::AlarmConditions => {
            each!(tables.alarm_conditions, to, |(kind, dataset), since_ms| {
                record![kind, dataset, since_ms]
            });
        }
        _ => {
            for name in [KEPT, LAST_SEQ] {
                let value = tables.meta.get(name)?.map_or(0, |value| value.value());
                if value != 0 {
                    to.send_blocking(record![name, value])?;
                }
            }
        }
    }
    Ok(())
}

/// Sends what waits for its lead. Rows of dead letters stay among those that wait, so that they are
/// found by their lead.
fn send_awaiting(tables: &Tables<'_>, to: &mut Gathering) -> Result<(), StoreError> {
    for row in tables.awaiting.all()? {
        let (key, value) = row?;
        let ((lead_id, seq), (tolerance_s, last_second)) = (key.value(), value.value());
        if tables.dead.get(seq)?.is_none() {
            let event_time = last_second - EVENT_AGE_MAX_S;
            to.send_blocking(record![lead_id, seq, event_time, tolerance_s])?;
        }
    }
    Ok(())
}

/// Sends the attempts of each event; here, those that many events had in common are one row.
fn send_attempts(tables: &Tables<'_>, to: &mut Gathering) -> Result<(), StoreError> {
    for row in tables.leads.all()? {
        let (seq, lead) = row?;
        let lead_id = decode_lead(lead.value())?.reported.lead_id.get();
        send_attempts_of(tables, lead_id, seq.value(), to)?;
    }
    for row in tables.events.all()? {
        let (seq, event) = row?;
        let lead_id = decode_event(event.value())?.lead_id.get();
        send_attempts_of(tables, lead_id, seq.value(), to)?;
    }
    Ok(())
}

fn send_attempts_of(
    tables: &Tables<'_>,
    lead_id: u64,
    seq: u64,
    to: &mut Gathering,
) -> Result<(), StoreError> {
    let mut number = 0_u64;
    let mut send = |attempt: u64, delivered: bool| {
        let missing = || StoreError::Corrupt(format!("attempt {attempt} is missing"));
        let bytes = tables.attempts.get(attempt)?.ok_or_else(missing)?;
        number += 1;
        to.send_blocking(record![lead_id, seq, number, delivered, bytes.value()])
    };
    for row in tables.failures.range((seq, 0)..=(seq, u64::MAX))? {
        send(row?.0.value().1, false)?;
    }
    if let Some(attempt) = tables.delivered.get(seq)? {
        send(attempt.value(), true)?;
    }
    Ok(())
}
