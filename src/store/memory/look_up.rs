//! What the model shows of leads and events.

use std::collections::BTreeSet;

use crate::domain::event::{EventDetail, LeadDetail, LeadSummary, Standing, stage_of};
use crate::domain::ids::LeadId;
use crate::domain::lead::Lead;
use crate::domain::matching::CrmId;
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::limits::ATTEMPTS_SHOWN_MAX;
use crate::store::memory::page_of;
use crate::store::memory::state::{Row, State};
use crate::store::query::{EventFilter, LeadFilter, Page, PageRequest};

impl State {
    pub(in crate::store) fn awaited_leads(
        &self,
        after: Option<LeadId>,
        limit: usize,
    ) -> Vec<LeadId> {
        let awaiting =
            self.events.all().values().filter(|row| row.standing == Standing::AwaitingLead);
        let leads: BTreeSet<LeadId> =
            awaiting.filter_map(|row| row.event.lead_id.metas()).collect();
        let later = leads.into_iter().filter(|lead_id| after.is_none_or(|after| *lead_id > after));
        later.take(limit).collect()
    }

    pub(in crate::store) fn lead_detail(&self, lead: &Lead) -> LeadDetail {
        let timeline = self.timeline(lead.reported.lead_id);
        let events = timeline.into_iter().map(|seq| self.summary(seq)).collect();
        let lead_id = lead.reported.lead_id;
        let customer = self.customers.get(&lead_id).cloned().unwrap_or_default();
        LeadDetail { lead: lead.clone(), events, crm_ids: self.crm_ids_of(lead_id), customer }
    }

    /// The lead without its timeline, if it passes a filter.
    pub(in crate::store) fn lead_summary(
        &self,
        filter: &LeadFilter,
        lead: &Lead,
        now: Timestamp,
    ) -> Option<LeadSummary> {
        let timeline = self.timeline(lead.reported.lead_id);
        let rows = timeline.iter().map(|seq| &self.events[seq]);
        let rows: Vec<_> = rows.map(|row| (&row.event, &row.standing)).collect();
        let is_found = self.is_found_by(filter, lead.reported.lead_id);
        let passes = is_found && filter.admits_lead(lead) && filter.admits_timeline(&rows, now);
        passes.then(|| LeadSummary { lead: lead.clone(), stage: stage_of(rows).cloned() })
    }

    pub(in crate::store) fn list_leads(
        &self,
        filter: &LeadFilter,
        page: PageRequest,
        now: Timestamp,
    ) -> Page<LeadSummary> {
        page_of(self.leads.all(), page, |_, lead| self.lead_summary(filter, lead, now))
    }

    pub(in crate::store) fn list_events(
        &self,
        filter: &EventFilter,
        page: PageRequest,
        now: Timestamp,
    ) -> Page<EventDetail> {
        page_of(self.events.all(), page, |seq, _| {
            self.admits(filter, seq, now).then(|| self.summary(seq))
        })
    }

    /// An event with its last attempt.
    pub(in crate::store) fn summary(&self, seq: u64) -> EventDetail {
        self.with_attempts(seq, 1)
    }

    /// An event with its latest attempts.
    pub(in crate::store) fn detail(&self, seq: u64) -> EventDetail {
        self.with_attempts(seq, ATTEMPTS_SHOWN_MAX)
    }

    fn with_attempts(&self, seq: u64, latest_max: usize) -> EventDetail {
        let Row { event, standing, attempts, .. } = &self.events[&seq];
        let lead = self.lead(event.lead_id);
        EventDetail {
            event: event.clone(),
            standing: standing.clone(),
            dataset_id: lead.and_then(|lead| lead.dataset_id),
            attempts: attempts.shortened(latest_max),
        }
    }

    /// Whether an event passes a filter.
    pub(in crate::store) fn admits(&self, filter: &EventFilter, seq: u64, now: Timestamp) -> bool {
        let Row { event, standing, attempts, .. } = &self.events[&seq];
        filter.admits_standing(event, standing, now)
            && filter.admits_lead(event.lead_id, self.lead(event.lead_id))
            && filter.admits_attempt(attempts.last())
    }

    /// Whether a lead is found by what a filter says of the person or the CRM's record.
    pub(in crate::store) fn is_found_by(&self, filter: &LeadFilter, lead_id: LeadId) -> bool {
        let is_linked = |crm_id: &CrmId| {
            self.crm_ids.iter().any(|((known, _), linked)| known == crm_id && *linked == lead_id)
        };
        filter.crm_id.as_ref().is_none_or(is_linked)
            && filter.email.as_ref().is_none_or(|key| self.is_of(lead_id, key))
            && filter.phone.as_ref().is_none_or(|key| self.is_of(lead_id, key))
    }

    /// The CRMs' own ids of a lead.
    pub(in crate::store) fn crm_ids_of(&self, lead_id: LeadId) -> Vec<(SourceName, CrmId)> {
        let own = self.crm_ids.iter().filter(|(_, linked)| **linked == lead_id);
        let mut own: Vec<_> =
            own.map(|((crm_id, source), _)| (source.clone(), crm_id.clone())).collect();
        own.sort();
        own
    }
}
