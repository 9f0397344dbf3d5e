//! Whether the file grows when as much is removed as comes in.

use std::collections::BTreeSet;

use leadloop::domain::attempt::Attempt;
use leadloop::domain::ids::{DatasetId, FormId, LeadId, PageId};
use leadloop::domain::lead::{Lead, ReportedLead};
use leadloop::domain::stage::{SourceName, StageName};
use leadloop::domain::time::{Timestamp, UnixSeconds};
use leadloop::store::redb::{Purpose, RedbStore};
use leadloop::store::{Hold, Intake, Settlement, Store};

use anyhow::Context;

use crate::outcome::{Outcome, Table, Target, Unit, grouped};
use crate::rig::Rig;
use crate::samples::{Samples, real};

const FIRST_DAY: i64 = 1_762_000_000;
const DAY_S: i64 = 86_400;
/// Days that are played, each with as many leads.
const DAYS: i64 = 8;
/// Days after which a lead is removed.
const KEPT_DAYS: i64 = 2;
const LEADS_PER_INTAKE: u64 = 1_000;
/// How much longer the file may get after the first day on which as much is removed as comes in.
const GROWTH_MAX: f64 = 1.0;

/// Adds what a store's file comes to, day by day, when its leads are removed after two days.
pub(super) async fn measure(rig: &Rig, outcome: &mut Outcome) -> anyhow::Result<()> {
    let folder = rig.disk.folder()?;
    let path = folder.path().join("leadloop.redb");
    let leads = rig.effort.many_leads / 10;
    let mut table = Table::new("", &["day", "leads", "length of the file"]);
    let mut lengths = Vec::new();
    for day in 0..DAYS {
        rig.step(format!("day {day} of churn"));
        let store = RedbStore::open(&path, Purpose::Sandbox)?;
        live_a_day(&store, day, leads).await?;
        let stored = store.stats().await?.leads;
        drop(store);
        let length = real(std::fs::metadata(&path)?.len());
        lengths.push(length);
        table.row(day + 1, [grouped(stored), Unit::Megabytes.show(length / 1e6)]);
    }
    // On the third day, the first leads are removed.
    let steady = usize::try_from(KEPT_DAYS)?;
    let growth = lengths[lengths.len() - 1] / lengths[steady];
    outcome.goal(
        format!("length of the file after {DAYS} days ÷ after {}", KEPT_DAYS + 1),
        Target::AtMost(GROWTH_MAX),
        Unit::Ratio,
        Samples::from_iter([growth]),
    );
    outcome.tables.push(table);
    outcome.note(format!(
        "Churn is played on the store itself, with a clock of its own: each day {} leads come, \
         their events are delivered, and what is older than {KEPT_DAYS} days is removed.",
        grouped(leads)
    ));
    Ok(())
}

/// Takes leads in, delivers their events, and removes what is old.
async fn live_a_day(store: &RedbStore, day: i64, leads: u64) -> anyhow::Result<()> {
    let now = UnixSeconds::new(FIRST_DAY + day * DAY_S).timestamp();
    let first = u64::try_from(day)? * leads;
    for from in (first..first + leads).step_by(usize::try_from(LEADS_PER_INTAKE)?) {
        let numbers = from..from + LEADS_PER_INTAKE;
        let leads = numbers.map(|number| lead(number, now)).collect::<anyhow::Result<_>>()?;
        store.ingest(Intake { leads, quarantined: Vec::new() }, now).await?;
        deliver(store, now).await?;
    }
    let before = UnixSeconds::new(FIRST_DAY + (day + 1 - KEPT_DAYS) * DAY_S).timestamp();
    let mut from = Some(0);
    while let Some(next) = from {
        from = store.remove_old(before, next).await?.next;
    }
    Ok(())
}

/// A lead whose id is somewhere among those of the others, as Meta's are.
fn lead(number: u64, now: Timestamp) -> anyhow::Result<Lead> {
    let scattered = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 4;
    let reported = ReportedLead {
        lead_id: LeadId::from_u64(1_000_000_000_000_000 + scattered).context("an id")?,
        page_id: PageId::from_u64(300),
        form_id: FormId::from_u64(172_036_835_026_334),
        ad_id: None,
        created_time: now.seconds() + -1,
        test: false,
    };
    let stage = StageName::parse("initial_lead")?;
    Ok(Lead::new(reported, SourceName::webhook(), dataset(), stage, now))
}

fn dataset() -> Option<DatasetId> {
    DatasetId::from_u64(700)
}

async fn deliver(store: &RedbStore, now: Timestamp) -> anyhow::Result<()> {
    let dataset_id = dataset().context("an id")?;
    let limit = usize::try_from(LEADS_PER_INTAKE)?;
    let batch = store.next_batch(dataset_id, now, limit, &BTreeSet::default()).await?;
    let attempt = Attempt {
        dataset_id,
        at: now,
        duration_ms: 200,
        events: u32::try_from(batch.events.len())?,
        delivered: true,
        http_status: Some(200),
        code: None,
        subcode: None,
        fbtrace_id: None,
        message: None,
    };
    let settlement = Settlement {
        dataset_id,
        attempt: Some(attempt),
        delivered: batch.events.iter().map(|queued| queued.entry).collect(),
        failed: Vec::new(),
        dead: Vec::new(),
        at: now,
        hold: Hold::default(),
    };
    Ok(store.settle(settlement).await?)
}
