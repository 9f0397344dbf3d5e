//! `leadloop datasets`: how the datasets are doing.

use reqwest::Method;

use crate::cli::Global;
use crate::cli::api::Server;
use crate::cli::exit::Failure;

/// Options of `datasets`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: Server,
}

/// Prints the server's answer as JSON.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    args.server.print(global, Method::GET, "/v1/datasets", &[]).await
}
