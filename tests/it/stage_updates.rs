//! Stage updates: the rules of `event_time`, and all else that a CRM is told, alone and in batches.

use std::sync::Arc;

use leadloop::store::memory::MemoryStore;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    ADMIN_KEY, CREATED, DAY, EMAIL, PHONE, START, TestApp, lead, lead_created_at, lead_id, stage,
};

const SOURCES: &str = r#"
[[sources]]
name = "minutes"
clock_tolerance_s = 60
[[sources]]
name = "berlin"
time_zone = "Europe/Berlin"
default_country = "DE"
[[sources]]
name = "strict"
strict = true
"#;

async fn with_sources() -> TestApp {
    TestApp::start_with(SOURCES, Arc::new(MemoryStore::default())).await
}

/// An update with another field.
fn with(mut update: Value, field: &str, value: impl Into<Value>) -> Value {
    update[field] = value.into();
    update
}

fn from(source: &str, update: Value) -> Value {
    with(update, "source", source)
}

/// The problem that an update is answered with, the same alone and in a batch.
async fn refused(app: &TestApp, update: &Value) -> Value {
    let alone = app.stage_update(update).await;
    let (status, code) = alone.problem();
    let problem = alone.json();
    let batch = app.batch(std::slice::from_ref(update)).await;
    assert_eq!(batch.len(), 1);
    // What JSON's reader says ends with the place in the body, which is not the same.
    let same = with(batch[0].clone(), "detail", problem["detail"].clone());
    assert_eq!(same, problem, "{status} {code}");
    problem
}

/// Status and code of such a problem.
async fn refusal(app: &TestApp, update: &Value) -> (u64, String) {
    let problem = refused(app, update).await;
    (problem["status"].as_u64().unwrap(), problem["code"].as_str().unwrap().to_owned())
}

// ---- Accepted ---------------------------------------------------------------------------------

#[tokio::test]
async fn an_update_is_answered_with_its_event_and_delivered() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    let answer = app.stage_update(&stage(1, "qualified", 50)).await;
    assert_eq!(answer.status, 202);
    assert_eq!(
        answer.json(),
        json!({"event_id": "evt_0082b9738a997e32afd4ddd7e4be8d23a57b0df8",
               "lead_id": "36795652870078002", "stage": "qualified",
               "event_time": CREATED + 50, "state": "pending", "adjusted": false,
               "deliver_before": CREATED + 50 + 7 * DAY, "matched_by": "lead_id",
               "missing_stages": [], "filled_stages": [], "left_out": []})
    );
    app.delivered(2).await;
    assert_eq!(app.taken(), ["1 initial_lead", "1 qualified"]);
    assert_eq!(app.lead(1).await["stage"], "qualified");
    app.finish().await;
}

#[tokio::test]
async fn lead_ids_and_times_come_as_text_or_as_integers() {
    let app = with_sources().await;
    app.report(&[lead(1)]).await;
    for (number, time) in [
        json!(CREATED + 80),
        json!((CREATED + 80).to_string()),
        json!("2025-11-01T12:28:00Z"),
        json!("2025-11-01T13:28:00+01:00"),
        json!("2025-11-01T13:28:00"),
    ]
    .into_iter()
    .enumerate()
    {
        let update = json!({"lead_id": lead_id(1).get(), "stage": format!("stage {number}"),
                            "event_time": time, "source": "berlin"});
        let answer = app.stage_update(&update).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        assert_eq!(answer.json()["event_time"], CREATED + 80, "{update}");
    }
    app.delivered(6).await;
    app.finish().await;
}

#[tokio::test]
async fn an_update_without_a_time_is_dated_now() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    for update in [
        json!({"lead_id": lead_id(1).to_string(), "stage": "qualified"}),
        json!({"lead_id": lead_id(1).to_string(), "stage": "won", "event_time": null}),
    ] {
        let answer = app.stage_update(&update).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["event_time"]), (202, &json!(START)));
    }
    app.delivered(3).await;
    app.finish().await;
}

#[tokio::test]
async fn our_own_now_is_lifted_over_a_lead_whose_clock_is_ahead_of_ours() {
    let app = TestApp::start().await;
    app.report(&[lead_created_at(1, START + 30)]).await;
    let update = json!({"lead_id": lead_id(1).to_string(), "stage": "qualified"});
    let answer = app.stage_update(&update).await.json();
    assert_eq!((&answer["adjusted"], &answer["state"]), (&json!(true), &json!("held")));
    assert_eq!(answer["event_time"], START + 31);
    app.advance_s(31);
    app.delivered(2).await;
    assert_eq!(app.taken(), ["1 initial_lead", "1 qualified"]);
    app.finish().await;
}

// ---- The rules of event_time ------------------------------------------------------------------

#[tokio::test]
async fn a_time_at_or_before_the_lead_is_refused_with_both_times() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    for seconds in [0, -1, -3_600, -30 * DAY] {
        let problem = refused(&app, &stage(1, "qualified", seconds)).await;
        assert_eq!(problem["status"], 422);
        assert_eq!(problem["code"], "event_time_not_after_lead");
        assert_eq!(problem["lead_created_time"], CREATED);
        assert_eq!(problem["event_time"], CREATED + seconds);
    }
    app.stage(1, "qualified", 1).await;
    app.delivered(2).await;
    app.finish().await;
}

#[tokio::test]
async fn a_time_at_or_before_the_lead_is_lifted_within_the_tolerance_of_its_source() {
    let app = with_sources().await;
    app.report(&[lead(1)]).await;
    for (name, seconds) in [("at", 0), ("before", -60)] {
        let answer = app.stage_update(&from("minutes", stage(1, name, seconds))).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        let answer = answer.json();
        assert_eq!(
            (&answer["adjusted"], &answer["event_time"]),
            (&json!(true), &json!(CREATED + 1))
        );
    }
    let (status, code) = refusal(&app, &from("minutes", stage(1, "far", -61))).await;
    assert_eq!((status, code.as_str()), (422, "event_time_not_after_lead"));
    let (status, _) = refusal(&app, &from("another", stage(1, "at all", 0))).await;
    assert_eq!(status, 422, "other sources are as exact as ever");
    let again = app.stage_update(&from("minutes", stage(1, "at", 0))).await;
    assert_eq!((again.status.as_u16(), &again.json()["adjusted"]), (200, &json!(true)));
    app.delivered(3).await;
    assert!(app.meta.events().iter().all(|taken| taken.event["event_time"] == CREATED + 1));
    app.finish().await;
}

#[tokio::test]
async fn a_time_older_than_seven_days_is_refused() {
    let app = with_sources().await;
    app.report(&[lead_created_at(1, START - 20 * DAY)]).await;
    let age = START - CREATED - 7 * DAY;
    let problem = refused(&app, &stage(1, "qualified", age - 1)).await;
    assert_eq!((&problem["status"], &problem["code"]), (&json!(422), &json!("event_time_too_old")));
    assert_eq!(problem["event_time"], CREATED + age - 1);
    let tolerant = from("minutes", stage(1, "qualified", age - 1));
    assert_eq!(refusal(&app, &tolerant).await, (422, "event_time_too_old".into()));
    app.stage(1, "qualified", age + 3_600).await;
    app.delivered(1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_time_in_the_future_is_refused_and_within_the_tolerance_held_until_it_is_due() {
    let app = with_sources().await;
    app.report(&[lead(1), lead(2)]).await;
    let problem = refused(&app, &stage(1, "qualified", 101)).await;
    assert_eq!(
        (&problem["status"], &problem["code"]),
        (&json!(422), &json!("event_time_in_future"))
    );
    assert_eq!(problem["event_time"], START + 1);
    let far = from("minutes", stage(1, "qualified", 161));
    assert_eq!(refusal(&app, &far).await, (422, "event_time_in_future".into()));
    let answer = app.stage_update(&from("minutes", stage(1, "qualified", 160))).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (202, &json!("held")));
    app.stage(1, "proposal", 90).await;
    app.stage(2, "qualified", 90).await;
    app.delivered(4).await;
    assert_eq!(app.taken()[2..], ["1 proposal", "2 qualified"], "nobody waits for what is held");
    app.advance_s(60);
    app.delivered(5).await;
    assert_eq!(app.taken()[4..], ["1 qualified"]);
    app.finish().await;
}

// ---- Unknown leads ----------------------------------------------------------------------------

#[tokio::test]
async fn an_update_that_comes_before_its_lead_waits_and_is_sent_after_the_raw_event() {
    let app = TestApp::start().await;
    let answer = app.stage(1, "qualified", 50).await;
    assert_eq!(answer["state"], "awaiting_lead");
    let event = format!("/v1/events/{}", answer["event_id"].as_str().unwrap());
    assert_eq!(app.get(&event).await.json()["state"], "awaiting_lead");
    let path = format!("/v1/leads/{}", lead_id(1));
    assert_eq!(app.get(&path).await.problem(), (404, "lead_not_found".into()));
    assert_eq!(app.stage_update(&stage(1, "qualified", 50)).await.status, 200);
    assert_eq!(app.meta.requests(), 0);
    app.advance_s(6 * DAY);
    app.report(&[lead(1)]).await;
    app.delivered(2).await;
    assert_eq!(app.taken(), ["1 initial_lead", "1 qualified"]);
    assert_eq!(app.get(&event).await.json()["state"], "delivered");
    app.finish().await;
}

#[tokio::test]
async fn a_waiting_update_is_judged_by_the_lead_that_arrives() {
    let app = with_sources().await;
    app.stage(1, "too early", 20).await;
    app.stage(1, "qualified", 21).await;
    app.stage_update(&from("minutes", stage(1, "about then", 0))).await;
    app.report(&[lead_created_at(1, CREATED + 20)]).await;
    app.delivered(3).await;
    assert_eq!(app.taken(), ["1 initial_lead", "1 qualified", "1 about then"]);
    let dead = app.event(1, "too early").await;
    assert_eq!(
        (&dead["state"], &dead["reason"]),
        (&json!("dead"), &json!("event_time_not_after_lead"))
    );
    let lifted = app.event(1, "about then").await;
    assert_eq!((&lifted["adjusted"], &lifted["event_time"]), (&json!(true), &json!(CREATED + 21)));
    let retry = format!("/v1/events/{}/retry", dead["event_id"].as_str().unwrap());
    let answer = app.ask(ADMIN_KEY, Method::POST, &retry).await;
    assert_eq!(answer.problem(), (409, "not_retriable".into()));
    app.finish().await;
}

#[tokio::test]
async fn an_update_whose_lead_does_not_come_for_seven_days_is_a_dead_letter() {
    let app = TestApp::start().await;
    app.stage(1, "qualified", 50).await;
    app.advance_s(7 * DAY - 300);
    assert_eq!(app.listed("awaiting_lead").await, 1);
    app.advance_s(300);
    app.until(async || app.listed("dead").await == 1).await;
    let dead = &app.get("/v1/events?state=dead").await.json()["events"][0];
    assert_eq!(dead["reason"], "lead_not_found");
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("events_dead_total{reason=\"lead_not_found\"} 1"), "{metrics}");
    app.report(&[lead_created_at(1, START + 7 * DAY - 60)]).await;
    app.delivered(1).await;
    assert_eq!(app.taken(), ["1 initial_lead"]);
    app.finish().await;
}

#[tokio::test]
async fn a_strict_source_is_told_that_a_lead_is_unknown() {
    let app = with_sources().await;
    let update = from("strict", stage(1, "qualified", 50));
    assert_eq!(refusal(&app, &update).await, (404, "lead_not_found".into()));
    assert_eq!(app.stored().await, [0; 4]);
    app.report(&[lead(1)]).await;
    assert_eq!(app.stage_update(&update).await.status, 202);
    app.delivered(2).await;
    app.finish().await;
}

// ---- Again ------------------------------------------------------------------------------------

#[tokio::test]
async fn the_same_report_again_gets_the_first_answer_and_is_sent_once() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    let first = app.stage(1, "qualified", 50).await;
    app.delivered(2).await;
    app.advance_s(30 * DAY);
    let again = app.stage_update(&stage(1, "qualified", 50)).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.json(), with(first, "state", "delivered"));
    assert_eq!(app.taken(), ["1 initial_lead", "1 qualified"]);
    app.finish().await;
}

#[tokio::test]
async fn the_raw_lead_reported_by_the_crm_too_is_sent_once() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    assert_eq!(app.stage_update(&stage(1, "initial_lead", 1)).await.status, 200);
    app.delivered(1).await;
    assert_eq!(app.taken(), ["1 initial_lead"]);
    app.finish().await;
}

#[tokio::test]
async fn another_time_or_another_stage_is_another_event() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    let mut ids = Vec::new();
    for (name, seconds) in [("qualified", 50), ("qualified", 51), ("Qualified", 50)] {
        ids.push(app.stage(1, name, seconds).await["event_id"].clone());
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
    app.delivered(4).await;
    app.finish().await;
}

#[tokio::test]
async fn an_idempotency_key_makes_a_report_without_a_time_safe_to_repeat() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    let update = json!({"lead_id": lead_id(1).to_string(), "stage": "won", "idempotency_key": "k"});
    let first = app.stage_update(&update).await;
    app.delivered(2).await;
    app.advance_s(77);
    let again = app.stage_update(&update).await;
    assert_eq!((first.status.as_u16(), again.status.as_u16()), (202, 200));
    assert_eq!(again.json(), with(first.json(), "state", "delivered"));
    app.finish().await;
}

#[tokio::test]
async fn an_idempotency_key_with_other_content_is_a_conflict_within_its_source() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    let keyed = |update: Value| with(update, "idempotency_key", "k");
    assert_eq!(app.stage_update(&keyed(stage(1, "won", 50))).await.status, 202);
    for other in [
        stage(1, "won", 51),
        stage(1, "lost", 50),
        stage(2, "won", 50),
        with(stage(1, "won", 50), "custom_data", json!({"currency": "EUR"})),
        with(stage(1, "won", 50), "customer", json!({"em": EMAIL})),
    ] {
        assert_eq!(refusal(&app, &keyed(other)).await, (409, "idempotency_conflict".into()));
    }
    let elsewhere = from("hubspot", keyed(stage(1, "lost", 60)));
    assert_eq!(app.stage_update(&elsewhere).await.status, 202);
    app.delivered(3).await;
    assert_eq!(app.taken(), ["1 initial_lead", "1 won", "1 lost"]);
    app.finish().await;
}

#[tokio::test]
async fn a_refused_report_does_not_use_its_idempotency_key_up() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    let wrong = with(stage(1, "won", 0), "idempotency_key", "k");
    assert_eq!(app.stage_update(&wrong).await.status, 422);
    let right = with(stage(1, "won", 5), "idempotency_key", "k");
    assert_eq!(app.stage_update(&right).await.status, 202);
    app.delivered(2).await;
    app.finish().await;
}

// ---- What cannot be read ----------------------------------------------------------------------

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_the_field_is_named() {
    let app = with_sources().await;
    let good = || stage(1, "qualified", 50);
    for (update, field, word) in [
        (with(good(), "event_time", START * 1_000), "event_time", "milliseconds"),
        (with(good(), "event_time", (START * 1_000).to_string()), "event_time", "milliseconds"),
        (with(good(), "event_time", "2025-11-01T12:28:00"), "event_time", "offset"),
        (with(good(), "event_time", "yesterday"), "event_time", "RFC 3339"),
        (with(good(), "event_time", 50.5), "event_time", "fraction"),
        (with(good(), "event_time", -1), "event_time", "plausible"),
        (with(good(), "stage", " "), "stage", "1 to 100"),
        (with(good(), "stage", "x".repeat(101)), "stage", "1 to 100"),
        (with(good(), "stage", Value::Null), "stage", "missing"),
        (with(good(), "lead_id", Value::Null), "lead_id", "missing"),
        (with(good(), "source", "x".repeat(65)), "source", "1 to 64"),
        (with(good(), "idempotency_key", ""), "idempotency_key", "1 to 255"),
        (with(good(), "customer", json!({"fax": "1"})), "customer", "fax"),
        (with(good(), "custom_data", json!({"value": 5})), "custom_data", "currency"),
        (with(good(), "custom_data", json!({"event_source": "web"})), "custom_data", "always"),
    ] {
        let problem = refused(&app, &update).await;
        assert_eq!(
            (&problem["status"], &problem["code"]),
            (&json!(400), &json!("invalid_request"))
        );
        assert_eq!(problem["field"], field, "{update}");
        assert!(problem["detail"].as_str().unwrap().contains(word), "{problem}");
    }
    assert_eq!(app.stored().await, [0; 4]);
    app.finish().await;
}

#[tokio::test]
async fn unknown_fields_are_refused_because_a_misspelt_time_would_mean_now() {
    let app = TestApp::start().await;
    for field in ["eventtime", "Event_Time", "email"] {
        let problem = refused(&app, &with(stage(1, "qualified", 50), field, CREATED)).await;
        assert_eq!(problem["code"], "invalid_request");
        assert!(problem["detail"].as_str().unwrap().contains(field), "{problem}");
    }
    app.finish().await;
}

#[tokio::test]
async fn what_is_no_lead_id_is_refused_and_a_float_is_none() {
    let app = TestApp::start().await;
    for wrong in [
        "4711",
        "-5",
        "\"4711\"",
        "\"abc\"",
        "\"\"",
        "36795652870078002.0",
        "3.6e16",
        "[]",
        "true",
        "123456789012345678901234567890",
    ] {
        let update = format!(r#"{{"lead_id": {wrong}, "stage": "won"}}"#);
        let request = app.request(Method::POST, "/v1/stage-updates").bearer_auth(ADMIN_KEY);
        let answer = app.send(request.body(update)).await;
        assert_eq!(answer.problem(), (400, "invalid_lead_id".into()), "{wrong}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_body_that_is_no_update_or_too_large_is_refused() {
    let app = TestApp::start().await;
    for (path, body, expected) in [
        ("/v1/stage-updates", "{", (400, "invalid_request")),
        ("/v1/stage-updates", "[]", (400, "invalid_request")),
        ("/v1/stage-updates", "", (400, "invalid_request")),
        ("/v1/stage-updates", &" ".repeat(64 * 1024 + 1), (413, "payload_too_large")),
        ("/v1/stage-updates/batch", "{}", (400, "invalid_request")),
        ("/v1/stage-updates/batch", r#"{"updates": {}}"#, (400, "invalid_request")),
        ("/v1/stage-updates/batch", r#"{"updates": [], "x": 1}"#, (400, "invalid_request")),
        ("/v1/stage-updates/batch", &" ".repeat(2 * 1024 * 1024 + 1), (413, "payload_too_large")),
    ] {
        let request = app.request(Method::POST, path).bearer_auth(ADMIN_KEY);
        let answer = app.send(request.body(body.to_owned())).await;
        assert_eq!(answer.problem(), (expected.0, expected.1.to_owned()), "{path}");
    }
    app.finish().await;
}

// ---- Customer and custom data -----------------------------------------------------------------

#[tokio::test]
async fn customer_parameters_reach_meta_as_digests_only() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    let digest = "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f";
    let customer = json!({"email": [EMAIL, digest.to_uppercase()], "phone": PHONE, "fn": "",
                          "ln": "Mustermann", "fbc": "fb.1.1596403881668.AbCdEf"});
    app.stage_update(&with(stage(1, "won", 50), "customer", customer)).await;
    app.delivered(2).await;
    let user = app.meta.events()[1].event["user_data"].clone();
    assert_eq!(
        user,
        json!({"lead_id": lead_id(1).get(), "fbc": "fb.1.1596403881668.AbCdEf",
               "em": ["54375008b42c108091774bc419a6aab01dedb59334244f2e88da74490146928e", digest],
               "ph": "8efb96404be52f6109b9db0f687274a81e9e3cc23fabd6f0da5d38baa3d2facd",
               "ln": "e32a370b7912ad78cc6a88fda605a5b3657e9c3b164cee669364aaf3f8cdbb36"})
    );
    app.event(1, "won").await;
    app.finish().await;
}

#[tokio::test]
async fn customer_values_that_match_nobody_are_left_out_and_told_whenever_the_update_comes() {
    let app = with_sources().await;
    app.report(&[lead(1)]).await;
    let of_null = "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b";
    let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let customer = json!({"em": [EMAIL, "Mustermann"], "ph": [of_null, "0151 12345678"],
                          "external_id": "null", "country": "Mustermann", "db": of_nothing});
    let update = with(stage(1, "won", 50), "customer", customer);
    let left_out = json!([
        {"field": "customer.em", "reason": "impossible_value"},
        {"field": "customer.ph", "reason": "digest_of_nothing"},
        {"field": "customer.ph", "reason": "country_code_missing"},
        {"field": "customer.db", "reason": "digest_of_nothing"},
        {"field": "customer.country", "reason": "impossible_value"},
        {"field": "customer.external_id", "reason": "no_value"},
    ]);
    for status in [202, 200] {
        let answer = app.stage_update(&update).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["left_out"]), (status, &left_out));
    }
    let results = app.batch(&[update.clone(), json!({}), stage(1, "won", 60)]).await;
    assert_eq!((&results[0]["status"], &results[0]["left_out"]), (&json!(200), &left_out));
    assert_eq!((&results[2]["status"], &results[2]["left_out"]), (&json!(202), &json!([])));
    app.delivered(3).await;
    let user = app.meta.events()[1].event["user_data"].clone();
    assert_eq!(user.as_object().unwrap().keys().collect::<Vec<_>>(), ["em", "lead_id"]);
    assert!(user["em"].is_string(), "{user}");
    app.finish().await;
}

#[tokio::test]
async fn a_person_of_whom_nothing_is_left_is_too_little_and_the_answer_says_what_was_wrong() {
    let app = TestApp::start().await;
    let customer = json!({"ph": "0151 12345678", "em": "n/a", "ge": "f"});
    let problem = refused(&app, &json!({"stage": "won", "customer": customer})).await;
    assert_eq!(
        (&problem["status"], &problem["code"]),
        (&json!(422), &json!("customer_insufficient"))
    );
    let left_out = json!([
        {"field": "customer.em", "reason": "no_value"},
        {"field": "customer.ph", "reason": "country_code_missing"},
    ]);
    assert_eq!(problem["left_out"], left_out);
    app.finish().await;
}

#[tokio::test]
async fn a_phone_number_is_read_as_its_source_writes_it() {
    let app = with_sources().await;
    app.report(&[lead(1)]).await;
    for (name, phone, source) in [("a", PHONE, "minutes"), ("b", "0151/12345678", "berlin")] {
        let update = with(stage(1, name, 50), "customer", json!({"ph": phone}));
        let answer = app.stage_update(&from(source, update)).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["left_out"]), (202, &json!([])));
    }
    app.delivered(3).await;
    let phones: Vec<_> =
        app.meta.events()[1..].iter().map(|t| &t.event["user_data"]["ph"]).cloned().collect();
    assert!(phones[0].is_string() && phones[0] == phones[1], "{phones:?}");
    app.finish().await;
}

#[tokio::test]
async fn too_many_customer_values_and_ones_that_are_too_long_are_refused() {
    let app = TestApp::start().await;
    let many: Vec<String> = (0..11).map(|n| format!("{n}@example.org")).collect();
    for (field, value) in [("em", json!(many)), ("ct", json!("x".repeat(1_025)))] {
        let update = with(stage(1, "won", 50), "customer", json!({field: value}));
        let problem = refused(&app, &update).await;
        assert_eq!(
            (&problem["status"], &problem["code"]),
            (&json!(422), &json!("invalid_customer"))
        );
        assert_eq!(problem["field"], format!("customer.{field}"));
    }
    app.finish().await;
}

#[tokio::test]
async fn a_value_of_the_wrong_kind_is_refused_without_being_repeated() {
    let app = TestApp::start().await;
    for (update, expected) in [
        (with(stage(1, "won", 50), "customer", EMAIL), "invalid type, expected a map"),
        (with(stage(1, "won", 50), "customer", json!([EMAIL])), "invalid type, expected a map"),
    ] {
        let problem = refused(&app, &update).await;
        assert_eq!(problem["code"], "invalid_request");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(expected), "{detail}");
    }
    for update in [json!(EMAIL), json!([lead_id(1).to_string(), "won"]), json!(null)] {
        let alone = app.stage_update(&update).await;
        assert_eq!(alone.problem(), (400, "invalid_request".into()), "{update}");
        assert_eq!(app.batch(&[update]).await[0]["code"], "invalid_request");
    }
    app.finish().await;
}

#[tokio::test]
async fn custom_data_reaches_meta_beside_the_markers_of_a_crm_event() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    let custom = json!({"value": 1250.5, "currency": "EUR", "deal": {"id": 7}});
    app.stage_update(&with(stage(1, "won", 50), "custom_data", custom)).await;
    app.delivered(2).await;
    assert_eq!(
        app.meta.events()[1].event["custom_data"],
        json!({"event_source": "crm", "lead_event_source": "Codex CRM",
               "value": 1250.5, "currency": "EUR", "deal": {"id": 7}})
    );
    app.finish().await;
}

// ---- Batches ----------------------------------------------------------------------------------

#[tokio::test]
async fn a_batch_has_a_verdict_for_each_in_order_and_none_spoils_another() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    let verdicts = app
        .batch(&[
            stage(1, "qualified", 50),
            stage(1, "lost", 0),
            json!("no update at all"),
            stage(1, "qualified", 50),
            stage(2, "qualified", 50),
            with(stage(1, "won", 60), "lead_id", "4711"),
            stage(1, "won", 60),
        ])
        .await;
    let lines = verdicts.iter().map(|verdict| {
        let text = |name: &str| verdict[name].as_str().unwrap_or_default().to_owned();
        format!("{} {}{}", verdict["status"], text("state"), text("code"))
    });
    assert_eq!(
        lines.collect::<Vec<_>>(),
        [
            "202 pending",
            "422 event_time_not_after_lead",
            "400 invalid_request",
            "200 pending",
            "202 awaiting_lead",
            "400 invalid_lead_id",
            "202 pending"
        ]
    );
    assert_eq!(verdicts[0]["event_id"], verdicts[3]["event_id"]);
    assert_eq!(verdicts[6]["lead_id"], lead_id(1).to_string());
    app.delivered(3).await;
    assert_eq!(app.taken(), ["1 initial_lead", "1 qualified", "1 won"]);
    app.finish_with_rest().await;
}

#[tokio::test]
async fn a_batch_takes_a_thousand_and_none_and_not_a_thousand_and_one() {
    let app = TestApp::start().await;
    assert_eq!(app.batch(&[]).await, [""; 0]);
    let leads: Vec<Value> = (1..=1_000).map(lead).collect();
    app.report(&leads).await;
    let mut updates: Vec<Value> = (1..=1_000).map(|number| stage(number, "won", 50)).collect();
    let verdicts = app.batch(&updates).await;
    assert!(verdicts.iter().all(|verdict| verdict["status"] == 202));
    assert_eq!(verdicts[999]["lead_id"], lead_id(1_000).to_string());
    updates.push(stage(1, "lost", 60));
    let answer = app.post("/v1/stage-updates/batch", &json!({"updates": updates})).await;
    assert_eq!(answer.problem(), (413, "payload_too_large".into()));
    app.delivered(2_000).await;
    app.finish().await;
}

#[tokio::test]
async fn a_crm_that_loops_is_stopped_at_five_hundred_events_of_a_lead() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    let updates: Vec<Value> = (1..=500).map(|n| stage(1, &format!("stage {n}"), 50)).collect();
    let verdicts = app.batch(&updates).await;
    assert_eq!(verdicts[498]["status"], 202);
    assert_eq!(
        (&verdicts[499]["status"], &verdicts[499]["code"]),
        (&json!(422), &json!("too_many_events"))
    );
    app.delivered(500).await;
    app.finish().await;
}
