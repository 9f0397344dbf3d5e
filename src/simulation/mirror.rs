//! The store of a run: the real one, with the model beside it.
//!
//! Whatever the store acknowledges is done to the model too, and both must answer alike. A call is
//! made to wait on this thread for the store's own threads, so that it takes no simulated time and
//! all calls have one order. Faults are put before and behind the store; those below it are the
//! disk's. The use cases themselves are in [`super::calls`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use futures_util::future::BoxFuture;

use crate::clock::Clock;
use crate::domain::event::DeadReason;
use crate::domain::ids::{DatasetId, EventId, LeadId};
use crate::domain::time::Timestamp;
use crate::simulation::clock::SimClock;
use crate::simulation::ledger::{Ledger, WHOLE, told};
use crate::simulation::power::Power;
use crate::simulation::store_faults::{StoreFault, StoreFaults};
use crate::store::memory::MemoryStore;
use crate::store::query::{EventFilter, LeadFilter, Page};
use crate::store::redb::RedbStore;
use crate::store::{QueueEntry, Settlement, Store, StoreError};
use crate::telemetry::Metrics;

/// What an operation that was cut off would have done, to be done to the model if it turns out to
/// have been done.
pub(super) type Redo = Box<dyn FnOnce(Arc<MemoryStore>) + Send>;

/// The store of one run of the program.
pub(super) struct MirrorStore {
    pub(super) real: RedbStore,
    pub(super) model: Arc<MemoryStore>,
    pub(super) clock: SimClock,
    pub(super) ledger: Ledger,
    power: Power,
    pub(super) faults: StoreFaults,
    /// The events that were taken out of queues, and the model's places of them.
    pub(super) entries: Mutex<BTreeMap<QueueEntry, (QueueEntry, EventId)>>,
    unsure: Mutex<Option<Redo>>,
    metrics: OnceLock<Arc<Metrics>>,
    /// Since when nothing has been in the way of an alarm.
    calm_since: Mutex<Timestamp>,
    /// Whether the program has ended that used it.
    has_ended: AtomicBool,
}

/// How long nothing must be in the way of an alarm for it to be missed: sleepers may wake late.
const CALM_MS: i64 = 3 * 3_600 * 1_000;

impl MirrorStore {
    pub(super) fn new(
        real: RedbStore,
        clock: SimClock,
        ledger: Ledger,
        power: Power,
        faults: StoreFaults,
    ) -> Self {
        Self {
            real,
            model: ledger.model(),
            calm_since: Mutex::new(clock.truth()),
            clock,
            ledger,
            power,
            faults,
            entries: Mutex::default(),
            unsure: Mutex::default(),
            metrics: OnceLock::new(),
            has_ended: AtomicBool::new(false),
        }
    }

    /// Where alarms are seen.
    pub(super) fn set_metrics(&self, metrics: Arc<Metrics>) {
        let _ = self.metrics.set(metrics);
    }

    /// Something was in the way of an alarm: the clock was set, or the store failed.
    pub(super) fn disturb(&self) {
        *self.calm_since.lock().unwrap() = self.clock.truth();
    }

    /// The program has ended; what of it still holds the store can do nothing any more.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    fn is_gone(&self) -> bool {
        self.power.is_off() || self.has_ended.load(Ordering::Relaxed)
    }

    /// What was under way when the power went.
    pub(super) fn take_unsure(&self) -> Option<Redo> {
        self.unsure.lock().unwrap().take()
    }

    /// A call that writes: to the store, and then to the model.
    pub(super) async fn write<T, F>(
        &self,
        method: &'static str,
        real: impl Future<Output = Result<T, StoreError>>,
        model: F,
    ) -> Result<T, StoreError>
    where
        T: PartialEq + Debug + 'static,
        F: FnOnce(Arc<MemoryStore>) -> BoxFuture<'static, Result<T, StoreError>> + Send + 'static,
    {
        let fault = self.meet(method).await?;
        match at_once(real) {
            Ok(answer) => {
                let expected = told(model(self.model.clone()));
                let mut pages = self.ledger.open();
                pages.note(self.clock.truth(), format_args!("{method}"));
                pages.must(answer == expected, || format!("{answer:?} instead of {expected:?}"));
                drop(pages);
                self.answer(fault, answer)
            }
            Err(error) => {
                if self.power.is_off() {
                    let redo = |store| drop(told(model(store)));
                    self.unsure.lock().unwrap().get_or_insert(Box::new(redo));
                } else {
                    let what = format!("{method} failed by itself: {error}");
                    self.ledger.open().must(false, || what);
                }
                Err(error)
            }
        }
    }

    /// What goes wrong before a call.
    pub(super) async fn meet(
        &self,
        method: &'static str,
    ) -> Result<Option<StoreFault>, StoreError> {
        self.clock.happens();
        let no_power = || Err(StoreError::Unavailable("no power".into()));
        if self.is_gone() {
            return no_power();
        }
        let fault = self.faults.of(method);
        if fault.is_some() {
            self.disturb();
        }
        match fault {
            Some(StoreFault::Fails) => {
                let line = format_args!("{method} fails");
                self.ledger.open().note(self.clock.truth(), line);
                return Err(StoreError::Unavailable("told to fail".into()));
            }
            Some(StoreFault::Slow(millis)) => self.clock.wait_ms(millis).await,
            Some(StoreFault::CrashBefore) => self.power.cut(),
            _ => {}
        }
        if self.is_gone() { no_power() } else { Ok(fault) }
    }

    /// What goes wrong after a call.
    pub(super) fn answer<T>(&self, fault: Option<StoreFault>, answer: T) -> Result<T, StoreError> {
        match fault {
            Some(StoreFault::FailsAfterwards) => {
                Err(StoreError::Unavailable("told to fail afterwards".into()))
            }
            Some(StoreFault::CrashAfter) => {
                self.power.cut();
                Err(StoreError::Unavailable("no power".into()))
            }
            _ => Ok(answer),
        }
    }

    /// A call that reads: from both, and both must answer alike.
    pub(super) async fn read<T: PartialEq + Debug>(
        &self,
        method: &'static str,
        real: impl Future<Output = Result<T, StoreError>>,
        model: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let fault = self.meet(method).await?;
        let answer = at_once(real)?;
        let expected = told(model);
        let is_alike = answer == expected;
        self.ledger.open().must(is_alike, || format!("{answer:?} instead of {expected:?}"));
        self.answer(fault, answer)
    }

    pub(super) fn look_at_queues(&self, leads: impl IntoIterator<Item = LeadId>) {
        let mut pages = self.ledger.open();
        for lead_id in leads.into_iter().collect::<BTreeSet<LeadId>>() {
            pages.look_at_queue(lead_id, self.clock.truth());
        }
    }

    /// Events have expired: of those that were queued in peace the alarm must have told.
    pub(super) fn check_alarm(&self, dataset_id: Option<DatasetId>, expired: &[EventId]) {
        let calm_since = *self.calm_since.lock().unwrap();
        let in_peace =
            expired.iter().filter_map(|event_id| self.ledger.open().queued_at(*event_id));
        let in_peace =
            in_peace.filter(|at| self.clock.truth().millis_since(calm_since.max(*at)) > CALM_MS);
        let in_peace = in_peace.count();
        if in_peace == 0 {
            return;
        }
        let name = dataset_id.map_or_else(|| "none".to_owned(), |id| id.to_string());
        let line = format!("leadloop_events_near_deadline{{dataset=\"{name}\"}} ");
        let text = self.metrics.get().map(|metrics| metrics.render()).unwrap_or_default();
        let told = text.lines().find_map(|text| text.strip_prefix(&line)?.parse::<usize>().ok());
        let mut pages = self.ledger.open();
        pages.tally.alarmed += in_peace as u64;
        pages.must(told.unwrap_or_default() >= in_peace, || {
            format!("{in_peace} events of {name} expired, and the alarm told of {told:?}")
        });
    }

    /// The settlement as the model knows it, and its events.
    pub(super) fn translate(&self, settlement: &Settlement) -> Settlement {
        let entries = self.entries.lock().unwrap();
        let place = |entry: &QueueEntry| entries[entry].0;
        let mut mirrored = settlement.clone();
        mirrored.delivered = settlement.delivered.iter().map(place).collect();
        mirrored.failed = settlement.failed.iter().map(place).collect();
        mirrored.dead = settlement.dead.iter().map(|(entry, why)| (place(entry), *why)).collect();
        mirrored
    }

    /// The places in the model's queue for these places in the store's.
    pub(super) fn places_of(&self, real: &BTreeSet<QueueEntry>) -> BTreeSet<QueueEntry> {
        let entries = self.entries.lock().unwrap();
        real.iter().map(|entry| entries[entry].0).collect()
    }

    /// What a settlement that is on record says.
    pub(super) fn settled(&self, settlement: &Settlement) {
        let entries = self.entries.lock().unwrap();
        let id = |entry: &QueueEntry| entries[entry].1;
        let mut pages = self.ledger.open();
        if settlement.attempt.is_some() {
            settlement.delivered.iter().for_each(|entry| pages.record(id(entry)));
        }
        for (entry, reason) in &settlement.dead {
            pages.bury(id(entry), *reason, settlement.at);
        }
        drop(pages);
        let expired = settlement.dead.iter().filter(|(_, reason)| *reason == DeadReason::Expired);
        let expired: Vec<EventId> = expired.map(|(entry, _)| id(entry)).collect();
        self.check_alarm(Some(settlement.dataset_id), &expired);
    }

    /// Whether the store holds what the model holds.
    pub(super) fn is_as_the_model(&self) -> Result<(), String> {
        let now = self.clock.now();
        let events =
            |store: &dyn Store| at_once(store.list_events(EventFilter::default(), WHOLE, now));
        let leads =
            |store: &dyn Store| at_once(store.list_leads(LeadFilter::default(), WHOLE, now));
        let pieces = |store: &dyn Store| at_once(store.list_quarantine(WHOLE));
        same(&rows(events(&self.real)), &rows(events(&*self.model)))?;
        let known = rows(leads(&*self.model));
        same(&rows(leads(&self.real)), &known)?;
        for lead_id in known.iter().flatten().map(|it| it.lead.reported.lead_id) {
            same(&at_once(self.real.find_lead(lead_id)), &at_once(self.model.find_lead(lead_id)))?;
        }
        same(&rows(pieces(&self.real)), &rows(pieces(&*self.model)))?;
        same(&at_once(self.real.stats()), &at_once(self.model.stats()))
    }
}

fn rows<T>(page: Result<Page<T>, StoreError>) -> Result<Vec<T>, StoreError> {
    page.map(|page| page.items)
}

fn same<T: PartialEq + Debug>(real: &T, model: &T) -> Result<(), String> {
    if real == model { Ok(()) } else { Err(format!("{real:?}\n  instead of\n{model:?}")) }
}

/// Waits on this thread for what other threads do.
pub(super) fn at_once<T>(work: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut work = pin!(tokio::task::unconstrained(work));
    loop {
        match work.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => return result,
            Poll::Pending => std::thread::park(),
        }
    }
}
