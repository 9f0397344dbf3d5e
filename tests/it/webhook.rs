//! Meta's webhook: handshake, signature, every shape of payload, and what is kept.

use std::sync::Arc;

use leadloop::meta::signature::sign;
use leadloop::store::memory::MemoryStore;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::store::FailingStore;
use crate::support::{
    Answer, CREATED, DATASET_701, DAY, START, TestApp, clock_at_start, delivery_of, lead,
    lead_created_at, lead_id, lead_of,
};

const UNROUTED: &str = r#"
[[datasets]]
id = "700"
access_token = "test-token-700"
"#;

// ---- Handshake --------------------------------------------------------------------------------

async fn handshake(app: &TestApp, query: &[(&str, &str)]) -> Answer {
    app.send(app.request(Method::GET, "/webhooks/meta").query(query)).await
}

#[tokio::test]
async fn the_handshake_echoes_the_challenge_as_text_whatever_it_is() {
    let app = TestApp::start().await;
    for challenge in ["1158201444", "not-a-number", "<b>&\"", "01", "é"] {
        let query = [
            ("hub.mode", "subscribe"),
            ("hub.verify_token", "test-verify-token"),
            ("hub.challenge", challenge),
        ];
        let answer = handshake(&app, &query).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, challenge));
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_handshake_with_a_wrong_token_or_mode_is_forbidden() {
    let app = TestApp::start().await;
    for (mode, token) in [
        ("subscribe", "test-verify-toke"),
        ("subscribe", "test-verify-token "),
        ("subscribe", "TEST-VERIFY-TOKEN"),
        ("subscribe", ""),
        ("unsubscribe", "test-verify-token"),
        ("", "test-verify-token"),
    ] {
        let query = [("hub.mode", mode), ("hub.verify_token", token), ("hub.challenge", "1")];
        let answer = handshake(&app, &query).await;
        assert_eq!(answer.problem(), (403, "forbidden".into()), "{mode} {token}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_handshake_with_a_missing_parameter_is_a_bad_request() {
    let app = TestApp::start().await;
    let whole = [
        ("hub.mode", "subscribe"),
        ("hub.verify_token", "test-verify-token"),
        ("hub.challenge", "1"),
    ];
    for missing in 0..whole.len() {
        let mut query = whole.to_vec();
        query.remove(missing);
        assert_eq!(handshake(&app, &query).await.problem(), (400, "invalid_request".into()));
    }
    let long = "1".repeat(513);
    let query = [whole[0], whole[1], ("hub.challenge", &long)];
    assert_eq!(handshake(&app, &query).await.problem(), (400, "invalid_request".into()));
    app.finish().await;
}

// ---- Signature --------------------------------------------------------------------------------

#[tokio::test]
async fn a_delivery_without_a_right_signature_is_refused_and_nothing_is_stored() {
    let app = TestApp::start().await;
    let body = delivery_of(&[lead(1)]).to_string();
    let good = sign(&"test-app-secret".into(), body.as_bytes());
    let digest = good.trim_start_matches("sha256=");
    for bad in [
        String::new(),
        "nonsense".into(),
        digest.into(),
        format!("sha1={digest}"),
        format!("SHA256={digest}"),
        format!("sha256={}", &digest[1..]),
        format!("sha256={digest}00"),
        format!("sha256={}", "z".repeat(64)),
        format!("{good}, {good}"),
        sign(&"test-app-secret".into(), format!("{body} ").as_bytes()),
        sign(&"another-secret".into(), body.as_bytes()),
        sign(&"test-app-secret, old-app-secret".into(), body.as_bytes()),
    ] {
        let request = app.request(Method::POST, "/webhooks/meta").body(body.clone());
        let answer = app.send(request.header("x-hub-signature-256", &bad)).await;
        assert_eq!(answer.problem(), (401, "invalid_signature".into()), "{bad}");
    }
    let metrics = app.get("/metrics").await.text;
    for line in ["{result=\"no_signature\"} 9", "{result=\"bad_signature\"} 3"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert_eq!(app.stored().await, [0; 4]);
    app.finish().await;
}

#[tokio::test]
async fn a_missing_a_doubled_and_an_old_sha1_signature_are_refused() {
    let app = TestApp::start().await;
    let body = delivery_of(&[lead(1)]).to_string();
    let post = || app.request(Method::POST, "/webhooks/meta").body(body.clone());
    let good = sign(&"test-app-secret".into(), body.as_bytes());
    let sha1 = "sha1=2b1c9ae7e4a0ee25ec4e1bd6b5e8ad6b4c6a9f11";
    for request in [
        post(),
        post().header("x-hub-signature", sha1),
        app.signed(body.as_bytes()).header("x-hub-signature-256", good),
    ] {
        assert_eq!(app.send(request).await.problem(), (401, "invalid_signature".into()));
    }
    assert_eq!(app.stored().await, [0; 4]);
    app.finish().await;
}

#[tokio::test]
async fn what_is_signed_with_the_old_secret_is_taken_while_secrets_are_rotated() {
    let app = TestApp::start().await;
    let body = delivery_of(&[lead(1)]).to_string();
    let signature = sign(&"old-app-secret".into(), body.as_bytes());
    let request = app.request(Method::POST, "/webhooks/meta").body(body);
    let answer = app.send(request.header("x-hub-signature-256", signature)).await;
    assert_eq!(answer.status, 200);
    app.delivered(1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_body_over_a_mebibyte_is_too_large_and_one_of_a_mebibyte_is_not() {
    let app = TestApp::start().await;
    let mut body = delivery_of(&[lead(1)]).to_string().into_bytes();
    body.resize(1024 * 1024, b' ');
    assert_eq!(app.webhook(&body).await.status, 200);
    body.push(b' ');
    assert_eq!(app.webhook(&body).await.problem(), (413, "payload_too_large".into()));
    app.delivered(1).await;
    app.finish().await;
}

// ---- Payload ----------------------------------------------------------------------------------

#[tokio::test]
async fn a_lead_is_stored_and_its_raw_lead_event_sent_at_once() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    assert_eq!(app.taken(), ["1 initial_lead"]);
    assert_eq!(app.timeline(1).await, ["initial_lead delivered"]);
    let taken = &app.meta.events()[0].event;
    assert_eq!(taken["event_time"], CREATED + 1, "strictly after the lead");
    app.finish().await;
}

#[tokio::test]
async fn every_lead_of_every_change_and_entry_is_stored_whatever_is_around_it() {
    let app = TestApp::start().await;
    let leadgen = |value: Value| json!({"value": value, "field": "leadgen", "new": [{}]});
    let mut third = lead(3);
    third["leadgen_id"] = json!(lead_id(3).get());
    third["page_id"] = json!(300);
    third["created_time"] = json!(CREATED.to_string());
    third["is_organic"] = json!({"unknown": [true]});
    let body = json!({"object": "page", "unknown": 1.5, "entry": [
        {"id": "300", "time": START, "changes": [
            {"field": "feed", "value": {"item": "post", "verb": "add"}},
            leadgen(lead(1)),
            {"field": "leadgen_update", "value": {"leadgen_id": lead_id(9).to_string()}},
            leadgen(lead(2)),
            {"field": "mention"}]},
        {"id": "301", "time": START, "messaging": [{"mid": "m"}]},
        {"id": 300, "time": START.to_string(), "changes": [leadgen(third)]},
        {"id": "300", "time": START},
    ]});
    assert_eq!(app.webhook(body.to_string().as_bytes()).await.status, 200);
    app.delivered(3).await;
    assert_eq!(app.taken(), ["1 initial_lead", "2 initial_lead", "3 initial_lead"]);
    assert_eq!(app.lead(3).await["page_id"], "300");
    assert_eq!(app.stored().await, [3, 0, 0, 0]);
    app.finish().await;
}

#[tokio::test]
async fn a_good_lead_beside_an_unreadable_one_is_stored_and_the_other_is_kept() {
    let app = TestApp::start().await;
    let mut bad = lead(2);
    bad["leadgen_id"] = json!("99999999999999999999999");
    let mut undated = lead(3);
    undated.as_object_mut().unwrap().remove("created_time");
    app.report(&[bad, lead(1), undated]).await;
    app.delivered(1).await;
    let page = app.get("/v1/quarantine").await.json();
    let kept = &page["quarantined"];
    assert!(kept[0]["reason"].as_str().unwrap().contains("created_time"));
    assert!(kept[1]["payload"].as_str().unwrap().contains("99999999999999999999999"));
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("leads_total{outcome=\"quarantined\"} 2"), "{metrics}");
    app.finish().await;
}

#[tokio::test]
async fn an_entry_without_values_is_kept_and_says_what_to_switch_on() {
    let app = TestApp::start().await;
    let body = r#"{"object":"page","entry":[{"id":"300","changed_fields":["leadgen"]}]}"#;
    assert_eq!(app.webhook(body.as_bytes()).await.status, 200);
    let page = app.get("/v1/quarantine").await.json();
    assert!(page["quarantined"][0]["reason"].as_str().unwrap().contains("Include Values"));
    assert_eq!(page["quarantined"][0]["received_at"], "2025-11-01T12:28:20Z");
    app.finish().await;
}

#[tokio::test]
async fn what_is_signed_and_no_webhook_is_kept_as_it_came_and_not_repeated() {
    let app = TestApp::start().await;
    let junk = ["not json", "", "[]", "{}", r#"{"object":"page","entry":7}"#];
    for body in junk {
        assert_eq!(app.webhook(body.as_bytes()).await.status, 200, "{body}");
    }
    let kept = app.whole_list("/v1/quarantine?limit=2", "quarantined").await;
    let kept: Vec<&Value> = kept.iter().rev().map(|piece| &piece["payload"]).collect();
    assert_eq!(kept, junk);
    app.finish().await;
}

#[tokio::test]
async fn other_objects_and_other_fields_are_acknowledged_and_not_kept() {
    let app = TestApp::start().await;
    for body in [
        json!({"object": "instagram", "entry": [{"id": "1", "changes": [{"field": "comments"}]}]}),
        json!({"object": "page", "entry": [{"id": "300", "changes": [{"field": "feed"}]}]}),
        json!({"object": "page", "entry": []}),
    ] {
        assert_eq!(app.webhook(body.to_string().as_bytes()).await.status, 200, "{body}");
    }
    assert_eq!(app.stored().await, [0; 4]);
    app.finish().await;
}

#[tokio::test]
async fn a_lead_of_the_test_button_is_shown_as_a_test_and_never_sent() {
    let app = TestApp::start().await;
    let body = json!({"object": "page", "entry": [{"id": "0", "time": CREATED, "changes": [
        {"field": "leadgen", "value": {"ad_id": "444444444", "form_id": "444444444444",
         "leadgen_id": "444444444444", "created_time": CREATED, "page_id": "444444444444",
         "adgroup_id": "44444444444"}}]}]});
    assert_eq!(app.webhook(body.to_string().as_bytes()).await.status, 200);
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    let shown = app.get("/v1/leads/444444444444").await.json();
    assert_eq!((&shown["test"], &shown["events"]), (&json!(true), &json!([])));
    assert_eq!(shown["raw_lead"], "skipped_test");
    let update = json!({"lead_id": "444444444444", "stage": "won", "event_time": CREATED + 5});
    assert_eq!(app.stage_update(&update).await.problem(), (422, "lead_is_test".into()));
    assert_eq!(app.taken(), ["1 initial_lead"]);
    app.finish().await;
}

// ---- Again and again --------------------------------------------------------------------------

#[tokio::test]
async fn a_replay_is_acknowledged_and_changes_nothing() {
    let app = TestApp::start().await;
    app.report(&[lead(1), lead(2)]).await;
    app.delivered(2).await;
    let before = (app.lead(1).await, app.lead(2).await);
    app.advance_s(40 * 3_600);
    app.report(&[lead(1), lead(2)]).await;
    app.report(&[lead(3)]).await;
    app.delivered(3).await;
    assert_eq!((app.lead(1).await, app.lead(2).await), before);
    assert_eq!(app.taken(), ["1 initial_lead", "2 initial_lead", "3 initial_lead"]);
    app.finish().await;
}

#[tokio::test]
async fn of_duplicates_the_first_wins_in_one_delivery_and_over_several() {
    let app = TestApp::start().await;
    let mut differing = lead_created_at(1, CREATED + 50);
    differing["form_id"] = json!("18");
    for leads in [vec![lead(1), lead(1), differing.clone()], vec![differing]] {
        let answer = app.webhook(delivery_of(&leads).to_string().as_bytes()).await;
        assert_eq!(answer.status, 200);
    }
    app.delivered(1).await;
    let shown = app.lead(1).await;
    assert_eq!((&shown["form_id"], &shown["created_time"]), (&json!("17"), &json!(CREATED)));
    assert_eq!(app.taken(), ["1 initial_lead"]);
    let metrics = app.get("/metrics").await.text;
    for (outcome, count) in [("new", 1), ("duplicate", 1), ("differing_duplicate", 2)] {
        let line = format!("leads_total{{outcome=\"{outcome}\"}} {count}");
        assert!(metrics.contains(&line), "{metrics}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_thousand_leads_in_one_delivery_are_stored_and_sent() {
    let app = TestApp::start().await;
    let leads: Vec<Value> = (1..=1_000).map(lead).collect();
    app.report(&leads).await;
    app.delivered(1_000).await;
    assert_eq!(app.stored().await, [1_000, 0, 0, 0]);
    assert_eq!(app.meta.requests(), 1);
    app.finish().await;
}

#[tokio::test]
async fn deliveries_that_come_together_are_all_stored_once() {
    let app = TestApp::start().await;
    let mut answers = JoinSet::new();
    for number in 0..40 {
        let body = delivery_of(&[lead(number / 2), lead(100 + number)]).to_string();
        answers.spawn(app.signed(body.as_bytes()).send());
    }
    while let Some(answer) = answers.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status(), 200);
    }
    app.delivered(60).await;
    assert_eq!(app.stored().await, [60, 0, 0, 0]);
    app.finish().await;
}

// ---- Durable, then 200 ------------------------------------------------------------------------

#[tokio::test]
async fn what_cannot_be_stored_is_not_acknowledged_so_that_meta_repeats_it() {
    let store = Arc::new(FailingStore::default());
    let app = TestApp::start_with("", store.clone()).await;
    store.fail(true);
    let answer = app.webhook(delivery_of(&[lead(1)]).to_string().as_bytes()).await;
    assert_eq!(answer.problem(), (503, "store_unavailable".into()));
    assert!(answer.headers.contains_key("retry-after"));
    assert!(!answer.text.contains("disk"), "our insides are nobody's business");
    assert_eq!(app.get("/readyz").await.status, 503);
    assert_eq!(app.get("/healthz").await.status, 200);
    store.fail(false);
    assert_eq!(app.stored().await, [0; 4]);
    app.report(&[lead(1)]).await;
    app.advance_s(1);
    app.delivered(1).await;
    assert_eq!(app.get("/readyz").await.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn a_server_starts_and_shows_its_datasets_though_nobody_can_count_what_is_there() {
    let store = Arc::new(FailingStore::default());
    store.fail_counting(true);
    let app = TestApp::start_with("", store.clone()).await;
    assert_eq!(app.get("/v1/datasets").await.status, 200);
    assert_eq!(app.get("/metrics").await.status, 503);
    store.fail_counting(false);
    app.finish().await;
}

#[tokio::test]
async fn every_call_says_so_when_the_store_fails_and_works_again_afterwards() {
    let store = Arc::new(FailingStore::default());
    let app = TestApp::start_with("", store.clone()).await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    let event_id = app.event(1, "initial_lead").await["event_id"].as_str().unwrap().to_owned();
    store.fail(true);
    for (method, path) in [
        (Method::GET, format!("/v1/leads/{}", lead_id(1))),
        (Method::GET, "/v1/leads".into()),
        (Method::GET, "/v1/events".into()),
        (Method::GET, format!("/v1/events/{event_id}")),
        (Method::POST, format!("/v1/events/{event_id}/retry")),
        (Method::GET, "/v1/quarantine".into()),
        (Method::GET, "/metrics".into()),
    ] {
        let answer = app.ask("test-admin-key", method, &path).await;
        assert_eq!(answer.problem(), (503, "store_unavailable".into()), "{path}");
    }
    let update = crate::support::stage(1, "won", 50);
    assert_eq!(app.stage_update(&update).await.problem(), (503, "store_unavailable".into()));
    let batch = app.post("/v1/stage-updates/batch", &json!({"updates": [update]})).await;
    assert_eq!(batch.problem(), (503, "store_unavailable".into()));
    store.fail(false);
    assert_eq!(app.timeline(1).await, ["initial_lead delivered"]);
    app.finish().await;
}

// ---- Held -------------------------------------------------------------------------------------

#[tokio::test]
async fn a_lead_of_an_unknown_page_is_held_and_sent_when_a_restart_brings_its_dataset() {
    let (store, clock) = (Arc::new(MemoryStore::default()), clock_at_start());
    let app = TestApp::start_at(UNROUTED, store.clone(), clock.clone()).await;
    app.report(&[lead_of("301", 1)]).await;
    app.stage(1, "qualified", 50).await;
    assert_eq!(app.timeline(1).await, ["initial_lead held", "qualified held"]);
    assert_eq!(app.lead(1).await["dataset_id"], Value::Null);
    assert_eq!(app.meta.requests(), 0);
    app.finish_with_rest().await;

    clock.advance_ms(3 * DAY * 1_000);
    let app = TestApp::start_at(DATASET_701, store, clock).await;
    app.delivered(2).await;
    assert_eq!(app.taken(), ["1 initial_lead", "1 qualified"]);
    assert_eq!(app.meta.events()[0].dataset_id, "701");
    assert_eq!(app.lead(1).await["dataset_id"], "701");
    app.finish().await;
}

#[tokio::test]
async fn a_lead_whose_page_stays_unknown_for_seven_days_is_a_dead_letter() {
    let store = Arc::new(MemoryStore::default());
    let app = TestApp::start_at(UNROUTED, store, clock_at_start()).await;
    app.report(&[lead_of("301", 1)]).await;
    app.advance_s(7 * DAY - 300);
    assert_eq!(app.listed("held").await, 1);
    app.advance_s(300);
    app.until(async || app.listed("dead").await == 1).await;
    assert_eq!(app.timeline(1).await, ["initial_lead dead expired"]);
    assert_eq!(app.meta.requests(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_raw_event_whose_second_has_not_come_is_held_until_it_has() {
    let app = TestApp::start().await;
    app.report(&[lead_created_at(1, START + 9), lead(2)]).await;
    app.delivered(1).await;
    assert_eq!(app.taken(), ["2 initial_lead"]);
    assert_eq!(app.timeline(1).await, ["initial_lead held"]);
    app.advance_s(9);
    app.report(&[lead(3)]).await;
    app.delivered(2).await;
    assert_eq!(app.timeline(1).await, ["initial_lead held"]);
    app.advance_s(1);
    app.delivered(3).await;
    assert_eq!(app.taken(), ["2 initial_lead", "3 initial_lead", "1 initial_lead"]);
    app.finish().await;
}

#[tokio::test]
async fn a_lead_older_than_seven_days_gets_no_raw_event_and_says_so() {
    let app = TestApp::start().await;
    app.report(&[lead_created_at(1, START - 7 * DAY - 1), lead_created_at(2, START - 6 * DAY)])
        .await;
    app.delivered(1).await;
    assert_eq!(app.taken(), ["2 initial_lead"]);
    let old = app.lead(1).await;
    assert_eq!((&old["raw_lead"], &old["events"]), (&json!("skipped_too_old"), &json!([])));
    assert_eq!((&old["stage"], &old["test"]), (&Value::Null, &json!(false)));
    assert_eq!(app.lead(2).await["raw_lead"], "emitted");
    app.stage(1, "qualified", 50).await;
    app.delivered(2).await;
    assert_eq!(app.timeline(1).await, ["qualified delivered"], "its later stages count");
    app.finish().await;
}
