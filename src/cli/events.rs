//! `leadloop events`: look events up, and send dead letters after all.

use reqwest::Method;

use crate::cli::Global;
use crate::cli::api::{Paging, Server};
use crate::cli::exit::Failure;
use crate::domain::ids::EventId;

/// Options of `events`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show this event with its attempts
    #[arg(value_parser = EventId::parse, conflicts_with_all = ["state", "limit", "cursor"])]
    event_id: Option<EventId>,
    /// Put this event, a dead letter, back into its queue
    #[arg(long, requires = "event_id")]
    retry: bool,
    /// List those in this state: `awaiting_lead`, `held`, `pending`, `delivered` or `dead`
    #[arg(long)]
    state: Option<String>,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    server: Server,
}

/// Prints the server's answer as JSON.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let Some(event_id) = args.event_id else {
        let [limit, cursor] = args.paging.query();
        let query = [("state", args.state), limit, cursor];
        return args.server.print(global, Method::GET, "/v1/events", &query).await;
    };
    let (method, path) = if args.retry {
        (Method::POST, format!("/v1/events/{event_id}/retry"))
    } else {
        (Method::GET, format!("/v1/events/{event_id}"))
    };
    args.server.print(global, method, &path, &[]).await
}
