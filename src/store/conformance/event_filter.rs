//! Filters of events: what passes, what does not, and pages of what passes.

use super::support::{
    DAY, accept, at, attempt, dataset, deliver_due, entries, event, found, heard_of, ingest,
    ingest_at, kill_due, lead, lead_id, lead_of, line, page, reported, second, settlement, update,
};
use crate::domain::event::{AttemptLog, DeadReason, EventState};
use crate::domain::lead::ReportedLead;
use crate::limits::ATTEMPTS_SHOWN_MAX;
use crate::store::query::EventFilter;
use crate::store::{Settlement, Store};

on_every_store![
    events_are_filtered_by_reason,
    events_are_filtered_by_dataset_and_by_lead,
    events_are_filtered_by_the_code_of_their_last_attempt,
    events_are_filtered_by_the_creation_of_their_lead,
    filters_of_events_must_all_pass,
    a_filtered_list_of_events_goes_on_after_its_cursor,
    the_events_of_a_lead_are_listed_while_it_is_awaited,
    lists_show_the_last_attempt_and_a_single_event_the_latest,
];

/// Three dead letters of dataset 1 for two reasons, at second 9; one of dataset 2 is pending.
async fn dead_letters(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    kill_due(store, DeadReason::Expired, 9).await;
    ingest(store, &[lead(2), lead(3)]).await;
    let refused = entries(store, at(9)).await;
    let refused = Settlement {
        failed: refused.clone(),
        dead: refused.into_iter().map(|entry| (entry, DeadReason::RefusedByMeta)).collect(),
        ..settlement(Some(attempt(9, false)), 9)
    };
    store.settle(refused).await.unwrap();
    ingest(store, &[lead_of(4, 2)]).await;
}

async fn passing(store: &dyn Store, filter: EventFilter, seconds: i64) -> Vec<String> {
    let list = store.list_events(filter, page(None, 100), at(seconds)).await.unwrap();
    assert_eq!(list.next_cursor, None);
    list.items.iter().map(|event| line(event, at(seconds))).collect()
}

async fn events_are_filtered_by_reason(store: &dyn Store) {
    dead_letters(store).await;
    let of = |reason| EventFilter { reason: Some(reason), ..EventFilter::default() };
    let refused = ["3 initial_lead dead refused_by_meta", "2 initial_lead dead refused_by_meta"];
    assert_eq!(passing(store, of(DeadReason::RefusedByMeta), 9).await, refused);
    let expired = ["1 initial_lead dead expired"];
    assert_eq!(passing(store, of(DeadReason::Expired), 9).await, expired);
    assert_eq!(passing(store, of(DeadReason::Duplicate), 9).await, [""; 0]);
}

async fn events_are_filtered_by_dataset_and_by_lead(store: &dyn Store) {
    dead_letters(store).await;
    accept(store, update(4, "won", 6), at(9)).await;
    let of = |number| EventFilter { dataset_id: Some(dataset(number)), ..EventFilter::default() };
    assert_eq!(passing(store, of(2), 9).await, ["4 won pending", "4 initial_lead pending"]);
    assert_eq!(passing(store, of(1), 9).await.len(), 3);
    let of = |number| EventFilter { lead_id: Some(lead_id(number)), ..EventFilter::default() };
    assert_eq!(passing(store, of(4), 9).await, ["4 won pending", "4 initial_lead pending"]);
    assert_eq!(passing(store, of(5), 9).await, [""; 0]);
}

async fn events_are_filtered_by_the_code_of_their_last_attempt(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    let due = entries(store, at(9)).await;
    let failed = Settlement { failed: due, ..settlement(Some(attempt(9, false)), 9) };
    store.settle(failed).await.unwrap();
    let of = |code| EventFilter { code: Some(code), ..EventFilter::default() };
    assert_eq!(passing(store, of(2), 9).await.len(), 2);
    let first = entries(store, at(9)).await[0];
    let delivered =
        Settlement { delivered: vec![first], ..settlement(Some(attempt(20, true)), 20) };
    store.settle(delivered).await.unwrap();
    ingest(store, &[lead(3)]).await;
    assert_eq!(passing(store, of(2), 20).await, ["2 initial_lead pending"]);
    assert_eq!(passing(store, of(190), 20).await, [""; 0]);
}

async fn events_are_filtered_by_the_creation_of_their_lead(store: &dyn Store) {
    for (number, seconds) in [(1, 2), (2, 4)] {
        let reported = ReportedLead { created_time: second(seconds), ..reported(number, 1) };
        ingest_at(store, &[heard_of(reported, at(30))], at(30)).await;
    }
    accept(store, update(1, "won", 20), at(30)).await;
    accept(store, update(9, "won", 20), at(30)).await;
    let filter = EventFilter { created_from: Some(second(4)), ..EventFilter::default() };
    assert_eq!(passing(store, filter, 30).await, ["2 initial_lead pending"]);
    let filter = EventFilter { created_before: Some(second(4)), ..EventFilter::default() };
    assert_eq!(passing(store, filter, 30).await, ["1 won pending", "1 initial_lead pending"]);
}

async fn filters_of_events_must_all_pass(store: &dyn Store) {
    dead_letters(store).await;
    let filter = EventFilter {
        state: Some(EventState::Dead),
        reason: Some(DeadReason::RefusedByMeta),
        dataset_id: Some(dataset(1)),
        lead_id: Some(lead_id(2)),
        code: Some(2),
        created_from: Some(second(0)),
        created_before: Some(second(1)),
    };
    let expected = ["2 initial_lead dead refused_by_meta"];
    assert_eq!(passing(store, filter.clone(), 9).await, expected);
    for other in [
        EventFilter { state: Some(EventState::Pending), ..filter.clone() },
        EventFilter { reason: Some(DeadReason::Expired), ..filter.clone() },
        EventFilter { dataset_id: Some(dataset(2)), ..filter.clone() },
        EventFilter { lead_id: Some(lead_id(1)), ..filter.clone() },
        EventFilter { code: Some(3), ..filter.clone() },
        EventFilter { created_from: Some(second(1)), ..filter.clone() },
        EventFilter { created_before: Some(second(0)), ..filter },
    ] {
        assert_eq!(passing(store, other.clone(), 9).await, [""; 0], "{other:?}");
    }
}

async fn a_filtered_list_of_events_goes_on_after_its_cursor(store: &dyn Store) {
    dead_letters(store).await;
    accept(store, update(3, "won", 6), at(9)).await;
    for filter in [
        EventFilter { dataset_id: Some(dataset(1)), ..EventFilter::default() },
        EventFilter { lead_id: Some(lead_id(3)), ..EventFilter::default() },
    ] {
        let whole = passing(store, filter.clone(), 9).await;
        let (mut cursor, mut seen) = (None, Vec::new());
        loop {
            let list = store.list_events(filter.clone(), page(cursor, 1), at(9)).await.unwrap();
            seen.extend(list.items.iter().map(|event| line(event, at(9))));
            cursor = list.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert!(whole.len() > 1);
        assert_eq!(seen, whole);
    }
}

async fn the_events_of_a_lead_are_listed_while_it_is_awaited(store: &dyn Store) {
    accept(store, update(1, "won", 6), at(9)).await;
    accept(store, update(2, "won", 6), at(9)).await;
    let filter = EventFilter { lead_id: Some(lead_id(1)), ..EventFilter::default() };
    assert_eq!(passing(store, filter.clone(), 9).await, ["1 won awaiting_lead"]);
    store.expire_stranded(at(8 * DAY)).await.unwrap();
    assert_eq!(passing(store, filter, 8 * DAY).await, ["1 won dead lead_not_found"]);
}

async fn lists_show_the_last_attempt_and_a_single_event_the_latest(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let tries = i64::try_from(ATTEMPTS_SHOWN_MAX).unwrap() + 5;
    for seconds in 10..10 + tries {
        let failed = Settlement {
            failed: entries(store, at(seconds)).await,
            ..settlement(Some(attempt(seconds, false)), seconds)
        };
        store.settle(failed).await.unwrap();
    }
    deliver_due(store, 1_000).await;
    let count = ATTEMPTS_SHOWN_MAX + 6;
    let last = AttemptLog { count, latest: vec![attempt(1_000, true)] };
    let events = store.list_events(EventFilter::default(), page(None, 1), at(1_000)).await.unwrap();
    assert_eq!(events.items[0].attempts, last);
    assert_eq!(found(store, 1).await.events[0].attempts, last);
    let log = event(store, 1).await.attempts;
    assert_eq!((log.count, log.latest.len()), (count, ATTEMPTS_SHOWN_MAX));
    assert_eq!(log.latest[0], attempt(16, false), "oldest first");
    assert_eq!(log.last(), last.last());
}
