//! What the model does with what a webhook brought.

use crate::domain::alarm::{Causes, Subject};
use crate::domain::time::Timestamp;
use crate::store::memory::state::{Effects, State};
use crate::store::{Ingested, Intake};

impl State {
    pub(in crate::store) fn ingest(&mut self, intake: Intake, now: Timestamp) -> Ingested {
        let mut effects = Effects::default();
        let leads = intake.leads.into_iter();
        let outcomes = leads.map(|lead| self.add_lead(lead, now, &mut effects)).collect();
        let mut causes = Causes::default();
        for piece in intake.quarantined {
            if self.quarantine.values().all(|kept| kept.payload != piece.payload) {
                let seq = self.seq();
                self.quarantine.insert(seq, piece);
                causes.add(Subject::QuarantineAdded, || None);
            }
        }
        self.alarms.raise_all(causes, now);
        let Effects { enqueued, dead } = effects;
        Ingested { outcomes, enqueued, dead }
    }
}
