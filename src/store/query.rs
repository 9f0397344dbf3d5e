//! What can be asked of lists, and the pages that come back.

use crate::domain::event::{EventState, LeadDetail};
use crate::domain::ids::{FormId, PageId};
use crate::domain::lead::Lead;
use crate::domain::stage::StageName;
use crate::domain::time::{Timestamp, UnixSeconds};

/// Which page of a list: rows older than the cursor, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Where the previous page ended; `None` for the first page.
    pub cursor: Option<u64>,
    /// Most items to answer.
    pub limit: usize,
}

/// A page of a list. With a filter it may be short although there is more: the cursor tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// Newest first.
    pub items: Vec<T>,
    /// Where to go on; `None` at the end of the list.
    pub next_cursor: Option<u64>,
}

/// Which leads to list. Absent filters admit everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeadFilter {
    /// Of this Page.
    pub page_id: Option<PageId>,
    /// Of this form.
    pub form_id: Option<FormId>,
    /// In this stage now.
    pub stage: Option<StageName>,
    /// With an event in this state.
    pub state: Option<EventState>,
    /// Created at this second or later.
    pub created_from: Option<UnixSeconds>,
    /// Created before this second.
    pub created_before: Option<UnixSeconds>,
}

impl LeadFilter {
    /// Whether the lead by itself passes; cheap, and asked first.
    pub fn admits_lead(&self, lead: &Lead) -> bool {
        let reported = &lead.reported;
        self.page_id.is_none_or(|page_id| reported.page_id == Some(page_id))
            && self.form_id.is_none_or(|form_id| reported.form_id == Some(form_id))
            && self.created_from.is_none_or(|from| reported.created_time >= from)
            && self.created_before.is_none_or(|before| reported.created_time < before)
    }

    /// Whether the lead passes with its timeline.
    pub fn admits_detail(&self, detail: &LeadDetail, now: Timestamp) -> bool {
        self.stage.as_ref().is_none_or(|stage| detail.stage() == Some(stage))
            && self
                .state
                .is_none_or(|state| detail.events.iter().any(|event| event.state(now) == state))
    }
}

/// Gathers a page from rows that come newest first, within bounds on items and rows looked at.
pub struct PageBuilder<T> {
    request: PageRequest,
    rows_left: usize,
    items: Vec<(u64, T)>,
    last_row: Option<u64>,
    full: bool,
}

impl<T> PageBuilder<T> {
    /// Starts a page that may look at so many rows.
    pub fn new(request: PageRequest, rows_max: usize) -> Self {
        Self { request, rows_left: rows_max, items: Vec::new(), last_row: None, full: false }
    }

    /// Offers the next row and its item if it passed the filter; `false` when enough was seen.
    pub fn offer(&mut self, row: u64, item: Option<T>) -> bool {
        if let Some(item) = item {
            if self.items.len() == self.request.limit {
                self.full = true;
                return false;
            }
            self.items.push((row, item));
        }
        self.last_row = Some(row);
        self.rows_left = self.rows_left.saturating_sub(1);
        self.full = self.rows_left == 0;
        !self.full
    }

    /// The page.
    pub fn finish(self) -> Page<T> {
        let next_cursor = if self.full { self.last_row } else { None };
        Page { items: self.items.into_iter().map(|(_, item)| item).collect(), next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(rows: &[(u64, bool)], limit: usize, rows_max: usize) -> Page<u64> {
        let mut page = PageBuilder::new(PageRequest { cursor: None, limit }, rows_max);
        for (row, passes) in rows {
            if !page.offer(*row, passes.then_some(*row)) {
                break;
            }
        }
        page.finish()
    }

    #[test]
    fn a_list_that_ends_with_the_page_has_no_cursor() {
        assert_eq!(
            page(&[(3, true), (2, true)], 2, 10),
            Page { items: vec![3, 2], next_cursor: None }
        );
        assert_eq!(page(&[], 2, 10), Page { items: vec![], next_cursor: None });
    }

    #[test]
    fn a_full_page_goes_on_after_its_last_row() {
        let rows = [(9, true), (8, false), (7, true), (6, false), (5, true)];
        assert_eq!(page(&rows, 2, 10), Page { items: vec![9, 7], next_cursor: Some(6) });
    }

    #[test]
    fn a_page_stops_when_it_has_looked_at_enough_rows() {
        let rows = [(9, false), (8, false), (7, true)];
        assert_eq!(page(&rows, 2, 2), Page { items: vec![], next_cursor: Some(8) });
    }
}
