//! Records that can't be read: what they hold up, and what they do not.

use crate::store::conformance::support::{
    DAY, NOBODY, accept, at, attempt, dataset, deliver_due, ingest, lead, piece, settlement,
    timeline, update,
};
use crate::store::postgres::tests::on_database;
use crate::store::{Intake, Settlement, Store};

#[tokio::test]
async fn what_was_delivered_is_written_down_though_another_record_of_the_lead_is_unreadable() {
    on_database(async |store| {
        ingest(store, &[lead(1), lead(2)]).await;
        accept(store, update(1, "won", 60), at(70)).await;
        accept(store, update(2, "won", 60), at(70)).await;
        let damage =
            "UPDATE events SET record = '\\xff' WHERE lead_id = (SELECT min(lead_id) FROM events)";
        sqlx::query(damage).execute(&store.database.pool).await.unwrap();
        let batch = store.next_batch(dataset(1), at(80), 10, &NOBODY).await.unwrap();
        assert_eq!(batch.events.len(), 3, "the fourth cannot be read");
        let delivered = batch.events.iter().map(|queued| queued.entry).collect();
        let delivered = Settlement { delivered, ..settlement(Some(attempt(81, true)), 81) };
        store.settle(Settlement { hold: batch.hold.unwrap(), ..delivered }).await.unwrap();
        let rest = store.next_batch(dataset(1), at(80), 10, &NOBODY).await.unwrap();
        assert_eq!(rest.events, []);
        let expected = ["2 initial_lead delivered", "2 won delivered"];
        assert_eq!(timeline(store, 2, at(90)).await, expected);
        let left = "SELECT count(*) FROM outbox";
        let left: i64 = sqlx::query_scalar(left).fetch_one(&store.database.pool).await.unwrap();
        assert_eq!(left, 1);
    })
    .await;
}

#[tokio::test]
async fn a_lead_that_is_unreadable_keeps_no_other_from_being_removed_for_its_age() {
    on_database(async |store| {
        let numbers = 1..=7;
        let leads = numbers.map(lead).collect();
        let intake = Intake { leads, quarantined: vec![piece("a")] };
        store.ingest(intake, at(5)).await.unwrap();
        deliver_due(store, 9).await;
        let damage =
            "UPDATE leads SET record = '\\xff' WHERE lead_id = (SELECT min(lead_id) FROM leads)";
        sqlx::query(damage).execute(&store.database.pool).await.unwrap();
        let removed = store.remove_old(at(10_000), 0).await.unwrap();
        assert_eq!((removed.leads, removed.quarantined, removed.next), (6, 1, None));
        let left = store.stats().await.unwrap();
        assert_eq!((left.leads, left.quarantined), (1, 0), "what cannot be read is left alone");
    })
    .await;
}

#[tokio::test]
async fn a_lead_that_is_unreadable_keeps_no_other_from_being_given_up() {
    on_database(async |store| {
        for number in 1..=3 {
            accept(store, update(number, "won", 60), at(70)).await;
        }
        let damage =
            "UPDATE events SET record = '\\xff' WHERE lead_id = (SELECT min(lead_id) FROM events)";
        sqlx::query(damage).execute(&store.database.pool).await.unwrap();
        let stranded = store.expire_stranded(at(8 * DAY)).await.unwrap();
        assert_eq!((stranded.awaiting, stranded.held), (2, 0));
        assert_eq!(store.stats().await.unwrap().awaiting, 1);
    })
    .await;
}
