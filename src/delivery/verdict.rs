//! What an answer of Meta's means: a pure function, and the seam for the whole table of errors.
//!
//! In this first form there are two verdicts. Whatever is not plainly a success is tried again, and
//! goes on being tried until the event's seven days are over.

use crate::meta::conversions::Answer;

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
    Retry,
}

/// Judges the outcome of a request that carried `sent` events.
///
/// A success is a 200 that says it received exactly what was sent and holds no error; a 200 that
/// says less is a failure (META 3.3).
pub fn judge(outcome: &Result<Answer, NoAnswer>, sent: usize) -> Verdict {
    let received_all = |answer: &Answer| {
        answer.http_status == 200
            && answer.error.is_none()
            && answer.events_received == u64::try_from(sent).ok()
    };
    match outcome {
        Ok(answer) if received_all(answer) => Verdict::Delivered,
        Ok(_) | Err(_) => Verdict::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::conversions::read_answer;

    #[test]
    fn only_a_full_and_faultless_200_is_a_delivery() {
        for (status, body, verdict) in [
            (200, r#"{"events_received":2}"#, Verdict::Delivered),
            (200, r#"{"events_received":1}"#, Verdict::Retry),
            (200, r#"{"events_received":3}"#, Verdict::Retry),
            (200, r#"{"events_received":2,"error":{"code":1}}"#, Verdict::Retry),
            (200, "{}", Verdict::Retry),
            (200, "<html>", Verdict::Retry),
            (201, r#"{"events_received":2}"#, Verdict::Retry),
            (400, r#"{"error":{"code":100,"error_subcode":2804003}}"#, Verdict::Retry),
            (401, r#"{"error":{"code":190}}"#, Verdict::Retry),
            (503, "", Verdict::Retry),
        ] {
            let outcome = Ok(read_answer(status, body.as_bytes()));
            assert_eq!(judge(&outcome, 2), verdict, "{status} {body}");
        }
    }

    #[test]
    fn no_answer_is_no_delivery() {
        for error in [NoAnswer::NotConnected, NoAnswer::TimedOut, NoAnswer::Broken] {
            assert_eq!(judge(&Err(error), 1), Verdict::Retry);
        }
    }
}
