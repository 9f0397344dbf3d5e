//! That an answer is given when what it says is durable, and that nobody's list is in the way.

use crate::limits::{DB_CONNECTIONS_KEPT, DB_CONNECTIONS_MAX, DB_PROBE_EVERY};
use crate::store::conformance::support::{ingest, lead};
use crate::store::postgres::tests::on_database;
use crate::store::{Duty, LeadOutcome, Store};

/// Notes who writes the row of an instance: duties are renewed outside of transactions.
const NOTE_WRITES: [&str; 3] = [
    "CREATE TABLE writes (isolation text)",
    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
     INSERT INTO writes VALUES (current_setting('transaction_isolation')); RETURN NULL; END $$",
    "CREATE TRIGGER noted AFTER UPDATE ON instances FOR EACH ROW EXECUTE FUNCTION note()",
];

#[tokio::test]
async fn what_is_said_to_be_there_already_waits_for_a_standby_by_a_write_of_its_own() {
    on_database(async |store| {
        let pool = &store.database.pool;
        for statement in NOTE_WRITES {
            sqlx::query(statement).execute(pool).await.unwrap();
        }
        let count = "SELECT count(*) FROM writes WHERE isolation = 'serializable'";
        let writes = async || sqlx::query_scalar::<_, i64>(count).fetch_one(pool).await.unwrap();
        assert_eq!(ingest(store, &[lead(1)]).await, [LeadOutcome::New]);
        assert_eq!(writes().await, 0, "the lead was written");
        assert_eq!(ingest(store, &[lead(1)]).await, [LeadOutcome::Duplicate]);
        assert_eq!(writes().await, 1);
        assert!(!store.end_unmapped(7).await.unwrap());
        assert_eq!(writes().await, 2);
    })
    .await;
}

#[tokio::test]
async fn lists_that_take_all_connections_keep_nobody_from_writing() {
    on_database(async |store| {
        let mut lists = Vec::new();
        for _ in DB_CONNECTIONS_KEPT..DB_CONNECTIONS_MAX {
            lists.push(store.database.pool.acquire().await.unwrap());
        }
        assert!(store.database.pool.try_acquire().is_none());
        assert_eq!(ingest(store, &[lead(1)]).await, [LeadOutcome::New]);
        assert!(store.hold(Duty::Reading).await.unwrap().is_some());
        store.probe().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn however_many_ask_whether_it_is_ready_one_write_answers_them() {
    on_database(async |store| {
        let statements = || store.database().unwrap().statements;
        store.probe().await.unwrap();
        let before = statements();
        tokio::time::pause();
        for _ in 0..100 {
            store.probe().await.unwrap();
        }
        assert_eq!(statements(), before);
        tokio::time::advance(DB_PROBE_EVERY).await;
        tokio::time::resume();
        store.probe().await.unwrap();
        assert!(statements() > before);
    })
    .await;
}
