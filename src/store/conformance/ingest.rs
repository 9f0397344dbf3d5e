//! Taking in leads.

use super::support::{
    DAY, accept, all, at, dataset, due, found, heard_of, ingest, ingest_at, lead, lead_of, listed,
    page, piece, refuse, reported, routing, second, timeline, update,
};
use crate::domain::event::{EventState, Standing};
use crate::domain::ids::AdId;
use crate::domain::intake::Refusal;
use crate::domain::lead::{RawLead, ReportedLead};
use crate::domain::routing::Routing;
use crate::store::{Enqueued, Intake, LeadOutcome, Stats, Store};

on_every_store![
    a_new_lead_has_one_raw_event_in_the_queue_of_its_dataset,
    the_datasets_whose_queues_grew_are_told,
    a_duplicate_changes_nothing,
    of_two_differing_reports_the_first_one_stands,
    a_lead_that_comes_twice_in_one_delivery_is_stored_once,
    a_test_lead_is_shown_and_never_queued,
    a_lead_that_is_too_old_has_no_raw_event,
    a_raw_event_of_the_future_is_held_until_it_is_due,
    what_could_not_be_read_is_kept_beside_the_good_leads,
    a_piece_that_comes_again_is_kept_once,
    quarantine_is_listed_page_by_page,
    a_lead_of_an_unknown_page_is_stored_and_held,
    held_events_move_in_order_once_their_page_is_routed,
    a_routed_lead_keeps_its_dataset,
    what_is_queued_for_a_dataset_that_is_gone_goes_to_the_one_of_its_page,
    what_is_queued_for_a_dataset_that_is_gone_is_held_if_there_is_no_other,
    an_update_of_a_held_lead_takes_what_is_held_along_and_does_not_overtake_it,
    an_update_gives_a_dataset_to_a_lead_that_held_nothing,
];

async fn a_new_lead_has_one_raw_event_in_the_queue_of_its_dataset(store: &dyn Store) {
    assert_eq!(ingest(store, &[lead(1)]).await, [LeadOutcome::New]);
    assert_eq!(due(store, 1, at(5)).await, ["1 initial_lead"]);
    assert_eq!(due(store, 2, at(5)).await, [""; 0]);
    let detail = found(store, 1).await;
    assert_eq!(detail.lead, lead(1));
    assert_eq!(Some(detail.events[0].event.clone()), lead(1).raw_event());
    assert_eq!(timeline(store, 1, at(5)).await, ["1 initial_lead pending"]);
}

async fn the_datasets_whose_queues_grew_are_told(store: &dyn Store) {
    let intake = Intake {
        leads: vec![lead_of(1, 1), lead_of(2, 2), lead_of(3, 3)],
        quarantined: Vec::new(),
    };
    let ingested = store.ingest(intake.clone(), at(5)).await.unwrap();
    let both = Enqueued([dataset(1), dataset(2)].into());
    assert_eq!(ingested.enqueued, both);
    let again = store.ingest(intake, at(6)).await.unwrap();
    assert_eq!(again.enqueued, Enqueued::default());
}

async fn a_duplicate_changes_nothing(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let (before, stats) = (found(store, 1).await, store.stats().await.unwrap());
    let later = heard_of(reported(1, 1), at(3_600));
    let outcomes = ingest_at(store, &[later], at(3_600)).await;
    assert_eq!(outcomes, [LeadOutcome::Duplicate]);
    assert_eq!(found(store, 1).await, before);
    assert_eq!(store.stats().await.unwrap(), stats);
    assert_eq!(due(store, 1, at(3_600)).await, ["1 initial_lead"]);
}

async fn of_two_differing_reports_the_first_one_stands(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let other = ReportedLead { ad_id: AdId::from_u64(9), ..reported(1, 2) };
    let outcomes = ingest(store, &[heard_of(other, at(5))]).await;
    assert_eq!(outcomes, [LeadOutcome::DifferingDuplicate]);
    assert_eq!(found(store, 1).await.lead, lead(1));
    assert_eq!(due(store, 2, at(5)).await, [""; 0]);
}

async fn a_lead_that_comes_twice_in_one_delivery_is_stored_once(store: &dyn Store) {
    let outcomes = ingest(store, &[lead(1), lead(2), lead(1), lead_of(2, 2)]).await;
    let expected = [
        LeadOutcome::New,
        LeadOutcome::New,
        LeadOutcome::Duplicate,
        LeadOutcome::DifferingDuplicate,
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(due(store, 1, at(5)).await, ["1 initial_lead", "2 initial_lead"]);
}

async fn a_test_lead_is_shown_and_never_queued(store: &dyn Store) {
    let test = ReportedLead { test: true, ..reported(1, 1) };
    assert_eq!(ingest(store, &[heard_of(test, at(5))]).await, [LeadOutcome::New]);
    let detail = found(store, 1).await;
    assert_eq!((detail.lead.raw_lead, detail.events), (RawLead::SkippedTest, vec![]));
    let refused = refuse(store, update(1, "won", 6), at(9)).await;
    assert_eq!(refused, Refusal::LeadIsTest);
    let stats = Stats { leads: 1, ..Stats::default() };
    assert_eq!(store.stats().await.unwrap(), stats);
}

async fn a_lead_that_is_too_old_has_no_raw_event(store: &dyn Store) {
    let old = heard_of(reported(1, 1), at(7 * DAY + 1));
    ingest_at(store, &[old], at(7 * DAY + 1)).await;
    let detail = found(store, 1).await;
    assert_eq!((detail.lead.raw_lead, detail.events), (RawLead::SkippedTooOld, vec![]));
    assert_eq!(store.stats().await.unwrap().queued, 0);
    accept(store, update(1, "won", 7 * DAY), at(7 * DAY + 1)).await;
    assert_eq!(due(store, 1, at(7 * DAY + 1)).await, ["1 won"]);
}

async fn a_raw_event_of_the_future_is_held_until_it_is_due(store: &dyn Store) {
    ingest_at(store, &[heard_of(reported(1, 1), at(0))], at(0)).await;
    assert_eq!(timeline(store, 1, at(0)).await, ["1 initial_lead held"]);
    assert_eq!(due(store, 1, at(0)).await, [""; 0]);
    assert_eq!(timeline(store, 1, at(1)).await, ["1 initial_lead pending"]);
    assert_eq!(due(store, 1, at(1)).await, ["1 initial_lead"]);
}

async fn what_could_not_be_read_is_kept_beside_the_good_leads(store: &dyn Store) {
    let intake = Intake { leads: vec![lead(1)], quarantined: vec![piece("no created_time")] };
    store.ingest(intake, at(5)).await.unwrap();
    let kept = store.list_quarantine(all()).await.unwrap();
    assert_eq!(kept.items, [piece("no created_time")]);
    assert_eq!(store.stats().await.unwrap().quarantined, 1);
    assert_eq!(due(store, 1, at(5)).await, ["1 initial_lead"]);
}

async fn a_piece_that_comes_again_is_kept_once(store: &dyn Store) {
    let intake = |pieces: &[&str]| Intake {
        leads: Vec::new(),
        quarantined: pieces.iter().copied().map(piece).collect(),
    };
    store.ingest(intake(&["a", "a"]), at(5)).await.unwrap();
    store.ingest(intake(&["a", "b"]), at(6)).await.unwrap();
    let kept = store.list_quarantine(all()).await.unwrap();
    assert_eq!(kept.items, [piece("b"), piece("a")]);
}

async fn quarantine_is_listed_page_by_page(store: &dyn Store) {
    let intake = Intake { leads: Vec::new(), quarantined: ["a", "b", "c"].map(piece).to_vec() };
    store.ingest(intake, at(5)).await.unwrap();
    let first = store.list_quarantine(page(None, 2)).await.unwrap();
    assert_eq!(first.items, [piece("c"), piece("b")]);
    let second = store.list_quarantine(page(first.next_cursor, 2)).await.unwrap();
    assert_eq!((second.items, second.next_cursor), (vec![piece("a")], None));
}

async fn a_lead_of_an_unknown_page_is_stored_and_held(store: &dyn Store) {
    assert_eq!(ingest(store, &[lead_of(1, 3)]).await, [LeadOutcome::New]);
    assert_eq!(found(store, 1).await.lead.dataset_id, None);
    assert_eq!(listed(store, EventState::Held, at(9)).await, ["1 initial_lead held"]);
    let fronts = store.fronts().await.unwrap();
    assert_eq!(fronts, [(None, second(1))]);
    assert_eq!(store.route_held(&routing()).await.unwrap(), 0, "still unknown");
}

/// Leads of Page 1 and 2 that came while no Page had a dataset.
async fn ingest_unrouted(store: &dyn Store, pages: &[u64]) {
    for (number, page) in (1..).zip(pages) {
        let mut lead = lead_of(number, *page);
        lead.dataset_id = None;
        ingest(store, &[lead]).await;
    }
}

async fn held_events_move_in_order_once_their_page_is_routed(store: &dyn Store) {
    ingest_unrouted(store, &[1, 2, 3, 1]).await;
    let nowhere = Routing::default();
    let updates = vec![update(1, "won", 6), update(3, "won", 6)];
    let recorded = store.record_stage_updates(updates, &nowhere, at(9)).await;
    assert_eq!(recorded.unwrap().enqueued, Enqueued::default());
    assert_eq!(store.route_held(&routing()).await.unwrap(), 4);
    let expected = ["1 initial_lead", "4 initial_lead", "1 won"];
    assert_eq!(due(store, 1, at(9)).await, expected);
    assert_eq!(due(store, 2, at(9)).await, ["2 initial_lead"]);
    let held = ["3 won held", "3 initial_lead held"];
    assert_eq!(listed(store, EventState::Held, at(9)).await, held);
    assert_eq!(store.route_held(&routing()).await.unwrap(), 0);
}

async fn a_routed_lead_keeps_its_dataset(store: &dyn Store) {
    ingest(store, &[lead_of(1, 1)]).await;
    let moved = Routing::new([].into(), Some(dataset(2))).and_datasets([dataset(1)]);
    assert_eq!(store.route_held(&moved).await.unwrap(), 0);
    let won = vec![update(1, "won", 6)];
    store.record_stage_updates(won, &moved, at(9)).await.unwrap();
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead", "1 won"]);
    assert_eq!(found(store, 1).await.lead.dataset_id, Some(dataset(1)));
}

async fn what_is_queued_for_a_dataset_that_is_gone_goes_to_the_one_of_its_page(store: &dyn Store) {
    ingest(store, &[lead_of(1, 1), lead_of(2, 2)]).await;
    let gone = Routing::new([].into(), Some(dataset(2)));
    assert_eq!(store.route_held(&gone).await.unwrap(), 1);
    let won = vec![update(1, "won", 6)];
    store.record_stage_updates(won, &gone, at(9)).await.unwrap();
    assert_eq!(due(store, 1, at(9)).await, [""; 0]);
    let expected = ["1 initial_lead", "2 initial_lead", "1 won"];
    assert_eq!(due(store, 2, at(9)).await, expected);
    assert_eq!(found(store, 1).await.lead.dataset_id, Some(dataset(2)));
}

async fn what_is_queued_for_a_dataset_that_is_gone_is_held_if_there_is_no_other(store: &dyn Store) {
    ingest(store, &[lead_of(1, 1)]).await;
    assert_eq!(store.route_held(&Routing::default()).await.unwrap(), 0);
    assert_eq!(listed(store, EventState::Held, at(9)).await, ["1 initial_lead held"]);
    assert_eq!(store.expire_stranded(at(8 * DAY)).await.unwrap().held, 1);
}

async fn an_update_of_a_held_lead_takes_what_is_held_along_and_does_not_overtake_it(
    store: &dyn Store,
) {
    ingest_unrouted(store, &[1, 1]).await;
    let won = accept(store, update(1, "won", 6), at(9)).await;
    assert_eq!(won.standing, Standing::Queued(Some(dataset(1))));
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead", "1 won"]);
    assert_eq!(found(store, 2).await.lead.dataset_id, None, "another lead waits on");
    assert_eq!(store.route_held(&routing()).await.unwrap(), 1);
    let expected = ["1 initial_lead", "2 initial_lead", "1 won"];
    assert_eq!(due(store, 1, at(9)).await, expected);
}

async fn an_update_gives_a_dataset_to_a_lead_that_held_nothing(store: &dyn Store) {
    let mut old = heard_of(reported(1, 1), at(8 * DAY));
    old.dataset_id = None;
    ingest_at(store, &[old], at(8 * DAY)).await;
    assert_eq!(store.route_held(&routing()).await.unwrap(), 0);
    accept(store, update(1, "won", 8 * DAY), at(8 * DAY)).await;
    assert_eq!(due(store, 1, at(8 * DAY)).await, ["1 won"]);
    assert_eq!(found(store, 1).await.lead.dataset_id, Some(dataset(1)));
}
