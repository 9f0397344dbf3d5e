//! What goes for good: erased leads, and what is older than it should be kept.

use super::support::{
    DAY, accept, all, at, attempt, deliver_due, due, entries, event, heard_of, ingest, ingest_at,
    keyed, kill_due, lead, lead_id, lead_of, leads, listed, piece, refuse, reported, routing,
    second, settlement, timeline, update,
};
use crate::domain::event::{DeadReason, EventState};
use crate::domain::intake::Refusal;
use crate::store::query::{EventFilter, LeadFilter};
use crate::store::{Erased, Intake, LeadOutcome, Removed, Settlement, Stats, Store};

on_every_store![
    an_erased_lead_and_its_events_are_gone,
    what_was_queued_for_an_erased_lead_is_not_sent,
    an_erased_lead_does_not_come_back,
    a_stage_of_an_erased_lead_is_refused_and_leaves_nothing,
    erasing_takes_away_what_awaits_the_lead,
    erasing_again_says_when_it_was_and_an_unknown_lead_is_unknown,
    others_keep_their_attempts_when_a_lead_is_erased,
    an_outcome_that_comes_after_the_erasure_changes_nothing,
    the_keys_of_an_erased_lead_are_free_again,
    a_lead_is_removed_when_nothing_was_heard_of_it_for_long,
    what_is_still_to_be_sent_is_never_removed,
    dead_letters_of_leads_that_never_came_are_removed,
    what_never_came_is_as_old_as_its_latest_report,
    many_that_never_came_are_removed_but_for_what_is_young,
    old_pieces_in_quarantine_are_removed_and_may_come_again,
    a_removed_lead_may_come_again,
    numbers_are_not_given_out_twice,
];

async fn erase(store: &dyn Store, number: u64, seconds: i64) -> Option<Erased> {
    store.erase_lead(lead_id(number), at(seconds)).await.unwrap()
}

/// Removes what is old, however many calls it takes.
async fn remove_before(store: &dyn Store, seconds: i64) -> Removed {
    let (mut total, mut from) = (Removed::default(), Some(0));
    while let Some(next) = from {
        let removed = store.remove_old(at(seconds), next).await.unwrap();
        total.leads += removed.leads;
        total.events += removed.events;
        total.quarantined += removed.quarantined;
        from = removed.next;
    }
    total
}

async fn an_erased_lead_and_its_events_are_gone(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    let won = accept(store, update(1, "won", 6), at(9)).await;
    deliver_due(store, 9).await;
    let erased = erase(store, 1, 10).await;
    assert_eq!(erased, Some(Erased { at: at(10), events: 2, cancelled: 0 }));
    assert_eq!(store.find_lead(lead_id(1)).await.unwrap(), None);
    assert_eq!(store.find_event(won.event.id()).await.unwrap(), None);
    assert_eq!(leads(store, LeadFilter::default(), at(10)).await, [2]);
    let events = store.list_events(EventFilter::default(), all(), at(10)).await.unwrap();
    assert_eq!(events.items.len(), 1);
}

async fn what_was_queued_for_an_erased_lead_is_not_sent(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2), lead_of(3, 9)]).await;
    accept(store, update(1, "won", 6), at(9)).await;
    assert_eq!(erase(store, 1, 10).await.unwrap().cancelled, 2);
    assert_eq!(erase(store, 3, 10).await.unwrap().cancelled, 1, "it was held");
    assert_eq!(due(store, 1, at(10)).await, ["2 initial_lead"]);
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.leads, stats.queued, stats.dead), (1, 1, 0));
}

async fn an_erased_lead_does_not_come_back(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    erase(store, 1, 10).await;
    let intake = Intake { leads: vec![lead(1), lead(2)], quarantined: vec![] };
    let ingested = store.ingest(intake, at(11)).await.unwrap();
    assert_eq!(ingested.outcomes, [LeadOutcome::Erased, LeadOutcome::New]);
    assert_eq!(store.find_lead(lead_id(1)).await.unwrap(), None);
    assert_eq!(due(store, 1, at(11)).await, ["2 initial_lead"]);
}

async fn a_stage_of_an_erased_lead_is_refused_and_leaves_nothing(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    erase(store, 1, 10).await;
    assert_eq!(refuse(store, update(1, "won", 6), at(11)).await, Refusal::LeadErased);
    assert_eq!(store.stats().await.unwrap(), Stats::default());
}

async fn erasing_takes_away_what_awaits_the_lead(store: &dyn Store) {
    let won = accept(store, update(1, "won", 6), at(9)).await;
    assert_eq!(erase(store, 1, 10).await, Some(Erased { at: at(10), events: 1, cancelled: 1 }));
    assert_eq!(store.find_event(won.event.id()).await.unwrap(), None);
    assert_eq!(store.stats().await.unwrap(), Stats::default());
    assert_eq!(ingest(store, &[lead(1)]).await, [LeadOutcome::Erased]);
}

async fn erasing_again_says_when_it_was_and_an_unknown_lead_is_unknown(store: &dyn Store) {
    assert_eq!(erase(store, 1, 9).await, None);
    ingest(store, &[lead(1)]).await;
    erase(store, 1, 10).await;
    assert_eq!(erase(store, 1, 20).await, Some(Erased { at: at(10), events: 0, cancelled: 0 }));
}

async fn others_keep_their_attempts_when_a_lead_is_erased(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    let failed = Settlement {
        failed: entries(store, at(9)).await,
        ..settlement(Some(attempt(9, false)), 9)
    };
    store.settle(failed).await.unwrap();
    deliver_due(store, 20).await;
    erase(store, 1, 30).await;
    assert_eq!(event(store, 2).await.attempts.latest, [attempt(9, false), attempt(20, true)]);
}

async fn an_outcome_that_comes_after_the_erasure_changes_nothing(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let under_way = entries(store, at(9)).await;
    erase(store, 1, 10).await;
    let sent = Settlement { delivered: under_way, ..settlement(Some(attempt(9, true)), 11) };
    store.settle(sent).await.unwrap();
    assert_eq!(store.find_lead(lead_id(1)).await.unwrap(), None);
    assert_eq!(store.stats().await.unwrap(), Stats::default());
}

async fn the_keys_of_an_erased_lead_are_free_again(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    accept(store, keyed("k", update(1, "won", 6)), at(9)).await;
    accept(store, keyed("other", update(2, "won", 6)), at(9)).await;
    erase(store, 1, 10).await;
    accept(store, keyed("k", update(2, "lost", 7)), at(11)).await;
    let conflict = refuse(store, keyed("other", update(2, "lost", 8)), at(11)).await;
    assert_eq!(conflict, Refusal::IdempotencyConflict);
}

async fn a_lead_is_removed_when_nothing_was_heard_of_it_for_long(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    kill_due(store, DeadReason::RefusedByMeta, 9).await;
    accept(store, update(2, "won", 19), at(20)).await;
    deliver_due(store, 20).await;
    assert_eq!(remove_before(store, 5).await, Removed::default(), "both were heard of then");
    let removed = remove_before(store, 20).await;
    assert_eq!(removed, Removed { leads: 1, events: 1, ..Removed::default() });
    assert_eq!(store.find_lead(lead_id(1)).await.unwrap(), None);
    let expected = ["2 initial_lead dead refused_by_meta", "2 won delivered"];
    assert_eq!(timeline(store, 2, at(20)).await, expected, "a timeline is kept whole");
    assert_eq!(remove_before(store, 21).await.events, 2);
    assert_eq!(store.stats().await.unwrap(), Stats::default());
}

async fn what_is_still_to_be_sent_is_never_removed(store: &dyn Store) {
    ingest(store, &[lead(1), lead_of(2, 9)]).await;
    accept(store, update(3, "won", 6), at(9)).await;
    assert_eq!(remove_before(store, 100 * DAY).await, Removed::default());
    assert_eq!(due(store, 1, at(10)).await, ["1 initial_lead"]);
    assert_eq!(store.stats().await.unwrap().awaiting, 1);
}

async fn dead_letters_of_leads_that_never_came_are_removed(store: &dyn Store) {
    accept(store, keyed("k", update(1, "won", 6)), at(9)).await;
    accept(store, update(2, "won", 6), at(9)).await;
    accept(store, update(2, "lost", 6 + DAY), at(9 + DAY)).await;
    store.expire_stranded(at(7 * DAY + 60)).await.unwrap();
    let removed = remove_before(store, 30 * DAY).await;
    assert_eq!(removed, Removed { events: 1, ..Removed::default() });
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.awaiting, stats.dead), (1, 1), "one of the second lead's still waits");
}

async fn what_never_came_is_as_old_as_its_latest_report(store: &dyn Store) {
    accept(store, update(1, "won", 6), at(9)).await;
    accept(store, update(2, "won", 6), at(9)).await;
    accept(store, update(2, "lost", 6 + DAY), at(9 + DAY)).await;
    store.expire_stranded(at(60 * DAY)).await.unwrap();
    assert_eq!(store.stats().await.unwrap().dead, 3);
    let first = remove_before(store, DAY).await;
    assert_eq!(first.events, 1, "they died later than that, and were reported before");
    assert_eq!(remove_before(store, 3 * DAY).await.events, 2);
}

async fn many_that_never_came_are_removed_but_for_what_is_young(store: &dyn Store) {
    let old: Vec<_> = (1..=510).map(|number| update(number, "won", 6)).collect();
    store.record_stage_updates(old, &routing(), at(9)).await.unwrap();
    accept(store, update(500, "lost", 6 + DAY), at(9 + DAY)).await;
    store.expire_stranded(at(60 * DAY)).await.unwrap();
    assert_eq!(remove_before(store, DAY).await.events, 509);
    let left = ["500 lost dead lead_not_found", "500 won dead lead_not_found"];
    assert_eq!(listed(store, EventState::Dead, at(60 * DAY)).await, left);
}

async fn old_pieces_in_quarantine_are_removed_and_may_come_again(store: &dyn Store) {
    let pieces = || Intake { leads: vec![], quarantined: vec![piece("no id")] };
    store.ingest(pieces(), at(5)).await.unwrap();
    assert_eq!(remove_before(store, 5).await.quarantined, 0);
    assert_eq!(remove_before(store, 6).await.quarantined, 1);
    assert_eq!(store.list_quarantine(all()).await.unwrap().items, []);
    store.ingest(pieces(), at(7)).await.unwrap();
    assert_eq!(store.list_quarantine(all()).await.unwrap().items.len(), 1);
}

async fn a_removed_lead_may_come_again(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    deliver_due(store, 9).await;
    remove_before(store, 30 * DAY).await;
    let late = heard_of(reported(1, 1), at(30 * DAY));
    assert_eq!(ingest_at(store, &[late], at(30 * DAY)).await, [LeadOutcome::New]);
    assert_eq!(due(store, 1, at(30 * DAY)).await, [""; 0], "it is too old to be sent again");
}

async fn numbers_are_not_given_out_twice(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let first = entries(store, at(9)).await;
    erase(store, 1, 10).await;
    ingest(store, &[lead(2)]).await;
    assert_eq!(first[0].event_time, second(1));
    assert_ne!(entries(store, at(11)).await, first, "an old entry is never another event's");
    let stale = Settlement { delivered: first, ..settlement(Some(attempt(11, true)), 11) };
    store.settle(stale).await.unwrap();
    assert_eq!(due(store, 1, at(11)).await, ["2 initial_lead"]);
}
