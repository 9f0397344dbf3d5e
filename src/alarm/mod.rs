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
use crate::store::query::{LeadFilter, PageRequest};
use crate::store::{Store, StoreError};

/// When a delivery of the webhook was last verified; clones are the same.
#[derive(Clone, Debug)]
pub struct LastHeard(Arc<AtomicI64>);

impl LastHeard {
    /// What is known of it at the start: when the newest lead came, or else now.
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn at_start(store: &dyn Store, now: Timestamp) -> Result<Self, StoreError> {
        let newest = PageRequest { cursor: None, limit: 1 };
        let page = store.list_leads(LeadFilter::default(), newest, now).await?;
        let heard = page.items.first().map_or(now, |newest| newest.lead.received_at);
        Ok(Self(Arc::new(AtomicI64::new(heard.as_millis()))))
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
