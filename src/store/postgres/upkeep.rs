//! Finding what the housekeeping is to look at; what becomes of it is decided where everything is.

use std::collections::BTreeMap;

use sqlx::Row as _;

use crate::domain::ids::LeadId;
use crate::domain::routing::Routing;
use crate::domain::time::Timestamp;
use crate::limits::{DB_LEADS_MAX, EVENT_AGE_MAX_S, SEND_MARGIN_S};
use crate::store::postgres::error::Failure;
use crate::store::postgres::load::int;
use crate::store::postgres::queue::read_leads;
use crate::store::postgres::rows::{Int, dataset_column, lead_column, read_lead_id};
use crate::store::postgres::session::Session;
use crate::store::records::decode_event;

/// Leads with events in the queue of no dataset, or of one that is not configured, after a lead.
pub(super) async fn leads_to_route(
    session: &mut Session,
    routing: &Routing,
    after: Option<LeadId>,
) -> Result<Vec<LeadId>, Failure> {
    let configured: Vec<Int> =
        routing.datasets().map(|dataset_id| dataset_column(Some(dataset_id))).collect();
    let query = sqlx::query(
        "SELECT DISTINCT lead_id FROM outbox WHERE dataset_id <> ALL($1) AND lead_id > $2 \
         ORDER BY lead_id LIMIT $3",
    );
    let after = after.map_or(Int::MIN, lead_column);
    let found = session.rows(query.bind(configured).bind(after).bind(int(DB_LEADS_MAX))).await?;
    read_leads(&found)
}

/// Leads with events that no worker looks after and whose time is over.
pub(super) async fn overdue(session: &mut Session, now: Timestamp) -> Result<Vec<LeadId>, Failure> {
    let last_past = now.seconds() + (SEND_MARGIN_S - EVENT_AGE_MAX_S);
    let query = sqlx::query(
        "SELECT lead_id FROM awaiting WHERE event_time <= $1 UNION \
         SELECT lead_id FROM outbox WHERE dataset_id = 0 AND event_time <= $1 LIMIT $2",
    );
    let query = query.bind(last_past.get()).bind(int(DB_LEADS_MAX));
    read_leads(&session.rows(query).await?)
}

/// Leads that may be old, from a number on, and where to go on after them.
///
/// Numbers grow with time, so where no lead is old any more there is none behind them.
pub(super) async fn old_leads(
    session: &mut Session,
    before: Timestamp,
    from: u64,
) -> Result<(Vec<LeadId>, Option<u64>), Failure> {
    let query = sqlx::query(
        "SELECT seq, lead_id, received_at_ms < $2 FROM leads WHERE seq >= $1 \
         ORDER BY seq LIMIT $3",
    );
    let from = Int::try_from(from).unwrap_or(Int::MAX);
    let query = query.bind(from).bind(before.as_millis()).bind(int(DB_LEADS_MAX));
    let rows = session.rows(query).await?;
    let mut leads = Vec::new();
    for row in &rows {
        if row.try_get(2)? {
            leads.push(read_lead_id(row.try_get(1)?)?);
        }
    }
    let last = rows.last().filter(|_| rows.len() == DB_LEADS_MAX && !leads.is_empty());
    let next = last.map(|row| row.try_get::<Int, _>(0)).transpose()?;
    Ok((leads, next.map(|last| last.cast_unsigned() + 1)))
}

/// Leads that never came, and of which everything that was reported is dead and old.
pub(super) async fn never_came(
    session: &mut Session,
    before: Timestamp,
) -> Result<Vec<LeadId>, Failure> {
    let (mut is_old, mut from) = (BTreeMap::new(), (Int::MIN, Int::MIN));
    loop {
        let query = sqlx::query(
            "SELECT lead_id, seq, CASE WHEN \
             NOT EXISTS (SELECT 1 FROM leads WHERE leads.lead_id = d.lead_id) AND \
             NOT EXISTS (SELECT 1 FROM awaiting WHERE awaiting.lead_id = d.lead_id) THEN \
             (SELECT record FROM events WHERE lead_id = d.lead_id AND seq = d.seq) END \
             FROM dead AS d WHERE (lead_id, seq) > ($1, $2) ORDER BY lead_id, seq LIMIT $3",
        );
        let rows = session.rows(query.bind(from.0).bind(from.1).bind(int(DB_LEADS_MAX))).await?;
        for row in &rows {
            from = (row.try_get(0)?, row.try_get(1)?);
            let report: Option<&[u8]> = row.try_get(2)?;
            let Some(report) = report else { continue };
            let event = decode_event(report).inspect_err(|error| {
                tracing::error!(%error, "a record cannot be read, and is not removed");
            });
            let is_event_old = event.is_ok_and(|event| event.received_at < before);
            *is_old.entry(from.0).or_insert(true) &= is_event_old;
        }
        is_old.retain(|lead, is_old| *is_old || *lead == from.0);
        if rows.len() < DB_LEADS_MAX || is_old.len() > DB_LEADS_MAX {
            break;
        }
    }
    let old = is_old.into_iter().filter(|(_, is_old)| *is_old).take(DB_LEADS_MAX);
    old.map(|(lead, _)| Ok(read_lead_id(lead)?)).collect()
}
