//! The store contract: a dozen use cases, each one transaction in any implementation.
//!
//! A method that writes returns only when what it says is durable. The methods are use cases and
//! not access to tables, so an event can't be stored without its place in a queue, or a delivery
//! without its attempt. Time and configuration are arguments. All implementations pass
//! the suite in `conformance`; the rules they follow are in [`crate::domain::intake`].
//!
//! A store does not send anything and does not wake anybody: what it put into queues it says in
//! [`Enqueued`], and the caller passes that on.

mod backup;
mod error;
mod figures;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod memory;
pub mod query;
pub mod redb;

#[cfg(test)]
mod conformance;

use std::collections::BTreeSet;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use crate::store::backup::{BackedUp, StoreCopy};
pub use crate::store::error::StoreError;
pub use crate::store::figures::{NearDeadline, Stats, Stranded};

use crate::domain::alarm::{Alarm, AlarmKey, Alarms, Cause, Kept};
use crate::domain::event::{
    Attempt, DeadReason, Event, EventDetail, LeadDetail, LeadSummary, StageUpdate,
};
use crate::domain::ids::{DatasetId, EventId, LeadId};
use crate::domain::intake::Refusal;
use crate::domain::lead::Lead;
use crate::domain::routing::Routing;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::store::query::{DeadLetters, EventFilter, LeadFilter, Page, PageRequest};

/// What the rest of the program needs of a store.
#[async_trait]
pub trait Store: Send + Sync {
    /// Stores what one webhook delivery brought: new leads with their raw-lead events and queue
    /// entries, and what could not be read, unless that was kept before. Events that awaited one of
    /// the leads are judged and queued behind its raw-lead event. A lead that is known already
    /// stays as it is.
    async fn ingest(&self, intake: Intake, now: Timestamp) -> Result<Ingested, StoreError>;

    /// Judges and stores stage updates, each on its own, in the order given. A lead that has no
    /// dataset gets the one that is configured for it by now, for its held events too.
    async fn record_stage_updates(
        &self,
        updates: Vec<StageUpdate>,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Recorded, StoreError>;

    /// The next events to send to a dataset, at most `limit`, those closest to their seven days
    /// first, leaving out the leads that are kept back.
    async fn next_batch(
        &self,
        dataset_id: DatasetId,
        now: Timestamp,
        limit: usize,
        kept_back: &BTreeSet<LeadId>,
    ) -> Result<Batch, StoreError>;

    /// Those of these places in the queue of a dataset that still hold their event: it was not
    /// erased, moved or settled since they were read.
    async fn still_queued(
        &self,
        dataset_id: DatasetId,
        entries: BTreeSet<QueueEntry>,
    ) -> Result<BTreeSet<QueueEntry>, StoreError>;

    /// Records how a batch ended: the attempt, what was delivered, what failed and stays queued,
    /// and what is dead. An entry that is settled already stays as it is.
    async fn settle(&self, settlement: Settlement) -> Result<(), StoreError>;

    /// Puts a dead letter back into its queue, with the same event id, if it can still arrive in
    /// time.
    ///
    /// A lead that has no dataset, or one that is not configured any more, gets the one that is
    /// configured for it by now.
    async fn requeue(
        &self,
        event_id: EventId,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Requeued, StoreError>;

    /// Does the same to many, in one transaction. A dry run changes nothing and tells what would
    /// become of them.
    async fn requeue_many(
        &self,
        letters: DeadLetters,
        dry_run: bool,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<RequeuedMany, StoreError>;

    /// Gives leads that hold events for want of a dataset the one that is configured for them by
    /// now, and moves these events into its queue. Events in the queue of a dataset that is not
    /// configured any more are held, or moved likewise, since nobody would send them. Answers how
    /// many events got a dataset.
    async fn route_held(&self, routing: &Routing) -> Result<u64, StoreError>;

    /// Makes dead letters of events that no worker looks after and that are past their time: those
    /// that await a lead, and those that are held for want of a dataset.
    async fn expire_stranded(&self, now: Timestamp) -> Result<Stranded, StoreError>;

    /// Erases a lead: nothing of it is left but its id and when it was erased, so that a replay
    /// does not bring it back; what was queued for it is not sent any more. A lead that was erased
    /// before stays so. `None` if nothing is known of the lead.
    ///
    /// An event of the lead that is on its way to Meta at this moment may still arrive.
    async fn erase_lead(
        &self,
        lead_id: LeadId,
        now: Timestamp,
    ) -> Result<Option<Erased>, StoreError>;

    /// Removes leads of which nothing was heard since `before` and of which no event is still to be
    /// sent, with their events; dead letters of leads that never came, and what is in quarantine.
    /// One call looks at a bounded number of leads, from 0 or from where the last call says to go
    /// on.
    async fn remove_old(&self, before: Timestamp, from: u64) -> Result<Removed, StoreError>;

    /// A lead with its timeline, each event with its last attempt.
    async fn find_lead(&self, lead_id: LeadId) -> Result<Option<LeadDetail>, StoreError>;

    /// An event with its latest attempts.
    async fn find_event(&self, event_id: EventId) -> Result<Option<EventDetail>, StoreError>;

    /// Leads that pass the filter, newest first.
    async fn list_leads(
        &self,
        filter: LeadFilter,
        page: PageRequest,
        now: Timestamp,
    ) -> Result<Page<LeadSummary>, StoreError>;

    /// Events that pass the filter, newest first, each with its last attempt.
    async fn list_events(
        &self,
        filter: EventFilter,
        page: PageRequest,
        now: Timestamp,
    ) -> Result<Page<EventDetail>, StoreError>;

    /// What webhooks brought and could not be read, newest first.
    async fn list_quarantine(&self, page: PageRequest) -> Result<Page<Quarantined>, StoreError>;

    /// The digests of the API keys that were made and not configured.
    async fn api_keys(&self) -> Result<Vec<ApiKeyDigest>, StoreError>;

    /// Remembers the digest of an API key.
    async fn add_api_key(&self, digest: ApiKeyDigest) -> Result<(), StoreError>;

    /// Figures about the whole store.
    async fn stats(&self) -> Result<Stats, StoreError>;

    /// For each dataset, and for none: the queued events dated before this second, if there are
    /// any.
    async fn near_deadline(&self, before: UnixSeconds) -> Result<Vec<NearDeadline>, StoreError>;

    /// Keeps alarms of these kinds from now on, also after it was opened again, and forgets those
    /// of others, and conditions that do not count as told; a new store keeps none. Dead letters
    /// and quarantine raise their alarm in the transaction that makes them.
    async fn keep_alarms(&self, kept: Kept) -> Result<(), StoreError>;

    /// Adds a cause to the message about its subject that gathers, or begins one, if the kind is
    /// kept and there is room. A condition that begins or ends is remembered; what begins one that
    /// lasts already, or ends one that does not, changes nothing.
    async fn raise_alarm(&self, cause: Cause, now: Timestamp) -> Result<(), StoreError>;

    /// The messages that wait, and the conditions that last.
    async fn alarms(&self) -> Result<Alarms, StoreError>;

    /// Notes, before it is sent, that a message is tried, and when it is to be tried again; answers
    /// it as it is sent, from now on the same at each try. `None` if it does not wait any more.
    async fn begin_alarm_try(
        &self,
        key: &AlarmKey,
        next_try_at: Timestamp,
    ) -> Result<Option<Alarm>, StoreError>;

    /// Forgets a message, because it arrived or was given up.
    async fn end_alarm(&self, key: &AlarmKey) -> Result<(), StoreError>;

    /// Makes something empty durable, to see whether that works.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Copies the whole store as it is at one moment, with all that was answered before the call,
    /// while writes go on, and proves the copy by opening it. It ends early when it is stopped, or
    /// when the future is dropped, which a client that hangs up does not cause.
    async fn back_up(
        &self,
        now: Timestamp,
        stop: &CancellationToken,
    ) -> Result<BackedUp, StoreError>;
}

/// The SHA-256 of an API key.
pub type ApiKeyDigest = [u8; 32];

/// What one webhook delivery brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// The leads.
    pub leads: Vec<Lead>,
    /// The pieces that could not be read.
    pub quarantined: Vec<Quarantined>,
}

/// A signed piece of a webhook that could not be read, as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// When it came.
    pub received_at: Timestamp,
    /// Why it could not be read.
    pub reason: String,
    /// The piece itself.
    pub payload: Vec<u8>,
}

/// What became of a delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    /// For each lead of the intake, in order.
    pub outcomes: Vec<LeadOutcome>,
    /// Whose queues grew.
    pub enqueued: Enqueued,
    /// Why events that had awaited one of the leads turned out to be dead letters.
    pub dead: Vec<DeadReason>,
}

/// What became of one lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeadOutcome {
    /// Stored.
    New,
    /// Known already, and reported alike.
    Duplicate,
    /// Known already, and reported differently; the first report stands.
    DifferingDuplicate,
    /// Erased before, and not stored again.
    Erased,
}

/// The datasets whose queues grew; to be handed to whoever wakes their workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "the workers of these datasets are to be woken"]
pub struct Enqueued(pub BTreeSet<DatasetId>);

/// What became of stage updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// For each update, in order.
    pub outcomes: Vec<UpdateOutcome>,
    /// Whose queues grew.
    pub enqueued: Enqueued,
}

/// What became of one stage update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// Stored as this event.
    Accepted(EventDetail),
    /// Reported before; this is the event of then.
    Known(EventDetail),
    /// Not stored.
    Refused(Refusal),
}

/// The place of an event in a queue; what is in it is the store's own affair.
///
/// A queue is ordered by it: what is closest to its seven days goes first, and the events of a lead
/// go in the order in which they happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueEntry {
    /// The event's time, from which its seven days count.
    pub(in crate::store) event_time: UnixSeconds,
    /// False for the raw-lead event, which goes before a stage of the same second.
    pub(in crate::store) reported: bool,
    /// Which event; of the same second, the one that was stored first goes first.
    pub(in crate::store) seq: u64,
}

/// An event that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedEvent {
    /// Its place.
    pub entry: QueueEntry,
    /// The event.
    pub event: Event,
}

/// The next events of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order of the queue.
    pub events: Vec<QueuedEvent>,
    /// When the next event falls due that is not due yet.
    pub next_due: Option<UnixSeconds>,
}

/// How a batch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Whose queue it was.
    pub dataset_id: DatasetId,
    /// The request, if one was made.
    pub attempt: Option<Attempt>,
    /// Accepted by Meta in this attempt; without an attempt they stay queued.
    pub delivered: Vec<QueueEntry>,
    /// Failed in this attempt; they stay queued.
    pub failed: Vec<QueueEntry>,
    /// Not to be sent any more.
    pub dead: Vec<(QueueEntry, DeadReason)>,
    /// When.
    pub at: Timestamp,
}

/// What became of a wish to send a dead letter after all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requeued {
    /// It is queued again.
    Done(EventDetail, Enqueued),
    /// It was not dead, and nothing changed.
    NotDead(EventDetail),
    /// Its seven days are over, or its time was wrong from the start; it stays dead.
    Hopeless(EventDetail),
    /// There is no such event.
    NotFound,
}

/// What the erasure of a lead took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased {
    /// When.
    pub at: Timestamp,
    /// Events that were known of it; none if it was erased before.
    pub events: u64,
    /// How many of them were still to be sent.
    pub cancelled: u64,
}

/// What was removed for its age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Leads.
    pub leads: u64,
    /// Events.
    pub events: u64,
    /// Pieces of webhooks that could not be read.
    pub quarantined: u64,
    /// Where to go on; `None` when all leads were looked at.
    pub next: Option<u64>,
}

/// What became of a wish to send many dead letters after all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequeuedMany {
    /// How many are queued again.
    pub requeued: u64,
    /// How many stay dead, because they could not arrive in time any more or never could.
    pub hopeless: u64,
    /// How many were not dead, or not any more; nothing changed for them.
    pub not_dead: u64,
    /// How many of those that were named do not exist.
    pub not_found: u64,
    /// Where to go on; `None` when there is nothing left that passes the filter.
    pub next_cursor: Option<u64>,
    /// Whose queues grew.
    pub enqueued: Enqueued,
}
