//! What can be asked of lists, and the pages that come back.

use std::collections::BTreeSet;

use crate::domain::event::{Attempt, DeadReason, Event, EventState, Standing, stage_of};
use crate::domain::ids::{DatasetId, EventId, FormId, LeadId, PageId};
use crate::domain::lead::{Lead, RawLead};
use crate::domain::matching::{ContactKey, CrmId};
use crate::domain::stage::StageName;
use crate::domain::time::{Timestamp, UnixSeconds};

/// Which page of a list: the rows that come after the cursor in the list's order.
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
    /// In the list's order: newest first, unless it says otherwise.
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
    /// Linked with this id of a CRM's.
    pub crm_id: Option<CrmId>,
    /// Of a person with this e-mail address.
    pub email: Option<ContactKey>,
    /// Of a person with this phone number.
    pub phone: Option<ContactKey>,
}

impl LeadFilter {
    /// Whether the lead by itself passes; cheap, and asked first. What it is found by is looked up
    /// by the store. Somebody whose lead is not known is no lead.
    pub fn admits_lead(&self, lead: &Lead) -> bool {
        let reported = &lead.reported;
        lead.raw_lead != RawLead::SkippedUnknown
            && self.page_id.is_none_or(|page_id| reported.page_id == Some(page_id))
            && self.form_id.is_none_or(|form_id| reported.form_id == Some(form_id))
            && self.created_from.is_none_or(|from| reported.created_time >= from)
            && self.created_before.is_none_or(|before| reported.created_time < before)
    }

    /// Whether the lead passes with its timeline.
    pub fn admits_timeline(&self, timeline: &[(&Event, &Standing)], now: Timestamp) -> bool {
        let has_state = |wanted| {
            let mut timeline = timeline.iter();
            timeline
                .any(|(event, standing)| EventState::of(standing, event.event_time, now) == wanted)
        };
        let is_in = |wanted| stage_of(timeline.iter().copied()) == Some(wanted);
        self.stage.as_ref().is_none_or(is_in) && self.state.is_none_or(has_state)
    }
}

/// Which events to list. Absent filters admit everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// In this state.
    pub state: Option<EventState>,
    /// Dead for this reason.
    pub reason: Option<DeadReason>,
    /// Of a lead of this dataset.
    pub dataset_id: Option<DatasetId>,
    /// Of this lead.
    pub lead_id: Option<LeadId>,
    /// Whose last attempt Meta answered with this code.
    pub code: Option<i64>,
    /// Of a lead that was created at this second or later.
    pub created_from: Option<UnixSeconds>,
    /// Of a lead that was created before this second.
    pub created_before: Option<UnixSeconds>,
}

impl EventFilter {
    /// The events of a state, or all.
    pub fn in_state(state: Option<EventState>) -> Self {
        Self { state, ..Self::default() }
    }

    /// The state that events must be in to pass; only what is dead has a reason.
    pub fn only_state(&self) -> Option<EventState> {
        self.state.or(self.reason.map(|_| EventState::Dead))
    }

    /// Whether an event passes that stands so.
    pub fn admits_standing(&self, event: &Event, standing: &Standing, now: Timestamp) -> bool {
        let state = EventState::of(standing, event.event_time, now);
        let is_for =
            |wanted| matches!(standing, Standing::Dead { reason, .. } if *reason == wanted);
        self.state.is_none_or(|wanted| state == wanted) && self.reason.is_none_or(is_for)
    }

    /// Whether an event of such a lead passes; `lead` is missing while it is awaited.
    pub fn admits_lead(&self, lead_id: LeadId, lead: Option<&Lead>) -> bool {
        let created_time = lead.map(|lead| lead.reported.created_time);
        self.lead_id.is_none_or(|wanted| lead_id == wanted)
            && (self.dataset_id.is_none() || self.dataset_id == lead.and_then(|it| it.dataset_id))
            && self.created_from.is_none_or(|from| created_time.is_some_and(|time| time >= from))
            && self.created_before.is_none_or(|end| created_time.is_some_and(|time| time < end))
    }

    /// Whether an event with such a last attempt passes.
    pub fn admits_attempt(&self, last: Option<&Attempt>) -> bool {
        self.code.is_none() || self.code == last.and_then(|attempt| attempt.code)
    }
}

/// Which dead letters to queue again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeadLetters {
    /// Those of these events that are dead.
    Named(BTreeSet<EventId>),
    /// Those that pass a filter, oldest first.
    Filtered(EventFilter, PageRequest),
}

/// Gathers a page from rows that come in its order, within bounds on items and rows looked at.
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
