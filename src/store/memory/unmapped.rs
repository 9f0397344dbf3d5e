//! What no mapping fits, in the model.

use std::collections::BTreeMap;

use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::limits::UNMAPPED_PER_SOURCE_MAX;
use crate::store::memory::{State, page_of};
use crate::store::query::{Page, PageRequest};
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
        self.unmapped.insert(seq, unmapped);
        SetAside::Kept
    }

    pub(in crate::store) fn remove_unmapped(&mut self, before: Timestamp) -> u64 {
        let kept = self.unmapped.len();
        self.unmapped.retain(|_, unmapped| unmapped.received_at >= before);
        (kept - self.unmapped.len()) as u64
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
