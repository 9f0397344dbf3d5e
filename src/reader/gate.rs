//! Whether a token may be used at the moment: closed by Meta's throttle, by a denial, by trouble
//! that passes, and before the budget of calls is spent. Pure.

use crate::domain::backoff::retry_delay_ms;
use crate::domain::time::Timestamp;
use crate::limits::{
    READ_DENIED_WAIT_MS, READ_REST_MS, READ_USED_PERCENT_MAX, THROTTLE_WAIT_MS_MAX,
};
use crate::meta::errors::PauseReason;
use crate::reader::verdict::Trouble;

/// The gate of one token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    closed: Option<Closed>,
    /// When an answer closed it last.
    closed_at: Option<Timestamp>,
    /// Answers in a row that were trouble of the kind that passes.
    failures: u32,
}

/// Until when a gate is closed, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub why: Why,
}

/// Why a gate is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Meta wants fewer calls, or would soon.
    Budget,
    /// The token may not read, until somebody mends something.
    Denied(PauseReason),
    /// Meta or the network has trouble.
    Trouble,
}

impl Gate {
    /// Until when the gate is closed, if it is.
    pub fn closed(&self, now: Timestamp) -> Option<Closed> {
        self.closed.filter(|closed| closed.until > now)
    }

    /// Takes note of an answer, and of the share of the budget that it says is used. What was asked
    /// before the gate was closed knows nothing of why: it may close it for longer, and opens
    /// nothing.
    pub fn note(
        &mut self,
        trouble: Option<Trouble>,
        used_percent: Option<u64>,
        (asked_at, now): (Timestamp, Timestamp),
        random: u64,
    ) {
        let is_late = self.closed_at.is_some_and(|closed_at| asked_at <= closed_at);
        let before = self.closed.filter(|_| is_late);
        let close = |why, wait_ms: u64| {
            let wait_ms = i64::try_from(wait_ms.min(THROTTLE_WAIT_MS_MAX)).unwrap_or(i64::MAX);
            Some(Closed { until: now.plus_millis(wait_ms), why })
        };
        let is_failure =
            matches!(trouble, Some(Trouble::Throttled { .. } | Trouble::Passing { .. }));
        self.failures = match is_failure {
            true => self.failures.saturating_add(1),
            false if is_late => self.failures,
            false => 0,
        };
        let own_wait_ms = retry_delay_ms(self.failures.max(1), random);
        let closed = match trouble {
            Some(Trouble::Throttled { wait_ms }) => {
                close(Why::Budget, wait_ms.unwrap_or(own_wait_ms))
            }
            Some(Trouble::Passing { wait_ms }) => {
                close(Why::Trouble, wait_ms.unwrap_or(own_wait_ms))
            }
            Some(Trouble::Denied(reason)) => close(Why::Denied(reason), READ_DENIED_WAIT_MS),
            _ if used_percent.is_some_and(|used| used >= READ_USED_PERCENT_MAX) => {
                close(Why::Budget, READ_REST_MS)
            }
            None | Some(Trouble::NotFound | Trouble::Refused) => None,
        };
        self.closed_at = closed.map(|_| now).or(self.closed_at);
        self.closed = before.into_iter().chain(closed).max_by_key(|closed| closed.until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_762_000_000_000);

    fn closed_after(notes: &[(Option<Trouble>, Option<u64>)]) -> Option<(i64, Why)> {
        let mut gate = Gate::default();
        for (trouble, used_percent) in notes {
            gate.closed_at = None;
            gate.note(*trouble, *used_percent, (NOW, NOW), 0);
        }
        gate.closed(NOW).map(|closed| (closed.until.millis_since(NOW) / 1_000, closed.why))
    }

    #[test]
    fn each_trouble_closes_the_gate_for_its_own_time() {
        let throttled = |wait_ms| Some(Trouble::Throttled { wait_ms });
        let passing = Some(Trouble::Passing { wait_ms: None });
        for (notes, expected) in [
            (&[(None, None)][..], None),
            (&[(None, Some(79))], None),
            (&[(None, Some(80))], Some((600, Why::Budget))),
            (&[(Some(Trouble::NotFound), Some(95))], Some((600, Why::Budget))),
            (&[(Some(Trouble::NotFound), None)], None),
            (&[(Some(Trouble::Refused), None)], None),
            (&[(throttled(Some(180_000)), None)], Some((180, Why::Budget))),
            (&[(throttled(Some(86_400_000)), None)], Some((3_600, Why::Budget))),
            (&[(throttled(None), None), (throttled(None), None)], Some((1, Why::Budget))),
            (&[(passing, None), (passing, None), (passing, None)], Some((2, Why::Trouble))),
            (&[(passing, None), (None, None)], None),
            (
                &[(Some(Trouble::Denied(PauseReason::Token)), None)],
                Some((900, Why::Denied(PauseReason::Token))),
            ),
        ] {
            assert_eq!(closed_after(notes), expected, "{notes:?}");
        }
    }

    #[test]
    fn what_was_asked_before_the_gate_was_closed_does_not_open_it() {
        let at = |seconds: i64| NOW.plus_millis(seconds * 1_000);
        let throttled = Some(Trouble::Throttled { wait_ms: Some(180_000) });
        let until = |gate: &Gate| gate.closed(at(5)).map(|closed| closed.until);
        let mut gate = Gate::default();
        gate.note(throttled, None, (at(0), at(2)), 0);
        gate.note(None, None, (at(1), at(3)), 0);
        assert_eq!(until(&gate), Some(at(182)), "a success that had been asked for before");
        gate.note(Some(Trouble::Passing { wait_ms: Some(1_000) }), None, (at(1), at(4)), 0);
        assert_eq!(until(&gate), Some(at(182)), "nor does a shorter wait");
        gate.note(None, None, (at(182), at(183)), 0);
        assert_eq!((until(&gate), gate.failures), (None, 0));
    }

    #[test]
    fn a_gate_opens_by_itself() {
        let mut gate = Gate::default();
        gate.note(Some(Trouble::Denied(PauseReason::Token)), None, (NOW, NOW), 0);
        assert!(gate.closed(NOW.plus_millis(899_999)).is_some());
        assert_eq!(gate.closed(NOW.plus_millis(900_000)), None);
    }
}
