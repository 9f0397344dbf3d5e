//! What becomes of events when Meta refuses, throttles, or does not let us in.

use leadloop::sandbox::faults::Fault;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{TestApp, lead, lead_id, stage};

const fn error(http_status: u16, code: i64, subcode: Option<i64>) -> Fault {
    Fault::Error { http_status, code, subcode, is_transient: false }
}

async fn dataset(app: &TestApp) -> Value {
    app.get("/v1/datasets").await.json()["datasets"][0].clone()
}

async fn becomes(app: &TestApp, state: &str) {
    app.until(async || dataset(app).await["state"] == state).await;
}

/// Lets leads gather while Meta is away, so that they go out in one request.
async fn gather(app: &TestApp, leads: u64) {
    app.misbehave([error(500, 2, None)]);
    app.report(&[lead(0)]).await;
    app.failed(0, 1).await;
    let rest: Vec<Value> = (1..leads).map(lead).collect();
    app.report(&rest).await;
}

#[tokio::test]
async fn one_unknown_lead_among_many_holds_up_nobody_and_dies_after_ten_minutes() {
    let app = TestApp::start().await;
    app.meta.delete_lead(lead_id(77));
    gather(&app, 128).await;
    app.advance_s(1);
    app.delivered(127).await;
    let requests = app.meta.requests();
    assert!(requests <= 2 + 2 * 7, "found in O(log n) requests: {requests}");
    assert_eq!(app.timeline(77).await, ["initial_lead pending"], "a fresh lead is doubted");
    for _ in 0..20 {
        let before = app.meta.requests();
        app.advance_s(31);
        app.until(async || app.meta.requests() > before || app.listed("dead").await == 1).await;
    }
    app.until(async || app.listed("dead").await == 1).await;
    assert_eq!(app.timeline(77).await, ["initial_lead dead refused_by_meta"]);
    let error = app.event(77, "initial_lead").await["error"].clone();
    assert_eq!((&error["code"], &error["subcode"]), (&json!(100), &json!(2_804_036)));
    app.finish().await;
}

#[tokio::test]
async fn a_doubted_event_keeps_back_the_later_ones_of_its_lead() {
    let app = TestApp::start().await;
    app.meta.delete_lead(lead_id(1));
    app.report(&[lead(1)]).await;
    app.failed(1, 1).await;
    app.stage(1, "won", 50).await;
    app.report(&[lead(2)]).await;
    app.delivered(1).await;
    assert_eq!(app.taken(), ["2 initial_lead"]);
    app.meta.restore_lead(lead_id(1));
    app.advance_s(31);
    app.delivered(3).await;
    assert_eq!(app.taken(), ["2 initial_lead", "1 initial_lead", "1 won"]);
    app.finish().await;
}

#[tokio::test]
async fn a_refused_event_can_be_queued_again_with_the_same_id() {
    let app = TestApp::start().await;
    app.misbehave([error(400, 100, Some(2_804_050))]);
    app.report(&[lead(1)]).await;
    app.until(async || app.listed("dead").await == 1).await;
    let dead = app.event(1, "initial_lead").await;
    assert_eq!(dead["reason"], "refused_by_meta");
    assert!(dead["error"]["advice"].is_string());
    let path = format!("/v1/events/{}/retry", dead["event_id"].as_str().unwrap());
    assert_eq!(app.post(&path, &json!({})).await.status, StatusCode::ACCEPTED);
    app.delivered(1).await;
    assert_eq!(app.meta.events()[0].event["event_id"], dead["event_id"]);
    app.finish().await;
}

#[tokio::test]
async fn token_trouble_pauses_the_dataset_and_it_resumes_by_itself() {
    let app = TestApp::start().await;
    app.misbehave([error(401, 190, Some(463)), error(401, 190, Some(463))]);
    app.report(&[lead(1)]).await;
    becomes(&app, "paused").await;
    let paused = dataset(&app).await;
    assert_eq!(paused["reason"], "token");
    assert!(paused["advice"].as_str().unwrap().contains("token"));
    app.report(&[lead(2)]).await;
    assert_eq!(app.get("/readyz").await.status, 200, "leads are taken in all the same");
    app.advance_s(60);
    app.failed(1, 2).await;
    assert_eq!(dataset(&app).await["since"], paused["since"], "the same pause");
    app.advance_s(60);
    app.delivered(2).await;
    becomes(&app, "active").await;
    assert_eq!(app.taken(), ["1 initial_lead", "2 initial_lead"]);
    app.finish().await;
}

#[tokio::test]
async fn a_dataset_that_is_not_the_tokens_is_told_as_such() {
    let app = TestApp::start().await;
    app.misbehave([error(400, 100, Some(33))]);
    app.report(&[lead(1)]).await;
    becomes(&app, "paused").await;
    assert_eq!(dataset(&app).await["reason"], "dataset");
    app.advance_s(60);
    app.delivered(1).await;
    app.finish().await;
}

#[tokio::test]
async fn if_meta_refuses_everything_the_dataset_is_suspected_and_not_the_events() {
    let app = TestApp::start().await;
    app.misbehave(vec![error(400, 100, None); 200]);
    let leads: Vec<Value> = (0..40).map(lead).collect();
    app.report(&leads).await;
    becomes(&app, "paused").await;
    assert_eq!(dataset(&app).await["reason"], "refusals");
    assert_eq!(app.listed("dead").await, 5, "no more than it takes to notice");
    app.meta.behave();
    // Single events that were refused meanwhile are left alone for a quarter of an hour.
    app.advance_s(901);
    app.delivered(35).await;
    becomes(&app, "active").await;
    assert_eq!(app.listed("dead").await, 5);
    app.finish().await;
}

#[tokio::test]
async fn a_throttled_dataset_waits_as_long_as_meta_says() {
    let app = TestApp::start().await;
    app.misbehave([Fault::Throttle { minutes: 3 }]);
    app.report(&[lead(1)]).await;
    app.failed(1, 1).await;
    becomes(&app, "waiting").await;
    app.advance_s(179);
    assert_eq!(app.stage_update(&stage(1, "won", 50)).await.status, 202);
    assert_eq!(app.meta.requests(), 1, "nothing is sent before its time");
    app.advance_s(1);
    app.delivered(2).await;
    app.finish().await;
}
