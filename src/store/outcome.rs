//! What use cases of a store take and answer.

use std::collections::BTreeSet;

use crate::domain::event::{Attempt, DeadReason, Event, EventDetail};
use crate::domain::funnel::Skipped;
use crate::domain::ids::{DatasetId, LeadId};
use crate::domain::intake::Refusal;
use crate::domain::lead::Lead;
use crate::domain::matching::MatchedBy;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::store::Hold;

/// What one webhook delivery brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// The leads.
    pub leads: Vec<Lead>,
    /// The pieces that could not be read.
    pub quarantined: Vec<Quarantined>,
}

impl Intake {
    /// How many leads and pieces it has.
    pub(in crate::store) fn weight(&self) -> usize {
        self.leads.len() + self.quarantined.len()
    }
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
    /// Why events that had awaited their lead turned out to be dead letters.
    pub dead: Vec<DeadReason>,
}

/// What became of one stage update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// Stored as this event.
    Accepted(Judged),
    /// Reported before; this is the event of then.
    Known(Judged),
    /// Not stored.
    Refused(Refusal),
}

/// An event that a stage update became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The event.
    pub detail: EventDetail,
    /// What its lead was found by; none while that is not known.
    pub matched_by: Option<MatchedBy>,
    /// The lead that had the CRM's own id of the report until now.
    pub previous_lead_id: Option<LeadId>,
    /// The stages of the funnel that it skips.
    pub skipped: Skipped,
}

/// What became of a wish to link a CRM's own id with a lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Linking {
    /// They are linked.
    Done(Linked),
    /// The lead was erased, and nothing is kept of it.
    Erased,
}

/// What came of knowing more of a lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Linked {
    /// The lead that the CRM's id was linked with before.
    pub before: Option<LeadId>,
    /// Whether the lead is known.
    pub is_known: bool,
    /// Whose queues grew.
    pub enqueued: Enqueued,
    /// Why events that had awaited their lead turned out to be dead letters.
    pub dead: Vec<DeadReason>,
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
    /// The right to send them; `None` if another instance has it, and then there are none.
    pub hold: Option<Hold>,
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
    /// The right with which it was sent.
    pub hold: Hold,
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
