//! Meta's error codes: what each means, what becomes of the events, and what a person can do.
//!
//! The table is facts (META 3.6), in the order in which it is searched; the first row that fits
//! counts. It judges by numbers only, since the texts come in the language of the token's owner.
//! It is also the page `docs/reference/meta-errors.md`, which a test keeps equal to it.

use std::ops::RangeInclusive;

/// What an error says about the events of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: it is Meta's trouble, and passes.
    Transient,
    /// Too many calls; the usage headers say how long to wait.
    Throttled,
    /// The dataset can't be sent to until somebody mends something.
    Paused(PauseReason),
    /// At least one event of the request is wrong, and Meta took none of them.
    Invalid {
        /// For so many milliseconds after an event was reported, it is not believed of that event:
        /// Meta may not know a lead yet that it has just told us of, and clocks differ.
        doubt_ms: i64,
    },
}

/// Why a dataset is not sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// The token is invalid, expired or withdrawn.
    Token,
    /// The token may not do this.
    Permission,
    /// The dataset does not exist, or the token does not hold it.
    Dataset,
    /// Meta has blocked the app or the action.
    Blocked,
    /// Meta refused event after event and took none: it is not the events.
    Refusals,
}

impl PauseReason {
    /// Every reason.
    pub const ALL: &[Self] =
        &[Self::Token, Self::Permission, Self::Dataset, Self::Blocked, Self::Refusals];

    /// The reason's stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Permission => "permission",
            Self::Dataset => "dataset",
            Self::Blocked => "blocked",
            Self::Refusals => "refusals",
        }
    }

    /// What a person can do; delivery goes on by itself afterwards.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Token => "Make a new token for the dataset and set it.",
            Self::Permission => "Give the token's owner the dataset and the right to manage it.",
            Self::Dataset => "Check the dataset id, and that the token's owner holds the dataset.",
            Self::Blocked => "Look into the app's and the business's alerts at Meta.",
            Self::Refusals => {
                "Look at the last dead letters: Meta refuses every event, so it may be the app's \
                 settings (such as a required appsecret_proof), partner_agent or test_event_code."
            }
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct ErrorRule {
    /// The codes it is about.
    pub codes: RangeInclusive<i64>,
    /// The subcode it is about; any if there is none.
    pub subcode: Option<i64>,
    /// What follows.
    pub kind: Kind,
    /// What it means.
    pub meaning: &'static str,
    /// What a person can do.
    pub advice: &'static str,
}

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;

const fn rule(
    codes: RangeInclusive<i64>,
    subcode: Option<i64>,
    kind: Kind,
    meaning: &'static str,
    advice: &'static str,
) -> ErrorRule {
    ErrorRule { codes, subcode, kind, meaning, advice }
}

const fn invalid(subcode: i64, meaning: &'static str, advice: &'static str) -> ErrorRule {
    rule(100..=100, Some(subcode), Kind::Invalid { doubt_ms: 0 }, meaning, advice)
}

const fn doubted(
    subcode: i64,
    doubt_ms: i64,
    meaning: &'static str,
    advice: &'static str,
) -> ErrorRule {
    rule(100..=100, Some(subcode), Kind::Invalid { doubt_ms }, meaning, advice)
}

const fn paused(code: i64, reason: PauseReason, meaning: &'static str) -> ErrorRule {
    rule(code..=code, None, Kind::Paused(reason), meaning, reason.advice())
}

const fn throttled(codes: RangeInclusive<i64>, meaning: &'static str) -> ErrorRule {
    let advice = "Nothing; delivery goes on when Meta lets it.";
    rule(codes, None, Kind::Throttled, meaning, advice)
}

const NOTHING: &str = "Nothing; it is tried again.";

/// Every error that is known.
pub static RULES: &[ErrorRule] = &[
    invalid(2_804_003, "The event is older than 7 days.", "Nothing: it came too late."),
    doubted(
        2_804_004,
        5 * MINUTE,
        "The event's time is in the future, by Meta's clock.",
        "Check this machine's clock, then queue the event again.",
    ),
    doubted(
        2_804_036,
        10 * MINUTE,
        "Meta does not know the lead id, or the lead was deleted.",
        "Check that the lead exists at Meta and that its id was not rounded on the way.",
    ),
    invalid(
        2_804_050,
        "The customer information is missing or too broad.",
        "Report the stage with the lead id, an e-mail address or a phone number.",
    ),
    invalid(2_804_008, "An item of contents has no id.", "Mend custom_data.contents."),
    invalid(2_804_009, "A purchase has no value.", "Report the stage with value and currency."),
    invalid(2_804_016, "A field of custom_data is wrong.", "Mend custom_data."),
    invalid(2_804_019, "A parameter is wrong.", "Look at the message for its name."),
    invalid(2_804_023, "A value has no currency.", "Report the stage with a currency."),
    rule(
        100..=100,
        Some(33),
        Kind::Paused(PauseReason::Dataset),
        "The dataset does not exist, or the token does not hold it.",
        PauseReason::Dataset.advice(),
    ),
    rule(
        100..=100,
        None,
        Kind::Invalid { doubt_ms: 0 },
        "A parameter is wrong.",
        "Look at the message for its name.",
    ),
    paused(190, PauseReason::Token, "The token is invalid, expired or withdrawn."),
    paused(102, PauseReason::Token, "The session of the token is over."),
    paused(3, PauseReason::Permission, "The app may not make this call."),
    paused(10, PauseReason::Permission, "The token lacks a permission."),
    rule(
        200..=299,
        None,
        Kind::Paused(PauseReason::Permission),
        "The token lacks a permission.",
        PauseReason::Permission.advice(),
    ),
    paused(803, PauseReason::Dataset, "The dataset does not exist."),
    paused(368, PauseReason::Blocked, "Blocked for a while, for a breach of policy."),
    paused(1_404_078, PauseReason::Blocked, "Blocked from this action."),
    throttled(4..=4, "Too many calls by the app."),
    throttled(17..=17, "Too many calls by the user."),
    throttled(32..=32, "Too many calls for the Page."),
    throttled(341..=341, "Too many calls by the app, for a while."),
    throttled(613..=613, "Too many calls of this kind."),
    throttled(80_000..=80_014, "Too many calls by the business."),
    rule(1..=2, None, Kind::Transient, "Meta has trouble of its own.", NOTHING),
];

/// The row for an error, if it is known.
pub fn find_rule(code: Option<i64>, subcode: Option<i64>) -> Option<&'static ErrorRule> {
    let code = code?;
    RULES.iter().find(|rule| {
        rule.codes.contains(&code) && (rule.subcode.is_none() || rule.subcode == subcode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn each_subcode_is_found_before_its_code() {
        let kind = |code, subcode| find_rule(Some(code), subcode).map(|rule| rule.kind);
        assert_eq!(kind(100, Some(33)), Some(Kind::Paused(PauseReason::Dataset)));
        assert_eq!(kind(100, None), Some(Kind::Invalid { doubt_ms: 0 }));
        assert_eq!(kind(100, Some(1)), Some(Kind::Invalid { doubt_ms: 0 }));
        assert_eq!(kind(100, Some(2_804_036)), Some(Kind::Invalid { doubt_ms: 600_000 }));
        assert_eq!(kind(190, Some(463)), Some(Kind::Paused(PauseReason::Token)));
        assert_eq!(kind(80_005, None), Some(Kind::Throttled));
        assert_eq!(kind(2, None), Some(Kind::Transient));
        assert_eq!(kind(424_242, None), None);
        assert!(find_rule(None, Some(33)).is_none());
    }

    #[test]
    fn no_row_hides_behind_an_earlier_one() {
        for (index, rule) in RULES.iter().enumerate() {
            let found = find_rule(Some(*rule.codes.start()), rule.subcode);
            assert!(found.is_some_and(|found| std::ptr::eq(found, rule)), "row {index}");
        }
    }

    /// The table as a page of the documentation.
    fn page() -> String {
        let mut page = String::from(
            "# Meta's errors, and what leadloop does\n\n\
             Made from the table in `src/meta/errors.rs`; the first row that fits counts. A dead \
             letter shows code and subcode under `error`.\n\n\
             | code | subcode | meaning | leadloop | what to do |\n| --- | --- | --- | --- | --- |\n",
        );
        for rule in RULES {
            let (first, last) = (rule.codes.start(), rule.codes.end());
            let codes = if first == last { first.to_string() } else { format!("{first}–{last}") };
            let subcode = rule.subcode.map_or_else(String::new, |subcode| subcode.to_string());
            let action = match rule.kind {
                Kind::Transient => "tries again, later and later".to_owned(),
                Kind::Throttled => "waits as long as Meta's headers say".to_owned(),
                Kind::Paused(_) => "pauses the dataset, and probes until it works".to_owned(),
                Kind::Invalid { doubt_ms: 0 } => "finds the event; a dead letter".to_owned(),
                Kind::Invalid { doubt_ms } => format!(
                    "finds the event; a dead letter, unless it was reported within {} minutes: \
                     then it is tried again first",
                    doubt_ms / MINUTE
                ),
            };
            let (meaning, advice) = (rule.meaning, rule.advice);
            writeln!(page, "| {codes} | {subcode} | {meaning} | {action} | {advice} |").unwrap();
        }
        page.push_str(
            "\nWithout a known code: HTTP 5xx, a broken connection, no answer in time, and a 200 \
             that received less than was sent are tried again; HTTP 429 is a throttle. An error \
             that Meta calls transient is never held against an event.\n",
        );
        page
    }

    #[test]
    fn the_page_of_the_documentation_is_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/meta-errors.md");
        if std::env::var_os("LEADLOOP_WRITE_DOCS").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(written, page(), "write it anew with LEADLOOP_WRITE_DOCS=1 cargo test page");
    }
}
