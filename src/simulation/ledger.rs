//! What was promised and what was seen: the checks of a run, made while it runs.
//!
//! Meta's side tells what was sent and what it took, the store's side what was recorded, and the
//! clients what they were answered. Anything that must not be is written down as a fault. What the
//! store should hold is known from the model, which is driven with what the store acknowledged.

mod end;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use serde_json::{Map, Value};

use crate::domain::event::{DeadReason, Event, EventDetail, Standing};
use crate::domain::ids::{DatasetId, EventId, LeadId};
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::EVENT_AGE_MAX_S;
use crate::simulation::tally::{Tally, Trace};
use crate::simulation::whose::Whose;
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::store::query::PageRequest;

/// How long a batch may be under way that was read before the clock was set.
const CLOCK_SETTLES_MS: i64 = 3_600 * 1_000;

/// The ledger of a run; clones are the same.
#[derive(Clone)]
pub(super) struct Ledger(Arc<Mutex<Pages>>);

/// What is in it.
#[derive(Default)]
pub(super) struct Pages {
    /// What the store should hold.
    pub(super) model: Arc<MemoryStore>,
    /// What must not be and was.
    pub(super) faults: Vec<String>,
    /// Figures about the run.
    pub(super) tally: Tally,
    /// How often the program has been started.
    pub(super) starts: u64,
    /// When the program's clock was last set.
    pub(super) clock_set_at: Option<Timestamp>,
    /// Leads that Meta got a 200 for.
    answered_leads: BTreeSet<LeadId>,
    /// Events that a CRM got a 202 or 200 for.
    answered_events: BTreeSet<EventId>,
    /// The events of each lead that have been in a queue.
    queued: BTreeMap<LeadId, BTreeMap<EventId, Queued>>,
    /// When each queue was last read, counted in things that happened.
    read_at: BTreeMap<DatasetId, u64>,
    /// When somebody saw last what of it is still queued.
    seen_at: BTreeMap<DatasetId, u64>,
    /// When leads were erased, likewise.
    erased: BTreeMap<LeadId, u64>,
    /// The events that went with them; one that is reported anew is in no queue before that.
    erased_events: BTreeMap<EventId, u64>,
    whose: Whose,
    moment: u64,
    /// Every event as it was first sent.
    sent: BTreeMap<EventId, Value>,
    /// How often Meta took each event.
    taken: BTreeMap<EventId, u64>,
    /// Events whose delivery is on record.
    recorded: BTreeSet<EventId>,
    /// Events that are dead letters on record.
    dead: BTreeSet<EventId>,
    /// Events that Meta said it received, and to which run of the program.
    confirmed: BTreeMap<EventId, u64>,
    /// Events that Meta refused while they were alone in a request.
    refused: BTreeSet<EventId>,
    trace: Trace,
}

/// An event that is or was in a queue.
#[derive(Clone, Copy, Debug)]
struct Queued {
    /// Its place among the events of its lead: by its time, the raw lead first, then as accepted.
    place: (UnixSeconds, usize),
    /// Since when, by the true time.
    at: Timestamp,
    /// Since when, counted in things that happened.
    moment: u64,
}

impl Ledger {
    /// An empty one.
    pub(super) fn new(is_shown: bool) -> Self {
        let trace = Trace::new(is_shown);
        Self(Arc::new(Mutex::new(Pages { trace, ..Pages::default() })))
    }

    pub(super) fn open(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store should hold.
    pub(super) fn model(&self) -> Arc<MemoryStore> {
        self.open().model.clone()
    }
}

/// The answer of the model, which never waits.
pub(super) fn told<T>(answer: impl Future<Output = Result<T, crate::store::StoreError>>) -> T {
    answer.now_or_never().expect("the model never waits").expect("the model never fails")
}

/// Every row of the longest list that a run makes.
pub(super) const WHOLE: PageRequest = PageRequest { cursor: None, limit: 5_000 };

impl Pages {
    /// Writes down what happened.
    pub(super) fn note(&mut self, at: Timestamp, what: std::fmt::Arguments<'_>) {
        self.trace.add(&format!("{} {what}", at.as_millis()));
    }

    /// The run as a number.
    pub(super) fn hash(&self) -> u64 {
        self.trace.hash()
    }

    fn fault(&mut self, what: String) {
        self.trace.add(&format!("FAULT {what}"));
        self.faults.push(what);
    }

    /// Writes down what must not be.
    pub(super) fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fault(what());
        }
    }

    // ---- What clients were answered -----------------------------------------------------------

    pub(super) fn answer_leads(&mut self, leads: impl IntoIterator<Item = LeadId>) {
        self.tally.answered += 1;
        let is_there = |lead_id: &LeadId| !self.erased.contains_key(lead_id);
        self.answered_leads.extend(leads.into_iter().filter(is_there));
    }

    /// A CRM was answered an event, for a report that can have meant one lead only, if any.
    pub(super) fn answer_event(&mut self, event_id: EventId, meant: Option<LeadId>) {
        self.tally.answered += 1;
        let is_erased = self.erased.contains_key(&self.whose.lead_of(event_id))
            || self.erased_events.contains_key(&event_id);
        if !is_erased {
            self.answered_events.insert(event_id);
        }
        let is_clear = meant.map_or(Ok(()), |meant| self.whose.mean(event_id, meant));
        is_clear.unwrap_or_else(|what| self.fault(what));
    }

    // ---- What the store recorded --------------------------------------------------------------

    /// Looks for events of a lead that have come into a queue.
    pub(super) fn look_at_queue(&mut self, lead_id: LeadId, at: Timestamp) {
        let Some(lead) = told(self.model.find_lead(lead_id)) else { return };
        self.moment += 1;
        let moment = self.moment;
        for (number, detail) in lead.events.iter().enumerate().filter(|(_, it)| !is_duplicate(it)) {
            let (event_id, place) = (detail.event.id(), (detail.event.event_time, number));
            if matches!(detail.standing, Standing::Queued(_)) {
                self.begin_anew(event_id);
                self.whose.find(event_id, lead_id);
                let known = self.queued.entry(lead_id).or_default();
                known.entry(event_id).or_insert(Queued { place, at, moment });
            }
            // An older report that has found its lead stands before this one.
            let known = self.queued.entry(lead_id).or_default();
            known.entry(event_id).and_modify(|queued| queued.place = place);
        }
    }

    /// An event that was erased is there again: it was reported by what does not name the lead, and
    /// is another's now.
    fn begin_anew(&mut self, event_id: EventId) {
        if self.erased_events.remove(&event_id).is_some() {
            self.whose.forget(event_id);
            self.sent.remove(&event_id);
            self.taken.remove(&event_id);
            self.recorded.remove(&event_id);
            self.dead.remove(&event_id);
            self.confirmed.remove(&event_id);
        }
    }

    /// A dead letter is queued again.
    pub(super) fn requeue(&mut self, event_id: EventId, at: Timestamp) {
        self.moment += 1;
        let moment = self.moment;
        let known = self.queued.entry(self.whose.lead_of(event_id)).or_default();
        known.entry(event_id).and_modify(|queued| (queued.at, queued.moment) = (at, moment));
        self.dead.remove(&event_id);
    }

    /// When an event was queued.
    pub(super) fn queued_at(&self, event_id: EventId) -> Option<Timestamp> {
        Some(self.queued.get(&self.whose.lead_of(event_id))?.get(&event_id)?.at)
    }

    /// A queue is read.
    pub(super) fn read(&mut self, dataset_id: DatasetId) {
        self.moment += 1;
        self.read_at.insert(dataset_id, self.moment);
        self.seen_at.insert(dataset_id, self.moment);
    }

    /// What was read of a queue is looked for in it again.
    pub(super) fn look_again(&mut self, dataset_id: DatasetId) {
        self.moment += 1;
        self.seen_at.insert(dataset_id, self.moment);
    }

    /// A lead is erased, with these events.
    pub(super) fn erase(&mut self, lead_id: LeadId, events: &BTreeSet<EventId>) {
        self.moment += 1;
        self.erased.entry(lead_id).or_insert(self.moment);
        self.erased_events.extend(events.iter().map(|event_id| (*event_id, self.moment)));
        self.answered_leads.remove(&lead_id);
        self.answered_events.retain(|event_id| !events.contains(event_id));
    }

    /// A delivery is on record.
    pub(super) fn record(&mut self, event_id: EventId) {
        if self.recorded.insert(event_id) {
            self.tally.recorded += 1;
            let is_taken = self.taken.contains_key(&event_id);
            self.must(is_taken, || format!("{event_id} is on record as delivered, and is lost"));
        }
    }

    /// An event is a dead letter from now on.
    pub(super) fn bury(&mut self, event_id: EventId, reason: DeadReason, now: Timestamp) {
        let Some(detail) = told(self.model.find_event(event_id)) else { return };
        self.dead.insert(event_id);
        let is_right = match reason {
            DeadReason::RefusedByMeta => {
                self.refused.contains(&event_id) || is_unwritable(&detail.event)
            }
            DeadReason::Expired => detail.event.is_past_sending(now),
            _ => true,
        };
        self.must(is_right, || format!("{event_id} is dead as {}, wrongly", reason.name()));
        match reason {
            DeadReason::RefusedByMeta => self.tally.refused += 1,
            DeadReason::Expired => self.tally.expired += 1,
            _ => {}
        }
    }

    // ---- What Meta saw ------------------------------------------------------------------------

    /// The program sends a request, by its own time and by the true one; answers when the queue was
    /// read that it is from.
    pub(super) fn send(
        &mut self,
        dataset_id: DatasetId,
        events: &[Value],
        (now, truth): (Timestamp, Timestamp),
    ) -> u64 {
        self.tally.requests += 1;
        let read_at = self.read_at.get(&dataset_id).copied().unwrap_or_default();
        let seen_at = self.seen_at.get(&dataset_id).copied().unwrap_or_default();
        let mut seen = BTreeSet::new();
        for event in events {
            let event_id = event_id_of(event);
            self.must(seen.insert(event_id), || format!("{event_id} is in a request twice"));
            self.check_sent(dataset_id, event_id, event, (now, truth));
            let erased_at = self.erased_events.get(&event_id);
            let is_known = erased_at.is_none_or(|erased_at| *erased_at > seen_at);
            self.must(is_known, || format!("{event_id} is sent, though its lead was erased"));
        }
        read_at
    }

    fn check_sent(
        &mut self,
        dataset_id: DatasetId,
        event_id: EventId,
        event: &Value,
        (now, truth): (Timestamp, Timestamp),
    ) {
        let is_recorded = self.recorded.contains(&event_id);
        self.must(!is_recorded, || format!("{event_id} is sent again, though on record"));
        let is_confirmed = self.confirmed.get(&event_id) == Some(&self.starts);
        self.must(!is_confirmed, || format!("{event_id} is sent again, though Meta has said so"));
        let is_dead = self.dead.contains(&event_id);
        self.must(!is_dead, || format!("{event_id} is sent, though it is a dead letter"));
        let is_new = !self.sent.contains_key(&event_id);
        let is_the_same = self.sent.entry(event_id).or_insert_with(|| event.clone()) == event;
        self.must(is_the_same, || format!("{event_id} is sent with another content"));
        let event_time = UnixSeconds::new(event["event_time"].as_i64().unwrap_or_default());
        let age_ms = |now: Timestamp| now.millis_since(event_time.timestamp());
        let is_in_time = |now| (0..=EVENT_AGE_MAX_S * 1_000).contains(&age_ms(now));
        // What was read before the clock was set is sent by the time of then.
        let was_set = self.clock_set_at.is_some_and(|at| truth.millis_since(at) < CLOCK_SETTLES_MS);
        self.must(was_set || is_in_time(now) || is_in_time(truth), || {
            format!("{event_id} is sent {} ms after its time", age_ms(now))
        });
        self.whose.tell(event_id, event).unwrap_or_else(|what| self.fault(what));
        if is_new {
            self.tally.found += u64::from(event_id.lead_id().is_own());
            self.check_first(dataset_id, event_id, event_time);
        }
    }

    /// What is sent for the first time is in the queue of its dataset, and after its lead.
    fn check_first(&mut self, dataset_id: DatasetId, event_id: EventId, event_time: UnixSeconds) {
        let standing = told(self.model.find_event(event_id)).map(|detail| detail.standing);
        let is_queued = standing == Some(Standing::Queued(Some(dataset_id)));
        self.must(is_queued, || format!("{event_id} is sent while it is {standing:?}"));
        let lead = told(self.model.find_lead(self.whose.lead_of(event_id)));
        let is_after = lead.is_some_and(|lead| event_time > lead.lead.reported.created_time);
        self.must(is_after, || format!("{event_id} is not after its lead's creation"));
    }

    /// Meta takes an event of a queue that was read at that moment: for the first time it must be
    /// in the order of its lead.
    pub(super) fn take(&mut self, event: &Value, read_at: u64) {
        let event_id = event_id_of(event);
        self.tally.taken += 1;
        let times = self.taken.entry(event_id).or_default();
        *times += 1;
        if *times > 1 {
            self.tally.doubled += 1;
            return;
        }
        let Some(known) = self.queued.get(&self.whose.lead_of(event_id)) else { return };
        let Some(own) = known.get(&event_id) else { return };
        let is_before = |(id, other): &(&EventId, &Queued)| {
            other.place < own.place && other.moment < read_at && !self.taken.contains_key(id)
        };
        let before: Vec<EventId> = known.iter().filter(is_before).map(|(id, _)| *id).collect();
        for earlier in before {
            let detail = told(self.model.find_event(earlier));
            let is_queued = detail.is_some_and(|it| matches!(it.standing, Standing::Queued(_)));
            self.must(!is_queued, || format!("{event_id} overtook {earlier}"));
        }
    }

    /// How often Meta took an event.
    pub(super) fn times_taken(&self, event_id: EventId) -> u64 {
        self.taken.get(&event_id).copied().unwrap_or_default()
    }

    /// Meta refuses a request.
    pub(super) fn refuse(&mut self, events: &[Value]) {
        if let [alone] = events {
            self.refused.insert(event_id_of(alone));
        }
    }

    /// The program hears that Meta received a request.
    pub(super) fn confirm(&mut self, events: &[Value]) {
        let starts = self.starts;
        self.confirmed.extend(events.iter().map(|event| (event_id_of(event), starts)));
    }
}

/// Whether a report awaited its lead and then turned out to say what another event says, whose id
/// it shares.
fn is_duplicate(detail: &EventDetail) -> bool {
    matches!(detail.standing, Standing::Dead { reason: DeadReason::Duplicate, .. })
}

/// Whether an event can't be written as JSON, and so is never sent.
fn is_unwritable(event: &Event) -> bool {
    let custom_data = event.custom_data.as_deref();
    custom_data.is_some_and(|text| serde_json::from_str::<Map<String, Value>>(text).is_err())
}

/// The id of an event as it is sent.
pub(super) fn event_id_of(event: &Value) -> EventId {
    EventId::parse(event["event_id"].as_str().unwrap_or_default()).expect("an id of ours")
}
