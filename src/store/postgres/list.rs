//! Lists, newest first, and figures.
//!
//! A list is looked through in chunks: the next numbers from the table that knows, then all that
//! hangs on their leads, and the filter decides as it does everywhere.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;
use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::Query;

use crate::domain::event::{EventDetail, EventState, LeadSummary};
use crate::domain::ids::LeadId;
use crate::domain::time::Timestamp;
use crate::limits::{DB_SCAN_CHUNK, PAGE_SCAN_MAX};
use crate::store::memory::State;
use crate::store::postgres::error::Failure;
use crate::store::postgres::load::{Seeds, int, leads_of_contacts, load};
use crate::store::postgres::queue::{fronts, read_leads};
use crate::store::postgres::rows::{Int, lead_column, read_lead_id};
use crate::store::postgres::session::Session;
use crate::store::query::{EventFilter, LeadFilter, Page, PageBuilder, PageRequest};
use crate::store::records::decode_quarantined;
use crate::store::{Quarantined, Stats};

/// The numbers of rows and their leads, in the order of a list.
type Chunk = Vec<(u64, LeadId)>;

/// Reads the numbers and leads that a query finds.
async fn chunk(
    session: &mut Session,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<Chunk, Failure> {
    let mut chunk = Vec::new();
    for row in session.rows(query).await? {
        let seq = row.try_get::<Int, _>(0)?.cast_unsigned();
        chunk.push((seq, read_lead_id(row.try_get(1)?)?));
    }
    Ok(chunk)
}

/// What is known of the leads of a chunk.
async fn state_of(session: &mut Session, chunk: &Chunk) -> Result<State, Failure> {
    let seeds = Seeds::leads(chunk.iter().map(|(_, lead_id)| *lead_id));
    Ok(load(session, &seeds).await?.to_state()?)
}

/// A bound as a number in a column; the highest is above all of them.
fn below(cursor: Option<u64>) -> Int {
    cursor.and_then(|cursor| Int::try_from(cursor).ok()).unwrap_or(Int::MAX)
}

/// See [`crate::store::Store::list_leads`].
pub(super) async fn list_leads(
    session: &mut Session,
    filter: &LeadFilter,
    page: PageRequest,
    now: Timestamp,
) -> Result<Page<LeadSummary>, Failure> {
    if let Some(found) = found_leads(session, filter).await? {
        return list_found(session, filter, found, page, now).await;
    }
    let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
    let mut cursor = page.cursor;
    loop {
        let query =
            sqlx::query("SELECT seq, lead_id FROM leads WHERE seq < $1 ORDER BY seq DESC LIMIT $2");
        let query = query.bind(below(cursor)).bind(int(DB_SCAN_CHUNK));
        let rows = chunk(session, query).await?;
        let state = state_of(session, &rows).await?;
        for (seq, lead_id) in &rows {
            let lead = state.lead(*lead_id);
            let item = lead.and_then(|lead| state.lead_summary(filter, lead, now));
            if !builder.offer(*seq, item) {
                return Ok(builder.finish());
            }
        }
        if rows.len() < DB_SCAN_CHUNK {
            return Ok(builder.finish());
        }
        cursor = rows.last().map(|(seq, _)| *seq);
    }
}

/// A page of leads that were found by what the filter says of the person or the CRM's record.
async fn list_found(
    session: &mut Session,
    filter: &LeadFilter,
    found: BTreeSet<Int>,
    page: PageRequest,
    now: Timestamp,
) -> Result<Page<LeadSummary>, Failure> {
    let mut leads = Vec::new();
    for lead_id in found {
        leads.push(read_lead_id(lead_id)?);
    }
    let state = load(session, &Seeds::leads(leads).whole()).await?.to_state()?;
    Ok(state.list_leads(filter, page, now))
}

/// The leads that are found by what the filter says of the person or the CRM's record; `None` if
/// it says nothing.
async fn found_leads(
    session: &mut Session,
    filter: &LeadFilter,
) -> Result<Option<BTreeSet<Int>>, Failure> {
    let mut found: Option<BTreeSet<Int>> = None;
    let mut narrow = |leads: Vec<Int>| {
        let leads: BTreeSet<Int> = leads.into_iter().collect();
        found = Some(match found.take() {
            Some(before) => before.intersection(&leads).copied().collect(),
            None => leads,
        });
    };
    if let Some(crm_id) = &filter.crm_id {
        let query = sqlx::query("SELECT lead_id FROM crm_ids WHERE crm_id = $1 LIMIT $2");
        let query = query.bind(crm_id.as_str()).bind(int(DB_SCAN_CHUNK));
        let leads = read_leads(&session.rows(query).await?)?;
        narrow(leads.into_iter().map(lead_column).collect());
    }
    for contact in filter.email.iter().chain(&filter.phone) {
        narrow(leads_of_contacts(session, &[*contact]).await?);
    }
    Ok(found)
}

/// The statement that finds the events of a state, newest first or, for what is dead, oldest first.
fn events_of(filter: &EventFilter, oldest_first: bool) -> &'static str {
    match (filter.only_state(), oldest_first) {
        (Some(EventState::Dead), false) => {
            "SELECT seq, lead_id FROM dead WHERE seq < $1 ORDER BY seq DESC LIMIT $2"
        }
        (Some(EventState::Dead), true) => {
            "SELECT seq, lead_id FROM dead WHERE seq > $1 ORDER BY seq LIMIT $2"
        }
        (Some(EventState::AwaitingLead), _) => {
            "SELECT seq, lead_id FROM awaiting WHERE seq < $1 ORDER BY seq DESC LIMIT $2"
        }
        (Some(EventState::Pending | EventState::Held), _) => {
            "SELECT seq, lead_id FROM outbox WHERE seq < $1 ORDER BY seq DESC LIMIT $2"
        }
        _ => {
            "SELECT seq, lead_id FROM (\
               (SELECT seq, lead_id FROM leads WHERE seq < $1 ORDER BY seq DESC LIMIT $2) \
               UNION ALL \
               (SELECT seq, lead_id FROM events WHERE seq < $1 ORDER BY seq DESC LIMIT $2)\
             ) AS newest ORDER BY seq DESC LIMIT $2"
        }
    }
}

/// See [`crate::store::Store::list_events`].
pub(super) async fn list_events(
    session: &mut Session,
    filter: &EventFilter,
    page: PageRequest,
    now: Timestamp,
) -> Result<Page<EventDetail>, Failure> {
    if let Some(lead_id) = filter.lead_id {
        let state = load(session, &Seeds::lead(lead_id)).await?.to_state()?;
        return Ok(state.list_events(filter, page, now));
    }
    let pages = look_through(session, filter, page, now, false).await?;
    let items = pages.items.into_iter().map(|(_, detail)| detail).collect();
    Ok(Page { items, next_cursor: pages.next_cursor })
}

/// Dead letters that pass a filter, oldest first: see [`crate::store::query::DeadLetters`].
pub(super) async fn oldest_dead(
    session: &mut Session,
    filter: &EventFilter,
    page: PageRequest,
    now: Timestamp,
) -> Result<Page<(u64, EventDetail)>, Failure> {
    let filter = EventFilter { state: Some(EventState::Dead), ..filter.clone() };
    look_through(session, &filter, page, now, true).await
}

async fn look_through(
    session: &mut Session,
    filter: &EventFilter,
    page: PageRequest,
    now: Timestamp,
    oldest_first: bool,
) -> Result<Page<(u64, EventDetail)>, Failure> {
    let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
    let statement = events_of(filter, oldest_first);
    let mut from = match page.cursor {
        None if oldest_first => 0,
        cursor => below(cursor),
    };
    loop {
        let query = sqlx::query(statement).bind(from).bind(int(DB_SCAN_CHUNK));
        let rows = chunk(session, query).await?;
        let state = state_of(session, &rows).await?;
        for (seq, _) in &rows {
            // A lead without a raw-lead event has a number, and no event.
            let passes = state.events.contains_key(seq) && state.admits(filter, *seq, now);
            if !builder.offer(*seq, passes.then(|| (*seq, state.summary(*seq)))) {
                return Ok(builder.finish());
            }
        }
        if rows.len() < DB_SCAN_CHUNK {
            return Ok(builder.finish());
        }
        from = rows.last().map_or(from, |(seq, _)| seq.cast_signed());
    }
}

/// See [`crate::store::Store::list_quarantine`].
pub(super) async fn list_quarantine(
    session: &mut Session,
    page: PageRequest,
) -> Result<Page<Quarantined>, Failure> {
    let query =
        sqlx::query("SELECT seq, record FROM quarantine WHERE seq < $1 ORDER BY seq DESC LIMIT $2");
    let query = query.bind(below(page.cursor)).bind(int(page.limit.saturating_add(1)));
    let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
    for row in session.rows(query).await? {
        let seq = row.try_get::<Int, _>(0)?.cast_unsigned();
        if !builder.offer(seq, Some(decode_quarantined(row.try_get(1)?)?)) {
            break;
        }
    }
    Ok(builder.finish())
}

/// See [`crate::store::Store::stats`].
pub(super) async fn stats(session: &mut Session) -> Result<Stats, Failure> {
    session.read_whole_tables().await?;
    let query = sqlx::query(
        "SELECT 'leads', count(*) FROM leads UNION ALL SELECT 'queued', count(*) FROM outbox \
         UNION ALL SELECT 'awaiting', count(*) FROM awaiting \
         UNION ALL SELECT 'dead', count(*) FROM dead \
         UNION ALL SELECT 'quarantined', count(*) FROM quarantine \
         UNION ALL SELECT 'unmapped', count(*) FROM unmapped",
    );
    let mut counts = BTreeMap::new();
    for row in session.rows(query).await? {
        let (name, count): (String, Int) = (row.try_get(0)?, row.try_get(1)?);
        counts.insert(name, count.cast_unsigned());
    }
    let count = |name| counts.get(name).copied().unwrap_or(0);
    Ok(Stats {
        leads: count("leads"),
        queued: count("queued"),
        awaiting: count("awaiting"),
        dead: count("dead"),
        quarantined: count("quarantined"),
        unmapped: count("unmapped"),
        fronts: fronts(session).await?,
    })
}
