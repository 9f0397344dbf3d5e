//! A whole server for a test: its own port, store, time and stand-in for Meta.
//!
//! Time stands still until a test moves it. [`TestApp::finish`] ends every test: it stops the
//! server, sees that nothing is left in a queue unless the test says so, that Meta would count all
//! that was sent and got nothing twice, and that no answer gave a secret or a person away.

pub mod store;
pub mod stuck;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leadloop::app::{App, TaskDied, World};
use leadloop::clock::{MockClock, SeededRandom};
use leadloop::config::{Config, Layers};
use leadloop::domain::ids::LeadId;
use leadloop::domain::time::UnixSeconds;
use leadloop::http::server::DoorLimits;
use leadloop::meta::signature::sign;
use leadloop::sandbox::faults::Fault;
use leadloop::sandbox::{Sandbox, Settings};
use leadloop::store::Store;
use leadloop::store::memory::MemoryStore;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// When leads are created, unless a test says otherwise.
pub const CREATED: i64 = 1_762_000_000;
/// What the clock shows at the start: 100 seconds later.
pub const START: i64 = CREATED + 100;
pub const DAY: i64 = 86_400;
pub const APP_SECRET: &str = "test-app-secret";
pub const ADMIN_KEY: &str = "test-admin-key";
/// Longest that anything is waited for; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(20);

const SETTINGS: &str = r#"
meta_app_secret = "test-app-secret, old-app-secret"
meta_verify_token = "test-verify-token"
crm_name = "Codex CRM"
listen = "127.0.0.1:0"
api_key = "test-admin-key"
"#;

/// The dataset of every Page that is not routed elsewhere.
pub const DATASET_700: &str = r#"
meta_dataset_id = "700"
meta_access_token = "test-token-700"
"#;

/// The dataset of Page 301, and of no other.
pub const DATASET_701: &str = r#"
[[datasets]]
id = "701"
access_token = "test-token-701"
[[pages]]
id = "301"
dataset = "701"
"#;

/// Customers of the tests, in the clear: these words are in no answer and not in the store.
pub const EMAIL: &str = "Erika.Mustermann@example.org";
pub const PHONE: &str = "+49 151 12345678";

/// What no answer may contain, whatever is asked.
const NEVER_SHOWN: [&str; 11] = [
    APP_SECRET,
    "old-app-secret",
    "test-verify-token",
    "test-token-70",
    ADMIN_KEY,
    "mustermann",
    "151 12345678",
    "15112345678",
    "test-page-token",
    "forms.example",
    "erika muster",
];

pub struct TestApp {
    pub url: String,
    pub clock: Arc<MockClock>,
    pub store: Arc<dyn Store>,
    pub meta: Sandbox,
    client: reqwest::Client,
    stop: CancellationToken,
    server: JoinHandle<Result<(), TaskDied>>,
    /// Every answer so far, for a last look.
    answers: Mutex<String>,
    /// Whether an answer of the stand-in was lost, so that it is right to send again.
    doubles: AtomicBool,
}

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// The code of a problem, after a look at its form.
    pub fn problem(&self) -> (u16, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        (self.status.as_u16(), problem["code"].as_str().unwrap().to_owned())
    }
}

impl TestApp {
    /// A server with one dataset, 700, on a store in memory.
    pub async fn start() -> Self {
        Self::start_with("", Arc::new(MemoryStore::default())).await
    }

    /// A server with dataset 700 and more settings in the form of the file.
    pub async fn start_with(more: &str, store: Arc<dyn Store>) -> Self {
        Self::start_at(&format!("{DATASET_700}{more}"), store, clock_at_start()).await
    }

    /// A server whose datasets are the test's own, at the time that a clock shows.
    pub async fn start_at(more: &str, store: Arc<dyn Store>, clock: Arc<MockClock>) -> Self {
        Self::start_on(more, store, clock, DoorLimits::default()).await
    }

    /// A server with other limits on what a client can hold open.
    pub async fn start_with_door(door: DoorLimits) -> Self {
        Self::start_on(DATASET_700, Arc::new(MemoryStore::default()), clock_at_start(), door).await
    }

    pub async fn start_on(
        more: &str,
        store: Arc<dyn Store>,
        clock: Arc<MockClock>,
        door: DoorLimits,
    ) -> Self {
        let stop = CancellationToken::new();
        let meta_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let file = format!("{SETTINGS}{more}");
        let mut layers =
            Layers::read(&BTreeMap::new(), Some(&file), &|_| Ok(String::new())).unwrap();
        layers.set("META_GRAPH_URL", format!("http://{}", meta_listener.local_addr().unwrap()));
        let config = Config::from_layers(&layers).unwrap();
        let datasets = config.datasets.values();
        let tokens = config.reading.tokens.iter();
        let settings = Settings {
            page_tokens: tokens.map(|token| (token.page_id, token.token.clone())).collect(),
            datasets: datasets.map(|dataset| (dataset.id, dataset.access_token.clone())).collect(),
            app_secret: APP_SECRET.into(),
            target: format!("{url}/webhooks/meta"),
        };
        let random = Arc::new(SeededRandom::new(1));
        let meta = Sandbox::new(settings, clock.clone(), random.clone()).unwrap();
        tokio::spawn(meta.clone().run(meta_listener, stop.clone()));
        let world = World { store: store.clone(), clock: clock.clone(), random };
        let app = App::build(config, world).await.unwrap();
        let server = tokio::spawn(app.with_door(door).run(listener, stop.clone()));
        // A new connection for each request: under a door that shuts early, one that was kept could
        // be shut at the moment it is used again.
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        let client = client.build().unwrap();
        let (answers, doubles) = (Mutex::default(), AtomicBool::default());
        Self { url, clock, store, meta, client, stop, server, answers, doubles }
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = within_patience(request.send()).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        self.answers.lock().unwrap().push_str(&format!("{headers:?} {text}\n").to_lowercase());
        Answer { status, headers, text }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Asks as whoever holds a key.
    pub async fn ask(&self, key: &str, method: Method, path: &str) -> Answer {
        self.send(self.request(method, path).bearer_auth(key)).await
    }

    /// Asks with the admin key.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path).bearer_auth(ADMIN_KEY)).await
    }

    /// Posts JSON with the admin key.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).bearer_auth(ADMIN_KEY).json(body)).await
    }

    /// Posts bytes to the webhook, rightly signed.
    pub async fn webhook(&self, body: &[u8]) -> Answer {
        self.send(self.signed(body)).await
    }

    /// A request to the webhook, rightly signed.
    pub fn signed(&self, body: &[u8]) -> RequestBuilder {
        let signature = sign(&APP_SECRET.into(), body);
        let request = self.request(Method::POST, "/webhooks/meta").body(body.to_vec());
        request.header("x-hub-signature-256", signature)
    }

    /// Tells of leads as Meta does, and sees that they were taken in.
    pub async fn report(&self, leads: &[Value]) {
        for lead in leads {
            let lead_id = lead["leadgen_id"].as_str().and_then(|id| LeadId::parse(id).ok());
            let created_time = lead["created_time"].as_i64().map(UnixSeconds::new);
            if let (Some(lead_id), Some(created_time)) = (lead_id, created_time) {
                self.meta.know_lead(lead_id, created_time);
            }
        }
        let answer = self.webhook(delivery_of(leads).to_string().as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// Reports a stage.
    pub async fn stage_update(&self, update: &Value) -> Answer {
        self.post("/v1/stage-updates", update).await
    }

    /// Reports a stage, and sees that it was taken in.
    pub async fn stage(&self, number: u64, name: &str, seconds: i64) -> Value {
        let answer = self.stage_update(&stage(number, name, seconds)).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        answer.json()
    }

    /// Reports several stages in one request: the verdicts.
    pub async fn batch(&self, updates: &[Value]) -> Vec<Value> {
        let answer = self.post("/v1/stage-updates/batch", &json!({"updates": updates})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["results"].as_array().unwrap().clone()
    }

    /// Makes coming requests to the stand-in go wrong.
    pub fn misbehave(&self, faults: impl IntoIterator<Item = Fault>) {
        let faults: Vec<Fault> = faults.into_iter().collect();
        self.doubles.fetch_or(faults.contains(&Fault::TakeAndCut), Ordering::Relaxed);
        self.meta.misbehave(faults);
    }

    /// A lead with its timeline, as the API shows it.
    pub async fn lead(&self, number: u64) -> Value {
        let answer = self.get(&format!("/v1/leads/{}", lead_id(number))).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// A lead's timeline in lines such as `qualified delivered`.
    pub async fn timeline(&self, number: u64) -> Vec<String> {
        let lead = self.lead(number).await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let line = |event: &Value| {
            let line = [text(&event["stage"]), text(&event["state"]), text(&event["reason"])];
            line.join(" ").trim_end().to_owned()
        };
        lead["events"].as_array().unwrap().iter().map(line).collect()
    }

    /// The event of a lead's stage with every attempt.
    pub async fn event(&self, number: u64, stage: &str) -> Value {
        let lead = self.lead(number).await;
        let mut events = lead["events"].as_array().unwrap().iter();
        let event = events.find(|event| event["stage"] == stage).unwrap();
        let event_id = event["event_id"].as_str().unwrap();
        self.get(&format!("/v1/events/{event_id}")).await.json()
    }

    /// Waits until a lead's raw-lead event has been tried so often, in vain.
    pub async fn failed(&self, number: u64, attempts: usize) {
        self.until(async || self.event(number, "initial_lead").await["attempts"] == attempts).await;
    }

    /// What the stand-in took, in lines such as `1 qualified`, in order.
    pub fn taken(&self) -> Vec<String> {
        let first = lead_id(0).get();
        let line = |taken: leadloop::sandbox::TakenEvent| {
            let lead_id = taken.event["user_data"]["lead_id"].as_u64().unwrap();
            format!("{} {}", lead_id - first, taken.event["event_name"].as_str().unwrap())
        };
        self.meta.events().into_iter().map(line).collect()
    }

    /// Waits until the stand-in has taken so many events and all of them are on record.
    pub async fn delivered(&self, count: usize) {
        within_patience(self.meta.wait_for_events(count)).await;
        self.until(async || self.listed("delivered").await >= count).await;
    }

    /// How many events are in a state.
    pub async fn listed(&self, state: &str) -> usize {
        let path = format!("/v1/events?limit=200&state={state}");
        self.whole_list(&path, "events").await.len()
    }

    /// All rows of a list, page by page.
    pub async fn whole_list(&self, path: &str, name: &str) -> Vec<Value> {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("{path}&cursor={cursor}")).await.json();
            rows.extend(page[name].as_array().unwrap().clone());
            match page["next_cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => return rows,
            }
        }
    }

    /// Asks again and again until it is so, within patience.
    pub async fn until(&self, condition: impl AsyncFn() -> bool) {
        let asking = async {
            let mut interval = tokio::time::interval(Duration::from_millis(5));
            while !condition().await {
                interval.tick().await;
            }
        };
        within_patience(asking).await;
    }

    pub fn advance_s(&self, seconds: i64) {
        self.clock.advance_ms(seconds * 1_000);
    }

    /// How many leads, events in queues, events awaiting a lead and unreadable pieces there are.
    pub async fn stored(&self) -> [u64; 4] {
        let stats = self.store.stats().await.unwrap();
        [stats.leads, stats.queued, stats.awaiting, stats.quarantined]
    }

    /// Ends the test: nothing may be left in a queue.
    pub async fn finish(self) {
        let left = self.store.stats().await.unwrap();
        assert_eq!((left.queued, left.awaiting), (0, 0), "events are left: {left:?}");
        self.finish_with_rest().await;
    }

    /// Ends a test that leaves events in a queue on purpose.
    pub async fn finish_with_rest(self) {
        let metrics = self.send(self.request(Method::GET, "/metrics")).await;
        assert!([200, 503].contains(&metrics.status.as_u16()));
        self.stop.cancel();
        within_patience(self.server).await.unwrap().unwrap();
        let answers = self.answers.into_inner().unwrap();
        for word in NEVER_SHOWN {
            assert!(!answers.contains(word), "{word} was shown");
        }
        let events = self.meta.events();
        let mut wrong: Vec<&String> = events.iter().flat_map(|taken| &taken.not_counted).collect();
        if self.doubles.into_inner() {
            wrong.retain(|why| *why != "the same event_id was taken before");
        }
        assert_eq!(wrong, [""; 0], "Meta does not count all that was sent");
    }
}

/// A clock that shows the time at which tests begin.
pub fn clock_at_start() -> Arc<MockClock> {
    Arc::new(MockClock::at(UnixSeconds::new(START).timestamp()))
}

pub async fn within_patience<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// The id of lead number n; 17 digits, more than a JavaScript number can hold.
pub fn lead_id(number: u64) -> LeadId {
    LeadId::from_u64(36_795_652_870_078_001 + number).unwrap()
}

/// Lead number n, as the value of a change.
pub fn lead(number: u64) -> Value {
    lead_created_at(number, CREATED)
}

pub fn lead_created_at(number: u64, created_time: i64) -> Value {
    json!({"leadgen_id": lead_id(number).to_string(), "page_id": "300", "form_id": "17",
           "ad_id": "55", "created_time": created_time})
}

/// Lead number n of another Page.
pub fn lead_of(page_id: &str, number: u64) -> Value {
    let mut lead = lead(number);
    lead["page_id"] = json!(page_id);
    lead
}

/// A delivery with one entry for each lead.
pub fn delivery_of(leads: &[Value]) -> Value {
    let entry = |lead: &Value| {
        json!({"id": lead["page_id"], "time": START,
               "changes": [{"field": "leadgen", "value": lead}]})
    };
    json!({"object": "page", "entry": leads.iter().map(entry).collect::<Vec<_>>()})
}

/// A stage update for lead number n, dated so many seconds after the lead's creation.
pub fn stage(number: u64, stage: &str, seconds: i64) -> Value {
    json!({"lead_id": lead_id(number).to_string(), "stage": stage,
           "event_time": CREATED + seconds})
}
