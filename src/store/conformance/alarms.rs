//! Alarms: what raises one, what gathers in one message, and how a message ends.

use super::support::{
    DAY, accept, at, attempt, dataset, entries, heard_of, ingest, ingest_at, kill_due, lead, piece,
    reported, settlement, update,
};
use crate::domain::alarm::{Alarm, AlarmKind, Alarms, Cause, Condition, Kept, Subject};
use crate::domain::event::DeadReason;
use crate::domain::ids::DatasetId;
use crate::limits::{ALARM_EVENT_IDS_MAX, ALARMS_WAITING_MAX};
use crate::store::{Intake, Settlement, Store};

on_every_store![
    a_new_store_keeps_no_alarms,
    dead_letters_of_a_settlement_are_one_message_for_each_reason,
    a_refusal_is_told_with_metas_codes,
    what_is_settled_twice_is_told_once,
    events_that_die_without_a_worker_are_told,
    an_event_that_dies_when_its_lead_arrives_is_told,
    a_piece_in_quarantine_is_told_once,
    causes_gather_until_the_first_try,
    a_try_is_counted_and_the_message_stays_as_it_is,
    a_message_that_ended_is_forgotten_and_the_next_is_another,
    a_condition_is_told_when_it_begins_and_when_it_ends_and_once_each,
    kinds_that_are_not_kept_raise_nothing_and_are_forgotten,
    a_condition_lasts_until_nobody_watches_it_or_its_kind_is_new,
    the_events_of_an_erased_lead_are_not_named_any_more_unless_the_message_was_tried,
    a_burst_is_a_handful_of_messages,
    a_full_table_takes_no_new_subject_and_still_counts,
];

const TOLD: AlarmKind = AlarmKind::EventsDead;

/// Keeps these kinds; these datasets and the webhook are watched.
async fn keep(store: &dyn Store, kinds: &[AlarmKind], datasets: &[u64]) {
    let paused = datasets.iter().map(|number| Condition::DatasetPaused(dataset(*number)));
    let watched = paused.chain([Condition::WebhookSilent]).collect();
    let kinds = kinds.iter().copied().collect();
    store.keep_alarms(Kept { kinds, watched }).await.unwrap();
}

async fn keep_all(store: &dyn Store) {
    keep(store, AlarmKind::ALL, &[1, 2]).await;
}

async fn waiting(store: &dyn Store) -> Vec<Alarm> {
    store.alarms().await.unwrap().waiting
}

/// The messages that wait, in lines of count and subject.
async fn lines(store: &dyn Store) -> Vec<String> {
    let line = |alarm: &Alarm| format!("{} {}", alarm.cause.count, alarm.cause.subject);
    waiting(store).await.iter().map(line).collect()
}

fn quarantine(reasons: &[&str]) -> Intake {
    let quarantined = reasons.iter().copied().map(piece).collect();
    Intake { quarantined, ..Intake::default() }
}

fn paused(number: u64) -> Cause {
    let subject = Subject::DatasetPaused { dataset_id: dataset(number), reason: "token".into() };
    Cause::once(subject, Some(at(1)))
}

fn resumed(number: u64) -> Cause {
    Cause::once(Subject::DatasetResumed { dataset_id: dataset(number) }, None)
}

async fn a_new_store_keeps_no_alarms(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    kill_due(store, DeadReason::Expired, 9).await;
    store.ingest(quarantine(&["a"]), at(9)).await.unwrap();
    store.raise_alarm(paused(1), at(9)).await.unwrap();
    assert_eq!(store.alarms().await.unwrap(), Alarms::default());
}

async fn dead_letters_of_a_settlement_are_one_message_for_each_reason(store: &dyn Store) {
    keep_all(store).await;
    ingest(store, &[lead(1), lead(2), lead(3), lead(4)]).await;
    let entries = entries(store, at(9)).await;
    let reasons = [DeadReason::Expired, DeadReason::Duplicate, DeadReason::Expired];
    let mixed = Settlement {
        dead: entries.iter().copied().zip(reasons).collect(),
        failed: vec![entries[3]],
        ..settlement(None, 9)
    };
    store.settle(mixed).await.unwrap();
    let expected = ["1 events.dead 1 duplicate - -", "2 events.dead 1 expired - -"];
    assert_eq!(lines(store).await, expected);
    let ids = &waiting(store).await[1].cause.event_ids;
    let dead = [1, 3].map(|number| lead(number).raw_event().unwrap().id());
    assert_eq!(*ids, dead);
}

async fn a_refusal_is_told_with_metas_codes(store: &dyn Store) {
    keep_all(store).await;
    ingest(store, &[lead(1)]).await;
    kill_due(store, DeadReason::RefusedByMeta, 9).await;
    assert_eq!(lines(store).await, ["1 events.dead 1 refused_by_meta 2 -"]);
    let alarm = &waiting(store).await[0];
    assert_eq!((alarm.first_at, alarm.last_at, alarm.tries), (at(9), at(9), 0));
}

async fn what_is_settled_twice_is_told_once(store: &dyn Store) {
    keep_all(store).await;
    ingest(store, &[lead(1)]).await;
    let dead = vec![(entries(store, at(9)).await[0], DeadReason::Expired)];
    let once = Settlement { dead, ..settlement(Some(attempt(9, false)), 9) };
    store.settle(once.clone()).await.unwrap();
    store.settle(once).await.unwrap();
    assert_eq!(lines(store).await, ["1 events.dead 1 expired - -"]);
}

async fn events_that_die_without_a_worker_are_told(store: &dyn Store) {
    keep_all(store).await;
    accept(store, update(1, "won", 6), at(9)).await;
    ingest(store, &[heard_of(reported(2, 9), at(5))]).await;
    store.expire_stranded(at(8 * DAY)).await.unwrap();
    store.expire_stranded(at(8 * DAY)).await.unwrap();
    let expected = ["1 events.dead - expired - -", "1 events.dead - lead_not_found - -"];
    assert_eq!(lines(store).await, expected);
    assert!(waiting(store).await.iter().all(|alarm| alarm.cause.event_ids.len() == 1));
}

async fn an_event_that_dies_when_its_lead_arrives_is_told(store: &dyn Store) {
    keep_all(store).await;
    let id = accept(store, update(1, "won", -6), at(9)).await.event.id();
    ingest_at(store, &[lead(1)], at(10)).await;
    assert_eq!(lines(store).await, ["1 events.dead 1 event_time_not_after_lead - -"]);
    assert_eq!(waiting(store).await[0].cause.event_ids, [id]);
}

async fn a_piece_in_quarantine_is_told_once(store: &dyn Store) {
    keep_all(store).await;
    store.ingest(quarantine(&["a", "a", "b"]), at(5)).await.unwrap();
    store.ingest(quarantine(&["b"]), at(6)).await.unwrap();
    assert_eq!(lines(store).await, ["2 quarantine.added"]);
}

async fn causes_gather_until_the_first_try(store: &dyn Store) {
    keep_all(store).await;
    store.ingest(quarantine(&["a"]), at(5)).await.unwrap();
    store.ingest(quarantine(&["b", "c"]), at(7)).await.unwrap();
    let alarm = waiting(store).await.remove(0);
    assert_eq!((alarm.cause.count, alarm.first_at, alarm.last_at), (3, at(5), at(7)));
    let tried = store.begin_alarm_try(&alarm.key(), at(60)).await.unwrap().unwrap();
    assert_eq!(tried, Alarm { tries: 1, next_try_at: at(60), ..alarm.clone() });
    store.ingest(quarantine(&["d"]), at(8)).await.unwrap();
    store.ingest(quarantine(&["e"]), at(9)).await.unwrap();
    let both = waiting(store).await;
    assert_eq!(both[0], tried, "what was tried stays as it is");
    assert_eq!((both[1].cause.count, both[1].first_at, both.len()), (2, at(8), 2));
    assert_ne!(both[0].id(), both[1].id());
}

async fn a_try_is_counted_and_the_message_stays_as_it_is(store: &dyn Store) {
    keep_all(store).await;
    store.ingest(quarantine(&["a"]), at(5)).await.unwrap();
    let key = waiting(store).await[0].key();
    let id = waiting(store).await[0].id();
    for tries in 1..=3 {
        let tried = store.begin_alarm_try(&key, at(60)).await.unwrap().unwrap();
        assert_eq!((tried.tries, tried.id()), (tries, id.clone()));
        assert_eq!(waiting(store).await, [tried], "it is on record before it is sent");
    }
}

async fn a_message_that_ended_is_forgotten_and_the_next_is_another(store: &dyn Store) {
    keep_all(store).await;
    store.ingest(quarantine(&["a"]), at(5)).await.unwrap();
    let first = waiting(store).await.remove(0);
    store.begin_alarm_try(&first.key(), at(60)).await.unwrap();
    // In the same millisecond, as a clock that stands still would have it.
    store.ingest(quarantine(&["b"]), at(5)).await.unwrap();
    store.end_alarm(&first.key()).await.unwrap();
    store.end_alarm(&first.key()).await.unwrap();
    assert_eq!(store.begin_alarm_try(&first.key(), at(60)).await.unwrap(), None);
    let left = waiting(store).await;
    assert_eq!(left.len(), 1);
    assert_ne!(left[0].id(), first.id());
}

async fn a_condition_is_told_when_it_begins_and_when_it_ends_and_once_each(store: &dyn Store) {
    keep_all(store).await;
    for cause in [resumed(1), paused(1), paused(1), paused(2)] {
        store.raise_alarm(cause, at(9)).await.unwrap();
    }
    assert_eq!(lines(store).await, ["1 dataset.paused 1 token", "1 dataset.paused 2 token"]);
    let both = [1, 2].map(|number| (Condition::DatasetPaused(dataset(number)), at(1)));
    assert_eq!(store.alarms().await.unwrap().lasting, both);
    for cause in [resumed(1), resumed(1), Cause::once(Subject::WebhookSilent, None)] {
        store.raise_alarm(cause, at(20)).await.unwrap();
    }
    let expected = [
        "1 dataset.paused 1 token",
        "1 dataset.paused 2 token",
        "1 dataset.resumed 1",
        "1 webhook.silent",
    ];
    assert_eq!(lines(store).await, expected);
    let lasting = [both[1], (Condition::WebhookSilent, at(20))];
    assert_eq!(store.alarms().await.unwrap().lasting, lasting);
}

async fn kinds_that_are_not_kept_raise_nothing_and_are_forgotten(store: &dyn Store) {
    keep_all(store).await;
    store.ingest(quarantine(&["a"]), at(5)).await.unwrap();
    store.raise_alarm(paused(1), at(5)).await.unwrap();
    keep(store, &[AlarmKind::DatasetResumed, TOLD], &[1]).await;
    assert_eq!(lines(store).await, [""; 0]);
    store.ingest(quarantine(&["b"]), at(6)).await.unwrap();
    store.raise_alarm(resumed(1), at(6)).await.unwrap();
    assert_eq!(lines(store).await, ["1 dataset.resumed 1"], "although the pause was not kept");
    store.keep_alarms(Kept::default()).await.unwrap();
    assert_eq!(lines(store).await, [""; 0]);
}

async fn a_condition_lasts_until_nobody_watches_it_or_its_kind_is_new(store: &dyn Store) {
    keep_all(store).await;
    for number in [1, 2] {
        store.raise_alarm(paused(number), at(5)).await.unwrap();
    }
    let [first, second] = [1, 2].map(|it| (Condition::DatasetPaused(dataset(it)), at(1)));
    for (kinds, datasets, expected) in [
        (AlarmKind::ALL, &[1, 2][..], vec![first, second]),
        (AlarmKind::ALL, &[2], vec![second]),
        (AlarmKind::ALL, &[1, 2], vec![second]),
        (&[TOLD], &[1, 2], vec![second]),
        (&[TOLD], &[1, 2], vec![second]),
        (AlarmKind::ALL, &[1, 2], vec![]),
    ] {
        keep(store, kinds, datasets).await;
        assert_eq!(store.alarms().await.unwrap().lasting, expected, "{kinds:?} {datasets:?}");
    }
}

async fn the_events_of_an_erased_lead_are_not_named_any_more_unless_the_message_was_tried(
    store: &dyn Store,
) {
    keep_all(store).await;
    ingest(store, &[lead(1), lead(2)]).await;
    kill_due(store, DeadReason::Expired, 9).await;
    store.begin_alarm_try(&waiting(store).await[0].key(), at(60)).await.unwrap();
    ingest(store, &[lead(3), lead(4)]).await;
    kill_due(store, DeadReason::Expired, 9).await;
    for number in [1, 3] {
        store.erase_lead(lead(number).reported.lead_id, at(10)).await.unwrap();
    }
    let named = |numbers: &[u64]| -> Vec<_> {
        numbers.iter().map(|number| lead(*number).raw_event().unwrap().id()).collect()
    };
    let ids: Vec<_> = waiting(store).await.into_iter().map(|it| it.cause.event_ids).collect();
    assert_eq!(ids, [named(&[1, 2]), named(&[4])]);
    assert_eq!(waiting(store).await[1].cause.count, 2, "it tells of as many as before");
}

async fn a_burst_is_a_handful_of_messages(store: &dyn Store) {
    keep_all(store).await;
    for burst in 0..10 {
        let leads: Vec<_> = (burst * 100..burst * 100 + 100).map(lead).collect();
        ingest(store, &leads).await;
        kill_due(store, DeadReason::RefusedByMeta, 9).await;
    }
    let alarms = waiting(store).await;
    assert_eq!((alarms.len(), alarms[0].cause.count), (1, 1_000));
    assert_eq!(alarms[0].cause.event_ids.len(), ALARM_EVENT_IDS_MAX);
}

async fn a_full_table_takes_no_new_subject_and_still_counts(store: &dyn Store) {
    keep_all(store).await;
    let near = |number: u64| {
        let dataset_id = DatasetId::from_u64(number);
        Cause::once(Subject::EventsDeadlineNear { dataset_id }, None)
    };
    store.ingest(quarantine(&["a"]), at(5)).await.unwrap();
    for number in 1..=ALARMS_WAITING_MAX as u64 {
        store.raise_alarm(near(number), at(5)).await.unwrap();
    }
    assert_eq!(waiting(store).await.len(), ALARMS_WAITING_MAX);
    store.ingest(quarantine(&["b"]), at(6)).await.unwrap();
    let alarms = waiting(store).await;
    assert_eq!(alarms.len(), ALARMS_WAITING_MAX);
    assert_eq!(alarms.last().unwrap().cause.count, 2);
}
