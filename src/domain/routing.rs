//! Which dataset a Page's events go to.
//!
//! Routing is configuration; this is its pure form. A lead keeps the dataset that was found for it
//! first, so a funnel is never split over two datasets by a change of configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::ids::{DatasetId, PageId};

/// The table from Pages to datasets, cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    pages: Arc<BTreeMap<PageId, DatasetId>>,
    default: Option<DatasetId>,
}

impl Routing {
    /// A table of named Pages, and the dataset of every other Page if there is one.
    pub fn new(pages: BTreeMap<PageId, DatasetId>, default: Option<DatasetId>) -> Self {
        Self { pages: Arc::new(pages), default }
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
    fn a_named_page_wins_over_the_default_and_an_unknown_one_is_held_without() {
        let (page, other) = (PageId::from_u64(1), PageId::from_u64(2));
        let (a, b) = (DatasetId::from_u64(10).unwrap(), DatasetId::from_u64(20));
        let pages = BTreeMap::from([(page.unwrap(), a)]);
        assert_eq!(Routing::new(pages.clone(), b).resolve(page), Some(a));
        assert_eq!(Routing::new(pages.clone(), b).resolve(other), b);
        assert_eq!(Routing::new(pages, None).resolve(other), None);
    }
}
