//! `leadloop leads`: look leads up.

use reqwest::Method;

use crate::cli::Global;
use crate::cli::api::Server;
use crate::cli::exit::Failure;
use crate::domain::ids::LeadId;

/// Options of `leads`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show this lead with its timeline
    #[arg(
        value_parser = LeadId::parse,
        conflicts_with_all = ["page_id", "stage", "state", "limit", "cursor"]
    )]
    lead_id: Option<LeadId>,
    /// List those of this Page
    #[arg(long, value_name = "ID")]
    page_id: Option<String>,
    /// List those in this stage
    #[arg(long)]
    stage: Option<String>,
    /// List those with an event in this state: `awaiting_lead`, `held`, `pending`, `delivered` or
    /// `dead`
    #[arg(long)]
    state: Option<String>,
    /// How many to list, 1 to 200; 50 by default
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u8>,
    /// Go on after the page that answered this `next_cursor`
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    server: Server,
}

/// Prints the server's answer as JSON.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let (path, query) = match args.lead_id {
        Some(lead_id) => (format!("/v1/leads/{lead_id}"), Vec::new()),
        None => (
            "/v1/leads".to_owned(),
            vec![
                ("page_id", args.page_id),
                ("stage", args.stage),
                ("state", args.state),
                ("limit", args.limit.map(|limit| limit.to_string())),
                ("cursor", args.cursor),
            ],
        ),
    };
    args.server.print(global, Method::GET, &path, &query).await
}
