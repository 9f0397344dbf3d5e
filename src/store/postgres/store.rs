//! The use cases of a store, each by one or a few transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

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
use crate::store::memory::State;
use crate::store::postgres::error::Failure;
use crate::store::postgres::load::{Seeds, load};
use crate::store::postgres::tries::{Tries, reading, writing};
use crate::store::postgres::writer::About;
use crate::store::postgres::{PostgresStore, alarms, facts, list, queue, unmapped};
use crate::store::query::{DeadLetters, EventFilter, LeadFilter, Page, PageRequest};
use crate::store::{
    ApiKeyDigest, BackedUp, Batch, DatabaseFigures, Duty, Enqueued, Erased, Hold, Ingested, Intake,
    Linked, Linking, NearDeadline, NumberedUnmapped, Quarantined, QueueEntry, Recorded, Removed,
    Requeued, RequeuedMany, SetAside, Settlement, Stats, Store, StoreError, Stranded, Unmapped,
    UpdateOutcome,
};

impl PostgresStore {
    /// What is known of some leads and whoever they may turn out to be.
    async fn state(&self, seeds: Seeds) -> Result<State, StoreError> {
        reading!(self, session => async {
            Ok::<_, Failure>(load(session, &seeds).await?.to_state()?)
        })
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn ingest(&self, intake: Intake, now: Timestamp) -> Result<Ingested, StoreError> {
        let about = About::from(Seeds::intake(&intake)).at(now);
        self.writer.submit(about, move |state| state.ingest(intake.clone(), now)).await
    }

    async fn record_stage_updates(
        &self,
        updates: Vec<StageUpdate>,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Recorded, StoreError> {
        let routing = routing.clone();
        let about = About::from(Seeds::updates(&updates)).at(now);
        let work = move |state: &mut State| state.record_stage_updates(&updates, &routing, now);
        self.writer.submit(about, work).await
    }

    async fn judge_stage_updates(
        &self,
        updates: Vec<StageUpdate>,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Vec<UpdateOutcome>, StoreError> {
        let state = self.state(Seeds::updates(&updates)).await?;
        Ok(updates.iter().map(|update| state.judge_update(update, routing, now)).collect())
    }

    async fn link_crm_id(
        &self,
        source: SourceName,
        crm_id: CrmId,
        lead_id: LeadId,
        now: Timestamp,
    ) -> Result<Linking, StoreError> {
        let mut seeds = Seeds::lead(lead_id);
        seeds.add_link(&source, &crm_id);
        let work = move |state: &mut State| state.link_crm_id(&source, &crm_id, lead_id, now);
        self.writer.submit(About::from(seeds).at(now), work).await
    }

    async fn add_customer(
        &self,
        lead_id: LeadId,
        customer: Customer,
        now: Timestamp,
    ) -> Result<Linked, StoreError> {
        let mut seeds = Seeds::lead(lead_id);
        seeds.add_customer(&customer);
        let work = move |state: &mut State| state.add_customer(lead_id, &customer, now);
        self.writer.submit(About::from(seeds).at(now), work).await
    }

    async fn hold(&self, duty: Duty) -> Result<Option<Hold>, StoreError> {
        self.leases.hold(duty).await
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn due(
        &self,
        datasets: &BTreeSet<DatasetId>,
        now: Timestamp,
    ) -> Result<Enqueued, StoreError> {
        reading!(self, session => queue::due(session, datasets, now))
    }

    async fn next_batch(
        &self,
        dataset_id: DatasetId,
        now: Timestamp,
        limit: usize,
        kept_back: &BTreeSet<LeadId>,
    ) -> Result<Batch, StoreError> {
        let Some(hold) = self.hold(Duty::Dataset(dataset_id)).await? else {
            return Ok(Batch::default());
        };
        let batch = reading!(
            self, session => queue::next_batch(session, dataset_id, now, limit, kept_back)
        )?;
        Ok(Batch { hold: Some(hold), ..batch })
    }

    async fn still_queued(
        &self,
        dataset_id: DatasetId,
        entries: BTreeSet<QueueEntry>,
    ) -> Result<BTreeSet<QueueEntry>, StoreError> {
        reading!(self, session => queue::still_queued(session, dataset_id, &entries))
    }

    async fn settle(&self, settlement: Settlement) -> Result<(), StoreError> {
        let mut about = About::from(Seeds::settlement(&settlement));
        if settlement.hold.epoch > 0 {
            about.fence = Some((Duty::Dataset(settlement.dataset_id), settlement.hold.epoch));
        }
        self.writer.submit(about, move |state| state.settle(settlement.clone())).await
    }

    async fn requeue(
        &self,
        event_id: EventId,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<Requeued, StoreError> {
        let routing = routing.clone();
        let work = move |state: &mut State| state.requeue(event_id, &routing, now);
        self.writer.submit(Seeds::events([event_id]), work).await
    }

    async fn requeue_many(
        &self,
        letters: DeadLetters,
        dry_run: bool,
        routing: &Routing,
        now: Timestamp,
    ) -> Result<RequeuedMany, StoreError> {
        let (event_ids, next_cursor) = match letters {
            DeadLetters::Named(event_ids) => (event_ids, None),
            DeadLetters::Filtered(filter, page) => {
                let page =
                    reading!(self, session => list::oldest_dead(session, &filter, page, now))?;
                let ids = page.items.iter().map(|(_, detail)| detail.event.id()).collect();
                (ids, page.next_cursor)
            }
        };
        let seeds = Seeds::events(event_ids.iter().copied());
        let (letters, routing) = (DeadLetters::Named(event_ids), routing.clone());
        let counts = if dry_run {
            self.state(seeds).await?.requeue_many(&letters, true, &routing, now)
        } else {
            let work = move |state: &mut State| state.requeue_many(&letters, false, &routing, now);
            self.writer.submit(seeds, work).await?
        };
        Ok(RequeuedMany { next_cursor, ..counts })
    }

    async fn route_held(&self, routing: &Routing) -> Result<u64, StoreError> {
        self.sweep_held(routing).await
    }

    async fn awaited_leads(
        &self,
        after: Option<LeadId>,
        limit: usize,
    ) -> Result<Vec<LeadId>, StoreError> {
        reading!(self, session => queue::awaited_leads(session, after, limit))
    }

    async fn expire_stranded(&self, now: Timestamp) -> Result<Stranded, StoreError> {
        self.sweep_stranded(now).await
    }

    async fn form_mark(&self, form_id: FormId) -> Result<FormMark, StoreError> {
        reading!(self, session => facts::form_mark(session, form_id))
    }

    async fn set_form_mark(&self, form_id: FormId, mark: FormMark) -> Result<(), StoreError> {
        writing!(self, session => facts::set_form_mark(session, form_id, &mark))
    }

    async fn erase_lead(
        &self,
        lead_id: LeadId,
        now: Timestamp,
    ) -> Result<Option<Erased>, StoreError> {
        let about = About::from(Seeds::lead(lead_id).whole());
        self.writer.submit(about, move |state| state.erase_lead(lead_id, now)).await
    }

    async fn remove_old(&self, before: Timestamp, from: u64) -> Result<Removed, StoreError> {
        self.sweep_old(before, from).await
    }

    async fn find_lead(&self, lead_id: LeadId) -> Result<Option<LeadDetail>, StoreError> {
        let state = self.state(Seeds::lead(lead_id).whole()).await?;
        Ok(state.lead(lead_id).map(|lead| state.lead_detail(lead)))
    }

    async fn find_event(&self, event_id: EventId) -> Result<Option<EventDetail>, StoreError> {
        let state = self.state(Seeds::events([event_id])).await?;
        Ok(state.find_seq(event_id).map(|seq| state.detail(seq)))
    }

    async fn list_leads(
        &self,
        filter: LeadFilter,
        page: PageRequest,
        now: Timestamp,
    ) -> Result<Page<LeadSummary>, StoreError> {
        reading!(self, session => list::list_leads(session, &filter, page, now))
    }

    async fn list_events(
        &self,
        filter: EventFilter,
        page: PageRequest,
        now: Timestamp,
    ) -> Result<Page<EventDetail>, StoreError> {
        reading!(self, session => list::list_events(session, &filter, page, now))
    }

    async fn list_quarantine(&self, page: PageRequest) -> Result<Page<Quarantined>, StoreError> {
        reading!(self, session => list::list_quarantine(session, page))
    }

    async fn set_aside(&self, unmapped: Vec<Unmapped>) -> Result<Vec<SetAside>, StoreError> {
        let (at, count) = (unmapped.iter().map(|it| it.received_at).max(), unmapped.len());
        let about = About { now: at, ..About::from(Seeds::default()) };
        let numbers = move |state: &mut State| {
            let first = state.seq();
            for _ in 1..count {
                state.seq();
            }
            (first, state.seq_step)
        };
        let numbers = self.writer.submit(about, numbers).await?;
        writing!(self, session => unmapped::set_aside(session, &unmapped, numbers))
    }

    async fn list_unmapped(
        &self,
        source: Option<SourceName>,
        page: PageRequest,
    ) -> Result<Page<NumberedUnmapped>, StoreError> {
        reading!(self, session => unmapped::list(session, source.as_ref(), page))
    }

    async fn end_unmapped(&self, seq: u64) -> Result<bool, StoreError> {
        writing!(self, session => unmapped::end(session, seq))
    }

    async fn remove_unmapped(
        &self,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<BTreeMap<SourceName, u64>, StoreError> {
        writing!(self, session => unmapped::remove(session, before, now))
    }

    async fn api_keys(&self) -> Result<Vec<ApiKeyDigest>, StoreError> {
        reading!(self, session => facts::api_keys(session))
    }

    async fn add_api_key(&self, digest: ApiKeyDigest) -> Result<(), StoreError> {
        writing!(self, session => facts::add_api_key(session, digest))
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        reading!(self, session => list::stats(session))
    }

    async fn fronts(&self) -> Result<Vec<(Option<DatasetId>, UnixSeconds)>, StoreError> {
        reading!(self, session => queue::fronts(session))
    }

    async fn near_deadline(&self, before: UnixSeconds) -> Result<Vec<NearDeadline>, StoreError> {
        reading!(self, session => queue::near_deadline(session, before))
    }

    async fn keep_alarms(&self, kept: Kept) -> Result<(), StoreError> {
        self.writer.submit(About::alarms(), move |state| state.alarms.keep(&kept)).await
    }

    async fn raise_alarm(&self, cause: Cause, now: Timestamp) -> Result<(), StoreError> {
        let work = move |state: &mut State| state.alarms.raise(cause.clone(), now);
        self.writer.submit(About::alarms(), work).await
    }

    async fn alarms(&self) -> Result<Alarms, StoreError> {
        reading!(self, session => async {
            Ok::<_, Failure>(alarms::load(session).await?.to_state().all())
        })
    }

    async fn begin_alarm_try(
        &self,
        key: &AlarmKey,
        next_try_at: Timestamp,
    ) -> Result<Option<Alarm>, StoreError> {
        let key = key.clone();
        let work = move |state: &mut State| state.alarms.begin_try(&key, next_try_at);
        self.writer.submit(About::alarms(), work).await
    }

    async fn end_alarm(&self, key: &AlarmKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.writer.submit(About::alarms(), move |state| state.alarms.end(&key)).await
    }

    fn database(&self) -> Option<DatabaseFigures> {
        let (pools, traffic) = (&self.database.pools, &self.database.traffic);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Some(DatabaseFigures {
            connections: pools.iter().map(|pool| u64::from(pool.size())).sum(),
            idle: pools.iter().map(|pool| pool.num_idle() as u64).sum(),
            statements: count(&traffic.statements),
            statements_us: count(&traffic.statements_us),
            conflicts: count(&traffic.conflicts),
            lost: count(&traffic.lost),
        })
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.probe_writer().await
    }

    async fn back_up(&self, _: Timestamp, _: &CancellationToken) -> Result<BackedUp, StoreError> {
        Ok(BackedUp::NotSupported)
    }
}
