//! Alarms out: telling somebody outside, by signed webhooks, what should not go unnoticed.
//!
//! What happens to events and pieces raises its alarm in the store, in its own transaction; the
//! [`watch`]er raises those about conditions, such as a pause. The [`sender`] is the only one that
//! talks to the receiver: it looks into the store every few seconds and sends what waits, at least
//! once. Nobody wakes it and it wakes nobody, so a receiver that hangs costs nobody else anything.

pub mod message;
pub mod post;
pub mod sender;
mod signature;
pub mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::domain::time::Timestamp;
use crate::store::Store;
use crate::store::query::{LeadFilter, PageRequest};

/// When a delivery of the webhook was last verified; clones are the same.
#[derive(Clone, Debug)]
pub struct LastHeard(Arc<AtomicI64>);

impl LastHeard {
    /// It is as if one came now.
    pub fn now(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.as_millis())))
    }

    /// What is known of it at the start: when the newest lead came, or else now. A store that can't
    /// tell is no reason not to start.
    pub async fn at_start(store: &dyn Store, now: Timestamp) -> Self {
        let newest = PageRequest { cursor: None, limit: 1 };
        let page = store.list_leads(LeadFilter::default(), newest, now).await;
        let page = page.inspect_err(|error| {
            tracing::error!(%error, "the newest lead cannot be read; silence counts from now");
        });
        let newest = page.ok().and_then(|page| page.items.into_iter().next());
        Self::now(newest.map_or(now, |newest| newest.lead.received_at))
    }

    /// Notes a delivery.
    pub fn note(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::Relaxed);
    }

    /// When that was.
    pub fn get(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::UnixSeconds;
    use crate::store::StoreError;
    use crate::store::redb::tests::database_in;
    use crate::store::redb::{Purpose, RedbStore};

    #[tokio::test]
    async fn a_newest_lead_that_cannot_be_read_is_no_reason_not_to_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        drop(RedbStore::open(&path, Purpose::Live).unwrap());
        add_unreadable_lead(&path);
        let store = RedbStore::open(&path, Purpose::Live).unwrap();
        let now = UnixSeconds::new(1_762_000_000).timestamp();
        let newest = PageRequest { cursor: None, limit: 1 };
        let leads = store.list_leads(LeadFilter::default(), newest, now).await;
        assert!(matches!(leads, Err(StoreError::Corrupt(_))), "{leads:?}");
        assert_eq!(LastHeard::at_start(&store, now).await.get(), now);
    }

    fn add_unreadable_lead(path: &std::path::Path) {
        let leads = redb::TableDefinition::<u64, &[u8]>::new("leads");
        let database = database_in(path);
        let writing = database.begin_write().unwrap();
        writing.open_table(leads).unwrap().insert(1, [u8::MAX].as_slice()).unwrap();
        writing.commit().unwrap();
    }
}
