//! One field of a mapping: the places where it is looked for, and what of it is taken.

use std::fmt;

use serde_json::Value;
use serde_json_path::JsonPath;

use crate::domain::customer::Parameter;
use crate::limits::CUSTOMER_VALUES_MAX;
use crate::mapping::money::LeftOut;
use crate::mapping::spec::{Condition, Place, Places};
use crate::mapping::{Found, InvalidMapping, Unmappable, invalid};

/// What Meta writes before ids in its CSV files.
const META_CSV_PREFIX: &str = "l:";

/// A path, with its text.
#[derive(Clone, Debug)]
struct Path {
    text: String,
    path: JsonPath,
}

impl Path {
    fn new(field: &str, text: &str) -> Result<Self, InvalidMapping> {
        let path = JsonPath::parse(text).map_err(|error| {
            let (at, why) = (error.position() + 1, error.message());
            invalid(field, format!("{text} is no JSONPath: at character {at}: {why}"))
        })?;
        Ok(Self { text: text.to_owned(), path })
    }
}

/// A place where a value may be.
#[derive(Clone, Debug)]
enum Source {
    Path(Path),
    Fixed(Value),
}

/// The places where a field is looked for, in order; none if it is not mapped.
#[derive(Clone, Debug)]
pub(super) struct Field(Vec<Source>);

impl Field {
    pub(super) fn new(name: &str, places: Option<&Places>) -> Result<Self, InvalidMapping> {
        let source = |place: &Place| match place {
            Place::Path(text) => Ok(Source::Path(Path::new(name, text)?)),
            Place::Fixed { .. } if name == "each" => {
                Err(invalid(name, "must be paths, not a fixed text".into()))
            }
            Place::Fixed { text } => Ok(Source::Fixed(text.as_str().into())),
        };
        let places = places.map(Places::as_slice).unwrap_or_default();
        Ok(Self(places.iter().map(source).collect::<Result<_, _>>()?))
    }

    /// Whether it is looked for nowhere.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is at the first path that leads anywhere.
    pub(super) fn nodes<'a>(&self, payload: &'a Value) -> Vec<&'a Value> {
        let nodes = self.0.iter().map(|source| match source {
            Source::Path(path) => present(path, payload),
            Source::Fixed(_) => Vec::new(),
        });
        nodes.into_iter().find(|nodes| !nodes.is_empty()).unwrap_or_default()
    }

    pub(super) fn unmappable(&self, name: &str, problem: &str) -> Unmappable {
        Unmappable { field: name.to_owned(), path: self.to_string(), problem: problem.to_owned() }
    }
}

impl fmt::Display for Field {
    /// The places as they were written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, source) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{}", source.name())?;
        }
        Ok(())
    }
}

impl Source {
    fn name(&self) -> &str {
        match self {
            Self::Path(path) => &path.text,
            Self::Fixed(_) => "fixed text",
        }
    }

    fn values<'a>(&'a self, record: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Path(path) => {
                let mut values = present(path, record);
                values.retain(|value| !holds_blank(value));
                values
            }
            Self::Fixed(value) => vec![value],
        }
    }
}

/// What a path leads to, without nulls and blank texts, which CRMs write for what they don't have.
fn present<'a>(path: &Path, record: &'a Value) -> Vec<&'a Value> {
    let nodes = path.path.query(record).all();
    nodes.into_iter().filter(|node| !is_blank(node)).collect()
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        _ => false,
    }
}

/// Whether it is an object around a value that is not there, as `HubSpot` and Pipedrive write one
/// that somebody cleared: `{"value": ""}`. Only where one value is looked for; a whole record may
/// well have a blank `value` among its fields.
fn holds_blank(value: &Value) -> bool {
    value.as_object().and_then(|members| members.get("value")).is_some_and(is_blank)
}

/// A condition of the filter.
#[derive(Clone, Debug)]
pub(super) struct Criterion {
    path: Path,
    texts: Option<Vec<String>>,
    exists: Option<bool>,
    or_missing: bool,
}

impl Criterion {
    pub(super) fn new(condition: &Condition) -> Result<Self, InvalidMapping> {
        let texts: Vec<String> =
            condition.equals.iter().chain(condition.one_of.iter().flatten()).cloned().collect();
        if condition.equals.is_some() && condition.one_of.is_some() {
            return Err(invalid("filter", "has both equals and one_of in one condition".into()));
        }
        if texts.is_empty() && condition.exists.is_none() {
            return Err(invalid("filter", "needs equals, one_of or exists".into()));
        }
        Ok(Self {
            path: Path::new("filter", &condition.path)?,
            texts: Some(texts).filter(|texts| !texts.is_empty()),
            exists: condition.exists,
            or_missing: condition.or_missing,
        })
    }

    pub(super) fn path(&self) -> &str {
        &self.path.text
    }

    pub(super) fn holds(&self, record: &Value) -> bool {
        let nodes = present(&self.path, record);
        let is_one = |texts: &Vec<String>| {
            let mut found = nodes.iter().filter_map(|node| plain(node));
            found.any(|text| texts.contains(&text)) || (self.or_missing && nodes.is_empty())
        };
        self.exists.is_none_or(|exists| exists != nodes.is_empty())
            && self.texts.as_ref().is_none_or(is_one)
    }
}

/// A text, or what a number or truth value is written as.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Reads the fields of one record, and remembers what it found.
pub(super) struct Reader<'a> {
    record: &'a Value,
    pub(super) found: Vec<Found>,
    pub(super) left_out: Option<LeftOut>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(record: &'a Value) -> Self {
        Self { record, found: Vec::new(), left_out: None }
    }

    /// The first value that is there, in the form that `take` gives it.
    pub(super) fn first(
        &mut self,
        name: &str,
        field: &Field,
        take: impl Fn(&Value) -> Result<Option<Value>, String>,
    ) -> Result<Option<Value>, Unmappable> {
        for source in &field.0 {
            for value in source.values(self.record) {
                let path = source.name().to_owned();
                let taken = take(value).map_err(|problem| Unmappable {
                    field: name.to_owned(),
                    path: path.clone(),
                    problem,
                })?;
                if let Some(taken) = taken {
                    let value = value.clone();
                    self.found.push(Found { field: name.to_owned(), path, value });
                    return Ok(Some(taken));
                }
            }
        }
        Ok(None)
    }

    /// The values of a customer parameter: all texts and integers of the first place that has any,
    /// in lists too. What is neither can't be about a person, and is passed over.
    pub(super) fn all(&mut self, parameter: Parameter, field: &Field) -> Vec<Value> {
        let values_max = if parameter.is_hashed() { CUSTOMER_VALUES_MAX } else { 1 };
        for source in &field.0 {
            let mut taken: Vec<Value> = Vec::new();
            for value in source.values(self.record) {
                let items = match value {
                    Value::Array(items) => items.iter().collect(),
                    value => vec![value],
                };
                for text in items.into_iter().filter_map(|item| text(item).ok().flatten()) {
                    if taken.len() < values_max && !taken.contains(&text) {
                        taken.push(text);
                    }
                }
            }
            if !taken.is_empty() {
                let field = format!("customer.{}", parameter.name());
                let value = Value::from(taken.clone());
                self.found.push(Found { field, path: source.name().to_owned(), value });
                return taken;
            }
        }
        Vec::new()
    }
}

/// A text or an integer, as text; a blank text is nothing.
pub(super) fn text(value: &Value) -> Result<Option<Value>, String> {
    match value {
        Value::String(text) => {
            Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(Into::into))
        }
        Value::Number(number) if number.is_u64() || number.is_i64() => {
            Ok(Some(number.to_string().into()))
        }
        _ => Err(format!("{} is there, and not a text or a whole number", kind(value))),
    }
}

/// An id, with all its digits.
pub(super) fn id(value: &Value) -> Result<Option<Value>, String> {
    match value {
        Value::Number(number) if !number.is_u64() => {
            Err("a number is there that has lost digits, or never was an id: let the CRM send the \
                 id as text"
                .into())
        }
        value => text(value),
    }
}

/// Meta's id of a lead, without the prefix of Meta's CSV files.
pub(super) fn lead_id(value: &Value) -> Result<Option<Value>, String> {
    let id = id(value)?;
    Ok(id.map(|id| match id.as_str().and_then(|text| text.strip_prefix(META_CSV_PREFIX)) {
        Some(bare) => bare.trim().into(),
        None => id,
    }))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number with a fraction",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
