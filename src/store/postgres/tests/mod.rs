//! What only a store on a database can promise.

pub mod cluster;
pub(in crate::store) mod faults;
mod instances;

use crate::store::Purpose;
use crate::store::postgres::PostgresStore;
use crate::store::postgres::tests::cluster::TestDatabase;

/// The name of the instance in tests with one.
const OWNER: u64 = 7;

/// Runs a test on an empty database.
pub(in crate::store) async fn on_database(test: impl AsyncFnOnce(&PostgresStore)) {
    on_faulty_database(false, test).await;
}

/// Runs a test on an empty database where, if wanted, each statement and commit of each transaction
/// fails once: with a conflict, a deadlock or a lost connection.
pub(in crate::store) async fn on_faulty_database(
    is_forced: bool,
    test: impl AsyncFnOnce(&PostgresStore),
) {
    let database = TestDatabase::new().await;
    let store = PostgresStore::open(&database.url(), Purpose::Live, OWNER).await.unwrap();
    if is_forced {
        store.database.faults.force();
    }
    test(&store).await;
    assert_eq!(is_forced, store.database.faults.struck() > 0, "the faults happened");
    drop(store);
    database.end().await;
}
