//! A script that uses every way to write, in every order that makes a difference, and a player
//! that takes the model along: after any fault the store must look like the model does.

use super::model::Fate::{Delivered, Expired, Failed, Refused, Untouched};
use super::model::SomeRouting::{Everywhere, KnownPages, Nowhere};
use super::model::{Named, SomeLead, SomeLetters, SomeUpdate, Step, everything, take};
use crate::store::StoreError;
use crate::store::conformance::support::{DAY, at};
use crate::store::memory::MemoryStore;
use crate::store::redb::RedbStore;

/// A lead that was created three seconds ago.
fn lead(number: u64, page: u64) -> SomeLead {
    SomeLead { number, page, age_s: 3, test: false, routed: true }
}

/// A stage that is reached just now.
fn now(number: u64, stage: &'static str) -> SomeUpdate {
    SomeUpdate {
        number,
        stage,
        ago_s: None,
        key: None,
        tolerance_s: 0,
        strict: false,
        named: Named::Id,
    }
}

/// A stage that skips one, of a lead that is named so.
fn by(named: Named) -> SomeUpdate {
    SomeUpdate { named, ..now(1, "won") }
}

/// A stage that was reached at a time, under a key.
fn keyed(number: u64, stage: &'static str, ago_s: i64) -> SomeUpdate {
    SomeUpdate { ago_s: Some(ago_s), key: Some("a"), ..now(number, stage) }
}

pub(in crate::store) fn script() -> Vec<Step> {
    [deliveries(), matches(), removals()].concat()
}

/// Leads, stages, and what becomes of sending them.
fn deliveries() -> Vec<Step> {
    use Step::{
        EndAlarm, Ingest, KeepAlarms, Key, Mark, Pause, Probe, Report, Requeue, RequeueMany, Route,
        Settle, TryAlarm, Wait,
    };
    let all = |fate| [fate; 4];
    let differing = SomeLead { age_s: 2, ..lead(1, 1) };
    let test = SomeLead { test: true, ..lead(6, 1) };
    let early = SomeUpdate { ago_s: Some(2), ..now(4, "won") };
    let strict = SomeUpdate { strict: true, ..now(7, "won") };
    vec![
        Key(1),
        KeepAlarms,
        Probe,
        Mark(1, false),
        Mark(1, true),
        // New leads, among them one without a dataset; then known ones, and a piece twice.
        Ingest(vec![lead(1, 1), lead(2, 2), lead(3, 3)], true),
        Ingest(vec![lead(1, 1)], true),
        Ingest(vec![differing, test], false),
        // New, known, refused, and awaiting their leads.
        Report(vec![keyed(1, "qualified", 1), now(2, "won")], KnownPages),
        Report(vec![keyed(1, "qualified", 1), keyed(1, "won", 0), strict], KnownPages),
        Report(vec![early, now(4, "qualified"), now(5, "won"), now(6, "won")], KnownPages),
        Settle(1, 1, all(Delivered), true),
        Wait(2),
        // One of the events that awaited this lead is dated before it.
        Ingest(vec![SomeLead { age_s: 3, ..lead(4, 1) }], false),
        Report(vec![now(4, "won")], KnownPages),
        Settle(1, 4, [Failed, Refused, Delivered, Untouched], true),
        Settle(1, 4, all(Failed), true),
        // What raised an alarm: pieces in quarantine, a dead letter, a pause.
        Pause(true),
        TryAlarm(0),
        TryAlarm(1),
        EndAlarm(0),
        Pause(false),
        Requeue(4, 0),
        Requeue(1, 1),
        Requeue(1, 1),
        Settle(1, 1, all(Expired), false),
        RequeueMany(SomeLetters::Named(4), true),
        Requeue(1, 1),
        Requeue(4, 2),
        // Queues that move: to another dataset, to none, and by a report.
        Route(KnownPages),
        Route(Everywhere),
        Settle(3, 1, all(Refused), true),
        RequeueMany(SomeLetters::Named(2), false),
        Route(Nowhere),
        Report(vec![now(2, "qualified")], Nowhere),
        Report(vec![now(2, "initial_lead"), now(3, "won")], KnownPages),
        Settle(2, 2, [Failed, Delivered, Untouched, Untouched], true),
        Key(2),
        Key(1),
    ]
}

/// People and records whose lead is found later, and somebody without one.
fn matches() -> Vec<Step> {
    use Step::{Erase, Know, Link, Report, Settle};
    vec![
        Report(vec![by(Named::Record(0)), by(Named::Person(0)), by(Named::Person(1))], Everywhere),
        Report(vec![by(Named::Unmatched(1)), by(Named::Both(1)), by(Named::Id)], Everywhere),
        Link(3, 0),
        Know(3, 0),
        Report(
            vec![by(Named::Record(1)), by(Named::Person(0)), by(Named::IdAndPerson(1))],
            Nowhere,
        ),
        Link(3, 1),
        Know(9, 1),
        Settle(3, 4, [Failed, Delivered, Untouched, Untouched], true),
        Erase(9),
    ]
}

/// What goes.
fn removals() -> Vec<Step> {
    use Step::{Erase, Expire, Ingest, Remove, Report, Requeue, Settle, Wait};
    let all = |fate| [fate; 4];
    let old = SomeLead { age_s: 8 * DAY, ..lead(5, 1) };
    vec![
        // An erased lead stays erased.
        Erase(2),
        Erase(2),
        Erase(7),
        Ingest(vec![lead(2, 2)], false),
        Report(vec![now(2, "won")], KnownPages),
        // A week later nobody is waited for any more.
        Wait(8 * DAY),
        Expire,
        Requeue(3, 0),
        Ingest(vec![old], false),
        Report(vec![keyed(1, "qualified", 0), now(1, "won")], KnownPages),
        Settle(1, 4, all(Delivered), true),
        Expire,
        // What is old goes, and numbers go on.
        Wait(10 * DAY),
        Remove(DAY),
        Remove(0),
        Ingest(vec![lead(8, 1), lead(1, 1)], true),
        Settle(1, 1, all(Delivered), true),
    ]
}

/// Somebody who plays the script in a store, and in the model what the store has answered.
pub(in crate::store) struct Player {
    steps: Vec<Step>,
    /// How many steps were answered.
    pub(in crate::store) answered: usize,
    now_s: i64,
    model: MemoryStore,
}

impl Player {
    pub(in crate::store) fn new() -> Self {
        Self { steps: script(), answered: 0, now_s: 5, model: MemoryStore::default() }
    }

    /// Somebody who has had so many steps answered.
    pub(in crate::store) async fn after(answered: usize) -> Self {
        let mut player = Self::new();
        while player.answered < answered {
            take(&player.model, player.step().unwrap(), player.now_s).await.unwrap();
            player.advance();
        }
        player
    }

    fn step(&self) -> Option<&Step> {
        self.steps.get(self.answered)
    }

    fn advance(&mut self) {
        if let Some(Step::Wait(seconds)) = self.steps.get(self.answered) {
            self.now_s += seconds;
        }
        self.answered += 1;
    }

    /// Plays on until the store fails, and answers how; `None` at the end of the script. It is a
    /// fault if the store answers otherwise than the model.
    pub(in crate::store) async fn play(
        &mut self,
        store: &RedbStore,
    ) -> Result<Option<StoreError>, String> {
        while let Some(step) = self.step() {
            let told = match take(store, step, self.now_s).await {
                Ok(told) => told,
                Err(error) => return Ok(Some(error)),
            };
            let expected = take(&self.model, step, self.now_s).await.unwrap();
            if told != expected {
                return Err(format!("{step:?} answers {told} instead of {expected}"));
            }
            self.advance();
        }
        Ok(None)
    }

    /// Compares all that the store shows with the model. What was answered must be there, and what
    /// was under way wholly or not at all; if it is there, the model does it too.
    pub(in crate::store) async fn compare(&self, store: &RedbStore) -> Result<(), String> {
        let now = at(self.now_s);
        let shown = everything(store, now).await.map_err(|error| error.to_string())?;
        let before = everything(&self.model, now).await.unwrap();
        if shown == before {
            return Ok(());
        }
        let Some(step) = self.step() else {
            return Err(format!("at the end: {shown:?} instead of {before:?}"));
        };
        take(&self.model, step, self.now_s).await.unwrap();
        let after = everything(&self.model, now).await.unwrap();
        if shown == after {
            return Ok(());
        }
        Err(format!("at {step:?}: {shown:?} is neither {before:?} nor {after:?}"))
    }
}

#[tokio::test]
async fn the_script_is_given_every_answer_that_matters() {
    let mut player = Player::new();
    let mut answers = String::new();
    while let Some(step) = player.step() {
        answers += &take(&player.model, step, player.now_s).await.unwrap();
        player.advance();
    }
    let expected = "New Duplicate DifferingDuplicate [Erased Accepted( Known( IdempotencyConflict \
                    LeadNotFound LeadIsTest EventTimeNotAfterLead Expired Done( \
                    NotDead( Hopeless( requeued:_1 Some(Erased None awaiting:_1 held:_4 Some(CrmId) Some(Email) Linked filled:_[( \
                    leads:_5 quarantined:_1";
    let expected = expected.split_whitespace().map(|answer| answer.replace('_', " "));
    let missing: Vec<_> = expected.filter(|answer| !answers.contains(answer.as_str())).collect();
    assert_eq!(missing, [""; 0]);
}
