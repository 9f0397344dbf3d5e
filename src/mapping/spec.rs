//! A mapping as it is written: in a preset's file, and in `[sources.mapping]`.
//!
//! What a source writes goes over its preset field by field; an empty list takes a field of the
//! preset away. Nothing is checked here but the form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A mapping as it is written; every field may be left to the preset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MappingSpec {
    /// Where the records are, each item of a list on its own; default: the payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each: Option<Places>,
    /// Meta's id of the lead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lead_id: Option<Places>,
    /// The CRM's id of the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crm_id: Option<Places>,
    /// The stage, as the CRM calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Places>,
    /// When it was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_time: Option<Places>,
    /// How that time is written: `auto`, `unix_s`, `unix_ms`, `rfc3339`, or a pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_format: Option<String>,
    /// Meta's `value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Places>,
    /// Its currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<Places>,
    /// What makes a report the same report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<Places>,
    /// What becomes of a stage that is not in the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_stages: Option<OtherStages>,
    /// Customer parameters by Meta's names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub customer: BTreeMap<String, Places>,
    /// The CRM's names of stages, and the funnel's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stages: Option<BTreeMap<String, String>>,
    /// What must hold of a record, or it is no change of a stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Vec<Condition>>,
}

/// Where a value is: the first place that gives something.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "must be a JSONPath, { text = \"…\" }, or a list of these")]
pub enum Places {
    /// One place.
    One(Place),
    /// Several, in the order in which they are tried.
    Several(Vec<Place>),
}

impl Places {
    /// The places in order.
    pub fn as_slice(&self) -> &[Place] {
        match self {
            Self::One(place) => std::slice::from_ref(place),
            Self::Several(places) => places,
        }
    }
}

/// A path into the record, or a text that is always the same.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "must be a JSONPath or { text = \"…\" }")]
pub enum Place {
    /// A `JSONPath` (RFC 9535).
    Path(String),
    /// A fixed text.
    Fixed {
        /// The text.
        text: String,
    },
}

/// What becomes of a stage that is not in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OtherStages {
    /// The report can't be mapped, and somebody is told.
    #[default]
    Refuse,
    /// It is sent under the CRM's name.
    Keep,
    /// It is no change of a stage of the funnel.
    Ignore,
}

/// A condition on a record. All that are written in one condition must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Where to look.
    pub path: String,
    /// What must be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
    /// One of which must be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_of: Option<Vec<String>>,
    /// Whether anything must be there, or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
    /// Whether `equals` and `one_of` also hold where nothing is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub or_missing: bool,
}

impl MappingSpec {
    /// This mapping where it says something, and `below` where it does not.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        let mut customer = below.customer;
        customer.extend(self.customer);
        Self {
            each: self.each.or(below.each),
            lead_id: self.lead_id.or(below.lead_id),
            crm_id: self.crm_id.or(below.crm_id),
            stage: self.stage.or(below.stage),
            event_time: self.event_time.or(below.event_time),
            time_format: self.time_format.or(below.time_format),
            value: self.value.or(below.value),
            currency: self.currency.or(below.currency),
            idempotency_key: self.idempotency_key.or(below.idempotency_key),
            other_stages: self.other_stages.or(below.other_stages),
            customer,
            stages: self.stages.or(below.stages),
            filter: self.filter.or(below.filter),
        }
    }
}
