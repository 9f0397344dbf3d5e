//! Alarms, from what goes wrong to a receiver on this machine.

use std::collections::VecDeque;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use leadloop::sandbox::faults::Fault;
use leadloop::store::memory::MemoryStore;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::process::program::{API_KEY, Place, settings};
use crate::support::{
    CREATED, DATASET_701, DAY, TestApp, clock_at_start, lead, lead_id, within_patience,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Whoever is told: remembers what came, and answers as it is told to, 200 after that.
#[derive(Default)]
struct Receiver {
    received: Mutex<Vec<(HeaderMap, Bytes)>>,
    /// `None` is no answer at all.
    answers: Mutex<VecDeque<Option<StatusCode>>>,
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    receiver.received.lock().unwrap().push((headers, body));
    let answer = receiver.answers.lock().unwrap().pop_front();
    match answer.unwrap_or(Some(StatusCode::OK)) {
        Some(status) => status,
        None => std::future::pending().await,
    }
}

impl Receiver {
    async fn start() -> (Arc<Self>, String) {
        let receiver = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/told", listener.local_addr().unwrap());
        let router = Router::new().route("/told", post(receive)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (receiver, url)
    }

    fn will(&self, answer: Option<StatusCode>, times: usize) {
        self.answers.lock().unwrap().extend(vec![answer; times]);
    }

    fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    fn bodies(&self) -> Vec<Value> {
        let received = self.received.lock().unwrap();
        received.iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect()
    }

    fn types(&self) -> Vec<String> {
        self.bodies().iter().map(|body| body["type"].as_str().unwrap().to_owned()).collect()
    }
}

fn alarms_to(url: &str) -> String {
    format!("alarm_url = \"{url}\"\nalarm_secret = \"{SECRET}\"\n")
}

/// A server that tells a receiver, and the receiver.
async fn start(more: &str) -> (TestApp, Arc<Receiver>) {
    let (receiver, url) = Receiver::start().await;
    // Settings of one value stand before the tables.
    let more = format!("{}{more}", alarms_to(&url));
    (TestApp::start_with(&more, Arc::new(MemoryStore::default())).await, receiver)
}

/// Lets time pass second by second until so much has come.
async fn told(app: &TestApp, receiver: &Receiver, count: usize) {
    app.until(async || {
        app.advance_s(1);
        receiver.count() >= count
    })
    .await;
}

const fn refusal(http_status: u16, code: i64, subcode: Option<i64>) -> Fault {
    Fault::Error { http_status, code, subcode, is_transient: false }
}

#[tokio::test]
async fn a_dead_letter_is_told_with_metas_words_and_the_id_of_its_event() {
    let (app, receiver) = start("").await;
    app.misbehave([refusal(400, 100, Some(2_804_050))]);
    app.report(&[lead(1)]).await;
    app.until(async || app.listed("dead").await == 1).await;
    told(&app, &receiver, 1).await;
    let body = &receiver.bodies()[0];
    let event_id = app.event(1, "initial_lead").await["event_id"].clone();
    assert_eq!(body["type"], "events.dead");
    let data = &body["data"];
    assert_eq!(data["event_ids"], json!([event_id]));
    assert_eq!((&data["dataset_id"], &data["count"]), (&json!("700"), &json!(1)));
    assert_eq!((&data["code"], &data["subcode"]), (&json!(100), &json!(2_804_050)));
    assert!(data["advice"].is_string() && data["meaning"].is_string());
    app.until(async || app.get("/v1/alarms").await.json()["waiting"] == 0).await;
    app.finish().await;
}

#[tokio::test]
async fn a_pause_its_end_and_a_quarantined_piece_are_told() {
    let (app, receiver) = start("").await;
    app.misbehave((0..4).map(|_| refusal(401, 190, None)));
    app.report(&[lead(1)]).await;
    app.failed(1, 1).await;
    told(&app, &receiver, 1).await;
    told(&app, &receiver, 2).await;
    assert_eq!(receiver.types(), ["dataset.paused", "dataset.resumed"]);
    let data = &receiver.bodies()[0]["data"];
    assert_eq!((&data["dataset_id"], &data["reason"]), (&json!("700"), &json!("token")));
    let unreadable = json!({"object": "page", "entry": [{"id": "300", "time": 1, "changes": [
        {"field": "leadgen", "value": {"leadgen_id": "x", "page_id": "300"}}]}]});
    assert_eq!(app.webhook(unreadable.to_string().as_bytes()).await.status, 200);
    told(&app, &receiver, 3).await;
    assert_eq!(receiver.types()[2], "quarantine.added");
    assert!(!receiver.bodies()[2].to_string().contains("leadgen_id"), "the piece stays here");
    app.finish().await;
}

#[tokio::test]
async fn a_crms_reports_that_fit_no_mapping_are_told_when_they_are_kept_and_when_not_and_at_last() {
    let (app, receiver) = start("[[sources]]\nname = \"crm\"\npreset = \"generic\"\n").await;
    let small = json!({"stage": "", "note": "small"});
    assert_eq!(app.post("/v1/hooks/crm", &small).await.status, 422);
    let large = json!({"stage": "", "note": "x".repeat(129 * 1024)});
    assert_eq!(app.post("/v1/hooks/crm", &large).await.status, 422);
    told(&app, &receiver, 2).await;
    app.advance_s(7 * DAY);
    told(&app, &receiver, 3).await;
    let mut types = receiver.types();
    types[..2].sort_unstable();
    assert_eq!(types, ["reports.kept", "reports.not_kept", "reports.expired"]);
    for body in receiver.bodies() {
        let data = &body["data"];
        assert_eq!((&data["source"], &data["count"]), (&json!("crm"), &json!(1)));
    }
    app.finish().await;
}

#[tokio::test]
async fn what_the_rules_refuse_in_a_crms_webhook_is_told_by_its_code() {
    let (app, receiver) = start("[[sources]]\nname = \"crm\"\npreset = \"generic\"\n").await;
    app.report(&[lead(1)]).await;
    let update = |event_time| {
        let lead_id = lead_id(1).to_string();
        json!({"lead_id": lead_id, "stage": "won", "event_time": event_time})
    };
    let updates = json!([update(CREATED - 5), update(CREATED + 50), update(CREATED - 6)]);
    assert_eq!(app.post("/v1/hooks/crm", &updates).await.status, 202);
    told(&app, &receiver, 1).await;
    assert_eq!(receiver.types(), ["reports.refused"], "all of a code are one message");
    let data = receiver.bodies()[0]["data"].clone();
    assert_eq!((&data["source"], &data["count"]), (&json!("crm"), &json!(2)));
    assert_eq!(data["reason"], "event_time_not_after_lead");
    let metrics = app.get("/metrics").await.text;
    for line in ["{result=\"refused_by_rules\"} 2", "{result=\"taken\"} 1"] {
        assert!(metrics.contains(&format!("leadloop_hooks_total{line}")), "{metrics}");
    }
    app.delivered(2).await;
    app.finish().await;
}

#[tokio::test]
async fn events_near_their_deadline_are_told_before_they_are_dead_letters() {
    let (receiver, url) = Receiver::start().await;
    let settings = format!("{}{DATASET_701}", alarms_to(&url));
    let clock = clock_at_start();
    let app = TestApp::start_at(&settings, Arc::new(MemoryStore::default()), clock).await;
    app.report(&[lead(1)]).await;
    app.advance_s(6 * DAY - 200);
    assert_eq!(receiver.count(), 0);
    told(&app, &receiver, 1).await;
    let body = &receiver.bodies()[0];
    assert_eq!(
        (&body["type"], &body["data"]["count"]),
        (&json!("events.deadline_near"), &json!(1))
    );
    assert_eq!(body["data"]["dataset_id"], Value::Null, "nobody has configured one");
    assert_eq!(body["data"]["first_too_old_at"], "2025-11-08T12:26:41Z");
    app.advance_s(DAY);
    told(&app, &receiver, 2).await;
    let body = &receiver.bodies()[1];
    assert_eq!(
        (&body["type"], &body["data"]["reason"]),
        (&json!("events.dead"), &json!("expired"))
    );
    app.finish().await;
}

#[tokio::test]
async fn a_webhook_that_falls_silent_is_told_and_so_is_its_return() {
    let (app, receiver) = start("webhook_silence_s = 3600\n").await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    app.advance_s(3_590);
    told(&app, &receiver, 1).await;
    app.report(&[lead(2)]).await;
    told(&app, &receiver, 2).await;
    assert_eq!(receiver.types(), ["webhook.silent", "webhook.resumed"]);
    app.delivered(2).await;
    app.finish().await;
}

#[tokio::test]
async fn a_receiver_that_hangs_delays_no_lead_and_no_event() {
    let (app, receiver) = start("").await;
    receiver.will(None, 1_000);
    app.misbehave([refusal(400, 100, Some(2_804_050))]);
    app.report(&[lead(0)]).await;
    app.until(async || app.listed("dead").await == 1).await;
    told(&app, &receiver, 1).await;
    // The receiver has a request in its hands, and will not let go of it.
    for number in 1..=50 {
        app.report(&[lead(number)]).await;
        app.stage(number, "won", 50).await;
    }
    app.delivered(100).await;
    assert_eq!(app.get("/v1/alarms").await.json()["alarms"][0]["tries"], 1);
    app.finish().await;
}

#[tokio::test]
async fn what_waits_is_listed_for_who_may_read() {
    let (app, receiver) =
        start("[[api_keys]]\nname = \"w\"\nkey = \"w\"\nscopes = [\"write\"]\n").await;
    receiver.will(Some(StatusCode::SERVICE_UNAVAILABLE), 1_000);
    let answer = app.get("/v1/alarms").await;
    assert_eq!(answer.json(), json!({"configured": true, "waiting": 0, "alarms": []}));
    app.misbehave([refusal(400, 100, Some(2_804_050))]);
    app.report(&[lead(1)]).await;
    app.until(async || app.get("/v1/alarms").await.json()["waiting"] == 1).await;
    let alarm = &app.get("/v1/alarms").await.json()["alarms"][0];
    assert_eq!((&alarm["type"], &alarm["tries"]), (&json!("events.dead"), &json!(0)));
    assert_eq!((&alarm["next_try_at"], &alarm["data"]["count"]), (&Value::Null, &json!(1)));
    told(&app, &receiver, 2).await;
    let tried = &app.get("/v1/alarms").await.json()["alarms"][0];
    assert_eq!(tried["webhook_id"], alarm["webhook_id"]);
    assert!(tried["next_try_at"].is_string() && tried["tries"].as_u64() >= Some(2));
    assert_eq!(app.ask("w", reqwest::Method::GET, "/v1/alarms").await.problem().0, 403);
    app.finish().await;
}

#[tokio::test]
async fn without_a_receiver_nothing_is_stored() {
    let app = TestApp::start().await;
    app.misbehave([refusal(400, 100, Some(2_804_050))]);
    app.report(&[lead(1)]).await;
    app.until(async || app.listed("dead").await == 1).await;
    let answer = app.get("/v1/alarms").await;
    assert_eq!(answer.json(), json!({"configured": false, "waiting": 0, "alarms": []}));
    app.finish().await;
}

// ---- The command line -------------------------------------------------------------------------

#[tokio::test]
async fn a_test_message_is_sent_from_the_command_line_and_verified_as_the_guide_says() {
    let (receiver, url) = Receiver::start().await;
    let place = Place::new();
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let both = format!("{other},{SECRET}");
    let environment = [("LEADLOOP_ALARM_URL", url.as_str()), ("LEADLOOP_ALARM_SECRET", &both)];
    let ended = place.run(&["alarms", "test"], &environment).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (headers, body) = receiver.received.lock().unwrap()[0].clone();
    let id = headers["webhook-id"].to_str().unwrap();
    assert!(ended.stdout.contains(id) && !ended.stdout.contains("/told"), "{ended:?}");
    assert_eq!(receiver.types(), ["test"]);

    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let shown = json!({"webhook-id": header("webhook-id"),
        "webhook-timestamp": header("webhook-timestamp"),
        "webhook-signature": header("webhook-signature")});
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(verified_in_python(SECRET, &shown, &body, 0));
    assert!(verified_in_python(other, &shown, &body, 0));
    assert!(!verified_in_python(SECRET, &shown, &format!("{body} "), 0), "another body");
    assert!(!verified_in_python("whsec_BBBB", &shown, &body, 0), "another secret");
    assert!(!verified_in_python(SECRET, &shown, &body, 301), "too old");
}

/// What the Python of the guide says of a message so many seconds later.
fn verified_in_python(secret: &str, headers: &Value, body: &str, later_s: u32) -> bool {
    let guide = include_str!("../../docs/guides/alarms.md");
    let example = guide.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let call = format!(
        "import json\nprint(is_ours({}, {headers}, {}.encode(), time.time() + {later_s}))",
        json!(secret),
        json!(body)
    );
    let mut python = Command::new("python3");
    let mut python = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(format!("{example}\n{call}\n").as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    match String::from_utf8(output.stdout).unwrap().trim() {
        "True" => true,
        "False" => false,
        other => panic!("neither: {other}"),
    }
}

#[tokio::test]
async fn a_test_message_that_does_not_arrive_fails_and_says_why() {
    let (receiver, url) = Receiver::start().await;
    receiver.will(Some(StatusCode::UNAUTHORIZED), 1);
    let place = Place::new();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    for (url, code, words) in [
        (url.as_str(), 1, "answered 401"),
        (&nobody, 69, "nobody answers"),
        ("http://alarms.example", 78, "LEADLOOP_ALARM_URL: must be an https address"),
        ("", 78, "LEADLOOP_ALARM_URL: is missing"),
    ] {
        let environment = [
            ("LEADLOOP_ALARM_URL", url),
            ("LEADLOOP_ALARM_SECRET", SECRET),
            ("LEADLOOP_LOG", "off"),
        ];
        let ended = within_patience(place.run(&["alarms", "test"], &environment)).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
    }
}

#[tokio::test]
async fn the_list_and_the_doctor_know_the_receiver_and_show_no_secret() {
    let (_receiver, url) = Receiver::start().await;
    let place = Place::new();
    let meta = place.sandbox(&settings(&[], [])).await;
    let with = [
        ("META_GRAPH_URL", meta.url.as_str()),
        ("LEADLOOP_API_KEY", API_KEY),
        ("LEADLOOP_ALARM_URL", &url),
        ("LEADLOOP_ALARM_SECRET", SECRET),
    ];
    let server = place.serve(&settings(&[], with)).await;
    let environment =
        settings(&[], with.into_iter().chain([("LEADLOOP_SERVER", server.url.as_str())]));
    let listed = place.run(&["alarms"], &environment).await;
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!((&listed["configured"], &listed["waiting"]), (&json!(true), &json!(0)));
    let doctor = place.run(&["doctor"], &environment).await;
    let origin = url.trim_end_matches("/told");
    assert!(doctor.stdout.contains(&format!("ok       alarms: go to {origin};")), "{doctor:?}");
    let shown = place.run(&["config"], &environment).await;
    for ended in [&doctor, &shown] {
        assert!(!ended.stdout.contains("/told") && !ended.stdout.contains(SECRET), "{ended:?}");
    }
    server.stop().await;
}
