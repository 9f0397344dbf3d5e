//! What an answer of the Graph API means for who asked: a pure function over the table of
//! [`crate::meta::errors`].

use crate::delivery::verdict::NoAnswer;
use crate::meta::conversions::read_answer;
use crate::meta::errors::{Kind, PauseReason, find_rule};
use crate::reader::source::GraphAnswer;

/// Leads Access Manager has withdrawn the app's access (META 1.4).
const LEADS_ACCESS_REVOKED: i64 = 103;

/// Why there is nothing to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It does not exist, may not be seen with this token, or can't be read yet: Meta does not tell
    /// which.
    NotFound,
    /// Too many calls: ask again when Meta lets us.
    Throttled {
        /// How long Meta asks to wait, in milliseconds.
        wait_ms: Option<u64>,
    },
    /// The token may not read until somebody mends something.
    Denied(PauseReason),
    /// It is Meta's trouble, or the network's, and passes.
    Passing {
        /// How long Meta asks to wait, in milliseconds.
        wait_ms: Option<u64>,
    },
    /// Meta does not understand the question; it is no use to ask it again.
    Refused,
}

/// Judges an answer: what can be read, or why nothing can.
pub fn judge(outcome: Result<GraphAnswer, NoAnswer>) -> Result<Vec<u8>, Trouble> {
    let answer = outcome.map_err(|_| Trouble::Passing { wait_ms: None })?;
    let wait_ms = answer.wait_s.map(|wait_s| wait_s.saturating_mul(1_000));
    let read = read_answer(answer.http_status, &answer.body);
    let Some(error) = read.error else {
        return match answer.http_status {
            200 => Ok(answer.body),
            404 => Err(Trouble::NotFound),
            429 => Err(Trouble::Throttled { wait_ms }),
            _ => Err(Trouble::Passing { wait_ms }),
        };
    };
    let transient = error.is_transient == Some(true) || answer.http_status >= 500;
    if error.code == Some(LEADS_ACCESS_REVOKED) {
        return Err(Trouble::Denied(PauseReason::Permission));
    }
    Err(match find_rule(error.code, error.subcode).map(|rule| rule.kind) {
        Some(Kind::Throttled) => Trouble::Throttled { wait_ms },
        _ if transient => Trouble::Passing { wait_ms },
        Some(Kind::Paused(PauseReason::Dataset)) => Trouble::NotFound,
        Some(Kind::Paused(reason)) => Trouble::Denied(reason),
        Some(Kind::Invalid { .. }) => Trouble::Refused,
        None if answer.http_status == 404 => Trouble::NotFound,
        None if answer.http_status == 429 => Trouble::Throttled { wait_ms },
        Some(Kind::Transient) | None => Trouble::Passing { wait_ms },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSING: Trouble = Trouble::Passing { wait_ms: None };
    const THROTTLED: Trouble = Trouble::Throttled { wait_ms: Some(180_000) };

    fn answer(http_status: u16, body: &str) -> GraphAnswer {
        GraphAnswer {
            http_status,
            body: body.as_bytes().to_vec(),
            wait_s: body.contains("8000").then_some(180),
            used_percent: None,
        }
    }

    #[test]
    fn a_200_without_an_error_is_what_was_asked_for() {
        assert_eq!(judge(Ok(answer(200, r#"{"id":"1"}"#))), Ok(br#"{"id":"1"}"#.to_vec()));
    }

    #[test]
    fn answers_are_judged_by_their_numbers() {
        for (status, code, subcode, expected) in [
            (400, 100, 33, Trouble::NotFound),
            (404, 803, 0, Trouble::NotFound),
            (404, 424_242, 0, Trouble::NotFound),
            (400, 100, 0, Trouble::Refused),
            (401, 190, 463, Trouble::Denied(PauseReason::Token)),
            (400, 102, 0, Trouble::Denied(PauseReason::Token)),
            (400, 10, 0, Trouble::Denied(PauseReason::Permission)),
            (403, 200, 0, Trouble::Denied(PauseReason::Permission)),
            (400, 103, 0, Trouble::Denied(PauseReason::Permission)),
            (400, 368, 0, Trouble::Denied(PauseReason::Blocked)),
            (400, 80_005, 0, THROTTLED),
            (400, 4, 0, Trouble::Throttled { wait_ms: None }),
            (400, 613, 0, Trouble::Throttled { wait_ms: None }),
            (500, 1, 0, PASSING),
            (503, 100, 33, PASSING),
            (400, 424_242, 0, PASSING),
            (429, 424_242, 0, Trouble::Throttled { wait_ms: None }),
        ] {
            let body = format!(r#"{{"error":{{"code":{code},"error_subcode":{subcode}}}}}"#);
            assert_eq!(judge(Ok(answer(status, &body))), Err(expected), "{status} {code}");
        }
    }

    #[test]
    fn without_an_error_in_it_the_status_counts() {
        for (status, expected) in [
            (404, Trouble::NotFound),
            (429, Trouble::Throttled { wait_ms: None }),
            (302, PASSING),
            (502, PASSING),
        ] {
            assert_eq!(judge(Ok(answer(status, "<html>"))), Err(expected), "{status}");
        }
        assert_eq!(judge(Err(NoAnswer::TimedOut)), Err(PASSING));
        let inside = r#"{"id":"1","error":{"code":2,"is_transient":true}}"#;
        assert_eq!(judge(Ok(answer(200, inside))), Err(PASSING));
    }
}
