//! Which leads are looked for, and when next: a bounded list without doubles. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::ids::{LeadId, PageId};
use crate::domain::time::Timestamp;
use crate::limits::{LOOK_UP_SCHEDULE_MS, LOOK_UPS_MAX};

/// The leads that are looked for.
#[derive(Debug, Default)]
pub struct Agenda {
    leads: BTreeMap<LeadId, Item>,
    order: BTreeSet<(Timestamp, LeadId)>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    /// Its Page, if somebody has told.
    page_id: Option<PageId>,
    /// When it is next.
    at: Timestamp,
    /// How many tries were in vain.
    tries: usize,
}

impl Agenda {
    /// Looks for a lead at once, and then by the schedule. Answers false if there is no room; one
    /// that is looked for already stays where it is.
    pub fn add(&mut self, lead_id: LeadId, page_id: Option<PageId>, now: Timestamp) -> bool {
        self.put(lead_id, Item { page_id, at: now, tries: 0 })
    }

    /// Looks for a lead once, because that was in vain before.
    pub fn add_once(&mut self, lead_id: LeadId, now: Timestamp) -> bool {
        self.put(lead_id, Item { page_id: None, at: now, tries: LOOK_UP_SCHEDULE_MS.len() })
    }

    fn put(&mut self, lead_id: LeadId, item: Item) -> bool {
        if self.leads.contains_key(&lead_id) {
            return true;
        }
        if self.leads.len() >= LOOK_UPS_MAX {
            return false;
        }
        self.leads.insert(lead_id, item);
        self.order.insert((item.at, lead_id));
        true
    }

    /// The lead whose turn it is, and when that is.
    pub fn first(&self) -> Option<(Timestamp, LeadId)> {
        self.order.first().copied()
    }

    /// The Page of a lead, if somebody has told.
    pub fn page_of(&self, lead_id: LeadId) -> Option<PageId> {
        self.leads.get(&lead_id).and_then(|item| item.page_id)
    }

    /// Takes a lead off, because it was found.
    pub fn remove(&mut self, lead_id: LeadId) {
        self.take(lead_id);
    }

    fn take(&mut self, lead_id: LeadId) -> Option<Item> {
        let item = self.leads.remove(&lead_id)?;
        self.order.remove(&(item.at, lead_id));
        Some(item)
    }

    /// A try was in vain: the lead is next by the schedule. Answers false after the last one.
    pub fn missed(&mut self, lead_id: LeadId, now: Timestamp) -> bool {
        let Some(item) = self.take(lead_id) else { return false };
        let Some(wait_ms) = LOOK_UP_SCHEDULE_MS.get(item.tries) else { return false };
        self.put(lead_id, Item { at: now.plus_millis(*wait_ms), tries: item.tries + 1, ..item })
    }

    /// There was no try, because there can't be one before this time.
    pub fn postpone(&mut self, lead_id: LeadId, until: Timestamp) {
        if let Some(item) = self.take(lead_id) {
            self.put(lead_id, Item { at: until, ..item });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_762_000_000_000);

    fn lead(number: u64) -> LeadId {
        LeadId::from_u64(1_234_567_890_123_456 + number).unwrap()
    }

    #[test]
    fn a_lead_is_looked_for_at_once_then_by_the_schedule_and_then_no_more() {
        let mut agenda = Agenda::default();
        assert!(agenda.add(lead(1), None, NOW));
        let mut now = NOW;
        for wait_ms in LOOK_UP_SCHEDULE_MS {
            assert!(agenda.missed(lead(1), now));
            now = now.plus_millis(wait_ms);
            assert_eq!(agenda.first(), Some((now, lead(1))));
        }
        assert!(!agenda.missed(lead(1), now));
        assert_eq!(agenda.first(), None);
    }

    #[test]
    fn a_lead_that_was_looked_for_before_gets_one_more_try() {
        let mut agenda = Agenda::default();
        assert!(agenda.add_once(lead(1), NOW));
        assert!(!agenda.missed(lead(1), NOW));
        assert_eq!(agenda.first(), None);
    }

    #[test]
    fn a_lead_is_there_once_and_keeps_its_place() {
        let mut agenda = Agenda::default();
        agenda.add(lead(1), None, NOW);
        agenda.add(lead(2), None, NOW.plus_millis(1));
        agenda.add(lead(1), None, NOW.plus_millis(2));
        assert_eq!(agenda.first(), Some((NOW, lead(1))));
        agenda.remove(lead(1));
        assert_eq!(agenda.first(), Some((NOW.plus_millis(1), lead(2))));
        agenda.remove(lead(2));
        assert_eq!(agenda.first(), None);
    }

    #[test]
    fn waiting_for_a_token_is_no_try() {
        let mut agenda = Agenda::default();
        agenda.add(lead(1), None, NOW);
        for hours in 1..100 {
            agenda.postpone(lead(1), NOW.plus_millis(hours * 3_600_000));
        }
        assert!(agenda.missed(lead(1), NOW), "the first try is still to come");
    }

    #[test]
    fn the_list_is_bounded() {
        let mut agenda = Agenda::default();
        let room = u64::try_from(LOOK_UPS_MAX).unwrap();
        assert!((0..room).all(|number| agenda.add(lead(number), None, NOW)));
        assert!(!agenda.add(lead(room), None, NOW));
        assert!(agenda.add(lead(0), None, NOW), "it is there already");
    }
}
