//! Which dataset a Page's events go to, and the funnel of each dataset.
//!
//! Routing is configuration; this is its pure form. A lead keeps the dataset that was found for it
//! first for as long as that is configured, so a funnel is not split over two datasets by a change
//! of configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::event::{Event, StageUpdate};
use crate::domain::funnel::{Funnel, Skipped};
use crate::domain::ids::{DatasetId, PageId};
use crate::domain::lead::Lead;
use crate::domain::time::{Timestamp, UnixSeconds};

/// The table from Pages to datasets, cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    pages: Arc<BTreeMap<PageId, DatasetId>>,
    default: Option<DatasetId>,
    configured: Arc<BTreeSet<DatasetId>>,
    funnels: Arc<BTreeMap<DatasetId, Funnel>>,
}

impl Routing {
    /// A table of named Pages, and the dataset of every other Page if there is one.
    pub fn new(pages: BTreeMap<PageId, DatasetId>, default: Option<DatasetId>) -> Self {
        let configured = pages.values().copied().chain(default).collect();
        let funnels = Arc::default();
        Self { pages: Arc::new(pages), default, configured: Arc::new(configured), funnels }
    }

    /// The same table, with the funnels of datasets that have one.
    #[must_use]
    pub fn and_funnels(self, funnels: BTreeMap<DatasetId, Funnel>) -> Self {
        Self { funnels: Arc::new(funnels), ..self }
    }

    /// The funnel of a dataset; without one, nothing is ever skipped.
    pub fn funnel(&self, dataset_id: Option<DatasetId>) -> Option<&Funnel> {
        self.funnels.get(&dataset_id?)
    }

    /// The stages that an update of a lead skips, which is new. `events` are the lead's so far.
    ///
    /// None is filled in while the lead is not known, since nobody knows after what its time is.
    pub fn skipped(
        &self,
        (update, event_time): (&StageUpdate, UnixSeconds),
        lead: Option<&Lead>,
        events: &[Event],
        now: Timestamp,
    ) -> Skipped {
        let Some(funnel) = self.funnel(self.dataset_for(update, lead)) else {
            return Skipped::default();
        };
        let reached = events.iter().map(|event| &event.stage);
        let missing = funnel.missing_before(&update.stage, reached);
        let Some(created_time) = lead.and_then(Lead::created_time) else {
            return Skipped { missing, filled: Vec::new() };
        };
        let earlier =
            events.iter().map(|event| event.event_time).filter(|time| *time <= event_time);
        let floor = earlier.fold(created_time + 1, UnixSeconds::max);
        funnel.fill(missing, event_time, floor, now)
    }

    /// The stages that a lead skipped to reach one that is on record.
    pub fn still_skipped(
        &self,
        update: &StageUpdate,
        lead: Option<&Lead>,
        events: &[Event],
    ) -> Skipped {
        let reached = events.iter().map(|event| &event.stage);
        let funnel = self.funnel(self.dataset_for(update, lead));
        let missing = funnel.map(|funnel| funnel.missing_before(&update.stage, reached));
        Skipped { missing: missing.unwrap_or_default(), filled: Vec::new() }
    }

    /// The same table, with further datasets that are configured though no Page goes there now.
    #[must_use]
    pub fn and_datasets(self, datasets: impl IntoIterator<Item = DatasetId>) -> Self {
        let configured = self.configured.iter().copied().chain(datasets).collect();
        Self { configured: Arc::new(configured), ..self }
    }

    /// Whether a dataset is configured, so that somebody sends its events.
    pub fn is_configured(&self, dataset_id: DatasetId) -> bool {
        self.configured.contains(&dataset_id)
    }

    /// The datasets that are configured.
    pub fn datasets(&self) -> impl Iterator<Item = DatasetId> + '_ {
        self.configured.iter().copied()
    }

    /// The dataset of a lead: the one it has while that is configured, else its Page's.
    pub fn keep_or_resolve(
        &self,
        current: Option<DatasetId>,
        page_id: Option<PageId>,
    ) -> Option<DatasetId> {
        current.filter(|id| self.is_configured(*id)).or_else(|| self.resolve(page_id))
    }

    /// The dataset that an update's event goes to: its lead's, or its source's if it is sent
    /// without a lead, or none yet.
    pub fn dataset_for(&self, update: &StageUpdate, lead: Option<&Lead>) -> Option<DatasetId> {
        let (current, page_id) = match lead {
            Some(lead) => (lead.dataset_id, lead.reported.page_id),
            None => (update.policy.dataset_id, None),
        };
        self.keep_or_resolve(current, page_id)
    }

    /// The dataset for a Page, or `None`: its events are held until one is configured.
    pub fn resolve(&self, page_id: Option<PageId>) -> Option<DatasetId> {
        page_id.and_then(|page_id| self.pages.get(&page_id).copied()).or(self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_keeps_its_dataset_while_that_is_configured() {
        let (page, [a, b]) = (PageId::from_u64(1), [10, 20].map(DatasetId::from_u64));
        let routing = Routing::new(BTreeMap::new(), b);
        assert_eq!(routing.keep_or_resolve(a, page), b);
        assert_eq!(routing.and_datasets(a).keep_or_resolve(a, page), a);
    }

    #[test]
    fn a_named_page_wins_over_the_default_and_an_unknown_one_is_held_without() {
        let (page, other) = (PageId::from_u64(1), PageId::from_u64(2));
        let (a, b) = (DatasetId::from_u64(10).unwrap(), DatasetId::from_u64(20));
        let pages = BTreeMap::from([(page.unwrap(), a)]);
        assert_eq!(Routing::new(pages.clone(), b).resolve(page), Some(a));
        assert_eq!(Routing::new(pages.clone(), b).resolve(other), b);
        assert_eq!(Routing::new(pages, None).resolve(other), None);
    }
}
