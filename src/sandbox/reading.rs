//! The edges that leads are read from: a lead, a form, the leads of a form, the forms of a Page.
//!
//! As at Meta (META 2): only with the Page's token, only from when on a lead can be read, within a
//! budget of calls that grows with the leads of the Page, newest first, page by page.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::ids::{FormId, LeadId, PageId};
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::{DAY_MS, READ_LEADS_PER_PAGE, SANDBOX_READS_PER_LEAD};
use crate::sandbox::faults::{Fault, graph_error};
use crate::sandbox::form::{FilledForm, form_node};
use crate::sandbox::graph::{bearer, cut, show_dataset};
use crate::sandbox::{Memory, Sandbox};

/// The parameters of a reading.
#[derive(Deserialize)]
pub(super) struct Parameters {
    #[serde(default)]
    fields: String,
    limit: Option<usize>,
    after: Option<String>,
    filtering: Option<String>,
}

#[derive(Deserialize)]
struct Filter {
    field: String,
    operator: String,
    value: i64,
}

/// Code and subcode of what is refused.
type Refusal = (i64, Option<i64>);

/// Meta tells neither what does not exist from what may not be seen, nor from what is too new.
const NOTHING: Refusal = (100, Some(33));

/// Which Pages a token can read: one, or all.
#[derive(Clone, Copy)]
struct Access(Option<PageId>);

impl Access {
    fn reads(self, filled: &FilledForm) -> bool {
        self.0.is_none_or(|page_id| page_id == filled.lead.page_id)
    }
}

/// A lead, or a form; a dataset, if the token is a dataset's.
pub(super) async fn show_node(
    State(sandbox): State<Sandbox>,
    Path((version, id)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    let Some(access) = access(&sandbox, &headers) else {
        return show_dataset(&sandbox, &version, &id, &headers);
    };
    let lead_id = LeadId::parse(&id).ok();
    let what = if lead_id.is_some() { "lead" } else { "form" };
    read(&sandbox, what, |memory, now| {
        let lead = lead_id.and_then(|lead_id| memory.filled.get(&lead_id));
        if let Some(filled) = lead.filter(|it| access.reads(it) && it.readable_from <= now) {
            return Ok(filled.node(&parameters.fields));
        }
        let form_id = FormId::parse(&id).map_err(|_| NOTHING)?;
        let of_form = filled(memory, access, Some(form_id));
        let first = of_form.first().ok_or(NOTHING)?;
        Ok(form_node(first.lead.form_id, first.lead.page_id, of_form.len(), &parameters.fields))
    })
    .await
}

/// The forms or apps of a Page, or the leads of a form.
pub(super) async fn show_edge(
    State(sandbox): State<Sandbox>,
    Path((_, id, edge)): Path<(String, String, String)>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    let Some(access) = access(&sandbox, &headers) else {
        return refused(StatusCode::UNAUTHORIZED, (190, None));
    };
    let (what, of_page) = match edge.as_str() {
        "leads" => ("leads", false),
        "leadgen_forms" => ("forms", true),
        "subscribed_apps" => ("subscribed_apps", true),
        _ => return refused(StatusCode::BAD_REQUEST, (2500, None)),
    };
    let page_id = PageId::parse(&id).ok();
    if of_page && id != "me" && access.0.is_some_and(|own| Some(own) != page_id) {
        return refused(StatusCode::BAD_REQUEST, NOTHING);
    }
    let access = if of_page && id != "me" { Access(page_id) } else { access };
    read(&sandbox, what, |memory, now| match what {
        "leads" => leads(memory, access, FormId::parse(&id).ok(), &parameters, now),
        "forms" => Ok(forms(memory, access, &parameters)),
        _ => Ok(json!({"data": [{"id": "1", "subscribed_fields": ["leadgen"]}]})),
    })
    .await
}

/// What a reading is answered: what it asks for, unless it is to go wrong or the budget is spent.
async fn read(
    sandbox: &Sandbox,
    what: &'static str,
    answer: impl FnOnce(&Memory, Timestamp) -> Result<Value, Refusal>,
) -> Response {
    let now = sandbox.0.clock.now();
    let (fault, used_percent) = {
        let mut memory = sandbox.memory();
        *memory.reads.entry(what).or_default() += 1;
        (memory.read_faults.pop_front().flatten(), memory.use_budget(now))
    };
    match fault {
        Some(Fault::Cut | Fault::TakeAndCut) => return cut(),
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::Throttle { minutes }) => return throttled(100, minutes),
        Some(Fault::Garbage) => return "<html>It works!</html>".into_response(),
        Some(Fault::Short | Fault::ErrorInside) => {
            return Json(graph_error(2, None, true, "Told to misbehave")).into_response();
        }
        Some(Fault::Error { http_status, code, subcode, .. }) => {
            let status = StatusCode::from_u16(http_status).unwrap_or(StatusCode::BAD_REQUEST);
            return refused(status, (code, subcode));
        }
        None if used_percent > 100 => return throttled(used_percent, 60),
        None => {}
    }
    match answer(&sandbox.memory(), now) {
        Ok(answer) => ([usage(used_percent, 0)], Json(answer)).into_response(),
        Err(refusal) => refused(StatusCode::BAD_REQUEST, refusal),
    }
}

impl Memory {
    /// Counts a call, and tells how much of the day's budget is used, in per cent. At Meta a Page
    /// without leads has none at all; here it has as much as with one.
    fn use_budget(&mut self, now: Timestamp) -> u64 {
        if now.millis_since(self.budget_since) >= DAY_MS {
            (self.budget_since, self.budget_used) = (now, 0);
        }
        self.budget_used += 1;
        let leads = u64::try_from(self.filled.len().max(1)).unwrap_or(u64::MAX);
        self.budget_used * 100 / leads.saturating_mul(SANDBOX_READS_PER_LEAD)
    }
}

fn usage(used_percent: u64, minutes: u64) -> (&'static str, String) {
    let usage = json!({"1": [{
        "type": "leadgen",
        "call_count": used_percent,
        "total_cputime": 0,
        "total_time": 0,
        "estimated_time_to_regain_access": minutes,
    }]});
    ("x-business-use-case-usage", usage.to_string())
}

fn throttled(used_percent: u64, minutes: u64) -> Response {
    let answer = graph_error(80_005, None, false, "Too many calls for leads");
    (StatusCode::BAD_REQUEST, [usage(used_percent, minutes)], Json(answer)).into_response()
}

fn refused(status: StatusCode, (code, subcode): Refusal) -> Response {
    (status, Json(graph_error(code, subcode, false, "Refused by the stand-in"))).into_response()
}

fn access(sandbox: &Sandbox, headers: &HeaderMap) -> Option<Access> {
    let shown = bearer(headers)?;
    let mut tokens = sandbox.0.settings.page_tokens.iter();
    let found = tokens.find(|(_, token)| token.expose_secret() == shown);
    found.map(|(page_id, _)| Access(*page_id))
}

/// The leads that a token can see, of one form or of all, newest first.
fn filled(memory: &Memory, access: Access, form_id: Option<FormId>) -> Vec<FilledForm> {
    let all = memory.filled.values().filter(|it| access.reads(it));
    let all = all.filter(|it| form_id.is_none_or(|form_id| form_id == it.lead.form_id));
    let mut all: Vec<FilledForm> = all.copied().collect();
    all.sort_by_key(|it| std::cmp::Reverse((it.lead.created_time, it.lead.lead_id)));
    all
}

fn leads(
    memory: &Memory,
    access: Access,
    form_id: Option<FormId>,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Value, Refusal> {
    let mut all = filled(memory, access, Some(form_id.ok_or(NOTHING)?));
    if all.is_empty() {
        return Err(NOTHING);
    }
    let filters: Vec<Filter> = match &parameters.filtering {
        None => Vec::new(),
        Some(text) => serde_json::from_str(text).map_err(|_| (100, None))?,
    };
    for Filter { field, operator, value } in filters {
        let value = UnixSeconds::new(value);
        let passes = |created: UnixSeconds| match operator.as_str() {
            "GREATER_THAN" => created > value,
            "GREATER_THAN_OR_EQUAL" => created >= value,
            _ => created < value,
        };
        let operators = ["GREATER_THAN", "GREATER_THAN_OR_EQUAL", "LESS_THAN"];
        if field != "time_created" || !operators.contains(&operator.as_str()) {
            return Err((100, None));
        }
        all.retain(|it| passes(it.lead.created_time));
    }
    all.retain(|it| it.readable_from <= now);
    let rows = all.iter().map(|it| (it.lead.lead_id.get(), it.node(&parameters.fields)));
    Ok(page(rows.collect(), parameters, memory.leads_per_page))
}

fn forms(memory: &Memory, access: Access, parameters: &Parameters) -> Value {
    let all = filled(memory, access, None);
    let mut forms: Vec<(FormId, PageId, usize)> = Vec::new();
    for filled in all {
        let (form_id, page_id) = (filled.lead.form_id, filled.lead.page_id);
        match forms.iter_mut().find(|(known, ..)| *known == form_id) {
            Some((.., leads)) => *leads += 1,
            None => forms.push((form_id, page_id, 1)),
        }
    }
    let node = |(form_id, page_id, leads): (FormId, PageId, usize)| {
        (form_id.get(), form_node(form_id, page_id, leads, &parameters.fields))
    };
    page(forms.into_iter().map(node).collect(), parameters, None)
}

/// The rows after the cursor, which is the id of the last row that was seen.
fn page(rows: Vec<(u64, Value)>, parameters: &Parameters, longest: Option<usize>) -> Value {
    let seen = parameters.after.as_deref().and_then(|cursor| u64::from_str_radix(cursor, 16).ok());
    let from = rows.iter().position(|(id, _)| Some(*id) == seen).map_or(0, |at| at + 1);
    let limit = parameters.limit.unwrap_or(25).min(longest.unwrap_or(READ_LEADS_PER_PAGE));
    let is_last = from + limit >= rows.len();
    let rows: Vec<(u64, Value)> = rows.into_iter().skip(from).take(limit).collect();
    let cursor = |row: Option<&(u64, Value)>| row.map(|(id, _)| format!("{id:x}"));
    let mut paging =
        json!({"cursors": {"before": cursor(rows.first()), "after": cursor(rows.last())}});
    if !is_last {
        paging["next"] = json!("https://graph.invalid/next-page-with-the-token-in-it");
    }
    json!({"data": rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>(), "paging": paging})
}
