//! A copy of the whole store, made while it is in use, for whoever has the admin key.
//!
//! The copy is finished and proven before the answer begins, so that its status, length and digest
//! are true. That may take minutes: this is the one answer that a client waits longer for than
//! `REQUEST_TIMEOUT`. A server that stops ends the copying. A client that hangs up does not: that
//! is noticed when the first byte is written, so the copy is made to its end, and let go then.

use std::io::{self, Read};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::http::error::{ApiError, Code};
use crate::http::extract::Admin;
use crate::http::state::AppState;
use crate::limits::{BACKUP_TIMEOUT, COPY_CHUNK_BYTES};
use crate::store::{BackedUp, StoreCopy};

/// Where a backup is asked for.
pub(super) const PATH: &str = "/v1/backup";
/// The header with the SHA-256 of the copy, in hexadecimal.
pub const DIGEST_HEADER: &str = "leadloop-sha256";

/// A file that a server can use as its store.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "it describes the body of the answer")]
struct StoreFile(Vec<u8>);

/// A consistent copy of the store, with everything that was answered before the request.
///
/// `leadloop backup` asks for it, checks the digest and opens the copy before it keeps it.
#[utoipa::path(
    post,
    path = "/v1/backup",
    tag = "backup",
    responses(
        (
            status = 200,
            description = "The copy",
            body = StoreFile,
            content_type = "application/octet-stream",
            headers(("leadloop-sha256" = String, description = "SHA-256 of the body, in hex")),
        ),
        (status = 409, description = "backup_running"),
        (status = 501, description = "backup_not_supported"),
        (status = 507, description = "backup_no_room"),
    ),
    security(("api_key" = [])),
)]
pub async fn make_backup(_: Admin, State(state): State<AppState>) -> Result<Response, ApiError> {
    let started = Instant::now();
    let backed_up = tokio::select! {
        backed_up = state.store.back_up(state.clock.now(), &state.stop) => backed_up?,
        () = state.stop.cancelled() => return Err(ApiError::plain(Code::StoreUnavailable)),
    };
    let copy = match backed_up {
        BackedUp::Done(copy) => copy,
        BackedUp::Running => return Err(ApiError::plain(Code::BackupRunning)),
        BackedUp::NoRoom => {
            tracing::error!("a backup would leave too little room on the disk");
            return Err(ApiError::plain(Code::BackupNoRoom));
        }
        BackedUp::NotSupported => return Err(ApiError::plain(Code::BackupNotSupported)),
    };
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(bytes = copy.bytes, duration_ms, "a backup is made");
    let headers = [
        (CONTENT_TYPE.as_str(), "application/octet-stream".to_owned()),
        (CONTENT_LENGTH.as_str(), copy.bytes.to_string()),
        (DIGEST_HEADER, hex::encode(copy.sha256)),
    ];
    Ok((headers, Body::from_stream(chunks(copy, state.stop.clone()))).into_response())
}

/// The bytes of the copy, as fast as they are taken; not for ever, and not while stopping.
fn chunks(copy: StoreCopy, stop: CancellationToken) -> impl Stream<Item = io::Result<Bytes>> {
    let deadline = Instant::now() + BACKUP_TIMEOUT;
    stream::try_unfold(copy, move |copy| {
        let is_over = stop.is_cancelled() || Instant::now() > deadline;
        async move {
            if is_over {
                return Err(io::Error::other("stopped"));
            }
            tokio::task::spawn_blocking(|| next_chunk(copy)).await?
        }
    })
}

fn next_chunk(mut copy: StoreCopy) -> io::Result<Option<(Bytes, StoreCopy)>> {
    let mut chunk = vec![0; COPY_CHUNK_BYTES];
    let length = copy.file.read(&mut chunk)?;
    chunk.truncate(length);
    Ok((length > 0).then(|| (Bytes::from(chunk), copy)))
}
