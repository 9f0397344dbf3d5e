//! Clients that hold a connection open and say nothing, never stop, or try to be misunderstood.

use std::sync::Arc;
use std::time::Duration;

use leadloop::http::server::DoorLimits;
use leadloop::limits::BODY_OWN_BYTES;
use leadloop::meta::signature::sign;
use leadloop::store::redb::{Purpose, RedbStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::stuck::{Stuck, stuck_clients};
use crate::support::{ADMIN_KEY, APP_SECRET, TestApp, delivery_of, lead, stage, within_patience};

const SHORT: DoorLimits = DoorLimits {
    head_timeout: Duration::from_millis(150),
    idle_timeout: Duration::from_millis(150),
    body_timeout: Duration::from_millis(150),
    write_timeout: Duration::from_millis(150),
    connections_max: 3,
    body_budget_bytes: 64 * 1024,
};

/// A well-formed signature that is not the right one.
const SIGNATURE: &str =
    "X-Hub-Signature-256: sha256=00000000000000000000000000000000000000000000000000000000000000ff";

async fn connect(app: &TestApp) -> TcpStream {
    TcpStream::connect(app.url.trim_start_matches("http://")).await.unwrap()
}

/// Sends bytes, and reads until the server closes the connection.
async fn until_closed(app: &TestApp, sent: &str) -> String {
    let mut stream = connect(app).await;
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is reset has been closed, too.
    let _ = within_patience(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_client_that_sends_no_whole_head_is_closed() {
    let app = TestApp::start_with_door(SHORT).await;
    for sent in ["", "GET /hea", "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let answer = until_closed(&app, sent).await;
        assert!(!answer.contains("200"), "{sent:?}: {answer}");
    }
    app.finish().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_request() {
    let app = TestApp::start_with_door(SHORT).await;
    let answer = until_closed(&app, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    app.finish().await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_answered_408() {
    let app = TestApp::start_with_door(SHORT).await;
    let head = format!("POST /webhooks/meta HTTP/1.1\r\nHost: x\r\n{SIGNATURE}\r\n");
    for length in ["Content-Length: 1000", "Transfer-Encoding: chunked"] {
        let answer = until_closed(&app, &format!("{head}{length}\r\n\r\n5\r\nabcde")).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{length}: {answer}");
        assert!(answer.contains("body_timed_out"));
    }
    app.finish().await;
}

#[tokio::test]
async fn too_many_and_too_large_headers_are_refused() {
    let app = TestApp::start_with_door(SHORT).await;
    let many = "X-A: 1\r\n".repeat(100);
    let large = format!("X-A: {}\r\n", "a".repeat(20_000));
    for headers in [many, large] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let answer = until_closed(&app, &request).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    app.finish().await;
}

#[tokio::test]
async fn what_is_no_http_is_answered_400_and_closed() {
    let app = TestApp::start_with_door(SHORT).await;
    for junk in ["\x16\x03\x01\x02\x00\x01", "HELLO\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let answer = until_closed(&app, junk).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    let two_lengths = "POST /webhooks/meta HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\
                       Content-Length: 2\r\n\r\nab";
    assert!(until_closed(&app, two_lengths).await.starts_with("HTTP/1.1 400"));
    app.finish().await;
}

#[tokio::test]
async fn silent_connections_lock_nobody_out_for_long() {
    let app = TestApp::start_with_door(SHORT).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(connect(&app).await);
    }
    let answer = app.get("/healthz").await;
    assert_eq!(answer.status, 200);
    app.finish().await;
}

#[tokio::test]
async fn a_client_that_takes_no_answer_is_closed() {
    let app = TestApp::start_with_door(SHORT).await;
    let mut stream = connect(&app).await;
    let request = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2_000);
    // It is cut off while it sends, or once the server has nobody to write to.
    let _ = within_patience(stream.write_all(request.as_bytes())).await;
    let closed = async {
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        while stream.write_all(b"GET").await.is_ok() {
            interval.tick().await;
        }
    };
    within_patience(closed).await;
    app.finish().await;
}

#[tokio::test]
async fn a_thousand_stuck_clients_keep_nobody_from_being_answered_and_are_let_go() {
    let moment = Duration::from_secs(2);
    let door = DoorLimits {
        head_timeout: moment,
        idle_timeout: moment,
        body_timeout: moment,
        write_timeout: moment,
        ..DoorLimits::default()
    };
    let app = TestApp::start_with_door(door).await;
    let address = app.url.trim_start_matches("http://");
    let stuck = Stuck::connect(address, stuck_clients()).await;
    for number in 1..=20 {
        app.report(&[lead(number)]).await;
        app.stage(number, "qualified", 50).await;
        assert_eq!(app.get("/v1/leads?limit=1").await.status, 200);
    }
    stuck.let_go().await;
    app.delivered(40).await;
    app.finish().await;
}

// ---- Requests that could be read in two ways --------------------------------------------------

/// The status of each answer in what a connection brought.
fn statuses(answers: &str) -> Vec<&str> {
    let starts = answers.match_indices("HTTP/1.1 ");
    starts.map(|(at, start)| &answers[at + start.len()..][..3]).collect()
}

/// A request to the webhook, rightly signed, with these headers about its body and this body.
fn signed_head(body: &str, headers: &str) -> String {
    let signature = sign(&APP_SECRET.into(), body.as_bytes());
    format!(
        "POST /webhooks/meta HTTP/1.1\r\nHost: x\r\nX-Hub-Signature-256: {signature}\r\n\
         {headers}\r\n\r\n"
    )
}

#[tokio::test]
async fn pipelined_requests_are_answered_each_and_in_order() {
    let app = TestApp::start_with_door(SHORT).await;
    let body = delivery_of(&[lead(1)]).to_string();
    let delivery = signed_head(&body, &format!("Content-Length: {}", body.len())) + &body;
    let sent = ["/healthz", "/nowhere", "/v1/leads"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
        .join(&delivery);
    let answers = until_closed(&app, &sent).await;
    assert_eq!(statuses(&answers), ["200", "200", "404", "200", "401"], "{answers}");
    app.delivered(1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_client_that_stops_sending_after_its_request_gets_its_answer() {
    // A store that takes its time, so that the end is seen before there is an answer.
    let folder = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&folder.path().join("leads.redb"), Purpose::Live).unwrap();
    let app = TestApp::start_with("", Arc::new(store)).await;
    let body = delivery_of(&[lead(1)]).to_string();
    let sent = signed_head(&body, &format!("Content-Length: {}", body.len())) + &body;
    let mut stream = connect(&app).await;
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    within_patience(stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(statuses(&answer), ["200"], "{answer}");
    app.delivered(1).await;
    app.finish().await;
}

#[tokio::test]
async fn a_client_that_stops_sending_in_its_request_changes_nothing() {
    let app = TestApp::start_with_door(SHORT).await;
    let body = delivery_of(&[lead(1)]).to_string();
    let whole = signed_head(&body, &format!("Content-Length: {}", body.len())) + &body;
    for cut in [10, whole.len() - body.len() + 5, whole.len() - 1] {
        let mut stream = connect(&app).await;
        stream.write_all(&whole.as_bytes()[..cut]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        let _ = within_patience(stream.read_to_string(&mut answer)).await;
        assert!(!answer.contains("200 OK"), "{cut}: {answer}");
    }
    assert_eq!(app.stored().await, [0; 4]);
    app.finish().await;
}

#[tokio::test]
async fn a_body_whose_length_is_told_in_two_ways_is_refused_or_ends_the_connection() {
    let app = TestApp::start_with_door(SHORT).await;
    let hidden = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let chunked = "2\r\n{}\r\n0\r\n\r\n";
    for (headers, body, status) in [
        ("Content-Length: 2\r\nContent-Length: 3", "{}", "400"),
        ("Content-Length: 2, 3", "{}", "400"),
        ("Content-Length: +2", "{}", "400"),
        ("Content-Length: -2", "{}", "400"),
        ("Content-Length: 0x2", "{}", "400"),
        ("Content-Length: 99999999999999999999", "{}", "400"),
        ("Transfer-Encoding: identity", "{}", "400"),
        ("Transfer-Encoding: chunked, gzip", chunked, "400"),
        ("Transfer-Encoding: xchunked", chunked, "400"),
        // The chunks alone count (RFC 9112, 6.3); what follows them is not looked at.
        ("Transfer-Encoding: chunked\r\nContent-Length: 2", chunked, "200"),
        ("Content-Length: 9\r\nTransfer-Encoding: chunked", chunked, "200"),
    ] {
        let sent = signed_head("{}", headers) + body + hidden;
        let answers = until_closed(&app, &sent).await;
        assert_eq!(statuses(&answers), [status], "{headers}: {answers}");
    }
    // The control: what follows a request that is clear is looked at.
    let clear = signed_head("{}", "Transfer-Encoding: chunked") + chunked + hidden;
    assert_eq!(statuses(&until_closed(&app, &clear).await), ["200", "200"]);
    app.finish().await;
}

#[tokio::test]
async fn chunks_that_make_no_sense_are_no_body() {
    let app = TestApp::start_with_door(SHORT).await;
    for chunks in
        ["zz\r\n{}\r\n0\r\n\r\n", "-2\r\n{}\r\n", "fffffffffffffffff\r\n{}", "2\r\n{}0\r\n"]
    {
        let sent = signed_head("{}", "Transfer-Encoding: chunked") + chunks;
        let answer = until_closed(&app, &sent).await;
        assert_eq!(statuses(&answer), ["400"], "{chunks}: {answer}");
    }
    app.finish().await;
}

#[tokio::test]
async fn who_speaks_http_2_is_not_kept() {
    let app = TestApp::start_with_door(SHORT).await;
    let settings = "\0\0\0\x04\0\0\0\0\0";
    let answer = until_closed(&app, &format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{settings}")).await;
    assert!(!answer.contains("200"), "{answer}");
    let upgrade = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    assert_eq!(statuses(&until_closed(&app, upgrade).await), ["200"], "it stays HTTP/1");
    app.finish().await;
}

// ---- Bodies -----------------------------------------------------------------------------------

#[tokio::test]
async fn a_compressed_body_is_refused_whatever_is_in_it() {
    let app = TestApp::start().await;
    let body = delivery_of(&[lead(1)]).to_string();
    let delivery = app.signed(body.as_bytes()).header("content-encoding", "gzip");
    let update = app.request(reqwest::Method::POST, "/v1/stage-updates").bearer_auth(ADMIN_KEY);
    let update = update.header("content-encoding", "br").json(&stage(1, "won", 1));
    for request in [delivery, update] {
        let answer = app.send(request).await;
        assert_eq!(answer.problem(), (415, "unsupported_encoding".into()));
        assert_eq!(answer.headers["accept-encoding"], "identity");
    }
    assert_eq!(app.stored().await, [0; 4]);
    app.finish().await;
}

#[tokio::test]
async fn large_bodies_wait_outside_while_others_fill_the_budget_and_small_ones_do_not() {
    let door = DoorLimits { body_budget_bytes: BODY_OWN_BYTES, ..DoorLimits::default() };
    let app = TestApp::start_with_door(door).await;
    // Spaces are no part of a delivery, and of its signature they are.
    let large = delivery_of(&[lead(1)]).to_string() + &" ".repeat(2 * BODY_OWN_BYTES - 500);
    let length = 2 * BODY_OWN_BYTES;
    let head = format!("POST /webhooks/meta HTTP/1.1\r\nHost: x\r\n{SIGNATURE}\r\n");
    let head = format!("{head}Content-Length: {length}\r\n\r\n");
    let mut holding = connect(&app).await;
    holding.write_all((head + &"x".repeat(length - 1)).as_bytes()).await.unwrap();
    let answered = async |status: u16| app.webhook(large.as_bytes()).await.status == status;
    app.until(async || answered(503).await).await;
    let refused = app.webhook(large.as_bytes()).await;
    assert_eq!(refused.problem(), (503, "overloaded".into()));
    assert_eq!(refused.headers["retry-after"], "5");
    app.report(&[lead(2)]).await;
    // Nothing of the refused one was stored; once the client is gone there is room again.
    assert_eq!(app.stored().await[0], 1);
    drop(holding);
    app.until(async || answered(200).await).await;
    app.delivered(2).await;
    let metrics = app.get("/metrics").await.text;
    assert!(metrics.contains("webhook_deliveries_total{result=\"overloaded\"}"), "{metrics}");
    app.finish().await;
}
