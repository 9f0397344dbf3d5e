//! Looking for leads that the webhook lost.

use std::sync::Arc;

use leadloop::domain::ids::{FormId, PageId};
use leadloop::domain::mark::FormMark;
use leadloop::domain::time::{Timestamp, UnixSeconds};
use leadloop::sandbox::faults::Fault;
use leadloop::sandbox::form::FilledForm;
use leadloop::store::Store;
use leadloop::store::memory::MemoryStore;
use serde_json::{Value, json};

use crate::graph::{READS, filled, filled_at, reads_of_two_pages, reads_with};
use crate::support::store::FailingStore;
use crate::support::{
    CREATED, DATASET_700, DATASET_701, DAY, START, TestApp, clock_at_start, lead, lead_id,
};

const HOUR: i64 = 3_600;

/// Begins a backfill, and answers how it ended.
async fn backfill(app: &TestApp, wish: &Value) -> Value {
    let answer = app.post("/v1/backfill", wish).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    ended(app).await
}

async fn ended(app: &TestApp) -> Value {
    app.until(async || shown(app).await["state"] == "finished").await;
    shown(app).await
}

async fn shown(app: &TestApp) -> Value {
    app.get("/v1/backfill").await.json()["backfill"].clone()
}

/// The counts of a backfill: leads that were read, new, known, failed and lost.
fn counts(backfill: &Value) -> [u64; 5] {
    ["leads_read", "new", "known", "failed", "lost"].map(|name| backfill[name].as_u64().unwrap())
}

async fn mark(app: &TestApp) -> FormMark {
    app.store.form_mark(FormId::from_u64(17).unwrap()).await.unwrap()
}

/// As if the form had been read up to a day before.
async fn was_read(app: &TestApp) {
    let read_until = Some(UnixSeconds::new(CREATED - DAY));
    let mark = FormMark { read_until, pass: None };
    app.store.set_form_mark(FormId::from_u64(17).unwrap(), mark).await.unwrap();
}

/// Seconds from the creation of lead 1 to the mark of its form.
async fn read_until(app: &TestApp) -> Option<i64> {
    mark(app).await.read_until.map(|until| until.get() - CREATED)
}

#[tokio::test]
async fn what_the_webhook_lost_is_taken_in_and_what_is_known_stays_as_it_is() {
    let app = reads_with("").await;
    app.report(&[lead(1)]).await;
    app.meta.have_lead(filled(1));
    app.meta.have_lead(filled_at(2, CREATED - HOUR));
    was_read(&app).await;
    let ended = backfill(&app, &json!({})).await;
    assert_eq!(ended["new_leads"], json!([lead_id(2).to_string()]));
    assert_eq!(counts(&ended), [2, 1, 1, 0, 1]);
    assert_eq!((&ended["forms"], &ended["forms_read"]), (&json!(1), &json!(1)));
    app.delivered(2).await;
    assert_eq!(app.lead(1).await["source"], "webhook");
    let found = app.lead(2).await;
    assert_eq!((&found["source"], &found["page_id"]), (&json!("backfill"), &json!("300")));
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("leads_found_by_backfill_total 1"), "{metrics}");
    assert_eq!(read_until(&app).await, Some(0));
    app.finish().await;
}

#[tokio::test]
async fn a_lead_that_may_just_be_late_does_not_count_as_lost() {
    let app = reads_with("").await;
    app.meta.have_lead(filled_at(1, START - 899));
    app.meta.have_lead(filled_at(2, START - 901));
    was_read(&app).await;
    let ended = backfill(&app, &json!({})).await;
    assert_eq!(counts(&ended), [2, 2, 0, 0, 1]);
    app.delivered(2).await;
    app.finish().await;
}

#[tokio::test]
async fn what_the_first_reading_of_a_form_finds_was_not_lost() {
    let app = reads_with("").await;
    app.meta.have_lead(filled_at(1, CREATED - DAY));
    assert_eq!(counts(&backfill(&app, &json!({})).await), [1, 1, 0, 0, 0]);
    app.meta.have_lead(filled_at(2, CREATED - DAY + HOUR));
    assert_eq!(counts(&backfill(&app, &json!({})).await), [2, 1, 1, 0, 1]);
    app.delivered(2).await;
    app.finish().await;
}

#[tokio::test]
async fn by_schedule_it_begins_at_the_start_and_goes_on_some_hours_before_the_mark() {
    let settings = "meta_page_access_token = \"test-page-token\"\n";
    let app = TestApp::start_with(settings, Arc::new(MemoryStore::default())).await;
    let first = ended(&app).await;
    assert_eq!((&first["scheduled"], counts(&first)), (&json!(true), [0; 5]));
    app.meta.have_lead(filled(1));
    app.meta.have_lead(filled_at(2, CREATED - 3 * DAY));
    app.advance_s(HOUR);
    app.delivered(2).await;
    // A lead that Meta shows late, dated before the mark, and one that is long known.
    app.meta.have_lead(filled_at(3, CREATED - 5 * HOUR));
    app.advance_s(HOUR);
    app.delivered(3).await;
    app.until(async || counts(&shown(&app).await) == [2, 1, 1, 0, 1]).await;
    app.finish().await;
}

#[tokio::test]
async fn a_form_is_read_page_by_page() {
    let app = reads_with("").await;
    app.meta.show_leads_per_page(2);
    for number in 1..=5 {
        app.meta.have_lead(filled_at(number, CREATED - i64::try_from(number).unwrap()));
    }
    assert_eq!(counts(&backfill(&app, &json!({})).await), [5, 5, 0, 0, 0]);
    assert_eq!((app.meta.reads("forms"), app.meta.reads("leads")), (1, 3));
    app.delivered(5).await;
    app.finish().await;
}

#[tokio::test]
async fn a_pass_that_was_broken_off_goes_on_where_it_was_after_a_start() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let have_leads = |app: &TestApp| {
        app.meta.show_leads_per_page(2);
        for number in 1..=7 {
            let age_h = 20 * i64::try_from(number).unwrap();
            app.meta.have_lead(filled_at(number, CREATED - age_h * HOUR));
        }
    };
    let app = TestApp::start_with(READS, store.clone()).await;
    have_leads(&app);
    // The list of forms and two pages of leads, then a throttle in which the server ends.
    app.meta.misbehave_reading_after(3, [Fault::Throttle { minutes: 15 }]);
    app.post("/v1/backfill", &json!({})).await;
    app.until(async || shown(&app).await["waits_until"].is_string()).await;
    let pass = mark(&app).await.pass.unwrap();
    assert!(pass.after.is_some());
    app.finish_with_rest().await;
    assert_eq!(store.stats().await.unwrap().leads, 4);
    let app = TestApp::start_with(READS, store).await;
    have_leads(&app);
    // Two pages are left of four; then what is newer than some hours before the mark.
    assert_eq!(counts(&backfill(&app, &json!({})).await), [4, 3, 1, 0, 0]);
    assert_eq!(app.meta.reads("leads"), 3);
    assert_eq!((app.stored().await[0], read_until(&app).await), (7, Some(-20 * HOUR)));
    app.until(async || app.listed("delivered").await == 7).await;
    app.finish().await;
}

#[tokio::test]
async fn a_throttle_is_waited_out_and_shown() {
    let app = reads_with("").await;
    app.meta.have_lead(filled(1));
    app.meta.misbehave_reading([Fault::Throttle { minutes: 10 }]);
    app.post("/v1/backfill", &json!({})).await;
    app.until(async || shown(&app).await["waits_until"].is_string()).await;
    assert_eq!(app.meta.reads("forms"), 1);
    let again = app.post("/v1/backfill", &json!({})).await;
    assert_eq!(again.problem(), (409, "backfill_running".into()));
    app.advance_s(600);
    assert_eq!(counts(&ended(&app).await), [1, 1, 0, 0, 0]);
    assert!(shown(&app).await["waits_until"].is_null());
    app.delivered(1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_throttle_without_an_end_costs_its_page_and_the_next_backfill_makes_up_for_it() {
    let app = reads_with("").await;
    app.meta.have_lead(filled(1));
    app.meta.misbehave_reading([10, 10, 10].map(|minutes| Fault::Throttle { minutes }));
    app.post("/v1/backfill", &json!({})).await;
    for asked in 1..=2 {
        app.until(async || app.meta.reads("forms") == asked).await;
        app.until(async || shown(&app).await["waits_until"].is_string()).await;
        app.advance_s(600);
    }
    let given_up = ended(&app).await;
    assert_eq!((&given_up["forms_failed"], counts(&given_up)), (&json!(1), [0; 5]));
    assert_eq!((app.meta.reads("forms"), read_until(&app).await), (3, None));
    app.advance_s(600);
    assert_eq!(counts(&backfill(&app, &json!({})).await)[..2], [1, 1]);
    app.delivered(1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_long_throttle_is_not_waited_out() {
    let app = reads_with("").await;
    app.meta.have_lead(filled(1));
    app.meta.misbehave_reading([Fault::Throttle { minutes: 16 }]);
    assert_eq!(backfill(&app, &json!({})).await["forms_failed"], 1);
    assert_eq!((app.meta.reads("forms"), read_until(&app).await), (1, None));
    app.finish().await;
}

#[tokio::test]
async fn a_token_that_is_refused_costs_its_page_and_the_next_one_makes_up_for_it() {
    let app = reads_with("").await;
    app.meta.have_lead(filled(1));
    let error = Fault::Error { http_status: 401, code: 190, subcode: None, is_transient: false };
    app.meta.misbehave_reading([error]);
    let ended = backfill(&app, &json!({})).await;
    assert_eq!((&ended["forms_failed"], counts(&ended)), (&json!(1), [0; 5]));
    assert_eq!(read_until(&app).await, None);
    // The token rests, so that not every backfill asks in vain.
    assert_eq!(backfill(&app, &json!({})).await["forms_failed"], 1);
    assert_eq!(app.meta.reads("forms"), 1);
    app.advance_s(900);
    assert_eq!(counts(&backfill(&app, &json!({})).await), [1, 1, 0, 0, 0]);
    app.delivered(1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_mark_does_not_move_past_a_lead_that_cannot_be_read() {
    let app = reads_with("").await;
    app.meta.have_lead(filled(1));
    app.meta.have_lead(FilledForm { garbled: true, ..filled_at(2, CREATED - HOUR) });
    app.meta.have_lead(filled_at(3, CREATED - 2 * HOUR));
    let ended = backfill(&app, &json!({})).await;
    assert_eq!(counts(&ended), [2, 2, 0, 1, 0], "the others beside it are taken in");
    assert_eq!(read_until(&app).await, Some(-HOUR - 1));
    // Long after the overlap, it is still asked for; now it can be read.
    app.meta.have_lead(filled_at(2, CREATED - HOUR));
    app.advance_s(2 * DAY);
    assert_eq!(counts(&backfill(&app, &json!({})).await), [3, 1, 2, 0, 1]);
    assert_eq!(read_until(&app).await, Some(0));
    app.delivered(3).await;
    app.finish().await;
}

#[tokio::test]
async fn a_mark_does_not_move_past_a_page_that_failed() {
    let app = reads_with("").await;
    app.meta.have_lead(filled(1));
    assert_eq!(counts(&backfill(&app, &json!({})).await), [1, 1, 0, 0, 0]);
    app.meta.show_leads_per_page(1);
    app.meta.have_lead(filled_at(2, CREATED + 50));
    let refused = Fault::Error { http_status: 400, code: 100, subcode: None, is_transient: false };
    // The list of forms is read, and the first page of leads refused.
    app.meta.misbehave_reading_after(1, [refused]);
    assert_eq!(backfill(&app, &json!({})).await["forms_failed"], 1);
    assert_eq!(read_until(&app).await, Some(0));
    assert_eq!(counts(&backfill(&app, &json!({})).await), [2, 1, 1, 0, 0]);
    assert_eq!(read_until(&app).await, Some(50));
    app.delivered(2).await;
    app.finish().await;
}

#[tokio::test]
async fn a_next_page_without_a_cursor_fails_the_form_and_the_mark_stays() {
    let app = reads_with("").await;
    app.meta.have_lead(filled(1));
    // A page without rows has no cursor, and says that there is more.
    app.meta.show_leads_per_page(0);
    let ended = backfill(&app, &json!({})).await;
    assert_eq!((&ended["forms_failed"], &ended["forms_read"]), (&json!(1), &json!(0)));
    assert_eq!(read_until(&app).await, None);
    app.meta.show_leads_per_page(1);
    assert_eq!(counts(&backfill(&app, &json!({})).await)[..2], [1, 1]);
    app.delivered(1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_cursor_that_meta_forgot_costs_a_new_beginning_and_only_one() {
    let app = reads_with("").await;
    app.meta.show_leads_per_page(1);
    for number in 1..=3 {
        app.meta.have_lead(filled_at(number, CREATED - i64::try_from(number).unwrap()));
    }
    let refused =
        || [Fault::Error { http_status: 400, code: 100, subcode: None, is_transient: false }];
    // Forms and a page go well, the second page does not; then a page, and again not the second.
    app.meta.misbehave_reading_after(2, refused());
    app.meta.misbehave_reading_after(1, refused());
    assert_eq!(backfill(&app, &json!({})).await["forms_failed"], 1);
    assert_eq!((app.meta.reads("leads"), read_until(&app).await), (4, None));
    // The pass goes on behind its first page, and one more begins at the mark.
    app.meta.misbehave_reading_after(1, refused());
    assert_eq!(backfill(&app, &json!({})).await["forms_failed"], 0);
    assert_eq!(read_until(&app).await, Some(-1));
    app.delivered(3).await;
    app.finish().await;
}

#[tokio::test]
async fn a_store_that_fails_leaves_the_mark_where_it_was() {
    let store = Arc::new(FailingStore::default());
    let settings = format!("{DATASET_700}{READS}");
    let app = TestApp::start_at(&settings, store.clone(), clock_at_start()).await;
    app.meta.have_lead(filled(1));
    store.fail(true);
    assert_eq!(backfill(&app, &json!({})).await["forms_failed"], 1);
    store.fail(false);
    assert_eq!(read_until(&app).await, None);
    assert_eq!(counts(&backfill(&app, &json!({})).await), [1, 1, 0, 0, 0]);
    // The worker may have met the failing store, and waits a second then.
    app.advance_s(1);
    app.delivered(1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_dry_run_tells_how_many_are_new_and_changes_nothing() {
    let app = reads_with("").await;
    app.meta.have_lead(filled(1));
    app.meta.have_lead(filled(2));
    app.report(&[lead(2)]).await;
    app.delivered(1).await;
    let ended = backfill(&app, &json!({"dry_run": true})).await;
    assert_eq!((&ended["dry_run"], counts(&ended)), (&json!(true), [2, 1, 1, 0, 0]));
    assert_eq!((app.stored().await, mark(&app).await), ([1, 0, 0, 0], FormMark::default()));
    app.finish().await;
}

#[tokio::test]
async fn late_finds_follow_the_rule_on_age() {
    let app = reads_with("").await;
    app.meta.have_lead(filled_at(1, CREATED - 6 * DAY));
    app.meta.have_lead(filled_at(2, CREATED - 8 * DAY));
    assert_eq!(counts(&backfill(&app, &json!({})).await), [1, 1, 0, 0, 0]);
    let since = CREATED - 30 * DAY;
    assert_eq!(counts(&backfill(&app, &json!({"since": since})).await), [2, 1, 1, 0, 1]);
    app.delivered(1).await;
    assert_eq!(app.taken(), ["1 initial_lead"]);
    assert_eq!(app.lead(2).await["events"], json!([]));
    app.finish().await;
}

#[tokio::test]
async fn a_stage_that_awaited_a_lost_lead_goes_out_when_it_is_found() {
    let app = reads_with("").await;
    let readable_from = Timestamp::from_millis((START + 5) * 1_000);
    app.meta.have_lead(FilledForm { readable_from, ..filled(1) });
    app.stage(1, "qualified", 60).await;
    app.until(async || app.meta.reads("lead") == 1).await;
    app.advance_s(5);
    backfill(&app, &json!({"form_id": "17"})).await;
    app.delivered(2).await;
    assert_eq!(app.taken(), ["1 initial_lead", "1 qualified"]);
    app.finish().await;
}

#[tokio::test]
async fn one_page_or_one_form_can_be_read_alone() {
    let app = reads_of_two_pages().await;
    let ended = backfill(&app, &json!({"page_id": "301"})).await;
    assert_eq!((&ended["page_id"], counts(&ended)), (&json!("301"), [1, 1, 0, 0, 0]));
    let ended = backfill(&app, &json!({"form_id": "17"})).await;
    assert_eq!((&ended["form_id"], counts(&ended)), (&json!("17"), [1, 1, 0, 0, 0]));
    assert_eq!(backfill(&app, &json!({"form_id": "19"})).await["forms_failed"], 1);
    assert_eq!(backfill(&app, &json!({"page_id": "302"})).await["forms_failed"], 1);
    app.delivered(2).await;
    let datasets: Vec<String> = app.meta.events().into_iter().map(|it| it.dataset_id).collect();
    assert_eq!(datasets, ["701", "700"]);
    app.finish().await;
}

#[tokio::test]
async fn a_page_without_a_token_of_its_own_is_read_with_the_general_one() {
    let app = reads_with(DATASET_701).await;
    let mut of_page_301 = filled(2);
    of_page_301.lead.page_id = PageId::from_u64(301).unwrap();
    of_page_301.lead.form_id = FormId::from_u64(18).unwrap();
    app.meta.have_lead(of_page_301);
    assert_eq!(counts(&backfill(&app, &json!({"page_id": "301"})).await), [1, 1, 0, 0, 0]);
    app.delivered(1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_page_that_no_token_reads_is_told() {
    let token =
        "[[pages]]\nid = \"300\"\ndataset = \"700\"\naccess_token = \"test-page-token-300\"";
    let settings = format!("backfill_every_s = 0\n{token}");
    let app = TestApp::start_with(&settings, Arc::new(MemoryStore::default())).await;
    app.meta.have_lead(filled(1));
    assert_eq!(backfill(&app, &json!({"page_id": "301"})).await["forms_failed"], 1);
    assert_eq!(counts(&backfill(&app, &json!({"page_id": "300"})).await), [1, 1, 0, 0, 0]);
    app.delivered(1).await;
    app.finish().await;
}

#[tokio::test]
async fn wishes_that_make_no_sense_are_refused() {
    let app = reads_with(crate::removal::WRITER).await;
    for (wish, field) in [
        (json!({"page_id": "a Page"}), "page_id"),
        (json!({"form_id": "-1"}), "form_id"),
        (json!({"since": "last year"}), "since"),
        (json!({"since": START - 91 * DAY}), "since"),
        (json!({"since": START * 1_000}), "since"),
    ] {
        let answer = app.post("/v1/backfill", &wish).await;
        assert_eq!(answer.problem(), (400, "invalid_request".into()), "{wish}");
        assert_eq!(answer.json()["field"], field, "{wish}");
    }
    assert_eq!(app.post("/v1/backfill", &json!({"forms": []})).await.problem().0, 400);
    let answer = app.ask("writer-key", reqwest::Method::POST, "/v1/backfill").await;
    assert_eq!(answer.problem(), (403, "forbidden".into()));
    assert!(shown(&app).await.is_null());
    app.finish().await;
}

#[tokio::test]
async fn without_a_token_there_is_nothing_to_begin() {
    let app = TestApp::start().await;
    let answer = app.post("/v1/backfill", &json!({})).await;
    assert_eq!(answer.problem(), (409, "reading_not_configured".into()));
    assert!(shown(&app).await.is_null());
    app.finish().await;
}
