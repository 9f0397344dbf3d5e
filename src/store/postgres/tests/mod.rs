//! What only a store on a database can promise.

pub mod cluster;
mod contention;
mod cuts;
mod durable;
mod encryption;
pub(in crate::store) mod faults;
mod instances;
mod keys;
mod proxy;
mod silence;
mod unreadable;

use std::sync::Arc;

use crate::store::Purpose;
use crate::store::postgres::tests::cluster::TestDatabase;
use crate::store::postgres::tests::faults::Planned;
use crate::store::postgres::{DatabaseTarget, PostgresStore};

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
    let faults = Planned::default();
    let store = open(&database, OWNER, &faults).await;
    if is_forced {
        faults.force();
    }
    test(&store).await;
    assert_eq!(is_forced, faults.struck() > 0, "the faults happened");
    drop(store);
    database.end().await;
}

/// An instance with faults on a database.
async fn open(database: &TestDatabase, owner: u64, faults: &Planned) -> PostgresStore {
    let faults = Arc::new(faults.clone());
    PostgresStore::open_with(&database.url(), Purpose::Live, owner, faults).await.unwrap()
}

impl DatabaseTarget {
    /// The same with faults.
    pub(in crate::store) fn with_faults(mut self, faults: &Planned) -> Self {
        self.database.faults = Arc::new(faults.clone());
        self
    }
}
