//! `leadloop events retry`: queue dead letters again, one or many.

use std::collections::BTreeSet;

use clap::ArgGroup;
use indicatif::ProgressBar;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::Global;
use crate::cli::api::{Client, Server};
use crate::cli::event_filter::{EventFilter, FILTERS};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{counted, print};
use crate::cli::progress::{bar, counter};
use crate::domain::ids::EventId;
use crate::limits::RETRY_EVENTS_MAX;

/// The three ways to say which.
pub(super) const USAGE: &str = "\
leadloop events retry <EVENT_ID>...
       leadloop events retry <FILTERS> [--yes]
       leadloop events retry --all [--yes]";

/// What the exit codes of this command mean beyond those of all.
pub(super) const EXIT_CODES: &str = "\
Exit codes, beside those of `leadloop --help`:
   0  all that were named are in a queue or delivered; with a filter, it was carried out
   1  some that were named can't arrive in time any more, and stay dead
   3  some that were named do not exist";

/// Options of `events retry`.
#[derive(Debug, clap::Args)]
#[command(group = which())]
pub(super) struct Args {
    /// Queue these again
    #[arg(
        value_parser = EventId::parse,
        value_name = "EVENT_ID",
        conflicts_with_all = FILTERS
    )]
    event_ids: Vec<EventId>,
    #[command(flatten)]
    filter: EventFilter,
    /// Every dead letter
    #[arg(long, conflicts_with_all = FILTERS, conflicts_with = "event_ids")]
    all: bool,
    /// Do it; without this, those that pass a filter are only counted
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    server: Server,
}

/// At least one way to say which has to be given.
fn which() -> ArgGroup {
    ArgGroup::new("which").args(["event_ids", "all"]).args(FILTERS).multiple(true).required(true)
}

/// What became of dead letters, over all calls.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requeued: u64,
    hopeless: u64,
    not_dead: u64,
    not_found: u64,
}

impl Counts {
    /// Adds an answer of the server, and tells how many events it was about.
    fn add(&mut self, answer: &Value) -> u64 {
        let count = |name: &str| answer[name].as_u64().unwrap_or(0);
        self.requeued += count("requeued");
        self.hopeless += count("hopeless");
        self.not_dead += count("not_dead");
        self.not_found += count("not_found");
        ["requeued", "hopeless", "not_dead", "not_found"].map(count).iter().sum()
    }

    fn print(self, dry_run: bool) -> Result<(), Failure> {
        let Self { requeued, hopeless, not_dead, not_found } = self;
        let counts = json!({
            "requeued": requeued,
            "hopeless": hopeless,
            "not_dead": not_dead,
            "not_found": not_found,
            "dry_run": dry_run,
        });
        print(&format!("{counts:#}\n"))
    }
}

/// Queues them again and prints how many, or only counts them.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let client = args.server.client(global)?;
    if !args.event_ids.is_empty() {
        return retry_named(&client, args.event_ids).await;
    }
    let mut body = args.filter.fields();
    if args.all {
        body.insert("all".to_owned(), true.into());
    }
    let dry_run = Map::from_iter([("dry_run".to_owned(), true.into())]);
    let dry_body = body.clone().into_iter().chain(dry_run).collect();
    let would = retry_filtered(&client, dry_body, &counter("dead letters counted")).await?;
    if !args.yes {
        would.print(true)?;
        let hopeless = would.hopeless;
        let requeued = counted(would.requeued, "dead letter", "dead letters");
        eprintln!(
            "leadloop: nothing was changed: {requeued} would be queued again, \
             {hopeless} can't arrive in time any more; add --yes to queue them again"
        );
        return Ok(());
    }
    let shown = bar(would.requeued + would.hopeless, "dead letters");
    retry_filtered(&client, body, &shown).await?.print(false)
}

/// Goes through all that pass a filter, call by call.
async fn retry_filtered(
    client: &Client,
    mut body: Map<String, Value>,
    shown: &ProgressBar,
) -> Result<Counts, Failure> {
    let mut counts = Counts::default();
    loop {
        let answer = retry(client, Value::Object(body.clone()), counts).await?;
        shown.inc(counts.add(&answer));
        let cursor = &answer["next_cursor"];
        if cursor.is_null() {
            shown.finish_and_clear();
            return Ok(counts);
        }
        body.insert("cursor".to_owned(), cursor.clone());
    }
}

async fn retry_named(client: &Client, event_ids: Vec<EventId>) -> Result<(), Failure> {
    let event_ids: BTreeSet<EventId> = event_ids.into_iter().collect();
    let event_ids: Vec<String> = event_ids.iter().map(ToString::to_string).collect();
    let shown = bar(event_ids.len() as u64, "dead letters");
    let mut counts = Counts::default();
    for event_ids in event_ids.chunks(RETRY_EVENTS_MAX) {
        let answer = retry(client, json!({"event_ids": event_ids}), counts).await?;
        shown.inc(counts.add(&answer));
    }
    shown.finish_and_clear();
    counts.print(false)?;
    let Counts { hopeless, not_found, .. } = counts;
    if not_found > 0 {
        let what = counted(not_found, "of them does not exist", "of them do not exist");
        return Err(Failure::new(Exit::NotFound, what));
    }
    if hopeless > 0 {
        let stay = if hopeless == 1 { "stays" } else { "stay" };
        let what = format!("{hopeless} of them can't arrive in time any more, and {stay} dead");
        return Err(Failure::new(Exit::Failure, what));
    }
    Ok(())
}

/// One call. What was done before it stays done, and is said if it fails.
async fn retry(client: &Client, body: Value, before: Counts) -> Result<Value, Failure> {
    let answer = client.ask(Method::POST, "/v1/events/retry", &[], Some(&body)).await;
    answer.map_err(|failure| match before.requeued {
        0 => failure,
        _ if body["dry_run"] == true => failure,
        requeued => {
            let message = format!("{}; {requeued} were queued again before", failure.message);
            Failure { message, ..failure }
        }
    })
}
