//! The rows that were refused, as they were, each with its problem: to mend and to import again.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::exit::{Exit, Failure};
use crate::cli::import::row::Original;
use crate::cli::part_file::PartFile;

/// The file of refused rows.
pub(super) struct Rejected(PartFile);

impl Rejected {
    /// Begins it, with the names of the columns if it is a table.
    pub(super) fn create(path: &Path, names: Option<&csv::ByteRecord>) -> Result<Self, Failure> {
        let mut file = PartFile::create(path)?;
        if let Some(names) = names {
            file.write(&table_line(names, "problem")?)?;
        }
        Ok(Self(file))
    }

    /// Adds a row.
    pub(super) fn add(&mut self, original: &Original, problem: &str) -> Result<(), Failure> {
        self.0.write(&line(original, problem)?)
    }

    /// Completes it.
    pub(super) fn finish(self) -> Result<(), Failure> {
        self.0.finish()
    }
}

fn line(original: &Original, problem: &str) -> Result<Vec<u8>, Failure> {
    match original {
        Original::Cells(cells) => table_line(cells, problem),
        Original::Line(text) => {
            let mut row = match serde_json::from_slice(text) {
                Ok(row @ Value::Object(_)) => row,
                _ => json!({"line": String::from_utf8_lossy(text)}),
            };
            row["problem"] = problem.into();
            Ok(format!("{row}\n").into_bytes())
        }
    }
}

fn table_line(cells: &csv::ByteRecord, problem: &str) -> Result<Vec<u8>, Failure> {
    let mut table = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    let written = table.write_record(cells.iter().chain([problem.as_bytes()]));
    let text = written.map_err(|error| error.to_string());
    let text = text.and_then(|()| table.into_inner().map_err(|error| error.to_string()));
    text.map_err(|error| Failure::new(Exit::Software, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_row_stays_as_it_was_and_has_its_problem_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejected.csv");
        let record = |cells: &[&[u8]]| csv::ByteRecord::from(cells.to_vec());
        let mut table = Rejected::create(&path, Some(&record(&[b"lead_id", b"stage"]))).unwrap();
        table.add(&Original::Cells(record(&[b"1", b"a,b"])), "no_time: x").unwrap();
        table.add(&Original::Cells(record(&[b"\xfc"])), "not_utf8: y").unwrap();
        table.finish().unwrap();
        let text = std::fs::read(&path).unwrap();
        let expected: &[u8] = b"lead_id,stage,problem\n1,\"a,b\",no_time: x\n\xfc,not_utf8: y\n";
        assert_eq!(text, expected);
        assert!(Rejected::create(&path, None).is_err(), "what is there is not replaced");
    }

    #[test]
    fn a_refused_line_has_its_problem_in_it() {
        let told = |text: &str| {
            let line = line(&Original::Line(text.into()), "p").unwrap();
            String::from_utf8(line).unwrap()
        };
        assert_eq!(told(r#"{"stage": "won"}"#), "{\"problem\":\"p\",\"stage\":\"won\"}\n");
        assert_eq!(told("[1]"), "{\"line\":\"[1]\",\"problem\":\"p\"}\n");
    }
}
