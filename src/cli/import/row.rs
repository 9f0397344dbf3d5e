//! One row of a file: the stage update that it is, or why it is none.

use serde_json::{Map, Value};

use crate::cli::import::columns::Columns;

/// Why a row is refused before the server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// A spreadsheet has rounded an id or a time.
    #[error(
        "{0} was turned into a rounded number, as 1.23457E+15, by a spreadsheet, and its last \
         digits are lost: export it again, and keep the column as text"
    )]
    Rounded(&'static str),
    /// A value has a comma in it.
    #[error(
        "value has a comma: if it stands before the decimals, as in 1.249,50, import the file with \
         --decimal-comma; if not, take it out"
    )]
    Comma,
    /// There is no time.
    #[error("there is no event_time, and it would be dated now")]
    NoTime,
    /// The row has more or fewer cells than the first line.
    #[error("the row has more or fewer cells than the first line has names")]
    Cells,
    /// The row is no text.
    #[error("the row is not in UTF-8: save the file as \"CSV UTF-8\"")]
    Encoding,
    /// The line is no object.
    #[error("the line is no JSON object")]
    NoObject,
}

impl Problem {
    /// The problem's stable name.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Rounded(_) => "rounded_number",
            Self::Comma => "comma_in_value",
            Self::NoTime => "event_time_missing",
            Self::Cells => "wrong_number_of_cells",
            Self::Encoding => "not_utf8",
            Self::NoObject => "not_an_object",
        }
    }
}

/// A row of a file.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The line that it begins in.
    pub(super) line: u64,
    /// What stood there, to the byte.
    pub(super) original: Vec<u8>,
    /// The body of a stage update, or why it is none.
    pub(super) update: Result<Map<String, Value>, Problem>,
}

impl Row {
    /// Reads the cells of a table.
    pub(super) fn of_cells(
        line: u64,
        cells: &csv::ByteRecord,
        original: Vec<u8>,
        columns: &Columns,
        source: Option<&str>,
    ) -> Self {
        let update = || {
            if cells.len() != columns.len() {
                return Err(Problem::Cells);
            }
            let texts: Result<Vec<&str>, _> = cells.iter().map(std::str::from_utf8).collect();
            complete(columns.update(texts.map_err(|_| Problem::Encoding)?)?, source)
        };
        Self { line, update: update(), original }
    }

    /// Reads a line of JSON.
    pub(super) fn of_line(line: u64, text: Vec<u8>, source: Option<&str>) -> Self {
        let update = || {
            let text = std::str::from_utf8(&text).map_err(|_| Problem::Encoding)?;
            let Ok(Value::Object(mut update)) = serde_json::from_str(text) else {
                return Err(Problem::NoObject);
            };
            // A refused row that was mended still says what was wrong with it.
            update.remove("problem");
            for name in ["lead_id", "crm_id", "event_time"] {
                match update.get(name) {
                    Some(Value::String(text)) => {
                        let text = without_damage(name, text.trim())?.to_owned();
                        update.insert(name.to_owned(), text.into());
                    }
                    Some(Value::Number(number)) if !number.is_u64() => {
                        return Err(Problem::Rounded(name));
                    }
                    _ => {}
                }
            }
            complete(update, source)
        };
        Self { line, update: update(), original: text }
    }
}

/// With the source if it names none; without a time it is refused.
fn complete(
    mut update: Map<String, Value>,
    source: Option<&str>,
) -> Result<Map<String, Value>, Problem> {
    if update.get("event_time").is_none_or(Value::is_null) {
        return Err(Problem::NoTime);
    }
    if let Some(source) = source {
        update.entry("source").or_insert_with(|| source.into());
    }
    Ok(update)
}

/// A cell without the label of Meta's own CSV. One that a spreadsheet has damaged is refused.
pub(super) fn without_damage<'c>(name: &'static str, cell: &'c str) -> Result<&'c str, Problem> {
    let cell = if name == "lead_id" { cell.strip_prefix("l:").unwrap_or(cell) } else { cell };
    let has_lost_digits = name != "stage" && name != "source" && is_rounded(cell);
    if has_lost_digits { Err(Problem::Rounded(name)) } else { Ok(cell) }
}

/// Whether a long id ends as a spreadsheet leaves it that keeps 15 digits and writes zeros for the
/// others; `None` if it is too short to tell.
pub(super) fn ends_in_zeros(update: &Map<String, Value>) -> Option<bool> {
    let id = update.get("lead_id")?.as_str()?;
    let kept = id.get(15..).filter(|rest| !rest.is_empty())?;
    Some(kept.bytes().all(|digit| digit == b'0'))
}

/// Whether a text is a number as spreadsheets show large ones: `1.23457E+15`, or with a comma.
fn is_rounded(text: &str) -> bool {
    let Some((digits, exponent)) = text.split_once(['E', 'e']) else { return false };
    let Some(exponent) = exponent.strip_prefix('+') else { return false };
    let all = |text: &str, also: &[char]| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || also.contains(&c))
    };
    all(digits, &['.', ',']) && all(exponent, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::import::read::How;
    use serde_json::json;

    fn of_line(text: &str) -> Result<Value, Problem> {
        Row::of_line(1, text.into(), Some("hubspot")).update.map(Value::Object)
    }

    fn of_cells(cells: &[&[u8]]) -> Result<Value, Problem> {
        let names = ["lead_id", "stage", "event_time"];
        let columns = Columns::new(names, &How::default()).unwrap();
        let cells = csv::ByteRecord::from(cells.to_vec());
        Row::of_cells(1, &cells, Vec::new(), &columns, None).update.map(Value::Object)
    }

    #[test]
    fn ids_keep_their_digits_and_lose_metas_label() {
        for id in ["36795652870078329", "l:36795652870078329", " l:36795652870078329 "] {
            let row = of_cells(&[id.as_bytes(), b"won", b"1762000500"]).unwrap();
            assert_eq!(row["lead_id"], "36795652870078329");
            let line = json!({"lead_id": id, "event_time": 1}).to_string();
            assert_eq!(of_line(&line).unwrap()["lead_id"], "36795652870078329");
        }
        let number = of_line(r#"{"lead_id": 36795652870078329, "event_time": 1}"#).unwrap();
        assert_eq!(number["lead_id"], json!(36_795_652_870_078_329_u64));
    }

    #[test]
    fn what_a_spreadsheet_has_rounded_is_refused() {
        for id in ["3.67957E+16", "l:3.67957E+16", "3,67957E+16", "1e+15"] {
            let problem = of_cells(&[id.as_bytes(), b"won", b"1762000500"]);
            assert_eq!(problem, Err(Problem::Rounded("lead_id")));
            let line = json!({"crm_id": id, "event_time": 1}).to_string();
            let expected =
                if id.starts_with("l:") { Ok(()) } else { Err(Problem::Rounded("crm_id")) };
            assert_eq!(of_line(&line).map(drop), expected);
        }
        for line in [
            r#"{"lead_id": 3.67957e16, "event_time": 1}"#,
            r#"{"lead_id": 367956528700783291234, "event_time": 1}"#,
        ] {
            assert_eq!(of_line(line), Err(Problem::Rounded("lead_id")));
        }
        let time = of_cells(&[b"1", b"won", b"1.762E+09"]);
        assert_eq!(time, Err(Problem::Rounded("event_time")));
        let stage = of_cells(&[b"1", b"2E+5", b"1762000500"]).unwrap();
        assert_eq!(stage["stage"], "2E+5");
    }

    #[test]
    fn zeros_where_a_spreadsheet_has_no_digits_are_seen() {
        for (id, expected) in [
            (json!("36795652870078300"), Some(true)),
            (json!("3679565287007830"), Some(true)),
            (json!("36795652870078320"), Some(false)),
            (json!("367956528700783"), None),
            (json!(36_795_652_870_078_300_u64), None),
            (json!(null), None),
        ] {
            let update = Map::from_iter([("lead_id".to_owned(), id.clone())]);
            assert_eq!(ends_in_zeros(&update), expected, "{id}");
        }
    }

    #[test]
    fn a_row_without_a_time_is_refused() {
        assert_eq!(of_cells(&[b"1", b"won", b" "]), Err(Problem::NoTime));
        assert_eq!(of_line(r#"{"stage": "won"}"#), Err(Problem::NoTime));
        assert_eq!(of_line(r#"{"event_time": null}"#), Err(Problem::NoTime));
    }

    #[test]
    fn what_is_no_row_is_refused() {
        assert_eq!(of_cells(&[b"1", b"won"]), Err(Problem::Cells));
        assert_eq!(of_cells(&[b"1", b"won", b"1", b"2"]), Err(Problem::Cells));
        assert_eq!(of_cells(&[b"1", b"gewonnen \xfc", b"1"]), Err(Problem::Encoding));
        assert_eq!(of_line("[]"), Err(Problem::NoObject));
        assert_eq!(of_line("{"), Err(Problem::NoObject));
    }

    #[test]
    fn the_source_is_the_rows_own_or_the_files_and_an_old_problem_is_none() {
        assert_eq!(of_line(r#"{"event_time": 1}"#).unwrap()["source"], "hubspot");
        let own = of_line(r#"{"event_time": 1, "source": "zoho"}"#).unwrap();
        assert_eq!(own["source"], "zoho");
        let mended = of_line(r#"{"event_time": 1, "problem": "no stage"}"#).unwrap();
        assert_eq!(mended, json!({"event_time": 1, "source": "hubspot"}));
    }
}
