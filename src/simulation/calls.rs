//! The use cases of the store of a run: each is done to the real store and to the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::domain::alarm::{Alarm, AlarmKey, Alarms, Cause, Kept};
use crate::domain::customer::Customer;
use crate::domain::event::{
    DeadReason, EventDetail, EventState, LeadDetail, LeadSummary, StageUpdate, Standing,
};
use crate::domain::ids::{DatasetId, EventId, FormId, LeadId};
use crate::domain::mark::FormMark;
use crate::domain::matching::CrmId;
use crate::domain::routing::Routing;
use crate::domain::stage::SourceName;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::simulation::ledger::{WHOLE, told};
use crate::simulation::mirror::{MirrorStore, at_once};
use crate::store::memory::MemoryStore;
use crate::store::query::{DeadLetters, EventFilter, LeadFilter, Page, PageRequest};
use crate::store::{
    ApiKeyDigest, BackedUp, Batch, Erased, Ingested, Intake, Linked, Linking, NearDeadline,
    NumberedUnmapped, Quarantined, QueueEntry, Recorded, Removed, Requeued, RequeuedMany, SetAside,
    Settlement, Stats, Store, StoreError, Stranded, Unmapped, UpdateOutcome,
};

/// Does a use case that writes to both; the model gets copies of these arguments.
macro_rules! write {
    ($self:ident.$method:ident($($call:tt)*), copies of $($argument:ident),*) => {{
        let model = {
            $(let $argument = $argument.clone();)*
            move |model: Arc<MemoryStore>| -> BoxFuture<'static, _> {
                Box::pin(async move { model.$method($($call)*).await })
            }
        };
        $self.write(stringify!($method), $self.real.$method($($call)*), model).await
    }};
}

/// Asks both.
macro_rules! read {
    ($self:ident.$method:ident($($argument:expr),*)) => {{
        let (real, model) =
            ($self.real.$method($($argument),*), $self.model.$method($($argument),*));
        $self.read(stringify!($method), real, model).await
    }};
}

impl MirrorStore {
    /// Notes which dead letters are queued again by what is done.
    async fn requeuing<T>(&self, work: impl Future<Output = T>) -> T {
        let dead = || {
            let filter = EventFilter::in_state(Some(EventState::Dead));
            let dead = told(self.model.list_events(filter, WHOLE, self.clock.truth())).items;
            dead.iter().map(|detail| detail.event.id()).collect::<BTreeSet<EventId>>()
        };
        let before = dead();
        let done = work.await;
        let after = dead();
        let mut pages = self.ledger.open();
        before.difference(&after).for_each(|id| pages.requeue(*id, self.clock.truth()));
        done
    }

    /// The events without a dataset that have expired at this time.
    fn expired_without_dataset(&self, now: Timestamp) -> Vec<EventId> {
        let filter = EventFilter::in_state(Some(EventState::Dead));
        let dead = told(self.model.list_events(filter, WHOLE, now)).items;
        let expired = Standing::Dead { reason: DeadReason::Expired, at: now };
        let expired = dead.iter().filter(|it| it.standing == expired && it.dataset_id.is_none());
        expired.map(|detail| detail.event.id()).collect()
    }
}

/// The lead of an update's event, if it is known.
fn lead_of(outcome: &UpdateOutcome) -> Option<LeadId> {
    match outcome {
        UpdateOutcome::Accepted(judged) | UpdateOutcome::Known(judged) => {
            judged.detail.event.lead_id.metas()
        }
        UpdateOutcome::Refused(_) => None,
    }
}

#[async_trait]
impl Store for MirrorStore {
    async fn ingest(&self, intake: Intake, now: Timestamp) -> Result<Ingested, StoreError> {
        let leads: Vec<LeadId> = intake.leads.iter().map(|lead| lead.reported.lead_id).collect();
        let done = write!(self.ingest(intake, now), copies of intake, now);
        self.look_at_queues(leads);
        done
    }

    async fn record_stage_updates(
        &self,
        updates: Vec<StageUpdate>,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Recorded, StoreError> {
        let mut leads: Vec<LeadId> =
            updates.iter().filter_map(|update| update.lead.lead_id).collect();
        let done = write!(
            self.record_stage_updates(updates, &routing, now), copies of updates, routing, now
        );
        // A report that names its lead otherwise tells it in its answer, or it has none yet.
        leads.extend(done.iter().flat_map(|done| &done.outcomes).filter_map(lead_of));
        self.look_at_queues(leads);
        done
    }

    async fn judge_stage_updates(
        &self,
        updates: Vec<StageUpdate>,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Vec<UpdateOutcome>, StoreError> {
        read!(self.judge_stage_updates(updates.clone(), routing, now))
    }

    async fn link_crm_id(
        &self,
        source: SourceName,
        crm_id: CrmId,
        lead_id: LeadId,
        now: Timestamp,
    ) -> Result<Linking, StoreError> {
        let done = write!(
            self.link_crm_id(source, crm_id, lead_id, now), copies of source, crm_id, lead_id, now
        );
        self.look_at_queues([lead_id]);
        done
    }

    async fn add_customer(
        &self,
        lead_id: LeadId,
        customer: Customer,
        now: Timestamp,
    ) -> Result<Linked, StoreError> {
        let done =
            write!(self.add_customer(lead_id, customer, now), copies of lead_id, customer, now);
        self.look_at_queues([lead_id]);
        done
    }

    async fn next_batch(
        &self,
        dataset_id: DatasetId,
        now: Timestamp,
        limit: usize,
        kept_back: &BTreeSet<LeadId>,
    ) -> Result<Batch, StoreError> {
        let fault = self.meet("next_batch").await?;
        let mut batch = at_once(self.real.next_batch(dataset_id, now, limit, kept_back))?;
        let expected = told(self.model.next_batch(dataset_id, now, limit, kept_back));
        let is_alike = batch.next_due == expected.next_due
            && batch.events.len() == expected.events.len()
            && batch.events.iter().zip(&expected.events).all(|(a, b)| a.event == b.event);
        let mut pages = self.ledger.open();
        pages.must(is_alike, || format!("{batch:?} instead of {expected:?}"));
        pages.read(dataset_id);
        drop(pages);
        let mut entries = self.entries.lock().unwrap();
        for (real, model) in batch.events.iter().zip(&expected.events) {
            entries.entry(real.entry).or_insert_with(|| (model.entry, model.event.id()));
        }
        drop(entries);
        self.faults.spoil(&mut batch);
        self.answer(fault, batch)
    }

    async fn still_queued(
        &self,
        dataset_id: DatasetId,
        entries: BTreeSet<QueueEntry>,
    ) -> Result<BTreeSet<QueueEntry>, StoreError> {
        let fault = self.meet("still_queued").await?;
        let queued = at_once(self.real.still_queued(dataset_id, entries.clone()))?;
        let expected = told(self.model.still_queued(dataset_id, self.places_of(&entries)));
        let is_alike = self.places_of(&queued) == expected;
        let mut pages = self.ledger.open();
        pages.must(is_alike, || format!("{queued:?} instead of {expected:?}"));
        pages.look_again(dataset_id);
        drop(pages);
        self.answer(fault, queued)
    }

    async fn settle(&self, settlement: Settlement) -> Result<(), StoreError> {
        let mirrored = self.translate(&settlement);
        let model = move |model: Arc<MemoryStore>| -> BoxFuture<'static, _> {
            Box::pin(async move { model.settle(mirrored).await })
        };
        let done = self.write("settle", self.real.settle(settlement.clone()), model).await;
        if done.is_ok() {
            self.settled(&settlement);
        }
        done
    }

    async fn requeue(
        &self,
        event_id: EventId,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Requeued, StoreError> {
        let requeuing = async {
            write!(
                self.requeue(event_id, &routing, now), copies of event_id, routing, now
            )
        };
        self.requeuing(requeuing).await
    }

    async fn requeue_many(
        &self,
        letters: DeadLetters,
        dry_run: bool,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<RequeuedMany, StoreError> {
        let requeuing = async {
            write!(
                self.requeue_many(letters, dry_run, &routing, now),
                copies of letters, dry_run, routing, now
            )
        };
        self.requeuing(requeuing).await
    }

    async fn route_held(&self, routing: &Routing) -> Result<u64, StoreError> {
        write!(self.route_held(&routing), copies of routing)
    }

    async fn awaited_leads(
        &self,
        after: Option<LeadId>,
        limit: usize,
    ) -> Result<Vec<LeadId>, StoreError> {
        read!(self.awaited_leads(after, limit))
    }

    async fn expire_stranded(&self, now: Timestamp) -> Result<Stranded, StoreError> {
        let stranded = write!(self.expire_stranded(now), copies of now)?;
        if stranded.held > 0 {
            self.check_alarm(None, &self.expired_without_dataset(now));
        }
        Ok(stranded)
    }

    async fn form_mark(&self, form_id: FormId) -> Result<FormMark, StoreError> {
        read!(self.form_mark(form_id))
    }

    async fn set_form_mark(&self, form_id: FormId, mark: FormMark) -> Result<(), StoreError> {
        write!(self.set_form_mark(form_id, mark), copies of form_id, mark)
    }

    async fn erase_lead(
        &self,
        lead_id: LeadId,
        now: Timestamp,
    ) -> Result<Option<Erased>, StoreError> {
        // Noted where the model does it: it may have been done though nobody was told, and if a
        // power cut took the answer, that turns out at the next start.
        let ledger = self.ledger.clone();
        let model = move |model: Arc<MemoryStore>| -> BoxFuture<'static, _> {
            Box::pin(async move {
                let filter = EventFilter { lead_id: Some(lead_id), ..EventFilter::default() };
                let events = model.list_events(filter, WHOLE, now).await?.items;
                let events = events.iter().map(|detail| detail.event.id()).collect();
                let erased = model.erase_lead(lead_id, now).await?;
                if erased.is_some() {
                    ledger.open().erase(lead_id, &events);
                }
                Ok(erased)
            })
        };
        self.write("erase_lead", self.real.erase_lead(lead_id, now), model).await
    }

    async fn remove_old(&self, before: Timestamp, from: u64) -> Result<Removed, StoreError> {
        write!(self.remove_old(before, from), copies of before, from)
    }

    async fn find_lead(&self, lead_id: LeadId) -> Result<Option<LeadDetail>, StoreError> {
        read!(self.find_lead(lead_id))
    }

    async fn find_event(&self, event_id: EventId) -> Result<Option<EventDetail>, StoreError> {
        read!(self.find_event(event_id))
    }

    async fn list_leads(
        &self,
        filter: LeadFilter,
        page: PageRequest,
        now: Timestamp,
    ) -> Result<Page<LeadSummary>, StoreError> {
        at_once(self.real.list_leads(filter, page, now))
    }

    async fn list_events(
        &self,
        filter: EventFilter,
        page: PageRequest,
        now: Timestamp,
    ) -> Result<Page<EventDetail>, StoreError> {
        at_once(self.real.list_events(filter, page, now))
    }

    async fn list_quarantine(&self, page: PageRequest) -> Result<Page<Quarantined>, StoreError> {
        at_once(self.real.list_quarantine(page))
    }

    async fn set_aside(&self, unmapped: Vec<Unmapped>) -> Result<Vec<SetAside>, StoreError> {
        write!(self.set_aside(unmapped), copies of unmapped)
    }

    async fn list_unmapped(
        &self,
        source: Option<SourceName>,
        page: PageRequest,
    ) -> Result<Page<NumberedUnmapped>, StoreError> {
        at_once(self.real.list_unmapped(source, page))
    }

    async fn end_unmapped(&self, seq: u64) -> Result<bool, StoreError> {
        write!(self.end_unmapped(seq), copies of seq)
    }

    async fn remove_unmapped(
        &self,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<BTreeMap<SourceName, u64>, StoreError> {
        write!(self.remove_unmapped(before, now), copies of before, now)
    }

    async fn api_keys(&self) -> Result<Vec<ApiKeyDigest>, StoreError> {
        read!(self.api_keys())
    }

    async fn add_api_key(&self, digest: ApiKeyDigest) -> Result<(), StoreError> {
        write!(self.add_api_key(digest), copies of digest)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        read!(self.stats())
    }

    async fn fronts(&self) -> Result<Vec<(Option<DatasetId>, UnixSeconds)>, StoreError> {
        read!(self.fronts())
    }

    async fn near_deadline(&self, before: UnixSeconds) -> Result<Vec<NearDeadline>, StoreError> {
        read!(self.near_deadline(before))
    }

    async fn keep_alarms(&self, kept: Kept) -> Result<(), StoreError> {
        write!(self.keep_alarms(kept), copies of kept)
    }

    async fn raise_alarm(&self, cause: Cause, now: Timestamp) -> Result<(), StoreError> {
        write!(self.raise_alarm(cause, now), copies of cause, now)
    }

    async fn alarms(&self) -> Result<Alarms, StoreError> {
        read!(self.alarms())
    }

    async fn begin_alarm_try(
        &self,
        key: &AlarmKey,
        next_try_at: Timestamp,
    ) -> Result<Option<Alarm>, StoreError> {
        write!(self.begin_alarm_try(&key, next_try_at), copies of key, next_try_at)
    }

    async fn end_alarm(&self, key: &AlarmKey) -> Result<(), StoreError> {
        write!(self.end_alarm(&key), copies of key)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        at_once(self.real.probe())
    }

    async fn back_up(
        &self,
        now: Timestamp,
        stop: &CancellationToken,
    ) -> Result<BackedUp, StoreError> {
        self.real.back_up(now, stop).await
    }
}
