//! A stand-in for the Conversions API that answers at once and checks nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use leadloop::limits::SEND_BYTES_MAX;
use tokio::time::Instant;

/// Where it tells how many events it took.
pub(crate) const COUNT: &str = "/count";
const EVENTS: &str = "/{version}/{dataset_id}/events";
const EVENT: &str = "\"event_id\":\"";
const LEAD: &str = "\"lead_id\":";

/// What it took so far.
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Taken>);

#[derive(Default)]
struct Taken {
    events: AtomicU64,
    /// When the events of the leads that are watched came, if they did.
    arrivals: Mutex<HashMap<u64, Option<Instant>>>,
}

impl Sink {
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route(EVENTS, post(take))
            .route(COUNT, get(|State(sink): State<Self>| async move { sink.events().to_string() }))
            // An estimate keeps requests below the first half of this.
            .layer(DefaultBodyLimit::max(2 * SEND_BYTES_MAX))
            .with_state(self)
    }

    /// How many events came.
    fn events(&self) -> u64 {
        self.0.events.load(Ordering::Relaxed)
    }

    /// From now on it is noted when the first event of this lead comes.
    pub(crate) fn watch(&self, lead_id: u64) {
        self.arrivals().insert(lead_id, None);
    }

    /// When that was, once it is known.
    pub(crate) fn arrival(&self, lead_id: u64) -> Option<Instant> {
        self.arrivals().get(&lead_id).copied().flatten()
    }

    fn arrivals(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Option<Instant>>> {
        self.0.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_arrivals(&self, body: &str) {
        let mut arrivals = self.arrivals();
        if arrivals.is_empty() {
            return;
        }
        let now = Instant::now();
        for (at, _) in body.match_indices(LEAD) {
            let digits = &body[at + LEAD.len()..];
            let end = digits.find(|char: char| !char.is_ascii_digit()).unwrap_or(digits.len());
            let lead_id = digits[..end].parse().unwrap_or_default();
            if let Some(arrival) = arrivals.get_mut(&lead_id) {
                arrival.get_or_insert(now);
            }
        }
    }
}

async fn take(State(sink): State<Sink>, body: Bytes) -> impl IntoResponse {
    let body = std::str::from_utf8(&body).unwrap_or_default();
    let events = body.matches(EVENT).count();
    sink.note_arrivals(body);
    sink.0.events.fetch_add(events as u64, Ordering::Relaxed);
    let answer = format!(r#"{{"events_received":{events},"messages":[],"fbtrace_id":"A"}}"#);
    ([(CONTENT_TYPE, "application/json")], answer)
}
