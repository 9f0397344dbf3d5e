//! Looking leads up.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::domain::customer::{Customer, LeftOutReason, Origin, Parameter};
use crate::domain::event::EventState;
use crate::domain::ids::{EventId, FormId, InvalidId, LeadId, PageId};
use crate::domain::intake::Refusal;
use crate::domain::matching::{ContactKey, CrmId, contact_keys};
use crate::domain::stage::{InvalidName, SourceName, StageName};
use crate::http::error::{ApiError, Code};
use crate::http::extract::{Admin, ApiPath, ApiQuery, Reader, Reporter};
use crate::http::page::{page_request, read_with, show_cursor};
use crate::http::state::AppState;
use crate::http::time::read_time_text;
use crate::http::view::{ErasedView, LeadPage, LeadView};
use crate::store::Linking;
use crate::store::query::LeadFilter;

/// Which leads to list. It has no `Debug`: an e-mail address and a phone number are a person's.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LeadQuery {
    /// Of this Page.
    page_id: Option<String>,
    /// Of this form.
    form_id: Option<String>,
    /// In this stage now.
    stage: Option<String>,
    /// With an event in this state.
    state: Option<String>,
    /// Created at this time or later: Unix seconds, or RFC 3339.
    created_from: Option<String>,
    /// Created before this time: Unix seconds, or RFC 3339.
    created_before: Option<String>,
    /// Linked with this id of a CRM's own.
    crm_id: Option<String>,
    /// Of a person with this e-mail address, plain or as a SHA-256 digest.
    email: Option<String>,
    /// Of a person with this phone number, with its country code, or as a SHA-256 digest.
    phone: Option<String>,
    /// 1 to 200; default 50.
    limit: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A lead with its whole timeline.
#[utoipa::path(
    get,
    path = "/v1/leads/{lead_id}",
    tag = "leads",
    params(("lead_id" = String, Path, description = "Meta's id of the lead")),
    responses(
        (status = 200, description = "The lead", body = LeadView),
        (status = 400, description = "invalid_lead_id"),
        (status = 404, description = "lead_not_found"),
    ),
    security(("api_key" = [])),
)]
pub async fn get_lead(
    _: Reader,
    State(state): State<AppState>,
    ApiPath(lead_id): ApiPath,
) -> Result<Json<LeadView>, ApiError> {
    let lead_id = read_lead_id(&lead_id)?;
    let detail = state.store.find_lead(lead_id).await?;
    let detail = detail.ok_or_else(|| ApiError::plain(Code::LeadNotFound))?;
    Ok(Json(LeadView::full(&detail, &state.config.routing, state.clock.now())))
}

/// Erases a lead: its details, its events and what was reported with them. Nothing that was queued
/// for it is sent any more, and a replay of its webhook does not bring it back. Somebody whose lead
/// is not known is erased likewise, named by any of their events.
#[utoipa::path(
    delete,
    path = "/v1/leads/{lead_id}",
    tag = "leads",
    params(("lead_id" = String, Path, description = "Meta's id of the lead; or the id of an event, \
        for whom that is about")),
    responses(
        (status = 200, description = "Erased, now or before", body = ErasedView),
        (status = 400, description = "invalid_lead_id"),
        (status = 404, description = "lead_not_found"),
    ),
    security(("api_key" = [])),
)]
pub async fn erase_lead(
    _: Admin,
    State(state): State<AppState>,
    ApiPath(id): ApiPath,
) -> Result<Json<ErasedView>, ApiError> {
    let lead_id = match EventId::parse(&id) {
        Ok(event_id) => {
            let detail = state.store.find_event(event_id).await?;
            detail.ok_or_else(|| ApiError::plain(Code::LeadNotFound))?.event.lead_id
        }
        Err(_) => read_lead_id(&id)?,
    };
    let erased = state.store.erase_lead(lead_id, state.clock.now()).await?;
    let erased = erased.ok_or_else(|| ApiError::plain(Code::LeadNotFound))?;
    // Committed: only the id and the time are left, and a replay finds them.
    tracing::info!(%lead_id, events = erased.events, cancelled = erased.cancelled, "lead erased");
    Ok(Json(ErasedView::of(lead_id, erased)))
}

fn read_lead_id(text: &str) -> Result<LeadId, ApiError> {
    LeadId::parse(text).map_err(|error| ApiError::new(Code::InvalidLeadId, error.to_string()))
}

/// Leads, newest first, without their timelines.
#[utoipa::path(
    get,
    path = "/v1/leads",
    tag = "leads",
    params(LeadQuery),
    responses(
        (status = 200, description = "A page of leads; with a filter it may be short although \
            there is more, which `next_cursor` tells", body = LeadPage),
        (status = 400, description = "invalid_request"),
    ),
    security(("api_key" = [])),
)]
pub async fn list_leads(
    _: Reader,
    State(state): State<AppState>,
    ApiQuery(query): ApiQuery<LeadQuery>,
) -> Result<Json<LeadPage>, ApiError> {
    let time = |text: &str| read_time_text(text, None);
    let said = |error: InvalidId| error.to_string();
    let filter = LeadFilter {
        page_id: read_with("page_id", query.page_id.as_deref(), |text| {
            PageId::parse(text).map_err(said)
        })?,
        form_id: read_with("form_id", query.form_id.as_deref(), |text| {
            FormId::parse(text).map_err(said)
        })?,
        stage: read_with("stage", query.stage.as_deref(), |text| {
            StageName::parse(text).map_err(|error| error.to_string())
        })?,
        state: read_with("state", query.state.as_deref(), read_state)?,
        created_from: read_with("created_from", query.created_from.as_deref(), time)?,
        created_before: read_with("created_before", query.created_before.as_deref(), time)?,
        crm_id: sought("crm_id", query.crm_id.as_deref(), |text| {
            CrmId::parse(text).map_err(|error| error.to_string())
        })?,
        email: sought("email", query.email.as_deref(), |text| contact(Parameter::Em, text))?,
        phone: sought("phone", query.phone.as_deref(), |text| contact(Parameter::Ph, text))?,
    };
    let page = page_request(query.limit.as_deref(), query.cursor.as_deref())?;
    let page = state.store.list_leads(filter, page, state.clock.now()).await?;
    Ok(Json(LeadPage {
        leads: page.items.iter().map(LeadView::summary).collect(),
        next_cursor: show_cursor(page.next_cursor),
    }))
}

/// Reads what a lead is found by. An empty one would list every lead, and whoever looks for one
/// would take a stranger's.
fn sought<T>(
    name: &str,
    value: Option<&str>,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, ApiError> {
    if value.is_some_and(|value| value.trim().is_empty()) {
        let detail = format!("{name}: is empty, and would list every lead");
        return Err(ApiError::new(Code::InvalidRequest, detail).with("field", name));
    }
    read_with(name, value, read)
}

/// The key to a person by an e-mail address or phone number.
fn contact(parameter: Parameter, text: &str) -> Result<ContactKey, String> {
    let mut customer = Customer::default();
    let origin = Origin::default();
    let added = customer.add(parameter, text, &origin).or_else(|left_out| match left_out.reason {
        // In a query a plus is a blank, and no source tells the country.
        LeftOutReason::CountryCodeMissing => {
            customer.add(parameter, &format!("+{}", text.trim()), &origin)
        }
        _ => Err(left_out),
    });
    let key = contact_keys(&customer).first().map(|(_, key)| *key);
    key.filter(|_| added.is_ok()).ok_or_else(|| "can't be one".to_owned())
}

/// A CRM's own id that is linked with a lead.
#[derive(Debug, Serialize, ToSchema)]
pub struct LinkView {
    /// The lead.
    #[schema(example = "1234567890123456")]
    lead_id: String,
    /// The CRM.
    source: String,
    /// Its id.
    crm_id: String,
    /// Whether the lead is known by now.
    lead_known: bool,
    /// The lead that the id was linked with before.
    previous_lead_id: Option<String>,
}

/// Links a CRM's own id with a lead, known or not, instead of with another. What was reported under
/// that id and awaits its lead becomes the lead's.
#[utoipa::path(
    put,
    path = "/v1/leads/{lead_id}/crm-ids/{source}/{crm_id}",
    tag = "leads",
    params(
        ("lead_id" = String, Path, description = "Meta's id of the lead"),
        ("source" = String, Path, description = "The CRM, as its stage updates name it"),
        ("crm_id" = String, Path, description = "The CRM's own id of the record"),
    ),
    responses(
        (status = 200, description = "Linked, now or before", body = LinkView),
        (status = 400, description = "invalid_lead_id, invalid_request"),
        (status = 404, description = "lead_not_found: the lead was erased"),
    ),
    security(("api_key" = [])),
)]
pub async fn link_crm_id(
    _: Reporter,
    State(state): State<AppState>,
    ApiPath((lead_id, source, crm_id)): ApiPath<(String, String, String)>,
) -> Result<Json<LinkView>, ApiError> {
    let lead_id = read_lead_id(&lead_id)?;
    let wrong = |error: InvalidName| ApiError::new(Code::InvalidRequest, error.to_string());
    let source = SourceName::parse(&source).map_err(wrong)?;
    let crm_id = CrmId::parse(&crm_id).map_err(wrong)?;
    let (now, names) = (state.clock.now(), (source.to_string(), crm_id.to_string()));
    let linking = state.store.link_crm_id(source, crm_id, lead_id, now).await?;
    let Linking::Done(linked) = linking else {
        return Err(ApiError::from(Refusal::LeadErased));
    };
    // Committed: what awaited this lead is queued.
    state.wakers.wake(&linked.enqueued);
    linked.dead.iter().for_each(|reason| state.metrics.event_dead(reason.name()));
    let previous = linked.before.filter(|before| *before != lead_id);
    Ok(Json(LinkView {
        lead_id: lead_id.to_string(),
        source: names.0,
        crm_id: names.1,
        lead_known: linked.is_known,
        previous_lead_id: previous.map(|lead_id| lead_id.to_string()),
    }))
}

/// Reads the name of an event state.
pub(super) fn read_state(name: &str) -> Result<EventState, String> {
    EventState::from_name(name).ok_or_else(|| {
        let names: Vec<_> = EventState::ALL.iter().map(|state| state.name()).collect();
        format!("is one of {}", names.join(", "))
    })
}
