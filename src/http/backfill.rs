//! Looking for leads that the webhook lost: to begin it, and to see how it goes.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::ids::{FormId, InvalidId, PageId};
use crate::http::error::{ApiError, Code};
use crate::http::extract::{Admin, JsonBody, Reader};
use crate::http::page::read_with;
use crate::http::state::AppState;
use crate::http::time::{read_time, rfc3339};
use crate::limits::{BACKFILL_BODY_BYTES_MAX, BACKFILL_SINCE_S_MAX};
use crate::reader::backfill::{NotBegun, Progress, Wish};

/// Which leads are to be read from Meta; `{}` for all that came since the last time.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackfillBody {
    /// Of this Page only.
    page_id: Option<String>,
    /// Of this form only.
    form_id: Option<String>,
    /// Created since then: Unix seconds, or RFC 3339, at most 90 days ago. Without it, since some
    /// hours before the newest lead of the form that was read; seven days for a new form.
    #[schema(value_type = Option<String>)]
    since: Option<Value>,
    /// `true` to store nothing, and be told how many leads are new.
    dry_run: bool,
}

/// How a backfill is going, or how it ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct BackfillView {
    /// `running` or `finished`.
    state: &'static str,
    /// Whether it was begun by the schedule.
    scheduled: bool,
    /// Whether nothing is stored.
    dry_run: bool,
    /// Of this Page only.
    page_id: Option<String>,
    /// Of this form only.
    form_id: Option<String>,
    /// Since when leads are read, if that was asked for.
    since: Option<String>,
    /// When it began.
    started_at: String,
    /// When it ended.
    finished_at: Option<String>,
    /// Until when it waits, because Meta wants fewer calls or has trouble.
    waits_until: Option<String>,
    /// Forms that are to be read; 0 until their lists have been read.
    forms: u64,
    /// Forms that have been read to their end.
    forms_read: u64,
    /// Forms, or lists of forms, that could not be; they are read again the next time.
    forms_failed: u64,
    /// Leads that were read.
    leads_read: u64,
    /// Of these, leads that nobody had told leadloop of; they are taken in. A dry run counts those
    /// that were erased, too.
    new: u64,
    /// Of these, leads that were known, or are erased.
    known: u64,
    /// Leads that could not be read; they are read again the next time. One without a time is in
    /// quarantine, and does not keep its form waiting.
    failed: u64,
    /// Of the new ones, those older than a quarter of an hour, of forms that had been read before:
    /// the webhook has lost them.
    lost: u64,
    /// The ids of the first twenty of the new ones.
    new_leads: Vec<String>,
}

impl BackfillView {
    fn of(progress: &Progress) -> Self {
        let Progress { wish, counts, .. } = progress;
        Self {
            state: if progress.finished_at.is_some() { "finished" } else { "running" },
            scheduled: progress.scheduled,
            dry_run: wish.dry_run,
            page_id: wish.page_id.map(|id| id.to_string()),
            form_id: wish.form_id.map(|id| id.to_string()),
            since: wish.since.map(|since| rfc3339(since.timestamp())),
            started_at: rfc3339(progress.started_at),
            finished_at: progress.finished_at.map(rfc3339),
            waits_until: progress.waits_until.map(rfc3339),
            forms: counts.forms,
            forms_read: counts.forms_read,
            forms_failed: counts.forms_failed,
            leads_read: counts.read,
            new: counts.new,
            known: counts.known,
            failed: counts.failed,
            lost: counts.lost,
            new_leads: progress.new_leads.iter().map(ToString::to_string).collect(),
        }
    }
}

/// The backfill that is under way, or the last one since the start of the server.
#[derive(Debug, Serialize, ToSchema)]
pub struct BackfillAnswer {
    /// Null if there was none.
    backfill: Option<BackfillView>,
}

/// Begins to look for leads that the webhook lost. There is one at a time.
#[utoipa::path(
    post,
    path = "/v1/backfill",
    tag = "backfill",
    request_body = BackfillBody,
    responses(
        (status = 202, description = "Begun", body = BackfillAnswer),
        (status = 400, description = "invalid_request"),
        (status = 409, description = "backfill_running, reading_not_configured"),
    ),
    security(("api_key" = [])),
)]
pub async fn begin_backfill(
    _: Admin,
    State(state): State<AppState>,
    JsonBody(body): JsonBody<BackfillBody, BACKFILL_BODY_BYTES_MAX>,
) -> Result<(StatusCode, Json<BackfillAnswer>), ApiError> {
    let now = state.clock.now();
    let wish = read_wish(&body, now.seconds().get() - BACKFILL_SINCE_S_MAX)?;
    let begun = state.backfills.begin(wish, now).map_err(|why| match why {
        NotBegun::Running => ApiError::plain(Code::BackfillRunning),
        NotBegun::NoToken => ApiError::plain(Code::ReadingNotConfigured),
    })?;
    let backfill = Some(BackfillView::of(&begun));
    Ok((StatusCode::ACCEPTED, Json(BackfillAnswer { backfill })))
}

/// How the backfill that is under way is going, or how the last one ended.
#[utoipa::path(
    get,
    path = "/v1/backfill",
    tag = "backfill",
    responses((status = 200, description = "How it is going", body = BackfillAnswer)),
    security(("api_key" = [])),
)]
pub async fn get_backfill(_: Reader, State(state): State<AppState>) -> Json<BackfillAnswer> {
    let progress = state.backfills.progress();
    Json(BackfillAnswer { backfill: progress.as_ref().map(BackfillView::of) })
}

fn read_wish(body: &BackfillBody, oldest: i64) -> Result<Wish, ApiError> {
    let said = |error: InvalidId| error.to_string();
    let invalid = |problem: String| {
        let detail = format!("since: {problem}");
        ApiError::new(Code::InvalidRequest, detail).with("field", "since")
    };
    let since = body.since.as_ref().map(|since| read_time(since, None)).transpose();
    let since = since.map_err(invalid)?;
    if since.is_some_and(|since| since.get() < oldest) {
        return Err(invalid("is more than 90 days ago, and Meta keeps no lead for longer".into()));
    }
    Ok(Wish {
        page_id: read_with("page_id", body.page_id.as_deref(), |text| {
            PageId::parse(text).map_err(said)
        })?,
        form_id: read_with("form_id", body.form_id.as_deref(), |text| {
            FormId::parse(text).map_err(said)
        })?,
        since,
        dry_run: body.dry_run,
    })
}
