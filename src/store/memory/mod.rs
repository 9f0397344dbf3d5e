//! The model: a store that keeps everything in maps and forgets it when it is dropped.
//!
//! It is meant to be obviously right, not fast. It passes the same suite as the durable stores,
//! and tests that need no disk run on it.

mod alarms;
pub(in crate::store) mod indexed;
mod ingest;
mod look_up;
mod queue;
mod requeue;
mod state;
mod unmapped;
mod updates;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::domain::alarm::{Alarm, AlarmKey, Alarms, Cause, Kept};
use crate::domain::customer::Customer;
use crate::domain::event::{EventDetail, LeadDetail, LeadSummary, StageUpdate};
use crate::domain::ids::{DatasetId, EventId, FormId, LeadId};
use crate::domain::mark::FormMark;
use crate::domain::matching::CrmId;
use crate::domain::routing::Routing;
use crate::domain::stage::SourceName;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::PAGE_SCAN_MAX;
pub(in crate::store) use crate::store::memory::alarms::AlarmState;
pub(in crate::store) use crate::store::memory::state::{Row, State};
use crate::store::query::{DeadLetters, EventFilter, LeadFilter, Page, PageBuilder, PageRequest};
use crate::store::{
    ApiKeyDigest, BackedUp, Batch, Erased, Ingested, Intake, Linked, Linking, NearDeadline,
    NumberedUnmapped, Quarantined, QueueEntry, Recorded, Removed, Requeued, RequeuedMany, SetAside,
    Settlement, Stats, Store, StoreError, Stranded, Unmapped, UpdateOutcome,
};

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<State>);

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.alarms.carry_out();
        state
    }
}

/// A page of the rows of a map, newest first.
pub(in crate::store) fn page_of<V, T>(
    rows: &BTreeMap<u64, V>,
    page: PageRequest,
    mut item: impl FnMut(u64, &V) -> Option<T>,
) -> Page<T> {
    let mut builder = PageBuilder::new(page, PAGE_SCAN_MAX);
    for (seq, row) in rows.range(..page.cursor.unwrap_or(u64::MAX)).rev() {
        if !builder.offer(*seq, item(*seq, row)) {
            break;
        }
    }
    builder.finish()
}

#[async_trait]
impl Store for MemoryStore {
    async fn ingest(&self, intake: Intake, now: Timestamp) -> Result<Ingested, StoreError> {
        Ok(self.state().ingest(intake, now))
    }

    async fn record_stage_updates(
        &self,
        updates: Vec<StageUpdate>,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Recorded, StoreError> {
        Ok(self.state().record_stage_updates(&updates, routing, now))
    }

    async fn judge_stage_updates(
        &self,
        updates: Vec<StageUpdate>,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Vec<UpdateOutcome>, StoreError> {
        let state = self.state();
        Ok(updates.iter().map(|update| state.judge_update(update, routing, now)).collect())
    }

    async fn link_crm_id(
        &self,
        source: SourceName,
        crm_id: CrmId,
        lead_id: LeadId,
        now: Timestamp,
    ) -> Result<Linking, StoreError> {
        Ok(self.state().link_crm_id(&source, &crm_id, lead_id, now))
    }

    async fn add_customer(
        &self,
        lead_id: LeadId,
        customer: Customer,
        now: Timestamp,
    ) -> Result<Linked, StoreError> {
        Ok(self.state().add_customer(lead_id, &customer, now))
    }

    async fn next_batch(
        &self,
        dataset_id: DatasetId,
        now: Timestamp,
        limit: usize,
        kept_back: &BTreeSet<LeadId>,
    ) -> Result<Batch, StoreError> {
        Ok(self.state().next_batch(dataset_id, now, limit, kept_back))
    }

    async fn still_queued(
        &self,
        dataset_id: DatasetId,
        mut entries: BTreeSet<QueueEntry>,
    ) -> Result<BTreeSet<QueueEntry>, StoreError> {
        let state = self.state();
        entries.retain(|entry| state.is_queued(dataset_id, *entry));
        Ok(entries)
    }

    async fn settle(&self, settlement: Settlement) -> Result<(), StoreError> {
        self.state().settle(settlement);
        Ok(())
    }

    async fn requeue(
        &self,
        event_id: EventId,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Requeued, StoreError> {
        Ok(self.state().requeue(event_id, routing, now))
    }

    async fn requeue_many(
        &self,
        letters: DeadLetters,
        dry_run: bool,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<RequeuedMany, StoreError> {
        Ok(self.state().requeue_many(&letters, dry_run, routing, now))
    }

    async fn route_held(&self, routing: &Routing) -> Result<u64, StoreError> {
        Ok(self.state().route_held(routing))
    }

    async fn awaited_leads(
        &self,
        after: Option<LeadId>,
        limit: usize,
    ) -> Result<Vec<LeadId>, StoreError> {
        Ok(self.state().awaited_leads(after, limit))
    }

    async fn expire_stranded(&self, now: Timestamp) -> Result<Stranded, StoreError> {
        Ok(self.state().expire_stranded(now))
    }

    async fn form_mark(&self, form_id: FormId) -> Result<FormMark, StoreError> {
        Ok(self.state().form_marks.get(&form_id).cloned().unwrap_or_default())
    }

    async fn set_form_mark(&self, form_id: FormId, mark: FormMark) -> Result<(), StoreError> {
        self.state().form_marks.insert(form_id, mark);
        Ok(())
    }

    async fn erase_lead(
        &self,
        lead_id: LeadId,
        now: Timestamp,
    ) -> Result<Option<Erased>, StoreError> {
        Ok(self.state().erase_lead(lead_id, now))
    }

    async fn remove_old(&self, before: Timestamp, _: u64) -> Result<Removed, StoreError> {
        Ok(self.state().remove_old(before))
    }

    async fn find_lead(&self, lead_id: LeadId) -> Result<Option<LeadDetail>, StoreError> {
        let state = self.state();
        Ok(state.lead(lead_id).map(|lead| state.lead_detail(lead)))
    }

    async fn find_event(&self, event_id: EventId) -> Result<Option<EventDetail>, StoreError> {
        let state = self.state();
        Ok(state.find_seq(event_id).map(|seq| state.detail(seq)))
    }

    async fn list_leads(
        &self,
        filter: LeadFilter,
        page: PageRequest,
        now: Timestamp,
    ) -> Result<Page<LeadSummary>, StoreError> {
        Ok(self.state().list_leads(&filter, page, now))
    }

    async fn list_events(
        &self,
        filter: EventFilter,
        page: PageRequest,
        now: Timestamp,
    ) -> Result<Page<EventDetail>, StoreError> {
        Ok(self.state().list_events(&filter, page, now))
    }

    async fn list_quarantine(&self, page: PageRequest) -> Result<Page<Quarantined>, StoreError> {
        Ok(page_of(&self.state().quarantine, page, |_, piece| Some(piece.clone())))
    }

    async fn set_aside(&self, unmapped: Vec<Unmapped>) -> Result<Vec<SetAside>, StoreError> {
        let mut state = self.state();
        Ok(unmapped.into_iter().map(|unmapped| state.set_aside(unmapped)).collect())
    }

    async fn list_unmapped(
        &self,
        source: Option<SourceName>,
        page: PageRequest,
    ) -> Result<Page<NumberedUnmapped>, StoreError> {
        Ok(unmapped::list(&self.state().unmapped, source.as_ref(), page))
    }

    async fn end_unmapped(&self, seq: u64) -> Result<bool, StoreError> {
        Ok(self.state().unmapped.remove(&seq).is_some())
    }

    async fn remove_unmapped(
        &self,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<BTreeMap<SourceName, u64>, StoreError> {
        Ok(self.state().remove_unmapped(before, now))
    }

    async fn api_keys(&self) -> Result<Vec<ApiKeyDigest>, StoreError> {
        Ok(self.state().api_keys.iter().copied().collect())
    }

    async fn add_api_key(&self, digest: ApiKeyDigest) -> Result<(), StoreError> {
        self.state().api_keys.insert(digest);
        Ok(())
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        Ok(self.state().stats())
    }

    async fn near_deadline(&self, before: UnixSeconds) -> Result<Vec<NearDeadline>, StoreError> {
        Ok(self.state().near_deadline(before))
    }

    async fn keep_alarms(&self, kept: Kept) -> Result<(), StoreError> {
        self.state().alarms.keep(&kept);
        Ok(())
    }

    async fn raise_alarm(&self, cause: Cause, now: Timestamp) -> Result<(), StoreError> {
        self.state().alarms.raise(cause, now);
        Ok(())
    }

    async fn alarms(&self) -> Result<Alarms, StoreError> {
        Ok(self.state().alarms.all())
    }

    async fn begin_alarm_try(
        &self,
        key: &AlarmKey,
        next_try_at: Timestamp,
    ) -> Result<Option<Alarm>, StoreError> {
        Ok(self.state().alarms.begin_try(key, next_try_at))
    }

    async fn end_alarm(&self, key: &AlarmKey) -> Result<(), StoreError> {
        self.state().alarms.end(key);
        Ok(())
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn back_up(&self, _: Timestamp, _: &CancellationToken) -> Result<BackedUp, StoreError> {
        Ok(BackedUp::NotSupported)
    }
}
