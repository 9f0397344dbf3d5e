//! `POST /v1/backup`: who may have a copy, what it is worth, and clients that do not take it.

use std::sync::Arc;
use std::time::Duration;

use leadloop::domain::time::UnixSeconds;
use leadloop::http::server::DoorLimits;
use leadloop::store::memory::MemoryStore;
use leadloop::store::redb::{Purpose, RedbStore, prove_file};
use leadloop::store::{Intake, Quarantined, Store};
use reqwest::Method;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    ADMIN_KEY, DATASET_700, START, TestApp, clock_at_start, lead, within_patience,
};

const KEYS: &str = r#"
[[api_keys]]
name = "reads and reports"
key = "test-reporter-key"
scopes = ["read", "write"]
"#;

/// A server on a file, with as many pieces of a megabyte in it.
async fn server(door: DoorLimits, megabytes: u8) -> (TempDir, TestApp) {
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&folder.path().join("store.redb"), Purpose::Live).unwrap();
    let now = UnixSeconds::new(START).timestamp();
    for number in 0..megabytes {
        let piece = Quarantined {
            received_at: now,
            reason: "large".to_owned(),
            payload: vec![number; 1024 * 1024],
        };
        let quarantined = vec![piece];
        store.ingest(Intake { leads: Vec::new(), quarantined }, now).await.unwrap();
    }
    let app = TestApp::start_on(DATASET_700, Arc::new(store), clock_at_start(), door).await;
    (folder, app)
}

/// Asks for a backup, and goes on without reading the answer.
async fn ask_and_look_away(app: &TestApp) -> TcpStream {
    let mut stream = TcpStream::connect(app.url.trim_start_matches("http://")).await.unwrap();
    let request = format!(
        "POST /v1/backup HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\
         Content-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn status(app: &TestApp) -> u16 {
    let request = app.request(Method::POST, "/v1/backup").bearer_auth(ADMIN_KEY);
    within_patience(request.send()).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_backup_is_what_its_headers_say_and_a_store() {
    let (folder, app) = server(DoorLimits::default(), 0).await;
    app.report(&[lead(1), lead(2)]).await;
    app.delivered(2).await;
    let request = app.request(Method::POST, "/v1/backup").bearer_auth(ADMIN_KEY);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    let digest = response.headers()["leadloop-sha256"].to_str().unwrap().to_owned();
    let length = response.content_length();
    let body = response.bytes().await.unwrap();
    assert_eq!(length, Some(body.len() as u64));
    assert_eq!(digest, hex::encode(Sha256::digest(&body)));
    let path = folder.path().join("copy.redb");
    std::fs::write(&path, &body).unwrap();
    let now = UnixSeconds::new(START).timestamp();
    let contents = prove_file(&path, now).unwrap();
    assert_eq!((contents.leads, contents.events, contents.queued), (2, 2, 0));
    assert_eq!(contents.backed_up_at, Some(now));
    app.finish().await;
}

#[tokio::test]
async fn only_an_admin_gets_a_backup() {
    let app = TestApp::start_with(KEYS, Arc::new(MemoryStore::default())).await;
    let answer = app.ask("test-reporter-key", Method::POST, "/v1/backup").await;
    assert_eq!(answer.problem(), (403, "forbidden".to_owned()));
    for key in ["", "wrong"] {
        let answer = app.ask(key, Method::POST, "/v1/backup").await;
        assert_eq!(answer.problem(), (401, "unauthorized".to_owned()));
    }
    let answer = app.ask(ADMIN_KEY, Method::GET, "/v1/backup").await;
    assert_eq!(answer.problem(), (405, "method_not_allowed".to_owned()));
    app.finish().await;
}

#[tokio::test]
async fn a_server_without_a_file_says_that_there_is_nothing_to_back_up() {
    let app = TestApp::start().await;
    let answer = app.ask(ADMIN_KEY, Method::POST, "/v1/backup").await;
    assert_eq!(answer.problem(), (501, "backup_not_supported".to_owned()));
    app.finish().await;
}

#[tokio::test]
async fn a_second_backup_waits_for_nobody_and_a_client_that_hangs_up_ends_the_first() {
    let (_folder, app) = server(DoorLimits::default(), 16).await;
    let mut first = ask_and_look_away(&app).await;
    let mut head = [0; 12];
    within_patience(first.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let answer = app.ask(ADMIN_KEY, Method::POST, "/v1/backup").await;
    assert_eq!(answer.problem(), (409, "backup_running".to_owned()));
    app.report(&[lead(1)]).await;
    drop(first);
    app.until(async || status(&app).await == 200).await;
    app.delivered(1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_client_that_takes_none_of_its_backup_is_let_go() {
    let door = DoorLimits { write_timeout: Duration::from_millis(150), ..DoorLimits::default() };
    let (_folder, app) = server(door, 16).await;
    let mut stuck = ask_and_look_away(&app).await;
    let mut head = [0; 12];
    within_patience(stuck.read_exact(&mut head)).await.unwrap();
    app.until(async || status(&app).await == 200).await;
    app.finish().await;
}

#[tokio::test]
async fn a_server_stops_in_time_though_a_backup_is_taken_slowly() {
    let (_folder, app) = server(DoorLimits::default(), 16).await;
    let mut slow = ask_and_look_away(&app).await;
    let mut head = [0; 12];
    within_patience(slow.read_exact(&mut head)).await.unwrap();
    let reading = tokio::spawn(async move {
        let mut rest = Vec::new();
        // It is cut short; that is an error or an early end, as the system has it.
        let _ = slow.read_to_end(&mut rest).await;
        rest.len()
    });
    app.finish().await;
    assert!(within_patience(reading).await.unwrap() < 17 * 1024 * 1024);
}
