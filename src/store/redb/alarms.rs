//! Alarms that wait for their receiver, and the conditions that were told.
//!
//! What raises an alarm does so in its own transaction, so none of it can be forgotten. Which kinds
//! are kept stands in the store, so nobody who writes has to know.

use crate::domain::alarm::{Alarm, AlarmKey, AlarmKinds, Alarms, Cause, Condition, Kept};
use crate::domain::ids::{DatasetId, EventId, LeadId};
use crate::domain::time::Timestamp;
use crate::limits::ALARMS_WAITING_MAX;
use crate::store::StoreError;
use crate::store::records::alarm::{decode_alarm, encode_alarm};
use crate::store::redb::read::event_by_seq;
use crate::store::redb::tables::Tables;
use crate::store::redb::writer::Unit;

/// Name of the fact that says which kinds are kept.
pub(super) const KEPT: &str = "alarms";

/// See [`crate::store::Store::keep_alarms`].
pub(super) fn keep(unit: &mut Unit<'_>, kept: &Kept) -> Result<(), StoreError> {
    let before = unit.tables.meta.get(KEPT)?.map_or(0, |bits| bits.value());
    unit.tables.meta.insert(KEPT, kept.kinds.bits());
    let Alarms { waiting, lasting } = all(&unit.tables)?;
    for alarm in waiting {
        if !kept.kinds.contains(alarm.cause.subject.kind()) {
            end(unit, &alarm.key())?;
        }
    }
    for (condition, _) in lasting {
        if !kept.counts_as_told(condition, AlarmKinds::from_bits(before)) {
            unit.tables.alarm_conditions.remove(condition_key(condition))?;
        }
    }
    Ok(())
}

/// See [`crate::store::Store::raise_alarm`].
pub(super) fn raise(
    unit: &mut Unit<'_>,
    causes: impl IntoIterator<Item = Cause>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut causes = causes.into_iter().peekable();
    if causes.peek().is_none() {
        return Ok(());
    }
    let kept = unit.tables.meta.get(KEPT)?.map_or(0, |bits| bits.value());
    let kept = AlarmKinds::from_bits(kept);
    if kept.is_empty() {
        return Ok(());
    }
    for cause in causes {
        let changed = change_condition(unit, &cause, now)?;
        if changed && kept.contains(cause.subject.kind()) {
            gather(unit, cause, now)?;
        }
    }
    Ok(())
}

/// Writes down that a condition begins or ends; `false` if it has done so already.
fn change_condition(
    unit: &mut Unit<'_>,
    cause: &Cause,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Some((condition, begins)) = cause.subject.condition() else {
        return Ok(true);
    };
    let key = condition_key(condition);
    if begins == unit.tables.alarm_conditions.get(key)?.is_some() {
        return Ok(false);
    }
    if begins {
        let since = cause.moment.unwrap_or(now);
        unit.tables.alarm_conditions.insert(key, since.as_millis());
    } else {
        unit.tables.alarm_conditions.remove(key)?;
    }
    Ok(true)
}

fn gather(unit: &mut Unit<'_>, cause: Cause, now: Timestamp) -> Result<(), StoreError> {
    let subject = cause.subject.to_string();
    let last = match unit.tables.alarms.range(of_subject(&subject))?.next_back() {
        Some(row) => readable(row?.1.value()),
        None => None,
    };
    let alarm = match last {
        Some(mut alarm) if alarm.is_gathering() => {
            alarm.add(cause, now);
            alarm
        }
        last => {
            if unit.tables.alarms.len()? >= ALARMS_WAITING_MAX as u64 {
                tracing::error!(subject, "too many alarms wait; this one is only logged");
                return Ok(());
            }
            Alarm::new(cause, last.as_ref(), now)
        }
    };
    put(unit, &alarm)
}

/// See [`crate::store::Store::alarms`].
pub(super) fn all(view: &Tables<'_>) -> Result<Alarms, StoreError> {
    let mut waiting = Vec::new();
    for row in view.alarms.all()? {
        waiting.extend(readable(row?.1.value()));
    }
    let mut lasting = Vec::new();
    for row in view.alarm_conditions.all()? {
        let (key, since_ms) = row?;
        let since = Timestamp::from_millis(since_ms.value());
        lasting.extend(read_condition(key.value()).map(|condition| (condition, since)));
    }
    Ok(Alarms { waiting, lasting })
}

/// See [`crate::store::Store::begin_alarm_try`].
pub(super) fn begin_try(
    unit: &mut Unit<'_>,
    key: &AlarmKey,
    next_try_at: Timestamp,
) -> Result<Option<Alarm>, StoreError> {
    let row = unit.tables.alarms.get((key.0.as_str(), key.1.as_millis()))?;
    let Some(mut alarm) = row.and_then(|row| readable(row.value())) else {
        return Ok(None);
    };
    alarm.tries = alarm.tries.saturating_add(1);
    alarm.next_try_at = next_try_at;
    put(unit, &alarm)?;
    Ok(Some(alarm))
}

/// Takes the names of an erased lead's events out of what was not tried yet.
pub(super) fn forget_lead(unit: &mut Unit<'_>, lead_id: LeadId) -> Result<(), StoreError> {
    for mut alarm in all(&unit.tables)?.waiting {
        if alarm.forget_lead(lead_id) {
            put(unit, &alarm)?;
        }
    }
    Ok(())
}

/// See [`crate::store::Store::end_alarm`].
pub(super) fn end(unit: &mut Unit<'_>, key: &AlarmKey) -> Result<(), StoreError> {
    unit.tables.alarms.remove((key.0.as_str(), key.1.as_millis()))?;
    Ok(())
}

/// The id of an event that died, if it can be read: an alarm is told with a name less rather than
/// not at all.
pub(super) fn event_id(view: &Tables<'_>, seq: u64) -> Option<EventId> {
    event_by_seq(view, seq).ok().map(|event| event.id())
}

/// An alarm, unless it can't be read: that must not hold up whoever raises the next one.
fn readable(bytes: &[u8]) -> Option<Alarm> {
    let alarm = decode_alarm(bytes);
    alarm.inspect_err(|error| tracing::error!(%error, "an alarm cannot be read")).ok()
}

fn put(unit: &mut Unit<'_>, alarm: &Alarm) -> Result<(), StoreError> {
    let (subject, first_at) = alarm.key();
    let place = (subject.as_str(), first_at.as_millis());
    unit.tables.alarms.insert(place, encode_alarm(alarm)?.as_slice());
    Ok(())
}

fn of_subject(subject: &str) -> std::ops::RangeInclusive<(&str, i64)> {
    (subject, i64::MIN)..=(subject, i64::MAX)
}

fn condition_key(condition: Condition) -> (u8, u64) {
    match condition {
        Condition::DatasetPaused(dataset_id) => (1, dataset_id.get()),
        Condition::WebhookSilent => (2, 0),
    }
}

/// The condition of a key, if this program knows such conditions.
fn read_condition(key: (u8, u64)) -> Option<Condition> {
    match key {
        (1, dataset) => DatasetId::from_u64(dataset).map(Condition::DatasetPaused),
        (2, 0) => Some(Condition::WebhookSilent),
        _ => None,
    }
}
