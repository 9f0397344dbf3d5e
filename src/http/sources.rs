//! The sources that are configured by name, and how their reports are judged.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::Source;
use crate::domain::customer::Country;
use crate::domain::stage::SourceName;
use crate::http::extract::Reporter;
use crate::http::state::AppState;

/// A source.
#[derive(Debug, Serialize, ToSchema)]
pub struct SourceView {
    /// Its name, as in `source` of a stage update.
    source: String,
    /// How far its clock may be off, in seconds.
    clock_tolerance_s: u32,
    /// The zone of its times that come without an offset; null if these are refused.
    time_zone: Option<String>,
    /// The country of its phone numbers that do not name theirs; null if these are left out.
    default_country: Option<&'static str>,
    /// Whether an update for an unknown lead is refused.
    strict: bool,
    /// Whether its own webhooks are taken.
    hook: bool,
}

impl SourceView {
    fn of(name: &SourceName, source: &Source) -> Self {
        Self {
            source: name.to_string(),
            clock_tolerance_s: source.policy.clock_tolerance_s,
            time_zone: source.time_zone.as_ref().and_then(|zone| zone.iana_name()).map(Into::into),
            default_country: source.default_country.map(Country::code),
            strict: source.policy.strict,
            hook: source.hook.is_some(),
        }
    }
}

/// All sources.
#[derive(Debug, Serialize, ToSchema)]
pub struct SourceList {
    /// In the order of their names.
    sources: Vec<SourceView>,
}

/// The sources of the settings. A report of another one is judged by the usual rules.
#[utoipa::path(
    get,
    path = "/v1/sources",
    tag = "stage updates",
    responses((status = 200, description = "All sources", body = SourceList)),
    security(("api_key" = [])),
)]
pub async fn list_sources(_: Reporter, State(state): State<AppState>) -> Json<SourceList> {
    let sources = &state.config.sources;
    Json(SourceList {
        sources: sources.iter().map(|(name, it)| SourceView::of(name, it)).collect(),
    })
}
