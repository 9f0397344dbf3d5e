//! The numbers that an instance gives out: one run that orders leads, events and quarantine, over
//! all instances, without a counter that they would wait for each other at.
//!
//! A number is a moment in milliseconds, a count, and the instance's slot. So numbers of different
//! instances are never the same, grow with time in each, and nearly so among them.

use crate::domain::time::Timestamp;
use crate::store::memory::State;

/// Bits of the slot in a number.
const SLOT_BITS: u32 = 12;
/// Bits below the moment in a number: of the slot, and of the count within a millisecond.
const MOMENT_SHIFT: u32 = 21;
/// How many slots there are.
pub(super) const SLOTS: u64 = 1 << SLOT_BITS;

/// The numbers of one instance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    slot: u64,
    last: u64,
}

impl Numbers {
    /// Those of an instance in a slot that come after `last`, whoever gave that out.
    pub(super) fn after(last: u64, slot: u64) -> Self {
        Self { slot, last: in_slot(last, slot) }
    }

    /// Lets use cases give out the next numbers, for what happens at a moment.
    pub(super) fn lend(&self, state: &mut State, now: Option<Timestamp>) {
        let moment = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0));
        state.last_seq = self.last.max(in_slot(moment << MOMENT_SHIFT, self.slot));
        state.seq_step = SLOTS;
    }

    /// Goes on after the numbers that were given out.
    pub(super) fn take_back(&mut self, state: &State) {
        self.last = state.last_seq;
    }
}

/// The first number in a slot that is greater than `number`.
fn in_slot(number: u64, slot: u64) -> u64 {
    ((number >> SLOT_BITS) + 1) << SLOT_BITS | slot
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(numbers: &mut Numbers, now: i64) -> u64 {
        let mut state = State::default();
        numbers.lend(&mut state, Some(Timestamp::from_millis(now)));
        let seq = state.seq();
        numbers.take_back(&state);
        seq
    }

    #[test]
    fn numbers_grow_and_two_instances_never_give_out_the_same() {
        let (mut one, mut two) = (Numbers::after(0, 1), Numbers::after(0, 2));
        let mut seen = std::collections::BTreeSet::new();
        let mut last = [0, 0];
        for now in [5, 5, 5, 6, 4, 4, 1_762_000_000_000, 3] {
            for (of, numbers) in [&mut one, &mut two].into_iter().enumerate() {
                let number = next(numbers, now);
                assert!(number > last[of] && number < i64::MAX.cast_unsigned());
                assert!(seen.insert(number));
                last[of] = number;
            }
        }
    }

    #[test]
    fn who_starts_later_goes_on_after_what_was_given_out() {
        let mut before = Numbers::after(0, 4_000);
        let last = next(&mut before, 1_762_000_000_000);
        assert!(next(&mut Numbers::after(last, 3), 0) > last);
    }
}
