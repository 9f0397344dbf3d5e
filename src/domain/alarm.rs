//! Alarms: what somebody outside has to be told, gathered by subject.
//!
//! Causes of one subject become one message until that is tried for the first time; from then on
//! it stays as it is, under the same id, and later causes gather in the next. So a burst is a
//! handful of messages, and a receiver that is away for days finds two for each subject. Some
//! subjects begin or end a condition, such as a pause; that is told once.
//!
//! It does not write messages, nor decide when they are sent.

mod kind;

use std::collections::BTreeSet;
use std::fmt;

pub use crate::domain::alarm::kind::{AlarmKind, AlarmKinds};
use crate::domain::event::{Attempt, DeadReason, short_digest};
use crate::domain::ids::{DatasetId, EventId, LeadId};
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::limits::ALARM_EVENT_IDS_MAX;

/// What an alarm is about; alarms about the same are told together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Events became dead letters, all for this reason.
    EventsDead {
        /// Whose queue they were in, if they had one.
        dataset_id: Option<DatasetId>,
        /// Why.
        reason: DeadReason,
        /// Meta's error code, if Meta refused them.
        code: Option<i64>,
        /// Meta's error subcode.
        subcode: Option<i64>,
    },
    /// Events will be too old soon.
    EventsDeadlineNear {
        /// Whose queue they are in; `None` for those without a dataset.
        dataset_id: Option<DatasetId>,
    },
    /// A dataset is paused.
    DatasetPaused {
        /// Which.
        dataset_id: DatasetId,
        /// Stable name of the reason.
        reason: Box<str>,
    },
    /// A dataset works again.
    DatasetResumed {
        /// Which.
        dataset_id: DatasetId,
    },
    /// The webhook is silent.
    WebhookSilent,
    /// The webhook is heard again.
    WebhookResumed,
    /// Something was quarantined.
    QuarantineAdded,
    /// Reports that no mapping fits could not be kept.
    ReportsNotKept {
        /// Whose.
        source: SourceName,
    },
    /// Stages in a CRM's own webhook were refused, all for this reason.
    ReportsRefused {
        /// Whose.
        source: SourceName,
        /// Stable name of the reason.
        reason: Box<str>,
    },
    /// Reports that no mapping fits are kept.
    ReportsKept {
        /// Whose.
        source: SourceName,
    },
    /// Reports that no mapping fits are not kept any longer.
    ReportsExpired {
        /// Whose.
        source: SourceName,
    },
}

impl Subject {
    /// The subject of events that died in a queue, or in none. Codes count only where Meta refused:
    /// an event that expires after a failed request died of its age.
    pub fn dead(
        dataset_id: Option<DatasetId>,
        reason: DeadReason,
        attempt: Option<&Attempt>,
    ) -> Self {
        let attempt = attempt.filter(|_| reason == DeadReason::RefusedByMeta);
        let code = attempt.and_then(|attempt| attempt.code);
        let subcode = attempt.and_then(|attempt| attempt.subcode);
        Self::EventsDead { dataset_id, reason, code, subcode }
    }

    /// Its kind.
    pub const fn kind(&self) -> AlarmKind {
        match self {
            Self::EventsDead { .. } => AlarmKind::EventsDead,
            Self::EventsDeadlineNear { .. } => AlarmKind::EventsDeadlineNear,
            Self::DatasetPaused { .. } => AlarmKind::DatasetPaused,
            Self::DatasetResumed { .. } => AlarmKind::DatasetResumed,
            Self::WebhookSilent => AlarmKind::WebhookSilent,
            Self::WebhookResumed => AlarmKind::WebhookResumed,
            Self::QuarantineAdded => AlarmKind::QuarantineAdded,
            Self::ReportsNotKept { .. } => AlarmKind::ReportsNotKept,
            Self::ReportsRefused { .. } => AlarmKind::ReportsRefused,
            Self::ReportsKept { .. } => AlarmKind::ReportsKept,
            Self::ReportsExpired { .. } => AlarmKind::ReportsExpired,
        }
    }

    /// The condition that it begins (`true`) or ends.
    pub const fn condition(&self) -> Option<(Condition, bool)> {
        match self {
            Self::DatasetPaused { dataset_id, .. } => {
                Some((Condition::DatasetPaused(*dataset_id), true))
            }
            Self::DatasetResumed { dataset_id } => {
                Some((Condition::DatasetPaused(*dataset_id), false))
            }
            Self::WebhookSilent => Some((Condition::WebhookSilent, true)),
            Self::WebhookResumed => Some((Condition::WebhookSilent, false)),
            Self::EventsDead { .. }
            | Self::EventsDeadlineNear { .. }
            | Self::QuarantineAdded
            | Self::ReportsNotKept { .. }
            | Self::ReportsRefused { .. }
            | Self::ReportsKept { .. }
            | Self::ReportsExpired { .. } => None,
        }
    }
}

impl fmt::Display for Subject {
    /// One line that no other subject has, such as `events.dead 7 refused_by_meta 100 2804036`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().name())?;
        let number = |number: Option<i64>| number.map_or_else(|| "-".into(), |it| it.to_string());
        let dataset = |id: Option<DatasetId>| id.map_or_else(|| "-".into(), |id| id.to_string());
        match self {
            Self::EventsDead { dataset_id, reason, code, subcode } => {
                let (dataset, reason) = (dataset(*dataset_id), reason.name());
                write!(f, " {dataset} {reason} {} {}", number(*code), number(*subcode))
            }
            Self::EventsDeadlineNear { dataset_id } => write!(f, " {}", dataset(*dataset_id)),
            Self::DatasetPaused { dataset_id, reason } => write!(f, " {dataset_id} {reason}"),
            Self::DatasetResumed { dataset_id } => write!(f, " {dataset_id}"),
            Self::WebhookSilent | Self::WebhookResumed | Self::QuarantineAdded => Ok(()),
            Self::ReportsNotKept { source }
            | Self::ReportsKept { source }
            | Self::ReportsExpired { source } => write!(f, " {source}"),
            Self::ReportsRefused { source, reason } => write!(f, " {source} {reason}"),
        }
    }
}

/// Something that lasts, whose beginning and end are told once each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The dataset is paused.
    DatasetPaused(DatasetId),
    /// The webhook is silent.
    WebhookSilent,
}

impl Condition {
    /// The kind that tells that it begins.
    pub const fn begins_as(self) -> AlarmKind {
        match self {
            Self::DatasetPaused(_) => AlarmKind::DatasetPaused,
            Self::WebhookSilent => AlarmKind::WebhookSilent,
        }
    }
}

/// What is kept of alarms: which kinds, and which conditions somebody watches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The kinds.
    pub kinds: AlarmKinds,
    /// The conditions. Whether one that nobody watches still lasts is not known.
    pub watched: BTreeSet<Condition>,
}

impl Kept {
    /// Whether a condition that lasted under other settings still counts as told: somebody watches
    /// it, and its kind is not one that was left out before.
    pub fn counts_as_told(&self, condition: Condition, before: AlarmKinds) -> bool {
        let kind = condition.begins_as();
        let is_new = self.kinds.contains(kind) && !before.contains(kind);
        self.watched.contains(&condition) && !is_new
    }
}

/// Something happened that is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// What it is about.
    pub subject: Subject,
    /// How many events, or pieces, or times.
    pub count: u64,
    /// The moment it is about: since when a condition lasts, or the first event's last moment.
    pub moment: Option<Timestamp>,
    /// Some of the events.
    pub event_ids: Vec<EventId>,
}

impl Cause {
    /// Something that happened once.
    pub fn once(subject: Subject, moment: Option<Timestamp>) -> Self {
        Self { subject, count: 1, moment, event_ids: Vec::new() }
    }
}

/// Causes of one transaction, gathered by subject.
#[derive(Debug, Default)]
pub struct Causes(Vec<Cause>);

impl Causes {
    /// Adds one event, or piece, of a subject. Its id is asked for only if it will be named.
    pub fn add(&mut self, subject: Subject, event_id: impl FnOnce() -> Option<EventId>) {
        let place = self.0.iter().position(|cause| cause.subject == subject);
        let place = place.unwrap_or_else(|| {
            self.0.push(Cause { count: 0, ..Cause::once(subject, None) });
            self.0.len() - 1
        });
        let cause = &mut self.0[place];
        cause.count += 1;
        if cause.event_ids.len() < ALARM_EVENT_IDS_MAX {
            cause.event_ids.extend(event_id());
        }
    }
}

impl IntoIterator for Causes {
    type Item = Cause;
    type IntoIter = std::vec::IntoIter<Cause>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// A message that waits for its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What it is about, and how often; complete once it has been tried.
    pub cause: Cause,
    /// When the first of its causes came.
    pub first_at: Timestamp,
    /// When the last of them came.
    pub last_at: Timestamp,
    /// How often it was tried.
    pub tries: u32,
    /// When it is tried again; of no meaning before the first try.
    pub next_try_at: Timestamp,
}

/// Which message: its subject in one line, and when its first cause came.
pub type AlarmKey = (String, Timestamp);

impl Alarm {
    /// A message with one cause, the first of its subject after this one if there is one.
    ///
    /// No two messages of a subject begin in the same millisecond, whatever the clock does.
    pub fn new(cause: Cause, after: Option<&Self>, now: Timestamp) -> Self {
        let first_at = after.map_or(now, |before| now.max(before.first_at.plus_millis(1)));
        Self { cause, first_at, last_at: now, tries: 0, next_try_at: now }
    }

    /// Its place among all messages.
    pub fn key(&self) -> AlarmKey {
        (self.cause.subject.to_string(), self.first_at)
    }

    /// The message's id: derived, so that it is the same at every try, by whatever process.
    pub fn id(&self) -> String {
        let (subject, first_at) = self.key();
        let first_at = first_at.as_millis().to_be_bytes();
        format!("alm_{}", hex::encode(short_digest(&[subject.as_bytes(), &first_at])))
    }

    /// Whether further causes may still be added: it has not been tried.
    pub const fn is_gathering(&self) -> bool {
        self.tries == 0
    }

    /// Takes out the names of a lead's events, unless it was tried and stays as it is; whether
    /// there were any.
    pub fn forget_lead(&mut self, lead_id: LeadId) -> bool {
        let event_ids = &mut self.cause.event_ids;
        let before = event_ids.len();
        if self.tries == 0 {
            event_ids.retain(|event_id| event_id.lead_id() != lead_id);
        }
        event_ids.len() < before
    }

    /// Adds a later cause of the same subject.
    pub fn add(&mut self, later: Cause, now: Timestamp) {
        let cause = &mut self.cause;
        cause.count = match later.subject {
            // It counts what is in the queue at a time, and not what happened.
            Subject::EventsDeadlineNear { .. } => later.count,
            _ => cause.count.saturating_add(later.count),
        };
        cause.moment = later.moment.or(cause.moment);
        let room = ALARM_EVENT_IDS_MAX.saturating_sub(cause.event_ids.len());
        cause.event_ids.extend(later.event_ids.into_iter().take(room));
        self.last_at = self.last_at.max(now);
    }
}

/// What the store knows about alarms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    /// The messages that wait, by subject; those of a subject oldest first.
    pub waiting: Vec<Alarm>,
    /// The conditions that last, as far as they were told, and since when.
    pub lasting: Vec<(Condition, Timestamp)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stage::StageName;
    use crate::domain::time::UnixSeconds;

    fn at(seconds: i64) -> Timestamp {
        UnixSeconds::new(1_762_000_000 + seconds).timestamp()
    }

    fn event_id(number: i64) -> EventId {
        let lead_id = LeadId::from_u64(1_234_567_890_123_456).unwrap();
        EventId::derive(lead_id, &StageName::parse("won").unwrap(), UnixSeconds::new(number))
    }

    fn expired(dataset: u64) -> Subject {
        Subject::dead(DatasetId::from_u64(dataset), DeadReason::Expired, None)
    }

    #[test]
    fn causes_of_a_subject_are_one_cause_that_names_ten_events() {
        let mut causes = Causes::default();
        let mut asked = 0;
        for number in 0..1_000 {
            causes.add(expired(7), || {
                asked += 1;
                Some(event_id(number))
            });
        }
        causes.add(expired(8), || None);
        let causes: Vec<Cause> = causes.into_iter().collect();
        assert_eq!(causes.iter().map(|cause| cause.count).collect::<Vec<_>>(), [1_000, 1]);
        assert_eq!((causes[0].event_ids.len(), asked), (10, 10));
    }

    #[test]
    fn the_id_is_the_same_for_ever_and_another_for_the_next_message() {
        let cause = Cause::once(expired(7), None);
        let first = Alarm::new(cause.clone(), None, at(0));
        assert_eq!(first.id(), "alm_a7dc8afef8cc3a65feece6377fc39b11");
        let mut tried = first.clone();
        (tried.tries, tried.next_try_at) = (3, at(9));
        assert_eq!(tried.id(), first.id());
        for now in [at(0), at(-500), at(1)] {
            let next = Alarm::new(cause.clone(), Some(&first), now);
            assert!(next.first_at > first.first_at, "also when the clock was set back");
            assert_ne!(next.id(), first.id());
        }
    }

    #[test]
    fn what_is_counted_adds_up_and_what_is_measured_does_not() {
        let mut alarm =
            Alarm::new(Cause { count: 2, ..Cause::once(expired(7), None) }, None, at(0));
        alarm.add(Cause { count: 3, ..Cause::once(expired(7), None) }, at(5));
        assert_eq!((alarm.cause.count, alarm.first_at, alarm.last_at), (5, at(0), at(5)));
        let near = |count, moment| {
            let subject = Subject::EventsDeadlineNear { dataset_id: None };
            Cause { count, ..Cause::once(subject, Some(moment)) }
        };
        let mut alarm = Alarm::new(near(9, at(100)), None, at(0));
        alarm.add(near(4, at(200)), at(5));
        assert_eq!((alarm.cause.count, alarm.cause.moment), (4, Some(at(200))));
    }

    #[test]
    fn subjects_that_differ_are_written_differently() {
        let refused = |code, subcode| {
            let reason = DeadReason::RefusedByMeta;
            Subject::EventsDead { dataset_id: DatasetId::from_u64(7), reason, code, subcode }
        };
        let lines = [
            refused(Some(100), Some(2_804_036)),
            refused(Some(100), None),
            refused(None, Some(100)),
            Subject::EventsDeadlineNear { dataset_id: None },
            Subject::EventsDeadlineNear { dataset_id: DatasetId::from_u64(7) },
            Subject::DatasetPaused {
                dataset_id: DatasetId::from_u64(7).unwrap(),
                reason: "token".into(),
            },
        ]
        .map(|subject| subject.to_string());
        let expected = [
            "events.dead 7 refused_by_meta 100 2804036",
            "events.dead 7 refused_by_meta 100 -",
            "events.dead 7 refused_by_meta - 100",
            "events.deadline_near -",
            "events.deadline_near 7",
            "dataset.paused 7 token",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn names_and_bits_of_kinds_are_read_back() {
        for kind in AlarmKind::ALL {
            assert_eq!(AlarmKind::from_name(kind.name()), Some(*kind));
            assert!(AlarmKinds::from_iter([*kind]).contains(*kind));
            assert!(!AlarmKinds::NONE.contains(*kind));
        }
        let all: AlarmKinds = AlarmKind::ALL.iter().copied().collect();
        assert_eq!((all.bits(), AlarmKinds::from_bits(all.bits())), (0x7ff, all));
        assert_eq!(AlarmKind::from_name("events"), None);
    }
}
