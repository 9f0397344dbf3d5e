//! Whose turn it is when: pace and end of a run, decided in one place for all connections.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use crate::bench::{Pace, Until};
use crate::limits::BENCH_LATE_MAX;

/// The right to send one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// When it is due; at once in a closed loop.
    pub(super) due: Option<Instant>,
    /// Whether it is part of the figures; in warm-up it is not.
    pub(super) counts: bool,
}

/// Gives out turns, in the order in which they are due.
pub(super) struct Schedule {
    pace: Pace,
    until: Until,
    counted_from: Instant,
    next_due: Instant,
    random: StdRng,
    /// Turns that count and were given out.
    counted: u64,
    /// Turns that count and nobody could take in time.
    pub(super) not_sent: u64,
}

impl Schedule {
    pub(super) fn new(
        start: Instant,
        pace: Pace,
        warm_up: Duration,
        until: Until,
        seed: u64,
    ) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let counted_from = start + warm_up;
        let mut new =
            Self { pace, until, counted_from, next_due: start, random, counted: 0, not_sent: 0 };
        new.next_due = new.after(start);
        new
    }

    /// When the figures begin.
    pub(super) fn counted_from(&self) -> Instant {
        self.counted_from
    }

    /// Turns that count and were given out, or came too late for that.
    pub(super) fn counted(&self) -> u64 {
        self.counted
    }

    /// How many turns a second come by themselves.
    pub(super) fn open_rate(&self) -> Option<f64> {
        match self.pace {
            Pace::Closed => None,
            Pace::Open { per_s } => Some(per_s),
        }
    }

    /// How long the run took, if the last answer came after so long: a run that lasts for a time
    /// has lasted for it, although its last request may have been earlier.
    pub(super) fn elapsed(&self, last_answer: Duration) -> Duration {
        match self.until {
            Until::Elapsed(elapsed) => elapsed.max(last_answer),
            Until::Requests(_) => last_answer,
        }
    }

    /// The next turn; `None` when the run is over.
    pub(super) fn claim(&mut self, now: Instant) -> Option<Turn> {
        loop {
            let at = match self.pace {
                Pace::Closed => now,
                Pace::Open { .. } => self.next_due,
            };
            let counts = at >= self.counted_from;
            if counts && self.is_over(at) {
                return None;
            }
            self.counted += u64::from(counts);
            if self.pace == Pace::Closed {
                return Some(Turn { due: None, counts });
            }
            self.next_due = self.after(at);
            if now.saturating_duration_since(at) <= BENCH_LATE_MAX {
                return Some(Turn { due: Some(at), counts });
            }
            self.not_sent += u64::from(counts);
        }
    }

    fn is_over(&self, at: Instant) -> bool {
        match self.until {
            Until::Elapsed(elapsed) => at >= self.counted_from + elapsed,
            Until::Requests(requests) => self.counted >= requests,
        }
    }

    /// When the one after this is due: requests of many who do not know of each other are a
    /// Poisson process, and the times between them are exponential.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit into a float")]
    fn after(&mut self, due: Instant) -> Instant {
        let Pace::Open { per_s } = self.pace else { return due };
        let chance = (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        due + Duration::from_secs_f64(-(1.0 - chance).ln() / per_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn turns(schedule: &mut Schedule, now: Instant) -> Vec<Turn> {
        std::iter::from_fn(|| schedule.claim(now)).collect()
    }

    #[tokio::test]
    async fn requests_of_an_open_loop_come_at_random_and_as_many_as_were_asked_for() {
        let (start, pace) = (Instant::now(), Pace::Open { per_s: 1_000.0 });
        let mut schedule = Schedule::new(start, pace, SECOND, Until::Elapsed(20 * SECOND), 7);
        let turns = turns(&mut schedule, start);
        let due: Vec<Instant> = turns.iter().filter_map(|turn| turn.due).collect();
        assert_eq!(due.len(), turns.len());
        assert!(due.is_sorted() && due[0] > start);
        assert!((20_500..21_500).contains(&due.len()), "{}", due.len());
        assert!(*due.last().unwrap() < start + 21 * SECOND);
        // Of exponential times, the share of 1 - 1/e is below their mean.
        let below = due.windows(2).filter(|two| two[1] - two[0] < Duration::from_millis(1)).count();
        let share = below * 1_000 / due.len();
        assert!((617..647).contains(&share), "{share}");
        let counted = turns.iter().filter(|turn| turn.counts).count() as u64;
        assert_eq!(counted, schedule.counted());
        assert!(turns.iter().all(|turn| turn.counts == (turn.due.unwrap() >= start + SECOND)));
    }

    #[tokio::test]
    async fn a_closed_loop_ends_after_its_time_or_number_and_warm_up_is_not_part_of_either() {
        let start = Instant::now();
        let new = |until| Schedule::new(start, Pace::Closed, SECOND, until, 7);
        let warm_up = Some(Turn { due: None, counts: false });
        let counts = Some(Turn { due: None, counts: true });
        let mut number = new(Until::Requests(2));
        assert_eq!(number.claim(start), warm_up);
        assert_eq!([0; 3].map(|_| number.claim(start + SECOND)), [counts, counts, None]);
        let mut time = new(Until::Elapsed(2 * SECOND));
        let claims = [0, 1, 2, 3].map(|seconds| time.claim(start + seconds * SECOND));
        assert_eq!(claims, [warm_up, counts, counts, None]);
        assert_eq!((time.counted(), time.not_sent), (2, 0));
    }

    #[tokio::test]
    async fn what_is_due_for_too_long_is_not_sent_and_counted() {
        let (start, pace) = (Instant::now(), Pace::Open { per_s: 100.0 });
        let until = Until::Elapsed(2 * SECOND);
        let mut schedule = Schedule::new(start, pace, Duration::ZERO, until, 7);
        let sent = turns(&mut schedule, start + SECOND + BENCH_LATE_MAX);
        assert!(sent.iter().all(|turn| turn.due.unwrap() >= start + SECOND));
        assert!((60..140).contains(&schedule.not_sent), "{}", schedule.not_sent);
        assert_eq!(sent.len() as u64 + schedule.not_sent, schedule.counted());
    }
}
