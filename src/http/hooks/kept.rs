//! What no mapping fits: kept for a while, listed without its payload, and mapped again on demand.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::config::hooks::Hook;
use crate::domain::alarm::{Cause, Subject};
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::http::error::{ApiError, Code};
use crate::http::events::PageQuery;
use crate::http::extract::{Admin, ApiPath, ApiQuery};
use crate::http::finish::Finish;
use crate::http::hooks::seal::Sealer;
use crate::http::hooks::{Record, is_taken, read_kept};
use crate::http::page::{page_request, show_cursor};
use crate::http::stages::verdicts;
use crate::http::state::AppState;
use crate::http::time::rfc3339;
use crate::limits::{REPLAY_PAGE, UNMAPPED_BYTES_MAX};
use crate::mapping::payload::Form;
use crate::store::query::PageRequest;
use crate::store::{SetAside, Unmapped};

/// What is kept of a payload: one record of it, or all of it where none could be understood.
#[derive(Clone, Copy)]
pub(super) enum Kept<'a> {
    /// A record.
    Record(&'a Value),
    /// A payload as it came, in the form that it was taken for.
    Payload(Form, &'a [u8]),
}

impl Kept<'_> {
    const RECORD: u8 = b'R';
    const FORMS: [(u8, Form); 3] =
        [(b'J', Form::Json), (b'U', Form::Urlencoded), (b'X', Form::Xml)];

    /// What is sealed: a byte that says what follows, and that.
    fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Record(record) => [&[Self::RECORD], record.to_string().as_bytes()].concat(),
            Self::Payload(form, payload) => {
                let tag = Self::FORMS.into_iter().find(|(_, known)| *known == form);
                [&[tag.map_or(0, |(tag, _)| tag)], payload].concat()
            }
        }
    }
}

/// Keeps what could not be mapped, all in one transaction, and tells whoever can mend it; and more
/// loudly what can't be kept.
pub(super) async fn set_aside(
    state: &AppState,
    source: &SourceName,
    failed: Vec<(Kept<'_>, &ApiError)>,
    now: Timestamp,
) -> Result<(), ApiError> {
    let sealer = Sealer::new(&state.config.app_secrets);
    let (mut unmapped, mut sizes, mut not_kept) = (Vec::new(), Vec::new(), 0);
    for (kept, error) in failed {
        let problem = error.to_json();
        let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        let (field, plain) = (text("field"), kept.to_bytes());
        let bytes = plain.len() - 1;
        if let Some(sealed) = sealer.seal(source, &plain).filter(|_| bytes <= UNMAPPED_BYTES_MAX) {
            let (source, reason) = (source.clone(), text("detail"));
            unmapped.push(Unmapped { received_at: now, source, field, reason, sealed });
            sizes.push(bytes);
        } else {
            not_kept += 1;
            tell_not_kept(state, source, &field, bytes);
        }
    }
    let told: Vec<_> = unmapped.iter().map(|it| it.field.clone()).zip(sizes).collect();
    for ((field, bytes), outcome) in told.into_iter().zip(state.store.set_aside(unmapped).await?) {
        match outcome {
            SetAside::Known => {}
            SetAside::Kept => {
                tracing::error!(%source, field, bytes, "a CRM's report fits no mapping and is kept");
            }
            SetAside::Full => {
                not_kept += 1;
                tell_not_kept(state, source, &field, bytes);
            }
        }
    }
    if not_kept > 0 {
        let subject = Subject::ReportsNotKept { source: source.clone() };
        let cause = Cause { count: not_kept, ..Cause::once(subject, None) };
        state.store.raise_alarm(cause, now).await?;
    }
    Ok(())
}

fn tell_not_kept(state: &AppState, source: &SourceName, field: &str, bytes: usize) {
    state.metrics.hook("not_kept");
    tracing::error!(
        %source,
        field,
        bytes,
        "a CRM's report fits no mapping and is not kept: it is too large, or too many are"
    );
}

/// Something that no mapping fits.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnmappedView {
    /// Its number.
    id: String,
    /// Who sent it.
    source: String,
    /// When it came.
    received_at: String,
    /// Which of our fields could not be found.
    field: String,
    /// Why, and at which path.
    reason: String,
}

/// A page of what no mapping fits.
#[derive(Debug, Serialize, ToSchema)]
pub struct UnmappedPage {
    /// Newest first.
    unmapped: Vec<UnmappedView>,
    /// The cursor of the next page; null at the end.
    next_cursor: Option<String>,
}

/// Lists what CRMs sent and no mapping fits, without the payloads.
#[utoipa::path(
    get,
    path = "/v1/hooks/unmapped",
    tag = "stage updates",
    params(PageQuery),
    responses(
        (status = 200, description = "A page", body = UnmappedPage),
        (status = 400, description = "invalid_request: a parameter is malformed"),
    ),
    security(("api_key" = [])),
)]
pub async fn list_unmapped(
    _: Admin,
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Json<UnmappedPage>, ApiError> {
    let page = page_request(query.limit.as_deref(), query.cursor.as_deref())?;
    let page = state.store.list_unmapped(None, page).await?;
    let view = |row: &crate::store::NumberedUnmapped| UnmappedView {
        id: row.seq.to_string(),
        source: row.unmapped.source.to_string(),
        received_at: rfc3339(row.unmapped.received_at),
        field: row.unmapped.field.clone(),
        reason: row.unmapped.reason.clone(),
    };
    let unmapped = page.items.iter().map(view).collect();
    Ok(Json(UnmappedPage { unmapped, next_cursor: show_cursor(page.next_cursor) }))
}

/// A report that was dropped.
#[derive(Debug, Serialize, ToSchema)]
pub struct DroppedView {
    /// Its number.
    id: String,
}

/// Drops a report that is kept and that nobody wants to replay, for good.
#[utoipa::path(
    delete,
    path = "/v1/hooks/unmapped/{id}",
    tag = "stage updates",
    params(("id" = String, Path, description = "The report's `id` in the list")),
    responses(
        (status = 200, description = "It is not kept any more", body = DroppedView),
        (status = 404, description = "not_found: nothing is kept under this id"),
    ),
    security(("api_key" = [])),
)]
pub async fn drop_unmapped(
    _: Admin,
    State(state): State<AppState>,
    ApiPath(id): ApiPath,
) -> Result<Json<DroppedView>, ApiError> {
    let was_kept = match id.parse() {
        Ok(seq) => state.store.end_unmapped(seq).await?,
        Err(_) => false,
    };
    if !was_kept {
        return Err(ApiError::new(Code::NotFound, "nothing is kept under this id"));
    }
    tracing::info!(id, "a report that fits no mapping is dropped by hand");
    Ok(Json(DroppedView { id }))
}

/// What became of a replay.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ReplayAnswer {
    /// Reports that are stage updates now, or were already.
    taken: u64,
    /// Reports that turned out to be no change of a stage.
    ignored: u64,
    /// Reports that can be mapped now, and that the rules refuse; they are not kept any more.
    refused: u64,
    /// Reports that still fit no mapping.
    unmappable: u64,
    /// Reports that were sealed under an app secret that is not configured any more.
    unreadable: u64,
    /// What is to be said of those that were refused or still can't be mapped, each with its `id`.
    #[schema(value_type = Vec<Object>)]
    problems: Vec<Value>,
}

/// Maps everything that is kept of a source again, by the mapping of now.
///
/// Oldest first. A report without a time counts as of when it came. What is taken, ignored or
/// refused by the rules is not kept any more.
#[utoipa::path(
    post,
    path = "/v1/hooks/{source}/replay",
    tag = "stage updates",
    params(("source" = String, Path, description = "The name of a source with a mapping")),
    responses(
        (status = 200, description = "What became of each", body = ReplayAnswer),
        (status = 404, description = "not_found: no such source takes webhooks"),
    ),
    security(("api_key" = [])),
)]
pub async fn replay(
    _: Admin,
    State(state): State<AppState>,
    ApiPath(source): ApiPath,
) -> Result<Json<ReplayAnswer>, ApiError> {
    let source = SourceName::parse(&source).ok();
    let hook = source
        .and_then(|name| Some((state.config.sources.get(&name)?.hook.clone()?, name)))
        .ok_or_else(|| ApiError::new(Code::NotFound, "no source of this name takes webhooks"));
    let (hook, source) = hook?;
    // Whoever hangs up has asked for it all the same: it goes on to the end.
    Finish::new(async move { replay_all(&state, &source, &hook).await }).await.map(Json)
}

async fn replay_all(
    state: &AppState,
    source: &SourceName,
    hook: &Hook,
) -> Result<ReplayAnswer, ApiError> {
    let sealer = Sealer::new(&state.config.app_secrets);
    let mut answer = ReplayAnswer::default();
    // Oldest first: a lead's stages are to be reported in the order in which they came.
    for seq in kept_numbers(state, source).await?.into_iter().rev() {
        let only = PageRequest { cursor: Some(seq + 1), limit: 1 };
        let page = state.store.list_unmapped(Some(source.clone()), only).await?;
        // It may have been dropped meanwhile.
        let Some(row) = page.items.into_iter().find(|row| row.seq == seq) else { continue };
        let Some(plain) = sealer.open(source, &row.unmapped.sealed) else {
            answer.unreadable += 1;
            continue;
        };
        let came_at = row.unmapped.received_at;
        let records = read_kept(&plain, source, hook, &state.config, came_at);
        if replay_one(state, seq, records, &mut answer).await? {
            // Its updates are durable; if we die before this, they are known next time.
            state.store.end_unmapped(seq).await?;
        }
    }
    Ok(answer)
}

/// The numbers of what is kept of a source, newest first: only so many are, and the payloads stay
/// in the store.
async fn kept_numbers(state: &AppState, source: &SourceName) -> Result<Vec<u64>, ApiError> {
    let (mut numbers, mut cursor) = (Vec::new(), None);
    loop {
        let page = PageRequest { cursor, limit: REPLAY_PAGE };
        let page = state.store.list_unmapped(Some(source.clone()), page).await?;
        numbers.extend(page.items.iter().map(|row| row.seq));
        match page.next_cursor {
            None => return Ok(numbers),
            next => cursor = next,
        }
    }
}

/// Takes in what is kept under one number; whether it need not be kept any more.
async fn replay_one(
    state: &AppState,
    seq: u64,
    records: Vec<Record>,
    answer: &mut ReplayAnswer,
) -> Result<bool, ApiError> {
    let (mut updates, mut done) = (Vec::new(), true);
    for record in records {
        match record {
            Record::Update(update, _) => updates.push(Ok(*update)),
            Record::Ignored(_) => answer.ignored += 1,
            Record::Unmappable(error) => {
                (answer.unmappable, done) = (answer.unmappable + 1, false);
                answer.problems.push(with_id(seq, error.to_json()));
            }
        }
    }
    for verdict in verdicts(state, updates, false, state.clock.now()).await? {
        if is_taken(&verdict) {
            answer.taken += 1;
        } else {
            answer.refused += 1;
            answer.problems.push(with_id(seq, verdict));
        }
    }
    Ok(done)
}

fn with_id(seq: u64, mut problem: Value) -> Value {
    problem["id"] = json!(seq.to_string());
    problem
}

/// Takes apart what [`Kept`] put together.
pub(super) fn unpack(plain: &[u8]) -> Option<(Option<Form>, &[u8])> {
    let (tag, bytes) = plain.split_first()?;
    if *tag == Kept::RECORD {
        return Some((None, bytes));
    }
    let form = Kept::FORMS.into_iter().find(|(known, _)| known == tag);
    form.map(|(_, form)| (Some(form), bytes))
}
