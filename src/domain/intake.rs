//! What becomes of a stage update, given what is known of its lead: decisions without a store.
//!
//! A store gathers the facts inside its transaction, asks here, and writes what it is told; so all
//! stores decide alike.

use crate::domain::event::{DeadReason, Event, StageUpdate};
use crate::domain::lead::{Lead, RawLead};
use crate::domain::matching::Ambiguous;
use crate::domain::rules::{AcceptedTime, RefusedTime, judge_event_time};
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::EVENTS_PER_LEAD_MAX;

/// Why a stage update is not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its time breaks a rule.
    #[error(transparent)]
    Time(#[from] RefusedTime),
    /// The lead is unknown and the source is strict.
    #[error("no lead is known that this is about")]
    LeadNotFound,
    /// It would be sent without a lead, and says too little of the person.
    #[error("without a lead this says too little of the customer: Meta would refuse it")]
    CustomerInsufficient,
    /// Several leads fit, and the source wants to be told.
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
    /// The lead was erased, and nothing about it is stored any more.
    #[error("this lead was erased")]
    LeadErased,
    /// The lead comes from Meta's *Test* button.
    #[error("this lead comes from Meta's Test button and is never sent to a dataset")]
    LeadIsTest,
    /// The idempotency key was used for a report with other content.
    #[error("this idempotency key was used before with other content")]
    IdempotencyConflict,
    /// The lead has as many events as one may have.
    #[error("this lead has {EVENTS_PER_LEAD_MAX} events already")]
    TooManyEvents,
}

/// What to do with an update that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It was reported before: this one of the lead's events says the same.
    Known {
        /// Index among the events that were given.
        sibling: usize,
    },
    /// It is new, with this time; if the lead is unknown the event waits for it.
    New {
        /// The time as reported, or now.
        reported_time: UnixSeconds,
        /// The time to tell Meta.
        event_time: UnixSeconds,
        /// The tolerance to judge it with again when its lead arrives, in seconds.
        tolerance_s: u32,
    },
}

/// Decides on an update. `siblings` are the lead's events so far, also those that await it.
///
/// # Errors
/// [`Refusal`]; nothing is to be stored then.
pub fn decide(
    update: &StageUpdate,
    lead: Option<&Lead>,
    siblings: &[Event],
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let reported_time = update.reported_time(now);
    let known = |time| siblings.iter().position(|event| event.says(&update.stage, time));
    let created_time = lead.and_then(Lead::created_time);
    let raw_time = created_time.filter(|_| lead.is_some_and(|it| it.is_raw_stage(&update.stage)));
    if let Some(sibling) = raw_time.and_then(|created_time| known(created_time + 1)) {
        return Ok(Decision::Known { sibling });
    }
    // What is known keeps its first answer, even when its time would be refused by now.
    if let Some(sibling) = known(reported_time) {
        return Ok(Decision::Known { sibling });
    }
    match lead {
        None if update.policy.strict => return Err(Refusal::LeadNotFound),
        Some(lead) if lead.raw_lead == RawLead::SkippedTest => return Err(Refusal::LeadIsTest),
        Some(lead) if lead.is_unknown() && !update.customer.is_sendable_alone() => {
            return Err(Refusal::CustomerInsufficient);
        }
        _ => {}
    }
    let tolerance_s = update.tolerance_s();
    let AcceptedTime { event_time, .. } =
        judge_event_time(reported_time, created_time, now, tolerance_s)?;
    if let Some(sibling) = known(event_time) {
        return Ok(Decision::Known { sibling });
    }
    if siblings.len() >= EVENTS_PER_LEAD_MAX {
        return Err(Refusal::TooManyEvents);
    }
    Ok(Decision::New { reported_time, event_time, tolerance_s })
}

/// Decides on an event that waited for its lead, now that the lead is here. `siblings` are the
/// lead's events that are decided already, its raw-lead event among them.
///
/// # Errors
/// The reason for which it becomes a dead letter.
pub fn decide_awaited(
    event: &Event,
    lead: &Lead,
    siblings: &[Event],
    tolerance_s: u32,
    now: Timestamp,
) -> Result<UnixSeconds, DeadReason> {
    if lead.raw_lead == RawLead::SkippedTest {
        return Err(DeadReason::LeadIsTest);
    }
    // Meta would refuse the whole batch with it.
    if lead.is_unknown() && !event.customer.is_sendable_alone() {
        return Err(DeadReason::LeadNotFound);
    }
    let verdict = judge_event_time(event.reported_time, lead.created_time(), now, tolerance_s);
    let event_time = match verdict {
        Ok(accepted) => accepted.event_time,
        Err(RefusedTime::NotAfterLead { .. }) => return Err(DeadReason::EventTimeNotAfterLead),
        Err(RefusedTime::TooOld { .. }) => return Err(DeadReason::Expired),
        // It was not in the future when it was taken in: our clock went back. It is held.
        Err(RefusedTime::InFuture { event_time }) => event_time,
    };
    let is_known = siblings.iter().any(|sibling| sibling.says(&event.stage, event_time));
    if is_known || lead.is_raw_stage(&event.stage) {
        return Err(DeadReason::Duplicate);
    }
    Ok(event_time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::customer::Customer;
    use crate::domain::event::SourcePolicy;
    use crate::domain::ids::LeadId;
    use crate::domain::lead::ReportedLead;
    use crate::domain::matching::Ambiguity;
    use crate::domain::stage::{SourceName, StageName};

    const CREATED: i64 = 1_762_000_000;

    fn at(seconds: i64) -> Timestamp {
        UnixSeconds::new(CREATED + seconds).timestamp()
    }

    fn lead_id() -> LeadId {
        LeadId::from_u64(1_234_567_890_123_456).unwrap()
    }

    fn lead(test: bool) -> Lead {
        let reported = ReportedLead {
            lead_id: lead_id(),
            page_id: None,
            form_id: None,
            ad_id: None,
            created_time: UnixSeconds::new(CREATED),
            test,
        };
        Lead::new(reported, SourceName::webhook(), None, stage("initial_lead"), at(0))
    }

    fn stage(name: &str) -> StageName {
        StageName::parse(name).unwrap()
    }

    fn update(name: &str, time: Option<i64>, policy: SourcePolicy) -> StageUpdate {
        StageUpdate {
            lead: lead_id().into(),
            stage: stage(name),
            event_time: time.map(|time| UnixSeconds::new(CREATED + time)),
            came_at: None,
            source: SourceName::unnamed_crm(),
            idempotency_key: None,
            customer: Customer::default(),
            custom_data: None,
            policy,
        }
    }

    const EXACT: SourcePolicy = SourcePolicy {
        clock_tolerance_s: 0,
        strict: false,
        ambiguity: Ambiguity::Newest,
        send_unmatched: false,
        dataset_id: None,
    };
    const STRICT: SourcePolicy = SourcePolicy { strict: true, ..EXACT };
    const MINUTES: SourcePolicy = SourcePolicy { clock_tolerance_s: 60, ..EXACT };

    #[test]
    fn an_unknown_lead_is_awaited_and_refused_in_strict_mode() {
        let decision = decide(&update("won", Some(5), EXACT), None, &[], at(10));
        assert!(matches!(decision, Ok(Decision::New { .. })));
        let refused = decide(&update("won", Some(5), STRICT), None, &[], at(10));
        assert_eq!(refused, Err(Refusal::LeadNotFound));
    }

    #[test]
    fn a_time_that_was_not_given_is_now_and_forgives_our_own_clock() {
        let decision = decide(&update("won", None, EXACT), Some(&lead(false)), &[], at(-30));
        let lifted = UnixSeconds::new(CREATED + 1);
        assert!(matches!(decision, Ok(Decision::New { event_time, .. }) if event_time == lifted));
        let given = decide(&update("won", Some(-30), EXACT), Some(&lead(false)), &[], at(-30));
        assert!(matches!(given, Err(Refusal::Time(RefusedTime::NotAfterLead { .. }))));
    }

    #[test]
    fn what_is_known_is_known_even_when_it_is_too_old_by_now() {
        let first = update("won", Some(5), EXACT).into_event(
            lead_id(),
            UnixSeconds::new(CREATED + 5),
            UnixSeconds::new(CREATED + 5),
            at(6),
        );
        let again =
            decide(&update("won", Some(5), EXACT), Some(&lead(false)), &[first], at(30 * 86_400));
        assert_eq!(again, Ok(Decision::Known { sibling: 0 }));
    }

    #[test]
    fn two_reports_that_are_lifted_to_the_same_second_are_one_event() {
        let (reported, lifted) = (UnixSeconds::new(CREATED - 10), UnixSeconds::new(CREATED + 1));
        let first =
            update("won", Some(-10), MINUTES).into_event(lead_id(), reported, lifted, at(6));
        let second =
            decide(&update("won", Some(-20), MINUTES), Some(&lead(false)), &[first], at(7));
        assert_eq!(second, Ok(Decision::Known { sibling: 0 }));
    }

    #[test]
    fn the_raw_stage_reported_by_the_crm_is_the_raw_event_again() {
        let raw = lead(false).raw_event().unwrap();
        let decision =
            decide(&update("initial_lead", Some(1), EXACT), Some(&lead(false)), &[raw], at(9));
        assert_eq!(decision, Ok(Decision::Known { sibling: 0 }));
    }

    #[test]
    fn the_raw_stage_is_reached_once_whenever_the_crm_says_so() {
        let raw = lead(false).raw_event().unwrap();
        for time in [None, Some(-5), Some(0), Some(400), Some(-30 * 86_400)] {
            let update = update("initial_lead", time, EXACT);
            let decision = decide(&update, Some(&lead(false)), std::slice::from_ref(&raw), at(500));
            assert_eq!(decision, Ok(Decision::Known { sibling: 0 }), "{time:?}");
        }
        let (time, update) = (UnixSeconds::new(CREATED + 400), update("initial_lead", None, EXACT));
        let awaited = update.into_event(lead_id(), time, time, at(500));
        let verdict = decide_awaited(&awaited, &lead(false), &[raw], 0, at(500));
        assert_eq!(verdict, Err(DeadReason::Duplicate));
    }

    #[test]
    fn a_stage_that_was_filled_in_is_known_when_the_crm_reports_it_with_its_own_time() {
        let later = update("won", Some(50), EXACT);
        let time = UnixSeconds::new(CREATED + 49);
        let filled = later.filler(lead_id(), stage("qualified"), time, at(60));
        let reported = update("qualified", Some(20), EXACT);
        let decision = decide(&reported, Some(&lead(false)), std::slice::from_ref(&filled), at(70));
        assert_eq!(decision, Ok(Decision::Known { sibling: 0 }));
        let own = Event { source: SourceName::unnamed_crm(), ..filled };
        let decision = decide(&reported, Some(&lead(false)), &[own], at(70));
        assert!(
            matches!(decision, Ok(Decision::New { .. })),
            "reported twice, it was reached twice"
        );
    }

    #[test]
    fn a_test_lead_takes_no_stage_and_a_lead_only_so_many() {
        let refused = decide(&update("won", Some(5), EXACT), Some(&lead(true)), &[], at(9));
        assert_eq!(refused, Err(Refusal::LeadIsTest));
        let raw = lead(false).raw_event().unwrap();
        let full = vec![raw; EVENTS_PER_LEAD_MAX];
        let refused = decide(&update("won", Some(5), EXACT), Some(&lead(false)), &full, at(9));
        assert_eq!(refused, Err(Refusal::TooManyEvents));
    }

    #[test]
    fn an_awaited_event_is_judged_by_the_lead_that_arrives() {
        let awaited = |time: i64| {
            let time = UnixSeconds::new(CREATED + time);
            update("won", None, EXACT).into_event(lead_id(), time, time, at(9))
        };
        let decide = |time, tolerance_s, now| {
            decide_awaited(&awaited(time), &lead(false), &[], tolerance_s, at(now))
        };
        assert_eq!(decide(5, 0, 9), Ok(UnixSeconds::new(CREATED + 5)));
        assert_eq!(decide(0, 0, 9), Err(DeadReason::EventTimeNotAfterLead));
        assert_eq!(decide(0, 60, 9), Ok(UnixSeconds::new(CREATED + 1)));
        assert_eq!(decide(5, 0, 8 * 86_400), Err(DeadReason::Expired));
        assert_eq!(decide(5, 0, 1), Ok(UnixSeconds::new(CREATED + 5)), "our clock went back");
        let test = decide_awaited(&awaited(5), &lead(true), &[], 0, at(9));
        assert_eq!(test, Err(DeadReason::LeadIsTest));
        let twin = decide_awaited(&awaited(5), &lead(false), &[awaited(5)], 0, at(9));
        assert_eq!(twin, Err(DeadReason::Duplicate));
    }
}
