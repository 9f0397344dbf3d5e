//! Values for tests of what works on top of a store.

use crate::domain::customer::Customer;
use crate::domain::event::Event;
use crate::domain::ids::LeadId;
use crate::domain::stage::{SourceName, StageName};
use crate::domain::time::UnixSeconds;
use crate::store::{QueueEntry, QueuedEvent};

/// An event in a queue, of a lead of its own, dated at this second.
pub fn queued_at(number: u64, event_time: i64) -> QueuedEvent {
    let event_time = UnixSeconds::new(event_time);
    let lead_id = LeadId::from_u64(1_234_567_890_123_000 + number).expect("16 digits");
    let event = Event {
        lead_id,
        reported_lead: lead_id,
        source_dataset: None,
        stage: StageName::parse("initial_lead").expect("a name"),
        reported_time: event_time,
        event_time,
        source: SourceName::webhook(),
        received_at: event_time.timestamp(),
        customer: Customer::default(),
        custom_data: None,
    };
    QueuedEvent { entry: QueueEntry { event_time, reported: false, seq: number }, event }
}
