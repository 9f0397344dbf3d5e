//! Looking leads and events up: exact shapes, filters, cursors, and what is refused.

use leadloop::sandbox::faults::Fault;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    ADMIN_KEY, CREATED, DAY, START, TestApp, lead, lead_created_at, lead_id, lead_of,
};

/// The numbers of the leads in a list, in order.
fn numbers(leads: &[Value]) -> Vec<u64> {
    let number = |lead: &Value| {
        let id: u64 = lead["lead_id"].as_str().unwrap().parse().unwrap();
        id - lead_id(0).get()
    };
    leads.iter().map(number).collect()
}

/// The numbers of the leads that pass a filter.
async fn listed(app: &TestApp, filter: &str) -> Vec<u64> {
    numbers(&app.whole_list(&format!("/v1/leads?{filter}"), "leads").await)
}

// ---- Shapes -----------------------------------------------------------------------------------

#[tokio::test]
async fn a_lead_is_shown_with_its_whole_timeline() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    assert_eq!(
        app.lead(1).await,
        json!({
            "lead_id": "36795652870078002", "page_id": "300", "form_id": "17", "ad_id": "55",
            "created_time": CREATED, "created_at": "2025-11-01T12:26:40Z",
            "received_at": "2025-11-01T12:28:20Z", "source": "webhook", "test": false,
            "raw_lead": "emitted", "dataset_id": "700", "stage": "initial_lead",
            "events": [{
                "event_id": "evt_0082b9738a997e32a1e8834fdc57517c065e8c40",
                "lead_id": "36795652870078002", "dataset_id": "700", "stage": "initial_lead",
                "event_time": CREATED + 1, "event_at": "2025-11-01T12:26:41Z",
                "state": "delivered", "reason": null, "dead_at": null, "adjusted": false, "source": "webhook",
                "received_at": "2025-11-01T12:28:20Z", "deliver_before": CREATED + 1 + 7 * DAY,
                "attempts": 1, "fbtrace_id": "Sandbox1",
                "delivered_at": "2025-11-01T12:28:20Z", "error": null,
            }],
            "missing_stages": [], "crm_ids": [], "customer": [],
        })
    );
    app.finish().await;
}

#[tokio::test]
async fn an_event_is_shown_with_every_attempt() {
    let app = TestApp::start().await;
    app.misbehave([Fault::Error {
        http_status: 400,
        code: 100,
        subcode: Some(2_804_036),
        is_transient: false,
    }]);
    app.report(&[lead(1)]).await;
    app.failed(1, 1).await;
    let failed = json!({"code": 100, "subcode": 2_804_036, "message": "Told to misbehave",
                        "http_status": 400});
    let mut explained = failed.clone();
    explained["meaning"] = json!("Meta does not know the lead id, or the lead was deleted.");
    explained["advice"] =
        json!("Check that the lead exists at Meta and that its id was not rounded on the way.");
    let event = app.event(1, "initial_lead").await;
    assert_eq!((&event["state"], &event["error"]), (&json!("pending"), &explained));
    assert_eq!((&event["fbtrace_id"], &event["delivered_at"]), (&json!("Sandbox"), &Value::Null));
    app.advance_s(30);
    app.delivered(1).await;
    let attempt = |at: &str, more: Value| {
        let mut attempt = json!({
            "at": at, "duration_ms": 0, "events": 1, "dataset_id": "700", "delivered": true,
            "http_status": 200, "code": null, "subcode": null, "fbtrace_id": "Sandbox2",
            "message": null});
        attempt.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        attempt
    };
    let mut first = failed.clone();
    first["delivered"] = json!(false);
    first["fbtrace_id"] = json!("Sandbox");
    let event = app.event(1, "initial_lead").await;
    assert_eq!(
        event["attempt_log"],
        json!([attempt("2025-11-01T12:28:20Z", first), attempt("2025-11-01T12:28:50Z", json!({}))])
    );
    assert_eq!((&event["attempts"], &event["error"]), (&json!(2), &Value::Null));
    app.finish().await;
}

#[tokio::test]
async fn a_listed_lead_is_a_lead_without_its_timeline() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    let mut whole = app.lead(1).await;
    for field in ["events", "missing_stages", "crm_ids", "customer"] {
        whole.as_object_mut().unwrap().remove(field);
    }
    let page = app.get("/v1/leads").await.json();
    assert_eq!(page, json!({"leads": [whole], "next_cursor": null}));
    app.finish().await;
}

#[tokio::test]
async fn a_listed_event_is_the_event_of_the_timeline() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    let page = app.get("/v1/events").await.json();
    assert_eq!(page, json!({"events": app.lead(1).await["events"], "next_cursor": null}));
    app.finish().await;
}

#[tokio::test]
async fn an_organic_lead_has_no_ad() {
    let app = TestApp::start().await;
    let mut organic = lead(1);
    organic.as_object_mut().unwrap().remove("ad_id");
    app.report(&[organic]).await;
    app.delivered(1).await;
    assert_eq!(app.lead(1).await["ad_id"], Value::Null);
    app.finish().await;
}

#[tokio::test]
async fn the_stage_of_a_lead_is_the_one_it_reached_last_whatever_was_reported_last() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    app.stage(1, "won", 60).await;
    app.stage(1, "qualified", 50).await;
    app.delivered(3).await;
    assert_eq!(app.lead(1).await["stage"], "won");
    let timeline = ["initial_lead delivered", "won delivered", "qualified delivered"];
    assert_eq!(app.timeline(1).await, timeline, "in the order of their reports");
    app.finish().await;
}

// ---- Filters ----------------------------------------------------------------------------------

#[tokio::test]
async fn leads_are_found_by_page_form_stage_time_and_state() {
    let app = TestApp::start().await;
    let mut other_form = lead(3);
    other_form["form_id"] = json!("18");
    app.report(&[lead(1), lead_of("301", 2), other_form]).await;
    app.report(&[lead_created_at(4, CREATED - 60), lead_created_at(5, START + 60)]).await;
    app.stage(1, "qualified", 50).await;
    app.delivered(5).await;
    for (filter, expected) in [
        ("", vec![5, 4, 3, 2, 1]),
        ("page_id=301", vec![2]),
        ("page_id=302", vec![]),
        ("form_id=18", vec![3]),
        ("stage=qualified", vec![1]),
        ("stage=initial_lead", vec![5, 4, 3, 2]),
        ("state=held", vec![5]),
        ("state=delivered", vec![4, 3, 2, 1]),
        ("state=dead", vec![]),
        ("created_from=1762000001", vec![5]),
        ("created_before=1762000000", vec![4]),
        ("created_from=2025-11-01T12:26:40Z&created_before=2025-11-01T12:26:41Z", vec![3, 2, 1]),
        ("page_id=300&form_id=17&stage=initial_lead&state=delivered", vec![4]),
        ("page_id=&stage=", vec![5, 4, 3, 2, 1]),
    ] {
        assert_eq!(listed(&app, filter).await, expected, "{filter}");
    }
    app.finish_with_rest().await;
}

#[tokio::test]
async fn events_are_found_by_state() {
    let app = TestApp::start().await;
    app.report(&[lead(1), lead_created_at(2, START + 60)]).await;
    app.stage(3, "qualified", 50).await;
    app.delivered(1).await;
    for (state, count) in
        [("delivered", 1), ("held", 1), ("awaiting_lead", 1), ("pending", 0), ("dead", 0)]
    {
        let rows = app.whole_list(&format!("/v1/events?state={state}"), "events").await;
        assert_eq!(rows.len(), count, "{state}");
        assert!(rows.iter().all(|event| event["state"] == state));
    }
    assert_eq!(app.whole_list("/v1/events?limit=1", "events").await.len(), 3);
    app.finish_with_rest().await;
}

// ---- Pages ------------------------------------------------------------------------------------

#[tokio::test]
async fn a_list_read_page_by_page_is_whole_while_leads_arrive() {
    let app = TestApp::start().await;
    for number in 1..=7 {
        app.report(&[lead(number)]).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for arriving in 8..=11 {
        let page = app.get(&format!("/v1/leads?limit=2&cursor={cursor}")).await.json();
        seen.extend(numbers(page["leads"].as_array().unwrap()));
        cursor = page["next_cursor"].as_str().unwrap_or_default().to_owned();
        app.report(&[lead(arriving)]).await;
    }
    assert_eq!((seen, cursor.as_str()), (vec![7, 6, 5, 4, 3, 2, 1], ""));
    assert_eq!(listed(&app, "limit=3").await, (1..=11).rev().collect::<Vec<_>>());
    app.delivered(11).await;
    app.finish().await;
}

#[tokio::test]
async fn a_page_has_fifty_rows_unless_one_to_two_hundred_are_asked_for() {
    let app = TestApp::start().await;
    app.report(&(1..=210).map(lead).collect::<Vec<_>>()).await;
    app.delivered(210).await;
    for list in ["leads", "events"] {
        for (query, rows) in [("", 50), ("?limit=1", 1), ("?limit=200", 200), ("?limit=", 50)] {
            let page = app.get(&format!("/v1/{list}{query}")).await.json();
            assert_eq!(page[list].as_array().unwrap().len(), rows, "{list}{query}");
            assert!(page["next_cursor"].is_string());
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn a_page_that_ends_with_the_list_has_no_cursor() {
    let app = TestApp::start().await;
    app.report(&[lead(1), lead(2)]).await;
    app.delivered(2).await;
    assert_eq!(app.get("/v1/leads?limit=2").await.json()["next_cursor"], Value::Null);
    assert!(app.get("/v1/leads?limit=1").await.json()["next_cursor"].is_string());
    app.finish().await;
}

// ---- Refused ----------------------------------------------------------------------------------

#[tokio::test]
async fn a_question_that_cannot_be_understood_is_refused_and_the_field_is_named() {
    let app = TestApp::start().await;
    for (path, field) in [
        ("/v1/leads?limit=0", "limit"),
        ("/v1/leads?limit=201", "limit"),
        ("/v1/leads?limit=-1", "limit"),
        ("/v1/leads?limit=ten", "limit"),
        ("/v1/leads?cursor=1", "cursor"),
        ("/v1/leads?page_id=abc", "page_id"),
        ("/v1/leads?form_id=-3", "form_id"),
        ("/v1/leads?state=sent", "state"),
        ("/v1/leads?stage=%00", "stage"),
        ("/v1/leads?created_from=yesterday", "created_from"),
        ("/v1/leads?created_before=1762000000000", "created_before"),
        ("/v1/events?state=sent", "state"),
        ("/v1/events?limit=201", "limit"),
        ("/v1/quarantine?cursor=x", "cursor"),
    ] {
        let answer = app.get(path).await;
        assert_eq!(answer.problem(), (400, "invalid_request".into()), "{path}");
        assert_eq!(answer.json()["field"], field);
    }
    let long = format!("/v1/leads?stage={}", "x".repeat(513));
    assert_eq!(app.get(&long).await.problem(), (400, "invalid_request".into()));
    app.finish().await;
}

#[tokio::test]
async fn an_unknown_parameter_is_refused_because_a_misspelt_filter_would_find_everything() {
    let app = TestApp::start().await;
    for path in ["/v1/leads?pageid=1", "/v1/events?page_id=1", "/v1/quarantine?state=dead"] {
        let answer = app.get(path).await;
        assert_eq!(answer.problem(), (400, "invalid_request".into()), "{path}");
    }
    app.finish().await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_what_is_no_id_is_said_to_be_none() {
    let app = TestApp::start().await;
    let event = "evt_0082b9738a997e32afd4ddd7e4be8d23a57b0df8";
    for (method, path, expected) in [
        (Method::GET, format!("/v1/leads/{}", lead_id(1)), (404, "lead_not_found")),
        (Method::GET, "/v1/leads/4711".into(), (400, "invalid_lead_id")),
        (Method::GET, "/v1/leads/abc".into(), (400, "invalid_lead_id")),
        (Method::GET, "/v1/leads/3.6e16".into(), (400, "invalid_lead_id")),
        (Method::GET, "/v1/leads/%FF".into(), (400, "invalid_request")),
        (Method::GET, "/v1/leads/".into(), (404, "not_found")),
        (Method::GET, format!("/v1/events/{event}"), (404, "not_found")),
        (Method::GET, "/v1/events/evt_1".into(), (404, "not_found")),
        (Method::GET, "/v1/events/%FF".into(), (400, "invalid_request")),
        (Method::POST, format!("/v1/events/{event}/retry"), (404, "not_found")),
        (Method::POST, "/v1/events/evt_1/retry".into(), (404, "not_found")),
    ] {
        let answer = app.ask(ADMIN_KEY, method, &path).await;
        assert_eq!(answer.problem(), (expected.0, expected.1.to_owned()), "{path}");
    }
    app.finish().await;
}
