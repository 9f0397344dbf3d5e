//! A CRM's report that a lead reached a stage.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::domain::customer::Customer;
use crate::domain::event::Event;
use crate::domain::ids::{DatasetId, LeadId};
use crate::domain::lead::Lead;
use crate::domain::matching::{
    Ambiguity, CrmId, LeadReference, contact_keys, own_id_of_person, own_id_of_record,
};
use crate::domain::stage::{SourceName, StageName};
use crate::domain::time::{Timestamp, UnixSeconds};
use crate::limits::OWN_CLOCK_TOLERANCE_S;

/// A CRM's report that a lead reached a stage, checked in form but not yet against the lead.
#[derive(Clone, Debug)]
pub struct StageUpdate {
    /// How it names the lead.
    pub lead: LeadReference,
    /// The stage.
    pub stage: StageName,
    /// When it was reached, if the CRM said so.
    pub event_time: Option<UnixSeconds>,
    /// When it came, if that was not now.
    pub came_at: Option<Timestamp>,
    /// Which CRM.
    pub source: SourceName,
    /// The CRM's key for this report, unique within its source.
    pub idempotency_key: Option<Box<str>>,
    /// Customer parameters.
    pub customer: Customer,
    /// Further `custom_data`: the text of a JSON object with sorted keys.
    pub custom_data: Option<Box<str>>,
    /// How the source is configured.
    pub policy: SourcePolicy,
}

/// How reports of a source are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourcePolicy {
    /// How far the source's clock may be off, in seconds.
    pub clock_tolerance_s: u32,
    /// Whether an unknown lead is refused instead of awaited.
    pub strict: bool,
    /// What is done when a report fits several leads.
    pub ambiguity: Ambiguity,
    /// Whether a report that fits no lead is sent by what it says of the person, if Meta takes
    /// that, instead of awaiting its lead.
    pub send_unmatched: bool,
    /// Where reports are sent whose lead is not known; by default where the leads of a Page go that
    /// is not configured.
    pub dataset_id: Option<DatasetId>,
}

/// The digest of an idempotency key within its source.
pub type KeyDigest = [u8; 16];

impl StageUpdate {
    /// Where the idempotency key is remembered, if the report has one.
    pub fn key_digest(&self) -> Option<KeyDigest> {
        let key = self.idempotency_key.as_deref()?;
        Some(short_digest(&[self.source.as_str().as_bytes(), key.as_bytes()]))
    }

    /// When the stage was reached; without a word of the CRM when the report came.
    pub fn reported_time(&self, now: Timestamp) -> UnixSeconds {
        self.event_time.unwrap_or(self.came_at.unwrap_or(now).seconds())
    }

    /// Where a dated report is remembered that does not name its lead by Meta's id: repeated, it is
    /// the same event, whatever lead it fits by then.
    pub fn report_digest(&self) -> Option<KeyDigest> {
        let time = self.event_time.or(self.came_at.map(Timestamp::seconds));
        let time = time.filter(|_| self.lead.lead_id.is_none())?;
        let own_id = self.own_id();
        Some(short_digest(&[
            b"report",
            self.source.as_str().as_bytes(),
            &own_id.get().to_be_bytes(),
            self.stage.as_str().as_bytes(),
            &time.get().to_be_bytes(),
        ]))
    }

    /// Whether the CRM said when the stage was reached.
    pub fn is_dated(&self) -> bool {
        self.event_time.is_some()
    }

    /// A digest of what the report says, as given: a retry without a time stays the same report.
    pub fn fingerprint(&self) -> KeyDigest {
        let time = self.event_time.map_or_else(String::new, |time| time.to_string());
        let lead_id = self.lead.lead_id.map_or(0, LeadId::get).to_be_bytes();
        let crm_id = self.lead.crm_id.as_ref().map_or("", CrmId::as_str);
        let custom_data = self.custom_data.as_deref().unwrap_or_default();
        let customer: Vec<String> = self
            .customer
            .iter()
            .map(|(name, values)| format!("{name}={}", values.join(",")))
            .collect();
        short_digest(&[
            &lead_id,
            crm_id.as_bytes(),
            self.stage.as_str().as_bytes(),
            time.as_bytes(),
            customer.join(";").as_bytes(),
            custom_data.as_bytes(),
        ])
    }

    /// How far the time of this report may be off, in seconds: the source's clock, or ours if the
    /// report says no time.
    pub fn tolerance_s(&self) -> u32 {
        match self.event_time {
            Some(_) => self.policy.clock_tolerance_s,
            None => self.policy.clock_tolerance_s.max(OWN_CLOCK_TOLERANCE_S),
        }
    }

    /// The latest moment that it may be about, to tell the leads of one person apart.
    pub fn latest_time(&self, now: Timestamp) -> UnixSeconds {
        self.reported_time(now) + i64::from(self.tolerance_s())
    }

    /// Whether a lead may be meant by what it says of the person: one of its source's dataset, if
    /// the source has one.
    pub fn may_mean(&self, lead: &Lead) -> bool {
        lead.may_be_meant(self.policy.dataset_id)
    }

    /// The id to file it under if it fits no lead. A source that means only leads of a dataset
    /// knows nobody of another: two advertisers' customers are two, even if they are one person.
    pub fn own_id(&self) -> LeadId {
        match &self.lead.crm_id {
            Some(crm_id) => own_id_of_record(&self.source, crm_id),
            None => own_id_of_person(self.policy.dataset_id, &self.customer),
        }
    }

    /// Whether it is sent by what it says of the person if it fits no lead: where the source wants
    /// that, and where it names nothing by which its lead could be found later.
    pub fn is_sent_unmatched(&self) -> bool {
        let can_be_found = self.lead.lead_id.is_some()
            || self.lead.crm_id.is_some()
            || !contact_keys(&self.customer).is_empty();
        let wanted = self.policy.send_unmatched && self.lead.lead_id.is_none();
        (wanted || !can_be_found) && self.customer.is_sendable_alone()
    }

    /// The event that this report becomes once its lead is found and its time judged.
    pub fn into_event(
        self,
        lead_id: LeadId,
        reported_time: UnixSeconds,
        event_time: UnixSeconds,
        now: Timestamp,
    ) -> Event {
        Event {
            lead_id,
            reported_lead: lead_id,
            source_dataset: self.policy.dataset_id,
            stage: self.stage,
            reported_time,
            event_time,
            source: self.source,
            received_at: now,
            customer: self.customer,
            custom_data: self.custom_data,
        }
    }

    /// The event of a stage that this report skipped: of the same person, and said by us.
    pub fn filler(
        &self,
        lead_id: LeadId,
        stage: StageName,
        time: UnixSeconds,
        now: Timestamp,
    ) -> Event {
        let (source, custom_data) = (SourceName::leadloop(), None);
        let update = Self { stage, source, custom_data, ..self.clone() };
        update.into_event(lead_id, time, time, now)
    }
}

/// The order in which to take the updates that came together, as places among them: those that name
/// the same lead in the same way by their times. So none makes us invent a time for a stage that
/// another tells the true one of.
pub fn order_to_take(updates: &[StageUpdate], now: Timestamp) -> Vec<usize> {
    let mut leads: BTreeMap<LeadId, Vec<usize>> = BTreeMap::new();
    for (place, update) in updates.iter().enumerate() {
        let lead_id = update.lead.lead_id.unwrap_or_else(|| update.own_id());
        leads.entry(lead_id).or_default().push(place);
    }
    let mut order: Vec<usize> = (0..updates.len()).collect();
    for places in leads.into_values() {
        let mut taken = places.clone();
        taken.sort_by_key(|place| updates[*place].reported_time(now));
        for (place, taken) in places.into_iter().zip(taken) {
            order[place] = taken;
        }
    }
    order
}

/// Half a SHA-256 over length-prefixed parts.
pub fn short_digest(parts: &[&[u8]]) -> KeyDigest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut digest = KeyDigest::default();
    let length = digest.len();
    digest.copy_from_slice(&hash.finalize()[..length]);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(key: &str, time: Option<i64>) -> StageUpdate {
        StageUpdate {
            lead: LeadId::from_u64(1_234_567_890_123_456).unwrap().into(),
            stage: StageName::parse("won").unwrap(),
            event_time: time.map(UnixSeconds::new),
            came_at: None,
            source: SourceName::unnamed_crm(),
            idempotency_key: Some(key.into()),
            customer: Customer::default(),
            custom_data: None,
            policy: SourcePolicy::default(),
        }
    }

    #[test]
    fn a_fingerprint_is_of_the_content_and_not_of_the_key() {
        assert_eq!(update("a", None).fingerprint(), update("b", None).fingerprint());
        assert_ne!(update("a", None).fingerprint(), update("a", Some(1)).fingerprint());
        assert_ne!(update("a", None).key_digest(), update("b", None).key_digest());
    }

    #[test]
    fn a_report_without_a_time_is_of_when_it_came_and_stays_the_same_report() {
        let (now, came_at) = (Timestamp::from_millis(9_000), Timestamp::from_millis(5_000));
        let kept = StageUpdate { came_at: Some(came_at), ..update("a", None) };
        assert_eq!(kept.reported_time(now), UnixSeconds::new(5));
        assert_eq!(kept.fingerprint(), update("a", None).fingerprint());
        assert_eq!(update("a", None).reported_time(now), UnixSeconds::new(9));
        let dated = StageUpdate { came_at: Some(came_at), ..update("a", Some(3)) };
        assert_eq!(dated.reported_time(now), UnixSeconds::new(3));
    }

    #[test]
    fn the_same_key_of_another_source_is_another_key() {
        let mut other = update("a", None);
        other.source = SourceName::parse("hubspot").unwrap();
        assert_ne!(update("a", None).key_digest(), other.key_digest());
    }

    #[test]
    fn a_report_is_known_again_by_its_time_or_by_when_it_came_and_not_by_now() {
        let of_record = |time, came_at: Option<i64>| {
            let crm_id = CrmId::parse("4711").ok();
            let came_at = came_at.map(|seconds| UnixSeconds::new(seconds).timestamp());
            let lead = LeadReference { lead_id: None, crm_id };
            StageUpdate { lead, came_at, ..update("a", time) }.report_digest()
        };
        assert_eq!(of_record(None, None), None);
        assert!(of_record(Some(5), None).is_some());
        assert_eq!(of_record(None, Some(5)), of_record(Some(5), Some(9)));
        assert_ne!(of_record(None, Some(5)), of_record(None, Some(9)));
        assert_eq!(update("a", Some(5)).report_digest(), None, "its lead's events tell");
    }
}
