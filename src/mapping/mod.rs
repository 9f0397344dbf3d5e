//! From what a CRM sends to a stage update in the form of our own API.
//!
//! A [`Mapping`] says by `JSONPath` (RFC 9535) where in the CRM's payload the parts of an update
//! are. What comes out is the JSON that `POST /v1/stage-updates` takes, and is judged there like
//! any other; ids are never rounded, and an error names our field and the path, never a value.
//! Pure: nothing is read, sent or stored here, and whether a lead exists is not known here.

mod field;
pub mod money;
pub mod payload;
pub mod preset;
pub mod spec;
pub mod time;

use std::collections::BTreeMap;
use std::fmt;

use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use crate::domain::customer::Parameter;
use crate::domain::stage::StageName;
use crate::limits::BATCH_UPDATES_MAX;
use crate::mapping::field::{Criterion, Field, Reader, id, lead_id, text};
use crate::mapping::money::{LeftOut, money};
use crate::mapping::spec::{MappingSpec, OtherStages};
use crate::mapping::time::TimeFormat;

/// Why a mapping can't be used, in the words of whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidMapping {
    /// The field of the mapping.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Why a payload could not be mapped. It holds no value of the payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {path}: {problem}")]
pub struct Unmappable {
    /// Our field.
    pub field: String,
    /// Where in the payload it was looked for.
    pub path: String,
    /// What was found instead.
    pub problem: String,
}

/// How the payloads of a CRM are read.
#[derive(Clone, Debug)]
pub struct Mapping {
    each: Field,
    filter: Vec<Criterion>,
    lead_id: Field,
    crm_id: Field,
    stage: Field,
    stages: BTreeMap<String, String>,
    other_stages: OtherStages,
    event_time: Field,
    time_format: TimeFormat,
    customer: Vec<(Parameter, Field)>,
    value: Field,
    currency: Field,
    idempotency_key: Field,
}

/// What was read of one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// What was found, in the order in which it was looked for.
    pub found: Vec<Found>,
    /// What was found and is not sent, beside what becomes of the customer's values.
    pub left_out: Option<LeftOut>,
    /// What it comes to.
    pub outcome: Outcome,
}

/// A part of a stage update, and where it was found.
#[derive(Clone, PartialEq)]
pub struct Found {
    /// Our field.
    pub field: String,
    /// The path that gave it, or `fixed text`.
    pub path: String,
    /// The value, about which more is only known to whoever may see persons' data.
    pub value: Value,
}

impl fmt::Debug for Found {
    /// Shows no value: it may be a person's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Found");
        shown.field("field", &self.field).field("path", &self.path).finish_non_exhaustive()
    }
}

/// What a record comes to.
#[derive(Clone, PartialEq)]
pub enum Outcome {
    /// A stage update in the form of our API, without its source.
    Update(Map<String, Value>),
    /// Something else than a change of a stage, by the condition at this path.
    NotAStageChange(String),
    /// Something that the mapping does not fit.
    Unmappable(Unmappable),
}

impl fmt::Debug for Outcome {
    /// Names the fields of an update, and shows no value: it may be a person's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Update(update) => {
                f.write_str("Update ")?;
                f.debug_set().entries(update.keys()).finish()
            }
            Self::NotAStageChange(path) => f.debug_tuple("NotAStageChange").field(path).finish(),
            Self::Unmappable(error) => f.debug_tuple("Unmappable").field(error).finish(),
        }
    }
}

impl Mapping {
    /// Checks a mapping and prepares its paths.
    ///
    /// # Errors
    /// The first field that is missing or malformed.
    pub fn new(spec: &MappingSpec) -> Result<Self, InvalidMapping> {
        let field = |name: &str, places: &Option<_>| Field::new(name, places.as_ref());
        let customer = spec.customer.iter().map(|(name, places)| {
            let parameter = Parameter::from_name(name)
                .ok_or_else(|| invalid("customer", format!("{name} is no parameter of Meta's")))?;
            let name = format!("customer.{}", parameter.name());
            Ok((parameter, Field::new(&name, Some(places))?))
        });
        let time_format = spec.time_format.as_deref().map(TimeFormat::parse).transpose();
        let mapping = Self {
            each: field("each", &spec.each)?,
            filter: spec.filter.iter().flatten().map(Criterion::new).collect::<Result<_, _>>()?,
            lead_id: field("lead_id", &spec.lead_id)?,
            crm_id: field("crm_id", &spec.crm_id)?,
            stage: field("stage", &spec.stage)?,
            stages: spec.stages.clone().unwrap_or_default(),
            other_stages: spec.other_stages.unwrap_or_default(),
            event_time: field("event_time", &spec.event_time)?,
            time_format: time_format
                .map_err(|problem| invalid("time_format", problem))?
                .unwrap_or_default(),
            customer: customer.collect::<Result<_, _>>()?,
            value: field("value", &spec.value)?,
            currency: field("currency", &spec.currency)?,
            idempotency_key: field("idempotency_key", &spec.idempotency_key)?,
        };
        mapping.check()?;
        Ok(mapping)
    }

    fn check(&self) -> Result<(), InvalidMapping> {
        if self.stage.is_empty() {
            return Err(invalid("stage", "is missing: where the stage is".into()));
        }
        if self.lead_id.is_empty() && self.crm_id.is_empty() && self.customer.is_empty() {
            let problem = "is missing, and so are crm_id and customer: who the report is about";
            return Err(invalid("lead_id", problem.into()));
        }
        if self.stages.is_empty() && self.other_stages != OtherStages::Keep {
            let problem = "is missing: the CRM's names of stages and the funnel's; or set \
                           other_stages = \"keep\"";
            return Err(invalid("stages", problem.into()));
        }
        for stage in self.stages.values() {
            StageName::parse(stage).map_err(|error| invalid("stages", error.to_string()))?;
        }
        Ok(())
    }

    /// Our fields, each with the places where it is looked for.
    pub fn fields(&self) -> Vec<(String, String)> {
        let fields = [
            ("stage", &self.stage),
            ("lead_id", &self.lead_id),
            ("crm_id", &self.crm_id),
            ("event_time", &self.event_time),
            ("value", &self.value),
            ("currency", &self.currency),
            ("idempotency_key", &self.idempotency_key),
        ];
        let customer = self
            .customer
            .iter()
            .map(|(parameter, field)| (format!("customer.{}", parameter.name()), field));
        let fields = fields.into_iter().map(|(name, field)| (name.to_owned(), field));
        let mapped = fields.chain(customer).filter(|(_, field)| !field.is_empty());
        mapped.map(|(name, field)| (name, field.to_string())).collect()
    }

    /// The records of a payload, each of which may be a change of a stage.
    ///
    /// # Errors
    /// Nothing is where they should be, or there are too many.
    pub fn records<'a>(&self, payload: &'a Value) -> Result<Vec<&'a Value>, Unmappable> {
        let nodes = if self.each.is_empty() { vec![payload] } else { self.each.nodes(payload) };
        let records: Vec<&Value> = nodes
            .iter()
            .flat_map(|node| match node {
                Value::Array(items) => items.iter().collect(),
                node => vec![*node],
            })
            .collect();
        let problem = if nodes.is_empty() {
            "nothing is there".to_owned()
        } else if records.len() > BATCH_UPDATES_MAX {
            format!("there are more than {BATCH_UPDATES_MAX} records")
        } else {
            return Ok(records);
        };
        Err(Unmappable { field: "each".into(), path: self.each.to_string(), problem })
    }

    /// Reads one record. `zone` is for times without an offset.
    pub fn read(&self, record: &Value, zone: Option<&TimeZone>) -> Reading {
        let mut reader = Reader::new(record);
        let outcome = match self.filter.iter().find(|criterion| !criterion.holds(record)) {
            Some(criterion) => Outcome::NotAStageChange(criterion.path().to_owned()),
            None => self.update(&mut reader, zone).unwrap_or_else(Outcome::Unmappable),
        };
        let Reader { found, left_out, .. } = reader;
        Reading { found, left_out, outcome }
    }

    fn update(
        &self,
        reader: &mut Reader<'_>,
        zone: Option<&TimeZone>,
    ) -> Result<Outcome, Unmappable> {
        let mut update = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                update.insert(name.to_owned(), value);
            }
        };
        let Some(stage) = self.stage(reader)? else {
            return Ok(Outcome::NotAStageChange(self.stage.to_string()));
        };
        put("stage", Some(stage));
        let lead_id = reader.first("lead_id", &self.lead_id, lead_id)?;
        let crm_id = reader.first("crm_id", &self.crm_id, id)?;
        let customer = self.customer(reader);
        if lead_id.is_none() && crm_id.is_none() && customer.is_empty() {
            let problem = "nothing is there, and no crm_id and no customer parameter either";
            return Err(self.lead_id.unmappable("lead_id", problem));
        }
        put("lead_id", lead_id);
        put("crm_id", crm_id);
        put("customer", Some(customer).filter(|map| !map.is_empty()).map(Value::Object));
        let time = |value: &Value| {
            self.time_format.read(value, zone).map(|time| Some(Value::from(time.get())))
        };
        put("event_time", reader.first("event_time", &self.event_time, time)?);
        put("idempotency_key", reader.first("idempotency_key", &self.idempotency_key, text)?);
        let as_it_is = |value: &Value| Ok(Some(value.clone()));
        let value = reader.first("value", &self.value, as_it_is)?;
        let currency = reader.first("currency", &self.currency, as_it_is)?;
        match money(value, currency) {
            Ok(money) => put(
                "custom_data",
                money.map(|(value, currency)| json!({"value": value, "currency": currency})),
            ),
            Err(left_out) => reader.left_out = Some(left_out),
        }
        Ok(Outcome::Update(update))
    }

    /// The funnel's name of the stage; none if it is one to ignore.
    fn stage(&self, reader: &mut Reader<'_>) -> Result<Option<Value>, Unmappable> {
        let Some(name) = reader.first("stage", &self.stage, text)? else {
            return Err(self.stage.unmappable("stage", "nothing is there"));
        };
        let name = name.as_str().unwrap_or_default();
        match (self.stages.get(name), self.other_stages) {
            (Some(stage), _) => Ok(Some(stage.as_str().into())),
            (None, OtherStages::Keep) => Ok(Some(name.into())),
            (None, OtherStages::Ignore) => Ok(None),
            (None, OtherStages::Refuse) => {
                let problem = "what is there is not in the table of stages";
                Err(self.stage.unmappable("stage", problem))
            }
        }
    }

    fn customer(&self, reader: &mut Reader<'_>) -> Map<String, Value> {
        let mut customer = Map::new();
        for (parameter, field) in &self.customer {
            let values = reader.all(*parameter, field);
            if !values.is_empty() {
                customer.insert(parameter.name().to_owned(), values.into());
            }
        }
        customer
    }
}

fn invalid(field: &str, problem: String) -> InvalidMapping {
    InvalidMapping { field: field.to_owned(), problem }
}

#[cfg(test)]
mod tests;
