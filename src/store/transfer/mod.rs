//! Everything that a store holds, as records that each kind of store can write and read.
//!
//! What leaves one store is the same stream of records as what comes out of the other one after it
//! was written there; so a copy is proven by counting and hashing both. What a kind of store keeps
//! for its own use only, such as an index, is no record: whoever reads the stream makes it anew.

mod copy;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

pub use crate::store::transfer::copy::{CopyError, Place, Stage, copy};

use crate::limits::{TRANSFER_BATCH_BYTES, TRANSFER_BATCH_RECORDS};
use crate::store::{Purpose, StoreError};

/// What a record is about. The order is that in which records are sent: what others need comes
/// before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Lead id, number, milliseconds, lead.
    Leads,
    /// Lead id, number, event that a CRM reported.
    Events,
    /// Dataset or 0, event time, whether it was reported, number, lead id: what is to be sent.
    Outbox,
    /// Lead id, number, event time, tolerance: what waits for its lead.
    Awaiting,
    /// Lead id, number, reason, milliseconds: dead letters.
    Dead,
    /// Lead id, number, count from 1, whether it delivered the event, attempt.
    Attempts,
    /// Lead id, milliseconds.
    Erased,
    /// CRM's own id, source, lead id.
    CrmIds,
    /// Id of our own, lead id.
    FoundLeads,
    /// Lead id, what is known of the person.
    Customers,
    /// Digest of a key, lead id, number of the event, fingerprint of the report.
    Idempotency,
    /// Digest, number, milliseconds, piece of a webhook.
    Quarantine,
    /// Digest, number, source, milliseconds, what no mapping fits.
    Unmapped,
    /// Form id, mark.
    FormMarks,
    /// Digest of a key.
    ApiKeys,
    /// Subject, milliseconds of its first cause, message.
    Alarms,
    /// Kind, dataset or 0, milliseconds.
    AlarmConditions,
    /// Name, number: `alarms`, which kinds are kept; `seq`, the last number when something was
    /// removed. None is 0.
    Facts,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Self; 18] = [
        Self::Leads,
        Self::Events,
        Self::Outbox,
        Self::Awaiting,
        Self::Dead,
        Self::Attempts,
        Self::Erased,
        Self::CrmIds,
        Self::FoundLeads,
        Self::Customers,
        Self::Idempotency,
        Self::Quarantine,
        Self::Unmapped,
        Self::FormMarks,
        Self::ApiKeys,
        Self::Alarms,
        Self::AlarmConditions,
        Self::Facts,
    ];

    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leads => "leads",
            Self::Events => "events",
            Self::Outbox => "outbox",
            Self::Awaiting => "awaiting",
            Self::Dead => "dead",
            Self::Attempts => "attempts",
            Self::Erased => "erased",
            Self::CrmIds => "crm_ids",
            Self::FoundLeads => "found_leads",
            Self::Customers => "customers",
            Self::Idempotency => "idempotency",
            Self::Quarantine => "quarantine",
            Self::Unmapped => "unmapped",
            Self::FormMarks => "form_marks",
            Self::ApiKeys => "api_keys",
            Self::Alarms => "alarms",
            Self::AlarmConditions => "alarm_conditions",
            Self::Facts => "facts",
        }
    }
}

/// One value of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Value {
    /// A number; ids of 2^63 or more are the negative ones.
    Int(i64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// The values of one record, in the order that its [`Kind`] tells.
pub(in crate::store) type Record = Vec<Value>;

macro_rules! value_from {
    ($($from:ty: $value:ident => $to:expr;)*) => {
        $(impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $to
            }
        })*
    };
}

value_from! {
    i64: number => Self::Int(number);
    u64: number => Self::Int(number.cast_signed());
    u32: number => Self::Int(number.into());
    u8: number => Self::Int(number.into());
    bool: flag => Self::Int(flag.into());
    &str: text => Self::Text(text.to_owned());
    &[u8]: bytes => Self::Bytes(bytes.to_owned());
    &[u8; 16]: digest => Self::Bytes(digest.to_vec());
    &[u8; 32]: digest => Self::Bytes(digest.to_vec());
}

/// Makes a [`Record`].
macro_rules! record {
    ($($value:expr),+ $(,)?) => {
        vec![$($crate::store::transfer::Value::from($value)),+]
    };
}

pub(in crate::store) use record;

impl Value {
    /// The number that it is.
    pub(in crate::store) fn as_int(&self) -> Result<i64, StoreError> {
        if let Self::Int(number) = self { Ok(*number) } else { Err(misshapen()) }
    }

    /// The text that it is.
    pub(in crate::store) fn as_text(&self) -> Result<&str, StoreError> {
        if let Self::Text(text) = self { Ok(text) } else { Err(misshapen()) }
    }

    /// The bytes that it is.
    pub(in crate::store) fn as_bytes(&self) -> Result<&[u8], StoreError> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(misshapen()) }
    }

    /// About as much memory as it takes.
    fn bytes(&self) -> usize {
        let own = match self {
            Self::Int(_) => 0,
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        };
        own + size_of::<Self>()
    }

    /// What tells it from all other values.
    fn hash(&self, digest: &mut Sha256) {
        let (tag, bytes) = match self {
            Self::Int(number) => return digest.update([&[0], &number.to_le_bytes()[..]].concat()),
            Self::Text(text) => (1, text.as_bytes()),
            Self::Bytes(bytes) => (2, bytes.as_slice()),
        };
        digest.update([tag]);
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    }
}

/// Takes the values of a record, one after the other.
pub(in crate::store) struct Values(std::vec::IntoIter<Value>);

impl Values {
    /// Those of a record.
    pub(in crate::store) fn of(record: Record) -> Self {
        Self(record.into_iter())
    }

    /// The next one, a number.
    pub(in crate::store) fn int(&mut self) -> Result<i64, StoreError> {
        let Some(Value::Int(number)) = self.0.next() else { return Err(misshapen()) };
        Ok(number)
    }

    /// The next one, an id or number that is not negative.
    pub(in crate::store) fn id(&mut self) -> Result<u64, StoreError> {
        self.int().map(i64::cast_unsigned)
    }

    /// The next one, a small number.
    pub(in crate::store) fn small<T: TryFrom<i64>>(&mut self) -> Result<T, StoreError> {
        T::try_from(self.int()?).map_err(|_| misshapen())
    }

    /// The next one, a text.
    pub(in crate::store) fn text(&mut self) -> Result<String, StoreError> {
        let Some(Value::Text(text)) = self.0.next() else { return Err(misshapen()) };
        Ok(text)
    }

    /// The next one, bytes.
    pub(in crate::store) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        let Some(Value::Bytes(bytes)) = self.0.next() else { return Err(misshapen()) };
        Ok(bytes)
    }

    /// The next one, bytes of a length.
    pub(in crate::store) fn digest<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.bytes()?.try_into().map_err(|_| misshapen())
    }
}

fn misshapen() -> StoreError {
    StoreError::Corrupt("a record has not the shape of its kind".into())
}

/// Some records of a kind.
#[derive(Clone, Debug)]
pub(in crate::store) struct Batch {
    pub(in crate::store) kind: Kind,
    pub(in crate::store) records: Vec<Record>,
}

/// Gathers the records of a kind into batches.
pub(in crate::store) struct Gathering {
    batch: Batch,
    bytes: usize,
    batches: mpsc::Sender<Batch>,
}

impl Gathering {
    /// Sends batches of a kind.
    pub(in crate::store) fn of(kind: Kind, batches: &mpsc::Sender<Batch>) -> Self {
        let batch = Batch { kind, records: Vec::new() };
        Self { batch, bytes: 0, batches: batches.clone() }
    }

    /// Adds a record; answers a batch that is full.
    fn add(&mut self, record: Record) -> Option<Batch> {
        self.bytes += record.iter().map(Value::bytes).sum::<usize>();
        self.batch.records.push(record);
        let is_full = self.batch.records.len() >= TRANSFER_BATCH_RECORDS
            || self.bytes >= TRANSFER_BATCH_BYTES;
        is_full.then(|| self.take())
    }

    fn take(&mut self) -> Batch {
        self.bytes = 0;
        let records = std::mem::take(&mut self.batch.records);
        Batch { records, kind: self.batch.kind }
    }

    /// Adds a record, and waits on a thread of its own until there is room for it.
    pub(in crate::store) fn send_blocking(&mut self, record: Record) -> Result<(), StoreError> {
        let Some(full) = self.add(record) else { return Ok(()) };
        self.batches.blocking_send(full).map_err(|_| not_wanted())
    }

    /// Sends what is left, likewise.
    pub(in crate::store) fn end_blocking(mut self) -> Result<(), StoreError> {
        let rest = self.take();
        self.batches.blocking_send(rest).map_err(|_| not_wanted())
    }

    /// Adds a record, and waits until there is room for it.
    pub(in crate::store) async fn send(&mut self, record: Record) -> Result<(), StoreError> {
        let Some(full) = self.add(record) else { return Ok(()) };
        self.batches.send(full).await.map_err(|_| not_wanted())
    }

    /// Sends what is left.
    pub(in crate::store) async fn end(mut self) -> Result<(), StoreError> {
        let rest = self.take();
        self.batches.send(rest).await.map_err(|_| not_wanted())
    }
}

/// Whoever took the records has failed, and tells why.
fn not_wanted() -> StoreError {
    StoreError::Unavailable("the copying has ended".into())
}

/// How many records there are of a kind, and a digest of them all in whatever order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub records: u64,
    /// The sum of the records' SHA-256, in lanes of 64 bits.
    digest: [u64; 4],
}

impl Tally {
    fn add(&mut self, record: &Record) {
        let mut digest = Sha256::new();
        for value in record {
            value.hash(&mut digest);
        }
        let digest: [u8; 32] = digest.finalize().into();
        for (sum, lane) in self.digest.iter_mut().zip(digest.as_chunks().0) {
            *sum = sum.wrapping_add(u64::from_le_bytes(*lane));
        }
        self.records += 1;
    }

    /// The digest as it is shown.
    pub fn digest(&self) -> String {
        format!("{:016x}", self.digest[0])
    }
}

/// What a store holds, kind by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// What it is for.
    pub purpose: Purpose,
    /// Its records.
    pub tallies: BTreeMap<Kind, Tally>,
}

impl Inventory {
    /// That of a store in which nothing was found yet.
    fn new(purpose: Purpose) -> Self {
        Self { purpose, tallies: Kind::ALL.map(|kind| (kind, Tally::default())).into() }
    }

    fn add(&mut self, batch: &Batch) {
        let tally = self.tallies.entry(batch.kind).or_default();
        for record in &batch.records {
            tally.add(record);
        }
    }

    /// How many records there are.
    pub fn records(&self) -> u64 {
        self.tallies.values().map(|tally| tally.records).sum()
    }

    /// A number by which the same contents are known again.
    pub(in crate::store) fn fingerprint(&self) -> u64 {
        let mut digest = Sha256::new();
        digest.update(self.purpose.number().to_le_bytes());
        for tally in self.tallies.values() {
            digest.update(tally.records.to_le_bytes());
            digest.update(tally.digest.map(u64::to_le_bytes).concat());
        }
        let digest: [u8; 32] = digest.finalize().into();
        u64::from_le_bytes(digest.as_chunks().0[0])
    }

    /// The kinds of which another store has other records.
    fn differences(&self, other: &Self) -> Vec<&'static str> {
        let other = |kind: &Kind| other.tallies.get(kind);
        let differing = self.tallies.iter().filter(|(kind, tally)| other(kind) != Some(*tally));
        differing.map(|(kind, _)| kind.name()).collect()
    }
}
