//! What no mapping fits, in the model.

use std::collections::BTreeMap;

use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::limits::UNMAPPED_PER_SOURCE_MAX;
use crate::store::memory::{State, page_of};
use crate::store::query::{Page, PageRequest};
use crate::store::unmapped::causes_of_expired;
use crate::store::{NumberedUnmapped, SetAside, Unmapped};

impl State {
    pub(in crate::store) fn set_aside(&mut self, unmapped: Unmapped) -> SetAside {
        let same =
            |kept: &Unmapped| (&kept.source, &kept.sealed) == (&unmapped.source, &unmapped.sealed);
        if self.unmapped.values().any(same) {
            return SetAside::Known;
        }
        let of_source = self.unmapped.values().filter(|kept| kept.source == unmapped.source);
        if of_source.count() >= UNMAPPED_PER_SOURCE_MAX {
            return SetAside::Full;
        }
        let seq = self.seq();
        self.alarms.raise(unmapped.cause(), unmapped.received_at);
        self.unmapped.insert(seq, unmapped);
        SetAside::Kept
    }

    pub(in crate::store) fn remove_unmapped(
        &mut self,
        before: Timestamp,
        now: Timestamp,
    ) -> BTreeMap<SourceName, u64> {
        let mut removed = BTreeMap::new();
        self.unmapped.retain(|_, unmapped| {
            let is_young = unmapped.received_at >= before;
            if !is_young {
                *removed.entry(unmapped.source.clone()).or_default() += 1;
            }
            is_young
        });
        causes_of_expired(&removed).for_each(|cause| self.alarms.raise(cause, now));
        removed
    }
}

pub(in crate::store) fn list(
    rows: &BTreeMap<u64, Unmapped>,
    source: Option<&SourceName>,
    page: PageRequest,
) -> Page<NumberedUnmapped> {
    page_of(rows, page, |seq, unmapped| {
        let is_asked_for = source.is_none_or(|source| *source == unmapped.source);
        is_asked_for.then(|| NumberedUnmapped { seq, unmapped: unmapped.clone() })
    })
}
