//! A whole server for a test: its own port, store, time and stand-in for Meta.
//!
//! Time stands still until a test moves it. [`TestApp::finish`] ends every test: it stops the
//! server, sees that no task died, and that nothing is left in a queue unless the test says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use leadloop::app::{App, World};
use leadloop::clock::{MockClock, SeededRandom};
use leadloop::config::{Config, Layers};
use leadloop::domain::ids::LeadId;
use leadloop::domain::time::UnixSeconds;
use leadloop::http::server::DoorLimits;
use leadloop::meta::signature::sign;
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
meta_dataset_id = "700"
meta_access_token = "test-token-700"
crm_name = "Codex CRM"
listen = "127.0.0.1:0"
api_key = "test-admin-key"
"#;

pub struct TestApp {
    pub url: String,
    pub clock: Arc<MockClock>,
    pub store: Arc<dyn Store>,
    pub meta: Sandbox,
    client: reqwest::Client,
    stop: CancellationToken,
    server: JoinHandle<()>,
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

    /// A server with more settings in the form of the file, on a store of the test's.
    pub async fn start_with(more: &str, store: Arc<dyn Store>) -> Self {
        let clock = MockClock::at(UnixSeconds::new(START).timestamp());
        Self::start_at(more, store, Arc::new(clock)).await
    }

    /// A server at the time that a clock shows.
    pub async fn start_at(more: &str, store: Arc<dyn Store>, clock: Arc<MockClock>) -> Self {
        Self::start_on(more, store, clock, DoorLimits::default()).await
    }

    /// A server with other limits on what a client can hold open.
    pub async fn start_with_door(door: DoorLimits) -> Self {
        let clock = Arc::new(MockClock::at(UnixSeconds::new(START).timestamp()));
        Self::start_on("", Arc::new(MemoryStore::default()), clock, door).await
    }

    async fn start_on(
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
        let settings = Settings {
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
        let client = leadloop::client::http_client(&url).unwrap();
        Self { url, clock, store, meta, client, stop, server }
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = within_patience(request.send()).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
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
        let signature = sign(&APP_SECRET.into(), body);
        let request = self.request(Method::POST, "/webhooks/meta").body(body.to_vec());
        self.send(request.header("x-hub-signature-256", signature)).await
    }

    /// Tells of leads as Meta does, and sees that they were taken in.
    pub async fn report(&self, leads: &[Value]) {
        let answer = self.webhook(delivery_of(leads).to_string().as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }

    /// Reports a stage.
    pub async fn stage_update(&self, update: &Value) -> Answer {
        self.post("/v1/stage-updates", update).await
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
        let page = self.get(&format!("/v1/events?limit=200&state={state}")).await.json();
        page["events"].as_array().unwrap().len()
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

    /// Ends the test: nothing may be left in a queue.
    pub async fn finish(self) {
        let left = self.store.stats().await.unwrap();
        assert_eq!((left.queued, left.awaiting), (0, 0), "events are left: {left:?}");
        self.finish_with_rest().await;
    }

    /// Ends a test that leaves events in a queue on purpose.
    pub async fn finish_with_rest(self) {
        self.stop.cancel();
        within_patience(self.server).await.unwrap();
    }
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
