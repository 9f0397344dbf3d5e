//! Writing what use cases changed: one statement for each table and kind of change.

use crate::domain::matching::contact_keys;
use crate::store::postgres::error::Failure;
use crate::store::postgres::rows::{
    Difference, EventKey, Int, KeyRow, LeadRow, Place, QuarantineRow, Rows,
};
use crate::store::postgres::session::Session;
use crate::store::records::decode_customer;

/// Splits rows into columns.
macro_rules! columns {
    ($rows:expr => $($column:ident),+; $row:pat => $($value:expr),+) => {
        $(let mut $column = Vec::with_capacity($rows.len());)+
        for $row in $rows {
            $($column.push($value);)+
        }
    };
}

pub(super) use columns;

/// Writes the difference between the rows before and after.
pub(super) async fn save(session: &mut Session, before: &Rows, after: Rows) -> Result<(), Failure> {
    leads(session, Difference::between(&before.leads, after.leads)).await?;
    events(session, Difference::between(&before.events, after.events)).await?;
    outbox(session, Difference::between(&before.outbox, after.outbox)).await?;
    awaiting(session, Difference::between(&before.awaiting, after.awaiting)).await?;
    dead(session, Difference::between(&before.dead, after.dead)).await?;
    attempts(session, Difference::between(&before.attempts, after.attempts)).await?;
    erased(session, Difference::between(&before.erased, after.erased)).await?;
    links(session, Difference::between(&before.crm_ids, after.crm_ids)).await?;
    customers(session, before, Difference::between(&before.customers, after.customers)).await?;
    found_leads(session, Difference::between(&before.found_leads, after.found_leads)).await?;
    keys(session, Difference::between(&before.keys, after.keys)).await?;
    quarantine(session, Difference::between(&before.quarantine, after.quarantine)).await
}

async fn leads(
    session: &mut Session,
    Difference { put, gone }: Difference<Int, LeadRow>,
) -> Result<(), Failure> {
    if !put.is_empty() {
        columns!(put => ids, seqs, times, records; (id, row) =>
            id, row.seq, row.received_at_ms, row.record);
        let query = sqlx::query(
            "INSERT INTO leads (lead_id, seq, received_at_ms, record) \
             SELECT * FROM UNNEST($1::int8[], $2::int8[], $3::int8[], $4::bytea[]) \
             ON CONFLICT (lead_id) DO UPDATE SET seq = excluded.seq, \
             received_at_ms = excluded.received_at_ms, record = excluded.record",
        );
        session.execute(query.bind(ids).bind(seqs).bind(times).bind(records)).await?;
    }
    if !gone.is_empty() {
        let query = sqlx::query("DELETE FROM leads WHERE lead_id = ANY($1)");
        session.execute(query.bind(gone)).await?;
    }
    Ok(())
}

async fn events(
    session: &mut Session,
    Difference { put, gone }: Difference<EventKey, Vec<u8>>,
) -> Result<(), Failure> {
    if !put.is_empty() {
        columns!(put => leads, seqs, records; ((lead, seq), record) => lead, seq, record);
        let query = sqlx::query(
            "INSERT INTO events (lead_id, seq, record) \
             SELECT * FROM UNNEST($1::int8[], $2::int8[], $3::bytea[]) \
             ON CONFLICT (lead_id, seq) DO UPDATE SET record = excluded.record",
        );
        session.execute(query.bind(leads).bind(seqs).bind(records)).await?;
    }
    let query = "DELETE FROM events WHERE (lead_id, seq) IN \
                 (SELECT * FROM UNNEST($1::int8[], $2::int8[]))";
    delete_events(session, query, gone).await
}

/// Runs a statement that removes the rows of some events, if there are any.
async fn delete_events(
    session: &mut Session,
    statement: &'static str,
    gone: Vec<EventKey>,
) -> Result<(), Failure> {
    if !gone.is_empty() {
        let (leads, seqs): (Vec<Int>, Vec<Int>) = gone.into_iter().unzip();
        session.execute(sqlx::query(statement).bind(leads).bind(seqs)).await?;
    }
    Ok(())
}

async fn outbox(
    session: &mut Session,
    Difference { put, gone }: Difference<Place, Int>,
) -> Result<(), Failure> {
    // What moves to another queue leaves the first one first.
    if !gone.is_empty() {
        columns!(gone => datasets, times, reported, seqs; (dataset, time, is_reported, seq) =>
            dataset, time, is_reported, seq);
        let query = sqlx::query(
            "DELETE FROM outbox WHERE (dataset_id, event_time, reported, seq) IN \
             (SELECT * FROM UNNEST($1::int8[], $2::int8[], $3::bool[], $4::int8[]))",
        );
        let query = query.bind(datasets).bind(times).bind(reported).bind(seqs);
        session.execute(query).await?;
    }
    if !put.is_empty() {
        columns!(put => datasets, times, reported, seqs, leads;
            ((dataset, time, is_reported, seq), lead) => dataset, time, is_reported, seq, lead);
        let query = sqlx::query(
            "INSERT INTO outbox (dataset_id, event_time, reported, seq, lead_id) \
             SELECT * FROM UNNEST($1::int8[], $2::int8[], $3::bool[], $4::int8[], $5::int8[])",
        );
        let query = query.bind(datasets).bind(times).bind(reported).bind(seqs).bind(leads);
        session.execute(query).await?;
    }
    Ok(())
}

async fn awaiting(
    session: &mut Session,
    Difference { put, gone }: Difference<EventKey, (Int, Int)>,
) -> Result<(), Failure> {
    if !put.is_empty() {
        columns!(put => leads, seqs, times, tolerances; ((lead, seq), (time, tolerance)) =>
            lead, seq, time, tolerance);
        let query = sqlx::query(
            "INSERT INTO awaiting (lead_id, seq, event_time, tolerance_s) \
             SELECT * FROM UNNEST($1::int8[], $2::int8[], $3::int8[], $4::int8[]) \
             ON CONFLICT (lead_id, seq) DO UPDATE SET event_time = excluded.event_time, \
             tolerance_s = excluded.tolerance_s",
        );
        session.execute(query.bind(leads).bind(seqs).bind(times).bind(tolerances)).await?;
    }
    let query = "DELETE FROM awaiting WHERE (lead_id, seq) IN \
                 (SELECT * FROM UNNEST($1::int8[], $2::int8[]))";
    delete_events(session, query, gone).await
}

async fn dead(
    session: &mut Session,
    Difference { put, gone }: Difference<EventKey, (i16, Int)>,
) -> Result<(), Failure> {
    if !put.is_empty() {
        columns!(put => leads, seqs, reasons, times; ((lead, seq), (reason, at_ms)) =>
            lead, seq, reason, at_ms);
        let query = sqlx::query(
            "INSERT INTO dead (lead_id, seq, reason, at_ms) \
             SELECT * FROM UNNEST($1::int8[], $2::int8[], $3::int2[], $4::int8[]) \
             ON CONFLICT (lead_id, seq) DO UPDATE SET reason = excluded.reason, \
             at_ms = excluded.at_ms",
        );
        session.execute(query.bind(leads).bind(seqs).bind(reasons).bind(times)).await?;
    }
    let query = "DELETE FROM dead WHERE (lead_id, seq) IN \
                 (SELECT * FROM UNNEST($1::int8[], $2::int8[]))";
    delete_events(session, query, gone).await
}

async fn attempts(
    session: &mut Session,
    Difference { put, gone }: Difference<(Int, Int, Int), (bool, Vec<u8>)>,
) -> Result<(), Failure> {
    if !put.is_empty() {
        columns!(put => leads, seqs, numbers, delivered, records;
            ((lead, seq, number), (is_delivered, record)) =>
            lead, seq, number, is_delivered, record);
        let query = sqlx::query(
            "INSERT INTO attempts (lead_id, seq, number, delivered, record) \
             SELECT * FROM UNNEST($1::int8[], $2::int8[], $3::int8[], $4::bool[], $5::bytea[])",
        );
        let query = query.bind(leads).bind(seqs).bind(numbers).bind(delivered).bind(records);
        session.execute(query).await?;
    }
    // Attempts go with their event, those that were not read, too.
    let mut events: Vec<EventKey> = gone.into_iter().map(|(lead, seq, _)| (lead, seq)).collect();
    events.dedup();
    let query = "DELETE FROM attempts WHERE (lead_id, seq) IN \
                 (SELECT * FROM UNNEST($1::int8[], $2::int8[]))";
    delete_events(session, query, events).await
}

async fn erased(
    session: &mut Session,
    Difference { put, .. }: Difference<Int, Int>,
) -> Result<(), Failure> {
    if !put.is_empty() {
        let (leads, times): (Vec<Int>, Vec<Int>) = put.into_iter().unzip();
        let query = sqlx::query(
            "INSERT INTO erased (lead_id, at_ms) SELECT * FROM UNNEST($1::int8[], $2::int8[]) \
             ON CONFLICT (lead_id) DO NOTHING",
        );
        session.execute(query.bind(leads).bind(times)).await?;
    }
    Ok(())
}

async fn links(
    session: &mut Session,
    Difference { put, gone }: Difference<(String, String), Int>,
) -> Result<(), Failure> {
    if !put.is_empty() {
        columns!(put => crm_ids, sources, leads; ((crm_id, source), lead) => crm_id, source, lead);
        let query = sqlx::query(
            "INSERT INTO crm_ids (crm_id, source, lead_id) \
             SELECT * FROM UNNEST($1::text[], $2::text[], $3::int8[]) \
             ON CONFLICT (crm_id, source) DO UPDATE SET lead_id = excluded.lead_id",
        );
        session.execute(query.bind(crm_ids).bind(sources).bind(leads)).await?;
    }
    if !gone.is_empty() {
        let (crm_ids, sources): (Vec<String>, Vec<String>) = gone.into_iter().unzip();
        let query = sqlx::query(
            "DELETE FROM crm_ids WHERE (crm_id, source) IN \
             (SELECT * FROM UNNEST($1::text[], $2::text[]))",
        );
        session.execute(query.bind(crm_ids).bind(sources)).await?;
    }
    Ok(())
}

/// Writes what is known of persons, and keeps the contacts by which they are found in step.
async fn customers(
    session: &mut Session,
    before: &Rows,
    Difference { put, gone }: Difference<Int, Vec<u8>>,
) -> Result<(), Failure> {
    if !put.is_empty() {
        let (mut contacts, mut persons) = (Vec::new(), Vec::new());
        for (lead, record) in &put {
            for (_, contact) in contact_keys(&decode_customer(record)?) {
                contacts.push(contact.to_vec());
                persons.push(*lead);
            }
        }
        let (leads, records): (Vec<Int>, Vec<Vec<u8>>) = put.into_iter().unzip();
        let query = sqlx::query(
            "INSERT INTO customers (lead_id, record) \
             SELECT * FROM UNNEST($1::int8[], $2::bytea[]) \
             ON CONFLICT (lead_id) DO UPDATE SET record = excluded.record",
        );
        session.execute(query.bind(leads).bind(records)).await?;
        if !contacts.is_empty() {
            // What is known of a person only grows.
            let query = sqlx::query(
                "INSERT INTO contacts (contact, lead_id) \
                 SELECT * FROM UNNEST($1::bytea[], $2::int8[]) \
                 ON CONFLICT (contact, lead_id) DO NOTHING",
            );
            session.execute(query.bind(contacts).bind(persons)).await?;
        }
    }
    if !gone.is_empty() {
        let (mut contacts, mut persons) = (Vec::new(), Vec::new());
        for lead in &gone {
            for (_, contact) in contact_keys(&decode_customer(&before.customers[lead])?) {
                contacts.push(contact.to_vec());
                persons.push(*lead);
            }
        }
        let query = sqlx::query("DELETE FROM customers WHERE lead_id = ANY($1)");
        session.execute(query.bind(gone)).await?;
        if !contacts.is_empty() {
            let query = sqlx::query(
                "DELETE FROM contacts WHERE (contact, lead_id) IN \
                 (SELECT * FROM UNNEST($1::bytea[], $2::int8[]))",
            );
            session.execute(query.bind(contacts).bind(persons)).await?;
        }
    }
    Ok(())
}

async fn found_leads(
    session: &mut Session,
    Difference { put, gone }: Difference<Int, Int>,
) -> Result<(), Failure> {
    if !put.is_empty() {
        let (own, leads): (Vec<Int>, Vec<Int>) = put.into_iter().unzip();
        let query = sqlx::query(
            "INSERT INTO found_leads (own_id, lead_id) \
             SELECT * FROM UNNEST($1::int8[], $2::int8[]) \
             ON CONFLICT (own_id) DO UPDATE SET lead_id = excluded.lead_id",
        );
        session.execute(query.bind(own).bind(leads)).await?;
    }
    if !gone.is_empty() {
        let query = sqlx::query("DELETE FROM found_leads WHERE own_id = ANY($1)");
        session.execute(query.bind(gone)).await?;
    }
    Ok(())
}

async fn keys(
    session: &mut Session,
    Difference { put, gone }: Difference<Vec<u8>, KeyRow>,
) -> Result<(), Failure> {
    if !put.is_empty() {
        columns!(put => keys, leads, seqs, fingerprints; (key, row) =>
            key, row.lead_id, row.seq, row.fingerprint);
        let query = sqlx::query(
            "INSERT INTO idempotency (key, lead_id, seq, fingerprint) \
             SELECT * FROM UNNEST($1::bytea[], $2::int8[], $3::int8[], $4::bytea[]) \
             ON CONFLICT (key) DO UPDATE SET lead_id = excluded.lead_id, seq = excluded.seq, \
             fingerprint = excluded.fingerprint",
        );
        session.execute(query.bind(keys).bind(leads).bind(seqs).bind(fingerprints)).await?;
    }
    if !gone.is_empty() {
        let query = sqlx::query("DELETE FROM idempotency WHERE key = ANY($1)");
        session.execute(query.bind(gone)).await?;
    }
    Ok(())
}

async fn quarantine(
    session: &mut Session,
    Difference { put, .. }: Difference<Vec<u8>, QuarantineRow>,
) -> Result<(), Failure> {
    if !put.is_empty() {
        columns!(put => digests, seqs, times, records; (digest, row) =>
            digest, row.seq, row.received_at_ms, row.record);
        let query = sqlx::query(
            "INSERT INTO quarantine (digest, seq, received_at_ms, record) \
             SELECT * FROM UNNEST($1::bytea[], $2::int8[], $3::int8[], $4::bytea[]) \
             ON CONFLICT (digest) DO NOTHING",
        );
        session.execute(query.bind(digests).bind(seqs).bind(times).bind(records)).await?;
    }
    Ok(())
}
