//! The two kinds of time: Meta's whole seconds and our milliseconds.
//!
//! Meta dates leads and events in Unix seconds; we date what happens here in Unix milliseconds.
//! They are different types so that neither can be mistaken for the other. Neither reads a clock;
//! writing and reading RFC 3339 belongs to the borders.

use std::fmt;
use std::ops::{Add, Sub};

/// A point in time in whole Unix seconds, UTC: Meta's `created_time` and `event_time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(i64);

impl UnixSeconds {
    /// First second that counts as a plausible date: 2001-09-09.
    const PLAUSIBLE_FROM: i64 = 1_000_000_000;
    /// First second that does not any more: 2100-01-01. Milliseconds of today lie far beyond.
    const PLAUSIBLE_BEFORE: i64 = 4_102_444_800;

    /// Wraps a number of seconds without judging it.
    pub const fn new(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Wraps a number of seconds if it lies between 2001-09-09 and 2100-01-01.
    ///
    /// The bound is fixed and not taken from a clock, so that a machine whose clock is wrong still
    /// accepts every true lead; what it is for is telling seconds from milliseconds and from junk.
    pub fn plausible(seconds: i64) -> Option<Self> {
        (Self::PLAUSIBLE_FROM..Self::PLAUSIBLE_BEFORE).contains(&seconds).then_some(Self(seconds))
    }

    /// Whether a number that is no plausible second would be one if it counted milliseconds.
    pub fn looks_like_milliseconds(number: i64) -> bool {
        Self::plausible(number).is_none() && Self::plausible(number / 1_000).is_some()
    }

    /// The number of seconds since 1970.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The first millisecond of this second.
    pub const fn timestamp(self) -> Timestamp {
        Timestamp(self.0.saturating_mul(1_000))
    }
}

impl Add<i64> for UnixSeconds {
    type Output = Self;

    fn add(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

impl Sub for UnixSeconds {
    type Output = i64;

    fn sub(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in time in Unix milliseconds, UTC: when something happened here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Wraps a number of milliseconds since 1970.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// The number of milliseconds since 1970.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The second that this moment lies in.
    pub const fn seconds(self) -> UnixSeconds {
        UnixSeconds(self.0.div_euclid(1_000))
    }

    /// This moment moved by a number of milliseconds.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` until this moment; negative if `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_told_from_seconds() {
        assert!(UnixSeconds::plausible(1_762_000_000).is_some());
        assert!(!UnixSeconds::looks_like_milliseconds(1_762_000_000));
        assert!(UnixSeconds::plausible(1_762_000_000_000).is_none());
        assert!(UnixSeconds::looks_like_milliseconds(1_762_000_000_000));
        assert!(!UnixSeconds::looks_like_milliseconds(-5));
    }

    #[test]
    fn a_moment_before_1970_lies_in_the_second_below_it() {
        assert_eq!(Timestamp::from_millis(-1).seconds(), UnixSeconds::new(-1));
        assert_eq!(Timestamp::from_millis(1_999).seconds(), UnixSeconds::new(1));
    }
}
