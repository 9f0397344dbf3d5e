//! Opening a database: its schema, what it is for, and a place among its instances.

use std::sync::Arc;

use secrecy::SecretString;
use sqlx::Row as _;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::store::postgres::connect::Hosts;
use crate::store::postgres::error::Failure;
use crate::store::postgres::instance::{Numbers, SLOTS};
use crate::store::postgres::leases::Leases;
use crate::store::postgres::rows::Int;
use crate::store::postgres::session::{Database, Faults, NoFaults, Place, Session};
use crate::store::postgres::transfer::refuse_unfinished;
use crate::store::postgres::tries::Tries;
use crate::store::postgres::writer::Writer;
use crate::store::postgres::{PostgresStore, migrate};
use crate::store::{Purpose, StoreError};

impl PostgresStore {
    /// Opens a database and brings its schema up to date. `owner` names this instance: a random
    /// number that no other one has.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] if the URL is none, or the database has another purpose or is
    /// newer than this program; [`StoreError::Unavailable`] if it can't be reached.
    pub async fn open(
        url: &SecretString,
        purpose: Purpose,
        owner: u64,
    ) -> Result<Self, StoreError> {
        Self::open_with(url, purpose, owner, Arc::new(NoFaults)).await
    }

    /// The same with faults.
    pub(super) async fn open_with(
        url: &SecretString,
        purpose: Purpose,
        owner: u64,
        faults: Arc<dyn Faults>,
    ) -> Result<Self, StoreError> {
        let mut database = Database::at(url, owner, faults)?;
        migrate::migrate(&database.pool, owner.cast_signed()).await?;
        let mut tries = Tries::new(&database);
        let (slot, last) = loop {
            match join(&database, purpose, owner).await {
                Ok(place) => break place,
                Err(failure) => tries.again_after(failure).await?,
            }
        };
        let numbers = Numbers::after(last, slot);
        let place = Place { owner: owner.cast_signed(), slot: slot.cast_signed() };
        database.place = Some(place);
        let writer = Writer::start(database.kept_free(), numbers);
        let stop = CancellationToken::new();
        let leases = Leases::start(database.kept_free(), place, stop.clone(), writer.died());
        let probed = Mutex::default();
        Ok(Self { database, writer, leases, probed, _stop: stop.drop_guard() })
    }
}

impl PostgresStore {
    /// Whether a database can be reached, and its schema be worked with by this program; changes
    /// nothing.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(url: &SecretString) -> Result<(), StoreError> {
        let [pool] = Hosts::parse(url)?.pools([1]);
        let mut connection = pool.acquire().await.map_err(Failure::from)?;
        migrate::version(&mut connection).await.map(drop)
    }

    /// Brings the schema of a database up to date; the versions before, if it had one, and after.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] if it is newer than this program.
    pub async fn migrate(url: &SecretString, owner: u64) -> Result<(Option<i64>, i64), StoreError> {
        let [pool] = Hosts::parse(url)?.pools([1]);
        let before = migrate::migrate(&pool, owner.cast_signed()).await?;
        Ok((before, migrate::VERSION))
    }
}

/// Joins those who work on a database: the slot of this instance, and the highest number so far.
async fn join(database: &Database, purpose: Purpose, owner: u64) -> Result<(u64, u64), Failure> {
    let mut session = database.write().await?;
    refuse_unfinished(&mut session).await?;
    check_purpose(&mut session, purpose).await?;
    let slot = take_slot(&mut session, owner).await?;
    count_join(&mut session).await?;
    let last = last_number(&mut session).await?;
    session.commit().await?;
    Ok((slot, last))
}

/// Binds a new database to its purpose; a database for trying things out must not be taken for a
/// live one, nor the other way round.
pub(super) async fn check_purpose(session: &mut Session, purpose: Purpose) -> Result<(), Failure> {
    let number = purpose.number().cast_signed();
    let bind = sqlx::query(
        "INSERT INTO meta (name, value) VALUES ('purpose', $1) ON CONFLICT (name) DO NOTHING",
    );
    session.execute(bind.bind(number)).await?;
    let found = session.rows(sqlx::query("SELECT value FROM meta WHERE name = 'purpose'")).await?;
    let found: Int = found.first().map_or(Ok(number), |row| row.try_get(0))?;
    Ok(purpose.check(Some(found.cast_unsigned()))?)
}

/// Takes a slot that no instance has that was heard of lately.
async fn take_slot(session: &mut Session, owner: u64) -> Result<u64, Failure> {
    for offset in 0..SLOTS {
        let slot = owner.wrapping_add(offset) % SLOTS;
        let taken = sqlx::query(
            "INSERT INTO instances (slot, owner, seen_at) VALUES ($1, $2, now()) \
             ON CONFLICT (slot) DO UPDATE SET owner = excluded.owner, seen_at = now() \
             WHERE instances.seen_at < now() - interval '10 minutes'",
        );
        let taken = taken.bind(slot.cast_signed()).bind(owner.cast_signed());
        if session.execute(taken).await? == 1 {
            return Ok(slot);
        }
    }
    Err(StoreError::Unavailable("too many instances work on the database".into()).into())
}

/// Counts those who have joined, so that whoever copies the database sees that somebody came.
async fn count_join(session: &mut Session) -> Result<(), Failure> {
    let query = sqlx::query(
        "INSERT INTO meta (name, value) VALUES ('joins', 1) \
         ON CONFLICT (name) DO UPDATE SET value = meta.value + 1",
    );
    session.execute(query).await.map(drop)
}

/// The highest number that was ever given out and is still seen.
async fn last_number(session: &mut Session) -> Result<u64, Failure> {
    let query = sqlx::query(
        "SELECT greatest((SELECT max(seq) FROM leads), (SELECT max(seq) FROM events), \
         (SELECT max(seq) FROM quarantine), (SELECT max(seq) FROM unmapped), 0)",
    );
    let found = session.rows(query).await?;
    let last: Int = found.first().map_or(Ok(0), |row| row.try_get(0))?;
    Ok(last.cast_unsigned())
}
