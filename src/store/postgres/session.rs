//! A transaction on one connection: every statement of the store goes through here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use secrecy::SecretString;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{PgPool, Transaction};
use tokio::time::{Instant, timeout};

use crate::clock::{Random, SeededRandom};
use crate::limits::{DB_ANSWER_TIMEOUT, DB_CONNECTIONS_KEPT, DB_CONNECTIONS_MAX, DB_TRIES_MAX};
use crate::store::StoreError;
use crate::store::postgres::connect::Hosts;
use crate::store::postgres::error::Failure;
use crate::store::postgres::rows::Int;

/// Begins a transaction that is as if it were alone. One that was not is refused by the database
/// with 40001 and done again; so no use case has to think of locks.
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";
/// Begins a transaction that sees one moment.
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// A transaction.
pub(super) struct Session {
    transaction: Transaction<'static, Postgres>,
    traffic: Arc<Traffic>,
    faults: Arc<dyn Faults>,
    place: Option<Place>,
    /// Whether a row was written.
    has_written: bool,
}

/// What an instance is known by: its owner's number, and its slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) owner: Int,
    pub(super) slot: Int,
}

/// The way to the database.
#[derive(Clone)]
pub(super) struct Database {
    /// The connections of this way.
    pub(super) pool: PgPool,
    /// Those for everything, and those kept free for who writes and who renews duties.
    pub(super) pools: [PgPool; 2],
    /// Which instance goes it, if one does.
    pub(super) place: Option<Place>,
    pub(super) hosts: Arc<Hosts>,
    /// By which instances wait differently.
    pub(super) random: Arc<dyn Random>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) faults: Arc<dyn Faults>,
}

/// What went over the way, since the start.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) statements: AtomicU64,
    pub(super) statements_us: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) lost: AtomicU64,
}

impl Traffic {
    /// Counts a statement that began at a moment and has ended.
    fn count(&self, began_at: Instant) {
        let took_us = u64::try_from(began_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.statements.fetch_add(1, Ordering::Relaxed);
        self.statements_us.fetch_add(took_us, Ordering::Relaxed);
    }
}

impl Database {
    /// The way to the database of a URL, which nobody has gone yet. `seed` is a number that others
    /// have not.
    pub(super) fn at(
        url: &SecretString,
        seed: u64,
        faults: Arc<dyn Faults>,
    ) -> Result<Self, StoreError> {
        let hosts = Arc::new(Hosts::parse(url)?);
        let pools = hosts.pools(faults.connections());
        let (pool, traffic, place) = (pools[0].clone(), Arc::default(), None);
        let random = Arc::new(SeededRandom::new(seed));
        Ok(Self { pool, pools, place, hosts, random, traffic, faults })
    }

    /// The same by connections that long lists leave free.
    pub(super) fn kept_free(&self) -> Self {
        Self { pool: self.pools[1].clone(), ..self.clone() }
    }

    /// Begins to write.
    pub(super) async fn write(&self) -> Result<Session, Failure> {
        self.begin(BEGIN_WRITE).await
    }

    /// Begins to read.
    pub(super) async fn read(&self) -> Result<Session, Failure> {
        self.begin(BEGIN_READ).await
    }

    /// Looks for the server that takes writes, if that may be another one after a failure.
    pub(super) fn look_elsewhere_after(&self, failure: &Failure) {
        if failure.is_absence() {
            self.hosts.look_for_primary(&self.pools);
        }
    }

    async fn begin(&self, statement: &'static str) -> Result<Session, Failure> {
        self.faults.begin();
        let statement = self.faults.beginning(statement);
        let transaction = answer(self.pool.begin_with(statement)).await?;
        let (traffic, faults) = (self.traffic.clone(), self.faults.clone());
        Ok(Session { transaction, traffic, faults, place: self.place, has_written: false })
    }
}

impl Session {
    /// Runs a query.
    pub(super) async fn rows(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, Failure> {
        self.faults.strike(&mut self.transaction).await?;
        let began_at = Instant::now();
        let rows = answer(query.fetch_all(&mut *self.transaction)).await;
        self.traffic.count(began_at);
        rows
    }

    /// Lets the rest of the transaction read tables from end to end where that takes less time.
    pub(super) async fn read_whole_tables(&mut self) -> Result<(), Failure> {
        self.rows(sqlx::query("SELECT set_config('enable_seqscan', 'on', true)")).await.map(drop)
    }

    /// Runs a query whose rows are taken as they come.
    pub(super) async fn stream<'s>(
        &'s mut self,
        query: Query<'s, Postgres, PgArguments>,
    ) -> Result<BoxStream<'s, sqlx::Result<PgRow>>, Failure> {
        self.faults.strike(&mut self.transaction).await?;
        Ok(query.fetch(&mut *self.transaction))
    }

    /// Runs a statement; how many rows it changed.
    pub(super) async fn execute(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<u64, Failure> {
        self.faults.strike(&mut self.transaction).await?;
        let began_at = Instant::now();
        let done = answer(query.execute(&mut *self.transaction)).await;
        self.traffic.count(began_at);
        let rows = done?.rows_affected();
        self.has_written |= rows > 0;
        Ok(rows)
    }

    /// Makes everything durable. On an error it is unknown whether it is.
    ///
    /// What was found there is durable, too: a commit that wrote nothing would not wait for a
    /// standby, also if what it found is not there yet. So the instance writes its own row then.
    pub(super) async fn commit(mut self) -> Result<(), Failure> {
        if let Some(Place { owner, slot }) = self.place.filter(|_| !self.has_written) {
            let query =
                sqlx::query("UPDATE instances SET seen_at = now() WHERE slot = $1 AND owner = $2");
            self.execute(query.bind(slot).bind(owner)).await?;
        }
        let Self { mut transaction, traffic, faults, .. } = self;
        faults.strike(&mut transaction).await?;
        let began_at = Instant::now();
        let committed = answer(transaction.commit()).await;
        traffic.count(began_at);
        committed
    }
}

/// Waits for an answer of the database, and not for ever: what it is asked of may be gone.
pub(super) fn answer<T>(
    asked: impl Future<Output = sqlx::Result<T>>,
) -> impl Future<Output = Result<T, Failure>> {
    answer_within(DB_ANSWER_TIMEOUT, asked)
}

/// The same for so long.
pub(super) fn answer_within<T>(
    longest: Duration,
    asked: impl Future<Output = sqlx::Result<T>>,
) -> impl Future<Output = Result<T, Failure>> {
    // In a box, or whoever asks much would be large.
    let answered = timeout(longest, Box::pin(asked));
    async { Ok(answered.await.map_err(|_| Failure::Silence)??) }
}

/// What may go wrong besides what goes wrong by itself: nothing, but in tests.
#[async_trait]
pub(super) trait Faults: Send + Sync {
    /// A transaction begins.
    fn begin(&self) {}

    /// How it begins, where it would with a statement.
    fn beginning(&self, statement: &'static str) -> &'static str {
        statement
    }

    /// Before a statement or the commit.
    async fn strike(&self, _: &mut Transaction<'static, Postgres>) -> Result<(), Failure> {
        Ok(())
    }

    /// How many connections there may be, and how many besides for who writes.
    fn connections(&self) -> [u32; 2] {
        [DB_CONNECTIONS_MAX - DB_CONNECTIONS_KEPT, DB_CONNECTIONS_KEPT]
    }

    /// How often a transaction is tried.
    fn tries_max(&self) -> u32 {
        DB_TRIES_MAX
    }

    /// Whether everything is made to fail, and to be done again at once.
    fn is_forced(&self) -> bool {
        false
    }
}

/// Nothing goes wrong besides.
pub(super) struct NoFaults;

impl Faults for NoFaults {}
