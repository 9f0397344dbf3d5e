//! Stages that an update skips: named, and filled in where the dataset wants that.

use std::collections::BTreeMap;

use super::support::{at, dataset, due, found, ingest, lead, routing, second, stage, update};
use crate::domain::event::StageUpdate;
use crate::domain::funnel::Funnel;
use crate::domain::routing::Routing;
use crate::domain::stage::SourceName;
use crate::store::{Judged, Store, UpdateOutcome};

on_every_store![
    a_skipped_stage_is_named_and_the_update_is_taken,
    skipped_stages_are_sent_before_the_one_that_skipped_them,
    no_stage_is_filled_in_before_the_lead_or_what_it_reached,
    a_repeated_update_fills_nothing_in_again,
    a_stage_that_was_filled_in_and_is_reported_later_is_sent_once,
    what_awaits_its_lead_skips_the_same_stages_when_it_is_repeated,
    no_time_is_invented_for_what_the_same_batch_tells,
    what_awaits_its_lead_skips_stages_of_its_sources_dataset,
];

fn with_funnel(fill_skipped: bool) -> Routing {
    and_funnel(routing(), fill_skipped)
}

fn and_funnel(routing: Routing, fill_skipped: bool) -> Routing {
    let stages = ["qualified", "opportunity", "won"].map(stage).to_vec();
    routing.and_funnels(BTreeMap::from([(dataset(1), Funnel { stages, fill_skipped })]))
}

async fn judged(store: &dyn Store, update: StageUpdate, routing: &Routing) -> Judged {
    let recorded = store.record_stage_updates(vec![update], routing, at(90)).await.unwrap();
    match recorded.outcomes.into_iter().next() {
        Some(UpdateOutcome::Accepted(judged) | UpdateOutcome::Known(judged)) => judged,
        other => panic!("{other:?}"),
    }
}

async fn a_skipped_stage_is_named_and_the_update_is_taken(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let routing = with_funnel(false);
    let won = judged(store, update(1, "won", 50), &routing).await;
    assert_eq!(won.skipped.missing, [stage("qualified"), stage("opportunity")]);
    assert_eq!(won.skipped.filled, []);
    let late = judged(store, update(1, "qualified", 40), &routing).await;
    assert_eq!(late.skipped.missing, []);
    let again = judged(store, update(1, "won", 50), &routing).await;
    assert_eq!(again.skipped.missing, [stage("opportunity")], "as it is by now");
    assert_eq!(due(store, 1, at(90)).await, ["1 initial_lead", "1 qualified", "1 won"]);
}

async fn skipped_stages_are_sent_before_the_one_that_skipped_them(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let won = judged(store, update(1, "won", 50), &with_funnel(true)).await;
    let filled = [(stage("qualified"), second(48)), (stage("opportunity"), second(49))];
    assert_eq!((won.skipped.missing, won.skipped.filled), (vec![], filled.to_vec()));
    let expected = ["1 initial_lead", "1 qualified", "1 opportunity", "1 won"];
    assert_eq!(due(store, 1, at(90)).await, expected);
    let events = found(store, 1).await.events;
    assert_eq!(events[1].event.source, SourceName::leadloop());
    assert_eq!(events[3].event.source, SourceName::unnamed_crm());
}

async fn no_stage_is_filled_in_before_the_lead_or_what_it_reached(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    let routing = with_funnel(true);
    let early = judged(store, update(1, "won", 3), &routing).await;
    assert_eq!(early.skipped.missing, [stage("qualified")]);
    assert_eq!(early.skipped.filled, [(stage("opportunity"), second(2))]);
    judged(store, update(2, "qualified", 50), &routing).await;
    let next = judged(store, update(2, "won", 51), &routing).await;
    assert_eq!(next.skipped.missing, [stage("opportunity")]);
}

async fn a_repeated_update_fills_nothing_in_again(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let routing = with_funnel(true);
    judged(store, update(1, "won", 50), &routing).await;
    let again = judged(store, update(1, "won", 50), &routing).await;
    assert_eq!((again.skipped.missing, again.skipped.filled), (vec![], vec![]));
    assert_eq!(due(store, 1, at(90)).await.len(), 4);
}

async fn a_stage_that_was_filled_in_and_is_reported_later_is_sent_once(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    judged(store, update(1, "won", 50), &with_funnel(true)).await;
    let late = judged(store, update(1, "qualified", 20), &with_funnel(true)).await;
    assert_eq!(late.detail.event.source, SourceName::leadloop());
    assert_eq!(late.detail.event.event_time, second(48));
    assert_eq!(due(store, 1, at(90)).await.len(), 4);
}

async fn what_awaits_its_lead_skips_the_same_stages_when_it_is_repeated(store: &dyn Store) {
    let routing = and_funnel(Routing::new(BTreeMap::new(), Some(dataset(1))), true);
    for _ in 0..2 {
        let awaiting = judged(store, update(1, "won", 50), &routing).await;
        assert_eq!(awaiting.skipped.missing, [stage("qualified"), stage("opportunity")]);
    }
}

async fn no_time_is_invented_for_what_the_same_batch_tells(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    let updates = vec![update(1, "won", 50), update(2, "qualified", 9), update(1, "qualified", 20)];
    let recorded = store.record_stage_updates(updates, &with_funnel(true), at(90)).await.unwrap();
    let judged = recorded.outcomes.into_iter().map(|outcome| match outcome {
        UpdateOutcome::Accepted(judged) => judged,
        other => panic!("{other:?}"),
    });
    let judged: Vec<Judged> = judged.collect();
    let times: Vec<_> = judged.iter().map(|judged| judged.detail.event.event_time).collect();
    assert_eq!(times, [50, 9, 20].map(second), "answered in the order of asking");
    assert_eq!(judged[0].skipped.filled, [(stage("opportunity"), second(49))]);
}

async fn what_awaits_its_lead_skips_stages_of_its_sources_dataset(store: &dyn Store) {
    let routing = and_funnel(routing().and_datasets([dataset(1)]), true);
    let mut of_source = update(1, "won", 50);
    of_source.policy.dataset_id = Some(dataset(1));
    for _ in 0..2 {
        let awaiting = judged(store, of_source.clone(), &routing).await;
        assert_eq!(awaiting.skipped.missing, [stage("qualified"), stage("opportunity")]);
    }
}
