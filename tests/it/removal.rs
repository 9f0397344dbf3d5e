//! Erasing a lead, and removing what is old.

use std::sync::Arc;

use leadloop::sandbox::faults::Fault;
use leadloop::store::memory::MemoryStore;
use reqwest::Method;
use serde_json::json;

use crate::support::{ADMIN_KEY, CREATED, DAY, TestApp, lead, lead_id, stage};

pub const WRITER: &str = r#"
[[api_keys]]
name = "crm"
key = "writer-key"
scopes = ["read", "write"]
"#;

/// Erases a lead; the status and the answer.
async fn erase(app: &TestApp, number: u64) -> (u16, serde_json::Value) {
    let path = format!("/v1/leads/{}", lead_id(number));
    let answer = app.ask(ADMIN_KEY, Method::DELETE, &path).await;
    (answer.status.as_u16(), answer.json())
}

#[tokio::test]
async fn an_erased_lead_is_gone_and_a_replay_does_not_bring_it_back() {
    let app = TestApp::start().await;
    app.report(&[lead(1), lead(2)]).await;
    let won = app.stage(1, "won", 60).await;
    app.delivered(3).await;
    let (status, answer) = erase(&app, 1).await;
    let id = lead_id(1).to_string();
    let expected = json!({
        "lead_id": id, "erased_at": "2025-11-01T12:28:20Z", "events": 2, "cancelled": 0
    });
    assert_eq!((status, answer), (200, expected));
    app.report(&[lead(1), lead(2)]).await;
    for path in [format!("/v1/leads/{id}"), format!("/v1/events/{}", won["event_id"])] {
        assert_eq!(app.get(&path.replace('"', "")).await.status.as_u16(), 404, "{path}");
    }
    assert_eq!(app.whole_list("/v1/leads?limit=200", "leads").await.len(), 1);
    app.finish().await;
}

#[tokio::test]
async fn what_was_queued_for_an_erased_lead_is_not_sent() {
    let app = TestApp::start().await;
    app.misbehave([Fault::Cut]);
    app.report(&[lead(1), lead(2)]).await;
    app.failed(2, 1).await;
    assert_eq!(erase(&app, 1).await.1["cancelled"], 1);
    app.advance_s(60);
    app.delivered(1).await;
    assert_eq!(app.taken(), ["2 initial_lead"]);
    app.finish().await;
}

#[tokio::test]
async fn a_stage_of_an_erased_lead_finds_no_lead() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    erase(&app, 1).await;
    let answer = app.stage_update(&stage(1, "won", 60)).await;
    assert_eq!(answer.problem(), (404, "lead_not_found".into()));
    assert_eq!(answer.json()["detail"], "this lead was erased");
    app.finish().await;
}

#[tokio::test]
async fn erasing_is_for_admins_and_for_leads_that_are_known() {
    let app = TestApp::start_with(WRITER, Arc::new(MemoryStore::default())).await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    let path = format!("/v1/leads/{}", lead_id(1));
    let answer = app.ask("writer-key", Method::DELETE, &path).await;
    assert_eq!(answer.problem(), (403, "forbidden".into()));
    assert_eq!(erase(&app, 2).await.0, 404);
    let answer = app.ask(ADMIN_KEY, Method::DELETE, "/v1/leads/12ab").await;
    assert_eq!(answer.problem(), (400, "invalid_lead_id".into()));
    assert_eq!(erase(&app, 1).await.0, 200);
    let (status, again) = erase(&app, 1).await;
    assert_eq!((status, &again["events"]), (200, &json!(0)));
    app.finish().await;
}

#[tokio::test]
async fn a_lead_is_kept_as_long_as_is_configured_after_what_was_heard_of_it_last() {
    let app = TestApp::start_with("retention_days = 14", Arc::new(MemoryStore::default())).await;
    app.report(&[lead(1), lead(2)]).await;
    app.stage(2, "qualified", 60).await;
    app.delivered(3).await;
    app.advance_s(7 * DAY);
    app.stage(2, "won", 7 * DAY).await;
    app.delivered(4).await;
    let kept = async || app.whole_list("/v1/leads?limit=200", "leads").await.len();
    app.advance_s(7 * DAY + 3_600);
    app.until(async || kept().await == 1).await;
    assert_eq!(app.timeline(2).await.len(), 3, "a timeline is kept whole");
    app.advance_s(7 * DAY);
    app.until(async || kept().await == 0).await;
    app.finish().await;
}

#[tokio::test]
async fn somebody_without_a_lead_is_erased_by_any_of_their_events() {
    let settings = "[[sources]]\nname = \"crm\"\nunmatched = \"send\"\n";
    let app = TestApp::start_with(settings, Arc::new(MemoryStore::default())).await;
    let jane = json!({"em": "jane@example.com"});
    let of = |stage: &str| json!({"customer": jane, "stage": stage, "event_time": CREATED + 60});
    let sent = app.stage_update(&of("qualified")).await.json();
    app.stage_update(&of("won")).await;
    app.delivered(2).await;
    let path = format!("/v1/leads/{}", sent["event_id"].as_str().unwrap());
    let answer = app.ask(ADMIN_KEY, Method::DELETE, &path).await.json();
    let expected = json!({
        "lead_id": null, "erased_at": "2025-11-01T12:28:20Z", "events": 2, "cancelled": 0
    });
    assert_eq!(answer, expected);
    assert_eq!(app.get("/v1/events").await.json()["events"], json!([]));
    assert_eq!(app.ask(ADMIN_KEY, Method::DELETE, &path).await.status, 404, "nothing names them");
    app.finish().await;
}
