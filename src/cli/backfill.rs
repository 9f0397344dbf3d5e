//! `leadloop backfill`: look for leads that the webhook lost, and see how it goes.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Unit};
use reqwest::Method;
use serde_json::{Map, Value};

use crate::cli::Global;
use crate::cli::api::{Client, Server};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{counted, print};
use crate::cli::progress::bar;
use crate::clock::{Clock, SystemClock};
use crate::domain::ids::{FormId, PageId};
use crate::http::time::read_time_text;

/// How often the server is asked how it goes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the exit codes of this command mean beyond those of all.
pub(super) const EXIT_CODES: &str = "\
Exit codes, beside those of `leadloop --help`:
   0  all that was asked for has been read
   1  some forms or leads could not be read; they are read again the next time";

/// Options of `backfill`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Leads of this Page only
    #[arg(long, value_name = "ID", value_parser = PageId::parse)]
    page: Option<PageId>,
    /// Leads of this form only
    #[arg(long, value_name = "ID", value_parser = FormId::parse)]
    form: Option<FormId>,
    /// Leads that were created since then, such as `7d`, `12h` or an RFC 3339 time, at most 90 days
    /// ago; by default since the last time
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<String>,
    /// Store nothing, and tell how many leads are new
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    server: Server,
}

/// A time as the server reads it; how long ago it was is made a time.
fn since(text: &str) -> Result<String, String> {
    let Ok(ago) = text.parse::<Span>() else {
        let read = read_time_text(text, None);
        let how = |problem| format!("{problem}, or how long ago, such as 7d or 12h");
        return read.map(|since| since.to_string()).map_err(how);
    };
    let unit = (Unit::Second, SpanRelativeTo::days_are_24_hours());
    let ago_ms = ago.total(unit).map_err(|error| error.to_string())? * 1_000.0;
    #[expect(clippy::cast_possible_truncation, reason = "it is less than the age of the world")]
    let since = SystemClock.now().plus_millis(-ago_ms.abs() as i64);
    Ok(since.seconds().to_string())
}

/// Begins it, shows how it goes, and prints how it ended.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let client = args.server.client(global)?;
    let fields = [
        ("page_id", args.page.map(|id| id.to_string())),
        ("form_id", args.form.map(|id| id.to_string())),
        ("since", args.since),
    ];
    let given = fields.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.into())));
    let mut body: Map<String, Value> = given.collect();
    body.insert("dry_run".to_owned(), args.dry_run.into());
    let begun = client.ask(Method::POST, "/v1/backfill", &[], Some(&Value::Object(body))).await?;
    let ended = watch(&client, begun).await?;
    print(&format!("{ended:#}\n"))?;
    match ["forms_failed", "failed"].iter().filter_map(|name| ended[name].as_u64()).sum() {
        0 => Ok(()),
        not_read => {
            let what = counted(not_read, "form or lead", "forms or leads");
            let what = format!("{what} could not be read; see the server's log");
            Err(Failure::new(Exit::Failure, what))
        }
    }
}

/// Asks how it goes until it has ended.
async fn watch(client: &Client, begun: Value) -> Result<Value, Failure> {
    let shown = bar(0, "forms");
    let mut answer = begun;
    loop {
        let now = &answer["backfill"];
        let count = |name: &str| now[name].as_u64().unwrap_or(0);
        shown.set_length(count("forms"));
        shown.set_position(count("forms_read"));
        shown.set_message(match now["waits_until"].as_str() {
            Some(until) => format!("forms; Meta lets it go on at {until}"),
            None => format!("forms, {} leads, {} new", count("leads_read"), count("new")),
        });
        if now["state"] != "running" {
            shown.finish_and_clear();
            return Ok(now.clone());
        }
        tokio::time::sleep(LOOK_EVERY).await;
        answer = client.ask(Method::GET, "/v1/backfill", &[], None).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_ago_is_made_a_time_and_a_time_stays_one() {
        let now = SystemClock.now().seconds().get();
        for (text, ago_s) in [("7d", 7 * 86_400), ("12h", 43_200), ("1d 30m", 88_200)] {
            let since: i64 = since(text).unwrap().parse().unwrap();
            assert!((now - since - ago_s).abs() < 60, "{text}");
        }
        assert_eq!(since("2025-11-01T12:26:40Z").unwrap(), "1762000000");
        assert_eq!(since("1762000000").unwrap(), "1762000000");
        assert!(since("3 months").is_err());
        assert!(since("banana").unwrap_err().contains("7d or 12h"));
    }
}
