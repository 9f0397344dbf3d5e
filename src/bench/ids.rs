//! Which leads a run is about: numbers from zero on, and the lead id that belongs to each.
//!
//! Both ways are functions of a seed and nothing else, so that a later run can look up, or report
//! stages of, what an earlier one told of.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::domain::ids::LeadId;

/// Puts the numbers below a power of two into another order: no two become the same.
#[derive(Clone, Copy, Debug)]
struct Permutation {
    bits: u32,
    /// Of each round: a multiplier, which is odd, and what is added.
    rounds: [(u64, u64); Self::ROUNDS],
}

impl Permutation {
    const ROUNDS: usize = 3;

    /// A permutation of the numbers that have so many bits, 1 to 64.
    fn new(bits: u32, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let rounds = std::array::from_fn(|_| (random.next_u64() | 1, random.next_u64()));
        Self { bits, rounds }
    }

    fn apply(&self, number: u64) -> u64 {
        let mask = u64::MAX >> (64 - self.bits);
        let shift = self.bits.div_ceil(2);
        // Each step can be undone: an odd number has an inverse, and the upper half, which a shift
        // leaves as it is, gives back the lower one.
        self.rounds.iter().fold(number & mask, |number, (multiplier, added)| {
            let number = number.wrapping_mul(*multiplier).wrapping_add(*added) & mask;
            number ^ (number >> shift)
        })
    }
}

/// The lead ids of a seed: each number has its own, of 17 digits, in an order that looks random.
#[derive(Clone, Copy, Debug)]
pub struct LeadIds(Permutation);

impl LeadIds {
    /// The smallest id.
    const FIRST: u64 = 10_000_000_000_000_000;
    const BITS: u32 = 53;
    /// How many there are.
    pub const COUNT: u64 = 1 << Self::BITS;

    /// The ids of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Permutation::new(Self::BITS, seed))
    }

    /// The id of a lead, by its number below 2^53.
    pub fn get(&self, number: u64) -> LeadId {
        LeadId::from_u64(Self::FIRST + self.0.apply(number)).unwrap_or(LeadId::TEST)
    }
}

/// The numbers below a bound, each once, in an order that looks random.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shuffled {
    permutation: Permutation,
    below: u64,
}

impl Shuffled {
    /// The order of this seed of the numbers below a bound, which is not zero.
    pub(super) fn new(below: u64, seed: u64) -> Self {
        let bits = (u64::BITS - (below - 1).leading_zeros()).max(1);
        Self { permutation: Permutation::new(bits, seed), below }
    }

    /// The number in this place.
    pub(super) fn get(&self, place: u64) -> u64 {
        // What falls outside goes on along its cycle, which comes back inside at `place` at last.
        let mut number = self.permutation.apply(place);
        while number >= self.below {
            number = self.permutation.apply(number);
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_permutation_reaches_every_number(bits in 1_u32..=12, seed in any::<u64>()) {
            let permutation = Permutation::new(bits, seed);
            let reached: BTreeSet<u64> = (0..1 << bits).map(|n| permutation.apply(n)).collect();
            prop_assert!(reached.into_iter().eq(0..1 << bits));
        }

        #[test]
        fn each_number_below_a_bound_comes_once(below in 1_u64..2_000, seed in any::<u64>()) {
            let shuffled = Shuffled::new(below, seed);
            let reached: BTreeSet<u64> = (0..below).map(|place| shuffled.get(place)).collect();
            prop_assert!(reached.into_iter().eq(0..below));
        }

        #[test]
        fn two_leads_have_two_ids_of_seventeen_digits(
            one in 0_u64..1 << 53, other in 0_u64..1 << 53, seed in any::<u64>()
        ) {
            let ids = LeadIds::new(seed);
            prop_assert_eq!(ids.get(one).to_string().len(), 17);
            prop_assert_eq!(one == other, ids.get(one) == ids.get(other));
        }
    }

    #[test]
    fn the_ids_of_a_seed_are_fixed_since_runs_look_for_what_others_have_stored() {
        const GOLDEN: [u64; 3] =
            [17_604_319_827_098_590, 16_332_560_012_696_677, 14_913_732_793_176_423];
        let ids = LeadIds::new(1);
        assert_eq!([0, 1, 2].map(|number| ids.get(number).get()), GOLDEN);
    }

    #[test]
    fn the_ids_of_neighbours_are_far_apart_and_no_order_is_left() {
        let ids = LeadIds::new(7);
        let numbers: Vec<u64> = (0..1_000).map(|number| ids.get(number).get()).collect();
        let rises = numbers.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((400..600).contains(&rises), "{rises}");
        let near = numbers.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 1 << 40).count();
        assert!(near < 5, "{near}");
    }
}
