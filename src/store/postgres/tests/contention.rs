//! Transactions of others that are in the way again and again.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::postgres::Postgres;
use sqlx::{Executor as _, Transaction};
use tokio::task::JoinSet;

use crate::store::conformance::support::{at, lead};
use crate::store::postgres::PostgresStore;
use crate::store::postgres::error::Failure;
use crate::store::postgres::session::Faults;
use crate::store::postgres::tests::cluster::TestDatabase;
use crate::store::{Intake, LeadOutcome, Purpose, Store as _};

/// Ends each transaction that has written more than a few leads, as others do that are always
/// quicker.
const END_WHAT_IS_LONG: &str = "DO $$ BEGIN \
     IF (SELECT count(*) FROM leads WHERE xmin = pg_current_xact_id()::xid) > 4 \
     THEN RAISE EXCEPTION 'in the way' USING ERRCODE = '40001'; END IF; END $$";

struct QuickOthers;

#[async_trait]
impl Faults for QuickOthers {
    async fn strike(
        &self,
        transaction: &mut Transaction<'static, Postgres>,
    ) -> Result<(), Failure> {
        transaction.execute(END_WHAT_IS_LONG).await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_group_that_others_are_always_in_the_way_of_comes_through_in_parts() {
    let database = TestDatabase::new().await;
    let faults = Arc::new(QuickOthers);
    let store = PostgresStore::open_with(&database.url(), Purpose::Live, 1, faults).await.unwrap();
    let store = Arc::new(store);
    let mut calls = JoinSet::new();
    for number in 1..=64 {
        let (store, leads) = (store.clone(), vec![lead(number)]);
        let intake = Intake { leads, quarantined: Vec::new() };
        calls.spawn(async move { store.ingest(intake, at(5)).await });
    }
    for ingested in calls.join_all().await {
        assert_eq!(ingested.unwrap().outcomes, [LeadOutcome::New]);
    }
    assert!(store.database().unwrap().conflicts > 0, "nobody was in the way");
    drop(store);
    database.end().await;
}
