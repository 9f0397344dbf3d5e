//! The edge that events are sent to: `POST /{version}/{dataset_id}/events`.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::domain::ids::DatasetId;
use crate::sandbox::Sandbox;
use crate::sandbox::checks::{Refused, check_request};
use crate::sandbox::faults::{Fault, graph_error};

/// Takes events, or refuses all of them.
pub(super) async fn take_events(
    State(sandbox): State<Sandbox>,
    Path((version, dataset_id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let (request, fault) = {
        let mut memory = sandbox.memory();
        memory.requests += 1;
        (memory.requests, memory.faults.pop_front())
    };
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let take = || take(&sandbox, request, &version, &dataset_id, &headers, &body);
    match fault {
        None => take(),
        Some(Fault::TakeAndCut) => {
            let _lost = take();
            cut()
        }
        Some(Fault::Cut) => cut(),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Throttle { minutes }) => {
            let usage = json!({"1": [{"estimated_time_to_regain_access": minutes}]}).to_string();
            let answer = graph_error(80_004, None, false, "Too many calls");
            let headers = [("x-business-use-case-usage", usage)];
            (StatusCode::BAD_REQUEST, headers, Json(answer)).into_response()
        }
        Some(Fault::Garbage) => "<html>It works!</html>".into_response(),
        Some(Fault::Short) => {
            let count = body["data"].as_array().map_or(0, Vec::len);
            success(count.saturating_sub(1), request)
        }
        Some(Fault::ErrorInside) => {
            let mut answer = graph_error(2, None, true, "Service temporarily unavailable");
            answer["events_received"] = json!(body["data"].as_array().map_or(0, Vec::len));
            Json(answer).into_response()
        }
        Some(Fault::Error { http_status, code, subcode, is_transient }) => {
            let status = StatusCode::from_u16(http_status).unwrap_or(StatusCode::BAD_REQUEST);
            let answer = graph_error(code, subcode, is_transient, "Told to misbehave");
            (status, Json(answer)).into_response()
        }
    }
}

/// The dataset as Meta shows it to whoever holds its token.
pub(super) fn show_dataset(
    sandbox: &Sandbox,
    version: &str,
    dataset_id: &str,
    headers: &HeaderMap,
) -> Response {
    match authorize(sandbox, version, dataset_id, headers) {
        Ok(id) => {
            let name = "Stand-in for a CRM dataset";
            Json(json!({"id": id.to_string(), "name": name, "is_crm": true})).into_response()
        }
        Err(refused) => *refused,
    }
}

fn take(
    sandbox: &Sandbox,
    request: u64,
    version: &str,
    dataset_id: &str,
    headers: &HeaderMap,
    body: &Value,
) -> Response {
    let dataset_id = match authorize(sandbox, version, dataset_id, headers) {
        Ok(dataset_id) => dataset_id,
        Err(refused) => return *refused,
    };
    let deleted = sandbox.memory().deleted_leads.clone();
    match check_request(body, sandbox.0.clock.now(), |lead_id| deleted.contains(&lead_id)) {
        Ok(events) => {
            let count = events.len();
            sandbox.take(dataset_id, request, events);
            success(count, request)
        }
        Err(why) => refused(StatusCode::BAD_REQUEST, why),
    }
}

/// The dataset that is asked for, if the version exists and the token holds it.
fn authorize(
    sandbox: &Sandbox,
    version: &str,
    dataset_id: &str,
    headers: &HeaderMap,
) -> Result<DatasetId, Box<Response>> {
    let refuse = |status, code, subcode, message| {
        Err(Box::new(refused(status, Refused { code, subcode, message })))
    };
    if !version.starts_with('v') || !version.contains('.') {
        let message = "Unknown version of the Graph API";
        return refuse(StatusCode::BAD_REQUEST, 2500, None, message);
    }
    let tokens = &sandbox.0.settings.datasets;
    let known = |token: &str| tokens.values().any(|known| known.expose_secret() == token);
    let Some(token) = bearer(headers).filter(|token| known(token)) else {
        let message = "Invalid OAuth access token - Cannot parse access token";
        return refuse(StatusCode::UNAUTHORIZED, 190, None, message);
    };
    let own = |id: &DatasetId| tokens.get(id).is_some_and(|own| own.expose_secret() == token);
    let unknown = "Unsupported request. Object does not exist or permission is missing";
    DatasetId::parse(dataset_id)
        .ok()
        .filter(own)
        .map_or_else(|| refuse(StatusCode::BAD_REQUEST, 100, Some(33), unknown), Ok)
}

fn refused(status: StatusCode, Refused { code, subcode, message }: Refused) -> Response {
    (status, Json(graph_error(code, subcode, false, message))).into_response()
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn success(events_received: usize, request: u64) -> Response {
    let fbtrace_id = format!("Sandbox{request}");
    let answer =
        json!({"events_received": events_received, "messages": [], "fbtrace_id": fbtrace_id});
    Json(answer).into_response()
}

/// An answer that breaks off: whoever waits for it sees the connection fail.
pub(super) fn cut() -> Response {
    let broken = futures_util::stream::once(async {
        Err::<Bytes, _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    });
    Body::from_stream(broken).into_response()
}
