//! Meta's webhook: handshake, signature, every shape of payload, and what is kept.

use serde_json::json;

use crate::support::{TestApp, lead};

#[tokio::test]
async fn a_lead_is_stored_and_its_raw_lead_event_sent_at_once() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    assert_eq!(app.taken(), ["1 initial_lead"]);
    assert_eq!(app.timeline(1).await, ["initial_lead delivered"]);
    assert_eq!(app.meta.events()[0].not_counted, [""; 0]);
    app.finish().await;
}

#[tokio::test]
async fn a_good_lead_beside_an_unreadable_one_is_stored_and_the_other_is_kept() {
    let app = TestApp::start().await;
    let mut bad = lead(2);
    bad["leadgen_id"] = json!("99999999999999999999999");
    app.report(&[bad.clone(), lead(1)]).await;
    app.delivered(1).await;
    let page = app.get("/v1/quarantine").await.json();
    let kept = page["quarantined"][0]["payload"].as_str().unwrap();
    assert!(kept.contains("99999999999999999999999"));
    app.finish().await;
}
