//! Which lead a stage update is about, when it does not say so by Meta's id.
//!
//! A CRM often knows its own record and an address, and not Meta's id. A store looks up what it
//! knows under these, and asks here which of the leads is meant. An update that fits no lead is
//! filed under an id of our own ([`LeadId::own`]), the same for the same record or person, until
//! its lead is known.

use std::collections::BTreeMap;
use std::fmt;

use crate::domain::customer::{Customer, Parameter};
use crate::domain::event::short_digest;
use crate::domain::ids::{DatasetId, LeadId};
use crate::domain::stage::{InvalidName, SourceName, clean};
use crate::domain::time::UnixSeconds;
use crate::limits::CRM_ID_BYTES_MAX;

/// A CRM's own id of a record: what it is of, a contact or a deal, is the CRM's affair.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CrmId(Box<str>);

impl CrmId {
    /// Takes an id of 1 to 255 bytes, trimmed, without control characters.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        clean(text, "CRM id", CRM_ID_BYTES_MAX).map(Self)
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CrmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a report names its lead, besides by what it says of the person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeadReference {
    /// Meta's id.
    pub lead_id: Option<LeadId>,
    /// The CRM's.
    pub crm_id: Option<CrmId>,
}

impl From<LeadId> for LeadReference {
    fn from(lead_id: LeadId) -> Self {
        Self { lead_id: Some(lead_id), crm_id: None }
    }
}

/// Our own id of whom a CRM's record is about.
pub fn own_id_of_record(source: &SourceName, crm_id: &CrmId) -> LeadId {
    LeadId::own(&[b"crm_id", source.as_str().as_bytes(), crm_id.as_str().as_bytes()])
}

/// Our own id of a person, among those of a dataset if one is given: by e-mail and phone, or else
/// by all that is known.
pub fn own_id_of_person(dataset_id: Option<DatasetId>, customer: &Customer) -> LeadId {
    let mut parts: Vec<&str> = customer.digests_of_contact().map(|(_, digest)| digest).collect();
    parts.sort_unstable();
    if parts.is_empty() {
        parts.extend(customer.iter().flat_map(|(name, values)| {
            std::iter::once(name).chain(values.iter().map(String::as_str))
        }));
    }
    let dataset_id = dataset_id.map(|id| id.get().to_be_bytes());
    let dataset_id = dataset_id.iter().map(|id| &id[..]);
    let parts: Vec<&[u8]> = dataset_id.chain(parts.into_iter().map(str::as_bytes)).collect();
    LeadId::own(&parts)
}

/// What of a lead a report was matched by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MatchedBy {
    /// Meta's id.
    LeadId,
    /// The CRM's own id, linked before.
    CrmId,
    /// The digest of an e-mail address.
    Email,
    /// The digest of a phone number.
    Phone,
}

impl MatchedBy {
    /// Whether it tells the person, who may have several leads.
    pub const fn is_contact(self) -> bool {
        matches!(self, Self::Email | Self::Phone)
    }

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeadId => "lead_id",
            Self::CrmId => "crm_id",
            Self::Email => "email",
            Self::Phone => "phone",
        }
    }
}

/// The digest of an address as the matching index keeps it.
pub type ContactKey = [u8; 16];

/// The keys by which a person is found again, e-mail before phone.
pub fn contact_keys(customer: &Customer) -> Vec<(MatchedBy, ContactKey)> {
    let key = |(parameter, digest): (Parameter, &str)| {
        let by = if parameter == Parameter::Em { MatchedBy::Email } else { MatchedBy::Phone };
        (by, short_digest(&[by.name().as_bytes(), digest.as_bytes()]))
    };
    customer.digests_of_contact().map(key).collect()
}

/// Whether two who share a phone number are two people: each has an e-mail address, and they have
/// none in common. What is said of one is not said of the other.
pub fn are_two(one: &Customer, other: &Customer) -> bool {
    let emails = |customer| {
        let keys = contact_keys(customer).into_iter();
        keys.filter(|(by, _)| *by == MatchedBy::Email).collect::<Vec<_>>()
    };
    let (ones, others) = (emails(one), emails(other));
    !ones.is_empty() && !others.is_empty() && ones.iter().all(|email| !others.contains(email))
}

/// A lead that a report may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The lead.
    pub lead_id: LeadId,
    /// When it was created.
    pub created_time: UnixSeconds,
    /// What it was found by.
    pub by: MatchedBy,
}

/// Whom a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The lead, or the id of our own to file the report under.
    pub lead_id: LeadId,
    /// What the lead was found by.
    pub by: Option<MatchedBy>,
    /// Whether what it was found by names one lead: not if that was chosen among several. A CRM's
    /// own id that comes with it is the lead's from then on; a wrong choice would stick.
    pub is_sure: bool,
}

impl Found {
    /// By an id that names one lead.
    pub fn by_id(lead_id: LeadId, by: MatchedBy) -> Self {
        Self { lead_id, by: Some(by), is_sure: true }
    }

    /// No lead fits: the id to file the report under.
    pub fn nobody(own_id: LeadId) -> Self {
        Self { lead_id: own_id, by: None, is_sure: false }
    }
}

/// What is done when a report fits several leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ambiguity {
    /// The newest lead that was created before the reported time is meant.
    #[default]
    Newest,
    /// The report is refused.
    Refuse,
}

/// A report fits several leads, and its source wants to be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} leads fit this e-mail address or phone number", .lead_ids.len())]
pub struct Ambiguous {
    /// The leads.
    pub lead_ids: Vec<LeadId>,
}

/// Which of the leads that were found by a contact is meant; `None` if none was found.
///
/// # Errors
/// [`Ambiguous`] if several were found and the source does not want one chosen.
pub fn choose(
    candidates: impl IntoIterator<Item = Candidate>,
    event_time: UnixSeconds,
    ambiguity: Ambiguity,
) -> Result<Option<Found>, Ambiguous> {
    let mut leads: BTreeMap<LeadId, Candidate> = BTreeMap::new();
    for candidate in candidates {
        let known = leads.entry(candidate.lead_id).or_insert(candidate);
        known.by = known.by.min(candidate.by);
    }
    // Two people may share a phone number; what fits better counts alone.
    let best = leads.values().map(|lead| lead.by).min();
    leads.retain(|_, lead| Some(lead.by) == best);
    if leads.len() > 1 && ambiguity == Ambiguity::Refuse {
        return Err(Ambiguous { lead_ids: leads.into_keys().collect() });
    }
    // Where all were created later, the rule of times says so of the newest.
    let newest =
        |lead: &Candidate| (lead.created_time < event_time, lead.created_time, lead.lead_id);
    let is_sure = leads.len() == 1;
    let chosen = leads.into_values().max_by_key(newest);
    Ok(chosen.map(|lead| Found { lead_id: lead.lead_id, by: Some(lead.by), is_sure }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(number: u64, created: i64, by: MatchedBy) -> Candidate {
        let lead_id = LeadId::from_u64(1_000_000_000_000_000 + number).unwrap();
        Candidate { lead_id, created_time: UnixSeconds::new(created), by }
    }

    fn chosen(candidates: &[Candidate], time: i64) -> Option<(LeadId, bool)> {
        let time = UnixSeconds::new(time);
        let found = choose(candidates.iter().copied(), time, Ambiguity::Newest).unwrap();
        found.map(|found| (found.lead_id, found.is_sure))
    }

    fn found(candidate: Candidate) -> Found {
        Found::by_id(candidate.lead_id, candidate.by)
    }

    #[test]
    fn the_newest_lead_that_was_created_before_is_meant() {
        let [a, b, c] = [1, 2, 3].map(|n| candidate(n, n.cast_signed() * 100, MatchedBy::Phone));
        assert_eq!(chosen(&[], 150), None);
        let guess = |lead: Candidate| Some((lead.lead_id, false));
        let alone = chosen(&[c], 150);
        assert_eq!(alone, Some((c.lead_id, true)), "alone, it is meant and its time judged");
        assert_eq!(chosen(&[a, b, c], 250), guess(b));
        assert_eq!(chosen(&[c, b, a], 200), guess(a), "created before, not at");
        assert_eq!(chosen(&[a, b, c], 50), guess(c));
    }

    #[test]
    fn a_lead_that_is_found_twice_is_one_lead() {
        let twice = [candidate(1, 100, MatchedBy::Phone), candidate(1, 100, MatchedBy::Email)];
        let time = UnixSeconds::new(200);
        let chosen = choose(twice, time, Ambiguity::Refuse).unwrap();
        assert_eq!(chosen, Some(found(twice[1])));
    }

    #[test]
    fn an_email_address_counts_before_a_phone_number_that_others_share() {
        let both = [candidate(1, 100, MatchedBy::Email), candidate(2, 200, MatchedBy::Phone)];
        let chosen = choose(both, UnixSeconds::new(300), Ambiguity::Refuse).unwrap();
        assert_eq!(chosen, Some(found(both[0])));
    }

    #[test]
    fn several_leads_are_refused_where_the_source_wants_it() {
        let found = [candidate(2, 100, MatchedBy::Email), candidate(1, 100, MatchedBy::Email)];
        let refused = choose(found, UnixSeconds::new(200), Ambiguity::Refuse).unwrap_err();
        assert_eq!(refused.lead_ids, [found[1].lead_id, found[0].lead_id]);
    }

    #[test]
    fn two_people_have_an_email_address_each() {
        let of = |email: &str| {
            Customer::from_stored([("em".to_owned(), vec!["both".to_owned(), email.to_owned()])])
        };
        let alone =
            |email: &str| Customer::from_stored([("em".to_owned(), vec![email.to_owned()])]);
        assert!(are_two(&alone("aa"), &alone("bb")));
        assert!(!are_two(&of("aa"), &of("bb")));
        assert!(!are_two(&alone("aa"), &Customer::default()));
    }

    #[test]
    fn our_own_ids_are_the_same_for_the_same_record_or_person_and_none_of_metas() {
        let source = SourceName::unnamed_crm();
        let crm_id = CrmId::parse(" 4711 ").unwrap();
        let own = own_id_of_record(&source, &crm_id);
        assert_eq!(own, own_id_of_record(&source, &CrmId::parse("4711").unwrap()));
        assert_ne!(own, own_id_of_record(&SourceName::parse("other").unwrap(), &crm_id));
        assert!(own.is_own());
        let person = |values: &[(&str, &str)]| {
            let values =
                values.iter().map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]));
            own_id_of_person(None, &Customer::from_stored(values))
        };
        let known = person(&[("em", "aa"), ("ph", "bb")]);
        assert_eq!(known, person(&[("ph", "bb"), ("em", "aa"), ("fn", "cc")]));
        assert_ne!(known, person(&[("em", "aa")]));
        assert_ne!(person(&[("fn", "cc"), ("ln", "dd")]), person(&[("fn", "dd"), ("ln", "cc")]));
    }

    #[test]
    fn an_email_and_a_phone_number_of_one_digest_are_two_keys() {
        let of = |name: &str| {
            Customer::from_stored([(name.to_owned(), vec!["aa".to_owned(), "bb".to_owned()])])
        };
        let keys = contact_keys(&of("em"));
        assert_eq!(keys.len(), 2);
        assert_ne!(keys[0].1, contact_keys(&of("ph"))[0].1);
        assert_eq!(contact_keys(&of("fn")), []);
    }
}
