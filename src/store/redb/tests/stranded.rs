//! What expires is found outside the writer, and judged again in it.

use super::disk::Disk;
use crate::store::conformance::support::{DAY, accept, at, ingest, lead, lead_of, update};
use crate::store::redb::queue::{expire_stranded, find_overdue};
use crate::store::{Store, Stranded};

#[tokio::test]
async fn nothing_is_written_when_nothing_is_overdue() {
    let disk = Disk::new();
    let store = disk.store();
    accept(&store, update(1, "won", 6), at(9)).await;
    let before = disk.count();
    assert_eq!(store.expire_stranded(at(9)).await.unwrap(), Stranded::default());
    assert_eq!(disk.count(), before);
    let expired = store.expire_stranded(at(8 * DAY)).await.unwrap();
    assert_eq!(expired, Stranded { awaiting: 1, held: 0 });
    let before_again = disk.count();
    assert_ne!(before_again, before, "the check can fail");
    assert_eq!(store.expire_stranded(at(8 * DAY)).await.unwrap(), Stranded::default());
    assert_eq!(disk.count(), before_again, "the row of a dead letter is passed over");
}

#[tokio::test]
async fn what_happened_after_the_looking_is_heeded() {
    let store = Disk::new().store();
    accept(&store, update(1, "won", 6), at(9)).await;
    accept(&store, update(2, "won", 6), at(9)).await;
    ingest(&store, &[lead_of(3, 3), lead_of(4, 3)]).await;
    let now = at(8 * DAY);
    let overdue = store.read(move |tables| find_overdue(tables, now)).await.unwrap();
    ingest(&store, &[lead(1)]).await;
    store.erase_lead(lead(3).reported.lead_id, now).await.unwrap();
    let expiring = store.writer.submit(move |unit| expire_stranded(unit, &overdue, now));
    let expired = expiring.await.unwrap();
    assert_eq!(expired, Stranded { awaiting: 1, held: 1 }, "the second's and the fourth's");
}
