//! Whether leadloop gets slower as it fills: the rate of durable answers with many leads stored.

use std::collections::BTreeSet;

use leadloop::bench::Pace;

use crate::outcome::{Axis, Line, Outcome, Plot, Scale, Table, Target, Unit, grouped};
use crate::rig::{Rig, rotated, webhooks};
use crate::samples::{Samples, real};
use crate::stores::Events;

const CONNECTIONS: usize = 64;
/// Leads in the stores below those that the goals are about.
const BELOW: [u64; 3] = [0, 10_000, 100_000];

pub(super) async fn measure(rig: &Rig) -> anyhow::Result<Outcome> {
    let goals = [Some((rig.effort.many_leads, 0.85)), rig.effort.most_leads.map(|n| (n, 0.75))];
    let goals: Vec<(u64, f64)> = goals.into_iter().flatten().collect();
    let sizes = BELOW.into_iter().chain(goals.iter().map(|goal| goal.0));
    let sizes: Vec<u64> = sizes.collect::<BTreeSet<_>>().into_iter().collect();
    let mut rates = vec![Samples::default(); sizes.len()];
    let places: Vec<usize> = (0..sizes.len()).collect();
    for round in rig.rounds() {
        for place in rotated(&places, round) {
            let leads = sizes[place];
            let store = match leads {
                0 => None,
                _ => Some(rig.store(leads, Events::Delivered).await?),
            };
            let server = rig.start_leadloop(store.as_deref(), &rig.sink.url()).await?;
            rig.step(format!("round {}, {leads} leads", round + 1));
            let load = webhooks(1, leads);
            let report = rig.load(&server, load, CONNECTIONS, Pace::Closed).await?;
            rates[place].push(report.per_s());
        }
    }
    let mut outcome = Outcome::default();
    let mut table = Table::new("", &["leads stored", "requests a second, 64 connections"]);
    for (leads, rate) in sizes.iter().zip(&rates) {
        table.row(grouped(leads), [Unit::PerSecond.summary(rate)]);
    }
    for (leads, least) in goals {
        let rate = &rates[sizes.partition_point(|size| *size < leads)];
        let what = format!(
            "durable ingest with {} leads stored ÷ with none, 64 connections",
            grouped(leads)
        );
        outcome.goal(what, Target::AtLeast(least), Unit::Ratio, rate.ratio_to(&rates[0]));
    }
    // None has no place on the axis.
    let points = sizes.iter().zip(&rates).skip(1);
    let points = points.map(|(leads, rate)| (real(*leads), rate.median()));
    outcome.tables.push(table);
    outcome.plots.push(Plot {
        name: "filled".to_owned(),
        title: "Durable ingest as the store fills, 64 connections".to_owned(),
        x: Axis::new("leads stored", Scale::Logarithmic),
        y: Axis::new("requests a second", Scale::Linear),
        lines: vec![Line { name: "leadloop".to_owned(), points: points.collect() }],
    });
    Ok(outcome)
}
