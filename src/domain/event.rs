//! An event: a lead reached a stage; and what has become of telling Meta so.
//!
//! ```text
//!                    lead arrives, judged again
//!   awaiting_lead ───────────────┬──────────────────────────► dead
//!         │                      ▼                              ▲ │
//!         │       held ─────► pending ──► delivered    expired, │ │ re-queued
//!         │   due, dataset       │                     refused  │ ▼
//!         └──────────────────────┴──────────────────────────────┴─►
//! ```
//!
//! `held` and `pending` are one stored state, *queued*: an event is held while its time has not
//! come or no dataset is configured, and becomes pending by the mere passing of time.

pub use crate::domain::attempt::{Attempt, AttemptLog};
use crate::domain::customer::Customer;
use crate::domain::ids::{DatasetId, EventId, LeadId};
use crate::domain::lead::Lead;
use crate::domain::matching::CrmId;
use crate::domain::stage::{SourceName, StageName};
pub use crate::domain::stage_update::{
    KeyDigest, SourcePolicy, StageUpdate, order_to_take, short_digest,
};
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::{EVENT_AGE_MAX_S, SEND_MARGIN_S};

/// One event, raw lead or CRM stage, as it was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "`event_time` is Meta's word")]
pub struct Event {
    /// The lead it is about.
    pub lead_id: LeadId,
    /// The lead it was reported of; another than that only if it was of our own making, and the
    /// lead was found later.
    pub reported_lead: LeadId,
    /// The only dataset whose leads its source means, if it has one.
    pub source_dataset: Option<DatasetId>,
    /// The stage that was reached.
    pub stage: StageName,
    /// When, as it was reported.
    pub reported_time: UnixSeconds,
    /// When, as Meta is told; differs from the report only if that was lifted over the lead's
    /// creation within the source's clock tolerance.
    pub event_time: UnixSeconds,
    /// Who reported it.
    pub source: SourceName,
    /// When it was reported to us.
    pub received_at: Timestamp,
    /// Customer parameters to send along.
    pub customer: Customer,
    /// Further `custom_data` to send along: the text of a JSON object.
    pub custom_data: Option<Box<str>>,
}

impl Event {
    /// The event's id, derived and never stored.
    pub fn id(&self) -> EventId {
        EventId::derive(self.reported_lead, &self.stage, self.reported_time)
    }

    /// Whether the time was lifted.
    pub fn is_adjusted(&self) -> bool {
        self.event_time != self.reported_time
    }

    /// The last moment at which Meta accepts it (META 3.4).
    pub fn deliver_before(&self) -> UnixSeconds {
        self.event_time + EVENT_AGE_MAX_S
    }

    /// Whether it is too late to send it: its seven days are over, or so nearly that the request
    /// could arrive after them and take its batch down.
    pub fn is_past_sending(&self, now: Timestamp) -> bool {
        now.seconds() >= self.deliver_before() + -SEND_MARGIN_S
    }

    /// Whether it can be sent after all, though it is dead for this reason.
    pub fn has_hope(&self, reason: DeadReason, now: Timestamp) -> bool {
        !reason.is_final() && !self.is_past_sending(now)
    }

    /// Whether it may be about a lead that has its e-mail address or phone number: if that was
    /// created before it, and is of the dataset that its source means.
    pub fn may_mean(&self, lead: &Lead, tolerance_s: u32) -> bool {
        let latest_time = self.reported_time + i64::from(tolerance_s);
        lead.created_time().is_none_or(|created_time| latest_time > created_time)
            && lead.may_be_meant(self.source_dataset)
    }

    /// Whether a report of `stage` at `time` says the same as this event does. A stage that was
    /// skipped and that we reported ourselves has no time of its own: Meta would count it twice.
    pub fn says(&self, stage: &StageName, time: UnixSeconds) -> bool {
        let is_of_the_time = self.reported_time == time || self.event_time == time;
        self.stage == *stage && (is_of_the_time || self.source == SourceName::leadloop())
    }
}

/// Where an event stands, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its lead is not known yet.
    AwaitingLead,
    /// In the queue of a dataset, or of none yet.
    Queued(Option<DatasetId>),
    /// Meta said that it received it, in the last attempt.
    Delivered,
    /// It will not be sent.
    Dead {
        /// Why.
        reason: DeadReason,
        /// Since when.
        at: Timestamp,
    },
}

/// Why an event will not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// Its seven days passed before it could be delivered.
    Expired,
    /// Its lead did not arrive within seven days.
    LeadNotFound,
    /// Its lead arrived, and was created at or after the reported time.
    EventTimeNotAfterLead,
    /// Its lead arrived and came from Meta's *Test* button.
    LeadIsTest,
    /// Its lead arrived, and by its time this event is the same as another of the lead's.
    Duplicate,
    /// Meta refused it for what it says, and would again.
    RefusedByMeta,
}

impl DeadReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Expired,
        Self::LeadNotFound,
        Self::EventTimeNotAfterLead,
        Self::LeadIsTest,
        Self::Duplicate,
        Self::RefusedByMeta,
    ];

    /// The reason's stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::LeadNotFound => "lead_not_found",
            Self::EventTimeNotAfterLead => "event_time_not_after_lead",
            Self::LeadIsTest => "lead_is_test",
            Self::Duplicate => "duplicate",
            Self::RefusedByMeta => "refused_by_meta",
        }
    }

    /// Finds a reason by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// Whether sending the event after all could never succeed. One that expired may have done so
    /// by a clock that was wrong; its time is judged again.
    const fn is_final(self) -> bool {
        !matches!(self, Self::RefusedByMeta | Self::Expired)
    }
}

/// The state of an event as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventState {
    /// Waiting for its lead to arrive.
    AwaitingLead,
    /// Not due yet, or no dataset yet.
    Held,
    /// Queued, being sent, or between tries.
    Pending,
    /// Accepted by Meta.
    Delivered,
    /// A dead letter.
    Dead,
}

impl EventState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::AwaitingLead, Self::Held, Self::Pending, Self::Delivered, Self::Dead];

    /// What people see of an event that stands so, at a time.
    pub fn of(standing: &Standing, event_time: UnixSeconds, now: Timestamp) -> Self {
        match standing {
            Standing::AwaitingLead => Self::AwaitingLead,
            Standing::Queued(dataset_id) => Self::of_queued(*dataset_id, event_time, now),
            Standing::Delivered => Self::Delivered,
            Standing::Dead { .. } => Self::Dead,
        }
    }

    /// What people see of an event in a queue.
    pub fn of_queued(
        dataset_id: Option<DatasetId>,
        event_time: UnixSeconds,
        now: Timestamp,
    ) -> Self {
        let due = event_time <= now.seconds();
        if due && dataset_id.is_some() { Self::Pending } else { Self::Held }
    }

    /// The state's stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AwaitingLead => "awaiting_lead",
            Self::Held => "held",
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }

    /// Finds a state by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// An event with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDetail {
    /// The event.
    pub event: Event,
    /// Where it stands.
    pub standing: Standing,
    /// The dataset of its lead.
    pub dataset_id: Option<DatasetId>,
    /// What became of sending it.
    pub attempts: AttemptLog,
}

impl EventDetail {
    /// The state as people see it.
    pub fn state(&self, now: Timestamp) -> EventState {
        EventState::of(&self.standing, self.event.event_time, now)
    }
}

/// A lead with its timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeadDetail {
    /// The lead.
    pub lead: Lead,
    /// Its events in the order in which they were accepted, the raw lead first.
    pub events: Vec<EventDetail>,
    /// The CRMs' own ids that are linked with it.
    pub crm_ids: Vec<(SourceName, CrmId)>,
    /// What is known of the person besides what each event says.
    pub customer: Customer,
}

impl LeadDetail {
    /// The stage that the lead is in.
    pub fn stage(&self) -> Option<&StageName> {
        stage_of(self.events.iter().map(|detail| (&detail.event, &detail.standing)))
    }
}

/// A lead as lists show it, without its timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeadSummary {
    /// The lead.
    pub lead: Lead,
    /// The stage that it is in.
    pub stage: Option<StageName>,
}

/// The stage that a lead with such a timeline is in: the one it reached last.
///
/// A report that turned out to be wrong (dead before it was ever due) does not count; one that
/// Meta never got to see does, since the lead did reach that stage.
pub fn stage_of<'e>(
    timeline: impl IntoIterator<Item = (&'e Event, &'e Standing)>,
) -> Option<&'e StageName> {
    let is_wrong = |standing: &Standing| {
        matches!(
            standing,
            Standing::Dead {
                reason: DeadReason::EventTimeNotAfterLead | DeadReason::LeadIsTest,
                ..
            }
        )
    };
    let right = timeline.into_iter().filter(|(_, standing)| !is_wrong(standing));
    Some(&right.max_by_key(|(event, _)| event.event_time)?.0.stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_event_is_held_until_it_is_due_and_has_a_dataset() {
        let due = UnixSeconds::new(100);
        let dataset_id = DatasetId::from_u64(1);
        let at = |seconds: i64| UnixSeconds::new(seconds).timestamp();
        assert_eq!(EventState::of_queued(dataset_id, due, at(99)), EventState::Held);
        assert_eq!(EventState::of_queued(dataset_id, due, at(100)), EventState::Pending);
        assert_eq!(EventState::of_queued(None, due, at(100)), EventState::Held);
    }

    #[test]
    fn names_of_states_and_reasons_are_read_back() {
        for state in EventState::ALL {
            assert_eq!(EventState::from_name(state.name()), Some(state));
        }
        assert_eq!(EventState::from_name("sent"), None);
        for reason in DeadReason::ALL {
            assert_eq!(DeadReason::from_name(reason.name()), Some(reason));
        }
        assert_eq!(DeadReason::from_name("dead"), None);
    }
}
