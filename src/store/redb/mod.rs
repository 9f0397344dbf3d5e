//! The embedded store: one redb file, one writer thread, any number of readers.
//!
//! Writes go through the writer, which commits what gathered together: to a log, and later to the
//! database behind it. Reads run on snapshots, long ones on the runtime's blocking threads. The
//! file belongs to one process at a time.

mod alarms;
mod base;
mod change_buffer;
mod copy;
mod engine;
mod error;
mod export;
mod file;
mod import;
mod ingest;
mod layout;
mod list;
mod marks;
mod matching;
mod overlay;
mod proof;
mod queue;
mod read;
mod recent;
mod remove;
mod requeue;
mod rows;
mod snapshot;
mod tables;
#[cfg(test)]
pub(crate) mod tests;
mod unmapped;
mod updates;
mod upkeep;
mod volume;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;
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
pub use crate::store::Purpose;
use crate::store::query::{DeadLetters, EventFilter, LeadFilter, Page, PageRequest};
pub use crate::store::redb::base::Lag;
pub use crate::store::redb::copy::{Copied, check_room, copy_file};
use crate::store::redb::engine::Shared;
pub(in crate::store) use crate::store::redb::export::FileSource;
pub use crate::store::redb::file::Medium;
pub(in crate::store) use crate::store::redb::import::{FileTarget, WrittenFile};
pub use crate::store::redb::proof::{Contents, prove_file};
use crate::store::redb::tables::Tables;
pub use crate::store::redb::upkeep::{Compacted, Restored, compact, publish, restore};
use crate::store::redb::volume::{FileVolume, folder_of};
pub use crate::store::redb::volume::{Merging, Opening, Volume, fresh_file, private_file};
use crate::store::redb::writer::{Unit, Writer};
use crate::store::{
    ApiKeyDigest, BackedUp, Batch, Erased, Ingested, Intake, Linked, Linking, NearDeadline,
    NumberedUnmapped, Quarantined, QueueEntry, Recorded, Removed, Requeued, RequeuedMany, SetAside,
    Settlement, Stats, Store, StoreError, Stranded, Unmapped, UpdateOutcome,
};

/// A store in one file.
pub struct RedbStore {
    writer: Writer,
    shared: Shared,
    /// Where copies lie until they are taken away.
    folder: PathBuf,
    /// Whose turn it is to make a copy; there is one turn.
    turns: Arc<Semaphore>,
}

impl RedbStore {
    /// Opens the file, or makes it, readable and writable for its owner only.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`] if the file is in use, for another purpose or no store of this
    /// program's; [`StoreError::Unavailable`] if it can't be read or written.
    pub fn open(path: &Path, purpose: Purpose) -> Result<Self, StoreError> {
        let store = Self::open_on(purpose, FileVolume { path: path.to_owned(), purpose })?;
        Ok(Self { folder: folder_of(path).to_owned(), ..store })
    }

    /// Opens what lies on a volume, now and after every failure; for tests that put faults below.
    pub fn open_on(purpose: Purpose, volume: impl Volume) -> Result<Self, StoreError> {
        let (writer, shared) = Writer::start(purpose, Arc::new(volume))?;
        let (folder, turns) = (std::env::temp_dir(), Arc::new(Semaphore::new(1)));
        Ok(Self { writer, shared, folder, turns })
    }

    /// Cancelled when the store can't heal itself: its thread panicked. The process should end
    /// then, since opening the file again repairs it.
    pub fn died(&self) -> CancellationToken {
        self.writer.died()
    }

    /// Reads a few rows where it is asked: going to another thread takes longer than that.
    fn look<T>(
        &self,
        reading: impl FnOnce(&Tables<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.shared.seen(reading(&self.shared.get()?.begin().tables()))
    }

    /// Reads any number of rows, on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        reading: impl FnOnce(&Tables<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let snapshot = self.shared.get()?;
        let task = tokio::task::spawn_blocking(move || reading(&snapshot.begin().tables()));
        self.shared.seen(task.await.map_err(|error| StoreError::Unavailable(error.to_string()))?)
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn ingest(&self, intake: Intake, now: Timestamp) -> Result<Ingested, StoreError> {
        self.writer
            .submit_about(intake.weight(), move |unit| ingest::ingest(unit, &intake, now))
            .await
    }

    async fn record_stage_updates(
        &self,
        updates: Vec<StageUpdate>,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Recorded, StoreError> {
        let (routing, weight) = (routing.clone(), updates.len());
        let work =
            move |unit: &mut Unit<'_>| updates::record_stage_updates(unit, &updates, &routing, now);
        self.writer.submit_about(weight, work).await
    }

    async fn judge_stage_updates(
        &self,
        updates: Vec<StageUpdate>,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Vec<UpdateOutcome>, StoreError> {
        let routing = routing.clone();
        self.read(move |tables| updates::judge_stage_updates(tables, &updates, &routing, now)).await
    }

    async fn link_crm_id(
        &self,
        source: SourceName,
        crm_id: CrmId,
        lead_id: LeadId,
        now: Timestamp,
    ) -> Result<Linking, StoreError> {
        let record = (source, crm_id);
        self.writer.submit(move |unit| matching::link_crm_id(unit, &record, lead_id, now)).await
    }

    async fn add_customer(
        &self,
        lead_id: LeadId,
        customer: Customer,
        now: Timestamp,
    ) -> Result<Linked, StoreError> {
        self.writer.submit(move |unit| matching::add_customer(unit, lead_id, &customer, now)).await
    }

    async fn next_batch(
        &self,
        dataset_id: DatasetId,
        now: Timestamp,
        limit: usize,
        kept_back: &BTreeSet<LeadId>,
    ) -> Result<Batch, StoreError> {
        let kept_back = kept_back.clone();
        self.read(move |tables| queue::next_batch(tables, dataset_id, now, limit, &kept_back)).await
    }

    async fn still_queued(
        &self,
        dataset_id: DatasetId,
        entries: BTreeSet<QueueEntry>,
    ) -> Result<BTreeSet<QueueEntry>, StoreError> {
        self.read(move |tables| queue::still_queued(tables, dataset_id, &entries)).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<(), StoreError> {
        self.writer.submit(move |unit| queue::settle(unit, &settlement)).await
    }

    async fn requeue(
        &self,
        event_id: EventId,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Requeued, StoreError> {
        let routing = routing.clone();
        self.writer.submit(move |unit| queue::requeue(unit, event_id, &routing, now)).await
    }

    async fn requeue_many(
        &self,
        letters: DeadLetters,
        dry_run: bool,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<RequeuedMany, StoreError> {
        if dry_run {
            return self.read(move |tables| requeue::rehearse(tables, &letters, now)).await;
        }
        let chosen = self.read(move |tables| requeue::choose(tables, &letters, now)).await?;
        let routing = routing.clone();
        self.writer.submit(move |unit| requeue::requeue_many(unit, &chosen, &routing, now)).await
    }

    async fn route_held(&self, routing: &Routing) -> Result<u64, StoreError> {
        let routing = routing.clone();
        self.writer.submit(move |unit| queue::route_held(unit, &routing)).await
    }

    async fn awaited_leads(
        &self,
        after: Option<LeadId>,
        limit: usize,
    ) -> Result<Vec<LeadId>, StoreError> {
        self.read(move |tables| list::awaited_leads(tables, after, limit)).await
    }

    async fn expire_stranded(&self, now: Timestamp) -> Result<Stranded, StoreError> {
        let overdue = self.read(move |tables| queue::find_overdue(tables, now)).await?;
        if overdue.is_empty() {
            return Ok(Stranded::default());
        }
        self.writer.submit(move |unit| queue::expire_stranded(unit, &overdue, now)).await
    }

    async fn form_mark(&self, form_id: FormId) -> Result<FormMark, StoreError> {
        self.read(move |tables| marks::find(tables, form_id)).await
    }

    async fn set_form_mark(&self, form_id: FormId, mark: FormMark) -> Result<(), StoreError> {
        self.writer.submit(move |unit| marks::set(unit, form_id, &mark)).await
    }

    async fn erase_lead(
        &self,
        lead_id: LeadId,
        now: Timestamp,
    ) -> Result<Option<Erased>, StoreError> {
        self.writer.submit(move |unit| remove::erase_lead(unit, lead_id, now)).await
    }

    async fn remove_old(&self, before: Timestamp, from: u64) -> Result<Removed, StoreError> {
        let old = self.read(move |tables| remove::find_old(tables, before, from)).await?;
        if old.is_empty() {
            return Ok(Removed { next: old.next, ..Removed::default() });
        }
        self.writer.submit(move |unit| remove::remove_old(unit, &old, before)).await
    }

    async fn find_lead(&self, lead_id: LeadId) -> Result<Option<LeadDetail>, StoreError> {
        self.look(|tables| read::lead_detail_by_id(tables, lead_id))
    }

    async fn find_event(&self, event_id: EventId) -> Result<Option<EventDetail>, StoreError> {
        self.look(|tables| read::event_detail_by_id(tables, event_id))
    }

    async fn list_leads(
        &self,
        filter: LeadFilter,
        page: PageRequest,
        now: Timestamp,
    ) -> Result<Page<LeadSummary>, StoreError> {
        self.read(move |tables| list::list_leads(tables, &filter, page, now)).await
    }

    async fn list_events(
        &self,
        filter: EventFilter,
        page: PageRequest,
        now: Timestamp,
    ) -> Result<Page<EventDetail>, StoreError> {
        self.read(move |tables| list::list_events(tables, &filter, page, now)).await
    }

    async fn list_quarantine(&self, page: PageRequest) -> Result<Page<Quarantined>, StoreError> {
        self.read(move |tables| list::list_quarantine(tables, page)).await
    }

    async fn set_aside(&self, unmapped: Vec<Unmapped>) -> Result<Vec<SetAside>, StoreError> {
        self.writer.submit(move |unit| unmapped::set_aside(unit, &unmapped)).await
    }

    async fn list_unmapped(
        &self,
        source: Option<SourceName>,
        page: PageRequest,
    ) -> Result<Page<NumberedUnmapped>, StoreError> {
        self.read(move |tables| unmapped::list(tables, source.as_ref(), page)).await
    }

    async fn end_unmapped(&self, seq: u64) -> Result<bool, StoreError> {
        self.writer.submit(move |unit| unmapped::end(unit, seq)).await
    }

    async fn remove_unmapped(
        &self,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<BTreeMap<SourceName, u64>, StoreError> {
        let old = self.read(move |tables| unmapped::find_old(tables, before)).await?;
        if old.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.writer.submit(move |unit| unmapped::remove(unit, &old, now)).await
    }

    async fn api_keys(&self) -> Result<Vec<ApiKeyDigest>, StoreError> {
        self.read(|tables| {
            let rows = tables.api_keys.all()?;
            rows.map(|row| Ok(*row?.0.value())).collect()
        })
        .await
    }

    async fn add_api_key(&self, digest: ApiKeyDigest) -> Result<(), StoreError> {
        let add = move |unit: &mut Unit<'_>| {
            unit.tables.api_keys.insert(&digest, ());
            Ok(())
        };
        self.writer.submit(add).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.read(list::stats).await
    }

    async fn near_deadline(&self, before: UnixSeconds) -> Result<Vec<NearDeadline>, StoreError> {
        self.read(move |tables| list::near_deadline(tables, before)).await
    }

    async fn keep_alarms(&self, kept: Kept) -> Result<(), StoreError> {
        self.writer.submit(move |unit| alarms::keep(unit, &kept)).await
    }

    async fn raise_alarm(&self, cause: Cause, now: Timestamp) -> Result<(), StoreError> {
        self.writer.submit(move |unit| alarms::raise(unit, [cause.clone()], now)).await
    }

    async fn alarms(&self) -> Result<Alarms, StoreError> {
        self.read(alarms::all).await
    }

    async fn begin_alarm_try(
        &self,
        key: &AlarmKey,
        next_try_at: Timestamp,
    ) -> Result<Option<Alarm>, StoreError> {
        let key = key.clone();
        self.writer.submit(move |unit| alarms::begin_try(unit, &key, next_try_at)).await
    }

    async fn end_alarm(&self, key: &AlarmKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.writer.submit(move |unit| alarms::end(unit, &key)).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.writer.submit(|_| Ok(())).await
    }

    async fn back_up(
        &self,
        now: Timestamp,
        stop: &CancellationToken,
    ) -> Result<BackedUp, StoreError> {
        let Ok(turn) = self.turns.clone().try_acquire_owned() else {
            return Ok(BackedUp::Running);
        };
        let stop = stop.child_token();
        // When this future is dropped the copying ends, too.
        let _ends_the_copying = stop.clone().drop_guard();
        let (shared, folder) = (self.shared.clone(), self.folder.clone());
        let task =
            tokio::task::spawn_blocking(move || copy::back_up(&shared, &folder, now, turn, stop));
        task.await.map_err(|error| StoreError::Unavailable(error.to_string()))?
    }
}
