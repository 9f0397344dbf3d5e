//! The store that the settings name, opened.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cli::exit::{Exit, Failure};
use crate::clock::Random;
use crate::config::StoreAddress;
use crate::store::postgres::PostgresStore;
use crate::store::redb::RedbStore;
use crate::store::{Purpose, Store};

/// A store of either kind.
pub(super) enum OpenStore {
    /// In a file.
    File(Arc<RedbStore>),
    /// On a database.
    Database(Arc<PostgresStore>),
}

impl OpenStore {
    /// Opens a store.
    pub(super) async fn open(
        address: &StoreAddress,
        purpose: Purpose,
        random: &dyn Random,
    ) -> Result<Self, Failure> {
        let opened = match address {
            StoreAddress::File(path) => {
                RedbStore::open(path, purpose).map(Arc::new).map(Self::File)
            }
            StoreAddress::Database(url) => {
                let opened = PostgresStore::open(url, purpose, random.next_u64()).await;
                opened.map(Arc::new).map(Self::Database)
            }
        };
        opened.map_err(|error| {
            let shown = address.shown();
            Failure::new(Exit::Failure, format!("LEADLOOP_STORE: {shown}: {error}"))
        })
    }

    /// The store for whoever works with it.
    pub(super) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::File(store) => store.clone(),
            Self::Database(store) => store.clone(),
        }
    }

    /// Cancelled when nothing can be written any more until the next start.
    pub(super) fn died(&self) -> CancellationToken {
        match self {
            Self::File(store) => store.died(),
            Self::Database(store) => store.died(),
        }
    }

    /// Ends the work with it. A file is closed when the last who holds the store lets go.
    pub(super) async fn close(self) {
        if let Self::Database(store) = self {
            store.close().await;
        }
    }
}
