//! The sender against a real receiver on this machine, with time that stands still until it is
//! moved.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::*;
use crate::clock::{MockClock, SeededRandom};
use crate::config::{AlarmSettings, Layers};
use crate::domain::alarm::{AlarmKind, Cause, Kept, Subject};
use crate::domain::ids::DatasetId;
use crate::domain::time::UnixSeconds;
use crate::store::memory::MemoryStore;
use crate::store::{Intake, Quarantined};

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const HOUR_MS: i64 = 3_600_000;

// ---- The receiver -----------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
enum Behaviour {
    Answer(u16),
    /// Takes the message and never says so.
    Hang,
}

#[derive(Clone, Debug)]
struct Received {
    id: String,
    at: i64,
    signature: String,
    body: Vec<u8>,
}

impl Received {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// `quarantine.added 3`: type and count.
    fn line(&self) -> String {
        let body = self.json();
        format!("{} {}", body["type"].as_str().unwrap(), body["data"]["count"])
    }
}

#[derive(Default)]
struct Receiver {
    /// How coming messages are answered; those after them are taken.
    behaviours: Mutex<VecDeque<Behaviour>>,
    received: Mutex<Vec<Received>>,
    arrived: Notify,
}

impl Receiver {
    fn will(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.behaviours.lock().unwrap().extend(behaviours);
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.received().iter().map(Received::line).collect()
    }

    /// How many different messages came, whatever came twice.
    fn ids(&self) -> BTreeSet<String> {
        self.received().into_iter().map(|message| message.id).collect()
    }
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    receiver.received.lock().unwrap().push(Received {
        id: header("webhook-id"),
        at: header("webhook-timestamp").parse().unwrap(),
        signature: header("webhook-signature"),
        body: body.to_vec(),
    });
    receiver.arrived.notify_one();
    let behaviour = receiver.behaviours.lock().unwrap().pop_front();
    match behaviour.unwrap_or(Behaviour::Answer(200)) {
        Behaviour::Answer(status) => StatusCode::from_u16(status).unwrap(),
        Behaviour::Hang => std::future::pending().await,
    }
}

// ---- The sender and what is around it ---------------------------------------------------------

fn way_to(url: &str, timeout: Duration) -> Arc<Post> {
    let file = format!("alarm_url = \"{url}\"\nalarm_secret = \"{KEY}\"");
    let layers = Layers::read(&BTreeMap::new(), Some(&file), &|_| Ok(String::new())).unwrap();
    let settings = AlarmSettings::from_layers(&layers).unwrap();
    Arc::new(Post::new(&settings.receiver.unwrap(), timeout).unwrap())
}

struct Bench {
    sender: Sender,
    receiver: Arc<Receiver>,
    /// The way to the receiver; the sender may be given another.
    way: Arc<Post>,
    clock: Arc<MockClock>,
    store: Arc<MemoryStore>,
}

impl Bench {
    async fn new() -> Self {
        Self::with_timeout(Duration::from_secs(10)).await
    }

    /// A bench whose sender waits so long for an answer, in real time.
    async fn with_timeout(timeout: Duration) -> Self {
        let receiver = Arc::new(Receiver::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/alarms", listener.local_addr().unwrap());
        let router = Router::new().route("/alarms", post(receive)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let store = Arc::new(MemoryStore::default());
        let kinds = AlarmKind::ALL.iter().copied().collect();
        store.keep_alarms(Kept { kinds, ..Kept::default() }).await.unwrap();
        let clock = Arc::new(MockClock::at(UnixSeconds::new(1_762_000_000).timestamp()));
        let way = way_to(&url, timeout);
        let tools = Tools {
            store: store.clone(),
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(1)),
            metrics: Arc::default(),
            post: way.clone(),
        };
        Self { sender: Sender::new(tools), receiver, way, clock, store }
    }

    /// So many pieces are quarantined.
    async fn quarantine(&self, pieces: impl IntoIterator<Item = u64>) {
        let now = self.clock.now();
        let piece = |number: u64| Quarantined {
            received_at: now,
            reason: "unreadable".into(),
            payload: number.to_be_bytes().to_vec(),
        };
        let quarantined = pieces.into_iter().map(piece).collect();
        let intake = Intake { quarantined, ..Intake::default() };
        self.store.ingest(intake, now).await.unwrap();
    }

    async fn pause(&self, number: u64) {
        let dataset_id = DatasetId::from_u64(number).unwrap();
        let subject = Subject::DatasetPaused { dataset_id, reason: "token".into() };
        self.store.raise_alarm(Cause::once(subject, None), self.clock.now()).await.unwrap();
    }

    /// Rounds at their usual pace for so long.
    async fn rounds_for(&mut self, millis: i64) {
        for _ in 0..millis / ALARM_LOOK_EVERY_MS {
            self.sender.round().await;
            self.clock.advance_ms(ALARM_LOOK_EVERY_MS);
        }
    }

    async fn waiting(&self) -> usize {
        self.store.alarms().await.unwrap().waiting.len()
    }

    fn metric(&self, line: &str) -> bool {
        self.sender.tools.metrics.render().contains(line)
    }
}

// ---- What is promised -------------------------------------------------------------------------

#[tokio::test]
async fn an_alarm_arrives_signed_and_is_forgotten() {
    let mut bench = Bench::new().await;
    bench.quarantine([1, 2, 3]).await;
    bench.sender.round().await;
    let [message] = &bench.receiver.received()[..] else { panic!("one message") };
    assert_eq!(message.line(), "quarantine.added 3");
    assert_eq!(message.json()["timestamp"], "2025-11-01T12:26:40Z");
    assert_eq!(message.at, 1_762_000_000);
    let file = format!("alarm_url = \"https://x\"\nalarm_secret = \"{KEY}\"");
    let layers = Layers::read(&BTreeMap::new(), Some(&file), &|_| Ok(String::new())).unwrap();
    let keys = AlarmSettings::from_layers(&layers).unwrap().receiver.unwrap().keys;
    let at = UnixSeconds::new(message.at);
    let signature = crate::alarm::signature::sign(&keys, &message.id, at, &message.body);
    assert_eq!(message.signature, signature);
    assert_eq!(bench.waiting().await, 0);
    bench.rounds_for(HOUR_MS).await;
    assert_eq!(bench.receiver.received().len(), 1);
    assert!(bench.metric("leadloop_alarms_sent_total 1"));
}

#[tokio::test]
async fn a_receiver_that_was_down_for_an_hour_gets_what_gathered_in_two_messages() {
    let mut bench = Bench::new().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    bench.sender.tools.post = way_to(&nobody, Duration::from_secs(10));
    for number in 0..60 {
        bench.quarantine([number]).await;
        bench.rounds_for(60_000).await;
    }
    assert_eq!(bench.waiting().await, 2, "one was tried and stays as it is, the other gathers");
    assert!(!bench.metric("leadloop_alarms_failed_total 2\n"), "it was tried more often");
    let tries = bench.store.alarms().await.unwrap().waiting[0].tries;
    assert!((8..20).contains(&tries), "less and less often: {tries}");
    bench.sender.tools.post = bench.way.clone();
    bench.rounds_for(HOUR_MS).await;
    assert_eq!(bench.receiver.lines(), ["quarantine.added 1", "quarantine.added 59"]);
    assert_eq!(bench.waiting().await, 0);
}

#[tokio::test]
async fn whatever_is_no_2xx_is_tried_again_with_the_same_id_and_body() {
    let mut bench = Bench::new().await;
    let wrong = [500, 503, 429, 404, 410, 302, 400];
    bench.receiver.will(wrong.map(Behaviour::Answer));
    bench.receiver.will([Behaviour::Answer(204)]);
    bench.quarantine([1]).await;
    bench.rounds_for(HOUR_MS).await;
    let received = bench.receiver.received();
    assert_eq!(received.len(), wrong.len() + 1);
    for message in &received {
        assert_eq!((&message.id, &message.body), (&received[0].id, &received[0].body));
    }
    assert!(received.is_sorted_by(|a, b| a.at < b.at), "the time is that of the try");
    assert_ne!(received[0].signature, received[1].signature);
    assert_eq!(bench.waiting().await, 0);
    assert!(bench.metric("leadloop_alarms_failed_total 7"));
}

#[tokio::test]
async fn an_answer_that_is_lost_means_the_same_message_again() {
    // Long enough that a busy machine answers the others in time.
    let mut bench = Bench::with_timeout(Duration::from_secs(1)).await;
    bench.receiver.will([Behaviour::Hang]);
    bench.quarantine([1]).await;
    bench.pause(7).await;
    bench.sender.round().await;
    assert_eq!(bench.receiver.received().len(), 1, "who does not answer is left alone");
    bench.rounds_for(HOUR_MS).await;
    let received = bench.receiver.received();
    assert_eq!((received.len(), bench.receiver.ids().len()), (3, 2));
    let first = &received[0];
    let again = received[1..].iter().find(|message| message.id == first.id).unwrap();
    assert_eq!(again.body, first.body);
    assert_eq!(bench.waiting().await, 0);
}

#[tokio::test]
async fn a_sender_that_dies_between_sending_and_recording_sends_the_same_again() {
    let mut bench = Bench::new().await;
    bench.receiver.will([Behaviour::Hang]);
    bench.quarantine([1]).await;
    tokio::select! {
        () = bench.sender.round() => panic!("the receiver hangs"),
        () = bench.receiver.arrived.notified() => {}
    }
    // More happens before the next process has begun.
    bench.quarantine([2]).await;
    bench.sender = Sender::new(bench.sender.tools.clone());
    bench.rounds_for(HOUR_MS).await;
    let received = bench.receiver.received();
    assert_eq!((&received[1].id, &received[1].body), (&received[0].id, &received[0].body));
    assert_eq!(bench.receiver.lines()[1..], ["quarantine.added 1", "quarantine.added 1"]);
    assert_eq!((bench.receiver.ids().len(), bench.waiting().await), (2, 0));
}

#[tokio::test]
async fn a_sender_that_is_told_to_stop_does_not_wait_for_a_receiver_that_hangs() {
    let bench = Bench::new().await;
    bench.receiver.will([Behaviour::Hang]);
    bench.quarantine([1]).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(bench.sender.run(stop.clone()));
    bench.receiver.arrived.notified().await;
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap();
    assert_eq!(bench.store.alarms().await.unwrap().waiting.len(), 1);
}

#[tokio::test]
async fn a_burst_of_ten_thousand_is_a_handful_of_messages_that_count_them_all() {
    let mut bench = Bench::new().await;
    for burst in 0..100 {
        bench.quarantine(burst * 100..burst * 100 + 100).await;
        bench.rounds_for(ALARM_LOOK_EVERY_MS).await;
    }
    bench.rounds_for(HOUR_MS).await;
    let counts: Vec<u64> = bench.receiver.received().iter().map(count_of).collect();
    assert_eq!(counts.iter().sum::<u64>(), 10_000);
    assert!(counts.len() <= 11, "one a minute for 500 seconds: {counts:?}");
}

fn count_of(message: &Received) -> u64 {
    message.json()["data"]["count"].as_u64().unwrap()
}

#[tokio::test]
async fn a_message_that_is_refused_holds_up_no_other_subject() {
    let mut bench = Bench::new().await;
    bench.receiver.will([Behaviour::Answer(500)]);
    bench.pause(7).await;
    bench.clock.advance_ms(1);
    bench.quarantine([1]).await;
    bench.sender.round().await;
    assert_eq!(bench.receiver.lines(), ["dataset.paused 1", "quarantine.added 1"]);
    assert_eq!(bench.waiting().await, 1);
}

#[tokio::test]
async fn an_alarm_that_nobody_takes_is_given_up_after_three_days() {
    let mut bench = Bench::new().await;
    bench.receiver.will([Behaviour::Answer(500); 1_000]);
    bench.quarantine([1]).await;
    bench.rounds_for(ALARM_KEPT_MS - HOUR_MS).await;
    assert_eq!(bench.waiting().await, 1);
    let tries = bench.receiver.received().len();
    assert!((280..600).contains(&tries), "every ten to fifteen minutes: {tries}");
    bench.rounds_for(2 * HOUR_MS).await;
    assert_eq!(bench.waiting().await, 0);
    assert!(bench.metric("leadloop_alarms_given_up_total 1"));
}

#[tokio::test]
async fn an_alarm_that_is_old_when_the_sender_starts_is_tried_before_it_is_given_up() {
    let mut bench = Bench::new().await;
    bench.quarantine([1]).await;
    bench.clock.advance_ms(10 * ALARM_KEPT_MS);
    bench.sender.round().await;
    assert_eq!(bench.receiver.lines(), ["quarantine.added 1"]);
}

#[tokio::test]
async fn a_clock_that_is_set_back_keeps_no_alarm_back() {
    let mut bench = Bench::new().await;
    bench.receiver.will([Behaviour::Answer(500)]);
    bench.quarantine([1]).await;
    bench.sender.round().await;
    bench.pause(7).await;
    bench.sender.round().await;
    bench.clock.advance_ms(-30 * HOUR_MS);
    bench.pause(8).await;
    bench.sender.round().await;
    let lines =
        ["quarantine.added 1", "dataset.paused 1", "quarantine.added 1", "dataset.paused 1"];
    let mut came = bench.receiver.lines();
    came[2..].sort_by_key(|line| std::cmp::Reverse(line.clone()));
    assert_eq!(came, lines);
}
