//! How the datasets are doing.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::Dataset;
use crate::delivery::status::Activity;
use crate::http::error::ApiError;
use crate::http::extract::Reader;
use crate::http::state::AppState;
use crate::http::time::rfc3339;
use crate::meta::errors::PauseReason;

/// A dataset.
#[derive(Debug, Serialize, ToSchema)]
pub struct DatasetView {
    /// Its id.
    dataset_id: String,
    /// What Meta is told as `lead_event_source`.
    crm_name: String,
    /// Name of its raw-lead stage.
    raw_stage: String,
    /// `active`, `waiting` after a failure that will pass, or `paused` until somebody mends
    /// something.
    state: &'static str,
    /// Why it is paused: `token`, `permission`, `dataset`, `blocked` or `refusals`.
    reason: Option<&'static str>,
    /// What to do about that.
    advice: Option<&'static str>,
    /// Since when it is waiting or paused.
    since: Option<String>,
    /// When it is tried again.
    next_try_at: Option<String>,
    /// Event time of the event in front of its queue, in Unix seconds; null if the queue is empty.
    queue_front_event_time: Option<i64>,
    /// Whether a test code is set; Meta counts such events all the same.
    test_event_code: bool,
    /// Whether its events go to this machine, where a stand-in for Meta is, and not to Meta.
    stand_in: bool,
}

impl DatasetView {
    fn of(dataset: &Dataset, activity: Activity, front: Option<i64>, stand_in: bool) -> Self {
        let (state, reason, since, next_try_at) = match activity {
            Activity::Active => ("active", None, None, None),
            Activity::Elsewhere => ("elsewhere", None, None, None),
            Activity::Waiting { since, next_try_at } => {
                ("waiting", None, Some(since), Some(next_try_at))
            }
            Activity::Paused { reason, since, next_try_at } => {
                ("paused", Some(reason), Some(since), Some(next_try_at))
            }
        };
        Self {
            dataset_id: dataset.id.to_string(),
            crm_name: dataset.crm_name.clone(),
            raw_stage: dataset.raw_stage.to_string(),
            state,
            reason: reason.map(PauseReason::name),
            advice: reason.map(PauseReason::advice),
            since: since.map(rfc3339),
            next_try_at: next_try_at.map(rfc3339),
            queue_front_event_time: front,
            test_event_code: dataset.test_event_code.is_some(),
            stand_in,
        }
    }
}

/// All datasets.
#[derive(Debug, Serialize, ToSchema)]
pub struct DatasetList {
    /// In the order of their ids.
    datasets: Vec<DatasetView>,
}

/// How each dataset is doing: whether it works, and if not, why and since when.
#[utoipa::path(
    get,
    path = "/v1/datasets",
    tag = "datasets",
    responses((status = 200, description = "All datasets", body = DatasetList)),
    security(("api_key" = [])),
)]
pub async fn list_datasets(
    _: Reader,
    State(state): State<AppState>,
) -> Result<Json<DatasetList>, ApiError> {
    let stand_in = state.config.sends_to_this_machine();
    let fronts = state.store.fronts().await?;
    let view = |dataset: &Dataset| {
        let front = fronts.iter().find(|(id, _)| *id == Some(dataset.id));
        let front = front.map(|(_, event_time)| event_time.get());
        DatasetView::of(dataset, state.status.get(dataset.id), front, stand_in)
    };
    Ok(Json(DatasetList { datasets: state.config.datasets.values().map(view).collect() }))
}
