//! What the tests build from and look with: small leads, short updates, states as text.
//!
//! Leads and datasets are numbered, times are seconds after [`CREATED`]. What a store shows is
//! turned into lines such as `1 won pending`, so that a test reads like a transcript.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use redb::backends::InMemoryBackend;

use crate::domain::customer::Customer;
use crate::domain::event::{
    Attempt, DeadReason, EventDetail, EventState, LeadDetail, LeadSummary, SourcePolicy,
    StageUpdate, Standing,
};
use crate::domain::ids::{DatasetId, FormId, LeadId, PageId};
use crate::domain::intake::Refusal;
use crate::domain::lead::{Lead, ReportedLead};
use crate::domain::routing::Routing;
use crate::domain::stage::{SourceName, StageName};
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::store::query::{EventFilter, LeadFilter, PageRequest};
use crate::store::redb::{Medium, Opening, Purpose, RedbStore};
use crate::store::{
    Hold, Intake, LeadOutcome, Quarantined, QueueEntry, Settlement, Store, StoreError,
    UpdateOutcome,
};

/// When the leads were created, unless a test says otherwise.
pub const CREATED: i64 = 1_762_000_000;
/// No lead is kept back.
pub const NOBODY: BTreeSet<LeadId> = BTreeSet::new();
/// Seconds in a day.
pub const DAY: i64 = 86_400;
const FIRST_LEAD: u64 = 1_234_567_890_000_000;

pub fn redb_in_memory() -> RedbStore {
    let open = |_: Opening| -> Result<Arc<dyn Medium>, StoreError> {
        Ok(Arc::new(InMemoryBackend::new()))
    };
    RedbStore::open_on(Purpose::Live, open).unwrap()
}

// ---- Building ---------------------------------------------------------------------------------

pub fn second(seconds: i64) -> UnixSeconds {
    UnixSeconds::new(CREATED + seconds)
}

pub fn at(seconds: i64) -> Timestamp {
    second(seconds).timestamp()
}

pub fn lead_id(number: u64) -> LeadId {
    LeadId::from_u64(FIRST_LEAD + number).unwrap()
}

pub fn dataset(number: u64) -> DatasetId {
    DatasetId::from_u64(number).unwrap()
}

pub fn stage(name: &str) -> StageName {
    StageName::parse(name).unwrap()
}

/// Pages 1 and 2 have the datasets 1 and 2; other Pages have none.
pub fn routing() -> Routing {
    let pages = [1, 2].map(|number| (PageId::from_u64(number).unwrap(), dataset(number)));
    Routing::new(BTreeMap::from(pages), None)
}

/// A lead of a Page and form as the webhook reports it.
pub fn reported(number: u64, page: u64) -> ReportedLead {
    ReportedLead {
        lead_id: lead_id(number),
        page_id: PageId::from_u64(page),
        form_id: FormId::from_u64(100 + page),
        ad_id: None,
        created_time: second(0),
        test: false,
    }
}

/// What becomes of a reported lead that is heard of at a time.
pub fn heard_of(reported: ReportedLead, now: Timestamp) -> Lead {
    let dataset_id = routing().resolve(reported.page_id);
    let raw_stage = stage("initial_lead");
    Lead::new(reported, SourceName::webhook(), dataset_id, raw_stage, now)
}

/// A lead of Page 1, heard of five seconds after it was created.
pub fn lead(number: u64) -> Lead {
    lead_of(number, 1)
}

/// A lead of a Page, heard of five seconds after it was created.
pub fn lead_of(number: u64, page: u64) -> Lead {
    heard_of(reported(number, page), at(5))
}

/// A stage update of a lead at a time.
pub fn update(number: u64, name: &str, time: i64) -> StageUpdate {
    StageUpdate {
        lead: lead_id(number).into(),
        stage: stage(name),
        event_time: Some(second(time)),
        came_at: None,
        source: SourceName::unnamed_crm(),
        idempotency_key: None,
        customer: Customer::default(),
        custom_data: None,
        policy: SourcePolicy::default(),
    }
}

pub fn keyed(key: &str, update: StageUpdate) -> StageUpdate {
    StageUpdate { idempotency_key: Some(key.into()), ..update }
}

pub fn tolerant(clock_tolerance_s: u32, update: StageUpdate) -> StageUpdate {
    let policy = SourcePolicy { clock_tolerance_s, ..update.policy };
    StageUpdate { policy, ..update }
}

pub fn strict(update: StageUpdate) -> StageUpdate {
    let policy = SourcePolicy { strict: true, ..update.policy };
    StageUpdate { policy, ..update }
}

/// The whole list at once.
pub fn all() -> PageRequest {
    page(None, 1_000)
}

pub fn page(cursor: Option<u64>, limit: usize) -> PageRequest {
    PageRequest { cursor, limit }
}

pub fn piece(reason: &str) -> Quarantined {
    Quarantined {
        received_at: at(5),
        reason: reason.into(),
        payload: format!("{{\"{reason}\":").into_bytes(),
    }
}

/// An answer of Meta's to a request of dataset 1.
pub fn attempt(seconds: i64, delivered: bool) -> Attempt {
    Attempt {
        dataset_id: dataset(1),
        at: at(seconds),
        duration_ms: 120,
        events: 1,
        delivered,
        http_status: Some(if delivered { 200 } else { 500 }),
        code: (!delivered).then_some(2),
        subcode: None,
        fbtrace_id: Some(format!("trace{seconds}")),
        message: None,
    }
}

/// A settlement of dataset 1 that says nothing yet.
pub fn settlement(attempt: Option<Attempt>, seconds: i64) -> Settlement {
    Settlement {
        dataset_id: dataset(1),
        attempt,
        delivered: Vec::new(),
        failed: Vec::new(),
        dead: Vec::new(),
        at: at(seconds),
        hold: Hold::default(),
    }
}

// ---- Doing ------------------------------------------------------------------------------------

/// Takes leads in, five seconds after their creation.
pub async fn ingest(store: &dyn Store, leads: &[Lead]) -> Vec<LeadOutcome> {
    ingest_at(store, leads, at(5)).await
}

pub async fn ingest_at(store: &dyn Store, leads: &[Lead], now: Timestamp) -> Vec<LeadOutcome> {
    let intake = Intake { leads: leads.to_vec(), quarantined: Vec::new() };
    store.ingest(intake, now).await.unwrap().outcomes
}

/// Reports one stage update.
pub async fn report(store: &dyn Store, update: StageUpdate, now: Timestamp) -> UpdateOutcome {
    let routing = routing();
    let recorded = store.record_stage_updates(vec![update], &routing, now);
    recorded.await.unwrap().outcomes.remove(0)
}

/// Reports a stage update that must be accepted.
pub async fn accept(store: &dyn Store, update: StageUpdate, now: Timestamp) -> EventDetail {
    match report(store, update, now).await {
        UpdateOutcome::Accepted(judged) => judged.detail,
        other => panic!("not accepted: {other:?}"),
    }
}

/// Reports a stage update that must be known already.
pub async fn know(store: &dyn Store, update: StageUpdate, now: Timestamp) -> EventDetail {
    match report(store, update, now).await {
        UpdateOutcome::Known(judged) => judged.detail,
        other => panic!("not known: {other:?}"),
    }
}

/// Reports a stage update that must be refused.
pub async fn refuse(store: &dyn Store, update: StageUpdate, now: Timestamp) -> Refusal {
    match report(store, update, now).await {
        UpdateOutcome::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// The places of what is due in dataset 1.
pub async fn entries(store: &dyn Store, now: Timestamp) -> Vec<QueueEntry> {
    let batch = store.next_batch(dataset(1), now, 1_000, &NOBODY).await.unwrap();
    batch.events.iter().map(|queued| queued.entry).collect()
}

/// Makes a dead letter of everything that is due in dataset 1.
pub async fn kill_due(store: &dyn Store, reason: DeadReason, seconds: i64) {
    let dead = entries(store, at(seconds)).await;
    let settlement = Settlement {
        dead: dead.into_iter().map(|entry| (entry, reason)).collect(),
        ..settlement(Some(attempt(seconds, false)), seconds)
    };
    store.settle(settlement).await.unwrap();
}

/// Delivers everything that is due in dataset 1.
pub async fn deliver_due(store: &dyn Store, seconds: i64) {
    let delivered = entries(store, at(seconds)).await;
    let settlement = Settlement { delivered, ..settlement(Some(attempt(seconds, true)), seconds) };
    store.settle(settlement).await.unwrap();
}

// ---- Looking ----------------------------------------------------------------------------------

/// `1 won`: the lead's number and the stage.
fn name_of(lead_id: LeadId, stage: &StageName) -> String {
    format!("{} {stage}", lead_id.get() - FIRST_LEAD)
}

/// `1 won pending`, or `1 won dead expired`.
pub fn line(detail: &EventDetail, now: Timestamp) -> String {
    let name = name_of(detail.event.lead_id, &detail.event.stage);
    let state = detail.state(now).name();
    match detail.standing {
        Standing::Dead { reason, .. } => format!("{name} {state} {}", reason.name()),
        _ => format!("{name} {state}"),
    }
}

/// What is due in a dataset, in order.
pub async fn due(store: &dyn Store, number: u64, now: Timestamp) -> Vec<String> {
    let batch = store.next_batch(dataset(number), now, 1_000, &NOBODY).await.unwrap();
    let events = batch.events.iter();
    events.map(|queued| name_of(queued.event.lead_id, &queued.event.stage)).collect()
}

/// A lead that must be there.
pub async fn found(store: &dyn Store, number: u64) -> LeadDetail {
    store.find_lead(lead_id(number)).await.unwrap().unwrap()
}

/// The first event of a lead with its latest attempts.
pub async fn event(store: &dyn Store, number: u64) -> EventDetail {
    let event_id = found(store, number).await.events[0].event.id();
    store.find_event(event_id).await.unwrap().unwrap()
}

/// A lead's events with their states.
pub async fn timeline(store: &dyn Store, number: u64, now: Timestamp) -> Vec<String> {
    let lead = found(store, number).await;
    lead.events.iter().map(|event| line(event, now)).collect()
}

/// The events of a state, newest first.
pub async fn listed(store: &dyn Store, state: EventState, now: Timestamp) -> Vec<String> {
    let page = store.list_events(EventFilter::in_state(Some(state)), all(), now).await.unwrap();
    page.items.iter().map(|event| line(event, now)).collect()
}

/// The numbers of the leads that pass a filter, newest first.
pub async fn leads(store: &dyn Store, filter: LeadFilter, now: Timestamp) -> Vec<u64> {
    let page = store.list_leads(filter, all(), now).await.unwrap();
    numbers(&page.items)
}

pub fn numbers(leads: &[LeadSummary]) -> Vec<u64> {
    let ids = leads.iter().map(|lead| lead.lead.reported.lead_id);
    ids.map(|id| id.get() - FIRST_LEAD).collect()
}
