//! The funnel: a dataset's stages in order, and what an update that skips some of them means.
//!
//! Meta builds its funnel from what arrives, and a lead that goes from the first stage to the last
//! tells it less than one that went through all (META 5). A skipped stage is never refused; it is
//! named, and filled in where the dataset wants that and where its time can be true: the lead did
//! reach it between the stage before and the one that was reported.

use crate::domain::stage::StageName;
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::{EVENT_AGE_MAX_S, SEND_MARGIN_S};

/// The stages of a dataset in the order in which a lead goes through them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Funnel {
    /// The stages, the raw lead left out.
    pub stages: Vec<StageName>,
    /// Whether skipped stages are sent right before the one that skipped them.
    pub fill_skipped: bool,
}

/// The stages before the reported one that the lead has not been reported to reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Those that stay missing.
    pub missing: Vec<StageName>,
    /// Those that are sent with the update, with their times.
    pub filled: Vec<(StageName, UnixSeconds)>,
}

impl Funnel {
    /// The stages before `stage` that are not among those `reached`.
    pub fn missing_before<'s>(
        &self,
        stage: &StageName,
        reached: impl IntoIterator<Item = &'s StageName>,
    ) -> Vec<StageName> {
        let reached: Vec<&StageName> = reached.into_iter().collect();
        let Some(place) = self.stages.iter().position(|known| known == stage) else {
            return Vec::new();
        };
        let earlier = self.stages[..place].iter();
        earlier.filter(|earlier| !reached.contains(earlier)).cloned().collect()
    }

    /// The stages that are missing before the furthest of those `reached`.
    pub fn missing_from(&self, reached: &[&StageName]) -> Vec<StageName> {
        let furthest = self.stages.iter().rev().find(|stage| reached.contains(stage));
        furthest
            .map(|stage| self.missing_before(stage, reached.iter().copied()))
            .unwrap_or_default()
    }

    /// Sorts out which of the missing stages can be filled in, each a second before the next: after
    /// `floor`, which is the lead's creation or the last stage that it was in before, and so that
    /// Meta still takes them.
    pub fn fill(
        &self,
        missing: Vec<StageName>,
        event_time: UnixSeconds,
        floor: UnixSeconds,
        now: Timestamp,
    ) -> Skipped {
        let oldest = now.seconds() + -(EVENT_AGE_MAX_S - SEND_MARGIN_S);
        let mut skipped = Skipped::default();
        let mut before_s = missing.len().cast_signed() as i64;
        for stage in missing {
            let time = event_time + -before_s;
            before_s -= 1;
            if self.fill_skipped && time > floor && time > oldest {
                skipped.filled.push((stage, time));
            } else {
                skipped.missing.push(stage);
            }
        }
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_762_000_000;

    fn stage(name: &str) -> StageName {
        StageName::parse(name).unwrap()
    }

    fn funnel(fill_skipped: bool) -> Funnel {
        let stages = ["qualified", "opportunity", "proposal", "won"].map(stage).to_vec();
        Funnel { stages, fill_skipped }
    }

    fn at(seconds: i64) -> UnixSeconds {
        UnixSeconds::new(NOW + seconds)
    }

    #[test]
    fn what_comes_before_and_was_not_reached_is_missing() {
        let missing = |name: &str, reached: &[&str]| {
            let reached: Vec<StageName> = reached.iter().copied().map(stage).collect();
            let missing = funnel(false).missing_before(&stage(name), &reached);
            missing.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(missing("won", &["qualified"]), ["opportunity", "proposal"]);
        assert_eq!(missing("qualified", &[]), [""; 0]);
        assert_eq!(missing("won", &["qualified", "opportunity", "proposal", "lost"]), [""; 0]);
        assert_eq!(missing("lost", &[]), [""; 0], "a stage outside the funnel skips nothing");
    }

    #[test]
    fn skipped_stages_are_filled_in_one_second_apart_where_they_fit() {
        let missing = || vec![stage("opportunity"), stage("proposal")];
        let now = at(500).timestamp();
        let filled = funnel(true).fill(missing(), at(100), at(0), now);
        let times = [(stage("opportunity"), at(98)), (stage("proposal"), at(99))];
        assert_eq!((filled.filled, filled.missing), (times.to_vec(), vec![]));
        let tight = funnel(true).fill(missing(), at(100), at(98), now);
        assert_eq!(tight.missing, [stage("opportunity")]);
        assert_eq!(tight.filled, [(stage("proposal"), at(99))]);
        let off = funnel(false).fill(missing(), at(100), at(0), now);
        assert_eq!((off.missing, off.filled), (missing(), vec![]));
    }

    proptest! {
        #[test]
        fn no_time_is_invented_before_the_floor_or_outside_seven_days(
            event_time in -800_000..0i64, floor in -800_000..0i64
        ) {
            let missing = vec![stage("qualified"), stage("opportunity"), stage("proposal")];
            let now = at(0).timestamp();
            let skipped = funnel(true).fill(missing, at(event_time), at(floor), now);
            prop_assert_eq!(skipped.filled.len() + skipped.missing.len(), 3);
            for (_, time) in skipped.filled {
                prop_assert!(time > at(floor) && time < at(event_time));
                prop_assert!(at(0) - time < EVENT_AGE_MAX_S);
            }
        }
    }
}
