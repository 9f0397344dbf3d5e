//! `leadloop leads`: look leads up, and erase one.

use reqwest::Method;

use crate::cli::Global;
use crate::cli::api::{Paging, Server};
use crate::cli::exit::Failure;
use crate::domain::ids::LeadId;

/// Options of `leads`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show this lead with its timeline
    #[arg(
        value_parser = LeadId::parse,
        conflicts_with_all = [
            "page_id", "form_id", "stage", "state", "crm_id", "email", "phone", "limit", "cursor",
        ]
    )]
    lead_id: Option<LeadId>,
    /// Erase this lead with its events, for good; with `--yes`
    #[arg(long, requires = "lead_id", requires = "yes")]
    erase: bool,
    /// Confirm that the lead is to be erased
    #[arg(long, requires = "erase")]
    yes: bool,
    /// List those of this Page
    #[arg(long, value_name = "ID")]
    page_id: Option<String>,
    /// List those of this form
    #[arg(long, value_name = "ID")]
    form_id: Option<String>,
    /// List those in this stage
    #[arg(long)]
    stage: Option<String>,
    /// List those with an event in this state: `awaiting_lead`, `held`, `pending`, `delivered` or
    /// `dead`
    #[arg(long)]
    state: Option<String>,
    /// List those linked with this id of a CRM's own record
    #[arg(long, value_name = "ID")]
    crm_id: Option<String>,
    /// List those of a person with this e-mail address, plain or as a SHA-256 digest
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// List those of a person with this phone number, with its country code, or as a SHA-256 digest
    #[arg(long, value_name = "NUMBER")]
    phone: Option<String>,
    #[command(flatten)]
    paging: Paging,
    #[command(flatten)]
    server: Server,
}

/// Prints the server's answer as JSON.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    if let Some(lead_id) = args.lead_id {
        let method = if args.erase { Method::DELETE } else { Method::GET };
        return args.server.print(global, method, &format!("/v1/leads/{lead_id}"), &[]).await;
    }
    let filter = [
        ("page_id", args.page_id),
        ("form_id", args.form_id),
        ("stage", args.stage),
        ("state", args.state),
        ("crm_id", args.crm_id),
        ("email", args.email),
        ("phone", args.phone),
    ];
    let query: Vec<_> = filter.into_iter().chain(args.paging.query()).collect();
    args.server.print(global, Method::GET, "/v1/leads", &query).await
}
