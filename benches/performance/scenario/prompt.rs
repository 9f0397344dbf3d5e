//! How soon Meta is told: from the moment an answer was received until its event came in at the
//! stand-in, which runs in this process, so that one clock shows both.

use std::time::Duration;

use anyhow::{Context, ensure};
use leadloop::bench::Pace;
use leadloop::client::http_client;
use leadloop::clock::{Clock, Random, SeededRandom, SystemClock};
use leadloop::domain::ids::{FormId, LeadId, PageId};
use leadloop::http::server::{DoorLimits, serve};
use leadloop::sandbox::trigger::{SAMPLE_AGE_S, SampleLead, deliver, sample_lead_id, webhook_body};
use tokio::net::TcpListener;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::baseline::sink::Sink;
use crate::candidate::Server;
use crate::outcome::{Outcome, Table, Target, Unit};
use crate::rig::{APP_SECRET, Rig, SEED, webhooks};
use crate::samples::{Samples, quantile};

const CONNECTIONS: usize = 64;
const PROBES: usize = 500;
const PROBE_EVERY: Duration = Duration::from_millis(10);
/// Longest that an event may take before it is missing.
const PATIENCE: Duration = Duration::from_secs(30);
const SHOWN: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("most", 1.0)];

type Delays = [Samples; 3];

pub(super) async fn measure(rig: &Rig) -> anyhow::Result<Outcome> {
    let probes = PROBES.min(rig.effort.rounds * PROBES / 2);
    let [mut idle, mut loaded] = [Delays::default(), Delays::default()];
    let mut rates = Samples::default();
    for round in rig.rounds() {
        let meta = Meta::start().await?;
        rig.step(format!("round {}, idle", round + 1));
        let server = rig.start_leadloop(None, &meta.url).await?;
        note(&mut idle, probe(&server, &meta.sink, probes, round).await?);
        drop(server);
        rig.step(format!("round {}, the rate that is possible", round + 1));
        let server = rig.start_leadloop(None, &meta.url).await?;
        let possible = rig.load(&server, webhooks(1, 0), CONNECTIONS, Pace::Closed).await?;
        drop(server);
        rig.step(format!("round {}, half load", round + 1));
        let server = rig.start_leadloop(None, &meta.url).await?;
        let per_s = possible.per_s() / 2.0;
        rates.push(per_s);
        let load = rig.load(&server, webhooks(1, 0), CONNECTIONS, Pace::Open { per_s });
        // As many probes as there is time for.
        let probes = (rig.effort.measure.as_millis() / PROBE_EVERY.as_millis()).try_into()?;
        let probing = async {
            sleep(rig.effort.warm_up).await;
            probe(&server, &meta.sink, probes, round).await
        };
        let (report, delays) = tokio::join!(load, probing);
        report?;
        note(&mut loaded, delays?);
    }
    Ok(outcome(&idle, &loaded, &rates))
}

fn outcome(idle: &Delays, loaded: &Delays, rates: &Samples) -> Outcome {
    let mut outcome = Outcome::default();
    let head = ["from answer to event"].into_iter().chain(SHOWN.map(|(name, _)| name));
    let mut table = Table::new("", &head.collect::<Vec<_>>());
    for (when, most, delays) in [("idle", 5.0, idle), ("half load", 50.0, loaded)] {
        let what = format!("answer received → event at the stand-in, {when}, p99");
        outcome.goal(what, Target::AtMost(most), Unit::Milliseconds, delays[1].clone());
        table.row(when, delays.iter().map(|samples| Unit::Milliseconds.summary(samples)));
    }
    outcome.tables.push(table);
    let rate = Unit::PerSecond.summary(rates);
    outcome.note(format!(
        "Probes of one lead each, one every {} ms at most. Half load is {rate} besides. An event \
         that overtakes its answer counts as 0 ms.",
        PROBE_EVERY.as_millis()
    ));
    outcome
}

/// The stand-in in this process.
struct Meta {
    sink: Sink,
    url: String,
    _stop: DropGuard,
}

impl Meta {
    async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (sink, stop) = (Sink::default(), CancellationToken::new());
        let router = sink.clone().router();
        tokio::spawn(serve(listener, router, DoorLimits::default(), stop.clone()));
        Ok(Self { sink, url, _stop: stop.drop_guard() })
    }
}

/// Sends leads one by one, and answers how long after each answer the event came, in milliseconds.
async fn probe(
    server: &Server,
    sink: &Sink,
    probes: usize,
    round: usize,
) -> anyhow::Result<Vec<f64>> {
    let address = format!("{}/webhooks/meta", server.url());
    let (client, secret) = (http_client(&address)?, APP_SECRET.into());
    let random = SeededRandom::new(SEED + round as u64);
    let mut pace = interval(PROBE_EVERY);
    let mut answered = Vec::with_capacity(probes);
    for _ in 0..probes {
        pace.tick().await;
        let lead = sample(sample_lead_id(random.next_u64()))?;
        sink.watch(lead.lead_id.get());
        let status = deliver(&client, &address, &secret, webhook_body(&[lead])).await?;
        answered.push((lead.lead_id.get(), Instant::now()));
        ensure!(status == 200, "a probe was answered with {status}");
    }
    let mut delays_ms = Vec::with_capacity(probes);
    for (lead_id, answered) in answered {
        let arrived = timeout(PATIENCE, arrival(sink, lead_id)).await;
        let delay = arrived.context("an event is missing")?.saturating_duration_since(answered);
        delays_ms.push(delay.as_secs_f64() * 1_000.0);
    }
    Ok(delays_ms)
}

async fn arrival(sink: &Sink, lead_id: u64) -> Instant {
    let mut pace = interval(Duration::from_millis(1));
    loop {
        if let Some(arrival) = sink.arrival(lead_id) {
            return arrival;
        }
        pace.tick().await;
    }
}

/// A lead that is old enough for its raw-lead event to be sent at once.
pub(super) fn sample(lead_id: LeadId) -> anyhow::Result<SampleLead> {
    let page_id = PageId::from_u64(300).context("a Page's id")?;
    let form_id = FormId::from_u64(17).context("a form's id")?;
    let created_time = SystemClock.now().seconds() + -SAMPLE_AGE_S;
    Ok(SampleLead { lead_id, page_id, form_id, created_time })
}

fn note(delays: &mut Delays, mut delays_ms: Vec<f64>) {
    for (samples, (_, share)) in delays.iter_mut().zip(SHOWN) {
        samples.push(quantile(&mut delays_ms, share));
    }
}
