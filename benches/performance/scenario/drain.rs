//! A queue that gathered while Meta was away: how fast it empties, and what memory that takes,
//! beside the same requests with nothing read and nothing recorded.

use std::time::Duration;

use anyhow::{Context, ensure};
use leadloop::bench::LeadIds;
use leadloop::client::http_client;
use leadloop::clock::{Clock, SystemClock};
use leadloop::config::Dataset;
use leadloop::delivery::sink::{EventSink, GraphSink};
use leadloop::domain::customer::Customer;
use leadloop::domain::event::Event;
use leadloop::domain::ids::DatasetId;
use leadloop::domain::stage::{SourceName, StageName};
use leadloop::meta::conversions::{Envelope, request_body};
use tokio::time::{Instant, interval, timeout};

use crate::baseline::sink::COUNT;
use crate::outcome::{Outcome, Table, Target, Unit, grouped};
use crate::rig::{DATASET, Rig, SEED};
use crate::samples::{Samples, real};
use crate::stores::Events;

const BATCH: u64 = 1_000;
/// How often it is looked how many events came.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Longest that anything here may take.
const PATIENCE: Duration = Duration::from_mins(10);

pub(super) async fn measure(rig: &Rig) -> anyhow::Result<Outcome> {
    let events = rig.effort.many_leads;
    let queued = rig.store(events, Events::Queued).await?;
    let [mut drained, mut posted, mut memory] = [const { Vec::new() }; 3];
    for round in rig.rounds() {
        rig.step(format!("round {}, serialise and POST", round + 1));
        posted.push(timeout(PATIENCE, post(&rig.sink.url(), events)).await??);
        rig.step(format!("round {}, drain", round + 1));
        let counter = Counter::begin(&rig.sink.url()).await?;
        let server = rig.start_leadloop(Some(&queued), &rig.sink.url()).await?;
        let per_s = timeout(PATIENCE, drain(&counter, events)).await;
        drained.push(per_s.context("it takes too long")??);
        memory.push(server.process.memory()?.peak_mb);
    }
    let [drained, posted, memory] = [drained, posted, memory].map(Samples::from_iter);
    let mut outcome = Outcome::default();
    let what = format!("drain of {} queued events, events a second", grouped(events));
    outcome.goal(what, Target::AtLeast(100_000.0), Unit::PerSecond, drained.clone());
    let ratio = drained.ratio_to(&posted);
    let what = "drain ÷ serialise and POST only";
    outcome.goal(what, Target::AtLeast(0.5), Unit::Ratio, ratio);
    let mut table = Table::new("", &["queue of a stand-in that was away", "figure"]);
    table.row("drain", [Unit::PerSecond.summary(&drained)]);
    table.row(
        "serialise and POST the same, one request at a time",
        [Unit::PerSecond.summary(&posted)],
    );
    table.row("memory of leadloop while it drains, at most", [Unit::Megabytes.summary(&memory)]);
    outcome.tables.push(table);
    outcome.note(
        "The events are queued while nobody listens where Meta should be; then leadloop is started \
         with a stand-in that answers at once. The rate is counted there, from the first events \
         to the last.",
    );
    Ok(outcome)
}

/// Waits for so many events at the stand-in; answers how many came a second after the first ones.
async fn drain(counter: &Counter, events: u64) -> anyhow::Result<f64> {
    let mut pace = interval(LOOK_EVERY);
    let mut first = None;
    loop {
        pace.tick().await;
        let count = counter.taken().await?;
        if count == 0 {
            continue;
        }
        let (started, at_start) = *first.get_or_insert((Instant::now(), count));
        if count >= events {
            let seconds = started.elapsed().as_secs_f64();
            ensure!(seconds > 0.0, "all events came at once");
            return Ok(real(count - at_start) / seconds);
        }
    }
}

/// Writes and sends as many events in batches, one after the other; answers how many a second.
async fn post(sink: &str, events: u64) -> anyhow::Result<f64> {
    let dataset = dataset()?;
    let graph = GraphSink::new(&format!("{sink}/v24.0"))?;
    let batch: Vec<Event> = (0..BATCH).map(event).collect::<anyhow::Result<_>>()?;
    let batch: Vec<&Event> = batch.iter().collect();
    let envelope =
        Envelope { crm_name: &dataset.crm_name, partner_agent: None, test_event_code: None };
    let started = Instant::now();
    for _ in 0..events / BATCH {
        let answer = graph.send(&dataset, request_body(&batch, envelope)?).await;
        let answer = answer.ok().context("the stand-in did not answer")?;
        ensure!(answer.events_received == Some(BATCH), "the stand-in lost events");
    }
    Ok(real(events) / started.elapsed().as_secs_f64())
}

fn dataset() -> anyhow::Result<Dataset> {
    Ok(Dataset {
        id: DatasetId::parse(DATASET)?,
        access_token: "access-token".into(),
        crm_name: "CRM".to_owned(),
        raw_stage: StageName::parse("initial_lead")?,
        funnel: None,
        partner_agent: None,
        test_event_code: None,
    })
}

/// The raw-lead event of a lead, as the store would make it.
fn event(number: u64) -> anyhow::Result<Event> {
    let lead_id = LeadIds::new(SEED).get(number);
    let now = SystemClock.now();
    Ok(Event {
        lead_id,
        reported_lead: lead_id,
        source_dataset: None,
        stage: StageName::parse("initial_lead")?,
        reported_time: now.seconds(),
        event_time: now.seconds(),
        source: SourceName::webhook(),
        received_at: now,
        customer: Customer::default(),
        custom_data: None,
    })
}

/// Counts the events that come to a stand-in from some moment on.
struct Counter {
    client: reqwest::Client,
    address: String,
    before: u64,
}

impl Counter {
    async fn begin(sink: &str) -> anyhow::Result<Self> {
        let (client, address) = (http_client(sink)?, format!("{sink}{COUNT}"));
        let mut counter = Self { client, address, before: 0 };
        counter.before = counter.taken().await?;
        Ok(counter)
    }

    async fn taken(&self) -> anyhow::Result<u64> {
        let count: u64 = self.client.get(&self.address).send().await?.text().await?.parse()?;
        Ok(count - self.before)
    }
}
