//! How long to wait after a failure: a schedule that is data, with jitter.

use crate::limits::RETRY_SCHEDULE_MS;

/// Milliseconds to wait after the given number of failures in a row (1 or more).
///
/// `random` is any random number: the wait lies evenly between half of the schedule's step and
/// the whole of it, so that many workers that failed together do not come back together.
pub fn retry_delay_ms(failures: u32, random: u64) -> u64 {
    let last = RETRY_SCHEDULE_MS.len() - 1;
    let step = usize::try_from(failures.saturating_sub(1)).unwrap_or(last).min(last);
    let half_ms = RETRY_SCHEDULE_MS[step] / 2;
    half_ms + random % (half_ms + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_wait_lies_between_half_a_step_and_the_step(failures in 0..100u32, random: u64) {
            let step = RETRY_SCHEDULE_MS[(failures.max(1) as usize - 1).min(9)];
            let delay = retry_delay_ms(failures, random);
            prop_assert!((step / 2..=step).contains(&delay), "{}", delay);
        }
    }

    #[test]
    fn the_schedule_never_shrinks() {
        assert!(RETRY_SCHEDULE_MS.is_sorted());
        assert_eq!(retry_delay_ms(u32::MAX, 0), 450_000);
    }
}
