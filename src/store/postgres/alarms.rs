//! Alarms that wait for their receiver, and the conditions that were told: few rows, and always all
//! of them.

use std::collections::BTreeMap;

use sqlx::Row as _;

use crate::domain::alarm::{AlarmKinds, Cause, Condition};
use crate::domain::time::Timestamp;
use crate::store::StoreError;
use crate::store::memory::AlarmState;
use crate::store::postgres::error::Failure;
use crate::store::postgres::rows::{Difference, Int, dataset_column, read_dataset};
use crate::store::postgres::save::columns;
use crate::store::postgres::session::Session;
use crate::store::records::alarm::{decode_alarm, encode_alarm};

/// The rows of the tables that are about alarms: few, and always all of them.
#[derive(Clone, Debug, Default)]
pub(super) struct AlarmRows {
    pub(super) kept: Int,
    pub(super) waiting: BTreeMap<(String, Int), Vec<u8>>,
    pub(super) lasting: BTreeMap<(i16, Int), Int>,
}

impl AlarmRows {
    /// What the rows say. A message that can't be read must not hold up whoever raises the next.
    pub(super) fn to_state(&self) -> AlarmState {
        let mut state = AlarmState::default();
        state.kept = AlarmKinds::from_bits(self.kept.cast_unsigned());
        for record in self.waiting.values() {
            match decode_alarm(record) {
                Ok(alarm) => drop(state.waiting.insert(alarm.key(), alarm)),
                Err(error) => tracing::error!(%error, "an alarm cannot be read"),
            }
        }
        for (key, since_ms) in &self.lasting {
            let since = Timestamp::from_millis(*since_ms);
            state.lasting.extend(read_condition(*key).map(|condition| (condition, since)));
        }
        state
    }

    /// The rows that say what is kept of alarms.
    pub(super) fn of_state(state: &AlarmState) -> Result<Self, StoreError> {
        let mut rows = Self { kept: state.kept.bits().cast_signed(), ..Self::default() };
        for ((subject, first_at), alarm) in &state.waiting {
            rows.waiting.insert((subject.clone(), first_at.as_millis()), encode_alarm(alarm)?);
        }
        for (condition, since) in &state.lasting {
            rows.lasting.insert(condition_key(*condition), since.as_millis());
        }
        Ok(rows)
    }
}

fn condition_key(condition: Condition) -> (i16, Int) {
    match condition {
        Condition::DatasetPaused(dataset_id) => (1, dataset_column(Some(dataset_id))),
        Condition::WebhookSilent => (2, 0),
    }
}

/// The condition of a key, if this program knows such conditions.
fn read_condition(key: (i16, Int)) -> Option<Condition> {
    match key {
        (1, dataset) => read_dataset(dataset).map(Condition::DatasetPaused),
        (2, 0) => Some(Condition::WebhookSilent),
        _ => None,
    }
}

/// Reads everything about alarms.
pub(super) async fn load(session: &mut Session) -> Result<AlarmRows, Failure> {
    let mut rows = AlarmRows::default();
    let kept = sqlx::query("SELECT value FROM meta WHERE name = 'alarms'");
    if let Some(row) = session.rows(kept).await?.first() {
        rows.kept = row.try_get(0)?;
    }
    for row in session.rows(sqlx::query("SELECT subject, first_at_ms, record FROM alarms")).await? {
        rows.waiting.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
    }
    let lasting = sqlx::query("SELECT kind, dataset_id, since_ms FROM alarm_conditions");
    for row in session.rows(lasting).await? {
        rows.lasting.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
    }
    Ok(rows)
}

/// Raises alarms in the transaction of what they are about.
pub(super) async fn raise(
    session: &mut Session,
    causes: Vec<(Cause, Timestamp)>,
) -> Result<(), Failure> {
    let mut state = load(session).await?.to_state();
    let before = AlarmRows::of_state(&state)?;
    for (cause, now) in causes {
        state.raise(cause, now);
    }
    save(session, &before, AlarmRows::of_state(&state)?).await
}

/// Writes the difference between what was kept of alarms before and what is after.
pub(super) async fn save(
    session: &mut Session,
    before: &AlarmRows,
    after: AlarmRows,
) -> Result<(), Failure> {
    if after.kept != before.kept {
        let query = sqlx::query(
            "INSERT INTO meta (name, value) VALUES ('alarms', $1) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        );
        session.execute(query.bind(after.kept)).await?;
    }
    waiting(session, Difference::between(&before.waiting, after.waiting)).await?;
    lasting(session, Difference::between(&before.lasting, after.lasting)).await
}

async fn waiting(
    session: &mut Session,
    Difference { put, gone }: Difference<(String, Int), Vec<u8>>,
) -> Result<(), Failure> {
    if !put.is_empty() {
        columns!(put => subjects, times, records; ((subject, at_ms), record) =>
            subject, at_ms, record);
        let query = sqlx::query(
            "INSERT INTO alarms (subject, first_at_ms, record) \
             SELECT * FROM UNNEST($1::text[], $2::int8[], $3::bytea[]) \
             ON CONFLICT (subject, first_at_ms) DO UPDATE SET record = excluded.record",
        );
        session.execute(query.bind(subjects).bind(times).bind(records)).await?;
    }
    if !gone.is_empty() {
        let (subjects, times): (Vec<String>, Vec<Int>) = gone.into_iter().unzip();
        let query = sqlx::query(
            "DELETE FROM alarms WHERE (subject, first_at_ms) IN \
             (SELECT * FROM UNNEST($1::text[], $2::int8[]))",
        );
        session.execute(query.bind(subjects).bind(times)).await?;
    }
    Ok(())
}

async fn lasting(
    session: &mut Session,
    Difference { put, gone }: Difference<(i16, Int), Int>,
) -> Result<(), Failure> {
    if !put.is_empty() {
        columns!(put => kinds, datasets, times; ((kind, dataset), since) => kind, dataset, since);
        let query = sqlx::query(
            "INSERT INTO alarm_conditions (kind, dataset_id, since_ms) \
             SELECT * FROM UNNEST($1::int2[], $2::int8[], $3::int8[]) \
             ON CONFLICT (kind, dataset_id) DO UPDATE SET since_ms = excluded.since_ms",
        );
        session.execute(query.bind(kinds).bind(datasets).bind(times)).await?;
    }
    if !gone.is_empty() {
        let (kinds, datasets): (Vec<i16>, Vec<Int>) = gone.into_iter().unzip();
        let query = sqlx::query(
            "DELETE FROM alarm_conditions WHERE (kind, dataset_id) IN \
             (SELECT * FROM UNNEST($1::int2[], $2::int8[]))",
        );
        session.execute(query.bind(kinds).bind(datasets)).await?;
    }
    Ok(())
}
