//! Leads that are named by a CRM's own id, an e-mail address or a phone number; and the funnel.

use axum::http::Method;
use leadloop::store::memory::MemoryStore;
use serde_json::{Value, json};
use std::sync::Arc;

use crate::support::{ADMIN_KEY, CREATED, TestApp, lead, lead_id, stage};

async fn start(file: &str) -> TestApp {
    TestApp::start_with(file, Arc::new(MemoryStore::default())).await
}

/// A stage update that names its lead by these fields.
fn named(by: &Value, stage: &str, seconds: i64) -> Value {
    let mut update = json!({"stage": stage, "event_time": CREATED + seconds});
    update.as_object_mut().unwrap().extend(by.as_object().unwrap().clone());
    update
}

async fn link(app: &TestApp, number: u64, source: &str, crm_id: &str) -> Value {
    let path = format!("/v1/leads/{}/crm-ids/{source}/{crm_id}", lead_id(number));
    let answer = app.ask(ADMIN_KEY, Method::PUT, &path).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

#[tokio::test]
async fn a_crms_own_id_is_linked_by_an_update_or_by_itself_and_is_enough_then() {
    let app = start("").await;
    app.report(&[lead(1), lead(2)]).await;
    let both = named(&json!({"lead_id": lead_id(1).to_string(), "crm_id": "A-1"}), "qualified", 40);
    assert_eq!(app.stage_update(&both).await.json()["matched_by"], "lead_id");
    let alone = app.stage_update(&named(&json!({"crm_id": "A-1"}), "won", 50)).await.json();
    assert_eq!(
        (&alone["matched_by"], &alone["lead_id"]),
        (&json!("crm_id"), &json!(lead_id(1).to_string()))
    );
    let linked = link(&app, 2, "hubspot", "deal%2F7").await;
    assert_eq!(
        linked,
        json!({"lead_id": lead_id(2).to_string(), "source": "hubspot", "crm_id": "deal/7",
               "lead_known": true, "previous_lead_id": null})
    );
    let of_deal = named(&json!({"crm_id": "deal/7", "source": "hubspot"}), "won", 50);
    assert_eq!(app.stage_update(&of_deal).await.json()["lead_id"], lead_id(2).to_string());
    app.delivered(5).await;
    let crm_ids = json!([{"source": "crm", "crm_id": "A-1"}]);
    assert_eq!(app.lead(1).await["crm_ids"], crm_ids);
    let moved = link(&app, 2, "crm", "A-1").await;
    assert_eq!(moved["previous_lead_id"], lead_id(1).to_string());
    app.finish().await;
}

#[tokio::test]
async fn what_fits_no_lead_waits_and_is_sent_when_its_lead_is_known() {
    let app = start("").await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    let answer = app.stage_update(&named(&json!({"crm_id": 4711}), "won", 50)).await;
    let waiting = answer.json();
    assert_eq!(
        (answer.status, &waiting["state"]),
        (axum::http::StatusCode::ACCEPTED, &json!("awaiting_lead"))
    );
    assert_eq!((&waiting["lead_id"], &waiting["matched_by"]), (&Value::Null, &Value::Null));
    let event_id = waiting["event_id"].as_str().unwrap();
    let path = format!("/v1/events/{event_id}");
    assert_eq!(app.get(&path).await.json()["lead_id"], Value::Null);
    link(&app, 1, "crm", "4711").await;
    app.delivered(2).await;
    assert_eq!(app.taken(), ["1 initial_lead", "1 won"]);
    let event = app.get(&path).await.json();
    assert_eq!(event["lead_id"], lead_id(1).to_string());
    assert_eq!(event["event_id"], event_id, "and keeps its id");
    app.finish().await;
}

#[tokio::test]
async fn a_lead_is_matched_and_listed_by_email_and_phone() {
    let app = start("").await;
    app.report(&[lead(1), lead(2)]).await;
    let mut first = stage(1, "qualified", 40);
    first["customer"] = json!({"email": "Jane@Example.com", "phone": "+49 151 23456789"});
    assert_eq!(app.stage_update(&first).await.status, 202);
    let by = |customer: Value, stage: &str| named(&json!({"customer": customer}), stage, 50);
    let digest = "8c87b489ce35cf2e2f39f80e282cb2e804932a56a213983eeeb428407d43b52d";
    for (customer, name, expected) in [
        (json!({"em": "jane@example.com "}), "won", "email"),
        (json!({"em": digest}), "lost", "email"),
        (json!({"ph": "+49 (151) 2345-6789"}), "lost", "phone"),
    ] {
        let answer = app.stage_update(&by(customer, name)).await.json();
        assert_eq!(answer["lead_id"], lead_id(1).to_string(), "{answer}");
        assert_eq!(answer["matched_by"], expected);
    }
    for query in ["email=jane@example.com", "phone=%2B4915123456789", "phone=+49 15123456789"] {
        let leads = app.whole_list(&format!("/v1/leads?{query}"), "leads").await;
        assert_eq!(leads.len(), 1, "{query}");
        assert_eq!(leads[0]["lead_id"], lead_id(1).to_string());
    }
    for empty in ["email=", "phone=%20", "crm_id="] {
        let answer = app.get(&format!("/v1/leads?{empty}")).await;
        assert_eq!(answer.problem(), (400, "invalid_request".into()), "{empty}");
    }
    let wrong = app.get("/v1/leads?email=nobody").await;
    assert_eq!(wrong.problem(), (400, "invalid_request".into()));
    assert!(!wrong.text.contains("nobody"));
    assert_eq!(app.lead(1).await["customer"], json!(["em", "ph"]));
    app.finish().await;
}

#[tokio::test]
async fn several_leads_of_a_person_are_told_apart_by_time_or_refused() {
    let file = "[[sources]]\nname = \"asks\"\nambiguous = \"refuse\"";
    let app = start(file).await;
    app.report(&[lead(1), lead(2)]).await;
    for number in [1, 2] {
        let mut update = stage(number, "qualified", 40);
        update["customer"] = json!({"em": "jane@example.com"});
        assert_eq!(app.stage_update(&update).await.status, 202);
    }
    let by_email = json!({"customer": {"em": "jane@example.com"}});
    let chosen = app.stage_update(&named(&by_email, "won", 50)).await;
    assert_eq!(chosen.status, 202);
    let mut asks = named(&by_email, "lost", 50);
    asks["source"] = json!("asks");
    let refused = app.stage_update(&asks).await;
    assert_eq!(refused.problem(), (409, "ambiguous_match".into()));
    let lead_ids = json!([lead_id(1).to_string(), lead_id(2).to_string()]);
    assert_eq!(refused.json()["lead_ids"], lead_ids);
    app.finish().await;
}

#[tokio::test]
async fn somebody_without_a_lead_is_sent_where_that_is_wanted_and_refused_if_meta_would() {
    let app = start("[[sources]]\nname = \"shop\"\nunmatched = \"send\"").await;
    let mut update = named(&json!({"customer": {"em": "jane@example.com"}}), "won", 50);
    update["source"] = json!("shop");
    let answer = app.stage_update(&update).await.json();
    assert_eq!((&answer["state"], &answer["lead_id"]), (&json!("pending"), &Value::Null));
    app.delivered(1).await;
    let sent = &app.meta.events()[0].event["user_data"];
    assert!(sent["lead_id"].is_null() && sent["em"].is_string(), "{sent}");
    assert_eq!(app.whole_list("/v1/leads?limit=200", "leads").await, [Value::Null; 0]);
    let nobody = app.stage_update(&named(&json!({}), "won", 50)).await;
    assert_eq!(nobody.problem(), (400, "invalid_request".into()));
    app.finish().await;
}

#[tokio::test]
async fn a_batch_is_judged_without_being_stored() {
    let app = start("").await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    let updates = [stage(1, "won", 50), stage(1, "won", -5), stage(1, "initial_lead", 1)];
    let body = json!({"updates": updates, "dry_run": true});
    let answer = app.post("/v1/stage-updates/batch", &body).await.json();
    let results = answer["results"].as_array().unwrap();
    let statuses: Vec<_> =
        results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [202, 422, 200]);
    assert_eq!(results[0]["state"], "pending");
    assert_eq!(app.timeline(1).await, ["initial_lead delivered"]);
    let asked = app.post("/v1/stage-updates/batch?dry_run=true", &json!({"updates": []})).await;
    assert_eq!(asked.problem(), (400, "invalid_request".into()), "it stands in the body");
    let done = app.batch(&updates).await;
    assert_eq!(done[0]["event_id"], results[0]["event_id"]);
    app.delivered(2).await;
    app.finish().await;
}

#[tokio::test]
async fn skipped_stages_are_named_and_filled_in_where_the_dataset_wants_it() {
    let app = start("funnel = \"initial_lead, qualified, opportunity, won\"").await;
    app.report(&[lead(1)]).await;
    let answer = app.stage(1, "won", 50).await;
    assert_eq!(answer["missing_stages"], json!(["qualified", "opportunity"]));
    assert_eq!(app.lead(1).await["missing_stages"], json!(["qualified", "opportunity"]));
    app.finish().await;
    let app = start("funnel = \"qualified, opportunity, won\"\nfill_skipped = true").await;
    app.report(&[lead(1)]).await;
    let answer = app.stage(1, "won", 50).await;
    assert_eq!(answer["missing_stages"], json!([]));
    assert_eq!(answer["filled_stages"], json!(["qualified", "opportunity"]));
    app.delivered(4).await;
    assert_eq!(app.taken(), ["1 initial_lead", "1 qualified", "1 opportunity", "1 won"]);
    assert_eq!(app.lead(1).await["missing_stages"], json!([]));
    app.finish().await;
}
