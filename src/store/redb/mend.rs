//! Mending what a failed database left, on a thread of its own.
//!
//! It takes as long as the file is large, and the writer has to answer its callers meanwhile. It
//! does not decide when a database has failed, and does not open it again.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use redb::Database;
use tokio::time::Instant;

use crate::limits::{STORE_MEND_PAUSE, STORE_MEND_WAIT};
use crate::store::redb::Volume;

/// Mends a volume, once at a time.
pub(super) struct Mender {
    volume: Arc<dyn Volume>,
    state: State,
}

enum State {
    Idle,
    Running(Receiver<io::Result<()>>),
    /// The last one failed; it wrote much for nothing, so the next one waits.
    Pausing(Instant),
}

impl Mender {
    /// Nothing is to be mended yet.
    pub(super) fn new(volume: Arc<dyn Volume>) -> Self {
        Self { volume, state: State::Idle }
    }

    /// Whether the volume has been mended and the database can be opened again. Begins to mend if
    /// nobody does and the disk takes writes, and waits a little for a small file.
    pub(super) fn is_mended(&mut self, failed: Option<&Arc<Database>>) -> bool {
        let ended = match &self.state {
            State::Pausing(until) if Instant::now() < *until => return false,
            State::Running(result) => ended(result, Duration::ZERO),
            State::Idle | State::Pausing(_) => {
                if !self.volume.is_writable() {
                    return false;
                }
                self.begin(failed.cloned())
            }
        };
        let Some(ended) = ended else { return false };
        if let Err(error) = &ended {
            tracing::error!(%error, "store could not be written again");
            self.state = State::Pausing(Instant::now() + STORE_MEND_PAUSE);
        } else {
            self.state = State::Idle;
        }
        ended.is_ok()
    }

    /// Starts the thread. It keeps the failed database open: if we close the store meanwhile,
    /// nobody else may open the file before the last write to it.
    fn begin(&mut self, failed: Option<Arc<Database>>) -> Option<io::Result<()>> {
        let volume = self.volume.clone();
        let (reply, result) = sync_channel(1);
        let mending = move || {
            let mended = volume.mend();
            // Before we tell, because the database can't be opened twice.
            drop(failed);
            // The store may have been closed meanwhile.
            let _ = reply.send(mended);
        };
        if let Err(error) = std::thread::Builder::new().name("store-mender".into()).spawn(mending) {
            return Some(Err(error));
        }
        let ended = ended(&result, STORE_MEND_WAIT);
        self.state = State::Running(result);
        ended
    }
}

/// How the mending ended, if it did within this time.
fn ended(result: &Receiver<io::Result<()>>, wait: Duration) -> Option<io::Result<()>> {
    match result.recv_timeout(wait) {
        Ok(mended) => Some(mended),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(Err(io::Error::other("it panicked"))),
    }
}
