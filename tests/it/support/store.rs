//! A store that fails when it is told to.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use leadloop::domain::event::{EventDetail, EventState, LeadDetail, StageUpdate};
use leadloop::domain::ids::{DatasetId, EventId, LeadId};
use leadloop::domain::routing::Routing;
use leadloop::domain::time::Timestamp;
use leadloop::store::memory::MemoryStore;
use leadloop::store::query::{LeadFilter, Page, PageRequest};
use leadloop::store::{
    ApiKeyDigest, Batch, Ingested, Intake, Quarantined, Recorded, Requeued, Settlement, Stats,
    Store, StoreError, Stranded,
};

/// A store in memory with a switch.
#[derive(Default)]
pub struct FailingStore {
    inner: MemoryStore,
    fails: AtomicBool,
}

impl FailingStore {
    /// From now on everything fails, or nothing does.
    pub fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }
}

/// Hands every method on, unless the store fails.
macro_rules! store {
    ($($name:ident($($argument:ident: $type:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl Store for FailingStore {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$out, StoreError> {
                if self.fails.load(Ordering::SeqCst) {
                    return Err(StoreError::Unavailable("/var/disk is full".into()));
                }
                self.inner.$name($($argument),*).await
            })*
        }
    };
}

store! {
    ingest(intake: Intake, now: Timestamp) -> Ingested;
    record_stage_updates(updates: Vec<StageUpdate>, routing: &Routing, now: Timestamp) -> Recorded;
    next_batch(dataset_id: DatasetId, now: Timestamp, limit: usize) -> Batch;
    settle(settlement: Settlement) -> ();
    requeue(event_id: EventId, now: Timestamp) -> Requeued;
    route_held(routing: &Routing) -> u64;
    expire_stranded(now: Timestamp) -> Stranded;
    find_lead(lead_id: LeadId) -> Option<LeadDetail>;
    find_event(event_id: EventId) -> Option<EventDetail>;
    list_leads(filter: LeadFilter, page: PageRequest, now: Timestamp) -> Page<LeadDetail>;
    list_events(state: Option<EventState>, page: PageRequest, now: Timestamp) -> Page<EventDetail>;
    list_quarantine(page: PageRequest) -> Page<Quarantined>;
    api_keys() -> Vec<ApiKeyDigest>;
    add_api_key(digest: ApiKeyDigest) -> ();
    stats() -> Stats;
    probe() -> ();
}
