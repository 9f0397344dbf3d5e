//! The schema and its versions.
//!
//! Migrations are checked in and only ever added to. They run under a lock row, since not every
//! engine that speaks PostgreSQL's protocol has other locks, and each of their statements may be
//! run twice.

use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{PgConnection, PgPool, SqlStr};
use tokio::time::timeout;

use crate::limits::MIGRATION_LOCK;
use crate::store::StoreError;
use crate::store::postgres::error::Failure;
use crate::store::postgres::session::answer;

/// All migrations, the oldest first: version, name, statements.
const MIGRATIONS: [(i64, &str, &str); 1] =
    [(1, "initial", include_str!("migrations/0001_initial.sql"))];

/// The version of the schema that this program knows.
pub(super) const VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// How often it is looked whether another instance has ended its migration.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Brings the schema to the version that this program knows; which one it had before, if any.
///
/// # Errors
/// [`StoreError::Unsupported`] if the schema is newer than this program.
pub(super) async fn migrate(pool: &PgPool, owner: i64) -> Result<Option<i64>, StoreError> {
    let mut connection = pool.acquire().await.map_err(Failure::from)?;
    let before = version(&mut connection).await?;
    if before == Some(VERSION) {
        return Ok(before);
    }
    lock(&mut connection, owner).await?;
    let migrated = run(&mut connection).await;
    let query = sqlx::query("UPDATE migration_lock SET until = 'epoch' WHERE owner = $1");
    // If this fails, the lock ends by itself.
    let _ = answer(query.bind(owner).execute(&mut *connection)).await;
    migrated?;
    Ok(before)
}

async fn run(connection: &mut PgConnection) -> Result<(), StoreError> {
    let migrations = MIGRATIONS.map(|(version, name, statements)| {
        let statements = SqlStr::from_static(statements);
        Migration::new(version, name.into(), MigrationType::Simple, statements, true)
    });
    let mut migrator = Migrator::with_migrations(migrations.to_vec());
    migrator.set_locking(false);
    let failed = |error| StoreError::Unavailable(format!("the schema: {error}"));
    let migrating = Box::pin(migrator.run_direct(None, connection, false));
    // Longer than that, and another instance begins.
    let migrated = timeout(MIGRATION_LOCK, migrating).await.map_err(|_| Failure::Silence)?;
    migrated.map_err(failed)
}

/// The version of the schema, if there is one.
///
/// # Errors
/// [`StoreError::Unsupported`] if it is newer than this program.
pub(super) async fn version(connection: &mut PgConnection) -> Result<Option<i64>, StoreError> {
    let query = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL");
    let exists: bool = answer(query.fetch_one(&mut *connection)).await?;
    if !exists {
        return Ok(None);
    }
    let query = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations");
    let version: Option<i64> = answer(query.fetch_one(&mut *connection)).await?;
    match version {
        Some(version) if version > VERSION => Err(StoreError::Unsupported(format!(
            "the database has schema {version} and this program knows {VERSION}; use the newer \
             program, which has migrated it"
        ))),
        version => Ok(version),
    }
}

/// Waits until nobody else migrates.
async fn lock(connection: &mut PgConnection, owner: i64) -> Result<(), StoreError> {
    let statements = [
        "CREATE TABLE IF NOT EXISTS migration_lock \
         (id int8 PRIMARY KEY, owner int8 NOT NULL, until timestamptz NOT NULL)",
        "INSERT INTO migration_lock VALUES (1, 0, 'epoch') ON CONFLICT (id) DO NOTHING",
    ];
    for statement in statements {
        // Two that make the table at once: one of them fails, and finds it the next time.
        if answer(sqlx::query(statement).execute(&mut *connection)).await.is_err() {
            tokio::time::sleep(LOOK_AGAIN).await;
            answer(sqlx::query(statement).execute(&mut *connection)).await?;
        }
    }
    let mut looks = 2 * MIGRATION_LOCK.as_millis() / LOOK_AGAIN.as_millis();
    while looks > 0 {
        looks -= 1;
        let locked = sqlx::query(
            "UPDATE migration_lock SET owner = $1, until = now() + make_interval(secs => $2) \
             WHERE id = 1 AND (until < now() OR owner = $1)",
        );
        let locked = locked.bind(owner).bind(MIGRATION_LOCK.as_secs_f64());
        let locked = answer(locked.execute(&mut *connection)).await?;
        if locked.rows_affected() == 1 {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Err(StoreError::Unavailable("another instance has been migrating the schema too long".into()))
}
