//! Runs over real connections, against servers of a few lines.

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::worker::Exchange;
use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

/// A server that gives these answers on each of its connections and closes it then; it answers the
/// rest with the last ones.
async fn server(mut connections: Vec<Vec<&'static str>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let more = connections.len() > 1;
            let answers = if more { connections.remove(0) } else { connections[0].clone() };
            tokio::spawn(async move { answer(&mut stream, &answers).await });
        }
    });
    url
}

async fn answer(stream: &mut TcpStream, answers: &[&str]) {
    let mut request = [0; 4_096];
    for answer in answers {
        // Requests this short come in one piece.
        if stream.read(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn plan(server: &str, pace: Pace, requests: u64) -> Plan {
    Plan {
        server: server.parse().unwrap(),
        load: Load::Gets { path: "/".into() },
        connections: 1,
        pace,
        until: Until::Requests(requests),
        warm_up: Duration::ZERO,
        seed: 7,
    }
}

#[tokio::test]
async fn each_failure_is_counted_by_its_kind_and_a_broken_connection_is_opened_again() {
    let url = server(vec![vec![OK, BUSY, OK, "HTTP/1.1 2"], vec![OK; 10]]).await;
    let report = run(plan(&url, Pace::Closed, 6), |_| {}).await.unwrap();
    assert_eq!(report.requests, 4);
    let failures = BTreeMap::from([(Failure::Status(503), 1), (Failure::Broken, 1)]);
    assert_eq!(report.failures, failures);
    assert_eq!(report.latency.len(), 4, "only answers that were a success have a latency");
}

#[tokio::test]
async fn updates_that_a_batch_refuses_are_failures_although_the_batch_is_taken() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 44\r\n\r\n\
                  {\"results\":[{\"status\":202},{\"status\":422}]}\n";
    let url = server(vec![vec![answer; 10]]).await;
    let load = Load::StageUpdates { api_key: "key".into(), leads: 9, per_request: 2 };
    let plan = Plan { load, ..plan(&url, Pace::Closed, 3) };
    let report = run(plan, |_| {}).await.unwrap();
    assert_eq!((report.requests, report.leads), (3, 3));
    assert_eq!(report.failures, BTreeMap::from([(Failure::Item(422), 3)]));
}

#[tokio::test]
async fn that_a_server_closes_an_idle_connection_is_seen_before_the_next_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (close, closed) = (Notify::new(), Notify::new());
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        answer(&mut stream, &[OK]).await;
        close.notified().await;
        drop(stream);
        closed.notify_one();
        let (mut stream, _) = listener.accept().await.unwrap();
        answer(&mut stream, &[OK]).await;
    };
    let ask = async {
        let mut connection = Connection::open(address).await.unwrap();
        let request = || Request::builder().header("host", "here").body(Full::default()).unwrap();
        assert!(connection.exchange(request()).await.is_ok());
        close.notify_one();
        closed.notified().await;
        connection.wait_until(Instant::now() + Duration::from_millis(50)).await;
        assert_eq!(connection.exchange(request()).await, Ok("ok".into()));
    };
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn an_address_where_nobody_is_is_told_at_once() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let error = run(plan(&url, Pace::Closed, 1), |_| {}).await.unwrap_err();
    assert!(matches!(error, BenchError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_goes_away_makes_the_rest_fail_and_the_run_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(listener);
        answer(&mut stream, &[OK]).await;
    });
    let report = run(plan(&url, Pace::Closed, 4), |_| {}).await.unwrap();
    assert_eq!((report.requests, report.failed()), (1, 3), "{report:?}");
    assert!(report.failures[&Failure::Connect] >= 2, "{report:?}");
}

#[tokio::test]
async fn a_plan_that_makes_no_sense_is_refused() {
    let good = || plan("http://127.0.0.1:1", Pace::Closed, 1);
    let leads = |leads_per_post| Load::Webhooks {
        app_secret: "secret".into(),
        page_id: 1,
        leads_per_post,
        first: 0,
    };
    for (plan, says) in [
        (Plan { server: "https://a".parse().unwrap(), ..good() }, "only http://"),
        (Plan { connections: 0, ..good() }, "connections: 0"),
        (Plan { connections: 5_000, ..good() }, "connections: 5000"),
        (Plan { pace: Pace::Open { per_s: f64::NAN }, ..good() }, "rate: NaN"),
        (Plan { pace: Pace::Open { per_s: 0.0 }, ..good() }, "rate: 0"),
        (Plan { until: Until::Requests(0), ..good() }, "requests: 0"),
        (Plan { until: Until::Elapsed(Duration::MAX), ..good() }, "seconds"),
        (Plan { load: leads(1_001), ..good() }, "leads of one delivery: 1001"),
    ] {
        let error = run(plan, |_| {}).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
