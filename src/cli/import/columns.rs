//! Which column of a table is which field of a stage update.

use serde_json::{Map, Number, Value};

use crate::cli::import::read::How;
use crate::cli::import::row::{Problem, without_damage};
use crate::domain::customer::Parameter;
use crate::limits::IMPORT_COLUMNS_MAX;

/// A field of a stage update that can be a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// A field of the update itself.
    Update(&'static str),
    /// One of `customer`.
    Customer(Parameter),
    /// One of `custom_data`.
    Custom(&'static str),
}

impl Field {
    /// Finds a field by its name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        const UPDATE: [&str; 6] =
            ["lead_id", "crm_id", "stage", "event_time", "source", "idempotency_key"];
        const CUSTOM: [&str; 2] = ["value", "currency"];
        let named = |names: &[&'static str]| names.iter().find(|known| **known == name).copied();
        let update = named(&UPDATE).map(Self::Update);
        let custom = || named(&CUSTOM).map(Self::Custom);
        update.or_else(custom).or_else(|| Parameter::from_name(name).map(Self::Customer))
    }
}

/// A column that has another name than its field: `FIELD=NAME`.
#[derive(Clone, Debug)]
pub(super) struct Renamed {
    field: Field,
    column: String,
}

impl Renamed {
    /// Reads an argument.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (field, column) = text.split_once('=').ok_or("must be FIELD=NAME of a column")?;
        let field = Field::from_name(field.trim()).ok_or("begins with no field of an update")?;
        Ok(Self { field, column: column.trim().to_owned() })
    }
}

/// The fields of a table, in the order of its columns.
#[derive(Debug)]
pub(super) struct Columns {
    fields: Vec<Option<Field>>,
    /// The names of the columns that are not read.
    pub(super) unused: Vec<String>,
    decimal_comma: bool,
}

impl Columns {
    /// Finds the fields by the names in the first line.
    ///
    /// # Errors
    /// What is wrong with the names.
    pub(super) fn new<'n>(
        names: impl IntoIterator<Item = &'n str>,
        how: &How,
    ) -> Result<Self, String> {
        let renamed = &how.columns;
        let names: Vec<&str> = names.into_iter().map(str::trim).collect();
        if names.len() > IMPORT_COLUMNS_MAX {
            return Err(format!("has over {IMPORT_COLUMNS_MAX} columns"));
        }
        let is = |name: &str, other: &str| name.to_lowercase() == other.to_lowercase();
        let field_named = |name: &str| Field::from_name(&name.to_lowercase());
        let is_known = |name: &&str| {
            field_named(name).is_some() || renamed.iter().any(|it| is(name, &it.column))
        };
        // A first line without names is a row, with what it says about a person.
        let shown = || {
            let has_names = names.iter().any(is_known);
            if has_names { names.join(", ") } else { "no name of a field".to_owned() }
        };
        if let Some(Renamed { column, .. }) =
            renamed.iter().find(|it| !names.iter().any(|name| is(name, &it.column)))
        {
            return Err(format!("has no column {column:?}; its first line has {}", shown()));
        }
        let field_of = |name: &&str| {
            let other = renamed.iter().find(|it| is(name, &it.column)).map(|it| it.field);
            let own = || field_named(name);
            other.or_else(|| own().filter(|field| renamed.iter().all(|it| it.field != *field)))
        };
        let fields: Vec<Option<Field>> = names.iter().map(field_of).collect();
        let pairs = || names.iter().zip(&fields);
        for (at, (name, field)) in pairs().enumerate() {
            if field.is_some() && fields[..at].contains(field) {
                return Err(format!("has two columns for the field of {name:?}"));
            }
        }
        let has = |name| fields.contains(&Some(Field::Update(name)));
        let missing = ["stage", "event_time"].into_iter().find(|name| !has(name));
        if let Some(name) = missing {
            return Err(format!(
                "has no column {name}; name the one that it is: --column {name}=NAME; its first \
                 line has {}",
                shown()
            ));
        }
        let unused = pairs().filter(|(_, field)| field.is_none());
        let unused = unused.map(|(name, _)| (*name).to_owned()).collect();
        Ok(Self { fields, unused, decimal_comma: how.decimal_comma })
    }

    /// How many columns there are.
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// The body of a stage update from the cells of a row. An empty cell says nothing.
    pub(super) fn update<'c>(
        &self,
        cells: impl IntoIterator<Item = &'c str>,
    ) -> Result<Map<String, Value>, Problem> {
        let (mut update, mut customer, mut custom) = (Map::new(), Map::new(), Map::new());
        for (field, cell) in self.fields.iter().zip(cells) {
            let cell = cell.trim();
            let Some(field) = field.filter(|_| !cell.is_empty()) else { continue };
            match field {
                Field::Update(name) => {
                    update.insert(name.to_owned(), without_damage(name, cell)?.into());
                }
                Field::Customer(parameter) => {
                    let name = parameter.name().to_owned();
                    customer.insert(name, without_label(parameter, cell).into());
                }
                Field::Custom(name) => {
                    let is_value = name == "value";
                    let value = if is_value { self.value(cell)? } else { cell.into() };
                    custom.insert(name.to_owned(), value);
                }
            }
        }
        // A currency without a value is the column of a CRM that has it in every row.
        if custom.contains_key("value") {
            update.insert("custom_data".to_owned(), custom.into());
        }
        if !customer.is_empty() {
            update.insert("customer".to_owned(), customer.into());
        }
        Ok(update)
    }

    /// What a stage is worth; the server refuses what is no number.
    fn value(&self, cell: &str) -> Result<Value, Problem> {
        let text = if self.decimal_comma { with_decimal_point(cell) } else { cell.to_owned() };
        match serde_json::from_str::<Number>(&text) {
            Ok(number) => Ok(number.into()),
            Err(_) if text.contains(',') => Err(Problem::Comma),
            Err(_) => Ok(text.into()),
        }
    }
}

/// A number that is written `1.249,50`, as `1249.50`; what is written otherwise stays as it is.
fn with_decimal_point(cell: &str) -> String {
    let (whole, decimals) = cell.split_once(',').unwrap_or((cell, "0"));
    let groups: Vec<&str> = whole.trim_start_matches('-').split('.').collect();
    let is_grouped = groups.len() == 1
        || (1..=3).contains(&groups[0].len()) && groups[1..].iter().all(|it| it.len() == 3);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_grouped && groups.iter().all(|it| digits(it)) && digits(decimals) {
        return format!("{}.{decimals}", whole.replace('.', ""));
    }
    cell.to_owned()
}

/// Without the label that Meta's own CSV puts before phone numbers and postal codes.
fn without_label(parameter: Parameter, cell: &str) -> &str {
    let label = match parameter {
        Parameter::Ph => "p:",
        Parameter::Zp => "z:",
        _ => return cell,
    };
    cell.strip_prefix(label).unwrap_or(cell)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn columns(names: &[&str], renamed: &[&str]) -> Result<Columns, String> {
        let renamed = renamed.iter().map(|text| Renamed::parse(text).unwrap()).collect();
        Columns::new(names.iter().copied(), &How { columns: renamed, ..How::default() })
    }

    #[test]
    fn a_value_with_a_comma_is_taken_only_if_it_is_told_what_the_comma_means() {
        let value = |decimal_comma, cell| {
            let how = How { decimal_comma, ..How::default() };
            let columns = Columns::new(["stage", "event_time", "value"], &how).unwrap();
            columns.update(["won", "1", cell]).map(|update| update["custom_data"]["value"].clone())
        };
        for (cell, with, without) in [
            ("249,50", Ok(json!(249.5)), Err(Problem::Comma)),
            ("1.249,50", Ok(json!(1249.5)), Err(Problem::Comma)),
            ("-1.249.000,5", Ok(json!(-1_249_000.5)), Err(Problem::Comma)),
            ("1,249.50", Err(Problem::Comma), Err(Problem::Comma)),
            ("1,249,500", Err(Problem::Comma), Err(Problem::Comma)),
            ("1.249", Ok(json!(1249.0)), Ok(json!(1.249))),
            ("249", Ok(json!(249.0)), Ok(json!(249))),
            ("much", Ok(json!("much")), Ok(json!("much"))),
        ] {
            assert_eq!((value(true, cell), value(false, cell)), (with, without), "{cell}");
        }
        // Could be 12.5 or 1250: not ours to say.
        assert_eq!(with_decimal_point("12.50"), "12.50");
    }

    #[test]
    fn columns_are_found_by_the_names_of_fields_in_any_case() {
        let names =
            ["Lead_ID", " stage ", "event_time", "Email", "p", "value", "currency", "notes"];
        let columns = columns(&names, &["ph=P"]).unwrap();
        assert_eq!((columns.len(), &columns.unused), (8, &vec!["notes".to_owned()]));
        let cells =
            ["l:123", " won ", "1762000500", "a@x.org", "p:+49151", "12.5", "EUR", "secret"];
        assert_eq!(
            Value::Object(columns.update(cells).unwrap()),
            json!({"lead_id": "123", "stage": "won", "event_time": "1762000500",
                   "customer": {"em": "a@x.org", "ph": "+49151"},
                   "custom_data": {"value": 12.5, "currency": "EUR"}})
        );
    }

    #[test]
    fn an_empty_cell_says_nothing_and_a_currency_without_a_value_neither() {
        let columns = columns(&["stage", "event_time", "email", "value", "currency"], &[]).unwrap();
        let update = columns.update(["won", "", "  ", "", "EUR"]).unwrap();
        assert_eq!(Value::Object(update), json!({"stage": "won"}));
        let update = columns.update(["won", "", "", "much", "EUR"]).unwrap();
        assert_eq!(update["custom_data"], json!({"value": "much", "currency": "EUR"}));
    }

    #[test]
    fn a_named_column_takes_the_place_of_the_one_with_the_fields_name() {
        let names = ["stage", "Lead Status", "event_time"];
        let columns = columns(&names, &["stage=lead status"]).unwrap();
        let update = columns.update(["new", "won", "1"]).unwrap();
        assert_eq!(
            (&update["stage"], &*columns.unused),
            (&json!("won"), &["stage".to_owned()][..])
        );
    }

    #[test]
    fn what_is_wrong_with_the_names_is_said() {
        let many: Vec<&str> = std::iter::repeat_n("x", IMPORT_COLUMNS_MAX + 1).collect();
        for (names, renamed, words) in [
            (&["lead_id", "event_time"][..], &[][..], "has no column stage"),
            (&["lead_id", "stage", "when"], &[], "--column event_time=NAME"),
            (&["Max Mustermann", "a@x.org"], &[], "first line has no name of a field"),
            (&["stage", "event_time"], &["ph=Mobile"], "has no column \"Mobile\""),
            (&["stage", "event_time"], &["ph=Mobile"], "first line has stage, event_time"),
            (&["Max Mustermann", "a@x.org"], &["ph=Mobile"], "first line has no name of a field"),
            (
                &["stage", "event_time", "em", "email"],
                &[],
                "two columns for the field of \"email\"",
            ),
            (&many, &[], "columns"),
        ] {
            let problem = columns(names, renamed).unwrap_err();
            assert!(problem.contains(words) && !problem.contains("Max"), "{problem}");
        }
        assert!(Renamed::parse("fax=Fax").is_err());
        assert!(Renamed::parse("stage").is_err());
    }
}
