//! Dead letters: found by filters, queued again one or many, exported; by API and command line.

use std::sync::Arc;

use leadloop::domain::event::{Attempt, DeadReason};
use leadloop::domain::ids::{DatasetId, PageId};
use leadloop::domain::lead::{Lead, ReportedLead};
use leadloop::domain::stage::{SourceName, StageName};
use leadloop::domain::time::{Timestamp, UnixSeconds};
use leadloop::sandbox::faults::Fault;
use leadloop::store::memory::MemoryStore;
use leadloop::store::{Hold, Intake, Settlement, Store};
use reqwest::Method;
use serde_json::{Value, json};

use crate::process::program::{Ended, Place};
use crate::support::store::FailingStore;
use crate::support::{ADMIN_KEY, CREATED, DATASET_701, DAY, START, TestApp, lead, lead_id};

const NEVER: &str = "evt_0082b9738a997e32afd4ddd7e4be8d23a57b0df8";

/// Puts leads of a dataset into a store, and makes dead letters of their raw-lead events.
async fn bury(
    store: &dyn Store,
    numbers: impl Iterator<Item = u64>,
    dataset: u64,
    created: i64,
    (reason, code): (DeadReason, i64),
) {
    let now = Timestamp::from_millis(START * 1_000);
    let dataset_id = DatasetId::from_u64(dataset).unwrap();
    let lead = |number| {
        let reported = ReportedLead {
            lead_id: lead_id(number),
            page_id: PageId::from_u64(if dataset == 701 { 301 } else { 300 }),
            form_id: None,
            ad_id: None,
            created_time: UnixSeconds::new(created),
            test: false,
        };
        let raw_stage = StageName::parse("initial_lead").unwrap();
        Lead::new(reported, SourceName::webhook(), Some(dataset_id), raw_stage, now)
    };
    let leads = numbers.map(lead).collect();
    store.ingest(Intake { leads, quarantined: Vec::new() }, now).await.unwrap();
    let batch = store.next_batch(dataset_id, now, usize::MAX, &[].into()).await.unwrap();
    let entries: Vec<_> = batch.events.iter().map(|queued| queued.entry).collect();
    let attempt = Attempt {
        dataset_id,
        at: now,
        duration_ms: 20,
        events: 1,
        delivered: false,
        http_status: Some(400),
        code: Some(code),
        subcode: Some(2_804_050),
        fbtrace_id: Some("-Trace".into()),
        message: Some("=something about Erika".into()),
    };
    let settlement = Settlement {
        dataset_id,
        attempt: Some(attempt),
        delivered: Vec::new(),
        failed: entries.clone(),
        dead: entries.into_iter().map(|entry| (entry, reason)).collect(),
        at: now,
        hold: Hold::default(),
    };
    store.settle(settlement).await.unwrap();
}

const REFUSED: (DeadReason, i64) = (DeadReason::RefusedByMeta, 100);
const EXPIRED: (DeadReason, i64) = (DeadReason::Expired, 190);

/// A server over a store, with the datasets 700 and 701; Meta knows the leads by now.
async fn app_over(store: Arc<dyn Store>, leads: u64) -> TestApp {
    let app = TestApp::start_with(DATASET_701, store).await;
    for number in 1..=leads {
        app.meta.know_lead(lead_id(number), UnixSeconds::new(CREATED - 10));
    }
    app
}

/// Dead letters 1 and 2 were refused in dataset 700 and 3 expired; 4 was refused in 701.
async fn four_dead_letters() -> TestApp {
    let store = Arc::new(MemoryStore::default());
    bury(&*store, 1..=2, 700, CREATED, REFUSED).await;
    bury(&*store, 3..=3, 700, CREATED - 10, EXPIRED).await;
    bury(&*store, 4..=4, 701, CREATED, REFUSED).await;
    app_over(store, 4).await
}

/// The numbers of the leads whose events pass a filter, newest first.
async fn found(app: &TestApp, filter: &str) -> Vec<u64> {
    let events = app.whole_list(&format!("/v1/events?{filter}"), "events").await;
    let number = |event: &Value| {
        event["lead_id"].as_str().unwrap().parse::<u64>().unwrap() - lead_id(0).get()
    };
    events.iter().map(number).collect()
}

async fn retry(app: &TestApp, body: Value) -> Value {
    let answer = app.post("/v1/events/retry", &body).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text);
    answer.json()
}

fn counts(requeued: u64, hopeless: u64, not_dead: u64, not_found: u64) -> Value {
    json!({"requeued": requeued, "hopeless": hopeless, "not_dead": not_dead,
           "not_found": not_found, "dry_run": false, "next_cursor": null})
}

// ---- Found ------------------------------------------------------------------------------------

#[tokio::test]
async fn dead_letters_are_found_by_reason_dataset_lead_code_and_time() {
    let app = four_dead_letters().await;
    for (filter, expected) in [
        ("state=dead", vec![4, 3, 2, 1]),
        ("reason=refused_by_meta", vec![4, 2, 1]),
        ("state=dead&reason=expired", vec![3]),
        ("reason=duplicate", vec![]),
        ("dataset_id=701", vec![4]),
        ("state=pending&dataset_id=701", vec![]),
        ("lead_id=36795652870078003", vec![2]),
        ("code=190", vec![3]),
        ("code=-1", vec![]),
        ("created_before=1762000000", vec![3]),
        ("created_from=2025-11-01T12:26:40Z&dataset_id=700", vec![2, 1]),
        ("reason=refused_by_meta&dataset_id=700&code=100&limit=1", vec![2, 1]),
        ("reason=&dataset_id=&code=", vec![4, 3, 2, 1]),
    ] {
        assert_eq!(found(&app, filter).await, expected, "{filter}");
    }
    let dead = app.get("/v1/events?lead_id=36795652870078005").await.json()["events"][0].clone();
    assert_eq!((&dead["dataset_id"], &dead["dead_at"]), (&json!("701"), &dead["received_at"]));
    assert_eq!(dead["error"]["meaning"], "The customer information is missing or too broad.");
    app.finish().await;
}

#[tokio::test]
async fn a_filter_that_makes_no_sense_is_refused_and_the_field_is_named() {
    let app = TestApp::start().await;
    for (query, field) in [
        ("reason=tired", "reason"),
        ("state=pending&reason=expired", "reason"),
        ("dataset_id=x", "dataset_id"),
        ("lead_id=4711", "lead_id"),
        ("code=many", "code"),
        ("created_from=yesterday", "created_from"),
        ("created_before=1762000000000", "created_before"),
    ] {
        let answer = app.get(&format!("/v1/events?{query}")).await;
        assert_eq!(answer.problem(), (400, "invalid_request".into()), "{query}");
        assert_eq!(answer.json()["field"], field);
    }
    app.finish().await;
}

#[tokio::test]
async fn of_an_event_with_many_attempts_the_last_are_shown_and_all_are_counted() {
    let app = TestApp::start().await;
    let trouble = Fault::Error { http_status: 500, code: 2, subcode: None, is_transient: false };
    app.misbehave(vec![trouble; 103]);
    app.report(&[lead(1)]).await;
    for attempts in 1..=103 {
        app.failed(1, attempts).await;
        app.advance_s(901);
    }
    app.delivered(1).await;
    let event = app.event(1, "initial_lead").await;
    let log = event["attempt_log"].as_array().unwrap();
    assert_eq!((event["attempts"].as_u64(), log.len()), (Some(104), 100));
    assert_eq!((&log[99]["delivered"], &log[0]["delivered"]), (&json!(true), &json!(false)));
    app.finish().await;
}

// ---- Queued again -----------------------------------------------------------------------------

#[tokio::test]
async fn many_dead_letters_are_queued_again_and_delivered_under_the_same_ids() {
    let app = four_dead_letters().await;
    let before = app.whole_list("/v1/events?state=dead", "events").await;
    let filter = json!({"reason": "refused_by_meta", "dataset_id": 700});
    assert_eq!(retry(&app, filter.clone()).await, counts(2, 0, 0, 0));
    app.delivered(2).await;
    assert_eq!(retry(&app, filter).await, counts(0, 0, 0, 0), "once is enough");
    assert_eq!(found(&app, "state=dead").await, [4, 3]);
    assert_eq!(retry(&app, json!({"all": true})).await, counts(2, 0, 0, 0));
    app.delivered(4).await;
    let mut ids: Vec<_> = before.iter().map(|event| event["event_id"].clone()).collect();
    let mut sent: Vec<_> =
        app.meta.events().iter().map(|taken| taken.event["event_id"].clone()).collect();
    ids.sort_by_key(ToString::to_string);
    sent.sort_by_key(ToString::to_string);
    assert_eq!(sent, ids);
    app.finish().await;
}

#[tokio::test]
async fn named_ones_are_queued_again_and_what_became_of_each_is_counted() {
    let app = four_dead_letters().await;
    let id = async |number| app.event(number, "initial_lead").await["event_id"].clone();
    let (first, third) = (id(1).await, id(3).await);
    let named = json!({"event_ids": [first, first, third, NEVER]});
    assert_eq!(retry(&app, named.clone()).await, counts(2, 0, 0, 1));
    app.delivered(2).await;
    assert_eq!(retry(&app, named).await, counts(0, 0, 2, 1));
    assert_eq!(found(&app, "state=dead").await, [4, 2]);
    app.finish().await;
}

#[tokio::test]
async fn a_dry_run_tells_what_would_be_and_changes_nothing() {
    let app = four_dead_letters().await;
    let mut expected = counts(3, 0, 0, 0);
    expected["dry_run"] = json!(true);
    let dry = retry(&app, json!({"reason": "refused_by_meta", "dry_run": true})).await;
    assert_eq!(dry, expected);
    assert_eq!(found(&app, "state=dead").await.len(), 4);
    assert_eq!(app.meta.requests(), 0);
    app.finish().await;
}

#[tokio::test]
async fn what_cannot_arrive_in_time_any_more_stays_dead_and_is_counted() {
    let app = four_dead_letters().await;
    // The third lead is ten seconds older than the others; a minute before the end is too late.
    app.advance_s(7 * DAY + 1 - 100 - 60 - 5);
    assert_eq!(retry(&app, json!({"all": true})).await, counts(3, 1, 0, 0));
    app.delivered(3).await;
    assert_eq!(found(&app, "state=dead").await, [3]);
    app.finish().await;
}

#[tokio::test]
async fn more_than_a_thousand_go_call_by_call_and_none_is_lost() {
    let store = Arc::new(MemoryStore::default());
    bury(&*store, 1..=1_100, 700, CREATED, REFUSED).await;
    let app = app_over(store, 1_100).await;
    let first = retry(&app, json!({"reason": "refused_by_meta"})).await;
    assert_eq!((&first["requeued"], first["next_cursor"].is_string()), (&json!(1_000), true));
    let cursor = &first["next_cursor"];
    let second = retry(&app, json!({"reason": "refused_by_meta", "cursor": cursor})).await;
    assert_eq!(second, counts(100, 0, 0, 0));
    app.delivered(1_100).await;
    app.finish().await;
}

#[tokio::test]
async fn a_wish_that_says_nothing_or_nonsense_is_refused_and_changes_nothing() {
    let app = four_dead_letters().await;
    for body in [
        json!({}),
        json!({"all": false}),
        json!({"dry_run": false}),
        json!({"reason": null}),
        json!({"reason": ""}),
        json!({"reason": "tired"}),
        json!({"state": "delivered", "dataset_id": "700"}),
        json!({"all": true, "dataset_id": "700"}),
        json!({"event_ids": [NEVER], "dataset_id": "700"}),
        json!({"event_ids": []}),
        json!({"event_ids": ["evt_1"]}),
        json!({"datasets": "700"}),
        json!([]),
    ] {
        let answer = app.post("/v1/events/retry", &body).await;
        assert_eq!(answer.problem(), (400, "invalid_request".into()), "{body}");
    }
    let many = json!({"event_ids": vec![NEVER; 1_001]});
    let answer = app.post("/v1/events/retry", &many).await;
    assert_eq!(answer.problem(), (413, "payload_too_large".into()));
    assert_eq!(found(&app, "state=dead").await.len(), 4);
    app.finish().await;
}

#[tokio::test]
async fn while_the_store_fails_nothing_is_queued_again_and_the_caller_is_told() {
    let store = Arc::new(FailingStore::default());
    bury(&*store, 1..=2, 700, CREATED, REFUSED).await;
    let app = app_over(store.clone(), 2).await;
    store.fail(true);
    let answer = app.post("/v1/events/retry", &json!({"all": true})).await;
    assert_eq!(answer.problem(), (503, "store_unavailable".into()));
    store.fail(false);
    assert_eq!(found(&app, "state=dead").await, [2, 1]);
    app.finish().await;
}

// ---- By the command line ----------------------------------------------------------------------

/// Runs `leadloop events` against a server.
async fn events(app: &TestApp, place: &Place, arguments: &[&str]) -> Ended {
    let environment =
        [("LEADLOOP_API_KEY", ADMIN_KEY), ("LEADLOOP_SERVER", &app.url), ("LEADLOOP_LOG", "off")];
    place.run(&[&["events"], arguments].concat(), &environment).await
}

fn json_of(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"))
}

#[tokio::test]
async fn a_filter_on_the_command_line_is_counted_first_and_carried_out_with_yes() {
    let (app, place) = (four_dead_letters().await, Place::new());
    let filter = ["retry", "--reason", "refused_by_meta", "--dataset", "700"];
    let dry = events(&app, &place, &filter).await;
    assert_eq!((dry.code, &json_of(&dry)["requeued"]), (Some(0), &json!(2)));
    assert_eq!(json_of(&dry)["dry_run"], true);
    assert!(dry.stderr.contains("add --yes") && dry.stderr.lines().count() == 1, "{dry:?}");
    assert_eq!(found(&app, "state=dead").await.len(), 4);
    let done = events(&app, &place, &[&filter[..], &["--yes"]].concat()).await;
    assert_eq!((done.code, &json_of(&done)["requeued"]), (Some(0), &json!(2)));
    assert_eq!(done.stderr, "", "a bar is drawn on a terminal only");
    app.delivered(2).await;
    let rest = events(&app, &place, &["retry", "--all", "--yes"]).await;
    assert_eq!(json_of(&rest)["requeued"], 2, "{rest:?}");
    app.delivered(4).await;
    app.finish().await;
}

#[tokio::test]
async fn named_events_are_queued_again_at_once_and_the_exit_code_tells_of_the_rest() {
    let (app, place) = (four_dead_letters().await, Place::new());
    let id = async |number| app.event(number, "initial_lead").await["event_id"].clone();
    let ids = [id(1).await, id(2).await, id(3).await];
    let ids = ids.each_ref().map(|id| id.as_str().unwrap());
    let done = events(&app, &place, &["retry", ids[0], ids[1]]).await;
    assert_eq!((done.code, &json_of(&done)["requeued"]), (Some(0), &json!(2)), "{done:?}");
    app.delivered(2).await;
    let unknown = events(&app, &place, &["retry", ids[0], NEVER]).await;
    assert_eq!((unknown.code, &json_of(&unknown)["not_dead"]), (Some(3), &json!(1)));
    app.advance_s(7 * DAY);
    let late = events(&app, &place, &["retry", ids[2]]).await;
    assert_eq!((late.code, &json_of(&late)["hopeless"]), (Some(1), &json!(1)), "{late:?}");
    assert!(late.stderr.contains("stays dead"), "{late:?}");
    app.finish().await;
}

#[tokio::test]
async fn events_are_exported_as_lines_of_json_and_as_a_table() {
    let store = Arc::new(MemoryStore::default());
    bury(&*store, 1..=450, 700, CREATED, REFUSED).await;
    bury(&*store, 451..=452, 700, CREATED, EXPIRED).await;
    let (app, place) = (app_over(store, 0).await, Place::new());
    let lines = events(&app, &place, &["export", "--reason", "refused_by_meta"]).await;
    assert_eq!((lines.code, lines.stderr.as_str()), (Some(0), ""));
    let rows: Vec<Value> =
        lines.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 450, "of three pages");
    assert_eq!(rows[449]["lead_id"], "36795652870078002", "the newest first, the oldest last");
    assert_eq!((&rows[0]["code"], &rows[0]["dead_time"]), (&json!(100), &json!(START)));
    assert!(!lines.stdout.contains("Erika"), "Meta's own words stay here");

    let table = ["export", "--state", "dead", "--format", "csv", "--output", "dead.csv"];
    let ended = events(&app, &place, &table).await;
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "", ""));
    let mut table = csv::Reader::from_path(place.path("dead.csv")).unwrap();
    let names = table.headers().unwrap().clone();
    let rows: Vec<_> = table.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 452);
    let last = |name: &str| rows[451].get(names.iter().position(|it| it == name).unwrap()).unwrap();
    assert_eq!((last("lead_id"), last("fbtrace_id")), ("36795652870078002", "'-Trace"));
    app.finish().await;
}

#[tokio::test]
async fn an_export_that_is_refused_leaves_the_files_as_they_are() {
    let (app, place) = (TestApp::start().await, Place::new());
    let refused = ["export", "--state", "lost", "--output", "lost.csv"];
    assert_eq!(events(&app, &place, &refused).await.code, Some(1));
    let nowhere = ["export", "--output", "missing/dead.csv"];
    let ended = events(&app, &place, &nowhere).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("missing/dead.csv.part: cannot be written"), "{ended:?}");
    assert_eq!(std::fs::read_dir(place.path(".")).unwrap().count(), 0);
    std::fs::write(place.path("mine.csv"), "mine").unwrap();
    let ended = events(&app, &place, &["export", "--output", "mine.csv"]).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("mine.csv: exists already"), "{ended:?}");
    assert_eq!(std::fs::read_to_string(place.path("mine.csv")).unwrap(), "mine");
    let unknown = app.ask("wrong", Method::POST, "/v1/events/retry").await;
    assert_eq!(unknown.problem(), (401, "unauthorized".into()));
    app.finish().await;
}
