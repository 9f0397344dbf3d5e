//! Reading the file row by row, whatever its size: a table, or lines of JSON.
//!
//! Which of them it is, and what stands between the cells, the first line tells.

use std::collections::VecDeque;
use std::io::{BufRead, Cursor, ErrorKind, Read};

use crate::cli::exit::{Exit, Failure};
use crate::cli::import::columns::{Columns, Renamed};
use crate::cli::import::row::Row;
use crate::limits::IMPORT_ROW_BYTES_MAX;

/// How a file is to be read.
#[derive(Debug, Default)]
pub(super) struct How {
    /// Columns that have other names than their fields.
    pub(super) columns: Vec<Renamed>,
    /// The source of rows that name none.
    pub(super) source: Option<String>,
    /// Whether values have a comma before their decimals.
    pub(super) decimal_comma: bool,
}

/// The rows of a file.
pub(super) struct Rows<R> {
    how: How,
    kind: Kind<R>,
}

/// What was read for the first line, and then the rest.
type Whole<R> = std::io::Chain<Cursor<Vec<u8>>, R>;

enum Kind<R> {
    Table { header: Header, columns: Columns, reader: Box<csv::Reader<Bounded<Whole<R>>>> },
    Lines { reader: Whole<R>, line: u64, bytes: u64 },
}

/// The first line of a table.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// As it stands in the file, with the mark before it and its end.
    pub(super) line: Vec<u8>,
    /// What stands between the cells.
    pub(super) delimiter: u8,
}

/// How much the reader of a table takes at a time.
const BUFFER_BYTES: usize = 8 * 1024;

impl<R: BufRead> Rows<R> {
    /// Begins to read.
    ///
    /// # Errors
    /// If it is empty, no text, or a table without the columns that are needed.
    pub(super) fn new(mut file: R, how: How) -> Result<Self, Failure> {
        let first = first_line(&mut file)?;
        let mark = if first.starts_with(MARK) { MARK } else { b"" };
        let text = &first[mark.len()..];
        let is_object = text.trim_ascii_start().starts_with(b"{");
        let delimiter = delimiter(text);
        let whole = Cursor::new(text.to_vec()).chain(file);
        if is_object {
            let kind = Kind::Lines { reader: whole, line: 0, bytes: 0 };
            return Ok(Self { how, kind });
        }
        let mut reader = csv::ReaderBuilder::new();
        let reader = reader.flexible(true).delimiter(delimiter).buffer_capacity(BUFFER_BYTES);
        let mut reader = reader.from_reader(Bounded::new(whole));
        reader.get_mut().refill();
        let names = reader.byte_headers().map_err(|error| table_failure(&error, 1))?.clone();
        let line = [mark, &as_it_stood(&mut reader)].concat();
        let texts: Result<Vec<&str>, _> = names.iter().map(std::str::from_utf8).collect();
        let texts = texts.map_err(|_| wrong("is not in UTF-8: save it as \"CSV UTF-8\""))?;
        let columns = Columns::new(texts, &how).map_err(|problem| wrong(&problem))?;
        let header = Header { line, delimiter };
        Ok(Self { how, kind: Kind::Table { header, columns, reader: Box::new(reader) } })
    }

    /// The first line of a table.
    pub(super) fn header(&self) -> Option<Header> {
        match &self.kind {
            Kind::Table { header, .. } => Some(header.clone()),
            Kind::Lines { .. } => None,
        }
    }

    /// The columns that are not read.
    pub(super) fn unused(&self) -> &[String] {
        match &self.kind {
            Kind::Table { columns, .. } => &columns.unused,
            Kind::Lines { .. } => &[],
        }
    }

    /// How many bytes have been read.
    pub(super) fn bytes(&self) -> u64 {
        match &self.kind {
            Kind::Table { reader, .. } => reader.position().byte(),
            Kind::Lines { bytes, .. } => *bytes,
        }
    }

    /// The next row, if there is one.
    ///
    /// # Errors
    /// If the file can't be read, or a row is too long.
    pub(super) fn next(&mut self) -> Result<Option<Row>, Failure> {
        let source = self.how.source.as_deref();
        match &mut self.kind {
            Kind::Table { columns, reader, .. } => {
                reader.get_mut().refill();
                let mut cells = csv::ByteRecord::new();
                let at = reader.position().line();
                if !reader.read_byte_record(&mut cells).map_err(|e| table_failure(&e, at))? {
                    return Ok(None);
                }
                // Where the row has ended, less its own lines; lines before it may be empty.
                let inside = cells.as_slice().split(|byte| *byte == b'\n').count() as u64;
                let line = reader.position().line() - inside;
                let original = as_it_stood(reader);
                Ok(Some(Row::of_cells(line, &cells, original, columns, source)))
            }
            Kind::Lines { reader, line, bytes } => loop {
                let text = read_line(reader, *line + 1)?;
                if text.is_empty() {
                    return Ok(None);
                }
                *line += 1;
                *bytes += text.len() as u64;
                if !text.trim_ascii().is_empty() {
                    return Ok(Some(Row::of_line(*line, text, source)));
                }
            },
        }
    }
}

/// What some programs put before a text in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The first line.
fn first_line(file: &mut impl BufRead) -> Result<Vec<u8>, Failure> {
    let line = read_line(file, 1)?;
    if line.is_empty() {
        return Err(wrong("is empty"));
    }
    if line.starts_with(b"\xff\xfe") || line.starts_with(b"\xfe\xff") {
        return Err(wrong(
            "is in UTF-16, as spreadsheets and Meta write it: save it as \"CSV UTF-8\"",
        ));
    }
    Ok(line)
}

/// A line with its end; empty at the end of the file.
fn read_line(file: &mut impl BufRead, number: u64) -> Result<Vec<u8>, Failure> {
    let mut line = Vec::new();
    let mut bounded = file.take(IMPORT_ROW_BYTES_MAX as u64 + 1);
    bounded.read_until(b'\n', &mut line)?;
    if line.len() > IMPORT_ROW_BYTES_MAX {
        return Err(too_long(number));
    }
    Ok(line)
}

/// What stands between the cells, by what there is most of in the first line.
fn delimiter(first: &[u8]) -> u8 {
    let count = |byte: &u8| first.split(|it| it == byte).count();
    // Of equals the last one is the greatest.
    [b'\t', b';', b','].into_iter().max_by_key(count).unwrap_or(b',')
}

/// The row that was read last, to the byte. Lines before it may be empty.
fn as_it_stood<R: Read>(reader: &mut csv::Reader<Bounded<R>>) -> Vec<u8> {
    let end = reader.position().byte();
    let row = reader.get_mut().taken_until(end);
    let empty = row.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    row[empty..].to_vec()
}

/// A reader that gives out so much for each row and no more. Every line ends with a line feed
/// alone, so that lines can be counted; what was read is kept as it stood until it is asked for.
struct Bounded<R> {
    inner: R,
    left: usize,
    is_line_over: bool,
    kept: VecDeque<u8>,
    /// How many bytes were given out that are not kept any more.
    taken: u64,
}

impl<R> Bounded<R> {
    fn new(inner: R) -> Self {
        Self { inner, left: 0, is_line_over: true, kept: VecDeque::new(), taken: 0 }
    }

    /// What stood in the file up to this byte of what was given out, and was not asked for before.
    fn taken_until(&mut self, end: u64) -> Vec<u8> {
        let mut row = Vec::new();
        while self.taken < end {
            let Some(byte) = self.kept.pop_front() else { break };
            self.taken += u64::from(byte != b'\r');
            row.push(byte);
        }
        row
    }

    /// The next row begins.
    fn refill(&mut self) {
        self.left = IMPORT_ROW_BYTES_MAX + BUFFER_BYTES;
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let length = buffer.len().min(self.left);
            if length == 0 {
                return Err(ErrorKind::FileTooLarge.into());
            }
            let read = self.inner.read(&mut buffer[..length])?;
            if read == 0 {
                let missing = usize::from(!std::mem::replace(&mut self.is_line_over, true));
                buffer[..missing].fill(b'\n');
                return Ok(missing);
            }
            self.left -= read;
            self.kept.extend(&buffer[..read]);
            let mut kept = 0;
            for at in 0..read {
                buffer[kept] = buffer[at];
                kept += usize::from(buffer[at] != b'\r');
            }
            if kept > 0 {
                self.is_line_over = buffer[kept - 1] == b'\n';
                return Ok(kept);
            }
        }
    }
}

fn table_failure(error: &csv::Error, line: u64) -> Failure {
    match error.kind() {
        csv::ErrorKind::Io(error) if error.kind() == ErrorKind::FileTooLarge => too_long(line),
        csv::ErrorKind::Io(error) => wrong(&format!("cannot be read: {error}")),
        _ => wrong(&format!("line {line} can't be read")),
    }
}

fn too_long(line: u64) -> Failure {
    wrong(&format!(
        "line {line} is over {IMPORT_ROW_BYTES_MAX} bytes long; is there a quote that does not end?"
    ))
}

fn wrong(problem: &str) -> Failure {
    Failure::new(Exit::Failure, format!("the file {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::import::row::Problem;
    use serde_json::{Value, json};

    type Update = Result<Value, Problem>;

    /// The rows of a text: lines, and updates or problems.
    fn rows(text: &[u8]) -> Result<Vec<(u64, Update)>, String> {
        let mut rows = Rows::new(text, How::default()).map_err(|failure| failure.message)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(|failure| failure.message)? {
            found.push((row.line, row.update.map(Value::Object)));
        }
        assert!(rows.bytes().abs_diff(text.len() as u64) < 10, "{}", rows.bytes());
        Ok(found)
    }

    #[test]
    fn a_table_is_read_with_what_spreadsheets_put_between_cells() {
        let expected = json!({"lead_id": "1", "stage": "won, at last", "event_time": "5"});
        for text in [
            "lead_id,stage,event_time\n1,\"won, at last\",5\n",
            "lead_id;stage;event_time\r\n1;won, at last;5\r\n",
            "lead_id\tstage\tevent_time\n1\twon, at last\t5",
            "\u{FEFF}lead_id,stage,event_time\n1,\"won, at last\",5",
        ] {
            assert_eq!(rows(text.as_bytes()).unwrap(), [(2, Ok(expected.clone()))], "{text}");
        }
    }

    #[test]
    fn rows_are_named_by_the_line_that_they_begin_in() {
        let text = "lead_id,stage,event_time\n1,\"won\nat last\",5\n\n2,won\n3,won,5\n";
        let lines: Vec<_> = rows(text.as_bytes()).unwrap();
        assert_eq!(lines.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 5, 6]);
        assert_eq!(lines[1].1, Err(Problem::Cells));
        let text = "{\"event_time\": 1}\n\n  {\"event_time\": 2}\r\n?\n";
        let lines = rows(text.as_bytes()).unwrap();
        assert_eq!(lines.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(lines[2].1, Err(Problem::NoObject));
    }

    #[test]
    fn a_row_is_kept_as_it_stood_to_the_byte() {
        let lines: [&[u8]; 6] = [
            b"\xef\xbb\xbfstage;\"event_time\"\r\n",
            b"\r\n",
            b"won ;\"5\"\r\n",
            b"\"a \"\"b\"\"\r\nc\"; 6;\r\n",
            b"caf\xe9;7\n",
            b"lost;8",
        ];
        let long = "x".repeat(BUFFER_BYTES);
        let long = format!("{long};9\r\n");
        let text = [&lines[..5].concat(), long.as_bytes(), lines[5]].concat();
        let mut rows = Rows::new(&text[..], How::default()).unwrap();
        assert_eq!(rows.header().unwrap().line, lines[0]);
        let mut found = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            found.push(row.original);
        }
        assert_eq!(found, [lines[2], lines[3], lines[4], long.as_bytes(), lines[5]]);
        let text = b"  {\"a\": 1} \r\n\n{\"b\":2}";
        let mut rows = Rows::new(&text[..], How::default()).unwrap();
        assert!(rows.header().is_none());
        assert_eq!(rows.next().unwrap().unwrap().original, b"  {\"a\": 1} \r\n");
        assert_eq!(rows.next().unwrap().unwrap().original, b"{\"b\":2}");
    }

    #[test]
    fn a_row_that_does_not_end_is_not_read_to_the_end() {
        let long = "x".repeat(10 * IMPORT_ROW_BYTES_MAX);
        for text in [
            format!("stage,event_time\nwon,1\n\"{long}"),
            format!("{{\"event_time\":1}}\n\n{{\"a\":\"{long}\"}}"),
            format!("stage,event_time,{long}"),
        ] {
            let problem = rows(text.as_bytes()).unwrap_err();
            assert!(problem.contains("over 65536 bytes"), "{problem}");
            assert!(problem.contains("line 3") || problem.contains("line 1"), "{problem}");
        }
        let cell = "x".repeat(IMPORT_ROW_BYTES_MAX - 100);
        let text = format!("stage,event_time\n{cell},1\n").repeat(3);
        assert_eq!(rows(text.as_bytes()).unwrap().len(), 5);
    }

    #[test]
    fn what_is_no_file_of_updates_is_refused_in_words() {
        for (text, words) in [
            (&b""[..], "is empty"),
            (b"\xff\xfel\0e\0a\0d\0", "UTF-16"),
            (b"stage,event_time,\xfc\n", "UTF-8"),
            (b"name,e-mail\n", "has no column stage"),
            (b"\n\n", "has no column stage"),
        ] {
            let problem = rows(text).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
    }
}
