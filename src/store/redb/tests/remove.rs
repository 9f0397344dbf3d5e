//! What removing leaves in the tables: nothing.

use super::disk::Disk;
use crate::store::conformance::support::{
    DAY, accept, at, attempt, deliver_due, entries, ingest, keyed, lead, lead_id, redb_in_memory,
    settlement, update,
};
use crate::store::redb::RedbStore;
use crate::store::redb::remove::{find_old, remove_old};
use crate::store::redb::writer::Unit;
use crate::store::{Settlement, Store};

/// How many rows each table has that holds something about leads.
async fn rows(store: &RedbStore) -> [u64; 13] {
    let count = |unit: &mut Unit<'_>| {
        let tables = &unit.tables;
        Ok([
            tables.lead_index.len()?,
            tables.leads.len()?,
            tables.events.len()?,
            tables.lead_events.len()?,
            tables.outbox.len()?,
            tables.delivered.len()?,
            tables.dead.len()?,
            tables.attempts.len()?,
            tables.attempt_links.len()?,
            tables.failures.len()?,
            tables.awaiting.len()?,
            tables.idempotency.len()?,
            tables.event_keys.len()?,
        ])
    };
    store.writer.submit(count).await.unwrap()
}

/// Two leads, one with a keyed stage, delivered at the second try; a third that never came.
async fn fill(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    accept(store, keyed("a", update(1, "won", 6)), at(9)).await;
    accept(store, keyed("b", update(3, "won", 6)), at(9)).await;
    let failed = Settlement {
        failed: entries(store, at(9)).await,
        ..settlement(Some(attempt(9, false)), 9)
    };
    store.settle(failed).await.unwrap();
    deliver_due(store, 10).await;
    store.expire_stranded(at(8 * DAY)).await.unwrap();
}

#[tokio::test]
async fn erasing_and_removing_leave_no_row_behind() {
    let store = redb_in_memory();
    fill(&store).await;
    assert_eq!(rows(&store).await, [2, 2, 2, 1, 0, 3, 1, 2, 2, 3, 1, 2, 2]);
    store.erase_lead(lead_id(1), at(8 * DAY)).await.unwrap();
    assert_eq!(rows(&store).await, [1, 1, 1, 0, 0, 1, 1, 2, 2, 1, 1, 1, 1]);
    store.remove_old(at(20 * DAY), 0).await.unwrap();
    assert_eq!(rows(&store).await, [0; 13]);
}

#[tokio::test]
async fn numbers_go_on_when_an_emptied_store_is_opened_again() {
    let disk = Disk::new();
    let store = disk.store();
    fill(&store).await;
    let last = store.writer.submit(|unit| Ok(unit.last_seq())).await.unwrap();
    store.remove_old(at(20 * DAY), 0).await.unwrap();
    store.erase_lead(lead_id(3), at(8 * DAY)).await.unwrap();
    drop(store);
    let next = disk.store().writer.submit(|unit| Ok(unit.seq())).await.unwrap();
    assert_eq!(next, last + 1);
}

#[tokio::test]
async fn a_stage_that_comes_while_its_awaited_lead_is_removed_is_kept() {
    let store = redb_in_memory();
    accept(&store, update(3, "won", 6), at(9)).await;
    store.expire_stranded(at(8 * DAY)).await.unwrap();
    let before = at(20 * DAY);
    let old = store.read(move |tables| find_old(tables, before, 0)).await.unwrap();
    assert!(!old.is_empty());
    accept(&store, update(3, "lost", 30 * DAY), at(30 * DAY)).await;
    store.writer.submit(move |unit| remove_old(unit, &old, before)).await.unwrap();
    assert_eq!(store.stats().await.unwrap().awaiting, 1);
}
