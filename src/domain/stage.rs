//! The names people give: stages of the funnel and sources of reports.
//!
//! A stage is free text to Meta (`event_name`, META 3.2) and must equal the name in Events
//! Manager to the letter, so it is trimmed at the ends and otherwise kept as it came. What stages
//! exist, and in which order, is not decided here.

use std::fmt;

use crate::limits::{SOURCE_BYTES_MAX, STAGE_BYTES_MAX};

/// A name that is empty, too long, or holds control characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {kind} is 1 to {bytes_max} bytes of text without control characters")]
pub struct InvalidName {
    /// `stage`, `source` or `CRM id`.
    pub kind: &'static str,
    /// The longest such name in bytes.
    pub bytes_max: usize,
}

pub(super) fn clean(
    text: &str,
    kind: &'static str,
    bytes_max: usize,
) -> Result<Box<str>, InvalidName> {
    let text = text.trim();
    if text.is_empty() || text.len() > bytes_max || text.chars().any(char::is_control) {
        return Err(InvalidName { kind, bytes_max });
    }
    Ok(text.into())
}

/// The name of a stage, Meta's `event_name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageName(Box<str>);

impl StageName {
    /// Takes a name of 1 to 100 bytes, trimmed, without control characters.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        clean(text, "stage", STAGE_BYTES_MAX).map(Self)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who reported something: the webhook, or a CRM by the name it goes by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceName(Box<str>);

impl SourceName {
    /// Takes a name of 1 to 64 bytes, trimmed, without control characters.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        clean(text, "source", SOURCE_BYTES_MAX).map(Self)
    }

    /// Meta's webhook, the source of leads and of raw-lead events.
    pub fn webhook() -> Self {
        Self("webhook".into())
    }

    /// We ourselves, the source of stages that a report skipped.
    pub fn leadloop() -> Self {
        Self("leadloop".into())
    }

    /// The Graph API, which was asked for a lead that a stage update named.
    pub fn graph() -> Self {
        Self("graph".into())
    }

    /// The Graph API, where leads that the webhook lost are looked for.
    pub fn backfill() -> Self {
        Self("backfill".into())
    }

    /// The source of a stage update that names none.
    pub fn unnamed_crm() -> Self {
        Self("crm".into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_keeps_its_letters_and_loses_the_blanks_around_it() {
        assert_eq!(
            StageName::parse("  Qualified Lead (EU) é ").unwrap().as_str(),
            "Qualified Lead (EU) é"
        );
    }

    #[test]
    fn empty_long_and_control_names_are_refused() {
        for bad in ["", "   ", "a\nb", "a\0", &"x".repeat(STAGE_BYTES_MAX + 1)] {
            assert!(StageName::parse(bad).is_err(), "{bad:?}");
        }
        assert!(StageName::parse(&"x".repeat(STAGE_BYTES_MAX)).is_ok());
        assert!(SourceName::parse(&"x".repeat(SOURCE_BYTES_MAX + 1)).is_err());
    }
}
