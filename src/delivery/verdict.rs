//! What an answer of Meta's means for the events of its request: a pure function over the table of
//! [`crate::meta::errors`].

use crate::meta::conversions::{Answer, GraphError};
use crate::meta::errors::{Kind, PauseReason, find_rule};

/// Why there is no answer. It holds no address and no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// No connection; Meta can't have seen the request.
    #[error("no connection to the Graph API")]
    NotConnected,
    /// The answer did not come in time; Meta may have taken the events.
    #[error("the Graph API did not answer in time")]
    TimedOut,
    /// The connection broke; Meta may have taken the events.
    #[error("the connection to the Graph API broke")]
    Broken,
    /// The answer is larger than any answer of Meta's.
    #[error("the Graph API's answer is too large to be one")]
    TooLarge,
    /// The request could not be written.
    #[error("an event could not be written as JSON")]
    Unwritable,
}

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Meta has the events.
    Delivered,
    /// It has them not, or nobody knows: send them again, later.
    Retry {
        /// How long Meta asks to wait, in milliseconds.
        wait_ms: Option<u64>,
    },
    /// Too many calls: send them again when Meta lets us.
    Throttled {
        /// How long Meta asks to wait, in milliseconds.
        wait_ms: Option<u64>,
    },
    /// The dataset can't be sent to until somebody mends something; the events are kept.
    Paused(PauseReason),
    /// At least one event is wrong, and Meta took none: find it, and send the others.
    Invalid {
        /// For how long after its report this is not believed of an event, in milliseconds.
        doubt_ms: i64,
    },
}

/// Judges the outcome of a request that carried `sent` events.
///
/// A success is a 200 that says it received exactly what was sent and holds no error; a 200 that
/// says less is a failure (META 3.3). Errors are judged by their numbers (META 3.6); what nobody
/// knows is tried again, and never held against an event.
pub fn judge(outcome: &Result<Answer, NoAnswer>, sent: usize) -> Verdict {
    let answer = match outcome {
        Ok(answer) => answer,
        // Not Meta's verdict but ours; the event is found in the same way.
        Err(NoAnswer::Unwritable) => return Verdict::Invalid { doubt_ms: 0 },
        Err(_) => return Verdict::Retry { wait_ms: None },
    };
    let wait_ms = answer.wait_s.map(|wait_s| wait_s.saturating_mul(1_000));
    if let Some(error) = &answer.error {
        return judge_error(error, answer.http_status, wait_ms);
    }
    let received_all = answer.events_received == u64::try_from(sent).ok();
    match answer.http_status {
        200 if received_all => Verdict::Delivered,
        429 => Verdict::Throttled { wait_ms },
        // Too large as it is: its parts are not.
        413 => Verdict::Invalid { doubt_ms: 0 },
        _ => Verdict::Retry { wait_ms },
    }
}

fn judge_error(error: &GraphError, http_status: u16, wait_ms: Option<u64>) -> Verdict {
    let transient = error.is_transient == Some(true) || http_status >= 500;
    match find_rule(error.code, error.subcode).map(|rule| rule.kind) {
        Some(Kind::Throttled) => Verdict::Throttled { wait_ms },
        Some(Kind::Paused(reason)) => Verdict::Paused(reason),
        Some(Kind::Invalid { doubt_ms }) if !transient => Verdict::Invalid { doubt_ms },
        None if http_status == 429 => Verdict::Throttled { wait_ms },
        Some(Kind::Invalid { .. } | Kind::Transient) | None => Verdict::Retry { wait_ms },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::conversions::read_answer;

    const RETRY: Verdict = Verdict::Retry { wait_ms: None };
    const THROTTLED: Verdict = Verdict::Throttled { wait_ms: None };
    const INVALID: Verdict = Verdict::Invalid { doubt_ms: 0 };

    fn verdict(status: u16, body: &str) -> Verdict {
        judge(&Ok(read_answer(status, body.as_bytes())), 2)
    }

    fn verdict_on(status: u16, code: i64, subcode: i64) -> Verdict {
        verdict(status, &format!(r#"{{"error":{{"code":{code},"error_subcode":{subcode}}}}}"#))
    }

    #[test]
    fn only_a_full_and_faultless_200_is_a_delivery() {
        for (status, body, expected) in [
            (200, r#"{"events_received":2}"#, Verdict::Delivered),
            (200, r#"{"events_received":1}"#, RETRY),
            (200, r#"{"events_received":3}"#, RETRY),
            (200, r#"{"events_received":2,"error":{"code":1}}"#, RETRY),
            (
                200,
                r#"{"events_received":2,"error":{"code":190}}"#,
                Verdict::Paused(PauseReason::Token),
            ),
            (200, r#"{"events_received":2,"error":"boom"}"#, RETRY),
            (200, "{}", RETRY),
            (200, "<html>", RETRY),
            (201, r#"{"events_received":2}"#, RETRY),
            (302, "", RETRY),
            (404, "", RETRY),
            (413, "", INVALID),
            (429, "", THROTTLED),
            (503, "", RETRY),
        ] {
            assert_eq!(verdict(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn errors_are_judged_by_their_numbers() {
        for (status, code, subcode, expected) in [
            (400, 100, 2_804_003, INVALID),
            (400, 100, 2_804_050, INVALID),
            (400, 100, 0, INVALID),
            (400, 100, 2_804_036, Verdict::Invalid { doubt_ms: 600_000 }),
            (400, 100, 33, Verdict::Paused(PauseReason::Dataset)),
            (401, 190, 463, Verdict::Paused(PauseReason::Token)),
            (403, 200, 0, Verdict::Paused(PauseReason::Permission)),
            (403, 299, 0, Verdict::Paused(PauseReason::Permission)),
            (400, 368, 0, Verdict::Paused(PauseReason::Blocked)),
            (400, 4, 0, THROTTLED),
            (400, 80_014, 0, THROTTLED),
            (400, 2, 0, RETRY),
            (500, 1, 0, RETRY),
            (400, 987_654, 0, RETRY),
            (429, 987_654, 0, THROTTLED),
            (503, 100, 2_804_003, RETRY),
        ] {
            assert_eq!(verdict_on(status, code, subcode), expected, "{status} {code}/{subcode}");
        }
    }

    #[test]
    fn what_meta_calls_transient_is_never_held_against_an_event() {
        let body = r#"{"error":{"code":100,"error_subcode":2804003,"is_transient":true}}"#;
        assert_eq!(verdict(400, body), RETRY);
    }

    #[test]
    fn the_wait_that_meta_asks_for_goes_along() {
        let answer = Answer { wait_s: Some(90), ..read_answer(400, br#"{"error":{"code":17}}"#) };
        assert_eq!(judge(&Ok(answer), 1), Verdict::Throttled { wait_ms: Some(90_000) });
    }

    #[test]
    fn no_answer_is_no_delivery() {
        for error in [NoAnswer::NotConnected, NoAnswer::TimedOut, NoAnswer::Broken] {
            assert_eq!(judge(&Err(error), 1), RETRY);
        }
        assert_eq!(judge(&Err(NoAnswer::Unwritable), 2), INVALID, "one of them is to be found");
    }
}
