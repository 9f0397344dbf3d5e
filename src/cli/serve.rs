//! `leadloop serve`: the server, alone or against the built-in stand-in for Meta.

use std::sync::Arc;

use anyhow::Context;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::{App, World};
use crate::cli::Global;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::print;
use crate::cli::settings::{SANDBOX_API_KEY, SANDBOX_APP_SECRET, layers};
use crate::cli::store::OpenStore;
use crate::clock::{SystemClock, SystemRandom};
use crate::config::{Config, Layers, ReadingSettings};
use crate::domain::ids::PageId;
use crate::sandbox::{Sandbox, Settings};
use crate::store::Purpose;

const SANDBOX_DATASET: &str = "1000000000000009";

/// Options of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Run against the built-in stand-in for Meta; needs no settings, uses those that are there,
    /// and sends nothing to Meta
    #[arg(long)]
    sandbox: bool,
    /// Where the stand-in listens
    #[arg(long, default_value = "127.0.0.1:8081", requires = "sandbox", value_name = "ADDRESS")]
    sandbox_listen: String,
}

/// Runs until SIGINT or SIGTERM.
pub(super) async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let mut layers = layers(global)?;
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    if args.sandbox {
        let meta = bind(&args.sandbox_listen).await?;
        let has_key = layers.get("LEADLOOP_API_KEY").is_some();
        let api_key = if has_key { "$LEADLOOP_API_KEY" } else { SANDBOX_API_KEY };
        let config = sandbox_config(&mut layers, &meta)?;
        let listener = bind(&config.listen.to_string()).await?;
        let url = start_sandbox(&config, &listener, meta, &stop)?;
        let sandbox = SandboxAddress { url, api_key };
        let result = serve(config, Purpose::Sandbox, listener, Some(&sandbox), stop.clone()).await;
        stop.cancel();
        result
    } else {
        let config = Config::from_layers(&layers)?;
        let listener = bind(&config.listen.to_string()).await?;
        serve(config, Purpose::Live, listener, None, stop).await
    }
}

async fn serve(
    config: Config,
    purpose: Purpose,
    listener: TcpListener,
    sandbox: Option<&SandboxAddress>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let (random, shown) = (Arc::new(SystemRandom), config.store.shown());
    let store = OpenStore::open(&config.store, purpose, &*random).await?;
    let died = store.died();
    let address = listener.local_addr()?;
    let clock = Arc::new(SystemClock);
    let world = World { store: store.store(), clock, random };
    let app = App::build(config, world).await?;
    tracing::info!(%address, store = shown, "listening");
    match (sandbox, app.made_api_key()) {
        (Some(sandbox), _) => print_sandbox(&format!("http://{address}"), sandbox, &shown)?,
        (None, Some(key)) => print_api_key(key)?,
        (None, None) => {}
    }
    let result = tokio::select! {
        ended = app.run(listener, stop.clone()) => {
            ended.map_err(|died| Failure::new(Exit::Software, died.to_string()))
        }
        () = died.cancelled() => {
            Err(Failure::new(Exit::Software, "the store's thread died; start again to repair it"))
        }
    };
    // Held until here: the store's thread ends with the last handle, and a server that is stopping
    // lets go of its handles before it is done.
    store.close().await;
    result
}

async fn bind(address: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await;
    Ok(listener.with_context(|| format!("cannot listen on {address}"))?)
}

/// Cancels when the process is asked to stop.
pub(super) fn stop_on_signal(stop: CancellationToken) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    });
    Ok(())
}

struct SandboxAddress {
    url: String,
    /// The key to show; one that was configured is its owner's, and is not.
    api_key: &'static str,
}

/// Settings for a run against the stand-in: whatever is set stays, but for where events go.
fn sandbox_config(layers: &mut Layers, listener: &TcpListener) -> Result<Config, Failure> {
    for (setting, value) in [
        ("META_APP_SECRET", SANDBOX_APP_SECRET),
        ("META_VERIFY_TOKEN", "sandbox-verify-token"),
        ("META_DATASET_ID", SANDBOX_DATASET),
        ("META_ACCESS_TOKEN", "sandbox-access-token"),
        ("META_PAGE_ACCESS_TOKEN", "sandbox-page-token"),
        ("CRM_NAME", "Sandbox CRM"),
        ("LEADLOOP_API_KEY", SANDBOX_API_KEY),
        ("LEADLOOP_STORE", "leadloop-sandbox.redb"),
    ] {
        layers.default_to(setting, value);
    }
    layers.set("META_GRAPH_URL", format!("http://{}", listener.local_addr()?));
    let mut config = Config::from_layers(layers)?;
    config.alarms = config.alarms.on_this_machine();
    Ok(config)
}

fn start_sandbox(
    config: &Config,
    listener: &TcpListener,
    meta: TcpListener,
    stop: &CancellationToken,
) -> Result<String, Failure> {
    let url = format!("http://{}", meta.local_addr()?);
    let datasets = config.datasets.values();
    let settings = Settings {
        datasets: datasets.map(|dataset| (dataset.id, dataset.access_token.clone())).collect(),
        page_tokens: page_tokens(&config.reading),
        app_secret: config.app_secrets[0].clone(),
        target: format!("http://{}/webhooks/meta", listener.local_addr()?),
    };
    let sandbox = Sandbox::new(settings, Arc::new(SystemClock), Arc::new(SystemRandom))?;
    let stop = stop.clone();
    tokio::spawn(async move {
        if let Err(error) = sandbox.run(meta, stop).await {
            tracing::error!(%error, "the stand-in for Meta stopped");
        }
    });
    Ok(url)
}

/// The tokens that the stand-in lets leads be read with.
pub(super) fn page_tokens(reading: &ReadingSettings) -> Vec<(Option<PageId>, SecretString)> {
    reading.tokens.iter().map(|token| (token.page_id, token.token.clone())).collect()
}

fn print_api_key(key: &str) -> Result<(), Failure> {
    print(&format!(
        "An API key was made, because none is configured. It is shown this once:\n\n  {key}\n\n"
    ))
}

fn print_sandbox(url: &str, sandbox: &SandboxAddress, store: &str) -> Result<(), Failure> {
    let program = std::env::args().next().unwrap_or_else(|| "leadloop".to_owned());
    let (store, SandboxAddress { url: sandbox, api_key }) = (store, sandbox);
    print(&format!(
        "
leadloop is running, with a stand-in for Meta. Nothing leaves this machine.

  API and webhook    {url}      documentation: {url}/docs
  Stand-in for Meta  {sandbox}      what would have reached Meta
  API key            {api_key}
  Store              {store}

Try this in another terminal:

  1. Send a lead, as Meta would

     LEAD=$({program} trigger --url {url}/webhooks/meta)

  2. Report that it reached a stage, as a CRM would

     curl -s {url}/v1/stage-updates -H \"Authorization: Bearer {api_key}\" \\
       -d '{{\"lead_id\":\"'$LEAD'\",\"stage\":\"qualified\"}}'

  3. See what became of it

     curl -s {url}/v1/leads/$LEAD -H \"Authorization: Bearer {api_key}\"

Ctrl-C stops it.
"
    ))
}
