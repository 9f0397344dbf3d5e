//! The pages in a real browser, which runs their scripts and can reach this machine only.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

use std::process::Command;

use reqwest::Url;
use tempfile::TempDir;

use crate::process::program::{APP_SECRET, Place, Server, between, have, settings, within};

/// A lead id that no JavaScript number can hold.
const LEAD_ID: &str = "36795652870078001";

/// What a page looks like, as HTML, after its scripts have run for a while.
async fn rendered(url: &str) -> String {
    let folder = TempDir::new().unwrap();
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]);
    chromium.args(["--no-first-run", "--disable-background-networking"]);
    chromium.args(["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]);
    chromium.arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1");
    chromium.arg(format!("--user-data-dir={}", folder.path().display()));
    chromium.args(["--virtual-time-budget=5000", "--timeout=25000", "--dump-dom", url]);
    let output = tokio::task::spawn_blocking(move || chromium.output());
    let output = within(output).await.unwrap().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    drop(folder);
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that a rendered page loads or leads to is on the server that it came from.
fn assert_at_home(page: &str, url: &str) {
    let home = Url::parse(url).unwrap();
    for attribute in ["src=\"", "href=\"", "action=\""] {
        for (at, _) in page.match_indices(attribute) {
            let target = page[at + attribute.len()..].split('"').next().unwrap();
            let target = home.join(target).unwrap();
            let at_home = target.scheme() == "data" || target.origin() == home.origin();
            assert!(at_home, "{url} has {attribute}{target}\"");
        }
    }
}

#[tokio::test]
async fn the_documentation_shows_every_operation_and_needs_nothing_from_elsewhere() {
    if !have("chromium") {
        return;
    }
    let place = Place::new();
    let server = place.serve(&settings(&[], [])).await;
    let url = format!("{}/docs", server.url);
    let page = rendered(&url).await;
    for path in ["/webhooks/meta", "/v1/stage-updates", "/v1/leads/{lead_id}", "/healthz"] {
        assert!(page.contains(&format!("data-path=\"{path}\"")), "no {path}: {page}");
    }
    assert!(page.contains("event_time_not_after_lead"), "the catalogue of problems: {page}");
    assert_at_home(&page, &url);
    server.stop().await;
}

#[tokio::test]
async fn the_page_of_the_stand_in_shows_an_event_with_all_digits_of_its_lead() {
    if !have("chromium") {
        return;
    }
    let place = Place::new();
    let meta = place.sandbox(&settings(&[], [])).await;
    assert!(rendered(&meta.url).await.contains("Nothing yet."));

    let server = place.serve(&settings(&[], [("META_GRAPH_URL", meta.url.as_str())])).await;
    let url = format!("{}/webhooks/meta", server.url);
    let arguments = ["trigger", "--lead-id", LEAD_ID, "--url", &url];
    let sent = place.run(&arguments, &[("META_APP_SECRET", APP_SECRET)]).await;
    assert_eq!(sent.stdout.trim(), LEAD_ID);
    taken(&meta).await;
    let page = rendered(&meta.url).await;
    let row = between(&page, "<tbody id=\"events\">", "</tbody>");
    assert!(row.contains(&format!(">{LEAD_ID}</td>")), "{row}");
    assert!(row.contains(">initial_lead</td>") && row.contains(">yes</td>"), "{row}");
    assert!(page.contains("1 event in 1 request so far."), "{page}");
    assert_at_home(&page, &meta.url);
    server.stop().await;
}

/// Waits until the stand-in has taken an event.
async fn taken(meta: &Server) {
    let mut interval = tokio::time::interval(std::time::Duration::from_millis(5));
    let asking = async {
        while meta.get("/sandbox/events", "").await["events"] == serde_json::json!([]) {
            interval.tick().await;
        }
    };
    within(asking).await;
}
