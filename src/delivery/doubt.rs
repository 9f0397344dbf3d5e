//! Leads that are kept back: Meta refused their next event, and may take it later.

use std::collections::BTreeMap;

use crate::domain::backoff::retry_delay_ms;
use crate::domain::ids::LeadId;
use crate::domain::time::Timestamp;
use crate::limits::{DISBELIEF_RETRY_MS, DOUBT_RETRY_MS_MAX};

/// Which leads are kept back, and until when.
#[derive(Debug, Default)]
pub(super) struct Doubts(BTreeMap<LeadId, Doubt>);

#[derive(Clone, Copy, Debug)]
struct Doubt {
    until: Timestamp,
    refusals: u32,
}

impl Doubts {
    /// Forgets what is long over. A doubt is remembered a while longer than it lasts, so that the
    /// next one of the lead lasts longer; one that seems to last longer than any is of a clock that
    /// has been set back since.
    pub(super) fn forget_old(&mut self, now: Timestamp) {
        self.0.retain(|_, doubt| doubt.until.millis_since(now).abs() <= DISBELIEF_RETRY_MS);
    }

    /// The leads that are kept back at a time, and until when.
    pub(super) fn kept_back(&self, now: Timestamp) -> impl Iterator<Item = (LeadId, Timestamp)> {
        let all = self.0.iter().map(|(lead_id, doubt)| (*lead_id, doubt.until));
        all.filter(move |(_, until)| *until > now)
    }

    /// Whether a lead is in doubt, or was shortly before.
    pub(super) fn contain(&self, lead_id: LeadId) -> bool {
        self.0.contains_key(&lead_id)
    }

    /// Nothing of a lead is waited for any more.
    pub(super) fn end(&mut self, lead_id: LeadId) {
        self.0.remove(&lead_id);
    }

    /// Keeps a lead back for a while: shortly if Meta may not know it yet, longer if Meta refuses
    /// everything, so that others are tried.
    pub(super) fn begin(&mut self, lead_id: LeadId, is_fresh: bool, random: u64, now: Timestamp) {
        let refusals = self.0.get(&lead_id).map_or(1, |doubt| doubt.refusals + 1);
        let scheduled_ms = retry_delay_ms(refusals, random).cast_signed();
        let fresh_ms = scheduled_ms.min(DOUBT_RETRY_MS_MAX);
        let wait_ms = if is_fresh { fresh_ms } else { DISBELIEF_RETRY_MS };
        self.0.insert(lead_id, Doubt { until: now.plus_millis(wait_ms), refusals });
    }
}
