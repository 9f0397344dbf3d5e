//! The rows of the tables that are about leads, as data: a part of the database, read for some
//! leads, and what is to be different in it.
//!
//! The use cases work on the maps of [`State`]. These rows are the same in the form of the tables;
//! what a use case changed is the difference between the rows before and after it.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::event::{AttemptLog, Event, Standing, short_digest};
use crate::domain::ids::{DatasetId, LeadId};
use crate::domain::matching::CrmId;
use crate::domain::stage::SourceName;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::store::memory::{Row, State};
use crate::store::records::{
    decode_attempt, decode_customer, decode_event, decode_lead, decode_quarantined, encode_attempt,
    encode_customer, encode_event, encode_lead, encode_quarantined, read_reason, reason_number,
};
use crate::store::{QueueEntry, StoreError};

/// An integer column; ids of our own are the negative ones.
pub(super) type Int = i64;

/// The place of an event in the outbox: dataset or 0, event time, whether it was reported, number.
pub(super) type Place = (Int, Int, bool, Int);

/// Lead and number of an event.
pub(super) type EventKey = (Int, Int);

/// A row of `leads`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeadRow {
    pub(super) seq: Int,
    pub(super) received_at_ms: Int,
    pub(super) record: Vec<u8>,
}

/// A row of `idempotency`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyRow {
    pub(super) lead_id: Int,
    pub(super) seq: Int,
    pub(super) fingerprint: Vec<u8>,
}

/// A row of `quarantine`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QuarantineRow {
    pub(super) seq: Int,
    pub(super) received_at_ms: Int,
    pub(super) record: Vec<u8>,
}

/// Rows by their keys, a map for each table.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    pub(super) leads: BTreeMap<Int, LeadRow>,
    pub(super) events: BTreeMap<EventKey, Vec<u8>>,
    /// The lead.
    pub(super) outbox: BTreeMap<Place, Int>,
    /// Event time and tolerance.
    pub(super) awaiting: BTreeMap<EventKey, (Int, Int)>,
    /// Reason and milliseconds.
    pub(super) dead: BTreeMap<EventKey, (i16, Int)>,
    /// The latest of each event: whether it delivered it, and the record.
    pub(super) attempts: BTreeMap<(Int, Int, Int), (bool, Vec<u8>)>,
    pub(super) erased: BTreeMap<Int, Int>,
    pub(super) crm_ids: BTreeMap<(String, String), Int>,
    pub(super) customers: BTreeMap<Int, Vec<u8>>,
    pub(super) found_leads: BTreeMap<Int, Int>,
    pub(super) keys: BTreeMap<Vec<u8>, KeyRow>,
    pub(super) quarantine: BTreeMap<Vec<u8>, QuarantineRow>,
}

/// The number of a lead in a column.
pub(super) fn lead_column(lead_id: LeadId) -> Int {
    lead_id.get().cast_signed()
}

/// The lead of a number in a column.
pub(super) fn read_lead_id(column: Int) -> Result<LeadId, StoreError> {
    LeadId::from_known(column.cast_unsigned())
        .ok_or_else(|| StoreError::Corrupt("a lead id is impossible".into()))
}

/// The number of a dataset in a column; 0 for none.
pub(super) fn dataset_column(dataset_id: Option<DatasetId>) -> Int {
    dataset_id.map_or(0, DatasetId::get).cast_signed()
}

/// The dataset of a number in a column.
pub(super) fn read_dataset(column: Int) -> Option<DatasetId> {
    DatasetId::from_u64(column.cast_unsigned())
}

fn digest(bytes: &[u8]) -> Result<[u8; 16], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Corrupt("a digest is of another length".into()))
}

impl Rows {
    /// Leaves out idempotency keys of events that are not here, so that they stay as they are.
    pub(super) fn leave_out_keys_of_others(&mut self) {
        let reported = self.events.keys().map(|(_, seq)| *seq);
        let here: BTreeSet<Int> =
            reported.chain(self.leads.values().map(|lead| lead.seq)).collect();
        self.keys.retain(|_, key| here.contains(&key.seq));
    }

    /// What the rows say, as the use cases see it.
    pub(super) fn to_state(&self) -> Result<State, StoreError> {
        let mut state = State::default();
        let mut queued = BTreeMap::new();
        for (place, lead_id) in &self.outbox {
            let (dataset_id, entry) = read_place(*place);
            state.queues.insert((dataset_id, entry), read_lead_id(*lead_id)?);
            queued.insert(entry.seq, dataset_id);
        }
        for row in self.leads.values() {
            let (seq, lead) = (row.seq.cast_unsigned(), decode_lead(&row.record)?);
            if let Some(event) = lead.raw_event() {
                state.events.insert(seq, self.event_row(event, seq, true, &queued)?);
            }
            state.leads.insert(seq, lead);
        }
        for ((_, seq), record) in &self.events {
            let seq = seq.cast_unsigned();
            let row = self.event_row(decode_event(record)?, seq, false, &queued)?;
            state.events.insert(seq, row);
        }
        for (lead_id, at_ms) in &self.erased {
            state.erased.insert(read_lead_id(*lead_id)?, Timestamp::from_millis(*at_ms));
        }
        for (lead_id, record) in &self.customers {
            state.customers.insert(read_lead_id(*lead_id)?, decode_customer(record)?);
        }
        for (own, lead_id) in &self.found_leads {
            state.found_leads.insert(read_lead_id(*own)?, read_lead_id(*lead_id)?);
        }
        for ((crm_id, source), lead_id) in &self.crm_ids {
            let corrupt = |_| StoreError::Corrupt("a link's name is impossible".into());
            let crm_id = CrmId::parse(crm_id).map_err(corrupt)?;
            let source = SourceName::parse(source).map_err(corrupt)?;
            state.crm_ids.insert((crm_id, source), read_lead_id(*lead_id)?);
        }
        for (key, row) in &self.keys {
            let seq = row.seq.cast_unsigned();
            // A key ends with its event.
            if state.events.contains_key(&seq) {
                state.keys.insert(digest(key)?, (seq, digest(&row.fingerprint)?));
            }
        }
        for row in self.quarantine.values() {
            state.quarantine.insert(row.seq.cast_unsigned(), decode_quarantined(&row.record)?);
        }
        Ok(state)
    }

    /// An event with what the other tables say of it.
    fn event_row(
        &self,
        event: Event,
        seq: u64,
        raw: bool,
        queued: &BTreeMap<u64, Option<DatasetId>>,
    ) -> Result<Row, StoreError> {
        let (lead, number) = (lead_column(event.lead_id), seq.cast_signed());
        let (mut attempts, mut is_delivered) = (AttemptLog::default(), false);
        let of_event = (lead, number, Int::MIN)..=(lead, number, Int::MAX);
        for ((.., count), (delivered, record)) in self.attempts.range(of_event) {
            attempts.count = usize::try_from(*count).unwrap_or_default();
            attempts.latest.push(decode_attempt(record)?);
            is_delivered |= delivered;
        }
        let awaiting = self.awaiting.get(&(lead, number));
        let standing = if let Some(dataset_id) = queued.get(&seq) {
            Standing::Queued(*dataset_id)
        } else if awaiting.is_some() {
            Standing::AwaitingLead
        } else if let Some((reason, at_ms)) = self.dead.get(&(lead, number)) {
            let reason = read_reason(u8::try_from(*reason).unwrap_or_default())?;
            Standing::Dead { reason, at: Timestamp::from_millis(*at_ms) }
        } else if is_delivered {
            Standing::Delivered
        } else {
            return Err(StoreError::Corrupt(format!("event {seq} stands nowhere")));
        };
        let tolerance_s =
            awaiting.map_or(0, |(_, tolerance)| u32::try_from(*tolerance).unwrap_or_default());
        Ok(Row { event, standing, attempts, raw, tolerance_s })
    }

    /// The rows that say what a state says, but for alarms.
    pub(super) fn of_state(state: &State) -> Result<Self, StoreError> {
        let mut rows = Self::default();
        for (seq, lead) in state.leads.all() {
            let (seq, received_at_ms) = (seq.cast_signed(), lead.received_at.as_millis());
            let row = LeadRow { seq, received_at_ms, record: encode_lead(lead)? };
            rows.leads.insert(lead_column(lead.reported.lead_id), row);
        }
        for (seq, row) in state.events.all() {
            rows.add_event(*seq, row)?;
        }
        for ((dataset_id, entry), lead_id) in state.queues.all() {
            rows.outbox.insert(place(*dataset_id, *entry), lead_column(*lead_id));
        }
        for (lead_id, at) in &state.erased {
            rows.erased.insert(lead_column(*lead_id), at.as_millis());
        }
        for (lead_id, customer) in state.customers.all() {
            rows.customers.insert(lead_column(*lead_id), encode_customer(customer)?);
        }
        for (own, lead_id) in &state.found_leads {
            rows.found_leads.insert(lead_column(*own), lead_column(*lead_id));
        }
        for ((crm_id, source), lead_id) in &state.crm_ids {
            let key = (crm_id.to_string(), source.to_string());
            rows.crm_ids.insert(key, lead_column(*lead_id));
        }
        for (key, (seq, fingerprint)) in &state.keys {
            let lead_id = lead_column(state.events[seq].event.lead_id);
            let (seq, fingerprint) = (seq.cast_signed(), fingerprint.to_vec());
            rows.keys.insert(key.to_vec(), KeyRow { lead_id, seq, fingerprint });
        }
        for (seq, piece) in &state.quarantine {
            let (seq, received_at_ms) = (seq.cast_signed(), piece.received_at.as_millis());
            let row = QuarantineRow { seq, received_at_ms, record: encode_quarantined(piece)? };
            rows.quarantine.insert(short_digest(&[&piece.payload]).to_vec(), row);
        }
        Ok(rows)
    }

    fn add_event(&mut self, seq: u64, row: &Row) -> Result<(), StoreError> {
        let Row { event, standing, attempts, raw, tolerance_s } = row;
        let (lead, seq) = (lead_column(event.lead_id), seq.cast_signed());
        if !raw {
            self.events.insert((lead, seq), encode_event(event)?);
        }
        match standing {
            Standing::AwaitingLead => {
                let times = (event.event_time.get(), Int::from(*tolerance_s));
                self.awaiting.insert((lead, seq), times);
            }
            Standing::Dead { reason, at } => {
                let reason = i16::from(reason_number(*reason)?);
                self.dead.insert((lead, seq), (reason, at.as_millis()));
            }
            Standing::Queued(_) | Standing::Delivered => {}
        }
        let first = attempts.count - attempts.latest.len() + 1;
        for (number, attempt) in (first..).zip(&attempts.latest) {
            let delivered = *standing == Standing::Delivered && number == attempts.count;
            let number = Int::try_from(number).unwrap_or(Int::MAX);
            let row = (delivered, encode_attempt(attempt)?);
            self.attempts.insert((lead, seq, number), row);
        }
        Ok(())
    }
}

/// The place of an event in the outbox.
fn place(dataset_id: Option<DatasetId>, entry: QueueEntry) -> Place {
    let QueueEntry { event_time, reported, seq } = entry;
    (dataset_column(dataset_id), event_time.get(), reported, seq.cast_signed())
}

/// The dataset and entry of a place.
fn read_place((dataset, event_time, reported, seq): Place) -> (Option<DatasetId>, QueueEntry) {
    let event_time = UnixSeconds::new(event_time);
    (read_dataset(dataset), QueueEntry { event_time, reported, seq: seq.cast_unsigned() })
}

/// What is to be written so that a table is as after, and not as before.
#[derive(Debug)]
pub(super) struct Difference<K, V> {
    pub(super) put: Vec<(K, V)>,
    pub(super) gone: Vec<K>,
}

impl<K: Ord + Clone, V: PartialEq> Difference<K, V> {
    /// The difference, in the order of the keys, so that two who write do it in the same order.
    pub(super) fn between(before: &BTreeMap<K, V>, after: BTreeMap<K, V>) -> Self {
        let gone = before.keys().filter(|key| !after.contains_key(key)).cloned().collect();
        let put = after.into_iter().filter(|(key, value)| before.get(key) != Some(value)).collect();
        Self { put, gone }
    }
}
