//! The queues, as whoever sends sees them.

use std::collections::BTreeSet;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use crate::domain::event::Event;
use crate::domain::ids::{DatasetId, LeadId};
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::store::postgres::error::Failure;
use crate::store::postgres::load::int;
use crate::store::postgres::rows::{Int, dataset_column, lead_column, read_dataset};
use crate::store::postgres::session::Session;
use crate::store::records::{corrupt, decode_event, decode_lead};
use crate::store::{Batch, Enqueued, NearDeadline, QueueEntry, QueuedEvent, StoreError};

/// See [`crate::store::Store::next_batch`].
pub(super) async fn next_batch(
    session: &mut Session,
    dataset_id: DatasetId,
    now: Timestamp,
    limit: usize,
    kept_back: &BTreeSet<LeadId>,
) -> Result<Batch, Failure> {
    let dataset = dataset_column(Some(dataset_id));
    let kept_back: Vec<Int> = kept_back.iter().copied().map(lead_column).collect();
    let due = sqlx::query(
        "SELECT event_time, reported, seq, lead_id, CASE WHEN reported THEN \
         (SELECT record FROM events WHERE lead_id = o.lead_id AND seq = o.seq) END, \
         CASE WHEN NOT reported THEN (SELECT record FROM leads WHERE lead_id = o.lead_id) END \
         FROM outbox AS o \
         WHERE dataset_id = $1 AND event_time <= $2 AND lead_id <> ALL($3) \
         ORDER BY event_time, reported, seq LIMIT $4",
    );
    let due = due.bind(dataset).bind(now.seconds().get()).bind(kept_back).bind(int(limit));
    let mut batch = Batch::default();
    let mut unreadable = BTreeSet::new();
    for row in session.rows(due).await? {
        let (entry, lead_id) = (read_entry(&row)?, row.try_get::<Int, _>(3)?);
        if unreadable.contains(&lead_id) {
            continue;
        }
        match read_event(&row) {
            Ok(event) => batch.events.push(QueuedEvent { entry, event }),
            Err(Failure::Store(error)) => {
                // One event that can't be read holds up its lead, and not the dataset.
                tracing::error!(%error, seq = entry.seq, "a queued event cannot be read");
                unreadable.insert(lead_id);
            }
            Err(error) => return Err(error),
        }
    }
    let later =
        sqlx::query("SELECT min(event_time) FROM outbox WHERE dataset_id = $1 AND event_time > $2");
    let later = session.rows(later.bind(dataset).bind(now.seconds().get())).await?;
    let next: Option<Int> = later.first().map(|row| row.try_get(0)).transpose()?.flatten();
    batch.next_due = next.map(UnixSeconds::new);
    Ok(batch)
}

fn read_entry(row: &PgRow) -> Result<QueueEntry, Failure> {
    let event_time = UnixSeconds::new(row.try_get(0)?);
    let seq = row.try_get::<Int, _>(2)?.cast_unsigned();
    Ok(QueueEntry { event_time, reported: row.try_get(1)?, seq })
}

fn read_event(row: &PgRow) -> Result<Event, Failure> {
    let (reported, lead): (Option<&[u8]>, Option<&[u8]>) = (row.try_get(4)?, row.try_get(5)?);
    if let Some(record) = reported {
        return Ok(decode_event(record)?);
    }
    let lead = decode_lead(lead.ok_or_else(|| corrupt("event"))?)?;
    Ok(lead.raw_event().ok_or_else(|| corrupt("raw lead"))?)
}

/// See [`crate::store::Store::due`].
pub(super) async fn due(
    session: &mut Session,
    datasets: &BTreeSet<DatasetId>,
    now: Timestamp,
) -> Result<Enqueued, Failure> {
    let datasets: Vec<Int> = datasets.iter().map(|it| dataset_column(Some(*it))).collect();
    let query = sqlx::query(
        "SELECT dataset_id FROM UNNEST($1::int8[]) AS asked (dataset_id) WHERE EXISTS \
         (SELECT 1 FROM outbox WHERE outbox.dataset_id = asked.dataset_id AND event_time <= $2)",
    );
    let mut due = Enqueued::default();
    for row in session.rows(query.bind(datasets).bind(now.seconds().get())).await? {
        due.0.extend(read_dataset(row.try_get(0)?));
    }
    Ok(due)
}

/// See [`crate::store::Store::still_queued`].
pub(super) async fn still_queued(
    session: &mut Session,
    dataset_id: DatasetId,
    entries: &BTreeSet<QueueEntry>,
) -> Result<BTreeSet<QueueEntry>, Failure> {
    let (mut times, mut reported, mut seqs) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        times.push(entry.event_time.get());
        reported.push(entry.reported);
        seqs.push(entry.seq.cast_signed());
    }
    let query = sqlx::query(
        "SELECT event_time, reported, seq FROM outbox WHERE dataset_id = $1 AND \
         (event_time, reported, seq) IN \
         (SELECT * FROM UNNEST($2::int8[], $3::bool[], $4::int8[]))",
    );
    let query = query.bind(dataset_column(Some(dataset_id))).bind(times).bind(reported).bind(seqs);
    session.rows(query).await?.iter().map(read_entry).collect()
}

/// The queues that are not empty, each with the time of the event in front, without reading what
/// is behind that.
const FRONTS: &str = "\
    WITH RECURSIVE fronts (dataset_id, event_time) AS (\
        (SELECT dataset_id, event_time FROM outbox ORDER BY dataset_id, event_time LIMIT 1) \
        UNION ALL \
        SELECT next.dataset_id, next.event_time FROM fronts CROSS JOIN LATERAL (\
            SELECT dataset_id, event_time FROM outbox WHERE dataset_id > fronts.dataset_id \
            ORDER BY dataset_id, event_time LIMIT 1\
        ) AS next\
    )";

/// See [`crate::store::Store::near_deadline`].
pub(super) async fn near_deadline(
    session: &mut Session,
    before: UnixSeconds,
) -> Result<Vec<NearDeadline>, Failure> {
    let query = format!(
        "{FRONTS} SELECT fronts.dataset_id, near.events, fronts.event_time \
         FROM fronts CROSS JOIN LATERAL (\
            SELECT count(*) AS events FROM outbox \
            WHERE dataset_id = fronts.dataset_id AND event_time < $1\
         ) AS near WHERE fronts.event_time < $1 ORDER BY fronts.dataset_id"
    );
    let mut near = Vec::new();
    for row in session.rows(sqlx::query(AssertSqlSafe(query)).bind(before.get())).await? {
        near.push(NearDeadline {
            dataset_id: read_dataset(row.try_get(0)?),
            events: row.try_get::<Int, _>(1)?.cast_unsigned(),
            earliest: UnixSeconds::new(row.try_get(2)?),
        });
    }
    Ok(near)
}

/// See [`crate::store::Store::fronts`].
pub(super) async fn fronts(
    session: &mut Session,
) -> Result<Vec<(Option<DatasetId>, UnixSeconds)>, Failure> {
    let query = format!("{FRONTS} SELECT dataset_id, event_time FROM fronts ORDER BY dataset_id");
    let mut fronts = Vec::new();
    for row in session.rows(sqlx::query(AssertSqlSafe(query))).await? {
        fronts.push((read_dataset(row.try_get(0)?), UnixSeconds::new(row.try_get(1)?)));
    }
    fronts.sort_unstable();
    Ok(fronts)
}

/// The leads with events that await them and that a filter chooses, by Meta's ids.
pub(super) async fn awaited_leads(
    session: &mut Session,
    after: Option<LeadId>,
    limit: usize,
) -> Result<Vec<LeadId>, Failure> {
    let query = sqlx::query(
        "SELECT DISTINCT lead_id FROM awaiting WHERE lead_id > $1 ORDER BY lead_id LIMIT $2",
    );
    let found = session.rows(query.bind(after.map_or(0, lead_column)).bind(int(limit))).await?;
    read_leads(&found)
}

/// The leads in the first column.
pub(super) fn read_leads(rows: &[PgRow]) -> Result<Vec<LeadId>, Failure> {
    rows.iter()
        .map(|row| {
            let number = row.try_get::<Int, _>(0)?.cast_unsigned();
            let corrupt = || StoreError::Corrupt("a lead id is impossible".into());
            Ok(LeadId::from_known(number).ok_or_else(corrupt)?)
        })
        .collect()
}
