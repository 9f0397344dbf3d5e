//! CRMs' webhooks that are not let in: told, though not each time.
//!
//! No CRM tells anybody that its webhooks are refused, so a wrong secret in its settings would go
//! unnoticed. Strangers can bring a refusal about, so it is said once in a while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::http::error::Code;
use crate::limits::HOOK_REFUSALS_PACE_MS;

/// When refusals were last told, by source and code: of either there are few.
#[derive(Clone, Default)]
pub struct RefusedHooks(Arc<Mutex<BTreeMap<(SourceName, &'static str), Timestamp>>>);

impl RefusedHooks {
    /// Says that a webhook of a source is refused, if that was not said a moment ago.
    pub(super) fn tell(&self, source: &SourceName, code: Code, now: Timestamp) {
        if self.is_due(source, code, now) {
            tracing::warn!(%source, reason = code.name(), "a CRM's webhook is refused");
        }
    }

    fn is_due(&self, source: &SourceName, code: Code, now: Timestamp) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = (source.clone(), code.name());
        let last = told.get(&refusal);
        let is_due = last.is_none_or(|last| now.millis_since(*last) >= HOOK_REFUSALS_PACE_MS);
        if is_due {
            told.insert(refusal, now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_762_000_000_000);

    #[test]
    fn a_refusal_is_told_once_in_a_while_for_each_source_and_code() {
        let (told, crm) = (RefusedHooks::default(), SourceName::parse("crm").unwrap());
        let other = SourceName::parse("other").unwrap();
        assert!(told.is_due(&crm, Code::Unauthorized, NOW));
        assert!(!told.is_due(&crm, Code::Unauthorized, NOW));
        assert!(told.is_due(&crm, Code::PayloadTooLarge, NOW));
        assert!(told.is_due(&other, Code::Unauthorized, NOW));
        let later = NOW.plus_millis(HOOK_REFUSALS_PACE_MS);
        assert!(!told.is_due(&crm, Code::Unauthorized, later.plus_millis(-1)));
        assert!(told.is_due(&crm, Code::Unauthorized, later));
    }
}
