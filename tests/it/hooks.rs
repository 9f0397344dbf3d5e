//! The webhooks of CRMs: who may send them, what they are understood as, and what is told of those
//! that are not.

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use leadloop::domain::time::UnixSeconds;
use leadloop::store::Store;
use leadloop::store::memory::MemoryStore;
use leadloop::store::query::PageRequest;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{
    ADMIN_KEY, Answer, CREATED, DATASET_700, DAY, EMAIL, START, TestApp, clock_at_start, lead,
    lead_id,
};

const SOURCES: &str = r#"
[[sources]]
name = "plain"
preset = "generic"

[[sources]]
name = "quiet"

[[sources]]
name = "hubspot"
preset = "hubspot"
[sources.mapping]
crm_id = []
lead_id = "$.meta"
stages = { salesqualifiedlead = "qualified" }
[sources.auth]
kind = "hmac"
header = "X-HubSpot-Signature-v3"
secret = "hubspot-client-secret"
encoding = "base64"
signed = "{method}{uri}{body}{timestamp}"
timestamp_header = "X-HubSpot-Request-Timestamp"
url = "https://leadloop.example/v1/hooks/hubspot"

[[sources]]
name = "soap"
preset = "generic"
[sources.mapping]
each = "$..sObject"
lead_id = "$.Lead_Id__c"
stage = "$.Status"
event_time = []
[sources.auth]
kind = "path"
secret = "a-secret-of-the-path"

[[sources]]
name = "pipe"
preset = "generic"
[sources.auth]
kind = "header"
header = "Authorization"
secret = "Basic cGlwZTpzZWNyZXQtMTIzNA=="

[[api_keys]]
name = "crm"
key = "test-write-key"
scopes = ["write"]
[[api_keys]]
name = "support"
key = "test-read-key"
scopes = ["read"]
"#;

async fn start() -> TestApp {
    let app = TestApp::start_with(SOURCES, Arc::new(MemoryStore::default())).await;
    app.report(&[lead(1), lead(2)]).await;
    app
}

fn update(number: u64, stage: &str) -> Value {
    json!({"lead_id": lead_id(number).to_string(), "stage": stage, "event_time": CREATED + 50})
}

fn hook(app: &TestApp, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    app.request(Method::POST, &format!("/v1/hooks/{path}")).body(body)
}

async fn plain(app: &TestApp, body: &Value) -> Answer {
    app.send(hook(app, "plain", body.to_string()).bearer_auth("test-write-key")).await
}

/// A webhook as the CRM signs it at a time.
fn signed(app: &TestApp, body: &str, time: &str) -> RequestBuilder {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"hubspot-client-secret").unwrap();
    mac.update(b"POSThttps://leadloop.example/v1/hooks/hubspot");
    mac.update(body.as_bytes());
    mac.update(time.as_bytes());
    let digest = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        mac.finalize().into_bytes(),
    );
    hook(app, "hubspot", body.to_owned())
        .header("x-hubspot-signature-v3", digest)
        .header("x-hubspot-request-timestamp", time)
}

#[tokio::test]
async fn a_webhook_becomes_stage_updates_that_are_delivered() {
    let app = start().await;
    let mut contact = update(1, "qualified");
    contact["email"] = EMAIL.into();
    let answer = plain(&app, &contact).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let result = answer.json()["results"][0].clone();
    assert_eq!((&result["status"], &result["stage"]), (&json!(202), &json!("qualified")));
    let again = plain(&app, &contact).await;
    assert_eq!((again.status.as_u16(), &again.json()["results"][0]["status"]), (202, &json!(200)));
    app.delivered(3).await;
    assert_eq!(app.timeline(1).await, ["initial_lead delivered", "qualified delivered"]);
    assert_eq!(app.event(1, "qualified").await["source"], "plain");
    app.finish().await;
}

#[tokio::test]
async fn only_who_shows_what_the_source_wants_is_let_in() {
    let app = start().await;
    let body = || update(1, "won").to_string();
    let now = START.to_string();
    let signed_body = "[]";
    let soap = "<a><sObject><x/></sObject></a>";
    let right = [
        hook(&app, "plain", body()).bearer_auth("test-write-key"),
        hook(&app, "plain", body()).bearer_auth(ADMIN_KEY),
        hook(&app, "pipe", body()).header("authorization", "Basic cGlwZTpzZWNyZXQtMTIzNA=="),
        signed(&app, signed_body, &now),
    ];
    for request in right {
        let answer = app.send(request).await;
        assert!(answer.status.is_success(), "{}", answer.text);
    }
    let unsigned = hook(&app, "hubspot", signed_body);
    let old = (START - 301).to_string();
    let wrong = [
        (hook(&app, "plain", body()), 401, "unauthorized"),
        (hook(&app, "plain", body()).bearer_auth("test-write-ke"), 401, "unauthorized"),
        (hook(&app, "plain", body()).bearer_auth("test-read-key"), 403, "forbidden"),
        (hook(&app, "plain/a-secret-of-the-path", body()), 401, "unauthorized"),
        (hook(&app, "soap", soap), 401, "unauthorized"),
        (hook(&app, "soap", soap).bearer_auth(ADMIN_KEY), 401, "unauthorized"),
        (hook(&app, "soap/a-secret-of-the-pat", soap), 401, "unauthorized"),
        (hook(&app, "soap/a-secret-of-the-path2", soap), 401, "unauthorized"),
        (hook(&app, "pipe", body()), 401, "unauthorized"),
        (hook(&app, "pipe", body()).bearer_auth(ADMIN_KEY), 401, "unauthorized"),
        (unsigned.header("authorization", format!("Bearer {ADMIN_KEY}")), 401, "invalid_signature"),
        (signed(&app, signed_body, &old), 401, "invalid_signature"),
        (signed(&app, signed_body, &now).body("[1]"), 401, "invalid_signature"),
        (hook(&app, "nobody", body()), 401, "unauthorized"),
        (hook(&app, "quiet", body()), 401, "unauthorized"),
        (hook(&app, "quiet", body()).bearer_auth(ADMIN_KEY), 404, "not_found"),
        (hook(&app, "nobody/secret", body()).bearer_auth("test-write-key"), 404, "not_found"),
    ];
    for (request, status, code) in wrong {
        let shown = format!("{request:?}");
        assert_eq!(app.send(request).await.problem(), (status, code.to_owned()), "{shown}");
    }
    app.delivered(3).await;
    app.finish().await;
}

#[tokio::test]
async fn what_is_no_change_of_a_stage_is_answered_200_with_the_condition() {
    let app = start().await;
    let change = include_str!("../../src/mapping/presets/samples/hubspot-change.json");
    let mut records: Value = serde_json::from_str(change).unwrap();
    let records = records.as_array_mut().unwrap();
    let time = START.to_string();
    let other = format!("[{}]", records[1]);
    let answer = app.send(signed(&app, &other, &time)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let result = json!({"status": 200, "not_a_stage_change": "$.propertyName"});
    assert_eq!(answer.json(), json!({"results": [result]}));

    records[0]["meta"] = lead_id(2).to_string().into();
    records[0]["occurredAt"] = (CREATED * 1_000 + 60_500).into();
    let both = format!("[{},{}]", records[0], records[1]);
    let answer = app.send(signed(&app, &both, &time)).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let results = answer.json()["results"].clone();
    assert_eq!((&results[0]["event_time"], &results[1]), (&json!(CREATED + 60), &result));
    app.delivered(3).await;
    app.finish().await;
}

#[tokio::test]
async fn what_cannot_be_mapped_is_named_and_holds_up_nothing_beside_it() {
    let app = start().await;
    let mut short = update(1, "won");
    short["lead_id"] = "4711".into();
    let mut rounded = update(1, "won");
    rounded["lead_id"] = json!(1.234_567_890_123_456_7e16);
    let mut late = update(1, "won");
    late["event_time"] = "yesterday".into();
    let mut nobody = update(1, "won");
    nobody["lead_id"] = Value::Null;
    for (body, field, path) in [
        (&short, "lead_id", json!("$.lead_id")),
        (&rounded, "lead_id", json!("$.lead_id")),
        (&late, "event_time", json!("$.event_time")),
        (&nobody, "lead_id", json!("$.lead_id")),
        (&json!({"lead_id": "1"}), "stage", json!("$.stage")),
    ] {
        let answer = plain(&app, body).await;
        assert_eq!(answer.problem(), (422, "unmappable".into()), "{}", answer.text);
        assert_eq!((&answer.json()["field"], &answer.json()["path"]), (&json!(field), &path));
    }
    for broken in ["", "{", "\"x\"", "<a>", "lead_id=1"] {
        let answer = app.send(hook(&app, "plain", broken).bearer_auth(ADMIN_KEY)).await;
        assert_eq!(answer.problem(), (422, "unmappable".into()), "{broken}");
    }
    let answer = plain(&app, &json!([short, update(1, "won"), rounded])).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let results = answer.json()["results"].clone();
    let statuses: Vec<_> = (0..3).map(|n| results[n]["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [422, 202, 422]);
    let answer = plain(&app, &json!([short, rounded])).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["records"]), (422, &json!(2)));
    app.delivered(3).await;
    app.finish().await;
}

#[tokio::test]
async fn what_the_rules_refuse_is_a_verdict_and_not_unmappable() {
    let app = start().await;
    let mut early = update(1, "won");
    early["event_time"] = (CREATED - 5).into();
    let answer = plain(&app, &early).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let result = answer.json()["results"][0].clone();
    let code = json!("event_time_not_after_lead");
    assert_eq!((&result["status"], &result["code"]), (&json!(422), &code));
    app.delivered(2).await;
    app.finish().await;
}

#[tokio::test]
async fn an_outbound_message_is_acknowledged_once_it_is_stored() {
    let app = start().await;
    let object = |number: u64, stage: &str| {
        format!(
            "<Notification><Id>04l</Id><sObject xsi:type=\"sf:Lead\"><sf:Id>00Q</sf:Id>\
             <sf:Lead_Id__c>l:{}</sf:Lead_Id__c><sf:Status>{stage}</sf:Status></sObject>\
             </Notification>",
            lead_id(number)
        )
    };
    let message = |objects: &str| {
        format!(
            "<?xml version=\"1.0\"?><soapenv:Envelope xmlns:soapenv=\"x\"><soapenv:Body>\
             <notifications>{objects}</notifications></soapenv:Body></soapenv:Envelope>"
        )
    };
    let path = "soap/a-secret-of-the-path";
    let both = message(&(object(1, "won") + &object(2, "won")));
    let answer = app.send(hook(&app, path, both).header("content-type", "text/xml")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.text.contains("<Ack>true</Ack>"), "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "text/xml; charset=utf-8");
    app.delivered(4).await;
    let unread = app.send(hook(&app, path, message(&object(1, "")))).await;
    assert_eq!(unread.problem(), (422, "unmappable".into()));
    app.finish().await;
}

#[tokio::test]
async fn a_form_is_read_like_an_object() {
    let app = start().await;
    let body = format!("lead_id={}&stage=in+talks&event_time={}", lead_id(1), CREATED + 50);
    let form = hook(&app, "plain", body).bearer_auth(ADMIN_KEY);
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    let answer = app.send(form).await;
    assert_eq!(answer.json()["results"][0]["stage"], "in talks", "{}", answer.text);
    app.delivered(3).await;
    app.finish().await;
}

// ---- What no mapping fits -----------------------------------------------------------------------

/// A source with one stage in its table.
fn with_stage(name: &str) -> String {
    format!(
        "{DATASET_700}\n[[sources]]\nname = \"plain\"\npreset = \"generic\"\n\
         [sources.mapping]\nother_stages = \"refuse\"\nstages = {{ \"{name}\" = \"won\" }}\n"
    )
}

async fn kept(app: &TestApp) -> Vec<Value> {
    app.whole_list("/v1/hooks/unmapped?limit=1", "unmapped").await
}

async fn plain_admin(app: &TestApp, body: &Value) -> Answer {
    app.send(hook(app, "plain", body.to_string()).bearer_auth(ADMIN_KEY)).await
}

#[tokio::test]
async fn what_cannot_be_mapped_is_kept_and_replayed_once_the_mapping_is_mended() {
    let (store, clock) = (Arc::new(MemoryStore::default()), clock_at_start());
    let app = TestApp::start_at(&with_stage("Wan"), store.clone(), clock.clone()).await;
    app.report(&[lead(1), lead(2)]).await;
    let timeless = json!({
        "lead_id": lead_id(1).to_string(), "stage": "Won", "email": EMAIL, "phone": "+4915112345678"
    });
    let dated = update(2, "Won");
    let other = update(2, "Lost");
    let all = json!([timeless, dated, other, update(1, "Wan")]);
    for _ in 0..2 {
        assert_eq!(plain_admin(&app, &all).await.status, 202, "a repetition is kept once");
    }
    let broken = app.send(hook(&app, "plain", "{").bearer_auth(ADMIN_KEY)).await;
    assert_eq!(broken.problem(), (422, "unmappable".into()));
    let list = kept(&app).await;
    let fields: Vec<_> = list.iter().map(|row| row["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["body", "stage", "stage", "stage"]);
    assert_eq!(list[1]["source"], "plain");
    assert!(list[1]["reason"].as_str().unwrap().contains("$.stage"), "{list:?}");
    let pages = store.list_unmapped(None, PageRequest { cursor: None, limit: 9 }).await.unwrap();
    for row in pages.items {
        let text = String::from_utf8_lossy(&row.unmapped.sealed).to_lowercase();
        assert!(!text.contains("mustermann") && !text.contains("15112345678"), "in the clear");
    }
    app.delivered(3).await;
    app.finish().await;

    clock.advance_ms(3_600_000);
    let app = TestApp::start_at(&with_stage("Won"), store, clock).await;
    for number in [1, 2] {
        app.meta.know_lead(lead_id(number), UnixSeconds::new(CREATED));
    }
    let answer = app.post("/v1/hooks/plain/replay", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = answer.json();
    let count = |name: &str| answer[name].as_u64().unwrap();
    let counts = ["taken", "ignored", "refused", "unmappable", "unreadable"].map(count);
    assert_eq!(counts, [2, 0, 0, 2, 0], "{answer}");
    assert_eq!(answer["problems"][1]["id"], kept(&app).await[0]["id"]);
    app.until(async || app.listed("delivered").await == 5).await;
    let events = app.lead(1).await["events"].as_array().unwrap().clone();
    let times: Vec<_> = events.iter().map(|event| event["event_time"].as_i64().unwrap()).collect();
    assert_eq!(times, [CREATED + 1, CREATED + 50, START], "without a time: when it came");
    assert_eq!(kept(&app).await.len(), 2);
    let again = app.post("/v1/hooks/plain/replay", &json!({})).await.json();
    assert_eq!((&again["taken"], &again["unmappable"]), (&json!(0), &json!(2)));
    assert_eq!(app.post("/v1/hooks/nobody/replay", &json!({})).await.status, 404);
    app.finish().await;
}

#[tokio::test]
async fn a_replay_takes_what_came_first_before_what_came_later() {
    let (store, clock) = (Arc::new(MemoryStore::default()), clock_at_start());
    let app = TestApp::start_at(&with_stage("Wan"), store.clone(), clock.clone()).await;
    app.report(&[lead(1)]).await;
    // More than the store hands out at a time.
    for number in 0..60 {
        let mut early = update(1, "Won");
        early["event_time"] = (CREATED - 100 + number).into();
        assert_eq!(plain_admin(&app, &early).await.status, 422);
    }
    app.delivered(1).await;
    app.finish().await;

    let app = TestApp::start_at(&with_stage("Won"), store, clock).await;
    let came = kept(&app).await.into_iter().rev().map(|row| row["id"].clone());
    let came: Vec<_> = came.collect();
    let answer = app.post("/v1/hooks/plain/replay", &json!({})).await.json();
    let problems = answer["problems"].as_array().unwrap().iter();
    let replayed: Vec<_> = problems.map(|problem| problem["id"].clone()).collect();
    assert_eq!((replayed.len(), replayed), (60, came));
    app.finish().await;
}

#[tokio::test]
async fn what_the_rules_refuse_at_a_replay_is_told_and_not_kept_any_more() {
    let (store, clock) = (Arc::new(MemoryStore::default()), clock_at_start());
    let app = TestApp::start_at(&with_stage("Wan"), store.clone(), clock.clone()).await;
    app.report(&[lead(1)]).await;
    let mut early = update(1, "Won");
    early["event_time"] = (CREATED - 10).into();
    assert_eq!(plain_admin(&app, &early).await.problem(), (422, "unmappable".into()));
    app.delivered(1).await;
    app.finish().await;

    let app = TestApp::start_at(&with_stage("Won"), store, clock).await;
    let answer = app.post("/v1/hooks/plain/replay", &json!({})).await.json();
    assert_eq!((&answer["taken"], &answer["refused"]), (&json!(0), &json!(1)), "{answer}");
    assert_eq!(answer["problems"][0]["code"], "event_time_not_after_lead");
    assert_eq!(kept(&app).await.len(), 0);
    app.finish().await;
}

#[tokio::test]
async fn after_seven_days_it_is_not_kept_any_more() {
    let app = start().await;
    assert_eq!(plain_admin(&app, &json!({"note": "no stage"})).await.status, 422);
    assert_eq!(kept(&app).await.len(), 1);
    app.delivered(2).await;
    app.advance_s(7 * DAY + 61);
    app.until(async || kept(&app).await.is_empty()).await;
    app.finish().await;
}

#[tokio::test]
async fn what_is_too_large_to_be_kept_is_answered_and_counted() {
    let app = start().await;
    let large = json!({"stage": "", "note": "x".repeat(200 * 1024)});
    assert_eq!(plain_admin(&app, &large).await.problem(), (422, "unmappable".into()));
    assert_eq!(kept(&app).await.len(), 0);
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("leadloop_hooks_total{result=\"not_kept\"} 1"), "{metrics}");
    assert!(metrics.contains("leadloop_hooks_total{result=\"unmappable\"} 1"), "{metrics}");
    app.delivered(2).await;
    app.finish().await;
}

/// The source `plain` with records at a path.
fn with_each(each: &str) -> String {
    let each = format!("each = \"{each}\"\nother_stages");
    with_stage("Won").replace("other_stages", &each)
}

#[tokio::test]
async fn a_payload_that_was_taken_apart_wrongly_is_kept_whole_and_rescued_by_a_mended_path() {
    let (store, clock) = (Arc::new(MemoryStore::default()), clock_at_start());
    let wrong = with_each("$.changes[*].stage");
    let app = TestApp::start_at(&wrong, store.clone(), clock.clone()).await;
    app.report(&[lead(1), lead(2)]).await;
    let both = json!({"changes": [update(1, "Won"), update(2, "Won")]});
    let answer = plain_admin(&app, &both).await;
    assert_eq!(answer.problem(), (422, "unmappable".into()));
    assert_eq!(answer.json()["records"], 2);
    assert_eq!(kept(&app).await.len(), 1, "the payload, and not its pieces");
    app.delivered(2).await;
    app.finish().await;

    let app = TestApp::start_at(&with_each("$.changes[*]"), store, clock).await;
    for number in [1, 2] {
        app.meta.know_lead(lead_id(number), UnixSeconds::new(CREATED));
    }
    let answer = app.post("/v1/hooks/plain/replay", &json!({})).await.json();
    assert_eq!((&answer["taken"], &answer["unmappable"]), (&json!(2), &json!(0)), "{answer}");
    assert_eq!(kept(&app).await.len(), 0);
    app.until(async || app.listed("delivered").await == 4).await;
    app.finish().await;
}

#[tokio::test]
async fn of_a_payload_with_a_stage_change_only_the_records_that_fail_are_kept() {
    let app = start().await;
    let mut short = update(1, "won");
    short["lead_id"] = "4711".into();
    let answer = plain_admin(&app, &json!([short, update(1, "won"), {"note": "no stage"}])).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(kept(&app).await.len(), 2);
    app.delivered(3).await;
    app.finish().await;
}

#[tokio::test]
async fn a_report_without_a_time_that_comes_again_and_is_replayed_is_one_event() {
    let (store, clock) = (Arc::new(MemoryStore::default()), clock_at_start());
    let app = TestApp::start_at(&with_stage("Wan"), store.clone(), clock.clone()).await;
    app.report(&[lead(1), lead(2)]).await;
    let timeless = |number| json!({"lead_id": lead_id(number).to_string(), "stage": "Won"});
    for number in [1, 2] {
        assert_eq!(plain_admin(&app, &timeless(number)).await.status, 422);
        app.advance_s(60);
    }
    app.delivered(2).await;
    app.finish().await;

    clock.advance_ms(3_600_000);
    let app = TestApp::start_at(&with_stage("Won"), store, clock).await;
    for number in [1, 2] {
        app.meta.know_lead(lead_id(number), UnixSeconds::new(CREATED));
    }
    let first = plain_admin(&app, &timeless(1)).await.json();
    assert_eq!(first["results"][0]["status"], 202, "the CRM comes before the replay");
    let replay = app.post("/v1/hooks/plain/replay", &json!({})).await.json();
    assert_eq!((&replay["taken"], &replay["refused"]), (&json!(2), &json!(0)), "{replay}");
    let again = plain_admin(&app, &timeless(2)).await.json();
    assert_eq!(again["results"][0]["status"], 200, "the CRM comes after the replay");
    assert_eq!(again["results"][0]["event_time"], START + 60, "it is of when it came first");
    app.until(async || app.listed("delivered").await == 4).await;
    for number in [1, 2] {
        assert_eq!(app.timeline(number).await.len(), 2, "the raw lead, and one stage");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_report_without_a_time_is_another_one_a_week_later_and_by_another_mapping() {
    let (store, clock) = (Arc::new(MemoryStore::default()), clock_at_start());
    let app = TestApp::start_at(&with_stage("Won"), store.clone(), clock.clone()).await;
    app.report(&[lead(1)]).await;
    let timeless = json!({"lead_id": lead_id(1).to_string(), "stage": "Won"});
    let status = async |app: &TestApp| {
        plain_admin(app, &timeless).await.json()["results"][0]["status"].clone()
    };
    assert_eq!(status(&app).await, 202);
    assert_eq!(status(&app).await, 200, "it comes again");
    app.delivered(2).await;
    app.advance_s(7 * DAY);
    assert_eq!(status(&app).await, 202, "it is reached once more");
    app.delivered(3).await;
    app.finish().await;

    let mended = with_stage("Won").replace("\"won\"", "\"qualified\"");
    let app = TestApp::start_at(&mended, store, clock).await;
    app.meta.know_lead(lead_id(1), UnixSeconds::new(CREATED));
    assert_eq!(status(&app).await, 202, "it is understood in another way");
    app.until(async || app.listed("delivered").await == 4).await;
    app.finish().await;
}

#[tokio::test]
async fn what_is_kept_can_be_dropped_by_hand() {
    let app = start().await;
    for note in ["one", "two"] {
        assert_eq!(plain_admin(&app, &json!({"note": note})).await.status, 422);
    }
    let id = kept(&app).await[0]["id"].as_str().unwrap().to_owned();
    let drop = async |id: &str| {
        let request = app.request(Method::DELETE, &format!("/v1/hooks/unmapped/{id}"));
        app.send(request.bearer_auth(ADMIN_KEY)).await
    };
    let dry = drop(&format!("{id}?dry_run=1")).await;
    assert_eq!(dry.problem(), (400, "invalid_request".into()), "nothing is passed over");
    let answer = drop(&id).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"id": id})));
    let left = kept(&app).await;
    assert_eq!(left.len(), 1);
    assert_ne!(left[0]["id"], id);
    for id in [&*id, "x", "-1", "99999999999999999999999"] {
        assert_eq!(drop(id).await.problem(), (404, "not_found".into()), "{id}");
    }
    app.delivered(2).await;
    app.finish().await;
}

#[tokio::test]
async fn a_value_that_cannot_be_read_holds_up_no_stage_and_is_told() {
    let app = start().await;
    let mut local = update(1, "won");
    (local["value"], local["currency"]) = (json!("1.234,56"), json!("EUR"));
    let mut dollars = update(2, "won");
    (dollars["value"], dollars["currency"]) = (json!(5), json!("dollars"));
    (dollars["email"], dollars["phone"]) = (json!(EMAIL), json!("no number"));
    let answer = plain(&app, &json!([local, {"note": "no stage"}, dollars])).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let results = answer.json()["results"].clone();
    let left_out = |field: &str| json!({"field": field, "reason": "impossible_value"});
    assert_eq!(results[0]["left_out"], json!([left_out("custom_data.value")]));
    let both = json!([left_out("customer.ph"), left_out("custom_data.currency")]);
    assert_eq!(results[2]["left_out"], both, "{}", answer.text);
    app.delivered(4).await;
    let sent = app.meta.events();
    let won: Vec<_> = sent.iter().filter(|sent| sent.event["event_name"] == "won").collect();
    assert_eq!(won.len(), 2);
    assert!(won.iter().all(|sent| sent.event["custom_data"].get("value").is_none()));
    app.finish().await;
}
