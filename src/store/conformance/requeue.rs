//! Sending dead letters after all.

use super::support::{
    DAY, accept, at, attempt, dataset, deliver_due, due, entries, event, found, ingest, kill_due,
    lead, lead_id, lead_of, line, routing, second, settlement, timeline, update,
};
use crate::domain::event::{DeadReason, EventDetail};
use crate::domain::ids::EventId;
use crate::domain::routing::Routing;
use crate::store::query::DeadLetters;
use crate::store::{Enqueued, Requeued, Settlement, Store};

on_every_store![
    what_is_queued_again_goes_to_the_dataset_that_is_configured_by_now,
    what_meta_refused_can_be_queued_again_under_the_same_id,
    an_event_that_is_queued_again_has_its_old_place_and_its_attempts,
    what_meta_refused_cannot_be_queued_again_after_seven_days,
    an_expired_event_stays_dead,
    an_event_that_expired_by_a_wrong_clock_can_be_queued_again,
    a_pending_or_delivered_event_is_not_dead,
    an_unknown_event_is_not_found,
];

async fn raw_id(store: &dyn Store) -> EventId {
    found(store, 1).await.events[0].event.id()
}

fn done(requeued: Requeued) -> (EventDetail, Enqueued) {
    match requeued {
        Requeued::Done(detail, enqueued) => (detail, enqueued),
        other => panic!("not done: {other:?}"),
    }
}

async fn what_meta_refused_can_be_queued_again_under_the_same_id(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let id = raw_id(store).await;
    kill_due(store, DeadReason::RefusedByMeta, 9).await;
    assert_eq!(store.stats().await.unwrap().dead, 1);
    let (detail, enqueued) = done(store.requeue(id, &routing(), at(10)).await.unwrap());
    assert_eq!(detail.event.id(), id);
    assert_eq!(line(&detail, at(10)), "1 initial_lead pending");
    assert_eq!(enqueued, Enqueued([dataset(1)].into()));
    assert_eq!(due(store, 1, at(10)).await, ["1 initial_lead"]);
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.dead, stats.queued), (0, 1));
    let again = store.requeue(id, &routing(), at(10)).await.unwrap();
    assert_eq!(again, Requeued::NotDead(detail), "once is enough");
}

async fn an_event_that_is_queued_again_has_its_old_place_and_its_attempts(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let entry = entries(store, at(9)).await[0];
    let refused = Settlement {
        failed: vec![entry],
        dead: vec![(entry, DeadReason::RefusedByMeta)],
        ..settlement(Some(attempt(9, false)), 9)
    };
    store.settle(refused).await.unwrap();
    ingest(store, &[lead(2)]).await;
    store.requeue(raw_id(store).await, &routing(), at(10)).await.unwrap();
    assert_eq!(due(store, 1, at(10)).await, ["1 initial_lead", "2 initial_lead"]);
    deliver_due(store, 11).await;
    let attempts = event(store, 1).await.attempts.latest;
    assert_eq!(attempts, [attempt(9, false), attempt(11, true)]);
}

async fn what_meta_refused_cannot_be_queued_again_after_seven_days(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let id = raw_id(store).await;
    kill_due(store, DeadReason::RefusedByMeta, 9).await;
    // The raw-lead event is dated second 1, and the last minute is too short.
    let too_late = at(1 + 7 * DAY - 60);
    let requeued = store.requeue(id, &routing(), too_late).await.unwrap();
    assert!(matches!(requeued, Requeued::Hopeless(_)), "{requeued:?}");
    assert_eq!(store.stats().await.unwrap().dead, 1);
    let in_time = too_late.plus_millis(-1);
    let (detail, _) = done(store.requeue(id, &routing(), in_time).await.unwrap());
    assert_eq!(line(&detail, in_time), "1 initial_lead pending");
}

async fn an_expired_event_stays_dead(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    kill_due(store, DeadReason::Expired, 9).await;
    let dead = found(store, 1).await.events.remove(0);
    let late = at(7 * DAY);
    let requeued = store.requeue(dead.event.id(), &routing(), late).await.unwrap();
    assert_eq!(requeued, Requeued::Hopeless(dead));
    assert_eq!(timeline(store, 1, late).await, ["1 initial_lead dead expired"]);
    assert_eq!(due(store, 1, late).await, [""; 0]);
}

async fn an_event_that_expired_by_a_wrong_clock_can_be_queued_again(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    kill_due(store, DeadReason::Expired, 9).await;
    let dead = found(store, 1).await.events.remove(0);
    let requeued = store.requeue(dead.event.id(), &routing(), at(10)).await.unwrap();
    assert!(matches!(requeued, Requeued::Done(..)), "{requeued:?}");
    assert_eq!(due(store, 1, at(10)).await, ["1 initial_lead"]);
}

async fn a_pending_or_delivered_event_is_not_dead(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let id = raw_id(store).await;
    let pending = store.requeue(id, &routing(), at(9)).await.unwrap();
    assert_eq!(pending, Requeued::NotDead(found(store, 1).await.events.remove(0)));
    deliver_due(store, 9).await;
    let delivered = store.requeue(id, &routing(), at(10)).await.unwrap();
    assert_eq!(delivered, Requeued::NotDead(found(store, 1).await.events.remove(0)));
    let awaiting = accept(store, update(2, "won", 6), at(9)).await;
    let requeued = store.requeue(awaiting.event.id(), &routing(), at(9)).await.unwrap();
    assert_eq!(requeued, Requeued::NotDead(awaiting));
    assert_eq!(store.stats().await.unwrap().queued, 0);
}

async fn an_unknown_event_is_not_found(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let never = update(1, "won", 6).into_event(lead_id(1), second(6), second(6), at(9));
    assert_eq!(store.requeue(never.id(), &routing(), at(9)).await.unwrap(), Requeued::NotFound);
    assert_eq!(store.find_event(never.id()).await.unwrap(), None);
}

async fn what_is_queued_again_goes_to_the_dataset_that_is_configured_by_now(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2), lead_of(3, 9)]).await;
    kill_due(store, DeadReason::RefusedByMeta, 9).await;
    store.expire_stranded(at(7 * DAY)).await.unwrap();
    let elsewhere = Routing::new([].into(), Some(dataset(2)));
    let ids = async |number| found(store, number).await.events[0].event.id();
    let (detail, enqueued) = done(store.requeue(ids(1).await, &elsewhere, at(10)).await.unwrap());
    assert_eq!((detail.dataset_id, enqueued.0), (Some(dataset(2)), [dataset(2)].into()));
    let letters = DeadLetters::Named([ids(2).await, ids(3).await].into());
    let many = store.requeue_many(letters, false, &elsewhere, at(10)).await.unwrap();
    assert_eq!((many.requeued, many.enqueued.0), (2, [dataset(2)].into()));
    let expected = ["1 initial_lead", "2 initial_lead", "3 initial_lead"];
    assert_eq!(due(store, 2, at(10)).await, expected);
    assert_eq!(due(store, 1, at(10)).await, [""; 0]);
}
