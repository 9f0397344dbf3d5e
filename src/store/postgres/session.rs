//! A transaction on one connection: every statement of the store goes through here.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{PgPool, Transaction};

use crate::store::postgres::connect::Hosts;
use crate::store::postgres::error::Failure;

/// Begins a transaction that is as if it were alone. One that was not is refused by the database
/// with 40001 and done again; so no use case has to think of locks.
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";
/// Begins a transaction that sees one moment.
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// A transaction.
pub(super) struct Session {
    transaction: Transaction<'static, Postgres>,
    faults: Arc<dyn Faults>,
}

/// The way to the database.
#[derive(Clone)]
pub(super) struct Database {
    pub(super) pool: PgPool,
    pub(super) hosts: Arc<Hosts>,
    /// A number by which instances wait differently.
    pub(super) jitter: u64,
    pub(super) faults: Arc<dyn Faults>,
}

impl Database {
    /// Begins to write.
    pub(super) async fn write(&self) -> Result<Session, Failure> {
        self.begin(BEGIN_WRITE).await
    }

    /// Begins to read.
    pub(super) async fn read(&self) -> Result<Session, Failure> {
        self.begin(BEGIN_READ).await
    }

    async fn begin(&self, statement: &'static str) -> Result<Session, Failure> {
        self.faults.begin();
        let statement = self.faults.beginning(statement);
        let transaction = self.pool.begin_with(statement).await?;
        Ok(Session { transaction, faults: self.faults.clone() })
    }
}

impl Session {
    /// Runs a query.
    pub(super) async fn rows(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, Failure> {
        self.faults.strike(&mut self.transaction).await?;
        Ok(query.fetch_all(&mut *self.transaction).await?)
    }

    /// Runs a statement; how many rows it changed.
    pub(super) async fn execute(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<u64, Failure> {
        self.faults.strike(&mut self.transaction).await?;
        let done = query.execute(&mut *self.transaction).await?;
        Ok(done.rows_affected())
    }

    /// Makes everything durable. On an error it is unknown whether it is.
    pub(super) async fn commit(self) -> Result<(), Failure> {
        let Self { mut transaction, faults } = self;
        faults.strike(&mut transaction).await?;
        Ok(transaction.commit().await?)
    }
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

    /// Whether everything is made to fail, and to be done again without end.
    fn is_forced(&self) -> bool {
        false
    }
}

/// Nothing goes wrong besides.
pub(super) struct NoFaults;

impl Faults for NoFaults {}
