//! `leadloop datasets`: how the datasets are doing.

use reqwest::Method;

use crate::cli::Global;
use crate::cli::api::Server;
use crate::cli::exit::Failure;

/// Show how the datasets are doing, and why one is paused
///
/// For each dataset: whether it works, waits after a failure that will pass, or is paused until
/// somebody mends something, and then what. The answer of the server is printed as JSON. The API
/// key is taken from `LEADLOOP_API_KEY` of the settings.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: Server,
}

/// Prints the server's answer as JSON.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    args.server.print(global, Method::GET, "/v1/datasets", &[]).await
}
