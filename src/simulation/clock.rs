//! Time that moves when it is told to.
//!
//! There are two readings of it. The *true* time only goes on; it is Meta's, and sleeping takes
//! true time. What the program reads may be off, as a machine's clock may. Whoever sleeps is woken
//! in the order of the ends, so that a run can be repeated.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;

use crate::clock::Clock;
use crate::domain::time::Timestamp;

/// The time; clones are the same.
#[derive(Clone)]
pub(super) struct SimClock(Arc<Mutex<State>>);

struct State {
    truth: Timestamp,
    off_by_ms: i64,
    sleepers: BTreeMap<(Timestamp, u64), Waker>,
    /// Counts whatever happens, so that it can be seen when nothing happens any more.
    happened: u64,
}

impl SimClock {
    pub(super) fn at(truth: Timestamp) -> Self {
        let (off_by_ms, sleepers, happened) = (0, BTreeMap::new(), 0);
        Self(Arc::new(Mutex::new(State { truth, off_by_ms, sleepers, happened })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The true time.
    pub(super) fn truth(&self) -> Timestamp {
        self.state().truth
    }

    /// Sets the program's clock so far ahead of the true time, or behind it.
    pub(super) fn set_off_by_ms(&self, off_by_ms: i64) {
        self.state().off_by_ms = off_by_ms;
    }

    /// Notes that something happened, and answers how often something has.
    pub(super) fn happens(&self) -> u64 {
        let mut state = self.state();
        state.happened += 1;
        state.happened
    }

    /// How often something has happened.
    pub(super) fn happened(&self) -> u64 {
        self.state().happened
    }

    /// When the next sleeper is to be woken.
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.state().sleepers.first_key_value().map(|((until, _), _)| *until)
    }

    /// Lets time pass until then, and wakes whoever slept until then.
    pub(super) fn advance_to(&self, truth: Timestamp) {
        let mut due = Vec::new();
        let mut state = self.state();
        state.truth = state.truth.max(truth);
        while let Some(first) = state.sleepers.first_entry()
            && first.key().0 <= truth
        {
            due.push(first.remove());
        }
        drop(state);
        due.into_iter().for_each(Waker::wake);
    }

    /// Waits so many milliseconds of true time.
    pub(super) async fn wait_ms(&self, millis: i64) {
        let until = self.truth().plus_millis(millis);
        if millis > 0 {
            Sleep { clock: self.clone(), place: (until, self.happens()) }.await;
        }
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let state = self.state();
        state.truth.plus_millis(state.off_by_ms)
    }

    /// As the machine does it: how long that is is reckoned once, and setting the clock changes
    /// nothing about it.
    async fn sleep_until(&self, deadline: Timestamp) {
        self.wait_ms(deadline.millis_since(self.now())).await;
    }
}

struct Sleep {
    clock: SimClock,
    place: (Timestamp, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.state();
        if state.truth >= self.place.0 {
            return Poll::Ready(());
        }
        state.sleepers.insert(self.place, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clock.state().sleepers.remove(&self.place);
    }
}
