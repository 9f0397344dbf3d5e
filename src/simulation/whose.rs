//! Whose an event is: the lead that a CRM meant, the one that the store found, and the one that
//! Meta is told.
//!
//! A report that names its lead by a CRM's id or an e-mail address has an event id of its own,
//! which it keeps when its lead is found; so the id does not tell the lead.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::domain::ids::{EventId, LeadId};

/// The leads of events.
#[derive(Default)]
pub(super) struct Whose {
    /// The lead of each event that has been in a queue.
    found: BTreeMap<EventId, LeadId>,
    /// The lead that was meant, where only one can have been.
    meant: BTreeMap<EventId, LeadId>,
    /// What Meta was told: of a lead a stage at a time, by which event.
    told: BTreeMap<(LeadId, String, i64), EventId>,
}

impl Whose {
    /// The lead of an event.
    pub(super) fn lead_of(&self, event_id: EventId) -> LeadId {
        self.found.get(&event_id).copied().unwrap_or_else(|| event_id.lead_id())
    }

    /// The store has found the lead of an event.
    pub(super) fn find(&mut self, event_id: EventId, lead_id: LeadId) {
        self.found.insert(event_id, lead_id);
    }

    /// An event is gone with its lead; the same report makes it anew.
    pub(super) fn forget(&mut self, event_id: EventId) {
        self.found.remove(&event_id);
        self.told.retain(|_, told_by| *told_by != event_id);
    }

    /// A CRM was answered this event for a report that meant this lead.
    pub(super) fn mean(&mut self, event_id: EventId, meant: LeadId) -> Result<(), String> {
        let before = *self.meant.entry(event_id).or_insert(meant);
        if before == meant { Ok(()) } else { Err(format!("{event_id} is of {before} and {meant}")) }
    }

    /// An event is sent: it must carry the lead that was found and meant, and be the only one that
    /// says so.
    pub(super) fn tell(&mut self, event_id: EventId, event: &Value) -> Result<(), String> {
        let carried = event["user_data"]["lead_id"].as_u64().and_then(LeadId::from_u64);
        let found = self.lead_of(event_id);
        let lead_id = carried.filter(|lead_id| *lead_id == found);
        let lead_id =
            lead_id.ok_or_else(|| format!("{event_id} of {found} carries {carried:?}"))?;
        if let Some(meant) = self.meant.get(&event_id).filter(|meant| **meant != lead_id) {
            return Err(format!("{event_id} is sent for {lead_id}, and {meant} was meant"));
        }
        let stage = event["event_name"].as_str().unwrap_or_default().to_owned();
        let said = (lead_id, stage, event["event_time"].as_i64().unwrap_or_default());
        let told_by = *self.told.entry(said).or_insert(event_id);
        if told_by == event_id {
            Ok(())
        } else {
            Err(format!("{event_id} says what {told_by} said"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stage::StageName;
    use crate::domain::time::UnixSeconds;
    use crate::simulation::input::lead_id;
    use serde_json::json;

    #[test]
    fn what_is_sent_for_another_lead_or_said_twice_is_seen() {
        let won = StageName::parse("won").unwrap();
        let event_of = |lead_id| EventId::derive(lead_id, &won, UnixSeconds::new(5));
        let (one, two) = (lead_id(1), lead_id(2));
        let own = event_of(LeadId::own(&[b"record"]));
        let sent = |lead_id: LeadId| json!({"event_name": "won", "event_time": 5, "user_data": {"lead_id": lead_id.get()}});
        let mut whose = Whose::default();
        assert!(whose.tell(own, &sent(one)).is_err(), "nobody has found its lead");
        whose.find(own, one);
        assert!(whose.tell(own, &sent(two)).is_err());
        assert_eq!(whose.tell(own, &sent(one)), Ok(()));
        assert_eq!(whose.tell(own, &sent(one)), Ok(()), "the same again is no other");
        assert!(whose.tell(event_of(one), &sent(one)).is_err());
        assert_eq!(whose.mean(own, two), Ok(()));
        assert!(whose.mean(own, one).is_err());
        assert!(whose.tell(own, &sent(one)).is_err(), "it was found for another than was meant");
        whose.forget(own);
        assert_eq!(whose.tell(event_of(one), &sent(one)), Ok(()));
    }
}
