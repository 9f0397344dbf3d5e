//! The store on PostgreSQL, for several instances on one database.
//!
//! What a use case does is decided once, in the maps of the model's `State`. Here it is done on a
//! part of the database: `load` reads what the use case is about, `rows` turns that into maps and
//! back, `save` writes the difference, all in one serializable transaction that is done again if
//! another one was in its way. So there is no lock to think of, and no rule to write twice.

mod alarms;
mod connect;
mod error;
mod facts;
mod instance;
mod leases;
mod list;
mod load;
mod migrate;
mod open;
mod queue;
mod rows;
mod save;
mod session;
mod store;
mod sweep;
#[cfg(test)]
pub(in crate::store) mod tests;
mod transfer;
mod tries;
mod unmapped;
mod upkeep;
mod writer;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::limits::{DB_PROBE_EVERY, DB_PROBE_TIMEOUT};
use crate::store::StoreError;
use crate::store::postgres::leases::Leases;
use crate::store::postgres::load::Seeds;
use crate::store::postgres::session::Database;
pub(in crate::store) use crate::store::postgres::transfer::{DatabaseSource, DatabaseTarget};
use crate::store::postgres::writer::Writer;

/// A store on a PostgreSQL database.
pub struct PostgresStore {
    database: Database,
    writer: Writer,
    leases: Leases,
    /// When it was last tried to write, and how that went.
    probed: Mutex<Option<(Instant, Result<(), StoreError>)>>,
    /// Ends what is done in the background, when this is dropped.
    _stop: DropGuard,
}

impl PostgresStore {
    /// Cancelled when nothing can be written any more: the writer's task panicked.
    pub fn died(&self) -> CancellationToken {
        self.writer.died()
    }

    /// Lets other instances take over at once what this one does.
    pub async fn close(&self) {
        self.leases.give_up().await;
    }

    /// Whether something can be made durable by the writer, as everything is. However many ask, it
    /// is tried once a second.
    async fn probe_writer(&self) -> Result<(), StoreError> {
        let mut probed = self.probed.lock().await;
        if let Some((at, result)) = &*probed
            && at.elapsed() < DB_PROBE_EVERY
        {
            return result.clone();
        }
        let silent = |_| StoreError::Unavailable("nothing was written in time".into());
        let nothing = self.writer.submit(Seeds::default(), |_| ());
        let result = timeout(DB_PROBE_TIMEOUT, nothing).await.map_err(silent).flatten();
        *probed = Some((Instant::now(), result.clone()));
        result
    }
}
