//! Power cuts under the real store: whatever was answered is there afterwards, and whole.
//!
//! A disk in memory keeps what was flushed apart from what was only written. A cut stops it at a
//! random operation; of what was not flushed, each 512-byte sector survives by chance, whatever the
//! order it was written in. Then the store is opened on what is left, with further cuts while it
//! recovers, and everything is compared with a journal of what was answered.
//!
//! `LEADLOOP_CUTS=100000 cargo test --release power_cuts -- --nocapture` makes the long run.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::domain::alarm::{AlarmKind, Kept};
use crate::domain::event::{DeadReason, Standing};
use crate::domain::ids::EventId;
use crate::store::conformance::support::{
    DAY, NOBODY, all, at, attempt, dataset, lead_id, lead_of, routing, settlement, update,
};
use crate::store::query::{EventFilter, Page, PageRequest};
use crate::store::redb::RedbStore;
use crate::store::redb::tests::disk::Disk;
use crate::store::{Intake, Settlement, Store, StoreError, UpdateOutcome};

const CUTS_IN_CI: u64 = 1_000;

// ---- What happens, and what was answered -------------------------------------------------------

/// What was answered, so it must be there.
#[derive(Default)]
struct Journal {
    leads: BTreeSet<u64>,
    updates: BTreeSet<EventId>,
    delivered: BTreeSet<EventId>,
    dead: BTreeSet<EventId>,
    /// How many events died, for the alarm that counts them.
    died: u64,
}

impl Journal {
    /// One random use of the store.
    async fn step(&mut self, store: &RedbStore, random: &mut StdRng) -> Result<(), StoreError> {
        match random.random_range(0..10) {
            0..4 => self.ingest(store, random).await,
            4..7 => self.report(store, random).await,
            7 => self.requeue(store).await,
            _ => self.deliver(store, random).await,
        }
    }

    async fn ingest(&mut self, store: &RedbStore, random: &mut StdRng) -> Result<(), StoreError> {
        let first = random.random_range(0..60);
        let numbers: Vec<u64> = (first..first + random.random_range(1..5)).collect();
        let leads = numbers.iter().map(|number| lead_of(*number, number % 3)).collect();
        store.ingest(Intake { leads, quarantined: Vec::new() }, at(20)).await?;
        self.leads.extend(numbers);
        Ok(())
    }

    async fn report(&mut self, store: &RedbStore, random: &mut StdRng) -> Result<(), StoreError> {
        let some = |random: &mut StdRng| {
            let stage = ["qualified", "won"][random.random_range(0..2)];
            update(random.random_range(0..70), stage, random.random_range(2..20))
        };
        let updates = (0..random.random_range(1..4)).map(|_| some(random)).collect();
        let recorded = store.record_stage_updates(updates, &routing(), at(20)).await?;
        for outcome in recorded.outcomes {
            if let UpdateOutcome::Accepted(judged) | UpdateOutcome::Known(judged) = outcome {
                self.updates.insert(judged.detail.event.id());
            }
        }
        Ok(())
    }

    async fn deliver(&mut self, store: &RedbStore, random: &mut StdRng) -> Result<(), StoreError> {
        let dataset_id = dataset(random.random_range(1..3));
        let batch = store.next_batch(dataset_id, at(20), 10, &NOBODY).await?;
        let mut told = Settlement { dataset_id, ..settlement(Some(attempt(20, true)), 20) };
        let (mut delivered, mut dead) = (Vec::new(), Vec::new());
        for queued in batch.events {
            match random.random_range(0..4) {
                0 => told.failed.push(queued.entry),
                1 => {
                    told.dead.push((queued.entry, DeadReason::RefusedByMeta));
                    dead.push(queued.event.id());
                }
                _ => {
                    told.delivered.push(queued.entry);
                    delivered.push(queued.event.id());
                }
            }
        }
        store.settle(told).await?;
        self.delivered.extend(delivered);
        self.died += dead.len() as u64;
        self.dead.extend(dead);
        Ok(())
    }

    async fn requeue(&mut self, store: &RedbStore) -> Result<(), StoreError> {
        if let Some(event_id) = self.dead.first().copied() {
            // From here on it may be queued or dead, whatever is answered.
            self.dead.remove(&event_id);
            let _done = store.requeue(event_id, &routing(), at(20)).await?;
        }
        Ok(())
    }
}

/// What is wrong with a store, given what was answered; nothing if it is whole.
async fn faults(store: &RedbStore, journal: &Journal) -> Result<Vec<String>, StoreError> {
    let mut faults = Vec::new();
    for number in &journal.leads {
        let lead = store.find_lead(lead_id(*number)).await?;
        let is_raw = |stage: &str| stage == "initial_lead";
        let raw = lead.map(|lead| {
            lead.events.iter().filter(|detail| is_raw(detail.event.stage.as_str())).count()
        });
        if raw != Some(1) {
            faults.push(format!("lead {number} has {raw:?} raw-lead events"));
        }
    }
    let mut places: BTreeMap<EventId, Standing> = BTreeMap::new();
    for detail in whole_list(store).await? {
        let event_id = detail.event.id();
        if places.insert(event_id, detail.standing).is_some() {
            faults.push(format!("{event_id} is there twice"));
        }
    }
    let is = |event_id: &EventId, wanted: fn(&Standing) -> bool| {
        places.get(event_id).is_some_and(wanted)
    };
    let lost = |ids: &BTreeSet<EventId>, wanted: fn(&Standing) -> bool, what: &str| {
        let lost = ids.iter().filter(|event_id| !is(event_id, wanted));
        lost.map(|event_id| format!("{event_id} is not {what}")).collect::<Vec<_>>()
    };
    faults.extend(lost(&journal.updates, |_| true, "there"));
    faults.extend(lost(&journal.delivered, |s| matches!(s, Standing::Delivered), "delivered"));
    faults.extend(lost(&journal.dead, |s| matches!(s, Standing::Dead { .. }), "dead"));
    faults.extend(queue_faults(store, &places).await?);
    let told: u64 = store.alarms().await?.waiting.iter().map(|alarm| alarm.cause.count).sum();
    if told < journal.died {
        faults.push(format!("{} events died, the alarm tells of {told}", journal.died));
    }
    Ok(faults)
}

/// Whether the queues hold exactly the events that say they are queued, each once.
async fn queue_faults(
    store: &RedbStore,
    places: &BTreeMap<EventId, Standing>,
) -> Result<Vec<String>, StoreError> {
    let mut queued: Vec<EventId> = Vec::new();
    for number in [1, 2] {
        let batch = store.next_batch(dataset(number), at(DAY), 10_000, &NOBODY).await?;
        queued.extend(batch.events.iter().map(|queued| queued.event.id()));
    }
    queued.sort_unstable();
    let routed = |standing: &Standing| matches!(standing, Standing::Queued(Some(_)));
    let said: Vec<EventId> =
        places.iter().filter(|(_, standing)| routed(standing)).map(|(id, _)| *id).collect();
    let mut faults = Vec::new();
    if queued != said {
        faults.push(format!("queues hold {} events, {} say so", queued.len(), said.len()));
    }
    let count = |is: fn(&Standing) -> bool| places.values().filter(|s| is(s)).count() as u64;
    let stats = store.stats().await?;
    let expected = (
        count(|standing| matches!(standing, Standing::Queued(_))),
        count(|standing| *standing == Standing::AwaitingLead),
        count(|standing| matches!(standing, Standing::Dead { .. })),
    );
    if (stats.queued, stats.awaiting, stats.dead) != expected {
        faults.push(format!("{stats:?} instead of {expected:?}"));
    }
    Ok(faults)
}

async fn whole_list(
    store: &RedbStore,
) -> Result<Vec<crate::domain::event::EventDetail>, StoreError> {
    let mut whole = Vec::new();
    let mut request = PageRequest { limit: 1_000, ..all() };
    loop {
        let Page { items, next_cursor } =
            store.list_events(EventFilter::default(), request, at(20)).await?;
        whole.extend(items);
        match next_cursor {
            Some(cursor) => request.cursor = Some(cursor),
            None => return Ok(whole),
        }
    }
}

// ---- The cuts ---------------------------------------------------------------------------------

#[derive(Debug, Default)]
struct Tally {
    cuts: u64,
    cuts_in_recovery: u64,
    answered: u64,
    broken: Vec<String>,
}

/// Cuts the power of a disk over and over, and looks at what is left each time.
async fn run(seed: u64, cuts: u64, lies: bool) -> Tally {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tally = Tally::default();
    let mut disk = if lies { Disk::that_lies() } else { Disk::new() };
    let mut journal = Journal::default();
    let store = disk.store();
    let kinds = [AlarmKind::EventsDead].into_iter().collect();
    store.keep_alarms(Kept { kinds, ..Kept::default() }).await.unwrap();
    drop(store);
    for _ in 0..cuts {
        disk.cut_after(random.random_range(0..120));
        if let Ok(store) = disk.try_store() {
            while journal.step(&store, &mut random).await.is_ok() {
                tally.answered += 1;
            }
        }
        tally.cuts += 1;
        disk = disk.after_the_cut(&mut random);
        for _ in 0..random.random_range(0..3) {
            disk.cut_after(random.random_range(0..12));
            drop(disk.try_store());
            tally.cuts_in_recovery += 1;
            disk = disk.after_the_cut(&mut random);
        }
        let found = match disk.try_store() {
            Ok(store) => faults(&store, &journal).await,
            Err(error) => Err(error),
        };
        let found = found.unwrap_or_else(|error| vec![format!("it does not open: {error}")]);
        tally.broken.extend(found.iter().map(|fault| format!("seed {seed}: {fault}")));
        if !tally.broken.is_empty() {
            break;
        }
    }
    tally
}

#[tokio::test]
async fn nothing_that_was_answered_is_lost_or_torn_by_power_cuts() {
    let wanted = std::env::var_os("LEADLOOP_CUTS")
        .and_then(|cuts| cuts.to_str()?.parse().ok())
        .unwrap_or(CUTS_IN_CI);
    let mut total = Tally::default();
    for seed in 0.. {
        let tally = run(seed, 25, false).await;
        assert_eq!(tally.broken, [""; 0]);
        total.cuts += tally.cuts;
        total.cuts_in_recovery += tally.cuts_in_recovery;
        total.answered += tally.answered;
        if total.cuts >= wanted {
            break;
        }
    }
    println!("{total:?}");
    assert!(total.answered > total.cuts, "too little happened between cuts: {total:?}");
}

#[tokio::test]
async fn a_disk_that_lies_about_flushing_loses_what_was_answered() {
    let mut broken = 0;
    for seed in 0..20 {
        // What is left of the file may be such that redb panics on it; that is broken too.
        let tally = tokio::spawn(run(seed, 25, true)).await;
        broken += usize::from(!tally.is_ok_and(|tally| tally.broken.is_empty()));
    }
    assert!(broken >= 15, "the check can fail, and does: {broken} of 20");
}
