//! Time and randomness as parameters: the only place that reads the machine's clock or entropy.
//!
//! Everything else takes an `Arc<dyn Clock>` or an `Arc<dyn Random>`, so that a test can put a
//! week between two lines without waiting, and run a seed twice with the same result.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng, TryRng};
use tokio::sync::watch;

use crate::domain::time::Timestamp;

/// Tells the time and waits for it.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Returns once the time has come; at once if it has passed.
    async fn sleep_until(&self, deadline: Timestamp);

    /// The same for a wait that only saves work, which a clock may leave out.
    async fn pause_until(&self, deadline: Timestamp) {
        self.sleep_until(deadline).await;
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one reading of the machine's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        let wait_ms = u64::try_from(deadline.millis_since(self.now())).unwrap_or(0);
        tokio::time::sleep(std::time::Duration::from_millis(wait_ms)).await;
    }
}

/// A clock that stands still until it is moved; for tests and simulations.
#[derive(Debug)]
pub struct MockClock {
    time: watch::Sender<Timestamp>,
    pauses: AtomicU64,
}

impl MockClock {
    /// A clock that shows the given time.
    pub fn at(now: Timestamp) -> Self {
        Self { time: watch::Sender::new(now), pauses: AtomicU64::new(0) }
    }

    /// How often somebody would have waited to save work.
    pub fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::Relaxed)
    }

    /// Moves the clock on, and wakes whoever slept until then.
    pub fn advance_ms(&self, millis: i64) {
        self.time.send_modify(|now| *now = now.plus_millis(millis));
    }
}

#[async_trait]
impl Clock for MockClock {
    fn now(&self) -> Timestamp {
        *self.time.borrow()
    }

    async fn sleep_until(&self, deadline: Timestamp) {
        let mut time = self.time.subscribe();
        // The sender lives as long as this borrow of it, so waiting can't fail.
        let _ = time.wait_for(|now| *now >= deadline).await;
    }

    async fn pause_until(&self, _: Timestamp) {
        self.pauses.fetch_add(1, Ordering::Relaxed);
    }
}

/// A moment as RFC 3339, UTC.
pub fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).map_or_else(
        |_| at.as_millis().to_string(), // beyond the year 9999 there is nothing to write
        |at| at.to_string(),
    )
}

/// A source of random numbers.
pub trait Random: Send + Sync {
    /// Fills the buffer with random bytes.
    fn fill(&self, buffer: &mut [u8]);

    /// A random number.
    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// The operating system's entropy; fit for keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) {
        SysRng.try_fill_bytes(buffer).expect("the operating system gives random bytes");
    }
}

/// Numbers that follow from a seed; for tests and simulations.
#[derive(Debug)]
pub struct SeededRandom(Mutex<StdRng>);

impl SeededRandom {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mock_clock_wakes_sleepers_when_it_is_moved_far_enough() {
        let clock = std::sync::Arc::new(MockClock::at(Timestamp::from_millis(0)));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(Timestamp::from_millis(100)).await }
        });
        clock.advance_ms(99);
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance_ms(1);
        sleeper.await.unwrap();
    }

    #[test]
    fn moments_are_written_in_utc() {
        assert_eq!(rfc3339(Timestamp::from_millis(1_762_000_000_000)), "2025-11-01T12:26:40Z");
        assert_eq!(rfc3339(Timestamp::from_millis(1_762_000_000_050)), "2025-11-01T12:26:40.05Z");
        assert_eq!(rfc3339(Timestamp::from_millis(i64::MAX)), i64::MAX.to_string());
    }

    #[test]
    fn a_seed_gives_the_same_numbers_again() {
        let numbers = |seed| {
            let random = SeededRandom::new(seed);
            [random.next_u64(), random.next_u64()]
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }
}
