//! What is looked at when everything has come to rest, and after each start.

use std::collections::BTreeSet;

use crate::domain::event::{EventDetail, LeadSummary, Standing};
use crate::domain::ids::LeadId;
use crate::domain::lead::RawLead;
use crate::domain::time::Timestamp;
use crate::simulation::ledger::{Pages, WHOLE, is_duplicate, told};
use crate::store::Store;
use crate::store::query::{EventFilter, LeadFilter};

impl Pages {
    /// Looks whether the model, which the store is equal to, holds what was answered, and each
    /// lead its one raw-lead event.
    pub(in crate::simulation) fn check_answered(&mut self, now: Timestamp) {
        let events = told(self.model.list_events(EventFilter::default(), WHOLE, now)).items;
        let leads = told(self.model.list_leads(LeadFilter::default(), WHOLE, now)).items;
        let mut ids = BTreeSet::new();
        for event_id in events.iter().filter(|it| !is_duplicate(it)).map(|it| it.event.id()) {
            self.must(ids.insert(event_id), || format!("{event_id} is there twice"));
        }
        ids.extend(events.iter().filter(|it| is_duplicate(it)).map(|it| it.event.id()));
        for event_id in self.answered_events.clone() {
            self.must(ids.contains(&event_id), || format!("{event_id} was answered, and is lost"));
        }
        let there: BTreeSet<LeadId> = leads.iter().map(|it| it.lead.reported.lead_id).collect();
        for lead_id in self.answered_leads.clone() {
            self.must(there.contains(&lead_id), || format!("lead {lead_id} is lost"));
        }
        for LeadSummary { lead, .. } in &leads {
            let id = lead.raw_event().map(|raw| raw.id());
            let alive = events.iter().filter(|detail| !is_duplicate(detail));
            let raw = alive.filter(|detail| Some(detail.event.id()) == id).count();
            let wanted = usize::from(matches!(lead.raw_lead, RawLead::Emitted(_)));
            let lead_id = lead.reported.lead_id;
            self.must(raw == wanted, || format!("lead {lead_id} has {raw} raw-lead events"));
        }
        for detail in &events {
            self.check_standing(detail);
        }
    }

    /// What is on record as delivered was taken, whoever recorded it.
    fn check_standing(&mut self, detail: &EventDetail) {
        if matches!(detail.standing, Standing::Delivered) {
            self.record(detail.event.id());
        }
    }
}
