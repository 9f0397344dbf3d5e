//! A lead: one form submission, and the raw-lead event that belongs to it.
//!
//! The raw-lead event is part of the lead, not a thing beside it: whoever stores a [`Lead`] has
//! stored its event, so there can't be one without the other, or two of them.

use crate::domain::event::Event;
use crate::domain::ids::{AdId, DatasetId, FormId, LeadId, PageId};
use crate::domain::stage::{SourceName, StageName};
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::EVENT_AGE_MAX_S;

/// A lead as somebody reported it, before we decided anything about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedLead {
    /// Meta's id of the lead.
    pub lead_id: LeadId,
    /// The Page whose form it was; unknown on the dashboard's *Test* button.
    pub page_id: Option<PageId>,
    /// The form.
    pub form_id: Option<FormId>,
    /// The ad; absent for organic leads.
    pub ad_id: Option<AdId>,
    /// When the form was submitted, by Meta's clock.
    pub created_time: UnixSeconds,
    /// Whether Meta's *Test* button made it; such a lead never reaches a dataset.
    pub test: bool,
}

impl ReportedLead {
    /// Whether two reports of one lead id say the same about it.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self == other
    }
}

/// What becomes of the raw-lead event of a lead, decided once when the lead is first heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawLead {
    /// It is sent as this stage, one second after the lead's creation (META 3.4: after, not at).
    Emitted(StageName),
    /// Not sent: the lead comes from the *Test* button.
    SkippedTest,
    /// Not sent: the lead was older than 7 days when we first heard of it, and giving it a newer
    /// date is what Meta forbids (META 3.4, back-dating).
    SkippedTooOld,
    /// Not sent: it is a person whose lead is not known, and who may have none.
    SkippedUnknown,
}

/// A lead as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "`raw_lead` is Meta's word")]
pub struct Lead {
    /// What was reported first; later reports change nothing.
    pub reported: ReportedLead,
    /// Who reported it.
    pub source: SourceName,
    /// When we heard of it.
    pub received_at: Timestamp,
    /// The raw-lead event's fate.
    pub raw_lead: RawLead,
    /// Where all events of this lead go; `None` while no dataset is configured for the Page.
    pub dataset_id: Option<DatasetId>,
}

impl Lead {
    /// Decides what a newly reported lead means: which dataset, and whether a raw-lead event.
    pub fn new(
        reported: ReportedLead,
        source: SourceName,
        dataset_id: Option<DatasetId>,
        raw_stage: StageName,
        now: Timestamp,
    ) -> Self {
        let raw_lead = if reported.test {
            RawLead::SkippedTest
        } else if now.seconds() - reported.created_time > EVENT_AGE_MAX_S {
            RawLead::SkippedTooOld
        } else {
            RawLead::Emitted(raw_stage)
        };
        Self { reported, source, received_at: now, raw_lead, dataset_id }
    }

    /// Somebody whom a CRM reported stages of and whose lead is not known, under an id of our own.
    pub fn unknown(
        lead_id: LeadId,
        source: SourceName,
        dataset_id: Option<DatasetId>,
        now: Timestamp,
    ) -> Self {
        let reported = ReportedLead {
            lead_id,
            page_id: None,
            form_id: None,
            ad_id: None,
            created_time: now.seconds(),
            test: false,
        };
        let raw_lead = RawLead::SkippedUnknown;
        Self { reported, source, received_at: now, raw_lead, dataset_id }
    }

    /// Whether it is somebody whose lead is not known.
    pub fn is_unknown(&self) -> bool {
        self.raw_lead == RawLead::SkippedUnknown
    }

    /// Whether a source that means only leads of a dataset may mean it; one without may mean any.
    pub fn may_be_meant(&self, source_dataset: Option<DatasetId>) -> bool {
        source_dataset.is_none() || source_dataset == self.dataset_id
    }

    /// When the form was submitted, after which all of its events must be; not known of somebody
    /// whose lead is not known.
    pub fn created_time(&self) -> Option<UnixSeconds> {
        (!self.is_unknown()).then_some(self.reported.created_time)
    }

    /// Whether a report of this stage is of the raw-lead event, whatever its time: a lead is
    /// created once.
    pub fn is_raw_stage(&self, stage: &StageName) -> bool {
        matches!(&self.raw_lead, RawLead::Emitted(raw) if raw == stage)
    }

    /// The raw-lead event, if this lead has one: the same on every replay.
    pub fn raw_event(&self) -> Option<Event> {
        let RawLead::Emitted(stage) = &self.raw_lead else {
            return None;
        };
        let event_time = self.reported.created_time + 1;
        Some(Event {
            lead_id: self.reported.lead_id,
            reported_lead: self.reported.lead_id,
            source_dataset: None,
            stage: stage.clone(),
            reported_time: event_time,
            event_time,
            source: self.source.clone(),
            received_at: self.received_at,
            customer: crate::domain::customer::Customer::default(),
            custom_data: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: i64 = 1_762_000_000;

    fn lead(test: bool, age_s: i64) -> Lead {
        let reported = ReportedLead {
            lead_id: LeadId::from_u64(1_234_567_890_123_456).unwrap(),
            page_id: None,
            form_id: None,
            ad_id: None,
            created_time: UnixSeconds::new(CREATED),
            test,
        };
        let now = UnixSeconds::new(CREATED + age_s).timestamp();
        let stage = StageName::parse("initial_lead").unwrap();
        Lead::new(reported, SourceName::webhook(), None, stage, now)
    }

    #[test]
    fn the_raw_event_is_dated_one_second_after_creation_whenever_it_is_heard_of() {
        for age_s in [-10, 0, 1, 3_600, EVENT_AGE_MAX_S] {
            let event = lead(false, age_s).raw_event().unwrap();
            assert_eq!(event.event_time.get(), CREATED + 1, "{age_s}");
            assert_eq!(event.id(), lead(false, 0).raw_event().unwrap().id());
        }
    }

    #[test]
    fn a_lead_older_than_seven_days_gets_no_raw_event_and_says_so() {
        let old = lead(false, EVENT_AGE_MAX_S + 1);
        assert_eq!((old.raw_event(), old.raw_lead), (None, RawLead::SkippedTooOld));
    }

    #[test]
    fn a_test_lead_gets_no_raw_event_however_young() {
        let test = lead(true, 0);
        assert_eq!((test.raw_event(), test.raw_lead), (None, RawLead::SkippedTest));
    }
}
