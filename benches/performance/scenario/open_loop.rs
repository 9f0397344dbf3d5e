//! Requests that become due by themselves, with a million leads stored: how long each takes from
//! the moment it was due, so that a stall is charged for everybody who waited.

use std::time::Duration;

use leadloop::bench::{Pace, Report};

use crate::outcome::{Axis, Line, Outcome, Plot, Scale, Table, Target, Unit, grouped};
use crate::rig::{Rig, rotated, webhooks};
use crate::samples::{Samples, share_of_answered};
use crate::stores::Events;

const RATES: [f64; 3] = [1_000.0, 5_000.0, 10_000.0];
/// Where the goals are.
const GOAL_RATE: usize = 1;
const CONNECTIONS: usize = 256;
const QUANTILES: [f64; 9] = [0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999];
const SHOWN: [(&str, usize); 3] = [("p50", 0), ("p99", 4), ("p99.9", 6)];

pub(super) async fn measure(rig: &Rig) -> anyhow::Result<Outcome> {
    let leads = rig.effort.many_leads;
    let stored = format!("{} leads stored", grouped(leads));
    let store = rig.store(leads, Events::Delivered).await?;
    let mut latencies = RATES.map(|_| QUANTILES.map(|_| Samples::default()));
    let (mut done, mut failed) = (RATES.map(|_| Samples::default()), 0);
    for round in rig.rounds() {
        for place in rotated(&[0, 1, 2], round) {
            let per_s = RATES[place];
            rig.step(format!("round {}, {per_s}/s", round + 1));
            let server = rig.start_leadloop(Some(&store), &rig.sink.url()).await?;
            let pace = Pace::Open { per_s };
            let report = rig.load(&server, webhooks(1, leads), CONNECTIONS, pace).await?;
            done[place].push(report.per_s());
            failed += report.failed();
            for (samples, share) in latencies[place].iter_mut().zip(QUANTILES) {
                samples.push(latency_ms(&report, share, rig.effort.measure));
            }
        }
    }
    let mut outcome = Outcome::default();
    for ((name, quantile), most) in SHOWN.into_iter().skip(1).zip([3.0, 10.0]) {
        let what = format!("open loop at 5,000/s, {stored}, {name}");
        let samples = latencies[GOAL_RATE][quantile].clone();
        outcome.goal(what, Target::AtMost(most), Unit::Milliseconds, samples);
    }
    let head = ["offered", "answered"].into_iter().chain(SHOWN.map(|(name, _)| name));
    let mut table = Table::new("", &head.collect::<Vec<_>>());
    let mut lines = Vec::new();
    for ((per_s, done), latencies) in RATES.iter().zip(&done).zip(&latencies) {
        let figures = SHOWN.map(|(_, place)| Unit::Milliseconds.summary(&latencies[place]));
        let done = [Unit::PerSecond.summary(done)];
        table.row(Unit::PerSecond.show(*per_s), done.into_iter().chain(figures));
        let points = QUANTILES.iter().zip(latencies);
        let points = points.map(|(share, samples)| (1.0 / (1.0 - share), samples.median()));
        lines.push(Line { name: Unit::PerSecond.show(*per_s), points: points.collect() });
    }
    outcome.tables.push(table);
    outcome.plots.push(Plot {
        name: "open-loop".to_owned(),
        title: format!("Latency from the moment a request was due, {stored}"),
        x: Axis::new("share of the requests", Scale::Nines),
        y: Axis::new("milliseconds", Scale::Logarithmic),
        lines,
    });
    outcome.note(format!(
        "{} requests were not answered with 200; they count as if they had taken the whole \
         measurement.",
        grouped(failed)
    ));
    Ok(outcome)
}

/// The latency that this share of what was due did not exceed: what failed came never.
fn latency_ms(report: &Report, share: f64, measure: Duration) -> f64 {
    match share_of_answered(share, report.requests, report.failed()) {
        Some(share) => report.quantile_us(share) / 1_000.0,
        None => measure.as_secs_f64() * 1_000.0,
    }
}
