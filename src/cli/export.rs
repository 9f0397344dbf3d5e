//! `leadloop events export`: events as lines of JSON or as CSV, page by page.
//!
//! What is exported is what lists show, without Meta's own words, which may quote what was sent.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use reqwest::Method;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::cli::Global;
use crate::cli::api::Server;
use crate::cli::event_filter::EventFilter;
use crate::cli::exit::{Exit, Failure};
use crate::cli::part_file::PartFile;
use crate::cli::progress::counter;
use crate::domain::time::UnixSeconds;
use crate::http::time::{read_time_text, rfc3339};
use crate::limits::PAGE_MAX;

/// Options of `events export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Those in this state: `awaiting_lead`, `held`, `pending`, `delivered` or `dead`
    #[arg(long)]
    state: Option<String>,
    #[command(flatten)]
    filter: EventFilter,
    /// How to write them
    #[arg(long, value_enum, default_value = "ndjson")]
    format: Format,
    /// Write to this file, which appears when it is complete; to stdout by default
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One JSON object a line
    Ndjson,
    /// A table, with its columns' names in the first line
    Csv,
}

/// Writes all events that pass the filter.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let client = args.server.client(global)?;
    let state = [("state", args.state), ("limit", Some(PAGE_MAX.to_string()))];
    let query: Vec<_> = state.into_iter().chain(args.filter.query()).collect();
    let mut cursor = None;
    let mut sink = None;
    let shown = counter("events exported");
    loop {
        let query = [&query[..], &[("cursor", cursor.take())]].concat();
        let page = client.ask(Method::GET, "/v1/events", &query, None).await?;
        let rows: Vec<Row> = page["events"].as_array().into_iter().flatten().map(row).collect();
        let is_first = sink.is_none();
        let text = args.format.encode(&rows, is_first)?;
        // Only now, so that a question that is refused leaves no file.
        let sink = match &mut sink {
            Some(sink) => sink,
            none => none.insert(Sink::open(args.output.as_deref())?),
        };
        if !sink.write(&text)? {
            return Ok(());
        }
        shown.inc(rows.len() as u64);
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    shown.finish_and_clear();
    sink.map_or(Ok(()), Sink::finish)
}

/// An event as it is exported: columns with their names, in order.
struct Row(Vec<(&'static str, Value)>);

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// The row of an event as the server shows it.
fn row(event: &Value) -> Row {
    let of = |name: &'static str| (name, event[name].clone());
    let error = |name: &'static str| (name, event["error"][name].clone());
    let seconds = |name: &'static str, at: &str| {
        let time = event[at].as_str().and_then(|text| read_time_text(text, None).ok());
        (name, time.map_or(Value::Null, |time| time.get().into()))
    };
    let deliver_before = event["deliver_before"].as_i64().map(UnixSeconds::new);
    let deliver_before = deliver_before.map(|time| rfc3339(time.timestamp()));
    Row(vec![
        of("event_id"),
        of("lead_id"),
        of("dataset_id"),
        of("stage"),
        of("source"),
        of("state"),
        of("reason"),
        of("adjusted"),
        of("event_time"),
        of("event_at"),
        seconds("received_time", "received_at"),
        of("received_at"),
        of("deliver_before"),
        ("deliver_before_at", deliver_before.into()),
        seconds("dead_time", "dead_at"),
        of("dead_at"),
        seconds("delivered_time", "delivered_at"),
        of("delivered_at"),
        of("attempts"),
        error("http_status"),
        error("code"),
        error("subcode"),
        of("fbtrace_id"),
        error("meaning"),
        error("advice"),
    ])
}

impl Format {
    /// The text of a page.
    fn encode(self, rows: &[Row], is_first: bool) -> Result<Vec<u8>, Failure> {
        let failure = |error: String| Failure::new(Exit::Software, error);
        match self {
            Self::Ndjson => {
                let mut text = Vec::new();
                for row in rows {
                    let line = serde_json::to_writer(&mut text, row);
                    line.map_err(|error| failure(error.to_string()))?;
                    text.push(b'\n');
                }
                Ok(text)
            }
            Self::Csv => csv_text(rows, is_first).map_err(|error| failure(error.to_string())),
        }
    }
}

fn csv_text(rows: &[Row], with_names: bool) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    // Every cell is quoted: some readers take a quoted one for a text and keep all its digits.
    let mut table = csv::WriterBuilder::new();
    let mut table = table.quote_style(csv::QuoteStyle::Always).from_writer(Vec::new());
    if with_names {
        table.write_record(row(&Value::Null).0.iter().map(|(name, _)| name))?;
    }
    for Row(cells) in rows {
        table.write_record(cells.iter().map(|(_, value)| cell(value)))?;
    }
    Ok(table.into_inner()?)
}

/// The text of a cell. One that a spreadsheet would take for a formula gets a `'` in front.
fn cell(value: &Value) -> String {
    const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(FORMULA) => format!("'{text}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Where the export goes.
enum Sink {
    Stdout,
    File(PartFile),
}

impl Sink {
    fn open(path: Option<&Path>) -> Result<Self, Failure> {
        Ok(match path {
            Some(path) => Self::File(PartFile::create(path)?),
            None => Self::Stdout,
        })
    }

    /// Writes on; `false` if nobody reads any more, which is no failure.
    fn write(&mut self, text: &[u8]) -> Result<bool, Failure> {
        match self {
            Self::File(file) => file.write(text)?,
            Self::Stdout => {
                let mut stdout = std::io::stdout().lock();
                match stdout.write_all(text).and_then(|()| stdout.flush()) {
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(false),
                    result => result?,
                }
            }
        }
        Ok(true)
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::File(file) => file.finish(),
            Self::Stdout => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event() -> Value {
        json!({
            "event_id": "evt_1", "lead_id": "36795652870078002", "dataset_id": "700",
            "stage": "=HYPERLINK(\"x\")", "event_time": 1_762_000_001,
            "event_at": "2025-11-01T12:26:41Z", "state": "dead", "reason": "refused_by_meta",
            "dead_at": "2025-11-01T12:28:20.5Z", "adjusted": false, "source": "crm",
            "received_at": "2025-11-01T12:28:20Z", "deliver_before": 1_762_604_801, "attempts": 1,
            "fbtrace_id": "-Ab1", "delivered_at": null,
            "error": {"code": -1, "subcode": null, "message": "about Erika", "http_status": 400,
                      "meaning": "A \"word\", and more", "advice": "Mend it."},
        })
    }

    #[test]
    fn a_line_of_json_has_ids_as_texts_and_both_forms_of_a_time() {
        let text = Format::Ndjson.encode(&[row(&event()), row(&event())], true).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().count(), 2);
        insta::assert_snapshot!(text.lines().next().unwrap());
    }

    #[test]
    fn a_table_has_its_names_once_and_no_formula() {
        let rows = [row(&event())];
        let text = [Format::Csv.encode(&rows, true), Format::Csv.encode(&rows, false)];
        let text = text.map(|page| String::from_utf8(page.unwrap()).unwrap()).concat();
        assert_eq!(text.lines().count(), 3);
        assert!(!text.contains("Erika"), "{text}");
        insta::assert_snapshot!(text);
        let mut table = csv::Reader::from_reader(text.as_bytes());
        let names = table.headers().unwrap().clone();
        let table: Vec<_> = table.records().map(Result::unwrap).collect();
        let at = |name: &str| names.iter().position(|it| it == name).unwrap();
        assert_eq!((table.len(), &table[0]), (2, &table[1]));
        assert_eq!(&table[0][at("lead_id")], "36795652870078002");
        assert_eq!(&table[0][at("meaning")], "A \"word\", and more");
    }

    #[test]
    fn what_a_spreadsheet_would_calculate_is_a_text() {
        for text in ["=1", "+1", "-1", "@A1", "\t=1", "\r=1", "\n=1", "＝1"] {
            assert_eq!(cell(&json!(text)), format!("'{text}"));
        }
        for text in ["won", "", "1=1", "'=1", "a-b"] {
            assert_eq!(cell(&json!(text)), text);
        }
        assert_eq!(cell(&json!(-1)), "-1", "a number of Meta's is a number");
        assert_eq!(cell(&Value::Null), "");
    }

    #[test]
    fn an_empty_table_has_names_and_empty_lines_of_json_are_none() {
        assert!(Format::Csv.encode(&[], true).unwrap().starts_with(b"\"event_id\",\"lead_id\""));
        assert_eq!(Format::Ndjson.encode(&[], true).unwrap(), b"");
    }
}
