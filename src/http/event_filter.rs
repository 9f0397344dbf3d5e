//! Filters of events as callers write them, in a query or in a body.

use crate::domain::event::{DeadReason, EventState};
use crate::domain::ids::{DatasetId, InvalidId, LeadId};
use crate::http::error::{ApiError, Code};
use crate::http::leads::read_state;
use crate::http::page::read_with;
use crate::http::time::read_time_text;
use crate::store::query::EventFilter;

/// The fields of a filter before they are read; an empty one counts as absent.
#[derive(Debug, Default)]
pub(super) struct FilterTexts {
    pub(super) state: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) dataset_id: Option<String>,
    pub(super) lead_id: Option<String>,
    pub(super) code: Option<String>,
    pub(super) created_from: Option<String>,
    pub(super) created_before: Option<String>,
}

/// Reads a filter, field by field.
pub(super) fn read_filter(texts: &FilterTexts) -> Result<EventFilter, ApiError> {
    let time = |text: &str| read_time_text(text, None);
    let said = |error: InvalidId| error.to_string();
    let filter = EventFilter {
        state: read_with("state", texts.state.as_deref(), read_state)?,
        reason: read_with("reason", texts.reason.as_deref(), read_reason)?,
        dataset_id: read_with("dataset_id", texts.dataset_id.as_deref(), |text| {
            DatasetId::parse(text).map_err(said)
        })?,
        lead_id: read_with("lead_id", texts.lead_id.as_deref(), |text| {
            LeadId::parse(text).map_err(said)
        })?,
        code: read_with("code", texts.code.as_deref(), |text| {
            text.parse().map_err(|_| "must be a whole number, as Meta's codes are".to_owned())
        })?,
        created_from: read_with("created_from", texts.created_from.as_deref(), time)?,
        created_before: read_with("created_before", texts.created_before.as_deref(), time)?,
    };
    if filter.reason.is_some() && filter.only_state() != Some(EventState::Dead) {
        let problem = "reason: only what is dead has one; leave out the state, or ask for dead";
        return Err(ApiError::new(Code::InvalidRequest, problem).with("field", "reason"));
    }
    Ok(filter)
}

fn read_reason(name: &str) -> Result<DeadReason, String> {
    DeadReason::from_name(name).ok_or_else(|| {
        let names: Vec<_> = DeadReason::ALL.iter().map(|reason| reason.name()).collect();
        format!("is one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(state: &str, reason: &str) -> Result<Option<EventState>, ApiError> {
        let (state, reason) = (Some(state.to_owned()), Some(reason.to_owned()));
        let filter = read_filter(&FilterTexts { state, reason, ..FilterTexts::default() });
        filter.map(|filter| filter.only_state())
    }

    #[test]
    fn a_reason_goes_with_dead_letters_only() {
        assert_eq!(read("", "expired"), Ok(Some(EventState::Dead)));
        assert_eq!(read("dead", "expired"), Ok(Some(EventState::Dead)));
        assert_eq!(read("pending", ""), Ok(Some(EventState::Pending)));
        assert_eq!(read("", ""), Ok(None));
        let refused = read("pending", "expired").unwrap_err();
        assert_eq!(refused.to_json()["field"], "reason");
        assert!(read("dead", "tired").is_err());
    }
}
