//! The queues: what is next, and how it ended.

use super::support::{
    NOBODY, accept, at, attempt, dataset, deliver_due, due, entries, event, found, ingest,
    ingest_at, kill_due, lead, lead_id, lead_of, report, routing, second, settlement, timeline,
    tolerant, update,
};
use std::collections::BTreeSet;

use crate::domain::event::{AttemptLog, DeadReason, Standing};
use crate::store::{NearDeadline, Settlement, Store};

on_every_store![
    what_is_closest_to_its_seven_days_comes_first,
    events_of_a_lead_come_in_the_order_in_which_they_happened,
    an_event_that_is_queued_again_comes_before_later_ones_of_its_lead,
    a_batch_is_no_longer_than_asked_for,
    an_event_that_is_not_due_keeps_nothing_back,
    a_lead_that_is_kept_back_keeps_nobody_else_back,
    the_next_due_time_is_the_earliest_of_those_not_due,
    an_empty_queue_has_no_events_and_no_due_time,
    datasets_are_not_mixed,
    a_delivered_event_leaves_the_queue_with_its_attempt,
    a_failed_event_stays_queued_and_attempts_come_oldest_first,
    a_refused_event_is_dead_with_the_attempt_that_refused_it,
    an_expired_event_is_dead_without_an_attempt,
    one_settlement_ends_each_event_in_its_own_way,
    what_has_left_the_queue_is_not_queued_still,
    settling_twice_changes_nothing,
    settling_in_another_datasets_name_changes_nothing,
    without_an_attempt_nothing_is_delivered,
    queued_events_that_are_too_old_soon_are_counted_for_each_dataset,
];

async fn what_is_closest_to_its_seven_days_comes_first(store: &dyn Store) {
    ingest(store, &[lead(2), lead(1)]).await;
    accept(store, update(1, "won", 8), at(9)).await;
    accept(store, update(2, "won", 7), at(9)).await;
    ingest_at(store, &[lead(3)], at(9)).await;
    let expected = ["2 initial_lead", "1 initial_lead", "3 initial_lead", "2 won", "1 won"];
    assert_eq!(due(store, 1, at(9)).await, expected);
    let first = store.next_batch(dataset(1), at(9), 3, &NOBODY).await.unwrap();
    assert!(first.events.iter().all(|queued| queued.event.event_time == second(1)));
    assert!(entries(store, at(9)).await.is_sorted());
}

async fn events_of_a_lead_come_in_the_order_in_which_they_happened(store: &dyn Store) {
    // Reported before the lead was known, and lifted to the second of the raw-lead event.
    report(store, tolerant(60, update(1, "qualified", 0)), at(9)).await;
    ingest(store, &[lead(1)]).await;
    accept(store, update(1, "won", 8), at(9)).await;
    accept(store, update(1, "opportunity", 4), at(9)).await;
    accept(store, update(1, "contract", 8), at(9)).await;
    let expected = ["1 initial_lead", "1 qualified", "1 opportunity", "1 won", "1 contract"];
    assert_eq!(due(store, 1, at(9)).await, expected);
}

async fn an_event_that_is_queued_again_comes_before_later_ones_of_its_lead(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    kill_due(store, DeadReason::RefusedByMeta, 9).await;
    accept(store, update(1, "won", 8), at(9)).await;
    let event_id = found(store, 1).await.events[0].event.id();
    store.requeue(event_id, &routing(), at(10)).await.unwrap();
    assert_eq!(due(store, 1, at(10)).await, ["1 initial_lead", "1 won"]);
}

async fn a_batch_is_no_longer_than_asked_for(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2), lead(3)]).await;
    for limit in 0..=4 {
        let batch = store.next_batch(dataset(1), at(9), limit, &NOBODY).await.unwrap();
        assert_eq!(batch.events.len(), limit.min(3));
    }
    let first = store.next_batch(dataset(1), at(9), 2, &NOBODY).await.unwrap();
    let again = store.next_batch(dataset(1), at(9), 2, &NOBODY).await.unwrap();
    assert_eq!(first, again, "looking takes nothing away");
}

async fn an_event_that_is_not_due_keeps_nothing_back(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    accept(store, tolerant(60, update(1, "won", 30)), at(9)).await;
    accept(store, update(1, "qualified", 8), at(9)).await;
    ingest(store, &[lead(2)]).await;
    let expected = ["1 initial_lead", "2 initial_lead", "1 qualified"];
    assert_eq!(due(store, 1, at(29)).await, expected);
    assert_eq!(due(store, 1, at(30)).await.last().unwrap(), "1 won");
}

async fn a_lead_that_is_kept_back_keeps_nobody_else_back(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    accept(store, update(1, "won", 8), at(9)).await;
    let kept_back = BTreeSet::from([lead_id(1)]);
    let batch = store.next_batch(dataset(1), at(9), 1, &kept_back).await.unwrap();
    let leads: Vec<_> = batch.events.iter().map(|queued| queued.event.lead_id).collect();
    assert_eq!(leads, [lead_id(2)]);
    assert_eq!(due(store, 1, at(9)).await.len(), 3, "nothing has moved");
}

async fn the_next_due_time_is_the_earliest_of_those_not_due(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    accept(store, tolerant(60, update(1, "won", 40)), at(9)).await;
    accept(store, tolerant(60, update(2, "won", 30)), at(9)).await;
    let next_due = async |now| {
        let batch = store.next_batch(dataset(1), now, 100, &NOBODY).await.unwrap();
        batch.next_due
    };
    assert_eq!(next_due(at(9)).await, Some(second(30)));
    assert_eq!(next_due(at(30)).await, Some(second(40)));
    assert_eq!(next_due(at(40)).await, None);
}

async fn an_empty_queue_has_no_events_and_no_due_time(store: &dyn Store) {
    let batch = store.next_batch(dataset(1), at(9), 10, &NOBODY).await.unwrap();
    assert_eq!((batch.events, batch.next_due), (Vec::new(), None));
}

async fn datasets_are_not_mixed(store: &dyn Store) {
    ingest(store, &[lead_of(1, 1), lead_of(2, 2), lead_of(3, 3), lead_of(4, 1)]).await;
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead", "4 initial_lead"]);
    assert_eq!(due(store, 2, at(9)).await, ["2 initial_lead"]);
    assert_eq!(due(store, 3, at(9)).await, [""; 0]);
    deliver_due(store, 9).await;
    assert_eq!(due(store, 2, at(9)).await, ["2 initial_lead"]);
}

async fn a_delivered_event_leaves_the_queue_with_its_attempt(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    deliver_due(store, 9).await;
    assert_eq!(due(store, 1, at(9)).await, [""; 0]);
    let event = found(store, 1).await.events.remove(0);
    assert_eq!(event.standing, Standing::Delivered);
    assert_eq!(event.attempts.latest, [attempt(9, true)]);
    assert_eq!(store.stats().await.unwrap().queued, 0);
}

async fn a_failed_event_stays_queued_and_attempts_come_oldest_first(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    for seconds in [9, 20] {
        let failed = Settlement {
            failed: entries(store, at(seconds)).await,
            ..settlement(Some(attempt(seconds, false)), seconds)
        };
        store.settle(failed).await.unwrap();
        assert_eq!(due(store, 1, at(seconds)).await, ["1 initial_lead"]);
    }
    deliver_due(store, 40).await;
    let expected = vec![attempt(9, false), attempt(20, false), attempt(40, true)];
    let log = AttemptLog { count: 3, latest: expected };
    assert_eq!(event(store, 1).await.attempts, log);
}

async fn a_refused_event_is_dead_with_the_attempt_that_refused_it(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let entry = entries(store, at(9)).await[0];
    let refused = Settlement {
        failed: vec![entry],
        dead: vec![(entry, DeadReason::RefusedByMeta)],
        ..settlement(Some(attempt(9, false)), 10)
    };
    store.settle(refused).await.unwrap();
    let event = found(store, 1).await.events.remove(0);
    let dead = Standing::Dead { reason: DeadReason::RefusedByMeta, at: at(10) };
    assert_eq!((event.standing, event.attempts.latest), (dead, vec![attempt(9, false)]));
    assert_eq!(due(store, 1, at(10)).await, [""; 0]);
}

async fn an_expired_event_is_dead_without_an_attempt(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let expired = Settlement {
        dead: vec![(entries(store, at(9)).await[0], DeadReason::Expired)],
        ..settlement(None, 9)
    };
    store.settle(expired).await.unwrap();
    assert_eq!(timeline(store, 1, at(9)).await, ["1 initial_lead dead expired"]);
    assert_eq!(found(store, 1).await.events[0].attempts, AttemptLog::default());
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.queued, stats.dead, stats.fronts), (0, 1, vec![]));
}

async fn one_settlement_ends_each_event_in_its_own_way(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2), lead(3), lead(4)]).await;
    let entries = entries(store, at(9)).await;
    let mixed = Settlement {
        delivered: vec![entries[0]],
        failed: vec![entries[1]],
        dead: vec![(entries[2], DeadReason::RefusedByMeta)],
        ..settlement(Some(attempt(9, true)), 9)
    };
    store.settle(mixed).await.unwrap();
    assert_eq!(due(store, 1, at(9)).await, ["2 initial_lead", "4 initial_lead"]);
    assert_eq!(timeline(store, 1, at(9)).await, ["1 initial_lead delivered"]);
    assert_eq!(timeline(store, 3, at(9)).await, ["3 initial_lead dead refused_by_meta"]);
    assert_eq!(found(store, 4).await.events[0].attempts, AttemptLog::default());
}

async fn what_has_left_the_queue_is_not_queued_still(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2), lead(3)]).await;
    let all: BTreeSet<_> = entries(store, at(9)).await.into_iter().collect();
    assert_eq!(store.still_queued(dataset(1), all.clone()).await.unwrap(), all);
    assert_eq!(store.still_queued(dataset(2), all.clone()).await.unwrap(), BTreeSet::new());
    store.erase_lead(lead_id(1), at(9)).await.unwrap();
    let left: BTreeSet<_> = entries(store, at(9)).await.into_iter().collect();
    assert_eq!(left.len(), 2);
    assert_eq!(store.still_queued(dataset(1), all.clone()).await.unwrap(), left);
    deliver_due(store, 9).await;
    assert_eq!(store.still_queued(dataset(1), all).await.unwrap(), BTreeSet::new());
}

async fn settling_twice_changes_nothing(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    let entries = entries(store, at(9)).await;
    deliver_due(store, 9).await;
    let before = (found(store, 1).await, found(store, 2).await);
    let again = Settlement {
        delivered: vec![entries[0]],
        failed: vec![entries[1]],
        dead: vec![(entries[1], DeadReason::Expired)],
        ..settlement(Some(attempt(10, true)), 10)
    };
    store.settle(again).await.unwrap();
    assert_eq!((found(store, 1).await, found(store, 2).await), before);
    assert_eq!(store.stats().await.unwrap().dead, 0);
}

async fn settling_in_another_datasets_name_changes_nothing(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let before = found(store, 1).await;
    let foreign = Settlement {
        dataset_id: dataset(2),
        delivered: entries(store, at(9)).await,
        ..settlement(Some(attempt(9, true)), 9)
    };
    store.settle(foreign).await.unwrap();
    assert_eq!(found(store, 1).await, before);
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead"]);
}

async fn without_an_attempt_nothing_is_delivered(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let groundless = Settlement { delivered: entries(store, at(9)).await, ..settlement(None, 9) };
    store.settle(groundless).await.unwrap();
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead"]);
    assert_eq!(timeline(store, 1, at(9)).await, ["1 initial_lead pending"]);
}

async fn queued_events_that_are_too_old_soon_are_counted_for_each_dataset(store: &dyn Store) {
    ingest(store, &[lead(1), lead_of(2, 2), lead_of(3, 9)]).await;
    accept(store, update(1, "won", 8), at(9)).await;
    let near = |number: Option<u64>, events| NearDeadline {
        dataset_id: number.map(dataset),
        events,
        earliest: second(1),
    };
    assert_eq!(store.near_deadline(second(1)).await.unwrap(), []);
    let expected = [near(None, 1), near(Some(1), 1), near(Some(2), 1)];
    assert_eq!(store.near_deadline(second(8)).await.unwrap(), expected);
    assert_eq!(store.near_deadline(second(9)).await.unwrap()[1], near(Some(1), 2));
    deliver_due(store, 9).await;
    assert_eq!(store.near_deadline(second(9)).await.unwrap().len(), 2, "dataset 1 has none left");
}
