//! The model's alarms.

use std::collections::BTreeMap;

use crate::domain::alarm::{Alarm, AlarmKey, AlarmKinds, Alarms, Cause, Causes, Condition, Kept};
use crate::domain::ids::LeadId;
use crate::domain::time::Timestamp;
use crate::limits::ALARMS_WAITING_MAX;

#[derive(Debug, Default)]
pub(super) struct AlarmState {
    kept: AlarmKinds,
    waiting: BTreeMap<AlarmKey, Alarm>,
    lasting: BTreeMap<Condition, Timestamp>,
}

impl AlarmState {
    pub(super) fn keep(&mut self, kept: &Kept) {
        self.lasting.retain(|condition, _| kept.counts_as_told(*condition, self.kept));
        self.kept = kept.kinds;
        self.waiting.retain(|_, alarm| self.kept.contains(alarm.cause.subject.kind()));
    }

    pub(super) fn raise_all(&mut self, causes: Causes, now: Timestamp) {
        causes.into_iter().for_each(|cause| self.raise(cause, now));
    }

    pub(super) fn raise(&mut self, cause: Cause, now: Timestamp) {
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
                }
            }
        }
    }

    pub(super) fn forget_lead(&mut self, lead_id: LeadId) {
        self.waiting.values_mut().for_each(|alarm| {
            alarm.forget_lead(lead_id);
        });
    }

    pub(super) fn all(&self) -> Alarms {
        Alarms {
            waiting: self.waiting.values().cloned().collect(),
            lasting: self.lasting.iter().map(|(condition, since)| (*condition, *since)).collect(),
        }
    }

    pub(super) fn begin_try(&mut self, key: &AlarmKey, next_try_at: Timestamp) -> Option<Alarm> {
        let alarm = self.waiting.get_mut(key)?;
        alarm.tries += 1;
        alarm.next_try_at = next_try_at;
        Some(alarm.clone())
    }

    pub(super) fn end(&mut self, key: &AlarmKey) {
        self.waiting.remove(key);
    }
}
