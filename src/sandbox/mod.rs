//! The stand-in for Meta: a strict opponent on this machine.
//!
//! It takes events as the Conversions API would, with the same checks and error codes ([`checks`]),
//! shows what it took and whether it would count, sends signed webhooks ([`trigger`]), shows leads
//! to whoever holds a Page's token ([`form`]), and misbehaves when told to ([`faults`]). The tests
//! and `serve --sandbox` use the same code. It keeps everything in memory, and promises nothing
//! about how Meta matches people.

pub mod checks;
mod control;
pub mod faults;
pub mod form;
mod graph;
mod reading;
pub mod trigger;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::routing::{get, post};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::http_client;
use crate::clock::{Clock, Random};
use crate::domain::ids::{DatasetId, LeadId, PageId};
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::{SANDBOX_EVENTS_MAX, WEBHOOK_BODY_BYTES_MAX};
use crate::sandbox::faults::Fault;
use crate::sandbox::form::FilledForm;

/// What a stand-in is made of.
#[derive(Clone)]
pub struct Settings {
    /// The datasets it has, each with the token that may send to it.
    pub datasets: BTreeMap<DatasetId, SecretString>,
    /// The tokens that leads can be read with, each of one Page or of all.
    pub page_tokens: Vec<(Option<PageId>, SecretString)>,
    /// The secret that it signs webhooks with.
    pub app_secret: SecretString,
    /// Where it sends webhooks to.
    pub target: String,
}

/// The stand-in; clones are the same one.
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    settings: Settings,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    client: reqwest::Client,
    memory: Mutex<Memory>,
    taken: watch::Sender<usize>,
}

struct Memory {
    events: VecDeque<TakenEvent>,
    event_ids: BTreeSet<String>,
    requests: u64,
    faults: VecDeque<Fault>,
    deleted_leads: BTreeSet<LeadId>,
    leads: BTreeMap<LeadId, UnixSeconds>,
    filled: BTreeMap<LeadId, FilledForm>,
    reads: BTreeMap<&'static str, u64>,
    /// What happens to the coming readings; nothing goes wrong with some of them.
    read_faults: VecDeque<Option<Fault>>,
    leads_per_page: Option<usize>,
    budget_since: Timestamp,
    budget_used: u64,
}

impl Memory {
    fn since(now: Timestamp) -> Self {
        Self {
            events: VecDeque::new(),
            event_ids: BTreeSet::new(),
            requests: 0,
            faults: VecDeque::new(),
            deleted_leads: BTreeSet::new(),
            leads: BTreeMap::new(),
            filled: BTreeMap::new(),
            reads: BTreeMap::new(),
            read_faults: VecDeque::new(),
            leads_per_page: None,
            budget_since: now,
            budget_used: 0,
        }
    }
}

/// An event that was taken, and what Meta would make of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TakenEvent {
    /// The dataset.
    pub dataset_id: String,
    /// When, in Unix milliseconds.
    pub taken_at_ms: i64,
    /// Number of the request that carried it.
    pub request: u64,
    /// The event as it was sent.
    pub event: Value,
    /// Why Meta would silently leave it out of Conversion Leads; empty if it counts.
    pub not_counted: Vec<String>,
}

impl Sandbox {
    /// A stand-in that has taken nothing yet.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(
        settings: Settings,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, reqwest::Error> {
        let client = http_client(&settings.target)?;
        let (memory, taken) = (Mutex::new(Memory::since(clock.now())), watch::Sender::new(0));
        Ok(Self(Arc::new(Inner { settings, clock, random, client, memory, taken })))
    }

    /// Serves until `stop` is cancelled.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
        let server = axum::serve(listener, self.router());
        tokio::select! {
            result = server => result,
            () = stop.cancelled() => Ok(()),
        }
    }

    fn router(self) -> Router {
        Router::new()
            .route("/{version}/{id}/events", post(graph::take_events))
            .route("/{version}/{id}", get(reading::show_node))
            .route("/{version}/{id}/{edge}", get(reading::show_edge))
            .route("/", get(control::page))
            .route("/sandbox/events", get(control::list_events))
            .route("/sandbox/faults", post(control::add_faults).delete(control::clear_faults))
            .route("/sandbox/trigger", post(control::trigger))
            .layer(axum::extract::DefaultBodyLimit::max(4 * WEBHOOK_BODY_BYTES_MAX))
            .with_state(self)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was taken, oldest first.
    pub fn events(&self) -> Vec<TakenEvent> {
        self.memory().events.iter().cloned().collect()
    }

    /// How many requests came, whatever became of them.
    pub fn requests(&self) -> u64 {
        self.memory().requests
    }

    /// Waits until so many events have been taken since the start.
    pub async fn wait_for_events(&self, count: usize) {
        // The sender lives as long as this borrow of it, so waiting can't fail.
        let _ = self.0.taken.subscribe().wait_for(|taken| *taken >= count).await;
    }

    /// Makes coming requests go wrong, one fault each, in order.
    pub fn misbehave(&self, faults: impl IntoIterator<Item = Fault>) {
        self.memory().faults.extend(faults);
    }

    /// Forgets the faults that have not happened yet.
    pub fn behave(&self) {
        let mut memory = self.memory();
        memory.faults.clear();
        memory.read_faults.clear();
    }

    /// Takes [`Sandbox::delete_lead`] back.
    pub fn restore_lead(&self, lead_id: LeadId) {
        self.memory().deleted_leads.remove(&lead_id);
    }

    /// Makes a lead one that Meta no longer has: events about it are refused (2804036).
    pub fn delete_lead(&self, lead_id: LeadId) {
        self.memory().deleted_leads.insert(lead_id);
    }

    /// Tells when a lead was created, so that events not after it are seen as not counted.
    pub fn know_lead(&self, lead_id: LeadId, created_time: UnixSeconds) {
        self.memory().leads.insert(lead_id, created_time);
    }

    /// Makes a lead one that can be read, whether a webhook told of it or not.
    pub fn have_lead(&self, filled: FilledForm) {
        let mut memory = self.memory();
        memory.leads.insert(filled.lead.lead_id, filled.lead.created_time);
        memory.filled.insert(filled.lead.lead_id, filled);
        if memory.filled.len() > SANDBOX_EVENTS_MAX {
            memory.filled.pop_first();
        }
    }

    /// Makes coming readings go wrong, one fault each, in order.
    pub fn misbehave_reading(&self, faults: impl IntoIterator<Item = Fault>) {
        self.misbehave_reading_after(0, faults);
    }

    /// The same, after so many readings that go well.
    pub fn misbehave_reading_after(&self, well: usize, faults: impl IntoIterator<Item = Fault>) {
        let well = std::iter::repeat_n(None, well);
        self.memory().read_faults.extend(well.chain(faults.into_iter().map(Some)));
    }

    /// Shows at most so many leads on a page, however many are asked for.
    pub fn show_leads_per_page(&self, leads: usize) {
        self.memory().leads_per_page = Some(leads);
    }

    /// How many readings there were of a kind: `lead`, `form`, `forms`, `leads` or
    /// `subscribed_apps`.
    pub fn reads(&self, what: &str) -> u64 {
        self.memory().reads.get(what).copied().unwrap_or(0)
    }

    fn take(&self, dataset_id: DatasetId, request: u64, events: Vec<Value>) {
        let taken_at_ms = self.0.clock.now().as_millis();
        let count = events.len();
        let mut memory = self.memory();
        for event in events {
            let mut not_counted = checks::not_counted(&event, &memory.leads);
            if let Some(event_id) = event["event_id"].as_str()
                && !memory.event_ids.insert(event_id.to_owned())
            {
                not_counted.push("the same event_id was taken before".to_owned());
            }
            let dataset_id = dataset_id.to_string();
            memory.events.push_back(TakenEvent {
                dataset_id,
                taken_at_ms,
                request,
                event,
                not_counted,
            });
            if memory.events.len() > SANDBOX_EVENTS_MAX
                && let Some(oldest) = memory.events.pop_front()
                && let Some(event_id) = oldest.event["event_id"].as_str()
            {
                memory.event_ids.remove(event_id);
            }
        }
        drop(memory);
        self.0.taken.send_modify(|taken| *taken += count);
    }
}
