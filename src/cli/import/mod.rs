//! `leadloop import`: the stages of a file, first only to see what would become of them.
//!
//! The server judges; what is refused here is what it could not know: that an id was rounded before
//! it was sent, or that a missing time does not mean now. A report that is repeated is known, so
//! there is nothing to remember between two runs.

mod columns;
mod read;
mod rejected;
mod row;
mod send;
mod summary;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use reqwest::Method;

use crate::cli::Global;
use crate::cli::api::{Client, Server};
use crate::cli::exit::{Exit, Failure};
use crate::cli::import::columns::Renamed;
use crate::cli::import::read::{How, Rows};
use crate::cli::import::rejected::Rejected;
use crate::cli::import::row::{Row, ends_in_zeros};
use crate::cli::import::send::Sender;
use crate::cli::import::summary::Summary;
use crate::cli::output::{counted, print};
use crate::cli::progress::{bytes, counter};
use crate::limits::{BATCH_BODY_BYTES_MAX, BATCH_UPDATES_MAX};

/// What the exit codes of this command mean beyond those of all.
pub(super) const EXIT_CODES: &str = "\
Exit codes, beside those of `leadloop --help`:
   0  every row was accepted or known, or would be
   1  some rows were refused, or would be; the others were reported all the same";

/// Options of `import`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file, or `-` for stdin
    file: PathBuf,
    /// Take this column for a field, as `--column stage="Lead Status"`; can be given several times
    #[arg(long = "column", value_name = "FIELD=NAME", value_parser = Renamed::parse)]
    columns: Vec<Renamed>,
    /// The source of rows that name none: decides on time zone, clock tolerance and country
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Values have a comma before their decimals, as in 1.249,50
    #[arg(long)]
    decimal_comma: bool,
    /// Report the rows; without this they are only looked at
    #[arg(long)]
    send: bool,
    /// Write refused rows to this file, each with its problem in a column of its own
    #[arg(long, value_name = "FILE")]
    rejected: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
}

/// Reports the rows, or asks what would become of them, and prints a summary.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let client = args.server.client(global)?;
    if let Some(source) = &args.source {
        check_source(&client, source).await?;
    }
    let (file, shown) = open(&args.file)?;
    let Args { columns, source, decimal_comma, .. } = args;
    let rows = Rows::new(file, How { columns, source, decimal_comma })?;
    if !rows.unused().is_empty() {
        eprintln!("leadloop: these columns are not read: {}", rows.unused().join(", "));
    }
    let rejected = args.rejected.as_deref().map(|path| Rejected::create(path, rows.header()));
    let mut import = Import {
        sender: Sender::new(&client, !args.send),
        rejected: rejected.transpose()?,
        summary: Summary::default(),
        shown,
    };
    if let Err(failure) = import.all(rows).await {
        let done = import.summary.accepted + import.summary.known;
        let message = match done {
            0 => failure.message,
            _ if !args.send => failure.message,
            done => {
                let done = counted(done, "row was", "rows were");
                format!("{}; {done} reported before, and can be sent again", failure.message)
            }
        };
        return Err(Failure { message, ..failure });
    }
    import.shown.finish_and_clear();
    import.rejected.map_or(Ok(()), Rejected::finish)?;
    conclude(&import.summary, args.send)
}

/// A source that the server does not have would be judged by the usual rules, and its links with
/// the records of a CRM would be nobody's. A server without any has nothing to tell.
async fn check_source(client: &Client, source: &str) -> Result<(), Failure> {
    let asked = match client.ask(Method::GET, "/v1/sources", &[], None).await {
        // A server of before it could be asked.
        Err(Failure { exit: Exit::NotFound, .. }) => return Ok(()),
        asked => asked?,
    };
    let sources = asked["sources"].as_array().into_iter().flatten();
    let names: Vec<&str> = sources.filter_map(|it| it["source"].as_str()).collect();
    if names.is_empty() || names.contains(&source) {
        return Ok(());
    }
    let message = format!("the server has no source {source:?}; it has {}", names.join(", "));
    Err(Failure::new(Exit::Failure, message))
}

/// The file, and what shows how far it is read.
fn open(path: &Path) -> Result<(Box<dyn BufRead>, ProgressBar), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::new(std::io::stdin())), counter("bytes read")));
    }
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (length, file) = opened.map_err(|error| {
        Failure::new(Exit::Failure, format!("{}: cannot be read: {error}", path.display()))
    })?;
    Ok((Box::new(BufReader::new(file)), bytes(length)))
}

/// Prints the summary; refused rows make the command fail.
fn conclude(summary: &Summary, sent: bool) -> Result<(), Failure> {
    print(&format!("{:#}\n", summary.to_json(!sent)))?;
    if summary.has_round_ids() {
        eprintln!(
            "leadloop: every lead_id ends in zeros: a spreadsheet seems to have rounded them, and \
             then they are no lead's"
        );
    }
    if !sent {
        let accepted = counted(summary.accepted, "row", "rows");
        let known = counted(summary.known, "is", "are");
        eprintln!(
            "leadloop: nothing was changed: {accepted} would be accepted, {known} known already; \
             add --send to report them"
        );
    }
    let refused = match summary.refused() {
        0 => return Ok(()),
        refused if sent => counted(refused, "row was", "rows were"),
        refused => counted(refused, "row would be", "rows would be"),
    };
    Err(Failure::new(Exit::Failure, format!("{refused} refused")))
}

/// An import that is under way.
struct Import<'c> {
    sender: Sender<'c>,
    rejected: Option<Rejected>,
    summary: Summary,
    shown: ProgressBar,
}

impl Import<'_> {
    /// Sends all rows, batch by batch.
    async fn all(&mut self, mut rows: Rows<Box<dyn BufRead>>) -> Result<(), Failure> {
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        while let Some(row) = rows.next()? {
            let bytes = match &row.update {
                Ok(update) => {
                    self.summary.note_id(ends_in_zeros(update));
                    serde_json::to_vec(update).map_or(0, |text| text.len()) + 1
                }
                Err(problem) => {
                    let (code, detail) = (problem.code(), problem.to_string());
                    self.summary.refuse(row.line, code, &detail);
                    self.reject(&row, &format!("{code}: {detail}"))?;
                    continue;
                }
            };
            // The rest of the body is `{"dry_run":true,"updates":[]}`.
            let is_full =
                batch.len() == BATCH_UPDATES_MAX || batch_bytes + bytes + 64 > BATCH_BODY_BYTES_MAX;
            if is_full {
                self.send(std::mem::take(&mut batch)).await?;
                batch_bytes = 0;
            }
            batch.push(row);
            batch_bytes += bytes;
            self.shown.set_position(rows.bytes());
        }
        self.send(batch).await
    }

    async fn send(&mut self, batch: Vec<Row>) -> Result<(), Failure> {
        if batch.is_empty() {
            return Ok(());
        }
        let updates = batch.iter().flat_map(|row| row.update.clone()).collect();
        let results = self.sender.send(updates).await?;
        for (row, result) in batch.iter().zip(&results) {
            if let Some(problem) = self.summary.add(row.line, result) {
                self.reject(row, &problem)?;
            }
        }
        Ok(())
    }

    fn reject(&mut self, row: &Row, problem: &str) -> Result<(), Failure> {
        match &mut self.rejected {
            Some(rejected) => rejected.add(&row.original, problem),
            None => Ok(()),
        }
    }
}
