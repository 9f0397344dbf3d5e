//! What became of the rows, in numbers: nothing in it is a person's.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::limits::{IMPORT_LINES_SHOWN_MAX, IMPORT_PROBLEMS_SHOWN_MAX, IMPORT_ROUND_IDS_MIN};

/// What became of all rows so far.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// Rows that are new.
    pub(super) accepted: u64,
    /// Rows that were reported before.
    pub(super) known: u64,
    /// Of both, those whose lead is not known.
    awaiting_lead: u64,
    /// Long ids that end in zeros, and that do not.
    round_ids: [u64; 2],
    /// By code and kind of detail.
    refused: BTreeMap<(String, String), Refused>,
    left_out: BTreeMap<(String, String), Seen>,
}

/// The first lines with something, and how many there are.
#[derive(Debug, Default)]
struct Seen {
    rows: u64,
    lines: Vec<u64>,
}

#[derive(Debug, Default)]
struct Refused {
    seen: Seen,
    /// What was said of the first.
    detail: String,
}

/// What is the same in all details that differ in numbers only, such as times and ids.
fn kind(detail: &str) -> String {
    detail.split(|c: char| c.is_ascii_digit()).filter(|text| !text.is_empty()).collect()
}

impl Seen {
    fn add(&mut self, line: u64) {
        self.rows += 1;
        if self.lines.len() < IMPORT_LINES_SHOWN_MAX {
            self.lines.push(line);
        }
    }
}

impl Summary {
    /// All rows.
    pub(super) fn rows(&self) -> u64 {
        self.accepted + self.known + self.refused()
    }

    /// Rows that were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused.values().map(|refused| refused.seen.rows).sum()
    }

    /// Adds a row that is refused.
    pub(super) fn refuse(&mut self, line: u64, code: &str, detail: &str) {
        let mut key = (code.to_owned(), kind(detail));
        if self.refused.len() >= IMPORT_PROBLEMS_SHOWN_MAX && !self.refused.contains_key(&key) {
            key.1 = String::new();
        }
        let refused = self.refused.entry(key).or_default();
        if refused.seen.rows == 0 {
            detail.clone_into(&mut refused.detail);
        }
        refused.seen.add(line);
    }

    /// Adds the server's verdict on a row, and tells its problem if it is refused.
    pub(super) fn add(&mut self, line: u64, result: &Value) -> Option<String> {
        let text = |name: &str| result[name].as_str().unwrap_or_default();
        match result["status"].as_u64() {
            Some(202) => self.accepted += 1,
            Some(200) => self.known += 1,
            _ => {
                let code = result["code"].as_str().unwrap_or("unknown");
                self.refuse(line, code, text("detail"));
                return Some(format!("{code}: {}", text("detail")));
            }
        }
        self.awaiting_lead += u64::from(text("state") == "awaiting_lead");
        for value in result["left_out"].as_array().into_iter().flatten() {
            let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
            self.left_out.entry((text("field"), text("reason"))).or_default().add(line);
        }
        None
    }

    /// Notes whether a long id ends in zeros.
    pub(super) fn note_id(&mut self, ends_in_zeros: Option<bool>) {
        if let Some(ends_in_zeros) = ends_in_zeros {
            self.round_ids[usize::from(!ends_in_zeros)] += 1;
        }
    }

    /// Whether the ids look as if a spreadsheet had rounded all of them. One in ten ends in a zero
    /// anyway, so a few are no sign.
    pub(super) fn has_round_ids(&self) -> bool {
        let [round, other] = self.round_ids;
        round >= IMPORT_ROUND_IDS_MIN && other == 0
    }

    /// The summary as it is printed.
    pub(super) fn to_json(&self, dry_run: bool) -> Value {
        let refused = self.refused.iter().map(|((code, _), refused)| {
            let Seen { rows, lines } = &refused.seen;
            json!({"code": code, "rows": rows, "lines": lines, "detail": refused.detail})
        });
        let left_out = self.left_out.iter().map(|((field, reason), Seen { rows, lines })| {
            json!({"field": field, "reason": reason, "rows": rows, "lines": lines})
        });
        json!({
            "dry_run": dry_run,
            "rows": self.rows(),
            "accepted": self.accepted,
            "awaiting_lead": self.awaiting_lead,
            "known": self.known,
            "refused": refused.collect::<Vec<_>>(),
            "left_out": left_out.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_suspected_when_all_of_many_end_in_zeros() {
        let mut summary = Summary::default();
        for _ in 0..IMPORT_ROUND_IDS_MIN {
            assert!(!summary.has_round_ids());
            summary.note_id(Some(true));
            summary.note_id(None);
        }
        assert!(summary.has_round_ids());
        summary.note_id(Some(false));
        assert!(!summary.has_round_ids());
    }

    #[test]
    fn verdicts_are_summed_up_and_the_first_lines_are_named() {
        let mut summary = Summary::default();
        let left_out = json!([{"field": "customer.ph", "reason": "impossible_value"}]);
        summary.add(2, &json!({"status": 202, "state": "awaiting_lead", "left_out": left_out}));
        assert_eq!(summary.add(3, &json!({"status": 200, "state": "delivered"})), None);
        for line in 4..20 {
            let refused = json!({"status": 422, "code": "event_time_too_old", "detail": "since"});
            let told = summary.add(line, &refused);
            assert_eq!(told.as_deref(), Some("event_time_too_old: since"));
        }
        summary.refuse(20, "event_time_missing", "none");
        assert_eq!((summary.rows(), summary.refused()), (19, 17));
        assert_eq!(
            summary.to_json(true),
            json!({
                "dry_run": true, "rows": 19, "accepted": 1, "awaiting_lead": 1, "known": 1,
                "refused": [
                    {"code": "event_time_missing", "rows": 1, "lines": [20], "detail": "none"},
                    {"code": "event_time_too_old", "rows": 16, "lines": [4, 5, 6, 7, 8],
                     "detail": "since"},
                ],
                "left_out": [{"field": "customer.ph", "reason": "impossible_value", "rows": 1,
                              "lines": [2]}],
            })
        );
    }
    #[test]
    fn refused_rows_are_told_apart_by_code_and_words_but_not_by_numbers() {
        let mut summary = Summary::default();
        let code = "invalid_request";
        for line in 2..9 {
            summary.refuse(line, code, &format!("the time 17620005{line}0 is in milliseconds"));
        }
        summary.refuse(9, code, "stage is empty");
        let refused = summary.to_json(true)["refused"].take();
        assert_eq!(
            refused,
            json!([
                {"code": code, "rows": 1, "lines": [9], "detail": "stage is empty"},
                {"code": code, "rows": 7, "lines": [2, 3, 4, 5, 6],
                 "detail": "the time 1762000520 is in milliseconds"},
            ])
        );
    }

    #[test]
    fn kinds_of_problems_have_a_bound_and_every_row_is_counted() {
        let mut summary = Summary::default();
        let words = |n: usize| "x".repeat(n + 1);
        (0..3 * IMPORT_PROBLEMS_SHOWN_MAX).for_each(|n| summary.refuse(n as u64, "c", &words(n)));
        let shown = summary.to_json(true)["refused"].as_array().unwrap().len();
        assert_eq!(shown, IMPORT_PROBLEMS_SHOWN_MAX + 1);
        assert_eq!(summary.refused(), 3 * IMPORT_PROBLEMS_SHOWN_MAX as u64);
    }
}
