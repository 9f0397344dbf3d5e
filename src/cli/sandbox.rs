//! `leadloop sandbox`: the stand-in for Meta on its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::Global;
use crate::cli::exit::{Exit, Failure};
use crate::cli::serve::{page_tokens, stop_on_signal};
use crate::cli::settings::{SANDBOX_APP_SECRET, layers};
use crate::clock::{SystemClock, SystemRandom};
use crate::config::ReadingSettings;
use crate::domain::ids::DatasetId;
use crate::sandbox::{Sandbox, Settings};

/// Options of `sandbox`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    listen: String,
    /// Where to send webhooks to
    #[arg(long, default_value = "http://127.0.0.1:8080/webhooks/meta", value_name = "URL")]
    target: String,
}

/// Runs until SIGINT or SIGTERM.
///
/// Dataset, token and app secret are those of the settings, so that a server with the same
/// settings and `META_GRAPH_URL` set to this address finds what it expects.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let mut layers = layers(global)?;
    layers.default_to("META_APP_SECRET", SANDBOX_APP_SECRET);
    layers.default_to("META_DATASET_ID", "1000000000000009");
    layers.default_to("META_ACCESS_TOKEN", "sandbox-access-token");
    layers.default_to("META_PAGE_ACCESS_TOKEN", "sandbox-page-token");
    let get = |setting| layers.get(setting).unwrap_or_default();
    let dataset_id = DatasetId::parse(get("META_DATASET_ID"))
        .map_err(|error| Failure::new(Exit::Config, format!("META_DATASET_ID: {error}")))?;
    let mut datasets = BTreeMap::from([(dataset_id, get("META_ACCESS_TOKEN").into())]);
    for table in &layers.tables.datasets {
        if let (Ok(id), Some(token)) = (DatasetId::parse(&table.id), &table.access_token) {
            datasets.insert(id, token.as_str().into());
        }
    }
    let app_secret = get("META_APP_SECRET").split(',').next().unwrap_or_default().trim().into();
    let page_tokens = page_tokens(&ReadingSettings::from_layers(&layers)?);
    let settings = Settings { datasets, page_tokens, app_secret, target: args.target };
    let sandbox = Sandbox::new(settings, Arc::new(SystemClock), Arc::new(SystemRandom))?;
    let listener = TcpListener::bind(&args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    eprintln!("The stand-in for Meta is at http://{address}; set META_GRAPH_URL to that.");
    Ok(sandbox.run(listener, stop).await?)
}
