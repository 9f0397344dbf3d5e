//! Finding the lead of an update by a CRM's own id, an e-mail address or a phone number.

use super::support::{
    DAY, NOBODY, accept, all, at, dataset, due, found, heard_of, ingest, ingest_at, keyed, know,
    lead, lead_id, refuse, report, reported, routing, second, strict, update,
};
use crate::domain::customer::{Customer, Parameter};
use crate::domain::event::{EventDetail, SourcePolicy, StageUpdate, Standing};
use crate::domain::intake::Refusal;
use crate::domain::lead::ReportedLead;
use crate::domain::matching::{Ambiguity, CrmId, LeadReference, MatchedBy, contact_keys};
use crate::domain::stage::SourceName;
use crate::store::query::LeadFilter;
use crate::store::{Enqueued, Judged, Linked, Linking, Store, UpdateOutcome};

on_every_store![
    a_crms_own_id_is_enough_once_it_was_told_with_metas,
    a_link_can_be_made_before_the_lead_is_known,
    what_was_reported_under_a_crms_id_becomes_the_leads_when_they_are_linked,
    a_crms_id_is_linked_with_one_lead_and_a_lead_with_many,
    the_same_id_of_another_source_is_another_record,
    a_lead_is_found_by_what_is_known_of_the_person,
    of_several_leads_the_newest_before_the_event_is_meant_or_the_source_is_told,
    what_awaits_a_person_becomes_the_leads_when_the_person_is_known,
    an_event_that_found_its_lead_late_keeps_its_id_and_its_answer,
    what_is_learned_goes_along_with_later_events_and_changes_no_earlier_one,
    somebody_whose_lead_is_not_known_is_sent_if_the_source_wants_it,
    somebody_who_cannot_be_found_again_is_sent_at_once,
    a_strict_source_is_told_that_no_lead_fits,
    leads_are_listed_by_what_they_are_found_by,
    an_erased_lead_is_found_by_nothing_and_nothing_is_kept_of_it,
    a_removed_lead_leaves_no_trace_in_what_leads_are_found_by,
    what_awaits_a_person_is_found_when_a_lead_arrives_that_is_known_to_be_of_them,
    what_was_reported_before_a_lead_of_the_person_waits_for_an_earlier_one,
    a_record_whose_report_found_its_lead_by_the_person_is_that_leads,
    nobody_is_sent_of_whom_meta_would_be_told_too_little,
    a_report_is_known_though_its_lead_was_found_after_it_was_sent,
    a_source_with_a_dataset_means_no_lead_of_another,
    a_repeated_report_is_the_same_event_whatever_lead_it_fits_by_then,
    a_record_is_linked_by_its_person_only_where_one_lead_fits,
    whoever_moves_a_record_to_another_lead_is_told,
    a_dry_run_says_what_would_become_of_each_and_stores_nothing,
    what_awaits_a_lead_of_a_dataset_is_given_to_no_lead_of_another,
    one_person_of_two_datasets_is_sent_to_each_as_somebody_else,
    a_record_of_a_person_gets_to_their_second_lead,
    two_people_with_one_phone_number_stay_two,
    a_record_that_found_its_lead_is_linked_when_somebody_says_so,
    what_a_record_was_found_to_be_ends_with_its_lead,
    somebody_who_is_sent_already_is_nobody_to_be_found,
];

fn crm_id(text: &str) -> CrmId {
    CrmId::parse(text).unwrap()
}

/// An update that names its lead by a CRM's own id alone.
fn of_record(record: &str, stage: &str, time: i64) -> StageUpdate {
    let lead = LeadReference { lead_id: None, crm_id: Some(crm_id(record)) };
    StageUpdate { lead, ..update(1, stage, time) }
}

/// The same with Meta's id.
fn of_both(number: u64, record: &str, stage: &str, time: i64) -> StageUpdate {
    let lead = LeadReference { lead_id: Some(lead_id(number)), crm_id: Some(crm_id(record)) };
    StageUpdate { lead, ..update(1, stage, time) }
}

fn person(values: &[(Parameter, &str)]) -> Customer {
    let values = values.iter().map(|(parameter, value)| {
        let digest = format!("{:0>64}", hex::encode(value));
        (parameter.name().to_owned(), vec![digest])
    });
    Customer::from_stored(values)
}

fn email(name: &str) -> Customer {
    person(&[(Parameter::Em, name)])
}

/// An update that names its lead by what it says of the person.
fn of_person(customer: Customer, stage: &str, time: i64) -> StageUpdate {
    StageUpdate { lead: LeadReference::default(), customer, ..update(1, stage, time) }
}

fn sent_unmatched(update: StageUpdate) -> StageUpdate {
    let policy = SourcePolicy { send_unmatched: true, ..update.policy };
    StageUpdate { policy, ..update }
}

async fn judged(store: &dyn Store, update: StageUpdate) -> Judged {
    match report(store, update, at(9)).await {
        UpdateOutcome::Accepted(judged) | UpdateOutcome::Known(judged) => judged,
        UpdateOutcome::Refused(refusal) => panic!("{refusal:?}"),
    }
}

async fn link(store: &dyn Store, record: &str, number: u64) -> Linked {
    let source = SourceName::unnamed_crm();
    match store.link_crm_id(source, crm_id(record), lead_id(number), at(9)).await.unwrap() {
        Linking::Done(linked) => linked,
        Linking::Erased => panic!("the lead was erased"),
    }
}

async fn stages(store: &dyn Store, number: u64) -> Vec<String> {
    let events = found(store, number).await.events;
    events.iter().map(|detail| detail.event.stage.to_string()).collect()
}

async fn a_crms_own_id_is_enough_once_it_was_told_with_metas(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    let first = judged(store, of_both(2, "4711", "qualified", 3)).await;
    assert_eq!(first.matched_by, Some(MatchedBy::LeadId));
    let second = judged(store, of_record("4711", "won", 4)).await;
    assert_eq!(second.matched_by, Some(MatchedBy::CrmId));
    assert_eq!(second.detail.event.lead_id, lead_id(2));
    assert_eq!(stages(store, 2).await, ["initial_lead", "qualified", "won"]);
    know(store, update(2, "won", 4), at(9)).await;
    let detail = found(store, 2).await;
    assert_eq!(detail.crm_ids, [(SourceName::unnamed_crm(), crm_id("4711"))]);
}

async fn a_link_can_be_made_before_the_lead_is_known(store: &dyn Store) {
    let linked = link(store, "4711", 1).await;
    assert_eq!((linked.is_known, linked.before), (false, None));
    let awaiting = judged(store, of_record("4711", "won", 4)).await;
    assert_eq!(awaiting.detail.standing, Standing::AwaitingLead);
    assert_eq!((awaiting.matched_by, awaiting.detail.event.lead_id), (None, lead_id(1)));
    ingest(store, &[lead(1)]).await;
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead", "1 won"]);
}

async fn what_was_reported_under_a_crms_id_becomes_the_leads_when_they_are_linked(
    store: &dyn Store,
) {
    ingest(store, &[lead(1)]).await;
    accept(store, of_record("4711", "qualified", 3), at(9)).await;
    accept(store, of_record("4711", "won", 0), at(9)).await;
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead"]);
    let linked = link(store, "4711", 1).await;
    assert!(linked.is_known);
    assert_eq!(linked.enqueued, Enqueued([dataset(1)].into()));
    assert_eq!(linked.dead.len(), 1, "one was before its lead");
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead", "1 qualified"]);
    assert_eq!(stages(store, 1).await, ["initial_lead", "qualified", "won"]);
    let again = link(store, "4711", 1).await;
    assert_eq!((again.before, again.enqueued), (Some(lead_id(1)), Enqueued::default()));
}

async fn a_crms_id_is_linked_with_one_lead_and_a_lead_with_many(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    link(store, "a", 1).await;
    link(store, "b", 1).await;
    assert_eq!(link(store, "a", 2).await.before, Some(lead_id(1)));
    let of = |detail: crate::domain::event::LeadDetail| {
        detail.crm_ids.into_iter().map(|(_, crm_id)| crm_id).collect::<Vec<_>>()
    };
    assert_eq!(of(found(store, 1).await), [crm_id("b")]);
    assert_eq!(of(found(store, 2).await), [crm_id("a")]);
    assert_eq!(judged(store, of_record("a", "won", 4)).await.detail.event.lead_id, lead_id(2));
}

async fn the_same_id_of_another_source_is_another_record(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    link(store, "4711", 1).await;
    let source = SourceName::parse("another").unwrap();
    let other = StageUpdate { source, ..of_record("4711", "won", 4) };
    let judged = judged(store, other).await;
    assert_eq!(judged.detail.standing, Standing::AwaitingLead);
    assert!(judged.detail.event.lead_id.is_own());
}

async fn a_lead_is_found_by_what_is_known_of_the_person(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    let of_both = person(&[(Parameter::Em, "a"), (Parameter::Ph, "1")]);
    accept(store, StageUpdate { customer: of_both, ..update(1, "qualified", 3) }, at(9)).await;
    store.add_customer(lead_id(2), email("b"), at(9)).await.unwrap();
    let by_email = judged(store, of_person(email("a"), "won", 4)).await;
    let (lead_1, lead_2) = (lead_id(1), lead_id(2));
    let found_by = |judged: Judged| (judged.detail.event.lead_id, judged.matched_by);
    assert_eq!(found_by(by_email), (lead_1, Some(MatchedBy::Email)));
    let by_phone = judged(store, of_person(person(&[(Parameter::Ph, "1")]), "lost", 4)).await;
    assert_eq!(found_by(by_phone), (lead_1, Some(MatchedBy::Phone)));
    let read = judged(store, of_person(email("b"), "won", 4)).await;
    assert_eq!(found_by(read), (lead_2, Some(MatchedBy::Email)));
    let nobody = judged(store, of_person(email("c"), "won", 4)).await;
    assert_eq!(nobody.detail.standing, Standing::AwaitingLead);
}

async fn of_several_leads_the_newest_before_the_event_is_meant_or_the_source_is_told(
    store: &dyn Store,
) {
    for (number, created) in [(1, 0), (2, 5), (3, 8)] {
        let reported = ReportedLead { created_time: second(created), ..reported(number, 1) };
        ingest_at(store, &[heard_of(reported, at(9))], at(9)).await;
        store.add_customer(lead_id(number), email("a"), at(9)).await.unwrap();
    }
    let meant = |judged: Judged| judged.detail.event.lead_id;
    assert_eq!(meant(judged(store, of_person(email("a"), "won", 7)).await), lead_id(2));
    assert_eq!(meant(judged(store, of_person(email("a"), "won", 9)).await), lead_id(3));
    let mut told = of_person(email("a"), "lost", 7);
    told.policy.ambiguity = Ambiguity::Refuse;
    let refusal = refuse(store, told, at(9)).await;
    let Refusal::Ambiguous(ambiguous) = refusal else { panic!("{refusal:?}") };
    assert_eq!(ambiguous.lead_ids, [lead_id(1), lead_id(2), lead_id(3)]);
}

async fn what_awaits_a_person_becomes_the_leads_when_the_person_is_known(store: &dyn Store) {
    let both = person(&[(Parameter::Em, "a"), (Parameter::Ph, "1")]);
    accept(store, of_person(both, "qualified", 3), at(9)).await;
    accept(store, of_person(email("a"), "won", 4), at(9)).await;
    ingest(store, &[lead(1)]).await;
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead"]);
    let linked = store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    assert_eq!(linked.enqueued, Enqueued([dataset(1)].into()));
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead", "1 qualified", "1 won"]);
    let again = store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    assert_eq!(again.enqueued, Enqueued::default());
}

async fn an_event_that_found_its_lead_late_keeps_its_id_and_its_answer(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let report = keyed("k", of_record("4711", "won", 4));
    let awaiting = accept(store, report.clone(), at(9)).await;
    link(store, "4711", 1).await;
    let event_id = awaiting.event.id();
    let found: EventDetail = store.find_event(event_id).await.unwrap().unwrap();
    assert_eq!((found.event.id(), found.event.lead_id), (event_id, lead_id(1)));
    assert_eq!(found.standing, Standing::Queued(Some(dataset(1))));
    assert_eq!(know(store, report, at(9)).await, found);
    assert_eq!(know(store, of_record("4711", "won", 4), at(9)).await, found);
    assert_eq!(know(store, update(1, "won", 4), at(9)).await, found);
}

async fn what_is_learned_goes_along_with_later_events_and_changes_no_earlier_one(
    store: &dyn Store,
) {
    ingest(store, &[lead(1)]).await;
    accept(store, update(1, "qualified", 3), at(9)).await;
    store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    let phone = person(&[(Parameter::Ph, "1")]);
    accept(store, StageUpdate { customer: phone, ..update(1, "won", 4) }, at(9)).await;
    accept(store, update(1, "lost", 5), at(9)).await;
    let batch = store.next_batch(dataset(1), at(9), 10, &NOBODY).await.unwrap();
    let names = batch.events.iter().map(|queued| {
        queued.event.customer.iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")
    });
    assert_eq!(names.collect::<Vec<_>>(), ["", "", "em ph", "em ph"]);
    let known = found(store, 1).await.customer;
    assert_eq!(known, person(&[(Parameter::Em, "a"), (Parameter::Ph, "1")]));
}

async fn somebody_whose_lead_is_not_known_is_sent_if_the_source_wants_it(store: &dyn Store) {
    let mut unmatched = sent_unmatched(of_person(email("a"), "won", 4));
    unmatched.policy.dataset_id = Some(dataset(1));
    let routing = routing().and_datasets([dataset(1)]);
    let updates = vec![unmatched.clone(), within(1, of_person(email("a"), "lost", 5))];
    let recorded = store.record_stage_updates(updates, &routing, at(9)).await.unwrap();
    assert_eq!(recorded.enqueued, Enqueued([dataset(1)].into()));
    let UpdateOutcome::Accepted(judged) = &recorded.outcomes[0] else { panic!() };
    assert_eq!(judged.detail.standing, Standing::Queued(Some(dataset(1))));
    assert_eq!(judged.detail.event.lead_id.metas(), None);
    let batch = store.next_batch(dataset(1), at(9), 10, &NOBODY).await.unwrap();
    assert_eq!(batch.events.len(), 2, "what comes later of the same person goes along");
    know(store, unmatched, at(9)).await;
    let leads = store.list_leads(LeadFilter::default(), all(), at(9)).await.unwrap();
    assert_eq!(leads.items, [], "somebody without a lead is no lead");
    let detail = store.find_event(judged.detail.event.id()).await.unwrap().unwrap();
    assert_eq!(detail.event, judged.detail.event);
}

async fn somebody_who_cannot_be_found_again_is_sent_at_once(store: &dyn Store) {
    let customer = Customer::from_stored([("fbc".to_owned(), vec!["fb.1.2.x".to_owned()])]);
    let mut click = of_person(customer, "won", 4);
    click.policy.dataset_id = Some(dataset(1));
    let sent = accept(store, click, at(9)).await;
    // Nothing is configured for it: it is held, and goes out once something is.
    assert_eq!(sent.standing, Standing::Queued(Some(dataset(1))));
}

async fn a_strict_source_is_told_that_no_lead_fits(store: &dyn Store) {
    for update in [of_record("4711", "won", 4), of_person(email("a"), "won", 4)] {
        assert_eq!(refuse(store, strict(update), at(9)).await, Refusal::LeadNotFound);
    }
}

async fn leads_are_listed_by_what_they_are_found_by(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2), lead(3)]).await;
    link(store, "4711", 1).await;
    for number in [1, 3] {
        store.add_customer(lead_id(number), email("a"), at(9)).await.unwrap();
    }
    let key = contact_keys(&email("a"))[0].1;
    let phone_key = contact_keys(&person(&[(Parameter::Ph, "a")]))[0].1;
    let listed = async |filter: LeadFilter| {
        let page = store.list_leads(filter, all(), at(9)).await.unwrap();
        page.items.iter().map(|item| item.lead.reported.lead_id).collect::<Vec<_>>()
    };
    let by_email = LeadFilter { email: Some(key), ..LeadFilter::default() };
    let by_record = LeadFilter { crm_id: Some(crm_id("4711")), ..LeadFilter::default() };
    assert_eq!(listed(by_email.clone()).await, [lead_id(3), lead_id(1)]);
    assert_eq!(listed(by_record.clone()).await, [lead_id(1)]);
    let both = LeadFilter { crm_id: by_record.crm_id, ..by_email };
    assert_eq!(listed(both).await, [lead_id(1)]);
    let nobody = LeadFilter { phone: Some(phone_key), ..LeadFilter::default() };
    assert_eq!(listed(nobody).await, []);
}

async fn an_erased_lead_is_found_by_nothing_and_nothing_is_kept_of_it(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let late = accept(store, of_record("4711", "qualified", 3), at(9)).await;
    link(store, "4711", 1).await;
    store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    store.erase_lead(lead_id(1), at(9)).await.unwrap();
    assert_eq!(store.find_event(late.event.id()).await.unwrap(), None);
    for update in [of_record("4711", "won", 4), of_person(email("a"), "won", 4)] {
        assert_eq!(accept(store, update, at(9)).await.standing, Standing::AwaitingLead);
    }
    let source = SourceName::unnamed_crm();
    let linking = store.link_crm_id(source, crm_id("4711"), lead_id(1), at(9)).await.unwrap();
    assert_eq!(linking, Linking::Erased);
    let linked = store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    assert_eq!(linked, Linked::default());
    let by_email =
        LeadFilter { email: Some(contact_keys(&email("a"))[0].1), ..LeadFilter::default() };
    assert_eq!(store.list_leads(by_email, all(), at(9)).await.unwrap().items, []);
}

async fn a_removed_lead_leaves_no_trace_in_what_leads_are_found_by(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    link(store, "4711", 1).await;
    store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    super::support::deliver_due(store, 9).await;
    let removed = store.remove_old(at(40 * DAY), 0).await.unwrap();
    assert_eq!(removed.leads, 1);
    for update in [of_record("4711", "won", 4), of_person(email("a"), "won", 4)] {
        assert_eq!(accept(store, update, at(9)).await.standing, Standing::AwaitingLead);
    }
}

async fn a_dry_run_says_what_would_become_of_each_and_stores_nothing(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    accept(store, update(1, "qualified", 3), at(9)).await;
    let updates = vec![
        update(1, "won", 4),
        update(1, "qualified", 3),
        update(1, "won", 0),
        of_record("4711", "won", 4),
        sent_unmatched(of_person(email("a"), "won", 4)),
    ];
    let before = found(store, 1).await;
    let judged = store.judge_stage_updates(updates.clone(), &routing(), at(9)).await.unwrap();
    assert_eq!(found(store, 1).await, before);
    assert_eq!(store.stats().await.unwrap().awaiting, 0);
    let recorded = store.record_stage_updates(updates, &routing(), at(9)).await.unwrap();
    assert_eq!(judged, recorded.outcomes, "and so it comes");
}

async fn what_awaits_a_person_is_found_when_a_lead_arrives_that_is_known_to_be_of_them(
    store: &dyn Store,
) {
    accept(store, StageUpdate { customer: email("a"), ..update(1, "qualified", 3) }, at(9)).await;
    accept(store, of_person(email("a"), "won", 4), at(9)).await;
    ingest(store, &[lead(1)]).await;
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead", "1 qualified", "1 won"]);
}

async fn what_was_reported_before_a_lead_of_the_person_waits_for_an_earlier_one(store: &dyn Store) {
    accept(store, of_person(email("a"), "won", 4), at(9)).await;
    let later = ReportedLead { created_time: second(6), ..reported(2, 1) };
    ingest_at(store, &[heard_of(later, at(9))], at(9)).await;
    store.add_customer(lead_id(2), email("a"), at(9)).await.unwrap();
    assert_eq!(due(store, 1, at(9)).await, ["2 initial_lead"]);
    ingest(store, &[lead(1)]).await;
    store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead", "1 won", "2 initial_lead"]);
}

async fn a_record_whose_report_found_its_lead_by_the_person_is_that_leads(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    let both = person(&[(Parameter::Em, "a"), (Parameter::Ph, "1")]);
    let with_record = StageUpdate { customer: both, ..of_record("4711", "qualified", 3) };
    accept(store, with_record, at(9)).await;
    store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    for update in
        [of_record("4711", "won", 4), of_person(person(&[(Parameter::Ph, "1")]), "lost", 5)]
    {
        assert_eq!(judged(store, update).await.detail.event.lead_id, lead_id(1));
    }
}

async fn nobody_is_sent_of_whom_meta_would_be_told_too_little(store: &dyn Store) {
    let of = |update: StageUpdate| {
        let mut update = sent_unmatched(update);
        update.policy.dataset_id = Some(dataset(1));
        update
    };
    let routing = routing().and_datasets([dataset(1)]);
    accept(store, of_record("4711", "new", 2), at(9)).await;
    let first = of(StageUpdate { customer: email("a"), ..of_record("4711", "qualified", 3) });
    let next = of(of_record("4711", "won", 4));
    store.record_stage_updates(vec![first, next], &routing, at(9)).await.unwrap();
    let batch = store.next_batch(dataset(1), at(9), 10, &NOBODY).await.unwrap();
    assert_eq!(batch.events.len(), 3);
    for queued in batch.events {
        assert_eq!(queued.event.customer, email("a"), "{}", queued.event.stage);
    }
}

async fn a_report_is_known_though_its_lead_was_found_after_it_was_sent(store: &dyn Store) {
    let mut first = sent_unmatched(of_person(email("a"), "won", 4));
    first.policy.dataset_id = Some(dataset(1));
    let sent = accept(store, first.clone(), at(9)).await;
    ingest(store, &[lead(1)]).await;
    store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    assert_eq!(know(store, first, at(9)).await, sent);
}

async fn a_source_with_a_dataset_means_no_lead_of_another(store: &dyn Store) {
    ingest(store, &[super::support::lead_of(1, 1), super::support::lead_of(2, 2)]).await;
    for number in [1, 2] {
        store.add_customer(lead_id(number), email("a"), at(9)).await.unwrap();
    }
    let mut update = of_person(email("a"), "won", 4);
    update.policy.dataset_id = Some(dataset(1));
    assert_eq!(judged(store, update).await.detail.event.lead_id, lead_id(1));
}

async fn a_repeated_report_is_the_same_event_whatever_lead_it_fits_by_then(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    let of_record_too = StageUpdate { customer: email("a"), ..of_record("4711", "won", 4) };
    let reports = [of_person(email("a"), "qualified", 3), of_record_too];
    let mut first = Vec::new();
    for report in &reports {
        first.push(accept(store, report.clone(), at(9)).await);
    }
    // A newer lead of the same person fits better, and the record turns out to be its.
    let newer = ReportedLead { created_time: second(2), ..reported(2, 1) };
    ingest_at(store, &[heard_of(newer, at(9))], at(9)).await;
    store.add_customer(lead_id(2), email("a"), at(9)).await.unwrap();
    assert_eq!(link(store, "4711", 2).await.before, Some(lead_id(1)));
    for (report, first) in reports.into_iter().zip(first) {
        assert_eq!(know(store, report, at(9)).await, first);
    }
    assert_eq!(stages(store, 2).await, ["initial_lead"]);
    let next = judged(store, of_record("4711", "lost", 5)).await;
    assert_eq!(next.detail.event.lead_id, lead_id(2), "a repetition moves no link");
    let other = judged(store, of_person(email("a"), "qualified", 4)).await;
    assert_eq!(other.detail.event.lead_id, lead_id(2), "another time is another report");
}

async fn a_record_is_linked_by_its_person_only_where_one_lead_fits(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2), lead(3)]).await;
    for (number, name) in [(1, "a"), (2, "a"), (3, "b")] {
        store.add_customer(lead_id(number), email(name), at(9)).await.unwrap();
    }
    let one = StageUpdate { customer: email("b"), ..of_record("one", "qualified", 3) };
    let several = StageUpdate { customer: email("a"), ..of_record("several", "qualified", 3) };
    assert_eq!(judged(store, one).await.matched_by, Some(MatchedBy::Email));
    assert_eq!(judged(store, several).await.matched_by, Some(MatchedBy::Email));
    let one = judged(store, of_record("one", "won", 4)).await;
    assert_eq!(one.detail.event.lead_id, lead_id(3));
    let several = judged(store, of_record("several", "won", 4)).await;
    assert_eq!(several.detail.standing, Standing::AwaitingLead, "nobody knows which it was");
}

async fn whoever_moves_a_record_to_another_lead_is_told(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    let first = judged(store, of_both(1, "4711", "qualified", 3)).await;
    assert_eq!(first.previous_lead_id, None);
    let update = of_both(2, "4711", "won", 4);
    let dry = store.judge_stage_updates(vec![update.clone()], &routing(), at(9)).await.unwrap();
    let moved = judged(store, update.clone()).await;
    assert_eq!(moved.previous_lead_id, Some(lead_id(1)));
    assert_eq!(dry, [UpdateOutcome::Accepted(moved)]);
    assert_eq!(judged(store, update).await.previous_lead_id, None, "it is its own by now");
}

/// An update of a source that means only leads of a dataset.
fn within(number: u64, update: StageUpdate) -> StageUpdate {
    let policy = SourcePolicy { dataset_id: Some(dataset(number)), ..update.policy };
    StageUpdate { policy, ..update }
}

async fn what_awaits_a_lead_of_a_dataset_is_given_to_no_lead_of_another(store: &dyn Store) {
    let of_record = StageUpdate { customer: email("a"), ..of_record("4711", "qualified", 3) };
    for update in [of_record, of_person(email("a"), "won", 4)] {
        accept(store, within(1, update), at(9)).await;
    }
    accept(store, within(2, of_person(email("a"), "lost", 4)), at(9)).await;
    ingest(store, &[super::support::lead_of(2, 2)]).await;
    store.add_customer(lead_id(2), email("a"), at(9)).await.unwrap();
    assert_eq!(due(store, 2, at(9)).await, ["2 initial_lead", "2 lost"]);
    ingest(store, &[lead(1)]).await;
    store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    assert_eq!(due(store, 1, at(9)).await, ["1 initial_lead", "1 qualified", "1 won"]);
}

async fn one_person_of_two_datasets_is_sent_to_each_as_somebody_else(store: &dyn Store) {
    let routing = routing().and_datasets([1, 2].map(dataset));
    for number in [1, 2] {
        let update = within(number, sent_unmatched(of_person(email("a"), "won", 4)));
        store.record_stage_updates(vec![update], &routing, at(9)).await.unwrap();
    }
    for number in [1, 2] {
        let batch = store.next_batch(dataset(number), at(9), 10, &NOBODY).await.unwrap();
        assert_eq!(batch.events.len(), 1, "dataset {number}");
    }
}

async fn a_record_of_a_person_gets_to_their_second_lead(store: &dyn Store) {
    ingest(store, &[lead(1)]).await;
    store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    let contact =
        |stage, time| StageUpdate { customer: email("a"), ..of_record("4711", stage, time) };
    accept(store, contact("qualified", 3), at(9)).await;
    let second_lead = ReportedLead { created_time: second(5), ..reported(2, 1) };
    ingest_at(store, &[heard_of(second_lead, at(9))], at(9)).await;
    store.add_customer(lead_id(2), email("a"), at(9)).await.unwrap();
    let found_by = |judged: Judged| (judged.detail.event.lead_id, judged.matched_by);
    let with_contact = judged(store, contact("qualified", 7)).await;
    assert_eq!(found_by(with_contact), (lead_id(2), Some(MatchedBy::Email)));
    let without = judged(store, of_record("4711", "won", 8)).await;
    assert_eq!(found_by(without), (lead_id(1), Some(MatchedBy::CrmId)), "as before");
    link(store, "4711", 1).await;
    let linked = judged(store, contact("lost", 8)).await;
    assert_eq!(found_by(linked), (lead_id(1), Some(MatchedBy::CrmId)), "somebody said so");
}

async fn two_people_with_one_phone_number_stay_two(store: &dyn Store) {
    let of = |name| person(&[(Parameter::Em, name), (Parameter::Ph, "1")]);
    accept(store, of_person(of("c"), "won", 4), at(9)).await;
    ingest(store, &[lead(1)]).await;
    store.add_customer(lead_id(1), of("a"), at(9)).await.unwrap();
    let report = StageUpdate { customer: of("b"), ..of_record("4711", "qualified", 3) };
    assert_eq!(judged(store, report).await.matched_by, Some(MatchedBy::Phone));
    assert_eq!(stages(store, 1).await.len(), 3);
    assert_eq!(found(store, 1).await.customer, of("a"), "neither taught anything");
    for update in [of_record("4711", "won", 4), of_person(email("c"), "lost", 4)] {
        assert_eq!(judged(store, update).await.detail.standing, Standing::AwaitingLead);
    }
}

async fn a_record_that_found_its_lead_is_linked_when_somebody_says_so(store: &dyn Store) {
    let contact = StageUpdate { customer: email("a"), ..of_record("4711", "qualified", 3) };
    accept(store, contact, at(9)).await;
    ingest(store, &[lead(1)]).await;
    store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    assert_eq!(link(store, "4711", 1).await.before, Some(lead_id(1)));
    assert_eq!(found(store, 1).await.crm_ids, [(SourceName::unnamed_crm(), crm_id("4711"))]);
    let by_record = LeadFilter { crm_id: Some(crm_id("4711")), ..LeadFilter::default() };
    assert_eq!(super::support::leads(store, by_record, at(9)).await, [1]);
}

async fn what_a_record_was_found_to_be_ends_with_its_lead(store: &dyn Store) {
    ingest(store, &[lead(1), lead(2)]).await;
    store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    for record in ["found", "moved"] {
        let contact = StageUpdate { customer: email("a"), ..of_record(record, "qualified", 3) };
        judged(store, contact).await;
    }
    link(store, "moved", 2).await;
    store.erase_lead(lead_id(1), at(9)).await.unwrap();
    let won = judged(store, of_record("found", "won", 4)).await;
    assert!(won.detail.event.lead_id.is_own());
    assert_eq!(judged(store, of_record("moved", "won", 4)).await.detail.event.lead_id, lead_id(2));
    store.erase_lead(lead_id(2), at(9)).await.unwrap();
    assert!(judged(store, of_record("moved", "lost", 4)).await.detail.event.lead_id.is_own());
}

async fn somebody_who_is_sent_already_is_nobody_to_be_found(store: &dyn Store) {
    let record = |stage, time| {
        let customer = person(&[(Parameter::Em, "a"), (Parameter::Ph, "1")]);
        within(1, StageUpdate { customer, ..of_record("4711", stage, time) })
    };
    accept(store, record("new", 2), at(9)).await;
    accept(store, sent_unmatched(record("qualified", 3)), at(9)).await;
    ingest(store, &[lead(1)]).await;
    store.add_customer(lead_id(1), email("a"), at(9)).await.unwrap();
    assert_eq!(found(store, 1).await.customer, email("a"));
}
