//! Updates that come before their lead, and what becomes of events that nobody looks after.

use super::support::{
    DAY, accept, at, due, found, heard_of, ingest, ingest_at, keyed, know, lead, lead_id, line,
    listed, refuse, reported, routing, second, strict, timeline, tolerant, update,
};
use crate::domain::event::{EventState, StageUpdate, Standing};
use crate::domain::intake::Refusal;
use crate::domain::lead::ReportedLead;
use crate::domain::matching::{CrmId, LeadReference};
use crate::store::{Requeued, Stats, Store};

on_every_store![
    an_update_of_an_unknown_lead_awaits_it_and_is_found,
    in_strict_mode_an_unknown_lead_is_refused_and_nothing_stays,
    the_same_report_of_an_unknown_lead_is_known,
    awaiting_events_are_queued_behind_the_raw_event_when_the_lead_arrives,
    an_event_keeps_its_id_when_its_lead_arrives,
    an_awaiting_event_at_or_before_the_creation_becomes_a_dead_letter,
    an_awaiting_event_is_lifted_within_the_tolerance_of_its_source,
    an_awaiting_event_that_says_what_the_raw_event_says_is_a_duplicate,
    of_awaiting_events_that_are_lifted_to_one_second_the_first_is_sent,
    an_event_that_awaited_a_test_lead_is_dead,
    an_awaiting_event_expires_once_after_seven_days,
    an_expired_event_stays_found_and_known,
    a_lead_that_arrives_late_does_not_revive_what_expired,
    an_event_that_expired_waiting_cannot_be_queued_again,
    an_event_without_a_dataset_expires_after_seven_days_too,
    the_leads_that_are_awaited_are_named_once_each_and_in_portions,
];

async fn an_update_of_an_unknown_lead_awaits_it_and_is_found(store: &dyn Store) {
    let detail = accept(store, update(1, "won", 6), at(9)).await;
    assert_eq!(detail.standing, Standing::AwaitingLead);
    let found = store.find_event(detail.event.id()).await.unwrap();
    assert_eq!(found, Some(detail));
    let expected = ["1 won awaiting_lead"];
    assert_eq!(listed(store, EventState::AwaitingLead, at(9)).await, expected);
    assert_eq!(store.find_lead(lead_id(1)).await.unwrap(), None);
    let stats = Stats { awaiting: 1, ..Stats::default() };
    assert_eq!(store.stats().await.unwrap(), stats);
}

async fn the_leads_that_are_awaited_are_named_once_each_and_in_portions(store: &dyn Store) {
    for number in [3, 1, 2, 4] {
        accept(store, update(number, "won", 6), at(9)).await;
        accept(store, update(number, "paid", 7), at(9)).await;
    }
    let nobody = LeadReference { lead_id: None, crm_id: CrmId::parse("1").ok() };
    accept(store, StageUpdate { lead: nobody, ..update(5, "won", 6) }, at(9)).await;
    ingest_at(store, &[lead(2)], at(10)).await;
    let awaited = async |after, limit| store.awaited_leads(after, limit).await.unwrap();
    assert_eq!(awaited(None, 9).await, [1, 3, 4].map(lead_id));
    assert_eq!(awaited(None, 2).await, [1, 3].map(lead_id));
    assert_eq!(awaited(Some(lead_id(3)), 2).await, [lead_id(4)]);
    assert_eq!(awaited(Some(lead_id(4)), 2).await, []);
    store.expire_stranded(at(8 * DAY)).await.unwrap();
    assert_eq!(awaited(None, 9).await, [], "what is a dead letter awaits nobody");
}

async fn in_strict_mode_an_unknown_lead_is_refused_and_nothing_stays(store: &dyn Store) {
    let refusal = refuse(store, strict(keyed("k", update(1, "won", 6))), at(9)).await;
    assert_eq!(refusal, Refusal::LeadNotFound);
    assert_eq!(store.stats().await.unwrap(), Stats::default());
    ingest(store, &[lead(1)]).await;
    accept(store, strict(keyed("k", update(1, "won", 6))), at(9)).await;
}

async fn the_same_report_of_an_unknown_lead_is_known(store: &dyn Store) {
    let first = accept(store, update(1, "won", 6), at(9)).await;
    assert_eq!(know(store, update(1, "won", 6), at(10)).await, first);
    accept(store, keyed("k", update(1, "lost", 6)), at(10)).await;
    know(store, keyed("k", update(1, "lost", 6)), at(10)).await;
    assert_eq!(store.stats().await.unwrap().awaiting, 2);
}

async fn awaiting_events_are_queued_behind_the_raw_event_when_the_lead_arrives(store: &dyn Store) {
    accept(store, update(1, "qualified", 6), at(9)).await;
    accept(store, update(1, "won", 7), at(9)).await;
    accept(store, update(2, "won", 7), at(9)).await;
    ingest_at(store, &[lead(1)], at(10)).await;
    accept(store, update(1, "paid", 8), at(11)).await;
    let expected = ["1 initial_lead", "1 qualified", "1 won", "1 paid"];
    assert_eq!(due(store, 1, at(11)).await, expected);
    let expected = expected.map(|name| format!("{name} pending"));
    assert_eq!(timeline(store, 1, at(11)).await, expected);
    let awaiting = listed(store, EventState::AwaitingLead, at(11)).await;
    assert_eq!(awaiting, ["2 won awaiting_lead"]);
    assert_eq!(store.stats().await.unwrap().awaiting, 1);
}

async fn an_event_keeps_its_id_when_its_lead_arrives(store: &dyn Store) {
    let awaiting = accept(store, keyed("k", update(1, "won", 6)), at(9)).await;
    ingest_at(store, &[lead(1)], at(10)).await;
    let event = store.find_event(awaiting.event.id()).await.unwrap().unwrap();
    assert_eq!(event.event, awaiting.event);
    assert_eq!(line(&event, at(10)), "1 won pending");
    assert_eq!(know(store, keyed("k", update(1, "won", 6)), at(11)).await, event);
    assert_eq!(know(store, update(1, "won", 6), at(11)).await, event);
}

async fn an_awaiting_event_at_or_before_the_creation_becomes_a_dead_letter(store: &dyn Store) {
    accept(store, update(1, "won", 0), at(9)).await;
    accept(store, update(1, "paid", 6), at(9)).await;
    ingest_at(store, &[lead(1)], at(10)).await;
    let dead = "1 won dead event_time_not_after_lead";
    let expected = ["1 initial_lead pending", dead, "1 paid pending"];
    assert_eq!(timeline(store, 1, at(10)).await, expected);
    assert_eq!(listed(store, EventState::Dead, at(10)).await, [dead]);
    assert_eq!(due(store, 1, at(10)).await, ["1 initial_lead", "1 paid"]);
    assert_eq!(store.stats().await.unwrap().dead, 1);
}

async fn an_awaiting_event_is_lifted_within_the_tolerance_of_its_source(store: &dyn Store) {
    let awaiting = accept(store, tolerant(60, update(1, "won", -20)), at(9)).await;
    assert!(!awaiting.event.is_adjusted());
    ingest_at(store, &[lead(1)], at(10)).await;
    let event = found(store, 1).await.events.remove(1).event;
    assert_eq!((event.reported_time, event.event_time), (second(-20), second(1)));
    assert_eq!(event.id(), awaiting.event.id());
    assert_eq!(due(store, 1, at(10)).await, ["1 initial_lead", "1 won"]);
}

async fn an_awaiting_event_that_says_what_the_raw_event_says_is_a_duplicate(store: &dyn Store) {
    let awaiting = accept(store, update(1, "initial_lead", 1), at(9)).await;
    ingest_at(store, &[lead(1)], at(10)).await;
    let expected = ["1 initial_lead pending", "1 initial_lead dead duplicate"];
    assert_eq!(timeline(store, 1, at(10)).await, expected);
    assert_eq!(due(store, 1, at(10)).await, ["1 initial_lead"]);
    let event = store.find_event(awaiting.event.id()).await.unwrap().unwrap();
    assert_eq!(line(&event, at(10)), "1 initial_lead pending", "the id is of the one that is sent");
}

async fn of_awaiting_events_that_are_lifted_to_one_second_the_first_is_sent(store: &dyn Store) {
    accept(store, tolerant(60, update(1, "won", -20)), at(9)).await;
    accept(store, tolerant(60, update(1, "won", -30)), at(9)).await;
    ingest_at(store, &[lead(1)], at(10)).await;
    let expected = ["1 initial_lead pending", "1 won pending", "1 won dead duplicate"];
    assert_eq!(timeline(store, 1, at(10)).await, expected);
}

async fn an_event_that_awaited_a_test_lead_is_dead(store: &dyn Store) {
    accept(store, update(1, "won", 6), at(9)).await;
    let test = ReportedLead { test: true, ..reported(1, 1) };
    ingest_at(store, &[heard_of(test, at(10))], at(10)).await;
    assert_eq!(timeline(store, 1, at(10)).await, ["1 won dead lead_is_test"]);
    assert_eq!(store.stats().await.unwrap().queued, 0);
}

/// The last second at which an event of second 6 is still worth waiting for.
const LAST: i64 = 6 + 7 * DAY - 61;

async fn an_awaiting_event_expires_once_after_seven_days(store: &dyn Store) {
    accept(store, update(1, "won", 6), at(9)).await;
    accept(store, update(2, "won", 7), at(9)).await;
    assert_eq!(store.expire_stranded(at(LAST)).await.unwrap().awaiting, 0);
    assert_eq!(store.expire_stranded(at(LAST + 1)).await.unwrap().awaiting, 1);
    assert_eq!(store.expire_stranded(at(LAST + 1)).await.unwrap().awaiting, 0);
    let dead = listed(store, EventState::Dead, at(LAST + 1)).await;
    assert_eq!(dead, ["1 won dead lead_not_found"]);
    let awaiting = listed(store, EventState::AwaitingLead, at(LAST + 1)).await;
    assert_eq!(awaiting, ["2 won awaiting_lead"]);
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.awaiting, stats.dead), (1, 1));
    assert_eq!(store.expire_stranded(at(30 * DAY)).await.unwrap().awaiting, 1);
}

async fn an_expired_event_stays_found_and_known(store: &dyn Store) {
    let awaiting = accept(store, update(1, "won", 6), at(9)).await;
    store.expire_stranded(at(8 * DAY)).await.unwrap();
    let dead = store.find_event(awaiting.event.id()).await.unwrap().unwrap();
    assert_eq!(line(&dead, at(8 * DAY)), "1 won dead lead_not_found");
    assert_eq!(know(store, update(1, "won", 6), at(8 * DAY)).await, dead);
}

async fn a_lead_that_arrives_late_does_not_revive_what_expired(store: &dyn Store) {
    accept(store, update(1, "won", 6), at(9)).await;
    store.expire_stranded(at(LAST + 1)).await.unwrap();
    ingest_at(store, &[lead(1)], at(LAST + 2)).await;
    let expected = ["1 initial_lead pending", "1 won dead lead_not_found"];
    assert_eq!(timeline(store, 1, at(LAST + 2)).await, expected);
    assert_eq!(due(store, 1, at(LAST + 2)).await, ["1 initial_lead"]);
    assert_eq!(store.expire_stranded(at(30 * DAY)).await.unwrap().awaiting, 0);
    assert_eq!(store.stats().await.unwrap().dead, 1);
}

async fn an_event_that_expired_waiting_cannot_be_queued_again(store: &dyn Store) {
    let id = accept(store, update(1, "won", 6), at(9)).await.event.id();
    store.expire_stranded(at(LAST + 1)).await.unwrap();
    let requeued = store.requeue(id, &routing(), at(LAST + 1)).await.unwrap();
    assert!(matches!(requeued, Requeued::Hopeless(_)), "{requeued:?}");
    ingest_at(store, &[lead(1)], at(LAST + 2)).await;
    let requeued = store.requeue(id, &routing(), at(LAST + 2)).await.unwrap();
    assert!(matches!(requeued, Requeued::Hopeless(_)), "{requeued:?}");
}

async fn an_event_without_a_dataset_expires_after_seven_days_too(store: &dyn Store) {
    ingest_at(store, &[heard_of(reported(1, 9), at(0)), lead(2)], at(0)).await;
    let raw_lead_is_past = 1 + 7 * DAY - 60;
    let stranded = store.expire_stranded(at(raw_lead_is_past - 1)).await.unwrap();
    assert_eq!(stranded.held, 0);
    let stranded = store.expire_stranded(at(raw_lead_is_past)).await.unwrap();
    assert_eq!((stranded.held, stranded.awaiting), (1, 0));
    let now = at(raw_lead_is_past);
    assert_eq!(timeline(store, 1, now).await, ["1 initial_lead dead expired"]);
    let kept = ["2 initial_lead pending"];
    assert_eq!(timeline(store, 2, now).await, kept, "a worker looks after this one");
    assert_eq!(store.stats().await.unwrap().queued, 1);
}
