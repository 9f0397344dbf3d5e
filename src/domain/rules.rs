//! The rules of `event_time`: one pure function, the heart of the product.
//!
//! Meta refuses what is older than 7 days or in the future, with the whole batch, and silently
//! discards what is not after the lead's creation (META 3.4, 6). So nothing of the kind is let in.
//! The function judges a report when it arrives, and again when a lead that it waited for does.

use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::EVENT_AGE_MAX_S;

/// A time that may be sent, now or when it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedTime {
    /// The time to tell Meta.
    pub event_time: UnixSeconds,
    /// Whether it was lifted to one second after the lead's creation.
    pub adjusted: bool,
}

/// A time that must not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedTime {
    /// At or before the lead's creation.
    #[error("event_time {event_time} is not after the lead's created_time {lead_created_time}")]
    NotAfterLead {
        /// As reported.
        event_time: UnixSeconds,
        /// When the lead was created.
        lead_created_time: UnixSeconds,
    },
    /// Older than 7 days.
    #[error("event_time {event_time} is more than 7 days ago; Meta would refuse it")]
    TooOld {
        /// As reported.
        event_time: UnixSeconds,
    },
    /// Later than now, and by more than the source's clock may be off.
    #[error("event_time {event_time} is in the future")]
    InFuture {
        /// As reported.
        event_time: UnixSeconds,
    },
}

/// Judges the time of an event.
///
/// `lead_created_time` is `None` while the lead is unknown; the rules that need it wait until it
/// arrives. `tolerance_s` is how far the reporting clock may be off.
///
/// # Errors
/// [`RefusedTime`], in this order of precedence: not after the lead, too old, in the future.
pub fn judge_event_time(
    reported: UnixSeconds,
    lead_created_time: Option<UnixSeconds>,
    now: Timestamp,
    tolerance_s: u32,
) -> Result<AcceptedTime, RefusedTime> {
    let tolerance_s = i64::from(tolerance_s);
    let mut event_time = reported;
    if let Some(lead_created_time) = lead_created_time
        && reported <= lead_created_time
    {
        let short_by_s = lead_created_time - reported;
        if tolerance_s == 0 || short_by_s > tolerance_s {
            return Err(RefusedTime::NotAfterLead { event_time: reported, lead_created_time });
        }
        event_time = lead_created_time + 1;
    }
    let age_ms = now.millis_since(event_time.timestamp());
    if age_ms > EVENT_AGE_MAX_S * 1_000 {
        return Err(RefusedTime::TooOld { event_time: reported });
    }
    // A lifted time is the lead's, by Meta's own clock; it is held until it is due, however long.
    let adjusted = event_time != reported;
    if !adjusted && event_time - now.seconds() > tolerance_s {
        return Err(RefusedTime::InFuture { event_time: reported });
    }
    Ok(AcceptedTime { event_time, adjusted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEAD: i64 = 1_762_000_000;
    const DAY: i64 = 86_400;

    /// Judges `LEAD + reported` at `LEAD + now`, and answers in seconds after `LEAD`.
    fn judge(reported: i64, now: i64, tolerance_s: u32) -> Result<(i64, bool), RefusedTime> {
        judge_event_time(
            UnixSeconds::new(LEAD + reported),
            Some(UnixSeconds::new(LEAD)),
            UnixSeconds::new(LEAD + now).timestamp(),
            tolerance_s,
        )
        .map(|accepted| (accepted.event_time.get() - LEAD, accepted.adjusted))
    }

    fn not_after(reported: i64) -> Result<(i64, bool), RefusedTime> {
        let event_time = UnixSeconds::new(LEAD + reported);
        let lead_created_time = UnixSeconds::new(LEAD);
        Err(RefusedTime::NotAfterLead { event_time, lead_created_time })
    }

    fn too_old(reported: i64) -> Result<(i64, bool), RefusedTime> {
        Err(RefusedTime::TooOld { event_time: UnixSeconds::new(LEAD + reported) })
    }

    fn in_future(reported: i64) -> Result<(i64, bool), RefusedTime> {
        Err(RefusedTime::InFuture { event_time: UnixSeconds::new(LEAD + reported) })
    }

    #[test]
    fn at_or_before_the_leads_creation_is_refused() {
        assert_eq!(judge(0, 500, 0), not_after(0));
        assert_eq!(judge(-1, 500, 0), not_after(-1));
        assert_eq!(judge(1, 500, 0), Ok((1, false)));
    }

    #[test]
    fn within_the_tolerance_it_is_lifted_to_one_second_after() {
        assert_eq!(judge(0, 500, 60), Ok((1, true)));
        assert_eq!(judge(-60, 500, 60), Ok((1, true)));
        assert_eq!(judge(-61, 500, 60), not_after(-61));
        assert_eq!(judge(0, 0, 60), Ok((1, true)), "held for the one second that is missing");
    }

    #[test]
    fn older_than_seven_days_is_refused_to_the_millisecond() {
        assert_eq!(judge(10, 10 + 7 * DAY, 0), Ok((10, false)));
        assert_eq!(judge(10, 11 + 7 * DAY, 0), too_old(10));
        let one_ms_over = UnixSeconds::new(LEAD + 10 + 7 * DAY).timestamp().plus_millis(1);
        let reported = UnixSeconds::new(LEAD + 10);
        let verdict = judge_event_time(reported, None, one_ms_over, 0);
        assert_eq!(verdict, Err(RefusedTime::TooOld { event_time: reported }));
    }

    #[test]
    fn a_tolerance_never_makes_an_old_event_young() {
        assert_eq!(judge(10, 11 + 7 * DAY, 3_600), too_old(10));
        assert_eq!(judge(0, 2 + 7 * DAY, 60), too_old(0), "not even when it is lifted");
    }

    #[test]
    fn the_future_is_refused_beyond_the_tolerance() {
        assert_eq!(judge(501, 500, 0), in_future(501));
        assert_eq!(judge(560, 500, 60), Ok((560, false)));
        assert_eq!(judge(561, 500, 60), in_future(561));
    }

    #[test]
    fn before_the_lead_goes_before_too_old() {
        assert_eq!(judge(-1, 8 * DAY, 0), not_after(-1));
    }

    #[test]
    fn an_unknown_lead_leaves_the_other_rules_standing() {
        let judge = |reported, now: i64| {
            let now = UnixSeconds::new(now).timestamp();
            judge_event_time(UnixSeconds::new(reported), None, now, 0).is_ok()
        };
        assert!(judge(LEAD, LEAD));
        assert!(!judge(LEAD + 1, LEAD));
        assert!(!judge(LEAD, LEAD + 7 * DAY + 1));
    }

    proptest! {
        #[test]
        fn an_accepted_event_is_after_its_lead_within_seven_days_and_due_within_the_tolerance(
            reported in -10 * DAY..10 * DAY,
            now_ms in -1_000 * DAY..10_000 * DAY,
            tolerance_s in 0..3_600u32
        ) {
            let lead = UnixSeconds::new(LEAD);
            let now = lead.timestamp().plus_millis(now_ms);
            let reported = UnixSeconds::new(LEAD + reported);
            if let Ok(accepted) = judge_event_time(reported, Some(lead), now, tolerance_s) {
                let time = accepted.event_time;
                prop_assert!(time > lead, "after the lead");
                prop_assert!(now.millis_since(time.timestamp()) <= EVENT_AGE_MAX_S * 1_000);
                prop_assert_eq!(accepted.adjusted, time != reported);
                let ahead_s = time - now.seconds();
                prop_assert!(accepted.adjusted || ahead_s <= i64::from(tolerance_s));
                prop_assert!((time - reported).abs() <= i64::from(tolerance_s) + 1);
            }
        }

        #[test]
        fn what_was_accepted_once_is_accepted_again_until_it_is_too_old(
            reported in 1..7 * DAY, later_s in 0..8 * DAY
        ) {
            prop_assert!(judge(reported, reported, 0).is_ok());
            let verdict = judge(reported, reported + later_s, 0);
            prop_assert_eq!(verdict.is_ok(), later_s <= 7 * DAY);
        }
    }
}
