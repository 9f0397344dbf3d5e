//! Looking up leads and events, lists, figures, keys.

use super::support::{
    CREATED, accept, all, at, dataset, deliver_due, due, found, heard_of, ingest, ingest_at,
    kill_due, lead, lead_id, lead_of, leads, line, listed, numbers, page, reported, second, stage,
    timeline, tolerant, update,
};
use crate::domain::event::{DeadReason, EventState, LeadSummary};
use crate::domain::ids::{FormId, PageId};
use crate::domain::lead::ReportedLead;
use crate::domain::time::UnixSeconds;
use crate::store::query::{EventFilter, LeadFilter};
use crate::store::{Stats, Store};

on_every_store![
    a_timeline_starts_with_the_raw_lead_and_goes_on_as_reported,
    a_lead_is_in_the_stage_that_it_reached_last,
    an_unknown_lead_is_not_found,
    leads_are_listed_newest_first,
    leads_are_filtered_by_page_form_and_time,
    leads_are_filtered_by_stage_and_by_state,
    filters_must_all_pass,
    pages_of_leads_are_stable_while_new_leads_arrive,
    pages_of_events_are_stable_while_new_events_arrive,
    a_filtered_list_goes_on_after_its_cursor,
    events_of_every_state_are_listed,
    all_events_are_listed_newest_first,
    an_empty_store_lists_nothing,
    figures_are_of_the_whole_store,
    api_keys_are_remembered_once,
];

async fn a_timeline_starts_with_the_raw_lead_and_goes_on_as_reported(store: &dyn Store) {
    accept(store, update(1, "won", 8), at(9)).await;
    ingest(store, &[lead(1)]).await;
    accept(store, update(1, "qualified", 7), at(10)).await;
    let expected = ["1 initial_lead pending", "1 won pending", "1 qualified pending"];
    assert_eq!(timeline(store, 1, at(10)).await, expected);
}

async fn a_lead_is_in_the_stage_that_it_reached_last(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    assert_eq!(found(store, 1).await.stage(), Some(&stage("initial_lead")));
    accept(store, update(1, "won", 8), at(9)).await;
    accept(store, update(1, "qualified", 7), at(9)).await;
    assert_eq!(found(store, 1).await.stage(), Some(&stage("won")));
    kill_due(store, DeadReason::RefusedByMeta, 10).await;
    assert_eq!(found(store, 1).await.stage(), Some(&stage("won")));
    assert_eq!(due(store, 1, at(10)).await, [""; 0]);
}

async fn an_unknown_lead_is_not_found(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    assert_eq!(store.find_lead(lead_id(2)).await.unwrap(), None);
}

async fn leads_are_listed_newest_first(store: &dyn Store) {
    ingest(store, &[lead(2), lead(9)]).await;
    ingest(store, &[lead(5)]).await;
    assert_eq!(leads(store, LeadFilter::default(), at(9)).await, [5, 9, 2]);
    let listed = store.list_leads(LeadFilter::default(), all(), at(9)).await.unwrap();
    let found = found(store, 5).await;
    let summary = LeadSummary { stage: found.stage().cloned(), lead: found.lead };
    assert_eq!(listed.items[0], summary);
    assert_eq!(listed.next_cursor, None);
}

/// Lead n was created n seconds late, on Page 1 if n is odd and on Page 2 if it is even.
async fn ingest_in_turn(store: &dyn Store, count: i64) {
    for (number, seconds) in (1..).zip(1..=count) {
        let reported =
            ReportedLead { created_time: second(seconds), ..reported(number, 2 - number % 2) };
        ingest_at(store, &[heard_of(reported, at(30))], at(30)).await;
    }
}

async fn leads_are_filtered_by_page_form_and_time(store: &dyn Store) {
    ingest_in_turn(store, 4).await;
    let of_page = LeadFilter { page_id: PageId::from_u64(1), ..LeadFilter::default() };
    assert_eq!(leads(store, of_page, at(30)).await, [3, 1]);
    let of_form = LeadFilter { form_id: FormId::from_u64(102), ..LeadFilter::default() };
    assert_eq!(leads(store, of_form, at(30)).await, [4, 2]);
    let of_time = LeadFilter {
        created_from: Some(UnixSeconds::new(CREATED + 2)),
        created_before: Some(UnixSeconds::new(CREATED + 4)),
        ..LeadFilter::default()
    };
    assert_eq!(leads(store, of_time, at(30)).await, [3, 2]);
}

async fn leads_are_filtered_by_stage_and_by_state(store: &dyn Store) {
    ingest(store, &[lead_of(1, 1), lead_of(2, 2), lead_of(3, 3)]).await;
    accept(store, update(2, "won", 6), at(9)).await;
    deliver_due(store, 9).await;
    let in_stage = |name| LeadFilter { stage: Some(stage(name)), ..LeadFilter::default() };
    assert_eq!(leads(store, in_stage("won"), at(9)).await, [2]);
    assert_eq!(leads(store, in_stage("initial_lead"), at(9)).await, [3, 1]);
    for (state, expected) in [
        (EventState::Delivered, vec![1]),
        (EventState::Pending, vec![2]),
        (EventState::Held, vec![3]),
        (EventState::Dead, vec![]),
    ] {
        let filter = LeadFilter { state: Some(state), ..LeadFilter::default() };
        assert_eq!(leads(store, filter, at(9)).await, expected, "{state:?}");
    }
}

async fn filters_must_all_pass(store: &dyn Store) {
    ingest_in_turn(store, 4).await;
    let filter = LeadFilter {
        page_id: PageId::from_u64(1),
        created_from: Some(second(2)),
        state: Some(EventState::Pending),
        ..LeadFilter::default()
    };
    assert_eq!(leads(store, filter, at(30)).await, [3]);
}

async fn pages_of_leads_are_stable_while_new_leads_arrive(store: &dyn Store) {
    ingest(store, &[1, 2, 3, 4, 5].map(lead)).await;
    let (mut cursor, mut seen) = (None, Vec::new());
    for newcomer in 10.. {
        let list = store.list_leads(LeadFilter::default(), page(cursor, 2), at(9));
        let list = list.await.unwrap();
        assert!(list.items.len() <= 2);
        seen.extend(numbers(&list.items));
        ingest(store, &[lead(newcomer)]).await;
        cursor = list.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
}

async fn pages_of_events_are_stable_while_new_events_arrive(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    accept(store, update(1, "won", 6), at(9)).await;
    let mut newcomers = 0;
    for wanted in [None, Some(EventState::Pending)] {
        let (mut cursor, mut seen) = (None, Vec::new());
        loop {
            let list = store
                .list_events(EventFilter::in_state(wanted), page(cursor, 1), at(9))
                .await
                .unwrap();
            seen.extend(list.items.iter().map(|event| line(event, at(9))));
            cursor = list.next_cursor;
            if cursor.is_none() {
                break;
            }
            newcomers += 1;
            let newcomer = update(2, &format!("stage {newcomers}"), 6);
            accept(store, newcomer, at(9)).await;
        }
        let expected = ["1 won pending", "2 initial_lead pending", "1 initial_lead pending"];
        assert!(seen.ends_with(&expected.map(str::to_owned)), "{seen:?}");
    }
}

async fn a_filtered_list_goes_on_after_its_cursor(store: &dyn Store) {
    ingest_in_turn(store, 6).await;
    let filter = LeadFilter { page_id: PageId::from_u64(1), ..LeadFilter::default() };
    let first = store.list_leads(filter.clone(), page(None, 2), at(30)).await.unwrap();
    assert_eq!(numbers(&first.items), [5, 3]);
    let rest = store.list_leads(filter, page(first.next_cursor, 2), at(30)).await.unwrap();
    assert_eq!((numbers(&rest.items), rest.next_cursor), (vec![1], None));
}

/// Leads with an event in every state, at second 20.
async fn one_of_each(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    deliver_due(store, 9).await;
    ingest(store, &[lead(2)]).await;
    kill_due(store, DeadReason::RefusedByMeta, 9).await;
    ingest(store, &[lead_of(3, 3), lead(4)]).await;
    accept(store, tolerant(60, update(4, "won", 40)), at(9)).await;
    accept(store, update(5, "won", 6), at(9)).await;
}

async fn events_of_every_state_are_listed(store: &dyn Store) {
    one_of_each(store).await;
    for (state, expected) in [
        (EventState::AwaitingLead, vec!["5 won awaiting_lead"]),
        (EventState::Held, vec!["4 won held", "3 initial_lead held"]),
        (EventState::Pending, vec!["4 initial_lead pending"]),
        (EventState::Delivered, vec!["1 initial_lead delivered"]),
        (EventState::Dead, vec!["2 initial_lead dead refused_by_meta"]),
    ] {
        assert_eq!(listed(store, state, at(20)).await, expected, "{state:?}");
    }
}

async fn all_events_are_listed_newest_first(store: &dyn Store) {
    one_of_each(store).await;
    let list = store.list_events(EventFilter::default(), all(), at(20)).await.unwrap();
    let lines: Vec<_> = list.items.iter().map(|event| line(event, at(20))).collect();
    let expected = [
        "5 won awaiting_lead",
        "4 won held",
        "4 initial_lead pending",
        "3 initial_lead held",
        "2 initial_lead dead refused_by_meta",
        "1 initial_lead delivered",
    ];
    assert_eq!(lines, expected);
    assert_eq!(list.next_cursor, None);
}

async fn an_empty_store_lists_nothing(store: &dyn Store) {
    assert_eq!(leads(store, LeadFilter::default(), at(9)).await, [0; 0]);
    for state in EventState::ALL {
        assert_eq!(listed(store, state, at(9)).await, [""; 0]);
    }
    assert_eq!(store.list_quarantine(all()).await.unwrap().items, []);
    assert_eq!(store.stats().await.unwrap(), Stats::default());
}

async fn figures_are_of_the_whole_store(store: &dyn Store) {
    one_of_each(store).await;
    let stats = Stats {
        leads: 4,
        queued: 3,
        awaiting: 1,
        dead: 1,
        quarantined: 0,
        unmapped: 0,
        fronts: vec![(None, second(1)), (Some(dataset(1)), second(1))],
    };
    assert_eq!(store.stats().await.unwrap(), stats);
    deliver_due(store, 20).await;
    let front = store.fronts().await.unwrap()[1];
    assert_eq!(front, (Some(dataset(1)), second(40)));
}

async fn api_keys_are_remembered_once(store: &dyn Store) {
    assert_eq!(store.api_keys().await.unwrap(), [[0; 32]; 0]);
    for digest in [[7; 32], [3; 32], [7; 32]] {
        store.add_api_key(digest).await.unwrap();
    }
    let mut keys = store.api_keys().await.unwrap();
    keys.sort_unstable();
    assert_eq!(keys, [[3; 32], [7; 32]]);
}
