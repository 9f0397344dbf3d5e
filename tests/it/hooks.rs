//! The webhooks of CRMs: who may send them, what they are understood as, and what is told of those
//! that are not.

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use leadloop::store::memory::MemoryStore;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{ADMIN_KEY, Answer, CREATED, EMAIL, START, TestApp, lead, lead_id};

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
    let mut costly = update(1, "won");
    costly["value"] = json!(5);
    costly["currency"] = "dollars".into();
    for (body, field, path) in [
        (&short, "lead_id", json!("$.lead_id")),
        (&rounded, "lead_id", json!("$.lead_id")),
        (&late, "event_time", json!("$.event_time")),
        (&nobody, "lead_id", json!("$.lead_id")),
        (&costly, "custom_data", Value::Null),
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
