//! Delivery to Meta: what is sent, in which order, how often, and what failures leave behind.

use std::sync::Arc;

use leadloop::limits::SEND_TIMEOUT;
use leadloop::sandbox::faults::Fault;
use leadloop::store::memory::MemoryStore;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::store::FailingStore;
use crate::support::{
    ADMIN_KEY, CREATED, DATASET_701, DAY, TestApp, clock_at_start, lead, lead_created_at, lead_id,
    lead_of,
};

const fn error(http_status: u16, code: i64, subcode: Option<i64>) -> Fault {
    Fault::Error { http_status, code, subcode, is_transient: false }
}

/// The steps of the schedule, after which the next try has surely come. Seconds.
const STEPS_S: [i64; 6] = [1, 2, 5, 10, 30, 60];

// ---- What is sent -----------------------------------------------------------------------------

#[tokio::test]
async fn an_event_is_sent_exactly_as_promised() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    let taken = &app.meta.events()[0];
    assert_eq!(
        taken.event,
        json!({"event_name": "initial_lead", "event_time": CREATED + 1,
               "event_id": "evt_0082b9738a997e32a1e8834fdc57517c065e8c40",
               "action_source": "system_generated",
               "user_data": {"lead_id": 36_795_652_870_078_002_u64},
               "custom_data": {"event_source": "crm", "lead_event_source": "Codex CRM"}})
    );
    assert_eq!((taken.dataset_id.as_str(), taken.request), ("700", 1));
    app.finish().await;
}

#[tokio::test]
async fn a_dataset_has_its_own_crm_and_raw_stage() {
    let more = r#"
        [[datasets]]
        id = "702"
        access_token = "test-token-702"
        crm_name = "Other CRM"
        raw_stage = "Lead in"
        [[pages]]
        id = "302"
        dataset = "702"
    "#;
    let app = TestApp::start_with(more, Arc::new(MemoryStore::default())).await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    app.report(&[lead_of("302", 2)]).await;
    app.delivered(2).await;
    assert_eq!(app.taken(), ["1 initial_lead", "2 Lead in"]);
    let taken = &app.meta.events()[1];
    assert_eq!(taken.event["custom_data"]["lead_event_source"], "Other CRM");
    assert_eq!(taken.dataset_id, "702");
    app.finish().await;
}

// ---- Batches and order ------------------------------------------------------------------------

#[tokio::test]
async fn what_gathered_while_meta_was_away_goes_out_in_one_request() {
    let app = TestApp::start().await;
    app.misbehave([error(503, 2, None)]);
    app.report(&[lead(1)]).await;
    app.failed(1, 1).await;
    for number in 2..=51 {
        app.report(&[lead(number)]).await;
    }
    assert_eq!(app.meta.requests(), 1, "new leads do not cut a back-off short");
    app.advance_s(1);
    app.delivered(51).await;
    assert_eq!(app.meta.requests(), 2);
    let order: Vec<String> = (1..=51).map(|number| format!("{number} initial_lead")).collect();
    assert_eq!(app.taken(), order);
    app.finish().await;
}

#[tokio::test]
async fn more_than_a_thousand_events_go_out_in_several_requests() {
    let app = TestApp::start().await;
    app.misbehave([Fault::Short]);
    app.report(&[lead(1)]).await;
    app.failed(1, 1).await;
    app.report(&(2..=900).map(lead).collect::<Vec<_>>()).await;
    app.report(&(901..=1_500).map(lead).collect::<Vec<_>>()).await;
    app.advance_s(1);
    app.delivered(1_500).await;
    let sizes = app.meta.events().iter().filter(|taken| taken.request == 2).count();
    assert_eq!((app.meta.requests(), sizes), (3, 1_000));
    app.finish().await;
}

#[tokio::test]
async fn the_events_of_a_lead_go_in_the_order_in_which_they_happened_over_failures() {
    let app = TestApp::start().await;
    app.misbehave([error(500, 1, None), Fault::Cut, error(400, 4, None)]);
    app.report(&[lead(1), lead(2)]).await;
    app.failed(1, 1).await;
    app.stage(1, "qualified", 60).await;
    app.advance_s(STEPS_S[0]);
    app.failed(1, 2).await;
    app.stage(1, "proposal", 50).await;
    app.stage(2, "qualified", 50).await;
    app.advance_s(STEPS_S[1]);
    app.failed(1, 3).await;
    app.stage(1, "won", 70).await;
    app.advance_s(STEPS_S[2]);
    app.delivered(6).await;
    assert_eq!(
        app.taken(),
        ["1 initial_lead", "2 initial_lead", "1 proposal", "2 qualified", "1 qualified", "1 won"]
    );
    app.finish().await;
}

#[tokio::test]
async fn the_trouble_of_one_dataset_delays_no_other() {
    let app = TestApp::start_with(DATASET_701, Arc::new(MemoryStore::default())).await;
    app.misbehave([Fault::Hang]);
    app.report(&[lead_of("301", 1)]).await;
    app.until(async || app.meta.requests() == 1).await;
    app.report(&[lead(2), lead(3)]).await;
    app.delivered(2).await;
    assert_eq!(app.taken(), ["2 initial_lead", "3 initial_lead"]);
    assert_eq!(app.timeline(1).await, ["initial_lead pending"]);

    tokio::time::pause();
    tokio::time::advance(SEND_TIMEOUT).await;
    tokio::time::resume();
    app.failed(1, 1).await;
    let message = &app.event(1, "initial_lead").await["error"]["message"];
    assert_eq!(message, "the Graph API did not answer in time");
    app.advance_s(STEPS_S[0]);
    app.delivered(3).await;
    assert_eq!(app.meta.events()[2].dataset_id, "701");
    app.finish().await;
}

// ---- Failures ---------------------------------------------------------------------------------

#[tokio::test]
async fn every_kind_of_failure_is_on_record_and_followed_by_a_delivery() {
    let app = TestApp::start().await;
    let broken = "the connection to the Graph API broke";
    for (number, (fault, status, code, message)) in [
        (error(500, 1, None), json!(500), json!(1), "Told to misbehave"),
        (error(400, 4, None), json!(400), json!(4), "Told to misbehave"),
        (error(429, 80_004, None), json!(429), json!(80_004), "Told to misbehave"),
        (Fault::ErrorInside, json!(200), json!(2), "Service temporarily unavailable"),
        (Fault::Short, json!(200), Value::Null, "HTTP 200, events_received Some(0) of 1"),
        (Fault::Garbage, json!(200), Value::Null, "HTTP 200, events_received None of 1"),
        (Fault::Cut, Value::Null, Value::Null, broken),
        (Fault::TakeAndCut, Value::Null, Value::Null, broken),
    ]
    .into_iter()
    .enumerate()
    {
        let number = number as u64;
        app.misbehave([fault.clone()]);
        app.report(&[lead(number)]).await;
        app.failed(number, 1).await;
        let error = app.event(number, "initial_lead").await["error"].clone();
        let seen = (&error["http_status"], &error["code"], &error["message"]);
        assert_eq!(seen, (&status, &code, &json!(message)), "{fault:?}");
        app.advance_s(STEPS_S[0]);
        app.until(async || app.timeline(number).await == ["initial_lead delivered"]).await;
        let event = app.event(number, "initial_lead").await;
        assert_eq!((&event["attempts"], &event["error"]), (&json!(2), &Value::Null), "{fault:?}");
    }
    assert_eq!(app.meta.requests(), 16);
    app.finish().await;
}

#[tokio::test]
async fn an_event_whose_answer_was_lost_is_sent_again_under_the_same_id() {
    let app = TestApp::start().await;
    app.misbehave([Fault::TakeAndCut]);
    app.report(&[lead(1)]).await;
    app.failed(1, 1).await;
    app.advance_s(STEPS_S[0]);
    app.until(async || app.timeline(1).await == ["initial_lead delivered"]).await;
    let taken = app.meta.events();
    assert_eq!(taken[0].event, taken[1].event);
    assert_eq!(taken[0].not_counted, [""; 0]);
    assert_eq!(taken[1].not_counted, ["the same event_id was taken before"]);
    app.finish().await;
}

#[tokio::test]
async fn a_back_off_grows_and_nothing_is_sent_before_it_is_over() {
    let app = TestApp::start().await;
    app.misbehave(vec![error(500, 2, None); STEPS_S.len()]);
    app.report(&[lead(1)]).await;
    for (failures, step_s) in (1..).zip(STEPS_S) {
        app.failed(1, failures).await;
        // The wait is at least half a step; whatever happens meanwhile, nothing is sent.
        app.clock.advance_ms(step_s * 1_000 / 2 - 1);
        app.stage(1, &format!("stage {failures}"), 50).await;
        app.report(&[lead(1 + failures as u64)]).await;
        assert_eq!(app.meta.requests(), failures as u64, "step of {step_s} s");
        app.clock.advance_ms(step_s * 1_000 / 2 + 1);
    }
    app.delivered(1 + 2 * STEPS_S.len()).await;
    assert_eq!(app.meta.requests(), 7);
    app.finish().await;
}

#[tokio::test]
async fn after_a_success_the_back_off_begins_anew() {
    let app = TestApp::start().await;
    app.misbehave(vec![error(500, 2, None); 3]);
    app.report(&[lead(1)]).await;
    for (failures, step_s) in (1..).zip(&STEPS_S[..3]) {
        app.failed(1, failures).await;
        app.advance_s(*step_s);
    }
    app.delivered(1).await;
    app.misbehave([error(500, 2, None)]);
    app.report(&[lead(2)]).await;
    app.failed(2, 1).await;
    app.advance_s(STEPS_S[0]);
    app.delivered(2).await;
    app.finish().await;
}

#[tokio::test]
async fn an_event_that_meta_refuses_is_not_forgotten() {
    let app = TestApp::start().await;
    app.meta.delete_lead(lead_id(1));
    app.report(&[lead(1)]).await;
    app.failed(1, 1).await;
    let event = app.event(1, "initial_lead").await;
    assert_eq!(
        (&event["error"]["code"], &event["error"]["subcode"]),
        (&json!(100), &json!(2_804_036))
    );
    assert_eq!(app.taken(), [""; 0]);
    app.finish_with_rest().await;
}

// ---- Seven days -------------------------------------------------------------------------------

#[tokio::test]
async fn an_event_that_was_good_and_got_too_old_is_a_dead_letter_and_never_sent() {
    let app = TestApp::start().await;
    app.misbehave([error(500, 2, None)]);
    app.report(&[lead(1), lead_created_at(2, CREATED - DAY)]).await;
    app.failed(1, 1).await;
    app.advance_s(6 * DAY);
    app.delivered(1).await;
    assert_eq!(app.taken(), ["1 initial_lead"], "the younger one of the same batch");
    let dead = app.event(2, "initial_lead").await;
    assert_eq!((&dead["state"], &dead["reason"]), (&json!("dead"), &json!("expired")));
    assert_eq!((&dead["attempts"], &dead["event_time"]), (&json!(1), &json!(CREATED - DAY + 1)));
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("events_dead_total{reason=\"expired\"} 1"), "{metrics}");
    assert_eq!(app.meta.requests(), 2);
    app.finish().await;
}

#[tokio::test]
async fn a_dead_letter_whose_time_is_over_cannot_be_sent_after_all() {
    let app = TestApp::start().await;
    app.misbehave([error(500, 2, None)]);
    app.report(&[lead(1)]).await;
    app.failed(1, 1).await;
    app.advance_s(7 * DAY);
    app.until(async || app.timeline(1).await == ["initial_lead dead expired"]).await;
    let event_id = app.event(1, "initial_lead").await["event_id"].as_str().unwrap().to_owned();
    let retry = format!("/v1/events/{event_id}/retry");
    let answer = app.ask(ADMIN_KEY, Method::POST, &retry).await;
    assert_eq!(answer.problem(), (409, "not_retriable".into()));
    assert_eq!(answer.json()["deliver_before"], CREATED + 1 + 7 * DAY);
    assert_eq!(app.timeline(1).await, ["initial_lead dead expired"]);
    app.finish().await;
}

#[tokio::test]
async fn to_retry_what_is_not_dead_changes_nothing() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    let event = app.event(1, "initial_lead").await;
    let retry = format!("/v1/events/{}/retry", event["event_id"].as_str().unwrap());
    let answer = app.ask(ADMIN_KEY, Method::POST, &retry).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, event));
    assert_eq!(app.taken(), ["1 initial_lead"]);
    app.finish().await;
}

// ---- Restarts and stores ----------------------------------------------------------------------

#[tokio::test]
async fn what_was_not_delivered_before_a_restart_is_delivered_after_it() {
    let (store, clock) = (Arc::new(MemoryStore::default()), clock_at_start());
    let one = crate::support::DATASET_700;
    let app = TestApp::start_at(one, store.clone(), clock.clone()).await;
    app.misbehave([error(500, 2, None)]);
    app.report(&[lead(1)]).await;
    app.failed(1, 1).await;
    app.stage(1, "qualified", 50).await;
    app.finish_with_rest().await;

    let app = TestApp::start_at(one, store, clock).await;
    app.delivered(2).await;
    assert_eq!(app.taken(), ["1 initial_lead", "1 qualified"]);
    assert_eq!(app.event(1, "initial_lead").await["attempts"], 2);
    app.finish().await;
}

#[tokio::test]
async fn what_meta_took_is_not_sent_again_because_it_could_not_be_written_down() {
    let store = Arc::new(FailingStore::default());
    let app = TestApp::start_with("", store.clone()).await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    store.fail_settling(true);
    app.report(&[lead(2)]).await;
    app.until(async || app.meta.requests() == 2).await;
    for step_s in STEPS_S {
        app.until(async || store.take_failures() > 0).await;
        app.advance_s(step_s);
    }
    assert_eq!(app.timeline(2).await, ["initial_lead pending"]);
    store.fail_settling(false);
    app.advance_s(120);
    app.delivered(2).await;
    assert_eq!(
        (app.meta.requests(), app.taken()),
        (2, vec!["1 initial_lead".into(), "2 initial_lead".into()])
    );
    app.finish().await;
}

#[tokio::test]
async fn an_undelivered_event_raises_the_alarm_a_day_before_it_is_too_old() {
    let app = TestApp::start().await;
    app.misbehave(vec![error(500, 2, None); 1_000]);
    app.report(&[lead(1)]).await;
    app.failed(1, 1).await;
    let alarm = "leadloop_events_near_deadline{dataset=\"700\"} 1";
    let alarmed = async || {
        let metrics = app.send(app.request(Method::GET, "/metrics")).await;
        metrics.text.contains(alarm)
    };
    app.advance_s(6 * DAY - 200);
    app.failed(1, 2).await;
    assert!(!alarmed().await);
    app.advance_s(160);
    app.until(alarmed).await;
    assert_eq!(app.timeline(1).await, ["initial_lead pending"]);
    app.meta.behave();
    app.advance_s(3_600);
    app.delivered(1).await;
    app.advance_s(60);
    app.until(async || !alarmed().await).await;
    app.finish().await;
}
