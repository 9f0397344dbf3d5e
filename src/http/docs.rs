//! The OpenAPI document and a page to read it, both from this binary alone.

use std::sync::Arc;

use axum::Router;
use axum::http::header::{CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response as ApiResponse};
use utoipa_swagger_ui::Config;

use crate::http::error::{ApiError, Code, Problem};
use crate::http::extract::ApiPath;
use crate::http::state::AppState;

/// The general part of the document; the routes add theirs.
#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "leadloop",
    description = "Meta Lead Ads in, Conversions API events out. Ids are strings of digits; times \
        are Unix seconds or RFC 3339. Errors are `application/problem+json` with a stable `code`:",
), tags(
    (name = "stage updates", description = "For a CRM: which stage a lead has reached"),
    (name = "leads", description = "What happened to a lead"),
    (name = "events", description = "What is sent to Meta, and what became of it"),
    (name = "backfill", description = "Leads that the webhook lost"),
    (name = "datasets", description = "Where it is sent to"),
    (name = "alarms", description = "What somebody outside is told"),
    (name = "webhook", description = "For Meta"),
    (name = "backup", description = "A copy of everything"),
    (name = "operation", description = "For supervisors and Prometheus"),
))]
struct General;

/// The document before the routes have added to it.
pub(super) fn general() -> OpenApi {
    let mut document = <General as utoipa::OpenApi>::openapi();
    let codes = Code::ALL.iter().map(|code| {
        format!("- `{}` ({}): {}", code.name(), code.status().as_u16(), code.meaning())
    });
    let catalogue = codes.collect::<Vec<_>>().join("\n");
    let text = document.info.description.unwrap_or_default();
    document.info.description = Some(format!("{text}\n\n{catalogue}"));
    if let Some(license) = &mut document.info.license {
        // The page would make a link of it, which leads nowhere: an expression has no page.
        license.identifier = None;
    }
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("api_key", SecurityScheme::Http(bearer));
    document
}

/// What any route that wants a key may answer.
const EVERY_API_ROUTE: [(&str, &str); 4] = [
    ("401", "unauthorized"),
    ("403", "forbidden: the key lacks the scope"),
    ("500", "internal"),
    ("503", "store_unavailable, timed_out"),
];

/// What any route that reads a body may answer.
const EVERY_ROUTE_WITH_A_BODY: [(&str, &str); 4] = [
    ("408", "body_timed_out"),
    ("413", "payload_too_large"),
    ("415", "unsupported_encoding"),
    ("503", "store_unavailable, overloaded, timed_out"),
];

/// The document with a body for every problem: whatever is not a success is one.
pub(super) fn with_problems(mut document: OpenApi) -> OpenApi {
    let schema = <Problem as utoipa::PartialSchema>::schema();
    let components = document.components.get_or_insert_default();
    components.schemas.insert("Problem".to_owned(), schema);
    let operations = document.paths.paths.values_mut().flat_map(|path| {
        [&mut path.get, &mut path.post, &mut path.put, &mut path.delete].into_iter().flatten()
    });
    for operation in operations {
        let with_body = operation.request_body.iter().flat_map(|_| EVERY_ROUTE_WITH_A_BODY);
        let with_key = operation.security.iter().flat_map(|_| EVERY_API_ROUTE);
        for (status, codes) in with_body.chain(with_key) {
            let response = || ApiResponse::new(codes).into();
            operation.responses.responses.entry(status.to_owned()).or_insert_with(response);
        }
        for (status, response) in &mut operation.responses.responses {
            if let (true, RefOr::T(response)) = (status.starts_with(['4', '5']), response) {
                let body = Content::new(Some(Ref::from_schema_name("Problem")));
                response.content.insert("application/problem+json".to_owned(), body.into());
            }
        }
    }
    document
}

/// `/openapi.json` and `/docs`.
pub(super) fn routes(document: &OpenApi) -> Router<AppState> {
    let document = serde_json::to_string_pretty(document).unwrap_or_default();
    let json = [(CONTENT_TYPE, "application/json")];
    Router::new()
        .route("/openapi.json", get(move || async move { (json, document) }))
        .route("/docs", get(index))
        .route("/docs/", get(index))
        .route("/docs/{file}", get(|ApiPath(file): ApiPath| async move { asset(&file) }))
}

/// The page itself, the same with and without a slash at the end.
async fn index() -> Result<Response, ApiError> {
    let page = read_asset("")?;
    let page = String::from_utf8_lossy(&page.bytes);
    let page = page.replace("\"./", "\"/docs/").replace("\"index.css\"", "\"/docs/index.css\"");
    let mut response = Html(page).into_response();
    let policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:";
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    Ok(response)
}

fn asset(file: &str) -> Result<Response, ApiError> {
    let asset = read_asset(file)?;
    let mut response = asset.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    let content_type = HeaderValue::try_from(asset.content_type);
    headers.insert(CONTENT_TYPE, content_type.map_err(|_| ApiError::plain(Code::Internal))?);
    if asset.gzpipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

fn read_asset(file: &str) -> Result<utoipa_swagger_ui::SwaggerFile<'static>, ApiError> {
    // The page would ask a service elsewhere to validate the document; it is not to.
    let config = Config::from("/openapi.json").validator_url("none").use_base_layout();
    utoipa_swagger_ui::serve(file, Arc::new(config))
        .map_err(|_| ApiError::plain(Code::Internal))?
        .ok_or_else(|| ApiError::plain(Code::NotFound))
}
