//! Meta, as it is met over the network: strict, slow, down, and not always heard.
//!
//! Requests are judged with the checks of the stand-in ([`crate::sandbox::checks`]), by the true
//! time, and Meta does not stop when the program does: what was sent before a crash may be taken
//! after it. Everything that is sent and taken goes into the ledger.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::config::Dataset;
use crate::delivery::sink::EventSink;
use crate::delivery::verdict::NoAnswer;
use crate::domain::ids::{DatasetId, LeadId};
use crate::domain::time::Timestamp;
use crate::meta::conversions::{Answer, read_answer};
use crate::sandbox::checks::{Refused, check_request};
use crate::sandbox::faults::graph_error;
use crate::simulation::clock::SimClock;
use crate::simulation::ledger::Ledger;
use crate::simulation::power::Power;

/// A stage whose events Meta refuses, whatever else they say.
pub(super) const CURSED: &str = "cursed";

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Course {
    /// After how many milliseconds Meta judges it, and takes it if it is good; never if it does
    /// not come so far.
    pub(super) judged_after_ms: Option<i64>,
    /// After how many milliseconds the program hears something.
    pub(super) heard_after_ms: i64,
    /// What it hears.
    pub(super) heard: Heard,
}

/// What the program hears of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// What Meta made of it.
    Truth,
    /// An answer with this status and text, whatever Meta made of it.
    Says(u16, &'static str),
    /// A 200 that received one event less than were sent.
    OneLess,
    /// A throttle for so many seconds.
    Throttled(u64),
    /// No answer, for this reason.
    Nothing(NoAnswer),
    /// Nothing, for ever.
    Never,
    /// The program ends before it hears anything.
    Crash,
}

/// Meta.
#[derive(Clone)]
pub(super) struct Meta {
    clock: SimClock,
    ledger: Ledger,
    power: Power,
    state: Arc<Mutex<State>>,
}

struct State {
    random: StdRng,
    /// What becomes of the next requests.
    script: VecDeque<Course>,
    /// What becomes of all requests of a dataset for now.
    weather: BTreeMap<DatasetId, Course>,
    /// How likely something happens to a request in fine weather, and what may.
    risk: f64,
    troubles: Vec<Course>,
    deleted: BTreeSet<LeadId>,
    /// Leads that Meta does not know before this time, though it has told of them.
    unknown_until: BTreeMap<LeadId, Timestamp>,
    /// A planted defect: the program is told that Meta received what it never did.
    loses: bool,
}

impl Meta {
    pub(super) fn new(clock: SimClock, ledger: Ledger, power: Power, seed: u64) -> Self {
        let state = State {
            random: StdRng::seed_from_u64(seed),
            script: VecDeque::new(),
            weather: BTreeMap::new(),
            risk: 0.0,
            troubles: Vec::new(),
            deleted: BTreeSet::new(),
            unknown_until: BTreeMap::new(),
            loses: false,
        };
        Self { clock, ledger, power, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of the next requests.
    pub(super) fn script(&self, courses: impl IntoIterator<Item = Course>) {
        self.state().script.extend(courses);
    }

    /// What becomes of all requests of a dataset from now on; nothing in particular without.
    pub(super) fn set_weather(&self, dataset_id: DatasetId, course: Option<Course>) {
        self.state().weather.remove(&dataset_id);
        self.state().weather.extend(course.map(|course| (dataset_id, course)));
    }

    /// From now on one of these troubles happens to a request with this chance.
    pub(super) fn set_risk(&self, risk: f64, troubles: Vec<Course>) {
        let mut state = self.state();
        (state.risk, state.troubles) = (risk, troubles);
    }

    /// Does not know a lead before this time, or never.
    pub(super) fn disown(&self, lead_id: LeadId, until: Option<Timestamp>) {
        let mut state = self.state();
        match until {
            Some(until) => drop(state.unknown_until.insert(lead_id, until)),
            None => drop(state.deleted.insert(lead_id)),
        }
    }

    /// Plants a defect: the program is told that Meta received what it never did.
    pub(super) fn lose_what_is_confirmed(&self) {
        self.state().loses = true;
    }

    fn course(&self, dataset_id: DatasetId) -> Course {
        let state = &mut *self.state();
        if let Some(course) = state.script.pop_front() {
            return course;
        }
        if let Some(course) = state.weather.get(&dataset_id) {
            return *course;
        }
        if state.risk > 0.0 && state.random.random_bool(state.risk) {
            let place = state.random.random_range(0..state.troubles.len());
            return state.troubles[place];
        }
        let judged_ms = state.random.random_range(1..400);
        Course {
            judged_after_ms: Some(judged_ms),
            heard_after_ms: judged_ms + state.random.random_range(1..200),
            heard: Heard::Truth,
        }
    }

    /// Judges a request, takes its events if all of them are good, and answers.
    fn judge(&self, body: &Value, read_at: u64) -> Answer {
        self.clock.happens();
        let now = self.clock.truth();
        let events = body["data"].as_array().cloned().unwrap_or_default();
        let mut pages = self.ledger.open();
        if let Err((place, refused)) = self.check(body, now) {
            pages.note(now, format_args!("Meta refuses {} events", events.len()));
            pages.refuse(&events);
            let Refused { code, subcode, message } = refused;
            let mut answer = graph_error(code, subcode, false, message);
            if let Some(place) = place {
                answer["error"]["error_data"] = json!({"blame_field_specs": [[place]]});
            }
            return read_answer(400, answer.to_string().as_bytes());
        }
        if !self.state().loses {
            pages.note(now, format_args!("Meta takes {} events", events.len()));
            for event in &events {
                pages.take(event, read_at);
            }
        }
        let answer = json!({"events_received": events.len(), "fbtrace_id": "sim"});
        read_answer(200, answer.to_string().as_bytes())
    }

    /// The first thing that is wrong, and its place if Meta is in the mood to tell.
    fn check(&self, body: &Value, now: Timestamp) -> Result<(), (Option<String>, Refused)> {
        let mut state = self.state();
        let is_unknown = |lead_id: LeadId| {
            let later = state.unknown_until.get(&lead_id).is_some_and(|until| *until > now);
            later || state.deleted.contains(&lead_id)
        };
        if let Err(refused) = check_request(body, now, is_unknown) {
            return Err((None, refused));
        }
        let mut events = body["data"].as_array().into_iter().flatten();
        let Some(cursed) = events.position(|event| event["event_name"] == CURSED) else {
            return Ok(());
        };
        let place = state.random.random_bool(0.5).then(|| format!("data[{cursed}][event_name]"));
        let message = "event_name is cursed";
        Err((place, Refused { code: 100, subcode: Some(2_804_019), message }))
    }
}

#[async_trait]
impl EventSink for Meta {
    async fn send(&self, dataset: &Dataset, body: Vec<u8>) -> Result<Answer, NoAnswer> {
        self.clock.happens();
        if self.power.is_off() {
            return std::future::pending().await;
        }
        let body: Value = serde_json::from_slice(&body).expect("a request is JSON");
        let events = body["data"].as_array().cloned().unwrap_or_default();
        let course = self.course(dataset.id);
        let count = events.len();
        let line = format!("{} sends {count}: {course:?}", dataset.id);
        self.ledger.open().note(self.clock.truth(), format_args!("{line}"));
        let times = (self.clock.now(), self.clock.truth());
        let read_at = self.ledger.open().send(dataset.id, &events, times);
        let (tell, verdict) = oneshot::channel();
        if let Some(after_ms) = course.judged_after_ms {
            let meta = self.clone();
            tokio::spawn(async move {
                meta.clock.wait_ms(after_ms).await;
                let _ = tell.send(meta.judge(&body, read_at));
            });
        }
        self.clock.wait_ms(course.heard_after_ms).await;
        let answer = match course.heard {
            Heard::Truth => verdict.await.map_err(|_| NoAnswer::Broken)?,
            Heard::Says(status, text) => read_answer(status, text.as_bytes()),
            Heard::OneLess => {
                let text = json!({"events_received": count.saturating_sub(1)}).to_string();
                read_answer(200, text.as_bytes())
            }
            Heard::Throttled(wait_s) => {
                let text = br#"{"error":{"code":80004,"message":"Too many calls"}}"#;
                Answer { wait_s: Some(wait_s), ..read_answer(400, text) }
            }
            Heard::Nothing(why) => return Err(why),
            Heard::Never => std::future::pending().await,
            Heard::Crash => {
                self.clock.happens();
                self.power.cut();
                std::future::pending().await
            }
        };
        if self.power.is_off() {
            return std::future::pending().await;
        }
        if answer.error.is_none() && answer.events_received == u64::try_from(count).ok() {
            self.ledger.open().confirm(&events);
        }
        Ok(answer)
    }
}
