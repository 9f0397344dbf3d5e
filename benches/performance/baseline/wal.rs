//! The physical floor: a log that one thread appends to, with group commit.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use axum::body::Bytes;
use leadloop::limits::{COMMIT_GROUP_MAX, WRITE_QUEUE_MAX};
use tokio::sync::oneshot;

/// A body to append, and whom to tell.
type Append = (Bytes, oneshot::Sender<()>);

/// A handle on the log.
#[derive(Clone)]
pub(super) struct Log(SyncSender<Append>);

impl Log {
    /// Begins a log, and starts its thread.
    pub(super) fn create(path: &Path) -> std::io::Result<Self> {
        let file = File::create(path)?;
        let (sender, receiver) = sync_channel(WRITE_QUEUE_MAX);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write(file, &receiver))?;
        Ok(Self(sender))
    }

    /// Appends, and answers whether it is on disk.
    pub(super) async fn append(&self, body: Bytes) -> bool {
        let (done, flushed) = oneshot::channel();
        self.0.try_send((body, done)).is_ok() && flushed.await.is_ok()
    }
}

/// Writes what gathered meanwhile at once, flushes, and tells everybody.
fn write(mut file: File, appends: &Receiver<Append>) {
    let (mut bytes, mut waiting) = (Vec::new(), Vec::new());
    while let Ok(first) = appends.recv() {
        for (body, done) in std::iter::once(first).chain(appends.try_iter()).take(COMMIT_GROUP_MAX)
        {
            let length = u32::try_from(body.len()).expect("a body is bounded");
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&body);
            waiting.push(done);
        }
        if file.write_all(&bytes).and_then(|()| file.sync_data()).is_err() {
            // Everybody who waits is told by the channel's end.
            return;
        }
        bytes.clear();
        for done in waiting.drain(..) {
            // Who hung up needs no answer.
            let _ = done.send(());
        }
    }
}
