//! A machine, the program on it, Meta and the clients around it, in one thread and in simulated
//! time.
//!
//! The program is what the command line starts: door, workers, housekeeper and the embedded store;
//! only the socket and the way to Meta are the simulation's. It can be stopped, killed and started
//! again on what is left of its disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::app::{App, World as Surroundings};
use crate::clock::{Clock, SeededRandom};
use crate::domain::event::{EventDetail, EventState, StageUpdate};
use crate::domain::ids::LeadId;

use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::SHUTDOWN_GRACE;
use crate::meta::signature::{SIGNATURE_HEADER, sign};
use crate::simulation::clock::SimClock;
use crate::simulation::input::{BEGIN, KEY, SECRET, config, lead_change, lead_id, webhook_of};
use crate::simulation::ledger::{Ledger, Pages, WHOLE, told};
use crate::simulation::meta::Meta;
use crate::simulation::mirror::{MirrorStore, Redo};
use crate::simulation::power::Power;
use crate::simulation::store_faults::StoreFaults;
use crate::store::Store;
use crate::store::query::{EventFilter, LeadFilter};
use crate::store::redb::tests::disk::Disk;

/// Everything there is.
pub(super) struct World {
    pub(super) clock: SimClock,
    pub(super) meta: Meta,
    pub(super) ledger: Ledger,
    pub(super) power: Power,
    pub(super) store_faults: StoreFaults,
    /// The numbers of the datasets that are configured.
    pub(super) datasets: BTreeSet<u64>,
    program: Option<Program>,
    clients: JoinSet<()>,
    unsure: Option<Redo>,
    random: StdRng,
    seed: u64,
}

/// The program while it runs.
struct Program {
    store: Arc<MirrorStore>,
    router: Router,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl World {
    /// A machine with an empty disk, whose flushes may be lies, and nothing that runs on it.
    pub(super) fn new(seed: u64, is_shown: bool, disk_lies: bool) -> Self {
        let clock = SimClock::at(UnixSeconds::new(BEGIN).timestamp());
        let ledger = Ledger::new(is_shown);
        let power = Power::of(if disk_lies { Disk::that_lies() } else { Disk::new() });
        Self {
            meta: Meta::new(clock.clone(), ledger.clone(), power.clone(), seed),
            clock,
            ledger,
            power,
            store_faults: StoreFaults::new(seed),
            datasets: BTreeSet::from([1, 2]),
            program: None,
            clients: JoinSet::new(),
            unsure: None,
            random: StdRng::seed_from_u64(seed),
            seed,
        }
    }

    /// Writes down what happens.
    pub(super) fn note(&self, what: std::fmt::Arguments<'_>) {
        self.ledger.open().note(self.clock.truth(), what);
    }

    // ---- The program --------------------------------------------------------------------------

    /// Starts the program on what is on the disk, which must be what the model says.
    pub(super) async fn start(&mut self) {
        self.note(format_args!("start with {:?}", self.datasets));
        self.ledger.open().starts += 1;
        let real = match self.power.disk().try_store() {
            Ok(real) => real,
            Err(_) if self.power.is_off() => return,
            Err(error) => {
                self.ledger.open().must(false, || format!("the store does not open: {error}"));
                return;
            }
        };
        let store = Arc::new(MirrorStore::new(
            real,
            self.clock.clone(),
            self.ledger.clone(),
            self.power.clone(),
            self.store_faults.clone(),
        ));
        self.reconcile(&store);
        let surroundings = Surroundings {
            store: Arc::clone(&store) as Arc<dyn Store>,
            clock: Arc::new(self.clock.clone()),
            random: Arc::new(SeededRandom::new(self.seed)),
        };
        let sink = Arc::new(self.meta.clone());
        let building = App::build_on(config(&self.datasets), surroundings, sink);
        let building = tokio::spawn(building);
        self.settle().await;
        while !building.is_finished() {
            self.clock.next_wake().into_iter().for_each(|next| self.clock.advance_to(next));
            self.settle().await;
        }
        // A store that fails at the start ends the program; whoever looks after it starts it again.
        let Ok(app) = building.await.expect("it does not panic") else {
            store.take_unsure().into_iter().for_each(|redo| self.unsure = Some(redo));
            return;
        };
        store.set_metrics(app.metrics());
        let stop = CancellationToken::new();
        let (router, tasks) = app.start(&stop);
        self.program = Some(Program { store, router, tasks, stop });
        self.settle().await;
    }

    /// Does what whoever looks after the machine does: starts what has ended. After the first
    /// fault nobody does.
    pub(super) async fn revive(&mut self) {
        let is_sound = |world: &Self| world.ledger.open().faults.is_empty();
        while is_sound(self) && (self.power.is_off() || self.program.is_none()) {
            if self.power.is_off() {
                self.crash().await;
            }
            self.start().await;
        }
    }

    /// Whatever was under way when the power went has happened, or has not; nothing in between.
    fn reconcile(&mut self, store: &MirrorStore) {
        let found = store.is_as_the_model();
        let found = match (found, self.unsure.take()) {
            (Err(_), Some(redo)) => {
                redo(self.ledger.model());
                self.ledger.open().tally.unsure += 1;
                store.is_as_the_model()
            }
            (found, _) => found,
        };
        let mut pages = self.ledger.open();
        if let Err(what) = found {
            pages.must(false, || format!("the store is not what was answered: {what}"));
        }
        let leads = told(pages.model.list_leads(LeadFilter::default(), WHOLE, self.clock.truth()));
        for lead in leads.items {
            pages.look_at_queue(lead.lead.reported.lead_id, self.clock.truth());
        }
        pages.check_answered(self.clock.truth());
    }

    /// Stops the program as a supervisor does: it may finish what is under way, for some seconds.
    pub(super) async fn stop(&mut self) {
        let Some(program) = &self.program else { return };
        self.note(format_args!("stop"));
        program.stop.cancel();
        let grace_ms = i64::try_from(SHUTDOWN_GRACE.as_millis()).unwrap();
        self.pass_ms(grace_ms).await;
        self.clients.shutdown().await;
        self.settle().await;
        let Some(program) = &mut self.program else { return };
        while program.tasks.try_join_next().is_some() {}
        program.router = Router::new();
        // Whoever still holds the store is at work and would be killed.
        if Arc::strong_count(&program.store) > 1 {
            self.crash().await;
        }
        self.program = None;
    }

    /// Ends the program at once, and the power with it; some of what was not flushed is lost.
    pub(super) async fn crash(&mut self) {
        self.note(format_args!("crash"));
        self.ledger.open().tally.crashes += 1;
        self.power.cut();
        self.clients.shutdown().await;
        if let Some(mut program) = self.program.take() {
            program.store.end();
            program.tasks.shutdown().await;
            self.settle().await;
            program.store.take_unsure().into_iter().for_each(|redo| self.unsure = Some(redo));
        }
        let mut disk = self.power.disk().after_the_cut(&mut self.random);
        if self.random.random_bool(0.3) {
            disk.cut_after(self.random.random_range(0..12));
            drop(disk.try_store());
            disk = disk.after_the_cut(&mut self.random);
        }
        self.power.restore(disk);
    }

    /// Lets the power go so many operations of the disk from now.
    pub(super) fn cut_after(&self, operations: u64) {
        self.note(format_args!("the power goes after {operations} operations"));
        self.power.disk().cut_after(operations);
    }

    /// Sets the program's clock.
    pub(super) fn set_clock(&self, off_by_ms: i64) {
        self.note(format_args!("the clock is off by {off_by_ms} ms"));
        self.clock.set_off_by_ms(off_by_ms);
        self.ledger.open().clock_set_at = Some(self.clock.truth());
        self.disturb();
    }

    /// Makes calls of the store fail with this chance.
    pub(super) fn set_store_risk(&self, risk: f64) {
        self.note(format_args!("the store fails with {risk}"));
        self.store_faults.set_risk(risk);
        self.disturb();
    }

    fn disturb(&self) {
        if let Some(program) = &self.program {
            program.store.disturb();
        }
    }

    // ---- Time ---------------------------------------------------------------------------------

    /// Lets everybody go on until all of them wait for time to pass.
    pub(super) async fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            let happened = self.clock.happened();
            tokio::task::yield_now().await;
            quiet = if self.clock.happened() == happened { quiet + 1 } else { 0 };
        }
    }

    /// Lets time pass. Over long times sleepers are woken late, as on a busy machine.
    pub(super) async fn pass_ms(&mut self, millis: i64) {
        let end = self.clock.truth().plus_millis(millis);
        let late_ms = millis / 30;
        loop {
            self.settle().await;
            self.revive().await;
            let next = self.clock.next_wake().filter(|next| *next <= end);
            let Some(next) = next else { break };
            let late = self.clock.truth().plus_millis(late_ms).min(end);
            self.clock.advance_to(next.max(late));
        }
        self.clock.advance_to(end);
        self.settle().await;
    }

    // ---- Clients ------------------------------------------------------------------------------

    /// Calls the webhook as Meta does.
    pub(super) async fn webhook(&mut self, body: String, leads: Vec<LeadId>) {
        let signature = sign(&SECRET.into(), body.as_bytes());
        let request = Request::builder().method(Method::POST).uri("/webhooks/meta");
        let request = request.header(SIGNATURE_HEADER, signature).body(Body::from(body)).unwrap();
        self.call(request, move |pages, status, _| {
            if status == StatusCode::OK {
                pages.answer_leads(leads);
            }
        })
        .await;
    }

    /// Tells of a new lead of a Page.
    pub(super) async fn tell_of_lead_of(&mut self, page: u64, number: u64) {
        let created_s = self.now().seconds().get() - 2;
        let change = lead_change(lead_id(number), page, created_s);
        self.webhook(webhook_of(&[change]), vec![lead_id(number)]).await;
    }

    /// Stores an update without the door, which would not let it in.
    pub(super) async fn queue(&mut self, update: StageUpdate) {
        let Some(program) = &self.program else { return };
        let (now, routing) = (self.clock.now(), config(&self.datasets).routing);
        let recorded = program.store.record_stage_updates(vec![update], &routing, now);
        recorded.await.expect("nothing goes wrong here");
    }

    /// Calls the API with the admin's key.
    pub(super) async fn api(
        &mut self,
        method: Method,
        path: &str,
        body: Option<Value>,
        answered: impl FnOnce(&mut Pages, StatusCode, Value) + Send + 'static,
    ) {
        let request = Request::builder().method(method).uri(path);
        let request = request.header("authorization", format!("Bearer {KEY}"));
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.call(request.body(body).unwrap(), answered).await;
    }

    async fn call(
        &mut self,
        request: Request<Body>,
        answered: impl FnOnce(&mut Pages, StatusCode, Value) + Send + 'static,
    ) {
        let Some(program) = &self.program else { return };
        let (router, clock, ledger) =
            (program.router.clone(), self.clock.clone(), self.ledger.clone());
        self.clients.spawn(async move {
            let path = request.uri().path().to_owned();
            let response = router.oneshot(request).await.expect("the door always answers");
            let status = response.status();
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
            let body = body.ok().and_then(|body| serde_json::from_slice(&body).ok());
            clock.happens();
            let mut pages = ledger.open();
            pages.note(clock.truth(), format_args!("{path} answers {status}"));
            let is_expected = status.is_success()
                || status.is_client_error()
                || status == StatusCode::SERVICE_UNAVAILABLE;
            pages.must(is_expected, || format!("{path} answers {status}"));
            answered(&mut pages, status, body.unwrap_or_default());
        });
        self.settle().await;
        while self.clients.try_join_next().is_some() {}
    }

    // ---- At the end ---------------------------------------------------------------------------

    /// Looks once more at everything.
    pub(super) fn check(&self) {
        let Some(program) = &self.program else { return };
        let found = program.store.is_as_the_model();
        let mut pages = self.ledger.open();
        if let Err(what) = found {
            pages.must(false, || format!("the store is not what was answered: {what}"));
        }
        pages.check_answered(self.clock.truth());
    }

    /// The events of a state.
    pub(super) fn listed(&self, state: EventState) -> Vec<EventDetail> {
        let filter = EventFilter::in_state(Some(state));
        told(self.ledger.model().list_events(filter, WHOLE, self.clock.truth())).items
    }

    /// The events that should be on their way to Meta.
    pub(super) fn pending(&self) -> Vec<String> {
        let pending = self.listed(EventState::Pending);
        pending.iter().map(|detail| detail.event.id().to_string()).collect()
    }

    /// How many events are on record as delivered.
    pub(super) fn delivered(&self) -> usize {
        self.listed(EventState::Delivered).len()
    }

    /// The true time.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.truth()
    }
}
