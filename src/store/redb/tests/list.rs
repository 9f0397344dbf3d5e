//! How far a page of events looks, in a store that is larger than a page may look at.

use crate::domain::event::{DeadReason, EventDetail, EventState};
use crate::domain::time::Timestamp;
use crate::store::Store;
use crate::store::conformance::support::{
    accept, at, ingest, kill_due, lead, lead_of, line, page, redb_in_memory, tolerant, update,
};
use crate::store::query::{EventFilter, Page};
use crate::store::redb::{RedbStore, list};

async fn listed(
    store: &RedbStore,
    filter: &EventFilter,
    cursor: Option<u64>,
    queue_max: u64,
) -> Page<EventDetail> {
    let (filter, now) = (filter.clone(), at(20));
    let read = store.read(move |tables| {
        list::list_events_with(tables, &filter, page(cursor, 2), now, queue_max)
    });
    read.await.unwrap()
}

fn lines(page: &Page<EventDetail>, now: Timestamp) -> Vec<String> {
    page.items.iter().map(|event| line(event, now)).collect()
}

#[tokio::test]
async fn a_queue_that_is_too_long_to_be_looked_through_is_listed_all_the_same() {
    let store = redb_in_memory();
    ingest(&store, &[lead(1)]).await;
    kill_due(&store, DeadReason::RefusedByMeta, 9).await;
    for number in 2..8 {
        accept(&store, update(10 + number, "won", 6), at(9)).await;
        ingest(&store, &[lead(number), lead_of(20 + number, 3)]).await;
        accept(&store, tolerant(60, update(number, "won", 40)), at(9)).await;
    }
    for state in [EventState::Pending, EventState::Held, EventState::AwaitingLead] {
        let filter = EventFilter::in_state(Some(state));
        let (mut cursor, mut seen) = (None, 0);
        loop {
            let short = listed(&store, &filter, cursor, u64::MAX).await;
            let long = listed(&store, &filter, cursor, 0).await;
            assert_eq!(lines(&long, at(20)), lines(&short, at(20)), "{state:?}");
            seen += short.items.len();
            cursor = short.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert!(seen >= 6, "{state:?}: {seen}");
    }
}

#[tokio::test]
async fn dead_letters_are_found_at_once_and_the_rest_page_by_page() {
    let store = redb_in_memory();
    ingest(&store, &[lead(0)]).await;
    kill_due(&store, DeadReason::Expired, 9).await;
    for thousand in 0..11 {
        let leads: Vec<_> = (1..=1_000).map(|number| lead(thousand * 1_000 + number)).collect();
        ingest(&store, &leads).await;
    }
    let dead = ["0 initial_lead dead expired"];
    let of_reason = EventFilter { reason: Some(DeadReason::Expired), ..EventFilter::default() };
    let first = store.list_events(of_reason, page(None, 50), at(20)).await.unwrap();
    assert_eq!((lines(&first, at(20)), first.next_cursor), (dead.map(str::to_owned).into(), None));
    // Without a state every event has to be looked at, ten thousand a page.
    let of_code = EventFilter { code: Some(1), ..EventFilter::default() };
    let first = store.list_events(of_code.clone(), page(None, 50), at(20)).await.unwrap();
    assert!(first.items.is_empty() && first.next_cursor.is_some());
    let second = store.list_events(of_code, page(first.next_cursor, 50), at(20)).await.unwrap();
    assert_eq!(second, Page { items: vec![], next_cursor: None });
}
