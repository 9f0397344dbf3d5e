//! The power of the machine that the program runs on: when it is off, nothing is done any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::redb::tests::disk::Disk;

/// The power; clones are the same.
#[derive(Clone)]
pub(super) struct Power(Arc<Mutex<State>>);

struct State {
    disk: Disk,
    is_off: bool,
}

impl Power {
    pub(super) fn of(disk: Disk) -> Self {
        Self(Arc::new(Mutex::new(State { disk, is_off: false })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk of the machine.
    pub(super) fn disk(&self) -> Disk {
        self.state().disk.clone()
    }

    /// Whether it is off: it was cut, or the disk met its end.
    pub(super) fn is_off(&self) -> bool {
        let state = self.state();
        state.is_off || state.disk.is_broken()
    }

    /// Cuts it, at once.
    pub(super) fn cut(&self) {
        let mut state = self.state();
        state.is_off = true;
        state.disk.cut_after(0);
    }

    /// Puts it on again, with what is left of the disk.
    pub(super) fn restore(&self, disk: Disk) {
        *self.state() = State { disk, is_off: false };
    }
}
