//! Reading the part of the database that a use case is about: some leads with all that hangs on
//! them, and whoever else may turn out to be the same person.

use std::collections::BTreeSet;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use crate::domain::customer::Customer;
use crate::domain::event::{KeyDigest, StageUpdate, short_digest};
use crate::domain::ids::{DatasetId, EventId, LeadId};
use crate::domain::matching::{ContactKey, CrmId, contact_keys, own_id_of_record};
use crate::domain::stage::SourceName;
use crate::limits::{ATTEMPTS_SHOWN_MAX, MATCH_CANDIDATES_MAX, MATCH_ROUNDS_MAX};
use crate::store::postgres::error::Failure;
use crate::store::postgres::rows::{
    Int, KeyRow, LeadRow, Place, QuarantineRow, Rows, dataset_column, lead_column,
};
use crate::store::postgres::session::Session;
use crate::store::records::decode_customer;
use crate::store::{Intake, QueueEntry, Settlement};

/// What a use case is about, before anything was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Seeds {
    leads: BTreeSet<Int>,
    links: BTreeSet<(String, String)>,
    contacts: BTreeSet<ContactKey>,
    keys: BTreeSet<KeyDigest>,
    places: BTreeSet<(Int, QueueEntry)>,
    pieces: BTreeSet<KeyDigest>,
    /// Whether people with the same e-mail address or phone number matter, too.
    neighbours: bool,
    /// Whether links and idempotency keys of the leads matter, too.
    whole: bool,
}

impl Seeds {
    /// A lead, for looking at it or for sending its events.
    pub(super) fn lead(lead_id: LeadId) -> Self {
        Self::leads([lead_id])
    }

    /// Some leads.
    pub(super) fn leads(lead_ids: impl IntoIterator<Item = LeadId>) -> Self {
        Self { leads: lead_ids.into_iter().map(lead_column).collect(), ..Self::default() }
    }

    /// The leads that some events are or were of.
    pub(super) fn events(event_ids: impl IntoIterator<Item = EventId>) -> Self {
        Self::leads(event_ids.into_iter().map(EventId::lead_id))
    }

    /// Everything that hangs on the leads, too.
    pub(super) fn whole(self) -> Self {
        Self { whole: true, ..self }
    }

    /// A link, and who is filed under its record.
    pub(super) fn add_link(&mut self, source: &SourceName, crm_id: &CrmId) {
        self.neighbours = true;
        self.links.insert((crm_id.to_string(), source.to_string()));
        self.leads.insert(lead_column(own_id_of_record(source, crm_id)));
    }

    /// A person.
    pub(super) fn add_customer(&mut self, customer: &Customer) {
        self.neighbours = true;
        self.contacts.extend(contact_keys(customer).into_iter().map(|(_, key)| key));
    }

    /// What a webhook brought.
    pub(super) fn intake(intake: &Intake) -> Self {
        let leads = Self::leads(intake.leads.iter().map(|lead| lead.reported.lead_id));
        let pieces = intake.quarantined.iter().map(|piece| short_digest(&[&piece.payload]));
        Self { pieces: pieces.collect(), neighbours: true, ..leads }
    }

    /// What CRMs reported.
    pub(super) fn updates(updates: &[StageUpdate]) -> Self {
        let mut seeds = Self { neighbours: true, ..Self::default() };
        for update in updates {
            let own = update.own_id();
            seeds.leads.extend(update.lead.lead_id.into_iter().chain([own]).map(lead_column));
            if let Some(crm_id) = &update.lead.crm_id {
                seeds.add_link(&update.source, crm_id);
            }
            seeds.add_customer(&update.customer);
            seeds.keys.extend(update.key_digest().into_iter().chain(update.report_digest()));
        }
        seeds
    }

    /// The events in a queue that a settlement is about, without what else is known of their leads.
    pub(super) fn settlement(settlement: &Settlement) -> Self {
        let dead = settlement.dead.iter().map(|(entry, _)| entry);
        let entries = settlement.delivered.iter().chain(&settlement.failed).chain(dead);
        Self::entries(settlement.dataset_id, entries.copied())
    }

    /// The events at places in a queue.
    pub(super) fn entries(
        dataset_id: DatasetId,
        entries: impl IntoIterator<Item = QueueEntry>,
    ) -> Self {
        let dataset = dataset_column(Some(dataset_id));
        let places = entries.into_iter().map(|entry| (dataset, entry)).collect();
        Self { places, ..Self::default() }
    }

    /// How much there is to read, at least.
    pub(super) fn weight(&self) -> usize {
        self.leads.len() + self.contacts.len() + self.places.len() + self.pieces.len()
    }

    /// Those of several use cases together.
    pub(super) fn merge(&mut self, other: Self) {
        self.leads.extend(other.leads);
        self.links.extend(other.links);
        self.contacts.extend(other.contacts);
        self.keys.extend(other.keys);
        self.places.extend(other.places);
        self.pieces.extend(other.pieces);
        self.neighbours |= other.neighbours;
        self.whole |= other.whole;
    }
}

/// Reads all that the use cases may look at.
pub(super) async fn load(session: &mut Session, seeds: &Seeds) -> Result<Rows, Failure> {
    let mut rows = Rows::default();
    let mut leads = seeds.leads.clone();
    leads.extend(leads_of_links(session, seeds, &mut rows).await?);
    leads.extend(leads_of_keys(session, seeds, &mut rows).await?);
    let mut occupied = occupied(session, seeds).await?;
    load_pieces(session, seeds, &mut rows).await?;
    let (mut contacts, mut known) = (seeds.contacts.clone(), BTreeSet::new());
    let mut known_contacts = BTreeSet::new();
    // Somebody's record leads to their address, that to somebody else's record, and so on; never
    // far, and what lies beyond the bound is found when it is reported again.
    for _ in 0..MATCH_ROUNDS_MAX {
        let new: Vec<ContactKey> = contacts.difference(&known_contacts).copied().collect();
        leads.extend(leads_of_contacts(session, &new).await?);
        known_contacts.extend(new);
        let new: Vec<Int> = leads.difference(&known).copied().collect();
        if new.is_empty() {
            break;
        }
        load_leads(session, &new, seeds.whole, &mut rows).await?;
        known.extend(new);
        leads.extend(rows.found_leads.iter().flat_map(|(own, lead)| [own, lead]));
        if seeds.neighbours {
            for record in rows.customers.values() {
                contacts.extend(contact_keys(&decode_customer(record)?).iter().map(|(_, key)| key));
            }
        }
    }
    occupied.retain(|(_, lead)| !known.contains(lead));
    load_events(session, occupied, &mut rows).await?;
    rows.leave_out_keys_of_others();
    Ok(rows)
}

async fn leads_of_links(
    session: &mut Session,
    seeds: &Seeds,
    rows: &mut Rows,
) -> Result<Vec<Int>, Failure> {
    if seeds.links.is_empty() {
        return Ok(Vec::new());
    }
    let (crm_ids, sources): (Vec<String>, Vec<String>) = seeds.links.iter().cloned().unzip();
    let query = sqlx::query(
        "SELECT crm_id, source, lead_id FROM crm_ids WHERE (crm_id, source) IN \
         (SELECT * FROM UNNEST($1::text[], $2::text[]))",
    );
    read_links(session.rows(query.bind(crm_ids).bind(sources)).await?, rows)
}

fn read_links(found: Vec<PgRow>, rows: &mut Rows) -> Result<Vec<Int>, Failure> {
    let mut leads = Vec::new();
    for row in found {
        let lead_id: Int = row.try_get(2)?;
        rows.crm_ids.insert((row.try_get(0)?, row.try_get(1)?), lead_id);
        leads.push(lead_id);
    }
    Ok(leads)
}

/// Idempotency keys, each with the lead that its event has by now: that may have been found since.
const KEYS: &str = "\
    SELECT known.key, coalesce(events.lead_id, known.lead_id), known.seq, known.fingerprint \
    FROM idempotency AS known LEFT JOIN events ON events.seq = known.seq";

async fn leads_of_keys(
    session: &mut Session,
    seeds: &Seeds,
    rows: &mut Rows,
) -> Result<Vec<Int>, Failure> {
    if seeds.keys.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<Vec<u8>> = seeds.keys.iter().map(|key| key.to_vec()).collect();
    let query = sqlx::query(AssertSqlSafe(format!("{KEYS} WHERE known.key = ANY($1)")));
    read_keys(session.rows(query.bind(keys)).await?, rows)
}

fn read_keys(found: Vec<PgRow>, rows: &mut Rows) -> Result<Vec<Int>, Failure> {
    let mut leads = Vec::new();
    for row in found {
        let (lead_id, seq) = (row.try_get(1)?, row.try_get(2)?);
        let key_row = KeyRow { lead_id, seq, fingerprint: row.try_get(3)? };
        rows.keys.insert(row.try_get(0)?, key_row);
        leads.push(lead_id);
    }
    Ok(leads)
}

/// Places in queues with the leads of their events, those that are there.
async fn occupied(session: &mut Session, seeds: &Seeds) -> Result<Vec<(Place, Int)>, Failure> {
    if seeds.places.is_empty() {
        return Ok(Vec::new());
    }
    let (mut datasets, mut times) = (Vec::new(), Vec::new());
    let (mut reported, mut seqs) = (Vec::new(), Vec::new());
    for (dataset, entry) in &seeds.places {
        datasets.push(*dataset);
        times.push(entry.event_time.get());
        reported.push(entry.reported);
        seqs.push(entry.seq.cast_signed());
    }
    let query = sqlx::query(
        "SELECT dataset_id, event_time, reported, seq, lead_id FROM outbox \
         WHERE (dataset_id, event_time, reported, seq) IN \
         (SELECT * FROM UNNEST($1::int8[], $2::int8[], $3::bool[], $4::int8[]))",
    );
    let found = session.rows(query.bind(datasets).bind(times).bind(reported).bind(seqs)).await?;
    let place = |row: &PgRow| {
        let (dataset, time) = (row.try_get(0)?, row.try_get(1)?);
        Ok(((dataset, time, row.try_get(2)?, row.try_get(3)?), row.try_get(4)?))
    };
    found.iter().map(place).collect()
}

/// The events at places in queues, without what else is known of their leads: if that can't be
/// read, they are ended all the same.
const EVENTS: &str = "\
    SELECT 1::int2, lead_id, seq, received_at_ms, 0::int8, false, record \
        FROM leads WHERE lead_id = ANY($1) \
    UNION ALL SELECT 2::int2, lead_id, seq, 0, 0, false, record \
        FROM events WHERE (lead_id, seq) IN (SELECT * FROM UNNEST($2::int8[], $3::int8[])) \
    UNION ALL SELECT 6::int2, lead_id, seq, number, 0, delivered, record FROM (\
        SELECT *, row_number() OVER (PARTITION BY lead_id, seq ORDER BY number DESC) AS back \
        FROM attempts WHERE (lead_id, seq) IN (SELECT * FROM UNNEST($2::int8[], $3::int8[]))\
    ) AS numbered WHERE back <= $4";

async fn load_events(
    session: &mut Session,
    occupied: Vec<(Place, Int)>,
    rows: &mut Rows,
) -> Result<(), Failure> {
    if occupied.is_empty() {
        return Ok(());
    }
    let (mut raw, mut leads, mut seqs) = (Vec::new(), Vec::new(), Vec::new());
    for (place @ (_, _, is_reported, seq), lead) in occupied {
        if !is_reported {
            raw.push(lead);
        }
        leads.push(lead);
        seqs.push(seq);
        rows.outbox.insert(place, lead);
    }
    let query = sqlx::query(EVENTS).bind(raw).bind(leads).bind(seqs);
    for row in session.rows(query.bind(int(ATTEMPTS_SHOWN_MAX))).await? {
        read_fact(&row, rows)?;
    }
    Ok(())
}

async fn load_pieces(session: &mut Session, seeds: &Seeds, rows: &mut Rows) -> Result<(), Failure> {
    if seeds.pieces.is_empty() {
        return Ok(());
    }
    let digests: Vec<Vec<u8>> = seeds.pieces.iter().map(|digest| digest.to_vec()).collect();
    let query = sqlx::query(
        "SELECT digest, seq, received_at_ms, record FROM quarantine WHERE digest = ANY($1)",
    );
    for row in session.rows(query.bind(digests)).await? {
        let (seq, received_at_ms) = (row.try_get(1)?, row.try_get(2)?);
        let piece = QuarantineRow { seq, received_at_ms, record: row.try_get(3)? };
        rows.quarantine.insert(row.try_get(0)?, piece);
    }
    Ok(())
}

/// The leads that some contacts are known of: of Meta's and of our own ids the highest each.
pub(super) async fn leads_of_contacts(
    session: &mut Session,
    contacts: &[ContactKey],
) -> Result<Vec<Int>, Failure> {
    if contacts.is_empty() {
        return Ok(Vec::new());
    }
    let contacts: Vec<Vec<u8>> = contacts.iter().map(|key| key.to_vec()).collect();
    let query = sqlx::query(
        "SELECT found.lead_id FROM UNNEST($1::bytea[]) AS asked (contact) CROSS JOIN LATERAL (\
           (SELECT lead_id FROM contacts WHERE contact = asked.contact AND lead_id >= 0 \
            ORDER BY lead_id DESC LIMIT $2) \
           UNION ALL \
           (SELECT lead_id FROM contacts WHERE contact = asked.contact AND lead_id < 0 \
            ORDER BY lead_id DESC LIMIT $2)\
         ) AS found",
    );
    let found = session.rows(query.bind(contacts).bind(int(MATCH_CANDIDATES_MAX))).await?;
    Ok(found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// A bound as an argument.
pub(super) fn int(bound: usize) -> Int {
    Int::try_from(bound).unwrap_or(Int::MAX)
}

/// All that hangs on some leads, in one answer: which table a row is of, and its columns. What
/// belongs to events is looked for only where there are some: most leads of a webhook are new.
const FACTS: &str = "\
    WITH came AS MATERIALIZED \
        (SELECT lead_id, seq, received_at_ms, record FROM leads WHERE lead_id = ANY($1)), \
    reported AS MATERIALIZED \
        (SELECT lead_id, seq, record FROM events WHERE lead_id = ANY($1)), \
    known AS MATERIALIZED \
        (SELECT lead_id FROM came UNION SELECT lead_id FROM reported) \
    SELECT 1::int2, lead_id, seq, received_at_ms, 0::int8, false, record FROM came \
    UNION ALL SELECT 2::int2, lead_id, seq, 0, 0, false, record FROM reported \
    UNION ALL SELECT 3::int2, lead_id, seq, dataset_id, event_time, reported, ''::bytea \
        FROM outbox WHERE lead_id = ANY(ARRAY(SELECT lead_id FROM known)) \
    UNION ALL SELECT 4::int2, lead_id, seq, event_time, tolerance_s, false, ''::bytea \
        FROM awaiting WHERE lead_id = ANY(ARRAY(SELECT lead_id FROM known)) \
    UNION ALL SELECT 5::int2, lead_id, seq, reason, at_ms, false, ''::bytea \
        FROM dead WHERE lead_id = ANY(ARRAY(SELECT lead_id FROM known)) \
    UNION ALL SELECT 6::int2, lead_id, seq, number, 0, delivered, record FROM (\
        SELECT *, row_number() OVER (PARTITION BY lead_id, seq ORDER BY number DESC) AS back \
        FROM attempts WHERE lead_id = ANY(ARRAY(SELECT lead_id FROM known))\
    ) AS numbered WHERE back <= $2 \
    UNION ALL SELECT 7::int2, lead_id, at_ms, 0, 0, false, ''::bytea \
        FROM erased WHERE lead_id = ANY($1) \
    UNION ALL SELECT 8::int2, lead_id, 0, 0, 0, false, record \
        FROM customers WHERE lead_id = ANY($1) \
    UNION ALL SELECT 9::int2, own_id, lead_id, 0, 0, false, ''::bytea \
        FROM found_leads WHERE own_id = ANY($1) OR lead_id = ANY($1)";

async fn load_leads(
    session: &mut Session,
    leads: &[Int],
    whole: bool,
    rows: &mut Rows,
) -> Result<(), Failure> {
    let query = sqlx::query(FACTS).bind(leads).bind(int(ATTEMPTS_SHOWN_MAX));
    for row in session.rows(query).await? {
        read_fact(&row, rows)?;
    }
    if whole {
        let query =
            sqlx::query("SELECT crm_id, source, lead_id FROM crm_ids WHERE lead_id = ANY($1)");
        read_links(session.rows(query.bind(leads)).await?, rows)?;
        let query = sqlx::query(AssertSqlSafe(format!("{KEYS} WHERE known.lead_id = ANY($1)")));
        read_keys(session.rows(query.bind(leads)).await?, rows)?;
    }
    Ok(())
}

fn read_fact(row: &PgRow, rows: &mut Rows) -> Result<(), Failure> {
    let (lead, seq): (Int, Int) = (row.try_get(1)?, row.try_get(2)?);
    let (a, b): (Int, Int) = (row.try_get(3)?, row.try_get(4)?);
    let (flag, record): (bool, Vec<u8>) = (row.try_get(5)?, row.try_get(6)?);
    match row.try_get::<i16, _>(0)? {
        1 => drop(rows.leads.insert(lead, LeadRow { seq, received_at_ms: a, record })),
        2 => drop(rows.events.insert((lead, seq), record)),
        3 => drop(rows.outbox.insert((a, b, flag, seq), lead)),
        4 => drop(rows.awaiting.insert((lead, seq), (a, b))),
        5 => drop(rows.dead.insert((lead, seq), (i16::try_from(a).unwrap_or_default(), b))),
        6 => drop(rows.attempts.insert((lead, seq, a), (flag, record))),
        7 => drop(rows.erased.insert(lead, seq)),
        8 => drop(rows.customers.insert(lead, record)),
        _ => drop(rows.found_leads.insert(lead, seq)),
    }
    Ok(())
}
