//! Random use of the embedded store and of the model side by side: they must look the same.

use std::collections::BTreeSet;
use std::fmt::Debug;

use proptest::prelude::*;

use crate::domain::alarm::{AlarmKind, Cause, Condition, Kept, Subject};
use crate::domain::customer::Customer;
use crate::domain::event::{
    Attempt, DeadReason, EventDetail, EventState, LeadDetail, LeadSummary, StageUpdate,
};
use crate::domain::funnel::Funnel;
use crate::domain::ids::FormId;
use crate::domain::mark::{FormMark, Pass};
use crate::domain::matching::{CrmId, LeadReference, contact_keys};
use crate::domain::routing::Routing;
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::store::conformance::support::{
    DAY, NOBODY, at, attempt, dataset, heard_of, keyed, lead_id, page, piece, redb_in_memory,
    reported, routing, second, stage, strict, tolerant, update,
};
use crate::store::memory::MemoryStore;
use crate::store::query::{DeadLetters, EventFilter, LeadFilter, Page, PageRequest};
use crate::store::{
    ApiKeyDigest, Batch, Hold, Intake, Quarantined, Settlement, Stats, Store, StoreError,
};

const LEADS: u64 = 4;
const STAGES: [&str; 3] = ["initial_lead", "qualified", "won"];

/// One thing that happens to a store.
#[derive(Clone, Debug)]
pub(in crate::store) enum Step {
    Ingest(Vec<SomeLead>, bool),
    Report(Vec<SomeUpdate>, SomeRouting),
    /// Takes a batch of a dataset and ends its events, each in its own way.
    Settle(u64, usize, [Fate; 4], bool),
    Requeue(u64, usize),
    /// Queues dead letters again, in calls of two, or only asks what that would do.
    RequeueMany(SomeLetters, bool),
    Route(SomeRouting),
    Expire,
    Erase(u64),
    /// Links a CRM's record with a lead.
    Link(u64, u8),
    /// Reads who a lead is.
    Know(u64, u8),
    /// Removes what was not heard of for so many seconds.
    Remove(i64),
    Key(u8),
    Probe,
    /// A page of a form was read, or the last one.
    Mark(u64, bool),
    KeepAlarms,
    /// Raises the alarm that dataset 1 is paused, or that it is not any more.
    Pause(bool),
    /// Tries one of the alarms that wait.
    TryAlarm(usize),
    /// Ends one of them.
    EndAlarm(usize),
    Wait(i64),
}

#[derive(Clone, Debug)]
pub(in crate::store) struct SomeLead {
    pub(in crate::store) number: u64,
    pub(in crate::store) page: u64,
    pub(in crate::store) age_s: i64,
    pub(in crate::store) test: bool,
    pub(in crate::store) routed: bool,
}

#[derive(Clone, Debug)]
pub(in crate::store) struct SomeUpdate {
    pub(in crate::store) number: u64,
    pub(in crate::store) stage: &'static str,
    /// Seconds ago, if the time is given.
    pub(in crate::store) ago_s: Option<i64>,
    pub(in crate::store) key: Option<&'static str>,
    pub(in crate::store) tolerance_s: u32,
    pub(in crate::store) strict: bool,
    pub(in crate::store) named: Named,
}

/// How an update names its lead.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum Named {
    /// By its id.
    Id,
    /// By a CRM's record.
    Record(u8),
    /// By both.
    Both(u8),
    /// By its id, and by whom it is of.
    IdAndPerson(u8),
    /// By the person.
    Person(u8),
    /// By the person, who is sent without a lead.
    Unmatched(u8),
}

/// Which dead letters: all events of a lead by name, or a filter.
#[derive(Clone, Debug)]
pub(in crate::store) enum SomeLetters {
    Named(u64),
    Filtered(EventFilter),
}

#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum SomeRouting {
    Nowhere,
    KnownPages,
    Everywhere,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::store) enum Fate {
    Delivered,
    Failed,
    Refused,
    Expired,
    Untouched,
}

fn some_routing() -> impl Strategy<Value = SomeRouting> {
    prop_oneof![
        Just(SomeRouting::Nowhere),
        Just(SomeRouting::KnownPages),
        Just(SomeRouting::Everywhere)
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        Just(Fate::Delivered),
        Just(Fate::Failed),
        Just(Fate::Refused),
        Just(Fate::Expired),
        Just(Fate::Untouched)
    ]
}

fn some_lead() -> impl Strategy<Value = SomeLead> {
    let age_s = prop_oneof![Just(-3), 0..60i64, Just(8 * DAY)];
    (1..=LEADS, 1..=3u64, age_s, prop::bool::weighted(0.1), any::<bool>()).prop_map(
        |(number, page, age_s, test, routed)| SomeLead { number, page, age_s, test, routed },
    )
}

fn some_update() -> impl Strategy<Value = SomeUpdate> {
    (
        1..=LEADS,
        prop::sample::select(&STAGES[..]),
        prop::option::of(-40..100i64),
        prop::option::of(prop::sample::select(&["a", "b"][..])),
        prop::sample::select(&[0, 60][..]),
        prop::bool::weighted(0.2),
        named(),
    )
        .prop_map(|(number, stage, ago_s, key, tolerance_s, strict, named)| SomeUpdate {
            number,
            stage,
            ago_s,
            key,
            tolerance_s,
            strict,
            named,
        })
}

fn named() -> impl Strategy<Value = Named> {
    prop_oneof![
        6 => Just(Named::Id),
        1 => (0..2u8).prop_map(Named::Record),
        1 => (0..2u8).prop_map(Named::Both),
        1 => (0..2u8).prop_map(Named::IdAndPerson),
        1 => (0..2u8).prop_map(Named::Person),
        1 => (0..2u8).prop_map(Named::Unmatched),
    ]
}

fn record(number: u8) -> CrmId {
    CrmId::parse(&format!("record {number}")).unwrap()
}

/// Somebody with an e-mail address of their own and a phone number that others have too.
fn person(number: u8) -> Customer {
    let values = [("em", format!("{number:064}")), ("ph", "a".repeat(64))];
    Customer::from_stored(values.map(|(name, digest)| (name.to_owned(), vec![digest])))
}

/// A filter on one thing or on nothing.
fn some_filter() -> impl Strategy<Value = EventFilter> {
    let default = EventFilter::default;
    prop_oneof![
        Just(default()),
        prop::sample::select(&DeadReason::ALL[..])
            .prop_map(move |reason| EventFilter { reason: Some(reason), ..default() }),
        (1..=3u64)
            .prop_map(move |number| EventFilter { dataset_id: Some(dataset(number)), ..default() }),
        (1..=LEADS)
            .prop_map(move |number| EventFilter { lead_id: Some(lead_id(number)), ..default() }),
        Just(EventFilter { code: Some(2), ..default() }),
        Just(EventFilter { created_from: Some(second(9)), ..default() }),
        Just(EventFilter { created_before: Some(second(9)), ..default() }),
    ]
}

pub(in crate::store) fn step() -> impl Strategy<Value = Step> {
    let leads = prop::collection::vec(some_lead(), 0..3);
    let updates = prop::collection::vec(some_update(), 1..4);
    let wait_s = prop_oneof![0..60i64, Just(3 * DAY)];
    prop_oneof![
        3 => (leads, any::<bool>()).prop_map(|(leads, piece)| Step::Ingest(leads, piece)),
        4 => (updates, some_routing()).prop_map(|(updates, to)| Step::Report(updates, to)),
        3 => (1..=3u64, 0..5usize, prop::array::uniform4(fate()), any::<bool>())
            .prop_map(|(dataset, limit, fates, sent)| Step::Settle(dataset, limit, fates, sent)),
        1 => (1..=LEADS, 0..4usize).prop_map(|(number, index)| Step::Requeue(number, index)),
        1 => ((1..=LEADS).prop_map(SomeLetters::Named), any::<bool>())
            .prop_map(|(letters, dry_run)| Step::RequeueMany(letters, dry_run)),
        1 => (some_filter().prop_map(SomeLetters::Filtered), any::<bool>())
            .prop_map(|(letters, dry_run)| Step::RequeueMany(letters, dry_run)),
        1 => some_routing().prop_map(Step::Route),
        1 => Just(Step::Expire),
        1 => (1..=LEADS).prop_map(Step::Erase),
        1 => (1..=LEADS, 0..2u8).prop_map(|(number, record)| Step::Link(number, record)),
        1 => (1..=LEADS, 0..2u8).prop_map(|(number, person)| Step::Know(number, person)),
        1 => (0..40i64).prop_map(Step::Remove),
        1 => (1..4u8).prop_map(Step::Key),
        1 => Just(Step::Probe),
        1 => (1..=2u64, any::<bool>()).prop_map(|(form, last)| Step::Mark(form, last)),
        1 => any::<bool>().prop_map(Step::Pause),
        1 => (0..3usize).prop_map(Step::TryAlarm),
        1 => (0..3usize).prop_map(Step::EndAlarm),
        2 => wait_s.prop_map(Step::Wait),
    ]
}

impl SomeRouting {
    fn table(self) -> Routing {
        let stages = ["qualified", "opportunity", "won"].map(stage).to_vec();
        let funnel = Funnel { stages, fill_skipped: true };
        let routing = match self {
            Self::Nowhere => Routing::default(),
            Self::KnownPages => routing(),
            Self::Everywhere => Routing::new([].into(), Some(dataset(3))),
        };
        routing.and_funnels([(dataset(3), funnel)].into())
    }
}

impl SomeLead {
    fn lead(&self, now_s: i64) -> crate::domain::lead::Lead {
        let mut reported = reported(self.number, self.page);
        reported.created_time = second(now_s - self.age_s);
        reported.test = self.test;
        let mut lead = heard_of(reported, at(now_s));
        lead.dataset_id = lead.dataset_id.filter(|_| self.routed);
        lead
    }
}

impl SomeUpdate {
    fn update(&self, now_s: i64) -> StageUpdate {
        let time_s = now_s - self.ago_s.unwrap_or(0);
        let mut update = tolerant(self.tolerance_s, update(self.number, self.stage, time_s));
        if self.strict {
            update = strict(update);
        }
        if let Some(key) = self.key {
            update = keyed(key, update);
        }
        let lead_id = Some(lead_id(self.number));
        let (lead_id, crm_id, customer) = match self.named {
            Named::Id => (lead_id, None, Customer::default()),
            Named::Record(number) => (None, Some(record(number)), Customer::default()),
            Named::Both(number) => (lead_id, Some(record(number)), Customer::default()),
            Named::IdAndPerson(number) => (lead_id, None, person(number)),
            Named::Person(number) | Named::Unmatched(number) => (None, None, person(number)),
        };
        update.lead = LeadReference { lead_id, crm_id };
        update.customer = customer;
        update.policy.send_unmatched = matches!(self.named, Named::Unmatched(_));
        let given = self.ago_s.is_some();
        update.event_time = update.event_time.filter(|_| given);
        update
    }
}

/// Takes a step and tells what came of it.
pub(in crate::store) async fn take(
    store: &dyn Store,
    step: &Step,
    now_s: i64,
) -> Result<String, StoreError> {
    let now = at(now_s);
    Ok(match step {
        Step::Ingest(leads, with_piece) => {
            let intake = Intake {
                leads: leads.iter().map(|lead| lead.lead(now_s)).collect(),
                quarantined: with_piece.then(|| piece("unreadable")).into_iter().collect(),
            };
            told(store.ingest(intake, now).await?)
        }
        Step::Report(updates, routing) => {
            let updates: Vec<_> = updates.iter().map(|update| update.update(now_s)).collect();
            let judged = store.judge_stage_updates(updates.clone(), &routing.table(), now).await?;
            told((judged, store.record_stage_updates(updates, &routing.table(), now).await?))
        }
        Step::Settle(number, limit, fates, sent) => {
            let batch = store.next_batch(dataset(*number), now, *limit, &NOBODY).await?;
            // Some attempts have a code.
            let attempt = sent.then(|| attempt(now_s, matches!(fates[0], Fate::Delivered)));
            told(store.settle(settlement(*number, &batch, *fates, attempt, now)).await?)
        }
        Step::Requeue(number, index) => {
            let lead = store.find_lead(lead_id(*number)).await?;
            let event = lead.and_then(|lead| lead.events.into_iter().nth(*index));
            match event {
                Some(event) => told(store.requeue(event.event.id(), &routing(), now).await?),
                None => "no event".into(),
            }
        }
        Step::RequeueMany(letters, dry_run) => requeue_many(store, letters, *dry_run, now).await?,
        Step::Route(routing) => told(store.route_held(&routing.table()).await?),
        Step::Expire => told(store.expire_stranded(now).await?),
        Step::Erase(number) => told(store.erase_lead(lead_id(*number), now).await?),
        Step::Link(number, of) => {
            let source = SourceName::unnamed_crm();
            told(store.link_crm_id(source, record(*of), lead_id(*number), now).await?)
        }
        Step::Know(number, of) => {
            told(store.add_customer(lead_id(*number), person(*of), now).await?)
        }
        Step::Remove(age_s) => told(store.remove_old(at(now_s - age_s), 0).await?),
        Step::Key(number) => told(store.add_api_key([*number; 32]).await?),
        Step::Probe => told(store.probe().await?),
        Step::Mark(form, last) => {
            let form_id = FormId::from_u64(*form).unwrap();
            let mark = store.form_mark(form_id).await?;
            let mut pass = mark.pass.clone().unwrap_or(Pass::since(second(now_s)));
            pass.after = Some("QVFI".into());
            pass.add_page([second(now_s)].into_iter(), [].into_iter());
            let under_way = FormMark { pass: Some(pass.clone()), ..mark.clone() };
            let mark = if *last { mark.after(&pass, second(now_s)) } else { under_way };
            told(store.set_form_mark(form_id, mark).await?)
        }
        Step::KeepAlarms | Step::Pause(_) | Step::TryAlarm(_) | Step::EndAlarm(_) => {
            alarm(store, step, now).await?
        }
        Step::Wait(_) => String::new(),
    })
}

/// Takes a step that has to do with alarms.
async fn alarm(store: &dyn Store, step: &Step, now: Timestamp) -> Result<String, StoreError> {
    Ok(match step {
        Step::KeepAlarms => {
            let kinds = AlarmKind::ALL.iter().copied().collect();
            told(store.keep_alarms(Kept { kinds, ..Kept::default() }).await?)
        }
        Step::Pause(begins) => {
            let dataset_id = dataset(1);
            let paused = Subject::DatasetPaused { dataset_id, reason: "token".into() };
            let resumed = Subject::DatasetResumed { dataset_id };
            let subject = if *begins { paused } else { resumed };
            told(store.raise_alarm(Cause::once(subject, begins.then_some(now)), now).await?)
        }
        Step::TryAlarm(index) => match store.alarms().await?.waiting.get(*index) {
            Some(alarm) => {
                let tried = store.begin_alarm_try(&alarm.key(), now).await?;
                tried.map_or_else(String::new, |alarm| alarm.id())
            }
            None => "no alarm".into(),
        },
        Step::EndAlarm(index) => match store.alarms().await?.waiting.get(*index) {
            Some(alarm) => told(store.end_alarm(&alarm.key()).await?),
            None => "no alarm".into(),
        },
        step => panic!("{step:?} has nothing to do with alarms"),
    })
}

async fn requeue_many(
    store: &dyn Store,
    letters: &SomeLetters,
    dry_run: bool,
    now: Timestamp,
) -> Result<String, StoreError> {
    let filter = match letters {
        SomeLetters::Named(number) => {
            let lead = store.find_lead(lead_id(*number)).await?;
            let events = lead.into_iter().flat_map(|lead| lead.events);
            let named = DeadLetters::Named(events.map(|event| event.event.id()).collect());
            return Ok(told(store.requeue_many(named, dry_run, &routing(), now).await?));
        }
        SomeLetters::Filtered(filter) => filter,
    };
    let (mut calls, mut cursor) = (String::new(), None);
    loop {
        let letters = DeadLetters::Filtered(filter.clone(), page(cursor, 2));
        let mut many = store.requeue_many(letters, dry_run, &routing(), now).await?;
        cursor = many.next_cursor.take();
        calls = format!("{calls}{many:?} {}\n", cursor.is_some());
        if cursor.is_none() {
            return Ok(calls);
        }
    }
}

fn told(answer: impl Debug) -> String {
    format!("{answer:?}")
}

fn settlement(
    number: u64,
    batch: &Batch,
    fates: [Fate; 4],
    attempt: Option<Attempt>,
    at: Timestamp,
) -> Settlement {
    let mut settlement = Settlement {
        dataset_id: dataset(number),
        attempt,
        delivered: Vec::new(),
        failed: Vec::new(),
        dead: Vec::new(),
        at,
        hold: Hold::default(),
    };
    for (queued, fate) in batch.events.iter().zip(fates) {
        match fate {
            Fate::Delivered => settlement.delivered.push(queued.entry),
            Fate::Failed => settlement.failed.push(queued.entry),
            Fate::Refused => {
                settlement.failed.push(queued.entry);
                settlement.dead.push((queued.entry, DeadReason::RefusedByMeta));
            }
            Fate::Expired => settlement.dead.push((queued.entry, DeadReason::Expired)),
            Fate::Untouched => {}
        }
    }
    settlement
}

/// All that a store shows, without its own numbers.
#[derive(Debug, PartialEq)]
pub(in crate::store) struct Everything {
    leads: Vec<Option<LeadDetail>>,
    listed: Vec<LeadSummary>,
    /// Those that are found by a record or a person.
    found: Vec<Vec<LeadSummary>>,
    events: Vec<Vec<EventDetail>>,
    details: Vec<Option<EventDetail>>,
    batches: Vec<String>,
    quarantine: Vec<Quarantined>,
    api_keys: BTreeSet<ApiKeyDigest>,
    stats: Stats,
    /// Which events an alarm names is up to the store.
    alarms: Vec<(String, Timestamp, Timestamp, u64, usize, u32)>,
    lasting: Vec<(Condition, Timestamp)>,
    marks: Vec<FormMark>,
}

/// Looks at all of a store, its lists in pages of two.
pub(in crate::store) async fn everything(
    store: &dyn Store,
    now: Timestamp,
) -> Result<Everything, StoreError> {
    let mut leads = Vec::new();
    for number in 1..=LEADS {
        leads.push(store.find_lead(lead_id(number)).await?);
    }
    let mut events = Vec::new();
    for state in EventState::ALL.map(Some).into_iter().chain([None]) {
        let filter = EventFilter::in_state(state);
        events.push(whole(async |it| store.list_events(filter.clone(), it, now).await).await?);
    }
    let mut details = Vec::new();
    for event in leads.iter().flatten().flat_map(|lead| &lead.events) {
        details.push(store.find_event(event.event.id()).await?);
    }
    let mut batches = Vec::new();
    for number in 1..=3 {
        for limit in [2, 100] {
            let batch = store.next_batch(dataset(number), now, limit, &NOBODY).await?;
            let queued: Vec<_> = batch.events.iter().map(|queued| &queued.event).collect();
            batches.push(format!("{queued:?} {:?}", batch.next_due));
        }
    }
    let mut marks = Vec::new();
    for form_id in [1, 2].map(|form| FormId::from_u64(form).unwrap()) {
        marks.push(store.form_mark(form_id).await?);
    }
    let filter = LeadFilter::default;
    let mut found = Vec::new();
    for number in 0..2 {
        let contacts = contact_keys(&person(number));
        let [email, phone] = [0, 1].map(|index| Some(contacts[index].1));
        for by in [
            LeadFilter { crm_id: Some(record(number)), ..filter() },
            LeadFilter { email, ..filter() },
            LeadFilter { email, phone, ..filter() },
        ] {
            found.push(whole(async |page| store.list_leads(by.clone(), page, now).await).await?);
        }
    }
    let alarms = store.alarms().await?;
    let shown = alarms.waiting.into_iter().map(|alarm| {
        let (id, cause) = (alarm.id(), alarm.cause);
        (id, alarm.first_at, alarm.last_at, cause.count, cause.event_ids.len(), alarm.tries)
    });
    Ok(Everything {
        alarms: shown.collect(),
        lasting: alarms.lasting,
        leads,
        listed: whole(async |page| store.list_leads(filter(), page, now).await).await?,
        found,
        events,
        details,
        batches,
        quarantine: whole(async |page| store.list_quarantine(page).await).await?,
        api_keys: store.api_keys().await?.into_iter().collect(),
        marks,
        stats: store.stats().await?,
    })
}

/// What the filters let through.
pub(in crate::store) async fn filtered(
    store: &dyn Store,
    now: Timestamp,
) -> Result<Vec<Vec<EventDetail>>, StoreError> {
    let mut events = Vec::new();
    for filter in filters() {
        events.push(whole(async |it| store.list_events(filter.clone(), it, now).await).await?);
    }
    Ok(events)
}

/// Filters on events, each on something else.
fn filters() -> Vec<EventFilter> {
    let filter = EventFilter::default;
    let mut filters: Vec<EventFilter> =
        DeadReason::ALL.map(|reason| EventFilter { reason: Some(reason), ..filter() }).into();
    filters.extend((1..=3).map(|it| EventFilter { dataset_id: Some(dataset(it)), ..filter() }));
    filters.extend((1..=LEADS).map(|it| EventFilter { lead_id: Some(lead_id(it)), ..filter() }));
    let dead = EventFilter::in_state(Some(EventState::Dead));
    filters.push(EventFilter { lead_id: Some(lead_id(1)), ..dead.clone() });
    filters.push(EventFilter { code: Some(2), ..dead });
    filters.push(EventFilter { created_from: Some(second(9)), ..filter() });
    filters.push(EventFilter { created_before: Some(second(9)), ..filter() });
    filters
}

/// The whole of a list, gathered from its pages.
async fn whole<T>(
    list: impl AsyncFn(PageRequest) -> Result<Page<T>, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let (mut items, mut cursor) = (Vec::new(), None);
    loop {
        let next = list(page(cursor, 2)).await?;
        items.extend(next.items);
        cursor = next.next_cursor;
        if cursor.is_none() {
            return Ok(items);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_embedded_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (model, store) = (MemoryStore::default(), redb_in_memory());
            for store in [&model as &dyn Store, &store] {
                take(store, &Step::KeepAlarms, 5).await.unwrap();
            }
            let mut now_s = 5;
            for step in &steps {
                if let Step::Wait(seconds) = step {
                    now_s += seconds;
                }
                let expected = take(&model, step, now_s).await;
                prop_assert_eq!(take(&store, step, now_s).await, expected, "{:?}", step);
                let expected = everything(&model, at(now_s)).await;
                prop_assert_eq!(everything(&store, at(now_s)).await, expected, "{:?}", step);
                let expected = filtered(&model, at(now_s)).await;
                prop_assert_eq!(filtered(&store, at(now_s)).await, expected, "{:?}", step);
            }
            Ok(())
        })?;
    }
}
