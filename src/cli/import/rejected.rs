//! The rows that were refused, as they were, each with its problem: to mend and to import again.

use std::path::Path;

use serde_json::{Map, Value};

use crate::cli::exit::Failure;
use crate::cli::import::read::Header;
use crate::cli::part_file::PartFile;

/// The file of refused rows.
pub(super) struct Rejected {
    file: PartFile,
    /// What stands between the cells of a table.
    delimiter: Option<u8>,
}

impl Rejected {
    /// Begins it, with the first line if it is a table.
    pub(super) fn create(path: &Path, header: Option<Header>) -> Result<Self, Failure> {
        let mut file = PartFile::create(path)?;
        let delimiter = header.as_ref().map(|header| header.delimiter);
        if let Some(Header { line, delimiter }) = header {
            file.write(&table_line(&line, delimiter, "problem"))?;
        }
        Ok(Self { file, delimiter })
    }

    /// Adds a row.
    pub(super) fn add(&mut self, original: &[u8], problem: &str) -> Result<(), Failure> {
        self.file.write(&match self.delimiter {
            Some(delimiter) => table_line(original, delimiter, problem),
            None => json_line(original, problem),
        })
    }

    /// Completes it.
    pub(super) fn finish(self) -> Result<(), Failure> {
        self.file.finish()
    }
}

/// A row of a table with one more cell.
fn table_line(original: &[u8], delimiter: u8, problem: &str) -> Vec<u8> {
    let (row, end) = without_end(original);
    let quoted = format!("\"{}\"", problem.replace('"', "\"\""));
    [row, &[delimiter], quoted.as_bytes(), end].concat()
}

/// A line of JSON with one more field; what is no object has nowhere to put it.
fn json_line(original: &[u8], problem: &str) -> Vec<u8> {
    let (line, end) = without_end(original);
    let open = line.trim_ascii_end().strip_suffix(b"}");
    let object = serde_json::from_slice::<Map<String, Value>>(line);
    let (Some(open), Ok(fields)) = (open, object) else { return [line, end].concat() };
    let comma = if fields.is_empty() { "" } else { "," };
    let field = format!("{comma}\"problem\":{}}}", Value::from(problem));
    [open, field.as_bytes(), end].concat()
}

/// A line and its end; the last one of a file may have none.
fn without_end(line: &[u8]) -> (&[u8], &[u8]) {
    let end = if line.ends_with(b"\r\n") { &b"\r\n"[..] } else { b"\n" };
    (line.strip_suffix(end).unwrap_or(line), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_row_stays_as_it_was_and_has_its_problem_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rejected.csv");
        let line = b"\xef\xbb\xbflead_id;stage\r\n".to_vec();
        let header = Header { line, delimiter: b';' };
        let mut table = Rejected::create(&path, Some(header)).unwrap();
        table.add(b" \"1\" ;a,b;\r\n", "no_time: \"x\"").unwrap();
        table.add(b"\xfc", "not_utf8: y").unwrap();
        table.finish().unwrap();
        let text = std::fs::read(&path).unwrap();
        let expected: &[u8] = b"\xef\xbb\xbflead_id;stage;\"problem\"\r\n\
             \x20\"1\" ;a,b;;\"no_time: \"\"x\"\"\"\r\n\xfc;\"not_utf8: y\"\n";
        assert_eq!(text, expected);
        assert!(Rejected::create(&path, None).is_err(), "what is there is not replaced");
    }

    #[test]
    fn a_refused_line_has_its_problem_in_it() {
        for (line, expected) in [
            (
                "{\"stage\":  1.50e0, \"a\":2}\r\n",
                "{\"stage\":  1.50e0, \"a\":2,\"problem\":\"p\"}\r\n",
            ),
            ("{ }", "{ \"problem\":\"p\"}\n"),
            ("[1]\n", "[1]\n"),
        ] {
            let line = json_line(line.as_bytes(), "p");
            assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }
}
