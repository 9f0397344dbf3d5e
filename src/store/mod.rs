//! The store contract: use cases, each one transaction in any implementation unless it says
//! otherwise.
//!
//! A method that writes returns only when what it says is durable. The methods are use cases and
//! not access to tables, so an event can't be stored without its place in a queue, or a delivery
//! without its attempt. Time and configuration are arguments. All implementations pass
//! the suite in `conformance`; the rules they follow are in [`crate::domain::intake`].
//!
//! A store does not send anything and does not wake anybody: what it put into queues it says in
//! [`Enqueued`], and the caller passes that on.

mod backup;
mod duty;
mod error;
mod figures;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod memory;
mod outcome;
pub mod postgres;
mod purpose;
pub mod query;
pub(crate) mod records;
pub mod redb;
pub mod transfer;
mod unmapped;

#[cfg(test)]
mod conformance;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

pub use crate::store::backup::{BackedUp, StoreCopy};
pub use crate::store::duty::{Duty, Hold};
pub use crate::store::error::StoreError;
pub use crate::store::figures::{DatabaseFigures, NearDeadline, Stats, Stranded};
pub use crate::store::outcome::{
    Batch, Enqueued, Erased, Ingested, Intake, Judged, LeadOutcome, Linked, Linking, Quarantined,
    QueueEntry, QueuedEvent, Recorded, Removed, Requeued, RequeuedMany, Settlement, UpdateOutcome,
};
pub use crate::store::purpose::Purpose;
pub use crate::store::unmapped::{NumberedUnmapped, SetAside, Unmapped};

use crate::domain::alarm::{Alarm, AlarmKey, Alarms, Cause, Kept};
use crate::domain::customer::Customer;
use crate::domain::event::{EventDetail, LeadDetail, LeadSummary, StageUpdate};
use crate::domain::ids::{DatasetId, EventId, FormId, LeadId};
use crate::domain::mark::FormMark;
use crate::domain::matching::CrmId;
use crate::domain::routing::Routing;
use crate::domain::stage::SourceName;
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

    /// Judges stage updates as [`Store::record_stage_updates`] would, each as if it were alone, and
    /// stores nothing.
    async fn judge_stage_updates(
        &self,
        updates: Vec<StageUpdate>,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Vec<UpdateOutcome>, StoreError>;

    /// Links a CRM's own id with a lead, known or not, instead of with another; what was reported
    /// under that id and awaits its lead becomes the lead's.
    async fn link_crm_id(
        &self,
        source: SourceName,
        crm_id: CrmId,
        lead_id: LeadId,
        now: Timestamp,
    ) -> Result<Linking, StoreError>;

    /// Adds to what is known of a lead's person, which goes along with each stage that is reported
    /// from now on, and by which the lead is found. What awaits its lead under the same e-mail
    /// address or phone number becomes the lead's. Nothing is kept of a lead that was erased.
    async fn add_customer(
        &self,
        lead_id: LeadId,
        customer: Customer,
        now: Timestamp,
    ) -> Result<Linked, StoreError>;

    /// The right to a duty, if no other instance has it. Where a store has one instance, that has
    /// every duty.
    async fn hold(&self, _duty: Duty) -> Result<Option<Hold>, StoreError> {
        Ok(Some(Hold::default()))
    }

    /// Whether other instances may share the store, and put something into a queue unheard.
    fn is_shared(&self) -> bool {
        false
    }

    /// Those of these datasets that have something to send by now, whoever put it there.
    async fn due(
        &self,
        datasets: &BTreeSet<DatasetId>,
        now: Timestamp,
    ) -> Result<Enqueued, StoreError> {
        let mut due = Enqueued::default();
        for dataset_id in datasets {
            let batch = self.next_batch(*dataset_id, now, 1, &BTreeSet::new()).await?;
            due.0.extend((!batch.events.is_empty()).then_some(*dataset_id));
        }
        Ok(due)
    }

    /// The next events to send to a dataset, at most `limit`, those closest to their seven days
    /// first, leaving out the leads that are kept back. None where another instance has the duty to
    /// send them.
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
    /// and what is dead. An entry that is settled already stays as it is. Refused if another
    /// instance has taken the duty over since the batch was read.
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
    ///
    /// It may be done in parts, so many leads each; what was left out comes with the next call.
    async fn route_held(&self, routing: &Routing) -> Result<u64, StoreError>;

    /// The leads that events await which can still be sent, by Meta's ids, at most `limit` of those
    /// after the one given. Reports that are filed under an id of our own are not among them.
    async fn awaited_leads(
        &self,
        after: Option<LeadId>,
        limit: usize,
    ) -> Result<Vec<LeadId>, StoreError>;

    /// Makes dead letters of events that no worker looks after and that are past their time: those
    /// that await a lead, and those that are held for want of a dataset.
    ///
    /// It may be done in parts, so many leads each; what was left out comes with the next call.
    async fn expire_stranded(&self, now: Timestamp) -> Result<Stranded, StoreError>;

    /// How far the leads of a form have been read from Meta.
    async fn form_mark(&self, form_id: FormId) -> Result<FormMark, StoreError>;

    /// Remembers how far the leads of a form have been read.
    async fn set_form_mark(&self, form_id: FormId, mark: FormMark) -> Result<(), StoreError>;

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
    ///
    /// It may be done in two parts, the quarantine first; the next call does what was left out.
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

    /// Keeps what CRMs sent and no mapping fits, and says of each what became of it, in order; the
    /// same is kept once, and only so much of each source.
    async fn set_aside(&self, unmapped: Vec<Unmapped>) -> Result<Vec<SetAside>, StoreError>;

    /// What no mapping fits, of one source or of all, newest first.
    async fn list_unmapped(
        &self,
        source: Option<SourceName>,
        page: PageRequest,
    ) -> Result<Page<NumberedUnmapped>, StoreError>;

    /// Forgets something that no mapping fitted, because one does now, or because nobody wants it;
    /// whether it was there.
    async fn end_unmapped(&self, seq: u64) -> Result<bool, StoreError>;

    /// Forgets what came before a moment and no mapping fitted; how much that was of each source.
    async fn remove_unmapped(
        &self,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<BTreeMap<SourceName, u64>, StoreError>;

    /// The digests of the API keys that were made and not configured.
    async fn api_keys(&self) -> Result<Vec<ApiKeyDigest>, StoreError>;

    /// Remembers the digest of an API key.
    async fn add_api_key(&self, digest: ApiKeyDigest) -> Result<(), StoreError>;

    /// Figures about the whole store, which may take a while on a large one.
    async fn stats(&self) -> Result<Stats, StoreError>;

    /// For each dataset with a queue, and for none: the time of the event in front.
    async fn fronts(&self) -> Result<Vec<(Option<DatasetId>, UnixSeconds)>, StoreError> {
        Ok(self.stats().await?.fronts)
    }

    /// For each dataset, and for none: the queued events dated before this second, if there are
    /// any.
    async fn near_deadline(&self, before: UnixSeconds) -> Result<Vec<NearDeadline>, StoreError>;

    /// Keeps alarms of these kinds from now on, also after it was opened again, and forgets those
    /// of others, and conditions that do not count as told; a new store keeps none. Dead letters,
    /// quarantine, and what no mapping fits and is kept or forgotten for its age raise their alarm
    /// in the same transaction.
    async fn keep_alarms(&self, kept: Kept) -> Result<(), StoreError>;

    /// Adds a cause to the message about its subject that gathers, or begins one, if the kind is
    /// kept and there is room. A condition that begins or ends is remembered; what begins one that
    /// lasts already, or ends one that does not, changes nothing.
    ///
    /// Where the answer to a commit may be lost, a cause may then be counted twice.
    async fn raise_alarm(&self, cause: Cause, now: Timestamp) -> Result<(), StoreError>;

    /// The messages that wait, and the conditions that last.
    async fn alarms(&self) -> Result<Alarms, StoreError>;

    /// Notes, before it is sent, that a message is tried, and when it is to be tried again; answers
    /// it as it is sent, from now on the same at each try. `None` if it does not wait any more.
    /// Where the answer to a commit may be lost, a try may then be counted twice.
    async fn begin_alarm_try(
        &self,
        key: &AlarmKey,
        next_try_at: Timestamp,
    ) -> Result<Option<Alarm>, StoreError>;

    /// Forgets a message, because it arrived or was given up.
    async fn end_alarm(&self, key: &AlarmKey) -> Result<(), StoreError>;

    /// How the way to the database is doing; `None` where there is none.
    fn database(&self) -> Option<DatabaseFigures> {
        None
    }

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
