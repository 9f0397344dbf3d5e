//! A database in which each use case finds something to do, and one call of each.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use crate::domain::alarm::{AlarmKey, AlarmKind, Cause, Kept, Subject};
use crate::domain::customer::Customer;
use crate::domain::event::{DeadReason, EventState, StageUpdate};
use crate::domain::ids::{DatasetId, EventId, FormId};
use crate::domain::mark::{FormMark, Pass};
use crate::domain::matching::{CrmId, LeadReference};
use crate::domain::routing::Routing;
use crate::domain::stage::SourceName;
use crate::domain::time::Timestamp;
use crate::store::conformance::support::{
    DAY, NOBODY, all, at, attempt, dataset, deliver_due, ingest, keyed, kill_due, lead, lead_id,
    lead_of, piece, report, routing, second, settlement, update,
};
use crate::store::query::{DeadLetters, EventFilter, LeadFilter};
use crate::store::{Batch, Duty, Intake, Settlement, Store, StoreError, Unmapped};

/// What the database holds and the calls need.
pub struct Scene {
    now: Timestamp,
    /// The events of two leads.
    batch: Batch,
    dead: EventId,
    alarm: AlarmKey,
    unmapped: u64,
}

impl Scene {
    /// Sets everything up: somebody delivered, somebody refused, two who wait to be sent, one
    /// without a dataset, three reports that await their leads and one whose lead never came,
    /// something in quarantine, something unmapped, and alarms about it.
    pub async fn set_up(store: &dyn Store) -> Self {
        let now = at(100);
        let kinds = AlarmKind::ALL.iter().copied().collect();
        store.keep_alarms(Kept { kinds, ..Kept::default() }).await.unwrap();
        report(store, update(6, "won", -9 * DAY), at(-9 * DAY)).await;
        store.expire_stranded(at(-DAY)).await.unwrap();
        ingest(store, &[lead(5)]).await;
        deliver_due(store, 6).await;
        ingest(store, &[lead(8)]).await;
        kill_due(store, DeadReason::RefusedByMeta, 7).await;
        let leads = vec![lead(1), lead(2), lead_of(3, 9), lead_of(4, 2)];
        store.ingest(Intake { leads, quarantined: vec![piece("old")] }, at(5)).await.unwrap();
        for awaiting in [update(7, "won", 50), of_record("won", 50), of_person("won", 50)] {
            report(store, awaiting, at(60)).await;
        }
        store.set_aside(vec![unmapped(b"old", 5), unmapped(b"new", 90)]).await.unwrap();
        let pages = store.list_unmapped(None, all()).await.unwrap();
        let filter = EventFilter { lead_id: Some(lead_id(8)), ..EventFilter::default() };
        let refused = store.list_events(filter, all(), now).await.unwrap();
        Self {
            now,
            batch: store.next_batch(dataset(1), now, 10, &NOBODY).await.unwrap(),
            dead: refused.items[0].event.id(),
            alarm: store.alarms().await.unwrap().waiting[0].key(),
            unmapped: pages.items[0].seq,
        }
    }

    /// Calls a method that changes something here.
    pub async fn change(&self, store: &dyn Store, method: &str) -> Option<Result<(), StoreError>> {
        let (source, now, routing) = (SourceName::unnamed_crm(), self.now, routing());
        Some(match method {
            "ingest" => store.ingest(intake(), now).await.map(drop),
            "record_stage_updates" => {
                store.record_stage_updates(updates(), &routing, now).await.map(drop)
            }
            "link_crm_id" => store.link_crm_id(source, record(), lead_id(1), now).await.map(drop),
            "add_customer" => store.add_customer(lead_id(2), person(), now).await.map(drop),
            "hold" => store.hold(Duty::Reading).await.map(drop),
            // The duty is taken with it.
            "next_batch" => store.next_batch(dataset(2), now, 9, &NOBODY).await.map(drop),
            "settle" => store.settle(self.settlement()).await,
            "requeue" => store.requeue(self.dead, &routing, now).await.map(drop),
            "requeue_many" => {
                let letters = DeadLetters::Filtered(EventFilter::default(), all());
                store.requeue_many(letters, false, &routing, now).await.map(drop)
            }
            "route_held" => {
                let elsewhere = Routing::new([].into(), Some(dataset(3)));
                store.route_held(&elsewhere).await.map(drop)
            }
            "expire_stranded" => store.expire_stranded(at(8 * DAY)).await.map(drop),
            "set_form_mark" => store.set_form_mark(form(), mark()).await,
            "erase_lead" => store.erase_lead(lead_id(1), now).await.map(drop),
            "remove_old" => store.remove_old(at(10), 0).await.map(drop),
            "set_aside" => {
                let reports = vec![unmapped(b"old", 91), unmapped(b"a", 92), unmapped(b"b", 93)];
                store.set_aside(reports).await.map(drop)
            }
            "end_unmapped" => store.end_unmapped(self.unmapped).await.map(drop),
            "remove_unmapped" => store.remove_unmapped(at(50), now).await.map(drop),
            "add_api_key" => store.add_api_key([1; 32]).await,
            "keep_alarms" => store.keep_alarms(Kept::default()).await,
            "raise_alarm" => {
                let reason = "stage".into();
                let subject = Subject::ReportsRefused { source, reason };
                store.raise_alarm(Cause::once(subject, None), now).await
            }
            "begin_alarm_try" => store.begin_alarm_try(&self.alarm, now).await.map(drop),
            "end_alarm" => store.end_alarm(&self.alarm).await,
            _ => return None,
        })
    }

    /// Calls a method that only looks, or whether one can write.
    pub async fn look(&self, store: &dyn Store, method: &str) -> Option<Result<(), StoreError>> {
        let now = self.now;
        Some(match method {
            "judge_stage_updates" => {
                store.judge_stage_updates(updates(), &routing(), now).await.map(drop)
            }
            "due" => {
                let datasets: BTreeSet<DatasetId> = [1, 2, 3].map(dataset).into();
                store.due(&datasets, now).await.map(drop)
            }
            "still_queued" => {
                let entries = self.batch.events.iter().map(|queued| queued.entry).collect();
                store.still_queued(dataset(1), entries).await.map(drop)
            }
            "probe" => store.probe().await,
            "fronts" => store.fronts().await.map(drop),
            "awaited_leads" => store.awaited_leads(None, 9).await.map(drop),
            "form_mark" => store.form_mark(form()).await.map(drop),
            "find_lead" => store.find_lead(lead_id(1)).await.map(drop),
            "find_event" => store.find_event(self.dead).await.map(drop),
            "list_leads" => store.list_leads(LeadFilter::default(), all(), now).await.map(drop),
            "list_events" => {
                let dead = EventFilter::in_state(Some(EventState::Dead));
                store.list_events(dead, all(), now).await.map(drop)
            }
            "list_quarantine" => store.list_quarantine(all()).await.map(drop),
            "list_unmapped" => store.list_unmapped(None, all()).await.map(drop),
            "api_keys" => store.api_keys().await.map(drop),
            "stats" => store.stats().await.map(drop),
            "near_deadline" => store.near_deadline(second(DAY)).await.map(drop),
            "alarms" => store.alarms().await.map(drop),
            "back_up" => store.back_up(now, &CancellationToken::new()).await.map(drop),
            _ => return None,
        })
    }

    /// One event delivered, and one refused.
    fn settlement(&self) -> Settlement {
        let [first, second] = &self.batch.events[..] else { panic!("there are two") };
        Settlement {
            delivered: vec![first.entry],
            dead: vec![(second.entry, DeadReason::RefusedByMeta)],
            hold: self.batch.hold.clone().unwrap(),
            ..settlement(Some(attempt(100, true)), 100)
        }
    }
}

/// A lead that is known, one that is awaited, one that is new, and something unreadable.
fn intake() -> Intake {
    Intake { leads: vec![lead(1), lead(7), lead(9)], quarantined: vec![piece("new")] }
}

/// Stages of known leads, of an unknown one, and of two who are named otherwise.
fn updates() -> Vec<StageUpdate> {
    vec![
        update(1, "qualified", 70),
        keyed("key", update(2, "won", 71)),
        update(20, "won", 72),
        of_record("qualified", 73),
        of_person("qualified", 74),
    ]
}

fn of_record(stage: &str, time: i64) -> StageUpdate {
    let lead = LeadReference { lead_id: None, crm_id: Some(record()) };
    StageUpdate { lead, ..update(0, stage, time) }
}

fn of_person(stage: &str, time: i64) -> StageUpdate {
    let lead = LeadReference { lead_id: None, crm_id: None };
    StageUpdate { lead, customer: person(), ..update(0, stage, time) }
}

fn record() -> CrmId {
    CrmId::parse("record 1").unwrap()
}

fn person() -> Customer {
    Customer::from_stored([("em".to_owned(), vec!["a".repeat(64)])])
}

fn unmapped(sealed: &[u8], seconds: i64) -> Unmapped {
    Unmapped {
        received_at: at(seconds),
        source: SourceName::unnamed_crm(),
        field: "stage".into(),
        reason: "nothing is there".into(),
        sealed: sealed.to_vec(),
    }
}

fn form() -> FormId {
    FormId::from_u64(1).unwrap()
}

fn mark() -> FormMark {
    FormMark { pass: Some(Pass::since(second(0))), ..FormMark::default() }
}
