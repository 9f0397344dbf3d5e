//! `leadloop events`: look events up, and send dead letters after all.

use reqwest::Method;

use crate::cli::api::{Paging, Server};
use crate::cli::event_filter::{EventFilter, FILTERS};
use crate::cli::exit::Failure;
use crate::cli::{Global, export, retry};
use crate::domain::ids::EventId;

/// Options of `events`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Show this event with its attempts
    #[arg(
        value_parser = EventId::parse,
        conflicts_with_all = ["state", "limit", "cursor"],
        conflicts_with_all = FILTERS
    )]
    event_id: Option<EventId>,
    /// Put this event, a dead letter, back into its queue
    #[arg(long, requires = "event_id")]
    retry: bool,
    /// List those in this state: `awaiting_lead`, `held`, `pending`, `delivered` or `dead`
    #[arg(long)]
    state: Option<String>,
    #[command(flatten)]
    filter: EventFilter,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Put dead letters back into their queues, with the same event ids
    ///
    /// Those that are named are queued again at once. With a filter or `--all` they are only
    /// counted, unless `--yes` is given. Those that could not arrive in time any more stay dead,
    /// and are counted as `hopeless`.
    #[command(override_usage = retry::USAGE, after_long_help = retry::EXIT_CODES)]
    Retry(retry::Args),
    /// Write events to a file or to stdout, for a spreadsheet or another program
    ///
    /// Newest first, with Meta's last answer in numbers and in words. There is no personal data in
    /// it. Ids are texts: let a spreadsheet read `lead_id` as text, since it rounds numbers of 17
    /// digits. In CSV, a text that a spreadsheet would take for a formula begins with `'`.
    Export(export::Args),
}

/// Prints the server's answer as JSON.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    match args.command {
        Some(Command::Retry(args)) => return retry::run(global, args).await,
        Some(Command::Export(args)) => return export::run(global, args).await,
        None => {}
    }
    let Some(event_id) = args.event_id else {
        let state = [("state", args.state)].into_iter();
        let query: Vec<_> = state.chain(args.filter.query()).chain(args.paging.query()).collect();
        return args.server.print(global, Method::GET, "/v1/events", &query).await;
    };
    let (method, path) = if args.retry {
        (Method::POST, format!("/v1/events/{event_id}/retry"))
    } else {
        (Method::GET, format!("/v1/events/{event_id}"))
    };
    args.server.print(global, method, &path, &[]).await
}
