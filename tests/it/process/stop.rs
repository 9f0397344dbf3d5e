//! Stopping in order: what is under way is finished and written down.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::program::{API_KEY, APP_SECRET, Place, settings, within};

/// An edge that takes a request and does not answer before it is let go.
#[derive(Clone)]
struct SlowEdge {
    came: Arc<Semaphore>,
    may_answer: Arc<Semaphore>,
}

impl SlowEdge {
    async fn start() -> (Self, String) {
        let edge = Self { came: Semaphore::new(0).into(), may_answer: Semaphore::new(0).into() };
        let router = Router::new()
            .route("/{version}/{dataset}/events", post(Self::answer))
            .with_state(edge.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, router).into_future());
        (edge, url)
    }

    async fn answer(State(edge): State<Self>, Json(body): Json<Value>) -> Json<Value> {
        edge.came.add_permits(1);
        edge.may_answer.acquire().await.unwrap().forget();
        let events_received = body["data"].as_array().unwrap().len();
        Json(json!({"events_received": events_received, "messages": [], "fbtrace_id": "Slow"}))
    }
}

#[tokio::test]
async fn a_delivery_that_is_under_way_at_sigterm_is_finished_and_recorded() {
    let place = Place::new();
    let (edge, meta) = SlowEdge::start().await;
    let environment =
        settings(&[], [("META_GRAPH_URL", meta.as_str()), ("LEADLOOP_API_KEY", API_KEY)]);
    let server = place.serve(&environment).await;
    let webhook = format!("{}/webhooks/meta", server.url);
    let secret = [("META_APP_SECRET", APP_SECRET)];
    let sent = place.run(&["trigger", "--url", &webhook], &secret).await;
    let lead_id = sent.stdout.trim();
    within(edge.came.acquire()).await.unwrap().forget();

    server.program.terminate();
    let stopping = |log: &String| log.contains("stopping");
    server.program.stderr.until(stopping).await;
    edge.may_answer.add_permits(1);
    assert_eq!(server.program.ended().await.code, Some(0));

    let server = place.serve(&environment).await;
    let lead = server.get(&format!("/v1/leads/{lead_id}"), API_KEY).await;
    assert_eq!(lead["events"][0]["state"], "delivered", "{lead}");
    assert_eq!(lead["events"][0]["fbtrace_id"], "Slow");
    server.stop().await;
    assert_eq!(edge.came.available_permits(), 0, "it was sent once");
}

#[tokio::test]
async fn an_edge_that_never_answers_does_not_keep_the_program_from_stopping() {
    let place = Place::new();
    let (edge, meta) = SlowEdge::start().await;
    let environment =
        settings(&[], [("META_GRAPH_URL", meta.as_str()), ("LEADLOOP_API_KEY", API_KEY)]);
    let server = place.serve(&environment).await;
    let webhook = format!("{}/webhooks/meta", server.url);
    let secret = [("META_APP_SECRET", APP_SECRET)];
    let sent = place.run(&["trigger", "--url", &webhook], &secret).await;
    within(edge.came.acquire()).await.unwrap().forget();
    server.program.terminate();
    assert_eq!(server.program.ended().await.code, Some(0));

    edge.may_answer.add_permits(1_000);
    let server = place.serve(&environment).await;
    let timeline = server.settled_timeline(sent.stdout.trim(), API_KEY).await;
    assert_eq!(timeline, ["initial_lead delivered"]);
    server.stop().await;
}

#[tokio::test]
async fn the_stand_in_stops_in_order_too() {
    Place::new().sandbox(&settings(&[], [])).await.stop().await;
}
