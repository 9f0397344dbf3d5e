//! The kinds of trouble that Meta can be in for a while.

use crate::delivery::verdict::NoAnswer;
use crate::simulation::meta::{Course, Heard};

/// What Meta's weather may be: all requests go this way until it changes.
pub(super) const WEATHER: [Course; 10] = [
    Course { judged_after_ms: Some(2_000), heard_after_ms: 4_000, heard: Heard::Truth },
    unheard(None, 3, NoAnswer::NotConnected),
    unheard(None, 30_000, NoAnswer::TimedOut),
    unheard(Some(2_000), 30_000, NoAnswer::TimedOut),
    unheard(Some(5), 20, NoAnswer::Broken),
    said(503, ""),
    said(401, r#"{"error":{"code":190}}"#),
    said(403, r#"{"error":{"code":200}}"#),
    said(400, r#"{"error":{"code":100,"error_subcode":33}}"#),
    Course { judged_after_ms: None, heard_after_ms: 30, heard: Heard::Throttled(2_400) },
];

const fn unheard(judged_after_ms: Option<i64>, heard_after_ms: i64, why: NoAnswer) -> Course {
    Course { judged_after_ms, heard_after_ms, heard: Heard::Nothing(why) }
}

const fn said(status: u16, text: &'static str) -> Course {
    Course { judged_after_ms: None, heard_after_ms: 50, heard: Heard::Says(status, text) }
}
