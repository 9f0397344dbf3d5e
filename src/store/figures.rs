//! Figures about a store: what is in it, what is nearly too old, what was given up.

use crate::domain::ids::DatasetId;
use crate::domain::time::UnixSeconds;

/// How many events were given up that no worker looked after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stranded {
    /// Their lead did not arrive.
    pub awaiting: u64,
    /// No dataset was configured for their Page.
    pub held: u64,
}

/// Queued events of a dataset that will be too old soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NearDeadline {
    /// The dataset; `None` for events that have none yet.
    pub dataset_id: Option<DatasetId>,
    /// How many.
    pub events: u64,
    /// The time of the oldest.
    pub earliest: UnixSeconds,
}

/// Figures about the whole store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Leads.
    pub leads: u64,
    /// Events in queues, due or held.
    pub queued: u64,
    /// Events awaiting their lead.
    pub awaiting: u64,
    /// Dead letters.
    pub dead: u64,
    /// Pieces of webhooks that could not be read.
    pub quarantined: u64,
    /// What CRMs sent and no mapping fits.
    pub unmapped: u64,
    /// For each dataset with a queue, and for none: the time of the event in front.
    pub fronts: Vec<(Option<DatasetId>, UnixSeconds)>,
}

/// How the way to a database is doing; counts are since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatabaseFigures {
    /// Connections that are open.
    pub connections: u64,
    /// Those of them that nobody uses at the moment.
    pub idle: u64,
    /// Statements.
    pub statements: u64,
    /// How long they took together, in microseconds.
    pub statements_us: u64,
    /// Transactions that were done again because another one was in their way.
    pub conflicts: u64,
    /// Transactions that were done again because the connection or the server was lost.
    pub lost: u64,
}
