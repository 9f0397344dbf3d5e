//! Reading leads from Meta: those that a stage update names before they arrive, and what the person
//! wrote of those that a webhook brought.

use std::sync::Arc;

use leadloop::domain::ids::{AdId, FormId, PageId};
use leadloop::domain::time::{Timestamp, UnixSeconds};
use leadloop::sandbox::faults::Fault;
use leadloop::sandbox::form::FilledForm;
use leadloop::sandbox::trigger::SampleLead;
use leadloop::store::Store;
use leadloop::store::memory::MemoryStore;
use serde_json::json;

use crate::support::{
    CREATED, DATASET_701, DAY, START, TestApp, clock_at_start, lead, lead_id, stage,
};

/// A token that reads every Page, and no schedule.
pub const READS: &str = "meta_page_access_token = \"test-page-token\"\nbackfill_every_s = 0\n";

/// Lead number n as Meta has it, and as a webhook would tell of it.
pub fn filled(number: u64) -> FilledForm {
    filled_at(number, CREATED)
}

pub fn filled_at(number: u64, created_time: i64) -> FilledForm {
    let lead = SampleLead {
        lead_id: lead_id(number),
        page_id: PageId::from_u64(300).unwrap(),
        form_id: FormId::from_u64(17).unwrap(),
        created_time: UnixSeconds::new(created_time),
    };
    FilledForm { ad_id: AdId::from_u64(55), ..FilledForm::of(lead) }
}

/// A server that can read leads, and has more settings.
pub async fn reads_with(more: &str) -> TestApp {
    let store = Arc::new(MemoryStore::default());
    TestApp::start_with(&format!("{READS}{more}"), store).await
}

/// A server that reads the Pages 300 and 301, each with a token of its own; each has a lead.
pub async fn reads_of_two_pages() -> TestApp {
    let tokens = format!("{DATASET_701}access_token = \"test-page-token-301\"\n");
    let app = reads_with(&tokens).await;
    let mut of_page_301 = filled(2);
    of_page_301.lead.page_id = PageId::from_u64(301).unwrap();
    of_page_301.lead.form_id = FormId::from_u64(18).unwrap();
    app.meta.have_lead(filled(1));
    app.meta.have_lead(of_page_301);
    app
}

/// Whether so many readings of leads have ended so.
async fn counted(app: &TestApp, outcome: &str, times: u64) -> bool {
    let line = format!("graph_reads_total{{what=\"lead\",outcome=\"{outcome}\"}} {times}\n");
    app.get("/metrics").await.text.contains(&line)
}

#[tokio::test]
async fn a_lead_that_a_stage_update_names_is_read_and_the_stage_goes_out_behind_its_raw_lead() {
    let app = reads_with("").await;
    app.meta.have_lead(filled(1));
    let answer = app.stage(1, "qualified", 60).await;
    assert_eq!(answer["state"], "awaiting_lead", "nobody waits for a reading");
    app.delivered(2).await;
    assert_eq!(app.taken(), ["1 initial_lead", "1 qualified"]);
    let lead = app.lead(1).await;
    assert_eq!((&lead["source"], &lead["page_id"]), (&"graph".into(), &"300".into()));
    assert_eq!((&lead["form_id"], &lead["ad_id"]), (&"17".into(), &"55".into()));
    assert_eq!(lead["created_time"], CREATED);
    assert_eq!((app.meta.reads("lead"), app.meta.reads("form")), (1, 1));
    app.finish().await;
}

#[tokio::test]
async fn a_lead_that_a_strict_source_names_too_early_is_read_and_found_by_the_next_try() {
    let app = reads_with("[[sources]]\nname = \"crm\"\nstrict = true\n").await;
    app.meta.have_lead(filled(1));
    let update = json!({
        "lead_id": lead_id(1).to_string(), "stage": "qualified", "event_time": CREATED + 60,
        "source": "crm",
    });
    let answer = app.post("/v1/stage-updates", &update).await;
    assert_eq!(answer.problem(), (404, "lead_not_found".into()), "nobody waits for a reading");
    app.delivered(1).await;
    assert_eq!(app.post("/v1/stage-updates", &update).await.status, 202);
    app.delivered(2).await;
    assert_eq!(app.taken(), ["1 initial_lead", "1 qualified"]);
    app.finish().await;
}

#[tokio::test]
async fn without_a_token_nothing_is_read() {
    let app = TestApp::start().await;
    app.meta.have_lead(filled(1));
    app.stage(1, "qualified", 60).await;
    app.report(&[lead(2)]).await;
    app.delivered(1).await;
    assert_eq!(app.meta.reads("lead"), 0);
    app.finish_with_rest().await;
}

#[tokio::test]
async fn a_webhook_that_comes_after_the_reading_changes_nothing() {
    let app = reads_with("").await;
    app.meta.have_lead(filled(1));
    app.stage(1, "qualified", 60).await;
    app.delivered(2).await;
    app.report(&[lead(1)]).await;
    assert_eq!(app.stored().await, [1, 0, 0, 0]);
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("leads_total{outcome=\"duplicate\"} 1"), "{metrics}");
    assert!(metrics.contains("leads_read_total{source=\"graph\",outcome=\"new\"} 1"), "{metrics}");
    app.finish().await;
}

#[tokio::test]
async fn a_lead_that_cannot_be_read_yet_is_asked_for_again_and_not_all_the_time() {
    let app = reads_with("").await;
    let readable_from = Timestamp::from_millis((START + 60) * 1_000);
    app.meta.have_lead(FilledForm { readable_from, ..filled(1) });
    app.stage(1, "qualified", 60).await;
    for (wait_s, tries) in [(2, 2), (10, 3)] {
        app.until(async || app.meta.reads("lead") == tries - 1).await;
        app.advance_s(wait_s);
        app.until(async || app.meta.reads("lead") == tries).await;
    }
    assert_eq!(app.stored().await, [0, 0, 1, 0]);
    app.advance_s(60);
    app.delivered(2).await;
    assert_eq!(app.meta.reads("lead"), 4);
    app.finish().await;
}

#[tokio::test]
async fn a_lead_that_is_not_there_is_given_up_after_a_few_tries_and_asked_for_once_in_a_round() {
    let app = reads_with("").await;
    app.stage(1, "qualified", 60).await;
    for tries in 1..=6 {
        app.until(async || app.meta.reads("lead") == tries).await;
        app.advance_s(1_800);
    }
    // Another lead's reading shows that the searcher is past this one.
    app.stage(2, "qualified", 61).await;
    app.until(async || app.meta.reads("lead") == 7).await;
    app.advance_s(6 * 3_600);
    app.until(async || app.meta.reads("lead") >= 9).await;
    app.finish_with_rest().await;
}

#[tokio::test]
async fn what_was_awaited_before_a_start_is_asked_for_after_it() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let app = TestApp::start_with("", store.clone()).await;
    app.stage(1, "qualified", 60).await;
    app.finish_with_rest().await;
    let app = TestApp::start_with(READS, store).await;
    app.until(async || app.meta.reads("lead") == 1).await;
    assert_eq!(app.stored().await, [0, 0, 1, 0], "Meta does not know it yet");
    app.meta.have_lead(filled(1));
    app.advance_s(6 * 3_600);
    app.delivered(2).await;
    app.finish().await;
}

#[tokio::test]
async fn a_throttle_is_waited_out_as_long_as_meta_asks() {
    let app = reads_with("").await;
    app.meta.have_lead(filled(1));
    app.meta.misbehave_reading([Fault::Throttle { minutes: 3 }]);
    app.stage(1, "qualified", 60).await;
    app.until(async || counted(&app, "throttled", 1).await).await;
    app.advance_s(179);
    // Something else goes through meanwhile, and no further reading with it.
    app.report(&[lead(2)]).await;
    app.delivered(1).await;
    assert_eq!(app.meta.reads("lead"), 1);
    app.advance_s(1);
    app.delivered(3).await;
    app.finish().await;
}

#[tokio::test]
async fn a_token_that_is_refused_rests_and_is_told_and_tried_again() {
    let app = reads_with("").await;
    app.meta.have_lead(filled(1));
    let error = |code| Fault::Error { http_status: 400, code, subcode: None, is_transient: false };
    app.meta.misbehave_reading([error(190), error(103), error(10)]);
    app.stage(1, "qualified", 60).await;
    for denials in 1..=3 {
        app.until(async || counted(&app, "denied", denials).await).await;
        app.advance_s(900);
    }
    app.delivered(2).await;
    app.finish().await;
}

#[tokio::test]
async fn trouble_of_metas_passes() {
    let app = reads_with("").await;
    app.meta.have_lead(filled(1));
    let error = Fault::Error { http_status: 500, code: 2, subcode: None, is_transient: true };
    app.meta.misbehave_reading([Fault::Cut, error, Fault::Garbage, Fault::ErrorInside]);
    app.stage(1, "qualified", 60).await;
    app.until(async || {
        app.advance_s(60);
        app.taken().len() == 2
    })
    .await;
    app.delivered(2).await;
    app.finish().await;
}

#[tokio::test]
async fn each_page_is_read_with_its_own_token_and_its_events_go_where_they_belong() {
    let app = reads_of_two_pages().await;
    app.batch(&[stage(1, "qualified", 60), stage(2, "qualified", 60)]).await;
    app.delivered(4).await;
    let datasets: Vec<(String, u64)> = app
        .meta
        .events()
        .iter()
        .map(|taken| {
            let lead_id = taken.event["user_data"]["lead_id"].as_u64().unwrap();
            (taken.dataset_id.clone(), lead_id - crate::support::lead_id(0).get())
        })
        .collect();
    assert!(datasets.iter().all(|(dataset, number)| (dataset == "701") == (*number == 2)));
    app.finish().await;
}

#[tokio::test]
async fn a_lead_of_a_page_without_a_token_is_not_asked_for_with_that_of_another() {
    let tokens =
        format!("backfill_every_s = 0\n{DATASET_701}access_token = \"test-page-token-301\"\n");
    let app = TestApp::start_with(&tokens, Arc::new(MemoryStore::default())).await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    // Whose Page nobody knows, is asked for; and that comes after the first one's turn.
    app.stage(2, "qualified", 60).await;
    app.until(async || app.meta.reads("lead") >= 1).await;
    app.advance_s(2);
    app.until(async || app.meta.reads("lead") >= 2).await;
    assert_eq!(app.meta.reads("lead"), 2, "both times it was the second one");
    app.finish_with_rest().await;
}

#[tokio::test]
async fn a_lead_that_is_older_than_seven_days_gets_no_raw_lead_and_its_late_stage_still_goes_out() {
    let app = reads_with("").await;
    app.meta.have_lead(filled_at(1, CREATED - 8 * DAY));
    app.stage(1, "won", 60).await;
    app.delivered(1).await;
    assert_eq!(app.taken(), ["1 won"]);
    app.finish().await;
}

#[tokio::test]
async fn a_lead_that_was_erased_does_not_come_back_by_reading() {
    let app = reads_with("").await;
    let readable_from = Timestamp::from_millis((START + 2) * 1_000);
    app.meta.have_lead(FilledForm { readable_from, ..filled(1) });
    app.stage(1, "qualified", 60).await;
    app.until(async || counted(&app, "not_found", 1).await).await;
    let path = format!("/v1/leads/{}", lead_id(1));
    app.ask(crate::support::ADMIN_KEY, reqwest::Method::DELETE, &path).await;
    app.advance_s(2);
    let read = "leads_read_total{source=\"graph\",outcome=\"erased\"} 1";
    app.until(async || app.get("/metrics").await.text.contains(read)).await;
    assert_eq!(app.stored().await, [0, 0, 0, 0]);
    app.finish().await;
}

#[tokio::test]
async fn a_store_that_fails_loses_no_lead_that_was_read() {
    let store = Arc::new(crate::support::store::FailingStore::default());
    let app = TestApp::start_at(
        &format!("{}{READS}", crate::support::DATASET_700),
        store.clone(),
        clock_at_start(),
    )
    .await;
    let readable_from = Timestamp::from_millis((START + 2) * 1_000);
    app.meta.have_lead(FilledForm { readable_from, ..filled(1) });
    app.stage(1, "qualified", 60).await;
    app.until(async || app.meta.reads("lead") == 1).await;
    store.fail(true);
    app.advance_s(2);
    app.until(async || app.meta.reads("lead") == 2 && store.take_failures() > 0).await;
    store.fail(false);
    app.until(async || {
        app.advance_s(1);
        app.taken().len() == 2
    })
    .await;
    app.delivered(2).await;
    app.finish().await;
}

/// How many leads have the e-mail address that the person of lead n wrote.
async fn found_by_email(app: &TestApp, number: u64) -> usize {
    let path = format!("/v1/leads?limit=200&email={}", filled(number).email());
    app.whole_list(&path, "leads").await.len()
}

#[tokio::test]
async fn what_a_person_wrote_goes_along_with_later_stages_and_the_raw_lead_does_not_wait_for_it() {
    let app = reads_with("").await;
    let readable_from = Timestamp::from_millis((START + 2) * 1_000);
    app.meta.have_lead(FilledForm { readable_from, ..filled(1) });
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    app.until(async || counted(&app, "not_found", 1).await).await;
    assert_eq!(found_by_email(&app, 1).await, 0);
    app.advance_s(2);
    app.until(async || found_by_email(&app, 1).await == 1).await;
    app.stage(1, "qualified", 60).await;
    app.delivered(2).await;
    let [raw, qualified] = &app.meta.events()[..] else { panic!("two events") };
    assert_eq!(raw.event["user_data"].as_object().unwrap().len(), 1, "the lead id only");
    let user_data = &qualified.event["user_data"];
    for name in ["em", "ph", "fn", "ln"] {
        let digest = user_data[name].as_str().unwrap_or_default();
        assert_eq!(digest.len(), 64, "{name}: {user_data}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_stage_that_names_only_an_address_finds_the_lead_whose_person_wrote_it() {
    let app = reads_with("").await;
    app.meta.have_lead(filled(1));
    app.report(&[lead(1)]).await;
    app.until(async || found_by_email(&app, 1).await == 1).await;
    let update = serde_json::json!({
        "stage": "won", "event_time": CREATED + 60, "customer": {"email": filled(1).email()},
    });
    let answer = app.stage_update(&update).await.json();
    assert_eq!(answer["lead_id"], lead_id(1).to_string());
    app.delivered(2).await;
    assert_eq!(app.taken(), ["1 initial_lead", "1 won"]);
    app.finish().await;
}

#[tokio::test]
async fn what_was_not_read_before_a_start_is_read_by_the_backfill_after_it() {
    let settings = "meta_page_access_token = \"test-page-token\"\n";
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    let app = TestApp::start_with(settings, store.clone()).await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    assert_eq!(found_by_email(&app, 1).await, 0);
    app.finish().await;
    let app = TestApp::start_with(settings, store).await;
    app.meta.have_lead(filled(1));
    app.advance_s(3_600);
    app.until(async || found_by_email(&app, 1).await == 1).await;
    assert_eq!(app.meta.reads("lead"), 0, "the webhook's wish was forgotten");
    app.finish().await;
}

#[tokio::test]
async fn a_lead_that_closes_the_gate_itself_is_given_up_and_the_others_have_their_turn() {
    let app = reads_with("").await;
    let denied =
        || Fault::Error { http_status: 403, code: 200, subcode: None, is_transient: false };
    // Six tries, and no more: the first one and five by the schedule.
    app.meta.misbehave_reading(std::iter::repeat_with(denied).take(6));
    app.stage(1, "qualified", 60).await;
    for tried in 1..=6 {
        app.until(async || app.meta.reads("lead") == tried).await;
        app.until(async || counted(&app, "denied", tried).await).await;
        app.advance_s(if tried < 5 { 900 } else { 1_800 });
    }
    app.meta.have_lead(filled(2));
    app.stage(2, "qualified", 60).await;
    app.delivered(2).await;
    assert_eq!(
        (app.meta.reads("lead"), app.taken()),
        (7, vec!["2 initial_lead".to_owned(), "2 qualified".to_owned()])
    );
    app.finish_with_rest().await;
}
