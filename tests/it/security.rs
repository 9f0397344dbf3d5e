//! Who may do what, what errors look like, and that nothing is given away.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::response::Redirect;
use leadloop::sandbox::faults::Fault;
use leadloop::store::memory::MemoryStore;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{ADMIN_KEY, EMAIL, PHONE, TestApp, lead, lead_id, stage};

const KEYS: &str = r#"
[[api_keys]]
name = "support"
key = "test-read-key"
scopes = ["read"]
[[api_keys]]
name = "crm"
key = "test-write-key"
scopes = ["write"]
[[api_keys]]
name = "both"
key_sha256 = "8f2a2a2c7c4a0f6f7f0c1d0f3a0d6a0d1f4c5b6a79887766554433221100ffee"
scopes = ["read", "write"]
"#;

const EVENT: &str = "evt_0082b9738a997e32a1e8834fdc57517c065e8c40";

/// Every call of the API, and the scope that it needs.
fn calls() -> Vec<(Method, String, &'static str)> {
    vec![
        (Method::GET, "/v1/leads".into(), "read"),
        (Method::GET, format!("/v1/leads/{}", lead_id(1)), "read"),
        (Method::GET, "/v1/events".into(), "read"),
        (Method::GET, format!("/v1/events/{EVENT}"), "read"),
        (Method::GET, "/v1/quarantine".into(), "read"),
        (Method::POST, "/v1/stage-updates".into(), "write"),
        (Method::POST, "/v1/stage-updates/batch".into(), "write"),
        (Method::PUT, format!("/v1/leads/{}/crm-ids/crm/1", lead_id(1)), "write"),
        (Method::POST, "/v1/hooks/nobody".into(), "write"),
        (Method::GET, "/v1/hooks/unmapped".into(), "admin"),
        (Method::DELETE, "/v1/hooks/unmapped/1".into(), "admin"),
        (Method::POST, "/v1/hooks/nobody/replay".into(), "admin"),
        (Method::POST, format!("/v1/events/{EVENT}/retry"), "admin"),
        (Method::DELETE, format!("/v1/leads/{}", lead_id(1)), "admin"),
        (Method::POST, "/v1/events/retry".into(), "admin"),
    ]
}

// ---- Keys -------------------------------------------------------------------------------------

#[tokio::test]
async fn without_a_right_key_nothing_is_answered() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    app.delivered(1).await;
    let wrong = [
        None,
        Some(""),
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer wrong"),
        Some("Bearer test-admin-ke"),
        Some("Bearer test-admin-key2"),
        Some("Basic dGVzdDp0ZXN0"),
        Some("Basic test-admin-key"),
        Some("test-admin-key"),
        Some("Token test-admin-key"),
    ];
    for (method, path, _) in calls() {
        for header in wrong {
            let request = app.request(method.clone(), &path);
            let request = header.into_iter().fold(request, |r, h| r.header("authorization", h));
            let answer = app.send(request).await;
            assert_eq!(answer.problem(), (401, "unauthorized".into()), "{path} {header:?}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn two_keys_in_one_request_are_none() {
    let app = TestApp::start().await;
    let request = app.request(Method::GET, "/v1/leads").bearer_auth(ADMIN_KEY);
    let answer = app.send(request.bearer_auth(ADMIN_KEY)).await;
    assert_eq!(answer.problem(), (401, "unauthorized".into()));
    app.finish().await;
}

#[tokio::test]
async fn a_key_may_do_what_its_scopes_say_and_no_more() {
    let app = TestApp::start_with(KEYS, Arc::new(MemoryStore::default())).await;
    for (method, path, needed) in calls() {
        for (key, scope) in
            [("test-read-key", "read"), ("test-write-key", "write"), (ADMIN_KEY, "admin")]
        {
            let answer = app.ask(key, method.clone(), &path).await;
            if scope == needed || scope == "admin" {
                assert!(![401, 403].contains(&answer.status.as_u16()), "{key} {path}");
            } else {
                assert_eq!(answer.problem(), (403, "forbidden".into()), "{key} {path}");
                assert!(answer.json()["detail"].as_str().unwrap().contains(needed));
            }
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn the_scheme_of_a_key_is_read_in_any_case() {
    let app = TestApp::start().await;
    let request = app.request(Method::GET, "/v1/leads");
    let answer = app.send(request.header("authorization", format!("bearer {ADMIN_KEY}"))).await;
    assert_eq!(answer.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn health_metrics_and_documentation_need_no_key() {
    let app = TestApp::start().await;
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/"] {
        let answer = app.send(app.request(Method::GET, path)).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    app.finish().await;
}

// ---- Problems ---------------------------------------------------------------------------------

#[tokio::test]
async fn an_unknown_address_is_a_problem_with_a_key_and_without() {
    let app = TestApp::start().await;
    for path in ["/v1", "/v1/", "/v1/lead", "/v2/leads", "/webhooks", "/docs/nothing.js"] {
        let request = app.request(Method::GET, path);
        assert_eq!(app.send(request).await.problem(), (404, "not_found".into()), "{path}");
        assert_eq!(app.get(path).await.problem(), (404, "not_found".into()), "{path}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_wrong_method_is_a_problem_that_names_the_right_ones() {
    let app = TestApp::start().await;
    for (method, path, allowed) in [
        (Method::PUT, "/webhooks/meta", "POST"),
        (Method::DELETE, "/v1/leads", "GET"),
        (Method::TRACE, "/v1/leads?limit=1", "GET"),
        (Method::POST, "/v1/events?limit=1", "GET"),
        (Method::GET, "/v1/stage-updates", "POST"),
        (Method::POST, "/metrics", "GET"),
        (Method::POST, "/docs", "GET"),
    ] {
        let answer = app.ask(ADMIN_KEY, method, path).await;
        assert_eq!(answer.problem(), (405, "method_not_allowed".into()), "{path}");
        assert!(answer.headers["allow"].to_str().unwrap().contains(allowed), "{path}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_problem_has_a_type_a_title_a_status_a_code_and_a_detail() {
    let app = TestApp::start().await;
    let answer = app.get("/v1/leads/4711").await;
    assert_eq!(
        answer.json(),
        json!({"type": "urn:leadloop:problem:invalid_lead_id", "status": 400,
               "code": "invalid_lead_id", "title": "The value is no lead id of Meta's.",
               "detail": "not a lead id: Meta's leadgen_id of 15 to 17 digits, as a string or an \
                          integer"})
    );
    app.finish().await;
}

// ---- Nothing is given away --------------------------------------------------------------------

/// What a test says here is enforced at the end of every test, over every answer that it got.
#[tokio::test]
async fn no_answer_of_a_whole_run_holds_a_secret_or_a_plain_customer_value() {
    let app = TestApp::start_with(KEYS, Arc::new(MemoryStore::default())).await;
    app.misbehave([Fault::Error { http_status: 500, code: 2, subcode: None, is_transient: false }]);
    app.report(&[lead(1), json!({"leadgen_id": "no id"})]).await;
    app.failed(1, 1).await;
    let mut update = stage(1, "won", 50);
    update["customer"] = json!({"em": EMAIL, "ph": PHONE, "ln": "Mustermann"});
    update["idempotency_key"] = json!("k");
    assert_eq!(app.stage_update(&update).await.status, 202);
    assert_eq!(app.stage_update(&update).await.status, 200);
    update["stage"] = json!("lost");
    assert_eq!(app.stage_update(&update).await.status, 409);
    update["stage"] = json!("won");
    update["idempotency_key"] = Value::Null;
    let left_out =
        json!({"em": "Mustermann", "ph": "Mustermann", "client_ip_address": "Mustermann"});
    update["customer"] = left_out;
    assert_eq!(app.stage_update(&update).await.json()["left_out"].as_array().unwrap().len(), 3);
    for customer in
        [json!({"ph": "Mustermann".repeat(150)}), json!({"ph": {"Mustermann": 1}}), json!(EMAIL)]
    {
        update["customer"] = customer;
        assert!(app.stage_update(&update).await.status.is_client_error());
        app.batch(&[update.clone(), json!(EMAIL)]).await;
    }
    app.advance_s(1);
    app.delivered(2).await;
    for path in ["/v1/leads", "/v1/events", "/v1/quarantine", "/metrics", "/readyz", "/nowhere"] {
        app.get(path).await;
    }
    app.event(1, "won").await;
    let sent: Vec<String> = app.meta.events().iter().map(|t| t.event.to_string()).collect();
    assert!(!sent.concat().to_lowercase().contains("mustermann"), "{sent:?}");
    app.finish().await;
}

#[tokio::test]
async fn a_redirect_is_not_followed_so_that_no_token_goes_along() {
    // A client that goes there waits for an answer in vain.
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/", elsewhere.local_addr().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let redirect = Router::new().fallback(async move || Redirect::temporary(&location));
    tokio::spawn(axum::serve(listener, redirect).into_future());
    let client = leadloop::client::http_client(&address).unwrap();
    let answer = client.post(&address).bearer_auth("token").send().await.unwrap();
    assert_eq!(answer.status(), 307);
}

#[tokio::test]
async fn metrics_count_and_name_no_person() {
    let app = TestApp::start().await;
    app.report(&[lead(1)]).await;
    app.stage(1, "qualified", 50).await;
    app.delivered(2).await;
    let answer = app.send(app.request(Method::GET, "/metrics")).await;
    let content_type = answer.headers["content-type"].to_str().unwrap();
    assert!(content_type.starts_with("application/openmetrics-text"));
    for line in [
        "leadloop_webhook_deliveries_total{result=\"accepted\"} 1",
        "leadloop_leads_total{outcome=\"new\"} 1",
        "leadloop_stage_updates_total{outcome=\"accepted\"} 1",
        "leadloop_events_delivered_total{dataset=\"700\"} 2",
        "leadloop_stored{kind=\"leads\"} 1",
        "leadloop_stored{kind=\"events_queued\"} 0",
    ] {
        assert!(answer.text.contains(line), "{line} is not in {}", answer.text);
    }
    assert!(!answer.text.contains(&lead_id(1).to_string()));
    app.finish().await;
}

// ---- Documentation ----------------------------------------------------------------------------

#[tokio::test]
async fn the_openapi_document_names_every_route_and_every_code() {
    let app = TestApp::start().await;
    let document = app.send(app.request(Method::GET, "/openapi.json")).await.json();
    let paths: BTreeMap<String, Value> = serde_json::from_value(document["paths"].clone()).unwrap();
    let routes = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(move |method| format!("{method} {path}"))
    });
    assert_eq!(
        routes.collect::<Vec<_>>(),
        [
            "get /healthz",
            "get /metrics",
            "get /readyz",
            "get /v1/alarms",
            "get /v1/backfill",
            "post /v1/backfill",
            "post /v1/backup",
            "get /v1/datasets",
            "get /v1/events",
            "post /v1/events/retry",
            "get /v1/events/{event_id}",
            "post /v1/events/{event_id}/retry",
            "get /v1/hooks/unmapped",
            "delete /v1/hooks/unmapped/{id}",
            "post /v1/hooks/{source}",
            "post /v1/hooks/{source}/replay",
            "post /v1/hooks/{source}/{secret}",
            "get /v1/leads",
            "delete /v1/leads/{lead_id}",
            "get /v1/leads/{lead_id}",
            "put /v1/leads/{lead_id}/crm-ids/{source}/{crm_id}",
            "get /v1/quarantine",
            "get /v1/sources",
            "post /v1/stage-updates",
            "post /v1/stage-updates/batch",
            "get /webhooks/meta",
            "post /webhooks/meta"
        ]
    );
    let text = document["info"]["description"].as_str().unwrap();
    for code in leadloop::http::error::Code::ALL {
        assert!(text.contains(&format!("`{}`", code.name())), "{}", code.name());
    }
    app.finish().await;
}

#[tokio::test]
async fn the_page_to_read_it_loads_nothing_from_elsewhere() {
    let app = TestApp::start().await;
    let page = app.send(app.request(Method::GET, "/docs")).await;
    assert!(
        page.headers["content-security-policy"].to_str().unwrap().contains("default-src 'self'")
    );
    let mut loaded = 0;
    for attribute in ["src=\"", "href=\""] {
        for (at, _) in page.text.match_indices(attribute) {
            let address = &page.text[at + attribute.len()..];
            let address = &address[..address.find('"').unwrap()];
            assert!(address.starts_with("/docs/"), "{address} in {}", page.text);
            let asset = app.send(app.request(Method::GET, address)).await;
            assert_eq!(asset.status, 200, "{address}");
            loaded += 1;
        }
    }
    assert!(loaded >= 3, "{}", page.text);
    let start = app.send(app.request(Method::GET, "/docs/swagger-initializer.js")).await.text;
    assert!(start.contains("/openapi.json") && !start.contains("http"), "{start}");
    app.finish().await;
}

#[test]
fn the_page_on_security_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let mut code = String::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                code.push_str(&read(&path));
            }
        }
    }
    let page = read(&root.join("docs/reference/security.md"));
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let shown_by = rows.filter_map(|line| line.rsplit(" | ").next());
    let names = shown_by.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let mut tests = 0;
    for name in names.filter(|name| name.contains('_') && !name.contains('.')) {
        let functions = code.lines().filter(|line| line.contains("fn ") && line.contains(name));
        assert!(functions.count() > 0, "no test is called {name}");
        tests += 1;
    }
    assert!(tests > 15, "{tests}");
}
