//! What happens in a run, chosen by its seed: what Meta and CRMs report, and what goes wrong.
//!
//! Each seed has a mood of its own, in which some things never happen and others often do; runs of
//! one kind each find more than runs in which everything happens a little. Another operation is one
//! more method here and one more line in [`Workload::step`].

use axum::http::Method;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::domain::event::EventState;
use crate::domain::ids::LeadId;
use crate::domain::time::Timestamp;
use crate::simulation::REGRESSIONS;
use crate::simulation::input::{UNKNOWN_PAGE, dataset_id, lead_change, lead_id, webhook_of};
use crate::simulation::meta::Course;
use crate::simulation::weather::WEATHER;
use crate::simulation::world::World;

pub(super) const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;
/// Things that happen in a run before there is peace.
const STEPS: u64 = 25;

/// What happens in this seed's run, from nothing to often.
#[derive(Debug)]
pub(super) struct Mood {
    crashes: u32,
    weather: u32,
    troubles: u32,
    store: u32,
    clock: u32,
    settings: u32,
    old_leads: bool,
    pub(super) curses: bool,
    /// How many reports name their lead by something else than Meta's id.
    pub(super) others: u32,
    long_waits: bool,
}

/// A lead that Meta may tell of.
#[derive(Clone, Copy, Debug)]
pub(super) struct SomeLead {
    pub(super) number: u64,
    page: u64,
    pub(super) created_s: i64,
    test: bool,
}

impl SomeLead {
    fn id(&self) -> LeadId {
        if self.test { LeadId::TEST } else { lead_id(self.number) }
    }

    fn change(&self) -> Value {
        lead_change(self.id(), self.page, self.created_s)
    }
}

/// What happens, in the order in which the seed's random numbers say.
pub(super) struct Workload {
    pub(super) random: StdRng,
    /// By what leads are named. What has its own random numbers leaves the runs of before as they
    /// were, where it does nothing.
    pub(super) naming: StdRng,
    pub(super) mood: Mood,
    pub(super) leads: Vec<SomeLead>,
    /// Leads that a CRM has told of and Meta has not.
    pub(super) awaited: Vec<u64>,
    pub(super) next_number: u64,
    troubles: Vec<Course>,
}

impl Workload {
    /// What happens in the run of a seed, with these troubles of single requests.
    pub(super) fn new(seed: u64, troubles: Vec<Course>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut weight = || [0, 0, 1, 3][random.random_range(0..4)];
        let (crashes, weather, troubles_weight) = (weight(), weight(), weight());
        let (store, clock, settings) = (weight(), weight(), weight());
        let mut naming = StdRng::seed_from_u64(seed);
        let others = if REGRESSIONS.contains(&seed) { 0 } else { naming.random_range(0..4) };
        let mood = Mood {
            crashes,
            weather,
            troubles: troubles_weight,
            store,
            clock,
            settings,
            others,
            old_leads: random.random_bool(0.5),
            curses: random.random_bool(0.4),
            long_waits: random.random_bool(0.4),
        };
        let (leads, awaited) = (Vec::new(), Vec::new());
        Self { random, naming, mood, leads, awaited, next_number: 1, troubles }
    }

    /// The whole run: everything that happens, and then peace, in which all work must end.
    pub(super) async fn run(&mut self, world: &mut World) {
        if self.random.random_bool(0.5) {
            world.datasets.insert(3);
        }
        world.start().await;
        for _ in 0..STEPS {
            self.step(world).await;
            let millis = self.some_time_ms();
            world.pass_ms(millis).await;
            if !world.ledger.open().faults.is_empty() {
                return;
            }
        }
        self.make_peace(world).await;
        self.drain(world).await;
        world.check();
    }

    async fn step(&mut self, world: &mut World) {
        let mood = &self.mood;
        #[rustfmt::skip]
        let weights = [
            12, 12, 2, 1, 1, mood.crashes, mood.crashes, mood.weather, mood.troubles, mood.store,
            mood.clock, mood.settings, mood.others, u32::from(mood.long_waits),
        ];
        match pick(&mut self.random, &weights) {
            0 => self.tell_of_leads(world).await,
            1 => self.report_stages(world).await,
            2 => self.queue_again(world).await,
            3 => self.erase(world).await,
            4 => self.look_up(world).await,
            5 => world.crash().await,
            6 => world.cut_after(self.random.random_range(0..80)),
            7 => self.change_weather(world),
            8 => self.change_risk(world),
            9 => {
                let risk = if world.store_faults.is_at_risk() { 0.0 } else { 0.3 };
                world.set_store_risk(risk);
            }
            10 => self.set_clock(world),
            11 => self.change_settings(world).await,
            12 => self.link(world).await,
            _ => self.wait_for_days(world).await,
        }
    }

    fn some_time_ms(&mut self) -> i64 {
        match pick(&mut self.random, &[4, 6, 4, 2, 1]) {
            0 => 0,
            1 => self.random.random_range(1..2 * SECOND),
            2 => self.random.random_range(SECOND..2 * MINUTE),
            3 => self.random.random_range(MINUTE..HOUR),
            _ => self.random.random_range(HOUR..12 * HOUR),
        }
    }

    // ---- What is reported ---------------------------------------------------------------------

    async fn tell_of_leads(&mut self, world: &mut World) {
        let count = [1, 1, 2, 3, 12][self.random.random_range(0..5)];
        let leads: Vec<SomeLead> = (0..count).map(|_| self.some_lead(world.now())).collect();
        for lead in &leads {
            self.let_meta_forget(world, lead);
        }
        let mut changes: Vec<Value> = leads.iter().map(SomeLead::change).collect();
        if self.random.random_bool(0.1) {
            let number = self.random.random_range(0..5);
            changes.push(json!({"field": "leadgen", "value": {"leadgen_id": number}}));
        }
        let ids = leads.iter().map(SomeLead::id).collect();
        world.webhook(webhook_of(&changes), ids).await;
    }

    /// A new lead mostly; a known one again, alike or not; or one that a CRM has told of.
    fn some_lead(&mut self, now: Timestamp) -> SomeLead {
        if !self.leads.is_empty() && self.random.random_bool(0.15) {
            let mut known = self.leads[self.random.random_range(0..self.leads.len())];
            known.created_s += [0, 0, 0, 7][self.random.random_range(0..4)];
            return known;
        }
        let is_awaited = !self.awaited.is_empty() && self.random.random_bool(0.5);
        let number = if is_awaited {
            self.awaited.swap_remove(self.random.random_range(0..self.awaited.len()))
        } else {
            self.next_number += 1;
            self.next_number
        };
        let age_ms = match pick(&mut self.random, &[12, 4, 1, 1]) {
            0 => self.random.random_range(SECOND..20 * SECOND),
            1 => self.random.random_range(MINUTE..2 * HOUR),
            2 => -self.random.random_range(SECOND..20 * SECOND),
            _ if self.mood.old_leads => self.random.random_range(5 * DAY..8 * DAY),
            _ => HOUR,
        };
        let lead = SomeLead {
            number,
            page: [301, 301, 302, 302, 303, UNKNOWN_PAGE][self.random.random_range(0..6)],
            created_s: now.plus_millis(-age_ms).seconds().get(),
            test: self.random.random_bool(0.03),
        };
        self.leads.push(lead);
        lead
    }

    /// Meta does not know each lead at once, though it has told of it, and some not for long.
    fn let_meta_forget(&mut self, world: &World, lead: &SomeLead) {
        match self.random.random_range(0..40) {
            0 if self.mood.curses => world.meta.disown(lead_id(lead.number), None),
            1..4 => {
                let after_ms = self.random.random_range(SECOND..5 * MINUTE);
                let until = world.now().plus_millis(after_ms);
                world.meta.disown(lead_id(lead.number), Some(until));
            }
            _ => {}
        }
    }

    async fn queue_again(&mut self, world: &mut World) {
        let dead = world.listed(EventState::Dead);
        if dead.is_empty() {
            return;
        }
        let event_id = dead[self.random.random_range(0..dead.len())].event.id();
        let (path, body) = if self.random.random_bool(0.7) {
            (format!("/v1/events/{event_id}/retry"), None)
        } else {
            ("/v1/events/retry".to_owned(), Some(json!({"all": true})))
        };
        world.api(Method::POST, &path, body, |_, _, _| {}).await;
    }

    async fn erase(&mut self, world: &mut World) {
        let number = self.random.random_range(0..=self.next_number);
        let path = format!("/v1/leads/{}", lead_id(number));
        world.api(Method::DELETE, &path, None, |_, _, _| {}).await;
    }

    async fn look_up(&mut self, world: &mut World) {
        let number = self.random.random_range(0..=self.next_number);
        let path = format!("/v1/leads/{}", lead_id(number));
        world.api(Method::GET, &path, None, |_, _, _| {}).await;
    }

    // ---- What goes wrong ----------------------------------------------------------------------

    fn change_weather(&mut self, world: &World) {
        let number = self.random.random_range(1..4);
        let is_bad = self.random.random_bool(0.6);
        let weather = is_bad.then(|| WEATHER[self.random.random_range(0..WEATHER.len())]);
        world.note(format_args!("the weather of {number} is {weather:?}"));
        world.meta.set_weather(dataset_id(number), weather);
    }

    fn change_risk(&mut self, world: &World) {
        let risk = [0.0, 0.1, 0.5, 0.9][self.random.random_range(0..4)];
        world.note(format_args!("something happens to a request with {risk}"));
        world.meta.set_risk(risk, self.troubles.clone());
    }

    fn set_clock(&mut self, world: &World) {
        let far_ms = [30 * SECOND, 10 * MINUTE, 6 * HOUR, 3 * DAY][self.random.random_range(0..4)];
        let off_by_ms = [0, 0, far_ms, -far_ms][self.random.random_range(0..4)];
        world.set_clock(off_by_ms);
    }

    async fn change_settings(&mut self, world: &mut World) {
        world.stop().await;
        let number = self.random.random_range(1..4);
        if !world.datasets.remove(&number) || world.datasets.is_empty() {
            world.datasets.insert(number);
        }
        world.start().await;
    }

    async fn wait_for_days(&mut self, world: &mut World) {
        if self.random.random_bool(0.7) {
            let weather = WEATHER[self.random.random_range(0..WEATHER.len())];
            for number in 1..4 {
                world.meta.set_weather(dataset_id(number), Some(weather));
            }
        }
        world.note(format_args!("days pass"));
        let days = self.random.random_range(1..4);
        for _ in 0..3 {
            world.pass_ms(days * DAY).await;
            self.tell_of_leads(world).await;
        }
    }

    // ---- Peace --------------------------------------------------------------------------------

    /// Nothing goes wrong any more, and every dataset is configured.
    async fn make_peace(&mut self, world: &mut World) {
        world.note(format_args!("peace"));
        for number in 1..4 {
            world.meta.set_weather(dataset_id(number), None);
        }
        world.meta.set_risk(0.0, Vec::new());
        world.set_store_risk(0.0);
        world.set_clock(0);
        world.revive().await;
        if world.datasets.len() < 3 {
            world.stop().await;
            world.datasets = [1, 2, 3].into();
            world.start().await;
        }
    }

    /// New leads go on coming, and within hours everything is where it belongs.
    async fn drain(&mut self, world: &mut World) {
        for round in 0..24 {
            for page in 301..=303 {
                self.next_number += 1;
                world.tell_of_lead_of(page, self.next_number).await;
            }
            world.pass_ms(15 * MINUTE).await;
            if round > 1 && world.pending().is_empty() {
                return;
            }
        }
        let pending = world.pending();
        let mut pages = world.ledger.open();
        pages.must(pending.is_empty(), || format!("after six hours of peace: {pending:?}"));
    }
}

/// A place among weights, the heavier the likelier.
pub(super) fn pick(random: &mut StdRng, weights: &[u32]) -> usize {
    let mut left = random.random_range(0..weights.iter().sum());
    let is_it = |weight: &u32| {
        let is_it = left < *weight;
        left = left.saturating_sub(*weight);
        is_it
    };
    weights.iter().position(is_it).expect("less than the sum")
}
