//! Clients that put servers under load and write down what they are told, and the world that these
//! servers send to; both live on when a server is killed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leadloop::clock::{Clock, Random, SeededRandom, SystemClock};
use leadloop::domain::ids::{DatasetId, FormId, LeadId, PageId};
use leadloop::domain::time::UnixSeconds;
use leadloop::meta::signature::{SIGNATURE_HEADER, sign};
use leadloop::sandbox::trigger::{SampleLead, webhook_body};
use leadloop::sandbox::{Sandbox, Settings, TakenEvent};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::journal::{Journal, Receipt, Shown, Summary, check};
use super::program::{ACCESS_TOKEN, API_KEY, APP_SECRET, within};

/// By which moments are chosen.
pub const SEED: u64 = 20_251_101;
/// How many clients call at the same time.
const CLIENTS: u64 = 6;
/// Most leads of one delivery.
const DELIVERY_MAX: u64 = 4;
/// Longest that a server may take to empty its queues.
const DRAIN_MAX: Duration = Duration::from_secs(15);

/// The world around servers, which lives on when a server is killed.
#[derive(Clone)]
pub struct World {
    client: reqwest::Client,
    /// The stand-in for Meta.
    pub meta: Sandbox,
    /// Where servers are, which are called in turn.
    pub urls: Arc<watch::Sender<Vec<String>>>,
    turn: Arc<AtomicUsize>,
    /// What the clients know.
    pub journal: Arc<Mutex<Journal>>,
    /// How many answers acknowledged something.
    pub acknowledged: Arc<watch::Sender<usize>>,
    /// How many answers told a client to come back.
    pub refused: Arc<watch::Sender<usize>>,
    next_lead: Arc<AtomicU64>,
    /// Ends the clients.
    pub finish: CancellationToken,
}

impl World {
    pub fn new(meta: Sandbox) -> Self {
        Self {
            client: leadloop::client::http_client("http://127.0.0.1").unwrap(),
            meta,
            urls: Arc::default(),
            turn: Arc::default(),
            journal: Arc::default(),
            acknowledged: Arc::default(),
            refused: Arc::default(),
            next_lead: Arc::new(AtomicU64::new(36_795_652_870_078_001)),
            finish: CancellationToken::new(),
        }
    }

    /// Tells of leads and reports stages of the first of each delivery until it is to finish. What
    /// is not acknowledged is repeated, as Meta and a CRM do; some deliveries are given up, so that
    /// nothing mends them if a part of one is stored.
    pub async fn be_a_client(self) {
        while !self.finish.is_cancelled() {
            let delivery = self.new_delivery();
            let lead = delivery[0];
            let ordinal = lead.lead_id.get() / DELIVERY_MAX;
            let mut events = Vec::new();
            // A CRM may be quicker than Meta.
            let early = ordinal.is_multiple_of(5);
            if early {
                events.push(self.report(&lead, "qualified", 60).await);
            } else if ordinal.is_multiple_of(3) {
                let ids = delivery.iter().map(|lead| lead.lead_id.to_string()).collect();
                if self.send(webhook(&self.client, &delivery)).await.is_none() {
                    self.journal.lock().unwrap().given_up.push(ids);
                    continue;
                }
            }
            self.tell_of(&delivery).await;
            self.acknowledge(&delivery, &events);
            // Meta did not hear the answer, and tells again.
            self.tell_of(&delivery).await;
            let stages = [("qualified", 60), ("won", 120)].into_iter().skip(usize::from(early));
            for (stage, seconds) in stages {
                events.push(self.report(&lead, stage, seconds).await);
                self.acknowledge(&delivery, &events);
            }
        }
    }

    /// Believes that a delivery is taken as soon as it is sent, as if it were answered before the
    /// commit.
    pub async fn be_gullible(self) {
        let mut interval = tokio::time::interval(Duration::from_millis(50));
        while !self.finish.is_cancelled() {
            interval.tick().await;
            let delivery = self.new_delivery();
            self.acknowledge(&delivery, &[]);
            let world = self.clone();
            tokio::spawn(async move { world.send(webhook(&world.client, &delivery)).await });
        }
    }

    /// The server whose turn it is.
    fn url(&self) -> String {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let urls = self.urls.borrow();
        urls[turn % urls.len()].clone()
    }

    /// Some leads that nobody has told of.
    fn new_delivery(&self) -> Vec<SampleLead> {
        let first = self.next_lead.fetch_add(DELIVERY_MAX, Ordering::Relaxed);
        let lead = |number| SampleLead {
            lead_id: LeadId::from_u64(number).unwrap(),
            page_id: PageId::from_u64(300).unwrap(),
            form_id: FormId::from_u64(17).unwrap(),
            created_time: SystemClock.now().seconds() + -3_600,
        };
        (first..=first + first / DELIVERY_MAX % DELIVERY_MAX).map(lead).collect()
    }

    /// Writes down what was acknowledged: the leads, and these events of the first.
    fn acknowledge(&self, delivery: &[SampleLead], events: &[String]) {
        let mut journal = self.journal.lock().unwrap();
        for lead in delivery {
            journal.leads.entry(lead.lead_id.to_string()).or_default();
        }
        journal.leads.insert(delivery[0].lead_id.to_string(), events.to_vec());
    }

    async fn tell_of(&self, delivery: &[SampleLead]) {
        self.until_acknowledged(webhook(&self.client, delivery)).await;
    }

    /// Reports a stage, and answers with its event id.
    async fn report(&self, lead: &SampleLead, stage: &str, seconds: i64) -> String {
        let event_time: UnixSeconds = lead.created_time + seconds;
        let update = json!({"lead_id": lead.lead_id.to_string(), "stage": stage,
                            "event_time": event_time.get()});
        let answer = self
            .until_acknowledged(|url: &str| {
                let request = self.client.post(format!("{url}/v1/stage-updates"));
                request.bearer_auth(API_KEY).json(&update)
            })
            .await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["event_id"].as_str().unwrap().to_owned()
    }

    async fn until_acknowledged(&self, request: impl Fn(&str) -> RequestBuilder) -> String {
        let mut interval = tokio::time::interval(Duration::from_millis(5));
        loop {
            interval.tick().await;
            if let Some(answer) = self.send(&request).await {
                return answer;
            }
        }
    }

    /// Sends a request once, and answers with what acknowledged it.
    async fn send(&self, request: impl Fn(&str) -> RequestBuilder) -> Option<String> {
        let response = request(&self.url()).send().await.ok()?;
        let status = response.status();
        let answer = response.text().await.ok()?;
        if status.is_success() {
            self.acknowledged.send_modify(|count| *count += 1);
            return Some(answer);
        }
        assert_eq!(status, 503, "{answer}");
        self.refused.send_modify(|count| *count += 1);
        None
    }

    /// Keeps looking which events are shown as delivered, until it is to finish.
    async fn look(self) {
        let mut interval = tokio::time::interval(Duration::from_millis(10));
        while !self.finish.is_cancelled() {
            interval.tick().await;
            let url = format!("{}/v1/events?state=delivered&limit=200", self.url());
            let Some(page) = self.get(&url).await else {
                continue;
            };
            let requests = self.meta.requests();
            let mut journal = self.journal.lock().unwrap();
            for event in page["events"].as_array().unwrap() {
                let event_id = event["event_id"].as_str().unwrap().to_owned();
                journal.delivered.entry(event_id).or_insert(requests);
            }
        }
    }

    /// What a server shows, if it answers.
    pub async fn get(&self, url: &str) -> Option<Value> {
        let response = self.client.get(url).bearer_auth(API_KEY).send().await.ok()?;
        response.status().is_success().then_some(())?;
        response.json().await.ok()
    }

    /// The timelines of all leads, once every queue is empty or has had the time to be.
    async fn drained(&self, url: &str) -> BTreeMap<String, Vec<Shown>> {
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        let draining = async {
            for state in ["awaiting_lead", "held", "pending"] {
                let path = format!("{url}/v1/events?limit=1&state={state}");
                while self.get(&path).await.unwrap()["events"] != json!([]) {
                    interval.tick().await;
                }
            }
        };
        // What is left then is named by the check.
        let _ = tokio::time::timeout(DRAIN_MAX, draining).await;
        let leads: Vec<String> = self.journal.lock().unwrap().all_leads().cloned().collect();
        let mut timelines = BTreeMap::new();
        for lead_id in leads {
            if let Some(lead) = self.get(&format!("{url}/v1/leads/{lead_id}")).await {
                let events = lead["events"].as_array().unwrap().iter();
                timelines.insert(lead_id, events.map(shown).collect());
            }
        }
        timelines
    }

    /// Starts clients that call all the time, and somebody who looks what is delivered.
    pub fn start<C: Future<Output = ()> + Send + 'static>(
        &self,
        client: fn(Self) -> C,
    ) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        clients.spawn(self.clone().look());
        (0..CLIENTS).for_each(|_| drop(clients.spawn(client(self.clone()))));
        clients
    }

    /// Waits until all of them have come to an end.
    pub async fn finish(&self, mut clients: JoinSet<()>) {
        self.finish.cancel();
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
    }

    /// Waits for the moment of a kill: after some acknowledgements, or right after the stand-in has
    /// taken some events, when the server has not recorded them yet.
    pub async fn moment(&self, random: &SeededRandom) {
        let count = 5 + usize::try_from(random.next_u64() % 150).unwrap();
        if random.next_u64().is_multiple_of(2) {
            self.wait_for_acknowledgements(count).await;
        } else {
            within(self.meta.wait_for_events(self.meta.events().len() + count)).await;
        }
    }

    /// Waits until so many more answers acknowledged something.
    pub async fn wait_for_acknowledgements(&self, count: usize) {
        let until = *self.acknowledged.borrow() + count;
        let mut acknowledged = self.acknowledged.subscribe();
        within(acknowledged.wait_for(|now| *now >= until)).await.unwrap();
    }

    /// Checks what the clients know against what a server shows once it has sent everything, and
    /// what the stand-in received.
    pub async fn check(&self, url: &str) -> Result<Summary, Vec<String>> {
        let timelines = self.drained(url).await;
        let receipts: Vec<Receipt> = self.meta.events().iter().map(receipt).collect();
        check(&self.journal.lock().unwrap(), &timelines, &receipts)
    }
}

/// A delivery, signed, to be sent to a server.
fn webhook<'c>(
    client: &'c reqwest::Client,
    delivery: &[SampleLead],
) -> impl Fn(&str) -> RequestBuilder + use<'c> {
    let body = webhook_body(delivery);
    let signature = sign(&APP_SECRET.into(), body.as_bytes());
    move |url| {
        let request = client.post(format!("{url}/webhooks/meta")).body(body.clone());
        request.header(SIGNATURE_HEADER, &signature)
    }
}

fn shown(event: &Value) -> Shown {
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    Shown { event_id: text("event_id"), stage: text("stage"), state: text("state") }
}

/// The run of a server that sent an event.
pub fn run_of(taken: &TakenEvent) -> usize {
    let source = taken.event["custom_data"]["lead_event_source"].as_str().unwrap();
    source.strip_prefix("run ").unwrap().parse().unwrap()
}

fn receipt(taken: &TakenEvent) -> Receipt {
    let event_id = taken.event["event_id"].as_str().unwrap().to_owned();
    Receipt { event_id, run: run_of(taken), request: taken.request }
}

/// A stand-in for Meta that takes everything, and its address.
pub async fn stand_in() -> (Sandbox, String) {
    let settings = Settings {
        page_tokens: Vec::new(),
        datasets: [(DatasetId::from_u64(700).unwrap(), ACCESS_TOKEN.into())].into(),
        app_secret: APP_SECRET.into(),
        target: "http://127.0.0.1".to_owned(),
    };
    let random = Arc::new(SeededRandom::new(SEED));
    let meta = Sandbox::new(settings, Arc::new(SystemClock), random).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(meta.clone().run(listener, CancellationToken::new()));
    (meta, url)
}
