//! What goes wrong in front of the store and behind it, and defects that are planted there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::domain::ids::{EventId, LeadId};
use crate::store::Batch;

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreFault {
    /// Nothing is done.
    Fails,
    /// Everything is done, and the caller is told that it failed.
    FailsAfterwards,
    /// It is done after so many milliseconds.
    Slow(i64),
    /// The program ends before it is done.
    CrashBefore,
    /// The program ends when it is done, before the caller hears of it.
    CrashAfter,
}

/// What will go wrong; it outlives the store, which is opened again after a crash.
#[derive(Clone)]
pub(super) struct StoreFaults(Arc<Mutex<Plan>>);

struct Plan {
    /// For the next calls of a method.
    script: VecDeque<(&'static str, StoreFault)>,
    /// How likely a call fails.
    risk: f64,
    random: StdRng,
    /// A planted defect: one entry of a queue is never shown.
    hides: bool,
    hidden: Option<EventId>,
    /// A planted defect: two events of a lead change places.
    swaps: bool,
    /// A planted defect: an event is given to the lead of another.
    mixes: bool,
}

impl StoreFaults {
    pub(super) fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let (script, hidden) = (VecDeque::new(), None);
        let plan =
            Plan { script, risk: 0.0, random, hides: false, hidden, swaps: false, mixes: false };
        Self(Arc::new(Mutex::new(plan)))
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next call of a method goes wrong.
    pub(super) fn script(&self, method: &'static str, fault: StoreFault) {
        self.plan().script.push_back((method, fault));
    }

    /// From now on a call fails with this chance.
    pub(super) fn set_risk(&self, risk: f64) {
        self.plan().risk = risk;
    }

    /// Whether calls may fail at the moment.
    pub(super) fn is_at_risk(&self) -> bool {
        self.plan().risk > 0.0
    }

    /// Plants a defect: an entry of the queue is never shown.
    pub(super) fn hide_an_entry(&self) {
        self.plan().hides = true;
    }

    /// Plants a defect: two events of a lead change places.
    pub(super) fn swap_events(&self) {
        self.plan().swaps = true;
    }

    /// Plants a defect: an event is given to the lead of another.
    pub(super) fn mix_leads(&self) {
        self.plan().mixes = true;
    }

    pub(super) fn of(&self, method: &str) -> Option<StoreFault> {
        let plan = &mut *self.plan();
        if plan.script.front().is_some_and(|(wanted, _)| *wanted == method) {
            return plan.script.pop_front().map(|(_, fault)| fault);
        }
        if plan.risk == 0.0 || !plan.random.random_bool(plan.risk) {
            return None;
        }
        let faults = [StoreFault::Fails, StoreFault::FailsAfterwards, StoreFault::Slow(2_500)];
        Some(faults[plan.random.random_range(0..faults.len())])
    }

    /// Does to a batch what the planted defects do.
    pub(super) fn spoil(&self, batch: &mut Batch) {
        let plan = &mut *self.plan();
        if plan.hides && plan.hidden.is_none() {
            plan.hidden = batch.events.get(2).map(|queued| queued.event.id());
        }
        batch.events.retain(|queued| Some(queued.event.id()) != plan.hidden);
        let leads: Vec<LeadId> = batch.events.iter().map(|queued| queued.event.lead_id).collect();
        let of_one_lead = |first: &usize| leads[first + 1..].contains(&leads[*first]);
        if plan.swaps
            && let Some(first) = (0..leads.len()).find(of_one_lead)
        {
            let second = leads[first + 1..].iter().position(|lead_id| *lead_id == leads[first]);
            batch.events.swap(first, first + 1 + second.unwrap_or_default());
        }
        if plan.mixes
            && let Some(other) = leads.iter().find(|lead_id| **lead_id != leads[0])
        {
            batch.events[0].event.lead_id = *other;
        }
    }
}
