//! The model's alarms.

use std::collections::BTreeMap;

use crate::domain::alarm::{Alarm, AlarmKey, AlarmKinds, Alarms, Cause, Causes, Condition, Kept};
use crate::domain::ids::LeadId;
use crate::domain::time::Timestamp;
use crate::limits::ALARMS_WAITING_MAX;

/// What is kept of alarms.
///
/// Use cases that are about something else only note what it means for alarms. It is carried out
/// when somebody looks, so whoever has a part of a store needs to have this one only then.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct AlarmState {
    noted: Vec<Note>,
    pub(in crate::store) kept: AlarmKinds,
    pub(in crate::store) waiting: BTreeMap<AlarmKey, Alarm>,
    pub(in crate::store) lasting: BTreeMap<Condition, Timestamp>,
}

#[derive(Clone, Debug)]
enum Note {
    Raise(Cause, Timestamp),
    ForgetLead(LeadId),
}

impl AlarmState {
    /// Notes causes.
    pub(super) fn raise_all(&mut self, causes: Causes, now: Timestamp) {
        self.noted.extend(causes.into_iter().map(|cause| Note::Raise(cause, now)));
    }

    /// Notes that a lead was erased.
    pub(super) fn forget_lead(&mut self, lead_id: LeadId) {
        self.noted.push(Note::ForgetLead(lead_id));
    }

    /// Takes over what is kept; what was noted stays to be carried out.
    pub(in crate::store) fn adopt(&mut self, kept: Self) {
        *self = Self { noted: std::mem::take(&mut self.noted), ..kept };
    }

    /// Whether something is to be carried out.
    pub(in crate::store) fn is_noted(&self) -> bool {
        !self.noted.is_empty()
    }

    /// Carries out what was noted.
    pub(in crate::store) fn carry_out(&mut self) {
        for note in std::mem::take(&mut self.noted) {
            match note {
                Note::Raise(cause, now) => self.raise(cause, now),
                Note::ForgetLead(lead_id) => {
                    self.waiting.values_mut().for_each(|alarm| {
                        alarm.forget_lead(lead_id);
                    });
                }
            }
        }
    }

    pub(in crate::store) fn keep(&mut self, kept: &Kept) {
        self.lasting.retain(|condition, _| kept.counts_as_told(*condition, self.kept));
        self.kept = kept.kinds;
        self.waiting.retain(|_, alarm| self.kept.contains(alarm.cause.subject.kind()));
    }

    pub(in crate::store) fn raise(&mut self, cause: Cause, now: Timestamp) {
        if self.kept.is_empty() {
            return;
        }
        if let Some((condition, begins)) = cause.subject.condition() {
            if begins == self.lasting.contains_key(&condition) {
                return;
            }
            if begins {
                self.lasting.insert(condition, cause.moment.unwrap_or(now));
            } else {
                self.lasting.remove(&condition);
            }
        }
        if !self.kept.contains(cause.subject.kind()) {
            return;
        }
        let same = |alarm: &&mut Alarm| alarm.cause.subject == cause.subject;
        let last = self.waiting.values_mut().rfind(same);
        match last {
            Some(alarm) if alarm.is_gathering() => alarm.add(cause, now),
            last => {
                let alarm = Alarm::new(cause, last.map(|alarm| &*alarm), now);
                if self.waiting.len() < ALARMS_WAITING_MAX {
                    self.waiting.insert(alarm.key(), alarm);
                } else {
                    let subject = alarm.cause.subject;
                    tracing::error!(%subject, "too many alarms wait; this one is only logged");
                }
            }
        }
    }

    pub(in crate::store) fn all(&self) -> Alarms {
        Alarms {
            waiting: self.waiting.values().cloned().collect(),
            lasting: self.lasting.iter().map(|(condition, since)| (*condition, *since)).collect(),
        }
    }

    pub(in crate::store) fn begin_try(
        &mut self,
        key: &AlarmKey,
        next_try_at: Timestamp,
    ) -> Option<Alarm> {
        let alarm = self.waiting.get_mut(key)?;
        alarm.tries += 1;
        alarm.next_try_at = next_try_at;
        Some(alarm.clone())
    }

    pub(in crate::store) fn end(&mut self, key: &AlarmKey) {
        self.waiting.remove(key);
    }
}
