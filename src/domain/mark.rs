//! How far the leads of a form have been read from Meta, so that reading goes on where it ended.
//!
//! A mark counts by Meta's clock, in which leads are dated. It never moves past a dated lead that
//! could not be read, and only at the end of a pass: Meta does not promise the order of a list. A
//! lead that is not dated can't hold a mark, which would then never move again.

use crate::domain::time::UnixSeconds;
use crate::limits::{BACKFILL_OVERLAP_S, EVENT_AGE_MAX_S};

/// The mark of one form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FormMark {
    /// Every lead that was created up to this second has been read.
    pub read_until: Option<UnixSeconds>,
    /// The pass that is under way, or was when we died.
    pub pass: Option<Pass>,
}

/// One reading of all leads that were created since a second, page by page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The second, included.
    pub since: UnixSeconds,
    /// Where the next page begins; the first page if there is none.
    pub after: Option<String>,
    /// When the newest lead so far was created.
    pub newest: Option<UnixSeconds>,
    /// When the oldest lead was created that could not be read.
    pub failed: Option<UnixSeconds>,
}

impl Pass {
    /// A pass that begins with the first page.
    pub const fn since(since: UnixSeconds) -> Self {
        Self { since, after: None, newest: None, failed: None }
    }

    /// A page was read: when the leads on it were created, and those that failed.
    pub fn add_page(
        &mut self,
        read: impl Iterator<Item = UnixSeconds>,
        failed: impl Iterator<Item = UnixSeconds>,
    ) {
        self.newest = self.newest.into_iter().chain(read).max();
        self.failed = self.failed.into_iter().chain(failed).min();
    }
}

impl FormMark {
    /// Since when leads are to be read if nobody says otherwise: from some time before the mark, as
    /// Meta may show a lead late; without a mark, from where events are still taken.
    pub fn since(&self, now: UnixSeconds) -> UnixSeconds {
        self.read_until.map_or(now + -EVENT_AGE_MAX_S, |until| until + -BACKFILL_OVERLAP_S)
    }

    /// The mark after a pass that read its last page.
    #[must_use]
    pub fn after(&self, pass: &Pass, now: UnixSeconds) -> Self {
        // A pass that leaves a gap behind the mark says nothing about what is in the gap.
        let leaves_gap = pass.since > self.read_until.unwrap_or_else(|| self.since(now));
        // Nor does one with a lead that failed where it began: it would move the mark back, and the
        // next one further. The mark stays, so that the next pass meets that lead again.
        let failed_at_begin = pass.failed.is_some_and(|created| created <= pass.since);
        let read_until = if leaves_gap || failed_at_begin {
            self.read_until
        } else {
            let reached = self.read_until.max(pass.newest);
            let before_failed = pass.failed.map(|created| created + -1);
            match (reached, before_failed) {
                (Some(reached), Some(before_failed)) => Some(reached.min(before_failed)),
                // Nothing was read yet, and the first lead failed.
                (None, Some(_)) => None,
                (reached, None) => reached,
            }
        };
        Self { read_until, pass: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds::new(1_762_000_000);

    fn ago(seconds: i64) -> UnixSeconds {
        NOW + -seconds
    }

    /// The mark after a pass over leads of these ages, some of which failed.
    fn after(mark: Option<i64>, since: i64, read: &[i64], failed: &[i64]) -> Option<i64> {
        let mark = FormMark { read_until: mark.map(ago), pass: None };
        let mut pass = Pass::since(ago(since));
        pass.add_page(read.iter().copied().map(ago), failed.iter().copied().map(ago));
        mark.after(&pass, NOW).read_until.map(|until| NOW - until)
    }

    #[test]
    fn a_mark_moves_to_the_newest_lead_and_never_past_one_that_failed() {
        const WEEK: i64 = EVENT_AGE_MAX_S;
        for (mark, since, read, failed, expected) in [
            (None, WEEK, &[500, 100, 300][..], &[][..], Some(100)),
            (None, WEEK, &[], &[], None),
            (None, WEEK, &[500, 100], &[300], Some(301)),
            (None, WEEK, &[], &[300], None),
            (None, WEEK, &[100], &[WEEK], None),
            (Some(1_000), 1_600, &[100], &[1_600], Some(1_000)),
            (Some(1_000), 1_600, &[100], &[500, 1_700], Some(1_000)),
            (Some(1_000), 1_600, &[1_500, 100], &[], Some(100)),
            (Some(1_000), 1_600, &[1_500], &[], Some(1_000)),
            (Some(1_000), 1_600, &[], &[], Some(1_000)),
            (Some(1_000), 1_600, &[100], &[1_200], Some(1_201)),
            (Some(1_000), 9_000, &[8_000, 100], &[], Some(100)),
        ] {
            let moved = after(mark, since, read, failed);
            assert_eq!(moved, expected, "{mark:?} {since} {read:?} {failed:?}");
        }
    }

    #[test]
    fn a_lead_that_failed_before_the_pass_holds_the_mark_where_it_is() {
        let mut mark = FormMark { read_until: Some(ago(1_000)), pass: None };
        for pass in 1..=2 {
            let mut pass_on = Pass::since(mark.since(NOW));
            pass_on.add_page([ago(100)].into_iter(), [pass_on.since].into_iter());
            mark = mark.after(&pass_on, NOW);
            assert_eq!(mark.read_until, Some(ago(1_000)), "pass {pass}");
        }
        // Once it can be read, the mark goes on.
        let mut pass = Pass::since(mark.since(NOW));
        pass.add_page([ago(100)].into_iter(), std::iter::empty());
        assert_eq!(mark.after(&pass, NOW).read_until, Some(ago(100)));
    }

    #[test]
    fn a_pass_that_leaves_a_gap_moves_no_mark() {
        assert_eq!(after(Some(1_000), 500, &[100], &[]), Some(1_000));
        assert_eq!(after(None, 3_600, &[100], &[]), None);
    }

    #[test]
    fn reading_goes_on_some_time_before_the_mark_or_a_week_ago() {
        let mark = |read_until| FormMark { read_until, pass: None };
        assert_eq!(mark(Some(ago(100))).since(NOW), ago(100 + BACKFILL_OVERLAP_S));
        assert_eq!(mark(None).since(NOW), ago(EVENT_AGE_MAX_S));
    }

    #[test]
    fn pages_add_up() {
        let mut pass = Pass::since(ago(1_000));
        pass.add_page([ago(10), ago(50)].into_iter(), [ago(40)].into_iter());
        pass.add_page([ago(90)].into_iter(), std::iter::empty());
        assert_eq!((pass.newest, pass.failed), (Some(ago(10)), Some(ago(40))));
    }
}
