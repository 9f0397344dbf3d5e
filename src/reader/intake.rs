//! What becomes of a lead that was read: the same as of one that a webhook brings.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Config;
use crate::delivery::Wakers;
use crate::domain::ids::{FormId, PageId};
use crate::domain::lead::Lead;
use crate::domain::stage::SourceName;
use crate::meta::graph::{Form, GraphLead, UnreadableLead, contact_of};
use crate::store::{Intake, LeadOutcome, Quarantined, Store, StoreError};
use crate::telemetry::Metrics;

/// What takes leads in.
#[derive(Clone)]
pub struct LeadIntake {
    /// Where leads go to.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Settings: which dataset a Page's events go to.
    pub config: Arc<Config>,
    /// Wakes whoever sends the events.
    pub wakers: Wakers,
    /// Where leads are counted.
    pub metrics: Arc<Metrics>,
}

impl LeadIntake {
    /// Makes leads durable, and wakes who sends their events. A lead that is known already stays
    /// as it is; one that is too old gets no raw-lead event, as always.
    pub async fn take_in(
        &self,
        leads: &[(&GraphLead, PageId)],
        source: &SourceName,
    ) -> Result<Vec<LeadOutcome>, StoreError> {
        if leads.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let lead = |(lead, page_id): &(&GraphLead, PageId)| {
            let reported = lead.reported(Some(*page_id));
            let dataset_id = self.config.routing.resolve(reported.page_id);
            let raw_stage = self.config.raw_stage_for(dataset_id).clone();
            Lead::new(reported, source.clone(), dataset_id, raw_stage, now)
        };
        let intake = Intake { leads: leads.iter().map(lead).collect(), quarantined: Vec::new() };
        let ingested = self.store.ingest(intake, now).await?;
        // Committed: if we die now, the events go out after the next start, and a lead that is read
        // again changes nothing.
        self.wakers.wake(&ingested.enqueued);
        for outcome in &ingested.outcomes {
            self.metrics.lead_read(source.as_str(), outcome_name(*outcome));
        }
        for reason in &ingested.dead {
            tracing::error!(reason = reason.name(), "an event that awaited its lead is dead");
            self.metrics.event_dead(reason.name());
        }
        Ok(ingested.outcomes)
    }
}

impl LeadIntake {
    /// Puts leads into quarantine that Meta lists without a time, by their ids alone: there is
    /// nothing to wait for, and somebody has to look.
    pub async fn set_aside(
        &self,
        form_id: FormId,
        unreadable: &[UnreadableLead],
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let undated = unreadable.iter().filter(|lead| lead.created_time.is_none());
        let quarantined = undated.map(|lead| {
            let id = lead.lead_id.map_or_else(|| "null".to_owned(), |id| format!("\"{id}\""));
            tracing::error!(form = %form_id, "Meta lists a lead without a time; it is quarantined");
            Quarantined {
                received_at: now,
                reason: "Meta lists this lead of a form without a time".to_owned(),
                payload: format!("{{\"form_id\":\"{form_id}\",\"lead_id\":{id}}}").into_bytes(),
            }
        });
        let quarantined: Vec<_> = quarantined.collect();
        if !quarantined.is_empty() {
            self.store.ingest(Intake { leads: Vec::new(), quarantined }, now).await?;
        }
        Ok(())
    }

    /// Keeps what the persons of these leads wrote, as digests. What is known already stays.
    pub async fn learn(&self, leads: &[GraphLead], form: &Form) -> Result<(), StoreError> {
        for lead in leads {
            let contact = contact_of(&lead.field_data, form);
            if contact.is_empty() {
                continue;
            }
            let now = self.clock.now();
            let linked = self.store.add_customer(lead.lead_id, contact, now).await?;
            // What was reported of this person without a lead id may have found its lead by that.
            self.wakers.wake(&linked.enqueued);
            linked.dead.iter().for_each(|reason| self.metrics.event_dead(reason.name()));
        }
        Ok(())
    }
}

const fn outcome_name(outcome: LeadOutcome) -> &'static str {
    match outcome {
        LeadOutcome::New => "new",
        LeadOutcome::Duplicate | LeadOutcome::DifferingDuplicate => "known",
        LeadOutcome::Erased => "erased",
    }
}
