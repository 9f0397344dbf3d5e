//! Taking in stage updates of known leads.

use super::support::{
    DAY, accept, at, dataset, deliver_due, due, found, ingest, keyed, know, lead, lead_id, line,
    refuse, routing, second, stage, timeline, tolerant, update,
};
use crate::domain::customer::{Origin, Parameter};
use crate::domain::event::{StageUpdate, Standing};
use crate::domain::funnel::Skipped;
use crate::domain::intake::Refusal;
use crate::domain::matching::MatchedBy;
use crate::domain::rules::RefusedTime;
use crate::domain::stage::SourceName;
use crate::store::{Enqueued, Judged, Store, UpdateOutcome};

on_every_store![
    an_update_is_queued_behind_the_raw_event,
    everything_that_an_update_says_is_kept,
    the_same_report_again_is_known_and_not_queued_twice,
    a_report_that_was_delivered_is_known_and_shows_so,
    another_time_or_stage_is_another_event,
    the_same_key_with_the_same_content_is_known,
    the_same_key_with_other_content_is_a_conflict,
    a_key_belongs_to_its_source,
    a_retry_without_a_time_is_the_same_report_later,
    a_second_key_for_a_known_report_is_remembered_too,
    a_refused_update_leaves_nothing_behind,
    a_key_of_a_refused_update_may_be_used_again,
    outcomes_of_a_batch_come_in_order_and_independent_of_each_other,
    a_batch_may_say_the_same_twice,
    a_time_within_the_tolerance_is_lifted_over_the_creation,
    an_update_of_the_near_future_is_held_until_it_is_due,
];

async fn an_update_is_queued_behind_the_raw_event(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let detail = accept(store, update(1, "won", 6), at(9)).await;
    assert_eq!(detail.standing, Standing::Queued(Some(dataset(1))));
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead", "1 won"]);
    let expected = ["1 initial_lead pending", "1 won pending"];
    assert_eq!(timeline(store, 1, at(9)).await, expected);
}

async fn everything_that_an_update_says_is_kept(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let mut full = StageUpdate {
        source: SourceName::parse("hubspot").unwrap(),
        custom_data: Some(r#"{"value":5}"#.into()),
        ..update(1, "won", 6)
    };
    full.customer.add(Parameter::Em, "a@example.com", &Origin::default()).unwrap();
    let detail = accept(store, full.clone(), at(9)).await;
    assert_eq!(detail.event, full.into_event(lead_id(1), second(6), second(6), at(9)));
    assert_eq!(found(store, 1).await.events[1], detail);
    assert_eq!(store.find_event(detail.event.id()).await.unwrap(), Some(detail));
}

async fn the_same_report_again_is_known_and_not_queued_twice(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let first = accept(store, update(1, "won", 6), at(9)).await;
    let routing = routing();
    let recorded = store.record_stage_updates(vec![update(1, "won", 6)], &routing, at(10));
    let recorded = recorded.await.unwrap();
    let known = Judged {
        detail: first.clone(),
        matched_by: Some(MatchedBy::LeadId),
        previous_lead_id: None,
        skipped: Skipped::default(),
    };
    assert_eq!(recorded.outcomes, [UpdateOutcome::Known(known)]);
    assert_eq!(recorded.enqueued, Enqueued::default());
    assert_eq!(know(store, update(1, "won", 6), at(30 * DAY)).await, first, "for ever");
    assert_eq!(due(store, 1, at(10)).await, ["1 initial_lead", "1 won"]);
}

async fn a_report_that_was_delivered_is_known_and_shows_so(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    accept(store, update(1, "won", 6), at(9)).await;
    deliver_due(store, 10).await;
    let known = know(store, update(1, "won", 6), at(11)).await;
    assert_eq!(known.standing, Standing::Delivered);
    assert_eq!(due(store, 1, at(11)).await, [""; 0]);
}

async fn another_time_or_stage_is_another_event(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    for (name, time) in [("won", 6), ("won", 7), ("lost", 6)] {
        accept(store, update(1, name, time), at(9)).await;
    }
    let expected = ["1 initial_lead", "1 won", "1 lost", "1 won"];
    assert_eq!(due(store, 1, at(9)).await, expected);
}

async fn the_same_key_with_the_same_content_is_known(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let first = accept(store, keyed("k", update(1, "won", 6)), at(9)).await;
    let again = know(store, keyed("k", update(1, "won", 6)), at(10)).await;
    assert_eq!(again, first);
    assert_eq!(due(store, 1, at(10)).await, ["1 initial_lead", "1 won"]);
}

async fn the_same_key_with_other_content_is_a_conflict(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    accept(store, keyed("k", update(1, "won", 6)), at(9)).await;
    for other in [update(1, "won", 7), update(1, "lost", 6), update(2, "won", 6)] {
        let refusal = refuse(store, keyed("k", other), at(10)).await;
        assert_eq!(refusal, Refusal::IdempotencyConflict);
    }
    assert_eq!(store.stats().await.unwrap().queued, 3);
}

async fn a_key_belongs_to_its_source(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    accept(store, keyed("k", update(1, "won", 6)), at(9)).await;
    let other = StageUpdate {
        source: SourceName::parse("hubspot").unwrap(),
        ..keyed("k", update(1, "lost", 6))
    };
    accept(store, other, at(9)).await;
}

async fn a_retry_without_a_time_is_the_same_report_later(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let timeless = StageUpdate { event_time: None, ..update(1, "won", 0) };
    let first = accept(store, keyed("k", timeless.clone()), at(9)).await;
    assert_eq!(first.event.event_time, second(9));
    assert_eq!(know(store, keyed("k", timeless.clone()), at(60)).await, first);
    let unkeyed = accept(store, timeless.clone(), at(60)).await;
    assert_eq!(unkeyed.event.event_time, second(60), "nothing says that it is the same");
    let kept = StageUpdate { came_at: Some(at(20)), ..timeless.clone() };
    let first = accept(store, keyed("kept", kept), at(60)).await;
    assert_eq!(first.event.event_time, second(20), "it came before it was taken in");
    assert_eq!(know(store, keyed("kept", timeless), at(70)).await, first);
}

async fn a_second_key_for_a_known_report_is_remembered_too(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    accept(store, keyed("a", update(1, "won", 6)), at(9)).await;
    know(store, keyed("b", update(1, "won", 6)), at(9)).await;
    let refusal = refuse(store, keyed("b", update(1, "lost", 6)), at(9)).await;
    assert_eq!(refusal, Refusal::IdempotencyConflict);
}

async fn a_refused_update_leaves_nothing_behind(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let (before, stats) = (found(store, 1).await, store.stats().await.unwrap());
    let not_after = refuse(store, update(1, "won", 0), at(9)).await;
    let expected =
        RefusedTime::NotAfterLead { event_time: second(0), lead_created_time: second(0) };
    assert_eq!(not_after, Refusal::Time(expected));
    let future = refuse(store, update(1, "won", 10), at(9)).await;
    assert!(matches!(future, Refusal::Time(RefusedTime::InFuture { .. })));
    let old = refuse(store, update(1, "won", 6), at(7 * DAY + 7)).await;
    assert!(matches!(old, Refusal::Time(RefusedTime::TooOld { .. })));
    assert_eq!(found(store, 1).await, before);
    assert_eq!(store.stats().await.unwrap(), stats);
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead"]);
}

async fn a_key_of_a_refused_update_may_be_used_again(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    refuse(store, keyed("k", update(1, "won", 10)), at(9)).await;
    accept(store, keyed("k", update(1, "won", 6)), at(9)).await;
}

async fn outcomes_of_a_batch_come_in_order_and_independent_of_each_other(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    let updates = vec![
        update(2, "won", 6),
        update(1, "won", 0),
        update(1, "lost", 6),
        update(1, "initial_lead", 1),
        update(3, "won", 6),
    ];
    let recorded = store.record_stage_updates(updates, &routing(), at(9)).await.unwrap();
    let words = recorded.outcomes.iter().map(|outcome| match outcome {
        UpdateOutcome::Accepted(judged) => line(&judged.detail, at(9)),
        UpdateOutcome::Known(judged) => format!("known {}", judged.detail.event.stage),
        UpdateOutcome::Refused(_) => "refused".to_owned(),
    });
    let expected =
        ["2 won pending", "refused", "1 lost pending", "known initial_lead", "3 won awaiting_lead"];
    assert_eq!(words.collect::<Vec<_>>(), expected);
    assert_eq!(recorded.enqueued, Enqueued([dataset(1)].into()));
    let expected = ["1 initial_lead", "2 initial_lead", "2 won", "1 lost"];
    assert_eq!(due(store, 1, at(9)).await, expected);
}

async fn a_batch_may_say_the_same_twice(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let updates = vec![update(1, "won", 6), update(1, "won", 6)];
    let recorded = store.record_stage_updates(updates, &routing(), at(9)).await.unwrap();
    let [UpdateOutcome::Accepted(first), UpdateOutcome::Known(second)] = &recorded.outcomes[..]
    else {
        panic!("{recorded:?}");
    };
    assert_eq!(first, second);
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead", "1 won"]);
}

async fn a_time_within_the_tolerance_is_lifted_over_the_creation(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let detail = accept(store, tolerant(60, update(1, "won", -20)), at(9)).await;
    assert_eq!((detail.event.reported_time, detail.event.event_time), (second(-20), second(1)));
    assert!(detail.event.is_adjusted());
    let again = know(store, tolerant(60, update(1, "won", -30)), at(9)).await;
    assert_eq!(again, detail, "lifted to the same second");
    assert_eq!(found(store, 1).await.stage(), Some(&stage("won")));
}

async fn an_update_of_the_near_future_is_held_until_it_is_due(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    accept(store, tolerant(60, update(1, "won", 30)), at(9)).await;
    let expected = ["1 initial_lead pending", "1 won held"];
    assert_eq!(timeline(store, 1, at(29)).await, expected);
    assert_eq!(due(store, 1, at(29)).await, ["1 initial_lead"]);
    assert_eq!(due(store, 1, at(30)).await, ["1 initial_lead", "1 won"]);
}
