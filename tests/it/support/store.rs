//! A store that fails when it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use leadloop::domain::alarm::{Alarm, AlarmKey, Alarms, Cause, Kept};
use leadloop::domain::customer::Customer;
use leadloop::domain::event::{EventDetail, LeadDetail, LeadSummary, StageUpdate};
use leadloop::domain::ids::{DatasetId, EventId, FormId, LeadId};
use leadloop::domain::mark::FormMark;
use leadloop::domain::matching::CrmId;
use leadloop::domain::routing::Routing;
use leadloop::domain::stage::SourceName;
use leadloop::domain::time::{Timestamp, UnixSeconds};
use leadloop::store::memory::MemoryStore;
use leadloop::store::query::{DeadLetters, EventFilter, LeadFilter, Page, PageRequest};
use leadloop::store::{
    ApiKeyDigest, BackedUp, Batch, Erased, Ingested, Intake, Linked, Linking, NearDeadline,
    NumberedUnmapped, Quarantined, QueueEntry, Recorded, Removed, Requeued, RequeuedMany, SetAside,
    Settlement, Stats, Store, StoreError, Stranded, Unmapped, UpdateOutcome,
};
use tokio_util::sync::CancellationToken;

/// A store in memory with a switch.
#[derive(Default)]
pub struct FailingStore {
    inner: MemoryStore,
    fails: AtomicBool,
    fails_settling: AtomicBool,
    fails_counting: AtomicBool,
    failures: AtomicUsize,
}

impl FailingStore {
    /// From now on everything fails, or nothing does.
    pub fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    /// From now on no outcome of a delivery can be recorded, or every one can.
    pub fn fail_settling(&self, fails: bool) {
        self.fails_settling.store(fails, Ordering::SeqCst);
    }

    /// From now on nobody can count what is there, or everybody can.
    pub fn fail_counting(&self, fails: bool) {
        self.fails_counting.store(fails, Ordering::SeqCst);
    }

    /// How often something failed since the last call.
    pub fn take_failures(&self) -> usize {
        self.failures.swap(0, Ordering::SeqCst)
    }

    fn check(&self, method: &str) -> Result<(), StoreError> {
        let settling = method == "settle" && self.fails_settling.load(Ordering::SeqCst);
        let counting = method == "stats" && self.fails_counting.load(Ordering::SeqCst);
        if settling || counting || self.fails.load(Ordering::SeqCst) {
            self.failures.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::Unavailable("/var/disk is full".into()));
        }
        Ok(())
    }
}

/// Hands every method on, unless the store fails.
macro_rules! store {
    ($($name:ident($($argument:ident: $type:ty),* $(,)?) -> $out:ty;)*) => {
        #[async_trait]
        impl Store for FailingStore {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$out, StoreError> {
                self.check(stringify!($name))?;
                self.inner.$name($($argument),*).await
            })*
        }
    };
}

store! {
    ingest(intake: Intake, now: Timestamp) -> Ingested;
    record_stage_updates(updates: Vec<StageUpdate>, routing: &Routing, now: Timestamp) -> Recorded;
    judge_stage_updates(
        updates: Vec<StageUpdate>,
        routing: &Routing,
        now: Timestamp,
    ) -> Vec<UpdateOutcome>;
    link_crm_id(
        source: SourceName,
        crm_id: CrmId,
        lead_id: LeadId,
        now: Timestamp,
    ) -> Linking;
    add_customer(lead_id: LeadId, customer: Customer, now: Timestamp) -> Linked;
    next_batch(
        dataset_id: DatasetId,
        now: Timestamp,
        limit: usize,
        kept_back: &BTreeSet<LeadId>,
    ) -> Batch;
    still_queued(
        dataset_id: DatasetId,
        entries: BTreeSet<QueueEntry>,
    ) -> BTreeSet<QueueEntry>;
    settle(settlement: Settlement) -> ();
    requeue(event_id: EventId, routing: &Routing, now: Timestamp) -> Requeued;
    erase_lead(lead_id: LeadId, now: Timestamp) -> Option<Erased>;
    remove_old(before: Timestamp, from: u64) -> Removed;
    requeue_many(
        letters: DeadLetters,
        dry_run: bool,
        routing: &Routing,
        now: Timestamp,
    ) -> RequeuedMany;
    route_held(routing: &Routing) -> u64;
    awaited_leads(after: Option<LeadId>, limit: usize) -> Vec<LeadId>;
    expire_stranded(now: Timestamp) -> Stranded;
    form_mark(form_id: FormId) -> FormMark;
    set_form_mark(form_id: FormId, mark: FormMark) -> ();
    find_lead(lead_id: LeadId) -> Option<LeadDetail>;
    find_event(event_id: EventId) -> Option<EventDetail>;
    list_leads(filter: LeadFilter, page: PageRequest, now: Timestamp) -> Page<LeadSummary>;
    list_events(filter: EventFilter, page: PageRequest, now: Timestamp) -> Page<EventDetail>;
    list_quarantine(page: PageRequest) -> Page<Quarantined>;
    set_aside(unmapped: Vec<Unmapped>) -> Vec<SetAside>;
    list_unmapped(source: Option<SourceName>, page: PageRequest) -> Page<NumberedUnmapped>;
    end_unmapped(seq: u64) -> bool;
    remove_unmapped(before: Timestamp, now: Timestamp) -> BTreeMap<SourceName, u64>;
    api_keys() -> Vec<ApiKeyDigest>;
    add_api_key(digest: ApiKeyDigest) -> ();
    stats() -> Stats;
    fronts() -> Vec<(Option<DatasetId>, UnixSeconds)>;
    near_deadline(before: UnixSeconds) -> Vec<NearDeadline>;
    keep_alarms(kept: Kept) -> ();
    raise_alarm(cause: Cause, now: Timestamp) -> ();
    alarms() -> Alarms;
    begin_alarm_try(key: &AlarmKey, next_try_at: Timestamp) -> Option<Alarm>;
    end_alarm(key: &AlarmKey) -> ();
    probe() -> ();
    back_up(now: Timestamp, stop: &CancellationToken) -> BackedUp;
}
