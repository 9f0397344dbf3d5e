//! The records of a database, for another store, and of another store, for a database.
//!
//! They are read in one transaction, as of one moment, and written in many: whoever is interrupted
//! goes on, because a record that is there already is the same. Until all of them are there and
//! were seen to be the same as in the other store, a mark keeps instances away.

use std::sync::Arc;

use futures_util::TryStreamExt;
use secrecy::SecretString;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};
use tokio::sync::mpsc;

use crate::domain::matching::contact_keys;
use crate::limits::TRANSFER_QUIET;
use crate::store::postgres::error::Failure;
use crate::store::postgres::migrate;
use crate::store::postgres::open::check_purpose;
use crate::store::postgres::rows::Int;
use crate::store::postgres::session::{Database, NoFaults, Session};
use crate::store::postgres::tries::{Tries, reading, writing};
use crate::store::records::decode_customer;
use crate::store::transfer::{Batch, Gathering, Kind, Record, Value};
use crate::store::{Purpose, StoreError};

/// The mark of a database that a copy goes to: a number by which the copy is known.
const MARK: &str = "copying";

/// The type of a column, and what it is in a record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Int,
    /// A number of two bytes.
    Small,
    /// Whether something is so: 0 or 1.
    Flag,
    Text,
    Bytes,
}

use Type::{Bytes, Flag, Int as Number, Small, Text};

/// The table of the records of a kind, and its columns in the order of a record.
struct Table(&'static str, &'static [(&'static str, Type)]);

impl Table {
    const fn of(kind: Kind) -> Self {
        const LEAD: (&str, Type) = ("lead_id", Number);
        const SEQ: (&str, Type) = ("seq", Number);
        const RECEIVED: (&str, Type) = ("received_at_ms", Number);
        const DATASET: (&str, Type) = ("dataset_id", Number);
        const EVENT_TIME: (&str, Type) = ("event_time", Number);
        const AT: (&str, Type) = ("at_ms", Number);
        const DIGEST: (&str, Type) = ("digest", Bytes);
        const SOURCE: (&str, Type) = ("source", Text);
        const RECORD: (&str, Type) = ("record", Bytes);
        let columns: &'static [_] = match kind {
            Kind::Leads => &[LEAD, SEQ, RECEIVED, RECORD],
            Kind::Events => &[LEAD, SEQ, RECORD],
            Kind::Outbox => &[DATASET, EVENT_TIME, ("reported", Flag), SEQ, LEAD],
            Kind::Awaiting => &[LEAD, SEQ, EVENT_TIME, ("tolerance_s", Number)],
            Kind::Dead => &[LEAD, SEQ, ("reason", Small), AT],
            Kind::Attempts => &[LEAD, SEQ, ("number", Number), ("delivered", Flag), RECORD],
            Kind::Erased => &[LEAD, AT],
            Kind::CrmIds => &[("crm_id", Text), SOURCE, LEAD],
            Kind::FoundLeads => &[("own_id", Number), LEAD],
            Kind::Customers => &[LEAD, RECORD],
            Kind::Idempotency => &[("key", Bytes), LEAD, SEQ, ("fingerprint", Bytes)],
            Kind::Quarantine => &[DIGEST, SEQ, RECEIVED, RECORD],
            Kind::Unmapped => &[DIGEST, SEQ, SOURCE, RECEIVED, RECORD],
            Kind::FormMarks => &[("form_id", Number), RECORD],
            Kind::ApiKeys => &[DIGEST],
            Kind::Alarms => &[("subject", Text), ("first_at_ms", Number), RECORD],
            Kind::AlarmConditions => &[("kind", Small), DATASET, ("since_ms", Number)],
            Kind::Facts => &[("name", Text), ("value", Number)],
        };
        let name = match kind {
            Kind::Facts => "meta",
            kind => kind.name(),
        };
        Self(name, columns)
    }

    /// The query for all records of a kind.
    fn select(kind: Kind) -> String {
        let Self(name, columns) = Self::of(kind);
        let columns = columns.iter().map(|(column, column_type)| match column_type {
            Small => format!("{column}::int8"),
            Flag => format!("{column}::int::int8"),
            Number | Text | Bytes => (*column).to_owned(),
        });
        let from = match kind {
            // Attempts of an event are taken in their order.
            Kind::Attempts => "attempts ORDER BY lead_id, seq, number",
            // The lead of an event may have been found since the key was written.
            Kind::Idempotency => {
                "(SELECT key, owner.lead_id, seq, fingerprint FROM idempotency JOIN \
                 (SELECT lead_id, seq FROM events UNION ALL SELECT lead_id, seq FROM leads) \
                 AS owner USING (seq)) AS keys"
            }
            Kind::Facts => "meta WHERE name IN ('alarms', 'seq') AND value <> 0",
            _ => name,
        };
        format!("SELECT {} FROM {from}", columns.collect::<Vec<_>>().join(", "))
    }

    /// The statement that writes records of a kind, each column an argument. A record that is there
    /// is the same.
    fn insert(&self) -> String {
        let (mut columns, mut values, mut arrays) = (Vec::new(), Vec::new(), Vec::new());
        for (number, (column, column_type)) in (1..).zip(self.1) {
            columns.push(*column);
            let (array, value) = match column_type {
                Number => ("int8", (*column).to_owned()),
                Small => ("int8", format!("{column}::int2")),
                Flag => ("int8", format!("{column} <> 0")),
                Text => ("text", (*column).to_owned()),
                Bytes => ("bytea", (*column).to_owned()),
            };
            values.push(value);
            arrays.push(format!("${number}::{array}[]"));
        }
        let (columns, values) = (columns.join(", "), values.join(", "));
        let (name, arrays) = (self.0, arrays.join(", "));
        format!(
            "INSERT INTO {name} ({columns}) SELECT {values} \
             FROM UNNEST({arrays}) AS new ({columns}) ON CONFLICT DO NOTHING"
        )
    }
}

// ---- Reading ----------------------------------------------------------------------------------

/// A database that records are read from.
pub(in crate::store) struct DatabaseSource {
    database: Database,
    pub(in crate::store) purpose: Purpose,
    /// What instances left, as it was found.
    traces: Traces,
}

impl DatabaseSource {
    /// Finds a database that no instance works on.
    pub(in crate::store) async fn open(
        url: &SecretString,
        jitter: u64,
    ) -> Result<Self, StoreError> {
        let database = Database::at(url, jitter, Arc::new(NoFaults))?;
        let mut connection = database.pool.acquire().await.map_err(Failure::from)?;
        if migrate::version(&mut connection).await? != Some(migrate::VERSION) {
            let problem = "it has no schema, or an older one; `leadloop migrate` makes it";
            return Err(StoreError::Unsupported(problem.into()));
        }
        drop(connection);
        let mut source = Self { database, purpose: Purpose::Live, traces: Traces::default() };
        (source.purpose, source.traces) = reading!(source, session => async {
            refuse_unfinished(session).await?;
            refuse_instances(session).await?;
            Ok((purpose(session).await?, traces(session).await?))
        })?;
        Ok(source)
    }

    /// Sends all records, as of one moment. A lost connection ends it.
    pub(in crate::store) async fn send(
        &self,
        batches: mpsc::Sender<Batch>,
    ) -> Result<(), StoreError> {
        let mut session = self.database.read().await?;
        // It takes as long as the other store does.
        for setting in ["statement_timeout", "idle_in_transaction_session_timeout"] {
            let query = sqlx::query("SELECT set_config($1, '0', true)");
            session.rows(query.bind(setting)).await?;
        }
        session.read_whole_tables().await?;
        for kind in Kind::ALL {
            let mut gathering = Gathering::of(kind, &batches);
            let query = sqlx::query(AssertSqlSafe(Table::select(kind)));
            let mut rows = session.stream(query).await?;
            while let Some(row) = rows.try_next().await.map_err(Failure::from)? {
                gathering.send(read_record(&row, kind)?).await?;
            }
            drop(rows);
            gathering.end().await?;
        }
        Ok(())
    }

    /// Fails if an instance has worked on the database since it was opened here.
    pub(in crate::store) async fn check_unchanged(&self) -> Result<(), StoreError> {
        if reading!(self, session => traces(session))? != self.traces {
            let problem = "an instance has worked on it meanwhile; stop all, and begin again";
            return Err(StoreError::Unavailable(problem.into()));
        }
        Ok(())
    }
}

fn read_record(row: &PgRow, kind: Kind) -> Result<Record, Failure> {
    let columns = Table::of(kind).1.iter().enumerate();
    let values = columns.map(|(index, (_, column_type))| match column_type {
        Number | Small | Flag => row.try_get(index).map(Value::Int),
        Text => row.try_get(index).map(Value::Text),
        Bytes => row.try_get(index).map(Value::Bytes),
    });
    Ok(values.collect::<Result<_, _>>()?)
}

// ---- Writing ----------------------------------------------------------------------------------

/// A database that records are written to.
pub(in crate::store) struct DatabaseTarget {
    pub(super) database: Database,
    purpose: Purpose,
}

impl DatabaseTarget {
    /// Begins a copy that is known by a number, in an empty database, or goes on with it if that is
    /// wished. The schema is made or brought up to date.
    pub(in crate::store) async fn begin(
        url: &SecretString,
        purpose: Purpose,
        (copy, go_on): (u64, bool),
        jitter: u64,
    ) -> Result<Self, StoreError> {
        let database = Database::at(url, jitter, Arc::new(NoFaults))?;
        migrate::migrate(&database.pool, jitter.cast_signed()).await?;
        let target = Self { database, purpose };
        writing!(target, session => async {
            refuse_instances(session).await?;
            check_purpose(session, purpose).await?;
            begin(session, copy.cast_signed(), go_on).await
        })?;
        Ok(target)
    }

    /// Writes some records, durably.
    pub(in crate::store) async fn put(&self, batch: &Batch) -> Result<(), StoreError> {
        if batch.records.is_empty() {
            return Ok(());
        }
        // These are durable from then on; whoever begins again finds them.
        writing!(self, session => insert(session, batch))
    }

    /// The database as it is by now.
    pub(in crate::store) fn as_source(&self) -> DatabaseSource {
        let (database, purpose) = (self.database.clone(), self.purpose);
        DatabaseSource { database, purpose, traces: Traces::default() }
    }

    /// Lets instances work on it.
    pub(in crate::store) async fn publish(&self) -> Result<(), StoreError> {
        // From then on the store is there as a whole; before, no instance takes it.
        writing!(self, session => async {
            let query = sqlx::query("DELETE FROM meta WHERE name = $1");
            session.execute(query.bind(MARK)).await
        })
        .map(drop)
    }
}

/// Marks a database as one that a copy goes to.
async fn begin(session: &mut Session, copy: Int, go_on: bool) -> Result<(), Failure> {
    let problem = match mark(session).await? {
        Some(found) if found != copy => {
            "a copy of another store, or of another state of this one, was begun there; empty it"
        }
        Some(_) if !go_on => "this copy was begun there; --force goes on with it",
        None if !is_empty(session).await? => "it is not empty; choose an empty one",
        Some(_) | None => {
            let query = sqlx::query(
                "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
            );
            return session.execute(query.bind(MARK).bind(copy)).await.map(drop);
        }
    };
    Err(StoreError::Unsupported(problem.into()).into())
}

async fn insert(session: &mut Session, batch: &Batch) -> Result<(), Failure> {
    let table = Table::of(batch.kind);
    let mut query = sqlx::query(AssertSqlSafe(table.insert()));
    for (index, (_, column_type)) in table.1.iter().enumerate() {
        let values = batch.records.iter().map(|record| &record[index]);
        query = match column_type {
            Number | Small | Flag => {
                query.bind(values.map(Value::as_int).collect::<Result<Vec<_>, _>>()?)
            }
            Text => query.bind(values.map(Value::as_text).collect::<Result<Vec<_>, _>>()?),
            Bytes => query.bind(values.map(Value::as_bytes).collect::<Result<Vec<_>, _>>()?),
        };
    }
    session.execute(query).await?;
    if batch.kind == Kind::Customers {
        insert_contacts(session, &batch.records).await?;
    }
    Ok(())
}

/// Writes by what persons are found.
async fn insert_contacts(session: &mut Session, customers: &[Record]) -> Result<(), Failure> {
    let (mut contacts, mut persons) = (Vec::new(), Vec::new());
    for customer in customers {
        for (_, contact) in contact_keys(&decode_customer(customer[1].as_bytes()?)?) {
            contacts.push(contact.to_vec());
            persons.push(customer[0].as_int()?);
        }
    }
    let query = sqlx::query(
        "INSERT INTO contacts (contact, lead_id) \
         SELECT * FROM UNNEST($1::bytea[], $2::int8[]) ON CONFLICT DO NOTHING",
    );
    session.execute(query.bind(contacts).bind(persons)).await.map(drop)
}

// ---- Looking ----------------------------------------------------------------------------------

/// Refuses a database that a copy went to and that is not known to be whole.
pub(super) async fn refuse_unfinished(session: &mut Session) -> Result<(), Failure> {
    if mark(session).await?.is_none() {
        return Ok(());
    }
    let problem = "a copy to it was not finished; `leadloop store copy --force` goes on with it";
    Err(StoreError::Unsupported(problem.into()).into())
}

/// The mark of a database that a copy goes to.
async fn mark(session: &mut Session) -> Result<Option<Int>, Failure> {
    let query = sqlx::query("SELECT value FROM meta WHERE name = $1").bind(MARK);
    let rows = session.rows(query).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

/// Refuses a database that instances work on.
async fn refuse_instances(session: &mut Session) -> Result<(), Failure> {
    let query = sqlx::query(
        "SELECT 1 FROM instances WHERE seen_at > now() - make_interval(secs => $1) LIMIT 1",
    );
    if session.rows(query.bind(TRANSFER_QUIET.as_secs_f64())).await?.is_empty() {
        return Ok(());
    }
    let quiet = TRANSFER_QUIET.as_secs();
    let problem = format!(
        "an instance has worked on it in the last {quiet} seconds; stop all, and wait as long"
    );
    Err(StoreError::Unsupported(problem).into())
}

/// What instances leave on a database: when one was seen last, in microseconds, and how many have
/// come, since one that goes in good order is not seen any more.
type Traces = (Option<Int>, Option<Int>);

async fn traces(session: &mut Session) -> Result<Traces, Failure> {
    let query = sqlx::query(
        "SELECT (SELECT max((extract(epoch FROM seen_at) * 1000000)::int8) FROM instances), \
         (SELECT value FROM meta WHERE name = 'joins')",
    );
    let rows = session.rows(query).await?;
    let Some(row) = rows.first() else { return Ok(Traces::default()) };
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// What the database is for.
async fn purpose(session: &mut Session) -> Result<Purpose, Failure> {
    let rows = session.rows(sqlx::query("SELECT value FROM meta WHERE name = 'purpose'")).await?;
    let found: Option<Int> = rows.first().map(|row| row.try_get(0)).transpose()?;
    let known = [Purpose::Live, Purpose::Sandbox];
    let purpose = known.into_iter().find(|it| Some(it.number().cast_signed()) == found);
    let unknown = || StoreError::Unsupported("no instance has ever worked on it".into());
    Ok(purpose.ok_or_else(unknown)?)
}

/// Whether there is no record in the database.
async fn is_empty(session: &mut Session) -> Result<bool, Failure> {
    for kind in Kind::ALL {
        let query = format!("SELECT 1 FROM ({}) AS records LIMIT 1", Table::select(kind));
        if !session.rows(sqlx::query(AssertSqlSafe(query))).await?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}
