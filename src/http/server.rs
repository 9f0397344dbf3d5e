//! The accept loop: HTTP/1 connections with a bound on everything a client can hold open.
//!
//! A plain `axum::serve` waits for ever for headers, for the next request and for the rest of a
//! body, so a few thousand silent connections would lock everybody out. Here each of these waits
//! ends, and the number of connections is bounded. TLS and HTTP/2 are the proxy's business.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::limits::{
    ACCEPT_RETRY, BODY_BUDGET_BYTES, BODY_TIMEOUT, CONNECTIONS_MAX, HEAD_TIMEOUT, HEADER_BYTES_MAX,
    HEADERS_MAX, IDLE_TIMEOUT, SHUTDOWN_GRACE, WRITE_TIMEOUT,
};

/// How long a client may keep us waiting, and how many may.
#[derive(Clone, Copy, Debug)]
pub struct DoorLimits {
    /// For the head of the first request on a connection.
    pub head_timeout: Duration,
    /// For the head of each further request.
    pub idle_timeout: Duration,
    /// For the whole body of a request.
    pub body_timeout: Duration,
    /// For all bodies together that are being read, beyond what is each one's own, in bytes.
    pub body_budget_bytes: usize,
    /// For a client to take some of its answer.
    pub write_timeout: Duration,
    /// Open connections; further ones wait to be accepted.
    pub connections_max: usize,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            head_timeout: HEAD_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            body_timeout: BODY_TIMEOUT,
            body_budget_bytes: BODY_BUDGET_BYTES,
            write_timeout: WRITE_TIMEOUT,
            connections_max: CONNECTIONS_MAX,
        }
    }
}

/// Serves until `stop` is cancelled, then lets requests that are under way end, within a bound.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: DoorLimits,
    stop: CancellationToken,
) {
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let graceful = GracefulShutdown::new();
    while let Some((stream, permit)) = accept(&listener, &connections, &stop).await {
        tokio::spawn(serve_connection(stream, router.clone(), limits, graceful.watcher(), permit));
    }
    drop(listener);
    if tokio::time::timeout(SHUTDOWN_GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
}

/// The next connection, with its place among those that may be open; `None` when it is over.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        let permit = connections.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, permit)),
                // Out of file descriptors, say: waiting a little is all that helps.
                Err(error) => {
                    tracing::error!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    };
    tokio::select! {
        next = next => next,
        () = stop.cancelled() => None,
    }
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    limits: DoorLimits,
    watcher: Watcher,
    _permit: OwnedSemaphorePermit,
) {
    // A small answer must not wait for a larger packet.
    let _ = stream.set_nodelay(true);
    // hyper bounds how long it waits for a client to send, and not for one to take its answer.
    let mut stream = Box::pin(TimeoutStream::new(stream));
    stream.as_mut().set_write_timeout_pinned(Some(limits.write_timeout));
    let asked = CancellationToken::new();
    let first_head = asked.clone();
    let router = router.map_request(move |request| {
        first_head.cancel();
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        // Who sends no more after a request gets its answer all the same.
        .half_close(true)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEADER_BYTES_MAX)
        // Else a connection may keep 400 KiB of what it was not asked for yet.
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let connection = watcher.watch(connection);
    let silent = async {
        if tokio::time::timeout(limits.head_timeout, asked.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // What goes wrong on a connection is the client's affair: it hung up, or sent no HTTP.
        _ = connection => {}
        () = silent => {}
    }
}
