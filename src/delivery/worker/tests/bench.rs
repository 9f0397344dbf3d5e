//! What a worker is tested on: a scripted way to Meta, a store that can fail, time that stands
//! still.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, MockClock, SeededRandom};
use crate::config::Dataset;
use crate::delivery::Tools;
use crate::delivery::sink::EventSink;
use crate::delivery::status::StatusBoard;
use crate::delivery::verdict::NoAnswer;
use crate::delivery::worker::{Next, Worker};
use crate::domain::alarm::{Alarm, AlarmKey, Alarms, Cause, Kept};
use crate::domain::customer::Customer;
use crate::domain::event::{EventDetail, LeadDetail, LeadSummary, StageUpdate};
use crate::domain::ids::{DatasetId, EventId, FormId, LeadId};
use crate::domain::lead::{Lead, ReportedLead};
use crate::domain::mark::FormMark;
use crate::domain::matching::CrmId;
use crate::domain::routing::Routing;
use crate::domain::stage::{SourceName, StageName};
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::meta::conversions::{Answer, read_answer};
use crate::store::memory::MemoryStore;
use crate::store::query::{DeadLetters, EventFilter, LeadFilter, Page, PageRequest};
use crate::store::{
    ApiKeyDigest, BackedUp, Batch, Erased, Ingested, Intake, Linked, Linking, NearDeadline,
    NumberedUnmapped, Quarantined, QueueEntry, Recorded, Removed, Requeued, RequeuedMany, SetAside,
    Settlement, Stats, Store, StoreError, Stranded, Unmapped, UpdateOutcome,
};
use crate::telemetry::Metrics;

pub(super) const NOW: i64 = 1_762_000_000;
const FIRST_LEAD: u64 = 1_234_567_890_000_000;

pub(super) fn at(seconds: i64) -> Timestamp {
    UnixSeconds::new(seconds).timestamp()
}

fn dataset() -> Dataset {
    Dataset {
        id: DatasetId::from_u64(7).unwrap(),
        access_token: "token".into(),
        crm_name: "CRM of seven".into(),
        raw_stage: StageName::parse("initial_lead").unwrap(),
        funnel: None,
        partner_agent: None,
        test_event_code: Some("TEST7".into()),
    }
}

// ---- The worker and what is around it ---------------------------------------------------------

pub(super) struct Bench {
    worker: Worker,
    pub(super) store: Arc<ShakyStore>,
    pub(super) clock: Arc<MockClock>,
    pub(super) sink: Arc<ScriptedSink>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: CancellationToken,
}

impl Bench {
    pub(super) fn new() -> Self {
        let (store, sink, metrics) = (Arc::default(), Arc::default(), Arc::default());
        let clock = Arc::new(MockClock::at(at(NOW)));
        let tools = Tools {
            status: StatusBoard::default(),
            store: Arc::clone(&store) as Arc<dyn Store>,
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(1)),
            sink: Arc::clone(&sink) as Arc<dyn EventSink>,
            metrics: Arc::clone(&metrics),
        };
        let (worker, stop) = (Worker::new(dataset(), tools), CancellationToken::new());
        Self { worker, store, clock, sink, metrics, stop }
    }

    pub(super) async fn step(&mut self) -> Next {
        self.worker.step(&self.stop).await
    }

    /// A step, and for how many milliseconds more is waited for after it.
    pub(super) async fn step_and_company(&mut self) -> Option<i64> {
        self.step().await;
        let now = self.clock.now();
        self.worker.company_until().map(|until| until.millis_since(now))
    }

    /// A step that ends in a back-off of so many milliseconds.
    pub(super) async fn back_off(&mut self) -> i64 {
        match self.step().await {
            Next::BackOff(until) => until.millis_since(self.clock.now()),
            next => panic!("{next:?} is no back-off"),
        }
    }

    pub(super) async fn run(self, wake: Arc<Notify>) {
        self.worker.run(wake, self.stop).await;
    }

    /// Adds a lead, created at this second, with its raw-lead event.
    pub(super) async fn lead(&self, number: u64, created: i64) {
        add_lead(&*self.store, number, created, self.clock.now()).await;
    }

    /// A lead's events in lines of stage, state and number of attempts.
    pub(super) async fn states(&self, number: u64) -> Vec<String> {
        states(&*self.store, number, self.clock.now()).await
    }
}

pub(super) fn lead_id(number: u64) -> LeadId {
    LeadId::from_u64(FIRST_LEAD + number).unwrap()
}

pub(super) async fn add_lead(store: &dyn Store, number: u64, created: i64, now: Timestamp) {
    let reported = ReportedLead {
        lead_id: lead_id(number),
        page_id: None,
        form_id: None,
        ad_id: None,
        created_time: UnixSeconds::new(created),
        test: false,
    };
    let Dataset { id, raw_stage, .. } = dataset();
    let lead = Lead::new(reported, SourceName::webhook(), Some(id), raw_stage, now);
    store.ingest(Intake { leads: vec![lead], quarantined: Vec::new() }, now).await.unwrap();
}

pub(super) async fn states(store: &dyn Store, number: u64, now: Timestamp) -> Vec<String> {
    let detail = store.find_lead(lead_id(number)).await.unwrap().unwrap();
    let line = |event: &EventDetail| {
        format!("{} {} {}", event.event.stage, event.state(now).name(), event.attempts.count)
    };
    detail.events.iter().map(line).collect()
}

// ---- Waiting without time ---------------------------------------------------------------------

/// Lets every other task go on until it waits.
pub(super) async fn turn() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

pub(super) async fn turn_until(condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it does not come to pass");
}

pub(super) async fn finished<T>(task: JoinHandle<T>) -> T {
    let task = tokio::time::timeout(Duration::from_secs(10), task).await;
    task.expect("it ends promptly").unwrap()
}

// ---- The way to Meta --------------------------------------------------------------------------

const REFUSAL: &[u8] = br#"{"error":{"code":100,"error_subcode":2804050}}"#;

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// A 200 that counts every event.
    Received,
    /// The same, but not before this.
    ReceivedAfter(Arc<Notify>),
    /// Refused for what an event says, but not before this.
    RefusedAfter(Arc<Notify>),
    /// An answer with this status and nothing else.
    Status(u16),
    /// No answer.
    Lost(NoAnswer),
}

#[derive(Default)]
pub(super) struct ScriptedSink {
    outcomes: Mutex<VecDeque<Outcome>>,
    bodies: Mutex<Vec<Value>>,
    refused: Mutex<Range<u64>>,
}

impl ScriptedSink {
    /// How coming requests end; those after them are received.
    pub(super) fn will(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.outcomes.lock().unwrap().extend(outcomes);
    }

    /// Every request with a lead of these numbers is refused for what it says.
    pub(super) fn refuse(&self, numbers: Range<u64>) {
        *self.refused.lock().unwrap() = numbers;
    }

    fn refuses(&self, body: &Value) -> bool {
        let refused = self.refused.lock().unwrap();
        body["data"].as_array().unwrap().iter().any(|event| {
            refused.contains(&(event["user_data"]["lead_id"].as_u64().unwrap() - FIRST_LEAD))
        })
    }

    pub(super) fn bodies(&self) -> Vec<Value> {
        self.bodies.lock().unwrap().clone()
    }

    /// The events of each request, in lines such as `1 initial_lead`.
    pub(super) fn sent(&self) -> Vec<Vec<String>> {
        let line = |event: &Value| {
            let lead_id = event["user_data"]["lead_id"].as_u64().unwrap();
            format!("{} {}", lead_id - FIRST_LEAD, event["event_name"].as_str().unwrap())
        };
        let lines = |body: &Value| body["data"].as_array().unwrap().iter().map(line).collect();
        self.bodies().iter().map(lines).collect()
    }
}

#[async_trait]
impl EventSink for ScriptedSink {
    async fn send(&self, _: &Dataset, body: Vec<u8>) -> Result<Answer, NoAnswer> {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let received = Answer {
            http_status: 200,
            events_received: body["data"].as_array().map(|events| events.len() as u64),
            ..Default::default()
        };
        let refused = self.refuses(&body);
        self.bodies.lock().unwrap().push(body);
        if refused {
            return Ok(read_answer(400, REFUSAL));
        }
        let outcome = self.outcomes.lock().unwrap().pop_front();
        match outcome.unwrap_or(Outcome::Received) {
            Outcome::Received => Ok(received),
            Outcome::ReceivedAfter(answer) => {
                answer.notified().await;
                Ok(received)
            }
            Outcome::RefusedAfter(answer) => {
                answer.notified().await;
                Ok(read_answer(400, REFUSAL))
            }
            Outcome::Status(http_status) => Ok(Answer { http_status, ..Default::default() }),
            Outcome::Lost(why) => Err(why),
        }
    }
}

// ---- The store --------------------------------------------------------------------------------

/// A store in memory whose queue can't be read, or written, for so many times.
#[derive(Default)]
pub(super) struct ShakyStore {
    inner: MemoryStore,
    reads: AtomicUsize,
    settlings: AtomicUsize,
    reads_to_fail: AtomicUsize,
    settlings_to_fail: AtomicUsize,
}

impl ShakyStore {
    pub(super) fn fail_reads(&self, times: usize) {
        self.reads_to_fail.store(times, Ordering::SeqCst);
    }

    pub(super) fn fail_settling(&self, times: usize) {
        self.settlings_to_fail.store(times, Ordering::SeqCst);
    }

    /// How often the queue was read.
    pub(super) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// How often an outcome was to be recorded.
    pub(super) fn settlings(&self) -> usize {
        self.settlings.load(Ordering::SeqCst)
    }

    fn check(&self, method: &str) -> Result<(), StoreError> {
        let (count, to_fail) = match method {
            "next_batch" => (&self.reads, &self.reads_to_fail),
            "settle" => (&self.settlings, &self.settlings_to_fail),
            _ => return Ok(()),
        };
        count.fetch_add(1, Ordering::SeqCst);
        let one_less = |left: usize| left.checked_sub(1);
        match to_fail.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
            Ok(_) => Err(StoreError::Unavailable("told to fail".into())),
            Err(_) => Ok(()),
        }
    }
}

/// Hands every method on, unless it is to fail.
macro_rules! store {
    ($($name:ident($($argument:ident: $type:ty),* $(,)?) -> $out:ty;)*) => {
        #[async_trait]
        impl Store for ShakyStore {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$out, StoreError> {
                self.check(stringify!($name))?;
                self.inner.$name($($argument),*).await
            })*
        }
    };
}

store! {
    ingest(intake: Intake, now: Timestamp) -> Ingested;
    record_stage_updates(updates: Vec<StageUpdate>, routing: &Routing, now: Timestamp) -> Recorded;
    judge_stage_updates(
        updates: Vec<StageUpdate>,
        routing: &Routing,
        now: Timestamp,
    ) -> Vec<UpdateOutcome>;
    link_crm_id(
        source: SourceName,
        crm_id: CrmId,
        lead_id: LeadId,
        now: Timestamp,
    ) -> Linking;
    add_customer(lead_id: LeadId, customer: Customer, now: Timestamp) -> Linked;
    next_batch(
        dataset_id: DatasetId,
        now: Timestamp,
        limit: usize,
        kept_back: &BTreeSet<LeadId>,
    ) -> Batch;
    still_queued(
        dataset_id: DatasetId,
        entries: BTreeSet<QueueEntry>,
    ) -> BTreeSet<QueueEntry>;
    settle(settlement: Settlement) -> ();
    requeue(event_id: EventId, routing: &Routing, now: Timestamp) -> Requeued;
    erase_lead(lead_id: LeadId, now: Timestamp) -> Option<Erased>;
    remove_old(before: Timestamp, from: u64) -> Removed;
    requeue_many(
        letters: DeadLetters,
        dry_run: bool,
        routing: &Routing,
        now: Timestamp,
    ) -> RequeuedMany;
    route_held(routing: &Routing) -> u64;
    awaited_leads(after: Option<LeadId>, limit: usize) -> Vec<LeadId>;
    expire_stranded(now: Timestamp) -> Stranded;
    form_mark(form_id: FormId) -> FormMark;
    set_form_mark(form_id: FormId, mark: FormMark) -> ();
    find_lead(lead_id: LeadId) -> Option<LeadDetail>;
    find_event(event_id: EventId) -> Option<EventDetail>;
    list_leads(filter: LeadFilter, page: PageRequest, now: Timestamp) -> Page<LeadSummary>;
    list_events(filter: EventFilter, page: PageRequest, now: Timestamp) -> Page<EventDetail>;
    list_quarantine(page: PageRequest) -> Page<Quarantined>;
    set_aside(unmapped: Vec<Unmapped>) -> Vec<SetAside>;
    list_unmapped(source: Option<SourceName>, page: PageRequest) -> Page<NumberedUnmapped>;
    end_unmapped(seq: u64) -> bool;
    remove_unmapped(before: Timestamp, now: Timestamp) -> BTreeMap<SourceName, u64>;
    api_keys() -> Vec<ApiKeyDigest>;
    add_api_key(digest: ApiKeyDigest) -> ();
    stats() -> Stats;
    fronts() -> Vec<(Option<DatasetId>, UnixSeconds)>;
    near_deadline(before: UnixSeconds) -> Vec<NearDeadline>;
    keep_alarms(kept: Kept) -> ();
    raise_alarm(cause: Cause, now: Timestamp) -> ();
    alarms() -> Alarms;
    begin_alarm_try(key: &AlarmKey, next_try_at: Timestamp) -> Option<Alarm>;
    end_alarm(key: &AlarmKey) -> ();
    probe() -> ();
    back_up(now: Timestamp, stop: &CancellationToken) -> BackedUp;
}
