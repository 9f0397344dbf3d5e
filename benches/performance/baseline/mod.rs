//! Servers to compare with, each a part of what leadloop does.
//!
//! They run on the runtime, the accept loop and the limits of leadloop's own door, as processes of
//! their own, so that what is compared is what they leave out and nothing else.

pub(crate) mod sink;
mod wal;

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use leadloop::http::server::{DoorLimits, serve};
use leadloop::meta::signature::{SIGNATURE_HEADER, SignatureVerifier};
use leadloop::meta::webhook::read_webhook;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::rig::APP_SECRET;

/// Where a look-up of the route that does nothing is.
pub(crate) const NO_OP_LOOK_UP: &str = "/no-op";
/// Where one is that answers with a fixed text, about as long as the answer to a look-up.
pub(crate) const FIXED_LOOK_UP: &str = "/fixed";
const FIXED: [u8; 1_000] = [b'1'; 1_000];
/// Where Meta's webhook is.
const WEBHOOK: &str = "/webhooks/meta";

/// Which server to be.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Baseline {
    /// Reads the body and answers 200
    #[command(name = "serve-noop", hide = true)]
    Noop {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// The same, and checks the signature and reads the leads
    #[command(name = "serve-verify", hide = true)]
    Verify {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// The same, and appends the body to a log and flushes it
    #[command(name = "serve-wal", hide = true)]
    Wal {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        log: PathBuf,
    },
    /// Takes events as the Conversions API does, and counts them
    #[command(name = "serve-sink", hide = true)]
    Sink {
        #[arg(long)]
        listen: SocketAddr,
    },
}

impl Baseline {
    /// Serves until the process is ended.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let (listen, router) = match self {
            Self::Noop { listen } => (listen, no_op()),
            Self::Verify { listen } => (listen, verify()),
            Self::Wal { listen, log } => (listen, logging(&log)?),
            Self::Sink { listen } => (listen, sink::Sink::default().router()),
        };
        // As many as leadloop has.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(cores.saturating_sub(1).max(1))
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind(listen).await?;
            serve(listener, router, DoorLimits::default(), CancellationToken::new()).await;
            Ok(())
        })
    }
}

fn no_op() -> Router {
    Router::new()
        .route(WEBHOOK, post(|_: Bytes| async { StatusCode::OK }))
        .route(NO_OP_LOOK_UP, get(|| async { StatusCode::OK }))
        .route(FIXED_LOOK_UP, get(|| async { ([(CONTENT_TYPE, "application/json")], FIXED) }))
}

fn verify() -> Router {
    let verifier = SignatureVerifier::new(&[APP_SECRET.into()]);
    let route = post(async |State(verifier): State<_>, headers: HeaderMap, body: Bytes| {
        judge(&verifier, &headers, &body)
    });
    Router::new().route(WEBHOOK, route).with_state(verifier)
}

fn logging(path: &std::path::Path) -> anyhow::Result<Router> {
    let verifier = SignatureVerifier::new(&[APP_SECRET.into()]);
    let log = wal::Log::create(path)?;
    let route =
        post(
            async |State((verifier, log)): State<(_, wal::Log)>, headers, body: Bytes| match judge(
                &verifier, &headers, &body,
            ) {
                StatusCode::OK if log.append(body).await => StatusCode::OK,
                StatusCode::OK => StatusCode::SERVICE_UNAVAILABLE,
                refused => refused,
            },
        );
    Ok(Router::new().route(WEBHOOK, route).with_state((verifier, log)))
}

/// Checks the signature and reads the leads.
fn judge(verifier: &SignatureVerifier, headers: &HeaderMap, body: &[u8]) -> StatusCode {
    let signature = headers.get(SIGNATURE_HEADER).map_or(&b""[..], |header| header.as_bytes());
    if !verifier.verify(signature, body) {
        return StatusCode::UNAUTHORIZED;
    }
    let content = black_box(read_webhook(body));
    if content.leads.is_empty() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK }
}
