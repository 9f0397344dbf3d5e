//! Idempotency keys of events whose lead was found after they were reported.

use crate::domain::intake::Refusal;
use crate::store::Store;
use crate::store::conformance::support::{
    accept, at, ingest, keyed, lead, lead_id, refuse, update,
};
use crate::store::postgres::tests::on_database;

#[tokio::test]
async fn a_key_of_an_event_that_has_another_lead_by_now_is_kept_and_known() {
    on_database(async |store| {
        ingest(store, &[lead(1), lead(2)]).await;
        accept(store, keyed("k", update(2, "won", 60)), at(70)).await;
        // As it is after the event was adopted: the key still names who was reported.
        let moved = "UPDATE idempotency SET lead_id = (SELECT min(lead_id) FROM leads)";
        sqlx::query(moved).execute(&store.database.pool).await.unwrap();
        let conflict = || refuse(store, keyed("k", update(1, "lost", 61)), at(80));
        assert_eq!(conflict().await, Refusal::IdempotencyConflict);
        store.erase_lead(lead_id(1), at(90)).await.unwrap().unwrap();
        assert_eq!(conflict().await, Refusal::IdempotencyConflict, "it is of another lead");
        store.erase_lead(lead_id(2), at(91)).await.unwrap().unwrap();
    })
    .await;
}
