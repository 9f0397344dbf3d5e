//! Sending many dead letters after all: by name or by a filter, call by call.

use std::collections::BTreeSet;

use super::support::{
    DAY, accept, all, at, dataset, due, found, ingest, kill_due, lead, lead_id, lead_of, listed,
    page, routing, second, timeline, tolerant, update,
};
use crate::domain::event::{DeadReason, EventState};
use crate::domain::ids::EventId;
use crate::store::query::{DeadLetters, EventFilter};
use crate::store::{Enqueued, RequeuedMany, Store};

on_every_store![
    dead_letters_that_pass_a_filter_are_queued_again_and_no_others,
    named_ones_are_queued_again_and_the_rest_is_counted,
    a_dry_run_counts_the_same_and_changes_nothing,
    what_cannot_arrive_in_time_stays_dead_and_is_counted,
    call_by_call_each_is_queued_once_and_none_is_lost,
    the_raw_lead_goes_before_the_stages_that_had_awaited_it,
    of_many_leads_the_oldest_events_come_first,
];

fn everything() -> DeadLetters {
    DeadLetters::Filtered(EventFilter::default(), all())
}

async fn requeue(store: &dyn Store, letters: DeadLetters, seconds: i64) -> RequeuedMany {
    store.requeue_many(letters, false, &routing(), at(seconds)).await.unwrap()
}

/// What became of so many, all of dataset 1.
fn counts(requeued: u64, hopeless: u64, not_dead: u64, not_found: u64) -> RequeuedMany {
    let datasets = (requeued > 0).then(|| dataset(1));
    let enqueued = Enqueued(datasets.into_iter().collect());
    RequeuedMany { requeued, hopeless, not_dead, not_found, next_cursor: None, enqueued }
}

async fn dead_letters_that_pass_a_filter_are_queued_again_and_no_others(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    kill_due(store, DeadReason::RefusedByMeta, 9).await;
    ingest(store, &[lead(3)]).await;
    kill_due(store, DeadReason::Expired, 9).await;
    ingest(store, &[lead(4)]).await;
    let refused = EventFilter { reason: Some(DeadReason::RefusedByMeta), ..EventFilter::default() };
    let letters = DeadLetters::Filtered(refused, all());
    assert_eq!(requeue(store, letters.clone(), 10).await, counts(2, 0, 0, 0));
    let expected = ["1 initial_lead", "2 initial_lead", "4 initial_lead"];
    let queued: BTreeSet<String> = due(store, 1, at(10)).await.into_iter().collect();
    assert_eq!(queued, expected.map(str::to_owned).into());
    let dead = ["3 initial_lead dead expired"];
    assert_eq!(listed(store, EventState::Dead, at(10)).await, dead);
    assert_eq!(requeue(store, letters, 10).await, counts(0, 0, 0, 0), "once is enough");
}

async fn id_of(store: &dyn Store, number: u64) -> EventId {
    found(store, number).await.events[0].event.id()
}

async fn named_ones_are_queued_again_and_the_rest_is_counted(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    kill_due(store, DeadReason::RefusedByMeta, 9).await;
    ingest(store, &[lead(3)]).await;
    let never = update(1, "won", 6).into_event(lead_id(1), second(6), second(6), at(9)).id();
    let awaiting = accept(store, update(7, "won", 6), at(9)).await.event.id();
    let named = [id_of(store, 1).await, id_of(store, 3).await, never, awaiting];
    let letters = DeadLetters::Named(named.into());
    assert_eq!(requeue(store, letters, 10).await, counts(1, 0, 2, 1));
    assert_eq!(timeline(store, 1, at(10)).await, ["1 initial_lead pending"]);
    assert_eq!(timeline(store, 2, at(10)).await, ["2 initial_lead dead refused_by_meta"]);
    assert_eq!(store.find_event(named[0]).await.unwrap().unwrap().event.id(), named[0]);
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.queued, stats.dead, stats.awaiting), (2, 1, 1));
}

async fn a_dry_run_counts_the_same_and_changes_nothing(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    kill_due(store, DeadReason::RefusedByMeta, 9).await;
    let before = store.stats().await.unwrap();
    let dry = store.requeue_many(everything(), true, &routing(), at(10)).await.unwrap();
    assert_eq!(dry, RequeuedMany { enqueued: Enqueued::default(), ..counts(2, 0, 0, 0) });
    assert_eq!(store.stats().await.unwrap(), before);
    assert_eq!(due(store, 1, at(10)).await, [""; 0]);
    assert_eq!(requeue(store, everything(), 10).await, counts(2, 0, 0, 0));
}

async fn what_cannot_arrive_in_time_stays_dead_and_is_counted(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    kill_due(store, DeadReason::RefusedByMeta, 9).await;
    accept(store, update(1, "won", 100), at(100)).await;
    kill_due(store, DeadReason::RefusedByMeta, 100).await;
    accept(store, update(2, "won", 6), at(9)).await;
    // The raw-lead event is dated second 1; a minute before its seven days are over is too late.
    let late = 1 + 7 * DAY - 60;
    store.expire_stranded(at(late + 10)).await.unwrap();
    assert_eq!(requeue(store, everything(), late).await, counts(1, 2, 0, 0));
    let expected = ["1 initial_lead dead refused_by_meta", "1 won pending"];
    assert_eq!(timeline(store, 1, at(late)).await, expected);
    assert_eq!(store.stats().await.unwrap().dead, 2);
}

async fn call_by_call_each_is_queued_once_and_none_is_lost(store: &dyn Store) {
    // Every third lead's event can't arrive in time any more at day 7.
    for number in 1..=9 {
        ingest(store, &[lead(number)]).await;
        if number % 3 != 0 {
            let later = update(number, "won", 2 * DAY);
            kill_due(store, DeadReason::Expired, 9).await;
            accept(store, later, at(2 * DAY)).await;
        }
        kill_due(store, DeadReason::RefusedByMeta, 2 * DAY).await;
    }
    let refused = EventFilter { reason: Some(DeadReason::RefusedByMeta), ..EventFilter::default() };
    let (mut sums, mut cursor, mut calls) = ([0, 0], None, 0);
    loop {
        let letters = DeadLetters::Filtered(refused.clone(), page(cursor, 2));
        let many = requeue(store, letters, 7 * DAY).await;
        assert!(many.requeued + many.hopeless <= 2);
        sums = [sums[0] + many.requeued, sums[1] + many.hopeless];
        cursor = many.next_cursor;
        calls += 1;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!((sums, calls), ([6, 3], 5));
    let mut queued = due(store, 1, at(7 * DAY)).await;
    queued.sort();
    assert_eq!(queued, [1, 2, 4, 5, 7, 8].map(|number| format!("{number} won")));
    assert_eq!(store.stats().await.unwrap().dead, 9);
}

async fn the_raw_lead_goes_before_the_stages_that_had_awaited_it(store: &dyn Store) {
    // The stage is lifted to the very second of the raw-lead event.
    accept(store, tolerant(60, update(1, "won", 0)), at(5)).await;
    ingest(store, &[lead(1)]).await;
    accept(store, update(1, "qualified", 4), at(9)).await;
    kill_due(store, DeadReason::RefusedByMeta, 9).await;
    assert_eq!(requeue(store, everything(), 10).await, counts(3, 0, 0, 0));
    let expected = ["1 initial_lead", "1 won", "1 qualified"];
    assert_eq!(due(store, 1, at(10)).await, expected);
}

async fn of_many_leads_the_oldest_events_come_first(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2), lead_of(3, 2)]).await;
    kill_due(store, DeadReason::RefusedByMeta, 9).await;
    let letters = DeadLetters::Filtered(EventFilter::default(), page(None, 1));
    assert_eq!(requeue(store, letters, 10).await.requeued, 1);
    assert_eq!(due(store, 1, at(10)).await, ["1 initial_lead"]);
    let filter = EventFilter { lead_id: Some(lead_id(2)), ..EventFilter::default() };
    let letters = DeadLetters::Filtered(filter, all());
    assert_eq!(requeue(store, letters, 10).await, counts(1, 0, 0, 0));
}
