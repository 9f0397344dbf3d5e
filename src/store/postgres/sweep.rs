//! Housekeeping, some leads at a time. One of them that can't be read is left alone, and the others
//! are looked after.

use crate::domain::ids::LeadId;
use crate::domain::routing::Routing;
use crate::domain::time::Timestamp;
use crate::limits::DB_LEADS_MAX;
use crate::store::memory::State;
use crate::store::postgres::error::Failure;
use crate::store::postgres::load::Seeds;
use crate::store::postgres::tries::{Tries, reading, writing};
use crate::store::postgres::writer::About;
use crate::store::postgres::{PostgresStore, facts, upkeep};
use crate::store::{Removed, StoreError, Stranded};

impl PostgresStore {
    /// See [`crate::store::Store::route_held`].
    pub(super) async fn sweep_held(&self, routing: &Routing) -> Result<u64, StoreError> {
        let (mut moved, mut last) = (0, None);
        loop {
            let leads = reading!(self, session => upkeep::leads_to_route(session, routing, last))?;
            let Some(highest) = leads.last() else { return Ok(moved) };
            last = Some(*highest);
            let routing = routing.clone();
            let work = move |state: &mut State| state.route_held(&routing);
            moved += self.sweep(leads, Seeds::leads, work).await?.into_iter().sum::<u64>();
        }
    }

    /// See [`crate::store::Store::expire_stranded`].
    pub(super) async fn sweep_stranded(&self, now: Timestamp) -> Result<Stranded, StoreError> {
        let mut all = Stranded::default();
        loop {
            let leads = reading!(self, session => upkeep::overdue(session, now))?;
            let work = move |state: &mut State| state.expire_stranded(now);
            let before = all;
            for Stranded { awaiting, held } in self.sweep(leads, Seeds::leads, work).await? {
                all = Stranded { awaiting: all.awaiting + awaiting, held: all.held + held };
            }
            if all == before {
                return Ok(all);
            }
        }
    }

    /// See [`crate::store::Store::remove_old`].
    pub(super) async fn sweep_old(
        &self,
        before: Timestamp,
        from: u64,
    ) -> Result<Removed, StoreError> {
        let mut all = Removed::default();
        let (mut leads, mut is_full) = (Vec::new(), false);
        if from == 0 {
            all.quarantined =
                writing!(self, session => facts::remove_quarantined(session, before))?;
            leads = reading!(self, session => upkeep::never_came(session, before))?;
            is_full = leads.len() == DB_LEADS_MAX;
        }
        let (old, next) = reading!(self, session => upkeep::old_leads(session, before, from))?;
        leads.extend(old);
        all.next = next;
        let whole = |leads: Vec<LeadId>| Seeds::leads(leads).whole();
        let work = move |state: &mut State| state.remove_old(before);
        for removed in self.sweep(leads, whole, work).await? {
            all.leads += removed.leads;
            all.events += removed.events;
        }
        if is_full && all.events > 0 {
            // There may be more of these, which are looked for at the start only.
            all.next = Some(0);
        }
        Ok(all)
    }

    /// Does something with all of some leads, in halves where one of them can't be read.
    async fn sweep<T, F>(
        &self,
        leads: Vec<LeadId>,
        seeds: impl Fn(Vec<LeadId>) -> Seeds,
        work: F,
    ) -> Result<Vec<T>, StoreError>
    where
        T: Send + Sync + 'static,
        F: Fn(&mut State) -> T + Clone + Send + Sync + 'static,
    {
        let (mut done, mut parts) = (Vec::new(), vec![leads]);
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let about = About::sweep(seeds(part.clone()));
            match (self.writer.submit(about, work.clone()).await, &part[..]) {
                (Ok(result), _) => done.push(result),
                (Err(StoreError::Corrupt(problem)), [lead_id]) => {
                    tracing::error!(%lead_id, error = problem, "a lead cannot be read and is left alone");
                }
                (Err(StoreError::Corrupt(_)), _) => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(done)
    }
}
